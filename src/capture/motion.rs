//! The motion gate: most frames of a door show nobody, and a look at the luma plane tells so for a hundredth of a detector's price.
//!
//! It compares a coarse grid of luma with a background that follows slowly. It errs towards looking: for a while after motion, and at
//! least every so often without any, so that someone who stands still from the first frame on is found. While a track lives, the
//! caller looks whatever the gate says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::luma;
use crate::types::{Monotonic, Picture};

/// The background follows by this part of the difference each frame.
const FOLLOW: f32 = 1.0 / 16.0;

/// When a frame is worth a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MotionSettings {
    /// Whether frames without motion are skipped.
    pub enabled: bool,
    /// By how much a cell's luma (0 to 255) must differ from the background to have changed; 1 to 100.
    pub luma_change: u8,
    /// Which share of the picture must have changed, in percent; 0 to 100.
    pub changed_percent: f32,
    /// For how long after the last motion every frame is looked at.
    pub hold_ms: u32,
    /// At least one frame in this time is looked at, motion or not; 100 to 60000.
    pub look_every_ms: u32,
}

impl Default for MotionSettings {
    fn default() -> Self {
        Self { enabled: true, luma_change: 8, changed_percent: 0.2, hold_ms: 3000, look_every_ms: 1000 }
    }
}

impl MotionSettings {
    /// What is out of range: the key and what is wrong with it.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut wrong = |key: &str, text: String| found.push((key.to_owned(), text));
        if !(1..=100).contains(&self.luma_change) {
            wrong("luma-change", format!("is {}: give 1 to 100", self.luma_change));
        }
        if !(0.0..=100.0).contains(&self.changed_percent) {
            wrong("changed-percent", format!("is {}: give 0 to 100", self.changed_percent));
        }
        if self.hold_ms > 600_000 {
            wrong("hold-ms", format!("is {}: give up to 600000", self.hold_ms));
        }
        if !(100..=60_000).contains(&self.look_every_ms) {
            wrong("look-every-ms", format!("is {}: give 100 to 60000", self.look_every_ms));
        }
        found
    }
}

/// One camera's gate.
pub struct MotionGate {
    settings: MotionSettings,
    grid: Vec<u8>,
    background: Vec<f32>,
    size: (u32, u32),
    moved_at: Option<Monotonic>,
    looked_at: Option<Monotonic>,
}

impl MotionGate {
    /// A gate that has seen nothing: it looks at the first frame.
    pub fn new(settings: MotionSettings) -> Self {
        Self { settings, grid: Vec::new(), background: Vec::new(), size: (0, 0), moved_at: None, looked_at: None }
    }

    /// Whether this frame is worth a look; `now` is when it was captured.
    pub fn look(&mut self, picture: &Picture, now: Monotonic) -> bool {
        let is_worth = !self.settings.enabled || self.is_moving(picture, now) || self.is_due(now);
        if is_worth {
            self.looked_at = Some(now);
        }
        is_worth
    }

    fn is_due(&self, now: Monotonic) -> bool {
        let period = Duration::from_millis(self.settings.look_every_ms.into());
        // A time before the last look means a new stream: looking is right.
        self.looked_at.is_none_or(|at| now < at || now.since(at) >= period)
    }

    fn is_moving(&mut self, picture: &Picture, now: Monotonic) -> bool {
        luma::sample(picture, &mut self.grid);
        let size = (picture.width(), picture.height());
        if self.size != size {
            self.size = size;
            self.background = self.grid.iter().map(|&v| v.into()).collect();
            self.moved_at = Some(now);
            return true;
        }
        let limit = f32::from(self.settings.luma_change);
        let mut changed = 0usize;
        for (background, &cell) in self.background.iter_mut().zip(&self.grid) {
            let difference = f32::from(cell) - *background;
            changed += usize::from(difference.abs() >= limit);
            *background += difference * FOLLOW;
        }
        let needed = (self.settings.changed_percent / 100.0 * self.grid.len() as f32).max(1.0);
        if changed as f32 >= needed {
            self.moved_at = Some(now);
        }
        let hold = Duration::from_millis(self.settings.hold_ms.into());
        self.moved_at.is_some_and(|at| now.since(at) <= hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    /// Grey, with a brighter square of a fifteenth of the width at `x`.
    fn scene(x: Option<usize>, noise: u8) -> Picture {
        let (width, height) = (320usize, 180usize);
        let mut rgb = vec![100u8; 3 * width * height];
        for (n, value) in rgb.iter_mut().enumerate() {
            *value += (n * 7919 % (usize::from(noise) + 1)) as u8;
        }
        if let Some(x) = x {
            for row in 80..110 {
                rgb[3 * (row * width + x)..3 * (row * width + x + 20)].fill(160);
            }
        }
        Picture::from_rgb(width as u32, height as u32, rgb).unwrap()
    }

    #[test]
    fn values_out_of_range_are_found() {
        let bad = MotionSettings { luma_change: 0, changed_percent: f32::NAN, hold_ms: 700_000, look_every_ms: 1, enabled: true };
        assert_eq!(bad.findings().len(), 4);
        assert!(MotionSettings::default().findings().is_empty());
    }

    #[test]
    fn an_empty_scene_is_looked_at_only_every_so_often() {
        let mut gate = MotionGate::new(MotionSettings::default());
        let looks = (0..300u64).filter(|n| gate.look(&scene(None, (n % 5) as u8), at(4000 + n * 33))).count();
        // The first 3 s are held after the first frame, the other 7 s have one look a second.
        assert!((90..=100).contains(&looks), "{looks}");
    }

    #[test]
    fn someone_who_comes_in_is_seen_at_once_and_while_standing_still() {
        let mut gate = MotionGate::new(MotionSettings { look_every_ms: 60_000, ..MotionSettings::default() });
        gate.look(&scene(None, 0), at(0));
        assert!(!gate.look(&scene(None, 0), at(5000)));
        assert!(gate.look(&scene(Some(100), 0), at(5033)));
        assert!(gate.look(&scene(Some(100), 0), at(7000)));
    }

    #[test]
    fn a_new_size_and_a_gate_that_is_off_look() {
        let mut gate = MotionGate::new(MotionSettings { look_every_ms: 60_000, hold_ms: 0, ..MotionSettings::default() });
        gate.look(&scene(None, 0), at(0));
        assert!(!gate.look(&scene(None, 0), at(100)));
        assert!(gate.look(&Picture::from_rgb(2, 2, vec![100; 12]).unwrap(), at(200)));
        let mut off = MotionGate::new(MotionSettings { enabled: false, ..MotionSettings::default() });
        assert!(off.look(&scene(None, 0), at(0)) && off.look(&scene(None, 0), at(1)));
    }
}
