//! The networks themselves on photos and clips that are not part of the project, on both backends. They are looked for in
//! `FACEID_SHARED` or `../shared`; without them the test says so, and fails when `FACEID_REQUIRE_SHARED=1`.

use std::path::{Path, PathBuf};
use std::process::Command;

use faceid_plus::inference::manifest::Manifest;
use faceid_plus::inference::{BackendChoice, Provider, Settings, open};
use faceid_plus::types::{Colorimetry, Detection, Embedding, ModelId, Picture};
use faceid_plus::vision::{Detector, Embedder, Liveness, align};
use image::{DynamicImage, ImageDecoder, ImageReader};
use serde::Deserialize;

use super::{Face, bounding_box, golden, landmarks, picture_of, planar};

/// Pixels of boxes and points on photos. JPEG decoders differ by a level or two, and a network's regression answers by parts of a pixel.
const PHOTO_PIXELS: f32 = 0.75;
/// Pixels on frames of clips, which are read as planes here and as RGB by the reference.
const FRAME_PIXELS: f32 = 1.5;
/// Of a detector's confidence.
const CONFIDENCE: f32 = 0.02;
/// Of a liveness score on photos: the crop differs by a level here and there, and the networks are steep between their classes.
const PHOTO_LIVENESS: f32 = 0.06;
/// Of a liveness score on frames of clips: the reference's RGB repeats each chroma sample four times, ours blends them, and it is fine
/// texture and colour that these networks look at.
const FRAME_LIVENESS: f32 = 0.12;
/// Of a cosine between two pictures' embeddings: the aligned faces differ by a level here and there, and by the points' parts of a pixel.
const COSINE: f32 = 0.02;
/// The same where a clip's frame is one of the two: see [`FRAME_LIVENESS`].
const FRAME_COSINE: f32 = 0.04;

#[derive(Deserialize)]
struct Reference {
    detectors: Vec<ModelId>,
    liveness: Vec<ModelId>,
    pictures: Vec<Shown>,
    cosines: std::collections::BTreeMap<ModelId, Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct Shown {
    file: String,
    frame: Option<u32>,
    faces: std::collections::BTreeMap<ModelId, Vec<Face>>,
    live: std::collections::BTreeMap<ModelId, f32>,
}

/// The shared folder, or `None` after saying so.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder =
        std::env::var_os("FACEID_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let found = folder.join("models").is_dir() && folder.join("faces").is_dir();
    if !found {
        println!("SKIPPED: no shared networks and photos in {}; set FACEID_SHARED", folder.display());
        assert_ne!(std::env::var("FACEID_REQUIRE_SHARED").as_deref(), Ok("1"), "FACEID_REQUIRE_SHARED is set");
    }
    found.then_some(folder)
}

/// ONNX Runtime's library, or `None` after saying so.
pub(crate) fn onnxruntime() -> Option<PathBuf> {
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/onnxruntime/libonnxruntime.so");
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(cached, PathBuf::from);
    let found = library.exists();
    if !found {
        println!("SKIPPED: no ONNX Runtime at {}; run models/fetch-onnxruntime.sh or set ORT_DYLIB_PATH", library.display());
        assert_ne!(std::env::var("FACEID_REQUIRE_SHARED").as_deref(), Ok("1"), "FACEID_REQUIRE_SHARED is set");
    }
    found.then_some(library)
}

fn read(folder: &Path, shown: &Shown) -> Picture {
    let path = folder.join(&shown.file);
    let Some(frame) = shown.frame else {
        let mut decoder = ImageReader::open(&path).unwrap().into_decoder().unwrap();
        let orientation = decoder.orientation().unwrap();
        let mut image = DynamicImage::from_decoder(decoder).unwrap();
        image.apply_orientation(orientation);
        return picture_of(image.to_rgb8());
    };
    let size = (640, 480);
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(&path)
        .args(["-vf", &format!("select=eq(n\\,{frame})"), "-frames:v", "1", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg is needed to read a clip's frame");
    assert_eq!(output.stdout.len(), 640 * 480 * 3 / 2, "{}", String::from_utf8_lossy(&output.stderr));
    let [i420, nv12] = planar(&output.stdout, size, Colorimetry::default());
    // Even frames as a software decoder gives them, odd ones as a hardware decoder does.
    if frame % 2 == 0 { i420 } else { nv12 }
}

/// Faces are matched by place: their order may change where confidences are nearly equal, and one near the threshold may be missing.
fn assert_same_faces(what: &str, found: &[Detection], expected: &[Face], pixels: f32, threshold: f32) {
    let sure = |confidence: f32| confidence >= threshold + CONFIDENCE;
    for face in expected.iter().filter(|face| sure(face.confidence)) {
        let area = bounding_box(face.area);
        let nearest = found.iter().max_by(|a, b| a.bounding_box.iou(&area).total_cmp(&b.bounding_box.iou(&area)));
        let nearest = nearest.unwrap_or_else(|| panic!("{what}: nobody found"));
        let near = nearest.bounding_box;
        let numbers: Vec<f32> = [near.x, near.y, near.width, near.height]
            .into_iter()
            .chain(nearest.landmarks.0.iter().flat_map(|p| [p.x, p.y]))
            .collect();
        let apart = |area: &[f32; 4], points: &[[f32; 2]; 5]| {
            let wanted = area.iter().chain(points.as_flattened());
            numbers.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let rivals = face.rivals.iter().map(|rival| apart(&rival.area, &rival.points));
        let most = rivals.fold(apart(&face.area, &face.points), f32::min);
        // A large face's numbers move in proportion.
        let allowed = pixels * (area.width.max(area.height) / 100.0).max(1.0);
        let confidence = (nearest.confidence - face.confidence).abs();
        println!("{what}: {most:.3} of {allowed:.2} pixels, confidence {confidence:.4}");
        assert!(most <= allowed, "{what}: {most} pixels apart, {allowed} allowed");
        assert!(confidence <= CONFIDENCE, "{what}: confidence {} is not {}", nearest.confidence, face.confidence);
    }
    for face in found.iter().filter(|face| sure(face.confidence)) {
        assert!(
            expected.iter().any(|other| bounding_box(other.area).iou(&face.bounding_box) > 0.5),
            "{what}: a face that the reference has not at {:?}",
            face.bounding_box
        );
    }
}

fn check(settings: &Settings, folder: &Path) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/manifest.toml");
    let manifest: Manifest = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let reference: Reference = serde_json::from_slice(&std::fs::read(golden("shared.json")).unwrap()).unwrap();
    let models = folder.join("models");
    let network = |id: &ModelId| open(settings, id, &manifest.models[id], &models).unwrap();
    let pictures: Vec<_> = reference.pictures.iter().map(|shown| read(folder, shown)).collect();
    // The later stages start from the reference's numbers, so that each stage is judged alone.
    let first: Vec<&Face> = reference.pictures.iter().map(|shown| &shown.faces[&reference.detectors[0]][0]).collect();
    for id in &reference.detectors {
        let mut detector = Detector::new(id.clone(), &manifest.models[id], network(id)).unwrap();
        let backend = detector.provider().to_owned();
        for (shown, picture) in reference.pictures.iter().zip(&pictures) {
            let found = detector.detect(picture).unwrap();
            let what = format!("{backend} {id} {}", shown.file);
            let pixels = if shown.frame.is_some() { FRAME_PIXELS } else { PHOTO_PIXELS };
            let threshold = shown.faces[id].iter().map(|face| face.confidence).fold(0.5, f32::min);
            assert_same_faces(&what, &found, &shown.faces[id], pixels, threshold);
        }
    }
    for id in &reference.liveness {
        let mut liveness = Liveness::new(vec![(id.clone(), manifest.models[id].clone(), network(id))]).unwrap();
        for ((shown, picture), face) in reference.pictures.iter().zip(&pictures).zip(&first) {
            let score = liveness.score(picture, &bounding_box(face.area)).unwrap().value();
            let apart = (score - shown.live[id]).abs();
            println!("{id} {}: {score:.4}, {apart:.4} apart", shown.file);
            let allowed = if shown.frame.is_some() { FRAME_LIVENESS } else { PHOTO_LIVENESS };
            assert!(apart <= allowed, "{id} {}: {score} is not {}", shown.file, shown.live[id]);
        }
    }
    for (id, cosines) in &reference.cosines {
        let mut embedder = Embedder::new(id.clone(), &manifest.models[id], network(id)).unwrap();
        let mut embed = |(picture, face): (&Picture, &&Face)| -> Embedding {
            let aligned = align(picture, &landmarks(face.points), embedder.template(), embedder.side()).unwrap();
            embedder.embed(&aligned).unwrap()
        };
        let embeddings: Vec<_> = pictures.iter().zip(&first).map(&mut embed).collect();
        let mut most = 0.0f32;
        for (row, (expected, one)) in cosines.iter().zip(&embeddings).enumerate() {
            for (column, (expected, other)) in expected.iter().zip(&embeddings).enumerate() {
                let cosine = one.compare(other).unwrap().value();
                most = most.max((cosine - expected).abs());
                let framed = [row, column].iter().any(|index| reference.pictures[*index].frame.is_some());
                let allowed = if framed { FRAME_COSINE } else { COSINE };
                assert!((cosine - expected).abs() <= allowed, "{id}, pictures {row} and {column}: {cosine} is not {expected}");
            }
        }
        println!("{id}: cosines at most {most:.4} apart");
    }
}

#[cfg(feature = "tract")]
#[test]
fn networks_agree_with_the_reference_on_tract() {
    if let Some(folder) = shared() {
        check(&Settings { backend: BackendChoice::Tract, ..Settings::default() }, &folder);
    }
}

#[cfg(feature = "ort")]
#[test]
fn networks_agree_with_the_reference_on_onnx_runtime() {
    if let (Some(folder), Some(library)) = (shared(), onnxruntime()) {
        let settings =
            Settings { backend: BackendChoice::Ort, providers: vec![Provider::Cpu], library: Some(library), ..Settings::default() };
        check(&settings, &folder);
    }
}

#[cfg(feature = "tract")]
#[test]
fn another_networks_file_is_refused_by_name() {
    let Some(folder) = shared() else { return };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/manifest.toml");
    let manifest: Manifest = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let settings = Settings { backend: BackendChoice::Tract, ..Settings::default() };
    let id = |name: &str| ModelId::new(name).unwrap();
    let entry = &manifest.models[&id("minifasnet-v2")];
    let network = || open(&settings, &id("minifasnet-v2"), entry, &folder.join("models")).unwrap();
    let detector = Detector::new(id("yunet-n-320"), &manifest.models[&id("yunet-n-320")], network());
    assert!(detector.err().unwrap().to_string().contains("no output `cls_8`"));
    let role = &manifest.models[&id("retail-0095")].role;
    let mut wrong = entry.clone();
    wrong.role = role.clone();
    wrong.input = manifest.models[&id("minifasnet-v2")].input.clone();
    let embedder = Embedder::new(id("retail-0095"), &wrong, network());
    assert!(embedder.err().unwrap().to_string().contains("does not fit its manifest entry"));
}
