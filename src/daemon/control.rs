//! The gallery's one writer while a daemon runs, and its door: a Unix socket in the state folder, mode 0600, for processes of the same
//! user or of root. The command line enrols and removes through it instead of opening the store behind the daemon's back.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::broker_word::BrokerWord;
use super::supervisor::{WorkerContext, WorkerError};
use super::{deeds, events};
use crate::gallery::format::MAX_PEOPLE;
use crate::gallery::{Gallery, GalleryError, Twin, is_made};
use crate::publish::{Audit, Publisher};
use crate::system::messages;
use crate::types::{Embedding, ModelId, Person, PersonId, Score};

/// The socket in the state folder.
pub const SOCKET: &str = "control.sock";

/// How long the worker waits for a caller before it looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Callers that are served side by side; changes wait for one another all the same.
const CALLERS: usize = 8;
/// A caller that has not begun to ask by then is hung up on: whoever connects has the question ready.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// And one that stops within a question, or does not take the answer.
const CALLER_PATIENCE: Duration = Duration::from_secs(20);
/// How long the command line waits for an answer: a large gallery is written anew in seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
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
    /// [`Request::Enroll`], but for those whose face is somebody else's by this score or more: [`Reply::Twins`] names them.
    EnrollDistinct {
        /// The model of the templates.
        model: ModelId,
        /// Each with templates.
        people: Vec<(Person, Vec<Template>)>,
        /// The least score of one face.
        threshold: Score,
    },
    /// Changes nothing: refused, with the reason, while the gallery takes no change.
    Check,
    /// Changes nothing: refused, with the reason, while the broker has not told what it keeps of this device.
    Witness,
}

impl Request {
    /// An enrolment of one model's embeddings; with `distinct`, of those alone whose face is nobody else's by that score or more.
    pub fn enroll(model: &ModelId, people: Vec<(Person, Vec<Embedding>)>, distinct: Option<Score>) -> Self {
        let (model, people) = (model.clone(), Self::templates(people));
        match distinct {
            Some(threshold) => Self::EnrollDistinct { model, people, threshold },
            None => Self::Enroll { model, people },
        }
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
    /// Done, but these were not enrolled: each is somebody else, by that score.
    Twins(Vec<(PersonId, PersonId, Score)>),
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
    /// The question did not get through.
    #[error("the running daemon does not listen on {path}: {source}; nothing was changed, try again", path = path.display())]
    Unheard {
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
        // A question that is not whole is none to the daemon.
        send(&mut &self.stream, &bytes).map_err(|source| ControlError::Unheard { path: self.path.clone(), source })?;
        let answer = receive(&mut &self.stream, || Ok(())).map_err(broken)?;
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

/// The next message; `begun` is called when its first byte has come.
fn receive(stream: &mut impl Read, begun: impl FnOnce() -> io::Result<()>) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length[..1])?;
    begun()?;
    stream.read_exact(&mut length[1..])?;
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
    desk: Desk,
    listener: UnixListener,
    path: PathBuf,
}

/// What every caller is served with.
struct Desk {
    gallery: Arc<Gallery>,
    publisher: Publisher,
    audit: Arc<Audit>,
    word: Arc<BrokerWord>,
}

impl Control {
    /// Opens the socket. The caller holds the state folder's lock, so a socket that is there is left from before.
    pub(super) fn open(
        state: &Path,
        gallery: Arc<Gallery>,
        publisher: Publisher,
        audit: Arc<Audit>,
        word: Arc<BrokerWord>,
    ) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_address(&path, |address| UnixListener::bind(address))?;
        // Until here the folder's own mode keeps others out, and each caller is looked at besides.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { desk: Desk { gallery, publisher, audit, word }, listener, path })
    }

    /// Answers callers until told to stop, each on a thread of its own: one that dawdles hinders nobody. Beyond [`CALLERS`] they wait in
    /// the system's queue until one has gone.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        let Self { desk, listener, .. } = self;
        let calls = Calls::default();
        std::thread::scope(|scope| {
            let served = loop {
                context.beat();
                if context.stop().is_asked() {
                    break Ok(());
                }
                if calls.count() >= CALLERS {
                    context.stop().sleep(PATIENCE);
                    continue;
                }
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (desk, calls) = (&*desk, &calls);
                        let call = calls.begin(&stream);
                        scope.spawn(move || {
                            if let Err(error) = desk.answer(&stream) {
                                log::warn!("a caller of the control socket went away: {error}");
                            }
                            drop(call);
                        });
                    }
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error.into()),
                }
            };
            // Who is being served gets the answer; who has not asked is not waited for.
            calls.hang_up();
            served
        })
    }
}

/// Who is being served: the streams, so that whoever only waits can be hung up on at the stop.
#[derive(Default)]
struct Calls(Mutex<Vec<Option<UnixStream>>>);

/// One caller's place, given back when it goes.
struct Call<'a>(&'a Calls, usize);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<UnixStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.lock().iter().flatten().count()
    }

    fn begin(&self, stream: &UnixStream) -> Option<Call<'_>> {
        let (mut places, stream) = (self.lock(), stream.try_clone().ok()?);
        let free = places.iter().position(Option::is_none).unwrap_or(places.len());
        if free == places.len() {
            places.push(None);
        }
        places[free] = Some(stream);
        Some(Call(self, free))
    }

    fn hang_up(&self) {
        self.lock().iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Read)));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.lock()[self.1] = None;
    }
}

impl Desk {
    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let caller = socket_peercred(stream)?.uid;
        if !caller.is_root() && caller != rustix::process::geteuid() {
            log::warn!(uid = caller.as_raw(); "a caller of another user was turned away");
            return Ok(());
        }
        stream.set_write_timeout(Some(CALLER_PATIENCE))?;
        let mut parts = Vec::new();
        loop {
            stream.set_read_timeout(Some(FIRST_WORD))?;
            let bytes = match receive(&mut &*stream, || stream.set_read_timeout(Some(CALLER_PATIENCE))) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let reply = match postcard::from_bytes::<Request>(&bytes) {
                Ok(request) => self.serve(request, &mut parts, caller.as_raw()),
                Err(_) => Reply::Refused { code: 70, message: "the daemon does not know what was asked: restart it".to_owned() },
            };
            let reply = postcard::to_stdvec(&reply).map_err(io::Error::other)?;
            send(&mut &*stream, &reply)?;
        }
    }

    fn serve(&self, request: Request, parts: &mut Vec<(Person, Vec<Template>)>, by: u32) -> Reply {
        let done = match request {
            Request::Enroll { model, people } => self.enroll(&model, people, None, by),
            Request::EnrollDistinct { model, people, threshold } => self.enroll(&model, people, Some(threshold), by),
            Request::RestorePart(more) => {
                parts.extend(more);
                let wanted = parts.len();
                if wanted <= MAX_PEOPLE {
                    Ok(Vec::new())
                } else {
                    Err(GalleryError::TooLarge { what: "people", wanted, limit: MAX_PEOPLE })
                }
            }
            Request::Witness => return self.witness(),
            Request::Restore { model, replace } => self.restore(&model, std::mem::take(parts), replace, by).map(|()| Vec::new()),
            other => self.care(other, by).map(|()| Vec::new()),
        };
        match done {
            Ok(twins) if twins.is_empty() => Reply::Done,
            Ok(twins) => Reply::Twins(twins.into_iter().map(|twin| (twin.person, twin.other.person, twin.other.score)).collect()),
            Err(error) => Reply::Refused { code: error.exit_code(), message: error.to_string() },
        }
    }

    fn witness(&self) -> Reply {
        match self.word.get().why_unheard() {
            None => Reply::Done,
            Some(why) => Reply::Refused {
                code: 69,
                message: format!(
                    "the broker is no witness that this device's state is the newest, and until it is heard nothing is granted beyond unheard-grants-s: {why}"
                ),
            },
        }
    }

    /// What takes no people along.
    fn care(&self, request: Request, by: u32) -> Result<(), GalleryError> {
        let gallery = &self.gallery;
        match request {
            Request::Set(person) => {
                let id = person.id.clone();
                let set = gallery.set(person);
                if is_made(&set) {
                    log::info!(MESSAGE_ID = messages::CHANGED, person = id.as_str(); "changed");
                    self.note(by, deeds::changed(&id));
                }
                return set;
            }
            Request::Remove(person) => {
                let erased = gallery.erase(&person);
                if is_made(&erased) {
                    log::info!(MESSAGE_ID = messages::REMOVED, person = person.as_str(); "removed");
                    self.note(by, deeds::removed(&person, is_erased(&erased)));
                }
                return erased;
            }
            Request::Compact => gallery.compact()?,
            Request::Rekey { rotate } => {
                let rekeyed = gallery.rekey(None, rotate);
                if is_made(&rekeyed) {
                    self.note(by, deeds::rekeyed(rotate, false));
                }
                return rekeyed;
            }
            Request::AcceptRollback => {
                let rollback = gallery.rollback();
                let accepted = gallery.accept_rollback();
                if let Some(rollback) = rollback.filter(|_| is_made(&accepted)) {
                    log::warn!("an operator accepted the gallery's state");
                    self.note(by, deeds::accepted_rollback(&rollback.to_string()));
                }
                return accepted;
            }
            Request::Check => {
                if let Some(rollback) = gallery.rollback() {
                    return Err(GalleryError::RolledBack { path: gallery.path().to_owned(), rollback: (*rollback).clone() });
                }
                if let Some(reason) = gallery.latched() {
                    return Err(GalleryError::Latched { path: gallery.path().to_owned(), reason: reason.to_string() });
                }
            }
            Request::Enroll { .. }
            | Request::EnrollDistinct { .. }
            | Request::RestorePart(_)
            | Request::Restore { .. }
            | Request::Witness => {}
        }
        Ok(())
    }

    fn enroll(
        &self,
        model: &ModelId,
        people: Vec<(Person, Vec<Template>)>,
        distinct: Option<Score>,
        by: u32,
    ) -> Result<Vec<Twin>, GalleryError> {
        let people = embeddings(model, people)?;
        let mut who: Vec<PersonId> = people.iter().map(|(person, _)| person.id.clone()).collect();
        let twins = match distinct {
            Some(threshold) => self.gallery.enroll_distinct(people, threshold),
            None => self.gallery.enroll_many(people).map(|()| Vec::new()),
        };
        if is_made(&twins) {
            who.retain(|id| twins.iter().flatten().all(|twin| twin.person != *id));
            for some in who.chunks(events::IDS_AN_ENTRY) {
                let ids: Vec<&str> = some.iter().map(PersonId::as_str).collect();
                log::info!(MESSAGE_ID = messages::ENROLLED, people = ids.join(" ").as_str(); "enrolled");
            }
            deeds::enrolled(&who).for_each(|what| self.note(by, what));
        }
        twins
    }

    fn restore(&self, model: &ModelId, people: Vec<(Person, Vec<Template>)>, replace: bool, by: u32) -> Result<(), GalleryError> {
        let people = embeddings(model, people)?;
        let count = people.len();
        let restored = self.gallery.restore(people, replace);
        if is_made(&restored) {
            log::warn!(people = count, replaced = replace; "an operator put a backup back");
            self.note(by, deeds::restored(count, replace));
        }
        restored
    }

    /// Into the audit trail: who (the user's number) did what.
    fn note(&self, by: u32, what: serde_json::Value) {
        events::note(&self.audit, &self.publisher, "control", json!({"uid": by, "what": what}));
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

/// Whether the disk is free of what was removed.
pub fn is_erased(erased: &Result<(), GalleryError>) -> bool {
    !matches!(erased, Err(GalleryError::NotErased { .. }))
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
