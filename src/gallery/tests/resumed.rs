//! A machine whose memory is resumed twice (a virtual machine's snapshot, CRIU): both lives go on with the same keys and counters, and what
//! one of them seals must tell nothing of what the other does. Also where nothing reseeds the system's randomness.

use super::super::seal::{self, HEADER_BYTES, LENGTH_BYTES, TAG_BYTES};
use super::*;
use crate::gallery::journal::{CHANGE_HEADER_BYTES, JOURNAL_HEADER_BYTES, SESSION_BYTES};

/// A writer in the middle of a session, and its disk.
fn before(key: &SealingKey) -> (Gallery, Simulated) {
    let disk = Simulated::default();
    let gallery = on(&disk, key).unwrap();
    gallery.enroll(person("ann"), vec![template(1)]).unwrap();
    (gallery, disk)
}

/// The same memory once more, over a copy of the disk.
fn resumed(gallery: &Gallery, disk: &Simulated) -> (Gallery, Simulated) {
    let disk = disk.reopened();
    let store = gallery.writer().unwrap().store.resumed(Arc::new(disk.clone()));
    let copy = Gallery {
        current: ArcSwap::from(gallery.snapshot()),
        path: gallery.path.clone(),
        max_templates_per_person: gallery.max_templates_per_person,
        writer: Some(Mutex::new(Writer { store, _lock: None })),
        compacting: Mutex::default(),
        followed: None,
        rollback: ArcSwapOption::empty(),
        latch: ArcSwapOption::empty(),
    };
    (copy, disk)
}

/// What a person is before it is sealed.
fn plain_of(gallery: &Gallery, who: &str, encode: fn(&mut Vec<u8>, &Person, usize, std::vec::IntoIter<f32>)) -> Vec<u8> {
    let now = gallery.snapshot();
    let index = now.people().position(|(person, _)| person.id == id(who)).unwrap();
    let (person, templates, values) = now.entry(index);
    let mut out = Vec::new();
    encode(&mut out, person, templates, values.collect::<Vec<_>>().into_iter());
    out
}

/// Whether one text tells the other: both were sealed by one stream of bytes.
fn is_one_stream(sealed: (&[u8], &[u8]), plain: (&[u8], &[u8])) -> bool {
    assert_eq!((sealed.0.len(), sealed.1.len()), (plain.0.len(), plain.1.len()));
    assert_eq!(plain.0.len(), plain.1.len(), "texts that can be compared");
    let streams = |(sealed, plain): (&[u8], &[u8])| -> Vec<u8> { sealed.iter().zip(plain).map(|(s, p)| s ^ p).collect() };
    streams((sealed.0, plain.0)) == streams((sealed.1, plain.1))
}

/// Runs both lives, from one state of the randomness where the host tells nothing.
fn both(fresh: Option<u64>, lives: [(&Gallery, &str); 2], act: impl Fn(&Gallery, &str)) {
    for (gallery, who) in lives {
        seal::repeated::from(fresh);
        act(gallery, who);
        seal::repeated::from(None);
    }
}

/// The sealed text of the last change, `length` bytes of it.
fn last_change(disk: &Simulated, length: usize) -> Vec<u8> {
    let journal = disk.files()[JOURNAL].clone();
    journal[journal.len() - TAG_BYTES - length..journal.len() - TAG_BYTES].to_vec()
}

#[test]
fn no_two_changes_of_two_lives_are_sealed_by_one_key_and_nonce() {
    at_each_dimension(|| {
        for fresh in [None, Some(1)] {
            let key = SealingKey::generate().unwrap();
            let (one, disk) = before(&key);
            let (two, other) = resumed(&one, &disk);
            let lives = [(&one, "cyd"), (&two, "dan")];
            // The second change of each life follows other ones already; the first follows the very same.
            for seed in [2, 3] {
                both(fresh, lives, |gallery, who| drop(gallery.enroll(person(who), vec![template(seed)]).unwrap()));
                let mut texts = lives.map(|(gallery, who)| plain_of(gallery, who, format::encode_put));
                // A change adds; the snapshot has what was there before too.
                let length = JOURNAL_HEADER_BYTES + SESSION_BYTES;
                let whole = 4 * DIMENSION.get();
                if seed == 3 {
                    for text in &mut texts {
                        let rows = text.len() - 2 * whole;
                        text[rows - 2..rows].copy_from_slice(&1u16.to_le_bytes());
                        text.drain(rows..rows + whole);
                    }
                }
                assert!(disk.files()[JOURNAL].len() > length + CHANGE_HEADER_BYTES);
                let sealed = (last_change(&disk, texts[0].len()), last_change(&other, texts[1].len()));
                assert!(!is_one_stream((&sealed.0, &sealed.1), (&texts[0], &texts[1])), "{fresh:?}, change {seed}");
            }
            // Both are whole: what they sealed opens.
            for (disk, gallery) in [(&disk, &one), (&other, &two)] {
                let reader = on(&disk.reopened(), &key).unwrap();
                assert_eq!(content(&reader.snapshot()), content(&gallery.snapshot()));
                assert_eq!(reader.rollback(), None);
            }
        }
    });
}

/// One person alone, so that the file is one record: written after a change in the journal, and with a change that no journal takes.
#[test]
fn no_two_files_of_two_lives_are_sealed_by_one_key_and_nonce() {
    let key = SealingKey::generate().unwrap();
    let act: [fn(&Gallery, &str); 2] = [
        |gallery, who| {
            gallery.remove(&id("ann")).unwrap();
            gallery.enroll(person(who), vec![template(2)]).unwrap();
            gallery.compact().unwrap();
        },
        |gallery, who| gallery.restore(vec![(person(who), vec![template(2)])], true).unwrap(),
    ];
    for (number, act) in act.into_iter().enumerate() {
        for fresh in [None, Some(1)] {
            let (one, disk) = before(&key);
            let (two, other) = resumed(&one, &disk);
            let lives = [(&one, "cyd"), (&two, "dan")];
            both(fresh, lives, act);
            let texts = lives.map(|(gallery, who)| plain_of(gallery, who, format::encode_entry));
            let record = |disk: &Simulated| disk.files()[FILE][HEADER_BYTES + LENGTH_BYTES..][..texts[0].len()].to_vec();
            let sealed = (record(&disk), record(&other));
            assert!(!is_one_stream((&sealed.0, &sealed.1), (&texts[0], &texts[1])), "{fresh:?}, way {number}");
            assert!(on(&disk.reopened(), &key).unwrap().rollback().is_none());
        }
    }
}

/// The same change in both lives is told to nobody either, where the randomness is fresh.
#[test]
fn one_change_in_two_lives_is_sealed_to_two_texts() {
    let key = SealingKey::generate().unwrap();
    let (one, disk) = before(&key);
    let (two, other) = resumed(&one, &disk);
    both(None, [(&one, "cyd"), (&two, "cyd")], |gallery, who| drop(gallery.enroll(person(who), vec![template(2)]).unwrap()));
    assert!(last_change(&disk, 16) != last_change(&other, 16));
}

/// A journal of the version before is read; the next change writes the file anew, and its journal is of this version.
#[test]
fn a_journal_of_before_is_not_gone_on_with() {
    let (files, key) = vectors::older(128);
    DIMENSION.set(128);
    let disk = with_files(&files);
    let journal = disk.files()[JOURNAL].clone();
    assert!(journal.starts_with(&crate::gallery::journal::JOURNAL_MAGIC_2));
    let gallery = on(&disk, &key).unwrap();
    let before = content(&gallery.snapshot());
    assert!(gallery.rollback().is_none() && disk.files()[JOURNAL] == journal, "opening alone changes nothing");
    gallery.enroll(person("eve"), vec![template(9)]).unwrap();
    assert!(!disk.files().contains_key(JOURNAL), "the file has it");
    gallery.enroll(person("fay"), vec![template(8)]).unwrap();
    assert!(disk.files()[JOURNAL].starts_with(&crate::gallery::journal::JOURNAL_MAGIC));
    let again = on(&disk.reopened(), &key).unwrap();
    assert!(again.rollback().is_none() && content(&again.snapshot()) == content(&gallery.snapshot()));
    assert_eq!(again.snapshot().stats().people, before.len() + 2);
}
