//! Evidence belongs to one face: random sequences of faces of several people, living and not, that jump, change places, overlap, morph and
//! relieve each other, through tracker, visits, gallery and decider, against a checker that knows who was really there. Nobody may be let
//! in unless the least number of frames show that very person alive, and in the order that a challenge asked. To show that the checker can
//! fail, the same sequences are given to versions that are blind in one way each: every one of them must be caught.
//!
//! A sequence is drawn from a seed that a failure names (`FACEID_SEQUENCE_SEED` looks at it again), or by a fuzzer's bytes: who stands where
//! for how many frames is theirs, the unrest between frames is not.

#[cfg_attr(not(test), allow(dead_code, reason = "only tests are blind"))]
mod blind;

use std::path::Path;
use std::sync::Arc;

use crate::access::grant::GrantKey;
use crate::access::{
    self, ChallengeKind, Decider, DoorLiveness, DoorSettings, Input, PolicySettings, Rules, Thresholds, WitnessSettings,
};
use crate::gallery::{self, Gallery};
use crate::pipeline::{self, Gated, Pipeline, Stages, Witness};
use crate::types::drawn::Drawn;
use crate::types::*;
use crate::vision::VisionError;
use blind::{Blind, perceived};

const STEP_MS: u64 = 66;
const MATCHING: f32 = 0.5;
const LIVE: f32 = 0.5;
const DIMENSION: usize = 16;
/// The first two are enrolled.
const PEOPLE: [&str; 2] = ["ada", "bob"];
const CAMERA: &str = "cam";
const BESIDE: &str = "beside";

/// What a door asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    Plain,
    Turn,
    SecondCamera,
    OneFace,
}

const SITES: [Site; 4] = [Site::Plain, Site::Turn, Site::SecondCamera, Site::OneFace];

/// One face in one frame, as it really is.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    /// How much alike to each of [`PEOPLE`], and what sets it apart from them.
    vector: Vec<f32>,
    /// What the networks say of this frame.
    liveness: f32,
    /// Whether the camera beside sees a face there: a picture may deceive the networks, and is dark in the infrared.
    is_warm: bool,
    yaw: f32,
    area: BoundingBox,
    quality: f32,
    confidence: f32,
}

impl Figure {
    fn alike(&self, person: usize) -> f32 {
        self.vector[person]
    }

    /// Whether this very frame shows this person: a little room is left for the gallery's rounding.
    fn is(&self, person: usize) -> bool {
        let rival = (0..PEOPLE.len()).filter(|other| *other != person).map(|other| self.alike(other)).fold(-1.0, f32::max);
        self.alike(person) >= MATCHING - 1e-3 && self.alike(person) >= rival - 1e-3
    }

    fn is_live(&self) -> bool {
        self.liveness >= LIVE
    }

    fn detection(&self) -> Detection {
        let area = self.area;
        let eyes = area.width / 2.0;
        let (x, y) = (area.center().x, area.y + area.height * 0.4);
        // The nose of a head that is turned stands aside of the midline by 0.6 distances between the eyes times the tangent.
        let nose = 0.6 * eyes * self.yaw.to_radians().tan();
        let point = |dx: f32, dy: f32| Point { x: x + dx * eyes, y: y + dy * eyes };
        let points = [point(-0.5, 0.0), point(0.5, 0.0), point(nose / eyes, 0.57), point(-0.4, 1.155), point(0.4, 1.155)];
        Detection { bounding_box: area, landmarks: Landmarks(points), confidence: self.confidence }
    }
}

/// What the networks see: the frame that is shown, or what a blind version takes for it.
struct Scene {
    figures: Vec<Figure>,
    before: Vec<Figure>,
    /// What the camera beside sees; it is asked when its own frame is shown.
    beside: Option<Vec<Detection>>,
    last_liveness: f32,
    /// Faces by the place where they were first seen.
    kept: Vec<(BoundingBox, Vec<f32>)>,
    blind: Option<Blind>,
}

fn model() -> ModelId {
    ModelId::new("drawn").unwrap()
}

impl Stages for Scene {
    fn detect(&mut self, _: &Picture, least: Option<f32>) -> Result<Vec<Detection>, VisionError> {
        if let Some(beside) = self.beside.take() {
            return Ok(beside);
        }
        let seen = self.figures.iter().map(Figure::detection).filter(|face| face.confidence >= least.unwrap_or(0.6));
        Ok(seen.collect())
    }

    fn confidence(&self) -> f32 {
        0.6
    }

    fn matching(&self) -> Score {
        Score::new(MATCHING).unwrap()
    }

    fn gate(&mut self, _: &Picture, detection: &Detection, _: &pipeline::Settings) -> Gated {
        match self.figures.iter().find(|figure| figure.area == detection.bounding_box) {
            None => Gated::Unknowable,
            Some(figure) if figure.quality < 0.1 => Gated::Refused(vec![Refusal::TooBlurred]),
            Some(figure) => Gated::Usable(AlignedFace::new(1, vec![0; 3]), figure.quality),
        }
    }

    fn is_turned(&mut self, _: &Picture, _: &Detection) -> Result<bool, VisionError> {
        Ok(false)
    }

    fn describe(
        &mut self,
        _: &Picture,
        detection: &Detection,
        _: &AlignedFace,
        _: &pipeline::Timings,
    ) -> Result<Option<(Option<PadScore>, Embedding)>, VisionError> {
        let Some(figure) = self.figures.iter().find(|figure| figure.area == detection.bounding_box) else { return Ok(None) };
        let near = |other: &&Figure| other.area.iou(&figure.area) > 0.1;
        let mut vector = figure.vector.clone();
        let mut liveness = figure.liveness;
        match self.blind {
            Some(Blind::FaceOfTheFrameBefore) => {
                vector = self.before.iter().find(near).map_or(vector, |figure| figure.vector.clone());
            }
            Some(Blind::LivenessOfTheLastFace) => liveness = std::mem::replace(&mut self.last_liveness, liveness),
            Some(Blind::LivenessOfAnybodyInView) => {
                liveness = self.figures.iter().map(|figure| figure.liveness).fold(0.0, f32::max);
            }
            Some(Blind::FaceOfAnybodyInView) => {
                let known = self.figures.iter().find(|figure| (0..PEOPLE.len()).any(|person| figure.is(person)));
                vector = known.map_or(vector, |figure| figure.vector.clone());
            }
            Some(Blind::FaceKeptByPlace) => match self.kept.iter().find(|(area, _)| area.iou(&figure.area) > 0.3) {
                Some((_, kept)) => vector = kept.clone(),
                None => self.kept.push((figure.area, vector.clone())),
            },
            _ => {}
        }
        let embedding = Embedding::normalised(model(), vector).expect("a face");
        Ok(Some((PadScore::new(liveness).ok(), embedding)))
    }
}

/// Draws figures.
struct Dice<'a> {
    random: fastrand::Rng,
    /// Where a fuzzer draws them.
    given: Option<Drawn<'a>>,
}

#[cfg(test)]
impl Dice<'static> {
    fn seeded(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), given: None }
    }
}

impl<'a> Dice<'a> {
    fn given(bytes: &'a [u8]) -> Self {
        let mut drawn = Drawn::new(bytes);
        Self { random: fastrand::Rng::with_seed(drawn.byte().into()), given: Some(drawn) }
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn below(&mut self, count: usize) -> usize {
        match &mut self.given {
            Some(drawn) => drawn.below(count),
            None => self.random.usize(..count),
        }
    }

    fn near(&mut self, value: f32, by: f32) -> f32 {
        value + by * (2.0 * self.random.f32() - 1.0)
    }

    /// Somebody as much alike to the people as said.
    fn face(&mut self, alike: &[f32; PEOPLE.len()], own: usize) -> Vec<f32> {
        let mut vector = vec![0.0; DIMENSION];
        vector[..PEOPLE.len()].copy_from_slice(alike);
        let rest = (1.0 - alike.iter().map(|a| a * a).sum::<f32>()).max(0.0).sqrt();
        vector[PEOPLE.len() + own] = rest;
        vector.iter_mut().for_each(|value| *value = self.near(*value, 0.03));
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= norm);
        vector
    }
}

/// A stretch of frames of one figure.
#[derive(Debug, Clone)]
struct Stretch {
    alike: [f32; PEOPLE.len()],
    own: usize,
    is_live: bool,
    is_warm: bool,
    yaw: f32,
    x: f32,
    frames: usize,
    is_there: bool,
    is_clear: bool,
}

fn stretch(dice: &mut Dice<'_>, x: f32) -> Stretch {
    let alike = dice.one(&[
        [0.85, 0.1],
        [0.85, 0.1],
        [0.1, 0.85],
        // A stranger who is nobody's double, two who are alike enough for one visit, and a morph of the two.
        [0.05, 0.05],
        [0.38, 0.1],
        [0.44, 0.3],
        [0.6, 0.57],
        [0.55, 0.3],
    ]);
    let is_live = dice.below(2) > 0;
    Stretch {
        alike,
        own: dice.one(&[0, 1, 2]),
        is_live,
        is_warm: is_live && dice.below(3) > 0,
        yaw: dice.one(&[0.0, 0.0, 0.0, 25.0, -25.0]),
        x: if dice.below(4) == 0 { dice.one(&[40.0, 90.0, 200.0, 420.0]) } else { x },
        frames: dice.one(&[1, 1, 2, 2, 3, 4, 8, 16]),
        is_there: dice.below(8) > 0,
        is_clear: dice.below(8) > 0,
    }
}

/// Frame after frame, who is really there.
fn sequence(dice: &mut Dice<'_>) -> Vec<Vec<Figure>> {
    let mut frames: Vec<Vec<Figure>> = vec![Vec::new(); 30 + dice.below(60)];
    for lane in 0..dice.one(&[1, 1, 2]) {
        let place = dice.one(&[40.0, 60.0, 300.0]) + if lane == 1 { dice.one(&[10.0, 240.0]) } else { 0.0 };
        let size = dice.one(&[120.0, 120.0, 70.0]);
        let (mut now, mut left) = (stretch(dice, place), 0);
        for frame in &mut frames {
            if left == 0 {
                now = stretch(dice, place);
                left = now.frames;
            }
            left -= 1;
            if !now.is_there {
                continue;
            }
            let area = BoundingBox { x: dice.near(now.x, 4.0), y: dice.near(100.0, 4.0), width: size, height: size * 1.2 };
            let liveness = if now.is_live { dice.near(0.85, 0.1) } else { dice.near(0.15, 0.12) };
            // One frame in twelve says what is not so.
            let liveness = if dice.below(12) == 0 { 1.0 - liveness } else { liveness };
            let quality = if now.is_clear { dice.near(0.6, 0.3) } else { 0.05 };
            let vector = dice.face(&now.alike, now.own);
            let yaw = dice.near(now.yaw, 3.0);
            frame.push(Figure {
                vector,
                liveness,
                is_warm: now.is_warm,
                yaw,
                area,
                quality,
                confidence: dice.one(&[0.9, 0.9, 0.9, 0.4]),
            });
        }
    }
    frames
}

fn at(frame: usize) -> Moment {
    let ms = 1000 + STEP_MS * frame as u64;
    Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(1_700_000_000_000 + i64::try_from(ms).unwrap()) }
}

/// Two people's faces in a sealed gallery, made once.
fn people(folder: &Path) -> Arc<Gallery> {
    let settings = gallery::Settings { dir: folder.join("gallery"), ..gallery::Settings::default() };
    let gallery = Gallery::create_or_open(&settings, &gallery::SealingKey::generate().unwrap(), &model(), DIMENSION).unwrap();
    for (index, name) in PEOPLE.iter().enumerate() {
        let mut values = vec![0.0; DIMENSION];
        values[index] = 1.0;
        let id = PersonId::new(*name).unwrap();
        let person = Person { id, name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
        gallery.enroll_many(vec![(person, vec![Embedding::normalised(model(), values).unwrap()])]).unwrap();
    }
    Arc::new(gallery)
}

fn decider(site: Site, blind: Option<Blind>) -> Decider {
    let mut door = DoorSettings::new(DoorId::new("front").unwrap(), vec![CameraId::new(CAMERA).unwrap()]);
    let camera = CameraId::new(BESIDE).unwrap();
    match (site, blind) {
        (Site::Turn, blind) if blind != Some(Blind::NoChallenge) => {
            door.liveness = DoorLiveness { challenge: ChallengeKind::Turn, ..DoorLiveness::default() };
        }
        (Site::SecondCamera, blind) if blind != Some(Blind::NoSecondCamera) => {
            let tolerance_percent = if blind == Some(Blind::SecondCameraSeesThemElsewhere) { 50 } else { 10 };
            let witness = Some(WitnessSettings { camera, kind: WitnessKind::Infrared, tolerance_percent });
            door.liveness = DoorLiveness { witness, ..DoorLiveness::default() };
        }
        (Site::OneFace, blind) if blind != Some(Blind::ManyFaces) => door.liveness.one_face = true,
        _ => {}
    }
    let mut settings = access::Settings::default();
    let mut matching = MATCHING;
    match blind {
        Some(Blind::OneFrame) => (settings.min_frames, settings.min_liveness_frames) = (1, 1),
        Some(Blind::OneLiveFrame) => settings.min_liveness_frames = 1,
        Some(Blind::NoLiveness) => settings.require_liveness = false,
        Some(Blind::LowThreshold) => matching = 0.4,
        _ => {}
    }
    let mut policy = PolicySettings::default();
    (policy.throttle.failures, policy.throttle.cool_down_ms) = (0, 0);
    let thresholds = Thresholds { matching: Score::new(matching).unwrap(), margin: 0.02, liveness: PadScore::new(LIVE).unwrap() };
    let key = GrantKey::from_seed(&[7; 32]).unwrap();
    let mut asked = 0u32;
    let sides = move || {
        asked += 1;
        Some(if asked % 2 == 1 { Side::Left } else { Side::Right })
    };
    let device = DeviceId::new("unit").unwrap();
    Decider::new(device, settings, thresholds, &[door], Rules::new(&policy).unwrap(), key).with_sides(Box::new(sides))
}

/// A grant, when it fell, and what had been asked by then.
struct Grant {
    frame: usize,
    person: usize,
    prompts: Vec<Prompt>,
}

/// Takes a sequence through everything.
fn live(pictures: &[Picture; 2], frames: &[Vec<Figure>], site: Site, gallery: &Arc<Gallery>, blind: Option<Blind>) -> Vec<Grant> {
    let scene = Scene { figures: vec![], before: vec![], beside: None, last_liveness: 0.0, kept: vec![], blind };
    let [camera, beside] = [CAMERA, BESIDE].map(|name| CameraId::new(name).unwrap());
    let witness = Witness { camera: beside.clone(), kind: WitnessKind::Infrared, partners: vec![camera.clone()] };
    let mut pipeline = Pipeline::new(pipeline::Settings::default(), scene, Some(gallery.clone()));
    if site == Site::SecondCamera {
        pipeline = pipeline.with_witnesses(vec![witness]);
    }
    let mut decider = decider(site, blind);
    let (mut grants, mut prompts, mut ids) = (Vec::new(), Vec::new(), 0u32);
    for (index, figures) in frames.iter().enumerate() {
        let now = at(index);
        let stages = pipeline.stack();
        stages.before = std::mem::replace(&mut stages.figures, figures.clone());
        let frame = |camera: &CameraId| Frame {
            camera: camera.clone(),
            number: index as u64,
            captured_at: now,
            // Something always moves.
            picture: pictures[index % 2].clone(),
        };
        let seen = pipeline.process(&frame(&camera)).unwrap();
        if site == Site::SecondCamera {
            // Pictures are dark in the infrared, and a living face is there whoever it is.
            let is_seen = |figure: &&Figure| figure.is_warm || blind == Some(Blind::SecondCameraSeesPictures);
            pipeline.stack().beside = Some(figures.iter().filter(is_seen).map(Figure::detection).collect());
            let sighting = pipeline.process(&frame(&beside)).unwrap().sighting;
            pipeline.stack().beside = None;
            sighting.into_iter().for_each(|sighting| decider.take(Input::Sighting(sighting), now).unwrap());
        }
        for observation in &seen.observations {
            let decisions = decider.decide(&perceived(observation, blind), now, &mut || {
                ids += 1;
                ids.to_string()
            });
            for decision in decisions.iter().filter(|decision| decision.grant.is_some()) {
                let name = decision.person.as_ref().unwrap().as_str();
                let person = PEOPLE.iter().position(|other| *other == name).unwrap();
                grants.push(Grant { frame: index, person, prompts: prompts.clone() });
            }
            if decider.is_decided(&observation.camera, observation.track) {
                pipeline.settle(&observation.camera, observation.track);
            }
        }
        let mut asked = decider.take_prompts();
        if blind == Some(Blind::OtherSide) {
            let other = |side| if side == Side::Left { Side::Right } else { Side::Left };
            asked.iter_mut().for_each(|prompt| prompt.side = other(prompt.side));
        }
        prompts.extend(asked);
        decider.overdue(now);
    }
    grants
}

/// What is wrong with a grant.
fn judge(frames: &[Vec<Figure>], site: Site, grant: &Grant) -> Option<&'static str> {
    let person = grant.person;
    let until_then = &frames[..=grant.frame];
    let own = |figures: &&Vec<Figure>| figures.iter().any(|figure| figure.is(person) && figure.is_live() && figure.quality >= 0.1);
    if until_then.iter().filter(own).count() < 3 {
        return Some("fewer than three frames show that person alive");
    }
    match site {
        Site::Plain => None,
        Site::OneFace => {
            let alone = until_then.iter().filter(own).filter(|figures| {
                let mine = figures.iter().find(|figure| figure.is(person)).map_or(0.0, |figure| figure.area.height);
                figures.iter().filter(|other| other.confidence >= 0.6 && 2.0 * other.area.height >= mine).count() <= 1
            });
            (alone.count() < 3).then_some("fewer than three frames show that person alone")
        }
        Site::Turn => {
            let yaws = |range: std::ops::RangeInclusive<usize>| {
                let figures = frames[range].iter().flatten().filter(move |figure| figure.is(person));
                figures.map(|figure| figure.yaw).collect::<Vec<_>>()
            };
            let has_turned = grant.prompts.iter().any(|prompt| {
                let asked = (0..frames.len()).rfind(|index| at(*index).monotonic <= prompt.asked_at.monotonic).unwrap_or(0);
                if asked >= grant.frame {
                    return false;
                }
                let (before, after) = (yaws(0..=asked), yaws(asked + 1..=grant.frame));
                let turn = |from: f32, to: f32| if prompt.side == Side::Left { to - from } else { from - to };
                after.iter().any(|to| before.iter().any(|from| turn(*from, *to) >= 14.5))
            });
            (!has_turned).then_some("that person did not turn the head to the asked side after it was asked")
        }
        Site::SecondCamera => {
            // A look is that person's when the person is in that frame or in one beside it, and something warm was there.
            let near = |index: usize| index.saturating_sub(1)..=(index + 1).min(frames.len() - 1);
            let place = |figure: &Figure| Place::of(&figure.area, 640, 480);
            let agrees = |index: &usize| {
                frames[near(*index)].iter().flatten().filter(|figure| figure.is(person)).any(|mine| {
                    let beside = frames[*index].iter().filter(|figure| figure.is_warm);
                    beside.map(place).any(|there| there.agrees(&place(mine), 0.12))
                })
            };
            let looks = (0..=grant.frame).filter(agrees).count();
            (looks < 3).then_some("the second camera saw nobody alive where that person was")
        }
    }
}

/// What is wrong with a drawn sequence, or how many were let in.
fn check(mut dice: Dice<'_>, pictures: &[Picture; 2], gallery: &Arc<Gallery>, blind: Option<Blind>) -> Result<usize, String> {
    let site = dice.one(&SITES);
    let frames = sequence(&mut dice);
    let grants = live(pictures, &frames, site, gallery, blind);
    for grant in &grants {
        if let Some(wrong) = judge(&frames, site, grant) {
            return Err(format!("{} was let in at frame {} ({site:?}): {wrong}", PEOPLE[grant.person], grant.frame));
        }
    }
    Ok(grants.len())
}

/// Two shades, one after the other: something always moves.
fn pictures() -> [Picture; 2] {
    [40, 200].map(|level| Picture::from_rgb(640, 480, vec![level; 640 * 480 * 3]).unwrap())
}

/// The people and the pictures of sequences that any bytes draw.
pub(super) struct Stage {
    pictures: [Picture; 2],
    gallery: Arc<Gallery>,
}

impl Stage {
    /// With its gallery in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { pictures: pictures(), gallery: people(folder) }
    }

    /// How many are let in; panics where somebody is who was not there alive.
    pub(super) fn play(&self, bytes: &[u8]) -> usize {
        check(Dice::given(bytes), &self.pictures, &self.gallery, None).unwrap_or_else(|wrong| panic!("{wrong}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::blind::ALL_BLIND;
    use super::*;

    /// Sequences of the long run, and those within which a blind version must be caught.
    const SEQUENCES: u64 = 4_000;
    const SOON: u64 = 12_000;

    #[test]
    fn nobody_is_let_in_but_by_enough_frames_that_show_that_very_person_alive() {
        let asked = std::env::var("FACEID_SEQUENCE_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = asked.unwrap_or_else(|| fastrand::u64(..) >> 20);
        println!("seeds from {seed}");
        let dir = tempfile::tempdir().unwrap();
        let gallery = people(dir.path());
        let pictures = pictures();
        let count = if asked.is_some() { 1 } else { SEQUENCES };
        let grants: usize = (seed..seed + count)
            .map(|seed| check(Dice::seeded(seed), &pictures, &gallery, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")))
            .sum();
        println!("{count} sequences, {grants} grants");
        assert!(asked.is_some() || grants > 500, "the sequences say little: {grants} grants");
    }

    #[test]
    fn whoever_is_blind_in_any_one_way_is_caught() {
        let dir = tempfile::tempdir().unwrap();
        let gallery = people(dir.path());
        let pictures = pictures();
        let mut missed = Vec::new();
        for blind in ALL_BLIND {
            match (0..SOON)
                .find_map(|n| check(Dice::seeded(5_000_000 + n), &pictures, &gallery, Some(blind)).err().map(|wrong| (n, wrong)))
            {
                Some((after, wrong)) => println!("{blind:?}: caught by sequence {after}: {wrong}"),
                None => missed.push(blind),
            }
        }
        assert!(missed.is_empty(), "nobody noticed that a version was blind in these ways: {missed:?}");
    }

    /// Frames of one figure with a liveness and a place that stay.
    fn stand(frames: usize, alike: [f32; PEOPLE.len()], liveness: f32, yaw: f32) -> Vec<Vec<Figure>> {
        let mut dice = Dice::seeded(1);
        let area = BoundingBox { x: 100.0, y: 100.0, width: 120.0, height: 144.0 };
        let figure = |dice: &mut Dice<'_>| Figure {
            vector: dice.face(&alike, 0),
            liveness,
            is_warm: liveness > LIVE,
            yaw,
            area,
            quality: 0.6,
            confidence: 0.9,
        };
        (0..frames).map(|_| vec![figure(&mut dice)]).collect()
    }

    #[test]
    fn whoever_stands_there_alone_is_let_in_at_every_kind_of_door() {
        let dir = tempfile::tempdir().unwrap();
        let gallery = people(dir.path());
        let turned: Vec<_> = [stand(14, [0.85, 0.1], 0.9, 0.0), stand(6, [0.85, 0.1], 0.9, 25.0)].concat();
        for site in SITES {
            let frames = if site == Site::Turn { turned.clone() } else { stand(14, [0.85, 0.1], 0.9, 0.0) };
            let grants = live(&pictures(), &frames, site, &gallery, None);
            assert_eq!(grants.iter().map(|grant| grant.person).collect::<Vec<_>>(), [0], "{site:?}");
            assert!(site == Site::Turn || Duration::from_millis(STEP_MS * grants[0].frame as u64) < Duration::from_secs(1));
        }
    }

    #[test]
    fn a_picture_that_is_shown_for_a_moment_lets_nobody_in_however_alike_the_bearer_is() {
        let dir = tempfile::tempdir().unwrap();
        let gallery = people(dir.path());
        // A living stranger who is alike enough for one visit, and a picture of the enrolled person before the face for so many frames.
        for alike in [0.32, 0.38, 0.42, 0.45] {
            for (before, shown) in (0..12).flat_map(|before| [1, 2, 4, 8].map(|shown| (before, shown))) {
                let mut frames = stand(before, [alike, 0.1], 0.9, 0.0);
                frames.extend(stand(shown, [0.85, 0.1], 0.05, 0.0));
                frames.extend(stand(20, [alike, 0.1], 0.9, 0.0));
                for site in SITES {
                    let grants = live(&pictures(), &frames, site, &gallery, None);
                    assert!(grants.is_empty(), "{alike} alike, after {before} frames for {shown}, {site:?}");
                }
            }
        }
    }
}
