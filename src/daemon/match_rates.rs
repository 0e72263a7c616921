//! The doors measure themselves: how many strangers in 10,000 would be let in before each camera, from the scores of those who were
//! refused there (`evaluation/tail.rs`); an alarm when that is above what the site bears, and, if the config says so, a higher threshold.
//!
//! **What counts as a stranger's visit.** One that was denied as unknown, by the highest threshold at which it would have matched somebody
//! ([`Decider::nearest_match`]). Not one that was denied for anything else (an attack, a face too small, somebody known who may not pass),
//! nor one behind a block, whose reason nobody is told. One face is counted once for all its tries within a minute, by the best of them
//! (`pending.rs`). A person enrolled who is refused on a bad frame looks like a stranger who comes very near, and makes the rate look worse than
//! it is: so a visit is dropped that is followed within 30 s at the same camera by a grant to that face or to whom it came nearest to. Who gives
//! up and goes away stays in it. A stranger who was let in cannot be told from whom they were taken for, and is in no count: the fit knows
//! that it sees refusals alone.
//!
//! **What is old fades**: beyond [`MOST_VISITS`] with each visit, so that a camera that becomes worse is noticed within some hundred visits however
//! long it was good; and by half in [`HALF_LIFE_DAYS`], so that a door where few come forgets last winter's light. A day is the finest time.
//!
//! **The alarm** rises when the rate is above the target with 85 % certainty, from [`ALARM_VISITS`] on, and is cleared when its median is
//! half the target or less: between the two nothing changes, so it does not flap. It outlives a restart without being raised again.
//!
//! **Tightening** asks for the lowest threshold at which the median meets the target. The interval's upper end would ask for far more
//! than the door needs at a few hundred visits, and refuse the people enrolled. It never asks for more than [`MOST_RAISED`] beyond what is configured:
//! whoever sends look-alikes to the door could otherwise shut it for everybody. It follows at once upwards; downwards only after
//! [`LOWER_DAYS`] on which less was enough, or when it is turned off in the config. What a raised threshold refuses does not count as a stranger's
//! score: it is most often somebody enrolled, and would drive it ever higher.

mod kept;
mod pending;
pub mod report;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::events;
use crate::access::Decider;
use crate::evaluation::tail::{Tail, TooFew};
use crate::gallery::Gallery;
use crate::publish::{Audit, MatchRate, MatchRateState, Publisher, StateKey};
use crate::system::messages;
use crate::types::{CameraId, Decision, ModelId, Moment, Monotonic, Observation, Outcome, PersonId, Reason, Score};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use kept::content;
use kept::{Camera, Kept, KeptFile, MOST_PEOPLE};
use pending::{Pending, Stranger};

/// The weight of all strangers' visits together, at most: enough that one in a thousand is no guess, few enough that two hundred bad ones
/// are a third of them.
const MOST_VISITS: f64 = 500.0;
/// The same of grants, which are far more and only say what a higher threshold would cost.
const MOST_GRANTS: f64 = 5000.0;
/// In so many days half of what was counted has faded: a season's light. One stranger a day is still enough to say something.
const HALF_LIFE_DAYS: f64 = 90.0;
/// From so many visits on an alarm is raised: with fewer, chance raised it at some good ones of the simulated doors.
const ALARM_VISITS: f64 = 150.0;
/// After so many new visits a camera's rate is worked out again, which takes some milliseconds.
const JUDGE_EVERY: u32 = 10;
/// How far tightening goes beyond the threshold configured: as far as another pack's would differ.
const MOST_RAISED: f32 = 0.1;
/// A threshold in force moves up by this at least: each step is told.
const RAISE_STEP: f32 = 0.005;
/// For so many days less must have been enough before the threshold goes down again.
const LOWER_DAYS: i64 = 7;
/// So close to the threshold is just above it, or just below: a tenth to a fifth of the distance between a person and a stranger.
const CLOSE: f32 = 0.04;
/// How often it is written down, but at the stop too. A power cut costs what came since.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// What the site wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    /// False grants per 10,000 strangers that it bears.
    pub(super) target: f64,
    /// Whether a camera above that asks more of a match by itself.
    pub(super) tightens: bool,
}

/// How each camera was when it was last worked out, for whoever asks.
#[derive(Default)]
pub struct MatchRateLines {
    lines: Mutex<Vec<MatchRate>>,
    /// How often a state or a threshold changed: `birth` is said again then.
    changes: AtomicU64,
}

impl MatchRateLines {
    /// Each camera that watches a door.
    pub(super) fn all(&self) -> Vec<MatchRate> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn set(&self, line: MatchRate) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |line: &MatchRate| (line.state, line.threshold.to_bits());
        match lines.iter_mut().find(|known| known.camera == line.camera) {
            Some(known) => {
                if key(known) != key(&line) {
                    self.changes.fetch_add(1, Ordering::Relaxed);
                }
                *known = line;
            }
            None => {
                self.changes.fetch_add(1, Ordering::Relaxed);
                lines.push(line);
            }
        }
    }
}

/// What has changed at a camera and is to be told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    /// The rate is above the target.
    Above(MatchRate),
    /// It no longer is.
    Cleared(MatchRate),
    /// The threshold in force is another one.
    Threshold(MatchRate),
}

/// The measure of every camera that watches a door.
pub(super) struct MatchRates {
    terms: Terms,
    kept: Kept,
    file: Option<KeptFile>,
    pending: HashMap<CameraId, Pending>,
    /// New visits since a camera was last worked out.
    unjudged: HashMap<CameraId, u32>,
    has_news: bool,
    saved_at: Option<Monotonic>,
}

impl MatchRates {
    /// Takes up what an earlier run kept in `folder`, asks of the decider what that had asked, and works every camera out.
    pub(super) fn open(
        (folder, key): (&Path, StateKey),
        model: ModelId,
        terms: Terms,
        (decider, cameras): (&mut Decider, &[CameraId]),
        (lines, now): (&MatchRateLines, Moment),
    ) -> Self {
        let file = KeptFile::new(folder, key, model);
        let mut rates = Self { kept: file.load(), file: Some(file), ..Self::new(terms) };
        rates.saved_at = Some(now.monotonic);
        rates.take_up(decider, cameras, lines, now);
        rates
    }

    fn new(terms: Terms) -> Self {
        let (pending, unjudged) = (HashMap::new(), HashMap::new());
        Self { terms, kept: Kept::default(), file: None, pending, unjudged, has_news: false, saved_at: None }
    }

    /// Cameras that are gone from the config are forgotten, and those that watch no door have none.
    fn take_up(&mut self, decider: &mut Decider, cameras: &[CameraId], lines: &MatchRateLines, now: Moment) {
        let configured: HashMap<&CameraId, Score> =
            cameras.iter().filter_map(|camera| Some((camera, decider.configured_matching(camera)?))).collect();
        self.kept.cameras.retain(|camera, _| configured.contains_key(camera));
        for (id, configured) in configured {
            self.kept.cameras.entry(id.clone()).or_insert_with(|| Camera::new(configured));
        }
        self.pass_days(now);
        self.follow(decider, lines);
    }

    /// Takes up the thresholds in force: they change as people are enrolled.
    pub(super) fn follow(&mut self, decider: &mut Decider, lines: &MatchRateLines) {
        for (id, camera) in &mut self.kept.cameras {
            let Some(configured) = decider.configured_matching(id) else { continue };
            let most = Score::saturating(configured.value() + MOST_RAISED);
            camera.configured = configured;
            camera.raised = camera.raised.filter(|raised| self.terms.tightens && *raised > configured && *raised <= most);
            decider.raise_matching(id, camera.raised);
            lines.set(self.terms.line(id, camera, &Tail::of(&camera.strangers, configured)));
        }
    }

    /// Takes in what was decided about an observation.
    pub(super) fn hear(&mut self, observation: &Observation, decisions: &[Decision], decider: &Decider, now: Moment) {
        let granted = decisions.iter().find(|decision| decision.outcome == Outcome::Granted);
        let unknown = || decisions.iter().find(|decision| decision.reason == Reason::Unknown);
        let Some(decision) = granted.or_else(unknown) else { return };
        let Some((nearest, score)) = decider.nearest_match(observation, &decision.door) else { return };
        let id = &observation.camera;
        let Some(camera) = self.kept.cameras.get_mut(id) else { return };
        self.has_news = true;
        let (matching, at) = (camera.configured, now.monotonic);
        let pending = self.pending.entry(id.clone()).or_default();
        if let Some(person) = decision.person.as_ref().filter(|_| granted.is_some()) {
            camera.grants.add(score, MOST_GRANTS);
            let in_force = camera.raised.unwrap_or(matching);
            let is_narrow = score.value() < in_force.value() + CLOSE;
            let theirs = pending.granted(person, observation.probe.as_ref(), matching, at);
            let refused = theirs.iter().filter(|visit| visit.nearest == *person && is_close(visit.score, in_force)).count();
            self.note_person(person, |near| {
                near.granted += 1.0;
                near.narrow += f64::from(u8::from(is_narrow));
                near.refused += refused as f64;
            });
            return;
        }
        let (probe, nearest) = (observation.probe.clone(), nearest.clone());
        let visit = Stranger { track: observation.track, probe, nearest, score, first: at, last: at };
        if let Some(visit) = pending.refused(visit, matching) {
            self.count(id, &visit);
        }
    }

    /// A stranger's visit is over.
    fn count(&mut self, id: &CameraId, visit: &Stranger) {
        let Some(camera) = self.kept.cameras.get_mut(id) else { return };
        camera.strangers.add(visit.score, MOST_VISITS);
        self.has_news = true;
        *self.unjudged.entry(id.clone()).or_default() += 1;
        if is_close(visit.score, camera.raised.unwrap_or(camera.configured)) {
            self.note_person(&visit.nearest, |near| near.strangers += 1.0);
        }
    }

    /// Whoever never comes close is not kept; when there are too many, who came close least often goes.
    fn note_person(&mut self, person: &PersonId, note: impl FnOnce(&mut kept::Near)) {
        let people = &mut self.kept.people;
        let mut near = people.get(person).copied().unwrap_or_default();
        note(&mut near);
        if near.misses() <= 0.0 {
            return;
        }
        if people.len() >= MOST_PEOPLE
            && !people.contains_key(person)
            && let Some(least) = people.iter().min_by(|a, b| a.1.misses().total_cmp(&b.1.misses())).map(|(id, _)| id.clone())
        {
            people.remove(&least);
        }
        people.insert(person.clone(), near);
    }

    /// What was counted fades with the days. A clock that goes back changes nothing, and one that was ahead only ends the fading for as
    /// long.
    fn pass_days(&mut self, now: Moment) {
        const DAY_S: i64 = 24 * 3600;
        let today = now.wall.unix_seconds().div_euclid(DAY_S);
        let before = self.kept.day;
        self.kept.day = before.max(today);
        // The first day of all: nothing is old.
        if before == 0 || today <= before {
            return;
        }
        let share = 0.5f64.powf((today - before) as f64 / HALF_LIFE_DAYS);
        for camera in self.kept.cameras.values_mut() {
            camera.strangers.fade(share);
            camera.grants.fade(share);
        }
        /// A fiftieth of a visit is nobody's habit.
        const FORGOTTEN: f64 = 0.02;
        self.kept.people.values_mut().for_each(|near| near.fade(share));
        self.kept.people.retain(|_, near| near.misses() > FORGOTTEN);
        self.unjudged.extend(self.kept.cameras.keys().map(|id| (id.clone(), JUDGE_EVERY)));
        self.has_news = true;
    }

    /// Counts who has not come back, works out the cameras that had enough new visits, and asks of the decider what follows.
    pub(super) fn look(&mut self, decider: &mut Decider, lines: &MatchRateLines, now: Moment) -> Vec<News> {
        self.pass_days(now);
        let settled: Vec<(CameraId, Stranger)> = self
            .pending
            .iter_mut()
            .flat_map(|(id, pending)| pending.settled(now.monotonic).into_iter().map(|visit| (id.clone(), visit)))
            .collect();
        settled.iter().for_each(|(id, visit)| self.count(id, visit));
        let mut news = Vec::new();
        // One camera a look: each takes some milliseconds, and people stand at the doors.
        let due = self.unjudged.iter().find(|(_, new)| **new >= JUDGE_EVERY).map(|(id, _)| id.clone());
        if let Some(id) = due {
            self.unjudged.remove(&id);
            if let Some(camera) = self.kept.cameras.get_mut(&id) {
                let tail = Tail::of(&camera.strangers, camera.configured);
                let (alarmed, raised) = (camera.alarmed, camera.raised);
                if let Ok(tail) = &tail {
                    self.terms.judge(camera, tail, self.kept.day);
                }
                decider.raise_matching(&id, camera.raised);
                let line = self.terms.line(&id, camera, &tail);
                lines.set(line.clone());
                match (alarmed, camera.alarmed) {
                    (false, true) => news.push(News::Above(line.clone())),
                    (true, false) => news.push(News::Cleared(line.clone())),
                    _ => {}
                }
                if raised != camera.raised {
                    news.push(News::Threshold(line));
                }
            }
        }
        news
    }

    /// Writes it down when it is time, or now.
    pub(super) fn keep(&mut self, gallery: &Gallery, now: Moment, at_once: bool) {
        if at_once {
            let left: Vec<_> = self.pending.iter_mut().map(|(id, pending)| (id.clone(), pending.take())).collect();
            left.iter().for_each(|(id, visits)| visits.iter().for_each(|visit| self.count(id, visit)));
        }
        let is_due = at_once || self.saved_at.is_none_or(|at| now.monotonic.since(at) >= SAVE_EVERY);
        let Some(file) = self.file.as_ref().filter(|_| self.has_news && is_due) else { return };
        // Who was removed from the gallery is not remembered here either.
        let snapshot = gallery.snapshot();
        self.kept.people.retain(|person, _| snapshot.person(person).is_some());
        self.saved_at = Some(now.monotonic);
        match file.save(&self.kept) {
            Ok(()) => self.has_news = false,
            Err(error) => log::error!(
                "what the doors know of their match rates could not be written down, a restart would forget it: {error}"
            ),
        }
    }
}

impl Terms {
    /// Whether the alarm holds, and what is asked of a match.
    fn judge(self, camera: &mut Camera, tail: &Tail, today: i64) {
        let (estimate, target) = (tail.rate_at(camera.configured), self.target / 1e4);
        if !camera.alarmed && tail.visits() >= ALARM_VISITS && estimate.least > target {
            camera.alarmed = true;
        } else if camera.alarmed && estimate.rate <= target / 2.0 {
            camera.alarmed = false;
        }
        if !self.tightens {
            camera.raised = None;
            return;
        }
        let most = Score::saturating(camera.configured.value() + MOST_RAISED);
        let needed = if camera.alarmed { tail.threshold_for(target, camera.configured, most) } else { camera.configured };
        let (in_force, needed_now) = (camera.raised.unwrap_or(camera.configured).value(), needed.value());
        if needed_now >= in_force + RAISE_STEP || (camera.raised.is_none() && needed_now > in_force) {
            (camera.raised, camera.lower_since) = (Some(needed), None);
        } else if needed_now > in_force - RAISE_STEP || camera.raised.is_none() {
            camera.lower_since = None;
        } else if today - *camera.lower_since.get_or_insert(today) >= LOWER_DAYS {
            camera.raised = Some(needed).filter(|needed| *needed > camera.configured);
            camera.lower_since = None;
        }
    }

    /// What is told of a camera.
    fn line(self, id: &CameraId, camera: &Camera, tail: &Result<Tail, TooFew>) -> MatchRate {
        let (configured, target) = (camera.configured.value(), self.target as f32);
        let in_force = camera.raised.unwrap_or(camera.configured);
        let tail = match tail {
            Err(TooFew { visits, missing }) => {
                let unknown = MatchRate::unknown(id.clone(), (*visits as u32, *missing), target, configured);
                return MatchRate { threshold: in_force.value(), ..unknown };
            }
            Ok(tail) => tail,
        };
        let estimate = tail.rate_at(in_force);
        let per_10000 = |rate: f64| Some((rate * 1e6).round() as f32 / 100.0);
        MatchRate {
            camera: id.clone(),
            state: match (camera.raised, camera.alarmed) {
                (Some(_), _) => MatchRateState::Tightened,
                (None, true) => MatchRateState::AboveTarget,
                (None, false) => MatchRateState::Fine,
            },
            visits: tail.visits().round() as u32,
            missing: None,
            per_10000: per_10000(estimate.rate),
            low: per_10000(estimate.interval.low),
            high: per_10000(estimate.interval.high),
            target,
            threshold: in_force.value(),
            configured_threshold: configured,
        }
    }
}

/// Just below.
fn is_close(score: Score, threshold: Score) -> bool {
    score < threshold && score.value() >= threshold.value() - CLOSE
}

/// Tells it in the log, the audit trail and, where it is one, as an alarm.
pub(super) fn tell(news: News, audit: &Audit, publisher: &Publisher) {
    let (word, line) = match &news {
        News::Above(line) => ("above-target", line),
        News::Cleared(line) => ("cleared", line),
        News::Threshold(line) => ("threshold", line),
    };
    let says = report::sentence(line);
    let camera = line.camera.as_str();
    match &news {
        News::Above(_) => {
            log::warn!(MESSAGE_ID = messages::MATCH_RATE, camera = camera; "{says}; {}", report::REMEDY);
            publisher.publish(events::match_rate(line.camera.clone(), format!("{says}; {}", report::REMEDY)));
        }
        News::Cleared(_) => log::info!(MESSAGE_ID = messages::MATCH_RATE, camera = camera; "no longer above the target: {says}"),
        News::Threshold(_) => {
            log::warn!(MESSAGE_ID = messages::MATCH_RATE, camera = camera, threshold = line.threshold; "a match needs {:.3} from now on, configured is {:.3}: {says}", line.threshold, line.configured_threshold);
        }
    }
    events::note(audit, publisher, "match-rate", json!({ "change": word, "rate": line }));
}

#[cfg(test)]
mod tests;
