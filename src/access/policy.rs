//! Who may pass which door and when, as an operator writes it: the `[policy]` section of the config. This is data alone; what it means
//! is in [`super::rules`]. A policy that names no door lets every enrolled person through every door at any time. One that names a
//! door says everything about it, and a door that it does not name opens for nobody.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::schedule::{Calendar, HolidayDate, HolidaySettings, LocalMoment, WindowSettings};
use crate::types::{AreaId, DoorId, GroupId, PadScore, PersonId, PolicyId, ScheduleId, Score};

/// Findings: the dotted key, and what is wrong with the way out.
type Findings = Vec<(String, String)>;

/// How long a key's id is: a SHA-256 thumbprint in base64url.
const KEY_ID_LENGTH: usize = 43;
/// The most people who must come together.
pub const MAX_PEOPLE_NEEDED: u32 = 8;

/// The rules of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicySettings {
    /// The rules' name; every decision carries it.
    pub id: PolicyId,
    /// Their version; every decision carries it. Count it up with each change.
    pub version: u64,
    /// The site's time zone by its IANA name, such as `Europe/Berlin`: schedules are on its clock, daylight saving included.
    pub time_zone: String,
    /// What failed attempts cost. While a door is blocked only clear matches of people whom it knows pass, and a face that failed waits
    /// besides; a signed `release` ends all of it.
    pub throttle: ThrottleSettings,
    /// Days off: on these a schedule's weekdays do not hold, and its `holiday` windows do.
    pub holidays: Vec<HolidaySettings>,
    /// Weekly schedules, which doors' rules name.
    pub schedules: Vec<ScheduleSettings>,
    /// Members of groups, besides those that the gallery says.
    pub groups: Vec<GroupSettings>,
    /// People of whom there is something to say besides what the gallery says.
    pub people: Vec<PersonSettings>,
    /// The doors' rules. Without any, every enrolled person may pass every door at any time.
    pub doors: Vec<DoorRuleSettings>,
    /// Areas with anti-passback.
    pub areas: Vec<AreaSettings>,
    /// Which operators may open doors from a desk. Without any, none may; everything else is every operator's right.
    pub operators: Vec<OperatorSettings>,
}

/// What failed attempts cost. A stranger who came near and looked into the camera for a while, an ambiguous face, a challenge that was
/// failed, a face that is not the card's, and a card that is nobody's count one each, an attack more; recognised people whom a rule refuses,
/// strangers who pass by, and faces that were never good enough, count nothing. While a door is blocked for its faces, only clear matches
/// pass, with more frames; while its reader is, numbers count beside their owner's clear face alone. A face that failed waits besides: a
/// second, then twice as long each time. A signed `release` ends all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ThrottleSettings {
    /// Failures within the window after which a door is blocked for everybody who is no clear match; 0 blocks never, and lifts at the
    /// restart what is blocked (0 to 100).
    pub failures: u32,
    /// After how many seconds a failure is forgotten (1 to 86400).
    pub window_s: u64,
    /// How long the first block lasts, in seconds (30 to 3600); each further one twice as long. Somebody whose picture was held up waits
    /// at most this long after the last time.
    pub block_s: u64,
    /// How long the longest block lasts, in seconds (30 to 86400).
    pub longest_block_s: u64,
    /// After how many seconds without a block the blocks before count half as many, and again after as many more (60 to 604800).
    pub forgive_s: u64,
    /// How far above the threshold a match must be while a door is blocked; never more than half of the way to certainty (0.0 to 0.5).
    pub blocked_lead: f32,
    /// How many frames a match needs while a door is blocked (1 to 100).
    pub blocked_frames: u32,
    /// For how long a stranger must have looked into the camera to count as a failure, in milliseconds (0 to 10000).
    pub attempt_ms: u64,
    /// How tall a stranger's face must have been to count as a failure, in percent of the picture's height (0 to 100).
    pub attempt_face_percent: u32,
    /// How many failures a presentation attack counts as (1 to 100).
    pub spoof_weight: u32,
    /// For how long after a presentation attack has gone a face at that place in the picture is refused, in milliseconds; 0
    /// refuses none (0 to 60000).
    pub cool_down_ms: u64,
}

/// A weekly schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScheduleSettings {
    /// The schedule's id.
    pub id: ScheduleId,
    /// The stretches of the week in which it holds.
    pub windows: Vec<WindowSettings>,
    /// Whether a holiday is like the day of the week that it falls on.
    #[serde(default)]
    pub ignore_holidays: bool,
}

/// Members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GroupSettings {
    /// The group's id.
    pub id: GroupId,
    /// Who is in it, besides those of whom the gallery says so.
    #[serde(default)]
    pub people: Vec<PersonId>,
}

/// What the rules say of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PersonSettings {
    /// Who.
    pub id: PersonId,
    /// From when on the person may pass: a day, or a moment of the site's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<LocalMoment>,
    /// Up to when: a day and all of it, or a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<LocalMoment>,
    /// Cards and numbers that a reader tells, for doors with two factors.
    #[serde(default)]
    pub credentials: Vec<CredentialNumber>,
    /// Cards and numbers that say "I am being forced": they open like the others and raise a silent alarm.
    #[serde(default)]
    pub duress_credentials: Vec<CredentialNumber>,
    /// Whether each grant to this person raises a silent alarm.
    #[serde(default)]
    pub duress: bool,
}

/// What a card or number reader tells. It opens doors, so it is in no log, no error and no event.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CredentialNumber(String);

impl CredentialNumber {
    /// Takes a text of any kind.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn is_plausible(&self) -> bool {
        (4..=64).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_graphic())
    }
}

impl std::fmt::Debug for CredentialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialNumber(…)")
    }
}

/// How a door is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoorMode {
    /// By its rules.
    #[default]
    Normal,
    /// Opens for nobody.
    LockedDown,
    /// Opens for every enrolled person: no rule, schedule, passback, second factor or company is asked for. Nobody is let in unrecognised.
    Free,
    /// By its rules, and only with the card or number of the very person whose face it is.
    TwoFactor,
}

impl DoorMode {
    /// The word of the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::LockedDown => "locked-down",
            Self::Free => "free",
            Self::TwoFactor => "two-factor",
        }
    }
}

/// What a door does when its clock cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnsureClock {
    /// Whoever's right depends on the time is denied; a rule without a schedule still holds.
    #[default]
    Deny,
    /// The clock is believed as it is.
    Trust,
}

/// One door's rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DoorRuleSettings {
    /// Which door.
    pub id: DoorId,
    /// How it is used: `normal`, `locked-down`, `free` or `two-factor`.
    #[serde(default)]
    pub mode: DoorMode,
    /// Who may pass and when; one that holds is enough, and without one nobody may.
    #[serde(default)]
    pub allow: Vec<AllowSettings>,
    /// When the clock is not synchronised: `deny` or `trust`.
    #[serde(default)]
    pub unsure_clock: UnsureClock,
    /// How many different people must be recognised together (1 to 8).
    #[serde(default = "one")]
    pub people_needed: u32,
    /// Within how many seconds (1 to 300).
    #[serde(default = "people_window")]
    pub people_window_s: u64,
    /// For how many seconds a card and a face wait for each other (1 to 60).
    #[serde(default = "factor_window")]
    pub second_factor_window_s: u64,
    /// This door's own least comparison score of a match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_threshold: Option<Score>,
    /// How far the best person must be ahead of the second at this door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
    /// This door's own least liveness score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_threshold: Option<PadScore>,
    /// This door's own least number of frames (1 to 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_frames: Option<u32>,
}

/// One rule of a door: people, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AllowSettings {
    /// Every enrolled person.
    #[serde(default)]
    pub everyone: bool,
    /// Members of these groups.
    #[serde(default)]
    pub groups: Vec<GroupId>,
    /// These people.
    #[serde(default)]
    pub people: Vec<PersonId>,
    /// Only while this schedule holds; without one at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleId>,
}

/// What becomes of somebody who enters an area twice without having left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassbackKind {
    /// Denied until the person has left by an exit; leaving without having entered likewise.
    Hard,
    /// Granted, and told.
    Soft,
    /// Denied for a while after the last time in the same direction.
    Timed,
}

/// What takes a person into an area or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassbackCounts {
    /// A grant.
    #[default]
    Grants,
    /// A grant, unless the door's controller says that the door was not opened: it needs a door sensor.
    Passages,
}

/// An area with anti-passback: a grant at an entry takes the person in, one at an exit takes the person out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AreaSettings {
    /// The area's id.
    pub id: AreaId,
    /// The doors that lead in.
    pub entries: Vec<DoorId>,
    /// The doors that lead out; none where people leave freely, which only `timed` can do with.
    #[serde(default)]
    pub exits: Vec<DoorId>,
    /// `hard`, `soft` or `timed`.
    pub kind: PassbackKind,
    /// How long `timed` lasts, in seconds (1 to 86400).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u64>,
    /// After how many hours a person's place is forgotten, so that a way out that nobody saw mends itself (1 to 8760).
    #[serde(default = "forget_after")]
    pub forget_after_h: u64,
    /// `grants` or `passages`.
    #[serde(default)]
    pub counts: PassbackCounts,
}

/// What an operator's key may do besides what every operator may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OperatorSettings {
    /// The id of the key (`kid` in the file of `[publish] operator-keys`).
    pub key: String,
    /// `open` (a door once) and `hold-open` (a door for a time).
    pub may: Vec<OperatorRight>,
    /// At which doors; every door where none is named.
    #[serde(default)]
    pub doors: Vec<DoorId>,
}

/// What a policy can let an operator do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRight {
    /// Open a door once.
    Open,
    /// Hold a door open for a time.
    HoldOpen,
}

impl OperatorRight {
    /// The word of the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HoldOpen => "hold-open",
        }
    }
}

fn one() -> u32 {
    1
}

fn people_window() -> u64 {
    15
}

fn factor_window() -> u64 {
    10
}

fn forget_after() -> u64 {
    24
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            #[expect(clippy::expect_used, reason = "a literal that keeps the rule, and a test runs this")]
            id: PolicyId::new("default").expect("a plain name is an id"),
            version: 1,
            time_zone: "UTC".to_owned(),
            throttle: ThrottleSettings::default(),
            holidays: Vec::new(),
            schedules: Vec::new(),
            groups: Vec::new(),
            people: Vec::new(),
            doors: Vec::new(),
            areas: Vec::new(),
            operators: Vec::new(),
        }
    }
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            window_s: 300,
            block_s: 30,
            longest_block_s: 3600,
            forgive_s: 3600,
            blocked_lead: 0.05,
            blocked_frames: 8,
            attempt_ms: 1000,
            attempt_face_percent: 12,
            spoof_weight: 2,
            cool_down_ms: 1000,
        }
    }
}

impl PolicySettings {
    /// What is wrong in it, each with its key below `policy` and the way out.
    pub fn findings(&self) -> Findings {
        let mut findings = self.throttle.findings();
        if Calendar::new(&self.time_zone, &[]).is_none() {
            let text = format!("`{}` is no time zone: use an IANA name such as Europe/Berlin", self.time_zone);
            findings.push(("time-zone".to_owned(), text));
        }
        for (index, holiday) in self.holidays.iter().enumerate() {
            match (holiday.date, holiday.to) {
                (HolidayDate::Once(first), Some(HolidayDate::Once(last))) if last >= first => {}
                (_, None) => {}
                _ => findings.push((format!("holidays.{index}.to"), "must be a later day, both with their year".to_owned())),
            }
        }
        self.schedule_findings(&mut findings);
        self.people_findings(&mut findings);
        self.door_findings(&mut findings);
        self.area_findings(&mut findings);
        for (index, operator) in self.operators.iter().enumerate() {
            let is_id = operator.key.len() == KEY_ID_LENGTH
                && operator.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if !is_id {
                let text = "is no key's id: use the `kid` of the key in the file of [publish] operator-keys".to_owned();
                findings.push((format!("operators.{index}.key"), text));
            }
            if self.operators[..index].iter().any(|other| other.key == operator.key) {
                findings.push((format!("operators.{index}.key"), "stands here twice: put its rights together".to_owned()));
            }
            if operator.may.is_empty() {
                findings.push((format!("operators.{index}.may"), "gives no right: use open and hold-open".to_owned()));
            }
        }
        findings
    }

    /// What does not fit with the doors that there are.
    pub fn relate<'a>(&self, doors: impl Iterator<Item = &'a DoorId>) -> Findings {
        let doors: Vec<&DoorId> = doors.collect();
        let mut findings = Findings::new();
        let mut require = |key: String, door: &DoorId| {
            if !doors.contains(&door) {
                findings.push((key, format!("there is no door `{door}`: add it to [[doors]] or name another")));
            }
        };
        for (index, rule) in self.doors.iter().enumerate() {
            require(format!("doors.{index}.id"), &rule.id);
        }
        for (index, area) in self.areas.iter().enumerate() {
            area.entries.iter().enumerate().for_each(|(n, door)| require(format!("areas.{index}.entries.{n}"), door));
            area.exits.iter().enumerate().for_each(|(n, door)| require(format!("areas.{index}.exits.{n}"), door));
        }
        for (index, operator) in self.operators.iter().enumerate() {
            operator.doors.iter().enumerate().for_each(|(n, door)| require(format!("operators.{index}.doors.{n}"), door));
        }
        if !self.doors.is_empty() {
            for door in doors.iter().filter(|door| self.doors.iter().all(|rule| rule.id != ***door)) {
                let text = format!("the policy says nothing of door `{door}`, so it would never open: add it");
                findings.push(("doors".to_owned(), text));
            }
        }
        findings
    }

    fn schedule_findings(&self, findings: &mut Findings) {
        repeated("schedules", self.schedules.iter().map(|schedule| &schedule.id), findings);
        for (index, schedule) in self.schedules.iter().enumerate() {
            if schedule.windows.is_empty() {
                findings.push((format!("schedules.{index}.windows"), "would never hold: add a window".to_owned()));
            }
            for (n, window) in schedule.windows.iter().enumerate() {
                let key = format!("schedules.{index}.windows.{n}");
                if window.days.is_empty() {
                    findings.push((format!("{key}.days"), "would never hold: name a day".to_owned()));
                }
                if window.from == window.to {
                    findings.push((format!("{key}.to"), "is also its beginning: for a whole day use 00:00 to 24:00".to_owned()));
                }
            }
        }
    }

    fn people_findings(&self, findings: &mut Findings) {
        repeated("groups", self.groups.iter().map(|group| &group.id), findings);
        repeated("people", self.people.iter().map(|person| &person.id), findings);
        let calendar = Calendar::new(&self.time_zone, &[]);
        let mut numbers = HashSet::new();
        for (index, person) in self.people.iter().enumerate() {
            let bounds = calendar.as_ref().zip(person.valid_from.zip(person.valid_to));
            if let Some((calendar, (from, to))) = bounds
                && calendar.begins(from) >= calendar.ends(to)
            {
                findings.push((format!("people.{index}.valid-to"), "must be after valid-from".to_owned()));
            }
            for (key, list) in [("credentials", &person.credentials), ("duress-credentials", &person.duress_credentials)] {
                for (n, number) in list.iter().enumerate() {
                    let wrong = match () {
                        () if !number.is_plausible() => "must be 4 to 64 plain characters without space",
                        () if !numbers.insert(number) => "is somebody's already: give each its own",
                        () => continue,
                    };
                    findings.push((format!("people.{index}.{key}.{n}"), wrong.to_owned()));
                }
            }
        }
    }

    fn door_findings(&self, findings: &mut Findings) {
        repeated("doors", self.doors.iter().map(|door| &door.id), findings);
        for (index, door) in self.doors.iter().enumerate() {
            let at = format!("doors.{index}");
            range(findings, &format!("{at}.people-needed"), u64::from(door.people_needed), 1, u64::from(MAX_PEOPLE_NEEDED));
            range(findings, &format!("{at}.people-window-s"), door.people_window_s, 1, 300);
            range(findings, &format!("{at}.second-factor-window-s"), door.second_factor_window_s, 1, 60);
            range(findings, &format!("{at}.min-frames"), u64::from(door.min_frames.unwrap_or(1)), 1, 100);
            if door.margin.is_some_and(|margin| !(0.0..=1.0).contains(&margin)) {
                findings.push((format!("{at}.margin"), "is out of range: use 0.0 to 1.0".to_owned()));
            }
            if door.allow.is_empty() && matches!(door.mode, DoorMode::Normal | DoorMode::TwoFactor) {
                findings.push((format!("{at}.allow"), "nobody may pass: add a rule, or use mode = \"locked-down\"".to_owned()));
            }
            for (n, allow) in door.allow.iter().enumerate() {
                if !allow.everyone && allow.groups.is_empty() && allow.people.is_empty() {
                    findings.push((format!("{at}.allow.{n}"), "names nobody: add groups, people or everyone = true".to_owned()));
                }
                let known = |id: &ScheduleId| self.schedules.iter().any(|schedule| schedule.id == *id);
                if let Some(id) = allow.schedule.as_ref().filter(|id| !known(id)) {
                    findings.push((format!("{at}.allow.{n}.schedule"), format!("there is no schedule `{id}`: add it")));
                }
            }
        }
    }

    fn area_findings(&self, findings: &mut Findings) {
        repeated("areas", self.areas.iter().map(|area| &area.id), findings);
        for (index, area) in self.areas.iter().enumerate() {
            let at = format!("areas.{index}");
            range(findings, &format!("{at}.forget-after-h"), area.forget_after_h, 1, 8760);
            range(findings, &format!("{at}.window-s"), area.window_s.unwrap_or(1), 1, 86_400);
            if area.entries.is_empty() {
                findings.push((format!("{at}.entries"), "nobody would ever enter: name a door".to_owned()));
            }
            if area.kind == PassbackKind::Timed && area.window_s.is_none() {
                findings.push((format!("{at}.window-s"), "`timed` needs to know how long: add it".to_owned()));
            }
            if area.kind == PassbackKind::Hard && area.exits.is_empty() {
                findings.push((format!("{at}.exits"), "nobody could come in twice: name a door, or use `timed`".to_owned()));
            }
            for (n, door) in area.exits.iter().enumerate().filter(|(_, door)| area.entries.contains(door)) {
                findings.push((format!("{at}.exits.{n}"), format!("door `{door}` is an entry too: it can be only one")));
            }
        }
    }
}

impl ThrottleSettings {
    fn findings(&self) -> Findings {
        let mut findings = Findings::new();
        range(&mut findings, "throttle.failures", u64::from(self.failures), 0, 100);
        range(&mut findings, "throttle.window-s", self.window_s, 1, 86_400);
        range(&mut findings, "throttle.block-s", self.block_s, 30, 3600);
        range(&mut findings, "throttle.longest-block-s", self.longest_block_s, self.block_s.max(30), 86_400);
        range(&mut findings, "throttle.forgive-s", self.forgive_s, 60, 604_800);
        if !(0.0..=0.5).contains(&self.blocked_lead) {
            findings.push(("throttle.blocked-lead".to_owned(), format!("{} is out of range: use 0.0 to 0.5", self.blocked_lead)));
        }
        range(&mut findings, "throttle.blocked-frames", u64::from(self.blocked_frames), 1, 100);
        range(&mut findings, "throttle.attempt-ms", self.attempt_ms, 0, 10_000);
        range(&mut findings, "throttle.attempt-face-percent", u64::from(self.attempt_face_percent), 0, 100);
        range(&mut findings, "throttle.spoof-weight", u64::from(self.spoof_weight), 1, 100);
        range(&mut findings, "throttle.cool-down-ms", self.cool_down_ms, 0, 60_000);
        findings
    }
}

fn range(findings: &mut Findings, key: &str, value: u64, low: u64, high: u64) {
    if !(low..=high).contains(&value) {
        findings.push((key.to_owned(), format!("{value} is out of range: use {low} to {high}")));
    }
}

fn repeated<'a, T: std::hash::Hash + Eq + std::fmt::Display + 'a>(
    section: &str,
    ids: impl Iterator<Item = &'a T>,
    findings: &mut Findings,
) {
    let mut seen = HashSet::new();
    for (index, id) in ids.enumerate() {
        if !seen.insert(id) {
            findings.push((format!("{section}.{index}.id"), format!("there is another `{id}`: give each its own id")));
        }
    }
}
