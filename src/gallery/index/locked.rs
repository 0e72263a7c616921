//! Memory of templates: kept from the swap where the system allows that, and out of core dumps. That the process as a whole leaves no
//! core dump is `system::process`'s part.
#![expect(unsafe_code, reason = "mlock and madvise take addresses, and pages are lanes one after another")]

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, madvise, mlock, munlock};
use zeroize::{DefaultIsZeroes, Zeroize};

use super::template::{LANE, Lane};
use crate::system::process;

/// The smallest page there is. Where pages are larger, whole ones alone are locked: an allocation's first and last may be shared.
const PAGE_BYTES: usize = 4096;
const LANES: usize = PAGE_BYTES / LANE;

/// What is left of the limit for keys, which come and go with each file that is written: a page each.
const FOR_KEYS: u64 = 1 << 20;

/// Set once locking was refused: it is told once.
static REFUSED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([Lane; LANES]);

impl Default for Page {
    fn default() -> Self {
        Self([Lane::default(); LANES])
    }
}

impl DefaultIsZeroes for Page {}

/// Lanes in pages that they share with nothing else, so that a gallery of a few people is locked as well as one of many. Cleared when
/// they go. No `Debug`: they are biometric data.
#[derive(Default)]
pub(super) struct Lanes {
    /// Never beyond what was reserved, so that they lie where they were locked.
    pages: Vec<Page>,
    lanes: usize,
}

impl Lanes {
    pub(super) fn with_capacity(lanes: usize) -> Self {
        let pages = Vec::with_capacity(lanes.div_ceil(LANES));
        lock(&pages);
        Self { pages, lanes: 0 }
    }

    pub(super) fn push(&mut self, lane: Lane) {
        let (page, at) = (self.lanes / LANES, self.lanes % LANES);
        if page == self.pages.len() {
            if page == self.pages.capacity() {
                self.move_to(2 * self.lanes + 1);
            }
            self.pages.push(Page::default());
        }
        self.pages[page].0[at] = lane;
        self.lanes += 1;
    }

    pub(super) fn extend_from_slice(&mut self, lanes: &[Lane]) {
        lanes.iter().for_each(|lane| self.push(*lane));
    }

    /// Into other memory: what is left behind is cleared.
    fn move_to(&mut self, capacity: usize) {
        let mut larger = Self::with_capacity(capacity);
        larger.pages.extend_from_slice(&self.pages);
        larger.lanes = self.lanes;
        *self = larger;
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.pages.capacity() * PAGE_BYTES
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        const { assert!(size_of::<Page>() == LANES * size_of::<Lane>()) };
        // SAFETY: a page is its lanes one after another and nothing else, and there are at least `self.lanes` of them.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.lanes) }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.pages.zeroize();
        unlock(&self.pages);
    }
}

/// The whole pages of an allocation, as far as it is reserved.
fn pages<T>(of: &Vec<T>) -> Option<(*mut std::ffi::c_void, usize)> {
    let page = rustix::param::page_size().max(PAGE_BYTES);
    let (from, to) = (of.as_ptr() as usize, of.as_ptr() as usize + of.capacity() * size_of::<T>());
    let (first, last) = (from.next_multiple_of(page), to / page * page);
    (first < last).then(|| (first as *mut std::ffi::c_void, last - first))
}

/// Keeps whole pages of a vector in memory and out of core dumps, until [`unlock`]. It must not grow meanwhile.
pub(super) fn lock<T>(of: &Vec<T>) {
    let Some((at, bytes)) = pages(of) else { return };
    // SAFETY: the range is whole pages of one live allocation, shared with nothing else; the call does not change its content.
    let _ = unsafe { madvise(at, bytes, Advice::LinuxDontDump) };
    let refused = match process::lockable_bytes(FOR_KEYS) {
        Some(room) if room < bytes as u64 => Some("LimitMEMLOCK= is reached".to_owned()),
        // SAFETY: as above. An old kernel may refuse: then templates are as safe as any memory.
        _ => unsafe { mlock(at, bytes) }.err().map(|error| error.to_string()),
    };
    if let Some(why) = refused
        && !REFUSED.swap(true, Ordering::Relaxed)
    {
        log::info!(
            "some templates may be swapped out, the system locks no more memory ({why}): raise LimitMEMLOCK= or have no swap"
        );
    }
}

/// Gives the pages of a vector back to the allocator as they came.
pub(super) fn unlock<T>(of: &Vec<T>) {
    let Some((at, bytes)) = pages(of) else { return };
    // SAFETY: as above, and the memory has not moved since.
    unsafe {
        let _ = madvise(at, bytes, Advice::LinuxDoDump);
        let _ = munlock(at, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_a_single_lane_lies_in_pages_that_are_locked_and_in_no_core_dump_until_it_goes() {
        let mut lanes = Lanes::with_capacity(1);
        lanes.push(Lane([7; LANE]));
        let at = lanes.as_ptr() as usize;
        let flags = flags_at(at);
        assert!(flags.contains(&"dd".to_owned()), "{flags:?}");
        if process::lockable_bytes(FOR_KEYS).is_none_or(|room| room > 1 << 20) {
            assert!(flags.contains(&"lo".to_owned()), "{flags:?}");
        } else {
            println!("SKIPPED: the system locks no more memory for this user");
        }
        // Whatever the allocator does with the page: it is not locked any more.
        let pages = std::mem::take(&mut lanes.pages);
        unlock(&pages);
        let flags = flags_at(at);
        assert!(!flags.contains(&"dd".to_owned()) && !flags.contains(&"lo".to_owned()), "{flags:?}");
        assert!(super::pages(&Vec::<Page>::new()).is_none());
    }

    #[test]
    fn lanes_are_what_was_pushed_however_many_were_expected() {
        let lane = |n: usize| Lane([n as u8; LANE]);
        let mut lanes = Lanes::with_capacity(3);
        (0..500).for_each(|n| lanes.push(lane(n)));
        lanes.extend_from_slice(&[lane(500), lane(501)]);
        assert!(lanes.len() == 502 && lanes.iter().enumerate().all(|(n, held)| held.0 == lane(n).0));
        assert!(lanes.bytes() >= 502 * LANE);
    }

    fn flags_at(at: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let flags = smaps.lines().find_map(|line| {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                within = (from..to).contains(&at);
            }
            line.strip_prefix("VmFlags:").filter(|_| within)
        });
        flags.expect("the kernel tells each range's flags").split_whitespace().map(str::to_owned).collect()
    }
}
