//! What the broker brings to the daemon, judged: an operator's command, what a reader read, what a door says became of a grant. Whatever
//! is not what it should be is told with its reason and changes nothing. No thread and no network; the fuzzer feeds it any bytes.

use std::sync::Arc;

use serde::Deserialize;

use super::access_state::{AccessState, Distrust};
use crate::access::{Credential, CredentialNumber, CredentialRead, Passage};
use crate::publish::Received;
use crate::publish::command::{Command, Gate, Refusal, Verb};
use crate::publish::passage::{PassageRefusal, Passages};
use crate::types::{DoorId, Factor, Moment, PersonId};

/// The longest message of a reader, in bytes.
const MAX_READ_BYTES: usize = 4096;

/// One message, understood or refused.
#[derive(Debug)]
pub(super) enum Heard {
    /// On no topic that means anything.
    Nothing,
    /// The one word that changes nothing and needs no signature: Home Assistant's button cannot sign.
    Ping,
    /// An operator's command under `cmd/<word>`.
    Command(String, Command),
    /// No command, though it came under `cmd/<word>`.
    CommandRefused(String, Refusal),
    /// A card or a number was read.
    Read(CredentialRead),
    /// What a reader said is not what readers say.
    ReadRefused(DoorId, &'static str),
    /// A door was opened for a grant, or was not; the second in which it was signed.
    Passed(Passage, i64),
    /// What a door said of a passage is not believed.
    PassageRefused(DoorId, PassageRefusal),
}

/// What a reader says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Presented {
    kind: Factor,
    number: Option<CredentialNumber>,
    /// Where a panel has looked the number up.
    person: Option<PersonId>,
}

/// Who judges, and what it remembers: the ids that were used.
pub(super) struct Inbox {
    pub(super) root: String,
    pub(super) gate: Gate,
    pub(super) passages: Passages,
    /// Raised once by whoever finds out that nobody can say what was used before this start.
    pub(super) distrust: Arc<Distrust>,
}

impl Inbox {
    /// With what the decider's memory says of what was used before this start.
    pub(super) fn new(root: String, mut gate: Gate, mut passages: Passages, state: &AccessState) -> Self {
        let used = state.used();
        used.command.into_iter().for_each(|until| gate.refuse_until(until));
        passages.refuse_until(used.passages.clone());
        Self { root, gate, passages, distrust: state.distrust() }
    }

    /// Takes a look at the clocks, often: what had ended stays so when the wall clock is set back.
    pub(super) fn look(&mut self, now: Moment, is_synced: bool) {
        self.gate.look(now, is_synced);
        self.passages.look(now, is_synced);
    }

    /// The end of the program: the time that was seen is written down.
    pub(super) fn keep(&mut self) {
        self.gate.keep();
        self.passages.keep();
    }

    /// Judges one message.
    pub(super) fn judge(&mut self, message: &Received, now: Moment) -> Heard {
        if let Some(since) = self.distrust.take() {
            self.gate.refuse_before(since);
            self.passages.refuse_before(since);
        }
        if let Some(door) = self.door_on(&message.topic, "credential") {
            return read(&door, message, now).map_or_else(|why| Heard::ReadRefused(door, why), Heard::Read);
        }
        if let Some(door) = self.door_on(&message.topic, "passage") {
            return match self.passages.admit(&door, message, now.wall) {
                Ok(claim) => Heard::Passed(Passage { door, jti: claim.grant, passed: claim.passed }, claim.iat),
                Err(refusal) => Heard::PassageRefused(door, refusal),
            };
        }
        let word = message.topic.strip_prefix(&self.root).and_then(|below| below.strip_prefix("/cmd/"));
        let Some(word) = word.map(str::to_owned) else { return Heard::Nothing };
        if word == Verb::Ping.as_str() && message.payload == b"ping" && !message.retained {
            return Heard::Ping;
        }
        match self.gate.admit(&word, message, now.wall) {
            Ok(command) => Heard::Command(word, command),
            Err(refusal) => Heard::CommandRefused(word, refusal),
        }
    }

    /// Which door speaks on this topic: `door/<door>/<what>`.
    fn door_on(&self, topic: &str, what: &str) -> Option<DoorId> {
        let door = topic.strip_prefix(&self.root)?.strip_prefix("/door/")?.strip_suffix(what)?.strip_suffix('/')?;
        DoorId::new(door).ok()
    }
}

/// A card or a number is one factor of two and opens nothing alone, so it is not signed: the broker's rules say who may publish it. Its
/// content reaches no log.
fn read(door: &DoorId, message: &Received, now: Moment) -> Result<CredentialRead, &'static str> {
    if message.retained {
        return Err("it was retained");
    }
    if message.payload.len() > MAX_READ_BYTES {
        return Err("it is too long");
    }
    let Presented { kind, number, person } =
        serde_json::from_slice(&message.payload).map_err(|_| "write {\"kind\": \"card\" or \"pin\", \"number\": …}")?;
    let credential = match (number, person) {
        (Some(number), None) => Credential::Number(number),
        (None, Some(person)) => Credential::Person(person),
        _ => return Err("give a number or a person"),
    };
    Ok(CredentialRead { door: door.clone(), kind, credential, at: now })
}
