//! The policy's rules, each by its history.

mod company;

use super::*;
use crate::access::policy::CredentialNumber;
use crate::types::GroupId;

/// A Wednesday in winter, 09:00 UTC.
const NINE: i64 = 1_795_597_200_000;

fn at(ms: u64) -> Moment {
    Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(NINE + i64::try_from(ms).unwrap()) }
}

fn door(name: &str) -> DoorId {
    DoorId::new(name).unwrap()
}

fn person(name: &str) -> PersonId {
    PersonId::new(name).unwrap()
}

/// Doors `in`, `out` and `front`, each with a camera of its name.
fn site(policy: &str) -> Decider {
    let policy: PolicySettings = toml::from_str(policy).unwrap();
    assert_eq!(policy.findings(), []);
    let doors = ["in", "out", "front"].map(|name| DoorSettings::new(door(name), vec![CameraId::new(name).unwrap()]));
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
    let mut decider = Decider::new(device, Settings::default(), thresholds, &doors, Rules::new(&policy).unwrap(), key);
    decider.take(Input::Clock(Clock::Synchronised), at(0)).unwrap();
    decider
}

/// A visit of `who` at a door's camera, seen well enough and ended, with a track of its own.
fn visit(door: &str, track: u64, who: &str, ms: u64) -> Observation {
    let candidates = vec![candidate(who, 0.8), candidate("somebody-else", 0.1)];
    Observation {
        camera: CameraId::new(door).unwrap(),
        track: TrackId(track),
        captured_at: at(ms),
        first_usable_at: at(ms.saturating_sub(200)),
        ended: true,
        ..observation(candidates, Some(0.9))
    }
}

fn decide(decider: &mut Decider, observation: &Observation) -> (Outcome, Reason) {
    let decisions =
        decider.decide_on_one_face(observation, observation.captured_at.plus(Duration::from_millis(10)), &mut || "id".into());
    assert_eq!(decisions.len(), 1, "{observation:?}");
    assert_eq!(decisions[0].grant.is_some(), decisions[0].outcome == Outcome::Granted);
    (decisions[0].outcome, decisions[0].reason)
}

const GRANTED: (Outcome, Reason) = (Outcome::Granted, Reason::Match);

fn denied(reason: Reason) -> (Outcome, Reason) {
    (Outcome::Denied, reason)
}

#[test]
fn a_rule_names_people_and_groups_of_the_policy_and_of_the_gallery() {
    let mut site = site(
        "groups = [{ id = 'staff', people = ['ada'] }]\n\
         [[doors]]\nid = 'front'\nallow = [{ groups = ['staff'] }, { people = ['bob'] }]",
    );
    assert_eq!(decide(&mut site, &visit("front", 1, "eve", 0)), denied(Reason::NotPermitted));
    assert_eq!(decide(&mut site, &visit("front", 2, "ada", 0)), GRANTED);
    assert_eq!(decide(&mut site, &visit("front", 3, "bob", 0)), GRANTED);
    let mut by_gallery = visit("front", 4, "eve", 0);
    by_gallery.profiles.values_mut().for_each(|profile| profile.groups = vec![GroupId::new("staff").unwrap()]);
    assert_eq!(decide(&mut site, &by_gallery), GRANTED);
    assert_eq!(decide(&mut site, &visit("in", 5, "ada", 0)), denied(Reason::NotPermitted), "a door that the policy forgot");
}

#[test]
fn a_schedule_holds_by_the_sites_clock_and_fails_shut_without_one() {
    let rule = |unsure: &str| {
        format!(
            "time-zone = 'Europe/Berlin'\n\
             schedules = [{{ id = 'morning', windows = [{{ days = ['wed'], from = '10:00', to = '10:01' }}] }}]\n\
             people = [{{ id = 'guest', valid-from = '2026-11-25', valid-to = '2026-11-25' }}]\n\
             [[doors]]\nid = 'front'\n{unsure}\nallow = [{{ people = ['ada', 'guest'], schedule = 'morning' }}, {{ people = ['bob', 'guest'] }}]"
        )
    };
    let mut denying = site(&rule(""));
    assert_eq!(decide(&mut denying, &visit("front", 1, "ada", 1000)), GRANTED);
    assert_eq!(decide(&mut denying, &visit("front", 2, "ada", 60_000)), denied(Reason::Schedule));
    denying.take(Input::Clock(Clock::Unsure), at(0)).unwrap();
    assert_eq!(decide(&mut denying, &visit("front", 3, "ada", 5000)), denied(Reason::Clock));
    assert_eq!(decide(&mut denying, &visit("front", 4, "bob", 1000)), GRANTED, "nothing of bob's depends on the time");
    assert_eq!(decide(&mut denying, &visit("front", 5, "guest", 1000)), denied(Reason::Clock), "a guest's days do");
    let mut trusting = site(&rule("unsure-clock = 'trust'"));
    trusting.take(Input::Clock(Clock::Unsure), at(0)).unwrap();
    assert_eq!(decide(&mut trusting, &visit("front", 1, "ada", 1000)), GRANTED);
    assert_eq!(decide(&mut trusting, &visit("front", 2, "ada", 60_000)), denied(Reason::Schedule));
}

#[test]
fn a_wrong_clock_lets_nobody_in_whose_time_has_a_bound_with_and_without_a_policy() {
    let bound = Profile { expires_at: Some(Wall(at(60_000).wall.0)), ..Profile::default() };
    let (clocks, now) = ([Clock::Synchronised, Clock::Unsure, Clock::SetBack], at(1000).wall);
    let trusting = "[[doors]]\nid = 'front'\nunsure-clock = 'trust'\nallow = [{ everyone = true }]";
    let free = "[[doors]]\nid = 'front'\nmode = 'free'";
    let from = "people = [{ id = 'ada', valid-from = '2000-01-01' }]";
    let to = "people = [{ id = 'ada', valid-to = '2100-01-01' }]";
    let refused = [Ok(()), Err(Reason::Clock), Err(Reason::Clock)];
    for (policy, profile, expected) in [
        ("", &bound, refused),
        (free, &bound, refused),
        (from, &Profile::default(), refused),
        (to, &Profile::default(), refused),
        ("", &Profile::default(), [Ok(()); 3]),
        // Where a site says that it believes its clock, it does so until the clock is seen to be wrong.
        (trusting, &bound, [Ok(()), Ok(()), Err(Reason::Clock)]),
    ] {
        let policy: PolicySettings = toml::from_str(policy).unwrap();
        let rules = Rules::new(&policy).unwrap();
        assert_eq!(clocks.map(|clock| rules.permit(&door("front"), &person("ada"), profile, now, clock)), expected, "{policy:?}");
        let people = [(person("ada"), profile.clone())];
        let explained =
            clocks.map(|clock| rules.explain(&door("front"), &people, now, clock).answers[0].refusal.map_or(Ok(()), Err));
        assert_eq!(explained, expected, "what is explained is what is decided");
    }
    let depends = |policy: &str| Rules::new(&toml::from_str(policy).unwrap()).unwrap().depends_on_time();
    assert!(depends(from) && depends(to) && !depends(trusting) && !depends(""));
}

#[test]
fn a_persons_time_begins_and_ends() {
    let mut site = site(
        "people = [{ id = 'early', valid-from = '2026-11-25T09:00:10' }, { id = 'late', valid-to = '2026-11-25T09:00:10' },\n\
                   { id = 'later', valid-to = '2026-11-25T09:00:10' }]\n\
         [[doors]]\nid = 'front'\nmode = 'free'",
    );
    assert_eq!(decide(&mut site, &visit("front", 1, "early", 9000)), denied(Reason::NotYetValid));
    assert_eq!(decide(&mut site, &visit("front", 2, "early", 10_000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("front", 3, "late", 9000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("front", 4, "later", 10_000)), denied(Reason::ExpiredPerson));
    assert_eq!(decide(&mut site, &visit("front", 5, "late", 12_000)), denied(Reason::ExpiredPerson), "another approach");
}

#[test]
fn a_door_has_thresholds_of_its_own() {
    let mut site = site(
        "[[doors]]\nid = 'front'\nmatch-threshold = 0.85\nallow = [{ everyone = true }]\n\
         [[doors]]\nid = 'in'\nliveness-threshold = 0.95\nallow = [{ everyone = true }]\n\
         [[doors]]\nid = 'out'\nmargin = 0.75\nmin-frames = 9\nallow = [{ everyone = true }]",
    );
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::Unknown));
    assert_eq!(decide(&mut site, &visit("in", 2, "ada", 0)), denied(Reason::Spoof));
    assert_eq!(decide(&mut site, &visit("out", 3, "ada", 0)), denied(Reason::Ambiguous));
    let alone = Observation { candidates: vec![candidate("ada", 0.9)], ..visit("out", 4, "ada", 0) };
    assert_eq!(decide(&mut site, &alone), denied(Reason::LivenessUncertain), "ended after 5 frames of 9");
}

#[test]
fn lock_down_shuts_one_door_or_all_and_only_a_release_lifts_it() {
    let mut site = site("");
    let lock = |door| Input::Command(Command::Lockdown { door });
    let release = |door| Input::Command(Command::Release { door });
    assert_eq!(site.take(lock(Some(door("nowhere"))), at(0)), Err(InputError::UnknownDoor(door("nowhere"))));
    site.take(lock(Some(door("front"))), at(0)).unwrap();
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::Lockdown));
    assert_eq!(decide(&mut site, &visit("in", 2, "ada", 0)), GRANTED);
    site.take(lock(None), at(0)).unwrap();
    site.take(release(Some(door("in"))), at(0)).unwrap();
    assert_eq!(decide(&mut site, &visit("in", 3, "bob", 0)), GRANTED);
    assert_eq!(decide(&mut site, &visit("out", 4, "ada", 0)), denied(Reason::Lockdown));
    let kept = site.state(at(0));
    site.take(release(None), at(0)).unwrap();
    assert_eq!(decide(&mut site, &visit("front", 5, "ada", 0)), GRANTED);
    let mut again = super::policy::site("");
    again.restore(kept, at(5));
    assert_eq!(decide(&mut again, &visit("front", 1, "ada", 0)), denied(Reason::Lockdown), "a restart is no release");
}

#[test]
fn two_factors_are_the_card_and_the_face_of_one_person_within_a_window() {
    let policy = "people = [{ id = 'ada', credentials = ['4711-a'], duress-credentials = ['9999-a'] }]\n\
                  [[doors]]\nid = 'front'\nmode = 'two-factor'\nsecond-factor-window-s = 5\nallow = [{ everyone = true }]";
    let read = |number: &str, ms| {
        let credential = Credential::Number(CredentialNumber::new(number));
        Input::Credential(CredentialRead { door: door("front"), kind: Factor::Card, credential, at: at(ms) })
    };
    let mut site = site(policy);
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::SecondFactor), "the face alone");
    assert_eq!(site.take(read("0000-x", 0), at(0)), Err(InputError::UnknownCredential(door("front"))));
    site.take(read("4711-a", 1000), at(1000)).unwrap();
    assert_eq!(decide(&mut site, &visit("front", 2, "bob", 2000)), denied(Reason::SecondFactor), "another's card");
    let decisions = site.decide_on_one_face(&visit("front", 3, "ada", 3000), at(3010), &mut || "id".into());
    assert_eq!(decisions[0].factors, [Factor::Face, Factor::Card]);
    assert_eq!((decisions[0].outcome, decisions[0].marks.as_slice()), (Outcome::Granted, [].as_slice()));
    assert_eq!(decide(&mut site, &visit("front", 4, "ada", 6500)), denied(Reason::SecondFactor), "the card was used up");
    site.take(read("9999-a", 7000), at(7000)).unwrap();
    assert_eq!(decide(&mut site, &visit("front", 5, "ada", 12_500)), denied(Reason::SecondFactor), "too late");
    site.take(read("9999-a", 13_000), at(13_000)).unwrap();
    let decisions = site.decide_on_one_face(&visit("front", 6, "ada", 14_000), at(14_010), &mut || "id".into());
    assert_eq!((decisions[0].outcome, decisions[0].marks.as_slice()), (Outcome::Granted, [Mark::Duress].as_slice()));
}

#[test]
fn no_card_that_is_read_after_a_duress_number_takes_the_silent_alarm_back() {
    let policy = "people = [{ id = 'ada', credentials = ['4711-a'], duress-credentials = ['9999-a'] }, { id = 'bob', credentials = ['4712-b'] }]\n\
                  [[doors]]\nid = 'front'\nmode = 'two-factor'\nsecond-factor-window-s = 5\nallow = [{ everyone = true }]";
    let read = |number: &str, ms| {
        let credential = Credential::Number(CredentialNumber::new(number));
        Input::Credential(CredentialRead { door: door("front"), kind: Factor::Card, credential, at: at(ms) })
    };
    let marks = |after: &[&str], visits: &[(&str, u64)]| {
        let mut site = site(policy);
        for (number, ms) in after.iter().zip(1000..) {
            let _ = site.take(read(number, ms), at(ms));
        }
        let seen = visits.iter().zip(1..).map(|((who, ms), track)| {
            let decisions = site.decide_on_one_face(&visit("front", track, who, *ms), at(ms + 10), &mut || "id".into());
            (decisions[0].outcome, decisions[0].marks.clone())
        });
        seen.collect::<Vec<_>>()
    };
    let (forced, plain) = ((Outcome::Granted, vec![Mark::Duress]), (Outcome::Granted, vec![]));
    // Whoever forces her knows of such numbers, and has her card.
    assert_eq!(marks(&["9999-a", "4711-a"], &[("ada", 2000)]), vec![forced.clone()]);
    assert_eq!(marks(&["9999-a", "4712-b", "0000-x", "4711-a"], &[("ada", 2000)]), [forced]);
    assert_eq!(marks(&["9999-a", "4712-b"], &[("bob", 2000)]), vec![plain.clone()], "another person's visit");
    assert_eq!(marks(&["4711-a"], &[("ada", 2000)]), [plain]);
    // Nobody is let in: a stranger, or a face that is not seen well enough.
    let refused = |marks| (Outcome::Denied, marks);
    assert_eq!(marks(&["9999-a"], &[("bob", 2000), ("bob", 9000)]), [refused(vec![Mark::Duress]), refused(vec![])]);
}

#[test]
fn an_order_that_names_an_unknown_door_locks_the_others_down_and_releases_none() {
    let mut site = site("");
    let named = |names: [&str; 2], order: fn(Option<DoorId>) -> Command| names.map(|name| order(Some(door(name)))).to_vec();
    let lock = |door| Command::Lockdown { door };
    let release = |door| Command::Release { door };
    let unknown = Err(InputError::UnknownDoor(door("frnt")));
    assert_eq!(site.obey_all(named(["frnt", "in"], lock), at(0)), unknown);
    assert_eq!((site.is_locked_down(&door("in")), site.take_changed()), (true, true));
    assert_eq!(site.obey_all(named(["in", "frnt"], release), at(0)), unknown);
    assert!(site.is_locked_down(&door("in")), "a typing error releases nothing");
    assert_eq!(site.obey_all(named(["in", "front"], release), at(0)), Ok(()));
    assert!(!site.is_locked_down(&door("in")));
}

#[test]
fn a_face_waits_for_its_card_longer_than_for_better_evidence() {
    let mut site = site(
        "people = [{ id = 'ada', credentials = ['4711-a'] }]\n[[doors]]\nid = 'front'\nmode = 'two-factor'\nallow = [{ everyone = true }]",
    );
    let standing = |ms| Observation { first_usable_at: at(0), ended: false, ..visit("front", 1, "ada", ms) };
    for ms in [500, 2000, 9000] {
        assert!(site.decide_on_one_face(&standing(ms), at(ms), &mut || "id".into()).is_empty());
    }
    let credential = Credential::Person(person("ada"));
    let read = CredentialRead { door: door("front"), kind: Factor::Pin, credential, at: at(9100) };
    site.take(Input::Credential(read), at(9100)).unwrap();
    assert_eq!(decide(&mut site, &standing(9200)), GRANTED);
    let mut nobody = super::policy::site("[[doors]]\nid = 'front'\nmode = 'two-factor'\nallow = [{ everyone = true }]");
    assert!(nobody.decide_on_one_face(&standing(9999), at(9999), &mut || "id".into()).is_empty());
    assert_eq!(decide(&mut nobody, &standing(10_000)), denied(Reason::SecondFactor));
}

#[test]
fn passback_is_by_area_and_a_command_forgives_it() {
    let mut site = site(
        "areas = [{ id = 'lab', entries = ['in'], exits = ['out'], kind = 'hard' }]\n\
         people = [{ id = 'forced', duress = true }]",
    );
    assert_eq!(decide(&mut site, &visit("in", 1, "ada", 0)), GRANTED);
    assert_eq!(decide(&mut site, &visit("in", 2, "ada", 10_000)), denied(Reason::Passback));
    assert_eq!(decide(&mut site, &visit("in", 3, "bob", 10_000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("out", 4, "ada", 20_000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("out", 5, "ada", 30_000)), denied(Reason::Passback));
    assert_eq!(decide(&mut site, &visit("in", 6, "ada", 40_000)), GRANTED);
    site.take(Input::Command(Command::Forgive { person: Some(person("ada")) }), at(0)).unwrap();
    assert_eq!(decide(&mut site, &visit("in", 7, "ada", 50_000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("in", 8, "bob", 50_000)), denied(Reason::Passback), "not bob");
    let decisions = site.decide_on_one_face(&visit("in", 9, "forced", 60_000), at(60_010), &mut || "id".into());
    assert_eq!(decisions[0].marks, [Mark::Duress]);
}

#[test]
fn a_grant_that_nobody_used_is_no_passage_where_passages_count_and_any_other_word_changes_nothing() {
    for (counts, again) in [("grants", denied(Reason::Passback)), ("passages", GRANTED)] {
        let mut site =
            site(&format!("areas = [{{ id = 'lab', entries = ['in'], exits = ['out'], kind = 'hard', counts = '{counts}' }}]"));
        let told = |name: &str, jti: &str, passed| Input::Passage(Passage { door: door(name), jti: jti.into(), passed });
        assert_eq!(decide(&mut site, &visit("in", 1, "ada", 0)), GRANTED);
        for word in [told("in", "other", false), told("out", "id", false), told("nowhere", "id", false)] {
            site.take(word, at(5000)).unwrap();
        }
        assert_eq!(decide(&mut site, &visit("in", 2, "ada", 10_000)), denied(Reason::Passback));
        site.take(told("in", "id", false), at(11_000)).unwrap();
        assert_eq!(decide(&mut site, &visit("in", 3, "ada", 20_000)), again, "{counts}");
        site.take(told("in", "id", true), at(21_000)).unwrap();
        assert_eq!(decide(&mut site, &visit("in", 4, "ada", 30_000)), denied(Reason::Passback), "{counts}");
    }
}

#[test]
fn a_door_for_two_opens_for_the_second_of_two_different_people_within_the_window() {
    let mut site =
        site("[[doors]]\nid = 'front'\npeople-needed = 2\npeople-window-s = 10\nallow = [{ people = ['ada', 'bob', 'cyd'] }]");
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::TooFewPeople));
    assert_eq!(decide(&mut site, &visit("front", 2, "ada", 5000)), denied(Reason::TooFewPeople), "the same person again");
    assert_eq!(decide(&mut site, &visit("front", 3, "eve", 6000)), denied(Reason::NotPermitted));
    assert_eq!(decide(&mut site, &visit("front", 4, "bob", 14_000)), GRANTED);
    assert_eq!(decide(&mut site, &visit("front", 5, "cyd", 18_000)), denied(Reason::TooFewPeople), "the first two are through");
    assert_eq!(decide(&mut site, &visit("front", 6, "ada", 29_000)), denied(Reason::TooFewPeople), "too late");
}

#[test]
fn a_failure_is_written_down_soon_a_block_at_once_and_what_changes_nothing_not_at_all() {
    let urgency = |site: &mut Decider| {
        let urgent = (site.take_changed(), site.has_charged());
        site.forget_charged();
        urgent
    };
    let expected = [[(false, true); 4].as_slice(), &[(true, true)]].concat();
    let mut site = site("");
    let mut fail = |ms| {
        let credential = Credential::Number(CredentialNumber::new("0000-x"));
        let read = CredentialRead { door: door("front"), kind: Factor::Card, credential, at: at(ms) };
        assert_eq!(site.take(Input::Credential(read), at(ms)).is_err(), ms <= 4000, "a reader that is blocked is told nothing");
        urgency(&mut site)
    };
    let told: Vec<_> = (0..5).map(|n| fail(n * 1000)).collect();
    assert_eq!(told, expected, "the fifth blocks the reader");
    assert!((1..1000).all(|n| fail(4000 + n) == (false, false)), "a reader that is blocked is not blocked more");
    // The door's own block is another one.
    let mut fail = |track, ms| {
        decide(&mut site, &refused(Reason::Spoof, visit("front", track, "ada", ms)));
        urgency(&mut site)
    };
    let told: Vec<_> = (0..3).map(|n| fail(n, 4000 + n * 1000)).collect();
    assert_eq!(told, [(false, true), (false, true), (true, true)], "the third attack blocks the door");
    assert!((1..100).all(|n| fail(4 + n, 8000 + n) == (false, false)), "a door that is blocked is not blocked more");
}

/// A probe of face `who`, or of nobody else's.
fn probe_of(who: usize) -> Option<Probe> {
    let values = (0..8).map(|n| if n == who { 1.0 } else { 0.0 }).collect();
    Embedding::normalised(ModelId::new("m").unwrap(), values).map(Probe::from)
}

#[test]
fn one_nameless_face_that_two_cameras_of_a_door_see_is_told_and_charged_once_and_hides_no_other() {
    use Reason::{Ambiguous, GalleryUnavailable, LivenessUncertain, Spoof, Unknown};
    // Three cameras look at one door: each case is what they saw, which of it is told, and what it weighs.
    let cases = [
        (vec![("a", Some(0), Unknown, 0), ("b", Some(0), Unknown, 900)], "t-", 1, "one stranger, two cameras"),
        (vec![("a", Some(0), Spoof, 0), ("b", Some(0), Spoof, 2900)], "t-", 2, "one picture, two cameras"),
        (
            vec![("a", Some(0), Unknown, 0), ("b", Some(0), Spoof, 900)],
            "tt",
            2,
            "an attack is told, and charged as far as it is worse",
        ),
        (vec![("a", Some(0), Spoof, 0), ("b", Some(0), Unknown, 900)], "t-", 2, "the lighter one after the worse one"),
        (vec![("a", Some(0), Unknown, 0), ("b", Some(0), Ambiguous, 900)], "tt", 1, "another reason that weighs as much"),
        (vec![("a", Some(0), Unknown, 0), ("b", Some(1), Unknown, 900)], "tt", 2, "another face, at the same time"),
        (vec![("a", Some(0), Unknown, 0), ("b", Some(1), Spoof, 900)], "tt", 3, "a picture in the hand"),
        (vec![("a", Some(0), Spoof, 0), ("b", Some(1), Unknown, 900)], "tt", 3, "who holds it"),
        (vec![("a", Some(0), Unknown, 0), ("a", Some(0), Unknown, 900)], "tt", 2, "one camera, a second try"),
        (vec![("a", Some(0), Unknown, 0), ("b", Some(0), Unknown, 3000)], "tt", 2, "another approach"),
        (vec![("a", None, Unknown, 0), ("b", None, Unknown, 900)], "tt", 2, "nothing to compare"),
        (vec![("a", Some(0), LivenessUncertain, 0), ("b", Some(0), LivenessUncertain, 900)], "t-", 0, "no failure"),
        (vec![("a", Some(0), LivenessUncertain, 0), ("b", Some(0), GalleryUnavailable, 900)], "tt", 0, "two of them"),
        (vec![("a", Some(0), LivenessUncertain, 0), ("b", Some(0), Unknown, 900)], "tt", 1, "a failure after none"),
        (vec![("a", Some(0), Unknown, 0), ("b", Some(0), LivenessUncertain, 900)], "tt", 1, "none after a failure"),
        (
            vec![("a", Some(0), Unknown, 0), ("b", Some(0), Ambiguous, 300), ("c", Some(0), Ambiguous, 600)],
            "tt-",
            1,
            "a third camera repeats the second's reason",
        ),
        (
            vec![("a", Some(0), Unknown, 0), ("b", Some(0), Spoof, 300), ("c", Some(0), Spoof, 600)],
            "tt-",
            2,
            "a third camera repeats what the second found worse",
        ),
        (
            vec![("a", Some(0), Unknown, 0), ("b", Some(0), Spoof, 300), ("c", Some(0), Unknown, 600)],
            "tt-",
            2,
            "and the lighter one after it",
        ),
        (
            vec![
                ("a", Some(0), Unknown, 0),
                ("b", Some(0), Unknown, 300),
                ("b", Some(0), Unknown, 600),
                ("a", Some(0), Unknown, 900),
                ("a", Some(0), Unknown, 1200),
            ],
            "t-t-t",
            3,
            "tries at both cameras: each camera repeats each refusal once",
        ),
    ];
    for (seen, told, expected, why) in cases {
        let mut decider = three_cameras();
        for ((track, (camera, face, reason, ms)), told) in (1..).zip(seen).zip(told.chars()) {
            let seen = refused(reason, Observation { probe: face.and_then(probe_of), ..visit(camera, track, "ada", ms) });
            let decisions =
                decider.decide_on_one_face(&seen, seen.captured_at.plus(Duration::from_millis(10)), &mut || "id".into());
            let reasons: Vec<_> = decisions.iter().map(|decision| decision.reason).collect();
            assert_eq!(reasons, if told == 't' { vec![reason] } else { vec![] }, "{why}");
            assert!(decider.is_decided(&seen.camera, seen.track), "{why}");
        }
        assert_eq!(decider.throttle.weighs(&door("front")), expected, "{why}");
    }
}

#[test]
fn a_face_that_one_camera_did_not_know_is_let_in_before_the_other_and_is_hot_where_it_was_an_attack() {
    let mut decider = three_cameras();
    let at_both = |camera: &str, track, ms| Observation { probe: probe_of(0), ..visit(camera, track, "ada", ms) };
    assert_eq!(decide(&mut decider, &refused(Reason::Unknown, at_both("a", 1, 0))), denied(Reason::Unknown));
    assert_eq!(decide(&mut decider, &at_both("b", 2, 500)), GRANTED, "a refusal hides no grant");
    let mut decider = three_cameras();
    assert_eq!(decide(&mut decider, &refused(Reason::Spoof, at_both("a", 1, 0))), denied(Reason::Spoof));
    let repeated = refused(Reason::Spoof, at_both("b", 2, 500));
    assert!(decider.decide_on_one_face(&repeated, at(510), &mut || "id".into()).is_empty());
    let after = Observation { bounding_box: repeated.bounding_box, ..at_both("b", 3, 900) };
    assert_eq!(decide(&mut decider, &after), denied(Reason::Throttled), "an attack that was not told again heats its place");
}

#[test]
fn two_people_whose_faces_are_alike_are_each_told_of_when_a_rule_refuses_them() {
    let mut decider = three_cameras();
    let gone = |camera: &str, track, who: &str| expired(Observation { probe: probe_of(0), ..visit(camera, track, who, 500) });
    assert_eq!(decide(&mut decider, &gone("a", 1, "ada")), denied(Reason::ExpiredPerson));
    assert_eq!(decide(&mut decider, &gone("b", 2, "bob")), denied(Reason::ExpiredPerson));
    assert!(decider.decide_on_one_face(&gone("c", 3, "bob"), at(510), &mut || "id".into()).is_empty());
}

/// A door that three cameras see.
fn three_cameras() -> Decider {
    let policy: PolicySettings = toml::from_str("throttle = { failures = 100, attempt-ms = 0 }").unwrap();
    let doors = [DoorSettings::new(door("front"), ["a", "b", "c"].map(|name| CameraId::new(name).unwrap()).to_vec())];
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
    Decider::new(device, Settings::default(), thresholds, &doors, Rules::new(&policy).unwrap(), key)
}

/// The same face, refused for a reason, at a place of its track's own.
fn refused(reason: Reason, seen: Observation) -> Observation {
    let seen = Observation { bounding_box: beside(seen.track.0), ..seen };
    match reason {
        Reason::Unknown => Observation { candidates: vec![candidate("ada", 0.1)], ..seen },
        Reason::Ambiguous => Observation { candidates: vec![candidate("ada", 0.8), candidate("bob", 0.8)], ..seen },
        Reason::Spoof => Observation { liveness: PadScore::new(0.1).ok(), ..seen },
        Reason::LivenessUncertain => Observation { liveness: None, ..seen },
        _ => Observation { gallery: false, ..seen },
    }
}

/// A place of its own for each track, so that no attack heats another's.
#[expect(clippy::cast_precision_loss, reason = "track numbers are small")]
fn beside(track: u64) -> BoundingBox {
    BoundingBox { x: 500.0 * track as f32, y: 0.0, width: 80.0, height: 80.0 }
}

#[test]
fn an_attack_is_not_retried_into_a_pass_by_waiting_or_by_a_new_track_at_its_place() {
    let mut site = site("[throttle]\nfailures = 0");
    let camera = CameraId::new("front").unwrap();
    let spoof = Observation { liveness: Some(PadScore::new(0.1).unwrap()), ..visit("front", 1, "ada", 2000) };
    assert_eq!(decide(&mut site, &spoof), denied(Reason::Spoof));
    let waited = Observation { ended: false, ..visit("front", 1, "ada", 9000) };
    assert!(site.decide_on_one_face(&waited, at(9010), &mut || "id".into()).is_empty(), "the same track");
    site.take(Input::TrackEnded(camera, TrackId(1), spoof.bounding_box), at(10_000)).unwrap();
    assert_eq!(decide(&mut site, &visit("front", 2, "ada", 10_500)), denied(Reason::Throttled));
    let elsewhere = BoundingBox { x: 500.0, y: 0.0, width: 80.0, height: 80.0 };
    let beside = Observation { bounding_box: elsewhere, ..visit("front", 3, "bob", 10_500) };
    assert_eq!(decide(&mut site, &beside), GRANTED, "another place");
    assert_eq!(decide(&mut site, &visit("front", 4, "ada", 11_300)), GRANTED, "the place has cooled");
}

#[test]
fn one_approach_is_one_grant_whatever_track_or_camera_saw_it() {
    let mut site = site("");
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), GRANTED);
    assert!(site.decide_on_one_face(&visit("front", 2, "ada", 2000), at(2010), &mut || "id".into()).is_empty());
    assert!(site.is_decided(&CameraId::new("front").unwrap(), TrackId(2)));
    assert_eq!(decide(&mut site, &visit("in", 3, "ada", 2000)), GRANTED, "another door is another approach");
    assert_eq!(decide(&mut site, &visit("front", 4, "ada", 4000)), GRANTED);
}

#[test]
fn whoever_was_let_through_is_recognised_on_another_track_and_nobody_else_is() {
    let mut site =
        site("areas = [{ id = 'lab', entries = ['in'], exits = ['out'], kind = 'hard' }]\nthrottle = { cool-down-ms = 0 }");
    let mut recognised = |observation: &Observation, after_ms| {
        let now = observation.captured_at.plus(Duration::from_millis(after_ms));
        drop(site.decide_on_one_face(observation, now, &mut || "id".into()));
        site.take_recognised()
    };
    let (ada, nobody) = (vec![person("ada")], Vec::new());
    assert_eq!(recognised(&visit("front", 1, "ada", 0), 10), nobody, "the decision names her");
    assert_eq!(recognised(&visit("front", 2, "ada", 500), 10), ada);
    assert_eq!(recognised(&visit("front", 2, "ada", 600), 10), nobody, "told once");
    assert_eq!(recognised(&visit("in", 3, "ada", 500), 10), nobody);
    assert_eq!(recognised(&visit("in", 4, "ada", 1000), 10), ada, "anti-passback would refuse her, but for the approach");
    assert_eq!(recognised(&visit("front", 5, "ada", 1000), 1100), nobody, "old evidence");
    let unlike = Observation { candidates: vec![candidate("ada", 0.2)], ..visit("front", 6, "ada", 1000) };
    assert_eq!(recognised(&unlike, 10), nobody);
    let picture = Observation { liveness: PadScore::new(0.1).ok(), ..visit("front", 7, "ada", 1000) };
    assert_eq!(recognised(&picture, 10), nobody);
    assert_eq!(recognised(&visit("front", 8, "bob", 1000), 10), nobody, "a decision of his own");
}

#[test]
fn one_approach_is_one_refusal_too_and_no_second_camera_breaks_passback() {
    let mut site = site("areas = [{ id = 'lab', entries = ['in', 'front'], exits = ['out'], kind = 'hard' }]");
    let mut silent = |observation: &Observation| {
        let now = observation.captured_at.plus(Duration::from_millis(10));
        let decisions = site.decide_on_one_face(observation, now, &mut || "id".into());
        assert!(site.is_decided(&observation.camera, observation.track) || !decisions.is_empty());
        decisions.first().map(|d| (d.outcome, d.reason))
    };
    assert_eq!(silent(&visit("in", 1, "ada", 0)), Some(GRANTED));
    assert_eq!(silent(&visit("in", 2, "ada", 1000)), None, "a second camera sees her go in");
    assert_eq!(silent(&visit("in", 3, "ada", 3500)), Some(denied(Reason::Passback)));
    assert_eq!(silent(&visit("in", 4, "ada", 4500)), None, "told already");
    assert_eq!(silent(&visit("front", 5, "ada", 4600)), Some(denied(Reason::Passback)), "another door");
    assert_eq!(silent(&visit("in", 6, "bob", 4600)), Some(GRANTED), "another person");
    assert_eq!(silent(&expired(visit("in", 7, "ada", 5000))), Some(denied(Reason::ExpiredPerson)), "another reason");
    assert_eq!(silent(&visit("in", 20, "ada", 5050)), None, "told already, whatever was told between");
    assert_eq!(silent(&visit("out", 8, "ada", 5100)), Some(GRANTED));
    assert_eq!(silent(&visit("in", 9, "ada", 5200)), Some(GRANTED), "a refusal is no reason to refuse");
}

#[test]
fn what_is_explained_is_what_is_decided() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/config/policy/office.toml")).unwrap();
    let whole: toml::Table = toml::from_str(&text).unwrap();
    let policy: PolicySettings = whole["policy"].clone().try_into().unwrap();
    let rules = Rules::new(&policy).unwrap();
    let cleaner = Profile { groups: vec![GroupId::new("cleaners").unwrap()], expires_at: None };
    let people = [
        (person("ada"), Profile::default()),
        (person("cleo"), cleaner),
        (person("grace"), Profile::default()),
        (person("porter"), Profile::default()),
        (person("eve"), Profile::default()),
    ];
    let told = |at: &str, clock| {
        let explanation = rules.explain(&door("front"), &people, rules.at(at).unwrap(), clock);
        explanation.answers.into_iter().map(|answer| answer.refusal.map_or("-", Reason::as_str)).collect::<Vec<_>>()
    };
    let sure = Clock::Synchronised;
    assert_eq!(told("2026-12-24T08:00", sure), ["-", "schedule", "-", "-", "not-permitted"]);
    assert_eq!(told("2026-12-25T08:00", sure), ["schedule", "schedule", "schedule", "-", "not-permitted"]);
    assert_eq!(told("2026-12-25T10:00", sure), ["schedule", "-", "schedule", "-", "not-permitted"]);
    assert_eq!(told("2027-03-01T10:00", sure), ["-", "schedule", "expired-person", "-", "not-permitted"]);
    assert_eq!(
        told("2026-08-31T22:30:00Z", sure),
        ["schedule", "-", "schedule", "-", "not-permitted"],
        "it is September in Berlin"
    );
    assert_eq!(told("2026-12-24T08:00", Clock::Unsure), ["clock", "clock", "clock", "-", "not-permitted"]);
    let lines = rules.explain(&door("front"), &[], rules.at("2026-12-25T08:00").unwrap(), sure).lines.join("\n");
    for part in
        ["policy `office` version 1", "+01:00 (Europe/Berlin), a holiday: Christmas", "does not hold until 2027-01-04 Mon 07:00"]
    {
        assert!(lines.contains(part), "{lines}");
    }
    assert!(rules.at("yesterday").is_none());
}
