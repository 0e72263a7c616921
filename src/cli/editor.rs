//! Whoever changes the gallery for the command line: the running daemon, asked through its socket, or, when none runs, the store itself.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::{Context, gallery_failure};
use super::{Failure, Result};
use crate::daemon::control::{Client, Reply, Request};
use crate::gallery::{Gallery, GalleryError, SealingKey, Snapshot};
use crate::system::stop;
use crate::types::{Embedding, ModelId, Person, PersonId};

/// How long another process that holds the store is waited for: a daemon that starts, another command.
const PATIENCE: Duration = Duration::from_secs(15);

/// People that a running daemon gets in one message of a backup: of the most templates each, it stays far below the longest message.
const PART: usize = 16;

/// A gallery that can be changed.
pub(super) enum Editor {
    /// No daemon runs: the store is ours.
    Own(Gallery),
    /// The daemon is the writer; `view` is the gallery as it was when we looked.
    Daemon { client: RefCell<Client>, view: Gallery },
}

impl Editor {
    /// The gallery of `wanted` model and dimension, made where there is none; without `wanted`, whatever there is.
    pub(super) fn open(context: &Context, key: &SealingKey, wanted: Option<(&ModelId, usize)>) -> Result<Self> {
        let settings = &context.config.gallery;
        let began = Instant::now();
        let (_handle, ear) = stop::pair();
        loop {
            let client = Client::connect(&context.config.state_dir);
            if let Some(client) = client.map_err(|error| Failure::unavailable(format!("the daemon's socket: {error}")))? {
                let view = Gallery::open_read_only(settings, key).map_err(gallery_failure)?;
                if let Some((model, dimension)) = wanted {
                    expect(&view, model, dimension)?;
                }
                return Ok(Self::Daemon { client: RefCell::new(client), view });
            }
            let opened = match wanted {
                Some((model, dimension)) => Gallery::create_or_open(settings, key, model, dimension),
                None => Gallery::open_read_only(settings, key).and_then(|gallery| {
                    let stored = gallery.snapshot().stats();
                    Gallery::open_existing(settings, key, &stored.model, stored.dimension)
                }),
            };
            match opened {
                Err(GalleryError::Locked { .. }) if began.elapsed() < PATIENCE => {
                    ear.sleep(Duration::from_millis(50));
                }
                other => return other.map(Self::Own).map_err(gallery_failure),
            }
        }
    }

    /// The gallery as it was when it was opened, or as we have changed it.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        match self {
            Self::Own(gallery) | Self::Daemon { view: gallery, .. } => gallery.snapshot(),
        }
    }

    /// See [`Gallery::enroll_many`].
    pub(super) fn enroll_many(&self, people: Vec<(Person, Vec<Embedding>)>) -> Result<()> {
        if people.is_empty() {
            return Ok(());
        }
        match self {
            Self::Own(gallery) => {
                gallery.enroll_many(people).map_err(gallery_failure)?;
                // A long journal only makes the next opening slower: what fails here is no failed enrolment.
                let _ = gallery.compact_if_due();
                Ok(())
            }
            Self::Daemon { view, .. } => {
                let request = Request::enroll(view.snapshot().model(), people);
                self.ask(&request)
            }
        }
    }

    /// See [`Gallery::set`].
    pub(super) fn set(&self, person: Person) -> Result<()> {
        match self {
            Self::Own(gallery) => gallery.set(person).map_err(gallery_failure),
            Self::Daemon { .. } => self.ask(&Request::Set(person)),
        }
    }

    /// Removes a person, and what is left of the templates on the disk.
    pub(super) fn remove(&self, person: &PersonId) -> Result<()> {
        match self {
            Self::Own(gallery) => {
                gallery.remove(person).map_err(gallery_failure)?;
                gallery.compact_if_due().map(|_| ()).map_err(|error| {
                    Failure::unavailable(format!(
                        "{person} is removed and matches nobody, but sealed templates are still on the disk ({error}): \
                         `faceid gallery compact` takes them away"
                    ))
                })
            }
            Self::Daemon { .. } => self.ask(&Request::Remove(person.clone())),
        }
    }

    /// See [`Gallery::compact`].
    pub(super) fn compact(&self) -> Result<()> {
        match self {
            Self::Own(gallery) => gallery.compact().map_err(gallery_failure),
            Self::Daemon { .. } => self.ask(&Request::Compact),
        }
    }

    /// See [`Gallery::rekey`]. A new sealing key is no matter for a running daemon, which could not read it at its next start.
    pub(super) fn rekey(&self, key: Option<&SealingKey>, rotate: bool) -> Result<()> {
        match (self, key) {
            (Self::Own(gallery), key) => gallery.rekey(key, rotate).map_err(gallery_failure),
            (Self::Daemon { .. }, None) => self.ask(&Request::Rekey { rotate }),
            (Self::Daemon { .. }, Some(_)) => Err(Failure::unavailable(
                "a daemon runs on this gallery: stop it, change the key, put the new key in its place, start it",
            )),
        }
    }

    /// See [`Gallery::accept_rollback`].
    pub(super) fn accept_rollback(&self) -> Result<()> {
        match self {
            Self::Own(gallery) => gallery.accept_rollback().map_err(gallery_failure),
            Self::Daemon { .. } => self.ask(&Request::AcceptRollback),
        }
    }

    /// See [`Gallery::restore`]. A daemon gets it in parts, and does it when the last has come.
    pub(super) fn restore(&self, people: Vec<(Person, Vec<Embedding>)>, replace: bool) -> Result<()> {
        match self {
            Self::Own(gallery) => gallery.restore(people, replace).map_err(gallery_failure),
            Self::Daemon { view, .. } => {
                let snapshot = view.snapshot();
                let mut people = people.into_iter().peekable();
                while people.peek().is_some() {
                    let part = people.by_ref().take(PART).collect();
                    self.ask(&Request::RestorePart(Request::templates(part)))?;
                }
                self.ask(&Request::Restore { model: snapshot.model().clone(), replace })
            }
        }
    }

    fn ask(&self, request: &Request) -> Result<()> {
        let Self::Daemon { client, .. } = self else { return Ok(()) };
        match client.borrow_mut().ask(request).map_err(Failure::unavailable)? {
            Reply::Done => Ok(()),
            Reply::Refused { code, message } => Err(Failure::new(code, message)),
        }
    }
}

fn expect(view: &Gallery, model: &ModelId, dimension: usize) -> Result<()> {
    let stored = view.snapshot().stats();
    if stored.model == *model && stored.dimension == dimension {
        return Ok(());
    }
    Err(gallery_failure(GalleryError::OtherModel {
        path: PathBuf::from(view.path()),
        stored: format!("{} with {} numbers", stored.model, stored.dimension),
        asked: format!("{model} with {dimension} numbers"),
    }))
}
