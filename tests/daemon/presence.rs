//! Who stands before a camera, as the broker tells it: one or several who come, are recognised and go, a camera that is gone, and what a
//! run that was killed left retained.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::both_sides::furnish;
use super::mosquitto::Mosquitto;
use super::rtsp_server::{Plan, Server};
use super::show_it::{Ear, essence, start};

const TOPIC: &str = "faceid/unit/camera/entrance/presence";

fn faces_and_people(payload: &str) -> (u64, Vec<String>) {
    let value: Value = serde_json::from_str(payload).unwrap();
    let people = value["people"].as_array().unwrap().iter().map(|person| person.as_str().unwrap().to_owned());
    (value["faces"].as_u64().unwrap(), people.collect())
}

/// Waits until so many faces and these people are there.
fn await_them(ear: &Ear, faces: u64, people: &[&str]) {
    ear.until(&format!("{faces} faces, {people:?} recognised"), |_, payload| {
        let (there, known) = faces_and_people(payload);
        assert!(known.len() as u64 <= there, "more people than faces: {payload}");
        there == faces && known == people
    });
}

#[test]
fn whoever_comes_is_told_to_be_there_by_name_once_recognised_and_to_be_gone_with_the_last_face() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let ear = Ear::on(broker.port, TOPIC);
    let (_daemon, _notify) = start(&house, &config);
    // The clip: A; B, whom nobody knows; two pictures of A; A and C together.
    await_them(&ear, 0, &[]);
    await_them(&ear, 1, &[]);
    await_them(&ear, 1, &["person-a"]);
    await_them(&ear, 0, &[]);
    // Neither the stranger nor a picture is anybody by name.
    await_them(&ear, 1, &[]);
    await_them(&ear, 0, &[]);
    await_them(&ear, 2, &["person-a", "person-c"]);
    await_them(&ear, 0, &[]);
}

#[test]
fn whoever_comes_back_after_the_face_was_lost_is_named_again_without_another_decision() {
    let broker = Mosquitto::open();
    // Neither one approach nor one track: only the face itself can tell that it is the same visit.
    let more = "[access]\napproach-ms = 0\n[pipeline]\nrejoin-ms = 5000\n[policy.throttle]\nfailures = 0\n";
    let (house, config) = furnish(broker.port, more);
    let clip = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/turn-left.mp4");
    house.succeed(&["--pack", "builtin", "--backend", "tract", "enroll", "turner", clip.to_str().unwrap()]);
    // The clip's person, out of sight for two seconds of it: longer than a track lasts.
    let hidden = house.path("hidden.mp4");
    let mut hide = Command::new("ffmpeg");
    hide.args(["-v", "error", "-i", clip.to_str().unwrap()]);
    hide.args(["-vf", "drawbox=enable='between(t,3,5)':color=gray:t=fill", hidden.to_str().unwrap()]);
    assert!(hide.status().expect("ffmpeg is needed to hide a face").success());
    let text = std::fs::read_to_string(&config).unwrap();
    let demo = clip.with_file_name("door.mp4");
    std::fs::write(&config, text.replace(demo.to_str().unwrap(), hidden.to_str().unwrap())).unwrap();
    let (ear, decisions) = (Ear::on(broker.port, TOPIC), Ear::on(broker.port, "faceid/unit/door/front/decision"));
    let (_daemon, _notify) = start(&house, &config);
    await_them(&ear, 1, &["turner"]);
    await_them(&ear, 0, &[]);
    await_them(&ear, 1, &["turner"]);
    let granted = std::iter::from_fn(|| decisions.next(Duration::ZERO)).filter(|(_, payload)| essence(payload).1 == "granted");
    assert_eq!(granted.count(), 1);
}

fn at_a_camera_of_the_network(config: &std::path::Path, url: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    let (before, after) = text.split_once("[cameras.source.file]").unwrap();
    let (_, after) = after.split_once("loop = true\n").unwrap();
    std::fs::write(config, format!("{before}[cameras.source.rtsp]\nurl = \"{url}\"\n{after}")).unwrap();
}

#[test]
fn nobody_stands_before_a_camera_that_is_gone_nor_after_a_kill_before_one_that_does_not_come() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let clip = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/door.mp4");
    let server = Server::start(&Plan::file(&clip));
    at_a_camera_of_the_network(&config, &server.url());
    let ear = Ear::on(broker.port, TOPIC);
    let (daemon, notify) = start(&house, &config);
    await_them(&ear, 1, &["person-a"]);
    drop(server);
    await_them(&ear, 0, &[]);

    let server = Server::start(&Plan::file(&clip));
    drop((daemon, notify));
    let text = std::fs::read_to_string(&config).unwrap();
    let before = text.split_once("url = \"").unwrap().1.split_once('"').unwrap().0.to_owned();
    std::fs::write(&config, text.replace(&before, &server.url())).unwrap();
    let (daemon, _notify) = start(&house, &config);
    await_them(&ear, 1, &["person-a"]);
    // Killed while somebody stands there; the next run's camera does not come.
    drop(daemon);
    std::fs::write(&config, text.replace(&before, "rtsp://127.0.0.1:9/none")).unwrap();
    let late = Ear::on(broker.port, TOPIC);
    await_them(&late, 1, &["person-a"]);
    let (_daemon, _notify) = start(&house, &config);
    await_them(&late, 0, &[]);
}
