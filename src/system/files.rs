//! Files of the state folder as every room writes them: no link is followed, nothing that lies in a new file's place is written into,
//! and what is read is a plain file. Whoever may write the folder may have planted something there (a symbolic link, a second name of
//! another file, a pipe), and root may be the one who writes: see [`super::owner`], which takes root's rights away besides.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// What a link, a pipe or a device in a file's place is answered with.
const NO_PLAIN_FILE: &str =
    "a link or something else that is no plain file lies there, and is not followed: look who put it there, and remove it";
const SECOND_NAME: &str = "the file has a second name elsewhere (a hard link), and is not written: look who made it, and remove it";

/// Makes a folder, and those above it, with mode 0700 where there is none. A link in its place is refused, wherever it leads.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if itself(folder).symlink_metadata()?.is_dir() {
        return Ok(());
    }
    let why = "it is a link to a folder, and is not followed: name the folder itself in the config, or remove the link";
    Err(io::Error::new(io::ErrorKind::NotADirectory, why))
}

/// The path without a slash at its end, with which the system would look where a link leads.
fn itself(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Closes a folder to group and others; a link in its place is refused.
pub fn close_folder(folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::open(itself(folder), flags, Mode::empty()).map_err(told)?;
    if rustix::fs::fstat(&open)?.st_mode & 0o077 != 0 {
        rustix::fs::fchmod(&open, Mode::from_raw_mode(0o700))?;
    }
    Ok(())
}

/// Sets the mode of what has this very name, a socket's for instance; of a link in its place, and of what that leads to, never.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let held = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode).is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, NO_PLAIN_FILE));
    }
    // The name may be another's by now, what is held cannot.
    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
    std::fs::set_permissions(held, std::fs::Permissions::from_mode(mode))
}

/// A new file, mode 0600, to write and read. What lay in its place is taken away, and never written into.
pub fn fresh(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Puts a file of this content, mode 0600, in the place of `path` at one moment, durably: written beside it as `beside`, synced, renamed.
/// The file stays open, at its end.
pub fn replace(path: &Path, beside: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = fresh(beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(beside, path)?;
    sync_folder_of(path)?;
    Ok(file)
}

/// Returns once the names beside `path` are durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Opens a plain file to read it; `NotFound` where there is none.
pub fn open(path: &Path) -> io::Result<File> {
    opened(OpenOptions::new().read(true), path)
}

/// At most `most` bytes of a plain file; `None` where there is none.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match open(path) {
        Ok(file) => file.take(most).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(bytes))
}

/// Opens a file to read and write it as it is, made with `mode` where there is none: a lock, something that is gone on with.
pub fn open_or_make(path: &Path, mode: u32) -> io::Result<File> {
    let file = opened(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode), path)?;
    only_name(&file)?;
    Ok(file)
}

/// Opens as `options` say, but neither through a link nor a pipe or a device, on which it would wait. Nothing is emptied here.
pub fn opened(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = options.custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
        Some(code) => told(rustix::io::Errno::from_raw_os_error(code)),
        None => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, NO_PLAIN_FILE)) }
}

/// Refuses a file that has another name besides.
pub fn only_name(file: &File) -> io::Result<()> {
    if file.metadata()?.nlink() > 1 { Err(io::Error::new(io::ErrorKind::InvalidInput, SECOND_NAME)) } else { Ok(()) }
}

/// The system's word, or ours where a link or a pipe without a reader is in the way.
fn told(error: rustix::io::Errno) -> io::Error {
    match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => io::Error::new(io::ErrorKind::InvalidInput, NO_PLAIN_FILE),
        other => other.into(),
    }
}

/// What somebody plants in the place of a file that is about to be written, for the tests of every room that writes one.
#[cfg(test)]
pub(crate) mod planted {
    use super::*;

    /// The site's file that must stay as it is.
    pub(crate) struct Target {
        pub(crate) path: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Target {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("the-sites-own");
            std::fs::write(&path, "the site's own").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            Self { path, _folder: folder }
        }

        /// Plants a symbolic link, then a second name, then a link to what is not there yet at `place`; after each `write` may do as it
        /// likes, and the target is untouched.
        pub(crate) fn outlives(&self, place: &Path, mut write: impl FnMut()) {
            let absent = self.path.with_extension("absent");
            let clear = || drop(std::fs::remove_file(place));
            clear();
            std::os::unix::fs::symlink(&self.path, place).unwrap();
            write();
            self.is_untouched(place);
            clear();
            // A file system of its own for temporary files has no second names of another's.
            if std::fs::hard_link(&self.path, place).is_ok() {
                write();
                self.is_untouched(place);
            }
            clear();
            std::os::unix::fs::symlink(&absent, place).unwrap();
            write();
            assert!(!absent.exists(), "something was made through {}", place.display());
            clear();
        }

        pub(crate) fn is_untouched(&self, place: &Path) {
            assert_eq!(std::fs::read(&self.path).unwrap(), b"the site's own", "written through {}", place.display());
            let mode = self.path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o640, "its mode was changed through {}", place.display());
        }
    }

    /// A folder of the site's, and a link to it at `place`; `write` must be refused, and the folder stays as it is.
    pub(crate) fn folder_outlives<E: std::fmt::Display>(place: &Path, write: impl FnOnce() -> Result<(), E>) {
        let target = tempfile::tempdir().unwrap();
        std::fs::set_permissions(target.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(target.path(), place).unwrap();
        let error = write().expect_err("a link in a folder's place was followed").to_string();
        assert!(error.contains("link"), "{error}");
        assert_eq!(target.path().metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::planted::{Target, folder_outlives};
    use super::*;

    #[test]
    fn nothing_is_written_through_what_was_planted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("file"), folder.path().join("file.new"));
        let target = Target::new();
        target.outlives(&beside, || drop(replace(&path, &beside, b"ours").unwrap()));
        target.outlives(&path, || drop(replace(&path, &beside, b"ours").unwrap()));
        assert_eq!(read(&path, 100).unwrap(), None, "the last link was taken away again");
        target.outlives(&path, || {
            assert!(open_or_make(&path, 0o600).is_err());
            let _ = set_mode(&path, 0o777).map_err(|error| assert!(error.to_string().contains("link"), "{error}"));
            // A second name is the file itself: what was set goes back before the target is looked at.
            if path.symlink_metadata().unwrap().is_file() {
                set_mode(&path, 0o640).unwrap();
            }
        });
        folder_outlives(&folder.path().join("sub"), || private_folder(&folder.path().join("sub")));
        std::fs::remove_file(folder.path().join("sub")).unwrap();
        folder_outlives(&folder.path().join("sub"), || private_folder(&folder.path().join("sub/")));
        std::fs::remove_file(folder.path().join("sub")).unwrap();
        folder_outlives(&folder.path().join("sub"), || {
            close_folder(&folder.path().join("sub")).map_err(|error| format!("link? {error}"))
        });
    }

    #[test]
    fn a_plain_file_is_read_and_nothing_else_and_no_pipe_is_waited_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(read(&path, 10).unwrap().is_none());
        drop(replace(&path, &folder.path().join("beside"), b"content").unwrap());
        assert_eq!(read(&path, 4).unwrap().as_deref(), Some(&b"cont"[..]));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(read(&pipe, 10).unwrap_err().to_string().contains("no plain file"));
        assert!(open_or_make(&pipe, 0o600).unwrap_err().to_string().contains("no plain file"));
        assert!(read(folder.path(), 10).unwrap_err().to_string().contains("no plain file"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read(&link, 10).unwrap_err().to_string().contains("link"));
    }

    #[test]
    fn a_folder_is_made_closed_and_an_open_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_folder(&inner).unwrap();
        private_folder(&inner).unwrap();
        assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
        close_folder(&inner).unwrap();
        assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        private_folder(Path::new("")).unwrap();
    }
}
