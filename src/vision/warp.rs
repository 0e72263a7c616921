//! Bilinear affine sampling of a picture's full-resolution planes into a small RGB square; black outside, blended at the border as
//! OpenCV's `warpAffine` with `BORDER_CONSTANT` does.

use super::pixels::{Conversion, to_byte};
use crate::types::{Layout, Picture};

/// Samples `side` × `side` RGB pixels; `to_source` maps a target pixel (x, y, 1) to the picture.
pub(super) fn warp(picture: &Picture, to_source: [[f64; 3]; 2], side: u32) -> Vec<u8> {
    let source = Source::new(picture);
    let columns = side as usize;
    let mut rgb = vec![0; 3 * columns * columns];
    let mut samples = [vec![0u32; columns], vec![0u32; columns], vec![0u32; columns]];
    let [[xx, xy, x0], [yx, yy, y0]] = to_source;
    for (row, out) in rgb.chunks_exact_mut(3 * columns).enumerate() {
        let start = (xy * row as f64 + x0, yy * row as f64 + y0);
        let end = (xx * f64::from(side) + start.0, yx * f64::from(side) + start.1);
        if source.is_well_inside(start) && source.is_well_inside(end) {
            source.inner_row(start, (xx, yx), &mut samples);
            source.convert(&samples, out);
        } else {
            for (column, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let column = column as f64;
                *out = source.at((xx * column + start.0) as f32, (yx * column + start.1) as f32);
            }
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

    /// At a place in 65,536ths of a pixel that is well inside.
    #[inline(always)]
    fn fixed(x: i32, y: i32) -> Self {
        let share = |value: i32| ((value >> 8) & 255) as u32;
        Self { x: (x >> 16) as usize, y: (y >> 16) as usize, right: share(x), lower: share(y) }
    }

    /// The blended value of a channel, times 65,536.
    #[inline(always)]
    fn blend<const CHANNELS: usize>(&self, (plane, stride): (&[u8], usize), channel: usize) -> u32 {
        let start = self.y.wrapping_mul(stride).wrapping_add(self.x.wrapping_mul(CHANNELS)).wrapping_add(channel);
        let two_rows = &plane[start..];
        let (upper, lower) = (&two_rows[..CHANNELS + 1], &two_rows[stride..][..CHANNELS + 1]);
        self.mix(upper[0], upper[CHANNELS], lower[0], lower[CHANNELS])
    }

    /// The blended red, green and blue, times 65,536.
    #[inline(always)]
    fn blend_rgb(&self, (plane, stride): (&[u8], usize)) -> [u32; 3] {
        let two_rows = &plane[self.y.wrapping_mul(stride).wrapping_add(self.x.wrapping_mul(3))..];
        let (upper, lower) = (&two_rows[..6], &two_rows[stride..][..6]);
        [0, 1, 2].map(|channel| self.mix(upper[channel], upper[channel + 3], lower[channel], lower[channel + 3]))
    }

    #[inline(always)]
    fn mix(&self, upper: u8, upper_right: u8, lower: u8, lower_right: u8) -> u32 {
        // No sum exceeds 255 * 65,536.
        let row = |left: u8, right: u8| {
            let left = u32::from(left).wrapping_mul(256_u32.wrapping_sub(self.right));
            left.wrapping_add(u32::from(right).wrapping_mul(self.right))
        };
        let upper = row(upper, upper_right).wrapping_mul(256_u32.wrapping_sub(self.lower));
        upper.wrapping_add(row(lower, lower_right).wrapping_mul(self.lower))
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

    /// Whether a place is so far from the border that its cells exist in every plane.
    fn is_well_inside(&self, (x, y): (f64, f64)) -> bool {
        x >= 2.0 && y >= 2.0 && x <= self.width as f64 - 4.0 && y <= self.height as f64 - 4.0
    }

    /// Samples a row of places that are all well inside, in steps of `step`; values times 65,536, not yet RGB. Places are counted in
    /// 65,536ths of a pixel: over a row of 1024 that is wrong by less than a hundredth of a pixel.
    fn inner_row(&self, start: (f64, f64), step: (f64, f64), [a, b, c]: &mut [Vec<u32>; 3]) {
        let fixed = |value: f64| (value * 65_536.0).round() as i32;
        let (mut x, mut y, step_x, step_y) = (fixed(start.0), fixed(start.1), fixed(step.0), fixed(step.1));
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            let cell = Cell::fixed(x, y);
            // The chroma plane's own place: ((x + 0.5) / 2 - 0.5).
            let half = Cell::fixed((x >> 1).wrapping_sub(16_384), (y >> 1).wrapping_sub(16_384));
            match self.layout {
                Layout::Rgb => [*a, *b, *c] = cell.blend_rgb(self.planes[0]),
                Layout::Gray | Layout::Depth => *a = cell.blend::<1>(self.planes[0], 0),
                Layout::I420 => {
                    *a = cell.blend::<1>(self.planes[0], 0);
                    *b = half.blend::<1>(self.planes[1], 0);
                    *c = half.blend::<1>(self.planes[2], 0);
                }
                Layout::Nv12 => {
                    *a = cell.blend::<1>(self.planes[0], 0);
                    *b = half.blend::<2>(self.planes[1], 0);
                    *c = half.blend::<2>(self.planes[1], 1);
                }
            }
            (x, y) = (x.wrapping_add(step_x), y.wrapping_add(step_y));
        }
    }

    /// Makes a row of samples RGB.
    fn convert(&self, [a, b, c]: &[Vec<u32>; 3], out: &mut [u8]) {
        const SCALE: f32 = 1.0 / ONE;
        let byte = |value: u32| (value.wrapping_add(32_768) >> 16) as u8;
        let samples = a.iter().zip(b).zip(c).zip(out.as_chunks_mut::<3>().0);
        match self.layout {
            Layout::Rgb => samples.for_each(|(((a, b), c), out)| *out = [byte(*a), byte(*b), byte(*c)]),
            Layout::Gray | Layout::Depth => samples.for_each(|(((a, _), _), out)| *out = [byte(*a); 3]),
            Layout::I420 | Layout::Nv12 => samples.for_each(|(((a, b), c), out)| {
                let sample = |value: u32| value as i32 as f32 * SCALE;
                *out = self.conversion.rgb(sample(*a), sample(*b), sample(*c)).map(to_byte);
            }),
        }
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
            Layout::Rgb => cell.blend_rgb(self.planes[0]).map(|value| value as f32 / ONE),
            Layout::Gray | Layout::Depth => [cell.blend::<1>(self.planes[0], 0) as f32 / ONE; 3],
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
            Layout::Gray | Layout::Depth => [byte(0, x, y); 3],
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
