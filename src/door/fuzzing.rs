//! What the fuzz target `endorsements` feeds (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at
//! all and panics when a promise is broken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Admission, ClockTerms};
use crate::access::grant::{Claims, GrantKey, KeySet};
use crate::publish::Received;
use crate::types::{DeviceId, DoorId, Moment, Monotonic, PersonId, Wall};

const NOW: Moment = Moment { monotonic: Monotonic(1_000_000_000_000), wall: Wall(1_700_000_000_000) };
const LEEWAY: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A door that hears what is published of a device's keys.
pub struct Listener {
    folder: PathBuf,
    device: DeviceId,
    /// Pinned.
    key: GrantKey,
    next: GrantKey,
    thief: GrantKey,
}

impl Listener {
    /// Its memory is in `folder`.
    pub fn new(folder: &Path) -> Self {
        let key = |seed: u8| GrantKey::from_seed(&[seed; 32]).expect("32 bytes are a seed");
        let device = DeviceId::new("gate").expect("a plain name");
        Self { folder: folder.to_owned(), device, key: key(7), next: key(8), thief: key(9) }
    }

    fn start(&self) -> Admission {
        let door = DoorId::new("front").expect("a plain name");
        let pinned = KeySet::new([self.key.public()]);
        let path = self.folder.join("front.seen");
        let clock = ClockTerms { leeway: LEEWAY, needs_source: false };
        // It has stood there for a while: what was signed before its first start opens nothing.
        let before = Moment { monotonic: Monotonic(NOW.monotonic.0 - 100_000_000_000), wall: Wall(NOW.wall.0 - 100_000) };
        let memory = (path.as_path(), !path.exists());
        Admission::new(self.device.clone(), door, pinned, clock, memory, before).expect("the folder is ours")
    }

    fn opens(&self, door: &mut Admission, key: &GrantKey) -> bool {
        let iat = NOW.wall.unix_seconds();
        let jti = uuid::Uuid::new_v4().simple().to_string();
        let (iss, aud) = (self.device.clone(), DoorId::new("front").expect("a plain name"));
        let sub = PersonId::new("p0").expect("a plain name");
        let grant = key.sign(&Claims { iss, aud, sub, iat, nbf: iat, exp: iat + 5, jti, hold_s: None });
        let payload = format!(r#"{{"data":{{"grant":"{grant}"}}}}"#).into_bytes();
        door.admit(&Received { payload, ..Received::default() }, NOW).is_ok()
    }

    /// A set whose endorsements may be anything: what no pinned key signed teaches nothing, and what one signed is judged whatever it
    /// says; a key that was taken back with a higher number is not learnt again, after a restart either.
    pub fn endorsements(&self, bytes: &[u8]) {
        let _ = std::fs::remove_dir_all(&self.folder);
        let mut door = self.start();
        let text = String::from_utf8_lossy(bytes);
        // Nothing of it is signed by a pinned key, as it came and signed by another.
        assert!(!door.learn(bytes, NOW).is_ok_and(|learnt| !learnt.is_empty()));
        let stolen = KeySet::new([self.thief.public()]);
        let by_thief = stolen.published(vec![self.thief.sign_endorsement_text(&text), text.clone().into_owned()]);
        assert!(!door.learn(by_thief.as_bytes(), NOW).is_ok_and(|learnt| !learnt.is_empty()));
        assert!(!self.opens(&mut door, &self.thief) && self.opens(&mut door, &self.key));
        let (alone, both) = (KeySet::new([self.key.public()]), KeySet::new([self.next.public(), self.key.public()]));
        let with = both.published(vec![self.key.endorse(&both, &self.device, NOW.wall, DAY, 5)]);
        assert!(door.learn(with.as_bytes(), NOW).is_ok() && self.opens(&mut door, &self.next));
        let without = self.key.endorse(&alone, &self.device, NOW.wall, DAY, u64::MAX);
        // Beside whatever the pinned key may have signed: it has the highest number there is.
        let beside = alone.published(vec![self.key.sign_endorsement_text(&text), without.clone(), text.into_owned()]);
        let _ = door.learn(beside.as_bytes(), NOW);
        assert!(door.learn(alone.published(vec![without]).as_bytes(), NOW).is_ok() && !self.opens(&mut door, &self.next));
        for mut door in [door, self.start()] {
            assert!(door.learn(with.as_bytes(), NOW).is_err() && !self.opens(&mut door, &self.next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_endorsements_breaks_no_promise() {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::new(&folder.path().join("door"));
        let iat = NOW.wall.unix_seconds();
        let thief = KeySet::new([listener.thief.public()]).to_jwk_set();
        let keys = thief.trim_start_matches(r#"{"keys":"#).trim_end_matches('}');
        let said = |serial: &str| format!(r#"{{"iss":"gate","iat":{iat},"exp":{},"keys":{keys}{serial}}}"#, iat + 60);
        let (plain, numbered) = (said(""), said(r#","serial":9"#));
        let seeds: [&[u8]; 4] = [plain.as_bytes(), numbered.as_bytes(), thief.as_bytes(), b"{}"];
        walk("endorsements", &seeds, 400, |bytes| listener.endorsements(bytes));
    }
}
