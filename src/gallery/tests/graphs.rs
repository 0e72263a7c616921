//! The sealed copy of the graph: when it is not used, when it is not kept, and that it serves otherwise.

use super::super::index::Shortlist;
use super::super::seal::graph::GRAPH_HEADER_BYTES;
use super::super::store::{GRAPH, GRAPH_UNFINISHED};
use super::super::tune::Bar;
use super::*;
use crate::system::stop;

const DIMENSION: usize = 128;
const PEOPLE: u64 = 300;

fn open(disk: &Simulated, key: &SealingKey) -> Gallery {
    let settings = settings(Path::new("/simulated"));
    Gallery::open_on(Arc::new(disk.clone()), &settings, key, (&model(), DIMENSION), true, None).unwrap()
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

/// Takes whatever is tried: how fast a graph is among so few is the machine's business.
const ANY: Bar = Bar { fewest: 100, probes: 50, is_better: |_, _| true };
/// Takes no graph that was read.
const BUILT: Bar = Bar { fewest: 100, probes: 50, is_better: |trial, _| !trial.was_kept };

/// What a daemon does with the index from its start on, up to where it waits for changes. Gives what it tells.
fn keep_index(gallery: &Gallery, bar: &Bar) -> IndexReport {
    let (handle, ear) = stop::pair();
    let mut reports = Vec::new();
    // On a thread of its own: it makes itself the least urgent.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gallery.keep_index_by((IndexChoice::Hnsw, bar), &ear, |report| {
                reports.push(report.clone());
                handle.stop();
            });
        });
    });
    let [report] = &reports[..] else { panic!("{} builds", reports.len()) };
    report.clone()
}

/// Whoever is asked for is found, with the score of the exact scan.
fn assert_exact(gallery: &Gallery, people: u64, told: &str) {
    let snapshot = gallery.snapshot();
    assert_eq!(snapshot.len() as u64, people, "{told}");
    for seed in 0..people {
        let probe = template_of(seed, DIMENSION);
        let found = snapshot.search(&probe, 1).unwrap();
        assert_eq!(found, snapshot.search_exactly(&probe, 1).unwrap(), "{told}, {seed}");
        assert_eq!(found[0].person, id(&format!("p{seed:03}")), "{told}, {seed}");
    }
}

/// A start with a kept copy in whatever state: the exact scan serves at once and no start waits for the copy, the index that serves
/// then finds what the exact scan finds, and the next start has a copy that it can use.
#[test]
fn whatever_lies_in_a_kept_graphs_place_a_start_does_not_wait_for_it_and_the_next_one_has_a_good_one() {
    let (disk, key, gallery) = kept();
    drop(gallery);
    let good = disk.files()[GRAPH].clone();
    // Of the same generation of another gallery, and of an older file of this one.
    let foreign = kept().0.files()[GRAPH].clone();
    assert_eq!(foreign[..24], good[..24]);
    let rewritten = disk.reopened();
    open(&rewritten, &key).compact().unwrap();
    let outgrown = disk.reopened();
    let gallery = open(&outgrown, &key);
    (PEOPLE..PEOPLE + 10).for_each(|n| drop(gallery.enroll(person(&format!("p{n:03}")), vec![template_of(n, DIMENSION)]).unwrap()));
    drop(gallery);
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        Some(bad)
    };
    let (whole, half) = (Some(good.clone()), Some(good[..good.len() / 2].to_vec()));
    for (name, disk, file, bar, is_used) in [
        ("whole", &disk, whole.clone(), &ANY, true),
        ("missing", &disk, None, &ANY, false),
        ("empty", &disk, Some(Vec::new()), &ANY, false),
        ("another gallery's", &disk, Some(foreign), &ANY, false),
        ("an older file's", &rewritten, whole.clone(), &ANY, false),
        ("outgrown", &outgrown, whole.clone(), &ANY, false),
        ("corrupt in its header", &disk, flipped(40), &ANY, false),
        ("corrupt in its middle", &disk, flipped(good.len() / 2), &ANY, false),
        ("cut", &disk, half, &ANY, false),
        ("sound, and its graph fails the trial", &disk, whole, &BUILT, false),
    ] {
        let disk = disk.reopened();
        match &file {
            Some(bytes) => disk.put(GRAPH, bytes),
            None => disk.remove(GRAPH).unwrap(),
        }
        let gallery = open(&disk, &key);
        assert!(disk.bytes_read(GRAPH) <= GRAPH_HEADER_BYTES, "{name}: the start read it");
        let people = gallery.snapshot().len() as u64;
        assert!(gallery.snapshot().shortlist().is_none() && gallery.rollback().is_none(), "{name}");
        assert_exact(&gallery, people, name);

        let report = keep_index(&gallery, bar);
        let built = report.trials.last().unwrap();
        assert!(report.verdict == IndexVerdict::Hnsw && built.was_kept == is_used, "{name}: {report:?}");
        assert_exact(&gallery, people, name);
        drop(gallery);

        let next = disk.reopened();
        let now = next.files()[GRAPH].clone();
        assert_eq!(Some(&now) == file.as_ref(), is_used, "{name}: only a copy that served stays as it is");
        assert!(!next.files().contains_key(GRAPH_UNFINISHED), "{name}");
        let gallery = open(&next, &key);
        let report = keep_index(&gallery, &ANY);
        assert!(report.trials[0].was_kept && report.verdict == IndexVerdict::Hnsw, "{name}: {report:?}");
        assert_exact(&gallery, people, name);
        assert!(next.files()[GRAPH] == now, "{name}: what served was written again");
    }
}

/// The share of templates that a kept graph may lack is the one that FORMAT.md names.
#[test]
fn a_kept_graph_may_lack_as_many_templates_as_the_format_document_says() {
    let (before, after) = include_str!("../FORMAT.md").split_once("lacking more than one in ").unwrap();
    assert!(!before.is_empty());
    let one_in = match after.split_whitespace().next().unwrap() {
        "fifty" => 50,
        other => panic!("`{other}` is no number that this test knows"),
    };
    let (_, _, gallery) = kept();
    let mut missing = 0;
    loop {
        let templates = PEOPLE + missing;
        assert_eq!(is_used(&gallery), missing * one_in <= templates, "{missing} of {templates}");
        if missing * one_in > templates {
            break;
        }
        gallery.enroll(person(&format!("p{templates:03}")), vec![template_of(templates, DIMENSION)]).unwrap();
        missing += 1;
    }
    assert!(missing > 5);
}
