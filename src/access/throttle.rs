//! What failed attempts cost a door, a face and a reader.
//!
//! **A door** whose faces failed so often within a window is blocked, each time twice as long, up to a longest: while it is, nobody is told
//! why, and only a clear match passes, with more frames than otherwise ([`super::barred`]): whoever is enrolled, alive and clearly seen is
//! not kept out by what others did. **A reader** that was told so many numbers that are nobody's is blocked likewise: a number then counts
//! only beside the face of its owner. **A face** that failed waits by itself ([`super::tried`]).
//!
//! A grant does not wipe a door's slate, or somebody could try four times between two colleagues. Time that the device was off does not
//! count as waiting.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::policy::ThrottleSettings;
use super::state::Ms;
use crate::types::{BoundingBox, CameraId, DoorId, Observation, Probe, Reason, Score, TrackId};

/// The most failures of one door that are remembered; a block comes long before.
const MAX_CHARGES: usize = 128;
/// The most doublings of a block; the longest block comes before.
pub(super) const MAX_LEVEL: u32 = 16;
/// The most places that cool down; the oldest has long cooled.
const MAX_PLACES: usize = 64;
/// The most refusals that another camera may still repeat; they last for seconds.
const MAX_TOLD: usize = 64;
/// A place whose track's end was never told is cold after this, in milliseconds.
const UNTOLD_MS: Ms = 10_000;

pub(super) fn seconds(seconds: u64) -> Ms {
    Ms::try_from(seconds.saturating_mul(1000)).unwrap_or(Ms::MAX)
}

/// A door's failures and blocks, of its faces or of its reader.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    settings: ThrottleSettings,
    doors: BTreeMap<DoorId, Slate>,
}

#[derive(Debug, Clone, Default)]
struct Slate {
    charges: VecDeque<(Ms, u32)>,
    /// How many blocks there were; halved with time.
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

impl Slate {
    /// The blocks that still count: half as many after each `forgive_s` since the last one ended.
    fn level_at(&self, now: Ms, settings: &ThrottleSettings) -> u32 {
        let quiet = self.blocked_until.map_or(0, |until| now.saturating_sub(until).max(0));
        let halvings = quiet / seconds(settings.forgive_s).max(1);
        self.level.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }
}

impl Throttle {
    pub(super) fn new(settings: ThrottleSettings) -> Self {
        Self { settings, doors: BTreeMap::new() }
    }

    /// From now on by these settings.
    pub(super) fn follow(&mut self, settings: ThrottleSettings) {
        self.settings = settings;
    }

    /// When the block that is in force ends.
    pub(super) fn blocked_until(&self, door: &DoorId, now: Ms) -> Option<Ms> {
        self.doors.get(door).and_then(|slate| slate.blocked_until).filter(|until| now < *until)
    }

    pub(super) fn is_blocked(&self, door: &DoorId, now: Ms) -> bool {
        self.blocked_until(door, now).is_some()
    }

    /// Counts a failure; false when that changes nothing. A door that is blocked is not blocked longer by those who go on trying.
    pub(super) fn charge(&mut self, door: &DoorId, weight: u32, now: Ms) -> bool {
        if self.settings.failures == 0 || weight == 0 || self.is_blocked(door, now) {
            return false;
        }
        let slate = self.doors.entry(door.clone()).or_default();
        slate.charges.retain(|(at, _)| now.saturating_sub(*at) < seconds(self.settings.window_s));
        if slate.charges.len() >= MAX_CHARGES {
            slate.charges.pop_front();
        }
        slate.charges.push_back((now, weight));
        let sum = slate.charges.iter().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        if sum >= self.settings.failures {
            let level = slate.level_at(now, &self.settings);
            let doubled = self.settings.block_s.saturating_mul(1 << level.min(MAX_LEVEL));
            slate.blocked_until = Some(now.saturating_add(seconds(doubled.min(self.settings.longest_block_s))));
            slate.level = (level + 1).min(MAX_LEVEL);
            slate.charges.clear();
        }
        true
    }

    /// Forgets every failure and block of a door, or of every door.
    pub(super) fn release(&mut self, door: Option<&DoorId>) {
        self.doors.retain(|other, _| door.is_some_and(|door| door != other));
    }

    /// What a door's failures amount to by now.
    #[cfg(test)]
    pub(super) fn weighs(&self, door: &DoorId) -> u32 {
        self.doors.get(door).into_iter().flat_map(|slate| &slate.charges).map(|(_, weight)| weight).sum()
    }

    pub(super) fn state(&self, now: Ms) -> Vec<ThrottledDoor> {
        let doors = self.doors.iter().map(|(door, slate)| ThrottledDoor {
            door: door.clone(),
            charges: slate.charges.iter().map(|(at, weight)| (now.saturating_sub(*at), *weight)).collect(),
            level: slate.level,
            blocked_for_ms: slate.blocked_until.map(|until| until.saturating_sub(now)),
        });
        doors.collect()
    }

    /// Takes up what was kept, by the settings of now: without a throttle nothing is, and no block outlasts the longest.
    pub(super) fn restore(&mut self, doors: Vec<ThrottledDoor>, now: Ms) {
        if self.settings.failures == 0 {
            return;
        }
        let longest = seconds(self.settings.longest_block_s);
        for door in doors {
            let charges = door.charges.into_iter().take(MAX_CHARGES);
            let slate = Slate {
                charges: charges.map(|(age, weight)| (now.saturating_sub(age.max(0)), weight)).collect(),
                level: door.level.min(MAX_LEVEL),
                blocked_until: door.blocked_for_ms.map(|left| now.saturating_add(left.min(longest))),
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
    /// What was charged.
    charged: u32,
    /// Which cameras told of it.
    cameras: Vec<CameraId>,
}

/// A refusal that names nobody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// How bad it is; what is no failure weighs nothing.
    pub(super) weight: u32,
    /// What of that the door is charged: nothing for a stranger who only passes by.
    pub(super) charged: u32,
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
    /// What a refusal adds to what another camera told within the last `within_ms`.
    pub(super) fn tell(
        &mut self,
        door: &DoorId,
        observation: &Observation,
        Failure { reason, weight, charged }: Failure,
        (now, within_ms, matching): (Ms, Ms, Score),
    ) -> News {
        self.0.retain(|refusal| now.saturating_sub(refusal.at) < within_ms);
        let Some(probe) = &observation.probe else { return News { owed: charged, is_new: true } };
        let known = self.0.iter_mut().find(|refusal| {
            let is_alike = || refusal.probe.compare(probe).is_some_and(|score| score >= matching);
            let is_of_its_kind =
                if weight > 0 { refusal.weight > 0 } else { refusal.weight == 0 && refusal.reasons.contains(&reason) };
            refusal.door == *door && is_of_its_kind && !refusal.cameras.contains(&observation.camera) && is_alike()
        });
        if let Some(refusal) = known {
            refusal.cameras.push(observation.camera.clone());
            let owed = charged.saturating_sub(refusal.charged);
            let is_new = weight >= refusal.weight && !refusal.reasons.contains(&reason);
            refusal.weight = refusal.weight.max(weight);
            refusal.charged = refusal.charged.max(charged);
            refusal.reasons.extend(is_new.then_some(reason));
            return News { owed, is_new };
        }
        if self.0.len() >= MAX_TOLD {
            self.0.pop_front();
        }
        let cameras = vec![observation.camera.clone()];
        let (door, probe, reasons) = (door.clone(), probe.clone(), vec![reason]);
        self.0.push_back(Refusal { door, at: now, probe, reasons, weight, charged, cameras });
        News { owed: charged, is_new: true }
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
    fn failures_far_apart_block_nobody_and_old_blocks_count_half_as_many_with_each_hour() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        for n in 0..50 {
            throttle.charge(&door(), 1, n * 76 * S);
            assert!(!throttle.is_blocked(&door(), n * 76 * S));
        }
        let now = 10_000 * S;
        throttle.charge(&door(), 5, now);
        throttle.charge(&door(), 5, now + 31 * S);
        assert_eq!(blocked_for(&throttle, now + 31 * S), 60 * S);
        let later = now + 31 * S + 60 * S + 3600 * S;
        throttle.charge(&door(), 5, later - S);
        assert_eq!(blocked_for(&throttle, later - S), 120 * S, "nothing is forgiven yet");
        let (ended, hour) = (later - S + 120 * S, 3600 * S);
        for (hours, level) in [(1, 1), (2, 0), (100, 0)] {
            let mut throttle = throttle.clone();
            throttle.charge(&door(), 5, ended + hours * hour);
            assert_eq!(blocked_for(&throttle, ended + hours * hour), (30 << level) * S, "three blocks, {hours} hours ago");
        }
    }

    #[test]
    fn trying_on_does_not_make_a_block_longer_and_attacks_weigh_more() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        for weight in [2, 2, 2] {
            throttle.charge(&door(), weight, 0);
        }
        assert!((0..29).all(|n| !throttle.charge(&door(), 2, n * S)));
        assert!(throttle.is_blocked(&door(), 29 * S) && !throttle.is_blocked(&door(), 30 * S));
        let mut never = Throttle::new(ThrottleSettings { failures: 0, ..ThrottleSettings::default() });
        (0..100).for_each(|_| assert!(!never.charge(&door(), 2, 0)));
        assert!(!never.is_blocked(&door(), 0));
    }

    #[test]
    fn only_a_charge_that_counts_is_a_change_and_a_release_forgets_one_door_or_all() {
        let mut throttle = Throttle::new(ThrottleSettings::default());
        let back = DoorId::new("back").unwrap();
        assert!(throttle.charge(&back, 5, 0));
        assert!((0..5).all(|_| throttle.charge(&door(), 1, 0)));
        assert!((0..100).all(|n| !throttle.charge(&door(), 1, n * 290)), "a blocked door's failures change nothing");
        assert!(!throttle.charge(&back, 0, 40_000), "neither does what weighs nothing");
        throttle.release(Some(&door()));
        assert!(!throttle.is_blocked(&door(), 1) && throttle.is_blocked(&back, 1));
        throttle.charge(&door(), 5, 1);
        assert_eq!(blocked_for(&throttle, 1), 30 * S, "the blocks before it are forgotten, too");
        throttle.release(None);
        assert!(throttle.state(2).is_empty());
    }

    #[test]
    fn what_was_kept_is_taken_up_by_the_settings_of_now() {
        let mut throttle = Throttle::new(ThrottleSettings { block_s: 3600, ..ThrottleSettings::default() });
        throttle.charge(&door(), 5, 0);
        let kept = throttle.state(10 * S);
        let mut shorter = Throttle::new(ThrottleSettings { longest_block_s: 60, ..ThrottleSettings::default() });
        shorter.restore(kept.clone(), 0);
        assert_eq!(blocked_for(&shorter, 0), 60 * S);
        let mut never = Throttle::new(ThrottleSettings { failures: 0, ..ThrottleSettings::default() });
        never.restore(kept, 0);
        assert!(!never.is_blocked(&door(), 0) && never.state(0).is_empty());
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
        let unknown = |charged| Failure { reason: Reason::Unknown, weight: 1, charged };
        let locked = Failure { reason: Reason::Lockdown, weight: 0, charged: 0 };
        (0..1000).for_each(|_| assert_eq!(told.tell(&door(), &seen, unknown(1), (0, 3000, matching)), news(1)));
        assert_eq!(told.0.len(), MAX_TOLD);
        assert_eq!(told.tell(&door(), &seen, locked, (0, 3000, matching)), news(0));
        told.tell(&door(), &seen, unknown(0), (3000, 3000, matching));
        let beside = Observation { camera: CameraId::new("beside").unwrap(), ..seen };
        let owed = told.tell(&door(), &beside, unknown(1), (3100, 3000, matching));
        assert_eq!(owed, News { owed: 1, is_new: false }, "whom one camera saw passing by, and another coming near");
        assert_eq!(told.0.len(), 1, "the faces of an approach that is over are gone");
    }
}
