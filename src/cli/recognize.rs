//! `recognize` and `liveness`: what the networks say about photos.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::annotate::{self, Ink};
use super::context::Context;
use super::{Failure, Places, Result, code, complain, say, say_json};
use crate::capture::still;
use crate::gallery::{Match, Snapshot};
use crate::pipeline::{self, StillFace, Verdict};
use crate::types::{BoundingBox, PersonId, Picture, Score};
use crate::vision::stack::PackThresholds;

/// The most people that `--json` names for a face.
const CANDIDATES: usize = 5;

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
    /// An array of {"image", "faces": [{"box", "identity", "verified", "score", "live", "reason", "candidates"}]}; a candidate is
    /// {"person", "score", "second", "templates"}: with one person's best and second-best template
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

pub(super) fn recognize(places: &Places, args: &RecognizeArgs) -> Result {
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery_to_read(&stack)?;
    // By an older gallery than there was nobody is let in, so nobody is said to be verified.
    let trusted = gallery.trusted().ok_or_else(|| {
        let rollback = gallery.rollback().map(|rollback| rollback.to_string()).unwrap_or_default();
        let text = format!("the gallery is not the newest: {rollback}; nobody is recognised by it until it is accepted with `faceid gallery verify --accept-rollback`");
        Failure::unavailable(text)
    });
    let snapshot = trusted?;
    let at_doors = context.thresholds_at(&stack, snapshot.stats().people);
    let mut thresholds = PackThresholds { matching: at_doors.matching, margin: at_doors.margin, liveness: at_doors.liveness };
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
                rows.push(json!({"image": path.to_string_lossy(), "faces": [], "error": error.to_string()}));
                continue;
            }
        };
        let faces = pipeline::look(&mut stack, &picture, context.quality()).map_err(Failure::unavailable)?;
        let verdicts: Vec<Verdict> = faces.iter().map(|face| pipeline::judge(face, &snapshot, &thresholds)).collect();
        anyone |= verdicts.iter().any(Verdict::is_verified);
        if !args.json {
            tell(path, &faces, &verdicts);
        }
        if let Some(folder) = &args.annotate {
            save_annotated(folder, path, &picture, &faces, &verdicts)?;
        }
        let faces = faces.iter().zip(&verdicts).map(|(face, verdict)| face_json(face, verdict, &snapshot));
        let faces: Vec<Value> = faces.collect();
        rows.push(json!({"image": path.to_string_lossy(), "faces": faces}));
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
                rows.push(json!({"image": path.to_string_lossy(), "faces": [], "error": error.to_string()}));
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
        rows.push(json!({"image": path.to_string_lossy(), "faces": shown}));
    }
    if args.json {
        say_json(&Value::Array(rows));
    }
    Ok(if broken { code::DATA } else { u8::from(!all_live) })
}

fn tell(path: &Path, faces: &[StillFace], verdicts: &[Verdict]) {
    if faces.is_empty() {
        say(format!("{}: no face", path.display()));
    }
    for (face, verdict) in faces.iter().zip(verdicts) {
        let who = verdict.identity.as_ref().map_or("unknown", PersonId::as_str);
        let score = verdict.score.map_or_else(|| "-".to_owned(), |score| format!("{:.3}", score.value()));
        let live = match verdict.live {
            Some(true) => "live",
            Some(false) => "not live",
            None => "liveness not checked",
        };
        let at = place(&face.detection.bounding_box);
        say(format!("{}: {who} (score {score}, {live}, {}, at {at})", path.display(), verdict.reason));
    }
}

fn face_json(face: &StillFace, verdict: &Verdict, snapshot: &Snapshot) -> Value {
    let matches = face.embedding.as_ref().and_then(|probe| snapshot.matches(probe, CANDIDATES).ok()).unwrap_or_default();
    let candidate = |found: &Match| {
        json!({
            "person": found.person, "score": rounded(found.best.value()), "templates": found.templates,
            "second": found.second.map(|score| rounded(score.value())),
        })
    };
    json!({
        "box": rectangle(&face.detection.bounding_box),
        "identity": verdict.identity.as_ref().map(PersonId::as_str),
        "verified": verdict.is_verified(),
        "score": verdict.score.map(|score| rounded(score.value())),
        "live": verdict.live,
        "reason": verdict.reason,
        "candidates": matches.iter().map(candidate).collect::<Vec<_>>(),
    })
}

fn save_annotated(folder: &Path, path: &Path, picture: &Picture, faces: &[StillFace], verdicts: &[Verdict]) -> Result<()> {
    let mut image = annotate::canvas(picture);
    for (face, verdict) in faces.iter().zip(verdicts) {
        let ink = if verdict.is_verified() { Ink::Green } else { Ink::Red };
        let label = format!("{} {}", verdict.identity.as_ref().map_or("unknown", PersonId::as_str), verdict.reason);
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
