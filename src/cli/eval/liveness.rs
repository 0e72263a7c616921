//! `eval liveness`: folders of bona fide photos and of attacks, a folder a species.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::{Failure, Places, Result, code, progress, say, say_json};
use super::{Output, complain_of, failures_json, header, key, percent, plot, rate_json};
use crate::capture::still;
use crate::evaluation::attack::ATTACK_ERROR_RATES;
use crate::evaluation::plots::Plot;
use crate::evaluation::{AttackDetection, Presentations};
use crate::pipeline::{self, Asked};
use crate::types::PadScore;
use crate::vision::stack::Stack;

/// Folders within folders that are followed.
const DEPTH: usize = 8;

/// `faceid eval liveness`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// A folder of photos of living people; folders in it are followed
    #[arg(long, value_name = "DIR")]
    live: PathBuf,
    /// A species of attack and its folder of photos; may be given more than once
    #[arg(long = "attack", value_name = "NAME=DIR", required = true, value_parser = parse_attack)]
    attacks: Vec<(String, PathBuf)>,
    /// The least score of a living face [default: the pack's]
    #[arg(long, value_name = "T")]
    threshold: Option<f32>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn parse_attack(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => Ok((name.to_owned(), dir.into())),
        _ => Err("write NAME=DIR, for example print=photos/print".to_owned()),
    }
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let live = photos_in(&args.live)?;
    let mut folders = BTreeMap::<&str, Vec<PathBuf>>::new();
    for (name, folder) in &args.attacks {
        folders.entry(name).or_default().extend(photos_in(folder)?);
    }
    let mut stack = context.open_stack()?;
    if stack.liveness.is_none() {
        return Err(Failure::unavailable(format!("pack `{}` claims no liveness: choose another with --pack", stack.pack)));
    }
    let threshold = match args.threshold {
        Some(value) => PadScore::new(value).map_err(|error| Failure::new(code::USAGE, format!("--threshold: {error}")))?,
        None => context.thresholds(&stack).liveness,
    };
    let bar = progress((live.len() + folders.values().map(Vec::len).sum::<usize>()) as u64, "photos");
    let mut failures = Vec::new();
    let mut judge = |photos: &[PathBuf]| judge(&context, &mut stack, photos, &mut failures, &bar);
    let mut detection = AttackDetection { bona_fide: judge(&live)?, ..AttackDetection::default() };
    for (name, photos) in &folders {
        detection.species.insert((*name).to_owned(), judge(photos)?);
    }
    bar.finish_and_clear();
    complain_of(&failures);
    if args.output.json {
        let mut report = header(&stack, None);
        add_to(&mut report, &detection, threshold.value());
        report.insert("failed_photos".into(), failures_json(&failures));
        say_json(&Value::Object(report));
    } else {
        say(format!("pack {}, liveness threshold {:.3}", stack.pack, threshold.value()));
        tell(&detection, threshold.value());
    }
    plot(&args.output, &plots(&stack.pack, &detection))?;
    Ok(code::YES)
}

/// Liveness scores of the photos' subjects. A photo that gives none is a non-response, a file that cannot be read is no presentation
/// at all; both are told in `failures`.
fn judge(
    context: &Context,
    stack: &mut Stack,
    photos: &[PathBuf],
    failures: &mut Vec<(String, String)>,
    bar: &indicatif::ProgressBar,
) -> Result<Presentations> {
    let (mut scores, mut without_answer) = (Vec::new(), 0);
    for path in photos {
        let score = match still::read_picture(path) {
            Ok(picture) => {
                let face = pipeline::look_at_subject(stack, &picture, context.quality(), Asked::Liveness);
                let face = face.map_err(Failure::unavailable)?;
                let found = if face.is_some() { "the face gives no liveness score" } else { "no face found" };
                let score = face.and_then(|face| face.liveness);
                without_answer += u64::from(score.is_none());
                score.ok_or_else(|| found.to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        match score {
            Ok(score) => scores.push(score),
            Err(reason) => failures.push((path.display().to_string(), reason)),
        }
        bar.inc(1);
    }
    Ok(Presentations::new(&scores, without_answer))
}

/// Every file below a folder, sorted.
pub(super) fn photos_in(folder: &Path) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Links to folders are not followed: they could lead round in a circle.
            if entry.file_type()?.is_dir() {
                if depth > 0 {
                    walk(&entry.path(), depth - 1, files)?;
                }
            } else {
                files.push(entry.path());
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(folder, DEPTH, &mut files).map_err(|error| Failure::data(format!("{}: {error}", folder.display())))?;
    files.sort();
    if files.is_empty() {
        return Err(Failure::data(format!("{}: holds no photo", folder.display())));
    }
    Ok(files)
}

fn add_to(report: &mut Map<String, Value>, detection: &AttackDetection, threshold: f32) {
    let species = detection.apcer(threshold).into_iter().map(|(name, rate)| {
        let attacks = &detection.species[name];
        (name.to_owned(), json!({"apcer": rate_json(rate), "apnrr": rate_json(attacks.non_response())}))
    });
    let at_apcer = ATTACK_ERROR_RATES.iter().filter_map(|apcer| {
        let (threshold, bpcer) = detection.bpcer_at(*apcer)?;
        Some((key(*apcer), json!({"bpcer": rate_json(bpcer), "threshold": threshold})))
    });
    for (name, value) in [
        ("threshold", json!(threshold)),
        ("bpcer", rate_json(detection.bpcer(threshold))),
        ("bpnrr", rate_json(detection.bona_fide.non_response())),
        ("species", Value::Object(Map::from_iter(species))),
        ("worst_species", json!(detection.worst(threshold).map(|(name, _)| name))),
        ("bpcer_at_apcer", Value::Object(Map::from_iter(at_apcer))),
    ] {
        report.insert(name.to_owned(), value);
    }
}

fn tell(detection: &AttackDetection, threshold: f32) {
    let unanswered = |kind: &Presentations| percent(kind.non_response());
    say(format!("BPCER: {}; no answer: {}", percent(detection.bpcer(threshold)), unanswered(&detection.bona_fide)));
    for (name, rate) in detection.apcer(threshold) {
        say(format!("APCER of {name}: {}; no answer: {}", percent(rate), unanswered(&detection.species[name])));
    }
    for apcer in ATTACK_ERROR_RATES {
        if let Some((threshold, bpcer)) = detection.bpcer_at(apcer) {
            say(format!("BPCER where no species' APCER is above {}: {} at threshold {threshold:.4}", key(apcer), percent(bpcer)));
        }
    }
}

fn plots(pack: &str, detection: &AttackDetection) -> [(&'static str, Plot); 2] {
    let bona_fide = detection.bona_fide.scores();
    let curve = |attacks: &Presentations| {
        let thresholds = bona_fide.iter().chain(attacks.scores()).copied();
        let share = |scores: &[f32], threshold: f32| {
            scores.iter().filter(|score| **score >= threshold).count() as f64 / scores.len().max(1) as f64
        };
        let point = |threshold: f32| (share(attacks.scores(), threshold), 1.0 - share(bona_fide, threshold));
        let mut points: Vec<(f64, f64)> = thresholds.map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        points
    };
    let det = Plot::Det {
        title: format!("Presentation attacks: error trade-off, pack {pack}"),
        axes: ["APCER".into(), "BPCER".into()],
        curves: detection.species.iter().map(|(name, attacks)| (name.clone(), curve(attacks))).collect(),
    };
    let groups = detection.species.iter().map(|(name, attacks)| (name.clone(), attacks.scores().to_vec()));
    let histogram = Plot::Histogram {
        title: format!("Presentation attacks: scores, pack {pack}"),
        axis: "liveness score".into(),
        groups: std::iter::once(("bona fide".to_owned(), bona_fide.to_vec())).chain(groups).collect(),
    };
    [("liveness-det", det), ("liveness-scores", histogram)]
}
