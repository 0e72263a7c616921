//! What the decider remembers, put back, lost and accepted: the real daemon, the project's own clip, a real broker.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::House;
use super::both_sides::{command, furnish};
use super::mosquitto::Mosquitto;
use super::show_it::{Ear, essence, start, start_with};

const FILES: [&str; 2] = ["access.sealed", "access.epoch"];
pub(super) const OPEN_DOORS: &str = "[policy.throttle]\nfailures = 0\n";

/// Both places of the memory as they are now.
fn copies(house: &House) -> [Vec<u8>; 2] {
    FILES.map(|name| std::fs::read(house.path("state").join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn put_back(house: &House, names: &[&str], copies: &[Vec<u8>; 2]) {
    for (name, bytes) in FILES.iter().zip(copies).filter(|(name, _)| names.contains(name)) {
        std::fs::write(house.path("state").join(name), bytes).unwrap();
    }
}

/// Whether a decision is told in time, and not after an outage.
fn is_live(payload: &str) -> bool {
    !payload.contains("\"historical\":true")
}

/// The reasons of the next decision that grants, or that a lock-down denies.
fn shut_or_open(decisions: &Ear) -> String {
    let (_, payload) = decisions.until("a grant or a lock-down", |_, payload| {
        let (_, outcome, reason, _) = essence(payload);
        is_live(payload) && (outcome == "granted" || reason == "lockdown")
    });
    essence(&payload).2
}

/// How far a birth says that the memory had come.
pub(super) fn told_in(payload: &str) -> Option<u64> {
    let birth: Value = serde_json::from_str(payload).ok()?;
    let claim = birth["gallery"]["claim"].as_str()?.split('.').nth(1)?.to_owned();
    serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(claim).ok()?).ok()?["memory"].as_u64()
}

/// How far the memory has come, as the birth says that the broker keeps, once that is further than `earlier`.
fn told_beyond(port: u16, earlier: u64) -> u64 {
    let births = Ear::on(port, "faceid/unit/birth");
    let (_, payload) = births.until("a birth that tells of a later memory", |_, payload| told_in(payload) > Some(earlier));
    told_in(&payload).unwrap()
}

fn losses(house: &House) -> Vec<Value> {
    let trail = house.succeed(&["audit", "export"]);
    let entries = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.filter(|entry| entry["kind"] == "access-state-lost").map(|entry| entry["detail"].clone()).collect()
}

#[test]
fn an_older_memory_put_back_locks_every_door_down_and_an_accepted_loss_is_for_one_run() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, OPEN_DOORS);
    drop(start(&house, &config));
    let before = copies(&house);
    let daemon = start(&house, &config);
    assert_eq!(command(&house, &config, &["lockdown"])["ok"], true);
    drop(daemon);
    let alarms = Ear::on(broker.port, "faceid/unit/alarm/tamper");

    // Lifts the lock-down, if it were believed.
    put_back(&house, &FILES[..1], &before);
    {
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let _daemon = start(&house, &config);
        let (_, alarm) = alarms.until("the alarm", |_, _| true);
        assert!(alarm.contains("older copy"), "{alarm}");
        assert_eq!(shut_or_open(&decisions), "lockdown");
    }
    assert_eq!(losses(&house).len(), 1);
    assert_eq!(losses(&house)[0]["accepted"], false);

    // An operator accepts the next one, and it is told and audited all the same.
    put_back(&house, &FILES[..1], &before);
    {
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let _daemon = start_with(&house, &config, &["--accept-lost-state"]);
        alarms.until("the alarm of an accepted loss", |_, alarm| alarm.contains("accepted"));
        assert_eq!(shut_or_open(&decisions), "match");
    }
    assert_eq!(losses(&house).last().unwrap()["accepted"], true);
    // What was accepted needs no further word.
    {
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let _daemon = start(&house, &config);
        assert_eq!(shut_or_open(&decisions), "match");
    }
    assert_eq!(losses(&house).len(), 2);

    // The word was for that run alone: a memory that is lost again is lost again.
    std::fs::remove_file(house.path("state").join(FILES[0])).unwrap();
    {
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let _daemon = start(&house, &config);
        assert_eq!(shut_or_open(&decisions), "lockdown");
    }
    assert_eq!(losses(&house).len(), 3);
    assert_eq!(losses(&house)[2]["accepted"], false);
}

#[test]
fn a_memory_put_back_with_its_second_place_is_told_by_the_broker_and_locks_every_door_down() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, OPEN_DOORS);
    {
        let _daemon = start(&house, &config);
        told_beyond(broker.port, 0);
    }
    let before = copies(&house);
    {
        let _daemon = start(&house, &config);
        let earlier = told_beyond(broker.port, 0);
        assert_eq!(command(&house, &config, &["lockdown"])["ok"], true);
        told_beyond(broker.port, earlier);
    }
    put_back(&house, &FILES, &before);
    let alarms = Ear::on(broker.port, "faceid/unit/alarm/tamper");
    // From the start on: nothing is granted in the moment before the broker is heard.
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let daemon = start(&house, &config);
    alarms.until("the alarm", |_, _| true);
    assert_eq!(shut_or_open(&decisions), "lockdown");
    assert!(losses(&house).last().unwrap()["why"].as_str().unwrap().contains("the broker"));
    drop(daemon);
    // It lasts, until it is released.
    {
        let _daemon = start(&house, &config);
        assert_eq!(shut_or_open(&decisions), "lockdown");
        assert_eq!(command(&house, &config, &["release"])["ok"], true);
        decisions.until("a grant after the release", |_, payload| is_live(payload) && essence(payload).1 == "granted");
    }
    let _daemon = start(&house, &config);
    decisions.until("a grant after another start", |_, payload| {
        let (_, outcome, reason, _) = essence(payload);
        assert!(!is_live(payload) || reason != "lockdown", "the broker's word was heard twice");
        is_live(payload) && outcome == "granted"
    });
    assert_eq!(losses(&house).len(), 1);
}

/// A signed word as whoever listens at the broker has it, and its publication under the same topic once more.
fn replayed(port: u16, verb: &str, signed: &str, replies: &Ear) -> Value {
    let topic = format!("faceid/unit/cmd/{verb}");
    let status = std::process::Command::new("mosquitto_pub")
        .args(["-V", "mqttv5", "-p", &port.to_string(), "-q", "1", "-t", &topic, "-m", signed])
        .status();
    assert!(status.unwrap().success());
    let reply = format!("{topic}/reply");
    let (_, payload) = replies.until("the answer", |topic, _| topic == reply);
    serde_json::from_str(&payload).unwrap()
}

#[test]
fn an_older_memory_of_used_commands_put_back_lets_none_be_used_again() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, OPEN_DOORS);
    let nonces = house.path("state").join("nonces");
    {
        let _daemon = start(&house, &config);
        told_beyond(broker.port, 0);
    }
    let (older, before) = (std::fs::read(&nonces).unwrap(), copies(&house));
    let replies = Ear::on(broker.port, "faceid/unit/cmd/+/reply");
    let release = ["--config", config.to_str().unwrap(), "command", "release", "--print", "--lifetime", "300"];
    let release = house.succeed(&release);
    let release = release.trim();
    {
        let _daemon = start(&house, &config);
        let earlier = told_beyond(broker.port, 0);
        assert_eq!(replayed(broker.port, "release", release, &replies)["ok"], true, "its first use");
        assert_eq!(command(&house, &config, &["lockdown"])["ok"], true);
        told_beyond(broker.port, earlier);
    }
    // Only the memory of used nonces, then with it everything that witnesses it on this device: the broker tells of that.
    for (names, why) in [(&[][..], "no later than one that was used before this start"), (&FILES, "used before this start")] {
        std::fs::write(&nonces, &older).unwrap();
        put_back(&house, names, &before);
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let alarms = Ear::on(broker.port, "faceid/unit/alarm/tamper");
        let _daemon = start(&house, &config);
        if !names.is_empty() {
            alarms.until("the alarm", |_, _| true);
        }
        let answer = replayed(broker.port, "release", release, &replies);
        assert_eq!(answer["ok"], false, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!(shut_or_open(&decisions), "lockdown");
    }
}
