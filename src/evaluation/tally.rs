//! Scores kept as counts and nothing else: how many fell into each two-hundredth of the cosine's range. It holds no order and no time, so
//! nobody's visit can be read out of it, and its size does not grow.
//!
//! What is old fades in two ways, because conditions change in two ways. With the visits: beyond a number that the caller names each new
//! one takes its share from all before it, so that a door with many visits notices a camera that became worse within a few hundred of
//! them. With the days: the caller multiplies all counts once a day, so that a door with few visits forgets last year's camera. Both are
//! exponential, which needs no second copy of anything (exponentially weighted, as in S. W. Roberts, Technometrics 1, 1959).

use crate::types::Score;

/// How many bins a tally has.
pub const BINS: usize = 400;
/// A bin's width, of the cosine's range from -1 to 1: a tenth of the distance that tells a person from a double, and 400 numbers in all.
pub const BIN_WIDTH: f64 = 2.0 / BINS as f64;

/// Counts of scores by bins of [`BIN_WIDTH`] from -1 to 1. Counts are fractions once they have faded.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally(Box<[f64]>);

impl Default for Tally {
    fn default() -> Self {
        Self(vec![0.0; BINS].into_boxed_slice())
    }
}

impl Tally {
    /// From bins and their counts; `None` where a bin is none of [`BINS`], comes twice, or a count is no number from 0 to `most`.
    pub fn from_bins(bins: &[(u16, f64)], most: f64) -> Option<Self> {
        let mut tally = Self::default();
        for (bin, count) in bins {
            let place = tally.0.get_mut(usize::from(*bin)).filter(|place| **place == 0.0)?;
            *place = Some(*count).filter(|count| (0.0..=most).contains(count))?;
        }
        Some(tally)
    }

    /// The bins that hold anything, with their counts.
    pub fn bins(&self) -> impl Iterator<Item = (u16, f64)> + '_ {
        (0u16..).zip(self.0.iter().copied()).filter(|(_, count)| *count > 0.0)
    }

    /// Counts one score. What would make more than `most` in all fades the others.
    pub fn add(&mut self, score: Score, most: f64) {
        self.0[bin_of(score)] += 1.0;
        let total = self.total();
        if total > most {
            self.fade(most / total);
        }
    }

    /// Multiplies every count by `share`, 0 to 1. A count that has all but gone is gone.
    pub fn fade(&mut self, share: f64) {
        /// A thousandth of a visit says nothing, and would be written down for ever.
        const NOTHING: f64 = 1e-3;
        for count in &mut self.0 {
            *count *= share.clamp(0.0, 1.0);
            if *count < NOTHING {
                *count = 0.0;
            }
        }
    }

    /// All counts together.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The share of all that lies in bins below `score`, 0 to 1; `None` where nothing was counted.
    pub fn share_below(&self, score: Score) -> Option<f64> {
        let total = self.total();
        (total > 0.0).then(|| self.0[..bin_of(score)].iter().sum::<f64>() / total)
    }

    /// The counts by bin.
    pub(super) fn counts(&self) -> &[f64] {
        &self.0
    }
}

/// A bin's lower edge.
pub(super) fn edge(bin: usize) -> f64 {
    bin as f64 * BIN_WIDTH - 1.0
}

/// The bin that a score falls into.
pub(super) fn bin_of(score: Score) -> usize {
    /// A score that was written as a decimal is a little off the edge it means, in single precision.
    const ROUNDING: f64 = 1e-6;
    let bins = (f64::from(score.value()) + 1.0) / BIN_WIDTH;
    ((bins + ROUNDING / BIN_WIDTH).floor() as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f32) -> Score {
        Score::new(value).unwrap()
    }

    #[test]
    fn every_score_has_its_bin_and_edges_belong_to_the_bin_above() {
        for (value, bin) in [(-1.0, 0), (-0.9951, 0), (-0.995, 1), (0.0, 200), (0.5, 300), (0.5049, 300), (0.505, 301), (1.0, 399)]
        {
            assert_eq!(bin_of(score(value)), bin, "{value}");
        }
        assert!((edge(bin_of(score(0.525))) - 0.525).abs() < 1e-9);
    }

    #[test]
    fn beyond_the_most_what_is_old_fades_and_the_total_stays() {
        let mut tally = Tally::default();
        (0..1000).for_each(|_| tally.add(score(0.1), 500.0));
        assert!((tally.total() - 500.0).abs() < 1e-6);
        (0..500).for_each(|_| tally.add(score(0.3), 500.0));
        let old = tally.share_below(score(0.2)).unwrap();
        assert!((0.36..0.38).contains(&old), "1/e of the old are left after as many new ones: {old}");
    }

    #[test]
    fn days_fade_to_nothing_and_nothing_is_no_share() {
        let mut tally = Tally::default();
        assert_eq!(tally.share_below(score(0.5)), None);
        tally.add(score(0.1), 10.0);
        tally.fade(0.5);
        assert_eq!(tally.bins().collect::<Vec<_>>(), [(220, 0.5)]);
        (0..20).for_each(|_| tally.fade(0.5));
        assert_eq!(tally.bins().count(), 0);
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let mut tally = Tally::default();
        [0.1, 0.1, -0.4, 1.0].into_iter().for_each(|value| tally.add(score(value), 100.0));
        let bins: Vec<_> = tally.bins().collect();
        assert_eq!(Tally::from_bins(&bins, 100.0), Some(tally));
        for wrong in [vec![(400, 1.0)], vec![(3, f64::NAN)], vec![(3, -1.0)], vec![(3, 101.0)], vec![(3, 1.0), (3, 1.0)]] {
            assert_eq!(Tally::from_bins(&wrong, 100.0), None, "{wrong:?}");
        }
    }
}
