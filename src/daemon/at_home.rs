//! What Home Assistant is told of this device, and what is taken back: cameras and doors that the config names no longer, and everything
//! where it is switched off. What was told is remembered in the state folder, because the broker keeps it over our restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::publish::discovery::{self, Site};
use crate::publish::{Discovery, Event};
use crate::system::files;
use crate::types::{CameraId, DoorId};

/// The file in the state folder.
const FILE: &str = "told.json";
/// The longest one that is read, in bytes: hundreds of cameras and doors.
const MAX_BYTES: u64 = 256 * 1024;
/// The most components that are gone and named still; those beyond are forgotten.
const MAX_GONE: usize = 256;

/// What the broker keeps of an earlier start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    /// What the topics began with.
    root: String,
    cameras: BTreeSet<CameraId>,
    doors: BTreeSet<DoorId>,
    /// The topic of the discovery message; none where Home Assistant was not told.
    discovery: Option<String>,
    /// Its components' platforms, those that were gone by then among them.
    components: BTreeMap<String, String>,
}

impl Told {
    fn read(folder: &Path) -> Self {
        match files::read(&folder.join(FILE), MAX_BYTES) {
            Ok(Some(text)) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                log::warn!("{FILE} is damaged, so what the broker keeps of cameras and doors that are gone stays there: {error}");
                Self::default()
            }),
            Ok(None) => Self::default(),
            Err(error) => {
                log::warn!("{FILE} cannot be read: {error}");
                Self::default()
            }
        }
    }

    fn keep(&self, folder: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = files::replace(&folder.join(FILE), &folder.join(format!("{FILE}.new")), &text) {
            log::warn!("{FILE} cannot be written, so what is renamed later stays at the broker: {error}");
        }
    }
}

/// What is published at a start, the folder's memory brought up to date.
pub(super) fn events(config: &Config) -> Vec<Event> {
    let before = Told::read(&config.state_dir);
    let (events, now) = compare(config, &before);
    if now != before {
        now.keep(&config.state_dir);
    }
    events
}

/// An empty retained message: the broker forgets the topic.
fn cleared(topic: String) -> Event {
    Event::Discovery(Box::new(Discovery { topic, payload: String::new() }))
}

fn compare(config: &Config, before: &Told) -> (Vec<Event>, Told) {
    let root = config.publish.topic_root(&config.device);
    let cameras: Vec<CameraId> = config.cameras.iter().map(|camera| camera.id.clone()).collect();
    let local = |door: &DoorId| config.controller.door.as_ref() == Some(door) && config.controller.gpio.sensor_line.is_some();
    let doors: Vec<(DoorId, bool)> =
        config.doors.iter().map(|door| (door.id.clone(), door.has_sensor || local(&door.id))).collect();
    let site = Site { device: &config.device, root: &root, version: env!("CARGO_PKG_VERSION"), cameras: &cameras, doors: &doors };
    let mut now = Told {
        root: root.clone(),
        cameras: cameras.iter().cloned().collect(),
        doors: doors.iter().map(|(door, _)| door.clone()).collect(),
        ..Told::default()
    };
    let mut events = Vec::new();
    // Under another root it may be another device's by now.
    if before.root == root {
        for camera in before.cameras.difference(&now.cameras) {
            events.extend(["status", "presence"].map(|what| cleared(format!("{root}/camera/{camera}/{what}"))));
        }
        for door in before.doors.difference(&now.doors) {
            events.extend(["throttle", "access", "state", "panel"].map(|what| cleared(format!("{root}/door/{door}/{what}"))));
        }
    }
    if config.publish.home_assistant {
        let topic = discovery::topic(&config.publish.home_assistant_prefix, &config.device);
        let is_same = before.discovery.as_ref() == Some(&topic);
        let mut components = discovery::platforms(&site);
        let gone = before.components.iter().filter(|(name, _)| is_same && !components.contains_key(*name));
        let gone: BTreeMap<_, _> = gone.take(MAX_GONE).map(|(name, platform)| (name.clone(), platform.clone())).collect();
        let payload = discovery::payload(&site, &gone);
        components.extend(gone);
        now.components = components;
        now.discovery = Some(topic);
        events.push(Event::Discovery(Box::new(Discovery { topic: now.discovery.clone().unwrap_or_default(), payload })));
    }
    // First: Home Assistant removes the device of the old topic before the new one names it.
    if let Some(old) = before.discovery.as_ref().filter(|old| now.discovery.as_ref() != Some(old)) {
        events.insert(0, cleared(old.clone()));
    }
    (events, now)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn config(camera: &str, door: &str, more: &str) -> Config {
        let text = format!(
            "device = \"gate\"\n[publish]\n{more}\n[[cameras]]\nid = \"{camera}\"\n[cameras.source.rtsp]\nurl = \"rtsp://192.0.2.1/a\"\n\
             [[doors]]\nid = \"{door}\"\ncameras = [\"{camera}\"]\n"
        );
        Config::parse(&text).unwrap()
    }

    /// Each message's topic, and what it says; nothing for one that clears.
    fn said(events: &[Event]) -> Vec<(String, Option<Value>)> {
        let said = |event: &Event| {
            let Event::Discovery(discovery) = event else { unreachable!() };
            (discovery.topic.clone(), serde_json::from_str(&discovery.payload).ok())
        };
        events.iter().map(said).collect()
    }

    #[test]
    fn what_is_renamed_is_taken_back_from_the_broker_and_from_home_assistant() {
        let folder = tempfile::tempdir().unwrap();
        let start = |config: Config| said(&events(&Config { state_dir: folder.path().to_owned(), ..config }));
        let first = start(config("porch", "front", ""));
        assert_eq!(first.len(), 1, "nothing was told before: {first:?}");
        assert_eq!(start(config("porch", "front", "")), first, "and nothing changes");
        let renamed = start(config("yard", "back", ""));
        let cleared: Vec<&str> = renamed.iter().filter(|(_, said)| said.is_none()).map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(
            cleared,
            [
                "faceid/gate/camera/porch/status",
                "faceid/gate/camera/porch/presence",
                "faceid/gate/door/front/throttle",
                "faceid/gate/door/front/access",
                "faceid/gate/door/front/state",
                "faceid/gate/door/front/panel"
            ]
        );
        let components = &renamed.last().unwrap().1.as_ref().unwrap()["components"];
        assert_eq!(components["faces_porch"], serde_json::json!({"platform": "sensor"}), "Home Assistant removes it");
        assert_eq!(components["locked_front"], serde_json::json!({"platform": "binary_sensor"}));
        assert!(components["faces_yard"]["state_topic"].is_string());
        // Home Assistant may be away at that start: it is told again, and a name that comes back is there again.
        let again = start(config("yard", "back", ""));
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].1.as_ref().unwrap()["components"]["faces_porch"], serde_json::json!({"platform": "sensor"}));
        let back = start(config("porch", "back", ""));
        assert!(back.last().unwrap().1.as_ref().unwrap()["components"]["faces_porch"]["state_topic"].is_string());
    }

    #[test]
    fn what_is_switched_off_or_moved_leaves_its_old_topic() {
        let folder = tempfile::tempdir().unwrap();
        let start = |more: &str| said(&events(&Config { state_dir: folder.path().to_owned(), ..config("porch", "front", more) }));
        let topics = |said: &[(String, Option<Value>)]| -> Vec<(String, bool)> {
            said.iter().map(|(topic, said)| (topic.clone(), said.is_some())).collect()
        };
        let old = "homeassistant/device/gate/config".to_owned();
        assert_eq!(topics(&start("")), [(old.clone(), true)]);
        let moved = topics(&start("home-assistant-prefix = \"ha\""));
        assert_eq!(moved, [(old, false), ("ha/device/gate/config".to_owned(), true)]);
        assert_eq!(topics(&start("home-assistant = false")), [("ha/device/gate/config".to_owned(), false)]);
        assert_eq!(topics(&start("home-assistant = false")), [], "once");
    }

    #[test]
    fn a_damaged_memory_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"root\": 7").unwrap();
        let config = Config { state_dir: folder.path().to_owned(), ..config("porch", "front", "") };
        assert_eq!(events(&config).len(), 1);
        assert_eq!(Told::read(folder.path()).root, "faceid/gate");
    }

    #[test]
    fn an_opening_is_shown_only_where_a_sensor_tells() {
        let (events, _) = compare(&config("porch", "front", ""), &Told::default());
        let first = said(&events);
        assert!(first[0].1.as_ref().unwrap()["components"]["opening_front"].is_null());
        let mut with = config("porch", "front", "");
        with.doors[0].has_sensor = true;
        let (events, _) = compare(&with, &Told::default());
        assert!(said(&events)[0].1.as_ref().unwrap()["components"]["opening_front"].is_object());
    }
}
