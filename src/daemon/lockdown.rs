//! The lock-down latch: while a door is locked down, nothing is granted there. It survives restarts, and a file that cannot be read
//! locks everything down. A policy may say more about lock-down; this is the latch that a command throws.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::types::{Decision, DoorId, Outcome, Reason};

/// Which doors are locked down; a word that no door can have stands for all.
pub(super) struct Lockdown {
    path: PathBuf,
    doors: Mutex<BTreeSet<String>>,
}

const ALL: &str = "*";

impl Lockdown {
    pub(super) fn open(state: &Path) -> Self {
        let path = state.join("lockdown");
        let doors = match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                log::error!("{}: {error}: every door is locked down", path.display());
                BTreeSet::from([ALL.to_owned()])
            }
        };
        if !doors.is_empty() {
            log::warn!("lock-down is in force since before this start");
        }
        Self { path, doors: Mutex::new(doors) }
    }

    /// Locks these doors down or releases them, all for none; durable before it counts as released, in force at once as locked down.
    pub(super) fn set(&self, locked: bool, doors: &[DoorId]) -> io::Result<()> {
        let mut current = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = current.clone();
        match (locked, doors) {
            (true, []) => drop(wanted.insert(ALL.to_owned())),
            (false, []) => wanted.clear(),
            (true, doors) => wanted.extend(doors.iter().map(|door| door.as_str().to_owned())),
            (false, _) if wanted.contains(ALL) => {
                return Err(io::Error::other("every door is locked down: release all, then lock down the ones that shall stay so"));
            }
            (false, doors) => wanted.retain(|name| doors.iter().all(|door| door.as_str() != name)),
        }
        if locked {
            current.clone_from(&wanted);
        }
        self.write(&wanted)?;
        *current = wanted;
        Ok(())
    }

    fn write(&self, doors: &BTreeSet<String>) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        doors.iter().try_for_each(|door| writeln!(file, "{door}"))?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// A grant becomes a denial where the door is locked down.
    pub(super) fn judge(&self, decision: Decision) -> Decision {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let is_locked = doors.contains(ALL) || doors.contains(decision.door.as_str());
        if !is_locked || decision.outcome != Outcome::Granted {
            return decision;
        }
        Decision { outcome: Outcome::Denied, reason: Reason::Lockdown, grant: None, ..decision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CameraId, Evidence, Moment, TrackId};

    fn granted(door: &str) -> Decision {
        Decision {
            outcome: Outcome::Granted,
            reason: Reason::Match,
            door: DoorId::new(door).unwrap(),
            camera: CameraId::new("porch").unwrap(),
            track: TrackId(1),
            person: None,
            evidence: Evidence { frames: 5, quality_band: "high", match_band: "strong", liveness_band: "high" },
            captured_at: Moment::default(),
            decided_at: Moment::default(),
            grant: Some("token".into()),
        }
    }

    fn is_denied(lockdown: &Lockdown, door: &str) -> bool {
        let judged = lockdown.judge(granted(door));
        assert_eq!(judged.grant.is_none(), judged.reason == Reason::Lockdown);
        judged.outcome == Outcome::Denied
    }

    #[test]
    fn a_locked_door_gets_no_grant_before_and_after_a_restart_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let front = [DoorId::new("front").unwrap()];
        let lockdown = Lockdown::open(folder.path());
        assert!(!is_denied(&lockdown, "front"));
        lockdown.set(true, &front).unwrap();
        assert!(is_denied(&lockdown, "front") && !is_denied(&lockdown, "back"));
        lockdown.set(true, &[]).unwrap();
        assert!(lockdown.set(false, &front).is_err() && is_denied(&lockdown, "front"));
        let again = Lockdown::open(folder.path());
        assert!(is_denied(&again, "front") && is_denied(&again, "back"));
        again.set(false, &[]).unwrap();
        assert!(!is_denied(&Lockdown::open(folder.path()), "front"));
    }

    #[test]
    fn a_file_that_cannot_be_read_locks_everything_down() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lockdown"), [0xff]).unwrap();
        assert!(is_denied(&Lockdown::open(folder.path()), "front"));
    }
}
