//! Sums of table entries over a plane of single bits: sixteen rows' codes are a vector, which the instruction that shuffles bytes looks up at
//! once (after André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015).
#![expect(unsafe_code, reason = "loads of a processor's widest vectors")]

use zeroize::Zeroize;

#[cfg(target_arch = "x86_64")]
use super::load_256;
#[cfg(target_arch = "x86_64")]
use crate::gallery::index::probe::Table;
use crate::gallery::index::probe::{Columns, ENTRIES_A_BYTE};
use crate::gallery::index::template::BLOCK;
#[cfg(target_arch = "x86_64")]
use crate::gallery::index::template::GLANCED;

#[inline(always)]
pub(super) fn plain(plane: &[u8], tables: Columns<'_>, out: &mut [i32]) {
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        *out = [0; BLOCK];
        for ((codes, low), high) in block.as_chunks::<BLOCK>().0.iter().zip(tables.low).zip(tables.high) {
            for (code, sum) in codes.iter().zip(&mut *out) {
                // At most 1,024 entries of less than 2^7: far within 32 bits.
                let entries = i32::from(low.0[usize::from(code & 15)]).wrapping_add(i32::from(high.0[usize::from(code >> 4)]));
                *sum = sum.wrapping_add(entries);
            }
        }
    }
}

/// Columns after which sums in 16 bits are widened: two entries of less than 2⁷ a column.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const COLUMNS: usize = 128;

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) fn neon(plane: &[u8], tables: Columns<'_>, out: &mut [i32]) {
    use std::arch::aarch64::{
        uint8x16_t, vaddq_u8, vaddw_high_u8, vaddw_u8, vandq_u8, vdupq_n_u8, vdupq_n_u16, vget_low_u8, vld1q_u8, vqtbl1q_u8,
        vshrq_n_u8, vst1q_u16,
    };
    #[inline]
    #[target_feature(enable = "neon")]
    fn load(bytes: &[u8; 16]) -> uint8x16_t {
        // SAFETY: sixteen bytes, and no alignment is asked for.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }
    let nibble = vdupq_n_u8(15);
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        *out = [0; BLOCK];
        let columns = block.as_chunks::<BLOCK>().0.chunks(COLUMNS);
        for ((columns, low), high) in columns.zip(tables.low.chunks(COLUMNS)).zip(tables.high.chunks(COLUMNS)) {
            let (mut first, mut second) = (vdupq_n_u16(0), vdupq_n_u16(0));
            for ((codes, low), high) in columns.iter().zip(low).zip(high) {
                let codes = load(codes);
                let low = vqtbl1q_u8(load(&low.0), vandq_u8(codes, nibble));
                let high = vqtbl1q_u8(load(&high.0), vshrq_n_u8::<4>(codes));
                let both = vaddq_u8(low, high);
                first = vaddw_u8(first, vget_low_u8(both));
                second = vaddw_high_u8(second, both);
            }
            let mut sums = [0u16; BLOCK];
            let (halves, _) = sums.as_chunks_mut::<8>();
            for (half, sum) in halves.iter_mut().zip([first, second]) {
                // SAFETY: eight numbers of 16 bits, and no alignment is asked for.
                unsafe { vst1q_u16(half.as_mut_ptr(), sum) };
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = out.wrapping_add(i32::from(sum)));
        }
    }
}

/// Two columns of sixteen rows are a vector. One block after another, in the order that they lie in, is what memory gives fastest.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) fn avx2(plane: &[u8], tables: Columns<'_>, out: &mut [i32]) {
    use std::arch::x86_64::{
        _mm256_add_epi8, _mm256_add_epi16, _mm256_and_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
        _mm256_srli_epi16,
    };
    const STEP: usize = COLUMNS / 2 / AT_ONCE;
    let nibble = _mm256_set1_epi8(15);
    let (low, high) = (vectors_of(tables.low), vectors_of(tables.high));
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        let columns = block.as_chunks::<32>().0.as_chunks::<AT_ONCE>().0.chunks(STEP);
        for (chunk, ((columns, low), high)) in columns.zip(low.chunks(STEP)).zip(high.chunks(STEP)).enumerate() {
            // All sums in 16 bits, even rows' with the odd ones' above them, and the odd rows' alone.
            let (mut all, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for ((columns, low), high) in columns.iter().zip(low).zip(high) {
                for at in 0..AT_ONCE {
                    let codes = load_256(&columns[at]);
                    let low = _mm256_shuffle_epi8(two_256(&low[at]), _mm256_and_si256(codes, nibble));
                    let high = _mm256_shuffle_epi8(two_256(&high[at]), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble));
                    let both = _mm256_add_epi8(low, high);
                    all = _mm256_add_epi16(all, both);
                    odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(both));
                }
            }
            add_sums(all, odd, chunk > 0, out);
        }
    }
}

/// Vectors of two columns that are gone through without a branch: those of a pair of lanes of the plane that has the fewest.
#[cfg(target_arch = "x86_64")]
const AT_ONCE: usize = GLANCED / 2;

/// Tables as such vectors.
#[cfg(target_arch = "x86_64")]
fn vectors_of(tables: &[Table]) -> &[[[Table; 2]; AT_ONCE]] {
    tables.as_chunks().0.as_chunks().0
}

/// Adds sixteen rows' sums, of which each half of the vectors has a part, to those that are there, if they are.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn add_sums(all: std::arch::x86_64::__m256i, odd: std::arch::x86_64::__m256i, are_there: bool, out: &mut [i32; BLOCK]) {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi16, _mm_unpackhi_epi16, _mm_unpacklo_epi16, _mm256_add_epi32, _mm256_castsi256_si128,
        _mm256_cvtepu16_epi32, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_slli_epi16, _mm256_storeu_si256,
        _mm256_sub_epi16,
    };
    let even = _mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd));
    let both = [even, odd].map(|sums| _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums)));
    let rows = [_mm_unpacklo_epi16(both[0], both[1]), _mm_unpackhi_epi16(both[0], both[1])];
    for (out, rows) in out.as_chunks_mut::<8>().0.iter_mut().zip(rows) {
        let out: *mut __m256i = out.as_mut_ptr().cast();
        let rows = _mm256_cvtepu16_epi32(rows);
        // SAFETY: eight numbers of 32 bits, and no alignment is asked for.
        let sums = if are_there { _mm256_add_epi32(unsafe { _mm256_loadu_si256(out) }, rows) } else { rows };
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(out, sums) };
    }
}

/// As [`avx2`], four columns a vector.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
pub(super) fn avx512(plane: &[u8], tables: Columns<'_>, out: &mut [i32]) {
    use std::arch::x86_64::{
        __m512i, _mm256_add_epi16, _mm512_add_epi8, _mm512_add_epi16, _mm512_and_si512, _mm512_castsi512_si256,
        _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_shuffle_epi8,
        _mm512_srli_epi16,
    };
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes, any of which are a vector, and no alignment is asked for.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn four(tables: &[Table; 4]) -> __m512i {
        const { assert!(size_of::<[Table; 4]>() == 64) };
        // SAFETY: 64 bytes, any of which are a vector, and no alignment is asked for.
        unsafe { _mm512_loadu_si512(tables.as_ptr().cast()) }
    }
    const STEP: usize = COLUMNS / 4;
    let nibble = _mm512_set1_epi8(15);
    let (low, high) = (tables.low.as_chunks::<4>().0, tables.high.as_chunks::<4>().0);
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        let columns = block.as_chunks::<64>().0.chunks(STEP);
        for (chunk, ((columns, low), high)) in columns.zip(low.chunks(STEP)).zip(high.chunks(STEP)).enumerate() {
            let (mut all, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for ((codes, low), high) in columns.iter().zip(low).zip(high) {
                let codes = load(codes);
                let low = _mm512_shuffle_epi8(four(low), _mm512_and_si512(codes, nibble));
                let high = _mm512_shuffle_epi8(four(high), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble));
                let both = _mm512_add_epi8(low, high);
                all = _mm512_add_epi16(all, both);
                odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(both));
            }
            let [all, odd] = [all, odd].map(|v| _mm256_add_epi16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)));
            add_sums(all, odd, chunk > 0, out);
        }
    }
}

#[inline(always)]
pub(super) fn rough_plain(plane: &[u8], tables: Columns<'_>, out: &mut [u16]) {
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        let mut sums = [0; BLOCK];
        plain(block, tables, &mut sums);
        // At most 1,024 entries below 2⁵.
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as u16);
        sums.zeroize();
    }
}

/// Columns whose entries a byte holds the sum of.
#[cfg(target_arch = "aarch64")]
const NARROW: usize = ENTRIES_A_BYTE / 2;

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) fn rough_neon(plane: &[u8], tables: Columns<'_>, out: &mut [u16]) {
    use std::arch::aarch64::{
        uint8x16_t, vaddq_u8, vaddw_high_u8, vaddw_u8, vandq_u8, vdupq_n_u8, vdupq_n_u16, vget_low_u8, vld1q_u8, vqtbl1q_u8,
        vshrq_n_u8, vst1q_u16,
    };
    #[inline]
    #[target_feature(enable = "neon")]
    fn load(bytes: &[u8; 16]) -> uint8x16_t {
        // SAFETY: sixteen bytes, and no alignment is asked for.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }
    let nibble = vdupq_n_u8(15);
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        let columns = block.as_chunks::<BLOCK>().0.chunks(NARROW);
        let (mut first, mut second) = (vdupq_n_u16(0), vdupq_n_u16(0));
        for ((columns, low), high) in columns.zip(tables.low.chunks(NARROW)).zip(tables.high.chunks(NARROW)) {
            let mut sums = vdupq_n_u8(0);
            for ((codes, low), high) in columns.iter().zip(low).zip(high) {
                let codes = load(codes);
                let low = vqtbl1q_u8(load(&low.0), vandq_u8(codes, nibble));
                let high = vqtbl1q_u8(load(&high.0), vshrq_n_u8::<4>(codes));
                sums = vaddq_u8(sums, vaddq_u8(low, high));
            }
            first = vaddw_u8(first, vget_low_u8(sums));
            second = vaddw_high_u8(second, sums);
        }
        for (half, sums) in out.as_chunks_mut::<8>().0.iter_mut().zip([first, second]) {
            // SAFETY: eight numbers of 16 bits, and no alignment is asked for.
            unsafe { vst1q_u16(half.as_mut_ptr(), sums) };
        }
    }
}

/// As [`avx2`], for rough tables.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) fn rough_avx2(plane: &[u8], tables: Columns<'_>, out: &mut [u16]) {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi16, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16, _mm256_add_epi8, _mm256_add_epi16,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_set1_epi8, _mm256_setzero_si256,
        _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_sub_epi16,
    };
    const { assert!(2 * AT_ONCE <= ENTRIES_A_BYTE) };
    let nibble = _mm256_set1_epi8(15);
    let (low, high) = (vectors_of(tables.low), vectors_of(tables.high));
    for (block, out) in plane.chunks_exact(BLOCK * tables.len()).zip(out.as_chunks_mut::<BLOCK>().0) {
        // All sums in 16 bits, even rows' with the odd ones' above them, and the odd rows' alone.
        let (mut all, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for ((columns, low), high) in block.as_chunks::<32>().0.as_chunks::<AT_ONCE>().0.iter().zip(low).zip(high) {
            let mut sums = _mm256_setzero_si256();
            for at in 0..AT_ONCE {
                let codes = load_256(&columns[at]);
                let low = _mm256_shuffle_epi8(two_256(&low[at]), _mm256_and_si256(codes, nibble));
                let high = _mm256_shuffle_epi8(two_256(&high[at]), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble));
                sums = _mm256_add_epi8(sums, _mm256_add_epi8(low, high));
            }
            all = _mm256_add_epi16(all, sums);
            odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(sums));
        }
        let even = _mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd));
        // Each half of a vector has a part of its rows' sums.
        let both = |v: __m256i| _mm_add_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let (even, odd) = (both(even), both(odd));
        for (out, rows) in out.as_chunks_mut::<8>().0.iter_mut().zip([_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)])
        {
            // SAFETY: eight numbers of 16 bits, and no alignment is asked for.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), rows) };
        }
    }
}

/// Two tables in a vector.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn two_256(tables: &[Table; 2]) -> std::arch::x86_64::__m256i {
    const { assert!(size_of::<[Table; 2]>() == 32) };
    // SAFETY: 32 bytes, any of which are a vector, and no alignment is asked for.
    unsafe { std::arch::x86_64::_mm256_loadu_si256(tables.as_ptr().cast()) }
}
