//! `eval door`: a door trial. People are enrolled from clips, every other clip is one visit, and each goes through the whole pipeline and
//! the decider as in `run`: a door without turn of the head, second camera or second factor. Every clip is decoded and looked at once, before all doors that it visits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::bench::Scratch;
use super::super::context::Context;
use super::super::import::folders_in;
use super::super::replay::{self, Doorway, OneStack, Played};
use super::super::{Failure, Places, Result, code, complain, people, progress, say, say_json, shots};
use super::{NAMED, Output, header, percent, plot, rate_json, read_list, rounded};
use crate::access::Thresholds;
use crate::evaluation::door::{DoorErrors, Visit, best_scores};
use crate::evaluation::plots::Plot;
use crate::evaluation::{ProtocolError, protocol};
use crate::gallery::{self, Gallery, SealingKey};
use crate::pipeline::{self, Seen, Session};
use crate::types::{Decision, Embedding, Frame, Outcome, PersonId, Score};
use crate::vision::stack::Stack;

/// Doors that one playing of a clip is shown to: each keeps a tracker and a picture of what moves.
const DOORS_AT_ONCE: usize = 64;

/// `faceid eval door`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder for each person, in it clips and folders of frames: each is one visit
    #[arg(long, value_name = "DIR")]
    clips: PathBuf,
    /// Who is in which clip, `PERSON,CLIP` a line, the clip or folder of frames below --clips [default: the folders say it]
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Who is enrolled while a clip is played: `1`, one person from one clip, each clip in turn; or `all`, everybody from one clip each,
    /// and for visits of strangers everybody but the visitor
    #[arg(long, value_name = "1|all", default_value = "1")]
    gallery: Among,
    /// Decide by these match thresholds instead of the pack's or the config's, each in a trial of its own
    #[arg(long = "match-threshold", value_name = "T", value_delimiter = ',')]
    thresholds: Vec<f32>,
    /// How many frames of a folder of frames make a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    frames_per_second: u32,
    #[command(flatten)]
    output: Output,
}

/// How many are enrolled.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Among {
    #[value(name = "1")]
    One,
    All,
}

/// One visit's pictures.
struct Reel {
    person: String,
    /// As the list or the folder names it.
    name: String,
    source: Source,
}

enum Source {
    Clip(PathBuf),
    Frames(Vec<PathBuf>),
}

impl Reel {
    fn play(&self, context: &Context, step: Duration, see: impl FnMut(&Frame) -> Result<bool>) -> Result<Played> {
        let played = match &self.source {
            Source::Clip(path) => replay::play(shots::clip_camera(path)?, &context.config.secrets_dir, see)?,
            Source::Frames(photos) => replay::play_photos(photos, step, see)?,
        };
        if played.frames == 0 {
            return Err(Failure::data(format!("{}: no frame came: {}", self.name, played.fault)));
        }
        Ok(played)
    }
}

/// Who is enrolled from which clip.
struct Enrolled {
    /// The people with the places of their clips.
    people: BTreeMap<String, usize>,
    gallery: Arc<Gallery>,
    _folder: Scratch,
}

/// One clip before one door.
struct Run {
    gallery: usize,
    reel: usize,
    /// Which of the thresholds.
    trial: usize,
    visit: Visit,
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let reels = reels_in(args)?;
    let mut stack = context.open_stack()?;
    let step = Duration::from_secs(1) / args.frames_per_second;
    let (faces, failures) = enrol_all(&context, &mut stack, args, &reels, step)?;
    for (reel, reason) in &failures {
        complain(format!("{reel}: nobody is enrolled from it: {reason}"));
    }
    let galleries = galleries(args.gallery, &stack, &reels, &faces)?;
    let most = galleries.iter().map(|enrolled| enrolled.people.len()).max().unwrap_or_default();
    let thresholds = thresholds(args, context.thresholds_at(&stack, most))?;
    let bar = progress(reels.len() as u64, "clips");
    let mut runs = Vec::new();
    for reel in 0..reels.len() {
        let mut plan: Vec<Run> = visits_of(reel, &reels, &galleries, thresholds.len());
        for batch in plan.chunks_mut(DOORS_AT_ONCE) {
            show(&context, &mut stack, &reels[reel], (batch, &galleries), (&thresholds, step))?;
        }
        runs.append(&mut plan);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if runs.is_empty() {
        let text = "no clip is left to be played: two people, or two clips of one, with usable faces are needed";
        return Err(Failure::data(format!("{}: {text}", args.clips.display())));
    }
    let mut trials = Vec::new();
    let mut plots = Vec::new();
    for (trial, threshold) in thresholds.iter().enumerate() {
        let (of_trial, visits): (Vec<&Run>, Vec<Visit>) =
            runs.iter().filter(|run| run.trial == trial).map(|run| (run, run.visit.clone())).unzip();
        let errors = DoorErrors::of(&visits);
        if args.output.json {
            let rows: Vec<Value> = of_trial.iter().map(|run| visit_json(run, &reels, &galleries)).collect();
            trials.push(trial_json(threshold.matching, &errors, rows));
        } else {
            tell(threshold.matching, &errors);
            name_errors(&of_trial, &reels, &galleries);
        }
        if trial == 0 && args.output.plots.is_some() {
            plots = plots_of(&stack.pack, &visits);
        }
    }
    if args.output.json {
        let mut report = header(&stack, None);
        let failures: Vec<Value> = failures.iter().map(|(clip, reason)| json!({"clip": clip, "reason": reason})).collect();
        report.insert("people".into(), json!(reels.iter().map(|reel| &reel.person).collect::<BTreeSet<_>>().len()));
        report.insert("clips".into(), json!(reels.len()));
        report.insert("gallery".into(), json!(if args.gallery == Among::One { "1" } else { "all" }));
        report.insert("failed_enrolments".into(), json!(failures));
        report.insert("trials".into(), json!(trials));
        say_json(&Value::Object(report));
    }
    plot(&args.output, &plots)?;
    Ok(code::YES)
}

fn thresholds(args: &Args, own: Thresholds) -> Result<Vec<Thresholds>> {
    if args.thresholds.is_empty() {
        return Ok(vec![own]);
    }
    let given = |value: &f32| {
        let matching = Score::new(*value).map_err(|error| Failure::new(code::USAGE, format!("--match-threshold: {error}")))?;
        Ok(Thresholds { matching, ..own })
    };
    args.thresholds.iter().map(given).collect()
}

fn reels_in(args: &Args) -> Result<Vec<Reel>> {
    let mut reels = Vec::new();
    match &args.list {
        Some(list) => {
            for (person, clip) in read_list(list, parse_list)? {
                let source = source(&args.clips.join(&clip))?;
                reels.push(Reel { person, name: clip, source });
            }
        }
        None => {
            let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            for (folder, files) in folders_in(&args.clips)? {
                let person = named(&folder);
                let read = std::fs::read_dir(&folder).map_err(|error| Failure::data(format!("{}: {error}", folder.display())))?;
                let inner = read.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir());
                let mut visits: Vec<PathBuf> = files.into_iter().filter(|file| shots::is_clip(file)).chain(inner).collect();
                visits.sort();
                for path in visits {
                    reels.push(Reel { person: person.clone(), name: format!("{person}/{}", named(&path)), source: source(&path)? });
                }
            }
        }
    }
    if reels.len() < 2 {
        return Err(Failure::data(format!(
            "{}: one person is enrolled from one clip and another clip is played: two clips are needed",
            args.clips.display()
        )));
    }
    Ok(reels)
}

fn source(path: &Path) -> Result<Source> {
    let lost = |error: &dyn std::fmt::Display| Failure::data(format!("{}: {error}", path.display()));
    if path.is_dir() {
        let read = std::fs::read_dir(path).map_err(|error| lost(&error))?;
        let mut photos: Vec<PathBuf> =
            read.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|file| file.is_file()).collect();
        photos.sort();
        return if photos.is_empty() { Err(lost(&"holds no frames")) } else { Ok(Source::Frames(photos)) };
    }
    if path.is_file() { Ok(Source::Clip(path.to_owned())) } else { Err(lost(&"is neither a clip nor a folder of frames")) }
}

/// `PERSON,CLIP` a line; a first line `person,clip` is a header.
fn parse_list(text: &str) -> std::result::Result<Vec<(String, String)>, ProtocolError> {
    let mut rows = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (index == 0 && line.eq_ignore_ascii_case("person,clip")) {
            continue;
        }
        let fields = line.split_once(',').map(|(person, clip)| (person.trim(), clip.trim()));
        let is_below = |clip: &str| Path::new(clip).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        match fields {
            Some((person, clip)) if !person.is_empty() && !clip.is_empty() && is_below(clip) => {
                rows.push((person.to_owned(), clip.to_owned()));
            }
            _ => return Err(ProtocolError::NoClip { line: index + 1, word: protocol::shown(line) }),
        }
    }
    if rows.is_empty() { Err(ProtocolError::Empty) } else { Ok(rows) }
}

type Failures = Vec<(String, String)>;

/// What each clip gives to enrol with, as `enroll` takes it; among many people one clip each is enough.
fn enrol_all(
    context: &Context,
    stack: &mut Stack,
    args: &Args,
    reels: &[Reel],
    step: Duration,
) -> Result<(Vec<Option<Vec<Embedding>>>, Failures)> {
    let bar = progress(reels.len() as u64, "enrolments");
    let (mut faces, mut failures, mut done) = (Vec::new(), Vec::new(), BTreeSet::new());
    for reel in reels {
        bar.inc(1);
        if args.gallery == Among::All && done.contains(&reel.person) {
            faces.push(None);
            continue;
        }
        let mut session = Session::new(people::terms(context, stack, true));
        reel.play(context, step, |frame| {
            let at = frame.captured_at.monotonic;
            if session.is_due(at) {
                let found = pipeline::look(stack, &frame.picture, context.quality()).map_err(Failure::unavailable)?;
                session.see(at, found);
            }
            Ok(!session.is_over())
        })?;
        match session.end() {
            Ok(found) => {
                done.insert(reel.person.clone());
                faces.push(Some(found));
            }
            Err(why) => {
                failures.push((reel.name.clone(), why.to_string()));
                faces.push(None);
            }
        }
    }
    bar.finish_and_clear();
    Ok((faces, failures))
}

/// With one person enrolled, a gallery for each clip; among all, one with everybody and one without each.
fn galleries(among: Among, stack: &Stack, reels: &[Reel], faces: &[Option<Vec<Embedding>>]) -> Result<Vec<Enrolled>> {
    let usable =
        || reels.iter().enumerate().filter(|(place, _)| faces[*place].is_some()).map(|(place, reel)| (reel.person.clone(), place));
    let make = |people: BTreeMap<String, usize>| -> Result<Enrolled> {
        let folder = Scratch::new()?;
        let key = SealingKey::generate().map_err(Failure::unavailable)?;
        let settings = gallery::Settings { dir: folder.path().join("gallery"), ..gallery::Settings::default() };
        let made = Gallery::create_or_open(&settings, &key, stack.embedder.model(), stack.embedder.dimension());
        let made = made.map_err(Failure::unavailable)?;
        let mut entries = Vec::new();
        for place in people.values() {
            let id = person_id(*place)?;
            let embeddings = faces[*place].clone().unwrap_or_default();
            entries.push((people::new_person(id, None, Vec::new()), embeddings));
        }
        made.enroll_many(entries).map_err(Failure::unavailable)?;
        Ok(Enrolled { people, gallery: Arc::new(made), _folder: folder })
    };
    match among {
        Among::One => usable().map(|row| make(BTreeMap::from([row]))).collect(),
        Among::All => {
            let all: BTreeMap<String, usize> = usable().collect();
            let without = |who: &str| all.iter().filter(|(person, _)| *person != who).map(|(p, at)| (p.clone(), *at)).collect();
            let mut sets: Vec<BTreeMap<String, usize>> = all.keys().map(|person| without(person)).collect();
            sets.push(all);
            sets.retain(|set| !set.is_empty());
            sets.into_iter().map(make).collect()
        }
    }
}

/// People are numbered by the clip that they are enrolled from: a folder's name need not be an id.
fn person_id(reel: usize) -> Result<PersonId> {
    PersonId::new(format!("clip-{reel}")).map_err(|error| Failure::new(code::BUG, error))
}

/// The doors that a clip visits: a clip is never played to a gallery that it made, and a stranger visits among many people once, where
/// everybody else is enrolled.
fn visits_of(reel: usize, reels: &[Reel], galleries: &[Enrolled], trials: usize) -> Vec<Run> {
    let visitor = &reels[reel].person;
    let fullest = |owners: bool| {
        let those = galleries.iter().filter(move |enrolled| enrolled.people.contains_key(visitor) == owners);
        those.map(|enrolled| enrolled.people.len()).max().unwrap_or_default()
    };
    let most = [fullest(false), fullest(true)];
    let mut runs = Vec::new();
    for (place, enrolled) in galleries.iter().enumerate() {
        let is_owner = enrolled.people.contains_key(visitor);
        if enrolled.people.values().any(|made_by| *made_by == reel) || enrolled.people.len() < most[usize::from(is_owner)] {
            continue;
        }
        let mut names = enrolled.people.keys();
        let only = names.next().cloned().filter(|_| names.next().is_none());
        for trial in 0..trials {
            let visit = Visit {
                visitor: visitor.clone(),
                enrolled: only.clone(),
                is_owner,
                granted_right: false,
                granted_wrong: false,
                own: None,
                other: None,
            };
            runs.push(Run { gallery: place, reel, trial, visit });
        }
    }
    runs
}

/// Plays a clip before all these doors at once.
fn show(
    context: &Context,
    stack: &mut Stack,
    reel: &Reel,
    (runs, galleries): (&mut [Run], &[Enrolled]),
    (thresholds, step): (&[Thresholds], Duration),
) -> Result<()> {
    let stack = OneStack::new(stack);
    let mut doors = Vec::with_capacity(runs.len());
    for run in runs {
        let enrolled = &galleries[run.gallery];
        let settings = (context.config.pipeline.clone(), true);
        let door = Doorway::new(context, settings, stack.clone(), enrolled.gallery.clone(), thresholds[run.trial])?;
        let own = enrolled.people.get(&run.visit.visitor).map(|place| person_id(*place)).transpose()?;
        doors.push((door, own, &mut run.visit));
    }
    reel.play(context, step, |frame| {
        stack.next_frame();
        for (door, own, visit) in &mut doors {
            let (seen, decisions, _) = door.see(frame, Some(frame.captured_at))?;
            note(visit, own.as_ref(), &seen, &decisions);
        }
        Ok(true)
    })?;
    for (door, own, visit) in &mut doors {
        let (seen, decisions, _) = door.end(false);
        note(visit, own.as_ref(), &seen, &decisions);
    }
    Ok(())
}

fn note(visit: &mut Visit, own: Option<&PersonId>, seen: &Seen, decisions: &[Decision]) {
    for candidate in seen.observations.iter().flat_map(|observation| &observation.candidates) {
        let best = if own == Some(&candidate.person) { &mut visit.own } else { &mut visit.other };
        let score = candidate.score.value();
        *best = Some(best.map_or(score, |best| best.max(score)));
    }
    for decision in decisions.iter().filter(|decision| decision.outcome == Outcome::Granted) {
        let is_right = own.is_some() && decision.person.as_ref() == own;
        visit.granted_right |= is_right;
        visit.granted_wrong |= !is_right;
    }
}

fn enrolled_from(run: &Run, reels: &[Reel], galleries: &[Enrolled]) -> String {
    let people = &galleries[run.gallery].people;
    let first = people.values().next().map(|place| reels[*place].name.clone()).unwrap_or_default();
    if people.len() == 1 { first } else { format!("{} people", people.len()) }
}

fn visit_json(run: &Run, reels: &[Reel], galleries: &[Enrolled]) -> Value {
    let Visit { visitor, enrolled, is_owner, granted_right, granted_wrong, own, other } = &run.visit;
    let score = |score: &Option<f32>| score.map(|score| rounded(f64::from(score)));
    json!({"clip": reels[run.reel].name, "visitor": visitor, "enrolled": enrolled, "enrolled_from": enrolled_from(run, reels, galleries),
           "is_owner": is_owner, "granted": *granted_right || *granted_wrong, "granted_wrong": granted_wrong,
           "own_score": score(own), "other_score": score(other)})
}

fn trial_json(threshold: Score, errors: &DoorErrors, visits: Vec<Value>) -> Value {
    json!({"threshold": rounded(f64::from(threshold.value())), "false_grants": rate_json(errors.false_grants),
           "wrong_person": rate_json(errors.wrong_person), "false_refusals": rate_json(errors.false_refusals),
           "clusters": {"strangers": rate_json(errors.false_grants_clustered), "owners": rate_json(errors.false_refusals_clustered)},
           "visits": visits})
}

fn tell(threshold: Score, errors: &DoorErrors) {
    say(format!("match threshold {:.4}", threshold.value()));
    say(format!("  false grants: {} of strangers' visits", percent(errors.false_grants)));
    say(format!("  false refusals: {} of owners' visits", percent(errors.false_refusals)));
    if errors.wrong_person.count > 0 {
        say(format!("  granted as somebody else: {} of owners' visits", percent(errors.wrong_person)));
    }
    say(format!(
        "  by people: a false grant in {} of the pairs of people or visitors, a false refusal for {} of the owners",
        percent(errors.false_grants_clustered),
        percent(errors.false_refusals_clustered)
    ));
}

fn name_errors(runs: &[&Run], reels: &[Reel], galleries: &[Enrolled]) {
    let is_error = |run: &&&Run| run.visit.granted_wrong || (run.visit.is_owner && !run.visit.granted_right);
    let errors: Vec<&&Run> = runs.iter().filter(is_error).collect();
    for run in errors.iter().take(NAMED) {
        let what = if run.visit.granted_wrong { "granted to another" } else { "refused to its owner" };
        let score = if run.visit.is_owner { run.visit.own } else { run.visit.other };
        let score = score.map_or("no usable face".to_owned(), |score| format!("best score {score:.3}"));
        say(format!("  {what}: enrolled from {}, played {} ({score})", enrolled_from(run, reels, galleries), reels[run.reel].name));
    }
    if errors.len() > NAMED {
        say(format!("  {} more; --json has every visit", errors.len() - NAMED));
    }
}

fn plots_of(pack: &str, visits: &[Visit]) -> Vec<(&'static str, Plot)> {
    let scores = best_scores(visits);
    let points = scores.curve().iter().filter_map(|point| Some((point.fmr.value()?, point.fnmr.value()?))).collect();
    let det = Plot::Det {
        title: "Door trial: detection error trade-off by best score".into(),
        axes: ["false grants, visits".into(), "false refusals, visits".into()],
        curves: vec![(pack.to_owned(), points)],
    };
    let histogram = Plot::Histogram {
        title: format!("Door trial: best scores of visits, pack {pack}"),
        axis: "comparison score (cosine)".into(),
        groups: vec![("owners".into(), scores.mated().to_vec()), ("strangers".into(), scores.non_mated().to_vec())],
    };
    vec![("door-det", det), ("door-scores", histogram)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_person_and_clip_and_nothing_outside_the_folder() {
        let rows = parse_list("\u{feff}person,clip\r\nAnn A, a/one.mkv\n\nBob,two.mp4\n").unwrap();
        assert_eq!(rows, [("Ann A".into(), "a/one.mkv".into()), ("Bob".to_owned(), "two.mp4".to_owned())]);
        for (text, word) in [
            ("", "empty"),
            ("Ann\n", "line 1"),
            ("A,b.mkv\nB,../c.mkv\n", "line 2"),
            ("A,/etc/passwd\n", "line 1"),
            ("A,\n", "line 1"),
        ] {
            let said = parse_list(text).unwrap_err().to_string();
            assert!(said.contains(word), "{text:?}: {said}");
        }
    }
}
