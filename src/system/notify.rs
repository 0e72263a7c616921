//! What the service manager is told: systemd's notification protocol (sd_notify(3)). Without `NOTIFY_SOCKET` every call does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use super::{clock, logging};

/// Speaks to the service manager. A message that cannot be sent is logged at debug level and never stops the daemon: the manager then
/// acts by its own time-outs.
#[derive(Debug)]
pub struct Notifier {
    /// Bound to no name and sending to the manager's; `None` when no manager listens. `sd_notify::notify` is not used because it can
    /// only read the environment, which a test of this edition cannot set safely.
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    pub fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::silent() };
        Self::to(&name, sd_notify::watchdog_enabled()).unwrap_or_else(|error| {
            log::warn!(error:% = error; "the service manager's NOTIFY_SOCKET cannot be used, it will be told nothing");
            Self::silent()
        })
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self { manager: None, watchdog: None }
    }

    /// To the socket of that name (`@` in front means the abstract namespace), with the watchdog's whole time-out if one is set.
    pub fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(rest) => SocketAddr::from_abstract_name(rest)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold the supervisor.
        socket.set_nonblocking(true)?;
        Ok(Self { manager: Some((socket, address)), watchdog })
    }

    /// How often [`Notifier::watchdog`] is due: half of the time-out, as sd_watchdog_enabled(3) advises. `None`: no watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// The start is over; with a line for `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&printable(status))]);
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&printable(status))]);
    }

    /// Still healthy. Only to be called while every vital heartbeat is fresh.
    pub fn watchdog(&self) {
        if self.watchdog.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    /// A reload begins; [`Notifier::ready`] ends it. Carries the time that systemd 253 and later insist on.
    pub fn reloading(&self) {
        let now_us = i128::from(clock::monotonic().0 / 1000);
        self.send(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now_us)]);
    }

    /// The start needs this much longer (building accelerator engines takes minutes).
    pub fn extend_start(&self, by: Duration) {
        self.send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// The stop has begun.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&printable(status))]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.manager else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            log::debug!(error:% = error; "the service manager did not take a notification");
        }
    }
}

/// A status must stay one line: a line end in it would start another assignment, `READY=1` for instance.
fn printable(status: &str) -> String {
    logging::escape(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manager {
        socket: UnixDatagram,
        folder: tempfile::TempDir,
    }

    impl Manager {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { socket, folder }
        }

        fn notifier(&self, watchdog: Option<Duration>) -> Notifier {
            Notifier::to(self.folder.path().join("notify").as_os_str(), watchdog).unwrap()
        }

        /// What arrived; a datagram on this machine is there as soon as it was sent.
        fn heard(&self) -> Option<String> {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        }
    }

    #[test]
    fn a_status_cannot_smuggle_in_another_message() {
        let manager = Manager::new();
        manager.notifier(None).status("camera\nREADY=1");
        assert_eq!(manager.heard().unwrap(), "STATUS=camera\\nREADY=1\n");
    }

    #[test]
    fn without_a_watchdog_no_sign_of_life_is_sent() {
        let manager = Manager::new();
        let notifier = manager.notifier(None);
        notifier.watchdog();
        assert_eq!(manager.heard(), None);
        assert_eq!(notifier.watchdog_interval(), None);
    }

    #[test]
    fn a_manager_that_is_gone_stops_nobody() {
        let manager = Manager::new();
        let notifier = manager.notifier(None);
        drop(manager);
        notifier.ready("nobody listens");
        Notifier::silent().ready("nobody listens");
    }

    #[test]
    fn the_whole_life_is_told_in_systemds_words() {
        let manager = Manager::new();
        let notifier = manager.notifier(Some(Duration::from_secs(30)));
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(15)));
        notifier.extend_start(Duration::from_secs(60));
        assert_eq!(manager.heard().unwrap(), "EXTEND_TIMEOUT_USEC=60000000\n");
        notifier.ready("2 cameras");
        assert_eq!(manager.heard().unwrap(), "READY=1\nSTATUS=2 cameras\n");
        notifier.watchdog();
        assert_eq!(manager.heard().unwrap(), "WATCHDOG=1\n");
        let before = clock::monotonic().0 / 1000;
        notifier.reloading();
        let heard = manager.heard().unwrap();
        let at: u64 = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end().parse().unwrap();
        assert!((before..=clock::monotonic().0 / 1000).contains(&at), "{at}");
        notifier.stopping("bye");
        assert_eq!(manager.heard().unwrap(), "STOPPING=1\nSTATUS=bye\n");
    }
}
