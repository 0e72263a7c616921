//! What the decider is told besides what cameras see.

use thiserror::Error;

use super::policy::CredentialNumber;
use super::rules::Clock;
use crate::types::{BoundingBox, CameraId, DoorId, Factor, Moment, PersonId, Sighting, TrackId};

/// Something that changes what will be decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An operator's order. Whether it may be given (its signature, its time, whether it was seen before) is judged by who brings it.
    Command(Command),
    /// A reader read a credential.
    Credential(CredentialRead),
    /// The clock became reliable, or ceased to be.
    Clock(Clock),
    /// A track has ended, and where its face was last.
    TrackEnded(CameraId, TrackId, BoundingBox),
    /// A second camera, which must agree, looked.
    Sighting(Sighting),
    /// A door's controller says what became of a grant.
    Passage(Passage),
    /// Whoever may know of a later state than this device's has been heard. What was seen before this moment was judged without.
    Vouched,
}

/// Whether a door was opened for a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Which door.
    pub door: DoorId,
    /// Which grant.
    pub jti: String,
    /// Whether it was opened in time.
    pub passed: bool,
}

/// An operator's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Opens nothing any more: this door, or every door.
    Lockdown {
        /// Which door; none for all.
        door: Option<DoorId>,
    },
    /// Ends a lock-down that was commanded, and forgets failed attempts and the blocks that they brought; a door that the policy locks
    /// down stays shut.
    Release {
        /// Which door; none for all.
        door: Option<DoorId>,
    },
    /// Forgets in which areas somebody is, or everybody.
    Forgive {
        /// Who; none for everybody.
        person: Option<PersonId>,
    },
}

/// A card or a number, read at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRead {
    /// At which door.
    pub door: DoorId,
    /// What it is.
    pub kind: Factor,
    /// What was told.
    pub credential: Credential,
    /// When it was read.
    pub at: Moment,
}

/// What a reader tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A number, whose person the policy knows.
    Number(CredentialNumber),
    /// A person: the reader or its panel has looked the number up.
    Person(PersonId),
}

/// Why an input changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputError {
    /// No such door.
    #[error("there is no door `{0}` here")]
    UnknownDoor(DoorId),
    /// Nobody's card or number; it counts as a failed attempt.
    #[error("the credential that was read at door `{0}` is nobody's")]
    UnknownCredential(DoorId),
    /// A face is no credential.
    #[error("what was read at door `{0}` is neither a card nor a number")]
    NoCredential(DoorId),
}

/// A credential that waits for its face.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Whose it is; none for nobody's, while the reader is blocked.
    pub(super) person: Option<PersonId>,
    pub(super) kind: Factor,
    /// Whether it was read while the reader was blocked.
    pub(super) in_block: bool,
    /// How many that were nobody's came right before it meanwhile.
    pub(super) wrong: u32,
    /// On the decider's clock.
    pub(super) at: super::state::Ms,
}
