//! Joins the faces of consecutive frames into one person's stay: intersection over union against where the face would be at constant
//! velocity, the best pairs first, one to one (the association of SORT, Bewley et al., ICIP 2016, without its Kalman filter). Appearance
//! is not asked and nothing but overlap joins: at a door, two people on one track would let the second in on the first one's face.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{BoundingBox, Detection, Monotonic, TrackId};

/// How faces of consecutive frames are joined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// In how many frames a face must be seen before its stay counts, 1 to 100.
    pub confirm_hits: u32,
    /// After how many milliseconds without the face its stay ends, 50 to 60000.
    pub lost_after_ms: u64,
    /// The least overlap (intersection over union) with where the face was expected, 0.05 to 0.95.
    pub min_iou: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { confirm_hits: 2, lost_after_ms: 800, min_iou: 0.25 }
    }
}

impl Settings {
    /// Values out of range: the key, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut require = |sound: bool, key: &str, range: &str| {
            if !sound {
                findings.push((key.to_owned(), format!("must be {range}")));
            }
        };
        require((1..=100).contains(&self.confirm_hits), "confirm-hits", "1 to 100 frames");
        require((50..=60_000).contains(&self.lost_after_ms), "lost-after-ms", "50 to 60000 milliseconds");
        require((0.05..=0.95).contains(&self.min_iou), "min-iou", "0.05 to 0.95");
        findings
    }
}

/// The most stays at one time; faces beyond it start none until others end.
const MAX_TRACKS: usize = 256;

/// How long a face that is out of sight is taken to move on; after it, it waits where it would be.
const MAX_COAST: Duration = Duration::from_millis(400);

/// How much of a new velocity counts: half smooths the detector's jitter and follows a walk within three frames.
const VELOCITY_SHARE: f32 = 0.5;

/// The stays in one camera's view.
pub struct Tracker {
    settings: Settings,
    next: u64,
    tracks: Vec<Track>,
    ended: Vec<TrackId>,
}

struct Track {
    /// Given when the stay is confirmed.
    id: Option<TrackId>,
    hits: u32,
    area: BoundingBox,
    /// Of the middle, in pixels a second.
    velocity: [f32; 2],
    seen_at: Monotonic,
}

impl Tracker {
    /// The first confirmed stay gets the id `first`, each later one the next number; none is given twice. A process with several
    /// trackers gives each its own range.
    pub fn new(settings: Settings, first: u64) -> Self {
        Self { settings, next: first, tracks: Vec::new(), ended: Vec::new() }
    }

    /// Takes one frame's faces and tells which confirmed stay each belongs to, as pairs of the stay and the face's index, in the
    /// order of the faces. Call it for frames without a face too, so that stays end.
    pub fn update(&mut self, captured_at: Monotonic, faces: &[Detection]) -> Vec<(TrackId, usize)> {
        self.end_lost(captured_at);
        let owner = self.associate(captured_at, faces);
        let mut seen = Vec::new();
        for (index, (face, owner)) in faces.iter().zip(owner).enumerate() {
            let owner = match owner {
                Some(owner) => {
                    self.tracks[owner].see(captured_at, face.bounding_box);
                    owner
                }
                None if self.tracks.len() < MAX_TRACKS => {
                    self.tracks.push(Track::new(captured_at, face.bounding_box));
                    self.tracks.len() - 1
                }
                None => continue,
            };
            let track = &mut self.tracks[owner];
            if track.id.is_none() && track.hits >= self.settings.confirm_hits {
                track.id = Some(TrackId(self.next));
                self.next = self.next.saturating_add(1);
            }
            seen.extend(track.id.map(|id| (id, index)));
        }
        seen
    }

    /// The confirmed stays that ended since the last call, each told once.
    pub fn ended(&mut self) -> Vec<TrackId> {
        std::mem::take(&mut self.ended)
    }

    /// Ends every stay, as when the camera is gone; [`Tracker::ended`] tells them.
    pub fn clear(&mut self) {
        self.ended.extend(self.tracks.drain(..).filter_map(|track| track.id));
    }

    /// How many confirmed stays there are now.
    pub fn active(&self) -> usize {
        self.tracks.iter().filter(|track| track.id.is_some()).count()
    }

    /// How many faces are followed that are not confirmed yet.
    pub fn unconfirmed(&self) -> usize {
        self.tracks.len() - self.active()
    }

    fn end_lost(&mut self, now: Monotonic) {
        let patience = Duration::from_millis(self.settings.lost_after_ms);
        let ended = &mut self.ended;
        self.tracks.retain(|track| {
            let keep = now.since(track.seen_at) <= patience;
            if !keep {
                ended.extend(track.id);
            }
            keep
        });
    }

    /// For each face, which track it continues.
    fn associate(&self, now: Monotonic, faces: &[Detection]) -> Vec<Option<usize>> {
        let mut pairs = Vec::new();
        for (owner, track) in self.tracks.iter().enumerate() {
            let expected = track.expected(now);
            for (index, face) in faces.iter().enumerate() {
                let overlap = expected.iou(&face.bounding_box);
                if overlap >= self.settings.min_iou {
                    // A confirmed stay goes before a new one at the same place.
                    pairs.push((track.id.is_some(), overlap, owner, index));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        let mut taken = vec![false; self.tracks.len()];
        let mut owners = vec![None; faces.len()];
        for (_, _, owner, index) in pairs {
            if !taken[owner] && owners[index].is_none() {
                taken[owner] = true;
                owners[index] = Some(owner);
            }
        }
        owners
    }
}

impl Track {
    fn new(seen_at: Monotonic, area: BoundingBox) -> Self {
        Self { id: None, hits: 1, area, velocity: [0.0; 2], seen_at }
    }

    fn expected(&self, now: Monotonic) -> BoundingBox {
        let seconds = now.since(self.seen_at).min(MAX_COAST).as_secs_f32();
        let [x, y] = self.velocity.map(|velocity| velocity * seconds);
        BoundingBox { x: self.area.x + x, y: self.area.y + y, ..self.area }
    }

    fn see(&mut self, now: Monotonic, area: BoundingBox) {
        let seconds = now.since(self.seen_at).as_secs_f32();
        // Two frames of one moment say nothing about velocity.
        if seconds > 1e-3 {
            let (from, to) = (self.area.center(), area.center());
            let measured = [(to.x - from.x) / seconds, (to.y - from.y) / seconds];
            for (velocity, measured) in self.velocity.iter_mut().zip(measured) {
                *velocity += VELOCITY_SHARE * (measured - *velocity);
            }
        }
        self.hits = self.hits.saturating_add(1);
        self.area = area;
        self.seen_at = self.seen_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::types::Landmarks;

    fn face(x: f32, y: f32, side: f32) -> Detection {
        let bounding_box = BoundingBox { x, y, width: side, height: side };
        Detection { bounding_box, landmarks: Landmarks::default(), confidence: 0.9 }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    #[test]
    fn a_face_seen_once_is_no_stay_and_ends_silently() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        assert!(tracker.update(at(0), &[face(0.0, 0.0, 50.0)]).is_empty());
        assert!(tracker.update(at(2000), &[]).is_empty());
        assert!(tracker.ended().is_empty());
    }

    #[test]
    fn a_walk_is_one_stay_through_a_short_gap_and_ends_once() {
        let mut tracker = Tracker::new(Settings::default(), 7);
        let mut ids = BTreeSet::new();
        // 600 pixels a second, hidden for 300 ms in the middle: by then it is 3.6 boxes further.
        for step in (0..30u64).filter(|step| !(12..21).contains(step)) {
            let seen = tracker.update(at(step * 33), &[face(step as f32 * 20.0, 10.0, 50.0)]);
            ids.extend(seen.into_iter().map(|(id, _)| id));
        }
        assert_eq!(ids, BTreeSet::from([TrackId(7)]));
        assert!(tracker.ended().is_empty());
        tracker.update(at(5000), &[]);
        assert_eq!(tracker.ended(), [TrackId(7)]);
        assert!(tracker.ended().is_empty());
    }

    #[test]
    fn two_people_who_stand_apart_stay_two() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        tracker.update(at(0), &[face(0.0, 0.0, 50.0), face(200.0, 0.0, 50.0)]);
        let seen = tracker.update(at(33), &[face(202.0, 0.0, 50.0), face(2.0, 0.0, 50.0)]);
        assert_eq!(seen.len(), 2);
        let again = tracker.update(at(66), &[face(4.0, 0.0, 50.0), face(204.0, 0.0, 50.0)]);
        assert_eq!(again[0].0, seen[1].0);
        assert_eq!(again[1].0, seen[0].0);
        tracker.clear();
        assert_eq!(tracker.ended().len(), 2);
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_does_no_harm() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        for ms in [100, 100, 50, 100, 0] {
            tracker.update(at(ms), &[face(0.0, 0.0, 50.0)]);
        }
        assert_eq!(tracker.active(), 1);
    }

    proptest! {
        #[test]
        fn no_face_and_no_stay_is_given_twice_and_ids_never_come_back(
            frames in prop::collection::vec(
                (0u64..1200, prop::collection::vec((-50f32..300.0, -50f32..300.0, prop_oneof![1f32..120.0, Just(f32::NAN), Just(0.0)]), 0..6)),
                1..60,
            )
        ) {
            let mut tracker = Tracker::new(Settings::default(), 100);
            let (mut now, mut gone, mut known) = (0, BTreeSet::new(), BTreeSet::new());
            for (step, faces) in frames {
                now += step;
                let faces: Vec<_> = faces.into_iter().map(|(x, y, side)| face(x, y, side)).collect();
                let seen = tracker.update(at(now), &faces);
                for id in tracker.ended() {
                    prop_assert!(gone.insert(id), "{} ended twice", id);
                    prop_assert!(known.contains(&id));
                }
                let ids: BTreeSet<_> = seen.iter().map(|(id, _)| *id).collect();
                let indexes: BTreeSet<_> = seen.iter().map(|(_, index)| *index).collect();
                prop_assert_eq!(ids.len(), seen.len());
                prop_assert_eq!(indexes.len(), seen.len());
                prop_assert!(ids.is_disjoint(&gone), "an ended stay came back");
                prop_assert!(ids.iter().all(|id| id.0 >= 100) && indexes.iter().all(|index| *index < faces.len()));
                known.extend(ids);
            }
        }
    }
}
