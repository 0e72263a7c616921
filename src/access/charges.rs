//! What an attempt that failed costs, whom, and what is told of it.

use super::state::ms;
use super::throttle::{Failure, News};
use super::tried::Whose;
use super::{Credential, CredentialRead, Decider, InputError, Waiting};
use crate::types::{Decision, DoorId, Factor, Mark, Moment, Monotonic, Observation, Outcome, PersonId, Reason};

/// The blocks of one door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Which door.
    pub door: DoorId,
    /// Until when it takes clear matches alone, because faces failed; none while it is not blocked.
    pub faces: Option<Moment>,
    /// Until when its reader's numbers count beside the clear face of their owner alone, because numbers were nobody's.
    pub credentials: Option<Moment>,
}

impl Block {
    /// When the last of them ends; none while nothing is blocked.
    pub fn until(&self) -> Option<Moment> {
        self.faces.into_iter().chain(self.credentials).max_by_key(|moment| moment.monotonic)
    }
}

impl Decider {
    /// How every door is.
    pub fn blocks(&self, now: Moment) -> Vec<Block> {
        let at = ms(now.monotonic);
        let moment = |until: i64| {
            let until = u64::try_from(until).unwrap_or(0);
            let left = std::time::Duration::from_millis(until.saturating_sub(u64::try_from(at).unwrap_or(0)));
            Moment { monotonic: Monotonic(until.saturating_mul(1_000_000)), wall: now.wall.plus(left) }
        };
        let block = |door: &DoorId| Block {
            door: door.clone(),
            faces: self.throttle.blocked_until(door, at).map(moment),
            credentials: self.readers.blocked_until(door, at).map(moment),
        };
        self.doors.iter().map(block).collect()
    }

    /// A credential that was read waits for its face. While the reader is blocked nobody is told whether it is anybody's.
    pub(super) fn read(&mut self, read: CredentialRead, now: Moment) -> Result<(), InputError> {
        let CredentialRead { door, kind, credential, at } = read;
        if !self.doors.contains(&door) {
            return Err(InputError::UnknownDoor(door));
        }
        if kind == Factor::Face {
            return Err(InputError::NoCredential(door));
        }
        let in_block = self.readers.is_blocked(&door, ms(now.monotonic));
        let (person, duress) = match credential {
            Credential::Person(person) => (Some(person), false),
            Credential::Number(number) => match self.rules.holder(&number) {
                Some(holder) => (Some(holder.person.clone()), holder.duress),
                None if in_block => (None, false),
                None => {
                    let is_counted = self.readers.charge(&door, 1, ms(now.monotonic));
                    self.note_charge(is_counted, self.readers.is_blocked(&door, ms(now.monotonic)));
                    return Err(InputError::UnknownCredential(door));
                }
            },
        };
        let before = self.waiting_at(&door, now).map_or(0, |waiting| waiting.wrong);
        let wrong = if in_block { before.saturating_add(u32::from(person.is_none())) } else { 0 };
        // A reader's clock may be ahead: what was read was read by now.
        let at = ms(at.monotonic).min(ms(now.monotonic));
        if let Some(person) = person.as_ref().filter(|_| duress) {
            // Of people whom the policy names alone, so it does not grow.
            self.duress.insert((door.clone(), person.clone()), at);
        }
        self.waiting.insert(door, Waiting { person, kind, in_block, wrong, at });
        Ok(())
    }

    /// A rule refuses.
    pub(super) fn refused(
        &mut self,
        observation: &Observation,
        door: DoorId,
        (reason, person, weight): (Reason, Option<PersonId>, u32),
        now: Moment,
    ) -> Option<Decision> {
        let news = self.news(observation, &door, (reason, person.as_ref(), weight), now);
        self.charge(&door, news.owed, now);
        self.heat(observation, reason, now);
        if !news.is_new {
            return None;
        }
        if weight > 0 {
            self.remember_failure(observation, &door, reason, now);
        }
        self.refuse_once(observation, door, reason, person, now)
    }

    /// A block refuses, and does not tell what it hides.
    pub(super) fn refused_behind_a_block(
        &mut self,
        observation: &Observation,
        door: DoorId,
        (reason, weight): (Reason, u32),
        now: Moment,
    ) -> Option<Decision> {
        self.heat(observation, reason, now);
        let news = self.news(observation, &door, (Reason::Throttled, None, 0), now);
        if !news.is_new {
            return None;
        }
        if weight > 0 {
            self.remember_failure(observation, &door, reason, now);
        }
        let mut decision = self.decision(observation, door, (Outcome::Denied, Reason::Throttled), None, now);
        decision.marks.extend((reason == Reason::Spoof).then_some(Mark::Attack));
        Some(decision)
    }

    fn heat(&mut self, observation: &Observation, reason: Reason, now: Moment) {
        if reason == Reason::Spoof && self.rules.throttle.cool_down_ms > 0 {
            self.places.heat(&observation.camera, observation.track, observation.bounding_box, ms(now.monotonic));
        }
    }

    /// The face waits before it is tried again.
    pub(super) fn remember_failure(&mut self, observation: &Observation, door: &DoorId, reason: Reason, now: Moment) {
        let matching = self.thresholds_at(&observation.camera, door).matching;
        let best = observation.candidates.first().filter(|best| best.score >= matching).map(|best| best.person.clone());
        let stranger = || observation.probe.clone().map(Whose::Stranger);
        let waiting = self.waiting_at(door, now).filter(|waiting| waiting.in_block);
        let (whose, times) = match (reason, best) {
            (Reason::Spoof | Reason::Challenge, Some(person)) => (Some(Whose::Picture(person)), 1),
            (Reason::SecondFactor, Some(person)) => {
                (waiting.map(|_| Whose::Number(person)), waiting.map_or(1, |waiting| waiting.wrong.max(1)))
            }
            (Reason::Spoof | Reason::Challenge | Reason::SecondFactor, None) | (Reason::Unknown | Reason::Ambiguous, _) => {
                (stranger(), 1)
            }
            _ => (None, 1),
        };
        if let Some(whose) = whose {
            self.tried.failed(door, whose, (times, matching), ms(now.monotonic));
        }
    }

    /// Whoever was tried to be taken for this person keeps that person waiting for a moment.
    pub(super) fn remember_picture(&mut self, door: &DoorId, person: PersonId, now: Moment) {
        let matching = self.rules.door(door).thresholds(self.thresholds).matching;
        self.tried.failed(door, Whose::Picture(person), (1, matching), ms(now.monotonic));
    }

    /// Charges a door for faces that failed there.
    pub(super) fn charge(&mut self, door: &DoorId, weight: u32, now: Moment) {
        let is_counted = self.throttle.charge(door, weight, ms(now.monotonic));
        self.note_charge(is_counted, self.throttle.is_blocked(door, ms(now.monotonic)));
    }

    /// A block that begins is kept at once; a failure that leads to none may wait a moment, and one that changes nothing is nothing.
    fn note_charge(&mut self, is_counted: bool, is_blocked: bool) {
        self.changed |= is_counted && is_blocked;
        self.charged |= is_counted;
    }

    /// What is left to tell and to charge of a refusal that names nobody, when another camera of the door may have told of it: a face
    /// that nobody knows is told of and charged once for an approach, too. Each challenge is a try of its own, whose side is drawn anew.
    fn news(
        &mut self,
        observation: &Observation,
        door: &DoorId,
        (reason, person, weight): (Reason, Option<&PersonId>, u32),
        now: Moment,
    ) -> News {
        let charged = if reason == Reason::Unknown && !self.is_attempt(observation) { 0 } else { weight };
        if person.is_some() || reason == Reason::Challenge {
            return News { owed: charged, is_new: true };
        }
        let within = i64::try_from(self.settings.approach_ms).unwrap_or(i64::MAX);
        let matching = self.thresholds_at(&observation.camera, door).matching;
        self.told.tell(door, observation, Failure { reason, weight, charged }, (ms(now.monotonic), within, matching))
    }

    /// Whether a stranger has tried, and not only passed by: came near, and looked into the camera for a while. A face whose size nobody
    /// tells was near.
    fn is_attempt(&self, observation: &Observation) -> bool {
        let throttle = &self.rules.throttle;
        let stayed = observation.captured_at.monotonic.since(observation.first_usable_at.monotonic);
        let is_near = |height: f32| height * 100.0 >= f32::from(u16::try_from(throttle.attempt_face_percent).unwrap_or(100));
        stayed.as_millis() >= u128::from(throttle.attempt_ms)
            && observation.frames >= self.settings.min_frames
            && observation.trajectory.tallest().is_none_or(is_near)
    }
}
