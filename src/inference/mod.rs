//! Networks and what runs them. A [`Network`] is owned by one worker and takes and gives plain `f32` tensors; which backend and which
//! accelerator are behind it was chosen when it was opened, and is told, never guessed. What a network means (its role, input, decode,
//! thresholds) stands in the manifest, never here.
//!
//! A file becomes a network in one way: [`open`] reads it under a ceiling, holds it against its pinned hash, looks whether it takes
//! what the manifest says, rewrites what can be rewritten exactly (`rewrite`), and hands it to a backend. `ort.rs` alone names `ort`,
//! `tract.rs` alone names tract; either may be left out of the build. An engine that takes minutes to build does not keep a door
//! waiting (`engine`).

mod builtin;
#[cfg(feature = "ort")]
mod cache;
#[cfg_attr(not(feature = "ort"), expect(dead_code, reason = "only ONNX Runtime has engines to build"))]
mod engine;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
#[cfg(any(feature = "ort", test, feature = "fuzzing"))]
#[cfg_attr(not(feature = "ort"), allow(dead_code, reason = "only ONNX Runtime is loaded; the fuzzer feeds the parser alone"))]
mod library;
mod load;
pub mod manifest;
mod onnx;
#[cfg(feature = "ort")]
mod ort;
pub mod packs;
mod rewrite;
mod settings;
#[cfg(feature = "tract")]
mod tract;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::types::ModelId;
pub use engine::{EngineReport, EngineState, engines};
pub use load::Finding;
use manifest::Model;
pub use settings::{BackendChoice, Precision, Provider, Settings};

/// The largest network file that is read, in bytes (the largest in the manifest has 261 MB).
pub const MAX_MODEL_BYTES: u64 = 1 << 30;

/// A dense tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Why a network could not be opened, run, listed or fetched.
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
    /// A manifest does not hold together; every finding is in it.
    #[error("{path}: {}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Manifest {
        /// The file, or `the built-in manifest`.
        path: String,
        /// What is wrong, in the order of the file.
        findings: Vec<Finding>,
    },
    /// A name that the manifest does not know.
    #[error("there is no {kind} `{name}`; there are: {known}")]
    Unknown {
        /// `model` or `pack`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What could have been.
        known: String,
    },
    /// A pack that has no INT8 networks was asked for some.
    #[error(
        "pack `{pack}` has no INT8 networks (packs that have: {others}): choose `fp32` or `fp16` as inference.precision, or make them with \
         models/training/quantize.py and name them as the pack's `int8` in a manifest of your own"
    )]
    NotQuantized {
        /// The pack.
        pack: String,
        /// Packs that have some.
        others: String,
    },
    /// The terms of the weights must be accepted first.
    #[error("model {model} is under terms that must be accepted ({licence}): {note}")]
    Terms {
        /// The model.
        model: ModelId,
        /// The terms' name.
        licence: String,
        /// What they say.
        note: String,
    },
    /// A file could not be brought.
    #[error("model {model} was not fetched: {reason}")]
    Fetch {
        /// The model.
        model: ModelId,
        /// What went wrong and the way out.
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

    /// Why something that the settings ask for first does not run it; `None` when the first choice does.
    fn fallback(&self) -> Option<&str> {
        None
    }
}

/// Opens the network `id` of the manifest from its file in `folder`. The file must be the pinned one and take one picture of the
/// manifest's size. Errors: [`InferenceError::BadModel`] for the file, [`InferenceError::Unavailable`] for the backend.
pub fn open(settings: &Settings, id: &ModelId, model: &Model, folder: &Path) -> Result<Box<dyn Network>, InferenceError> {
    let bytes = read_pinned(id, model, folder)?;
    let mut prepared = prepare(id.as_str(), [1, 3, model.input.height as usize, model.input.width as usize], &bytes, true)?;
    drop(bytes);
    if model.int8 != prepared.quantized {
        let reason = if model.int8 {
            "the manifest calls it an INT8 network, and the file holds no QuantizeLinear and DequantizeLinear"
        } else {
            "the file holds DequantizeLinear, and the manifest does not call it an INT8 network (`int8 = true`)"
        };
        return Err(InferenceError::BadModel { model: id.to_string(), reason: reason.to_owned() });
    }
    prepared.range = range(model);
    prepared.may_wait = false;
    let network = open_prepared(settings, &prepared)?;
    log::info!(model = id.as_str(), provider = network.provider(), rewritten = prepared.rewritten; "network {id} runs on {}", network.provider());
    if let Some(reason) = network.fallback() {
        // Whoever named no providers gets the best that is there, and a machine without an accelerator is nothing to warn of.
        let is_asked_for = settings.providers != Settings::default().providers;
        let level = if is_asked_for { log::Level::Warn } else { log::Level::Info };
        log::log!(level, model = id.as_str(); "network {id} does not run on the first choice: {reason}");
    }
    Ok(network)
}

/// The lowest and the highest number of a picture as the network gets it.
fn range(model: &Model) -> (f32, f32) {
    let input = &model.input;
    let end = |value: f32| input.mean.iter().zip(&input.deviation).map(move |(mean, deviation)| (value - mean) / deviation);
    (end(0.0).fold(f32::INFINITY, f32::min), end(255.0).fold(f32::NEG_INFINITY, f32::max))
}

/// Eight soft pictures as the network gets them, always the same: what engines are held against the processor on, and what networks
/// are timed on.
pub fn fixed_set(model: &Model) -> Vec<Tensor> {
    engine::fixed_set([1, 3, model.input.height as usize, model.input.width as usize], range(model))
}

/// Which backend and provider the settings lead to on this machine, found by running a network of one operation; for `doctor` and
/// `birth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendReport {
    /// `ort/cuda`, `tract/cpu` …; `None` when nothing works.
    pub provider: Option<String>,
    /// The backend's version; empty when nothing works.
    pub version: String,
    /// ONNX Runtime's library, when it was loaded.
    pub library: Option<PathBuf>,
    /// Why what the settings ask for first is not in use; with no provider, why nothing is.
    pub reason: Option<String>,
}

/// Finds out what [`open`] will use. With TensorRT it builds a small engine, which takes seconds.
pub fn probe(settings: &Settings) -> BackendReport {
    const SHAPE: [usize; 4] = [1, 3, 16, 16];
    let small = onnx::make::relu(&SHAPE.map(|n| n as u64));
    let input = Tensor { shape: SHAPE.to_vec(), data: vec![-1.0; SHAPE.iter().product()] };
    let opened =
        prepare("probe", SHAPE, &small, true).and_then(|prepared| open_prepared(settings, &prepared)).and_then(|mut network| {
            network.run(&input)?;
            Ok((network.provider().to_owned(), network.fallback().map(str::to_owned)))
        });
    match opened {
        Ok((provider, reason)) => {
            let (version, library) = describe_backend(&provider);
            BackendReport { provider: Some(provider), version, library, reason }
        }
        Err(error) => BackendReport { provider: None, version: String::new(), library: None, reason: Some(error.to_string()) },
    }
}

fn describe_backend(provider: &str) -> (String, Option<PathBuf>) {
    #[cfg(feature = "ort")]
    if provider.starts_with("ort/")
        && let Some((version, library)) = self::ort::loaded()
    {
        return (version, Some(library));
    }
    #[cfg(feature = "tract")]
    if provider.starts_with("tract/") {
        return (self::tract::VERSION.to_owned(), None);
    }
    let _ = provider;
    (String::new(), None)
}

/// A checked network on its way to a backend.
#[derive(Clone)]
#[cfg_attr(not(any(feature = "ort", feature = "tract")), expect(dead_code, reason = "a build without a backend only checks files"))]
struct Prepared {
    model: String,
    shape: [usize; 4],
    graph: Vec<u8>,
    outputs: Vec<String>,
    rewritten: usize,
    /// The lowest and the highest number of a picture as the network gets it.
    range: (f32, f32),
    /// Whether it says itself where it rounds to 8 bits.
    quantized: bool,
    /// Whether opening it may take the minutes that an engine takes.
    may_wait: bool,
}

/// Checks the bytes and rewrites them; `rewriting` is off only in tests that hold the two forms against each other.
fn prepare(model: &str, shape: [usize; 4], bytes: &[u8], rewriting: bool) -> Result<Prepared, InferenceError> {
    let bad = |error: onnx::Malformed| InferenceError::BadModel { model: model.to_owned(), reason: error.to_string() };
    let graph = onnx::Graph::read(bytes).map_err(bad)?;
    graph.check_input(&shape).map_err(bad)?;
    let (file, rewritten) = if rewriting {
        let done = rewrite::rewrite(bytes, &graph).map_err(bad)?;
        (done.bytes.into_owned(), done.replaced)
    } else {
        (bytes.to_vec(), 0)
    };
    Ok(Prepared {
        model: model.to_owned(),
        quantized: graph.nodes.iter().any(|node| node.operator == "DequantizeLinear"),
        shape,
        graph: file,
        outputs: graph.outputs,
        rewritten,
        range: (-1.0, 1.0),
        may_wait: true,
    })
}

fn open_prepared(settings: &Settings, prepared: &Prepared) -> Result<Box<dyn Network>, InferenceError> {
    match settings.backend {
        BackendChoice::Ort => open_ort(settings, prepared),
        BackendChoice::Tract => open_tract(prepared, None),
        BackendChoice::Auto => open_ort(settings, prepared).or_else(|error| {
            let reason = error.to_string();
            open_tract(prepared, Some(reason.clone())).map_err(|second| match second {
                InferenceError::Unavailable(second) => InferenceError::Unavailable(format!("{reason}; {second}")),
                other => other,
            })
        }),
    }
}

fn open_ort(settings: &Settings, prepared: &Prepared) -> Result<Box<dyn Network>, InferenceError> {
    #[cfg(feature = "ort")]
    return self::ort::open(settings, prepared);
    #[cfg(not(feature = "ort"))]
    {
        let _ = (settings, prepared);
        Err(InferenceError::Unavailable("this faceid was built without ONNX Runtime (cargo feature `ort`)".into()))
    }
}

fn open_tract(prepared: &Prepared, fallback: Option<String>) -> Result<Box<dyn Network>, InferenceError> {
    #[cfg(feature = "tract")]
    return self::tract::open(prepared, fallback);
    #[cfg(not(feature = "tract"))]
    {
        let _ = (prepared, fallback);
        Err(InferenceError::Unavailable("this faceid was built without tract (cargo feature `tract`)".into()))
    }
}

/// Reads the model's file, or takes the one inside the program, and holds it against what is pinned.
fn read_pinned(id: &ModelId, model: &Model, folder: &Path) -> Result<Cow<'static, [u8]>, InferenceError> {
    let path = folder.join(&model.file);
    let bad = |reason: String| InferenceError::BadModel { model: id.to_string(), reason };
    let Some(pinned) = model.pinned() else {
        return Err(bad(format!("no SHA-256 is pinned for {}: state it in a manifest of your own", model.file)));
    };
    if let Some(bytes) = builtin::bytes(model).map_err(bad)? {
        let found = hex(&Sha256::digest(bytes));
        if found != pinned {
            return Err(bad(format!("the built-in {} has sha256 {found}, the manifest pins {pinned}", model.file)));
        }
        return Ok(Cow::Borrowed(bytes));
    }
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => bad(format!("{shown} is not there: bring it with `faceid models fetch`")),
        _ => bad(format!("{shown} cannot be read: {error}")),
    };
    let file = File::open(&path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > MAX_MODEL_BYTES {
        return Err(bad(format!("{shown} has {length} bytes, more than the {MAX_MODEL_BYTES} that are read")));
    }
    if model.bytes > 0 && length != model.bytes {
        return Err(bad(format!("{shown} has {length} bytes, the pinned file has {}: fetch it again", model.bytes)));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(MAX_MODEL_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let found = hex(&Sha256::digest(&bytes));
    if found != pinned {
        return Err(bad(format!("{shown} is not the pinned file (its sha256 is {found}, pinned is {pinned}): fetch it again")));
    }
    Ok(Cow::Owned(bytes))
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(any(feature = "ort", feature = "tract"))]
fn check_shape(model: &str, shape: &[usize; 4], input: &Tensor) -> Result<(), InferenceError> {
    if input.shape == shape && input.data.len() == shape.iter().product::<usize>() {
        return Ok(());
    }
    let reason = format!("the input is {:?} with {} numbers, the network takes {shape:?}", input.shape, input.data.len());
    Err(InferenceError::Run { model: model.to_owned(), reason })
}

/// Turns a panic of a backend, which would take the worker with it, into an error: both backends assert on odd graphs.
#[cfg_attr(
    not(any(feature = "ort", feature = "tract")),
    allow(dead_code, reason = "a build without a backend, as the fuzz targets', runs nothing")
)]
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let word = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the backend gave up: {}", word.unwrap_or("without a word")))
    })
}

#[cfg(test)]
mod tests;
