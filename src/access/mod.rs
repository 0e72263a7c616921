//! Decides. Observations and time go in, decisions come out: no I/O, no clock, no thread, so that every rule can be tested by its
//! history. A grant is built in one place ([`Decider::grant`]), from a live, matched, fresh observation; nothing that failed can reach it.

pub mod grant;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{
    CameraId, Candidate, Decision, DeviceId, DoorId, Evidence, Moment, Observation, Outcome, PadScore, PersonId, Reason, Score,
    TrackId,
};
use grant::{Claims, GrantKey};

/// The most tracks whose decision is remembered; older ones have long ended.
const REMEMBERED_TRACKS: usize = 4096;

/// One door and the cameras that watch its approach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DoorSettings {
    /// The door's id: the audience of its grants.
    pub id: DoorId,
    /// The cameras whose decisions are about this door.
    pub cameras: Vec<CameraId>,
}

/// What becomes of a face that two people's references resemble too closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ambiguous {
    /// Denied.
    #[default]
    Deny,
    /// Left to a person.
    Review,
}

/// How evidence becomes a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Usable frames of a track before it can be granted (1 to 100).
    pub min_frames: u32,
    /// How long after its first usable face a track may still gather better evidence before it is denied, in milliseconds (0 to 10000).
    pub patience_ms: u64,
    /// Evidence older than this when it is decided is stale and denied, in milliseconds (50 to 60000).
    pub max_age_ms: u64,
    /// A grant's lifetime in seconds (1 to 60).
    pub grant_lifetime_s: u64,
    /// Whether a grant needs liveness. Turning it off lets a photo open the door.
    pub require_liveness: bool,
    /// What becomes of ambiguous faces: `deny` or `review`.
    pub ambiguous: Ambiguous,
    /// The least comparison score of a match; without it the model's own from the manifest.
    pub match_threshold: Option<Score>,
    /// How far the best person must be ahead of the second; without it the pack's own.
    pub margin: Option<f32>,
    /// The least liveness score, fused over a track; without it the pack's own.
    pub liveness_threshold: Option<PadScore>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_frames: 3,
            patience_ms: 1500,
            max_age_ms: 1000,
            grant_lifetime_s: 5,
            require_liveness: true,
            ambiguous: Ambiguous::Deny,
            match_threshold: None,
            margin: None,
            liveness_threshold: None,
        }
    }
}

impl Settings {
    /// Values out of range, each with its key and the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut range = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                findings.push((key.to_owned(), format!("{value} is out of range: use {low} to {high}")));
            }
        };
        range("min-frames", u64::from(self.min_frames), 1, 100);
        range("patience-ms", self.patience_ms, 0, 10_000);
        range("max-age-ms", self.max_age_ms, 50, 60_000);
        range("grant-lifetime-s", self.grant_lifetime_s, 1, 60);
        if let Some(margin) = self.margin.filter(|m| !(0.0..=1.0).contains(m)) {
            findings.push(("margin".into(), format!("{margin} is out of range: use 0.0 to 1.0")));
        }
        findings
    }
}

/// The thresholds in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The least comparison score of a match.
    pub matching: Score,
    /// How far the best person must be ahead of the second.
    pub margin: f32,
    /// The least liveness score.
    pub liveness: PadScore,
}

impl Thresholds {
    /// The pack's thresholds with the config's in their place where it names one.
    pub fn with(self, settings: &Settings) -> Self {
        Self {
            matching: settings.match_threshold.unwrap_or(self.matching),
            margin: settings.margin.unwrap_or(self.margin),
            liveness: settings.liveness_threshold.unwrap_or(self.liveness),
        }
    }
}

/// What one observation amounts to, before patience and age are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Match(PersonId),
    Refused(Reason, Option<PersonId>),
}

/// Turns observations into decisions: at most one for each track and door.
pub struct Decider {
    device: DeviceId,
    settings: Settings,
    thresholds: Thresholds,
    doors: HashMap<CameraId, Vec<DoorId>>,
    key: GrantKey,
    decided: HashSet<(CameraId, TrackId)>,
    /// The same tracks, the longest decided first.
    in_order: VecDeque<(CameraId, TrackId)>,
}

impl Decider {
    /// A decider for these doors. Cameras that watch no door decide nothing.
    pub fn new(device: DeviceId, settings: Settings, thresholds: Thresholds, doors: &[DoorSettings], key: GrantKey) -> Self {
        let mut by_camera: HashMap<CameraId, Vec<DoorId>> = HashMap::new();
        for door in doors {
            for camera in &door.cameras {
                by_camera.entry(camera.clone()).or_default().push(door.id.clone());
            }
        }
        let thresholds = thresholds.with(&settings);
        Self { device, settings, thresholds, doors: by_camera, key, decided: HashSet::new(), in_order: VecDeque::new() }
    }

    /// Takes an observation and gives a decision for each door of its camera, or none while the track should gather more evidence or
    /// is decided already. `grant_id` gives a fresh single-use id for every grant.
    pub fn decide(&mut self, observation: &Observation, now: Moment, grant_id: &mut dyn FnMut() -> String) -> Vec<Decision> {
        let track = (observation.camera.clone(), observation.track);
        let Some(doors) = self.doors.get(&observation.camera).cloned() else { return Vec::new() };
        if self.decided.contains(&track) {
            return Vec::new();
        }
        let verdict = self.verdict(observation);
        if !self.is_ripe(&verdict, observation) {
            return Vec::new();
        }
        while self.in_order.len() >= REMEMBERED_TRACKS {
            if let Some(oldest) = self.in_order.pop_front() {
                self.decided.remove(&oldest);
            }
        }
        self.in_order.push_back(track.clone());
        self.decided.insert(track);
        let max_age = Duration::from_millis(self.settings.max_age_ms);
        let is_fresh = now.monotonic.since(observation.captured_at.monotonic) <= max_age;
        let decisions = doors.into_iter().map(|door| match &verdict {
            Verdict::Match(person) if is_fresh => self.grant(observation, door, person.clone(), now, grant_id()),
            Verdict::Match(person) => self.refuse(observation, door, Reason::Stale, Some(person.clone()), now),
            Verdict::Refused(reason, person) => self.refuse(observation, door, *reason, person.clone(), now),
        });
        decisions.collect()
    }

    /// Whether this track is decided.
    pub fn is_decided(&self, camera: &CameraId, track: TrackId) -> bool {
        self.decided.contains(&(camera.clone(), track))
    }

    /// A match needs its frames; a refusal waits until nothing better can come, since the first faces of an approach are the worst.
    fn is_ripe(&self, verdict: &Verdict, observation: &Observation) -> bool {
        let age = observation.captured_at.monotonic.since(observation.first_usable_at.monotonic);
        let is_patient = age < Duration::from_millis(self.settings.patience_ms) && !observation.ended;
        match verdict {
            Verdict::Match(_) => observation.frames >= self.settings.min_frames,
            Verdict::Refused(..) => !is_patient,
        }
    }

    fn verdict(&self, observation: &Observation) -> Verdict {
        if !observation.gallery {
            return Verdict::Refused(Reason::GalleryUnavailable, None);
        }
        if self.settings.require_liveness {
            match observation.liveness {
                None => return Verdict::Refused(Reason::LivenessUncertain, None),
                Some(score) if score < self.thresholds.liveness => return Verdict::Refused(Reason::Spoof, None),
                Some(_) => {}
            }
        }
        let mut candidates = observation.candidates.iter().filter(|c| c.score >= self.thresholds.matching);
        let Some(best) = candidates.next() else { return Verdict::Refused(Reason::Unknown, None) };
        if self.is_ambiguous(best, &observation.candidates) {
            return Verdict::Refused(Reason::Ambiguous, None);
        }
        if observation.expires_at.is_some_and(|expiry| observation.captured_at.wall >= expiry) {
            return Verdict::Refused(Reason::ExpiredPerson, Some(best.person.clone()));
        }
        // A track that ended before it had its frames was never seen well enough to be let in.
        if observation.ended && observation.frames < self.settings.min_frames {
            return Verdict::Refused(Reason::LivenessUncertain, None);
        }
        Verdict::Match(best.person.clone())
    }

    fn is_ambiguous(&self, best: &Candidate, candidates: &[Candidate]) -> bool {
        let rival =
            candidates.iter().filter(|c| c.person != best.person).map(|c| c.score.value()).fold(f32::NEG_INFINITY, f32::max);
        best.score.value() - rival < self.thresholds.margin
    }

    /// The only place where a grant is made.
    fn grant(&self, observation: &Observation, door: DoorId, person: PersonId, now: Moment, jti: String) -> Decision {
        let issued = now.wall.unix_seconds();
        let lifetime = i64::try_from(self.settings.grant_lifetime_s).unwrap_or(1);
        let claims = Claims {
            iss: self.device.clone(),
            aud: door.clone(),
            sub: person.clone(),
            iat: issued,
            nbf: issued,
            exp: issued + lifetime,
            jti,
        };
        let grant = Some(self.key.sign(&claims));
        Decision { grant, ..self.decision(observation, door, (Outcome::Granted, Reason::Match), Some(person), now) }
    }

    fn refuse(&self, observation: &Observation, door: DoorId, reason: Reason, person: Option<PersonId>, now: Moment) -> Decision {
        let outcome = match (reason, self.settings.ambiguous) {
            (Reason::Ambiguous, Ambiguous::Review) => Outcome::Review,
            _ => Outcome::Denied,
        };
        self.decision(observation, door, (outcome, reason), person, now)
    }

    fn decision(
        &self,
        observation: &Observation,
        door: DoorId,
        (outcome, reason): (Outcome, Reason),
        person: Option<PersonId>,
        now: Moment,
    ) -> Decision {
        Decision {
            outcome,
            reason,
            door,
            camera: observation.camera.clone(),
            track: observation.track,
            person,
            evidence: self.evidence(observation),
            captured_at: observation.captured_at,
            decided_at: now,
            grant: None,
        }
    }

    fn evidence(&self, observation: &Observation) -> Evidence {
        let best = observation.candidates.first().map(|c| c.score.value() - self.thresholds.matching.value());
        let match_band = match best {
            None => "none",
            Some(ahead) if ahead < -0.1 => "weak",
            Some(ahead) if ahead < 0.0 => "near",
            Some(ahead) if ahead < 0.2 => "good",
            Some(_) => "strong",
        };
        let liveness_band = match observation.liveness {
            None => "none",
            Some(score) if score < self.thresholds.liveness => "low",
            Some(score) if score.value() < f32::midpoint(self.thresholds.liveness.value(), 1.0) => "uncertain",
            Some(_) => "high",
        };
        let quality_band = match observation.quality {
            q if q < 0.4 => "low",
            q if q < 0.7 => "medium",
            _ => "high",
        };
        Evidence { frames: observation.frames, quality_band, match_band, liveness_band }
    }
}

#[cfg(test)]
mod tests;
