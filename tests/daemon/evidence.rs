//! Evidence beyond the pictures of a door's own camera, by the real daemon on the project's own clips: a turn of the head that is asked
//! for, a second camera that must agree, and enrolment at a camera by command.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::House;
use super::both_sides::{command, furnish};
use super::mosquitto::Mosquitto;
use super::show_it::{Ear, PATIENCE, essence, start};

/// A person, enrolled as `turner`, who looks into the camera, then to the own left, and back, again and again.
fn before_the_turning_head(house: &House, config: &Path) {
    let clip = demo("turn-left.mp4");
    house.succeed(&["--pack", "builtin", "--backend", "tract", "enroll", "turner", clip.to_str().unwrap()]);
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("demo/door.mp4", "demo/turn-left.mp4")).unwrap();
}

fn demo(clip: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(clip)
}

#[test]
fn a_door_with_a_challenge_opens_for_nobody_who_was_not_asked_and_not_for_the_other_side() {
    let broker = Mosquitto::open();
    let more = "liveness = { challenge = \"turn\" }\n[policy.throttle]\nfailures = 0\n";
    let (house, config) = furnish(broker.port, more);
    before_the_turning_head(&house, &config);
    let door = Ear::on(broker.port, "faceid/unit/door/front/#");
    let (_daemon, _notify) = start(&house, &config);
    let (mut prompts, mut granted, mut refused) = (BTreeMap::new(), false, false);
    door.until("a turn to the left that was granted, and one to the right that was not made", |topic, payload| {
        if topic.ends_with("/throttle") || topic.ends_with("/access") {
            return false;
        }
        let value: Value = serde_json::from_str(payload).unwrap();
        if topic.ends_with("/prompt") {
            let told = value["prompt"].as_str().unwrap().to_owned();
            assert!(["turn-left", "turn-right"].contains(&told.as_str()) && value["until"].is_string(), "{value}");
            assert_eq!((&value["door"], &value["timeout_ms"]), (&json!("front"), &json!(6000)));
            prompts.insert(value["track"].as_u64().unwrap(), told);
            return false;
        }
        let (_, outcome, reason, _) = essence(payload);
        let asked = prompts.get(&value["data"]["track"].as_u64().unwrap()).map(String::as_str);
        match (outcome.as_str(), asked) {
            ("granted", None) => panic!("let in without being asked: {payload}"),
            ("granted", Some("turn-left")) => granted = true,
            (_, Some("turn-right")) if reason == "challenge" => refused = true,
            _ => {}
        }
        granted && refused
    });
}

#[test]
fn a_second_camera_that_sees_nobody_something_flat_or_nothing_at_all_keeps_its_door_shut() {
    let broker = Mosquitto::open();
    let launch = |id: &str, format: &str| {
        let caps = format!("video/x-raw,format={format},width=320,height=180,framerate=15/1");
        let pipeline = format!("videotestsrc is-live=true pattern=black ! {caps} ! appsink name=faceid");
        format!("[[cameras]]\nid = \"{id}\"\n[cameras.source.launch]\npipeline = \"{pipeline}\"\n")
    };
    let door = |id: &str, camera: &str, kind: &str| {
        let witness = format!("{{ camera = \"{camera}\", kind = \"{kind}\" }}");
        format!("[[doors]]\nid = \"{id}\"\ncameras = [\"entrance\"]\nliveness = {{ witness = {witness} }}\n")
    };
    // It sees what the door's own camera sees, a little later: two copies of a file would drift apart.
    let mut more = "[[cameras]]\nid = \"beside\"\n[cameras.source.launch]\npipeline = \"intervideosrc channel=scene ! \
        video/x-raw,format=I420,width=1280,height=720,framerate=15/1 ! appsink name=faceid\"\n"
        .to_owned();
    more += &launch("black", "GRAY8");
    more += &launch("flat", "GRAY16_LE");
    more += "[[cameras]]\nid = \"gone\"\n[cameras.source.rtsp]\nurl = \"rtsp://127.0.0.1:9/none\"\n";
    more += &door("agreeing", "beside", "infrared");
    more += &door("dark", "black", "infrared");
    more += &door("depth", "flat", "depth");
    more += &door("silent", "gone", "infrared");
    more += "[policy.throttle]\nfailures = 0\ncool-down-ms = 0\n";
    let (house, config) = furnish(broker.port, &more);
    before_the_turning_head(&house, &config);
    let text = std::fs::read_to_string(&config).unwrap();
    let file = format!("[cameras.source.file]\npath = \"{}\"\nloop = true\n", demo("turn-left.mp4").display());
    assert!(text.contains(&file));
    let shared = format!(
        "[cameras.source.launch]\npipeline = \"filesrc location={} ! qtdemux ! h264parse ! avdec_h264 ! tee name=scene \
         scene. ! queue ! appsink name=faceid scene. ! queue ! intervideosink channel=scene\"\n",
        demo("turn-left.mp4").display()
    );
    std::fs::write(&config, text.replace(&file, &shared)).unwrap();
    let decisions = Ear::on(broker.port, "faceid/unit/door/+/decision");
    let (_daemon, _notify) = start(&house, &config);
    let mut seen: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut of_track: BTreeMap<(u64, String), String> = BTreeMap::new();
    decisions.until("a decision of each kind at each door", |_, payload| {
        let (door, outcome, reason, _) = essence(payload);
        assert!(outcome != "granted" || ["front", "agreeing"].contains(&door.as_str()), "{door} opened: {payload}");
        // However late its frames come: a camera that sees the same face accuses nobody.
        let event: Value = serde_json::from_str(payload).unwrap();
        let track = event["data"]["track"].as_u64().unwrap();
        of_track.insert((track, door.clone()), reason.clone());
        let [own, agreeing] = ["front", "agreeing"].map(|door| of_track.get(&(track, door.to_owned())).map(String::as_str));
        assert!(own != Some("match") || agreeing != Some("spoof"), "accused by a camera that agrees: {payload}");
        seen.entry(door).or_default().push((outcome, reason));
        let has = |door: &str, outcome: &str, reason: &str| {
            seen.get(door).is_some_and(|all| all.contains(&(outcome.to_owned(), reason.to_owned())))
        };
        has("front", "granted", "match")
            && has("agreeing", "granted", "match")
            && has("dark", "denied", "spoof")
            && has("depth", "denied", "spoof")
            && has("silent", "denied", "witness")
    });
}

/// Person A comes alone, then B, pictures of A, and A together with C: C is never there alone.
#[test]
fn a_door_for_one_face_lets_nobody_in_while_a_second_one_is_in_view_and_says_so() {
    let broker = Mosquitto::open();
    let alone = "[[doors]]\nid = \"alone\"\ncameras = [\"entrance\"]\nliveness = { one-face = true }\n";
    let (house, config) = furnish(broker.port, &format!("{alone}[policy.throttle]\nfailures = 0\ncool-down-ms = 0\n"));
    let decisions = Ear::on(broker.port, "faceid/unit/door/+/decision");
    let (_daemon, _notify) = start(&house, &config);
    let mut seen: BTreeSet<(String, String, Option<String>)> = BTreeSet::new();
    decisions.until("both people at the one door, and one of them alone at the other", |_, payload| {
        let (door, outcome, reason, person) = essence(payload);
        let is_c = person.as_deref() == Some("person-c");
        assert!(door != "alone" || outcome != "granted" || !is_c, "opened for somebody who was not alone: {payload}");
        seen.insert((door, reason, person.filter(|_| outcome == "granted")));
        let has = |door: &str, reason: &str, person: Option<&str>| {
            seen.contains(&(door.to_owned(), reason.to_owned(), person.map(str::to_owned)))
        };
        has("front", "match", Some("person-a"))
            && has("front", "match", Some("person-c"))
            && has("alone", "match", Some("person-a"))
            && has("alone", "several-faces", None)
    });
}

fn refused(house: &House, config: &Path, args: &Value) -> String {
    let words = ["--config", config.to_str().unwrap(), "command", "enroll", "--lifetime", "90", "--args", &args.to_string()];
    let output = house.run(&words);
    assert_eq!(output.status.code(), Some(1), "{args}: {}", super::text(&output));
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["ok"], false, "{reply}");
    reply["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_signed_command_enrols_whoever_stands_before_the_camera_once_and_nobody_else_may_command_it() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    before_the_turning_head(&house, &config);
    let replies = Ear::on(broker.port, "faceid/unit/cmd/enroll/reply");
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let (_daemon, _notify) = start(&house, &config);
    let wanted = json!({ "person": "newcomer", "camera": "entrance", "seconds": 60, "groups": ["guests"] });
    let port = broker.port.to_string();
    let mut unsigned = Command::new("mosquitto_pub");
    unsigned.args(["-h", "127.0.0.1", "-p", &port, "-t", "faceid/unit/cmd/enroll", "-m", &wanted.to_string()]);
    assert!(unsigned.status().unwrap().success());
    let (_, answer) = replies.next(PATIENCE).expect("an unsigned command was not answered");
    assert!(answer.contains("not signed"), "{answer}");

    for (wrong, why) in [
        (json!({ "person": "newcomer" }), "camera"),
        (json!({ "person": "newcomer", "camera": "nowhere" }), "nowhere"),
        (json!({ "person": "newcomer", "camera": "entrance", "seconds": 3600 }), "seconds"),
    ] {
        let said = refused(&house, &config, &wrong);
        assert!(said.contains(why), "{wrong}: {said}");
    }
    // The clip's person is enrolled under another name already.
    let said = refused(&house, &config, &wanted);
    assert!(said.contains("already enrolled as turner"), "{said}");
    let list = command(&house, &config, &["list"])["result"]["people"].clone();
    assert!(list.as_array().unwrap().iter().all(|person| person["id"] != "newcomer"), "{list}");

    command(&house, &config, &["remove", "--args", r#"{"person":"turner"}"#]);
    let done = command(&house, &config, &["enroll", "--lifetime", "90", "--args", &wanted.to_string()]);
    assert_eq!((&done["ok"], &done["result"]["templates_added"]), (&json!(true), &json!(5)), "{done}");
    let (_, granted) = decisions.until("a grant for who was enrolled", |_, payload| {
        essence(payload).1 == "granted" && essence(payload).3.as_deref() == Some("newcomer")
    });
    assert!(!granted.is_empty());
    let trail = house.succeed(&["--config", config.to_str().unwrap(), "audit", "export"]);
    for part in ["command-refused", "\"began\":true", "\"person\":\"newcomer\"", "already enrolled as turner"] {
        assert!(trail.contains(part), "{part} is not in the audit trail");
    }
}

#[test]
fn faces_leave_the_device_only_after_a_signed_command_for_a_while_and_only_for_their_recipient() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    before_the_turning_head(&house, &config);
    let own = house.path("snapshot.key").to_str().unwrap().to_owned();
    let key = house.succeed(&["keygen", "--snapshots", &own]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[publish]\n", &format!("[publish]\nsnapshot-recipient = \"{}\"\n", key.trim()))).unwrap();
    let door = Ear::on(broker.port, "faceid/unit/door/front/#");
    let (_daemon, _notify) = start(&house, &config);
    for _ in 0..2 {
        let (topic, _) = door.until("a decision", |topic, _| topic.ends_with("/decision") || topic.ends_with("/snapshot"));
        assert!(topic.ends_with("/decision"), "a picture that nobody asked for");
    }
    let reply = command(&house, &config, &["snapshot-on", "--args", r#"{"seconds":3600}"#]);
    assert!(reply["result"]["until"].is_string(), "{reply}");
    let (_, message) = door.until("a picture", |topic, _| topic.ends_with("/snapshot"));
    assert!(!message.contains("person"), "it says who it is: {message}");
    command(&house, &config, &["snapshot-off"]);
    let (file, out) = (house.path("message.json"), house.path("face.jpg"));
    std::fs::write(&file, &message).unwrap();
    house.succeed(&["snapshot", file.to_str().unwrap(), "--key", &own, "--out", out.to_str().unwrap()]);
    assert!(std::fs::read(&out).unwrap().starts_with(&[0xff, 0xd8, 0xff]));
    std::fs::write(&file, message.replace("\"front\"", "\"back\"")).unwrap();
    house.fail(65, &["snapshot", file.to_str().unwrap(), "--key", &own, "--out", house.path("other.jpg").to_str().unwrap()]);
}

#[test]
fn a_memory_that_is_gone_or_was_edited_locks_every_door_down_with_an_alarm_until_a_release() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    drop(start(&house, &config));
    let file = house.path("state").join("access.sealed");
    let written = std::fs::read(&file).expect("nothing was remembered from the first start on");
    assert!(!String::from_utf8_lossy(&written).contains("lockdown"));
    let everything = Ear::on(broker.port, "faceid/unit/#");
    let mut edited = written;
    edited[40] ^= 1;
    std::fs::write(&file, edited).unwrap();
    let daemon = start(&house, &config);
    everything.until("an alarm for an edit", |topic, _| topic == "faceid/unit/alarm/tamper");
    drop(daemon);
    std::fs::remove_file(&file).unwrap();
    let (_daemon, _notify) = start(&house, &config);
    everything.until("an alarm for a loss", |topic, _| topic == "faceid/unit/alarm/tamper");
    everything.until("a denial by the lock-down", |topic, payload| {
        topic.ends_with("/decision") && {
            let (_, outcome, reason, _) = essence(payload);
            assert_ne!(outcome, "granted", "opened on a lost memory: {payload}");
            reason == "lockdown"
        }
    });
    command(&house, &config, &["release"]);
    everything.until("a grant after the release", |topic, payload| topic.ends_with("/decision") && essence(payload).1 == "granted");
}

/// The config as a newcomer has it: the pack that comes with the program, and nothing said of it.
#[test]
fn the_built_in_pack_opens_no_door_that_does_not_accept_it() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("accept-demo-pack = true\n", "")).unwrap();
    let told = house.succeed(&["--config", config.to_str().unwrap(), "check"]);
    assert!(told.contains("pack `builtin` opens no door") && told.contains("faceid models fetch standard"), "{told}");
    let door = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let (_daemon, _notify) = start(&house, &config);
    let mut seen = std::collections::BTreeSet::new();
    door.until("both people who are enrolled", |_, payload| {
        let (_, outcome, reason, _) = essence(payload);
        assert_ne!(outcome, "granted", "{payload}");
        let value: Value = serde_json::from_str(payload).unwrap();
        assert!(value["data"]["grant"].is_null(), "{payload}");
        if reason == "demo-pack" {
            seen.insert(value["data"]["person"].to_string());
        }
        seen.len() == 2
    });
}
