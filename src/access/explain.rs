//! "Who may pass door X at time T, and why": the rules' answer in sentences. It asks [`Rules::permit`], as the decider does. What depends
//! on what has happened (blocks, passback, lock-down by command) and on the face is named and not foretold.

use super::policy::{AllowSettings, DoorMode, PassbackKind, UnsureClock};
use super::rules::{Clock, Rules};
use super::schedule::LocalMoment;
use crate::types::{DoorId, PersonId, Profile, Reason, Wall};

/// What the rules say of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub person: PersonId,
    /// Why the rules refuse; none when they let the person through.
    pub refusal: Option<Reason>,
    /// In a sentence.
    pub why: String,
}

/// What the rules say of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The door, the time, and each rule, a line each.
    pub lines: Vec<String>,
    /// The people who were asked for, in that order.
    pub answers: Vec<Answer>,
}

impl Rules {
    /// A moment as a person writes it: `2026-12-24T08:00` or `2026-12-24` on the site's clock, or RFC 3339 with an offset.
    pub fn at(&self, text: &str) -> Option<Wall> {
        if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
            return Some(Wall(stamp.as_millisecond()));
        }
        self.calendar.begins(LocalMoment::try_from(text.to_owned()).ok()?)
    }

    /// Tells who of `people` may pass the door at `at`.
    pub fn explain(&self, door: &DoorId, people: &[(PersonId, Profile)], at: Wall, clock: Clock) -> Explanation {
        let rule = self.door(door);
        let mut lines = vec![format!("door `{door}` by policy `{}` version {}", self.version.id, self.version.version)];
        let holiday = self.calendar.local(at).and_then(|local| self.calendar.holiday(local.date()).map(str::to_owned));
        let holiday = holiday.map(|name| format!(", a holiday: {name}")).unwrap_or_default();
        lines.push(format!("at {}{holiday}", self.calendar.describe(at)));
        lines.push(
            match (clock, rule.unsure_clock) {
                (Clock::Synchronised, UnsureClock::Deny) => {
                    "clock synchronised; if it were not, every rule with a schedule would deny"
                }
                (Clock::Unsure, UnsureClock::Deny) => {
                    "clock not synchronised: every rule with a schedule denies, and so does every date of a person"
                }
                (Clock::SetBack, _) => {
                    "clock set back: it has shown a later time before, so whatever depends on the time is denied"
                }
                (_, UnsureClock::Trust) => "the clock is believed, synchronised or not",
            }
            .to_owned(),
        );
        lines.push(self.mode(door));
        if rule.people_needed > 1 && rule.mode != DoorMode::Free {
            let (needed, window) = (rule.people_needed, rule.people_window.as_secs());
            lines.push(format!("opens when {needed} different people are recognised within {window} s"));
        }
        if self.throttle.failures > 0 {
            let (failures, window, block) = (self.throttle.failures, self.throttle.window_s, self.throttle.block_s);
            lines.push(format!(
                "after {failures} failures within {window} s only clear matches pass, for {block} s and longer each time"
            ));
        }
        lines.extend(rule.allow.iter().enumerate().map(|(n, allow)| format!("rule {}: {}", n + 1, self.rule(allow, at))));
        lines.extend(self.areas(door));
        let answers = people.iter().map(|(person, profile)| self.answer(door, person, profile, at, clock));
        Explanation { lines, answers: answers.collect() }
    }

    fn mode(&self, door: &DoorId) -> String {
        let rule = self.door(door);
        match rule.mode {
            DoorMode::Normal if rule.allow.is_empty() => "mode normal, and no rule: opens for nobody".to_owned(),
            DoorMode::Normal => "mode normal: opens by the rules below".to_owned(),
            DoorMode::LockedDown => "mode locked-down: opens for nobody".to_owned(),
            DoorMode::Free => "mode free: opens for every enrolled person, whatever the rules below say".to_owned(),
            DoorMode::TwoFactor => {
                let window = rule.factor_window.as_secs();
                format!("mode two-factor: opens by the rules below, with the person's own card or number within {window} s")
            }
        }
    }

    fn rule(&self, allow: &AllowSettings, at: Wall) -> String {
        let mut who = Vec::new();
        if allow.everyone {
            who.push("everyone enrolled".to_owned());
        }
        let listed = |what: &str, ids: Vec<String>| (!ids.is_empty()).then(|| format!("{what} {}", ids.join(", ")));
        who.extend(listed("groups", allow.groups.iter().map(ToString::to_string).collect()));
        who.extend(listed("people", allow.people.iter().map(ToString::to_string).collect()));
        let who = who.join(" and ");
        let Some(id) = &allow.schedule else { return format!("{who}, at any time") };
        let Some(schedule) = self.schedules.get(id) else { return format!("{who}, never: there is no schedule `{id}`") };
        let holds = schedule.holds(&self.calendar, at);
        let change = match schedule.next_change(&self.calendar, at) {
            Some(change) => format!("until {}", self.calendar.describe(change)),
            None => "for the next two weeks at least".to_owned(),
        };
        format!("{who}, by schedule `{id}`, which {} {change}", if holds { "holds" } else { "does not hold" })
    }

    fn areas(&self, door: &DoorId) -> Vec<String> {
        let mut lines = Vec::new();
        for area in &self.areas {
            let way = match () {
                () if area.entries.contains(door) => "into",
                () if area.exits.contains(door) => "out of",
                () => continue,
            };
            let kind = match area.kind {
                PassbackKind::Hard => "denied until the person has gone the other way".to_owned(),
                PassbackKind::Soft => "granted, and told".to_owned(),
                PassbackKind::Timed => format!("denied for {} s", area.window_s.unwrap_or(0)),
            };
            lines.push(format!("leads {way} area `{}`: twice the same way is {kind}", area.id));
        }
        lines
    }

    fn answer(&self, door: &DoorId, person: &PersonId, profile: &Profile, at: Wall, clock: Clock) -> Answer {
        let rule = self.door(door);
        let named: Vec<String> = rule
            .allow
            .iter()
            .enumerate()
            .filter(|(_, allow)| self.is_named(allow, person, profile))
            .map(|(n, _)| (n + 1).to_string())
            .collect();
        let by = if named.is_empty() { "no rule".to_owned() } else { format!("rule {}", named.join(", ")) };
        let refusal = self.permit(door, person, profile, at, clock).err();
        let why = match refusal {
            None if rule.mode == DoorMode::Free => "the door is free".to_owned(),
            None => format!("{by} lets this person through"),
            Some(Reason::NotPermitted) => "no rule of this door names this person or a group of this person".to_owned(),
            Some(Reason::Schedule) => format!("{by} names this person, and not at this time"),
            Some(Reason::Clock) if clock == Clock::SetBack => "it depends on the time, and the clock was set back".to_owned(),
            Some(Reason::Clock) => "it depends on the time, and the clock is not synchronised".to_owned(),
            Some(Reason::ExpiredPerson) => {
                let until = self.people.get(person).and_then(|rule| rule.until);
                let end = [profile.expires_at, until].into_iter().flatten().min();
                format!("this person's time ended {}", end.map_or("before".to_owned(), |end| self.calendar.describe(end)))
            }
            Some(Reason::NotYetValid) => {
                let from = self.people.get(person).and_then(|rule| rule.from);
                format!("this person's time begins {}", from.map_or("later".to_owned(), |from| self.calendar.describe(from)))
            }
            Some(Reason::Lockdown) => "the door is locked down".to_owned(),
            Some(reason) => reason.as_str().to_owned(),
        };
        Answer { person: person.clone(), refusal, why }
    }
}
