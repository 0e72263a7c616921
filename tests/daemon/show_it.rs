//! The main job, end to end: three RTSP cameras before three doors, two enrolled people and a stranger.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::mosquitto::Mosquitto;
use super::rtsp_server::{Plan, Server};
use super::{House, shared};

/// The longest that a step may take on a loaded machine; nothing waits this long unless something is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing more may come for "exactly one" to hold: longer than a lost track lives, a refusal waits and a retry takes.
const QUIET: Duration = Duration::from_secs(6);

/// A child that is killed when it goes.
pub(super) struct Killed(pub(super) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The broker's messages as `mosquitto_sub` prints them: topic and payload.
pub(super) struct Ear {
    _child: Killed,
    lines: Receiver<(String, String)>,
}

impl Ear {
    pub(super) fn on(port: u16, filter: &str) -> Self {
        Self::with(port, filter, &[])
    }

    /// As [`Ear::on`], with more words for `mosquitto_sub`.
    pub(super) fn with(port: u16, filter: &str, options: &[String]) -> Self {
        let mut child = Command::new("mosquitto_sub")
            .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-v", "-t", filter])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is not installed: run `make deps`");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let (topic, payload) = line.split_once(' ').unwrap_or((&line, ""));
                if sender.send((topic.to_owned(), payload.to_owned())).is_err() {
                    return;
                }
            }
        });
        Self { _child: Killed(child), lines }
    }

    pub(super) fn next(&self, wait: Duration) -> Option<(String, String)> {
        self.lines.recv_timeout(wait).ok()
    }

    /// Waits for a message that passes `wanted`.
    pub(super) fn until(&self, what: &str, mut wanted: impl FnMut(&str, &str) -> bool) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (topic, payload) = self.next(left).unwrap_or_else(|| panic!("waited in vain for {what}"));
            if wanted(&topic, &payload) {
                return (topic, payload);
            }
        }
    }
}

/// Door, outcome, reason and person of a decision.
pub(super) fn essence(payload: &str) -> (String, String, String, Option<String>) {
    let event: Value = serde_json::from_str(payload).unwrap();
    let data = &event["data"];
    let word = |key: &str| data[key].as_str().unwrap_or("").to_owned();
    assert_eq!(event["specversion"], "1.0", "{event}");
    // One that was told late comes without.
    let is_to_open = word("outcome") == "granted" && data["historical"] != true;
    assert_eq!(data["grant"].is_string(), is_to_open, "a grant belongs to `granted` alone, in time: {event}");
    (word("door"), word("outcome"), word("reason"), data["person"].as_str().map(str::to_owned))
}

pub(super) fn config(house: &House, pack: &str, backend: &str, broker: u16, cameras: &[(&str, String)]) -> std::path::PathBuf {
    let mut text = format!(
        "device = \"unit\"\n[models]\npack = \"{pack}\"\n[inference]\nbackend = \"{backend}\"\nproviders = [\"cpu\"]\n\
         [access]\naccept-demo-pack = true\n[publish]\nhost = \"127.0.0.1\"\nport = {broker}\n"
    );
    for (name, url) in cameras {
        text += &format!("[[cameras]]\nid = \"{name}\"\n[cameras.source.rtsp]\nurl = \"{url}\"\n");
        text += &format!("[[doors]]\nid = \"{name}\"\ncameras = [\"{name}\"]\n");
    }
    let path = house.path("config.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The daemon with a notify socket of ours; it is ready when this returns.
pub(super) fn start(house: &House, config: &Path) -> (Killed, UnixDatagram) {
    start_with(house, config, &[])
}

/// As [`start`], with more words for `run`.
pub(super) fn start_with(house: &House, config: &Path, more: &[&str]) -> (Killed, UnixDatagram) {
    let socket_path = house.path("notify");
    let _ = std::fs::remove_file(&socket_path);
    let socket = UnixDatagram::bind(&socket_path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = house.command();
    let child = command.arg("--config").arg(config).arg("run").args(more).env("NOTIFY_SOCKET", &socket_path).spawn().unwrap();
    let child = Killed(child);
    await_word(&socket, "READY=1");
    (child, socket)
}

pub(super) fn await_word(socket: &UnixDatagram, word: &str) {
    let mut buffer = [0u8; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{word} did not come: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == word) {
            return;
        }
    }
}

fn one_decision_a_person(backend: &str, pack: &str) {
    let Some(shared) = shared() else { return };
    let clip = |name: &str| shared.join("clips").join(name);
    let house = House::furnished(&shared, pack);
    for (person, name) in [("person0", "again.mkv"), ("person1", "bird.mkv")] {
        house.succeed(&["--pack", pack, "--backend", backend, "enroll", person, clip(name).to_str().unwrap()]);
    }
    let broker = Mosquitto::open();
    let everything = Ear::on(broker.port, "faceid/unit/#");
    let decisions = Ear::on(broker.port, "faceid/+/door/+/decision");

    let plans =
        [("north", "brother.mkv"), ("east", "milk.mkv"), ("south", "book.mkv")].map(|(door, name)| (door, Plan::file(&clip(name))));
    let mut servers: Vec<(&str, Option<Server>)> = plans.iter().map(|(door, plan)| (*door, Some(Server::start(plan)))).collect();
    let north_port = servers[0].1.as_ref().unwrap().port;
    let cameras: Vec<(&str, String)> = servers.iter().map(|(door, server)| (*door, server.as_ref().unwrap().url())).collect();
    let config = config(&house, pack, backend, broker.port, &cameras);
    let (mut daemon, notify) = start(&house, &config);

    // Each server goes once its person is decided: a clip that plays again is another visit.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let (_, payload) = decisions.next(PATIENCE).unwrap_or_else(|| panic!("only {seen:?} came"));
        let essence = essence(&payload);
        if let Some((_, server)) = servers.iter_mut().find(|(door, _)| *door == essence.0) {
            drop(server.take());
        }
        seen.push(essence);
    }
    while let Some((_, payload)) = decisions.next(QUIET) {
        seen.push(essence(&payload));
    }
    seen.sort();
    let row = |door: &str, outcome: &str, reason: &str, person: Option<&str>| {
        (door.to_owned(), outcome.to_owned(), reason.to_owned(), person.map(str::to_owned))
    };
    let expected = [
        row("east", "granted", "match", Some("person1")),
        row("north", "granted", "match", Some("person0")),
        row("south", "denied", "unknown", None),
    ];
    assert_eq!(seen, expected);

    // The server comes back on its port: the daemon goes on by itself.
    let back = Server::start(&Plan { port: north_port, ..plans[0].1.clone() });
    let (_, payload) = decisions.until("a decision after the server came back", |_, _| true);
    assert_eq!(essence(&payload), expected[1]);
    drop(back);

    kill_process(Pid::from_child(&daemon.0), Signal::TERM).unwrap();
    await_word(&notify, "STOPPING=1");
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
    let provider = if backend == "ort" { "ort/cpu" } else { "tract/cpu" };
    let mut birth = None;
    everything.until("the offline message", |topic, payload| {
        if topic.ends_with("/birth") {
            birth = Some(payload.to_owned());
        }
        topic == "faceid/unit/status" && payload == "offline"
    });
    assert!(birth.expect("no birth came").contains(provider));
}

#[test]
fn every_passer_by_gets_one_decision_on_onnx_runtime() {
    one_decision_a_person("ort", "standard");
}

#[test]
fn every_passer_by_gets_one_decision_on_tract() {
    one_decision_a_person("tract", "small");
}

#[test]
fn a_daemon_without_its_keys_cameras_models_or_alone_in_its_house_does_not_start() {
    let Some(shared) = shared() else { return };
    let house = House::furnished(&shared, "small");
    let config = config(&house, "small", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let run = ["--config", config.to_str().unwrap(), "run"];
    let (daemon, _notify) = start(&house, &config);
    assert!(house.fail(69, &run).contains("another daemon"), "two daemons ran on one state folder");
    drop(daemon);

    let empty = House::new();
    assert!(empty.fail(77, &run).contains("keygen"));
    empty.succeed(&["keygen"]);
    assert!(empty.fail(69, &run).contains("models fetch"));
    std::fs::write(empty.path("bare.toml"), "[publish]\nhost = \"localhost\"\n").unwrap();
    assert!(empty.fail(78, &["--config", empty.path("bare.toml").to_str().unwrap(), "run"]).contains("camera"));
    std::fs::write(empty.path("typo.toml"), "devise = \"x\"\n[access]\nmin-frames = 0\n").unwrap();
    let said = empty.fail(78, &["--config", empty.path("typo.toml").to_str().unwrap(), "run"]);
    assert!(said.contains(":1:1") && said.contains(":3:14"), "{said}");
}
