//! The sealed gallery: who is enrolled, and whom a face resembles. [`Gallery`] is the only door: one writer, whose changes are durable
//! before it hears of them, and any number of readers, each with a whole [`Snapshot`] and no lock.
//!
//! Deliberately absent: any way to get a template out again but sealed in a [`Backup`], and any comparison across models.
#![doc = include_str!("FORMAT.md")]

mod backup;
mod care;
mod enrolment;
mod error;
mod follow;
pub mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs, reason = "targets for fuzzers")]
pub mod fuzzing;
mod index;
mod journal;
mod load;
mod medium;
mod risk;
mod rotation;
mod seal;
mod settings;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, dead_code, reason = "a disk for tests")]
mod simulated;
mod snapshot;
mod store;
mod tune;
mod witness;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use zeroize::Zeroizing;

pub use backup::{Backup, BackupError, Difference, MIN_PASSPHRASE_CHARS, Signer};
pub use care::{Age, Report};
pub use enrolment::{Admission, Allowed, Fate, NotEnrolled, Rule, SHARE, resembles};
pub use error::{GalleryError, is_made};
pub use index::GraphError;
pub use load::Rollback;
pub use risk::{RiskKind, TemplateRisk};
pub use seal::age::{AgeError, Identity, Lock, Recipient, Unlock};
pub use seal::{KeyError, SealingKey};
pub use settings::{PurgeClock, Settings};
pub use snapshot::{Match, Snapshot, Stats};
pub use tune::{IndexChoice, IndexReport, IndexTrial, IndexVerdict};
pub use witness::Counter;

use crate::system::files;
use crate::types::{Candidate, Embedding, ModelId, Person, PersonId, Wall};
use format::{MAX_DIMENSION, MAX_PEOPLE, MAX_TEMPLATES};
use medium::{FileMedium, Medium};
use snapshot::Change;
use store::{FILE, LOCK, Store};

/// An open gallery. Share it by `Arc`; every method takes `&self`.
pub struct Gallery {
    current: ArcSwap<Snapshot>,
    path: PathBuf,
    max_templates_per_person: usize,
    /// `None` when opened for reading only.
    writer: Option<Mutex<Writer>>,
    /// Held by whoever writes the file anew while changes go on.
    compacting: Mutex<()>,
    /// How a gallery that another process changes is read again.
    followed: Option<follow::Followed>,
    /// Set while the gallery is older than it was, or nobody can tell, and nobody has accepted that.
    rollback: ArcSwapOption<Rollback>,
    /// Set while a write that failed keeps the gallery from being changed.
    latch: ArcSwapOption<String>,
}

struct Writer {
    store: Store,
    /// Held as long as the gallery is open for writing; the system lets go of it when the process ends, however it ends.
    _lock: Option<File>,
}

/// What an enrolment did.
#[derive(Debug, Clone, PartialEq)]
pub struct Enrolment {
    /// Templates added.
    pub added: usize,
    /// Templates the person has now.
    pub templates: usize,
    /// Who else is most like the new templates: with a high score, the same face is enrolled twice.
    pub nearest_other: Option<Candidate>,
}

impl Gallery {
    /// Opens the gallery for writing; makes an empty one, and its folder, when there is none. A gallery of another model or dimension
    /// is refused, and so is a second writer.
    pub fn create_or_open(settings: &Settings, key: &SealingKey, model: &ModelId, dimension: usize) -> Result<Self, GalleryError> {
        Self::open_folder(settings, key, (model, dimension), true)
    }

    /// Opens the gallery for writing as [`Gallery::create_or_open`] does, but makes none.
    pub fn open_existing(settings: &Settings, key: &SealingKey, model: &ModelId, dimension: usize) -> Result<Self, GalleryError> {
        let path = settings.dir.join(FILE);
        match path.try_exists() {
            Ok(true) => Self::open_folder(settings, key, (model, dimension), false),
            Ok(false) => Err(GalleryError::Missing { path }),
            Err(source) => Err(GalleryError::Io { doing: "looking for", path, source }),
        }
    }

    /// Opens the gallery as it is now for reading only, beside a writer in another process; later writes are not seen.
    pub fn open_read_only(settings: &Settings, key: &SealingKey) -> Result<Self, GalleryError> {
        let path = settings.dir.join(FILE);
        let loaded = load::load_beside(&FileMedium::new(&settings.dir, &settings.epoch_file()), &path, key)?;
        let loaded = loaded.ok_or_else(|| GalleryError::Missing { path: path.clone() })?;
        Ok(Self {
            current: ArcSwap::from_pointee(loaded.snapshot),
            path,
            max_templates_per_person: settings.max_templates_per_person,
            writer: None,
            compacting: Mutex::default(),
            followed: None,
            rollback: ArcSwapOption::from_pointee(loaded.rollback),
            latch: ArcSwapOption::empty(),
        })
    }

    /// The state as of now, for as long as it is held.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The state as of now for granting by; none while the gallery is older than it was and nobody has accepted that.
    pub fn trusted(&self) -> Option<Arc<Snapshot>> {
        self.rollback.load().is_none().then(|| self.snapshot())
    }

    /// What was noticed of the gallery's age and not accepted yet.
    pub fn rollback(&self) -> Option<Arc<Rollback>> {
        self.rollback.load_full()
    }

    /// The sealed file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds templates to a person, who is made when not yet enrolled. Of a person already enrolled, the day of enrolment stays, and
    /// name, groups and dates are replaced where they are given. Durable and visible when it returns. Whose faces they are is not asked:
    /// that is what [`Gallery::admit`] does, by which people are enrolled.
    pub fn enroll(&self, person: Person, templates: Vec<Embedding>) -> Result<Enrolment, GalleryError> {
        let (id, added) = (person.id.clone(), templates.len());
        let nearest_other = self.snapshot().nearest_other(&id, &templates)?;
        self.enroll_many(vec![(person, templates)])?;
        Ok(Enrolment { added, templates: self.snapshot().templates_of(&id), nearest_other })
    }

    /// Enrols many people as [`Gallery::enroll`] does each, in one write: all or none.
    pub fn enroll_many(&self, people: Vec<(Person, Vec<Embedding>)>) -> Result<(), GalleryError> {
        self.change(|now| self.enrolment(now, people))
    }

    fn enrolment(&self, now: &Snapshot, people: Vec<(Person, Vec<Embedding>)>) -> Result<BTreeMap<PersonId, Change>, GalleryError> {
        let mut changes: BTreeMap<PersonId, Change> = BTreeMap::new();
        for (person, templates) in people {
            let id = person.id.clone();
            if templates.is_empty() {
                return Err(GalleryError::NoTemplates { person: id });
            }
            templates.iter().try_for_each(|template| now.admit(template))?;
            let mut add = Zeroizing::new(Vec::with_capacity(templates.len() * now.dimension()));
            for template in &templates {
                let mut row = now.turned(template);
                index::as_kept(&mut row);
                add.extend_from_slice(&row);
            }
            // The same person may come twice in one batch.
            let (person, add) = match changes.remove(&id) {
                Some(Change::Put { person: earlier, add: before }) => (merged(&earlier, person), journal::joined(before, add)),
                _ => (now.person(&id).map_or_else(|| person.clone(), |known| merged(known, person.clone())), add),
            };
            let (wanted, limit) = (now.templates_of(&id) + add.len() / now.dimension(), self.max_templates_per_person);
            if wanted > limit {
                return Err(GalleryError::TooManyTemplates { person: id, wanted, limit });
            }
            changes.insert(id, Change::Put { person: storable(person)?, add });
        }
        Ok(changes)
    }

    /// Replaces what is known of an enrolled person besides templates.
    pub fn set(&self, person: Person) -> Result<(), GalleryError> {
        self.change(|now| {
            now.person(&person.id).ok_or_else(|| GalleryError::NoSuchPerson { person: person.id.clone() })?;
            Ok([(person.id.clone(), Change::Put { person: storable(person)?, add: Zeroizing::default() })].into_iter().collect())
        })
    }

    /// Takes a person out with every template: no later snapshot holds them, and after the next [`Gallery::compact`] no file does.
    pub fn remove(&self, id: &PersonId) -> Result<(), GalleryError> {
        self.change(|now| {
            now.person(id).ok_or_else(|| GalleryError::NoSuchPerson { person: id.clone() })?;
            Ok([(id.clone(), Change::Remove)].into_iter().collect())
        })
    }

    /// Removes everybody whose time has run out at `now`; gives who that was, also when only the epoch could not be written
    /// ([`Gallery::latched`] says so then).
    pub fn purge(&self, now: Wall) -> Result<Vec<PersonId>, GalleryError> {
        let is_over = |person: &Person| person.expires_at.is_some_and(|expiry| expiry <= now);
        let over = |snapshot: &Snapshot| -> Vec<PersonId> {
            snapshot.people().filter(|(person, _)| is_over(person)).map(|(person, _)| person.id.clone()).collect()
        };
        if over(&self.snapshot()).is_empty() {
            return Ok(Vec::new());
        }
        let mut purged = Vec::new();
        let done = self.change(|snapshot| {
            purged = over(snapshot);
            Ok(purged.iter().map(|id| (id.clone(), Change::Remove)).collect())
        });
        if is_made(&done) { Ok(purged) } else { done.map(|()| purged) }
    }

    /// One change under the writer's lock: worked out on the state as of now, made durable, then shown.
    fn change(&self, make: impl FnOnce(&Snapshot) -> Result<BTreeMap<PersonId, Change>, GalleryError>) -> Result<(), GalleryError> {
        self.write(|store| {
            let now = self.current.load_full();
            let changes = make(&now)?;
            if changes.is_empty() {
                return Ok(());
            }
            let copies = changes.iter().map(|(id, change)| (id.clone(), change.copied())).collect();
            let next = now.with(copies);
            let stats = next.stats();
            for (what, wanted, limit) in [("people", stats.people, MAX_PEOPLE), ("templates", stats.templates, MAX_TEMPLATES)] {
                if wanted > limit {
                    return Err(GalleryError::TooLarge { what, wanted, limit });
                }
            }
            store.commit(&changes, &next)?;
            self.current.store(Arc::new(next));
            store.expect_witnessed()
        })
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, GalleryError> {
        let writer = self.writer.as_ref().ok_or_else(|| GalleryError::OpenedReadOnly { path: self.path.clone() })?;
        Ok(writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open_folder(settings: &Settings, key: &SealingKey, expected: (&ModelId, usize), create: bool) -> Result<Self, GalleryError> {
        let dir = &settings.dir;
        let medium =
            FileMedium::create(dir, &settings.epoch_file()).map_err(|e| GalleryError::write("making the folder", dir, e))?;
        let lock = lock(dir)?;
        Self::open_on(Arc::new(medium), settings, key, expected, create, Some(lock))
    }

    fn open_on(
        medium: Arc<dyn Medium>,
        settings: &Settings,
        key: &SealingKey,
        (model, dimension): (&ModelId, usize),
        create: bool,
        lock: Option<File>,
    ) -> Result<Self, GalleryError> {
        let path = settings.dir.join(FILE);
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(GalleryError::TooLarge { what: "numbers in a template", wanted: dimension, limit: MAX_DIMENSION });
        }
        let (store, snapshot) = Store::open(medium, &path, key, (model, dimension), create)?;
        Ok(Self {
            current: ArcSwap::from_pointee(snapshot),
            path,
            max_templates_per_person: settings.max_templates_per_person.min(format::MAX_TEMPLATES_PER_PERSON),
            followed: None,
            rollback: ArcSwapOption::from_pointee(store.rollback().cloned()),
            latch: ArcSwapOption::from_pointee(store.latched().map(str::to_owned)),
            writer: Some(Mutex::new(Writer { store, _lock: lock })),
            compacting: Mutex::default(),
        })
    }
}

/// Keeps a second writer out. The lock is the system's (`flock`), so that a crash leaves none behind.
fn lock(dir: &Path) -> Result<File, GalleryError> {
    let path = dir.join(LOCK);
    let file = files::open_or_make(&path, 0o600).map_err(|e| GalleryError::write("locking", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(GalleryError::Locked { folder: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(GalleryError::Io { doing: "locking", path, source }),
    }
}

/// What is known of a person after another enrolment.
fn merged(known: &Person, given: Person) -> Person {
    Person {
        id: given.id,
        name: given.name.or_else(|| known.name.clone()),
        groups: if given.groups.is_empty() { known.groups.clone() } else { given.groups },
        consented_at: given.consented_at.or(known.consented_at),
        expires_at: given.expires_at.or(known.expires_at),
        enrolled_at: known.enrolled_at,
    }
}

fn storable(person: Person) -> Result<Person, GalleryError> {
    match format::refusal(&person) {
        Some(reason) => Err(GalleryError::InvalidPerson { person: person.id, reason }),
        None => Ok(person),
    }
}

#[cfg(test)]
mod tests;
