//! The sealed copy of the index's graph beside the gallery: kept so that a start need not build it again. Lost, damaged or of another
//! generation it is no error: it is built again in the background.

use zeroize::Zeroizing;

use super::{GRAPH, GRAPH_UNFINISHED, Store};
use crate::gallery::GalleryError;
use crate::gallery::seal::KeyError;
use crate::gallery::seal::graph::{GRAPH_HEADER_BYTES, GraphSeal};

/// A copy that is being written: in steps, so that enrolments go on between them.
pub(crate) struct Keeping {
    seal: GraphSeal,
    generation: u64,
    removals: u64,
    offset: u64,
}

impl Store {
    /// Removals since the opening: a graph that was built before one still knows who was removed.
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    /// The generation of the file that is there.
    pub(crate) fn generation(&self) -> u64 {
        self.volume.as_ref().map_or(0, |volume| volume.generation)
    }

    /// Whether a copy may be kept that was built `removals` removals after the opening: not when somebody whom it knows is gone since,
    /// and not while templates of somebody who is gone are on the medium still.
    fn may_keep(&self, removals: u64) -> bool {
        self.rollback.is_none()
            && self.unsettled.is_none()
            && self.latched.is_none()
            && !self.remembers
            && self.removals == removals
    }

    /// Begins a copy; `None` when none may be kept.
    pub(crate) fn begin_keeping(&mut self, removals: u64) -> Result<Option<Keeping>, GalleryError> {
        let Some(volume) = self.volume.as_ref().filter(|_| self.may_keep(removals)) else { return Ok(None) };
        let generation = volume.generation;
        let seal = GraphSeal::begin(&volume.keys, generation, self.tail.epoch)?;
        let keeping = Keeping { seal, generation, removals, offset: 0 };
        self.put_part(keeping, |keeping, out| {
            out.extend_from_slice(keeping.seal.header());
            Ok(())
        })
        .map(Some)
    }

    /// Writes the next part; the last one puts the copy in its place. `None` when it may not be kept any more: nothing of it is left.
    pub(crate) fn keep_part(&mut self, keeping: Keeping, plain: &mut [u8], last: bool) -> Result<Option<Keeping>, GalleryError> {
        if self.generation() != keeping.generation || !self.may_keep(keeping.removals) {
            let _ = self.medium.remove(GRAPH_UNFINISHED);
            return Ok(None);
        }
        let keeping = self.put_part(keeping, |keeping, out| keeping.seal.seal(plain, last, out))?;
        if last {
            let placed = self.medium.rename(GRAPH_UNFINISHED, GRAPH).and_then(|()| self.medium.sync_folder());
            placed.map_err(|error| GalleryError::write("writing", &self.path.with_file_name(GRAPH), error))?;
        }
        Ok(Some(keeping))
    }

    fn put_part(
        &mut self,
        mut keeping: Keeping,
        make: impl FnOnce(&mut Keeping, &mut Vec<u8>) -> Result<(), KeyError>,
    ) -> Result<Keeping, GalleryError> {
        let mut sealed = Vec::new();
        make(&mut keeping, &mut sealed)?;
        let written =
            self.medium.write(GRAPH_UNFINISHED, keeping.offset, &sealed).and_then(|()| self.medium.sync(GRAPH_UNFINISHED));
        if let Err(error) = written {
            let _ = self.medium.remove(GRAPH_UNFINISHED);
            return Err(GalleryError::write("writing", &self.path.with_file_name(GRAPH), error));
        }
        keeping.offset += sealed.len() as u64;
        Ok(keeping)
    }

    /// Whether a copy is there that belongs to another generation's file. Its header says so: an opening waits for no more of it.
    pub(super) fn has_foreign_graph(&self) -> bool {
        let is_ours = |head: Vec<u8>| GraphSeal::generation_of(&head) == Some(self.generation());
        self.medium.read_head(GRAPH, GRAPH_HEADER_BYTES).is_ok_and(|head| !is_ours(head))
    }

    /// The copy's plain bytes, when there is one of this generation and nobody was removed since it was opened.
    pub(crate) fn kept_graph(&self) -> Option<Zeroizing<Vec<u8>>> {
        let volume = self.volume.as_ref().filter(|_| self.may_keep(self.removals))?;
        let mut file = Zeroizing::new(self.medium.read(GRAPH).ok()?);
        let parts = GraphSeal::open(&volume.keys, volume.generation, &mut file);
        if parts.is_none() {
            log::info!("the kept search graph is of another state or damaged: it is built again");
        }
        // The parts close up, so that no second copy is made.
        let mut end = 0;
        for part in parts? {
            let length = part.len();
            file.copy_within(part, end);
            end += length;
        }
        file.truncate(end);
        Some(file)
    }
}
