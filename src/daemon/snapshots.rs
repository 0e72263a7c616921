//! Pictures of decided faces, for whoever the config names, and only for as long as a signed command has allowed: never after a restart,
//! never on a retained topic, never in the clear, never on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::pipeline;
use crate::publish::{self, Event, Snapshot};
use crate::types::{Decision, Frame, Monotonic, Observation, Wall};

/// For how long a command may allow it, in seconds.
pub(super) const SECONDS: std::ops::RangeInclusive<u64> = 1..=3600;

/// What `cmd/snapshot-on` wants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OnArgs {
    pub(super) seconds: u64,
}

impl Default for OnArgs {
    fn default() -> Self {
        Self { seconds: 300 }
    }
}

/// Whether pictures leave the device now, and to whom.
#[derive(Clone, Default)]
pub(super) struct Snapshots {
    recipient: Option<[u8; 32]>,
    /// Up to when, in nanoseconds of the monotonic clock.
    until: Arc<AtomicU64>,
}

impl Snapshots {
    /// Off. The error says what is wrong with the recipient.
    pub(super) fn new(recipient: Option<&str>) -> Result<Self, String> {
        let key = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let recipient = match recipient {
            None => None,
            Some(text) => Some(key(text).ok_or("is no public key: `faceid keygen --snapshots FILE` prints one")?),
        };
        Ok(Self { recipient, until: Arc::default() })
    }

    pub(super) fn allow(&self, now: Monotonic, seconds: u64) -> Result<(), String> {
        if self.recipient.is_none() {
            return Err("no recipient is pinned: set [publish] snapshot-recipient".to_owned());
        }
        if !SECONDS.contains(&seconds) {
            return Err(format!("its args: seconds: give {} to {}", SECONDS.start(), SECONDS.end()));
        }
        self.until.store(now.plus(Duration::from_secs(seconds)).0, Relaxed);
        Ok(())
    }

    pub(super) fn forbid(&self) {
        self.until.store(0, Relaxed);
    }

    fn are_allowed(&self, now: Monotonic) -> bool {
        self.recipient.is_some() && now.0 < self.until.load(Relaxed)
    }

    /// The face of an observation, while that is allowed.
    pub(super) fn portrait(&self, frame: &Frame, observation: &Observation, now: Monotonic) -> Option<Zeroizing<Vec<u8>>> {
        if self.are_allowed(now) { pipeline::portrait(&frame.picture, &observation.bounding_box) } else { None }
    }

    /// A decided face, sealed.
    pub(super) fn event(&self, decision: &Decision, portrait: &[u8], now: Monotonic, at: Wall) -> Option<Event> {
        let recipient = self.recipient.filter(|_| self.are_allowed(now))?;
        let of = format!("{} {} {}", decision.door, decision.camera.as_ref()?, decision.track.0);
        let sealed = publish::seal_to(recipient, &of, portrait).ok()?;
        let sealed = URL_SAFE_NO_PAD.encode(sealed);
        let (door, camera, track) = (decision.door.clone(), decision.camera.clone()?, decision.track.0);
        Some(Event::Snapshot(Snapshot { door, camera, track, sealed, at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_without_a_recipient_for_ever_or_after_its_time() {
        let now = Monotonic(5);
        let nobody = Snapshots::new(None).unwrap();
        assert!(nobody.allow(now, 300).is_err() && !nobody.are_allowed(now));
        assert!(Snapshots::new(Some("AAAA")).is_err());
        let text = URL_SAFE_NO_PAD.encode(publish::Recipient::new([7; 32]).public());
        let snapshots = Snapshots::new(Some(&text)).unwrap();
        assert!(!snapshots.are_allowed(now), "off at the start");
        for seconds in [0, 3601, u64::MAX] {
            assert!(snapshots.allow(now, seconds).is_err());
        }
        snapshots.allow(now, 2).unwrap();
        let later = |ms| now.plus(Duration::from_millis(ms));
        assert!(snapshots.are_allowed(later(1999)) && !snapshots.are_allowed(later(2000)));
        snapshots.forbid();
        assert!(!snapshots.are_allowed(now));
    }
}
