//! Removal, rollback, renewal, following: what happens over a gallery's life.

use super::*;

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Every 24-byte piece of `record` that stands in any of the `places`.
fn pieces_left(record: &[u8], places: &[Vec<u8>]) -> usize {
    record.chunks_exact(24).filter(|piece| places.iter().any(|place| has(place, piece))).count()
}

#[test]
fn after_a_removal_and_a_compaction_no_ciphertext_of_the_person_is_left_and_no_key_opens_what_was() {
    for dimension in [128, 512] {
        let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
        let settings = settings(Path::new("/simulated"));
        let open = |disk: &Simulated| Gallery::open_on(Arc::new(disk.clone()), &settings, &key, (&model(), dimension), true, None);
        let gallery = open(&disk).unwrap();
        gallery.enroll(person("ann"), vec![template_of(1, dimension)]).unwrap();
        gallery.enroll(person("bob"), vec![template_of(2, dimension)]).unwrap();
        // Once in a journal, once in a file.
        let journal = disk.files()[JOURNAL].clone();
        let first = disk.files()[FILE].clone();
        gallery.compact().unwrap();
        let file = disk.files()[FILE].clone();
        gallery.remove(&id("ann")).unwrap();
        assert!(gallery.compact_if_due().unwrap(), "a removal makes a compaction due");
        assert!(!gallery.compact_if_due().unwrap());
        let left: Vec<Vec<u8>> = disk.files().into_values().collect();
        let body = |bytes: &[u8]| bytes[seal::HEADER_BYTES..].to_vec();
        assert_eq!(pieces_left(&journal[journal::JOURNAL_HEADER_BYTES..], &left), 0, "{dimension}-D");
        assert_eq!(pieces_left(&body(&file), &left), 0, "{dimension}-D");
        // On the bare disk the old records may still lie, but the headers that held their keys are overwritten.
        for header in [&first, &file] {
            assert_eq!(pieces_left(&header[seal::KEYS_AT..seal::COMMITMENT_AT], &disk.remains()), 0, "{dimension}-D");
        }
        let reopened = open(&disk.reopened()).unwrap();
        assert!(reopened.snapshot().person(&id("ann")).is_none() && reopened.rollback().is_none());
        // A crash between the removal and the compaction leaves the compaction due.
        reopened.remove(&id("bob")).unwrap();
        drop(reopened);
    }
}

#[test]
fn a_removal_whose_compaction_was_cut_off_is_due_at_the_next_opening() {
    let (disk, key) = small();
    on(&disk, &key).unwrap().remove(&id("ann")).unwrap();
    assert!(on(&disk.reopened(), &key).unwrap().compact_if_due().unwrap());
}

#[test]
fn a_removal_that_leaves_ciphertext_on_the_disk_says_so() {
    let (start, key) = small();
    let rehearsal = start.reopened();
    let gallery = on(&rehearsal, &key).unwrap();
    let from = rehearsal.calls();
    gallery.erase(&id("ann")).unwrap();
    let (mut erased, mut left) = (0, 0);
    for call in from..rehearsal.calls() {
        let disk = start.reopened();
        let gallery = on(&disk, &key).unwrap();
        disk.fail_from(call, Fault::Broken);
        match gallery.erase(&id("ann")) {
            // The names, the journal and the second place may be behind: what held her is no file's any more.
            Ok(()) => erased += 1,
            Err(failed @ GalleryError::NotErased { .. }) => {
                left += 1;
                let told = failed.to_string();
                assert!(told.starts_with("ann is removed") && told.contains("still on the disk"), "call {call}: {told}");
                assert!(gallery.snapshot().person(&id("ann")).is_none(), "call {call}");
                assert!(gallery.latched().is_some(), "call {call}");
                disk.mend();
                assert!(gallery.compact_if_due().unwrap());
            }
            Err(_) => assert!(gallery.snapshot().person(&id("ann")).is_some(), "call {call}"),
        }
    }
    assert!(erased > 0 && left > 0, "{erased}, {left}");
    assert!(matches!(error(gallery.erase(&id("ann"))), GalleryError::NoSuchPerson { .. }));
}

/// The second place fails at the very change: a removal brings it along with the file that it has written anew anyway, whatever else is
/// told that the change is made and its epoch is not.
#[test]
fn a_change_whose_epoch_cannot_be_written_is_told_as_made_and_unwitnessed() {
    let (start, key) = small();
    type Act = fn(&Gallery) -> Result<(), GalleryError>;
    let acts: [(&str, Act); 4] = [
        ("set", |g| g.set(Person { name: Some("Ann".into()), ..person("ann") })),
        ("rekey", |g| g.rekey(None, true)),
        ("restore", |g| g.restore(vec![(person("cyd"), vec![template(7)])], true)),
        ("purge", |g| g.purge(Wall(i64::MAX)).map(|purged| assert_eq!(purged, [id("bob")]))),
    ];
    let expiring = start.reopened();
    on(&expiring, &key).unwrap().set(Person { expires_at: Some(Wall(5)), ..person("bob") }).unwrap();
    for (name, act) in acts {
        let disk = expiring.reopened();
        disk.refuse(EPOCH);
        let gallery = on(&disk, &key).unwrap();
        let before = plain(&gallery.snapshot());
        let done = act(&gallery);
        match name {
            // The daemon's own doing: what is wrong is told by the latch.
            "purge" => done.unwrap(),
            _ => {
                let told = error(done).to_string();
                assert!(told.contains("made and lasts") && told.contains("epoch"), "{name}: {told}");
            }
        }
        assert!(gallery.latched().is_some(), "{name}");
        assert!(name == "rekey" || !alike(&plain(&gallery.snapshot()), &before), "{name}: it is not matched by");
        let after = disk.reopened();
        assert!(alike(&plain(&on(&after, &key).unwrap().snapshot()), &plain(&gallery.snapshot())), "{name}: it does not last");
    }
    for (call, fault) in (2..4).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
        let disk = start.reopened();
        let gallery = on(&disk, &key).unwrap();
        disk.fail(disk.calls() + call, fault);
        gallery.erase(&id("ann")).unwrap();
        assert!(gallery.latched().is_none(), "call {call}, {fault:?}");
        let reopened = on(&disk.reopened(), &key).unwrap();
        assert!(reopened.rollback().is_none() && reopened.snapshot().len() == 1, "call {call}, {fault:?}");
    }
}

/// Neither as the network gives it nor as the index keeps it: in the file, the journal, what a failed write left, and on the bare disk.
#[test]
fn no_file_ever_holds_a_template_in_the_clear() {
    /// No such run of a template's bytes comes about by chance.
    const RUN: usize = 24;
    for dimension in [128, 512] {
        let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
        let settings = settings(Path::new("/simulated"));
        let open = || Gallery::open_on(Arc::new(disk.clone()), &settings, &key, (&model(), dimension), true, None).unwrap();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let mut forms = Vec::new();
        let mut note = |gallery: &Gallery| {
            let snapshot = gallery.snapshot();
            forms.extend((0..snapshot.len()).map(|index| bytes(&snapshot.entry(index).2.collect::<Vec<f32>>())));
            forms.push(bytes(&snapshot.turned(&template_of(1, dimension))));
        };
        let gallery = open();
        gallery.enroll(person("ann"), vec![template_of(1, dimension)]).unwrap();
        gallery.enroll(person("bob"), vec![template_of(2, dimension)]).unwrap();
        note(&gallery);
        gallery.compact().unwrap();
        gallery.rekey(None, true).unwrap();
        note(&gallery);
        gallery.enroll(person("cyd"), vec![template_of(3, dimension)]).unwrap();
        disk.fail(disk.calls() + 1, Fault::Full);
        assert!(gallery.compact().is_err() && gallery.compact_if_due().unwrap());
        gallery.erase(&id("bob")).unwrap();
        note(&gallery);
        forms.extend((1..4).map(|seed| bytes(template_of(seed, dimension).values())));
        let runs: std::collections::BTreeSet<&[u8]> = forms.iter().flat_map(|form| form.chunks_exact(RUN)).collect();
        assert!(runs.len() > 8 * dimension / 6, "{} runs", runs.len());
        for file in disk.remains() {
            let found = file.windows(RUN).any(|window| runs.contains(window));
            assert!(!found, "{dimension}-D: a template's bytes lie in a file of {} bytes", file.len());
        }
        // The search finds what is there.
        let known = [vec![7; 5], forms[0].clone()].concat();
        assert!(known.windows(RUN).any(|window| runs.contains(window)));
    }
}

#[test]
fn people_whose_time_has_run_out_are_purged_and_named() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    gallery.set(Person { expires_at: Some(Wall(5_000)), ..person("ann") }).unwrap();
    assert!(gallery.purge(Wall(4_999)).unwrap().is_empty());
    assert_eq!(gallery.purge(Wall(5_000)).unwrap(), [id("ann")]);
    assert!(gallery.snapshot().person(&id("ann")).is_none() && gallery.compact_if_due().unwrap());
}

#[test]
fn a_state_that_was_put_back_grants_nothing_until_somebody_accepts_it() {
    let (disk, key) = small();
    let before = disk.files();
    on(&disk, &key).unwrap().remove(&id("ann")).unwrap();
    let mut mixed = disk.files();
    mixed.insert(JOURNAL.to_owned(), before[JOURNAL].clone());
    let disk = with_files(&mixed);
    let gallery = on(&disk, &key).unwrap();
    let rollback = gallery.rollback().unwrap();
    assert_eq!((rollback.found, rollback.expected), (3, Some(4)), "{rollback}");
    assert!(gallery.trusted().is_none() && gallery.snapshot().person(&id("ann")).is_some());
    assert!(matches!(error(gallery.compact()), GalleryError::RolledBack { .. }));
    assert!(matches!(error(gallery.rekey(None, true)), GalleryError::RolledBack { .. }));
    drop(gallery);
    let gallery = on(&disk, &key).unwrap();
    assert!(gallery.rollback().is_some(), "a restart is no acceptance");
    gallery.accept_rollback().unwrap();
    assert!(gallery.trusted().is_some());
    gallery.remove(&id("ann")).unwrap();
    let reopened = on(&disk.reopened(), &key).unwrap();
    assert!(reopened.rollback().is_none() && reopened.snapshot().generation() > 4);
    // The state from before the acceptance does not come back unnoticed either.
    let mut again = disk.files();
    again.extend(mixed);
    again.insert(EPOCH.to_owned(), disk.files()[EPOCH].clone());
    assert!(on(&with_files(&again), &key).unwrap().rollback().is_some());
}

#[test]
fn a_gallery_that_is_gone_and_a_second_place_that_is_gone_are_noticed() {
    let (disk, key) = small();
    let mut files = disk.files();
    files.remove(FILE);
    files.remove(JOURNAL);
    let emptied = with_files(&files);
    let gallery = on(&emptied, &key).unwrap();
    assert_eq!(gallery.rollback().unwrap().expected, Some(3));
    drop(gallery);
    let gallery = on(&emptied, &key).unwrap();
    assert!(gallery.rollback().is_some() && gallery.snapshot().is_empty());
    gallery.accept_rollback().unwrap();
    gallery.enroll(person("eve"), vec![template(5)]).unwrap();
    assert!(on(&emptied.reopened(), &key).unwrap().rollback().is_none());

    let mut files = disk.files();
    files.remove(EPOCH);
    let unwitnessed = with_files(&files);
    assert_eq!(on(&unwitnessed, &key).unwrap().rollback().unwrap().expected, None);
    on(&unwitnessed, &key).unwrap().accept_rollback().unwrap();
    let gallery = on(&unwitnessed, &key).unwrap();
    assert!(gallery.rollback().is_none() && gallery.snapshot().len() == 2);
}

/// How far a score may lie from the plain one: templates are kept in 16 bits a number. The rotation itself keeps it to 1e-5, as its own
/// tests show.
const KEPT: f32 = 1e-4;

#[test]
fn a_rotation_keeps_every_score_and_changes_every_stored_number() {
    for dimension in [128, 512] {
        let key = SealingKey::generate().unwrap();
        let disk = Simulated::default();
        let settings = settings(Path::new("/simulated"));
        let gallery = Gallery::open_on(Arc::new(disk.clone()), &settings, &key, (&model(), dimension), true, None).unwrap();
        for n in 0..5 {
            gallery.enroll(person(&format!("p{n}")), vec![template_of(n, dimension)]).unwrap();
        }
        let probe = template_of(99, dimension);
        let scores = |gallery: &Gallery| -> Vec<(PersonId, f32)> {
            let found = gallery.snapshot().search(&probe, 9).unwrap();
            found.into_iter().map(|c| (c.person, c.score.value())).collect()
        };
        let plainly: Vec<f32> = (0..5).map(|n| template_of(n, dimension).compare(&probe).unwrap().value()).collect();
        let before = scores(&gallery);
        for (person, score) in &before {
            let n: usize = person.as_str()[1..].parse().unwrap();
            assert!((score - plainly[n]).abs() < KEPT, "{dimension}-D: {score} for {}", plainly[n]);
        }
        let (stored, state) = (content(&gallery.snapshot()), plain(&gallery.snapshot()));
        gallery.rekey(None, true).unwrap();
        let renewed = content(&gallery.snapshot());
        let shared = stored.iter().zip(&renewed).flat_map(|(a, b)| a.1.iter().zip(&b.1)).filter(|(a, b)| a == b).count();
        assert!(shared < 5, "{dimension}-D: {shared} numbers are as before");
        assert!(alike(&plain(&gallery.snapshot()), &state));
        for (a, b) in before.iter().zip(scores(&gallery)) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < KEPT, "{dimension}-D");
        }
        let reopened = Gallery::open_on(Arc::new(disk.reopened()), &settings, &key, (&model(), dimension), true, None).unwrap();
        assert!(content(&reopened.snapshot()) == renewed && reopened.rollback().is_none());
    }
}

#[test]
fn a_gallery_under_a_new_sealing_key_opens_under_that_and_no_longer_under_the_old_one() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let state = content(&gallery.snapshot());
    let new = SealingKey::generate().unwrap();
    gallery.rekey(Some(&new), false).unwrap();
    gallery.enroll(person("eve"), vec![template(5)]).unwrap();
    gallery.remove(&id("eve")).unwrap();
    drop(gallery);
    assert!(matches!(error(on(&disk.reopened(), &key)), GalleryError::WrongKey { .. }));
    let reopened = on(&disk.reopened(), &new).unwrap();
    assert!(reopened.rollback().is_none() && content(&reopened.snapshot()) == state);
}

#[test]
fn a_power_cut_during_a_change_of_the_key_leaves_one_key_that_opens_it_without_an_alarm() {
    let (start, key) = small();
    let rehearsal = start.reopened();
    let gallery = on(&rehearsal, &key).unwrap();
    let from = rehearsal.calls();
    gallery.rekey(Some(&SealingKey::generate().unwrap()), true).unwrap();
    for call in from..=rehearsal.calls() {
        for tear in 0..40 {
            let (disk, new) = (start.reopened(), SealingKey::generate().unwrap());
            let gallery = on(&disk, &key).unwrap();
            disk.cut(call);
            let done = gallery.rekey(Some(&new), true).is_ok();
            let after = disk.after_power_cut(tear);
            let (old, new) = (on(&after.reopened(), &key), on(&after.reopened(), &new));
            assert!(old.is_ok() != new.is_ok() && (!done || new.is_ok()), "call {call}, tear {tear}");
            let opened = old.or(new).unwrap();
            assert!(opened.rollback().is_none() && opened.snapshot().len() == 2, "call {call}, tear {tear}");
        }
    }
}

#[test]
fn a_follower_sees_what_is_appended_written_anew_and_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("gallery");
    let key = SealingKey::generate().unwrap();
    let writer = open_at(&dir, &key).unwrap();
    let follower = Gallery::follow(&settings(&dir), key.share(), &model(), DIMENSION.get()).unwrap();
    assert!(!follower.refresh().unwrap());
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let aside = folder.path().join("aside");
    for n in 0..4 {
        writer.enroll(person(&format!("p{n}")), vec![template(n)]).unwrap();
        if n == 2 {
            writer.compact().unwrap();
        }
        assert!(follower.refresh().unwrap(), "step {n}");
        assert!(content(&follower.snapshot()) == content(&writer.snapshot()), "step {n}");
        assert_eq!(follower.snapshot().generation(), writer.snapshot().generation());
        if n == 0 {
            copy(&dir, &aside);
        }
    }
    writer.remove(&id("p0")).unwrap();
    assert!(follower.refresh().unwrap() && follower.trusted().is_some());
    drop(writer);
    std::fs::remove_dir_all(&dir).unwrap();
    copy(&aside, &dir);
    let _ = follower.refresh().unwrap();
    assert!(follower.rollback().is_some() && follower.trusted().is_none());
    assert!(follower.snapshot().person(&id("p0")).is_none(), "who was removed is matched again");
}

#[test]
fn a_gallery_of_version_1_becomes_one_of_version_2_whatever_moment_the_power_goes() {
    let (v1, key) = vectors::first_version();
    let (v1, whole) = (with_files([(&FILE.to_owned(), &v1)]), Simulated::default());
    whole.put(FILE, &v1.files()[FILE]);
    let gallery = on(&whole, &key).unwrap();
    let state = plain(&gallery.snapshot());
    assert_eq!((state.len(), whole.files()[FILE][15]), (2, b'2'));
    for call in 0..=whole.calls() {
        for tear in 0..30 {
            let disk = v1.reopened();
            disk.cut(call);
            let _ = on(&disk, &key);
            let after = disk.after_power_cut(tear);
            let gallery = on(&after, &key).unwrap();
            assert!(gallery.rollback().is_none() && alike(&plain(&gallery.snapshot()), &state), "call {call}, tear {tear}");
        }
    }
}

/// What `birth` tells of a state's age, as a start hears it: the gallery, the last change, and which file and tag it has.
#[test]
fn who_remembers_a_states_tag_sees_it_put_back_even_when_as_much_was_changed_since() {
    let (disk, key) = small();
    let past = disk.files();
    let gallery = on(&disk, &key).unwrap();
    gallery.remove(&id("ann")).unwrap();
    let said = gallery.age().unwrap();
    drop(gallery);
    let heard = |disk: &Simulated, said: &Age| {
        let gallery = on(disk, &key).unwrap();
        gallery.hear(said);
        let reason = gallery.rollback().map(|rollback| rollback.reason);
        if reason.is_some() {
            assert!(gallery.trusted().is_none());
            gallery.accept_rollback().unwrap();
            let age = gallery.age().unwrap();
            assert!(age.epoch > said.epoch && age.file.unwrap().0 > said.file.as_ref().map_or(0, |file| file.0));
        }
        reason
    };
    assert_eq!(heard(&disk.reopened(), &said), None, "the very state");
    let later = disk.reopened();
    on(&later, &key).unwrap().enroll(person("eve"), vec![template(5)]).unwrap();
    assert_eq!(heard(&later.reopened(), &said), None, "a later one that went on from it");
    on(&later, &key).unwrap().compact().unwrap();
    assert_eq!(heard(&later.reopened(), &said), None, "one that was written anew since");
    // Everything put back together, and then as many changes as there had been.
    let back = with_files(&past);
    assert!(heard(&back, &said).unwrap().contains("a later change"));
    let back = with_files(&past);
    let gallery = on(&back, &key).unwrap();
    gallery.set(Person { name: Some("Ann".into()), ..person("ann") }).unwrap();
    assert_eq!(gallery.age().unwrap().epoch, said.epoch);
    drop(gallery);
    assert!(heard(&back, &said).unwrap().contains("not the state"), "another way to the same number");
    let back = with_files(&past);
    let gallery = on(&back, &key).unwrap();
    (0..3).for_each(|n| drop(gallery.enroll(person("eve"), vec![template(n)]).unwrap()));
    drop(gallery);
    assert!(heard(&back, &said).unwrap().contains("not the state"), "another way beyond it");
    // Told by an older program: the number alone counts.
    let back = with_files(&past);
    on(&back, &key).unwrap().set(Person { name: Some("Ann".into()), ..person("ann") }).unwrap();
    assert_eq!(heard(&back, &Age { file: None, ..said.clone() }), None);
    // A later file than the one that is here.
    let gallery = on(&disk, &key).unwrap();
    gallery.compact().unwrap();
    let said = gallery.age().unwrap();
    drop(gallery);
    let back = with_files(&past);
    on(&back, &key).unwrap().remove(&id("bob")).unwrap();
    assert!(heard(&back, &said).unwrap().contains("a later file"));
    let foreign = Age { gallery: "00".repeat(16), epoch: 99, ..said };
    assert_eq!(heard(&disk.reopened(), &foreign), None, "another gallery's");
}

/// A counter as a TPM has one: it goes up and never down.
struct Up(Arc<Mutex<u64>>);

impl Counter for Up {
    fn value(&self) -> std::io::Result<u64> {
        Ok(*self.0.lock().unwrap())
    }

    fn raise(&mut self, to: u64) -> std::io::Result<()> {
        let mut value = self.0.lock().unwrap();
        assert!(to > *value);
        *value = to;
        Ok(())
    }
}

#[test]
fn a_counter_that_cannot_go_back_sees_everything_put_back_together() {
    let (disk, key) = small();
    let counted = Arc::new(Mutex::new(0));
    let open = |disk: &Simulated| {
        let gallery = on(disk, &key).unwrap();
        gallery.attach_counter(Box::new(Up(counted.clone()))).unwrap();
        gallery
    };
    let gallery = open(&disk);
    let past = disk.files();
    gallery.remove(&id("ann")).unwrap();
    gallery.compact().unwrap();
    drop(gallery);
    assert!(open(&disk.reopened()).rollback().is_none());
    let disk = with_files(&past);
    assert!(on(&disk, &key).unwrap().rollback().is_none(), "without the counter nothing knows better");
    let gallery = open(&disk);
    assert!(gallery.trusted().is_none() && matches!(error(gallery.compact()), GalleryError::RolledBack { .. }));
    gallery.accept_rollback().unwrap();
    drop(gallery);
    assert!(open(&disk.reopened()).rollback().is_none());
}
