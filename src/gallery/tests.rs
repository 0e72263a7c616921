//! The gallery as its users meet it: bad input first.

mod backups;
mod beside;
mod corruption;
mod crash;
mod document;
mod graphs;
mod lifecycle;
mod resumed;
mod vectors;

use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::medium::EPOCH;
use super::simulated::{Fault, Simulated};
use super::store::{JOURNAL, UNFINISHED};
use super::*;
use crate::types::{GroupId, Score, Wall};

thread_local! {
    /// Numbers in a template of this test.
    static DIMENSION: Cell<usize> = const { Cell::new(4) };
}

/// A test for galleries of short templates and of long ones.
fn at_each_dimension(test: impl Fn()) {
    for dimension in [128, 512] {
        DIMENSION.set(dimension);
        test();
    }
}

fn model() -> ModelId {
    ModelId::new("drawn-4").unwrap()
}

fn id(text: &str) -> PersonId {
    PersonId::new(text).unwrap()
}

fn person(text: &str) -> Person {
    Person { id: id(text), name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(1_000) }
}

/// A synthetic template that a seed fixes.
fn template_of(seed: u64, dimension: usize) -> Embedding {
    let mut random = fastrand::Rng::with_seed(seed);
    Embedding::normalised(model(), (0..dimension).map(|_| random.f32() - 0.5).collect()).unwrap()
}

fn template(seed: u64) -> Embedding {
    template_of(seed, DIMENSION.get())
}

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_owned(), max_templates_per_person: 4, ..Settings::default() }
}

fn open_at(dir: &Path, key: &SealingKey) -> Result<Gallery, GalleryError> {
    Gallery::create_or_open(&settings(dir), key, &model(), DIMENSION.get())
}

fn on(disk: &Simulated, key: &SealingKey) -> Result<Gallery, GalleryError> {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), DIMENSION.get()), true, None)
}

fn error<T>(result: Result<T, GalleryError>) -> GalleryError {
    result.err().expect("this had to fail")
}

/// Everything a snapshot holds, with its templates turned back.
fn plain(snapshot: &Snapshot) -> Vec<(Person, Vec<f32>)> {
    let entry = |index| {
        let (person, _, values) = snapshot.entry(index);
        let rows: Vec<f32> = values.collect();
        let back = rows.chunks_exact(snapshot.dimension()).flat_map(|row| snapshot.rotation().turn_back(row).to_vec());
        (person.clone(), back.collect())
    };
    (0..snapshot.len()).map(entry).collect()
}

/// Whether two states are one: turning there and back rounds a little.
fn alike(a: &[(Person, Vec<f32>)], b: &[(Person, Vec<f32>)]) -> bool {
    const ROUNDING: f32 = 1e-4;
    let same = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < ROUNDING);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same(&a.1, &b.1))
}

/// Everything a snapshot holds, in a form that tests can compare.
fn content(snapshot: &Snapshot) -> Vec<(Person, Vec<u32>)> {
    let entry = |index| {
        let (person, _, values) = snapshot.entry(index);
        (person.clone(), values.map(f32::to_bits).collect())
    };
    (0..snapshot.len()).map(entry).collect()
}

/// A disk with two people, and their key.
fn small() -> (Simulated, SealingKey) {
    let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
    let gallery = on(&disk, &key).unwrap();
    gallery.enroll(person("ann"), vec![template(1), template(2)]).unwrap();
    gallery.enroll(person("bob"), vec![template(3)]).unwrap();
    (disk.reopened(), key)
}

fn with_files<'a>(files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Simulated {
    let disk = Simulated::default();
    files.into_iter().for_each(|(name, bytes)| disk.put(name, bytes));
    disk
}

#[test]
fn a_gallery_of_another_key_model_dimension_or_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("gallery");
    let key = SealingKey::generate().unwrap();
    let settings = settings(&dir);
    assert!(matches!(error(Gallery::open_existing(&settings, &key, &model(), DIMENSION.get())), GalleryError::Missing { .. }));
    assert!(!dir.exists(), "looking made a folder");
    drop(open_at(&dir, &key).unwrap());
    let other = SealingKey::generate().unwrap();
    assert!(matches!(error(open_at(&dir, &other)), GalleryError::WrongKey { .. }));
    assert!(matches!(error(Gallery::verify(&settings, &other)), GalleryError::WrongKey { .. }));
    let foreign = ModelId::new("other").unwrap();
    for (model, dimension) in [(&foreign, DIMENSION.get()), (&model(), DIMENSION.get() + 1)] {
        let refused = error(Gallery::create_or_open(&settings, &key, model, dimension));
        assert!(matches!(refused, GalleryError::OtherModel { .. }), "{refused}");
    }
    for dimension in [0, MAX_DIMENSION + 1] {
        assert!(Gallery::create_or_open(&settings, &key, &model(), dimension).is_err());
    }
    let mut bytes = std::fs::read(dir.join(FILE)).unwrap();
    bytes[15] = b'9';
    std::fs::write(dir.join(FILE), bytes).unwrap();
    let refused = error(open_at(&dir, &key));
    assert!(matches!(&refused, GalleryError::UnknownVersion { found, .. } if found == "9"), "{refused}");
    std::fs::write(dir.join(FILE), "no gallery at all").unwrap();
    assert!(matches!(error(open_at(&dir, &key)), GalleryError::Damaged { offset: 0, .. }));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let key = SealingKey::generate().unwrap();
    let dir = folder.path().join("gallery");
    let first = open_at(&dir, &key).unwrap();
    first.enroll(person("ann"), vec![template(1)]).unwrap();
    let refused = error(open_at(&dir, &key));
    assert!(matches!(refused, GalleryError::Locked { .. }), "{refused}");
    let reader = Gallery::open_read_only(&settings(&dir), &key).unwrap();
    assert_eq!(reader.snapshot().stats().people, 1);
    assert!(matches!(error(reader.remove(&id("ann"))), GalleryError::OpenedReadOnly { .. }));
    drop(first);
    assert!(open_at(&dir, &key).is_ok());
}

#[test]
fn enrolments_that_cannot_be_are_refused_and_change_nothing() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let (before, calls) = (content(&gallery.snapshot()), disk.calls());
    let foreign = Embedding::normalised(ModelId::new("other").unwrap(), vec![1.0; DIMENSION.get()]).unwrap();
    let longer = template_of(1, DIMENSION.get() + 1);
    let named = Person { name: Some("a\u{7}".to_owned()), ..person("eve") };
    let five = || (0..5).map(template).collect::<Vec<_>>();
    assert!(matches!(error(gallery.enroll(person("eve"), vec![])), GalleryError::NoTemplates { .. }));
    assert!(matches!(error(gallery.enroll(person("eve"), vec![foreign])), GalleryError::ForeignProbe { .. }));
    assert!(matches!(error(gallery.enroll(person("eve"), vec![longer])), GalleryError::ForeignProbe { .. }));
    assert!(matches!(error(gallery.enroll(named.clone(), vec![template(9)])), GalleryError::InvalidPerson { .. }));
    assert!(matches!(error(gallery.enroll(person("eve"), five())), GalleryError::TooManyTemplates { wanted: 5, limit: 4, .. }));
    let three = (0..3).map(template).collect();
    assert!(matches!(error(gallery.enroll(person("ann"), three)), GalleryError::TooManyTemplates { wanted: 5, limit: 4, .. }));
    let batch = vec![(person("new"), vec![template(7)]), (named, vec![template(8)])];
    assert!(matches!(error(gallery.enroll_many(batch)), GalleryError::InvalidPerson { .. }));
    assert!(matches!(error(gallery.set(person("eve"))), GalleryError::NoSuchPerson { .. }));
    assert!(matches!(error(gallery.remove(&id("eve"))), GalleryError::NoSuchPerson { .. }));
    assert_eq!(content(&gallery.snapshot()), before);
    assert_eq!(disk.calls(), calls, "a refused change was written");
}

type Act = fn(&Gallery) -> Result<(), GalleryError>;

const ACTS: [(&str, Act); 4] = [
    ("enroll", |g| g.enroll(person("eve"), vec![template(9)]).map(|_| ())),
    ("enroll_many", |g| g.enroll_many(vec![(person("cyd"), vec![template(5)]), (person("ann"), vec![template(6)])])),
    ("set", |g| g.set(Person { name: Some("Bob".to_owned()), ..person("bob") })),
    ("remove", |g| g.remove(&id("ann"))),
];

#[test]
fn a_failure_at_any_call_leaves_the_old_state_or_says_that_it_does_not_know() {
    at_each_dimension(|| {
        let (start, key) = small();
        let old = content(&on(&start.reopened(), &key).unwrap().snapshot());
        for (name, act) in ACTS {
            let rehearsal = start.reopened();
            let gallery = on(&rehearsal, &key).unwrap();
            let from = rehearsal.calls();
            act(&gallery).unwrap();
            let (to, new) = (rehearsal.calls(), content(&gallery.snapshot()));
            assert_eq!(to - from, 4, "write and sync of the journal, write and sync of the epoch");
            for (call, fault) in (from..to).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
                let disk = start.reopened();
                let gallery = on(&disk, &key).unwrap();
                disk.fail(call, fault);
                let done = act(&gallery);
                let is_done = is_made(&done);
                let seen = content(&gallery.snapshot());
                let after = content(&on(&disk.reopened(), &key).unwrap().snapshot());
                match call - from {
                    0 => {
                        let failed = done.expect_err("a write that failed was taken for done");
                        let named = match fault {
                            Fault::Full | Fault::Short => matches!(failed, GalleryError::Full { .. }),
                            Fault::ReadOnly => matches!(failed, GalleryError::ReadOnly { .. }),
                            Fault::Broken => matches!(failed, GalleryError::Io { .. }),
                        };
                        assert!(named, "{name}, {fault:?}: {failed}");
                        assert!(seen == old && after == old, "{name}, {fault:?}");
                    }
                    1 => {
                        let failed = done.expect_err("a sync that failed was taken for done");
                        assert!(matches!(failed, GalleryError::Unsettled { .. }), "{failed}");
                        assert!(seen == old && (after == old || after == new), "{name}, {fault:?}");
                    }
                    // The change is durable; only the second place does not know it yet, and whoever asked is told.
                    _ => {
                        let failed = done.expect_err("an epoch that did not move was not told of");
                        assert!(matches!(failed, GalleryError::Unwitnessed { .. }), "{failed}");
                        assert!(is_done && seen == new && after == new, "{name}, {fault:?}");
                    }
                }
                assert!(gallery.latched().is_some(), "{name}, call {call}, {fault:?}: nothing says that a write failed");
                let next = || if is_done { gallery.enroll(person("zoe"), vec![template(8)]).map(|_| ()) } else { act(&gallery) };
                assert!(
                    matches!(error(next()), GalleryError::Latched { .. }),
                    "{name}, {fault:?}: changed before the medium is proven"
                );
                assert!(content(&gallery.snapshot()) == seen);
                assert!(gallery.compact_if_due().unwrap() && gallery.latched().is_none());
                next().unwrap();
                let now = content(&gallery.snapshot());
                let again = on(&disk.reopened(), &key).unwrap();
                assert!(content(&again.snapshot()) == now && again.rollback().is_none(), "{name}, call {call}, {fault:?}");
            }
        }
    });
}

#[test]
fn a_failure_at_any_call_of_a_compaction_changes_nobody() {
    at_each_dimension(|| {
        let (start, key) = small();
        let rehearsal = start.reopened();
        let gallery = on(&rehearsal, &key).unwrap();
        let (old, from) = (content(&gallery.snapshot()), rehearsal.calls());
        gallery.compact().unwrap();
        for (call, fault) in (from..rehearsal.calls()).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
            let disk = start.reopened();
            let gallery = on(&disk, &key).unwrap();
            disk.fail(call, fault);
            // Whether it says so depends on the call: what only tidies up is tried again.
            let done = gallery.compact();
            assert!(done.is_ok() || gallery.latched().is_some(), "call {call}, {fault:?}: a failed write goes unsaid");
            let reopened = on(&disk.reopened(), &key).unwrap();
            assert!(content(&reopened.snapshot()) == old && reopened.rollback().is_none(), "call {call}, {fault:?}");
            gallery.compact_if_due().unwrap();
            gallery.enroll(person("zoe"), vec![template(8)]).unwrap();
            let again = on(&disk.reopened(), &key).unwrap();
            assert!(content(&again.snapshot()) == content(&gallery.snapshot()), "call {call}, {fault:?}");
            assert!(again.rollback().is_none() && again.snapshot().templates_of(&id("zoe")) == 1);
        }
    });
}

/// A disk that fails from some call on and goes on failing, until somebody mends it.
#[test]
fn a_disk_that_stays_broken_takes_no_change_and_says_so_until_it_is_mended() {
    at_each_dimension(|| {
        let (start, key) = small();
        let acts = ACTS.into_iter().chain([("compact", Gallery::compact as Act), ("rekey", |g| g.rekey(None, true))]);
        for (name, act) in acts {
            let rehearsal = start.reopened();
            let gallery = on(&rehearsal, &key).unwrap();
            let (old, from) = (plain(&gallery.snapshot()), rehearsal.calls());
            act(&gallery).unwrap();
            let new = plain(&gallery.snapshot());
            for (call, fault) in (from..rehearsal.calls()).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
                let told = || format!("{name}, from call {call} on, {fault:?}");
                let disk = start.reopened();
                let gallery = on(&disk, &key).unwrap();
                disk.fail_from(call, fault);
                let done = is_made(&act(&gallery));
                let seen = plain(&gallery.snapshot());
                assert!(alike(&seen, if done { &new } else { &old }), "{}", told());
                // What only tidies up may fail unseen: the next change meets the disk.
                let _ = gallery.enroll(person("yan"), vec![template(7)]);
                assert!(gallery.latched().is_some(), "{}", told());
                let seen = plain(&gallery.snapshot());
                for _ in 0..3 {
                    assert!(matches!(error(gallery.remove(&id("bob"))), GalleryError::Latched { .. }), "{}", told());
                    assert!(gallery.compact_if_due().is_err() && gallery.latched().is_some(), "{}", told());
                }
                assert!(alike(&plain(&gallery.snapshot()), &seen) && gallery.trusted().is_some(), "{}", told());
                disk.mend();
                assert!(gallery.compact_if_due().unwrap() && gallery.latched().is_none(), "{}", told());
                gallery.enroll(person("zoe"), vec![template(8)]).unwrap();
                let again = on(&disk.reopened(), &key).unwrap();
                assert!(alike(&plain(&again.snapshot()), &plain(&gallery.snapshot())) && again.rollback().is_none(), "{}", told());
            }
        }
    });
}

#[test]
fn whose_face_is_somebody_elses_already_or_in_the_same_batch_is_left_out_and_named() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let threshold = Score::new(0.99).unwrap();
    let batch = || {
        let row = |name: &str, seed| (person(name), vec![template(seed)]);
        vec![row("cyd", 1), row("dan", 40), row("eve", 40), row("bob", 3), row("fay", 41)]
    };
    let rule = Rule { matching: threshold, allowed: Allowed { other_face: true, ..Allowed::default() } };
    let (admissions, done) = gallery.admit(batch(), &rule);
    done.unwrap();
    let twins = admissions.iter().filter_map(|admission| match admission.why_nobody()? {
        NotEnrolled::Duplicate { other, .. } => Some((admission.person.as_str(), other.as_str())),
        why => panic!("{why}"),
    });
    assert_eq!(twins.collect::<Vec<_>>(), [("cyd", "ann"), ("eve", "dan")], "a person's own face is no other's");
    let there: Vec<_> = gallery.snapshot().people().map(|(person, templates)| (person.id.to_string(), templates)).collect();
    assert_eq!(admissions[3].already_there(), 1, "bob's own template again");
    let expected = [("ann", 2), ("bob", 1), ("dan", 1), ("fay", 1)].map(|(name, templates)| (name.to_owned(), templates));
    assert_eq!(there, expected);
    gallery.enroll_many(batch()).unwrap();
    assert_eq!(gallery.snapshot().len(), 6, "told to, both are enrolled");
    let calls = disk.calls();
    let (admissions, done) = gallery.admit(vec![(person("gus"), vec![template(2)])], &rule);
    assert!(done.is_ok() && admissions[0].why_nobody().is_some_and(|why| why.code() == "already-enrolled"));
    assert_eq!(disk.calls(), calls, "nothing was written for nobody");
}

#[test]
fn a_full_disk_while_making_the_first_gallery_leaves_none() {
    at_each_dimension(|| {
        let key = SealingKey::generate().unwrap();
        for call in 0..20 {
            let disk = Simulated::default();
            disk.fail(call, Fault::Full);
            if let Err(failed) = on(&disk, &key) {
                let named = matches!(failed, GalleryError::Full { .. } | GalleryError::Unsettled { .. } | GalleryError::Io { .. });
                assert!(named, "call {call}: {failed}");
            }
            let gallery = on(&disk, &key).unwrap();
            assert!(gallery.snapshot().is_empty() && gallery.rollback().is_none(), "call {call}");
        }
    });
}

#[test]
fn what_was_enrolled_is_visible_at_once_and_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state/gallery");
    let key = SealingKey::generate().unwrap();
    let gallery = open_at(&dir, &key).unwrap();
    let held = gallery.snapshot();
    let full = Person {
        name: Some("Ann Ö".to_owned()),
        groups: vec![GroupId::new("staff").unwrap()],
        consented_at: Some(Wall(5)),
        expires_at: Some(Wall(i64::MAX)),
        ..person("ann")
    };
    let done = gallery.enroll(full.clone(), vec![template(1)]).unwrap();
    assert_eq!((done.added, done.templates, done.nearest_other), (1, 1, None));
    let done = gallery.enroll(person("bob"), vec![template(1)]).unwrap();
    let twin = done.nearest_other.unwrap();
    assert!(twin.person == id("ann") && twin.score.value() > 0.999, "the same face twice is noticed");
    let later = Person { enrolled_at: Wall(9), ..person("ann") };
    assert_eq!(gallery.enroll(later, vec![template(2)]).unwrap().templates, 2);
    assert_eq!(gallery.snapshot().person(&id("ann")), Some(&full), "a later enrolment takes nothing away");
    assert!(held.is_empty());
    let moved = Person { groups: vec![], expires_at: None, ..full };
    gallery.set(moved.clone()).unwrap();
    gallery.remove(&id("bob")).unwrap();
    let expected = content(&gallery.snapshot());
    drop(gallery);
    let gallery = Gallery::open_existing(&settings(&dir), &key, &model(), DIMENSION.get()).unwrap();
    assert_eq!(content(&gallery.snapshot()), expected);
    let snapshot = gallery.snapshot();
    assert_eq!(snapshot.people().collect::<Vec<_>>(), [(&moved, 2)]);
    let found = snapshot.search(&template(2), 5).unwrap();
    assert!(found.len() == 1 && found[0].person == id("ann") && found[0].score.value() > 0.999);
    let report = Gallery::verify(&settings(&dir), &key).unwrap();
    assert_eq!((report.stats.people, report.stats.templates, report.stats.generation), (1, 2, 6));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert!(serde_json::to_string(&report).unwrap().contains("\"templates\":2"));
}

#[test]
fn the_folder_and_its_files_are_closed_to_others_and_links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("gallery");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let key = SealingKey::generate().unwrap();
    let gallery = open_at(&dir, &key).unwrap();
    gallery.enroll(person("ann"), vec![template(1)]).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in [FILE, LOCK] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    drop(gallery);
    std::fs::set_permissions(dir.join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(dir.join(UNFINISHED), "left").unwrap();
    assert_eq!(Gallery::verify(&settings(&dir), &key).unwrap().warnings.len(), 2);
    drop(open_at(&dir, &key).unwrap());
    assert!(!dir.join(UNFINISHED).exists());
    let target = folder.path().join("elsewhere");
    std::fs::rename(dir.join(FILE), &target).unwrap();
    symlink(&target, dir.join(FILE)).unwrap();
    assert!(matches!(error(open_at(&dir, &key)), GalleryError::Io { .. }));
}

#[test]
fn no_template_and_no_name_is_readable_in_the_file() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    gallery.compact().unwrap();
    gallery.set(Person { name: Some("Robert Tables".to_owned()), ..person("bob") }).unwrap();
    gallery.enroll(person("cyd"), vec![template(3)]).unwrap();
    assert_eq!(disk.files().len(), 3, "the file, the journal and the epoch are looked at");
    for (name, bytes) in disk.files() {
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        assert!(!has(b"Robert") && !has(b"bob"), "{name}");
        for seed in 1..=3 {
            assert!(template(seed).values().iter().all(|v| !has(&v.to_le_bytes()) || *v == 0.0), "{name}");
        }
        let turned = content(&gallery.snapshot()).into_iter().flat_map(|(_, values)| values);
        turned.for_each(|bits| assert!(!has(&bits.to_le_bytes()), "{name}: a turned template is plain"));
    }
}

#[test]
fn a_gallery_of_many_records_comes_back_whole() {
    let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
    let settings = Settings { dir: "/simulated".into(), max_templates_per_person: 64, ..Settings::default() };
    let open = |disk: &Simulated| Gallery::open_on(Arc::new(disk.clone()), &settings, &key, (&model(), 128), true, None);
    let gallery = open(&disk).unwrap();
    let batch = (0..700u64).map(|n| {
        let templates = (0..=n % 7).map(|t| template_of(1_000 * n + t, 128)).collect();
        (person(&format!("p{n}")), templates)
    });
    gallery.enroll_many(batch.collect()).unwrap();
    // Big enough for more than one record and more than one write call.
    assert!(disk.files()[FILE].len() + disk.files()[JOURNAL].len() > 1 << 20);
    gallery.compact().unwrap();
    assert!(disk.files()[FILE].len() > 1 << 20 && !disk.files().contains_key(JOURNAL));
    let again = open(&disk.reopened()).unwrap();
    assert!(content(&again.snapshot()) == content(&gallery.snapshot()));
    assert_eq!(again.snapshot().search(&template_of(69_006, 128), 1).unwrap()[0].person, id("p69"));
    let huge = vec![(person("p1"), (0..60).map(|t| template_of(t, 128)).collect())];
    again.enroll_many(huge).unwrap();
    assert_eq!(again.snapshot().templates_of(&id("p1")), 62);
}

#[test]
fn a_person_twice_in_one_batch_gets_both_templates() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let named = Person { name: Some("Eve".to_owned()), ..person("eve") };
    gallery.enroll_many(vec![(named.clone(), vec![template(7)]), (person("eve"), vec![template(8)])]).unwrap();
    assert_eq!(gallery.snapshot().templates_of(&id("eve")), 2);
    assert_eq!(gallery.snapshot().person(&id("eve")), Some(&named));
    let three = (0..3).map(|n| (person("eve"), vec![template(n)])).collect();
    assert!(matches!(error(gallery.enroll_many(three)), GalleryError::TooManyTemplates { wanted: 5, .. }));
    gallery.enroll_many(vec![]).unwrap();
}

/// Compiles only while the type has no `Debug`: with one, two impls would fit.
macro_rules! has_no_debug {
    ($($secret:ty),*) => {
        $(const _: fn() = || {
            trait Ambiguous<A> {
                fn told() {}
            }
            struct Debugged;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + std::fmt::Debug> Ambiguous<Debugged> for T {}
            let _ = <$secret as Ambiguous<_>>::told;
        };)*
    };
}
has_no_debug!(SealingKey, Snapshot, Gallery, index::Matrix, format::Entry, format::Operation, Change, Embedding);
has_no_debug!(rotation::Rotation, seal::Keys, seal::Header, seal::Session, load::Volume, load::Loaded, store::Store);

/// A key from its hexadecimal digits, by way of a file as users give it.
fn key_of(hex: &str) -> SealingKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, hex).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    SealingKey::read("key", folder.path()).unwrap()
}
