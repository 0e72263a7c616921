//! The controller with doubles in the place of lock and inputs, because this kernel may have no GPIO simulator: a door that is forced,
//! held open, left by the button, whose sensor dies and whose lock does not obey.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use faceid_plus::access::grant::{GrantKey, KeySet};
use faceid_plus::door::controller::{self, Places};
use faceid_plus::door::hardware::{DoorError, Inputs, Lock, Readings};
use faceid_plus::door::{Hardware, Settings};
use faceid_plus::publish::{self, Notice, Received, Said, Subscriber};
use faceid_plus::system::stop::{self, StopHandle};
use faceid_plus::types::DoorId;
use serde_json::Value;

use super::mosquitto::{Mosquitto, PATIENCE, wait_for};
use super::{claims, device, settings};

/// What the doubles say and were told.
#[derive(Default)]
pub(super) struct World {
    /// 0 shut, 1 open, 2 not to be read.
    pub(super) sensor: AtomicU8,
    exit: AtomicBool,
    disobeys: AtomicBool,
    told: Mutex<Vec<&'static str>>,
}

struct DoubleLock(Arc<World>);

impl DoubleLock {
    fn tell(&self, word: &'static str) -> Result<(), DoorError> {
        self.0.told.lock().unwrap().push(word);
        if self.0.disobeys.load(SeqCst) {
            return Err(DoorError::Command { program: "double".into(), detail: "it does not obey".into() });
        }
        Ok(())
    }
}

impl Lock for DoubleLock {
    fn unlock(&mut self) -> Result<(), DoorError> {
        self.tell("unlock")
    }

    fn lock(&mut self) -> Result<(), DoorError> {
        self.tell("lock")
    }
}

struct DoubleInputs(Arc<World>);

impl Inputs for DoubleInputs {
    fn has_sensor(&self) -> bool {
        true
    }

    fn read(&mut self) -> Readings {
        let open = match self.0.sensor.load(SeqCst) {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        Readings { open, exit: Some(self.0.exit.load(SeqCst)) }
    }
}

pub(super) struct Scene {
    pub(super) world: Arc<World>,
    key: GrantKey,
    ear: Subscriber,
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
    _broker: Mosquitto,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let broker = Mosquitto::open();
        let link = settings(broker.port);
        let scene = Self::on(broker, link.clone(), &link, tempfile::tempdir().unwrap());
        scene.state("locked");
        scene
    }

    /// The controller reaches the broker by `link`, and we by `own`.
    pub(super) fn on(broker: Mosquitto, link: publish::Settings, own: &publish::Settings, folder: tempfile::TempDir) -> Self {
        let key = GrantKey::generate().unwrap();
        let keys = folder.path().join("keys.json");
        std::fs::write(&keys, KeySet::new([key.public()]).to_jwk_set()).unwrap();
        let door = Settings {
            door: Some(DoorId::new("front").unwrap()),
            pinned_keys: Some(keys),
            // Long enough for a loaded machine to open the door in.
            unlock_ms: 3_000,
            held_open_ms: 1_000,
            exit_unlocks: true,
            ..Settings::default()
        };
        let ear = Subscriber::start(own, folder.path(), "faceid/gate/#").unwrap();
        wait_for("our own subscription", || (ear.next(PATIENCE)? == Notice::Subscribed).then_some(()));
        let world = Arc::new(World::default());
        let hardware =
            Hardware { lock: Box::new(DoubleLock(world.clone())), inputs: Box::new(DoubleInputs(world.clone())), panel: None };
        let (handle, stop) = stop::pair();
        let state = folder.path().to_owned();
        let thread = std::thread::spawn(move || {
            let device = device();
            let places = Places { device: &device, broker: &link, secrets: &state, state: &state };
            controller::run(&door, places, hardware, &stop, &|| {}, &|| {}).unwrap();
        });
        Self { world, key, ear, stop: handle, thread: Some(thread), _broker: broker, _folder: folder }
    }

    fn next(&self, topic: &str) -> Received {
        let topic = format!("faceid/gate/{topic}");
        wait_for(&topic, || match self.ear.next(PATIENCE)? {
            Notice::Message(message) if message.topic == topic => Some(message),
            _ => None,
        })
    }

    pub(super) fn state(&self, wanted: &str) {
        let message = self.next("door/front/state");
        assert_eq!(String::from_utf8_lossy(&message.payload), wanted);
    }

    pub(super) fn alarm(&self, kind: &str) {
        let value: Value = serde_json::from_slice(&self.next(&format!("alarm/{kind}")).payload).unwrap();
        assert_eq!((value["kind"].as_str(), value["door"].as_str()), (Some(kind), Some("front")));
    }

    pub(super) fn grant(&self) {
        let payload = format!(r#"{{"data":{{"grant":"{}"}}}}"#, self.key.sign(&claims("front")));
        self.ear.say(Said { topic: "faceid/gate/door/front/decision".into(), payload, retained: false, ..Said::default() });
    }

    /// A grant that surely is heard: the first may come before the controller has subscribed.
    pub(super) fn grant_until_unlocked(&self) {
        wait_for("the lock to be told", || {
            self.grant();
            wait_briefly();
            self.world.told.lock().unwrap().contains(&"unlock").then_some(())
        });
        self.state("unlocked");
    }

    fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.world.told.lock().unwrap())
    }
}

/// Longer than a message takes on its way; only the number of tries depends on it.
fn wait_briefly() {
    let (_handle, stop) = stop::pair();
    stop.sleep(std::time::Duration::from_millis(100));
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.stop();
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.unwrap();
            assert_eq!(self.told().last(), Some(&"lock"), "a stop leaves the door locked");
        }
    }
}

#[test]
fn a_door_that_is_forced_raises_its_alarm_and_one_that_is_held_open_another() {
    let scene = Scene::new();
    scene.world.sensor.store(1, SeqCst);
    scene.alarm("forced-open");
    scene.state("forced-open");
    scene.alarm("held-open");
    scene.world.sensor.store(0, SeqCst);
    scene.state("locked");
    assert_eq!(scene.told(), ["lock"], "only the lock of the start");
}

#[test]
fn the_button_lets_out_once_and_a_sensor_that_dies_leaves_the_state_unknown() {
    let scene = Scene::new();
    scene.world.exit.store(true, SeqCst);
    scene.state("unlocked");
    scene.world.sensor.store(1, SeqCst);
    scene.state("open");
    scene.world.sensor.store(2, SeqCst);
    scene.state("unknown");
    wait_for("the end of the unlocking", || (scene.world.told.lock().unwrap().len() >= 3).then_some(()));
    assert_eq!(scene.told(), ["lock", "unlock", "lock"], "held down all the while");
}

#[test]
fn a_lock_that_does_not_obey_is_told_to_lock_until_it_does() {
    let scene = Scene::new();
    scene.grant_until_unlocked();
    scene.state("locked");
    scene.told();
    scene.world.disobeys.store(true, SeqCst);
    scene.grant();
    scene.state("unknown");
    wait_for("another try", || (scene.world.told.lock().unwrap().len() >= 3).then_some(()));
    assert_eq!(scene.told()[..3], ["unlock", "lock", "lock"]);
    scene.world.disobeys.store(false, SeqCst);
    scene.state("locked");
}
