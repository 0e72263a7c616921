//! A coarse grid of a picture's brightness, cheap enough for every frame: 2,304 cells from 36,864 samples whatever the size.

use crate::types::{Layout, Picture};

/// Cells in a row of the grid.
pub(super) const COLUMNS: usize = 64;
/// Rows of the grid.
pub(super) const ROWS: usize = 36;
/// Samples a cell in each direction: enough to average a sensor's noise away.
const PER_CELL: usize = 4;

/// Fills `grid` with the cells' mean luma (green for RGB), row by row. A picture smaller than the grid repeats its samples.
pub(super) fn sample(picture: &Picture, grid: &mut Vec<u8>) {
    let (plane, stride) = picture.plane(0);
    let (step, offset) = if picture.layout() == Layout::Rgb { (3, 1) } else { (1, 0) };
    let spread = |index: usize, count: usize, size: u32| (2 * index + 1) * size as usize / (2 * count);
    let columns: [usize; COLUMNS * PER_CELL] =
        std::array::from_fn(|index| spread(index, COLUMNS * PER_CELL, picture.width()) * step + offset);
    grid.clear();
    for row in 0..ROWS {
        let mut sums = [0u16; COLUMNS];
        for part in 0..PER_CELL {
            let line = &plane[spread(row * PER_CELL + part, ROWS * PER_CELL, picture.height()) * stride..];
            for (sum, cell) in sums.iter_mut().zip(columns.chunks_exact(PER_CELL)) {
                *sum += cell.iter().map(|&x| u16::from(line[x])).sum::<u16>();
            }
        }
        // 16 samples of a byte: the mean is a byte again.
        grid.extend(sums.iter().map(|sum| (sum / (PER_CELL * PER_CELL) as u16) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_and_large_pictures_are_sampled_within_their_planes() {
        let mut grid = Vec::new();
        for (width, height) in [(1, 1), (5, 3), (64, 36), (1281, 719)] {
            let rgb = [10u8, 200, 30].repeat((width * height) as usize);
            sample(&Picture::from_rgb(width, height, rgb).unwrap(), &mut grid);
            assert_eq!(grid, vec![200; COLUMNS * ROWS]);
        }
    }
}
