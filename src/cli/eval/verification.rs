//! `eval verification`: LFW's pairs, or any list in its form.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::{Failure, Places, Result, code, say, say_json};
use super::{
    Output, Templates, failures_json, header, interval_json, key, need_folder, percent, plot, rate_json, read_list, rounded,
};
use crate::evaluation::interval::Balanced;
use crate::evaluation::plots::Plot;
use crate::evaluation::protocol::{self, Pair};
pub(super) use crate::evaluation::verification::Operating;
use crate::evaluation::verification::{Accuracy, FALSE_ACCEPT_RATES};
use crate::evaluation::{Comparison, Verification};

/// `faceid eval verification`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder of photos for each person: NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// LFW's pairs: `NAME I J` or `NAME I NAME J` a line
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Refuse the photos that enrolment would refuse, and count them as failures to enrol [default: every face that is found counts]
    #[arg(long)]
    gated: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let pairs = read_list(&args.pairs, protocol::parse_pairs)?;
    need_folder(&args.images)?;
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let photos = pairs.iter().flat_map(|pair| [&pair.first, &pair.second]);
    let templates = Templates::of(&context, &mut stack, &args.images, photos, args.gated)?;
    templates.complain();
    let comparisons: Vec<Comparison> = pairs.iter().filter_map(|pair| compare(&templates, pair)).collect();
    let verification = Verification::new(&comparisons);
    let Some(equal_error) = verification.equal_error() else {
        let text = "no comparison of one person or none of two could be made: nothing can be measured";
        return Err(Failure::data(format!("{}: {text}", args.pairs.display())));
    };
    let figures = Figures {
        equal_error,
        accuracy: verification.accuracy(),
        at_far: FALSE_ACCEPT_RATES.iter().filter_map(|far| Some((*far, verification.at_far(*far)?))).collect(),
        at_pack: verification.at(context.thresholds(&stack).matching.value()),
    };
    if args.output.json {
        let mut report = header(&stack, Some(args.gated));
        report.insert("n_pairs".into(), json!(pairs.len()));
        report.insert("photos".into(), json!(templates.photos));
        report.insert("failures_to_enroll".into(), json!(templates.failures.len()));
        report.insert("failure_to_enroll".into(), rate_json(templates.failure_to_enroll()));
        report.insert("failed_photos".into(), failures_json(&templates.failures));
        figures.add_to(&mut report);
        say_json(&Value::Object(report));
    } else {
        say(format!("pack {}, enrolment's quality gate {}", stack.pack, if args.gated { "applied" } else { "not applied" }));
        say(format!("failure to enrol: {}", percent(templates.failure_to_enroll())));
        figures.tell();
    }
    plot(&args.output, &plots(&stack.pack, &verification))?;
    Ok(code::YES)
}

fn compare(templates: &Templates, pair: &Pair) -> Option<Comparison> {
    let score = templates.get(&pair.first)?.compare(templates.get(&pair.second)?)?;
    Some(Comparison { score, mated: pair.is_mated(), fold: pair.fold })
}

struct Figures {
    equal_error: Operating,
    accuracy: Option<Accuracy>,
    at_far: Vec<(f64, Operating)>,
    at_pack: Operating,
}

impl Figures {
    /// The mean of the thresholds that the folds were judged with.
    fn accuracy_threshold(&self) -> Option<f64> {
        let thresholds = &self.accuracy.as_ref()?.thresholds;
        Some(thresholds.iter().map(|t| f64::from(*t)).sum::<f64>() / thresholds.len() as f64)
    }

    fn add_to(&self, report: &mut Map<String, Value>) {
        let balanced = self.accuracy.as_ref().map(|accuracy| accuracy.balanced);
        let mut thresholds = Map::from_iter([
            ("eer".to_owned(), json!(self.equal_error.threshold)),
            ("accuracy".to_owned(), json!(self.accuracy_threshold())),
            ("pack".to_owned(), json!(self.at_pack.threshold)),
        ]);
        let mut tar_at_far = Map::new();
        for (far, point) in &self.at_far {
            let tar = point.fnmr.complement();
            thresholds.insert(key(*far), json!(point.threshold));
            tar_at_far.insert(
                key(*far),
                json!({"tar": tar.value().map(rounded), "interval": interval_json(tar.interval()), "threshold": point.threshold,
                       "far": rate_json(point.fmr)}),
            );
        }
        let error = self.equal_error.balanced_error();
        for (name, value) in [
            ("n_same", json!(self.equal_error.fnmr.trials)),
            ("n_different", json!(self.equal_error.fmr.trials)),
            ("accuracy", json!(balanced.and_then(Balanced::value).map(rounded))),
            ("accuracy_deviation", json!(self.accuracy.as_ref().map(|accuracy| rounded(accuracy.deviation)))),
            ("eer", json!(error.value().map(rounded))),
            ("tar_at_far", Value::Object(tar_at_far)),
            ("at_pack_threshold", operating_json(&self.at_pack)),
            ("thresholds", Value::Object(thresholds)),
            (
                "intervals",
                json!({"accuracy": balanced.map(|b| interval_json(b.interval())), "eer": interval_json(error.interval()),
                       "fmr_at_eer": interval_json(self.equal_error.fmr.interval()),
                       "fnmr_at_eer": interval_json(self.equal_error.fnmr.interval())}),
            ),
        ] {
            report.insert(name.to_owned(), value);
        }
    }

    fn tell(&self) {
        let shown = |balanced: Balanced| {
            let interval = balanced.interval();
            let value = balanced.value().unwrap_or_default();
            format!("{:.2} % [{:.2}, {:.2}]", value * 100.0, interval.low * 100.0, interval.high * 100.0)
        };
        say(format!("comparisons: {} of one person, {} of two", self.equal_error.fnmr.trials, self.equal_error.fmr.trials));
        match &self.accuracy {
            Some(accuracy) => {
                let deviation = accuracy.deviation * 100.0;
                say(format!("accuracy, cross-validated: {} (folds ±{deviation:.2})", shown(accuracy.balanced)));
            }
            None => say("accuracy, cross-validated: not measured (too few pairs of each kind)"),
        }
        let error = shown(self.equal_error.balanced_error());
        say(format!("equal error rate: {error} at threshold {:.4}", self.equal_error.threshold));
        for (far, point) in &self.at_far {
            let tar = percent(point.fnmr.complement());
            say(format!("TAR at FAR {}: {tar} at threshold {:.4}, FAR {}", key(*far), point.threshold, percent(point.fmr)));
        }
        let Operating { threshold, fmr, fnmr } = self.at_pack;
        say(format!("at the pack's threshold {threshold:.4}: FMR {}, FNMR {}", percent(fmr), percent(fnmr)));
    }
}

fn operating_json(point: &Operating) -> Value {
    json!({"threshold": point.threshold, "fmr": rate_json(point.fmr), "fnmr": rate_json(point.fnmr)})
}

pub(super) fn plots(pack: &str, verification: &Verification) -> [(&'static str, Plot); 2] {
    let points = verification.curve().iter().filter_map(|point| Some((point.fmr.value()?, point.fnmr.value()?))).collect();
    let det = Plot::Det {
        title: "Verification: detection error trade-off".into(),
        axes: ["FMR".into(), "FNMR".into()],
        curves: vec![(pack.to_owned(), points)],
    };
    let histogram = Plot::Histogram {
        title: format!("Verification: comparison scores, pack {pack}"),
        axis: "comparison score (cosine)".into(),
        groups: vec![("mated".into(), verification.mated().to_vec()), ("non-mated".into(), verification.non_mated().to_vec())],
    };
    [("verification-det", det), ("verification-scores", histogram)]
}
