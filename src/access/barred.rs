//! What a block makes of a verdict. A blocked door takes a clear match alone, with more frames than otherwise, and tells nobody else why;
//! a face that failed a moment ago is not tried before its wait is over; a number that was read while the reader is blocked counts beside
//! the clear face of its owner alone. It can only take something away: what comes out is the verdict, a later one, or a refusal.

use super::policy::DoorMode;
use super::state::{Ms, ms};
use super::tried::Taken;
use super::verdict::{Awaits, Verdict};
use super::{Decider, Waiting};
use crate::types::{Candidate, DoorId, Moment, Observation, PersonId, Reason, Score};

impl Decider {
    /// What the verdict on a face comes to at this door now.
    pub(super) fn barred(&self, verdict: Verdict, observation: &Observation, door: &DoorId, now: Moment) -> Verdict {
        if self.rules.throttle.failures == 0 {
            return verdict;
        }
        let at = ms(now.monotonic);
        let is_blocked = self.throttle.is_blocked(door, at);
        let (person, is_match) = match &verdict {
            Verdict::Match { person, .. } => (person, true),
            Verdict::Refused { reason: Reason::Lockdown | Reason::Throttled, .. } => return verdict,
            Verdict::Refused { person: Some(person), .. } => (person, false),
            Verdict::Refused { reason, weight, awaits, .. } if is_blocked => {
                return Verdict::Hidden { reason: *reason, weight: *weight, awaits: *awaits };
            }
            Verdict::Refused { .. } | Verdict::Hidden { .. } | Verdict::Held => return verdict,
        };
        let Some(candidate) = observation.candidates.iter().find(|candidate| candidate.person == *person) else { return verdict };
        // Whoever was let through on this approach is neither let through nor refused again.
        if self.is_same_approach(door, person, now) {
            return verdict;
        }
        let is_clear = self.is_clear(candidate, observation, door);
        let first = ms(observation.first_usable_at.monotonic);
        let matching = self.thresholds_at(&observation.camera, door).matching;
        let taken = Taken { person, score: candidate.score, is_clear, probe: observation.probe.as_ref(), matching };
        let asks_for_number = is_match && self.rules.door(door).mode == DoorMode::TwoFactor;
        let waiting = self.waiting_at(door, now).filter(|waiting| asks_for_number && waiting.in_block);
        if self.tried.is_waiting(door, &taken, (first, at))
            || waiting.is_some_and(|waiting| self.is_guess(door, person, waiting, at))
        {
            return hidden(Reason::Throttled, 0);
        }
        if !is_blocked && waiting.is_none() {
            return verdict;
        }
        match () {
            () if !is_clear => hidden(Reason::Unknown, 1),
            () if self.has_more_frames(observation, door, person) => verdict,
            () if observation.ended => hidden(Reason::Throttled, 0),
            () => Verdict::Held,
        }
    }

    /// Whether a face is as much like somebody as a blocked door asks for: further ahead of the threshold, but never further than half of
    /// the way to certainty.
    fn is_clear(&self, candidate: &Candidate, observation: &Observation, door: &DoorId) -> bool {
        let matching = self.thresholds_at(&observation.camera, door).matching.value();
        let least = (matching + self.rules.throttle.blocked_lead).min(f32::midpoint(matching, Score::MAX.value()));
        candidate.score.value() >= least
    }

    /// Whether as many samples show the person, alive, as a blocked door asks for.
    fn has_more_frames(&self, observation: &Observation, door: &DoorId, person: &PersonId) -> bool {
        let least = self.rules.throttle.blocked_frames;
        let shown = self.shown(observation, door, person);
        let liveness = self.thresholds_at(&observation.camera, door).liveness;
        shown.count() >= least && (!self.settings.require_liveness || shown.live(liveness) >= least)
    }

    /// Whether a number that was read while the reader is blocked came too soon after others that were wrong.
    fn is_guess(&self, door: &DoorId, person: &PersonId, waiting: &Waiting, now: Ms) -> bool {
        waiting.wrong >= self.rules.throttle.failures || self.tried.is_number_waiting(door, person, (waiting.at, now))
    }
}

fn hidden(reason: Reason, weight: u32) -> Verdict {
    Verdict::Hidden { reason, weight, awaits: Awaits::BetterFaces }
}
