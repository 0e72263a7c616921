//! Faces found in a picture. Coordinates are in pixels of the full picture, x to the right and y down, and a pixel's centre lies at
//! whole numbers (OpenCV's convention).

use serde::{Deserialize, Serialize};

/// A place in a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Down.
    pub y: f32,
}

/// An upright rectangle in pixels; it may reach outside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BoundingBox {
    /// The left edge.
    pub x: f32,
    /// The top edge.
    pub y: f32,
    /// The width, never negative.
    pub width: f32,
    /// The height, never negative.
    pub height: f32,
}

impl BoundingBox {
    /// Its area in square pixels.
    pub fn area(&self) -> f32 {
        self.width.max(0.0) * self.height.max(0.0)
    }

    /// Its middle.
    pub fn center(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }

    /// Intersection over union with `other`, 0 to 1.
    pub fn iou(&self, other: &BoundingBox) -> f32 {
        let width = (self.x + self.width).min(other.x + other.width) - self.x.max(other.x);
        let height = (self.y + self.height).min(other.y + other.height) - self.y.max(other.y);
        let shared = width.max(0.0) * height.max(0.0);
        let total = self.area() + other.area() - shared;
        if total > 0.0 { shared / total } else { 0.0 }
    }
}

/// A face's place in its picture, as shares of the picture: what two cameras with one view agree on, whatever their resolutions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// The middle, from the left edge (0) to the right one (1).
    pub x: f32,
    /// The middle, from the top edge (0) to the bottom one (1).
    pub y: f32,
    /// The face's height, as a share of the picture's.
    pub height: f32,
}

impl Place {
    /// Of a box in a picture of `width` × `height` pixels.
    pub fn of(area: &BoundingBox, width: u32, height: u32) -> Self {
        let (width, height) = (width.max(1) as f32, height.max(1) as f32);
        let middle = area.center();
        Self { x: middle.x / width, y: middle.y / height, height: area.height / height }
    }

    /// Whether `other` may be the same face, seen by a camera beside this one: within `tolerance` in each direction, and neither more
    /// than twice as large as the other. Places without numbers agree with nothing.
    pub fn agrees(&self, other: &Place, tolerance: f32) -> bool {
        let ratio = self.height / other.height;
        (self.x - other.x).abs() <= tolerance && (self.y - other.y).abs() <= tolerance && (0.5..=2.0).contains(&ratio)
    }
}

/// Five points in image order: the eye on the image's left, the other eye, nose tip, mouth corner on the image's left, the other
/// corner (the order of the ArcFace template).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Landmarks(pub [Point; 5]);

impl Landmarks {
    /// The distance between the eyes in pixels.
    pub fn eye_distance(&self) -> f32 {
        let [left, right, ..] = self.0;
        (right.x - left.x).hypot(right.y - left.y)
    }
}

/// One face as the detector found it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Where it is.
    pub bounding_box: BoundingBox,
    /// Its five points.
    pub landmarks: Landmarks,
    /// The detector's confidence, 0 to 1.
    pub confidence: f32,
}

/// A face warped to an embedder's template: `side` × `side` pixels, RGB, 8 bits a channel, rows top-down without padding.
/// No `Debug`: it is biometric data.
#[derive(Clone, PartialEq, Eq)]
pub struct AlignedFace {
    side: u32,
    rgb: Vec<u8>,
}

impl AlignedFace {
    /// Takes `3 * side * side` bytes.
    ///
    /// # Panics
    /// When the length does not fit: the callers are ours and sized it themselves.
    pub fn new(side: u32, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), 3 * side as usize * side as usize, "an aligned face of side {side}");
        Self { side, rgb }
    }

    /// Pixels a side.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// The pixels.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, y: f32, side: f32) -> BoundingBox {
        BoundingBox { x, y, width: side, height: side }
    }

    #[test]
    fn overlap_is_zero_apart_one_on_itself_and_never_nan() {
        assert_eq!(square(0.0, 0.0, 2.0).iou(&square(5.0, 5.0, 2.0)), 0.0);
        assert_eq!(square(1.0, 1.0, 2.0).iou(&square(1.0, 1.0, 2.0)), 1.0);
        assert_eq!(square(0.0, 0.0, 0.0).iou(&square(0.0, 0.0, 0.0)), 0.0);
        assert!((square(0.0, 0.0, 2.0).iou(&square(1.0, 0.0, 2.0)) - 1.0 / 3.0).abs() < 1e-6);
    }
}
