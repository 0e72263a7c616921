//! The exact search. Every row's ceiling is worked out from its coarse nibbles, a quarter of its bits; then the rows that may be best
//! are looked at more closely, the most promising first: by both nibbles, and by all bits where that leaves a hope. A row that is
//! passed over cannot be among the best, whatever its other bits hold.

use zeroize::Zeroize;

use super::kernel::Kernel;
use super::matrix::{Matrix, Segment};
use super::template::{FloatLane, LANE, Probe};

/// Rows whose ceilings are worked out at once: a line of them.
const BLOCK: usize = LANE;
/// Blocks, those with the highest ceilings, among whose rows the first to be scored are found.
const FIRST_BLOCKS: usize = 12;
/// Rows, those with the highest ceilings, that are scored first, so that the floor is high when the others' turn comes.
const FIRST_ROWS: usize = 12;

/// Some rows of a segment with their ceilings.
struct Block {
    /// The block's first row, in the segment.
    start: usize,
    /// The highest of the ceilings.
    most: f32,
    ceilings: FloatLane,
}

/// A segment and its blocks.
struct Part<'a> {
    segment: &'a Segment,
    /// The number of the segment's first row among all rows.
    base: usize,
    blocks: std::ops::Range<usize>,
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
    let (parts, mut blocks) = ceilings(kernel, segments, probe);
    for (block, at) in most_promising(&blocks) {
        let part = &parts[parts.partition_point(|part| part.blocks.end <= block)];
        let row = blocks[block].start + at;
        if let Some(score) = part.segment.score_above(kernel, probe, row, floor) {
            floor = visit(part.base + row, score);
        }
        // Nobody is to hear of it twice.
        blocks[block].ceilings.0[at] = f32::NEG_INFINITY;
    }
    let mut open = Open::new();
    for part in parts {
        for block in &blocks[part.blocks.clone()] {
            if block.most >= floor {
                // Minus infinity is where no row is, or one that was scored.
                let mut reaching = kernel.reaching(&block.ceilings, floor.max(f32::MIN));
                while reaching != 0 {
                    let at = reaching.trailing_zeros() as usize;
                    open.push(block.start + at, block.ceilings.0[at]);
                    reaching &= reaching - 1;
                }
            }
            if open.is_full() {
                floor = open.look(kernel, &part, probe, floor, visit);
            }
        }
        floor = open.look(kernel, &part, probe, floor, visit);
    }
    // How far a face is from everybody tells something of the face.
    blocks.iter_mut().for_each(|block| block.ceilings.zeroize());
    floor
}

/// As [`scan`], for some rows of one segment alone.
pub(super) fn look_at(
    kernel: Kernel,
    segment: &Segment,
    base: usize,
    rows: &[u32],
    probe: &Probe,
    mut floor: f32,
    visit: &mut impl FnMut(usize, f32) -> f32,
) -> f32 {
    let part = Part { segment, base, blocks: 0..0 };
    let (mut dots, mut ceilings, mut open) = ([0; BLOCK], [0.0; BLOCK], Open::new());
    for rows in rows.chunks(BLOCK) {
        segment.ceilings_of(kernel, probe, rows, &mut dots, &mut ceilings);
        let hopeful = rows.iter().zip(&ceilings).filter(|(_, ceiling)| **ceiling >= floor);
        hopeful.for_each(|(row, ceiling)| open.push(*row as usize, *ceiling));
        floor = open.look(kernel, &part, probe, floor, visit);
    }
    floor
}

/// The ceilings of all rows.
fn ceilings<'a>(
    kernel: Kernel,
    segments: impl Iterator<Item = (usize, &'a Segment)> + Clone,
    probe: &Probe,
) -> (Vec<Part<'a>>, Vec<Block>) {
    let count = segments.clone().map(|(_, segment)| segment.rows().div_ceil(BLOCK)).sum();
    let (mut parts, mut blocks) = (Vec::new(), Vec::with_capacity(count));
    let mut dots = [0i32; BLOCK];
    for (base, segment) in segments {
        let first = blocks.len();
        for start in (0..segment.rows()).step_by(BLOCK) {
            let rows = BLOCK.min(segment.rows() - start);
            let mut ceilings = FloatLane([f32::NEG_INFINITY; BLOCK]);
            let most = segment.ceilings(kernel, probe, start..start + rows, &mut dots[..rows], &mut ceilings.0[..rows]);
            blocks.push(Block { start, most, ceilings });
        }
        parts.push(Part { segment, base, blocks: first..blocks.len() });
    }
    dots.zeroize();
    (parts, blocks)
}

/// The block and the place in it of the rows to score first, the highest ceiling first.
fn most_promising(blocks: &[Block]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    if order.len() > FIRST_BLOCKS {
        order.select_nth_unstable_by(FIRST_BLOCKS, |a, b| blocks[*b].most.total_cmp(&blocks[*a].most));
        order.truncate(FIRST_BLOCKS);
    }
    let in_block = |block: usize| blocks[block].ceilings.0.iter().enumerate().map(move |(at, ceiling)| (*ceiling, block, at));
    let mut rows: Vec<(f32, usize, usize)> = order.into_iter().flat_map(in_block).filter(|row| row.0 > f32::NEG_INFINITY).collect();
    let by_ceiling = |a: &(f32, usize, usize), b: &(f32, usize, usize)| b.0.total_cmp(&a.0);
    if rows.len() > FIRST_ROWS {
        rows.select_nth_unstable_by(FIRST_ROWS, by_ceiling);
        rows.truncate(FIRST_ROWS);
    }
    rows.sort_unstable_by(by_ceiling);
    rows.into_iter().map(|(_, block, at)| (block, at)).collect()
}

/// Rows of one segment that their coarse nibbles leave open. They are looked at many at a time, so that their memory is waited for once.
struct Open {
    rows: Vec<u32>,
    ceilings: Vec<f32>,
    dots: Vec<i32>,
}

impl Open {
    fn new() -> Self {
        let most = 2 * BLOCK;
        Self { rows: Vec::with_capacity(most), ceilings: Vec::with_capacity(most), dots: vec![0; most] }
    }

    /// Whether another block may not find room.
    fn is_full(&self) -> bool {
        self.rows.len() > BLOCK
    }

    fn push(&mut self, row: usize, ceiling: f32) {
        self.rows.push(row as u32);
        self.ceilings.push(ceiling);
    }

    /// Looks at all of them and forgets them.
    fn look(
        &mut self,
        kernel: Kernel,
        part: &Part<'_>,
        probe: &Probe,
        mut floor: f32,
        visit: &mut impl FnMut(usize, f32) -> f32,
    ) -> f32 {
        part.segment.lower(kernel, probe, &self.rows, &mut self.dots[..self.rows.len()], &mut self.ceilings);
        for (row, ceiling) in self.rows.drain(..).zip(self.ceilings.drain(..)) {
            if ceiling >= floor {
                floor = visit(part.base + row as usize, part.segment.score(kernel, probe, row as usize));
            }
        }
        floor
    }
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
                    let mut lowered = [*ceiling];
                    segment.lower(Kernel::best(), &probe, &[row as u32], &mut [0], &mut lowered);
                    for (ceiling, loose) in [(*ceiling, 0.5), (lowered[0], 0.06)] {
                        let ceiling = f64::from(ceiling);
                        prop_assert!(exact <= ceiling && score <= ceiling);
                        prop_assert!(ceiling - exact < loose, "a bound this loose would be no use");
                    }
                }
            }
        }
    }
}
