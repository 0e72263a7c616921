//! The published contract (`data/contract`) with what is not ours: Python's JSON Schema, a verifying subscriber in Python, Node-RED's function.
//! Each says loudly when its tool is not there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use faceid_plus::access::grant::{Claims, GrantKey, KeySet};
use faceid_plus::publish::{Event, Said};
use faceid_plus::types::{DeviceId, DoorId, PersonId};
use serde_json::{Value, json};

use super::mosquitto::{Mosquitto, PATIENCE};
use super::{MINUTE, Running, granted, next_decision, now, nowhere, settings, subscriber};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/contract")
}

/// A Python with these modules, or `None` after saying so. `FACEID_PYTHON` names one that is there.
fn python(modules: &str, packages: &[&str], what: &str) -> Option<PathBuf> {
    let ready = |python: &Path| {
        let check = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        check.is_ok_and(|output| output.status.success())
    };
    if let Some(python) = std::env::var_os("FACEID_PYTHON").map(PathBuf::from).filter(|python| ready(python)) {
        return Some(python);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pycontract").join(packages[0].split('=').next().unwrap());
    let python = folder.join("bin/python3");
    if !ready(&python) {
        let _ = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
        let _ = Command::new(&python).args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(packages).output();
    }
    if ready(&python) {
        return Some(python);
    }
    println!("SKIPPED: {} could not be installed: {what}", packages.join(", "));
    None
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn another_implementation_reads_the_schemas_and_finds_the_examples_right() {
    const SCRIPT: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
contract = json.load(open(sys.argv[1]))
for name, schema in contract["components"]["schemas"].items():
    Draft202012Validator.check_schema(schema)
count = 0
for name, message in contract["components"]["messages"].items():
    validator = Draft202012Validator(contract["components"]["schemas"][name])
    for example in message.get("examples", []):
        validator.validate(example["payload"])
        assert not validator.is_valid({**example["payload"], "surprise": 1}), name
        count += 1
assert count >= 15, count
"#;
    let packages = ["jsonschema==4.23.0"];
    let Some(python) = python("jsonschema", &packages, "the schemas were read by our own validator alone") else { return };
    succeed(Command::new(python).args(["-c", SCRIPT]).arg(folder().join("asyncapi.json")));
}

fn paho() -> Option<PathBuf> {
    let packages = ["pyjwt==2.10.1", "cryptography", "paho-mqtt==2.1.0"];
    python("jwt, cryptography, paho.mqtt.client", &packages, "verify.py was not run")
}

#[test]
fn the_subscriber_in_python_takes_and_refuses_the_vectors_as_they_say() {
    const SCRIPT: &str = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
import verify
vectors = json.load(open(sys.argv[1] + "/grants.json"))
judged = 0
for case in vectors["cases"]:
    if "published" in case or "hold" in case:
        continue
    door = verify.Door(vectors["pinned"], vectors["device"], vectors["door"], since=0)
    door.taken = {jti: case["now"] + 10 for jti in case.get("taken", [])}
    try:
        door.judge(case["token"], case.get("retained", False), case["now"])
        word = "accept"
    except verify.Refused as why:
        word = str(why)
    assert word == case["expect"], (case["name"], word, case["expect"])
    judged += 1
assert judged > 30, judged
"#;
    let Some(python) = paho() else { return };
    succeed(Command::new(python).args(["-B", "-c", SCRIPT]).arg(folder()));
}

#[test]
fn the_subscriber_in_python_opens_once_by_what_the_publisher_sends_and_not_again() {
    let Some(python) = paho() else { return };
    let (broker, key, place) = (Mosquitto::open(), GrantKey::generate().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(place.path().join("keys.json"), KeySet::new([key.public()]).to_jwk_set()).unwrap();
    let start = || {
        let mut command = Command::new(&python);
        command.arg("-B").arg(folder().join("verify.py")).args(["--device", "gate", "--door", "front", "--broker", "127.0.0.1"]);
        command.args(["--port", &broker.port.to_string(), "--keys"]).arg(place.path().join("keys.json"));
        let mut child = command.arg("--memory").arg(place.path().join("taken.json")).stdout(Stdio::piped()).spawn().unwrap();
        let (lines, heard) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "listening");
        (child, heard)
    };
    let (mut child, heard) = start();
    let ear = subscriber(&settings(broker.port), nowhere());
    let running = Running::start(settings(broker.port), nowhere());
    // What is believed at once was signed after the start of whoever has no memory yet.
    let iat = now().wall.unix_seconds() + 1;
    let claims = |jti: &str, door: &str| Claims {
        iss: DeviceId::new("gate").unwrap(),
        aud: DoorId::new(door).unwrap(),
        sub: PersonId::new("p0").unwrap(),
        iat,
        nbf: iat,
        exp: iat + 60,
        jti: jti.into(),
        hold_s: None,
    };
    let decide = |number: u64, grant: String| {
        let mut event = granted(number, MINUTE);
        event.decision.grant = Some(grant);
        assert!(running.publisher.publish(Event::Decision(Box::new(event))));
        next_decision(&ear).0.to_string()
    };
    let opened = decide(1, key.sign(&claims("j1", "front")));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "open front p0 j1");
    let topic = "faceid/gate/door/front/decision".to_owned();
    let again = || ear.say(Said { topic: topic.clone(), payload: opened.clone(), ..Said::default() });
    again();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "refused used");
    decide(2, key.sign(&claims("j2", "back")));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "refused audience");
    decide(3, GrantKey::generate().unwrap().sign(&claims("j3", "front")));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "refused unknown-key");
    for junk in ["", "[]", "{\"data\": 1}", "{\"data\": {\"grant\": 1}}"] {
        ear.say(Said { topic: topic.clone(), payload: junk.into(), ..Said::default() });
    }
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "refused malformed", "the one junk that has a grant");
    // Nor after a restart, by what it wrote down; and what the broker keeps opens nothing.
    child.kill().unwrap();
    child.wait().unwrap();
    let fresh = json!({ "data": { "grant": key.sign(&claims("j4", "front")) } }).to_string();
    ear.say(Said { topic: topic.clone(), payload: fresh, retained: true, ..Said::default() });
    super::wait_for("the word to be kept", || {
        let late = subscriber(&settings(broker.port), nowhere());
        super::next(&late, "door/front/decision").retained.then_some(())
    });
    let (mut child, heard) = start();
    let mut found = vec![heard.recv_timeout(PATIENCE).unwrap()];
    again();
    found.push(heard.recv_timeout(PATIENCE).unwrap());
    assert_eq!(found, ["refused retained", "refused used"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_node_red_function_takes_and_refuses_the_vectors_as_they_say() {
    const HARNESS: &str = r#"
const fs = require("fs"), crypto = require("crypto");
const flow = JSON.parse(fs.readFileSync(process.argv[1] + "/node-red.json"));
const vectors = JSON.parse(fs.readFileSync(process.argv[1] + "/grants.json"));
const types = new Set(flow.map((node) => node.type));
for (const type of types) if (!["tab", "mqtt-broker", "mqtt in", "function", "debug"].includes(type)) throw new Error(type + " is no core node");
const node = flow.find((one) => one.type === "function");
if (JSON.stringify(node.libs) !== '[{"var":"crypto","module":"crypto"}]') throw new Error("libs");
const ids = new Set(flow.map((one) => one.id));
for (const one of flow) for (const wire of (one.wires || []).flat()) if (!ids.has(wire)) throw new Error(wire);
let judged = 0;
for (const case_ of vectors.cases) {
    if (case_.published || case_.hold) continue;
    const kept = new Map(), words = [];
    const context = { get: (name) => kept.get(name), set: (name, value) => kept.set(name, value) };
    const values = { DEVICE: vectors.device, DOOR: vectors.door, PINNED: JSON.stringify(vectors.pinned) };
    const told = { status() {}, warn: (text) => words.push(text.split(": ")[1]) };
    const clock = { now: () => (case_.now - 100) * 1000 };
    new Function("context", "Date", node.initialize)(context, clock);
    for (const jti of case_.taken || []) kept.get("taken")[jti] = case_.now + 10;
    clock.now = () => case_.now * 1000;
    const call = (token) => {
        const msg = { payload: JSON.stringify({ data: { grant: token } }), retain: case_.retained || false };
        const code = new Function("msg", "env", "context", "node", "crypto", "Buffer", "Date", node.func);
        return code(msg, { get: (name) => values[name] }, context, told, crypto, Buffer, clock);
    };
    const out = call(case_.token);
    const word = out === null ? words.pop() : "accept";
    if (word !== case_.expect) throw new Error(case_.name + ": " + word + ", not " + case_.expect);
    if (out !== null) {
        if (out.person !== "p0" || out.payload !== "open") throw new Error(case_.name);
        if (call(case_.token) !== null || words.pop() !== "used") throw new Error(case_.name + ": twice");
    }
    judged += 1;
}
if (judged < 30) throw new Error(judged + " judged");
"#;
    if Command::new("node").arg("--version").output().is_err() {
        println!("SKIPPED: node is not installed: the Node-RED function was not run");
        return;
    }
    succeed(Command::new("node").args(["-e", HARNESS]).arg(folder()));
}

#[test]
fn esphome_takes_the_recipe() {
    let esphome = std::env::var_os("FACEID_ESPHOME").map_or_else(|| PathBuf::from("esphome"), PathBuf::from);
    if Command::new(&esphome).arg("version").output().is_err() {
        println!("SKIPPED: esphome is not installed: its recipe was not read by it");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("esphome.yaml"), place.path().join("relay.yaml")).unwrap();
    let authority = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n";
    let secrets = format!(
        "wifi_ssid: site\nwifi_password: \"12345678\"\nmqtt_broker: broker.example\nmqtt_password: secret\nmqtt_ca: \"{authority}\"\n"
    );
    std::fs::write(place.path().join("secrets.yaml"), secrets).unwrap();
    let read = succeed(Command::new(esphome).arg("config").arg(place.path().join("relay.yaml")));
    assert!(read.contains("faceid-relay/front/set") && !read.contains("/decision"), "{read}");
}

#[test]
fn no_document_of_the_contract_is_without_what_it_names() {
    let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || text.contains(&format!("`{name}`")), "README.md does not name {name}");
    }
    let contract: Value = serde_json::from_str(&std::fs::read_to_string(folder().join("asyncapi.json")).unwrap()).unwrap();
    assert_eq!(contract["asyncapi"], "3.0.0");
}
