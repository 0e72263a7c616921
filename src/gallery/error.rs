//! What can go wrong with a gallery. Every message names the file or the person and the way out, and none tells a key or a template.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::seal::{KeyError, SealError};
use super::store::Rollback;
use crate::types::PersonId;

/// Why the gallery did not do what was asked. Unless the variant says otherwise, nothing was changed; see [`is_made`].
#[derive(Debug, Error)]
pub enum GalleryError {
    /// There is no gallery.
    #[error("there is no gallery at {path}: `faceid enroll` or `faceid import` makes one", path = path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It is sealed under another key.
    #[error(
        "gallery {path} is sealed under another key: give the key that it was made with, or move the file away and enrol again",
        path = path.display()
    )]
    WrongKey {
        /// Which file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error(
        "gallery {path} is damaged: {reason} at byte {offset}; put back a backup, or move the file away and enrol again",
        path = path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Counted from the file's start.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A later program wrote it.
    #[error("gallery {path} has version `{found}`, this program knows 1 and 2: use the program that wrote it, or a newer one", path = path.display())]
    UnknownVersion {
        /// Which file.
        path: PathBuf,
        /// The version's byte, printable.
        found: String,
    },
    /// It holds templates of another model.
    #[error(
        "gallery {path} holds templates of {stored}, the configured embedder gives {asked}: templates of two models are never \
         compared; configure the gallery's model again, or move the file away and enrol anew",
        path = path.display()
    )]
    OtherModel {
        /// Which file.
        path: PathBuf,
        /// The file's model and dimension.
        stored: String,
        /// The configured ones.
        asked: String,
    },
    /// A probe or a new template is of another model or dimension than the gallery.
    #[error("a face of {probe} cannot be compared with a gallery of {gallery}: configure one model for both")]
    ForeignProbe {
        /// The gallery's model and dimension.
        gallery: String,
        /// The probe's.
        probe: String,
    },
    /// Another process writes to it.
    #[error(
        "gallery folder {folder} is in use by another process: a folder has one writer; stop the other daemon, or give this one \
         a state folder of its own",
        folder = folder.display()
    )]
    Locked {
        /// Which folder.
        folder: PathBuf,
    },
    /// This handle only reads.
    #[error("gallery {path} was opened for reading only: open it for writing to change it", path = path.display())]
    OpenedReadOnly {
        /// Which file.
        path: PathBuf,
    },
    /// The folder cannot be written.
    #[error(
        "{path} cannot be written ({source}) and nothing was changed: the state folder must be on a writable file system and belong \
         to the daemon's user (in a unit: StateDirectory=faceid)",
        path = path.display()
    )]
    ReadOnly {
        /// Which file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "no room to write {path} ({source}) and nothing was changed: free about twice the gallery's size on its file system and try \
         again",
        path = path.display()
    )]
    Full {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Another error of the system.
    #[error("{doing} {path} failed: {source}", path = path.display())]
    Io {
        /// What was tried ("reading").
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A write failed before: nothing is changed until the whole gallery could be written anew. Matching goes on.
    #[error(
        "gallery {path} takes no change since a write failed ({reason}); matching goes on: mend the disk; a running daemon then writes \
         the gallery anew by itself, `faceid gallery compact` does it at once",
        path = path.display()
    )]
    Latched {
        /// Which file.
        path: PathBuf,
        /// What the write failed with.
        reason: String,
    },
    /// The change is durable, and what is left on the disk of templates that went with it could not be taken away.
    #[error("{what}, but sealed templates are still on the disk ({source}): `faceid gallery compact` takes them away")]
    NotErased {
        /// What was done all the same.
        what: String,
        /// Why not.
        source: Box<GalleryError>,
    },
    /// The change was written, but the system did not say that it is durable: after a power cut either state may be there. Matching
    /// goes on with the old state, and nothing is changed until the whole gallery could be written anew.
    #[error(
        "whether the change to {path} lasts is not known ({source}): check the disk and look at the person again; matching goes on \
         with what was before",
        path = path.display()
    )]
    Unsettled {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The change is made and lasts, and its epoch did not reach the second place: nothing more is changed until the whole gallery
    /// could be written anew with it. Matching goes on, by the new state.
    #[error(
        "the change is made and lasts, but gallery {path}'s epoch could not be written ({reason}): until it is, an older gallery put \
         back would not be noticed, and nothing more is changed; matching goes on: mend the disk; a running daemon then writes the \
         gallery anew by itself, `faceid gallery compact` does it at once",
        path = path.display()
    )]
    Unwitnessed {
        /// Which file.
        path: PathBuf,
        /// What the write failed with.
        reason: String,
    },
    /// The gallery is older than it was, or nobody can tell.
    #[error(
        "gallery {path} is not the newest: {rollback}; nothing is granted and nothing is changed until somebody looks: put the right \
         files back, or accept this state with `faceid gallery verify --accept-rollback`",
        path = path.display()
    )]
    RolledBack {
        /// Which file.
        path: PathBuf,
        /// What was noticed.
        rollback: Rollback,
    },
    /// A backup would take the place of people.
    #[error(
        "gallery {path} holds {people} people: a backup takes their place only when told to (--replace); whoever is not in the backup \
         is then gone",
        path = path.display()
    )]
    NotEmpty {
        /// Which file.
        path: PathBuf,
        /// How many people it holds.
        people: usize,
    },
    /// Nobody of that id.
    #[error("person {person} is not enrolled: `faceid people list` tells who is")]
    NoSuchPerson {
        /// Who was asked for.
        person: PersonId,
    },
    /// A person's record breaks a rule.
    #[error("person {person} cannot be stored: {reason}")]
    InvalidPerson {
        /// Who.
        person: PersonId,
        /// Which rule.
        reason: &'static str,
    },
    /// An enrolment without a face.
    #[error("person {person} cannot be enrolled without a face")]
    NoTemplates {
        /// Who.
        person: PersonId,
    },
    /// More templates than the settings allow.
    #[error(
        "person {person} would have {wanted} templates and may have {limit}: give fewer photos, remove the person first, or raise \
         gallery.max-templates-per-person"
    )]
    TooManyTemplates {
        /// Who.
        person: PersonId,
        /// How many there would be.
        wanted: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A bound of the format.
    #[error("{wanted} {what} are more than a gallery takes ({limit})")]
    TooLarge {
        /// Of what ("people").
        what: &'static str,
        /// How many there would be.
        wanted: usize,
        /// How many fit.
        limit: usize,
    },
    /// No key or no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Whether a change was made and lasts: it succeeded, or what went wrong came after it.
pub fn is_made<T>(outcome: &Result<T, GalleryError>) -> bool {
    matches!(outcome, Ok(_) | Err(GalleryError::NotErased { .. } | GalleryError::Unwitnessed { .. }))
}

impl GalleryError {
    /// The exit code that it deserves, after sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::WrongKey { .. } | Self::ReadOnly { .. } | Self::Key(_) => 77,
            Self::Damaged { .. } | Self::OtherModel { .. } | Self::UnknownVersion { .. } => 65,
            Self::InvalidPerson { .. } | Self::NoTemplates { .. } | Self::TooManyTemplates { .. } => 65,
            Self::NoSuchPerson { .. } => 1,
            _ => 69,
        }
    }

    /// A failed write: full, read-only, or whatever the system says.
    pub(crate) fn write(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { path, source },
            _ => Self::Io { doing, path, source },
        }
    }

    /// What the system said of a write that failed; `None` when it is not the medium's failure.
    pub(crate) fn source_of_write(&self) -> Option<&io::Error> {
        match self {
            Self::Full { source, .. }
            | Self::ReadOnly { source, .. }
            | Self::Io { source, .. }
            | Self::Unsettled { source, .. } => Some(source),
            _ => None,
        }
    }

    /// What the seal says of a file.
    pub(crate) fn sealed(path: &Path, error: SealError) -> Self {
        let path = path.to_owned();
        match error {
            SealError::WrongKey => Self::WrongKey { path },
            SealError::UnknownVersion { found } => Self::UnknownVersion { path, found },
            SealError::Damaged { offset, reason } => Self::Damaged { path, offset: offset as u64, reason },
        }
    }
}
