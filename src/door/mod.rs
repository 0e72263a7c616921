//! What acts on a grant: the reference door controller, `faceid door`.
//!
//! [`admission`] turns a message into a [`Permit`] or refuses it: not retained, signed by a pinned key or one that a pinned key
//! endorses, for this door, in its time, from this device, and never seen before, which is on disk before the permit exists. What had
//! ended stays so when the clock is set back, and a memory that was lost opens nothing for a lifetime ([`crate::system::seen`]).
//! [`machine`] is pure: permits, inputs and time go in; unlock, lock, states and alarms come out. [`hardware`] performs: print, an
//! external command, or a GPIO line. [`controller`] is the loop between them and the broker, [`diary`] keeps what must not be lost while
//! there is none.
//!
//! Where an access panel has the last word, the controller is its OSDP reader: [`panel`] says what a person's card is and what the panel
//! can say, `osdp` moves bytes, `presenting` holds permits until the panel has granted them.
//!
//! Fail-secure: the lock is locked at the start, at the end, after the time of a permit whatever else happens, and when a driver
//! fails. The times of the lock are monotonic, so no clock that jumps holds a door open. Wire the relay so that without current the
//! door is locked: then the end of the process, of the kernel or of the power is a locked door too.

pub mod admission;
mod client_id;
pub mod controller;
pub mod diary;
mod endorsed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs, clippy::expect_used, reason = "targets for fuzzers")]
pub mod fuzzing;
mod gpio;
pub mod hardware;
pub mod machine;
#[cfg(feature = "osdp")]
pub mod osdp;
pub mod panel;
mod presenting;
pub mod settings;

pub use admission::{Admission, ClockTerms, Permit, Refusal};
pub use controller::{DOOR_KEY, run};
pub use hardware::{DoorError, Hardware, lock_once};
pub use machine::{Action, AlarmWord, DoorState, Input, Machine};
pub use panel::{OsdpSettings, Panel};
pub use settings::{LockKind, Settings};
