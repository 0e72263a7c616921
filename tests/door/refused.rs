//! A broker that lets the controller not hear everything, or not yet in: what may be said is said, and nothing waits for a restart.

use std::sync::atomic::Ordering::SeqCst;

use faceid_plus::publish::Settings;

use super::doubles::Scene;
use super::hurdle::{Hurdle, Obstacle};
use super::mosquitto::{Mosquitto, secret};
use super::settings;

#[test]
fn a_subscription_that_is_refused_mutes_no_alarm_and_is_asked_for_again() {
    // First the decisions, then the keys.
    for place in [0, 1] {
        let broker = Mosquitto::open();
        let hurdle = Hurdle::before(broker.port, 1, Obstacle::Refuses(place));
        let own = settings(broker.port);
        let scene = Scene::on(broker, settings(hurdle.port), &own, tempfile::tempdir().unwrap());
        scene.state("locked");
        scene.world.sensor.store(1, SeqCst);
        scene.alarm("forced-open");
        scene.state("forced-open");
        scene.world.sensor.store(0, SeqCst);
        scene.state("locked");
        scene.grant_until_unlocked();
    }
}

#[test]
fn a_password_that_was_wrong_at_the_start_is_read_anew_at_each_try() {
    let broker = Mosquitto::with_password("door", "the right one");
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), "wrong", b"a wrong one");
    secret(folder.path(), "right", b"the right one");
    let as_user =
        |name: &str| Settings { user: Some("door".into()), password_secret: Some(name.to_owned()), ..settings(broker.port) };
    let (link, own) = (as_user("wrong"), as_user("right"));
    let secrets = folder.path().to_owned();
    let scene = Scene::on(broker, link, &own, folder);
    secret(&secrets, "wrong", b"the right one");
    scene.state("locked");
    scene.grant_until_unlocked();
}
