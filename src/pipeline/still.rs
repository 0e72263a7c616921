//! The stages over one photo: for enrolment, for the command line and for the HTTP interface.

use super::PipelineError;
use crate::types::{Detection, Embedding, PadScore, Picture};
use crate::vision::stack::Stack;
use crate::vision::{Quality, VisionError, align, assess, quality};

/// One face of a photo with everything that the networks say about it.
pub struct StillFace {
    /// Where it is.
    pub detection: Detection,
    /// How usable it is; `None` when its points are no face.
    pub quality: Option<Quality>,
    /// Its liveness score, where a liveness network is loaded.
    pub liveness: Option<PadScore>,
    /// Its embedding; `None` when it could not be aligned or says nothing.
    pub embedding: Option<Embedding>,
}

/// Every face of a photo, the largest first. Quality is told, not enforced: enrolment refuses by it, recognition reports it.
pub fn look(stack: &mut Stack, picture: &Picture, settings: &quality::Settings) -> Result<Vec<StillFace>, PipelineError> {
    let mut detections = stack.detector.detect(picture)?;
    detections.sort_by(|a, b| b.bounding_box.area().total_cmp(&a.bounding_box.area()));
    let mut faces = Vec::with_capacity(detections.len());
    for detection in detections {
        let liveness = match &mut stack.liveness {
            Some(network) => answer(network.score(picture, &detection.bounding_box))?,
            None => None,
        };
        let face = align(picture, &detection.landmarks, stack.embedder.template(), stack.embedder.side());
        let (quality, embedding) = match face {
            Some(face) => (Some(assess(picture, &detection, &face, settings)), answer(stack.embedder.embed(&face))?),
            None => (None, None),
        };
        faces.push(StillFace { detection, quality, liveness, embedding });
    }
    Ok(faces)
}

/// A face that the networks can say nothing about is no failure of the photo.
fn answer<T>(result: Result<T, VisionError>) -> Result<Option<T>, PipelineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(VisionError::UnusableBox | VisionError::NoAnswer { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
