//! The policy as it is written: what contradicts itself in it, and what nobody may read of it.

use super::*;

#[test]
fn credentials_are_in_no_debug_text() {
    let policy: PolicySettings = toml::from_str("people = [{ id = 'ada', credentials = ['secret-4711'] }]").unwrap();
    let told = format!("{policy:?} {:?}", Rules::new(&policy).unwrap());
    assert!(!told.contains("4711"), "{told}");
}

#[test]
fn a_policy_that_contradicts_itself_is_told_with_its_key() {
    let policy: PolicySettings = toml::from_str(
        "time-zone = 'Moon'\n\
         holidays = [{ name = 'x', date = '2026-02-02', to = '2026-02-01' }, { name = 'y', date = '02-02', to = '02-03' }]\n\
         schedules = [{ id = 's', windows = [] }, { id = 's', windows = [{ days = [], from = '07:00', to = '07:00' }] }]\n\
         people = [{ id = 'p', credentials = ['a b'] }, { id = 'p', credentials = ['1234'], duress-credentials = ['1234'] }]\n\
         throttle = { block-s = 5, failures = 101 }\n\
         areas = [{ id = 'a', entries = ['d'], exits = ['d'], kind = 'timed' }, { id = 'b', entries = [], kind = 'hard' }]\n\
         [[doors]]\nid = 'd'\npeople-needed = 9\nmargin = 2.0\nallow = [{ schedule = 'none' }]\n[[doors]]\nid = 'd'",
    )
    .unwrap();
    let mut keys: Vec<String> = policy.findings().into_iter().map(|(key, _)| key).collect();
    keys.sort();
    let expected = [
        "areas.0.exits.0",
        "areas.0.window-s",
        "areas.1.entries",
        "areas.1.exits",
        "doors.0.allow.0",
        "doors.0.allow.0.schedule",
        "doors.0.margin",
        "doors.0.people-needed",
        "doors.1.allow",
        "doors.1.id",
        "holidays.0.to",
        "holidays.1.to",
        "people.0.credentials.0",
        "people.1.duress-credentials.0",
        "people.1.id",
        "schedules.0.windows",
        "schedules.1.id",
        "schedules.1.windows.0.days",
        "schedules.1.windows.0.to",
        "throttle.block-s",
        "throttle.failures",
        "time-zone",
    ];
    assert_eq!(keys, expected);
    assert!(Rules::new(&policy).is_err());
    let doors = ["d", "e"].map(|id| DoorId::new(id).unwrap());
    let relations = PolicySettings { doors: policy.doors[..1].to_vec(), areas: policy.areas[..1].to_vec(), ..Default::default() };
    assert_eq!(relations.relate(doors.iter()).len(), 1, "door e is not spoken of");
    assert_eq!(relations.relate(doors[1..].iter()).len(), 4, "door d is not there, and e is not spoken of");
}
