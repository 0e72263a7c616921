//! Care: what is there and what is lost, writing anew, renewing keys.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::load::{self, Rollback};
use super::medium::FileMedium;
use super::store::{FILE, UNFINISHED};
use super::{Counter, Gallery, GalleryError, SealingKey, Settings, Stats};

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
        if dir.join(UNFINISHED).exists() {
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
    pub fn compact(&self) -> Result<(), GalleryError> {
        let mut writer = self.writer()?;
        let now = self.snapshot();
        writer.store.compact(&now)
    }

    /// [`Gallery::compact`], if somebody was removed or the journal has become long; true when it was done.
    pub fn compact_if_due(&self) -> Result<bool, GalleryError> {
        let mut writer = self.writer()?;
        if !writer.store.is_due() {
            return Ok(false);
        }
        let now = self.snapshot();
        writer.store.compact(&now)?;
        Ok(true)
    }

    /// Seals everything under a new data key; under another sealing key when one is given; under another rotation of the templates
    /// when asked (ISO/IEC 24745's renewal: templates that leaked before match nothing from then on).
    pub fn rekey(&self, key: Option<&SealingKey>, rotate: bool) -> Result<(), GalleryError> {
        let mut writer = self.writer()?;
        let next = writer.store.rekey(&self.snapshot(), key, rotate)?;
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// Takes the state that is there for the right one, after somebody has looked.
    pub fn accept_rollback(&self) -> Result<(), GalleryError> {
        let mut writer = self.writer()?;
        if writer.store.rollback().is_none() {
            return Ok(());
        }
        let next = writer.store.accept(&self.snapshot())?;
        self.current.store(Arc::new(next));
        self.rollback.store(None);
        Ok(())
    }

    /// From now on a hardware counter witnesses each generation too; should it know a later one, this is a rollback.
    pub fn attach_counter(&self, counter: Box<dyn Counter>) -> Result<(), GalleryError> {
        let mut writer = self.writer()?;
        let attached = writer.store.attach(counter);
        attached.map_err(|source| GalleryError::Io { doing: "reading the counter for", path: self.path.clone(), source })?;
        self.rollback.store(writer.store.rollback().cloned().map(Arc::new));
        Ok(())
    }

    /// This gallery's id in hexadecimal digits, the same for as long as it lives. None for a reader.
    pub fn id(&self) -> Option<String> {
        let id = self.writer().ok()?.store.id()?;
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes the word of somebody who remembers, from before this gallery was opened, that gallery `id` had come to change `epoch`. If
    /// that is this gallery and it has come less far, an older one was put back. The caller has made sure of who says it.
    pub fn hear(&self, id: &str, epoch: u64) {
        if self.id().as_deref() != Some(id) {
            log::info!("what the broker remembers is of another gallery than this one");
            return;
        }
        if let Ok(mut writer) = self.writer() {
            writer.store.hear(epoch);
            self.rollback.store(writer.store.rollback().cloned().map(Arc::new));
        }
    }

    /// Why the last write did not settle, if it did not: matching goes on, and the next change first writes the whole gallery anew.
    pub fn unsettled(&self) -> Option<String> {
        self.writer().ok()?.store.unsettled().map(str::to_owned)
    }

    /// Bytes in the journal; zero for a reader.
    pub fn journal_bytes(&self) -> u64 {
        self.writer().map_or(0, |writer| writer.store.journal_bytes())
    }
}

fn mode(path: &Path) -> std::io::Result<u32> {
    Ok(path.metadata()?.permissions().mode() & 0o777)
}
