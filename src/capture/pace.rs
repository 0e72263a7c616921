//! Notices a stream whose frames come too rarely to follow anybody.

use std::time::Duration;

use crate::types::Monotonic;

/// Below this many frames a second nobody is followed from one to the next.
const LEAST_A_SECOND: f32 = 2.0;
/// How long frames are counted before anything is told.
const OVER: Duration = Duration::from_secs(8);
/// A pause that is longer than this ends a count: the camera was away.
const AWAY: Duration = Duration::from_secs(4);

/// Counts one camera's frames by their own times.
#[derive(Debug, Default)]
pub(super) struct PaceWatch {
    /// The first frame of this count, the last, and how many came after the first.
    counted: Option<(Monotonic, Monotonic, u32)>,
    is_told: bool,
}

impl PaceWatch {
    /// Takes a frame in; gives what is to be told, once until frames come faster again.
    pub(super) fn look(&mut self, now: Monotonic) -> Option<String> {
        let (began, last, count) = self.counted.unwrap_or((now, now, 0));
        // Written so that a time before the last one begins anew.
        if !(last <= now && now.since(last) <= AWAY) {
            self.counted = Some((now, now, 0));
            return None;
        }
        let is_first = self.counted.is_none();
        let count = if is_first { 0 } else { count + 1 };
        self.counted = Some((began, now, count));
        if now.since(began) < OVER {
            return None;
        }
        let rate = count as f32 / now.since(began).as_secs_f32();
        self.counted = Some((now, now, 0));
        let was_told = std::mem::replace(&mut self.is_told, rate < LEAST_A_SECOND);
        (self.is_told && !was_told).then(|| {
            format!(
                "frames come too rarely to follow anybody: {rate:.1} a second, {LEAST_A_SECOND:.0} are the least; nobody is decided before it is set higher in the camera"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(watch: &mut PaceWatch, from_ms: u64, every_ms: u64, frames: u64) -> usize {
        (0..frames).filter_map(|n| watch.look(Monotonic((from_ms + n * every_ms) * 1_000_000))).count()
    }

    #[test]
    fn a_frame_a_second_is_told_once_and_three_a_second_are_enough() {
        let mut watch = PaceWatch::default();
        assert_eq!(told(&mut watch, 0, 1000, 60), 1);
        assert_eq!(told(&mut watch, 60_000, 333, 60), 0);
        assert_eq!(told(&mut watch, 80_000, 1000, 60), 1, "again after it was well");
        // A camera that was away, and one whose time goes back.
        let mut watch = PaceWatch::default();
        assert_eq!(told(&mut watch, 0, 5000, 60), 0);
        assert_eq!(told(&mut watch, 0, 33, 600), 0);
    }
}
