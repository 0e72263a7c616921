//! Home Assistant's device-based MQTT discovery: one retained message that names every entity of this device. Pure.
//!
//! Field names are Home Assistant's full ones (its abbreviations save bytes and cost readers). The lock entity shows what the door's
//! controller tells; its `command_topic`, which the schema demands, is `cmd/release`, where an unsigned word changes nothing and is
//! audited: Home Assistant cannot open a door. The button pings, the one command that needs no signature.

use serde_json::{Map, Value, json};

use super::payload::AlarmKind;
use crate::types::{CameraId, DeviceId, DoorId};

/// The topic, from the broker's root.
pub fn topic(device: &DeviceId) -> String {
    format!("homeassistant/device/{device}/config")
}

/// Where Home Assistant says that it has started.
pub const BIRTH_TOPIC: &str = "homeassistant/status";

/// The message.
pub fn payload(device: &DeviceId, root: &str, version: &str, cameras: &[CameraId], doors: &[DoorId]) -> String {
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
    for door in doors {
        let state = format!("{root}/door/{door}/state");
        add(format!("decision_{door}"), "event", decision(root, door));
        add(
            format!("opening_{door}"),
            "binary_sensor",
            json!({
                "name": format!("{door} opening"), "device_class": "door", "state_topic": state,
                "value_template": "{{ 'ON' if value in ['open', 'held-open', 'forced-open'] else 'OFF' if value in ['locked', 'unlocked'] else None }}",
            }),
        );
        add(
            format!("lock_{door}"),
            "lock",
            json!({
                "name": format!("{door} lock"), "state_topic": state, "command_topic": format!("{root}/cmd/release"),
                "value_template": "{{ 'LOCKED' if value == 'locked' else 'UNLOCKED' if value == 'unlocked' else 'OPEN' if value in ['open', 'held-open'] else 'JAMMED' if value == 'forced-open' else None }}",
                "state_locked": "LOCKED", "state_unlocked": "UNLOCKED", "state_jammed": "JAMMED", "state_open": "OPEN",
                "optimistic": false,
            }),
        );
    }
    for door in doors {
        add(
            format!("blocked_{door}"),
            "binary_sensor",
            json!({
                "name": format!("{door} blocked"), "device_class": "problem", "entity_category": "diagnostic",
                "state_topic": format!("{root}/door/{door}/throttle"), "value_template": "{{ 'ON' if value_json.blocked else 'OFF' }}",
            }),
        );
    }
    for camera in cameras {
        add(
            format!("faces_{camera}"),
            "sensor",
            json!({
                "name": format!("{camera} faces"), "state_topic": format!("{root}/camera/{camera}/presence"),
                "value_template": "{{ value_json.faces }}", "state_class": "measurement",
            }),
        );
        add(
            format!("occupied_{camera}"),
            "binary_sensor",
            json!({
                "name": format!("{camera} occupied"), "device_class": "occupancy", "state_topic": format!("{root}/camera/{camera}/presence"),
                "value_template": "{{ 'ON' if value_json.faces > 0 else 'OFF' }}",
            }),
        );
        add(
            format!("camera_{camera}"),
            "sensor",
            json!({
                "name": format!("{camera} status"), "device_class": "enum", "entity_category": "diagnostic",
                "options": ["online", "offline", "stalled", "dark"],
                "state_topic": format!("{root}/camera/{camera}/status"), "value_template": "{{ value_json.status }}",
            }),
        );
    }
    add("alarm".into(), "event", alarm(root));
    add(
        "ping".into(),
        "button",
        json!({ "name": "Ping", "device_class": "identify", "entity_category": "diagnostic", "command_topic": format!("{root}/cmd/ping"), "payload_press": "ping", "retain": false }),
    );
    json!({
        "device": { "identifiers": [format!("faceid_{device}")], "name": format!("FaceID+ {device}"), "manufacturer": "FaceID+", "model": "face access device", "sw_version": version },
        "origin": { "name": "FaceID+", "sw_version": version },
        "availability": [{ "topic": format!("{root}/status"), "value_template": "{{ 'online' if value == 'online' else 'offline' }}" }],
        "components": components,
    })
    .to_string()
}

fn decision(root: &str, door: &DoorId) -> Value {
    json!({
        "name": format!("{door} decision"), "state_topic": format!("{root}/door/{door}/decision"),
        "event_types": ["granted", "denied", "review"],
        // A late copy rings no bell.
        "value_template": "{% if not value_json.data.historical %}{{ {'event_type': value_json.data.outcome, 'reason': value_json.data.reason, 'person': value_json.data.person, 'camera': value_json.data.camera} | tojson }}{% endif %}",
    })
}

fn alarm(root: &str) -> Value {
    json!({
        "name": "Alarm", "state_topic": format!("{root}/alarm/+"), "event_types": AlarmKind::ALL.map(AlarmKind::as_str),
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
        let text = payload(&DeviceId::new("gate").unwrap(), "faceid/gate", "0.1.0", &[camera], &[door]);
        serde_json::from_str(&text).unwrap()
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
        let topic = topic(&DeviceId::new("gate").unwrap());
        assert_eq!(topic, "homeassistant/device/gate/config", "<discovery_prefix>/device/<object_id>/config");
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
        assert_eq!(platforms, BTreeSet::from(["binary_sensor", "button", "event", "lock", "sensor"]));
    }

    #[test]
    fn what_events_listen_to_is_never_retained() {
        let message = message();
        let events = message["components"].as_object().unwrap().values().filter(|component| component["platform"] == "event");
        let topics: BTreeSet<&str> = events.map(|event| event["state_topic"].as_str().unwrap()).collect();
        assert_eq!(topics, BTreeSet::from(["faceid/gate/alarm/+", "faceid/gate/door/front/decision"]));
    }
}
