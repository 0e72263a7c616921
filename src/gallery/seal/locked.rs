//! Memory for keys: a page of their own, which is never swapped out where the system allows that, never part of a core dump, and cleared
//! when it goes.
#![expect(unsafe_code, reason = "mlock and madvise take addresses")]

use rustix::mm::{Advice, madvise, mlock, munlock};
use zeroize::Zeroize;

use super::KEY_BYTES;

/// The largest page that matters here; a larger one holds this one whole.
const PAGE_BYTES: usize = 4096;

#[repr(align(4096))]
struct Page([u8; PAGE_BYTES]);

/// One key. No `Debug`.
pub(crate) struct Locked(Box<Page>);

impl Locked {
    /// Zeros, to be filled in place.
    pub(crate) fn new() -> Self {
        let page = Box::new(Page([0; PAGE_BYTES]));
        let at = std::ptr::from_ref(page.as_ref()).cast_mut().cast();
        // SAFETY: the range is exactly this page, which is alive, aligned and shared with nothing else; neither call changes its
        // content. A limit on locked memory (RLIMIT_MEMLOCK) or an old kernel may refuse: then the key is as safe as any memory.
        unsafe {
            let _ = mlock(at, PAGE_BYTES);
            let _ = madvise(at, PAGE_BYTES, Advice::LinuxDontDump);
        }
        Self(page)
    }

    /// A copy in a page of its own.
    pub(crate) fn copied(&self) -> Self {
        let mut copy = Self::new();
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.0.first_chunk().expect("a page is longer than a key")
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY_BYTES] {
        self.0.0.first_chunk_mut().expect("a page is longer than a key")
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        let at = std::ptr::from_mut(self.0.as_mut()).cast();
        // SAFETY: as above. The allocator gets its page back as it gave it; DODUMP undoes what was advised.
        unsafe {
            let _ = madvise(at, PAGE_BYTES, Advice::LinuxDoDump);
            let _ = munlock(at, PAGE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::testing::{emulator_lacks, page_flags};

    #[test]
    fn a_key_lies_in_a_page_that_no_core_dump_holds() {
        let mut key = Locked::new();
        key.bytes_mut().fill(7);
        assert!(key.copied().bytes() == &[7; KEY_BYTES]);
        let at = std::ptr::from_ref(key.bytes()) as usize;
        let flags = page_flags(at);
        assert!(emulator_lacks("pages that no core dump holds") || flags.contains(&"dd".to_owned()), "{flags:?}");
    }
}
