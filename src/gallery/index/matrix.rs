//! Templates, row by row, in segments. A segment is never changed once another matrix shares it, so that the next snapshot copies the
//! segments that a change touches and shares the rest: enrolling one person among 100,000 templates copies a megabyte or two, not a
//! hundred.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::{Zeroize, Zeroizing};

use super::kernel::Kernel;
use super::locked;
use super::template::{HIGH, LANE, Lane, Probe, level, round};

/// Rows that a segment takes when rows are appended one by one: small enough to copy at once, large enough that a scan does not notice.
const SEGMENT: usize = 1024;
/// A segment shorter than this is merged with what comes next, so that many small changes leave no crumbs.
const SHORT: usize = 256;
/// Rows of a first, growing segment.
const FIRST: usize = 16;

/// Some rows. No `Debug`: it is biometric data, and cleared when it goes.
pub(super) struct Segment {
    /// Tells it from every other segment of this process.
    serial: u64,
    /// Lanes in a row.
    lanes: usize,
    capacity: usize,
    high: Vec<Lane>,
    low: Vec<Lane>,
    /// What one unit of the low plane is, a row each.
    steps: Vec<f32>,
    /// The length of the row's low plane, rounded up.
    rests: Vec<f32>,
    /// No row is longer.
    longest: f32,
}

impl Segment {
    fn new(lanes: usize, capacity: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (high, low) = (Vec::with_capacity(capacity * lanes), Vec::with_capacity(capacity * lanes));
        [&high, &low].into_iter().for_each(locked::lock);
        Self {
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            lanes,
            capacity,
            high,
            low,
            steps: Vec::with_capacity(capacity),
            rests: Vec::with_capacity(capacity),
            longest: 0.0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    fn is_full(&self) -> bool {
        self.rows() == self.capacity
    }

    fn push(&mut self, row: &[f32]) {
        let step = round(row, &mut self.high, &mut self.low);
        let of_row = |plane: &[Lane]| plane.len() - self.lanes..plane.len();
        let (high, low) = (&self.high[of_row(&self.high)], &self.low[of_row(&self.low)]);
        let (mut length, mut rest) = (0.0f64, 0.0f64);
        for (high, low) in high.iter().zip(low).flat_map(|(h, l)| h.0.into_iter().zip(l.0)) {
            length += f64::from(level(high, low)).powi(2);
            rest += f64::from(low).powi(2);
        }
        // What `f32` rounds off is given back, so that a bound made of these holds.
        const UP: f64 = 1.0 + 1e-6;
        let step_exact = f64::from(step) * UP;
        self.longest = self.longest.max((length.sqrt() * step_exact) as f32);
        self.rests.push((rest.sqrt() * step_exact) as f32);
        self.steps.push(step);
    }

    fn push_rows(&mut self, other: &Self, rows: Range<usize>) {
        let lanes = rows.start * self.lanes..rows.end * self.lanes;
        self.high.extend_from_slice(&other.high[lanes.clone()]);
        self.low.extend_from_slice(&other.low[lanes]);
        self.steps.extend_from_slice(&other.steps[rows.clone()]);
        self.rests.extend_from_slice(&other.rests[rows]);
        self.longest = self.longest.max(other.longest);
    }

    /// An own copy of some rows with room for `capacity`.
    fn copy(&self, rows: Range<usize>, capacity: usize) -> Self {
        let mut copy = Self::new(self.lanes, capacity);
        copy.push_rows(self, rows);
        copy
    }

    fn values(&self, row: usize) -> impl Iterator<Item = f32> + '_ {
        let lanes = row * self.lanes..(row + 1) * self.lanes;
        let planes = self.high[lanes.clone()].iter().zip(&self.low[lanes]);
        let step = self.steps[row];
        planes.flat_map(|(high, low)| high.0.into_iter().zip(low.0)).map(move |(high, low)| level(high, low) as f32 * step)
    }

    fn has_same_row(&self, row: usize, other: &Self, otherwise: usize) -> bool {
        let lanes = |row: usize| row * self.lanes..(row + 1) * self.lanes;
        let same = |a: &[Lane], b: &[Lane]| a.iter().zip(b).all(|(a, b)| a.0 == b.0);
        self.steps[row].to_bits() == other.steps[otherwise].to_bits()
            && same(&self.high[lanes(row)], &other.high[lanes(otherwise)])
            && same(&self.low[lanes(row)], &other.low[lanes(otherwise)])
    }

    /// The score of one row, from all its bits.
    pub(super) fn score(&self, kernel: Kernel, probe: &Probe, row: usize) -> f32 {
        let lanes = row * self.lanes..(row + 1) * self.lanes;
        kernel.fine(&self.high[lanes.clone()], &self.low[lanes], &probe.exact) * self.steps[row]
    }

    /// The highest score that each of `rows` can have, by its high plane.
    pub(super) fn ceilings(&self, kernel: Kernel, probe: &Probe, rows: Range<usize>, dots: &mut [i32], out: &mut [f32]) {
        kernel.dots(&self.high[rows.start * self.lanes..rows.end * self.lanes], &probe.coarse, dots);
        let (base, per_rest) = probe.bound(self.longest);
        let unit = HIGH * probe.step;
        let rows = self.steps[rows.clone()].iter().zip(&self.rests[rows]);
        for (((step, rest), dot), out) in rows.zip(&*dots).zip(out) {
            *out = *dot as f32 * (step * unit) + (base + per_rest * rest);
        }
    }

    fn bytes(&self) -> usize {
        (self.high.capacity() + self.low.capacity()) * size_of::<Lane>()
            + (self.steps.capacity() + self.rests.capacity()) * size_of::<f32>()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.high.zeroize();
        self.low.zeroize();
        self.steps.zeroize();
        self.rests.zeroize();
        [&self.high, &self.low].into_iter().for_each(locked::unlock);
    }
}

/// Templates, row by row. No `Debug`: it is biometric data.
pub(crate) struct Matrix {
    dimension: usize,
    /// Rows it was said to get, so that segments are made as large as they become.
    expected: usize,
    segments: Vec<Arc<Segment>>,
    /// Where each segment's rows end; they begin where the segment before ends.
    ends: Vec<usize>,
}

impl Matrix {
    /// An empty one that expects `rows` rows.
    pub(crate) fn with_capacity(dimension: usize, rows: usize) -> Self {
        Self { dimension, expected: rows, segments: Vec::new(), ends: Vec::new() }
    }

    /// Numbers in a row.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of memory held, those shared with other snapshots included.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }

    /// Appends a row of [`Matrix::dimension`] numbers, rounded to 16 bits.
    pub(crate) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.dimension);
        self.with_last(|segment| segment.push(row));
    }

    /// Appends rows of another matrix of the same dimension, bit for bit.
    pub(crate) fn push_rows(&mut self, other: &Matrix, rows: Range<usize>) {
        let mut at = rows.start;
        while at < rows.end {
            let (index, inside) = other.locate(at);
            let segment = &other.segments[index];
            let end = other.ends[index].min(rows.end);
            if end - at == segment.rows() {
                self.join(segment);
            } else {
                (inside..inside + (end - at)).for_each(|row| self.with_last(|last| last.push_rows(segment, row..row + 1)));
            }
            at = end;
        }
    }

    /// Whether these rows are those of another matrix, bit for bit.
    pub(crate) fn has_same_rows(&self, rows: Range<usize>, other: &Matrix, others: Range<usize>) -> bool {
        let same = |(row, otherwise): (usize, usize)| {
            let ((index, inside), (other_index, other_inside)) = (self.locate(row), other.locate(otherwise));
            self.segments[index].has_same_row(inside, &other.segments[other_index], other_inside)
        };
        rows.len() == others.len() && rows.zip(others).all(same)
    }

    /// The numbers of some rows, one after another.
    pub(crate) fn values(&self, rows: Range<usize>) -> impl Iterator<Item = f32> + '_ {
        rows.flat_map(|row| {
            let (index, inside) = self.locate(row);
            self.segments[index].values(inside).take(self.dimension)
        })
    }

    /// What `of` makes of the numbers of each row, in order.
    pub(super) fn each_row<T>(&self, of: impl Fn(&[f32]) -> T) -> Vec<T> {
        let mut row = Zeroizing::new(Vec::with_capacity(self.dimension));
        let mut made = Vec::with_capacity(self.rows());
        for (_, segment) in self.segments() {
            for at in 0..segment.rows() {
                row.clear();
                row.extend(segment.values(at).take(self.dimension));
                made.push(of(&row));
            }
        }
        made
    }

    /// The score of one row with `probe`.
    pub(crate) fn score(&self, probe: &Probe, row: usize) -> f32 {
        let (index, inside) = self.locate(row);
        self.segments[index].score(Kernel::best(), probe, inside)
    }

    /// The segments, each with its first row.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, &Segment)> {
        self.segments.iter().zip(&self.ends).map(|(segment, end)| (end - segment.rows(), segment.as_ref()))
    }

    /// The segment that a row is in, and the row's place in it.
    fn locate(&self, row: usize) -> (usize, usize) {
        let index = self.ends.partition_point(|end| *end <= row);
        (index, row + self.segments[index].rows() - self.ends[index])
    }

    fn add(&mut self, segment: Arc<Segment>) {
        self.ends.push(self.rows() + segment.rows());
        self.segments.push(segment);
    }

    fn take_last(&mut self) -> Option<Arc<Segment>> {
        self.ends.pop();
        self.segments.pop()
    }

    /// Appends a whole segment: shared, unless what is last is short.
    fn join(&mut self, segment: &Arc<Segment>) {
        let Some(last) = self.take_last() else { return self.add(segment.clone()) };
        if last.rows() >= SHORT {
            self.add(last);
            return self.add(segment.clone());
        }
        let rows = last.rows() + segment.rows();
        // Never more than a short one above the usual, and never so little that the next one would be merged again.
        let first = if rows <= SEGMENT + SHORT { rows } else { rows / 2 };
        let mut joined = last.copy(0..last.rows(), first);
        let taken = first - last.rows();
        joined.push_rows(segment, 0..taken);
        self.add(Arc::new(joined));
        if taken < segment.rows() {
            self.add(Arc::new(segment.copy(taken..segment.rows(), rows - first)));
        }
    }

    /// Lets `push` append one row to the last segment, which is this matrix's own and has room.
    fn with_last(&mut self, push: impl FnOnce(&mut Segment)) {
        self.own_last();
        if let (Some(last), Some(end)) = (self.segments.last_mut().and_then(Arc::get_mut), self.ends.last_mut()) {
            push(last);
            *end += 1;
        }
    }

    /// Sees to it that the last segment is not shared and has room for a row.
    fn own_last(&mut self) {
        let more = self.expected.saturating_sub(self.rows());
        if self.segments.last_mut().and_then(Arc::get_mut).is_some_and(|own| !own.is_full()) {
            return;
        }
        let fresh = match self.segments.last() {
            // A short one that is shared or full is copied, and so grows; the old one clears itself when nobody holds it.
            Some(last) if last.rows() < SHORT => {
                let (rows, room) = (last.rows(), more.max(FIRST).max(last.rows()));
                Some(last.copy(0..rows, (rows + room).min(SEGMENT)))
            }
            _ => None,
        };
        match fresh {
            Some(copy) => {
                self.take_last();
                self.add(Arc::new(copy));
            }
            None => self.add(Arc::new(Segment::new(self.dimension.div_ceil(LANE), more.clamp(FIRST, SEGMENT)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One number a row makes rows easy to tell apart: powers of two and thirds survive the rounding as they are told.
    fn counted(rows: Range<usize>) -> Matrix {
        let mut matrix = Matrix::with_capacity(1, rows.len());
        rows.for_each(|row| matrix.push(&[1.0 + row as f32 / 8192.0]));
        matrix
    }

    fn numbers(matrix: &Matrix) -> Vec<usize> {
        matrix.values(0..matrix.rows()).map(|v| ((v - 1.0) * 8192.0).round() as usize).collect()
    }

    fn shared(a: &Matrix, b: &Matrix) -> usize {
        a.segments.iter().filter(|s| b.segments.iter().any(|other| other.serial == s.serial)).count()
    }

    #[test]
    fn rows_of_any_length_come_back_as_they_were_rounded() {
        for dimension in [1, 3, 63, 64, 65, 128, 512] {
            let row: Vec<f32> = (0..dimension).map(|n| (n as f32 + 1.0) / 1024.0).collect();
            let mut matrix = Matrix::with_capacity(dimension, 0);
            matrix.push(&row);
            matrix.push(&vec![0.5; dimension]);
            assert_eq!(matrix.rows(), 2);
            let back: Vec<f32> = matrix.values(0..1).collect();
            assert_eq!(back, row, "numbers of few bits come back whole");
            let probe = Probe::new(&vec![1.0; dimension]);
            assert_eq!(matrix.score(&probe, 0), row.iter().sum::<f32>());
            assert_eq!(matrix.score(&probe, 1), dimension as f32 / 2.0);
        }
    }

    #[test]
    fn any_splice_keeps_the_rows_and_their_order() {
        let old = counted(0..5_000);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut next = Matrix::with_capacity(1, 5_000);
            let mut expected = Vec::new();
            for _ in 0..random.usize(1..5) {
                let start = random.usize(0..=5_000);
                let end = random.usize(start..=5_000);
                next.push_rows(&old, start..end);
                expected.extend(start..end);
                if random.bool() {
                    next.push(&[1.0 + 7.0 / 8192.0]);
                    expected.push(7);
                }
            }
            assert_eq!(numbers(&next), expected);
            let ends: Vec<usize> = next.segments().map(|(first, segment)| first + segment.rows()).collect();
            assert_eq!(ends, next.ends);
        }
    }

    #[test]
    fn a_change_in_the_middle_shares_all_but_what_it_touches() {
        let mut now = counted(0..8_000);
        for round in 0..300 {
            let mut next = Matrix::with_capacity(1, now.rows() + 1);
            let at = (round * 37) % 8_000;
            next.push_rows(&now, 0..at);
            next.push(&[1.0]);
            next.push_rows(&now, at..now.rows());
            assert!(shared(&next, &now) + 4 >= now.segments.len(), "round {round} copied too much");
            now = next;
        }
        assert!(now.segments.len() <= 8_300 / SHORT, "{} crumbs", now.segments.len());
        assert!(now.segments.iter().all(|s| s.rows() <= SEGMENT + SHORT));
    }
}
