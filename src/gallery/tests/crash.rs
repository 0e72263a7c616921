//! Power cuts: after one at any moment of any sequence of operations the gallery opens and is what it was before the operation that was
//! under way, or what it was to become; and nothing that was reported as done is lost. Seeds are told.

use super::*;

/// Cut points that are tried.
const CUTS: u64 = 10_000;
/// Cut points of one sequence of operations.
const CUTS_A_SEQUENCE: u64 = 20;
const OPERATIONS: usize = 9;

type State = Vec<(Person, Vec<f32>)>;

fn open(disk: &Simulated, key: &SealingKey, dimension: usize) -> Result<Gallery, GalleryError> {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), dimension), true, None)
}

/// What one sequence does: the same for the same seed.
fn act(gallery: &Gallery, random: &mut fastrand::Rng, dimension: usize) -> Result<(), GalleryError> {
    let who = |random: &mut fastrand::Rng| ["ann", "bob", "cyd", "dan"][random.usize(..4)];
    let drawn = |random: &mut fastrand::Rng| template_of(random.u64(1..1000), dimension);
    let harmless = |outcome: Result<(), GalleryError>| match outcome {
        Err(GalleryError::NoSuchPerson { .. } | GalleryError::TooManyTemplates { .. }) => Ok(()),
        other => other,
    };
    match random.u8(..12) {
        0..=3 => harmless(gallery.enroll(person(who(random)), vec![drawn(random)]).map(|_| ())),
        4 => {
            let batch = ["ann", "eve"].map(|name| (person(name), vec![drawn(random)]));
            harmless(gallery.enroll_many(batch.to_vec()))
        }
        5 => harmless(gallery.set(Person { name: Some(format!("N{}", random.u8(..))), ..person(who(random)) })),
        6..=8 => harmless(gallery.remove(&id(who(random)))),
        9 => gallery.compact_if_due().map(|_| ()),
        10 => gallery.compact(),
        _ => gallery.rekey(None, random.bool()),
    }
}

/// Runs one sequence until it ends or the power goes. Gives the state after each operation that was reported as done, the first
/// being the empty gallery, and how many calls it took.
fn run(disk: &Simulated, key: &SealingKey, seed: u64, dimension: usize) -> (Vec<State>, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut states = vec![Vec::new()];
    let Ok(mut gallery) = open(disk, key, dimension) else { return (states, false) };
    for _ in 0..OPERATIONS {
        if random.u8(..5) == 0 {
            // Another process, which begins a session of its own.
            drop(gallery);
            let Ok(reopened) = open(disk, key, dimension) else { return (states, false) };
            gallery = reopened;
        }
        if act(&gallery, &mut random, dimension).is_err() {
            return (states, false);
        }
        states.push(plain(&gallery.snapshot()));
    }
    (states, true)
}

#[test]
fn after_a_power_cut_anywhere_the_gallery_is_the_old_or_the_new_one() {
    for sequence in 0..CUTS / CUTS_A_SEQUENCE {
        let dimension = if sequence % 2 == 0 { 128 } else { 512 };
        let key = SealingKey::generate().unwrap();
        let whole = Simulated::default();
        let (all, done) = run(&whole, &key, sequence, dimension);
        assert!(done, "sequence {sequence}");
        let mut random = fastrand::Rng::with_seed(sequence ^ 0xc07);
        for _ in 0..CUTS_A_SEQUENCE {
            let (cut, tear) = (random.usize(..=whole.calls()), random.u64(..));
            let told = || format!("sequence {sequence}, {dimension}-D, cut at call {cut}, tear {tear}");
            let disk = Simulated::default();
            disk.cut(cut);
            let (states, _) = run(&disk, &key, sequence, dimension);
            let after = disk.after_power_cut(tear);
            let gallery = open(&after, &key, dimension).unwrap_or_else(|error| panic!("{}: {error}", told()));
            assert_eq!(gallery.rollback(), None, "{}: a false alarm", told());
            let found = plain(&gallery.snapshot());
            let (acknowledged, pending) = (states.len() - 1, states.len().min(all.len() - 1));
            let fits = alike(&found, &all[acknowledged]) || alike(&found, &all[pending]);
            assert!(fits, "{}: neither old nor new after {acknowledged} operations", told());
            assert!(!after.files().contains_key(UNFINISHED), "{}", told());
            // And it takes changes, durably.
            gallery.enroll(person("zoe"), vec![template_of(1, dimension)]).unwrap();
            let expected = plain(&gallery.snapshot());
            let again = open(&after.after_power_cut(tear + 1), &key, dimension).unwrap();
            assert!(alike(&plain(&again.snapshot()), &expected) && again.rollback().is_none(), "{}", told());
        }
    }
}

/// Every call of random sequences fails in every way: an error, or the whole change; and always a gallery that opens.
#[test]
fn after_a_failure_anywhere_the_gallery_is_the_old_or_the_new_one() {
    for sequence in 0..12 {
        let dimension = if sequence % 2 == 0 { 128 } else { 512 };
        let key = SealingKey::generate().unwrap();
        let whole = Simulated::default();
        let (all, done) = run(&whole, &key, sequence, dimension);
        assert!(done, "sequence {sequence}");
        for (call, fault) in (0..whole.calls()).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
            let disk = Simulated::default();
            disk.fail(call, fault);
            let (states, _) = run(&disk, &key, sequence, dimension);
            let gallery = open(&disk.reopened(), &key, dimension).unwrap();
            let found = plain(&gallery.snapshot());
            let (old, new) = (states.len() - 1, states.len().min(all.len() - 1));
            let told = || format!("sequence {sequence}, call {call}, {fault:?}");
            assert!(alike(&found, &all[old]) || alike(&found, &all[new]), "{}", told());
            assert_eq!(gallery.rollback(), None, "{}", told());
        }
    }
}
