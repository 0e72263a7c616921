//! `eval motion`: what each cue over several frames is worth. A presentation is a track of a clip, or a photo that is moved before a
//! camera of our own making (a flat picture under a moving homography). For each species: how often the networks' fused score, the
//! points' parallax, and a turn of the head to the side that chance asks for would let it through, and how often each would keep a
//! living person out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::context::Context;
use super::super::shots;
use super::super::{Failure, Places, Result, code, progress, say, say_json};
use super::liveness::{parse_attack, photos_in};
use super::{header, percent, rate_json};
use crate::access::DoorLiveness;
use crate::capture::{self, Slot, Taken, still};
use crate::evaluation::Rate;
use crate::system::stop;
use crate::types::{Detection, Moment, Monotonic, Picture, TrackId};
use crate::vision::quality::Pose;
use crate::vision::stack::Stack;
use crate::vision::{Motion, Parallax, Tracker, align, assess};

/// A track with fewer usable faces is no presentation.
const LEAST_FACES: usize = 8;
/// Frames of a photo that is moved, and the time between two.
const FRAMES: u64 = 28;
const STEP: Duration = Duration::from_millis(66);

/// `faceid eval motion`
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// A clip of living people; may be given more than once
    #[arg(long, value_name = "CLIP")]
    live: Vec<PathBuf>,
    /// A species of attack and a clip of it; may be given more than once
    #[arg(long = "attack", value_name = "NAME=CLIP", value_parser = parse_attack)]
    attacks: Vec<(String, PathBuf)>,
    /// A folder of photos that are moved before a camera of our own making: held still, moved, turned, nodded
    #[arg(long, value_name = "DIR")]
    photos: Option<PathBuf>,
    /// How many of the photos
    #[arg(long, value_name = "N", default_value_t = 60)]
    most: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What one presentation showed.
#[derive(Default)]
struct Shown {
    parallax: Parallax,
    /// When each usable face was captured, and how far it was turned.
    yaws: Vec<(Monotonic, f32)>,
    liveness: Vec<f32>,
}

impl Shown {
    fn is_presentation(&self) -> bool {
        self.yaws.len() >= LEAST_FACES
    }

    /// The lower of mean and median, as a visit fuses them.
    fn fused(&self) -> Option<f32> {
        let mut sorted = self.liveness.clone();
        sorted.sort_by(f32::total_cmp);
        let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(median.min(sorted.iter().sum::<f32>() / sorted.len() as f32))
    }

    /// On which of the two sides a challenge that was posed at the third usable face would have been met in time.
    fn turns(&self, settings: &DoorLiveness) -> [bool; 2] {
        let Some((asked, from)) = self.yaws.get(2).copied() else { return [false; 2] };
        let until = asked.plus(Duration::from_millis(settings.challenge_timeout_ms));
        let least = settings.turn_degrees as f32;
        [1.0, -1.0].map(|side| {
            let answer = self.yaws.iter().skip(3).take_while(|(at, _)| *at <= until);
            let mut turned = answer.map(|(_, yaw)| side * (yaw - from)).filter(|turned| turned.abs() >= least);
            turned.next().is_some_and(|first| first > 0.0)
        })
    }

    fn see(&mut self, context: &Context, stack: &mut Stack, picture: &Picture, face: &Detection, at: Monotonic) -> Result<()> {
        let Some(aligned) = align(picture, &face.landmarks, stack.embedder.template(), stack.embedder.side()) else {
            return Ok(());
        };
        if !assess(picture, face, &aligned, context.quality()).is_usable() {
            return Ok(());
        }
        if let Some(network) = &mut stack.liveness
            && let Ok(score) = network.score(picture, &face.bounding_box)
        {
            self.liveness.push(score.value());
        }
        self.parallax.see(&face.landmarks);
        self.yaws.push((at, Pose::estimate(&face.landmarks).yaw));
        Ok(())
    }
}

pub(super) fn run(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let mut stack = context.open_stack()?;
    let mut species: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    let mut live = Vec::new();
    for clip in &args.live {
        live.extend(on_clip(&context, &mut stack, clip)?);
    }
    for (name, clip) in &args.attacks {
        species.entry(name.clone()).or_default().extend(on_clip(&context, &mut stack, clip)?);
    }
    if let Some(folder) = &args.photos {
        let photos = photos_in(folder)?;
        let step = (photos.len() / args.most.max(1)).max(1);
        let photos: Vec<&PathBuf> = photos.iter().step_by(step).take(args.most).collect();
        let bar = progress((photos.len() * Move::ALL.len()) as u64, "photos");
        for movement in Move::ALL {
            for path in &photos {
                let Ok(photo) = still::read_picture(path) else { continue };
                let shown = on_photo(&context, &mut stack, &photo, movement)?;
                species.entry(format!("photo-{}", movement.name())).or_default().extend(shown);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
    }
    if live.is_empty() && species.values().all(Vec::is_empty) {
        return Err(Failure::data("nothing usable was given: name clips or a folder of photos"));
    }
    report(&context, &stack, &live, &species, args.json);
    Ok(code::YES)
}

/// The rates of one group of presentations.
struct Rates {
    /// Let through by the networks' fused score.
    networks: Rate,
    /// Not taken for a flat picture.
    parallax: Rate,
    /// Let through by both.
    both: Rate,
    /// Taken for a head by the points.
    solid: Rate,
    /// Let through by a challenge to a side that chance chose.
    challenge: Rate,
}

fn rates(shown: &[Shown], threshold: f32) -> Rates {
    let settings = DoorLiveness::default();
    let count = |passes: &dyn Fn(&Shown) -> bool| Rate::new(shown.iter().filter(|s| passes(s)).count() as u64, shown.len() as u64);
    let is_live = |s: &Shown| s.fused().is_some_and(|score| score >= threshold);
    let is_flat = |s: &Shown| s.parallax.motion() == Motion::Flat;
    let met = shown.iter().flat_map(|s| s.turns(&settings)).filter(|met| *met).count();
    Rates {
        networks: count(&is_live),
        parallax: count(&|s| !is_flat(s)),
        both: count(&|s| is_live(s) && !is_flat(s)),
        solid: count(&|s| s.parallax.motion() == Motion::Solid),
        challenge: Rate::new(met as u64, 2 * shown.len() as u64),
    }
}

fn report(context: &Context, stack: &Stack, live: &[Shown], species: &BTreeMap<String, Vec<Shown>>, as_json: bool) {
    let threshold = context.thresholds(stack).liveness.value();
    let groups = species.iter().map(|(name, shown)| (name.as_str(), rates(shown, threshold)));
    let bona_fide = rates(live, threshold);
    if as_json {
        let row = |rates: &Rates| {
            json!({
                "networks": rate_json(rates.networks), "parallax": rate_json(rates.parallax), "both": rate_json(rates.both),
                "solid": rate_json(rates.solid), "challenge": rate_json(rates.challenge),
            })
        };
        let mut report = header(stack, None);
        report.insert("threshold".into(), json!(threshold));
        report.insert("bona_fide_passes".into(), row(&bona_fide));
        report.insert("species_passes".into(), Value::Object(Map::from_iter(groups.map(|(name, r)| (name.to_owned(), row(&r))))));
        say_json(&Value::Object(report));
        return;
    }
    say(format!(
        "pack {}, liveness threshold {threshold:.3}; a presentation is a track of {LEAST_FACES} usable faces or more",
        stack.pack
    ));
    say("BPCER, living people kept out:");
    say(format!("  networks {}", percent(bona_fide.networks.complement())));
    say(format!("  parallax {}", percent(bona_fide.parallax.complement())));
    say(format!("  seen as a head by the points: {}", percent(bona_fide.solid)));
    say(format!("  the side that was asked for is the one turned to: {}", percent(bona_fide.challenge)));
    for (name, rates) in groups {
        say(format!("APCER of {name}, attacks let through:"));
        say(format!("  networks {}", percent(rates.networks)));
        say(format!("  parallax {}", percent(rates.parallax)));
        say(format!("  networks and parallax {}", percent(rates.both)));
        say(format!("  challenge, a side by chance {}", percent(rates.challenge)));
    }
}

/// Every track of a clip that is a presentation.
fn on_clip(context: &Context, stack: &mut Stack, path: &Path) -> Result<Vec<Shown>> {
    let camera = shots::clip_camera(path)?;
    let settings = &context.config.pipeline;
    let mut tracker = Tracker::new(settings.tracker, 1);
    let mut tracks: BTreeMap<TrackId, Shown> = BTreeMap::new();
    let pace = Duration::from_millis(settings.evidence_interval_ms);
    let (slot, frames) = Slot::single();
    let (handle, stop) = stop::pair();
    let worker = std::thread::spawn({
        let (slot, secrets) = (slot.clone(), context.config.secrets_dir.clone());
        move || {
            let outcome = capture::run(&camera, &secrets, &slot, &|_| {}, &stop);
            slot.close();
            outcome.err().map(|error| error.to_string())
        }
    });
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let frame = match frames.take_any(Duration::from_secs(10)) {
            Taken::Item(_, frame) => frame,
            Taken::Closed | Taken::TimedOut => break,
        };
        let at: Moment = frame.captured_at;
        outcome =
            stack.detector.detect_down_to(&frame.picture, settings.tracker.min_confidence).map_err(Failure::unavailable).and_then(
                |faces| {
                    let sure = stack.detector.confidence();
                    tracker.update(at.monotonic, &faces, sure).into_iter().try_for_each(|(track, index)| {
                        let shown = tracks.entry(track).or_default();
                        let is_due = shown.yaws.last().is_none_or(|(last, _)| at.monotonic.since(*last) >= pace);
                        if is_due { shown.see(context, stack, &frame.picture, &faces[index], at.monotonic) } else { Ok(()) }
                    })
                },
            );
    }
    handle.stop();
    slot.close();
    let failed = worker.join().ok().flatten();
    outcome?;
    if let (Some(why), true) = (failed, tracks.is_empty()) {
        return Err(Failure::data(format!("{}: {why}", path.display())));
    }
    Ok(tracks.into_values().filter(Shown::is_presentation).collect())
}

/// How a photo is moved.
#[derive(Debug, Clone, Copy)]
enum Move {
    Still,
    Slide,
    Turn,
    Nod,
}

impl Move {
    const ALL: [Move; 4] = [Move::Still, Move::Slide, Move::Turn, Move::Nod];

    fn name(self) -> &'static str {
        match self {
            Move::Still => "held-still",
            Move::Slide => "moved",
            Move::Turn => "turned",
            Move::Nod => "nodded",
        }
    }

    /// Yaw and pitch in degrees, and where the middle is and how far away, at share `t` of the time.
    fn pose(self, t: f32) -> ([f32; 2], [f32; 3]) {
        let wave = |rate: f32| (std::f32::consts::TAU * rate * t).sin();
        let shake = [0.01 * wave(3.0), 0.01 * wave(2.3), 1.0 + 0.01 * wave(1.7)];
        match self {
            Move::Still => ([1.5 * wave(2.0), 1.5 * wave(1.4)], shake),
            Move::Slide => ([2.0 * wave(2.0), 2.0 * wave(1.4)], [0.12 * wave(1.0), 0.05 * wave(1.3), 1.15 + 0.2 * wave(0.7)]),
            Move::Turn => ([42.0 * wave(1.0), 2.0 * wave(1.4)], shake),
            Move::Nod => ([2.0 * wave(2.0), 38.0 * wave(1.0)], shake),
        }
    }
}

/// A photo, moved: one presentation, if its face is found often enough.
fn on_photo(context: &Context, stack: &mut Stack, photo: &Picture, movement: Move) -> Result<Option<Shown>> {
    let rgb = crate::vision::pixels::to_rgb(photo);
    let mut shown = Shown::default();
    for n in 0..FRAMES {
        let at = Monotonic(0).plus(STEP * u32::try_from(n).unwrap_or(0));
        let (angles, place) = movement.pose(n as f32 / FRAMES as f32);
        let Some(picture) = held_up(&rgb, (photo.width(), photo.height()), angles, place) else { return Ok(None) };
        let mut faces = stack.detector.detect(&picture).map_err(Failure::unavailable)?;
        faces.sort_by(|a, b| b.bounding_box.area().total_cmp(&a.bounding_box.area()));
        if let Some(face) = faces.first() {
            shown.see(context, stack, &picture, face, at)?;
        }
    }
    Ok(Some(shown).filter(Shown::is_presentation))
}

/// A flat picture of `size`, turned and held up before a pinhole camera of 480 by 480 pixels that sees 53 degrees: four picture heights
/// would fill a third of it.
fn held_up(rgb: &[u8], (width, height): (u32, u32), [yaw, pitch]: [f32; 2], [x, y, z]: [f32; 3]) -> Option<Picture> {
    const SIDE: u32 = 480;
    const FOCAL: f32 = 480.0;
    let (yaw, pitch) = (yaw.to_radians(), pitch.to_radians());
    // The sheet's two directions and its normal, in the camera's space; it is one unit high at a distance of `1.25 z`.
    let across = [yaw.cos(), 0.0, -yaw.sin()];
    let down = [yaw.sin() * pitch.sin(), pitch.cos(), yaw.cos() * pitch.sin()];
    let normal = [
        across[1] * down[2] - across[2] * down[1],
        across[2] * down[0] - across[0] * down[2],
        across[0] * down[1] - across[1] * down[0],
    ];
    let middle = [x, y, 1.25 * z];
    let dot = |a: [f32; 3], b: [f32; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let mut out = vec![96u8; (3 * SIDE * SIDE) as usize];
    for (index, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (column, row) = ((index as u32 % SIDE) as f32, (index as u32 / SIDE) as f32);
        let ray = [(column - SIDE as f32 / 2.0) / FOCAL, (row - SIDE as f32 / 2.0) / FOCAL, 1.0];
        let distance = dot(middle, normal) / dot(ray, normal);
        let hit = [ray[0] * distance - middle[0], ray[1] * distance - middle[1], ray[2] * distance - middle[2]];
        let (u, v) = ((dot(hit, across) + 0.5) * height as f32, (dot(hit, down) + 0.5) * height as f32);
        let u = u + (width as f32 - height as f32) / 2.0;
        if !(u >= 0.0 && v >= 0.0 && u < (width - 1) as f32 && v < (height - 1) as f32) {
            continue;
        }
        let (left, top, a, b) = (u as usize, v as usize, u.fract(), v.fract());
        for (channel, value) in pixel.iter_mut().enumerate() {
            let at = |dx: usize, dy: usize| f32::from(rgb[3 * ((top + dy) * width as usize + left + dx) + channel]);
            let above = at(0, 0) * (1.0 - a) + at(1, 0) * a;
            let below = at(0, 1) * (1.0 - a) + at(1, 1) * a;
            *value = (above * (1.0 - b) + below * b) as u8;
        }
    }
    Picture::from_rgb(SIDE, SIDE, out)
}
