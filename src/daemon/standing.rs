//! Who stands before one camera: how many faces, and who of them was recognised, each on the track whose face was.

use std::collections::{HashMap, VecDeque};

use crate::types::{PersonId, TrackId};

/// The most people who left a moment ago that are remembered, so that whoever comes back is known again.
const MOST_LEFT: usize = 64;

/// Who stands before one camera.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) faces: u32,
    people: HashMap<TrackId, PersonId>,
    /// Whose tracks have ended, the newest last.
    left: VecDeque<(TrackId, PersonId)>,
}

impl Standing {
    /// Somebody was recognised on a track that goes on. Whether that is news.
    pub(super) fn recognised(&mut self, track: TrackId, person: PersonId) -> bool {
        self.people.insert(track, person.clone()) != Some(person)
    }

    /// The face on a track was compared with that of an earlier one and is the same: it is whoever was recognised there, if anybody.
    pub(super) fn goes_on(&mut self, track: TrackId, before: TrackId) -> bool {
        let left = || self.left.iter().rev().find(|(ended, _)| *ended == before).map(|(_, person)| person);
        let Some(person) = self.people.get(&before).or_else(left).cloned() else { return false };
        self.recognised(track, person)
    }

    /// A track has ended. Whether somebody had been recognised on it.
    pub(super) fn ended(&mut self, track: TrackId) -> bool {
        let Some(person) = self.people.remove(&track) else { return false };
        if self.left.len() >= MOST_LEFT {
            self.left.pop_front();
        }
        self.left.push_back((track, person));
        true
    }

    /// Who was recognised, each once, in order.
    pub(super) fn people(&self) -> Vec<PersonId> {
        let mut people: Vec<PersonId> = self.people.values().cloned().collect();
        people.sort();
        people.dedup();
        people
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> PersonId {
        PersonId::new(name).unwrap()
    }

    #[test]
    fn whoever_comes_back_on_another_track_is_known_again_by_the_face_and_nobody_else_is() {
        let mut standing = Standing::default();
        assert!(standing.recognised(TrackId(1), person("ada")) && !standing.recognised(TrackId(1), person("ada")));
        assert!(standing.ended(TrackId(1)) && standing.people().is_empty());
        assert!(!standing.ended(TrackId(1)) && !standing.ended(TrackId(7)), "told once, and of nobody unknown");
        assert!(!standing.goes_on(TrackId(3), TrackId(2)), "the track before had nobody's name");
        assert!(standing.people().is_empty(), "coming back is not enough: the face must have been compared");
        assert!(standing.goes_on(TrackId(2), TrackId(1)));
        assert_eq!(standing.people(), [person("ada")]);
        // Lost once more, and this time known again before the second track has ended.
        assert!(standing.goes_on(TrackId(4), TrackId(2)));
        assert!(standing.ended(TrackId(2)));
        assert_eq!(standing.people(), [person("ada")], "she stands there still, and once");
        assert!(standing.ended(TrackId(4)) && standing.people().is_empty());
    }

    #[test]
    fn those_who_left_are_forgotten_in_time() {
        let mut standing = Standing::default();
        for track in 0..1000 {
            standing.recognised(TrackId(track), person("ada"));
            standing.ended(TrackId(track));
        }
        assert_eq!(standing.left.len(), MOST_LEFT);
        assert!(!standing.goes_on(TrackId(2000), TrackId(0)) && standing.goes_on(TrackId(2000), TrackId(999)));
    }
}
