//! Networks and what runs them. A [`Network`] is owned by one worker and takes and gives plain `f32` tensors; which backend and which
//! accelerator are behind it was chosen when it was opened, and is told, never guessed. What a network means (its role, input, decode,
//! thresholds) stands in the manifest, never here.

pub mod manifest;

use thiserror::Error;

/// A dense tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Why a network could not be opened or run.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// A backend or accelerator is not there; the message says which and what would bring it.
    #[error("{0}")]
    Unavailable(String),
    /// The file is no network that the backend can run.
    #[error("model {model}: {reason}")]
    BadModel {
        /// The model's id or file.
        model: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A run failed.
    #[error("model {model} failed to run: {reason}")]
    Run {
        /// The model's id.
        model: String,
        /// The backend's word.
        reason: String,
    },
}

/// One loaded network, owned by one worker.
pub trait Network: Send {
    /// Runs once. `input` has the shape the manifest states; the outputs come in the order of [`Network::output_names`].
    fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError>;

    /// The outputs' names, in the order of the graph.
    fn output_names(&self) -> &[String];

    /// What runs it, for logs and `birth`: `ort/cpu`, `ort/cuda`, `ort/tensorrt`, `tract/cpu`.
    fn provider(&self) -> &str;
}
