//! Anti-passback: who is inside which area, as far as grants tell, or doors with a sensor. Somebody of whom nothing is known may pass once
//! in either direction.
//!
//! A grant counts as a passage from the start, so that nobody can use the time until the door has told. Where the area counts passages,
//! the door's word that nobody went through takes it back. A door that tells nothing leaves the grant counted.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::policy::{AreaSettings, PassbackCounts, PassbackKind};
use super::state::Ms;
use crate::types::{AreaId, DoorId, PersonId};

/// The most people whose place is remembered; beyond it the one longest where they are is forgotten.
const MAX_PLACES: usize = 65_536;
/// How many of the newest grants can be taken back, and for how long: the longest unlocking is a minute, and a broker may be away.
const MAX_OPEN: usize = 256;
const TAKE_BACK_WITHIN: Ms = 300_000;

/// What the areas of a door say to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Fine,
    /// The rule is broken where it is only told.
    Told,
    /// The rule is broken.
    Broken,
}

/// Who is where.
#[derive(Debug, Clone)]
pub(super) struct Passback {
    areas: Vec<AreaSettings>,
    people: HashMap<(AreaId, PersonId), Whereabouts>,
    /// Grants whose doors have not told yet. A restart forgets them, and then they count.
    open: VecDeque<Open>,
}

/// A grant that counts until its door says otherwise.
#[derive(Debug, Clone)]
struct Open {
    door: DoorId,
    jti: String,
    at: Ms,
    before: Vec<((AreaId, PersonId), Option<Whereabouts>)>,
}

#[derive(Debug, Clone, Copy)]
struct Whereabouts {
    inside: bool,
    since: Ms,
}

/// One person's place in an area, as it outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacedPerson {
    area: AreaId,
    person: PersonId,
    inside: bool,
    for_ms: Ms,
}

impl Passback {
    pub(super) fn new(areas: Vec<AreaSettings>) -> Self {
        Self { areas, people: HashMap::new(), open: VecDeque::new() }
    }

    /// From now on with these areas; who is in one of before that is not among them any more counts nowhere.
    pub(super) fn follow(&mut self, areas: Vec<AreaSettings>) {
        self.areas = areas;
    }

    /// The areas that the door leads into or out of, and whether it leads in.
    fn sides<'a>(&'a self, door: &'a DoorId) -> impl Iterator<Item = (&'a AreaSettings, bool)> {
        self.areas.iter().filter_map(move |area| match () {
            () if area.entries.contains(door) => Some((area, true)),
            () if area.exits.contains(door) => Some((area, false)),
            () => None,
        })
    }

    pub(super) fn standing(&self, door: &DoorId, person: &PersonId, now: Ms) -> Standing {
        let sides = self.sides(door).map(|(area, inwards)| {
            let key = (area.id.clone(), person.clone());
            let Some(place) = self.people.get(&key).filter(|place| place.inside == inwards) else { return Standing::Fine };
            let age = now.saturating_sub(place.since);
            if age >= hours(area.forget_after_h) {
                return Standing::Fine;
            }
            match area.kind {
                PassbackKind::Hard => Standing::Broken,
                PassbackKind::Soft => Standing::Told,
                PassbackKind::Timed if age < seconds(area.window_s.unwrap_or(u64::MAX)) => Standing::Broken,
                PassbackKind::Timed => Standing::Fine,
            }
        });
        sides.max().unwrap_or(Standing::Fine)
    }

    /// These people are let through by the grant `jti`. True when that changed anything.
    pub(super) fn pass(&mut self, door: &DoorId, company: &[PersonId], jti: &str, now: Ms) -> bool {
        let passed: Vec<_> = self.sides(door).map(|(area, inside)| (area.id.clone(), inside, area.counts)).collect();
        let mut before = Vec::new();
        for person in company {
            for (area, inside, counts) in &passed {
                if self.people.len() >= MAX_PLACES {
                    let oldest = self.people.iter().min_by_key(|(_, place)| place.since).map(|(key, _)| key.clone());
                    oldest.map(|key| self.people.remove(&key));
                }
                let key = (area.clone(), person.clone());
                let was = self.people.insert(key.clone(), Whereabouts { inside: *inside, since: now });
                if *counts == PassbackCounts::Passages {
                    before.push((key, was));
                }
            }
        }
        if !before.is_empty() {
            if self.open.len() >= MAX_OPEN {
                self.open.pop_front();
            }
            self.open.push_back(Open { door: door.clone(), jti: jti.to_owned(), at: now, before });
        }
        !passed.is_empty()
    }

    /// What the door says became of a grant. True when that changed anything.
    pub(super) fn told(&mut self, door: &DoorId, jti: &str, passed: bool, now: Ms) -> bool {
        self.open.retain(|open| now.saturating_sub(open.at) <= TAKE_BACK_WITHIN);
        let Some(at) = self.open.iter().position(|open| open.door == *door && open.jti == jti) else { return false };
        let Some(Open { at: granted, before, .. }) = self.open.remove(at) else { return false };
        for (key, was) in before {
            // Somebody who has been let through elsewhere meanwhile is where that door leads.
            let Some(place) = self.people.get_mut(&key).filter(|place| place.since == granted) else { continue };
            match was {
                _ if passed => place.since = now,
                Some(was) => *place = was,
                None => {
                    self.people.remove(&key);
                }
            }
        }
        true
    }

    /// Forgets where somebody is, or where everybody is.
    pub(super) fn forgive(&mut self, person: Option<&PersonId>) {
        self.people.retain(|(_, placed), _| person.is_some_and(|person| placed != person));
        // A place that was forgiven does not come back.
        self.open.clear();
    }

    pub(super) fn state(&self, now: Ms) -> Vec<PlacedPerson> {
        let placed = self.people.iter().map(|((area, person), place)| PlacedPerson {
            area: area.clone(),
            person: person.clone(),
            inside: place.inside,
            for_ms: now.saturating_sub(place.since),
        });
        let mut people: Vec<_> = placed.collect();
        people.sort_by(|a, b| (&a.area, &a.person).cmp(&(&b.area, &b.person)));
        people
    }

    pub(super) fn restore(&mut self, people: Vec<PlacedPerson>, now: Ms) {
        for placed in people.into_iter().take(MAX_PLACES) {
            let place = Whereabouts { inside: placed.inside, since: now.saturating_sub(placed.for_ms.max(0)) };
            self.people.insert((placed.area, placed.person), place);
        }
    }
}

fn seconds(count: u64) -> Ms {
    Ms::try_from(count.saturating_mul(1000)).unwrap_or(Ms::MAX)
}

fn hours(count: u64) -> Ms {
    seconds(count.saturating_mul(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(kind: PassbackKind) -> AreaSettings {
        AreaSettings {
            id: AreaId::new("lab").unwrap(),
            entries: vec![door("in")],
            exits: vec![door("out")],
            kind,
            window_s: Some(60),
            forget_after_h: 24,
            counts: PassbackCounts::Grants,
        }
    }

    fn door(name: &str) -> DoorId {
        DoorId::new(name).unwrap()
    }

    fn ada() -> PersonId {
        PersonId::new("ada").unwrap()
    }

    #[test]
    fn hard_passback_wants_the_other_door_each_time_and_lets_strangers_to_it_begin_anywhere() {
        for first in ["in", "out"] {
            let mut passback = Passback::new(vec![area(PassbackKind::Hard)]);
            assert_eq!(passback.standing(&door(first), &ada(), 0), Standing::Fine);
            passback.pass(&door(first), &[ada()], "j", 0);
            let other = if first == "in" { "out" } else { "in" };
            assert_eq!(passback.standing(&door(first), &ada(), 1000), Standing::Broken);
            assert_eq!(passback.standing(&door(other), &ada(), 1000), Standing::Fine);
            assert_eq!(passback.standing(&door(first), &PersonId::new("bob").unwrap(), 1000), Standing::Fine);
            assert_eq!(passback.standing(&door("elsewhere"), &ada(), 1000), Standing::Fine);
            assert_eq!(passback.standing(&door(first), &ada(), hours(24)), Standing::Fine, "forgotten");
            passback.forgive(Some(&ada()));
            assert_eq!(passback.standing(&door(first), &ada(), 1000), Standing::Fine, "forgiven");
        }
    }

    #[test]
    fn soft_passback_tells_and_timed_passback_waits() {
        let mut soft = Passback::new(vec![area(PassbackKind::Soft)]);
        soft.pass(&door("in"), &[ada()], "j", 0);
        assert_eq!(soft.standing(&door("in"), &ada(), 1000), Standing::Told);
        let mut timed = Passback::new(vec![area(PassbackKind::Timed)]);
        timed.pass(&door("in"), &[ada()], "j", 0);
        assert_eq!(timed.standing(&door("in"), &ada(), 59_999), Standing::Broken);
        assert_eq!(timed.standing(&door("in"), &ada(), 60_000), Standing::Fine);
        timed.pass(&door("out"), &[ada()], "j", 1000);
        assert_eq!(timed.standing(&door("in"), &ada(), 2000), Standing::Fine);
    }

    #[test]
    fn whereabouts_outlive_a_restart_and_so_does_the_time() {
        let mut timed = Passback::new(vec![area(PassbackKind::Timed)]);
        timed.pass(&door("in"), &[ada()], "j", 100_000);
        let mut again = Passback::new(vec![area(PassbackKind::Timed)]);
        again.restore(timed.state(140_000), 5);
        assert_eq!(again.standing(&door("in"), &ada(), 5 + 19_999), Standing::Broken);
        assert_eq!(again.standing(&door("in"), &ada(), 5 + 20_000), Standing::Fine);
    }

    #[test]
    fn a_grant_that_nobody_used_is_taken_back_where_passages_count_and_nowhere_else() {
        for (counts, standing) in [(PassbackCounts::Grants, Standing::Broken), (PassbackCounts::Passages, Standing::Fine)] {
            let mut passback = Passback::new(vec![AreaSettings { counts, ..area(PassbackKind::Hard) }]);
            passback.pass(&door("in"), &[ada()], "one", 0);
            assert_eq!(passback.standing(&door("in"), &ada(), 10), Standing::Broken, "until the door has told");
            assert!(!passback.told(&door("out"), "one", false, 10), "another door's word");
            assert!(!passback.told(&door("in"), "two", false, 10), "another grant");
            passback.told(&door("in"), "one", false, 10);
            assert_eq!(passback.standing(&door("in"), &ada(), 20), standing, "{counts:?}");
            assert!(!passback.told(&door("in"), "one", false, 30), "told once");
        }
    }

    #[test]
    fn a_word_that_comes_too_late_or_after_another_passage_changes_nobodys_place() {
        let passages = AreaSettings { counts: PassbackCounts::Passages, ..area(PassbackKind::Hard) };
        let mut passback = Passback::new(vec![passages.clone()]);
        passback.pass(&door("in"), &[ada()], "one", 0);
        assert!(!passback.told(&door("in"), "one", false, TAKE_BACK_WITHIN + 1));
        assert_eq!(passback.standing(&door("in"), &ada(), 10), Standing::Broken);
        let mut passback = Passback::new(vec![passages.clone()]);
        passback.pass(&door("in"), &[ada()], "one", 0);
        passback.pass(&door("out"), &[ada()], "two", 5);
        passback.told(&door("in"), "one", false, 10);
        assert_eq!(passback.standing(&door("out"), &ada(), 20), Standing::Broken, "she is outside");
        // The time of a timed passback is that of the passage.
        let mut timed = Passback::new(vec![AreaSettings { kind: PassbackKind::Timed, ..passages }]);
        timed.pass(&door("in"), &[ada()], "one", 0);
        timed.told(&door("in"), "one", true, 5_000);
        assert_eq!(timed.standing(&door("in"), &ada(), 64_999), Standing::Broken);
        assert_eq!(timed.standing(&door("in"), &ada(), 65_000), Standing::Fine);
    }
}
