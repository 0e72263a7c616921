//! A threshold that is raised before one camera while the daemon runs, and what a visit would have needed to be let in: what the door's
//! measure of itself asks of the decider. Raising can only take a grant away: nothing here goes below what is configured.

use super::{Decider, Thresholds};
use crate::types::{CameraId, DoorId, Observation, PersonId, Score};

impl Decider {
    /// Asks at least this much of every match before a camera from now on; `None` asks what is configured. What is lower than that
    /// changes nothing. Not kept: whoever raised it does it again after a restart.
    pub fn raise_matching(&mut self, camera: &CameraId, least: Option<Score>) {
        match least.filter(|_| self.cameras.contains_key(camera)) {
            Some(least) => drop(self.raised.insert(camera.clone(), least)),
            None => drop(self.raised.remove(camera)),
        }
    }

    /// The lowest threshold of a match that is configured for a door of this camera; `None` where it watches none.
    pub fn configured_matching(&self, camera: &CameraId) -> Option<Score> {
        let doors = self.cameras.get(camera)?;
        let of = |door| self.rules.door(door).thresholds(self.thresholds).matching;
        doors.iter().map(of).min_by(|a, b| a.value().total_cmp(&b.value()))
    }

    /// The thresholds in force at a door for what this camera sees.
    pub(super) fn thresholds_at(&self, camera: &CameraId, door: &DoorId) -> Thresholds {
        let configured = self.rules.door(door).thresholds(self.thresholds);
        match self.raised.get(camera) {
            Some(raised) if *raised > configured.matching => Thresholds { matching: *raised, ..configured },
            _ => configured,
        }
    }

    /// Whom a visit comes nearest to being let in as, and the highest threshold at which it would match that person by as many samples as
    /// the door asks for: the visit's own score reaches it, and so many samples do. `None` where nobody is a candidate or too few
    /// samples were compared.
    pub fn nearest_match<'a>(&self, observation: &'a Observation, door: &DoorId) -> Option<(&'a PersonId, Score)> {
        let needed = self.rules.door(door).min_frames.unwrap_or(self.settings.min_frames).max(1) as usize;
        let of = |(index, candidate): (usize, &'a crate::types::Candidate)| {
            let mut scores: Vec<f32> =
                observation.samples.iter().filter_map(|sample| sample.scores.get(index)).map(|score| score.value()).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            let by_samples = *scores.get(needed - 1)?;
            Some((&candidate.person, Score::saturating(by_samples.min(candidate.score.value()))))
        };
        let all = observation.candidates.iter().enumerate().filter_map(of);
        all.max_by(|(_, a), (_, b)| a.value().total_cmp(&b.value()))
    }
}
