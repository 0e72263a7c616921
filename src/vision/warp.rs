//! Bilinear affine sampling of a picture's full-resolution planes into a small RGB square; black outside, blended at the border as
//! OpenCV's `warpAffine` with `BORDER_CONSTANT` does.

use super::pixels::{Conversion, to_byte};
use crate::types::{Layout, Picture};

/// Samples `side` × `side` RGB pixels; `to_source` maps a target pixel (x, y, 1) to the picture.
pub(super) fn warp(picture: &Picture, to_source: [[f64; 3]; 2], side: u32) -> Vec<u8> {
    let source = Source::new(picture);
    let mut rgb = Vec::with_capacity(3 * side as usize * side as usize);
    let [[xx, xy, x0], [yx, yy, y0]] = to_source;
    for row in 0..side {
        let (start_x, start_y) = (xy * f64::from(row) + x0, yy * f64::from(row) + y0);
        for column in 0..side {
            let column = f64::from(column);
            rgb.extend(source.at((xx * column + start_x) as f32, (yx * column + start_y) as f32));
        }
    }
    rgb
}

/// A picture's planes, borrowed once.
struct Source<'a> {
    width: usize,
    height: usize,
    layout: Layout,
    planes: [(&'a [u8], usize); 3],
    conversion: Conversion,
}

/// A place between four pixels: the upper left one and the shares of the right and lower ones in 256ths.
struct Cell {
    x: usize,
    y: usize,
    right: u32,
    lower: u32,
}

impl Cell {
    /// `x` and `y` are not negative and lie in a plane of `width` × `height`; on the last row or column the cell steps back, so that
    /// its four pixels always exist (a plane one pixel wide has no cell: see [`Source::clamped`]).
    fn new(x: f32, y: f32, width: usize, height: usize) -> Self {
        let left = (x as usize).min(width.saturating_sub(2));
        let top = (y as usize).min(height.saturating_sub(2));
        let share = |value: f32| (value * 256.0 + 0.5) as u32;
        Self { x: left, y: top, right: share(x - left as f32).min(256), lower: share(y - top as f32).min(256) }
    }

    /// The blended value of a channel, times 65,536.
    #[inline(always)]
    fn blend<const CHANNELS: usize>(&self, (plane, stride): (&[u8], usize), channel: usize) -> u32 {
        let start = self.y * stride + self.x * CHANNELS + channel;
        let upper = &plane[start..start + CHANNELS + 1];
        let lower = &plane[start + stride..start + stride + CHANNELS + 1];
        let mix = |row: &[u8]| u32::from(row[0]) * (256 - self.right) + u32::from(row[CHANNELS]) * self.right;
        mix(upper) * (256 - self.lower) + mix(lower) * self.lower
    }
}

const ONE: f32 = 65_536.0;

impl<'a> Source<'a> {
    fn new(picture: &'a Picture) -> Self {
        let layout = picture.layout();
        let mut planes: [(&[u8], usize); 3] = [(&[], 0); 3];
        for (index, plane) in planes.iter_mut().enumerate().take(layout.planes()) {
            *plane = picture.plane(index);
        }
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Self { width, height, layout, planes, conversion: Conversion::new(picture.colorimetry()) }
    }

    /// The pixel at a place, black where there is none (also for NaN).
    fn at(&self, x: f32, y: f32) -> [u8; 3] {
        let (right, bottom) = ((self.width - 1) as f32, (self.height - 1) as f32);
        if !(x > -1.0 && y > -1.0 && x < right + 1.0 && y < bottom + 1.0) {
            return [0; 3];
        }
        let inside = |value: f32, end: f32| value.clamp(0.0, end);
        let rgb = self.clamped(inside(x, right), inside(y, bottom));
        // Within a pixel of the border the four-pixel blend is the border's own value times the share that lies inside.
        let cover = (1.0 - (x - inside(x, right)).abs()) * (1.0 - (y - inside(y, bottom)).abs());
        if cover == 1.0 { rgb.map(to_byte) } else { rgb.map(|value| to_byte(value * cover)) }
    }

    /// The pixel at a place inside the picture, not rounded.
    #[inline(always)]
    fn clamped(&self, x: f32, y: f32) -> [f32; 3] {
        if self.width < 4 || self.height < 4 {
            return self.nearest(x, y);
        }
        let cell = Cell::new(x, y, self.width, self.height);
        match self.layout {
            Layout::Rgb => [0, 1, 2].map(|channel| cell.blend::<3>(self.planes[0], channel) as f32 / ONE),
            Layout::Gray => [cell.blend::<1>(self.planes[0], 0) as f32 / ONE; 3],
            Layout::I420 | Layout::Nv12 => {
                let luma = cell.blend::<1>(self.planes[0], 0) as f32 / ONE;
                let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
                let place = |value: f32, size: usize| ((value + 0.5) / 2.0 - 0.5).clamp(0.0, (size - 1) as f32);
                let chroma = Cell::new(place(x, width), place(y, height), width, height);
                let (u, v) = if self.layout == Layout::I420 {
                    (chroma.blend::<1>(self.planes[1], 0), chroma.blend::<1>(self.planes[2], 0))
                } else {
                    (chroma.blend::<2>(self.planes[1], 0), chroma.blend::<2>(self.planes[1], 1))
                };
                self.conversion.rgb(luma, u as f32 / ONE, v as f32 / ONE)
            }
        }
    }

    /// For pictures too small to hold a cell in every plane: no face fits them, they only must not fail.
    fn nearest(&self, x: f32, y: f32) -> [f32; 3] {
        let (x, y) = ((x + 0.5) as usize, (y + 0.5) as usize);
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        let byte = |plane: usize, x: usize, y: usize| {
            let (bytes, stride) = self.planes[plane];
            f32::from(bytes[y * stride + x])
        };
        match self.layout {
            Layout::Rgb => [byte(0, 3 * x, y), byte(0, 3 * x + 1, y), byte(0, 3 * x + 2, y)],
            Layout::Gray => [byte(0, x, y); 3],
            Layout::I420 => self.conversion.rgb(byte(0, x, y), byte(1, x / 2, y / 2), byte(2, x / 2, y / 2)),
            Layout::Nv12 => self.conversion.rgb(byte(0, x, y), byte(1, x / 2 * 2, y / 2), byte(1, x / 2 * 2 + 1, y / 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: [[f64; 3]; 2] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];

    #[test]
    fn places_that_are_no_numbers_or_far_away_are_black() {
        let picture = Picture::from_rgb(8, 8, vec![200; 192]).unwrap();
        for shift in [f64::NAN, f64::INFINITY, 1e30, -1e30, 8.0, -8.0] {
            assert!(warp(&picture, [[1.0, 0.0, shift], [0.0, 1.0, 0.0]], 4).iter().all(|v| *v == 0), "{shift}");
        }
    }

    #[test]
    fn the_identity_copies_and_continues_in_black() {
        let bytes: Vec<u8> = (0..4 * 4 * 3).map(|i| i as u8 + 100).collect();
        let picture = Picture::from_rgb(4, 4, bytes.clone()).unwrap();
        assert_eq!(warp(&picture, SAME, 4), bytes);
        let larger = warp(&picture, SAME, 5);
        assert_eq!(&larger[12..15], [0; 3]);
    }

    #[test]
    fn half_outside_is_half_black() {
        let picture = Picture::from_rgb(8, 8, vec![200; 192]).unwrap();
        let warped = warp(&picture, [[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]], 4);
        assert_eq!(&warped[..6], [100, 100, 100, 200, 200, 200]);
    }

    #[test]
    fn the_smallest_pictures_do_not_fail() {
        for (width, height) in [(1, 1), (1, 9), (9, 1), (2, 3), (3, 2)] {
            let picture = Picture::from_rgb(width, height, vec![9; 3 * (width * height) as usize]).unwrap();
            assert_eq!(warp(&picture, SAME, 3)[0], 9);
        }
    }
}
