//! Proportions and their exact intervals: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
//! case of the binomial", Biometrika 26 (1934); the limits are quantiles of beta distributions. Exact means that the interval covers
//! the true proportion at least as often as it says, whatever the proportion; it is wider than the usual approximations.

use std::f64::consts::PI;

/// The confidence of every interval that is reported.
pub const CONFIDENCE: f64 = 0.95;

/// Where a proportion lies, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower limit.
    pub low: f64,
    /// The upper limit.
    pub high: f64,
}

/// How often something happened in how many trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often it happened; at most `trials`.
    pub count: u64,
    /// How often it could have happened.
    pub trials: u64,
}

impl Rate {
    /// A rate; a count above the trials is taken as all of them.
    pub fn new(count: u64, trials: u64) -> Self {
        Self { count: count.min(trials), trials }
    }

    /// 0 to 1; `None` without trials.
    pub fn value(self) -> Option<f64> {
        (self.trials > 0).then(|| self.count as f64 / self.trials as f64)
    }

    /// How often it did not happen.
    pub fn complement(self) -> Self {
        Self { count: self.trials - self.count, trials: self.trials }
    }

    /// The exact interval at [`CONFIDENCE`]; 0 to 1 without trials.
    pub fn interval(self) -> Interval {
        clopper_pearson(self, CONFIDENCE)
    }
}

/// The mean of two rates with trials of their own, as balanced accuracy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balanced(pub Rate, pub Rate);

impl Balanced {
    /// 0 to 1; `None` when either has no trials.
    pub fn value(self) -> Option<f64> {
        Some((self.0.value()? + self.1.value()?) / 2.0)
    }

    /// An interval that covers at least as often as [`CONFIDENCE`] says: the mean of two exact intervals that are each allowed half of
    /// the misses (Bonferroni). A mean of two proportions has no exact interval of its own.
    pub fn interval(self) -> Interval {
        let each = 1.0 - (1.0 - CONFIDENCE) / 2.0;
        let (a, b) = (clopper_pearson(self.0, each), clopper_pearson(self.1, each));
        Interval { low: (a.low + b.low) / 2.0, high: (a.high + b.high) / 2.0 }
    }
}

/// The two-sided exact interval at `confidence` (above 0, below 1).
pub fn clopper_pearson(rate: Rate, confidence: f64) -> Interval {
    let tail = (1.0 - confidence) / 2.0;
    let (count, misses) = (rate.count as f64, rate.complement().count as f64);
    let low = if rate.count == 0 { 0.0 } else { beta_quantile(tail, count, misses + 1.0) };
    let high = if rate.count == rate.trials { 1.0 } else { beta_quantile(1.0 - tail, count + 1.0, misses) };
    Interval { low, high }
}

/// Where the beta distribution's cumulative probability reaches `probability`. By bisection: the function only grows, and a thousand
/// evaluations cost nothing beside one face.
fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    // 64 halvings take 1 below the spacing of numbers near it.
    for _ in 0..64 {
        let middle = low.midpoint(high);
        if regularised_beta(middle, a, b) < probability { low = middle } else { high = middle }
    }
    low.midpoint(high)
}

/// The regularised incomplete beta function I_x(a, b), `x` 0 to 1, `a` and `b` above 0: DLMF 8.17.22, a continued fraction, evaluated
/// by Lentz's method; where it converges slowly, the symmetry I_x(a, b) = 1 - I_1-x(b, a) (DLMF 8.17.4) takes it to where it is fast.
fn regularised_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    if x < (a + 1.0) / (a + b + 2.0) {
        ln_front.exp() / a * beta_fraction(x, a, b)
    } else {
        1.0 - ln_front.exp() / b * beta_fraction(1.0 - x, b, a)
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    /// In place of zero in a denominator.
    const TINY: f64 = 1e-300;
    /// It needs some √max(a, b) terms: enough for more than a hundred million trials.
    const MOST_TERMS: u32 = 20_000;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for term in 1..=MOST_TERMS {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// The logarithm of the gamma function for `x` above 0: C. Lanczos's approximation with Godfrey's coefficients for g = 7, good to
/// some 15 digits.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    #[expect(clippy::excessive_precision, reason = "as published")]
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_13,
        -176.615_029_162_140_59,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_571_6e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let mut sum = 0.999_999_999_999_809_9;
    for (index, coefficient) in COEFFICIENTS.iter().enumerate() {
        sum += coefficient / (x + index as f64 + 1.0);
    }
    let t = x + G + 0.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of limits: bisection and the fraction are good to far more; the published values below have four digits.
    const FOUR_DIGITS: f64 = 5e-5;
    /// Of values that can be worked out by hand.
    const EXACT: f64 = 1e-12;

    #[test]
    fn without_trials_nothing_is_known() {
        assert_eq!(Rate::new(0, 0).value(), None);
        assert_eq!(Rate::new(0, 0).interval(), Interval { low: 0.0, high: 1.0 });
        assert_eq!(Rate::new(5, 3), Rate::new(3, 3));
        assert_eq!(Balanced(Rate::new(1, 2), Rate::new(0, 0)).value(), None);
    }

    #[test]
    fn no_error_in_n_trials_gives_the_closed_form() {
        // 1 - (α/2)^(1/n): the "rule of three" in its exact two-sided form.
        for trials in [1u32, 10, 300, 5000] {
            let interval = Rate::new(0, u64::from(trials)).interval();
            let expected = 1.0 - 0.025f64.powf(1.0 / f64::from(trials));
            assert_eq!(interval.low, 0.0);
            assert!((interval.high - expected).abs() < EXACT, "{trials}: {} is not {expected}", interval.high);
            let all = Rate::new(u64::from(trials), u64::from(trials)).interval();
            assert!((all.low - (1.0 - expected)).abs() < EXACT && all.high == 1.0);
        }
    }

    #[test]
    fn limits_are_those_of_published_tables() {
        // Exact 95 % limits as in Newcombe (Statistics in Medicine 17, 1998), table I: 81/263, 15/148, 0/20, 1/29.
        for (count, trials, low, high) in
            [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)]
        {
            let interval = Rate::new(count, trials).interval();
            assert!((interval.low - low).abs() < FOUR_DIGITS, "{count}/{trials}: {interval:?}");
            assert!((interval.high - high).abs() < FOUR_DIGITS, "{count}/{trials}: {interval:?}");
        }
    }

    #[test]
    fn the_incomplete_beta_function_has_its_closed_forms() {
        // I_x(1, b) = 1 - (1 - x)^b, I_x(a, 1) = x^a, I_½(a, a) = ½.
        for x in [0.001, 0.2, 0.5, 0.9, 0.999] {
            assert!((regularised_beta(x, 1.0, 7.0) - (1.0 - (1.0 - x).powi(7))).abs() < EXACT);
            assert!((regularised_beta(x, 5.0, 1.0) - x.powi(5)).abs() < EXACT);
        }
        assert!((regularised_beta(0.5, 4000.0, 4000.0) - 0.5).abs() < 1e-9);
        assert!((ln_gamma(11.0) - 3_628_800f64.ln()).abs() < EXACT);
        assert!((ln_gamma(0.5) - PI.sqrt().ln()).abs() < EXACT);
    }

    #[test]
    fn a_mean_of_two_rates_is_wider_than_either_half() {
        let balanced = Balanced(Rate::new(990, 1000), Rate::new(980, 1000));
        assert!((balanced.value().unwrap() - 0.985).abs() < EXACT);
        let interval = balanced.interval();
        assert!(interval.low < 0.985 && 0.985 < interval.high);
    }
}
