//! Care: what is there and what is lost, writing anew, renewing keys.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::load::{self, Rollback};
use super::medium::FileMedium;
use super::store::{BESIDE, FILE, Store, UNFINISHED};
use super::{Counter, Gallery, GalleryError, SealingKey, Settings, Stats, is_made};
use crate::types::PersonId;

/// How often a file is written beside changes that come in between, before they have to wait.
const TRIES_BESIDE: usize = 3;

/// What `gallery verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which file.
    pub path: PathBuf,
    /// The format's version.
    pub version: u8,
    /// The file's size.
    pub bytes: u64,
    /// The journal's size.
    pub journal_bytes: u64,
    /// Which data key the file is sealed under: grows by one with each file that is written.
    pub key_generation: u64,
    /// How much is in it.
    #[serde(flatten)]
    pub stats: Stats,
    /// What was noticed of its age.
    pub rollback: Option<Rollback>,
    /// What cannot be read any more; empty when all is there.
    pub lost: Vec<String>,
    /// What should be looked at, each with the way out; empty when all is well.
    pub warnings: Vec<String>,
}

/// How far a gallery had come, as it may be told to whoever remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Age {
    /// The gallery's id in hexadecimal digits, the same for as long as it lives.
    pub gallery: String,
    /// The number of its last change.
    pub epoch: u64,
    /// Of which file that change was (its generation), and its tag in hexadecimal digits; `None` where an older program told.
    pub file: Option<(u64, String)>,
}

impl Gallery {
    /// Reads every byte of the gallery and says what is in it; an error when its file is not whole. It changes nothing and may run
    /// beside a daemon.
    pub fn verify(settings: &Settings, key: &SealingKey) -> Result<Report, GalleryError> {
        let (dir, path) = (&settings.dir, settings.dir.join(FILE));
        let epoch = settings.epoch_file();
        let loaded = load::load_beside(&FileMedium::new(dir, &epoch), &path, key)?;
        let loaded = loaded.ok_or_else(|| GalleryError::Missing { path: path.clone() })?;
        let mut warnings = Vec::new();
        for (path, closed) in [(dir.as_path(), "700"), (path.as_path(), "600"), (epoch.as_path(), "600")] {
            match mode(path) {
                Ok(mode) if mode & 0o077 != 0 => {
                    warnings.push(format!("{} has mode {mode:03o}: run `chmod {closed} {0}`", path.display()));
                }
                Ok(_) => {}
                Err(_) if path == epoch => {}
                Err(source) => return Err(GalleryError::Io { doing: "looking at", path: path.to_owned(), source }),
            }
        }
        if [UNFINISHED, BESIDE].iter().any(|name| dir.join(name).exists()) {
            let text = "an unfinished write lies beside the gallery: one is running, or was cut off and goes at the next start";
            warnings.push(text.to_owned());
        }
        let mut lost = Vec::new();
        match (&loaded.rollback, loaded.stopped) {
            (Some(Rollback { found, expected: Some(expected), .. }), _) if expected > found => {
                lost.push(format!("the changes {} to {expected}", found + 1));
            }
            (None, Some(reason)) => {
                warnings
                    .push(format!("an interrupted write lies at the journal's end ({reason}); nothing that was reported is lost"));
            }
            _ => {}
        }
        if loaded.version == 1 {
            warnings.push("the file is of version 1: the next start that may write makes it one of version 2".to_owned());
        }
        Ok(Report {
            path,
            version: loaded.version,
            bytes: loaded.file_bytes,
            journal_bytes: loaded.journal_bytes,
            key_generation: loaded.generation,
            stats: loaded.snapshot.stats(),
            rollback: loaded.rollback,
            lost,
            warnings,
        })
    }

    /// Of a gallery whose file is damaged behind a sound header: how many people and templates can still be read, and what cannot.
    pub fn examine(settings: &Settings, key: &SealingKey) -> Result<(usize, usize, Vec<String>), GalleryError> {
        let path = settings.dir.join(FILE);
        let found = load::examine(&FileMedium::new(&settings.dir, &settings.epoch_file()), &path, key)?;
        Ok((found.people, found.templates, found.lost))
    }

    /// Writes the file anew: the journal begins again under a new data key, and nothing that was sealed before can be opened any more.
    /// Changes go on meanwhile; where one comes between each time, they wait at last.
    pub fn compact(&self) -> Result<(), GalleryError> {
        self.compact_while(|_| true).map(drop)
    }

    /// [`Gallery::compact`], if `is_due` still when its turn has come; true when it was done.
    fn compact_while(&self, is_due: impl Fn(&Store) -> bool) -> Result<bool, GalleryError> {
        // Two at once would write the same file.
        let _turn = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES_BESIDE {
            let begun = self.write(|store| {
                if !is_due(store) {
                    return Ok(None);
                }
                let now = self.snapshot();
                store.begin_beside(&now).map(|beside| Some((beside, now)))
            })?;
            let Some((beside, now)) = begun else { return Ok(false) };
            let Some(beside) = beside else { break };
            let written = beside.write(&now);
            if self.write(|store| store.finish_beside(written))? {
                return Ok(true);
            }
        }
        self.write(|store| if is_due(store) { store.compact(&self.snapshot()).map(|()| true) } else { Ok(false) })
    }

    /// [`Gallery::compact`], if somebody was removed, the journal has become long or a write failed; true when it was done.
    pub fn compact_if_due(&self) -> Result<bool, GalleryError> {
        self.compact_while(Store::is_due)
    }

    /// [`Gallery::remove`], and what is left of the templates on the disk is gone when this succeeds.
    pub fn erase(&self, id: &PersonId) -> Result<(), GalleryError> {
        let removed = self.remove(id);
        if !is_made(&removed) {
            return removed;
        }
        self.forget(|| format!("{id} is removed and matches nobody"))?;
        // The file that was written anew brought the epoch along, or it did not either.
        if self.latched().is_some() { removed } else { Ok(()) }
    }

    /// Takes away what is left on the disk of whoever was removed. `what` was done before and stays done.
    pub(super) fn forget(&self, what: impl FnOnce() -> String) -> Result<(), GalleryError> {
        let compacted = self.compact_while(Store::remembers);
        match (compacted, self.writer()?.store.remembers()) {
            // Whatever else went wrong: when it remembers nobody, the new file stands in the old one's place.
            (Err(source), true) => Err(GalleryError::NotErased { what: what(), source: Box::new(source) }),
            _ => Ok(()),
        }
    }

    /// Seals everything under a new data key; under another sealing key when one is given; under another rotation of the templates
    /// when asked (ISO/IEC 24745's renewal: templates that leaked before match nothing from then on).
    pub fn rekey(&self, key: Option<&SealingKey>, rotate: bool) -> Result<(), GalleryError> {
        self.write(|store| {
            let next = store.rekey(&self.snapshot(), key, rotate)?;
            self.current.store(Arc::new(next));
            store.expect_witnessed()
        })
    }

    /// Takes the state that is there for the right one, after somebody has looked.
    pub fn accept_rollback(&self) -> Result<(), GalleryError> {
        self.write(|store| {
            if store.rollback().is_none() {
                return Ok(());
            }
            let next = store.accept(&self.snapshot())?;
            self.current.store(Arc::new(next));
            self.rollback.store(None);
            store.expect_witnessed()
        })
    }

    /// From now on a hardware counter witnesses each generation too; should it know a later one, this is a rollback.
    pub fn attach_counter(&self, counter: Box<dyn Counter>) -> Result<(), GalleryError> {
        let mut writer = self.writer()?;
        let attached = writer.store.attach(counter);
        attached.map_err(|source| GalleryError::Io { doing: "reading the counter for", path: self.path.clone(), source })?;
        self.rollback.store(writer.store.rollback().cloned().map(Arc::new));
        Ok(())
    }

    /// Which gallery this is and how far it has come. None for a reader.
    pub fn age(&self) -> Option<Age> {
        let store = &self.writer().ok()?.store;
        let (generation, epoch, head) = store.head();
        Some(Age { gallery: hexadecimal(&store.id()?), epoch, file: Some((generation, hexadecimal(&head))) })
    }

    /// Takes the word of somebody who remembers, from before this gallery was opened, how far gallery `said.gallery` had come. If that is
    /// this gallery and it has come less far or another way, an older one was put back. The caller has made sure of who says it. False when
    /// it is of another gallery than this one, and tells nothing of its age.
    pub fn hear(&self, said: &Age) -> bool {
        let Ok(mut writer) = self.writer() else { return true };
        if writer.store.id().map(|id| hexadecimal(&id)).as_ref() != Some(&said.gallery) {
            return false;
        }
        let file = said.file.as_ref().and_then(|(generation, head)| Some((*generation, from_hexadecimal(head)?)));
        writer.store.hear(said.epoch, file);
        self.rollback.store(writer.store.rollback().cloned().map(Arc::new));
        true
    }

    /// What a write failed with, while nothing may be changed for it; matching goes on. See [`GalleryError::Latched`].
    pub fn latched(&self) -> Option<Arc<String>> {
        self.latch.load_full()
    }

    /// Changes what is on the medium, under the writer's lock.
    pub(super) fn write<T>(&self, act: impl FnOnce(&mut Store) -> Result<T, GalleryError>) -> Result<T, GalleryError> {
        let mut writer = self.writer()?;
        let done = act(&mut writer.store);
        self.latch.store(writer.store.latched().map(|reason| Arc::new(reason.to_owned())));
        done
    }

    /// Bytes in the journal; zero for a reader.
    pub fn journal_bytes(&self) -> u64 {
        self.writer().map_or(0, |writer| writer.store.journal_bytes())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let is_whole = digits.len() == 2 * BYTES && digits.is_ascii();
    for (byte, at) in bytes.iter_mut().zip((0..digits.len()).step_by(2)).filter(|_| is_whole) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    is_whole.then_some(bytes)
}

fn mode(path: &Path) -> std::io::Result<u32> {
    Ok(path.metadata()?.permissions().mode() & 0o777)
}
