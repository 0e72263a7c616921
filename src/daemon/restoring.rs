//! Whose a backup is, and whether it may be put back. That it opens says nothing: whoever knows the public key that it is sealed to can make
//! one. The command line asks here, and so does the daemon for whoever brings it a backup through its socket.

use std::collections::VecDeque;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::access::grant::{self, GrantError, KeySet};
use crate::gallery::Backup;
use crate::gallery::format::{MAX_PEOPLE, MAX_TEMPLATES};
use crate::types::DeviceId;

/// The exit code of a backup that is not believed, after sysexits.h.
pub const NOT_BELIEVED: u8 = 77;
/// Beside the templates: what a record of a person may take, and what stands around all of them.
const PERSON_BYTES: u64 = 2048;

/// Which backups are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Those that the device's own keys signed, or a key of these JWK sets.
    Signed {
        /// More keys than the device's own.
        more: Vec<String>,
    },
    /// All, because an operator says so.
    Anything,
}

/// Whose a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This device's, by the word of a key that is believed.
    Signed(DeviceId),
    /// Nobody can tell, and an operator said that this does not matter.
    Unknown,
}

/// Why a backup is not put back; nothing was changed.
#[derive(Debug, Error)]
pub enum Distrust {
    /// Nobody signed it.
    #[error(
        "the backup is not signed, so anybody who knows the public key that it is sealed to may have made it: put it back with --unsigned \
         only if you know where it has been since you made it"
    )]
    NotSigned,
    /// Nobody who is believed.
    #[error(
        "the backup is not signed by this device ({0}): if it is another device's, or of a key that was retired, give the keys that device \
         published with --keys; --unsigned puts it back whoever made it"
    )]
    Foreign(GrantError),
    /// The signature is of another backup.
    #[error("the backup is not what its signature is about: somebody changed it")]
    Altered,
    /// What should be a key set is none.
    #[error("the keys to believe besides the device's own: {0}")]
    Keys(GrantError),
}

/// Whose `backup` is; refused when that is nobody who is believed. `own` are the device's keys.
pub fn judge(backup: &Backup, own: &KeySet, trust: &Trust) -> Result<Origin, Distrust> {
    let signed = signed(backup, own, trust);
    match (signed, trust) {
        (Ok(device), _) => Ok(Origin::Signed(device)),
        (Err(_), Trust::Anything) => Ok(Origin::Unknown),
        (Err(error), Trust::Signed { .. }) => Err(error),
    }
}

fn signed(backup: &Backup, own: &KeySet, trust: &Trust) -> Result<DeviceId, Distrust> {
    let token = backup.signature().ok_or(Distrust::NotSigned)?;
    let mut keys = own.clone();
    if let Trust::Signed { more } = trust {
        for set in more {
            keys = keys.with(&KeySet::from_jwk_set(set).map_err(Distrust::Keys)?);
        }
    }
    let claim = grant::open_backup(token, &keys).map_err(Distrust::Foreign)?;
    if claim.digest != hex(backup.digest()) {
        return Err(Distrust::Altered);
    }
    Ok(claim.iss)
}

/// A digest as it stands in a claim.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parts of a backup's text as they came, read once, from the first on; each is cleared as soon as it was read.
#[derive(Default)]
pub(super) struct Text {
    parts: VecDeque<Zeroizing<Vec<u8>>>,
    at: usize,
    bytes: u64,
}

impl Text {
    /// Takes the next part; false when a backup of a gallery of this dimension cannot be so long.
    pub(super) fn push(&mut self, part: Zeroizing<Vec<u8>>, dimension: usize) -> bool {
        let longest = MAX_TEMPLATES as u64 * 4 * dimension as u64 + MAX_PEOPLE as u64 * PERSON_BYTES;
        self.bytes = self.bytes.saturating_add(part.len() as u64);
        if self.bytes > longest {
            self.parts.clear();
            return false;
        }
        if !part.is_empty() {
            self.parts.push_back(part);
        }
        true
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.parts.front() else { return Ok(0) };
        let rest = &part[self.at..];
        let taken = rest.len().min(out.len());
        out[..taken].copy_from_slice(&rest[..taken]);
        self.at += taken;
        if self.at == part.len() {
            self.parts.pop_front();
            self.at = 0;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::grant::{BackupClaim, GrantKey};
    use crate::gallery::{Signer, fuzzing};
    use crate::types::Wall;

    fn backup_by(sign: Option<Signer<'_>>) -> Backup {
        Backup::read(&mut &fuzzing::backup_text(sign)[..]).ok().unwrap()
    }

    fn claim(digest: &[u8]) -> BackupClaim {
        BackupClaim { iss: DeviceId::new("gate").unwrap(), iat: Wall(0).unix_seconds(), digest: hex(digest) }
    }

    #[test]
    fn what_nobody_signed_or_nobody_who_is_believed_is_put_back_by_an_operators_word_alone() {
        let (ours, other) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let own = KeySet::new([ours.public()]);
        let strictly = Trust::Signed { more: Vec::new() };
        let unsigned = backup_by(None);
        let foreign = backup_by(Some(&|digest| other.sign_backup(&claim(digest))));
        let altered = backup_by(Some(&|_| ours.sign_backup(&claim(&[7; 32]))));
        let passage = backup_by(Some(&|_| ours.sign_passage_text("{}")));
        assert!(matches!(judge(&unsigned, &own, &strictly), Err(Distrust::NotSigned)));
        assert!(matches!(judge(&foreign, &own, &strictly), Err(Distrust::Foreign(GrantError::UnknownKey))));
        assert!(matches!(judge(&altered, &own, &strictly), Err(Distrust::Altered)));
        assert!(matches!(judge(&passage, &own, &strictly), Err(Distrust::Foreign(_))), "another kind of word of ours");
        for backup in [&unsigned, &foreign, &altered, &passage] {
            assert_eq!(judge(backup, &own, &Trust::Anything).ok(), Some(Origin::Unknown));
        }
        let signed = backup_by(Some(&|digest| ours.sign_backup(&claim(digest))));
        let gate = || Some(Origin::Signed(DeviceId::new("gate").unwrap()));
        assert_eq!(judge(&signed, &own, &strictly).ok(), gate());
        assert_eq!(judge(&signed, &own, &Trust::Anything).ok(), gate());
        let theirs = Trust::Signed { more: vec![KeySet::new([other.public()]).to_jwk_set()] };
        assert_eq!(judge(&foreign, &own, &theirs).ok(), gate());
        let nonsense = Trust::Signed { more: vec!["{}".to_owned()] };
        assert!(matches!(judge(&foreign, &own, &nonsense), Err(Distrust::Keys(_))));
    }

    #[test]
    fn a_text_that_comes_in_parts_is_read_as_one_and_is_bounded() {
        let whole = fuzzing::backup_text(None);
        for size in [1, 7, 100, whole.len()] {
            let mut text = Text::default();
            whole.chunks(size).for_each(|part| assert!(text.push(Zeroizing::new(part.to_vec()), 2)));
            assert!(text.push(Zeroizing::default(), 2));
            assert_eq!(Backup::read(&mut text).ok().unwrap().text().flat_map(|part| part.to_vec()).collect::<Vec<_>>(), whole);
        }
        let mut text = Text { bytes: u64::MAX, ..Text::default() };
        assert!(!text.push(Zeroizing::new(vec![0]), 2) && text.parts.is_empty());
    }
}
