//! What a camera tells about itself.

use crate::types::CameraId;

/// How a camera is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CameraState {
    /// Frames come and show something.
    Online,
    /// There is no connection; it is being tried again.
    Offline,
    /// There is a connection and no frame comes; it is being tried again.
    Stalled,
    /// Frames come but show nothing: no light, or the lens is covered.
    Dark,
    /// A source that is played once has ended.
    Ended,
}

impl CameraState {
    /// The word of the published contract.
    pub fn as_str(self) -> &'static str {
        match self {
            CameraState::Online => "online",
            CameraState::Offline => "offline",
            CameraState::Stalled => "stalled",
            CameraState::Dark => "dark",
            CameraState::Ended => "ended",
        }
    }
}

/// A camera's state has changed, or the reason for it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraEvent {
    /// Which camera.
    pub camera: CameraId,
    /// How it is doing now.
    pub state: CameraState,
    /// Why, in words for a person; may be empty for `online`. No secret is in it.
    pub reason: String,
}

/// Tells changes once each, however often the same state is reported.
pub(super) struct Teller<'a> {
    camera: CameraId,
    events: &'a dyn Fn(CameraEvent),
    last: Option<(CameraState, String)>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(camera: CameraId, events: &'a dyn Fn(CameraEvent)) -> Self {
        Self { camera, events, last: None }
    }

    pub(super) fn tell(&mut self, state: CameraState, reason: &str) {
        // An online camera's reason (its size) may change without being news.
        let is_told = self.last.as_ref().is_some_and(|(was, why)| *was == state && (state == CameraState::Online || why == reason));
        if is_told {
            return;
        }
        log::info!("camera {}: {}{}{reason}", self.camera, state.as_str(), if reason.is_empty() { "" } else { ": " });
        self.last = Some((state, reason.to_owned()));
        (self.events)(CameraEvent { camera: self.camera.clone(), state, reason: reason.to_owned() });
    }

    /// The state that was told last.
    #[cfg(feature = "gstreamer")]
    pub(super) fn state(&self) -> Option<CameraState> {
        self.last.as_ref().map(|(state, _)| *state)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_same_state_and_reason_are_told_once() {
        let told = RefCell::new(Vec::new());
        let record = |event: CameraEvent| told.borrow_mut().push((event.state, event.reason));
        let mut teller = Teller::new(CameraId::new("front").unwrap(), &record);
        for (state, reason) in [
            (CameraState::Offline, "refused"),
            (CameraState::Offline, "refused"),
            (CameraState::Offline, "not found"),
            (CameraState::Online, "640x480"),
            (CameraState::Online, "320x240"),
        ] {
            teller.tell(state, reason);
        }
        assert_eq!(told.borrow().len(), 3);
    }
}
