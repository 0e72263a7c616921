//! The second camera that must agree (infrared or depth): what it saw of late, and whether that is the face that is to be let in. An
//! absent or stalled camera says nothing, and nothing is never agreement.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::WitnessSettings;
use super::shown::Shown;
use crate::types::{CameraId, Observation, Sighting};

/// The most sightings of one camera that are remembered: seconds of them.
const REMEMBERED: usize = 128;
/// Sightings up to this much older or newer than the evidence are asked: the two cameras' frames are judged one after the other.
const BEFORE: Duration = Duration::from_millis(1000);
const AFTER: Duration = Duration::from_millis(300);
/// A camera whose newest sighting is older than this, seen from the evidence, has stalled.
const STALLED: Duration = Duration::from_millis(500);
/// As many sightings must show the face, or must not, and two thirds of all that were asked: between the two nothing is known yet.
const LEAST: usize = 3;

/// What the second camera says of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Testimony {
    /// It sees the face too.
    Agrees,
    /// It looks, and does not.
    Disagrees,
    /// It does not look, or has not seen enough to say so.
    Silent,
}

/// What the second cameras saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Witnesses(HashMap<CameraId, VecDeque<Sighting>>);

impl Witnesses {
    /// Of these cameras; what others see is not kept.
    pub(super) fn new<'a>(settings: impl Iterator<Item = &'a WitnessSettings>) -> Self {
        Self(settings.map(|settings| (settings.camera.clone(), VecDeque::new())).collect())
    }

    pub(super) fn hear(&mut self, sighting: Sighting) {
        let Some(seen) = self.0.get_mut(&sighting.camera) else { return };
        if seen.len() >= REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(sighting);
    }

    /// Whether the face of an observation was seen where it was at that time; with `shown` in the moments alone in which it was that person
    /// who stood there. Each sighting is held against where the door's own camera
    /// saw this face in the same moment, so that neither a late frame nor a face that walks is taken for a contradiction, and what was
    /// seen before this face came speaks neither for it nor against it.
    pub(super) fn testimony(&self, settings: &WitnessSettings, observation: &Observation, shown: Option<&Shown<'_>>) -> Testimony {
        let Some(seen) = self.0.get(&settings.camera) else { return Testimony::Silent };
        let newest = shown.and_then(Shown::captured_at).unwrap_or(observation.captured_at);
        let at = newest.monotonic;
        let tolerance = f32::from(u8::try_from(settings.tolerance_percent).unwrap_or(0)) / 100.0;
        let (mut agreeing, mut contradicting, mut is_looking) = (0, 0, false);
        for sighting in seen {
            let then = sighting.captured_at.monotonic;
            if at.since(then) > BEFORE || then.since(at) > AFTER {
                continue;
            }
            if shown.is_some_and(|shown| !shown.stood_at(then)) {
                continue;
            }
            let Some(place) = observation.trajectory.at(then) else { continue };
            is_looking |= at.since(then) <= STALLED;
            if sighting.faces.iter().any(|face| face.agrees(&place, tolerance)) {
                agreeing += 1;
            } else {
                contradicting += 1;
            }
        }
        let is_clear = |these: usize, others: usize| these >= LEAST && these >= 2 * others;
        match () {
            () if !is_looking => Testimony::Silent,
            () if is_clear(agreeing, contradicting) => Testimony::Agrees,
            () if is_clear(contradicting, agreeing) => Testimony::Disagrees,
            () => Testimony::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Moment, Monotonic, Place, Trajectory, WitnessKind};

    fn at(ms: u64) -> Moment {
        Moment { monotonic: Monotonic(ms * 1_000_000), ..Moment::default() }
    }

    fn place(x: f32) -> Place {
        Place { x, y: 0.5, height: 0.3 }
    }

    /// Where somebody is who walks in: 0.4 of the picture's width a second.
    fn walk(ms: u64) -> Place {
        place(0.1 + 0.4 * f32::from(u16::try_from(ms).unwrap()) / 1000.0)
    }

    /// What a second camera says of a face that the door's camera saw from `from` to 1500 ms, having looked itself at `looks`.
    fn said(from: u64, looks: impl Iterator<Item = (u64, Option<Place>)>) -> Testimony {
        said_of(1500, from, looks)
    }

    /// The same of a face whose newest evidence was captured at a time.
    fn said_of(captured: u64, from: u64, looks: impl Iterator<Item = (u64, Option<Place>)>) -> Testimony {
        let camera = CameraId::new("beside").unwrap();
        let settings = WitnessSettings { camera: camera.clone(), kind: WitnessKind::Infrared, tolerance_percent: 15 };
        let mut witnesses = Witnesses::new(std::iter::once(&settings));
        for (ms, face) in looks {
            let faces = face.into_iter().collect();
            witnesses.hear(Sighting { camera: camera.clone(), captured_at: at(ms), faces });
        }
        let mut trajectory = Trajectory::default();
        (from..=1500).step_by(100).for_each(|ms| trajectory.push(at(ms).monotonic, walk(ms)));
        let seen = crate::access::tests::observation(Vec::new(), None);
        witnesses.testimony(&settings, &Observation { captured_at: at(captured), trajectory, ..seen }, None)
    }

    fn every(ms: usize, from: u64, to: u64) -> impl Iterator<Item = u64> {
        (from..=to).step_by(ms)
    }

    #[test]
    fn somebody_who_walks_in_is_seen_by_both_and_a_face_that_is_only_where_the_walk_ends_is_not_it() {
        assert_eq!(said(0, every(66, 0, 1500).map(|ms| (ms, Some(walk(ms))))), Testimony::Agrees);
        assert_eq!(said(0, every(66, 0, 1500).map(|ms| (ms, Some(walk(1500))))), Testimony::Disagrees);
        assert_eq!(said(0, every(66, 0, 1500).map(|ms| (ms, None))), Testimony::Disagrees);
        // A hundred milliseconds late throughout, as a network camera's picture.
        assert_eq!(said(0, every(66, 100, 1500).map(|ms| (ms, Some(walk(ms - 100))))), Testimony::Agrees);
    }

    #[test]
    fn late_and_few_frames_are_no_evidence_yet_and_accuse_nobody() {
        let none = |ms| (ms, None);
        assert_eq!(said(0, std::iter::empty()), Testimony::Silent);
        assert_eq!(said(0, every(100, 0, 900).map(none)), Testimony::Silent, "the newest frame is 600 ms old");
        assert_eq!(said(0, every(200, 1100, 1500).map(|ms| (ms, Some(walk(ms))))), Testimony::Agrees);
        assert_eq!(said(0, every(400, 1100, 1500).map(|ms| (ms, Some(walk(ms))))), Testimony::Silent, "two frames");
        assert_eq!(said(0, every(400, 1100, 1500).map(none)), Testimony::Silent, "two frames");
        // Sometimes there and sometimes not is neither.
        let flickers = every(100, 500, 1500).map(|ms| (ms, Some(walk(ms)).filter(|_| ms % 200 == 0)));
        assert_eq!(said(0, flickers), Testimony::Silent);
    }

    #[test]
    fn what_was_seen_long_before_the_evidence_or_after_it_is_not_asked() {
        let then_gone = every(33, 0, 490).map(|ms| (ms, Some(walk(ms)))).chain(every(66, 1300, 1500).map(|ms| (ms, None)));
        assert_eq!(said(0, then_gone), Testimony::Disagrees);
        let after = |from| every(50, from, 1500).map(|ms| (ms, Some(walk(ms))));
        assert_eq!((said_of(1000, 0, after(1301)), said_of(1000, 0, after(1200))), (Testimony::Silent, Testimony::Agrees));
    }

    #[test]
    fn what_a_camera_saw_is_bounded_and_what_others_see_is_not_kept() {
        let [camera, other] = ["beside", "other"].map(|name| CameraId::new(name).unwrap());
        let settings = WitnessSettings { camera: camera.clone(), kind: WitnessKind::Infrared, tolerance_percent: 15 };
        let mut witnesses = Witnesses::new(std::iter::once(&settings));
        for camera in [&camera, &other] {
            (0..1000).for_each(|ms| {
                witnesses.hear(Sighting { camera: camera.clone(), captured_at: at(ms), faces: Vec::new() });
            });
        }
        assert_eq!((witnesses.0.len(), witnesses.0[&camera].len()), (1, REMEMBERED));
        assert_eq!(witnesses.0[&camera].back().unwrap().captured_at, at(999), "the newest stay");
    }

    #[test]
    fn what_was_seen_before_this_face_came_speaks_neither_for_it_nor_against_it() {
        // Whoever stood there before a picture was raised does not vouch for the picture.
        let raised = every(66, 500, 1500).map(|ms| (ms, Some(walk(ms)).filter(|_| ms < 1200)));
        assert_ne!(said(1200, raised), Testimony::Agrees);
        let gone = every(66, 500, 1500).map(|ms| (ms, Some(walk(ms)).filter(|_| ms >= 1200)));
        assert_eq!(said(1200, gone), Testimony::Agrees);
    }
}
