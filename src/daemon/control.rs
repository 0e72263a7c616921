//! The gallery's one writer while a daemon runs, and its door: a Unix socket in the state folder, mode 0600, for processes of the same
//! user or of root. The command line enrols and removes through it instead of opening the store behind the daemon's back.
//!
//! Between requests the same worker does what nobody asks for: it purges people whose time has run out, writes the gallery anew when
//! that is due, and follows a gallery that this daemon may only read.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::events;
use super::supervisor::{WorkerContext, WorkerError};
use crate::gallery::format::MAX_PEOPLE;
use crate::gallery::{Gallery, GalleryError};
use crate::publish::Publisher;
use crate::system::{clock, messages};
use crate::types::{Embedding, ModelId, Monotonic, Person, PersonId};

/// The socket in the state folder.
pub const SOCKET: &str = "control.sock";

/// How long the worker waits for a caller before it looks after the gallery: enrolments elsewhere are seen within this and a little.
const PATIENCE: Duration = Duration::from_millis(50);
/// A caller that says nothing for this long is hung up on.
const CALLER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the command line waits for an answer: a large gallery is written anew in seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// How often people whose time has run out are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(20);
/// After maintenance failed it is not tried again for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// The longest message: a batch of an import fits many times.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The longest path that a socket's address takes (sun_path).
const MAX_ADDRESS_BYTES: usize = 107;

/// A template on its way. No `Debug`, cleared when it goes.
#[derive(Serialize, Deserialize)]
pub struct Template(Vec<f32>);

impl Drop for Template {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What may be asked of the gallery's writer.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// Enrol these people, all or none.
    Enroll {
        /// The model of the templates.
        model: ModelId,
        /// Each with templates.
        people: Vec<(Person, Vec<Template>)>,
    },
    /// Replace what is known of a person.
    Set(Person),
    /// Remove a person, and write the gallery anew so that no template is left.
    Remove(PersonId),
    /// Write the gallery anew.
    Compact,
    /// Renew the data key, and the rotation of the templates when asked.
    Rekey {
        /// Whether the rotation too.
        rotate: bool,
    },
    /// Take the state that is there for the right one.
    AcceptRollback,
    /// Some people of a backup, kept until [`Request::Restore`] on the same connection; they go when the caller goes.
    RestorePart(Vec<(Person, Vec<Template>)>),
    /// What came by [`Request::RestorePart`] becomes the gallery's people, all or none.
    Restore {
        /// The model of the templates.
        model: ModelId,
        /// Whether in the place of people who are there.
        replace: bool,
    },
}

impl Request {
    /// [`Request::Enroll`] of one model's embeddings.
    pub fn enroll(model: &ModelId, people: Vec<(Person, Vec<Embedding>)>) -> Self {
        Self::Enroll { model: model.clone(), people: Self::templates(people) }
    }

    /// Embeddings as they travel.
    pub fn templates(people: Vec<(Person, Vec<Embedding>)>) -> Vec<(Person, Vec<Template>)> {
        let template = |embedding: Embedding| Template(embedding.values().to_vec());
        people.into_iter().map(|(person, all)| (person, all.into_iter().map(template).collect())).collect()
    }
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, durably.
    Done,
    /// It is not, or not for certain; the message says which.
    Refused {
        /// The exit code that it deserves.
        code: u8,
        /// The error's text.
        message: String,
    },
}

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The connection broke.
    #[error("the running daemon does not answer on {path}: {source}; whether the change was made is not known, look at the person", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// What came is no message.
    #[error("the running daemon speaks another language: it is of another version, restart it")]
    Foreign,
}

/// A connection to the running daemon.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the daemon of a state folder; `None` when none runs there.
    pub fn connect(state: &Path) -> io::Result<Option<Self>> {
        let path = state.join(SOCKET);
        let connected = with_address(&path, |address| UnixStream::connect(address));
        match connected {
            Ok(stream) => {
                stream.set_write_timeout(Some(CALLER_PATIENCE))?;
                stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
                Ok(Some(Self { stream, path }))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ControlError> {
        let broken = |source| ControlError::Broken { path: self.path.clone(), source };
        let bytes = Zeroizing::new(postcard::to_stdvec(request).map_err(|_| ControlError::Foreign)?);
        send(&mut &self.stream, &bytes).map_err(broken)?;
        let answer = receive(&mut &self.stream).map_err(broken)?;
        postcard::from_bytes(&answer).map_err(|_| ControlError::Foreign)
    }
}

/// A socket's address may be 107 bytes long; a longer path goes by way of its opened folder.
fn with_address<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::open(folder)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_MESSAGE_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many people at once"))?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(bytes)
}

fn receive(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    // Sized once, so that growing leaves no copy of a template behind; memory that nothing is written to is none.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    let mut part = Zeroizing::new([0; 16 << 10]);
    while bytes.len() < length {
        let wanted = part.len().min(length - bytes.len());
        stream.read_exact(&mut part[..wanted])?;
        bytes.extend_from_slice(&part[..wanted]);
    }
    Ok(bytes)
}

/// The daemon's side.
pub(super) struct Control {
    gallery: Arc<Gallery>,
    publisher: Publisher,
    listener: UnixListener,
    path: PathBuf,
    purged_at: Option<Monotonic>,
    resting_until: Option<Monotonic>,
    alarmed: bool,
}

impl Control {
    /// Opens the socket. The caller holds the state folder's lock, so a socket that is there is left from before.
    pub(super) fn open(state: &Path, gallery: Arc<Gallery>, publisher: Publisher) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_address(&path, |address| UnixListener::bind(address))?;
        // Until here the folder's own mode keeps others out, and each caller is looked at besides.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { gallery, publisher, listener, path, purged_at: None, resting_until: None, alarmed: false })
    }

    /// Answers callers and looks after the gallery until told to stop.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        while !context.stop().is_asked() {
            context.beat();
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(&stream) {
                        log::warn!("a caller of the control socket went away: {error}");
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            self.look_after(clock::monotonic());
        }
        Ok(())
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let caller = socket_peercred(stream)?.uid;
        if !caller.is_root() && caller != rustix::process::geteuid() {
            log::warn!(uid = caller.as_raw(); "a caller of another user was turned away");
            return Ok(());
        }
        stream.set_read_timeout(Some(CALLER_PATIENCE))?;
        stream.set_write_timeout(Some(CALLER_PATIENCE))?;
        let mut parts = Vec::new();
        loop {
            let bytes = match receive(&mut &*stream) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let reply = match postcard::from_bytes::<Request>(&bytes) {
                Ok(request) => self.serve(request, &mut parts),
                Err(_) => Reply::Refused { code: 70, message: "the daemon does not know what was asked: restart it".to_owned() },
            };
            let reply = postcard::to_stdvec(&reply).map_err(io::Error::other)?;
            send(&mut &*stream, &reply)?;
        }
    }

    fn serve(&self, request: Request, parts: &mut Vec<(Person, Vec<Template>)>) -> Reply {
        let gallery = &self.gallery;
        let done = match request {
            Request::Enroll { model, people } => embeddings(&model, people).and_then(|people| {
                let who: Vec<String> = people.iter().map(|(person, _)| person.id.to_string()).collect();
                gallery.enroll_many(people)?;
                log::info!(MESSAGE_ID = messages::ENROLLED, people = who.join(" ").as_str(); "enrolled");
                Ok(())
            }),
            Request::Set(person) => gallery.set(person),
            Request::Remove(person) => gallery.remove(&person).map(|()| {
                log::info!(MESSAGE_ID = messages::REMOVED, person = person.as_str(); "removed");
                if let Err(error) = gallery.compact_if_due() {
                    log::error!("removed, but what is left of the templates on the disk is not gone yet: {error}");
                }
            }),
            Request::Compact => gallery.compact(),
            Request::Rekey { rotate } => gallery.rekey(None, rotate),
            Request::RestorePart(more) => {
                parts.extend(more);
                let wanted = parts.len();
                if wanted <= MAX_PEOPLE {
                    Ok(())
                } else {
                    Err(GalleryError::TooLarge { what: "people", wanted, limit: MAX_PEOPLE })
                }
            }
            Request::Restore { model, replace } => embeddings(&model, std::mem::take(parts)).and_then(|people| {
                let count = people.len();
                gallery.restore(people, replace)?;
                log::warn!(people = count, replaced = replace, audit = "restored"; "an operator put a backup back");
                Ok(())
            }),
            Request::AcceptRollback => gallery.accept_rollback().map(|()| log::warn!("an operator accepted the gallery's state")),
        };
        match done {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Refused { code: error.exit_code(), message: error.to_string() },
        }
    }

    fn look_after(&mut self, now: Monotonic) {
        match self.gallery.refresh() {
            Ok(true) => {
                let stats = self.gallery.snapshot().stats();
                log::info!(people = stats.people, templates = stats.templates; "gallery read again");
            }
            Ok(false) => {}
            Err(error) => log::error!("the gallery on disk cannot be read, matching goes on with what was read before: {error}"),
        }
        self.tell_rollback();
        if self.resting_until.is_some_and(|until| now < until) || self.gallery.rollback().is_some() {
            return;
        }
        let outcome = self.purge(now).and_then(|()| self.gallery.compact_if_due().map(|_| ()));
        match outcome {
            Ok(()) | Err(GalleryError::OpenedReadOnly { .. }) => {}
            Err(error) => {
                log::error!("the gallery could not be looked after, this is tried again: {error}");
                self.resting_until = Some(now.plus(AFTER_FAILURE));
            }
        }
    }

    fn purge(&mut self, now: Monotonic) -> Result<(), GalleryError> {
        if self.purged_at.is_some_and(|at| now.since(at) < PURGE_EVERY) {
            return Ok(());
        }
        self.purged_at = Some(now);
        for person in self.gallery.purge(clock::wall())? {
            log::warn!(MESSAGE_ID = messages::PURGED, person = person.as_str(), audit = "purged"; "the person's time had run out: removed with all templates");
        }
        Ok(())
    }

    fn tell_rollback(&mut self) {
        match self.gallery.rollback() {
            Some(rollback) if !self.alarmed => {
                log::error!(MESSAGE_ID = messages::ROLLBACK; "the gallery is not the newest, nothing is granted: {rollback}");
                self.publisher.publish(events::rollback(&rollback.to_string()));
                self.alarmed = true;
            }
            Some(_) => {}
            None => self.alarmed = false,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads a request as [`Control`] does, and goes as far as one goes that touches nobody.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn judge(bytes: &[u8]) {
    if let Ok(Request::Enroll { model, people }) = postcard::from_bytes(bytes) {
        let _ = embeddings(&model, people);
    }
}

type Enrolments = Vec<(Person, Vec<Embedding>)>;

fn embeddings(model: &ModelId, people: Vec<(Person, Vec<Template>)>) -> Result<Enrolments, GalleryError> {
    let convert = |(person, templates): (Person, Vec<Template>)| {
        let embedding = |mut template: Template| Embedding::normalised(model.clone(), std::mem::take(&mut template.0));
        let all: Option<Vec<Embedding>> = templates.into_iter().map(embedding).collect();
        match all {
            Some(all) => Ok((person, all)),
            None => Err(GalleryError::NoTemplates { person: person.id }),
        }
    };
    people.into_iter().map(convert).collect()
}
