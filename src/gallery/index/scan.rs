//! The exact search: every row's ceiling from the high plane, and the true score of each row whose ceiling reaches the worst of the
//! best so far. A row that is passed over cannot be among the best, whatever its low plane holds.

use super::kernel::Kernel;
use super::matrix::{Matrix, Segment};
use super::template::Probe;

/// Rows whose ceilings are worked out at once.
const BLOCK: usize = 128;

/// Goes over all rows. `visit` hears of every row that reaches the floor, with its true score, and gives the floor from then on: the
/// lowest score that still matters.
pub(crate) fn scan(matrix: &Matrix, probe: &Probe, floor: f32, mut visit: impl FnMut(usize, f32) -> f32) {
    let mut floor = floor;
    for (first, segment) in matrix.segments() {
        floor = scan_segment(Kernel::best(), segment, first, probe, floor, &mut visit);
    }
}

/// As [`scan`], for one segment whose first row has the number `first`.
pub(super) fn scan_segment(
    kernel: Kernel,
    segment: &Segment,
    first: usize,
    probe: &Probe,
    mut floor: f32,
    visit: &mut impl FnMut(usize, f32) -> f32,
) -> f32 {
    let (mut dots, mut ceilings) = ([0i32; BLOCK], [0.0f32; BLOCK]);
    let mut start = 0;
    while start < segment.rows() {
        let rows = BLOCK.min(segment.rows() - start);
        segment.ceilings(kernel, probe, start..start + rows, &mut dots[..rows], &mut ceilings[..rows]);
        for (row, ceiling) in ceilings[..rows].iter().enumerate() {
            if *ceiling >= floor {
                floor = visit(first + start + row, segment.score(kernel, probe, start + row));
            }
        }
        start += rows;
    }
    floor
}

/// The best `k` of what is offered, each once with its best score, best first; of equal scores the lower index.
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
        let is_before = |a: (f32, usize), b: (f32, usize)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
        if let Some(at) = self.best.iter().position(|(_, known)| *known == index) {
            if self.best[at].0 >= score {
                return;
            }
            self.best.remove(at);
        } else if self.best.len() == self.k && self.best.last().is_none_or(|last| !is_before((score, index), *last)) {
            return;
        }
        let place = self.best.partition_point(|known| is_before(*known, (score, index)));
        self.best.insert(place, (score, index));
        self.best.truncate(self.k);
    }

    /// The lowest score that can still change anything.
    pub(crate) fn floor(&self) -> f32 {
        match self.best.last() {
            _ if self.k == 0 => f32::INFINITY,
            Some((worst, _)) if self.best.len() == self.k => *worst,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Score and index, best first.
    pub(crate) fn into_best(self) -> Vec<(f32, usize)> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_best_are_kept_once_each_in_order_and_the_first_of_equals_wins() {
        let mut none = Top::new(0);
        none.offer(1.0, 0);
        assert_eq!(none.floor(), f32::INFINITY);
        assert!(none.into_best().is_empty());
        let mut top = Top::new(2);
        for (score, index) in [(0.1, 0), (0.9, 2), (0.95, 0), (0.9, 1), (0.5, 3), (0.2, 0)] {
            top.offer(score, index);
        }
        assert_eq!(top.floor(), 0.9);
        assert_eq!(top.into_best(), [(0.95, 0), (0.9, 1)]);
    }

    /// Clusters as tight as `spread` makes them: near ties are where a coarse score alone goes wrong.
    fn clustered(random: &mut fastrand::Rng, dimension: usize, rows: usize, spread: f32) -> Vec<Vec<f32>> {
        let mut draw = || (0..dimension).map(|_| random.f32() * 2.0 - 1.0).collect::<Vec<f32>>();
        let centres: Vec<Vec<f32>> = (0..rows.div_ceil(10)).map(|_| draw()).collect();
        let mut unit = |row: usize| {
            let mixed: Vec<f32> = centres[row / 10].iter().zip(draw()).map(|(c, n)| c + spread * n).collect();
            let norm = mixed.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
            mixed.iter().map(|v| v / norm).collect()
        };
        (0..rows).map(&mut unit).collect()
    }

    proptest! {
        /// Against the score of every row: the same rows and the same bits, on every kernel, ties included.
        #[test]
        fn the_scan_finds_what_scoring_every_row_finds(
            seed in any::<u64>(), dimension in 1usize..200, rows in 1usize..400, k in 0usize..12,
            spread in prop_oneof![Just(0.0f32), Just(1e-4), Just(0.01), Just(1.0)],
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let templates = clustered(&mut random, dimension, rows, spread);
            let mut matrix = Matrix::with_capacity(dimension, rows);
            templates.iter().for_each(|row| matrix.push(row));
            for probe in [&templates[random.usize(..rows)], &clustered(&mut random, dimension, 1, 1.0)[0]] {
                let probe = Probe::new(probe);
                let mut all: Vec<(f32, usize)> = (0..rows).map(|row| (matrix.score(&probe, row), row)).collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                all.truncate(k);
                for kernel in Kernel::all() {
                    let mut top = Top::new(k);
                    let mut floor = top.floor();
                    for (first, segment) in matrix.segments() {
                        floor = scan_segment(kernel, segment, first, &probe, floor, &mut |row, score| {
                            top.offer(score, row);
                            top.floor()
                        });
                    }
                    prop_assert_eq!(&top.into_best(), &all, "{}", kernel.name());
                }
            }
        }

        /// The bound itself, so that the test above does not pass by luck.
        #[test]
        fn no_score_exceeds_its_ceiling(seed in any::<u64>(), dimension in 1usize..600) {
            let mut random = fastrand::Rng::with_seed(seed);
            let templates = clustered(&mut random, dimension, 40, 0.5);
            let mut matrix = Matrix::with_capacity(dimension, 40);
            templates.iter().for_each(|row| matrix.push(row));
            let probe = Probe::new(&templates[0]);
            for (first, segment) in matrix.segments() {
                let (mut dots, mut ceilings) = ([0; 40], [0.0; 40]);
                let rows = segment.rows();
                segment.ceilings(Kernel::best(), &probe, 0..rows, &mut dots[..rows], &mut ceilings[..rows]);
                for (row, ceiling) in ceilings[..rows].iter().enumerate() {
                    // In 64 bits, from the numbers themselves.
                    let exact: f64 = matrix.values(first + row..first + row + 1).zip(&templates[0])
                        .map(|(x, p)| f64::from(x) * f64::from(*p)).sum();
                    prop_assert!(exact <= f64::from(*ceiling));
                    prop_assert!(f64::from(segment.score(Kernel::best(), &probe, row)) <= f64::from(*ceiling));
                    prop_assert!(f64::from(*ceiling) - exact < 0.2, "a bound this loose would be no use");
                }
            }
        }
    }
}
