//! A template as 512 bits: the signs of a random rotation of it. Two templates at the angle `a` differ in about `512·a/π` bits
//! (Goemans and Williamson, 1995; Charikar, 2002), give or take 11, so that few bits tell who is worth comparing with.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::kernel::{self, Kernel};

/// Bits in a sketch.
pub(super) const BITS: usize = 512;
const WORDS: usize = BITS / 64;
/// What the rotation is drawn from: a kept graph must find the same one.
const SEED: u64 = 0x5eed_fa1d;

/// The bits. Biometric data like the template they are of: no `Debug`, and cleared when they go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(align(64))]
pub(super) struct Sketch([u64; WORDS]);

impl Sketch {
    /// How many bits differ.
    pub(super) fn differing(&self, other: &Self) -> u32 {
        kernel::differing(&self.0, &other.0)
    }
}

impl AsRef<kernel::Bits> for Sketch {
    fn as_ref(&self) -> &kernel::Bits {
        &self.0
    }
}

impl Drop for Sketch {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Makes sketches of templates of one dimension: signs are flipped at random and a Walsh and Hadamard transform mixes them, twice,
/// which is as good as a random rotation here and costs microseconds (Ailon and Chazelle, 2006). Short templates are rotated several
/// times, each time another way, until there are enough bits.
pub(super) struct Sketcher {
    /// Numbers in a transform: a power of two.
    width: usize,
    /// One and minus one: two runs of `width` for each rotation.
    signs: Vec<f32>,
}

impl Sketcher {
    pub(super) fn new(dimension: usize) -> Self {
        let width = dimension.next_power_of_two();
        let rotations = BITS.div_ceil(width);
        let mut random = fastrand::Rng::with_seed(SEED);
        let signs = (0..2 * rotations * width).map(|_| if random.bool() { 1.0 } else { -1.0 }).collect();
        Self { width, signs }
    }

    /// The sketch of a template or a probe.
    pub(super) fn sketch(&self, values: &[f32]) -> Sketch {
        let mut words = [0u64; WORDS];
        let mut bit = 0;
        let mut mixed = vec![0.0f32; self.width];
        for signs in self.signs.chunks_exact(2 * self.width) {
            let (first, second) = signs.split_at(self.width);
            mixed.fill(0.0);
            for ((mixed, value), sign) in mixed.iter_mut().zip(values).zip(first) {
                *mixed = value * sign;
            }
            Kernel::best().hadamard(&mut mixed);
            mixed.iter_mut().zip(second).for_each(|(mixed, sign)| *mixed *= sign);
            Kernel::best().hadamard(&mut mixed);
            for value in mixed.iter().take(BITS - bit) {
                words[bit / 64] |= u64::from(*value > 0.0) << (bit % 64);
                bit += 1;
            }
        }
        mixed.zeroize();
        Sketch(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_bits_tell_the_angle_at_any_dimension() {
        let mut random = fastrand::Rng::with_seed(2);
        for dimension in [16, 100, 128, 512, 600, 4_096] {
            let sketcher = Sketcher::new(dimension);
            let mut draw = || (0..dimension).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect::<Vec<f32>>();
            let (mut told, mut true_) = (0.0, 0.0);
            for _ in 0..200 {
                let (a, b) = (draw(), draw());
                let b: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
                true_ += (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).acos();
                let bits = sketcher.sketch(&a).differing(&sketcher.sketch(&b));
                told += bits as f32 / BITS as f32 * std::f32::consts::PI;
            }
            assert!((told - true_).abs() / true_ < 0.03, "{dimension}: {told} for {true_}");
        }
    }

    #[test]
    fn opposite_templates_differ_in_every_bit_and_equal_ones_in_none() {
        let sketcher = Sketcher::new(65);
        let values: Vec<f32> = (0..65).map(|n| (n as f32 * 0.37).sin()).collect();
        let opposite: Vec<f32> = values.iter().map(|v| -v).collect();
        let (a, b) = (sketcher.sketch(&values), sketcher.sketch(&opposite));
        assert_eq!((a.differing(&b), a.differing(&a)), (BITS as u32, 0));
    }
}
