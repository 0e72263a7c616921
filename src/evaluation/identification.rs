//! One-to-many search in an open set: rank-1 and FNIR at FPIR (ISO/IEC 19795-1).
//!
//! A mated search has its person in the gallery; it fails when the mate is not the best candidate or lies below the threshold (FNIR at
//! rank 1). A non-mated search has not; it fails when any candidate reaches the threshold (FPIR). Each probe makes one of either: the
//! second with its own person left out of the gallery, so that the gallery then holds one person fewer.

use super::interval::Rate;
use super::{at_or_above, sorted, threshold_for};
use crate::types::Score;

/// The false positive identification rates at which FNIR is told.
pub const FALSE_POSITIVE_RATES: [f64; 3] = [1e-1, 1e-2, 1e-3];

/// What one probe's search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// The highest score among the person's own references.
    pub mate: Score,
    /// The highest score among everybody else's: the best candidate of the search without the person.
    pub best_other: Score,
}

impl Search {
    /// Whether the person is the best candidate. A tie is none.
    pub fn is_hit(&self) -> bool {
        self.mate > self.best_other
    }
}

/// A threshold with the errors that it makes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operating {
    /// The least score of a candidate.
    pub threshold: f32,
    /// Non-mated searches with a candidate.
    pub fpir: Rate,
    /// Mated searches without their person as best candidate.
    pub fnir: Rate,
}

/// Searches whose truth is known.
#[derive(Debug, Clone, Default)]
pub struct Identification {
    trials: u64,
    /// Mates' scores of the searches that found their person, ascending.
    hits: Vec<f32>,
    /// Best scores of the non-mated searches, ascending.
    others: Vec<f32>,
}

impl Identification {
    /// Takes searches.
    pub fn new(searches: &[Search]) -> Self {
        let hits = sorted(searches.iter().filter(|search| search.is_hit()).map(|search| search.mate.value()));
        Self { trials: searches.len() as u64, hits, others: sorted(searches.iter().map(|search| search.best_other.value())) }
    }

    /// Mates' scores of the searches that found their person, ascending.
    pub fn hits(&self) -> &[f32] {
        &self.hits
    }

    /// Best scores of the non-mated searches, ascending.
    pub fn others(&self) -> &[f32] {
        &self.others
    }

    /// How often the best candidate is the person, whatever the score.
    pub fn rank_one(&self) -> Rate {
        Rate::new(self.hits.len() as u64, self.trials)
    }

    /// The errors at a threshold.
    pub fn at(&self, threshold: f32) -> Operating {
        let found = at_or_above(&self.hits, threshold);
        let fpir = Rate::new(at_or_above(&self.others, threshold), self.trials);
        Operating { threshold, fpir, fnir: Rate::new(self.trials - found, self.trials) }
    }

    /// The lowest threshold whose FPIR is at most `fpir` (0 to 1), with its errors; `None` without searches.
    pub fn at_fpir(&self, fpir: f64) -> Option<Operating> {
        (self.trials > 0).then(|| self.at(threshold_for(&self.others, fpir)))
    }

    /// The errors at every score that occurs, by rising threshold.
    pub fn curve(&self) -> Vec<Operating> {
        let mut scores = sorted(self.hits.iter().chain(&self.others).copied());
        scores.dedup();
        scores.into_iter().map(|threshold| self.at(threshold)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identification(searches: &[(f32, f32)]) -> Identification {
        let search = |(mate, other): &(f32, f32)| Search { mate: Score::saturating(*mate), best_other: Score::saturating(*other) };
        Identification::new(&searches.iter().map(search).collect::<Vec<_>>())
    }

    #[test]
    fn without_searches_nothing_is_told() {
        assert_eq!(identification(&[]).rank_one().value(), None);
        assert!(identification(&[]).at_fpir(0.1).is_none());
    }

    #[test]
    fn a_tie_and_a_better_stranger_are_no_hits_at_any_threshold() {
        let found = identification(&[(0.9, 0.2), (0.5, 0.5), (0.4, 0.8), (0.7, 0.3)]);
        assert_eq!(found.rank_one(), Rate::new(2, 4));
        assert_eq!(found.at(-1.0).fnir, Rate::new(2, 4));
        assert_eq!(found.at(0.71).fnir, Rate::new(3, 4));
    }

    #[test]
    fn fnir_at_fpir_is_what_the_hand_finds() {
        let found = identification(&[(0.9, 0.2), (0.6, 0.5), (0.75, 0.7), (0.8, 0.3)]);
        // One of four strangers may pass: the threshold lies just above 0.5.
        let point = found.at_fpir(0.25).unwrap();
        assert_eq!((point.threshold, point.fpir, point.fnir), (0.5f32.next_up(), Rate::new(1, 4), Rate::new(0, 4)));
        // None may: just above 0.7, and the mate at 0.6 is lost.
        let point = found.at_fpir(0.1).unwrap();
        assert_eq!((point.fpir, point.fnir), (Rate::new(0, 4), Rate::new(1, 4)));
    }
}
