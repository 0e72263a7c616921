//! A probe as what a scan needs of it, and how far what the scan reads can lie from the truth.

use zeroize::{DefaultIsZeroes, Zeroize};

use super::kernel::Kernel;
use super::template::{EIGHTH, FloatLane, GLANCED, LANE, Plane, largest_of, level_of, nearest, pairs};

/// What rounding in `f32` can add to a score of unit vectors: sums of up to 4,096 products in 32 accumulators, and the handful of
/// operations around them.
const ROUNDING: f32 = 2e-5;

/// What `f32` rounds off a sum of up to 4,096 squares in [`SIDE_BY_SIDE`] accumulators is given back.
const LENGTH_UP: f32 = 1.0 + 2e-5;

/// Accumulators that do not wait for each other.
const SIDE_BY_SIDE: usize = 16;

/// Numbers that are all smaller are taken for nothing.
const LEAST: f32 = 1e-30;

/// A lane of 8-bit numbers of a probe.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct ProbeLane(pub(crate) [i8; LANE]);

impl Default for ProbeLane {
    fn default() -> Self {
        Self([0; LANE])
    }
}

impl DefaultIsZeroes for ProbeLane {}

/// An entry for each way that four bits can be.
#[derive(Clone, Copy, Default)]
#[repr(align(16))]
pub(super) struct Table(pub(super) [u8; 16]);

impl DefaultIsZeroes for Table {}

/// What single bits of a row add to its inner product with a probe, one or minus one times a number each, rounded to few bits and
/// looked up four at a time. For each column of a plane of single bits there is a table of its lower four bits and one of its upper.
///
/// Entries are rounded up or down by chance, with the odds that make the expected entry right (one draw a table), so that the sum of
/// the entries that a row picks is off by no more than chance makes it: see [`Probe::reach`].
#[cfg_attr(test, derive(Clone))]
#[derive(Default)]
pub(super) struct Tables {
    /// In the order of the columns of [`Plane::Next`], or as many of them as there are tables for.
    low: Vec<Table>,
    high: Vec<Table>,
    /// Pairs of lanes of the probe.
    pairs: usize,
    /// What one unit of an entry is.
    unit: f32,
    /// How far chance rounds an entry at most.
    rounding: f32,
    /// How far a number is off at most before that.
    off: f32,
    /// What is taken off a sum of entries for the inner product, since an entry is never negative: of the columns that are glanced at,
    /// and of the others.
    offsets: [f32; 2],
    /// Tables that are not all zero, of the same.
    counts: [u32; 2],
}

/// The tables of some columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) low: &'a [Table],
    pub(super) high: &'a [Table],
    /// What one unit of an entry is.
    pub(super) unit: f32,
    /// What is taken off a sum of entries for the inner product.
    pub(super) offset: f32,
    /// How far chance rounds an entry at most.
    rounding: f32,
    /// How far a number is off at most before that.
    off: f32,
    /// Tables that are not all zero.
    count: u32,
}

impl Columns<'_> {
    pub(super) fn len(self) -> usize {
        self.low.len()
    }
}

/// The largest entry but for the rounding: two entries are added in a byte.
const LARGEST_ENTRY: f32 = 120.0;

/// Entries of the tables that are one entry of the rough ones.
const ROUGHNESS: u8 = 4;

/// How many entries of the rough tables a byte holds the sum of.
pub(super) const ENTRIES_A_BYTE: usize = 8;

/// The largest entry of the rough tables.
pub(super) const LARGEST_ROUGH_ENTRY: u8 = (LARGEST_ENTRY as u8 + ROUGHNESS) / ROUGHNESS;

const _: () = assert!(LARGEST_ROUGH_ENTRY as usize * ENTRIES_A_BYTE <= u8::MAX as usize);

/// With which sign each of four numbers counts in each entry: plus where its bit is set.
const SIGNS: [[i16; 16]; 4] = {
    let mut signs = [[-1; 16]; 4];
    let mut at = 0;
    while at < 64 {
        if (at % 16) >> (at / 16) & 1 == 1 {
            signs[at / 16][at % 16] = 1;
        }
        at += 1;
    }
    signs
};

/// Into how many steps a unit of an entry is divided before entries are rounded to units.
const STEPS: f32 = 256.0;

/// How many steps a number is off at most: half of one, and what `f32` loses of it.
const STEPS_OFF: f32 = 0.51;

impl Tables {
    /// Those of a plane's columns.
    pub(super) fn of(&self, plane: Plane) -> Columns<'_> {
        let columns = plane.columns(self.pairs);
        let ([glance, rest], [few, more]) = (self.offsets, self.counts);
        let (offset, count) = match plane {
            Plane::Glance => (glance, few),
            Plane::Rest => (rest, more),
            Plane::Next => (glance + rest, few.wrapping_add(more)),
        };
        Columns {
            low: &self.low[columns.clone()],
            high: &self.high[columns],
            unit: self.unit,
            offset,
            rounding: self.rounding,
            off: self.off,
            count,
        }
    }

    /// Fills them in for a probe.
    #[inline(always)]
    fn draw(&mut self, probe: &[FloatLane], random: &mut fastrand::Rng) {
        let mut largest = [0.0f32; EIGHTH];
        for lane in probe {
            // What the numbers of each table can add at most.
            let mut most = [0.0f32; EIGHTH];
            for numbers in lane.0.as_chunks::<EIGHTH>().0 {
                most.iter_mut().zip(numbers).for_each(|(most, number)| *most += number.abs());
            }
            largest.iter_mut().zip(most).for_each(|(largest, most)| *largest = if most > *largest { most } else { *largest });
        }
        let largest = largest.into_iter().fold(0.0, f32::max);
        self.unit = if largest > LEAST { 2.0 * largest / LARGEST_ENTRY } else { 1.0 };
        (self.rounding, self.off) = (self.unit, STEPS_OFF * self.unit / STEPS);
        let steps_per_one = STEPS / self.unit;
        let (mut offsets, mut counts) = ([0i32; EIGHTH], [0u32; EIGHTH]);
        self.pairs = probe.len() / 2;
        for tables in [&mut self.low, &mut self.high] {
            tables.resize(self.pairs * EIGHTH, Table::default());
        }
        for (lane, numbers) in probe.iter().enumerate() {
            let (pair, tables) = (lane / 2, if lane % 2 == 0 { &mut self.low } else { &mut self.high });
            let mut steps = [0i16; LANE];
            steps.iter_mut().zip(&numbers.0).for_each(|(steps, number)| *steps = nearest(number * steps_per_one) as i16);
            // By chance up or down, with the odds of the fraction.
            let mut froms = [0i16; EIGHTH];
            for eight in froms.as_chunks_mut::<8>().0 {
                let draws = random.u64(..).to_le_bytes();
                eight.iter_mut().zip(draws).for_each(|(from, draw)| *from = i16::from(draw));
            }
            for at in 0..EIGHTH {
                let most = (0..4).fold(0i16, |most, bit| most.wrapping_add(steps[EIGHTH * bit + at].wrapping_abs()));
                froms[at] = froms[at].wrapping_add(most);
                offsets[at] = offsets[at].wrapping_add(i32::from(most));
                counts[at] = counts[at].wrapping_add(u32::from(most > 0));
            }
            for at in 0..EIGHTH {
                // At most twice 60 units, two steps and what was drawn: within 15 bits.
                let mut entries = [froms[at]; 16];
                for (bit, signs) in SIGNS.iter().enumerate() {
                    let number = steps[EIGHTH * bit + at];
                    entries.iter_mut().zip(signs).for_each(|(entry, sign)| *entry = entry.wrapping_add(number.wrapping_mul(*sign)));
                }
                // The column's place: those of the half that is glanced at are before all others.
                let table = &mut tables[at / GLANCED * self.pairs * GLANCED + pair * GLANCED + at % GLANCED];
                table.0.iter_mut().zip(entries).for_each(|(out, entry)| *out = (entry.cast_unsigned() >> 8) as u8);
            }
        }
        let (first, second) = offsets.split_at(GLANCED);
        self.offsets = [first, second].map(|offsets| offsets.iter().sum::<i32>() as f32 * self.unit / STEPS);
        let (first, second) = counts.split_at(GLANCED);
        self.counts = [first, second].map(|counts| counts.iter().sum());
    }

    /// Fills them in from others, of the columns that are glanced at alone. What is left of an entry is rounded by chance again.
    #[inline(always)]
    fn roughen(&mut self, others: &Self, random: &mut fastrand::Rng) {
        self.pairs = others.pairs;
        self.unit = f32::from(ROUGHNESS) * others.unit;
        (self.rounding, self.off) = (self.unit + others.unit, others.off);
        (self.offsets, self.counts) = ([others.offsets[0], 0.0], [others.counts[0], 0]);
        for (tables, others) in [(&mut self.low, &others.low), (&mut self.high, &others.high)] {
            tables.resize(others.len() / 2, Table::default());
            for (tables, others) in tables.as_chunks_mut::<GLANCED>().0.iter_mut().zip(others.as_chunks::<GLANCED>().0) {
                let mut draws = random.u32(..);
                for (table, other) in tables.iter_mut().zip(others) {
                    let more = draws as u8 % ROUGHNESS;
                    draws >>= 4;
                    for at in 0..16 {
                        table.0[at] = other.0[at].wrapping_add(more) / ROUGHNESS;
                    }
                }
            }
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.low.zeroize();
        self.high.zeroize();
    }
}

/// How many standard deviations a sum of chances is never off by: the chance of more is below `exp(−5.68²/2) = 10⁻⁷`, and of the
/// normal distribution, which the sums are all but, below 10⁻⁸.
pub(super) const TAIL: f32 = 5.68;

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
    /// What single bits add.
    pub(super) tables: Tables,
    /// The same more roughly, of the columns that are glanced at alone.
    pub(super) rough: Tables,
    /// Numbers in it.
    dimension: usize,
    /// The length of what the rounding took away.
    error: f32,
    /// Its length.
    norm: f32,
}

/// How far the scores of some rows can lie from what inner products tell.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// Added to an inner product, which may be too small by as much.
    pub(super) product: f32,
    /// Times a row's slack.
    pub(super) per_slack: f32,
}

impl Probe {
    /// Takes a probe of any length.
    pub(crate) fn new(values: &[f32]) -> Self {
        let (exact, coarse, tables, rough) = (Vec::new(), Vec::new(), Tables::default(), Tables::default());
        let dimension = values.len();
        let mut probe = Self { exact, coarse, step: 1.0, sum: 0, tables, rough, dimension, error: 0.0, norm: 0.0 };
        Kernel::best().take(&mut probe, values);
        probe
    }

    /// Fills in everything; the same on every processor.
    #[inline(always)]
    pub(super) fn take(&mut self, values: &[f32]) {
        let lanes = 2 * pairs(values.len());
        self.exact.resize(lanes, FloatLane::default());
        self.coarse.resize(lanes, ProbeLane::default());
        self.exact.iter_mut().zip(values.chunks(LANE)).for_each(|(lane, part)| lane.0[..part.len()].copy_from_slice(part));
        // What is next to nothing does not divide.
        self.step = largest_of(values).max(LEAST) / 127.0;
        let per_step = 1.0 / self.step;
        // In steps, so that squares are neither too large nor too small for `f32`.
        let (mut errors, mut norms, mut sums) = ([0.0f32; SIDE_BY_SIDE], [0.0f32; SIDE_BY_SIDE], [0i32; SIDE_BY_SIDE]);
        for (floats, levels) in self.exact.iter().zip(&mut self.coarse) {
            let (floats, levels) = (floats.0.as_chunks().0, levels.0.as_chunks_mut().0);
            for (floats, levels) in floats.iter().zip(levels) {
                let (floats, levels): (&[f32; SIDE_BY_SIDE], &mut [i8; SIDE_BY_SIDE]) = (floats, levels);
                let mut rounded = [0i32; SIDE_BY_SIDE];
                for at in 0..SIDE_BY_SIDE {
                    let value = floats[at] * per_step;
                    rounded[at] = level_of(value).clamp(-127, 127);
                    let left = value - rounded[at] as f32;
                    errors[at] += left * left;
                    norms[at] += value * value;
                }
                for at in 0..SIDE_BY_SIDE {
                    levels[at] = rounded[at] as i8;
                    sums[at] = sums[at].wrapping_add(rounded[at]);
                }
            }
        }
        self.sum = sums.iter().fold(0, |sum, of| sum.wrapping_add(*of));
        let length = |squares: &[f32]| squares.iter().map(|sum| f64::from(*sum)).sum::<f64>().sqrt() as f32 * LENGTH_UP;
        // Of a value in steps up to 127 some 10⁻⁵ are rounded away before it is.
        self.error = self.step * (length(&errors) + 2e-5 * (self.dimension as f32).sqrt());
        self.norm = self.step * length(&norms);
        let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
        self.tables.draw(&self.exact, &mut random);
        self.rough.roughen(&self.tables, &mut random);
    }

    /// How far rows' scores can lie from what their inner products tell, in which the sums over some tables count `times`. Of a row's
    /// `|r|` (see [`Estimate`](super::template::Estimate)) none is below `least_left`.
    ///
    /// Templates lie under a secret random rotation, so that a probe's direction apart from a row and a row's `r` have nothing to do
    /// with each other: `r·p` is at most `|r||p|` times the first coordinate of a random direction in one dimension less, which is
    /// above `t` with a chance below `exp(−t²(d − 1)/2)`. The tables' entries are rounded by independent chances of a unit each, or of
    /// two units that together are `u`, so that their sum is off by `s·u` with a chance below `exp(−2s²/n)` for `n` of them (Hoeffding,
    /// 1963); sums over two planes of the same tables count as if the chances of both were one. Both are as the normal distribution's
    /// at most, and so is their sum; [`TAIL`] of its deviations are allowed for. Where the dimension is so small that this is more than
    /// can be at all, what can be at all counts.
    ///
    /// A row is missed only if it is among the best and one of its own four estimates is off by more: at most four times in 10⁷ searches,
    /// not in 10⁷ rows; by the normal distribution less than once.
    pub(super) fn reach(&self, tables: Columns<'_>, times: f32, least_left: f32) -> Reach {
        let freedoms = (self.dimension.saturating_sub(1) as f32).sqrt();
        let (rounding, count) = (times * tables.rounding, tables.count as f32);
        let rounding_of_all = rounding / 2.0 * count.sqrt();
        let ratio = rounding_of_all * freedoms / (self.norm * least_left);
        let per_slack = TAIL * self.norm / freedoms * (1.0 + ratio * ratio).sqrt();
        // Of every number, also where those of a table round to nothing: eight a column.
        let off = times * tables.off * (8 * tables.len()) as f32;
        // Neither where it is no number.
        if per_slack < self.norm {
            return Reach { product: off, per_slack };
        }
        Reach { product: rounding * count + off, per_slack: self.norm }
    }

    /// How far an inner product with what two bits stand for can lie from the same with `coarse` times `step`.
    pub(super) fn rounding_of_two_bits(&self) -> f32 {
        3.0 * (self.dimension as f32).sqrt() * self.error
    }

    /// What rounding in `f32` can add to the score of a row no longer than `longest`.
    pub(super) fn rounding(&self, longest: f32) -> f32 {
        longest * ROUNDING * self.norm
    }
}

#[cfg(test)]
impl Probe {
    /// Whether another is the same to the last bit.
    pub(super) fn is(&self, other: &Self) -> bool {
        let numbers = |probe: &Self| [probe.step, probe.error, probe.norm].map(f32::to_bits);
        let exact = |probe: &Self| probe.exact.iter().flat_map(|lane| lane.0.map(f32::to_bits)).collect::<Vec<_>>();
        let coarse = |probe: &Self| (probe.coarse.iter().flat_map(|lane| lane.0).collect::<Vec<_>>(), probe.sum);
        let same = self.tables.is(&other.tables) && self.rough.is(&other.rough);
        same && (numbers(self), exact(self), coarse(self)) == (numbers(other), exact(other), coarse(other))
    }
}

#[cfg(test)]
impl Tables {
    /// Makes every entry the same.
    pub(super) fn fill(&mut self, entry: u8) {
        self.low.iter_mut().chain(&mut self.high).for_each(|table| *table = Table([entry; 16]));
    }

    fn is(&self, other: &Self) -> bool {
        let entries = |tables: &Self| tables.low.iter().chain(&tables.high).flat_map(|table| table.0).collect::<Vec<_>>();
        let numbers = |tables: &Self| ([tables.unit, tables.offsets[0], tables.offsets[1]].map(f32::to_bits), tables.counts);
        (entries(self), numbers(self)) == (entries(other), numbers(other))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.exact.zeroize();
        self.coarse.zeroize();
    }
}
