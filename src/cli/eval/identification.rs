//! `eval identification`: photos by person, the first of each as references, the others as probes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::{Failure, Places, Result, code, say, say_json};
use super::{Output, Templates, failures_json, header, key, need_folder, percent, plot, rate_json, read_list};
use crate::evaluation::identification::FALSE_POSITIVE_RATES;
use crate::evaluation::plots::Plot;
use crate::evaluation::protocol::{self, Photo};
use crate::evaluation::{Identification, Search};
use crate::types::{Embedding, Score};

/// `faceid eval identification`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder of photos for each person
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Photos, PERSON/PHOTO a line
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// How many photos of each person are references, the first in the list; the others are probes
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    enroll: u32,
    /// Refuse the photos that enrolment would refuse, and count them as failures to enrol [default: every face that is found counts]
    #[arg(long)]
    gated: bool,
    #[command(flatten)]
    output: Output,
}

/// A person's references, and the photos to search with.
#[derive(Default)]
struct Subject<'a> {
    references: Vec<&'a Embedding>,
    probes: Vec<&'a Embedding>,
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let photos = read_list(&args.list, protocol::parse_photos)?;
    let people: BTreeSet<&str> = photos.iter().map(|photo| photo.person.as_str()).collect();
    if people.len() < 2 {
        return Err(Failure::data(format!("{}: names one person: a search needs two or more", args.list.display())));
    }
    need_folder(&args.images)?;
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let templates = Templates::of(&context, &mut stack, &args.images, photos.iter(), args.gated)?;
    templates.complain();
    let subjects = subjects(&photos, &templates, args.enroll as usize);
    let enrolled = subjects.values().filter(|subject| !subject.references.is_empty()).count();
    let searches = search_all(&subjects);
    if searches.is_empty() {
        let text = format!("no probe could be searched: give more than {} photos of each of two or more people", args.enroll);
        return Err(Failure::data(format!("{}: {text}", args.list.display())));
    }
    let found = Identification::new(&searches);
    let at_pack = found.at(context.thresholds(&stack).matching.value());
    let at_fpir: Vec<_> = FALSE_POSITIVE_RATES.iter().filter_map(|fpir| Some((*fpir, found.at_fpir(*fpir)?))).collect();
    if args.output.json {
        let mut report = header(&stack, Some(args.gated));
        let targets = at_fpir.iter().map(|(fpir, point)| {
            let row = json!({"fnir": rate_json(point.fnir), "fpir": rate_json(point.fpir), "threshold": point.threshold});
            (key(*fpir), row)
        });
        for (name, value) in [
            ("people", json!(people.len())),
            ("people_enrolled", json!(enrolled)),
            ("references_each", json!(args.enroll)),
            ("n_searches", json!(searches.len())),
            ("failures_to_enroll", json!(templates.failures.len())),
            ("failed_photos", failures_json(&templates.failures)),
            ("rank_1", rate_json(found.rank_one())),
            ("fnir_at_fpir", Value::Object(Map::from_iter(targets))),
            (
                "at_pack_threshold",
                json!({"threshold": at_pack.threshold, "fnir": rate_json(at_pack.fnir), "fpir": rate_json(at_pack.fpir)}),
            ),
        ] {
            report.insert(name.to_owned(), value);
        }
        say_json(&Value::Object(report));
    } else {
        say(format!("pack {}, enrolment's quality gate {}", stack.pack, if args.gated { "applied" } else { "not applied" }));
        say(format!("failure to enrol: {}", percent(templates.failure_to_enroll())));
        say(format!("{enrolled} of {} people enrolled, {} searches", people.len(), searches.len()));
        say(format!("rank-1: {}", percent(found.rank_one())));
        for (fpir, point) in &at_fpir {
            let (fnir, measured) = (percent(point.fnir), percent(point.fpir));
            say(format!("FNIR at FPIR {}: {fnir} at threshold {:.4}, FPIR {measured}", key(*fpir), point.threshold));
        }
        let (fnir, fpir) = (percent(at_pack.fnir), percent(at_pack.fpir));
        say(format!("at the pack's threshold {:.4}: FNIR {fnir}, FPIR {fpir}", at_pack.threshold));
    }
    plot(&args.output, &plots(&stack.pack, &found))?;
    Ok(code::YES)
}

/// Each person's first `references` photos of the list are references, whether or not they could be enrolled; the others are probes.
fn subjects<'a>(photos: &'a [Photo], templates: &'a Templates, references: usize) -> BTreeMap<&'a str, Subject<'a>> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut subjects = BTreeMap::<&str, Subject<'_>>::new();
    for photo in photos {
        let count = counts.entry(&photo.person).or_default();
        *count += 1;
        let subject = subjects.entry(&photo.person).or_default();
        let kind = if *count <= references { &mut subject.references } else { &mut subject.probes };
        kind.extend(templates.get(photo));
    }
    subjects
}

/// Each probe of an enrolled person against everybody's references. A person's score is that of the best reference, as in the gallery.
fn search_all(subjects: &BTreeMap<&str, Subject<'_>>) -> Vec<Search> {
    let best = |probe: &Embedding, subject: &Subject<'_>| {
        let scores = subject.references.iter().filter_map(|reference| probe.compare(reference));
        scores.max_by(|a, b| a.value().total_cmp(&b.value()))
    };
    let mut searches = Vec::new();
    for (person, subject) in subjects {
        for probe in &subject.probes {
            let Some(mate) = best(probe, subject) else { continue };
            let others = subjects.iter().filter(|(other, _)| *other != person).filter_map(|(_, other)| best(probe, other));
            let best_other = others.max_by(|a, b| a.value().total_cmp(&b.value())).unwrap_or(Score::MIN);
            searches.push(Search { mate, best_other });
        }
    }
    searches
}

fn plots(pack: &str, found: &Identification) -> [(&'static str, Plot); 2] {
    let points = found.curve().iter().filter_map(|point| Some((point.fpir.value()?, point.fnir.value()?))).collect();
    let det = Plot::Det {
        title: "Identification: detection error trade-off".into(),
        axes: ["FPIR".into(), "FNIR (rank 1)".into()],
        curves: vec![(pack.to_owned(), points)],
    };
    let histogram = Plot::Histogram {
        title: format!("Identification: best scores, pack {pack}"),
        axis: "comparison score (cosine)".into(),
        groups: vec![("mate found".into(), found.hits().to_vec()), ("best of others".into(), found.others().to_vec())],
    };
    [("identification-det", det), ("identification-scores", histogram)]
}
