//! Home Assistant's device-based MQTT discovery: one retained message that names every entity of this device. Pure.
//!
//! Field names are Home Assistant's full ones (its abbreviations save bytes and cost readers). The lock entity shows what the door's
//! controller tells; its `command_topic`, which the schema demands, is `cmd/release`, where an unsigned word changes nothing and is
//! audited: Home Assistant cannot open a door. The button pings, which is the one thing that needs no signature.

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
                "optimistic": false, "qos": 1,
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
        "qos": 1,
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
    let kinds = [
        AlarmKind::Spoof,
        AlarmKind::ForcedOpen,
        AlarmKind::HeldOpen,
        AlarmKind::Tamper,
        AlarmKind::GalleryRollback,
        AlarmKind::GalleryReadOnly,
        AlarmKind::OutboxFull,
    ];
    json!({
        "name": "Alarm", "state_topic": format!("{root}/alarm/+"), "event_types": kinds.map(AlarmKind::as_str),
        "value_template": "{{ {'event_type': value_json.kind, 'door': value_json.door, 'detail': value_json.detail} | tojson }}",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What Home Assistant's documentation of each MQTT platform has: fields that are required, and others that we may use.
    fn schema(platform: &str) -> (&'static [&'static str], &'static [&'static str]) {
        match platform {
            "event" => (&["state_topic", "event_types"], &["device_class", "value_template", "qos", "json_attributes_topic"]),
            "binary_sensor" => {
                (&["state_topic"], &["device_class", "value_template", "payload_on", "payload_off", "expire_after", "qos"])
            }
            "sensor" => {
                (&["state_topic"], &["device_class", "value_template", "state_class", "options", "unit_of_measurement", "qos"])
            }
            "lock" => (
                &["command_topic"],
                &[
                    "state_topic",
                    "value_template",
                    "state_locked",
                    "state_unlocked",
                    "state_jammed",
                    "state_open",
                    "optimistic",
                    "payload_lock",
                    "payload_unlock",
                    "qos",
                    "retain",
                ],
            ),
            "button" => (&["command_topic"], &["device_class", "payload_press", "retain", "qos"]),
            other => panic!("{other} is no platform of ours"),
        }
    }

    #[test]
    fn every_component_has_what_its_platform_demands_and_nothing_that_it_does_not_know() {
        let (camera, door) = (CameraId::new("porch").unwrap(), DoorId::new("front").unwrap());
        let text = payload(&DeviceId::new("gate").unwrap(), "faceid/gate", "0.1.0", &[camera], &[door]);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["device"]["identifiers"].is_array() && value["origin"]["name"].is_string(), "both are required");
        let top: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(top, BTreeSet::from(["device", "origin", "availability", "qos", "components"]));
        let mut ids = BTreeSet::new();
        let mut platforms = BTreeSet::new();
        for (name, component) in value["components"].as_object().unwrap() {
            let fields = component.as_object().unwrap();
            let platform = fields["platform"].as_str().unwrap();
            platforms.insert(platform.to_owned());
            assert!(ids.insert(fields["unique_id"].as_str().unwrap().to_owned()), "{name}");
            let (required, optional) = schema(platform);
            for field in required {
                assert!(fields.contains_key(*field), "{name} lacks {field}");
            }
            let common = ["platform", "unique_id", "name", "entity_category"];
            for field in fields.keys() {
                let known = [&common[..], required, optional].iter().any(|list| list.contains(&field.as_str()));
                assert!(known, "{name}: {platform} has no field {field}");
            }
            assert!(fields.get("retain").is_none_or(|retain| retain == false), "{name}: events are not retained");
        }
        assert_eq!(platforms, ["binary_sensor", "button", "event", "lock", "sensor"].map(str::to_owned).into());
    }
}
