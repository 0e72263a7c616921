//! A pack's networks, opened and ready: what one worker owns.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Detector, Embedder, Liveness, VisionError};
use crate::inference::manifest::{Manifest, Model, Role};
use crate::inference::{self, InferenceError};
use crate::types::{ModelId, PadScore, Score, VisitTable};

/// The pack's thresholds, as the manifest states them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackThresholds {
    /// The least comparison score of a match.
    pub matching: Score,
    /// How far the best person must be ahead of the second.
    pub margin: f32,
    /// The least liveness score.
    pub liveness: PadScore,
}

/// Opened networks.
pub struct Stack {
    /// The pack's name.
    pub pack: String,
    /// Finds faces.
    pub detector: Detector,
    /// Tells a living face; absent when the pack claims no liveness.
    pub liveness: Option<Liveness>,
    /// Makes embeddings.
    pub embedder: Embedder,
    /// The embedder is one that comes with the program, whatever the pack is called: for a first look, not for a door.
    pub is_demo: bool,
    /// The pack's thresholds.
    pub thresholds: PackThresholds,
    /// The threshold of a match by the size of the gallery, where it was measured.
    pub visits: Option<VisitTable>,
    /// Each model with what runs it, for logs, `birth` and `doctor`.
    pub providers: Vec<(ModelId, String)>,
}

impl Stack {
    /// Opens every network of `pack` from the folder `dir`.
    pub fn open(manifest: &Manifest, pack: &str, dir: &Path, settings: &inference::Settings) -> Result<Self, VisionError> {
        let name = pack;
        let pack = &manifest.pack_at(name, settings.precision)?;
        let mut providers = Vec::new();
        let mut open = |id: &ModelId| -> Result<(Model, Box<dyn inference::Network>), VisionError> {
            let model = manifest.model(id)?.clone();
            let network = inference::open(settings, id, &model, dir)?;
            providers.push((id.clone(), network.provider().to_owned()));
            Ok((model, network))
        };
        let (model, network) = open(&pack.detector)?;
        let detector = Detector::new(pack.detector.clone(), &model, network)?;
        let (model, network) = open(&pack.embedder)?;
        let Role::Embedder { threshold, .. } = &model.role else {
            return Err(InferenceError::BadModel { model: pack.embedder.to_string(), reason: "is no embedder".into() }.into());
        };
        let thresholds = PackThresholds { matching: threshold.score, margin: pack.margin, liveness: pack.liveness_threshold };
        let visits = threshold.visits.clone();
        let is_demo = model.is_bundled();
        let embedder = Embedder::new(pack.embedder.clone(), &model, network)?;
        let mut parts = Vec::new();
        for id in &pack.liveness {
            let (model, network) = open(id)?;
            parts.push((id.clone(), model, network));
        }
        let liveness = if parts.is_empty() { None } else { Some(Liveness::new(parts)?) };
        Ok(Self { pack: name.to_owned(), detector, liveness, embedder, is_demo, thresholds, visits, providers })
    }

    /// The models by role, as decisions name them.
    pub fn models(&self) -> BTreeMap<String, Vec<ModelId>> {
        let liveness: Vec<ModelId> = self.liveness.iter().flat_map(Liveness::models).cloned().collect();
        let mut models = BTreeMap::from([
            ("detector".to_owned(), vec![self.detector.model().clone()]),
            ("embedder".to_owned(), vec![self.embedder.model().clone()]),
        ]);
        if !liveness.is_empty() {
            models.insert("liveness".to_owned(), liveness);
        }
        models
    }
}
