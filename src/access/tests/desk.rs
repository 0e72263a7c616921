//! Doors that operators open from a desk.

use super::*;
use crate::access::grant::{KeySet, verify};

const KEY: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
const OTHER: &str = "LzlFKyoTVWhPyVd0mhrD8fjBZZIb0PjBVgbyGbK4Nac";

fn desk(policy: &str) -> Decider {
    let policy: PolicySettings = toml::from_str(policy).unwrap();
    let doors = ["front", "back"].map(|door| DoorSettings::new(DoorId::new(door).unwrap(), vec![CameraId::new("cam").unwrap()]));
    let thresholds = Thresholds { matching: Score::new(0.3).unwrap(), margin: 0.05, liveness: PadScore::new(0.5).unwrap() };
    let (device, key) = (DeviceId::new("unit").unwrap(), GrantKey::from_seed(&[7; 32]).unwrap());
    Decider::new(device, Settings::default(), thresholds, &doors, Rules::new(&policy).unwrap(), key)
}

fn trusted() -> Decider {
    desk(&format!("[[operators]]\nkey = \"{KEY}\"\nmay = [\"open\", \"hold-open\"]\ndoors = [\"front\"]"))
}

fn door(id: &str) -> DoorId {
    DoorId::new(id).unwrap()
}

fn claims(token: &str, of: &str, now: Moment) -> Claims {
    let keys = KeySet::new([GrantKey::from_seed(&[7; 32]).unwrap().public()]);
    verify(token, &keys, &door(of), now.wall, Duration::ZERO).unwrap()
}

/// Ids, each once.
fn ids() -> impl FnMut() -> String {
    let mut n = 0;
    move || {
        n += 1;
        format!("id-{n}")
    }
}

#[test]
fn an_operator_opens_a_door_once_where_the_policy_says_so_and_nowhere_else() {
    let mut decider = trusted();
    let now = moment(1_000);
    let opened = decider.open_once(&door("front"), KEY, now, &mut ids()).unwrap();
    assert_eq!((opened.outcome, opened.reason), (Outcome::Granted, Reason::Operator));
    assert!(opened.person.is_none() && opened.camera.is_none() && opened.operator.as_deref() == Some(KEY));
    let claims = claims(opened.grant.as_deref().unwrap(), "front", now);
    assert_eq!((claims.sub.as_str(), claims.hold_s), (format!("operator.{KEY}").as_str(), None));
    let open = |of: &str, key: &str| decider.open_once(&door(of), key, now, &mut ids()).map(|_| ());
    assert!(matches!(open("back", KEY), Err(DeskError::NoRight { .. })));
    assert!(matches!(open("front", OTHER), Err(DeskError::NoRight { .. })));
    assert!(matches!(open("front", ""), Err(DeskError::NoRight { .. })));
    assert_eq!(open("cellar", KEY), Err(DeskError::UnknownDoor(door("cellar"))));
    // Without a word of the policy nobody may, and each right is for itself.
    assert!(matches!(desk("").open_once(&door("front"), KEY, now, &mut ids()), Err(DeskError::NoRight { right: "open", .. })));
    let mut holder = desk(&format!("[[operators]]\nkey = \"{KEY}\"\nmay = [\"hold-open\"]"));
    assert!(holder.open_once(&door("front"), KEY, now, &mut ids()).is_err());
    assert!(holder.hold_open(&door("back"), KEY, Duration::from_secs(60), now).is_ok());
    decider.take(Input::Command(Command::Lockdown { door: Some(door("front")) }), now).unwrap();
    assert_eq!(decider.open_once(&door("front"), KEY, now, &mut ids()).unwrap_err(), DeskError::LockedDown(door("front")));
    let mut silent = trusted().with_vouching(Duration::from_secs(60), moment(0));
    assert!(silent.open_once(&door("front"), KEY, moment(59_999), &mut ids()).is_ok());
    assert_eq!(silent.open_once(&door("front"), KEY, moment(60_000), &mut ids()).unwrap_err(), DeskError::BrokerSilent);
    silent.take(Input::Vouched, moment(61_000)).unwrap();
    assert!(silent.open_once(&door("front"), KEY, moment(61_000), &mut ids()).is_ok());
}

#[test]
fn a_hold_is_told_again_and_again_for_seconds_and_ends_by_time_word_lock_down_and_lost_right() {
    type End = fn(&mut Decider);
    let ends: [(&str, End); 4] = [
        ("its time", |_| {}),
        ("a word", |decider| drop(decider.hold_open(&door("front"), KEY, Duration::ZERO, moment(50_000)))),
        ("a lock-down", |decider| decider.take(Input::Command(Command::Lockdown { door: None }), moment(50_000)).unwrap()),
        ("rules without it", |decider| decider.set_rules(Rules::new(&PolicySettings::default()).unwrap())),
    ];
    for (why, end) in ends {
        let (mut decider, mut ids) = (trusted(), ids());
        let until = decider.hold_open(&door("front"), KEY, Duration::from_secs(65), moment(0)).unwrap();
        assert_eq!((until, decider.held_until(&door("front"))), (Some(moment(65_000).wall), until));
        let mut told = Vec::new();
        for s in 0..80 {
            if s == 50 {
                end(&mut decider);
            }
            for order in decider.hold_orders(moment(s * 1_000), &mut ids) {
                let claims = claims(&order.token, "front", moment(s * 1_000));
                told.push((s, claims.hold_s.unwrap()));
                assert_eq!(order.until, (claims.hold_s != Some(0)).then_some(moment(65_000).wall));
            }
        }
        let renewed = [(0, 30), (10, 30), (20, 30), (30, 30), (40, 25)];
        let last: &[(u64, u32)] = if why == "its time" { &[(50, 15), (60, 5), (65, 0)] } else { &[(50, 0)] };
        assert_eq!(told, [&renewed, last].concat(), "{why}");
        assert_eq!(decider.held_until(&door("front")), None, "{why}");
    }
    let mut decider = trusted();
    let too_long = MAX_HOLD + Duration::from_secs(1);
    assert_eq!(decider.hold_open(&door("front"), KEY, too_long, moment(0)), Err(DeskError::TooLong));
    assert!(decider.hold_open(&door("front"), OTHER, Duration::ZERO, moment(0)).is_err(), "nor is it ended by anybody");
    // A state that is kept knows of no hold: after a restart the door locks.
    decider.hold_open(&door("front"), KEY, Duration::from_secs(65), moment(0)).unwrap();
    let mut again = trusted();
    again.restore(decider.state(moment(1_000)), moment(0));
    assert!(again.hold_orders(moment(2_000), &mut ids()).is_empty() && again.held_until(&door("front")).is_none());
}

#[test]
fn rules_that_are_read_again_hold_at_once_and_forget_neither_lock_down_nor_failures() {
    let mut decider = desk("");
    let seen = sampled(&observation(vec![candidate("ada", 0.8)], Some(0.9)));
    let outcome = |decider: &mut Decider, track: u64, at: u64| {
        let seen = Observation {
            track: TrackId(track),
            captured_at: moment(at),
            first_usable_at: moment(at),
            ended: true,
            ..seen.clone()
        };
        let samples = seen.samples.iter().map(|sample| FaceSample { captured_at: moment(at), ..sample.clone() }).collect();
        let decisions = decider.decide_on_one_face(&Observation { samples, ..seen }, moment(at), &mut ids());
        decisions.into_iter().find(|decision| decision.door == door("front")).map(|decision| decision.reason)
    };
    decider.take(Input::Command(Command::Lockdown { door: Some(door("back")) }), moment(0)).unwrap();
    assert_eq!(outcome(&mut decider, 1, 2_000), Some(Reason::Match));
    let nobody =
        "version = 2\n[[doors]]\nid = \"front\"\nallow = [{ people = [\"bob\"] }]\n[[doors]]\nid = \"back\"\nmode = \"free\"";
    decider.take_changed();
    decider.set_rules(Rules::new(&toml::from_str(nobody).unwrap()).unwrap());
    assert!(decider.take_changed() && decider.is_locked_down(&door("back")));
    assert_eq!(outcome(&mut decider, 2, 60_000), Some(Reason::NotPermitted));
    let modes: Vec<(&str, &str, bool)> =
        decider.modes().map(|(door, mode, locked)| (door.as_str(), mode.as_str(), locked)).collect();
    assert_eq!(modes, [("front", "normal", false), ("back", "free", true)]);
}

#[test]
fn the_lock_down_of_a_lost_memory_ends_by_a_release_or_by_accepting_the_loss_and_what_was_ordered_since_stays() {
    let (front, back) = (DoorId::new("front").unwrap(), DoorId::new("back").unwrap());
    let holds = |state: State| {
        let mut decider = desk("");
        decider.restore(state, moment(0));
        [&front, &back].map(|door| decider.is_locked_down(door))
    };
    assert_eq!(holds(State::lost()), [true, true]);
    let mut decider = desk("");
    decider.restore(State::lost(), moment(0));
    decider.take(Input::Command(Command::Lockdown { door: Some(back.clone()) }), moment(1)).unwrap();
    let text = serde_json::to_string(&decider.state(moment(2))).unwrap();
    let mut kept: State = serde_json::from_str(&text).unwrap();
    assert_eq!(holds(kept.clone()), [true, true], "over a restart too");
    assert!(kept.accept_loss() && !kept.accept_loss());
    assert_eq!(holds(kept), [false, true], "what an operator ordered meanwhile");
    decider.take(Input::Command(Command::Release { door: Some(front.clone()) }), moment(3)).unwrap();
    assert_eq!(holds(decider.state(moment(4))), [false, true]);
    decider.lock_down_for_loss();
    decider.take(Input::Command(Command::Release { door: None }), moment(5)).unwrap();
    assert_eq!(holds(decider.state(moment(6))), [false, false]);
}
