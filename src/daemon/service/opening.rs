//! What a start opens on the disk: the state folder for this one daemon, what it remembers there, the gallery that it writes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::keys::read_grant_key;
use super::{DaemonError, GALLERY_PATIENCE};
use crate::access::DoorSettings;
use crate::access::grant::KeySet;
use crate::config::Config;
use crate::gallery::{Gallery, GalleryError, SealingKey};
use crate::publish::command::Gate;
use crate::publish::passage::Passages;
use crate::publish::{Audit, Journal, StateKey};
use crate::system::{Stop, clock, files};
use crate::vision::stack::Stack;

/// What the daemon remembers on disk besides the gallery.
pub(super) struct Record {
    pub(super) journal: Journal,
    pub(super) audit: Arc<Audit>,
    pub(super) gate: Gate,
    pub(super) passages: Passages,
    pub(super) key: StateKey,
}

impl Record {
    pub(super) fn open(config: &Config) -> Result<Self, DaemonError> {
        const MIB: u64 = 1 << 20;
        let key = StateKey::read(&config.secrets_dir)?;
        let settings = &config.publish;
        let age = Duration::from_secs(u64::from(settings.outbox_days) * 24 * 3600);
        let journal = Journal::open(&config.state_dir.join("outbox"), &key, u64::from(settings.outbox_mib) * MIB, age)?;
        let audit = Audit::open(&config.state_dir.join("audit"), &key, settings.audit_bytes())?;
        let audit = audit.signed_by(config.device.clone(), read_grant_key(&config.secrets_dir)?);
        let operators = super::operators(settings)?;
        // Without a trail of an earlier run there is nothing that could have been used.
        let (is_new, now) = (!audit.has_run(), clock::now());
        let gate = Gate::new(config.device.clone(), operators, (&config.state_dir.join("nonces"), is_new), now)?;
        let pinned_at = |door: &DoorSettings| {
            let path = door.controller_keys.as_deref()?;
            Some(pinned(&format!("[[doors]] {} controller-keys", door.id), path).map(|keys| (door.id.clone(), keys)))
        };
        let controllers = config.doors.iter().filter_map(pinned_at).collect::<Result<_, _>>()?;
        let memory = config.state_dir.join("passages");
        let passages = Passages::new(config.device.clone(), controllers, (&memory, is_new), now)?;
        Ok(Self { journal, audit: Arc::new(audit), gate, passages, key })
    }
}

/// The keys that the config pins under `key`: a JWK set.
pub fn pinned(key: &str, path: &Path) -> Result<KeySet, DaemonError> {
    let wrong = |what: String| DaemonError::Pinned(format!("{key}: {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    KeySet::from_jwk_set(&text).map_err(|error| wrong(error.to_string()))
}

/// The daemon is the gallery's writer. Where it may not write it follows what is there; a command line that is at work is waited for.
pub(super) fn open_gallery(config: &Config, key: SealingKey, stack: &Stack, stop: &Stop) -> Result<Gallery, GalleryError> {
    let (model, dimension) = (stack.embedder.model(), stack.embedder.dimension());
    let began = Instant::now();
    loop {
        match Gallery::create_or_open(&config.gallery, &key, model, dimension) {
            Err(GalleryError::Locked { .. }) if began.elapsed() < GALLERY_PATIENCE && !stop.sleep(Duration::from_millis(50)) => {}
            Err(GalleryError::ReadOnly { path, source }) => {
                log::warn!("{} cannot be written ({source}): the gallery is only read", path.display());
                return Gallery::follow(&config.gallery, key, model, dimension);
            }
            other => return other,
        }
    }
}

/// One daemon a state folder: the second is told so.
pub(super) fn lock_state(folder: &Path) -> Result<std::fs::File, DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    let io = |source| DaemonError::Io { what: folder.display().to_string(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let file = files::open_or_make(&folder.join("daemon.lock"), 0o600).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(DaemonError::SecondDaemon(folder.display().to_string())),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}
