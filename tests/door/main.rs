//! `faceid door` as a user runs it: the real binary, a real mosquitto, grants signed by the library. A grant opens once; the same again,
//! another door's, a late, an altered and a foreign one open nothing; a key that a pinned one endorses opens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as its tests do")]

mod doubles;
mod floods;
mod gpio;
#[path = "../support/hostile.rs"]
mod hostile;
#[path = "../support/hurdle.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod hurdle;
mod independent;
#[path = "../support/mosquitto.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod mosquitto;
#[cfg(feature = "osdp")]
mod panel;
mod refused;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faceid_plus::access::grant::{Claims, GrantKey, KeySet};
use faceid_plus::publish::{Notice, Said, Settings, Subscriber};
use faceid_plus::system::clock;
use faceid_plus::types::{DeviceId, DoorId, PersonId};
use mosquitto::{Mosquitto, PATIENCE, Wire, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A door on its broker: the controller's lines, its state topic, and somebody who publishes decisions.
struct Scene {
    broker: Mosquitto,
    wire: Wire,
    folder: TempDir,
    key: GrantKey,
    device: Subscriber,
    controller: Option<Controller>,
    /// Every grant's id that any controller of this scene has admitted: its log says each.
    admitted: Arc<Mutex<Vec<String>>>,
    /// What opened nothing, and why.
    refusals: Arc<Mutex<Vec<String>>>,
    /// How many lines they have logged.
    logged: floods::Logged,
    environment: Vec<(&'static str, PathBuf)>,
}

struct Controller {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(port: u16) -> Settings {
    Settings { host: "127.0.0.1".into(), port, retry_floor_ms: 20, retry_ceiling_ms: 100, ..Settings::default() }
}

fn device() -> DeviceId {
    DeviceId::new("gate").unwrap()
}

impl Scene {
    fn new() -> Self {
        let scene = Self::with(|_| "unlock-ms = 300\n".into());
        let first = scene.controller.as_ref().unwrap().lines.recv_timeout(PATIENCE);
        assert_eq!(first.unwrap(), "door front: lock", "the safe state comes first");
        scene.settle();
        scene
    }

    /// With more of the `[controller]` table; the controller runs, and perhaps nobody hears it yet.
    fn with(more: impl FnOnce(&Path) -> String) -> Self {
        Self::with_environment(|_| Vec::new(), more)
    }

    fn with_environment(
        environment: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>,
        more: impl FnOnce(&Path) -> String,
    ) -> Self {
        let broker = Mosquitto::open();
        let wire = Wire::to(broker.port);
        let folder = tempfile::tempdir().unwrap();
        let key = GrantKey::generate().unwrap();
        std::fs::write(folder.path().join("keys.json"), KeySet::new([key.public()]).to_jwk_set()).unwrap();
        let config = format!(
            "device = \"gate\"\nstate-dir = \"{0}/state\"\n[publish]\nhost = \"127.0.0.1\"\nport = {1}\n\
             retry-floor-ms = 20\nretry-ceiling-ms = 100\n\
             [controller]\ndoor = \"front\"\npinned-keys = \"{0}/keys.json\"\n{2}",
            folder.path().display(),
            wire.port,
            more(folder.path())
        );
        std::fs::write(folder.path().join("door.toml"), config).unwrap();
        let device = Subscriber::start(&settings(broker.port), folder.path(), "faceid/gate/door/+/state").unwrap();
        wait_for("our own subscription", || (device.next(PATIENCE)? == Notice::Subscribed).then_some(()));
        let environment = environment(folder.path());
        let mut scene = Self {
            broker,
            wire,
            folder,
            key,
            device,
            controller: None,
            admitted: Arc::default(),
            refusals: Arc::default(),
            logged: Arc::default(),
            environment,
        };
        scene.start_again();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        self.start_again();
        let first = self.controller.as_ref().unwrap().lines.recv_timeout(PATIENCE);
        assert_eq!(first.unwrap(), "door front: lock", "the safe state comes first");
        self.settle();
    }

    fn start_again(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_faceid"))
            .args(["door", "--config"])
            .arg(self.path("door.toml"))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env_remove("FACEID_STATE_DIR")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok).filter(|line| line.starts_with("door ")) {
                let _ = sender.send(line);
            }
        });
        let log = BufReader::new(child.stderr.take().unwrap());
        let (admitted, refusals, logged) = (self.admitted.clone(), self.refusals.clone(), self.logged.clone());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                logged.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if line.contains("grant rejected: ") {
                    refusals.lock().unwrap().push(line.clone());
                }
                if let Some((_, jti)) = line.split_once(" granted door=front person=p0 jti=") {
                    admitted.lock().unwrap().push(jti.to_owned());
                }
            }
        });
        self.controller = Some(Controller { child, lines });
    }

    /// Waits until the controller hears us: a probe that must be refused would be silent, so a grant is spent on it.
    fn settle(&self) {
        wait_for("the controller to listen", || {
            self.publish("front", &self.key.sign(&claims("front")));
            self.line(Duration::from_millis(300)).filter(|line| line == "door front: unlock")
        });
        wait_for("the door to be locked again", || self.line(PATIENCE).filter(|line| line == "door front: lock"));
        // The probes that came late.
        while self.line(Duration::from_millis(600)).is_some() {}
        self.admitted.lock().unwrap().clear();
    }

    /// A controller that runs for the first time takes no grant that could have been signed before.
    fn past_the_first_start(&self) {
        let began = clock::wall().unix_seconds();
        wait_for("the first seconds to be over", || (clock::wall().unix_seconds() > began + 3).then_some(()));
    }

    fn line(&self, wait: Duration) -> Option<String> {
        self.controller.as_ref().unwrap().lines.recv_timeout(wait).ok()
    }

    fn publish(&self, door: &str, grant: &str) {
        let payload = format!(r#"{{"specversion":"1.0","data":{{"outcome":"granted","door":"{door}","grant":"{grant}"}}}}"#);
        self.say(&format!("door/{door}/decision"), payload, false);
    }

    fn say(&self, below: &str, payload: String, retained: bool) {
        self.device.say(Said { topic: format!("faceid/gate/{below}"), payload, retained, ..Said::default() });
    }

    /// A fresh grant opens; nothing else was done by what came before it. It goes over the same connection and topic, so it comes last.
    fn expect_only_a_fresh_grant_opens(&self, what: &str) {
        let fresh = claims("front");
        self.publish("front", &self.key.sign(&fresh));
        assert_eq!(self.line(PATIENCE).as_deref(), Some("door front: unlock"), "{what}");
        assert_eq!(self.line(PATIENCE).as_deref(), Some("door front: lock"), "{what}");
        assert_eq!(self.line(Duration::from_millis(600)), None, "{what} opened the door as well");
        // A second permit within the first one's time would show no second line.
        self.expect_admitted(&fresh.jti, what);
    }

    /// The newest admitted grant is this one, and since the last call no other was.
    fn expect_admitted(&self, jti: &str, what: &str) {
        wait_for("the controller's log", || self.admitted.lock().unwrap().iter().any(|known| known == jti).then_some(()));
        let mut admitted = self.admitted.lock().unwrap();
        assert_eq!(*admitted, [jti.to_owned()], "{what} was admitted as well");
        admitted.clear();
    }
}

fn claims(door: &str) -> Claims {
    let iat = clock::wall().unix_seconds();
    Claims {
        iss: device(),
        aud: DoorId::new(door).unwrap(),
        sub: PersonId::new("p0").unwrap(),
        iat,
        nbf: iat,
        exp: iat + 20,
        jti: uuid::Uuid::now_v7().to_string(),
        hold_s: None,
    }
}

#[test]
fn a_grant_opens_exactly_once_and_again_elsewhere_late_altered_or_foreign_never() {
    let mut scene = Scene::new();
    let used = claims("front");
    let token = scene.key.sign(&used);

    // Before it is used: altered in each of its three parts, retained, late, early, for another door, of another key or device.
    for at in [5, token.find('.').unwrap() + 10, token.rfind('.').unwrap() + 10] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] ^= 1;
        scene.publish("front", &String::from_utf8(bytes).unwrap());
    }
    scene.publish("front", &scene.key.sign(&claims("back")));
    scene.publish("front", &GrantKey::generate().unwrap().sign(&claims("front")));
    scene.publish("front", &scene.key.sign(&Claims { iss: DeviceId::new("other").unwrap(), ..claims("front") }));
    let (fresh, second) = (claims("front"), 1);
    let late = Claims { iat: fresh.iat - 60, nbf: fresh.nbf - 60, exp: fresh.iat - 10 * second, ..fresh.clone() };
    scene.publish("front", &scene.key.sign(&late));
    let early = Claims { iat: fresh.iat + 60, nbf: fresh.nbf + 60, exp: fresh.exp + 60, ..fresh };
    scene.publish("front", &scene.key.sign(&early));
    scene.publish("front", "");
    scene.say("door/front/decision", "\u{0}garbage".into(), false);

    // The grant itself, and none of those: once, whoever sends it how often, and not after a kill and a restart either.
    scene.publish("front", &token);
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: unlock"));
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: lock"));
    assert_eq!(scene.line(Duration::from_millis(600)), None, "one of the bad grants opened the door as well");
    scene.expect_admitted(&used.jti, "one of the bad grants");
    for _ in 0..3 {
        scene.publish("front", &token);
    }
    scene.expect_only_a_fresh_grant_opens("the same grant again");
    scene.controller = None;
    scene.start();
    scene.publish("front", &token);
    scene.expect_only_a_fresh_grant_opens("the same grant after a kill");
}

#[test]
fn a_memory_of_used_grants_that_is_wiped_opens_nothing_for_a_lifetime() {
    let mut scene = Scene::new();
    let token = scene.key.sign(&claims("front"));
    scene.publish("front", &token);
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: unlock"));
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: lock"));
    let memory = scene.path("state/door/front.seen");
    for wipe in ["delete", "empty", "cut"] {
        let mut controller = scene.controller.take().unwrap();
        controller.child.kill().unwrap();
        controller.child.wait().unwrap();
        drop(controller);
        match wipe {
            "delete" => std::fs::remove_file(&memory).unwrap(),
            "empty" => std::fs::write(&memory, "").unwrap(),
            _ => {
                let bytes = std::fs::read(&memory).unwrap();
                std::fs::write(&memory, &bytes[..bytes.len() - 3]).unwrap();
            }
        }
        scene.start_again();
        let first = scene.controller.as_ref().unwrap().lines.recv_timeout(PATIENCE);
        assert_eq!(first.unwrap(), "door front: lock", "the safe state comes first");
        wait_for("the controller to say that it lost its memory", || {
            scene.publish("front", &token);
            scene.publish("front", &scene.key.sign(&claims("front")));
            scene.refusals.lock().unwrap().iter().any(|line| line.contains("memory of used ids was lost")).then_some(())
        });
        assert_eq!(scene.line(Duration::from_millis(600)), None, "{wipe}: a grant opened");
        scene.refusals.lock().unwrap().clear();
    }
}

#[test]
fn a_retained_grant_opens_nothing_when_the_controller_comes() {
    let mut scene = Scene::new();
    scene.controller = None;
    let token = scene.key.sign(&claims("front"));
    let payload = format!(r#"{{"data":{{"grant":"{token}"}}}}"#);
    scene.say("door/front/decision", payload, true);
    scene.start();
    scene.say("door/front/decision", String::new(), true);
    scene.expect_only_a_fresh_grant_opens("the retained grant");
}

#[test]
fn a_lost_broker_leaves_the_door_locked_and_its_state_unknown_and_a_stop_locks() {
    let mut scene = Scene::new();
    let state = |wanted: &str| {
        wait_for(&format!("the state {wanted}"), || match scene.device.next(PATIENCE)? {
            Notice::Message(message) => (message.payload == wanted.as_bytes()).then_some(()),
            _ => None,
        });
    };
    state("unlocked");
    state("locked");
    scene.publish("front", &scene.key.sign(&claims("front")));
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: unlock"));
    scene.wire.cut();
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: lock"), "locked in time without a broker");
    state("unknown");
    scene.publish("front", &scene.key.sign(&claims("front")));
    scene.wire.join();
    state("locked");
    scene.settle();
    scene.publish("front", &scene.key.sign(&claims("front")));
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: unlock"));
    let controller = scene.controller.as_mut().unwrap();
    kill_process(Pid::from_child(&controller.child), Signal::TERM).unwrap();
    assert_eq!(controller.lines.recv_timeout(PATIENCE).unwrap(), "door front: lock", "locked before the end");
    assert!(controller.child.wait().unwrap().success());
    drop(scene.broker);
}

#[test]
fn a_new_key_opens_only_when_a_pinned_one_vouches_for_it() {
    let scene = Scene::new();
    let next = GrantKey::generate().unwrap();
    let both = KeySet::new([next.public(), scene.key.public()]);
    scene.say("keys", both.to_jwk_set(), true);
    scene.publish("front", &next.sign(&claims("front")));
    scene.say("keys", both.published(vec![next.endorse(&both, &device(), clock::wall(), Duration::from_secs(60), 1)]), true);
    scene.publish("front", &next.sign(&claims("front")));
    scene.expect_only_a_fresh_grant_opens("a key that nobody vouches for");

    scene.say("keys", both.published(vec![scene.key.endorse(&both, &device(), clock::wall(), Duration::from_secs(60), 2)]), true);
    let vouched = claims("front");
    scene.publish("front", &next.sign(&vouched));
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: unlock"), "vouched for");
    assert_eq!(scene.line(PATIENCE).as_deref(), Some("door front: lock"), "vouched for");
    scene.expect_admitted(&vouched.jti, "before it was vouched for, a grant");
    let old = both.published(vec![scene.key.endorse(&both, &device(), clock::wall(), Duration::from_secs(60), 2)]);
    let alone = KeySet::new([scene.key.public()]);
    scene.say("keys", alone.published(vec![scene.key.endorse(&alone, &device(), clock::wall(), Duration::from_secs(60), 3)]), true);
    scene.say("keys", old, true);
    scene.publish("front", &next.sign(&claims("front")));
    scene.expect_only_a_fresh_grant_opens("a key that was taken back, and an older endorsement of it");
}

#[test]
fn a_config_without_a_door_or_keys_and_damaged_keys_end_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        let config = folder.path().join("door.toml");
        std::fs::write(&config, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_faceid"))
            .args(["door", "--config"])
            .arg(&config)
            .env("FACEID_STATE_DIR", folder.path().join("state"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        said
    };
    assert!(run("device = \"gate\"\n").contains("[controller] door"));
    assert!(run("[controller]\ndoor = \"front\"\n").contains("pinned-keys"));
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, "{\"keys\":[]}").unwrap();
    let said = run(&format!("[controller]\ndoor = \"front\"\npinned-keys = \"{}\"\n", keys.display()));
    assert!(said.contains("keys.json"), "{said}");
}
