//! Tells a living face from a picture of one, from a single frame: a cue, not a guarantee. The networks' crops are those that they
//! were trained with: Silent-Face-Anti-Spoofing (minivision-ai, `generate_patches.py`) shifts its crop back into the picture, facenox
//! (`face-antispoof-onnx`) reflects the picture at its border. Both are resized bilinearly.

use super::pixels::{Normaliser, Sampler, View};
use super::{VisionError, input_tensor, run_single};
use crate::inference::manifest::{CropRule, Model, Role};
use crate::inference::{Network, Tensor};
use crate::types::{BoundingBox, ModelId, PadScore, Picture};

/// The liveness networks of a pack, whose probabilities are averaged.
pub struct Liveness {
    networks: Vec<Loaded>,
    sampler: Sampler,
}

struct Loaded {
    id: ModelId,
    network: Box<dyn Network>,
    normaliser: Normaliser,
    tensor: Tensor,
    crop: CropRule,
    scale: f32,
    classes: usize,
    live_class: usize,
}

impl Liveness {
    /// Takes networks with their manifest entries and runs each once, so that a wrong file is refused here.
    pub fn new(networks: Vec<(ModelId, Model, Box<dyn Network>)>) -> Result<Self, VisionError> {
        if networks.is_empty() {
            return Err(VisionError::NoLivenessNetwork);
        }
        let networks = networks.into_iter().map(|(id, model, network)| Loaded::new(id, &model, network));
        Ok(Self { networks: networks.collect::<Result<_, _>>()?, sampler: Sampler::default() })
    }

    /// The models, in the order given.
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.networks.iter().map(|loaded| &loaded.id)
    }

    /// How surely the face in `face` is bona fide. One network without an answer leaves no score: a doubt must not be averaged away.
    pub fn score(&mut self, picture: &Picture, face: &BoundingBox) -> Result<PadScore, VisionError> {
        let mut sum = 0.0;
        for loaded in &mut self.networks {
            sum += loaded.score(&mut self.sampler, picture, face)?;
        }
        Ok(PadScore::saturating(sum / self.networks.len() as f32))
    }
}

impl Loaded {
    fn new(id: ModelId, model: &Model, mut network: Box<dyn Network>) -> Result<Self, VisionError> {
        let Role::Liveness { crop, scale, classes, live_class } = model.role else {
            return Err(VisionError::WrongRole { model: id, expected: "liveness" });
        };
        let mismatch = |reason: &str| VisionError::Mismatch { model: id.clone(), reason: reason.to_owned() };
        if live_class >= classes || classes < 2 {
            return Err(mismatch("its live class is not among its classes"));
        }
        if !(0.1..=100.0).contains(&scale) {
            return Err(mismatch("its crop scale is not between 0.1 and 100"));
        }
        let tensor = input_tensor(&id, &model.input)?;
        run_single(&id, network.as_mut(), &tensor, classes, &mut Vec::new())?;
        Ok(Self { id, network, normaliser: Normaliser::new(&model.input), tensor, crop, scale, classes, live_class })
    }

    fn score(&mut self, sampler: &mut Sampler, picture: &Picture, face: &BoundingBox) -> Result<f32, VisionError> {
        let size = (picture.width(), picture.height());
        let view = crop(self.crop, face, self.scale, size).ok_or(VisionError::UnusableBox)?;
        let [.., height, width] = self.tensor.shape[..] else { return Err(VisionError::UnusableBox) };
        let (normaliser, tensor) = (&self.normaliser, &mut self.tensor.data);
        if !sampler.resize(picture, view, (width, height), |row, rgb| normaliser.row(tensor, row, rgb)) {
            return Err(VisionError::UnusableBox);
        }
        let mut outputs = Vec::new();
        let logits = run_single(&self.id, self.network.as_mut(), &self.tensor, self.classes, &mut outputs)?;
        softmax(logits, self.live_class).ok_or_else(|| VisionError::NoAnswer { model: self.id.clone() })
    }
}

/// The share of class `index`; `None` when a logit is not finite or there is no such class.
pub fn softmax(logits: &[f32], index: usize) -> Option<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    Some((logits.get(index)? - highest).exp() / sum)
}

/// Whether the box has finite numbers, an area, and a part inside the picture.
fn is_usable(face: &BoundingBox, (width, height): (u32, u32)) -> bool {
    face.width >= 1.0
        && face.height >= 1.0
        && face.x < width as f32
        && face.y < height as f32
        && face.x + face.width > 0.0
        && face.y + face.height > 0.0
        && face.area().is_finite()
}

/// The part of a picture of `size` that a network sees of a face; `None` for a box without area or wholly outside the picture.
pub fn crop(rule: CropRule, face: &BoundingBox, scale: f32, size: (u32, u32)) -> Option<View> {
    match rule {
        CropRule::Shifted => shifted(face, scale, size),
        CropRule::Reflected => reflected(face, scale, size),
    }
}

/// Silent-Face-Anti-Spoofing's crop: the scale is lowered until the crop fits the picture, then the crop, centred on the box, is
/// shifted inside; both corners are cut to whole pixels and belong to it.
fn shifted(face: &BoundingBox, scale: f32, size: (u32, u32)) -> Option<View> {
    if !is_usable(face, size) {
        return None;
    }
    let (right, bottom) = (f64::from(size.0 - 1), f64::from(size.1 - 1));
    let (width, height) = (f64::from(face.width), f64::from(face.height));
    let scale = f64::from(scale).min(right / width).min(bottom / height);
    let span = |start: f64, length: f64, end: f64| {
        let middle = start + length / 2.0;
        let (mut low, mut high) = (middle - length * scale / 2.0, middle + length * scale / 2.0);
        if low < 0.0 {
            (low, high) = (0.0, high - low);
        }
        if high > end {
            (low, high) = (low - (high - end), end);
        }
        // Rounding may leave the low end a hair below zero.
        let (low, high) = (low.max(0.0) as i32, high.clamp(0.0, end) as i32);
        (low, (high - low).max(0).unsigned_abs() + 1)
    };
    let (x, width) = span(f64::from(face.x), width, right);
    let (y, height) = span(f64::from(face.y), height, bottom);
    Some(View { x, y, width, height })
}

/// facenox's crop: a square of the box's longer side times the scale, centred on the box and cut to whole pixels towards zero; it may
/// reach outside.
fn reflected(face: &BoundingBox, scale: f32, size: (u32, u32)) -> Option<View> {
    if !is_usable(face, size) {
        return None;
    }
    let side = (f64::from(face.width.max(face.height)) * f64::from(scale)).trunc();
    let start = |low: f32, length: f32| (f64::from(low) + f64::from(length) / 2.0 - side / 2.0) as i32;
    (1.0..=1e6).contains(&side).then(|| View {
        x: start(face.x, face.width),
        y: start(face.y, face.height),
        width: side as u32,
        height: side as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::fuzzing::{Fixed, model};

    fn square(x: f32, y: f32, side: f32) -> BoundingBox {
        BoundingBox { x, y, width: side, height: side }
    }

    fn role(classes: usize, live_class: usize) -> Role {
        Role::Liveness { crop: CropRule::Shifted, scale: 2.7, classes, live_class }
    }

    fn liveness(logits: &[&[f32]]) -> Result<Liveness, VisionError> {
        let network = |logits: &&[f32]| -> (ModelId, Model, Box<dyn Network>) {
            let network = Fixed { names: vec!["out".into()], outputs: vec![logits.to_vec()] };
            (ModelId::new("live").unwrap(), model(8, role(3, 1)), Box::new(network))
        };
        Liveness::new(logits.iter().map(network).collect())
    }

    #[test]
    fn no_network_another_network_and_a_wrong_class_are_refused() {
        assert!(matches!(liveness(&[]), Err(VisionError::NoLivenessNetwork)));
        let error = liveness(&[&[0.0; 512]]).err().unwrap();
        assert!(error.to_string().contains("512 numbers instead of 3"), "{error}");
        let network = Fixed { names: vec![], outputs: vec![vec![0.0; 3]] };
        let entry = (ModelId::new("live").unwrap(), model(8, role(3, 3)), Box::new(network) as Box<dyn Network>);
        assert!(Liveness::new(vec![entry]).is_err());
    }

    #[test]
    fn logits_that_are_no_numbers_give_no_score() {
        let picture = Picture::from_rgb(64, 64, vec![0; 64 * 64 * 3]).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut liveness = liveness(&[&[0.0, 9.0, 0.0], &[0.0, bad, 0.0]]).unwrap();
            assert!(matches!(liveness.score(&picture, &square(20.0, 20.0, 20.0)), Err(VisionError::NoAnswer { .. })));
        }
    }

    #[test]
    fn a_box_outside_the_picture_is_refused() {
        let size = (100, 100);
        for face in [
            square(f32::NAN, 0.0, 10.0),
            square(0.0, 0.0, f32::NAN),
            square(0.0, 0.0, 0.0),
            square(100.0, 0.0, 10.0),
            square(-20.0, 0.0, 10.0),
            square(0.0, 0.0, f32::INFINITY),
        ] {
            assert_eq!(shifted(&face, 2.7, size), None);
            assert_eq!(reflected(&face, 1.5, size), None);
        }
    }

    #[test]
    fn crops_follow_their_rules_at_the_border() {
        assert_eq!(shifted(&square(0.0, 0.0, 20.0), 2.0, (101, 61)), Some(View { x: 0, y: 0, width: 41, height: 41 }));
        assert_eq!(shifted(&square(70.0, 0.0, 30.0), 9.0, (101, 61)), Some(View { x: 40, y: 0, width: 61, height: 61 }));
        assert_eq!(shifted(&square(10.0, 0.0, 8.0), 2.0, (1, 1)), None);
        assert_eq!(reflected(&square(0.0, 10.0, 20.0), 1.5, (100, 100)), Some(View { x: -5, y: 5, width: 30, height: 30 }));
    }

    #[test]
    fn probabilities_are_averaged() {
        let picture = Picture::from_rgb(64, 64, vec![0; 64 * 64 * 3]).unwrap();
        let mut liveness = liveness(&[&[0.0, 100.0, 0.0], &[100.0, 0.0, 0.0]]).unwrap();
        let score = liveness.score(&picture, &square(20.0, 20.0, 20.0)).unwrap();
        assert!((score.value() - 0.5).abs() < 1e-6);
    }
}
