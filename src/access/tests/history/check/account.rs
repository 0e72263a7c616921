//! What failures amount to, in the checker's own account: what is charged and told of them, the blocks that they bring, the faces that wait,
//! the cards that wait, and what all this makes of somebody who was recognised.

use super::*;

/// A face without a name that was refused: when, why, how badly, what it cost, and before which cameras.
pub(super) struct Approach {
    face: usize,
    at: i64,
    reasons: Vec<Reason>,
    weight: u32,
    charged: u32,
    cameras: Vec<CameraId>,
}

/// What is charged of a refusal: nothing of strangers who did not look into the camera for a second, or were too far away.
pub(super) fn charge(seen: &Observation, (reason, weight): (Reason, u32)) -> u32 {
    let stayed = seen.captured_at.wall.0 - seen.first_usable_at.wall.0;
    let tall = seen.trajectory.at(seen.captured_at.monotonic).map_or(1.0, |place| place.height);
    let is_attempt = stayed >= 1000 && seen.frames >= 3 && tall >= 0.12;
    if reason == Reason::Unknown && !is_attempt { 0 } else { weight }
}

/// What a refusal adds to the failures, and whether it is to be told, after what another camera told of the same face at this door less
/// than three seconds ago. A failure is nothing new when it is lighter than what was told, or the same; what is no failure, when it is
/// the same.
pub(super) fn tell(approaches: &mut Vec<Approach>, seen: &Observation, (reason, weight): (Reason, u32), at: i64) -> (u32, bool) {
    let charged = charge(seen, (reason, weight));
    let Some(face) = face_of(seen) else { return (charged, true) };
    let same = approaches.iter_mut().find(|a| {
        let is_alike = if weight == 0 { a.weight == 0 && a.reasons == [reason] } else { a.weight > 0 };
        a.face == face && at - a.at < 3000 && is_alike && !a.cameras.contains(&seen.camera)
    });
    let Some(approach) = same else {
        approaches.push(Approach { face, at, reasons: vec![reason], weight, charged, cameras: vec![seen.camera.clone()] });
        return (charged, true);
    };
    approach.cameras.push(seen.camera.clone());
    let is_news = !approach.reasons.contains(&reason) && weight >= approach.weight;
    if is_news {
        approach.reasons.push(reason);
    }
    approach.weight = weight.max(approach.weight);
    let dearer = charged.max(approach.charged);
    (dearer - std::mem::replace(&mut approach.charged, dearer), is_news)
}

/// Whether a refusal of a face without a name is to be told, after these entries.
pub(super) fn is_news(facts: &Facts, before: &[Entry], seen: &Observation, door: &str, refusal: (Reason, u32), now: i64) -> bool {
    let mut approaches = Vec::new();
    for (index, entry) in before.iter().enumerate() {
        tell_entry(facts, &mut approaches, &before[..index], entry, door);
    }
    tell(&mut approaches, seen, refusal, now).1
}

/// What an entry's refusals of faces without a name at a door add to its failures.
pub(super) fn tell_entry(facts: &Facts, approaches: &mut Vec<Approach>, before: &[Entry], entry: &Entry, door: &str) -> u32 {
    if matches!(entry.step, Step::Restart) {
        approaches.clear();
    }
    let Step::See(seen) = &entry.step else { return 0 };
    let here = |other: &DoorId| other.as_str() == door;
    let said = entry.decisions.iter().filter(|d| here(&d.door) && d.person.is_none()).map(|d| d.reason);
    let unsaid = entry.unsaid.iter().filter(|(other, _)| here(other)).map(|(_, reason)| *reason);
    let at = entry.now.wall.0;
    let refusals = said.chain(unsaid).filter(|reason| *reason != Reason::Challenge);
    refusals.map(|reason| tell(approaches, seen, (reason, facts.weight(before, door, reason, at)), at).0).sum()
}

pub(super) fn face_of(seen: &Observation) -> Option<usize> {
    (0..=PEOPLE.len()).find(|face| is_face(seen, *face))
}

pub(super) fn is_face(seen: &Observation, face: usize) -> bool {
    let likeness = seen.probe.as_ref().zip(probe_of(face)).and_then(|(probe, other)| probe.compare(&other));
    likeness.is_some_and(|score| score.value() > 0.99)
}

/// Failures and the blocks that they bring, by the wall clock, which restarts do not touch here.
pub(super) struct Slate {
    limit: u32,
    failures: Vec<(i64, u32)>,
    blocked_until: i64,
    blocks: u32,
}

impl Slate {
    fn of(limit: u32) -> Self {
        Self { limit, failures: Vec::new(), blocked_until: i64::MIN, blocks: 0 }
    }

    fn fail(&mut self, weight: u32, at: i64) {
        if weight == 0 || at < self.blocked_until {
            return;
        }
        self.failures.retain(|(then, _)| at - then < 300_000);
        self.failures.push((at, weight));
        if self.failures.iter().map(|(_, weight)| weight).sum::<u32>() >= self.limit {
            // Each hour without a block half of the blocks are forgotten.
            let hours = if self.blocks > 0 { ((at - self.blocked_until) / HOUR).min(31) } else { 0 };
            let blocks = self.blocks >> hours;
            self.blocked_until = at + (30_000i64 << blocks.min(16)).min(HOUR);
            self.blocks = (blocks + 1).min(16);
            self.failures.clear();
        }
    }

    /// A release forgets everything.
    fn hear(&mut self, entry: &Entry, door: &str) {
        if is_release(entry, door) {
            *self = Self::of(self.limit);
        }
    }
}

pub(super) fn is_release(entry: &Entry, door: &str) -> bool {
    let Step::Tell(Input::Command(Command::Release { door: released })) = &entry.step else { return false };
    released.as_ref().is_none_or(|released| released.as_str() == door)
}

/// Whether a door is blocked for its faces.
pub(super) fn is_blocked(facts: &Facts, before: &[Entry], door: &str, now: i64) -> bool {
    let mut slate = Slate::of(facts.limit());
    let mut approaches: Vec<Approach> = Vec::new();
    for (index, entry) in before.iter().enumerate() {
        let at = entry.now.wall.0;
        let mut weight = tell_entry(facts, &mut approaches, &before[..index], entry, door);
        // Nobody fails what was never asked; and each time it is asked is a try of its own.
        let run = since_restart(&before[..index]);
        let turns = entry.decisions.iter().filter(|d| d.door.as_str() == door && d.reason == Reason::Challenge);
        weight += turns
            .map(|d| u32::from(d.camera.as_ref().is_some_and(|camera| prompt(run, door, camera, d.track).is_some())))
            .sum::<u32>();
        slate.hear(entry, door);
        slate.fail(weight, at);
    }
    now < slate.blocked_until
}

pub(super) fn owner(facts: &Facts, read: &CredentialRead) -> Option<&'static str> {
    let Credential::Number(number) = &read.credential else { return None };
    let owners = [("card-ada", "ada"), ("card-bob", "bob")];
    owners.into_iter().find(|(card, _)| facts.office && *number == CredentialNumber::new(*card)).map(|(_, owner)| owner)
}

/// A card that waits at an office's door.
#[derive(Clone, Copy)]
pub(super) struct Card {
    /// Whose; nobody's waits only while the reader is blocked.
    pub(super) owner: Option<&'static str>,
    is_in_block: bool,
    /// How many of nobody came right before it meanwhile.
    wrong: u32,
    at: i64,
}

/// Which card waits at an office's door after these entries.
pub(super) fn card(before: &[Entry], door: &str, now: i64) -> Option<Card> {
    let facts = Facts { office: true, ..Facts::default() };
    let mut reader = Slate::of(facts.limit());
    let mut waiting: Option<Card> = None;
    for entry in before {
        let at = entry.now.wall.0;
        reader.hear(entry, door);
        match &entry.step {
            Step::Restart => waiting = None,
            Step::Tell(Input::Credential(read)) if read.door.as_str() == door => {
                let (owner, is_in_block) = (owner(&facts, read), at < reader.blocked_until);
                if owner.is_none() && !is_in_block {
                    reader.fail(1, at);
                    continue;
                }
                let before = waiting.filter(|card| at - card.at <= 5000).map_or(0, |card| card.wrong);
                let wrong = if is_in_block { before + u32::from(owner.is_none()) } else { 0 };
                waiting = Some(Card { owner, is_in_block, wrong, at });
            }
            _ if grants_at(std::slice::from_ref(entry), door).next().is_some() => waiting = None,
            _ => {}
        }
    }
    waiting.filter(|card| now - card.at <= 5000)
}

/// What a door remembers of faces that failed in this run: whose, how often, when last.
pub(super) fn failures(before: &[Entry], door: &str, now: i64) -> Vec<(Whose, u32, i64)> {
    let mut failures: Vec<(Whose, u32, i64)> = Vec::new();
    let halved = |count: u32, at: i64, then: i64| count >> ((then - at) / HOUR).min(31);
    for entry in since_restart(before) {
        let at = entry.now.wall.0;
        if is_release(entry, door) {
            failures.clear();
        }
        if let Step::See(seen) = &entry.step {
            for (_, person) in grants_at(std::slice::from_ref(entry), door) {
                failures.retain(|(whose, ..)| match whose {
                    Whose::Picture(mine) | Whose::Number(mine) => mine != person,
                    Whose::Stranger(face) => !is_face(seen, *face),
                });
            }
        }
        for (_, whose, times) in entry.failed.iter().filter(|(other, ..)| other.as_str() == door) {
            let known = failures.iter().position(|(other, ..)| other == whose);
            let before = known.map(|known| failures.swap_remove(known)).map_or(0, |(_, count, then)| halved(count, then, at));
            failures.push((whose.clone(), (before + times).min(16), at));
        }
    }
    // What is forgiven by now keeps nobody waiting.
    failures.retain(|(_, count, at)| halved(*count, *at, now) > 0);
    failures
}

/// Until when a face that failed so often waits: one second, then twice as long each time; somebody's picture half a minute at most.
pub(super) fn waits_until((whose, count, at): &(Whose, u32, i64)) -> i64 {
    let longest = if matches!(whose, Whose::Picture(_)) { 30_000 } else { HOUR };
    at + (1000i64 << (count - 1)).min(longest)
}

/// What a block, or a wait, makes of somebody who was recognised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bar {
    Open,
    /// Refused without a word: for this reason.
    Refused(Reason),
    /// Not seen often enough yet.
    Held,
}

pub(super) fn bar(
    facts: &Facts,
    before: &[Entry],
    entry: &Entry,
    seen: &Observation,
    door: &str,
    (person, is_match): (&str, bool),
) -> Bar {
    let now = entry.now.wall.0;
    let last = grants_to(since_restart(before), door, person, facts);
    if last.is_some_and(|last| now - last < 3000) {
        return Bar::Open;
    }
    let (least, ..) = facts.least(door);
    let score = seen.candidates.iter().find(|c| c.person.as_str() == person).unwrap().score.value();
    let is_clear = score >= least + 0.05;
    let failed = failures(before, door, now);
    let is_waiting = |failure: &(Whose, u32, i64)| match &failure.0 {
        Whose::Picture(mine) => mine == person && seen.first_usable_at.wall.0 < waits_until(failure),
        Whose::Number(_) => false,
        Whose::Stranger(face) => !is_clear && is_face(seen, *face) && seen.first_usable_at.wall.0 < waits_until(failure),
    };
    let card =
        if facts.office && door == "in" && is_match { card(before, door, now).filter(|card| card.is_in_block) } else { None };
    let is_guess = card.is_some_and(|card| {
        let is_waiting =
            |failure: &(Whose, u32, i64)| failure.0 == Whose::Number(person.to_owned()) && card.at < waits_until(failure);
        card.wrong >= facts.limit() || failed.iter().any(is_waiting)
    });
    if failed.iter().any(is_waiting) || is_guess {
        return Bar::Refused(Reason::Throttled);
    }
    let is_seen_enough = seen.frames >= 4 && seen.liveness_frames >= 4;
    match () {
        () if card.is_none() && !is_blocked(facts, before, door, now) => Bar::Open,
        () if !is_clear => Bar::Refused(Reason::Unknown),
        () if is_seen_enough => Bar::Open,
        () if seen.ended => Bar::Refused(Reason::Throttled),
        () => Bar::Held,
    }
}

/// Who failed to turn the head in these entries' last one.
pub(super) fn failed_turns(facts: &Facts, before: &[Entry], entry: &Entry) -> Vec<(DoorId, Whose, u32)> {
    let run = since_restart(before);
    let turns = entry.decisions.iter().filter(|d| d.reason == Reason::Challenge);
    let whose = |decision: &Decision| {
        let door = decision.door.as_str();
        let (asked, _) = prompt(run, door, decision.camera.as_ref()?, decision.track)?;
        let Step::See(then) = &asked.step else { return None };
        // Somebody else who turns the head in the asked one's place has failed, and not the asked one.
        let other = match &entry.step {
            Step::See(seen) if decision.camera.as_ref() == Some(&seen.camera) && decision.track == seen.track => {
                deserves(facts, before, entry, seen, door)
            }
            _ => None,
        };
        let person = other.unwrap_or(then.candidates[0].person.as_str()).to_owned();
        Some((decision.door.clone(), Whose::Picture(person), 1))
    };
    turns.filter_map(whose).collect()
}

/// Whose failure a refusal is, if a door remembers it.
pub(super) fn whose_failure(
    facts: &Facts,
    before: &[Entry],
    seen: &Observation,
    door: &str,
    reason: Reason,
    now: i64,
) -> Option<(Whose, u32)> {
    let (least_score, ..) = facts.least(door);
    let best = seen.candidates[0].clone();
    let best = (best.score.value() >= least_score).then(|| best.person.as_str().to_owned());
    let stranger = || face_of(seen).map(|face| (Whose::Stranger(face), 1));
    match (reason, best) {
        (Reason::Spoof, Some(person)) => Some((Whose::Picture(person), 1)),
        (Reason::SecondFactor, Some(person)) => {
            let card = card(before, door, now).filter(|card| card.is_in_block)?;
            Some((Whose::Number(person), card.wrong.max(1)))
        }
        (Reason::SecondFactor, None) if card(before, door, now).is_none() => None,
        (Reason::Spoof | Reason::SecondFactor, None) | (Reason::Unknown | Reason::Ambiguous, _) => stranger(),
        _ => None,
    }
}
