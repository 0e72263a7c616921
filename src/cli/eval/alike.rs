//! `eval alike`: networks judged on the strangers that other networks find alike, beside random pairs of strangers and pairs of one person.
//! Embeddings live in this process's memory alone: nothing of them is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::import::folders_in;
use super::super::{Failure, Places, Result, code, progress, say, say_json};
use super::{Output, complain_of, failures_json, header, key, percent, plot, rate_json, read_list, rounded};
use crate::capture::still;
use crate::evaluation::plots::Plot;
use crate::evaluation::verification::Operating;
use crate::evaluation::{ProtocolError, Verification, alike, protocol};
use crate::pipeline;
use crate::types::{Embedding, Picture};
use crate::vision::stack::Stack;

/// The most photos: every network's scores of all their pairs are kept, 290 MB a network at 12,000.
const MAX_PHOTOS: usize = 16_000;
/// The false match rates whose scores are told.
const TARGETS: [f64; 4] = [1e-2, 1e-3, 1e-4, 1e-5];

/// `faceid eval alike`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder of photos for each person; every pair of photos is compared
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// A pack whose embedder says which strangers are alike; two or more, of other networks than the one under test
    #[arg(long = "judge", value_name = "PACK", required = true)]
    judges: Vec<String>,
    /// Put each judge to the test too, judged by all the others
    #[arg(long)]
    each: bool,
    /// Only the people named in this file, a folder's name a line
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Photos and pairs that are labelled wrongly: `PERSON/PHOTO`, or `PERSON/PHOTO PERSON/PHOTO`, a line
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Which share of the pairs of different people counts as alike
    #[arg(long, value_name = "SHARE", default_value_t = alike::SHARE, value_parser = parse_share)]
    share: f64,
    /// How many of the most alike strangers to list, with the scores of the network under test, so that labels can be looked at
    #[arg(long, value_name = "N", default_value_t = 20)]
    list: usize,
    #[command(flatten)]
    output: Output,
}

fn parse_share(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("write a share above 0 and up to 1, for example 0.01".to_owned()),
    }
}

/// A photo, its person's number, and its embedding by each network.
struct Subject {
    path: String,
    person: u32,
    embeddings: Vec<Embedding>,
}

/// What is not compared.
#[derive(Default)]
pub(super) struct Excluded {
    photos: BTreeSet<String>,
    pairs: BTreeSet<(String, String)>,
}

impl Excluded {
    pub(super) fn parse(text: &str) -> std::result::Result<Self, ProtocolError> {
        let mut excluded = Self::default();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [photo] => drop(excluded.photos.insert(photo.to_owned())),
                [a, b] => drop(excluded.pairs.insert(ordered(a, b))),
                _ => return Err(ProtocolError::NoPhoto { line: index + 1, word: protocol::shown(line) }),
            }
        }
        Ok(excluded)
    }

    pub(super) fn has(&self, a: &str, b: &str) -> bool {
        !self.pairs.is_empty() && self.pairs.contains(&ordered(a, b))
    }
}

fn ordered(a: &str, b: &str) -> (String, String) {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    (first.to_owned(), second.to_owned())
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let excluded = match &args.exclude {
        Some(file) => read_list(file, Excluded::parse)?,
        None => Excluded::default(),
    };
    let photos = photos_in(&args.images, args.people.as_deref(), &excluded)?;
    let mut stacks = open_all(&context, &args.judges)?;
    let (subjects, failures) = embed_all(&mut stacks, args, &photos)?;
    complain_of(&failures);
    let pairs = Pairs::of(&subjects, &excluded);
    if pairs.mated.is_empty() || pairs.non_mated.is_empty() {
        let text = "no pair of one person or none of two people is left: nothing can be measured";
        return Err(Failure::data(format!("{}: {text}", args.images.display())));
    }
    let scores: Vec<Scores> = (0..stacks.len()).map(|network| Scores::of(&subjects, &pairs, network)).collect();
    let under_test = if args.each { stacks.len() } else { 1 };
    let (mut rows, mut plots) = (Vec::new(), Vec::new());
    for network in 0..under_test {
        let judges: Vec<&[f32]> =
            scores.iter().enumerate().filter(|(other, _)| *other != network).map(|(_, scores)| &scores.non_mated[..]).collect();
        let alike = alike::most_alike(&alike::mean_z(&judges), args.share);
        let stack = &stacks[network];
        let judged =
            Judged::new(context.thresholds(stack).matching.value(), &scores[network], &pairs, &subjects, &alike, args.list);
        if !args.output.json {
            judged.tell(stack);
        }
        rows.push(judged.json(stack));
        if network == 0 && args.output.plots.is_some() {
            plots = judged.plots(&stack.pack);
        }
    }
    if args.output.json {
        let mut report = header(&stacks[0], None);
        for (name, value) in [
            ("photos", json!(photos.len())),
            ("photos_compared", json!(subjects.len())),
            ("people", json!(subjects.iter().map(|subject| subject.person).collect::<BTreeSet<_>>().len())),
            ("failed_photos", failures_json(&failures)),
            ("share", json!(args.share)),
            ("judges", json!(args.judges)),
            ("networks", json!(rows)),
        ] {
            report.insert(name.to_owned(), value);
        }
        say_json(&Value::Object(report));
    }
    plot(&args.output, &plots)?;
    Ok(code::YES)
}

/// The photos as `PERSON/PHOTO` with the person's number.
pub(super) fn photos_in(images: &Path, people: Option<&Path>, excluded: &Excluded) -> Result<Vec<(String, u32)>> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let only: Option<BTreeSet<String>> = match people {
        Some(file) => Some(read_list(file, |text| Ok(text.lines().map(|line| line.trim().to_owned()).collect()))?),
        None => None,
    };
    let mut photos = Vec::new();
    for (number, (folder, files)) in folders_in(images)?.iter().enumerate() {
        let person = name(folder);
        if only.as_ref().is_some_and(|only| !only.contains(&person)) {
            continue;
        }
        let number = u32::try_from(number).map_err(|_| Failure::data("too many people"))?;
        let paths = files.iter().map(|file| format!("{person}/{}", name(file)));
        photos.extend(paths.filter(|path| !excluded.photos.contains(path)).map(|path| (path, number)));
    }
    if photos.len() > MAX_PHOTOS {
        return Err(Failure::data(format!("{}: {} photos; {MAX_PHOTOS} are the most", images.display(), photos.len())));
    }
    Ok(photos)
}

/// The pack under test first, then the judges, each of another embedder.
pub(super) fn open_all(context: &Context, judges: &[String]) -> Result<Vec<Stack>> {
    let mut stacks = vec![context.open_stack()?];
    for judge in judges {
        let mut settings = context.config.inference.clone();
        // A judge is asked as its maker meant it, also where the pack under test runs in 8 bits: not every pack has such networks.
        settings.precision = crate::inference::Precision::Fp32;
        let stack = Stack::open(&context.manifest()?, judge, &context.models_dir(), &settings).map_err(Failure::unavailable)?;
        if let Some(same) = stacks.iter().find(|other| other.embedder.model() == stack.embedder.model()) {
            let text = format!("judge `{judge}` has the same embedder as pack `{}`: no network may judge itself", same.pack);
            return Err(Failure::new(code::USAGE, text));
        }
        stacks.push(stack);
    }
    if stacks.len() < 3 {
        return Err(Failure::new(code::USAGE, "one network alone does not say who is alike: give two --judge or more"));
    }
    Ok(stacks)
}

pub(super) type Failures = Vec<(String, String)>;

/// Looks at each photo once a detector and asks every embedder. A photo counts only where every network has an answer, so that all are
/// judged on the same pairs.
fn embed_all(stacks: &mut [Stack], args: &Args, photos: &[(String, u32)]) -> Result<(Vec<Subject>, Failures)> {
    let bar = progress(photos.len() as u64, "photos");
    let (mut subjects, mut failures) = (Vec::new(), Vec::new());
    for (path, person) in photos {
        let answer = match still::read_picture(&args.images.join(path)) {
            Ok(picture) => embed_by_all(stacks, &picture)?,
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(embeddings) => subjects.push(Subject { path: path.clone(), person: *person, embeddings }),
            Err(reason) => failures.push((path.clone(), reason)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((subjects, failures))
}

pub(super) fn embed_by_all(stacks: &mut [Stack], picture: &Picture) -> Result<std::result::Result<Vec<Embedding>, String>> {
    let mut found = BTreeMap::new();
    let mut embeddings = Vec::with_capacity(stacks.len());
    for stack in stacks {
        let detector = stack.detector.model().clone();
        let subject = match found.get(&detector) {
            Some(subject) => *subject,
            None => {
                let subject = pipeline::find_subject(&mut stack.detector, picture).map_err(Failure::unavailable)?;
                *found.entry(detector).or_insert(subject)
            }
        };
        let Some(subject) = subject else { return Ok(Err(format!("no face found by pack {}", stack.pack))) };
        match pipeline::embed_found(&mut stack.embedder, picture, &subject).map_err(Failure::unavailable)? {
            Some(embedding) => embeddings.push(embedding),
            None => return Ok(Err(format!("pack {} says nothing of the face", stack.pack))),
        }
    }
    Ok(Ok(embeddings))
}

/// Every pair of photos once, by the photos' places.
struct Pairs {
    mated: Vec<[u32; 2]>,
    non_mated: Vec<[u32; 2]>,
}

impl Pairs {
    fn of(subjects: &[Subject], excluded: &Excluded) -> Self {
        let mut pairs = Self { mated: Vec::new(), non_mated: Vec::new() };
        for (j, second) in (0u32..).zip(subjects) {
            for (i, first) in (0..j).zip(subjects) {
                if excluded.has(&first.path, &second.path) {
                    continue;
                }
                let kind = if first.person == second.person { &mut pairs.mated } else { &mut pairs.non_mated };
                kind.push([i, j]);
            }
        }
        pairs
    }
}

/// One network's scores, in the order of [`Pairs`].
struct Scores {
    mated: Vec<f32>,
    non_mated: Vec<f32>,
}

impl Scores {
    fn of(subjects: &[Subject], pairs: &Pairs, network: usize) -> Self {
        let compare = |[i, j]: &[u32; 2]| {
            let of = |place: u32| subjects[place as usize].embeddings[network].values();
            dot(of(*i), of(*j))
        };
        Self { mated: pairs.mated.iter().map(compare).collect(), non_mated: pairs.non_mated.iter().map(compare).collect() }
    }
}

/// The cosine of two unit vectors of one network. [`Embedding::compare`] adds one after the other; with tens of millions of pairs eight
/// sums side by side are worth their lines.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (heads, tails) = (a.chunks_exact(8).zip(b.chunks_exact(8)), (a.chunks_exact(8).remainder(), b.chunks_exact(8).remainder()));
    for (a, b) in heads {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = tails.0.iter().zip(tails.1).map(|(a, b)| a * b).sum();
    (sums.iter().sum::<f32>() + rest).clamp(-1.0, 1.0)
}

/// What one network is worth.
struct Judged {
    threshold: f32,
    random: Verification,
    alike: Verification,
    /// FMR at the threshold and its standard error with people as what was drawn, over random and over alike pairs.
    by_people: [Option<(f64, f64)>; 2],
    /// The alike strangers with the highest scores.
    highest: Vec<(String, String, f32)>,
}

/// Its name, its pairs, and the error rate with its standard error where people are drawn and not pairs.
type Cohort<'a> = (&'static str, &'a Verification, Option<(f64, f64)>);

impl Judged {
    fn new(threshold: f32, scores: &Scores, pairs: &Pairs, subjects: &[Subject], alike: &[usize], list: usize) -> Self {
        let row = |place: usize| {
            let [i, j] = pairs.non_mated[place].map(|place| &subjects[place as usize]);
            (i, j, scores.non_mated[place])
        };
        let error = |place: usize| {
            let (i, j, score) = row(place);
            (i.person, j.person, score >= threshold)
        };
        let by_people =
            [alike::by_people((0..pairs.non_mated.len()).map(error)), alike::by_people(alike.iter().map(|place| error(*place)))];
        let mut order = alike.to_vec();
        order.sort_unstable_by(|a, b| scores.non_mated[*b].total_cmp(&scores.non_mated[*a]));
        let highest = order.iter().take(list).map(|place| row(*place)).map(|(i, j, s)| (i.path.clone(), j.path.clone(), s));
        let of_alike = alike.iter().map(|place| scores.non_mated[*place]).collect();
        Self {
            threshold,
            highest: highest.collect(),
            by_people,
            alike: Verification::of_scores(scores.mated.clone(), of_alike),
            random: Verification::of_scores(scores.mated.clone(), scores.non_mated.clone()),
        }
    }

    fn cohorts(&self) -> [Cohort<'_>; 2] {
        [("random", &self.random, self.by_people[0]), ("alike", &self.alike, self.by_people[1])]
    }

    fn json(&self, stack: &Stack) -> Value {
        let cohorts = self.cohorts().map(|(name, cohort, by_people)| {
            let targets = TARGETS.iter().filter_map(|fmr| Some((key(*fmr), operating_json(&cohort.at_far(*fmr)?))));
            let row = json!({
                "pairs": cohort.non_mated().len(),
                "highest": cohort.non_mated().last().map(|score| rounded(f64::from(*score))),
                "at_threshold": operating_json(&cohort.at(self.threshold)),
                "fmr_standard_error_by_people": by_people.map(|(_, error)| error),
                "at_fmr": Map::from_iter(targets),
            });
            (name.to_owned(), row)
        });
        let highest: Vec<Value> =
            self.highest.iter().map(|(a, b, score)| json!({"pair": [a, b], "score": rounded(f64::from(*score))})).collect();
        json!({"pack": stack.pack, "embedder": stack.embedder.model(), "threshold": self.threshold, "same_person_pairs": self.random.mated().len(),
               "cohorts": Map::from_iter(cohorts), "highest_alike": highest})
    }

    fn tell(&self, stack: &Stack) {
        let same = self.random.mated().len();
        say(format!(
            "pack {} ({}), threshold {:.4}; photos, not visits; {same} pairs of one person",
            stack.pack,
            stack.embedder.model(),
            self.threshold
        ));
        for (name, cohort, by_people) in self.cohorts() {
            let Operating { fmr, fnmr, .. } = cohort.at(self.threshold);
            let error = by_people.map_or("unknown".to_owned(), |(_, error)| format!("{error:.1e}"));
            say(format!("  {name} pairs: FMR {} (standard error by people {error}), FNMR {}", small(fmr), percent(fnmr)));
            for target in TARGETS {
                let Some(point) = cohort.at_far(target) else { continue };
                say(format!(
                    "    FMR {}: score {:.4}, measured {}, FNMR {}",
                    key(target),
                    point.threshold,
                    small(point.fmr),
                    percent(point.fnmr)
                ));
            }
        }
        say("  the most alike strangers (look at them: wrong labels stand here first):");
        for (a, b, score) in &self.highest {
            say(format!("    {score:.4} {a} {b}"));
        }
    }

    fn plots(&self, pack: &str) -> Vec<(&'static str, Plot)> {
        /// Points of a curve: more would not be seen.
        const POINTS: u16 = 400;
        let scores = (0..=POINTS).map(|step| -0.2 + 1.2 * f32::from(step) / f32::from(POINTS));
        let curve = |cohort: &Verification| {
            let points = scores.clone().map(|score| cohort.at(score));
            points.filter_map(|point| Some((point.fmr.value()?, point.fnmr.value()?))).collect()
        };
        let det = Plot::Det {
            title: format!("Portraits: random and alike strangers, pack {pack}"),
            axes: ["FMR".into(), "FNMR".into()],
            curves: self.cohorts().iter().map(|(name, cohort, _)| ((*name).to_owned(), curve(cohort))).collect(),
        };
        let groups = self.cohorts().map(|(name, cohort, _)| (format!("{name} strangers"), cohort.non_mated().to_vec()));
        let mut groups = Vec::from(groups);
        groups.push(("one person".into(), self.random.mated().to_vec()));
        let histogram = Plot::Histogram {
            title: format!("Portraits: comparison scores, pack {pack}"),
            axis: "comparison score (cosine)".into(),
            groups,
        };
        vec![("alike-det", det), ("alike-scores", histogram)]
    }
}

/// A rate too small for percent.
fn small(rate: crate::evaluation::Rate) -> String {
    let interval = rate.interval();
    format!(
        "{:.2e} [{:.1e}, {:.1e}] ({} of {})",
        rate.value().unwrap_or_default(),
        interval.low,
        interval.high,
        rate.count,
        rate.trials
    )
}

fn operating_json(point: &Operating) -> Value {
    let exact = |rate: crate::evaluation::Rate| {
        let interval = rate.interval();
        json!({"value": rate.value(), "interval": [interval.low, interval.high], "count": rate.count, "n": rate.trials})
    };
    json!({"threshold": rounded(f64::from(point.threshold)), "fmr": exact(point.fmr), "fnmr": rate_json(point.fnmr)})
}
