//! Damage: whatever is done to any byte of any file, what opens is a state that was once committed, and if it is not the newest one
//! somebody is told; a template that nobody enrolled never comes out.

use std::collections::BTreeMap;

use super::*;

type Files = BTreeMap<String, Vec<u8>>;
type State = Vec<(Person, Vec<u32>)>;

fn open(disk: &Simulated, key: &SealingKey, dimension: usize) -> Result<Gallery, GalleryError> {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), dimension), true, None)
}

/// A gallery with two people in its file and a second session of its journal; the files, and the states that were committed.
fn built(dimension: usize) -> (Files, SealingKey, Vec<State>) {
    let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
    let gallery = open(&disk, &key, dimension).unwrap();
    gallery.enroll(person("ann"), vec![template_of(1, dimension)]).unwrap();
    gallery.compact().unwrap();
    let mut states = vec![content(&gallery.snapshot())];
    gallery.enroll(person("bob"), vec![template_of(2, dimension)]).unwrap();
    states.push(content(&gallery.snapshot()));
    drop(gallery);
    let gallery = open(&disk, &key, dimension).unwrap();
    gallery.remove(&id("ann")).unwrap();
    states.push(content(&gallery.snapshot()));
    (disk.files(), key, states)
}

/// What must hold of any files at all.
fn judge(files: &Files, key: &SealingKey, dimension: usize, states: &[State], told: &str) {
    match open(&with_files(files), key, dimension) {
        Err(GalleryError::Damaged { .. } | GalleryError::UnknownVersion { .. }) => {}
        Err(other) => panic!("{told}: {other}"),
        Ok(gallery) => {
            let found = content(&gallery.snapshot());
            let newest = found == states[states.len() - 1];
            let committed = found.is_empty() || states.contains(&found);
            assert!(committed, "{told}: a state that never was");
            assert!(newest || gallery.rollback().is_some(), "{told}: an older state, and nobody is told");
            if let Some(rollback) = gallery.rollback() {
                let refused = error(gallery.enroll(person("eve"), vec![template_of(9, dimension)]));
                assert!(matches!(refused, GalleryError::RolledBack { .. }), "{told}, {rollback}: {refused}");
                assert!(gallery.trusted().is_none(), "{told}: it grants");
            }
        }
    }
}

#[test]
fn every_changed_byte_of_every_file_is_refused_or_healed_to_a_state_that_was() {
    for (dimension, changes) in [(128, &[1u8, 0x80, 0xff][..]), (512, &[0x10])] {
        let (files, key, states) = built(dimension);
        judge(&files, &key, dimension, &states, "untouched");
        for (name, good) in &files {
            // Of the epoch's blocks only the slots are anything.
            let is_slot = |at: &usize| name != EPOCH || (*at >= witness::SLOT_STRIDE && at % witness::SLOT_STRIDE < 110);
            for at in (0..good.len()).filter(is_slot) {
                for change in changes {
                    let mut bad = files.clone();
                    bad.get_mut(name).unwrap()[at] ^= change;
                    judge(&bad, &key, dimension, &states, &format!("{dimension}-D, {name}, byte {at} by {change:#x}"));
                }
            }
        }
    }
}

#[test]
fn every_truncation_a_missing_file_and_anything_appended_is_refused_or_healed() {
    for dimension in [128, 512] {
        let (files, key, states) = built(dimension);
        for (name, good) in &files {
            for length in (0..good.len()).filter(|at| name != EPOCH || *at < 16 || at % witness::SLOT_STRIDE < 110) {
                let mut bad = files.clone();
                bad.get_mut(name).unwrap().truncate(length);
                judge(&bad, &key, dimension, &states, &format!("{dimension}-D, {name}, cut to {length}"));
            }
            let mut bad = files.clone();
            bad.remove(name);
            judge(&bad, &key, dimension, &states, &format!("{dimension}-D, without {name}"));
            for more in [vec![0], vec![1], vec![2; 20], good.clone()] {
                let mut bad = files.clone();
                bad.get_mut(name).unwrap().extend(&more);
                judge(&bad, &key, dimension, &states, &format!("{dimension}-D, {name} with {} bytes more", more.len()));
            }
        }
    }
}

#[test]
fn anything_put_back_from_before_is_noticed_file_by_file_and_all_but_everything_together() {
    let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
    let gallery = open(&disk, &key, 128).unwrap();
    let mut past = vec![disk.files()];
    for step in 0..6 {
        match step {
            2 => gallery.compact().unwrap(),
            4 => gallery.remove(&id("p1")).unwrap(),
            n => gallery.enroll(person(&format!("p{n}")), vec![template_of(n, 128)]).map(|_| ()).unwrap(),
        }
        past.push(disk.files());
    }
    let newest = content(&gallery.snapshot());
    let now = disk.files();
    for (number, old) in past[..6].iter().enumerate() {
        for names in [vec![FILE], vec![JOURNAL], vec![FILE, JOURNAL]] {
            let mut mixed = now.clone();
            for name in &names {
                match old.get(*name) {
                    Some(bytes) => mixed.insert((*name).to_owned(), bytes.clone()),
                    None => mixed.remove(*name),
                };
            }
            let Ok(gallery) = open(&with_files(&mixed), &key, 128) else { continue };
            let is_newest = content(&gallery.snapshot()) == newest;
            assert!(is_newest || gallery.rollback().is_some(), "state {number}, {names:?}");
        }
    }
    // With the second place put back as well nothing is left that knows better: FORMAT.md says so.
    let everything = open(&with_files(&past[2]), &key, 128).unwrap();
    assert!(everything.rollback().is_none());
}

#[test]
fn every_changed_byte_and_every_truncation_of_version_1_is_refused() {
    let (good, key) = vectors::first_version();
    let refused = |bytes: Vec<u8>, told: String| {
        let disk = with_files([(&FILE.to_owned(), &bytes)]);
        let refused = error(on(&disk, &key));
        let named = matches!(refused, GalleryError::Damaged { .. } | GalleryError::UnknownVersion { .. });
        assert!(named, "{told}: {refused}");
        assert!(disk.files()[FILE] == bytes, "{told}: a damaged gallery was written over");
    };
    for at in 0..good.len() {
        for change in [1u8, 3, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= change;
            refused(bad, format!("byte {at} by {change:#x}"));
        }
        refused(good[..at].to_vec(), format!("cut to {at}"));
    }
}
