//! What this process has used, and what must not be seen of it.
#![expect(unsafe_code, reason = "mallopt has no safe form")]

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads so far, user and system.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// The most memory that was resident at once, in bytes; `None` where the kernel does not say.
pub fn peak_resident_bytes() -> Option<u64> {
    status_kib("VmHWM:").map(|kib| kib * 1024)
}

/// The memory that is resident now, in bytes; `None` where the kernel does not say.
pub fn resident_bytes() -> Option<u64> {
    status_kib("VmRSS:").map(|kib| kib * 1024)
}

/// How much more memory may be locked (mlock(2)), in bytes, if `reserve` bytes are left for others; `None` when nothing limits it.
pub fn lockable_bytes(reserve: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Memlock).current?;
    let locked = status_kib("VmLck:").map_or(limit, |kib| kib * 1024);
    Some(limit.saturating_sub(locked).saturating_sub(reserve))
}

fn status_kib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Keeps keys and faces out of core dumps and away from debuggers of the same user. To be called before a key is read.
///
/// `LimitCORE=0` in the unit is not enough: a crash handler that core_pattern pipes into is fed all the same. Not being dumpable also
/// closes `/proc/PID/mem` to other processes of our user (prctl(2), PR_SET_DUMPABLE).
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Blocks of memory from this size on are the system's again as soon as they are free, in bytes.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 4 << 20;

/// Gives large blocks back to the system when they are free. glibc raises the size from which it does so by itself, up to 32 MiB, and then
/// keeps what many threads held one after the other: eight clients of the API with large pictures came to 660 MB, and to 240 MB with
/// this. To be called before threads begin. Other C libraries give back by themselves.
pub fn give_back_large_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it sets a number of the allocator's and touches no memory of ours; its result says only whether the number was taken.
        let is_taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
        if is_taken == 0 {
            log::debug!("the allocator keeps large blocks of memory that are free");
        }
    }
}

/// How long this process has been running, by the kernel's own record of its start (10 ms steps); zero when that cannot be read.
pub fn age() -> Duration {
    let started = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        // The name in parentheses may hold anything; the fields after it are numbers, and the 20th of them is the start.
        stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<u64>().ok()
    });
    let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    started.map_or(Duration::ZERO, |ticks| up.saturating_sub(Duration::from_millis(ticks * 1000 / ticks_a_second)))
}

/// The warmest thermal zone in degrees Celsius, where the kernel knows one.
pub fn warmest_celsius() -> Option<f32> {
    temperatures().into_iter().map(|(_, celsius)| celsius).max_by(f32::total_cmp)
}

/// The thermal zones that the kernel knows, by their folders' names: what each measures, and degrees Celsius.
pub fn temperatures() -> Vec<(String, f32)> {
    let Ok(zones) = std::fs::read_dir("/sys/class/thermal") else { return Vec::new() };
    let mut zones: Vec<_> = zones.flatten().map(|zone| zone.path()).collect();
    zones.sort();
    let word = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let read = |zone: &std::path::PathBuf| {
        let thousandths: f32 = word(&zone.join("temp"))?.parse().ok()?;
        Some((word(&zone.join("type")).unwrap_or_default(), thousandths / 1000.0))
    };
    zones.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_we_used() {
        let peak = peak_resident_bytes().unwrap();
        assert!(peak > 100 * 1024, "{peak}");
        assert!(resident_bytes().is_some());
        assert!(cpu_time() > Duration::ZERO);
        assert_eq!(lockable_bytes(u64::MAX).unwrap_or(0), 0);
    }

    #[test]
    fn a_process_that_forbade_dumps_is_not_dumpable() {
        forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
        assert!(peak_resident_bytes().is_some(), "our own figures stay readable");
    }
}
