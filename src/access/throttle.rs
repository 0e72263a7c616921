//! What failed attempts cost a door: after so many within a window it is blocked for everybody, each time twice as long. A grant does
//! not wipe the slate, or somebody could try four times between two colleagues. Time that the device was off does not count as waiting.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::policy::ThrottleSettings;
use super::state::Ms;
use crate::types::{BoundingBox, CameraId, DoorId, Observation, Probe, Reason, Score, TrackId};

/// The most failures of one door that are remembered; a block comes long before.
const MAX_CHARGES: usize = 128;
/// The most doublings of a block; the longest block comes before.
const MAX_LEVEL: u32 = 16;
/// The most places that cool down; the oldest has long cooled.
const MAX_PLACES: usize = 64;
/// The most refusals that another camera may still repeat; they last for seconds.
const MAX_TOLD: usize = 64;
/// A place whose track's end was never told is cold after this, in milliseconds.
const UNTOLD_MS: Ms = 10_000;

/// The doors' failures and blocks.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    settings: ThrottleSettings,
    doors: HashMap<DoorId, Slate>,
}

#[derive(Debug, Clone, Default)]
struct Slate {
    charges: VecDeque<(Ms, u32)>,
    /// How many blocks there were, until they are forgiven.
    level: u32,
    blocked_until: Option<Ms>,
}

/// One door's part of the state that outlives the process: durations, because the clock starts anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThrottledDoor {
    door: DoorId,
    /// How old each failure was, in milliseconds, and its weight.
    charges: Vec<(Ms, u32)>,
    level: u32,
    /// How long the block still lasted; negative since it ended.
    blocked_for_ms: Option<Ms>,
}

impl Throttle {
    pub(super) fn new(settings: ThrottleSettings) -> Self {
        Self { settings, doors: HashMap::new() }
    }

    pub(super) fn is_blocked(&self, door: &DoorId, now: Ms) -> bool {
        self.doors.get(door).and_then(|slate| slate.blocked_until).is_some_and(|until| now < until)
    }

    /// Counts a failure. A door that is blocked is not blocked longer by those who go on trying: that would let one person shut it for
    /// good.
    pub(super) fn charge(&mut self, door: &DoorId, weight: u32, now: Ms) {
        if self.settings.failures == 0 || weight == 0 || self.is_blocked(door, now) {
            return;
        }
        let ms = |seconds: u64| Ms::try_from(seconds.saturating_mul(1000)).unwrap_or(Ms::MAX);
        let slate = self.doors.entry(door.clone()).or_default();
        slate.charges.retain(|(at, _)| now.saturating_sub(*at) < ms(self.settings.window_s));
        if slate.charges.len() >= MAX_CHARGES {
            slate.charges.pop_front();
        }
        slate.charges.push_back((now, weight));
        let sum = slate.charges.iter().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        if sum < self.settings.failures {
            return;
        }
        if slate.blocked_until.is_some_and(|until| now.saturating_sub(until) >= ms(self.settings.forgive_s)) {
            slate.level = 0;
        }
        let doubled = self.settings.block_s.saturating_mul(1 << slate.level.min(MAX_LEVEL));
        slate.blocked_until = Some(now.saturating_add(ms(doubled.min(self.settings.longest_block_s))));
        slate.level = (slate.level + 1).min(MAX_LEVEL);
        slate.charges.clear();
    }

    /// What a door's failures amount to by now.
    #[cfg(test)]
    pub(super) fn weighs(&self, door: &DoorId) -> u32 {
        self.doors.get(door).into_iter().flat_map(|slate| &slate.charges).map(|(_, weight)| weight).sum()
    }

    pub(super) fn state(&self, now: Ms) -> Vec<ThrottledDoor> {
        let mut doors: Vec<ThrottledDoor> = self
            .doors
            .iter()
            .map(|(door, slate)| ThrottledDoor {
                door: door.clone(),
                charges: slate.charges.iter().map(|(at, weight)| (now.saturating_sub(*at), *weight)).collect(),
                level: slate.level,
                blocked_for_ms: slate.blocked_until.map(|until| until.saturating_sub(now)),
            })
            .collect();
        doors.sort_by(|a, b| a.door.cmp(&b.door));
        doors
    }

    pub(super) fn restore(&mut self, doors: Vec<ThrottledDoor>, now: Ms) {
        for door in doors {
            let charges = door.charges.into_iter().take(MAX_CHARGES);
            let slate = Slate {
                charges: charges.map(|(age, weight)| (now.saturating_sub(age.max(0)), weight)).collect(),
                level: door.level.min(MAX_LEVEL),
                blocked_until: door.blocked_for_ms.map(|left| now.saturating_add(left)),
            };
            self.doors.insert(door.door, slate);
        }
    }
}

/// Refusals of a moment ago that name nobody, so that one face that several cameras of a door see is told of and charged once.
///
/// Only faces that are as alike as a match are one, so nobody's failure hides another's, nor a stranger's the picture in the hand. Each
/// camera may repeat a refusal once: who fails again before either of two cameras is told of and charged again. What the second camera
/// finds worse is told, and charged as far as it is worse; what it finds of another kind that weighs as much is told, too. All this is
/// forgotten by a restart, which tells and charges twice what it no longer knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(VecDeque<Refusal>);

#[derive(Debug, Clone)]
struct Refusal {
    door: DoorId,
    at: Ms,
    probe: Probe,
    /// Every reason that was told, and the weight of the worst. Failures are one approach whatever their reasons; what is no failure is
    /// only ever the same as itself.
    reasons: Vec<Reason>,
    weight: u32,
    /// Which cameras told of it.
    cameras: Vec<CameraId>,
}

/// What is left of a refusal after what another camera told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// What is still to be charged.
    pub(super) owed: u32,
    /// Whether it is still to be told; what is not owes nothing.
    pub(super) is_new: bool,
}

impl Told {
    /// What a refusal for this reason, which weighs this much as a failure, adds to what another camera told within the last `within_ms`.
    pub(super) fn tell(
        &mut self,
        door: &DoorId,
        observation: &Observation,
        (reason, weight): (Reason, u32),
        (now, within_ms, matching): (Ms, Ms, Score),
    ) -> News {
        self.0.retain(|refusal| now.saturating_sub(refusal.at) < within_ms);
        let Some(probe) = &observation.probe else { return News { owed: weight, is_new: true } };
        let known = self.0.iter_mut().find(|refusal| {
            let is_alike = || refusal.probe.compare(probe).is_some_and(|score| score >= matching);
            let is_of_its_kind =
                if weight > 0 { refusal.weight > 0 } else { refusal.weight == 0 && refusal.reasons.contains(&reason) };
            refusal.door == *door && is_of_its_kind && !refusal.cameras.contains(&observation.camera) && is_alike()
        });
        if let Some(refusal) = known {
            refusal.cameras.push(observation.camera.clone());
            let owed = weight.saturating_sub(refusal.weight);
            let is_new = weight >= refusal.weight && !refusal.reasons.contains(&reason);
            refusal.weight = refusal.weight.max(weight);
            refusal.reasons.extend(is_new.then_some(reason));
            return News { owed, is_new };
        }
        if self.0.len() >= MAX_TOLD {
            self.0.pop_front();
        }
        let cameras = vec![observation.camera.clone()];
        self.0.push_back(Refusal { door: door.clone(), at: now, probe: probe.clone(), reasons: vec![reason], weight, cameras });
        News { owed: weight, is_new: true }
    }
}

/// Places in a camera's picture where a presentation attack was seen a moment ago: whoever is first seen there before they have cooled
/// is refused, so that lowering the picture and waiting for a new track is no new try.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(VecDeque<Place>);

#[derive(Debug, Clone)]
struct Place {
    camera: CameraId,
    track: TrackId,
    area: BoundingBox,
    heated_at: Ms,
    /// Known once the track has ended.
    cold_at: Option<Ms>,
}

impl Places {
    pub(super) fn heat(&mut self, camera: &CameraId, track: TrackId, area: BoundingBox, now: Ms) {
        self.0.retain(|place| place.camera != *camera || place.track != track);
        self.keep(Place { camera: camera.clone(), track, area, heated_at: now, cold_at: None });
    }

    /// The attack's track is gone: from now on the place cools, and the one to which it was carried meanwhile.
    pub(super) fn ended(&mut self, camera: &CameraId, track: TrackId, area: BoundingBox, (now, cool_down_ms): (Ms, u64)) {
        let cool_down = Ms::try_from(cool_down_ms).unwrap_or(Ms::MAX);
        let mut carried = None;
        for place in self.0.iter_mut().filter(|place| place.camera == *camera && place.track == track) {
            if place.cold_at.is_none() {
                place.cold_at = Some(now.saturating_add(cool_down));
                carried = Some(Place { area, ..place.clone() }).filter(|last| !is_near(&last.area, &place.area));
            }
        }
        if let Some(place) = carried {
            self.keep(place);
        }
    }

    fn keep(&mut self, place: Place) {
        if self.0.len() >= MAX_PLACES {
            self.0.pop_front();
        }
        self.0.push_back(place);
    }

    /// Whether a track that first showed a face at `first` stands where an attack was.
    pub(super) fn is_hot(&self, camera: &CameraId, track: TrackId, area: &BoundingBox, first: Ms) -> bool {
        self.0.iter().any(|place| {
            let cold_at = place.cold_at.unwrap_or(place.heated_at.saturating_add(UNTOLD_MS));
            place.camera == *camera && place.track != track && first < cold_at && is_near(&place.area, area)
        })
    }
}

/// Within one width of each other's middles.
fn is_near(a: &BoundingBox, b: &BoundingBox) -> bool {
    let (from, to) = (a.center(), b.center());
    (from.x - to.x).hypot(from.y - to.y) <= a.width.max(b.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ms = 1000;

    fn door() -> DoorId {
        DoorId::new("front").unwrap()
    }

    fn blocked_for(throttle: &Throttle, now: Ms) -> Ms {
        (0..10_000).map(|s| s * S).find(|ms| !throttle.is_blocked(&door(), now + ms)).unwrap()
    }

    #[test]
    fn the_fifth_failure_blocks_for_thirty_seconds_and_each_further_block_is_twice_as_long() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        let mut now = 0;
        for expected in [30, 60, 120, 240] {
            for _ in 0..4 {
                throttle.charge(&door(), 1, now);
                assert!(!throttle.is_blocked(&door(), now));
            }
            throttle.charge(&door(), 1, now);
            assert_eq!(blocked_for(&throttle, now), expected * S);
            now += expected * S;
        }
        for _ in 0..60 {
            throttle.charge(&door(), 5, now);
            now += blocked_for(&throttle, now);
        }
        throttle.charge(&door(), 5, now);
        assert_eq!(blocked_for(&throttle, now), 3600 * S, "the longest block");
        assert!(!throttle.is_blocked(&DoorId::new("other").unwrap(), now));
    }

    #[test]
    fn failures_far_apart_block_nobody_and_old_blocks_are_forgiven() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        for n in 0..50 {
            throttle.charge(&door(), 1, n * 76 * S);
            assert!(!throttle.is_blocked(&door(), n * 76 * S));
        }
        let now = 10_000 * S;
        throttle.charge(&door(), 5, now);
        throttle.charge(&door(), 5, now + 31 * S);
        assert_eq!(blocked_for(&throttle, now + 31 * S), 60 * S);
        let later = now + 31 * S + 60 * S + 86_400 * S;
        throttle.charge(&door(), 5, later);
        assert_eq!(blocked_for(&throttle, later), 30 * S);
    }

    #[test]
    fn trying_on_does_not_make_a_block_longer_and_attacks_weigh_more() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        [2, 2, 2].iter().for_each(|weight| throttle.charge(&door(), *weight, 0));
        (0..29).for_each(|n| throttle.charge(&door(), 2, n * S));
        assert!(throttle.is_blocked(&door(), 29 * S) && !throttle.is_blocked(&door(), 30 * S));
        let mut never = Throttle::new(ThrottleSettings { failures: 0, ..ThrottleSettings::default() });
        (0..100).for_each(|_| never.charge(&door(), 2, 0));
        assert!(!never.is_blocked(&door(), 0));
    }

    #[test]
    fn a_restart_changes_nothing_even_when_the_clock_begins_anew() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        throttle.charge(&door(), 5, 500_000);
        throttle.charge(&door(), 4, 540_000);
        let mut again = Throttle::new(ThrottleSettings::default());
        again.restore(throttle.state(550_000), 7);
        assert_eq!(again.state(7), throttle.state(550_000));
        again.charge(&door(), 1, 8);
        assert_eq!(blocked_for(&again, 8), 60 * S, "four before and one after, and the second block");
        let mut blocked = Throttle::new(ThrottleSettings::default());
        throttle.charge(&door(), 1, 550_000);
        blocked.restore(throttle.state(560_000), 7);
        assert_eq!(blocked_for(&blocked, 7), 50 * S);
    }

    #[test]
    fn a_place_is_hot_until_its_attack_has_been_gone_for_a_while() {
        let camera = CameraId::new("cam").unwrap();
        let area = BoundingBox { x: 100.0, y: 100.0, width: 80.0, height: 100.0 };
        let mut places = Places::default();
        places.heat(&camera, TrackId(1), area, 0);
        assert!(!places.is_hot(&camera, TrackId(1), &area, 0), "the attack itself is decided by what it is");
        assert!(places.is_hot(&camera, TrackId(2), &area, 9000));
        places.ended(&camera, TrackId(1), area, (3000, 1000));
        places.ended(&camera, TrackId(1), area, (3900, 1000));
        assert!(places.is_hot(&camera, TrackId(2), &area, 3999) && !places.is_hot(&camera, TrackId(2), &area, 4000));
        let beside = BoundingBox { x: 300.0, ..area };
        assert!(!places.is_hot(&camera, TrackId(2), &beside, 3000));
        assert!(!places.is_hot(&CameraId::new("other").unwrap(), TrackId(2), &area, 3000));
        places.heat(&camera, TrackId(5), area, 5000);
        places.ended(&camera, TrackId(5), beside, (6000, 1000));
        for place in [area, beside] {
            assert!(places.is_hot(&camera, TrackId(6), &place, 6999), "where it was judged and where it was carried");
            assert!(!places.is_hot(&camera, TrackId(6), &place, 7000));
        }
        (10..1000).for_each(|n| places.heat(&camera, TrackId(n), area, 5000));
        assert_eq!(places.0.len(), MAX_PLACES);
    }

    #[test]
    fn what_another_camera_may_tell_of_is_bounded_and_forgotten_with_its_approach() {
        let mut told = Told::default();
        let embedding = crate::types::Embedding::normalised(crate::types::ModelId::new("m").unwrap(), vec![1.0, 0.0]);
        let seen = crate::access::tests::observation(Vec::new(), None);
        let seen = Observation { probe: embedding.map(Probe::from), ..seen };
        let matching = Score::new(0.3).unwrap();
        let news = |owed| News { owed, is_new: true };
        (0..1000).for_each(|_| assert_eq!(told.tell(&door(), &seen, (Reason::Unknown, 1), (0, 3000, matching)), news(1)));
        assert_eq!(told.0.len(), MAX_TOLD);
        assert_eq!(told.tell(&door(), &seen, (Reason::Lockdown, 0), (0, 3000, matching)), news(0));
        told.tell(&door(), &seen, (Reason::Unknown, 1), (3000, 3000, matching));
        assert_eq!(told.0.len(), 1, "the faces of an approach that is over are gone");
    }
}
