//! Home Assistant's device-based MQTT discovery: one retained message that names every entity of this device. Pure.
//!
//! Field names are Home Assistant's full ones (its abbreviations save bytes and cost readers). Nothing here opens a door: a command must
//! be signed, which Home Assistant cannot, so what could not be pressed is a sensor. The one button pings, the one command that needs no signature.
//! What a door's controller tells is available while the controller is, whether the daemon runs or not.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::payload::AlarmKind;
use crate::types::{CameraId, DeviceId, DoorId};

/// What the prefix is where nobody has set another.
pub const DEFAULT_PREFIX: &str = "homeassistant";
/// Where Home Assistant says that it has started, where nobody has set another topic.
pub const DEFAULT_BIRTH_TOPIC: &str = "homeassistant/status";
/// How many bytes of a hash keep two ids apart whose odd characters were replaced.
const HASH_BYTES: usize = 4;

/// What Home Assistant is told of.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// What its topics begin with.
    pub root: &'a str,
    /// The program's version.
    pub version: &'a str,
    /// Its cameras.
    pub cameras: &'a [CameraId],
    /// Its doors, and whether a sensor at each tells that it is open.
    pub doors: &'a [(DoorId, bool)],
}

/// The topic, from the broker's root. Home Assistant takes letters, digits, `_` and `-` in its last parts: other characters of an id
/// become `_`, and a hash of the whole id keeps it apart from others.
pub fn topic(prefix: &str, device: &DeviceId) -> String {
    let id = device.as_str();
    let plain: String = id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect();
    if plain == id {
        return format!("{prefix}/device/{id}/config");
    }
    let hash: String = Sha256::digest(id.as_bytes()).iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}/device/{plain}-{hash}/config")
}

/// The platform of each component of a site, by the component's name: what Home Assistant must be told once of one that is gone.
pub fn platforms(site: &Site<'_>) -> BTreeMap<String, String> {
    let platform = |component: &Value| component["platform"].as_str().unwrap_or_default().to_owned();
    components(site).into_iter().map(|(name, component)| (name, platform(&component))).collect()
}

/// The message. `gone` are components that an earlier one had, with their platforms: Home Assistant removes them.
pub fn payload(site: &Site<'_>, gone: &BTreeMap<String, String>) -> String {
    let Site { device, root, version, .. } = site;
    let mut components = components(site);
    for (name, platform) in gone {
        components.entry(name.clone()).or_insert_with(|| json!({ "platform": platform }));
    }
    json!({
        "device": { "identifiers": [format!("faceid_{device}")], "name": format!("FaceID+ {device}"), "manufacturer": "FaceID+", "model": "face access device", "sw_version": version },
        "origin": { "name": "FaceID+", "sw_version": version },
        "availability": [{ "topic": format!("{root}/status"), "value_template": "{{ 'online' if value == 'online' else 'offline' }}" }],
        "components": components,
    })
    .to_string()
}

/// A name in Home Assistant's sentence case.
fn named(id: &str, what: &str) -> String {
    let mut id = id.chars();
    let first = id.next().map(|first| first.to_ascii_uppercase());
    format!("{}{} {what}", first.map(String::from).unwrap_or_default(), id.as_str())
}

fn components(site: &Site<'_>) -> Map<String, Value> {
    let Site { device, root, cameras, doors, .. } = site;
    let mut components = Map::new();
    let mut add = |id: String, platform: &str, fields: Value| {
        let Value::Object(mut fields) = fields else { return };
        fields.insert("platform".into(), platform.into());
        // Home Assistant does not hand the message's own `qos` down to its components.
        if fields.contains_key("state_topic") {
            fields.insert("qos".into(), 1.into());
        }
        fields.insert("unique_id".into(), format!("faceid_{device}_{id}").into());
        components.insert(id, Value::Object(fields));
    };
    for (door, has_sensor) in *doors {
        let (state, access, id) = (format!("{root}/door/{door}/state"), format!("{root}/door/{door}/access"), door.as_str());
        // `unknown` is the controller's last will.
        let controller = json!([{ "topic": state, "value_template": "{{ 'offline' if value == 'unknown' else 'online' }}" }]);
        add(format!("decision_{door}"), "event", decision(root, door));
        if *has_sensor {
            add(
                format!("opening_{door}"),
                "binary_sensor",
                json!({
                    "name": named(id, "opening"), "device_class": "door", "state_topic": state, "availability": controller,
                    "value_template": "{{ 'ON' if value in ['open', 'held-open', 'forced-open'] else 'OFF' if value in ['locked', 'unlocked'] else None }}",
                }),
            );
        }
        // On means unlocked. Whether the lock is, is not known while the door is open.
        add(
            format!("locked_{door}"),
            "binary_sensor",
            json!({
                "name": named(id, "lock"), "device_class": "lock", "state_topic": state, "availability": controller,
                "value_template": "{{ 'OFF' if value == 'locked' else 'ON' if value in ['unlocked', 'open', 'held-open', 'forced-open'] else None }}",
            }),
        );
        add(
            format!("blocked_{door}"),
            "binary_sensor",
            json!({
                "name": named(id, "blocked"), "device_class": "problem", "entity_category": "diagnostic",
                "state_topic": format!("{root}/door/{door}/throttle"), "value_template": "{{ 'ON' if value_json.blocked else 'OFF' }}",
            }),
        );
        add(
            format!("lockdown_{door}"),
            "binary_sensor",
            json!({
                "name": named(id, "lock-down"), "device_class": "safety", "state_topic": access,
                "value_template": "{{ 'ON' if value_json.locked_down or value_json.mode == 'locked-down' else 'OFF' }}",
            }),
        );
        add(
            format!("held_{door}"),
            "binary_sensor",
            json!({
                "name": named(id, "held open"), "icon": "mdi:door-open", "state_topic": access,
                "value_template": "{{ 'ON' if value_json.held_open_until else 'OFF' }}",
            }),
        );
    }
    for camera in *cameras {
        let (presence, id) = (format!("{root}/camera/{camera}/presence"), camera.as_str());
        add(
            format!("faces_{camera}"),
            "sensor",
            json!({
                "name": named(id, "faces"), "icon": "mdi:face-recognition", "state_topic": presence,
                "value_template": "{{ value_json.faces }}", "state_class": "measurement",
            }),
        );
        add(
            format!("occupied_{camera}"),
            "binary_sensor",
            json!({
                "name": named(id, "occupied"), "device_class": "occupancy", "state_topic": presence,
                "value_template": "{{ 'ON' if value_json.faces > 0 else 'OFF' }}",
            }),
        );
        add(
            format!("camera_{camera}"),
            "sensor",
            json!({
                "name": named(id, "status"), "icon": "mdi:cctv", "device_class": "enum", "entity_category": "diagnostic",
                "options": ["online", "offline", "stalled", "dark"],
                "state_topic": format!("{root}/camera/{camera}/status"), "value_template": "{{ value_json.status }}",
            }),
        );
    }
    add("alarm".into(), "event", alarm(root));
    add(
        "ping".into(),
        "button",
        json!({ "name": "Ping", "icon": "mdi:connection", "entity_category": "diagnostic", "command_topic": format!("{root}/cmd/ping"), "payload_press": "ping", "retain": false }),
    );
    components
}

fn decision(root: &str, door: &DoorId) -> Value {
    json!({
        "name": named(door.as_str(), "decision"), "icon": "mdi:account-key", "state_topic": format!("{root}/door/{door}/decision"),
        "event_types": ["granted", "denied", "review"],
        // A late copy rings no bell.
        "value_template": "{% if not value_json.data.historical %}{{ {'event_type': value_json.data.outcome, 'reason': value_json.data.reason, 'person': value_json.data.person, 'camera': value_json.data.camera} | tojson }}{% endif %}",
    })
}

fn alarm(root: &str) -> Value {
    json!({
        "name": "Alarm", "icon": "mdi:alarm-light", "state_topic": format!("{root}/alarm/+"), "event_types": AlarmKind::ALL.map(AlarmKind::as_str),
        "value_template": "{{ {'event_type': value_json.kind, 'door': value_json.door, 'detail': value_json.detail} | tojson }}",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What Home Assistant takes, as its own schemas say; the file names the version.
    const SCHEMA: &str = include_str!("../../tests/golden/home-assistant.json");

    fn words(value: &Value) -> BTreeSet<&str> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn keys(value: &Value) -> BTreeSet<&str> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
    }

    /// The keys of a table: all that are required, none that is unknown, and no abbreviation, which would be read as another key.
    fn check(what: &str, table: &Value, rules: &[&Value], abbreviations: &Value) {
        let has = keys(table);
        let required: BTreeSet<&str> = rules.iter().flat_map(|rule| words(&rule["required"])).collect();
        let optional: BTreeSet<&str> = rules.iter().flat_map(|rule| words(&rule["optional"])).collect();
        assert!(required.is_subset(&has), "{what} lacks {:?}", required.difference(&has));
        let known: BTreeSet<&str> = required.union(&optional).copied().collect();
        assert!(has.is_subset(&known), "{what}: Home Assistant does not know {:?}", has.difference(&known));
        assert!(has.is_disjoint(&keys(abbreviations)), "{what}: {has:?}");
    }

    fn message() -> Value {
        let (camera, door) = (CameraId::new("porch").unwrap(), DoorId::new("front").unwrap());
        let device = DeviceId::new("gate").unwrap();
        let site = Site { device: &device, root: "faceid/gate", version: "0.1.0", cameras: &[camera], doors: &[(door, true)] };
        serde_json::from_str(&payload(&site, &BTreeMap::new())).unwrap()
    }

    #[test]
    fn device_origin_and_availability_are_what_home_assistant_takes() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let (message, short) = (message(), &schema["abbreviations"]);
        check("the message", &message, &[&schema["message"]], &short["of"]);
        check("device", &message["device"], &[&schema["device"]], &short["device"]);
        let identifying = words(&schema["device"]["one_of"]);
        assert!(keys(&message["device"]).iter().any(|key| identifying.contains(key)), "nothing identifies the device");
        check("origin", &message["origin"], &[&schema["origin"]], &short["origin"]);
        for (at, one) in message["availability"].as_array().unwrap().iter().enumerate() {
            check(&format!("availability {at}"), one, &[&schema["availability"]], &short["of"]);
        }
        let topic = topic(DEFAULT_PREFIX, &DeviceId::new("gate").unwrap());
        assert_eq!(topic, "homeassistant/device/gate/config", "<discovery_prefix>/device/<object_id>/config");
    }

    #[test]
    fn a_dot_in_the_devices_id_is_no_reason_not_to_be_found() {
        let topics: BTreeSet<String> =
            ["gate.1", "gate_1", "gate-1", "gate.1."].map(|id| topic("ha", &DeviceId::new(id).unwrap())).into_iter().collect();
        assert_eq!(topics.len(), 4, "{topics:?}");
        for topic in &topics {
            let object = topic.strip_prefix("ha/device/").and_then(|rest| rest.strip_suffix("/config")).unwrap();
            assert!(object.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')), "{topic}");
        }
        assert!(topics.contains("ha/device/gate_1/config"));
    }

    #[test]
    fn nothing_can_be_pressed_but_ping_and_what_a_controller_tells_is_available_with_it() {
        let message = message();
        for (name, component) in message["components"].as_object().unwrap() {
            let of_controller = component["state_topic"] == "faceid/gate/door/front/state";
            assert_eq!(component["command_topic"].is_null(), name != "ping", "{name}");
            assert_eq!(component["availability"].is_array(), of_controller, "{name}");
            let title = component["name"].as_str().unwrap();
            assert!(title.starts_with(|c: char| c.is_ascii_uppercase()), "{title}");
            assert!(component["icon"].is_string() || component["device_class"].is_string(), "{name} has no face");
            for (at, one) in component["availability"].as_array().into_iter().flatten().enumerate() {
                let schema: Value = serde_json::from_str(SCHEMA).unwrap();
                check(&format!("{name}: availability {at}"), one, &[&schema["availability"]], &schema["abbreviations"]["of"]);
            }
        }
        assert!(message["components"]["ping"]["device_class"].is_null());
    }

    #[test]
    fn every_component_has_what_its_platform_demands_and_nothing_that_it_does_not_know() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let message = message();
        let (mut ids, mut platforms) = (BTreeSet::new(), BTreeSet::new());
        for (name, component) in message["components"].as_object().unwrap() {
            let platform = component["platform"].as_str().unwrap();
            platforms.insert(platform);
            assert!(ids.insert(component["unique_id"].as_str().unwrap()), "{name}");
            let rules = &schema["platforms"][platform];
            check(name, component, &[&schema["entity"], rules], &schema["abbreviations"]["of"]);
            for key in ["device_class", "state_class"] {
                assert!(component[key].is_null() || words(&rules[key]).contains(component[key].as_str().unwrap()), "{name}: {key}");
            }
            let category = &component["entity_category"];
            assert!(
                category.is_null() || words(&schema["entity"]["entity_category"]).contains(category.as_str().unwrap()),
                "{name}"
            );
            // `options` goes with device class `enum` alone, and with no state class or unit.
            if component["options"].is_array() {
                assert_eq!((&component["device_class"], &component["state_class"]), (&"enum".into(), &Value::Null), "{name}");
            }
            assert!(component["retain"].is_null() || component["retain"] == false, "{name}: what Home Assistant says is not kept");
            // The message's own `qos` is not handed down.
            assert!(component["state_topic"].is_null() || component["qos"] == 1, "{name} would be heard at QoS 0");
        }
        assert_eq!(platforms, BTreeSet::from(["binary_sensor", "button", "event", "sensor"]));
    }

    #[test]
    fn what_events_listen_to_is_never_retained() {
        let message = message();
        let events = message["components"].as_object().unwrap().values().filter(|component| component["platform"] == "event");
        let topics: BTreeSet<&str> = events.map(|event| event["state_topic"].as_str().unwrap()).collect();
        assert_eq!(topics, BTreeSet::from(["faceid/gate/alarm/+", "faceid/gate/door/front/decision"]));
    }
}
