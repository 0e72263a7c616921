//! Pictures through H.264 and back: what a camera's encoder leaves of them. For evaluation alone; no camera's frames come this way.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{CaptureError, mapped, pipelines};
use crate::types::Picture;

/// How long one frame may take to come back.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// The frames (RGB, three bytes a pixel, all of `size` in pixels, both sides even) as they come out of an H.264 encoder that may spend
/// `bits_per_second` at 30 frames a second, and a decoder; one for each, in order.
///
/// # Errors
/// A missing element, and whatever encoder or decoder say; frames that are no whole pictures of that size.
pub fn recode(frames: &[Vec<u8>], size: (u32, u32), bits_per_second: u32) -> Result<Vec<Picture>, CaptureError> {
    pipelines::init()?;
    let failed = |reason: &dyn std::fmt::Display| CaptureError::Init(format!("recoding: {reason}"));
    if frames.iter().any(|frame| frame.len() as u64 != 3 * u64::from(size.0) * u64::from(size.1)) {
        return Err(failed(&"a frame is not of the size that was said"));
    }
    let number = |value: u32| i32::try_from(value).map_err(|error| failed(&error));
    let raw = |format: &str| -> Result<gst::Caps, CaptureError> {
        let caps = gst::Caps::builder("video/x-raw").field("format", format);
        let caps = caps.field("width", number(size.0)?).field("height", number(size.1)?);
        Ok(caps.field("framerate", gst::Fraction::new(30, 1)).build())
    };
    let source = gst_app::AppSrc::builder().caps(&raw("RGB")?).format(gst::Format::Time).build();
    let sink =
        gst_app::AppSink::builder().caps(&gst::Caps::builder("video/x-raw").field("format", "I420").build()).sync(false).build();
    let encoder = pipelines::make("openh264enc")?;
    encoder.set_property("bitrate", bits_per_second);
    let convert = [pipelines::make("videoconvert")?, pipelines::make("videoconvert")?];
    let (parser, decoder) = (pipelines::make("h264parse")?, pipelines::make("avdec_h264")?);
    let pipeline = gst::Pipeline::new();
    let elements = [source.upcast_ref(), &convert[0], &encoder, &parser, &decoder, &convert[1], sink.upcast_ref()];
    pipeline.add_many(elements).map_err(|error| failed(&error))?;
    gst::Element::link_many(elements).map_err(|error| failed(&error))?;
    let playing = Playing(&pipeline);
    pipeline.set_state(gst::State::Playing).map_err(|error| failed(&error))?;
    for (index, frame) in frames.iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice(frame.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_mseconds(index as u64 * 1000 / 30));
        }
        source.push_buffer(buffer).map_err(|error| failed(&error))?;
    }
    source.end_of_stream().map_err(|error| failed(&error))?;
    let mut pictures = Vec::with_capacity(frames.len());
    while let Some(sample) = sink.try_pull_sample(PATIENCE) {
        pictures.push(mapped::picture(&sample).map_err(|reason| failed(&reason))?);
    }
    drop(playing);
    if pictures.len() != frames.len() {
        return Err(failed(&format!("{} of {} frames came back", pictures.len(), frames.len())));
    }
    Ok(pictures)
}

/// Stops the pipeline however this ends.
struct Playing<'a>(&'a gst::Pipeline);

impl Drop for Playing<'_> {
    fn drop(&mut self) {
        // Going down cannot be refused.
        let _ = self.0.set_state(gst::State::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(step: usize) -> Vec<u8> {
        let lit = |x: usize, y: usize| (x + 4 * step) / 16 % 2 == y / 16 % 2;
        (0..96usize).flat_map(|y| (0..128).flat_map(move |x| [if lit(x, y) { 200u8 } else { 50 }; 3])).collect()
    }

    fn error(picture: &Picture, frame: &[u8]) -> f64 {
        let (plane, stride) = picture.plane(0);
        let luma = |x: usize, y: usize| 16.0 + f64::from(frame[3 * (128 * y + x)]) * 219.0 / 255.0;
        let squares = (0..96).flat_map(|y| (0..128).map(move |x| (x, y)));
        (squares.map(|(x, y)| (f64::from(plane[y * stride + x]) - luma(x, y)).powi(2)).sum::<f64>() / (96.0 * 128.0)).sqrt()
    }

    #[test]
    fn frames_come_back_in_order_and_the_worse_the_fewer_bits() {
        let frames: Vec<Vec<u8>> = (0..6).map(squares).collect();
        let [good, poor] = [4_000_000, 20_000].map(|bits| recode(&frames, (128, 96), bits).unwrap());
        assert_eq!((good.len(), poor.len(), good[0].width(), good[0].height()), (6, 6, 128, 96));
        let of = |pictures: &[Picture]| pictures.iter().zip(&frames).map(|(picture, frame)| error(picture, frame)).sum::<f64>();
        assert!(of(&good) < 6.0 * 12.0 && of(&poor) > of(&good), "{} {}", of(&good), of(&poor));
        assert!(error(&good[0], &frames[3]) > 3.0 * error(&good[0], &frames[0]));
    }

    #[test]
    fn what_is_no_picture_of_that_size_is_refused() {
        assert!(recode(&[vec![0; 100]], (128, 96), 100_000).is_err());
        assert!(recode(&[], (128, 96), 100_000).is_ok_and(|pictures| pictures.is_empty()));
    }
}
