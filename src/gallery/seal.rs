//! The seal: AES-256-GCM under keys derived by HKDF-SHA256 (RFC 5869). This file and the folder beside it are the only ones of this
//! room that name a crypto crate: keys and primitives here, the sealed file in `file`, the journal's sessions in `session`, backups in
//! `age`, the index's graph in `graph`.
//!
//! The order of opening is the point (as age does it): nothing is decrypted, and no key of a record exists, before the whole header
//! is authentic. A wrong key is told from damage by three values: a checksum that needs no key (damage by accident), a commitment to
//! the key (GCM has none of its own: one ciphertext can open under two keys), and a tag over the header (tampering).

pub(crate) mod age;
mod file;
pub(crate) mod graph;
mod locked;
#[cfg(test)]
pub(crate) mod repeated;
mod session;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

#[cfg(test)]
pub(crate) use file::{CHECKSUM_AT, COMMITMENT_AT, HEADER_TAG_AT, KEYS_AT, RECORD_BINDING_BYTES, SALT_AT};
pub(crate) use file::{HEADER_BYTES, Header, Sealer};
use locked::Locked;
#[cfg(test)]
pub(crate) use session::CHANGE_BINDING_BYTES;
pub(crate) use session::{Session, SessionVersion};

use super::format::FormatError;
use crate::system::secret::{self, SecretError};

/// Bytes of a sealing key, of a data key and of a rotation's secret.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a salt, a commitment, a checksum and a header tag.
pub(crate) const BLOCK_BYTES: usize = 32;
/// A record's length before it.
pub(crate) const LENGTH_BYTES: usize = 4;
/// A record's tag after it.
pub(crate) const TAG_BYTES: usize = 16;
/// A record's own salt, where it has one: it makes the record's key its own.
pub(crate) const RECORD_SALT_BYTES: usize = 16;
/// The generation's part of a nonce.
pub(crate) const PREFIX_BYTES: usize = 3;
/// A nonce: the generation's part, a counter and the last flag.
pub(crate) const NONCE_BYTES: usize = PREFIX_BYTES + 8 + 1;

const WITNESS_SALT: &[u8] = b"faceid-witness/1";
const ROTATION_INFO: &[u8] = b"faceid-gallery/2 rotation";
const DATA_INFO: &[u8] = b"faceid-gallery/2 data";
const RECORD_SALT_INFO: &[u8] = b"faceid-record/1 salt";
const RECORD_KEY_INFO: &[u8] = b"faceid-record/1 key";

/// Why a sealing key could not be had. The key is never in it.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It could not be read.
    #[error("{0}; `faceid keygen` makes a key")]
    Secret(#[from] SecretError),
    /// It is no key.
    #[error(
        "secret `{name}` is no sealing key: it must be 32 random bytes or their 64 hexadecimal digits; `faceid keygen` makes one"
    )]
    Malformed {
        /// Which secret.
        name: String,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// It could not be written.
    #[error("the sealing key cannot be written to {path}: {source}", path = path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// The key from which every gallery key is derived. No `Debug`, and cleared when it goes.
pub struct SealingKey(Locked);

impl SealingKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random_key()?))
    }

    /// Reads the key from secret `name` (see [`secret::read`]): 32 raw bytes, or 64 hexadecimal digits on a line.
    pub fn read(name: &str, fallback: &Path) -> Result<Self, KeyError> {
        let bytes = secret::read(name, fallback)?;
        Self::parse(&bytes).ok_or_else(|| KeyError::Malformed { name: name.to_owned() })
    }

    /// The key as 64 hexadecimal digits, for `systemd-creds encrypt`.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for byte in self.0.bytes() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Writes the key to a new file of mode 0600 as a line of 64 hexadecimal digits, durably. A file that is there is never
    /// replaced: its gallery would be lost.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Write { path: path.to_owned(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(self.to_hex().as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(failed)
    }

    /// A second holder of the same key.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.copied())
    }

    /// The tag of an epoch's record under this key.
    pub(crate) fn witness_tag(&self, fields: &[u8]) -> [u8; BLOCK_BYTES] {
        *Derived::new(self, WITNESS_SALT).expand(&[fields])
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Locked::new());
        let trimmed = bytes.trim_ascii_end();
        if trimmed.len() == 2 * KEY_BYTES {
            for (byte, pair) in key.0.bytes_mut().iter_mut().zip(trimmed.chunks_exact(2)) {
                let digit = |c: u8| char::from(c).to_digit(16);
                *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).ok()?;
            }
        } else if bytes.len() == KEY_BYTES && !bytes.iter().all(u8::is_ascii_hexdigit) {
            // 32 hexadecimal digits are half a key that someone took for a whole one.
            key.0.bytes_mut().copy_from_slice(bytes);
        } else {
            return None;
        }
        // A key of one repeated byte is a placeholder.
        key.0.bytes().iter().any(|b| *b != key.0.bytes()[0]).then_some(key)
    }
}

/// Why a file could not be opened or sealed.
#[derive(Debug, Error)]
pub(crate) enum SealError {
    /// Sealed under another key.
    #[error("sealed under another key")]
    WrongKey,
    /// Of a version that is not known.
    #[error("version `{found}`")]
    UnknownVersion {
        /// Its byte, printable.
        found: String,
    },
    /// Not what was sealed.
    #[error("{reason} at byte {offset}")]
    Damaged {
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}

impl SealError {
    /// A format error in bytes that begin at `base` of the file.
    pub(crate) fn from_format(error: FormatError, base: usize) -> Self {
        match error {
            FormatError::UnknownVersion { found } => Self::UnknownVersion { found },
            FormatError::Malformed { offset, reason } => Self::Damaged { offset: base + offset, reason },
        }
    }
}

/// What one generation's files are sealed with: wrapped in the header, never written plain. No `Debug`, cleared when it goes.
pub(crate) struct Keys {
    /// Random, fresh for every generation: the parent of its records' and sessions' keys.
    data: Locked,
    /// Random, kept over generations until it is renewed: fixes the rotation of templates.
    rotation: Locked,
}

impl Keys {
    /// All new.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Ok(Self { data: random_key()?, rotation: random_key()? })
    }

    /// A new data key with the same rotation. It is drawn fresh and depends on what will be sealed under it besides, so that two lives
    /// of one memory that draw the same bytes (a virtual machine's snapshot resumed twice without fresh randomness) have one key only
    /// where they seal the same content.
    pub(crate) fn next(&self, content: ContentMark) -> Result<Self, KeyError> {
        let fresh = Zeroizing::new(random::<KEY_BYTES>()?);
        let mark: [u8; BLOCK_BYTES] = content.0.finalize().into();
        let drawn =
            Derived(Hkdf::new(Some(fresh.as_slice()), self.data.bytes())).expand(&[DATA_INFO, &mark, self.rotation.bytes()]);
        let mut data = Locked::new();
        data.bytes_mut().copy_from_slice(drawn.as_slice());
        Ok(Self { data, rotation: self.rotation.copied() })
    }

    /// The same once more, as a memory that is resumed twice has it.
    #[cfg(test)]
    pub(crate) fn resumed(&self) -> Self {
        Self { data: self.data.copied(), rotation: self.rotation.copied() }
    }

    /// The bytes that the rotation is drawn from, as a stream.
    pub(crate) fn rotation_stream(&self) -> impl FnMut(&mut [u8]) {
        let derived = Derived::of(self.rotation.bytes());
        let mut block = 0u64;
        let mut ready: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(BLOCK_BYTES));
        move |out| {
            for byte in out {
                if ready.is_empty() {
                    ready.extend_from_slice(derived.expand(&[ROTATION_INFO, &block.to_le_bytes()]).as_slice());
                    block += 1;
                }
                *byte = ready.pop().unwrap_or_default();
            }
        }
    }
}

fn random_key() -> Result<Locked, KeyError> {
    let mut key = Locked::new();
    fill(key.bytes_mut())?;
    Ok(key)
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut out = [0; N];
    fill(&mut out)?;
    Ok(out)
}

/// The system's randomness, which a new life of a virtual machine has reseeded where its host tells (VMGENID).
fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    #[cfg(test)]
    if repeated::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|e| KeyError::Random(e.to_string()))
}

/// The nonces under one key: three bytes of the generation, a counter and the last flag. Only counting gives one, so none repeats; the
/// key itself is fresh for every file, every session and, where records follow what happens, every record. The last flag makes a cut at a record's end visible (STREAM, Hoang,
/// Reyhanitabar, Rogaway and Vizár, 2015).
struct Nonces {
    prefix: [u8; PREFIX_BYTES],
    next: u64,
}

impl Nonces {
    fn new(prefix: [u8; PREFIX_BYTES]) -> Self {
        Self { prefix, next: 0 }
    }

    /// The number of this record and its nonce.
    fn take(&mut self, last: bool) -> (u64, [u8; NONCE_BYTES]) {
        let number = self.next;
        self.next = number.checked_add(1).expect("nobody seals 2^64 records");
        (number, nonce(self.prefix, number, last))
    }
}

fn nonce(prefix: [u8; PREFIX_BYTES], number: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..PREFIX_BYTES].copy_from_slice(&prefix);
    nonce[PREFIX_BYTES..NONCE_BYTES - 1].copy_from_slice(&number.to_be_bytes());
    nonce[NONCE_BYTES - 1] = u8::from(last);
    nonce
}

/// The generation's part of a nonce.
fn prefix(generation: u64) -> [u8; PREFIX_BYTES] {
    let [a, b, c, ..] = generation.to_le_bytes();
    [a, b, c]
}

/// SHA-256 over bytes as they come, for what is signed elsewhere.
#[derive(Clone)]
pub(crate) struct Digesting(Sha256);

impl Digesting {
    /// Over nothing yet.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// More bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that came.
    pub(crate) fn finish(self) -> [u8; BLOCK_BYTES] {
        self.0.finalize().into()
    }
}

/// What tells one content of a gallery from another, for [`Keys::next`].
pub(crate) struct ContentMark(Sha256);

impl ContentMark {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// More of it.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// A key for every record, from one secret and the salt that stands in the record: a counter in memory repeats when the memory does (a
/// virtual machine's snapshot, CRIU), so it must not be all that keeps two texts from one key and nonce.
struct RecordKeys(Zeroizing<[u8; BLOCK_BYTES]>);

impl RecordKeys {
    /// A salt for this text in this place.
    fn salt(&self, bound: &[u8], plain: &[u8]) -> Result<[u8; RECORD_SALT_BYTES], KeyError> {
        Ok(self.salt_of(&random()?, bound, plain))
    }

    /// Fresh bytes, mixed with place and text under the secret: where the fresh ones are not (nothing told the kernel that it was
    /// resumed twice), only the same text in the same place has the same salt, and that is the same record.
    fn salt_of(&self, fresh: &[u8; BLOCK_BYTES], bound: &[u8], plain: &[u8]) -> [u8; RECORD_SALT_BYTES] {
        let mixed = Derived::of(self.0.as_slice()).expand(&[RECORD_SALT_INFO, fresh, bound, plain]);
        let mut salt = [0; RECORD_SALT_BYTES];
        salt.copy_from_slice(&mixed[..RECORD_SALT_BYTES]);
        salt
    }

    fn cipher(&self, salt: &[u8; RECORD_SALT_BYTES]) -> Cipher {
        Cipher::new(&Derived::of(self.0.as_slice()).expand(&[RECORD_KEY_INFO, salt]))
    }
}

/// AES-256-GCM in place.
struct Cipher(Aes256Gcm);

impl Cipher {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(&(*key).into()))
    }

    fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], plain: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.0.encrypt_inout_detached(&nonce.into(), associated, plain.into());
        tag.expect("a record is far shorter than GCM's limit").into()
    }

    /// True when it is authentic; otherwise the bytes are of no use.
    fn open(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], sealed: &mut [u8], tag: [u8; TAG_BYTES]) -> bool {
        self.0.decrypt_inout_detached(&nonce.into(), associated, sealed.into(), &Tag::from(tag)).is_ok()
    }
}

/// HKDF over one secret.
struct Derived(Hkdf<Sha256>);

impl Derived {
    fn new(key: &SealingKey, salt: &[u8]) -> Self {
        Self(Hkdf::new(Some(salt), key.0.bytes()))
    }

    /// Over a secret that is random throughout and needs no extraction.
    fn of(secret: &[u8]) -> Self {
        Self(Hkdf::from_prk(secret).expect("32 bytes are a whole pseudo-random key"))
    }

    fn expand(&self, info: &[&[u8]]) -> Zeroizing<[u8; BLOCK_BYTES]> {
        let mut out = Zeroizing::new([0; BLOCK_BYTES]);
        self.0.expand_multi_info(info, out.as_mut_slice()).expect("32 bytes are within HKDF's limit");
        out
    }
}

fn hash(bytes: &[u8]) -> [u8; BLOCK_BYTES] {
    Sha256::digest(bytes).into()
}

/// Compares without an early end.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_no_key_is_refused() {
        for bytes in
            [&b""[..], b"short", &[7; 32], &[b'0'; 64], b"0123456789abcdef0123456789abcdef", &[b'g'; 64], &[1; 33], &[1; 31]]
        {
            assert!(SealingKey::parse(bytes).is_none());
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_its_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.key");
        let key = SealingKey::generate().unwrap();
        key.write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(SealingKey::read("gallery.key", folder.path()).unwrap().0.bytes() == key.0.bytes());
        assert!(matches!(SealingKey::generate().unwrap().write_new(&path), Err(KeyError::Write { .. })));
        assert!(SealingKey::parse(key.0.bytes()).unwrap().0.bytes() == key.0.bytes());
        std::fs::write(&path, "00").unwrap();
        let error = SealingKey::read("gallery.key", folder.path()).err().unwrap();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
    }

    #[test]
    fn no_nonce_and_no_key_repeats() {
        let mut nonces = Nonces::new(prefix(0x0102_0304));
        let taken: std::collections::BTreeSet<_> = (0..1000).map(|n| nonces.take(n == 999).1).collect();
        assert_eq!(taken.len(), 1000);
        assert_ne!(nonce(prefix(1), 0, false), nonce(prefix(2), 0, false));
        let keys = Keys::generate().unwrap();
        let next = keys.next(ContentMark::new()).unwrap();
        assert!(keys.data.bytes() != next.data.bytes() && keys.rotation.bytes() == next.rotation.bytes());
        assert!(next.data.bytes() != keys.next(ContentMark::new()).unwrap().data.bytes());
    }

    /// Whatever is drawn twice: another text, another place and another content have another key.
    #[test]
    fn randomness_that_repeats_gives_two_texts_no_key_in_common() {
        let keys = RecordKeys(Zeroizing::new([7; BLOCK_BYTES]));
        let salt = |bound: &[u8], plain: &[u8]| keys.salt_of(&[1; BLOCK_BYTES], bound, plain);
        assert_eq!(salt(b"place", b"text"), salt(b"place", b"text"));
        assert!(salt(b"place", b"text") != salt(b"place", b"texu") && salt(b"place", b"text") != salt(b"plade", b"text"));
        assert_ne!(salt(b"place", b"text"), keys.salt_of(&[2; BLOCK_BYTES], b"place", b"text"));
        let before = Keys::generate().unwrap();
        let next = |content: &[u8]| {
            repeated::from(Some(9));
            let mut mark = ContentMark::new();
            mark.take(content);
            let next = before.next(mark).unwrap();
            repeated::from(None);
            *next.data.bytes()
        };
        assert!(next(b"ann") == next(b"ann") && next(b"ann") != next(b"bob"));
    }

    #[test]
    fn a_rotation_stream_is_fixed_by_its_secret_and_does_not_repeat() {
        let keys = Keys::generate().unwrap();
        let draw = |keys: &Keys| {
            let mut bytes = vec![0; 4096];
            keys.rotation_stream()(&mut bytes);
            bytes
        };
        assert!(draw(&keys) == draw(&keys.next(ContentMark::new()).unwrap()), "a new generation keeps the rotation");
        assert!(draw(&keys) != draw(&Keys::generate().unwrap()));
        let blocks: std::collections::BTreeSet<Vec<u8>> = draw(&keys).chunks(32).map(<[u8]>::to_vec).collect();
        assert_eq!(blocks.len(), 128);
    }
}
