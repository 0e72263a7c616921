//! The second camera that must agree (infrared or depth): what it saw of late, and whether that is the face that is to be let in. An
//! absent or stalled camera says nothing, and nothing is never agreement.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::WitnessSettings;
use crate::types::{CameraId, Observation, Sighting};

/// The most sightings of one camera that are remembered: seconds of them.
const REMEMBERED: usize = 128;
/// Sightings this much older or newer than the evidence are of the same moment: the two cameras' frames are judged one after the other.
const BEFORE: Duration = Duration::from_millis(1000);
const AFTER: Duration = Duration::from_millis(300);
/// A camera whose newest sighting is older than this, seen from the evidence, has stalled.
const STALLED: Duration = Duration::from_millis(500);
/// As many sightings must show the face, and two thirds of all there are.
const LEAST: usize = 3;

/// What the second camera says of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Testimony {
    /// It sees the face too.
    Agrees,
    /// It looks, and does not.
    Disagrees,
    /// It does not look.
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

    /// Whether the face of an observation was seen at its place.
    pub(super) fn testimony(&self, settings: &WitnessSettings, observation: &Observation) -> Testimony {
        let Some(seen) = self.0.get(&settings.camera) else { return Testimony::Silent };
        let at = observation.captured_at.monotonic;
        let moment = seen.iter().filter(|sighting| {
            let then = sighting.captured_at.monotonic;
            at.since(then) <= BEFORE && then.since(at) <= AFTER
        });
        let tolerance = f32::from(u8::try_from(settings.tolerance_percent).unwrap_or(0)) / 100.0;
        let agrees = |sighting: &&Sighting| sighting.faces.iter().any(|face| face.agrees(&observation.place, tolerance));
        let (all, agreeing) = (moment.clone().count(), moment.clone().filter(agrees).count());
        let is_looking = moment.map(|sighting| at.since(sighting.captured_at.monotonic)).min().is_some_and(|age| age <= STALLED);
        match () {
            () if all < LEAST || !is_looking => Testimony::Silent,
            () if agreeing >= LEAST && 3 * agreeing >= 2 * all => Testimony::Agrees,
            () => Testimony::Disagrees,
        }
    }
}
