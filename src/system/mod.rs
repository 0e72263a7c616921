//! What every worker needs of the machine: clocks, the stop signal, back-off, secrets, files in which no link is followed,
//! whose rights root takes, ids that may be used once, the log, counters,
//! and systemd's notifications. It knows nothing of faces.

pub mod acl;
pub mod backoff;
pub mod clock;
pub mod environment;
pub mod files;
pub mod highwater;
pub mod logging;
pub mod messages;
pub mod metrics;
pub mod notify;
pub mod owner;
pub mod process;
pub mod quota;
pub mod secret;
pub mod seen;
pub mod stop;
#[cfg(test)]
pub(crate) mod testing;
pub mod timekeeping;
#[cfg(test)]
pub mod walk;

pub use backoff::Backoff;
pub use quota::Quota;
pub use stop::{Stop, StopHandle};
pub use timekeeping::{ClockQuality, clock_quality};
