//! Decisions on disk: what the outbox has numbered, what the broker has confirmed of it, and what can still be replayed.
//!
//! What is written is the copy without the grant that history gets: a grant never touches the disk, so nothing that is read from there
//! can open a door. A decision is durable before it is published. That it was confirmed is written without waiting for the disk: losing
//! that costs a second copy with the same id. Confirmed decisions stay for `cmd/replay` until size or age takes their segment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sealed::{Limits, Location, SealedError, SealedLog, StateKey};

/// Segments a log is divided into: the part that is given up at once.
const SEGMENTS: u64 = 16;
/// What its log is for.
pub(super) const PURPOSE: &str = "outbox";

#[derive(Serialize, Deserialize)]
enum Record {
    Decision { sequence: u64, topic: String, payload: String },
    Confirmed { sequence: u64 },
}

/// A decision as history gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) topic: String,
    pub(super) payload: String,
}

/// The outbox's disk.
pub struct Journal {
    log: SealedLog,
    decisions: BTreeMap<u64, Location>,
    /// Not confirmed when the journal was opened.
    unconfirmed: BTreeSet<u64>,
}

impl Journal {
    /// Opens or makes the folder. At most `max_bytes` and nothing older than `max_age` are kept.
    pub fn open(folder: &Path, key: &StateKey, max_bytes: u64, max_age: Duration) -> Result<Self, SealedError> {
        let limits = Limits { total_bytes: max_bytes, segment_bytes: max_bytes / SEGMENTS, max_age };
        let mut decisions = BTreeMap::new();
        let mut unconfirmed = BTreeSet::new();
        let log = SealedLog::open(folder, key.share(), PURPOSE, limits, |location, plain| match postcard::from_bytes(plain) {
            // Nothing could follow it, and it would be handed out for ever.
            Ok(Record::Decision { sequence: u64::MAX, .. }) => {
                log::warn!("a decision of the outbox has no number and is passed over")
            }
            Ok(Record::Decision { sequence, .. }) => {
                decisions.insert(sequence, location);
                unconfirmed.insert(sequence);
            }
            Ok(Record::Confirmed { sequence }) => {
                unconfirmed.remove(&sequence);
            }
            Err(_) => log::warn!("a record of the outbox is of another version and is passed over"),
        })?;
        Ok(Self { log, decisions, unconfirmed })
    }

    /// The number that the next decision gets: there is no gap to the last one.
    pub fn next_sequence(&self) -> u64 {
        self.decisions.last_key_value().map_or(1, |(last, _)| last.saturating_add(1))
    }

    /// What was on its way when the last run ended.
    pub(super) fn take_unconfirmed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.unconfirmed)
    }

    /// Makes a decision durable. A failed write is tried once more in a fresh segment.
    pub(super) fn write(&mut self, sequence: u64, copy: Copy) -> Result<(), SealedError> {
        let record = Record::Decision { sequence, topic: copy.topic, payload: copy.payload };
        let plain = encode(&record);
        let location = self.log.append(&plain, true).or_else(|_| self.log.append(&plain, true))?;
        self.decisions.insert(sequence, location);
        Ok(())
    }

    /// Notes that the broker has it.
    pub(super) fn confirm(&mut self, sequence: u64) {
        if let Err(error) = self.log.append(&encode(&Record::Confirmed { sequence }), false) {
            log::error!("a confirmation was not noted, the decision may be delivered again: {error}");
        }
    }

    /// A decision that is still here.
    pub(super) fn read(&self, sequence: u64) -> Option<Copy> {
        let location = self.decisions.get(&sequence)?;
        match self.log.read(*location).map(|plain| postcard::from_bytes(&plain)) {
            Ok(Ok(Record::Decision { topic, payload, .. })) => Some(Copy { topic, payload }),
            Ok(_) => None,
            Err(error) => {
                log::error!("decision {sequence} cannot be read again: {error}");
                None
            }
        }
    }

    /// Whether a decision is still here.
    pub(super) fn has(&self, sequence: u64) -> bool {
        self.decisions.contains_key(&sequence)
    }

    /// The numbers of up to `limit` decisions from `from` on that are still here.
    pub(super) fn from(&self, from: u64, limit: usize) -> Vec<u64> {
        self.decisions.range(from..).take(limit).map(|(sequence, _)| *sequence).collect()
    }

    /// Gives up what is too much or too old; gives the numbers of the decisions that went. The last decision always stays, because it
    /// says which number comes next.
    pub(super) fn prune(&mut self) -> Vec<u64> {
        let keep = self.decisions.last_key_value().map_or(0, |(_, location)| location.segment).min(self.log.newest());
        let gone: BTreeSet<u64> = self.log.prune(keep).into_iter().collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let lost: Vec<u64> =
            self.decisions.iter().filter(|(_, location)| gone.contains(&location.segment)).map(|(sequence, _)| *sequence).collect();
        self.decisions.retain(|_, location| !gone.contains(&location.segment));
        lost
    }
}

/// Records of numbers and texts always serialise; an empty one would be passed over when it is read.
fn encode(record: &Record) -> Vec<u8> {
    postcard::to_stdvec(record).unwrap_or_default()
}

/// Records as a run writes them, for the fuzzer to edit.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn sound_records() -> Vec<Vec<u8>> {
    let decision =
        |sequence| Record::Decision { sequence, topic: "door/front/decision".into(), payload: format!("{{\"n\":{sequence}}}") };
    [decision(1), decision(2), Record::Confirmed { sequence: 1 }, decision(3)].iter().map(encode).collect()
}

/// Records with the highest numbers there are.
#[cfg(test)]
pub(super) fn highest_records() -> Vec<Vec<u8>> {
    let decision = |sequence| Record::Decision { sequence, topic: String::new(), payload: String::new() };
    [decision(u64::MAX), decision(u64::MAX - 1), Record::Confirmed { sequence: u64::MAX }].iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sealed::tests::key;
    use super::*;

    fn open(folder: &Path, bytes: u64) -> Journal {
        Journal::open(folder, &key(), bytes, Duration::from_secs(3600)).unwrap()
    }

    fn copy(n: u64) -> Copy {
        Copy { topic: "door/front/decision".into(), payload: format!("{{\"n\":{n}}}") }
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_what_was_not_confirmed_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path(), 1 << 20);
        assert_eq!(journal.next_sequence(), 1);
        (1..=5).for_each(|n| journal.write(n, copy(n)).unwrap());
        [1, 2, 4].into_iter().for_each(|n| journal.confirm(n));
        drop(journal);
        let mut journal = open(folder.path(), 1 << 20);
        assert_eq!(journal.next_sequence(), 6);
        assert_eq!(journal.take_unconfirmed().into_iter().collect::<Vec<_>>(), [3, 5]);
        assert_eq!(journal.read(2), Some(copy(2)), "confirmed, and still there to be replayed");
        assert_eq!(journal.from(2, 3), [2, 3, 4]);
        assert_eq!(journal.read(6), None);
    }

    #[test]
    fn the_bound_takes_the_oldest_and_the_next_number_survives_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path(), 4096);
        let mut lost = Vec::new();
        for n in 1..=200 {
            journal.write(n, copy(n)).unwrap();
            lost.extend(journal.prune());
        }
        assert!(!lost.is_empty() && lost.iter().copied().eq(1..=lost.len() as u64), "{lost:?}");
        drop(journal);
        assert_eq!(open(folder.path(), 4096).next_sequence(), 201);
        let mut tiny = open(folder.path(), 1);
        tiny.prune();
        assert_eq!(tiny.next_sequence(), 201);
    }
}
