//! The inner loops, compiled once for each kind of processor and chosen when the program runs. Under a feature such as Arm's dot
//! product the compiler makes that processor's vectors of the plain loops; where it does not find the instruction that multiplies
//! unsigned by signed bytes and adds (AVX2, AVX-512 VNNI) the loop over nibbles is written out. All give the same numbers to the last
//! bit: integer sums have no order, and the `f32` sums keep theirs.
#![expect(unsafe_code, reason = "functions of a processor's features, and loads of its widest vectors")]

use std::sync::OnceLock;

use super::sketch::Sketch;
use super::template::{Apart, FloatLane, LANE, Lane, ProbeLane, Row, Squares, level};

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

    /// The inner product of each row of nibbles with the probe's numbers, of which a row's lane meets two lanes.
    pub(super) fn nibbles(self, rows: &[Lane], probe: &[ProbeLane], out: &mut [i32]) {
        debug_assert_eq!(2 * rows.len(), probe.len() * out.len());
        match self.0 {
            Kind::Portable => nibbles_plain(rows, probe, out),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { nibbles_avx2(rows, probe, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { nibbles_avx512_vnni(rows, probe, out) },
            // SAFETY: a kernel of this kind is only made where the processor has the dot product; every aarch64 has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => unsafe { nibbles_neon_dot(rows, probe, out) },
        }
    }

    /// As [`Kernel::nibbles`], for some of a plane's rows, by their numbers.
    pub(super) fn nibbles_of(self, plane: &[Lane], rows: &[u32], probe: &[ProbeLane], out: &mut [i32]) {
        let pairs = probe.len() / 2;
        let lanes = |row: &u32| *row as usize * pairs..(*row as usize + 1) * pairs;
        #[cfg(target_arch = "x86_64")]
        if matches!(self.0, Kind::Avx2 | Kind::Avx512Vnni) {
            let (fours, rest) = rows.as_chunks();
            let (outs, out) = out.split_at_mut(fours.len() * 4);
            for (four, out) in fours.iter().zip(outs.as_chunks_mut().0) {
                let rows = four.each_ref().map(|row| &plane[lanes(row)]);
                *out = match self.0 {
                    // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
                    Kind::Avx512Vnni => unsafe { four_avx512_vnni(rows, probe) },
                    // SAFETY: a kernel of this kind is only made where the processor has AVX2.
                    _ => unsafe { four_avx2(rows, probe) },
                };
            }
            for (row, out) in rest.iter().zip(out) {
                self.nibbles(&plane[lanes(row)], probe, std::slice::from_mut(out));
            }
            return;
        }
        for (row, out) in rows.iter().zip(out) {
            self.nibbles(&plane[lanes(row)], probe, std::slice::from_mut(out));
        }
    }

    /// The ceilings that inner products with coarse nibbles leave, and the highest of them.
    pub(super) fn ceilings(self, of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { ceilings_avx2(of, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { ceilings_avx512(of, out) },
            _ => ceilings_plain(of, out),
        }
    }

    /// Which of a line's numbers reach the floor, a bit each, the first in the lowest.
    pub(super) fn reaching(self, line: &FloatLane, floor: f32) -> u64 {
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { reaching_avx2(line, floor) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { reaching_avx512(line, floor) },
            _ => reaching_plain(line, floor),
        }
    }

    /// How many bits of each sketch differ from one.
    pub(super) fn differing(self, sketches: &[Sketch], sketch: &Sketch, out: &mut [u16]) {
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

    /// Takes up to a lane of numbers apart.
    pub(super) fn take_apart(self, values: &[f32], scale: f32, half: i32, out: &mut Apart, squares: &mut Squares) {
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { take_apart_avx2(values, scale, half, out, squares) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { take_apart_avx512(values, scale, half, out, squares) },
            _ => out.take(values, scale, half, squares),
        }
    }

    /// The inner product of one row's 16-bit levels with the probe.
    pub(super) fn fine(self, row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
        match self.0 {
            Kind::Portable => fine_plain(row, half, probe),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { fine_avx2(row, half, probe) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW, VL and VNNI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { fine_avx512(row, half, probe) },
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => fine_plain(row, half, probe),
        }
    }
}

#[inline(always)]
fn nibbles_plain(rows: &[Lane], probe: &[ProbeLane], out: &mut [i32]) {
    for (row, out) in rows.chunks_exact(probe.len() / 2).zip(out) {
        let mut sum = 0i32;
        for (row, probe) in row.iter().zip(probe.chunks_exact(2)) {
            // At most 64 lanes of 64 products of less than 2^11: far within 32 bits.
            let low = row.0.iter().zip(&probe[0].0).map(|(x, p)| i32::from((x & 15) as i8) * i32::from(*p));
            sum = low.fold(sum, i32::wrapping_add);
            let high = row.0.iter().zip(&probe[1].0).map(|(x, p)| i32::from((x >> 4) as i8) * i32::from(*p));
            sum = high.fold(sum, i32::wrapping_add);
        }
        *out = sum;
    }
}

/// What ceilings are made of: rows' inner products with a probe, and what else is known of the rows and of the probe.
pub(super) struct Ceilings<'a> {
    pub(super) dots: &'a [i32],
    /// Half a step of each row's coarse nibble.
    pub(super) halves: &'a [f32],
    /// The length of what each row's coarse nibbles leave.
    pub(super) rests: &'a [f32],
    /// What a nibble's middle adds to an inner product, twice.
    pub(super) centre: i32,
    /// What one unit of the probe is.
    pub(super) step: f32,
    /// How far a score can lie from the true one, as `a + b·rest`.
    pub(super) bound: (f32, f32),
}

impl Ceilings<'_> {
    /// One row's ceiling.
    #[inline(always)]
    pub(super) fn one(&self, dot: i32, half: f32, rest: f32) -> f32 {
        // Far within 32 bits; checked sums would not become vectors.
        dot.wrapping_mul(2).wrapping_sub(self.centre) as f32 * (half * self.step) + (self.bound.0 + self.bound.1 * rest)
    }
}

#[inline(always)]
fn ceilings_plain(of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
    let rows = of.halves.iter().zip(of.rests).zip(of.dots);
    for (((half, rest), dot), out) in rows.zip(&mut *out) {
        *out = of.one(*dot, *half, *rest);
    }
    // Sixteen comparisons side by side, which the compiler makes vectors of.
    let mut most = [f32::NEG_INFINITY; 16];
    let parts = out.chunks_exact(16);
    let rest = parts.remainder();
    for part in parts {
        most.iter_mut().zip(part).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, value| most.max(*value))
}

#[inline(always)]
fn reaching_plain(line: &FloatLane, floor: f32) -> u64 {
    line.0.iter().rev().fold(0, |bits, value| bits << 1 | u64::from(*value >= floor))
}

#[inline(always)]
fn fine_plain(row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
    let mut sums = [0.0f32; SUMS];
    let pairs = row.coarse.iter().zip(row.middle).zip(row.low.chunks_exact(2)).zip(probe.chunks_exact(2));
    for (((coarse, middle), low), probe) in pairs {
        for (shift, (low, probe)) in [0, 4].into_iter().zip(low.iter().zip(probe)) {
            for start in [0, LANE - SUMS] {
                for (at, sum) in sums.iter_mut().enumerate() {
                    let at = start + at;
                    let level = level(half, coarse.0[at] >> shift & 15, middle.0[at] >> shift & 15, low.0[at]);
                    *sum += level as f32 * probe.0[at];
                }
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
fn differing_each(sketches: &[Sketch], sketch: &Sketch, out: &mut [u16]) {
    for (out, other) in out.iter_mut().zip(sketches) {
        *out = differing_plain(other.as_ref(), sketch.as_ref()) as u16;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx2")]
fn differing_avx2(sketches: &[Sketch], sketch: &Sketch, out: &mut [u16]) {
    differing_each(sketches, sketch, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx512f,avx512vl,avx512bw,avx512vpopcntdq")]
fn differing_avx512(sketches: &[Sketch], sketch: &Sketch, out: &mut [u16]) {
    use std::arch::x86_64::{_mm512_popcnt_epi64, _mm512_reduce_add_epi64, _mm512_xor_si512};
    let sketch = load_512(sketch);
    for (out, other) in out.iter_mut().zip(sketches) {
        *out = _mm512_reduce_add_epi64(_mm512_popcnt_epi64(_mm512_xor_si512(load_512(other), sketch))) as u16;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn load_512<Line>(line: &Line) -> std::arch::x86_64::__m512i {
    const { assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64) };
    // SAFETY: a line is 64 bytes at a multiple of 64, and any bytes are a vector.
    unsafe { std::arch::x86_64::_mm512_load_si512((&raw const *line).cast()) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn ceilings_avx2(of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
    ceilings_plain(of, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn ceilings_avx512(of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
    ceilings_plain(of, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn reaching_avx2(line: &FloatLane, floor: f32) -> u64 {
    use std::arch::x86_64::{_CMP_GE_OQ, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_movemask_ps, _mm256_set1_ps};
    let floor = _mm256_set1_ps(floor);
    let (parts, _) = line.0.as_chunks::<8>();
    parts.iter().rev().fold(0, |bits, part| {
        // SAFETY: a part is eight numbers, and no alignment is asked for.
        let part = unsafe { _mm256_loadu_ps(part.as_ptr()) };
        bits << 8 | u64::from(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(part, floor)).cast_unsigned())
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn reaching_avx512(line: &FloatLane, floor: f32) -> u64 {
    use std::arch::x86_64::{_CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_set1_ps};
    let floor = _mm512_set1_ps(floor);
    let (parts, _) = line.0.as_chunks::<16>();
    parts.iter().rev().fold(0, |bits, part| {
        // SAFETY: a part is sixteen numbers, and no alignment is asked for.
        let part = unsafe { _mm512_loadu_ps(part.as_ptr()) };
        bits << 16 | u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(part, floor))
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn take_apart_avx2(values: &[f32], scale: f32, half: i32, out: &mut Apart, squares: &mut Squares) {
    out.take(values, scale, half, squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn take_apart_avx512(values: &[f32], scale: f32, half: i32, out: &mut Apart, squares: &mut Squares) {
    out.take(values, scale, half, squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fine_avx2(row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
    fine_plain(row, half, probe)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fine_avx512(row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
    fine_plain(row, half, probe)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn nibbles_neon_dot(rows: &[Lane], probe: &[ProbeLane], out: &mut [i32]) {
    nibbles_plain(rows, probe, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn nibbles_avx2(rows: &[Lane], probe: &[ProbeLane], out: &mut [i32]) {
    let pairs = probe.len() / 2;
    let mut groups = rows.chunks_exact(4 * pairs);
    let (outs, rest) = out.as_chunks_mut();
    for (rows, out) in (&mut groups).zip(outs) {
        let (a, rows) = rows.split_at(pairs);
        let (b, rows) = rows.split_at(pairs);
        let (c, d) = rows.split_at(pairs);
        *out = four_avx2([a, b, c, d], probe);
    }
    for (row, out) in groups.remainder().chunks_exact(pairs).zip(rest) {
        *out = sums_of_four_256([row_avx2(row, probe); 4])[0];
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn four_avx2(rows: [&[Lane]; 4], probe: &[ProbeLane]) -> [i32; 4] {
    let [a, b, c, d] = rows;
    sums_of_four_256([row_avx2(a, probe), row_avx2(b, probe), row_avx2(c, probe), row_avx2(d, probe)])
}

/// One row's products in eight sums, four lanes at a time: a row of 512 numbers is one step.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn row_avx2(row: &[Lane], probe: &[ProbeLane]) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::{_mm256_add_epi32, _mm256_setzero_si256};
    let ((fours, rest), (probes, probe)) = (row.as_chunks::<4>(), probe.as_chunks::<8>());
    let mut sum = _mm256_setzero_si256();
    for ([a, b, c, d], [p, q, r, s, t, u, v, w]) in fours.iter().zip(probes) {
        let halves = [two_avx2([a, b], [[p, q], [r, s]]), two_avx2([c, d], [[t, u], [v, w]])];
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(halves[0], halves[1]));
    }
    for (row, [p, q]) in rest.iter().zip(probe.as_chunks().0) {
        sum = _mm256_add_epi32(sum, two_avx2([row], [[p, q]]));
    }
    sum
}

/// The products of up to two lanes in eight sums. `vpmaddubsw` adds two products in 16 bits: sixteen of them, of at most 15 by 128, stay
/// within, so that they are widened once.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn two_avx2<const LANES: usize>(rows: [&Lane; LANES], probe: [[&ProbeLane; 2]; LANES]) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi16, _mm256_and_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
    };
    #[target_feature(enable = "avx2")]
    fn load<Line>(line: &Line) -> [__m256i; 2] {
        const { assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64) };
        let line = (&raw const *line).cast::<__m256i>();
        // SAFETY: both halves lie within the line at multiples of 32, and any bytes are a vector.
        unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] }
    }
    const { assert!(LANES <= 2) };
    let nibble = _mm256_set1_epi8(15);
    let mut narrow = _mm256_setzero_si256();
    for (row, [low, high]) in rows.into_iter().zip(probe) {
        for ((x, low), high) in load(row).into_iter().zip(load(low)).zip(load(high)) {
            let low = _mm256_maddubs_epi16(_mm256_and_si256(x, nibble), low);
            let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(x), nibble), high);
            narrow = _mm256_add_epi16(narrow, _mm256_add_epi16(low, high));
        }
    }
    _mm256_madd_epi16(narrow, _mm256_set1_epi16(1))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn nibbles_avx512_vnni(rows: &[Lane], probe: &[ProbeLane], out: &mut [i32]) {
    use std::arch::x86_64::{_mm512_reduce_add_epi32, _mm512_setzero_si512};
    let pairs = probe.len() / 2;
    let mut groups = rows.chunks_exact(4 * pairs);
    let (outs, rest) = out.as_chunks_mut();
    for (rows, out) in (&mut groups).zip(outs) {
        let (a, rows) = rows.split_at(pairs);
        let (b, rows) = rows.split_at(pairs);
        let (c, d) = rows.split_at(pairs);
        *out = four_avx512_vnni([a, b, c, d], probe);
    }
    for (row, out) in groups.remainder().chunks_exact(pairs).zip(rest) {
        let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (row, p) in row.iter().zip(probe.chunks_exact(2)) {
            add_products(&mut low, &mut high, row, load_512(&p[0]), load_512(&p[1]));
        }
        *out = _mm512_reduce_add_epi32(low) + (_mm512_reduce_add_epi32(high) >> 4);
    }
}

/// Four rows at once: no addition waits for another, and the probe is loaded once for all.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four_avx512_vnni(rows: [&[Lane]; 4], probe: &[ProbeLane]) -> [i32; 4] {
    use std::arch::x86_64::{_mm512_add_epi32, _mm512_setzero_si512, _mm512_slli_epi32};
    let [a, b, c, d] = rows;
    let (mut low, mut high) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
    for ((((p, a), b), c), d) in probe.chunks_exact(2).zip(a).zip(b).zip(c).zip(d) {
        let (first, second) = (load_512(&p[0]), load_512(&p[1]));
        for ((row, low), high) in [a, b, c, d].into_iter().zip(&mut low).zip(&mut high) {
            add_products(low, high, row, first, second);
        }
    }
    let sums = [0, 1, 2, 3].map(|row| _mm512_add_epi32(_mm512_slli_epi32::<4>(low[row]), high[row]));
    sums_of_four(sums).map(|sum| sum >> 4)
}

/// Adds a lane's products: `vpdpbusd` multiplies unsigned by signed bytes and adds four products in 32 bits. The upper nibbles are taken
/// where they are, so that their sum is sixteen times too large.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_products(
    low: &mut std::arch::x86_64::__m512i,
    high: &mut std::arch::x86_64::__m512i,
    row: &Lane,
    first: std::arch::x86_64::__m512i,
    second: std::arch::x86_64::__m512i,
) {
    use std::arch::x86_64::{_mm512_and_si512, _mm512_andnot_si512, _mm512_dpbusd_epi32, _mm512_set1_epi8};
    let (x, nibble) = (load_512(row), _mm512_set1_epi8(15));
    *low = _mm512_dpbusd_epi32(*low, _mm512_and_si512(x, nibble), first);
    *high = _mm512_dpbusd_epi32(*high, _mm512_andnot_si512(nibble, x), second);
}

/// The sum of each of four vectors: transposed and added, which takes a third of what four sums one after another take.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sums_of_four(vectors: [std::arch::x86_64::__m512i; 4]) -> [i32; 4] {
    use std::arch::x86_64::{_mm256_add_epi32, _mm512_castsi512_si256, _mm512_extracti64x4_epi64};
    sums_of_four_256(vectors.map(|v| _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v))))
}

/// As [`sums_of_four`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_four_256([a, b, c, d]: [std::arch::x86_64::__m256i; 4]) -> [i32; 4] {
    use std::arch::x86_64::{
        _mm_add_epi32, _mm_extract_epi32, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    let all = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    [_mm_extract_epi32::<0>(sums), _mm_extract_epi32::<1>(sums), _mm_extract_epi32::<2>(sums), _mm_extract_epi32::<3>(sums)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(values: &[i8]) -> Vec<ProbeLane> {
        let lane = |part: &[i8]| {
            let mut lane = ProbeLane::default();
            lane.0[..part.len()].copy_from_slice(part);
            lane
        };
        let mut lanes: Vec<ProbeLane> = values.chunks(LANE).map(lane).collect();
        lanes.resize(lanes.len().next_multiple_of(2), ProbeLane::default());
        lanes
    }

    /// Two numbers of four bits a byte, as planes have them.
    fn nibbles(values: &[u8]) -> Vec<Lane> {
        let pair = |part: &[u8]| {
            let mut lane = Lane::default();
            part.iter().enumerate().for_each(|(at, value)| lane.0[at % LANE] |= value << (4 * (at / LANE)));
            lane
        };
        values.chunks(2 * LANE).map(pair).collect()
    }

    /// Rows and a probe of `dimension` numbers drawn by `draw`, through every kernel here, against sums in 64 bits.
    fn check(dimension: usize, rows: usize, mut draw: impl FnMut() -> i8) {
        let mut row = || (0..dimension).map(|_| draw()).collect::<Vec<i8>>();
        let probe = row();
        let rows: Vec<Vec<u8>> = (0..rows).map(|_| row().into_iter().map(|v| v.cast_unsigned() >> 4).collect()).collect();
        let plain: Vec<i64> =
            rows.iter().map(|row| row.iter().zip(&probe).map(|(x, p)| i64::from(*x) * i64::from(*p)).sum()).collect();
        let coarse: Vec<Lane> = rows.iter().flat_map(|row| nibbles(row)).collect();
        let probe = padded(&probe);
        let low: Vec<Lane> = probe.iter().map(|lane| Lane(lane.0.map(i8::cast_unsigned))).collect();
        let floats: Vec<FloatLane> = probe.iter().map(|lane| FloatLane(lane.0.map(|v| f32::from(v) / 977.0))).collect();
        for kernel in Kernel::all() {
            let mut out = vec![7; rows.len()];
            kernel.nibbles(&coarse, &probe, &mut out);
            assert_eq!(out.iter().map(|v| i64::from(*v)).collect::<Vec<_>>(), plain, "{} at {dimension}", kernel.name());
            let backwards: Vec<u32> = (0..rows.len() as u32).rev().collect();
            kernel.nibbles_of(&coarse, &backwards, &probe, &mut out);
            assert!(out.iter().rev().map(|v| i64::from(*v)).eq(plain.iter().copied()), "{} at {dimension}", kernel.name());
            for coarse in coarse.chunks_exact(probe.len() / 2) {
                let row = Row { coarse, middle: coarse, low: &low };
                let fine = kernel.fine(row, 1_234, &floats);
                assert_eq!(fine.to_bits(), fine_plain(row, 1_234, &floats).to_bits(), "{} at {dimension}", kernel.name());
            }
        }
    }

    /// Kernels that this processor lacks are not tested by the others here: whoever counts on one names it (`cross/inside.sh`).
    #[test]
    fn the_kernel_that_is_asked_for_is_among_those_tested() {
        let names: Vec<_> = Kernel::all().into_iter().map(Kernel::name).collect();
        println!("tested here: {}", names.join(", "));
        if let Ok(asked) = std::env::var("FACEID_REQUIRE_KERNEL") {
            assert!(names.contains(&asked.as_str()), "{asked} is not among {names:?}");
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
    fn ceilings_and_what_reaches_the_floor_are_the_same_everywhere() {
        let mut random = fastrand::Rng::with_seed(8);
        for rows in [0, 1, 15, 16, 17, 63, 64] {
            let dots: Vec<i32> = (0..rows).map(|_| random.i32(-1_000_000..1_000_000)).collect();
            let halves: Vec<f32> = (0..rows).map(|_| random.f32()).collect();
            let rests: Vec<f32> = (0..rows).map(|_| random.f32()).collect();
            let of = Ceilings { dots: &dots, halves: &halves, rests: &rests, centre: 77, step: 1e-6, bound: (0.1, 0.2) };
            let mut plain = FloatLane([f32::NEG_INFINITY; LANE]);
            let most = ceilings_plain(&of, &mut plain.0[..rows]);
            assert_eq!(most, plain.0.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            for kernel in Kernel::all() {
                let mut line = FloatLane([f32::NEG_INFINITY; LANE]);
                assert_eq!((kernel.ceilings(&of, &mut line.0[..rows]), line.0), (most, plain.0), "{}", kernel.name());
                for floor in [f32::NEG_INFINITY, 0.1, most, f32::INFINITY, f32::NAN] {
                    let reaching = kernel.reaching(&line, floor);
                    let each = line.0.iter().enumerate();
                    assert!(
                        each.into_iter().all(|(at, value)| (reaching >> at & 1 == 1) == (*value >= floor)),
                        "{}",
                        kernel.name()
                    );
                }
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
        let mut probe = [FloatLane::default(), FloatLane::default()];
        (probe[0].0[0], probe[1].0[63]) = (1.0, 2.0);
        let (mut low, coarse) = ([Lane::default(), Lane::default()], nibbles(&[vec![15], vec![0; 126], vec![1]].concat()));
        (low[0].0[0], low[1].0[63]) = (255, 7);
        let row = Row { coarse: &coarse, middle: &coarse, low: &low };
        let levels = (2_000.0 * 15.0 + 3_840.0 + 255.0 - 2_048.0, -2_000.0 * 13.0 + 256.0 + 7.0 - 2_048.0);
        assert_eq!(Kernel::best().fine(row, 2_000, &probe), levels.0 + 2.0 * levels.1);
    }
}
