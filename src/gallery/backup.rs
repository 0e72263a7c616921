//! Backups: everybody, with templates turned back to what the network said, sealed in age's format to a passphrase or to public keys.
//! No key of this installation is in one, so it can be put back on another device; there it gets that device's keys and rotation.
//!
//! A backup is read whole, and found whole, before a gallery is touched. `FORMAT.md` has the table and says what holds of removals.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::format::{self, Entry, FIELDS_BYTES, Fields, MAX_RECORD_BYTES, RECORD_TARGET_BYTES, Version};
use super::seal::age::{self, AgeError, Lock, Unlock};
use super::snapshot::Change;
use super::{Gallery, GalleryError, Stats, is_made};
use crate::types::{Embedding, ModelId, Person, Wall};

/// What a backup's plain text begins with; the number before the line's end is the version.
pub(crate) const BACKUP_MAGIC: [u8; 16] = *b"faceid-backup/1\n";
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
    #[error("it is a backup of version `{found}`, this program knows 1: use the program that made it, or a newer one")]
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

/// A backup that was opened and is whole. No `Debug`: it is biometric data, and cleared when it goes.
pub struct Backup {
    made_at: Wall,
    fields: Fields,
    entries: Vec<Entry>,
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
        if magic != BACKUP_MAGIC {
            return Err(BackupError::UnknownVersion { found: magic[FAMILY_BYTES].escape_ascii().to_string() });
        }
        let mut made_at = [0; 8];
        input.read_exact(&mut made_at).map_err(cut)?;
        let mut fields = [0; FIELDS_BYTES];
        input.read_exact(&mut fields).map_err(cut)?;
        let fields = Fields::decode(&fields).ok().filter(|fields| fields.version == Version::Second);
        let fields = fields.ok_or_else(|| damaged("its first lines are not as they must be"))?;
        let mut backup = Self { made_at: Wall(i64::from_le_bytes(made_at)), fields, entries: Vec::new() };
        let mut templates = 0;
        while let Some(record) = record(input)? {
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
        if input.read(&mut [0]).map_err(cut)? != 0 {
            return Err(damaged("something follows its end"));
        }
        Ok(backup)
    }

    /// Writes what [`Backup::read`] reads.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut plain = begin(self.made_at, &self.fields);
        for entry in &self.entries {
            let mut record = Vec::new();
            let templates = entry.values.len() / self.fields.dimension;
            format::encode_entry(&mut record, &entry.person, templates, entry.values.iter().copied());
            put(&mut plain, &mut record).expect("a vector takes it");
        }
        put(&mut plain, &mut Vec::new()).expect("a vector takes it");
        plain
    }
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

fn begin(made_at: Wall, fields: &Fields) -> Vec<u8> {
    let mut out = BACKUP_MAGIC.to_vec();
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
    /// of the `kept_out` folders, where a removal must leave nothing, and an existing file is replaced only when told to.
    pub fn back_up(
        &self,
        path: &Path,
        lock: &Lock,
        made_at: Wall,
        kept_out: &[&Path],
        overwrite: bool,
    ) -> Result<Stats, BackupError> {
        if let Lock::Passphrase(text) = lock
            && text.chars().count() < MIN_PASSPHRASE_CHARS
        {
            return Err(BackupError::ShortPassphrase { found: text.chars().count() });
        }
        let (folder, unfinished) = place(path, kept_out, overwrite)?;
        let io = |doing| move |source| BackupError::Io { doing, path: path.to_owned(), source };
        let file = crate::system::files::fresh(&unfinished).map_err(io("writing"))?;
        let written = self.write_backup(BufWriter::with_capacity(1 << 20, file), lock, made_at).and_then(|(out, stats)| {
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
    fn write_backup<W: Write>(&self, out: W, lock: &Lock, made_at: Wall) -> Result<(W, Stats), BackupError> {
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
        out.write_all(&begin(made_at, &fields)).map_err(failed)?;
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
                put(&mut out, &mut record).map_err(failed)?;
            }
        }
        if !record.is_empty() {
            put(&mut out, &mut record).map_err(failed)?;
        }
        put(&mut out, &mut record).map_err(failed)?;
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
    use crate::types::PersonId;

    fn person(id: &str) -> Person {
        Person {
            id: PersonId::new(id).unwrap(),
            name: Some("A name".to_owned()),
            groups: vec![],
            consented_at: None,
            expires_at: Some(Wall(9)),
            enrolled_at: Wall(7),
        }
    }

    fn plain() -> Vec<u8> {
        let model = ModelId::new("drawn-2").unwrap();
        let fields =
            Fields { version: Version::Second, id: [0; 16], generation: 0, epoch: 5, dimension: 2, people: 2, templates: 3, model };
        let entry = |id, values: &[f32]| Entry { person: person(id), values: Zeroizing::new(values.to_vec()) };
        let entries = vec![entry("ann", &[1.0, 0.0, 0.6, 0.8]), entry("bob", &[0.0, 1.0])];
        Backup { made_at: Wall(1_000), fields, entries }.encode()
    }

    #[test]
    fn a_plain_text_that_is_none_is_refused_in_words() {
        let good = plain();
        let read = |bytes: &[u8]| Backup::read(&mut &bytes[..]);
        assert!(matches!(read(b""), Err(BackupError::Foreign)));
        assert!(matches!(read(b"a letter to somebody, sealed with age"), Err(BackupError::Foreign)));
        let mut newer = good.clone();
        newer[FAMILY_BYTES] = b'2';
        assert!(matches!(read(&newer), Err(BackupError::UnknownVersion { found }) if found == "2"));
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
