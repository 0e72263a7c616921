//! The best faces of a clip or of a camera, for enrolment: frames with exactly one face that pass the quality gate, spread over time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Result};
use crate::capture::settings::FileSource;
use crate::capture::{self, CameraSettings, CameraState, Slot, Source, Taken};
use crate::pipeline::{self, StillFace};
use crate::system::{clock, stop};
use crate::types::{CameraId, Embedding, Frame, Monotonic, Refusal};
use crate::vision::quality;
use crate::vision::stack::Stack;

/// Frames closer together than this show the same face again.
const SPACING: Duration = Duration::from_millis(200);

/// What a clip or a camera gave.
pub(super) struct Shots {
    pub(super) embeddings: Vec<Embedding>,
    /// Frames looked at.
    pub(super) looked: u32,
    /// Frames with more than one face: never guessed from.
    pub(super) crowded: u32,
    /// The refusal met most often.
    pub(super) refusal: Option<Refusal>,
}

/// Whether a file is a clip by its name; everything else is taken for a photo.
pub(super) fn is_clip(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("mp4" | "mkv" | "webm" | "mov" | "avi" | "h264" | "ts"))
}

/// A clip file as a camera that is read without pace and without loss.
pub(super) fn clip_camera(path: &Path) -> Result<CameraSettings> {
    let id = CameraId::new("clip").map_err(|error| Failure::new(super::code::BUG, error))?;
    Ok(file_camera(id, path, false, false))
}

/// A file as a camera.
pub(super) fn file_camera(id: CameraId, path: &Path, repeat: bool, paced: bool) -> CameraSettings {
    CameraSettings::new(id, Source::File(FileSource { path: path.to_owned(), repeat, paced }))
}

/// Takes up to `most` best faces. `told` hears how it goes, for a person before a camera.
pub(super) fn collect(
    camera: CameraSettings,
    secrets: &Path,
    stack: &mut Stack,
    gate: &quality::Settings,
    (most, limit): (usize, Duration),
    mut told: impl FnMut(usize, &str),
) -> Result<Shots> {
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
    let mut shots = Shots { embeddings: Vec::new(), looked: 0, crowded: 0, refusal: None };
    let mut kept: Vec<(f32, Embedding)> = Vec::new();
    let mut last = None;
    let deadline = clock::monotonic().plus(limit);
    let result = loop {
        if clock::monotonic() >= deadline || (limit < Duration::from_secs(600) && kept.len() >= most) {
            break Ok(());
        }
        let frame = match frames.take_any(Duration::from_millis(500)) {
            Taken::Item(_, frame) => frame,
            Taken::Closed => break Ok(()),
            Taken::TimedOut => continue,
        };
        if !is_spaced(last, &frame) {
            continue;
        }
        shots.looked += 1;
        match pipeline::look(stack, &frame.picture, gate) {
            Ok(faces) => {
                if let Some(shot) = judge(faces, &mut shots, &mut told, kept.len()) {
                    last = Some(frame.captured_at.monotonic);
                    kept.push(shot);
                    told(kept.len(), "taken");
                }
            }
            Err(error) => break Err(Failure::unavailable(error)),
        }
    };
    handle.stop();
    slot.close();
    let _ = worker.join();
    result?;
    if shots.looked == 0 {
        let reason = state.lock().map(|s| s.1.clone()).unwrap_or_default();
        return Err(Failure::unavailable(format!("no frame came: {reason}")));
    }
    kept.sort_by(|a, b| b.0.total_cmp(&a.0));
    shots.embeddings = kept.into_iter().take(most).map(|(_, embedding)| embedding).collect();
    Ok(shots)
}

fn is_spaced(last: Option<Monotonic>, frame: &Frame) -> bool {
    last.is_none_or(|last| frame.captured_at.monotonic.since(last) >= SPACING)
}

/// One frame's face, if it has exactly one and that passes the gate.
fn judge(faces: Vec<StillFace>, shots: &mut Shots, told: &mut impl FnMut(usize, &str), count: usize) -> Option<(f32, Embedding)> {
    if faces.len() > 1 {
        shots.crowded += 1;
        told(count, "two faces");
        return None;
    }
    let face = faces.into_iter().next()?;
    let quality = face.quality?;
    if let Some(refusal) = quality.refusals.first() {
        shots.refusal = Some(*refusal);
        told(count, refusal.as_str());
        return None;
    }
    Some((quality.score, face.embedding?))
}
