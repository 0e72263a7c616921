//! A template as 16-bit numbers.
//!
//! A row `v` becomes whole numbers `q` with `v ≈ q·2⁻ᵉ`, where `e` is the largest exponent that keeps every `|q|` at or below
//! [`LIMIT`]. The step is a power of two, so `q·2⁻ᵉ` is exact in `f32`, and rounding that again finds the same `e` and the same `q`:
//! the largest `|q|` lies in 16,320 to 32,639, so one exponent more would exceed the limit. A gallery that is written and read any
//! number of times therefore keeps its templates bit for bit.
//!
//! The cosine moves by at most half a step times the square root of the dimension (Cauchy and Schwarz): for 512 numbers of which none
//! exceeds 0.249 that is 0.000086, and in practice some 0.000005.

use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize, Zeroizing};

use super::kernel::{Kernel, prefetch};
use super::locked::Bytes;

/// Numbers in a lane: one cache line of 8-bit numbers.
pub(crate) const LANE: usize = 64;

/// The largest 16-bit level.
pub(super) const LIMIT: f32 = 32_639.0;

/// What is taken off the lower 12 bits of a level, so that they are kept without a sign.
const CENTRE: i32 = 2_048;

/// Bytes of single bits that hold a pair of lanes of a row: the number at `16·f + j` of the pair lies in bit `f` of byte `j`.
pub(super) const EIGHTH: usize = 2 * LANE / 8;

/// Of those, how many lie in the plane that a search reads first: the numbers with a `j` below it.
pub(super) const GLANCED: usize = EIGHTH / 2;

/// Bytes of a plane of two bits that do: the number at `32·f + j` of the pair lies in bits `2·f` and `2·f + 1` of byte `j`.
pub(super) const QUARTER: usize = 2 * LANE / 4;

/// Rows of a plane of single bits that lie together, column by column: a column is one byte of each.
pub(super) const BLOCK: usize = 16;

/// A lane of numbers in `f32`.
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
pub(super) fn largest_of(row: &[f32]) -> f32 {
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
pub(super) fn nearest(value: f32) -> i32 {
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
#[derive(Clone, Copy)]
pub(super) struct Apart {
    coarse: [u8; LANE],
    middle: [u8; LANE],
    low: [u8; LANE],
}

impl Default for Apart {
    fn default() -> Self {
        Self { coarse: [0; LANE], middle: [0; LANE], low: [0; LANE] }
    }
}

impl DefaultIsZeroes for Apart {}

/// A plane of single bits: blocks of [`BLOCK`] rows, column by column.
#[derive(Clone, Copy)]
pub(super) enum Plane {
    /// The first bits of half of the numbers, those of the first [`GLANCED`] bytes of each pair of lanes.
    Glance,
    /// The first bits of the others.
    Rest,
    /// The second bits of all: the columns of the one half, then of the other.
    Next,
}

impl Plane {
    const ALL: [Self; 3] = [Self::Glance, Self::Rest, Self::Next];

    /// Which of the columns of all numbers are in it, for rows of so many pairs of lanes.
    pub(super) fn columns(self, pairs: usize) -> Range<usize> {
        match self {
            Self::Glance => 0..pairs * GLANCED,
            Self::Rest => pairs * GLANCED..pairs * EIGHTH,
            Self::Next => 0..pairs * EIGHTH,
        }
    }

    /// Bytes of a block of rows of so many pairs of lanes.
    fn block(self, pairs: usize) -> usize {
        BLOCK * self.columns(pairs).len()
    }
}

/// Sums over a row: of whole numbers below 2³⁰, at most 4,096 of them, so they are exact.
#[derive(Default)]
pub(super) struct Sums {
    /// Squares of the levels.
    length: i64,
    /// Of what the first bit of half of the numbers stands for, of what all numbers' does, of what the first two do, and of what the
    /// coarse nibble does: products with the levels, and squares.
    glance: [i64; 2],
    signs: [i64; 2],
    tops: [i64; 2],
    coarse: [i64; 2],
}

/// A lane of levels.
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
    pub(super) fn take(&mut self, values: &[f32], scale: f32, half: i32, sums: &mut Sums) {
        // A product that rounds across a border gives the neighbouring nibble, and leaves one more.
        let per_stride = 1.0 / half.wrapping_mul(2) as f32;
        let span = half.wrapping_mul(16);
        let mut levels = Levels::default();
        levels.0.iter_mut().zip(values).for_each(|(level, value)| *level = level_of(value * scale));
        let levels_here = &levels.0[..values.len().min(LANE)];
        // Of 64 products of less than 2^15 with 2^4.
        let (mut glance, mut signs, mut tops, mut coarse) = ([0i32; 2], [0i32; 2], [0i32; 2], [0i32; 2]);
        let parts = self.coarse.iter_mut().zip(&mut self.middle).zip(&mut self.low);
        for (at, (level, ((nibble_out, middle), low))) in levels_here.iter().zip(parts).enumerate() {
            let nibble = nearest(level.wrapping_add(span) as f32 * per_stride - 0.5).clamp(0, 15);
            let stands_for = nibble.wrapping_mul(2).wrapping_sub(15);
            // At most `half` away from nothing, or one more, which is at most 2,041.
            let kept = level.wrapping_sub(half.wrapping_mul(stands_for)).wrapping_add(CENTRE);
            (*nibble_out, *middle, *low) = (nibble as u8, (kept >> 8) as u8, (kept & 0xff) as u8);
            let top = (nibble >> 2).wrapping_mul(2).wrapping_sub(3);
            let sign = (nibble >> 3).wrapping_mul(2).wrapping_sub(1);
            let is_glanced = i32::from(at % EIGHTH < GLANCED);
            let sign_here = sign.wrapping_mul(is_glanced);
            glance = [glance[0].wrapping_add(sign_here.wrapping_mul(*level)), glance[1].wrapping_add(is_glanced)];
            signs = [signs[0].wrapping_add(sign.wrapping_mul(*level)), signs[1].wrapping_add(1)];
            tops = [tops[0].wrapping_add(top.wrapping_mul(*level)), tops[1].wrapping_add(top.wrapping_mul(top))];
            coarse = [
                coarse[0].wrapping_add(stands_for.wrapping_mul(*level)),
                coarse[1].wrapping_add(stands_for.wrapping_mul(stands_for)),
            ];
        }
        let length = levels_here.iter().fold(0i64, |sum, level| sum.wrapping_add(i64::from(level.wrapping_mul(*level))));
        sums.length += length;
        let all = [(&mut sums.glance, glance), (&mut sums.signs, signs), (&mut sums.tops, tops), (&mut sums.coarse, coarse)];
        for (sums, here) in all {
            sums.iter_mut().zip(here).for_each(|(sum, here)| *sum += i64::from(here));
        }
        levels.zeroize();
    }
}

/// Pairs of lanes in a row.
pub(super) fn pairs(dimension: usize) -> usize {
    dimension.div_ceil(2 * LANE)
}

/// Rows of 16-bit levels, taken apart so that a search reads only what it must. With a row's stride `2·half`, a sixteenth of the span
/// from its lowest possible level to its highest, a level is `half·(2·coarse − 15) + 256·middle + low − 2048`: four bits, four, eight.
/// The upper two of the coarse four lie in a plane each, the lower two in one.
#[derive(Default)]
pub(super) struct Planes {
    /// Pairs of lanes in a row.
    pairs: usize,
    rows: usize,
    /// Each [`Plane`] of single bits. What is left of the last block is zero.
    tops: [Bytes; 3],
    /// Rows of `pairs` times [`QUARTER`] bytes.
    seconds: Bytes,
    /// Rows of nibbles, a lane a pair: the first lane's in the lower four bits, the second's in the upper.
    middle: Bytes,
    /// Rows of bytes.
    low: Bytes,
}

/// How an inner product with what some bits of a row stand for tells the row's own. With `w` for what they stand for, `x` for the row
/// and `r` for the part of `w` that is orthogonal to `x`, it is `w·p = (w·x / x·x) x·p + r·p`, so that `x·p` is `gain·(w·p)` but for
/// `gain·(r·p)`, which is at most `gain·|r||p|`, and far less where the directions have nothing to do with each other.
#[derive(Clone, Copy)]
pub(super) struct Estimate {
    /// `x·x / w·x`.
    pub(super) gain: f64,
    /// `|r|`.
    pub(super) left: f64,
}

impl Estimate {
    /// From sums over levels of which one unit is `step`.
    fn of(length: i64, [product, square]: [i64; 2], step: f32) -> Self {
        let (length, product, square) = (length as f64, product as f64, square as f64);
        if product <= 0.0 {
            // Of a row of zeros it is next to nothing and not nothing, so that it divides. Where only the numbers that `w` tells of are
            // zeros, it tells nothing.
            return if length > 0.0 {
                Self { gain: 1.0, left: NOTHING_TOLD }
            } else {
                Self { gain: LEAST_GAIN, left: square.sqrt() }
            };
        }
        let gain = (length / product * f64::from(step)).max(LEAST_GAIN);
        Self { gain, left: (square - product * product / length).max(0.0).sqrt() }
    }
}

/// No gain is less.
const LEAST_GAIN: f64 = 1e-30;

/// An `|r|` with which no row is passed over.
const NOTHING_TOLD: f64 = 1e30;

/// What goes with a row besides its planes.
pub(super) struct Kept {
    /// What one unit of a level is.
    pub(super) step: f32,
    /// Half a step of the coarse nibble, in units of the level.
    pub(super) half: i32,
    /// What the first bits of half of the numbers tell.
    pub(super) glance: Estimate,
    /// What the first bits tell.
    pub(super) signs: Estimate,
    /// What the first two tell.
    pub(super) tops: Estimate,
    /// What the coarse nibbles tell.
    pub(super) coarse: Estimate,
    /// The row's own length.
    pub(super) length: f64,
}

impl Planes {
    /// For rows of so many pairs of lanes, with room for so many.
    pub(super) fn with_capacity(pairs: usize, rows: usize) -> Self {
        let bytes = Bytes::with_capacity;
        Self {
            pairs,
            rows: 0,
            tops: Plane::ALL.map(|plane| bytes(plane.block(pairs) * rows.div_ceil(BLOCK))),
            seconds: bytes(pairs * QUARTER * rows),
            middle: bytes(pairs * LANE * rows),
            low: bytes(pairs * 2 * LANE * rows),
        }
    }

    /// Rounds a row to 16 bits and appends it.
    pub(super) fn push(&mut self, row: &[f32]) -> Kept {
        let kernel = Kernel::best();
        let largest = largest_of(row);
        let (scale, step) = step_of(largest);
        let half = ((level_of(largest * scale) + 15) / 16).max(1);
        let mut sums = Sums::default();
        let at = self.begin_row();
        for (pair, values) in row.chunks(2 * LANE).enumerate() {
            let mut parts = [Apart::default(); 2];
            for (values, part) in values.chunks(LANE).zip(&mut parts) {
                kernel.take_apart(values, scale, half, part, &mut sums);
            }
            let mut tops = [[0; EIGHTH]; 2];
            for (bit, nibbles) in parts.iter().flat_map(|part| part.coarse.as_chunks::<EIGHTH>().0).enumerate() {
                for (at, nibble) in nibbles.iter().enumerate() {
                    tops[0][at] |= (nibble >> 3) << bit;
                    tops[1][at] |= (nibble >> 2 & 1) << bit;
                }
            }
            let [glance, rest, next] = self.last_blocks();
            let (of_glance, of_rest) = next.split_at_mut(glance.len());
            for byte in 0..GLANCED {
                let column = pair * GLANCED + byte;
                (glance[column][at], rest[column][at]) = (tops[0][byte], tops[0][GLANCED + byte]);
                (of_glance[column][at], of_rest[column][at]) = (tops[1][byte], tops[1][GLANCED + byte]);
            }
            let mut seconds = [0; QUARTER];
            for (field, nibbles) in parts.iter().flat_map(|part| part.coarse.as_chunks::<QUARTER>().0).enumerate() {
                nibbles.iter().zip(&mut seconds).for_each(|(nibble, second)| *second |= (nibble & 3) << (2 * field));
            }
            self.seconds.extend_from_slice(&seconds);
            let [first, second] = &parts;
            let mut middle = first.middle;
            middle.iter_mut().zip(&second.middle).for_each(|(lower, upper)| *lower |= upper << 4);
            self.middle.extend_from_slice(&middle);
            self.low.extend_from_slice(&first.low);
            self.low.extend_from_slice(&second.low);
            parts.zeroize();
        }
        let estimate = |of| Estimate::of(sums.length, of, step);
        let [glance, signs, tops, coarse] = [sums.glance, sums.signs, sums.tops, sums.coarse].map(estimate);
        Kept { step, half, glance, signs, tops, coarse, length: (sums.length as f64).sqrt() }
    }

    /// Makes room for a row in the planes of single bits, and gives its place in its block.
    fn begin_row(&mut self) -> usize {
        let at = self.rows % BLOCK;
        if at == 0 {
            self.tops.iter_mut().zip(Plane::ALL).for_each(|(bytes, plane)| bytes.extend_by(plane.block(self.pairs)));
        }
        self.rows += 1;
        at
    }

    /// The columns of each plane's last block.
    fn last_blocks(&mut self) -> [&mut [[u8; BLOCK]]; 3] {
        let (pairs, mut planes) = (self.pairs, Plane::ALL.into_iter());
        self.tops.each_mut().map(|bytes| {
            let block = planes.next().map_or(0, |plane| plane.block(pairs));
            let start = bytes.len() - block;
            bytes[start..].as_chunks_mut().0
        })
    }

    /// The columns of each plane's block that a row lies in.
    fn blocks_of(&self, row: usize) -> [&[[u8; BLOCK]]; 3] {
        Plane::ALL.map(|plane| self.tops(plane, row / BLOCK * BLOCK..row + 1).as_chunks().0)
    }

    /// Appends rows of others of the same width.
    pub(super) fn extend(&mut self, other: &Self, rows: Range<usize>) {
        for (plane, others) in [(&mut self.seconds, &other.seconds), (&mut self.middle, &other.middle), (&mut self.low, &other.low)]
        {
            let width = others.len() / other.rows.max(1);
            plane.extend_from_slice(&others[rows.start * width..rows.end * width]);
        }
        let mut from = rows.start;
        while from < rows.end {
            let source = other.blocks_of(from);
            if self.rows.is_multiple_of(BLOCK) && from.is_multiple_of(BLOCK) && rows.end - from >= BLOCK {
                self.tops.iter_mut().zip(source).for_each(|(plane, source)| plane.extend_from_slice(source.as_flattened()));
                self.rows += BLOCK;
                from += BLOCK;
                continue;
            }
            let at = self.begin_row();
            for (plane, source) in self.last_blocks().into_iter().zip(source) {
                plane.iter_mut().zip(source).for_each(|(column, source)| column[at] = source[from % BLOCK]);
            }
            from += 1;
        }
    }

    /// The blocks of a plane of single bits that some rows lie in, of which the first is the first of a block.
    pub(super) fn tops(&self, plane: Plane, rows: Range<usize>) -> &[u8] {
        debug_assert!(rows.start.is_multiple_of(BLOCK));
        let block = plane.block(self.pairs);
        &self.tops[plane as usize][rows.start / BLOCK * block..rows.end.div_ceil(BLOCK) * block]
    }

    /// The plane of the coarse nibbles' lower two bits.
    pub(super) fn seconds(&self) -> &[u8] {
        &self.seconds
    }

    /// One row.
    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let of = |width: usize| row * self.pairs * width..(row + 1) * self.pairs * width;
        Row {
            tops: self.blocks_of(row),
            at: row % BLOCK,
            seconds: self.seconds[of(QUARTER)].as_chunks().0,
            middle: self.middle[of(LANE)].as_chunks().0,
            low: self.low[of(2 * LANE)].as_chunks().0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.tops.iter().chain([&self.seconds, &self.middle, &self.low]).map(|plane| plane.bytes()).sum()
    }
}

/// A row of [`Planes`].
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The columns of its block, in each plane.
    tops: [&'a [[u8; BLOCK]]; 3],
    /// Its place in the block.
    at: usize,
    seconds: &'a [[u8; QUARTER]],
    middle: &'a [[u8; LANE]],
    low: &'a [[u8; 2 * LANE]],
}

/// A pair of lanes of a row.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    tops: &'a Tops,
    seconds: &'a [u8; QUARTER],
    middle: &'a [u8; LANE],
    low: &'a [u8; 2 * LANE],
}

/// A row's bytes of the planes of single bits for a pair of lanes, gathered.
#[derive(Clone, Copy, Default)]
pub(super) struct Tops([[u8; EIGHTH]; 2]);

impl DefaultIsZeroes for Tops {}

impl Pair<'_> {
    /// The 16-bit levels of the numbers from `16·BIT` on of the pair.
    #[inline(always)]
    pub(super) fn levels<const BIT: usize>(self, half: i16) -> [i16; EIGHTH] {
        let [first, second] = &self.tops.0;
        let seconds = &self.seconds.as_chunks::<EIGHTH>().0[BIT % 2];
        let middle = &self.middle.as_chunks::<EIGHTH>().0[BIT % 4];
        let low = &self.low.as_chunks::<EIGHTH>().0[BIT];
        let mut levels = [0; EIGHTH];
        for at in 0..EIGHTH {
            let tops = (first[at] >> BIT & 1) << 1 | second[at] >> BIT & 1;
            let coarse = tops << 2 | seconds[at] >> (2 * (BIT / 2)) & 3;
            levels[at] = level(half, coarse, middle[at] >> (4 * (BIT / 4)) & 15, low[at]);
        }
        levels
    }

    /// All its levels.
    fn all(self, half: i16) -> [i16; 2 * LANE] {
        let mut all = [0; 2 * LANE];
        let (parts, _) = all.as_chunks_mut::<EIGHTH>();
        parts[0] = self.levels::<0>(half);
        parts[1] = self.levels::<1>(half);
        parts[2] = self.levels::<2>(half);
        parts[3] = self.levels::<3>(half);
        parts[4] = self.levels::<4>(half);
        parts[5] = self.levels::<5>(half);
        parts[6] = self.levels::<6>(half);
        parts[7] = self.levels::<7>(half);
        all
    }
}

impl<'a> Row<'a> {
    /// Asks for what only its score needs.
    pub(super) fn prefetch(self) {
        prefetch(self.middle);
        prefetch(self.low);
    }

    /// The single bits of one pair of its lanes.
    #[inline(always)]
    pub(super) fn gather(self, pair: usize, tops: &mut Tops) {
        let [glance, rest, next] = self.tops;
        let (of_glance, of_rest) = next.split_at(glance.len());
        for (bytes, (first, second)) in tops.0.iter_mut().zip([(glance, rest), (of_glance, of_rest)]) {
            for (bytes, columns) in bytes.as_chunks_mut::<GLANCED>().0.iter_mut().zip([first, second]) {
                let columns = &columns[pair * GLANCED..(pair + 1) * GLANCED];
                bytes.iter_mut().zip(columns).for_each(|(byte, column)| *byte = column[self.at]);
            }
        }
    }

    /// One pair of its lanes, whose single bits were gathered.
    #[inline(always)]
    pub(super) fn pair<'p>(self, pair: usize, tops: &'p Tops) -> Pair<'p>
    where
        'a: 'p,
    {
        Pair { tops, seconds: &self.seconds[pair], middle: &self.middle[pair], low: &self.low[pair] }
    }

    /// Its levels, and a few more where the end is padded.
    pub(super) fn levels(self, half: i32) -> impl Iterator<Item = i32> + 'a {
        (0..self.low.len()).flat_map(move |pair| {
            let mut tops = Zeroizing::new(Tops::default());
            self.gather(pair, &mut tops);
            self.pair(pair, &tops).all(half as i16).into_iter().map(i32::from)
        })
    }

    /// Whether the bytes are the same.
    pub(super) fn is(self, other: Self) -> bool {
        let of = |row: Self| row.tops.into_iter().flatten().map(move |column| column[row.at]);
        of(self).eq(of(other)) && self.seconds == other.seconds && self.middle == other.middle && self.low == other.low
    }
}

/// The 16-bit level of one number. What does not fit on the way does in the end; checked sums would not become vectors.
#[inline(always)]
fn level(half: i16, coarse: u8, middle: u8, low: u8) -> i16 {
    let kept = i16::from_le_bytes([low, middle]).wrapping_sub(CENTRE as i16);
    half.wrapping_mul(2 * i16::from(coarse) - 15).wrapping_add(kept)
}

/// Replaces a row's numbers by those that it is kept as, so that what is written down before it is kept is the same, bit for bit.
pub(crate) fn as_kept(row: &mut [f32]) {
    let (scale, step) = step_of(largest_of(row));
    row.iter_mut().for_each(|value| *value = level_of(*value * scale) as f32 * step);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounded(row: &[f32]) -> (f32, Vec<i32>) {
        let mut planes = Planes::with_capacity(pairs(row.len()), 1);
        let kept = planes.push(row);
        (kept.step, planes.row(0).levels(kept.half).take(row.len()).collect())
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
