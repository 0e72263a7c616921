//! What tests of several rooms ask of the machine.

/// Whether these tests run under an emulator that does not do what is named, said loudly: whoever runs them so sets `FACEID_EMULATED`
/// (`cross/inside.sh`).
pub(crate) fn emulator_lacks(what: &str) -> bool {
    let is_emulated = std::env::var_os("FACEID_EMULATED").is_some();
    if is_emulated {
        println!("SKIPPED: the emulator does not do {what}");
    }
    is_emulated
}

/// The kernel's flags of the page that an address lies in, as in `/proc/PID/smaps`.
pub(crate) fn page_flags(at: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("this system tells a process of its memory");
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
