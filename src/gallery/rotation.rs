//! The keyed rotation: templates are stored and matched after a secret orthogonal transform of this installation (renewability,
//! ISO/IEC 24745), which leaves every cosine as it was. Three rounds, each a secret permutation, secret signs and a fast Hadamard
//! transform (after Ailon and Chazelle, 2006, and the HD₃HD₂HD₁ of Andoni and others, 2015): a few thousand additions, no matrix.
//!
//! Where the dimension is no power of two the Hadamard transform runs over its first and then over its last numbers, as many as the
//! largest power of two below; the permutation of the next round mixes them further. `FORMAT.md` says what this protects against.

use zeroize::{Zeroize, Zeroizing};

use super::index::Kernel;

/// How many rounds; three already spread each coordinate over all of them.
const ROUNDS: usize = 3;

/// One installation's transform. No `Debug`, and cleared when it goes.
pub(crate) struct Rotation {
    dimension: usize,
    /// None at all: the identity, as in galleries of version 1.
    rounds: Vec<Round>,
}

struct Round {
    /// Where each number comes from.
    from: Vec<u16>,
    /// One or minus one, with the Hadamard transform's scale.
    signs: Vec<f32>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.from.zeroize();
        self.signs.zeroize();
    }
}

impl Rotation {
    /// The transform that changes nothing.
    pub(crate) fn identity(dimension: usize) -> Self {
        Self { dimension, rounds: Vec::new() }
    }

    /// The transform that a stream of secret bytes fixes. `fill` gives the stream's next bytes.
    pub(crate) fn derive(dimension: usize, mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let mut bits = Zeroizing::new(vec![0; dimension.div_ceil(8)]);
            fill(&mut bits);
            let signs = (0..dimension).map(|n| if bits[n / 8] >> (n % 8) & 1 == 1 { -1.0 } else { 1.0 }).collect();
            let mut from: Vec<u16> = (0..dimension).map(|n| u16::try_from(n).unwrap_or(u16::MAX)).collect();
            for last in (1..dimension).rev() {
                from.swap(last, below(last + 1, &mut fill));
            }
            rounds.push(Round { from, signs });
        }
        Self { dimension, rounds }
    }

    /// The transform of one template or probe.
    pub(crate) fn turn(&self, values: &[f32]) -> Zeroizing<Vec<f32>> {
        debug_assert_eq!(values.len(), self.dimension);
        let mut now = Zeroizing::new(values.to_vec());
        let mut next = Zeroizing::new(vec![0.0; values.len()]);
        let window = window(values.len());
        for round in &self.rounds {
            for ((out, from), sign) in next.iter_mut().zip(&round.from).zip(&round.signs) {
                *out = now[usize::from(*from)] * sign;
            }
            hadamard(&mut next[..window]);
            if window < values.len() {
                let start = values.len() - window;
                hadamard(&mut next[start..]);
            }
            std::mem::swap(&mut now, &mut next);
        }
        now
    }

    /// The way back: `turn_back(turn(v))` is `v` but for rounding.
    pub(crate) fn turn_back(&self, values: &[f32]) -> Zeroizing<Vec<f32>> {
        debug_assert_eq!(values.len(), self.dimension);
        let mut now = Zeroizing::new(values.to_vec());
        let mut next = Zeroizing::new(vec![0.0; values.len()]);
        let window = window(values.len());
        for round in self.rounds.iter().rev() {
            if window < values.len() {
                let start = values.len() - window;
                hadamard(&mut now[start..]);
            }
            hadamard(&mut now[..window]);
            for ((value, from), sign) in now.iter().zip(&round.from).zip(&round.signs) {
                next[usize::from(*from)] = value * sign;
            }
            std::mem::swap(&mut now, &mut next);
        }
        now
    }
}

/// An unbiased draw from `0..bound`.
fn below(bound: usize, fill: &mut impl FnMut(&mut [u8])) -> usize {
    let bound = u32::try_from(bound).unwrap_or(u32::MAX);
    // What lies beyond the last whole multiple would favour small numbers.
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let mut bytes = Zeroizing::new([0; 4]);
        fill(bytes.as_mut_slice());
        let drawn = u32::from_le_bytes(*bytes);
        if drawn < fair {
            return (drawn % bound) as usize;
        }
    }
}

/// The largest power of two that is not above `dimension`.
fn window(dimension: usize) -> usize {
    1 << dimension.max(1).ilog2()
}

/// The fast Hadamard transform of a power of two of numbers, scaled so that lengths stay: it is its own inverse.
fn hadamard(values: &mut [f32]) {
    Kernel::best().hadamard(values);
    let scale = 1.0 / (values.len() as f32).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(dimension: usize, seed: u64) -> Rotation {
        let mut random = fastrand::Rng::with_seed(seed);
        Rotation::derive(dimension, |bytes| random.fill(bytes))
    }

    fn unit(dimension: usize, seed: u64) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        // Skewed, as real embeddings are: their mean is not zero.
        let values: Vec<f32> = (0..dimension).map(|n| random.f32() - 0.3 + if n % 7 == 0 { 0.5 } else { 0.0 }).collect();
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter().map(|v| v / norm).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn every_cosine_stays_and_the_way_back_is_exact() {
        for dimension in [1, 2, 3, 5, 31, 96, 128, 192, 512, 1000] {
            let rotation = rotation(dimension, 7);
            for seed in 0..20 {
                let (a, b) = (unit(dimension, seed), unit(dimension, seed + 100));
                let (turned_a, turned_b) = (rotation.turn(&a), rotation.turn(&b));
                assert!((dot(&a, &b) - dot(&turned_a, &turned_b)).abs() < 1e-5, "{dimension}");
                assert!((dot(&turned_a, &turned_a) - 1.0).abs() < 1e-5, "{dimension}");
                let back = rotation.turn_back(&turned_a);
                assert!(a.iter().zip(back.iter()).all(|(a, b)| (a - b).abs() < 1e-5), "{dimension}");
            }
        }
    }

    #[test]
    fn the_identity_changes_nothing_and_a_secret_fixes_its_transform() {
        let values = unit(128, 3);
        assert_eq!(*Rotation::identity(128).turn(&values), values);
        assert_eq!(*rotation(128, 9).turn(&values), *rotation(128, 9).turn(&values));
        assert_ne!(*rotation(128, 9).turn(&values), *rotation(128, 8).turn(&values));
    }

    /// Whoever holds the templates of two installations and neither secret: a person's two templates look no more alike than two
    /// people's. Both sets of cosines must have the mean and the spread of independent directions, `1/sqrt(dimension)`, and the
    /// rank statistic (the chance that a mated pair scores above another) must be one half within its own error.
    #[test]
    fn templates_of_two_installations_are_unlinkable_without_the_secrets() {
        const PEOPLE: usize = 400;
        for dimension in [128, 512] {
            let (here, there) = (rotation(dimension, 1), rotation(dimension, 2));
            let plain: Vec<Vec<f32>> = (0..PEOPLE as u64).map(|seed| unit(dimension, seed)).collect();
            let ours: Vec<_> = plain.iter().map(|p| here.turn(p)).collect();
            let theirs: Vec<_> = plain.iter().map(|p| there.turn(p)).collect();
            let alike: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| dot(a, b)).collect();
            let other: Vec<f64> = (0..PEOPLE).map(|n| dot(&ours[n], &theirs[(n + 137) % PEOPLE])).collect();
            // These templates share a strong mean, so that all pairs have one common part: it is taken out, as an attacker would.
            let centred = |cosines: &[f64]| {
                let mean = cosines.iter().sum::<f64>() / PEOPLE as f64;
                (mean, (cosines.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / PEOPLE as f64).sqrt())
            };
            let ((mated_mean, mated_spread), (other_mean, other_spread)) = (centred(&alike), centred(&other));
            let expected = 1.0 / (dimension as f64).sqrt();
            let error = 4.0 * expected / (PEOPLE as f64).sqrt();
            assert!((mated_mean - other_mean).abs() < 2.0 * error, "{dimension}: {mated_mean} against {other_mean}");
            assert!(mated_spread < 1.5 * expected && other_spread < 1.5 * expected, "{dimension}");
            let above: usize = alike.iter().map(|a| other.iter().filter(|o| a > o).count()).sum();
            let rank = above as f64 / (PEOPLE * PEOPLE) as f64;
            // The statistic's own standard error for two samples of this size is 0.02.
            assert!((rank - 0.5).abs() < 0.08, "{dimension}: a mated pair wins {rank} of the time");
            assert!(mated_mean.abs() < 0.25, "{dimension}: turned by two secrets and still alike: {mated_mean}");
        }
    }
}
