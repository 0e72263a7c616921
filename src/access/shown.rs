//! Evidence belongs to one face. Which samples of a visit show the person who is about to be let in, and what those samples alone say:
//! how many there are, whether a living face is on them, where the head points, when the second camera saw the same. A visit may hold
//! frames of two people who are alike enough for the tracker and the pipeline (a picture held up for a moment, a morph, somebody who steps
//! in), so nothing that a grant needs is ever read from the visit as a whole.

use crate::types::{FaceSample, Moment, Monotonic, Observation, PadScore, PersonId, Score};

/// A moment is a person's when the nearest samples on either side, up to this far, show that person. Faces are sampled every 60 to 120 ms.
const NEAR_NS: u64 = 200_000_000;

/// When a sample shows a person.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// It is at least so much alike.
    pub(super) matching: Score,
    /// Nobody else of the candidates is more alike by more than this: by nothing, but where a card says who is meant.
    pub(super) ahead: f32,
    /// No second face was in view.
    pub(super) alone: bool,
}

/// The samples of one visit, and which of them show one person.
pub(super) struct Shown<'a> {
    all: &'a [FaceSample],
    mine: Vec<bool>,
}

impl<'a> Shown<'a> {
    /// The samples that themselves match `person`.
    pub(super) fn of(observation: &'a Observation, person: &PersonId, by: By) -> Self {
        let index = observation.candidates.iter().position(|candidate| candidate.person == *person);
        let shows = |sample: &FaceSample| {
            let Some(score) = index.and_then(|index| sample.scores.get(index)) else { return false };
            let is_nearest = sample.scores.iter().all(|other| other.value() - score.value() <= by.ahead);
            *score >= by.matching && is_nearest && (!by.alone || sample.faces_in_view <= 1)
        };
        Self { all: &observation.samples, mine: observation.samples.iter().map(shows).collect() }
    }

    pub(super) fn samples(&self) -> impl DoubleEndedIterator<Item = &'a FaceSample> {
        let (all, mine) = (self.all, &self.mine);
        all.iter().zip(mine.clone()).filter(|(_, mine)| *mine).map(|(sample, _)| sample)
    }

    /// How many samples show the person.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.samples().count()).unwrap_or(u32::MAX)
    }

    /// The newest of them.
    pub(super) fn newest(&self) -> Option<&'a FaceSample> {
        self.samples().next_back()
    }

    /// When it was captured.
    pub(super) fn captured_at(&self) -> Option<Moment> {
        self.newest().map(|sample| sample.captured_at)
    }

    /// What their liveness comes to.
    pub(super) fn liveness(&self) -> Option<PadScore> {
        PadScore::fuse(self.samples().filter_map(|sample| sample.liveness))
    }

    /// How many of them are each live for themselves.
    pub(super) fn live(&self, least: PadScore) -> u32 {
        let is_live = |sample: &&FaceSample| sample.liveness.is_some_and(|score| score >= least);
        u32::try_from(self.samples().filter(is_live).count()).unwrap_or(u32::MAX)
    }

    /// Whether it was this person who stood there at a moment: the nearest samples before and after it, as far as there are any, are the
    /// person's.
    pub(super) fn stood_at(&self, moment: Monotonic) -> bool {
        let at = |index: usize| self.all[index].captured_at.monotonic;
        let after = self.all.partition_point(|sample| sample.captured_at.monotonic < moment);
        let is_near = |index: &usize| at(*index).0.abs_diff(moment.0) <= NEAR_NS;
        let later = Some(after).filter(|index| *index < self.all.len()).filter(is_near);
        if let Some(exact) = later.filter(|index| at(*index) == moment) {
            return self.mine[exact];
        }
        let earlier = after.checked_sub(1).filter(is_near);
        let mut near = earlier.into_iter().chain(later).peekable();
        near.peek().is_some() && near.all(|index| self.mine[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::{candidate, observation};

    fn sample(ms: u64, scores: &[f32]) -> FaceSample {
        FaceSample {
            captured_at: Moment { monotonic: Monotonic(ms * 1_000_000), ..Moment::default() },
            liveness: PadScore::new(0.9).ok(),
            yaw: None,
            faces_in_view: 1,
            scores: scores.iter().map(|score| Score::new(*score).unwrap()).collect(),
        }
    }

    fn by(ahead: f32, alone: bool) -> By {
        By { matching: Score::new(0.3).unwrap(), ahead, alone }
    }

    fn shown(samples: Vec<FaceSample>, alone: bool, ask: impl Fn(&Shown<'_>)) {
        let seen = observation(vec![candidate("a", 0.9), candidate("b", 0.2)], Some(0.9));
        let seen = Observation { samples, ..seen };
        ask(&Shown::of(&seen, &PersonId::new("a").unwrap(), by(0.0, alone)));
    }

    #[test]
    fn a_sample_is_a_persons_when_it_matches_that_person_and_nobody_better() {
        let samples = vec![
            sample(0, &[0.3, 0.3]),
            sample(60, &[0.29, -0.5]),
            sample(120, &[0.5, 0.51]),
            sample(180, &[]),
            FaceSample { faces_in_view: 2, ..sample(240, &[0.9, 0.1]) },
        ];
        shown(samples.clone(), false, |shown| assert_eq!(shown.mine, [true, false, false, false, true]));
        shown(samples, true, |shown| assert_eq!((shown.count(), shown.captured_at().unwrap().monotonic.0), (1, 0)));
        shown(vec![sample(0, &[0.9, 0.1])], false, |shown| {
            let nobody = observation(vec![], None);
            assert_eq!((shown.count(), Shown::of(&nobody, &PersonId::new("a").unwrap(), by(0.0, false)).count()), (1, 0));
        });
    }

    #[test]
    fn where_a_card_says_who_is_meant_another_may_be_a_little_ahead() {
        let seen = observation(vec![candidate("a", 0.9), candidate("b", 0.9)], Some(0.9));
        let seen = Observation { samples: vec![sample(0, &[0.5, 0.54]), sample(60, &[0.5, 0.56])], ..seen };
        assert_eq!(Shown::of(&seen, &PersonId::new("a").unwrap(), by(0.05, false)).mine, [true, false]);
    }

    #[test]
    fn liveness_is_that_of_the_persons_own_samples() {
        let dead = |ms| FaceSample { liveness: PadScore::new(0.1).ok(), ..sample(ms, &[0.9, 0.0]) };
        let other = |ms| sample(ms, &[0.0, 0.9]);
        shown(vec![dead(0), other(60), other(120), other(180), dead(240)], false, |shown| {
            assert_eq!((shown.count(), shown.live(PadScore::new(0.5).unwrap())), (2, 0));
            assert!(shown.liveness().unwrap().value() < 0.11);
        });
    }

    #[test]
    fn a_moment_is_the_persons_only_when_the_samples_around_it_are() {
        let (a, b) = (|ms| sample(ms, &[0.9, 0.0]), |ms| sample(ms, &[0.0, 0.9]));
        let ask = |samples: Vec<FaceSample>, ms: u64, expected: bool| {
            shown(samples, false, |shown| assert_eq!(shown.stood_at(Monotonic(ms * 1_000_000)), expected, "{ms}"));
        };
        for (ms, expected) in [(1000, true), (1030, true), (1060, true), (1090, false), (1120, false), (1180, false)] {
            ask(vec![a(1000), a(1060), b(1120)], ms, expected);
        }
        for (ms, expected) in [(800, true), (799, false), (1200, true), (1201, false)] {
            ask(vec![a(1000)], ms, expected);
        }
        ask(vec![], 0, false);
        ask(vec![b(680), a(1000)], 890, true);
        ask(vec![b(750), a(1000)], 890, false);
    }
}
