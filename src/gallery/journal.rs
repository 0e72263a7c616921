//! The journal: what was changed since the sealed file was written, one record a change. Pure: bytes in, changes out, and back.
//! `FORMAT.md` has the tables and says when a journal's end is an interrupted write and when it is a loss.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::format::{self, Entry, MAX_RECORD_BYTES, Operation};
use super::seal::{
    BLOCK_BYTES, ContentMark, KeyError, Keys, LENGTH_BYTES, RECORD_SALT_BYTES, Session, SessionVersion, TAG_BYTES, random, same,
};
use super::snapshot::Change;
use crate::types::PersonId;

/// What a journal begins with; the last byte is the version.
pub(crate) const JOURNAL_MAGIC: [u8; 16] = *b"faceid-journal/3";
/// What a journal of before begins with. It is read and not gone on with: the next change writes the file anew.
pub(crate) const JOURNAL_MAGIC_2: [u8; 16] = *b"faceid-journal/2";
/// Magic and generation.
pub(crate) const JOURNAL_HEADER_BYTES: usize = 24;
/// A session's start: kind, epoch, salt, tag.
pub(crate) const SESSION_BYTES: usize = 1 + 8 + BLOCK_BYTES + BLOCK_BYTES;
/// Before a change's sealed bytes: kind, epoch, length, and the record's salt.
pub(crate) const CHANGE_HEADER_BYTES: usize = CHANGE_HEADER_BYTES_2 + RECORD_SALT_BYTES;
/// Before a change's sealed bytes in a journal of before: kind, epoch, length.
pub(crate) const CHANGE_HEADER_BYTES_2: usize = 1 + 8 + LENGTH_BYTES;
/// A change that is longer than this is written as a new file instead.
pub(crate) const MAX_CHANGE_BYTES: usize = 8 << 20;

const SESSION: u8 = 1;
const CHANGE: u8 = 2;

/// What a journal follows: one generation's file.
pub(crate) struct Base<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) generation: u64,
    pub(crate) header_hash: [u8; BLOCK_BYTES],
    pub(crate) head: [u8; TAG_BYTES],
    pub(crate) epoch: u64,
    pub(crate) dimension: usize,
}

/// Where a journal stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The last change's number.
    pub(crate) epoch: u64,
    /// The last record's tag.
    pub(crate) head: [u8; TAG_BYTES],
    /// How many bytes are authentic.
    pub(crate) end: usize,
}

/// What a journal's bytes say.
pub(crate) struct Replayed {
    /// What happens to whom, all records taken together.
    pub(crate) changes: BTreeMap<PersonId, Change>,
    /// Where the authentic part ends.
    pub(crate) tail: Tail,
    /// Why reading stopped before the end of the bytes, if it did.
    pub(crate) stopped: Option<&'static str>,
    /// Each change's number and tag.
    pub(crate) heads: Vec<(u64, [u8; TAG_BYTES])>,
    /// Whether anybody was removed.
    pub(crate) removes: bool,
    /// Whether it follows another file than this: then nothing of it was read.
    pub(crate) foreign: Option<u64>,
    /// Whether it is of a version that nothing is appended to.
    pub(crate) is_outdated: bool,
}

/// The version of a journal and the generation that it says it follows.
fn generation(bytes: &[u8]) -> Option<(SessionVersion, u64)> {
    let versions = [(JOURNAL_MAGIC, SessionVersion::Third), (JOURNAL_MAGIC_2, SessionVersion::Second)];
    let (rest, version) = versions.iter().find_map(|(magic, version)| Some((bytes.strip_prefix(magic)?, *version)))?;
    rest.first_chunk().map(|bytes| (version, u64::from_le_bytes(*bytes)))
}

/// Reads a journal, and of its changes those after number `since`. What is not authentic ends it; whether that is an interrupted write
/// or a loss is for the caller to know, who has the epoch's second place.
pub(crate) fn replay(bytes: &mut [u8], base: &Base<'_>, since: u64) -> Replayed {
    let tail = Tail { epoch: base.epoch, head: base.head, end: 0 };
    let changes = BTreeMap::new();
    let mut out = Replayed { changes, tail, stopped: None, heads: Vec::new(), removes: false, foreign: None, is_outdated: false };
    if bytes.is_empty() {
        return out;
    }
    match generation(bytes) {
        None => out.stopped = Some("the journal's first bytes are none"),
        Some((_, other)) if other != base.generation => out.foreign = Some(other),
        Some((version, _)) => {
            out.is_outdated = version != SessionVersion::Third;
            out.tail.end = JOURNAL_HEADER_BYTES;
            let mut session = None;
            while out.stopped.is_none() && out.tail.end < bytes.len() {
                let rest = &mut bytes[out.tail.end..];
                let step = match rest[0] {
                    SESSION => begin(version, rest, base, &mut out.tail, &mut session),
                    CHANGE => change(rest, base, since, &mut out, session.as_mut()),
                    _ => Err("a record of a kind that is not known"),
                };
                out.stopped = step.err();
            }
        }
    }
    out
}

fn begin(
    version: SessionVersion,
    rest: &[u8],
    base: &Base<'_>,
    tail: &mut Tail,
    session: &mut Option<Session>,
) -> Result<(), &'static str> {
    let record = rest.first_chunk::<SESSION_BYTES>().ok_or("the journal ends inside a session's start")?;
    let (salt, tag) = record[9..].split_first_chunk::<BLOCK_BYTES>().ok_or("a session's start is cut")?;
    let follows = (tail.epoch + 1, tail.head);
    let (opened, expected) = Session::new(version, base.keys, base.generation, base.header_hash, follows, salt);
    if record[1..9] != (tail.epoch + 1).to_le_bytes() || !same(tag, &expected) {
        return Err("a session's start is not authentic");
    }
    *session = Some(opened);
    tail.head.copy_from_slice(&tag[..TAG_BYTES]);
    tail.end += SESSION_BYTES;
    Ok(())
}

fn change(
    rest: &mut [u8],
    base: &Base<'_>,
    since: u64,
    out: &mut Replayed,
    session: Option<&mut Session>,
) -> Result<(), &'static str> {
    let cut = "the journal ends inside a change";
    let (header, rest) = rest.split_first_chunk_mut::<CHANGE_HEADER_BYTES_2>().ok_or(cut)?;
    let epoch = out.tail.epoch + 1;
    let (number, length) = header[1..].split_at(8);
    let length = length.try_into().map_or(usize::MAX, |length| u32::from_le_bytes(length) as usize);
    if number != epoch.to_le_bytes() || length > MAX_RECORD_BYTES {
        return Err("a change out of its order or beyond its bound");
    }
    let (salt, rest) = match out.is_outdated {
        true => (None, rest),
        false => rest.split_first_chunk_mut::<RECORD_SALT_BYTES>().map(|(salt, rest)| (Some(&*salt), rest)).ok_or(cut)?,
    };
    let header_bytes = if out.is_outdated { CHANGE_HEADER_BYTES_2 } else { CHANGE_HEADER_BYTES };
    let (body, rest) = rest.split_at_mut_checked(length).ok_or(cut)?;
    let tag = *rest.first_chunk::<TAG_BYTES>().ok_or(cut)?;
    let session = session.ok_or("a change before any session")?;
    if !session.open(epoch, &out.tail.head, salt, body, tag) {
        return Err("a change is not authentic");
    }
    let operations = format::decode_operations(body, base.dimension).map_err(|_| "a change says what no change can")?;
    for operation in operations {
        out.removes |= matches!(operation, Operation::Remove(_));
        if epoch > since {
            take(&mut out.changes, operation);
        }
    }
    out.tail = Tail { epoch, head: tag, end: out.tail.end + header_bytes + length + TAG_BYTES };
    out.heads.push((epoch, tag));
    Ok(())
}

/// One operation after all before it.
fn take(changes: &mut BTreeMap<PersonId, Change>, operation: Operation) {
    match operation {
        Operation::Remove(id) => {
            changes.insert(id, Change::Remove);
        }
        Operation::Put(Entry { person, values }) => {
            let next = match changes.remove(&person.id) {
                None => Change::Put { person: person.clone(), add: values },
                Some(Change::Remove) => Change::Renew { person: person.clone(), add: values },
                Some(Change::Put { add, .. }) => Change::Put { person: person.clone(), add: joined(add, values) },
                Some(Change::Renew { add, .. }) => Change::Renew { person: person.clone(), add: joined(add, values) },
            };
            changes.insert(person.id, next);
        }
    }
}

/// Both, one after the other, without a copy left behind by a growing vector.
pub(crate) fn joined(first: Zeroizing<Vec<f32>>, second: Zeroizing<Vec<f32>>) -> Zeroizing<Vec<f32>> {
    let mut all = Zeroizing::new(Vec::with_capacity(first.len() + second.len()));
    all.extend_from_slice(&first);
    all.extend_from_slice(&second);
    all
}

/// One change's plain bytes, or `None` when it is too long for a journal.
pub(crate) fn plain(changes: &BTreeMap<PersonId, Change>, dimension: usize) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = |(id, change): (&PersonId, &Change)| match change {
        Change::Put { person, add } => format::put_bytes(person, add.len() / dimension, dimension),
        // Written as a removal and an enrolment in two changes; nobody makes one in a single change.
        Change::Renew { .. } => MAX_CHANGE_BYTES,
        Change::Remove => format::remove_bytes(id),
    };
    let length: usize = changes.iter().map(bytes).sum();
    if length >= MAX_CHANGE_BYTES {
        return None;
    }
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    for (id, change) in changes {
        match change {
            Change::Put { person, add } => format::encode_put(&mut out, person, add.len() / dimension, add.iter().copied()),
            Change::Remove => format::encode_remove(&mut out, id),
            Change::Renew { .. } => return None,
        }
    }
    Some(out)
}

/// Marks what changes do, however long they are.
pub(crate) fn mark(changes: &BTreeMap<PersonId, Change>, dimension: usize, mark: &mut ContentMark) {
    for (id, change) in changes {
        let mut bytes = Zeroizing::new(Vec::new());
        match change {
            Change::Put { person, add } | Change::Renew { person, add } => {
                let templates = add.len() / dimension;
                bytes.reserve_exact(format::put_bytes(person, templates, dimension));
                format::encode_put(&mut bytes, person, templates, add.iter().copied());
            }
            Change::Remove => format::encode_remove(&mut bytes, id),
        }
        mark.take(&bytes);
    }
}

/// Writes records that follow each other.
pub(crate) struct Appender {
    session: Option<Session>,
}

impl Appender {
    /// A session that begins with its first record.
    pub(crate) fn new() -> Self {
        Self { session: None }
    }

    /// The bytes to be appended at `tail.end` for one change, and the tail behind them.
    pub(crate) fn append(&mut self, base: &Base<'_>, tail: Tail, plain: &mut [u8]) -> Result<(Vec<u8>, Tail), KeyError> {
        let mut out = Vec::with_capacity(JOURNAL_HEADER_BYTES + SESSION_BYTES + CHANGE_HEADER_BYTES + plain.len() + TAG_BYTES);
        let (epoch, mut head) = (tail.epoch + 1, tail.head);
        if tail.end == 0 {
            out.extend_from_slice(&JOURNAL_MAGIC);
            out.extend_from_slice(&base.generation.to_le_bytes());
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                let salt = random::<BLOCK_BYTES>()?;
                let follows = (epoch, head);
                let (session, tag) =
                    Session::new(SessionVersion::Third, base.keys, base.generation, base.header_hash, follows, &salt);
                out.push(SESSION);
                out.extend_from_slice(&epoch.to_le_bytes());
                out.extend_from_slice(&salt);
                out.extend_from_slice(&tag);
                head.copy_from_slice(&tag[..TAG_BYTES]);
                none.insert(session)
            }
        };
        let (salt, tag) = session.seal(epoch, &head, plain)?;
        out.push(CHANGE);
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&salt);
        out.extend_from_slice(plain);
        out.extend_from_slice(&tag);
        let tail = Tail { epoch, head: tag, end: tail.end + out.len() };
        Ok((out, tail))
    }

    /// The same appender once more, as a memory that is resumed twice has it.
    #[cfg(test)]
    pub(crate) fn resumed(&self) -> Self {
        Self { session: self.session.as_ref().map(Session::resumed) }
    }
}
