//! A match threshold for a gallery of a given size: from the false matches that a search may find to those that one comparison may be.
//!
//! A search of N templates makes N comparisons. Taken as independent, one of them or more is a false match with the probability
//! FPIR = 1 − (1 − FMR)^N (ISO/IEC 19795-1; A. K. Jain, A. Ross and K. Nandakumar, "Introduction to Biometrics", 2011, chapter 1).
//! Templates of one person resemble each other, which makes the true FPIR smaller. A few people whom many resemble make it larger than
//! photos of other people can show.

use super::interval::Rate;
use super::verification::Operating;
use super::{Verification, threshold_for};

/// The false match rate of one comparison at which a search of `templates` (1 or more) has the false positive identification rate
/// `fpir` (above 0, below 1).
pub fn fmr_for(fpir: f64, templates: u64) -> f64 {
    // 1 − (1 − fpir)^(1/n) without the loss of digits that a tiny rate would suffer.
    -((-fpir).ln_1p() / templates.max(1) as f64).exp_m1()
}

/// The least number of non-mated comparisons, all of them refused, whose interval's upper limit is at most `fmr`.
pub fn comparisons_for(fmr: f64) -> u64 {
    let (mut too_few, mut enough) = (0u64, 1u64);
    while Rate::new(0, enough).interval().high > fmr && enough < 1 << 40 {
        too_few = enough;
        enough *= 2;
    }
    while too_few + 1 < enough {
        let middle = too_few.midpoint(enough);
        *(if Rate::new(0, middle).interval().high > fmr { &mut too_few } else { &mut enough }) = middle;
    }
    enough
}

impl Verification {
    /// The lowest threshold whose FMR is at most `fmr` even at its interval's upper limit, with its errors. `None` when there are too few
    /// non-mated comparisons to show so low a rate ([`comparisons_for`]).
    pub fn shown_at(&self, fmr: f64) -> Option<Operating> {
        let trials = self.non_mated().len() as u64;
        let shows = |count: u64| Rate::new(count, trials).interval().high <= fmr;
        if !shows(0) {
            return None;
        }
        let (mut most, mut too_many) = (0, trials + 1);
        while most + 1 < too_many {
            let middle = most.midpoint(too_many);
            *(if shows(middle) { &mut most } else { &mut too_many }) = middle;
        }
        Some(self.at(threshold_for(self.non_mated(), most as f64 / trials as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Comparison;
    use super::*;
    use crate::types::Score;

    #[test]
    fn a_larger_gallery_allows_each_comparison_less() {
        assert!((fmr_for(0.01, 1) - 0.01).abs() < 1e-15);
        for (fpir, templates) in [(0.01, 1000), (0.5, 3), (1e-6, 1_000_000)] {
            let back = 1.0 - (1.0 - fmr_for(fpir, templates)).powf(templates as f64);
            assert!((back / fpir - 1.0).abs() < 1e-3, "{fpir} {templates}: {back}");
        }
        assert!(fmr_for(1e-9, 1_000_000) > 0.0);
    }

    #[test]
    fn too_few_comparisons_show_nothing_and_just_enough_do() {
        // The rule of three and two thirds: the two-sided 95 % limit of no error in n is 1 − 0.025^(1/n), about 3.69/n.
        let enough = comparisons_for(1e-3);
        assert_eq!(enough, 3688);
        let strangers = |count: u64| {
            let scores = (0..count).map(|index| Score::saturating(index as f32 / count as f32 * 0.5));
            let comparisons: Vec<_> = scores.map(|score| Comparison { score, mated: false, fold: 0 }).collect();
            Verification::new(&comparisons)
        };
        assert!(strangers(enough - 1).shown_at(1e-3).is_none());
        let point = strangers(enough).shown_at(1e-3).unwrap();
        assert_eq!(point.fmr, Rate::new(0, enough));
        let point = strangers(100_000).shown_at(1e-3).unwrap();
        let one_more = Rate::new(point.fmr.count + 1, point.fmr.trials);
        assert!(point.fmr.count > 50 && point.fmr.interval().high <= 1e-3 && one_more.interval().high > 1e-3, "{point:?}");
    }
}
