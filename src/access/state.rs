//! What the decider remembers beyond one run of the process: failures and blocks, who is where, lock-down. It is a value; whoever owns the
//! decider keeps it. Times are kept as durations: the monotonic clock begins anew, and the wall clock may be wrong.

use serde::{Deserialize, Serialize};

use super::passback::PlacedPerson;
use super::throttle::ThrottledDoor;
use crate::types::{DoorId, Monotonic};

/// Milliseconds of the decider's own clock. Signed, because a restored moment may lie before the clock's beginning.
pub(super) type Ms = i64;

/// The version of [`State`]. The first one knew no readers' failures, and is taken up without.
const VERSION: u32 = 2;
const OLDEST: u32 = 1;

pub(super) fn ms(at: Monotonic) -> Ms {
    Ms::try_from(at.0 / 1_000_000).unwrap_or(Ms::MAX)
}

/// Doors that are locked down by a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lockdown {
    /// All doors, those that a later config adds too.
    pub(super) everywhere: bool,
    /// These.
    pub(super) doors: Vec<DoorId>,
    /// All doors, because a memory was lost and nobody has ordered it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) for_loss: bool,
}

impl Lockdown {
    pub(super) fn holds(&self, door: &DoorId) -> bool {
        self.everywhere || self.for_loss || self.doors.contains(door)
    }

    pub(super) fn begin(&mut self, door: Option<DoorId>) {
        match door {
            None => self.everywhere = true,
            Some(door) if !self.doors.contains(&door) => self.doors.push(door),
            Some(_) => {}
        }
    }

    /// One door of many is released by naming the others.
    pub(super) fn end(&mut self, door: Option<&DoorId>, all: &[DoorId]) {
        match door {
            None => *self = Self::default(),
            Some(door) => {
                if std::mem::take(&mut self.everywhere) | std::mem::take(&mut self.for_loss) {
                    self.doors = all.to_vec();
                }
                self.doors.retain(|locked| locked != door);
            }
        }
    }
}

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    pub(super) lockdown: Lockdown,
    /// What faces failed.
    pub(super) throttle: Vec<ThrottledDoor>,
    /// What numbers failed.
    #[serde(default)]
    pub(super) readers: Vec<ThrottledDoor>,
    pub(super) passback: Vec<PlacedPerson>,
}

impl State {
    pub(super) fn new(
        lockdown: Lockdown,
        (throttle, readers): (Vec<ThrottledDoor>, Vec<ThrottledDoor>),
        passback: Vec<PlacedPerson>,
    ) -> Self {
        Self { version: VERSION, lockdown, throttle, readers, passback }
    }

    /// The state to begin with where the kept one was lost: every door is locked down, because lock-down may have been in force. A
    /// release lifts it.
    pub fn lost() -> Self {
        Self::new(Lockdown { for_loss: true, ..Lockdown::default() }, Default::default(), Vec::new())
    }

    /// The same state without the lock-down of a loss, which an operator accepts; what was ordered stays. Whether there was one.
    pub fn accept_loss(&mut self) -> bool {
        std::mem::take(&mut self.lockdown.for_loss)
    }

    /// Whether this program can take it up.
    pub fn is_known(&self) -> bool {
        (OLDEST..=VERSION).contains(&self.version)
    }
}
