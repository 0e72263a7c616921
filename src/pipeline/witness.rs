//! Cameras that only say whether another camera's faces are there: infrared, by finding them; depth, by their relief. They look while an
//! undecided face stands before the door's own camera, and cost nothing otherwise.

use super::{Pipeline, PipelineError, Seen, Stage, Stages, View};
use crate::types::{CameraId, Frame, Place, Sighting, WitnessKind};
use crate::vision::depth;

/// A camera that must agree with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Which camera.
    pub camera: CameraId,
    /// What it is.
    pub kind: WitnessKind,
    /// The cameras whose faces it looks for.
    pub partners: Vec<CameraId>,
}

impl<S: Stages> Pipeline<S> {
    /// One frame of camera `witness`.
    pub(super) fn testify(&mut self, witness: usize, frame: &Frame) -> Result<Seen, PipelineError> {
        let Witness { camera, kind, partners } = &self.witnesses[witness];
        let views: Vec<&View> = partners.iter().filter_map(|partner| self.views.get(partner)).collect();
        if !views.iter().any(|view| view.has_undecided()) {
            return Ok(Seen::default());
        }
        let picture = &frame.picture;
        let faces = match kind {
            WitnessKind::Infrared => {
                let found = self.timings.time(Stage::Detect, || self.stack.detect(picture, None))?;
                found.iter().map(|face| Place::of(&face.bounding_box, picture.width(), picture.height())).collect()
            }
            WitnessKind::Depth => {
                let open = views.iter().flat_map(|view| view.visits.values().filter(|visit| visit.is_open()));
                // Where each face was when this frame was taken, which may be a while ago.
                let then = frame.captured_at.monotonic;
                let places: Vec<Place> = open.filter_map(|visit| visit.place_at(then)).collect();
                if places.is_empty() {
                    return Ok(Seen { looked: true, ..Seen::default() });
                }
                places.into_iter().filter(|place| depth::is_solid(picture, place)).collect()
            }
        };
        let sighting = Sighting { camera: camera.clone(), captured_at: frame.captured_at, faces };
        Ok(Seen { looked: true, sighting: Some(sighting), ..Seen::default() })
    }
}
