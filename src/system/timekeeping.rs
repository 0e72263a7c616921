//! Whether the wall clock can be relied on: the kernel's own word. Whatever sets the clock (chrony, ntpd, systemd-timesyncd, PTP) tells the
//! kernel so, and the kernel takes it back by itself once the error may have grown beyond 16 s (at 500 ppm after nine hours without a
//! source). That a time service runs proves nothing: it may never have reached its servers.
#![expect(unsafe_code, reason = "adjtimex fills a C structure, and no safe form of it is among our dependencies")]

use std::path::Path;

/// The file by which systemd-timesyncd tells that it has synchronised, for a sandbox that does not let the kernel be asked.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// How good the wall clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockQuality {
    /// Whether it follows a time source.
    pub is_synced: bool,
    /// The largest error that the source admits, in milliseconds, where it is known.
    pub error_ms: Option<u32>,
}

/// The kernel's word.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    is_synced: bool,
    max_error_us: i64,
}

/// How good the wall clock is now. What cannot be found out is not relied on.
pub fn clock_quality() -> ClockQuality {
    judge(ask_kernel(), || Path::new(TIMESYNCD).exists())
}

fn judge(kernel: Option<Kernel>, timesyncd: impl FnOnce() -> bool) -> ClockQuality {
    match kernel {
        Some(Kernel { is_synced: true, max_error_us }) => {
            let error_ms = u32::try_from(max_error_us.saturating_add(999) / 1000).ok();
            ClockQuality { is_synced: true, error_ms }
        }
        Some(_) => ClockQuality { is_synced: false, error_ms: None },
        None => ClockQuality { is_synced: timesyncd(), error_ms: None },
    }
}

/// Nothing when the sandbox does not let it be asked.
fn ask_kernel() -> Option<Kernel> {
    // SAFETY: the structure is made of integers alone, and all zeros is a request that changes nothing (`modes` 0).
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole structure of the caller's, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then(|| Kernel {
        is_synced: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        max_error_us: i64::from(timex.maxerror),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_goes_before_a_services_file_and_what_is_unknown_is_not_relied_on() {
        let kernel = |is_synced, max_error_us| Some(Kernel { is_synced, max_error_us });
        let bad = ClockQuality { is_synced: false, error_ms: None };
        assert_eq!(judge(kernel(false, 16_000_000), || true), bad, "a source that was lost, or was never reached");
        assert_eq!(judge(None, || false), bad);
        assert_eq!(judge(None, || true), ClockQuality { is_synced: true, error_ms: None });
        assert_eq!(judge(kernel(true, 12_001), || false), ClockQuality { is_synced: true, error_ms: Some(13) });
        assert_eq!(judge(kernel(true, -1), || false).error_ms, Some(0));
        assert_eq!(judge(kernel(true, i64::MAX), || false).error_ms, None);
    }

    #[test]
    fn asking_changes_nothing_and_agrees_with_itself() {
        assert_eq!(clock_quality().is_synced, clock_quality().is_synced);
        assert!(!clock_quality().is_synced || ask_kernel().is_none_or(|kernel| kernel.max_error_us < 16_000_000));
    }
}
