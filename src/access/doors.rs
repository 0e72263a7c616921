//! The doors, as the config names them: each with the cameras that watch its approach, and what it asks of a face besides the pictures.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{CameraId, DoorId, WitnessKind};

/// One door and the cameras that watch its approach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DoorSettings {
    /// The door's id: the audience of its grants.
    pub id: DoorId,
    /// The cameras whose decisions are about this door.
    pub cameras: Vec<CameraId>,
    /// The keys of the door's controller, a JWK set in a file that only the operator can change; `faceid keygen --door` makes one. Without
    /// it nothing is believed that the controller says of passages, and each grant counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_keys: Option<PathBuf>,
    /// Whether a sensor tells the door's controller that it is open: Home Assistant is shown an opening only then. Where [controller] of this
    /// config drives the door, its `sensor-line` says so.
    #[serde(default)]
    pub has_sensor: bool,
    /// What is asked for besides the pictures of these cameras. It can only deny.
    #[serde(default)]
    pub liveness: DoorLiveness,
}

/// What a door asks for before a face that is live and known may open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DoorLiveness {
    /// What the person must do: `off`, or `turn` the head to a side that is chosen at random and published on `door/<door>/prompt`.
    pub challenge: ChallengeKind,
    /// Within how many milliseconds after the prompt (1000 to 30000).
    pub challenge_timeout_ms: u64,
    /// By how many degrees, from where the face looked when it was asked (10 to 35).
    pub turn_degrees: u32,
    /// Whether a second face in view that is at least half as tall keeps the door shut (`several-faces`). Off, several people may come up
    /// together and each is judged alone; on, a picture that is held beside or before a living head opens nothing as long as both are seen.
    pub one_face: bool,
    /// A second camera that must see the same face.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessSettings>,
}

/// What a person must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengeKind {
    /// Nothing.
    #[default]
    Off,
    /// Turn the head.
    Turn,
}

/// A second camera that must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WitnessSettings {
    /// Which of the cameras; it stands beside the door's own, looks the same way, and is no door's camera itself.
    pub camera: CameraId,
    /// `infrared` or `depth`.
    pub kind: WitnessKind,
    /// How far apart the two cameras may see a face, in percent of the picture's width and height (1 to 50).
    #[serde(default = "tolerance")]
    pub tolerance_percent: u32,
}

fn tolerance() -> u32 {
    15
}

impl Default for DoorLiveness {
    fn default() -> Self {
        Self { challenge: ChallengeKind::Off, challenge_timeout_ms: 6000, turn_degrees: 15, one_face: false, witness: None }
    }
}

impl DoorSettings {
    /// A door that asks for nothing besides the pictures of these cameras.
    pub fn new(id: DoorId, cameras: Vec<CameraId>) -> Self {
        Self { id, cameras, controller_keys: None, has_sensor: false, liveness: DoorLiveness::default() }
    }

    /// Values out of range, each with its key and the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        if self.cameras.is_empty() {
            let text = format!("door `{}` has no camera and would never open: name one", self.id);
            findings.push(("cameras".to_owned(), text));
        }
        if self.controller_keys.as_ref().is_some_and(|path| !path.is_absolute()) {
            findings.push(("controller-keys".to_owned(), "must be an absolute path".to_owned()));
        }
        let liveness = &self.liveness;
        let tolerance = liveness.witness.as_ref().map_or(1, |witness| witness.tolerance_percent);
        for (key, value, low, high) in [
            ("challenge-timeout-ms", liveness.challenge_timeout_ms, 1000, 30_000),
            ("turn-degrees", liveness.turn_degrees.into(), 10, 35),
            ("witness.tolerance-percent", tolerance.into(), 1, 50),
        ] {
            if !(low..=high).contains(&value) {
                findings.push((format!("liveness.{key}"), format!("{value} is out of range: use {low} to {high}")));
            }
        }
        findings
    }
}
