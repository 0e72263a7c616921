//! What every worker needs of the machine: clocks, the stop signal, back-off. It knows nothing of faces.

pub mod backoff;
pub mod clock;
pub mod secret;
pub mod stop;

pub use backoff::Backoff;
pub use stop::{Stop, StopHandle};
