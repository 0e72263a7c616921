//! age's format, version 1 (<https://c2sp.org/age>), as far as backups need it: sealed to a passphrase (scrypt) or to public keys
//! (X25519), streamed. What is written here opens with `age` and `rage`, and what they write in the binary form opens here.
//!
//! As everywhere in this room, the header is authentic before any key of the payload exists, and each chunk before it is read.
//! Deliberately absent: the armored form, plugins, keys of ssh.

use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Derived, KeyError, TAG_BYTES, random, same};

const VERSION_LINE: &str = "age-encryption.org/v1";
const ARMOR: &[u8] = b"-----BEGIN AGE";
const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const SCRYPT_SALT: &[u8] = b"age-encryption.org/v1/scrypt";
const FILE_KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
/// A payload's chunk, before its tag.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// A body's line is this long, but for its last.
const COLUMNS: usize = 64;
/// The longest header that is read: hundreds of recipients.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// What a passphrase costs whoever tries one, as the base-2 logarithm of scrypt's N: about a second and 256 MiB. age takes the same.
pub(crate) const WORK: u8 = 18;
/// The most work that a file may ask of who opens it: four times as much time and memory.
pub(crate) const MAX_WORK: u8 = 20;

/// Why something is no file of age, or does not open. No secret is ever in it.
#[derive(Debug, Error)]
pub enum AgeError {
    /// It begins otherwise.
    #[error("this is no file in age's format (age-encryption.org/v1)")]
    NotAge,
    /// It is text.
    #[error("this file is armored: `age --decrypt` opens it, and `age` without --armor writes one that is read here")]
    Armored,
    /// Its first lines are not what they must be.
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    /// Its first lines were changed.
    #[error("its header is not authentic: it was altered")]
    Altered,
    /// The passphrase does not open it.
    #[error("the passphrase is wrong, or the first lines were altered")]
    WrongPassphrase,
    /// None of the identities opens it.
    #[error("it is sealed to other public keys than those of the identities given, or its first lines were altered")]
    WrongIdentity,
    /// A passphrase opens it, and none was given.
    #[error("it is sealed to a passphrase: give that, not an identity")]
    NeedsPassphrase,
    /// An identity opens it, and none was given.
    #[error("it is sealed to public keys: give the identity of one of them, not a passphrase")]
    NeedsIdentity,
    /// Trying a passphrase would cost too much.
    #[error(
        "it asks for 2^{log_n} rounds of scrypt, of which this program does at most 2^{MAX_WORK}: nobody but an attacker asks for so many"
    )]
    TooMuchWork {
        /// What it asks for.
        log_n: u8,
    },
    /// Not a key.
    #[error("that is no {0}")]
    NoKey(&'static str),
    /// The system has no randomness.
    #[error(transparent)]
    Random(#[from] KeyError),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A public key that a file can be sealed to: `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient([u8; BLOCK_BYTES]);

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let what = "age public key (age1 and 58 characters)";
        decoded(text.trim(), "age", what).map(|bytes| Self(*bytes))
    }
}

/// The secret half of a [`Recipient`]: `AGE-SECRET-KEY-1…`. No `Debug`, cleared when it goes.
pub struct Identity(StaticSecret);

impl Identity {
    /// A new one from the system's randomness.
    pub fn generate() -> Result<Self, AgeError> {
        let bytes = secret::<BLOCK_BYTES>()?;
        Ok(Self(StaticSecret::from(*bytes)))
    }

    /// Every identity in the text of an identity file, as `age-keygen` writes them: one a line, `#` begins a remark.
    pub fn all_of(text: &str) -> Result<Vec<Self>, AgeError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let found: Vec<Self> = lines.map(str::parse).collect::<Result<_, _>>()?;
        if found.is_empty() { Err(AgeError::NoKey(IDENTITY)) } else { Ok(found) }
    }

    /// The public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }

    /// As an identity file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(encoded("AGE-SECRET-KEY-", self.0.as_bytes()).to_uppercase())
    }
}

const IDENTITY: &str = "age identity (a line that begins with AGE-SECRET-KEY-1)";

impl FromStr for Identity {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        decoded(text, "age-secret-key-", IDENTITY).map(|bytes| Self(StaticSecret::from(*bytes)))
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&encoded("age", &self.0))
    }
}

/// What a file is sealed to. No `Debug`.
pub enum Lock {
    /// Whoever knows it.
    Passphrase(Zeroizing<String>),
    /// Whoever has the identity of any of these; at least one.
    Recipients(Vec<Recipient>),
}

/// What a file is opened with. No `Debug`.
pub enum Unlock {
    /// The passphrase that it was sealed to.
    Passphrase(Zeroizing<String>),
    /// Identities, of which one must be of a public key that it was sealed to.
    Identities(Vec<Identity>),
}

/// Seals what is written to it. Without [`Writer::finish`] the file does not open: it reads as cut.
pub(crate) struct Writer<W> {
    out: W,
    chunks: Chunks,
    plain: Zeroizing<Vec<u8>>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub(crate) fn begin(mut out: W, lock: &Lock, log_n: u8) -> Result<Self, AgeError> {
        let file_key = secret::<FILE_KEY_BYTES>()?;
        let stanzas = match lock {
            Lock::Passphrase(passphrase) => vec![Stanza::of_passphrase(passphrase, log_n, &file_key)?],
            Lock::Recipients(recipients) => {
                recipients.iter().map(|recipient| Stanza::of_recipient(recipient, &file_key)).collect::<Result<_, _>>()?
            }
        };
        if stanzas.is_empty() {
            return Err(AgeError::NoKey("list of public keys: it is empty"));
        }
        let mut header = format!("{VERSION_LINE}\n");
        stanzas.iter().for_each(|stanza| stanza.write(&mut header));
        header.push_str("---");
        let mac = BASE64.encode(header_mac(&file_key, header.as_bytes()));
        out.write_all(format!("{header} {mac}\n").as_bytes())?;
        let nonce = random::<SALT_BYTES>()?;
        out.write_all(&nonce)?;
        Ok(Self { out, chunks: Chunks::new(&file_key, &nonce), plain: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)) })
    }

    /// Writes the last chunk and gives the output back, not flushed.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let tag = self.chunks.seal(&mut self.plain, last);
        self.out.write_all(&self.plain)?;
        self.out.write_all(&tag)?;
        self.plain.clear();
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for what follows: only then is it known not to be the last.
        if self.plain.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Gives what was sealed, each chunk only once it is authentic. A file that is cut anywhere gives an error at its end.
pub(crate) struct Reader<R> {
    input: R,
    chunks: Chunks,
    plain: Zeroizing<Vec<u8>>,
    read: usize,
    done: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads and authenticates the header. No more than `2^max_work` rounds of scrypt are done for it.
    pub(crate) fn open(mut input: R, unlock: &Unlock, max_work: u8) -> Result<Self, AgeError> {
        let header = Header::read(&mut input)?;
        let file_key = header.file_key(unlock, max_work)?;
        if !same(&header_mac(&file_key, &header.text), &header.mac) {
            return Err(AgeError::Altered);
        }
        let mut nonce = [0; SALT_BYTES];
        input.read_exact(&mut nonce).map_err(|_| AgeError::Header("the file ends behind it"))?;
        let plain = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES));
        Ok(Self { input, chunks: Chunks::new(&file_key, &nonce), plain, read: 0, done: false })
    }

    fn open_next(&mut self) -> io::Result<()> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        self.plain.clear();
        self.read = 0;
        (&mut self.input).take((CHUNK_BYTES + TAG_BYTES) as u64).read_to_end(&mut self.plain)?;
        let length = self.plain.len().checked_sub(TAG_BYTES).ok_or_else(|| bad("the file is cut"))?;
        let last = self.input.fill_buf()?.is_empty();
        if length == 0 && self.chunks.next > 0 {
            return Err(bad("the file is damaged: an empty end"));
        }
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&self.plain[length..]);
        self.plain.truncate(length);
        if !self.chunks.open(&mut self.plain, last, tag) {
            self.plain.clear();
            self.done = true;
            return Err(bad("the file is cut or was altered"));
        }
        self.done = last;
        Ok(())
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plain.len() {
            if self.done {
                return Ok(0);
            }
            self.open_next()?;
        }
        let taken = out.len().min(self.plain.len() - self.read);
        out[..taken].copy_from_slice(&self.plain[self.read..self.read + taken]);
        self.read += taken;
        Ok(taken)
    }
}

/// The payload's key and its counting nonce: eleven bytes of the counter, one of the last flag (STREAM).
struct Chunks {
    cipher: ChaCha20Poly1305,
    next: u64,
}

impl Chunks {
    fn new(file_key: &[u8; FILE_KEY_BYTES], nonce: &[u8; SALT_BYTES]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(&(*derive(nonce, file_key, b"payload")).into()), next: 0 }
    }

    fn nonce(&mut self, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        self.next = self.next.checked_add(1).expect("nobody seals 2^64 chunks");
        nonce
    }

    fn seal(&mut self, plain: &mut [u8], last: bool) -> [u8; TAG_BYTES] {
        let nonce = self.nonce(last).into();
        self.cipher.encrypt_inout_detached(&nonce, b"", plain.into()).expect("a chunk is short").into()
    }

    fn open(&mut self, sealed: &mut [u8], last: bool, tag: [u8; TAG_BYTES]) -> bool {
        let nonce = self.nonce(last).into();
        self.cipher.decrypt_inout_detached(&nonce, b"", sealed.into(), &Tag::from(tag)).is_ok()
    }
}

/// The file key, sealed one way.
struct Stanza {
    /// The kind, then what the kind needs.
    arguments: Vec<String>,
    body: Vec<u8>,
}

impl Stanza {
    fn of_recipient(Recipient(theirs): &Recipient, file_key: &[u8; FILE_KEY_BYTES]) -> Result<Self, AgeError> {
        let ephemeral = Identity::generate()?;
        let share = ephemeral.recipient().0;
        let key = ephemeral.agreed(theirs, (&share, theirs)).ok_or(AgeError::NoKey("public key that anything can be sealed to"))?;
        Ok(Self { arguments: vec!["X25519".to_owned(), BASE64.encode(share)], body: wrap(&key, file_key) })
    }

    fn of_passphrase(passphrase: &str, log_n: u8, file_key: &[u8; FILE_KEY_BYTES]) -> Result<Self, AgeError> {
        let salt = random::<SALT_BYTES>()?;
        let key = stretched(passphrase, &salt, log_n)?;
        Ok(Self { arguments: vec!["scrypt".to_owned(), BASE64.encode(salt), log_n.to_string()], body: wrap(&key, file_key) })
    }

    fn write(&self, out: &mut String) {
        out.push_str(&format!("-> {}\n", self.arguments.join(" ")));
        let body = BASE64.encode(&self.body);
        let mut rest = body.as_str();
        while rest.len() >= COLUMNS {
            let (line, more) = rest.split_at(COLUMNS);
            out.push_str(line);
            out.push('\n');
            rest = more;
        }
        out.push_str(rest);
        out.push('\n');
    }

    fn kind(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    /// The file key, if one of `identities` opens it.
    fn open_with(&self, identities: &[Identity]) -> Result<Option<FileKey>, AgeError> {
        let wrong = || AgeError::Header("a public key's lines are not as they must be");
        let [_, share] = self.arguments.as_slice() else { return Err(wrong()) };
        let share: [u8; BLOCK_BYTES] = BASE64.decode(share).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        for identity in identities {
            let theirs = identity.recipient().0;
            let key = identity.agreed(&share, (&share, &theirs)).ok_or_else(wrong)?;
            if let Some(file_key) = unwrap(&key, &self.body).map_err(|()| wrong())? {
                return Ok(Some(file_key));
            }
        }
        Ok(None)
    }

    fn open_by(&self, passphrase: &str, max_work: u8) -> Result<FileKey, AgeError> {
        let wrong = || AgeError::Header("a passphrase's lines are not as they must be");
        let [_, salt, work] = self.arguments.as_slice() else { return Err(wrong()) };
        let salt: [u8; SALT_BYTES] = BASE64.decode(salt).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        let is_plain = !work.is_empty() && work.len() <= 2 && !work.starts_with('0') && work.bytes().all(|b| b.is_ascii_digit());
        let log_n: u8 = work.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
        if log_n > max_work {
            return Err(AgeError::TooMuchWork { log_n });
        }
        let key = stretched(passphrase, &salt, log_n)?;
        unwrap(&key, &self.body).map_err(|()| wrong())?.ok_or(AgeError::WrongPassphrase)
    }
}

impl Identity {
    /// The key that both ends of an exchange have; none when the other end gave a point that agrees on nothing.
    fn agreed(&self, theirs: &[u8; BLOCK_BYTES], (share, recipient): (&[u8], &[u8])) -> Option<Zeroizing<[u8; BLOCK_BYTES]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*theirs));
        shared.was_contributory().then(|| derive(&[share, recipient].concat(), shared.as_bytes(), X25519_INFO))
    }
}

type FileKey = Zeroizing<[u8; FILE_KEY_BYTES]>;

/// A header, not yet authentic.
struct Header {
    stanzas: Vec<Stanza>,
    /// Its bytes up to what authenticates them.
    text: Vec<u8>,
    mac: Vec<u8>,
}

impl Header {
    fn read(input: &mut impl BufRead) -> Result<Self, AgeError> {
        let mut lines = Lines { input, text: Vec::new() };
        let first = lines.next();
        if lines.text.starts_with(ARMOR) {
            return Err(AgeError::Armored);
        }
        if !matches!(first, Ok(ref line) if line == VERSION_LINE) {
            return Err(AgeError::NotAge);
        }
        let mut stanzas: Vec<Stanza> = Vec::new();
        loop {
            let before = lines.text.len();
            let line = lines.next()?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let mac = BASE64.decode(mac).ok().filter(|mac| mac.len() == BLOCK_BYTES);
                let mac = mac.ok_or(AgeError::Header("what authenticates it is not as it must be"))?;
                let mut text = lines.text;
                text.truncate(before + 3);
                return Ok(Self { stanzas, text, mac });
            }
            let arguments = line.strip_prefix("-> ").ok_or(AgeError::Header("a line of a kind that is not known"))?;
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            if arguments.iter().any(|text| text.is_empty() || text.bytes().any(|b| !(33..=126).contains(&b))) {
                return Err(AgeError::Header("a line with an empty word or with signs that are none"));
            }
            stanzas.push(Stanza { arguments, body: lines.body()? });
        }
    }

    fn file_key(&self, unlock: &Unlock, max_work: u8) -> Result<FileKey, AgeError> {
        let by_passphrase = self.stanzas.iter().find(|stanza| stanza.kind() == "scrypt");
        // A passphrase stands alone, so that who opens knows that nobody else could have sealed it.
        if by_passphrase.is_some() && self.stanzas.len() > 1 {
            return Err(AgeError::Header("a passphrase and another key together"));
        }
        match (unlock, by_passphrase) {
            (Unlock::Passphrase(passphrase), Some(stanza)) => stanza.open_by(passphrase, max_work),
            (Unlock::Passphrase(_), None) => Err(AgeError::NeedsIdentity),
            (Unlock::Identities(_), Some(_)) => Err(AgeError::NeedsPassphrase),
            (Unlock::Identities(identities), None) => {
                for stanza in self.stanzas.iter().filter(|stanza| stanza.kind() == "X25519") {
                    if let Some(key) = stanza.open_with(identities)? {
                        return Ok(key);
                    }
                }
                Err(AgeError::WrongIdentity)
            }
        }
    }
}

/// A header's lines, all bytes of which are kept: they are authenticated as they came.
struct Lines<'a, R> {
    input: &'a mut R,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<String, AgeError> {
        let before = self.text.len();
        let room = MAX_HEADER_BYTES.saturating_sub(before) as u64;
        (&mut *self.input).take(room).read_until(b'\n', &mut self.text)?;
        let line = self.text[before..].strip_suffix(b"\n").ok_or(AgeError::Header("the file ends inside it, or it has no end"))?;
        String::from_utf8(line.to_vec()).map_err(|_| AgeError::Header("it is no text"))
    }

    fn body(&mut self) -> Result<Vec<u8>, AgeError> {
        let wrong = AgeError::Header("a line that is no base64 of at most 64 signs");
        let mut text = String::new();
        loop {
            let line = self.next()?;
            text.push_str(&line);
            if line.len() < COLUMNS {
                return BASE64.decode(text).map_err(|_| wrong);
            }
            if line.len() > COLUMNS {
                return Err(wrong);
            }
        }
    }
}

fn secret<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut out = Zeroizing::new([0; N]);
    getrandom::fill(out.as_mut_slice()).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(out)
}

fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; BLOCK_BYTES]> {
    Derived(Hkdf::new(Some(salt), secret)).expand(&[info])
}

fn header_mac(file_key: &[u8; FILE_KEY_BYTES], header: &[u8]) -> [u8; BLOCK_BYTES] {
    let key = derive(b"", file_key, b"header");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).expect("a key of any length");
    mac.update(header);
    mac.finalize().into_bytes().into()
}

fn stretched(passphrase: &str, salt: &[u8; SALT_BYTES], log_n: u8) -> Result<Zeroizing<[u8; BLOCK_BYTES]>, AgeError> {
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| AgeError::TooMuchWork { log_n })?;
    let mut key = Zeroizing::new([0; BLOCK_BYTES]);
    let salt = [SCRYPT_SALT, salt].concat();
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, key.as_mut_slice()).expect("32 bytes are within scrypt's limit");
    Ok(key)
}

/// Seals a file key. The nonce is zero: each wrapping key is used once.
fn wrap(key: &[u8; BLOCK_BYTES], file_key: &[u8; FILE_KEY_BYTES]) -> Vec<u8> {
    let mut body = file_key.to_vec();
    let cipher = ChaCha20Poly1305::new(&(*key).into());
    let tag = cipher.encrypt_inout_detached(&[0; 12].into(), b"", body.as_mut_slice().into()).expect("a key is short");
    body.extend_from_slice(&tag);
    body
}

/// The file key; `None` when `key` does not open it, an error when it is none of the right length.
fn unwrap(key: &[u8; BLOCK_BYTES], body: &[u8]) -> Result<Option<FileKey>, ()> {
    // The length is looked at first: a longer one could open under two keys (the spec's partitioning oracle).
    let (sealed, tag) = body.split_at_checked(FILE_KEY_BYTES).ok_or(())?;
    let tag: [u8; TAG_BYTES] = tag.try_into().map_err(|_| ())?;
    let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
    file_key.copy_from_slice(sealed);
    let cipher = ChaCha20Poly1305::new(&(*key).into());
    let opened = cipher.decrypt_inout_detached(&[0; 12].into(), b"", file_key.as_mut_slice().into(), &Tag::from(tag));
    Ok(opened.is_ok().then_some(file_key))
}

fn encoded(prefix: &str, bytes: &[u8; BLOCK_BYTES]) -> String {
    let prefix = Hrp::parse(&prefix.to_lowercase()).expect("a prefix of letters and dashes");
    bech32::encode::<Bech32>(prefix, bytes).expect("32 bytes are within its limit")
}

fn decoded(text: &str, prefix: &str, what: &'static str) -> Result<Zeroizing<[u8; BLOCK_BYTES]>, AgeError> {
    let wrong = AgeError::NoKey(what);
    let Ok(checked) = CheckedHrpstring::new::<Bech32>(text) else { return Err(wrong) };
    let mut out = Zeroizing::new([0; BLOCK_BYTES]);
    let is_whole = checked.hrp().to_lowercase() == prefix && checked.byte_iter().len() == BLOCK_BYTES;
    if !is_whole {
        return Err(wrong);
    }
    out.iter_mut().zip(checked.byte_iter()).for_each(|(out, byte)| *out = byte);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As little work as there is.
    const LITTLE: u8 = 1;

    fn passphrase(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn sealed(lock: &Lock, plain: &[u8]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), lock, LITTLE).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn opened(file: &[u8], unlock: &Unlock) -> Result<Vec<u8>, AgeError> {
        let mut plain = Vec::new();
        Reader::open(file, unlock, MAX_WORK)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "age1",
            "age1qqqq",
            "AGE-SECRET-KEY-1",
            "npub1qqqq",
            "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwi",
        ] {
            assert!(text.parse::<Recipient>().is_err() && text.parse::<Identity>().is_err(), "{text}");
        }
        assert!(Identity::all_of("# a remark only\n\n").is_err());
        assert!(matches!(Writer::begin(Vec::new(), &Lock::Recipients(Vec::new()), LITTLE).err(), Some(AgeError::NoKey(_))));
    }

    #[test]
    fn keys_are_written_as_age_writes_them() {
        // The key pair of age's own README and test suite.
        let text = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity.recipient().to_string(), "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa");
        assert_eq!(identity.to_text().as_str(), text);
        assert!(identity.recipient().to_string().parse::<Recipient>().unwrap() == identity.recipient());
    }

    #[test]
    fn what_does_not_fit_is_told_apart_in_words() {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let to_key = sealed(&Lock::Recipients(vec![ours.recipient()]), b"secret");
        let to_words = sealed(&Lock::Passphrase(passphrase("horse battery")), b"secret");
        let words = |text: &str| Unlock::Passphrase(passphrase(text));
        assert!(matches!(opened(&to_key, &Unlock::Identities(vec![theirs])), Err(AgeError::WrongIdentity)));
        assert!(matches!(opened(&to_key, &words("horse battery")), Err(AgeError::NeedsIdentity)));
        assert!(matches!(opened(&to_words, &Unlock::Identities(vec![ours])), Err(AgeError::NeedsPassphrase)));
        assert!(matches!(opened(&to_words, &words("horse batter")), Err(AgeError::WrongPassphrase)));
        assert!(matches!(opened(b"faceid-gallery/2", &words("x")), Err(AgeError::NotAge)));
        assert!(matches!(opened(b"-----BEGIN AGE ENCRYPTED FILE-----\n", &words("x")), Err(AgeError::Armored)));
        let text = String::from_utf8_lossy(&to_words).into_owned();
        let greedy = text.replacen(" 1\n", " 40\n", 1);
        assert!(matches!(opened(greedy.as_bytes(), &words("x")), Err(AgeError::TooMuchWork { log_n: 40 })));
        for bad in [" 01\n", " +1\n", " 1 1\n", " 257\n", "\n"] {
            let bad = text.replacen(" 1\n", bad, 1);
            assert!(matches!(opened(bad.as_bytes(), &words("x")), Err(AgeError::Header(_))), "{bad:?}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let identity = || Identity::all_of("AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33").unwrap();
        let unlock = Unlock::Identities(identity());
        let good = sealed(&Lock::Recipients(vec![identity()[0].recipient()]), b"nineteen bytes here");
        for length in 0..good.len() {
            assert!(opened(&good[..length], &unlock).is_err(), "cut at {length}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(opened(&bad, &unlock).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert!(opened(&[good.as_slice(), b"x"].concat(), &unlock).is_err());
        assert_eq!(opened(&good, &unlock).unwrap(), b"nineteen bytes here");
    }

    #[test]
    fn chunks_cut_swapped_or_repeated_are_refused_and_every_length_comes_back() {
        let identity = Identity::generate().unwrap();
        let (lock, unlock) = (Lock::Recipients(vec![Identity::generate().unwrap().recipient(), identity.recipient()]), |i| {
            Unlock::Identities(vec![i])
        });
        let unlock = unlock(identity);
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            assert!(opened(&sealed(&lock, &plain), &unlock).unwrap() == plain, "{length} bytes");
        }
        let file = sealed(&lock, &vec![7; 3 * CHUNK_BYTES]);
        let size = CHUNK_BYTES + TAG_BYTES;
        let begin = file.len() - 3 * size;
        let chunk = |n: usize| &file[begin + n * size..begin + (n + 1) * size];
        for order in [&[0, 1][..], &[0], &[], &[1, 0, 2], &[0, 0, 1, 2], &[0, 1, 2, 2], &[0, 2]] {
            let body: Vec<u8> = order.iter().flat_map(|n| chunk(*n).to_vec()).collect();
            assert!(opened(&[&file[..begin], &body].concat(), &unlock).is_err(), "{order:?}");
        }
    }

    #[test]
    fn a_header_with_a_stanza_that_is_not_known_still_opens() {
        let identity = Identity::generate().unwrap();
        let file_key = secret::<FILE_KEY_BYTES>().unwrap();
        let grease = Stanza { arguments: vec!["x-grease".to_owned(), "!".to_owned()], body: vec![9; 48] };
        let ours = Stanza::of_recipient(&identity.recipient(), &file_key).unwrap();
        let mut header = format!("{VERSION_LINE}\n");
        [grease, ours].iter().for_each(|stanza| stanza.write(&mut header));
        header.push_str("---");
        let mac = BASE64.encode(header_mac(&file_key, header.as_bytes()));
        let mut file = format!("{header} {mac}\n").into_bytes();
        file.extend_from_slice(&[3; SALT_BYTES]);
        let mut plain = b"text".to_vec();
        let tag = Chunks::new(&file_key, &[3; SALT_BYTES]).seal(&mut plain, true);
        file.extend_from_slice(&plain);
        file.extend_from_slice(&tag);
        assert_eq!(opened(&file, &Unlock::Identities(vec![identity])).unwrap(), b"text");
    }
}
