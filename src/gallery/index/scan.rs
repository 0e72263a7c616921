//! The exact search. Every row's ceiling is worked out from its coarse nibbles, a quarter of its bits; then the rows that may be best
//! are looked at more closely, the most promising first: by both nibbles, and by all bits where that leaves a hope. A row that is
//! passed over cannot be among the best, whatever its other bits hold.

use zeroize::Zeroize;

use super::kernel::Kernel;
use super::matrix::{Matrix, Segment};
use super::template::{FloatLane, LANE, Probe};

/// Rows whose ceilings are worked out at once: a line of them.
const BLOCK: usize = LANE;
/// Blocks that are looked at first, so that the floor is high when the others' turn comes.
const FIRST: usize = 12;

/// Some rows with the highest of their ceilings.
struct Block<'a> {
    segment: &'a Segment,
    /// The number of the segment's first row among all rows.
    base: usize,
    /// The block's first row, in the segment.
    start: usize,
    most: f32,
    /// Where its ceilings are.
    line: usize,
}

/// Goes over all rows. `visit` hears of every row that reaches the floor, with its true score, and gives the floor from then on: the
/// lowest score that still matters. It hears of rows in no particular order.
pub(crate) fn scan(matrix: &Matrix, probe: &Probe, floor: f32, mut visit: impl FnMut(usize, f32) -> f32) {
    scan_segments(Kernel::best(), matrix.segments(), probe, floor, &mut visit);
}

/// As [`scan`], for some segments, each with the number of its first row.
pub(super) fn scan_segments<'a>(
    kernel: Kernel,
    segments: impl Iterator<Item = (usize, &'a Segment)> + Clone,
    probe: &Probe,
    mut floor: f32,
    visit: &mut impl FnMut(usize, f32) -> f32,
) -> f32 {
    let (mut blocks, mut ceilings) = ceilings(kernel, segments, probe);
    let first = FIRST.min(blocks.len());
    if first < blocks.len() {
        blocks.select_nth_unstable_by(first, |a, b| b.most.total_cmp(&a.most));
    }
    blocks[..first].sort_unstable_by(|a, b| b.most.total_cmp(&a.most));
    for block in &blocks {
        if block.most < floor {
            continue;
        }
        let rows = BLOCK.min(block.segment.rows() - block.start);
        for (row, ceiling) in (block.start..).zip(&ceilings[block.line].0[..rows]) {
            if *ceiling >= floor && block.segment.lowered(kernel, probe, row, *ceiling) >= floor {
                floor = visit(block.base + row, block.segment.score(kernel, probe, row));
            }
        }
    }
    // How far a face is from everybody tells something of the face.
    ceilings.zeroize();
    floor
}

fn ceilings<'a>(
    kernel: Kernel,
    segments: impl Iterator<Item = (usize, &'a Segment)> + Clone,
    probe: &Probe,
) -> (Vec<Block<'a>>, Vec<FloatLane>) {
    let lines = segments.clone().map(|(_, segment)| segment.rows().div_ceil(BLOCK)).sum();
    let (mut blocks, mut ceilings) = (Vec::with_capacity(lines), Vec::with_capacity(lines));
    let mut dots = [0i32; BLOCK];
    for (base, segment) in segments {
        for start in (0..segment.rows()).step_by(BLOCK) {
            let rows = BLOCK.min(segment.rows() - start);
            let mut line = FloatLane([f32::NEG_INFINITY; BLOCK]);
            segment.ceilings(kernel, probe, start..start + rows, &mut dots[..rows], &mut line.0[..rows]);
            blocks.push(Block { segment, base, start, most: largest(&line), line: ceilings.len() });
            ceilings.push(line);
        }
    }
    dots.zeroize();
    (blocks, ceilings)
}

/// The largest number, in sixteen comparisons side by side, which the compiler makes vectors of.
fn largest(line: &FloatLane) -> f32 {
    let mut most = [f32::NEG_INFINITY; 16];
    for part in line.0.chunks_exact(16) {
        most.iter_mut().zip(part).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
    }
    most.into_iter().fold(f32::NEG_INFINITY, f32::max)
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
                    let floor = top.floor();
                    scan_segments(kernel, matrix.segments(), &probe, floor, &mut |row, score| {
                        top.offer(score, row);
                        top.floor()
                    });
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
                    let score = f64::from(segment.score(Kernel::best(), &probe, row));
                    let lowered = segment.lowered(Kernel::best(), &probe, row, *ceiling);
                    for (ceiling, loose) in [(*ceiling, 0.6), (lowered, 0.06)] {
                        let ceiling = f64::from(ceiling);
                        prop_assert!(exact <= ceiling && score <= ceiling);
                        prop_assert!(ceiling - exact < loose, "a bound this loose would be no use");
                    }
                }
            }
        }
    }
}
