//! TERM and INT ask to stop, HUP asks to reload, and a second TERM or INT leaves at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::system::StopHandle;

/// Hears signals until it is dropped.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Starts to hear signals. `on_reload` runs on the thread that hears them, so it should only hand the word on.
///
/// The second TERM or INT ends the process in the signal handler itself, with 128 + its number as a shell would say, so it works even
/// when every thread is stuck.
pub fn watch(stop: StopHandle, mut on_reload: impl FnMut() + Send + 'static) -> io::Result<SignalWatch> {
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal passes the first action, which is not armed yet, and arms it with the second.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, second.clone())?;
        signal_hook::flag::register(signal, second.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
            if signal == SIGHUP {
                log::info!(signal = name; "asked to reload");
                on_reload();
            } else {
                log::info!(signal = name; "asked to stop; a second time leaves at once");
                stop.stop();
            }
        }
    })?;
    Ok(SignalWatch { handle, thread: Some(thread) })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::system::stop;

    const CHILD: &str = "FACEID_TEST_SIGNAL_CHILD";
    const LONG: Duration = Duration::from_secs(60);

    /// Runs this very test again as a child, where `signals` are raised one after the other, and gives its exit code.
    fn child(test: &str, signals: &str) -> Option<i32> {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD, signals)
            .output()
            .unwrap()
            .status
            .code()
    }

    #[test]
    fn a_second_signal_leaves_at_once_with_its_number() {
        if let Ok(signals) = std::env::var(CHILD) {
            let (handle, stop) = stop::pair();
            let _watch = watch(handle, || {}).unwrap();
            for signal in signals.split(',') {
                signal_hook::low_level::raise(signal.parse().unwrap()).unwrap();
            }
            // The first one was heard as a wish to stop; this would be the orderly way out.
            assert!(stop.sleep(LONG));
            return;
        }
        let test = "daemon::signals::tests::a_second_signal_leaves_at_once_with_its_number";
        assert_eq!(child(test, "15,15"), Some(143));
        assert_eq!(child(test, "15,2"), Some(130));
        assert_eq!(child(test, "15"), Some(0));
    }

    #[test]
    fn hup_reloads_and_does_not_stop() {
        let (handle, stop) = stop::pair();
        let (heard, reloads) = mpsc::channel();
        let watch = watch(handle, move || heard.send(()).unwrap()).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        reloads.recv_timeout(LONG).unwrap();
        assert!(!stop.is_asked());
        drop(watch);
    }
}
