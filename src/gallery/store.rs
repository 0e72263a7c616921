//! The store: a sealed file that holds a whole snapshot, a journal of what was changed since, and the epoch's second place, which
//! remembers how far both had come. A change is one append; now and then the file is written anew beside itself and put in its own
//! place. `FORMAT.md` argues why a reader finds the old or the new state and nothing else.

mod beside;
mod graph;
#[cfg(test)]
mod resumed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::GalleryError;
use super::format::{Fields, ID_BYTES, Version};
use super::journal::{self, Appender, Base, Tail};
use super::load::{self, Loaded, Volume};
use super::medium::{EPOCH, Medium};
use super::rotation::Rotation;
use super::seal::{ContentMark, HEADER_BYTES, Keys, SealingKey, TAG_BYTES, random};
use super::snapshot::{Change, Snapshot};
use super::witness::{Counter, Witness};
use crate::types::{ModelId, PersonId};

pub(crate) use load::Rollback;

/// The sealed file.
pub(crate) const FILE: &str = "people.gallery";
/// What a write makes before it takes the file's place.
pub(crate) const UNFINISHED: &str = "people.gallery.new";
/// What a write makes that changes go on beside.
pub(crate) const BESIDE: &str = "people.gallery.beside";
/// What was changed since.
pub(crate) const JOURNAL: &str = "people.journal";
/// The sealed copy of the index's graph, where there is one.
pub(crate) const GRAPH: &str = "people.graph";
/// What it is until it is whole.
pub(crate) const GRAPH_UNFINISHED: &str = "people.graph.new";
/// What the one writer holds a lock on.
pub(crate) const LOCK: &str = "lock";

/// A journal shorter than this is never worth writing the file anew for.
const JOURNAL_BYTES: u64 = 1 << 20;

/// The writer's side.
pub(crate) struct Store {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    key: SealingKey,
    /// What lies on the medium; `None` for a file of version 1 that may not be written anew.
    volume: Option<Volume>,
    tail: Tail,
    appender: Appender,
    /// The highest generation that was tried: a number is never used twice.
    tried: u64,
    /// Why the next change must write the file anew rather than append, if it must.
    unsettled: Option<String>,
    /// What a write failed with: until the file could be written anew, nothing is changed.
    latched: Option<String>,
    witness: Option<Witness>,
    next_serial: u64,
    rollback: Option<Rollback>,
    file_bytes: u64,
    /// Whether templates of somebody who was removed are still on the medium.
    remembers: bool,
    /// How many changes since the opening took somebody or some template away.
    removals: u64,
    /// How far the gallery had come when it was opened.
    opened_at: u64,
    /// The tags by which a claim about what was opened is checked, until one was.
    opened: Option<OpenedAs>,
    /// The latest change that anybody outside has told of, and the latest generation.
    heard: (u64, u64),
    /// Hardware that counts generations and cannot go back.
    counter: Option<Box<dyn Counter>>,
}

/// The state that was opened: which file, and the tag of each change in it that still has one.
struct OpenedAs {
    generation: u64,
    heads: Vec<(u64, [u8; TAG_BYTES])>,
}

/// What opening found: the writer and the state.
pub(crate) type Opened = (Store, Snapshot);

impl Store {
    /// Takes hold of the folder for writing: clears away what an interrupted write left, makes an empty gallery where there is none
    /// and `create` allows it, and writes one of version 1 anew in this version.
    pub(crate) fn open(
        medium: Arc<dyn Medium>,
        path: &Path,
        key: &SealingKey,
        (model, dimension): (&ModelId, usize),
        create: bool,
    ) -> Result<Opened, GalleryError> {
        load::clear_up(medium.as_ref(), path)?;
        let loaded = load::load(medium.as_ref(), path, key)?;
        let epoch_file = load::read_or_none(medium.as_ref(), EPOCH, path)?.unwrap_or_default();
        let mut store = Self {
            medium,
            path: path.to_owned(),
            key: key.share(),
            volume: None,
            tail: Tail { epoch: 0, head: [0; TAG_BYTES], end: 0 },
            appender: Appender::new(),
            tried: 0,
            unsettled: None,
            latched: None,
            witness: Witness::read(&epoch_file, key),
            next_serial: Witness::next_serial(&epoch_file, key),
            rollback: None,
            file_bytes: 0,
            remembers: false,
            removals: 0,
            opened_at: 0,
            opened: None,
            heard: (0, 0),
            counter: None,
        };
        match loaded {
            None if !create => Err(GalleryError::Missing { path: path.to_owned() }),
            None => {
                let snapshot = store.create(model, dimension)?;
                Ok((store, snapshot))
            }
            Some(loaded) => {
                loaded.expect_model(path, model, dimension)?;
                store.take_up(loaded)
            }
        }
    }

    /// Makes `next`, which is what it was with `changes`, durable; [`Store::expect_witnessed`] says whether its epoch is too. On any
    /// error but [`GalleryError::Unsettled`] nothing was changed.
    pub(crate) fn commit(&mut self, changes: &BTreeMap<PersonId, Change>, next: &Snapshot) -> Result<(), GalleryError> {
        if let Some(rollback) = &self.rollback {
            return Err(GalleryError::RolledBack { path: self.path.clone(), rollback: rollback.clone() });
        }
        self.expect_sound()?;
        let takes = |change: &Change| matches!(change, Change::Remove | Change::Renew { .. });
        // Before it is known whether it succeeds: a graph that is being copied must stop in any case.
        self.removals += u64::from(changes.values().any(takes));
        let plain = if self.unsettled.is_none() { journal::plain(changes, next.dimension()) } else { None };
        match plain {
            Some(mut plain) => self.append(&mut plain)?,
            None => return self.rewrite_with(changes, next, None),
        }
        self.remembers |= changes.values().any(|change| matches!(change, Change::Remove));
        Ok(())
    }

    /// Writes the file anew with the same content: the journal begins again, the data key is a new one, and what was sealed under the
    /// old one cannot be opened any more.
    pub(crate) fn compact(&mut self, now: &Snapshot) -> Result<(), GalleryError> {
        if let Some(rollback) = &self.rollback {
            return Err(GalleryError::RolledBack { path: self.path.clone(), rollback: rollback.clone() });
        }
        self.rewrite(now, None)?;
        // The epoch's second place may still be out of reach.
        self.expect_sound()
    }

    /// Whether the file should be written anew: somebody was removed, or the journal has become long.
    pub(crate) fn is_due(&self) -> bool {
        self.rollback.is_none()
            && (self.remembers || self.latched.is_some() || self.tail.end as u64 > JOURNAL_BYTES.max(self.file_bytes / 4))
    }

    /// Whether templates of somebody who was removed are still on the medium.
    pub(crate) fn remembers(&self) -> bool {
        self.remembers
    }

    /// What a write failed with, while nothing may be changed for it.
    pub(crate) fn latched(&self) -> Option<&str> {
        self.latched.as_deref()
    }

    /// After a change that was made: an error when its epoch did not reach the second place.
    pub(crate) fn expect_witnessed(&self) -> Result<(), GalleryError> {
        let unwitnessed = |reason: &String| GalleryError::Unwitnessed { path: self.path.clone(), reason: reason.clone() };
        self.latched.as_ref().map(unwitnessed).map_or(Ok(()), Err)
    }

    fn expect_sound(&self) -> Result<(), GalleryError> {
        let latched = |reason: &String| GalleryError::Latched { path: self.path.clone(), reason: reason.clone() };
        self.latched.as_ref().map(latched).map_or(Ok(()), Err)
    }

    /// A write failed: nothing is appended to what it left, and nothing is changed at all until a whole file could be written.
    fn latch(&mut self, error: &std::io::Error) {
        self.unsettled = Some(error.to_string());
        self.latched = Some(error.to_string());
    }

    /// What is wrong with the gallery's age, if anything.
    pub(crate) fn rollback(&self) -> Option<&Rollback> {
        self.rollback.as_ref()
    }

    /// From now on `counter` knows each generation too; a file that is older than it is a rollback.
    pub(crate) fn attach(&mut self, counter: Box<dyn Counter>) -> std::io::Result<()> {
        let counted = counter.value()?;
        self.counter = Some(counter);
        if counted > self.tried && self.rollback.is_none() {
            let found = self.tail.epoch;
            self.rollback = Some(Rollback { found, expected: None, reason: "the hardware counter has seen a later generation" });
        }
        self.tried = self.tried.max(counted);
        if self.rollback.is_none() { self.count() } else { Ok(()) }
    }

    /// The gallery's id.
    pub(crate) fn id(&self) -> Option<[u8; ID_BYTES]> {
        self.volume.as_ref().map(|volume| volume.id)
    }

    /// Of which file the last change is, its number and its tag.
    pub(crate) fn head(&self) -> (u64, u64, [u8; TAG_BYTES]) {
        (self.generation(), self.tail.epoch, self.tail.head)
    }

    /// Somebody outside remembers change number `epoch` of this gallery from before it was opened, and where given, of which file it was
    /// and its tag. Files only ever grow in their number, and a change of one file has one tag.
    pub(crate) fn hear(&mut self, epoch: u64, file: Option<(u64, [u8; TAG_BYTES])>) {
        self.heard = (self.heard.0.max(epoch), self.heard.1.max(file.map_or(0, |(generation, _)| generation)));
        let reason = match (self.opened.take(), file) {
            _ if epoch > self.opened_at => Some("what this device said before and the broker kept tells of a later change"),
            (Some(opened), Some((generation, head))) => {
                let at_epoch = opened.heads.iter().find(|(known, _)| *known == epoch).map(|(_, head)| *head);
                let is_other = generation == opened.generation && at_epoch.is_some_and(|known| known != head);
                if generation > opened.generation {
                    Some("what this device said before and the broker kept tells of a later file")
                } else {
                    is_other.then_some("it is not the state that this device said it had and the broker kept")
                }
            }
            _ => None,
        };
        if let (Some(reason), None) = (reason, &self.rollback) {
            self.rollback = Some(Rollback { found: self.opened_at, expected: Some(epoch), reason });
        }
    }

    fn count(&mut self) -> std::io::Result<()> {
        let generation = self.volume.as_ref().map_or(0, |volume| volume.generation);
        match &mut self.counter {
            Some(counter) if counter.value()? < generation => counter.raise(generation),
            _ => Ok(()),
        }
    }

    /// Bytes in the journal.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.tail.end as u64
    }

    /// The state on the medium becomes the right one, whatever was there before. Gives it with its new number.
    pub(crate) fn accept(&mut self, now: &Snapshot) -> Result<Snapshot, GalleryError> {
        let remembered = self.witness.map_or((0, 0), |witness| (witness.generation, witness.epoch));
        self.tried = self.tried.max(remembered.0).max(self.heard.1);
        let next = now.with(BTreeMap::new()).at_generation(now.generation().max(remembered.1).max(self.heard.0) + 1);
        let next = match self.volume {
            Some(_) => next,
            None => self.renewed(&next)?,
        };
        self.rewrite(&next, None)?;
        self.rollback = None;
        Ok(next)
    }

    /// Seals everything anew: under another sealing key when one is given, under another rotation when asked. Gives the new state.
    pub(crate) fn rekey(&mut self, now: &Snapshot, key: Option<&SealingKey>, rotate: bool) -> Result<Snapshot, GalleryError> {
        if let Some(rollback) = &self.rollback {
            return Err(GalleryError::RolledBack { path: self.path.clone(), rollback: rollback.clone() });
        }
        let keys = if rotate { Some(Keys::generate()?) } else { None };
        let next = match &keys {
            Some(keys) => turned_anew(now, rotation_of(keys, now.dimension())),
            None => now.with(BTreeMap::new()),
        };
        if let Some(key) = key {
            let before = std::mem::replace(&mut self.key, key.share());
            // The epoch under the new key first: whichever of the two keys opens the file after a cut finds its witness.
            if let Some(witness) = self.witness
                && let Err(error) = self.bear_witness(witness)
            {
                self.key = before;
                return Err(GalleryError::write("writing", &self.path, error));
            }
            if let Err(error) = self.rewrite(&next, keys) {
                self.key = before;
                return Err(error);
            }
            return Ok(next);
        }
        self.rewrite(&next, keys)?;
        Ok(next)
    }

    fn create(&mut self, model: &ModelId, dimension: usize) -> Result<Snapshot, GalleryError> {
        let keys = Keys::generate()?;
        let id = random::<ID_BYTES>()?;
        let rotation = rotation_of(&keys, dimension);
        let snapshot = Snapshot::empty(1, model.clone(), dimension, 0).under(Arc::new(rotation));
        let forgotten = Witness { id, generation: 0, epoch: 0, head: [0; TAG_BYTES], serial: self.next_serial };
        match self.witness {
            // A gallery was here and is gone: the empty one is made, but it is not taken for the one that was.
            Some(witness) if witness.epoch > 0 => {
                self.rollback = Some(Rollback::gone(witness.epoch));
            }
            _ => self.bear_witness(forgotten).map_err(|error| GalleryError::write("writing", &self.path, error))?,
        }
        let rollback = self.rollback.take();
        self.volume = Some(Volume::unwritten(id, keys));
        let written = if rollback.is_some() {
            self.replace(&BTreeMap::new(), &snapshot, None).map(|_| ())
        } else {
            self.rewrite(&snapshot, None)
        };
        self.rollback = rollback;
        written.map(|()| snapshot)
    }

    fn take_up(mut self, loaded: Loaded) -> Result<Opened, GalleryError> {
        let Loaded {
            snapshot, volume, tail, stopped, foreign, is_outdated, removes, file_bytes, generation, rollback, heads, ..
        } = loaded;
        self.tried = generation;
        self.file_bytes = file_bytes;
        self.tail = tail;
        self.rollback = rollback;
        self.volume = volume;
        self.remembers = removes;
        self.opened_at = self.tail.epoch;
        self.opened = self.volume.as_ref().map(|_| OpenedAs { generation, heads });
        self.unsettled = stopped.map(|reason| format!("the journal ended in an interrupted write: {reason}"));
        if is_outdated {
            self.unsettled.get_or_insert_with(|| "the journal is of an older version".to_owned());
        }
        if self.rollback.is_some() {
            return Ok((self, snapshot));
        }
        if self.volume.is_none() {
            let next = self.renewed(&snapshot)?;
            if self.witness.is_none() {
                let id = self.volume.as_ref().map_or([0; ID_BYTES], |volume| volume.id);
                let epoch = snapshot.generation();
                let witness = Witness { id, generation, epoch, head: [0; TAG_BYTES], serial: self.next_serial };
                self.bear_witness(witness).map_err(|error| GalleryError::write("writing", &self.path, error))?;
            }
            self.rewrite(&next, None)?;
            return Ok((self, next));
        }
        // Left by a cut between the file's replacement and the end of what followed the old one: it may hold somebody who was removed.
        if foreign {
            self.drop_journal();
        } else if self.has_foreign_graph() {
            self.take_away(&[GRAPH]);
        }
        Ok((self, snapshot))
    }

    /// A gallery of version 1 as one of this: its templates turned, with keys of its own that the next file is sealed with.
    fn renewed(&mut self, now: &Snapshot) -> Result<Snapshot, GalleryError> {
        let keys = Keys::generate()?;
        let next = turned_anew(now, rotation_of(&keys, now.dimension())).at_generation(now.generation());
        self.volume = Some(Volume::unwritten(random::<ID_BYTES>()?, keys));
        Ok(next)
    }

    fn append(&mut self, plain: &mut [u8]) -> Result<(), GalleryError> {
        let Some(volume) = &self.volume else {
            return Err(GalleryError::OpenedReadOnly { path: self.path.clone() });
        };
        let path = &self.path;
        let is_new = self.tail.end == 0;
        let (bytes, tail) = self.appender.append(&volume.base(), self.tail, plain)?;
        if let Err(error) = self.medium.write(JOURNAL, self.tail.end as u64, &bytes) {
            // The nonce is spent: whatever part was written must never meet another record under it.
            self.latched = Some(error.to_string());
            self.unsettled = Some(error.to_string());
            let _ = self.medium.truncate(JOURNAL, self.tail.end as u64);
            return Err(GalleryError::write("writing", path, error));
        }
        let synced = self.medium.sync(JOURNAL).and_then(|()| if is_new { self.medium.sync_folder() } else { Ok(()) });
        if let Err(source) = synced {
            self.latch(&source);
            return Err(GalleryError::Unsettled { path: self.path.clone(), source });
        }
        self.tail = tail;
        self.witnessed();
        Ok(())
    }

    /// Writes the whole file in the place of the old one.
    fn rewrite(&mut self, next: &Snapshot, keys: Option<Keys>) -> Result<(), GalleryError> {
        self.rewrite_with(&BTreeMap::new(), next, keys)
    }

    /// [`Store::rewrite`] where `next` is what it was with `changes`, which no journal knows of.
    fn rewrite_with(
        &mut self,
        changes: &BTreeMap<PersonId, Change>,
        next: &Snapshot,
        keys: Option<Keys>,
    ) -> Result<(), GalleryError> {
        let volume = self.replace(changes, next, keys).map_err(|error| self.not_replaced(error))?;
        self.settle(next.generation(), volume)
    }

    /// A file was not put in the place of the other: what is there is untouched, and still a medium that takes no file takes no change.
    fn not_replaced(&mut self, error: GalleryError) -> GalleryError {
        self.latched = error.source_of_write().map(ToString::to_string).or(self.latched.take());
        error
    }

    /// After a file's rename: from here on it is what there is, as of change number `epoch`.
    fn settle(&mut self, epoch: u64, volume: Volume) -> Result<(), GalleryError> {
        if let Err(source) = self.medium.sync_folder() {
            self.latch(&source);
            return Err(GalleryError::Unsettled { path: self.path.clone(), source });
        }
        self.tail = Tail { epoch, head: volume.head, end: 0 };
        self.volume = Some(volume);
        self.appender = Appender::new();
        self.unsettled = None;
        self.latched = None;
        self.remembers = false;
        self.drop_journal();
        // Best effort: the old file has no name any more; without its header nothing that was sealed under its data key can be opened.
        if let Err(error) = self.medium.shred(HEADER_BYTES) {
            log::warn!("the replaced gallery file's keys could not be overwritten: {error}");
        }
        self.witnessed();
        if let Err(error) = self.count() {
            log::error!("the hardware counter did not go up, an older gallery put back now would not be noticed by it: {error}");
        }
        Ok(())
    }

    /// The file up to and with its rename. On an error the old content is untouched.
    fn replace(
        &mut self,
        changes: &BTreeMap<PersonId, Change>,
        next: &Snapshot,
        keys: Option<Keys>,
    ) -> Result<Volume, GalleryError> {
        let (fields, keys) = self.next_file(changes, next, keys)?;
        let written = load::write_unfinished((self.medium.as_ref(), UNFINISHED), &self.path, &self.key, &fields, &keys, next);
        let (hash, bytes) = self.put_in_place(UNFINISHED, written)?;
        self.file_bytes = bytes;
        Ok(Volume::written(&fields, keys, hash))
    }

    /// The header and the keys of the next file, whose generation nothing else has from here on. `next` is what lies on the medium
    /// with `changes`: its content is fixed before its data key is drawn.
    fn next_file(
        &mut self,
        changes: &BTreeMap<PersonId, Change>,
        next: &Snapshot,
        keys: Option<Keys>,
    ) -> Result<(Fields, Keys), GalleryError> {
        let Some(volume) = &self.volume else {
            return Err(GalleryError::OpenedReadOnly { path: self.path.clone() });
        };
        self.tried += 1;
        let stats = next.stats();
        // The tag of the last change tells all that is in the journal; then what is not.
        let mut mark = ContentMark::new();
        mark.take(&self.tail.head);
        mark.take(&self.tried.to_le_bytes());
        mark.take(&next.generation().to_le_bytes());
        journal::mark(changes, stats.dimension, &mut mark);
        let keys = keys.as_ref().unwrap_or(&volume.keys).next(mark)?;
        let fields = Fields {
            version: Version::Second,
            id: volume.id,
            generation: self.tried,
            epoch: next.generation(),
            dimension: stats.dimension,
            people: stats.people,
            templates: stats.templates,
            model: stats.model,
        };
        Ok((fields, keys))
    }

    /// Renames what was written under `name` over the file; on an error, of the writing or of this, nothing of it is left.
    fn put_in_place<T>(&self, name: &str, written: Result<T, GalleryError>) -> Result<T, GalleryError> {
        let renamed = written.and_then(|done| {
            let renamed = self.medium.rename(name, FILE);
            renamed.map(|()| done).map_err(|source| GalleryError::write("writing", &self.path, source))
        });
        if renamed.is_err() {
            // Best effort: it goes at the next opening otherwise.
            let _ = self.medium.destroy(name, HEADER_BYTES);
        }
        renamed
    }

    /// Takes the journal and the graph of an older generation away; should that fail, they are ignored for their generation and it is
    /// tried again.
    fn drop_journal(&mut self) {
        self.take_away(&[JOURNAL, GRAPH, GRAPH_UNFINISHED]);
    }

    fn take_away(&mut self, names: &[&str]) {
        let mut removed = Ok(false);
        for name in names {
            match self.medium.remove(name) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => removed = Err(error),
                Ok(()) => removed = removed.map(|_| true),
            }
        }
        let removed = removed.and_then(|any| if any { self.medium.sync_folder() } else { Ok(()) });
        if let Err(error) = removed {
            log::warn!("the gallery's old journal or graph could not be removed, this is tried again: {error}");
            self.remembers = true;
        }
    }

    /// The second place remembers this state. A failure takes nothing back: the change is durable; but it latches, and the next file
    /// goes with its epoch.
    fn witnessed(&mut self) {
        let Some(volume) = &self.volume else { return };
        let Tail { epoch, head, .. } = self.tail;
        let witness = Witness { id: volume.id, generation: volume.generation, epoch, head, serial: self.next_serial };
        if let Err(error) = self.bear_witness(witness) {
            log::error!("the gallery's epoch could not be written, an older gallery put back now would not be noticed: {error}");
            self.latch(&error);
        }
    }

    fn bear_witness(&mut self, witness: Witness) -> std::io::Result<()> {
        let witness = Witness { serial: self.next_serial, ..witness };
        let (at, slot) = witness.slot(&self.key);
        let is_new = match self.medium.write(EPOCH, at, &slot) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.medium.write(EPOCH, 0, &Witness::first_block())?;
                self.medium.write(EPOCH, at, &slot)?;
                true
            }
            other => other.map(|()| false)?,
        };
        self.medium.sync(EPOCH)?;
        if is_new {
            self.medium.sync_folder()?;
        }
        self.next_serial = self.next_serial.saturating_add(1);
        self.witness = Some(witness);
        Ok(())
    }
}

impl Volume {
    /// What the journal follows.
    pub(crate) fn base(&self) -> Base<'_> {
        Base {
            keys: &self.keys,
            generation: self.generation,
            header_hash: self.header_hash,
            head: self.head,
            epoch: self.epoch,
            dimension: self.dimension,
        }
    }
}

/// The rotation that a generation's keys fix.
pub(crate) fn rotation_of(keys: &Keys, dimension: usize) -> Rotation {
    Rotation::derive(dimension, keys.rotation_stream())
}

/// Everybody as before, turned by another rotation; one more write.
fn turned_anew(now: &Snapshot, rotation: Rotation) -> Snapshot {
    let stats = now.stats();
    let empty = Snapshot::empty(now.generation() + 1, stats.model, stats.dimension, stats.templates);
    let rotation = Arc::new(rotation);
    let mut next = empty.under(rotation.clone());
    let mut row = zeroize::Zeroizing::new(Vec::with_capacity(stats.dimension));
    for index in 0..now.len() {
        let (person, _, values) = now.entry(index);
        next.begin(Arc::new(person.clone()));
        for value in values {
            row.push(value);
            if row.len() == stats.dimension {
                next.push(&rotation.turn(&now.rotation().turn_back(&row)));
                row.clear();
            }
        }
    }
    next
}
