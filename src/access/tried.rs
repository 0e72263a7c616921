//! Faces that failed at a door, and how long each waits before it is tried again: a second at first, then twice as long with each further
//! failure. So one face has few tries, and no other face is kept waiting for it.
//!
//! Three things are remembered. **Somebody's picture**: an attack that is taken for a person, or a challenge that was failed as that person.
//! Whoever it is waits too, so the wait is short: at most `block-s` after the last attack, and none once that person has been let in.
//! **Numbers tried beside somebody's face** while the reader is blocked: at most `longest-block-s`; that person's numbers wait, and nothing
//! else. **A stranger**: at most `longest-block-s`, and only as long as the face is more like the stranger than like the person for whom it
//! is taken, and no clear match: so neither a person whom the first faces of an approach did not show well nor a stranger who is enrolled
//! meanwhile waits for it.
//!
//! Strangers' faces are templates of people who have agreed to nothing: they are in memory alone, are cleared when they go, and a restart
//! forgets them.

use super::policy::ThrottleSettings;
use super::state::Ms;
use super::throttle::{MAX_LEVEL, seconds};
use crate::types::{DoorId, PersonId, Probe, Score};

/// What the first failure costs.
const FIRST_WAIT: Ms = 1000;
/// The most faces that are remembered; the one that failed the least is forgotten for a further one.
const MAX_TRIED: usize = 256;

/// Whose failure it is.
#[derive(Debug, Clone)]
pub(super) enum Whose {
    /// Somebody enrolled, as whom an attack was tried.
    Picture(PersonId),
    /// Somebody enrolled, before whose face numbers were tried.
    Number(PersonId),
    /// Nobody whom the door knows.
    Stranger(Probe),
}

#[derive(Debug, Clone)]
struct Tried {
    door: DoorId,
    whose: Whose,
    /// How often it failed; halved with time.
    failures: u32,
    failed_at: Ms,
}

/// A face that is taken for somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'a> {
    pub(super) person: &'a PersonId,
    /// How much it is like that person.
    pub(super) score: Score,
    /// Whether that is a clear match.
    pub(super) is_clear: bool,
    pub(super) probe: Option<&'a Probe>,
    /// From which score on two faces are one.
    pub(super) matching: Score,
}

/// The faces that failed, of all doors.
#[derive(Debug, Clone)]
pub(super) struct TriedFaces {
    settings: ThrottleSettings,
    tried: Vec<Tried>,
}

impl Tried {
    fn failures_at(&self, now: Ms, settings: &ThrottleSettings) -> u32 {
        let halvings = now.saturating_sub(self.failed_at).max(0) / seconds(settings.forgive_s).max(1);
        self.failures.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    fn waits_until(&self, settings: &ThrottleSettings) -> Ms {
        let longest = match self.whose {
            Whose::Picture(_) => settings.block_s,
            Whose::Number(_) | Whose::Stranger(_) => settings.longest_block_s,
        };
        let doubled = FIRST_WAIT << self.failures.saturating_sub(1).min(MAX_LEVEL);
        self.failed_at.saturating_add(doubled.min(seconds(longest)))
    }

    /// Whether a further failure of `whose` is this face's.
    fn is_of(&self, door: &DoorId, whose: &Whose, matching: Score) -> bool {
        self.door == *door
            && match (&self.whose, whose) {
                (Whose::Picture(mine), Whose::Picture(other)) | (Whose::Number(mine), Whose::Number(other)) => mine == other,
                (Whose::Stranger(mine), Whose::Stranger(other)) => is_alike(mine, other, matching),
                _ => false,
            }
    }
}

fn is_alike(one: &Probe, other: &Probe, least: Score) -> bool {
    one.compare(other).is_some_and(|score| score >= least)
}

impl TriedFaces {
    pub(super) fn new(settings: ThrottleSettings) -> Self {
        Self { settings, tried: Vec::new() }
    }

    /// From now on by these settings.
    pub(super) fn follow(&mut self, settings: ThrottleSettings) {
        self.settings = settings;
    }

    /// A face failed `times` times.
    pub(super) fn failed(&mut self, door: &DoorId, whose: Whose, (times, matching): (u32, Score), now: Ms) {
        if self.settings.failures == 0 {
            return;
        }
        let settings = &self.settings;
        self.tried.retain(|tried| tried.failures_at(now, settings) > 0);
        let known = self.tried.iter().position(|tried| tried.is_of(door, &whose, matching));
        let before = known.map(|known| self.tried.swap_remove(known)).map_or(0, |tried| tried.failures_at(now, settings));
        if self.tried.len() >= MAX_TRIED {
            let least = (0..self.tried.len()).min_by_key(|at| (self.tried[*at].failures, self.tried[*at].failed_at));
            least.map(|least| self.tried.swap_remove(least));
        }
        // The newest face of a stranger is the one that the next is most like.
        let failures = before.saturating_add(times).min(MAX_LEVEL);
        self.tried.push(Tried { door: door.clone(), whose, failures, failed_at: now });
    }

    /// Whether a face that was first seen at `first` came before it may be tried again.
    pub(super) fn is_waiting(&self, door: &DoorId, taken: &Taken<'_>, (first, now): (Ms, Ms)) -> bool {
        self.of(door, first, now).any(|tried| match &tried.whose {
            Whose::Picture(person) => person == taken.person,
            Whose::Number(_) => false,
            Whose::Stranger(probe) => {
                let likeness = taken.probe.and_then(|taken| taken.compare(probe));
                !taken.is_clear && likeness.is_some_and(|score| score >= taken.matching && score > taken.score)
            }
        })
    }

    /// Whether a number that was read beside somebody's face at `read` came before one may be tried again.
    pub(super) fn is_number_waiting(&self, door: &DoorId, person: &PersonId, (read, now): (Ms, Ms)) -> bool {
        self.of(door, read, now).any(|tried| matches!(&tried.whose, Whose::Number(mine) if mine == person))
    }

    /// What still waited at a moment, and is not forgiven by now.
    fn of<'a>(&'a self, door: &'a DoorId, at: Ms, now: Ms) -> impl Iterator<Item = &'a Tried> {
        let is_kept = move |tried: &&Tried| tried.failures_at(now, &self.settings) > 0;
        let waited = move |tried: &&Tried| tried.door == *door && at < tried.waits_until(&self.settings);
        self.tried.iter().filter(waited).filter(is_kept)
    }

    /// Somebody was let in: what failed as that person, or as a stranger who is that person, is forgotten.
    pub(super) fn let_in(&mut self, door: &DoorId, person: &PersonId, probe: Option<&Probe>, matching: Score) {
        self.tried.retain(|tried| {
            let is_theirs = match &tried.whose {
                Whose::Picture(mine) | Whose::Number(mine) => mine == person,
                Whose::Stranger(mine) => probe.is_some_and(|probe| is_alike(mine, probe, matching)),
            };
            tried.door != *door || !is_theirs
        });
    }

    /// Forgets every face that failed at a door, or at every door.
    pub(super) fn release(&mut self, door: Option<&DoorId>) {
        self.tried.retain(|tried| door.is_some_and(|door| *door != tried.door));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Embedding, ModelId};

    const S: Ms = 1000;

    fn door() -> DoorId {
        DoorId::new("front").unwrap()
    }

    fn person(name: &str) -> PersonId {
        PersonId::new(name).unwrap()
    }

    fn score(value: f32) -> Score {
        Score::new(value).unwrap()
    }

    /// A face that is `alike` to the first stranger's.
    fn face(alike: f32) -> Probe {
        let values = vec![alike, (1.0 - alike * alike).sqrt()];
        Probe::from(Embedding::normalised(ModelId::new("m").unwrap(), values).unwrap())
    }

    fn tried() -> TriedFaces {
        TriedFaces::new(ThrottleSettings::default())
    }

    fn fail(tried: &mut TriedFaces, whose: Whose, now: Ms) {
        tried.failed(&door(), whose, (1, score(0.3)), now);
    }

    /// How long a face waits that is seen after a failure at `now`.
    fn wait(now: Ms, is_waiting: impl Fn(Ms) -> bool) -> Ms {
        (0..5_000).map(|s| s * S).find(|ms| !is_waiting(now + ms)).unwrap()
    }

    fn taken<'a>(who: &'a PersonId, score: Score, probe: Option<&'a Probe>) -> Taken<'a> {
        Taken { person: who, score, is_clear: false, probe, matching: Score::new(0.3).unwrap() }
    }

    #[test]
    fn each_failure_doubles_the_wait_and_a_persons_picture_keeps_the_person_waiting_for_half_a_minute_at_most() {
        let (mut tried, ada) = (tried(), person("ada"));
        for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
            fail(&mut tried, Whose::Picture(ada.clone()), 0);
            let waits = |first| tried.is_waiting(&door(), &taken(&ada, score(0.9), None), (first, first));
            assert_eq!(wait(0, waits), expected * S);
            assert!(!tried.is_waiting(&door(), &taken(&person("bob"), score(0.9), None), (0, 0)), "another person");
            assert!(!tried.is_waiting(&DoorId::new("back").unwrap(), &taken(&ada, score(0.9), None), (0, 0)), "another door");
            assert!(!tried.is_number_waiting(&door(), &ada, (0, 0)));
        }
        // An hour later half of them count.
        fail(&mut tried, Whose::Picture(ada.clone()), 3600 * S);
        let waits = |first| tried.is_waiting(&door(), &taken(&ada, score(0.9), None), (first, first));
        assert_eq!(wait(3600 * S, waits), 16 * S);
        tried.let_in(&door(), &ada, None, score(0.3));
        assert!(tried.tried.is_empty(), "she was let in");
    }

    #[test]
    fn a_stranger_waits_only_while_more_alike_the_stranger_than_the_person_and_no_clear_match() {
        let (mut tried, ada) = (tried(), person("ada"));
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600] {
            fail(&mut tried, Whose::Stranger(face(1.0)), 0);
            let same = face(0.8);
            let waits = |first| tried.is_waiting(&door(), &taken(&ada, score(0.31), Some(&same)), (first, first));
            assert_eq!(wait(0, waits), expected * S);
        }
        let is_waiting = |alike: f32, like_ada: f32, is_clear: bool| {
            let probe = face(alike);
            let taken = Taken { is_clear, ..taken(&ada, score(like_ada), Some(&probe)) };
            tried.is_waiting(&door(), &taken, (0, 0))
        };
        assert!(is_waiting(0.8, 0.79, false));
        assert!(!is_waiting(0.79, 0.8, false), "more like the person");
        assert!(!is_waiting(0.29, 0.28, false), "another face");
        assert!(!is_waiting(0.8, 0.5, true), "a clear match");
        assert!(!tried.is_waiting(&door(), &taken(&ada, score(0.31), None), (0, 0)), "nothing to compare");
        tried.let_in(&door(), &ada, Some(&face(0.29)), score(0.3));
        assert_eq!(tried.tried.len(), 1);
        tried.let_in(&door(), &ada, Some(&face(0.8)), score(0.3));
        assert!(tried.tried.is_empty());
    }

    #[test]
    fn numbers_wait_by_themselves_and_longer_than_the_face() {
        let (mut tried, ada) = (tried(), person("ada"));
        tried.failed(&door(), Whose::Number(ada.clone()), (5, score(0.3)), 0);
        assert_eq!(wait(0, |read| tried.is_number_waiting(&door(), &ada, (read, read))), 16 * S);
        tried.failed(&door(), Whose::Number(ada.clone()), (u32::MAX, score(0.3)), 0);
        assert_eq!(wait(0, |read| tried.is_number_waiting(&door(), &ada, (read, read))), 3600 * S);
        assert!(!tried.is_waiting(&door(), &taken(&ada, score(0.9), None), (0, 0)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_failed_often_is_not_forgotten_for_who_failed_once() {
        let mut tried = tried();
        (0..3).for_each(|_| fail(&mut tried, Whose::Picture(person("ada")), 0));
        (0..10_000).for_each(|n| fail(&mut tried, Whose::Picture(person(&format!("p{n}"))), 1));
        assert_eq!(tried.tried.len(), MAX_TRIED);
        assert!(tried.tried.iter().any(|tried| tried.failures == 3));
        fail(&mut tried, Whose::Picture(person("late")), 2 * 3600 * S + 1);
        assert_eq!(tried.tried.len(), 1, "what is forgiven is forgotten");
        tried.release(Some(&DoorId::new("back").unwrap()));
        assert_eq!(tried.tried.len(), 1);
        tried.release(Some(&door()));
        assert!(tried.tried.is_empty());
        let mut never = TriedFaces::new(ThrottleSettings { failures: 0, ..ThrottleSettings::default() });
        fail(&mut never, Whose::Picture(person("ada")), 0);
        assert!(never.tried.is_empty());
    }
}
