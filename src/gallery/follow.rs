//! Following a gallery that another process changes: the daemon matches against it while the command line enrols and removes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::medium::FileMedium;
use super::store::{self, FILE};
use super::{Gallery, GalleryError, SealingKey, Settings};
use crate::types::ModelId;

/// What tells one whole gallery file from the next: each write is a new file that takes the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), bytes: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
    }
}

/// What reading again needs.
pub(super) struct Followed {
    key: SealingKey,
    seen: Mutex<Option<Stamp>>,
}

impl Gallery {
    /// Opens the gallery for reading, makes an empty one when there is none, and can be told to [`Gallery::refresh`].
    pub fn follow(settings: &Settings, key: SealingKey, model: &ModelId, dimension: usize) -> Result<Self, GalleryError> {
        let path = settings.dir.join(FILE);
        if !path.exists() {
            drop(Self::create_or_open(settings, &key, model, dimension)?);
        }
        // Before the file: a write between the two is then read once more, never missed.
        let stamp = Stamp::of(&path);
        let mut gallery = Self::open_read_only(settings, &key)?;
        let stored = gallery.snapshot().stats();
        if stored.model != *model || stored.dimension != dimension {
            let shown = |model: &ModelId, dimension: usize| format!("{model} ({dimension}-D)");
            return Err(GalleryError::OtherModel {
                path,
                stored: shown(&stored.model, stored.dimension),
                asked: shown(model, dimension),
            });
        }
        gallery.followed = Some(Followed { key, seen: Mutex::new(stamp) });
        Ok(gallery)
    }

    /// Reads the file again if it has changed since; true when there is a new snapshot. On an error, and when the file has become
    /// one of another model, matching goes on with what was read before.
    pub fn refresh(&self) -> Result<bool, GalleryError> {
        let Some(followed) = &self.followed else { return Ok(false) };
        let mut seen = followed.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if stamp == *seen {
            return Ok(false);
        }
        *seen = stamp;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let now = self.snapshot();
        let fresh = store::load(&FileMedium::new(folder), &self.path, &followed.key)?;
        let fresh = fresh.ok_or_else(|| GalleryError::Missing { path: self.path.clone() })?;
        if fresh.model() != now.model() || fresh.dimension() != now.dimension() {
            let shown = |model: &ModelId, dimension: usize| format!("{model} ({dimension}-D)");
            return Err(GalleryError::OtherModel {
                path: self.path.clone(),
                stored: shown(fresh.model(), fresh.dimension()),
                asked: shown(now.model(), now.dimension()),
            });
        }
        self.current.store(Arc::new(fresh.sharing(&now)));
        Ok(true)
    }
}
