//! Embeddings: biometric data. They have no `Debug`, no `Serialize` and no content in any error, and their memory is cleared when
//! they go.

use std::fmt;

use zeroize::Zeroize;

use super::{ModelId, Score};

/// A face as a unit vector of one model.
pub struct Embedding {
    model: ModelId,
    values: Vec<f32>,
}

impl Embedding {
    /// The smallest L2 norm that still says something.
    const MIN_NORM: f32 = 1e-6;

    /// Scales the values to unit length; `None` when they are empty, not finite or without length (nothing can be said about such a
    /// face).
    pub fn normalised(model: ModelId, mut values: Vec<f32>) -> Option<Self> {
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        if values.is_empty() || !norm.is_finite() || norm < Self::MIN_NORM {
            values.zeroize();
            return None;
        }
        for value in &mut values {
            *value /= norm;
        }
        Some(Self { model, values })
    }

    /// The mean of several embeddings of one model with their weights, scaled to unit length again; `None` when there is none, the
    /// models or the lengths differ, or they cancel out.
    pub fn fuse<'a>(parts: impl IntoIterator<Item = (&'a Embedding, f32)>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let (first, weight) = parts.next()?;
        let mut sum: Vec<f32> = first.values.iter().map(|v| v * weight).collect();
        for (part, weight) in parts {
            if part.model != first.model || part.values.len() != sum.len() {
                sum.zeroize();
                return None;
            }
            for (total, value) in sum.iter_mut().zip(&part.values) {
                *total += value * weight;
            }
        }
        Self::normalised(first.model.clone(), sum)
    }

    /// The model that made it.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// The unit vector.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The cosine with `other`; `None` for another model or another length.
    pub fn compare(&self, other: &Embedding) -> Option<Score> {
        if self.model != other.model || self.values.len() != other.values.len() {
            return None;
        }
        Some(Score::saturating(self.values.iter().zip(&other.values).map(|(a, b)| a * b).sum()))
    }
}

/// The embedding that an observation was searched with: it may be compared with another observation's, and shows nothing of itself.
#[derive(Clone)]
pub struct Probe(Embedding);

impl Probe {
    /// The cosine with another's; `None` for another model or another length.
    pub fn compare(&self, other: &Probe) -> Option<Score> {
        self.0.compare(&other.0)
    }
}

impl From<Embedding> for Probe {
    fn from(embedding: Embedding) -> Self {
        Self(embedding)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a probe of {}", self.0.model)
    }
}

impl Clone for Embedding {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), values: self.values.clone() }
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name).unwrap()
    }

    #[test]
    fn vectors_that_say_nothing_are_refused() {
        for values in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0]] {
            assert!(Embedding::normalised(model("m"), values).is_none());
        }
    }

    #[test]
    fn different_models_are_never_compared_or_fused() {
        let a = Embedding::normalised(model("a"), vec![1.0, 0.0]).unwrap();
        let b = Embedding::normalised(model("b"), vec![1.0, 0.0]).unwrap();
        assert!(a.compare(&b).is_none());
        assert!(Embedding::fuse([(&a, 1.0), (&b, 1.0)]).is_none());
    }

    #[test]
    fn a_fused_embedding_has_unit_length_and_lies_between() {
        let a = Embedding::normalised(model("m"), vec![2.0, 0.0]).unwrap();
        let b = Embedding::normalised(model("m"), vec![0.0, 5.0]).unwrap();
        let fused = Embedding::fuse([(&a, 1.0), (&b, 1.0)]).unwrap();
        let cosine = fused.compare(&a).unwrap().value();
        assert!((cosine - 0.5f32.sqrt()).abs() < 1e-6);
    }
}
