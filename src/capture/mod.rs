//! Cameras and photos in. [`run`] keeps one camera going for ever and puts its frames into a one-deep [`Slot`]; [`still::read_picture`]
//! reads a photo; [`MotionGate`] says whether a frame is worth a look.
//!
//! Invariants: a frame stays in the layout its decoder gave and is not copied; a slow reader never holds up a camera (the newest frame
//! wins and the replaced ones are counted), except for a file that is asked for without loss; no password reaches an event, an error,
//! a log line or a `Debug`. Everything that names GStreamer stands in `pipelines`, `rtsp`, `rtsp_bounds`, `rtsp_trust`, `mapped`, `reasons`,
//! `recode`, `whole` and `stream`, behind the feature `gstreamer`; without it only `images` works. This room spawns no thread of its own but those of a guard, which
//! stands between us and an RTSP camera that nobody vouches for: the caller gives [`run`] one.

mod event;
#[cfg(all(feature = "gstreamer", any(test, feature = "fuzzing")))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
mod images;
#[cfg(feature = "gstreamer")]
mod light;
mod luma;
#[cfg(feature = "gstreamer")]
mod mapped;
pub mod motion;
#[cfg(feature = "gstreamer")]
mod pace;
pub mod pipelines;
mod raster;
#[cfg(feature = "gstreamer")]
mod reasons;
#[cfg(feature = "gstreamer")]
mod recode;
pub mod redact;
#[cfg(feature = "gstreamer")]
mod rtsp;
#[cfg(feature = "gstreamer")]
mod rtsp_bounds;
#[cfg(feature = "gstreamer")]
mod rtsp_guard;
#[cfg(feature = "gstreamer")]
mod rtsp_trust;
pub mod settings;
pub mod slot;
pub mod still;
#[cfg(feature = "gstreamer")]
mod stream;
#[cfg(feature = "gstreamer")]
mod whole;

use std::path::Path;

use thiserror::Error;

use crate::system::Stop;
use crate::system::secret::SecretError;
use crate::types::{CameraId, Frame};

pub use event::{CameraEvent, CameraState};
pub use motion::{MotionGate, MotionSettings};
pub use pipelines::{Description, describe};
#[cfg(feature = "gstreamer")]
pub use recode::recode;
pub use settings::{CameraSettings, Hardware, Source, Transport};
pub use slot::{Slot, SlotCounts, Slots, Taken};
pub use still::{StillError, read_picture};

/// Why a camera cannot work, where trying again alone would not mend it. What may mend itself (a refused connection, a lost stream) is
/// no error but a [`CameraEvent`] and another try.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The source needs GStreamer and this build has none.
    #[error(
        "camera {camera}: this build has no GStreamer, so only `images` sources work: use a build with the feature `gstreamer`"
    )]
    NoGstreamer {
        /// Which camera.
        camera: CameraId,
    },
    /// GStreamer's library is there but does not start.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// A plugin is not installed.
    #[error("GStreamer has no element `{element}`: install {package}")]
    MissingElement {
        /// The element that was asked for.
        element: &'static str,
        /// The Debian package (or board support) that brings it.
        package: &'static str,
    },
    /// The source as configured can never work.
    #[error("camera {camera}: {reason}")]
    BadSource {
        /// Which camera.
        camera: CameraId,
        /// What is wrong and the way out.
        reason: String,
    },
    /// The password cannot be read.
    #[error("camera {camera}: {source}")]
    Secret {
        /// Which camera.
        camera: CameraId,
        /// Why.
        source: SecretError,
    },
    /// A file or folder that is played once could not be played.
    #[error("camera {camera}: {reason}")]
    Unplayable {
        /// Which camera.
        camera: CameraId,
        /// What GStreamer or the decoder said, in words.
        reason: String,
    },
}

/// Runs one camera until `stop` is asked for or, for a source that is played once, until it ends: `Ok` in both cases, and the slot is
/// closed then. Changes of state are told through `events`, each once. The secret named in the source is looked up as a systemd
/// credential and then in `secrets`. An error has been told as `offline` too; the slot of a source that is played once is closed then,
/// any other stays open because the caller may try again (a new run opens it in any case).
pub fn run(
    settings: &CameraSettings,
    secrets: &Path,
    slot: &Slot<Frame>,
    events: &dyn Fn(CameraEvent),
    stop: &Stop,
) -> Result<(), CaptureError> {
    slot.reopen();
    let mut teller = event::Teller::new(settings.id.clone(), events);
    let outcome = match &settings.source {
        Source::Images(source) => images::run(&settings.id, source, slot, &mut teller, stop),
        _ => run_stream(settings, secrets, slot, &mut teller, stop),
    };
    if let Err(error) = &outcome {
        teller.tell(CameraState::Offline, &error.to_string());
    }
    if outcome.is_ok() || settings.source.is_played_once() {
        slot.close();
    }
    outcome
}

#[cfg(feature = "gstreamer")]
use stream::run as run_stream;

#[cfg(not(feature = "gstreamer"))]
fn run_stream(
    settings: &CameraSettings,
    _secrets: &Path,
    _slot: &Slot<Frame>,
    _teller: &mut event::Teller<'_>,
    _stop: &Stop,
) -> Result<(), CaptureError> {
    Err(CaptureError::NoGstreamer { camera: settings.id.clone() })
}
