//! Whoever changes the gallery for the command line: the running daemon, asked through its socket, or, when none runs, the store itself.
//!
//! The daemon writes down what it does; what is done without one is written into the audit trail here. No change waits for the trail: one
//! that cannot be written down is made, and said to be missing from it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::context::{Context, gallery_failure};
use super::{Failure, Result, complain};
use crate::daemon::control::{Client, Reply, Request, TextPart, is_erased};
use crate::daemon::deeds;
use crate::daemon::restoring::{Origin, Trust};
use crate::gallery::{Admission, Backup, Gallery, GalleryError, Rule, SealingKey, Snapshot, is_made};
use crate::publish::{Audit, SealedError, StateKey};
use crate::system::{clock, owner, stop};
use crate::types::{DoorId, Embedding, ModelId, Person, PersonId, Wall};

/// So much of a backup's text a running daemon gets in one message, if no one person has more.
const PART_BYTES: usize = 1 << 20;

/// How long another process that holds the store is waited for: a daemon that starts, another command.
const PATIENCE: Duration = Duration::from_secs(15);

/// A gallery that can be changed.
pub(super) enum Editor {
    /// No daemon runs: the store is ours, and so is the audit trail.
    Own { gallery: Gallery, trail: Box<Trail> },
    /// The daemon of this state folder is the writer; `view` is the gallery as it was when we looked. It is called anew for each
    /// question: between two of them photos are looked at for as long as that takes.
    Daemon { state: PathBuf, view: Gallery },
}

/// The audit trail, opened by the first change that is written into it. Holding the gallery keeps every daemon out of it.
pub(super) struct Trail {
    folder: PathBuf,
    secrets: PathBuf,
    max_bytes: u64,
    opened: OnceCell<std::result::Result<Audit, SealedError>>,
}

impl Trail {
    fn of(context: &Context) -> Self {
        let config = &context.config;
        let (folder, secrets) = (config.state_dir.join("audit"), config.secrets_dir.clone());
        Self { folder, secrets, max_bytes: config.publish.audit_bytes(), opened: OnceCell::new() }
    }

    /// Writes down what was done, or says that it is not.
    fn note(&self, what: Value) {
        let open = || Audit::open(&self.folder, &StateKey::read(&self.secrets)?, self.max_bytes);
        let detail = json!({ "uid": owner::caller(), "what": what });
        let noted = match self.opened.get_or_init(open) {
            Ok(audit) => audit.append_offline(detail, clock::wall()).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = noted {
            complain(format!("the change is made and is not in the audit trail: {error}"));
        }
    }

    /// [`Trail::note`], if it was done.
    fn note_made<T>(&self, outcome: &std::result::Result<T, GalleryError>, what: impl FnOnce() -> Value) {
        if is_made(outcome) {
            self.note(what());
        }
    }
}

impl Editor {
    /// The gallery of `wanted` model and dimension, made where there is none; without `wanted`, whatever there is.
    pub(super) fn open(context: &Context, key: &SealingKey, wanted: Option<(&ModelId, usize)>) -> Result<Self> {
        let settings = &context.config.gallery;
        let began = Instant::now();
        let (_handle, ear) = stop::pair();
        loop {
            let state = &context.config.state_dir;
            if connect(state)?.is_some() {
                let view = Gallery::open_read_only(settings, key).map_err(gallery_failure)?;
                if let Some((model, dimension)) = wanted {
                    expect(&view, model, dimension)?;
                }
                return Ok(Self::Daemon { state: state.clone(), view });
            }
            // Where no daemon is asked, the folders are written here; and the one that was asked before may have gone.
            become_owner(context)?;
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
                other => {
                    let own = |gallery| Self::Own { gallery, trail: Box::new(Trail::of(context)) };
                    return other.map(own).map_err(gallery_failure);
                }
            }
        }
    }

    /// The gallery as it was when it was opened, or as we have changed it.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        match self {
            Self::Own { gallery, .. } | Self::Daemon { view: gallery, .. } => gallery.snapshot(),
        }
    }

    /// See [`Gallery::admit`]; what became of each person, in their order.
    pub(super) fn admit(&self, people: Vec<(Person, Vec<Embedding>)>, rule: &Rule) -> Result<Vec<Admission>> {
        if people.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Own { gallery, trail } => {
                let (admissions, done) = gallery.admit(people, rule);
                if is_made(&done) {
                    deeds::admitted(&admissions, rule.allowed).for_each(|what| trail.note(what));
                }
                done.map_err(gallery_failure)?;
                // A long journal only makes the next opening slower: what fails here is no failed enrolment.
                let _ = gallery.compact_if_due();
                Ok(admissions)
            }
            Self::Daemon { state, view } => {
                let request = Request::enroll(view.snapshot().model(), people, rule.allowed);
                match call(state)?.ask(&request).map_err(Failure::unavailable)? {
                    Reply::Admitted(admissions) => Ok(admissions),
                    other => done(other).map(|()| Vec::new()),
                }
            }
        }
    }

    /// See [`Gallery::set`].
    pub(super) fn set(&self, person: Person) -> Result<()> {
        match self {
            Self::Own { gallery, trail } => {
                let id = person.id.clone();
                let set = gallery.set(person);
                trail.note_made(&set, || deeds::changed(&id));
                set.map_err(gallery_failure)
            }
            Self::Daemon { .. } => self.ask(&Request::Set(person)),
        }
    }

    /// Removes a person, and what is left of the templates on the disk.
    pub(super) fn remove(&self, person: &PersonId) -> Result<()> {
        match self {
            Self::Own { gallery, trail } => {
                let erased = gallery.erase(person);
                trail.note_made(&erased, || deeds::removed(person, is_erased(&erased)));
                erased.map_err(gallery_failure)
            }
            Self::Daemon { .. } => self.ask(&Request::Remove(person.clone())),
        }
    }

    /// See [`Gallery::compact`].
    pub(super) fn compact(&self) -> Result<()> {
        match self {
            Self::Own { gallery, .. } => gallery.compact().map_err(gallery_failure),
            Self::Daemon { .. } => self.ask(&Request::Compact),
        }
    }

    /// See [`Gallery::rekey`]. A new sealing key is no matter for a running daemon, which could not read it at its next start.
    pub(super) fn rekey(&self, key: Option<&SealingKey>, rotate: bool) -> Result<()> {
        match (self, key) {
            (Self::Own { gallery, trail }, key) => {
                let rekeyed = gallery.rekey(key, rotate);
                trail.note_made(&rekeyed, || deeds::rekeyed(rotate, key.is_some()));
                rekeyed.map_err(gallery_failure)
            }
            (Self::Daemon { .. }, None) => self.ask(&Request::Rekey { rotate }),
            (Self::Daemon { .. }, Some(_)) => Err(Failure::unavailable(
                "a daemon runs on this gallery: stop it, change the key, put the new key in its place, start it",
            )),
        }
    }

    /// See [`Gallery::accept_rollback`].
    pub(super) fn accept_rollback(&self) -> Result<()> {
        match self {
            Self::Own { gallery, trail } => {
                let rollback = gallery.rollback();
                let accepted = gallery.accept_rollback();
                if let Some(rollback) = rollback {
                    trail.note_made(&accepted, || deeds::accepted_rollback(&rollback.to_string()));
                }
                accepted.map_err(gallery_failure)
            }
            Self::Daemon { .. } => self.ask(&Request::AcceptRollback),
        }
    }

    /// See [`Gallery::restore`]: of a backup of `origin`, which was judged by `trust`. A daemon gets its text in parts, judges it itself
    /// and does it when the last has come.
    pub(super) fn restore(&self, backup: Backup, (origin, trust): (&Origin, Trust), replace: bool) -> Result<()> {
        match self {
            Self::Own { gallery, trail } => {
                let people = backup.into_people();
                let count = people.len();
                let restored = gallery.restore(people, replace);
                trail.note_made(&restored, || deeds::restored(count, replace, origin));
                restored.map_err(gallery_failure)
            }
            Self::Daemon { state, .. } => {
                let mut client = call(state)?;
                let mut ask = |request: &Request| client.ask(request).map_err(Failure::unavailable).and_then(done);
                let mut some = Zeroizing::new(Vec::with_capacity(PART_BYTES));
                for part in backup.text() {
                    // Whole parts only, none near the longest message.
                    if some.len() + part.len() > PART_BYTES && !some.is_empty() {
                        let full = std::mem::replace(&mut some, Zeroizing::new(Vec::with_capacity(PART_BYTES)));
                        ask(&Request::RestorePart(TextPart::new(full)))?;
                    }
                    some.extend_from_slice(&part);
                }
                ask(&Request::RestorePart(TextPart::new(some)))?;
                ask(&Request::Restore { replace, trust })
            }
        }
    }

    fn ask(&self, request: &Request) -> Result<()> {
        let Self::Daemon { state, .. } = self else { return Ok(()) };
        call(state)?.ask(request).map_err(Failure::unavailable).and_then(done)
    }
}

/// As root, becomes the state folder's owner, unless a daemon runs, which does the writing: then the audit trail goes on naming root. To
/// be called before a thread is started that may write.
pub(super) fn step_down(context: &Context) -> Result<()> {
    let state = &context.config.state_dir;
    if connect(state)?.is_some() {
        return Ok(());
    }
    become_owner(context)
}

fn become_owner(context: &Context) -> Result<()> {
    Context::become_owner_of(&context.config.gallery.dir)?;
    Context::become_owner_of(&context.config.state_dir)
}

/// Why the running daemon's gallery takes no change, if that is so.
pub(super) fn why_read_only(state: &Path) -> Option<String> {
    let mut client = connect(state).ok()??;
    done(client.ask(&Request::Check).ok()?).err().map(|failure| failure.message)
}

/// The doors that the running daemon has blocked: until when, and by what.
pub(super) fn blocked_doors(state: &Path) -> Vec<(DoorId, Wall, String)> {
    let ask = || connect(state).ok()??.ask(&Request::Blocked).ok();
    if let Some(Reply::Blocked(doors)) = ask() { doors } else { Vec::new() }
}

/// The doors that a command has locked down, or holds open and until when.
pub(super) fn unusual_doors(state: &Path) -> Vec<(DoorId, Option<Wall>)> {
    let ask = || connect(state).ok()??.ask(&Request::Unusual).ok();
    if let Some(Reply::Unusual(doors)) = ask() { doors } else { Vec::new() }
}

/// Whether the running daemon has heard what the broker keeps of it, and why not; nothing where none runs or an older one.
pub(super) fn why_unheard(state: &Path) -> Option<Option<String>> {
    let mut client = connect(state).ok()??;
    Some(done(client.ask(&Request::Witness).ok()?).err().map(|failure| failure.message))
}

fn connect(state: &Path) -> Result<Option<Client>> {
    Client::connect(state).map_err(|error| Failure::unavailable(format!("the daemon's socket: {error}")))
}

/// The daemon that was there a moment ago.
fn call(state: &Path) -> Result<Client> {
    connect(state)?.ok_or_else(|| Failure::unavailable("the daemon has stopped meanwhile, nothing was changed: try again"))
}

fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done | Reply::Admitted(_) | Reply::Blocked(_) | Reply::Unusual(_) => Ok(()),
        Reply::Refused { code, message } => Err(Failure::new(code, message)),
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
