//! Small RGB pictures from any layout. The planes are resized first and only the small picture is converted to RGB, so the cost
//! depends on the target's size and the rows it touches, not on the camera's.
//!
//! Resizing is bilinear with pixel centres at whole numbers, as OpenCV's `INTER_LINEAR`: two taps an axis however strong the
//! reduction. That aliases, and is kept on purpose: the networks were trained and their thresholds chosen on pictures made this way,
//! and averaging every source pixel would cost several times as much. Chroma is taken to lie in the middle of its four luma pixels.

use crate::inference::manifest::{ColorOrder, Input};
use crate::types::{AlignedFace, Colorimetry, Layout, Picture};

/// A rectangle of a picture in luma pixels. Inside, samples never reach over its edges; where it reaches outside the picture, the
/// visible part is reflected without repeating its border pixel (`BORDER_REFLECT_101`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The first column; may be negative.
    pub x: i32,
    /// The first row; may be negative.
    pub y: i32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl View {
    /// All of the picture.
    pub fn whole(picture: &Picture) -> Self {
        Self { x: 0, y: 0, width: picture.width(), height: picture.height() }
    }
}

/// Resizes, with its buffers kept between calls.
#[derive(Default)]
pub struct Sampler {
    columns: Axis,
    rows: Axis,
    chroma_columns: Axis,
    chroma_rows: Axis,
    /// Two source rows blended, for up to three planes; values times 256.
    blended: [Vec<u16>; 3],
    /// Target rows of up to three channels; values times [`ONE`].
    picked: [Vec<i32>; 3],
    rgb: [Vec<f32>; 3],
}

/// Vertical weights: a byte times this fits 16 bits, so that sixteen pixels are blended by one instruction.
const ROW_ONE: u16 = 256;
/// Horizontal weights, as precise as OpenCV's.
const COLUMN_ONE: i32 = 2048;
/// What 1.0 is in a picked row.
const ONE: f32 = 256.0 * 2048.0;

impl Sampler {
    /// Resizes `view` to `width` × `height` and hands every target row to `sink`: its number and its red, green and blue values, 0 to
    /// 255, not rounded. `false`, and no row, when no pixel of the view lies in the picture or the target is empty.
    pub fn resize(
        &mut self,
        picture: &Picture,
        view: View,
        (width, height): (usize, usize),
        mut sink: impl FnMut(usize, [&[f32]; 3]),
    ) -> bool {
        let (picture_width, picture_height) = (picture.width(), picture.height());
        let fits = width > 0
            && height > 0
            && self.columns.fill(width, (view.x, view.width), picture_width, false)
            && self.rows.fill(height, (view.y, view.height), picture_height, false);
        if !fits {
            return false;
        }
        let layout = picture.layout();
        if matches!(layout, Layout::I420 | Layout::Nv12) {
            self.chroma_columns.fill(width, (view.x, view.width), picture_width, true);
            self.chroma_rows.fill(height, (view.y, view.height), picture_height, true);
        }
        for (picked, rgb) in self.picked.iter_mut().zip(&mut self.rgb) {
            picked.resize(width, 0);
            rgb.resize(width, 0.0);
        }
        let conversion = Conversion::new(picture.colorimetry());
        for row in 0..height {
            self.pick_row(picture, row);
            self.convert_row(layout, &conversion);
            let [red, green, blue] = &self.rgb;
            sink(row, if matches!(layout, Layout::Gray | Layout::Depth) { [red, red, red] } else { [red, green, blue] });
        }
        true
    }

    /// Fills `picked` with target row `row` of every channel.
    fn pick_row(&mut self, picture: &Picture, row: usize) {
        let [first, second, third] = &mut self.blended;
        let [a, b, c] = &mut self.picked;
        let (columns, chroma) = (&self.columns, &self.chroma_columns);
        let luma_row = self.rows.taps[row];
        match picture.layout() {
            Layout::Rgb => {
                blend_rows::<3>(picture.plane(0), luma_row, columns, first);
                pick::<3>(first, columns, 0, a);
                pick::<3>(first, columns, 1, b);
                pick::<3>(first, columns, 2, c);
            }
            Layout::Gray | Layout::Depth => {
                blend_rows::<1>(picture.plane(0), luma_row, columns, first);
                pick::<1>(first, columns, 0, a);
            }
            Layout::I420 => {
                let chroma_row = self.chroma_rows.taps[row];
                blend_rows::<1>(picture.plane(0), luma_row, columns, first);
                blend_rows::<1>(picture.plane(1), chroma_row, chroma, second);
                blend_rows::<1>(picture.plane(2), chroma_row, chroma, third);
                pick::<1>(first, columns, 0, a);
                pick::<1>(second, chroma, 0, b);
                pick::<1>(third, chroma, 0, c);
            }
            Layout::Nv12 => {
                let chroma_row = self.chroma_rows.taps[row];
                blend_rows::<1>(picture.plane(0), luma_row, columns, first);
                blend_rows::<2>(picture.plane(1), chroma_row, chroma, second);
                pick::<1>(first, columns, 0, a);
                pick::<2>(second, chroma, 0, b);
                pick::<2>(second, chroma, 1, c);
            }
        }
    }

    fn convert_row(&mut self, layout: Layout, conversion: &Conversion) {
        let [a, b, c] = &self.picked;
        let [red, green, blue] = &mut self.rgb;
        match layout {
            Layout::Rgb | Layout::Gray | Layout::Depth => {
                for (from, to) in self.picked.iter().zip(&mut self.rgb) {
                    for (from, to) in from.iter().zip(to) {
                        *to = *from as f32 * (1.0 / ONE);
                    }
                }
            }
            Layout::I420 | Layout::Nv12 => {
                let yuv = a.iter().zip(b).zip(c);
                for (((((y, u), v), red), green), blue) in yuv.zip(red).zip(green).zip(blue) {
                    let scale = 1.0 / ONE;
                    let rgb = conversion.rgb(*y as f32 * scale, *u as f32 * scale, *v as f32 * scale);
                    [*red, *green, *blue] = rgb;
                }
            }
        }
    }
}

/// YUV to RGB (ITU-R BT.601-7 and BT.709-6), for samples 0 to 255.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conversion {
    black: f32,
    luma: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
}

impl Conversion {
    pub(super) fn new(colorimetry: Colorimetry) -> Self {
        let (kr, kb) = if colorimetry.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let (black, luma, chroma) = if colorimetry.full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        Self {
            black,
            luma,
            red_v: chroma * 2.0 * (1.0 - kr),
            green_u: chroma * 2.0 * (1.0 - kb) * kb / kg,
            green_v: chroma * 2.0 * (1.0 - kr) * kr / kg,
            blue_u: chroma * 2.0 * (1.0 - kb),
        }
    }

    /// Red, green and blue, 0 to 255.
    #[inline(always)]
    pub(super) fn rgb(&self, y: f32, u: f32, v: f32) -> [f32; 3] {
        let (y, u, v) = ((y - self.black) * self.luma, u - 128.0, v - 128.0);
        let rgb = [y + self.red_v * v, y - self.green_u * u - self.green_v * v, y + self.blue_u * u];
        rgb.map(|value| value.clamp(0.0, 255.0))
    }
}

/// Where a target pixel lies between source pixels `index` and `index + 1`.
#[derive(Debug, Clone, Copy, Default)]
struct Tap {
    index: u32,
    /// The second pixel's share, 0 to [`COLUMN_ONE`].
    weight: i32,
}

/// The taps of one axis of a plane.
#[derive(Debug, Default)]
struct Axis {
    taps: Vec<Tap>,
    /// The lowest and the highest source index that the taps touch.
    first: usize,
    last: usize,
    /// How far the taps are apart where all are equally far and have one weight (a reduction by a whole number, the usual case).
    step: Option<usize>,
}

impl Axis {
    /// Places `count` target pixels over `length` source pixels from `start`; `halved` for a chroma plane. `false` when none of them
    /// lies in the picture.
    fn fill(&mut self, count: usize, (start, length): (i32, u32), picture: u32, halved: bool) -> bool {
        let (start, length) = (f64::from(start), f64::from(length));
        let low = start.max(0.0);
        let high = (start + length).min(f64::from(picture)) - 1.0;
        self.taps.clear();
        if length < 1.0 || high < low {
            return false;
        }
        let top = if halved { f64::from(picture.div_ceil(2) - 1) } else { f64::from(picture - 1) };
        let scale = length / count as f64;
        (self.first, self.last) = (usize::MAX, 0);
        for target in 0..count {
            let position = ((target as f64 + 0.5) * scale - 0.5).clamp(0.0, length - 1.0) + start;
            let mut position = reflect(position, low, high);
            if halved {
                position = ((position + 0.5) / 2.0 - 0.5).clamp(0.0, top);
            }
            let index = position.floor();
            let weight = ((position - index) * f64::from(COLUMN_ONE)).round() as i32;
            let tap = Tap { index: index as u32, weight };
            self.first = self.first.min(tap.index as usize);
            self.last = self.last.max((tap.index as usize + 1).min(top as usize));
            self.taps.push(tap);
        }
        self.step = self.uniform_step();
        true
    }

    fn uniform_step(&self) -> Option<usize> {
        let [first, second, ..] = self.taps[..] else { return None };
        let step = second.index.checked_sub(first.index)?;
        let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).saturating_mul(step).saturating_add(first.index);
        let uniform = self.taps.iter().enumerate().all(|(number, tap)| tap.weight == first.weight && tap.index == place(number));
        uniform.then_some(step as usize)
    }
}

/// Folds a position into `low..=high` as `BORDER_REFLECT_101` folds an index; between whole positions the two agree, because the
/// reflected picture has its kinks at pixel centres.
fn reflect(position: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if (low..=high).contains(&position) || span == 0.0 {
        return position.clamp(low, high);
    }
    let folded = (position - low).rem_euclid(2.0 * span);
    low + if folded > span { 2.0 * span - folded } else { folded }
}

/// Blends the two source rows of `tap` over the columns that `columns` touches, times [`ROW_ONE`], and repeats the last pixel so that
/// a tap on it finds a neighbour (of weight 0).
fn blend_rows<const CHANNELS: usize>((plane, stride): (&[u8], usize), tap: Tap, columns: &Axis, out: &mut Vec<u16>) {
    let bytes = columns.first * CHANNELS..(columns.last + 1) * CHANNELS;
    let row = |index: usize| &plane[index * stride + bytes.start..index * stride + bytes.end];
    out.resize(bytes.len() + CHANNELS, 0);
    let upper = row(tap.index as usize);
    // 0 to 256: eight bits of the weight are enough for an error below half a grey level.
    let weight = ((tap.weight + 4) >> 3) as u16;
    if weight == 0 {
        for (out, upper) in out.iter_mut().zip(upper) {
            *out = u16::from(*upper) << 8;
        }
    } else {
        let lower = row(tap.index as usize + 1);
        for ((out, upper), lower) in out.iter_mut().zip(upper).zip(lower) {
            let upper = u16::from(*upper).wrapping_mul(ROW_ONE.wrapping_sub(weight));
            *out = upper.wrapping_add(u16::from(*lower).wrapping_mul(weight));
        }
    }
    let end = out.len();
    out.copy_within(end - 2 * CHANNELS..end - CHANNELS, end - CHANNELS);
}

/// Picks one channel's target pixels of a blended row.
fn pick<const CHANNELS: usize>(row: &[u16], columns: &Axis, channel: usize, out: &mut [i32]) {
    // Steps known at compile time let the loop work on many pixels at once.
    let done = match columns.step {
        Some(1) => pick_every::<CHANNELS, 1>(row, columns, channel, out),
        Some(2) => pick_every::<CHANNELS, 2>(row, columns, channel, out),
        Some(3) => pick_every::<CHANNELS, 3>(row, columns, channel, out),
        Some(4) => pick_every::<CHANNELS, 4>(row, columns, channel, out),
        Some(6) => pick_every::<CHANNELS, 6>(row, columns, channel, out),
        _ => 0,
    };
    let offset = columns.first;
    for (out, tap) in out[done..].iter_mut().zip(&columns.taps[done..]) {
        let at = (tap.index as usize).wrapping_sub(offset).wrapping_mul(CHANNELS).wrapping_add(channel);
        let pair = &row[at..at + CHANNELS + 1];
        *out = mix(pair[0], pair[CHANNELS], tap.weight);
    }
}

/// Picks the target pixels that lie `STEP` source pixels apart, and tells how many it could.
fn pick_every<const CHANNELS: usize, const STEP: usize>(row: &[u16], columns: &Axis, channel: usize, out: &mut [i32]) -> usize {
    let weight = columns.taps.first().map_or(0, |tap| tap.weight);
    if STEP == 1 && weight != 0 {
        return 0;
    }
    let chunks = row.chunks_exact(CHANNELS * STEP);
    let done = chunks.len().min(out.len());
    for (out, chunk) in out.iter_mut().zip(chunks) {
        let right = if STEP == 1 { channel } else { channel + CHANNELS };
        *out = mix(chunk[channel], chunk[right], weight);
    }
    done
}

#[inline(always)]
fn mix(left: u16, right: u16, weight: i32) -> i32 {
    i32::from(left).wrapping_mul(COLUMN_ONE.wrapping_sub(weight)).wrapping_add(i32::from(right).wrapping_mul(weight))
}

/// Writes RGB values into a planar tensor in the manifest's channel order, mean and deviation.
#[derive(Debug, Clone)]
pub struct Normaliser {
    width: usize,
    area: usize,
    /// For red, green and blue: the tensor's plane, and `value * factor + shift`.
    channels: [(usize, f32, f32); 3],
}

impl Normaliser {
    /// Reads the manifest's input description.
    pub fn new(input: &Input) -> Self {
        let planes = match input.color {
            ColorOrder::Rgb => [0, 1, 2],
            ColorOrder::Bgr => [2, 1, 0],
        };
        let channels = planes.map(|plane| (plane, 1.0 / input.deviation[plane], -input.mean[plane] / input.deviation[plane]));
        Self { width: input.width as usize, area: input.width as usize * input.height as usize, channels }
    }

    /// Writes target row `row` from the left; `tensor` holds three planes of the manifest's size.
    pub fn row(&self, tensor: &mut [f32], row: usize, rgb: [&[f32]; 3]) {
        for (values, (plane, factor, shift)) in rgb.into_iter().zip(self.channels) {
            let start = plane * self.area + row * self.width;
            for (out, value) in tensor[start..start + self.width].iter_mut().zip(values) {
                *out = value * factor + shift;
            }
        }
    }

    /// Fills the tensor with black.
    pub fn blacken(&self, tensor: &mut [f32]) {
        for (plane, _, shift) in self.channels {
            tensor[plane * self.area..(plane + 1) * self.area].fill(shift);
        }
    }

    /// Writes a whole aligned face, whose side is the tensor's width and height.
    pub fn face(&self, tensor: &mut [f32], face: &AlignedFace) {
        for (channel, (plane, factor, shift)) in self.channels.into_iter().enumerate() {
            let out = &mut tensor[plane * self.area..(plane + 1) * self.area];
            for (out, pixel) in out.iter_mut().zip(face.rgb().as_chunks::<3>().0) {
                *out = f32::from(pixel[channel]) * factor + shift;
            }
        }
    }
}

/// A value of 0 to 255 as the nearest byte.
#[inline(always)]
pub(super) fn to_byte(value: f32) -> u8 {
    // The cast saturates and takes NaN for 0.
    (value + 0.5) as u8
}

/// The whole picture as interleaved 8-bit RGB, row by row: for pictures that people look at.
pub fn to_rgb(picture: &Picture) -> Vec<u8> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut rgb = Vec::with_capacity(3 * width * height);
    Sampler::default().resize(picture, View::whole(picture), (width, height), |_, [red, green, blue]| {
        for ((red, green), blue) in red.iter().zip(green).zip(blue) {
            rgb.extend([red, green, blue].map(|value| value.round().clamp(0.0, 255.0) as u8));
        }
    });
    rgb
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn resized(picture: &Picture, view: View, size: (usize, usize)) -> Vec<u8> {
        let mut out = Vec::new();
        Sampler::default().resize(picture, view, size, |_, [r, g, b]| {
            for ((r, g), b) in r.iter().zip(g).zip(b) {
                out.extend([to_byte(*r), to_byte(*g), to_byte(*b)]);
            }
        });
        out
    }

    fn gray(width: u32, height: u32, bytes: Vec<u8>) -> Picture {
        Picture::new((width, height), Layout::Gray, Colorimetry::default(), [width as usize, 0, 0], Arc::new(bytes)).unwrap()
    }

    struct Planes(Vec<Vec<u8>>);
    impl crate::types::PlaneSource for Planes {
        fn plane(&self, index: usize) -> &[u8] {
            &self.0[index]
        }
    }

    #[test]
    fn a_view_outside_the_picture_gives_no_row() {
        let picture = gray(4, 4, vec![7; 16]);
        for (x, y) in [(4, 0), (0, 4), (-4, 0), (i32::MAX, 0), (i32::MIN, i32::MIN)] {
            assert!(resized(&picture, View { x, y, width: 4, height: 4 }, (2, 2)).is_empty(), "{x} {y}");
        }
        assert!(resized(&picture, View { x: 0, y: 0, width: 0, height: 4 }, (2, 2)).is_empty());
    }

    #[test]
    fn the_same_size_is_a_copy_and_the_last_row_and_column_are_kept() {
        let bytes: Vec<u8> = (0..3 * 5 * 3).map(|i| (i * 5) as u8).collect();
        let picture = Picture::from_rgb(5, 3, bytes.clone()).unwrap();
        assert_eq!(resized(&picture, View::whole(&picture), (5, 3)), bytes);
    }

    #[test]
    fn what_lies_outside_is_reflected_without_the_border_pixel() {
        let picture = gray(4, 1, vec![10, 20, 30, 40]);
        let row: Vec<u8> = resized(&picture, View { x: -3, y: 0, width: 10, height: 1 }, (10, 1)).into_iter().step_by(3).collect();
        assert_eq!(row, [40, 30, 20, 10, 20, 30, 40, 30, 20, 10]);
    }

    #[test]
    fn planar_and_interleaved_chroma_give_the_same_picture_and_odd_sizes_are_taken() {
        let (width, height) = (7usize, 5usize);
        let luma: Vec<u8> = (0..35).map(|i| 16 + i as u8 * 5).collect();
        let u: Vec<u8> = (0..12).map(|i| 100 + i as u8 * 4).collect();
        let v: Vec<u8> = (0..12).map(|i| 160 - i as u8 * 4).collect();
        let uv = u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]).collect();
        let size = (width as u32, height as u32);
        let colors = Colorimetry::default();
        let i420 = Picture::new(size, Layout::I420, colors, [7, 4, 4], Arc::new(Planes(vec![luma.clone(), u, v]))).unwrap();
        let nv12 = Picture::new(size, Layout::Nv12, colors, [7, 8, 0], Arc::new(Planes(vec![luma, uv]))).unwrap();
        for view in [View::whole(&i420), View { x: -2, y: 1, width: 6, height: 9 }] {
            let (a, b) = (resized(&i420, view, (9, 4)), resized(&nv12, view, (9, 4)));
            assert!(!a.is_empty());
            assert_eq!(a, b);
        }
    }

    #[test]
    fn black_white_and_primaries_convert_by_either_standard() {
        for (bt709, full_range) in [(false, false), (true, false), (false, true), (true, true)] {
            let conversion = Conversion::new(Colorimetry { bt709, full_range });
            let (low, high) = if full_range { (0.0, 255.0) } else { (16.0, 235.0) };
            assert!(conversion.rgb(low, 128.0, 128.0).iter().all(|v| v.abs() < 0.01));
            assert!(conversion.rgb(high, 128.0, 128.0).iter().all(|v| (v - 255.0).abs() < 0.01));
        }
        // BT.601 limited range: pure red is (81, 90, 240), BT.709: (63, 102, 240), rounded.
        for (bt709, yuv) in [(false, [81.0, 90.0, 240.0]), (true, [63.0, 102.0, 240.0])] {
            let [r, g, b] = Conversion::new(Colorimetry { bt709, full_range: false }).rgb(yuv[0], yuv[1], yuv[2]);
            assert!(r > 252.0 && g < 3.0 && b < 3.0, "{r} {g} {b}");
        }
    }

    #[test]
    fn a_tensor_has_the_manifests_order_mean_and_deviation() {
        let input = Input { width: 2, height: 1, color: ColorOrder::Bgr, mean: [1.0, 2.0, 3.0], deviation: [2.0, 4.0, 5.0] };
        let mut tensor = vec![9.0; 6];
        let normaliser = Normaliser::new(&input);
        normaliser.row(&mut tensor, 0, [&[13.0, 23.0], &[10.0, 6.0], &[5.0, 1.0]]);
        let expected = [2.0, 0.0, 2.0, 1.0, 2.0, 4.0];
        assert!(tensor.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{tensor:?}");
    }
}
