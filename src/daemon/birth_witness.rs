//! The broker as a witness of the gallery's age. `birth` says, signed by the device, which gallery this is and how far it has come; the
//! broker keeps it. A start hears what was kept before it says anything itself: a gallery that has come less far than it once said is
//! an older one put back, even when everything on the device was put back together.
//!
//! It is heard once for each start, as soon as the broker can be reached; until then nothing is known and nothing is refused. Who can
//! write to the broker can silence this witness, by taking the retained message away or putting an older one there, and cannot make
//! it lie: what is not signed by a key of this device is not heard.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events;
use super::supervisor::{WorkerContext, WorkerError};
use crate::access::grant::{self, EpochClaim, GrantKey, KeySet};
use crate::gallery::{Age, Gallery};
use crate::publish::{Birth, Event, Notice, Problem, Publisher, Received, Settings, Subscriber};
use crate::system::{Stop, clock};
use crate::types::DeviceId;

/// After the broker has confirmed that it is asked, what it kept comes at once; this long without anything means that there is nothing.
const SILENCE: Duration = Duration::from_secs(1);
/// How often the worker looks up from waiting.
const LOOK: Duration = Duration::from_millis(50);
/// How soon after a change `birth` is said again: a witness should not be far behind, and an import is one word and not a thousand.
const AGAIN: Duration = Duration::from_secs(5);

/// What the worker is made of.
pub(super) struct BirthWitness {
    pub(super) device: DeviceId,
    pub(super) settings: Settings,
    pub(super) secrets: PathBuf,
    pub(super) key: GrantKey,
    /// Every key that this device may have signed with: during a rotation the one before too.
    pub(super) keys: KeySet,
    pub(super) gallery: Arc<Gallery>,
    pub(super) publisher: Publisher,
    /// All but what is the gallery's.
    pub(super) birth: Birth,
    pub(super) heard: bool,
}

impl BirthWitness {
    /// Hears what was kept, then says `birth`, and again after each change, until told to stop.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        let stop = context.stop();
        if !self.heard {
            let topic = format!("{}/birth", self.settings.topic_root(&self.device));
            let kept = hear(&self.settings, &self.secrets, &topic, stop, || context.beat());
            if stop.is_asked() {
                return Ok(());
            }
            // Once: what is kept from now on is our own word.
            self.heard = true;
            match kept {
                Ok(Some(message)) => self.judge(&message),
                Ok(None) => log::info!("the broker keeps no birth of this device: it is no witness of the gallery's age yet"),
                Err(problem) => log::warn!("the broker is no witness of the gallery's age: {problem}"),
            }
        }
        let mut said = None;
        loop {
            context.beat();
            // A file that was written anew is news too: its change has another tag.
            let (epoch, age) = (self.gallery.snapshot().generation(), self.gallery.age());
            if said.as_ref() != Some(&(epoch, age.clone())) {
                self.say(age.clone());
                said = Some((epoch, age));
            }
            if stop.sleep(AGAIN) {
                return Ok(());
            }
        }
    }

    /// Compares what was kept with what is here.
    fn judge(&self, message: &Received) {
        match claim_of(&message.payload, &self.keys) {
            Err(why) => log::info!("the birth that the broker keeps is no witness of the gallery's age: {why}"),
            Ok(claim) if claim.iss != self.device => log::warn!("the birth that the broker keeps is another device's"),
            Ok(EpochClaim { gallery, epoch, file, .. }) => self.gallery.hear(&Age { gallery, epoch, file }),
        }
    }

    fn say(&self, age: Option<Age>) {
        let stats = self.gallery.snapshot().stats();
        let claim = age.map(|Age { gallery, epoch, file }| {
            let iat = clock::wall().unix_seconds();
            self.key.sign_epoch(&EpochClaim { iss: self.device.clone(), iat, gallery, epoch, file })
        });
        let birth = Birth {
            gallery_people: stats.people as u64,
            gallery_templates: stats.templates as u64,
            gallery_epoch: stats.generation,
            gallery_claim: claim,
            clock: events::clock_quality(),
            at: clock::wall(),
            ..self.birth.clone()
        };
        self.publisher.publish(Event::Birth(Box::new(birth)));
    }
}

/// The signed claim in a birth.
fn claim_of(payload: &[u8], keys: &KeySet) -> Result<EpochClaim, String> {
    let birth: serde_json::Value = serde_json::from_slice(payload).map_err(|_| "it is no JSON".to_owned())?;
    let token = birth["gallery"]["claim"].as_str().ok_or("it has no signed claim")?;
    grant::open_epoch(token, keys).map_err(|error| error.to_string())
}

/// What the broker keeps on `topic`, once it can be reached. `None` when it keeps nothing, or when told to stop.
fn hear(
    settings: &Settings,
    secrets: &std::path::Path,
    topic: &str,
    stop: &Stop,
    beat: impl Fn(),
) -> Result<Option<Received>, Problem> {
    let subscriber = Subscriber::start(settings, secrets, topic)?;
    let mut asked_at = None;
    while !stop.is_asked() {
        beat();
        match subscriber.next(LOOK) {
            Some(Notice::Message(message)) if message.topic == topic && message.retained => return Ok(Some(message)),
            Some(Notice::Message(_) | Notice::Taken(_)) => {}
            Some(Notice::Subscribed) => asked_at = Some(clock::monotonic()),
            // What mends itself is waited for.
            Some(Notice::Problem(Problem::Unreachable { .. } | Problem::Timeout { .. } | Problem::Lost { .. })) => asked_at = None,
            Some(Notice::Problem(problem)) => return Err(problem),
            None => {}
        }
        if asked_at.is_some_and(|at| clock::monotonic().since(at) >= SILENCE) {
            return Ok(None);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_that_is_not_signed_by_this_device_is_no_witness() {
        let (ours, other) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let keys = KeySet::new([ours.public()]);
        let device = DeviceId::new("gate").unwrap();
        let claim = EpochClaim { iss: device, iat: 1, gallery: "00".repeat(16), epoch: 12, file: None };
        let birth = |token: &str| serde_json::json!({"gallery": {"epoch": 99, "claim": token}}).to_string();
        for payload in ["", "{}", "[]", r#"{"gallery":{"epoch":99}}"#, &birth(""), &birth(&other.sign_epoch(&claim))] {
            assert!(claim_of(payload.as_bytes(), &keys).is_err(), "{payload}");
        }
        assert_eq!(claim_of(birth(&ours.sign_epoch(&claim)).as_bytes(), &keys), Ok(claim));
    }
}
