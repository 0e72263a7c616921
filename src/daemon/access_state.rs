//! What the decider remembers beyond one run, in a file of the state folder: sealed under the state key, written whole beside the old one
//! and renamed over it before a decision that it is about is published, so that neither a crash nor a power cut makes the door forget a
//! block, a place or a lock-down, and nobody else can write one. A file that is absent where the device has run before, and one that was
//! not sealed here, are a lost memory: every door is locked down and an alarm is raised. An old file that is put back whole is not told
//! from the newest one: whoever can write in the state folder can bring back a lock-down or lift one that way, and is seen in nothing but
//! the audit trail's commands.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::access::State;
use crate::publish::StateKey;

/// The file's name in the state folder.
const FILE: &str = "access.sealed";
/// What it is sealed for.
const PURPOSE: &str = "access";

/// The longest state that is read, in bytes: far more than every person in an area makes.
const MAX_BYTES: u64 = 32 << 20;

/// The file, its folder and its key.
pub(super) struct AccessState {
    folder: PathBuf,
    key: StateKey,
}

/// What was found at the start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The device has never run: nothing is remembered.
    Nothing,
    /// What the run before kept.
    State(State),
    /// It was there and is not, or not as it was written. Why.
    Lost(String),
}

impl AccessState {
    pub(super) fn new(folder: &Path, key: StateKey) -> Self {
        Self { folder: folder.to_owned(), key }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What an earlier run kept. `has_run` says whether there was one.
    pub(super) fn load(&self, has_run: bool) -> Kept {
        match self.read() {
            Ok(state) => Kept::State(state),
            Err(error) if error.kind() == ErrorKind::NotFound && !has_run => Kept::Nothing,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::Lost("it is gone".to_owned()),
            Err(error) => Kept::Lost(error.to_string()),
        }
    }

    fn read(&self) -> std::io::Result<State> {
        let mut bytes = Vec::new();
        File::open(self.path())?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::other(format!("longer than {MAX_BYTES} bytes")));
        }
        let plain = self.key.open(PURPOSE, &bytes).ok_or_else(|| std::io::Error::other("not what this device wrote"))?;
        let state: State = serde_json::from_slice(&plain).map_err(std::io::Error::other)?;
        if state.is_known() { Ok(state) } else { Err(std::io::Error::other("written by another version of the program")) }
    }

    pub(super) fn save(&self, state: &State) -> std::io::Result<()> {
        let beside = self.folder.join(format!("{FILE}.new"));
        let plain = serde_json::to_vec(state).map_err(std::io::Error::other)?;
        let bytes = self.key.seal(PURPOSE, &plain).map_err(std::io::Error::other)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, self.path())?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(kept: &Kept) -> bool {
        matches!(kept, Kept::Lost(_))
    }

    #[test]
    fn an_absent_state_is_nothing_on_the_first_start_and_a_loss_on_every_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path(), StateKey::generate().unwrap());
        assert_eq!(file.load(false), Kept::Nothing);
        assert!(is_lost(&file.load(true)));
    }

    #[test]
    fn what_was_not_sealed_here_is_a_loss_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path(), StateKey::generate().unwrap());
        let plain = serde_json::to_vec(&State::lost()).unwrap();
        for broken in [&b""[..], b"{", b"null", &plain, &[0; 100]] {
            std::fs::write(file.path(), broken).unwrap();
            assert!(is_lost(&file.load(false)), "{broken:?}");
        }
        file.save(&State::lost()).unwrap();
        let sealed = std::fs::read(file.path()).unwrap();
        assert!(!sealed.windows(8).any(|part| part == b"lockdown"), "who is where is for nobody to read");
        for at in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[at] ^= 1;
            std::fs::write(file.path(), edited).unwrap();
            assert!(is_lost(&file.load(true)), "byte {at}");
            std::fs::write(file.path(), &sealed[..at]).unwrap();
            assert!(is_lost(&file.load(true)), "cut at {at}");
        }
        std::fs::write(file.path(), &sealed).unwrap();
        let other = AccessState::new(folder.path(), StateKey::generate().unwrap());
        assert!(is_lost(&other.load(true)), "another device's");
        assert_eq!(file.load(true), Kept::State(State::lost()));
    }

    #[test]
    fn what_another_version_wrote_is_a_loss() {
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path(), StateKey::generate().unwrap());
        let text = serde_json::to_string(&State::lost()).unwrap().replace("\"version\":1", "\"version\":2");
        std::fs::write(file.path(), file.key.seal(PURPOSE, text.as_bytes()).unwrap()).unwrap();
        assert!(is_lost(&file.load(true)));
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path(), StateKey::generate().unwrap());
        file.save(&State::lost()).unwrap();
        file.save(&State::lost()).unwrap();
        assert_eq!(file.load(false), Kept::State(State::lost()));
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
