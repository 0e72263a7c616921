//! Error rates of biometric recognition and of presentation-attack detection: scores whose truth is known in, figures out.
//!
//! Terms and definitions are those of ISO/IEC 19795-1:2021 (FMR, FNMR, FPIR, FNIR, failure to enrol) and ISO/IEC 30107-3:2023 (APCER,
//! BPCER, non-response). Every rate comes with its count, its number of trials and an exact 95 % interval ([`interval`]). The intervals
//! take trials as independent; comparisons that share a person are not quite, so they are a little too narrow where people are few.
//! Nothing here reads a file or runs a network.

pub mod alike;
pub mod attack;
pub mod calibration;
pub mod door;
pub mod identification;
pub mod interval;
pub mod plots;
pub mod protocol;
mod raster;
pub mod simulated;
pub mod site;
pub mod tail;
pub mod tally;
pub mod verification;

pub use attack::{AttackDetection, Presentations};
pub use identification::{Identification, Search};
pub use interval::{Balanced, Interval, Rate};
pub use protocol::ProtocolError;
pub use raster::Raster;
pub use verification::{Comparison, Verification};

/// The lowest threshold that lets at most `target` (0 to 1) of `sorted` scores pass, where a score passes at or above it. `sorted`
/// ascends; without scores every threshold does, and the lowest number is given.
fn threshold_for(sorted: &[f32], target: f64) -> f32 {
    // The tiny addition undoes what a product like 0.001 × 3000 may lose to rounding.
    let allowed = (target.clamp(0.0, 1.0) * sorted.len() as f64 + 1e-9).floor() as usize;
    match sorted.len().checked_sub(allowed + 1) {
        Some(first_refused) => sorted[first_refused].next_up(),
        None => sorted.first().copied().unwrap_or(f32::MIN),
    }
}

/// How many of `sorted`, which ascends, are at or above `threshold`.
fn at_or_above(sorted: &[f32], threshold: f32) -> u64 {
    (sorted.len() - sorted.partition_point(|score| *score < threshold)) as u64
}

/// Ascending.
fn sorted(scores: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut scores: Vec<f32> = scores.collect();
    scores.sort_by(f32::total_cmp);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_for_a_target_lets_no_more_pass_and_the_next_lower_one_does() {
        let scores: Vec<f32> = (0..3000u16).map(|index| f32::from(index) / 3000.0).collect();
        for target in [0.0, 1e-4, 1e-3, 1e-2, 0.5] {
            let threshold = threshold_for(&scores, target);
            let allowed = (target * 3000.0).round() as u64;
            assert_eq!(at_or_above(&scores, threshold), allowed, "{target}");
            assert!(at_or_above(&scores, threshold.next_down()) > allowed, "{target}");
        }
        assert_eq!(at_or_above(&scores, threshold_for(&scores, 1.0)), 3000);
        assert_eq!(threshold_for(&[], 0.1), f32::MIN);
    }

    #[test]
    fn equal_scores_are_refused_together_when_they_would_be_too_many() {
        let threshold = threshold_for(&[0.1, 0.5, 0.5, 0.5], 0.25);
        assert_eq!(at_or_above(&[0.1, 0.5, 0.5, 0.5], threshold), 0);
    }
}
