//! A panic anywhere ends the process.
//!
//! The release profile does not set `panic = "abort"`: tests need unwinding, and one profile lets the binary and the tests share one
//! build of the dependencies. The hook gives the same promise with an exit code: no thread dies while the others go on as if it lived.

/// The exit code of a bug (EX_SOFTWARE of sysexits.h).
pub const EXIT_BUG: i32 = 70;

/// From now on a panic logs its place and leaves with [`EXIT_BUG`]. The message is left out: it may hold what was being worked on, and
/// that may be somebody's face.
///
/// It leaves by `_exit`, not by `std::process::exit`: the exit handlers of C libraries would run while other threads use these
/// libraries. systemd starts the daemon again; the stores are made to be cut off at any moment.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        log::error!(place:% = place, thread = thread.name().unwrap_or("unnamed"); "bug: the program panicked and ends");
        log::logger().flush();
        signal_hook::low_level::exit(EXIT_BUG);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that must end its process runs itself again as a child; this names the child.
    const CHILD: &str = "FACEID_TEST_PANIC_CHILD";

    #[test]
    fn a_panic_in_a_worker_ends_the_process_and_keeps_its_message_to_itself() {
        if std::env::var_os(CHILD).is_some() {
            crate::system::logging::init(&Default::default()).unwrap();
            install_panic_hook();
            let _ = std::thread::Builder::new().name("vision".into()).spawn(|| panic!("embedding 0.125")).unwrap().join();
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "daemon::panic::tests::a_panic_in_a_worker_ends_the_process_and_keeps_its_message_to_itself",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_BUG), "{stderr}");
        assert!(stderr.contains("src/daemon/panic.rs") && stderr.contains("thread=vision"), "{stderr}");
        assert!(!stderr.contains("0.125"), "{stderr}");
    }
}
