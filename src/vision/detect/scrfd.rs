//! SCRFD's outputs (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022; decode as in
//! InsightFace's `scrfd.py`): anchors on the cell's corner, scores already sigmoid, distances to the four sides and to the points in
//! strides.

use super::{Grid, is_sound};
use crate::types::{BoundingBox, Detection, Landmarks, Point};

/// One stride's outputs: a cell's anchors lie beside each other, cells row-major.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'a> {
    /// A number an anchor.
    pub scores: &'a [f32],
    /// Distances to the left, top, right and bottom, four an anchor.
    pub boxes: &'a [f32],
    /// Five points, ten an anchor.
    pub points: &'a [f32],
}

/// Appends the faces of at least `confidence`, in the input's pixels. Anchors whose numbers are no face's (not finite, far away, inside
/// out) are skipped, missing ones end the grid.
pub fn decode(outputs: &Outputs<'_>, grid: Grid, anchors: usize, confidence: f32, faces: &mut Vec<Detection>) {
    let stride = grid.stride as f32;
    let all = outputs.scores.iter().zip(outputs.boxes.as_chunks::<4>().0).zip(outputs.points.as_chunks::<10>().0);
    for (anchor, ((&score, area), points)) in all.enumerate().take(grid.columns * grid.rows * anchors) {
        if score < confidence || score.is_nan() {
            continue;
        }
        let cell = anchor / anchors;
        let (x, y) = ((cell % grid.columns) as f32 * stride, (cell / grid.columns) as f32 * stride);
        let [left, top, right, bottom] = area.map(|distance| distance * stride);
        let point = |index: usize| Point { x: x + points[2 * index] * stride, y: y + points[2 * index + 1] * stride };
        let face = Detection {
            bounding_box: BoundingBox { x: x - left, y: y - top, width: left + right, height: top + bottom },
            landmarks: Landmarks([0, 1, 2, 3, 4].map(point)),
            confidence: score.min(1.0),
        };
        if is_sound(&face) {
            faces.push(face);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { stride: 16, columns: 2, rows: 2 };

    #[test]
    fn hostile_and_inside_out_numbers_are_skipped() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0] {
            let mut faces = Vec::new();
            decode(&Outputs { scores: &[1.0; 8], boxes: &[bad; 32], points: &[0.0; 80] }, GRID, 2, 0.5, &mut faces);
            assert!(faces.is_empty(), "{bad} gave {faces:?}");
        }
        let mut faces = Vec::new();
        decode(&Outputs { scores: &[f32::NAN; 8], boxes: &[1.0; 32], points: &[0.0; 80] }, GRID, 2, 0.5, &mut faces);
        decode(&Outputs { scores: &[1.0; 8], boxes: &[1.0; 3], points: &[0.0; 9] }, GRID, 2, 0.5, &mut faces);
        assert!(faces.is_empty());
    }

    #[test]
    fn two_anchors_share_a_cell() {
        let mut scores = [0.0; 8];
        scores[5] = 0.75;
        let mut faces = Vec::new();
        decode(&Outputs { scores: &scores, boxes: &[0.5; 32], points: &[0.25; 80] }, GRID, 2, 0.5, &mut faces);
        assert_eq!(faces.len(), 1);
        assert_eq!(faces[0].bounding_box, BoundingBox { x: -8.0, y: 8.0, width: 16.0, height: 16.0 });
        assert_eq!(faces[0].landmarks.0[2], Point { x: 4.0, y: 20.0 });
    }
}
