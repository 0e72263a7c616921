//! What an observation amounts to at one door, before its age and its company are looked at. The order of the rules is the order in which
//! they refuse: while a door is locked down or blocked, nothing is told about the face, so that nobody learns from trying.

use std::time::Duration;

use super::passback::Standing;
use super::policy::DoorMode;
use super::state::ms;
use super::witness::Testimony;
use super::{Decider, Thresholds, Vouching, Waiting};
use crate::types::{Candidate, DoorId, Evidence, Factor, Mark, Moment, Observation, PersonId, Reason};

/// How long somebody stands at a door before being told that the broker is not heard: it is, most often, within a second or two.
const UNVOUCHED_PATIENCE: Duration = Duration::from_secs(5);

/// What an observation amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every rule lets this person through.
    Match { person: PersonId, factors: Vec<Factor>, marks: Vec<Mark> },
    /// A rule does not.
    Refused {
        reason: Reason,
        /// Who, where the reason is about that person.
        person: Option<PersonId>,
        /// What it counts as a failure.
        weight: u32,
        /// Whether a credential may still come.
        awaits_credential: bool,
    },
}

impl Verdict {
    pub(super) fn refused(reason: Reason, weight: u32) -> Self {
        Verdict::Refused { reason, person: None, weight, awaits_credential: false }
    }

    fn person(reason: Reason, person: &PersonId) -> Self {
        Verdict::Refused { reason, person: Some(person.clone()), weight: 0, awaits_credential: false }
    }
}

impl Decider {
    /// A match needs its frames; a refusal waits until nothing better can come, since the first faces of an approach are the worst.
    pub(super) fn is_ripe(&self, verdict: &Verdict, observation: &Observation, door: &DoorId) -> bool {
        let age = observation.captured_at.monotonic.since(observation.first_usable_at.monotonic);
        let patience = Duration::from_millis(self.settings.patience_ms);
        match verdict {
            Verdict::Match { .. } => self.has_its_frames(observation, door),
            Verdict::Refused { reason: Reason::Challenge, .. } => true,
            Verdict::Refused { reason: Reason::BrokerSilent, .. } => observation.ended || age >= patience.max(UNVOUCHED_PATIENCE),
            Verdict::Refused { awaits_credential: true, .. } => {
                observation.ended || age >= patience.max(self.rules.door(door).factor_window)
            }
            Verdict::Refused { .. } => observation.ended || age >= patience,
        }
    }

    pub(super) fn verdict(&self, observation: &Observation, door: &DoorId, now: Moment) -> Verdict {
        self.judge(observation, door, now).unwrap_or_else(|refused| refused)
    }

    fn judge(&self, observation: &Observation, door: &DoorId, now: Moment) -> Result<Verdict, Verdict> {
        self.is_open_for_tries(observation, door, now)?;
        let rule = self.rules.door(door);
        let thresholds = rule.thresholds(self.thresholds);
        self.is_live(observation, thresholds)?;
        self.is_witnessed(observation, door)?;
        let waiting = (rule.mode == DoorMode::TwoFactor).then(|| self.waiting_at(door, now));
        let candidate = match waiting {
            None => identify(observation, thresholds)?,
            Some(waiting) => verify(observation, thresholds, waiting)?,
        };
        // A track that ended before it had its frames was never seen well enough to be let in.
        if observation.ended && !self.has_its_frames(observation, door) {
            return Err(Verdict::refused(Reason::LivenessUncertain, 0));
        }
        let person = &candidate.person;
        // A candidate of whom the gallery says nothing is nobody whom a rule could let through.
        let profile = observation.profiles.get(person).ok_or_else(|| Verdict::refused(Reason::Unknown, 0))?;
        self.rules.permit(door, person, profile, now.wall, self.clock).map_err(|reason| Verdict::person(reason, person))?;
        let waiting = waiting.flatten();
        let mut marks = Vec::new();
        if self.rules.is_duress_person(person) || waiting.is_some_and(|waiting| waiting.duress) {
            marks.push(Mark::Duress);
        }
        if rule.mode != DoorMode::Free {
            match self.passback.standing(door, person, ms(now.monotonic)) {
                Standing::Fine => {}
                Standing::Told => marks.push(Mark::Passback),
                Standing::Broken => return Err(Verdict::person(Reason::Passback, person)),
            }
        }
        // Last: whoever is refused anyway is refused for what it is, and counts as ever.
        if !self.is_vouched_for(observation, now) {
            return Err(Verdict::person(Reason::BrokerSilent, person));
        }
        let factors = std::iter::once(Factor::Face).chain(waiting.map(|waiting| waiting.kind)).collect();
        Ok(Verdict::Match { person: person.clone(), factors, marks })
    }

    /// Whether nobody has to say first that gallery and memory are the newest, or has.
    fn is_vouched_for(&self, observation: &Observation, now: Moment) -> bool {
        match self.vouching {
            Vouching::NotAsked => true,
            Vouching::Awaited(until) => ms(now.monotonic) < until,
            Vouching::Since(heard) => ms(observation.captured_at.monotonic) > heard,
        }
    }

    /// Whether the door takes any face at all now.
    fn is_open_for_tries(&self, observation: &Observation, door: &DoorId, now: Moment) -> Result<(), Verdict> {
        if self.lockdown.holds(door) || self.rules.door(door).mode == DoorMode::LockedDown {
            return Err(Verdict::refused(Reason::Lockdown, 0));
        }
        let first = ms(observation.first_usable_at.monotonic);
        if self.throttle.is_blocked(door, ms(now.monotonic))
            || self.places.is_hot(&observation.camera, observation.track, &observation.bounding_box, first)
        {
            return Err(Verdict::refused(Reason::Throttled, 0));
        }
        if !observation.gallery {
            return Err(Verdict::refused(Reason::GalleryUnavailable, 0));
        }
        Ok(())
    }

    fn is_live(&self, observation: &Observation, thresholds: Thresholds) -> Result<(), Verdict> {
        match observation.liveness {
            _ if observation.is_flat && self.settings.deny_flat => {
                Err(Verdict::refused(Reason::Spoof, self.rules.throttle.spoof_weight))
            }
            _ if !self.settings.require_liveness => Ok(()),
            None => Err(Verdict::refused(Reason::LivenessUncertain, 0)),
            Some(score) if score < thresholds.liveness => Err(Verdict::refused(Reason::Spoof, self.rules.throttle.spoof_weight)),
            Some(_) => Ok(()),
        }
    }

    /// Whether the door's second camera sees the same face. It can only take a grant away: that it sees nobody is an attack, that it
    /// says nothing is nobody's fault and opens nothing.
    fn is_witnessed(&self, observation: &Observation, door: &DoorId) -> Result<(), Verdict> {
        let Some(settings) = self.liveness.get(door).and_then(|liveness| liveness.witness.as_ref()) else { return Ok(()) };
        match self.witnesses.testimony(settings, observation) {
            Testimony::Agrees => Ok(()),
            Testimony::Disagrees => Err(Verdict::refused(Reason::Spoof, self.rules.throttle.spoof_weight)),
            Testimony::Silent => Err(Verdict::refused(Reason::Witness, 0)),
        }
    }

    pub(super) fn has_its_frames(&self, observation: &Observation, door: &DoorId) -> bool {
        let needed = self.rules.door(door).min_frames.unwrap_or(self.settings.min_frames);
        let is_judged = !self.settings.require_liveness || observation.liveness_frames >= self.settings.min_liveness_frames;
        observation.frames >= needed && is_judged
    }

    /// The credential that was read at the door a moment ago.
    fn waiting_at(&self, door: &DoorId, now: Moment) -> Option<&Waiting> {
        let window = i64::try_from(self.rules.door(door).factor_window.as_millis()).unwrap_or(0);
        self.waiting.get(door).filter(|waiting| ms(now.monotonic).saturating_sub(waiting.at) <= window)
    }

    /// What may be told of the evidence.
    pub(super) fn evidence(&self, observation: &Observation, door: &DoorId) -> Evidence {
        let thresholds = self.rules.door(door).thresholds(self.thresholds);
        let best = observation.candidates.first().map(|c| c.score.value() - thresholds.matching.value());
        let match_band = match best {
            None => "none",
            Some(ahead) if ahead < -0.1 => "weak",
            Some(ahead) if ahead < 0.0 => "near",
            Some(ahead) if ahead < 0.2 => "good",
            Some(_) => "strong",
        };
        let liveness_band = match observation.liveness {
            None => "none",
            Some(score) if score < thresholds.liveness => "low",
            Some(score) if score.value() < f32::midpoint(thresholds.liveness.value(), 1.0) => "uncertain",
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

/// Who it is, by the face alone.
fn identify(observation: &Observation, thresholds: Thresholds) -> Result<&Candidate, Verdict> {
    let mut candidates = observation.candidates.iter().filter(|c| c.score >= thresholds.matching);
    let best = candidates.next().ok_or_else(|| Verdict::refused(Reason::Unknown, 1))?;
    if is_behind(best, -thresholds.margin, observation) { Err(Verdict::refused(Reason::Ambiguous, 1)) } else { Ok(best) }
}

/// Whether it is the credential's person, one to one. Somebody else who is clearly more alike makes it that other person, whatever the
/// card says; how close a second comes does not matter, because the card says who is meant.
fn verify<'a>(observation: &'a Observation, thresholds: Thresholds, waiting: Option<&Waiting>) -> Result<&'a Candidate, Verdict> {
    let Some(waiting) = waiting else {
        let is_somebody = observation.candidates.iter().any(|c| c.score >= thresholds.matching);
        return Err(match is_somebody {
            true => Verdict::Refused { reason: Reason::SecondFactor, person: None, weight: 0, awaits_credential: true },
            false => Verdict::refused(Reason::Unknown, 1),
        });
    };
    let claimed = observation.candidates.iter().find(|c| c.person == waiting.person && c.score >= thresholds.matching);
    let claimed = claimed.filter(|claimed| !is_behind(claimed, thresholds.margin, observation));
    claimed.ok_or_else(|| Verdict::refused(Reason::SecondFactor, 1))
}

/// Whether somebody else is ahead of `candidate` by more than `by`; a negative number asks for a lead.
fn is_behind(candidate: &Candidate, by: f32, observation: &Observation) -> bool {
    let others = observation.candidates.iter().filter(|other| other.person != candidate.person);
    let rival = others.map(|other| other.score.value()).fold(f32::NEG_INFINITY, f32::max);
    rival - candidate.score.value() > by
}
