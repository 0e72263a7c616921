//! The policy, made ready to be asked: who may pass a door at a moment, and why not. Both the decider and `faceid check --explain` ask
//! here, so that what is explained is what is decided. Pure: time zones were looked up when it was made.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use thiserror::Error;

use super::policy::{
    AllowSettings, AreaSettings, CredentialNumber, DoorMode, DoorRuleSettings, OperatorRight, OperatorSettings, PolicySettings,
    ThrottleSettings, UnsureClock,
};
use super::schedule::{Calendar, Schedule};
use super::{Settings, Thresholds};
use crate::types::{DoorId, GroupId, PersonId, PolicyVersion, Profile, Reason, ScheduleId, Wall};

/// Whether the wall clock can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// It follows a time source.
    Synchronised,
    /// It does not, or nobody knows.
    #[default]
    Unsure,
    /// It shows an earlier time than it has shown before: nobody who is bound to a time passes, also where an unsure clock is trusted.
    SetBack,
}

/// A policy that cannot be made ready; `faceid check` tells more of it, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy.{key}: {message}")]
pub struct PolicyError {
    /// The dotted key below `policy`.
    pub key: String,
    /// What is wrong, and the way out.
    pub message: String,
}

/// The rules of a site, ready to be asked.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What decisions are marked with.
    pub version: PolicyVersion,
    pub(super) throttle: ThrottleSettings,
    pub(super) areas: Vec<AreaSettings>,
    pub(super) calendar: Calendar,
    pub(super) schedules: HashMap<ScheduleId, Schedule>,
    pub(super) people: HashMap<PersonId, PersonRule>,
    groups: HashMap<PersonId, BTreeSet<GroupId>>,
    credentials: HashMap<CredentialNumber, Holder>,
    doors: HashMap<DoorId, DoorRule>,
    operators: Vec<OperatorSettings>,
    /// The rule of doors that the policy does not name.
    unnamed: DoorRule,
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) person: PersonId,
    pub(super) duress: bool,
}

/// What the policy says of a person.
#[derive(Debug, Clone, Default)]
pub(super) struct PersonRule {
    pub(super) from: Option<Wall>,
    /// From when on no longer.
    pub(super) until: Option<Wall>,
    pub(super) duress: bool,
    /// A bound that lies beyond the calendar: the person may never pass.
    unreadable: bool,
}

/// What the policy says of a door.
#[derive(Debug, Clone)]
pub(super) struct DoorRule {
    pub(super) mode: DoorMode,
    pub(super) allow: Vec<AllowSettings>,
    pub(super) unsure_clock: UnsureClock,
    pub(super) people_needed: u32,
    pub(super) people_window: Duration,
    pub(super) factor_window: Duration,
    pub(super) min_frames: Option<u32>,
    thresholds: Settings,
}

impl Rules {
    /// Makes a policy ready; the first of its findings where it has any.
    pub fn new(policy: &PolicySettings) -> Result<Self, PolicyError> {
        if let Some((key, message)) = policy.findings().into_iter().next() {
            return Err(PolicyError { key, message });
        }
        let Some(calendar) = Calendar::new(&policy.time_zone, &policy.holidays) else {
            return Err(PolicyError { key: "time-zone".to_owned(), message: "is no time zone".to_owned() });
        };
        let mut groups: HashMap<PersonId, BTreeSet<GroupId>> = HashMap::new();
        for group in &policy.groups {
            for person in &group.people {
                groups.entry(person.clone()).or_default().insert(group.id.clone());
            }
        }
        let mut people = HashMap::new();
        let mut credentials = HashMap::new();
        for person in &policy.people {
            let bounds = (person.valid_from.map(|from| calendar.begins(from)), person.valid_to.map(|to| calendar.ends(to)));
            let unreadable = matches!(bounds, (Some(None), _) | (_, Some(None)));
            let rule = PersonRule { from: bounds.0.flatten(), until: bounds.1.flatten(), duress: person.duress, unreadable };
            people.insert(person.id.clone(), rule);
            for (numbers, duress) in [(&person.credentials, false), (&person.duress_credentials, true)] {
                for number in numbers {
                    credentials.insert(number.clone(), Holder { person: person.id.clone(), duress });
                }
            }
        }
        let schedules = policy.schedules.iter().map(|s| (s.id.clone(), Schedule::new(&s.windows, s.ignore_holidays))).collect();
        let unnamed = if policy.doors.is_empty() { DoorRule::open() } else { DoorRule::shut() };
        Ok(Self {
            version: PolicyVersion { id: policy.id.clone(), version: policy.version },
            throttle: policy.throttle.clone(),
            areas: policy.areas.clone(),
            calendar,
            schedules,
            people,
            groups,
            credentials,
            doors: policy.doors.iter().map(|door| (door.id.clone(), DoorRule::new(door))).collect(),
            operators: policy.operators.clone(),
            unnamed,
        })
    }

    pub(super) fn door(&self, door: &DoorId) -> &DoorRule {
        self.doors.get(door).unwrap_or(&self.unnamed)
    }

    /// Whether the policy says anything of the door.
    pub fn names(&self, door: &DoorId) -> bool {
        self.doors.contains_key(door)
    }

    /// Whether an operator's key has a right at a door.
    pub(super) fn operator_may(&self, key: &str, right: OperatorRight, door: &DoorId) -> bool {
        let of_key = self.operators.iter().filter(|operator| operator.key == key && operator.may.contains(&right));
        of_key.into_iter().any(|operator| operator.doors.is_empty() || operator.doors.contains(door))
    }

    pub(super) fn holder(&self, number: &CredentialNumber) -> Option<&Holder> {
        self.credentials.get(number)
    }

    pub(super) fn is_duress_person(&self, person: &PersonId) -> bool {
        self.people.get(person).is_some_and(|rule| rule.duress)
    }

    /// The groups that the policy puts a person in.
    pub fn groups_of(&self, person: &PersonId) -> impl Iterator<Item = &GroupId> {
        self.groups.get(person).into_iter().flatten()
    }

    /// Whether anybody's right depends on the time.
    pub fn depends_on_time(&self) -> bool {
        let scheduled = |door: &DoorRule| door.allow.iter().any(|allow| allow.schedule.is_some());
        self.people.values().any(|rule| rule.from.is_some() || rule.until.is_some()) || self.doors.values().any(scheduled)
    }

    /// Everybody whom the policy names.
    pub fn named_people(&self) -> BTreeSet<&PersonId> {
        let allowed = self.doors.values().flat_map(|door| door.allow.iter().flat_map(|allow| &allow.people));
        self.people.keys().chain(self.groups.keys()).chain(allowed).collect()
    }

    /// Whether an enrolled person may pass the door at `at`, as far as people, doors and times go; otherwise why not.
    pub fn permit(&self, door: &DoorId, person: &PersonId, profile: &Profile, at: Wall, clock: Clock) -> Result<(), Reason> {
        let rule = self.door(door);
        self.is_valid(rule, person, profile, at, clock)?;
        match rule.mode {
            DoorMode::LockedDown => return Err(Reason::Lockdown),
            DoorMode::Free => return Ok(()),
            DoorMode::Normal | DoorMode::TwoFactor => {}
        }
        let mut refusal = Reason::NotPermitted;
        for allow in rule.allow.iter().filter(|allow| self.is_named(allow, person, profile)) {
            match &allow.schedule {
                None => return Ok(()),
                Some(_) if rule.is_unsure(clock) => refusal = Reason::Clock,
                Some(schedule) if self.schedules.get(schedule).is_some_and(|s| s.holds(&self.calendar, at)) => return Ok(()),
                Some(_) => refusal = Reason::Schedule,
            }
        }
        Err(refusal)
    }

    /// Whether the person's own time has begun and has not ended.
    fn is_valid(&self, rule: &DoorRule, person: &PersonId, profile: &Profile, at: Wall, clock: Clock) -> Result<(), Reason> {
        let none = PersonRule::default();
        let of_person = self.people.get(person).unwrap_or(&none);
        let ends = [profile.expires_at, of_person.until];
        if of_person.unreadable || ends.iter().flatten().any(|end| at >= *end) {
            return Err(Reason::ExpiredPerson);
        }
        if of_person.from.is_some_and(|from| at < from) {
            return Err(Reason::NotYetValid);
        }
        // A clock that went back would bring an expired person to life.
        if rule.is_unsure(clock) && (of_person.from.is_some() || ends.iter().any(Option::is_some)) {
            return Err(Reason::Clock);
        }
        Ok(())
    }

    pub(super) fn is_named(&self, allow: &AllowSettings, person: &PersonId, profile: &Profile) -> bool {
        let in_group = |group: &GroupId| profile.groups.contains(group) || self.groups_of(person).any(|own| own == group);
        allow.everyone || allow.people.contains(person) || allow.groups.iter().any(in_group)
    }
}

impl DoorRule {
    fn new(door: &DoorRuleSettings) -> Self {
        Self {
            mode: door.mode,
            allow: door.allow.clone(),
            unsure_clock: door.unsure_clock,
            people_needed: door.people_needed,
            people_window: Duration::from_secs(door.people_window_s),
            factor_window: Duration::from_secs(door.second_factor_window_s),
            min_frames: door.min_frames,
            thresholds: Settings {
                match_threshold: door.match_threshold,
                margin: door.margin,
                liveness_threshold: door.liveness_threshold,
                ..Settings::default()
            },
        }
    }

    /// Of a site without a policy: everybody who is enrolled. Whose time has a bound is denied while the clock is unsure, for an expired
    /// person is not let in by a wrong clock.
    fn open() -> Self {
        let everyone = AllowSettings { everyone: true, groups: Vec::new(), people: Vec::new(), schedule: None };
        Self { allow: vec![everyone], ..Self::shut() }
    }

    /// Of a door that a policy forgot.
    fn shut() -> Self {
        Self {
            mode: DoorMode::Normal,
            allow: Vec::new(),
            unsure_clock: UnsureClock::Deny,
            people_needed: 1,
            people_window: Duration::from_secs(1),
            factor_window: Duration::from_secs(1),
            min_frames: None,
            thresholds: Settings::default(),
        }
    }

    fn is_unsure(&self, clock: Clock) -> bool {
        match clock {
            Clock::Synchronised => false,
            Clock::Unsure => self.unsure_clock == UnsureClock::Deny,
            Clock::SetBack => true,
        }
    }

    /// The door's own thresholds over the site's.
    pub(super) fn thresholds(&self, site: Thresholds) -> Thresholds {
        site.with(&self.thresholds)
    }
}
