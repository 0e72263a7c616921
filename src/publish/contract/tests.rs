//! The published documents, written from the table and compared; and the table against the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::*;
use crate::publish::command::Verb;
use crate::publish::payload::{AlarmKind, CONTRACT_VERSION};
use crate::types::{Reason, Refusal};

#[path = "../../../tests/support/contract.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod validate;

mod readme;
mod vectors;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/contract")
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/payloads")
}

fn golden(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(goldens().join(format!("{name}.json"))).unwrap()).unwrap()
}

/// The whole topic under the base topic of the default config.
fn address(kind: &Kind) -> String {
    kind.topic.strip_prefix('/').map_or_else(|| format!("faceid/{{device}}/{}", kind.topic), str::to_owned)
}

fn parameters(topic: &str) -> Value {
    let told = |name: &str| match name {
        "device" => json!({"description": "The device's id: `device` of its config"}),
        "door" => json!({"description": "A door's id"}),
        "camera" => json!({"description": "A camera's id"}),
        "alarm" => json!({"description": "What it is about", "enum": AlarmKind::ALL.map(AlarmKind::as_str)}),
        "verb" => json!({"description": "The command", "enum": Verb::ALL.map(|(_, word)| word)}),
        unknown => panic!("{unknown} is described nowhere"),
    };
    let names = topic.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    Value::Object(names.map(|name| (name.to_owned(), told(name))).collect())
}

fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages, mut schemas) = (Map::new(), Map::new(), Map::new(), Map::new());
    for kind in KINDS {
        let name = kind.name;
        let (address, parties) =
            (address(kind), |parties: &[Party]| parties.iter().map(|party| party.as_str()).collect::<Vec<_>>());
        let mut channel = json!({
            "address": address, "summary": kind.purpose,
            "messages": {name: {"$ref": format!("#/components/messages/{name}")}},
            "x-writers": parties(kind.writers), "x-readers": parties(kind.readers), "x-retained": kind.retained,
        });
        if address.contains('{') {
            channel["parameters"] = parameters(&address);
        }
        channels.insert(name.to_owned(), channel);
        // A node is its daemon and its doors' controllers.
        let is_ours = kind.writers.iter().any(|party| matches!(party, Device | Controller));
        let action = if is_ours { "send" } else { "receive" };
        let mut mqtt = json!({"qos": kind.qos, "bindingVersion": "0.2.0"});
        if is_ours {
            mqtt["retain"] = kind.retained.into();
        }
        operations.insert(
            format!("{action}-{name}"),
            json!({"action": action, "channel": {"$ref": format!("#/channels/{name}")}, "summary": kind.purpose, "bindings": {"mqtt": mqtt}}),
        );
        let mut message = json!({
            "name": name, "contentType": kind.form.content_type(), "payload": {"$ref": format!("#/components/schemas/{name}")},
        });
        if !kind.examples.is_empty() {
            message["examples"] = kind.examples.iter().map(|name| json!({"name": name, "payload": golden(name)})).collect();
        }
        messages.insert(name.to_owned(), message);
        schemas.insert(name.to_owned(), (kind.schema)());
    }
    schemas.insert("grant-claims".into(), schemas::claims());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "FaceID+ over MQTT", "version": format!("{CONTRACT_VERSION}.0.0"), "license": {"name": "Apache-2.0"},
            "description": "What a node (the daemon of a device and the controllers of its doors) says and hears on a broker that speaks MQTT 5. \
                `receive` is what it hears from readers, operators and Home Assistant. Topics begin with `base-topic` of [publish], here `faceid`. \
                The schemas are JSON Schema 2020-12. README.md beside this file says what the words mean and how a grant is verified.",
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {
            "host": "broker.example:8883", "protocol": "secure-mqtt", "protocolVersion": "5.0", "description": "The site's broker",
        }},
        "channels": channels, "operations": operations, "components": {"messages": messages, "schemas": schemas},
    })
}

#[test]
fn the_published_documents_are_what_the_table_says() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    let made =
        [("asyncapi.json", pretty(&asyncapi())), ("grants.json", pretty(&vectors::document())), ("README.md", readme::document())];
    for (name, text) in made {
        let path = folder().join(name);
        if std::env::var_os("FACEID_WRITE_CONTRACT").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "data/contract/{name} is not what the table says; write it again with\n  \
             FACEID_WRITE_CONTRACT=1 cargo test --release --lib publish::contract\nand look at what changed"
        );
    }
}

#[test]
fn every_example_is_in_the_table_and_is_as_its_schema_says() {
    let mut shown = BTreeSet::new();
    for kind in KINDS {
        for name in kind.examples {
            shown.insert(format!("{name}.json"));
            let example = golden(name);
            validate::check(&(kind.schema)(), &example, name).unwrap();
            // Neither a field more nor a field less passes.
            let mut more = example.clone();
            more["surprise"] = json!(1);
            validate::check(&(kind.schema)(), &more, name).unwrap_err();
            let mut less = example;
            less.as_object_mut().unwrap().remove(if kind.form == CloudEvent { "sequence" } else { "time" });
            validate::check(&(kind.schema)(), &less, name).unwrap_err();
        }
    }
    let files = std::fs::read_dir(goldens()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(shown, files.collect());
}

/// The words that a type's `Deserialize` takes, as it says itself of one that it does not know.
fn known<T: for<'de> serde::Deserialize<'de>>(unknown: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<T>(unknown).err().unwrap().to_string();
    let list = error.split("expected").nth(1).unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn of(words: &[words::Word]) -> BTreeSet<String> {
    words.iter().map(|word| word.word.to_owned()).collect()
}

#[test]
fn no_word_of_the_code_is_missing() {
    assert_eq!(known::<Reason>("\"?\""), of(words::REASONS));
    let mut attempts = known::<Refusal>("\"?\"");
    attempts.insert("too-short".into());
    assert_eq!(attempts, of(words::ATTEMPTS));
    assert_eq!(AlarmKind::ALL.map(|kind| kind.as_str().to_owned()).into_iter().collect::<BTreeSet<_>>(), of(words::ALARMS));
    let verbs: BTreeSet<&str> = words::ORDERS.iter().map(|order| order.verb).collect();
    assert_eq!(verbs, Verb::ALL.map(|(_, word)| word).into_iter().collect());
    let all = [words::REASONS, words::ALARMS, words::ATTEMPTS, words::GRANT_REFUSALS];
    assert!(all.iter().flat_map(|list| *list).all(|word| !word.meaning.is_empty() && !word.advice.is_empty()));
    use crate::door::DoorState;
    let states =
        [DoorState::Locked, DoorState::Unlocked, DoorState::Open, DoorState::HeldOpen, DoorState::ForcedOpen, DoorState::Unknown];
    assert_eq!(states.map(DoorState::as_str), words::DOOR_STATES);
}

#[test]
fn events_go_where_and_as_the_table_says() {
    use crate::publish::audit::Head;
    use crate::publish::payload::tests as made;
    use crate::publish::{Alarm, CameraWord, Discovery, Reply, Snapshot};
    use crate::types::{CameraId, DoorId, Moment, Prompt, Side, TrackId, Wall};
    let (door, camera, at) = (DoorId::new("front").unwrap(), CameraId::new("porch").unwrap(), Wall(1_700_000_000_000));
    let asked = Moment::default();
    let events = [
        made::event(1),
        made::stats(),
        made::birth(),
        made::camera(CameraWord::Dark),
        Event::Alarm(Alarm { kind: AlarmKind::Spoof, door: None, camera: None, detail: String::new(), at }),
        Event::Keys(String::new()),
        Event::AuditHead(Head::default()),
        Event::Discovery(Box::new(Discovery { topic: "homeassistant/device/gate/config".into(), payload: "{}".into() })),
        Event::Reply(Reply { topic: "cmd/ping/reply".into(), elsewhere: false, payload: String::new(), correlation: None }),
        Event::Prompt(Prompt {
            door: door.clone(),
            camera: camera.clone(),
            track: TrackId(1),
            side: Side::Left,
            asked_at: asked,
            until: asked,
        }),
        Event::Snapshot(Snapshot { door: door.clone(), camera: camera.clone(), track: 1, sealed: String::new(), at }),
        Event::DoorAccess(crate::publish::DoorAccess {
            door: door.clone(),
            mode: "normal",
            locked_down: false,
            held_until: None,
            last: None,
            at,
        }),
        Event::DoorHold(crate::publish::DoorHold {
            door: door.clone(),
            operator: String::new(),
            until: None,
            grant: String::new(),
            at,
        }),
        Event::DoorBlock(crate::publish::DoorBlock { door, faces: None, credentials: None, at }),
        Event::Presence(crate::publish::PresenceEvent {
            presence: crate::types::Presence { camera: camera.clone(), faces: 0, people: Vec::new() },
            at,
        }),
        Event::Attempt(crate::publish::AttemptEvent {
            attempt: crate::types::Attempt { camera, track: TrackId(1), refusal: None, frames: 1 },
            at,
        }),
    ];
    let mut told = BTreeSet::new();
    for event in &events {
        let kind = kind_of(event);
        told.insert(kind.name);
        let (topic, is_whole) = (event.topic(), kind.topic.starts_with('/'));
        assert!(is_of(kind.topic.trim_start_matches('/'), &topic), "{topic} is not {}", kind.topic);
        assert_eq!((event.is_retained(), event.is_confirmed()), (kind.retained, kind.qos == 1), "{}", kind.name);
        assert_eq!(event.is_elsewhere(), is_whole, "{}", kind.name);
        assert!(KINDS.iter().any(|one| one.name == kind.name), "{} is in no document", kind.name);
        assert!(kind.writers.contains(&Device), "{}", kind.name);
    }
    // What the device alone writes and no event is: its status, by the connection itself.
    let device = KINDS.iter().filter(|kind| kind.writers == [Device]).map(|kind| kind.name);
    assert_eq!(device.filter(|name| !told.contains(name)).collect::<Vec<_>>(), ["status"]);
}

/// What a user of the shipped access rules may do with a topic; `%u` is the device.
fn may(rules: &str, user: Option<&str>, what: &str, topic: &str) -> bool {
    let filter_is_of = |filter: &str| {
        let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        let whole = filter.last() == Some(&"#");
        let parts = if whole { &filter[..filter.len() - 1] } else { &filter[..] };
        (whole || parts.len() == topic.len())
            && parts.len() <= topic.len()
            && parts.iter().zip(&topic).all(|(part, word)| *part == "+" || part == word)
    };
    let (mut section, mut allowed) = (None, false);
    for line in rules.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["user", name] => section = Some(name),
            ["pattern", verb, filter] if user.is_none() && verb == what => allowed |= filter_is_of(&filter.replace("%u", "gate")),
            ["topic", "deny", filter] if section == user && user.is_some() && filter_is_of(filter) => return false,
            ["topic", verb, filter] if section == user && user.is_some() && verb == what => allowed |= filter_is_of(filter),
            _ => {}
        }
    }
    allowed
}

#[test]
fn the_shipped_access_rules_let_each_party_do_what_the_table_says() {
    let rules = std::fs::read_to_string(folder().join("../config/mosquitto/faceid.acl")).unwrap();
    let user = |party: Party| match party {
        Device => None,
        Controller => Some("door-gate-front"),
        Reader => Some("reader-gate-front"),
        Operator => Some("operator"),
        Dashboard => Some("homeassistant"),
    };
    for kind in KINDS {
        for party in [Device, Controller, Reader, Operator, Dashboard] {
            let topic = address(kind).replace("{device}", "gate").replace("{door}", "front").replace("{camera}", "porch");
            let topic = topic.replace("{verb}", "ping").replace("{alarm}", "forced-open");
            if kind.writers.contains(&party) {
                assert!(may(&rules, user(party), "write", &topic), "{} may not write {topic}", party.as_str());
            } else if !matches!(party, Device) {
                // A device's rules are for all its topics: what it may not write besides is its own matter.
                assert!(!may(&rules, user(party), "write", &topic), "{} may write {topic}", party.as_str());
            }
            if kind.readers.contains(&party) {
                assert!(may(&rules, user(party), "read", &topic), "{} may not read {topic}", party.as_str());
            }
        }
    }
}

#[test]
fn a_door_takes_and_refuses_the_vectors_as_they_say() {
    use crate::access::grant::KeySet;
    use crate::door::{Admission, ClockTerms, Refusal};
    use crate::publish::Received;
    use crate::system::seen::SeenError;
    use crate::types::{DeviceId, DoorId, Moment, Monotonic, Wall};
    let vectors = vectors::document();
    let keys = KeySet::from_jwk_set(&vectors["pinned"].to_string()).unwrap();
    let mut met = BTreeSet::new();
    for case in vectors["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let now = |ahead: i64| Moment {
            monotonic: Monotonic(u64::try_from(1_000_000_000 * (1_000 + ahead)).unwrap()),
            wall: Wall(1000 * (case["now"].as_i64().unwrap() + ahead)),
        };
        let terms = ClockTerms { leeway: std::time::Duration::from_secs(2), needs_source: false };
        let (device, door) = (DeviceId::new("gate").unwrap(), DoorId::new("front").unwrap());
        // It has run for long before.
        let mut door = Admission::new(device, door, keys.clone(), terms, (&folder.path().join("seen"), true), now(-900)).unwrap();
        if let Some(published) = case["published"].as_str() {
            door.learn(published.as_bytes(), now(0)).unwrap();
        }
        let token = case["token"].as_str().unwrap();
        let mut message = Received { payload: json!({"data": {"grant": token}}).to_string().into(), ..Received::default() };
        if case["taken"] == json!(["j1"]) {
            door.admit(&message, now(0)).unwrap();
        }
        message.retained = case["retained"] == true;
        let word = match door.admit(&message, now(0)) {
            Ok(_) => "accept",
            Err(Refusal::Retained) => "retained",
            Err(Refusal::Issuer) => "issuer",
            Err(Refusal::Seen(SeenError::Again)) => "used",
            Err(Refusal::Grant(error)) => error.as_str(),
            Err(other) => panic!("{}: {other}", case["name"]),
        };
        assert_eq!(word, case["expect"], "{}", case["name"]);
        met.insert(word.to_owned());
    }
    assert!(met.remove("accept"));
    assert_eq!(met, of(words::GRANT_REFUSALS), "every refusal has its vector");
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let birth = (BIRTH.schema)();
    for (path, value) in
        [("/doors/0", json!("a/b")), ("/gallery/claim", json!("a.b")), ("/clock/synced", json!(1)), ("/time", json!("now"))]
    {
        let mut altered = golden("birth");
        *altered.pointer_mut(path).unwrap() = value;
        validate::check(&birth, &altered, "birth").unwrap_err();
    }
}
