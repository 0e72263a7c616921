//! The only place that reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::types::{Moment, Monotonic, Wall};

/// `CLOCK_MONOTONIC`, the clock that GStreamer's system clock reads too.
pub fn monotonic() -> Monotonic {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    Monotonic(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// The system's wall clock; before 1970 it reads as the epoch.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Both clocks, read one after the other.
pub fn now() -> Moment {
    Moment { monotonic: monotonic(), wall: wall() }
}
