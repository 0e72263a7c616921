//! Anti-passback: who is inside which area, as far as grants tell. Somebody of whom nothing is known may pass once in either direction.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::policy::{AreaSettings, PassbackKind};
use super::state::Ms;
use crate::types::{AreaId, DoorId, PersonId};

/// The most people whose place is remembered; beyond it the one longest where they are is forgotten.
const MAX_PLACES: usize = 65_536;

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
        Self { areas, people: HashMap::new() }
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

    /// The person was let through. True when that changed anything.
    pub(super) fn pass(&mut self, door: &DoorId, person: &PersonId, now: Ms) -> bool {
        let passed: Vec<_> = self.sides(door).map(|(area, inside)| (area.id.clone(), inside)).collect();
        for (area, inside) in &passed {
            if self.people.len() >= MAX_PLACES {
                let oldest = self.people.iter().min_by_key(|(_, place)| place.since).map(|(key, _)| key.clone());
                oldest.map(|key| self.people.remove(&key));
            }
            self.people.insert((area.clone(), person.clone()), Whereabouts { inside: *inside, since: now });
        }
        !passed.is_empty()
    }

    /// Forgets where somebody is, or where everybody is.
    pub(super) fn forgive(&mut self, person: Option<&PersonId>) {
        self.people.retain(|(_, placed), _| person.is_some_and(|person| placed != person));
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
            passback.pass(&door(first), &ada(), 0);
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
        soft.pass(&door("in"), &ada(), 0);
        assert_eq!(soft.standing(&door("in"), &ada(), 1000), Standing::Told);
        let mut timed = Passback::new(vec![area(PassbackKind::Timed)]);
        timed.pass(&door("in"), &ada(), 0);
        assert_eq!(timed.standing(&door("in"), &ada(), 59_999), Standing::Broken);
        assert_eq!(timed.standing(&door("in"), &ada(), 60_000), Standing::Fine);
        timed.pass(&door("out"), &ada(), 1000);
        assert_eq!(timed.standing(&door("in"), &ada(), 2000), Standing::Fine);
    }

    #[test]
    fn whereabouts_outlive_a_restart_and_so_does_the_time() {
        let mut timed = Passback::new(vec![area(PassbackKind::Timed)]);
        timed.pass(&door("in"), &ada(), 100_000);
        let mut again = Passback::new(vec![area(PassbackKind::Timed)]);
        again.restore(timed.state(140_000), 5);
        assert_eq!(again.standing(&door("in"), &ada(), 5 + 19_999), Standing::Broken);
        assert_eq!(again.standing(&door("in"), &ada(), 5 + 20_000), Standing::Fine);
    }
}
