//! What is seen in a picture: faces and their five points ([`detect`]), a face warped to an embedder's template ([`align`]), whether it
//! is good enough to be used ([`quality`]), whether it is alive ([`liveness`], and over several frames [`parallax`]), its embedding ([`embed`]), and which faces of
//! consecutive frames are one person's stay ([`track`]). Stages never call each other: the pipeline hands each one's values to the next.
//!
//! Pictures stay in the decoder's planes; [`pixels`] samples only what a stage needs. What is particular to a network comes from its
//! manifest entry. Deliberately absent: clocks, threads, files, and any choice of backend.

pub mod align;
pub mod depth;
pub mod detect;
pub mod embed;
pub mod framed;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
pub mod liveness;
pub mod parallax;
pub mod pixels;
pub mod quality;
pub mod stack;
pub mod track;
pub mod upright;
mod warp;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::inference::manifest::Input;
use crate::inference::{InferenceError, Network, Tensor};
use crate::types::ModelId;

pub use align::align;
pub use detect::Detector;
pub use embed::Embedder;
pub use liveness::Liveness;
pub use parallax::{Motion, Parallax};
pub use quality::{Quality, assess};
pub use track::Tracker;

/// The room's part of the config.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Which faces are good enough to be used.
    pub quality: quality::Settings,
    /// How faces of consecutive frames are joined.
    pub track: track::Settings,
}

impl Settings {
    /// Values out of range: the dotted key, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let quality = self.quality.findings().into_iter().map(|(key, text)| (format!("quality.{key}"), text));
        let track = self.track.findings().into_iter().map(|(key, text)| (format!("track.{key}"), text));
        quality.chain(track).collect()
    }
}

/// Why a stage gave no answer.
#[derive(Debug, Error)]
pub enum VisionError {
    /// The manifest entry is for another stage.
    #[error("model {model} is no {expected}: name one whose role in the manifest is `{expected}`")]
    WrongRole {
        /// The model.
        model: ModelId,
        /// The role that the stage needs.
        expected: &'static str,
    },
    /// The network's inputs or outputs are not what its manifest entry says: another network's file, or a wrong entry.
    #[error("model {model} does not fit its manifest entry: {reason}; check its file with `faceid models verify`")]
    Mismatch {
        /// The model.
        model: ModelId,
        /// What differs.
        reason: String,
    },
    /// No liveness network was given.
    #[error("no liveness network is loaded: choose a pack that has one")]
    NoLivenessNetwork,
    /// A box without area, without numbers or wholly outside the picture.
    #[error("the face's box has no part in the picture")]
    UnusableBox,
    /// The face was aligned for another embedder.
    #[error("model {model} takes faces of {expected} pixels a side, got {got}")]
    WrongSide {
        /// The model.
        model: ModelId,
        /// Its side.
        expected: u32,
        /// The face's side.
        got: u32,
    },
    /// The network gave numbers that say nothing (not finite, or all zero).
    #[error("model {model} gave no usable numbers for this face")]
    NoAnswer {
        /// The model.
        model: ModelId,
    },
    /// The network did not run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// An input tensor of the manifest's shape, filled with zeros; refuses what would divide by zero or take the memory.
fn input_tensor(id: &ModelId, input: &Input) -> Result<Tensor, VisionError> {
    const MAX_SIDE: u32 = 4096;
    let mismatch = |reason: &str| VisionError::Mismatch { model: id.clone(), reason: reason.to_owned() };
    if !(1..=MAX_SIDE).contains(&input.width) || !(1..=MAX_SIDE).contains(&input.height) {
        return Err(mismatch("its input size is zero or above 4096"));
    }
    if input.deviation.iter().any(|d| !d.is_normal()) || input.mean.iter().any(|m| !m.is_finite()) {
        return Err(mismatch("its mean or deviation is no usable number"));
    }
    let (width, height) = (input.width as usize, input.height as usize);
    Ok(Tensor { shape: vec![1, 3, height, width], data: vec![0.0; 3 * width * height] })
}

/// Runs a network that has one output of `expected` numbers.
fn run_single<'a>(
    id: &ModelId,
    network: &mut dyn Network,
    input: &Tensor,
    expected: usize,
    outputs: &'a mut Vec<Tensor>,
) -> Result<&'a mut Vec<f32>, VisionError> {
    *outputs = network.run(input)?;
    let found = outputs.len();
    let mismatch = |reason: String| VisionError::Mismatch { model: id.clone(), reason };
    let [output] = outputs.as_mut_slice() else {
        return Err(mismatch(format!("it has {found} outputs instead of one")));
    };
    if output.data.len() != expected {
        return Err(mismatch(format!("its output has {} numbers instead of {expected}", output.data.len())));
    }
    Ok(&mut output.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_the_dotted_key_and_the_defaults_have_none() {
        assert!(Settings::default().findings().is_empty());
        let mut settings = Settings::default();
        settings.quality.min_eye_distance_px = f32::NAN;
        settings.track.confirm_hits = 0;
        let keys: Vec<_> = settings.findings().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["quality.min-eye-distance-px", "track.confirm-hits"]);
    }

    #[test]
    fn an_input_without_size_or_deviation_is_refused() {
        let id = ModelId::new("m").unwrap();
        let color = crate::inference::manifest::ColorOrder::Rgb;
        for (width, deviation) in [(0, 1.0), (5000, 1.0), (8, 0.0), (8, f32::NAN)] {
            let input = Input { width, height: 8, color, mean: [0.0; 3], deviation: [deviation; 3] };
            assert!(input_tensor(&id, &input).is_err());
        }
    }
}
