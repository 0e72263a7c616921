//! Enrolment at a camera by command: between its frames vision gathers the faces of one person ([`crate::pipeline::Session`]). The camera
//! decides nothing meanwhile. Who commanded it writes, by the rule of every enrolment; a session that has run out of time, saw attacks or
//! somebody else step in, enrols nobody.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde::Deserialize;

use crate::pipeline::{Pipeline, Session, Terms};
use crate::types::{CameraId, Embedding, Frame, GroupId, Monotonic, PersonId};

/// How many pictures make an enrolment.
pub(super) const SHOTS: usize = 5;
/// How long a command may want it to last, in seconds.
pub(super) const SECONDS: std::ops::RangeInclusive<u64> = 3..=60;

/// What `cmd/enroll` wants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrollArgs {
    pub(super) person: PersonId,
    pub(super) camera: CameraId,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) groups: Vec<GroupId>,
    /// How long the person may take.
    #[serde(default = "seconds")]
    pub(super) seconds: u64,
    /// Enrol even when the face resembles somebody who is enrolled.
    #[serde(default)]
    pub(super) allow_duplicate: bool,
    /// Enrol even when the face is unlike the one that is enrolled under this id.
    #[serde(default)]
    pub(super) allow_other_face: bool,
}

fn seconds() -> u64 {
    20
}

/// Why nobody was enrolled: a word for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Refused {
    /// The daemon ends.
    pub(super) fn stopping() -> Self {
        Self { code: "stopping", text: "the daemon is stopping".to_owned() }
    }
}

/// The faces of one person, or why there are none.
pub(super) type Outcome = Result<Vec<Embedding>, Refused>;

/// An enrolment that is asked for.
pub(super) struct Wanted {
    pub(super) camera: CameraId,
    pub(super) until: Monotonic,
    /// Holds one answer and never blocks.
    pub(super) answer: SyncSender<Outcome>,
}

/// The end that commands write to: one enrolment at a time.
#[derive(Clone)]
pub(super) struct Enroller(SyncSender<Wanted>);

impl Enroller {
    /// Begins an enrolment; its outcome comes through what this gives.
    pub(super) fn begin(&self, camera: CameraId, until: Monotonic) -> Result<Receiver<Outcome>, String> {
        let (answer, outcome) = sync_channel(1);
        self.0.try_send(Wanted { camera, until, answer }).map_err(|error| match error {
            TrySendError::Full(_) => "somebody is being enrolled: wait".to_owned(),
            TrySendError::Disconnected(_) => "the daemon is stopping".to_owned(),
        })?;
        Ok(outcome)
    }
}

/// Vision's end.
pub(super) struct Enrolments {
    wanted: Receiver<Wanted>,
    under_way: Option<(Wanted, Session)>,
    terms: Terms,
}

/// Both ends.
pub(super) fn queue(terms: Terms) -> (Enroller, Enrolments) {
    let (sender, wanted) = sync_channel(1);
    (Enroller(sender), Enrolments { wanted, under_way: None, terms })
}

impl Enrolments {
    /// Takes up what is wanted and ends what has run out of time.
    pub(super) fn look_after(&mut self, now: Monotonic) {
        if let Some((wanted, session)) = self.under_way.take_if(|(wanted, _)| now >= wanted.until) {
            end(&wanted, session);
        }
        if self.under_way.is_none()
            && let Ok(wanted) = self.wanted.try_recv()
        {
            log::info!(camera = wanted.camera.as_str(); "enrolment started: door decisions from this camera are paused");
            self.under_way = Some((wanted, Session::new(self.terms)));
        }
    }

    /// Whether the frame was looked at for an enrolment.
    pub(super) fn take(&mut self, pipeline: &mut Pipeline, frame: &Frame) -> bool {
        let Some((_, session)) = self.under_way.as_mut().filter(|(wanted, _)| wanted.camera == frame.camera) else { return false };
        let at = frame.captured_at.monotonic;
        if !session.is_due(at) {
            return true;
        }
        match pipeline.look_at_still(&frame.picture) {
            Ok(faces) => {
                session.see(at, faces);
            }
            Err(error) => log::warn!("a frame of an enrolment could not be judged: {error}"),
        }
        if let Some((wanted, session)) = self.under_way.take_if(|(_, session)| session.is_over()) {
            end(&wanted, session);
        }
        true
    }
}

fn end(wanted: &Wanted, session: Session) {
    let outcome = session.end().map_err(|why| Refused { code: why.code(), text: format!("camera `{}`: {why}", wanted.camera) });
    // Who asked may have been stopped meanwhile.
    let _ = wanted.answer.try_send(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Score;

    #[test]
    fn one_enrolment_at_a_time_and_none_beyond_its_time() {
        let terms = Terms { matching: Score::new(0.5).unwrap(), liveness: None, least_width: 48, wanted: SHOTS, is_whole: false };
        let (enroller, mut enrolments) = queue(terms);
        let camera = CameraId::new("cam").unwrap();
        let first = enroller.begin(camera.clone(), Monotonic(100)).unwrap();
        assert!(enroller.begin(camera.clone(), Monotonic(100)).is_err_and(|why| why.contains("wait")));
        enrolments.look_after(Monotonic(1));
        let second = enroller.begin(camera, Monotonic(200)).unwrap();
        enrolments.look_after(Monotonic(99));
        assert!(first.try_recv().is_err());
        enrolments.look_after(Monotonic(100));
        assert!(first.try_recv().unwrap().is_err_and(|why| why.code == "no-frame" && why.text.contains("no frame")));
        drop(enrolments);
        assert!(second.recv().is_err());
    }
}
