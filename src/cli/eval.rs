//! `eval`: error rates on photos whose truth is known. This file holds what its verbs share: lists and photos in, rates and plots out.

mod alike;
pub(super) mod calibrate;
mod door;
mod identification;
mod liveness;
mod motion;
mod site;
mod verification;
mod visits;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::context::Context;
use super::{Failure, Places, Result, complain, progress, say};
use crate::capture::still;
use crate::evaluation::interval::CONFIDENCE;
use crate::evaluation::plots::Plot;
use crate::evaluation::protocol::Photo;
use crate::evaluation::{Interval, ProtocolError, Rate};
use crate::pipeline::{self, Asked};
use crate::types::Embedding;
use crate::vision::stack::Stack;

/// The largest list that is read, in bytes: a million pairs and more.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Photos that failed which are named on standard error; `--json` names all.
const NAMED: usize = 20;

/// `faceid eval …`
#[derive(clap::Subcommand)]
pub(super) enum EvalVerb {
    /// One-to-one comparison on LFW's protocol: FMR, FNMR, EER, TAR at FAR, cross-validated accuracy
    Verification(verification::Args),
    /// Strangers that count: the errors of networks among random pairs of people beside those among the pairs that other networks find
    /// most alike
    Alike(alike::Args),
    /// Search among many: rank-1, and FNIR at FPIR by leaving each person out
    Identification(identification::Args),
    /// A door trial: people enrolled, clips played as visits through the whole pipeline; false grants and false refusals per visit
    Door(door::Args),
    /// Simulated visits of strangers at sites of people who resemble them: false grants a visit by the size of the site, and the thresholds
    /// that keep to a target
    Visits(visits::Args),
    /// Presentation attacks: APCER of each species and BPCER
    Liveness(liveness::Args),
    /// What the cues over several frames are worth, on clips: the networks fused, the points' parallax, the turn of the head
    Motion(motion::Args),
}

/// What the verbs have in common.
#[derive(clap::Args)]
struct Output {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Write DET curve and score histogram into this folder, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

pub(super) fn eval(places: &Places, verb: &EvalVerb) -> Result {
    match verb {
        EvalVerb::Verification(args) => verification::run(places, args),
        EvalVerb::Alike(args) => alike::run(places, args),
        EvalVerb::Identification(args) => identification::run(places, args),
        EvalVerb::Door(args) => door::run(places, args),
        EvalVerb::Visits(args) => visits::run(places, args),
        EvalVerb::Liveness(args) => liveness::run(places, args),
        EvalVerb::Motion(args) => motion::run(places, args),
    }
}

/// Reads a list with `parse`; what is wrong is told with file and line.
fn read_list<T>(path: &Path, parse: impl Fn(&str) -> std::result::Result<T, ProtocolError>) -> Result<T> {
    let wrong = |reason: &dyn std::fmt::Display| Failure::data(format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that what is too long shows, from a pipe too.
    file.take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(wrong(&format!("has more than {MAX_LIST_BYTES} bytes")));
    }
    parse(&String::from_utf8_lossy(&bytes)).map_err(|error| wrong(&error))
}

/// A folder that has to be there.
fn need_folder(path: &Path) -> Result<()> {
    if path.is_dir() { Ok(()) } else { Err(Failure::data(format!("{}: is no folder", path.display()))) }
}

/// The embeddings of photos, each photo looked at once.
struct Templates {
    embeddings: BTreeMap<Photo, Embedding>,
    /// Photos that gave none, with the reason.
    failures: Vec<(String, String)>,
    photos: u64,
}

impl Templates {
    /// Embeds each photo's subject. Photos below `images`; with `gated` what enrolment would refuse is refused here too.
    fn of<'a>(
        context: &Context,
        stack: &mut Stack,
        images: &Path,
        photos: impl Iterator<Item = &'a Photo>,
        gated: bool,
    ) -> Result<Self> {
        let mut wanted: Vec<&Photo> = photos.collect();
        wanted.sort();
        wanted.dedup();
        let bar = progress(wanted.len() as u64, "photos");
        let mut templates = Self { embeddings: BTreeMap::new(), failures: Vec::new(), photos: wanted.len() as u64 };
        for photo in wanted {
            match embed(context, stack, &images.join(&photo.path), gated)? {
                Ok(embedding) => {
                    templates.embeddings.insert(photo.clone(), embedding);
                }
                Err(reason) => templates.failures.push((photo.path.clone(), reason)),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(templates)
    }

    fn get(&self, photo: &Photo) -> Option<&Embedding> {
        self.embeddings.get(photo)
    }

    /// The failure-to-enrol rate (ISO/IEC 19795-1).
    fn failure_to_enroll(&self) -> Rate {
        Rate::new(self.failures.len() as u64, self.photos)
    }

    fn complain(&self) {
        complain_of(&self.failures);
    }
}

fn complain_of(failures: &[(String, String)]) {
    for (photo, reason) in failures.iter().take(NAMED) {
        complain(format!("{photo}: {reason}"));
    }
    if failures.len() > NAMED {
        complain(format!("{} more photos failed; --json names all", failures.len() - NAMED));
    }
}

/// A photo's embedding, or why there is none. Only what stops every other photo too is an error.
fn embed(context: &Context, stack: &mut Stack, path: &Path, gated: bool) -> Result<std::result::Result<Embedding, String>> {
    let picture = match still::read_picture(path) {
        Ok(picture) => picture,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let face = pipeline::look_at_subject(stack, &picture, context.quality(), Asked::Embedding).map_err(Failure::unavailable)?;
    let Some(face) = face else { return Ok(Err("no face found".into())) };
    let refusal = face.quality.as_ref().and_then(|quality| quality.refusals.first());
    Ok(match (refusal, face.embedding) {
        (Some(refusal), _) if gated => Err(format!("the face is refused: {}", refusal.as_str())),
        (_, Some(embedding)) => Ok(embedding),
        (_, None) => Err("the face cannot be aligned or says nothing".into()),
    })
}

fn failures_json(failures: &[(String, String)]) -> Value {
    failures.iter().map(|(photo, reason)| json!({"image": photo, "reason": reason})).collect()
}

/// How every report begins: what was judged, and how.
fn header(stack: &Stack, gated: Option<bool>) -> Map<String, Value> {
    let mut report = Map::new();
    report.insert("pack".into(), json!(stack.pack));
    report.insert("providers".into(), super::models::providers_json(&stack.providers));
    report.insert("confidence".into(), json!(CONFIDENCE));
    if let Some(gated) = gated {
        report.insert("quality_gate".into(), json!(gated));
    }
    report
}

fn interval_json(interval: Interval) -> Value {
    json!([rounded(interval.low), rounded(interval.high)])
}

fn rate_json(rate: Rate) -> Value {
    json!({"value": rate.value().map(rounded), "interval": interval_json(rate.interval()), "count": rate.count, "n": rate.trials})
}

/// A share as percent, with its interval and what it is of.
fn percent(rate: Rate) -> String {
    let Interval { low, high } = rate.interval();
    match rate.value() {
        Some(value) => {
            format!("{:.2} % [{:.2}, {:.2}] ({} of {})", value * 100.0, low * 100.0, high * 100.0, rate.count, rate.trials)
        }
        None => "not measured (none)".to_owned(),
    }
}

/// Six digits: finer than any interval here.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A target rate as a key: `1e-3`.
fn key(rate: f64) -> String {
    format!("{rate:e}")
}

/// Writes each plot as `NAME.svg` and `NAME.png`, and gives the files.
fn save_plots(folder: &Path, plots: &[(&str, Plot)]) -> Result<Vec<PathBuf>> {
    let lost = |path: &Path, error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| lost(folder, &error))?;
    let mut files = Vec::new();
    for (name, plot) in plots {
        let svg = folder.join(format!("{name}.svg"));
        let text = plot.svg().map_err(|error| lost(&svg, &error))?;
        std::fs::write(&svg, text).map_err(|error| lost(&svg, &error))?;
        let png = folder.join(format!("{name}.png"));
        let raster = plot.raster().map_err(|error| lost(&png, &error))?;
        image::save_buffer(&png, &raster.rgb, raster.width, raster.height, image::ExtendedColorType::Rgb8)
            .map_err(|error| lost(&png, &error))?;
        files.extend([svg, png]);
    }
    Ok(files)
}

/// Writes the plots that were asked for and says where they are.
fn plot(output: &Output, plots: &[(&str, Plot)]) -> Result<()> {
    let Some(folder) = &output.plots else { return Ok(()) };
    for file in save_plots(folder, plots)? {
        if !output.json {
            say(format!("wrote {}", file.display()));
        }
    }
    Ok(())
}
