//! What each worker does between its start and its stop: cameras fill slots, vision empties them, the decider decides, the publisher is
//! told. Every queue is bounded, and what happens when it is full is written where it is filled.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::access_state::AccessState;
use super::api::Asks;
use super::blocks::{BlockedDoors, Blocks};
use super::clock_watch::ClockWatch;
use super::desk::{self, DoorLines, Reloads};
use super::enrol::Enrolments;
use super::events;
use super::guards;
use super::match_rates::{self, MatchRateLines, MatchRates};
use super::reports::{Report, Reporter};
use super::snapshots::Snapshots;
use super::standing::Standing;
use super::supervisor::{Heartbeat, WorkerContext, WorkerError};
use crate::access::{Basis, Command, Decider, Input, SiteThreshold};
use crate::capture::{self, CameraEvent, CameraSettings, CameraState, Slot, Slots, Taken};
use crate::gallery::{Gallery, IndexReport, IndexVerdict};
use crate::pipeline::{Continued, Pipeline, Seen};
use crate::publish::{Audit, DoorAccess, Event, Publisher};
use crate::system::metrics::{Counter, Histogram};
use crate::system::{clock, messages};
use crate::types::{
    CameraId, Decision, DoorId, Frame, Mark, Moment, Monotonic, Observation, Outcome, PersonId, Presence, Reason, TrackId,
};

/// How long a worker waits for work before it beats and looks for stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// A worker that fails on this many frames in a row will not recover by itself.
const MOST_FAILURES: u32 = 30;
/// How often failures that block no door are written down.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What the workers count, for `stats` and for the demo's summary.
#[derive(Default)]
pub struct Counts {
    /// Frames that vision took.
    pub frames: Counter,
    /// Frames that the detector looked at.
    pub looked: Counter,
    /// Reports that the decider had no room for.
    pub reports_lost: Counter,
    /// Frames that a stage failed on.
    pub failures: Counter,
    /// When vision last judged a frame, or took one for an enrolment.
    pub last_frame: Heartbeat,
    /// Decisions by outcome and reason.
    by_reason: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Attempts without a decision, by reason.
    attempts_by_reason: Mutex<BTreeMap<&'static str, u64>>,
    /// Which doors are blocked.
    pub blocked: BlockedDoors,
    /// How the doors are.
    pub doors: DoorLines,
    /// How many strangers each camera's doors would let in.
    pub match_rates: MatchRateLines,
    /// How the cameras are.
    cameras: Mutex<BTreeMap<CameraId, CameraLine>>,
    /// Decisions, granted.
    pub granted: Counter,
    /// Decisions, not granted.
    pub refused: Counter,
    /// From a frame's capture to the end of its stages.
    pub frame_age: Histogram,
    /// From a track's first usable face to its grant.
    pub grant_time: Histogram,
    /// From a track's first usable face to a decision that opens nothing: these wait for better evidence.
    pub refusal_time: Histogram,
}

impl Counts {
    /// Decisions by outcome and reason, as they are written.
    pub fn decisions(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.by_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attempts that ended without a decision, by reason.
    pub fn attempts(&self) -> BTreeMap<&'static str, u64> {
        self.attempts_by_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How each camera that was heard of is.
    pub(super) fn cameras(&self) -> BTreeMap<CameraId, CameraLine> {
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_camera(&self, event: &CameraEvent) {
        let mut cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        let line = cameras.entry(event.camera.clone()).or_default();
        line.is_online = event.state == CameraState::Online;
        line.connects += u64::from(line.is_online);
    }

    fn count_attempt(&self, reason: &'static str) {
        *self.attempts_by_reason.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    fn count(&self, decision: &Decision) {
        self.doors.count(decision);
        let key = (decision.outcome.as_str(), decision.reason.as_str());
        *self.by_reason.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}

/// How a camera is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CameraLine {
    pub(super) is_online: bool,
    pub(super) connects: u64,
}

/// Who is told of each change of a camera, besides the publisher.
pub type CameraWatcher = Arc<dyn Fn(&CameraEvent) + Send + Sync>;

/// Runs one camera. An error is told as `offline` by the room itself; the supervisor tries again.
pub(super) fn camera(
    context: &WorkerContext,
    settings: &CameraSettings,
    secrets: &Path,
    slot: &Slot<Frame>,
    publisher: &Publisher,
    counts: &Counts,
    watcher: Option<&CameraWatcher>,
) -> Result<(), WorkerError> {
    let tell = |event: CameraEvent| {
        match event.state {
            CameraState::Online | CameraState::Ended => {
                log::info!(MESSAGE_ID = messages::CAMERA_CHANGED, camera = event.camera.as_str(), state = event.state.as_str(); "{}", event.reason);
            }
            _ => {
                log::warn!(MESSAGE_ID = messages::CAMERA_CHANGED, camera = event.camera.as_str(), state = event.state.as_str(); "{}", event.reason)
            }
        }
        counts.note_camera(&event);
        if let Some(watcher) = watcher {
            watcher(&event);
        }
        publisher.publish(events::camera(&event));
    };
    capture::run(settings, secrets, slot, &tell, context.stop()).map_err(Into::into)
}

/// What a frame looked like to vision, for whoever draws it.
pub type FrameWatcher = Arc<dyn Fn(&Frame, &Seen) + Send + Sync>;

/// Takes frames through the pipeline until it is told to stop or, in a demo, until every camera has ended.
pub(super) struct Vision {
    pub(super) pipeline: Pipeline,
    pub(super) slots: Slots<Frame>,
    pub(super) reports: Reporter,
    pub(super) decided: Receiver<(CameraId, TrackId)>,
    pub(super) counts: Arc<Counts>,
    pub(super) watcher: Option<FrameWatcher>,
    pub(super) cameras: Vec<CameraId>,
    pub(super) asks: Asks,
    pub(super) enrolments: Enrolments,
    pub(super) snapshots: Snapshots,
    pub(super) failures: u32,
    /// When each camera's last frame was taken.
    pub(super) heard: HashMap<CameraId, Monotonic>,
}

impl Vision {
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        let mut ended = false;
        while !context.stop().is_asked() {
            context.beat();
            while let Ok((camera, track)) = self.decided.try_recv() {
                self.pipeline.settle(&camera, track);
            }
            self.reports.tell_what_is_owed();
            self.asks.serve(&mut self.pipeline);
            self.enrolments.look_after(clock::monotonic());
            self.leave_silent_cameras(clock::monotonic());
            match self.slots.take_any(self.asks.patience(PATIENCE)) {
                Taken::Item(_, frame) => {
                    ended = false;
                    self.take(&frame)?;
                }
                Taken::TimedOut => {}
                Taken::Closed if !ended => {
                    ended = true;
                    for camera in self.cameras.clone() {
                        let seen = self.pipeline.end_of_stream(&camera);
                        self.report(&camera, None, seen);
                    }
                }
                Taken::Closed => {
                    context.stop().sleep(PATIENCE);
                }
            }
        }
        Ok(())
    }

    /// A camera that is gone brings no frame in which nobody stands: whoever stood before it is told to be gone.
    fn leave_silent_cameras(&mut self, now: Monotonic) {
        let pipeline = &self.pipeline;
        let is_abandoned = |(camera, at): &(&CameraId, &Monotonic)| pipeline.is_abandoned(camera, now.since(**at));
        let silent: Vec<CameraId> = self.heard.iter().filter(is_abandoned).map(|(camera, _)| camera.clone()).collect();
        for camera in silent {
            let seen = self.pipeline.end_of_stream(&camera);
            self.report(&camera, None, seen);
        }
    }

    fn take(&mut self, frame: &Frame) -> Result<(), WorkerError> {
        self.counts.frames.increment();
        self.heard.insert(frame.camera.clone(), clock::monotonic());
        // While somebody is enrolled at a camera, it decides nothing.
        if self.enrolments.take(&mut self.pipeline, frame) {
            self.counts.last_frame.beat();
            return Ok(());
        }
        match self.pipeline.process(frame) {
            Ok(seen) => {
                self.failures = 0;
                self.counts.last_frame.beat();
                if seen.looked {
                    self.counts.looked.increment();
                    self.counts.frame_age.record(clock::monotonic().since(frame.captured_at.monotonic));
                }
                if let Some(watcher) = &self.watcher {
                    watcher(frame, &seen);
                }
                self.report(&frame.camera, Some(frame), seen);
                Ok(())
            }
            Err(error) => {
                self.counts.failures.increment();
                self.failures += 1;
                log::error!(camera = frame.camera.as_str(), frame = frame.number; "a frame could not be judged: {error}");
                if self.failures >= MOST_FAILURES { Err(error.into()) } else { Ok(()) }
            }
        }
    }

    fn report(&mut self, camera: &CameraId, frame: Option<&Frame>, seen: Seen) {
        let sighting = seen.sighting.map(Report::Seen);
        let standing = seen.presence.map(|faces| Report::Standing(camera.clone(), faces));
        let (now, snapshots) = (clock::monotonic(), &self.snapshots);
        let observed = seen.observations.into_iter().map(|observation| {
            let portrait = frame.and_then(|frame| snapshots.portrait(frame, &observation, now));
            Report::Observed(observation, portrait)
        });
        let missed = seen.attempts.into_iter().map(Report::Missed);
        let continued = seen.continued.into_iter().map(|continued| Report::GoesOn(camera.clone(), continued));
        let ended = seen.ended.into_iter().map(|(track, area)| Report::Ended(camera.clone(), track, area));
        for report in sighting.into_iter().chain(observed).chain(missed).chain(ended).chain(standing).chain(continued) {
            if !self.reports.tell(report) {
                self.counts.reports_lost.increment();
            }
        }
    }
}

/// Who is told of each decision, besides the publisher.
pub type DecisionWatcher = Arc<dyn Fn(&Decision) + Send + Sync>;

/// Turns reports into decisions and events: the decider's one owner.
pub(super) struct Decisions {
    pub(super) decider: Decider,
    pub(super) state: AccessState,
    pub(super) clock: ClockWatch,
    /// Whether an operator has accepted a lost memory for this run.
    pub(super) accepts_loss: bool,
    pub(super) reports: Receiver<Report>,
    pub(super) decided: SyncSender<(CameraId, TrackId)>,
    pub(super) publisher: Publisher,
    pub(super) audit: Arc<Audit>,
    pub(super) gallery: Arc<Gallery>,
    pub(super) grant_lifetime: Duration,
    pub(super) counts: Arc<Counts>,
    pub(super) watcher: Option<DecisionWatcher>,
    pub(super) standing: HashMap<CameraId, Standing>,
    pub(super) snapshots: Snapshots,
    pub(super) blocks: Blocks,
    pub(super) rates: MatchRates,
    /// When the state was written down last.
    pub(super) saved_at: Option<Monotonic>,
    /// The threshold of a match by the number of people enrolled.
    pub(super) site: SiteThreshold,
    /// For how many people the threshold in force is.
    pub(super) sized_for: Option<usize>,
    pub(super) reloads: Reloads,
    /// What was told last of each door.
    pub(super) doors_told: HashMap<DoorId, DoorAccess>,
}

impl Decisions {
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        self.size_threshold();
        loop {
            context.beat();
            match self.reports.recv_timeout(PATIENCE) {
                Ok(report) => self.hear(report),
                Err(RecvTimeoutError::Timeout) if !context.stop().is_asked() => {
                    if self.state.has_unsaved_use() {
                        self.keep_state(clock::now());
                    }
                }
                Err(_) => {
                    self.clock.keep();
                    self.saved_at = None;
                    self.keep_state(clock::now());
                    self.rates.keep(&self.gallery, clock::now(), true);
                    return Ok(());
                }
            }
            // Also while nobody stands there: a clock that is set back must have been seen before.
            self.clock.look();
            self.look_after_challenges();
            let now = clock::now();
            for news in self.blocks.news(self.decider.blocks(now), &self.counts.blocked, now) {
                self.publisher.publish(news);
            }
            for news in self.rates.look(&mut self.decider, &self.counts.match_rates, now) {
                match_rates::tell(news, &self.audit, &self.publisher);
            }
            self.rates.keep(&self.gallery, now, false);
            self.look_after_doors(now);
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Observed(observation, portrait) => self.decide(&observation, portrait.as_ref().map(|jpeg| jpeg.as_slice())),
            Report::Missed(attempt) => {
                let reason = attempt.refusal.map_or("too-short", |refusal| refusal.as_str());
                let says = attempt.refusal.map_or("the face was not there for long enough", |refusal| refusal.sentence());
                self.counts.count_attempt(reason);
                log::info!(camera = attempt.camera.as_str(), track = attempt.track.0, reason = reason; "no decision: {says}");
                self.publisher.publish(events::attempt(attempt));
            }
            Report::Seen(sighting) => self.tell(Input::Sighting(sighting), clock::now()),
            Report::Presented(read) => self.tell(Input::Credential(read), clock::now()),
            Report::Passed(passage, issued) => {
                self.state.use_passage(&passage.door, issued);
                self.tell(Input::Passage(passage), clock::now());
            }
            Report::Used(issued, answer) => {
                // Written down with what the command changes, or when nothing else is to be done: a second write would keep it waiting.
                self.state.use_command(issued);
                let _ = answer.try_send(());
            }
            Report::Vouched(told, answer) => {
                if let Some(told) = told {
                    self.compare_memory(told);
                }
                // After the comparison: what it locks down is locked before anything may be granted.
                self.tell(Input::Vouched, clock::now());
                let _ = answer.try_send(());
            }
            Report::HadTold(answer) => {
                let _ = answer.try_send(self.state.had_told());
            }
            Report::Tells(answer) => {
                let said = self.state.save_to_say(&self.decider.state(clock::now()));
                let said = said.inspect_err(|error| log::error!("{}: {error}", self.state.path().display()));
                let _ = answer.try_send(said.ok());
            }
            Report::Ordered(orders, answer) => {
                // Who waited too long does not hear it; the orders hold all the same.
                let _ = answer.try_send(self.obey(orders, clock::now()));
            }
            Report::Desk(order, operator, answer) => {
                let _ = answer.try_send(self.desk(order, &operator, clock::now()));
            }
            Report::Standing(camera, faces) => {
                self.standing.entry(camera.clone()).or_default().faces = faces;
                self.tell_presence(&camera);
            }
            Report::GoesOn(camera, Continued { track, before }) => {
                if self.standing.entry(camera.clone()).or_default().goes_on(track, before) {
                    self.tell_presence(&camera);
                }
            }
            Report::Ended(camera, track, area) => {
                self.tell(Input::TrackEnded(camera.clone(), track, area), clock::now());
                if self.standing.entry(camera.clone()).or_default().ended(track) {
                    self.tell_presence(&camera);
                }
            }
        }
    }

    /// The broker was told more by this device than the memory that was taken up has ever told: it is an older one, put back together
    /// with its second place.
    fn compare_memory(&mut self, told: u64) {
        if self.state.hear(told) {
            let why = "it is older than what this device last told the broker, and may be a restored copy";
            guards::tell_loss(&self.state, why, self.accepts_loss, &self.publisher, &self.audit);
            if !self.accepts_loss {
                self.decider.lock_down_for_loss();
                self.keep_state(clock::now());
            }
        }
        // Not to be heard of again after the next start, and nothing lower is told.
        if let Err(error) = self.state.save(&self.decider.state(clock::now())) {
            log::error!("{}: {error}", self.state.path().display());
        }
    }

    /// Whoever is added or removed changes what a threshold is worth.
    fn size_threshold(&mut self) {
        let people = self.gallery.snapshot().stats().people;
        if self.sized_for == Some(people) {
            return;
        }
        let (matching, basis) = self.site.at(people);
        self.decider.set_matching(matching);
        self.rates.follow(&mut self.decider, &self.counts.match_rates);
        let was_beyond = self.sized_for.is_some_and(|before| self.site.at(before).1 == Basis::Beyond);
        self.sized_for = Some(people);
        let worth = self.site.worth(people);
        if basis == Basis::Beyond && !was_beyond {
            log::warn!(people = people; "match threshold {:.3}: {worth}", matching.value());
        } else {
            log::info!(people = people; "match threshold {:.3}: {worth}", matching.value());
        }
    }

    fn decide(&mut self, observation: &Observation, portrait: Option<&[u8]>) {
        let now = clock::now();
        let clock = self.clock.look();
        self.tell(Input::Clock(clock), now);
        self.size_threshold();
        let decisions = self.decider.decide(observation, now, &mut desk::grant_id);
        self.rates.hear(observation, &decisions, &self.decider, now);
        self.keep_state(now);
        let of_this_approach = self.decider.take_recognised();
        let granted = decisions.iter().filter(|decision| decision.outcome == Outcome::Granted);
        let recognised: Vec<PersonId> = granted.filter_map(|decision| decision.person.clone()).chain(of_this_approach).collect();
        for person in recognised.into_iter().filter(|_| !observation.ended) {
            if self.standing.entry(observation.camera.clone()).or_default().recognised(observation.track, person) {
                self.tell_presence(&observation.camera);
            }
        }
        for decision in decisions {
            let took = decision.decided_at.monotonic.since(observation.first_usable_at.monotonic);
            let is_granted = decision.outcome == Outcome::Granted;
            if is_granted {
                self.counts.grant_time.record(took)
            } else {
                self.counts.refusal_time.record(took)
            }
            let snapshot =
                portrait.and_then(|jpeg| self.snapshots.event(&decision, jpeg, now.monotonic, observation.captured_at.wall));
            self.conclude(decision);
            if let Some(snapshot) = snapshot {
                self.publisher.publish(snapshot);
            }
        }
        self.settle(&observation.camera, observation.track);
    }

    /// Asks people at doors what they are to do, and denies whoever did not.
    fn look_after_challenges(&mut self) {
        for prompt in self.decider.take_prompts() {
            log::info!(door = prompt.door.as_str(), camera = prompt.camera.as_str(), track = prompt.track.0; "asked to turn the head");
            self.publisher.publish(Event::Prompt(prompt));
        }
        let now = clock::now();
        let overdue = self.decider.overdue(now);
        self.keep_state(now);
        for decision in overdue {
            let (camera, track) = (decision.camera.clone(), decision.track);
            self.conclude(decision);
            if let Some(camera) = camera {
                self.settle(&camera, track);
            }
        }
    }

    /// Vision makes no more effort for a track that is decided.
    fn settle(&self, camera: &CameraId, track: TrackId) {
        if self.decider.is_decided(camera, track) {
            // Vision drains this queue before each frame; should it be full, the track only costs effort for a while longer.
            let _ = self.decided.try_send((camera.clone(), track));
        }
    }

    /// Tells everybody of a decision.
    pub(super) fn conclude(&mut self, decision: Decision) {
        self.counts.count(&decision);
        if decision.outcome == Outcome::Granted {
            self.counts.granted.increment()
        } else {
            self.counts.refused.increment()
        }
        log::info!(
            MESSAGE_ID = messages::DECIDED, door = decision.door.as_str(), camera = decision.camera.as_ref().map_or("-", CameraId::as_str), track = decision.track.0,
            outcome = decision.outcome.as_str(), reason = decision.reason.as_str(),
            person = decision.person.as_ref().map_or("-", PersonId::as_str), frames = decision.evidence.frames;
            "decided"
        );
        if let Some(watcher) = &self.watcher {
            watcher(&decision);
        }
        if decision.reason == Reason::Spoof {
            self.publisher.publish(events::spoof(&decision));
        }
        for mark in &decision.marks {
            match mark {
                Mark::Duress => drop(self.publisher.publish(events::duress(&decision))),
                Mark::Attack => drop(self.publisher.publish(events::spoof(&decision))),
                Mark::Passback => log::warn!(door = decision.door.as_str(); "let through twice in the same direction"),
            }
        }
        let name = decision.person.as_ref().and_then(|id| self.gallery.snapshot().person(id).and_then(|p| p.name.clone()));
        let expires_at = decision.decided_at.plus(self.grant_lifetime);
        let detail = events::audited(&decision);
        if !self.publisher.publish(events::decision(decision, name, expires_at)) {
            log::error!(MESSAGE_ID = messages::DECISION_LOST; "the outbox is full: a decision was not published");
        }
        // After the publishing: the outbox has it on disk already, and nobody at the door waits for the trail.
        let head = self.audit.append("decision", detail, clock::wall());
        self.publisher.publish(Event::AuditHead(head));
    }

    fn tell(&mut self, input: Input, now: Moment) {
        if let Err(error) = self.decider.take(input, now) {
            log::warn!("{error}");
        }
        self.keep_state(now);
    }

    /// All orders, in order; the first that cannot be followed ends it.
    fn obey(&mut self, orders: Vec<Command>, now: Moment) -> Result<(), String> {
        let obeyed = self.decider.obey_all(orders, now).map_err(|error| error.to_string());
        let kept = self.keep_state(now);
        obeyed?;
        if kept { Ok(()) } else { Err("it is in force, but could not be written down: a restart would forget it".to_owned()) }
    }

    /// Before anything that depends on it is published. Whether everything is written down: failures that block no door yet are once a
    /// second, or whoever makes them wears the flash and keeps the decider from its work.
    pub(super) fn keep_state(&mut self, now: Moment) -> bool {
        let is_due = self.saved_at.is_none_or(|at| now.monotonic.since(at) >= SAVE_EVERY);
        let must = self.decider.take_changed() | self.state.has_unsaved_use();
        if must || is_due && self.decider.has_charged() {
            self.saved_at = Some(now.monotonic);
            self.decider.forget_charged();
        } else {
            return true;
        }
        if let Err(error) = self.state.save(&self.decider.state(now)) {
            log::error!("{}: {error}; a restart would forget blocks, lock-downs and who is where", self.state.path().display());
            return false;
        }
        true
    }

    fn tell_presence(&self, camera: &CameraId) {
        if let Some(standing) = self.standing.get(camera) {
            let (faces, people) = (standing.faces, standing.people());
            self.publisher.publish(events::presence(Presence { camera: camera.clone(), faces, people }));
        }
    }
}
/// What an index build did, in a line for the log.
pub(super) fn index_line(report: &IndexReport) -> String {
    let served = match report.verdict {
        IndexVerdict::Exact => "exact, as configured",
        IndexVerdict::ExactIsFast => "exact, which is fast enough",
        IndexVerdict::ExactIsBest => "exact: what else was tried missed people or was no faster",
        IndexVerdict::Hnsw => "hnsw",
        IndexVerdict::Stopped => "as before, stopped",
    };
    let tried = report.trials.iter().map(|trial| {
        format!("; {:?}: recall {:.4}, {:.0} us, built in {:.1} s", trial.index, trial.recall, trial.us, trial.build_seconds)
    });
    let tried: String = tried.collect();
    format!("{served} ({} templates, {} loops, exact {:.0} us{tried})", report.templates, report.kernel, report.exact_us)
}
