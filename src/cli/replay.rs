//! Clips and series of frames played before a door of our own: pipeline and decider put together as `run` does, for `bench pipeline` and
//! `eval door`. One stack may serve many such doors at once: what it says of a frame is asked once.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::context::Context;
use super::{Failure, Result, code};
use crate::access::grant::GrantKey;
use crate::access::{self, Decider, DoorSettings, PolicySettings, Rules, Thresholds};
use crate::capture::{self, CameraEvent, CameraSettings, Slot, Taken, still};
use crate::gallery::Gallery;
use crate::pipeline::{self, Gated, Pipeline, Seen, Stages, Timings};
use crate::system::{clock, stop};
use crate::types::{
    AlignedFace, CameraId, Decision, Detection, DeviceId, DoorId, Embedding, Frame, Moment, PadScore, Picture, Score,
};
use crate::vision::VisionError;
use crate::vision::stack::Stack;

/// What became of a clip's frames.
pub(super) struct Played {
    /// How many came.
    pub(super) frames: u64,
    /// How many were replaced before anybody took them.
    pub(super) lost: u64,
    /// What the camera said last, for where no frame came.
    pub(super) fault: String,
}

/// Shows `see` every frame of a camera until its end, or until `see` has enough and says no.
pub(super) fn play(camera: CameraSettings, secrets: &Path, mut see: impl FnMut(&Frame) -> Result<bool>) -> Result<Played> {
    let (slot, frames) = Slot::single();
    let (handle, stop) = stop::pair();
    let fault = Arc::new(Mutex::new(String::new()));
    let worker = std::thread::spawn({
        let (slot, fault, secrets) = (slot.clone(), fault.clone(), secrets.to_owned());
        move || {
            let note = |event: CameraEvent| {
                if let Ok(mut fault) = fault.lock() {
                    *fault = event.reason;
                }
            };
            let _ = capture::run(&camera, &secrets, &slot, &note, &stop);
            slot.close();
        }
    });
    let mut count = 0;
    let result = loop {
        let frame = match frames.take_any(Duration::from_millis(500)) {
            Taken::Item(_, frame) => frame,
            Taken::Closed => break Ok(()),
            Taken::TimedOut => continue,
        };
        count += 1;
        match see(&frame) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    handle.stop();
    let lost = slot.counts().replaced;
    slot.close();
    let _ = worker.join();
    result?;
    let fault = fault.lock().map(|fault| fault.clone()).unwrap_or_default();
    Ok(Played { frames: count, lost, fault })
}

/// Shows `see` the photos as frames that were captured `step` apart.
pub(super) fn play_photos(photos: &[PathBuf], step: Duration, mut see: impl FnMut(&Frame) -> Result<bool>) -> Result<Played> {
    let (camera, mut at) = (camera()?, clock::now());
    let mut count = 0;
    for photo in photos {
        let picture = still::read_picture(photo).map_err(|error| Failure::data(format!("{}: {error}", photo.display())))?;
        count += 1;
        if !see(&Frame { camera: camera.clone(), number: count, captured_at: at, picture })? {
            break;
        }
        at = at.plus(step);
    }
    Ok(Played { frames: count, lost: 0, fault: "the folder holds no photo".to_owned() })
}

/// The camera that every clip comes from.
pub(super) fn camera() -> Result<CameraId> {
    CameraId::new("clip").map_err(|error| Failure::new(code::BUG, error))
}

/// A door with one camera and a fresh memory, in nobody's policy, that no attack shuts.
pub(super) struct Doorway<S> {
    pipeline: Pipeline<S>,
    decider: Decider,
    camera: CameraId,
    settles: bool,
}

impl<S: Stages> Doorway<S> {
    /// A door that decides by these thresholds. `settles` is whether a track that was decided costs nothing any more, as in `run`.
    pub(super) fn new(
        context: &Context,
        (settings, settles): (pipeline::Settings, bool),
        stack: S,
        gallery: Arc<Gallery>,
        thresholds: Thresholds,
    ) -> Result<Self> {
        let bug = |error: &dyn std::fmt::Display| Failure::new(code::BUG, error);
        let camera = camera()?;
        let door = DoorSettings::new(DoorId::new("bench").map_err(|error| bug(&error))?, vec![camera.clone()]);
        let device = DeviceId::new("bench").map_err(|error| bug(&error))?;
        let key = GrantKey::generate().map_err(Failure::unavailable)?;
        let mut policy = PolicySettings::default();
        (policy.throttle.failures, policy.throttle.cool_down_ms) = (0, 0);
        let rules = Rules::new(&policy).map_err(|error| bug(&error))?;
        // A clip that is not paced passes faster than people do, so that two of its visits may seem to be one approach.
        let access = access::Settings { approach_ms: 0, ..context.config.access.clone() };
        let decider = Decider::new(device, access, thresholds, &[door], rules, key);
        Ok(Self { pipeline: Pipeline::new(settings, stack, Some(gallery)), decider, camera, settles })
    }

    /// Takes a frame through the pipeline and decides what it showed, at `now`, or by the clock when the networks are done.
    pub(super) fn see(&mut self, frame: &Frame, now: Option<Moment>) -> Result<(Seen, Vec<Decision>, Moment)> {
        let seen = self.pipeline.process(frame).map_err(Failure::unavailable)?;
        let now = now.unwrap_or_else(clock::now);
        let decisions = self.decide(&seen, now);
        Ok((seen, decisions, now))
    }

    /// The clip is over: what is said of the tracks that were still open. `now` is by the clock where it was played at its own pace.
    pub(super) fn end(&mut self, paced: bool) -> (Seen, Vec<Decision>, Moment) {
        let seen = self.pipeline.end_of_stream(&self.camera);
        let captured = seen.observations.first().map(|observation| observation.captured_at).filter(|_| !paced);
        let now = captured.unwrap_or_else(clock::now);
        let decisions = self.decide(&seen, now);
        (seen, decisions, now)
    }

    /// The time each stage took so far.
    pub(super) fn timings(&self) -> Arc<Timings> {
        self.pipeline.timings()
    }

    fn decide(&mut self, seen: &Seen, now: Moment) -> Vec<Decision> {
        let mut all = Vec::new();
        for observation in &seen.observations {
            let mut id = || uuid::Uuid::now_v7().to_string();
            let decisions = self.decider.decide(observation, now, &mut id);
            if !decisions.is_empty() && self.settles {
                self.pipeline.settle(&observation.camera, observation.track);
            }
            all.extend(decisions);
        }
        all
    }
}

/// One face with what was said of it: its liveness, where a network tells it, and its embedding.
type Described = Option<(Option<PadScore>, Embedding)>;

/// What one stack said of the frame that is played.
struct Memory<'a> {
    stack: &'a mut Stack,
    detected: Vec<(Option<f32>, Vec<Detection>)>,
    gated: Vec<(Detection, Gated)>,
    turned: Vec<(Detection, bool)>,
    described: Vec<(Detection, Described)>,
}

/// One stack before many doors: each asks about the same frame, and the networks answer once. What they say depends on frame and face
/// alone, so that every door hears what it would hear from a stack of its own. Frames go by in step: [`OneStack::next_frame`] comes between.
#[derive(Clone)]
pub(super) struct OneStack<'a>(Rc<RefCell<Memory<'a>>>);

impl<'a> OneStack<'a> {
    /// Lends a stack.
    pub(super) fn new(stack: &'a mut Stack) -> Self {
        let memory = Memory { stack, detected: Vec::new(), gated: Vec::new(), turned: Vec::new(), described: Vec::new() };
        Self(Rc::new(RefCell::new(memory)))
    }

    /// Forgets what was said of the frame before.
    pub(super) fn next_frame(&self) {
        let mut memory = self.0.borrow_mut();
        memory.detected.clear();
        memory.gated.clear();
        memory.turned.clear();
        memory.described.clear();
    }
}

/// What is remembered under `key`, or what `ask` says now, which is remembered.
fn recall<K: PartialEq, V: Clone>(
    memory: &mut Vec<(K, V)>,
    key: K,
    ask: impl FnOnce() -> std::result::Result<V, VisionError>,
) -> std::result::Result<V, VisionError> {
    if let Some((_, said)) = memory.iter().find(|(known, _)| *known == key) {
        return Ok(said.clone());
    }
    let said = ask()?;
    memory.push((key, said.clone()));
    Ok(said)
}

impl Stages for OneStack<'_> {
    fn detect(&mut self, picture: &Picture, least: Option<f32>) -> std::result::Result<Vec<Detection>, VisionError> {
        let Memory { stack, detected, .. } = &mut *self.0.borrow_mut();
        recall(detected, least, || stack.detect(picture, least))
    }

    fn confidence(&self) -> f32 {
        self.0.borrow().stack.confidence()
    }

    fn matching(&self) -> Score {
        self.0.borrow().stack.matching()
    }

    fn gate(&mut self, picture: &Picture, detection: &Detection, settings: &pipeline::Settings) -> Gated {
        let Memory { stack, gated, .. } = &mut *self.0.borrow_mut();
        let said = recall(gated, *detection, || Ok(stack.gate(picture, detection, settings)));
        said.unwrap_or(Gated::Unknowable)
    }

    fn is_turned(&mut self, picture: &Picture, detection: &Detection) -> std::result::Result<bool, VisionError> {
        let Memory { stack, turned, .. } = &mut *self.0.borrow_mut();
        recall(turned, *detection, || stack.is_turned(picture, detection))
    }

    fn describe(
        &mut self,
        picture: &Picture,
        detection: &Detection,
        face: &AlignedFace,
        timings: &Timings,
    ) -> std::result::Result<Described, VisionError> {
        let Memory { stack, described, .. } = &mut *self.0.borrow_mut();
        recall(described, *detection, || stack.describe(picture, detection, face, timings))
    }
}
