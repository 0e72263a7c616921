//! What operators do from a desk: open a door once, or hold it open for a time. Each needs the right of the policy
//! (`[[policy.operators]]`), and neither goes against a lock-down. A hold is told to the door's controller for some seconds at a time and
//! renewed, so that a door whose device is gone, or whose broker is, locks by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::grant::{Claims, MAX_HOLD_S};
use super::policy::{DoorMode, OperatorRight};
use super::state::{Ms, ms};
use super::{Decider, Vouching};
use crate::types::{Decision, DoorId, Evidence, Factor, Moment, Outcome, PersonId, Reason, TrackId, Wall};

/// The longest hold: a working day and its edges.
pub const MAX_HOLD: Duration = Duration::from_secs(12 * 3600);
/// For how many seconds a controller keeps the door unlocked after each word of ours. A door that hears nothing any more locks after it.
pub const HOLD_S: u32 = MAX_HOLD_S;
/// How often the word is given anew; two may be lost.
const RENEW_MS: Ms = 10_000;

/// Why an operator's wish was not followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeskError {
    /// No such door.
    #[error("there is no door `{0}` here")]
    UnknownDoor(DoorId),
    /// The policy gives the key no such right.
    #[error(
        "the policy does not let key `{key}` {right} door `{door}`: add [[policy.operators]] with key = \"{key}\" and may = [\"{right}\"]"
    )]
    NoRight {
        /// The key's id.
        key: String,
        /// What it may not.
        right: &'static str,
        /// Where.
        door: DoorId,
    },
    /// A command or the policy has locked it down.
    #[error("door `{0}` is locked down: release it first")]
    LockedDown(DoorId),
    /// The broker, which may know of a later lock-down, has not been heard since the start.
    #[error("the broker has not been heard since the start, and it may know of a later lock-down: wait")]
    BrokerSilent,
    /// Longer than a door may be held open.
    #[error("a door is held open for at most {} hours", MAX_HOLD.as_secs() / 3600)]
    TooLong,
}

/// A door that is held open.
struct Hold {
    until: Ms,
    until_wall: Wall,
    operator: String,
    /// Whom its words name.
    subject: PersonId,
    told_at: Option<Ms>,
}

/// The doors that are held open.
#[derive(Default)]
pub(super) struct Holds {
    doors: BTreeMap<DoorId, Hold>,
    /// Ended, and not told yet: who had held them.
    ended: Vec<(DoorId, Hold)>,
}

impl Holds {
    fn end(&mut self, is_over: impl Fn(&DoorId, &Hold) -> bool) {
        let over: Vec<DoorId> =
            self.doors.iter().filter(|(door, hold)| is_over(door, hold)).map(|(door, _)| door.clone()).collect();
        for door in over {
            self.ended.extend(self.doors.remove(&door).map(|hold| (door, hold)));
        }
    }
}

/// What the controller of a door that is held open is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOrder {
    /// Which door.
    pub door: DoorId,
    /// The id of the operator's key.
    pub operator: String,
    /// Until when it is to be held open; none where the hold has ended.
    pub until: Option<Wall>,
    /// The signed word for the controller.
    pub token: String,
}

impl Decider {
    /// Opens a door once for the operator whose key has this id: a decision with a grant, of which no face was asked.
    pub fn open_once(
        &self,
        door: &DoorId,
        operator: &str,
        now: Moment,
        grant_id: &mut dyn FnMut() -> String,
    ) -> Result<Decision, DeskError> {
        let subject = self.may(door, operator, OperatorRight::Open, now)?;
        let lifetime = self.settings.grant_lifetime_s;
        let grant = self.claims(door, subject, (now, i64::try_from(lifetime).unwrap_or(1)), grant_id());
        Ok(Decision {
            outcome: Outcome::Granted,
            reason: Reason::Operator,
            door: door.clone(),
            camera: None,
            track: TrackId(0),
            person: None,
            operator: Some(operator.to_owned()),
            evidence: Evidence::default(),
            factors: vec![Factor::Operator],
            policy: self.rules.version.clone(),
            marks: Vec::new(),
            captured_at: now,
            decided_at: now,
            grant: Some(self.key.sign(&grant)),
        })
    }

    /// Holds a door open from `now` for so long, or ends that where the time is nothing. Gives until when. [`Decider::hold_orders`] tells
    /// its controller; it is not kept over a restart.
    pub fn hold_open(&mut self, door: &DoorId, operator: &str, time: Duration, now: Moment) -> Result<Option<Wall>, DeskError> {
        if time.is_zero() {
            self.may_at_all(door, operator, OperatorRight::HoldOpen)?;
            self.holds.end(|held, _| held == door);
            return Ok(None);
        }
        let subject = self.may(door, operator, OperatorRight::HoldOpen, now)?;
        if time > MAX_HOLD {
            return Err(DeskError::TooLong);
        }
        let until = now.plus(time);
        let (until_wall, until) = (until.wall, ms(until.monotonic));
        let hold = Hold { until, until_wall, operator: operator.to_owned(), subject, told_at: None };
        self.holds.doors.insert(door.clone(), hold);
        Ok(Some(until_wall))
    }

    /// Until when a door is held open.
    pub fn held_until(&self, door: &DoorId) -> Option<Wall> {
        self.holds.doors.get(door).map(|hold| hold.until_wall)
    }

    /// What is to be told now to the controllers of doors that are held open, and of those that are not any more. To be asked often.
    pub fn hold_orders(&mut self, now: Moment, grant_id: &mut dyn FnMut() -> String) -> Vec<HoldOrder> {
        let at = ms(now.monotonic);
        let (lockdown, rules) = (&self.lockdown, &self.rules);
        let is_shut = |door: &DoorId| lockdown.holds(door) || rules.door(door).mode == DoorMode::LockedDown;
        let has_right = |door: &DoorId, key: &str| rules.operator_may(key, OperatorRight::HoldOpen, door);
        self.holds.end(|door, hold| at >= hold.until || is_shut(door) || !has_right(door, &hold.operator));
        let ended = std::mem::take(&mut self.holds.ended).into_iter();
        let mut orders: Vec<_> = ended.map(|(door, hold)| (door, (hold.operator, hold.subject), None, 0)).collect();
        for (door, hold) in &mut self.holds.doors {
            if hold.told_at.is_none_or(|told| at.saturating_sub(told) >= RENEW_MS) {
                hold.told_at = Some(at);
                let left = u32::try_from((hold.until - at + 999) / 1000).unwrap_or(HOLD_S).clamp(1, HOLD_S);
                orders.push((door.clone(), (hold.operator.clone(), hold.subject.clone()), Some(hold.until_wall), left));
            }
        }
        let lifetime = i64::from(HOLD_S).min(i64::try_from(self.settings.grant_lifetime_s).unwrap_or(1));
        let orders = orders.into_iter().map(|(door, (operator, subject), until, seconds)| {
            let claims = Claims { hold_s: Some(seconds), ..self.claims(&door, subject, (now, lifetime), grant_id()) };
            HoldOrder { token: self.key.sign_hold(&claims), door, operator, until }
        });
        orders.collect()
    }

    fn may(&self, door: &DoorId, operator: &str, right: OperatorRight, now: Moment) -> Result<PersonId, DeskError> {
        let subject = self.may_at_all(door, operator, right)?;
        if self.lockdown.holds(door) || self.rules.door(door).mode == DoorMode::LockedDown {
            return Err(DeskError::LockedDown(door.clone()));
        }
        match self.vouching {
            Vouching::Awaited(until) if ms(now.monotonic) >= until => Err(DeskError::BrokerSilent),
            _ => Ok(subject),
        }
    }

    /// Whom a grant names that the operator gives, where there is the right to give it.
    fn may_at_all(&self, door: &DoorId, operator: &str, right: OperatorRight) -> Result<PersonId, DeskError> {
        if !self.doors.contains(door) {
            return Err(DeskError::UnknownDoor(door.clone()));
        }
        let subject = PersonId::new(format!("operator.{operator}")).ok();
        let refused = || DeskError::NoRight { key: operator.to_owned(), right: right.as_str(), door: door.clone() };
        subject.filter(|_| self.rules.operator_may(operator, right, door)).ok_or_else(refused)
    }

    fn claims(&self, door: &DoorId, subject: PersonId, (now, life_s): (Moment, i64), jti: String) -> Claims {
        let issued = now.wall.unix_seconds();
        Claims {
            iss: self.device.clone(),
            aud: door.clone(),
            sub: subject,
            iat: issued,
            nbf: issued,
            exp: issued.saturating_add(life_s),
            jti,
            hold_s: None,
        }
    }
}
