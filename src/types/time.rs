//! Time as values. Decisions take time as an argument; only [`crate::system::clock`] reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_MONOTONIC`: for ages, rates and deadlines. Never leaves the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The time since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `duration` more.
    pub fn plus(self, duration: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z by the system's clock, which may be wrong and may jump: for people and for grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// This moment and `duration` more.
    pub fn plus(self, duration: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whole seconds since 1970, as JWT's NumericDate wants them.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The moment that an RFC 3339 text names, if it is one.
    pub fn parse_rfc3339(text: &str) -> Option<Wall> {
        text.parse::<jiff::Timestamp>().ok().map(|stamp| Wall(stamp.as_millisecond()))
    }

    /// RFC 3339 in UTC with milliseconds; the epoch's text for a moment beyond the calendar.
    pub fn rfc3339(self) -> String {
        let stamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{stamp:.3}")
    }
}

/// One moment on both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// For ages and deadlines.
    pub monotonic: Monotonic,
    /// For people and grants.
    pub wall: Wall,
}

impl Moment {
    /// This moment and `duration` more, on both clocks.
    pub fn plus(self, duration: Duration) -> Moment {
        Moment { monotonic: self.monotonic.plus(duration), wall: self.wall.plus(duration) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_time_prints_as_rfc_3339_with_milliseconds() {
        assert_eq!(Wall(1_700_000_000_123).rfc3339(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Wall::parse_rfc3339("2023-11-14T23:13:20.123+01:00"), Some(Wall(1_700_000_000_123)));
        assert!(["", "18:00", "2026-12-24", "soon"].iter().all(|text| Wall::parse_rfc3339(text).is_none()));
    }

    #[test]
    fn ages_never_go_negative() {
        assert_eq!(Monotonic(5).since(Monotonic(9)), Duration::ZERO);
    }
}
