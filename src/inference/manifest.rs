//! `models/manifest.toml`: everything that is particular to a network. Which file it is and where that comes from, how a picture goes
//! in, how the outputs are read, and which thresholds were chosen on which data. Nothing of this is a constant in code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{ModelId, PadScore, Score, VisitTable};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// The file's own version; this code reads 1.
    pub version: u32,
    /// Networks by id.
    #[serde(default)]
    pub models: BTreeMap<ModelId, Model>,
    /// Packs by name.
    #[serde(default)]
    pub packs: BTreeMap<String, Pack>,
}

/// One network with one preprocessing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Model {
    /// The file's name in the models folder.
    pub file: String,
    /// Its SHA-256, 64 lower-case hexadecimal digits; empty where upstream's is not known. Such a file is neither fetched nor opened
    /// until a manifest of the site's own pins it.
    #[serde(default)]
    pub sha256: String,
    /// Its length; 0 where it is not known.
    #[serde(default)]
    pub bytes: u64,
    /// Whether it is explicitly quantised: QuantizeLinear and DequantizeLinear say in the file where it rounds to 8 bits. A file that is
    /// not what this says is refused.
    #[serde(default)]
    pub int8: bool,
    /// Under what terms the weights may be used.
    pub licence: Licence,
    /// Where the file comes from.
    pub origin: Origin,
    /// How a picture goes in.
    pub input: Input,
    /// What the network is for, and how its outputs are read.
    pub role: Role,
}

/// Terms of the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Licence {
    /// SPDX id or plain name.
    pub name: String,
    /// Whether the terms must be accepted by a flag before `models fetch` brings the file.
    #[serde(default)]
    pub accept: bool,
    /// What a site should know (training data, restrictions).
    #[serde(default)]
    pub note: String,
}

/// What upstream really offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// The file lies in the project, under `models/`.
    Bundled {
        /// How it was made.
        note: String,
    },
    /// Nobody offers this very file; it is brought from a folder.
    Local {
        /// How it was made.
        note: String,
    },
    /// A plain file.
    Url {
        /// Its https address.
        url: String,
    },
    /// A member of a zip archive.
    Zip {
        /// The archive's https address.
        url: String,
        /// The member's path.
        member: String,
    },
    /// Upstream offers another form (a checkpoint); a script in `models/` makes the pinned file of it.
    Converted {
        /// Where the other form is.
        url: String,
        /// The script in `models/`.
        script: String,
    },
}

/// How pixels become the input tensor (1 × 3 × height × width): `(value - mean) / deviation`, per channel in the tensor's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The channels' order.
    pub color: ColorOrder,
    /// Subtracted, per channel, from 0..255 values.
    pub mean: [f32; 3],
    /// Divided by, per channel.
    pub deviation: [f32; 3],
}

/// The order of the colour channels in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColorOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// What a network is for, with how its outputs are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Role {
    /// Finds faces and five points.
    Detector {
        /// The layout of the outputs.
        decode: DetectorDecode,
        /// The lowest confidence kept.
        confidence: f32,
        /// Two boxes that overlap more than this are one face.
        nms_iou: f32,
    },
    /// Makes an embedding of an aligned face.
    Embedder {
        /// Numbers in the embedding.
        dimension: usize,
        /// Where the five points go, in pixels of the input.
        template: [[f32; 2]; 5],
        /// The comparison score at and above which two faces are one person's, with where it was chosen.
        threshold: ChosenScore,
    },
    /// Tells a living face from a picture of one.
    Liveness {
        /// How the crop is cut.
        crop: CropRule,
        /// Side of the crop in units of the face's box.
        scale: f32,
        /// How many classes come out (softmax is ours).
        classes: usize,
        /// Which class is bona fide.
        live_class: usize,
    },
}

impl Role {
    /// `detector`, `embedder` or `liveness`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Detector { .. } => "detector",
            Self::Embedder { .. } => "embedder",
            Self::Liveness { .. } => "liveness",
        }
    }
}

/// How a detector's outputs are laid out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum DetectorDecode {
    /// YuNet: `cls_ obj_ bbox_ kps_` for each stride, one cell a stride.
    Yunet {
        /// The strides.
        strides: Vec<u32>,
    },
    /// SCRFD with points: scores, boxes and points for each stride, named or in order.
    Scrfd {
        /// The strides.
        strides: Vec<u32>,
        /// Anchors a cell.
        anchors: usize,
        /// Output names: scores for each stride, then boxes, then points.
        outputs: Vec<String>,
    },
}

/// How a liveness network's crop is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropRule {
    /// Silent-Face-Anti-Spoofing's: the scale is lowered until the crop fits, then the crop is shifted back into the picture.
    Shifted,
    /// A square of the box's longer side times the scale, reflected at the picture's border.
    Reflected,
}

/// A comparison threshold and what it was chosen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChosenScore {
    /// The threshold: what a door decides by where there is no table of `visits`, and what belongs to one person at enrolment.
    pub score: Score,
    /// The false match rate it gave among random pairs of people, as is published everywhere. At a door people resemble each other more.
    pub fmr: f64,
    /// The data, with its size.
    pub data: String,
    /// What was measured among people who resemble each other; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alike: Option<AlikeClaim>,
    /// The threshold by the number of people enrolled and the false grants that are borne with; absent where no visits were measured, and
    /// then a door decides by `score` whatever its gallery's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visits: Option<VisitTable>,
}

/// Error rates among the pairs of different people that other networks find most alike (`faceid eval alike`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AlikeClaim {
    /// The false match rate that the threshold gave among these pairs.
    pub fmr: f64,
    /// How many pairs.
    pub pairs: u64,
    /// Which pairs, and which networks chose them.
    pub data: String,
    /// The least score for a false match rate among these pairs, by falling rate.
    pub targets: Vec<AlikeTarget>,
}

/// A false match rate with the score that keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AlikeTarget {
    /// The rate.
    pub fmr: f64,
    /// The score.
    pub score: Score,
}

/// A set of networks that work together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pack {
    /// One sentence for `models list`.
    pub about: String,
    /// The detector.
    pub detector: ModelId,
    /// Liveness networks, whose scores are averaged; empty when the pack claims none.
    #[serde(default)]
    pub liveness: Vec<ModelId>,
    /// The embedder.
    pub embedder: ModelId,
    /// The least liveness score, fused over a track, of a living person.
    pub liveness_threshold: PadScore,
    /// How far the best person must be ahead of the second.
    pub margin: f32,
    /// What takes the networks' places with `precision = "int8"`; a pack without it cannot be run so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8>,
}

/// A pack's INT8 networks. A role that is not named keeps its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Int8 {
    /// In the detector's place.
    #[serde(default)]
    pub detector: Option<ModelId>,
    /// In the place of all liveness networks; empty keeps them.
    #[serde(default)]
    pub liveness: Vec<ModelId>,
    /// In the embedder's place. It is a model of its own, with a threshold of its own; its embeddings are compared with no other's.
    #[serde(default)]
    pub embedder: Option<ModelId>,
}

impl Int8 {
    /// The networks, in the order of [`Pack::models`].
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.detector.iter().chain(&self.liveness).chain(&self.embedder)
    }
}

impl Model {
    /// The pinned SHA-256; `None` when the entry pins none, and the file can then neither be fetched nor opened.
    pub fn pinned(&self) -> Option<&str> {
        (!self.sha256.is_empty()).then_some(self.sha256.as_str())
    }

    /// Whether the file comes inside the program.
    pub fn is_bundled(&self) -> bool {
        matches!(self.origin, Origin::Bundled { .. })
    }
}

impl Pack {
    /// The pack's networks: detector, liveness, embedder; not those of `int8`.
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        std::iter::once(&self.detector).chain(&self.liveness).chain(std::iter::once(&self.embedder))
    }

    /// The pack as it is run with INT8; `None` when it has no such networks.
    pub fn quantized(&self) -> Option<Self> {
        let Int8 { detector, liveness, embedder } = self.int8.clone()?;
        Some(Self {
            detector: detector.unwrap_or_else(|| self.detector.clone()),
            liveness: if liveness.is_empty() { self.liveness.clone() } else { liveness },
            embedder: embedder.unwrap_or_else(|| self.embedder.clone()),
            ..self.clone()
        })
    }
}
