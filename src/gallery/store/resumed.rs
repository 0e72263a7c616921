//! A writer whose memory is resumed twice, as a virtual machine's snapshot or CRIU makes it: for tests.

use std::sync::Arc;

use super::Store;
use crate::gallery::load::Volume;
use crate::gallery::medium::Medium;

impl Store {
    /// This very writer once more, key, counters and all, over another medium.
    pub(crate) fn resumed(&self, medium: Arc<dyn Medium>) -> Self {
        let volume = self.volume.as_ref().map(|volume| {
            let Volume { id, generation, epoch, dimension, header_hash, head, .. } = *volume;
            Volume { id, generation, epoch, dimension, keys: volume.keys.resumed(), header_hash, head }
        });
        Self {
            medium,
            path: self.path.clone(),
            key: self.key.share(),
            volume,
            tail: self.tail,
            appender: self.appender.resumed(),
            tried: self.tried,
            unsettled: self.unsettled.clone(),
            latched: self.latched.clone(),
            witness: self.witness,
            next_serial: self.next_serial,
            rollback: self.rollback.clone(),
            file_bytes: self.file_bytes,
            remembers: self.remembers,
            removals: self.removals,
            opened_at: self.opened_at,
            opened: None,
            heard: self.heard,
            counter: None,
        }
    }
}
