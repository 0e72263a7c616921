//! Test vectors: files of every version that landed, which stay readable, and a file a negative case, whose first lines say what is
//! wrong and what must come of it. `FACEID_WRITE_VECTORS=1` writes the cases (and the bases that are missing) anew.
//!
//! A case is a list of edits to a base: `xor FILE OFFSET HEX`, `cut FILE LENGTH`, `append FILE HEX`, `remove FILE`, `take FILE OTHER`
//! (another file of the base in its place), `bytes FILE BASE64`, `key HEX`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::gallery::format::{Fields, ID_BYTES, Version};
use crate::gallery::journal::{Appender, Tail};
use crate::gallery::load::Volume;
use crate::gallery::seal::{HEADER_BYTES, Header, Sealer};

type Files = BTreeMap<String, Vec<u8>>;

/// The file of generation 1, before the compaction.
const BEFORE: &str = "people.gallery.before";
const DIMENSIONS: [usize; 2] = [128, 512];
/// At least this many cases are kept.
const CASES: usize = 120;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/vectors")
}

fn writes() -> bool {
    std::env::var_os("FACEID_WRITE_VECTORS").is_some()
}

fn open(files: &Files, key: &SealingKey, dimension: usize) -> Result<Gallery, GalleryError> {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Arc::new(with_files(files)), &settings, key, (&model(), dimension), true, None)
}

/// The kept file of version 1 and its key.
pub(super) fn first_version() -> (Vec<u8>, SealingKey) {
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let key = String::from_utf8(read("v1-small.key")).unwrap();
    (read("v1-small.gallery"), key_of(&key))
}

fn ann() -> Person {
    Person {
        name: Some("Ann Ö".to_owned()),
        groups: vec![GroupId::new("staff").unwrap(), GroupId::new("night").unwrap()],
        consented_at: Some(Wall(1_700_000_000_000)),
        expires_at: Some(Wall(4_000_000_000_000)),
        ..person("ann")
    }
}

/// What the bases were made of: who was there after each change from the compaction on.
fn history(dimension: usize) -> Vec<Vec<(Person, Vec<f32>)>> {
    let values = |seed| template_of(seed, dimension).values().to_vec();
    let (ann, bob) = ((ann(), values(1)), (person("bob"), values(2)));
    vec![vec![ann.clone()], vec![ann, bob.clone()], vec![bob]]
}

fn make_base(dimension: usize, key: &SealingKey) -> Files {
    let disk = Simulated::default();
    let settings = settings(Path::new("/simulated"));
    let open = || Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), dimension), true, None).unwrap();
    let gallery = open();
    gallery.enroll(ann(), vec![template_of(1, dimension)]).unwrap();
    let before = disk.files()[FILE].clone();
    gallery.compact().unwrap();
    gallery.enroll(person("bob"), vec![template_of(2, dimension)]).unwrap();
    drop(gallery);
    open().remove(&id("ann")).unwrap();
    let mut files = disk.files();
    files.insert(BEFORE.to_owned(), before);
    files
}

/// The kept base of a dimension; made when it is not there and vectors are written. The file is of version 2, the journal of 3.
fn base(dimension: usize) -> (Files, SealingKey) {
    kept(&format!("v3-{dimension}"), dimension)
}

/// The kept base of a dimension whose journal is of version 2.
pub(super) fn older(dimension: usize) -> (Files, SealingKey) {
    kept(&format!("v2-{dimension}"), dimension)
}

fn kept(name: &str, dimension: usize) -> (Files, SealingKey) {
    let folder = folder().join(name);
    if writes() && !folder.exists() {
        let key = SealingKey::generate().unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("key"), format!("{}\n", key.to_hex().as_str())).unwrap();
        for (name, bytes) in make_base(dimension, &key) {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let files = [FILE, JOURNAL, EPOCH, BEFORE].map(|name| (name.to_owned(), read(name)));
    (files.into_iter().collect(), key_of(&String::from_utf8(read("key")).unwrap()))
}

#[test]
fn the_kept_files_of_every_version_stay_readable() {
    let (v1, key) = first_version();
    let kept = on(&with_files([(&FILE.to_owned(), &v1)]), &key).unwrap();
    let two = [template(1), template(2)].iter().flat_map(|t| t.values().to_vec()).collect();
    let expected = [(ann(), two), (person("bob"), template(3).values().to_vec())];
    assert!(alike(&plain(&kept.snapshot()), &expected));
    for dimension in DIMENSIONS {
        for (files, key) in [base(dimension), older(dimension)] {
            let kept = open(&files, &key, dimension).unwrap();
            assert_eq!((kept.rollback(), kept.snapshot().generation()), (None, 4), "{dimension}-D");
            assert!(alike(&plain(&kept.snapshot()), &history(dimension)[2]), "{dimension}-D");
        }
    }
}

/// One negative case.
struct Case {
    name: String,
    what: String,
    expect: String,
    edits: Vec<String>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

fn apply(files: &mut Files, key: &mut SealingKey, edit: &str) {
    let words: Vec<&str> = edit.split(' ').collect();
    match words[..] {
        ["xor", name, at, change] => {
            let at: usize = at.parse().unwrap();
            let bytes = files.get_mut(name).unwrap();
            unhex(change).iter().enumerate().for_each(|(n, byte)| bytes[at + n] ^= byte);
        }
        ["cut", name, length] => files.get_mut(name).unwrap().truncate(length.parse().unwrap()),
        ["append", name, more] => files.get_mut(name).unwrap().extend(unhex(more)),
        ["remove", name] => assert!(files.remove(name).is_some()),
        ["take", name, other] => {
            let bytes = files[other].clone();
            files.insert(name.to_owned(), bytes);
        }
        ["bytes", name, text] => {
            files.insert(name.to_owned(), STANDARD.decode(text).unwrap());
        }
        ["key", text] => *key = key_of(text),
        _ => panic!("no edit: {edit}"),
    }
}

/// What comes of files, in a case's words.
fn outcome(files: &Files, key: &SealingKey, dimension: usize) -> String {
    match open(files, key, dimension) {
        Err(GalleryError::Damaged { .. }) => "damaged".to_owned(),
        Err(GalleryError::WrongKey { .. }) => "wrong-key".to_owned(),
        Err(GalleryError::UnknownVersion { .. }) => "unknown-version".to_owned(),
        Err(other) => panic!("{other}"),
        Ok(gallery) => {
            let found = plain(&gallery.snapshot());
            let state = history(dimension).iter().position(|state| alike(state, &found));
            let state = match (state, found.is_empty()) {
                (Some(state), _) => format!("state {state}"),
                (None, true) => "nobody".to_owned(),
                (None, false) => panic!("a state that never was"),
            };
            if gallery.rollback().is_some() { format!("rolled-back, {state}") } else { state }
        }
    }
}

#[test]
fn every_negative_case_comes_to_what_its_file_says() {
    let newest = folder().join("negative-3");
    if writes() {
        let _ = std::fs::remove_dir_all(&newest);
        std::fs::create_dir_all(&newest).unwrap();
        for dimension in DIMENSIONS {
            for (number, Case { name, what, expect, edits }) in cases(dimension).iter().enumerate() {
                let text = format!("# what: {what}\n# expect: {expect}\nbase {dimension}\n{}\n", edits.join("\n"));
                std::fs::write(newest.join(format!("{dimension}-{number:03}-{name}.case")), text).unwrap();
            }
        }
    }
    all_come_to_what_they_say(&newest, base);
    // Those of the version before, which its program wrote, as they were kept.
    all_come_to_what_they_say(&folder().join("negative"), older);
}

fn all_come_to_what_they_say(folder: &Path, base: fn(usize) -> (Files, SealingKey)) {
    let bases: BTreeMap<usize, (Files, SealingKey)> = DIMENSIONS.into_iter().map(|d| (d, base(d))).collect();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= CASES, "only {} cases are kept", paths.len());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("# what: "), "{}", path.display());
        let expect = lines.next().unwrap().strip_prefix("# expect: ").unwrap();
        let dimension: usize = lines.next().unwrap().strip_prefix("base ").unwrap().parse().unwrap();
        let (files, key) = &bases[&dimension];
        let (mut files, mut key) = (files.clone(), key.share());
        lines.for_each(|edit| apply(&mut files, &mut key, edit));
        files.remove(BEFORE);
        assert_eq!(outcome(&files, &key, dimension), expect, "{}", path.display());
    }
}

/// Every case of a dimension, made from its base.
fn cases(dimension: usize) -> Vec<Case> {
    let (files, key) = base(dimension);
    let mut all = Vec::new();
    let mut add = |name: &str, what: String, expect: &str, edits: Vec<String>| {
        all.push(Case { name: name.to_owned(), what, expect: expect.to_owned(), edits });
    };
    let (file, journal) = (files[FILE].len(), files[JOURNAL].len());
    let fields = [
        (0, "magic"),
        (16, "generation"),
        (24, "epoch"),
        (32, "dimension"),
        (36, "number of people"),
        (40, "number of templates"),
        (44, "model id's length"),
        (45, "model id"),
        (109, "zeros"),
        (112, "gallery id"),
        (128, "salt"),
        (160, "wrapped data key"),
        (192, "wrapped rotation"),
        (224, "wrapped keys' tag"),
        (240, "commitment"),
        (272, "checksum"),
        (304, "header tag"),
        (336, "first record's length"),
        (340, "first record"),
        (file - 16, "last record's tag"),
        (file - 1, "last byte"),
    ];
    for (at, what) in fields {
        add("file-changed", format!("the file's {what} is changed"), "damaged", vec![format!("xor {FILE} {at} 01")]);
    }
    add(
        "file-newer",
        "the file is of a version that is not known".to_owned(),
        "unknown-version",
        vec![format!("xor {FILE} 15 0b")],
    );
    add("file-older", "the file says that it is of version 1".to_owned(), "damaged", vec![format!("xor {FILE} 15 03")]);
    for (version, change) in [("2, whose changes have no salt", "01"), ("that is not known", "04")] {
        let edits = vec![format!("xor {JOURNAL} 15 {change}")];
        add("journal-version", format!("the journal says that it is of a version {version}"), "rolled-back, state 0", edits);
    }
    add("key-wrong", "the sealing key is another".to_owned(), "wrong-key", vec![format!("key {}", "0123456789abcdef".repeat(4))]);
    for length in [0, 1, 15, 16, 111, 128, 304, 335, 336, 339, 340, file - 17, file - 16, file - 1] {
        add("file-cut", format!("the file ends after {length} bytes"), "damaged", vec![format!("cut {FILE} {length}")]);
    }
    for more in ["00", "0000000000000000000000000000000000000000", "ffffffff"] {
        add("file-longer", format!("{more} follows the file"), "damaged", vec![format!("append {FILE} {more}")]);
    }
    add("file-gone", "the file is gone".to_owned(), "rolled-back, nobody", vec![format!("remove {FILE}")]);
    let before = vec![format!("take {FILE} {BEFORE}")];
    add("file-before", "the file of before the compaction is put back".to_owned(), "rolled-back, nobody", before);
    // Header, session's start (73), change: kind, epoch, length, salt, body, tag; a second session and change follow.
    let change = 24 + journal::SESSION_BYTES;
    let second =
        journal - (journal::SESSION_BYTES + journal::CHANGE_HEADER_BYTES + format::remove_bytes(&id("ann")) + seal::TAG_BYTES);
    let body = change + journal::CHANGE_HEADER_BYTES;
    let first_session =
        [(0, "magic"), (16, "generation"), (24, "first kind"), (25, "session's epoch"), (33, "salt"), (65, "session's tag")];
    let first_change = [
        (change, "change's kind"),
        (change + 1, "change's epoch"),
        (change + 9, "change's length"),
        (change + 13, "change's salt"),
    ];
    let first_change = first_change.into_iter().chain([(body - 1, "change's salt"), (body, "change")]);
    for (at, what) in first_session.into_iter().chain(first_change).chain([(second - 1, "change's tag")]) {
        let edits = vec![format!("xor {JOURNAL} {at} 01")];
        add("journal-changed", format!("the journal's {what} is changed"), "rolled-back, state 0", edits);
    }
    let later =
        [(second, "second session's kind"), (second + 9, "second salt"), (second + 73, "last kind"), (journal - 1, "last byte")];
    for (at, what) in later {
        let edits = vec![format!("xor {JOURNAL} {at} 80")];
        add("journal-changed-later", format!("the journal's {what} is changed"), "rolled-back, state 1", edits);
    }
    for length in [0, 1, 16, 23, 24, 25, change - 1, change, change + 12, body, body + 100, second - 1] {
        let edits = vec![format!("cut {JOURNAL} {length}")];
        add("journal-cut", format!("the journal ends after {length} bytes"), "rolled-back, state 0", edits);
    }
    for length in [second, second + 72, second + 73, journal - 17, journal - 1] {
        let edits = vec![format!("cut {JOURNAL} {length}")];
        add("journal-cut-later", format!("the journal ends after {length} bytes"), "rolled-back, state 1", edits);
    }
    for more in ["00", "01", "02ffff", "0205000000000000000400000061626364"] {
        let edits = vec![format!("append {JOURNAL} {more}")];
        add("journal-interrupted", format!("an interrupted write of {more} ends the journal"), "state 2", edits);
    }
    add("journal-gone", "the journal is gone".to_owned(), "rolled-back, state 0", vec![format!("remove {JOURNAL}")]);
    add("epoch-gone", "the second place is gone".to_owned(), "rolled-back, state 2", vec![format!("remove {EPOCH}")]);
    for length in [0, 4096, 4097] {
        let edits = vec![format!("cut {EPOCH} {length}")];
        add("epoch-cut", format!("the second place ends after {length} bytes"), "rolled-back, state 2", edits);
    }
    let slots = |at: usize| [1, 2].map(|n| format!("xor {EPOCH} {} 01", n * witness::SLOT_STRIDE + at)).to_vec();
    for (at, what) in
        [(0, "magic"), (16, "gallery ids"), (32, "generations"), (40, "epochs"), (48, "heads"), (64, "serials"), (72, "tags")]
    {
        add("epoch-changed", format!("both slots' {what} are changed"), "rolled-back, state 2", slots(at));
    }
    for (name, what, expect, bytes) in crafted_files(&files, &key, dimension) {
        let edits = vec![format!("bytes {FILE} {}", STANDARD.encode(bytes))];
        add(name, format!("an authentic file says {what}"), expect, edits);
    }
    for (what, bytes) in crafted_journals(&files, &key, dimension) {
        let edits = vec![format!("bytes {JOURNAL} {}", STANDARD.encode(bytes))];
        add("journal-crafted", format!("an authentic change {what}"), "rolled-back, state 0", edits);
    }
    all
}

fn volume(files: &Files, key: &SealingKey) -> Volume {
    let header = Header::open(key, &files[FILE]).ok().unwrap();
    Volume::written(&header.fields, header.keys.unwrap(), header.hash)
}

/// One entry's bytes, valid but for what the case does to them.
fn entry(id: &str, values: &[f32], dimension: usize) -> Vec<u8> {
    let mut out = Vec::new();
    format::encode_entry(&mut out, &person(id), values.len() / dimension, values.iter().copied());
    out
}

fn unit(dimension: usize) -> Vec<f32> {
    let mut values = vec![0.0; dimension];
    values[0] = 1.0;
    values
}

/// Files that whoever has the key could seal and no program of ours writes.
fn crafted_files(files: &Files, key: &SealingKey, dimension: usize) -> Vec<(&'static str, &'static str, &'static str, Vec<u8>)> {
    let volume = volume(files, key);
    let seal = |people: usize, templates: usize, records: &[Vec<u8>]| {
        let (id, generation, epoch) = (volume.id, volume.generation + 9, volume.epoch);
        let fields = Fields { version: Version::Second, id, generation, epoch, dimension, people, templates, model: model() };
        let (mut sealer, header) = Sealer::begin(key, &fields, &volume.keys);
        let mut out = header.to_vec();
        let (last, before) = records.split_last().unwrap();
        before.iter().for_each(|record| sealer.seal(&mut record.clone(), &mut out));
        sealer.seal_last(&mut last.clone(), &mut out);
        out
    };
    let good = |id: &str| entry(id, &unit(dimension), dimension);
    let with = |change: &dyn Fn(&mut Vec<f32>)| {
        let mut values = unit(dimension);
        change(&mut values);
        entry("ann", &values, dimension)
    };
    let edited = |at: usize, byte: u8| {
        let mut bytes = good("ann");
        bytes[at] = byte;
        bytes
    };
    let named = |name: &[u8]| {
        // Flags say that there is a name.
        let mut bytes = vec![3, b'a', b'n', b'n', 1];
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(name);
        bytes.extend(&good("ann")[5..]);
        bytes
    };
    let many = {
        let mut bytes = good("ann");
        let at = bytes.len() - 4 * dimension - 2;
        bytes[at..at + 2].copy_from_slice(&1025u16.to_le_bytes());
        bytes
    };
    let foreign = {
        let fields = Fields {
            version: Version::Second,
            id: [5; ID_BYTES],
            generation: 99,
            epoch: 99,
            dimension,
            people: 1,
            templates: 1,
            model: model(),
        };
        let (sealer, header) = Sealer::begin(key, &fields, &volume.keys);
        let mut out = header.to_vec();
        sealer.seal_last(&mut history_record(dimension), &mut out);
        out
    };
    assert_eq!(HEADER_BYTES, 336, "the offsets above are of this header");
    let c = "file-crafted";
    vec![
        (c, "a template that is too long", "damaged", seal(1, 1, &[with(&|v| v[0] = 2.0)])),
        (c, "a template of zeros", "damaged", seal(1, 1, &[with(&|v| v[0] = 0.0)])),
        (c, "a template that is no number", "damaged", seal(1, 1, &[with(&|v| v[1] = f32::NAN)])),
        (c, "an infinite template", "damaged", seal(1, 1, &[with(&|v| v[1] = f32::INFINITY)])),
        (c, "people out of order", "damaged", seal(2, 2, &[[good("b"), good("a")].concat()])),
        (c, "people out of order over two records", "damaged", seal(2, 2, &[good("b"), good("a")])),
        (c, "one person twice", "damaged", seal(2, 2, &[good("a"), good("a")])),
        (c, "flags that are not known", "damaged", seal(1, 1, &[edited(4, 8)])),
        (c, "a person id with a slash", "damaged", seal(1, 1, &[edited(2, b'/')])),
        (c, "a person id beyond the record", "damaged", seal(1, 1, &[edited(0, 255)])),
        (c, "groups that are not there", "damaged", seal(1, 1, &[edited(5, 255)])),
        (c, "an empty name", "damaged", seal(1, 1, &[named(b"")])),
        (c, "a name with a control character", "damaged", seal(1, 1, &[named(b"a\x07")])),
        (c, "a name that is no text", "damaged", seal(1, 1, &[named(&[0xff])])),
        (c, "a name that is too long", "damaged", seal(1, 1, &[named(&[b'x'; 257])])),
        (c, "more templates of a person than may be", "damaged", seal(1, 1, &[many])),
        (c, "fewer people than its header", "damaged", seal(2, 1, &[good("ann")])),
        (c, "more people than its header", "damaged", seal(1, 2, &[[good("a"), good("b")].concat()])),
        (c, "fewer templates than its header", "damaged", seal(1, 1, &[entry("ann", &[], dimension)])),
        (c, "more templates than its header", "damaged", seal(1, 0, &[good("ann")])),
        (c, "an empty record before another", "damaged", seal(1, 1, &[vec![], good("ann")])),
        (c, "an empty record after another", "damaged", seal(1, 1, &[good("ann"), vec![]])),
        (c, "half a person", "damaged", seal(1, 1, &[good("ann")[..good("ann").len() - 1].to_vec()])),
        (c, "a person and a byte", "damaged", seal(1, 1, &[[good("ann"), vec![0]].concat()])),
        ("file-of-another-gallery", "another gallery's id", "rolled-back, state 0", foreign),
    ]
}

/// The record of the first state, turned as the base's templates are.
fn history_record(dimension: usize) -> Vec<u8> {
    let (files, key) = base(dimension);
    let rotation = store::rotation_of(&volume(&files, &key).keys, dimension);
    let (person, values) = history(dimension)[0][0].clone();
    let mut out = Vec::new();
    format::encode_entry(&mut out, &person, 1, rotation.turn(&values).iter().copied());
    out
}

/// Journals that whoever has the keys could seal and no program of ours writes.
fn crafted_journals(files: &Files, key: &SealingKey, dimension: usize) -> Vec<(&'static str, Vec<u8>)> {
    let volume = volume(files, key);
    let seal = |plain: Vec<u8>| {
        let tail = Tail { epoch: volume.epoch, head: volume.head, end: 0 };
        let mut plain = plain;
        Appender::new().append(&volume.base(), tail, &mut plain).unwrap().0
    };
    let put = |id: &str, values: &[f32]| {
        let mut out = Vec::new();
        format::encode_put(&mut out, &person(id), values.len() / dimension, values.iter().copied());
        out
    };
    let good = |id: &str| put(id, &unit(dimension));
    let remove = |id: &[u8]| [&[2, u8::try_from(id.len()).unwrap()], id].concat();
    vec![
        ("does nothing", seal(vec![])),
        ("does what is not known", seal(vec![9, 1, b'a'])),
        ("enrols in another order", seal([good("b"), good("a")].concat())),
        ("removes somebody twice", seal([remove(b"a"), remove(b"a")].concat())),
        ("removes an id that is none", seal(remove(b"a/b"))),
        ("removes an empty id", seal(remove(b""))),
        ("enrols a template that is too long", seal(put("a", &vec![1.0; dimension]))),
        ("enrols a template of zeros", seal(put("a", &vec![0.0; dimension]))),
        ("enrols half a template", seal(good("a")[..good("a").len() - 4].to_vec())),
        ("enrols somebody and a byte", seal([good("a"), vec![0]].concat())),
    ]
}

/// Backups of every version that landed, with identities that are for nothing else: they stay readable.
#[test]
fn the_kept_backups_open_and_hold_what_they_were_made_of() {
    kept_backup("backup-v1", None);
    kept_backup("backup-v2", Some("header.claim.signature"));
}

fn kept_backup(name: &str, signed: Option<&'static str>) {
    use super::super::backup::Backup;
    use super::super::seal::age::{Identity, Lock, Unlock};
    let (path, identity) = (folder().join(format!("{name}.age")), folder().join(format!("{name}.identity")));
    let sign = move |_: &[u8; 32]| signed.unwrap_or_default().to_owned();
    let signature: Option<Signer<'_>> = signed.is_some().then_some(&sign);
    let history = history(512);
    if writes() && !path.exists() {
        let key = Identity::generate().unwrap();
        std::fs::write(&identity, format!("# for the test vector beside it and nothing else\n{}\n", &*key.to_text())).unwrap();
        let settings = settings(Path::new("/simulated"));
        let sealing = SealingKey::generate().unwrap();
        let disk = Arc::new(Simulated::default());
        let gallery = Gallery::open_on(disk, &settings, &sealing, (&model(), 512), true, None).unwrap();
        gallery.enroll(ann(), vec![template_of(1, 512)]).unwrap();
        gallery.enroll(person("bob"), vec![template_of(2, 512)]).unwrap();
        let made_at = Wall(1_800_000_000_000);
        let lock = Lock::Recipients(vec![key.recipient()]);
        gallery.back_up(&path, &lock, made_at, (&[], false), signature).unwrap();
    }
    let unlock = Unlock::Identities(Identity::all_of(&std::fs::read_to_string(&identity).unwrap()).unwrap());
    let backup = Backup::open(&std::fs::read(&path).unwrap()[..], &unlock).ok().unwrap();
    assert_eq!((backup.made_at(), backup.epoch(), backup.counts()), (Wall(1_800_000_000_000), 3, (2, 2)));
    assert_eq!(backup.model(), (&model(), 512));
    assert_eq!(backup.signature(), signed);
    let people: Vec<_> = backup.into_people().into_iter().map(|(person, all)| (person, all[0].values().to_vec())).collect();
    assert!(alike(&people, &history[1]));
}
