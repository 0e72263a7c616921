//! The gallery's one writer while a daemon runs, and its door: a Unix socket in the state folder, mode 0600, for processes of the same
//! user or of root. The command line enrols and removes through it instead of opening the store behind the daemon's back.

mod people;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use zeroize::Zeroizing;

pub use people::{People, Template};

use people::embeddings;

use super::calls::Calls;
use super::supervisor::{WorkerContext, WorkerError};
use super::{deeds, events};
use crate::gallery::format::{MAX_PEOPLE, MAX_TEMPLATES};
use crate::gallery::{Gallery, GalleryError, Twin, is_made};
use crate::publish::{Audit, Publisher};
use crate::system::messages;
use crate::types::{Embedding, ModelId, Person, PersonId, Score};

/// The socket in the state folder.
pub const SOCKET: &str = "control.sock";

/// How long the worker waits for a caller before it looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Callers that are served side by side; changes wait for one another all the same.
pub(super) const CALLERS: usize = 8;
/// A caller that has not begun to ask by then is hung up on: whoever connects has the question ready.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// And one whose question is not whole by then, counted from its first byte, or that does not take the answer.
const CALLER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the command line waits for an answer: a large gallery is written anew in seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// The longest message: a batch of an import fits many times.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The longest path that a socket's address takes (sun_path).
const MAX_ADDRESS_BYTES: usize = 107;

/// What may be asked of the gallery's writer.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// Enrol these people, all or none.
    Enroll {
        /// The model of the templates.
        model: ModelId,
        /// Each with templates.
        people: People,
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
    RestorePart(People),
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
        people: People,
        /// The least score of one face.
        threshold: Score,
    },
    /// Changes nothing: refused, with the reason, while the gallery takes no change.
    Check,
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
    pub fn templates(people: Vec<(Person, Vec<Embedding>)>) -> People {
        let template = |embedding: Embedding| Template(embedding.values().to_vec());
        People(people.into_iter().map(|(person, all)| (person, all.into_iter().map(template).collect())).collect())
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
    /// Into the audit trail: who (the user's number) did what.
    trail: Box<dyn Fn(u32, Value) + Send + Sync>,
}

/// What one caller has sent to be put back.
#[derive(Default)]
struct Parts {
    people: Vec<(Person, Vec<Template>)>,
    templates: usize,
}

impl Control {
    /// Opens the socket. The caller holds the state folder's lock, so a socket that is there is left from before.
    pub(super) fn open(state: &Path, gallery: Arc<Gallery>, publisher: Publisher, audit: Arc<Audit>) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_address(&path, |address| UnixListener::bind(address))?;
        // Until here the folder's own mode keeps others out, and each caller is looked at besides.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
        let trail = Box::new(move |by, what| events::note(&audit, &publisher, "control", json!({"uid": by, "what": what})));
        Ok(Self { desk: Desk { gallery, trail }, listener, path })
    }

    /// Answers callers until told to stop, each on a thread of its own: one that dawdles hinders nobody. When [`CALLERS`] are there, the
    /// one that has been asking nothing for longest is hung up on for the next.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        let Self { desk, listener, .. } = self;
        let calls = Calls::default();
        std::thread::scope(|scope| {
            let served = loop {
                context.beat();
                if context.stop().is_asked() {
                    break Ok(());
                }
                match listener.accept() {
                    Ok((stream, _)) => {
                        while !calls.make_room() && !context.stop().sleep(PATIENCE) {
                            context.beat();
                        }
                        let (desk, calls) = (&*desk, &calls);
                        let Some(call) = calls.begin(&stream) else { continue };
                        scope.spawn(move || {
                            if let Err(error) = desk.answer(&stream, &|is_asking| call.is_asking(is_asking)) {
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

impl Desk {
    /// `asking` is told when a question is waited for and when it has come.
    fn answer(&self, stream: &UnixStream, asking: &dyn Fn(bool)) -> io::Result<()> {
        let caller = socket_peercred(stream)?.uid;
        if !caller.is_root() && caller != rustix::process::geteuid() {
            log::warn!(uid = caller.as_raw(); "a caller of another user was turned away");
            return Ok(());
        }
        stream.set_write_timeout(Some(CALLER_PATIENCE))?;
        let mut parts = Parts::default();
        loop {
            asking(true);
            let question = Question { stream, until: Cell::new(Instant::now() + FIRST_WORD) };
            let begun = || {
                question.until.set(Instant::now() + CALLER_PATIENCE);
                Ok(())
            };
            let bytes = match receive(&mut &question, begun) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            asking(false);
            send(&mut &*stream, &self.reply(&bytes, &mut parts, caller.as_raw())?)?;
        }
    }

    /// What is answered to the bytes of a question.
    fn reply(&self, bytes: &[u8], parts: &mut Parts, by: u32) -> io::Result<Vec<u8>> {
        let reply = match postcard::from_bytes::<Request>(bytes) {
            Ok(request) => self.serve(request, parts, by),
            Err(_) => Reply::Refused { code: 70, message: "the daemon does not know what was asked: restart it".to_owned() },
        };
        postcard::to_stdvec(&reply).map_err(io::Error::other)
    }

    fn serve(&self, request: Request, parts: &mut Parts, by: u32) -> Reply {
        let done = match request {
            Request::Enroll { model, people } => self.enroll(&model, people, None, by),
            Request::EnrollDistinct { model, people, threshold } => self.enroll(&model, people, Some(threshold), by),
            Request::RestorePart(more) => {
                let added = parts.add(more, self.gallery.snapshot().dimension());
                if added.is_err() {
                    *parts = Parts::default();
                }
                added.map(|()| Vec::new())
            }
            Request::Restore { model, replace } => {
                let Parts { people, .. } = std::mem::take(parts);
                self.restore(&model, People(people), replace, by).map(|()| Vec::new())
            }
            other => self.care(other, by).map(|()| Vec::new()),
        };
        match done {
            Ok(twins) if twins.is_empty() => Reply::Done,
            Ok(twins) => Reply::Twins(twins.into_iter().map(|twin| (twin.person, twin.other.person, twin.other.score)).collect()),
            Err(error) => Reply::Refused { code: error.exit_code(), message: error.to_string() },
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
            Request::Enroll { .. } | Request::EnrollDistinct { .. } | Request::RestorePart(_) | Request::Restore { .. } => {}
        }
        Ok(())
    }

    fn enroll(&self, model: &ModelId, people: People, distinct: Option<Score>, by: u32) -> Result<Vec<Twin>, GalleryError> {
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

    fn restore(&self, model: &ModelId, people: People, replace: bool, by: u32) -> Result<(), GalleryError> {
        let people = embeddings(model, people)?;
        let count = people.len();
        let restored = self.gallery.restore(people, replace);
        if is_made(&restored) {
            log::warn!(people = count, replaced = replace; "an operator put a backup back");
            self.note(by, deeds::restored(count, replace));
        }
        restored
    }

    fn note(&self, by: u32, what: Value) {
        (self.trail)(by, what);
    }
}

impl Parts {
    /// Takes some more people, so that in all they are no more than a gallery of templates of `dimension` numbers may hold.
    fn add(&mut self, more: People, dimension: usize) -> Result<(), GalleryError> {
        let templates = more.0.iter().map(|(_, templates)| templates.len()).sum::<usize>();
        let (people, templates) = (self.people.len() + more.0.len(), self.templates + templates);
        for (what, wanted, limit) in [("people", people, MAX_PEOPLE), ("templates", templates, MAX_TEMPLATES)] {
            if wanted > limit {
                return Err(GalleryError::TooLarge { what, wanted, limit });
            }
        }
        let is_other = |(_, templates): &&(Person, Vec<Template>)| templates.iter().any(|template| template.0.len() != dimension);
        if let Some((person, _)) = more.0.iter().find(is_other) {
            return Err(GalleryError::InvalidPerson {
                person: person.id.clone(),
                reason: "a template has another length than the gallery's",
            });
        }
        self.templates = templates;
        self.people.extend(more.0);
        Ok(())
    }
}

/// A caller's stream, read until a moment: each read waits for what is left of the time and no longer, however it drips.
struct Question<'a> {
    stream: &'a UnixStream,
    until: Cell<Instant>,
}

impl Read for &Question<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.get().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A caller's bytes, as [`Control`] reads and answers them, against a gallery of drawn people: however they are framed and whatever they
/// ask, each question is answered, and what is held for a caller is bounded.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn judge(gallery: Gallery, mut bytes: &[u8]) {
    let desk = Desk { gallery: Arc::new(gallery), trail: Box::new(|_, _| ()) };
    let mut parts = Parts::default();
    while let Ok(question) = receive(&mut bytes, || Ok(())) {
        let reply = desk.reply(&question, &mut parts, 0).map(|reply| postcard::from_bytes::<Reply>(&reply).is_ok());
        assert!(matches!(reply, Ok(true)), "a question that is not answered");
        let held = parts.people.iter().flat_map(|(_, templates)| templates).map(|template| template.0.len()).sum::<usize>();
        assert!(parts.people.len() <= MAX_PEOPLE && held == parts.templates * desk.gallery.snapshot().dimension());
    }
    let snapshot = desk.gallery.snapshot();
    assert!(snapshot.people().all(|(person, templates)| templates > 0 && person.groups.len() <= 64));
}

/// Questions as callers send them, for a walk to begin with.
#[cfg(test)]
pub(super) fn questions(model: &ModelId, dimension: usize) -> Vec<Vec<u8>> {
    let person = |name: &str| Person {
        id: PersonId::new(name).expect("a plain name"),
        name: Some("A. Name".to_owned()),
        groups: vec![crate::types::GroupId::new("staff").expect("a plain name")],
        consented_at: Some(crate::types::Wall(1)),
        expires_at: None,
        enrolled_at: crate::types::Wall(0),
    };
    let people = |name: &str, length: usize| People(vec![(person(name), vec![Template(vec![0.25; length])])]);
    let framed = |requests: &[Request]| {
        let mut bytes = Vec::new();
        for request in requests {
            let question = postcard::to_stdvec(request).expect("it is plain");
            send(&mut bytes, &question).expect("it is short");
        }
        bytes
    };
    let model = || model.clone();
    let threshold = Score::new(0.4).expect("in range");
    vec![
        framed(&[Request::Enroll { model: model(), people: people("p9", dimension) }, Request::Set(person("p9"))]),
        framed(&[Request::EnrollDistinct { model: model(), people: people("p8", dimension), threshold }]),
        framed(&[Request::Set(person("p0")), Request::Remove(person("p0").id), Request::Compact]),
        framed(&[
            Request::RestorePart(people("p7", dimension)),
            Request::RestorePart(people("p6", dimension)),
            Request::Restore { model: model(), replace: true },
        ]),
        framed(&[Request::RestorePart(people("p7", dimension + 1)), Request::Restore { model: model(), replace: false }]),
        framed(&[Request::Rekey { rotate: true }, Request::AcceptRollback, Request::Check]),
        u32::MAX.to_le_bytes().to_vec(),
    ]
}

/// Whether the disk is free of what was removed.
pub fn is_erased(erased: &Result<(), GalleryError>) -> bool {
    !matches!(erased, Err(GalleryError::NotErased { .. }))
}
