//! One-to-one comparison: FMR and FNMR over the threshold, the equal error rate, TAR at fixed FAR, and LFW's cross-validated accuracy.
//!
//! A comparison is accepted when its score is at or above the threshold. FMR is the share of non-mated comparisons that are accepted,
//! FNMR the share of mated ones that are not (ISO/IEC 19795-1). FAR and TAR are what face recognition calls FMR and 1 − FNMR when every
//! attempt is one comparison; photos that could not be enrolled are no comparisons and have to be reported beside them.

use super::interval::{Balanced, Rate};
use super::{at_or_above, sorted, threshold_for};
use crate::types::Score;

/// The false accept rates at which TAR is told.
pub const FALSE_ACCEPT_RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// One comparison of a probe and a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The comparison score.
    pub score: Score,
    /// Whether both are of one person.
    pub mated: bool,
    /// Which part of the cross-validation it belongs to.
    pub fold: usize,
}

/// A threshold with the errors that it makes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operating {
    /// The least score that is accepted.
    pub threshold: f32,
    /// False matches among non-mated comparisons.
    pub fmr: Rate,
    /// False non-matches among mated comparisons.
    pub fnmr: Rate,
}

impl Operating {
    /// The mean of both error rates.
    pub fn balanced_error(&self) -> Balanced {
        Balanced(self.fmr, self.fnmr)
    }

    /// FMR and FNMR times both numbers of trials: whole numbers, so that rounding never chooses between equals.
    fn on_one_scale(&self) -> [u128; 2] {
        let scaled = |count: u64, trials: u64| u128::from(count) * u128::from(trials);
        [scaled(self.fmr.count, self.fnmr.trials), scaled(self.fnmr.count, self.fmr.trials)]
    }
}

/// Cross-validated accuracy.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// Right decisions over all held-out parts, non-mated and mated: the mean of both shares is the balanced accuracy.
    pub balanced: Balanced,
    /// The sample standard deviation of the parts' balanced accuracies, 0 to 1.
    pub deviation: f64,
    /// The threshold that each part was judged with.
    pub thresholds: Vec<f32>,
}

/// Comparisons whose truth is known.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    whole: Part,
    folds: Vec<Part>,
}

/// Scores of both kinds, ascending.
#[derive(Debug, Clone, Default)]
struct Part {
    mated: Vec<f32>,
    non_mated: Vec<f32>,
}

impl Part {
    fn new<'a>(comparisons: impl Iterator<Item = &'a Comparison> + Clone) -> Self {
        let of = |mated: bool| sorted(comparisons.clone().filter(|c| c.mated == mated).map(|c| c.score.value()));
        Self { mated: of(true), non_mated: of(false) }
    }

    fn is_complete(&self) -> bool {
        !self.mated.is_empty() && !self.non_mated.is_empty()
    }

    fn at(&self, threshold: f32) -> Operating {
        let mated = self.mated.len() as u64;
        Operating {
            threshold,
            fmr: Rate::new(at_or_above(&self.non_mated, threshold), self.non_mated.len() as u64),
            fnmr: Rate::new(mated - at_or_above(&self.mated, threshold), mated),
        }
    }

    /// Every score that occurs, ascending, once each.
    fn scores(&self) -> Vec<f32> {
        let mut scores = sorted(self.mated.iter().chain(&self.non_mated).copied());
        scores.dedup();
        scores
    }

    /// The threshold with the least balanced error, the lowest where several have it: the middle of a gap between two scores, so that
    /// it does not lean to either.
    fn best_threshold(&self) -> f32 {
        let scores = self.scores();
        let lowest = scores.first().copied().unwrap_or_default();
        let gaps = scores.windows(2).map(|pair| {
            let middle = pair[0].midpoint(pair[1]);
            if middle > pair[0] { middle } else { pair[1] }
        });
        let error = |threshold: f32| {
            let [false_matches, false_non_matches] = self.at(threshold).on_one_scale();
            false_matches + false_non_matches
        };
        let above_all = scores.last().map(|highest| highest.next_up());
        let candidates = std::iter::once(lowest).chain(gaps).chain(above_all);
        // Of equals `min_by_key` keeps the first.
        candidates.min_by_key(|threshold| error(*threshold)).unwrap_or(lowest)
    }
}

impl Verification {
    /// Takes comparisons; folds are numbered from 0.
    pub fn new(comparisons: &[Comparison]) -> Self {
        let mut numbers: Vec<usize> = comparisons.iter().map(|c| c.fold).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let fold = |number: &usize| Part::new(comparisons.iter().filter(move |c| c.fold == *number));
        Self { whole: Part::new(comparisons.iter()), folds: numbers.iter().map(fold).collect() }
    }

    /// Takes scores alone, in any order, without parts to cross-validate: what fits where there are tens of millions of them.
    pub fn of_scores(mut mated: Vec<f32>, mut non_mated: Vec<f32>) -> Self {
        mated.sort_unstable_by(f32::total_cmp);
        non_mated.sort_unstable_by(f32::total_cmp);
        Self { whole: Part { mated, non_mated }, folds: Vec::new() }
    }

    /// The scores of mated comparisons, ascending.
    pub fn mated(&self) -> &[f32] {
        &self.whole.mated
    }

    /// The scores of non-mated comparisons, ascending.
    pub fn non_mated(&self) -> &[f32] {
        &self.whole.non_mated
    }

    /// The errors at a threshold.
    pub fn at(&self, threshold: f32) -> Operating {
        self.whole.at(threshold)
    }

    /// The errors at every score that occurs and above them all, by rising threshold: the points of the DET curve.
    pub fn curve(&self) -> Vec<Operating> {
        let scores = self.whole.scores();
        let above_all = scores.last().map(|highest| highest.next_up());
        scores.iter().copied().chain(above_all).map(|threshold| self.at(threshold)).collect()
    }

    /// Where FMR and FNMR are nearest to each other; the equal error rate is their mean there. Of equally near ones the lowest
    /// threshold. `None` without comparisons of both kinds.
    pub fn equal_error(&self) -> Option<Operating> {
        let apart = |point: &Operating| {
            let [false_matches, false_non_matches] = point.on_one_scale();
            false_matches.abs_diff(false_non_matches)
        };
        self.whole.is_complete().then(|| self.curve().into_iter().min_by_key(apart))?
    }

    /// The lowest threshold whose FMR is at most `far` (0 to 1), with its errors. With fewer than 1/`far` non-mated comparisons it
    /// lies just above the highest of them, and the interval of FMR tells how little that shows. `None` without comparisons of both kinds.
    pub fn at_far(&self, far: f64) -> Option<Operating> {
        self.whole.is_complete().then(|| self.at(threshold_for(&self.whole.non_mated, far)))
    }

    /// LFW's view 2 (G. B. Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007): each fold is judged with the
    /// threshold that errs least on all others, errors of both kinds weighing the same. `None` unless there are two folds with
    /// comparisons of both kinds each.
    pub fn accuracy(&self) -> Option<Accuracy> {
        if self.folds.len() < 2 || !self.folds.iter().all(Part::is_complete) {
            return None;
        }
        let (mut rejected, mut accepted) = (Rate::new(0, 0), Rate::new(0, 0));
        let (mut parts, mut thresholds) = (Vec::new(), Vec::new());
        for (number, held_out) in self.folds.iter().enumerate() {
            let others = || self.folds.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, part)| part);
            let rest = Part {
                mated: sorted(others().flat_map(|part| part.mated.iter().copied())),
                non_mated: sorted(others().flat_map(|part| part.non_mated.iter().copied())),
            };
            let judged = held_out.at(rest.best_threshold());
            parts.push(1.0 - judged.balanced_error().value()?);
            thresholds.push(judged.threshold);
            for (sum, errors) in [(&mut rejected, judged.fmr), (&mut accepted, judged.fnmr)] {
                *sum = Rate::new(sum.count + errors.complement().count, sum.trials + errors.trials);
            }
        }
        let mean = parts.iter().sum::<f64>() / parts.len() as f64;
        let squares: f64 = parts.iter().map(|part| (part - mean).powi(2)).sum();
        let deviation = (squares / (parts.len() - 1) as f64).sqrt();
        Some(Accuracy { balanced: Balanced(rejected, accepted), deviation, thresholds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(mated: &[f32], non_mated: &[f32], folds: usize) -> Verification {
        let of = |scores: &[f32], mated: bool| -> Vec<Comparison> {
            let comparison =
                |(index, score): (usize, &f32)| Comparison { score: Score::saturating(*score), mated, fold: index % folds };
            scores.iter().enumerate().map(comparison).collect()
        };
        Verification::new(&[of(mated, true), of(non_mated, false)].concat())
    }

    #[test]
    fn without_comparisons_of_both_kinds_nothing_is_told() {
        for (mated, non_mated) in [(&[][..], &[][..]), (&[0.5], &[]), (&[], &[0.5])] {
            let v = verification(mated, non_mated, 2);
            assert!(v.equal_error().is_none() && v.at_far(0.01).is_none() && v.accuracy().is_none());
        }
        assert!(verification(&[0.9, 0.8], &[0.1, 0.2], 1).accuracy().is_none(), "one fold cannot be held out");
    }

    #[test]
    fn a_score_at_the_threshold_is_accepted() {
        let v = verification(&[0.5, 0.7], &[0.5, 0.2], 1);
        assert_eq!((v.at(0.5).fmr, v.at(0.5).fnmr), (Rate::new(1, 2), Rate::new(0, 2)));
        let above = v.at(0.5f32.next_up());
        assert_eq!((above.fmr, above.fnmr), (Rate::new(0, 2), Rate::new(1, 2)));
    }

    #[test]
    fn the_equal_error_rate_is_what_the_hand_finds() {
        // At 0.4: 0.6 and 0.4 of four strangers pass, 0.3 and 0.2 of four owners do not.
        let v = verification(&[0.9, 0.8, 0.3, 0.2], &[0.1, 0.6, 0.4, 0.05], 1);
        let point = v.equal_error().unwrap();
        assert_eq!((point.fmr, point.fnmr), (Rate::new(2, 4), Rate::new(2, 4)));
        assert_eq!(point.balanced_error().value(), Some(0.5));
        let apart = verification(&[0.9, 0.8], &[0.1, 0.2], 1).equal_error().unwrap();
        assert_eq!(apart.balanced_error().value(), Some(0.0));
        assert!(apart.threshold > 0.2 && apart.threshold <= 0.8);
    }

    #[test]
    fn tar_at_far_counts_what_is_above_the_strangers_that_may_pass() {
        let strangers: Vec<f32> = (0..100u8).map(|index| f32::from(index) / 200.0).collect();
        let v = verification(&[0.491, 0.492, 0.6, 0.4], &strangers, 1);
        let point = v.at_far(0.01).unwrap();
        assert_eq!((point.fmr, point.fnmr), (Rate::new(1, 100), Rate::new(1, 4)));
        let point = v.at_far(1e-4).unwrap();
        assert_eq!((point.fmr, point.fnmr), (Rate::new(0, 100), Rate::new(3, 4)));
        assert_eq!(point.threshold, 0.495f32.next_up());
    }

    #[test]
    fn each_fold_is_judged_with_the_others_threshold() {
        // Fold 0 alone would separate at 0.3, fold 1 at 0.7; each is judged with the other's.
        let comparison = |score: f32, mated, fold| Comparison { score: Score::saturating(score), mated, fold };
        let v = Verification::new(&[
            comparison(0.4, true, 0),
            comparison(0.2, false, 0),
            comparison(0.8, true, 1),
            comparison(0.6, false, 1),
        ]);
        let accuracy = v.accuracy().unwrap();
        for (threshold, expected) in accuracy.thresholds.iter().zip([0.7, 0.3]) {
            assert!((threshold - expected).abs() < 1e-6, "{threshold}");
        }
        // Fold 0 at 0.7: the owner is refused, the stranger too. Fold 1 at 0.3: both pass.
        assert_eq!(accuracy.balanced, Balanced(Rate::new(1, 2), Rate::new(1, 2)));
        assert_eq!((accuracy.balanced.value(), accuracy.deviation), (Some(0.5), 0.0));
    }

    #[test]
    fn both_kinds_weigh_the_same_however_many_there_are() {
        let many: Vec<f32> = (0..1000u16).map(|index| f32::from(index) / 2000.0).collect();
        let accuracy = verification(&[0.9, 0.9, 0.3, 0.3], &many, 2).accuracy().unwrap();
        // Counting decisions alone would refuse two owners in four at 0.3 for the sake of 400 strangers in 1000.
        assert_eq!(accuracy.balanced.1, Rate::new(4, 4));
        assert!((accuracy.balanced.0.value().unwrap() - 0.6).abs() < 0.01);
    }
}
