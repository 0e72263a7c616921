//! Frame in, observations out. This is the only place that knows the order of the stages: motion gate, detection, tracking, quality,
//! liveness, embedding, match. Stages never name each other; they meet here.
//!
//! Effort follows need. Nobody moves: no network runs. Nobody is undecided: detection alone runs, at a slower pace. A track is undecided:
//! every frame is looked at, liveness and embedding run on its usable faces (its best ones, then every second) until it is decided, then
//! only when it jumps or was out of sight, to see whether it is still the same face. A frame's face counts when it was held against the
//! visit's others, or not at all; and whom it shows is told of each for itself, because two people may be alike enough for one visit.

mod crops;
mod portrait;
mod session;
mod stages;
mod still;
mod visit;
mod witness;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crops::{NotAligned, look_at_crop, not_aligned};
pub use portrait::portrait;
pub use session::{Session, Step, Terms, Unfinished};
pub use stages::{Gated, Stages};
pub use still::{Asked, NoReference, StillFace, Verdict, embed_found, find_subject, judge, look, look_at_subject, reference};
use visit::{Face, Recent, Taken, Visit};
pub use witness::Witness;

use crate::capture::{MotionGate, MotionSettings};
use crate::gallery::{Gallery, Snapshot};
use crate::system::metrics::Histogram;
use crate::types::{
    Attempt, BoundingBox, CameraId, Detection, Frame, Moment, Observation, PadScore, Picture, Refusal, Score, Sighting, TrackId,
};
use crate::vision::stack::Stack;
use crate::vision::track::{self, Tracker};
use crate::vision::{VisionError, quality};

/// Each camera numbers its tracks from its own start, so that no number is given twice in a process.
const TRACKS_A_CAMERA: u64 = 1_000_000_000;

/// How much effort the pipeline makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The least time between two detections while nobody is in view or everybody is decided, in milliseconds (0 to 1000).
    pub idle_interval_ms: u64,
    /// The least time between two faces of one track that are judged and embedded, in milliseconds (0 to 1000).
    pub evidence_interval_ms: u64,
    /// A track that ends with fewer usable faces than this is an attempt, not a decision (1 to 100).
    pub least_frames: u32,
    /// The most faces of one track whose embeddings are fused (1 to 20).
    pub best_shots: usize,
    /// A face that comes back within this time after its track was lost, alike enough to match, goes on with its visit and is not
    /// decided again, in milliseconds (0 to 10000).
    pub rejoin_ms: u64,
    /// The least width of a face's box in pixels for its liveness to be judged: below it the texture that tells a picture from a face is
    /// lost, and the face is no evidence (8 to 2000).
    pub min_liveness_face_px: u32,
    /// A decided visit that lasts longer than this ends, and whoever still stands there is decided anew, in seconds; 0 is never (0 to
    /// 86400).
    pub visit_s: u64,
    /// The motion gate.
    pub motion: MotionSettings,
    /// The quality gate.
    pub quality: quality::Settings,
    /// The tracker.
    pub tracker: track::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_interval_ms: 100,
            evidence_interval_ms: 60,
            least_frames: 3,
            best_shots: 5,
            rejoin_ms: 1200,
            min_liveness_face_px: 48,
            visit_s: 0,
            motion: MotionSettings::default(),
            quality: quality::Settings::default(),
            tracker: track::Settings::default(),
        }
    }
}

impl Settings {
    /// Values out of range, each with its key and the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let ranges = [
            ("idle-interval-ms", self.idle_interval_ms, 0, 1000),
            ("evidence-interval-ms", self.evidence_interval_ms, 0, 1000),
            ("least-frames", u64::from(self.least_frames), 1, 100),
            ("best-shots", self.best_shots as u64, 1, 20),
            ("rejoin-ms", self.rejoin_ms, 0, 10_000),
            ("min-liveness-face-px", u64::from(self.min_liveness_face_px), 8, 2000),
            ("visit-s", self.visit_s, 0, 86_400),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                findings.push((key.to_owned(), format!("{value} is out of range: use {low} to {high}")));
            }
        }
        let rooms =
            [("motion", self.motion.findings()), ("quality", self.quality.findings()), ("tracker", self.tracker.findings())];
        for (room, inner) in rooms {
            findings.extend(inner.into_iter().map(|(key, text)| (format!("{room}.{key}"), text)));
        }
        findings
    }
}

/// Why a frame could not be taken through.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A stage failed.
    #[error(transparent)]
    Vision(#[from] VisionError),
}

/// One face of one frame, for dumps and annotated pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenFace {
    /// Whose stay.
    pub track: TrackId,
    /// Where.
    pub detection: Detection,
    /// This frame's liveness score, where it was judged.
    pub liveness: Option<PadScore>,
    /// The best comparison score of the track's evidence so far, where it was searched.
    pub best: Option<Score>,
}

/// A decided visit that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    /// On which track now.
    pub track: TrackId,
    /// On which it was before.
    pub before: TrackId,
}

/// What one frame gave.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whether the detector looked at it at all.
    pub looked: bool,
    /// The faces on tracks.
    pub faces: Vec<SeenFace>,
    /// Tracks with new evidence, or that ended undecided.
    pub observations: Vec<Observation>,
    /// Tracks that ended without a usable face.
    pub attempts: Vec<Attempt>,
    /// Tracks whose face was compared with that of a decided one that was out of sight, and is its: they go on with its visit.
    pub continued: Vec<Continued>,
    /// Tracks that ended in this frame, decided or not, and where their faces were last.
    pub ended: Vec<(TrackId, BoundingBox)>,
    /// How many faces stand there, when that has changed.
    pub presence: Option<u32>,
    /// What a camera that must agree saw.
    pub sighting: Option<Sighting>,
}

/// Where a frame's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The motion gate.
    Motion,
    /// Small picture, detector, decode, tracker.
    Detect,
    /// Alignment and quality of one face.
    Align,
    /// Liveness of one face.
    Liveness,
    /// Embedding of one face.
    Embed,
    /// One search.
    Match,
}

impl Stage {
    /// All stages, in the order of the path.
    pub const ALL: [Stage; 6] = [Stage::Motion, Stage::Detect, Stage::Align, Stage::Liveness, Stage::Embed, Stage::Match];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Motion => "motion",
            Stage::Detect => "detect",
            Stage::Align => "align",
            Stage::Liveness => "liveness",
            Stage::Embed => "embed",
            Stage::Match => "match",
        }
    }
}

/// The time each stage took, a histogram a stage.
#[derive(Default)]
pub struct Timings([Histogram; 6]);

impl Timings {
    fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0[stage as usize].record(start.elapsed());
        result
    }

    /// One stage's histogram.
    pub fn of(&self, stage: Stage) -> &Histogram {
        &self.0[stage as usize]
    }
}

/// One camera's state between frames.
struct View {
    gate: MotionGate,
    tracker: Tracker,
    visits: HashMap<TrackId, Visit>,
    recent: Vec<Recent>,
    last_look: Option<Moment>,
    presence: u32,
}

/// A camera that gives no frame for this long shows nobody any more, unless a track may be lost for longer.
const ABANDONED: Duration = Duration::from_secs(3);

/// The most faces of one photo that are judged while cameras wait: about as long as a second of frames on the slowest board.
const MOST_FACES_OF_A_STILL: usize = 16;

/// The stages of one worker, and each camera's state.
pub struct Pipeline<S = Stack> {
    settings: Settings,
    stack: S,
    gallery: Option<Arc<Gallery>>,
    views: HashMap<CameraId, View>,
    witnesses: Vec<Witness>,
    timings: Arc<Timings>,
}

impl Pipeline<Stack> {
    /// The largest faces of a photo, the largest first, [`MOST_FACES_OF_A_STILL`] at most, with the cameras' own networks.
    pub fn look_at_still(&mut self, picture: &Picture) -> Result<Vec<StillFace>, PipelineError> {
        still::look_at_most(&mut self.stack, picture, &self.settings.quality, MOST_FACES_OF_A_STILL)
    }
}

impl<S: Stages> Pipeline<S> {
    /// A pipeline over opened networks. Without a gallery every observation says so, and nothing is ever granted; a gallery that was
    /// rolled back is as good as none until somebody has looked.
    pub fn new(settings: Settings, stack: S, gallery: Option<Arc<Gallery>>) -> Self {
        Self { settings, stack, gallery, views: HashMap::new(), witnesses: Vec::new(), timings: Arc::default() }
    }

    /// The same with cameras that only say whether another's faces are there.
    pub fn with_witnesses(self, witnesses: Vec<Witness>) -> Self {
        Self { witnesses, ..self }
    }

    /// The networks.
    pub fn stack(&mut self) -> &mut S {
        &mut self.stack
    }

    /// The time each stage took so far.
    pub fn timings(&self) -> Arc<Timings> {
        self.timings.clone()
    }

    /// This track is decided: no more effort for it.
    pub fn settle(&mut self, camera: &CameraId, track: TrackId) {
        if let Some(visit) = self.views.get_mut(camera).and_then(|view| view.visits.get_mut(&track)) {
            visit.settle();
        }
    }

    /// Whether somebody is taken to stand before a camera that has given no frame for `silent_for`, so that its stream is to be ended.
    pub fn is_abandoned(&self, camera: &CameraId, silent_for: Duration) -> bool {
        let patience = ABANDONED.max(Duration::from_millis(self.settings.tracker.lost_after_ms));
        silent_for > patience
            && self.views.get(camera).is_some_and(|view| view.presence > 0 || view.has_undecided() || !view.visits.is_empty())
    }

    /// The camera's stream has ended or been lost: its tracks end, with their last observations.
    pub fn end_of_stream(&mut self, camera: &CameraId) -> Seen {
        let mut seen = Seen::default();
        if let Some(view) = self.views.get_mut(camera) {
            let snapshot = self.gallery.as_deref().and_then(Gallery::trusted);
            view.tracker.clear();
            view.end_lost(&mut seen, camera, snapshot.as_deref(), &self.settings, &self.timings);
            view.recent.clear();
            if std::mem::take(&mut view.presence) > 0 {
                seen.presence = Some(0);
            }
        }
        seen
    }

    /// Takes one frame through the stages it needs.
    pub fn process(&mut self, frame: &Frame) -> Result<Seen, PipelineError> {
        if let Some(witness) = self.witnesses.iter().position(|witness| witness.camera == frame.camera) {
            return self.testify(witness, frame);
        }
        let Self { settings, stack, gallery, views, timings, .. } = self;
        let first_track = 1 + TRACKS_A_CAMERA * views.len() as u64;
        let view = views.entry(frame.camera.clone()).or_insert_with(|| View {
            gate: MotionGate::new(settings.motion.clone()),
            tracker: Tracker::new(settings.tracker, first_track),
            visits: HashMap::new(),
            recent: Vec::new(),
            last_look: None,
            presence: 0,
        });
        let at = frame.captured_at;
        let mut seen = Seen::default();
        let moving = timings.time(Stage::Motion, || view.gate.look(&frame.picture, at.monotonic));
        if !view.is_due(settings, at, moving) {
            return Ok(seen);
        }
        view.last_look = Some(at);
        seen.looked = true;

        let least = settings.tracker.min_confidence;
        let detections = timings.time(Stage::Detect, || stack.detect(&frame.picture, Some(least)))?;
        let matched = view.tracker.update(at.monotonic, &detections, stack.confidence());
        let snapshot = gallery.as_deref().and_then(Gallery::trusted);
        for (track, index) in matched {
            let in_view = beside(&detections[index], &detections, stack.confidence());
            let face = (track, detections[index], in_view);
            view.meet(&mut seen, frame, face, snapshot.as_deref(), stack, settings, timings)?;
        }
        view.recent.retain(|recent| recent.is_live(at, settings));
        view.end_lost(&mut seen, &frame.camera, snapshot.as_deref(), settings, timings);
        let standing = u32::try_from(view.visits.len()).unwrap_or(u32::MAX);
        if standing != view.presence {
            view.presence = standing;
            seen.presence = Some(standing);
        }
        Ok(seen)
    }
}

impl View {
    /// Takes one face of a frame into its visit, and tells what is new of it.
    #[expect(clippy::too_many_arguments, reason = "the parts of the pipeline, lent one by one")]
    fn meet(
        &mut self,
        seen: &mut Seen,
        frame: &Frame,
        (mut track, detection, in_view): (TrackId, Detection, u32),
        snapshot: Option<&Snapshot>,
        stack: &mut impl Stages,
        settings: &Settings,
        timings: &Timings,
    ) -> Result<(), PipelineError> {
        let at = frame.captured_at;
        let mut visit = self.visits.remove(&track).unwrap_or_else(|| Visit::new(at));
        if visit.is_over(at, settings)
            && let Some(next) = self.tracker.split(track)
        {
            seen.ended.push((std::mem::replace(&mut track, next), visit.bounding_box()));
            visit = Visit::new(at);
        }
        visit.meet(&detection, (frame.picture.width(), frame.picture.height()), at);
        let (mut liveness, mut best) = (None, None);
        if visit.wants_evidence(at, settings) {
            let gathered = gather(&mut visit, frame, (&detection, in_view), stack, settings, timings);
            let (score, other) = match gathered {
                Ok(gathered) => gathered,
                // What is known of the face outlives a stage that fails: a failed liveness is not forgotten.
                Err(error) => {
                    self.visits.insert(track, visit);
                    return Err(error);
                }
            };
            liveness = score;
            // Another person in this one's place: the stay ends with what it had, and the other's begins with nothing of it.
            if let Some(other) = other
                && let Some(next) = self.tracker.split(track)
            {
                self.visits.insert(std::mem::replace(&mut track, next), std::mem::replace(&mut visit, other));
            }
            let has_news = visit.take_news() && visit.is_open();
            let before = if has_news { self.continued_by(&visit, settings, stack.matching()) } else { None };
            if let Some(before) = before {
                visit.settle();
                seen.continued.push(Continued { track, before });
            } else if has_news && visit.has_evidence() {
                let observation = visit.observe(&frame.camera, track, snapshot, timings, false);
                best = observation.candidates.first().map(|c| c.score);
                seen.observations.push(observation);
            }
        }
        self.visits.insert(track, visit);
        seen.faces.push(SeenFace { track, detection, liveness, best });
        Ok(())
    }

    /// Takes leave of the tracks that the tracker has given up.
    fn end_lost(
        &mut self,
        seen: &mut Seen,
        camera: &CameraId,
        snapshot: Option<&Snapshot>,
        settings: &Settings,
        timings: &Timings,
    ) {
        for track in self.tracker.ended() {
            let Some(visit) = self.visits.remove(&track) else { continue };
            self.recent.extend(visit.recent(track));
            finish(seen, (camera, track), visit, snapshot, settings, timings);
        }
    }

    /// The track of the decided visit whose face `visit` shows, when that was out of sight a moment ago, its track ended or not. Two
    /// faces of one frame are never one person.
    fn continued_by(&self, visit: &Visit, settings: &Settings, matching: Score) -> Option<TrackId> {
        let goes_on = |recent: &Recent| recent.continues(visit, settings, matching);
        let ended = self.recent.iter().rev().find(|recent| goes_on(recent)).map(|recent| recent.track);
        ended.or_else(|| {
            let is_unseen = |other: &Visit| !other.is_open() && other.last_seen() < visit.first_seen();
            let unseen = self.visits.iter().filter(|(_, other)| is_unseen(other));
            let mut unseen = unseen.filter_map(|(track, other)| other.recent(*track));
            unseen.find(goes_on).map(|recent| recent.track)
        })
    }

    /// Whether somebody stands there who is not decided, or may be about to.
    fn has_undecided(&self) -> bool {
        self.visits.values().any(Visit::is_open) || self.tracker.unconfirmed() > 0
    }

    /// Whether the detector looks at this frame: always while somebody is undecided, at the idle pace otherwise, and not at all while
    /// nothing moves before an empty view.
    fn is_due(&self, settings: &Settings, at: Moment, moving: bool) -> bool {
        if self.has_undecided() {
            return true;
        }
        let pace = Duration::from_millis(settings.idle_interval_ms);
        let paced = self.last_look.is_none_or(|last| at.monotonic.since(last.monotonic) >= pace);
        paced && (moving || !self.visits.is_empty())
    }
}

/// Judges one face of a visit and keeps what it is worth. Gives this frame's liveness score, and the visit of another person where the
/// faces have become another's.
fn gather(
    visit: &mut Visit,
    frame: &Frame,
    (detection, in_view): (&Detection, u32),
    stack: &mut impl Stages,
    settings: &Settings,
    timings: &Timings,
) -> Result<(Option<PadScore>, Option<Visit>), PipelineError> {
    let picture = &frame.picture;
    let (face, quality) = match timings.time(Stage::Align, || stack.gate(picture, detection, settings)) {
        Gated::Unknowable => return Ok((None, None)),
        Gated::Refused(refusals) => {
            visit.refuse(&refusals);
            return Ok((None, None));
        }
        Gated::Usable(face, quality) => (face, quality),
    };
    // A camera that hangs upside down shows everybody so, and such faces are like each other, whoever they are.
    if visit.wants_stance() {
        let is_turned = timings.time(Stage::Align, || stack.is_turned(picture, detection))?;
        if !visit.stands_upright(is_turned) {
            visit.refuse(&[Refusal::NotUpright]);
            return Ok((None, None));
        }
    }
    if !visit.wants_look(quality, settings) {
        visit.pass_over(frame.captured_at);
        return Ok((None, None));
    }
    let described = stack.describe(picture, detection, &face, timings)?;
    let Some((liveness, embedding)) = described else { return Ok((None, None)) };
    let usable = Face { at: frame.captured_at, quality, liveness, embedding, points: detection.landmarks, in_view };
    match visit.take(usable, settings, stack.matching()) {
        Taken::Counted | Taken::Doubted => Ok((liveness, None)),
        Taken::AnotherPerson(other) => Ok((liveness, Some(*other))),
    }
}

/// How many faces of a frame are at least half as tall as this one and as sure as the detector asks, this one among them.
fn beside(face: &Detection, all: &[Detection], sure: f32) -> u32 {
    let is_near = |other: &&Detection| other.confidence >= sure && 2.0 * other.bounding_box.height >= face.bounding_box.height;
    u32::try_from(all.iter().filter(is_near).count()).unwrap_or(u32::MAX).max(1)
}

/// A track is over: it leaves its last observation, or an attempt.
fn finish(
    seen: &mut Seen,
    (camera, track): (&CameraId, TrackId),
    mut visit: Visit,
    snapshot: Option<&Snapshot>,
    settings: &Settings,
    timings: &Timings,
) {
    seen.ended.push((track, visit.bounding_box()));
    if !visit.is_open() {
        return;
    }
    if visit.has_evidence() && visit.usable() >= settings.least_frames {
        seen.observations.push(visit.observe(camera, track, snapshot, timings, true));
    } else {
        seen.attempts.push(visit.attempt(camera, track));
    }
}
