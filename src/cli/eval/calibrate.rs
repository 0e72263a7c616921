//! `calibrate`: the match threshold for a target FPIR at the gallery's size, from photos of people like those at the door; or, from what
//! the doors measured themselves, what each threshold costs there.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::import::folders_in;
use super::super::{Failure, Places, Result, code, complain, say, say_json};
use super::{Output, Templates, failures_json, header, percent, plot, rate_json, rounded, verification};
use crate::evaluation::calibration::{comparisons_for, fmr_for};
use crate::evaluation::protocol::Photo;
use crate::evaluation::{Comparison, Verification};

/// The most photos: their pairs are all compared, and the scores of 20,000 take 800 MB.
const MAX_PHOTOS: usize = 20_000;

/// `faceid calibrate`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder of photos for each person; every pair of photos is compared
    #[arg(long, value_name = "DIR", required_unless_present = "from_site")]
    images: Option<PathBuf>,
    /// What each threshold would cost at the doors of this site, by the strangers who were refused there and the people who were let in,
    /// and who is often close to it; no photos are needed. As the daemon wrote it down last, which is every five minutes
    #[arg(long, conflicts_with_all = ["images", "fpir", "templates", "gated"])]
    from_site: bool,
    /// The share of searches by people who are not enrolled that may find somebody
    #[arg(long, value_name = "RATE", default_value_t = 0.001, value_parser = parse_rate)]
    fpir: f64,
    /// How many templates are searched [default: as many as the gallery has now]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    templates: Option<u64>,
    /// Refuse the photos that enrolment would refuse, and count them as failures to enrol [default: every face that is found counts]
    #[arg(long)]
    gated: bool,
    #[command(flatten)]
    output: Output,
}

fn parse_rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate < 1.0 => Ok(rate),
        _ => Err("write a rate above 0 and below 1, for example 0.001".to_owned()),
    }
}

pub(in crate::cli) fn run(places: &Places, args: &Args) -> Result {
    let Some(images) = &args.images else { return super::site::run(places, args.output.json) };
    let photos = photos_in(images)?;
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let size = match args.templates {
        Some(templates) => templates,
        None => (context.open_gallery_to_read(&stack)?.snapshot().stats().templates as u64).max(1),
    };
    let templates = Templates::of(&context, &mut stack, images, photos.iter(), args.gated)?;
    templates.complain();
    let comparisons = compare_all(&templates);
    let verification = Verification::new(&comparisons);
    let (fmr, trials) = (fmr_for(args.fpir, size), verification.non_mated().len() as u64);
    let Some(point) = verification.shown_at(fmr) else {
        let needed = comparisons_for(fmr);
        return Err(Failure::data(format!(
            "{}: FPIR {} with {size} templates is an FMR of {fmr:.1e}, which {trials} comparisons of different people cannot show: \
             {needed} can, which is about {} photos of different people; or ask for a higher --fpir",
            images.display(),
            args.fpir,
            ((2.0 * needed as f64).sqrt() + 1.0).ceil()
        )));
    };
    let pack = context.thresholds_at(&stack, usize::try_from(size).unwrap_or(usize::MAX)).matching.value();
    let now = verification.at(pack);
    if args.output.json {
        let mut report = header(&stack, Some(args.gated));
        let at = |point: &verification::Operating| json!({"threshold": point.threshold, "fmr": rate_json(point.fmr), "fnmr": rate_json(point.fnmr)});
        for (name, value) in [
            ("fpir", json!(args.fpir)),
            ("templates", json!(size)),
            ("fmr", json!(fmr)),
            ("photos", json!(templates.photos)),
            ("failures_to_enroll", json!(templates.failures.len())),
            ("failed_photos", failures_json(&templates.failures)),
            ("n_same", json!(verification.mated().len())),
            ("n_different", json!(trials)),
            ("threshold", json!(rounded(f64::from(point.threshold)))),
            ("at_threshold", at(&point)),
            ("in_use", at(&now)),
        ] {
            report.insert(name.to_owned(), value);
        }
        say_json(&Value::Object(Map::from_iter(report)));
    } else {
        say(format!(
            "pack {}, {} photos, failure to enrol {}",
            stack.pack,
            templates.photos,
            percent(templates.failure_to_enroll())
        ));
        say(format!("FPIR {} among {size} templates allows one comparison an FMR of {fmr:.2e}", args.fpir));
        say(format!("threshold {:.4}: FMR {}, FNMR {}", point.threshold, percent(point.fmr), percent(point.fnmr)));
        say(format!("in use {pack:.4}: FMR {}, FNMR {}", percent(now.fmr), percent(now.fnmr)));
        say(format!("in the config, under [access]: match-threshold = {:.3}", (point.threshold * 1000.0).ceil() / 1000.0));
        if now.fmr.value() > Some(fmr) {
            complain("the threshold in use lets more strangers pass than was asked for");
        }
    }
    plot(&args.output, &verification::plots(&stack.pack, &verification))?;
    Ok(code::YES)
}

fn photos_in(images: &Path) -> Result<Vec<Photo>> {
    let mut photos = Vec::new();
    let folders = folders_in(images)?;
    for (folder, files) in &folders {
        let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let person = name(folder);
        photos.extend(files.iter().map(|file| Photo { path: format!("{person}/{}", name(file)), person: person.clone() }));
    }
    let wrong = |text: String| Err(Failure::data(format!("{}: {text}", images.display())));
    match (folders.len(), photos.len()) {
        (0 | 1, _) => wrong("strangers are compared with each other: two folders of people or more are needed".into()),
        (_, many) if many > MAX_PHOTOS => wrong(format!("{many} photos; {MAX_PHOTOS} are the most")),
        _ => Ok(photos),
    }
}

/// Every pair of photos once.
fn compare_all(templates: &Templates) -> Vec<Comparison> {
    let all: Vec<_> = templates.embeddings.iter().collect();
    let mut comparisons = Vec::with_capacity(all.len() * all.len().saturating_sub(1) / 2);
    for (index, (photo, embedding)) in all.iter().enumerate() {
        for (other, reference) in &all[index + 1..] {
            if let Some(score) = embedding.compare(reference) {
                comparisons.push(Comparison { score, mated: photo.person == other.person, fold: 0 });
            }
        }
    }
    comparisons
}
