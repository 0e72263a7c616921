//! An append-only log on disk in sealed segments, for the outbox and the audit trail. The only file of this room that names a crypto
//! crate. `FORMAT.md` beside this file has the bytes.
//!
//! A segment is a header and records; each record is AES-256-GCM under a key of its own that HKDF-SHA256 derives from the state key, the
//! segment's random salt and the record's, with the record's number as its nonce, bound to the header. A process never goes on with a
//! segment of a run before, nor after a write that failed; and a memory that is resumed twice (a virtual machine's snapshot) goes on
//! with one segment, and with other salts: so no key and nonce ever seal two texts. A crash can tear the last record only; what reads
//! goes as far as records are authentic and says where it stopped.

mod names;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::system::secret::{self, SecretError};
use crate::system::{clock, files};
pub(super) use names::{list, path};

/// The name of the key among the secrets.
pub const STATE_KEY: &str = "state.key";

const KEY_BYTES: usize = 32;
const MAGIC: [u8; 16] = *b"faceid-log/2\0\0\0\0";
/// A segment of before, whose records are all under one key: read, and no longer written.
const MAGIC_1: [u8; 16] = *b"faceid-log/1\0\0\0\0";
/// What a whole sealed text is bound to, beside its purpose.
const WHOLE_MAGIC: &[u8] = b"faceid-state/1";
/// What keys that are derived from another secret are salted with.
const DERIVED_SALT: &[u8] = b"faceid-derived/1";
const SALT_BYTES: usize = 32;
const FIRST_AT: usize = 16;
const SALT_AT: usize = 24;
const COMMITMENT_AT: usize = 56;
/// A segment's header.
pub(super) const HEADER_BYTES: usize = 88;
const LENGTH_BYTES: usize = 4;
/// What makes a record's key its own.
const RECORD_SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// The longest record.
pub(super) const MAX_RECORD_BYTES: usize = 256 * 1024;
/// The largest segment that is read.
const MAX_SEGMENT_BYTES: u64 = 256 << 20;

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum SealedError {
    /// The key cannot be read.
    #[error("{0}; `faceid keygen` makes it")]
    Secret(#[from] SecretError),
    /// The key is no key.
    #[error("secret `{STATE_KEY}` is no key: it must be 64 hexadecimal digits; `faceid keygen` makes one")]
    Malformed,
    /// The system has no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// Sealed under another key.
    #[error("{path} is sealed under another state key: bring that key back, or move the folder away and begin anew", path = path.display())]
    WrongKey {
        /// Which segment.
        path: PathBuf,
    },
    /// Not what was written.
    #[error("{path}: {reason} at byte {offset}", path = path.display())]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        reason: &'static str,
    },
    /// The disk refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// The key that outbox and audit trail are sealed under. No `Debug`, and cleared when it goes.
pub struct StateKey(Zeroizing<[u8; KEY_BYTES]>);

impl StateKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, SealedError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| SealedError::Random(error.to_string()))?;
        Ok(Self(key))
    }

    /// Reads it from secret [`STATE_KEY`].
    pub fn read(secrets: &Path) -> Result<Self, SealedError> {
        let text = secret::read_line(STATE_KEY, secrets)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_BYTES || digits.iter().all(|digit| *digit == digits[0]) {
            return Err(SealedError::Malformed);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or(SealedError::Malformed);
            *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).map_err(|_| SealedError::Malformed)?;
        }
        Ok(Self(key))
    }

    /// A key of its own for `purpose`, derived (HKDF-SHA256) from a secret that is made for something else.
    pub fn derived(secret: &[u8], purpose: &str) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        #[expect(clippy::expect_used, reason = "32 bytes are within HKDF's limit")]
        Hkdf::<Sha256>::new(Some(DERIVED_SALT), secret)
            .expand(purpose.as_bytes(), key.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        Self(key)
    }

    /// The key as it is written: 64 hexadecimal digits and a line end.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        for nibble in self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text.push('\n');
        text
    }

    /// Seals a whole text of its own, as a file that is written anew each time: salt, then AES-256-GCM under a key that HKDF-SHA256
    /// derives from this one, the salt and the purpose. No two texts have one salt, so one nonce is enough.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealedError> {
        let mut sealed = self.whole_salt(&fresh()?, purpose, plain).to_vec();
        let gcm = self.whole(purpose, &sealed);
        let mut text = plain.to_vec();
        #[expect(clippy::expect_used, reason = "a state is far shorter than GCM's limit")]
        let tag = gcm
            .encrypt_inout_detached(&[0; 12].into(), WHOLE_MAGIC, text.as_mut_slice().into())
            .expect("a state is far shorter than GCM's limit");
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// What [`StateKey::seal`] sealed for this purpose under this key; nothing where a bit of it differs.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = sealed.split_at_checked(SALT_BYTES)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut plain = text.to_vec();
        let gcm = self.whole(purpose, salt);
        let opened = gcm.decrypt_inout_detached(&[0; 12].into(), WHOLE_MAGIC, plain.as_mut_slice().into(), &Tag::from(*tag));
        opened.ok().map(|()| plain)
    }

    /// Fresh bytes, mixed with the text: where they are not fresh (see [`RecordKeys::salt_of`]), only the same text has the same salt.
    fn whole_salt(&self, fresh: &[u8; SALT_BYTES], purpose: &str, plain: &[u8]) -> [u8; SALT_BYTES] {
        expand(&Hkdf::new(Some(fresh), self.0.as_slice()), &[WHOLE_MAGIC, b" salt ", purpose.as_bytes(), b" ", plain])
    }

    fn whole(&self, purpose: &str, salt: &[u8]) -> Aes256Gcm {
        let derived = Hkdf::<Sha256>::new(Some(salt), self.0.as_slice());
        let key = Zeroizing::new(expand(&derived, &[WHOLE_MAGIC, b" ", purpose.as_bytes()]));
        Aes256Gcm::new(&(*key).into())
    }

    /// A second holder of the same key.
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What a picture that leaves the device is sealed for; beside it stands what it is of.
const PICTURE: &[u8] = b"faceid-snapshot/1";

/// The key pair of whoever may look at pictures that leave the device. No `Debug`; the secret half never comes near the device.
pub struct Recipient(x25519_dalek::StaticSecret);

impl Recipient {
    /// From a secret of 32 bytes.
    pub fn new(secret: [u8; KEY_BYTES]) -> Self {
        Self(secret.into())
    }

    /// What the device is told.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        x25519_dalek::PublicKey::from(&self.0).to_bytes()
    }

    /// What [`seal_to`] sealed for this recipient; nothing where a bit of it, or what it is of, differs.
    pub fn open(&self, of: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (once, rest) = sealed.split_first_chunk::<KEY_BYTES>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let gcm = picture_cipher(&self.0.diffie_hellman(&(*once).into()), once, &self.public())?;
        let mut plain = text.to_vec();
        let opened = gcm.decrypt_inout_detached(&[0; 12].into(), of.as_bytes(), plain.as_mut_slice().into(), &Tag::from(*tag));
        opened.ok().map(|()| plain)
    }
}

/// Seals a picture to whoever holds the secret half of `recipient`: X25519 with a key made for this one text, HKDF-SHA256, AES-256-GCM
/// bound to what it is `of`. Nobody else can open it, the device afterwards least of all.
pub fn seal_to(recipient: [u8; KEY_BYTES], of: &str, plain: &[u8]) -> Result<Vec<u8>, SealedError> {
    // Mixed with the picture, so that drawing one seed twice gives two pictures no key in common.
    let drawn = Zeroizing::new(fresh::<KEY_BYTES>()?);
    let mixed = Hkdf::new(Some(PICTURE), drawn.as_slice());
    let seed = Zeroizing::new(expand(&mixed, &[b"seed ", &recipient, of.as_bytes(), b" ", plain]));
    let secret = x25519_dalek::StaticSecret::from(*seed);
    let once = x25519_dalek::PublicKey::from(&secret).to_bytes();
    let gcm = picture_cipher(&secret.diffie_hellman(&recipient.into()), &once, &recipient).ok_or(SealedError::Malformed)?;
    let mut text = plain.to_vec();
    #[expect(clippy::expect_used, reason = "a picture is far shorter than GCM's limit")]
    let tag = gcm
        .encrypt_inout_detached(&[0; 12].into(), of.as_bytes(), text.as_mut_slice().into())
        .expect("a picture is far shorter than GCM's limit");
    Ok([&once[..], &text, &tag].concat())
}

/// Nothing for a key that adds nothing of its own to the secret.
fn picture_cipher(shared: &x25519_dalek::SharedSecret, once: &[u8], recipient: &[u8]) -> Option<Aes256Gcm> {
    if !shared.was_contributory() {
        return None;
    }
    let derived = Hkdf::<Sha256>::new(Some(PICTURE), shared.as_bytes());
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    derived.expand_multi_info(&[once, recipient], key.as_mut_slice()).ok()?;
    Some(Aes256Gcm::new(&(*key).into()))
}

/// Random bytes from the system, which a new life of a virtual machine has reseeded where its host tells (VMGENID).
fn fresh<const N: usize>() -> Result<[u8; N], SealedError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| SealedError::Random(error.to_string()))?;
    Ok(bytes)
}

fn expand(derived: &Hkdf<Sha256>, info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    #[expect(clippy::expect_used, reason = "32 bytes are within HKDF's limit")]
    derived.expand_multi_info(info, &mut out).expect("32 bytes are within HKDF's limit");
    out
}

/// One segment's cipher.
#[cfg_attr(test, derive(Clone))]
struct Cipher {
    keys: RecordKeys,
    header_hash: [u8; 32],
}

/// What a segment's records are sealed under.
#[cfg_attr(test, derive(Clone))]
enum RecordKeys {
    /// All under one key: a segment of the first version.
    One(Box<Aes256Gcm>),
    /// Each under a key of its own, from this secret and the record's salt.
    Each(Zeroizing<[u8; 32]>),
}

impl RecordKeys {
    /// How many bytes a record's salt takes.
    fn salt_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Each(_) => RECORD_SALT_BYTES,
        }
    }

    /// Fresh bytes, mixed with place and text under the secret: where the fresh ones are not (nothing told the kernel that it was
    /// resumed twice), only the same text in the same place has the same salt, and that is the same record.
    fn salt_of(secret: &[u8; 32], fresh: &[u8; 32], place: &[u8], plain: &[u8]) -> [u8; RECORD_SALT_BYTES] {
        let mixed = expand(&Hkdf::new(Some(fresh), secret), &[b"faceid-log/2 salt", place, plain]);
        let mut salt = [0; RECORD_SALT_BYTES];
        salt.copy_from_slice(&mixed[..RECORD_SALT_BYTES]);
        salt
    }

    fn record(secret: &[u8; 32], salt: &[u8]) -> Aes256Gcm {
        let key = Zeroizing::new(expand(&Hkdf::new(Some(salt), secret), &[b"faceid-log/2 record"]));
        Aes256Gcm::new(&(*key).into())
    }
}

impl Cipher {
    /// The cipher of a header, and what its commitment must be; nothing for a version that is not known.
    fn new(key: &StateKey, purpose: &str, header: &[u8]) -> Option<(Self, Zeroizing<[u8; 32]>)> {
        let derived = Hkdf::<Sha256>::new(Some(&header[SALT_AT..COMMITMENT_AT]), key.0.as_slice());
        let version: &[u8] = match *header.first_chunk()? {
            MAGIC => b"faceid-log/2 ",
            MAGIC_1 => b"faceid-log/1 ",
            _ => return None,
        };
        let for_word = |word: &[u8]| Zeroizing::new(expand(&derived, &[version, word, b" ", purpose.as_bytes()]));
        let records = for_word(b"records");
        let keys = match header[..FIRST_AT] == MAGIC {
            true => RecordKeys::Each(records),
            false => RecordKeys::One(Box::new(Aes256Gcm::new(&(*records).into()))),
        };
        Some((Self { keys, header_hash: Sha256::digest(header).into() }, for_word(b"commitment")))
    }

    fn nonce(number: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    fn seal(&self, number: u64, plain: &[u8]) -> Result<Vec<u8>, SealedError> {
        let RecordKeys::Each(secret) = &self.keys else { unreachable!("only segments of the newest version are written") };
        let nonce = Self::nonce(number);
        let salt = RecordKeys::salt_of(secret, &fresh()?, &[&self.header_hash[..], &nonce].concat(), plain);
        let mut out = Vec::with_capacity(LENGTH_BYTES + RECORD_SALT_BYTES + plain.len() + TAG_BYTES);
        out.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&salt);
        out.extend_from_slice(plain);
        let text = &mut out[LENGTH_BYTES + RECORD_SALT_BYTES..];
        #[expect(clippy::expect_used, reason = "a record is far shorter than GCM's limit")]
        let tag = RecordKeys::record(secret, &salt)
            .encrypt_inout_detached(&nonce.into(), &self.header_hash, text.into())
            .expect("a record is far shorter than GCM's limit");
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// What follows a record's length, opened.
    fn open(&self, number: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, sealed) = sealed.split_at_checked(self.keys.salt_bytes())?;
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut plain = text.to_vec();
        let nonce = Self::nonce(number);
        let open = |gcm: &Aes256Gcm, text: &mut [u8]| {
            gcm.decrypt_inout_detached(&nonce.into(), &self.header_hash, text.into(), &Tag::from(*tag)).is_ok()
        };
        let opened = match &self.keys {
            RecordKeys::One(gcm) => open(gcm, &mut plain),
            RecordKeys::Each(secret) => open(&RecordKeys::record(secret, salt), &mut plain),
        };
        opened.then_some(plain)
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// The number of its segment.
    pub(super) segment: u64,
    number: u64,
    offset: u64,
    bytes: u32,
}

/// How much a log may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) total_bytes: u64,
    pub(super) segment_bytes: u64,
    pub(super) max_age: Duration,
}

struct Current {
    file: File,
    cipher: Cipher,
    segment: u64,
    bytes: u64,
    next: u64,
}

/// One log; one process a folder.
pub(super) struct SealedLog {
    folder: PathBuf,
    key: StateKey,
    purpose: &'static str,
    limits: Limits,
    segments: BTreeMap<u64, u64>,
    current: Option<Current>,
    next_segment: u64,
}

impl SealedLog {
    /// Opens the folder, or makes it, and shows every record to `visit`, oldest first. Damage is logged and what lies behind it in its
    /// segment is passed over; a wrong key ends it.
    pub(super) fn open(
        folder: &Path,
        key: StateKey,
        purpose: &'static str,
        limits: Limits,
        mut visit: impl FnMut(Location, &[u8]),
    ) -> Result<Self, SealedError> {
        let io = |source| SealedError::Io { path: folder.to_owned(), source };
        files::private_folder(folder).map_err(io)?;
        let mut segments = BTreeMap::new();
        for segment in list(folder).map_err(io)? {
            let path = path(folder, segment);
            match read_segment(&path, &key, purpose, |location, plain| visit(location, plain)) {
                Ok(bytes) => {
                    segments.insert(segment, bytes);
                }
                Err(error @ SealedError::Damaged { .. }) => {
                    log::warn!("a crash may have torn it: {error}");
                    segments.insert(segment, path.metadata().map_or(0, |metadata| metadata.len()));
                }
                Err(error) => return Err(error),
            }
        }
        let next_segment = segments.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        Ok(Self { folder: folder.to_owned(), key, purpose, limits, segments, current: None, next_segment })
    }

    /// Appends a record; durable when this returns if `durable`, otherwise with the next durable one. After a failure the record may be
    /// there or not: append it again.
    pub(super) fn append(&mut self, plain: &[u8], durable: bool) -> Result<Location, SealedError> {
        if plain.len() > MAX_RECORD_BYTES {
            let source = io::Error::new(io::ErrorKind::InvalidInput, format!("a record of more than {MAX_RECORD_BYTES} bytes"));
            return Err(SealedError::Io { path: self.folder.clone(), source });
        }
        if self.current.as_ref().is_none_or(|current| current.bytes >= self.limits.segment_bytes) {
            self.current = None;
            self.current = Some(self.begin()?);
        }
        let Some(current) = &mut self.current else { unreachable!("just begun") };
        let sealed = current.cipher.seal(current.next, plain)?;
        let location = Location {
            segment: current.segment,
            number: current.next,
            offset: current.bytes,
            bytes: u32::try_from(sealed.len()).unwrap_or(u32::MAX),
        };
        let written = current.file.write_all(&sealed).and_then(|()| if durable { current.file.sync_data() } else { Ok(()) });
        if let Err(source) = written {
            let path = path(&self.folder, current.segment);
            self.current = None;
            return Err(SealedError::Io { path, source });
        }
        current.next += 1;
        current.bytes += sealed.len() as u64;
        self.segments.insert(current.segment, current.bytes);
        Ok(location)
    }

    fn begin(&mut self) -> Result<Current, SealedError> {
        let segment = self.next_segment;
        let path = path(&self.folder, segment);
        let io = |source| SealedError::Io { path: path.clone(), source };
        let (header, cipher) = header(&self.key, self.purpose, segment, &fresh()?);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        self.next_segment += 1;
        file.write_all(&header).and_then(|()| file.sync_all()).map_err(io)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        self.segments.insert(segment, HEADER_BYTES as u64);
        Ok(Current { file, cipher, segment, bytes: HEADER_BYTES as u64, next: 0 })
    }

    /// One record.
    pub(super) fn read(&self, location: Location) -> Result<Vec<u8>, SealedError> {
        let path = path(&self.folder, location.segment);
        let io = |source| SealedError::Io { path: path.clone(), source };
        let damaged = |reason| SealedError::Damaged { path: path.clone(), offset: location.offset, reason };
        let file = files::open(&path).map_err(io)?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let known = Cipher::new(&self.key, self.purpose, &header);
        let (cipher, commitment) = known.ok_or(damaged("it is no log of this version"))?;
        if header[COMMITMENT_AT..] != *commitment {
            return Err(SealedError::WrongKey { path });
        }
        let longest = LENGTH_BYTES + RECORD_SALT_BYTES + MAX_RECORD_BYTES + TAG_BYTES;
        let mut sealed = vec![0; (location.bytes as usize).min(longest)];
        file.read_exact_at(&mut sealed, location.offset).map_err(io)?;
        let sealed = sealed.get(LENGTH_BYTES..).ok_or(damaged("a record is cut"))?;
        cipher.open(location.number, sealed).ok_or(damaged("a record is not authentic"))
    }

    /// The oldest segments that have to go for the limits' sake; `keep` is the newest one that may not. They are gone afterwards.
    pub(super) fn prune(&mut self, keep: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        let mut total: u64 = self.segments.values().sum();
        while let Some((&segment, &bytes)) = self.segments.first_key_value() {
            let path = path(&self.folder, segment);
            let is_old = || {
                let written = path.metadata().and_then(|metadata| metadata.modified()).ok();
                let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let now = Duration::from_millis(u64::try_from(clock::wall().0).unwrap_or(0));
                written.is_some_and(|at| now.saturating_sub(at) > self.limits.max_age)
            };
            if segment >= keep || (total <= self.limits.total_bytes && !is_old()) {
                break;
            }
            if let Err(error) = std::fs::remove_file(&path) {
                log::error!("{}: {error}", path.display());
                break;
            }
            total -= bytes;
            self.segments.remove(&segment);
            gone.push(segment);
        }
        gone
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(segment, _)| *segment)
    }
}

/// A segment's header, and its cipher.
fn header(key: &StateKey, purpose: &str, segment: u64, salt: &[u8; SALT_BYTES]) -> ([u8; HEADER_BYTES], Cipher) {
    let mut header = [0; HEADER_BYTES];
    header[..FIRST_AT].copy_from_slice(&MAGIC);
    header[FIRST_AT..SALT_AT].copy_from_slice(&segment.to_le_bytes());
    header[SALT_AT..COMMITMENT_AT].copy_from_slice(salt);
    let cipher = |header: &[u8]| Cipher::new(key, purpose, header).unwrap_or_else(|| unreachable!("its magic is this version's"));
    let (_, commitment) = cipher(&header);
    header[COMMITMENT_AT..].copy_from_slice(commitment.as_slice());
    let (cipher, _) = cipher(&header);
    (header, cipher)
}

/// A sound segment of any records, for the fuzzer: its key seals nothing else.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn segment(key: &StateKey, purpose: &str, segment: u64, records: &[&[u8]]) -> Vec<u8> {
    let (header, cipher) = header(key, purpose, segment, &[7; SALT_BYTES]);
    (0..).zip(records).fold(header.to_vec(), |mut bytes, (number, record)| {
        bytes.extend(cipher.seal(number, record).unwrap_or_default());
        bytes
    })
}

/// A sound segment of the first version, which no program writes any more.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::expect_used, reason = "for tests")]
pub(super) fn segment_of_before(key: &StateKey, purpose: &str, segment: u64, records: &[&[u8]]) -> Vec<u8> {
    let mut header = header(key, purpose, segment, &[9; SALT_BYTES]).0;
    header[..FIRST_AT].copy_from_slice(&MAGIC_1);
    let commitment = Cipher::new(key, purpose, &header).expect("a known version").1;
    header[COMMITMENT_AT..].copy_from_slice(commitment.as_slice());
    let (cipher, _) = Cipher::new(key, purpose, &header).expect("a known version");
    let RecordKeys::One(gcm) = &cipher.keys else { unreachable!("all under one key") };
    (0..).zip(records).fold(header.to_vec(), |mut file, (number, text)| {
        let mut sealed = text.to_vec();
        let (nonce, bound) = (Cipher::nonce(number), &cipher.header_hash);
        let tag = gcm.encrypt_inout_detached(&nonce.into(), bound, sealed.as_mut_slice().into()).expect("a short record");
        file.extend([&u32::try_from(text.len()).unwrap_or(0).to_le_bytes()[..], &sealed, &tag].concat());
        file
    })
}

/// Shows every record of a segment; gives its length, or the place of its damage after showing what is before it.
pub(super) fn read_segment(
    path: &Path,
    key: &StateKey,
    purpose: &str,
    mut visit: impl FnMut(Location, &[u8]),
) -> Result<u64, SealedError> {
    let io = |source| SealedError::Io { path: path.to_owned(), source };
    let damaged = |offset: usize, reason| SealedError::Damaged { path: path.to_owned(), offset: offset as u64, reason };
    let mut bytes = Vec::new();
    files::open(path).and_then(|file| file.take(MAX_SEGMENT_BYTES).read_to_end(&mut bytes)).map_err(io)?;
    let header = bytes.get(..HEADER_BYTES).ok_or(damaged(bytes.len(), "the header is cut"))?;
    let (cipher, commitment) = Cipher::new(key, purpose, header).ok_or(damaged(0, "it is no log of this version"))?;
    if header[COMMITMENT_AT..] != *commitment {
        return Err(SealedError::WrongKey { path: path.to_owned() });
    }
    let mut segment = [0; 8];
    segment.copy_from_slice(&header[FIRST_AT..SALT_AT]);
    let segment = u64::from_le_bytes(segment);
    let (mut at, mut number) = (HEADER_BYTES, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (length, sealed) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(damaged(at, "a record is cut"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_RECORD_BYTES {
            return Err(damaged(at, "a record is beyond its bound"));
        }
        let around = cipher.keys.salt_bytes() + TAG_BYTES;
        let sealed = sealed.get(..length + around).ok_or(damaged(at, "a record is cut"))?;
        let plain = cipher.open(number, sealed).ok_or(damaged(at, "a record is not authentic"))?;
        let whole = LENGTH_BYTES + length + around;
        let location = Location { segment, number, offset: at as u64, bytes: u32::try_from(whole).unwrap_or(u32::MAX) };
        visit(location, &plain);
        at += whole;
        number += 1;
    }
    Ok(bytes.len() as u64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total_bytes: 1 << 20, segment_bytes: 200, max_age: Duration::from_secs(3600) };

    pub(in crate::publish) fn key() -> StateKey {
        StateKey(Zeroizing::new([7; KEY_BYTES]))
    }

    fn open(folder: &Path, key: StateKey, limits: Limits) -> Result<(SealedLog, Vec<String>), SealedError> {
        let mut texts = Vec::new();
        let log = SealedLog::open(folder, key, "test", limits, |_, plain| texts.push(String::from_utf8_lossy(plain).into_owned()))?;
        Ok((log, texts))
    }

    fn filled(folder: &Path) -> Vec<Location> {
        let (mut log, texts) = open(folder, key(), LIMITS).unwrap();
        assert_eq!(texts, Vec::<String>::new());
        ["one", "two", "three", "four", "five", "six"].iter().map(|text| log.append(text.as_bytes(), true).unwrap()).collect()
    }

    #[test]
    fn a_picture_is_opened_by_its_recipient_alone_and_only_as_what_it_is_of() {
        let (mine, other) = (Recipient::new([7; 32]), Recipient::new([8; 32]));
        let sealed = seal_to(mine.public(), "front", b"a face").unwrap();
        assert_eq!(mine.open("front", &sealed).as_deref(), Some(&b"a face"[..]));
        assert_eq!((mine.open("back", &sealed), other.open("front", &sealed)), (None, None));
        for at in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[at] ^= 1;
            assert_eq!(mine.open("front", &edited), None, "byte {at}");
            assert_eq!(mine.open("front", &sealed[..at]), None);
        }
        assert!(seal_to([0; 32], "front", b"a face").is_err(), "a key that adds nothing");
        assert_ne!(sealed, seal_to(mine.public(), "front", b"a face").unwrap());
    }

    #[test]
    fn another_key_and_another_purpose_are_refused_as_such() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let other = StateKey(Zeroizing::new([8; KEY_BYTES]));
        assert!(matches!(open(folder.path(), other, LIMITS), Err(SealedError::WrongKey { .. })));
        let opened = SealedLog::open(folder.path(), key(), "other", LIMITS, |_, _| {});
        assert!(matches!(opened, Err(SealedError::WrongKey { .. })));
    }

    #[test]
    fn every_changed_byte_and_every_cut_costs_no_record_before_it_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let whole = {
            let (mut log, _) = open(folder.path(), key(), Limits { segment_bytes: 1 << 20, ..LIMITS }).unwrap();
            for n in 1..=4 {
                log.append(format!("record {n}").as_bytes(), false).unwrap();
            }
            std::fs::read(path(folder.path(), 1)).unwrap()
        };
        let record = (whole.len() - HEADER_BYTES) / 4;
        let read = |bytes: &[u8]| {
            std::fs::write(path(folder.path(), 1), bytes).unwrap();
            let mut texts = Vec::new();
            let outcome = read_segment(&path(folder.path(), 1), &key(), "test", |_, plain| texts.push(plain.to_vec()));
            (outcome, texts)
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            let (outcome, texts) = read(&bytes);
            assert!(outcome.is_err(), "byte {at}");
            assert_eq!(texts.len(), at.saturating_sub(HEADER_BYTES) / record, "byte {at}");
            let (outcome, texts) = read(&whole[..at]);
            let is_end_of_a_record = at >= HEADER_BYTES && (at - HEADER_BYTES).is_multiple_of(record);
            assert_eq!(outcome.is_ok(), is_end_of_a_record, "cut at {at}");
            assert_eq!(texts.len(), at.saturating_sub(HEADER_BYTES) / record, "cut at {at}");
        }
    }

    /// The log once more as a memory that is resumed twice has it, over a copy of its folder.
    fn resumed(log: &SealedLog, folder: &Path) -> SealedLog {
        for segment in list(&log.folder).unwrap() {
            std::fs::copy(path(&log.folder, segment), path(folder, segment)).unwrap();
        }
        let current = log.current.as_ref().map(|current| {
            let file = OpenOptions::new().append(true).open(path(folder, current.segment)).unwrap();
            let Current { segment, bytes, next, .. } = *current;
            Current { file, cipher: current.cipher.clone(), segment, bytes, next }
        });
        let SealedLog { purpose, limits, next_segment, .. } = *log;
        SealedLog {
            folder: folder.to_owned(),
            key: log.key.share(),
            purpose,
            limits,
            segments: log.segments.clone(),
            current,
            next_segment,
        }
    }

    #[test]
    fn a_memory_that_is_resumed_twice_seals_no_two_texts_under_one_key_and_nonce() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let limits = Limits { segment_bytes: 1 << 20, ..LIMITS };
        let (mut log, _) = open(one.path(), key(), limits).unwrap();
        log.append(b"before", true).unwrap();
        let mut other = resumed(&log, two.path());
        let texts = [(b"carol came", b"david came"), (b"carol went", b"david went"), (b"same texts", b"same texts")];
        let sealed = |log: &mut SealedLog, text: &[u8]| {
            let at = log.append(text, true).unwrap();
            let bytes = std::fs::read(path(&log.folder, at.segment)).unwrap();
            let begin = usize::try_from(at.offset).unwrap();
            let record = &bytes[begin..begin + at.bytes as usize];
            (at.number, record[record.len() - TAG_BYTES - text.len()..record.len() - TAG_BYTES].to_vec())
        };
        for (a, b) in texts {
            let ((m, x), (n, y)) = (sealed(&mut log, a), sealed(&mut other, b));
            assert_eq!(m, n, "the memory is the same");
            let is_one_stream = x.iter().zip(&y).zip(a.iter().zip(b)).all(|((x, y), (a, b))| x ^ y == a ^ b);
            assert!(!is_one_stream, "{m}: what one text is tells the other");
        }
        let read = |folder: &Path| open(folder, key(), limits).unwrap().1;
        assert_eq!((read(one.path()).len(), read(two.path()).len()), (4, 4), "both are whole");
    }

    #[test]
    fn randomness_that_repeats_gives_two_texts_no_salt_in_common() {
        let salt = |fresh: u8, place: &[u8], text: &[u8]| RecordKeys::salt_of(&[7; 32], &[fresh; 32], place, text);
        assert_eq!(salt(1, b"place", b"text"), salt(1, b"place", b"text"));
        assert!(
            salt(1, b"place", b"text") != salt(1, b"place", b"texu") && salt(1, b"place", b"text") != salt(1, b"plade", b"text")
        );
        assert_ne!(salt(1, b"place", b"text"), salt(2, b"place", b"text"));
        let whole = |text: &[u8]| key().whole_salt(&[1; 32], "access", text);
        assert!(whole(b"state") == whole(b"state") && whole(b"state") != whole(b"statf"));
    }

    /// What the program before this one wrote is read, and not gone on with.
    #[test]
    fn a_segment_of_the_first_version_stays_readable() {
        let folder = tempfile::tempdir().unwrap();
        let file = segment_of_before(&key(), "test", 1, &[b"one", b"two"]);
        std::fs::write(path(folder.path(), 1), &file).unwrap();
        let mut locations = Vec::new();
        let mut log = SealedLog::open(folder.path(), key(), "test", LIMITS, |location, _| locations.push(location)).unwrap();
        assert_eq!(log.read(locations[1]).unwrap(), b"two");
        assert_eq!(log.append(b"three", true).unwrap().segment, 2);
        assert_eq!(std::fs::read(path(folder.path(), 1)).unwrap(), file);
        assert_eq!(open(folder.path(), key(), LIMITS).unwrap().1, ["one", "two", "three"]);
    }

    #[test]
    fn a_run_never_writes_on_in_a_segment_of_the_run_before() {
        let folder = tempfile::tempdir().unwrap();
        let locations = filled(folder.path());
        let last = locations.last().unwrap().segment;
        let (mut log, texts) = open(folder.path(), key(), LIMITS).unwrap();
        assert_eq!(texts, ["one", "two", "three", "four", "five", "six"]);
        assert_eq!(log.append(b"seven", true).unwrap().segment, last + 1);
        assert_eq!(log.read(locations[1]).unwrap(), b"two");
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_in_the_folder_or_in_its_place() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("outbox");
        files::planted::folder_outlives(&folder, || open(&folder, key(), LIMITS).map(drop));
        std::fs::remove_file(&folder).unwrap();
        filled(&folder);
        let next = open(&folder, key(), LIMITS).unwrap().0.next_segment;
        let target = files::planted::Target::new();
        // A segment that was planted before it is begun: the log takes another number or says what is wrong, and writes nothing there.
        target.outlives(&path(&folder, next), || {
            if let Ok((mut log, _)) = open(&folder, key(), LIMITS) {
                let _ = log.append(b"ours", true);
            }
            let own = std::fs::read_dir(&folder).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
            own.filter(|own| *own > path(&folder, next)).for_each(|own| std::fs::remove_file(own).unwrap());
        });
    }

    #[test]
    fn what_is_too_much_goes_from_the_oldest_on_and_never_what_must_stay() {
        let folder = tempfile::tempdir().unwrap();
        let locations = filled(folder.path());
        let (mut log, _) = open(folder.path(), key(), Limits { total_bytes: 1, ..LIMITS }).unwrap();
        let newest = log.newest();
        assert!(newest > 1, "the test's segments are small");
        assert_eq!(log.prune(2), [1]);
        assert!(log.read(locations[0]).is_err());
        log.prune(newest);
        let (_, texts) = open(folder.path(), key(), LIMITS).unwrap();
        assert_eq!(texts.last().unwrap(), "six");
    }

    #[test]
    fn the_key_is_read_as_it_was_written_and_a_placeholder_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let file = folder.path().join(STATE_KEY);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            StateKey::read(folder.path())
        };
        for text in ["00", &"0".repeat(64), &"g1".repeat(32)] {
            assert!(matches!(write(text), Err(SealedError::Malformed)), "{text}");
        }
        let made = StateKey::generate().unwrap();
        assert!(*write(&made.to_line()).unwrap().0 == *made.0);
    }
}
