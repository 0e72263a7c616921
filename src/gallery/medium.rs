//! What a gallery lies on: five calls that change it and one that reads. The file one is below; tests put a simulated disk in its
//! place that fails, tears and forgets.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The largest file that is read, in bytes; a gallery of the format's most templates at 512 numbers fits.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 30;

/// One folder of files. `FORMAT.md` states what is assumed of it.
pub(crate) trait Medium: Send {
    /// A whole file, in a vector that was sized beforehand; `NotFound` when there is none.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Writes at `offset`; at 0 the file is made, or emptied.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once the file's content is durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Puts `from` in the place of `to`, at one moment; when it fails, nothing changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns once the folder's names are durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Takes a file away; `NotFound` when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder of the file system, mode 0700, its files 0600. Links are never followed.
pub(crate) struct FileMedium {
    folder: PathBuf,
}

impl FileMedium {
    /// A folder as it is.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A folder to be written: made when missing, and closed to group and others.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if folder.metadata()?.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        Ok(Self::new(folder))
    }

    fn open(&self, options: &mut OpenOptions, name: &str) -> io::Result<File> {
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        options.custom_flags(no_follow).mode(0o600).open(self.folder.join(name))
    }
}

impl Medium for FileMedium {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = self.open(OpenOptions::new().read(true), name)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a plain file of at most 16 GiB"));
        }
        let length = usize::try_from(metadata.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length)?;
        bytes.resize(length, 0);
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let first = offset == 0;
        let file = self.open(OpenOptions::new().write(true).create(first).truncate(first), name)?;
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.open(OpenOptions::new().write(true), name)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }
}
