//! The seal: AES-256-GCM over records, under keys derived by HKDF-SHA256 (RFC 5869) from the sealing key and a fresh random salt for
//! every file. The only file of this room that names a crypto crate.
//!
//! The order of opening is the point (as age does it): nothing is decrypted, and no record key exists, before the whole header is
//! authentic. A wrong key is told from damage by three values: a checksum that needs no key (damage by accident), a commitment to
//! the key (GCM has none of its own: one ciphertext can open under two keys), and a tag over the header (tampering).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::format::{self, FIELDS_BYTES, FormatError, MAX_RECORD_BYTES};
use crate::system::secret::{self, SecretError};

/// Bytes of a sealing key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a salt, a commitment, a checksum and a header tag.
pub(crate) const BLOCK_BYTES: usize = 32;
/// Where the salt stands.
pub(crate) const SALT_AT: usize = FIELDS_BYTES;
/// Where the commitment to the key stands.
pub(crate) const COMMITMENT_AT: usize = SALT_AT + BLOCK_BYTES;
/// Where the checksum of all before it stands.
pub(crate) const CHECKSUM_AT: usize = COMMITMENT_AT + BLOCK_BYTES;
/// Where the tag of all before it stands.
pub(crate) const HEADER_TAG_AT: usize = CHECKSUM_AT + BLOCK_BYTES;
/// The whole header.
pub(crate) const HEADER_BYTES: usize = HEADER_TAG_AT + BLOCK_BYTES;
/// A record's length before it.
pub(crate) const LENGTH_BYTES: usize = 4;
/// A record's tag after it.
pub(crate) const TAG_BYTES: usize = 16;

const COMMITMENT_INFO: &[u8] = b"faceid-gallery/1 commitment";
const HEADER_INFO: &[u8] = b"faceid-gallery/1 header";
const RECORDS_INFO: &[u8] = b"faceid-gallery/1 records";

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
pub struct SealingKey(Box<[u8; KEY_BYTES]>);

impl SealingKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        getrandom::fill(key.0.as_mut_slice()).map_err(|e| KeyError::Random(e.to_string()))?;
        Ok(key)
    }

    /// Reads the key from secret `name` (see [`secret::read`]): 32 raw bytes, or 64 hexadecimal digits on a line.
    pub fn read(name: &str, fallback: &Path) -> Result<Self, KeyError> {
        let bytes = secret::read(name, fallback)?;
        Self::parse(&bytes).ok_or_else(|| KeyError::Malformed { name: name.to_owned() })
    }

    /// The key as 64 hexadecimal digits, for `systemd-creds encrypt`.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for byte in self.0.iter() {
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
        Self(self.0.clone())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        let trimmed = bytes.trim_ascii_end();
        if trimmed.len() == 2 * KEY_BYTES {
            for (byte, pair) in key.0.iter_mut().zip(trimmed.chunks_exact(2)) {
                let digit = |c: u8| char::from(c).to_digit(16);
                *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).ok()?;
            }
        } else if bytes.len() == KEY_BYTES && !bytes.iter().all(u8::is_ascii_hexdigit) {
            // 32 hexadecimal digits are half a key that someone took for a whole one.
            key.0.copy_from_slice(bytes);
        } else {
            return None;
        }
        // A key of one repeated byte is a placeholder.
        key.0.iter().any(|b| *b != key.0[0]).then_some(key)
    }
}

impl Drop for SealingKey {
    fn drop(&mut self) {
        self.0.zeroize();
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

/// The nonces of one file. Its key is fresh (a random salt), so counting from zero never repeats one; the last flag makes a cut at a
/// record's end visible (STREAM, Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
struct Nonces(u64);

impl Nonces {
    /// The number of this record and its nonce: three zero bytes, the number big-endian, the last flag.
    fn take(&mut self, last: bool) -> (u64, [u8; 12]) {
        let number = self.0;
        self.0 = number.checked_add(1).expect("no file has 2^64 records");
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(last);
        (number, nonce)
    }
}

/// What one file's records are sealed and opened with.
struct Records {
    cipher: Aes256Gcm,
    header_hash: [u8; BLOCK_BYTES],
    nonces: Nonces,
}

impl Records {
    fn new(derived: &Derived, header: &[u8]) -> Self {
        let mut key = derived.expand(&[RECORDS_INFO]);
        let cipher = Aes256Gcm::new(&(*key).into());
        key.zeroize();
        Self { cipher, header_hash: hash(header), nonces: Nonces(0) }
    }

    /// Binds a record to its file, its place, its length and whether it is the last.
    fn associated(&self, number: u64, length: [u8; LENGTH_BYTES], last: bool) -> [u8; 45] {
        let mut data = [0; 45];
        data[..32].copy_from_slice(&self.header_hash);
        data[32..40].copy_from_slice(&number.to_le_bytes());
        data[40..44].copy_from_slice(&length);
        data[44] = u8::from(last);
        data
    }
}

/// HKDF over the sealing key and a file's salt.
struct Derived(Hkdf<Sha256>);

impl Derived {
    fn new(key: &SealingKey, salt: &[u8]) -> Self {
        Self(Hkdf::new(Some(salt), key.0.as_slice()))
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
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// Seals one file.
pub(crate) struct Sealer(Records);

impl Sealer {
    /// Starts a file with these fields under a fresh salt; gives its header.
    pub(crate) fn begin(key: &SealingKey, fields: &[u8; FIELDS_BYTES]) -> Result<(Self, [u8; HEADER_BYTES]), KeyError> {
        let mut header = [0; HEADER_BYTES];
        header[..FIELDS_BYTES].copy_from_slice(fields);
        getrandom::fill(&mut header[SALT_AT..COMMITMENT_AT]).map_err(|e| KeyError::Random(e.to_string()))?;
        let derived = Derived::new(key, &header[SALT_AT..COMMITMENT_AT]);
        header[COMMITMENT_AT..CHECKSUM_AT].copy_from_slice(derived.expand(&[COMMITMENT_INFO]).as_slice());
        let checksum = hash(&header[..CHECKSUM_AT]);
        header[CHECKSUM_AT..HEADER_TAG_AT].copy_from_slice(&checksum);
        let tag = derived.expand(&[HEADER_INFO, &header[..HEADER_TAG_AT]]);
        header[HEADER_TAG_AT..].copy_from_slice(tag.as_slice());
        Ok((Self(Records::new(&derived, &header)), header))
    }

    /// Appends one record, which is not the last; `plain` is overwritten.
    pub(crate) fn seal(&mut self, plain: &mut [u8], out: &mut Vec<u8>) {
        self.put(plain, false, out);
    }

    /// Appends the last record; nothing can follow.
    pub(crate) fn seal_last(mut self, plain: &mut [u8], out: &mut Vec<u8>) {
        self.put(plain, true, out);
    }

    fn put(&mut self, plain: &mut [u8], last: bool, out: &mut Vec<u8>) {
        assert!(plain.len() <= MAX_RECORD_BYTES, "a record beyond its bound");
        let length = u32::try_from(plain.len()).expect("records are bounded below 2^32").to_le_bytes();
        let (number, nonce) = self.0.nonces.take(last);
        let associated = self.0.associated(number, length, last);
        let tag = self.0.cipher.encrypt_inout_detached(&nonce.into(), &associated, (&mut *plain).into());
        let tag = tag.expect("a record is far shorter than GCM's limit");
        out.extend_from_slice(&length);
        out.extend_from_slice(plain);
        out.extend_from_slice(&tag);
    }
}

/// Opens one file.
pub(crate) struct Opener {
    records: Records,
    at: usize,
}

impl Opener {
    /// Authenticates the header.
    pub(crate) fn begin(key: &SealingKey, file: &[u8]) -> Result<Self, SealError> {
        format::check_magic(file).map_err(|e| SealError::from_format(e, 0))?;
        let damaged = |offset, reason| SealError::Damaged { offset, reason };
        let header = file.get(..HEADER_BYTES).ok_or(damaged(file.len(), "the file ends inside its header"))?;
        if !same(&hash(&header[..CHECKSUM_AT]), &header[CHECKSUM_AT..HEADER_TAG_AT]) {
            return Err(damaged(0, "the header's checksum is wrong"));
        }
        let derived = Derived::new(key, &header[SALT_AT..COMMITMENT_AT]);
        if !same(derived.expand(&[COMMITMENT_INFO]).as_slice(), &header[COMMITMENT_AT..CHECKSUM_AT]) {
            return Err(SealError::WrongKey);
        }
        let tag = derived.expand(&[HEADER_INFO, &header[..HEADER_TAG_AT]]);
        if !same(tag.as_slice(), &header[HEADER_TAG_AT..]) {
            return Err(damaged(HEADER_TAG_AT, "the header is not authentic"));
        }
        Ok(Self { records: Records::new(&derived, header), at: HEADER_BYTES })
    }

    /// Opens the next record in place: its offset in the file, its bytes and whether it was the last. `file` is what
    /// [`Opener::begin`] was given.
    pub(crate) fn next<'a>(&mut self, file: &'a mut [u8]) -> Result<(usize, &'a [u8], bool), SealError> {
        let at = self.at;
        let total = file.len();
        let damaged = |offset, reason| SealError::Damaged { offset, reason };
        let (length, rest) = file[at..].split_first_chunk_mut::<LENGTH_BYTES>().ok_or(damaged(total, "the file is cut"))?;
        let bytes = u32::from_le_bytes(*length) as usize;
        if bytes > MAX_RECORD_BYTES {
            return Err(damaged(at, "a record beyond its bound"));
        }
        let (plain, rest) = rest.split_at_mut_checked(bytes).ok_or(damaged(at, "a record reaches beyond the file"))?;
        let (tag, rest) = rest.split_first_chunk_mut::<TAG_BYTES>().ok_or(damaged(at, "a record reaches beyond the file"))?;
        // Where the file ends its last record must be: a cut at a record's end shows as a wrong tag.
        let last = rest.is_empty();
        let (number, nonce) = self.records.nonces.take(last);
        let associated = self.records.associated(number, *length, last);
        let opened = self.records.cipher.decrypt_inout_detached(&nonce.into(), &associated, (&mut *plain).into(), &Tag::from(*tag));
        opened.map_err(|_| damaged(at, "a record is not authentic"))?;
        self.at = at + LENGTH_BYTES + bytes + TAG_BYTES;
        Ok((at + LENGTH_BYTES, plain, last))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::types::ModelId;

    fn file(key: &SealingKey, records: &[&[u8]]) -> Vec<u8> {
        let fields = format::Fields { generation: 1, dimension: 2, people: 0, templates: 0, model: ModelId::new("m").unwrap() };
        let (mut sealer, header) = Sealer::begin(key, &fields.encode()).unwrap();
        let mut out = header.to_vec();
        let (last, before) = records.split_last().unwrap();
        for record in before {
            sealer.seal(&mut record.to_vec(), &mut out);
        }
        sealer.seal_last(&mut last.to_vec(), &mut out);
        out
    }

    fn open(key: &SealingKey, mut file: Vec<u8>) -> Result<Vec<Vec<u8>>, SealError> {
        let mut opener = Opener::begin(key, &file)?;
        let mut out = Vec::new();
        loop {
            let (_, plain, last) = opener.next(&mut file)?;
            out.push(plain.to_vec());
            if last {
                return Ok(out);
            }
        }
    }

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
        assert!(*SealingKey::read("gallery.key", folder.path()).unwrap().0 == *key.0);
        assert!(matches!(SealingKey::generate().unwrap().write_new(&path), Err(KeyError::Write { .. })));
        assert!(*SealingKey::parse(key.0.as_slice()).unwrap().0 == *key.0);
        std::fs::write(&path, "00").unwrap();
        let error = SealingKey::read("gallery.key", folder.path()).err().unwrap();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_wrong_key_is_told_from_damage() {
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let good = file(&key, &[b"one", b"two"]);
        assert!(matches!(open(&other, good.clone()), Err(SealError::WrongKey)));
        for at in 0..HEADER_TAG_AT {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!matches!(open(&other, bad), Err(SealError::WrongKey) | Ok(_)), "byte {at}");
        }
    }

    #[test]
    fn a_header_with_a_mended_checksum_is_still_not_authentic() {
        let key = SealingKey::generate().unwrap();
        let mut bad = file(&key, &[b"one"]);
        bad[16] ^= 1;
        let checksum = hash(&bad[..CHECKSUM_AT]);
        bad[CHECKSUM_AT..HEADER_TAG_AT].copy_from_slice(&checksum);
        assert!(matches!(open(&key, bad), Err(SealError::Damaged { offset: HEADER_TAG_AT, .. })));
    }

    #[test]
    fn records_cut_swapped_repeated_or_taken_from_another_file_are_refused() {
        let key = SealingKey::generate().unwrap();
        let good = file(&key, &[b"one", b"two", b"end"]);
        let size = LENGTH_BYTES + 3 + TAG_BYTES;
        let record = |file: &[u8], n: usize| file[HEADER_BYTES + n * size..][..size].to_vec();
        let with = |records: &[Vec<u8>]| [good[..HEADER_BYTES].to_vec(), records.concat()].concat();
        let (a, b, c) = (record(&good, 0), record(&good, 1), record(&good, 2));
        let foreign = record(&file(&key, &[b"one", b"two", b"end"]), 1);
        for bad in [
            with(&[]),
            with(std::slice::from_ref(&a)),
            with(&[a.clone(), b.clone()]),
            with(&[b.clone(), a.clone(), c.clone()]),
            with(&[a.clone(), a.clone(), b.clone(), c.clone()]),
            with(&[a.clone(), foreign, c.clone()]),
            with(&[a.clone(), b.clone(), c.clone(), c.clone()]),
            with(&[a.clone(), c.clone()]),
        ] {
            assert!(matches!(open(&key, bad), Err(SealError::Damaged { .. })));
        }
        assert_eq!(open(&key, with(&[a, b, c])).unwrap(), [b"one", b"two", b"end"]);
    }

    #[test]
    fn no_nonce_and_no_salt_repeats() {
        let mut nonces = Nonces(0);
        let taken: std::collections::BTreeSet<_> = (0..1000).map(|n| nonces.take(n == 999).1).collect();
        assert_eq!(taken.len(), 1000);
        let key = SealingKey::generate().unwrap();
        let (a, b) = (file(&key, &[b"same"]), file(&key, &[b"same"]));
        assert_ne!(a[SALT_AT..COMMITMENT_AT], b[SALT_AT..COMMITMENT_AT]);
        assert_ne!(a[HEADER_BYTES..], b[HEADER_BYTES..]);
    }
}
