//! `bench`: what the pipeline and the search cost on this machine, measured by the process's own CPU time.

mod search;
mod store;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::context::Context;
use super::replay::{self, Doorway};
use super::{Failure, Places, Result, code, say, say_json, shots};
use crate::capture::Source;
use crate::gallery::{Gallery, SealingKey};
use crate::pipeline::{Seen, Stage};
use crate::system::process;
use crate::types::{Decision, Embedding, ModelId, Moment, PadScore, Person, PersonId, Wall};

/// `faceid bench …`
#[derive(clap::Subcommand)]
pub(super) enum BenchVerb {
    /// A clip through the whole pipeline
    Pipeline(PipelineArgs),
    /// The gallery's search over synthetic templates
    Search(search::Args),
    /// The sealed store: opening, enrolling, writing anew
    Store(store::StoreArgs),
}

/// `faceid bench pipeline`
#[derive(clap::Args)]
pub(super) struct PipelineArgs {
    /// The clip
    clip: PathBuf,
    /// Play at the clip's own pace, losing frames when late, instead of flat out without loss
    #[arg(long)]
    paced: bool,
    /// Run every network on every face of every frame, as a plain port would
    #[arg(long)]
    every_frame: bool,
    /// Synthetic people in the gallery
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    gallery: usize,
    /// Count only the state folder's own gallery, with its people
    #[arg(long, conflicts_with = "gallery")]
    own_gallery: bool,
    /// The least liveness score, in place of the pack's
    #[arg(long, value_name = "T")]
    liveness_threshold: Option<f32>,
    /// Frames that are not counted, first
    #[arg(long, value_name = "N", default_value_t = 20)]
    warmup: u64,
    /// Write every frame's faces and decisions as JSON lines
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn bench(places: &Places, verb: &BenchVerb) -> Result {
    match verb {
        BenchVerb::Pipeline(args) => pipeline(places, args),
        BenchVerb::Search(args) => search::run(args),
        BenchVerb::Store(args) => store::store(places, args),
    }
}

/// A gallery in a scratch folder with `count` synthetic people of one template each.
pub(super) fn synthetic_gallery(model: &ModelId, dimension: usize, count: usize) -> Result<(Scratch, Gallery)> {
    let scratch = Scratch::new()?;
    let key = SealingKey::generate().map_err(Failure::unavailable)?;
    let settings = crate::gallery::Settings { dir: scratch.path().join("gallery"), ..crate::gallery::Settings::default() };
    let gallery = Gallery::create_or_open(&settings, &key, model, dimension);
    let gallery = gallery.map_err(Failure::unavailable)?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut people = Vec::with_capacity(count);
    for index in 0..count {
        let id = PersonId::new(format!("synthetic-{index}")).map_err(|error| Failure::new(code::BUG, error))?;
        let person =
            Person { id, name: None, groups: Vec::new(), consented_at: None, expires_at: None, enrolled_at: Wall::default() };
        people.push((person, vec![synthetic(&mut random, model, dimension)?]));
    }
    gallery.enroll_many(people).map_err(Failure::unavailable)?;
    Ok((scratch, gallery))
}

/// A direction drawn evenly from the sphere.
fn synthetic(random: &mut fastrand::Rng, model: &ModelId, dimension: usize) -> Result<Embedding> {
    // The sum of twelve uniform numbers less six is close enough to normal, and normal numbers make an even direction.
    let values = (0..dimension).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect();
    Embedding::normalised(model.clone(), values).ok_or_else(|| Failure::new(code::BUG, "a synthetic template without length"))
}

/// A folder that goes with its value.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("faceid-{}", uuid::Uuid::now_v7().simple()));
        super::run::make_private_folder(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a run gathers while frames go by.
#[derive(Default)]
struct Tally {
    frames: u64,
    looked: u64,
    faces: u64,
    decisions: Vec<Value>,
    first_decision: Option<Duration>,
    /// What the synthetic gallery took, which the time to the first decision leaves out.
    synthetic: Duration,
    ages_ms: Vec<f64>,
}

fn pipeline(places: &Places, args: &PipelineArgs) -> Result {
    let context = Context::load(places)?;
    let stack = context.open_stack()?;
    let providers = super::models::providers_json(&stack.providers);
    let mut thresholds = context.thresholds(&stack);
    if let Some(threshold) = args.liveness_threshold {
        thresholds.liveness = PadScore::new(threshold).map_err(|error| Failure::new(code::USAGE, error))?;
    }
    let mut settings = context.config.pipeline.clone();
    if args.every_frame {
        settings.idle_interval_ms = 0;
        settings.evidence_interval_ms = 0;
        // Every face is one of the best: none is passed over.
        settings.best_shots = usize::MAX;
        settings.motion.enabled = false;
    }
    let making = process::age();
    let (_scratch, gallery) = if args.own_gallery {
        (None, context.open_gallery_to_read(&stack)?)
    } else {
        let (scratch, gallery) = synthetic_gallery(stack.embedder.model(), stack.embedder.dimension(), args.gallery)?;
        (Some(scratch), gallery)
    };
    // Drawing and sealing synthetic people is no part of a start; opening a gallery that is there (`--own-gallery`) is.
    let synthetic = if args.own_gallery { Duration::ZERO } else { process::age().saturating_sub(making) };
    let mut doorway = Doorway::new(&context, (settings, !args.every_frame), stack, Arc::new(gallery), thresholds)?;
    let mut source = shots::clip_camera(&args.clip)?;
    if let Source::File(file) = &mut source.source {
        file.paced = args.paced;
    }
    let mut dump = match &args.dump {
        Some(path) => {
            let file = File::create(path).map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
            Some(BufWriter::new(file))
        }
        None => None,
    };
    let mut tally = Tally { synthetic, ..Tally::default() };
    let mut start = (Instant::now(), process::cpu_time());
    let played = replay::play(source, &context.config.secrets_dir, |frame| {
        if tally.frames == args.warmup {
            start = (Instant::now(), process::cpu_time());
        }
        tally.frames += 1;
        let now = if args.paced { None } else { Some(frame.captured_at) };
        let (seen, decisions, now) = doorway.see(frame, now)?;
        tally.note(&seen, &decisions, now);
        if let Some(file) = &mut dump {
            let line = dump_line(frame.number, &seen, &decisions);
            writeln!(file, "{line}").map_err(|error| Failure::unavailable(format!("--dump: {error}")))?;
        }
        Ok(true)
    })?;
    let (wall, cpu) = (start.0.elapsed(), process::cpu_time().saturating_sub(start.1));
    let (seen, decisions, end) = doorway.end(args.paced);
    tally.note(&seen, &decisions, end);
    if tally.frames == 0 {
        return Err(Failure::data(format!("{}: no frame came: {}", args.clip.display(), played.fault)));
    }
    let counted = tally.frames.saturating_sub(args.warmup);
    let timings = doorway.timings();
    let report = json!({
        "clip": args.clip.file_name().map(|name| name.to_string_lossy().into_owned()),
        "mode": if args.paced { "paced" } else { "flat" },
        "every_frame": args.every_frame,
        "providers": providers,
        "frames": tally.frames,
        "frames_lost": played.lost,
        "frames_detected_on": tally.looked,
        "faces": tally.faces,
        "wall_s": round(wall.as_secs_f64()),
        "cpu_s": round(cpu.as_secs_f64()),
        "frames_per_cpu_s": round(counted as f64 / cpu.as_secs_f64().max(1e-9)),
        "cpu_percent": round(100.0 * cpu.as_secs_f64() / wall.as_secs_f64().max(1e-9)),
        "peak_rss_mb": round(process::peak_resident_bytes().unwrap_or(0) as f64 / 1e6),
        "start_to_first_decision_ms": tally.first_decision.map(|d| round(d.as_secs_f64() * 1e3)),
        "capture_to_decision_ms": quantiles(&mut tally.ages_ms),
        "stages": Stage::ALL.iter().map(|stage| {
            let times = timings.of(*stage).summary();
            json!({"name": stage.name(), "n": times.n, "p50_us": times.p50_us, "p99_us": times.p99_us})
        }).collect::<Vec<_>>(),
        "decisions": tally.decisions,
    });
    if args.json {
        say_json(&report);
    } else {
        tell(&report);
    }
    Ok(code::YES)
}

impl Tally {
    fn note(&mut self, seen: &Seen, decisions: &[Decision], now: Moment) {
        self.looked += u64::from(seen.looked);
        self.faces += seen.faces.len() as u64;
        for decision in decisions {
            let synthetic = self.synthetic;
            self.first_decision.get_or_insert_with(|| process::age().saturating_sub(synthetic));
            self.ages_ms.push(now.monotonic.since(decision.captured_at.monotonic).as_secs_f64() * 1e3);
            self.decisions.push(decision_json(decision));
        }
    }
}

fn decision_json(decision: &Decision) -> Value {
    json!({
        "outcome": decision.outcome.as_str(),
        "reason": decision.reason.as_str(),
        "person": decision.person,
        "track": decision.track,
        "frames": decision.evidence.frames,
    })
}

fn dump_line(frame: u64, seen: &Seen, decisions: &[Decision]) -> Value {
    let faces: Vec<Value> = seen
        .faces
        .iter()
        .map(|face| {
            let b = face.detection.bounding_box;
            json!({"track": face.track, "box": [b.x, b.y, b.width, b.height], "points": face.detection.landmarks,
                   "confidence": face.detection.confidence, "live": face.liveness, "score": face.best})
        })
        .collect();
    json!({"frame": frame, "looked": seen.looked, "faces": faces, "decisions": decisions.iter().map(decision_json).collect::<Vec<_>>()})
}

fn tell(report: &Value) {
    for (key, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Array(rows) => {
                say(format!("{key}:"));
                rows.iter().for_each(|row| say(format!("  {row}")));
            }
            value => say(format!("{key}: {value}")),
        }
    }
}

fn quantiles(values: &mut [f64]) -> Value {
    if values.is_empty() {
        return json!({"n": 0});
    }
    values.sort_by(f64::total_cmp);
    let at = |q: f64| round(values[((values.len() - 1) as f64 * q).round() as usize]);
    json!({"n": values.len(), "min": at(0.0), "p50": at(0.5), "p99": at(0.99)})
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
