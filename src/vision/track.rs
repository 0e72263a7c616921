//! Joins the faces of consecutive frames into one person's stay, after ByteTrack (Zhang et al., ECCV 2022): a Kalman filter tells where
//! each face should be by now; the faces that the detector is sure of are joined first, one to one and as a whole as well as can be, by
//! intersection over union; what is left of the stays seen a moment ago may then be joined to faces that it is less sure of, so that a
//! half-hidden or blurred face does not end a stay. Only sure faces begin one. Appearance is not asked here and nothing but overlap
//! joins: at a door, two people on one track would let the second in on the first one's face. The pipeline splits a stay whose face
//! becomes another's ([`Tracker::split`]).

mod assign;
mod kalman;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{BoundingBox, Detection, Monotonic, TrackId};
use kalman::Filter;

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
    /// The detector's least confidence for a face to continue a stay, 0.05 to 1; to begin one it takes the pack's own. From the pack's
    /// own up there is no second association.
    pub min_confidence: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { confirm_hits: 2, lost_after_ms: 800, min_iou: 0.25, min_confidence: 0.3 }
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
        require((0.05..=1.0).contains(&self.min_confidence), "min-confidence", "0.05 to 1");
        findings
    }
}

/// The most stays at one time; faces beyond it start none until others end.
const MAX_TRACKS: usize = 256;

/// How long a face that is out of sight is taken to move on; after it, it waits where it would be.
const MAX_COAST: Duration = Duration::from_millis(400);

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
    filter: Filter,
    seen_at: Monotonic,
    /// Whether it was seen in the frame before: only then may an unsure face continue it.
    in_sight: bool,
}

/// Which stays and faces a round of association may join.
struct Round<'a> {
    tracks: &'a dyn Fn(&Track) -> bool,
    faces: &'a dyn Fn(&Detection) -> bool,
}

impl Tracker {
    /// The first confirmed stay gets the id `first`, each later one the next number; none is given twice. A process with several
    /// trackers gives each its own range.
    pub fn new(settings: Settings, first: u64) -> Self {
        Self { settings, next: first, tracks: Vec::new(), ended: Vec::new() }
    }

    /// Takes one frame's faces and tells which confirmed stay each belongs to, as pairs of the stay and the face's index, in the
    /// order of the faces. Faces whose confidence is below `sure` only continue stays. Call it for frames without a face too, so that
    /// stays end.
    pub fn update(&mut self, captured_at: Monotonic, faces: &[Detection], sure: f32) -> Vec<(TrackId, usize)> {
        self.end_lost(captured_at);
        let owners = self.associate(captured_at, faces, sure);
        self.tracks.iter_mut().for_each(|track| track.in_sight = false);
        let mut seen = Vec::new();
        for (index, (face, owner)) in faces.iter().zip(owners).enumerate() {
            let owner = match owner {
                Some(owner) => {
                    self.tracks[owner].see(captured_at, face.bounding_box);
                    owner
                }
                None if self.tracks.len() < MAX_TRACKS && face.confidence >= sure => {
                    self.tracks.push(Track::new(captured_at, face.bounding_box));
                    self.tracks.len() - 1
                }
                None => continue,
            };
            if self.tracks[owner].id.is_none() && self.tracks[owner].hits >= self.settings.confirm_hits {
                self.tracks[owner].id = Some(self.number());
            }
            seen.extend(self.tracks[owner].id.map(|id| (id, index)));
        }
        seen
    }

    /// Ends a stay where it stands, because its face has become another's, and begins another in its place, whose id this gives.
    /// [`Tracker::ended`] tells the old one. Nothing when there is no such stay.
    pub fn split(&mut self, id: TrackId) -> Option<TrackId> {
        let at = self.tracks.iter().position(|track| track.id == Some(id))?;
        let number = self.number();
        self.tracks[at].id = Some(number);
        self.ended.push(id);
        Some(number)
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

    fn number(&mut self) -> TrackId {
        let number = TrackId(self.next);
        self.next = self.next.saturating_add(1);
        number
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

    /// For each face, which track it continues: confirmed stays go before new ones, and sure faces before unsure ones.
    fn associate(&self, now: Monotonic, faces: &[Detection], sure: f32) -> Vec<Option<usize>> {
        let expected: Vec<BoundingBox> = self.tracks.iter().map(|track| track.expected(now)).collect();
        let mut owners = vec![None; faces.len()];
        let mut taken = vec![false; self.tracks.len()];
        let is_sure = |face: &Detection| face.confidence >= sure;
        let is_unsure = |face: &Detection| face.confidence < sure && face.confidence >= self.settings.min_confidence;
        let rounds = [
            Round { tracks: &|track| track.id.is_some(), faces: &is_sure },
            Round { tracks: &|track| track.id.is_some() && track.in_sight, faces: &is_unsure },
            Round { tracks: &|track| track.id.is_none(), faces: &is_sure },
        ];
        for round in rounds {
            let free = |n: &usize| !taken[*n] && (round.tracks)(&self.tracks[*n]);
            let rows: Vec<usize> = (0..self.tracks.len()).filter(free).collect();
            let columns: Vec<usize> = (0..faces.len()).filter(|n| owners[*n].is_none() && (round.faces)(&faces[*n])).collect();
            let overlap = |row: usize, column: usize| {
                let overlap = expected[rows[row]].iou(&faces[columns[column]].bounding_box);
                (overlap >= self.settings.min_iou).then_some(overlap)
            };
            for (row, column) in assign::best(rows.len(), columns.len(), overlap) {
                taken[rows[row]] = true;
                owners[columns[column]] = Some(rows[row]);
            }
        }
        owners
    }
}

impl Track {
    fn new(seen_at: Monotonic, area: BoundingBox) -> Self {
        Self { id: None, hits: 1, filter: Filter::new(&area), seen_at, in_sight: true }
    }

    fn expected(&self, now: Monotonic) -> BoundingBox {
        self.filter.expected(now.since(self.seen_at).min(MAX_COAST).as_secs_f32())
    }

    fn see(&mut self, now: Monotonic, area: BoundingBox) {
        self.filter.see(now.since(self.seen_at).as_secs_f32(), &area);
        self.hits = self.hits.saturating_add(1);
        self.seen_at = self.seen_at.max(now);
        self.in_sight = true;
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

    const SURE: f32 = 0.6;

    fn unsure(x: f32, y: f32, side: f32) -> Detection {
        Detection { confidence: 0.35, ..face(x, y, side) }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    #[test]
    fn a_face_seen_once_is_no_stay_and_ends_silently() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        assert!(tracker.update(at(0), &[face(0.0, 0.0, 50.0)], SURE).is_empty());
        assert!(tracker.update(at(2000), &[], SURE).is_empty());
        assert!(tracker.ended().is_empty());
    }

    #[test]
    fn a_walk_is_one_stay_through_a_short_gap_and_ends_once() {
        let mut tracker = Tracker::new(Settings::default(), 7);
        let mut ids = BTreeSet::new();
        // 600 pixels a second, hidden for 300 ms in the middle: by then it is 3.6 boxes further.
        for step in (0..30u64).filter(|step| !(12..21).contains(step)) {
            let seen = tracker.update(at(step * 33), &[face(step as f32 * 20.0, 10.0, 50.0)], SURE);
            ids.extend(seen.into_iter().map(|(id, _)| id));
        }
        assert_eq!(ids, BTreeSet::from([TrackId(7)]));
        assert!(tracker.ended().is_empty());
        tracker.update(at(5000), &[], SURE);
        assert_eq!(tracker.ended(), [TrackId(7)]);
        assert!(tracker.ended().is_empty());
    }

    #[test]
    fn two_people_who_stand_apart_stay_two() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        tracker.update(at(0), &[face(0.0, 0.0, 50.0), face(200.0, 0.0, 50.0)], SURE);
        let seen = tracker.update(at(33), &[face(202.0, 0.0, 50.0), face(2.0, 0.0, 50.0)], SURE);
        assert_eq!(seen.len(), 2);
        let again = tracker.update(at(66), &[face(4.0, 0.0, 50.0), face(204.0, 0.0, 50.0)], SURE);
        assert_eq!(again[0].0, seen[1].0);
        assert_eq!(again[1].0, seen[0].0);
        tracker.clear();
        assert_eq!(tracker.ended().len(), 2);
    }

    #[test]
    fn an_unsure_face_continues_a_stay_and_begins_none_nor_finds_a_lost_one() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        for ms in [0, 33, 66] {
            assert!(tracker.update(at(ms), &[unsure(0.0, 0.0, 50.0)], SURE).is_empty());
        }
        assert_eq!(tracker.unconfirmed(), 0);
        tracker.update(at(100), &[face(0.0, 0.0, 50.0)], SURE);
        tracker.update(at(133), &[face(0.0, 0.0, 50.0)], SURE);
        for step in 0..60 {
            let seen = tracker.update(at(166 + step * 33), &[unsure(0.0, 0.0, 50.0)], SURE);
            assert_eq!(seen, [(TrackId(1), 0)], "half hidden for two seconds");
        }
        tracker.update(at(2200), &[], SURE);
        assert!(tracker.update(at(2233), &[unsure(0.0, 0.0, 50.0)], SURE).is_empty(), "out of sight, an unsure face is not enough");
        assert_eq!(tracker.update(at(2266), &[face(0.0, 0.0, 50.0)], SURE), [(TrackId(1), 0)]);
        let hopeless = Detection { confidence: 0.2, ..face(0.0, 0.0, 50.0) };
        assert!(tracker.update(at(2300), &[hopeless], SURE).is_empty());
    }

    #[test]
    fn a_sure_face_goes_before_an_unsure_one_that_fits_better() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        tracker.update(at(0), &[face(0.0, 0.0, 50.0)], SURE);
        tracker.update(at(33), &[face(0.0, 0.0, 50.0)], SURE);
        let seen = tracker.update(at(66), &[unsure(0.0, 0.0, 50.0), face(10.0, 0.0, 50.0)], SURE);
        assert_eq!(seen, [(TrackId(1), 1)]);
    }

    #[test]
    fn two_people_who_cross_keep_their_stays() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        // One walks right and one left at 300 pixels a second; in the middle one hides the other for 200 ms.
        for step in 0..60u64 {
            let (a, b) = (step as f32 * 10.0, 590.0 - step as f32 * 10.0);
            let (left, right) = (face(a, 0.0, 60.0), face(b, 6.0, 60.0));
            let hidden = (27..33).contains(&step);
            let faces = if hidden { vec![left] } else { vec![left, right] };
            let seen = tracker.update(at(step * 33), &faces, SURE);
            if step > 1 {
                assert_eq!(seen[0], (TrackId(1), 0), "step {step}");
                assert_eq!(seen.get(1).copied(), (!hidden).then_some((TrackId(2), 1)), "step {step}");
            }
        }
    }

    #[test]
    fn a_split_ends_one_stay_and_begins_another_in_its_place() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        tracker.update(at(0), &[face(0.0, 0.0, 50.0)], SURE);
        tracker.update(at(33), &[face(0.0, 0.0, 50.0)], SURE);
        assert_eq!(tracker.split(TrackId(9)), None);
        assert_eq!(tracker.split(TrackId(1)), Some(TrackId(2)));
        assert_eq!(tracker.ended(), [TrackId(1)]);
        assert_eq!(tracker.update(at(66), &[face(0.0, 0.0, 50.0)], SURE), [(TrackId(2), 0)]);
        assert_eq!(tracker.active(), 1);
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_does_no_harm() {
        let mut tracker = Tracker::new(Settings::default(), 1);
        for ms in [100, 100, 50, 100, 0] {
            tracker.update(at(ms), &[face(0.0, 0.0, 50.0)], SURE);
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
                let seen = tracker.update(at(now), &faces, SURE);
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
