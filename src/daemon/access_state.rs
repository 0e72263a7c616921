//! What the decider remembers beyond one run, in a file of the state folder: written whole beside the old one and renamed over it before a
//! decision that it is about is published, so that neither a crash nor a power cut makes the door forget a block, a place or a lock-down.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::access::State;

/// The file's name in the state folder.
const FILE: &str = "access.json";

/// The longest state that is read, in bytes: far more than every person in an area makes.
const MAX_BYTES: u64 = 32 << 20;

/// The file and its folder.
#[derive(Debug, Clone)]
pub(super) struct AccessState {
    folder: PathBuf,
}

impl AccessState {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What an earlier run kept; nothing where there was none. What is there and cannot be read may have been a lock-down: then every
    /// door is locked down until a release.
    pub(super) fn load(&self) -> Option<State> {
        match self.read() {
            Ok(state) => Some(state),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::error!(
                    "{}: {error}; it may have held a lock-down, so every door is locked down: release it, or stop the daemon and \
                     remove the file",
                    self.path().display()
                );
                Some(State::lost())
            }
        }
    }

    fn read(&self) -> std::io::Result<State> {
        let mut bytes = Vec::new();
        File::open(self.path())?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::other(format!("longer than {MAX_BYTES} bytes")));
        }
        let state: State = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
        if state.is_known() { Ok(state) } else { Err(std::io::Error::other("written by another version of the program")) }
    }

    pub(super) fn save(&self, state: &State) -> std::io::Result<()> {
        let beside = self.folder.join(format!("{FILE}.new"));
        let bytes = serde_json::to_vec(state).map_err(std::io::Error::other)?;
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

    #[test]
    fn an_absent_state_is_none_and_a_broken_one_locks_every_door() {
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path());
        assert_eq!(file.load(), None);
        for broken in ["", "{", "null", "{\"version\":1}", "\u{0}\u{0}"] {
            std::fs::write(file.path(), broken).unwrap();
            assert_eq!(file.load(), Some(State::lost()), "{broken:?}");
        }
        std::fs::write(file.path(), serde_json::to_string(&State::lost()).unwrap().replace("\"version\":1", "\"version\":2"))
            .unwrap();
        assert_eq!(file.load(), Some(State::lost()), "another version");
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = AccessState::new(folder.path());
        file.save(&State::lost()).unwrap();
        file.save(&State::lost()).unwrap();
        assert_eq!(file.load(), Some(State::lost()));
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
