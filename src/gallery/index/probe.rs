//! A probe as what a scan needs of it, and how far what the scan reads can lie from the truth.

use zeroize::{DefaultIsZeroes, Zeroize};

use super::kernel::Kernel;
use super::template::{FloatLane, LANE, QUARTER, largest_of, level_of, nearest, pairs};

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

/// What the top bits of a row add to its inner product with a probe, rounded to seven bits and looked up four bits at a time: two
/// numbers of the row. For each column of the top plane there is a table of its lower four bits and one of its upper.
///
/// Entries are rounded up or down by chance, with the odds that make the expected entry right (one draw a table), so that the sum of
/// the entries that a row picks is off by no more than chance makes it: see [`Probe::reach`].
#[cfg_attr(test, derive(Clone))]
#[derive(Default)]
pub(super) struct Tables {
    pub(super) low: Vec<[u8; 16]>,
    pub(super) high: Vec<[u8; 16]>,
    /// What one unit of an entry is.
    unit: f32,
    /// What is taken off a sum of entries for the inner product: an entry is never negative.
    offset: f32,
    /// Tables that are not all zero.
    count: u32,
}

impl Tables {
    /// Columns of the top plane.
    pub(super) fn columns(&self) -> usize {
        self.low.len()
    }
}

/// The largest entry but for the rounding: two entries are added in a byte.
const LARGEST_ENTRY: f32 = 126.0;

/// What the two bits of the top plane stand for: the middles of the quarters of a row's span, in units of half a quarter.
const TOPS: [f32; 4] = [-3.0, -1.0, 1.0, 3.0];

/// Fills in the tables for a probe.
#[inline(always)]
pub(super) fn draw_tables(probe: &[FloatLane], tables: &mut Tables) {
    let (pairs, _) = probe.as_chunks::<2>();
    let quarters = |pair: &[FloatLane; 2]| {
        let [first, second] = [0, 1].map(|lane| pair[lane].0.as_chunks::<QUARTER>().0);
        [first[0], first[1], second[0], second[1]]
    };
    // What the two numbers of a table can add at most.
    let most = |a: f32, b: f32| TOPS[3] * (a.abs() + b.abs());
    let mut largest = 0.0f32;
    for [a, b, c, d] in pairs.iter().map(quarters) {
        for at in 0..QUARTER {
            largest = largest.max(most(a[at], b[at])).max(most(c[at], d[at]));
        }
    }
    tables.unit = if largest > 0.0 { 2.0 * largest / LARGEST_ENTRY } else { 1.0 };
    let per_unit = 1.0 / tables.unit;
    let (mut offset, mut count) = (0.0f32, 0u32);
    let mut fill = |table: &mut [u8; 16], a: f32, b: f32| {
        let most = most(a, b);
        offset += most;
        count = count.wrapping_add(u32::from(most > 0.0));
        // By chance up or down, with the odds of the fraction.
        let chance = fastrand::f32() - 0.5;
        for (code, entry) in table.iter_mut().enumerate() {
            let product = TOPS[code & 3] * a + TOPS[code >> 2] * b;
            *entry = nearest((product + most) * per_unit + chance) as u8;
        }
    };
    tables.low.resize(pairs.len() * QUARTER, [0; 16]);
    tables.high.resize(pairs.len() * QUARTER, [0; 16]);
    let columns = tables.low.as_chunks_mut::<QUARTER>().0.iter_mut().zip(tables.high.as_chunks_mut::<QUARTER>().0);
    for ([a, b, c, d], (low, high)) in pairs.iter().map(quarters).zip(columns) {
        for at in 0..QUARTER {
            fill(&mut low[at], a[at], b[at]);
            fill(&mut high[at], c[at], d[at]);
        }
    }
    (tables.offset, tables.count) = (offset, count);
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
    /// What the top plane's bits add.
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
        let mut tables = Tables::default();
        Kernel::best().tables(&exact, &mut tables);
        let (error, norm) = (error.sqrt() as f32, norm.sqrt() as f32);
        Self { exact, coarse, step, sum, tables, dimension: values.len(), error, norm }
    }

    /// What one unit of a sum over the tables is, and what is taken off it.
    pub(super) fn scale(&self) -> (f32, f32) {
        (self.tables.unit, self.tables.offset)
    }

    /// How far rows' scores can lie from what `times` their inner products with the top bits tell. Of a row's `|r|` (see [`Estimate`])
    /// none is below `least_left`.
    ///
    /// Templates lie under a secret random rotation, so that a probe's direction apart from a row and a row's `r` have nothing to do
    /// with each other: `r·p` is at most `|r||p|` times the first coordinate of a random direction in one dimension less, which is
    /// above `t` with a chance below `exp(−t²(d − 1)/2)`. The tables' entries are rounded by independent chances of a unit each, so
    /// that their sum is off by `s` with a chance below `exp(−2s²/n)` for `n` of them (Hoeffding, 1963). Both are as the normal
    /// distribution's at most, and so is their sum; [`TAIL`] of its deviations are allowed for. Where the dimension is so small that
    /// this is more than can be at all, what can be at all counts.
    ///
    /// A row is missed only if it is among the best and its own estimate is off by more: once in 10⁷ searches, not once in 10⁷ rows.
    pub(super) fn reach(&self, times: f32, least_left: f32) -> Reach {
        let freedoms = (self.dimension.saturating_sub(1) as f32).sqrt();
        let rounding = times * self.tables.unit / 2.0 * (self.tables.count as f32).sqrt();
        let ratio = rounding * freedoms / (self.norm * least_left);
        let per_slack = TAIL * self.norm / freedoms * (1.0 + ratio * ratio).sqrt();
        // Neither where it is no number.
        if per_slack < self.norm {
            return Reach { product: 0.0, per_slack };
        }
        Reach { product: times * self.tables.unit * self.tables.count as f32, per_slack: self.norm }
    }

    /// How far an inner product with what two bits stand for can lie from the same with `coarse` times `step`.
    pub(super) fn rounding_of_two_bits(&self) -> f32 {
        TOPS[3] * (self.dimension as f32).sqrt() * self.error
    }

    /// What rounding in `f32` can add to the score of a row no longer than `longest`.
    pub(super) fn rounding(&self, longest: f32) -> f32 {
        longest * ROUNDING * self.norm
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
