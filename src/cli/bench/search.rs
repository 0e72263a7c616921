//! `bench search`: the gallery's search on one thread, over synthetic people whose templates lie together as a person's photos do.
//! `../shared/peer/idx.py` draws the same kind of gallery for other libraries; run both on one machine and compare.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::{Failure, Result, code, say_json};
use super::{Scratch, quantiles, round, tell};
use crate::gallery::{Gallery, GalleryError, IndexChoice, IndexReport, IndexVerdict, SealingKey, Settings, Snapshot};
use crate::system::stop;
use crate::types::{Candidate, Embedding, ModelId, Person, PersonId, Wall};

/// Templates of one person.
const EACH: usize = 10;
/// The cosine of two templates of one person, as of two photos.
const COSINE: f32 = 0.6;
/// How many people the pipeline asks for: the second tells whether the first is ambiguous. Other libraries are asked for one row.
const AS_DECIDED: usize = 2;
/// Searches before the clock runs.
const WARM: usize = 20;

/// `faceid bench search`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// How many templates, a row each
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    sizes: Vec<usize>,
    /// Numbers in a template
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Probes a row
    #[arg(long, default_value_t = 500)]
    probes: usize,
    /// Besides the exact scan, which is always measured: `auto` what the daemon would use on this machine, `hnsw` where trials
    /// pass, `exact` nothing more
    #[arg(long, value_name = "INDEX", default_value = "auto", value_parser = index_choice)]
    index: IndexChoice,
    /// Threads that build the graph
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    build_threads: u16,
    /// {"rows": [{"name", "n", "p50_us", "p99_us", "recall_at_1", …}]}
    #[arg(long)]
    json: bool,
}

fn index_choice(text: &str) -> std::result::Result<IndexChoice, String> {
    serde_json::from_value(json!(text)).map_err(|_| "use auto, exact or hnsw".to_owned())
}

pub(super) fn run(args: &Args) -> Result {
    if !(1..=4096).contains(&args.dim) || args.sizes.iter().any(|n| !(1..=1_000_000).contains(n)) || args.probes == 0 {
        return Err(Failure::new(code::USAGE, "use --dim 1 to 4096, --sizes 1 to 1000000, --probes 1 or more"));
    }
    let mut rows = Vec::new();
    for &size in &args.sizes {
        rows.extend(measure(args, size)?);
    }
    let report = json!({ "rows": rows });
    if args.json {
        say_json(&report);
    } else {
        tell(&report);
    }
    Ok(code::YES)
}

/// The rows of one size.
fn measure(args: &Args, size: usize) -> Result<Vec<Value>> {
    let mut draw = Draw::new(args.dim)?;
    let truth = Truth::draw(&mut draw, size, args.probes)?;
    let started = Instant::now();
    let (_scratch, gallery) = enrolled(&draw.model, args.dim, &truth)?;
    let import_s = started.elapsed().as_secs_f64();
    let repeats = (2_000_000 / size.max(1)).clamp(1, 4);
    let mut rows = vec![{
        let mut row = timed(&gallery.snapshot(), &truth, repeats, Snapshot::search_exactly)?;
        row["name"] = json!("exact");
        row["build_s"] = json!(round(import_s));
        row
    }];
    let (_handle, stop) = stop::pair();
    let report = gallery.build_index(args.index, usize::from(args.build_threads), &stop);
    if report.verdict == IndexVerdict::Hnsw {
        let mut row = timed(&gallery.snapshot(), &truth, repeats, Snapshot::search)?;
        row["name"] = json!(report.verdict);
        row["build_s"] = json!(report.trials.last().map(|trial| round(trial.build_seconds)));
        rows.push(row);
    }
    for row in &mut rows {
        describe(row, size, args.dim, &report);
    }
    Ok(rows)
}

fn describe(row: &mut Value, size: usize, dimension: usize, report: &IndexReport) {
    row["n"] = json!(size);
    row["dim"] = json!(dimension);
    row["kernel"] = json!(report.kernel);
    row["index"] = json!(report);
}

/// One search of a snapshot.
type Search = fn(&Snapshot, &Embedding, usize) -> std::result::Result<Vec<Candidate>, GalleryError>;

/// Times, recall and memory of one kind of search.
fn timed(snapshot: &Snapshot, truth: &Truth, repeats: usize, search: Search) -> Result<Value> {
    let find = |probe: &Embedding, people: usize| search(snapshot, probe, people).map_err(Failure::unavailable);
    let clocked = |probes: &[Embedding], people: usize, times: &mut Vec<f64>| -> Result<()> {
        for probe in probes {
            let start = Instant::now();
            let found = find(probe, people)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            std::hint::black_box(found);
        }
        Ok(())
    };
    let (mut first, mut mates, mut strangers, mut away) = (Vec::new(), Vec::new(), Vec::new(), 0.0f32);
    clocked(&truth.probes[..WARM.min(truth.probes.len())], 1, &mut Vec::new())?;
    for _ in 0..repeats {
        clocked(&truth.probes, 1, &mut first)?;
    }
    for _ in 0..repeats {
        clocked(&truth.probes, AS_DECIDED, &mut mates)?;
    }
    clocked(&truth.strangers, AS_DECIDED, &mut strangers)?;
    let (mut same, mut right) = (0usize, 0usize);
    for ((probe, person), (nearest, score)) in truth.probes.iter().zip(&truth.persons).zip(&truth.nearest) {
        let best = find(probe, AS_DECIDED)?.into_iter().next();
        let is = |person: usize| best.as_ref().is_some_and(|best| best.person.as_str() == name(person));
        same += usize::from(is(*nearest));
        right += usize::from(is(*person));
        away =
            away.max(best.as_ref().map_or(0.0, |best| (best.score.value() - score).abs()) * if is(*nearest) { 1.0 } else { 0.0 });
    }
    let share = |count: usize| (count as f64 / truth.probes.len().max(1) as f64 * 1e6).round() / 1e6;
    let (first, mates, strangers) = (quantiles(&mut first), quantiles(&mut mates), quantiles(&mut strangers));
    let us = |times: &Value, key: &str| times.get(key).and_then(Value::as_f64).map(|ms| round(ms * 1e3));
    Ok(json!({
        "top1_p50_us": us(&first, "p50"), "top1_p99_us": us(&first, "p99"), "top1_min_us": us(&first, "min"),
        "p50_us": us(&mates, "p50"), "p99_us": us(&mates, "p99"), "min_us": us(&mates, "min"),
        "stranger_p50_us": us(&strangers, "p50"), "stranger_p99_us": us(&strangers, "p99"),
        "recall_at_1": share(same), "right_person": share(right), "largest_score_error": f64::from(away),
        "memory_mb": round(snapshot.stats().memory_bytes as f64 / 1e6),
    }))
}

/// A gallery's templates, probes, and what comparing in plain `f32` says of them.
struct Truth {
    templates: Vec<Embedding>,
    probes: Vec<Embedding>,
    /// Whose each probe is.
    persons: Vec<usize>,
    /// The person of the nearest template, with the score.
    nearest: Vec<(usize, f32)>,
    /// Probes of nobody.
    strangers: Vec<Embedding>,
}

impl Truth {
    fn draw(draw: &mut Draw, size: usize, probes: usize) -> Result<Self> {
        let people = size.div_ceil(EACH);
        let centres: Vec<Embedding> = (0..people).map(|_| draw.direction()).collect::<Result<_>>()?;
        let templates: Vec<Embedding> = (0..size).map(|at| draw.near(&centres[at / EACH])).collect::<Result<_>>()?;
        let persons: Vec<usize> = (0..probes).map(|_| draw.random.usize(..people)).collect();
        let probes: Vec<Embedding> = persons.iter().map(|person| draw.near(&centres[*person])).collect::<Result<_>>()?;
        let strangers: Vec<Embedding> = (0..probes.len()).map(|_| draw.direction()).collect::<Result<_>>()?;
        let best = |probe: &Embedding| {
            let scores = templates.iter().map(|template| plain(template.values(), probe.values())).enumerate();
            scores.fold((0, f32::NEG_INFINITY), |best, (at, score)| if score > best.1 { (at / EACH, score) } else { best })
        };
        let nearest = probes.iter().map(best).collect();
        Ok(Self { templates, probes, persons, nearest, strangers })
    }
}

/// The inner product in `f32`, with accumulators enough for the compiler to make vectors of it.
fn plain(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (mut left, mut right) = (a.chunks_exact(16), b.chunks_exact(16));
    for (a, b) in (&mut left).zip(&mut right) {
        sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Draws directions.
struct Draw {
    random: fastrand::Rng,
    model: ModelId,
    dimension: usize,
}

impl Draw {
    fn new(dimension: usize) -> Result<Self> {
        let model = ModelId::new("synthetic").map_err(|error| Failure::new(code::BUG, error))?;
        Ok(Self { random: fastrand::Rng::with_seed(7), model, dimension })
    }

    fn direction(&mut self) -> Result<Embedding> {
        super::synthetic(&mut self.random, &self.model, self.dimension)
    }

    /// Two that are near one direction have [`COSINE`] with each other.
    fn near(&mut self, centre: &Embedding) -> Result<Embedding> {
        let noise = self.direction()?;
        let near = Embedding::fuse([(centre, COSINE.sqrt()), (&noise, (1.0 - COSINE).sqrt())]);
        near.ok_or_else(|| Failure::new(code::BUG, "a synthetic template without length"))
    }
}

fn name(person: usize) -> String {
    format!("synthetic-{person}")
}

fn enrolled(model: &ModelId, dimension: usize, truth: &Truth) -> Result<(Scratch, Gallery)> {
    let scratch = Scratch::new()?;
    let key = SealingKey::generate().map_err(Failure::unavailable)?;
    let settings = Settings { dir: scratch.path().join("gallery"), ..Settings::default() };
    let gallery = Gallery::create_or_open(&settings, &key, model, dimension).map_err(Failure::unavailable)?;
    let person = |(person, templates): (usize, &[Embedding])| {
        let id = PersonId::new(name(person)).map_err(|error| Failure::new(code::BUG, error))?;
        let person =
            Person { id, name: None, groups: Vec::new(), consented_at: None, expires_at: None, enrolled_at: Wall::default() };
        Ok((person, templates.to_vec()))
    };
    let people = truth.templates.chunks(EACH).enumerate().map(person).collect::<Result<Vec<_>>>()?;
    gallery.enroll_many(people).map_err(Failure::unavailable)?;
    Ok((scratch, gallery))
}
