//! Scores. Comparison scores and presentation-attack scores are different types, so that their thresholds cannot be swapped.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number outside its score's range, or no number at all.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("{value} is outside {low} to {high}")]
pub struct OutOfRange {
    /// What was given.
    pub value: f32,
    /// The lowest value allowed.
    pub low: f32,
    /// The highest value allowed.
    pub high: f32,
}

macro_rules! score {
    ($(#[$doc:meta])* $name:ident, $low:literal, $high:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f32", into = "f32")]
        pub struct $name(f32);

        impl $name {
            /// The lowest score.
            pub const MIN: Self = Self($low);
            /// The highest score.
            pub const MAX: Self = Self($high);

            /// Takes a finite number in the range.
            pub fn new(value: f32) -> Result<Self, OutOfRange> {
                if ($low..=$high).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(OutOfRange { value, low: $low, high: $high })
                }
            }

            /// Takes any number: what rounding pushed out of the range is brought back, NaN becomes the lowest score.
            pub fn saturating(value: f32) -> Self {
                if value.is_nan() { Self::MIN } else { Self(value.clamp($low, $high)) }
            }

            /// The number.
            pub fn value(self) -> f32 {
                self.0
            }
        }

        impl TryFrom<f32> for $name {
            type Error = OutOfRange;
            fn try_from(value: f32) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl From<$name> for f32 {
            fn from(score: $name) -> f32 {
                score.0
            }
        }
    };
}

score!(
    /// A comparison score: the cosine of a probe and a reference, -1 to 1, higher is more alike.
    Score,
    -1.0,
    1.0
);
score!(
    /// A presentation-attack-detection score (ISO/IEC 30107-3): 0 is surely an attack, 1 is surely bona fide.
    PadScore,
    0.0,
    1.0
);

impl PadScore {
    /// What several frames of one face come to: the lower of their mean and their median, so that neither one lucky frame nor one in the
    /// middle stands for all. `None` without a score.
    pub fn fuse(scores: impl IntoIterator<Item = PadScore>) -> Option<PadScore> {
        let mut sorted: Vec<f32> = scores.into_iter().map(PadScore::value).collect();
        sorted.sort_by(f32::total_cmp);
        // The lower of the two in the middle, where there are two.
        let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        #[expect(clippy::cast_precision_loss, reason = "a visit's scores are few")]
        let mean = sorted.iter().sum::<f32>() / sorted.len() as f32;
        Some(PadScore::saturating(median.min(mean)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_score_is_refused() {
        for value in [f32::NAN, f32::INFINITY, 1.01, -1.01] {
            assert!(Score::new(value).is_err());
        }
        assert!(PadScore::new(-0.01).is_err());
    }

    #[test]
    fn one_lucky_frame_is_no_liveness_and_one_bad_frame_counts() {
        let fused = |scores: &[f32]| {
            let fused = PadScore::fuse(scores.iter().map(|score| PadScore::new(*score).unwrap()));
            fused.map(|score| (score.value() * 100.0).round() / 100.0)
        };
        assert_eq!(fused(&[]), None);
        assert_eq!(fused(&[0.5, 0.5, 1.0]), Some(0.5));
        assert_eq!(fused(&[0.9, 0.9, 0.0]), Some(0.6));
        assert_eq!(fused(&[0.4, 0.8]), Some(0.4));
    }

    #[test]
    fn nan_saturates_to_the_lowest_score_and_so_can_only_deny() {
        assert_eq!(Score::saturating(f32::NAN), Score::MIN);
        assert_eq!(PadScore::saturating(f32::NAN).value(), 0.0);
        assert_eq!(Score::saturating(1.000_001), Score::MAX);
    }
}
