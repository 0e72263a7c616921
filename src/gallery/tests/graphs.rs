//! The sealed copy of the graph: when it is not used, when it is not kept, and that it serves otherwise.

use super::super::index::Shortlist;
use super::super::store::{GRAPH, GRAPH_UNFINISHED};
use super::*;
use crate::system::stop;

const DIMENSION: usize = 128;
const PEOPLE: u64 = 300;

fn open(disk: &Simulated, key: &SealingKey) -> Gallery {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Box::new(disk.clone()), &settings, key, (&model(), DIMENSION), true, None).unwrap()
}

/// Many people in a file, served by a graph that lies beside it.
fn kept() -> (Simulated, SealingKey, Gallery) {
    let (disk, key) = (Simulated::default(), SealingKey::generate().unwrap());
    let gallery = open(&disk, &key);
    gallery.enroll_many((0..PEOPLE).map(|n| (person(&format!("p{n:03}")), vec![template_of(n, DIMENSION)])).collect()).unwrap();
    gallery.compact().unwrap();
    serve(&gallery);
    assert!(keep(&gallery, 0).unwrap() && disk.files().contains_key(GRAPH));
    assert!(!disk.files().contains_key(GRAPH_UNFINISHED));
    (disk, key, gallery)
}

fn serve(gallery: &Gallery) {
    let (_handle, ear) = stop::pair();
    let snapshot = gallery.snapshot();
    snapshot.serve_by(Shortlist::build(snapshot.matrix(), 1, &ear).map(Arc::new));
}

/// Keeps what serves.
fn keep(gallery: &Gallery, removals: u64) -> Result<bool, GalleryError> {
    gallery.keep_graph(&gallery.snapshot().shortlist().unwrap(), removals)
}

fn is_used(gallery: &Gallery) -> bool {
    gallery.kept_shortlist(&gallery.snapshot()).is_some()
}

#[test]
fn a_copy_that_is_damaged_cut_or_of_another_file_is_not_used_and_is_no_error() {
    let (disk, key, gallery) = kept();
    drop(gallery);
    let good = disk.files()[GRAPH].clone();
    for at in (0..good.len()).step_by(good.len() / 50) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        for bytes in [&bad[..], &good[..at]] {
            let disk = disk.reopened();
            disk.put(GRAPH, bytes);
            let gallery = open(&disk, &key);
            assert!(!is_used(&gallery) && gallery.rollback().is_none() && gallery.snapshot().len() == 300, "byte {at}");
        }
    }
    let again = disk.reopened();
    open(&again, &key).compact().unwrap();
    assert!(!again.files().contains_key(GRAPH), "an old copy is left");
    again.put(GRAPH, &good);
    let gallery = open(&again.reopened(), &key);
    assert!(!is_used(&gallery));
    let reopened = again.reopened();
    drop(open(&reopened, &key));
    assert!(!reopened.files().contains_key(GRAPH), "a copy of another file stays");
}

#[test]
fn after_a_removal_nothing_of_the_graph_is_left_and_no_graph_that_knew_the_person_is_kept() {
    let (disk, key, gallery) = kept();
    let sealed = disk.files()[GRAPH].clone();
    let before = gallery.removals();
    gallery.remove(&id("p007")).unwrap();
    assert!(!keep(&gallery, gallery.removals()).unwrap(), "while the removed templates are on the disk still");
    gallery.compact_if_due().unwrap();
    assert!(!keep(&gallery, before).unwrap() && !disk.files().contains_key(GRAPH));
    let left: Vec<Vec<u8>> = disk.files().into_values().collect();
    for piece in sealed[64..].chunks_exact(24).step_by(97) {
        assert!(!left.iter().any(|file| file.windows(24).any(|window| window == piece)));
    }
    serve(&gallery);
    assert!(keep(&gallery, gallery.removals()).unwrap());
    drop(gallery);
    assert!(is_used(&open(&disk.reopened(), &key)));
}

#[test]
fn a_removal_while_a_copy_is_written_ends_it() {
    let (disk, _key, gallery) = kept();
    let keeping = gallery.writer().unwrap().store.begin_keeping(0).unwrap().unwrap();
    assert!(disk.files().contains_key(GRAPH_UNFINISHED));
    gallery.remove(&id("p007")).unwrap();
    assert!(gallery.writer().unwrap().store.keep_part(keeping, &mut [0; 9], true).unwrap().is_none());
    assert!(!disk.files().contains_key(GRAPH_UNFINISHED));
}

#[test]
fn a_disk_that_fails_or_loses_power_while_a_copy_is_written_costs_the_copy_alone() {
    let (disk, key, gallery) = kept();
    let graph = gallery.graph_bytes().unwrap();
    drop(gallery);
    for call in 0.. {
        let failing = disk.reopened();
        let gallery = open(&failing, &key);
        gallery.serve_kept_graph(&graph).unwrap();
        let from = failing.calls();
        failing.fail(from + call, Fault::ALL[call % Fault::ALL.len()]);
        if keep(&gallery, 0).is_ok() {
            assert!(call > 3, "nothing failed");
            break;
        }
        gallery.enroll(person("new"), vec![template_of(9_000, DIMENSION)]).unwrap();
        drop(gallery);
        let cut = failing.after_power_cut(call as u64);
        let gallery = open(&cut, &key);
        assert!(gallery.rollback().is_none() && gallery.snapshot().len() == 301, "call {call}");
    }
}

#[test]
fn a_copy_serves_again_with_what_changed_since() {
    let (disk, key, gallery) = kept();
    gallery.enroll(person("new"), vec![template_of(7_000, DIMENSION)]).unwrap();
    drop(gallery);
    let disk = disk.reopened();
    let gallery = open(&disk, &key);
    let plain: Vec<u8> = {
        serve(&gallery);
        gallery.graph_bytes().unwrap().to_vec()
    };
    let sealed = disk.files()[GRAPH].clone();
    assert!(
        plain.chunks_exact(24).step_by(11).all(|piece| !sealed.windows(24).any(|window| window == piece)),
        "it lies there plain"
    );
    let snapshot = gallery.snapshot();
    snapshot.serve_by(gallery.kept_shortlist(&snapshot).map(Arc::new));
    assert!(snapshot.shortlist().is_some(), "the copy is not used");
    for (who, seed) in [("p004", 4), ("p299", 299), ("new", 7_000)] {
        assert_eq!(snapshot.search(&template_of(seed, DIMENSION), 1).unwrap()[0].person, id(who));
    }
}
