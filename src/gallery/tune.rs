//! Which index serves a gallery: the exact scan, or a shortlist where that is faster on this machine and was seen to find the right
//! people.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::index::{GraphError, Kernel, Shortlist};
use super::seal::graph::PART_BYTES;
use super::{Gallery, GalleryError, Snapshot};
use crate::system::Stop;
use crate::types::{Candidate, Embedding};

/// What the config asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexChoice {
    /// The exact scan where it takes a millisecond or less on this machine; above that whatever is fastest of those that find the
    /// right people. `sketches`, which earlier versions knew, means this too.
    #[default]
    #[serde(alias = "sketches")]
    Auto,
    /// The exact scan.
    Exact,
    /// A graph over sketches (HNSW).
    Hnsw,
}

/// What serves, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexVerdict {
    /// The exact scan, as asked for.
    Exact,
    /// The exact scan, which is fast enough.
    ExactIsFast,
    /// The exact scan, since whatever else was tried missed people or was no faster.
    ExactIsBest,
    /// The graph.
    Hnsw,
    /// What served before: told to stop.
    Stopped,
}

/// One kind of shortlist that was made and tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexTrial {
    /// Which.
    pub index: IndexChoice,
    /// The share of probes of which it found the two people, with their scores, whom the exact scan finds; each probe is like two, so
    /// that whoever makes a match ambiguous is found as surely as whoever matches.
    pub recall: f64,
    /// The median time of a search, in microseconds.
    pub us: f64,
    /// What making it took, in seconds.
    pub build_seconds: f64,
    /// Its memory, in bytes.
    pub memory_bytes: usize,
    /// Whether it was not built but read from the copy beside the gallery.
    pub was_kept: bool,
}

/// What a build of the index did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexReport {
    /// What serves now, and why.
    pub verdict: IndexVerdict,
    /// Templates in the gallery.
    pub templates: usize,
    /// Which loops this processor runs.
    pub kernel: &'static str,
    /// The median time of an exact search, in microseconds; zero when it was not measured.
    pub exact_us: f64,
    /// What was tried.
    pub trials: Vec<IndexTrial>,
}

/// A search that takes no longer leaves nothing to win: the networks take ten times as long.
const FAST_US: f64 = 1_000.0;
/// With fewer templates than this there is nothing to gain.
const FEWEST: usize = 1_000;
/// The least share of trials in which it has to find the right people.
const LEAST_RECALL: f64 = 0.999;
/// People that a trial asks for, as a decision does: the match, and whoever makes it ambiguous.
const PEOPLE: usize = 2;
/// Probes that a shortlist is tried with.
const PROBES: usize = 2_000;
/// Probes that the exact scan is timed with first.
const TIMED: usize = 25;
/// How near a trial's probe is to the two templates it is made of. The thresholds of the packs lie at about the first or above, so
/// whoever is farther away is not let in anyway, and nearer is easier; the second is as far behind as makes a match ambiguous.
const COSINES: [f32; 2] = [0.4, 0.35];
/// What trials are drawn from.
const SEED: u64 = 41;
/// How often the index is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// By what share a gallery that the exact scan serves has to grow before shortlists are tried again.
const GROWN: f64 = 1.25;

impl Gallery {
    /// Builds the index that `choice` asks for, on `threads` threads of low priority, and puts it in place when it serves. It takes
    /// seconds to minutes at large sizes: a thread of its own calls it, and what served before serves meanwhile. When told to stop
    /// it returns soon and nothing has changed.
    pub fn build_index(&self, choice: IndexChoice, threads: usize, stop: &Stop) -> IndexReport {
        self.build(choice, threads, stop).0
    }

    /// As [`Gallery::build_index`], with the shortlist that it put in place.
    fn build(&self, choice: IndexChoice, threads: usize, stop: &Stop) -> (IndexReport, Option<Arc<Shortlist>>) {
        let snapshot = self.snapshot();
        let (report, shortlist) = snapshot.tune(choice, threads, stop, &mut || self.kept_shortlist(&snapshot));
        let shortlist = shortlist.map(Arc::new);
        if report.verdict != IndexVerdict::Stopped {
            snapshot.serve_by(shortlist.clone());
        }
        (report, shortlist)
    }

    /// Builds the index, and again whenever enough has changed, until told to stop. The calling thread is made the least urgent of
    /// all. `told` hears of every build.
    pub fn keep_index(&self, choice: IndexChoice, stop: &Stop, mut told: impl FnMut(&IndexReport)) {
        // Of the calling thread alone, on Linux; without it the build is merely in the way.
        let _ = rustix::process::nice(19);
        loop {
            let removals = self.removals();
            // Another build, which somebody asked for, may put another in its place: it is this one that `removals` belongs to.
            let (report, built) = self.build(choice, 1, stop);
            if report.verdict == IndexVerdict::Stopped {
                return;
            }
            told(&report);
            let taken = report.trials.iter().any(|trial| trial.was_kept).then(|| self.file_generation());
            let mut kept = taken.filter(|_| report.verdict == IndexVerdict::Hnsw);
            loop {
                if let Some(graph) = built.as_ref().filter(|_| report.verdict == IndexVerdict::Hnsw)
                    && kept != Some(self.file_generation())
                    && !stop.is_asked()
                {
                    let generation = self.file_generation();
                    match self.keep_graph(graph, removals) {
                        // Somebody was removed whom it knows: the next graph is kept.
                        Ok(_) => kept = Some(generation),
                        Err(error) => log::warn!("the search graph could not be kept, the next start builds it again: {error}"),
                    }
                }
                if stop.sleep(LOOK_EVERY) {
                    return;
                }
                let snapshot = self.snapshot();
                let grown = snapshot.stats().templates as f64 > GROWN * report.templates.max(FEWEST) as f64;
                // None serves: none was better when this was tried, or a new rotation left it behind.
                let left_behind = report.verdict == IndexVerdict::Hnsw;
                if snapshot.is_worn().unwrap_or(grown || left_behind) {
                    break;
                }
            }
        }
    }

    /// Writes a sealed copy of a graph beside the gallery, if `removals` is what [`Gallery::removals`] gave before it was built:
    /// otherwise it knows somebody who is gone, and is not kept. True when it was. Changes go on meanwhile.
    pub(crate) fn keep_graph(&self, graph: &Shortlist, removals: u64) -> Result<bool, GalleryError> {
        let Some(mut bytes) = graph.to_bytes() else { return Ok(false) };
        let Some(mut keeping) = self.writer()?.store.begin_keeping(removals)? else { return Ok(false) };
        let parts = bytes.len().div_ceil(PART_BYTES);
        for (number, part) in bytes.chunks_mut(PART_BYTES).enumerate() {
            match self.writer()?.store.keep_part(keeping, part, number + 1 == parts)? {
                Some(going_on) => keeping = going_on,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The kept graph over the templates of now, if there is one that fits.
    pub(crate) fn kept_shortlist(&self, snapshot: &Snapshot) -> Option<Shortlist> {
        let bytes = self.writer().ok()?.store.kept_graph()?;
        match Shortlist::from_bytes(&bytes, snapshot.matrix()) {
            Ok(shortlist) => Some(shortlist),
            Err(error) => {
                log::info!("the kept search graph: {error}");
                None
            }
        }
    }

    /// Removals since the opening.
    pub(crate) fn removals(&self) -> u64 {
        self.writer().map_or(0, |writer| writer.store.removals())
    }

    /// Which file the gallery lies in now.
    fn file_generation(&self) -> u64 {
        self.writer().map_or(0, |writer| writer.store.generation())
    }

    /// The graph that serves, to be kept sealed beside the gallery: sketches are biometric data. `None` when no graph serves.
    pub fn graph_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.snapshot().shortlist()?.to_bytes()
    }

    /// Serves by a graph that was kept, whatever was enrolled and removed since: a start need not build it again.
    pub fn serve_kept_graph(&self, bytes: &[u8]) -> Result<(), GraphError> {
        let snapshot = self.snapshot();
        snapshot.serve_by(Some(Arc::new(Shortlist::from_bytes(bytes, snapshot.matrix())?)));
        Ok(())
    }
}

/// A probe, and who the exact scan says it is.
type Known = (Embedding, Vec<Candidate>);

impl Snapshot {
    fn tune(
        &self,
        choice: IndexChoice,
        threads: usize,
        stop: &Stop,
        kept: &mut dyn FnMut() -> Option<Shortlist>,
    ) -> (IndexReport, Option<Shortlist>) {
        let (templates, kernel) = (self.matrix().rows(), Kernel::best().name());
        let mut report = IndexReport { verdict: IndexVerdict::Exact, templates, kernel, exact_us: 0.0, trials: Vec::new() };
        if choice == IndexChoice::Exact {
            return (report, None);
        }
        report.verdict = IndexVerdict::ExactIsFast;
        if templates < FEWEST {
            return (report, None);
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let (_, exact_us) = self.known(TIMED, &mut random);
        report.exact_us = exact_us;
        if choice == IndexChoice::Auto && exact_us <= FAST_US {
            return (report, None);
        }
        report.verdict = IndexVerdict::Stopped;
        let mut known = Vec::new();
        for _ in 0..PROBES / TIMED {
            if stop.is_asked() {
                break;
            }
            known.extend(self.known(TIMED, &mut random).0);
        }
        let mut best = None;
        // The copy first: when it serves, nothing is built.
        for was_kept in [true, false] {
            if best.is_some() {
                break;
            }
            let (shortlist, took) = timed(|| if was_kept { kept() } else { Shortlist::build(self.matrix(), threads, stop) });
            let shortlist = match shortlist {
                Some(shortlist) => shortlist,
                None if was_kept => continue,
                None => return (report, None),
            };
            let (recall, us) = self.try_out(&shortlist, &known);
            let memory_bytes = shortlist.bytes();
            report.trials.push(IndexTrial {
                index: IndexChoice::Hnsw,
                recall,
                us,
                build_seconds: took / 1e6,
                memory_bytes,
                was_kept,
            });
            if is_better(recall, us, exact_us) {
                best = Some(shortlist);
            }
        }
        if stop.is_asked() {
            return (report, None);
        }
        report.verdict = if best.is_some() { IndexVerdict::Hnsw } else { IndexVerdict::ExactIsBest };
        (report, best)
    }

    /// The share of probes with the right people, and the median time in microseconds.
    fn try_out(&self, shortlist: &Shortlist, known: &[Known]) -> (f64, f64) {
        let cover = shortlist.cover(self.matrix());
        let (mut right, mut times) = (0usize, Vec::with_capacity(known.len()));
        for (probe, exact) in known {
            let (found, took) = timed(|| self.search_by(shortlist, &cover, probe, PEOPLE));
            right += usize::from(found == *exact);
            times.push(took);
        }
        (right as f64 / known.len().max(1) as f64, median(&mut times))
    }

    /// Probes with what the exact scan finds, and its median time in microseconds.
    fn known(&self, probes: usize, random: &mut fastrand::Rng) -> (Vec<Known>, f64) {
        let (mut known, mut times) = (Vec::with_capacity(probes), Vec::with_capacity(probes));
        for _ in 0..probes {
            let Some(probe) = self.probe_near_templates(random) else { continue };
            let (exact, took) = timed(|| self.search_exactly(&probe, PEOPLE));
            times.push(took);
            known.extend(exact.ok().map(|exact| (probe, exact)));
        }
        (known, median(&mut times))
    }

    /// At [`COSINES`] to two templates drawn at random, as far as these are at right angles.
    fn probe_near_templates(&self, random: &mut fastrand::Rng) -> Option<Embedding> {
        let mut drawn = || {
            let row = random.usize(..self.matrix().rows().max(1));
            let turned = Zeroizing::new(self.matrix().values(row..row + 1).collect::<Vec<f32>>());
            Embedding::normalised(self.model().clone(), self.rotation().turn_back(&turned).to_vec())
        };
        let (first, second) = (drawn()?, drawn()?);
        let noise = (0..self.dimension()).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect();
        let noise = Embedding::normalised(self.model().clone(), noise)?;
        let rest = (1.0 - COSINES.iter().map(|cosine| cosine * cosine).sum::<f32>()).sqrt();
        Embedding::fuse([(&first, COSINES[0]), (&second, COSINES[1]), (&noise, rest)])
    }
}

/// Whether a shortlist of this recall and time may take the place of what takes `than`.
fn is_better(recall: f64, us: f64, than: f64) -> bool {
    recall >= LEAST_RECALL && us < than
}

/// What `work` gives, and how long it took in microseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let made = work();
    (made, start.elapsed().as_secs_f64() * 1e6)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::snapshot::Change;
    use super::*;
    use crate::system::stop;
    use crate::types::{ModelId, Person, PersonId, Wall};

    const DIMENSION: usize = 256;

    fn model() -> ModelId {
        ModelId::new("drawn").unwrap()
    }

    fn embedding(random: &mut fastrand::Rng) -> Embedding {
        let values = (0..DIMENSION).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect();
        Embedding::normalised(model(), values).unwrap()
    }

    fn drawn(people: usize) -> Snapshot {
        let mut random = fastrand::Rng::with_seed(12);
        let put = |number: usize| {
            let id = PersonId::new(format!("p{number:05}")).unwrap();
            let person =
                Person { id: id.clone(), name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
            (id, Change::Put { person, add: Zeroizing::new(embedding(&mut random).values().to_vec()) })
        };
        let changes: BTreeMap<_, _> = (0..people).map(put).collect();
        Snapshot::empty(0, model(), DIMENSION, people).with(changes)
    }

    fn built(snapshot: &Snapshot) -> Shortlist {
        let (_handle, stop) = stop::pair();
        Shortlist::build(snapshot.matrix(), 1, &stop).unwrap()
    }

    #[test]
    fn what_missed_people_is_no_faster_or_was_stopped_does_not_serve() {
        assert!(!is_better(0.9989, 1.0, 1_000.0), "fast and wrong");
        assert!(!is_better(1.0, 1_000.0, 1_000.0), "right and no faster");
        assert!(is_better(0.999, 999.0, 1_000.0));
        let (handle, stop) = stop::pair();
        handle.stop();
        let snapshot = drawn(1_200);
        let (report, shortlist) = snapshot.tune(IndexChoice::Hnsw, 1, &stop, &mut || None);
        assert!(report.verdict == IndexVerdict::Stopped && shortlist.is_none());
    }

    #[test]
    fn a_shortlist_that_misses_people_is_tried_and_does_not_serve() {
        let (_handle, stop) = stop::pair();
        let snapshot = drawn(1_100);
        let mut astray = || Some(Shortlist::astray(snapshot.matrix()));
        let (report, shortlist) = snapshot.tune(IndexChoice::Hnsw, 1, &stop, &mut astray);
        let [kept, built] = &report.trials[..] else { panic!("{report:?}") };
        assert!(kept.was_kept && kept.recall < 0.2 && !built.was_kept && built.recall > 0.8, "{report:?}");
        let serves = built.recall >= LEAST_RECALL && built.us < report.exact_us;
        assert_eq!(report.verdict, if serves { IndexVerdict::Hnsw } else { IndexVerdict::ExactIsBest });
        assert_eq!(shortlist.is_some(), serves);
    }

    #[test]
    fn a_trial_asks_for_whoever_makes_a_match_ambiguous() {
        let snapshot = drawn(3_000);
        let (known, _) = snapshot.known(100, &mut fastrand::Rng::with_seed(5));
        for (_, people) in &known {
            let [best, second] = &people[..] else { panic!("two are asked for") };
            let (best, second) = (best.score.value(), second.score.value());
            // Two templates drawn at random are not quite at right angles.
            assert!(best > 0.25 && second > 0.2 && best - second < 0.3, "{best} {second}");
        }
        // Everybody near is named, so that a match is never taken for a clear one.
        snapshot.serve_by(Some(Arc::new(built(&snapshot))));
        let found = known.iter().filter(|(probe, exact)| snapshot.search(probe, 2).unwrap() == *exact).count();
        assert!(found >= 98, "{found}");
    }

    #[test]
    fn a_small_gallery_is_scanned_and_a_shortlist_that_is_asked_for_is_tried() {
        let (_handle, stop) = stop::pair();
        let snapshot = drawn(500);
        assert_eq!(snapshot.tune(IndexChoice::Exact, 1, &stop, &mut || None).0.verdict, IndexVerdict::Exact);
        assert_eq!(snapshot.tune(IndexChoice::Hnsw, 1, &stop, &mut || None).0.verdict, IndexVerdict::ExactIsFast);
        let snapshot = drawn(1_500);
        let (report, _) = snapshot.tune(IndexChoice::Hnsw, 1, &stop, &mut || None);
        assert_eq!(report.trials.len(), 1);
        assert!(report.trials[0].recall > 0.9 && report.exact_us > 0.0, "{report:?}");
    }

    #[test]
    fn a_shortlist_goes_on_serving_while_people_come_and_go() {
        let snapshot = drawn(20_000);
        snapshot.serve_by(Some(Arc::new(built(&snapshot))));
        let mut random = fastrand::Rng::with_seed(99);
        let new = embedding(&mut random);
        let id = |text: &str| PersonId::new(text).unwrap();
        let person =
            Person { id: id("new"), name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
        let gone = snapshot.entry(7_000).2.collect();
        let gone = Embedding::normalised(model(), gone).unwrap();
        let put = Change::Put { person, add: Zeroizing::new(new.values().to_vec()) };
        let next = snapshot.with([(id("new"), put), (id("p07000"), Change::Remove)].into_iter().collect());
        assert_eq!(next.is_worn(), Some(true), "two of twenty segments are fresh, and the shortlist serves all the same");
        assert_eq!(next.search(&new, 1).unwrap()[0].person, id("new"));
        assert!(snapshot.search(&gone, 1).unwrap()[0].person == id("p07000"), "whoever holds the old snapshot sees the old state");
        assert!(next.search(&gone, 5).unwrap().iter().all(|candidate| candidate.person != id("p07000")));
        let kept = next.search(&Embedding::normalised(model(), snapshot.entry(19_999).2.collect()).unwrap(), 1).unwrap();
        assert_eq!(kept[0].person, id("p19999"));
    }

    #[test]
    fn what_is_read_again_shares_with_what_was_read_before() {
        let (before, again) = (drawn(5_000), drawn(5_000));
        before.serve_by(Some(Arc::new(built(&before))));
        let change = [(PersonId::new("p02000").unwrap(), Change::Remove)].into_iter().collect();
        let shared = again.with(change).sharing(&before);
        assert_eq!(shared.stats().people, 4_999);
        assert_eq!(shared.is_worn(), Some(true), "one of five segments is fresh");
        let probe = Embedding::normalised(model(), before.entry(4_000).2.collect()).unwrap();
        assert_eq!(shared.search(&probe, 1).unwrap()[0].person.as_str(), "p04000");
        let content = |snapshot: &Snapshot| {
            (0..snapshot.len()).map(|at| snapshot.entry(at).2.map(f32::to_bits).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let expected = drawn(5_000).with([(PersonId::new("p02000").unwrap(), Change::Remove)].into_iter().collect());
        assert!(content(&shared) == content(&expected));
    }
}
