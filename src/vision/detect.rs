//! Finds faces and their five points: letterbox, network, decode, non-maximum suppression.

pub mod scrfd;
pub mod yunet;

use super::pixels::{Normaliser, Sampler, View};
use super::{VisionError, input_tensor};
use crate::inference::manifest::{DetectorDecode, Model, Role};
use crate::inference::{Network, Tensor};
use crate::types::{Detection, ModelId, Picture, Point};

/// The most faces that a picture gives, most confident first.
pub const MAX_FACES: usize = 64;

/// The most candidates that enter suppression (its cost is quadratic), most confident first: a hostile picture must not stall a door.
pub const MAX_CANDIDATES: usize = 1024;

/// A detector network with its buffers, owned by one worker.
pub struct Detector {
    id: ModelId,
    network: Box<dyn Network>,
    decode: Decode,
    confidence: f32,
    nms_iou: f32,
    normaliser: Normaliser,
    sampler: Sampler,
    tensor: Tensor,
    /// The letterboxed picture's size in the tensor; beside it the tensor is black.
    placed: (usize, usize),
    candidates: Vec<Detection>,
}

/// Which output of the network is what, for each stride.
enum Decode {
    Yunet(Vec<(u32, [usize; 4])>),
    Scrfd { anchors: usize, strides: Vec<(u32, [usize; 3])> },
}

impl Detector {
    /// Takes a network and its manifest entry, and runs it once on black: a network whose outputs are not those of the entry is
    /// refused here, and an accelerator has warmed up when the first frame comes.
    pub fn new(id: ModelId, model: &Model, network: Box<dyn Network>) -> Result<Self, VisionError> {
        let Role::Detector { decode, confidence, nms_iou } = &model.role else {
            return Err(VisionError::WrongRole { model: id, expected: "detector" });
        };
        let tensor = input_tensor(&id, &model.input)?;
        let decode = Decode::new(&id, decode, network.output_names(), (model.input.width, model.input.height))?;
        let mut detector = Self {
            id,
            network,
            decode,
            confidence: *confidence,
            nms_iou: *nms_iou,
            normaliser: Normaliser::new(&model.input),
            sampler: Sampler::default(),
            tensor,
            placed: (0, 0),
            candidates: Vec::new(),
        };
        detector.normaliser.blacken(&mut detector.tensor.data);
        detector.run(detector.confidence)?;
        Ok(detector)
    }

    /// The model.
    pub fn model(&self) -> &ModelId {
        &self.id
    }

    /// What runs it.
    pub fn provider(&self) -> &str {
        self.network.provider()
    }

    /// The confidence from which on the pack takes something for a face.
    pub fn confidence(&self) -> f32 {
        self.confidence
    }

    /// The faces of a picture in its own pixels, most confident first, at most [`MAX_FACES`].
    pub fn detect(&mut self, picture: &Picture) -> Result<Vec<Detection>, VisionError> {
        self.detect_down_to(picture, self.confidence)
    }

    /// The same, and after them what is less sure to be a face, down to `confidence`. The sure ones are the same as without.
    pub fn detect_down_to(&mut self, picture: &Picture, confidence: f32) -> Result<Vec<Detection>, VisionError> {
        let ratio = self.letterbox(picture);
        self.run(confidence.min(self.confidence))?;
        let mut faces = suppress(&mut self.candidates, self.nms_iou);
        for face in &mut faces {
            let area = &mut face.bounding_box;
            for value in [&mut area.x, &mut area.y, &mut area.width, &mut area.height] {
                *value /= ratio;
            }
            face.landmarks.0 = face.landmarks.0.map(|p| Point { x: p.x / ratio, y: p.y / ratio });
        }
        Ok(faces)
    }

    /// Places the picture at the tensor's top left, as large as fits, and tells the scale.
    fn letterbox(&mut self, picture: &Picture) -> f32 {
        let [.., height, width] = self.tensor.shape[..] else { return 1.0 };
        let (picture_width, picture_height) = (picture.width() as f32, picture.height() as f32);
        let ratio = (width as f32 / picture_width).min(height as f32 / picture_height);
        let fit = |side: f32, limit: usize| ((side * ratio).round() as usize).clamp(1, limit);
        let placed = (fit(picture_width, width), fit(picture_height, height));
        let (normaliser, tensor) = (&self.normaliser, &mut self.tensor.data);
        if placed != self.placed {
            normaliser.blacken(tensor);
            self.placed = placed;
        }
        self.sampler.resize(picture, View::whole(picture), placed, |row, rgb| normaliser.row(tensor, row, rgb));
        ratio
    }

    /// Runs the network on the tensor and leaves the candidates in the tensor's pixels.
    fn run(&mut self, confidence: f32) -> Result<(), VisionError> {
        let outputs = self.network.run(&self.tensor)?;
        let [.., height, width] = self.tensor.shape[..] else { return Ok(()) };
        self.candidates.clear();
        let read = |index: usize, expected: usize| match outputs.get(index) {
            Some(tensor) if tensor.data.len() == expected => Ok(tensor.data.as_slice()),
            found => Err(VisionError::Mismatch {
                model: self.id.clone(),
                reason: format!("output {index} has {} numbers instead of {expected}", found.map_or(0, |t| t.data.len())),
            }),
        };
        match &self.decode {
            Decode::Yunet(strides) => {
                for &(stride, [class, object, area, points]) in strides {
                    let grid = Grid { stride, columns: width / stride as usize, rows: height / stride as usize };
                    let cells = grid.columns * grid.rows;
                    let outputs = yunet::Outputs {
                        class: read(class, cells)?,
                        object: read(object, cells)?,
                        boxes: read(area, 4 * cells)?,
                        points: read(points, 10 * cells)?,
                    };
                    yunet::decode(&outputs, grid, confidence, &mut self.candidates);
                }
            }
            Decode::Scrfd { anchors, strides } => {
                for &(stride, [scores, boxes, points]) in strides {
                    let grid = Grid { stride, columns: width / stride as usize, rows: height / stride as usize };
                    let count = grid.columns * grid.rows * anchors;
                    let outputs = scrfd::Outputs {
                        scores: read(scores, count)?,
                        boxes: read(boxes, 4 * count)?,
                        points: read(points, 10 * count)?,
                    };
                    scrfd::decode(&outputs, grid, *anchors, confidence, &mut self.candidates);
                }
            }
        }
        Ok(())
    }
}

/// The cells of one stride.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Pixels of the input from one cell to the next.
    pub stride: u32,
    /// Cells in a row.
    pub columns: usize,
    /// Rows of cells.
    pub rows: usize,
}

impl Decode {
    fn new(id: &ModelId, decode: &DetectorDecode, names: &[String], (width, height): (u32, u32)) -> Result<Self, VisionError> {
        let mismatch = |reason: String| VisionError::Mismatch { model: id.clone(), reason };
        let find = |name: &str| {
            let found = names.iter().position(|n| n == name);
            found.ok_or_else(|| mismatch(format!("it has no output `{name}`, only {}", names.join(" "))))
        };
        let (DetectorDecode::Yunet { strides } | DetectorDecode::Scrfd { strides, .. }) = decode;
        if strides.is_empty() || strides.iter().any(|s| *s == 0 || width % s != 0 || height % s != 0) {
            return Err(mismatch(format!("its strides {strides:?} do not divide its input of {width}x{height}")));
        }
        match decode {
            DetectorDecode::Yunet { .. } => {
                let output = |stride: &u32| {
                    let of = |kind: &str| find(&format!("{kind}_{stride}"));
                    Ok((*stride, [of("cls")?, of("obj")?, of("bbox")?, of("kps")?]))
                };
                Ok(Self::Yunet(strides.iter().map(output).collect::<Result<_, VisionError>>()?))
            }
            DetectorDecode::Scrfd { anchors, outputs, .. } => {
                let count = strides.len();
                let in_order = outputs.is_empty() && names.len() == 3 * count;
                if !(1..=16).contains(anchors) || !(in_order || outputs.len() == 3 * count) {
                    return Err(mismatch(format!("{count} strides need {} outputs and 1 to 16 anchors", 3 * count)));
                }
                let place = |index: usize| outputs.get(index).map_or(Ok(index), |name| find(name));
                let output = |(index, stride): (usize, &u32)| {
                    Ok((*stride, [place(index)?, place(index + count)?, place(index + 2 * count)?]))
                };
                let strides = strides.iter().enumerate().map(output).collect::<Result<_, VisionError>>()?;
                Ok(Self::Scrfd { anchors: *anchors, strides })
            }
        }
    }
}

/// Whether a decoded face can be one: every number finite and of a size that a picture has, the box with an area.
fn is_sound(face: &Detection) -> bool {
    const FAR: f32 = 1e5;
    let area = &face.bounding_box;
    let points = face.landmarks.0.iter().flat_map(|p| [p.x, p.y]);
    area.width > 0.0
        && area.height > 0.0
        && [area.x, area.y, area.width, area.height].into_iter().chain(points).all(|v| v.abs() < FAR)
}

/// Greedy non-maximum suppression: of faces that overlap by more than `nms_iou`, the most confident stays.
pub fn suppress(candidates: &mut Vec<Detection>, nms_iou: f32) -> Vec<Detection> {
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in candidates.iter() {
        if kept.iter().all(|face| face.bounding_box.iou(&candidate.bounding_box) <= nms_iou) {
            kept.push(*candidate);
            if kept.len() == MAX_FACES {
                break;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BoundingBox, Landmarks};
    use crate::vision::fuzzing::{Fixed, model};

    fn face(x: f32, confidence: f32) -> Detection {
        let bounding_box = BoundingBox { x, y: 0.0, width: 10.0, height: 10.0 };
        Detection { bounding_box, landmarks: Landmarks::default(), confidence }
    }

    fn yunet(strides: Vec<u32>) -> Role {
        Role::Detector { decode: DetectorDecode::Yunet { strides }, confidence: 0.6, nms_iou: 0.3 }
    }

    fn id() -> ModelId {
        ModelId::new("detector").unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn another_networks_outputs_are_a_clear_error() {
        let other = Fixed { names: names(&["embedding"]), outputs: vec![vec![0.0; 128]] };
        let error = Detector::new(id(), &model(32, yunet(vec![32])), Box::new(other)).err().unwrap();
        assert!(error.to_string().contains("no output `cls_32`, only embedding"), "{error}");
        let short = Fixed { names: names(&["cls_32", "obj_32", "bbox_32", "kps_32"]), outputs: vec![vec![0.0; 1]; 4] };
        let error = Detector::new(id(), &model(32, yunet(vec![32])), Box::new(short)).err().unwrap();
        assert!(error.to_string().contains("output 2 has 1 numbers instead of 4"), "{error}");
        for strides in [vec![], vec![0], vec![33]] {
            let network = Fixed { names: vec![], outputs: vec![] };
            assert!(Detector::new(id(), &model(32, yunet(strides)), Box::new(network)).is_err());
        }
    }

    #[test]
    fn a_face_comes_back_in_the_pictures_pixels() {
        let outputs = vec![vec![1.0], vec![0.81], vec![0.5, 0.5, -1.0, -1.0], vec![0.25; 10]];
        let network = Fixed { names: names(&["cls_32", "obj_32", "bbox_32", "kps_32"]), outputs };
        let mut detector = Detector::new(id(), &model(32, yunet(vec![32])), Box::new(network)).unwrap();
        let picture = Picture::from_rgb(64, 48, vec![0; 64 * 48 * 3]).unwrap();
        let faces = detector.detect(&picture).unwrap();
        assert_eq!(faces.len(), 1);
        assert!((faces[0].confidence - 0.9).abs() < 1e-6);
        let center = faces[0].bounding_box.center();
        assert!((center.x - 32.0).abs() < 1e-4 && (center.y - 32.0).abs() < 1e-4);
        assert_eq!(faces[0].landmarks.0[4], Point { x: 16.0, y: 16.0 });
    }

    #[test]
    fn of_overlapping_faces_the_most_confident_stays() {
        let mut candidates = vec![face(1.0, 0.7), face(0.0, 0.9), face(30.0, 0.8), face(2.0, 0.85)];
        let kept = suppress(&mut candidates, 0.3);
        assert_eq!(kept.iter().map(|f| f.confidence).collect::<Vec<_>>(), [0.9, 0.8]);
    }

    #[test]
    fn a_flood_of_candidates_is_cut() {
        let mut candidates = (0..20_000).map(|i| face(i as f32 * 20.0, 0.7)).collect();
        assert_eq!(suppress(&mut candidates, 0.3).len(), MAX_FACES);
    }
}
