//! `eval visits`: simulated visits of strangers at sites of people who resemble them, drawn from portraits, and of the owners of these
//! portraits. Frames and embeddings live in this process's memory alone: nothing of them is written.

mod told;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::replay;
use super::super::{Failure, Places, Result, code, progress, say, say_json, shots};
use super::alike::{Excluded, Failures, dot, embed_by_all, open_all, photos_in};
use super::{NAMED, Output, complain_of, failures_json, header, plot, read_list};
use crate::capture::still;
use crate::evaluation::Rate;
use crate::evaluation::simulated::{Conditions, FRAME, Portrait};
use crate::evaluation::site::StrangerVisit;
use crate::pipeline;
use crate::types::{Embedding, Landmarks, Picture};
use crate::vision::stack::Stack;
use crate::vision::{align, assess};
use told::{Quantiles, Told, plots, quantiles};

/// Bands of the eye distance in pixels, the last one's end included. A portrait of less detail is enlarged in the last.
const BANDS: [Range<f32>; 3] = [20.0..30.0, 30.0..45.0, 45.0..80.0];
/// The sizes of sites that are told.
const PEOPLE: [usize; 4] = [1, 10, 100, 1000];
/// The frames that must each match for themselves, as `access.min-frames` asks by default.
const MATCHING_FRAMES: usize = 3;

/// How many of the strangers who came nearest to a grant are named, so that labels can be looked at.
const LISTED: usize = 100;

/// `faceid eval visits`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The folder with a folder of photos for each person: the first photo is the reference, the last one is seen at the door
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// A pack whose embedder says who is alike; two or more, of other networks than the one under test
    #[arg(long = "judge", value_name = "PACK", required = true)]
    judges: Vec<String>,
    /// Put each judge to the test too, judged by all the others
    #[arg(long)]
    each: bool,
    /// Only the people named in this file, a folder's name a line
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Photos that are labelled wrongly, and pairs of people who are one: `PERSON/PHOTO`, or `PERSON PERSON`, a line
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// At most so many visitors, every so-manieth person; everybody else is still somebody whom they may be taken for
    #[arg(long, value_name = "N")]
    visitors: Option<usize>,
    /// Clips of real people before a camera: their faces' size, sharpness and light are told beside those of the simulated visits
    #[arg(long, value_name = "DIR")]
    clips: Option<PathBuf>,
    /// Where the dice begin: the same number draws the same visits
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// A person: what the networks say of the reference, and of the photo that comes to the door, before a camera has seen it.
struct Subject {
    name: String,
    reference: Vec<Embedding>,
    /// The same as the reference where there is one photo alone.
    portrait: Vec<Embedding>,
    path: String,
    is_owner: bool,
}

/// A frame of a visit as one network knows it.
struct Sample {
    quality: f32,
    embedding: Embedding,
}

/// What can be held against real clips: the faces that were found, and how alike the usable ones of one visit are.
#[derive(Default)]
struct Measures {
    eyes: Vec<f32>,
    sharpness: Vec<f32>,
    luma: Vec<f32>,
    within: Vec<f32>,
}

impl Measures {
    fn note(&mut self, seen: &Seen) {
        self.eyes.extend(seen.faces.iter().map(|face| face[0]));
        self.sharpness.extend(seen.faces.iter().map(|face| face[1]));
        self.luma.extend(seen.faces.iter().map(|face| face[2]));
        let pairs = seen.samples.windows(2).map(|two| dot(two[0].embedding.values(), two[1].embedding.values()));
        self.within.extend(pairs);
    }

    fn json(&self) -> Value {
        json!({"eye_distance_px": quantiles(&self.eyes), "sharpness": quantiles(&self.sharpness), "luma": quantiles(&self.luma),
               "successive_samples": quantiles(&self.within)})
    }

    fn words(&self) -> String {
        let [eyes, sharpness, luma, within] =
            [&self.eyes, &self.sharpness, &self.luma, &self.within].map(|values| Quantiles::of(values));
        format!(
            "eyes {:.0} px apart, sharpness {:.0} ({:.0} in the lowest hundredth), luma {:.0}, successive samples {:.3} ({:.3}); medians",
            eyes.median, sharpness.median, sharpness.least, luma.median, within.median, within.least
        )
    }
}

/// What became of the visits of one network.
#[derive(Default)]
struct Outcome {
    strangers: Vec<StrangerVisit>,
    /// The same before sites of the visitor's own half of the people alone: two halves that share nobody.
    halved: Vec<StrangerVisit>,
    /// Scores at which owners are granted, by band; -1 for a visit without enough usable faces.
    owners: [Vec<f32>; BANDS.len()],
    /// Single frames against the alike: what can be held against the frames of clips.
    frames: Vec<f32>,
    measures: [Measures; BANDS.len()],
    unusable: [u64; BANDS.len()],
    visits: [u64; BANDS.len()],
    clips: Option<Measures>,
    /// The strangers who came nearest to a grant, the highest first, each pair of people once.
    highest: Vec<(f32, usize, usize)>,
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let excluded = match &args.exclude {
        Some(file) => read_list(file, Excluded::parse)?,
        None => Excluded::default(),
    };
    let mut stacks = open_all(&context, &args.judges)?;
    let photos = photos_in(&args.images, args.people.as_deref(), &excluded)?;
    let (subjects, failures) = subjects(&mut stacks, args, &photos)?;
    complain_of(&failures);
    if subjects.len() < 2 {
        return Err(Failure::data(format!("{}: two people at least must have a usable photo", args.images.display())));
    }
    let under_test = if args.each { stacks.len() } else { 1 };
    let mut outcomes: Vec<Outcome> = (0..under_test).map(|_| Outcome::default()).collect();
    let judges: Vec<Vec<Judge>> = (0..under_test).map(|network| judges(&subjects, network, stacks.len())).collect();
    let count = args.visitors.unwrap_or(usize::MAX).clamp(1, subjects.len());
    let visitors: Vec<usize> = (0..count).map(|at| at * subjects.len() / count).collect();
    let bar = progress(visitors.len() as u64, "visitors");
    for number in visitors {
        let subject = &subjects[number];
        bar.inc(1);
        let picture = still::read_picture(&args.images.join(&subject.path)).map_err(|error| Failure::data(error.to_string()))?;
        let found = pipeline::find_subject(&mut stacks[0].detector, &picture).map_err(Failure::unavailable)?;
        let Some(found) = found else { continue };
        let others: Vec<Vec<usize>> = judges.iter().map(|judges| likest(&subjects, number, judges, &excluded)).collect();
        for band in 0..BANDS.len() {
            let dice = args.seed.wrapping_mul(1 << 32).wrapping_add((number * BANDS.len() + band) as u64);
            let Some(frames) = film(&picture, &found.landmarks, band, dice)? else { continue };
            let mut seen: Vec<Seen> = (0..under_test).map(|_| Seen::default()).collect();
            for frame in &frames {
                look(&context, &mut stacks[..under_test], frame, &mut seen)?;
            }
            for (network, samples) in seen.into_iter().enumerate() {
                let (outcome, others) = (&mut outcomes[network], &others[network]);
                outcome.note((number, subject, band), &subjects, others, (network, samples));
            }
        }
    }
    bar.finish_and_clear();
    if let Some(folder) = &args.clips {
        let seen = clips(&context, &mut stacks[..under_test], folder)?;
        outcomes.iter_mut().zip(seen).for_each(|(outcome, measures)| outcome.clips = Some(measures));
    }
    let mut rows = Vec::new();
    for (network, outcome) in outcomes.iter().enumerate() {
        let threshold = context.thresholds(&stacks[network]).matching.value();
        let told = Told::of(outcome, threshold);
        if args.output.json {
            rows.push(told.json(outcome, &stacks[network], &subjects));
        } else {
            told.tell(outcome, &stacks[network]);
            say("  the strangers who came nearest to a grant (look at them: wrong labels stand here first):");
            for (score, visitor, other) in outcome.highest.iter().take(NAMED) {
                say(format!("    {score:.3} {} {}", subjects[*visitor].name, subjects[*other].name));
            }
        }
    }
    if args.output.json {
        let mut report = header(&stacks[0], None);
        for (name, value) in [
            ("people", json!(subjects.len())),
            ("owners", json!(subjects.iter().filter(|subject| subject.is_owner).count())),
            ("failed_photos", failures_json(&failures)),
            ("judges", json!(args.judges)),
            ("seed", json!(args.seed)),
            ("networks", json!(rows)),
        ] {
            report.insert(name.to_owned(), value);
        }
        say_json(&Value::Object(report));
    }
    plot(&args.output, &plots(&outcomes[0], &stacks[0].pack))?;
    Ok(code::YES)
}

/// The first and the last photo of each person by every network.
fn subjects(stacks: &mut [Stack], args: &Args, photos: &[(String, u32)]) -> Result<(Vec<Subject>, Failures)> {
    let mut people: BTreeMap<u32, [&str; 2]> = BTreeMap::new();
    for (path, person) in photos {
        people.entry(*person).or_insert([path, path])[1] = path;
    }
    let bar = progress(people.len() as u64, "people");
    let (mut subjects, mut failures) = (Vec::new(), Vec::new());
    for [first, last] in people.values() {
        bar.inc(1);
        let paths = if first == last { vec![*first] } else { vec![*first, *last] };
        let mut usable: Vec<(&str, Vec<Embedding>)> = Vec::new();
        for path in paths {
            let answer = match still::read_picture(&args.images.join(path)) {
                Ok(picture) => embed_by_all(stacks, &picture)?,
                Err(error) => Err(error.to_string()),
            };
            match answer {
                Ok(embeddings) => usable.push((path, embeddings)),
                Err(reason) => failures.push((path.to_owned(), reason)),
            }
        }
        let Some((path, portrait)) = usable.pop() else { continue };
        let is_owner = !usable.is_empty();
        let reference = usable.pop().map_or_else(|| portrait.clone(), |(_, reference)| reference);
        let name = first.split('/').next().unwrap_or_default().to_owned();
        subjects.push(Subject { name, reference, portrait, path: path.to_owned(), is_owner });
    }
    bar.finish_and_clear();
    Ok((subjects, failures))
}

/// A network that says who is alike: its place, and the mean and the deviation of its scores of strangers.
struct Judge {
    network: usize,
    mean: f32,
    deviation: f32,
}

fn judges(subjects: &[Subject], under_test: usize, networks: usize) -> Vec<Judge> {
    let spread = |network: usize| {
        let (mut sum, mut squares, mut count) = (0.0f64, 0.0f64, 0u64);
        for (number, visitor) in subjects.iter().enumerate() {
            for (_, other) in subjects.iter().enumerate().filter(|(place, _)| *place != number) {
                let score = f64::from(dot(visitor.portrait[network].values(), other.reference[network].values()));
                (sum, squares, count) = (sum + score, squares + score * score, count + 1);
            }
        }
        let mean = sum / count.max(1) as f64;
        let deviation = (squares / count.max(1) as f64 - mean * mean).max(1e-12).sqrt();
        Judge { network, mean: mean as f32, deviation: deviation as f32 }
    };
    (0..networks).filter(|network| *network != under_test).map(spread).collect()
}

/// Everybody else by falling likeness.
fn likest(subjects: &[Subject], visitor: usize, judges: &[Judge], excluded: &Excluded) -> Vec<usize> {
    let me = &subjects[visitor];
    let likeness = |other: usize| -> f32 {
        let of = |judge: &Judge| {
            let score = dot(me.portrait[judge.network].values(), subjects[other].reference[judge.network].values());
            (score - judge.mean) / judge.deviation
        };
        judges.iter().map(of).sum()
    };
    let is_other = |other: &usize| *other != visitor && !excluded.has(&me.name, &subjects[*other].name);
    let mut order: Vec<(usize, f32)> = (0..subjects.len()).filter(is_other).map(|other| (other, likeness(other))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.into_iter().map(|(other, _)| other).collect()
}

/// The visit's frames as a camera sends them.
#[cfg(feature = "gstreamer")]
fn film(picture: &Picture, points: &Landmarks, band: usize, seed: u64) -> Result<Option<Vec<Picture>>> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let conditions = Conditions::draw(&mut dice, BANDS[band].clone());
    let (rgb, _) = picture.plane(0);
    let Some(portrait) = Portrait::new(rgb, (picture.width(), picture.height()), points) else { return Ok(None) };
    let frames = portrait.visit(&conditions, &mut dice);
    crate::capture::recode(&frames, FRAME, conditions.bits_per_second()).map(Some).map_err(Failure::unavailable)
}

#[cfg(not(feature = "gstreamer"))]
fn film(_: &Picture, _: &Landmarks, _: usize, _: u64) -> Result<Option<Vec<Picture>>> {
    Err(Failure::unavailable("this build has no GStreamer, and so no camera's encoder"))
}

/// What one network has of a visit: the usable samples, and eye distance, sharpness and luma of every face that was found.
#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    faces: Vec<[f32; 3]>,
}

/// Shows a picture to each network; a detector that several packs share looks once.
fn look(context: &Context, stacks: &mut [Stack], picture: &Picture, all: &mut [Seen]) -> Result<()> {
    let mut found = BTreeMap::new();
    for (stack, seen) in stacks.iter_mut().zip(all) {
        let detector = stack.detector.model().clone();
        let subject = match found.get(&detector) {
            Some(subject) => *subject,
            None => {
                let subject = pipeline::find_subject(&mut stack.detector, picture).map_err(Failure::unavailable)?;
                *found.entry(detector).or_insert(subject)
            }
        };
        let Some(subject) = subject else { continue };
        let Some(face) = align(picture, &subject.landmarks, stack.embedder.template(), stack.embedder.side()) else { continue };
        let quality = assess(picture, &subject, &face, context.quality());
        seen.faces.push([quality.eye_distance, quality.sharpness, quality.luma]);
        if !quality.is_usable() {
            continue;
        }
        if let Ok(embedding) = stack.embedder.embed(&face) {
            seen.samples.push(Sample { quality: quality.score, embedding });
        }
    }
    Ok(())
}

/// The same measures of real people's clips, every so-manieth frame.
fn clips(context: &Context, stacks: &mut [Stack], folder: &Path) -> Result<Vec<Measures>> {
    const EVERY: u64 = 5;
    let read = std::fs::read_dir(folder).map_err(|error| Failure::data(format!("{}: {error}", folder.display())))?;
    let mut files: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| shots::is_clip(path)).collect();
    files.sort();
    let mut measures: Vec<Measures> = stacks.iter().map(|_| Measures::default()).collect();
    for file in files {
        let mut all: Vec<Seen> = stacks.iter().map(|_| Seen::default()).collect();
        replay::play(shots::clip_camera(&file)?, &context.config.secrets_dir, |frame| {
            if frame.number % EVERY == 0 {
                look(context, stacks, &frame.picture, &mut all)?;
            }
            Ok(true)
        })?;
        measures.iter_mut().zip(&all).for_each(|(measures, seen)| measures.note(seen));
    }
    Ok(measures)
}

/// The score up to which a visit is granted as the person of a reference: that of the frames fused, and at least as many frames that
/// match for themselves. The visit is tried again with each frame that comes.
fn granted_at(samples: &[Sample], weights: &[f32], reference: &[f32]) -> f32 {
    let scores: Vec<f32> = samples.iter().map(|sample| dot(sample.embedding.values(), reference)).collect();
    let mut best = -1.0f32;
    for count in MATCHING_FRAMES..=samples.len() {
        let sum: f32 = scores[..count].iter().zip(samples).map(|(score, sample)| score * sample.quality.max(0.05)).sum();
        let mut sorted = scores[..count].to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        best = best.max((sum / weights[count - 1]).min(sorted[MATCHING_FRAMES - 1]));
    }
    best
}

/// The length of the weighted sum of the first, the first two … samples: what makes their fusion a unit vector again.
fn lengths(samples: &[Sample]) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    let mut lengths = Vec::new();
    for sample in samples {
        sum.resize(sample.embedding.values().len(), 0.0);
        let weight = sample.quality.max(0.05);
        sum.iter_mut().zip(sample.embedding.values()).for_each(|(sum, value)| *sum += weight * value);
        lengths.push(sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE));
    }
    lengths
}

/// Every other pair of people in the alphabet: a name's neighbours may be relatives.
fn half_of(person: usize) -> usize {
    person / 2 % 2
}

impl Outcome {
    fn note(
        &mut self,
        (number, subject, band): (usize, &Subject, usize),
        subjects: &[Subject],
        others: &[usize],
        (network, seen): (usize, Seen),
    ) {
        self.visits[band] += 1;
        self.measures[band].note(&seen);
        let samples = seen.samples;
        let is_usable = samples.len() >= MATCHING_FRAMES;
        self.unusable[band] += u64::from(!is_usable);
        let weights = lengths(&samples);
        let against = |other: usize| granted_at(&samples, &weights, subjects[other].reference[network].values());
        let head = &others[..others.len().min(PEOPLE[PEOPLE.len() - 1])];
        let scores: Vec<f32> = if is_usable { head.iter().map(|other| against(*other)).collect() } else { Vec::new() };
        let alike = ((crate::evaluation::alike::SHARE * others.len() as f64).round() as usize).max(1).min(others.len());
        self.highest
            .extend(scores.iter().zip(head).filter(|(score, _)| **score > -1.0).map(|(score, other)| (*score, number, *other)));
        self.highest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut pairs = std::collections::BTreeSet::new();
        self.highest.retain(|(_, a, b)| pairs.insert((*a.min(b), *a.max(b))));
        self.highest.truncate(LISTED);
        if let Some(sample) = samples.first() {
            let of = |other: &usize| dot(sample.embedding.values(), subjects[*other].reference[network].values());
            self.frames.extend(others[..alike].iter().map(of));
        }
        if subject.is_owner {
            self.owners[band].push(if is_usable { against(number) } else { -1.0 });
        }
        let visit = |scores: Vec<f32>, others: usize| {
            #[expect(clippy::cast_possible_truncation, reason = "people are at most some thousands")]
            StrangerVisit { visitor: number as u32, band, scores, others }
        };
        let is_mine = |other: &usize| half_of(*other) == half_of(number);
        let mine = scores.iter().zip(head).filter(|(_, other)| is_mine(other)).map(|(score, _)| *score).collect();
        self.halved.push(visit(mine, others.iter().filter(|other| is_mine(other)).count()));
        self.strangers.push(visit(scores, others.len()));
    }

    fn owners_refused(&self, band: Option<usize>, threshold: f32) -> Rate {
        let scores = || self.owners.iter().enumerate().filter(|(at, _)| band.is_none_or(|band| band == *at)).flat_map(|(_, s)| s);
        Rate::new(scores().filter(|score| **score < threshold).count() as u64, scores().count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ModelId;

    fn sample(values: [f32; 3], quality: f32) -> Sample {
        Sample { quality, embedding: Embedding::normalised(ModelId::new("m").unwrap(), values.to_vec()).unwrap() }
    }

    #[test]
    fn a_visit_is_granted_up_to_what_the_fusion_and_three_frames_reach() {
        let reference = [1.0, 0.0, 0.0];
        let samples = [
            sample([0.6, 0.8, 0.0], 0.5),
            sample([0.6, -0.8, 0.0], 0.5),
            sample([0.6, 0.0, 0.8], 0.5),
            sample([0.0, 0.0, 1.0], 0.5),
        ];
        let at = |samples: &[Sample]| granted_at(samples, &lengths(samples), &reference);
        // Fused, the three are more alike than each; each must match for itself.
        assert!((at(&samples[..3]) - 0.6).abs() < 1e-6, "{}", at(&samples[..3]));
        assert!((at(&samples) - 0.6).abs() < 1e-6, "a later frame takes nothing away: it was granted before");
        assert_eq!(at(&samples[..2]), -1.0, "two frames are too few");
        let fused = Embedding::fuse(samples[..3].iter().map(|sample| (&sample.embedding, sample.quality))).unwrap();
        let unequal = [sample([0.9, 0.1, 0.0], 0.5), sample([0.8, 0.6, 0.0], 0.5), sample([0.1, 0.9, 0.0], 0.5)];
        assert!(fused.values()[0] > 0.6 && at(&unequal) < 0.2);
    }
}
