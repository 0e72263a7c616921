//! Reading what lies on the medium: the sealed file, the journal behind it and the epoch's second place, and what the three say
//! together. Nothing here changes anything but [`clear_up`] and [`write_unfinished`], whose file nobody reads until it is renamed.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use super::GalleryError;
use super::format::{self, Entry, Fields, ID_BYTES, RECORD_TARGET_BYTES};
use super::index::Matrix;
use super::journal::{self, Replayed, Tail};
use super::medium::{EPOCH, Medium};
use super::seal::{BLOCK_BYTES, HEADER_BYTES, Header, Keys, SealError, Sealer, SealingKey, TAG_BYTES};
use super::snapshot::Snapshot;
use super::store::{BESIDE, FILE, GRAPH_UNFINISHED, JOURNAL, UNFINISHED, rotation_of};
use super::witness::Witness;
use crate::types::{ModelId, Person};

/// How much sealed output is gathered for one write call, in bytes.
const WRITE_BYTES: usize = 1 << 20;
/// The most threads that open records side by side.
const MOST_THREADS: usize = 4;
/// How often a reader without the lock looks again when what it read does not fit together: the writer may be between two files.
const LOOKS: usize = 4;

/// One generation's file, as far as the journal and the next generation need it.
pub(crate) struct Volume {
    pub(crate) id: [u8; ID_BYTES],
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    pub(crate) dimension: usize,
    pub(crate) keys: Keys,
    pub(crate) header_hash: [u8; BLOCK_BYTES],
    pub(crate) head: [u8; TAG_BYTES],
}

impl Volume {
    /// Keys and an id for a file that is not there yet.
    pub(crate) fn unwritten(id: [u8; ID_BYTES], keys: Keys) -> Self {
        let (header_hash, head) = ([0; BLOCK_BYTES], [0; TAG_BYTES]);
        Self { id, generation: 0, epoch: 0, dimension: 0, keys, header_hash, head }
    }

    /// The file that was just written.
    pub(crate) fn written(fields: &Fields, keys: Keys, header_hash: [u8; BLOCK_BYTES]) -> Self {
        let mut head = [0; TAG_BYTES];
        head.copy_from_slice(&header_hash[..TAG_BYTES]);
        let Fields { id, generation, epoch, dimension, .. } = *fields;
        Self { id, generation, epoch, dimension, keys, header_hash, head }
    }
}

/// What was noticed about a gallery's age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollback {
    /// The number of the last change that is there.
    pub found: u64,
    /// The number of the last change that was seen; `None` when nothing authentic tells.
    pub expected: Option<u64>,
    /// What it looks like.
    pub reason: &'static str,
}

impl Rollback {
    /// Nothing is there where something was.
    pub(crate) fn gone(expected: u64) -> Self {
        Self { found: 0, expected: Some(expected), reason: "the gallery that was here is gone" }
    }
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            Some(expected) => write!(f, "{} (change {} is the last one here, {expected} was)", self.reason, self.found),
            None => write!(f, "{} (change {} is the last one here)", self.reason, self.found),
        }
    }
}

/// What the medium holds.
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// None for a file of version 1.
    pub(crate) volume: Option<Volume>,
    pub(crate) tail: Tail,
    /// Why reading the journal stopped before its end, if it did.
    pub(crate) stopped: Option<&'static str>,
    /// Whether the journal there is another generation's.
    pub(crate) foreign: bool,
    /// Whether the journal there is of a version that nothing is appended to.
    pub(crate) is_outdated: bool,
    pub(crate) removes: bool,
    pub(crate) generation: u64,
    pub(crate) file_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) version: u8,
    pub(crate) rollback: Option<Rollback>,
    /// The tag of each change that has one: of the file's own, and of the journal's.
    pub(crate) heads: Vec<(u64, [u8; TAG_BYTES])>,
}

impl Loaded {
    /// Refuses a gallery of another model or dimension.
    pub(crate) fn expect_model(&self, path: &Path, model: &ModelId, dimension: usize) -> Result<(), GalleryError> {
        if self.snapshot.model() == model && self.snapshot.dimension() == dimension {
            return Ok(());
        }
        Err(GalleryError::OtherModel {
            path: path.to_owned(),
            stored: format!("{} with {} numbers", self.snapshot.model(), self.snapshot.dimension()),
            asked: format!("{model} with {dimension} numbers"),
        })
    }
}

/// A file's bytes, or `None` when there is none, cleared when they go: something may be opened in place.
pub(crate) fn read_or_none(medium: &dyn Medium, name: &str, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, GalleryError> {
    Ok(read_sealed(medium, name, path)?.map(Zeroizing::new))
}

/// The same, for who clears what is opened in place.
fn read_sealed(medium: &dyn Medium, name: &str, path: &Path) -> Result<Option<Vec<u8>>, GalleryError> {
    match medium.read(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GalleryError::Io { doing: "reading", path: path.with_file_name(name), source }),
    }
}

/// Takes away what an interrupted write left, the keys that it was sealed with first.
pub(crate) fn clear_up(medium: &dyn Medium, path: &Path) -> Result<(), GalleryError> {
    for name in [UNFINISHED, BESIDE, GRAPH_UNFINISHED] {
        match medium.destroy(name, HEADER_BYTES) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(GalleryError::write("clearing up beside", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// [`load`] for a reader beside a writer: what does not fit together is looked at again.
pub(crate) fn load_beside(medium: &dyn Medium, path: &Path, key: &SealingKey) -> Result<Option<Loaded>, GalleryError> {
    let mut looks = LOOKS;
    loop {
        looks -= 1;
        let loaded = load(medium, path, key);
        let fits = loaded.as_ref().is_ok_and(|loaded| loaded.as_ref().is_none_or(|l| l.rollback.is_none() && l.stopped.is_none()));
        if fits || looks == 0 {
            return loaded;
        }
    }
}

/// Reads everything; `None` when there is no gallery.
pub(crate) fn load(medium: &dyn Medium, path: &Path, key: &SealingKey) -> Result<Option<Loaded>, GalleryError> {
    // The second place first: a writer advances it last, so that what is read later is never behind it.
    let witness = read_or_none(medium, EPOCH, path)?.and_then(|bytes| Witness::read(&bytes, key));
    let Some(mut file) = read_sealed(medium, FILE, path)? else { return Ok(None) };
    let file_bytes = file.len() as u64;
    let sealed = |error| GalleryError::sealed(path, error);
    let header = Header::open(key, &file).map_err(sealed)?;
    let snapshot = open_records(&header, &mut file).map_err(sealed)?;
    drop(file);
    let Header { fields, keys, hash, .. } = header;
    let (version, generation) = (fields.version.number(), fields.generation);
    let Some(keys) = keys else {
        let rollback = witness.filter(|witness| (witness.generation, witness.epoch) > (generation, fields.epoch));
        let rollback = rollback.map(|witness| older(fields.epoch, witness));
        let tail = Tail { epoch: fields.epoch, head: [0; TAG_BYTES], end: 0 };
        return Ok(Some(Loaded {
            snapshot,
            volume: None,
            tail,
            stopped: None,
            foreign: false,
            is_outdated: false,
            removes: false,
            generation,
            file_bytes,
            journal_bytes: 0,
            version,
            rollback,
            heads: Vec::new(),
        }));
    };
    let snapshot = snapshot.under(Arc::new(rotation_of(&keys, fields.dimension)));
    let volume = Volume::written(&fields, keys, hash);
    let mut journal = read_or_none(medium, JOURNAL, path)?.unwrap_or_default();
    let replayed = journal::replay(&mut journal, &volume.base(), volume.epoch);
    let rollback = judge(witness, &volume, &replayed);
    let Replayed { changes, tail, stopped, removes, foreign, mut heads, is_outdated } = replayed;
    heads.push((volume.epoch, volume.head));
    let snapshot = if changes.is_empty() { snapshot } else { snapshot.with(changes) };
    Ok(Some(Loaded {
        snapshot: snapshot.at_generation(tail.epoch),
        volume: Some(volume),
        tail,
        stopped,
        foreign: foreign.is_some(),
        is_outdated,
        removes,
        generation,
        file_bytes,
        journal_bytes: journal.len() as u64,
        version,
        rollback,
        heads,
    }))
}

/// What the second place says of what was found.
fn judge(witness: Option<Witness>, volume: &Volume, replayed: &Replayed) -> Option<Rollback> {
    let found = replayed.tail.epoch;
    let Some(witness) = witness else {
        return Some(Rollback { found, expected: None, reason: "its epoch's second place is missing or not authentic" });
    };
    if witness.id != volume.id {
        return Some(Rollback { found, expected: None, reason: "the epoch's second place is of another gallery" });
    }
    if (witness.generation, witness.epoch) > (volume.generation, found) || witness.epoch > found {
        return Some(match replayed.stopped {
            Some(_) => Rollback { found, expected: Some(witness.epoch), reason: "its journal is damaged and changes are lost" },
            None => older(found, witness),
        });
    }
    // The same change with another tag: what was written after a state was put back, put back in its turn.
    let is_other = |head: [u8; TAG_BYTES]| witness.generation == volume.generation && head != witness.head;
    let at_witness = replayed.heads.iter().find(|(epoch, _)| *epoch == witness.epoch).map(|(_, head)| *head);
    let at_witness = at_witness.or((witness.epoch == volume.epoch).then_some(volume.head));
    at_witness.filter(|head| is_other(*head)).map(|_| Rollback {
        found,
        expected: Some(witness.epoch),
        reason: "it is not the state that was seen last",
    })
}

fn older(found: u64, witness: Witness) -> Rollback {
    Rollback { found, expected: Some(witness.epoch), reason: "an older state was put back" }
}

/// Opens a file's records in place, side by side. What was sealed in them is cleared once it was read.
fn open_records(header: &Header, file: &mut [u8]) -> Result<Snapshot, SealError> {
    let fields = &header.fields;
    let total = file.len();
    let damaged = |offset, reason| SealError::Damaged { offset, reason };
    if fields.templates.saturating_mul(4 * fields.dimension) > total {
        return Err(damaged(total, "the file is too short for its templates"));
    }
    let mut records = header.split(file)?;
    let is_only = records.len() == 1;
    let opened = in_parallel(&mut records, 8, |sealed| {
        let at = sealed.at;
        let plain = header.open_record(sealed)?;
        let entries = if plain.is_empty() && !is_only {
            Err(SealError::Damaged { offset: at, reason: "an empty record" })
        } else {
            format::decode_record(plain, fields.dimension).map_err(|e| SealError::from_format(e, at))
        };
        sealed.clear();
        Ok((at, entries?))
    });
    let mut all: Vec<Entry> = Vec::with_capacity(fields.people.min(total));
    let mut room = fields.templates;
    for record in opened {
        let (at, entries) = record?;
        for entry in entries {
            if all.last().is_some_and(|last| last.person.id >= entry.person.id) {
                return Err(damaged(at, "people out of order"));
            }
            let templates = entry.values.len() / fields.dimension;
            room = room.checked_sub(templates).ok_or(damaged(at, "more templates than the header says"))?;
            all.push(entry);
        }
    }
    if room != 0 || all.len() != fields.people {
        return Err(damaged(total, "fewer people or templates than the header says"));
    }
    let mut snapshot = Snapshot::empty(fields.epoch, fields.model.clone(), fields.dimension, fields.templates);
    let mut shares: Vec<Vec<Entry>> = Vec::new();
    let share = all.len().div_ceil(MOST_THREADS).max(1);
    while !all.is_empty() {
        let rest = all.split_off(share.min(all.len()));
        shares.push(std::mem::replace(&mut all, rest));
    }
    for (people, matrix) in in_parallel(&mut shares, 1, |share| matrix_of(std::mem::take(share), fields.dimension)) {
        snapshot.append(people, &matrix);
    }
    Ok(snapshot)
}

/// People with how many templates each has, and the templates.
fn matrix_of(entries: Vec<Entry>, dimension: usize) -> (Vec<(Arc<Person>, usize)>, Matrix) {
    let templates = |entry: &Entry| entry.values.len() / dimension;
    let mut matrix = Matrix::with_capacity(dimension, entries.iter().map(templates).sum());
    let people = entries.into_iter().map(|entry| {
        entry.values.chunks_exact(dimension).for_each(|template| matrix.push(template));
        (Arc::new(entry.person), entry.values.len() / dimension)
    });
    (people.collect(), matrix)
}

/// What `work` makes of each item, in their order: side by side where each thread gets so many.
fn in_parallel<Item: Send, T: Send>(items: &mut [Item], least: usize, work: impl Fn(&mut Item) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MOST_THREADS).min(items.len() / least).max(1);
    if threads == 1 {
        return items.iter_mut().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    let work = &work;
    std::thread::scope(|scope| {
        let parts = items.chunks_mut(share);
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || part.iter_mut().map(work).collect::<Vec<T>>())).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.flatten().collect()
    })
}

/// How many people and templates of a damaged file can still be read, record by record, and which records cannot.
pub(crate) struct Examined {
    pub(crate) people: usize,
    pub(crate) templates: usize,
    pub(crate) lost: Vec<String>,
}

/// Looks at each record of a file whose header is sound, whatever is wrong with the others.
pub(crate) fn examine(medium: &dyn Medium, path: &Path, key: &SealingKey) -> Result<Examined, GalleryError> {
    let mut file = read_or_none(medium, FILE, path)?.ok_or_else(|| GalleryError::Missing { path: path.to_owned() })?;
    let header = Header::open(key, &file).map_err(|error| GalleryError::sealed(path, error))?;
    let mut out = Examined { people: 0, templates: 0, lost: Vec::new() };
    let dimension = header.fields.dimension;
    let (records, cut) = header.split_leniently(&mut file);
    let count = records.len();
    for (number, mut sealed) in records.into_iter().enumerate() {
        let entries = header.open_record(&mut sealed).ok().and_then(|plain| format::decode_record(plain, dimension).ok());
        match entries {
            Some(entries) => {
                out.people += entries.len();
                out.templates += entries.iter().map(|entry| entry.values.len() / dimension).sum::<usize>();
            }
            None => out.lost.push(format!("record {} of {count} cannot be opened", number + 1)),
        }
    }
    if cut {
        out.lost.push("the file ends early: every record behind its end".to_owned());
    }
    let missing = header.fields.people.saturating_sub(out.people);
    if missing > 0 {
        out.lost.push(format!("{missing} of {} people", header.fields.people));
    }
    Ok(out)
}

/// Writes a whole snapshot under another `name` beside the file, durably. Gives the header's hash and how many bytes were written.
pub(crate) fn write_unfinished(
    (medium, name): (&dyn Medium, &'static str),
    path: &Path,
    key: &SealingKey,
    fields: &Fields,
    keys: &Keys,
    next: &Snapshot,
) -> Result<([u8; BLOCK_BYTES], u64), GalleryError> {
    let (mut sealer, header) = Sealer::begin(key, fields, keys);
    let mut output = Output { medium, name, offset: 0, sealed: Vec::with_capacity(WRITE_BYTES + 2 * RECORD_TARGET_BYTES) };
    output.sealed.extend_from_slice(&header);
    let largest = next.people().map(|(person, templates)| format::entry_bytes(person, templates, fields.dimension)).max();
    // Sized for the longest record, so that growing leaves no copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(RECORD_TARGET_BYTES + largest.unwrap_or(0)));
    let failed = |source| GalleryError::write("writing", path, source);
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
    output.write_when(0).and_then(|()| medium.sync(name)).map_err(failed)?;
    Ok((Header::hash_of(&header), output.offset))
}

/// Sealed bytes on their way out.
struct Output<'a> {
    medium: &'a dyn Medium,
    name: &'static str,
    offset: u64,
    sealed: Vec<u8>,
}

impl Output<'_> {
    /// Writes what has gathered when it is at least `bytes`.
    fn write_when(&mut self, bytes: usize) -> io::Result<()> {
        if self.sealed.len() >= bytes.max(1) {
            self.medium.write(self.name, self.offset, &self.sealed)?;
            self.offset += self.sealed.len() as u64;
            self.sealed.clear();
        }
        Ok(())
    }
}
