//! Both sides of a door: the real daemon on the project's own clip and pack, a real mosquitto, and `faceid door`. What is granted opens
//! once; lock-down holds over a kill; the sequence has no gap; commands that nobody signed change nothing and are in the audit trail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use faceid_plus::access::grant::{GrantKey, PassageClaim};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::House;
use super::mosquitto::{Mosquitto, wait_for};
use super::show_it::{Ear, Killed, PATIENCE, await_word, essence, start};

const PACK: [&str; 4] = ["--pack", "builtin", "--backend", "tract"];

/// Two of the demo's people, a door before the demo's clip, `more` in the config.
pub(super) fn furnish(broker: u16, more: &str) -> (House, std::path::PathBuf) {
    let house = House::new();
    house.succeed(&["keygen"]);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo");
    for person in ["person-a", "person-c"] {
        let mut photos: Vec<String> = std::fs::read_dir(data.join("people").join(person))
            .unwrap()
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect();
        photos.sort();
        let mut arguments = PACK.to_vec();
        arguments.extend(["enroll", person]);
        arguments.extend(photos.iter().map(String::as_str));
        house.succeed(&arguments);
    }
    std::fs::write(house.path("keys.json"), house.succeed(&["keygen", "--public"])).unwrap();
    std::fs::write(
        house.path("operators.json"),
        house.succeed(&["keygen", "--operator", house.path("operator.key").to_str().unwrap()]),
    )
    .unwrap();
    let config = house.path("config.toml");
    let access = "[access]\naccept-demo-pack = true\n";
    let more = if more.contains("[access]\n") { more.replace("[access]\n", access) } else { format!("{more}{access}") };
    let text = format!(
        "device = \"unit\"\n[models]\npack = \"builtin\"\n[inference]\nbackend = \"tract\"\n\
         [publish]\nhost = \"127.0.0.1\"\nport = {broker}\noperator-keys = \"{operators}\"\n\
         [controller]\ndoor = \"front\"\npinned-keys = \"{keys}\"\nunlock-ms = 500\n\
         [[cameras]]\nid = \"entrance\"\nstall-timeout-ms = 60000\n[cameras.source.file]\npath = \"{clip}\"\nloop = true\n\
         [[doors]]\nid = \"front\"\ncameras = [\"entrance\"]\n{more}",
        operators = house.path("operators.json").display(),
        keys = house.path("keys.json").display(),
        clip = data.join("door.mp4").display(),
    );
    std::fs::write(&config, text).unwrap();
    (house, config)
}

pub(super) fn command(house: &House, config: &Path, verb: &[&str]) -> Value {
    let mut arguments = vec!["--config", config.to_str().unwrap(), "command"];
    arguments.extend(verb);
    serde_json::from_str(&house.succeed(&arguments)).unwrap()
}

fn sequence(payload: &str) -> u64 {
    let value: Value = serde_json::from_str(payload).unwrap();
    value["sequence"].as_str().unwrap().parse().unwrap()
}

#[test]
fn what_is_granted_opens_once_lockdown_holds_over_a_kill_and_nothing_is_missing_afterwards() {
    let broker = Mosquitto::open();
    // The clip's stranger and its attacks would have the door blocked.
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let config_text = config.to_str().unwrap();

    // The controller first, so that no grant is missed.
    let mut door = house.command();
    door.args(["--config", config_text, "door"]).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    let mut door = Killed(door.spawn().unwrap());
    let log = BufReader::new(door.0.stderr.take().unwrap());
    let (sender, admitted) = channel();
    let (listening, listens) = channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if line.contains("listening for decisions") {
                let _ = listening.send(());
            } else if let Some((_, jti)) = line.split_once(" jti=") {
                let _ = sender.send(jti.to_owned());
            }
        }
    });
    listens.recv_timeout(PATIENCE).expect("the controller does not listen");
    // Its first start: no grant is taken that could have been signed before.
    let began = faceid_plus::system::clock::wall().unix_seconds();
    wait_for("the first seconds to be over", || (faceid_plus::system::clock::wall().unix_seconds() > began + 3).then_some(()));

    // Both listen long before the daemon has opened its networks.
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let replies = Ear::on(broker.port, "faceid/unit/cmd/+/reply");
    let (daemon, _notify) = start(&house, &config);
    let mut sequences = Vec::new();
    let (_, granted) = decisions.until("a grant", |_, payload| {
        sequences.push(sequence(payload));
        essence(payload).1 == "granted"
    });
    let grant: Value = serde_json::from_str(&granted).unwrap();
    let claims = grant["data"]["grant"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let jti = admitted.recv_timeout(PATIENCE).expect("the door did not open");
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&claims).unwrap()).unwrap();
    assert!(text.contains(&jti), "the door took another grant than {text}");
    assert!(admitted.try_recv().is_err(), "one grant opened twice");

    // Unsigned words change nothing, a signed one does, and a kill does not end it.
    let publish = |topic: &str, payload: &str, more: &[&str]| {
        let port = broker.port.to_string();
        let mut said = Command::new("mosquitto_pub");
        said.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", payload]).args(more);
        assert!(said.status().unwrap().success());
    };
    publish("faceid/unit/cmd/release", "UNLOCK", &[]);
    let (_, refused) = replies.until("the refusal", |topic, _| topic.ends_with("cmd/release/reply"));
    assert!(refused.contains("\"ok\":false") && refused.contains("not signed"), "{refused}");
    publish("faceid/unit/cmd/ping", "ping", &[]);
    replies.until("the pong", |topic, payload| topic.ends_with("cmd/ping/reply") && payload.contains("\"ok\":true"));
    assert_eq!(command(&house, &config, &["ping"])["ok"], true);
    let people = command(&house, &config, &["list"]);
    assert_eq!(people["result"]["people"].as_array().unwrap().len(), 2, "{people}");
    let set = ["set", "--args", r#"{"person":"person-c","groups":["staff"]}"#];
    assert_eq!(command(&house, &config, &set)["ok"], true);
    house.fail(1, &["--config", config_text, "command", "set", "--args", r#"{"person":"nobody"}"#]);
    house.fail(1, &["--config", config_text, "command", "set", "--args", r#"{"person":"person-c","embedding":[]}"#]);
    house.fail(1, &["--config", config_text, "command", "enroll"]);
    assert_eq!(command(&house, &config, &["remove", "--args", r#"{"person":"person-c"}"#])["result"]["people"], 1);
    house.fail(1, &["people", "show", "person-c"]);
    assert_eq!(command(&house, &config, &["lockdown"])["ok"], true);
    drop(daemon);
    let (mut daemon, notify) = start(&house, &config);
    decisions.until("a denial for lock-down", |_, payload| {
        sequences.push(sequence(payload));
        let (_, outcome, reason, person) = essence(payload);
        assert_ne!(outcome, "granted", "lock-down does not hold: {payload}");
        assert_eq!(person, None, "whom a shut door sees is nobody's business: {payload}");
        reason == "lockdown"
    });
    let signed = house.succeed(&["--config", config_text, "command", "release", "--print"]);
    publish("faceid/unit/cmd/release", signed.trim(), &["-r"]);
    publish("faceid/unit/cmd/release", "", &["-r"]);
    // A live copy of what was published retained is taken once, and never again.
    publish("faceid/unit/cmd/release", signed.trim(), &[]);
    replies.until("the replay's refusal", |_, payload| payload.contains("used before"));
    let (_, payload) = decisions.until("a grant after the release", |_, payload| {
        sequences.push(sequence(payload));
        essence(payload).1 == "granted"
    });
    admitted.recv_timeout(PATIENCE).expect("the door did not open after the release");

    let first = command(&house, &config, &["replay", "--args", "{\"from\":1}"]);
    let events = first["result"]["events"].as_array().unwrap();
    let replayed: Vec<u64> = events.iter().map(|event| sequence(&event.to_string())).collect();
    let last = sequence(&payload);
    assert!(replayed.iter().copied().eq(1..=*replayed.last().unwrap()) && *replayed.last().unwrap() >= last, "{replayed:?}");
    assert!(events.iter().all(|event| event["data"]["historical"] == true && event["data"].get("grant").is_none()));
    sequences.dedup();
    assert!(sequences.windows(2).all(|pair| pair[1] >= pair[0]), "{sequences:?}");

    kill_process(Pid::from_child(&daemon.0), Signal::TERM).unwrap();
    await_word(&notify, "STOPPING=1");
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
    let verdict: Value = serde_json::from_str(&house.succeed(&["audit", "verify", "--json"])).unwrap();
    assert_eq!(verdict["first"], 1, "{verdict}");
    let trail = house.succeed(&["audit", "export"]);
    for wanted in ["\"command-refused\"", "\"lockdown\"", "\"start\"", "\"stop\"", "\"decision\"", "used before"] {
        assert!(trail.contains(wanted), "{wanted} is not in the trail");
    }
    assert!(!trail.contains("eyJ"), "a token is in the trail");
    let head = Ear::on(broker.port, "faceid/unit/audit/head");
    let (_, published) = head.until("the published head", |_, _| true);
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(published["hash"], verdict["head"]["hash"]);
    house.succeed(&["audit", "verify", "--head", published["hash"].as_str().unwrap()]);
    house.fail(65, &["audit", "verify", "--head", &"0".repeat(64)]);
    wait_for("the door to go on", || door.0.try_wait().unwrap().is_none().then_some(()));
}

#[test]
fn a_door_with_two_factors_opens_for_the_face_whose_card_was_read_and_the_card_is_in_no_event() {
    let broker = Mosquitto::open();
    let policy = "[policy.throttle]\nfailures = 0\n[[policy.people]]\nid = \"person-a\"\ncredentials = [\"card-004217\"]\n\
        [[policy.doors]]\nid = \"front\"\nmode = \"two-factor\"\nsecond-factor-window-s = 60\nallow = [{ everyone = true }]\n";
    let (house, config) = furnish(broker.port, policy);
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let (_daemon, _notify) = start(&house, &config);
    decisions.until("a denial without a card", |_, payload| {
        let (_, outcome, reason, _) = essence(payload);
        assert_ne!(outcome, "granted", "a face alone opened: {payload}");
        reason == "second-factor"
    });
    let port = broker.port.to_string();
    let present = |payload: &str, more: &[&str]| {
        let topic = "faceid/unit/door/front/credential";
        let mut said = Command::new("mosquitto_pub");
        said.args(["-h", "127.0.0.1", "-p", &port, "-t", topic, "-m", payload]).args(more);
        assert!(said.status().unwrap().success());
    };
    for garbage in ["", "card-004217", r#"{"kind":"card"}"#, r#"{"kind":"face","person":"person-a"}"#] {
        present(garbage, &[]);
    }
    present(r#"{"kind":"card","number":"card-999999"}"#, &[]);
    let (_, granted) = decisions.until("a grant with the card", |_, payload| {
        let (_, outcome, reason, _) = essence(payload);
        if reason == "second-factor" || reason == "spoof" || reason == "unknown" {
            present(r#"{"kind":"card","number":"card-004217"}"#, &[]);
        }
        outcome == "granted"
    });
    let (_, _, _, person) = essence(&granted);
    assert_eq!(person.as_deref(), Some("person-a"), "{granted}");
    let event: Value = serde_json::from_str(&granted).unwrap();
    assert_eq!(event["data"]["factors"], serde_json::json!(["face", "card"]), "{granted}");
    assert!(!granted.contains("004217"), "the number is told");
}

#[test]
fn a_rotation_is_begun_once_and_ended_and_both_keys_are_public_in_between() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let before = house.succeed(&["keygen", "--public"]);
    house.succeed(&["keygen", "--rotate"]);
    house.fail(77, &["keygen", "--rotate"]);
    let during: Value = serde_json::from_str(&house.succeed(&["keygen", "--public"])).unwrap();
    let keys = during["keys"].as_array().unwrap();
    let old: Value = serde_json::from_str(&before).unwrap();
    assert_eq!((keys.len(), &keys[1]), (2, &old["keys"][0]), "the new key comes first");
    house.succeed(&["keygen", "--retire"]);
    let after: Value = serde_json::from_str(&house.succeed(&["keygen", "--public"])).unwrap();
    assert_eq!(after["keys"].as_array().unwrap(), &keys[..1]);
    house.fail(77, &["keygen", "--retire"]);
}

/// What a door that was not opened says of the grant `jti`, after five that say so and are not its word: unsigned, signed by a foreign
/// key, of another door, late, altered. Said again it changes nothing.
fn tell_passages(port: u16, key: &GrantKey, jti: &str) {
    let port = port.to_string();
    let publish = |claim: Option<&str>| {
        let payload = serde_json::json!({ "jti": jti, "passed": false, "claim": claim }).to_string();
        let mut said = Command::new("mosquitto_pub");
        said.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "faceid/unit/door/front/passage"]);
        assert!(said.args(["-m", &payload]).status().unwrap().success());
    };
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let claim = |id: &str| PassageClaim {
        iss: "front".parse().unwrap(),
        aud: "unit".parse().unwrap(),
        iat: now,
        exp: now + 60,
        jti: id.to_owned(),
        grant: jti.to_owned(),
        passed: false,
    };
    let good = key.sign_passage(&claim("p1"));
    publish(None);
    publish(Some(&GrantKey::generate().unwrap().sign_passage(&claim("p2"))));
    publish(Some(&key.sign_passage(&PassageClaim { iss: "back".parse().unwrap(), ..claim("p3") })));
    publish(Some(&key.sign_passage(&PassageClaim { iat: now - 120, exp: now - 60, ..claim("p4") })));
    publish(Some(&good.replacen('.', ".A", 1)));
    publish(Some(&good));
    publish(Some(&good));
}

#[test]
fn a_picture_held_up_is_refused_passages_count_and_a_throttle_outlives_a_kill() {
    let broker = Mosquitto::open();
    let area =
        "[[policy.areas]]\nid = \"inside\"\nentries = [\"front\"]\nkind = \"timed\"\nwindow-s = 3600\ncounts = \"passages\"\n";
    let (house, config) = furnish(broker.port, &format!("{area}[policy.throttle]\nfailures = 0\ncool-down-ms = 0\n"));
    let pinned = house.path("front.json");
    std::fs::write(&pinned, house.succeed(&["keygen", "--door"])).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[[doors]]\n", &format!("[[doors]]\ncontroller-keys = \"{}\"\n", pinned.display()));
    std::fs::write(&config, text).unwrap();
    let key = GrantKey::from_seed(&std::fs::read(house.path("secrets/door.key")).unwrap()).unwrap();
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let (daemon, _notify) = start(&house, &config);
    // The clip: A, B, A on a phone, A on paper, A and C together; then again. The door says that nobody went through for A's first
    // grant, so the second visit is granted, and the third is not.
    let mut seen: Vec<(String, String, Option<String>)> = Vec::new();
    let mut unused = None;
    decisions.until("passback for A", |_, payload| {
        let (_, outcome, reason, person) = essence(payload);
        let event: Value = serde_json::from_str(payload).unwrap();
        if let (None, Some(grant)) = (&unused, event["data"]["grant"].as_str()) {
            let claims = URL_SAFE_NO_PAD.decode(grant.split('.').nth(1).unwrap()).unwrap();
            unused = Some(serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned());
        } else if person.is_none() && seen.len() == 1 {
            tell_passages(broker.port, &key, unused.as_deref().unwrap());
        }
        let is_over = reason == "passback";
        seen.push((outcome, reason, person));
        is_over
    });
    let trail = house.succeed(&["audit", "export"]);
    let refused: Vec<&str> = trail.lines().filter(|line| line.contains("\"passage-refused\"")).collect();
    let why = ["no claim", "unknown key", "another door", "its time", "signature is wrong", "used before"];
    assert!(why.iter().all(|why| refused.iter().any(|line| line.contains(why))), "{refused:#?}");
    assert_eq!(refused.len(), 6, "{refused:#?}");
    let of = |who: &str| -> Vec<&str> {
        seen.iter().filter(|(.., person)| person.as_deref() == Some(who)).map(|(outcome, ..)| outcome.as_str()).collect()
    };
    assert_eq!((of("person-a"), of("person-c")), (vec!["granted", "granted", "denied"], vec!["granted"]), "{seen:?}");
    assert!(seen.iter().any(|(_, reason, _)| reason == "spoof"), "no picture was refused as one: {seen:?}");
    drop(daemon);

    // A single failure blocks for ten minutes, and a kill does not end that.
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("failures = 0\n", "failures = 1\nblock-s = 600\nlongest-block-s = 600\n");
    std::fs::write(&config, text).unwrap();
    let (daemon, _notify) = start(&house, &config);
    let throttled = |payload: &str| essence(payload).2 == "throttled";
    decisions.until("the block", |_, payload| {
        assert_ne!(essence(payload).1, "granted", "A is inside: {payload}");
        throttled(payload)
    });
    drop(daemon);
    let told = Ear::on(broker.port, "faceid/unit/door/front/throttle");
    let (daemon, _notify) = start(&house, &config);
    let is_of_nobody = |payload: &str| !payload.contains("\"historical\":true") && essence(payload).3.is_none();
    let (_, first) = decisions.until("a decision on nobody known after the kill", |_, payload| is_of_nobody(payload));
    assert!(throttled(&first), "{first}");
    told.until("the block of before", |_, payload| payload.contains("\"blocked\":true"));
    drop(daemon);

    // Without a throttle nothing is blocked any more, and the broker is told so.
    let text = std::fs::read_to_string(&config).unwrap().replace("failures = 1\n", "failures = 0\n");
    std::fs::write(&config, text).unwrap();
    let _daemon = start(&house, &config);
    told.until("the end of the block", |_, payload| payload.contains("\"blocked\":false"));
    let (_, first) = decisions.until("a decision on nobody known", |_, payload| is_of_nobody(payload));
    assert!(!throttled(&first), "{first}");
}
