//! `recognize` and `liveness`: what the networks say about photos.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::annotate::{self, Ink};
use super::context::Context;
use super::{Failure, Places, Result, code, complain, say, say_json};
use crate::access::Thresholds;
use crate::capture::still;
use crate::gallery::Snapshot;
use crate::pipeline::{self, StillFace};
use crate::types::{BoundingBox, Picture, Reason, Score};

/// `faceid recognize`
#[derive(clap::Args)]
pub(super) struct RecognizeArgs {
    /// Photos (JPEG, PNG, WebP, BMP)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The least comparison score of a match, -1 to 1 [default: the model's own]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Write each photo with boxes and names into this folder
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
    /// An array of {"image", "faces": [{"box", "identity", "verified", "score", "live", "reason"}]}
    #[arg(long)]
    json: bool,
}

/// `faceid liveness`
#[derive(clap::Args)]
pub(super) struct LivenessArgs {
    /// Photos (JPEG, PNG, WebP, BMP)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// An array of {"image", "faces": [{"box", "live", "score"}]}
    #[arg(long)]
    json: bool,
}

/// What is said of one face.
struct Verdict {
    identity: Option<String>,
    verified: bool,
    score: Option<f32>,
    live: Option<bool>,
    reason: &'static str,
}

pub(super) fn recognize(places: &Places, args: &RecognizeArgs) -> Result {
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery_to_read(&stack)?;
    let snapshot = gallery.snapshot();
    let mut thresholds = context.thresholds(&stack);
    if let Some(threshold) = args.threshold {
        thresholds.matching = Score::new(threshold).map_err(|error| Failure::new(code::USAGE, format!("--threshold: {error}")))?;
    }
    if let Some(folder) = &args.annotate {
        std::fs::create_dir_all(folder).map_err(|e| Failure::unavailable(format!("{}: {e}", folder.display())))?;
    }
    let (mut rows, mut anyone, mut broken) = (Vec::new(), false, false);
    for path in &args.images {
        let picture = match still::read_picture(path) {
            Ok(picture) => picture,
            Err(error) => {
                broken = true;
                complain(format!("{}: {error}", path.display()));
                rows.push(json!({"image": path, "faces": [], "error": error.to_string()}));
                continue;
            }
        };
        let faces = pipeline::look(&mut stack, &picture, context.quality()).map_err(Failure::unavailable)?;
        let verdicts: Vec<Verdict> = faces.iter().map(|face| judge(face, &snapshot, &thresholds)).collect();
        anyone |= verdicts.iter().any(|v| v.verified);
        if !args.json {
            tell(path, &faces, &verdicts);
        }
        if let Some(folder) = &args.annotate {
            save_annotated(folder, path, &picture, &faces, &verdicts)?;
        }
        let faces: Vec<Value> = faces.iter().zip(&verdicts).map(|(face, verdict)| face_json(face, verdict)).collect();
        rows.push(json!({"image": path, "faces": faces}));
    }
    if args.json {
        say_json(&Value::Array(rows));
    }
    Ok(if broken { code::DATA } else { u8::from(!anyone) })
}

pub(super) fn liveness(places: &Places, args: &LivenessArgs) -> Result {
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let threshold = context.thresholds(&stack).liveness;
    if stack.liveness.is_none() {
        return Err(Failure::unavailable(format!("pack `{}` claims no liveness: choose another with --pack", stack.pack)));
    }
    let (mut rows, mut all_live, mut broken) = (Vec::new(), true, false);
    for path in &args.images {
        let picture = match still::read_picture(path) {
            Ok(picture) => picture,
            Err(error) => {
                broken = true;
                complain(format!("{}: {error}", path.display()));
                rows.push(json!({"image": path, "faces": [], "error": error.to_string()}));
                continue;
            }
        };
        let faces = pipeline::look(&mut stack, &picture, context.quality()).map_err(Failure::unavailable)?;
        all_live &= !faces.is_empty();
        let mut shown = Vec::new();
        for face in &faces {
            let score = face.liveness.map_or(0.0, f32::from);
            let live = face.liveness.is_some_and(|score| score >= threshold);
            all_live &= live;
            shown.push(json!({"box": rectangle(&face.detection.bounding_box), "live": live, "score": rounded(score)}));
            if !args.json {
                let word = if live { "live" } else { "not live" };
                say(format!("{}: {word} (score {score:.3}, at {})", path.display(), place(&face.detection.bounding_box)));
            }
        }
        if faces.is_empty() && !args.json {
            say(format!("{}: no face", path.display()));
        }
        rows.push(json!({"image": path, "faces": shown}));
    }
    if args.json {
        say_json(&Value::Array(rows));
    }
    Ok(if broken { code::DATA } else { u8::from(!all_live) })
}

/// The rules of the door for one photo, but for what needs several frames.
fn judge(face: &StillFace, snapshot: &Snapshot, thresholds: &Thresholds) -> Verdict {
    let live = face.liveness.map(|score| score >= thresholds.liveness);
    let candidates = face.embedding.as_ref().and_then(|probe| snapshot.search(probe, 2).ok()).unwrap_or_default();
    let best = candidates.first();
    let score = best.map(|c| c.score.value());
    let matched = best.filter(|c| c.score >= thresholds.matching);
    let rival = candidates.get(1).map_or(f32::NEG_INFINITY, |c| c.score.value());
    let reason = match (matched, live) {
        (None, _) => {
            face.quality.as_ref().and_then(|q| q.refusals.first()).map_or(Reason::Unknown.as_str(), |refusal| refusal.as_str())
        }
        (Some(best), _) if best.score.value() - rival < thresholds.margin => Reason::Ambiguous.as_str(),
        (Some(_), Some(false)) => Reason::Spoof.as_str(),
        (Some(_), _) => Reason::Match.as_str(),
    };
    let identity = matched.map(|c| c.person.to_string());
    Verdict { verified: reason == Reason::Match.as_str(), identity, score, live, reason }
}

fn tell(path: &Path, faces: &[StillFace], verdicts: &[Verdict]) {
    if faces.is_empty() {
        say(format!("{}: no face", path.display()));
    }
    for (face, verdict) in faces.iter().zip(verdicts) {
        let who = verdict.identity.as_deref().unwrap_or("unknown");
        let score = verdict.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.3}"));
        let live = match verdict.live {
            Some(true) => "live",
            Some(false) => "not live",
            None => "liveness not checked",
        };
        let at = place(&face.detection.bounding_box);
        say(format!("{}: {who} (score {score}, {live}, {}, at {at})", path.display(), verdict.reason));
    }
}

fn face_json(face: &StillFace, verdict: &Verdict) -> Value {
    json!({
        "box": rectangle(&face.detection.bounding_box),
        "identity": verdict.identity,
        "verified": verdict.verified,
        "score": verdict.score.map(rounded),
        "live": verdict.live,
        "reason": verdict.reason,
    })
}

fn save_annotated(folder: &Path, path: &Path, picture: &Picture, faces: &[StillFace], verdicts: &[Verdict]) -> Result<()> {
    let mut image = annotate::canvas(picture);
    for (face, verdict) in faces.iter().zip(verdicts) {
        let ink = if verdict.verified { Ink::Green } else { Ink::Red };
        let label = format!("{} {}", verdict.identity.as_deref().unwrap_or("unknown"), verdict.reason);
        annotate::face(&mut image, &face.detection.bounding_box, &face.detection.landmarks, &label, ink);
    }
    let stem = path.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy().into_owned());
    let target = folder.join(format!("{stem}.annotated.png"));
    image.save(&target).map_err(|error| Failure::unavailable(format!("{}: {error}", target.display())))
}

/// x, y, width, height in whole pixels.
fn rectangle(b: &BoundingBox) -> Value {
    json!([b.x.round() as i64, b.y.round() as i64, b.width.round() as i64, b.height.round() as i64])
}

fn place(b: &BoundingBox) -> String {
    format!("{:.0},{:.0} {:.0}x{:.0}", b.x, b.y, b.width, b.height)
}

fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}
