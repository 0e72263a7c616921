//! The latest time that the wall clock has shown: what tells a clock that was set back from one that goes on.
//!
//! A board without a battery begins days ago, whoever answers for a time server may set a clock back, and both would bring to life what had
//! ended. Time that a clock has shown once is therefore over, with one exception: right after a start a clock that follows no time source
//! may be ahead (a real-time clock that counts local time), and the time source puts it right. What was shown in the first
//! [`SETTLING`] of a start, by a clock that followed nothing, is taken back when the kernel first says that the clock follows a source.
//!
//! Pure: moments in, a mark out. Whoever keeps it writes [`HighWater::to_keep`] down.

use std::time::Duration;

use crate::types::{Moment, Monotonic, Wall};

/// For how long after a start an unsynchronised clock's word may still be taken back by a time source.
const SETTLING: Duration = Duration::from_secs(300);
/// More than this between two looks by the one clock and by the other is a step. Time services slew by far less.
const STEP_MS: i64 = 1_000;

/// The latest time that was shown, and what was seen last.
#[derive(Debug, Clone)]
pub struct HighWater {
    /// Believed: never taken back.
    firm: i64,
    /// Shown by a clock that has followed nothing since the start, for a short while.
    young: i64,
    began: Monotonic,
    last: Moment,
    was_synced: bool,
}

impl HighWater {
    /// From the mark that an earlier run kept ([`i64::MIN`] where there is none).
    pub fn new(kept: Wall, now: Moment) -> Self {
        Self { firm: kept.0, young: now.wall.0, began: now.monotonic, last: now, was_synced: false }
    }

    /// Takes a look at both clocks. True when the wall clock was stepped, in either direction, since the look before.
    pub fn look(&mut self, now: Moment, is_synced: bool) -> bool {
        let passed = i64::try_from(now.monotonic.since(self.last.monotonic).as_millis()).unwrap_or(i64::MAX);
        let told = now.wall.0.saturating_sub(self.last.wall.0);
        let is_stepped = told.saturating_sub(passed).unsigned_abs() > STEP_MS.unsigned_abs();
        self.last = now;
        let is_settling = !self.was_synced && now.monotonic.since(self.began) < SETTLING;
        if is_synced && is_settling && self.young > now.wall.0 {
            self.young = i64::MIN;
        }
        self.was_synced |= is_synced;
        if is_synced || !is_settling {
            self.firm = self.firm.max(self.young).max(now.wall.0);
        } else {
            self.young = self.young.max(now.wall.0);
        }
        is_stepped
    }

    /// Somebody else's clock agreed: what was shown is believed.
    pub fn confirm(&mut self) {
        self.firm = self.firm.max(self.young);
    }

    /// The latest time that was shown.
    pub fn mark(&self) -> Wall {
        Wall(self.firm.max(self.young))
    }

    /// The mark that the next run is to begin with.
    pub fn to_keep(&self) -> Wall {
        Wall(self.firm)
    }

    /// By how much a clock that shows `wall` has gone back.
    pub fn behind(&self, wall: Wall) -> Duration {
        Duration::from_millis(u64::try_from(self.mark().0.saturating_sub(wall.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000;

    fn at(monotonic: u64, wall: i64) -> Moment {
        Moment { monotonic: Monotonic(monotonic * 1_000_000_000), wall: Wall((START + wall) * 1000) }
    }

    fn seconds(mark: Wall) -> i64 {
        mark.unix_seconds() - START
    }

    #[test]
    fn a_clock_that_goes_back_is_behind_until_it_has_caught_up_and_a_step_is_told_in_both_directions() {
        let mut water = HighWater::new(Wall(i64::MIN), at(0, 0));
        assert!(!water.look(at(10, 10), false));
        assert!(water.look(at(11, 2), false), "back by nine seconds");
        assert_eq!((seconds(water.mark()), water.behind(at(11, 2).wall)), (10, Duration::from_secs(8)));
        assert!(!water.look(at(19, 10), false));
        assert_eq!(water.behind(at(19, 10).wall), Duration::ZERO);
        assert!(water.look(at(20, 14), false), "ahead");
    }

    #[test]
    fn only_a_time_source_soon_after_the_start_takes_anything_back() {
        // A real-time clock two hours ahead, put right at boot.
        let mut water = HighWater::new(Wall(START * 1000 - 5_000), at(0, 7_200));
        assert_eq!(seconds(water.to_keep()), -5, "not yet believed");
        assert!(water.look(at(20, 20), true));
        assert_eq!((seconds(water.mark()), water.behind(at(20, 20).wall)), (20, Duration::ZERO));
        // From then on a source that lies is a clock that goes back.
        water.look(at(30, 11), true);
        assert_eq!(water.behind(at(30, 11).wall), Duration::from_secs(9));
        // Without a source, and with one that comes late, nothing is taken back; nor is what an earlier run kept.
        for (kept, synced, from) in [(-5, false, 20), (-5, true, 301), (7_200, true, 20)] {
            let mut water = HighWater::new(Wall((START + kept) * 1000), at(0, 7_200));
            water.look(at(from, 20), synced);
            assert_eq!(seconds(water.mark()), 7_200, "{kept} {synced} {from}");
        }
    }

    #[test]
    fn what_is_confirmed_or_has_lasted_is_kept() {
        let mut water = HighWater::new(Wall(i64::MIN), at(0, 0));
        water.look(at(100, 100), false);
        assert_eq!(water.to_keep(), Wall(i64::MIN));
        water.confirm();
        assert_eq!(seconds(water.to_keep()), 100);
        water.look(at(400, 400), false);
        assert_eq!(seconds(water.to_keep()), 400);
    }
}
