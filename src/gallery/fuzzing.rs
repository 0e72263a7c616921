//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken. A bit of the input chooses between the two dimensions that galleries have.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use super::backup::{self, Backup};
use super::format::{self, Entry, Fields, Operation};
use super::index::{Matrix, Shortlist};
use super::journal::{self, Appender, Tail};
use super::load::Volume;
use super::medium::EPOCH;
use super::seal::age::{self, Identity, Lock, Recipient, Unlock};
use super::seal::graph::GraphSeal;
use super::seal::{Header, Keys, SealingKey};
use super::simulated::{Fault, Simulated};
use super::store::{FILE, JOURNAL};
use super::witness::{SLOT_STRIDE, Witness};
use super::{Gallery, GalleryError, Settings, is_made};
use crate::types::{Embedding, GroupId, ModelId, Person, PersonId, Wall};

const DIMENSIONS: [usize; 2] = [128, 512];

fn model() -> ModelId {
    ModelId::new("drawn").expect("a plain name")
}

/// The dimension that the lowest bit of `choice` chooses, and the other bits.
fn dimension(choice: u8) -> (usize, u8) {
    (DIMENSIONS[usize::from(choice & 1)], choice >> 1)
}

fn open(disk: &Simulated, key: &SealingKey, dimension: usize) -> Result<Gallery, GalleryError> {
    let settings = Settings { dir: "/simulated".into(), max_templates_per_person: 3, ..Settings::default() };
    Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), dimension), true, None)
}

fn key() -> SealingKey {
    SealingKey::generate().expect("the system gives random bytes")
}

fn person(number: u8) -> Person {
    let id = PersonId::new(format!("p{}", number % 5)).expect("a plain name");
    Person { id, name: None, groups: Vec::new(), consented_at: None, expires_at: None, enrolled_at: Wall(0) }
}

fn template(seed: u8, dimension: usize) -> Embedding {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let values = (0..dimension).map(|_| random.f32() - 0.5).collect();
    Embedding::normalised(model(), values).expect("not all zeros")
}

/// Two people, one of whom has all that a record can have.
fn sound_people(dimension: usize) -> [(Person, Vec<f32>); 2] {
    let full = Person {
        name: Some("Ann".to_owned()),
        groups: vec![GroupId::new("staff").expect("a plain name")],
        consented_at: Some(Wall(1)),
        expires_at: Some(Wall(2)),
        ..person(0)
    };
    let rows = |n: u8| (0..n).flat_map(|seed| template(seed, dimension).values().to_vec()).collect();
    [(full, rows(2)), (person(1), rows(1))]
}

/// Operations as a change has them.
fn sound_operations(dimension: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    for (person, values) in sound_people(dimension) {
        format::encode_put(&mut plain, &person, values.len() / dimension, values.into_iter());
    }
    format::encode_remove(&mut plain, &person(2).id);
    plain
}

/// A gallery on a disk in memory, with two people, its model and its dimension: what those who change it are fed against.
pub fn peopled() -> (Gallery, ModelId, usize) {
    let dimension = DIMENSIONS[0];
    let gallery = open(&Simulated::default(), &key(), dimension).expect("a fresh gallery");
    for number in 0..2 {
        gallery.enroll(person(number), vec![template(number, dimension)]).expect("the disk is sound");
    }
    (gallery, model(), dimension)
}

/// Header fields, records and operations, any bytes or sound ones with edits: whatever decodes encodes to the same bytes again.
pub fn format(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let (usual, choice) = dimension(choice);
    let mut record = Vec::new();
    for (person, values) in sound_people(usual) {
        format::encode_entry(&mut record, &person, values.len() / usual, values.into_iter());
    }
    match choice % 4 {
        0 => decode_any(bytes, usual),
        1 => decode_any(&edited(record, bytes), usual),
        2 => decode_any(&edited(sound_operations(usual), bytes), usual),
        // So small that bytes which nobody chose can be templates.
        _ => decode_any(bytes, usize::from(choice >> 2)),
    }
}

fn decode_any(bytes: &[u8], dimension: usize) {
    if let Ok(fields) = Fields::decode(bytes) {
        assert!(fields.encode() == bytes[..fields.version.fields_bytes()]);
    }
    let mut again = Vec::new();
    if let Ok(entries) = format::decode_record(bytes, dimension) {
        for Entry { person, values } in &entries {
            format::encode_entry(&mut again, person, values.len() / dimension, values.iter().copied());
        }
        assert!(again == bytes);
    }
    again.clear();
    if let Ok(operations) = format::decode_operations(bytes, dimension) {
        for operation in &operations {
            match operation {
                Operation::Put(Entry { person, values }) => {
                    format::encode_put(&mut again, person, values.len() / dimension, values.iter().copied());
                }
                Operation::Remove(id) => format::encode_remove(&mut again, id),
            }
        }
        assert!(again == bytes);
    }
}

/// A journal: raw bytes in its place, a sound one with edits, or any bytes or a sound change with edits sealed as a change. It opens with what was committed, tells
/// of a loss, and never lets anything else in.
pub fn journal(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let (dimension, mode) = dimension(choice);
    let (disk, key) = (Simulated::default(), key());
    let gallery = open(&disk, &key, dimension).expect("a fresh gallery");
    gallery.enroll(person(0), vec![template(0, dimension)]).expect("the disk is sound");
    gallery.compact().expect("the disk is sound");
    let mut states = vec![gallery.snapshot().people().map(|(p, n)| (p.id.clone(), n)).collect::<Vec<_>>()];
    for number in 1..4 {
        gallery.enroll(person(number), vec![template(number, dimension)]).expect("the disk is sound");
        states.push(gallery.snapshot().people().map(|(p, n)| (p.id.clone(), n)).collect());
    }
    drop(gallery);
    let sound = disk.files()[JOURNAL].clone();
    let is_sealed = mode % 4 >= 2;
    let journal = match mode % 4 {
        0 => bytes.to_vec(),
        1 => edited(sound, bytes),
        _ => {
            let Ok(header) = Header::open(&key, &disk.files()[FILE]) else { return };
            let Some(keys) = header.keys else { return };
            let volume = Volume::written(&header.fields, keys, header.hash);
            let tail = Tail { epoch: volume.epoch, head: volume.head, end: 0 };
            let change = if mode % 4 == 2 { bytes.to_vec() } else { edited(sound_operations(dimension), bytes) };
            let mut plain = change.clone();
            let sealed = Appender::new().append(&volume.base(), tail, &mut plain).expect("the system gives random bytes").0;
            let mut replayable = sealed.clone();
            let replayed = journal::replay(&mut replayable, &volume.base(), volume.epoch);
            assert_eq!(replayed.stopped.is_none(), format::decode_operations(&change, dimension).is_ok());
            sealed
        }
    };
    disk.put(JOURNAL, &journal);
    // What was sealed with the right key and says something sensible is authentic: the first two modes only must not invent anything.
    if let Ok(gallery) = open(&disk, &key, dimension) {
        let found: Vec<_> = gallery.snapshot().people().map(|(p, n)| (p.id.clone(), n)).collect();
        let is_known = states.contains(&found);
        assert!(is_known || is_sealed, "a state that never was");
        assert!(found == states[3] || gallery.rollback().is_some(), "a loss, and nobody is told");
    }
}

/// A sound backup's plain text, signed by whoever is given its digest.
pub fn backup_text(sign: Option<backup::Signer<'_>>) -> Vec<u8> {
    backup::sound_text(sign)
}

/// A backup: any bytes as a file, as a plain text and as a plain text that was sealed, and a sound file with edits. It is refused or it
/// is what was sealed, and what is read is written the same.
pub fn backup(input: &[u8]) {
    const WORK: u8 = 4;
    let Some((&mode, bytes)) = input.split_first() else { return };
    let identity = || Unlock::Identities(Identity::all_of(IDENTITY).expect("a sound identity"));
    let sealed = |plain: &[u8]| {
        let recipients = Identity::all_of(IDENTITY).expect("a sound identity").iter().map(Identity::recipient).collect();
        let mut writer =
            age::Writer::begin(Vec::new(), &Lock::Recipients(recipients), WORK).expect("the system gives random bytes");
        writer.write_all(plain).expect("a vector takes it");
        writer.finish().expect("a vector takes it")
    };
    match mode % 5 {
        0 => {
            let words = Unlock::Passphrase("a passphrase".to_owned().into());
            assert!(Backup::open_within(bytes, &words, WORK).is_err() && Backup::open_within(bytes, &identity(), WORK).is_err());
        }
        1 => {
            if let Ok(backup) = Backup::read(&mut &bytes[..]) {
                let (people, templates) = backup.counts();
                let again = backup.encode();
                let once_more = Backup::read(&mut &again[..]).unwrap_or_else(|error| panic!("written and not read: {error}"));
                assert!(once_more.counts() == (people, templates) && once_more.encode() == again);
            }
        }
        2 => {
            let opened = Backup::open_within(&sealed(bytes)[..], &identity(), WORK);
            assert_eq!(opened.is_ok(), Backup::read(&mut &bytes[..]).is_ok());
        }
        3 => {
            // What is changed in a sound one, and still read, is another digest or another signature: nothing is changed unseen.
            let sound = backup_text(Some(&|_| "a.b.c".to_owned()));
            let changed = edited(sound.clone(), bytes);
            let read = |plain: &[u8]| Backup::read(&mut &plain[..]).ok();
            let Some(whole) = read(&sound) else { panic!("a sound one is not read") };
            if let Some(other) = read(&changed) {
                let is_same = (other.digest(), other.signature()) == (whole.digest(), whole.signature());
                assert_eq!(is_same, other.encode() == whole.encode());
            }
        }
        _ => {
            let sound = sealed(b"a plain text");
            let edited = edited(sound.clone(), bytes);
            let mut plain = Vec::new();
            let read =
                age::Reader::open(&edited[..], &identity(), WORK).is_ok_and(|mut reader| reader.read_to_end(&mut plain).is_ok());
            assert!(!read || edited == sound, "altered, and opened");
            let _ = Recipient::from_str(&String::from_utf8_lossy(bytes));
            let _ = Identity::all_of(&String::from_utf8_lossy(bytes));
        }
    }
}

/// A copy of the index's graph: raw bytes or sound ones with edits, opened or still sealed. It is refused, or a search by it ends and names rows
/// that are there.
pub fn graph(input: &[u8]) {
    static SOUND: LazyLock<(Matrix, Vec<u8>)> = LazyLock::new(|| {
        let mut matrix = Matrix::with_capacity(GRAPH_DIMENSION, 40);
        (0..40).for_each(|seed| matrix.push(template(seed, GRAPH_DIMENSION).values()));
        let (_handle, stop) = crate::system::stop::pair();
        let bytes = Shortlist::build(&matrix, 1, &stop).and_then(|graph| graph.to_bytes()).expect("a thread and memory");
        (matrix, bytes.to_vec())
    });
    static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::generate().expect("the system gives random bytes"));
    let Some((&mode, bytes)) = input.split_first() else { return };
    let (matrix, sound) = &*SOUND;
    let opened = match mode % 3 {
        0 => bytes.to_vec(),
        1 => changed(sound.clone(), bytes),
        _ => {
            let mut seal = GraphSeal::begin(&KEYS, 3, 9).expect("the system gives random bytes");
            let mut file = seal.header().to_vec();
            let (mut first, mut last) = (sound[..100].to_vec(), sound[100..].to_vec());
            seal.seal(&mut first, false, &mut file).expect("the system gives random bytes");
            seal.seal(&mut last, true, &mut file).expect("the system gives random bytes");
            let whole = file.clone();
            let mut file = changed(file, bytes);
            let is_whole = file == whole;
            let parts = GraphSeal::open(&KEYS, 3, &mut file);
            assert_eq!(parts.is_some(), is_whole, "altered, and opened");
            assert!(GraphSeal::open(&KEYS, 3, &mut bytes.to_vec()).is_none(), "any bytes, and opened");
            parts.into_iter().flatten().flat_map(|part| file[part].to_vec()).collect()
        }
    };
    let Ok(graph) = Shortlist::from_bytes(&opened, matrix) else { return };
    let cover = graph.cover(matrix);
    for seed in [0, 39, 200] {
        graph.search(matrix, &cover, template(seed, GRAPH_DIMENSION).values(), |row, score| {
            assert!(row < matrix.rows() && score.is_finite());
            f32::NEG_INFINITY
        });
    }
    let again = graph.to_bytes().expect("what was read is written");
    assert!(Shortlist::from_bytes(&again, matrix).is_ok(), "written and not read");
}

const GRAPH_DIMENSION: usize = 64;

/// The epoch's second place: raw bytes, a sound one with edits, and slots that the key signed, whatever they say. A gallery opens beside it, and
/// what it says is what was written, or somebody is told.
pub fn epoch(input: &[u8]) {
    let Some((&mode, bytes)) = input.split_first() else { return };
    let (disk, key) = (Simulated::default(), key());
    let gallery = open(&disk, &key, DIMENSIONS[0]).expect("a fresh gallery");
    gallery.enroll(person(0), vec![template(0, DIMENSIONS[0])]).expect("the disk is sound");
    drop(gallery);
    let sound = disk.files()[EPOCH].clone();
    let newest = Witness::read(&sound, &key).expect("it was just written");
    let file = match mode % 3 {
        0 => bytes.to_vec(),
        // In the slots alone: what is between them is nothing.
        1 => {
            let mut file = sound.clone();
            for slot in [SLOT_STRIDE, 2 * SLOT_STRIDE] {
                let end = (slot + 104).min(file.len());
                let edited = changed(file[slot.min(end)..end].to_vec(), bytes);
                file.truncate(slot.min(end) + edited.len());
                file[slot.min(end)..].copy_from_slice(&edited);
                file.extend_from_slice(sound.get(file.len()..).unwrap_or_default());
            }
            file
        }
        _ => {
            let mut numbers = [0; 24];
            numbers.iter_mut().zip(bytes).for_each(|(number, byte)| *number = *byte);
            let number = |at: usize| numbers[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let said = Witness { generation: number(0), epoch: number(8), serial: number(16), ..newest };
            let (at, slot) = said.slot(&key);
            let mut file = Witness::first_block();
            file.resize(3 * SLOT_STRIDE, 0);
            let at = usize::try_from(at).unwrap_or(0);
            file[at..at + slot.len()].copy_from_slice(&slot);
            assert_eq!(Witness::read(&file, &key), Some(said));
            assert!(Witness::next_serial(&file, &key) >= said.serial);
            file
        }
    };
    disk.put(EPOCH, &file);
    let said = Witness::read(&file, &key);
    assert!(mode % 3 == 2 || said.is_none_or(|said| (said.id, said.serial <= newest.serial) == (newest.id, true)));
    let gallery = open(&disk, &key, DIMENSIONS[0]).expect("the gallery itself is sound");
    assert!(gallery.snapshot().len() == 1);
    let is_behind = said.is_some_and(|said| (said.generation, said.epoch) <= (newest.generation, newest.epoch));
    assert!(gallery.rollback().is_some() || is_behind, "nobody is told");
}

/// Each three bytes change one, anywhere; or cut there.
fn changed(mut bytes: Vec<u8>, edits: &[u8]) -> Vec<u8> {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        match bytes.get_mut(at) {
            Some(byte) if edit[2] != 0 => *byte ^= edit[2],
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// The key pair of age's own tests.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// Each three bytes change one: where, and to what; or cut there.
fn edited(mut journal: Vec<u8>, edits: &[u8]) -> Vec<u8> {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        if edit[2] == 0 {
            journal.truncate(at.max(1));
        } else if let Some(byte) = journal.get_mut(at % 4096) {
            *byte ^= edit[2];
        }
    }
    journal
}

/// Operations with a failure after a countdown and a power cut at the end: the gallery opens and is what was reported, or what the
/// failed operation would have made of it.
pub fn operations(input: &[u8]) {
    let [countdown, choice, tear, steps @ ..] = input else { return };
    let (dimension, fault) = dimension(*choice);
    let (disk, key) = (Simulated::default(), key());
    let fault = Fault::ALL[usize::from(fault) % Fault::ALL.len()];
    if tear.is_multiple_of(2) {
        disk.fail(usize::from(*countdown), fault);
    } else {
        disk.cut(usize::from(*countdown));
    }
    type Model = BTreeMap<PersonId, usize>;
    let mut model = Model::new();
    let mut possible = vec![model.clone()];
    if let Ok(gallery) = open(&disk, &key, dimension) {
        for step in steps.chunks_exact(2).take(24) {
            let (next, outcome) = apply(&gallery, (step[0], step[1]), &model, dimension);
            match outcome {
                outcome if is_made(&outcome) => {
                    model = next;
                    possible = vec![model.clone()];
                }
                Err(GalleryError::NoSuchPerson { .. } | GalleryError::TooManyTemplates { .. }) => {}
                // Nothing is tried before the medium is proven.
                Err(GalleryError::Latched { .. }) if step[0] % 6 < 4 => {}
                // What is on the disk now is one of these; the next success settles it.
                _ => possible.push(next),
            }
        }
        assert!(counts(&gallery) == model, "what is matched is not what was reported");
    }
    let after = if tear.is_multiple_of(2) { disk.reopened() } else { disk.after_power_cut(u64::from(*tear)) };
    let gallery = open(&after, &key, dimension).unwrap_or_else(|error| panic!("it does not open: {error}"));
    assert!(gallery.rollback().is_none(), "a false alarm");
    assert!(possible.contains(&counts(&gallery)), "neither the old state nor the new one");
}

fn counts(gallery: &Gallery) -> BTreeMap<PersonId, usize> {
    gallery.snapshot().people().map(|(person, templates)| (person.id.clone(), templates)).collect()
}

fn apply(
    gallery: &Gallery,
    (what, whom): (u8, u8),
    model: &BTreeMap<PersonId, usize>,
    dimension: usize,
) -> (BTreeMap<PersonId, usize>, Result<(), GalleryError>) {
    let mut next = model.clone();
    let person = person(whom);
    let id = person.id.clone();
    let outcome = match what % 6 {
        0 | 1 => {
            *next.entry(id).or_default() += 1;
            gallery.enroll(person, vec![template(whom, dimension)]).map(|_| ())
        }
        2 => {
            next.remove(&id);
            gallery.remove(&id)
        }
        3 => gallery.set(person),
        4 => gallery.compact(),
        _ => gallery.rekey(None, whom.is_multiple_of(2)),
    };
    (next, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs of each target in a test run: a few seconds.
    const WALK: u64 = 3_000;

    fn walk(target: fn(&[u8]), name: &str) {
        for seed in 0..WALK {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut input = vec![0; random.usize(0..80)];
            random.fill(&mut input);
            // Printed only when the target panics.
            println!("{name}, seed {seed}");
            target(&input);
        }
    }

    #[test]
    fn a_seeded_walk_over_formats_breaks_no_promise() {
        walk(format, "format");
    }

    #[test]
    fn a_seeded_walk_over_journals_breaks_no_promise() {
        walk(journal, "journal");
    }

    #[test]
    fn a_seeded_walk_over_backups_breaks_no_promise() {
        walk(backup, "backup");
    }

    #[test]
    fn a_seeded_walk_over_kept_graphs_breaks_no_promise() {
        graph(&[1]);
        graph(&[2]);
        walk(graph, "graph");
    }

    #[test]
    fn a_seeded_walk_over_the_second_place_breaks_no_promise() {
        walk(epoch, "epoch");
    }

    #[test]
    fn a_seeded_walk_over_operations_breaks_no_promise() {
        walk(operations, "operations");
    }
}
