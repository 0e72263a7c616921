//! What is told to and of a person at a door besides the decision: what to do, and a sealed picture. Neither says who it is.

use serde::Serialize;

use crate::types::{CameraId, DoorId, Prompt, Side, Wall};

/// A picture of a decision, sealed to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// At which door.
    pub door: DoorId,
    /// Seen by which camera.
    pub camera: CameraId,
    /// On which track.
    pub track: u64,
    /// The picture, sealed; base64.
    pub sealed: String,
    /// When it was captured.
    pub at: Wall,
}

/// Whether a door is blocked, published retained when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorBlock {
    /// Which door.
    pub door: DoorId,
    /// Until when only clear matches pass, because faces failed.
    pub faces: Option<Wall>,
    /// Until when its reader's numbers count beside their owner's clear face alone, because numbers were nobody's.
    pub credentials: Option<Wall>,
    /// Since when.
    pub at: Wall,
}

/// How a door stands, published retained when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorAccess {
    /// Which door.
    pub door: DoorId,
    /// How its rules use it: `normal`, `locked-down`, `free` or `two-factor`.
    pub mode: &'static str,
    /// Whether a command has locked it down.
    pub locked_down: bool,
    /// Until when an operator holds it open.
    pub held_until: Option<Wall>,
    /// The last decision there since the start.
    pub last: Option<LastDecision>,
    /// Since when it is so.
    pub at: Wall,
}

/// A decision for a display: not of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDecision {
    /// The contract's word.
    pub outcome: &'static str,
    /// The contract's word.
    pub reason: &'static str,
    /// When.
    pub at: Wall,
}

/// The word that holds a door open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorHold {
    /// Which door.
    pub door: DoorId,
    /// The id of the operator's key.
    pub operator: String,
    /// Until when it is to be held open, as long as the word is renewed; none where that has ended.
    pub until: Option<Wall>,
    /// The signed word for the door's controller.
    pub grant: String,
    /// When it was said.
    pub at: Wall,
}

#[derive(Serialize)]
pub(super) struct DoorAccessBody<'a> {
    door: &'a DoorId,
    mode: &'static str,
    locked_down: bool,
    held_open_until: Option<String>,
    last: Option<LastBody>,
}

#[derive(Serialize)]
struct LastBody {
    outcome: &'static str,
    reason: &'static str,
    time: String,
}

pub(super) fn door_access(access: &DoorAccess) -> DoorAccessBody<'_> {
    let last = |last: &LastDecision| LastBody { outcome: last.outcome, reason: last.reason, time: last.at.rfc3339() };
    DoorAccessBody {
        door: &access.door,
        mode: access.mode,
        locked_down: access.locked_down,
        held_open_until: access.held_until.map(Wall::rfc3339),
        last: access.last.as_ref().map(last),
    }
}

#[derive(Serialize)]
pub(super) struct DoorHoldBody<'a> {
    door: &'a DoorId,
    operator: &'a str,
    until: Option<String>,
    grant: &'a str,
}

pub(super) fn door_hold(hold: &DoorHold) -> DoorHoldBody<'_> {
    DoorHoldBody { door: &hold.door, operator: &hold.operator, until: hold.until.map(Wall::rfc3339), grant: &hold.grant }
}

#[derive(Serialize)]
pub(super) struct DoorBlockBody<'a> {
    door: &'a DoorId,
    blocked: bool,
    until: Option<String>,
    reasons: Vec<BlockReason>,
}

#[derive(Serialize)]
struct BlockReason {
    reason: &'static str,
    until: String,
}

pub(super) fn door_block(block: &DoorBlock) -> DoorBlockBody<'_> {
    let all = [("failed-faces", block.faces), ("failed-credentials", block.credentials)];
    let reason = |(reason, until): (&'static str, Option<Wall>)| Some(BlockReason { reason, until: until?.rfc3339() });
    let until = block.faces.max(block.credentials);
    DoorBlockBody {
        door: &block.door,
        blocked: until.is_some(),
        until: until.map(Wall::rfc3339),
        reasons: all.into_iter().filter_map(reason).collect(),
    }
}

#[derive(Serialize)]
pub(super) struct SnapshotBody<'a> {
    door: &'a DoorId,
    camera: &'a CameraId,
    track: u64,
    content_type: &'static str,
    sealing: &'static str,
    sealed: &'a str,
}

pub(super) fn snapshot(snapshot: &Snapshot) -> SnapshotBody<'_> {
    SnapshotBody {
        door: &snapshot.door,
        camera: &snapshot.camera,
        track: snapshot.track,
        content_type: "image/jpeg",
        sealing: "x25519-hkdf-sha256-aes256gcm",
        sealed: &snapshot.sealed,
    }
}

#[derive(Serialize)]
pub(super) struct PromptBody<'a> {
    door: &'a DoorId,
    camera: &'a CameraId,
    track: u64,
    prompt: &'static str,
    until: String,
    timeout_ms: u64,
}

pub(super) fn prompt(prompt: &Prompt) -> PromptBody<'_> {
    let time = prompt.until.monotonic.since(prompt.asked_at.monotonic);
    PromptBody {
        door: &prompt.door,
        camera: &prompt.camera,
        track: prompt.track.0,
        prompt: match prompt.side {
            Side::Left => "turn-left",
            Side::Right => "turn-right",
        },
        until: prompt.until.wall.rfc3339(),
        timeout_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    }
}
