//! Memory of templates: kept from the swap where the system allows that, and out of core dumps. That the process as a whole leaves no
//! core dump is `system::process`'s part.
#![expect(unsafe_code, reason = "mlock and madvise take addresses, and pages are bytes one after another")]

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, madvise, mlock, munlock};
use zeroize::{DefaultIsZeroes, Zeroize};

use crate::system::process;

/// The smallest page there is. Where pages are larger, whole ones alone are locked: an allocation's first and last may be shared.
const PAGE_BYTES: usize = 4096;

/// What is left of the limit for keys, which come and go with each file that is written: a page each.
const FOR_KEYS: u64 = 1 << 20;

/// Set once locking was refused: it is told once.
static REFUSED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

impl Default for Page {
    fn default() -> Self {
        Self([0; PAGE_BYTES])
    }
}

impl DefaultIsZeroes for Page {}

/// Bytes in pages that they share with nothing else, so that a gallery of a few people is locked as well as one of many. Cleared when
/// they go. No `Debug`: they are biometric data.
#[derive(Default)]
pub(super) struct Bytes {
    /// Never beyond what was reserved, so that they lie where they were locked.
    pages: Vec<Page>,
    len: usize,
}

impl Bytes {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let pages = Vec::with_capacity(bytes.div_ceil(PAGE_BYTES));
        lock(&pages);
        Self { pages, len: 0 }
    }

    /// Appends zeros.
    pub(super) fn extend_by(&mut self, bytes: usize) {
        let pages = (self.len + bytes).div_ceil(PAGE_BYTES);
        if pages > self.pages.capacity() {
            self.move_to((self.len + bytes).max(2 * self.len));
        }
        // What lies behind the end is zero: nothing was ever taken off.
        self.pages.resize(pages.max(self.pages.len()), Page::default());
        self.len += bytes;
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let at = self.len;
        self.extend_by(bytes.len());
        self[at..].copy_from_slice(bytes);
    }

    /// Into other memory: what is left behind is cleared.
    fn move_to(&mut self, capacity: usize) {
        let mut larger = Self::with_capacity(capacity);
        larger.pages.extend_from_slice(&self.pages);
        larger.len = self.len;
        *self = larger;
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.pages.capacity() * PAGE_BYTES
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: pages are bytes one after another and nothing else, and there are at least `self.len` of them.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else holds them.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Bytes {
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
    // Miri, which runs the loops for processors that are not at hand (`tests/miri/run.sh`), has no memory to lock.
    (first < last && !cfg!(miri)).then(|| (first as *mut std::ffi::c_void, last - first))
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
    use crate::system::testing::{emulator_lacks, page_flags};

    #[test]
    fn even_a_single_byte_lies_in_a_page_that_is_locked_and_in_no_core_dump_until_it_goes() {
        let mut bytes = Bytes::with_capacity(1);
        bytes.extend_from_slice(&[7]);
        let at = bytes.as_ptr() as usize;
        let flags = page_flags(at);
        assert!(emulator_lacks("pages that no core dump holds") || flags.contains(&"dd".to_owned()), "{flags:?}");
        if process::lockable_bytes(FOR_KEYS).is_none_or(|room| room > 1 << 20) {
            assert!(flags.contains(&"lo".to_owned()), "{flags:?}");
        } else {
            println!("SKIPPED: the system locks no more memory for this user");
        }
        // Whatever the allocator does with the page: it is not locked any more.
        let pages = std::mem::take(&mut bytes.pages);
        unlock(&pages);
        let flags = page_flags(at);
        assert!(!flags.contains(&"dd".to_owned()) && !flags.contains(&"lo".to_owned()), "{flags:?}");
        assert!(super::pages(&Vec::<Page>::new()).is_none());
    }

    #[test]
    fn bytes_are_what_was_appended_however_many_were_expected() {
        let mut bytes = Bytes::with_capacity(3);
        let part = |n: usize| [n as u8; 37];
        (0..500).for_each(|n| bytes.extend_from_slice(&part(n)));
        bytes.extend_by(5_000);
        bytes[500 * 37 + 4_999] = 9;
        bytes.extend_from_slice(&[8]);
        assert!(bytes.len() == 500 * 37 + 5_001 && bytes.bytes() >= bytes.len());
        assert!(bytes[..500 * 37].chunks(37).enumerate().all(|(n, held)| held == part(n)));
        assert!(bytes[500 * 37..500 * 37 + 4_999].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[500 * 37 + 4_999..], [9, 8]);
    }
}
