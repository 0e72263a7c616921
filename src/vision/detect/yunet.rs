//! YuNet's outputs (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023; decode as in
//! OpenCV's `FaceDetectorYN`): one cell a stride, scores already sigmoid, the middle and the points relative to the cell in strides, the
//! sides as logarithms.

use super::{Grid, is_sound};
use crate::types::{BoundingBox, Detection, Landmarks, Point};

/// One stride's outputs, row-major, for `columns * rows` cells.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'a> {
    /// That it is a face, a number a cell.
    pub class: &'a [f32],
    /// That there is anything, a number a cell.
    pub object: &'a [f32],
    /// Middle x, y and the logarithms of width and height, four a cell.
    pub boxes: &'a [f32],
    /// Five points, ten a cell.
    pub points: &'a [f32],
}

/// Appends the faces of at least `confidence`, in the input's pixels. Cells whose numbers are no face's (not finite, far away) are
/// skipped, missing ones end the grid.
pub fn decode(outputs: &Outputs<'_>, grid: Grid, confidence: f32, faces: &mut Vec<Detection>) {
    let stride = grid.stride as f32;
    // The root is taken only of cells that pass.
    let least = confidence.max(0.0).powi(2);
    let scores = outputs.class.iter().zip(outputs.object);
    let cells = scores.zip(outputs.boxes.as_chunks::<4>().0).zip(outputs.points.as_chunks::<10>().0);
    for (cell, (((class, object), area), points)) in cells.enumerate().take(grid.columns * grid.rows) {
        let product = class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0);
        if product < least || product.is_nan() {
            continue;
        }
        let (column, row) = ((cell % grid.columns) as f32, (cell / grid.columns) as f32);
        let (width, height) = (area[2].exp() * stride, area[3].exp() * stride);
        let (x, y) = ((column + area[0]) * stride - width / 2.0, (row + area[1]) * stride - height / 2.0);
        let point = |index: usize| Point { x: (points[2 * index] + column) * stride, y: (points[2 * index + 1] + row) * stride };
        let face = Detection {
            bounding_box: BoundingBox { x, y, width, height },
            landmarks: Landmarks([0, 1, 2, 3, 4].map(point)),
            confidence: product.sqrt(),
        };
        if is_sound(&face) {
            faces.push(face);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { stride: 8, columns: 2, rows: 1 };

    #[test]
    fn hostile_numbers_are_skipped() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e9] {
            for (class, boxes, points) in
                [([bad, 0.0], [0.0; 8], [bad; 20]), ([1.0, 1.0], [bad; 8], [0.0; 20]), ([1.0, 1.0], [0.0; 8], [bad; 20])]
            {
                let mut faces = Vec::new();
                decode(&Outputs { class: &class, object: &[1.0, 1.0], boxes: &boxes, points: &points }, GRID, 0.6, &mut faces);
                assert!(faces.is_empty(), "{bad} gave {faces:?}");
            }
        }
    }

    #[test]
    fn truncated_outputs_do_not_panic() {
        let mut faces = Vec::new();
        decode(&Outputs { class: &[1.0, 1.0], object: &[1.0], boxes: &[0.0; 5], points: &[0.0; 3] }, GRID, 0.6, &mut faces);
        assert!(faces.is_empty());
    }

    #[test]
    fn scores_above_one_count_as_one() {
        let mut faces = Vec::new();
        let (class, object) = ([0.0, 7.0], [1.0, 0.49]);
        decode(&Outputs { class: &class, object: &object, boxes: &[0.0; 8], points: &[1.0; 20] }, GRID, 0.6, &mut faces);
        assert_eq!(faces.len(), 1);
        assert!((faces[0].confidence - 0.7).abs() < 1e-6);
        assert_eq!(faces[0].bounding_box, BoundingBox { x: 4.0, y: -4.0, width: 8.0, height: 8.0 });
        assert_eq!(faces[0].landmarks.0[0], Point { x: 16.0, y: 8.0 });
    }
}
