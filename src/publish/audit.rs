//! The audit trail: append-only, hash-chained, sealed, rotated by size. Its head is published, so that a trail that was cut at its end
//! shows against what subscribers remember.
//!
//! An entry is a JSON object, `n`, `time`, `prev`, `kind`, `detail`; its hash is SHA-256 of that very text, and `prev` is the hash of the
//! entry before. What an entry tells is what was decided and commanded; no grant, no key and no template is ever in one.
//!
//! The daemon writes it. The command line does where no daemon runs and it changes the gallery itself; the gallery's lock, which it holds
//! then and a daemon takes before it opens the trail, keeps the two apart.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::sealed::{self, Limits, SealedError, SealedLog, StateKey};
use crate::access::grant::{self, GrantKey, HeadClaim, KeySet};
use crate::types::{DeviceId, Wall};

/// Segments of the trail: the part that is given up at once when it is full.
const SEGMENTS: u64 = 32;
/// What goes before the first entry.
const BEGINNING: &str = "";
/// The longest text of an entry that came from outside, in characters.
const MAX_OUTSIDE_CHARS: usize = 300;
pub(super) const PURPOSE: &str = "audit";

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub n: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The hash of the entry before; empty for the first.
    pub prev: String,
    /// What kind: `decision`, `command`, `command-refused`, `api` (a change of the gallery over HTTP), `control`
    /// (one by the command line through the daemon), `offline` (one by the command line while no daemon ran), `gallery` (what the
    /// daemon did with it by itself), `start`, `stop`, `keys`.
    pub kind: String,
    /// More of it.
    pub detail: Value,
}

/// The last entry: what is published.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// Its number; 0 when there is none.
    pub n: u64,
    /// Its hash in hexadecimal digits.
    pub hash: String,
    /// The two, the device and the time, signed by the device's grant key: anybody may be able to write where it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

impl Head {
    /// Reads a head as it was published; gives what `device` said in it, by one of its `keys`.
    pub fn said(published: &[u8], device: &DeviceId, keys: &KeySet) -> Result<HeadClaim, String> {
        let head: Self = serde_json::from_slice(published).map_err(|error| format!("it is no head: {error}"))?;
        let claim = head.claim.ok_or("it is not signed: a daemon of before published it, or somebody else")?;
        let claim = grant::open_head(&claim, keys).map_err(|error| format!("it is not signed by this device: {error}"))?;
        if claim.iss != *device || (claim.n, &claim.hash) != (head.n, &head.hash) {
            return Err("its signature is of another head".to_owned());
        }
        Ok(claim)
    }
}

/// Why a trail is not sound.
#[derive(Debug, Error)]
pub enum AuditError {
    /// It cannot be read.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// Something is missing, was put in, or stands elsewhere.
    #[error("the audit trail is broken after entry {after}: {what}")]
    Broken {
        /// The last sound entry.
        after: u64,
        /// What is wrong.
        what: String,
    },
}

/// The kind of what the command line does while no daemon runs.
const OFFLINE: &str = "offline";

struct Trail {
    log: SealedLog,
    head: Head,
    has_run: bool,
    signer: Option<(DeviceId, GrantKey)>,
}

impl Trail {
    fn head_of(&self, n: u64, hash: String, now: Wall) -> Head {
        let sign = |(device, key): &(DeviceId, GrantKey)| {
            key.sign_head(&HeadClaim { iss: device.clone(), iat: now.unix_seconds(), n, hash: hash.clone() })
        };
        let claim = self.signer.as_ref().map(sign);
        Head { n, hash, claim }
    }
}

/// The writer's end of the trail.
pub struct Audit(Mutex<Trail>);

impl Audit {
    /// Goes on with the trail in `folder`, or begins one.
    pub fn open(folder: &Path, key: &StateKey, max_bytes: u64) -> Result<Self, SealedError> {
        let limits = Limits { total_bytes: max_bytes, segment_bytes: (max_bytes / SEGMENTS).max(4096), max_age: Duration::MAX };
        let (mut head, mut has_run) = (Head::default(), false);
        let log = SealedLog::open(folder, key.share(), PURPOSE, limits, |_, plain| {
            if let Ok(entry) = serde_json::from_slice::<Entry>(plain) {
                head = Head { n: entry.n, hash: hash(plain), claim: None };
                has_run |= entry.kind != OFFLINE;
            }
        })?;
        Ok(Self(Mutex::new(Trail { log, head, has_run, signer: None })))
    }

    /// From now on each head is signed by this key of `device`.
    pub fn signed_by(self, device: DeviceId, key: GrantKey) -> Self {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).signer = Some((device, key));
        self
    }

    /// Appends an entry, durable when this returns; gives the new head. A failure is logged: the daemon goes on and says so.
    pub fn append(&self, kind: &str, detail: Value, now: Wall) -> Head {
        self.try_append(kind, detail, now).unwrap_or_else(|error| {
            log::error!("the audit trail does not take an entry ({kind}): {error}");
            self.head()
        })
    }

    /// [`Audit::append`] of what the command line did with the gallery while no daemon ran.
    pub fn append_offline(&self, detail: Value, now: Wall) -> Result<Head, SealedError> {
        self.try_append(OFFLINE, detail, now)
    }

    fn try_append(&self, kind: &str, detail: Value, now: Wall) -> Result<Head, SealedError> {
        let mut trail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            n: trail.head.n.saturating_add(1),
            time: now.rfc3339(),
            prev: trail.head.hash.clone(),
            kind: kind.to_owned(),
            detail,
        };
        // An entry of texts and numbers always serialises.
        let text = serde_json::to_vec(&entry).unwrap_or_default();
        // The very same text again in a fresh segment: an entry that is there twice is one entry.
        let appended = trail.log.append(&text, true).or_else(|_| trail.log.append(&text, true));
        if appended.is_ok() {
            trail.head = trail.head_of(entry.n, hash(&text), now);
        }
        let newest = trail.log.newest();
        trail.log.prune(newest);
        appended.map(|_| trail.head.clone())
    }

    /// Whether a daemon had written any of it when it was opened: the command line alone leaves nothing else to be remembered.
    pub fn has_run(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_run
    }

    /// The last entry's number and hash.
    pub fn head(&self) -> Head {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).head.clone()
    }
}

/// What was found when a trail was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The first entry that is still here; the ones before were rotated away.
    pub first: u64,
    /// The last entry.
    pub head: Head,
    /// Places where a crash tore a record that nothing was built on.
    pub warnings: Vec<String>,
}

/// Reads a whole trail, checks every seal, number and link, and shows each sound entry's text.
pub fn verify(folder: &Path, key: &StateKey, mut show: impl FnMut(&Entry, &str)) -> Result<Report, AuditError> {
    let io = |source| SealedError::Io { path: folder.to_owned(), source };
    let mut report = Report { first: 0, head: Head { n: 0, hash: BEGINNING.to_owned(), claim: None }, warnings: Vec::new() };
    let mut broken = None;
    for segment in sealed::list(folder).map_err(io)? {
        let path = folder.join(format!("{segment:012}.log"));
        let read = sealed::read_segment(&path, key, PURPOSE, |_, plain| {
            if broken.is_none() {
                broken = link(plain, &mut report, &mut show).err();
            }
        });
        match read {
            // The chain tells whether anything was lost here: the next segment goes on from what is before it, or it does not.
            Err(error @ SealedError::Damaged { .. }) => report.warnings.push(error.to_string()),
            other => drop(other?),
        }
        if let Some(what) = broken {
            return Err(AuditError::Broken { after: report.head.n, what });
        }
    }
    Ok(report)
}

fn link(plain: &[u8], report: &mut Report, show: &mut impl FnMut(&Entry, &str)) -> Result<(), String> {
    let text = std::str::from_utf8(plain).map_err(|_| "an entry is no text".to_owned())?;
    let entry: Entry = serde_json::from_str(text).map_err(|error| format!("an entry is no entry: {error}"))?;
    if entry.n == 0 {
        return Err("an entry has no number".to_owned());
    }
    let hash = hash(plain);
    if report.first == 0 {
        if entry.n == 1 && entry.prev != BEGINNING {
            return Err("the first entry names one before it".to_owned());
        }
        report.first = entry.n;
    } else if report.head.hash == hash {
        return Ok(());
    } else if Some(entry.n) != report.head.n.checked_add(1) || entry.prev != report.head.hash {
        return Err(format!("entry {} does not follow it", entry.n));
    }
    report.head = Head { n: entry.n, hash, claim: None };
    show(&entry, text);
    Ok(())
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text from outside, cut and printable, fit for an entry.
pub fn outside(text: &str) -> String {
    text.chars().take(MAX_OUTSIDE_CHARS).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sealed::tests::key;
    use super::*;

    fn write(folder: &Path, entries: std::ops::RangeInclusive<u64>) -> Head {
        let audit = Audit::open(folder, &key(), 1 << 20).unwrap();
        entries.for_each(|n| drop(audit.append("decision", Value::from(n), Wall(0))));
        audit.head()
    }

    fn read(folder: &Path) -> Result<(Report, Vec<u64>), AuditError> {
        let mut numbers = Vec::new();
        let report = verify(folder, &key(), |entry, _| numbers.push(entry.n))?;
        Ok((report, numbers))
    }

    #[test]
    fn a_segment_that_is_missing_swapped_or_put_in_breaks_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        (0..4).for_each(|run| drop(write(folder.path(), run * 3 + 1..=run * 3 + 3)));
        let file = |n: u64| folder.path().join(format!("{n:012}.log"));
        let whole = std::fs::read(file(2)).unwrap();
        std::fs::remove_file(file(2)).unwrap();
        assert!(matches!(read(folder.path()), Err(AuditError::Broken { after: 3, .. })));
        std::fs::copy(file(3), file(2)).unwrap();
        assert!(matches!(read(folder.path()), Err(AuditError::Broken { after: 3, .. })));
        let elsewhere = tempfile::tempdir().unwrap();
        write(elsewhere.path(), 1..=3);
        std::fs::copy(elsewhere.path().join("000000000001.log"), file(2)).unwrap();
        assert!(read(folder.path()).is_err());
        // An entry that was lost although others were built on it.
        std::fs::write(file(2), &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(read(folder.path()), Err(AuditError::Broken { after: 5, .. })));
        std::fs::write(file(2), &whole).unwrap();
        assert_eq!(read(folder.path()).unwrap().1, (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn an_end_that_was_cut_shows_against_the_head_and_a_torn_record_is_only_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let head = write(folder.path(), 1..=5);
        let file = folder.path().join("000000000001.log");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
        let (report, numbers) = read(folder.path()).unwrap();
        assert_eq!((numbers.len(), report.warnings.len()), (4, 1));
        assert_ne!(report.head, head);
        // The next run goes on from what is there.
        write(folder.path(), 5..=6);
        assert_eq!(read(folder.path()).unwrap().1, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_bound_takes_the_oldest_and_what_is_left_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), &key(), 3 * 4096).unwrap();
        (1..=300).for_each(|n: u64| drop(audit.append("decision", Value::from(n), Wall(0))));
        let (report, numbers) = read(folder.path()).unwrap();
        assert!(report.first > 1 && numbers.len() > 10, "{report:?}");
        assert_eq!(report.head, audit.head());
    }

    #[test]
    fn what_the_command_line_wrote_is_in_the_chain_and_is_no_run_of_a_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Audit::open(folder.path(), &key(), 1 << 20).unwrap();
        assert_eq!(open().append_offline(Value::from("removed"), Wall(0)).unwrap().n, 1);
        assert!(!open().has_run());
        write(folder.path(), 2..=2);
        open().append_offline(Value::from("removed"), Wall(0)).unwrap();
        assert!(open().has_run());
        assert_eq!(read(folder.path()).unwrap().1, [1, 2, 3]);
    }

    #[test]
    fn a_published_head_is_ours_or_it_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (device, keys) = (DeviceId::new("gate").unwrap(), [GrantKey::generate().unwrap(), GrantKey::generate().unwrap()]);
        let [ours, other] = &keys;
        let own = KeySet::new([ours.public()]);
        let published = |name: &str, key: &GrantKey| {
            let folder = folder.path().join(format!("{name}-{}", key.kid()));
            let key = GrantKey::from_seed(key.seed().as_slice()).unwrap();
            let audit = Audit::open(&folder, &super::super::sealed::tests::key(), 1 << 20).unwrap();
            audit.signed_by(DeviceId::new(name).unwrap(), key).append("start", Value::Null, Wall(5_000))
        };
        let said = |head: &Head| Head::said(&serde_json::to_vec(head).unwrap(), &device, &own);
        let good = published("gate", ours);
        let claim = said(&good).unwrap();
        assert_eq!((claim.n, &claim.hash, claim.iat), (1, &good.hash, 5));
        for bad in [
            Head { claim: None, ..good.clone() },
            Head { n: 2, ..good.clone() },
            Head { hash: "0".repeat(64), ..good.clone() },
            published("gate", other),
            published("other", ours),
        ] {
            assert!(said(&bad).is_err(), "{bad:?}");
        }
        assert!(Head::said(b"", &device, &own).is_err() && Head::said(b"{}", &device, &own).is_err());
    }

    #[test]
    fn what_comes_from_outside_is_cut_and_printable() {
        assert_eq!(outside("a\u{1b}[31m\n\"é"), "a\\u{1b}[31m\\n\\\"\\u{e9}");
        assert_eq!(outside(&"x".repeat(10_000)).len(), MAX_OUTSIDE_CHARS);
    }
}
