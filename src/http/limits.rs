//! How often each token may ask, remembered over a restart: a bucket that a minute fills (GCRA in its simplest form). Wrong tokens share
//! one bucket of their own, so that guessing is slow and takes nothing from those who know theirs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::system::files;
use crate::types::Wall;

/// The bucket of requests without a token.
pub(super) const ANYBODY: &str = "-";
/// The bucket of wrong tokens.
const STRANGERS: &str = "?";
/// Wrong tokens a minute.
const GUESSES_PER_MINUTE: u32 = 10;
const MINUTE_MS: i64 = 60_000;
/// The largest file of remembered rates that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 16;

/// What a bucket holds: requests times a minute's milliseconds, so that fractions are whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    left: i64,
    at_ms: i64,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    is_saved: bool,
}

/// All buckets.
pub(super) struct Limits {
    path: PathBuf,
    per_minute: u32,
    state: Mutex<State>,
}

impl Limits {
    /// Goes on from what `path` remembers; a file that cannot be read or understood is as if there were none.
    pub(super) fn open(path: PathBuf, per_minute: u32) -> Self {
        let read = files::read(&path, MAX_FILE_BYTES + 1).ok().flatten().filter(|bytes| bytes.len() as u64 <= MAX_FILE_BYTES);
        let buckets = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, per_minute, state: Mutex::new(State { buckets, is_saved: true }) }
    }

    /// Takes one request of `name`, or says in how many seconds there is one. Names are those of tokens and [`ANYBODY`]: few.
    pub(super) fn take(&self, name: &str, now: Wall) -> Result<(), u64> {
        self.take_of(name, self.per_minute, now)
    }

    /// Takes one guess.
    pub(super) fn take_guess(&self, now: Wall) -> Result<(), u64> {
        self.take_of(STRANGERS, GUESSES_PER_MINUTE, now)
    }

    fn take_of(&self, name: &str, per_minute: u32, now: Wall) -> Result<(), u64> {
        let full = i64::from(per_minute) * MINUTE_MS;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Bucket { left: full, at_ms: now.0 };
        let bucket = state.buckets.get(name).copied().unwrap_or(fresh);
        // A clock that was set back fills nothing; one set forward fills at most the bucket.
        let gained = now.0.saturating_sub(bucket.at_ms).max(0).saturating_mul(i64::from(per_minute));
        let left = bucket.left.saturating_add(gained).min(full) - MINUTE_MS;
        if left < 0 {
            // Rounded up, both times.
            let wait_ms = left.unsigned_abs().div_ceil(u64::from(per_minute).max(1));
            return Err(wait_ms.div_ceil(1000).max(1));
        }
        state.buckets.insert(name.to_owned(), Bucket { left, at_ms: now.0 });
        state.is_saved = false;
        Ok(())
    }

    /// Writes what has changed, whole or not at all. That it cannot be written costs only the memory over a restart.
    pub(super) fn save(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_saved {
            return;
        }
        state.is_saved = true;
        let Ok(bytes) = serde_json::to_vec(&state.buckets) else { return };
        drop(state);
        let unfinished = self.path.with_extension("part");
        let written = files::replace(&self.path, &unfinished, &bytes);
        if let Err(error) = written {
            log::debug!("the API's rates were not saved: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_allows_so_many_and_the_memory_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let limits = Limits::open(path.clone(), 6);
        let at = |seconds: i64| Wall(1_000_000 + seconds * 1000);
        assert!((0..6).all(|_| limits.take("panel", at(0)).is_ok()));
        assert_eq!(limits.take("panel", at(0)), Err(10));
        assert!(limits.take("clerk", at(0)).is_ok(), "another token has its own");
        limits.save();
        let again = Limits::open(path.clone(), 6);
        assert_eq!(again.take("panel", at(1)), Err(9));
        assert_eq!(again.take("panel", at(-3600)), Err(10), "a clock set back fills nothing");
        assert!(again.take("panel", at(10)).is_ok());
        std::fs::write(&path, b"no JSON").unwrap();
        assert!(Limits::open(path, 6).take("panel", at(0)).is_ok());
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let limits = Limits::open(path.clone(), 6);
        let target = files::planted::Target::new();
        for place in [path.with_extension("part"), path] {
            target.outlives(&place, || {
                let _ = limits.take("panel", Wall(0));
                limits.state.lock().unwrap().is_saved = false;
                limits.save();
            });
        }
    }

    #[test]
    fn guesses_are_few_whatever_the_rate() {
        let limits = Limits::open("/nowhere/limits.json".into(), 100_000);
        assert!((0..GUESSES_PER_MINUTE).all(|_| limits.take_guess(Wall(0)).is_ok()));
        assert!(limits.take_guess(Wall(0)).is_err());
        limits.save();
    }
}
