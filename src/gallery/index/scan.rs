//! The exact search. Every row's ceiling is worked out from the first bit of each of its numbers, a sixteenth of all, or, more roughly,
//! from those of half of its numbers; then the blocks of rows that may hold the best are looked at more closely, the most promising
//! first: by the first bits of all numbers where only half were read, by the first two, row by row by four, and by all of them where
//! that leaves a hope. What is passed over is not among the best, but for a chance of 4·10⁻⁷ a search (see [`Probe::reach`]).

use std::cell::Cell;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

use super::kernel::Kernel;
use super::matrix::{Bounds, Matrix, Segment};
use super::probe::Probe;
use super::template::{BLOCK as TOPS_BLOCK, FloatLane, LANE};

/// Rows whose ceilings are worked out at once: a line of them.
const BLOCK: usize = LANE;

/// What is read of every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The first bits of half of its numbers, by rough tables: for the one best row, which is mostly so much like the probe that little
    /// else is read.
    Half,
    /// All first bits: for more than the best, since where nobody else is like the probe they are read of nearly every row anyway.
    All,
}

impl First {
    /// Blocks that are looked at before the others, so that the floor is high when their turn comes: the nearest row is mostly in the
    /// most promising one.
    fn near(self) -> usize {
        match self {
            Self::Half => 1,
            Self::All => 6,
        }
    }
}

thread_local! {
    /// Room for a search, kept so that none has to be made: making some for a large gallery takes as long as a scan.
    static ROOM: Cell<Room> = const { Cell::new(Room { mosts: Vec::new(), lines: Vec::new() }) };
}

/// What a search knows of blocks of rows.
#[derive(Default)]
struct Room {
    /// The highest ceiling of each block.
    mosts: Vec<f32>,
    /// The sums over the probe's tables of each block's rows, where all first bits are read. There may be more lines than blocks.
    lines: Vec<Sums>,
}

/// A sum of each row of a block.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sums([i32; BLOCK]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; BLOCK])
    }
}

impl DefaultIsZeroes for Sums {}

/// A segment and its blocks.
struct Part<'a> {
    segment: &'a Segment,
    bounds: Bounds,
    /// The number of the segment's first row among all rows.
    base: usize,
    blocks: Range<usize>,
    first: First,
}

impl Part<'_> {
    /// Each block's first row in the segment, and its number among all blocks.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..).step_by(BLOCK).zip(self.blocks.clone())
    }

    /// The rows of the block that begins with a row.
    fn rows(&self, start: usize) -> Range<usize> {
        start..self.segment.rows().min(start + BLOCK)
    }

    /// The highest ceiling of each block, and, if all first bits are read of it, its rows' sums over the probe's tables.
    fn glance(&self, kernel: Kernel, probe: &Probe, mosts: &mut [f32], lines: &mut [Sums]) {
        if self.first == First::Half {
            return self.segment.glance(kernel, (probe, &self.bounds), mosts);
        }
        let mut rest = Sums::default();
        for (((start, _), most), line) in self.blocks().zip(mosts).zip(lines) {
            *most = self.by_first(kernel, probe, self.rows(start), (line, &mut rest));
        }
        rest.zeroize();
    }

    /// The sums of some of a block's rows by all first bits, and their highest ceiling.
    fn by_first(&self, kernel: Kernel, probe: &Probe, rows: Range<usize>, (line, rest): (&mut Sums, &mut Sums)) -> f32 {
        let size = rows.len().next_multiple_of(TOPS_BLOCK);
        self.segment.first_bits(kernel, probe, rows.clone(), &mut line.0[..size], &mut rest.0[..size]);
        kernel.highest(&self.segment.by_first(&self.bounds, rows, &line.0[..size]))
    }

    /// Works out the ceilings of some of a block's rows by their first two bits, minus infinity where there is no row, and gives the
    /// highest. `line` is what [`Part::glance`] gave, if anything. Where `trial` has it that all first bits may do, and no row reaches
    /// the floor by them, there are none but the highest.
    fn ceilings(
        &self,
        kernel: Kernel,
        probe: &Probe,
        (rows, line): (Range<usize>, Option<&Sums>),
        trial: Option<(&mut Trial, f32)>,
        Scratch { ceilings, signs, sums }: &mut Scratch,
    ) -> f32 {
        let signs = if let Some(line) = line {
            line
        } else {
            let most = self.by_first(kernel, probe, rows.clone(), (signs, sums));
            if trial.is_some_and(|(trial, floor)| trial.pays() && trial.tell(most < floor)) {
                return most;
            }
            signs
        };
        ceilings.0[rows.len()..].fill(f32::NEG_INFINITY);
        let (here, size) = (&mut ceilings.0[..rows.len()], rows.len().next_multiple_of(TOPS_BLOCK));
        let both = (&signs.0[..size], &mut sums.0[..size]);
        self.segment.ceilings(kernel, (probe, &self.bounds), rows, both, here)
    }
}

/// Room for what is worked out of one block.
#[derive(Clone, Copy, Default)]
struct Scratch {
    ceilings: FloatLane,
    signs: Sums,
    sums: Sums,
}

impl DefaultIsZeroes for Scratch {}

/// Whether it pays to hold blocks' first bits against the floor before their second ones are read. Where somebody is like the probe it
/// does; where nobody is, the floor is so low that it never does.
#[derive(Default)]
struct Trial {
    tried: u32,
    spared: u32,
}

impl Trial {
    fn pays(&self) -> bool {
        self.tried < 8 || 4 * self.spared >= self.tried
    }

    fn tell(&mut self, spared: bool) -> bool {
        (self.tried, self.spared) = (self.tried + 1, self.spared + u32::from(spared));
        spared
    }
}

/// Goes over all rows. `visit` hears of every row that reaches the floor, with its true score, and gives the floor from then on: the
/// lowest score that still matters, of which there is none at first. It hears of rows in no particular order.
pub(crate) fn scan(matrix: &Matrix, probe: &Probe, first: First, mut visit: impl FnMut(usize, f32) -> f32) {
    scan_segments(Kernel::best(), matrix.segments(), (probe, first), f32::NEG_INFINITY, &mut visit);
}

/// As [`scan`], for some segments, each with the number of its first row, and with a first floor.
pub(super) fn scan_segments<'a>(
    kernel: Kernel,
    segments: impl Iterator<Item = (usize, &'a Segment)> + Clone,
    (probe, first): (&Probe, First),
    mut floor: f32,
    visit: &mut impl FnMut(usize, f32) -> f32,
) -> f32 {
    let mut room = ROOM.take();
    let parts = glance(kernel, segments, (probe, first), &mut room);
    let Room { mosts, lines } = &mut room;
    let lines = if first == First::All { &mut lines[..mosts.len()] } else { &mut [] };
    // One row of each of the best blocks first, so that the floor is high when the others' turn comes.
    let (mut near, mut ahead) = (Vec::with_capacity(first.near()), Vec::with_capacity(first.near()));
    let mut scratch = Scratch::default();
    for block in highest(mosts, first.near()) {
        let Some(part) = parts.iter().find(|part| part.blocks.contains(&block)) else { continue };
        let start = (block - part.blocks.start) * BLOCK;
        let most = part.ceilings(kernel, probe, (part.rows(start), lines.get(block)), None, &mut scratch);
        let ceilings = &mut scratch.ceilings;
        if let Some(at) = reaching(kernel, ceilings, most).next() {
            let (row, mut ceiling) = (start + at, most);
            part.segment.prefetch(row);
            part.segment.lower(kernel, (probe, &part.bounds), &[row as u32], &mut [0], std::slice::from_mut(&mut ceiling));
            ahead.push((ceiling, part, row));
            // Nobody is to hear of it twice.
            ceilings.0[at] = f32::NEG_INFINITY;
        }
        near.push((part, start, *ceilings));
        mosts[block] = f32::NEG_INFINITY;
    }
    ahead.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    for (ceiling, part, row) in ahead {
        if ceiling >= floor {
            floor = visit(part.base + row, part.segment.score(kernel, probe, row));
        }
    }
    let mut open = Open::new();
    for (part, start, ceilings) in &mut near {
        open.take(kernel, *start, ceilings, floor);
        floor = open.look(kernel, part, probe, floor, visit);
        ceilings.zeroize();
    }
    let mut trial = Trial::default();
    for part in &parts {
        for (start, block) in part.blocks() {
            if mosts[block] >= floor {
                let mut rows = part.rows(start);
                if first == First::Half && trial.pays() {
                    rows = part.segment.narrow(kernel, (probe, &part.bounds), rows, floor);
                }
                let (start, line) = (rows.start, lines.get(block));
                let is_open = !rows.is_empty()
                    && part.ceilings(kernel, probe, (rows, line), Some((&mut trial, floor)), &mut scratch) >= floor;
                if is_open {
                    open.take(kernel, start, &scratch.ceilings, floor);
                }
            }
            if open.is_full() {
                floor = open.look(kernel, part, probe, floor, visit);
            }
        }
        floor = open.look(kernel, part, probe, floor, visit);
    }
    // How far a face is from everybody tells something of the face.
    scratch.zeroize();
    mosts.as_mut_slice().zeroize();
    lines.zeroize();
    ROOM.set(room);
    floor
}

/// What is told by what is read of every row.
fn glance<'a>(
    kernel: Kernel,
    segments: impl Iterator<Item = (usize, &'a Segment)> + Clone,
    (probe, first): (&Probe, First),
    room: &mut Room,
) -> Vec<Part<'a>> {
    let count = segments.clone().map(|(_, segment)| segment.rows().div_ceil(BLOCK)).sum();
    room.mosts.resize(count, 0.0);
    if first == First::All {
        // Never fewer: a smaller gallery's search is not to make room for the next of a larger.
        room.lines.resize(room.lines.len().max(count), Sums::default());
    }
    let (mut parts, mut block) = (Vec::new(), 0);
    for (base, segment) in segments {
        let blocks = block..block + segment.rows().div_ceil(BLOCK);
        block = blocks.end;
        let part = Part { segment, bounds: segment.bounds(probe), base, blocks: blocks.clone(), first };
        let lines = if first == First::All { &mut room.lines[blocks.clone()] } else { &mut [] };
        part.glance(kernel, probe, &mut room.mosts[blocks], lines);
        parts.push(part);
    }
    parts
}

/// Up to `few` blocks with the highest ceilings, the highest first.
fn highest(mosts: &[f32], few: usize) -> Vec<usize> {
    let mut best: Vec<(f32, usize)> = Vec::with_capacity(few + 1);
    for (block, most) in mosts.iter().enumerate() {
        // Not one that is no number: it is looked at in its turn.
        if best.len() < few || best.last().is_some_and(|(least, _)| most > least) {
            best.insert(best.partition_point(|(better, _)| better >= most), (*most, block));
            best.truncate(few);
        }
    }
    best.into_iter().map(|(_, block)| block).collect()
}

/// Which of a line's ceilings reach the floor. Minus infinity never does: it is where no row is, or one that was looked at.
fn reaching(kernel: Kernel, line: &FloatLane, floor: f32) -> impl Iterator<Item = usize> + use<> {
    let mut bits = kernel.reaching(line, floor.max(f32::MIN));
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (at < LANE).then_some(at)
    })
}

/// Where the highest of some ceilings is, if it reaches the floor. Minus infinity never does.
fn most_promising(ceilings: &[f32], floor: f32) -> Option<(usize, f32)> {
    let reaching = ceilings.iter().copied().enumerate().filter(|(_, ceiling)| *ceiling >= floor.max(f32::MIN));
    reaching.reduce(|best, other| if other.1 > best.1 { other } else { best })
}

/// Rows of one segment that their first two bits leave open. They are looked at many at a time, so that their memory is waited for once.
struct Open {
    rows: Vec<u32>,
    ceilings: Vec<f32>,
    products: Vec<i32>,
}

impl Open {
    fn new() -> Self {
        let most = 2 * BLOCK;
        Self { rows: Vec::with_capacity(most), ceilings: Vec::with_capacity(most), products: vec![0; most] }
    }

    /// Whether another block may not find room.
    fn is_full(&self) -> bool {
        self.rows.len() > BLOCK
    }

    /// Takes those of a block's rows whose ceilings reach the floor.
    fn take(&mut self, kernel: Kernel, start: usize, ceilings: &FloatLane, floor: f32) {
        for at in reaching(kernel, ceilings, floor) {
            self.rows.push((start + at) as u32);
            self.ceilings.push(ceilings.0[at]);
        }
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
        let products = &mut self.products[..self.rows.len()];
        part.segment.lower(kernel, (probe, &part.bounds), &self.rows, products, &mut self.ceilings);
        for (row, ceiling) in self.rows.iter().zip(&self.ceilings) {
            if *ceiling >= floor {
                part.segment.prefetch(*row as usize);
            }
        }
        // The most promising first, which may spare the others.
        while let Some((at, _)) = most_promising(&self.ceilings, floor) {
            let row = self.rows[at] as usize;
            floor = visit(part.base + row, part.segment.score(kernel, probe, row));
            self.ceilings[at] = f32::NEG_INFINITY;
        }
        self.rows.clear();
        self.ceilings.clear();
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
                for (kernel, first) in Kernel::all().into_iter().flat_map(|kernel| [(kernel, First::Half), (kernel, First::All)]) {
                    let mut top = Top::new(k);
                    let floor = top.floor();
                    scan_segments(kernel, matrix.segments(), (&probe, first), floor, &mut |row, score| {
                        top.offer(score, row);
                        top.floor()
                    });
                    prop_assert_eq!(&top.into_best(), &all, "{} {:?}", kernel.name(), first);
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
                let ([mut signs, mut sums], [mut by_signs, mut ceilings]) = ([[0; 48]; 2], [[0.0; 40]; 2]);
                let rows = segment.rows();
                let blocks = rows.next_multiple_of(TOPS_BLOCK);
                let of = (&probe, &segment.bounds(&probe));
                let kernel = Kernel::best();
                let mut highest = [0.0];
                segment.glance(kernel, of, &mut highest);
                let by_glance = segment.by_glance(kernel, of, 0..rows);
                segment.first_bits(kernel, &probe, 0..rows, &mut signs[..blocks], &mut sums[..blocks]);
                kernel.ceilings(&segment.by_first(of.1, 0..rows, &signs[..blocks]), &mut by_signs[..rows]);
                let both = (&signs[..], &mut sums[..blocks]);
                segment.ceilings(Kernel::best(), of, 0..rows, both, &mut ceilings[..rows]);
                for (row, ceiling) in ceilings[..rows].iter().enumerate() {
                    // In 64 bits, from the numbers themselves.
                    let exact: f64 = matrix.values(first + row..first + row + 1).zip(&templates[0])
                        .map(|(x, p)| f64::from(x) * f64::from(*p)).sum();
                    let score = f64::from(segment.score(Kernel::best(), &probe, row));
                    prop_assert!(score <= f64::from(highest[0]) && by_glance[row] <= highest[0] + 1e-5);
                    let mut lowered = [*ceiling];
                    segment.lower(Kernel::best(), of, &[row as u32], &mut [0], &mut lowered);
                    let loose = if dimension < 256 { [f64::INFINITY, 2.4, 1.6, 0.7] } else { [1.0, 0.6, 0.4, 0.1] };
                    for (ceiling, loose) in [by_glance[row], by_signs[row], *ceiling, lowered[0]].into_iter().zip(loose) {
                        let ceiling = f64::from(ceiling);
                        prop_assert!(exact <= ceiling && score <= ceiling);
                        prop_assert!(ceiling - exact < loose, "a bound this loose would be no use");
                    }
                }
            }
        }
    }
}
