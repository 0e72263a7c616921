//! The store: one sealed file that holds a whole snapshot, replaced as a whole. A new file is written beside it, made durable, put
//! in its place and the folder made durable; `FORMAT.md` argues why a reader finds the old or the new state and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::GalleryError;
use super::format::{self, Fields, RECORD_TARGET_BYTES};
use super::medium::Medium;
use super::seal::{Opener, SealError, Sealer, SealingKey};
use super::snapshot::Snapshot;

/// The sealed file.
pub(crate) const FILE: &str = "people.gallery";
/// What a write makes before it takes the file's place.
pub(crate) const UNFINISHED: &str = "people.gallery.new";
/// What the one writer holds a lock on.
pub(crate) const LOCK: &str = "lock";

/// How much sealed output is gathered for one write call, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// The writer's side of the file.
pub(crate) struct Store {
    medium: Box<dyn Medium>,
    path: PathBuf,
    key: SealingKey,
    latched: bool,
}

/// Reads and opens the whole file; `None` when there is none.
pub(crate) fn load(medium: &dyn Medium, path: &Path, key: &SealingKey) -> Result<Option<Snapshot>, GalleryError> {
    let mut file = match medium.read(FILE) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(GalleryError::Io { doing: "reading", path: path.to_owned(), source }),
    };
    open(&mut file, key).map(Some).map_err(|error| GalleryError::sealed(path, error))
}

/// Opens a file's bytes in place; what was sealed in them is plain afterwards.
fn open(file: &mut [u8], key: &SealingKey) -> Result<Snapshot, SealError> {
    let damaged = |offset, reason| SealError::Damaged { offset, reason };
    let mut opener = Opener::begin(key, file)?;
    let fields = Fields::decode(file).map_err(|e| SealError::from_format(e, 0))?;
    let dimension = fields.dimension;
    if fields.templates.saturating_mul(4 * dimension) > file.len() {
        return Err(damaged(file.len(), "the file is too short for its templates"));
    }
    let mut snapshot = Snapshot::empty(fields.generation, fields.model, dimension, fields.templates);
    let mut room = fields.templates;
    let mut first = true;
    loop {
        let (at, plain, last) = opener.next(file)?;
        if plain.is_empty() && !(first && last) {
            return Err(damaged(at, "an empty record"));
        }
        for entry in format::decode_record(plain, dimension).map_err(|e| SealError::from_format(e, at))? {
            if snapshot.people().last().is_some_and(|(before, _)| before.id >= entry.person.id) {
                return Err(damaged(at, "people out of order"));
            }
            let templates = entry.values.len() / dimension;
            room = room.checked_sub(templates).ok_or(damaged(at, "more templates than the header says"))?;
            snapshot.begin(Arc::new(entry.person));
            entry.values.chunks_exact(dimension).for_each(|template| snapshot.push(template));
        }
        first = false;
        if last {
            break;
        }
    }
    if room != 0 || snapshot.len() != fields.people {
        return Err(damaged(file.len(), "fewer people or templates than the header says"));
    }
    Ok(snapshot)
}

impl Store {
    /// Takes hold of the folder for writing, and clears away what an interrupted write left.
    pub(crate) fn new(medium: Box<dyn Medium>, path: &Path, key: &SealingKey) -> Result<Self, GalleryError> {
        match medium.remove(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GalleryError::write("clearing up beside", path, error)),
            _ => Ok(Self { medium, path: path.to_owned(), key: key.share(), latched: false }),
        }
    }

    /// Reads the whole file; `None` when there is none.
    pub(crate) fn load(&self) -> Result<Option<Snapshot>, GalleryError> {
        load(self.medium.as_ref(), &self.path, &self.key)
    }

    /// Makes `next` the file's content, durably. On any error but [`GalleryError::Unsettled`] the old content is untouched.
    pub(crate) fn commit(&mut self, next: &Snapshot) -> Result<(), GalleryError> {
        if self.latched {
            return Err(GalleryError::Latched { path: self.path.clone() });
        }
        if let Err(error) = self.replace(next) {
            // Best effort: it goes at the next opening otherwise.
            let _ = self.medium.remove(UNFINISHED);
            return Err(error);
        }
        self.medium.sync_folder().map_err(|source| {
            self.latched = true;
            GalleryError::Unsettled { path: self.path.clone(), source }
        })
    }

    fn replace(&self, next: &Snapshot) -> Result<(), GalleryError> {
        let failed = |source| GalleryError::write("writing", &self.path, source);
        self.write_unfinished(next)?;
        self.medium.sync(UNFINISHED).map_err(failed)?;
        self.medium.rename(UNFINISHED, FILE).map_err(failed)
    }

    fn write_unfinished(&self, next: &Snapshot) -> Result<(), GalleryError> {
        let stats = next.stats();
        let fields = Fields {
            generation: stats.generation,
            dimension: stats.dimension,
            people: stats.people,
            templates: stats.templates,
            model: stats.model,
        };
        let (mut sealer, header) = Sealer::begin(&self.key, &fields.encode())?;
        let mut output = Output { medium: self.medium.as_ref(), offset: 0, sealed: header.to_vec() };
        let largest = next.people().map(|(person, templates)| format::entry_bytes(person, templates, fields.dimension)).max();
        // Sized for the longest record, so that growing leaves no copy behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(RECORD_TARGET_BYTES + largest.unwrap_or(0)));
        let failed = |source| GalleryError::write("writing", &self.path, source);
        for index in 0..next.len() {
            if plain.len() >= RECORD_TARGET_BYTES {
                sealer.seal(&mut plain, &mut output.sealed);
                plain.clear();
                output.write_when(WRITE_BYTES).map_err(failed)?;
            }
            let (person, templates, values) = next.entry(index);
            format::encode_entry(&mut plain, person, templates, values);
        }
        sealer.seal_last(&mut plain, &mut output.sealed);
        output.write_when(0).map_err(failed)
    }
}

/// Sealed bytes on their way out.
struct Output<'a> {
    medium: &'a dyn Medium,
    offset: u64,
    sealed: Vec<u8>,
}

impl Output<'_> {
    /// Writes what has gathered when it is at least `bytes`.
    fn write_when(&mut self, bytes: usize) -> io::Result<()> {
        if self.sealed.len() >= bytes.max(1) {
            self.medium.write(UNFINISHED, self.offset, &self.sealed)?;
            self.offset += self.sealed.len() as u64;
            self.sealed.clear();
        }
        Ok(())
    }
}
