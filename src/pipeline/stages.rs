//! The networks as the pipeline asks them. A trait, so that whole sequences of drawn faces can be taken through tracker, visits and decider
//! without a picture: what belongs to whom is a matter of this room, not of the networks.

use super::{Settings, Stage, Timings};
use crate::types::{AlignedFace, Detection, Embedding, PadScore, Picture, Refusal, Score};
use crate::vision::stack::Stack;
use crate::vision::upright::is_turned;
use crate::vision::{VisionError, align, assess};

/// What the quality gate says of one face.
#[derive(Clone)]
pub enum Gated {
    /// Nothing can be said of it: its points are no face's.
    Unknowable,
    /// Refused, for these reasons.
    Refused(Vec<Refusal>),
    /// Usable: the face as the embedder takes it, and its quality, 0 to 1.
    Usable(AlignedFace, f32),
}

/// What looks at frames.
pub trait Stages {
    /// The faces of a picture, down to this confidence or to the detector's own.
    fn detect(&mut self, picture: &Picture, least: Option<f32>) -> Result<Vec<Detection>, VisionError>;

    /// The detector's own least confidence, 0 to 1.
    fn confidence(&self) -> f32;

    /// The pack's match threshold.
    fn matching(&self) -> Score;

    /// Aligns a face and asks whether it is good enough.
    fn gate(&mut self, picture: &Picture, detection: &Detection, settings: &Settings) -> Gated;

    /// Whether a face stands on its head or lies on its side.
    fn is_turned(&mut self, picture: &Picture, detection: &Detection) -> Result<bool, VisionError>;

    /// The liveness score of this one frame (`None` when no liveness network is loaded) and the embedding of a usable face. Nothing where
    /// a network has no answer.
    fn describe(
        &mut self,
        picture: &Picture,
        detection: &Detection,
        face: &AlignedFace,
        timings: &Timings,
    ) -> Result<Option<(Option<PadScore>, Embedding)>, VisionError>;
}

impl Stages for Stack {
    fn detect(&mut self, picture: &Picture, least: Option<f32>) -> Result<Vec<Detection>, VisionError> {
        match least {
            Some(least) => self.detector.detect_down_to(picture, least),
            None => self.detector.detect(picture),
        }
    }

    fn confidence(&self) -> f32 {
        self.detector.confidence()
    }

    fn matching(&self) -> Score {
        self.thresholds.matching
    }

    fn gate(&mut self, picture: &Picture, detection: &Detection, settings: &Settings) -> Gated {
        let Some(face) = align(picture, &detection.landmarks, self.embedder.template(), self.embedder.side()) else {
            return Gated::Unknowable;
        };
        let mut quality = assess(picture, detection, &face, &settings.quality);
        #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
        let least_width = settings.min_liveness_face_px as f32;
        if self.liveness.is_some() && detection.bounding_box.width < least_width && quality.refusals.is_empty() {
            quality.refusals.push(Refusal::TooSmall);
        }
        if quality.refusals.is_empty() { Gated::Usable(face, quality.score) } else { Gated::Refused(quality.refusals) }
    }

    fn is_turned(&mut self, picture: &Picture, detection: &Detection) -> Result<bool, VisionError> {
        is_turned(&mut self.detector, picture, detection)
    }

    fn describe(
        &mut self,
        picture: &Picture,
        detection: &Detection,
        face: &AlignedFace,
        timings: &Timings,
    ) -> Result<Option<(Option<PadScore>, Embedding)>, VisionError> {
        let liveness = match &mut self.liveness {
            Some(network) => match timings.time(Stage::Liveness, || network.score(picture, &detection.bounding_box)) {
                Ok(score) => Some(score),
                // A frame whose liveness cannot be told is no evidence at all.
                Err(VisionError::UnusableBox | VisionError::NoAnswer { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            None => None,
        };
        match timings.time(Stage::Embed, || self.embedder.embed(face)) {
            Ok(embedding) => Ok(Some((liveness, embedding))),
            // A face that cannot be told from others is no evidence either: frames that count must agree on who it is.
            Err(VisionError::NoAnswer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
