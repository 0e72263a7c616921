//! Secrets from files: a systemd credential or a file that only its owner may read. Never from the config, the environment or the
//! command line.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// What the units hand over in the place of a secret that this site does not have (`SetCredential=NAME:\x00`), so that a service starts
/// without it: as good as none. A key has 32 bytes, and a password no such character.
const NONE: [u8; 1] = [0];

/// The largest secret file, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Why a secret could not be read. The content is never in it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// No credential of that name and no file at that path.
    #[error("secret `{name}` is neither a credential of the service nor a readable file at {path}: {source}")]
    Unreadable {
        /// The name that was asked for.
        name: String,
        /// Where it was looked for last.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("secret file {path} has mode {mode:03o}: only its owner may read it, run `chmod 600 {path}`", path = path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a plain file, empty, or too long.
    #[error("secret file {path} must be a plain file of 1 to {MAX_SECRET_BYTES} bytes", path = path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads secret `name`: an absolute path as it is, otherwise `$CREDENTIALS_DIRECTORY/name` or `…/secrets_name` (systemd's
/// `LoadCredential=`), otherwise `fallback/name`. A file outside the credentials directory must be closed to group and others, and so is one
/// with an access control list ([`crate::system::acl`]).
pub fn read(name: &str, fallback: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (path, is_credential) = locate(name, fallback);
    let unreadable = |source| SecretError::Unreadable { name: name.to_owned(), path: path.clone(), source };
    let mut file = opened(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_file() || metadata.len() == 0 || metadata.len() > MAX_SECRET_BYTES {
        return Err(SecretError::Unusable { path });
    }
    if !is_credential && mode & 0o077 != 0 {
        return Err(SecretError::TooOpen { path, mode });
    }
    // Sized beforehand, so that growing the vector leaves no copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 1));
    file.by_ref().take(MAX_SECRET_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

/// As [`read`]; `None` where there is none. Under systemd only credentials can be read, so a file that may not be read is none either.
pub fn read_if_there(name: &str, fallback: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SecretError> {
    match read(name, fallback) {
        Ok(content) => Ok(Some(content)),
        Err(SecretError::Unreadable { source, .. })
            if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads secret `name` as one line of text: trailing line ends are taken off; bytes that are no UTF-8 make it unusable.
pub fn read_line(name: &str, fallback: &Path) -> Result<Zeroizing<String>, SecretError> {
    let bytes = read(name, fallback)?;
    let unusable = || SecretError::Unusable { path: locate(name, fallback).0 };
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable())?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(['\r', '\n']) {
        return Err(unusable());
    }
    let mut copy = String::with_capacity(line.len());
    copy.push_str(line);
    Ok(Zeroizing::new(copy))
}

/// Where secret `name` is read from, and whether that is the service manager's credentials directory.
pub fn locate(name: &str, fallback: &Path) -> (PathBuf, bool) {
    if Path::new(name).is_absolute() {
        return (PathBuf::from(name), false);
    }
    if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        // `LoadCredential=secrets:FOLDER` puts the credential's own name before each file's.
        let names = [name.to_owned(), format!("secrets_{name}")];
        if let Some(path) = names.iter().map(|name| Path::new(&folder).join(name)).find(|path| is_handed_over(path)) {
            return (path, true);
        }
    }
    (fallback.join(name), false)
}

/// Opens a file for reading; a pipe in its place is not waited for. A link is followed: an operator may keep secrets elsewhere.
fn opened(path: &Path) -> std::io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Whether a credential is there and is more than the word that there is none.
fn is_handed_over(path: &Path) -> bool {
    let mut start = Vec::new();
    match opened(path).and_then(|file| file.take(NONE.len() as u64 + 1).read_to_end(&mut start)) {
        Ok(_) => start != NONE,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_refused_and_its_content_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "hunter2\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_line("key", folder.path()).unwrap_err();
        assert!(matches!(error, SecretError::TooOpen { .. }));
        assert!(!error.to_string().contains("hunter2"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_line("key", folder.path()).unwrap().as_str(), "hunter2");
    }

    #[test]
    fn a_file_whose_access_control_list_lets_somebody_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "hunter2\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if crate::system::acl::tests::let_somebody_read(&path) {
            assert!(matches!(read_line("key", folder.path()), Err(SecretError::TooOpen { mode: 0o640, .. })));
            // What the error says is the remedy.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(crate::system::acl::named_readers(&path).is_empty());
            assert_eq!(read_line("key", folder.path()).unwrap().as_str(), "hunter2");
        }
    }

    #[test]
    fn what_a_unit_hands_over_for_a_secret_that_is_not_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt-password");
        assert!(!is_handed_over(&path));
        for (content, is) in [(&b"\0"[..], false), (b"\0\0", true), (b"hunter2", true), (b"", true)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(is_handed_over(&path), is, "{content:?}");
        }
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(read("pipe", folder.path()), Err(SecretError::Unusable { .. })));
    }

    #[test]
    fn a_missing_an_empty_and_a_two_line_secret_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read("none", folder.path()), Err(SecretError::Unreadable { .. })));
        for content in ["", "a\nb"] {
            let path = folder.path().join("bad");
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(read_line("bad", folder.path()), Err(SecretError::Unusable { .. })));
        }
    }
}
