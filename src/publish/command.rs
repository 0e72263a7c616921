//! Commands from outside: what makes one believable. Pure but for the memory of used nonces.
//!
//! A command is a compact JWS (`typ` `faceid-command+jwt`, EdDSA) on `cmd/<verb>`, signed by one of the operator keys that the config
//! pins. It names its device, its verb (the topic's must be the same), when it was issued, when it ends, and a nonce that is taken once.
//! A retained, late, early, replayed, unsigned or misdirected one changes nothing; the caller audits it. Each but a retained one is
//! answered ([`answer_to`]), refusals too.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::subscribe::Received;
use crate::access::grant::{self, GrantError, GrantKey, KeySet};
use crate::system::seen::{Kind, Seen, SeenError, Terms};
use crate::types::{DeviceId, Moment, Wall};

/// The longest life of a command, in seconds.
pub const MAX_LIFETIME_S: i64 = 300;
/// How far the operator's clock may differ.
const LEEWAY: Duration = Duration::from_secs(5);

/// What a device can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Say that you are there.
    Ping,
    /// Give decisions again.
    Replay,
    /// Grant nothing.
    Lockdown,
    /// End the lock-down.
    Release,
    /// Say who is enrolled.
    List,
    /// Change what is kept about a person.
    Set,
    /// Forget a person.
    Remove,
    /// Enrol a person.
    Enroll,
    /// Publish no pictures.
    SnapshotOff,
    /// Publish pictures.
    SnapshotOn,
    /// Read the gallery again and build its index anew.
    Rebuild,
    /// Open a door once.
    Open,
    /// Hold a door open for a time.
    HoldOpen,
    /// Forget in which areas somebody is.
    Forgive,
}

impl Verb {
    /// Every verb with its word in topics.
    pub const ALL: [(Verb, &'static str); 14] = [
        (Verb::Ping, "ping"),
        (Verb::Replay, "replay"),
        (Verb::Lockdown, "lockdown"),
        (Verb::Release, "release"),
        (Verb::List, "list"),
        (Verb::Set, "set"),
        (Verb::Remove, "remove"),
        (Verb::Enroll, "enroll"),
        (Verb::SnapshotOff, "snapshot-off"),
        (Verb::SnapshotOn, "snapshot-on"),
        (Verb::Rebuild, "rebuild"),
        (Verb::Open, "open"),
        (Verb::HoldOpen, "hold-open"),
        (Verb::Forgive, "forgive"),
    ];

    /// The word in topics.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(verb, _)| *verb == self).map_or("", |(_, word)| word)
    }

    /// The verb of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(verb, _)| *verb)
    }
}

/// What an operator signs. Times are whole seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The one device that it is for.
    pub device: DeviceId,
    /// What to do.
    pub verb: Verb,
    /// When it was signed.
    pub issued_at: i64,
    /// From when on it is void; at most [`MAX_LIFETIME_S`] later.
    pub expires_at: i64,
    /// 1 to 64 plain characters that no other command has.
    pub nonce: String,
    /// What the verb wants.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub args: Value,
    /// The id of the key that signed it, once that is known; never part of what is signed.
    #[serde(skip)]
    pub operator: String,
}

impl Command {
    /// As it is published.
    pub fn sign(&self, key: &GrantKey) -> String {
        key.sign_command(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Why a command changes nothing.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The broker kept it: it would come again at every connection.
    #[error("it was retained by the broker")]
    Retained,
    /// No such verb.
    #[error("there is no such verb")]
    UnknownVerb,
    /// The config pins no operator keys.
    #[error("no operator keys are pinned: set [publish] operator-keys")]
    NoOperators,
    /// Not signed by an operator, or not at all.
    #[error("it is not signed by an operator: {0}")]
    Unsigned(GrantError),
    /// Signed, and no command.
    #[error("it is no command")]
    Malformed,
    /// For another device, or under another verb's topic.
    #[error("it is for another device or verb")]
    Misdirected,
    /// Its end is over or its beginning to come, by the two clocks.
    #[error("its time {0}: compare the clocks of the operator's machine and of this device")]
    Untimely(ClockDifference),
    /// It is to live for longer than any may, or ends before it begins.
    #[error("it is good for {0} s, and 1 to {MAX_LIFETIME_S} are allowed")]
    Lifetime(i64),
    /// It was given before.
    #[error("its nonce: {0}")]
    Replayed(#[from] SeenError),
}

/// By how much a command came too late or too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockDifference {
    /// It ended so many seconds ago.
    Late(i64),
    /// It was signed so many seconds from now.
    Early(i64),
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(seconds) => write!(f, "was over {seconds} s ago by this device's clock"),
            Self::Early(seconds) => write!(f, "begins in {seconds} s by this device's clock"),
        }
    }
}

/// Tells what an operator signed from what nobody did. Whether it was given before is the [`Gate`]'s to say.
#[derive(Debug, Clone)]
pub struct Judge {
    device: DeviceId,
    /// Shared by all copies, so that a change of the pinned keys reaches every one.
    operators: Arc<RwLock<Option<KeySet>>>,
}

impl Judge {
    /// For this device; without operators everything is refused.
    pub fn new(device: DeviceId, operators: Option<KeySet>) -> Self {
        Self { device, operators: Arc::new(RwLock::new(operators)) }
    }

    /// From now on these keys are the operators', here and in every copy.
    pub fn set_operators(&self, operators: Option<KeySet>) {
        *self.operators.write().unwrap_or_else(PoisonError::into_inner) = operators;
    }

    /// A message on `cmd/<word>`, believed but for its nonce.
    pub fn check(&self, word: &str, message: &Received, now: Wall) -> Result<Command, Refusal> {
        if message.retained {
            return Err(Refusal::Retained);
        }
        let verb = Verb::of(word).ok_or(Refusal::UnknownVerb)?;
        let operators = self.operators.read().unwrap_or_else(PoisonError::into_inner);
        let operators = operators.as_ref().ok_or(Refusal::NoOperators)?;
        let token = std::str::from_utf8(&message.payload).map_err(|_| Refusal::Unsigned(GrantError::Malformed("it is no text")))?;
        let (text, kid) = grant::open_command(token, operators).map_err(Refusal::Unsigned)?;
        let command: Command = serde_json::from_slice(&text).map_err(|_| Refusal::Malformed)?;
        let command = Command { operator: kid, ..command };
        if command.device != self.device || command.verb != verb {
            return Err(Refusal::Misdirected);
        }
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(0);
        let seconds = now.unix_seconds();
        let lifetime = command.expires_at.saturating_sub(command.issued_at);
        if !(1..=MAX_LIFETIME_S).contains(&lifetime) {
            return Err(Refusal::Lifetime(lifetime));
        }
        let difference = match () {
            () if command.issued_at > seconds.saturating_add(leeway) => {
                ClockDifference::Early(command.issued_at.saturating_sub(seconds))
            }
            () if seconds >= command.expires_at => ClockDifference::Late(seconds.saturating_sub(command.expires_at)),
            () => return Ok(command),
        };
        Err(Refusal::Untimely(difference))
    }
}

/// Believes commands or refuses them.
pub struct Gate {
    judge: Judge,
    seen: Seen,
    /// What was signed by this second counts as used.
    used_until: i64,
}

impl Gate {
    /// A gate for this device; without operators it refuses everything. `memory` is the file of used nonces, and whether this is the
    /// device's very first start: see [`Seen`] for what becomes of one that is lost.
    pub fn new(device: DeviceId, operators: Option<KeySet>, memory: (&Path, bool), now: Moment) -> Result<Self, SeenError> {
        let (path, is_new) = memory;
        let owner = format!("{device}/commands");
        let seen = Seen::open(path, Terms { owner: &owner, kind: Kind::Messages, is_new, leeway: LEEWAY }, now)?;
        Ok(Self { judge: Judge::new(device, operators), seen, used_until: i64::MIN })
    }

    /// What it believes commands by.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Takes a look at the clocks, often: see [`Seen::look`].
    pub fn look(&mut self, now: Moment, is_synced: bool) {
        self.seen.look(now, is_synced);
    }

    /// The end of the program: see [`Seen::keep`].
    pub fn keep(&mut self) {
        self.seen.keep();
    }

    /// A witness says that commands signed up to second `until` may have been used before this start: none of them is believed, whatever
    /// the memory of used nonces says. That file may be an older copy, or somebody else's work.
    pub fn refuse_until(&mut self, until: i64) {
        self.used_until = self.used_until.max(until);
    }

    /// The same where nobody can say what was used: nothing that was signed before `now` is believed.
    pub fn refuse_before(&mut self, now: Wall) {
        self.refuse_until(now.unix_seconds().saturating_sub(1));
    }

    /// A message on `cmd/<word>`. Its nonce is durable as used before this returns it.
    pub fn admit(&mut self, word: &str, message: &Received, now: Wall) -> Result<Command, Refusal> {
        let command = self.judge.check(word, message, now)?;
        if command.issued_at <= self.used_until {
            return Err(SeenError::UsedBefore.into());
        }
        self.seen.take(&command.nonce, command.issued_at, command.expires_at, now)?;
        Ok(command)
    }
}

/// Below this topic whoever asks is answered, an operator or not: nothing that acts listens there.
pub const OPERATORS: &str = "faceid-operator/";
/// The longest response topic that is answered on, in bytes.
const MAX_TOPIC_BYTES: usize = 256;
/// The most correlation data that is brought back, in bytes. Whoever writes here needs no signature to be answered.
const MAX_CORRELATION_BYTES: usize = 1024;

/// Where the answer to a message on `<root>/cmd/<word>` goes besides `cmd/<word>/reply`, and the correlation data that it brings back.
///
/// It goes to the message's response topic (MQTT 5, 4.10), unless that would let a stranger speak in our name, another node's or to Home
/// Assistant, or is no topic at all: what lies below the base topic of `root` is the nodes' own. What no operator signed, or was refused
/// for another reason (a copy of a command has any response topic that its copier likes), is answered below [`OPERATORS`] alone: else
/// anybody could have this device say something on any topic that it may write. Correlation data that is longer than
/// 1 KiB is not brought back, and its sender, who could not tell its answer from another's, is answered on `cmd/<word>/reply` alone.
pub fn answer_to(root: &str, message: &Received, is_admitted: bool) -> (Option<String>, Option<Vec<u8>>) {
    if message.correlation.as_ref().is_some_and(|data| data.len() > MAX_CORRELATION_BYTES) {
        return (None, None);
    }
    let base = root.rsplit_once('/').map_or(root, |(base, _)| base);
    let is_the_nodes = |topic: &str| topic.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let topic = message.response_topic.as_ref().filter(|topic| {
        let is_topic = !topic.is_empty() && topic.len() <= MAX_TOPIC_BYTES && !topic.contains(['+', '#']);
        let is_plain = is_topic && !topic.starts_with('$') && !topic.contains(char::is_control);
        let is_ours_to_write = is_admitted || topic.starts_with(OPERATORS);
        is_plain && is_ours_to_write && !is_the_nodes(topic) && *topic != "homeassistant" && !topic.starts_with("homeassistant/")
    });
    (topic.cloned(), message.correlation.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall(1_700_000_000_000);
    const MOMENT: Moment = Moment { monotonic: crate::types::Monotonic(0), wall: NOW };

    struct Scene {
        key: GrantKey,
        gate: Gate,
        folder: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let key = GrantKey::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let operators = Some(KeySet::new([key.public()]));
        let gate = Gate::new(DeviceId::new("gate").unwrap(), operators, (&folder.path().join("nonces"), true), MOMENT).unwrap();
        Scene { key, gate, folder }
    }

    fn command(nonce: &str) -> Command {
        let now = NOW.unix_seconds();
        Command {
            device: DeviceId::new("gate").unwrap(),
            verb: Verb::Lockdown,
            issued_at: now,
            expires_at: now + 60,
            nonce: nonce.into(),
            args: Value::Null,
            operator: String::new(),
        }
    }

    fn message(token: &str) -> Received {
        Received { topic: "faceid/gate/cmd/lockdown".into(), payload: token.as_bytes().to_vec(), ..Received::default() }
    }

    impl Scene {
        fn admit(&mut self, command: &Command) -> Result<Command, Refusal> {
            let token = command.sign(&self.key);
            self.gate.admit("lockdown", &message(&token), NOW)
        }
    }

    #[test]
    fn what_no_operator_signed_is_refused() {
        let mut scene = scene();
        for text in ["", "lockdown", "{}", r#"{"verb":"lockdown"}"#, "a.b.c"] {
            assert!(matches!(scene.gate.admit("lockdown", &message(text), NOW), Err(Refusal::Unsigned(_))), "{text}");
        }
        let thief = GrantKey::generate().unwrap();
        let foreign = message(&command("a").sign(&thief));
        assert!(matches!(scene.gate.admit("lockdown", &foreign, NOW), Err(Refusal::Unsigned(GrantError::UnknownKey))));
        // A key of operators signs a text that is no command; a device's grant is none either.
        let other = message(&scene.key.sign_command("{\"verb\":\"lockdown\"}"));
        assert!(matches!(scene.gate.admit("lockdown", &other, NOW), Err(Refusal::Malformed)));
        let folder = tempfile::tempdir().unwrap();
        let mut closed = Gate::new(DeviceId::new("gate").unwrap(), None, (&folder.path().join("n"), true), MOMENT).unwrap();
        let good = message(&command("a").sign(&scene.key));
        assert!(matches!(closed.admit("lockdown", &good, NOW), Err(Refusal::NoOperators)));
    }

    #[test]
    fn a_retained_a_late_an_early_a_long_lived_and_a_misdirected_command_change_nothing() {
        let mut scene = scene();
        let good = command("a");
        let retained = Received { retained: true, ..message(&good.sign(&scene.key)) };
        assert!(matches!(scene.gate.admit("lockdown", &retained, NOW), Err(Refusal::Retained)));
        assert!(matches!(scene.gate.admit("release", &message(&good.sign(&scene.key)), NOW), Err(Refusal::Misdirected)));
        assert!(matches!(scene.gate.admit("melt", &message(&good.sign(&scene.key)), NOW), Err(Refusal::UnknownVerb)));
        let elsewhere = Command { device: DeviceId::new("other").unwrap(), ..good.clone() };
        assert!(matches!(scene.admit(&elsewhere), Err(Refusal::Misdirected)));
        let now = NOW.unix_seconds();
        for (issued_at, expires_at) in [
            (now - 60, now),
            (now + 6, now + 60),
            (now, now + MAX_LIFETIME_S + 1),
            (now, now),
            (i64::MIN, i64::MAX),
            (now, now - 1),
        ] {
            let untimely = Command { issued_at, expires_at, ..good.clone() };
            assert!(
                matches!(scene.admit(&untimely), Err(Refusal::Untimely(_) | Refusal::Lifetime(_))),
                "{issued_at} to {expires_at}"
            );
        }
        let admitted = scene.admit(&good).unwrap();
        assert_eq!(admitted.operator, scene.key.kid());
        assert_eq!(Command { operator: String::new(), ..admitted }, good, "none of them has used the nonce up");
        assert!(matches!(scene.admit(&good), Err(Refusal::Replayed(SeenError::Again))));
    }

    #[test]
    fn a_memory_that_was_wiped_and_a_clock_that_was_set_back_bring_no_command_back() {
        let mut scene = scene();
        let used = command("used");
        assert!(scene.admit(&used).is_ok());
        let path = scene.folder.path().join("nonces");
        let later = |seconds: u64| MOMENT.plus(Duration::from_secs(seconds));
        for wiped in [None, Some(""), Some("v2 gate/")] {
            match wiped {
                None => std::fs::remove_file(&path).unwrap(),
                Some(text) => std::fs::write(&path, text).unwrap(),
            }
            let operators = Some(KeySet::new([scene.key.public()]));
            scene.gate = Gate::new(used.device.clone(), operators, (&path, false), later(3)).unwrap();
            assert!(matches!(scene.admit(&used), Err(Refusal::Replayed(SeenError::TooEarly))), "{wiped:?}");
            // An operator who commands after the start is obeyed.
            let fresh = Command { issued_at: used.issued_at + 9, expires_at: used.issued_at + 60, ..command("fresh") };
            let heard = scene.gate.admit("lockdown", &message(&fresh.sign(&scene.key)), later(9).wall);
            assert!(heard.is_ok(), "{wiped:?}: {heard:?}");
        }
        // One that never arrived, and has ended.
        let captured = command("captured");
        scene.gate.look(later(61), true);
        let refused = scene.gate.admit("lockdown", &message(&captured.sign(&scene.key)), NOW);
        assert!(matches!(refused, Err(Refusal::Replayed(SeenError::ClockBack { .. }))), "{refused:?}");
    }

    #[test]
    fn what_the_witness_says_was_used_is_not_believed_whatever_the_memory_of_nonces_says() {
        let mut scene = scene();
        let path = scene.folder.path().join("nonces");
        let older = std::fs::read(&path).unwrap();
        let used = command("used");
        assert!(scene.admit(&used).is_ok());
        let owned = |text: &str| text.replace("OWNER", "gate/commands").into_bytes();
        let written = owned(&format!("v2 OWNER {0} {0} {0} {0} {0}\n.\n", i64::MIN));
        for (what, bytes) in [("an older copy", older), ("written by hand", written)] {
            std::fs::write(&path, bytes).unwrap();
            let operators = Some(KeySet::new([scene.key.public()]));
            let later = MOMENT.plus(Duration::from_secs(3));
            let open = || Gate::new(used.device.clone(), operators.clone(), (&path, false), later).unwrap();
            scene.gate = open();
            scene.gate.refuse_until(used.issued_at);
            let again = scene.gate.admit("lockdown", &message(&used.sign(&scene.key)), later.wall);
            assert!(matches!(again, Err(Refusal::Replayed(SeenError::UsedBefore))), "{what}: {again:?}");
            // One that has waited for this start is obeyed, and one that is signed now.
            for (nonce, after) in [("waited", 1), ("fresh", 4)] {
                let other = Command { issued_at: used.issued_at + after, expires_at: used.issued_at + 60, ..command(nonce) };
                let heard = scene.gate.admit("lockdown", &message(&other.sign(&scene.key)), later.wall);
                assert!(heard.is_ok(), "{what}: {nonce}: {heard:?}");
            }
            // Where the witness is lost too, what waited is not; what is signed in this second is.
            scene.gate = open();
            scene.gate.refuse_before(later.wall);
            for (nonce, after, is_heard) in [("waited-2", 2, false), ("fresh-2", 3, true)] {
                let other = Command { issued_at: used.issued_at + after, expires_at: used.issued_at + 60, ..command(nonce) };
                let heard = scene.gate.admit("lockdown", &message(&other.sign(&scene.key)), later.wall);
                assert_eq!(heard.is_ok(), is_heard, "{what}: {nonce}: {heard:?}");
            }
        }
    }

    #[test]
    fn an_answer_never_goes_where_a_stranger_could_speak_for_a_node_and_brings_back_no_more_than_it_may() {
        let asked = |topic: &str, bytes: usize| Received {
            response_topic: Some(topic.into()),
            correlation: Some(vec![0xff; bytes]),
            ..Received::default()
        };
        let long = "x".repeat(MAX_TOPIC_BYTES + 1);
        let own =
            ["site/faceid/gate/door/front/decision", "site/faceid/gate", "site/faceid/gates/door/front/decision", "site/faceid"];
        let others = ["homeassistant/x", "homeassistant", "$SYS/x", "a/#", "a/+", "", "a\0", "a\u{1b}", &long];
        for topic in own.into_iter().chain(others) {
            assert_eq!(answer_to("site/faceid/gate", &asked(topic, 4), true), (None, Some(vec![0xff; 4])), "{topic}");
        }
        for topic in ["site/faceid-operator/7", "site/desk", "desk/7", &long[1..]] {
            assert_eq!(
                answer_to("site/faceid/gate", &asked(topic, 4), true),
                (Some(topic.to_owned()), Some(vec![0xff; 4])),
                "{topic}"
            );
        }
        // What nobody signed is answered where nothing acts on it.
        for topic in ["zigbee2mqtt/frontdoor/set", "site/desk", "faceid-operator", "faceid-operators/7", "site/faceid-operator/7"] {
            assert_eq!(answer_to("site/faceid/gate", &asked(topic, 4), false), (None, Some(vec![0xff; 4])), "{topic}");
        }
        let operators = "faceid-operator/7";
        assert_eq!(answer_to("faceid/gate", &asked(operators, 4), false).0.as_deref(), Some(operators));
        assert!(answer_to("faceid/gate", &asked("desk/7", MAX_CORRELATION_BYTES), true).1.is_some());
        assert_eq!(answer_to("faceid/gate", &asked("desk/7", MAX_CORRELATION_BYTES + 1), true), (None, None));
        assert_eq!(answer_to("faceid/gate", &Received::default(), true), (None, None));
    }

    #[test]
    fn every_verb_has_one_word() {
        for (verb, word) in Verb::ALL {
            assert_eq!((Verb::of(word), verb.as_str()), (Some(verb), word));
            assert_eq!(serde_json::to_value(verb).unwrap(), word);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]
        #[test]
        fn no_mutated_command_is_believed(at in 0usize..400, byte: u8, cut in 0usize..400, double: bool) {
            thread_local! { static SCENE: std::cell::RefCell<Scene> = std::cell::RefCell::new(scene()); }
            SCENE.with_borrow_mut(|scene| {
                let token = command("nonce").sign(&scene.key);
                let mut bytes = token.clone().into_bytes();
                if double { bytes.extend_from_within(..) }
                if at < bytes.len() { bytes[at] = byte }
                if cut % 3 == 0 { bytes.truncate(cut) }
                if bytes != token.as_bytes() {
                    let message = Received { payload: bytes, ..Received::default() };
                    prop_assert!(scene.gate.admit("lockdown", &message, NOW).is_err());
                }
                Ok(())
            })?;
        }

        #[test]
        fn no_signed_text_makes_it_panic(text in "\\PC{0,200}") {
            thread_local! { static SCENE: std::cell::RefCell<Scene> = std::cell::RefCell::new(scene()); }
            SCENE.with_borrow_mut(|scene| {
                let token = scene.key.sign_command(&text);
                prop_assert!(scene.gate.admit("lockdown", &message(&token), NOW).is_err());
                Ok(())
            })?;
        }
    }
}
