//! Camera frames and pictures, kept in the layout the decoder gave: stages convert only the part they need.

use std::fmt;
use std::sync::Arc;

use super::{CameraId, Moment};

/// How a picture's samples are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Planar Y, U, V with chroma halved both ways (what software decoders give).
    I420,
    /// Planar Y, then interleaved U V halved both ways (what hardware decoders give).
    Nv12,
    /// Interleaved R, G, B (photos).
    Rgb,
    /// One plane of luma.
    Gray,
    /// One plane of distances, 16 bits each, little endian, in millimetres; 0 is "unknown". No network reads it: as a picture it is
    /// noise.
    Depth,
}

impl Layout {
    /// How many planes a picture of this layout has.
    pub fn planes(self) -> usize {
        match self {
            Layout::I420 => 3,
            Layout::Nv12 => 2,
            Layout::Rgb | Layout::Gray | Layout::Depth => 1,
        }
    }

    /// Bytes in a row of `plane` and rows in it, for a picture of `width` × `height`.
    pub fn plane_size(self, plane: usize, width: u32, height: u32) -> (usize, usize) {
        let (width, height) = (width as usize, height as usize);
        match (self, plane) {
            (Layout::Rgb, _) => (3 * width, height),
            (Layout::Depth, _) => (2 * width, height),
            (Layout::Gray, _) | (_, 0) => (width, height),
            (Layout::I420, _) => (width.div_ceil(2), height.div_ceil(2)),
            (Layout::Nv12, _) => (2 * width.div_ceil(2), height.div_ceil(2)),
        }
    }
}

/// How YUV samples become RGB. Photos are RGB already and ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Colorimetry {
    /// BT.709 instead of BT.601.
    pub bt709: bool,
    /// Luma 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

/// Who owns a picture's bytes: a mapped GStreamer buffer, or a vector.
pub trait PlaneSource: Send + Sync {
    /// The bytes of one plane, from its first row; at least `(rows - 1) * stride + row_bytes` long.
    fn plane(&self, index: usize) -> &[u8];
}

impl PlaneSource for Vec<u8> {
    fn plane(&self, _index: usize) -> &[u8] {
        self
    }
}

/// The largest side of a picture that is taken in, in pixels.
pub const MAX_SIDE: u32 = 8192;

/// One picture. Cheap to clone: the bytes are shared. Its `Debug` tells the size, never the content.
#[derive(Clone)]
pub struct Picture {
    width: u32,
    height: u32,
    layout: Layout,
    colorimetry: Colorimetry,
    strides: [usize; 3],
    source: Arc<dyn PlaneSource>,
}

impl Picture {
    /// Takes planes that are as long as their strides say, or `None` when a side is zero or above [`MAX_SIDE`], a stride is shorter
    /// than its row, or a plane is too short.
    pub fn new(
        (width, height): (u32, u32),
        layout: Layout,
        colorimetry: Colorimetry,
        strides: [usize; 3],
        source: Arc<dyn PlaneSource>,
    ) -> Option<Self> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return None;
        }
        for (plane, &stride) in strides.iter().enumerate().take(layout.planes()) {
            let (row_bytes, rows) = layout.plane_size(plane, width, height);
            let needed = (rows - 1).checked_mul(stride)?.checked_add(row_bytes)?;
            if stride < row_bytes || source.plane(plane).len() < needed {
                return None;
            }
        }
        Some(Self { width, height, layout, colorimetry, strides, source })
    }

    /// A photo: `3 * width * height` bytes of RGB; `None` as for [`Picture::new`].
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        let strides = [3 * width as usize, 0, 0];
        Self::new((width, height), Layout::Rgb, Colorimetry::default(), strides, Arc::new(rgb))
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// How the samples lie.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// How YUV becomes RGB.
    pub fn colorimetry(&self) -> Colorimetry {
        self.colorimetry
    }

    /// One plane's bytes and its stride (bytes from one row to the next).
    pub fn plane(&self, index: usize) -> (&[u8], usize) {
        (self.source.plane(index), self.strides[index])
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{} {:?})", self.width, self.height, self.layout)
    }
}

/// One picture from one camera.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Which camera.
    pub camera: CameraId,
    /// Counted from 1 since the camera's worker started; a gap is a frame that was replaced before anyone took it.
    pub number: u64,
    /// When it was captured (for a file: when it was due).
    pub captured_at: Moment,
    /// What was seen.
    pub picture: Picture,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_that_are_too_short_are_refused() {
        assert!(Picture::from_rgb(4, 4, vec![0; 47]).is_none());
        assert!(Picture::from_rgb(0, 4, vec![]).is_none());
        assert!(Picture::from_rgb(MAX_SIDE + 1, 1, vec![0; 3 * (MAX_SIDE as usize + 1)]).is_none());
        assert!(Picture::from_rgb(4, 4, vec![0; 48]).is_some());
        let short_stride = Picture::new((4, 2), Layout::Gray, Colorimetry::default(), [3, 0, 0], Arc::new(vec![0u8; 8]));
        assert!(short_stride.is_none());
    }

    #[test]
    fn odd_sizes_round_their_chroma_up() {
        assert_eq!(Layout::I420.plane_size(1, 5, 3), (3, 2));
        assert_eq!(Layout::Nv12.plane_size(1, 5, 3), (6, 2));
    }
}
