//! A face cut out of its frame, as a small JPEG: for operators who were allowed to look for a while. Nothing else makes pictures.

use zeroize::Zeroizing;

use crate::capture::still;
use crate::types::{BoundingBox, Picture};
use crate::vision::pixels::{Sampler, View};

/// Pixels a side.
const SIDE: u32 = 192;
/// How much of the surroundings is in it, in sizes of the face.
const MARGIN: f32 = 1.5;

/// The face and a little around it; nothing for a box that has no part in the picture.
pub fn portrait(picture: &Picture, face: &BoundingBox) -> Option<Zeroizing<Vec<u8>>> {
    let side = face.width.max(face.height) * MARGIN;
    if !(8.0..=16_384.0).contains(&side) {
        return None;
    }
    let middle = face.center();
    let view =
        View { x: (middle.x - side / 2.0) as i32, y: (middle.y - side / 2.0) as i32, width: side as u32, height: side as u32 };
    let mut rgb = Zeroizing::new(Vec::with_capacity((3 * SIDE * SIDE) as usize));
    let is_whole = Sampler::default().resize(picture, view, (SIDE as usize, SIDE as usize), |_, [red, green, blue]| {
        for ((red, green), blue) in red.iter().zip(green).zip(blue) {
            rgb.extend_from_slice(&[*red as u8, *green as u8, *blue as u8]);
        }
    });
    if is_whole { still::encode_jpeg(SIDE, SIDE, &rgb).map(Zeroizing::new) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_outside_gives_nothing_and_one_inside_a_small_jpeg() {
        let picture = Picture::from_rgb(640, 480, vec![90; 640 * 480 * 3]).unwrap();
        let face = |x: f32, side: f32| BoundingBox { x, y: 100.0, width: side, height: side };
        for wrong in [face(f32::NAN, f32::NAN), face(0.0, 0.0), face(5000.0, 100.0), face(0.0, f32::INFINITY)] {
            assert!(portrait(&picture, &wrong).is_none(), "{wrong:?}");
        }
        let jpeg = portrait(&picture, &face(-20.0, 100.0)).unwrap();
        let again = still::decode_picture(&jpeg).unwrap();
        assert_eq!((again.width(), again.height()), (SIDE, SIDE));
    }
}
