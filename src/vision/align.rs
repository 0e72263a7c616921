//! Five-point alignment: the similarity transform (turn, scale, shift) that brings a face's points nearest to an embedder's template
//! in the least-squares sense (Umeyama, "Least-squares estimation of transformation parameters between two point patterns", IEEE PAMI
//! 13(4), 1991). In the plane and without mirroring it has a closed form in complex numbers, which is what is computed here.

use super::warp::warp;
use crate::types::{AlignedFace, Landmarks, Picture};

/// `x' = a x - b y + dx`, `y' = b x + a y + dy`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the turn.
    pub a: f64,
    /// Scale times the sine of the turn.
    pub b: f64,
    /// The shift to the right.
    pub dx: f64,
    /// The shift down.
    pub dy: f64,
}

/// The least mean squared distance of the points from their middle, in square pixels: below it they are one point.
const MIN_SPREAD: f64 = 1.0;

/// The least share of the template's spread that the transform must explain. Faces turned by 60° reach 0.7; points on a line, mirrored
/// or thrown at random fall below.
const MIN_EXPLAINED: f64 = 0.2;

impl Similarity {
    /// The transform of `points` to `template`; `None` when the points are not finite, nearly coincide, or do not resemble a face.
    pub fn fit(points: &Landmarks, template: &[[f32; 2]; 5]) -> Option<Self> {
        let from = points.0.map(|p| [f64::from(p.x), f64::from(p.y)]);
        let to = template.map(|p| p.map(f64::from));
        let (from_mean, to_mean) = (mean(&from), mean(&to));
        let (mut real, mut imaginary, mut from_spread, mut to_spread) = (0.0, 0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(&to) {
            let (x, y) = (from[0] - from_mean[0], from[1] - from_mean[1]);
            let (u, v) = (to[0] - to_mean[0], to[1] - to_mean[1]);
            real += x * u + y * v;
            imaginary += x * v - y * u;
            from_spread += x * x + y * y;
            to_spread += u * u + v * v;
        }
        let explained = (real * real + imaginary * imaginary) / (from_spread * to_spread);
        // Written so that NaN refuses.
        if !(from_spread / 5.0 >= MIN_SPREAD && explained >= MIN_EXPLAINED && from_spread.is_finite()) {
            return None;
        }
        let (a, b) = (real / from_spread, imaginary / from_spread);
        let dx = to_mean[0] - (a * from_mean[0] - b * from_mean[1]);
        let dy = to_mean[1] - (b * from_mean[0] + a * from_mean[1]);
        Some(Self { a, b, dx, dy })
    }

    /// The way back, as rows of a 2×3 matrix.
    fn inverse(&self) -> [[f64; 3]; 2] {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        [[a, -b, -(a * self.dx - b * self.dy)], [b, a, -(b * self.dx + a * self.dy)]]
    }
}

fn mean(points: &[[f64; 2]; 5]) -> [f64; 2] {
    [0, 1].map(|axis| points.iter().map(|p| p[axis]).sum::<f64>() / 5.0)
}

/// Pixels a side of the ArcFace crop.
pub const ARCFACE_SIDE: u32 = 112;

/// Where the five points lie in a face that was cropped for ArcFace (InsightFace's `arcface_dst`), in pixels of [`ARCFACE_SIDE`]. It says
/// how crops that come in already aligned were made; where a network wants its points is the manifest's matter.
pub const ARCFACE_TEMPLATE: [[f32; 2]; 5] =
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];

/// Warps a face to `template` (pixels of the aligned face) at `side` pixels a side; black where the picture ends. `None` as for
/// [`Similarity::fit`], and for a side of zero or above 1024.
pub fn align(picture: &Picture, points: &Landmarks, template: &[[f32; 2]; 5], side: u32) -> Option<AlignedFace> {
    if !(1..=1024).contains(&side) {
        return None;
    }
    let similarity = Similarity::fit(points, template)?;
    Some(AlignedFace::new(side, warp(picture, similarity.inverse(), side)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Point;

    const TEMPLATE: [[f32; 2]; 5] =
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];

    fn landmarks(points: [[f32; 2]; 5]) -> Landmarks {
        Landmarks(points.map(|[x, y]| Point { x, y }))
    }

    #[test]
    fn points_that_are_no_face_are_refused() {
        let nan = landmarks([[f32::NAN, 0.0]; 5]);
        let huge = landmarks(TEMPLATE.map(|[x, y]| [x * f32::MAX, y]));
        let same = landmarks([[40.0, 40.0]; 5]);
        let mirrored = landmarks(TEMPLATE.map(|[x, y]| [y, x]).map(|[x, y]| [x, y * 0.98]));
        for points in [nan, huge, same, mirrored] {
            assert_eq!(Similarity::fit(&points, &TEMPLATE), None);
        }
    }

    #[test]
    fn a_turned_scaled_and_shifted_template_is_found_again() {
        let (a, b, dx, dy) = (1.7, -0.6, 120.0, 33.0);
        let points = TEMPLATE.map(|[x, y]| [a * x - b * y + dx, b * x + a * y + dy]);
        let found = Similarity::fit(&landmarks(points), &TEMPLATE).unwrap();
        for (point, expected) in points.iter().zip(TEMPLATE) {
            let (x, y) = (f64::from(point[0]), f64::from(point[1]));
            assert!((found.a * x - found.b * y + found.dx - f64::from(expected[0])).abs() < 1e-3);
            assert!((found.b * x + found.a * y + found.dy - f64::from(expected[1])).abs() < 1e-3);
        }
        let [[xx, xy, x0], _] = found.inverse();
        assert!((xx * 10.0 + xy * 20.0 + x0 - f64::from(a * 10.0 - b * 20.0 + dx)).abs() < 1e-3);
    }

    #[test]
    fn a_face_on_the_template_already_is_copied() {
        let bytes: Vec<u8> = (0..112 * 112 * 3).map(|i| (i % 251) as u8).collect();
        let picture = Picture::from_rgb(112, 112, bytes.clone()).unwrap();
        let face = align(&picture, &landmarks(TEMPLATE), &TEMPLATE, 112).unwrap();
        assert!(face.rgb().iter().zip(&bytes).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert!(align(&picture, &landmarks(TEMPLATE), &TEMPLATE, 0).is_none());
    }
}
