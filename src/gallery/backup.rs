//! Backups: everybody, with templates turned back to what the network said, sealed in age's format to a passphrase or to public keys.
//! No key of this installation is in one, so it can be put back on another device; there it gets that device's keys and rotation.
//!
//! Whoever knows a public key can seal to it, so that a backup opens says nothing of who made it. At its end stands therefore a signature
//! over all that is in it. This room makes and checks none: who backs up brings one, and who puts back must ask whose it is
//! ([`Backup::signature`], [`Backup::digest`]) before a gallery is touched.
//!
//! A backup is read whole, and found whole, before that. `FORMAT.md` has the table and says what holds of removals.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::format::{self, Entry, FIELDS_BYTES, Fields, MAX_RECORD_BYTES, RECORD_TARGET_BYTES, Version};
use super::seal::age::{self, AgeError, Lock, Unlock};
use super::seal::{BLOCK_BYTES, Digesting};
use super::snapshot::{Change, Snapshot};
use super::{Gallery, GalleryError, Stats, is_made};
use crate::types::{Embedding, ModelId, Person, PersonId, Wall};

/// What a backup's plain text begins with; the number before the line's end is the version.
pub(crate) const BACKUP_MAGIC: [u8; 16] = *b"faceid-backup/2\n";
/// What a backup of before begins with: it has no signature.
const BACKUP_MAGIC_1: [u8; 16] = *b"faceid-backup/1\n";
/// The longest signature.
pub(crate) const MAX_SIGNATURE_BYTES: usize = 2048;
/// Templates of one place that are so alike are one template, turned there and back.
const ONE_TEMPLATE: f32 = 0.999;
/// How many of [`BACKUP_MAGIC`]'s bytes are the same in every version.
const FAMILY_BYTES: usize = 14;
/// The shortest passphrase that a backup is sealed to: who has the file can try as many as there is time for.
pub const MIN_PASSPHRASE_CHARS: usize = 12;

/// Why a backup was not made or not put back; nothing was changed. No secret is ever in it.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file must not be there, or not be where it is asked for.
    #[error("{path}: {why}", path = path.display())]
    Place {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the way out.
        why: String,
    },
    /// Whoever has the file could guess it.
    #[error(
        "a passphrase of {found} characters is too short for a file that leaves the device: take {MIN_PASSPHRASE_CHARS} or more"
    )]
    ShortPassphrase {
        /// How many it has.
        found: usize,
    },
    /// It does not open.
    #[error(transparent)]
    Sealed(#[from] AgeError),
    /// It opened, and is no backup of a gallery.
    #[error("it opens, and what is in it is no backup of a gallery")]
    Foreign,
    /// A later program made it.
    #[error("it is a backup of version `{found}`, this program knows 1 and 2: use the program that made it, or a newer one")]
    UnknownVersion {
        /// The version's byte, printable.
        found: String,
    },
    /// It opened, began as a backup and is not whole.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The system refused.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was tried ("writing").
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl BackupError {
    /// The exit code that it deserves, after sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sealed(AgeError::WrongPassphrase | AgeError::WrongIdentity) => 77,
            Self::Sealed(AgeError::NeedsIdentity | AgeError::NeedsPassphrase) | Self::ShortPassphrase { .. } => 64,
            Self::Sealed(AgeError::Random(_) | AgeError::Io(_)) | Self::Io { .. } | Self::Place { .. } => 69,
            Self::Sealed(_) | Self::Foreign | Self::UnknownVersion { .. } | Self::Damaged(_) => 65,
        }
    }
}

/// Given [`Backup::digest`], answers with the signature.
pub type Signer<'a> = &'a dyn Fn(&[u8; BLOCK_BYTES]) -> String;

/// A backup that was opened and is whole. No `Debug`: it is biometric data, and cleared when it goes.
pub struct Backup {
    /// What it begins with.
    version: [u8; 16],
    made_at: Wall,
    fields: Fields,
    entries: Vec<Entry>,
    signature: Option<String>,
    digest: [u8; BLOCK_BYTES],
}

/// What putting a backup in the place of a gallery's people does to whom, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the backup, and not enrolled now.
    pub back: Vec<PersonId>,
    /// In both, with other templates in the backup.
    pub other_templates: Vec<PersonId>,
    /// Enrolled now, and not in the backup.
    pub gone: Vec<PersonId>,
}

impl Backup {
    /// Opens a backup and reads all of it.
    pub fn open(input: impl BufRead, unlock: &Unlock) -> Result<Self, BackupError> {
        Self::open_within(input, unlock, age::MAX_WORK)
    }

    /// [`Backup::open`] with at most `2^max_work` rounds of scrypt.
    pub(crate) fn open_within(input: impl BufRead, unlock: &Unlock, max_work: u8) -> Result<Self, BackupError> {
        Self::read(&mut age::Reader::open(input, unlock, max_work)?)
    }

    /// When it was made.
    pub fn made_at(&self) -> Wall {
        self.made_at
    }

    /// The number of the last change that is in it.
    pub fn epoch(&self) -> u64 {
        self.fields.epoch
    }

    /// Whose templates are in it, and how many numbers each has.
    pub fn model(&self) -> (&ModelId, usize) {
        (&self.fields.model, self.fields.dimension)
    }

    /// How many people and templates are in it.
    pub fn counts(&self) -> (usize, usize) {
        (self.fields.people, self.fields.templates)
    }

    /// Who is in it.
    pub fn people(&self) -> impl Iterator<Item = &Person> {
        self.entries.iter().map(|entry| &entry.person)
    }

    /// The signature at its end, as it stands there; none in a backup that was not signed. Nothing here has looked at it.
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// What a signature of this backup is about: SHA-256 of its beginning and of everybody in it.
    pub fn digest(&self) -> &[u8; BLOCK_BYTES] {
        &self.digest
    }

    /// What putting it in the place of `now` does to whom.
    pub fn against(&self, now: &Snapshot) -> Difference {
        let mut difference = Difference::default();
        let mut theirs = self.entries.iter().peekable();
        for index in 0..now.len() {
            let (person, templates, values) = now.entry(index);
            while let Some(entry) = theirs.next_if(|entry| entry.person.id < person.id) {
                difference.back.push(entry.person.id.clone());
            }
            match theirs.next_if(|entry| entry.person.id == person.id) {
                None => difference.gone.push(person.id.clone()),
                Some(entry) => {
                    let rows = Zeroizing::new(values.collect::<Vec<f32>>());
                    let is_same = entry.values.len() == templates * now.dimension() && self.is_alike(entry, &rows, now);
                    if !is_same {
                        difference.other_templates.push(person.id.clone());
                    }
                }
            }
        }
        difference.back.extend(theirs.map(|entry| entry.person.id.clone()));
        difference
    }

    fn is_alike(&self, entry: &Entry, rows: &[f32], now: &Snapshot) -> bool {
        let dimension = now.dimension();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mut pairs = entry.values.chunks_exact(dimension).zip(rows.chunks_exact(dimension));
        self.fields.dimension == dimension && pairs.all(|(a, b)| dot(&now.rotation().turn(a), b) > ONE_TEMPLATE)
    }

    /// Everybody with the templates.
    pub fn into_people(self) -> Vec<(Person, Vec<Embedding>)> {
        let (model, dimension) = (self.fields.model, self.fields.dimension);
        let embeddings = |entry: Entry| {
            let rows = entry.values.chunks_exact(dimension);
            // Each was found to be a unit vector.
            let all = rows.filter_map(|row| Embedding::normalised(model.clone(), row.to_vec())).collect();
            (entry.person, all)
        };
        self.entries.into_iter().map(embeddings).collect()
    }

    /// Reads the plain text. What is in it is believed to be ours only after its last byte.
    pub(crate) fn read(input: &mut impl Read) -> Result<Self, BackupError> {
        let mut magic = [0; BACKUP_MAGIC.len()];
        // Anything that opens may be anything at all, and shorter.
        match input.read_exact(&mut magic) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(BackupError::Foreign),
            other => other.map_err(cut)?,
        }
        if magic[..FAMILY_BYTES] != BACKUP_MAGIC[..FAMILY_BYTES] {
            return Err(BackupError::Foreign);
        }
        let has_signature = match magic {
            BACKUP_MAGIC => true,
            BACKUP_MAGIC_1 => false,
            _ => return Err(BackupError::UnknownVersion { found: magic[FAMILY_BYTES].escape_ascii().to_string() }),
        };
        let mut digest = Digesting::new();
        digest.take(&magic);
        let mut made_at = [0; 8];
        input.read_exact(&mut made_at).map_err(cut)?;
        let mut fields = [0; FIELDS_BYTES];
        input.read_exact(&mut fields).map_err(cut)?;
        digest.take(&made_at);
        digest.take(&fields);
        let fields = Fields::decode(&fields).ok().filter(|fields| fields.version == Version::Second);
        let fields = fields.ok_or_else(|| damaged("its first lines are not as they must be"))?;
        let made_at = Wall(i64::from_le_bytes(made_at));
        let mut backup = Self { version: magic, made_at, fields, entries: Vec::new(), signature: None, digest: [0; BLOCK_BYTES] };
        let mut templates = 0;
        while let Some(record) = record(input)? {
            digest.take(&record);
            let dimension = backup.fields.dimension;
            let more = format::decode_record(&record, dimension).map_err(|error| damaged(&error.to_string()))?;
            let is_ordered = backup.entries.last().zip(more.first()).is_none_or(|(last, next)| last.person.id < next.person.id);
            templates += more.iter().map(|entry| entry.values.len() / dimension).sum::<usize>();
            let is_within = backup.entries.len() + more.len() <= backup.fields.people && templates <= backup.fields.templates;
            if !is_ordered || !is_within {
                return Err(damaged("people out of order, or more than it says"));
            }
            backup.entries.extend(more);
        }
        if (backup.entries.len(), templates) != (backup.fields.people, backup.fields.templates) {
            return Err(damaged("fewer people or templates than it says"));
        }
        backup.digest = digest.finish();
        if has_signature {
            backup.signature = signature(input)?;
        }
        if input.read(&mut [0]).map_err(cut)? != 0 {
            return Err(damaged("something follows its end"));
        }
        Ok(backup)
    }

    /// Its plain text as [`Backup::read`] reads it, part after part, for who puts it back elsewhere: with the same digest and signature.
    pub fn text(&self) -> impl Iterator<Item = Zeroizing<Vec<u8>>> + '_ {
        let begin = std::iter::once(Zeroizing::new(begin(self.version, self.made_at, &self.fields)));
        let record = |entry: &Entry| {
            let templates = entry.values.len() / self.fields.dimension;
            let bytes = format::entry_bytes(&entry.person, templates, self.fields.dimension);
            let mut part = Zeroizing::new(Vec::with_capacity(4 + bytes));
            part.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
            format::encode_entry(&mut part, &entry.person, templates, entry.values.iter().copied());
            part
        };
        let mut end = 0u32.to_le_bytes().to_vec();
        if self.version == BACKUP_MAGIC {
            end.extend_from_slice(&signature_bytes(self.signature.as_deref()));
        }
        begin.chain(self.entries.iter().map(record)).chain(std::iter::once(Zeroizing::new(end)))
    }

    /// Writes what [`Backup::read`] reads.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.text().flat_map(|part| part.to_vec()).collect()
    }
}

/// A sound backup's plain text: two people with templates of two numbers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn sound_text(sign: Option<Signer<'_>>) -> Vec<u8> {
    let entry = |id: &str, values: &[f32]| {
        let id = PersonId::new(id).expect("a plain name");
        let name = Some("A name".to_owned());
        let person = Person { id, name, groups: vec![], consented_at: None, expires_at: Some(Wall(9)), enrolled_at: Wall(7) };
        Entry { person, values: Zeroizing::new(values.to_vec()) }
    };
    let model = ModelId::new("drawn-2").expect("a plain name");
    let fields =
        Fields { version: Version::Second, id: [0; 16], generation: 0, epoch: 5, dimension: 2, people: 2, templates: 3, model };
    let entries = vec![entry("ann", &[1.0, 0.0, 0.6, 0.8]), entry("bob", &[0.0, 1.0])];
    let (version, made_at, digest) = (BACKUP_MAGIC, Wall(1_000), [0; BLOCK_BYTES]);
    let mut backup = Backup { version, made_at, fields, entries, signature: None, digest };
    let whole = Backup::read(&mut &backup.encode()[..]).unwrap_or_else(|error| panic!("written and not read: {error}"));
    backup.signature = sign.map(|sign| sign(whole.digest()));
    backup.encode()
}

fn damaged(what: &str) -> BackupError {
    BackupError::Damaged(what.to_owned())
}

/// What reading says of a backup that ends or breaks in its middle.
fn cut(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        _ => BackupError::Damaged(error.to_string()),
    }
}

/// The next record, or `None` at the end.
fn record(input: &mut impl Read) -> Result<Option<Zeroizing<Vec<u8>>>, BackupError> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_RECORD_BYTES {
        return Err(damaged("a record beyond its bound"));
    }
    if length == 0 {
        return Ok(None);
    }
    // Grown as it comes, by whole steps: a length alone asks for little memory.
    let mut record = Zeroizing::new(Vec::with_capacity(length.min(2 * RECORD_TARGET_BYTES)));
    input.take(length as u64).read_to_end(&mut record).map_err(cut)?;
    if record.len() < length { Err(damaged("it ends too early")) } else { Ok(Some(record)) }
}

/// What stands behind the last record: how long the signature is, and the signature.
fn signature(input: &mut impl Read) -> Result<Option<String>, BackupError> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_SIGNATURE_BYTES {
        return Err(damaged("a signature beyond its bound"));
    }
    let mut signature = vec![0; length];
    input.read_exact(&mut signature).map_err(cut)?;
    let text = String::from_utf8(signature).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(|| damaged("its signature is no text"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn signature_bytes(signature: Option<&str>) -> Vec<u8> {
    let text = signature.unwrap_or_default().as_bytes();
    [&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes()[..], text].concat()
}

fn begin(version: [u8; 16], made_at: Wall, fields: &Fields) -> Vec<u8> {
    let mut out = version.to_vec();
    out.extend_from_slice(&made_at.0.to_le_bytes());
    out.extend_from_slice(&fields.encode());
    out
}

/// Writes a record and empties it. An empty one ends a backup.
fn put(out: &mut impl Write, record: &mut Vec<u8>) -> io::Result<()> {
    out.write_all(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    out.write_all(record)?;
    record.clear();
    Ok(())
}

impl Gallery {
    /// Makes a backup: written beside `path` under another name, synced, then put in its place, mode 0600. `path` must not lie in one
    /// of the `kept_out` folders, where a removal must leave nothing, and an existing file is replaced only when told to. `sign` is given
    /// [`Backup::digest`] and answers with the signature; without it the backup is not signed.
    pub fn back_up(
        &self,
        path: &Path,
        lock: &Lock,
        made_at: Wall,
        (kept_out, overwrite): (&[&Path], bool),
        sign: Option<Signer<'_>>,
    ) -> Result<Stats, BackupError> {
        if let Lock::Passphrase(text) = lock
            && text.chars().count() < MIN_PASSPHRASE_CHARS
        {
            return Err(BackupError::ShortPassphrase { found: text.chars().count() });
        }
        let (folder, unfinished) = place(path, kept_out, overwrite)?;
        let io = |doing| move |source| BackupError::Io { doing, path: path.to_owned(), source };
        let file = crate::system::files::fresh(&unfinished).map_err(io("writing"))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let written = self.write_backup(out, lock, made_at, sign).and_then(|(out, stats)| {
            let file = out.into_inner().map_err(|error| io("writing")(error.into_error()))?;
            file.sync_all().map_err(io("syncing"))?;
            std::fs::rename(&unfinished, path).map_err(io("renaming"))?;
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(io("syncing the folder of"))?;
            Ok(stats)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    /// Seals everybody into `out`; gives it back, not flushed.
    fn write_backup<W: Write>(
        &self,
        out: W,
        lock: &Lock,
        made_at: Wall,
        sign: Option<Signer<'_>>,
    ) -> Result<(W, Stats), BackupError> {
        let snapshot = self.snapshot();
        let stats = snapshot.stats();
        let fields = Fields {
            version: Version::Second,
            id: [0; format::ID_BYTES],
            generation: 0,
            epoch: stats.generation,
            dimension: stats.dimension,
            people: stats.people,
            templates: stats.templates,
            model: stats.model.clone(),
        };
        let failed = |source| AgeError::Io(source);
        let mut out = age::Writer::begin(out, lock, age::WORK)?;
        let begin = begin(BACKUP_MAGIC, made_at, &fields);
        let mut digest = Digesting::new();
        digest.take(&begin);
        out.write_all(&begin).map_err(failed)?;
        let largest = snapshot.people().map(|(person, templates)| format::entry_bytes(person, templates, fields.dimension)).max();
        // Sized for the longest record, so that growing leaves no copy behind.
        let mut record = Zeroizing::new(Vec::with_capacity(RECORD_TARGET_BYTES + largest.unwrap_or(0)));
        for index in 0..snapshot.len() {
            let (person, templates, values) = snapshot.entry(index);
            let mut rows = Zeroizing::new(Vec::with_capacity(templates * fields.dimension));
            rows.extend(values);
            for row in rows.chunks_exact_mut(fields.dimension) {
                let back = snapshot.rotation().turn_back(row);
                row.copy_from_slice(&back);
            }
            format::encode_entry(&mut record, person, templates, rows.iter().copied());
            if record.len() >= RECORD_TARGET_BYTES {
                digest.take(&record);
                put(&mut out, &mut record).map_err(failed)?;
            }
        }
        if !record.is_empty() {
            digest.take(&record);
            put(&mut out, &mut record).map_err(failed)?;
        }
        put(&mut out, &mut record).map_err(failed)?;
        let signature = sign.map(|sign| sign(&digest.finish()));
        out.write_all(&signature_bytes(signature.as_deref())).map_err(failed)?;
        Ok((out.finish().map_err(failed)?, stats))
    }

    /// The people of a backup become the gallery's, in one write: all of it or nothing. A gallery that holds somebody is replaced only
    /// when told to; whoever is not in the backup is then gone, and what was sealed of them can be opened no more. It is one change
    /// like any other, so the epoch goes on and nothing looks as if an older state had been put back; and while an older state is
    /// there and nobody has accepted it, this is refused as any change is.
    pub fn restore(&self, people: Vec<(Person, Vec<Embedding>)>, replace: bool) -> Result<(), GalleryError> {
        let restored = self.change(|now| {
            if !replace && !now.is_empty() {
                return Err(GalleryError::NotEmpty { path: self.path.clone(), people: now.len() });
            }
            let mut changes: std::collections::BTreeMap<_, _> =
                now.people().map(|(person, _)| (person.id.clone(), Change::Remove)).collect();
            for (person, templates) in people {
                templates.iter().try_for_each(|template| now.admit(template))?;
                let mut add = Zeroizing::new(Vec::with_capacity(templates.len() * now.dimension()));
                for template in &templates {
                    let mut row = now.turned(template);
                    super::index::as_kept(&mut row);
                    add.extend_from_slice(&row);
                }
                let person = super::storable(person)?;
                changes.insert(person.id.clone(), Change::Renew { person, add });
            }
            Ok(changes)
        });
        if !is_made(&restored) {
            return restored;
        }
        // The backup of nobody is all removals, which a journal takes.
        self.forget(|| "the backup is back".to_owned())?;
        if self.latched().is_some() { restored } else { Ok(()) }
    }
}

/// The folder that a backup goes to and the name that it has until it is whole; refused where a backup must not lie.
fn place(path: &Path, kept_out: &[&Path], overwrite: bool) -> Result<(PathBuf, PathBuf), BackupError> {
    let refused = |why: String| BackupError::Place { path: path.to_owned(), why };
    let name = path.file_name().ok_or_else(|| refused("names no file".to_owned()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| refused(format!("its folder cannot be used: {error}")))?;
    for kept in kept_out.iter().filter_map(|kept| kept.canonicalize().ok()) {
        if folder.starts_with(&kept) {
            let kept = kept.display();
            return Err(refused(format!(
                "lies in the state folder {kept}, where nothing of a person may be left after a removal: keep backups elsewhere, best \
                 on another machine"
            )));
        }
    }
    match path.symlink_metadata() {
        Ok(_) if !overwrite => return Err(refused("is there already: give another name, or --overwrite".to_owned())),
        Ok(metadata) if !metadata.is_file() => return Err(refused("is there and is no plain file".to_owned())),
        _ => {}
    }
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = folder.join(unfinished);
    Ok((folder, unfinished))
}

#[cfg(test)]
mod tests {
    use super::super::seal::age::Identity;
    use super::*;

    fn plain() -> Vec<u8> {
        sound_text(Some(&|_| "a.b.c".to_owned()))
    }

    /// Whatever is changed in a backup but its signature changes what the signature is about.
    #[test]
    fn the_digest_is_of_every_byte_before_the_signature() {
        let good = plain();
        let digest = |bytes: &[u8]| Backup::read(&mut &bytes[..]).map(|backup| *backup.digest()).ok();
        let ours = digest(&good).unwrap();
        let signature = good.len() - b"a.b.c".len();
        let mut read = 0;
        for at in 0..signature {
            let mut other = good.clone();
            other[at] ^= 1;
            read += usize::from(digest(&other).is_some());
            assert_ne!(digest(&other), Some(ours), "byte {at}");
        }
        assert!(read > 20, "times, names and numbers can be others in a backup that is whole");
        let mut other = good.clone();
        other[signature] ^= 1;
        assert_eq!(digest(&other), Some(ours));
        // Where one record ends and the next begins says nothing.
        let whole = Backup::read(&mut &good[..]).ok().unwrap();
        assert!(*whole.digest() == ours && digest(&whole.encode()) == Some(ours) && whole.signature() == Some("a.b.c"));
    }

    #[test]
    fn a_backup_of_before_is_read_and_has_no_signature() {
        let mut old = plain();
        old.truncate(old.len() - 4 - b"a.b.c".len());
        old[..16].copy_from_slice(&BACKUP_MAGIC_1);
        let backup = Backup::read(&mut &old[..]).ok().unwrap();
        assert!(backup.signature().is_none() && backup.encode() == old, "and it is told on as it is");
        assert_ne!(*backup.digest(), *Backup::read(&mut &plain()[..]).ok().unwrap().digest());
        let mut long = plain();
        let at = long.len() - 4 - b"a.b.c".len();
        long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Backup::read(&mut &long[..]), Err(BackupError::Damaged(_))));
    }

    #[test]
    fn a_plain_text_that_is_none_is_refused_in_words() {
        let good = plain();
        let read = |bytes: &[u8]| Backup::read(&mut &bytes[..]);
        assert!(matches!(read(b""), Err(BackupError::Foreign)));
        assert!(matches!(read(b"a letter to somebody, sealed with age"), Err(BackupError::Foreign)));
        let mut newer = good.clone();
        newer[FAMILY_BYTES] = b'3';
        assert!(matches!(read(&newer), Err(BackupError::UnknownVersion { found }) if found == "3"));
        for length in BACKUP_MAGIC.len()..good.len() {
            assert!(matches!(read(&good[..length]), Err(BackupError::Damaged(_))), "cut at {length}");
        }
        assert!(matches!(read(&[good.as_slice(), &[0]].concat()), Err(BackupError::Damaged(_))));
        let mut fewer = good.clone();
        fewer[24 + 36] = 1;
        assert!(matches!(read(&fewer), Err(BackupError::Damaged(_))), "more people than it says");
        let whole = read(&good).ok().unwrap();
        assert!(whole.encode() == good);
        assert_eq!((whole.counts(), whole.made_at(), whole.epoch()), ((2, 3), Wall(1_000), 5));
    }

    #[test]
    fn a_backup_goes_nowhere_near_the_state_and_over_no_file_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let inner = state.join("gallery/deep");
        std::fs::create_dir_all(&inner).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let place = |path: &Path, overwrite| place(path, &[&state], overwrite);
        for path in [state.join("b.age"), inner.join("b.age"), link.join("b.age"), inner.join("../../b.age")] {
            assert!(matches!(place(&path, true), Err(BackupError::Place { .. })), "{}", path.display());
        }
        let there = folder.path().join("b.age");
        std::fs::write(&there, "before").unwrap();
        assert!(place(&there, false).is_err() && place(&there, true).is_ok());
        assert!(place(&folder.path().join("none/b.age"), false).is_err());
        assert!(place(&link, true).is_err(), "a link is no plain file");
        assert!(place(Path::new("/"), true).is_err());
    }

    #[test]
    fn a_sealed_text_of_anything_else_is_foreign() {
        let identity = Identity::generate().unwrap();
        let mut writer = age::Writer::begin(Vec::new(), &Lock::Recipients(vec![identity.recipient()]), 1).unwrap();
        writer.write_all(b"holiday pictures").unwrap();
        let file = writer.finish().unwrap();
        assert!(matches!(Backup::open(&file[..], &Unlock::Identities(vec![identity])), Err(BackupError::Foreign)));
    }
}
