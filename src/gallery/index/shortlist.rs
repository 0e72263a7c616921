//! Which rows are worth scoring, by a graph over their sketches. The rows named are scored exactly, but a row that is not named is not
//! found, so a shortlist serves only after trials have shown that it names whom the exact scan finds.
//!
//! It stands for the segments of the matrix it was made of. A segment that a change replaced is masked at once, and the one in its
//! place is scanned, until the shortlist is made again.

use std::sync::{Mutex, PoisonError};

use instant_distance::Search;
use thiserror::Error;
use zeroize::Zeroizing;

use super::graph::Graph;
use super::kernel::Kernel;
use super::matrix::Matrix;
use super::probe::Probe;
use super::scan::{First, scan_segments};
use super::sketch::{Sketch, Sketcher};
use crate::system::Stop;

/// The share of rows that may lie outside, in segments that are scanned, before scanning them all is the better way.
const MOST_OUTSIDE: f64 = 0.5;
/// The share of rows outside from which it is made again.
const WORN: f64 = 0.1;
/// The share of rows that a kept graph may lack: they are scored one by one, which costs more than a scan of as many.
const MOST_LOOSE: f64 = 0.02;
/// A node whose row is no longer there.
const GONE: u32 = u32::MAX;

/// Why kept bytes are no graph of this gallery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GraphError {
    /// Not what a graph is written as.
    #[error("these bytes are no graph that this version can read: it is built again")]
    Malformed,
    /// Too many of the gallery's templates are not in it.
    #[error("the graph lacks {missing} of the gallery's {templates} templates: it is built again")]
    Stale {
        /// Templates that it lacks.
        missing: usize,
        /// Templates in the gallery.
        templates: usize,
    },
}

/// A segment that was there when the shortlist was made.
struct Base {
    serial: u64,
    /// Where its rows begin, counted over all of them.
    first: usize,
    rows: usize,
}

/// The shortlist. No `Debug`: sketches are biometric data.
pub(crate) struct Shortlist {
    graph: Graph,
    /// The row of each of its nodes.
    rows: Vec<u32>,
    sketcher: Sketcher,
    base: Vec<Base>,
    /// Rows, counted as in [`Base::first`], that no sketch stands for.
    loose: Vec<u32>,
    /// Room for searches, kept so that none has to be made.
    rooms: Mutex<Vec<Search>>,
}

/// How a matrix lies to a shortlist.
pub(crate) struct Cover {
    /// Where each segment of the base begins now, where it is still there.
    starts: Vec<Option<usize>>,
    /// The segments that the shortlist does not know, in order.
    fresh: Vec<usize>,
    /// Whether so many rows are outside that the plain scan is the better way.
    pub(crate) is_thin: bool,
    /// Whether so many are that the shortlist should be made again.
    pub(crate) is_worn: bool,
}

impl Shortlist {
    /// Built on `threads` threads of low priority; `None` when told to stop meanwhile.
    pub(crate) fn build(matrix: &Matrix, threads: usize, stop: &Stop) -> Option<Self> {
        let sketcher = Sketcher::new(matrix.dimension());
        let (graph, rows) = Graph::build(matrix.each_row(|row| sketcher.sketch(row)), threads, stop)?;
        Some(Self::over(matrix, graph, rows, sketcher, Vec::new()))
    }

    /// Sketches that stand for the wrong rows.
    #[cfg(test)]
    pub(crate) fn astray(matrix: &Matrix) -> Self {
        let sketcher = Sketcher::new(matrix.dimension());
        let (_handle, stop) = crate::system::stop::pair();
        let mut sketches = matrix.each_row(|row| sketcher.sketch(row));
        sketches.rotate_left(matrix.rows() / 2);
        let (graph, rows) = Graph::build(sketches, 1, &stop).unwrap();
        Self::over(matrix, graph, rows, sketcher, Vec::new())
    }

    fn over(matrix: &Matrix, graph: Graph, rows: Vec<u32>, sketcher: Sketcher, loose: Vec<u32>) -> Self {
        let base = matrix.segments().map(|(first, segment)| Base { serial: segment.serial(), first, rows: segment.rows() });
        Self { graph, rows, sketcher, base: base.collect(), loose, rooms: Mutex::new(Vec::new()) }
    }

    /// Where this shortlist's rows are in `matrix`.
    pub(crate) fn cover(&self, matrix: &Matrix) -> Cover {
        let segments = matrix.segments().enumerate();
        let mut now: Vec<(u64, usize, usize)> = segments.map(|(at, (first, segment))| (segment.serial(), first, at)).collect();
        now.sort_unstable();
        let mut is_known = vec![false; now.len()];
        let mut find = |base: &Base| {
            let (_, first, at) = now[now.binary_search_by_key(&base.serial, |(serial, ..)| *serial).ok()?];
            is_known[at] = true;
            Some(first)
        };
        let starts: Vec<Option<usize>> = self.base.iter().map(&mut find).collect();
        let fresh = (0..is_known.len()).filter(|at| !is_known[*at]).collect();
        let there: usize = self.base.iter().zip(&starts).filter(|(_, start)| start.is_some()).map(|(base, _)| base.rows).sum();
        let outside = matrix.rows() - there + self.loose.len();
        let share = outside as f64 / matrix.rows().max(1) as f64;
        Cover { starts, fresh, is_thin: share > MOST_OUTSIDE, is_worn: share > WORN }
    }

    /// Tells `visit` rows that are near `values`, with their true scores: those that the graph names, and of what it does not stand for
    /// whatever reaches the floor that `visit` gives.
    pub(crate) fn search(&self, matrix: &Matrix, cover: &Cover, values: &[f32], mut visit: impl FnMut(usize, f32) -> f32) {
        let probe = Probe::new(values);
        let mut floor = f32::NEG_INFINITY;
        for row in self.named(values).iter().chain(&self.loose).filter_map(|row| self.place(cover, *row)) {
            floor = visit(row, matrix.score(&probe, row));
        }
        if !cover.fresh.is_empty() {
            let segments = matrix.segments().enumerate().filter(|(at, _)| cover.fresh.binary_search(at).is_ok());
            scan_segments(Kernel::best(), segments.map(|(_, segment)| segment), (&probe, First::All), floor, &mut visit);
        }
    }

    /// Rows of the base that are near by their sketches.
    fn named(&self, values: &[f32]) -> Vec<u32> {
        let sketch = self.sketcher.sketch(values);
        let lock = || self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = lock().pop().unwrap_or_default();
        let nodes = self.graph.nearest(&sketch, &mut room);
        lock().push(room);
        nodes.into_iter().map(|node| self.rows[node as usize]).collect()
    }

    /// Where a row of the base is now.
    fn place(&self, cover: &Cover, row: u32) -> Option<usize> {
        let row = row as usize;
        let index = self.base.partition_point(|base| base.first + base.rows <= row);
        let (base, start) = (self.base.get(index)?, cover.starts.get(index)?);
        start.map(|start| start + row - base.first)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.graph.bytes() + self.rows.capacity() * 4
    }

    /// The graph as bytes, to be sealed like the gallery; `None` where it cannot be written.
    pub(crate) fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.graph.to_bytes().map(Zeroizing::new)
    }

    /// A graph that was kept, for the templates of now: each node finds its row by its sketch, so that no state of the gallery need be
    /// remembered beside it. Nodes whose template is gone are masked, templates without a node are scored one by one.
    pub(crate) fn from_bytes(bytes: &[u8], matrix: &Matrix) -> Result<Self, GraphError> {
        let graph = Graph::from_bytes(bytes).ok_or(GraphError::Malformed)?;
        let sketcher = Sketcher::new(matrix.dimension());
        let mut sketches: Vec<(Sketch, u32)> = matrix.each_row(|row| sketcher.sketch(row)).into_iter().zip(0u32..).collect();
        sketches.sort_unstable();
        let mut nodes: Vec<(&Sketch, u32)> = graph.points().zip(0u32..).collect();
        nodes.sort_unstable();
        let mut rows = vec![GONE; nodes.len()];
        let mut loose = Vec::new();
        let mut nodes = nodes.into_iter().peekable();
        for (sketch, row) in &sketches {
            while nodes.next_if(|(known, _)| *known < sketch).is_some() {}
            match nodes.next_if(|(known, _)| *known == sketch) {
                Some((_, node)) => rows[node as usize] = *row,
                None => loose.push(*row),
            }
        }
        let (missing, templates) = (loose.len(), matrix.rows());
        if missing as f64 > MOST_LOOSE * templates as f64 {
            return Err(GraphError::Stale { missing, templates });
        }
        Ok(Self::over(matrix, graph, rows, sketcher, loose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::index::Top;
    use crate::system::stop;

    const DIMENSION: usize = 64;

    fn random_row(random: &mut fastrand::Rng) -> Vec<f32> {
        let row: Vec<f32> = (0..DIMENSION).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect();
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter().map(|v| v / norm).collect()
    }

    fn drawn(rows: usize) -> (Matrix, Vec<Vec<f32>>) {
        let mut random = fastrand::Rng::with_seed(9);
        let drawn: Vec<Vec<f32>> = (0..rows).map(|_| random_row(&mut random)).collect();
        let mut matrix = Matrix::with_capacity(DIMENSION, rows);
        drawn.iter().for_each(|row| matrix.push(row));
        (matrix, drawn)
    }

    fn best(shortlist: &Shortlist, matrix: &Matrix, probe: &[f32]) -> Option<usize> {
        let mut top = Top::new(1);
        shortlist.search(matrix, &shortlist.cover(matrix), probe, |row, score| {
            top.offer(score, row);
            top.floor()
        });
        top.into_best().first().map(|(_, row)| *row)
    }

    fn built(matrix: &Matrix) -> Shortlist {
        let (_handle, stop) = stop::pair();
        Shortlist::build(matrix, 1, &stop).unwrap()
    }

    #[test]
    fn bytes_that_are_no_graph_are_refused_and_never_panic() {
        let (matrix, rows) = drawn(300);
        let bytes = built(&matrix).to_bytes().unwrap();
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(Shortlist::from_bytes(&bytes[..length], &matrix).err(), Some(GraphError::Malformed));
        }
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..100 {
            let mut bad = bytes.clone();
            let at = random.usize(..bad.len());
            bad[at] = random.u8(..);
            if let Ok(read) = Shortlist::from_bytes(&bad, &matrix) {
                best(&read, &matrix, &rows[0]);
            }
        }
        let (other, _) = drawn(500);
        let missing = Shortlist::from_bytes(&bytes, &other).err();
        assert_eq!(missing, Some(GraphError::Stale { missing: 200, templates: 500 }));
    }

    #[test]
    fn a_build_that_is_stopped_gives_nothing() {
        let (handle, stop) = stop::pair();
        handle.stop();
        assert!(Shortlist::build(&drawn(400).0, 1, &stop).is_none());
    }

    #[test]
    fn removed_rows_are_masked_and_new_ones_found_at_once() {
        let (matrix, rows) = drawn(2_600);
        let added = random_row(&mut fastrand::Rng::with_seed(77));
        let mut next = Matrix::with_capacity(DIMENSION, 2_600);
        next.push_rows(&matrix, 0..1_500);
        next.push(&added);
        next.push_rows(&matrix, 1_501..2_600);
        let shortlist = built(&matrix);
        assert_eq!(best(&shortlist, &matrix, &rows[1_500]), Some(1_500));
        assert!(shortlist.cover(&matrix).fresh.is_empty());
        assert_eq!(best(&shortlist, &next, &added), Some(1_500), "the new row stands where the old one was");
        assert_ne!(best(&shortlist, &next, &rows[1_500]), None);
        for row in [0, 1_499, 1_501, 2_000, 2_599] {
            assert_eq!(best(&shortlist, &next, &rows[row]), Some(row));
        }
        let cover = shortlist.cover(&next);
        assert!(!cover.fresh.is_empty() && cover.is_worn && !cover.is_thin);
    }

    #[test]
    fn a_kept_graph_serves_the_gallery_of_a_later_start() {
        let (matrix, rows) = drawn(500);
        let kept = built(&matrix).to_bytes().unwrap();
        // One removed, one added, and everything at another place.
        let added = random_row(&mut fastrand::Rng::with_seed(78));
        let mut later = Matrix::with_capacity(DIMENSION, 500);
        later.push(&added);
        rows[1..].iter().for_each(|row| later.push(row));
        let read = Shortlist::from_bytes(&kept, &later).unwrap();
        assert_eq!(read.loose, [0]);
        assert_eq!(best(&read, &later, &added), Some(0));
        for row in [1, 277, 499] {
            assert_eq!(best(&read, &later, &rows[row]), Some(row));
        }
        assert_ne!(best(&read, &later, &rows[0]), None);
    }
}
