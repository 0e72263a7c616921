//! What liveness asks for besides the pictures of a door's own cameras: what a person is asked to do, and what a second camera saw.

use serde::{Deserialize, Serialize};

use super::{CameraId, DoorId, Moment, Place, TrackId};

/// The side to which a person turns the head: the person's own left or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The person's left, which a camera that does not mirror sees on the image's right.
    Left,
    /// The person's right.
    Right,
}

/// What a person at a door is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// At which door.
    pub door: DoorId,
    /// Which camera looks.
    pub camera: CameraId,
    /// Who: the track.
    pub track: TrackId,
    /// Turn the head to this side.
    pub side: Side,
    /// Only what is captured after this moment counts.
    pub asked_at: Moment,
    /// And not after this one.
    pub until: Moment,
}

/// What kind of camera must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessKind {
    /// A near-infrared camera: a face must be found in its picture too. Screens are dark there.
    Infrared,
    /// A depth camera (16 bits a pixel, in millimetres), registered to the door's camera: the face must not be flat.
    Depth,
}

/// What a second camera saw in one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Which camera.
    pub camera: CameraId,
    /// When the frame was captured.
    pub captured_at: Moment,
    /// The living faces in it, as far as this camera can tell; none is a statement too.
    pub faces: Vec<Place>,
}
