//! What the fuzz target `frames` feeds (`tests/fuzz`), and what a seeded walk feeds in every test run: frames as GStreamer hands them over,
//! with any format, size, strides and memory.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::light::LightWatch;
use super::mapped;
use super::{MotionGate, MotionSettings};
use crate::types::drawn::Drawn;
use crate::types::{Monotonic, Picture};

/// The formats that are taken and some that are not.
const FORMATS: [&str; 9] = ["I420", "NV12", "GRAY8", "RGB", "GRAY16_LE", "YUY2", "BGRA", "I420_10LE", "GRAY16_BE"];
/// No buffer is larger.
const MOST_BYTES: usize = 1 << 20;
/// A stream's frames, each of which may be of another kind.
const MOST_FRAMES: u64 = 6;

/// What byte a buffer holds at a place: a byte that was read elsewhere is another one.
fn content(place: usize) -> u8 {
    let mixed = (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Draws a stream's frames and takes each in, as a camera's thread does. What becomes a picture shows bytes of the buffer where its format
/// says, and goes through all that looks at a camera's light and motion, and then to `look` with what is left of the bytes.
pub fn frames(bytes: &[u8], mut look: impl FnMut(&Picture, &mut Drawn<'_>)) {
    gst::init().expect("GStreamer is there");
    let mut drawn = Drawn::new(bytes);
    let (mut light, mut motion) = (LightWatch::new(16, 3), MotionGate::new(MotionSettings::default()));
    for number in 1..=MOST_FRAMES {
        if drawn.is_over() {
            return;
        }
        let Some((sample, offsets)) = sample(&mut drawn) else { continue };
        let Ok(picture) = mapped::picture(&sample) else { continue };
        let layout = picture.layout();
        for (plane, offset) in offsets.iter().enumerate().take(layout.planes()) {
            let (row_bytes, rows) = layout.plane_size(plane, picture.width(), picture.height());
            let (bytes, stride) = picture.plane(plane);
            for row in 0..rows {
                let line = &bytes[row * stride..row * stride + row_bytes];
                let is_ours = line.iter().enumerate().all(|(column, byte)| *byte == content(offset + row * stride + column));
                assert!(is_ours, "row {row} of plane {plane} of {picture:?} is not what the buffer holds");
            }
        }
        let now = Monotonic(number * 250_000_000);
        light.look(&picture, now);
        motion.look(&picture, now);
        look(&picture, &mut drawn);
    }
}

/// A sample, and where its planes begin by what it says.
fn sample(drawn: &mut Drawn<'_>) -> Option<(gst::Sample, [usize; 4])> {
    let side = |drawn: &mut Drawn<'_>| match drawn.byte() {
        0 => i32::from(drawn.number()),
        1 => -1,
        2 => 0,
        small => i32::from(small),
    };
    let format = FORMATS[drawn.below(FORMATS.len())];
    let (width, height) = (side(drawn), side(drawn));
    let how = drawn.byte();
    let mut caps = gst::Caps::builder("video/x-raw").field("format", format).field("width", width).field("height", height);
    if how & 1 != 0 {
        caps = caps.field("colorimetry", ["bt709", "bt601", "1:1:0:0", "what"][drawn.below(4)]);
    }
    if how & 2 != 0 {
        caps = caps.field("interlace-mode", ["interleaved", "alternate", "fields", "progressive"][drawn.below(4)]);
    }
    let caps = caps.build();
    let info = gst_video::VideoInfo::from_caps(&caps).ok();
    let right = info.as_ref().map_or(64, gst_video::VideoInfo::size);
    let size =
        if how & 4 == 0 { right } else { right.saturating_add(drawn.byte().into()).saturating_sub(usize::from(drawn.byte())) };
    if size > MOST_BYTES {
        return None;
    }
    let bytes: Vec<u8> = (0..size).map(content).collect();
    let mut buffer = gst::Buffer::new();
    let inside = buffer.get_mut().expect("nobody else has it");
    // In one memory, or in several.
    let mut rest = bytes.as_slice();
    while how & 8 != 0 && inside.n_memory() < 3 && !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + drawn.below(rest.len().min(60_000))));
        inside.append_memory(gst::Memory::from_slice(piece.to_vec()));
        rest = after;
    }
    if !rest.is_empty() {
        inside.append_memory(gst::Memory::from_slice(rest.to_vec()));
    }
    let mut offsets = [0; 4];
    if let Some(info) = &info {
        let mut strides = [0; 4];
        strides[..info.stride().len()].copy_from_slice(info.stride());
        offsets[..info.offset().len()].copy_from_slice(info.offset());
        if how & 16 != 0 {
            let planes = info.n_planes() as usize;
            for plane in 0..planes {
                match drawn.byte() {
                    0 => strides[plane] = i32::from_le_bytes(drawn.array()),
                    1 => offsets[plane] = usize::from_le_bytes(drawn.array()),
                    change => {
                        strides[plane] = strides[plane].saturating_add(i32::from(change >> 4)).saturating_sub(2);
                        offsets[plane] = offsets[plane].saturating_add(usize::from(change & 15)).saturating_sub(2);
                    }
                }
            }
            let beyond = if how & 32 == 0 { 0 } else { u32::from(drawn.byte()) };
            let (width, height) = (info.width().saturating_add(beyond), info.height().saturating_add(beyond % 16));
            let kind = if how & 64 == 0 {
                info.format()
            } else {
                gst_video::VideoFormat::from_string(FORMATS[drawn.below(FORMATS.len())])
            };
            let flags = gst_video::VideoFrameFlags::empty();
            gst_video::VideoMeta::add_full(inside, flags, kind, width, height, &offsets[..planes], &strides[..planes]).ok()?;
        }
    }
    Some((gst::Sample::builder().buffer(&buffer).caps(&caps).build(), offsets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_frames_breaks_no_promise() {
        // Each format as it should be, one with rows that are longer, and one whose last row ends with the buffer.
        let plain: Vec<Vec<u8>> = (0..9).map(|format| vec![format, 40, 30, 0]).collect();
        let mut seeds: Vec<&[u8]> = plain.iter().map(Vec::as_slice).collect();
        seeds.extend::<[&[u8]; 3]>([
            &[0, 40, 30, 20, 200, 0, 0x42, 0x22, 0x22, 1, 41, 31, 8, 9, 0, 7, 0],
            &[3, 40, 30, 16, 0x23, 4, 200, 100, 2, 9, 9],
            &[4, 64, 48, 60, 255, 0, 10, 0, 0x82, 3],
        ]);
        let mut seen = 0;
        walk("frames", &seeds, 4_000, |bytes| frames(bytes, |_, _| seen += 1));
        assert!(seen > 1_000, "hardly any frame was taken: {seen}");
    }

    #[test]
    fn a_format_without_an_area_is_refused() {
        gst::init().unwrap();
        for (width, height) in [(0, 30), (40, 0), (0, 0), (-1, 30), (40, i32::MIN)] {
            let caps = gst::Caps::builder("video/x-raw").field("format", "I420").field("width", width).field("height", height);
            let sample = gst::Sample::builder().buffer(&gst::Buffer::from_slice([0; 64])).caps(&caps.build()).build();
            assert!(mapped::picture(&sample).is_err(), "{width}x{height}");
        }
    }

    #[test]
    fn a_last_row_that_ends_with_the_buffer_is_shown_and_one_that_ends_after_it_is_not() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw").field("format", "GRAY8").field("width", 40).field("height", 30).build();
        let taken = |length: usize, pieces: usize| {
            let mut buffer = gst::Buffer::new();
            let inside = buffer.get_mut().unwrap();
            let bytes: Vec<u8> = (0..length).map(content).collect();
            bytes.chunks(length.div_ceil(pieces)).for_each(|piece| inside.append_memory(gst::Memory::from_slice(piece.to_vec())));
            let format = gst_video::VideoFormat::Gray8;
            let flags = gst_video::VideoFrameFlags::empty();
            gst_video::VideoMeta::add_full(inside, flags, format, 40, 30, &[8], &[64]).unwrap();
            mapped::picture(&gst::Sample::builder().buffer(&buffer).caps(&caps).build())
        };
        let needed = 8 + 29 * 64 + 40;
        for (length, pieces) in [(needed, 1), (needed + 24, 1), (needed + 500, 1), (needed, 3), (needed + 24, 2)] {
            let picture = taken(length, pieces).unwrap();
            let (bytes, stride) = picture.plane(0);
            assert_eq!(bytes[29 * stride..29 * stride + 40], (needed - 40..needed).map(content).collect::<Vec<_>>());
        }
        for (length, pieces) in [(needed - 1, 1), (needed - 1, 2), (100, 1), (4, 1)] {
            assert!(taken(length, pieces).is_err(), "{length} bytes in {pieces}");
        }
    }
}
