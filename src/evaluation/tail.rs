//! How many strangers in 10,000 would be let in at a threshold that hardly any of them has reached yet: the tail of the scores that were
//! refused, continued beyond the threshold.
//!
//! **Peaks over a threshold.** What exceeds a high score is distributed about as a generalised Pareto distribution, whatever the scores
//! were (A. A. Balkema and L. de Haan, Annals of Probability 2, 1974; J. Pickands, Annals of Statistics 3, 1975). The highest third of the
//! visits is taken, 20 at least ([`LEAST_EXCEEDANCES`]). Three things of a door's scores ask for more than the usual fit by
//! probability-weighted moments (J. R. M. Hosking and J. R. Wallis, Technometrics 29, 1987):
//!
//! - Scores at or above the match threshold are not there: whoever had one was let in, stranger or not. So the distribution is truncated
//!   there, which moments do not know; without it the worst door, whose strangers pile up before the threshold, would look as if their
//!   scores ended there. Nor may what a *raised* threshold refuses count: those are, most of them, the people enrolled.
//! - They are counts in bins and they have faded: the likelihood takes both as they are (a bin's probability, to the power of its weight,
//!   as in J. G. Ibrahim and M.-H. Chen, Statistical Science 15, 2000).
//! - A few dozen exceedances say little of the shape, and an unlucky shape says anything of the far tail. A weak prior keeps it in its
//!   place, as is done for floods (E. S. Martins and J. R. Stedinger, Water Resources Research 36, 2000). Cosines are bounded, so their last
//!   shape is negative; that of the best of several nearly normal scores is -0.3 to -0.1 at these levels (penultimate approximation:
//!   R. A. Fisher and L. H. C. Tippett, 1928), and people who are alike make tails heavier: normal about -0.15, deviation 0.08. The scale has
//!   none but that the score has one (flat in its logarithm).
//!
//! The posterior is summed over a fixed grid of scale and shape: no random numbers, no search that could fail to converge, always the same
//! cost. What is given is its median and its central 95 %, a credible interval. The tests measure how often it
//! covers the truth: 48 to 59 of 60 times, and where it does not, the truth is lower, but for one of 240.

use super::interval::Interval;
use super::tally::{BIN_WIDTH, Tally, bin_of, edge};
use crate::types::Score;

/// Fewer visits say nothing of one in a thousand, whatever is assumed: even their highest is about one in a hundred.
pub const LEAST_VISITS: f64 = 100.0;
/// Fewer exceedances leave the scale, and with it the order of magnitude of the rate, unknown: its relative deviation is 1/√20, 22 %.
pub const LEAST_EXCEEDANCES: f64 = 20.0;
/// The share of the visits whose scores are taken as the tail. More of them makes the estimate steadier and a little too high where scores are
/// normal and one person is enrolled; over simulated doors 0.2 missed one bad camera in twenty, and this none.
const TAIL: f64 = 0.35;

/// The grid over the logarithm of the scale: from less than a bin, which is a cliff, to half the cosine's range, which is flat.
const SCALES: (f64, f64, u32) = (0.003, 0.5, 40);
/// The grid over the shape, four deviations of the prior to each side.
const SHAPES: (f64, f64, u32) = (-0.5, 0.3, 32);
/// The prior's mean and deviation.
const SHAPE_PRIOR: (f64, f64) = (-0.15, 0.08);
/// Five points of a normal distribution with their weights (Gauss and Hermite): for the share that exceeds, which is uncertain too.
const NORMAL: [(f64, f64); 5] =
    [(-2.856_970, 0.011_257), (-1.355_626, 0.222_076), (0.0, 0.533_333), (1.355_626, 0.222_076), (2.856_970, 0.011_257)];
/// What a cell weighs at least, beside the heaviest, to be looked at.
const LIGHTEST: f64 = 1e-9;

/// A rate of false grants among strangers, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The median, 0 to 1.
    pub rate: f64,
    /// Where it lies with 95 %.
    pub interval: Interval,
    /// What it exceeds with 85 %: where this is above a target, so is the rate, all but surely.
    pub least: f64,
}

/// Why nothing can be said yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TooFew {
    /// How many visits there were.
    pub visits: f64,
    /// How many are missing, rounded up; at least 1.
    pub missing: u32,
}

/// The tail of the scores that strangers had.
#[derive(Debug, Clone)]
pub struct Tail {
    visits: f64,
    exceedances: f64,
    /// From where on it is the tail.
    from: f64,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    scale: f64,
    shape: f64,
    /// The share of all strangers that exceed, those who were let in among them.
    share: f64,
    weight: f64,
}

impl Tail {
    /// The tail of `scores`, of which those at or above `let_in` do not count: nobody knows whose they are.
    pub fn of(scores: &Tally, let_in: Score) -> Result<Self, TooFew> {
        let counts = &scores.counts()[..bin_of(let_in)];
        let visits: f64 = counts.iter().sum();
        if visits < LEAST_VISITS {
            return Err(TooFew { visits, missing: ((LEAST_VISITS - visits).ceil() as u32).max(1) });
        }
        let wanted = (visits * TAIL).max(LEAST_EXCEEDANCES);
        let (mut first, mut exceedances) = (counts.len(), 0.0);
        while first > 0 && exceedances < wanted {
            first -= 1;
            exceedances += counts[first];
        }
        let tail = &counts[first..];
        let span = tail.len() as f64 * BIN_WIDTH;
        let seen = exceedances / visits;
        let spread = ((1.0 - seen) / exceedances).sqrt();
        let mut cells = Vec::new();
        for scale in steps((SCALES.0.ln(), SCALES.1.ln(), SCALES.2)).map(f64::exp) {
            for shape in steps(SHAPES) {
                let beyond = survival(span, scale, shape);
                let deviation = (shape - SHAPE_PRIOR.0) / SHAPE_PRIOR.1;
                let ln = ln_likelihood(tail, beyond, scale, shape) - deviation * deviation / 2.0;
                // Of those who were refused so many exceed; of all, more do.
                let share = seen / (1.0 - beyond + seen * beyond);
                if ln.is_finite() && share.is_finite() {
                    cells.push(Cell { scale, shape, share, weight: ln });
                }
            }
        }
        let most = cells.iter().map(|cell| cell.weight).fold(f64::NEG_INFINITY, f64::max);
        cells.iter_mut().for_each(|cell| cell.weight = (cell.weight - most).exp());
        cells.retain(|cell| cell.weight > LIGHTEST);
        let cells = cells
            .into_iter()
            .flat_map(|cell| {
                NORMAL.map(|(at, weight)| Cell {
                    share: (cell.share * (spread * at).exp()).min(1.0),
                    weight: cell.weight * weight,
                    ..cell
                })
            })
            .collect();
        Ok(Self { visits, exceedances, from: edge(first), cells })
    }

    /// How many visits it was made of.
    pub fn visits(&self) -> f64 {
        self.visits
    }

    /// How many of them are the tail.
    pub fn exceedances(&self) -> f64 {
        self.exceedances
    }

    /// What share of strangers would be let in at `threshold`, which lies in the tail or beyond it.
    pub fn rate_at(&self, threshold: Score) -> Estimate {
        let beyond = (f64::from(threshold.value()) - self.from).max(0.0);
        let rate = |cell: &Cell| cell.share * survival(beyond, cell.scale, cell.shape);
        let mut rates: Vec<(f64, f64)> = self.cells.iter().map(|cell| (rate(cell), cell.weight)).collect();
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = rates.iter().map(|(_, weight)| weight).sum();
        let quantile = |share: f64| {
            let mut sum = 0.0;
            let at = rates.iter().find(|(_, weight)| {
                sum += weight;
                sum >= share * total
            });
            // Everything is possible where nothing is.
            at.or(rates.last()).map_or(1.0, |(rate, _)| *rate)
        };
        Estimate { rate: quantile(0.5), interval: Interval { low: quantile(0.025), high: quantile(0.975) }, least: quantile(0.15) }
    }

    /// The lowest threshold from `from` to `to`, in steps of a thousandth, at which the rate is no more than `target`; `to` where it never
    /// is.
    pub fn threshold_for(&self, target: f64, from: Score, to: Score) -> Score {
        const STEP: f32 = 0.001;
        let at = |step: u16| Score::saturating(from.value() + f32::from(step) * STEP).value().min(to.value().max(from.value()));
        // A range of scores is 2 wide.
        let (mut refused, mut fine) = (0u16, 2_000u16);
        if self.rate_at(from).rate <= target {
            return from;
        }
        // The rate only falls as the threshold rises.
        while refused + 1 < fine {
            let middle = refused.midpoint(fine);
            let is_fine = at(middle) >= to.value() || self.rate_at(Score::saturating(at(middle))).rate <= target;
            *(if is_fine { &mut fine } else { &mut refused }) = middle;
        }
        Score::saturating(at(fine))
    }
}

fn steps((low, high, count): (f64, f64, u32)) -> impl Iterator<Item = f64> {
    (0..=count).map(move |step| low + (high - low) * f64::from(step) / f64::from(count))
}

/// The share of what exceeds that exceeds by `by` or more, under a generalised Pareto distribution.
fn survival(by: f64, scale: f64, shape: f64) -> f64 {
    /// Closer to 0 the exponential distribution is the same number, and the division is safe.
    const EXPONENTIAL: f64 = 1e-9;
    if shape.abs() < EXPONENTIAL {
        return (-by / scale).exp();
    }
    let base = shape.mul_add(by / scale, 1.0);
    if base <= 0.0 { 0.0 } else { base.powf(-1.0 / shape) }
}

/// Of weights in bins from the tail's first on, where `beyond` of the distribution is cut off.
fn ln_likelihood(tail: &[f64], beyond: f64, scale: f64, shape: f64) -> f64 {
    let mut ln = 0.0;
    let mut above = 1.0;
    let mut weights = 0.0;
    for (bin, weight) in tail.iter().enumerate() {
        let next = survival((bin + 1) as f64 * BIN_WIDTH, scale, shape);
        if *weight > 0.0 {
            ln += weight * (above - next).ln();
            weights += weight;
        }
        above = next;
    }
    ln - weights * (-beyond).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LET_IN: f32 = 0.5;

    fn score(value: f64) -> Score {
        Score::saturating(value as f32)
    }

    /// Scores whose tail is known exactly: normal ones of this mean and deviation, of which those who are let in are not seen.
    fn normal(seed: u64, count: u32, (mean, deviation): (f64, f64)) -> Tally {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tally = Tally::default();
        for _ in 0..count {
            let (radius, turn) = (1.0 - random.f64(), random.f64());
            let drawn = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos();
            let value = mean + deviation * drawn;
            if value < f64::from(LET_IN) {
                tally.add(score(value), 1e6);
            }
        }
        tally
    }

    #[test]
    fn too_few_visits_say_how_many_are_missing() {
        let few = Tail::of(&normal(1, 40, (0.1, 0.1)), score(0.5)).unwrap_err();
        assert_eq!((few.visits, few.missing), (40.0, 60));
        let none = Tail::of(&Tally::default(), score(0.5)).unwrap_err();
        assert_eq!((none.visits, none.missing), (0.0, 100));
        assert!(Tail::of(&normal(1, 100, (0.1, 0.1)), score(0.5)).is_ok());
    }

    /// The best of this many people enrolled, each normally alike, as one stranger's score. The best of n is below x with the n-th power
    /// of the probability that one is.
    fn of_gallery(seed: u64, people: u32, mean: f64) -> Tally {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut one = || {
            let (radius, turn) = (1.0 - random.f64(), random.f64());
            mean + 0.1 * (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
        };
        let mut tally = Tally::default();
        for _ in 0..300 {
            let best = (0..people).map(|_| one()).fold(f64::MIN, f64::max);
            if best < f64::from(LET_IN) {
                tally.add(score(best), 1e6);
            }
        }
        tally
    }

    #[test]
    fn the_interval_covers_the_true_rate_and_errs_towards_more() {
        // Of a normal distribution this many deviations are reached by one in 1,000, 100, 10,000 and 1,000: with ten people enrolled ten
        // times as many strangers reach them, all but exactly.
        for (people, deviations, rate) in [(1, 3.0902, 1e-3), (1, 2.3263, 1e-2), (10, 3.7190, 1e-3), (10, 3.0902, 0.995e-2)] {
            let (mut covered, mut not_too_low) = (0, 0);
            for seed in 0..60 {
                let tally = of_gallery(seed, people, f64::from(LET_IN) - 0.1 * deviations);
                let estimate = Tail::of(&tally, score(0.5)).unwrap().rate_at(score(0.5));
                covered += u32::from(estimate.interval.low <= rate && rate <= estimate.interval.high);
                not_too_low += u32::from(rate <= estimate.interval.high);
                assert!(estimate.interval.low <= estimate.least && estimate.least <= estimate.rate);
            }
            println!("{people} enrolled, a rate of {rate}: covered {covered} of 60, not too low {not_too_low}");
            assert!(covered >= 45 && not_too_low >= 57, "{people}, {rate}: {covered}, {not_too_low}");
        }
    }

    #[test]
    fn strangers_who_pile_up_before_the_threshold_are_no_end_of_the_tail() {
        // As many in each bin up to the threshold: as if the distribution ended there, but those above were let in.
        let mut tally = Tally::default();
        (0..300u16).for_each(|n| tally.add(score(0.5 - 0.001 - f64::from(n % 100) / 500.0), 1e6));
        let estimate = Tail::of(&tally, score(0.5)).unwrap().rate_at(score(0.5));
        assert!(estimate.least > 0.01, "{estimate:?}");
    }

    #[test]
    fn what_a_raised_threshold_refuses_changes_nothing() {
        let mut tally = normal(3, 300, (0.2, 0.1));
        let before = Tail::of(&tally, score(0.5)).unwrap().rate_at(score(0.55));
        (0..100).for_each(|_| tally.add(score(0.53), 1e6));
        assert_eq!(Tail::of(&tally, score(0.5)).unwrap().rate_at(score(0.55)), before);
    }

    #[test]
    fn a_higher_threshold_lets_fewer_in_and_the_one_for_a_target_is_the_lowest() {
        let tail = Tail::of(&normal(4, 400, (0.25, 0.1)), score(0.5)).unwrap();
        let mut last = 1.0;
        for step in 0..40u8 {
            let rate = tail.rate_at(score(0.5 + f64::from(step) / 100.0)).rate;
            assert!((0.0..=last).contains(&rate), "{rate} after {last}");
            last = rate;
        }
        let threshold = tail.threshold_for(1e-3, score(0.5), score(0.8));
        assert!(tail.rate_at(threshold).rate <= 1e-3 && threshold > score(0.5));
        assert!(tail.rate_at(score(f64::from(threshold.value()) - 0.0011)).rate > 1e-3);
        assert_eq!(tail.threshold_for(1e-3, score(0.5), score(0.51)), score(0.51), "no further than it may");
        assert_eq!(tail.threshold_for(0.5, score(0.5), score(0.8)), score(0.5), "no lower than it is");
    }

    #[test]
    fn all_in_one_bin_and_faded_counts_are_no_trouble() {
        for value in [-1.0, 0.0, 0.49, 0.4951] {
            let mut tally = Tally::default();
            (0..150).for_each(|_| tally.add(score(value), 1e6));
            tally.fade(0.9);
            let estimate = Tail::of(&tally, score(0.5)).unwrap().rate_at(score(0.5));
            assert!((0.0..=1.0).contains(&estimate.rate) && estimate.interval.high <= 1.0, "{value}: {estimate:?}");
        }
        assert!(Tail::of(&normal(1, 300, (0.1, 0.1)), Score::MIN).is_err(), "with everybody let in nothing is known");
    }
}
