//! Backups and what comes of putting them back: what is refused first, then what holds.

use super::super::backup::{Backup, BackupError};
use super::super::seal::age::{AgeError, Identity, Lock, Unlock};
use super::*;

/// Anything: what a signature is worth is not this room's to know.
const SIGNATURE: &str = "a.b.c";

fn made(gallery: &Gallery, folder: &Path) -> (Vec<u8>, impl Fn() -> Unlock + use<>) {
    let identity = Identity::generate().unwrap();
    let path = folder.join("backup.age");
    let state = Path::new("/simulated");
    let lock = Lock::Recipients(vec![identity.recipient()]);
    gallery.back_up(&path, &lock, Wall(5), (&[state], true), Some(&|_| SIGNATURE.to_owned())).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "something unfinished is left");
    let text = identity.to_text();
    (std::fs::read(path).unwrap(), move || Unlock::Identities(Identity::all_of(&text).unwrap()))
}

#[test]
fn a_backup_that_does_not_open_changes_nothing() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, unlock) = made(&gallery, folder.path());
    for at in (0..file.len()).step_by(7) {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert!(Backup::open(&bad[..], &unlock()).is_err() && Backup::open(&file[..at], &unlock()).is_err(), "byte {at}");
    }
    let short = Lock::Passphrase("too short".to_owned().into());
    let refused = gallery.back_up(&folder.path().join("b"), &short, Wall(0), (&[], false), None);
    assert!(matches!(refused, Err(BackupError::ShortPassphrase { found: 9 })));
    let stranger = Unlock::Identities(vec![Identity::generate().unwrap()]);
    assert!(matches!(Backup::open(&file[..], &stranger), Err(BackupError::Sealed(AgeError::WrongIdentity))));
}

#[test]
fn what_was_backed_up_comes_back_on_another_device_under_its_own_keys() {
    for dimension in [128, 512] {
        let settings = settings(Path::new("/simulated"));
        let open = |disk: &Simulated, key: &SealingKey| {
            Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), dimension), true, None).unwrap()
        };
        let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
        let gallery = open(&disk, &key);
        gallery.enroll(Person { name: Some("Ann".into()), ..person("ann") }, vec![template_of(1, dimension)]).unwrap();
        gallery.enroll(person("bob"), vec![template_of(2, dimension), template_of(3, dimension)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, unlock) = made(&gallery, folder.path());
        let backup = Backup::open(&file[..], &unlock()).ok().unwrap();
        assert_eq!((backup.counts(), backup.model()), ((2, 3), (&model(), dimension)));
        let (other, other_key) = (Simulated::default(), SealingKey::generate().unwrap());
        let restored = open(&other, &other_key);
        restored.restore(backup.into_people(), false).unwrap();
        assert!(alike(&plain(&restored.snapshot()), &plain(&gallery.snapshot())), "{dimension}-D");
        assert!(content(&restored.snapshot()) != content(&gallery.snapshot()), "the rotation of the first device came along");
        drop(restored);
        let reopened = open(&other.reopened(), &other_key);
        assert!(reopened.rollback().is_none() && reopened.snapshot().len() == 2);
        let probe = template_of(2, dimension);
        assert_eq!(reopened.snapshot().search(&probe, 1).unwrap()[0].person, id("bob"));
    }
}

#[test]
fn putting_back_an_old_backup_is_a_change_and_no_rollback_and_leaves_nothing_of_who_came_since() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, unlock) = made(&gallery, folder.path());
    let people = || Backup::open(&file[..], &unlock()).ok().unwrap().into_people();
    let before = plain(&gallery.snapshot());
    gallery.enroll(person("eve"), vec![template(9)]).unwrap();
    gallery.enroll(person("ann"), vec![template(8)]).unwrap();
    let (epoch, journal) = (gallery.snapshot().generation(), disk.files()[JOURNAL].clone());
    assert!(matches!(error(gallery.restore(people(), false)), GalleryError::NotEmpty { people: 3, .. }));
    assert_eq!(gallery.snapshot().len(), 3);
    gallery.restore(people(), true).unwrap();
    assert!(alike(&plain(&gallery.snapshot()), &before) && gallery.snapshot().generation() > epoch);
    let left: Vec<Vec<u8>> = disk.files().into_values().collect();
    let pieces = journal[journal::JOURNAL_HEADER_BYTES..].chunks_exact(24);
    assert_eq!(pieces.filter(|piece| left.iter().any(|file| file.windows(24).any(|w| w == *piece))).count(), 0);
    drop(gallery);
    assert!(on(&disk.reopened(), &key).unwrap().rollback().is_none());
    // Nobody at all is a state like any other.
    let gallery = on(&disk, &key).unwrap();
    gallery.restore(Vec::new(), true).unwrap();
    assert!(gallery.snapshot().is_empty() && !disk.files().contains_key(JOURNAL));
}

#[test]
fn a_backup_is_not_put_over_an_older_state_until_somebody_accepts_that() {
    let (disk, key) = small();
    let old = disk.files();
    let gallery = on(&disk, &key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, unlock) = made(&gallery, folder.path());
    let people = || Backup::open(&file[..], &unlock()).ok().unwrap().into_people();
    gallery.remove(&id("ann")).unwrap();
    let mut mixed = old;
    mixed.insert(EPOCH.to_owned(), disk.files()[EPOCH].clone());
    let rolled = Simulated::default();
    mixed.iter().for_each(|(name, bytes)| rolled.put(name, bytes));
    let gallery = on(&rolled, &key).unwrap();
    assert!(matches!(error(gallery.restore(people(), true)), GalleryError::RolledBack { .. }));
    gallery.accept_rollback().unwrap();
    gallery.restore(people(), true).unwrap();
    drop(gallery);
    assert!(on(&rolled.reopened(), &key).unwrap().rollback().is_none());
}

#[test]
fn a_power_cut_while_a_backup_is_put_back_leaves_the_old_people_or_the_new_ones() {
    let (start, key) = small();
    let gallery = on(&start, &key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, unlock) = made(&gallery, folder.path());
    drop(gallery);
    let people = || Backup::open(&file[..], &unlock()).ok().unwrap().into_people();
    let start = start.reopened();
    let gallery = on(&start, &key).unwrap();
    gallery.enroll(person("eve"), vec![template(9)]).unwrap();
    drop(gallery);
    let rehearsal = start.reopened();
    let gallery = on(&rehearsal, &key).unwrap();
    let from = rehearsal.calls();
    gallery.restore(people(), true).unwrap();
    for call in from..=rehearsal.calls() {
        for tear in 0..20 {
            let disk = start.reopened();
            let gallery = on(&disk, &key).unwrap();
            disk.cut(call);
            let done = gallery.restore(people(), true).is_ok();
            let after = on(&disk.after_power_cut(tear), &key).unwrap();
            let found = after.snapshot().len();
            assert!(after.rollback().is_none() && (found == 2 || (found == 3 && !done)), "call {call}, tear {tear}: {found}");
        }
    }
}

/// Each call of both acts fails in each way, once and for good: the old people or the new ones, and never an alarm.
#[test]
fn a_failure_while_a_backup_is_put_back_or_an_older_state_accepted_leaves_the_old_state_or_the_new_one() {
    let (start, key) = small();
    let gallery = on(&start, &key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, unlock) = made(&gallery, folder.path());
    drop(gallery);
    let people = || Backup::open(&file[..], &unlock()).ok().unwrap().into_people();
    let ahead = start.reopened();
    on(&ahead, &key).unwrap().enroll(person("eve"), vec![template(9)]).unwrap();
    let mut mixed = start.files();
    mixed.insert(EPOCH.to_owned(), ahead.files()[EPOCH].clone());
    let rolled = with_files(&mixed);
    let restore = |gallery: &Gallery| gallery.restore(people(), true);
    type ActOn<'a> = &'a dyn Fn(&Gallery) -> Result<(), GalleryError>;
    let cases: [(&Simulated, ActOn<'_>, [usize; 2]); 2] =
        [(&ahead, &restore, [3, 2]), (&rolled, &|gallery| gallery.accept_rollback(), [2, 2])];
    for (start, act, [old, new]) in cases {
        let rehearsal = start.reopened();
        let gallery = on(&rehearsal, &key).unwrap();
        let from = rehearsal.calls();
        act(&gallery).unwrap();
        let calls = from..rehearsal.calls();
        for (call, fault, goes_on) in
            calls.flat_map(|call| Fault::ALL.map(|fault| [(call, fault, false), (call, fault, true)])).flatten()
        {
            let told = || format!("call {call}, {fault:?}, for good: {goes_on}");
            let disk = start.reopened();
            let gallery = on(&disk, &key).unwrap();
            let was_rolled = gallery.rollback().is_some();
            if goes_on {
                disk.fail_from(call, fault)
            } else {
                disk.fail(call, fault)
            }
            let done = is_made(&act(&gallery));
            assert_eq!(gallery.snapshot().len(), if done { new } else { old }, "{}", told());
            assert_eq!(gallery.trusted().is_some(), done || !was_rolled, "{}", told());
            disk.mend();
            let reopened = on(&disk.reopened(), &key).unwrap();
            let found = reopened.snapshot().len();
            assert!(found == new || (!done && found == old), "{}: {found}", told());
            assert!(reopened.rollback().is_none() || was_rolled, "{}: a false alarm", told());
            drop(reopened);
            // Tried again once the disk is mended.
            if !done {
                let _ = gallery.compact_if_due();
                act(&gallery).unwrap();
            }
            assert!(gallery.compact_if_due().is_ok() && gallery.latched().is_none(), "{}", told());
            let reopened = on(&disk.reopened(), &key).unwrap();
            assert!(reopened.rollback().is_none() && reopened.snapshot().len() == new, "{}", told());
        }
    }
}

/// Whoever puts a backup back is told who would be somebody else afterwards, not only who comes and goes.
#[test]
fn what_a_backup_would_change_is_told() {
    at_each_dimension(|| {
        let (disk, key) = small();
        let gallery = on(&disk, &key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, unlock) = made(&gallery, folder.path());
        let backup = || Backup::open(&file[..], &unlock()).ok().unwrap();
        assert_eq!(backup().signature(), Some(SIGNATURE));
        assert_eq!(backup().against(&gallery.snapshot()), Difference::default());
        // Made of the very templates, sealed anew under another rotation: nobody is another.
        gallery.rekey(None, true).unwrap();
        assert_eq!(backup().against(&gallery.snapshot()), Difference::default());
        gallery.enroll(person("eve"), vec![template(9)]).unwrap();
        gallery.remove(&id("ann")).unwrap();
        gallery.enroll(person("ann"), vec![template(1), template(8)]).unwrap();
        gallery.enroll(person("bob"), vec![template(7)]).unwrap();
        let told = |back: &[&str], other: &[&str], gone: &[&str]| {
            let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect();
            Difference { back: ids(back), other_templates: ids(other), gone: ids(gone) }
        };
        assert_eq!(backup().against(&gallery.snapshot()), told(&[], &["ann", "bob"], &["eve"]));
        gallery.remove(&id("ann")).unwrap();
        assert_eq!(backup().against(&gallery.snapshot()), told(&["ann"], &["bob"], &["eve"]));
        gallery.remove(&id("bob")).unwrap();
        assert_eq!(backup().against(&gallery.snapshot()), told(&["ann", "bob"], &[], &["eve"]));
        // What is told on part after part is the same backup.
        let told_on: Vec<u8> = backup().text().flat_map(|part| part.to_vec()).collect();
        let again = Backup::read(&mut &told_on[..]).ok().unwrap();
        assert!(again.digest() == backup().digest() && again.signature() == Some(SIGNATURE));
    });
}

#[test]
fn a_backup_of_another_model_is_refused() {
    let (disk, key) = small();
    let gallery = on(&disk, &key).unwrap();
    let other = Embedding::normalised(ModelId::new("other").unwrap(), vec![1.0, 0.0, 0.0, 0.0]).unwrap();
    let refused = gallery.restore(vec![(person("eve"), vec![other])], true);
    assert!(matches!(error(refused), GalleryError::ForeignProbe { .. }) && gallery.snapshot().len() == 2);
}
