//! The device's keys as they are published: the current one and, during a rotation, the one before, which vouches for it.

use std::path::Path;
use std::time::Duration;

use super::service::{DaemonError, GRANT_KEY};
use crate::access::grant::{GrantKey, KeySet, PublicKey};
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
    current: PublicKey,
    old: Option<GrantKey>,
}

impl KeyRing {
    /// The current key's public half, and the old key if a rotation is under way.
    pub fn read(device: &DeviceId, secrets: &Path) -> Result<Self, DaemonError> {
        let key = read_grant_key(secrets)?;
        let old = secret::read_if_there(OLD_GRANT_KEY, secrets)?.map(|seed| GrantKey::from_seed(&seed)).transpose()?;
        Ok(Self { device: device.clone(), current: key.public(), old })
    }

    /// The public halves.
    pub fn public(&self) -> KeySet {
        KeySet::new(std::iter::once(self.current.clone()).chain(self.old.as_ref().map(GrantKey::public)))
    }

    /// The retained message, with the old key's word for the current one.
    pub(super) fn event(&self, now: Wall) -> Event {
        let keys = self.public();
        let words = self.old.iter().map(|old| old.endorse(&keys, &self.device, now, ENDORSEMENT)).collect();
        Event::Keys(keys.published(words))
    }
}

/// Reads the grant-signing key.
pub fn read_grant_key(secrets: &Path) -> Result<GrantKey, DaemonError> {
    let bytes = secret::read(GRANT_KEY, secrets)?;
    Ok(GrantKey::from_seed(&bytes)?)
}
