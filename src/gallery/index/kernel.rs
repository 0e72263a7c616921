//! The inner loops, compiled once for each kind of processor and chosen when the program runs. Most are plain loops of which the
//! compiler makes that processor's vectors. Two are written out: the one over the top bits ([`tops`]), and the one over the next bits,
//! which needs the instruction that multiplies unsigned by signed bytes and adds. All give the same numbers to the last bit: integer
//! sums have no order, and the `f32` sums keep theirs.
#![expect(unsafe_code, reason = "functions of a processor's features, and loads of its widest vectors")]

use std::sync::OnceLock;

use zeroize::Zeroize;

use super::probe::{Columns, Probe, ProbeLane};
use super::template::{Apart, EIGHTH, FloatLane, Pair, QUARTER, Row, Sums, Tops};

mod tops;

/// The bits of a sketch.
pub(super) type Bits = [u64; 8];

/// Accumulators of the `f32` loop: additions that do not wait for each other are what fills the vector units.
const SUMS: usize = 2 * EIGHTH;

/// Comparisons side by side, which the compiler makes vectors of.
const WIDTH: usize = 8;

/// Pairs of lanes of a row whose single bits are gathered at once: those of 512 numbers.
const GATHERED: usize = 4;

/// Which processor the loops are for. A value other than [`Kernel::Portable`] is only made where the processor has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

/// Asks for memory that is read soon, so that it is waited for once and not part by part. A hint: nothing depends on it.
#[inline]
pub(super) fn prefetch<T>(of: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of_val(of)).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction does nothing that can be seen, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(of.as_ptr().cast::<i8>().wrapping_add(offset)) };
    }
    // Stable Rust has no such hint for other processors.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}

/// Bytes that a processor reads at once.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

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
            if has!("avx2") {
                kinds.push(Self(Kind::Avx2));
            }
            if has!("avx2") && has!("avx512f") && has!("avx512bw") && has!("avx512vl") {
                kinds.push(Self(Kind::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            // Every aarch64 that this is compiled for has NEON; the dot product came with ARMv8.2.
            kinds.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                kinds.push(Self(Kind::NeonDot));
            }
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
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neon-dot",
        }
    }

    /// Of each block of rows of a plane of single bits, every row's sum of the entries that its codes name: [`BLOCK`] sums a block.
    pub(super) fn tops(self, plane: &[u8], tables: Columns<'_>, out: &mut [i32]) {
        debug_assert_eq!(plane.len(), out.len() * tables.len());
        match self.0 {
            Kind::Portable => tops::plain(plane, tables, out),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { tops::avx2(plane, tables, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { tops::avx512(plane, tables, out) },
            // SAFETY: every aarch64 that this is compiled for has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => unsafe { tops::neon(plane, tables, out) },
        }
    }

    /// As [`Kernel::tops`], with rough tables.
    pub(super) fn rough(self, plane: &[u8], tables: Columns<'_>, out: &mut [u16]) {
        debug_assert_eq!(plane.len(), out.len() * tables.len());
        match self.0 {
            Kind::Portable => tops::rough_plain(plane, tables, out),
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { tops::rough_avx2(plane, tables, out) },
            // SAFETY: every aarch64 that this is compiled for has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => unsafe { tops::rough_neon(plane, tables, out) },
        }
    }

    /// The inner products of some rows of the second plane, by their numbers, with the probe's 8-bit numbers.
    pub(super) fn seconds_of(self, plane: &[u8], rows: &[u32], probe: &[ProbeLane], out: &mut [i32]) {
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { seconds_avx2(plane, rows, probe, out) },
            // SAFETY: a kernel of this kind is only made where the processor has the dot product; every aarch64 has NEON.
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => unsafe { seconds_neon_dot(plane, rows, probe, out) },
            _ => seconds_plain(plane, rows, probe, out),
        }
    }

    /// Makes a probe of numbers, as [`Probe::take`] does.
    pub(super) fn take(self, probe: &mut Probe, values: &[f32]) {
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { take_avx2(probe, values) },
            _ => probe.take(values),
        }
    }

    /// The ceilings that inner products with coarse nibbles leave, and the highest of them.
    pub(super) fn ceilings(self, of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { ceilings_avx2(of, out) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { ceilings_avx512(of, out) },
            _ => ceilings_plain(of, out),
        }
    }

    /// The highest of the ceilings that [`Kernel::ceilings`] gives.
    pub(super) fn highest(self, of: &Ceilings<'_>) -> f32 {
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { highest_avx2(of) },
            _ => highest_plain(of),
        }
    }

    /// The same of each so many rows, of which the last may be fewer.
    pub(super) fn highest_of_each(self, rows: usize, of: &Ceilings<'_, u16>, out: &mut [f32]) {
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { highest_of_each_avx2(rows, of, out) },
            _ => highest_of_each_plain(rows, of, out),
        }
    }

    /// Which of a line's numbers reach the floor, a bit each, the first in the lowest.
    pub(super) fn reaching(self, line: &FloatLane, floor: f32) -> u64 {
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { reaching_avx2(line, floor) },
            _ => reaching_plain(line, floor),
        }
    }

    /// Takes up to a lane of numbers apart.
    pub(super) fn take_apart(self, values: &[f32], scale: f32, half: i32, out: &mut Apart, sums: &mut Sums) {
        match self.0 {
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { take_apart_avx2(values, scale, half, out, sums) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { take_apart_avx512(values, scale, half, out, sums) },
            _ => out.take(values, scale, half, sums),
        }
    }

    /// The Walsh and Hadamard transform of a power of two of numbers, unscaled, in place.
    pub(crate) fn hadamard(self, values: &mut [f32]) {
        debug_assert!(values.len().is_power_of_two());
        match self.0 {
            // SAFETY: a kernel of these kinds is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => unsafe { hadamard_avx2(values) },
            _ => hadamard_plain(values),
        }
    }

    /// The inner product of one row's 16-bit levels with the probe.
    pub(super) fn fine(self, row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
        match self.0 {
            Kind::Portable => fine_plain(row, half, probe),
            // SAFETY: a kernel of this kind is only made where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { fine_avx2(row, half, probe) },
            // SAFETY: a kernel of this kind is only made where the processor has AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { fine_avx512(row, half, probe) },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => fine_plain(row, half, probe),
        }
    }
}

#[inline(always)]
fn seconds_plain(plane: &[u8], rows: &[u32], probe: &[ProbeLane], out: &mut [i32]) {
    let size = QUARTER * probe.len() / 2;
    for (row, out) in rows.iter().zip(out) {
        let row = &plane[*row as usize * size..][..size];
        let mut sum = 0i32;
        for (codes, probe) in row.as_chunks::<QUARTER>().0.iter().zip(probe.as_chunks::<2>().0) {
            for (field, probe) in probe.iter().flat_map(|lane| lane.0.as_chunks::<QUARTER>().0).enumerate() {
                // At most 4,096 products of less than 2^9: far within 32 bits.
                let products = codes.iter().zip(probe).map(|(x, p)| i32::from((x >> (2 * field) & 3) as i8) * i32::from(*p));
                sum = products.fold(sum, i32::wrapping_add);
            }
        }
        *out = sum;
    }
}

/// What ceilings are made of: sums of rows over the tables of a probe, and what else is known of the rows and of the probe.
pub(super) struct Ceilings<'a, Sum = i32> {
    pub(super) sums: &'a [Sum],
    /// What a score grows by with each row's inner product.
    pub(super) gains: &'a [f32],
    /// How far a score can lie from what the inner product tells, for a probe of length one.
    pub(super) slacks: &'a [f32],
    /// What one unit of the tables is.
    pub(super) unit: f32,
    /// What is taken off a sum, in the probe's own units, for the inner product.
    pub(super) offset: f32,
    /// How far a score can lie from the true one, as `a + b·slack`.
    pub(super) bound: (f32, f32),
}

impl<Sum: Into<i32> + Copy> Ceilings<'_, Sum> {
    /// One row's ceiling.
    #[inline(always)]
    fn one(&self, sum: Sum, gain: f32, slack: f32) -> f32 {
        (sum.into() as f32 * self.unit - self.offset) * gain + (self.bound.0 + self.bound.1 * slack)
    }
}

#[inline(always)]
fn ceilings_plain(of: &Ceilings<'_>, out: &mut [f32]) -> f32 {
    let rows = of.gains.iter().zip(of.slacks).zip(of.sums);
    for (((gain, slack), sum), out) in rows.zip(&mut *out) {
        *out = of.one(*sum, *gain, *slack);
    }
    let mut most = [f32::NEG_INFINITY; WIDTH];
    let (parts, rest) = out.as_chunks::<WIDTH>();
    for part in parts {
        most.iter_mut().zip(part).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
    }
    rest.iter().copied().fold(highest_of(most), f32::max)
}

#[inline(always)]
fn highest_plain<Sum: Into<i32> + Copy>(of: &Ceilings<'_, Sum>) -> f32 {
    let mut most = [f32::NEG_INFINITY; WIDTH];
    // All in units of the tables, which makes less to do for each row.
    let (offset, per_slack) = (of.offset / of.unit, of.bound.1 / of.unit);
    let one = |sum: Sum, gain: f32, slack: f32| (sum.into() as f32 - offset) * gain + per_slack * slack;
    let (sums, rest) = of.sums[..of.gains.len()].as_chunks::<WIDTH>();
    let ((gains, last_gains), (slacks, last_slacks)) = (of.gains.as_chunks::<WIDTH>(), of.slacks.as_chunks::<WIDTH>());
    for ((sums, gains), slacks) in sums.iter().zip(gains).zip(slacks) {
        for (((most, sum), gain), slack) in most.iter_mut().zip(sums).zip(gains).zip(slacks) {
            let value = one(*sum, *gain, *slack);
            *most = if value > *most { value } else { *most };
        }
    }
    let last = rest.iter().zip(last_gains).zip(last_slacks).map(|((sum, gain), slack)| one(*sum, *gain, *slack));
    last.fold(highest_of(most), f32::max) * of.unit + of.bound.0
}

#[inline(always)]
fn highest_of_each_plain(rows: usize, of: &Ceilings<'_, u16>, out: &mut [f32]) {
    let each = of.sums.chunks(rows).zip(of.gains.chunks(rows)).zip(of.slacks.chunks(rows));
    for (((sums, gains), slacks), out) in each.zip(out) {
        *out = highest_plain(&Ceilings { sums, gains, slacks, ..*of });
    }
}

/// The highest of some numbers, by halves: one after another each would wait for the one before.
#[inline(always)]
fn highest_of(mut numbers: [f32; WIDTH]) -> f32 {
    let mut width = WIDTH / 2;
    while width > 0 {
        let (low, high) = numbers.split_at_mut(width);
        low.iter_mut().zip(&*high).for_each(|(low, high)| *low = if *high > *low { *high } else { *low });
        width /= 2;
    }
    numbers[0]
}

#[inline(always)]
fn reaching_plain(line: &FloatLane, floor: f32) -> u64 {
    line.0.iter().rev().fold(0, |bits, value| bits << 1 | u64::from(*value >= floor))
}

#[inline(always)]
fn hadamard_plain(values: &mut [f32]) {
    let mut half = 1;
    if values.len() >= 16 {
        // Four rounds at once, without a way to memory between them.
        for part in values.as_chunks_mut::<16>().0 {
            [1, 2, 4, 8].into_iter().for_each(|half| butterflies(part, half));
        }
        half = 16;
    }
    while half < values.len() {
        if 4 * half > values.len() {
            return butterflies(values, half);
        }
        // Two rounds.
        for part in values.chunks_exact_mut(4 * half) {
            let (low, high) = part.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (low.split_at_mut(half), high.split_at_mut(half));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let ([e, f], [g, h]) = ([*a + *b, *a - *b], [*c + *d, *c - *d]);
                (*a, *b, *c, *d) = (e + g, f + h, e - g, f - h);
            }
        }
        half *= 4;
    }
}

#[inline(always)]
fn butterflies(values: &mut [f32], half: usize) {
    for pair in values.chunks_exact_mut(2 * half) {
        let (low, high) = pair.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

#[inline(always)]
fn fine_plain(row: Row<'_>, half: i32, probe: &[FloatLane]) -> f32 {
    let (mut even, mut odd) = ([0.0f32; EIGHTH], [0.0f32; EIGHTH]);
    let (pairs, _) = probe.as_chunks::<2>();
    // At most 2,040.
    let half = half as i16;
    for (group, probes) in pairs.chunks(GATHERED).enumerate() {
        // Gathered some time before they are read: bytes that were just written one by one are waited for.
        let mut tops = [Tops::default(); GATHERED];
        tops.iter_mut().zip(probes).enumerate().for_each(|(at, (tops, _))| row.gather(group * GATHERED + at, tops));
        for (at, (tops, probe)) in tops.iter().zip(probes).enumerate() {
            let pair = row.pair(group * GATHERED + at, tops);
            add_products::<0>(pair, half, probe, &mut even);
            add_products::<1>(pair, half, probe, &mut odd);
            add_products::<2>(pair, half, probe, &mut even);
            add_products::<3>(pair, half, probe, &mut odd);
            add_products::<4>(pair, half, probe, &mut even);
            add_products::<5>(pair, half, probe, &mut odd);
            add_products::<6>(pair, half, probe, &mut even);
            add_products::<7>(pair, half, probe, &mut odd);
        }
        tops.zeroize();
    }
    let mut sums: [f32; SUMS] = std::array::from_fn(|at| if at < EIGHTH { even[at] } else { odd[at - EIGHTH] });
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

/// Adds the products of those of a pair's levels whose single bits lie in bit `BIT` of their bytes.
#[inline(always)]
fn add_products<const BIT: usize>(pair: Pair<'_>, half: i16, probe: &[FloatLane; 2], sums: &mut [f32; EIGHTH]) {
    let probe = &probe[BIT / 4].0.as_chunks::<EIGHTH>().0[BIT % 4];
    let levels = pair.levels::<BIT>(half);
    for at in 0..EIGHTH {
        sums[at] += f32::from(levels[at]) * probe[at];
    }
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
fn highest_avx2(of: &Ceilings<'_>) -> f32 {
    highest_plain(of)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn highest_of_each_avx2(rows: usize, of: &Ceilings<'_, u16>, out: &mut [f32]) {
    highest_of_each_plain(rows, of, out);
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
#[target_feature(enable = "avx2")]
fn take_apart_avx2(values: &[f32], scale: f32, half: i32, out: &mut Apart, sums: &mut Sums) {
    out.take(values, scale, half, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn take_apart_avx512(values: &[f32], scale: f32, half: i32, out: &mut Apart, sums: &mut Sums) {
    out.take(values, scale, half, sums);
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hadamard_avx2(values: &mut [f32]) {
    hadamard_plain(values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn take_avx2(probe: &mut Probe, values: &[f32]) {
    probe.take(values);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn seconds_neon_dot(plane: &[u8], rows: &[u32], probe: &[ProbeLane], out: &mut [i32]) {
    seconds_plain(plane, rows, probe, out);
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn load_256(bytes: &[u8; 32]) -> std::arch::x86_64::__m256i {
    // SAFETY: 32 bytes, any of which are a vector, and no alignment is asked for.
    unsafe { std::arch::x86_64::_mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn seconds_avx2(plane: &[u8], rows: &[u32], probe: &[ProbeLane], out: &mut [i32]) {
    let size = QUARTER * probe.len() / 2;
    let sums = |row: &u32| row_avx2(&plane[*row as usize * size..][..size], probe);
    let ((fours, rest), (outs, last)) = (rows.as_chunks::<4>(), out.as_chunks_mut::<4>());
    for (four, out) in fours.iter().zip(outs) {
        *out = sums_of_four_256(four.each_ref().map(sums));
    }
    for (row, out) in rest.iter().zip(last) {
        *out = sums_of_four_256([sums(row); 4])[0];
    }
}

/// One row's products in eight sums. `vpmaddubsw` adds two products in 16 bits: those of eight vectors of bytes, four fields each, stay
/// within, so that they are widened once.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn row_avx2(row: &[u8], probe: &[ProbeLane]) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srli_epi16,
    };
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(lane: &ProbeLane) -> [__m256i; 2] {
        const { assert!(size_of::<ProbeLane>() == 64 && align_of::<ProbeLane>() == 64) };
        let lane = (&raw const *lane).cast::<__m256i>();
        // SAFETY: both halves lie within the lane at multiples of 32, and any bytes are a vector.
        unsafe { [_mm256_load_si256(lane), _mm256_load_si256(lane.add(1))] }
    }
    let field = _mm256_set1_epi8(3);
    let mut sum = _mm256_setzero_si256();
    for (row, probe) in row.as_chunks::<QUARTER>().0.chunks(8).zip(probe.as_chunks::<2>().0.chunks(8)) {
        let mut narrow = _mm256_setzero_si256();
        for (codes, [first, second]) in row.iter().zip(probe) {
            let codes = load_256(codes);
            let [p, q] = halves(first);
            let [r, s] = halves(second);
            let low = _mm256_maddubs_epi16(_mm256_and_si256(codes, field), p);
            let low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<2>(codes), field), q));
            let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(codes), field), r);
            let high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<6>(codes), field), s));
            narrow = _mm256_add_epi16(narrow, _mm256_add_epi16(low, high));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
    }
    sum
}

/// The sum of each of four vectors: transposed and added, which takes a third of what four sums one after another take.
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
    use super::super::probe::LARGEST_ROUGH_ENTRY;
    use super::super::template::{BLOCK, LANE, Plane, Planes, pairs};
    use super::*;

    /// Rows and a probe of `dimension` numbers drawn by `draw`, through every kernel here, against plain sums.
    fn check(dimension: usize, rows: usize, mut draw: impl FnMut() -> i8) {
        let mut planes = Planes::with_capacity(pairs(dimension), rows);
        let templates: Vec<Vec<f32>> = (0..rows).map(|_| (0..dimension).map(|_| f32::from(draw())).collect()).collect();
        let halves: Vec<i32> = templates.iter().map(|row| planes.push(row).half).collect();
        let values: Vec<f32> = (0..dimension).map(|_| f32::from(draw()) / 977.0).collect();
        let mut probe = Probe::new(&[]);
        fastrand::seed(3);
        probe.take(&values);
        // Entries as large as there can be.
        let mut full = probe.tables.clone();
        full.fill(127);
        // What the coarse nibble of a level is, by its own arithmetic.
        let coarse = |row: usize| {
            let half = halves[row];
            planes.row(row).levels(half).take(dimension).map(move |level| (level + 16 * half).div_euclid(2 * half).clamp(0, 15))
        };
        for kernel in Kernel::all() {
            let name = kernel.name();
            for tables in [&probe.tables, &full] {
                let (mut plain, mut out) = (vec![7; rows.next_multiple_of(BLOCK)], vec![9; rows.next_multiple_of(BLOCK)]);
                for plane in [Plane::Glance, Plane::Rest, Plane::Next] {
                    tops::plain(planes.tops(plane, 0..rows), tables.of(plane), &mut plain);
                    kernel.tops(planes.tops(plane, 0..rows), tables.of(plane), &mut out);
                    assert_eq!(out, plain, "{name} at {dimension}");
                }
            }
            let mut full = probe.rough.clone();
            full.fill(LARGEST_ROUGH_ENTRY);
            for tables in [&probe.rough, &full] {
                let (plane, tables) = (planes.tops(Plane::Glance, 0..rows), tables.of(Plane::Glance));
                let (mut plain, mut out) = (vec![7; rows.next_multiple_of(BLOCK)], vec![9; rows.next_multiple_of(BLOCK)]);
                tops::plain(plane, tables, &mut plain);
                kernel.rough(plane, tables, &mut out);
                assert!(out.iter().copied().map(i32::from).eq(plain), "{name} at {dimension}");
            }
            let backwards: Vec<u32> = (0..rows as u32).rev().collect();
            let mut out = vec![7; rows];
            kernel.seconds_of(planes.seconds(), &backwards, &probe.coarse, &mut out);
            for (row, out) in (0..rows).rev().zip(out) {
                let numbers = probe.coarse.iter().flat_map(|lane| lane.0);
                let plain: i32 = coarse(row).zip(numbers).map(|(nibble, number)| (nibble & 3) * i32::from(number)).sum();
                // A level at the very border of two nibbles may be kept in either.
                assert!(
                    (out - plain).abs() <= 3 * 128 * borders(&planes, row, halves[row]),
                    "{name} at {dimension}: {out} {plain}"
                );
                let fine = kernel.fine(planes.row(row), halves[row], &probe.exact);
                let plain = fine_plain(planes.row(row), halves[row], &probe.exact);
                assert_eq!(fine.to_bits(), plain.to_bits(), "{name} at {dimension}");
            }
            let mut taken = Probe::new(&[]);
            fastrand::seed(3);
            kernel.take(&mut taken, &values);
            assert!(taken.is(&probe), "{name} at {dimension}");
        }
    }

    /// How many levels of a row lie where two nibbles meet, or a rounding away.
    fn borders(planes: &Planes, row: usize, half: i32) -> i32 {
        let is_border = |level: i32| {
            let within = (level + 16 * half).rem_euclid(2 * half);
            within <= 1 || within >= 2 * half - 1
        };
        planes.row(row).levels(half).filter(|level| is_border(*level)).count() as i32
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
        // Miri takes minutes for what takes a processor milliseconds.
        let dimensions: &[usize] = if cfg!(miri) { &[65, 200] } else { &[1, 2, 63, 64, 65, 127, 512, 4_095, 4_096] };
        let values: &[i8] = if cfg!(miri) { &[] } else { &[i8::MIN, -127, -1, 0, 1, i8::MAX] };
        for &dimension in dimensions {
            for &value in values {
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
            let sums: Vec<i32> = (0..rows).map(|_| random.i32(0..30_000)).collect();
            let gains: Vec<f32> = (0..rows).map(|_| random.f32()).collect();
            let slacks: Vec<f32> = (0..rows).map(|_| random.f32()).collect();
            let of = Ceilings { sums: &sums, gains: &gains, slacks: &slacks, unit: 1e-3, offset: 7.5, bound: (0.1, 0.2) };
            let mut plain = FloatLane([f32::NEG_INFINITY; LANE]);
            let most = ceilings_plain(&of, &mut plain.0[..rows]);
            assert_eq!(most, plain.0.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            for kernel in Kernel::all() {
                let mut line = FloatLane([f32::NEG_INFINITY; LANE]);
                assert_eq!((kernel.ceilings(&of, &mut line.0[..rows]), line.0), (most, plain.0), "{}", kernel.name());
                assert_eq!(kernel.highest(&of), highest_plain(&of), "{}", kernel.name());
                assert!(rows == 0 || (kernel.highest(&of) - most).abs() < 1e-5 * most.abs(), "{}", kernel.name());
                let rough: Vec<u16> = sums.iter().map(|sum| *sum as u16).collect();
                let of_rough =
                    Ceilings { sums: &rough[..], gains: &gains, slacks: &slacks, unit: 1e-3, offset: 7.5, bound: (0.1, 0.2) };
                let mut each = [0.0; 4];
                kernel.highest_of_each(16, &of_rough, &mut each);
                for (at, highest) in each[..rows.div_ceil(16)].iter().enumerate() {
                    let part = 16 * at..rows.min(16 * at + 16);
                    let (sums, gains, slacks) = (&sums[part.clone()], &gains[part.clone()], &slacks[part]);
                    assert_eq!(*highest, highest_plain(&Ceilings { sums, gains, slacks, ..of }), "{}", kernel.name());
                }
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
    fn differing_bits_are_counted() {
        let mut random = fastrand::Rng::with_seed(5);
        assert_eq!((differing(&[0; 8], &[u64::MAX; 8]), differing(&[7; 8], &[7; 8])), (512, 0));
        for _ in 0..1_000 {
            let mut draw = || std::array::from_fn(|_| random.u64(..));
            let (a, b): (Bits, Bits) = (draw(), draw());
            assert_eq!(differing(&a, &b), differing_plain(&a, &b));
        }
    }

    #[test]
    fn the_hadamard_transform_is_the_same_everywhere_and_its_own_inverse_but_for_the_scale() {
        let mut random = fastrand::Rng::with_seed(7);
        for rounds in 0..=if cfg!(miri) { 7 } else { 12 } {
            let values: Vec<f32> = (0..1 << rounds).map(|_| random.f32() - 0.5).collect();
            let mut plain = values.clone();
            hadamard_plain(&mut plain);
            assert!((plain[0] - values.iter().sum::<f32>()).abs() < 1e-3);
            for kernel in Kernel::all() {
                let mut now = values.clone();
                kernel.hadamard(&mut now);
                assert!(now.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", kernel.name());
                kernel.hadamard(&mut now);
                let scale = (1 << rounds) as f32;
                assert!(now.iter().zip(&values).all(|(back, value)| (back / scale - value).abs() < 1e-5), "{}", kernel.name());
            }
        }
    }

    #[test]
    fn the_fine_product_is_the_product_of_the_levels() {
        let mut random = fastrand::Rng::with_seed(6);
        for dimension in [1, 128, 200] {
            let floats = Probe::new(&(0..dimension).map(|_| f32::from(random.i8(..)) / 977.0).collect::<Vec<_>>()).exact.clone();
            let mut planes = Planes::with_capacity(pairs(dimension), 3);
            let rows: Vec<Vec<f32>> = (0..3).map(|_| (0..dimension).map(|_| random.f32() - 0.5).collect()).collect();
            let halves: Vec<i32> = rows.iter().map(|row| planes.push(row).half).collect();
            for (row, half) in halves.into_iter().enumerate() {
                let numbers = floats.iter().flat_map(|lane| lane.0);
                let sum: f64 = planes.row(row).levels(half).zip(numbers).map(|(x, p)| f64::from(x) * f64::from(p)).sum();
                let fine = f64::from(Kernel::best().fine(planes.row(row), half, &floats));
                assert!((fine - sum).abs() <= 1e-2, "{fine} {sum}");
            }
        }
    }
}
