//! Whether the five points of a face move as those of a flat picture: a cue over several frames that can only deny.
//!
//! Any two views of a flat picture, from not too near, are an affine map of each other; of the ten numbers of five points it leaves four
//! free. A head that is turned by an angle has its points foreshortened by the cosine, and its nose moves out of their plane by the
//! sine: much more than the map allows. So two frames between which the points were foreshortened clearly, and which an affine map
//! explains nevertheless, speak for a picture; two which it does not explain speak for a head (after the factorisation of Tomasi and
//! Kanade, IJCV 1992, whose third singular value this is for two views). Frames that are alike, or only moved, scaled and tilted, say
//! nothing. A video of a head that is turned moves as the head: against replays this cue is worth nothing.

use crate::types::{Landmarks, Point};

/// Frames that are kept to be compared with later ones.
const KEPT: usize = 32;
/// How far the nose stands out before the plane of eyes and mouth, in distances between the eyes (see [`super::quality`]), less what an
/// affine map of five points takes for its own.
const NOSE_RESIDUAL: f32 = 0.53;
/// The least foreshortening that says anything: the cosine of 24 degrees. The points' own unrest is taken for 15 and more.
const CLEARLY_TURNED: f32 = 0.913;
/// A residual below this share of what a head would have is a picture's.
const FLAT_SHARE: f32 = 0.4;
/// So many pairs of frames must speak for a picture, one in so many of all there are (a few do by the points' unrest alone), and so many
/// times as many as for a head.
const LEAST_PAIRS: u32 = 8;
const LEAST_SHARE: u32 = 8;
const LEAST_LEAD: u32 = 4;

/// What the points' movement says so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Motion {
    /// Nothing: there was too little of it.
    #[default]
    Unclear,
    /// They moved as on a head.
    Solid,
    /// They moved as on a flat picture that was turned.
    Flat,
}

/// The points of one track.
#[derive(Debug, Clone, Default)]
pub struct Parallax {
    kept: Vec<Shape>,
    next: usize,
    pairs: u32,
    flat: u32,
    solid: u32,
}

/// Five points about their middle, in distances between the eyes.
type Shape = [Point; 5];

impl Parallax {
    /// Takes one frame's points; ones that are no face are passed over.
    pub fn see(&mut self, points: &Landmarks) {
        let Some(shape) = shape(points) else { return };
        for other in &self.kept {
            let Some((foreshortening, residual)) = compare(other, &shape) else { continue };
            self.pairs = self.pairs.saturating_add(1);
            if foreshortening > CLEARLY_TURNED {
                continue;
            }
            let of_a_head = NOSE_RESIDUAL * (1.0 - foreshortening * foreshortening).sqrt();
            if residual < FLAT_SHARE * of_a_head {
                self.flat = self.flat.saturating_add(1);
            } else {
                self.solid = self.solid.saturating_add(1);
            }
        }
        match self.kept.get_mut(self.next % KEPT) {
            Some(oldest) => *oldest = shape,
            None => self.kept.push(shape),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// What they say.
    pub fn motion(&self) -> Motion {
        match () {
            () if self.flat >= LEAST_PAIRS.max(self.pairs / LEAST_SHARE) && self.flat >= LEAST_LEAD.saturating_mul(self.solid) => {
                Motion::Flat
            }
            () if self.solid >= LEAST_PAIRS && self.solid > self.flat => Motion::Solid,
            () => Motion::Unclear,
        }
    }

    /// How many pairs of frames spoke for a picture and how many for a head, for whoever measures.
    pub fn votes(&self) -> (u32, u32) {
        (self.flat, self.solid)
    }
}

fn shape(points: &Landmarks) -> Option<Shape> {
    let eyes = points.eye_distance();
    if !eyes.is_normal() || points.0.iter().any(|p| !p.x.is_finite() || !p.y.is_finite()) {
        return None;
    }
    let middle = points.0.iter().fold(Point::default(), |sum, p| Point { x: sum.x + p.x / 5.0, y: sum.y + p.y / 5.0 });
    Some(points.0.map(|p| Point { x: (p.x - middle.x) / eyes, y: (p.y - middle.y) / eyes }))
}

/// The affine map from one shape to the other: how much it foreshortens (its smaller singular value over the larger one), and the norm
/// of what it leaves over, in distances between the eyes.
fn compare(from: &Shape, to: &Shape) -> Option<(f32, f32)> {
    let sum = |f: &dyn Fn(&Point, &Point) -> f32| from.iter().zip(to).map(|(p, q)| f(p, q)).sum::<f32>();
    let (xx, xy, yy) = (sum(&|p, _| p.x * p.x), sum(&|p, _| p.x * p.y), sum(&|p, _| p.y * p.y));
    let determinant = xx * yy - xy * xy;
    if determinant < 1e-4 {
        return None;
    }
    let row = |ux: f32, uy: f32| ((ux * yy - uy * xy) / determinant, (uy * xx - ux * xy) / determinant);
    let (a, b) = row(sum(&|p, q| q.x * p.x), sum(&|p, q| q.x * p.y));
    let (c, d) = row(sum(&|p, q| q.y * p.x), sum(&|p, q| q.y * p.y));
    let residual = sum(&|p, q| (q.x - a * p.x - b * p.y).powi(2) + (q.y - c * p.x - d * p.y).powi(2)).sqrt();
    let (squares, area) = (a * a + b * b + c * c + d * d, (a * d - b * c).abs());
    let spread = (squares * squares - 4.0 * area * area).max(0.0).sqrt();
    let (large, small) = (f32::midpoint(squares, spread).sqrt(), ((squares - spread) / 2.0).max(0.0).sqrt());
    let scale = area.sqrt();
    (large > 1e-3 && scale > 1e-3).then(|| (small / large, residual / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eyes, nose and mouth of a head in distances between the eyes; the nose stands out.
    const HEAD: [[f32; 3]; 5] = [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.57, 0.6], [-0.41, 1.16, 0.05], [0.42, 1.15, 0.05]];

    /// The points of a head (or of a picture of one, without depth) that is turned, seen from far, with the points' unrest.
    fn view(depth: f32, yaw: f32, pitch: f32, unrest: f32, random: &mut fastrand::Rng) -> Landmarks {
        let (yaw, pitch) = (yaw.to_radians(), pitch.to_radians());
        let mut noise = || unrest * (random.f32() + random.f32() + random.f32() - 1.5) * 2.0;
        Landmarks(HEAD.map(|[x, y, z]| {
            let (x, z) = (x * yaw.cos() + z * depth * yaw.sin(), z * depth * yaw.cos() - x * yaw.sin());
            let y = y * pitch.cos() - z * pitch.sin();
            Point { x: 300.0 + 80.0 * (x + noise()), y: 200.0 + 80.0 * (y + noise()) }
        }))
    }

    fn moved(depth: f32, unrest: f32, angle: impl Fn(f32) -> (f32, f32)) -> Motion {
        let mut random = fastrand::Rng::with_seed(11);
        let mut parallax = Parallax::default();
        for n in 0..40u8 {
            let (yaw, pitch) = angle(f32::from(n) / 40.0);
            parallax.see(&view(depth, yaw, pitch, unrest, &mut random));
        }
        parallax.motion()
    }

    #[test]
    fn points_that_stand_still_or_are_no_face_say_nothing() {
        assert_eq!(moved(0.0, 0.02, |_| (0.0, 0.0)), Motion::Unclear);
        assert_eq!(moved(1.0, 0.02, |_| (0.0, 0.0)), Motion::Unclear);
        let mut parallax = Parallax::default();
        for wrong in [f32::NAN, f32::INFINITY, 7.0] {
            (0..40).for_each(|_| parallax.see(&Landmarks([Point { x: wrong, y: wrong }; 5])));
        }
        assert_eq!((parallax.motion(), parallax.votes()), (Motion::Unclear, (0, 0)));
    }

    #[test]
    fn a_picture_that_is_turned_is_flat_and_a_head_that_is_turned_is_not() {
        let swing = |t: f32| 40.0 * (6.0 * t).sin();
        for unrest in [0.0, 0.015] {
            assert_eq!(moved(0.0, unrest, |t| (swing(t), 0.0)), Motion::Flat, "to the sides, {unrest}");
            assert_eq!(moved(0.0, unrest, |t| (0.0, swing(t))), Motion::Flat, "up and down, {unrest}");
            assert_eq!(moved(1.0, unrest, |t| (swing(t), 0.0)), Motion::Solid, "a head, {unrest}");
            assert_eq!(moved(1.0, unrest, |t| (0.0, swing(t))), Motion::Solid, "a nod, {unrest}");
        }
    }

    #[test]
    fn a_turn_by_a_few_degrees_says_nothing_of_a_picture_or_a_head() {
        for depth in [0.0, 1.0] {
            assert_eq!(moved(depth, 0.0, |t| (8.0 * (6.0 * t).sin(), 0.0)), Motion::Unclear, "{depth}");
        }
    }

    #[test]
    fn a_picture_needs_enough_pairs_a_share_of_all_and_a_clear_lead_and_a_head_more_than_a_picture() {
        let cases = [
            ((60, 8, 0), Motion::Flat),
            ((60, 7, 0), Motion::Unclear),
            ((160, 20, 5), Motion::Flat),
            ((160, 20, 6), Motion::Unclear),
            ((160, 19, 0), Motion::Unclear),
            ((60, 8, 8), Motion::Unclear),
            ((60, 8, 9), Motion::Solid),
            ((60, 0, 7), Motion::Unclear),
        ];
        for ((pairs, flat, solid), motion) in cases {
            assert_eq!(Parallax { pairs, flat, solid, ..Parallax::default() }.motion(), motion, "{pairs} {flat} {solid}");
        }
    }

    #[test]
    fn the_frames_that_are_kept_are_bounded() {
        let mut parallax = Parallax::default();
        let mut random = fastrand::Rng::with_seed(3);
        (0..500).for_each(|_| parallax.see(&view(1.0, 0.0, 0.0, 0.01, &mut random)));
        assert_eq!(parallax.kept.len(), KEPT);
    }
}
