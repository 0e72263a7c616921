//! One camera's GStreamer pipeline: [`run`] for ever around [`run_once`], which is a straight line. GStreamer's own thread maps each
//! frame and puts it into the slot; the caller's thread watches.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::event::{CameraState, Teller};
use super::light::LightWatch;
use super::pace::PaceWatch;
use super::pipelines::{self, Built};
use super::reasons::{self, Failed};
use super::redact::Redactor;
use super::settings::{CameraSettings, Source};
use super::whole::{KEY_WAIT, Whole};
use super::{CaptureError, Slot, mapped};
use crate::system::{Backoff, Stop, clock};
use crate::types::{CameraId, Frame, Moment, Monotonic, Wall};

/// How often the watching thread looks up; it bounds how late stop is heard.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// A file that ends this much before its own length says is cut off.
const MISSING_TAIL: Duration = Duration::from_secs(1);
/// The time from one pass of a lossless file to the next.
const LOOP_GAP: Duration = Duration::from_millis(40);

/// How one try ended.
enum End {
    Stopped,
    /// The source is done; how it went.
    Finished(String),
    Lost(CameraState, String),
}

/// What the streaming thread knows.
struct Intake {
    /// Counted over all tries.
    number: u64,
    /// Frames in this try.
    frames: u64,
    /// When the last frame came in, or the try began.
    heard_at: Monotonic,
    /// The last frame's time.
    last: Moment,
    /// How far into the stream the last frame is.
    position: Duration,
    size: (u32, u32),
    light: LightWatch,
    darkness: Option<&'static str>,
    pace: PaceWatch,
    fault: Option<String>,
    /// Where running time zero lies for a lossless file.
    origin: Monotonic,
}

struct Shared {
    camera: CameraId,
    slot: Slot<Frame>,
    is_lossless: bool,
    is_live: bool,
    stall: Duration,
    intake: Mutex<Intake>,
    /// The try is over: a writer that waits gives up.
    is_cancelled: AtomicBool,
    /// A lossless writer waits for its reader, so silence is no stall.
    is_waiting: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the camera until told to stop, or until a source that is played once has ended.
pub(super) fn run(
    settings: &CameraSettings,
    secrets: &Path,
    slot: &Slot<Frame>,
    teller: &mut Teller<'_>,
    stop: &Stop,
) -> Result<(), CaptureError> {
    log::info!("camera {}: {}", settings.id, pipelines::describe(settings));
    let now = clock::monotonic();
    let intake = Intake {
        number: 0,
        frames: 0,
        heard_at: now,
        last: Moment::default(),
        position: Duration::ZERO,
        size: (0, 0),
        light: LightWatch::new(settings.dark_luma, settings.flat_luma_deviation),
        darkness: None,
        pace: PaceWatch::default(),
        fault: None,
        origin: now,
    };
    let shared = Arc::new(Shared {
        camera: settings.id.clone(),
        slot: slot.clone(),
        is_lossless: settings.source.is_lossless(),
        is_live: !matches!(settings.source, Source::File(_)),
        stall: settings.stall_timeout(),
        intake: Mutex::new(intake),
        is_cancelled: AtomicBool::new(false),
        is_waiting: AtomicBool::new(false),
    });
    let floor = Duration::from_millis(settings.retry_min_ms.into());
    let mut backoff = Backoff::new(floor, Duration::from_millis(settings.retry_max_ms.into()));
    while !stop.is_asked() {
        let end = run_once(settings, secrets, &shared, teller, stop)?;
        if shared.lock().frames > 0 {
            backoff.reset();
        }
        match end {
            End::Stopped => return Ok(()),
            End::Finished(how) if settings.source.is_played_once() => {
                teller.tell(CameraState::Ended, &how);
                return Ok(());
            }
            End::Finished(_) => continue,
            End::Lost(_, reason) if settings.source.is_played_once() => {
                return Err(CaptureError::Unplayable { camera: settings.id.clone(), reason });
            }
            End::Lost(state, reason) => teller.tell(state, &reason),
        }
        stop.sleep(backoff.next_delay());
    }
    Ok(())
}

/// Stops the pipeline however the try ends; its threads are joined then.
struct Playing<'a>(&'a gst::Pipeline, &'a Shared);

impl Drop for Playing<'_> {
    fn drop(&mut self) {
        self.1.is_cancelled.store(true, Ordering::Release);
        // Going down cannot be refused.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// One try: build, play, watch until something ends it.
fn run_once(
    settings: &CameraSettings,
    secrets: &Path,
    shared: &Arc<Shared>,
    teller: &mut Teller<'_>,
    stop: &Stop,
) -> Result<End, CaptureError> {
    begin(shared);
    let place = settings.source.place();
    let (watched, nothing) = (shared.clone(), format!("{place} holds no video that can be decoded"));
    let Built { pipeline, sink, redactor, way, whole } = pipelines::build(settings, secrets, move || {
        watched.lock().fault = Some(nothing.clone());
    })?;
    let (writer, judge) = (shared.clone(), whole.clone());
    sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(move |sink| on_sample(sink, &writer, &judge)).build());
    let bus = pipeline.bus().ok_or_else(|| CaptureError::Init("a pipeline has no bus".to_owned()))?;
    let playing = Playing(&pipeline, shared);
    // A refusal leaves its reason on the bus.
    let refused = pipeline.set_state(gst::State::Playing).is_err();
    let mut missing = None;
    loop {
        if stop.is_asked() {
            return Ok(End::Stopped);
        }
        let wanted = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Element];
        let message = bus.timed_pop_filtered(POLL, &wanted);
        let (frames, silent_for, fault) = report(shared, &whole, teller);
        match message.as_ref().map(|message| message.view()) {
            _ if fault.is_some() => return Ok(End::Lost(CameraState::Offline, redactor.clean(&fault.unwrap_or_default()))),
            Some(gst::MessageView::Error(error)) => {
                log_error(settings, error, &redactor);
                let (place, missing) = (place.as_str(), missing.as_deref());
                let reason = Failed { place, frames, way: &way, missing, redactor: &redactor }.reason(error);
                return Ok(End::Lost(CameraState::Offline, redactor.clean(&reason)));
            }
            Some(gst::MessageView::Element(element)) => missing = reasons::missing_plugin(element).or(missing),
            Some(gst::MessageView::Eos(_)) => return Ok(at_end(settings, &place, shared, &pipeline)),
            _ if refused => return Ok(End::Lost(CameraState::Offline, format!("{place} does not start"))),
            _ => {}
        }
        if whole.waits_too_long(clock::monotonic()) {
            let seconds = KEY_WAIT.as_secs();
            let reason = format!(
                "no key frame from {place} for {seconds} s after packets were lost: set a shorter key frame interval (GOP) in the camera"
            );
            drop(playing);
            return Ok(End::Lost(CameraState::Stalled, reason));
        }
        if silent_for >= settings.stall_timeout() && !shared.is_waiting.load(Ordering::Acquire) {
            let seconds = settings.stall_timeout().as_secs_f32();
            let was_stalled = teller.state() == Some(CameraState::Stalled);
            // A demuxer that finds no stream in a cut file may end without a word reaching the sink.
            let (state, reason) = if frames == 0 && matches!(settings.source, Source::File(_)) {
                (CameraState::Offline, format!("{place} gave no video frame within {seconds} s: it is damaged or cut off"))
            } else if frames > 0 || was_stalled || is_connected(&sink) {
                (CameraState::Stalled, format!("no frame from {place} for {seconds} s"))
            } else {
                (CameraState::Offline, format!("{place} does not answer within {seconds} s"))
            };
            drop(playing);
            return Ok(End::Lost(state, reason));
        }
    }
}

/// Whether data has a way to the sink: a connection was made, whatever comes of it.
fn is_connected(sink: &gst_app::AppSink) -> bool {
    sink.static_pad("sink").is_some_and(|pad| pad.current_caps().is_some())
}

fn begin(shared: &Shared) {
    let now = clock::monotonic();
    shared.is_cancelled.store(false, Ordering::Release);
    shared.is_waiting.store(false, Ordering::Release);
    let mut intake = shared.lock();
    intake.origin = now.max(intake.last.monotonic.plus(LOOP_GAP));
    intake.frames = 0;
    intake.heard_at = now;
    intake.position = Duration::ZERO;
    intake.fault = None;
}

/// Tells what the streaming thread has seen; gives the frames of this try, how long none came, and what went wrong.
fn report(shared: &Shared, whole: &Whole, teller: &mut Teller<'_>) -> (u64, Duration, Option<String>) {
    let intake = shared.lock();
    let (frames, heard_at, fault) = (intake.frames, intake.heard_at, intake.fault.clone());
    let (darkness, (width, height)) = (intake.darkness, intake.size);
    drop(intake);
    if frames > 0 {
        match darkness {
            Some(reason) => teller.tell(CameraState::Dark, reason),
            None => teller.tell(CameraState::Online, &format!("{width}x{height}")),
        }
    }
    let now = clock::monotonic();
    if let Some(losses) = whole.untold_losses(now) {
        log::warn!(
            "camera {}: packets were lost on the way ({losses} gap(s)): pictures are passed over until the next key frame; `transport = \"tcp\"` loses none",
            shared.camera
        );
    }
    // Pictures that are passed over are no silence.
    let heard_at = whole.passed_over_at().map_or(heard_at, |at| heard_at.max(at));
    (frames, now.since(heard_at), fault)
}

/// Takes one sample in, on GStreamer's thread.
fn on_sample(sink: &gst_app::AppSink, shared: &Shared, whole: &Whole) -> Result<gst::FlowSuccess, gst::FlowError> {
    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
    let now = clock::now();
    if sample.buffer().is_some_and(|picture| !whole.takes(picture, now.monotonic)) {
        return Ok(gst::FlowSuccess::Ok);
    }
    let fail = |reason: String| {
        shared.lock().fault = Some(reason);
        gst::FlowError::Error
    };
    let picture = mapped::picture(&sample).map_err(fail)?;
    let position = running_time(&sample);
    let mut intake = shared.lock();
    let captured_at = match position {
        Some(position) if shared.is_lossless => shift(now, intake.origin.plus(position)),
        Some(position) => {
            let base = sink.base_time().map_or(now.monotonic, |base| Monotonic(base.nseconds()));
            // A frame cannot be from the future.
            shift(now, base.plus(position).min(now.monotonic))
        }
        None => now,
    };
    let lag = now.monotonic.since(captured_at.monotonic);
    if shared.is_live && lag > shared.stall {
        // Every frame would count as too old to decide on: a fresh start sets the stream's time right.
        drop(intake);
        return Err(fail(format!("its frames' times lie {:.1} s behind the clock", lag.as_secs_f32())));
    }
    let size = (picture.width(), picture.height());
    if intake.size != size {
        log::info!("camera {}: frames of {}x{} {:?}", shared.camera, size.0, size.1, picture.layout());
        intake.size = size;
    }
    intake.darkness = intake.light.look(&picture, captured_at.monotonic);
    if let Some(told) = intake.light.colour_news() {
        log::info!("camera {}: {told}", shared.camera);
    }
    if let Some(told) = intake.pace.look(captured_at.monotonic) {
        log::warn!("camera {}: {told}", shared.camera);
    }
    intake.number += 1;
    intake.frames += 1;
    intake.heard_at = now.monotonic;
    intake.last = captured_at;
    intake.position = position.unwrap_or(intake.position);
    let frame = Frame { camera: shared.camera.clone(), number: intake.number, captured_at, picture };
    drop(intake);
    if !shared.is_lossless {
        shared.slot.put(frame);
        return Ok(gst::FlowSuccess::Ok);
    }
    shared.is_waiting.store(true, Ordering::Release);
    let is_put = shared.slot.put_when_free(frame, &|| shared.is_cancelled.load(Ordering::Acquire));
    shared.lock().heard_at = clock::monotonic();
    shared.is_waiting.store(false, Ordering::Release);
    if is_put { Ok(gst::FlowSuccess::Ok) } else { Err(gst::FlowError::Flushing) }
}

/// How far into the stream a sample is.
fn running_time(sample: &gst::Sample) -> Option<Duration> {
    let pts = sample.buffer()?.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(pts).map(Duration::from)
}

/// `then` on both clocks, given both now.
fn shift(now: Moment, then: Monotonic) -> Moment {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let offset = milliseconds(then.since(now.monotonic)) - milliseconds(now.monotonic.since(then));
    Moment { monotonic: then, wall: Wall(now.wall.0.saturating_add(offset)) }
}

/// What the end of the stream means.
fn at_end(settings: &CameraSettings, place: &str, shared: &Shared, pipeline: &gst::Pipeline) -> End {
    let (frames, position) = {
        let intake = shared.lock();
        (intake.frames, intake.position)
    };
    if !matches!(settings.source, Source::File(_)) {
        return End::Lost(CameraState::Offline, format!("{place} ended its stream"));
    }
    if frames == 0 {
        return End::Lost(CameraState::Offline, format!("{place} holds no video frame: it is damaged or cut off"));
    }
    let length = pipeline.query_duration::<gst::ClockTime>().map(Duration::from);
    match length {
        Some(length) if position + MISSING_TAIL < length => {
            let (had, of) = (position.as_secs_f32(), length.as_secs_f32());
            let how = format!("{place} breaks off after {frames} frames, at {had:.1} s of {of:.1} s: it is damaged or cut off");
            log::warn!("camera {}: {how}", settings.id);
            End::Finished(how)
        }
        _ => End::Finished(format!("{frames} frames")),
    }
}

fn log_error(settings: &CameraSettings, error: &gst::message::Error, redactor: &Redactor) {
    let debug = error.debug().map(|text| redactor.clean(&text)).unwrap_or_default();
    log::debug!("camera {}: GStreamer: {} ({debug})", settings.id, redactor.clean(error.error().message()));
}
