//! The faces of a clip or of a camera, for enrolment, gathered as the daemon gathers them ([`Session`]): one person's, alone in view,
//! good enough, upright and alive, spread over time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Result};
use crate::capture::settings::FileSource;
use crate::capture::{self, CameraSettings, CameraState, Slot, Source, Taken};
use crate::pipeline::{self, Session, Step, Terms, Unfinished};
use crate::system::{clock, stop};
use crate::types::{CameraId, Embedding};
use crate::vision::quality;
use crate::vision::stack::Stack;

/// Whether a file is a clip by its name; everything else is taken for a photo.
pub(super) fn is_clip(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    matches!(
        extension.as_deref(),
        Some(
            "mp4"
                | "m4v"
                | "mkv"
                | "webm"
                | "mov"
                | "avi"
                | "3gp"
                | "mpg"
                | "mpeg"
                | "flv"
                | "wmv"
                | "ts"
                | "mts"
                | "m2ts"
                | "264"
                | "h264"
                | "265"
                | "h265"
                | "hevc"
        )
    )
}

/// A clip file as a camera that is read without pace and without loss.
pub(super) fn clip_camera(path: &Path) -> Result<CameraSettings> {
    let id = CameraId::new("clip").map_err(|error| Failure::new(super::code::BUG, error))?;
    Ok(file_camera(id, path, false, false))
}

/// How long a file may take to its next frame before it is told to be damaged: a busy machine is slow to begin, and a file never comes back
/// better for trying again soon.
const PATIENCE_MS: u32 = 30_000;

/// A file as a camera.
pub(super) fn file_camera(id: CameraId, path: &Path, repeat: bool, paced: bool) -> CameraSettings {
    let source = Source::File(FileSource { path: path.to_owned(), repeat, paced });
    CameraSettings { stall_timeout_ms: PATIENCE_MS, ..CameraSettings::new(id, source) }
}

/// Why a photo, a clip or a camera gave no face: a word for programs beside the failure.
pub(super) struct Unusable {
    pub(super) code: &'static str,
    pub(super) failure: Failure,
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self { code: "unreadable", failure }
    }
}

/// How a gathering goes, for a person before a camera.
pub(super) enum Progress<'a> {
    /// What one frame brought, and how many faces are kept.
    Seen(usize, Step),
    /// No frame comes, and why; it is tried further.
    Waits(&'a str),
}

/// Gathers what `terms` ask for within `limit`. `told` hears how it goes.
pub(super) fn collect(
    camera: CameraSettings,
    secrets: &Path,
    stack: &mut Stack,
    gate: &quality::Settings,
    (terms, limit): (Terms, Duration),
    mut told: impl FnMut(Progress<'_>),
) -> std::result::Result<Vec<Embedding>, Unusable> {
    let (slot, frames) = Slot::single();
    let (handle, stop) = stop::pair();
    let state = Arc::new(std::sync::Mutex::new((CameraState::Offline, String::new())));
    let worker = std::thread::spawn({
        let (slot, state, secrets) = (slot.clone(), state.clone(), secrets.to_owned());
        move || {
            let note = |event: capture::CameraEvent| {
                if let Ok(mut state) = state.lock() {
                    *state = (event.state, event.reason);
                }
            };
            let _ = capture::run(&camera, &secrets, &slot, &note, &stop);
            slot.close();
        }
    });
    let mut session = Session::new(terms);
    let deadline = clock::monotonic().plus(limit);
    let mut trouble = String::new();
    let result = loop {
        if clock::monotonic() >= deadline || session.is_over() {
            break Ok(());
        }
        let frame = match frames.take_any(Duration::from_millis(500)) {
            Taken::Item(_, frame) => frame,
            Taken::Closed => break Ok(()),
            Taken::TimedOut => {
                let now = state.lock().map(|state| state.clone()).unwrap_or((CameraState::Offline, String::new()));
                if now.0 != CameraState::Online && now.1 != trouble {
                    trouble = now.1;
                    told(Progress::Waits(&trouble));
                }
                continue;
            }
        };
        let at = frame.captured_at.monotonic;
        if !session.is_due(at) {
            continue;
        }
        match pipeline::look(stack, &frame.picture, gate) {
            Ok(faces) => {
                let step = session.see(at, faces);
                told(Progress::Seen(session.kept(), step));
            }
            Err(error) => break Err(Failure::unavailable(error)),
        }
    };
    handle.stop();
    slot.close();
    let _ = worker.join();
    result?;
    session.end().map_err(|why| {
        let failure = match why {
            Unfinished::NoFrame => {
                let reason = state.lock().map(|s| s.1.clone()).unwrap_or_default();
                Failure::unavailable(format!("no frame came: {reason}"))
            }
            _ => Failure::data(&why),
        };
        Unusable { code: why.code(), failure }
    })
}
