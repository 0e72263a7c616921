//! Memory of templates: kept from the swap where the system allows that, and out of core dumps. Whole pages alone: the first and the last of an
//! allocation may be shared with others. That the process as a whole leaves no core dump is `system::process`'s part.
#![expect(unsafe_code, reason = "mlock and madvise take addresses")]

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, madvise, mlock, munlock};

use super::template::Lane;
use crate::system::process;

/// The smallest page there is; on larger ones the system rounds for itself, outwards, within this allocation's own pages and its edges.
const PAGE_BYTES: usize = 4096;

/// What is left of the limit for keys, which come and go with each file that is written: a page each.
const FOR_KEYS: u64 = 1 << 20;

/// Set once locking was refused: it is told once.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The whole pages of a plane's memory, as far as it is reserved.
fn pages(plane: &Vec<Lane>) -> Option<(*mut std::ffi::c_void, usize)> {
    let page = rustix::param::page_size().max(PAGE_BYTES);
    let (from, to) = (plane.as_ptr() as usize, plane.as_ptr() as usize + plane.capacity() * size_of::<Lane>());
    let (first, last) = (from.next_multiple_of(page), to / page * page);
    (first < last).then(|| (first as *mut std::ffi::c_void, last - first))
}

/// Keeps a plane's pages in memory and out of core dumps, until [`unlock`].
pub(super) fn lock(plane: &Vec<Lane>) {
    let Some((at, bytes)) = pages(plane) else { return };
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

/// Gives a plane's pages back to the allocator as they came.
pub(super) fn unlock(plane: &Vec<Lane>) {
    let Some((at, bytes)) = pages(plane) else { return };
    // SAFETY: as above, and the plane's memory has not moved since: a plane never grows beyond what it reserved.
    unsafe {
        let _ = madvise(at, bytes, Advice::LinuxDoDump);
        let _ = munlock(at, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_lies_in_pages_that_no_core_dump_holds_until_it_goes() {
        let plane: Vec<Lane> = Vec::with_capacity(64 * PAGE_BYTES / size_of::<Lane>());
        lock(&plane);
        let (at, _) = pages(&plane).unwrap();
        assert!(flags_at(at as usize).split_whitespace().any(|flag| flag == "dd"));
        unlock(&plane);
        assert!(!flags_at(at as usize).split_whitespace().any(|flag| flag == "dd"));
        assert!(pages(&Vec::new()).is_none());
    }

    fn flags_at(at: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let flags = smaps.lines().find_map(|line| {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                within = (from..to).contains(&at);
            }
            line.strip_prefix("VmFlags:").filter(|_| within).map(str::to_owned)
        });
        flags.expect("the kernel tells each range's flags")
    }
}
