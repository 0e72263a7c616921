//! People are looked up anew at the moment of a grant: who was removed, or may no longer pass, is neither let in nor anybody's company.

use super::*;

/// A site whose gallery is the given one, which the test changes.
fn enrolled(policy: &str, gallery: &std::sync::Arc<std::sync::Mutex<HashMap<PersonId, Profile>>>) -> Decider {
    let gallery = gallery.clone();
    site(policy).with_register(Box::new(move |person| gallery.lock().unwrap().get(person).cloned()))
}

#[test]
fn whoever_was_removed_expired_or_left_the_group_before_the_last_one_came_is_no_company() {
    let staff = || Profile { groups: vec![GroupId::new("staff").unwrap()], ..Profile::default() };
    let everybody = || HashMap::from(["ada", "bob", "cyd"].map(|name| (person(name), staff())));
    let policy = "groups = [{ id = 'staff' }]\n\
                  [[doors]]\nid = 'front'\npeople-needed = 2\npeople-window-s = 10\nallow = [{ groups = ['staff'] }]";
    let changes: [fn(&mut HashMap<PersonId, Profile>); 3] = [
        |gallery| drop(gallery.remove(&person("ada"))),
        |gallery| gallery.get_mut(&person("ada")).unwrap().expires_at = Some(at(3000).wall),
        |gallery| gallery.get_mut(&person("ada")).unwrap().groups.clear(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let gallery = std::sync::Arc::new(std::sync::Mutex::new(everybody()));
        let mut site = enrolled(policy, &gallery);
        assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::TooFewPeople));
        change(&mut gallery.lock().unwrap());
        assert_eq!(decide(&mut site, &visit("front", 2, "bob", 4000)), denied(Reason::TooFewPeople), "change {n}");
        assert_eq!(decide(&mut site, &visit("front", 3, "cyd", 5000)), GRANTED, "bob and cyd, change {n}");
    }
}

#[test]
fn company_whose_time_ended_meanwhile_is_none_also_without_a_register() {
    let mut site = site(
        "people = [{ id = 'ada', valid-to = '2026-11-25T09:00:03' }]\n\
         [[doors]]\nid = 'front'\npeople-needed = 2\npeople-window-s = 10\nallow = [{ everyone = true }]",
    );
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), denied(Reason::TooFewPeople));
    assert_eq!(decide(&mut site, &visit("front", 2, "bob", 3000)), denied(Reason::TooFewPeople));
    assert_eq!(decide(&mut site, &visit("front", 3, "cyd", 4000)), GRANTED);
}

#[test]
fn whoever_was_removed_between_the_picture_and_the_grant_is_unknown() {
    let gallery = std::sync::Arc::new(std::sync::Mutex::new(HashMap::from([(person("ada"), Profile::default())])));
    let mut site = enrolled("", &gallery);
    assert_eq!(decide(&mut site, &visit("front", 1, "ada", 0)), GRANTED);
    let seen = visit("in", 2, "ada", 10_000);
    gallery.lock().unwrap().clear();
    assert_eq!(decide(&mut site, &seen), denied(Reason::Unknown));
}
