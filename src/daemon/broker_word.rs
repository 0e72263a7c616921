//! What has become of the broker's word that no older state was put back, for whoever asks how the daemon is.

use std::sync::{Mutex, PoisonError};

/// What the broker has said since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Word {
    /// Nothing yet: there is no connection, or it has just begun.
    #[default]
    Awaited,
    /// Nothing, although it is connected. Why.
    Silent(String),
    /// What it keeps was read and compared.
    Heard,
    /// It has shown that it keeps nothing, and was never told anything.
    NoneKept,
    /// It has shown that it keeps nothing of what it was told before.
    Forgotten(String),
}

impl Word {
    /// As `stats` says it: a closed list.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Word::Awaited => "awaited",
            Word::Silent(_) => "silent",
            Word::Heard => "heard",
            Word::NoneKept => "none-kept",
            Word::Forgotten(_) => "forgotten",
        }
    }

    /// Why nothing vouches for this device's state, if so.
    pub(super) fn why_unheard(&self) -> Option<String> {
        match self {
            Word::Awaited => Some("it has not been heard since the start".to_owned()),
            Word::Silent(why) => Some(why.clone()),
            Word::Heard | Word::NoneKept | Word::Forgotten(_) => None,
        }
    }
}

/// The word, shared between who hears it and who is asked for it.
#[derive(Debug, Default)]
pub(super) struct BrokerWord(Mutex<Word>);

impl BrokerWord {
    pub(super) fn get(&self) -> Word {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when it is another than before.
    pub(super) fn set(&self, word: Word) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *held != word;
        *held = word;
        is_news
    }
}
