//! A decoder's buffer as a [`Picture`], without copying: the buffer stays mapped for reading as long as a picture of it lives.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;

use crate::types::{Colorimetry, Layout, Picture, PlaneSource};

struct MappedFrame(gst_video::VideoFrame<gst_video::video_frame::Readable>);

impl PlaneSource for MappedFrame {
    fn plane(&self, index: usize) -> &[u8] {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.0.plane_data(index).unwrap_or_default()
    }
}

/// The whole buffer, and where its planes begin.
struct MappedWhole {
    bytes: gst::MappedBuffer<gst::buffer::Readable>,
    offsets: Vec<usize>,
}

impl PlaneSource for MappedWhole {
    fn plane(&self, index: usize) -> &[u8] {
        let offset = self.offsets.get(index).copied();
        offset.and_then(|offset| self.bytes.get(offset..)).unwrap_or_default()
    }
}

/// Whether every plane, with its last row as long as the others, lies in one memory of the buffer: who maps a frame believes what the
/// buffer says of its planes, and would read whatever lies beyond.
fn is_whole(buffer: &gst::BufferRef, meta: &gst_video::VideoMeta, info: &gst_video::VideoInfo, layout: Layout) -> bool {
    let (width, height) = (meta.width(), meta.height());
    meta.format() == info.format()
        && (0..layout.planes()).all(|plane| {
            let (Some(&offset), Some(&stride)) = (meta.offset().get(plane), meta.stride().get(plane)) else { return false };
            let (_, rows) = layout.plane_size(plane, width, height);
            let end = usize::try_from(stride).ok().and_then(|stride| stride.checked_mul(rows)?.checked_add(offset));
            let is_within = |end| end > offset && buffer.find_memory(offset..end).is_some_and(|(memories, _)| memories.len() == 1);
            end.is_some_and(is_within)
        })
}

/// Maps a sample; its own caps are read, so that a stream may change size and format at any frame. The error says what does not fit.
pub(super) fn picture(sample: &gst::Sample) -> Result<Picture, String> {
    let caps = sample.caps().ok_or("a frame came without a format")?;
    // A format without an area is read, and mapping it would panic.
    let info = gst_video::VideoInfo::from_caps(caps).ok().filter(gst_video::VideoInfo::is_valid);
    let info = info.ok_or_else(|| format!("frames of {caps} cannot be used: give raw video"))?;
    let layout = match info.format() {
        gst_video::VideoFormat::I420 => Layout::I420,
        gst_video::VideoFormat::Nv12 => Layout::Nv12,
        gst_video::VideoFormat::Gray8 => Layout::Gray,
        gst_video::VideoFormat::Rgb => Layout::Rgb,
        gst_video::VideoFormat::Gray16Le => Layout::Depth,
        other => {
            return Err(format!("frames of format {other:?} cannot be used: give I420, NV12, GRAY8, RGB or, for depth, GRAY16_LE"));
        }
    };
    let colors = info.colorimetry();
    let colorimetry = Colorimetry {
        bt709: colors.matrix() == gst_video::VideoColorMatrix::Bt709,
        full_range: colors.range() == gst_video::VideoColorRange::Range0_255,
    };
    let size = (info.width(), info.height());
    let buffer = sample.buffer_owned().ok_or("a frame came without a buffer")?;
    let unmapped = "a frame's memory cannot be mapped: is it the accelerator's own? convert it before the appsink";
    // What the buffer says of its planes, copied, because mapping takes the buffer.
    let meta = buffer.meta::<gst_video::VideoMeta>();
    let told = meta.as_ref().map(|meta| (is_whole(&buffer, meta, &info, layout), meta.offset().to_vec(), meta.stride().to_vec()));
    let (given, source): (Vec<i32>, Arc<dyn PlaneSource>) = match told {
        Some((false, offsets, given)) => {
            let bytes = buffer.into_mapped_buffer_readable().map_err(|_| unmapped)?;
            (given, Arc::new(MappedWhole { bytes, offsets }))
        }
        _ => {
            let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info).map_err(|_| unmapped)?;
            (frame.plane_stride().to_vec(), Arc::new(MappedFrame(frame)))
        }
    };
    let mut strides = [0; 3];
    for (stride, &given) in strides.iter_mut().zip(&given) {
        *stride = usize::try_from(given).map_err(|_| "a frame stands on its head (negative stride)")?;
    }
    Picture::new(size, layout, colorimetry, strides, source)
        .ok_or_else(|| format!("frames of {}x{} cannot be used", size.0, size.1))
}
