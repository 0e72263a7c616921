//! A panic anywhere ends the process.
//!
//! The release profile does not set `panic = "abort"`: tests need unwinding, and one profile lets the binary and the tests share one
//! build of the dependencies. The hook gives the same promise with an exit code: no thread dies while the others go on as if it lived.

use std::io::Write;

/// The exit code of a bug (EX_SOFTWARE of sysexits.h).
pub const EXIT_BUG: i32 = 70;

/// From now on a panic logs its place, or says it on standard error where nothing logs, and leaves with [`EXIT_BUG`]. The message is left
/// out: it may hold what was being worked on, and that may be somebody's face.
///
/// It leaves by `_exit`, not by `std::process::exit`: the exit handlers of C libraries would run while other threads use these
/// libraries. systemd starts the daemon again; the stores are made to be cut off at any moment.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        if log::log_enabled!(log::Level::Error) {
            log::error!(place:% = place, thread = thread; "bug: the program panicked and ends");
            log::logger().flush();
        } else {
            // Most verbs open no log.
            let said = format!("faceid: bug: the program panicked and ends: place={place} thread={thread}\n");
            let _ = std::io::stderr().write_all(said.as_bytes());
        }
        signal_hook::low_level::exit(EXIT_BUG);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that must end its process runs itself again as a child; this names the child.
    const CHILD: &str = "FACEID_TEST_PANIC_CHILD";

    fn panicking(log: &str) -> (Option<i32>, String) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "daemon::panic::tests::a_panic_ends_the_process_says_where_and_keeps_its_message_to_itself",
                "--nocapture",
            ])
            .env(CHILD, log)
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn a_panic_ends_the_process_says_where_and_keeps_its_message_to_itself() {
        if let Some(log) = std::env::var_os(CHILD) {
            if log == "log" {
                crate::system::logging::init(&Default::default()).unwrap();
            }
            install_panic_hook();
            let _ = std::thread::Builder::new().name("vision".into()).spawn(|| panic!("embedding 0.125")).unwrap().join();
            return;
        }
        // The daemon's, and a verb's that opens no log.
        for log in ["log", "none"] {
            let (code, stderr) = panicking(log);
            assert_eq!(code, Some(EXIT_BUG), "{log}: {stderr}");
            assert!(stderr.contains("src/daemon/panic.rs") && stderr.contains("thread=vision"), "{log}: {stderr}");
            assert!(!stderr.contains("0.125"), "{log}: {stderr}");
        }
    }
}
