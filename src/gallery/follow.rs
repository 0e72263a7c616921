//! Following a gallery that another process changes: matching goes on while somebody else enrols and removes. Of a journal that has
//! grown only what is new is taken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::journal::{self, Tail};
use super::load::{self, Loaded, Rollback, Volume};
use super::medium::FileMedium;
use super::seal::TAG_BYTES;
use super::store::{FILE, JOURNAL};
use super::{Gallery, GalleryError, SealingKey, Settings};
use crate::types::ModelId;

/// What tells one state of a file from the next.
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
    medium: FileMedium,
    seen: Mutex<Seen>,
}

struct Seen {
    file: Option<Stamp>,
    journal: Option<Stamp>,
    volume: Option<Volume>,
    tail: Tail,
}

impl Seen {
    fn now(path: &Path) -> Self {
        let tail = Tail { epoch: 0, head: [0; TAG_BYTES], end: 0 };
        Self { file: Stamp::of(path), journal: Stamp::of(&path.with_file_name(JOURNAL)), volume: None, tail }
    }
}

impl Gallery {
    /// Opens the gallery for reading, makes an empty one when there is none, and can be told to [`Gallery::refresh`].
    pub fn follow(settings: &Settings, key: SealingKey, model: &ModelId, dimension: usize) -> Result<Self, GalleryError> {
        let path = settings.dir.join(FILE);
        if !path.exists() {
            drop(Self::create_or_open(settings, &key, model, dimension)?);
        }
        let medium = FileMedium::new(&settings.dir, &settings.epoch_file());
        // Before the files: a write between the two is then read once more, never missed.
        let mut seen = Seen::now(&path);
        let loaded = load::load_beside(&medium, &path, &key)?.ok_or_else(|| GalleryError::Missing { path: path.clone() })?;
        loaded.expect_model(&path, model, dimension)?;
        let Loaded { snapshot, volume, tail, rollback, .. } = loaded;
        (seen.volume, seen.tail) = (volume, tail);
        Ok(Self {
            current: arc_swap::ArcSwap::from_pointee(snapshot),
            path,
            max_templates_per_person: settings.max_templates_per_person,
            writer: None,
            compacting: Mutex::default(),
            followed: Some(Followed { key, medium, seen: Mutex::new(seen) }),
            rollback: arc_swap::ArcSwapOption::from_pointee(rollback),
            latch: arc_swap::ArcSwapOption::empty(),
        })
    }

    /// Reads again what has changed since; true when there is a new snapshot. On an error, and when the files have become those of
    /// another model or of an older state, matching goes on with what was read before.
    pub fn refresh(&self) -> Result<bool, GalleryError> {
        let Some(followed) = &self.followed else { return Ok(false) };
        let mut seen = followed.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Seen::now(&self.path);
        if (fresh.file, fresh.journal) == (seen.file, seen.journal) {
            return Ok(false);
        }
        let is_same_file = fresh.file == seen.file;
        (seen.file, seen.journal) = (fresh.file, fresh.journal);
        if is_same_file && self.rollback.load().is_none() && self.take_new(followed, &mut seen)? {
            return Ok(true);
        }
        let loaded = load::load_beside(&followed.medium, &self.path, &followed.key)?;
        let loaded = loaded.ok_or_else(|| GalleryError::Missing { path: self.path.clone() })?;
        let now = self.snapshot();
        loaded.expect_model(&self.path, now.model(), now.dimension())?;
        let Loaded { snapshot, volume, tail, rollback, .. } = loaded;
        let before = now.generation();
        let rollback = rollback.or_else(|| {
            let reason = "an older state was put back while the daemon ran";
            (snapshot.generation() < before).then_some(Rollback { found: snapshot.generation(), expected: Some(before), reason })
        });
        (fresh.volume, fresh.tail) = (volume, tail);
        *seen = fresh;
        let is_older = rollback.is_some();
        self.rollback.store(rollback.map(Arc::new));
        if is_older && snapshot.generation() < before {
            return Ok(false);
        }
        self.current.store(Arc::new(snapshot.sharing(&now)));
        Ok(true)
    }

    /// What the journal says beyond what was read; false when the whole must be read again.
    fn take_new(&self, followed: &Followed, seen: &mut Seen) -> Result<bool, GalleryError> {
        let Some(volume) = &seen.volume else { return Ok(false) };
        let Some(mut journal) = load::read_or_none(&followed.medium, JOURNAL, &self.path)? else { return Ok(false) };
        let now = self.snapshot();
        let replayed = journal::replay(&mut journal, &volume.base(), now.generation());
        let goes_on = |(epoch, head): &(u64, _)| *epoch == seen.tail.epoch && *head == seen.tail.head;
        let follows = seen.tail.epoch == volume.epoch || replayed.heads.iter().any(goes_on);
        if replayed.foreign.is_some() || replayed.stopped.is_some() || !follows || replayed.tail.epoch <= now.generation() {
            return Ok(false);
        }
        seen.tail = replayed.tail;
        self.current.store(Arc::new(now.with(replayed.changes).at_generation(replayed.tail.epoch)));
        Ok(true)
    }
}
