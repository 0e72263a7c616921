//! Whatever a broker brings to a door or a device: tokens, key sets, endorsements, decisions, commands. No panic, and nothing that was not
//! signed is ever believed.
#![no_main]

use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use faceid_plus::access::grant::{self, GrantKey, KeySet};
use faceid_plus::door::{Admission, ClockTerms};
use faceid_plus::publish::Received;
use faceid_plus::publish::command::{Gate, Verb, answer_to};
use faceid_plus::types::{DeviceId, DoorId, Moment, Wall};
use libfuzzer_sys::fuzz_target;

const NOW: Wall = Wall(1_700_000_000_000);
const LEEWAY: Duration = Duration::from_secs(2);

struct Scene {
    keys: KeySet,
    device: DeviceId,
    door: DoorId,
    admission: Admission,
    gate: Gate,
}

static SCENE: LazyLock<Mutex<Scene>> = LazyLock::new(|| {
    let keys = KeySet::new([GrantKey::from_seed(&[7; 32]).unwrap().public()]);
    let (device, door) = (DeviceId::new("gate").unwrap(), DoorId::new("front").unwrap());
    let folder = std::env::temp_dir().join(format!("faceid-fuzz-{}", std::process::id()));
    let (now, clock) = (Moment { wall: NOW, ..Moment::default() }, ClockTerms { leeway: LEEWAY, needs_source: false });
    let seen = folder.join("seen");
    let admission = Admission::new(device.clone(), door.clone(), keys.clone(), clock, (&seen, true), now).unwrap();
    let gate = Gate::new(device.clone(), Some(keys.clone()), (&folder.join("nonces"), true), now).unwrap();
    Mutex::new(Scene { keys, device, door, admission, gate })
});

fuzz_target!(|bytes: &[u8]| {
    let mut scene = SCENE.lock().unwrap();
    let scene = &mut *scene;
    let now = Moment { wall: NOW, ..Moment::default() };
    let message = Received { payload: bytes.to_vec(), ..Received::default() };
    assert!(scene.admission.admit(&message, now).is_err());
    let _ = scene.admission.learn(bytes, now);
    for (_, word) in Verb::ALL {
        assert!(scene.gate.admit(word, &message, NOW).is_err());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(grant::verify(text, &scene.keys, &scene.door, NOW, LEEWAY).is_err());
        assert!(grant::open_command(text, &scene.keys).is_err());
        assert!(!matches!(scene.keys.learn(text, &scene.device, NOW, LEEWAY), Ok(Some(_))));
        let _ = KeySet::from_jwk_set(text);
        let asked = Received { response_topic: Some(text.to_owned()), correlation: Some(bytes.to_vec()), ..Received::default() };
        let (topic, _) = answer_to("faceid/gate", &asked, true);
        assert!(topic.is_none_or(|topic| topic != "faceid" && !topic.starts_with("faceid/")));
        let (topic, _) = answer_to("faceid/gate", &asked, false);
        assert!(topic.is_none_or(|topic| topic.starts_with("faceid-operator/")));
    }
});
