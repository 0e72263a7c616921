//! What the fuzz targets `frames` and `detections` feed (`tests/fuzz`), and what a seeded walk feeds in every test run: pictures, and what
//! networks may put out. Each function takes any bytes at all and panics when a promise is broken.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::align::{ARCFACE_SIDE, ARCFACE_TEMPLATE};
use super::pixels::{Sampler, View, to_rgb};
use super::{Detector, Parallax, Tracker, align, depth, detect, liveness, quality, track, upright};
use crate::inference::manifest::{CropRule, DetectorDecode, Model, Role};
use crate::inference::{InferenceError, Network, Tensor};
use crate::types::drawn::Drawn;
use crate::types::{BoundingBox, Detection, Landmarks, ModelId, Monotonic, Picture, Place, Point, TrackId};

/// A network that gives the same outputs whatever comes in.
pub struct Fixed {
    /// Their names.
    pub names: Vec<String>,
    /// Their numbers.
    pub outputs: Vec<Vec<f32>>,
}

impl Network for Fixed {
    fn run(&mut self, _input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
        Ok(self.outputs.iter().map(|data| Tensor { shape: vec![1, data.len()], data: data.clone() }).collect())
    }
    fn output_names(&self) -> &[String] {
        &self.names
    }
    fn provider(&self) -> &str {
        "test"
    }
}

/// A manifest's entry of a network of that role, `side` pixels a side.
pub fn model(side: u32, role: Role) -> Model {
    let entry = serde_json::json!({
        "file": "m.onnx", "sha256": "", "bytes": 0, "licence": { "name": "" }, "origin": { "url": { "url": "" } },
        "input": { "width": side, "height": side, "color": "rgb", "mean": [0, 0, 0], "deviation": [1, 1, 1] },
        "role": role,
    });
    serde_json::from_value(entry).expect("a sound entry")
}

/// A network whose outputs are put in while it is in use.
struct Told(Vec<String>, Arc<Mutex<Vec<Vec<f32>>>>);

impl Network for Told {
    fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
        let outputs = self.1.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Fixed { names: Vec::new(), outputs }.run(input)
    }
    fn output_names(&self) -> &[String] {
        &self.0
    }
    fn provider(&self) -> &str {
        "test"
    }
}

const SIDE: u32 = 32;
const STRIDES: [u32; 3] = [8, 16, 32];
const CONFIDENCE: f32 = 0.6;
const ANCHORS: usize = 2;

/// A number as networks put it out: mostly a small one, now and then one that is no face's.
fn number(drawn: &mut Drawn<'_>) -> f32 {
    const ODD: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e9, -1e9, 99_999.0];
    match drawn.byte() {
        0 => 0.0,
        1 => 1.0,
        2 => drawn.float(),
        odd @ 3..=10 => ODD[usize::from(odd - 3)],
        plain => (f32::from(plain) - 132.0) / 32.0,
    }
}

/// A few frames of one camera, each with whatever a detector of one of the two kinds put out for it, through suppression, tracker, pose,
/// crops, alignment and quality.
pub fn detections(bytes: &[u8]) {
    let mut drawn = Drawn::new(bytes);
    let is_yunet = drawn.byte().is_multiple_of(2);
    let strides = STRIDES.to_vec();
    let kinds: &[(&str, usize)] =
        if is_yunet { &[("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)] } else { &[("score", 1), ("box", 4), ("point", 10)] };
    let decode = if is_yunet {
        DetectorDecode::Yunet { strides }
    } else {
        DetectorDecode::Scrfd { strides, anchors: ANCHORS, outputs: Vec::new() }
    };
    let cells = |stride: u32| (SIDE / stride).pow(2) as usize * if is_yunet { 1 } else { ANCHORS };
    let named = kinds.iter().flat_map(|(kind, size)| STRIDES.map(|stride| (format!("{kind}_{stride}"), size * cells(stride))));
    let (names, sizes): (Vec<String>, Vec<usize>) = named.unzip();
    let told = Arc::new(Mutex::new(sizes.iter().map(|size| vec![0.0; *size]).collect::<Vec<_>>()));
    let role = Role::Detector { decode, confidence: CONFIDENCE, nms_iou: 0.3 };
    let id = ModelId::new("fuzzed").expect("a plain name");
    let mut detector =
        Detector::new(id, &model(SIDE, role), Box::new(Told(names, told.clone()))).expect("outputs of the right sizes");
    let (mut tracker, mut parallax) = (Tracker::new(track::Settings::default(), 1), Parallax::default());
    let (mut now, mut gone) = (Monotonic(0), BTreeSet::<TrackId>::new());
    for _ in 0..4 {
        if drawn.is_over() {
            return;
        }
        let (width, height) = (1 + u32::from(drawn.byte()), 1 + u32::from(drawn.byte()));
        let picture =
            Picture::from_rgb(width, height, vec![drawn.byte(); (3 * width * height) as usize]).expect("as long as it says");
        let is_short = drawn.byte() == 255;
        let outputs: Vec<Vec<f32>> = sizes.iter().map(|size| (0..*size).map(|_| number(&mut drawn)).collect()).collect();
        let mut lacking = outputs.clone();
        if is_short && let Some(first) = lacking.first_mut() {
            first.pop();
        }
        *told.lock().unwrap_or_else(PoisonError::into_inner) = lacking;
        let least = drawn.share();
        let (Ok(faces), Ok(more)) = (detector.detect(&picture), detector.detect_down_to(&picture, least)) else {
            assert!(is_short, "outputs of the right sizes are refused");
            continue;
        };
        assert!(!is_short, "an output that is too short is taken");
        assert!(faces.len() <= detect::MAX_FACES && more.len() <= detect::MAX_FACES);
        assert!(
            more.len() >= faces.len() && more[..faces.len()] == faces[..],
            "the sure ones are others than without the less sure"
        );
        for face in &more {
            judge_face(face, least.min(CONFIDENCE));
        }
        // Up to some seconds later, or at the same time.
        now = Monotonic(now.0 + u64::from(drawn.number()) * 100_000);
        let seen = tracker.update(now, &more, CONFIDENCE);
        gone.extend(tracker.ended());
        let tracks: BTreeSet<TrackId> = seen.iter().map(|(track, _)| *track).collect();
        assert!(tracks.len() == seen.len() && seen.iter().all(|(_, index)| *index < more.len()), "two faces are one stay");
        assert!(tracks.is_disjoint(&gone), "a stay that has ended goes on");
        if let Some(first) = tracks.first().filter(|_| drawn.byte().is_multiple_of(4)) {
            let after = tracker.split(*first).expect("it is there");
            gone.extend(tracker.ended());
            assert!(gone.contains(first) && !gone.contains(&after) && !tracks.contains(&after));
        }
        // The most confident few, as a door looks at them.
        for face in more.iter().take(3) {
            parallax.see(&face.landmarks);
            use_face(&picture, face);
            upright::is_turned(&mut detector, &picture, face).expect("outputs of the right sizes");
        }
        parallax.motion();
    }
}

fn judge_face(face: &Detection, least: f32) {
    let area = &face.bounding_box;
    let points = face.landmarks.0.iter().flat_map(|point| [point.x, point.y]);
    assert!([area.x, area.y, area.width, area.height].into_iter().chain(points).all(f32::is_finite), "{face:?}");
    assert!(area.width > 0.0 && area.height > 0.0 && (least - 1e-6..=1.0).contains(&face.confidence), "{face:?}, least {least}");
}

/// All that looks at one face of a picture.
fn use_face(picture: &Picture, face: &Detection) {
    let size = (picture.width(), picture.height());
    let mut sampler = Sampler::default();
    for rule in [CropRule::Shifted, CropRule::Reflected] {
        if let Some(view) = liveness::crop(rule, &face.bounding_box, 2.7, size) {
            sampler.resize(picture, view, (16, 16), |_, rgb| assert!(rgb.iter().flat_map(|row| row.iter()).all(|v| v.is_finite())));
        }
    }
    if let Some(aligned) = align(picture, &face.landmarks, &ARCFACE_TEMPLATE, ARCFACE_SIDE) {
        let quality = quality::assess(picture, face, &aligned, &quality::Settings::default());
        assert!((0.0..=1.0).contains(&quality.score), "a quality of {}", quality.score);
    }
    depth::is_solid(picture, &Place::of(&face.bounding_box, picture.width(), picture.height()));
}

/// A picture of any layout through all that reads pixels, at drawn places.
pub fn look(picture: &Picture, drawn: &mut Drawn<'_>) {
    let place = |drawn: &mut Drawn<'_>| match drawn.byte() {
        0 => drawn.float(),
        near => 4.0 * f32::from(near) - 300.0,
    };
    let whole = |drawn: &mut Drawn<'_>| match drawn.byte() {
        0 => i32::from_le_bytes(drawn.array()),
        near => i32::from(near) - 100,
    };
    let view = View { x: whole(drawn), y: whole(drawn), width: whole(drawn).unsigned_abs(), height: whole(drawn).unsigned_abs() };
    let target = (drawn.below(40), drawn.below(40));
    let mut rows = 0;
    let is_seen = Sampler::default().resize(picture, view, target, |_, rgb| {
        rows += 1;
        assert!(rgb.iter().flat_map(|row| row.iter()).all(|value| (0.0..=255.5).contains(value)));
    });
    assert_eq!(rows, if is_seen { target.1 } else { 0 });
    if u64::from(picture.width()) * u64::from(picture.height()) <= 1 << 14 {
        assert_eq!(to_rgb(picture).len(), (3 * picture.width() * picture.height()) as usize);
    }
    let bounding_box = BoundingBox { x: place(drawn), y: place(drawn), width: place(drawn), height: place(drawn) };
    let mut landmarks = Landmarks(ARCFACE_TEMPLATE.map(|[x, y]| Point { x, y }));
    if drawn.byte().is_multiple_of(2) {
        landmarks.0.iter_mut().for_each(|point| *point = Point { x: place(drawn), y: place(drawn) });
    }
    use_face(picture, &Detection { bounding_box, landmarks, confidence: drawn.share() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_detections_breaks_no_promise() {
        // Everything a face, then drawn numbers; each kind of network.
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn: Vec<Vec<u8>> = Vec::new();
        for kind in [0, 1] {
            drawn.push([kind, 63, 47].into_iter().chain(std::iter::repeat_n(164, 1500)).collect());
            drawn.push([kind, 63, 47].into_iter().chain((0..1500).map(|_| random.u8(100..170))).collect());
            drawn.push([kind, 0, 200].into_iter().chain((0..1500).map(|_| random.u8(..))).collect());
        }
        let seeds: Vec<&[u8]> = drawn.iter().map(Vec::as_slice).collect();
        walk("detections", &seeds, 300, detections);
    }
}
