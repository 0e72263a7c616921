//! The exact scan: every template against the probe, in `f32`. Templates lie one after another in one aligned block of memory, so
//! that the loop runs at the speed of memory; the compiler makes vectors of it.
//!
//! Deliberately absent: an approximate index. It would be another road to a wrong person, and pays only above sizes of which doors
//! have few.

use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

/// Numbers in a lane. Each has its own accumulator: additions that do not wait for each other are what fills the vector units.
pub(crate) const LANE: usize = 32;

/// Two cache lines of a template, padded with zeros at a template's end.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lane([f32; LANE]);

impl Default for Lane {
    fn default() -> Self {
        Self([0.0; LANE])
    }
}

impl DefaultIsZeroes for Lane {}

/// Templates, row by row. No `Debug`: it is biometric data, and cleared when it goes.
pub(crate) struct Matrix {
    dimension: usize,
    lanes: Vec<Lane>,
}

impl Matrix {
    /// An empty one with room for `rows`, so that it never grows and leaves a copy behind.
    pub(crate) fn with_capacity(dimension: usize, rows: usize) -> Self {
        Self { dimension, lanes: Vec::with_capacity(rows * dimension.div_ceil(LANE)) }
    }

    /// Numbers in a row.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.lanes.len() / self.row_lanes()
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.capacity() * size_of::<Lane>()
    }

    /// Appends a row of [`Matrix::dimension`] numbers, within the capacity asked for.
    pub(crate) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.dimension);
        debug_assert!(self.lanes.len() + self.row_lanes() <= self.lanes.capacity(), "growing would leave a copy behind");
        for part in row.chunks(LANE) {
            let mut lane = Lane::default();
            lane.0[..part.len()].copy_from_slice(part);
            self.lanes.push(lane);
        }
    }

    /// Appends rows of another matrix of the same dimension.
    pub(crate) fn push_rows(&mut self, other: &Matrix, rows: Range<usize>) {
        debug_assert!(
            self.lanes.len() + rows.len() * self.row_lanes() <= self.lanes.capacity(),
            "growing would leave a copy behind"
        );
        self.lanes.extend_from_slice(other.lanes_of(rows));
    }

    /// The numbers of some rows, one after another.
    pub(crate) fn values(&self, rows: Range<usize>) -> impl Iterator<Item = f32> + '_ {
        self.lanes_of(rows).chunks_exact(self.row_lanes()).flat_map(|row| row.iter().flat_map(|l| l.0).take(self.dimension))
    }

    /// The highest inner product of `probe` (a matrix of one row) with any of `rows`; minus infinity when there are none.
    pub(crate) fn best(&self, probe: &Matrix, rows: Range<usize>) -> f32 {
        let products = self.lanes_of(rows).chunks_exact(self.row_lanes()).map(|row| dot(row, &probe.lanes));
        products.fold(f32::NEG_INFINITY, f32::max)
    }

    fn row_lanes(&self) -> usize {
        self.dimension.div_ceil(LANE)
    }

    fn lanes_of(&self, rows: Range<usize>) -> &[Lane] {
        &self.lanes[rows.start * self.row_lanes()..rows.end * self.row_lanes()]
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        self.lanes.zeroize();
    }
}

fn dot(a: &[Lane], b: &[Lane]) -> f32 {
    let mut sums = [0.0f32; LANE];
    for (x, y) in a.iter().zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(&x.0).zip(&y.0) {
            *sum += x * y;
        }
    }
    // Pairwise: a straight sum over the accumulators would be the least exact part.
    let mut width = LANE / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(&*high) {
            *low += *high;
        }
        width /= 2;
    }
    sums[0]
}

/// The best `k` of what is offered, best first; of equal scores the one that was offered first.
pub(crate) struct Top {
    k: usize,
    best: Vec<(f32, usize)>,
}

impl Top {
    /// Nothing yet.
    pub(crate) fn new(k: usize) -> Self {
        Self { k, best: Vec::new() }
    }

    /// Takes `index` if its score is among the best so far.
    pub(crate) fn offer(&mut self, score: f32, index: usize) {
        if self.best.len() == self.k && self.best.last().is_none_or(|(worst, _)| score <= *worst) {
            return;
        }
        let place = self.best.partition_point(|(other, _)| *other >= score);
        self.best.insert(place, (score, index));
        self.best.truncate(self.k);
    }

    /// Score and index, best first.
    pub(crate) fn into_best(self) -> Vec<(f32, usize)> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_length_come_back_and_padding_counts_for_nothing() {
        for dimension in [1, 3, 31, 32, 33, 128, 512] {
            let row: Vec<f32> = (0..dimension).map(|n| n as f32 + 1.0).collect();
            let mut matrix = Matrix::with_capacity(dimension, 2);
            matrix.push(&row);
            matrix.push(&vec![0.5; dimension]);
            assert_eq!(matrix.rows(), 2);
            assert_eq!(matrix.values(0..1).collect::<Vec<_>>(), row);
            let mut probe = Matrix::with_capacity(dimension, 1);
            probe.push(&vec![1.0; dimension]);
            assert_eq!(matrix.best(&probe, 0..2), row.iter().sum::<f32>());
            assert_eq!(matrix.best(&probe, 1..1), f32::NEG_INFINITY);
        }
    }

    #[test]
    fn the_best_are_kept_in_order_and_the_first_of_equals_wins() {
        let mut none = Top::new(0);
        none.offer(1.0, 0);
        assert!(none.into_best().is_empty());
        let mut top = Top::new(2);
        for (index, score) in [0.1, 0.9, 0.9, 0.5, 0.9].into_iter().enumerate() {
            top.offer(score, index);
        }
        assert_eq!(top.into_best(), [(0.9, 1), (0.9, 2)]);
    }
}
