//! The networks as the pipeline asks them. A trait, so that whole sequences of drawn faces can be taken through tracker, visits and decider
//! without a picture: what belongs to whom is a matter of this room, not of the networks.

use super::{Settings, Stage, Timings};
use crate::types::{Detection, Embedding, PadScore, Picture, Refusal, Score};
use crate::vision::stack::Stack;
use crate::vision::{VisionError, align, assess};

/// A face that passed the quality gate, and what the networks say of this one frame of it.
pub struct UsableFace {
    /// 0 to 1.
    pub quality: f32,
    /// `None` when no liveness network is loaded.
    pub liveness: Option<PadScore>,
    /// The face as a vector.
    pub embedding: Embedding,
}

/// What became of one face of one frame.
pub enum Judged {
    /// Nothing can be said of it.
    Unknowable,
    /// The quality gate refused it, for these reasons.
    Refused(Vec<Refusal>),
    /// It is usable and was not wanted.
    Unwanted,
    /// It is evidence.
    Usable(UsableFace),
}

/// What looks at frames.
pub trait Stages {
    /// The faces of a picture, down to this confidence or to the detector's own.
    fn detect(&mut self, picture: &Picture, least: Option<f32>) -> Result<Vec<Detection>, VisionError>;

    /// The detector's own least confidence, 0 to 1.
    fn confidence(&self) -> f32;

    /// The pack's match threshold.
    fn matching(&self) -> Score;

    /// Judges one face. `is_wanted` is asked with a usable face's quality whether it is to be looked at whole.
    fn judge(
        &mut self,
        picture: &Picture,
        detection: &Detection,
        settings: &Settings,
        timings: &Timings,
        is_wanted: &dyn Fn(f32) -> bool,
    ) -> Result<Judged, VisionError>;
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

    fn judge(
        &mut self,
        picture: &Picture,
        detection: &Detection,
        settings: &Settings,
        timings: &Timings,
        is_wanted: &dyn Fn(f32) -> bool,
    ) -> Result<Judged, VisionError> {
        let judged = timings.time(Stage::Align, || {
            let face = align(picture, &detection.landmarks, self.embedder.template(), self.embedder.side())?;
            let quality = assess(picture, detection, &face, &settings.quality);
            Some((face, quality))
        });
        let Some((face, mut quality)) = judged else { return Ok(Judged::Unknowable) };
        #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
        let least_width = settings.min_liveness_face_px as f32;
        if self.liveness.is_some() && detection.bounding_box.width < least_width && quality.refusals.is_empty() {
            quality.refusals.push(Refusal::TooSmall);
        }
        if !quality.refusals.is_empty() {
            return Ok(Judged::Refused(quality.refusals));
        }
        if !is_wanted(quality.score) {
            return Ok(Judged::Unwanted);
        }
        let liveness = match &mut self.liveness {
            Some(network) => match timings.time(Stage::Liveness, || network.score(picture, &detection.bounding_box)) {
                Ok(score) => Some(score),
                // A frame whose liveness cannot be told is no evidence at all.
                Err(VisionError::UnusableBox | VisionError::NoAnswer { .. }) => return Ok(Judged::Unknowable),
                Err(error) => return Err(error),
            },
            None => None,
        };
        match timings.time(Stage::Embed, || self.embedder.embed(&face)) {
            Ok(embedding) => Ok(Judged::Usable(UsableFace { quality: quality.score, liveness, embedding })),
            // A face that cannot be told from others is no evidence either: frames that count must agree on who it is.
            Err(VisionError::NoAnswer { .. }) => Ok(Judged::Unknowable),
            Err(error) => Err(error),
        }
    }
}
