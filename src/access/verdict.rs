//! What an observation amounts to at one door, before its age and its company are looked at. The order of the rules is the order in which
//! they refuse: while a door is locked down or blocked, nothing is told about a face that it refuses, so that nobody learns from trying.

use std::time::Duration;

use super::passback::Standing;
use super::policy::DoorMode;
use super::shown::{By, Shown};
use super::state::{Ms, ms};
use super::witness::Testimony;
use super::{Decider, Thresholds, Vouching, Waiting};
use crate::types::{Candidate, DoorId, Evidence, Factor, Mark, Moment, Observation, PersonId, Reason};

/// How long somebody stands at a door before being told that the broker is not heard: it is, most often, within a second or two.
const UNVOUCHED_PATIENCE: Duration = Duration::from_secs(5);

/// What an observation amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every rule lets this person through, by samples that each match the person; the newest was captured then.
    Match { person: PersonId, factors: Vec<Factor>, marks: Vec<Mark>, captured_at: Moment },
    /// A rule does not.
    Refused {
        reason: Reason,
        /// Who, where the reason is about that person.
        person: Option<PersonId>,
        /// What it counts as a failure.
        weight: u32,
        /// What may still come.
        awaits: Awaits,
    },
    /// A block refuses, and tells nobody what it hides.
    Hidden {
        reason: Reason,
        /// What it counts as a failure.
        weight: u32,
        /// What may still come.
        awaits: Awaits,
    },
    /// A blocked door asks for more frames: nothing yet.
    Held,
}

/// What a refusal may still wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Better faces, as long as the patience lasts.
    BetterFaces,
    /// As many frames as any decision needs: a slow camera takes longer than the patience.
    Frames,
    /// A card or a number.
    Credential,
}

impl Verdict {
    pub(super) fn refused(reason: Reason, weight: u32) -> Self {
        Verdict::Refused { reason, person: None, weight, awaits: Awaits::BetterFaces }
    }

    fn person(reason: Reason, person: &PersonId) -> Self {
        Verdict::Refused { reason, person: Some(person.clone()), weight: 0, awaits: Awaits::BetterFaces }
    }
}

impl Decider {
    /// A match has its frames; a refusal waits until nothing better can come, since the first faces of an approach are the worst.
    pub(super) fn is_ripe(&self, verdict: &Verdict, observation: &Observation, door: &DoorId) -> bool {
        let age = observation.captured_at.monotonic.since(observation.first_usable_at.monotonic);
        let patience = Duration::from_millis(self.settings.patience_ms);
        match verdict {
            Verdict::Match { .. } | Verdict::Refused { reason: Reason::Challenge, .. } => true,
            Verdict::Refused { reason: Reason::BrokerSilent, .. } => observation.ended || age >= patience.max(UNVOUCHED_PATIENCE),
            Verdict::Refused { awaits: Awaits::Frames, .. } | Verdict::Hidden { awaits: Awaits::Frames, .. } | Verdict::Held => {
                observation.ended
            }
            Verdict::Refused { awaits: Awaits::Credential, .. } | Verdict::Hidden { awaits: Awaits::Credential, .. } => {
                observation.ended || age >= patience.max(self.rules.door(door).factor_window)
            }
            Verdict::Refused { awaits: Awaits::BetterFaces, .. } | Verdict::Hidden { awaits: Awaits::BetterFaces, .. } => {
                observation.ended || age >= patience
            }
        }
    }

    pub(super) fn verdict(&self, observation: &Observation, door: &DoorId, now: Moment) -> Verdict {
        let verdict = self.judge(observation, door, now).unwrap_or_else(|refused| refused);
        self.barred(verdict, observation, door, now)
    }

    fn judge(&self, observation: &Observation, door: &DoorId, now: Moment) -> Result<Verdict, Verdict> {
        self.is_open_for_tries(observation, door)?;
        let rule = self.rules.door(door);
        let thresholds = self.thresholds_at(&observation.camera, door);
        self.is_live(observation, thresholds)?;
        self.is_witnessed(observation, door)?;
        let waiting = (rule.mode == DoorMode::TwoFactor).then(|| self.waiting_at(door, now));
        let candidate = match waiting {
            None => identify(observation, thresholds)?,
            Some(waiting) => verify(observation, thresholds, waiting)?,
        };
        let person = &candidate.person;
        let shown = self.shown(observation, door, person);
        self.is_shown(observation, door, &shown)?;
        // A candidate of whom the gallery says nothing, or no longer, is nobody whom a rule could let through.
        let known = observation.profiles.get(person).and_then(|told| self.profile(person, Some(told)));
        let profile = known.ok_or_else(|| Verdict::refused(Reason::Unknown, 0))?;
        self.rules.permit(door, person, &profile, now.wall, self.clock).map_err(|reason| Verdict::person(reason, person))?;
        let waiting = waiting.flatten();
        let mut marks = Vec::new();
        if self.rules.is_duress_person(person) || self.is_under_duress(door, person, now) {
            marks.push(Mark::Duress);
        }
        if rule.mode != DoorMode::Free {
            match self.passback.standing(door, person, ms(now.monotonic)) {
                Standing::Fine => {}
                Standing::Told => marks.push(Mark::Passback),
                Standing::Broken => return Err(Verdict::person(Reason::Passback, person)),
            }
        }
        let newest = shown.captured_at().unwrap_or(observation.captured_at);
        if self.is_fresh(observation.captured_at, now) && !self.is_fresh(newest, now) {
            let awaits = if rule.mode == DoorMode::TwoFactor { Awaits::Credential } else { Awaits::BetterFaces };
            return Err(Verdict::Refused { reason: Reason::Stale, person: Some(person.clone()), weight: 0, awaits });
        }
        // Last: whoever is refused anyway is refused for what it is, and counts as ever.
        if self.is_demo_pack && !self.settings.accept_demo_pack {
            return Err(Verdict::person(Reason::DemoPack, person));
        }
        if !self.is_vouched_for(newest, now) {
            return Err(Verdict::person(Reason::BrokerSilent, person));
        }
        let factors = std::iter::once(Factor::Face).chain(waiting.map(|waiting| waiting.kind)).collect();
        Ok(Verdict::Match { person: person.clone(), factors, marks, captured_at: newest })
    }

    /// Whether nobody has to say first that gallery and memory are the newest, or has, before the evidence of the person was captured.
    fn is_vouched_for(&self, newest: Moment, now: Moment) -> bool {
        match self.vouching {
            Vouching::NotAsked => true,
            Vouching::Awaited(until) => ms(now.monotonic) < until,
            Vouching::Since(heard) => ms(newest.monotonic) > heard,
        }
    }

    /// Whether the door takes any face at all here. What a block lets pass is asked of the verdict ([`Decider::barred`]).
    fn is_open_for_tries(&self, observation: &Observation, door: &DoorId) -> Result<(), Verdict> {
        if self.lockdown.holds(door) || self.rules.door(door).mode == DoorMode::LockedDown {
            return Err(Verdict::refused(Reason::Lockdown, 0));
        }
        let first = ms(observation.first_usable_at.monotonic);
        if self.places.is_hot(&observation.camera, observation.track, &observation.bounding_box, first) {
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
        self.hears(self.witnesses.testimony(settings, observation, None))
    }

    fn hears(&self, testimony: Testimony) -> Result<(), Verdict> {
        match testimony {
            Testimony::Agrees => Ok(()),
            Testimony::Disagrees => Err(Verdict::refused(Reason::Spoof, self.rules.throttle.spoof_weight)),
            Testimony::Silent => Err(Verdict::refused(Reason::Witness, 0)),
        }
    }

    /// The samples of a visit that show one person, by this door's threshold; at a door for one face, those without a second one in view.
    pub(super) fn shown<'a>(&self, observation: &'a Observation, door: &DoorId, person: &PersonId) -> Shown<'a> {
        let rule = self.rules.door(door);
        let Thresholds { matching, margin, .. } = self.thresholds_at(&observation.camera, door);
        let ahead = if rule.mode == DoorMode::TwoFactor { margin } else { 0.0 };
        let alone = self.liveness.get(door).is_some_and(|liveness| liveness.one_face);
        Shown::of(observation, person, By { matching, ahead, alone })
    }

    /// Whether the samples that show the person are enough by themselves: as many as a grant needs, with a living face on as many, and seen
    /// by the second camera where the door has one.
    fn is_shown(&self, observation: &Observation, door: &DoorId, shown: &Shown<'_>) -> Result<(), Verdict> {
        let rule = self.rules.door(door);
        let needed = rule.min_frames.unwrap_or(self.settings.min_frames);
        let judged = if self.settings.require_liveness { self.settings.min_liveness_frames } else { 0 };
        let least = self.thresholds_at(&observation.camera, door).liveness;
        // A visit that is too short for anybody was never seen well enough; a slow camera's goes on until it is long enough.
        if observation.frames < needed || observation.liveness_frames < judged {
            return Err(Verdict::Refused { reason: Reason::LivenessUncertain, person: None, weight: 0, awaits: Awaits::Frames });
        }
        if judged > 0 && shown.liveness().is_some_and(|score| score < least) {
            return Err(Verdict::refused(Reason::Spoof, self.rules.throttle.spoof_weight));
        }
        if shown.count() < needed {
            let settings = self.liveness.get(door).filter(|settings| settings.one_face);
            let is_crowded = settings.is_some() && observation.samples.iter().any(|sample| sample.faces_in_view > 1);
            return Err(if is_crowded { Verdict::refused(Reason::SeveralFaces, 0) } else { Verdict::refused(Reason::Unknown, 1) });
        }
        if shown.live(least) < judged {
            return Err(Verdict::refused(Reason::LivenessUncertain, 0));
        }
        match self.liveness.get(door).and_then(|liveness| liveness.witness.as_ref()) {
            Some(settings) => self.hears(self.witnesses.testimony(settings, observation, Some(shown))),
            None => Ok(()),
        }
    }

    /// The credential that was read at the door a moment ago.
    pub(super) fn waiting_at(&self, door: &DoorId, now: Moment) -> Option<&Waiting> {
        self.waiting.get(door).filter(|waiting| self.is_in_factor_window(door, waiting.at, now))
    }

    /// Whether that person's duress number was read at the door a moment ago. A card or another number that whoever forces the person
    /// has read after it takes its place as the second factor, and not the silent alarm.
    fn is_under_duress(&self, door: &DoorId, person: &PersonId, now: Moment) -> bool {
        self.duress.get(&(door.clone(), person.clone())).is_some_and(|at| self.is_in_factor_window(door, *at, now))
    }

    /// The same of whoever it is.
    pub(super) fn is_anybody_under_duress(&self, door: &DoorId, now: Moment) -> bool {
        self.duress.iter().any(|((read, _), at)| read == door && self.is_in_factor_window(door, *at, now))
    }

    fn is_in_factor_window(&self, door: &DoorId, at: Ms, now: Moment) -> bool {
        let window = i64::try_from(self.rules.door(door).factor_window.as_millis()).unwrap_or(0);
        ms(now.monotonic).saturating_sub(at) <= window
    }

    /// What may be told of the evidence; of a grant's, what the person's own samples say.
    pub(super) fn evidence(&self, observation: &Observation, door: &DoorId, granted: Option<&PersonId>) -> Evidence {
        let own = granted.map(|person| self.shown(observation, door, person));
        let frames = own.as_ref().map_or(observation.frames, Shown::count);
        let liveness = own.as_ref().map_or(observation.liveness, Shown::liveness);
        let thresholds = self.thresholds_at(&observation.camera, door);
        let match_band = Evidence::match_band(observation.candidates.first().map(|c| c.score), thresholds.matching);
        let liveness_band = Evidence::liveness_band(liveness, thresholds.liveness);
        let quality_band = match observation.quality {
            q if q < 0.4 => "low",
            q if q < 0.7 => "medium",
            _ => "high",
        };
        Evidence { frames, quality_band, match_band, liveness_band }
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
            true => Verdict::Refused { reason: Reason::SecondFactor, person: None, weight: 0, awaits: Awaits::Credential },
            false => Verdict::refused(Reason::Unknown, 1),
        });
    };
    let claimed =
        observation.candidates.iter().find(|c| Some(&c.person) == waiting.person.as_ref() && c.score >= thresholds.matching);
    let claimed = claimed.filter(|claimed| !is_behind(claimed, thresholds.margin, observation));
    claimed.ok_or_else(|| Verdict::refused(Reason::SecondFactor, 1))
}

/// Whether somebody else is ahead of `candidate` by more than `by`; a negative number asks for a lead.
fn is_behind(candidate: &Candidate, by: f32, observation: &Observation) -> bool {
    let others = observation.candidates.iter().filter(|other| other.person != candidate.person);
    let rival = others.map(|other| other.score.value()).fold(f32::NEG_INFINITY, f32::max);
    rival - candidate.score.value() > by
}
