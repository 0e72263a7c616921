//! Pixels moved about where they lie: a photo's samples become RGB in the memory that holds them, and a photo is turned upright.

/// Each group of `N` bytes of the first `length` becomes three, `N` at most three: from the end, so that none is overwritten before it is
/// read. The rest of `raw` is the room that this takes.
pub(super) fn widen<const N: usize>(raw: &mut Vec<u8>, length: usize, to_rgb: impl Fn(&[u8]) -> [u8; 3]) {
    let count = length / N;
    for pixel in (0..count).rev() {
        let rgb = to_rgb(&raw[N * pixel..N * (pixel + 1)]);
        raw[3 * pixel..3 * (pixel + 1)].copy_from_slice(&rgb);
    }
    raw.truncate(3 * count);
}

/// Each group of `N` bytes becomes three, `N` at least three.
pub(super) fn narrow<const N: usize>(raw: &mut Vec<u8>, to_rgb: impl Fn(&[u8]) -> [u8; 3]) {
    let count = raw.len() / N;
    for pixel in 0..count {
        let rgb = to_rgb(&raw[N * pixel..N * (pixel + 1)]);
        raw[3 * pixel..3 * (pixel + 1)].copy_from_slice(&rgb);
    }
    raw.truncate(3 * count);
}

/// A row of RGB from its end to its begin.
pub(super) fn reverse(row: &mut [u8]) {
    let pixels = row.as_chunks_mut::<3>().0;
    pixels.reverse();
}

/// The last row first.
pub(super) fn reverse_rows(rgb: &mut [u8], row_bytes: usize) {
    let rows = rgb.len() / row_bytes;
    let (upper, lower) = rgb.split_at_mut(rows / 2 * row_bytes);
    for (above, below) in upper.chunks_exact_mut(row_bytes).zip(lower.chunks_exact_mut(row_bytes).rev()) {
        above.swap_with_slice(below);
    }
}

/// Columns become rows.
pub(super) fn transposed(rgb: &[u8], width: usize) -> Vec<u8> {
    let pixels = rgb.as_chunks::<3>().0;
    let height = pixels.len() / width;
    let mut turned = vec![[0; 3]; pixels.len()];
    // In squares, whose rows and columns both stay in the cache.
    const SIDE: usize = 32;
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            for y in top..height.min(top + SIDE) {
                for x in left..width.min(left + SIDE) {
                    turned[x * height + y] = pixels[y * width + x];
                }
            }
        }
    }
    turned.into_flattened()
}

/// The same without a second picture: every pixel goes to its place and sends on the one that was there, round by round. A bit a pixel
/// remembers which have come; it takes some times as long.
pub(super) fn transpose_in_place(rgb: &mut [u8], width: usize) {
    let pixels = rgb.as_chunks_mut::<3>().0;
    let height = pixels.len() / width;
    let mut is_done = vec![0u64; pixels.len().div_ceil(64)];
    for start in 0..pixels.len() {
        if is_done[start / 64] >> (start % 64) & 1 == 1 {
            continue;
        }
        let (mut at, mut moved) = (start, pixels[start]);
        loop {
            let (y, x) = (at / width, at % width);
            at = x * height + y;
            std::mem::swap(&mut moved, &mut pixels[at]);
            is_done[at / 64] |= 1 << (at % 64);
            if at == start {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_turning_give_the_same_and_twice_turned_is_as_it_was() {
        for (width, height) in [(1, 1), (1, 7), (7, 1), (2, 3), (5, 5), (33, 65), (64, 32), (100, 37)] {
            let rgb: Vec<u8> = (0..3 * width * height).map(|n| (n * 31 % 251) as u8).collect();
            let turned = transposed(&rgb, width);
            let mut in_place = rgb.clone();
            transpose_in_place(&mut in_place, width);
            assert!(turned == in_place, "{width}x{height}");
            assert!(transposed(&turned, height) == rgb, "{width}x{height}");
            let below = |width: usize, rgb: &[u8]| rgb.get(3 * width..3 * width + 3).map(<[u8]>::to_vec);
            if width > 1 && height > 1 {
                assert_eq!(below(1, &turned), below(width, &rgb));
            }
        }
    }

    #[test]
    fn rows_and_columns_are_reversed() {
        let mut rgb: Vec<u8> = (0..18).collect();
        reverse_rows(&mut rgb, 6);
        assert_eq!(rgb, [12, 13, 14, 15, 16, 17, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        reverse(&mut rgb[..6]);
        assert_eq!(rgb[..6], [15, 16, 17, 12, 13, 14]);
    }
}
