//! The decider's rules, each by its history.

use super::*;
use crate::types::{
    BoundingBox, Candidate, Embedding, FaceSample, ModelId, Monotonic, Place, Probe, Profile, Sighting, Trajectory, Wall,
    WitnessKind,
};

mod beyond;
mod blocks;
mod desk;
mod history;
mod policy;
mod raised;
mod written;

fn decider(settings: Settings) -> Decider {
    let doors = [DoorSettings::new(DoorId::new("front").unwrap(), vec![CameraId::new("cam").unwrap()])];
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let rules = Rules::new(&PolicySettings::default()).unwrap();
    Decider::new(DeviceId::new("unit").unwrap(), settings, thresholds, &doors, rules, GrantKey::from_seed(&[7; 32]).unwrap())
}

fn moment(ms: u64) -> Moment {
    Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(1_700_000_000_000 + i64::try_from(ms).unwrap()) }
}

pub(super) fn candidate(person: &str, score: f32) -> Candidate {
    Candidate { person: PersonId::new(person).unwrap(), score: Score::new(score).unwrap() }
}

pub(super) fn observation(candidates: Vec<Candidate>, liveness: Option<f32>) -> Observation {
    let profiles = candidates.iter().map(|c| (c.person.clone(), Profile::default())).collect();
    Observation {
        camera: CameraId::new("cam").unwrap(),
        track: TrackId(1),
        captured_at: moment(2000),
        first_usable_at: moment(0),
        probe: None,
        candidates,
        profiles,
        gallery: true,
        liveness: liveness.map(|l| PadScore::new(l).unwrap()),
        liveness_frames: 5,
        frames: 5,
        quality: 0.8,
        bounding_box: BoundingBox::default(),
        trajectory: Trajectory::default(),
        samples: turned(Some(0.0)),
        is_flat: false,
        ended: false,
    }
}

/// A single sample that looks to a side: what [`sampled`] makes the others of.
fn turned(yaw: Option<f32>) -> Vec<FaceSample> {
    vec![FaceSample { captured_at: moment(0), liveness: None, yaw, faces_in_view: 1, scores: Vec::new() }]
}

/// The same with samples as the visit's sums say: as many as its frames, all of one face, a fifth of a second apart.
fn sampled(seen: &Observation) -> Observation {
    let last = seen.samples.last().expect("a sample to begin with");
    let sample = |number: u32| {
        let ago = u64::from(seen.frames - 1 - number) * 200_000_000;
        let monotonic = Monotonic(seen.captured_at.monotonic.0.saturating_sub(ago));
        FaceSample {
            captured_at: Moment { monotonic, ..seen.captured_at },
            liveness: seen.liveness.filter(|_| number < seen.liveness_frames),
            scores: seen.candidates.iter().map(|c| c.score).collect(),
            ..last.clone()
        }
    };
    Observation { samples: (0..seen.frames).map(sample).collect(), ..seen.clone() }
}

impl Decider {
    /// Decides about a visit whose samples all show the same face.
    fn decide_on_one_face(&mut self, seen: &Observation, now: Moment, grant_id: &mut dyn FnMut() -> String) -> Vec<Decision> {
        self.decide(&sampled(seen), now, grant_id)
    }
}

fn expired(mut observation: Observation) -> Observation {
    observation.profiles.values_mut().for_each(|profile| profile.expires_at = Some(Wall(0)));
    observation
}

fn outcome(settings: Settings, observation: &Observation, now: Moment) -> Option<(Outcome, Reason)> {
    let decisions = decider(settings).decide_on_one_face(observation, now, &mut || "id".into());
    decisions.first().map(|d| (d.outcome, d.reason))
}

#[test]
fn nothing_but_a_live_clear_fresh_match_is_granted() {
    let one = |score, live| observation(vec![candidate("a", score)], live);
    let denied = |reason| Some((Outcome::Denied, reason));
    let cases = [
        (one(0.29, Some(0.9)), denied(Reason::Unknown)),
        (observation(vec![], Some(0.9)), denied(Reason::Unknown)),
        (one(0.9, Some(0.49)), denied(Reason::Spoof)),
        (one(0.9, None), denied(Reason::LivenessUncertain)),
        (observation(vec![candidate("a", 0.6), candidate("b", 0.58)], Some(0.9)), denied(Reason::Ambiguous)),
        (Observation { gallery: false, ..one(0.9, Some(0.9)) }, denied(Reason::GalleryUnavailable)),
        (expired(one(0.9, Some(0.9))), denied(Reason::ExpiredPerson)),
        (Observation { liveness_frames: 2, ended: true, ..one(0.9, Some(0.9)) }, denied(Reason::LivenessUncertain)),
        (Observation { liveness_frames: 2, ..one(0.9, Some(0.9)) }, None),
        (Observation { profiles: Default::default(), ..one(0.9, Some(0.9)) }, denied(Reason::Unknown)),
        (Observation { frames: 2, ended: true, ..one(0.9, Some(0.9)) }, denied(Reason::LivenessUncertain)),
        (Observation { frames: 2, ..one(0.9, Some(0.9)) }, None),
        (one(0.9, Some(0.9)), Some((Outcome::Granted, Reason::Match))),
    ];
    for (index, (observation, expected)) in cases.into_iter().enumerate() {
        assert_eq!(outcome(Settings::default(), &observation, moment(2010)), expected, "case {index}");
    }
}

#[test]
fn stale_evidence_is_denied_however_good_it_was() {
    let good = observation(vec![candidate("a", 0.9)], Some(0.9));
    assert_eq!(outcome(Settings::default(), &good, moment(3001)), Some((Outcome::Denied, Reason::Stale)));
    assert_eq!(outcome(Settings::default(), &good, moment(999)), Some((Outcome::Denied, Reason::Stale)), "from the future");
}

#[test]
fn a_refusal_waits_for_better_evidence_and_a_grant_does_not() {
    let early = Observation { captured_at: moment(100), ..observation(vec![candidate("a", 0.2)], Some(0.9)) };
    assert_eq!(outcome(Settings::default(), &early, moment(110)), None);
    let ended = Observation { ended: true, ..early.clone() };
    assert_eq!(outcome(Settings::default(), &ended, moment(110)), Some((Outcome::Denied, Reason::Unknown)));
    let good = Observation { candidates: vec![candidate("a", 0.9)], ..early };
    assert_eq!(outcome(Settings::default(), &good, moment(110)), Some((Outcome::Granted, Reason::Match)));
}

#[test]
fn a_track_is_decided_once() {
    let mut decider = decider(Settings::default());
    let spoof = observation(vec![candidate("a", 0.9)], Some(0.1));
    let live = observation(vec![candidate("a", 0.9)], Some(0.9));
    assert_eq!(decider.decide_on_one_face(&spoof, moment(2010), &mut || "1".into()).len(), 1);
    assert!(decider.decide_on_one_face(&live, moment(2020), &mut || "2".into()).is_empty(), "a denied track was let in by waiting");
}

#[test]
fn the_longest_decided_track_is_forgotten_first_whatever_its_number() {
    let camera = CameraId::new("cam").unwrap();
    let mut decider = decider(Settings { approach_ms: 0, ..Settings::default() });
    let count = u64::try_from(REMEMBERED_TRACKS).unwrap();
    // Another camera's tracks have far lower or far higher numbers: the age counts, not the number.
    for number in (1..=count).rev() {
        let seen = Observation { track: TrackId(number), ..observation(vec![candidate("a", 0.9)], Some(0.9)) };
        assert_eq!(decider.decide_on_one_face(&seen, moment(2000), &mut || "id".into()).len(), 1);
    }
    let one_more = Observation { track: TrackId(count + 1), ..observation(vec![candidate("a", 0.9)], Some(0.9)) };
    assert_eq!(decider.decide_on_one_face(&one_more, moment(2000), &mut || "id".into()).len(), 1);
    assert!(!decider.is_decided(&camera, TrackId(count)), "the first one decided");
    assert!(decider.is_decided(&camera, TrackId(1)), "the lowest number, decided a moment ago");
}

#[test]
fn a_camera_without_a_door_decides_nothing() {
    let elsewhere = Observation { camera: CameraId::new("other").unwrap(), ..observation(vec![candidate("a", 0.9)], Some(0.9)) };
    assert_eq!(outcome(Settings::default(), &elsewhere, moment(2010)), None);
}

#[test]
fn review_is_only_ever_a_shut_door() {
    let settings = Settings { ambiguous: Ambiguous::Review, ..Settings::default() };
    let twins = observation(vec![candidate("a", 0.6), candidate("b", 0.6)], Some(0.9));
    let decisions = decider(settings).decide_on_one_face(&twins, moment(2010), &mut || "id".into());
    assert_eq!(decisions[0].outcome, Outcome::Review);
    assert!(decisions[0].grant.is_none());
}

#[test]
fn the_pack_that_is_for_a_first_look_grants_nothing_unless_the_site_accepts_it() {
    let clear = observation(vec![candidate("ann", 0.9)], Some(0.9));
    let picture = observation(vec![candidate("ann", 0.9)], Some(0.1));
    let ask = |accept_demo_pack: bool, is_demo_pack: bool, observation: &Observation| {
        let mut decider = decider(Settings { accept_demo_pack, ..Settings::default() }).with_demo_pack(is_demo_pack);
        let decisions = decider.decide_on_one_face(observation, moment(2010), &mut || "id".into());
        (decisions[0].reason, decisions[0].grant.is_some())
    };
    assert_eq!(ask(false, true, &clear), (Reason::DemoPack, false));
    assert_eq!(ask(true, true, &clear), (Reason::Match, true));
    assert_eq!(ask(false, false, &clear), (Reason::Match, true));
    assert_eq!(ask(false, true, &picture), (Reason::Spoof, false), "refused anyway, and for what it is");
}

#[test]
fn nothing_is_granted_before_the_broker_is_heard_nor_by_what_was_seen_before_that() {
    let seen = |at: u64| Observation { captured_at: moment(at), ..observation(vec![candidate("ann", 0.9)], Some(0.9)) };
    let ask = |decider: &mut Decider, observation: &Observation, now: u64| {
        let decisions = decider.decide_on_one_face(observation, moment(now), &mut || "id".into());
        decisions.first().map(|d| (d.outcome, d.reason, d.grant.is_some()))
    };
    let strict = || decider(Settings::default()).with_vouching(Duration::ZERO, moment(0));
    let (granted, silent) = ((Outcome::Granted, Reason::Match, true), (Outcome::Denied, Reason::BrokerSilent, false));

    let mut waits = strict();
    assert_eq!(ask(&mut waits, &seen(100), 100), None, "whoever stands there may still be let in");
    waits.take(Input::Vouched, moment(200)).unwrap();
    assert_eq!(ask(&mut waits, &seen(200), 210), None, "matched with what the word may have taken back");
    assert_eq!(ask(&mut waits, &seen(201), 210), Some(granted));

    let mut silence = strict();
    assert_eq!(ask(&mut silence, &seen(5_000), 5_000), Some(silent), "told after a while");
    let mut left = strict();
    assert_eq!(ask(&mut left, &Observation { ended: true, ..seen(100) }, 100), Some(silent), "and to whoever leaves");
    // What is refused anyway is refused for what it is.
    let spoof = Observation { liveness: Some(PadScore::new(0.1).unwrap()), ..seen(5_000) };
    assert_eq!(ask(&mut strict(), &spoof, 5_000), Some((Outcome::Denied, Reason::Spoof, false)));

    // A site that chose it: grants for a while, and no longer.
    let mut patient = decider(Settings::default()).with_vouching(Duration::from_secs(60), moment(0));
    assert_eq!(ask(&mut patient, &seen(59_000), 59_000), Some(granted));
    let mut over = decider(Settings::default()).with_vouching(Duration::from_secs(60), moment(0));
    assert_eq!(ask(&mut over, &seen(60_000), 60_000), Some(silent));
}
