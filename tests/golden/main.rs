//! Every vision stage against reference vectors of an independent implementation (`models/reference/make_reference.py`: OpenCV, NumPy,
//! ONNX Runtime). This file holds the stages that need no network, on drawn pictures; `shared.rs` runs the networks on both backends.
//! A tolerance is a constant here, with its reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its own vectors has failed")]

mod evaluation;
mod nobody;
mod shared;
#[cfg(feature = "tract")]
mod swaps;
#[cfg(feature = "tract")]
mod upside_down;
#[cfg(feature = "tract")]
mod visits;

use std::path::PathBuf;
use std::sync::Arc;

use faceid_plus::inference::manifest::CropRule;
use faceid_plus::types::{AlignedFace, BoundingBox, Colorimetry, Detection, Landmarks, Layout, Picture, PlaneSource, Point};
use faceid_plus::vision::align::{Similarity, align};
use faceid_plus::vision::detect::{Grid, scrfd, suppress, yunet};
use faceid_plus::vision::liveness::{crop, softmax};
use faceid_plus::vision::pixels::{Sampler, View};
use faceid_plus::vision::quality::{Pose, Settings, assess};
use serde::Deserialize;

/// Grey levels. Both sides round a bilinear blend to a byte, OpenCV after weights of 11 bits, ours of 8 and 11.
const RESIZE: Tolerance = Tolerance { most: 1, mean: 0.3 };
/// Grey levels. Both blend exactly and round; ours places a pixel to a 256th of a pixel.
const WARP: Tolerance = Tolerance { most: 2, mean: 0.05 };
/// Grey levels. The reference resizes the planes in exact arithmetic; ours blends rows with weights of 8 bits, and a level of chroma
/// is two of blue.
const PLANES: Tolerance = Tolerance { most: 2, mean: 0.5 };
/// Grey levels. The reference makes RGB at full size and then warps; ours samples the planes. They differ where chroma is steep.
const PLANES_WARP: Tolerance = Tolerance { most: 12, mean: 1.0 };
/// Pixels and shares of a box decoded from the same numbers: rounding of `f32` and of the reference's four digits.
const DECODE: f32 = 2e-3;
/// Matrix entries: points are `f32`, the reference has six digits; the shifts multiply by coordinates of 200.
const MATRIX: f64 = 2e-3;
/// Shares of a softmax: `f32` and six digits.
const SOFTMAX: f32 = 2e-6;
/// Of a sharpness, relative: luma is rounded down with weights of 8 bits here and to nearest in OpenCV.
const SHARPNESS: f32 = 0.03;
/// Grey levels of a mean luma, for the same reason.
const LUMA: f32 = 1.0;
/// Degrees. Five points tell a pose to some ten degrees: nose and mouth of the reference's face are not those the estimate assumes.
const POSE: f32 = 9.0;

struct Tolerance {
    most: u8,
    mean: f32,
}

#[derive(Deserialize)]
struct Drawn {
    resize: Vec<Resize>,
    align: Vec<Align>,
    yuv: Vec<Yuv>,
    decode: Vec<Decode>,
    softmax: Vec<Softmax>,
    crops: Vec<Crop>,
    quality: Vec<Sharp>,
    pose: Vec<Posed>,
}

#[derive(Deserialize)]
struct Resize {
    picture: String,
    view: (i32, i32, u32, u32),
    size: (usize, usize),
    expected: String,
}

#[derive(Deserialize)]
struct Align {
    picture: String,
    points: [[f32; 2]; 5],
    template: [[f32; 2]; 5],
    side: u32,
    matrix: [[f64; 3]; 2],
    expected: String,
}

#[derive(Deserialize)]
struct Yuv {
    file: String,
    picture_size: (u32, u32),
    bt709: bool,
    full_range: bool,
    view: (i32, i32, u32, u32),
    size: (usize, usize),
    expected: String,
    points: [[f32; 2]; 5],
    aligned: String,
}

#[derive(Deserialize)]
struct Decode {
    kind: String,
    anchors: usize,
    size: (usize, usize),
    strides: Vec<u32>,
    confidence: f32,
    nms_iou: f32,
    outputs: Vec<Vec<Vec<f32>>>,
    faces: Vec<Face>,
}

/// A face as the reference found it.
#[derive(Deserialize)]
struct Face {
    #[serde(rename = "box")]
    area: [f32; 4],
    points: [[f32; 2]; 5],
    confidence: f32,
    /// What it also might have kept, had a grey level been different.
    #[serde(default)]
    rivals: Vec<Rival>,
}

/// A face of nearly the same confidence at the same place.
#[derive(Deserialize)]
struct Rival {
    #[serde(rename = "box")]
    area: [f32; 4],
    points: [[f32; 2]; 5],
}

#[derive(Deserialize)]
struct Softmax {
    logits: Vec<f32>,
    shares: Vec<f32>,
}

#[derive(Deserialize)]
struct Crop {
    #[serde(rename = "box")]
    area: [f32; 4],
    size: (u32, u32),
    #[serde(rename = "minifasnet_2.7")]
    shifted_2_7: (i32, i32, u32, u32),
    #[serde(rename = "minifasnet_4.0")]
    shifted_4_0: (i32, i32, u32, u32),
    #[serde(rename = "facenox_1.5")]
    reflected_1_5: (i32, i32, u32, u32),
}

#[derive(Deserialize)]
struct Sharp {
    aligned: String,
    sharpness: f32,
    luma: f32,
}

#[derive(Deserialize)]
struct Posed {
    points: [[f32; 2]; 5],
    yaw: f32,
    pitch: f32,
    roll: f32,
}

/// Planes as a decoder gives them.
pub(crate) struct Planes(pub(crate) Vec<Vec<u8>>);

impl PlaneSource for Planes {
    fn plane(&self, index: usize) -> &[u8] {
        &self.0[index]
    }
}

/// The same I420 bytes as an I420 and as an NV12 picture.
pub(crate) fn planar(bytes: &[u8], (width, height): (u32, u32), colorimetry: Colorimetry) -> [Picture; 2] {
    let (w, h) = (width as usize, height as usize);
    let (luma, chroma) = bytes.split_at(w * h);
    let (u, v) = chroma.split_at(chroma.len() / 2);
    let both = u.iter().zip(v).flat_map(|(u, v)| [*u, *v]).collect();
    let i420 = Planes(vec![luma.to_vec(), u.to_vec(), v.to_vec()]);
    let nv12 = Planes(vec![luma.to_vec(), both]);
    let half = w.div_ceil(2);
    [
        Picture::new((width, height), Layout::I420, colorimetry, [w, half, half], Arc::new(i420)).unwrap(),
        Picture::new((width, height), Layout::Nv12, colorimetry, [w, 2 * half, 0], Arc::new(nv12)).unwrap(),
    ]
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn drawn() -> Drawn {
    serde_json::from_slice(&std::fs::read(golden("drawn.json")).unwrap()).unwrap()
}

fn image_of(name: &str) -> image::RgbImage {
    image::open(golden("drawn").join(name)).unwrap().to_rgb8()
}

pub(crate) fn picture_of(image: image::RgbImage) -> Picture {
    Picture::from_rgb(image.width(), image.height(), image.into_raw()).unwrap()
}

pub(crate) fn landmarks(points: [[f32; 2]; 5]) -> Landmarks {
    Landmarks(points.map(|[x, y]| Point { x, y }))
}

pub(crate) fn bounding_box([x, y, width, height]: [f32; 4]) -> BoundingBox {
    BoundingBox { x, y, width, height }
}

fn view((x, y, width, height): (i32, i32, u32, u32)) -> View {
    View { x, y, width, height }
}

fn resized(picture: &Picture, area: View, size: (usize, usize)) -> Vec<u8> {
    let mut out = Vec::new();
    let drawn = Sampler::default().resize(picture, area, size, |_, [r, g, b]| {
        for ((r, g), b) in r.iter().zip(g).zip(b) {
            out.extend([r, g, b].map(|value| (value + 0.5) as u8));
        }
    });
    assert!(drawn);
    out
}

fn assert_alike(what: &str, found: &[u8], expected: &[u8], tolerance: &Tolerance) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let apart = || found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let most = apart().max().unwrap();
    let mean = apart().map(f32::from).sum::<f32>() / found.len() as f32;
    println!("{what}: at most {most}, {mean:.3} in the mean");
    assert!(most <= tolerance.most && mean <= tolerance.mean, "{what}: at most {most}, {mean} in the mean");
}

#[test]
fn resizing_agrees_with_opencv_inside_and_over_the_border() {
    for case in drawn().resize {
        let picture = picture_of(image_of(&case.picture));
        let found = resized(&picture, view(case.view), case.size);
        assert_alike(&case.expected, &found, image_of(&case.expected).as_raw(), &RESIZE);
    }
}

#[test]
fn alignment_agrees_with_umeyama_by_singular_values_and_warp_affine() {
    for case in drawn().align {
        let points = landmarks(case.points);
        let found = Similarity::fit(&points, &case.template).unwrap();
        let matrix = [[found.a, -found.b, found.dx], [found.b, found.a, found.dy]];
        for (found, expected) in matrix.as_flattened().iter().zip(case.matrix.as_flattened()) {
            assert!((found - expected).abs() < MATRIX, "{}: {matrix:?} is not {:?}", case.expected, case.matrix);
        }
        let face = align(&picture_of(image_of(&case.picture)), &points, &case.template, case.side).unwrap();
        assert_alike(&case.expected, face.rgb(), image_of(&case.expected).as_raw(), &WARP);
    }
}

#[test]
fn planes_resize_and_align_as_the_rgb_picture_does() {
    for case in drawn().yuv {
        let bytes = std::fs::read(golden("drawn").join(&case.file)).unwrap();
        let colorimetry = Colorimetry { bt709: case.bt709, full_range: case.full_range };
        for picture in planar(&bytes, case.picture_size, colorimetry) {
            let found = resized(&picture, view(case.view), case.size);
            assert_alike(&format!("{picture:?} {}", case.expected), &found, image_of(&case.expected).as_raw(), &PLANES);
            let template = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];
            let face = align(&picture, &landmarks(case.points), &template, 112).unwrap();
            assert_alike(&format!("{picture:?} {}", case.aligned), face.rgb(), image_of(&case.aligned).as_raw(), &PLANES_WARP);
        }
    }
}

/// Every face of the reference is found, in the same order, and no other.
fn assert_faces(what: &str, found: &[Detection], expected: &[Face], pixels: f32, confidence: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        let area = found.bounding_box;
        let numbers =
            [area.x, area.y, area.width, area.height].into_iter().chain(found.landmarks.0.iter().flat_map(|p| [p.x, p.y]));
        let wanted = expected.area.iter().chain(expected.points.as_flattened());
        let most = numbers.zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most <= pixels, "{what}: {most} pixels apart");
        assert!((found.confidence - expected.confidence).abs() <= confidence, "{what}: {}", found.confidence);
    }
}

#[test]
fn detectors_decode_and_suppress_as_the_reference_does() {
    for case in drawn().decode {
        let mut candidates = Vec::new();
        for (&stride, outputs) in case.strides.iter().zip(&case.outputs) {
            let grid = Grid { stride, columns: case.size.0 / stride as usize, rows: case.size.1 / stride as usize };
            match outputs.as_slice() {
                [class, object, boxes, points] => {
                    yunet::decode(&yunet::Outputs { class, object, boxes, points }, grid, case.confidence, &mut candidates);
                }
                [scores, boxes, points] => {
                    scrfd::decode(&scrfd::Outputs { scores, boxes, points }, grid, case.anchors, case.confidence, &mut candidates);
                }
                _ => panic!("{} has other outputs", case.kind),
            }
        }
        assert!(!case.faces.is_empty());
        let mut found = suppress(&mut candidates, case.nms_iou);
        // Equal confidences (clipped at one) have no order.
        let mut expected = case.faces;
        found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.bounding_box.x.total_cmp(&b.bounding_box.x)));
        expected.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.area[0].total_cmp(&b.area[0])));
        assert_faces(&case.kind, &found, &expected, DECODE, DECODE);
    }
}

#[test]
fn softmax_agrees_for_small_and_for_huge_logits() {
    for case in drawn().softmax {
        for (index, share) in case.shares.iter().enumerate() {
            assert!((softmax(&case.logits, index).unwrap() - share).abs() <= SOFTMAX, "{:?}", case.logits);
        }
    }
}

#[test]
fn liveness_crops_are_upstreams_to_the_pixel() {
    for case in drawn().crops {
        let area = bounding_box(case.area);
        for (rule, scale, expected) in [
            (CropRule::Shifted, 2.7, case.shifted_2_7),
            (CropRule::Shifted, 4.0, case.shifted_4_0),
            (CropRule::Reflected, 1.5, case.reflected_1_5),
        ] {
            assert_eq!(crop(rule, &area, scale, case.size), Some(view(expected)), "{:?} {rule:?} {scale}", case.area);
        }
    }
}

#[test]
fn sharpness_and_luma_agree_with_opencv() {
    let picture = Picture::from_rgb(1, 1, vec![0; 3]).unwrap();
    let nobody = Detection { bounding_box: BoundingBox::default(), landmarks: Landmarks::default(), confidence: 0.0 };
    for case in drawn().quality {
        let image = image_of(&case.aligned);
        let face = AlignedFace::new(image.width(), image.into_raw());
        let found = assess(&picture, &nobody, &face, &Settings::default());
        assert!((found.sharpness / case.sharpness - 1.0).abs() <= SHARPNESS, "{} is not {}", found.sharpness, case.sharpness);
        assert!((found.luma - case.luma).abs() <= LUMA, "{} is not {}", found.luma, case.luma);
    }
}

#[test]
fn a_pose_is_found_again_from_a_projected_face() {
    for case in drawn().pose {
        let found = Pose::estimate(&landmarks(case.points));
        let apart = [found.yaw - case.yaw, found.pitch - case.pitch, found.roll - case.roll];
        assert!(apart.iter().all(|degrees| degrees.abs() <= POSE), "{found:?} is not {} {} {}", case.yaw, case.pitch, case.roll);
    }
}
