//! What a device says of what it made and keeps: whose a backup is, which entry is the last of its audit trail, how old its gallery is; and what a
//! door says of a passage.

use serde::{Deserialize, Serialize};

use super::{GrantError, GrantKey, KeySet, MAX_TOKEN_BYTES, json, open};
use crate::types::{DeviceId, DoorId};

/// What a device says of the age of its gallery and of its decider's memory, so that whoever keeps it is a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochClaim {
    /// The device.
    pub iss: DeviceId,
    /// When it was said.
    pub iat: i64,
    /// Which gallery: its id in hexadecimal digits.
    pub gallery: String,
    /// The number of its last change.
    pub epoch: u64,
    /// Of which file that change was, and its tag in hexadecimal digits; absent where an older program said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<(u64, String)>,
    /// How far the decider's memory had come; a device of before did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// What a door's controller says became of a grant. Its key is the door's own, pinned by the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageClaim {
    /// The door.
    pub iss: DoorId,
    /// The device whose grant it was.
    pub aud: DeviceId,
    /// When the passage ended, or the time for it.
    pub iat: i64,
    /// From when on it is void.
    pub exp: i64,
    /// Its own id: a device takes it once.
    pub jti: String,
    /// The `jti` of the grant.
    pub grant: String,
    /// Whether the door was opened in time.
    pub passed: bool,
}

/// `typ` of a claim about a backup.
const BACKUP: &str = "faceid-backup+jwt";
/// `typ` of a claim about the audit trail's last entry.
const HEAD: &str = "faceid-audit+jwt";

/// What a device says of a backup that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupClaim {
    /// The device.
    pub iss: DeviceId,
    /// When it was made.
    pub iat: i64,
    /// SHA-256 of what is in it, in hexadecimal digits.
    pub digest: String,
}

/// What a device says of its audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadClaim {
    /// The device.
    pub iss: DeviceId,
    /// When it was said.
    pub iat: i64,
    /// The number of the last entry.
    pub n: u64,
    /// Its hash in hexadecimal digits.
    pub hash: String,
}

impl GrantKey {
    /// The compact JWS of a claim about a backup.
    pub fn sign_backup(&self, claim: &BackupClaim) -> String {
        self.sign_as(BACKUP, &json(claim))
    }

    /// The compact JWS of a claim about the audit trail.
    pub fn sign_head(&self, claim: &HeadClaim) -> String {
        self.sign_as(HEAD, &json(claim))
    }
}

/// A claim about a backup, once its signature is known to be good. Whether it is of this backup is the caller's to judge.
pub fn open_backup(token: &str, keys: &KeySet) -> Result<BackupClaim, GrantError> {
    let payload = open(token, keys, &[Some(BACKUP)], MAX_TOKEN_BYTES)?;
    serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("its claims are not ours"))
}

/// A claim about the audit trail, once its signature is known to be good. How old it is is the caller's to judge.
pub fn open_head(token: &str, keys: &KeySet) -> Result<HeadClaim, GrantError> {
    let payload = open(token, keys, &[Some(HEAD)], MAX_TOKEN_BYTES)?;
    serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed("its claims are not ours"))
}
