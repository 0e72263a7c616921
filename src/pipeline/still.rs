//! The stages over one photo: for enrolment, for the command line and for the HTTP interface.

use thiserror::Error;

use super::PipelineError;
use super::crops::look_with_margin;
use crate::gallery::Snapshot;
use crate::types::{Detection, Embedding, PadScore, PersonId, Picture, Reason, Refusal, Score};
use crate::vision::stack::{PackThresholds, Stack};
use crate::vision::upright::stance;
use crate::vision::{Detector, Embedder, Quality, VisionError, align, assess, quality};

/// One face of a photo with everything that the networks say about it.
pub struct StillFace {
    /// Where it is.
    pub detection: Detection,
    /// How usable it is; `None` when its points are no face, or when it was not asked for.
    pub quality: Option<Quality>,
    /// By how many degrees the picture is to be turned so that the face stands upright; `None` where it does, and where that was not
    /// asked: of pictures with one face it is, which alone are references.
    pub turned_by: Option<u16>,
    /// Its liveness score, where a liveness network is loaded and was asked.
    pub liveness: Option<PadScore>,
    /// Its embedding; `None` when it could not be aligned or says nothing, or when it was not asked for.
    pub embedding: Option<Embedding>,
}

/// What the networks are asked about a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Everything that the pack knows.
    Everything,
    /// Quality and embedding.
    Embedding,
    /// Liveness alone.
    Liveness,
}

/// Every face of a photo, the largest first. Quality is told, not enforced: enrolment refuses by it, recognition reports it. Where there is
/// none, a face that fills the photo is looked for.
pub fn look(stack: &mut Stack, picture: &Picture, settings: &quality::Settings) -> Result<Vec<StillFace>, PipelineError> {
    look_at_most(stack, picture, settings, usize::MAX)
}

/// As [`look`], of the `most` largest faces: where cameras wait meanwhile, a picture of a crowd must not hold them up.
pub(super) fn look_at_most(
    stack: &mut Stack,
    picture: &Picture,
    settings: &quality::Settings,
    most: usize,
) -> Result<Vec<StillFace>, PipelineError> {
    let faces = look_plainly(stack, picture, settings, most)?;
    if faces.is_empty() { look_with_margin(stack, picture, settings, most) } else { Ok(faces) }
}

/// As [`look_at_most`], of the picture as it is.
pub(super) fn look_plainly(
    stack: &mut Stack,
    picture: &Picture,
    settings: &quality::Settings,
    most: usize,
) -> Result<Vec<StillFace>, PipelineError> {
    let mut detections = stack.detector.detect(picture)?;
    detections.sort_by(|a, b| b.bounding_box.area().total_cmp(&a.bounding_box.area()));
    detections.truncate(most);
    let alone = detections.len() == 1;
    let mut faces = Vec::with_capacity(detections.len());
    for detection in detections {
        faces.push(describe(stack, picture, detection, settings, Asked::Everything)?);
    }
    if let Some(face) = faces.first_mut().filter(|_| alone) {
        face.turned_by = turned_by(stack, picture, face)?;
    }
    Ok(faces)
}

/// By how many degrees the picture is to be turned, where the face would be good enough otherwise.
fn turned_by(stack: &mut Stack, picture: &Picture, face: &StillFace) -> Result<Option<u16>, PipelineError> {
    if !face.quality.as_ref().is_some_and(Quality::is_usable) {
        return Ok(None);
    }
    Ok(answer(stance(&mut stack.detector, picture, &face.detection))?.and_then(|stance| stance.turned_by()))
}

/// The face that a photo is about (see `subject`), if there is any.
pub fn look_at_subject(
    stack: &mut Stack,
    picture: &Picture,
    settings: &quality::Settings,
    asked: Asked,
) -> Result<Option<StillFace>, PipelineError> {
    find_subject(&mut stack.detector, picture)?.map(|detection| describe(stack, picture, detection, settings, asked)).transpose()
}

/// Where the face is that a photo is about, if there is any.
pub fn find_subject(detector: &mut Detector, picture: &Picture) -> Result<Option<Detection>, PipelineError> {
    Ok(subject(detector.detect(picture)?, picture))
}

/// The embedding of a face that was found before, whatever its quality; `None` when it cannot be aligned or the network says nothing.
pub fn embed_found(embedder: &mut Embedder, picture: &Picture, found: &Detection) -> Result<Option<Embedding>, PipelineError> {
    match align(picture, &found.landmarks, embedder.template(), embedder.side()) {
        Some(face) => answer(embedder.embed(&face)),
        None => Ok(None),
    }
}

/// Of several faces the one that the photo is about: the largest side less the distance to the picture's middle, in pixels. Sets of
/// portraits, Labeled Faces in the Wild among them, put their person there, and a passer-by may be as large.
fn subject(detections: Vec<Detection>, picture: &Picture) -> Option<Detection> {
    let (middle_x, middle_y) = (picture.width() as f32 / 2.0, picture.height() as f32 / 2.0);
    let claim = |detection: &Detection| {
        let face = &detection.bounding_box;
        let center = face.center();
        face.width.max(face.height) - (center.x - middle_x).hypot(center.y - middle_y)
    };
    detections.into_iter().max_by(|a, b| claim(a).total_cmp(&claim(b)))
}

/// Why a photo is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoReference {
    /// Nobody is on it.
    #[error("no face found")]
    NoFace,
    /// It is not guessed who is meant.
    #[error("{0} faces: a reference photo shows one person")]
    Several(usize),
    /// The points are no face.
    #[error("the points found are no face")]
    NoPoints,
    /// Not good enough.
    #[error("the face is refused: {}", .0.as_str())]
    Refused(Refusal),
    /// The face stands on its head, or lies on its side.
    #[error("the picture is turned: turn it by {0} degrees, so that the head is up")]
    Turned(u16),
    /// The network gives no embedding.
    #[error("the network says nothing about this face")]
    NoAnswer,
}

impl NoReference {
    /// The word that scripts go by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoFace => "no-face",
            Self::Several(_) => "several-faces",
            Self::NoPoints | Self::NoAnswer => "no-usable-face",
            Self::Refused(refusal) => refusal.as_str(),
            Self::Turned(_) => Refusal::NotUpright.as_str(),
        }
    }
}

/// The embedding of a photo's only face, if it is good enough to be a reference.
pub fn reference(faces: Vec<StillFace>) -> Result<Embedding, NoReference> {
    if faces.len() > 1 {
        return Err(NoReference::Several(faces.len()));
    }
    let face = faces.into_iter().next().ok_or(NoReference::NoFace)?;
    let quality = face.quality.ok_or(NoReference::NoPoints)?;
    if let Some(refusal) = quality.refusals.first() {
        return Err(NoReference::Refused(*refusal));
    }
    if let Some(degrees) = face.turned_by {
        return Err(NoReference::Turned(degrees));
    }
    face.embedding.ok_or(NoReference::NoAnswer)
}

/// What is said of one face of one photo. It is no decision: nothing here opens a door.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The best candidate, when it reaches the threshold.
    pub identity: Option<PersonId>,
    /// The best candidate's comparison score.
    pub score: Option<Score>,
    /// Whether a living face is there; `None` where nothing says so.
    pub live: Option<bool>,
    /// As a decision's or an attempt's reason is written.
    pub reason: &'static str,
}

impl Verdict {
    /// Whether it is a match and nothing speaks against it.
    pub fn is_verified(&self) -> bool {
        self.reason == Reason::Match.as_str()
    }
}

/// The rules of the door for one photo, but for what needs several frames.
pub fn judge(face: &StillFace, snapshot: &Snapshot, thresholds: &PackThresholds) -> Verdict {
    let live = face.liveness.map(|score| score >= thresholds.liveness);
    let candidates = face.embedding.as_ref().and_then(|probe| snapshot.search(probe, 2).ok()).unwrap_or_default();
    let best = candidates.first();
    // Faces that stand on their heads are like each other, whoever they are.
    let is_upright = face.turned_by.is_none();
    let matched = best.filter(|candidate| candidate.score >= thresholds.matching && is_upright);
    let rival = candidates.get(1).map_or(f32::NEG_INFINITY, |candidate| candidate.score.value());
    let reason = match (matched, live) {
        (None, _) if !is_upright => Refusal::NotUpright.as_str(),
        (None, _) => {
            let refusal = face.quality.as_ref().and_then(|quality| quality.refusals.first());
            refusal.map_or(Reason::Unknown.as_str(), |refusal| refusal.as_str())
        }
        (Some(best), _) if best.score.value() - rival < thresholds.margin => Reason::Ambiguous.as_str(),
        (Some(_), Some(false)) => Reason::Spoof.as_str(),
        (Some(_), _) => Reason::Match.as_str(),
    };
    Verdict { identity: matched.map(|c| c.person.clone()), score: best.map(|c| c.score), live, reason }
}

fn describe(
    stack: &mut Stack,
    picture: &Picture,
    detection: Detection,
    settings: &quality::Settings,
    asked: Asked,
) -> Result<StillFace, PipelineError> {
    let liveness = match &mut stack.liveness {
        Some(network) if asked != Asked::Embedding => answer(network.score(picture, &detection.bounding_box))?,
        _ => None,
    };
    let face = match asked {
        Asked::Liveness => None,
        _ => align(picture, &detection.landmarks, stack.embedder.template(), stack.embedder.side()),
    };
    let (quality, embedding) = match face {
        Some(face) => (Some(assess(picture, &detection, &face, settings)), answer(stack.embedder.embed(&face))?),
        None => (None, None),
    };
    Ok(StillFace { detection, quality, turned_by: None, liveness, embedding })
}

/// A face that the networks can say nothing about is no failure of the photo.
fn answer<T>(result: Result<T, VisionError>) -> Result<Option<T>, PipelineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(VisionError::UnusableBox | VisionError::NoAnswer { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BoundingBox, Landmarks};

    #[test]
    fn the_subject_is_the_large_face_near_the_middle() {
        let picture = Picture::from_rgb(250, 250, vec![0; 250 * 250 * 3]).unwrap();
        let face = |x: f32, y: f32, side: f32| Detection {
            bounding_box: BoundingBox { x, y, width: side, height: side },
            landmarks: Landmarks::default(),
            confidence: 0.9,
        };
        let found = |faces: Vec<Detection>| subject(faces, &picture).map(|d| d.bounding_box.width);
        assert_eq!(found(vec![]), None);
        // A larger passer-by at the edge, and a small face in the very middle.
        assert_eq!(found(vec![face(-20.0, 60.0, 110.0), face(75.0, 75.0, 100.0), face(120.0, 120.0, 10.0)]), Some(100.0));
    }
}
