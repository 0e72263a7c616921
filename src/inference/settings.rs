//! The `[inference]` section of the config.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which backend runs the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// ONNX Runtime where its library loads and takes the network, tract otherwise.
    #[default]
    Auto,
    /// ONNX Runtime or nothing.
    Ort,
    /// tract.
    Tract,
}

/// What ONNX Runtime computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// NVIDIA TensorRT. The first start builds engines for minutes; what comes next in the list serves until they are there.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tensorrt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        })
    }
}

/// How exactly networks are computed. Whatever is chosen, an engine is held against the processor before it serves, and how far they
/// lie apart is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits, as the networks were made.
    #[default]
    Fp32,
    /// 16 bits where TensorRT finds it faster: about half the time and memory. Other providers compute in 32 bits.
    Fp16,
    /// The pack's INT8 networks, which say themselves where they round (QuantizeLinear and DequantizeLinear); on every provider. What
    /// they leave in float TensorRT may compute in 16 bits. A pack without such networks is refused.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// How networks are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// `auto` takes ONNX Runtime where its library loads and takes the network, and tract otherwise; `ort` or `tract` takes nothing
    /// else.
    pub backend: BackendChoice,
    /// What ONNX Runtime computes on, tried in this order; one that does not work is logged with its reason and the next is tried.
    /// Without `cpu` in the list a machine that lost its accelerator does not fall back to the processor.
    pub providers: Vec<Provider>,
    /// ONNX Runtime's library (`libonnxruntime.so`, 1.17 or newer) or the folder it is in. Without it the usual places are searched.
    /// The environment's `ORT_DYLIB_PATH` overrides it. Its code runs as this program, so nobody may write it or its folders who could
    /// not change the program as well: root's, and nothing in folders of the service's own.
    pub library: Option<PathBuf>,
    /// Threads within one network, 1 to 64 (ONNX Runtime only). More than one costs more than it gives on small processors: cameras
    /// and stages run side by side already.
    pub threads: usize,
    /// Where TensorRT keeps its engines and timings, so that only the first start builds them; it must be writable by faceid alone.
    /// Without it they are built at every start.
    pub cache_dir: Option<PathBuf>,
    /// How exactly networks are computed: `fp32`; `fp16`, where TensorRT finds it faster; or `int8`, the pack's INT8 networks on whatever
    /// provider. An INT8 embedder is a model of its own: who is enrolled with another is enrolled anew.
    pub precision: Precision,
    /// How far an INT8 engine's answers may lie from the same network's on the processor, as 1 - cosine, 0.001 to 0.05; one that is
    /// further off is refused. Engines in 32 and 16 bits are always held to 0.001.
    pub int8_parity: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            providers: vec![Provider::Tensorrt, Provider::Cuda, Provider::Cpu],
            library: None,
            threads: 1,
            cache_dir: None,
            precision: Precision::Fp32,
            int8_parity: 0.01,
        }
    }
}

impl Settings {
    /// Values out of their range: the key and what is wrong with it.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut add = |key: &str, what: String| findings.push((key.to_owned(), what));
        if self.providers.is_empty() {
            add("providers", "no provider is named: use some of `tensorrt`, `cuda`, `cpu`".into());
        }
        let mut seen = self.providers.clone();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() != self.providers.len() {
            add("providers", "a provider is named twice".into());
        }
        if !(1..=64).contains(&self.threads) {
            add("threads", format!("{} is outside 1 to 64", self.threads));
        }
        if !(0.001..=0.05).contains(&self.int8_parity) {
            add("int8-parity", format!("{} is outside 0.001 to 0.05", self.int8_parity));
        }
        for (key, path) in [("library", &self.library), ("cache-dir", &self.cache_dir)] {
            if let Some(path) = path
                && (!path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0))
            {
                add(key, format!("`{}` must be an absolute path", path.display()));
            }
        }
        if self.backend == BackendChoice::Ort && cfg!(not(feature = "ort")) {
            add("backend", "this faceid was built without ONNX Runtime: use `tract` or `auto`".into());
        }
        if self.backend == BackendChoice::Tract && cfg!(not(feature = "tract")) {
            add("backend", "this faceid was built without tract: use `ort` or `auto`".into());
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_all_found() {
        let settings = Settings {
            providers: vec![Provider::Cpu, Provider::Cpu],
            threads: 0,
            int8_parity: f64::NAN,
            library: Some("libonnxruntime.so".into()),
            ..Settings::default()
        };
        let keys: Vec<_> = settings.findings().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["providers", "threads", "int8-parity", "library"]);
    }

    #[test]
    fn the_default_is_in_range_and_an_unknown_key_is_not() {
        assert!(Settings::default().findings().is_empty());
        assert!(toml::from_str::<Settings>("provider = []").is_err());
        let read: Settings = toml::from_str("backend = \"ort\"\nproviders = [\"cuda\"]").unwrap();
        assert_eq!((read.backend, read.providers), (BackendChoice::Ort, vec![Provider::Cuda]));
    }
}
