//! The broker as a witness of the gallery's age and of that of the decider's memory. `birth` says, signed by the device, which gallery this
//! is and how far both have come; the broker keeps it. A start hears what was kept before it says anything itself: what has come less far
//! than it once said is an older one put back, even when everything on the device was put back together. An older gallery grants nothing
//! until somebody has accepted it; an older memory locks every door down, as a lost one does.
//!
//! **Silence is no acquittal.** Until the broker is heard nothing is granted (`[publish] unheard-grants-s` says for how long it is all the
//! same) and nothing is said that it would keep in the old word's place. It is asked on the daemon's own connection, at every connection,
//! whatever ended the one before. A broker may grant the subscription and bring nothing, so when nothing comes, a birth that is not to be
//! kept is said on the very topic: only if that comes back does the broker let us hear it, and what it has kept would have come first.
//!
//! Who can write to the broker can make this witness forget, by taking the retained message away or putting an older one there, and cannot
//! make it lie: what is not signed by a key of this device is not heard. That it has forgotten is told where this device remembers that it
//! had been told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::broker_word::{BrokerWord, Word};
use super::events;
use super::reports::Report;
use super::supervisor::{WorkerContext, WorkerError};
use super::workers::Counts;
use crate::access::grant::{self, EpochClaim, GrantKey, KeySet};
use crate::gallery::{Age, Gallery};
use crate::publish::{Audit, Birth, Event, Kept, KeptEar, Publisher, Received};
use crate::system::{clock, messages};
use crate::types::{DeviceId, Monotonic};

/// What a broker keeps comes at once after it has confirmed that it is asked; then the question is whether it brings anything at all.
const LEAD: Duration = Duration::from_millis(250);
/// After our own word has come back, what was kept has had its time. Some brokers look it up while others wait.
const AFTER_ECHO: Duration = Duration::from_secs(1);
/// As much where this device knows that it has told the broker: then there should be something.
const AFTER_ECHO_WHEN_TOLD: Duration = Duration::from_secs(5);
/// Our own word comes back in milliseconds. After this long the broker does not bring it.
const NO_ECHO: Duration = Duration::from_secs(5);
/// How soon it is asked once more on a connection that stands.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How long the decider may take to answer; it takes milliseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How often the worker looks up from waiting.
const LOOK: Duration = Duration::from_millis(50);
/// How soon after a change `birth` is said again: a witness should not be far behind, and an import is one word and not a thousand.
const AGAIN: Duration = Duration::from_secs(5);

/// What the worker is made of.
pub(super) struct BirthWitness {
    pub(super) device: DeviceId,
    /// The whole topic of `birth`.
    pub(super) topic: String,
    /// What our own messages carry, and nobody else's.
    pub(super) boot_id: Uuid,
    pub(super) key: GrantKey,
    /// Every key that this device may have signed with: during a rotation the one before too.
    pub(super) keys: KeySet,
    pub(super) gallery: Arc<Gallery>,
    /// The number of the memory's last writing.
    pub(super) memory: Arc<AtomicU64>,
    /// To the memory's owner.
    pub(super) decider: SyncSender<Report>,
    pub(super) publisher: Publisher,
    pub(super) audit: Arc<Audit>,
    /// All but what is the gallery's.
    pub(super) birth: Birth,
    pub(super) ear: KeptEar,
    pub(super) word: Arc<BrokerWord>,
    pub(super) counts: Arc<Counts>,
    pub(super) heard: bool,
    /// How far the broker has been told that the memory had come.
    pub(super) told: Option<u64>,
}

impl BirthWitness {
    /// Hears what was kept, then says `birth`, and again after each change, until told to stop.
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        let stop = context.stop();
        if !self.heard {
            // Not known is as good as yes: it is the more patient.
            let had_told = self.ask(Report::HadTold).unwrap_or(true);
            let Some(kept) = self.listen(had_told, context) else { return Ok(()) };
            // Once: what is kept from now on is our own word.
            self.heard = true;
            self.ear.close();
            self.take(kept.as_ref(), had_told);
        }
        let mut said = None;
        loop {
            context.beat();
            // A file that was written anew is news too: its change has another tag.
            let (epoch, age) = (self.gallery.snapshot().generation(), self.gallery.age());
            let (memory, rates) = (self.memory.load(Ordering::Relaxed), self.counts.match_rates.changes());
            if said.as_ref() != Some(&(epoch, age, memory, rates)) {
                // Where the memory cannot be written down, what was told before is told again: it must not be forgotten.
                let memory = self.ask(Report::Tells).flatten();
                self.told = memory.max(self.told);
                let (birth, age) = self.birth_now();
                let epoch = birth.gallery_epoch;
                self.publisher.publish(Event::Birth(birth));
                said = Some((epoch, age, memory.unwrap_or_default(), rates));
            }
            if stop.sleep(AGAIN) {
                return Ok(());
            }
        }
    }

    /// Waits until the broker has brought what it keeps, or shown that it keeps nothing; `None` when told to stop.
    fn listen(&self, had_told: bool, context: &WorkerContext) -> Option<Option<Received>> {
        let mut hearing = Hearing::new(self.boot_id, had_told, clock::monotonic());
        while !context.stop().is_asked() {
            context.beat();
            let news = self.ear.next(LOOK);
            match hearing.step(news, clock::monotonic()) {
                Step::Wait => {}
                Step::AskAgain => self.ear.ask_again(),
                Step::SayEcho => {
                    self.publisher.publish(Event::BirthEcho(self.birth_now().0));
                }
                Step::Silent(why) => self.tell_silence(&why),
                Step::Heard(kept) => return Some(kept),
            }
        }
        None
    }

    fn tell_silence(&self, why: &Silence) {
        let topic = &self.topic;
        let why = match why {
            Silence::Refused(reason) => {
                format!("it lets this user not read {topic} ({reason}): allow it in the broker's access rules (ACL)")
            }
            Silence::NoEcho => format!(
                "it took the subscription to {topic} and brings nothing of it, not even what this device says there itself: allow this user to \
                 read and write it in the broker's access rules (ACL)"
            ),
        };
        if self.word.set(Word::Silent(why.clone())) {
            log::warn!(MESSAGE_ID = messages::WITNESS_SILENT; "the broker is no witness that this device's state is the newest: {why}; until it is heard nothing is granted beyond unheard-grants-s");
            self.publisher.publish(events::witness_silent(&why));
            events::note(&self.audit, &self.publisher, "witness-silent", json!({ "why": why }));
        }
    }

    /// Takes in what the broker keeps. From then on grants are made.
    fn take(&mut self, kept: Option<&Received>, had_told: bool) {
        let claim = kept.map(|message| claim_of(&message.payload, &self.keys));
        let (compared, memory) = match claim {
            None => (Err("it has no retained `birth` of this device".to_owned()), None),
            Some(Err(why)) => (Err(format!("the birth that it keeps is none that counts: {why}")), None),
            Some(Ok(claim)) if claim.iss != self.device => (Err("the birth that it keeps is another device's".to_owned()), None),
            Some(Ok(EpochClaim { gallery, epoch, file, memory, .. })) => {
                // Before the decider hears of it: what is seen from then on is matched with a gallery that was compared.
                let is_ours = self.gallery.hear(&Age { gallery, epoch, file });
                let other = "the birth that it keeps tells of another gallery of this device";
                (if is_ours { Ok(()) } else { Err(other.to_owned()) }, memory)
            }
        };
        self.told = memory;
        match compared {
            Ok(()) => {
                self.word.set(Word::Heard);
            }
            Err(nothing) if had_told => self.tell_forgotten(nothing),
            Err(nothing) => {
                log::info!("the broker cannot confirm yet that this device's state is current: {nothing}");
                self.word.set(Word::NoneKept);
            }
        }
        self.ask(|answer| Report::Vouched(memory, answer));
    }

    fn tell_forgotten(&self, nothing: String) {
        log::warn!(MESSAGE_ID = messages::WITNESS_SILENT; "the broker has forgotten what this device told it: {nothing}. An older state put back since then is not noticed; let the broker keep retained messages (`persistence true`), and nobody else write {}", self.topic);
        self.publisher.publish(events::witness_silent(&format!("it has forgotten what this device told it: {nothing}")));
        events::note(&self.audit, &self.publisher, "witness-forgot", json!({ "why": nothing }));
        self.word.set(Word::Forgotten(nothing));
    }

    /// Asks the memory's owner; `None` when the daemon is stopping.
    fn ask<T>(&self, report: impl FnOnce(SyncSender<T>) -> Report) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        self.decider.send(report(answer)).ok()?;
        answered.recv_timeout(ANSWER_DEADLINE).ok()
    }

    /// What is to be said now, and how far the gallery has come by it: what is signed is never older than what is counted.
    fn birth_now(&self) -> (Box<Birth>, Option<Age>) {
        let stats = self.gallery.snapshot().stats();
        let age = self.gallery.age();
        let claim = age.clone().map(|Age { gallery, epoch, file }| {
            let iat = clock::wall().unix_seconds();
            let memory = self.told;
            self.key.sign_epoch(&EpochClaim { iss: self.device.clone(), iat, gallery, epoch, file, memory })
        });
        let birth = Birth {
            gallery_people: stats.people as u64,
            gallery_templates: stats.templates as u64,
            gallery_epoch: stats.generation,
            gallery_claim: claim,
            match_rates: self.counts.match_rates.all(),
            clock: events::clock_quality(),
            at: clock::wall(),
            ..self.birth.clone()
        };
        (Box::new(birth), age)
    }
}

/// The signed claim in a birth.
pub(super) fn claim_of(payload: &[u8], keys: &KeySet) -> Result<EpochClaim, String> {
    let birth: serde_json::Value = serde_json::from_slice(payload).map_err(|_| "it is no JSON".to_owned())?;
    let token = birth["gallery"]["claim"].as_str().ok_or("it has no signed claim")?;
    grant::open_epoch(token, keys).map_err(|error| error.to_string())
}

/// Why the broker is not heard although it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Silence {
    /// It refuses the subscription.
    Refused(String),
    /// It brings nothing of the topic.
    NoEcho,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// Ask for what is kept once more.
    AskAgain,
    /// Say something on the topic that is not to be kept.
    SayEcho,
    /// Tell that nothing is heard, and go on.
    Silent(Silence),
    /// The broker has brought what it keeps, or shown that it keeps nothing.
    Heard(Option<Received>),
}

/// How far the question has come on the connection that stands. Pure: news and time go in.
struct Hearing {
    boot_id: Uuid,
    patience: Duration,
    /// When the broker confirmed that it was asked.
    asked: Option<Monotonic>,
    /// When our own word was said, and when it came back.
    said: Option<Monotonic>,
    echoed: Option<Monotonic>,
    /// When to ask once more, as long as it has not confirmed.
    again_at: Monotonic,
}

impl Hearing {
    fn new(boot_id: Uuid, had_told: bool, now: Monotonic) -> Self {
        let patience = if had_told { AFTER_ECHO_WHEN_TOLD } else { AFTER_ECHO };
        Self { boot_id, patience, asked: None, said: None, echoed: None, again_at: now.plus(ASK_AGAIN) }
    }

    fn begin(&mut self, asked: Option<Monotonic>, now: Monotonic) {
        (self.asked, self.said, self.echoed) = (asked, None, None);
        self.again_at = now.plus(ASK_AGAIN);
    }

    fn step(&mut self, news: Option<Kept>, now: Monotonic) -> Step {
        match news {
            Some(Kept::Message(message)) if message.retained => return Step::Heard(Some(message)),
            Some(Kept::Message(message)) if self.asked.is_some() && is_of(&message.payload, self.boot_id) => {
                self.echoed.get_or_insert(now);
            }
            Some(Kept::Message(_)) => {}
            Some(Kept::Asked) => self.begin(Some(now), now),
            Some(Kept::Ended) => self.begin(None, now),
            Some(Kept::Refused(reason)) => {
                self.begin(None, now);
                return Step::Silent(Silence::Refused(reason));
            }
            None => {}
        }
        let is_over = |since: Option<Monotonic>, wait: Duration| since.is_some_and(|since| now.since(since) >= wait);
        if is_over(self.echoed, self.patience) {
            return Step::Heard(None);
        }
        if self.echoed.is_none() && is_over(self.said, NO_ECHO) {
            self.begin(None, now);
            return Step::Silent(Silence::NoEcho);
        }
        if self.said.is_none() && is_over(self.asked, LEAD) {
            self.said = Some(now);
            return Step::SayEcho;
        }
        if self.asked.is_none() && now >= self.again_at {
            self.again_at = now.plus(ASK_AGAIN);
            return Step::AskAgain;
        }
        Step::Wait
    }
}

/// Whether this run said it.
fn is_of(payload: &[u8], boot_id: Uuid) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    said.is_some_and(|said| said["boot_id"].as_str().is_some_and(|id| Uuid::try_parse(id) == Ok(boot_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(7);

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    fn message(boot_id: Uuid, retained: bool) -> Received {
        let payload = serde_json::json!({ "boot_id": boot_id.to_string() }).to_string().into_bytes();
        Received { payload, retained, ..Received::default() }
    }

    #[test]
    fn a_birth_that_is_not_signed_by_this_device_is_no_witness() {
        let (ours, other) = (GrantKey::generate().unwrap(), GrantKey::generate().unwrap());
        let keys = KeySet::new([ours.public()]);
        let device = DeviceId::new("gate").unwrap();
        let claim = EpochClaim { iss: device, iat: 1, gallery: "00".repeat(16), epoch: 12, file: None, memory: Some(3) };
        let birth = |token: &str| serde_json::json!({"gallery": {"epoch": 99, "claim": token}}).to_string();
        for payload in ["", "{}", "[]", r#"{"gallery":{"epoch":99}}"#, &birth(""), &birth(&other.sign_epoch(&claim))] {
            assert!(claim_of(payload.as_bytes(), &keys).is_err(), "{payload}");
        }
        assert_eq!(claim_of(birth(&ours.sign_epoch(&claim)).as_bytes(), &keys), Ok(claim));
    }

    #[test]
    fn silence_is_heard_as_nothing_kept_only_after_our_own_word_came_back() {
        let mut hearing = Hearing::new(OURS, false, at(0));
        assert_eq!(hearing.step(None, at(10_000)), Step::Wait, "the broker is away");
        assert_eq!(hearing.step(Some(Kept::Asked), at(10_000)), Step::Wait);
        assert_eq!(hearing.step(None, at(10_250)), Step::SayEcho);
        for boot_id in [Uuid::from_u128(8), Uuid::nil()] {
            assert_eq!(hearing.step(Some(Kept::Message(message(boot_id, false))), at(10_300)), Step::Wait, "another's word");
        }
        assert_eq!(hearing.step(None, at(15_249)), Step::Wait);
        assert_eq!(hearing.step(None, at(15_250)), Step::Silent(Silence::NoEcho));
        // What comes after the question was given up answers none.
        assert_eq!(hearing.step(Some(Kept::Message(message(OURS, false))), at(15_300)), Step::Wait);
        assert_eq!(hearing.step(None, at(29_000)), Step::Wait);
        assert_eq!(hearing.step(None, at(30_250)), Step::AskAgain);
        assert_eq!(hearing.step(Some(Kept::Asked), at(30_300)), Step::Wait);
        assert_eq!(hearing.step(None, at(30_600)), Step::SayEcho);
        assert_eq!(hearing.step(Some(Kept::Message(message(OURS, false))), at(30_700)), Step::Wait);
        assert_eq!(hearing.step(None, at(31_699)), Step::Wait, "what was kept may be on its way");
        assert_eq!(hearing.step(None, at(31_700)), Step::Heard(None));
    }

    #[test]
    fn what_was_kept_is_heard_whenever_it_comes_and_a_lost_connection_starts_over() {
        let kept = || Kept::Message(message(Uuid::from_u128(9), true));
        let heard = || Step::Heard(Some(message(Uuid::from_u128(9), true)));
        let mut hearing = Hearing::new(OURS, true, at(0));
        assert_eq!(hearing.step(Some(kept()), at(1)), heard());
        hearing.step(Some(Kept::Asked), at(0));
        assert_eq!(hearing.step(None, at(250)), Step::SayEcho);
        hearing.step(Some(Kept::Message(message(OURS, false))), at(300));
        assert_eq!(hearing.step(None, at(5_200)), Step::Wait, "a device that has told waits longer");
        assert_eq!(hearing.step(Some(kept()), at(5_200)), heard());
        // An echo of a connection that is gone says nothing of the next one.
        assert_eq!(hearing.step(Some(Kept::Ended), at(5_250)), Step::Wait);
        assert_eq!(hearing.step(None, at(20_000)), Step::Wait);
        assert_eq!(
            hearing.step(Some(Kept::Refused("NotAuthorized".to_owned())), at(20_100)),
            Step::Silent(Silence::Refused("NotAuthorized".to_owned()))
        );
        assert_eq!(hearing.step(None, at(35_100)), Step::AskAgain);
    }
}
