//! Grants that wait for the panel's word. Pure: permits, words and time in; verdicts out, and the permits that they free.
//!
//! A panel answers cards in the order in which they came, so a word belongs to the oldest that waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::admission::Permit;
use super::panel::{Verdict, Word};
use crate::types::{Monotonic, PersonId};

/// The most that wait at once; more people than that do not come within seconds.
const MOST: usize = 4;

/// What became of a presentation.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) person: PersonId,
    pub(super) jti: String,
    /// To be acted upon: the panel granted what waited for it.
    pub(super) permit: Option<Permit>,
}

struct Pending {
    person: PersonId,
    jti: String,
    permit: Option<Permit>,
    until: Monotonic,
}

/// The line of those who wait.
pub(super) struct Presenting {
    /// Whether a permit is held back until the panel has granted it.
    waits: bool,
    within: Duration,
    pending: VecDeque<Pending>,
}

impl Presenting {
    pub(super) fn new(waits: bool, within: Duration) -> Self {
        Self { waits, within, pending: VecDeque::new() }
    }

    /// Whether permits are held back until the panel has granted them.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Begins to wait; gives the permit back where nothing waits for the panel. `None` and false: there is no room.
    pub(super) fn begin(&mut self, permit: Permit, now: Monotonic) -> (bool, Option<Permit>) {
        if self.pending.len() >= MOST {
            return (false, (!self.waits).then_some(permit));
        }
        let (person, jti) = (permit.person().clone(), permit.jti().to_owned());
        let (held, given) = if self.waits { (Some(permit), None) } else { (None, Some(permit)) };
        self.pending.push_back(Pending { person, jti, permit: held, until: now.plus(self.within) });
        (true, given)
    }

    /// What the panel said, or that time has passed.
    pub(super) fn step(&mut self, word: Option<&Word>, now: Monotonic) -> Option<Outcome> {
        let verdict = match word {
            Some(Word::Secure(false)) => {
                // Its session is gone, and whatever it says next is about something else.
                self.pending.iter_mut().for_each(|pending| pending.until = now);
                Verdict::Silent
            }
            _ if self.pending.front()?.until <= now => Verdict::Silent,
            Some(word) => word.verdict()?,
            None => return None,
        };
        let Pending { person, jti, permit, .. } = self.pending.pop_front()?;
        Some(Outcome { verdict, person, jti, permit: permit.filter(|_| verdict == Verdict::Granted) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::panel::Colour;
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    fn waiting() -> Presenting {
        let mut presenting = Presenting::new(true, Duration::from_secs(3));
        let (taken, given) = presenting.begin(Permit::for_tests(), at(0));
        assert!(taken && given.is_none());
        presenting
    }

    #[test]
    fn a_denial_silence_a_lost_line_and_a_late_word_free_no_permit() {
        for (word, now) in [
            (Some(Word::Light(Colour::Red)), 10),
            (None, 3_000),
            (Some(Word::Secure(false)), 10),
            (Some(Word::NotPresented), 10),
            (Some(Word::Light(Colour::Green)), 3_000),
        ] {
            let outcome = waiting().step(word.as_ref(), at(now)).unwrap();
            assert!(outcome.permit.is_none() && outcome.verdict != Verdict::Granted, "{word:?}");
        }
        let mut presenting = waiting();
        for word in [Word::Buzzer, Word::Text("hello".into()), Word::Secure(true), Word::Output(false), Word::Light(Colour::Off)] {
            assert!(presenting.step(Some(&word), at(10)).is_none(), "{word:?}");
        }
    }

    #[test]
    fn a_grant_frees_the_oldest_permit_once_and_without_one_that_waits_it_frees_nothing() {
        let mut presenting = waiting();
        let green = Word::Light(Colour::Green);
        let outcome = presenting.step(Some(&green), at(10)).unwrap();
        assert_eq!((outcome.verdict, outcome.permit.unwrap().jti()), (Verdict::Granted, "j0"));
        assert!(presenting.step(Some(&green), at(20)).is_none());
        for _ in 0..MOST {
            assert!(presenting.begin(Permit::for_tests(), at(30)).0);
        }
        let (taken, given) = presenting.begin(Permit::for_tests(), at(30));
        assert!(!taken && given.is_none(), "one too many is not let through either");
    }

    #[test]
    fn where_the_grant_alone_opens_the_permit_comes_back_at_once_and_never_again() {
        let mut presenting = Presenting::new(false, Duration::from_secs(3));
        assert!(presenting.begin(Permit::for_tests(), at(0)).1.is_some());
        assert!(presenting.step(Some(&Word::Output(true)), at(10)).unwrap().permit.is_none());
    }
}
