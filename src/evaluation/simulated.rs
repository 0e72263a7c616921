//! Visits as a door's camera sees them, drawn from one portrait each: how far away, how sharp, how lit, how restless. A portrait has one
//! pose and one moment, so that what changes over such a visit is less than over a real one (the head turns in its plane, and a little out
//! of it as a flat picture would); what the camera does to a face is drawn harder than the clips that it was held against.
//! PROJECT_REPORT.md shows both beside each other.

use std::ops::Range;

use fastrand::Rng;

use crate::types::Landmarks;

/// The frames' size in pixels: what the shipped detectors look at, so that a face is found as it would be in a camera's picture of that size.
pub const FRAME: (u32, u32) = (640, 384);
/// Frames of one visit.
pub const FRAMES: usize = 6;
/// How much of a frame shows the portrait, in eye distances; the rest is plain, and costs the encoder nothing.
const EXTENT: f32 = 7.0;

/// What a camera makes of one visit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Between the eyes, in pixels.
    pub eye_distance: f32,
    /// Out of focus: a Gaussian's deviation in pixels.
    pub defocus: f32,
    /// How far the face moves while the shutter is open, in pixels.
    pub smear: [f32; 2],
    /// The sensor's noise: its deviation in values of 255.
    pub noise: f32,
    /// Exposure, as a factor.
    pub gain: f32,
    /// The curve of the grey values, as an exponent.
    pub gamma: f32,
    /// What H.264 may spend, in bits for each pixel that shows something and frame.
    pub bits_per_pixel: f32,
    /// How much the head moves from frame to frame, as a share of the eye distance.
    pub sway: f32,
}

impl Conditions {
    /// Draws them for a face whose eye distance lies in `eyes` (pixels), each size as likely as its half (log-uniform).
    pub fn draw(dice: &mut Rng, eyes: Range<f32>) -> Self {
        let eye_distance = eyes.start * (eyes.end / eyes.start).powf(dice.f32());
        let mut between = |low: f32, high: f32| low + (high - low) * dice.f32();
        let defocus = eye_distance * between(0.01, 0.05);
        let (length, direction) = (eye_distance * between(0.0, 0.12), between(0.0, std::f32::consts::TAU));
        Self {
            eye_distance,
            defocus,
            smear: [length * direction.cos(), length * direction.sin()],
            noise: between(1.5, 7.0),
            gain: between(0.55, 1.35),
            gamma: between(0.8, 1.3),
            bits_per_pixel: between(0.06, 0.2),
            sway: between(0.02, 0.12),
        }
    }

    /// What H.264 may spend at 30 frames a second, in bits a second.
    pub fn bits_per_second(&self) -> u32 {
        let side = self.side() as f32;
        (self.bits_per_pixel * side * side * 30.0).clamp(20_000.0, 20_000_000.0) as u32
    }

    /// The side of the square that shows something, in pixels.
    fn side(&self) -> usize {
        ((EXTENT * self.eye_distance) as usize).clamp(64, FRAME.1 as usize) & !15
    }
}

/// A portrait: RGB, three bytes a pixel, and where its eyes are.
pub struct Portrait<'a> {
    rgb: &'a [u8],
    width: usize,
    height: usize,
    middle: [f32; 2],
    eye_distance: f32,
}

impl<'a> Portrait<'a> {
    /// `None` where the bytes are fewer than the size says, or the eyes are in one place.
    pub fn new(rgb: &'a [u8], (width, height): (u32, u32), points: &Landmarks) -> Option<Self> {
        let (width, height) = (width as usize, height as usize);
        let eye_distance = points.eye_distance();
        let is_whole = width > 0 && height > 0 && rgb.len() >= 3 * width * height;
        let [right, left] = [points.0[0], points.0[1]];
        (is_whole && eye_distance > 1.0).then(|| Self {
            rgb,
            width,
            height,
            middle: [(right.x + left.x) / 2.0, (right.y + left.y) / 2.0],
            eye_distance,
        })
    }

    /// The value at a place, bilinear; beyond the border the picture is mirrored.
    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let (left, top) = (x.floor(), y.floor());
        let (right_share, lower_share) = (x - left, y - top);
        let (column, row) = (left as i64, top as i64);
        let is_inside = column >= 0 && row >= 0 && column + 1 < self.width as i64 && row + 1 < self.height as i64;
        let pixel = |dx: i64, dy: i64| {
            let (column, row) = match is_inside {
                true => ((column + dx) as usize, (row + dy) as usize),
                false => (mirrored(column + dx, self.width), mirrored(row + dy, self.height)),
            };
            let start = 3 * (row * self.width + column);
            let [red, green, blue] = [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]];
            [f32::from(red), f32::from(green), f32::from(blue)]
        };
        let [a, b, c, d] = [pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1)];
        [0, 1, 2].map(|channel| {
            let upper = a[channel] + (b[channel] - a[channel]) * right_share;
            let lower = c[channel] + (d[channel] - c[channel]) * right_share;
            upper + (lower - upper) * lower_share
        })
    }

    /// The visit's frames as RGB of [`FRAME`], before any encoder. The same dice give the same frames.
    pub fn visit(&self, conditions: &Conditions, dice: &mut Rng) -> Vec<Vec<u8>> {
        let mut head = Head::new(dice);
        (0..FRAMES)
            .map(|_| {
                let frame = self.frame(conditions, &head, dice);
                head.moves(conditions.sway, dice);
                frame
            })
            .collect()
    }

    fn frame(&self, conditions: &Conditions, head: &Head, dice: &mut Rng) -> Vec<u8> {
        let side = conditions.side();
        let mut light = self.sample(conditions, head, side);
        smear(&mut light, side, conditions.smear);
        defocus(&mut light, side, conditions.defocus);
        let (columns, rows) = (FRAME.0 as usize, FRAME.1 as usize);
        let (first_column, first_row) = ((columns - side) / 2, (rows - side) / 2);
        let mut frame = vec![112u8; 3 * columns * rows];
        for (row, values) in light.chunks_exact(3 * side).enumerate() {
            let start = 3 * ((first_row + row) * columns + first_column);
            for (out, value) in frame[start..].iter_mut().zip(values) {
                let lit = 255.0 * (conditions.gain * value / 255.0).clamp(0.0, 1.0).powf(conditions.gamma);
                *out = (lit + conditions.noise * normal(dice) + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        frame
    }

    /// The square around the face, 3 values a pixel; of several of the portrait's pixels for one the mean of four samples.
    fn sample(&self, conditions: &Conditions, head: &Head, side: usize) -> Vec<f32> {
        let scale = self.eye_distance / (conditions.eye_distance * head.scale);
        let (sin, cos) = head.roll.sin_cos();
        let half = side as f32 / 2.0;
        let four = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)];
        let offsets = if scale > 1.2 { &four[..] } else { &[(0.5, 0.5)][..] };
        let mut light = Vec::with_capacity(3 * side * side);
        for row in 0..side {
            for column in 0..side {
                let mut sum = [0.0f32; 3];
                for (dx, dy) in offsets {
                    let x = column as f32 + dx - half - head.place[0] * conditions.eye_distance;
                    // The eyes are above the middle of the square.
                    let y = row as f32 + dy - 0.42 * side as f32 - head.place[1] * conditions.eye_distance;
                    let (x, y) = (cos * x + sin * y, cos * y - sin * x);
                    let (x, y) = (x / head.squeeze[0], y / head.squeeze[1]);
                    let value = self.at(self.middle[0] + scale * x, self.middle[1] + scale * y);
                    (0..3).for_each(|channel| sum[channel] += value[channel]);
                }
                light.extend(sum.map(|value| value / offsets.len() as f32));
            }
        }
        light
    }
}

/// How the head is held in one frame.
struct Head {
    /// Off the middle, in eye distances.
    place: [f32; 2],
    /// In its plane, in radians.
    roll: f32,
    scale: f32,
    /// Narrower or lower, as a flat picture that is turned.
    squeeze: [f32; 2],
}

impl Head {
    fn new(dice: &mut Rng) -> Self {
        let place = [0.2 * normal(dice), 0.1 * normal(dice)];
        Self { place, roll: 0.08 * normal(dice), scale: 1.0, squeeze: [1.0 - 0.1 * dice.f32(), 1.0 - 0.06 * dice.f32()] }
    }

    fn moves(&mut self, sway: f32, dice: &mut Rng) {
        for (place, most) in self.place.iter_mut().zip([0.6, 0.3]) {
            *place = (*place + sway * normal(dice)).clamp(-most, most);
        }
        self.roll = (self.roll + 0.4 * sway * normal(dice)).clamp(-0.25, 0.25);
        self.scale = (self.scale + 0.25 * sway * normal(dice)).clamp(0.85, 1.15);
        for squeeze in &mut self.squeeze {
            *squeeze = (*squeeze + 0.3 * sway * normal(dice)).clamp(0.82, 1.0);
        }
    }
}

/// A place beyond the border, mirrored into the picture.
fn mirrored(at: i64, length: usize) -> usize {
    let (length, period) = (length as i64, 2 * length as i64);
    let at = at.rem_euclid(period);
    (if at < length { at } else { period - 1 - at }) as usize
}

/// A number of the normal distribution, near enough: the sum of four even ones (its tails end at 3.5 deviations).
fn normal(dice: &mut Rng) -> f32 {
    let sum: f32 = (0..4).map(|_| dice.f32()).sum();
    (sum - 2.0) * 1.732
}

/// Moves the light along a line while the shutter is open.
fn smear(light: &mut Vec<f32>, side: usize, [x, y]: [f32; 2]) {
    let steps = x.abs().max(y.abs()).round() as i32;
    if steps < 1 {
        return;
    }
    let shift = |step: i32| {
        let share = step as f32 / steps as f32 - 0.5;
        ((x * share).round() as isize, (y * share).round() as isize)
    };
    let shifts: Vec<(isize, isize)> = (0..=steps).map(shift).collect();
    let last = side as isize - 1;
    let mut smeared = Vec::with_capacity(light.len());
    for row in 0..side as isize {
        for column in 0..side as isize {
            let mut sum = [0.0f32; 3];
            for (dx, dy) in &shifts {
                let start = 3 * ((row + dy).clamp(0, last) as usize * side + (column + dx).clamp(0, last) as usize);
                (0..3).for_each(|channel| sum[channel] += light[start + channel]);
            }
            smeared.extend(sum.map(|value| value / shifts.len() as f32));
        }
    }
    *light = smeared;
}

/// Blurs by a Gaussian, rows first and columns then.
fn defocus(light: &mut [f32], side: usize, deviation: f32) {
    if deviation < 0.2 {
        return;
    }
    let reach = (3.0 * deviation).ceil() as usize;
    let weights: Vec<f32> = (0..=2 * reach).map(|at| (-0.5 * ((at as f32 - reach as f32) / deviation).powi(2)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let mut padded = vec![0.0f32; side + 2 * reach];
    let mut sums = vec![0.0f32; side];
    for (step, across) in [(3usize, 3 * side), (3 * side, 3)] {
        for base in (0..side).flat_map(|line| (0..3).map(move |channel| line * across + channel)) {
            // Beyond the border the last value goes on.
            for (place, value) in padded.iter_mut().enumerate() {
                *value = light[base + place.saturating_sub(reach).min(side - 1) * step];
            }
            sums.fill(0.0);
            for (offset, weight) in weights.iter().enumerate() {
                sums.iter_mut().zip(&padded[offset..]).for_each(|(sum, value)| *sum += weight * value);
            }
            sums.iter().enumerate().for_each(|(place, sum)| light[base + place * step] = sum / total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Point;

    /// Bright eyes on a dark ground, 40 pixels apart.
    fn portrait() -> (Vec<u8>, Landmarks) {
        let mut rgb = vec![40u8; 3 * 200 * 200];
        for (x, y) in [(80usize, 90usize), (120, 90)] {
            for (row, column) in (y - 4..=y + 4).flat_map(|row| (x - 4..=x + 4).map(move |column| (row, column))) {
                rgb[3 * (row * 200 + column)..][..3].fill(240);
            }
        }
        let point = |x: f32, y: f32| Point { x, y };
        let points = [point(80.0, 90.0), point(120.0, 90.0), point(100.0, 110.0), point(85.0, 130.0), point(115.0, 130.0)];
        (rgb, Landmarks(points))
    }

    /// The two columns around which the bright pixels lie.
    fn eyes_apart(frame: &[u8]) -> f32 {
        let columns = FRAME.0 as usize;
        let bright = frame.chunks_exact(3).enumerate().filter(|(_, pixel)| pixel[0] > 150).map(|(at, _)| (at % columns) as f32);
        let all: Vec<f32> = bright.collect();
        let middle = all.iter().sum::<f32>() / all.len() as f32;
        let mean = |side: Vec<&f32>| side.iter().copied().sum::<f32>() / side.len() as f32;
        mean(all.iter().filter(|x| **x > middle).collect()) - mean(all.iter().filter(|x| **x <= middle).collect())
    }

    fn still(eye_distance: f32) -> Conditions {
        Conditions {
            eye_distance,
            defocus: 0.0,
            smear: [0.0; 2],
            noise: 0.0,
            gain: 1.0,
            gamma: 1.0,
            bits_per_pixel: 0.1,
            sway: 0.0,
        }
    }

    #[test]
    fn eyes_are_as_far_apart_as_asked() {
        let (rgb, points) = portrait();
        let portrait = Portrait::new(&rgb, (200, 200), &points).unwrap();
        for eye_distance in [20.0, 45.0, 80.0] {
            let frames = portrait.visit(&still(eye_distance), &mut Rng::with_seed(1));
            assert_eq!((frames.len(), frames[0].len()), (FRAMES, 3 * 640 * 384));
            // The drawn head is up to a tenth narrower than the portrait, and a little tilted.
            let found = eyes_apart(&frames[0]) / eye_distance;
            assert!((0.85..1.03).contains(&found), "{eye_distance}: {found}");
        }
    }

    #[test]
    fn the_same_dice_give_the_same_visit_and_others_another() {
        let (rgb, points) = portrait();
        let portrait = Portrait::new(&rgb, (200, 200), &points).unwrap();
        let draw = |seed| {
            let mut dice = Rng::with_seed(seed);
            let conditions = Conditions::draw(&mut dice, 20.0..80.0);
            (conditions, portrait.visit(&conditions, &mut dice))
        };
        assert!(draw(7) == draw(7) && draw(7) != draw(8));
        let (conditions, frames) = draw(7);
        assert!((20.0..=80.0).contains(&conditions.eye_distance) && frames[0] != frames[1]);
    }

    #[test]
    fn blur_keeps_the_light_and_takes_the_edges() {
        let (rgb, points) = portrait();
        let portrait = Portrait::new(&rgb, (200, 200), &points).unwrap();
        let frame = |conditions: Conditions| portrait.visit(&conditions, &mut Rng::with_seed(3)).swap_remove(0);
        let (sharp, soft) = (frame(still(40.0)), frame(Conditions { defocus: 2.0, ..still(40.0) }));
        let moved = frame(Conditions { smear: [8.0, 3.0], ..still(40.0) });
        let light = |frame: &[u8]| frame.iter().map(|value| f64::from(*value)).sum::<f64>();
        let edges = |frame: &[u8]| frame.windows(4).map(|pair| (f64::from(pair[0]) - f64::from(pair[3])).powi(2)).sum::<f64>();
        for other in [&soft, &moved] {
            assert!((light(other) / light(&sharp) - 1.0).abs() < 0.01);
            assert!(edges(other) < 0.8 * edges(&sharp), "{} {}", edges(other), edges(&sharp));
        }
    }

    #[test]
    fn a_portrait_without_pixels_or_eyes_is_none() {
        let (rgb, points) = portrait();
        assert!(Portrait::new(&rgb[..100], (200, 200), &points).is_none());
        assert!(Portrait::new(&rgb, (200, 200), &Landmarks::default()).is_none());
        assert!(Portrait::new(&[], (0, 0), &points).is_none());
    }
}
