//! Whether the face at a place of a depth picture is a head and not a flat thing: its distances, less the plane that fits them best. A
//! sheet that is bent strongly has relief too: a depth camera makes an attack harder and is no proof.

use crate::types::{Layout, Picture, Place};

/// Samples of the face in each direction.
const SIDE: usize = 24;
/// The inner part of the face that is looked at, as shares of its height: hair and background would be relief of their own.
const HALF_WIDTH: f32 = 0.27;
const HALF_HEIGHT: f32 = 0.36;
/// Distances that are believed, in millimetres: what depth cameras at doors measure.
const NEAREST_MM: u16 = 150;
const FARTHEST_MM: u16 = 4000;
/// So many samples must have one.
const LEAST_SHARE: f32 = 0.6;
/// A face deviates from its plane by more than this and less than that, in millimetres (root mean square). A nose of some 20 mm before
/// cheeks that fall back by as much gives 8 to 15; a flat sheet gives the sensor's own unrest, 1 to 3 at arm's length.
const LEAST_RELIEF_MM: f32 = 5.0;
const MOST_RELIEF_MM: f32 = 60.0;

/// Whether there is relief as a face has; a picture that is no depth picture, and one without distances there, has none.
pub fn is_solid(picture: &Picture, place: &Place) -> bool {
    relief_mm(picture, place).is_some_and(|relief| (LEAST_RELIEF_MM..=MOST_RELIEF_MM).contains(&relief))
}

/// The root mean square of the distances about the plane that fits them best, in millimetres.
pub fn relief_mm(picture: &Picture, place: &Place) -> Option<f32> {
    if picture.layout() != Layout::Depth || !(place.x.is_finite() && place.y.is_finite() && place.height.is_finite()) {
        return None;
    }
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let face = place.height * height;
    let (plane, stride) = picture.plane(0);
    let mut samples = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let share = |n: usize| 2.0 * (n as f32 + 0.5) / SIDE as f32 - 1.0;
            let (u, v) = (share(column), share(row));
            let (x, y) = (place.x * width + u * HALF_WIDTH * face, place.y * height + v * HALF_HEIGHT * face);
            if !(x >= 0.0 && y >= 0.0 && x < width && y < height) {
                continue;
            }
            let at = y as usize * stride + 2 * (x as usize);
            let Some(bytes) = plane.get(at..at + 2) else { continue };
            let distance = u16::from_le_bytes([bytes[0], bytes[1]]);
            if (NEAREST_MM..=FARTHEST_MM).contains(&distance) {
                samples.push((u, v, f32::from(distance)));
            }
        }
    }
    if (samples.len() as f32) < LEAST_SHARE * (SIDE * SIDE) as f32 {
        return None;
    }
    residual(&samples)
}

/// Least squares: z = a u + b v + c, about the means.
fn residual(samples: &[(f32, f32, f32)]) -> Option<f32> {
    let count = samples.len() as f32;
    let mean = samples.iter().fold((0.0, 0.0, 0.0), |sum, s| (sum.0 + s.0 / count, sum.1 + s.1 / count, sum.2 + s.2 / count));
    let (mut uu, mut uv, mut vv, mut uz, mut vz) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(u, v, z) in samples {
        let (u, v, z) = (u - mean.0, v - mean.1, z - mean.2);
        (uu, uv, vv, uz, vz) = (uu + u * u, uv + u * v, vv + v * v, uz + u * z, vz + v * z);
    }
    let determinant = uu * vv - uv * uv;
    if determinant < 1e-3 {
        return None;
    }
    let (a, b) = ((uz * vv - vz * uv) / determinant, (vz * uu - uz * uv) / determinant);
    let squares = samples.iter().map(|&(u, v, z)| (z - mean.2 - a * (u - mean.0) - b * (v - mean.1)).powi(2)).sum::<f32>();
    Some((squares / count).sqrt())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::Colorimetry;

    const PLACE: Place = Place { x: 0.5, y: 0.5, height: 0.6 };

    /// A depth picture of 160 by 120 whose distances are a function of the place in it, each from -1 to 1.
    fn picture(distance: impl Fn(f32, f32) -> f32) -> Picture {
        let mut bytes = Vec::new();
        for row in 0..120u8 {
            for column in 0..160u8 {
                let value = distance(f32::from(column) / 80.0 - 1.0, f32::from(row) / 60.0 - 1.0);
                bytes.extend_from_slice(&(value as u16).to_le_bytes());
            }
        }
        Picture::new((160, 120), Layout::Depth, Colorimetry::default(), [320, 0, 0], Arc::new(bytes)).unwrap()
    }

    /// The sensor's unrest, at every second place.
    fn unrest(x: f32, y: f32) -> f32 {
        3.0 * ((x * 977.0).sin() * (y * 613.0).cos())
    }

    /// A head's distances: cheeks that fall back, and a nose.
    fn head(x: f32, y: f32) -> f32 {
        let (x, y) = (x / 0.32, y / 0.4);
        600.0 + 45.0 * (x * x + 0.5 * y * y) - 22.0 * (-(x * x + y * y) * 12.0).exp()
    }

    #[test]
    fn what_is_flat_absent_or_no_depth_picture_is_no_face() {
        assert!(!is_solid(&picture(|x, y| 600.0 + unrest(x, y)), &PLACE), "a sheet");
        assert!(!is_solid(&picture(|x, y| 600.0 + 200.0 * x - 90.0 * y + unrest(x, y)), &PLACE), "a sheet held askew");
        assert!(!is_solid(&picture(|_, _| 0.0), &PLACE), "a screen that gives no distance");
        assert!(!is_solid(&picture(|x, _| if x < 0.1 { 0.0 } else { 600.0 }), &PLACE), "half of it");
        assert!(!is_solid(&picture(|x, _| if x > 0.0 { 2000.0 } else { 500.0 }), &PLACE), "an edge before a wall");
        assert!(!is_solid(&picture(|x, y| if x < 0.1 { 0.0 } else { head(x, y) }), &PLACE), "half a face");
        // Read as distances, its bytes would have a face's relief.
        let bytes: Vec<u8> = (0..160 * 120u32).map(|n| if n % 2 == 0 { (n * 37 % 61) as u8 } else { 2 }).collect();
        let gray = Picture::new((160, 120), Layout::Gray, Colorimetry::default(), [160, 0, 0], Arc::new(bytes));
        assert!(!is_solid(&gray.unwrap(), &PLACE));
        for place in [Place { x: f32::NAN, ..PLACE }, Place { x: 5.0, ..PLACE }, Place { height: f32::INFINITY, ..PLACE }] {
            assert!(!is_solid(&picture(|x, y| 600.0 + 40.0 * (x * x + y * y)), &place));
        }
    }

    #[test]
    fn a_head_is_solid_also_when_it_is_turned() {
        assert!(is_solid(&picture(|x, y| head(x, y) + unrest(x, y)), &PLACE));
        assert!(is_solid(&picture(|x, y| head(x, y) + 120.0 * x + unrest(x, y)), &PLACE));
    }
}
