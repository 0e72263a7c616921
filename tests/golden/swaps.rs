//! A picture of an enrolled person before a living stranger's face, made of the project's own rendered people: in many orders, with the
//! networks of every pack that is there, through tracker, visits, gallery and decider. Nobody may be let in. That the clips are the attack
//! is shown each time: a decider that is told that every frame of a visit shows whom the visit as a whole resembles opens the door.
//!
//! The stranger is person B as the demo's clip shows B alive. Rendered people are too unlike each other for one visit, so the enrolled one is
//! a double: photos of A with as much of B blended in as a visit takes for one person and a match does not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use faceid_plus::access::grant::GrantKey;
use faceid_plus::access::{self, Decider, DoorSettings, PolicySettings, Rules, Thresholds};
use faceid_plus::gallery::{self, Gallery, SealingKey};
use faceid_plus::inference::manifest::Manifest;
use faceid_plus::inference::{self, BackendChoice};
use faceid_plus::pipeline::{Pipeline, Settings, look, reference};
use faceid_plus::types::{
    BoundingBox, CameraId, Decision, DeviceId, DoorId, Embedding, Frame, Moment, Observation, Person, PersonId, Reason, Score, Wall,
};
use faceid_plus::vision::align::{ARCFACE_TEMPLATE, align};
use faceid_plus::vision::quality;
use faceid_plus::vision::stack::Stack;
use image::{Rgb, RgbImage, imageops};

use super::picture_of;

/// The time between two frames.
const STEP: Duration = Duration::from_millis(66);
/// From which frame of the clip on the stranger stands before the door.
const STRANGER: usize = 330;
/// The enrolled double.
const VICTIM: &str = "victim";
/// How much of the match threshold two faces must be alike for one visit (0.6), and a little more for the frames that are less so.
const ONE_VISIT: f32 = 0.7;

/// A frame of the demo's clip and where its only face is.
struct Shot {
    image: RgbImage,
    face: BoundingBox,
}

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(file)
}

fn photo(person: &str, number: u32) -> RgbImage {
    image::open(demo(&format!("people/{person}/{person}_{number:04}.jpg"))).unwrap().to_rgb8()
}

/// Every second frame of the clip from one on.
fn shots(from: usize, count: usize) -> Vec<Shot> {
    const WIDTH: u32 = 1280;
    const HEIGHT: u32 = 720;
    let select = format!("select=between(n\\,{from}\\,{})*not(mod(n-{from}\\,2))", from + 2 * count - 1);
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(demo("door.mp4"))
        .args(["-vf", &select, "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg is needed to read a clip's frames");
    let bytes = (3 * WIDTH * HEIGHT) as usize;
    assert_eq!(output.stdout.len(), bytes * count, "{}", String::from_utf8_lossy(&output.stderr));
    let truth: serde_json::Value = serde_json::from_slice(&std::fs::read(demo("door.json")).unwrap()).unwrap();
    let shot = |(n, rgb): (usize, &[u8])| {
        let [x0, y0, x1, y1]: [f32; 4] = serde_json::from_value(truth["frames"][from + 2 * n][0]["box"].clone()).unwrap();
        let face = BoundingBox { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
        Shot { image: RgbImage::from_raw(WIDTH, HEIGHT, rgb.to_vec()).unwrap(), face }
    };
    output.stdout.chunks(bytes).enumerate().map(shot).collect()
}

/// A picture that is held up, and where its face is on it.
struct Sheet {
    image: RgbImage,
    face: BoundingBox,
}

impl Sheet {
    /// The frame with this picture's face on that of the frame and as wide, `aside` widths to the right, as opaque as said.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "pixels of a frame")]
    fn before(&self, shot: &Shot, aside: f32, opaque: f32) -> RgbImage {
        let scale = shot.face.width / self.face.width;
        let scaled = |side: u32| (side as f32 * scale) as u32;
        let image =
            imageops::resize(&self.image, scaled(self.image.width()), scaled(self.image.height()), imageops::FilterType::Triangle);
        let (there, own) = (shot.face.center(), self.face.center());
        let left = (there.x - own.x * scale + aside * shot.face.width) as i64;
        let top = (there.y - own.y * scale) as i64;
        let mut scene = shot.image.clone();
        for (x, y, pixel) in image.enumerate_pixels() {
            let at = (u32::try_from(left + i64::from(x)), u32::try_from(top + i64::from(y)));
            if let (Ok(x), Ok(y)) = at
                && let Some(under) = scene.get_pixel_mut_checked(x, y)
            {
                blend(under, *pixel, opaque);
            }
        }
        scene
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two grey levels")]
fn blend(under: &mut Rgb<u8>, over: Rgb<u8>, share: f32) {
    for (under, over) in under.0.iter_mut().zip(over.0) {
        *under = (f32::from(*under) * (1.0 - share) + f32::from(over) * share).round() as u8;
    }
}

/// What one frame shows.
#[derive(Debug, Clone, Copy)]
enum Shown {
    Stranger,
    Picture,
    /// The picture so many face widths aside of the stranger's face.
    Aside(f32),
    /// The picture as opaque as said before the stranger's face.
    Fading(f32),
}

/// The orders in which they are shown.
fn orders() -> Vec<(&'static str, Vec<Shown>)> {
    use Shown::{Aside, Fading, Picture, Stranger};
    let then = |parts: &[(usize, Shown)]| parts.iter().flat_map(|(count, shown)| vec![*shown; *count]).collect::<Vec<_>>();
    let over = |frames: u8, shown: fn(f32) -> Shown| (0..frames).map(move |n| shown(f32::from(n) / f32::from(frames - 1)));
    vec![
        ("the picture first", then(&[(5, Picture), (25, Stranger)])),
        ("the picture first, for a moment", then(&[(2, Picture), (28, Stranger)])),
        ("the picture after a while", then(&[(2, Stranger), (6, Picture), (22, Stranger)])),
        ("the picture at last", then(&[(6, Stranger), (24, Picture)])),
        ("twice", then(&[(3, Stranger), (4, Picture), (4, Stranger), (4, Picture), (15, Stranger)])),
        ("in turns", (0..15).flat_map(|_| [Stranger, Picture]).collect()),
        ("in turns of two", (0..8).flat_map(|_| [Picture, Picture, Stranger, Stranger]).collect()),
        ("in turns, mostly the face", (0..8).flat_map(|_| [Picture, Stranger, Stranger, Stranger]).collect()),
        ("both in view", then(&[(15, Aside(1.6)), (15, Stranger)])),
        (
            "moved before the face and away",
            over(9, |share| Aside(1.6 - 1.6 * share))
                .chain(then(&[(4, Picture)]))
                .chain(over(9, |share| Aside(-1.6 * share)))
                .chain(then(&[(8, Stranger)]))
                .collect(),
        ),
        ("jumping beside and before the face", (0..10).flat_map(|_| [Aside(0.8), Stranger, Picture]).collect()),
        (
            "the picture becomes the face",
            then(&[(4, Picture)]).into_iter().chain(over(10, |share| Fading(1.0 - share))).chain(then(&[(16, Stranger)])).collect(),
        ),
        (
            "the face becomes the picture",
            then(&[(8, Stranger)]).into_iter().chain(over(10, Fading)).chain(then(&[(12, Picture)])).collect(),
        ),
    ]
}

/// The networks of a pack and where they come from.
struct Pack {
    name: &'static str,
    manifest: Manifest,
    folder: PathBuf,
    networks: inference::Settings,
}

impl Pack {
    fn open(&self) -> Stack {
        Stack::open(&self.manifest, self.name, &self.folder, &self.networks).unwrap()
    }
}

fn builtin() -> Pack {
    let networks = inference::Settings { backend: BackendChoice::Tract, ..inference::Settings::default() };
    Pack { name: "builtin", manifest: Manifest::builtin().unwrap(), folder: ".".into(), networks }
}

/// The packs whose networks are beside the project.
#[cfg(feature = "ort")]
fn others() -> Vec<Pack> {
    let (Some(folder), Some(library)) = (super::shared::shared(), super::shared::onnxruntime()) else { return vec![] };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/manifest.toml");
    let manifest: Manifest = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let networks = inference::Settings {
        backend: BackendChoice::Ort,
        providers: vec![inference::Provider::Cpu],
        library: Some(library),
        ..inference::Settings::default()
    };
    let pack = |name| Pack { name, manifest: manifest.clone(), folder: folder.join("models"), networks: networks.clone() };
    ["standard", "small", "arcface-512-research"].map(pack).into()
}

fn embedded(stack: &mut Stack, photo: RgbImage) -> Embedding {
    reference(look(stack, &picture_of(photo), &quality::Settings::default()).unwrap()).unwrap()
}

/// Photos of somebody who is this share of person B and otherwise person A.
fn double(stack: &mut Stack, share: f32) -> Vec<RgbImage> {
    const SIDE: u32 = 448;
    // Head and shoulders.
    let template = ARCFACE_TEMPLATE.map(|[x, y]| [112.0 + 2.0 * x, 100.0 + 2.0 * y]);
    let mut aligned = |person: &str, number: u32| {
        let picture = picture_of(photo(person, number));
        let face = look(stack, &picture, &quality::Settings::default()).unwrap().remove(0);
        let face = align(&picture, &face.detection.landmarks, &template, SIDE).unwrap();
        RgbImage::from_raw(SIDE, SIDE, face.rgb().to_vec()).unwrap()
    };
    let mut blended = |number: u32| {
        let (mut a, b) = (aligned("person-a", number), aligned("person-b", number));
        a.pixels_mut().zip(b.pixels()).for_each(|(a, b)| blend(a, *b, share));
        // What both photos show.
        imageops::crop_imm(&a, 72, 78, 292, 292).to_image()
    };
    (1..=4).map(&mut blended).collect()
}

/// The double of B whom a visit just takes for B.
fn nearest_double(stack: &mut Stack, stranger: &RgbImage) -> Vec<RgbImage> {
    let alive = embedded(stack, stranger.clone());
    let matching = stack.thresholds.matching.value();
    for share in [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65] {
        let photos = double(stack, share);
        let alike = embedded(stack, photos[0].clone()).compare(&alive).unwrap().value();
        if alike >= ONE_VISIT * matching {
            println!("a double with {share} of B is {alike} alike, {matching} is a match");
            assert!(alike < matching, "the double is B");
            return photos;
        }
    }
    panic!("no double is enough like B");
}

fn enrolled(stack: &mut Stack, name: &str, photos: Vec<RgbImage>) -> (tempfile::TempDir, Arc<Gallery>) {
    let dir = tempfile::tempdir().unwrap();
    let settings = gallery::Settings { dir: dir.path().join("gallery"), ..gallery::Settings::default() };
    let model = stack.embedder.model().clone();
    let id = PersonId::new(name).unwrap();
    let person = Person { id, name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
    let templates: Vec<Embedding> = photos.into_iter().map(|photo| embedded(stack, photo)).collect();
    let key = SealingKey::generate().unwrap();
    let gallery = Gallery::create_or_open(&settings, &key, &model, templates[0].values().len()).unwrap();
    gallery.enroll_many(vec![(person, templates)]).unwrap();
    (dir, Arc::new(gallery))
}

fn decider(thresholds: Thresholds, one_face: bool) -> Decider {
    let mut policy = PolicySettings::default();
    // Each clip is the first.
    (policy.throttle.failures, policy.throttle.cool_down_ms) = (0, 0);
    let mut door = DoorSettings::new(DoorId::new("front").unwrap(), vec![camera()]);
    door.liveness.one_face = one_face;
    let (key, rules) = (GrantKey::from_seed(&[7; 32]).unwrap(), Rules::new(&policy).unwrap());
    Decider::new(DeviceId::new("unit").unwrap(), access::Settings::default(), thresholds, &[door], rules, key)
}

fn camera() -> CameraId {
    CameraId::new("hall").unwrap()
}

/// The observation as one that lends every frame to whoever the visit as a whole resembles.
fn lent(seen: &Observation) -> Observation {
    let fused: Vec<Score> = seen.candidates.iter().map(|candidate| candidate.score).collect();
    let mut told = seen.clone();
    for sample in &mut told.samples {
        sample.scores.clone_from(&fused);
        sample.liveness = seen.liveness;
    }
    told
}

/// What the door decides about a clip, and what one would that lends evidence.
struct Told {
    decisions: Vec<Decision>,
    lending: Vec<Decision>,
}

fn granted(decisions: &[Decision]) -> BTreeSet<&str> {
    let let_in = decisions.iter().filter(|decision| decision.grant.is_some());
    let_in.filter_map(|decision| decision.person.as_ref().map(PersonId::as_str)).collect()
}

/// A camera's way to the door.
struct Hall {
    pipeline: Pipeline,
    now: Moment,
}

impl Hall {
    fn new(stack: Stack, gallery: Arc<Gallery>) -> Self {
        let now = Moment { wall: Wall(1_700_000_000_000), ..Moment::default() };
        Self { pipeline: Pipeline::new(Settings::default(), stack, Some(gallery)), now }
    }

    /// Takes a clip through everything, a minute after the one before.
    fn show(&mut self, thresholds: Thresholds, one_face: bool, clip: impl Iterator<Item = RgbImage>) -> Told {
        let [mut door, mut lending] = [(); 2].map(|()| decider(thresholds, one_face));
        let (mut told, mut ids) = (Told { decisions: vec![], lending: vec![] }, 0u32);
        self.now = self.now.plus(Duration::from_secs(60));
        let mut judge = |pipeline: &mut Pipeline, observations: &[Observation], now: Moment| {
            for observation in observations {
                let mut id = || {
                    ids += 1;
                    ids.to_string()
                };
                told.decisions.extend(door.decide(observation, now, &mut id));
                told.lending.extend(lending.decide(&lent(observation), now, &mut id));
                let is_decided = |decider: &Decider| decider.is_decided(&observation.camera, observation.track);
                if is_decided(&door) && is_decided(&lending) {
                    pipeline.settle(&observation.camera, observation.track);
                }
            }
        };
        for (number, image) in (1..).zip(clip) {
            self.now = self.now.plus(STEP);
            let frame = Frame { camera: camera(), number, captured_at: self.now, picture: picture_of(image) };
            let seen = self.pipeline.process(&frame).unwrap();
            judge(&mut self.pipeline, &seen.observations, self.now);
        }
        let last = self.pipeline.end_of_stream(&camera());
        judge(&mut self.pipeline, &last.observations, self.now);
        told
    }
}

fn thresholds(stack: &Stack) -> Thresholds {
    let of = stack.thresholds;
    Thresholds { matching: of.matching, margin: of.margin, liveness: of.liveness }
}

/// A photo on white paper.
fn printed(stack: &mut Stack, photo: &RgbImage) -> Sheet {
    const BORDER: u32 = 24;
    let mut image = RgbImage::from_pixel(photo.width() + 2 * BORDER, photo.height() + 2 * BORDER, Rgb([245; 3]));
    imageops::overlay(&mut image, photo, i64::from(BORDER), i64::from(BORDER));
    let face = look(stack, &picture_of(image.clone()), &quality::Settings::default()).unwrap()[0].detection.bounding_box;
    Sheet { image, face }
}

fn reasons(decisions: &[Decision]) -> Vec<Reason> {
    decisions.iter().map(|decision| decision.reason).collect()
}

/// Shows every order, and the stranger and the picture alone.
fn attack(pack: &Pack) {
    let stranger = shots(STRANGER, 30);
    let mut stack = pack.open();
    let thresholds = thresholds(&stack);
    let photos = nearest_double(&mut stack, &stranger[0].image);
    let sheet = printed(&mut stack, &photos[0]);
    let (_dir, gallery) = enrolled(&mut stack, VICTIM, photos);
    let mut hall = Hall::new(stack, gallery);
    let alone = hall.show(thresholds, false, stranger.iter().map(|shot| shot.image.clone()));
    assert_eq!(reasons(&alone.decisions), [Reason::Unknown], "{}: the stranger alone", pack.name);
    let picture = hall.show(thresholds, false, stranger.iter().map(|shot| sheet.before(shot, 0.0, 1.0)));
    assert_eq!(reasons(&picture.decisions), [Reason::Spoof], "{}: the picture alone", pack.name);
    let mut opened = Vec::new();
    for (order, shown) in orders() {
        let frames = shown.iter().zip(stranger.iter().cycle()).map(|(shown, shot)| match shown {
            Shown::Stranger => shot.image.clone(),
            Shown::Picture => sheet.before(shot, 0.0, 1.0),
            Shown::Aside(aside) => sheet.before(shot, *aside, 1.0),
            Shown::Fading(opaque) => sheet.before(shot, 0.0, *opaque),
        });
        let told = hall.show(thresholds, false, frames);
        println!("{}, {order}: {:?}, lending {:?}", pack.name, reasons(&told.decisions), reasons(&told.lending));
        assert!(!told.decisions.is_empty(), "{}, {order}: nothing was decided", pack.name);
        assert!(granted(&told.decisions).is_empty(), "{}, {order}: {:?}", pack.name, told.decisions);
        if granted(&told.lending).contains(VICTIM) {
            opened.push(order);
        }
    }
    assert!(
        opened.len() >= 4,
        "{}: the clips are hardly an attack, only these open a door that lends evidence: {opened:?}",
        pack.name
    );
}

#[test]
fn a_picture_of_a_double_before_a_living_face_lets_nobody_in_with_the_built_in_pack() {
    attack(&builtin());
}

#[cfg(feature = "ort")]
#[test]
fn a_picture_of_a_double_before_a_living_face_lets_nobody_in_with_the_packs_beside_the_project() {
    others().iter().for_each(attack);
}

#[test]
fn a_door_for_one_face_opens_for_a_person_who_is_alone_and_stays_shut_while_a_picture_is_held_beside() {
    let person = shots(STRANGER, 30);
    let mut stack = builtin().open();
    let thresholds = thresholds(&stack);
    let photos = |who: &str| (1..=4).map(|number| photo(who, number)).collect::<Vec<_>>();
    let sheet = printed(&mut stack, &photo("person-a", 1));
    let (_dir, gallery) = enrolled(&mut stack, "person-b", photos("person-b"));
    let mut hall = Hall::new(stack, gallery);
    for (one_face, aside, expected) in [
        (false, None, Reason::Match),
        (true, None, Reason::Match),
        (false, Some(1.6), Reason::Match),
        (true, Some(1.6), Reason::SeveralFaces),
    ] {
        let frames = person.iter().map(|shot| aside.map_or_else(|| shot.image.clone(), |aside| sheet.before(shot, aside, 1.0)));
        let told = hall.show(thresholds, one_face, frames);
        let all = reasons(&told.decisions);
        assert!(all.contains(&expected), "one face: {one_face}, picture: {aside:?}: {all:?}");
        assert_eq!(all.contains(&Reason::Match), expected == Reason::Match, "one face: {one_face}, picture: {aside:?}: {all:?}");
    }
}
