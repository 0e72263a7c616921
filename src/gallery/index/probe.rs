//! A probe as what a scan needs of it, and how far what the scan reads can lie from the truth.

use zeroize::{DefaultIsZeroes, Zeroize};

use super::kernel::Kernel;
use super::template::{EIGHTH, FloatLane, GLANCED, LANE, Plane, largest_of, level_of, nearest, pairs};

/// What rounding in `f32` can add to a score of unit vectors: sums of up to 4,096 products in 32 accumulators, and the handful of
/// operations around them.
const ROUNDING: f32 = 2e-5;

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

/// What single bits of a row add to its inner product with a probe, one or minus one times a number each, rounded to seven bits and
/// looked up four at a time. For each column of a plane of single bits there is a table of its lower four bits and one of its upper.
///
/// Entries are rounded up or down by chance, with the odds that make the expected entry right (one draw a table), so that the sum of
/// the entries that a row picks is off by no more than chance makes it: see [`Probe::reach`].
#[cfg_attr(test, derive(Clone))]
#[derive(Default)]
pub(super) struct Tables {
    /// In the order of the columns of [`Plane::Next`].
    low: Vec<[u8; 16]>,
    high: Vec<[u8; 16]>,
    /// What one unit of an entry is.
    unit: f32,
    /// What is taken off a sum of entries for the inner product, since an entry is never negative: of the columns that are glanced at,
    /// and of the others.
    offsets: [f32; 2],
    /// Tables that are not all zero, of the same.
    counts: [u32; 2],
}

/// The tables of some columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) low: &'a [[u8; 16]],
    pub(super) high: &'a [[u8; 16]],
    /// What is taken off a sum of entries for the inner product.
    pub(super) offset: f32,
    /// Tables that are not all zero.
    count: u32,
}

impl Columns<'_> {
    pub(super) fn len(self) -> usize {
        self.low.len()
    }
}

/// The largest entry but for the rounding: two entries are added in a byte.
const LARGEST_ENTRY: f32 = 126.0;

/// With which sign each of four numbers counts in each entry: plus where its bit is set.
const SIGNS: [[f32; 16]; 4] = {
    let mut signs = [[-1.0; 16]; 4];
    let mut at = 0;
    while at < 64 {
        if (at % 16) >> (at / 16) & 1 == 1 {
            signs[at / 16][at % 16] = 1.0;
        }
        at += 1;
    }
    signs
};

impl Tables {
    /// What one unit of an entry is.
    pub(super) fn unit(&self) -> f32 {
        self.unit
    }

    /// Those of a plane's columns.
    pub(super) fn of(&self, plane: Plane) -> Columns<'_> {
        let columns = plane.columns(self.low.len() / EIGHTH);
        let ([glance, rest], [few, more]) = (self.offsets, self.counts);
        let (offset, count) = match plane {
            Plane::Glance => (glance, few),
            Plane::Rest => (rest, more),
            Plane::Next => (glance + rest, few.wrapping_add(more)),
        };
        Columns { low: &self.low[columns.clone()], high: &self.high[columns], offset, count }
    }

    /// Fills them in for a probe.
    #[inline(always)]
    fn draw(&mut self, probe: &[FloatLane]) {
        // What the numbers of each table of a lane can add at most.
        let mosts = |lane: &FloatLane| {
            let mut most = [0.0f32; EIGHTH];
            for numbers in lane.0.as_chunks::<EIGHTH>().0 {
                most.iter_mut().zip(numbers).for_each(|(most, number)| *most += number.abs());
            }
            most
        };
        let mut largest = [0.0f32; EIGHTH];
        for lane in probe {
            largest
                .iter_mut()
                .zip(mosts(lane))
                .for_each(|(largest, most)| *largest = if most > *largest { most } else { *largest });
        }
        let largest = largest.into_iter().fold(0.0, f32::max);
        self.unit = if largest > 0.0 { 2.0 * largest / LARGEST_ENTRY } else { 1.0 };
        let per_unit = 1.0 / self.unit;
        let (mut offsets, mut counts) = ([0.0f32; EIGHTH], [0u32; EIGHTH]);
        let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
        let pairs = probe.len() / 2;
        for tables in [&mut self.low, &mut self.high] {
            tables.resize(pairs * EIGHTH, [0; 16]);
        }
        for (lane, numbers) in probe.iter().enumerate() {
            let (pair, tables) = (lane / 2, if lane % 2 == 0 { &mut self.low } else { &mut self.high });
            let most = mosts(numbers);
            for at in 0..EIGHTH {
                offsets[at] += most[at];
                counts[at] = counts[at].wrapping_add(u32::from(most[at] > 0.0));
            }
            let mut froms = [0.0f32; EIGHTH];
            // By chance up or down, with the odds of the fraction: of 24 bits, which an `f32` holds.
            froms.iter_mut().for_each(|from| *from = (random.u32(..) >> 8).cast_signed() as f32 / 16_777_216.0 - 0.5);
            froms.iter_mut().zip(most).for_each(|(from, most)| *from += most * per_unit);
            for (at, from) in froms.into_iter().enumerate() {
                let mut entries = [from; 16];
                for (bit, signs) in SIGNS.iter().enumerate() {
                    let number = numbers.0[EIGHTH * bit + at] * per_unit;
                    entries.iter_mut().zip(signs).for_each(|(entry, sign)| *entry += number * sign);
                }
                // The column's place: those of the half that is glanced at are before all others.
                let table = &mut tables[at / GLANCED * pairs * GLANCED + pair * GLANCED + at % GLANCED];
                table.iter_mut().zip(entries).for_each(|(out, entry)| *out = nearest(entry) as u8);
            }
        }
        let (first, second) = offsets.split_at(GLANCED);
        self.offsets = [first, second].map(|offsets| offsets.iter().sum());
        let (first, second) = counts.split_at(GLANCED);
        self.counts = [first, second].map(|counts| counts.iter().sum());
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
        let (exact, coarse, tables) = (Vec::new(), Vec::new(), Tables::default());
        let mut probe = Self { exact, coarse, step: 1.0, sum: 0, tables, dimension: values.len(), error: 0.0, norm: 0.0 };
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
        let largest = largest_of(values);
        self.step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        // Rounded twice, so now and then to the neighbour of the nearest level: the error counts it.
        let (step, per_step) = (self.step, 1.0 / self.step);
        let (mut errors, mut norms) = ([0.0f64; 8], [0.0f64; 8]);
        self.sum = 0;
        for (floats, levels) in self.exact.iter().zip(&mut self.coarse) {
            let mut left = FloatLane::default();
            for ((value, level), left) in floats.0.iter().zip(&mut levels.0).zip(&mut left.0) {
                let rounded = level_of(value * per_step).clamp(-127, 127);
                self.sum = self.sum.wrapping_add(rounded);
                (*level, *left) = (rounded as i8, value - rounded as f32 * step);
            }
            for (sums, lane) in [(&mut errors, &left), (&mut norms, floats)] {
                for eight in lane.0.as_chunks::<8>().0 {
                    sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += f64::from(*value) * f64::from(*value));
                }
            }
            left.zeroize();
        }
        self.error = errors.iter().sum::<f64>().sqrt() as f32;
        self.norm = norms.iter().sum::<f64>().sqrt() as f32;
        self.tables.draw(&self.exact);
    }

    /// How far rows' scores can lie from what their inner products tell, in which the sums over some tables count `times`. Of a row's
    /// `|r|` (see [`Estimate`](super::template::Estimate)) none is below `least_left`.
    ///
    /// Templates lie under a secret random rotation, so that a probe's direction apart from a row and a row's `r` have nothing to do
    /// with each other: `r·p` is at most `|r||p|` times the first coordinate of a random direction in one dimension less, which is
    /// above `t` with a chance below `exp(−t²(d − 1)/2)`. The tables' entries are rounded by independent chances of a unit each, so
    /// that their sum is off by `s` with a chance below `exp(−2s²/n)` for `n` of them (Hoeffding, 1963); sums over two planes of the same
    /// tables count as if the chances of both were one. Both are as the normal
    /// distribution's at most, and so is their sum; [`TAIL`] of its deviations are allowed for. Where the dimension is so small that
    /// this is more than can be at all, what can be at all counts.
    ///
    /// A row is missed only if it is among the best and one of its own four estimates is off by more: at most four times in 10⁷ searches,
    /// not in 10⁷ rows; by the normal distribution less than once.
    pub(super) fn reach(&self, tables: Columns<'_>, times: f32, least_left: f32) -> Reach {
        let freedoms = (self.dimension.saturating_sub(1) as f32).sqrt();
        let (unit, count) = (self.tables.unit, tables.count as f32);
        let rounding = times * unit / 2.0 * count.sqrt();
        let ratio = rounding * freedoms / (self.norm * least_left);
        let per_slack = TAIL * self.norm / freedoms * (1.0 + ratio * ratio).sqrt();
        // Neither where it is no number.
        if per_slack < self.norm {
            return Reach { product: 0.0, per_slack };
        }
        Reach { product: times * unit * count, per_slack: self.norm }
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
        let numbers = |probe: &Self| {
            let Self { step, error, norm, tables: Tables { unit, offsets: [few, more], .. }, .. } = probe;
            [*step, *error, *norm, *unit, *few, *more].map(f32::to_bits)
        };
        let exact = |probe: &Self| probe.exact.iter().flat_map(|lane| lane.0.map(f32::to_bits)).collect::<Vec<_>>();
        let coarse = |probe: &Self| probe.coarse.iter().flat_map(|lane| lane.0).collect::<Vec<_>>();
        let tables = |probe: &Self| (probe.tables.low.clone(), probe.tables.high.clone(), probe.tables.counts, probe.sum);
        (numbers(self), exact(self), coarse(self), tables(self)) == (numbers(other), exact(other), coarse(other), tables(other))
    }
}

#[cfg(test)]
impl Tables {
    /// Makes every entry the same.
    pub(super) fn fill(&mut self, entry: u8) {
        self.low.iter_mut().chain(&mut self.high).for_each(|table| *table = [entry; 16]);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.exact.zeroize();
        self.coarse.zeroize();
        self.tables.low.as_flattened_mut().zeroize();
        self.tables.high.as_flattened_mut().zeroize();
    }
}
