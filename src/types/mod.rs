//! Values that cross a room's boundary, and the invariants they keep. Nothing here does I/O, reads a clock or names an outside
//! system; every other room may import this one, and this one imports none.

pub mod decision;
#[cfg(any(test, feature = "fuzzing"))]
pub mod drawn;
pub mod embedding;
pub mod face;
pub mod frame;
pub mod id;
pub mod person;
pub mod score;
pub mod time;
pub mod visits;
pub mod witness;

pub use decision::{
    Attempt, Decision, Evidence, FaceSample, Factor, Mark, Observation, Outcome, PolicyVersion, Presence, Reason, Refusal,
};
pub use embedding::{Embedding, Probe};
pub use face::{AlignedFace, BoundingBox, Detection, Landmarks, Place, Point};
pub use frame::{Colorimetry, Frame, Layout, Picture, PlaneSource};
pub use id::{AreaId, CameraId, DeviceId, DoorId, GroupId, InvalidId, ModelId, PersonId, PolicyId, ScheduleId, TrackId};
pub use person::{Candidate, Person, Profile};
pub use score::{OutOfRange, PadScore, Score};
pub use time::{Moment, Monotonic, Wall};
pub use visits::{Reach, VisitRow, VisitTable};
pub use witness::{Prompt, Side, Sighting, Trajectory, WitnessKind};
