//! What a door asks for besides the pictures of its own camera: a turn of the head, and a second camera that sees the same face. Each
//! rule by the shortest history that shows it; `history` has the long ones.

use super::*;

const CAMERA: &str = "cam";
const ASKED_MS: u64 = 1000;

fn at(ms: u64) -> Moment {
    moment(ms)
}

fn front() -> DoorId {
    DoorId::new("front").unwrap()
}

/// A door that is blocked after so many failures.
fn door(liveness: DoorLiveness, failures: u32, sides: impl FnMut() -> Option<Side> + Send + 'static) -> Decider {
    let doors = [DoorSettings { liveness, ..DoorSettings::new(front(), vec![CameraId::new(CAMERA).unwrap()]) }];
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let policy: PolicySettings = toml::from_str(&format!("throttle = {{ failures = {failures} }}")).unwrap();
    let rules = Rules::new(&policy).unwrap();
    let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
    Decider::new(device, Settings::default(), thresholds, &doors, rules, key).with_sides(Box::new(sides))
}

fn asking(side: Option<Side>) -> Decider {
    door(turn(), 100, move || side)
}

fn turn() -> DoorLiveness {
    DoorLiveness { challenge: ChallengeKind::Turn, ..DoorLiveness::default() }
}

/// `who` on a track, looking to a side.
fn looking(track: u64, who: &str, yaw: Option<f32>, ms: u64) -> Observation {
    let (captured_at, first_usable_at) = (at(ms), at(ms.saturating_sub(200)));
    let samples = turned(yaw);
    Observation {
        track: TrackId(track),
        captured_at,
        first_usable_at,
        samples,
        ..observation(vec![candidate(who, 0.9)], Some(0.9))
    }
}

fn decide(decider: &mut Decider, observation: &Observation) -> Option<(Outcome, Reason)> {
    let decisions =
        decider.decide_on_one_face(observation, observation.captured_at.plus(Duration::from_millis(10)), &mut || "id".into());
    assert!(decisions.len() <= 1);
    decisions.first().map(|decision| (decision.outcome, decision.reason))
}

const GRANTED: Option<(Outcome, Reason)> = Some((Outcome::Granted, Reason::Match));
const FAILED: Option<(Outcome, Reason)> = Some((Outcome::Denied, Reason::Challenge));

#[test]
fn only_the_asked_turn_by_the_asked_person_after_the_question_and_in_time_is_an_answer() {
    let (left, right) = (Side::Left, Side::Right);
    let seen = |who: &str, yaw: f32, ms: u64| looking(1, who, Some(yaw), ms);
    // The side, where the face looked when it was asked, what was seen then, what came of it. It is asked at 1010 ms.
    let cases = [
        (left, 0.0, seen("a", 15.0, 1100), GRANTED, "to the left"),
        (right, 0.0, seen("a", -15.0, 1100), GRANTED, "to the right"),
        (left, 0.0, seen("a", -15.0, 1100), FAILED, "to the right, asked to the left"),
        (right, 0.0, seen("a", 15.0, 1100), FAILED, "to the left, asked to the right"),
        (left, 0.0, seen("a", 14.9, 1100), None, "not far enough yet"),
        (left, 10.0, seen("a", 24.9, 1100), None, "not far enough from where it looked"),
        (left, 10.0, seen("a", 25.0, 1100), GRANTED, "from where it looked"),
        (left, 0.0, seen("a", 15.0, 1010), None, "on its way when it was asked"),
        (left, 0.0, seen("a", 15.0, 1011), GRANTED, "after it was asked"),
        (left, 0.0, seen("a", 15.0, 7010), GRANTED, "at the last moment"),
        (left, 0.0, seen("a", 15.0, 7011), FAILED, "too late"),
        (left, 0.0, seen("b", 15.0, 1100), FAILED, "somebody else"),
        (left, 0.0, looking(1, "a", None, 1100), None, "points that say nothing"),
        (left, 0.0, Observation { ended: true, ..seen("a", 3.0, 1100) }, FAILED, "who walks off has tried"),
    ];
    for (side, from, answer, expected, why) in cases {
        let mut door = asking(Some(side));
        assert_eq!(decide(&mut door, &looking(1, "a", Some(from), ASKED_MS)), None, "{why}");
        let prompts = door.take_prompts();
        assert_eq!(prompts.iter().map(|p| (p.side, p.track)).collect::<Vec<_>>(), [(side, TrackId(1))], "{why}");
        assert_eq!(decide(&mut door, &answer), expected, "{why}");
        assert_eq!(door.throttle.weighs(&front()), u32::from(expected == FAILED), "{why}");
        if expected == FAILED {
            let right_after = seen("a", if side == left { 20.0 } else { -20.0 }, answer.captured_at.monotonic.0 / 1_000_000 + 100);
            assert_eq!(decide(&mut door, &right_after), None, "failed, and mended by trying on: {why}");
        }
    }
}

#[test]
fn nobody_is_asked_without_chance_or_who_is_gone_or_shows_no_side_and_it_costs_nothing() {
    let gone = Observation { ended: true, ..looking(1, "a", Some(0.0), ASKED_MS) };
    let cases = [
        (None, looking(1, "a", Some(0.0), ASKED_MS), "no randomness"),
        (Some(Side::Left), gone, "gone"),
        (Some(Side::Left), looking(1, "a", None, ASKED_MS), "no points"),
        (Some(Side::Left), looking(1, "a", Some(f32::NAN), ASKED_MS), "no angle"),
    ];
    for (side, seen, why) in cases {
        let mut door = asking(side);
        assert_eq!(decide(&mut door, &seen), FAILED, "{why}");
        assert!(door.take_prompts().is_empty() && door.throttle.weighs(&front()) == 0, "{why}");
    }
}

#[test]
fn who_lets_the_time_run_out_is_denied_and_charged_once_and_has_no_second_try() {
    let mut door = asking(Some(Side::Left));
    assert_eq!(decide(&mut door, &looking(1, "a", Some(0.0), ASKED_MS)), None);
    assert!(door.overdue(at(7510)).is_empty(), "what was captured in time may be judged a little later");
    let overdue: Vec<_> = door.overdue(at(7511)).into_iter().map(|d| (d.outcome, d.reason, d.track)).collect();
    assert_eq!(overdue, [(Outcome::Denied, Reason::Challenge, TrackId(1))]);
    assert_eq!(door.throttle.weighs(&front()), 1);
    assert!(door.overdue(at(9000)).is_empty());
    assert_eq!(decide(&mut door, &looking(1, "a", Some(20.0), 9000)), None);
    assert!(door.take_prompts().len() == 1, "asked once");
}

#[test]
fn the_faces_that_are_asked_at_one_time_are_bounded_and_the_next_waits_for_its_turn() {
    let mut door = door(turn(), 0, || Some(Side::Left));
    for track in 1..=300 {
        assert_eq!(decide(&mut door, &looking(track, "a", Some(0.0), ASKED_MS)), None);
    }
    assert_eq!((door.take_prompts().len(), door.overdue(at(8000)).len()), (256, 256));
    assert_eq!(decide(&mut door, &looking(300, "a", Some(0.0), 8000)), None);
    assert_eq!(door.take_prompts().iter().map(|prompt| prompt.track).collect::<Vec<_>>(), [TrackId(300)]);
}

#[test]
fn whoever_was_let_through_on_this_approach_is_not_asked_again_and_old_evidence_asks_nobody() {
    let mut door = asking(Some(Side::Left));
    decide(&mut door, &looking(1, "a", Some(0.0), ASKED_MS));
    assert_eq!(decide(&mut door, &looking(1, "a", Some(20.0), 1100)), GRANTED);
    assert_eq!(decide(&mut door, &looking(2, "a", Some(0.0), 2000)), None);
    assert!(door.is_decided(&CameraId::new(CAMERA).unwrap(), TrackId(2)));
    assert_eq!(door.take_prompts().len(), 1, "for the first track alone");
    let old = looking(3, "b", Some(0.0), 2000);
    let decided = door.decide_on_one_face(&old, at(3100), &mut || "id".into());
    assert_eq!(decided.first().map(|d| d.reason), Some(Reason::Stale));
    assert!(door.take_prompts().is_empty());
}

#[test]
fn a_second_camera_that_sees_nobody_accuses_and_one_that_is_silent_only_keeps_the_door_shut() {
    let camera = CameraId::new("beside").unwrap();
    let settings = WitnessSettings { camera: camera.clone(), kind: WitnessKind::Infrared, tolerance_percent: 15 };
    let here = Place { x: 0.5, y: 0.5, height: 0.3 };
    let look = |ms: u64, faces: &[Place]| Sighting { camera: camera.clone(), captured_at: at(ms), faces: faces.to_vec() };
    let looks = |faces: &[Place]| (1000..2000).step_by(100).map(|ms| look(ms, faces)).collect::<Vec<_>>();
    let cases = [
        (looks(&[here]), Outcome::Granted, Reason::Match, 0),
        (looks(&[]), Outcome::Denied, Reason::Spoof, 2),
        (Vec::new(), Outcome::Denied, Reason::Witness, 0),
    ];
    for (seen, outcome, reason, weight) in cases {
        let mut door = door(DoorLiveness { witness: Some(settings.clone()), ..DoorLiveness::default() }, 100, || None);
        for sighting in seen {
            door.take(Input::Sighting(sighting), at(2000)).unwrap();
        }
        let mut trajectory = Trajectory::default();
        (500..=2000).step_by(100).for_each(|ms| trajectory.push(at(ms).monotonic, here));
        let seen = Observation { trajectory, ended: true, ..looking(1, "a", Some(0.0), 2000) };
        assert_eq!(decide(&mut door, &seen), Some((outcome, reason)));
        assert_eq!(door.throttle.weighs(&front()), weight, "{reason:?}");
    }
}
