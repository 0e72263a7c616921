//! When a date of expiry may be acted on. Denying an expired person can be taken back; destroying the templates cannot, and a clock can
//! be wrong by years for as long as a battery is dead or a time server lies. So people are purged by a clock that is known to be right,
//! that did not jump meanwhile, and only once they have been expired by it for a while. Pure: moments in, a moment out.

use std::time::Duration;

use crate::gallery::PurgeClock;
use crate::types::{Moment, Monotonic, Wall};

/// More than this between two looks by the one clock and by the other is a jump. Time services slew by far less.
const JUMP_MS: u64 = 5_000;

/// Watches the wall clock against the one that cannot jump.
pub(super) struct ExpiryClock {
    wait: Duration,
    needs_service: bool,
    /// Since when the clock has been right and steady.
    steady_since: Option<Monotonic>,
    last: Option<Moment>,
}

impl ExpiryClock {
    /// `wait` is how long somebody must have been expired.
    pub(super) fn new(clock: PurgeClock, wait: Duration) -> Self {
        Self { wait, needs_service: clock == PurgeClock::Synchronised, steady_since: None, last: None }
    }

    /// Whoever expired at this time or before may be purged; nobody while the clock is not known to be right. `is_synchronised` is what
    /// the time service says.
    pub(super) fn look(&mut self, now: Moment, is_synchronised: bool) -> Option<Wall> {
        let before = self.last.replace(now);
        let has_jumped = before.is_some_and(|before| {
            let passed = now.monotonic.since(before.monotonic).as_millis();
            let told = i128::from(now.wall.0) - i128::from(before.wall.0);
            told.abs_diff(i128::try_from(passed).unwrap_or(i128::MAX)) > u128::from(JUMP_MS)
        });
        if has_jumped {
            log::warn!("the clock jumped: nobody is purged until it has been steady for {} s", self.wait.as_secs());
        }
        if has_jumped || (self.needs_service && !is_synchronised) {
            self.steady_since = None;
            return None;
        }
        let since = *self.steady_since.get_or_insert(now.monotonic);
        let wait = i64::try_from(self.wait.as_millis()).unwrap_or(i64::MAX);
        (now.monotonic.since(since) >= self.wait).then(|| Wall(now.wall.0.saturating_sub(wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(600);
    const START: i64 = 1_800_000_000_000;

    fn at(seconds: u64, wall_ms: i64) -> Moment {
        Moment { monotonic: Monotonic(seconds * 1_000_000_000), wall: Wall(wall_ms) }
    }

    /// Looks every 20 s from `from` on; gives the last answer.
    fn looks(clock: &mut ExpiryClock, from: u64, to: u64, offset_ms: i64, synchronised: bool) -> Option<Wall> {
        let look = |s: u64| at(s, START + i64::try_from(s).unwrap() * 1000 + offset_ms);
        (from..=to).step_by(20).map(|s| clock.look(look(s), synchronised)).last().unwrap()
    }

    #[test]
    fn a_clock_that_no_service_vouches_for_purges_nobody() {
        let mut clock = ExpiryClock::new(PurgeClock::Synchronised, WAIT);
        assert_eq!(looks(&mut clock, 0, 100_000, 0, false), None);
        // And the wait begins when it does.
        assert_eq!(looks(&mut clock, 100_020, 100_600, 0, true), None);
        assert_eq!(looks(&mut clock, 100_620, 100_620, 0, true), Some(Wall(START + 100_020_000)));
        assert_eq!(looks(&mut clock, 100_640, 100_640, 0, false), None);
        assert_eq!(looks(&mut clock, 100_660, 101_240, 0, true), None);
    }

    #[test]
    fn a_jump_in_either_direction_begins_the_wait_anew() {
        const YEARS: i64 = 10 * 365 * 24 * 3600 * 1000;
        for (offset, clock) in [(YEARS, PurgeClock::Any), (-YEARS, PurgeClock::Any), (YEARS, PurgeClock::Synchronised)] {
            let mut clock = ExpiryClock::new(clock, WAIT);
            assert!(looks(&mut clock, 0, 600, 0, true).is_some());
            assert_eq!(looks(&mut clock, 620, 1_220, offset, true), None, "{offset}");
            // Put right before the wait was over: nothing happened.
            assert_eq!(looks(&mut clock, 1_240, 1_240, 0, true), None);
            assert_eq!(looks(&mut clock, 1_260, 1_860, 0, true), Some(Wall(START + 1_260_000)), "{offset}");
        }
    }

    #[test]
    fn who_expired_a_moment_ago_is_not_purged_yet_and_a_wait_of_nothing_purges_at_once() {
        let mut clock = ExpiryClock::new(PurgeClock::Synchronised, WAIT);
        assert_eq!(looks(&mut clock, 0, 7_200, 0, true), Some(Wall(START + 6_600_000)));
        assert_eq!(ExpiryClock::new(PurgeClock::Any, Duration::ZERO).look(at(5, START), false), Some(Wall(START)));
        let mut clock = ExpiryClock::new(PurgeClock::Any, Duration::MAX);
        assert_eq!(clock.look(at(1, i64::MIN), false).or(clock.look(at(2, i64::MAX), false)), None);
    }
}
