//! How often each token may ask, remembered over a restart: a bucket that a minute fills (GCRA in its simplest form). Within a run time is
//! the monotonic clock's, so that a clock set right neither fills a bucket nor stops one; over a restart it is the system's clock, and a
//! bucket from a time to come is as full as it was and fills from now on.
//!
//! Wrong tokens cost a guess, and guesses are counted by the user whose process asks (see [`super::peer`]). A user who has none left is
//! told to come again whatever the token is, so that ten tokens are tried at once, ten a minute after that, and no more; users who guess nothing are not
//! hindered by it. Processes of one user are not told apart: one with a wrong token hinders the others.

use std::collections::BTreeMap;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::system::files;
use crate::types::{Moment, Monotonic, Wall};

/// The bucket of requests without a token.
pub(super) const ANYBODY: &str = "-";
/// The beginning of the names of those who guessed wrong, alone or with a blank and the user's number. No token has it: names have no
/// blank, and this one is refused.
pub(super) const STRANGERS: &str = "?";
/// Wrong tokens a minute and user.
pub(super) const GUESSES_PER_MINUTE: u32 = 10;
/// Users whose wrong tokens are counted apart; all others share one account.
const MOST_STRANGERS: usize = 64;
const MINUTE_MS: i64 = 60_000;
/// The largest file of remembered rates that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 16;

/// What a bucket holds, on the disk: requests times a minute's milliseconds, so that fractions are whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    left: i64,
    at_ms: i64,
}

/// The same in memory.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: i64,
    at: Monotonic,
}

fn full(per_minute: u32) -> i64 {
    i64::from(per_minute) * MINUTE_MS
}

impl Bucket {
    fn fresh(per_minute: u32, now: Monotonic) -> Self {
        Self { left: full(per_minute), at: now }
    }

    fn restored(kept: Kept, per_minute: u32, now: Moment) -> Self {
        let full = full(per_minute);
        let away_ms = now.wall.0.saturating_sub(kept.at_ms).max(0);
        let gained = away_ms.saturating_mul(i64::from(per_minute));
        Self { left: kept.left.clamp(0, full).saturating_add(gained).min(full), at: now.monotonic }
    }

    /// With what the time since has brought. Whole milliseconds are counted on both sides, so that none is lost however often one asks.
    fn filled(self, per_minute: u32, now: Monotonic) -> Self {
        let ms = |at: Monotonic| at.0 / 1_000_000;
        let gone_ms = i64::try_from(ms(now).saturating_sub(ms(self.at))).unwrap_or(i64::MAX);
        let left = self.left.saturating_add(gone_ms.saturating_mul(i64::from(per_minute))).min(full(per_minute));
        Self { left, at: now.max(self.at) }
    }

    /// In how many seconds there is one; nothing when there is.
    fn wait_s(self, per_minute: u32) -> Option<u64> {
        let lacking = MINUTE_MS - self.left;
        // Rounded up, both times.
        (lacking > 0).then(|| lacking.unsigned_abs().div_ceil(u64::from(per_minute).max(1)).div_ceil(1000).max(1))
    }
}

#[derive(Default)]
struct State {
    /// By the token's name.
    buckets: BTreeMap<String, Bucket>,
    /// By [`stranger`]; none that is full again.
    guesses: BTreeMap<String, Bucket>,
    is_saved: bool,
}

/// All buckets.
pub(super) struct Limits {
    path: PathBuf,
    per_minute: u32,
    state: Mutex<State>,
}

/// The account of a user's wrong tokens.
pub(super) fn stranger(user: Option<u32>) -> String {
    user.map_or_else(|| STRANGERS.to_owned(), |user| format!("{STRANGERS} {user}"))
}

impl Limits {
    /// Goes on from what `path` remembers of `names`; a file that cannot be read or understood is as if there were none.
    pub(super) fn open(path: PathBuf, per_minute: u32, names: &[&str], now: Moment) -> Self {
        let read = files::read(&path, MAX_FILE_BYTES + 1).ok().flatten().filter(|bytes| bytes.len() as u64 <= MAX_FILE_BYTES);
        let state = read.map(|bytes| State::remembered(&bytes, per_minute, names, now)).unwrap_or_default();
        Self { path, per_minute, state: Mutex::new(State { is_saved: true, ..state }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one request of `name`, or says in how many seconds there is one. Names are those of tokens and [`ANYBODY`]: few.
    pub(super) fn take(&self, name: &str, now: Monotonic) -> Result<(), u64> {
        let mut state = self.lock();
        let bucket = state.buckets.get(name).copied().unwrap_or_else(|| Bucket::fresh(self.per_minute, now));
        let bucket = bucket.filled(self.per_minute, now);
        if let Some(wait) = bucket.wait_s(self.per_minute) {
            return Err(wait);
        }
        state.buckets.insert(name.to_owned(), Bucket { left: bucket.left - MINUTE_MS, ..bucket });
        state.is_saved = false;
        Ok(())
    }

    /// Whether a token of that user may be looked at, or in how many seconds. Who it is is asked only while somebody has guessed wrong of
    /// late.
    pub(super) fn may_guess(&self, user: impl FnOnce() -> Option<u32>, now: Monotonic) -> Result<(), u64> {
        let mut state = self.lock();
        state.forget_the_patient(now);
        if state.guesses.is_empty() {
            return Ok(());
        }
        let wait = state.account(user()).1.and_then(|bucket| bucket.wait_s(GUESSES_PER_MINUTE));
        wait.map_or(Ok(()), Err)
    }

    /// That user's token was wrong. Gives whether it was the last guess for now.
    pub(super) fn guessed_wrong(&self, user: Option<u32>, now: Monotonic) -> bool {
        let mut state = self.lock();
        state.forget_the_patient(now);
        let (name, known) = state.account(user);
        let mut bucket = known.unwrap_or_else(|| Bucket::fresh(GUESSES_PER_MINUTE, now));
        bucket.left = (bucket.left - MINUTE_MS).max(0);
        state.guesses.insert(name, bucket);
        state.is_saved = false;
        bucket.wait_s(GUESSES_PER_MINUTE).is_some()
    }

    /// Writes what has changed, whole or not at all. That it cannot be written costs only the memory over a restart.
    pub(super) fn save(&self, now: Moment) {
        let mut state = self.lock();
        if state.is_saved {
            return;
        }
        state.is_saved = true;
        let bytes = serde_json::to_vec(&state.kept(self.per_minute, now));
        drop(state);
        let Ok(bytes) = bytes else { return };
        let unfinished = self.path.with_extension("part");
        let written = files::replace(&self.path, &unfinished, &bytes);
        if let Err(error) = written {
            log::debug!("the API's rates were not saved: {error}");
        }
    }
}

impl State {
    /// What the file says of the tokens that there are and of those who guessed; nothing when it says nothing sensible.
    fn remembered(bytes: &[u8], per_minute: u32, names: &[&str], now: Moment) -> Self {
        let kept: BTreeMap<String, Kept> = serde_json::from_slice(bytes).unwrap_or_default();
        let mut state = Self::default();
        for (name, kept) in kept {
            if name.split(' ').next() == Some(STRANGERS) {
                if state.guesses.len() < MOST_STRANGERS {
                    state.guesses.insert(name, Bucket::restored(kept, GUESSES_PER_MINUTE, now));
                }
            } else if name == ANYBODY || names.contains(&name.as_str()) {
                state.buckets.insert(name, Bucket::restored(kept, per_minute, now));
            }
        }
        state
    }

    fn kept(&self, per_minute: u32, now: Moment) -> BTreeMap<&str, Kept> {
        let Wall(at_ms) = now.wall;
        let keep = |bucket: &Bucket, per_minute| Kept { left: bucket.filled(per_minute, now.monotonic).left, at_ms };
        let buckets = self.buckets.iter().map(|(name, bucket)| (name.as_str(), keep(bucket, per_minute)));
        let guesses = self.guesses.iter().map(|(name, bucket)| (name.as_str(), keep(bucket, GUESSES_PER_MINUTE)));
        buckets.chain(guesses).collect()
    }

    /// Fills the accounts of those who guessed wrong; one that is full again is none.
    fn forget_the_patient(&mut self, now: Monotonic) {
        self.guesses.retain(|_, bucket| {
            *bucket = bucket.filled(GUESSES_PER_MINUTE, now);
            bucket.left < full(GUESSES_PER_MINUTE)
        });
    }

    /// The account of a user, and what it holds: nothing when it is full.
    fn account(&self, user: Option<u32>) -> (String, Option<Bucket>) {
        let own = stranger(user);
        let is_apart = self.guesses.len() < MOST_STRANGERS || self.guesses.contains_key(&own);
        let name = if is_apart { own } else { stranger(None) };
        let bucket = self.guesses.get(&name).copied();
        (name, bucket)
    }
}

/// Rates as any file may have them, and requests over some seconds: none waits longer than a full bucket takes to be one request, and
/// whoever has waited as long as was said is let through.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn judge(bytes: &[u8]) {
    use std::time::Duration;
    let per_minute = u32::from(*bytes.first().unwrap_or(&0)) + 1;
    let now = Moment { monotonic: Monotonic(9_000_000_000), wall: Wall(1_700_000_000_000) };
    let state = State::remembered(bytes.get(1..).unwrap_or_default(), per_minute, &["panel"], now);
    assert!(state.buckets.len() <= 2 && state.guesses.len() <= MOST_STRANGERS);
    let limits = Limits { path: PathBuf::new(), per_minute, state: Mutex::new(state) };
    for name in ["panel", ANYBODY] {
        if let Err(wait) = limits.take(name, now.monotonic) {
            assert!(wait <= 60 && limits.take(name, now.monotonic.plus(Duration::from_secs(wait))).is_ok());
        }
    }
    for user in [None, Some(0), Some(1000)] {
        if let Err(wait) = limits.may_guess(|| user, now.monotonic) {
            assert!(wait <= 6 && limits.may_guess(|| user, now.monotonic.plus(Duration::from_secs(wait))).is_ok());
        }
        limits.guessed_wrong(user, now.monotonic);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Seconds after a start, by both clocks; the system's is `ahead` seconds ahead.
    fn at(seconds: u64, ahead: i64) -> Moment {
        let wall = Wall(1_700_000_000_000 + (i64::try_from(seconds).unwrap() + ahead) * 1000);
        Moment { monotonic: Monotonic(5_000_000_000).plus(Duration::from_secs(seconds)), wall }
    }

    fn mono(seconds: u64) -> Monotonic {
        at(seconds, 0).monotonic
    }

    const NAMES: &[&str] = &["panel", "clerk"];

    #[test]
    fn a_minute_allows_so_many_and_the_memory_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let limits = Limits::open(path.clone(), 6, NAMES, at(0, 0));
        assert!((0..6).all(|_| limits.take("panel", mono(0)).is_ok()));
        assert_eq!(limits.take("panel", mono(0)), Err(10));
        assert!(limits.take("clerk", mono(0)).is_ok(), "another token has its own");
        limits.save(at(0, 0));
        let again = Limits::open(path.clone(), 6, NAMES, at(1, 0));
        assert_eq!(again.take("panel", mono(1)), Err(9));
        assert!(again.take("panel", mono(10)).is_ok());
        std::fs::write(&path, b"no JSON").unwrap();
        assert!(Limits::open(path, 6, NAMES, at(0, 0)).take("panel", mono(0)).is_ok());
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let limits = Limits::open(path.clone(), 6, NAMES, at(0, 0));
        let target = files::planted::Target::new();
        for place in [path.with_extension("part"), path] {
            target.outlives(&place, || {
                let _ = limits.take("panel", mono(0));
                limits.lock().is_saved = false;
                limits.save(at(0, 0));
            });
        }
    }

    #[test]
    fn a_clock_set_back_stops_no_bucket_and_fills_none_over_restarts_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let day = 86_400;
        let limits = Limits::open(path.clone(), 30, NAMES, at(0, day));
        assert!((0..30).all(|_| limits.take("panel", mono(0)).is_ok()));
        assert_eq!(limits.take("panel", mono(0)), Err(2));
        (0..GUESSES_PER_MINUTE).for_each(|_| _ = limits.guessed_wrong(Some(1000), mono(0)));
        limits.save(at(0, day));
        // Put right, within the run: what was said is kept.
        assert_eq!(limits.take("panel", mono(1)), Err(1));
        assert!(limits.take("panel", mono(2)).is_ok());
        // And over a restart.
        let again = Limits::open(path.clone(), 30, NAMES, at(1, 0));
        assert_eq!(again.take("panel", mono(1)), Err(2), "a clock set back fills nothing");
        assert!(again.take("panel", mono(3)).is_ok(), "it never fills again");
        assert!(again.may_guess(|| Some(1000), mono(1)).is_err());
        assert!(again.may_guess(|| Some(1000), mono(8)).is_ok(), "guesses never come back");
        // A second restart before anybody asks, with the clock further back.
        again.save(at(3, 0));
        let third = Limits::open(path, 30, NAMES, at(4, -9 * day));
        assert!(third.take("panel", mono(6)).is_ok());
    }

    #[test]
    fn what_a_file_says_beyond_sense_is_brought_back() {
        for (left, at_ms) in [(i64::MIN, 0), (i64::MAX, i64::MIN), (-1, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)] {
            let text = format!("{{\"panel\": {{\"left\": {left}, \"at_ms\": {at_ms}}}, \"gone\": {{\"left\": 0, \"at_ms\": 0}}}}");
            let state = State::remembered(text.as_bytes(), 6, NAMES, at(0, 0));
            assert_eq!(state.buckets.len(), 1, "tokens that are gone are forgotten");
            assert!(state.buckets["panel"].wait_s(6).is_none_or(|wait| wait <= 10), "{left} {at_ms}");
        }
    }

    #[test]
    fn whoever_guesses_is_told_to_wait_right_or_wrong_and_nobody_else_is() {
        let limits = Limits::open("/nowhere/limits.json".into(), 100_000, NAMES, at(0, 0));
        assert!(limits.may_guess(|| panic!("nobody has guessed: who asks is not looked up"), mono(0)).is_ok());
        let last: Vec<bool> = (0..GUESSES_PER_MINUTE).map(|_| limits.guessed_wrong(Some(1000), mono(0))).collect();
        assert_eq!(last.iter().position(|last| *last), Some(GUESSES_PER_MINUTE as usize - 1));
        assert_eq!(limits.may_guess(|| Some(1000), mono(0)), Err(6));
        assert!(limits.may_guess(|| Some(33), mono(0)).is_ok() && limits.may_guess(|| None, mono(0)).is_ok());
        assert!(limits.may_guess(|| Some(1000), mono(6)).is_ok());
        // A minute later nothing is remembered.
        assert!(limits.may_guess(|| panic!("full again"), mono(61)).is_ok());
        // More users than are told apart share an account.
        (0..1000).for_each(|user| _ = limits.guessed_wrong(Some(user), mono(70)));
        assert!(limits.lock().guesses.len() <= MOST_STRANGERS + 1);
        assert!(limits.may_guess(|| Some(999), mono(70)).is_err() && limits.may_guess(|| Some(3), mono(70)).is_ok());
        limits.save(at(70, 0));
    }
}
