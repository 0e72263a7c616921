//! The challenge: a face that everything else would let in is asked to turn to one of two sides, drawn at random, and is let in only when it
//! does so in time. A photo that is turned shows its nose where it was: the angle is read from the nose against the eyes, which no
//! movement of a flat picture changes much. The challenge can only take a grant away: it is asked of what the rules let through already,
//! and the rules are asked again at the moment of the grant.

use std::time::Duration;

use super::verdict::Verdict;
use super::{ChallengeKind, Decider};
use crate::types::{Decision, DoorId, Moment, Observation, PersonId, Prompt, Reason, Side};

/// What was captured in time may be judged a little later.
const GRACE: Duration = Duration::from_millis(500);
/// The most challenges at one time; a further face waits for its turn until it gives up.
const MAX_PENDING: usize = 256;
/// What a challenge that is failed counts as a failure: whoever walks off when the side is the wrong one has tried, too.
const WEIGHT: u32 = 1;

/// A challenge that is not met yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    prompt: Prompt,
    person: PersonId,
    /// Where the face looked when it was asked, in degrees.
    from: f32,
    /// The newest evidence, for the decision when the time runs out.
    seen: Observation,
}

/// What a frame shows of the turn.
enum Turn {
    Done,
    NotYet,
    WrongSide,
}

impl Pending {
    fn turn(&self, yaw: Option<f32>, degrees: u32) -> Turn {
        let Some(yaw) = yaw else { return Turn::NotYet };
        // A person's left is on the image's right, to which the angle grows.
        let turned = match self.prompt.side {
            Side::Left => yaw - self.from,
            Side::Right => self.from - yaw,
        };
        #[expect(clippy::cast_precision_loss, reason = "degrees are few")]
        let degrees = degrees as f32;
        match () {
            () if turned >= degrees => Turn::Done,
            () if turned <= -degrees => Turn::WrongSide,
            () => Turn::NotYet,
        }
    }
}

impl Decider {
    /// What a verdict becomes at a door with a challenge; none while its answer is waited for.
    pub(super) fn challenge(&mut self, observation: &Observation, door: &DoorId, verdict: Verdict, now: Moment) -> Option<Verdict> {
        let settings = self.liveness.get(door).filter(|settings| settings.challenge == ChallengeKind::Turn);
        let Some(settings) = settings else { return Some(verdict) };
        let key = (observation.camera.clone(), observation.track, door.clone());
        let (person, captured_at) = match &verdict {
            Verdict::Match { person, captured_at, .. } => (person, *captured_at),
            // Whoever is asked and shows too much of the side of the face for a moment is waited for, as long as the time lasts.
            Verdict::Refused { reason: Reason::Stale, .. } if self.pending.contains_key(&key) && !observation.ended => return None,
            Verdict::Refused { .. } | Verdict::Hidden { .. } | Verdict::Held => return Some(verdict),
        };
        if !self.is_fresh(captured_at, now) || self.is_same_approach(door, person, now) {
            return Some(verdict);
        }
        let (degrees, patience) = (settings.turn_degrees, Duration::from_millis(settings.challenge_timeout_ms));
        // Where the head points is read from the person's own newest face alone: nobody turns the head in another's place.
        let yaw = self.shown(observation, door, person).newest().and_then(|sample| sample.yaw);
        let Some(pending) = self.pending.get_mut(&key) else {
            let person = person.clone();
            return self.pose(observation, door, (person, yaw), now, patience);
        };
        let failed = Some(Verdict::refused(Reason::Challenge, WEIGHT));
        if pending.person != *person || captured_at.monotonic > pending.prompt.until.monotonic {
            return failed;
        }
        pending.seen = observation.clone();
        // What was on its way when the person was asked is no answer.
        let is_answer = captured_at.monotonic > pending.prompt.asked_at.monotonic;
        let turn = if is_answer { pending.turn(yaw, degrees) } else { Turn::NotYet };
        match turn {
            Turn::Done => Some(verdict),
            Turn::WrongSide => failed,
            Turn::NotYet if observation.ended => failed,
            Turn::NotYet => None,
        }
    }

    fn pose(
        &mut self,
        observation: &Observation,
        door: &DoorId,
        (person, yaw): (PersonId, Option<f32>),
        now: Moment,
        patience: Duration,
    ) -> Option<Verdict> {
        // Of somebody who is gone, or whose points say nothing, nothing can be asked; without chance an attacker knows the side.
        let unasked = Some(Verdict::refused(Reason::Challenge, 0));
        let (Some(from), false) = (yaw.filter(|yaw| yaw.is_finite()), observation.ended) else { return unasked };
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        let Some(side) = self.sides.as_mut().and_then(|sides| sides()) else { return unasked };
        let (camera, track) = (observation.camera.clone(), observation.track);
        let until = now.plus(patience);
        let prompt = Prompt { door: door.clone(), camera: camera.clone(), track, side, asked_at: now, until };
        self.prompts.push(prompt.clone());
        self.pending.insert((camera, track, door.clone()), Pending { prompt, person, from, seen: observation.clone() });
        None
    }

    /// What is to be asked of people at doors since this was last called.
    pub fn take_prompts(&mut self) -> Vec<Prompt> {
        std::mem::take(&mut self.prompts)
    }

    /// Denies everybody whose time to turn the head has run out. To be asked often: whoever walks off is told of by nothing else.
    pub fn overdue(&mut self, now: Moment) -> Vec<Decision> {
        let is_late = |pending: &Pending| now.monotonic > pending.prompt.until.monotonic.plus(GRACE);
        let mut late: Vec<_> = self.pending.iter().filter(|(_, pending)| is_late(pending)).map(|(key, _)| key.clone()).collect();
        late.sort();
        let mut decisions = Vec::new();
        for key in late {
            let Some(pending) = self.pending.remove(&key) else { continue };
            let (camera, track, door) = key;
            self.remember(&(camera, track), &door);
            self.charge(&door, WEIGHT, now);
            self.remember_picture(&door, pending.person, now);
            decisions.push(self.refuse(&pending.seen, door, Reason::Challenge, None, now));
        }
        decisions
    }
}
