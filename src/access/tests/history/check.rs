//! The checker: whether a history's grants are those that had to be given, from what was seen and told alone. It knows nothing of the
//! decider's code and is written for being read, not for speed: each question looks through the log again.

mod account;

use std::fmt::Write;

use super::*;
use account::*;

/// What the policies say, in the checker's own words.
#[derive(Default, Clone, Copy)]
struct Facts {
    office: bool,
    vault: bool,
    guarded: bool,
    annex: bool,
}

impl Facts {
    /// Whether the rules let a person through a door at a time, with a clock that can or cannot be relied on.
    fn permits(&self, door: &str, person: &str, profile: &Profile, wall: i64, clock: Clock) -> bool {
        if profile.expires_at.is_some_and(|end| wall >= end.0) {
            return false;
        }
        let noon = DAWN + 60_000 + 4 * HOUR;
        let nine = DAWN + 60_000 + HOUR;
        if self.office && ((person == "bob" && wall >= noon) || (person == "cyd" && wall < nine)) {
            return false;
        }
        let has_end = profile.expires_at.is_some() || (self.office && matches!(person, "bob" | "cyd"));
        // Only where a policy says so is a clock believed that nobody vouches for, and one that was set back nowhere.
        let is_trusted = self.office && door == "out";
        let is_relying = clock == Clock::Synchronised || (clock == Clock::Unsure && is_trusted);
        if has_end && !is_relying {
            return false;
        }
        let hour = wall.rem_euclid(24 * HOUR) / HOUR;
        let is_staff = person == "bob" || profile.groups.iter().any(|group| group.as_str() == "staff");
        match door {
            "front" if self.office => person == "ada" || (is_staff && is_relying && (8..16).contains(&hour)),
            "front" if self.vault => person != "dan",
            "front" if self.annex => is_relying && (9..11).contains(&hour),
            "in" if self.vault => false,
            _ => true,
        }
    }
}

impl Facts {
    /// The least comparison score, liveness score and number of frames at a door.
    fn least(&self, door: &str) -> (f32, f32, u32) {
        if self.annex && door == "out" { (0.6, 0.6, 5) } else { (0.3, 0.5, 3) }
    }

    /// What a refusal for a reason counts as a failure, after these entries.
    fn weight(&self, before: &[Entry], door: &str, reason: Reason, now: i64) -> u32 {
        match reason {
            Reason::Unknown | Reason::Ambiguous => 1,
            Reason::Spoof => 2 + u32::from(self.vault),
            // Only a card that is another's is a failure: with none at hand the person may have forgotten it.
            Reason::SecondFactor => u32::from(card(before, door, now).is_some()),
            _ => 0,
        }
    }

    /// How many failures block a door.
    fn limit(&self) -> u32 {
        if self.vault || self.office { 3 } else { 5 }
    }

    /// What is to be said of a grant.
    fn marks(&self, before: &[Entry], door: &str, person: &str) -> Vec<Mark> {
        let last = |door: &str| grants_at(before, door).rfind(|(_, who)| *who == person).map(|(entry, _)| entry.now.wall.0);
        let forgiven = before.iter().rfind(|e| matches!(e.step, Step::Tell(Input::Command(Command::Forgive { .. }))));
        let since = forgiven.map_or(i64::MIN, |entry| entry.now.wall.0);
        let mut marks = Vec::new();
        if self.annex && person == "cyd" {
            marks.push(Mark::Duress);
        }
        let (outside, inside) = (last("out").filter(|at| *at >= since), last("in").filter(|at| *at >= since));
        if self.annex && door == "out" && outside.is_some_and(|at| inside.is_none_or(|inside| at > inside)) {
            marks.push(Mark::Passback);
        }
        marks
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

/// Why a face is refused at a door that may be blocked: what is told, and what that hides.
fn told_refusal(
    facts: &Facts,
    before: &[Entry],
    entry: &Entry,
    seen: &Observation,
    door: &str,
) -> (Option<Reason>, Option<Reason>) {
    let now = entry.now.wall.0;
    match nameless_refusal(facts, before, entry, seen, door) {
        Some(reason @ (Reason::Lockdown | Reason::Throttled)) => (Some(reason), None),
        Some(reason) if is_blocked(facts, before, door, now) => (Some(Reason::Throttled), Some(reason)),
        Some(reason) => (Some(reason), None),
        None => {
            let who = recognised(facts, before, seen, door, now);
            let may = who.is_some_and(|who| may_pass(facts, before, entry, who, seen, door));
            match who.map(|who| bar(facts, before, entry, seen, door, (who.person.as_str(), may))) {
                Some(Bar::Refused(reason)) => (Some(Reason::Throttled), Some(reason)),
                // Whatever is said of it is said too early.
                Some(Bar::Held) => (Some(Reason::Match), None),
                Some(Bar::Open) | None => (None, None),
            }
        }
    }
}

/// Who is recognised, by the face and, where it is asked for, the card.
fn recognised<'a>(facts: &Facts, before: &[Entry], seen: &'a Observation, door: &str, now: i64) -> Option<&'a Candidate> {
    let (least_score, ..) = facts.least(door);
    let (best, second) = (&seen.candidates[0], seen.candidates.get(1));
    let lead = second.map_or(f32::INFINITY, |second| best.score.value() - second.score.value());
    if facts.office && door == "in" {
        let claimed = card(before, door, now)?.owner?;
        let mine = seen.candidates.iter().find(|c| c.person.as_str() == claimed)?;
        let is_beaten = best.person != mine.person && lead > 0.05;
        (mine.score.value() >= least_score && !is_beaten).then_some(mine)
    } else {
        (best.score.value() >= least_score && lead >= 0.05).then_some(best)
    }
}

/// Whether the rules, and where the person is, let whoever was recognised pass.
fn may_pass(facts: &Facts, before: &[Entry], entry: &Entry, who: &Candidate, seen: &Observation, door: &str) -> bool {
    let now = entry.now.wall.0;
    let clock = clock_after(since_restart(before));
    let (person, profile) = (who.person.as_str(), &seen.profiles[&who.person]);
    facts.permits(door, person, profile, now, clock) && !broke_passback(facts, before, door, person, now)
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

/// Whether an attack was seen, whether or not it was told.
fn is_attack(entry: &Entry) -> bool {
    let unsaid = entry.unsaid.iter().chain(&entry.hidden).map(|(_, reason)| *reason);
    entry.decisions.iter().map(|d| d.reason).chain(unsaid).any(|reason| reason == Reason::Spoof)
}

/// Whether an attack was seen a moment ago where this face stands.
fn is_hot(run: &[Entry], seen: &Observation) -> bool {
    run.iter().enumerate().any(|(at, entry)| {
        let Step::See(attack) = &entry.step else { return false };
        let heated = is_attack(entry);
        if !heated || attack.camera != seen.camera || attack.track == seen.track {
            return false;
        }
        // A second door's decision on the same track heats its place anew.
        let again = run[at + 1..].iter().any(|later| {
            matches!(&later.step, Step::See(o) if o.camera == attack.camera && o.track == attack.track)
                && is_attack(later)
        });
        let ended = run[at + 1..].iter().find(|later| {
            matches!(&later.step, Step::Tell(Input::TrackEnded(camera, track, _)) if *camera == attack.camera && *track == attack.track)
        });
        let carried = ended.and_then(|end| if let Step::Tell(Input::TrackEnded(.., last)) = &end.step { Some(last.x) } else { None });
        let cold = ended.map_or(entry.now.monotonic.0 / 1_000_000 + 10_000, |end| end.now.monotonic.0 / 1_000_000 + 1000);
        let is_beside = |x: f32| (x - seen.bounding_box.x).abs() <= 80.0;
        let near = is_beside(attack.bounding_box.x) || carried.is_some_and(is_beside);
        !again && near && seen.first_usable_at.monotonic.0 / 1_000_000 < cold
    })
}

/// What somebody was told to do at a door.
fn prompt<'a>(run: &'a [Entry], door: &str, camera: &CameraId, track: TrackId) -> Option<(&'a Entry, &'a Prompt)> {
    run.iter().find_map(|entry| {
        let found = entry.prompts.iter().find(|p| p.door.as_str() == door && p.camera == *camera && p.track == track);
        found.map(|prompt| (entry, prompt))
    })
}

/// Where the newest face looks.
fn yaw(seen: &Observation) -> Option<f32> {
    seen.samples.last()?.yaw
}

/// Whether the face, seen now, has done what it was told, in time and as the same person.
fn has_turned(run: &[Entry], seen: &Observation, door: &str, person: &str) -> bool {
    let Some((asked, prompt)) = prompt(run, door, &seen.camera, seen.track) else { return false };
    let Step::See(then) = &asked.step else { return false };
    let captured = seen.captured_at.monotonic.0 / 1_000_000;
    let told = asked.now.monotonic.0 / 1_000_000;
    let was_same = then.candidates[0].person.as_str() == person;
    let (Some(from), Some(to)) = (yaw(then), yaw(seen)) else { return false };
    let turn = if prompt.side == Side::Left { to - from } else { from - to };
    was_same && captured > told && captured <= told + 6000 && turn >= 15.0
}

/// How often the second camera saw the face where it was at that time, and how often it saw it not there; none while it does not look.
/// With `own`, in the moments alone about which the visit has a sample of the person: every sample of a history is of one face.
fn testimony(run: &[Entry], seen: &Observation, own: bool) -> Option<(usize, usize)> {
    let at = seen.captured_at.monotonic.0 / 1_000_000;
    let all = run.iter().filter_map(|entry| if let Step::Testify(sightings) = &entry.step { Some(sightings) } else { None });
    let moment: Vec<(u64, bool)> = all
        .flatten()
        .filter_map(|sighting| {
            let moment = sighting.captured_at.monotonic;
            let then = seen.trajectory.at(moment)?;
            let is_sampled =
                |ago: u64| (seen.captured_at.monotonic.0.saturating_sub(ago * 200_000_000)).abs_diff(moment.0) <= 200_000_000;
            if own && !(0..u64::from(seen.frames)).any(is_sampled) {
                return None;
            }
            let near = |face: &Place| (face.x - then.x).abs() <= 0.15 && (face.y - then.y).abs() <= 0.15;
            Some((sighting.captured_at.monotonic.0 / 1_000_000, sighting.faces.iter().any(near)))
        })
        .filter(|(then, _)| *then + 1000 >= at && *then <= at + 300)
        .collect();
    let agreeing = moment.iter().filter(|(_, near)| *near).count();
    moment.iter().any(|(then, _)| *then + 500 >= at).then(|| (agreeing, moment.len() - agreeing))
}

fn is_contradicted(run: &[Entry], seen: &Observation, own: bool) -> bool {
    testimony(run, seen, own).is_some_and(|(agreeing, others)| others >= 3 && others >= 2 * agreeing)
}

fn is_witnessed(run: &[Entry], seen: &Observation, own: bool) -> bool {
    testimony(run, seen, own).is_some_and(|(agreeing, others)| agreeing >= 3 && agreeing >= 2 * others)
}

/// Whether somebody was called an attack for nothing but what a second camera did not see, though it did not look or saw both.
fn is_slander(facts: &Facts, run: &[Entry], seen: &Observation, decision: &Decision) -> bool {
    let (_, least, _) = facts.least(decision.door.as_str());
    let is_live = !seen.is_flat && seen.liveness.is_some_and(|score| score.value() >= least);
    let is_contradicted =
        facts.guarded && decision.door.as_str() == "out" && [false, true].iter().any(|own| is_contradicted(run, seen, *own));
    decision.reason == Reason::Spoof && is_live && !is_contradicted
}

/// Why a face is refused without a word of whose it is, at a door that is not blocked: the first of the rules, in the order in which they
/// are asked, that it breaks.
fn nameless_refusal(facts: &Facts, before: &[Entry], entry: &Entry, seen: &Observation, door: &str) -> Option<Reason> {
    let (run, now) = (since_restart(before), entry.now.wall.0);
    let (least_score, least_liveness, least_frames) = facts.least(door);
    if is_locked(before, door) || (facts.vault && door == "in") {
        return Some(Reason::Lockdown);
    }
    if is_hot(run, seen) {
        return Some(Reason::Throttled);
    }
    if !seen.gallery {
        return Some(Reason::GalleryUnavailable);
    }
    match seen.liveness {
        _ if seen.is_flat => return Some(Reason::Spoof),
        None => return Some(Reason::LivenessUncertain),
        Some(score) if score.value() < least_liveness => return Some(Reason::Spoof),
        Some(_) => {}
    }
    let unwitnessed = |own: bool| {
        let is_asked = facts.guarded && door == "out" && !is_witnessed(run, seen, own);
        is_asked.then(|| if is_contradicted(run, seen, own) { Reason::Spoof } else { Reason::Witness })
    };
    if let Some(reason) = unwitnessed(false) {
        return Some(reason);
    }
    let (best, second) = (&seen.candidates[0], seen.candidates.get(1));
    let lead = second.map_or(f32::INFINITY, |second| best.score.value() - second.score.value());
    let is_known = best.score.value() >= least_score;
    if facts.office && door == "in" {
        let Some(card) = card(before, door, now) else {
            return Some(if is_known { Reason::SecondFactor } else { Reason::Unknown });
        };
        let is_claimed = |c: &&Candidate| Some(c.person.as_str()) == card.owner && c.score.value() >= least_score;
        let mine = seen.candidates.iter().find(is_claimed);
        if mine.is_none_or(|mine| best.person != mine.person && lead > 0.05) {
            return Some(Reason::SecondFactor);
        }
    } else if !is_known {
        return Some(Reason::Unknown);
    } else if lead < 0.05 {
        return Some(Reason::Ambiguous);
    }
    if seen.frames < least_frames || seen.liveness_frames < 3 {
        return seen.ended.then_some(Reason::LivenessUncertain);
    }
    unwitnessed(true)
}

/// Whether the evidence and the rules alone let somebody through, whatever was granted before on this approach. Gives the person.
fn deserves<'a>(facts: &Facts, before: &'a [Entry], entry: &Entry, seen: &'a Observation, door: &str) -> Option<&'a str> {
    let run = since_restart(before);
    let now = entry.now.wall.0;
    let age = entry.now.monotonic.0.abs_diff(seen.captured_at.monotonic.0) / 1_000_000;
    let (_, least_liveness, least_frames) = facts.least(door);
    let is_evidence = seen.gallery
        && age <= 1000
        && seen.frames >= least_frames
        && seen.liveness_frames >= 3
        && !seen.is_flat
        && seen.liveness.is_some_and(|score| score.value() >= least_liveness)
        && (!facts.guarded || door != "out" || [false, true].iter().all(|own| is_witnessed(run, seen, *own)));
    if !is_evidence || is_locked(before, door) || is_hot(run, seen) {
        return None;
    }
    let who = recognised(facts, before, seen, door, now)?;
    let person = who.person.as_str();
    let may = may_pass(facts, before, entry, who, seen, door) && bar(facts, before, entry, seen, door, (person, true)) == Bar::Open;
    may.then_some(person)
}

/// What the clock was said to be last.
fn clock_after(run: &[Entry]) -> Clock {
    let told = run.iter().rev().find_map(|e| match &e.step {
        Step::Tell(Input::Clock(clock)) => Some(*clock),
        _ => None,
    });
    told.unwrap_or_default()
}

/// Who waits at the vault's door for company at `now`, after this run: whoever was refused for being too few since the last grant there, for
/// ten seconds, and while the rules would let that person through, asked whenever another one comes.
fn waiting<'a>(facts: &Facts, run: &'a [Entry], door: &str, now: i64) -> Vec<&'a str> {
    let last_grant = run.iter().rposition(|e| e.decisions.iter().any(|d| d.door.as_str() == door && d.grant.is_some()));
    let mut waiting: Vec<(&str, &Profile, i64)> = Vec::new();
    let keep = |waiting: &mut Vec<(&str, &Profile, i64)>, now: i64, clock: Clock| {
        waiting.retain(|(who, profile, at)| now - at <= 10_000 && facts.permits(door, who, profile, now, clock));
    };
    for at in last_grant.map_or(0, |at| at + 1)..run.len() {
        let entry = &run[at];
        let Step::See(seen) = &entry.step else { continue };
        for decision in entry.decisions.iter().filter(|d| d.door.as_str() == door && d.reason == Reason::TooFewPeople) {
            let Some(person) = &decision.person else { continue };
            waiting.retain(|(who, ..)| *who != person.as_str());
            waiting.push((person.as_str(), &seen.profiles[person], entry.now.wall.0));
            keep(&mut waiting, entry.now.wall.0, clock_after(&run[..at]));
        }
    }
    keep(&mut waiting, now, clock_after(run));
    waiting.into_iter().map(|(who, ..)| who).collect()
}

/// Whether company came before, where the vault asks for it.
fn has_company(facts: &Facts, before: &[Entry], door: &str, person: &str, now: i64) -> bool {
    waiting(facts, since_restart(before), door, now).iter().any(|other| *other != person)
}

/// How often a history granted, or what was wrong in it.
pub(super) fn check(policy: usize, log: &mut [Entry]) -> Result<usize, String> {
    let facts = Facts { office: policy == 1, vault: policy == 2, guarded: policy == 3, annex: policy == 4 };
    let mut grants = 0;
    let mut ids = Vec::new();
    // Tracks that were let go as the same approach leave no decision.
    let mut silent: Vec<(usize, CameraId, TrackId, &str)> = Vec::new();
    let mut run_number = 0;
    for at in 0..log.len() {
        let (before, rest) = log.split_at_mut(at);
        let (before, entry) = (&*before, &mut rest[0]);
        run_number += usize::from(matches!(entry.step, Step::Restart));
        if !matches!(entry.step, Step::See(_)) && entry.decisions.iter().any(|d| d.outcome == Outcome::Granted) {
            return Err(format!("step {at}: granted with nobody there"));
        }
        entry.failed = failed_turns(&facts, before, entry);
        let Step::See(seen) = &entry.step else { continue };
        let run = since_restart(before);
        let (mut unsaid, mut hidden, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let (_, doors) = CAMERAS.iter().find(|(camera, _)| *camera == seen.camera.as_str()).unwrap();
        for door in DOORS.iter().filter(|door| doors.contains(door)) {
            let own = |d: &&Decision| d.door.as_str() == *door && d.camera.as_ref() == Some(&seen.camera) && d.track == seen.track;
            let given = entry.decisions.iter().find(own);
            let is_granted = given.is_some_and(|d| d.outcome == Outcome::Granted);
            let was_decided = silent.contains(&(run_number, seen.camera.clone(), seen.track, *door))
                || run.iter().any(|e| {
                    e.decisions
                        .iter()
                        .any(|d| d.camera.as_ref() == Some(&seen.camera) && d.track == seen.track && d.door.as_str() == *door)
                });
            let mut should = deserves(&facts, before, entry, seen, door).filter(|_| !was_decided);
            let is_silent = entry.silent.iter().any(|silent| silent.as_str() == *door);
            let is_challenge = given.is_some_and(|d| d.reason == Reason::Challenge);
            let is_concluded = (is_silent || given.is_some()) && !is_challenge;
            let told = if is_concluded { told_refusal(&facts, before, entry, seen, door) } else { (None, None) };
            let (refusal, behind) = told;
            hidden.extend(behind.map(|reason| (DoorId::new(*door).unwrap(), reason)));
            let is_news = refusal.is_none_or(|reason| {
                let weight = facts.weight(before, door, reason, entry.now.wall.0);
                is_news(&facts, before, seen, door, (reason, weight), entry.now.wall.0)
            });
            let was_let_in = |person: &str| {
                let last = grants_to(run, door, person, &facts);
                last.is_some_and(|last| entry.now.wall.0 - last < 3000)
            };
            if is_silent {
                let is_known = |person: &str| was_let_in(person) || was_refused(run, door, person, None, entry.now);
                let may = match (should, refusal) {
                    (_, Some(_)) => !is_news,
                    (Some(person), None) => was_let_in(person),
                    (None, None) => seen.candidates.iter().any(|c| is_known(c.person.as_str())),
                };
                if !may {
                    return Err(format!("step {at} at {door}: let go without a word"));
                }
                silent.push((run_number, seen.camera.clone(), seen.track, *door));
                unsaid.extend(refusal.map(|reason| (DoorId::new(*door).unwrap(), reason)));
            }
            if let Some(person) = should {
                if was_let_in(person) {
                    should = None;
                } else {
                    let is_front = *door == "front";
                    let lacks_turn = facts.guarded && is_front && !has_turned(run, seen, door, person);
                    let lacks_company = facts.vault && is_front && !has_company(&facts, before, door, person, entry.now.wall.0);
                    should = should.filter(|_| !lacks_turn && !lacks_company);
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
                if decision.policy.id.as_str() != ["default", "office", "vault", "guarded", "annex"][policy] {
                    let _ = write!(problem, "another policy's name");
                }
                if was_decided {
                    let _ = write!(problem, "decided twice");
                }
                if let Some(person) = decision.person.as_ref().map(PersonId::as_str)
                    && (was_let_in(person) || was_refused(run, door, person, Some(decision.reason), entry.now))
                {
                    let _ = write!(problem, "a second decision on one approach");
                }
                let is_of_nobody = decision.person.is_none() && decision.reason != Reason::Challenge;
                if is_of_nobody && !is_news {
                    let _ = write!(problem, "a second decision on a nameless face's approach");
                }
                if is_of_nobody && refusal != Some(decision.reason) {
                    let _ = write!(problem, "refused for {:?}, should be {refusal:?}", decision.reason);
                }
                let may_not_try = matches!(refusal, Some(Reason::Throttled | Reason::Match));
                match decision.reason {
                    Reason::Throttled if refusal != Some(Reason::Throttled) => problem.push_str("throttled without a reason"),
                    // The time for a turn of the head runs out at a blocked door, too.
                    Reason::Throttled | Reason::Lockdown | Reason::Challenge => {}
                    _ if may_not_try => problem.push_str("tried where nobody may try"),
                    _ => {}
                }
                let is_told_attack = decision.marks.contains(&Mark::Attack);
                if is_told_attack != (behind == Some(Reason::Spoof)) {
                    problem.push_str("an attack behind a block, or one that was none");
                }
                // What was told, or hidden, is remembered once.
                let reason = behind.unwrap_or(decision.reason);
                if decision.person.is_none() && !is_challenge {
                    let whose = whose_failure(&facts, before, seen, door, reason, entry.now.wall.0);
                    failed.extend(whose.map(|(whose, times)| (decision.door.clone(), whose, times)));
                }
                if is_slander(&facts, run, seen, decision) {
                    let _ = write!(problem, "called an attack without a reason");
                }
                if !problem.is_empty() {
                    return Err(format!("step {at} at {door}: {problem}"));
                }
                if let Some(person) = got
                    && decision.marks != facts.marks(before, door, person)
                {
                    return Err(format!("step {at} at {door}: {:?} is said of a grant to {person}", decision.marks));
                }
                if let Some(token) = decision.grant.as_ref().filter(|_| is_granted) {
                    claims(token, decision, entry.now, &mut ids).map_err(|wrong| format!("step {at} at {door}: {wrong}"))?;
                    grants += 1;
                }
            }
        }
        failed.append(&mut entry.failed);
        (entry.unsaid, entry.hidden, entry.failed) = (unsaid, hidden, failed);
    }
    Ok(grants)
}

/// Whether a person was refused at a door a moment ago, for a reason or for any. Company that is missing is told of each time: the person
/// still waits for it.
fn was_refused(run: &[Entry], door: &str, person: &str, reason: Option<Reason>, now: Moment) -> bool {
    run.iter().any(|entry| {
        now.wall.0 - entry.now.wall.0 < 3000
            && entry.decisions.iter().any(|d| {
                d.door.as_str() == door
                    && d.person.as_ref().is_some_and(|other| other.as_str() == person)
                    && d.outcome != Outcome::Granted
                    && d.reason != Reason::TooFewPeople
                    && reason.is_none_or(|reason| d.reason == reason)
            })
    })
}

/// When a person was last let through a door in this run; the vault's company passes with the one who is granted.
fn grants_to(run: &[Entry], door: &str, person: &str, facts: &Facts) -> Option<i64> {
    let own = grants_at(run, door).rfind(|(_, who)| *who == person).map(|(entry, _)| entry.now.wall.0);
    if !(facts.vault && door == "front") {
        return own;
    }
    let in_company =
        run.iter().enumerate().filter(|(_, e)| e.decisions.iter().any(|d| d.door.as_str() == door && d.grant.is_some()));
    let mut in_company = in_company.filter(|(at, entry)| waiting(facts, &run[..*at], door, entry.now.wall.0).contains(&person));
    own.max(in_company.next_back().map(|(_, entry)| entry.now.wall.0))
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
