//! Makes embeddings of aligned faces: vectors whose cosine tells how alike two faces are (Deng et al., "ArcFace", CVPR 2019, and its
//! kin). Whatever a network gives is scaled to unit length here.

use super::pixels::Normaliser;
use super::{VisionError, input_tensor, run_single};
use crate::inference::manifest::{Model, Role};
use crate::inference::{Network, Tensor};
use crate::types::{AlignedFace, Embedding, ModelId};

/// An embedder network with its buffers, owned by one worker.
pub struct Embedder {
    id: ModelId,
    network: Box<dyn Network>,
    normaliser: Normaliser,
    tensor: Tensor,
    side: u32,
    dimension: usize,
    template: [[f32; 2]; 5],
}

impl Embedder {
    /// Takes a network and its manifest entry and runs it once, so that a wrong file is refused here.
    pub fn new(id: ModelId, model: &Model, mut network: Box<dyn Network>) -> Result<Self, VisionError> {
        let Role::Embedder { dimension, template, .. } = model.role else {
            return Err(VisionError::WrongRole { model: id, expected: "embedder" });
        };
        let tensor = input_tensor(&id, &model.input)?;
        let side = model.input.width;
        if side != model.input.height || template.as_flattened().iter().any(|v| !(0.0..side as f32).contains(v)) {
            let reason = "its input is not square or its template lies outside".to_owned();
            return Err(VisionError::Mismatch { model: id, reason });
        }
        run_single(&id, network.as_mut(), &tensor, dimension, &mut Vec::new())?;
        Ok(Self { id, network, normaliser: Normaliser::new(&model.input), tensor, side, dimension, template })
    }

    /// The embedding of a face that was aligned to [`Embedder::template`] at [`Embedder::side`].
    pub fn embed(&mut self, face: &AlignedFace) -> Result<Embedding, VisionError> {
        if face.side() != self.side {
            return Err(VisionError::WrongSide { model: self.id.clone(), expected: self.side, got: face.side() });
        }
        self.normaliser.face(&mut self.tensor.data, face);
        let mut outputs = Vec::new();
        let values = run_single(&self.id, self.network.as_mut(), &self.tensor, self.dimension, &mut outputs)?;
        // Taken, not copied: the embedding clears this memory when it goes.
        let values = std::mem::take(values);
        Embedding::normalised(self.id.clone(), values).ok_or_else(|| VisionError::NoAnswer { model: self.id.clone() })
    }

    /// The model: embeddings of different models are never compared.
    pub fn model(&self) -> &ModelId {
        &self.id
    }

    /// What runs it.
    pub fn provider(&self) -> &str {
        self.network.provider()
    }

    /// Where the five points go, in pixels of the aligned face.
    pub fn template(&self) -> &[[f32; 2]; 5] {
        &self.template
    }

    /// Pixels a side of an aligned face.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// Numbers in an embedding.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::manifest::ChosenScore;
    use crate::types::Score;
    use crate::vision::fuzzing::{Fixed, model};

    fn embedder(values: Vec<f32>, dimension: usize) -> Result<Embedder, VisionError> {
        let threshold = ChosenScore { score: Score::MAX, fmr: 0.0, data: String::new(), alike: None, visits: None };
        let role = Role::Embedder { dimension, template: [[1.0, 2.0]; 5], threshold };
        let network = Fixed { names: vec!["out".into()], outputs: vec![values] };
        Embedder::new(ModelId::new("embedder").unwrap(), &model(4, role), Box::new(network))
    }

    #[test]
    fn another_dimension_another_role_and_another_side_are_refused() {
        assert!(matches!(embedder(vec![1.0; 3], 4), Err(VisionError::Mismatch { .. })));
        let role = Role::Liveness { crop: crate::inference::manifest::CropRule::Shifted, scale: 1.0, classes: 2, live_class: 0 };
        let network = Fixed { names: vec![], outputs: vec![] };
        let wrong = Embedder::new(ModelId::new("live").unwrap(), &model(4, role), Box::new(network));
        assert!(matches!(wrong, Err(VisionError::WrongRole { .. })));
        let face = AlignedFace::new(5, vec![0; 75]);
        assert!(matches!(embedder(vec![1.0; 4], 4).unwrap().embed(&face), Err(VisionError::WrongSide { got: 5, .. })));
    }

    #[test]
    fn numbers_that_say_nothing_give_no_embedding() {
        let face = AlignedFace::new(4, vec![0; 48]);
        for bad in [0.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(embedder(vec![bad; 4], 4).unwrap().embed(&face), Err(VisionError::NoAnswer { .. })));
        }
    }

    #[test]
    fn an_embedding_has_unit_length() {
        let face = AlignedFace::new(4, vec![0; 48]);
        let embedding = embedder(vec![3.0, 4.0], 2).unwrap().embed(&face).unwrap();
        assert_eq!(embedding.values(), [0.6, 0.8]);
    }
}
