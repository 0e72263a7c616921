//! The gallery's one writer while a daemon runs, and its door: a Unix socket in the state folder, mode 0600, for processes of the same
//! user or of root. The command line enrols and removes through it instead of opening the store behind the daemon's back.

mod people;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

pub use people::{People, Template};

use people::embeddings;

use super::broker_word::BrokerWord;
use super::calls::Calls;
use super::restoring::{self, Origin, Trust};
use super::supervisor::{WorkerContext, WorkerError};
use super::workers::Counts;
use super::{deeds, events};
use crate::access::grant::KeySet;
use crate::gallery::{Admission, Allowed, Backup, Gallery, GalleryError, Rule, is_made};
use crate::publish::{Audit, Publisher};
use crate::system::{files, messages};
use crate::types::{DoorId, Embedding, ModelId, Person, PersonId, Score, Wall};

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

/// A part of a backup's text on its way. No `Debug`, cleared when it goes.
#[derive(Serialize, Deserialize)]
pub struct TextPart(Vec<u8>);

impl TextPart {
    /// These bytes, which are cleared with it.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(std::mem::take(&mut *bytes))
    }

    fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut self.0))
    }
}

impl Drop for TextPart {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What may be asked of the gallery's writer.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// Enrol these people by the rule of enrolment ([`Gallery::admit`]) at the daemon's own threshold: [`Reply::Admitted`] tells what
    /// became of each.
    Enroll {
        /// The model of the templates.
        model: ModelId,
        /// Each with templates.
        people: People,
        /// What the operator insists on against the rule.
        allowed: Allowed,
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
    /// A part of a backup's text, kept until [`Request::Restore`] on the same connection; it goes when the caller goes.
    RestorePart(TextPart),
    /// What came by [`Request::RestorePart`] is read, and when it is believed its people become the gallery's, all or none.
    Restore {
        /// Whether in the place of people who are there.
        replace: bool,
        /// Whose backups are believed.
        trust: Trust,
    },
    /// Changes nothing: refused, with the reason, while the gallery takes no change.
    Check,
    /// Changes nothing: which doors are blocked ([`Reply::Blocked`]).
    Blocked,
    /// Changes nothing: which doors stand otherwise than their rules say ([`Reply::Unusual`]).
    Unusual,
    /// Changes nothing: refused, with the reason, while the broker has not told what it keeps of this device.
    Witness,
}

impl Request {
    /// An enrolment of one model's embeddings.
    pub fn enroll(model: &ModelId, people: Vec<(Person, Vec<Embedding>)>, allowed: Allowed) -> Self {
        Self::Enroll { model: model.clone(), people: Self::templates(people), allowed }
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
    /// Doors that are blocked: until when, and by what.
    Blocked(Vec<(DoorId, Wall, String)>),
    /// Doors that are locked down by a command, or held open and until when.
    Unusual(Vec<(DoorId, Option<Wall>)>),
    /// An enrolment is done; what became of each person, in their order.
    Admitted(Vec<Admission>),
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

/// What callers are answered by, besides the gallery.
pub(super) struct Terms {
    pub(super) counts: Arc<Counts>,
    /// A face as alike as this to somebody's is that person's.
    pub(super) matching: Score,
    /// The device's own: whose backups are believed.
    pub(super) keys: KeySet,
    pub(super) word: Arc<BrokerWord>,
}

/// What every caller is served with.
struct Desk {
    gallery: Arc<Gallery>,
    /// Into the audit trail: who (the user's number) did what.
    trail: Box<dyn Fn(u32, Value) + Send + Sync>,
    terms: Terms,
}

impl Control {
    /// Opens the socket. The caller holds the state folder's lock, so a socket that is there is left from before.
    /// Templates are compared at the threshold `matching`.
    pub(super) fn open(
        state: &Path,
        gallery: Arc<Gallery>,
        publisher: Publisher,
        audit: Arc<Audit>,
        terms: Terms,
    ) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_address(&path, |address| UnixListener::bind(address))?;
        // Until here the folder's own mode keeps others out, and each caller is looked at besides.
        files::set_mode(&path, 0o600)?;
        set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
        let trail = Box::new(move |by, what| events::note(&audit, &publisher, "control", json!({"uid": by, "what": what})));
        Ok(Self { desk: Desk { gallery, trail, terms }, listener, path })
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
        let mut text = restoring::Text::default();
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
            send(&mut &*stream, &self.reply(&bytes, &mut text, caller.as_raw())?)?;
        }
    }

    /// What is answered to the bytes of a question.
    fn reply(&self, bytes: &[u8], text: &mut restoring::Text, by: u32) -> io::Result<Vec<u8>> {
        let reply = match postcard::from_bytes::<Request>(bytes) {
            Ok(request) => self.serve(request, text, by),
            Err(_) => Reply::Refused { code: 70, message: "the daemon does not know what was asked: restart it".to_owned() },
        };
        postcard::to_stdvec(&reply).map_err(io::Error::other)
    }

    fn serve(&self, request: Request, text: &mut restoring::Text, by: u32) -> Reply {
        let not_done = |code: u8, error: &dyn std::fmt::Display| Reply::Refused { code, message: error.to_string() };
        let done = match request {
            Request::Witness => return self.witness(),
            Request::Blocked => return Reply::Blocked(self.terms.counts.blocked.in_force()),
            Request::Unusual => return Reply::Unusual(self.terms.counts.doors.unusual()),
            Request::Enroll { model, people, allowed } => return self.enroll(&model, people, allowed, by),
            Request::RestorePart(more) => {
                if !text.push(more.into_bytes(), self.gallery.snapshot().dimension()) {
                    return not_done(65, &"the backup is longer than any of this gallery can be");
                }
                Ok(())
            }
            Request::Restore { replace, trust } => {
                let backup = match Backup::read(&mut std::mem::take(text)) {
                    Ok(backup) => backup,
                    Err(error) => return not_done(error.exit_code(), &error),
                };
                let origin = match restoring::judge(&backup, &self.terms.keys, &trust) {
                    Ok(origin) => origin,
                    Err(error) => return not_done(restoring::NOT_BELIEVED, &error),
                };
                self.restore(backup, &origin, replace, by)
            }
            other => self.care(other, by),
        };
        done.map_or_else(|error| refused(&error), |()| Reply::Done)
    }

    fn witness(&self) -> Reply {
        match self.terms.word.get().why_unheard() {
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
            | Request::RestorePart(_)
            | Request::Restore { .. }
            | Request::Blocked
            | Request::Unusual
            | Request::Witness => {}
        }
        Ok(())
    }

    fn enroll(&self, model: &ModelId, people: People, allowed: Allowed, by: u32) -> Reply {
        let people = match embeddings(model, people) {
            Ok(people) => people,
            Err(error) => return refused(&error),
        };
        let (admissions, done) = self.gallery.admit(people, &Rule { matching: self.terms.matching, allowed });
        if is_made(&done) {
            let enrolled: Vec<&str> = deeds::of_enrolled(&admissions).map(|admission| admission.person.as_str()).collect();
            for some in enrolled.chunks(events::IDS_AN_ENTRY) {
                log::info!(MESSAGE_ID = messages::ENROLLED, people = some.join(" ").as_str(); "enrolled");
            }
            deeds::admitted(&admissions, allowed).for_each(|what| self.note(by, what));
        }
        done.map_or_else(|error| refused(&error), |()| Reply::Admitted(admissions))
    }

    fn restore(&self, backup: Backup, origin: &Origin, replace: bool, by: u32) -> Result<(), GalleryError> {
        let people = backup.into_people();
        let count = people.len();
        let restored = self.gallery.restore(people, replace);
        if is_made(&restored) {
            log::warn!(people = count, replaced = replace, signed = matches!(origin, Origin::Signed(_)); "an operator put a backup back");
            self.note(by, deeds::restored(count, replace, origin));
        }
        restored
    }

    fn note(&self, by: u32, what: Value) {
        (self.trail)(by, what);
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

fn refused(error: &GalleryError) -> Reply {
    Reply::Refused { code: error.exit_code(), message: error.to_string() }
}

/// A caller's bytes, as [`Control`] reads and answers them, against a gallery of drawn people: however they are framed and whatever they
/// ask, each question is answered, and no backup is believed that this device did not sign.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn judge(gallery: Gallery, mut bytes: &[u8]) {
    let terms = Terms { counts: Arc::default(), matching: Score::MAX, keys: KeySet::default(), word: Arc::default() };
    let desk = Desk { gallery: Arc::new(gallery), trail: Box::new(|_, _| ()), terms };
    let mut text = restoring::Text::default();
    while let Ok(question) = receive(&mut bytes, || Ok(())) {
        if let Ok(Request::Restore { trust, .. }) = postcard::from_bytes(&question)
            && let Ok(backup) = Backup::read(&mut &crate::gallery::fuzzing::backup_text(None)[..])
        {
            let is_believed = restoring::judge(&backup, &KeySet::default(), &trust).is_ok();
            assert_eq!(is_believed, trust == Trust::Anything);
        }
        let reply = desk.reply(&question, &mut text, 0).map(|reply| postcard::from_bytes::<Reply>(&reply).is_ok());
        assert!(matches!(reply, Ok(true)), "a question that is not answered");
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
    let part = || {
        let mut text = crate::gallery::fuzzing::backup_text(None);
        let rest = text.split_off(text.len() / 2);
        [text, rest].map(|bytes| Request::RestorePart(TextPart::new(Zeroizing::new(bytes))))
    };
    let [first, second] = part();
    let [half, _] = part();
    let (allowed, insisting) = (Allowed::default(), Allowed { duplicate: true, other_face: true });
    vec![
        framed(&[Request::Enroll { model: model(), people: people("p9", dimension), allowed }, Request::Set(person("p9"))]),
        framed(&[Request::Enroll { model: model(), people: people("p8", dimension), allowed: insisting }]),
        framed(&[Request::Set(person("p0")), Request::Remove(person("p0").id), Request::Compact]),
        framed(&[first, second, Request::Restore { replace: true, trust: Trust::Anything }]),
        framed(&[half, Request::Restore { replace: false, trust: Trust::Signed { more: Vec::new() } }]),
        framed(&[Request::Rekey { rotate: true }, Request::AcceptRollback, Request::Check]),
        u32::MAX.to_le_bytes().to_vec(),
    ]
}

/// Whether the disk is free of what was removed.
pub fn is_erased(erased: &Result<(), GalleryError>) -> bool {
    !matches!(erased, Err(GalleryError::NotErased { .. }))
}
