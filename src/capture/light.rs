//! Notices a camera that shows nothing: no light, or something over the lens.

use std::time::Duration;

use super::luma;
use crate::types::{Layout, Monotonic, Picture};

/// How long a picture must stay dark (or light) before it counts: a person in front of the lens for a moment is no fault.
const SETTLE: Duration = Duration::from_secs(1);
/// How long pictures must be without colour before that is told.
const SETTLE_COLOUR: Duration = Duration::from_secs(5);
/// Samples of a chroma plane in each direction.
const COLOUR_SAMPLES: usize = 48;
/// One cell of so many is at least as bright as the one that says whether there is light.
const BRIGHTEST_SHARE: usize = 20;
/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Watches one camera's light.
pub(super) struct LightWatch {
    dark_luma: f32,
    flat_deviation: f32,
    grid: Vec<u8>,
    brightest: Vec<u8>,
    looked_at: Option<Monotonic>,
    /// Since when the pictures say something else than `verdict`.
    differs_since: Option<Monotonic>,
    verdict: Option<&'static str>,
    colour: Colour,
}

/// Whether a camera's pictures have colours: many show none at night.
#[derive(Debug, Default)]
struct Colour {
    /// What was told last; pictures are taken to have colours until then.
    is_grey: bool,
    /// Since when they say something else.
    differs_since: Option<Monotonic>,
    news: Option<&'static str>,
}

impl LightWatch {
    pub(super) fn new(dark_luma: u8, flat_deviation: u8) -> Self {
        Self {
            dark_luma: dark_luma.into(),
            flat_deviation: flat_deviation.into(),
            grid: Vec::new(),
            brightest: Vec::new(),
            looked_at: None,
            differs_since: None,
            verdict: None,
            colour: Colour::default(),
        }
    }

    /// Whether colours have gone or come, once each.
    pub(super) fn colour_news(&mut self) -> Option<&'static str> {
        self.colour.news.take()
    }

    /// Takes a picture in; gives why the camera shows nothing, or `None` while it shows something.
    pub(super) fn look(&mut self, picture: &Picture, now: Monotonic) -> Option<&'static str> {
        if self.looked_at.is_some_and(|at| now.since(at) < PERIOD && at <= now) {
            return self.verdict;
        }
        self.looked_at = Some(now);
        if let Some(is_grey) = is_grey(picture) {
            self.colour.look(is_grey, now);
        }
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
        // A face that is lit by infrared in a black room is something to see: the brightest cells say whether there is light.
        self.brightest.clone_from(&self.grid);
        let place = self.brightest.len() - 1 - self.brightest.len() / BRIGHTEST_SHARE;
        let (_, bright, _) = self.brightest.select_nth_unstable(place);
        let bright = f32::from(*bright);
        let mean = self.grid.iter().map(|&v| f32::from(v)).sum::<f32>() / count;
        let variance = self.grid.iter().map(|&v| (f32::from(v) - mean).powi(2)).sum::<f32>() / count;
        let is_limited = matches!(picture.layout(), Layout::I420 | Layout::Nv12) && !picture.colorimetry().full_range;
        // Limited-range luma runs from 16 to 235 (BT.601 and BT.709).
        let (bright, scale) = if is_limited { ((bright - 16.0) * 255.0 / 219.0, 255.0 / 219.0) } else { (bright, 1.0) };
        if bright < self.dark_luma {
            Some("the picture is dark: is there light, and is the lens free?")
        } else if variance.sqrt() * scale < self.flat_deviation {
            Some("the picture shows nothing but one shade: is the lens covered?")
        } else {
            None
        }
    }
}

impl Colour {
    fn look(&mut self, is_grey: bool, now: Monotonic) {
        if is_grey == self.is_grey {
            self.differs_since = None;
            return;
        }
        let since = *self.differs_since.get_or_insert(now);
        if now.since(since) < SETTLE_COLOUR {
            return;
        }
        self.is_grey = is_grey;
        self.differs_since = None;
        self.news = Some(match is_grey {
            true => {
                "the pictures have no colour, as of a camera in its night mode: some liveness networks take living people for pictures then (see TROUBLESHOOTING)"
            }
            false => "the pictures have colours again",
        });
    }
}

/// Whether a picture has no colour; `None` where its kind never has one.
fn is_grey(picture: &Picture) -> Option<bool> {
    let (plane, samples): (usize, usize) = match picture.layout() {
        Layout::I420 => (1, 1),
        Layout::Nv12 => (1, 2),
        Layout::Rgb | Layout::Gray | Layout::Depth => return None,
    };
    let (bytes, stride) = picture.plane(plane);
    let (columns, rows) = (picture.width().div_ceil(2) as usize * samples, picture.height().div_ceil(2) as usize);
    // Decoders of grey streams leave 128 and a step or two of rounding beside it.
    let is_neutral = |value: u8| value.abs_diff(128) <= 2;
    let step = |length: usize| (length / COLOUR_SAMPLES).max(1);
    let grey = (0..rows).step_by(step(rows)).all(|row| {
        (0..columns).step_by(step(columns)).all(|column| bytes.get(row * stride + column).copied().is_none_or(is_neutral))
    });
    Some(grey)
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
    fn a_face_lit_in_a_black_room_is_not_darkness() {
        let mut watch = LightWatch::new(12, 3);
        // A fifteenth of the picture.
        let rgb = (0..64 * 36).flat_map(|n| [if n % 64 < 16 && n / 64 < 10 { 90 } else { 1 }; 3]).collect();
        let lit = Picture::from_rgb(64, 36, rgb).unwrap();
        for ms in (0..4000).step_by(200) {
            assert!(watch.look(&lit, at(ms)).is_none());
        }
    }

    #[test]
    fn a_bright_but_uniform_picture_is_a_covered_lens() {
        let mut watch = LightWatch::new(12, 3);
        watch.look(&striped(120, 122), at(0));
        assert!(watch.look(&striped(120, 122), at(1000)).unwrap().contains("covered"));
    }

    #[test]
    fn colours_that_go_for_good_are_told_once_and_when_they_come_back() {
        use crate::types::Colorimetry;
        use std::sync::Arc;
        let of = |chroma: u8, layout: Layout| {
            let bytes = [vec![100u8; 64 * 48], vec![chroma; 64 * 48]].concat();
            struct Planes(Vec<u8>);
            impl crate::types::PlaneSource for Planes {
                fn plane(&self, index: usize) -> &[u8] {
                    if index == 0 { &self.0[..64 * 48] } else { &self.0[64 * 48..] }
                }
            }
            Picture::new((64, 48), layout, Colorimetry::default(), [64, 64, 64], Arc::new(Planes(bytes))).unwrap()
        };
        for layout in [Layout::I420, Layout::Nv12] {
            let mut watch = LightWatch::new(0, 0);
            let told = |watch: &mut LightWatch, chroma: u8, from: u64, to: u64| {
                (from..to)
                    .step_by(200)
                    .filter_map(|ms| {
                        watch.look(&of(chroma, layout), at(ms));
                        watch.colour_news()
                    })
                    .count()
            };
            assert_eq!(told(&mut watch, 110, 0, 10_000), 0);
            assert_eq!(told(&mut watch, 128, 10_000, 14_000), 0, "{layout:?}: a grey wall for a moment");
            assert_eq!(told(&mut watch, 110, 14_000, 20_000), 0);
            assert_eq!(told(&mut watch, 129, 20_000, 60_000), 1, "{layout:?}");
            assert_eq!(told(&mut watch, 110, 60_000, 80_000), 1, "{layout:?}");
        }
    }

    #[test]
    fn zero_thresholds_switch_it_off() {
        let mut watch = LightWatch::new(0, 0);
        watch.look(&striped(0, 0), at(0));
        assert!(watch.look(&striped(0, 0), at(5000)).is_none());
    }
}
