//! A template as 16-bit numbers, and a probe as what a scan needs of it.
//!
//! A row `v` becomes whole numbers `q` with `v ≈ q·2⁻ᵉ`, where `e` is the largest exponent that keeps every `|q|` at or below
//! [`LIMIT`]. The step is a power of two, so `q·2⁻ᵉ` is exact in `f32`, and rounding that again finds the same `e` and the same `q`:
//! the largest `|q|` lies in 16,320 to 32,639, so one exponent more would exceed the limit. A gallery that is written and read any
//! number of times therefore keeps its templates bit for bit.
//!
//! The cosine moves by at most half a step times the square root of the dimension (Cauchy and Schwarz): for 512 numbers of which none
//! exceeds 0.249 that is 0.000086, and in practice some 0.000005.

use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

use super::kernel::Kernel;
use super::locked::Lanes;

/// Numbers in a lane: one cache line of 8-bit numbers.
pub(crate) const LANE: usize = 64;

/// The largest 16-bit level.
pub(super) const LIMIT: f32 = 32_639.0;

/// What is taken off the lower 12 bits of a level, so that they are kept without a sign.
const CENTRE: i32 = 2_048;

/// What rounding in `f32` can add to a score of unit vectors: sums of up to 4,096 products in 32 accumulators, and the handful of
/// operations around them.
const ROUNDING: f32 = 2e-5;

/// A cache line of a plane, zero where a row's end is padded.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane(pub(crate) [u8; LANE]);

impl Default for Lane {
    fn default() -> Self {
        Self([0; LANE])
    }
}

impl DefaultIsZeroes for Lane {}

impl Lane {
    /// Two lanes of nibbles as one: these in the lower four bits, those of another in the upper.
    fn with_upper(&self, other: &Self) -> Self {
        let mut both = *self;
        both.0.iter_mut().zip(&other.0).for_each(|(lower, upper)| *lower |= upper << 4);
        both
    }
}

/// As many 8-bit numbers of a probe as a [`Lane`] has of a row.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct ProbeLane(pub(crate) [i8; LANE]);

impl Default for ProbeLane {
    fn default() -> Self {
        Self([0; LANE])
    }
}

impl DefaultIsZeroes for ProbeLane {}

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

/// The largest magnitude. Magnitudes are in the order of their bits, and those the compiler compares many at a time.
fn largest_of(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().fold(0, |most, v| most.max(v.abs().to_bits())))
}

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

/// The whole number nearest to one of less than 2²² in size, of two the even one: where a number lies by 1.5·2²³ its last bit is worth
/// one. Casts say what becomes of any number, which the compiler makes no vectors of.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    (value + BY_ONES).to_bits().cast_signed().wrapping_sub(BY_ONES.to_bits().cast_signed())
}

/// Where the numbers of 24 bits are whole.
const BY_ONES: f32 = 12_582_912.0;

/// The level that a number of steps rounds to: what [`f32::round`] gives, halves away from zero. Of what is no number, any.
#[inline(always)]
pub(super) fn level_of(steps: f32) -> i32 {
    // What is far outside stays outside, and is counted right.
    let steps = steps.clamp(-LIMIT - 1.0, LIMIT + 1.0);
    let near = nearest(steps);
    let left = steps - near as f32;
    let (up, down) = (i32::from(left >= 0.5) & i32::from(steps > 0.0), i32::from(left <= -0.5) & i32::from(steps < 0.0));
    near.wrapping_add(up).wrapping_sub(down).clamp(-LIMIT as i32, LIMIT as i32)
}

/// A lane of levels taken apart, a byte for each of a level's three parts.
#[derive(Default)]
pub(super) struct Apart {
    coarse: Lane,
    middle: Lane,
    low: Lane,
}

/// Sums of squares over a row: whole numbers below 2³⁰, at most 4,096 of them, so the sums are exact.
#[derive(Default)]
pub(super) struct Squares {
    /// Of the levels.
    length: i64,
    /// Of what the coarse nibbles leave.
    rest: i64,
    /// Of twice what both nibbles leave.
    twice_fine: i64,
}

/// As many levels as a [`Lane`] has bytes.
#[derive(Clone, Copy)]
struct Levels([i32; LANE]);

impl Default for Levels {
    fn default() -> Self {
        Self([0; LANE])
    }
}

impl DefaultIsZeroes for Levels {}

impl Apart {
    /// Takes up to [`LANE`] numbers apart, `scale` times as large.
    ///
    /// Sums wrap where they cannot: a check for overflow in the loop keeps the compiler from making vectors of it.
    #[inline(always)]
    pub(super) fn take(&mut self, values: &[f32], scale: f32, half: i32, squares: &mut Squares) {
        // A product that rounds across a border gives the neighbouring nibble, and leaves one more.
        let per_stride = 1.0 / half.wrapping_mul(2) as f32;
        let span = half.wrapping_mul(16);
        let mut levels = Levels::default();
        levels.0.iter_mut().zip(values).for_each(|(level, value)| *level = level_of(value * scale));
        let levels_here = &levels.0[..values.len().min(LANE)];
        // Of 64 numbers of less than 2^12 in size.
        let (mut rest, mut twice_fine) = (0i32, 0i32);
        let parts = self.coarse.0.iter_mut().zip(&mut self.middle.0).zip(&mut self.low.0);
        for (level, ((coarse, middle), low)) in levels_here.iter().zip(parts) {
            let nibble = nearest(level.wrapping_add(span) as f32 * per_stride - 0.5).clamp(0, 15);
            // At most `half` away from nothing, or one more, which is at most 2,041.
            let left = level.wrapping_sub(half.wrapping_mul(nibble.wrapping_mul(2).wrapping_sub(15)));
            let kept = left.wrapping_add(CENTRE);
            let fine = (kept & 0xff).wrapping_mul(2).wrapping_sub(TWICE_LOW_CENTRE);
            (*coarse, *middle, *low) = (nibble as u8, (kept >> 8) as u8, (kept & 0xff) as u8);
            rest = rest.wrapping_add(left.wrapping_mul(left));
            twice_fine = twice_fine.wrapping_add(fine.wrapping_mul(fine));
        }
        let length = levels_here.iter().fold(0i64, |sum, level| sum.wrapping_add(i64::from(level.wrapping_mul(*level))));
        squares.length += length;
        squares.rest += i64::from(rest);
        squares.twice_fine += i64::from(twice_fine);
        levels.zeroize();
    }
}

/// Lanes in a nibble plane's row, each with the nibbles of two lanes of numbers: the first in the lower four bits of its bytes, the
/// second in the upper four.
pub(super) fn pairs(dimension: usize) -> usize {
    dimension.div_ceil(2 * LANE)
}

/// Rows of 16-bit levels, taken apart so that a search reads only what it must. With a row's stride `2·half`, a sixteenth of the span
/// from its lowest possible level to its highest, a level is `half·(2·coarse − 15) + 256·middle + low − 2048`: four bits, four, eight.
#[derive(Default)]
pub(super) struct Planes {
    /// Nibbles, [`pairs`] lanes a row.
    pub(super) coarse: Lanes,
    /// Nibbles, [`pairs`] lanes a row.
    pub(super) middle: Lanes,
    /// Bytes, twice as many lanes.
    pub(super) low: Lanes,
}

/// What goes with a row besides its planes.
pub(super) struct Kept {
    /// What one unit of a level is.
    pub(super) step: f32,
    /// Half a step of the coarse nibble, in units of the level.
    pub(super) half: i32,
    /// The length of what the coarse nibbles leave, in units of the level.
    pub(super) rest: f64,
    /// The length of what both nibbles leave.
    pub(super) fine_rest: f64,
    /// The row's own length.
    pub(super) length: f64,
}

impl Planes {
    /// With room for so many lanes of nibbles.
    pub(super) fn with_capacity(lanes_of_nibbles: usize) -> Self {
        let lanes = Lanes::with_capacity;
        Self { coarse: lanes(lanes_of_nibbles), middle: lanes(lanes_of_nibbles), low: lanes(2 * lanes_of_nibbles) }
    }

    /// Rounds a row to 16 bits and appends it.
    pub(super) fn push(&mut self, row: &[f32]) -> Kept {
        let kernel = Kernel::best();
        let largest = largest_of(row);
        let (scale, step) = step_of(largest);
        let half = ((level_of(largest * scale) + 15) / 16).max(1);
        let mut squares = Squares::default();
        for pair in row.chunks(2 * LANE) {
            let mut parts = [Apart::default(), Apart::default()];
            for (values, part) in pair.chunks(LANE).zip(&mut parts) {
                kernel.take_apart(values, scale, half, part, &mut squares);
            }
            let [first, second] = parts;
            self.coarse.push(first.coarse.with_upper(&second.coarse));
            self.middle.push(first.middle.with_upper(&second.middle));
            self.low.extend_from_slice(&[first.low, second.low]);
        }
        let root = |sum: i64| (sum as f64).sqrt();
        Kept { step, half, rest: root(squares.rest), fine_rest: root(squares.twice_fine) / 2.0, length: root(squares.length) }
    }

    /// Appends rows of others, `pairs` lanes each.
    pub(super) fn extend(&mut self, other: &Self, rows: Range<usize>, pairs: usize) {
        let lanes = rows.start * pairs..rows.end * pairs;
        self.coarse.extend_from_slice(&other.coarse[lanes.clone()]);
        self.middle.extend_from_slice(&other.middle[lanes.clone()]);
        self.low.extend_from_slice(&other.low[2 * lanes.start..2 * lanes.end]);
    }

    /// One row of `pairs` lanes.
    pub(super) fn row(&self, row: usize, pairs: usize) -> Row<'_> {
        let lanes = row * pairs..(row + 1) * pairs;
        Row {
            coarse: &self.coarse[lanes.clone()],
            middle: &self.middle[lanes.clone()],
            low: &self.low[2 * lanes.start..2 * lanes.end],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.coarse.bytes() + self.middle.bytes() + self.low.bytes()
    }
}

/// Twice the middle of what a low byte can be.
const TWICE_LOW_CENTRE: i32 = 255;

/// What is added to 256 times the middle nibble for what it tells of a level, the low byte taken as its middle.
pub(super) const MIDDLE_CENTRE: f32 = TWICE_LOW_CENTRE as f32 / 2.0 - CENTRE as f32;

/// A row of [`Planes`].
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) coarse: &'a [Lane],
    pub(super) middle: &'a [Lane],
    pub(super) low: &'a [Lane],
}

impl<'a> Row<'a> {
    /// Its levels, and a few more where the end is padded.
    pub(super) fn levels(self, half: i32) -> impl Iterator<Item = i32> + 'a {
        let pairs = self.coarse.iter().zip(self.middle).zip(self.low.chunks_exact(2));
        pairs.flat_map(move |((coarse, middle), low)| {
            (0..2 * LANE).map(move |at| {
                let (lane, byte) = (at / LANE, at % LANE);
                let nibble = |plane: &Lane| plane.0[byte] >> (4 * lane) & 15;
                level(half, nibble(coarse), nibble(middle), low[lane].0[byte])
            })
        })
    }

    /// Whether the bytes are the same.
    pub(super) fn is(self, other: Self) -> bool {
        let same = |a: &[Lane], b: &[Lane]| a.iter().zip(b).all(|(a, b)| a.0 == b.0);
        same(self.coarse, other.coarse) && same(self.middle, other.middle) && same(self.low, other.low)
    }
}

/// The 16-bit level of one number.
#[inline(always)]
pub(super) fn level(half: i32, coarse: u8, middle: u8, low: u8) -> i32 {
    // Far within 32 bits; checked sums would not become vectors.
    half.wrapping_mul(2 * i32::from(coarse) - 15).wrapping_add((i32::from(middle) << 8) + i32::from(low) - CENTRE)
}

/// Replaces a row's numbers by those that it is kept as, so that what is written down before it is kept is the same, bit for bit.
pub(crate) fn as_kept(row: &mut [f32]) {
    let (scale, step) = step_of(largest_of(row));
    row.iter_mut().for_each(|value| *value = level_of(*value * scale) as f32 * step);
}

/// A probe, ready for the scan. No `Debug`: it is biometric data, and cleared when it goes.
pub(crate) struct Probe {
    /// As it came, padded to whole pairs of lanes.
    pub(super) exact: Vec<FloatLane>,
    /// Rounded to 8 bits.
    pub(super) coarse: Vec<ProbeLane>,
    /// What one unit of `coarse` is.
    pub(super) step: f32,
    /// The sum of `coarse`.
    pub(super) sum: i32,
    /// The length of what the rounding took away.
    error: f32,
    /// Its length.
    norm: f32,
}

impl Probe {
    /// Takes a probe of any length.
    pub(crate) fn new(values: &[f32]) -> Self {
        let largest = largest_of(values);
        let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        // Rounded twice, so now and then to the neighbour of the nearest level: the error counts it.
        let per_step = 1.0 / step;
        let lanes = 2 * pairs(values.len());
        let (mut exact, mut coarse) = (Vec::with_capacity(lanes), Vec::with_capacity(lanes));
        let (mut error, mut norm, mut sum) = (0.0f64, 0.0f64, 0i32);
        for part in values.chunks(LANE) {
            let (mut floats, mut levels) = (FloatLane::default(), ProbeLane::default());
            for ((value, float), level) in part.iter().zip(&mut floats.0).zip(&mut levels.0) {
                let rounded = level_of(value * per_step).clamp(-127, 127);
                (*float, *level) = (*value, rounded as i8);
                sum = sum.wrapping_add(rounded);
                let left = f64::from(value - rounded as f32 * step);
                error += left * left;
                norm += f64::from(*value) * f64::from(*value);
            }
            exact.push(floats);
            coarse.push(levels);
        }
        exact.resize(lanes, FloatLane::default());
        coarse.resize(lanes, ProbeLane::default());
        Self { exact, coarse, step, sum, error: error.sqrt() as f32, norm: norm.sqrt() as f32 }
    }

    /// How far a row's score by some of its planes can lie from its true one, as `a + b·r` for a row no longer than `longest` of which
    /// the planes left out have the length `r`. With `x = h + l` (what is looked at, and what is left out) and `p = c + d` (coarse and
    /// rest), `x·p = h·c + h·d + l·p`, and the last two are at most `|h||d| + |l||p|`, where `|h| ≤ |x| + |l|`.
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
        let mut planes = Planes::default();
        let kept = planes.push(row);
        (kept.step, planes.row(0, pairs(row.len())).levels(kept.half).take(row.len()).collect())
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
