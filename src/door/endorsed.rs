//! The highest serial number of an endorsement that a door has seen, on its disk: an older endorsement, replayed, must not teach a key again
//! that a newer one has taken back, after a restart either.
//!
//! The file is text: `v1 SERIAL` and a line's end, written beside itself, synced and renamed. A door that never saw a newer endorsement,
//! or whose file was deleted, cannot know that there is one; one whose file does not read learns nothing until it is deleted.

use std::io;
use std::path::{Path, PathBuf};

use crate::system::files;

/// The longest file that is read, in bytes; ours have 24 at most.
const MAX_FILE_BYTES: u64 = 64;

/// The memory. One process a file, in a folder that is there.
pub(super) struct Endorsed {
    path: PathBuf,
    highest: u64,
}

impl Endorsed {
    /// Reads the file; none is there at the first start.
    pub(super) fn open(path: &Path) -> Self {
        let highest = match read(path) {
            Ok(highest) => highest,
            Err(error) => {
                log::error!("{}: {error}; no endorsed key is learnt until the file is deleted", path.display());
                u64::MAX
            }
        };
        Self { path: path.to_owned(), highest }
    }

    /// The highest number so far; 0 when there was none.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Remembers a number; durable when this returns.
    pub(super) fn raise(&mut self, serial: u64) -> io::Result<()> {
        if serial <= self.highest {
            return Ok(());
        }
        let unfinished = self.path.with_extension("endorsed.new");
        files::replace(&self.path, &unfinished, format!("v1 {serial}\n").as_bytes())?;
        self.highest = serial;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let Some(bytes) = files::read(path, MAX_FILE_BYTES)? else { return Ok(0) };
    let text = String::from_utf8_lossy(&bytes);
    let serial = text.strip_prefix("v1 ").and_then(|rest| rest.strip_suffix('\n')).and_then(|digits| digits.parse().ok());
    serial.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_goes_down_over_restarts_and_a_damaged_file_lets_nothing_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.endorsed");
        let mut memory = Endorsed::open(&path);
        assert_eq!(memory.highest(), 0);
        memory.raise(5).unwrap();
        memory.raise(3).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), path.with_extension("endorsed.new")).unwrap();
        memory.raise(7).unwrap();
        assert!(Endorsed::open(&path).highest() == 7 && !folder.path().join("elsewhere").exists());
        for damaged in ["", "v1", "v1 7", "v1 -1\n", "v2 7\n", "v1 99999999999999999999\n", "v1 7\nv1 8\n"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Endorsed::open(&path).highest(), u64::MAX, "{damaged:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let target = files::planted::Target::new();
        let mut memory = Endorsed::open(&path);
        for (serial, place) in [(1, path.clone()), (2, path.with_extension("endorsed.new"))] {
            target.outlives(&place, || memory.raise(serial).unwrap());
        }
        // A pipe in its place would be waited on for ever.
        let _ = std::fs::remove_file(&path);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Endorsed::open(&path).highest(), u64::MAX);
    }
}
