//! A template as 16-bit numbers, and a probe as what a scan needs of it.
//!
//! A row `v` becomes whole numbers `q` with `v ≈ q·2⁻ᵉ`, where `e` is the largest exponent that keeps every `|q|` at or below
//! [`LIMIT`]. The step is a power of two, so `q·2⁻ᵉ` is exact in `f32`, and rounding that again finds the same `e` and the same `q`:
//! the largest `|q|` lies in 16,320 to 32,639, so one exponent more would exceed the limit. A gallery that is written and read any
//! number of times therefore keeps its templates bit for bit.
//!
//! The cosine moves by at most half a step times the square root of the dimension (Cauchy and Schwarz): for 512 numbers of which none
//! exceeds 0.249 that is 0.000086, and in practice some 0.000005.

use zeroize::{DefaultIsZeroes, Zeroize};

/// Numbers in a lane: one cache line of 8-bit numbers.
pub(crate) const LANE: usize = 64;

/// The largest 16-bit level: its high part, rounded to nearest, still fits 7 bits and a sign.
pub(super) const LIMIT: f32 = 32_639.0;

/// How much one unit of the high plane is in units of the low one.
pub(super) const HIGH: f32 = 256.0;

/// What rounding in `f32` can add to a score of unit vectors: sums of up to 4,096 products in 32 accumulators, and the handful of
/// operations around them.
const ROUNDING: f32 = 2e-5;

/// A cache line of 8-bit numbers, zero where a row's end is padded.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane(pub(crate) [i8; LANE]);

impl Default for Lane {
    fn default() -> Self {
        Self([0; LANE])
    }
}

impl DefaultIsZeroes for Lane {}

/// As many numbers as a [`Lane`], in `f32`.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct FloatLane(pub(crate) [f32; LANE]);

impl Default for FloatLane {
    fn default() -> Self {
        Self([0.0; LANE])
    }
}

impl DefaultIsZeroes for FloatLane {}

/// The exponent and the step of a row whose largest magnitude is `largest`.
fn step_of(largest: f32) -> (f32, f32) {
    // Unit vectors of up to 4,096 numbers have their largest at 1/64 or more; the bounds keep any other row harmless.
    let largest = largest.clamp(1e-20, 1e20);
    let binade = largest.log2().floor() as i32;
    // The logarithm may round across a binade, so the neighbours are tried too; the first that fits is the largest.
    let fits = |exponent: &i32| (largest * 2f32.powi(*exponent)).round() <= LIMIT;
    let exponent = [15 - binade, 14 - binade].into_iter().find(fits).unwrap_or(13 - binade);
    (2f32.powi(exponent), 2f32.powi(-exponent))
}

/// Rounds `row` to 16 bits: appends its high and its low plane and gives the step of one low unit.
pub(super) fn round(row: &[f32], high: &mut Vec<Lane>, low: &mut Vec<Lane>) -> f32 {
    let largest = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let (scale, step) = step_of(largest);
    for part in row.chunks(LANE) {
        let (mut coarse, mut fine) = (Lane::default(), Lane::default());
        for ((value, coarse), fine) in part.iter().zip(&mut coarse.0).zip(&mut fine.0) {
            let level = (value * scale).round().clamp(-LIMIT, LIMIT) as i32;
            let upper = (level + 128) >> 8;
            (*coarse, *fine) = (upper as i8, (level - (upper << 8)) as i8);
        }
        high.push(coarse);
        low.push(fine);
    }
    step
}

/// Replaces a row's numbers by those that it is kept as, so that what is written down before it is kept is the same, bit for bit.
pub(crate) fn as_kept(row: &mut [f32]) {
    let largest = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let (scale, step) = step_of(largest);
    row.iter_mut().for_each(|value| *value = (*value * scale).round().clamp(-LIMIT, LIMIT) * step);
}

/// The 16-bit level of one number.
pub(super) fn level(high: i8, low: i8) -> i32 {
    (i32::from(high) << 8) + i32::from(low)
}

/// A probe, ready for the scan. No `Debug`: it is biometric data, and cleared when it goes.
pub(crate) struct Probe {
    /// As it came, padded.
    pub(super) exact: Vec<FloatLane>,
    /// Rounded to 8 bits.
    pub(super) coarse: Vec<Lane>,
    /// What one unit of `coarse` is.
    pub(super) step: f32,
    /// The length of what the rounding took away.
    error: f32,
    /// Its length.
    norm: f32,
}

impl Probe {
    /// Takes a probe of any length.
    pub(crate) fn new(values: &[f32]) -> Self {
        let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let lanes = values.len().div_ceil(LANE);
        let (mut exact, mut coarse) = (Vec::with_capacity(lanes), Vec::with_capacity(lanes));
        let (mut error, mut norm) = (0.0f64, 0.0f64);
        for part in values.chunks(LANE) {
            let (mut floats, mut levels) = (FloatLane::default(), Lane::default());
            for ((value, float), level) in part.iter().zip(&mut floats.0).zip(&mut levels.0) {
                let rounded = (value / step).round().clamp(-127.0, 127.0);
                (*float, *level) = (*value, rounded as i8);
                error += f64::from(value - rounded * step).powi(2);
                norm += f64::from(*value).powi(2);
            }
            exact.push(floats);
            coarse.push(levels);
        }
        Self { exact, coarse, step, error: error.sqrt() as f32, norm: norm.sqrt() as f32 }
    }

    /// How far a row's coarse score can lie from its true one, as `a + b·r` for a row no longer than `longest` whose low plane has the
    /// length `r`. With `x = h + l` (high and low plane) and `p = c + d` (coarse and rest), `x·p = h·c + h·d + l·p`, and the last two
    /// are at most `|h||d| + |l||p|`, where `|h| ≤ |x| + |l|`.
    pub(super) fn bound(&self, longest: f32) -> (f32, f32) {
        (longest * (self.error + ROUNDING * self.norm), self.error + self.norm)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.exact.zeroize();
        self.coarse.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounded(row: &[f32]) -> (f32, Vec<i32>) {
        let (mut high, mut low) = (Vec::new(), Vec::new());
        let step = round(row, &mut high, &mut low);
        let levels = high.iter().zip(&low).flat_map(|(h, l)| h.0.into_iter().zip(l.0)).map(|(h, l)| level(h, l));
        (step, levels.take(row.len()).collect())
    }

    #[test]
    fn extreme_rows_stay_within_the_levels() {
        for row in [vec![0.0; 3], vec![1.0], vec![-1.0, 1e-30], vec![0.999_999_94; 65], vec![32_639.5 / 32_768.0, -0.5]] {
            let (step, levels) = rounded(&row);
            for (value, level) in row.iter().zip(levels) {
                assert!(level.abs() <= LIMIT as i32);
                assert!((value - level as f32 * step).abs() <= step / 2.0, "{value} became {level} steps of {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn rounding_what_was_rounded_changes_nothing(
            row in proptest::collection::vec(-1.0f32..1.0, 1..200),
            size in -20i32..=0,
        ) {
            let row: Vec<f32> = row.iter().map(|v| v * 2f32.powi(size)).collect();
            let (step, levels) = rounded(&row);
            let back: Vec<f32> = levels.iter().map(|level| *level as f32 * step).collect();
            for (value, back) in row.iter().zip(&back) {
                prop_assert!((value - back).abs() <= step / 2.0);
            }
            prop_assert_eq!(rounded(&back), (step, levels));
        }

        /// At the edge of a binade and of the limit, where the choice of the exponent turns.
        #[test]
        fn rounding_is_settled_at_the_edges_too(level in 16_310i32..16_400, power in -17i32..=-14, nudge in -4i32..=4) {
            for level in [level, 2 * level, 65_278 - 2 * level] {
                let value = f32::from_bits((level as f32 * 2f32.powi(power)).to_bits().wrapping_add_signed(nudge));
                let (step, levels) = rounded(&[value, value / 3.0]);
                let back: Vec<f32> = levels.iter().map(|level| *level as f32 * step).collect();
                prop_assert_eq!(rounded(&back), (step, levels));
            }
        }
    }
}
