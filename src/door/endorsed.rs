//! The highest serial number of an endorsement that a door has seen, on its disk: an older endorsement, replayed, must not teach a key again
//! that a newer one has taken back, after a restart either.
//!
//! The file is text: `v1 SERIAL` and a line's end, written beside itself, synced and renamed. A door that never saw a newer endorsement,
//! or whose file was deleted, cannot know that there is one; one whose file does not read learns nothing until it is deleted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
        // What a crash left, and nothing else that may lie there, is never written through.
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(format!("v1 {serial}\n").as_bytes()).and_then(|()| file.sync_all())?;
        std::fs::rename(&unfinished, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all())?;
        self.highest = serial;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => drop(file.take(MAX_FILE_BYTES).read_to_string(&mut text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    }
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
    }
}
