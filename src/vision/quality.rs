//! Whether a face is good enough to be recognised (in the sense of ISO/IEC 29794-5, with cheap measures): size, sharpness, exposure,
//! pose, cut by the picture's edge, the detector's confidence. Every refusal has its reason, so that a person at a door can be told
//! what to do.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::types::{AlignedFace, BoundingBox, Detection, Landmarks, Picture, Refusal};

/// Which faces are good enough to be used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The least distance between the eyes in pixels of the camera's picture, 8 to 500.
    pub min_eye_distance_px: f32,
    /// The least sharpness (variance of the Laplacian of the aligned face's luma, grey levels squared), 0 to 10000. Faces of a 640×480
    /// H.264 camera reach 8 to 120, press photos 15 to 1000; the same camera's faces blurred by 4 pixels stay below 3.
    pub min_sharpness: f32,
    /// The least mean luma of the aligned face in grey levels, 0 to 254.
    pub min_luma: f32,
    /// The greatest mean luma of the aligned face in grey levels, 1 to 255.
    pub max_luma: f32,
    /// How far the face may be turned to a side in degrees, 5 to 90.
    pub max_yaw_degrees: f32,
    /// How far the face may look up or down in degrees, 5 to 90.
    pub max_pitch_degrees: f32,
    /// How far the head may be tilted in degrees, 5 to 180.
    pub max_roll_degrees: f32,
    /// How much of the face's box may lie outside the picture, as a share, 0 to 0.9.
    pub max_outside_share: f32,
    /// The detector's least confidence for a face to be recognised, 0 to 1.
    pub min_confidence: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_eye_distance_px: 24.0,
            min_sharpness: 5.0,
            min_luma: 25.0,
            max_luma: 230.0,
            max_yaw_degrees: 45.0,
            max_pitch_degrees: 40.0,
            max_roll_degrees: 45.0,
            max_outside_share: 0.15,
            min_confidence: 0.7,
        }
    }
}

impl Settings {
    /// Values out of range: the key, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let rows: [(&str, f32, RangeInclusive<f32>, &str); 9] = [
            ("min-eye-distance-px", self.min_eye_distance_px, 8.0..=500.0, "8 to 500 pixels"),
            ("min-sharpness", self.min_sharpness, 0.0..=10_000.0, "0 to 10000"),
            ("min-luma", self.min_luma, 0.0..=254.0, "0 to 254"),
            ("max-luma", self.max_luma, 1.0..=255.0, "1 to 255"),
            ("max-yaw-degrees", self.max_yaw_degrees, 5.0..=90.0, "5 to 90 degrees"),
            ("max-pitch-degrees", self.max_pitch_degrees, 5.0..=90.0, "5 to 90 degrees"),
            ("max-roll-degrees", self.max_roll_degrees, 5.0..=180.0, "5 to 180 degrees"),
            ("max-outside-share", self.max_outside_share, 0.0..=0.9, "0 to 0.9"),
            ("min-confidence", self.min_confidence, 0.0..=1.0, "0 to 1"),
        ];
        let mut findings: Vec<_> = rows
            .into_iter()
            .filter(|(_, value, range, _)| !range.contains(value))
            .map(|(key, _, _, text)| (key.to_owned(), format!("must be {text}")))
            .collect();
        if self.min_luma >= self.max_luma {
            findings.push(("min-luma".to_owned(), "must be below max-luma".to_owned()));
        }
        findings
    }
}

/// What was measured on one face.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// All of it in one number, 0 to 1: for choosing a track's best frames, not for refusing.
    pub score: f32,
    /// Why the face must not be used; empty when it may.
    pub refusals: Vec<Refusal>,
    /// The distance between the eyes in pixels.
    pub eye_distance: f32,
    /// Variance of the Laplacian of the aligned face's inner part, in grey levels squared.
    pub sharpness: f32,
    /// Mean luma of the aligned face's inner part, 0 to 255.
    pub luma: f32,
    /// Where the face looks.
    pub pose: Pose,
    /// The share of the box outside the picture, 0 to 1.
    pub outside_share: f32,
}

impl Quality {
    /// Whether the face may be used.
    pub fn is_usable(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// Where a face looks, in degrees, estimated from five points: good to some ten degrees. Detectors place the nose a little low, so that
/// frontal faces read as looking down by 6 to 10 degrees in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pose {
    /// To a side; positive when the nose points to the image's right.
    pub yaw: f32,
    /// Up or down; positive when it looks down.
    pub pitch: f32,
    /// Tilted; positive when the eye on the image's right is lower.
    pub roll: f32,
}

/// How far the nose tip stands out before the plane of eyes and mouth, in distances between the eyes of an average face: 0.6 (63 mm
/// between the pupils, some 38 mm of nose before them; Farkas, "Anthropometry of the Head and Face", 1994).
const NOSE_DEPTH: f32 = 0.6;

/// Where a frontal face's nose tip lies between the line of the eyes (0) and that of the mouth's corners (1), and how far those lines
/// are apart in distances between the eyes: from the ArcFace template.
const FRONTAL_NOSE: f32 = 0.495;
const FRONTAL_HEIGHT: f32 = 1.155;

impl Pose {
    /// From the points alone; not finite when the points coincide.
    pub fn estimate(points: &Landmarks) -> Self {
        let [left, right, nose, mouth_left, mouth_right] = points.0;
        let angle = (right.y - left.y).atan2(right.x - left.x);
        let (sine, cosine) = angle.sin_cos();
        // Seen from the middle between the eyes, with the tilt taken out.
        let (middle_x, middle_y) = ((left.x + right.x) / 2.0, (left.y + right.y) / 2.0);
        let upright = |x: f32, y: f32| {
            let (x, y) = (x - middle_x, y - middle_y);
            (cosine * x + sine * y, cosine * y - sine * x)
        };
        let (nose_x, nose_y) = upright(nose.x, nose.y);
        let (mouth_x, mouth_y) = upright((mouth_left.x + mouth_right.x) / 2.0, (mouth_left.y + mouth_right.y) / 2.0);
        // The eyes' distance shrinks with the cosine of yaw as the nose moves with its sine: the ratio is the tangent. The same holds
        // for the face's height and pitch. The nose is compared with the midline at its own height.
        let aside = nose_x - mouth_x * (nose_y / mouth_y).clamp(0.0, 1.0);
        let yaw = (aside / (NOSE_DEPTH * points.eye_distance())).atan();
        let pitch = ((nose_y / mouth_y - FRONTAL_NOSE) * FRONTAL_HEIGHT / NOSE_DEPTH).atan();
        Self { yaw: yaw.to_degrees(), pitch: pitch.to_degrees(), roll: angle.to_degrees() }
    }
}

/// Measures a face and says why it must not be used, if so. `aligned` is the face of `detection`, at any side.
pub fn assess(picture: &Picture, detection: &Detection, aligned: &AlignedFace, settings: &Settings) -> Quality {
    let pose = Pose::estimate(&detection.landmarks);
    let (sharpness, luma) = sharpness_and_luma(aligned);
    let outside_share = outside_share(&detection.bounding_box, picture);
    let eye_distance = detection.landmarks.eye_distance();
    let point_outside = detection
        .landmarks
        .0
        .iter()
        .any(|p| !((0.0..picture.width() as f32).contains(&p.x) && (0.0..picture.height() as f32).contains(&p.y)));
    let turned = !(pose.yaw.abs() <= settings.max_yaw_degrees
        && pose.pitch.abs() <= settings.max_pitch_degrees
        && pose.roll.abs() <= settings.max_roll_degrees);
    let checks = [
        (below(eye_distance, settings.min_eye_distance_px), Refusal::TooSmall),
        (below(sharpness, settings.min_sharpness), Refusal::TooBlurred),
        (below(luma, settings.min_luma), Refusal::TooDark),
        (luma > settings.max_luma, Refusal::TooBright),
        (turned, Refusal::TurnedAway),
        (point_outside || outside_share > settings.max_outside_share, Refusal::CutOff),
        (below(detection.confidence, settings.min_confidence), Refusal::LowConfidence),
    ];
    let refusals = checks.into_iter().filter(|(refused, _)| *refused).map(|(_, refusal)| refusal).collect();
    let parts = [
        ramp(eye_distance, 0.5 * settings.min_eye_distance_px, 3.0 * settings.min_eye_distance_px),
        ramp(sharpness, 0.0, 10.0 * settings.min_sharpness.max(1.0)),
        ramp(luma, 0.0, 80.0).min(ramp(255.0 - luma, 0.0, 60.0)),
        pose.yaw.to_radians().cos() * pose.pitch.to_radians().cos(),
        1.0 - outside_share,
        detection.confidence,
    ];
    // The geometric mean: one poor part cannot be made good by the others.
    let score = parts.iter().map(|part| part.clamp(0.0, 1.0)).product::<f32>().powf(1.0 / parts.len() as f32);
    let score = if score.is_finite() { score } else { 0.0 };
    Quality { score, refusals, eye_distance, sharpness, luma, pose, outside_share }
}

/// Whether a measure is too low; one that is no number is.
fn below(value: f32, least: f32) -> bool {
    value < least || value.is_nan()
}

/// 0 at `low` and below, 1 at `high` and above.
fn ramp(value: f32, low: f32, high: f32) -> f32 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

/// The share of a box that lies outside the picture; 1 for a box without area.
pub fn outside_share(area: &BoundingBox, picture: &Picture) -> f32 {
    let overlap = |start: f32, length: f32, limit: u32| ((start + length).min(limit as f32) - start.max(0.0)).max(0.0);
    let inside = overlap(area.x, area.width, picture.width()) * overlap(area.y, area.height, picture.height());
    if area.area() > 0.0 { (1.0 - inside / area.area()).clamp(0.0, 1.0) } else { 1.0 }
}

/// The variance of the 4-neighbour Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000) and the
/// mean luma, over the inner part of the face: hair, background and the black beyond the picture's edge would say nothing about it.
fn sharpness_and_luma(face: &AlignedFace) -> (f32, f32) {
    let side = face.side() as usize;
    let luma: Vec<i32> = face
        .rgb()
        .as_chunks::<3>()
        .0
        .iter()
        .map(|&[r, g, b]| (77 * i32::from(r) + 150 * i32::from(g) + 29 * i32::from(b)) >> 8)
        .collect();
    // The template's eyes and mouth lie within a quarter and seven eighths of it.
    let (columns, rows) = (side / 4..side - side / 4, side / 3..side - side / 8);
    if side < 8 {
        return (0.0, luma.iter().sum::<i32>() as f32 / luma.len().max(1) as f32);
    }
    let (mut sum, mut square, mut light) = (0i64, 0i64, 0i64);
    let count = (columns.len() * rows.len()) as f32;
    for row in rows {
        for column in columns.clone() {
            let at = row * side + column;
            let value = luma[at - side] + luma[at + side] + luma[at - 1] + luma[at + 1] - 4 * luma[at];
            sum += i64::from(value);
            square += i64::from(value * value);
            light += i64::from(luma[at]);
        }
    }
    let mean = sum as f32 / count;
    (square as f32 / count - mean * mean, light as f32 / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Point;

    fn points(turn: f32) -> Landmarks {
        let template = [[38.3, 51.7], [73.5, 51.5], [56.0 + turn, 71.7], [41.5, 92.4], [70.7, 92.2]];
        Landmarks(template.map(|[x, y]| Point { x: x * 2.0, y: y * 2.0 }))
    }

    fn detection(turn: f32) -> Detection {
        let bounding_box = BoundingBox { x: 60.0, y: 60.0, width: 100.0, height: 140.0 };
        Detection { bounding_box, landmarks: points(turn), confidence: 0.9 }
    }

    fn picture() -> Picture {
        Picture::from_rgb(224, 224, vec![0; 224 * 224 * 3]).unwrap()
    }

    /// A checker of two greys, `cell` pixels a field.
    fn face(cell: usize, dark: u8, light: u8) -> AlignedFace {
        let pixel = |i: usize| if (i / 112 / cell + i % 112 / cell).is_multiple_of(2) { dark } else { light };
        AlignedFace::new(112, (0..112 * 112).flat_map(|i| [pixel(i); 3]).collect())
    }

    fn refusals(detection: &Detection, face: &AlignedFace) -> Vec<Refusal> {
        assess(&picture(), detection, face, &Settings::default()).refusals
    }

    #[test]
    fn each_fault_has_its_refusal() {
        let good = face(8, 90, 160);
        assert_eq!(refusals(&detection(0.0), &face(8, 120, 121)), [Refusal::TooBlurred]);
        assert_eq!(refusals(&detection(0.0), &face(8, 0, 40)), [Refusal::TooDark]);
        assert_eq!(refusals(&detection(0.0), &face(8, 225, 255)), [Refusal::TooBright]);
        assert_eq!(refusals(&detection(30.0), &good), [Refusal::TurnedAway]);
        let mut faint = detection(0.0);
        faint.confidence = 0.3;
        assert_eq!(refusals(&faint, &good), [Refusal::LowConfidence]);
        let mut cut = detection(0.0);
        cut.bounding_box.x = -40.0;
        assert_eq!(refusals(&cut, &good), [Refusal::CutOff]);
        let mut small = detection(0.0);
        small.landmarks.0 = small.landmarks.0.map(|p| Point { x: p.x / 4.0, y: p.y / 4.0 });
        assert_eq!(refusals(&small, &good), [Refusal::TooSmall]);
    }

    #[test]
    fn points_that_are_no_numbers_refuse_and_score_nothing() {
        let mut broken = detection(0.0);
        broken.landmarks = Landmarks([Point { x: f32::NAN, y: f32::NAN }; 5]);
        let quality = assess(&picture(), &broken, &face(8, 90, 160), &Settings::default());
        assert!(quality.refusals.contains(&Refusal::TooSmall) && quality.refusals.contains(&Refusal::TurnedAway));
        assert_eq!(quality.score, 0.0);
        broken.landmarks = Landmarks([Point { x: 50.0, y: 50.0 }; 5]);
        assert!(!assess(&picture(), &broken, &face(8, 90, 160), &Settings::default()).is_usable());
    }

    #[test]
    fn a_good_face_is_usable_and_a_turned_one_scores_less() {
        let good = assess(&picture(), &detection(0.0), &face(8, 90, 160), &Settings::default());
        assert!(good.is_usable(), "{good:?}");
        assert!(good.pose.yaw.abs() < 2.0 && good.pose.pitch.abs() < 5.0 && good.pose.roll.abs() < 2.0, "{good:?}");
        let turned = assess(&picture(), &detection(8.0), &face(8, 90, 160), &Settings::default());
        assert!(turned.pose.yaw > 10.0 && turned.score < good.score);
        assert!((0.0..=1.0).contains(&good.score));
    }

    #[test]
    fn a_tilted_head_is_not_taken_for_a_turned_one() {
        let (sine, cosine) = 30f32.to_radians().sin_cos();
        let turn = |p: Point| Point { x: cosine * p.x - sine * p.y, y: sine * p.x + cosine * p.y };
        let pose = Pose::estimate(&Landmarks(points(0.0).0.map(turn)));
        assert!((pose.roll - 30.0).abs() < 1.0 && pose.yaw.abs() < 2.0 && pose.pitch.abs() < 5.0, "{pose:?}");
    }
}
