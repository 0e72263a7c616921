//! Strangers who were refused a moment ago and are not counted yet, because what comes next tells what they were: somebody who is let in
//! right afterwards was no stranger but a person enrolled on a bad frame, and one face that tries several times is one stranger.

use std::time::Duration;

use crate::types::{Monotonic, PersonId, Probe, Score, TrackId};

/// For how long a face that comes back is the same stranger, and a stranger is held back.
const SAME_STRANGER: Duration = Duration::from_secs(60);
/// Within this after a refusal, whoever is let in was the one refused. Longer, and the next one in the queue would be.
const SAME_PERSON: Duration = Duration::from_secs(30);
/// However often somebody comes back: who stays longer counts, and once more.
const AT_LONGEST: Duration = Duration::from_secs(600);
/// The most strangers of a camera that are held back; the oldest is counted when there are more.
const MOST: usize = 32;

/// A stranger's visits of the last minute, as one.
#[derive(Debug, Clone)]
pub(super) struct Stranger {
    pub(super) track: TrackId,
    pub(super) probe: Option<Probe>,
    /// Whom they came nearest to.
    pub(super) nearest: PersonId,
    /// By how much, at the most.
    pub(super) score: Score,
    pub(super) first: Monotonic,
    pub(super) last: Monotonic,
}

/// The strangers of one camera, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<Stranger>);

impl Pending {
    /// Takes a refused visit in. Faces that are as alike as `matching` are one. What is to be counted now for want of room.
    pub(super) fn refused(&mut self, visit: Stranger, matching: Score) -> Option<Stranger> {
        let is_same = |held: &Stranger| held.track == visit.track || are_alike(held.probe.as_ref(), visit.probe.as_ref(), matching);
        if let Some(held) = self.0.iter_mut().find(|held| is_same(held)) {
            held.last = visit.last;
            if visit.score > held.score {
                (held.score, held.nearest, held.probe) = (visit.score, visit.nearest, visit.probe);
            }
            return None;
        }
        let pushed_out = (self.0.len() >= MOST).then(|| self.0.remove(0));
        self.0.push(visit);
        pushed_out
    }

    /// Somebody was let in: who was refused a moment before and looks like that, or came nearest to that very person, was the same.
    pub(super) fn granted(&mut self, person: &PersonId, probe: Option<&Probe>, matching: Score, now: Monotonic) -> Vec<Stranger> {
        let is_theirs = |held: &mut Stranger| {
            now.since(held.last) <= SAME_PERSON && (held.nearest == *person || are_alike(held.probe.as_ref(), probe, matching))
        };
        self.0.extract_if(.., is_theirs).collect()
    }

    /// Those who have not come back: they are counted.
    pub(super) fn settled(&mut self, now: Monotonic) -> Vec<Stranger> {
        let is_gone = |held: &mut Stranger| now.since(held.last) >= SAME_STRANGER || now.since(held.first) >= AT_LONGEST;
        self.0.extract_if(.., is_gone).collect()
    }

    /// All of them: the daemon stops.
    pub(super) fn take(&mut self) -> Vec<Stranger> {
        std::mem::take(&mut self.0)
    }
}

fn are_alike(one: Option<&Probe>, other: Option<&Probe>, matching: Score) -> bool {
    one.zip(other).and_then(|(one, other)| one.compare(other)).is_some_and(|score| score >= matching)
}
