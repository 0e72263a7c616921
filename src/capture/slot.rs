//! The hand-over from cameras to a worker: one place a camera, the newest wins, what was replaced is counted.
//!
//! [`Slots`] is the reader's side for any number of cameras under one lock and one bell, so that a worker waits for whichever camera
//! is first and takes them in turn. Each [`Slots`] is read by one worker: two readers would get one camera's frames out of order.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a blocked [`Slot::put_when_free`] asks whether to give up. Being cancelled is rare and may take this long.
const CANCEL_POLL: Duration = Duration::from_millis(20);

struct Cell<T> {
    item: Option<T>,
    is_closed: bool,
    counts: SlotCounts,
}

struct Cells<T> {
    cells: Vec<Cell<T>>,
    /// Where the next search begins: after the camera that was served last.
    next: usize,
    is_nudged: bool,
}

struct Shared<T> {
    cells: Mutex<Cells<T>>,
    filled: Condvar,
    freed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Cells<T>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has gone through a slot since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotCounts {
    /// How many were put in.
    pub put: u64,
    /// How many were taken out.
    pub taken: u64,
    /// How many were replaced by a newer one before anyone took them.
    pub replaced: u64,
}

/// What a reader got.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// An item, and the index of its slot.
    Item(usize, T),
    /// Nothing came in time.
    TimedOut,
    /// Every slot is closed and empty: nothing will come any more.
    Closed,
}

/// The reader's side of one or more slots.
pub struct Slots<T>(Arc<Shared<T>>);

/// The writer's side of one slot; cloning it gives another handle to the same slot.
pub struct Slot<T> {
    shared: Arc<Shared<T>>,
    index: usize,
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), index: self.index }
    }
}

impl<T> Slots<T> {
    /// `count` empty, open slots.
    pub fn new(count: usize) -> Self {
        let empty = || Cell { item: None, is_closed: false, counts: SlotCounts::default() };
        let cells = Cells { cells: std::iter::repeat_with(empty).take(count).collect(), next: 0, is_nudged: false };
        Self(Arc::new(Shared { cells: Mutex::new(cells), filled: Condvar::new(), freed: Condvar::new() }))
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.0.lock().cells.len()
    }

    /// Whether there is no slot at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The writer's side of slot `index`; `None` when there is no such slot.
    pub fn slot(&self, index: usize) -> Option<Slot<T>> {
        (index < self.len()).then(|| Slot { shared: self.0.clone(), index })
    }

    /// The writers' sides of all slots, in order.
    pub fn writers(&self) -> Vec<Slot<T>> {
        (0..self.len()).map(|index| Slot { shared: self.0.clone(), index }).collect()
    }

    /// Wakes a reader that waits: it finds nothing and looks at what else it has to do.
    pub fn nudge(&self) {
        self.0.lock().is_nudged = true;
        self.0.filled.notify_all();
    }

    /// Waits up to `timeout`, or until it is nudged, for an item in any slot. The search begins after the slot served last, so that a fast camera cannot
    /// starve a slow one.
    pub fn take_any(&self, timeout: Duration) -> Taken<T> {
        let deadline = Instant::now() + timeout;
        let mut cells = self.0.lock();
        loop {
            let count = cells.cells.len();
            let first = cells.next;
            for index in (0..count).map(|step| (first + step) % count) {
                let cell = &mut cells.cells[index];
                if let Some(item) = cell.item.take() {
                    cell.counts.taken += 1;
                    cells.next = (index + 1) % count;
                    self.0.freed.notify_all();
                    return Taken::Item(index, item);
                }
            }
            if cells.cells.iter().all(|cell| cell.is_closed) {
                return Taken::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut cells.is_nudged) {
                return Taken::TimedOut;
            }
            cells = self.0.filled.wait_timeout(cells, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Slot<T> {
    /// One slot with its reader's side, for a worker that serves one camera.
    pub fn single() -> (Slot<T>, Slots<T>) {
        let slots = Slots::new(1);
        (Slot { shared: slots.0.clone(), index: 0 }, slots)
    }

    /// Puts `item` in, replacing what is there; never waits. True when something was replaced. A closed slot drops the item.
    pub fn put(&self, item: T) -> bool {
        let mut cells = self.shared.lock();
        let cell = &mut cells.cells[self.index];
        if cell.is_closed {
            return false;
        }
        cell.counts.put += 1;
        let replaced = cell.item.replace(item);
        cell.counts.replaced += u64::from(replaced.is_some());
        self.shared.filled.notify_all();
        drop(cells);
        // The old item goes here, outside the lock: unmapping a frame may take a while.
        replaced.is_some()
    }

    /// Waits until the slot is empty and puts `item` in: nothing is lost. Gives up, and returns false, when the slot is closed or
    /// `is_cancelled` says so, which is asked every 20 ms.
    pub fn put_when_free(&self, item: T, is_cancelled: &dyn Fn() -> bool) -> bool {
        let mut cells = self.shared.lock();
        loop {
            let cell = &mut cells.cells[self.index];
            if cell.is_closed || is_cancelled() {
                return false;
            }
            if cell.item.is_none() {
                cell.counts.put += 1;
                cell.item = Some(item);
                self.shared.filled.notify_all();
                return true;
            }
            cells = self.shared.freed.wait_timeout(cells, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that nothing more comes. What is in the slot can still be taken.
    pub fn close(&self) {
        self.shared.lock().cells[self.index].is_closed = true;
        self.shared.filled.notify_all();
        self.shared.freed.notify_all();
    }

    /// Opens the slot again for a camera that is started anew.
    pub fn reopen(&self) {
        self.shared.lock().cells[self.index].is_closed = false;
    }

    /// What has gone through so far.
    pub fn counts(&self) -> SlotCounts {
        self.shared.lock().cells[self.index].counts
    }

    /// Its place among its reader's slots.
    pub fn index(&self) -> usize {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn an_empty_slot_times_out_and_a_closed_one_says_so_after_its_last_item() {
        let (slot, reader) = Slot::single();
        assert_eq!(reader.take_any(Duration::ZERO), Taken::TimedOut);
        slot.put(1);
        slot.close();
        assert!(!slot.put(2));
        assert!(!slot.put_when_free(3, &|| false));
        assert_eq!(reader.take_any(SOON), Taken::Item(0, 1));
        assert_eq!(reader.take_any(SOON), Taken::Closed);
        slot.reopen();
        slot.put(4);
        assert_eq!(reader.take_any(SOON), Taken::Item(0, 4));
    }

    #[test]
    fn the_newest_wins_and_the_replaced_are_counted() {
        let (slot, reader) = Slot::single();
        let replaced = (1..=3).filter(|&n| slot.put(n)).count();
        assert_eq!(replaced, 2);
        assert_eq!(reader.take_any(SOON), Taken::Item(0, 3));
        assert_eq!(slot.counts(), SlotCounts { put: 3, taken: 1, replaced: 2 });
    }

    #[test]
    fn a_busy_slot_does_not_starve_the_others() {
        let slots = Slots::new(3);
        let writers = slots.writers();
        let mut order = Vec::new();
        for round in 0..6 {
            writers[0].put(round);
            if round == 0 {
                writers[1].put(round);
                writers[2].put(round);
            }
            if let Taken::Item(index, _) = slots.take_any(SOON) {
                order.push(index);
            }
        }
        assert_eq!(order, [0, 1, 2, 0, 0, 0]);
    }

    #[test]
    fn a_waiting_writer_loses_nothing_and_keeps_the_order() {
        let (slot, reader) = Slot::single();
        let writer = std::thread::spawn(move || {
            let all = (0..500).all(|n| slot.put_when_free(n, &|| false));
            slot.close();
            (all, slot)
        });
        let mut seen = Vec::new();
        while let Taken::Item(_, n) = reader.take_any(SOON) {
            seen.push(n);
        }
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        let (all, slot) = writer.join().unwrap();
        // Counted once the reader is through: the writer is done while the last item still lies in the slot.
        assert_eq!((all, slot.counts()), (true, SlotCounts { put: 500, taken: 500, replaced: 0 }));
    }

    #[test]
    fn a_waiting_writer_hears_that_it_is_cancelled() {
        let (slot, _reader) = Slot::single();
        slot.put(1);
        assert!(!slot.put_when_free(2, &|| true));
    }
}
