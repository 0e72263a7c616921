//! The two inner loops, compiled once for each kind of processor and chosen when the program runs. One source serves them all: under a
//! feature such as AVX2 or Arm's dot product the compiler makes that processor's vectors of the plain loop. Only for AVX-512 VNNI,
//! whose instruction it does not find, is the loop written out. All give the same numbers to the last bit: integer sums have no order,
//! and the `f32` sums keep theirs.
#![expect(unsafe_code, reason = "functions of a processor's features, and loads of its widest vectors")]

use std::sync::OnceLock;

use super::sketch::Sketch;
use super::template::{FloatLane, LANE, Lane, level};

/// The bits of a sketch.
pub(super) type Bits = [u64; 8];

/// Accumulators of the `f32` loop: additions that do not wait for each other are what fills the vector units.
const SUMS: usize = 32;

/// Which processor the loops are for. A value other than [`Kernel::Portable`] is only made where the processor has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Kernel {
    /// The fastest for this processor.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().last().copied().unwrap_or(Self(Kind::Portable)))
    }

    /// Every one that runs here, the fastest last.
    pub(crate) fn all() -> Vec<Self> {
        let mut kinds = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("popcnt") {
                kinds.push(Self(Kind::Avx2));
            }
            let wide = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
            // Cascade Lake has the one and not the other; AVX2 serves it.
            if wide && has!("avx512vnni") && has!("avx512vpopcntdq") {
                kinds.push(Self(Kind::Avx512Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            kinds.push(Self(Kind::NeonDot));
        }
        kinds
    }

    /// Its name, for the log and the benchmark.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neon-dot",
        }
    }

    /// The inner product of each row of 8-bit numbers with the probe's, which has as many lanes as a row.
    pub(super) fn dots(self, rows: &[Lane], probe: &[Lane], out: &mut [i32]) {
        debug_assert_eq!(rows.len(), probe.len() * out.len());
        match self.0 {
            Kind::Portable => dots_plain(rows, probe, out),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { dots_avx2(rows, probe, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { dots_avx512_vnni(rows, probe, out) },
            // SAFETY: a kernel of this kind is only made where the processor has the dot product; every aarch64 has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => unsafe { dots_neon_dot(rows, probe, out) },
        }
    }

    /// How many bits of each sketch differ from one.
    pub(super) fn differing<T: AsRef<Bits>>(self, sketches: &[T], sketch: &Sketch, out: &mut [u16]) {
        let sketch = sketch.as_ref();
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2 and POPCNT.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { differing_avx2(sketches, sketch, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VPOPCNTDQ.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { differing_avx512(sketches, sketch, out) },
            _ => differing_each(sketches, sketch, out),
        }
    }

    /// The inner product of one row's 16-bit levels with the probe.
    pub(super) fn fine(self, high: &[Lane], low: &[Lane], probe: &[FloatLane]) -> f32 {
        match self.0 {
            Kind::Portable => fine_plain(high, low, probe),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { fine_avx2(high, low, probe) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { fine_avx512(high, low, probe) },
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => fine_plain(high, low, probe),
        }
    }
}

#[inline(always)]
fn dots_plain(rows: &[Lane], probe: &[Lane], out: &mut [i32]) {
    for (row, out) in rows.chunks_exact(probe.len()).zip(out) {
        let mut sum = 0i32;
        for (row, probe) in row.iter().zip(probe) {
            // At most 64 lanes of 64 products of at most 2^14: far within 32 bits.
            let products = row.0.iter().zip(&probe.0).map(|(x, p)| i32::from(*x) * i32::from(*p));
            sum = products.fold(sum, i32::wrapping_add);
        }
        *out = sum;
    }
}

#[inline(always)]
fn fine_plain(high: &[Lane], low: &[Lane], probe: &[FloatLane]) -> f32 {
    let mut sums = [0.0f32; SUMS];
    for ((high, low), probe) in high.iter().zip(low).zip(probe) {
        for half in [0, LANE - SUMS] {
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum += level(high.0[half + at], low.0[half + at]) as f32 * probe.0[half + at];
            }
        }
    }
    // Pairwise: a straight sum over the accumulators would be the least exact part.
    let mut width = SUMS / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(&*high) {
            *low += *high;
        }
        width /= 2;
    }
    sums[0]
}

/// How many bits of two sketches differ: for the graph, which asks about one at a time.
pub(super) fn differing(a: &Bits, b: &Bits) -> u32 {
    // Baseline x86-64 has no instruction that counts bits; every aarch64 has.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor was asked just now.
        return unsafe { differing_popcnt(a, b) };
    }
    differing_plain(a, b)
}

#[inline(always)]
fn differing_plain(a: &Bits, b: &Bits) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn differing_popcnt(a: &Bits, b: &Bits) -> u32 {
    differing_plain(a, b)
}

#[inline(always)]
fn differing_each<T: AsRef<Bits>>(sketches: &[T], sketch: &Bits, out: &mut [u16]) {
    for (out, other) in out.iter_mut().zip(sketches) {
        *out = differing_plain(other.as_ref(), sketch) as u16;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx2")]
fn differing_avx2<T: AsRef<Bits>>(sketches: &[T], sketch: &Bits, out: &mut [u16]) {
    differing_each(sketches, sketch, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx512f,avx512vl,avx512bw,avx512vpopcntdq")]
fn differing_avx512<T: AsRef<Bits>>(sketches: &[T], sketch: &Bits, out: &mut [u16]) {
    differing_each(sketches, sketch, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dots_avx2(rows: &[Lane], probe: &[Lane], out: &mut [i32]) {
    dots_plain(rows, probe, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fine_avx2(high: &[Lane], low: &[Lane], probe: &[FloatLane]) -> f32 {
    fine_plain(high, low, probe)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fine_avx512(high: &[Lane], low: &[Lane], probe: &[FloatLane]) -> f32 {
    fine_plain(high, low, probe)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn dots_neon_dot(rows: &[Lane], probe: &[Lane], out: &mut [i32]) {
    dots_plain(rows, probe, out);
}

/// `vpdpbusd` multiplies unsigned by signed bytes: a row's bytes are moved up by 128, and 128 times the probe's sum is taken off.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dots_avx512_vnni(rows: &[Lane], probe: &[Lane], out: &mut [i32]) {
    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512,
        _mm512_xor_si512,
    };
    #[target_feature(enable = "avx512f")]
    fn load(lane: &Lane) -> __m512i {
        // SAFETY: a lane is 64 bytes at a multiple of 64, and any bytes are a vector.
        unsafe { _mm512_load_si512((&raw const lane.0).cast()) }
    }
    const TOGETHER: usize = 4;
    let up = _mm512_set1_epi8(i8::MIN);
    let bias = 128 * probe.iter().flat_map(|lane| lane.0).map(i32::from).sum::<i32>();
    let lanes = probe.len();
    let mut groups = rows.chunks_exact(TOGETHER * lanes);
    let mut outs = out.chunks_exact_mut(TOGETHER);
    for (rows, out) in (&mut groups).zip(&mut outs) {
        let (a, rows) = rows.split_at(lanes);
        let (b, rows) = rows.split_at(lanes);
        let (c, d) = rows.split_at(lanes);
        let mut sums = [_mm512_setzero_si512(); TOGETHER];
        for ((((p, a), b), c), d) in probe.iter().zip(a).zip(b).zip(c).zip(d) {
            let p = load(p);
            sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_xor_si512(up, load(a)), p);
            sums[1] = _mm512_dpbusd_epi32(sums[1], _mm512_xor_si512(up, load(b)), p);
            sums[2] = _mm512_dpbusd_epi32(sums[2], _mm512_xor_si512(up, load(c)), p);
            sums[3] = _mm512_dpbusd_epi32(sums[3], _mm512_xor_si512(up, load(d)), p);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = _mm512_reduce_add_epi32(sum) - bias;
        }
    }
    for (row, out) in groups.remainder().chunks_exact(lanes).zip(outs.into_remainder()) {
        let mut sum = _mm512_setzero_si512();
        for (p, x) in probe.iter().zip(row) {
            sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(up, load(x)), load(p));
        }
        *out = _mm512_reduce_add_epi32(sum) - bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(values: &[i8]) -> Vec<Lane> {
        let lane = |part: &[i8]| {
            let mut lane = Lane::default();
            lane.0[..part.len()].copy_from_slice(part);
            lane
        };
        values.chunks(LANE).map(lane).collect()
    }

    /// Rows and a probe of `dimension` numbers drawn by `draw`, through every kernel here, against sums in 64 bits.
    fn check(dimension: usize, rows: usize, mut draw: impl FnMut() -> i8) {
        let mut row = || (0..dimension).map(|_| draw()).collect::<Vec<i8>>();
        let probe = row();
        let rows: Vec<Vec<i8>> = (0..rows).map(|_| row()).collect();
        let plain: Vec<i64> =
            rows.iter().map(|row| row.iter().zip(&probe).map(|(x, p)| i64::from(*x) * i64::from(*p)).sum()).collect();
        let high: Vec<Lane> = rows.iter().flat_map(|row| lanes(row)).collect();
        let low: Vec<Lane> = rows.iter().rev().flat_map(|row| lanes(row)).collect();
        let coarse = lanes(&probe);
        let floats: Vec<FloatLane> = coarse.iter().map(|lane| FloatLane(lane.0.map(|v| f32::from(v) / 977.0))).collect();
        for kernel in Kernel::all() {
            let mut out = vec![7; rows.len()];
            kernel.dots(&high, &coarse, &mut out);
            assert_eq!(out.iter().map(|v| i64::from(*v)).collect::<Vec<_>>(), plain, "{} at {dimension}", kernel.name());
            for (high, low) in high.chunks_exact(coarse.len()).zip(low.chunks_exact(coarse.len())) {
                let fine = kernel.fine(high, low, &floats);
                assert_eq!(fine.to_bits(), fine_plain(high, low, &floats).to_bits(), "{} at {dimension}", kernel.name());
            }
        }
    }

    #[test]
    fn every_kernel_equals_plain_sums_on_extreme_numbers() {
        for dimension in [1, 2, 63, 64, 65, 127, 512, 4_095, 4_096] {
            for value in [i8::MIN, -127, -1, 0, 1, i8::MAX] {
                check(dimension, 5, || value);
            }
            let mut sign = false;
            check(dimension, 6, || {
                sign = !sign;
                if sign { i8::MIN } else { i8::MAX }
            });
        }
    }

    #[test]
    fn every_kernel_equals_plain_sums_on_random_numbers() {
        let mut random = fastrand::Rng::with_seed(3);
        for dimension in (1..=130).chain([511, 512, 513, 1_024, 4_095, 4_096]) {
            for rows in [0, 1, 3, 4, 5, 9] {
                check(dimension, rows, || random.i8(..));
            }
        }
    }

    #[test]
    fn differing_bits_are_counted_alike_everywhere() {
        let mut random = fastrand::Rng::with_seed(5);
        assert_eq!((differing(&[0; 8], &[u64::MAX; 8]), differing(&[7; 8], &[7; 8])), (512, 0));
        for _ in 0..1_000 {
            let mut draw = || std::array::from_fn(|_| random.u64(..));
            let (a, b): (Bits, Bits) = (draw(), draw());
            let plain = differing_plain(&a, &b);
            assert_eq!(differing(&a, &b), plain);
            for kernel in Kernel::all() {
                let mut out = [0; 3];
                kernel.differing(&[Sketch::of(a), Sketch::of(b), Sketch::of([0; 8])], &Sketch::of(b), &mut out);
                let ones = b.iter().map(|word| word.count_ones() as u16).sum();
                assert_eq!(out, [plain as u16, 0, ones], "{}", kernel.name());
            }
        }
    }

    #[test]
    fn the_fine_product_is_the_product_of_the_levels() {
        let (high, low) = (lanes(&[127, -127, 1]), lanes(&[127, -128, 0]));
        let mut probe = FloatLane::default();
        probe.0[..3].copy_from_slice(&[1.0, 1.0, 2.0]);
        let expected = 32_639.0 - 32_640.0 + 512.0;
        assert_eq!(Kernel::best().fine(&high, &low, &[probe]), expected);
    }
}
