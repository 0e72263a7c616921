//! What failed attempts cost, and whom: a block keeps out whoever fails, and nobody whom the door knows. `history` has the long ones.

use proptest::prelude::*;

use super::*;
use crate::access::policy::CredentialNumber;
use crate::access::verdict::Verdict;

const GRANTED: Option<(Outcome, Reason)> = Some((Outcome::Granted, Reason::Match));
const THROTTLED: Option<(Outcome, Reason)> = Some((Outcome::Denied, Reason::Throttled));
const HOUR: u64 = 3_600_000;
const TWO_FACTOR: &str = "people = [{ id = 'ada', credentials = ['4711-a'] }, { id = 'bob', credentials = ['4712-b'] }]
[[doors]]
id = 'front'
mode = 'two-factor'
allow = [{ everyone = true }]";

fn denied(reason: Reason) -> Option<(Outcome, Reason)> {
    Some((Outcome::Denied, reason))
}

fn front() -> DoorId {
    DoorId::new("front").unwrap()
}

/// A door with a camera of its name.
fn site(policy: &str) -> Decider {
    let policy: PolicySettings = toml::from_str(policy).unwrap();
    assert_eq!(policy.findings(), []);
    let doors = [DoorSettings::new(front(), vec![CameraId::new("front").unwrap()])];
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
    let mut decider = Decider::new(device, Settings::default(), thresholds, &doors, Rules::new(&policy).unwrap(), key);
    decider.take(Input::Clock(Clock::Synchronised), moment(0)).unwrap();
    decider
}

/// A probe of face `who`, of which no two are alike.
fn probe_of(who: usize) -> Option<Probe> {
    let values = (0..8).map(|n| if n == who { 1.0 } else { 0.0 }).collect();
    Embedding::normalised(ModelId::new("m").unwrap(), values).map(Probe::from)
}

/// Somebody who comes at `ms`, is seen for a second and a bit, with eight frames, at a place of the track's own.
#[expect(clippy::cast_precision_loss, reason = "track numbers are small")]
fn visit(track: u64, who: &str, score: f32, ms: u64) -> Observation {
    let mut trajectory = Trajectory::default();
    trajectory.push(moment(ms + 1200).monotonic, Place { x: 0.5, y: 0.5, height: 0.3 });
    Observation {
        camera: CameraId::new("front").unwrap(),
        track: TrackId(track),
        captured_at: moment(ms + 1200),
        first_usable_at: moment(ms),
        bounding_box: BoundingBox { x: 500.0 * track as f32, y: 0.0, width: 80.0, height: 80.0 },
        trajectory,
        frames: 8,
        liveness_frames: 8,
        ended: true,
        ..observation(vec![candidate(who, score)], Some(0.9))
    }
}

fn stranger(track: u64, face: usize, ms: u64) -> Observation {
    Observation { probe: probe_of(face), ..visit(track, "x", 0.1, ms) }
}

fn picture(track: u64, who: &str, ms: u64) -> Observation {
    Observation { liveness: PadScore::new(0.1).ok(), ..visit(track, who, 0.8, ms) }
}

fn decide(decider: &mut Decider, seen: &Observation) -> Option<(Outcome, Reason)> {
    let decisions = decider.decide_on_one_face(seen, seen.captured_at, &mut || "id".into());
    assert!(decisions.len() <= 1);
    decisions.first().map(|decision| (decision.outcome, decision.reason))
}

/// A door that attacks by pictures of nobody have blocked for thirty seconds, until 34 s.
fn blocked(policy: &str) -> Decider {
    let mut site = site(policy);
    for n in 0..3 {
        let attack = Observation { candidates: Vec::new(), ..picture(900 + n, "x", 800 + 1000 * n) };
        assert_eq!(decide(&mut site, &attack), denied(Reason::Spoof));
    }
    assert!(site.throttle.is_blocked(&front(), 33_999) && !site.throttle.is_blocked(&front(), 34_000));
    site
}

fn read(number: &str, ms: u64) -> Input {
    let credential = Credential::Number(CredentialNumber::new(number));
    Input::Credential(CredentialRead { door: front(), kind: Factor::Pin, credential, at: moment(ms) })
}

#[test]
fn strangers_who_pass_by_are_no_attempts_and_those_who_come_near_and_stay_are() {
    let small = |seen: Observation| {
        let mut trajectory = Trajectory::default();
        trajectory.push(seen.captured_at.monotonic, Place { x: 0.5, y: 0.5, height: 0.11 });
        Observation { trajectory, ..seen }
    };
    let brief = |seen: Observation| Observation { first_usable_at: moment(201), ..seen };
    let seldom = |seen: Observation| Observation { frames: 2, ..seen };
    let near = stranger(1, 0, 0);
    let nowhere = Observation { trajectory: Trajectory::default(), ..near.clone() };
    let twins = Observation { candidates: vec![candidate("ada", 0.8), candidate("bob", 0.8)], ..near.clone() };
    let cases = [
        (near.clone(), 1, "near, for a second and a bit"),
        (brief(near.clone()), 0, "for less than a second"),
        (small(near.clone()), 0, "far away"),
        (seldom(near), 0, "on two frames"),
        (nowhere, 1, "of a size that nobody tells"),
        (small(brief(twins)), 1, "like two people"),
        (small(brief(picture(1, "ada", 0))), 2, "an attack is one from any distance"),
    ];
    for (seen, weight, why) in cases {
        let mut site = site("");
        assert!(decide(&mut site, &seen).is_some(), "{why}");
        assert_eq!(site.throttle.weighs(&front()), weight, "{why}");
        assert_eq!((site.take_changed(), site.has_charged()), (false, weight > 0), "{why}");
    }
    let mut street = site("");
    for n in 0..100 {
        let passing = stranger(n, 0, 0);
        let passing = Observation { captured_at: moment(1200 + n), first_usable_at: moment(201 + n), probe: None, ..passing };
        assert_eq!(decide(&mut street, &passing), denied(Reason::Unknown));
    }
    assert_eq!(decide(&mut street, &Observation { frames: 5, ..visit(200, "ada", 0.32, 2000) }), GRANTED, "no bar was raised");
}

#[test]
fn a_blocked_door_lets_a_clear_match_through_with_more_frames_and_tells_nobody_else_why() {
    let coming = |ms: u64, frames: u32| Observation { frames, ended: false, ..visit(1, "ada", 0.5, ms) };
    let few = |seen: Observation| Observation { frames: 7, ..seen };
    let none = Observation { gallery: false, ..visit(1, "ada", 0.8, 5000) };
    let cases = [
        (visit(1, "ada", 0.351, 5000), GRANTED, "a clear match with its frames"),
        (visit(1, "ada", 0.349, 5000), THROTTLED, "no clear match"),
        (few(visit(1, "ada", 0.5, 5000)), THROTTLED, "gone before its frames"),
        (coming(5000, 7), None, "its frames may still come"),
        (Observation { captured_at: moment(8000), ..coming(5000, 7) }, None, "on a slow camera too"),
        (Observation { liveness_frames: 7, ..coming(5000, 8) }, None, "nor is a living face seen often enough"),
        (coming(5000, 8), GRANTED, "and with them she passes"),
        (stranger(1, 0, 5000), THROTTLED, "a stranger"),
        (picture(1, "ada", 5000), THROTTLED, "a picture"),
        (Observation { liveness: None, ..visit(1, "ada", 0.8, 5000) }, THROTTLED, "nothing that tells of life"),
        (none, THROTTLED, "no gallery"),
        (expired(visit(1, "ada", 0.8, 5000)), denied(Reason::ExpiredPerson), "whom a rule refuses"),
        (few(visit(1, "ada", 0.31, 33_000)), GRANTED, "the block is over"),
    ];
    for (seen, expected, why) in cases {
        assert_eq!(decide(&mut blocked(""), &seen), expected, "{why}");
    }
    let stricter = "throttle = { blocked-lead = 0.2, blocked-frames = 9 }";
    assert_eq!(decide(&mut blocked(stricter), &visit(1, "ada", 0.8, 5000)), THROTTLED);
    assert_eq!(
        decide(&mut blocked(stricter), &Observation { frames: 9, liveness_frames: 9, ..visit(1, "ada", 0.49, 5000) }),
        THROTTLED
    );
    assert_eq!(
        decide(&mut blocked(stricter), &Observation { frames: 9, liveness_frames: 9, ..visit(1, "ada", 0.51, 5000) }),
        GRANTED
    );
    // A threshold that is near certainty leaves room for a clear match.
    let narrow = "throttle = { blocked-lead = 0.5 }\n[[doors]]\nid = 'front'\nmatch-threshold = 0.9\nallow = [{ everyone = true }]";
    assert_eq!(decide(&mut blocked(narrow), &visit(1, "ada", 0.94, 5000)), THROTTLED);
    assert_eq!(decide(&mut blocked(narrow), &visit(1, "ada", 0.96, 5000)), GRANTED);
}

#[test]
fn an_attack_behind_a_block_is_told_to_whoever_watches_and_its_place_is_hot() {
    let mut site = blocked("");
    let attack = picture(1, "bob", 5000);
    let decisions = site.decide_on_one_face(&attack, attack.captured_at, &mut || "id".into());
    assert_eq!((decisions[0].reason, decisions[0].marks.as_slice()), (Reason::Throttled, [Mark::Attack].as_slice()));
    let there = Observation { bounding_box: attack.bounding_box, ..visit(2, "ada", 0.8, 6500) };
    assert_eq!(decide(&mut site, &there), THROTTLED, "whoever stands where it was");
    assert_eq!(decide(&mut site, &visit(3, "ada", 0.8, 6500)), GRANTED, "and nobody else");
}

#[test]
fn a_release_or_a_restart_without_a_throttle_lifts_what_is_blocked() {
    let enrolled = Observation { frames: 5, ..visit(1, "ada", 0.31, 5000) };
    let mut site = blocked("");
    assert_eq!(site.blocks(moment(4000))[0].faces, Some(moment(34_000)));
    assert_eq!(site.blocks(moment(34_000))[0].until(), None);
    let kept = serde_json::to_string(&site.state(moment(4000))).unwrap();
    site.take(Input::Command(Command::Release { door: Some(front()) }), moment(4000)).unwrap();
    assert!(site.take_changed());
    assert_eq!(site.blocks(moment(4000))[0].until(), None);
    assert_eq!(decide(&mut site, &enrolled), GRANTED);
    for (policy, expected) in
        [("", THROTTLED), ("throttle = { failures = 0 }", GRANTED), ("throttle = { longest-block-s = 30 }", THROTTLED)]
    {
        let mut again = super::blocks::site(policy);
        again.restore(serde_json::from_str(&kept).unwrap(), moment(5000));
        assert_eq!(decide(&mut again, &enrolled), expected, "{policy}");
    }
    // What the program before this one kept is taken up.
    let old = kept.replace("\"version\":2", "\"version\":1").replace("\"readers\":[],", "");
    assert!(old != kept && !old.contains("readers"), "{old}");
    let state: State = serde_json::from_str(&old).unwrap();
    assert!(state.is_known());
    let mut again = super::blocks::site("");
    again.restore(state, moment(5000));
    assert_eq!(decide(&mut again, &enrolled), THROTTLED);
    assert!(!serde_json::from_str::<State>(&kept.replace("\"version\":2", "\"version\":3")).unwrap().is_known());
}

#[test]
fn a_blocked_reader_takes_the_right_number_beside_its_owners_clear_face_alone_and_tells_nobody_which_is_right() {
    let blocked = || {
        let mut site = site(TWO_FACTOR);
        for n in 0..5 {
            assert_eq!(site.take(read("0000-x", n), moment(n)), Err(InputError::UnknownCredential(front())));
            assert_eq!((site.take_changed(), site.has_charged()), (n == 4, true), "the fifth blocks it");
            site.forget_charged();
        }
        assert_eq!(site.blocks(moment(10))[0].credentials, Some(moment(30_004)));
        for number in ["0000-x", "4711-a", "0000-x"] {
            assert_eq!(site.take(read(number, 10), moment(10)), Ok(()), "the reader is told nothing");
            assert!(!site.take_changed() && !site.has_charged(), "and nothing is written down");
        }
        site
    };
    let cases = [
        ("4711-a", visit(1, "ada", 0.5, 12_000), GRANTED, "hers, and clearly she"),
        ("4711-a", visit(1, "ada", 0.32, 12_000), THROTTLED, "no clear match"),
        ("4711-a", Observation { frames: 5, ..visit(1, "ada", 0.5, 12_000) }, THROTTLED, "too few frames"),
        ("4712-b", visit(1, "ada", 0.5, 12_000), denied(Reason::SecondFactor), "another's"),
        ("0000-y", visit(1, "ada", 0.5, 12_000), denied(Reason::SecondFactor), "nobody's"),
        ("0000-y", stranger(1, 0, 12_000), denied(Reason::SecondFactor), "a stranger"),
    ];
    for (number, seen, expected, why) in cases {
        let mut site = blocked();
        site.take(read(number, 12_000), moment(12_000)).unwrap();
        assert_eq!(decide(&mut site, &seen), expected, "{why}");
    }
    // A face that waits for its number at a door that is blocked for faces is waited for as long as at any other.
    let mut site = super::blocks::blocked(TWO_FACTOR);
    let standing = |ms: u64| Observation { captured_at: moment(5000 + ms), ended: false, ..visit(1, "ada", 0.5, 5000) };
    assert_eq!(decide(&mut site, &standing(4000)), None);
    site.take(read("4711-a", 9100), moment(9100)).unwrap();
    assert_eq!(decide(&mut site, &standing(4200)), GRANTED);
}

/// How often somebody can try within an hour, every three seconds at the most: when luck alone would open the door. Whoever only waits when
/// it would not has the most tries.
fn tries(decider: &mut Decider, try_it: impl Fn(u64, u64) -> Observation, lucky: impl Fn(Observation) -> Observation) -> usize {
    let moments = (0..HOUR).step_by(3000).zip(1u64..);
    let is_try = |(ms, track): &(u64, u64)| {
        let seen = try_it(*track, *ms);
        let luck = lucky(seen.clone());
        let is_try = matches!(decider.verdict(&sampled(&luck), &front(), luck.captured_at), Verdict::Match { .. });
        if is_try {
            decide(decider, &seen);
        }
        is_try
    };
    moments.filter(is_try).count()
}

#[test]
fn no_face_that_fails_again_and_again_has_more_than_a_few_tries() {
    let alive = |seen| Observation { liveness: PadScore::new(0.9).ok(), ..seen };
    let pictures = tries(&mut site(""), |track, ms| picture(track, "ada", ms), alive);
    assert!((5..=126).contains(&pictures), "{pictures}: one in half a minute, and a few at the beginning");
    let taken_for = |score: f32| {
        move |seen| {
            let profiles = [(PersonId::new("ada").unwrap(), Profile::default())].into();
            Observation { candidates: vec![candidate("ada", score)], profiles, ..seen }
        }
    };
    let near_matches = tries(&mut site(""), |track, ms| stranger(track, 0, ms), taken_for(0.34));
    assert!((1..=13).contains(&near_matches), "{near_matches}: each wait is twice as long");
    // A stranger who is enrolled meanwhile is a clear match, and waits for nothing.
    let enrolled = tries(&mut site(""), |track, ms| stranger(track, 0, ms), taken_for(0.6));
    assert_eq!(enrolled, 1200);
    let never = "throttle = { failures = 0 }";
    assert_eq!(tries(&mut site(never), |track, ms| picture(track, "ada", ms), alive), 1200, "what a door without a throttle takes");
}

#[test]
fn no_face_has_more_than_a_few_numbers_tried_beside_it() {
    let mut site = site(TWO_FACTOR);
    let face = |track, ms: u64| Observation { frames: 20, liveness_frames: 20, ..visit(track, "ada", 0.9, ms) };
    let mut guesses = 0;
    for (ms, track) in (0..HOUR).step_by(3000).zip(1u64..) {
        // What would have come of the right number at this moment?
        let before = site.waiting.clone();
        site.take(read("4711-a", ms), moment(ms)).unwrap();
        let seen = face(track, ms);
        let is_guess = matches!(site.verdict(&sampled(&seen), &front(), seen.captured_at), Verdict::Match { .. });
        site.waiting = before;
        if is_guess {
            guesses += 1;
            let _ = site.take(read("0000-x", ms), moment(ms));
            decide(&mut site, &seen);
        }
    }
    assert!((10..=60).contains(&guesses), "{guesses} guesses in an hour");
    // However fast they are typed: of what comes within seconds, five at most are looked at.
    let mut site = super::blocks::site(TWO_FACTOR);
    for n in 0..11 {
        let _ = site.take(read("0000-x", n), moment(n));
    }
    site.take(read("4711-a", 20), moment(20)).unwrap();
    let seen = face(1, 20);
    assert_eq!(
        site.verdict(&sampled(&seen), &front(), seen.captured_at),
        Verdict::Hidden { reason: Reason::Throttled, weight: 0, awaits: verdict::Awaits::BetterFaces }
    );
}

#[test]
fn whoever_is_let_in_wipes_what_was_tried_as_that_person_and_not_the_doors_slate() {
    let mut site = site("");
    for n in 0..2 {
        assert_eq!(decide(&mut site, &picture(1 + n, "ada", 3000 * n)), denied(Reason::Spoof));
    }
    assert_eq!(decide(&mut site, &visit(10, "ada", 0.8, 5000)), THROTTLED, "she waits two seconds since the last time at 4.2 s");
    assert_eq!(decide(&mut site, &visit(11, "bob", 0.8, 5000)), GRANTED, "and nobody else does");
    assert_eq!(decide(&mut site, &visit(12, "ada", 0.8, 6200)), GRANTED);
    assert_eq!(site.throttle.weighs(&front()), 4);
    assert_eq!(decide(&mut site, &picture(20, "ada", 10_000)), denied(Reason::Spoof));
    assert_eq!(decide(&mut site, &visit(21, "ada", 0.8, 12_300)), GRANTED, "a second, not four");
}

/// What somebody does who wants to keep others out: which, when, with whose face.
#[derive(Debug, Clone)]
enum Mischief {
    Stranger(usize),
    Ambiguous,
    Picture(&'static str),
    Number,
}

fn mischief() -> impl Strategy<Value = Vec<(Mischief, u64)>> {
    let one = prop_oneof![
        (0..6usize).prop_map(Mischief::Stranger),
        Just(Mischief::Ambiguous),
        prop_oneof![Just("bob"), Just("cyd"), Just("nobody"), Just("ada")].prop_map(Mischief::Picture),
        Just(Mischief::Number),
    ];
    prop::collection::vec((one, prop_oneof![100..5000u64, 20_000..60_000u64]), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_of_strangers_and_attacks_keeps_an_enrolled_person_out(mischief in mischief(), card in any::<bool>()) {
        let mut site = site(if card { TWO_FACTOR } else { "" });
        let (mut ms, mut own) = (0, 0);
        for ((what, pause), track) in mischief.into_iter().zip(1..) {
            ms += pause;
            let seen = match what {
                Mischief::Stranger(face) => stranger(track, face, ms),
                // Beside a card nobody is ambiguous: the card says who is meant.
                Mischief::Ambiguous if card => continue,
                Mischief::Ambiguous => Observation {
                    candidates: vec![candidate("ada", 0.8), candidate("bob", 0.8)],
                    probe: probe_of(7),
                    ..visit(track, "x", 0.0, ms)
                },
                Mischief::Picture(who) => {
                    own = if who == "ada" { ms + 1200 } else { own };
                    picture(track, who, ms)
                }
                Mischief::Number => {
                    let _ = site.take(read("0000-x", ms), moment(ms));
                    continue;
                }
            };
            decide(&mut site, &seen);
        }
        // She comes when whoever held up a picture of her has been gone for half a minute, and nobody types at the reader.
        let ms = (ms + 11_000).max(own + 30_001);
        if card {
            site.take(read("4711-a", ms), moment(ms)).unwrap();
        }
        let coming = Observation { probe: probe_of(0), frames: 4, ended: false, ..visit(1000, "ada", 0.5, ms) };
        let first = decide(&mut site, &coming);
        prop_assert!(first.is_none() || first == GRANTED, "{first:?}");
        if first.is_none() {
            let then = Observation { frames: 8, captured_at: moment(ms + 1300), ..coming };
            prop_assert_eq!(decide(&mut site, &then), GRANTED);
        }
    }
}
