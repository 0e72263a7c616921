//! Writing the file anew while changes go on: what takes long, sealing everybody and the sync, is done without the store. The new file takes
//! the old one's place only if nothing was changed meanwhile, so that the journal which goes with the old one has nothing that is not in
//! it; otherwise it is thrown away, the keys that it was sealed with first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{BESIDE, Store};
use crate::gallery::GalleryError;
use crate::gallery::format::Fields;
use crate::gallery::load::{self, Volume};
use crate::gallery::medium::Medium;
use crate::gallery::seal::{BLOCK_BYTES, HEADER_BYTES, Keys, SealingKey};
use crate::gallery::snapshot::Snapshot;

/// A file that is to be written.
pub(crate) struct Beside {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    key: SealingKey,
    fields: Fields,
    keys: Keys,
    /// The file and the change that it follows.
    follows: (u64, u64),
}

/// A file that was written, or why not.
pub(crate) struct Written {
    beside: Beside,
    outcome: Result<([u8; BLOCK_BYTES], u64), GalleryError>,
}

impl Beside {
    /// Writes the file; `now` is the state that it was begun with.
    pub(crate) fn write(self, now: &Snapshot) -> Written {
        let Self { medium, path, key, fields, keys, .. } = &self;
        let outcome = load::write_unfinished((medium.as_ref(), BESIDE), path, key, fields, keys, now);
        Written { beside: self, outcome }
    }
}

impl Store {
    /// Begins a file of the state as of `now`; `None` when it has to be written without changes beside it, since a write failed.
    pub(crate) fn begin_beside(&mut self, now: &Snapshot) -> Result<Option<Beside>, GalleryError> {
        if let Some(rollback) = &self.rollback {
            return Err(GalleryError::RolledBack { path: self.path.clone(), rollback: rollback.clone() });
        }
        if self.unsettled.is_some() || self.latched.is_some() {
            return Ok(None);
        }
        let follows = (self.generation(), self.tail.epoch);
        let (fields, keys) = self.next_file(&BTreeMap::new(), now, None)?;
        let (medium, path, key) = (self.medium.clone(), self.path.clone(), self.key.share());
        Ok(Some(Beside { medium, path, key, fields, keys, follows }))
    }

    /// Puts the file in the place of the old one; false when something was changed meanwhile, and then nothing of it is left.
    pub(crate) fn finish_beside(&mut self, written: Written) -> Result<bool, GalleryError> {
        let Written { beside: Beside { fields, keys, follows, .. }, outcome } = written;
        let is_current = follows == (self.generation(), self.tail.epoch) && self.unsettled.is_none() && self.rollback.is_none();
        if !is_current && outcome.is_ok() {
            // Best effort: it goes at the next opening otherwise.
            let _ = self.medium.destroy(BESIDE, HEADER_BYTES);
            return Ok(false);
        }
        let (hash, bytes) = self.put_in_place(BESIDE, outcome).map_err(|error| self.not_replaced(error))?;
        self.file_bytes = bytes;
        self.settle(fields.epoch, Volume::written(&fields, keys, hash))?;
        // The epoch's second place may still be out of reach.
        self.expect_sound().map(|()| true)
    }
}
