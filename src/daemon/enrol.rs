//! Enrolment at a camera by command: between its frames vision gathers the faces of one person, with the gate of every enrolment (one
//! face, good enough) and, besides, alive and one person's. The camera decides nothing meanwhile. Who commanded it checks for duplicates
//! and writes; a session that has run out of time, or saw attacks, enrols nobody.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::Deserialize;

use crate::pipeline::{Pipeline, StillFace};
use crate::types::{CameraId, Embedding, Frame, GroupId, Monotonic, PadScore, PersonId, Refusal, Score};

/// How many pictures make an enrolment.
pub(super) const SHOTS: usize = 5;
/// Frames closer together than this show the same face again.
const SPACING: Duration = Duration::from_millis(200);
/// So many faces that are taken for pictures end it: nobody enrols a photo by patience.
const MOST_ATTACKS: u32 = 3;
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
}

fn seconds() -> u64 {
    20
}

/// The faces of one person, or why there are none.
pub(super) type Outcome = Result<Vec<Embedding>, String>;

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
    session: Option<Session>,
    /// A face below it is an attack; none where the config asks for no liveness.
    liveness: Option<PadScore>,
    matching: Score,
}

/// Both ends.
pub(super) fn queue(liveness: Option<PadScore>, matching: Score) -> (Enroller, Enrolments) {
    let (sender, wanted) = sync_channel(1);
    (Enroller(sender), Enrolments { wanted, session: None, liveness, matching })
}

struct Session {
    wanted: Wanted,
    kept: Vec<Embedding>,
    last: Option<Monotonic>,
    looked: u32,
    crowded: u32,
    attacks: u32,
    refusals: BTreeMap<Refusal, u32>,
}

impl Enrolments {
    /// Takes up what is wanted and ends what has run out of time.
    pub(super) fn look_after(&mut self, now: Monotonic) {
        if let Some(session) = self.session.take_if(|session| now >= session.wanted.until) {
            let why = session.why();
            session.end(Err(why));
        }
        if self.session.is_none()
            && let Ok(wanted) = self.wanted.try_recv()
        {
            log::info!(camera = wanted.camera.as_str(); "an enrolment begins: the camera decides nothing meanwhile");
            self.session = Some(Session::new(wanted));
        }
    }

    /// Whether the frame was looked at for an enrolment.
    pub(super) fn take(&mut self, pipeline: &mut Pipeline, frame: &Frame) -> bool {
        let Some(session) = self.session.as_mut().filter(|session| session.wanted.camera == frame.camera) else { return false };
        let at = frame.captured_at.monotonic;
        if session.last.is_some_and(|last| at.since(last) < SPACING) {
            return true;
        }
        session.last = Some(at);
        match pipeline.look_at_still(&frame.picture) {
            Ok(faces) => session.see(faces, self.liveness, self.matching),
            Err(error) => log::warn!("a frame of an enrolment could not be judged: {error}"),
        }
        let is_over = session.kept.len() >= SHOTS || session.attacks >= MOST_ATTACKS;
        if let Some(mut session) = self.session.take_if(|_| is_over) {
            let outcome = match session.attacks >= MOST_ATTACKS {
                true => Err(session.why()),
                false => Ok(std::mem::take(&mut session.kept)),
            };
            session.end(outcome);
        }
        true
    }
}

impl Session {
    fn new(wanted: Wanted) -> Self {
        Self { wanted, kept: Vec::new(), last: None, looked: 0, crowded: 0, attacks: 0, refusals: BTreeMap::new() }
    }

    fn see(&mut self, faces: Vec<StillFace>, liveness: Option<PadScore>, matching: Score) {
        self.looked += 1;
        if faces.len() > 1 {
            self.crowded += 1;
            return;
        }
        let Some(StillFace { quality: Some(quality), embedding: Some(embedding), liveness: score, .. }) = faces.into_iter().next()
        else {
            return;
        };
        if let Some(refusal) = quality.refusals.first() {
            *self.refusals.entry(*refusal).or_default() += 1;
            return;
        }
        // A face of which no score says that it lives is as little a reference as one that a score speaks against.
        if liveness.is_some_and(|least| score.is_none_or(|score| score < least)) {
            self.attacks += 1;
            return;
        }
        // Somebody else has stepped in: begin with the newer one, so that no two people share an enrolment.
        let is_same = |kept: &Embedding| kept.compare(&embedding).is_some_and(|score| score >= matching);
        if !self.kept.iter().all(is_same) {
            self.kept.clear();
        }
        self.kept.push(embedding);
    }

    fn why(&self) -> String {
        let refusal = self.refusals.iter().max_by_key(|(_, count)| **count).map(|(refusal, _)| refusal.as_str());
        match refusal {
            _ if self.attacks > 0 => "the face was taken for a picture of one".to_owned(),
            _ if self.looked == 0 => format!("camera `{}` gave no frame in time", self.wanted.camera),
            _ if !self.kept.is_empty() => format!("only {} of {SHOTS} pictures of one person in time", self.kept.len()),
            Some(refusal) => format!("no usable face in {} frames, mostly {refusal}", self.looked),
            None if self.crowded > 0 => format!("{} of {} frames show more than one face", self.crowded, self.looked),
            None => format!("no face in {} frames", self.looked),
        }
    }

    fn end(self, outcome: Outcome) {
        // Who asked may have been stopped meanwhile.
        let _ = self.wanted.answer.try_send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BoundingBox, Detection, Landmarks, ModelId};
    use crate::vision::Quality;

    fn wanted(until: u64) -> (Session, Receiver<Outcome>) {
        let (answer, outcome) = sync_channel(1);
        (Session::new(Wanted { camera: CameraId::new("cam").unwrap(), until: Monotonic(until), answer }), outcome)
    }

    fn face(who: usize, liveness: f32, refusals: Vec<Refusal>) -> StillFace {
        let mut values = vec![0.0; 8];
        values[who] = 1.0;
        let quality = Quality {
            score: 0.8,
            refusals,
            eye_distance: 60.0,
            sharpness: 50.0,
            luma: 120.0,
            pose: Default::default(),
            outside_share: 0.0,
        };
        StillFace {
            detection: Detection { bounding_box: BoundingBox::default(), landmarks: Landmarks::default(), confidence: 0.9 },
            quality: Some(quality),
            liveness: Some(PadScore::new(liveness).unwrap()),
            embedding: Embedding::normalised(ModelId::new("m").unwrap(), values),
        }
    }

    fn see(session: &mut Session, faces: Vec<StillFace>) {
        session.see(faces, Some(PadScore::new(0.5).unwrap()), Score::new(0.5).unwrap());
    }

    #[test]
    fn crowds_bad_faces_pictures_and_faces_without_a_liveness_score_are_no_references() {
        let (mut session, _outcome) = wanted(0);
        see(&mut session, vec![face(0, 0.9, vec![]), face(1, 0.9, vec![])]);
        see(&mut session, vec![face(0, 0.9, vec![Refusal::TooDark])]);
        assert!(session.why().contains("too-dark"), "{}", session.why());
        see(&mut session, vec![face(0, 0.2, vec![])]);
        see(&mut session, vec![StillFace { liveness: None, ..face(0, 0.9, vec![]) }]);
        see(&mut session, vec![]);
        assert_eq!((session.kept.len(), session.crowded, session.attacks, session.looked), (0, 1, 2, 5));
        assert!(session.why().contains("picture"), "{}", session.why());
    }

    #[test]
    fn somebody_who_steps_in_is_never_mixed_with_whoever_stood_there() {
        let (mut session, _outcome) = wanted(0);
        (0..3).for_each(|_| see(&mut session, vec![face(0, 0.9, vec![])]));
        see(&mut session, vec![face(1, 0.9, vec![])]);
        assert_eq!(session.kept.len(), 1);
        assert!(session.why().contains("only 1 of 5"), "{}", session.why());
    }

    #[test]
    fn one_enrolment_at_a_time_and_none_beyond_its_time() {
        let (enroller, mut enrolments) = queue(None, Score::new(0.5).unwrap());
        let camera = CameraId::new("cam").unwrap();
        let first = enroller.begin(camera.clone(), Monotonic(100)).unwrap();
        assert!(enroller.begin(camera.clone(), Monotonic(100)).is_err_and(|why| why.contains("wait")));
        enrolments.look_after(Monotonic(1));
        let second = enroller.begin(camera, Monotonic(200)).unwrap();
        enrolments.look_after(Monotonic(99));
        assert!(first.try_recv().is_err());
        enrolments.look_after(Monotonic(100));
        assert!(first.try_recv().unwrap().is_err_and(|why| why.contains("no frame")));
        drop(enrolments);
        assert!(second.recv().is_err());
    }
}
