//! `faceid door` on GPIO lines. This kernel may have no GPIO simulator, so the binary runs on a fake chip (`tests/support/fake_gpiochip.c`),
//! which answers the kernel's interface below the `gpiocdev` crate: real requests, no real pins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use faceid_plus::access::grant::{GrantKey, KeySet};
use faceid_plus::publish::passage::Passages;
use faceid_plus::publish::{Notice, Received, Subscriber};
use faceid_plus::system::clock;
use faceid_plus::types::DoorId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::mosquitto::{PATIENCE, wait_for};
use super::{Scene, claims, device, settings};

fn door(id: &str) -> DoorId {
    DoorId::new(id).unwrap()
}

const LOCK: usize = 4;
const SENSOR: usize = 5;
const EXIT: usize = 6;
const UNLOCK_MS: u64 = 1_500;

/// Compiled once; gcc is what the build has needed already.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_gpiochip.so");
        let source = root.join("tests/support/fake_gpiochip.c");
        let output = Command::new("gcc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
        let output = output.expect("gcc is missing: run `make deps`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    })
}

/// The door's own key, as `faceid keygen --door` writes it.
fn write_key(secrets: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(secrets).unwrap();
    std::fs::write(secrets.join("door.key"), GrantKey::generate().unwrap().seed().as_slice()).unwrap();
    std::fs::set_permissions(secrets.join("door.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

struct Chip {
    scene: Scene,
    ear: Subscriber,
}

impl Chip {
    /// The lock's line is active when low, so that no test passes by taking levels for values. `more` is of `[controller.gpio]`.
    fn new(more: &str) -> Self {
        let scene = Scene::with_environment(
            |folder| {
                std::fs::write(folder.join("levels"), "0".repeat(32)).unwrap();
                let secrets = folder.join("secrets");
                write_key(&secrets);
                vec![("LD_PRELOAD", shim().to_owned()), ("FACEID_FAKE_CHIP", folder.to_owned()), ("FACEID_SECRETS_DIR", secrets)]
            },
            |_| {
                format!(
                    "unlock-ms = {UNLOCK_MS}\nheld-open-ms = 1000\nlock = \"gpio\"\n[controller.gpio]\nchip = \"/dev/gpiochip77\"\n\
                     lock-line = {LOCK}\nlock-active-low = true\n{more}"
                )
            },
        );
        let ear = Subscriber::start(&settings(scene.broker.port), scene.folder.path(), "faceid/gate/#").unwrap();
        wait_for("our own subscription", || (ear.next(PATIENCE)? == Notice::Subscribed).then_some(()));
        let chip = Self { scene, ear };
        chip.told("door/front/state", "locked");
        chip
    }

    /// Until a grant has surely been heard: the controller may not have subscribed yet.
    fn unlock(&self) {
        wait_for("the line to be driven", || {
            self.scene.publish("front", &self.scene.key.sign(&claims("front")));
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_millis(400) {
                if self.level(LOCK) == '0' {
                    return Some(());
                }
                std::thread::yield_now();
            }
            None
        });
    }

    fn told(&self, below: &str, wanted: &str) -> String {
        let topic = format!("faceid/gate/{below}");
        wait_for(&format!("{wanted} on {topic}"), || match self.ear.next(PATIENCE)? {
            Notice::Message(message) if message.topic == topic => {
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                text.contains(wanted).then_some(text)
            }
            _ => None,
        })
    }

    fn levels(&self) -> Vec<u8> {
        std::fs::read(self.scene.path("levels")).unwrap()
    }

    fn level(&self, line: usize) -> char {
        char::from(self.levels()[line])
    }

    fn set(&self, line: usize, level: u8) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(self.scene.path("levels")).unwrap();
        file.write_all_at(&[level], line as u64).unwrap();
    }

    fn await_level(&self, level: char, why: &str) {
        wait_for(why, || (self.level(LOCK) == level).then_some(()));
    }

    /// Level and milliseconds of each time that the lock's line was driven.
    fn trace(&self) -> Vec<(u8, u64)> {
        let text = std::fs::read_to_string(self.scene.path("trace")).unwrap();
        let drive = |line: &str| {
            let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            assert_eq!(words[0], LOCK as u64);
            (u8::try_from(words[1]).unwrap(), words[2])
        };
        text.lines().map(drive).collect()
    }

    fn lock_once(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faceid"));
        command.args(["door", "--lock", "--config"]).arg(self.scene.path("door.toml"));
        let chip = self.scene.folder.path();
        assert!(command.env("LD_PRELOAD", shim()).env("FACEID_FAKE_CHIP", chip).status().unwrap().success());
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.scene.controller.as_ref().unwrap().child)
    }
}

#[test]
fn the_lock_is_safe_from_the_first_moment_and_a_grant_is_one_pulse_of_its_time() {
    let chip = Chip::new("");
    assert!(chip.trace().iter().all(|(level, _)| *level == 1), "high is locked here: {:?}", chip.trace());
    chip.unlock();
    chip.told("door/front/state", "unlocked");
    chip.await_level('1', "the end of the pulse");
    let trace = chip.trace();
    let began = trace.iter().find(|(level, _)| *level == 0).unwrap().1;
    let ended = trace.iter().find(|(level, at)| *level == 1 && *at >= began).unwrap().1;
    // Late by what a loaded machine takes; never early.
    assert!((UNLOCK_MS..UNLOCK_MS + 5_000).contains(&(ended - began)), "{} ms", ended - began);
}

#[test]
fn a_stop_a_kill_and_a_lost_broker_leave_the_lock_safe() {
    let mut chip = Chip::new("");
    chip.unlock();
    chip.scene.wire.cut();
    chip.await_level('1', "the end of the pulse without a broker");
    chip.scene.wire.join();
    chip.unlock();
    kill_process(chip.pid(), Signal::TERM).unwrap();
    chip.await_level('1', "the stop's lock");
    assert!(chip.scene.controller.as_mut().unwrap().child.wait().unwrap().success());

    // Killed within the pulse. Nobody is there to lock; the kernel takes the line back, and what the pin does then is the board's
    // matter: it may stay as it is, which is why the relay must be wired to lock without current, and why the unit ends with `--lock`.
    chip.scene.start_again();
    chip.unlock();
    kill_process(chip.pid(), Signal::KILL).unwrap();
    chip.scene.controller.as_mut().unwrap().child.wait().unwrap();
    assert_eq!(chip.level(LOCK), '0', "the fake chip keeps the level");
    chip.lock_once();
    assert_eq!(chip.level(LOCK), '1');
    // A controller that starts anew locks before anything else, too.
    chip.set(LOCK, b'0');
    chip.scene.start_again();
    chip.await_level('1', "the start's lock");
}

#[test]
fn sensor_and_button_give_states_passages_and_alarms_that_outlast_an_outage_and_a_kill() {
    let more = format!("sensor-line = {SENSOR}\nexit-line = {EXIT}\nexit-active-low = true\ndebounce-ms = 0\n");
    let mut chip = Chip::new(&more);
    chip.unlock();
    chip.set(SENSOR, b'1');
    chip.told("door/front/state", "open");
    let passage: Value = serde_json::from_str(&chip.told("door/front/passage", "\"passed\":true")).unwrap();
    assert_eq!(passage["person"], "p0");
    assert!(passage["jti"].is_string() && passage["id"].is_string() && passage["time"].is_string());
    // The device believes this one, for it says in the door's name what the rest of the message says.
    let key = GrantKey::from_seed(&std::fs::read(chip.scene.path("secrets/door.key")).unwrap()).unwrap();
    let keys = BTreeMap::from([(door("front"), KeySet::new([key.public()]))]);
    let mut passages =
        Passages::new(device(), keys, (&chip.scene.path("passages"), true), faceid_plus::system::clock::now()).unwrap();
    let message = Received { payload: passage.to_string().into_bytes(), ..Received::default() };
    let claim = passages.admit(&door("front"), &message, clock::wall()).unwrap();
    assert_eq!((Some(claim.grant.as_str()), claim.passed), (passage["jti"].as_str(), true));
    assert_eq!(Some(claim.jti.as_str()), passage["id"].as_str());
    chip.set(SENSOR, b'0');
    chip.told("door/front/state", "locked");
    chip.await_level('1', "a door that was shut again is locked at once");

    // A grant that nobody uses.
    chip.unlock();
    chip.told("door/front/passage", "\"passed\":false");
    // The broker is away while the door is forced and held, and the controller is killed before it is back.
    chip.scene.wire.cut();
    chip.set(SENSOR, b'1');
    let diary = chip.scene.path("state/door/front.diary");
    wait_for("both alarms on disk", || {
        let text = std::fs::read_to_string(&diary).unwrap();
        (text.contains("alarm/forced-open") && text.contains("alarm/held-open")).then_some(())
    });
    kill_process(chip.pid(), Signal::KILL).unwrap();
    chip.scene.controller.as_mut().unwrap().child.wait().unwrap();
    chip.set(SENSOR, b'0');
    chip.scene.start_again();
    chip.scene.wire.join();
    let mut kinds = Vec::new();
    wait_for("both alarms", || {
        if let Notice::Message(message) = chip.ear.next(PATIENCE)?
            && let Some(kind) = message.topic.strip_prefix("faceid/gate/alarm/")
        {
            kinds.push(kind.to_owned());
        }
        (kinds.len() >= 2).then_some(())
    });
    assert_eq!(kinds[..2], ["forced-open", "held-open"], "in order");
    wait_for("the diary to be empty", || {
        let text = std::fs::read_to_string(&diary).unwrap();
        let said = |sign: &str| text.lines().filter(|line| line.starts_with(sign)).count();
        // The first line is the last number of before.
        (said("- ") > said("+ ")).then_some(())
    });
}

#[test]
fn a_line_that_somebody_else_has_is_an_error_that_names_it() {
    let chip = Chip::new("");
    let mut command = Command::new(env!("CARGO_BIN_EXE_faceid"));
    command.args(["door", "--lock", "--config"]).arg(chip.scene.path("door.toml"));
    let output = command.env("LD_PRELOAD", shim()).env("FACEID_FAKE_CHIP", chip.scene.folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("line 4 of /dev/gpiochip77"), "{said}");
}
