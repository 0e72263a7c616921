//! Pictures that are no photos of a scene but crops of one face: a face that fills its photo, small crops of a face's box, and crops that
//! were aligned to the embedder's template before.

use thiserror::Error;

use super::PipelineError;
use super::still::{StillFace, look_plainly};
use crate::types::{Layout, Picture, Point, Refusal};
use crate::vision::framed::Framed;
use crate::vision::quality::{self, outside_share};
use crate::vision::stack::Stack;
use crate::vision::{Detector, align};

/// The margin around a face that fills its photo, as a share of each side.
const MARGIN: f32 = 0.3;
/// The margin around a crop of a face's box: what a photo has around a face.
const CROP_MARGIN: f32 = 0.5;
/// How long a crop's longer side is to be, in pixels: the size of a face in the photos that detectors and embedders were taught on.
const CROP_SIDE: f32 = 256.0;
/// A side may be longer than the other by this share and the crop counts as square.
const SQUARE: f32 = 0.02;
/// How far eyes, nose and mouth may lie beside the template's in the mean, in distances between its eyes. Five points of a face that was
/// aligned by other points lie some way off.
pub(super) const MAX_OFF: f32 = 0.25;

/// Looks once more at a photo that no face was found on, with a margin around it.
pub(super) fn look_with_margin(
    stack: &mut Stack,
    picture: &Picture,
    settings: &quality::Settings,
    most: usize,
) -> Result<Vec<StillFace>, PipelineError> {
    // A camera's picture is never filled by a face that is to be judged, and each look costs.
    let framed = if picture.layout() == Layout::Rgb { Framed::of(picture, 1.0, MARGIN) } else { None };
    let Some(framed) = framed else { return Ok(Vec::new()) };
    let mut faces = look_plainly(stack, &framed.picture, settings, most)?;
    for face in &mut faces {
        face.detection = framed.within(face.detection);
        let area = &face.detection.bounding_box;
        let is_outside = |point: &Point| {
            !((0.0..picture.width() as f32).contains(&point.x) && (0.0..picture.height() as f32).contains(&point.y))
        };
        // What the margin covers was never in the photo.
        let outside = outside_share(area, picture);
        let is_cut = outside > settings.max_outside_share || face.detection.landmarks.0.iter().any(is_outside);
        if let Some(quality) = &mut face.quality {
            quality.outside_share = outside;
            if is_cut && !quality.refusals.contains(&Refusal::CutOff) {
                quality.refusals.push(Refusal::CutOff);
            }
        }
    }
    Ok(faces)
}

/// Every face of a small crop of a face's box, the largest first: enlarged, with a margin. How small, blurred and cut off it is was the
/// operator's choice and refuses nothing.
pub fn look_at_crop(stack: &mut Stack, crop: &Picture, settings: &quality::Settings) -> Result<Vec<StillFace>, PipelineError> {
    let longer = crop.width().max(crop.height()) as f32;
    let Some(framed) = Framed::of(crop, (CROP_SIDE / longer).max(1.0), CROP_MARGIN) else { return Ok(Vec::new()) };
    let settings = quality::Settings { min_sharpness: 0.0, min_eye_distance_px: 0.0, ..*settings };
    let mut faces = look_plainly(stack, &framed.picture, &settings, usize::MAX)?;
    faces.iter_mut().for_each(|face| face.detection = framed.within(face.detection));
    Ok(faces)
}

/// Why a picture is no crop that was aligned to the ArcFace template.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum NotAligned {
    /// Its sides differ.
    #[error(
        "is not aligned: {width}x{height} pixels, an aligned crop is square; leave --aligned out, or give --crops for crops of the face's box"
    )]
    NotSquare {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// There is no face where one should be, or it is another picture altogether.
    #[error("is not aligned: no face is found where an aligned crop has it; leave --aligned out")]
    NoFace,
    /// The points lie elsewhere.
    #[error("is not aligned: eyes, nose and mouth lie {:.0} % of the eyes' distance beside where the template has them, {:.0} % are the most; leave --aligned out, or give --crops for crops of the face's box", 100.0 * .off, 100.0 * MAX_OFF)]
    Elsewhere {
        /// How far, in distances between the template's eyes.
        off: f32,
    },
}

/// Judges a picture that is said to be aligned; `None` where it is.
pub fn not_aligned(detector: &mut Detector, crop: &Picture) -> Result<Option<NotAligned>, PipelineError> {
    let (width, height) = (crop.width() as f32, crop.height() as f32);
    if (width - height).abs() > SQUARE * width.min(height) {
        return Ok(Some(NotAligned::NotSquare { width: crop.width(), height: crop.height() }));
    }
    let Some(framed) = Framed::of(crop, (CROP_SIDE / width).max(1.0), CROP_MARGIN) else { return Ok(Some(NotAligned::NoFace)) };
    let off = detector.detect(&framed.picture)?.into_iter().map(|face| off_template(&framed.within(face).landmarks.0, width));
    let best = off.min_by(f32::total_cmp);
    Ok(match best {
        None => Some(NotAligned::NoFace),
        Some(off) if off <= MAX_OFF => None,
        // What is no number is far off too.
        Some(off) => Some(NotAligned::Elsewhere { off }),
    })
}

/// How far five points lie beside the template's in the mean, in distances between its eyes.
fn off_template(points: &[Point; 5], side: f32) -> f32 {
    let scale = side / align::ARCFACE_SIDE as f32;
    let template = align::ARCFACE_TEMPLATE.map(|[x, y]| [x * scale, y * scale]);
    let eyes = (template[1][0] - template[0][0]).hypot(template[1][1] - template[0][1]);
    let off: f32 = points.iter().zip(template).map(|(point, [x, y])| (point.x - x).hypot(point.y - y)).sum();
    off / (points.len() as f32 * eyes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_measured_against_the_template_at_any_size() {
        for side in [56.0, 112.0, 300.0] {
            let scale = side / align::ARCFACE_SIDE as f32;
            let on = align::ARCFACE_TEMPLATE.map(|[x, y]| Point { x: x * scale, y: y * scale });
            assert!(off_template(&on, side) < 1e-6);
            let eyes = on[1].x - on[0].x;
            let beside = on.map(|point| Point { x: point.x + eyes, ..point });
            assert!((off_template(&beside, side) - 1.0).abs() < 0.01);
            assert!(off_template(&on.map(|point| Point { x: f32::NAN, ..point }), side).is_nan());
        }
    }
}
