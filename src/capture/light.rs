//! Notices a camera that shows nothing: no light, or something over the lens.

use std::time::Duration;

use super::luma;
use crate::types::{Layout, Monotonic, Picture};

/// How long a picture must stay dark (or light) before it counts: a person in front of the lens for a moment is no fault.
const SETTLE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Watches one camera's light.
pub(super) struct LightWatch {
    dark_luma: f32,
    flat_deviation: f32,
    grid: Vec<u8>,
    looked_at: Option<Monotonic>,
    /// Since when the pictures say something else than `verdict`.
    differs_since: Option<Monotonic>,
    verdict: Option<&'static str>,
}

impl LightWatch {
    pub(super) fn new(dark_luma: u8, flat_deviation: u8) -> Self {
        Self {
            dark_luma: dark_luma.into(),
            flat_deviation: flat_deviation.into(),
            grid: Vec::new(),
            looked_at: None,
            differs_since: None,
            verdict: None,
        }
    }

    /// Takes a picture in; gives why the camera shows nothing, or `None` while it shows something.
    pub(super) fn look(&mut self, picture: &Picture, now: Monotonic) -> Option<&'static str> {
        if self.looked_at.is_some_and(|at| now.since(at) < PERIOD && at <= now) {
            return self.verdict;
        }
        self.looked_at = Some(now);
        let seen = self.judge(picture);
        if seen.is_some() == self.verdict.is_some() {
            self.differs_since = None;
            return self.verdict;
        }
        let since = *self.differs_since.get_or_insert(now);
        if now.since(since) >= SETTLE {
            self.verdict = seen;
            self.differs_since = None;
        }
        self.verdict
    }

    fn judge(&mut self, picture: &Picture) -> Option<&'static str> {
        luma::sample(picture, &mut self.grid);
        let count = self.grid.len() as f32;
        let mean = self.grid.iter().map(|&v| f32::from(v)).sum::<f32>() / count;
        let variance = self.grid.iter().map(|&v| (f32::from(v) - mean).powi(2)).sum::<f32>() / count;
        let is_limited = matches!(picture.layout(), Layout::I420 | Layout::Nv12) && !picture.colorimetry().full_range;
        // Limited-range luma runs from 16 to 235 (BT.601 and BT.709).
        let (mean, scale) = if is_limited { ((mean - 16.0) * 255.0 / 219.0, 255.0 / 219.0) } else { (mean, 1.0) };
        if mean < self.dark_luma {
            Some("the picture is dark: is there light, and is the lens free?")
        } else if variance.sqrt() * scale < self.flat_deviation {
            Some("the picture shows nothing but one shade: is the lens covered?")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    fn striped(low: u8, high: u8) -> Picture {
        let rgb = (0..64 * 36).flat_map(|n| [if n % 64 < 32 { low } else { high }; 3]).collect();
        Picture::from_rgb(64, 36, rgb).unwrap()
    }

    #[test]
    fn a_moment_of_darkness_is_not_told_and_a_second_of_it_is() {
        let mut watch = LightWatch::new(12, 3);
        let (dark, light) = (striped(0, 4), striped(20, 200));
        assert!(watch.look(&dark, at(0)).is_none());
        assert!(watch.look(&light, at(400)).is_none());
        assert!(watch.look(&dark, at(800)).is_none());
        assert!(watch.look(&dark, at(1600)).is_none());
        assert!(watch.look(&dark, at(1800)).is_some());
        assert!(watch.look(&light, at(2000)).is_some());
        assert!(watch.look(&light, at(3000)).is_none());
    }

    #[test]
    fn a_bright_but_uniform_picture_is_a_covered_lens() {
        let mut watch = LightWatch::new(12, 3);
        watch.look(&striped(120, 122), at(0));
        assert!(watch.look(&striped(120, 122), at(1000)).unwrap().contains("covered"));
    }

    #[test]
    fn zero_thresholds_switch_it_off() {
        let mut watch = LightWatch::new(0, 0);
        watch.look(&striped(0, 0), at(0));
        assert!(watch.look(&striped(0, 0), at(5000)).is_none());
    }
}
