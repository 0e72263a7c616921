//! Vision → decider: what is told, and what becomes of it when the decider is behind.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde_json::Value;
use zeroize::Zeroizing;

use super::desk::DeskOrder;
use crate::access::{Command, CredentialRead, Passage};
use crate::pipeline::Continued;
use crate::types::{Attempt, BoundingBox, CameraId, Observation, Sighting, TrackId};

/// When full, what the next frame brings anew is dropped and counted; what no later frame brings waits ([`Reporter`]).
const REPORTS: usize = 64;

/// The most reports that wait, some for each track that a camera can have.
const MOST_OWED: usize = 1024;

/// What vision tells the decider.
pub(super) enum Report {
    /// With the face, while operators are allowed to see it.
    Observed(Observation, Option<Zeroizing<Vec<u8>>>),
    /// A track is over; where its face was last.
    Ended(CameraId, TrackId, BoundingBox),
    /// A track shows the face of a decided one that was out of sight.
    GoesOn(CameraId, Continued),
    /// How many faces stand there now.
    Standing(CameraId, u32),
    /// A track is over that nobody could be decided on.
    Missed(Attempt),
    /// A camera that must agree looked.
    Seen(Sighting),
    /// Somebody presented a card or a number.
    Presented(CredentialRead),
    /// A door's controller has told what became of a grant; the second in which it signed that.
    Passed(Passage, i64),
    /// A command is used that was signed in that second, and who waits until that is known.
    Used(i64, SyncSender<()>),
    /// The broker has been heard: how far it had been told that the memory had come, if it has kept that, and who waits until it is taken in.
    Vouched(Option<u64>, SyncSender<()>),
    /// Somebody wants to know whether the broker had been told anything before this start.
    HadTold(SyncSender<bool>),
    /// Somebody wants to tell the broker how far the memory has come.
    Tells(SyncSender<Option<u64>>),
    /// An operator's orders, and who waits to hear that they are in force and will outlive a restart.
    Ordered(Vec<Command>, SyncSender<Result<(), String>>),
    /// What an operator wants done at doors now, by the id of the key, and who waits to hear of it.
    Desk(DeskOrder, String, SyncSender<Result<Value, String>>),
}

/// The queues between the workers.
pub(super) struct Wires {
    pub(super) reports: SyncSender<Report>,
    pub(super) decided: SyncSender<(CameraId, TrackId)>,
}

/// The queues, and the ends that the workers read from.
pub(super) type Ends = (Wires, Receiver<Report>, Receiver<(CameraId, TrackId)>);

/// New, empty queues.
pub(super) fn wires() -> Ends {
    let (reports, reports_in) = sync_channel(REPORTS);
    let (decided, decided_in) = sync_channel(REPORTS);
    (Wires { reports, decided }, reports_in, decided_in)
}

/// Vision's end of the queue, which never blocks it.
pub(super) struct Reporter {
    queue: SyncSender<Report>,
    /// In order.
    owed: VecDeque<Report>,
}

impl Reporter {
    pub(super) fn new(queue: SyncSender<Report>) -> Self {
        Self { queue, owed: VecDeque::new() }
    }

    /// Tells it now, or later where it must be told and there is no room. False when it was dropped.
    pub(super) fn tell(&mut self, report: Report) -> bool {
        self.tell_what_is_owed();
        if !is_last_word(&report) {
            return !matches!(self.queue.try_send(report), Err(TrySendError::Full(_)));
        }
        // How many stand there now takes the place of how many stood there.
        if let Report::Standing(camera, _) = &report {
            self.owed.retain(|old| !matches!(old, Report::Standing(other, _) if other == camera));
        }
        let is_owed = self.owed.len() < MOST_OWED;
        if is_owed {
            self.owed.push_back(report);
        }
        self.tell_what_is_owed();
        is_owed
    }

    /// Tells what waits, as far as there is room. To be called often: the last face may be gone, and no frame say so again.
    pub(super) fn tell_what_is_owed(&mut self) {
        while let Some(report) = self.owed.pop_front() {
            if let Err(TrySendError::Full(report)) = self.queue.try_send(report) {
                self.owed.push_front(report);
                return;
            }
        }
    }
}

/// Whether no later frame says it again: that a track is over, what it ended in, whose face it shows again, how many stand there.
fn is_last_word(report: &Report) -> bool {
    match report {
        Report::Observed(observation, _) => observation.ended,
        Report::Ended(..) | Report::GoesOn(..) | Report::Standing(..) | Report::Missed(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Moment;

    fn camera(name: &str) -> CameraId {
        CameraId::new(name).unwrap()
    }

    fn look() -> Report {
        Report::Seen(Sighting { camera: camera("beside"), captured_at: Moment::default(), faces: Vec::new() })
    }

    #[test]
    fn a_decider_that_is_behind_misses_looks_and_never_that_somebody_has_gone() {
        let (queue, decider) = sync_channel(2);
        let mut reporter = Reporter::new(queue);
        assert!(reporter.tell(look()) && reporter.tell(look()) && !reporter.tell(look()));
        for (faces, track) in [(2, 1), (1, 2), (0, 3)] {
            assert!(reporter.tell(Report::Ended(camera("door"), TrackId(track), BoundingBox::default())));
            assert!(reporter.tell(Report::Standing(camera("door"), faces)));
        }
        assert!(reporter.tell(Report::Standing(camera("back"), 4)));
        let mut told = Vec::new();
        for _ in 0..20 {
            while let Ok(report) = decider.try_recv() {
                told.push(match report {
                    Report::Ended(_, track, _) => format!("ended {track}"),
                    Report::Standing(camera, faces) => format!("{faces} at {camera}"),
                    _ => "look".to_owned(),
                });
            }
            reporter.tell_what_is_owed();
        }
        assert_eq!(told, ["look", "look", "ended 1", "ended 2", "ended 3", "0 at door", "4 at back"]);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_told() {
        let (queue, _decider) = sync_channel(1);
        let mut reporter = Reporter::new(queue);
        let mut end = |n| reporter.tell(Report::Ended(camera("door"), TrackId(n), BoundingBox::default()));
        let told = (0..MOST_OWED as u64 + 5).filter(|n| end(*n)).count();
        assert_eq!(told, MOST_OWED + 1);
    }
}
