//! Which GStreamer elements serve which source, and what of it is installed.
//!
//! All sources but `launch` and `csi` go through `decodebin`, which takes the decoder of the highest rank (on a Jetson that is
//! `nvv4l2decoder`); with `hardware = "software"` accelerators are passed over. Frames leave in I420, NV12, GRAY8 or (depth) GRAY16_LE system memory:
//! `nvvidconv` brings them out of NVMM where it exists, and `videoconvert` passes through untouched what is one of these already. RGB
//! is not on offer, because `videoconvert` would prefer it to I420 for a 4:2:2 camera, at several times the price.

use std::fmt;

use super::settings::{CameraSettings, Source, Transport};

/// What serves a camera, for the log and `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Where frames come from, without secrets.
    pub source: String,
    /// What decodes: `hardware (nvv4l2decoder)`, `software (avdec_h264)`.
    pub decoding: String,
    /// What brings frames into system memory and a layout that is read.
    pub conversion: String,
    /// Elements that the source needs and that are not installed, each with the package that brings it.
    pub missing: Vec<String>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, decoding: {}, conversion: {}", self.source, self.decoding, self.conversion)?;
        if !self.missing.is_empty() {
            write!(f, ", missing: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

fn source_words(settings: &CameraSettings) -> String {
    let place = settings.source.place();
    match &settings.source {
        Source::File(source) => {
            format!("file {place}{}", if source.paced { "" } else { ", without loss and as fast as it is read" })
        }
        Source::Rtsp(source) => format!("{place} over {}", if source.transport == Transport::Tcp { "TCP" } else { "UDP" }),
        Source::V4l2(source) => format!("{place} at {}x{}, {} a second", source.width, source.height, source.fps),
        Source::Csi(source) => format!("{place} at {}x{}, {} a second", source.width, source.height, source.fps),
        Source::Launch(_) => place,
        Source::Images(_) => format!("pictures in {place}"),
    }
}

/// What serves a camera on this machine.
#[cfg(not(feature = "gstreamer"))]
pub fn describe(settings: &CameraSettings) -> Description {
    let missing =
        if matches!(settings.source, Source::Images(_)) { Vec::new() } else { vec!["GStreamer, in this build".to_owned()] };
    Description { source: source_words(settings), decoding: "none".to_owned(), conversion: "none".to_owned(), missing }
}

#[cfg(feature = "gstreamer")]
pub(super) use with_gstreamer::{Built, build, init, make};
#[cfg(feature = "gstreamer")]
pub use with_gstreamer::{Plugin, describe, plugins};

#[cfg(feature = "gstreamer")]
mod with_gstreamer {
    use std::path::Path;

    use gstreamer as gst;
    use gstreamer::glib;
    use gstreamer::prelude::*;
    use gstreamer_app as gst_app;

    use super::{CameraSettings, Description, Source, source_words};
    use crate::capture::CaptureError;
    use crate::capture::redact::Redactor;
    use crate::capture::settings::{CsiSource, FileSource, Hardware, LaunchSource, PixelAspect, V4l2Source};
    use crate::capture::whole::Whole;
    use crate::capture::{rtsp, rtsp_trust};
    use crate::types::frame::MAX_SIDE;

    /// What frames may leave the pipeline as.
    const LAYOUTS: [&str; 4] = ["I420", "NV12", "GRAY8", "GRAY16_LE"];
    /// Decoders in the order of preference, for `describe` only: `decodebin` chooses by rank.
    const H264_DECODERS: [&str; 6] = ["nvv4l2decoder", "nvh264dec", "v4l2h264dec", "vah264dec", "avdec_h264", "openh264dec"];
    /// Converters out of an accelerator's memory: Jetson's, then DeepStream's.
    const HARDWARE_CONVERTERS: [&str; 2] = ["nvvidconv", "nvvideoconvert"];

    /// Every element that a source may need, what for, and what installs it.
    const ELEMENTS: [(&str, &str, &str); 16] = [
        ("filesrc", "files", "libgstreamer1.0-0"),
        ("decodebin", "all but CSI", "gstreamer1.0-plugins-base"),
        ("videoconvert", "software conversion", "gstreamer1.0-plugins-base"),
        ("videoscale", "pixels that are not square", "gstreamer1.0-plugins-base"),
        ("rtspsrc", "RTSP cameras", "gstreamer1.0-plugins-good"),
        ("rtph264depay", "RTSP cameras", "gstreamer1.0-plugins-good"),
        ("v4l2src", "USB cameras", "gstreamer1.0-plugins-good"),
        ("jpegdec", "USB cameras that send JPEG", "gstreamer1.0-plugins-good"),
        ("matroskademux", "MKV files", "gstreamer1.0-plugins-good"),
        ("qtdemux", "MP4 files", "gstreamer1.0-plugins-good"),
        ("videoflip", "pictures that are turned", "gstreamer1.0-plugins-good"),
        ("h264parse", "H.264", "gstreamer1.0-plugins-bad"),
        ("avdec_h264", "H.264 in software", "gstreamer1.0-libav"),
        ("nvv4l2decoder", "H.264 on a Jetson", "nvidia-l4t-gstreamer"),
        ("nvvidconv", "conversion on a Jetson", "nvidia-l4t-gstreamer"),
        ("nvarguscamerasrc", "CSI cameras on a Jetson", "nvidia-l4t-gstreamer"),
    ];

    /// One element that a source may need.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Plugin {
        /// GStreamer's name of it.
        pub element: &'static str,
        /// What it is for.
        pub purpose: &'static str,
        /// The Debian package (or board support) that brings it.
        pub package: &'static str,
        /// Whether it is installed.
        pub is_present: bool,
    }

    /// Starts GStreamer; only the first call does anything.
    pub(in crate::capture) fn init() -> Result<(), CaptureError> {
        gst::init().map_err(|error| CaptureError::Init(error.to_string()))
    }

    /// Which elements are installed.
    pub fn plugins() -> Result<Vec<Plugin>, CaptureError> {
        init()?;
        let found = |&(element, purpose, package)| Plugin { element, purpose, package, is_present: is_installed(element) };
        Ok(ELEMENTS.iter().map(found).collect())
    }

    fn is_installed(element: &str) -> bool {
        gst::ElementFactory::find(element).is_some()
    }

    fn hardware_converter(settings: &CameraSettings) -> Option<&'static str> {
        if settings.hardware == Hardware::Software {
            return None;
        }
        HARDWARE_CONVERTERS.into_iter().find(|element| is_installed(element))
    }

    /// Whether an element works on an accelerator, by its class (since GStreamer 1.16) or, where a vendor left that out, its name.
    fn is_hardware(factory: &gst::ElementFactory) -> bool {
        let class = factory.metadata("klass").unwrap_or_default();
        let name = factory.name();
        class.contains("Hardware") || ["nv", "omx", "va", "v4l2"].iter().any(|vendor| name.starts_with(vendor))
    }

    /// What serves a camera on this machine.
    pub fn describe(settings: &CameraSettings) -> Description {
        let source = source_words(settings);
        let none = || "none".to_owned();
        if matches!(settings.source, Source::Images(_)) {
            return Description { source, decoding: none(), conversion: none(), missing: Vec::new() };
        }
        if let Err(error) = init() {
            return Description { source, decoding: none(), conversion: none(), missing: vec![error.to_string()] };
        }
        let decoder = H264_DECODERS.into_iter().find(|name| {
            let factory = gst::ElementFactory::find(name);
            factory.is_some_and(|factory| settings.hardware == Hardware::Auto || !is_hardware(&factory))
        });
        let decoding = match (&settings.source, decoder) {
            (Source::Csi(_), _) => "none needed".to_owned(),
            (Source::Launch(_), _) => "as the pipeline says".to_owned(),
            (_, Some(name)) => {
                let is_hardware = gst::ElementFactory::find(name).is_some_and(|factory| is_hardware(&factory));
                format!("{} (H.264: {name})", if is_hardware { "hardware" } else { "software" })
            }
            (_, None) => "no H.264 decoder".to_owned(),
        };
        let conversion = match (&settings.source, hardware_converter(settings)) {
            (Source::Launch(_), _) => "as the pipeline says".to_owned(),
            (_, Some(name)) => format!("hardware ({name})"),
            (_, None) => "software (videoconvert, only where the decoder's layout is not read)".to_owned(),
        };
        let needed: &[&str] = match &settings.source {
            Source::File(_) => &["filesrc", "decodebin", "videoconvert"],
            Source::Rtsp(_) => &["rtspsrc", "decodebin", "videoconvert", "rtph264depay", "h264parse"],
            Source::V4l2(_) => &["v4l2src", "decodebin", "videoconvert"],
            Source::Csi(_) => &["nvarguscamerasrc", "nvvidconv"],
            Source::Launch(_) | Source::Images(_) => &[],
        };
        let mut missing: Vec<String> =
            needed.iter().filter(|name| !is_installed(name)).map(|name| format!("{name} ({})", package_of(name))).collect();
        if decoder.is_none() && matches!(settings.source, Source::File(_) | Source::Rtsp(_)) {
            missing.push("an H.264 decoder (gstreamer1.0-libav)".to_owned());
        }
        if matches!(&settings.source, Source::Rtsp(source) if source.url.scheme() == Some("rtsps")) && !rtsp::has_tls() {
            missing.push("TLS for GLib (glib-networking)".to_owned());
        }
        Description { source, decoding, conversion, missing }
    }

    fn package_of(element: &str) -> &'static str {
        ELEMENTS.iter().find(|(name, _, _)| *name == element).map_or("its GStreamer plugin", |(_, _, package)| package)
    }

    /// An element, or what is to be installed.
    pub(in crate::capture) fn make(element: &'static str) -> Result<gst::Element, CaptureError> {
        let missing = |_| CaptureError::MissingElement { element, package: package_of(element) };
        gst::ElementFactory::make(element).build().map_err(missing)
    }

    /// A pipeline that is ready to play.
    pub(in crate::capture) struct Built {
        pub(in crate::capture) pipeline: gst::Pipeline,
        pub(in crate::capture) sink: gst_app::AppSink,
        /// What takes secrets out of GStreamer's texts.
        pub(in crate::capture) redactor: Redactor,
        /// What is noticed on the way to a network camera; it must live as long as the pipeline plays.
        pub(in crate::capture) way: rtsp::Way,
        /// What keeps pictures that are not whole away.
        pub(in crate::capture) whole: Whole,
    }

    /// Builds the camera's pipeline anew, reading its password anew. `no_video` is called when the source turns out to hold none.
    pub(in crate::capture) fn build(
        settings: &CameraSettings,
        secrets: &Path,
        no_video: impl Fn() + Send + Sync + 'static,
    ) -> Result<Built, CaptureError> {
        init()?;
        let mut redactor = Redactor::default();
        let mut way = rtsp::Way::default();
        if let Source::Launch(source) = &settings.source {
            return build_launch(settings, source, redactor);
        }
        let pipeline = gst::Pipeline::new();
        let whole = Whole::watch(&pipeline);
        let sink = gst_app::AppSink::builder().name("faceid").build();
        let formats = gst::List::new(LAYOUTS);
        sink.set_caps(Some(&gst::Caps::builder("video/x-raw").field("format", formats).build()));
        let entry = add_conversion(settings, &pipeline, &sink)?;
        match &settings.source {
            Source::File(source) => {
                let (first, decoder) = (make("filesrc")?, add_decoder(settings, &pipeline, &entry, no_video)?);
                let FileSource { path, .. } = source;
                first.set_property("location", path.to_str().ok_or_else(|| bad(settings, "its path is no UTF-8".to_owned()))?);
                add_linked(settings, &pipeline, &[&first], &decoder)?;
            }
            Source::Rtsp(source) => {
                let decoder = add_decoder(settings, &pipeline, &entry, no_video)?;
                let (first, taken) = rtsp::source(settings, source, secrets, &mut redactor)?;
                way = taken;
                pipeline.add(&first).map_err(|error| bad(settings, error.to_string()))?;
                let target = decoder.static_pad("sink");
                first.connect_pad_added(move |_, pad| {
                    if let Some(target) = target.as_ref().filter(|target| !target.is_linked()) {
                        // A refusal shows as an error of the pipeline: the source's data finds no way.
                        let _ = pad.link(target);
                    }
                });
            }
            Source::V4l2(V4l2Source { device, width, height, fps }) => {
                let (first, filter) = (make("v4l2src")?, make("capsfilter")?);
                let decoder = add_decoder(settings, &pipeline, &entry, no_video)?;
                first.set_property("device", device.to_str().ok_or_else(|| bad(settings, "its path is no UTF-8".to_owned()))?);
                let mut caps = gst::Caps::new_empty();
                for kind in ["video/x-raw", "image/jpeg", "video/x-h264"] {
                    caps.merge(sized(kind, *width, *height, *fps).build());
                }
                filter.set_property("caps", caps);
                add_linked(settings, &pipeline, &[&first, &filter], &decoder)?;
            }
            Source::Csi(CsiSource { sensor_id, width, height, fps }) => {
                let (first, filter) = (make("nvarguscamerasrc")?, make("capsfilter")?);
                first.set_property("sensor-id", i32::try_from(*sensor_id).unwrap_or(i32::MAX));
                let caps = sized("video/x-raw", *width, *height, *fps).features(["memory:NVMM"]).field("format", "NV12").build();
                filter.set_property("caps", caps);
                add_linked(settings, &pipeline, &[&first, &filter], &entry)?;
            }
            Source::Launch(_) | Source::Images(_) => return Err(bad(settings, "is no source for a pipeline".to_owned())),
        }
        configure(settings, &pipeline, &sink);
        Ok(Built { pipeline, sink, redactor, way, whole })
    }

    fn bad(settings: &CameraSettings, reason: String) -> CaptureError {
        CaptureError::BadSource { camera: settings.id.clone(), reason }
    }

    fn sized(kind: &str, width: u32, height: u32, fps: u32) -> gst::caps::Builder<gst::caps::NoFeature> {
        let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let rate = gst::Fraction::new(int(fps), 1);
        gst::Caps::builder(kind).field("width", int(width)).field("height", int(height)).field("framerate", rate)
    }

    /// Adds the elements to the pipeline and links them in a row that ends in `last`, which is in it already.
    fn add_linked(
        settings: &CameraSettings,
        pipeline: &gst::Pipeline,
        row: &[&gst::Element],
        last: &gst::Element,
    ) -> Result<(), CaptureError> {
        let failed = |error: glib::BoolError| bad(settings, error.to_string());
        pipeline.add_many(row).map_err(failed)?;
        gst::Element::link_many(row.iter().copied().chain([last])).map_err(failed)
    }

    /// Adds converter and sink; gives the element that raw video goes into.
    fn add_conversion(
        settings: &CameraSettings,
        pipeline: &gst::Pipeline,
        sink: &gst_app::AppSink,
    ) -> Result<gst::Element, CaptureError> {
        let converter = match hardware_converter(settings) {
            Some(name) => make(name)?,
            None if matches!(settings.source, Source::Csi(_)) => make("nvvidconv")?,
            None => make("videoconvert")?,
        };
        if converter.has_property("output-buffers") {
            // Frames in the slot, with the worker and in a track's best shots must not starve the converter of its four.
            converter.set_property_from_str("output-buffers", "8");
        }
        pipeline.add(sink).map_err(|error| bad(settings, error.to_string()))?;
        if let Some(PixelAspect { width, height }) = settings.pixel_aspect {
            shape_pixels(&converter, gst::Fraction::new(width.into(), height.into()));
        }
        let mut row = vec![converter.clone()];
        // Faces must not be wider or narrower than they are: pixels that are not square are made so. What is square passes untouched.
        if is_installed("videoscale") {
            let square = make("capsfilter")?;
            let side = || gst::IntRange::new(1, MAX_SIDE as i32);
            let caps = gst::Caps::builder("video/x-raw").field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            square.set_property("caps", caps.field("width", side()).field("height", side()).build());
            row.extend([make("videoscale")?, square]);
        }
        // A telephone writes beside its clip how it was held, and every player turns it so. What says nothing passes untouched.
        let direction = match (settings.turn, &settings.source) {
            (90, _) => Some("90r"),
            (180, _) => Some("180"),
            (270, _) => Some("90l"),
            (_, Source::File(_)) if is_installed("videoflip") => Some("auto"),
            _ => None,
        };
        if let Some(direction) = direction {
            let upright = make("videoflip")?;
            upright.set_property_from_str("video-direction", direction);
            row.push(upright);
        }
        add_linked(settings, pipeline, &row.iter().collect::<Vec<_>>(), sink.upcast_ref())?;
        Ok(converter)
    }

    /// Has the video that comes into an element say that its pixels are of this shape.
    fn shape_pixels(entry: &gst::Element, shape: gst::Fraction) {
        let Some(pad) = entry.static_pad("sink") else { return };
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let Some(gst::PadProbeData::Event(event)) = &mut info.data else { return gst::PadProbeReturn::Ok };
            if let gst::EventView::Caps(said) = event.view() {
                let mut caps = said.caps_owned();
                caps.make_mut().set("pixel-aspect-ratio", shape);
                *event = gst::event::Caps::new(&caps);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Adds a `decodebin` whose first video goes into `entry`.
    fn add_decoder(
        settings: &CameraSettings,
        pipeline: &gst::Pipeline,
        entry: &gst::Element,
        no_video: impl Fn() + Send + Sync + 'static,
    ) -> Result<gst::Element, CaptureError> {
        let decoder = make("decodebin")?;
        pipeline.add(&decoder).map_err(|error| bad(settings, error.to_string()))?;
        let target = entry.static_pad("sink");
        let also = target.clone();
        decoder.connect_pad_added(move |_, pad| {
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let is_video = caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/x-raw"));
            if let Some(target) = target.as_ref().filter(|target| is_video && !target.is_linked()) {
                // A refusal shows as an error of the pipeline: the decoder's data finds no way.
                let _ = pad.link(target);
            }
        });
        decoder.connect_no_more_pads(move |_| {
            if also.as_ref().is_some_and(|target| !target.is_linked()) {
                no_video();
            }
        });
        if settings.hardware == Hardware::Software {
            skip_hardware(&decoder);
        }
        Ok(decoder)
    }

    /// `force-sw-decoders` would do, but JetPack 5's GStreamer does not have it yet.
    fn skip_hardware(decoder: &gst::Element) {
        decoder.connect("autoplug-select", false, |values| {
            let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
            let is_skipped =
                factory.is_some_and(|f| is_hardware(&f) && f.metadata("klass").unwrap_or_default().contains("Decoder"));
            let class = glib::EnumClass::with_type(glib::Type::from_name("GstAutoplugSelectResult")?)?;
            class.to_value_by_nick(if is_skipped { "skip" } else { "try" })
        });
    }

    fn build_launch(settings: &CameraSettings, source: &LaunchSource, mut redactor: Redactor) -> Result<Built, CaptureError> {
        redactor.add_launch_line(source.pipeline.expose());
        let parsed = gst::parse::launch(source.pipeline.expose())
            .map_err(|error| bad(settings, format!("the pipeline is refused: {}", redactor.clean(error.message()))))?;
        let one = "the pipeline must have more than one element and end in `appsink name=faceid`";
        let pipeline = parsed.downcast::<gst::Pipeline>().map_err(|_| bad(settings, one.to_owned()))?;
        rtsp_trust::give_those_of_the_system(&pipeline);
        let sink = pipeline.by_name("faceid").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
        let sink = sink.ok_or_else(|| bad(settings, one.to_owned()))?;
        if sink.caps().is_none_or(|caps| caps.is_any()) {
            let formats = gst::List::new(LAYOUTS.into_iter().chain(["RGB"]));
            sink.set_caps(Some(&gst::Caps::builder("video/x-raw").field("format", formats).build()));
        }
        configure(settings, &pipeline, &sink);
        let whole = Whole::watch(&pipeline);
        Ok(Built { pipeline, sink, redactor, way: rtsp::Way::default(), whole })
    }

    /// What all pipelines have in common: the monotonic clock, and a sink that never queues.
    fn configure(settings: &CameraSettings, pipeline: &gst::Pipeline, sink: &gst_app::AppSink) {
        // Every frame's time is then one of CLOCK_MONOTONIC, as `system::clock` reads it.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let is_paced_file = matches!(&settings.source, Source::File(source) if source.paced);
        sink.set_max_buffers(1);
        sink.set_drop(!settings.source.is_lossless());
        sink.set_sync(is_paced_file);
        sink.set_property("qos", false);
        sink.set_property("enable-last-sample", false);
        let Some(pad) = sink.static_pad("sink") else { return };
        // Telling the decoder that any stride is welcome saves it a copy into tightly packed rows. (The appsink's own callback for
        // this needs GStreamer 1.24.)
        pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query_mut().map(gst::QueryRef::view_mut) {
            Some(gst::QueryViewMut::Allocation(query)) => {
                query.add_allocation_meta::<gstreamer_video::VideoMeta>(None);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        });
    }
}
