//! The device's keys as they are published: the current one and, during a rotation, the one before, which vouches for it.
//!
//! Each key says which keys there are, with a serial number that grows: the one before names both, the current one itself alone, so that
//! controllers which pin the one before and learnt another one from it forget that one once it is not named any more. The number is the
//! second in which it is said, or one more than the last one: no file keeps it, and a state that was lost takes nothing back.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::service::{DaemonError, GRANT_KEY};
use crate::access::grant::{GrantKey, KeySet};
use crate::publish::Event;
use crate::system::secret;
use crate::types::{DeviceId, Wall};

/// The name of the key before the current one among the secrets, there from `faceid keygen --rotate` to `--retire`.
pub const OLD_GRANT_KEY: &str = "grant-old.key";

/// How long an endorsement holds; it is signed anew every [`ENDORSE_EVERY`].
const ENDORSEMENT: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often the published set is made anew.
pub(super) const ENDORSE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The keys of this device.
pub struct KeyRing {
    device: DeviceId,
    current: GrantKey,
    old: Option<GrantKey>,
    serial: AtomicU64,
}

impl KeyRing {
    /// The current key's public half, and the old key if a rotation is under way.
    pub fn read(device: &DeviceId, secrets: &Path) -> Result<Self, DaemonError> {
        let key = read_grant_key(secrets)?;
        let old = secret::read_if_there(OLD_GRANT_KEY, secrets)?.map(|seed| GrantKey::from_seed(&seed)).transpose()?;
        Ok(Self { device: device.clone(), current: key, old, serial: AtomicU64::new(0) })
    }

    /// The public halves.
    pub fn public(&self) -> KeySet {
        KeySet::new(std::iter::once(self.current.public()).chain(self.old.as_ref().map(GrantKey::public)))
    }

    /// The retained message, with what each key says of which keys there are.
    pub(super) fn event(&self, now: Wall) -> Event {
        Event::Keys(self.published(now))
    }

    fn published(&self, now: Wall) -> String {
        let second = u64::try_from(now.unix_seconds()).unwrap_or(0).max(1);
        let before = self.serial.fetch_max(second, Ordering::Relaxed);
        let serial = if before < second { second } else { self.serial.fetch_add(1, Ordering::Relaxed).saturating_add(1) };
        let (keys, alone) = (self.public(), KeySet::new([self.current.public()]));
        let mut words = Vec::new();
        if let Some(old) = &self.old {
            words.push(old.endorse(&keys, &self.device, now, ENDORSEMENT, serial));
            // For controllers of before, which know no numbers.
            words.push(old.endorse_unnumbered(&keys, &self.device, now, ENDORSEMENT));
        }
        words.push(self.current.endorse(&alone, &self.device, now, ENDORSEMENT, serial));
        keys.published(words)
    }
}

/// Reads the grant-signing key.
pub fn read_grant_key(secrets: &Path) -> Result<GrantKey, DaemonError> {
    let bytes = secret::read(GRANT_KEY, secrets)?;
    Ok(GrantKey::from_seed(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEEWAY: Duration = Duration::from_secs(2);

    #[test]
    fn the_keys_that_are_published_vouch_for_each_other_and_take_back_what_is_gone() {
        let device = DeviceId::new("gate").unwrap();
        let ring = |current: u8, old: Option<u8>| KeyRing {
            device: device.clone(),
            current: GrantKey::from_seed(&[current; 32]).unwrap(),
            old: old.map(|seed| GrantKey::from_seed(&[seed; 32]).unwrap()),
            serial: AtomicU64::new(0),
        };
        let public = |seed: u8| GrantKey::from_seed(&[seed; 32]).unwrap().public();
        let learn = |pinned: u8, published: &str, now: Wall| {
            let learnt = KeySet::new([public(pinned)]).learn(published, &device, now, LEEWAY).unwrap().unwrap();
            (learnt.serial, learnt.keys.kids().map(str::to_owned).collect::<Vec<_>>())
        };
        let now = Wall(1_700_000_000_000);
        let rotating = ring(2, Some(1));
        let published = rotating.published(now);
        assert_eq!(learn(1, &published, now), (1_700_000_000, vec![public(2).kid().to_owned()]));
        assert_eq!(learn(2, &published, now), (1_700_000_000, vec![]), "who pins the new key learns no old one");
        assert_eq!(learn(1, &rotating.published(now), now).0, 1_700_000_001, "each word has a number of its own");
        // The new key is given up: the one before is the only one again, and says so.
        let later = Wall(now.0 + 10_000);
        assert_eq!(learn(1, &ring(1, None).published(later), later), (1_700_000_010, vec![]));
        assert!(ring(1, None).published(Wall(i64::MIN)).contains("endorsements"), "a clock that was lost is no panic");
    }
}
