//! Whole histories against a checker that knows nothing of the decider's code: it looks at what was seen, told and granted, and says for
//! each face at each door whether it had to be granted. Both a grant too many and one too few are wrong. To show that the checker can
//! fail, the same histories are given to deciders that are blind to one rule each: every one of them must be caught.
//!
//! A history is drawn from bytes, so that proptest can shorten it; the long run draws its bytes from a printed seed.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::access::policy::{CredentialNumber, DoorMode};
use crate::types::GroupId;

/// Histories of the long run.
const HISTORIES: usize = 100_000;
/// Histories within which a decider that is blind to one rule must be caught.
const SOON: usize = 4_000;

/// 2026-11-25T07:59:00Z, a minute before the day schedule begins.
const DAWN: i64 = 1_795_593_540_000;
const HOUR: i64 = 3_600_000;
const PEOPLE: [&str; 4] = ["ada", "bob", "cyd", "dan"];
const DOORS: [&str; 3] = ["in", "out", "front"];
/// Each camera with its doors.
const CAMERAS: [(&str, &[&str]); 4] =
    [("c-in", &["in"]), ("c-out", &["out"]), ("c-front", &["front"]), ("c-hall", &["front", "out"])];

const EMPTY: &str = "";
const OFFICE: &str = "
id = 'office'
schedules = [{ id = 'day', windows = [{ days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'], from = '08:00', to = '16:00' }] }]
groups = [{ id = 'staff', people = ['bob'] }]
areas = [{ id = 'lab', entries = ['in'], exits = ['out'], kind = 'hard', forget-after-h = 8760 }]
[[people]]
id = 'ada'
credentials = ['card-ada']
[[people]]
id = 'bob'
credentials = ['card-bob']
valid-to = '2026-11-25T12:00'
[[people]]
id = 'cyd'
valid-from = '2026-11-25T09:00'
[[doors]]
id = 'in'
mode = 'two-factor'
second-factor-window-s = 5
allow = [{ everyone = true }]
[[doors]]
id = 'out'
unsure-clock = 'trust'
allow = [{ everyone = true }]
[[doors]]
id = 'front'
allow = [{ people = ['ada'] }, { groups = ['staff'], schedule = 'day' }]
";
const VAULT: &str = "
id = 'vault'
throttle = { failures = 3, spoof-weight = 3 }
areas = [{ id = 'yard', entries = ['out'], kind = 'timed', window-s = 20 }]
[[doors]]
id = 'in'
mode = 'locked-down'
[[doors]]
id = 'out'
mode = 'normal'
allow = [{ everyone = true }]
[[doors]]
id = 'front'
people-needed = 2
people-window-s = 10
allow = [{ people = ['ada', 'bob', 'cyd'] }]
";

/// Rules that a decider can be blind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blind {
    Schedule,
    Expiry,
    Validity,
    Permission,
    Clock,
    Liveness,
    LivenessFrames,
    Frames,
    Freshness,
    Threshold,
    Margin,
    Gallery,
    Lockdown,
    LockedMode,
    Restart,
    Decided,
    Approach,
    Passback,
    Throttle,
    CoolDown,
    Factor,
    OthersCard,
    Company,
}

const ALL_BLIND: [Blind; 23] = [
    Blind::Schedule,
    Blind::Expiry,
    Blind::Validity,
    Blind::Permission,
    Blind::Clock,
    Blind::Liveness,
    Blind::LivenessFrames,
    Blind::Frames,
    Blind::Freshness,
    Blind::Threshold,
    Blind::Margin,
    Blind::Gallery,
    Blind::Lockdown,
    Blind::LockedMode,
    Blind::Restart,
    Blind::Decided,
    Blind::Approach,
    Blind::Passback,
    Blind::Throttle,
    Blind::CoolDown,
    Blind::Factor,
    Blind::OthersCard,
    Blind::Company,
];

#[derive(Debug, Clone)]
enum Step {
    See(Box<Observation>),
    Tell(Input),
    Restart,
}

/// A step, when it happened, and what was decided.
#[derive(Debug, Clone)]
struct Entry {
    step: Step,
    now: Moment,
    decisions: Vec<Decision>,
}

/// Draws from bytes; nothing when they are used up.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn of(&mut self, sides: u8) -> Option<usize> {
        self.0.next().map(|byte| usize::from(byte % sides))
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.of(u8::try_from(of.len()).unwrap()).map(|n| of[n])
    }

    /// Mostly the first.
    fn mostly<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let others = u8::try_from(of.len() - 1).unwrap();
        self.of(10 * others).map(|n| if n < of.len() { of[n] } else { of[0] })
    }
}

/// What happens, before anything is decided. The monotonic clock begins anew with each restart; the wall clock goes on.
fn history(bytes: &[u8]) -> (usize, Vec<(Step, Moment)>) {
    let mut dice = Dice(bytes.iter());
    let mut steps = Vec::new();
    let (mut elapsed, mut booted, mut tracks_before) = (0i64, -50_000i64, 0u64);
    let mut first_seen: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    let policy = dice.of(3).unwrap_or(0);
    let mut draw = || -> Option<(Step, Moment)> {
        let pause = dice.one(&[100, 100, 300, 700, 700, 1500, 4000, 4000, 11_000, 11_000, 40_000, HOUR])?;
        elapsed += pause;
        let ms = u64::try_from(elapsed - booted).unwrap();
        let mut now = Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(DAWN + elapsed) };
        let kind = dice.of(16)?;
        let step = match kind {
            0 => {
                booted = elapsed - 1000;
                now.monotonic = Monotonic(1_000_000_000);
                tracks_before += 10;
                first_seen.clear();
                Step::Restart
            }
            1 => Step::Tell(Input::Clock(dice.one(&[Clock::Synchronised, Clock::Synchronised, Clock::Unsure])?)),
            2 => {
                let door = dice.one(&[None, Some("in"), Some("out"), Some("front")])?.map(|name| DoorId::new(name).unwrap());
                Step::Tell(Input::Command(match dice.of(5)? {
                    0 | 1 => Command::Lockdown { door },
                    _ => Command::Release { door },
                }))
            }
            3 => Step::Tell(Input::Command(Command::Forgive { person: None })),
            4 | 5 => {
                let number = dice.one(&["card-ada", "card-ada", "card-bob", "card-nobody"])?;
                let door = DoorId::new(dice.mostly(&DOORS)?).unwrap();
                let credential = Credential::Number(CredentialNumber::new(number));
                Step::Tell(Input::Credential(CredentialRead { door, kind: Factor::Card, credential, at: now }))
            }
            6 => {
                let (camera, track) = (dice.of(4)?, dice.of(3)? as u64);
                Step::Tell(Input::TrackEnded(CameraId::new(CAMERAS[camera].0).unwrap(), TrackId(tracks_before + track)))
            }
            _ => {
                let camera = dice.of(4)?;
                let track = tracks_before + dice.of(6)? as u64;
                let delay = dice.mostly(&[40, 990, 1100])?.min(ms);
                let captured = ms - delay;
                let first = *first_seen.entry((camera, track)).or_insert(captured);
                Step::See(Box::new(seen(&mut dice, camera, track, (captured, first.min(captured)), now)?))
            }
        };
        Some((step, now))
    };
    while let Some(next) = draw() {
        steps.push(next);
    }
    (policy, steps)
}

fn seen(dice: &mut Dice<'_>, camera: usize, track: u64, (captured, first): (u64, u64), now: Moment) -> Option<Observation> {
    let at = |ms: u64| {
        let ago = i64::try_from(now.monotonic.0 / 1_000_000 - ms).unwrap();
        Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(now.wall.0 - ago) }
    };
    let (best, second) = (dice.of(4)?, dice.of(4)?);
    let score = dice.mostly(&[0.9, 0.5, 0.29, 0.31])?;
    let behind = dice.mostly(&[0.4, 0.04])?;
    let mut candidates = vec![candidate(PEOPLE[best], score)];
    if second != best {
        candidates.push(candidate(PEOPLE[second], score - behind));
    }
    let expires_at = dice.mostly(&[None, Some(-1), Some(0), Some(HOUR)])?.map(|after| Wall(now.wall.0 + after));
    let groups = if dice.of(8)? == 0 { vec![GroupId::new("staff").unwrap()] } else { Vec::new() };
    let profiles = candidates.iter().map(|c| (c.person.clone(), Profile { groups: groups.clone(), expires_at })).collect();
    Some(Observation {
        camera: CameraId::new(CAMERAS[camera].0).unwrap(),
        track: TrackId(track),
        captured_at: at(captured),
        first_usable_at: at(first),
        candidates,
        profiles,
        gallery: dice.mostly(&[true, false])?,
        liveness: dice.mostly(&[Some(0.9), Some(0.51), Some(0.49), Some(0.1), None])?.map(|l| PadScore::new(l).unwrap()),
        liveness_frames: dice.mostly(&[5, 3, 2])?,
        frames: dice.mostly(&[5, 3, 2])?,
        quality: 0.8,
        bounding_box: BoundingBox { x: dice.one(&[0.0, 0.0, 500.0])?, y: 0.0, width: 80.0, height: 90.0 },
        ended: dice.of(3)? == 0,
    })
}

/// What deciders are made of, perhaps blind to a rule: one for each policy, made once.
struct Sites {
    blind: Option<Blind>,
    made: [(Settings, Rules); 3],
    doors: [DoorSettings; 3],
}

impl Sites {
    fn new(blind: Option<Blind>) -> Self {
        let cameras = |door: &str| {
            let watching = CAMERAS.iter().filter(|(_, doors)| doors.contains(&door));
            watching.map(|(camera, _)| CameraId::new(*camera).unwrap()).collect()
        };
        let doors = DOORS.map(|door| DoorSettings { id: DoorId::new(door).unwrap(), cameras: cameras(door) });
        Self { blind, made: [EMPTY, OFFICE, VAULT].map(|policy| rules(policy, blind)), doors }
    }

    fn decider(&self, policy: usize) -> Decider {
        let (settings, rules) = self.made[policy].clone();
        let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
        let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
        Decider::new(device, settings, thresholds, &self.doors, rules, key)
    }
}

fn rules(policy: &str, blind: Option<Blind>) -> (Settings, Rules) {
    let mut settings = Settings::default();
    let mut rules: PolicySettings = toml::from_str(policy).unwrap();
    match blind {
        Some(Blind::Schedule) => rules.doors.iter_mut().flat_map(|d| &mut d.allow).for_each(|allow| allow.schedule = None),
        Some(Blind::Validity) => rules.people.iter_mut().for_each(|p| (p.valid_from, p.valid_to) = (None, None)),
        Some(Blind::Permission) => rules.doors.iter_mut().flat_map(|d| &mut d.allow).for_each(|allow| allow.everyone = true),
        Some(Blind::Liveness) => settings.require_liveness = false,
        Some(Blind::LivenessFrames) => settings.min_liveness_frames = 1,
        Some(Blind::Frames) => settings.min_frames = 1,
        Some(Blind::Freshness) => settings.max_age_ms = 60_000,
        Some(Blind::Threshold) => settings.match_threshold = Some(Score::MIN),
        Some(Blind::Margin) => settings.margin = Some(0.0),
        Some(Blind::LockedMode) => {
            let locked = rules.doors.iter_mut().filter(|door| door.mode == DoorMode::LockedDown);
            locked.for_each(|door| door.mode = DoorMode::Free);
        }
        Some(Blind::Approach) => settings.approach_ms = 0,
        Some(Blind::Passback) => rules.areas.clear(),
        Some(Blind::Throttle) => rules.throttle.failures = 0,
        Some(Blind::Factor) => {
            let doors = rules.doors.iter_mut().filter(|door| door.mode == DoorMode::TwoFactor);
            doors.for_each(|door| door.mode = DoorMode::Normal);
        }
        Some(Blind::Company) => rules.doors.iter_mut().for_each(|door| door.people_needed = 1),
        _ => {}
    }
    (settings, Rules::new(&rules).unwrap())
}

/// Lets a decider live through a history.
fn live(bytes: &[u8], sites: &Sites) -> (usize, Vec<Entry>) {
    let (policy, steps) = history(bytes);
    let blind = sites.blind;
    let mut decider = sites.decider(policy);
    let mut grants = 0u32;
    let mut log: Vec<Entry> = Vec::new();
    for (number, (step, now)) in steps.into_iter().enumerate() {
        let mut decisions = Vec::new();
        match &step {
            Step::Restart => {
                // The process was away for no time at all: the old clock says what it would have said now.
                let last = log.last().map_or(now, |entry| entry.now);
                let since = Duration::from_millis(u64::try_from(now.wall.0 - last.wall.0).unwrap());
                let kept = decider.state(last.plus(since));
                decider = sites.decider(policy);
                if blind != Some(Blind::Restart) {
                    decider.restore(serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap(), now);
                }
            }
            Step::Tell(input) => {
                if let Some(input) = heard(input, blind) {
                    let _ = decider.take(input, now);
                }
            }
            Step::See(observation) => {
                let perceived = perceived(observation, blind, number);
                let mut id = || {
                    grants += 1;
                    grants.to_string()
                };
                decisions = decider.decide(&perceived, now, &mut id);
                decisions.iter_mut().for_each(|decision| decision.track = observation.track);
            }
        }
        log.push(Entry { step, now, decisions });
    }
    (policy, log)
}

fn heard(input: &Input, blind: Option<Blind>) -> Option<Input> {
    match (blind, input) {
        (Some(Blind::Lockdown), Input::Command(Command::Lockdown { .. })) => None,
        (Some(Blind::Clock), Input::Clock(_)) => Some(Input::Clock(Clock::Synchronised)),
        (Some(Blind::OthersCard), Input::Credential(read)) => {
            // Takes every card for the card of whoever comes most often.
            Some(Input::Credential(CredentialRead {
                credential: Credential::Person(PersonId::new("bob").unwrap()),
                ..read.clone()
            }))
        }
        _ => Some(input.clone()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "step numbers are small")]
fn perceived(observation: &Observation, blind: Option<Blind>, number: usize) -> Observation {
    let mut perceived = observation.clone();
    match blind {
        Some(Blind::Expiry) => perceived.profiles.values_mut().for_each(|profile| profile.expires_at = None),
        Some(Blind::Gallery) => perceived.gallery = true,
        Some(Blind::Decided) => perceived.track = TrackId(1000 + number as u64),
        Some(Blind::CoolDown) => perceived.bounding_box.y = 1000.0 * number as f32,
        _ => {}
    }
    perceived
}

/// What the three policies say, in the checker's own words.
struct Facts {
    office: bool,
    vault: bool,
}

impl Facts {
    /// Whether the rules let a person through a door at a time, with a clock that can or cannot be relied on.
    fn permits(&self, door: &str, person: &str, profile: &Profile, wall: i64, synced: bool) -> bool {
        if profile.expires_at.is_some_and(|end| wall >= end.0) {
            return false;
        }
        let noon = DAWN + 60_000 + 4 * HOUR;
        let nine = DAWN + 60_000 + HOUR;
        if self.office && ((person == "bob" && wall >= noon) || (person == "cyd" && wall < nine)) {
            return false;
        }
        let has_end = profile.expires_at.is_some() || (self.office && matches!(person, "bob" | "cyd"));
        let is_relying = synced || (!self.office && !self.vault) || (self.office && door == "out");
        if has_end && !is_relying {
            return false;
        }
        let hour = wall.rem_euclid(24 * HOUR) / HOUR;
        let is_staff = person == "bob" || profile.groups.iter().any(|group| group.as_str() == "staff");
        match door {
            "front" if self.office => person == "ada" || (is_staff && is_relying && (8..16).contains(&hour)),
            "front" if self.vault => person != "dan",
            "in" if self.vault => false,
            _ => true,
        }
    }
}

/// The process's current run within a log.
fn since_restart(log: &[Entry]) -> &[Entry] {
    let start = log.iter().rposition(|entry| matches!(entry.step, Step::Restart)).map_or(0, |at| at + 1);
    &log[start..]
}

fn grants_at<'a>(log: &'a [Entry], door: &'a str) -> impl DoubleEndedIterator<Item = (&'a Entry, &'a str)> {
    log.iter().flat_map(move |entry| {
        let granted = entry.decisions.iter().filter(move |d| d.door.as_str() == door && d.outcome == Outcome::Granted);
        granted.map(move |d| (entry, d.person.as_ref().unwrap().as_str()))
    })
}

fn is_locked(before: &[Entry], door: &str) -> bool {
    let mut locked: Vec<&str> = Vec::new();
    for entry in before {
        let Step::Tell(Input::Command(command)) = &entry.step else { continue };
        match command {
            Command::Lockdown { door: None } => locked = DOORS.to_vec(),
            Command::Lockdown { door: Some(one) } => locked.extend(DOORS.iter().filter(|d| **d == one.as_str())),
            Command::Release { door: None } => locked.clear(),
            Command::Release { door: Some(one) } => locked.retain(|d| *d != one.as_str()),
            Command::Forgive { .. } => {}
        }
    }
    locked.contains(&door)
}

/// Blocks, from the failures themselves, by the wall clock, which restarts do not touch here.
fn is_blocked(facts: &Facts, before: &[Entry], door: &str, now: i64) -> bool {
    let (limit, spoof) = if facts.vault { (3, 3) } else { (5, 2) };
    let (mut failures, mut blocked_until, mut blocks): (Vec<(i64, u32)>, i64, u32) = (Vec::new(), i64::MIN, 0);
    for (index, entry) in before.iter().enumerate() {
        let at = entry.now.wall.0;
        let of_decisions = entry.decisions.iter().filter(|d| d.door.as_str() == door).map(|d| match d.reason {
            Reason::Unknown | Reason::Ambiguous => 1,
            Reason::Spoof => spoof,
            // Only a card that is another's is a failure: with none at hand the person may have forgotten it.
            Reason::SecondFactor => u32::from(card(&before[..index], door, at).is_some()),
            _ => 0,
        });
        let mut weight: u32 = of_decisions.sum();
        if let Step::Tell(Input::Credential(read)) = &entry.step
            && read.door.as_str() == door
            && owner(facts, read).is_none()
        {
            weight = 1;
        }
        if weight == 0 || at < blocked_until {
            continue;
        }
        failures.retain(|(then, _)| at - then < 300_000);
        failures.push((at, weight));
        if failures.iter().map(|(_, weight)| weight).sum::<u32>() >= limit {
            // After a day without a block the next one is a first one.
            blocks = if blocks > 0 && at - blocked_until >= 24 * HOUR { 0 } else { blocks.min(16) };
            blocked_until = at + (30_000i64 << blocks).min(HOUR);
            blocks += 1;
            failures.clear();
        }
    }
    now < blocked_until
}

fn owner(facts: &Facts, read: &CredentialRead) -> Option<&'static str> {
    let Credential::Number(number) = &read.credential else { return None };
    let owners = [("card-ada", "ada"), ("card-bob", "bob")];
    owners.into_iter().find(|(card, _)| facts.office && *number == CredentialNumber::new(*card)).map(|(_, owner)| owner)
}

/// Whose card waits at an office's door after these entries.
fn card(before: &[Entry], door: &str, now: i64) -> Option<&'static str> {
    let facts = Facts { office: true, vault: false };
    let run = since_restart(before);
    let (at, read) = run.iter().enumerate().rev().find_map(|(at, entry)| match &entry.step {
        Step::Tell(Input::Credential(read)) if read.door.as_str() == door => Some((at, owner(&facts, read)?)),
        _ => None,
    })?;
    let is_late = now - run[at].now.wall.0 > 5000;
    let is_used = grants_at(&run[at..], door).next().is_some();
    if is_late || is_used { None } else { Some(read) }
}

fn broke_passback(facts: &Facts, before: &[Entry], door: &str, person: &str, now: i64) -> bool {
    let forgiven = before.iter().rposition(|e| matches!(e.step, Step::Tell(Input::Command(Command::Forgive { .. }))));
    let known = &before[forgiven.map_or(0, |at| at + 1)..];
    let last = |door: &str| grants_at(known, door).rfind(|(_, who)| *who == person).map(|(entry, _)| entry.now.wall.0);
    match door {
        "in" if facts.office => last("in").is_some_and(|inside| last("out").is_none_or(|outside| inside > outside)),
        "out" if facts.office => last("out").is_some_and(|outside| last("in").is_none_or(|inside| outside > inside)),
        "out" if facts.vault => last("out").is_some_and(|at| now - at < 20_000),
        _ => false,
    }
}

/// Whether an attack was seen a moment ago where this face stands.
fn is_hot(run: &[Entry], seen: &Observation) -> bool {
    run.iter().enumerate().any(|(at, entry)| {
        let Step::See(attack) = &entry.step else { return false };
        let heated = entry.decisions.iter().any(|d| d.reason == Reason::Spoof);
        if !heated || attack.camera != seen.camera || attack.track == seen.track {
            return false;
        }
        // A second door's decision on the same track heats its place anew.
        let again = run[at + 1..].iter().any(|later| {
            matches!(&later.step, Step::See(o) if o.camera == attack.camera && o.track == attack.track)
                && later.decisions.iter().any(|d| d.reason == Reason::Spoof)
        });
        let ended = run[at + 1..].iter().find(|later| {
            matches!(&later.step, Step::Tell(Input::TrackEnded(camera, track)) if *camera == attack.camera && *track == attack.track)
        });
        let cold = ended.map_or(entry.now.monotonic.0 / 1_000_000 + 10_000, |end| end.now.monotonic.0 / 1_000_000 + 1000);
        let near = (attack.bounding_box.x - seen.bounding_box.x).abs() <= 80.0;
        !again && near && seen.first_usable_at.monotonic.0 / 1_000_000 < cold
    })
}

/// Whether the evidence and the rules alone let somebody through, whatever was granted before on this approach. Gives the person.
fn deserves<'a>(facts: &Facts, before: &'a [Entry], entry: &Entry, seen: &'a Observation, door: &str) -> Option<&'a str> {
    let run = since_restart(before);
    let now = entry.now.wall.0;
    let age = entry.now.monotonic.0.abs_diff(seen.captured_at.monotonic.0) / 1_000_000;
    let is_evidence = seen.gallery
        && age <= 1000
        && seen.frames >= 3
        && seen.liveness_frames >= 3
        && seen.liveness.is_some_and(|score| score.value() >= 0.5);
    if !is_evidence || is_locked(before, door) || is_blocked(facts, before, door, now) || is_hot(run, seen) {
        return None;
    }
    let (best, second) = (&seen.candidates[0], seen.candidates.get(1));
    let lead = second.map_or(f32::INFINITY, |second| best.score.value() - second.score.value());
    let who = if facts.office && door == "in" {
        let claimed = card(before, door, now)?;
        let mine = seen.candidates.iter().find(|c| c.person.as_str() == claimed)?;
        let is_beaten = best.person != mine.person && lead > 0.05;
        (mine.score.value() >= 0.3 && !is_beaten).then_some(mine)?
    } else {
        (best.score.value() >= 0.3 && lead >= 0.05).then_some(best)?
    };
    let clock = run.iter().rev().find_map(|e| match &e.step {
        Step::Tell(Input::Clock(clock)) => Some(*clock),
        _ => None,
    });
    let (person, profile) = (who.person.as_str(), seen.profiles.get(&who.person)?);
    let is_synced = clock == Some(Clock::Synchronised);
    let may = facts.permits(door, person, profile, now, is_synced) && !broke_passback(facts, before, door, person, now);
    may.then_some(person)
}

/// Whether company came before, where the vault asks for it.
fn has_company(before: &[Entry], door: &str, person: &str, now: i64) -> bool {
    let run = since_restart(before);
    let last_grant = run.iter().rposition(|e| e.decisions.iter().any(|d| d.door.as_str() == door && d.grant.is_some()));
    run[last_grant.map_or(0, |at| at + 1)..].iter().any(|entry| {
        now - entry.now.wall.0 <= 10_000
            && entry.decisions.iter().any(|d| {
                d.door.as_str() == door
                    && d.reason == Reason::TooFewPeople
                    && d.person.as_ref().is_some_and(|other| other.as_str() != person)
            })
    })
}

/// How often a history granted, or what was wrong in it.
fn check(policy: usize, log: &[Entry]) -> Result<usize, String> {
    let facts = Facts { office: policy == 1, vault: policy == 2 };
    let mut grants = 0;
    let mut ids = Vec::new();
    // Tracks that were let go as the same approach leave no decision.
    let mut silent: Vec<(usize, &str, TrackId, &str)> = Vec::new();
    let mut run_number = 0;
    for (at, entry) in log.iter().enumerate() {
        run_number += usize::from(matches!(entry.step, Step::Restart));
        let Step::See(seen) = &entry.step else { continue };
        let (before, run) = (&log[..at], since_restart(&log[..at]));
        let (_, doors) = CAMERAS.iter().find(|(camera, _)| *camera == seen.camera.as_str()).unwrap();
        for door in DOORS.iter().filter(|door| doors.contains(door)) {
            let given = entry.decisions.iter().find(|d| d.door.as_str() == *door);
            let is_granted = given.is_some_and(|d| d.outcome == Outcome::Granted);
            let was_decided = silent.contains(&(run_number, seen.camera.as_str(), seen.track, *door))
                || run.iter().any(|e| {
                    e.decisions.iter().any(|d| d.camera == seen.camera && d.track == seen.track && d.door.as_str() == *door)
                });
            let mut should = deserves(&facts, before, entry, seen, door).filter(|_| !was_decided);
            if let Some(person) = should {
                let last = grants_to(run, door, person, &facts);
                if last.is_some_and(|last| entry.now.wall.0 - last < 3000) {
                    silent.push((run_number, seen.camera.as_str(), seen.track, *door));
                    should = None;
                } else if facts.vault && *door == "front" && !has_company(before, door, person, entry.now.wall.0) {
                    should = None;
                }
            }
            let got = given.filter(|_| is_granted).and_then(|d| d.person.as_ref()).map(PersonId::as_str);
            if got != should {
                return Err(format!("step {at} at {door}: granted {got:?}, should be {should:?}"));
            }
            if let Some(decision) = given {
                let mut problem = String::new();
                if decision.grant.is_some() != is_granted {
                    let _ = write!(problem, "a token without a grant");
                }
                if decision.policy.id.as_str() != ["default", "office", "vault"][policy] {
                    let _ = write!(problem, "another policy's name");
                }
                if was_decided {
                    let _ = write!(problem, "decided twice");
                }
                if !problem.is_empty() {
                    return Err(format!("step {at} at {door}: {problem}"));
                }
                if let Some(token) = decision.grant.as_ref().filter(|_| is_granted) {
                    claims(token, decision, entry.now, &mut ids).map_err(|wrong| format!("step {at} at {door}: {wrong}"))?;
                    grants += 1;
                }
            }
        }
    }
    Ok(grants)
}

/// When a person was last let through a door in this run; the vault's company passes with the one who is granted.
fn grants_to(run: &[Entry], door: &str, person: &str, facts: &Facts) -> Option<i64> {
    let own = grants_at(run, door).rfind(|(_, who)| *who == person).map(|(entry, _)| entry.now.wall.0);
    if !(facts.vault && door == "front") {
        return own;
    }
    let in_company =
        run.iter().enumerate().filter(|(_, e)| e.decisions.iter().any(|d| d.door.as_str() == door && d.grant.is_some()));
    let in_company = in_company.filter(|(at, entry)| {
        let earlier = &run[..*at];
        let begin = earlier.iter().rposition(|e| e.decisions.iter().any(|d| d.door.as_str() == door && d.grant.is_some()));
        earlier[begin.map_or(0, |at| at + 1)..].iter().any(|e| {
            entry.now.wall.0 - e.now.wall.0 <= 10_000
                && e.decisions.iter().any(|d| {
                    d.reason == Reason::TooFewPeople
                        && d.door.as_str() == door
                        && d.person.as_ref().is_some_and(|p| p.as_str() == person)
                })
        })
    });
    own.max(in_company.last().map(|(_, entry)| entry.now.wall.0))
}

/// What the token itself says.
fn claims(token: &str, decision: &Decision, now: Moment, ids: &mut Vec<String>) -> Result<(), &'static str> {
    use base64::Engine;
    let middle = token.split('.').nth(1).ok_or("no claims")?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(middle).map_err(|_| "no base64")?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|_| "no claims")?;
    let seconds = now.wall.0.div_euclid(1000);
    match () {
        () if claims.aud != decision.door => Err("for another door"),
        () if Some(&claims.sub) != decision.person.as_ref() => Err("for another person"),
        () if claims.iat != seconds || claims.nbf != seconds || claims.exp != seconds + 5 => Err("at another time"),
        () if ids.contains(&claims.jti) => Err("an id that was used"),
        () => {
            ids.push(claims.jti);
            Ok(())
        }
    }
}

fn drawn(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..random.usize(60..360)).map(|_| random.u8(..)).collect()
}

#[test]
fn no_history_of_a_hundred_thousand_grants_outside_the_rules_or_refuses_within_them() {
    let seed = fastrand::u64(..) >> 20;
    println!("seeds from {seed}");
    let sites = Sites::new(None);
    let (mut grants, mut steps) = (0, 0);
    for n in 0..HISTORIES as u64 {
        let (policy, log) = live(&drawn(seed + n), &sites);
        steps += log.len();
        grants += check(policy, &log).unwrap_or_else(|wrong| panic!("seed {}: {wrong}\n{log:#?}", seed + n));
    }
    println!("{HISTORIES} histories, {steps} steps, {grants} grants");
    assert!(grants > HISTORIES, "the histories say little: {grants} grants");
}

#[test]
fn a_decider_that_is_blind_to_any_one_rule_is_caught() {
    let mut missed = Vec::new();
    for blind in ALL_BLIND {
        let sites = Sites::new(Some(blind));
        let caught = (0..SOON as u64).find(|n| {
            let (policy, log) = live(&drawn(7_000_000 + n), &sites);
            check(policy, &log).is_err()
        });
        match caught {
            Some(after) => println!("{blind:?}: caught by history {after}"),
            None => missed.push(blind),
        }
    }
    assert!(missed.is_empty(), "nobody noticed that the decider was blind to {missed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_history_that_can_be_shortened_breaks_the_rules(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (policy, log) = live(&bytes, &Sites::new(None));
        if let Err(wrong) = check(policy, &log) {
            prop_assert!(false, "{wrong}\n{log:#?}");
        }
    }
}
