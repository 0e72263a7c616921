//! What a gallery lies on: six calls that change it, two that destroy and two that read. The file one is below; tests put a simulated disk in its
//! place that fails, tears and forgets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::system::files;

/// The largest file that is read, in bytes; a gallery of the format's most templates at 512 numbers fits.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 30;

/// The name by which the epoch's second place goes here; it lies where the settings say, beside the folder and not in it.
pub(crate) const EPOCH: &str = "gallery.epoch";

/// One folder of files, and one file beside it. `FORMAT.md` states what is assumed of it.
pub(crate) trait Medium: Send + Sync {
    /// A whole file, in a vector that was sized beforehand; `NotFound` when there is none.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A file's first `most` bytes, or all of a shorter one; `NotFound` when there is none.
    fn read_head(&self, name: &str, most: usize) -> io::Result<Vec<u8>>;
    /// Writes at `offset`; at 0 the file is made, or emptied.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once the file's content is durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Puts `from` in the place of `to`, at one moment; when it fails, nothing changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Overwrites the first `bytes` of each file that [`Medium::rename`] put out of its place and that has no name any more.
    fn shred(&self, bytes: usize) -> io::Result<()>;
    /// Cuts a file to `length` bytes.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Returns once the names are durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Takes a file away; `NotFound` when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// As [`Medium::remove`], but its first `bytes` are overwritten before, durably; when that fails it is taken away all the same.
    fn destroy(&self, name: &str, bytes: usize) -> io::Result<()>;
}

/// A folder of the file system, mode 0700, its files 0600. Links are never followed.
pub(crate) struct FileMedium {
    folder: PathBuf,
    epoch: PathBuf,
    /// What renames put out of its place since the last shredding.
    replaced: Mutex<Vec<File>>,
}

impl FileMedium {
    /// A folder and the epoch's place as they are.
    pub(crate) fn new(folder: &Path, epoch: &Path) -> Self {
        Self { folder: folder.to_owned(), epoch: epoch.to_owned(), replaced: Mutex::default() }
    }

    /// A folder to be written: made when missing, and closed to group and others.
    pub(crate) fn create(folder: &Path, epoch: &Path) -> io::Result<Self> {
        files::private_folder(folder)?;
        files::close_folder(folder)?;
        Ok(Self::new(folder, epoch))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name == EPOCH { self.epoch.clone() } else { self.folder.join(name) }
    }

    fn open(&self, options: &mut OpenOptions, name: &str) -> io::Result<File> {
        files::opened(options.mode(0o600), &self.path(name))
    }
}

impl Medium for FileMedium {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.open(OpenOptions::new().read(true), name)?;
        let metadata = file.metadata()?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a plain file of at most 16 GiB"));
        }
        let length = usize::try_from(metadata.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = Vec::new();
        // One more, so that the read that finds the end asks for no more memory.
        bytes.try_reserve_exact(length + 1)?;
        file.take(metadata.len()).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_head(&self, name: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(most);
        self.open(OpenOptions::new().read(true), name)?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let first = offset == 0;
        let file = self.open(OpenOptions::new().write(true).create(first).truncate(false), name)?;
        if !first {
            return file.write_all_at(bytes, offset);
        }
        // What has another name as well is somebody else's content: it is left to that name.
        let file = if files::only_name(&file).is_ok() { file } else { files::fresh(&self.path(name))? };
        file.set_len(0)?;
        file.write_all_at(bytes, 0)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.open(OpenOptions::new().write(true), name)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let before = self.open(OpenOptions::new().write(true), to).ok();
        std::fs::rename(self.path(from), self.path(to))?;
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).extend(before);
        Ok(())
    }

    fn shred(&self, bytes: usize) -> io::Result<()> {
        let replaced = std::mem::take(&mut *self.replaced.lock().unwrap_or_else(PoisonError::into_inner));
        replaced.iter().try_for_each(|file| overwrite(file, bytes))
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.open(OpenOptions::new().write(true), name)?.set_len(length)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()?;
        match self.epoch.parent() {
            Some(folder) if folder != self.folder => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn destroy(&self, name: &str, bytes: usize) -> io::Result<()> {
        match self.open(OpenOptions::new().write(true), name).and_then(|file| overwrite(&file, bytes)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("{name} could not be overwritten: {error}"),
            _ => {}
        }
        self.remove(name)
    }
}

/// Zeros over a file's first bytes where they lie, durably. What still has another name stays as it is.
fn overwrite(file: &File, bytes: usize) -> io::Result<()> {
    files::only_name(file)?;
    let length = file.metadata()?.len().min(bytes as u64);
    file.write_all_at(&vec![0; usize::try_from(length).unwrap_or(0)], 0)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_through_what_was_planted_in_the_folder_or_in_its_place() {
        let state = tempfile::tempdir().unwrap();
        let (folder, epoch) = (state.path().join("gallery"), state.path().join(EPOCH));
        let target = files::planted::Target::new();
        files::planted::folder_outlives(&folder, || FileMedium::create(&folder, &epoch).map(drop));
        std::fs::remove_file(&folder).unwrap();
        let medium = FileMedium::create(&folder, &epoch).unwrap();
        for name in ["people.gallery", "people.gallery.new", EPOCH] {
            target.outlives(&medium.path(name), || {
                let _ = medium.write(name, 0, b"ours");
                target.is_untouched(&medium.path(name));
                // Nothing of ours was ever at this name: it is found out when it is read.
                let _ = medium.rename("absent", name);
                let _ = medium.shred(100);
            });
            target.outlives(&medium.path(name), || drop(medium.destroy(name, 100)));
        }
        medium.write("a", 0, b"longer before").unwrap();
        medium.write("a", 0, b"ours").unwrap();
        assert_eq!(medium.read("a").unwrap(), b"ours");
    }
}
