//! Carries out what operators command over MQTT, answers, and audits both what was done and what was refused.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::desk::{self, DeskOrder};
use super::enrol::{self, EnrollArgs, Enroller, Refused};
use super::events;
use super::inbox::{Heard, Inbox};
use super::reports::Report;
use super::snapshots::{OnArgs, Snapshots};
use super::supervisor::{WorkerContext, WorkerError};
use crate::access;
use crate::gallery::{Allowed, Gallery, Rule};
use crate::publish::command::{Command, Refusal, Verb, answer_to};
use crate::publish::{Audit, Event, Inlet, Publisher, Received, Reply, audit};
use crate::system::{Quota, clock, clock_quality, messages};
use crate::types::{CameraId, DoorId, Embedding, GroupId, Person, PersonId, Score, Wall};

/// How long a message is waited for before the worker beats.
const PATIENCE: Duration = Duration::from_millis(500);
/// And while somebody waits to hear how an enrolment ended.
const WHILE_ENROLLING: Duration = Duration::from_millis(100);
/// How long an order waits for the decider, which takes milliseconds, and seconds where the disk does that it writes to: the order holds all
/// the same, and whoever gave it should hear so.
const ORDER_DEADLINE: Duration = Duration::from_secs(10);
/// Decisions of one answer to `replay`; more would not fit into a packet.
const MOST_REPLAYED: usize = 64;
/// The worker that obeys.
pub(super) struct Commands {
    pub(super) inbox: Inbox,
    pub(super) messages: Inlet,
    pub(super) publisher: Publisher,
    pub(super) audit: Arc<Audit>,
    /// To the decider, which knows what is locked down and keeps it over a restart.
    pub(super) decider: SyncSender<Report>,
    pub(super) gallery: Arc<Gallery>,
    pub(super) enroller: Enroller,
    pub(super) snapshots: Snapshots,
    /// The cameras that a person may be enrolled at.
    pub(super) cameras: Vec<CameraId>,
    /// A face as alike as this to somebody's is that person's.
    pub(super) matching: Score,
    pub(super) enrolling: Option<Enrolling>,
    /// Refused messages that are audited one by one: nobody fills the trail from outside.
    pub(super) refused: Quota,
    /// What readers said and nobody heard, in the log.
    pub(super) unheard: Quota,
}

/// An enrolment under way: who waits for its end.
pub(super) struct Enrolling {
    args: EnrollArgs,
    nonce: String,
    message: Received,
    outcome: Receiver<enrol::Outcome>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ReplayArgs {
    from: u64,
    limit: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DoorArgs {
    doors: Vec<DoorId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenArgs {
    door: DoorId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldArgs {
    doors: Vec<DoorId>,
    seconds: Option<u64>,
    /// RFC 3339.
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgiveArgs {
    person: Option<PersonId>,
    #[serde(default)]
    everybody: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonArgs {
    person: PersonId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetArgs {
    person: PersonId,
    name: Option<String>,
    groups: Option<Vec<GroupId>>,
    /// Milliseconds since 1970.
    expires_at: Option<Wall>,
}

/// What is asked of a verb; a verb that wants nothing takes none.
fn args<T: for<'de> Deserialize<'de> + Default>(value: &Value) -> Result<T, String> {
    if value.is_null() { Ok(T::default()) } else { needed(value) }
}

fn needed<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("its args: {error}"))
}

impl Commands {
    pub(super) fn run(&mut self, context: &WorkerContext) -> Result<(), WorkerError> {
        loop {
            context.beat();
            self.inbox.look(clock::now(), clock_quality().is_synced);
            self.end_enrolment();
            self.tell_unlisted();
            match self.messages.recv_timeout(if self.enrolling.is_some() { WHILE_ENROLLING } else { PATIENCE }) {
                Ok(message) => self.hear(&message),
                Err(RecvTimeoutError::Timeout) if !context.stop().is_asked() => {}
                Err(_) => {
                    self.inbox.keep();
                    return Ok(());
                }
            }
        }
    }

    fn hear(&mut self, message: &Received) {
        match self.inbox.judge(message, clock::now()) {
            Heard::Nothing => {}
            Heard::Ping => self.answer(Verb::Ping.as_str(), message, None, &Ok(pong())),
            Heard::Command(word, command) => {
                self.mark_used(&command);
                self.commanded(&word, &command, message);
            }
            Heard::CommandRefused(word, refusal) => self.refuse(&word, message, &refusal),
            Heard::Read(read) => {
                let door = read.door.clone();
                if self.decider.try_send(Report::Presented(read)).is_err() {
                    self.unheard(&door, "too much waits");
                }
            }
            Heard::ReadRefused(door, why) => self.unheard(&door, why),
            // Its id is used up: unlike a frame it would not come again.
            Heard::Passed(passage, issued) => drop(self.decider.send(Report::Passed(passage, issued))),
            Heard::PassageRefused(door, refusal) => {
                if self.is_listed() {
                    log::warn!(door = door.as_str(); "passage rejected: {refusal}");
                    self.note("passage-refused", json!({ "door": audit::outside(door.as_str()), "why": refusal.to_string() }));
                }
            }
        }
    }

    /// Has what witnesses the memory of used nonces know of it before the command is obeyed; it is written down with what the command
    /// changes. Where it cannot be, the command counts all the same: a lock-down that waits for a disk is none.
    fn mark_used(&self, command: &Command) {
        let (answer, answered) = sync_channel(1);
        let is_told = self.decider.send(Report::Used(command.issued_at, answer)).is_ok();
        if is_told && answered.recv_timeout(ORDER_DEADLINE).is_err() {
            log::warn!("the decider does not say that it knows a command's time");
        }
    }

    fn commanded(&mut self, word: &str, command: &Command, message: &Received) {
        let outcome = match command.verb {
            // Its answer comes when it has ended; that it began is audited now.
            Verb::Enroll => match self.begin_enrolment(command, message) {
                Ok(()) => {
                    let detail = json!({ "verb": word, "args": command.args, "nonce": command.nonce, "operator": command.operator, "began": true });
                    return self.note("command", detail);
                }
                Err(why) => Err(why),
            },
            _ => self.obey(command),
        };
        log::info!(MESSAGE_ID = messages::COMMAND, verb = word, ok = outcome.is_ok(); "command");
        let detail = json!({
            "verb": word, "args": command.args, "nonce": command.nonce, "issued_at": command.issued_at,
            "operator": command.operator,
            "error": outcome.as_ref().err(),
        });
        self.note("command", detail);
        self.answer(word, message, Some(&command.nonce), &outcome);
    }

    /// Whether one more refusal is written down on its own.
    fn is_listed(&mut self) -> bool {
        self.tell_unlisted();
        self.refused.is_listed(clock::monotonic())
    }

    /// Writes down how many were not written down one by one.
    fn tell_unlisted(&mut self) {
        let now = clock::monotonic();
        if let Some(unlisted) = self.refused.unlisted(now) {
            self.note("refused", json!({ "not_listed": unlisted }));
        }
        if let Some(unlisted) = self.unheard.unlisted(now) {
            log::warn!("what readers said was not heard {unlisted} more times");
        }
    }

    /// What a reader said reaches no log, and that it was not understood does.
    fn unheard(&mut self, door: &DoorId, why: &str) {
        self.tell_unlisted();
        if self.unheard.is_listed(clock::monotonic()) {
            log::warn!(door = door.as_str(); "what a reader said was not heard: {why}");
        }
    }

    fn refuse(&mut self, word: &str, message: &Received, refusal: &Refusal) {
        if self.is_listed() {
            log::warn!(MESSAGE_ID = messages::COMMAND_REFUSED, verb = audit::outside(word).as_str(); "command rejected: {refusal}");
            self.note("command-refused", json!({ "verb": audit::outside(word), "why": refusal.to_string() }));
        }
        // An unknown verb has no topic of ours to answer on, and a retained one no sender who waits.
        if !matches!(refusal, Refusal::Retained | Refusal::UnknownVerb) {
            self.answer(word, message, None, &Err(refusal.to_string()));
        }
    }

    fn note(&self, kind: &str, detail: Value) {
        events::note(&self.audit, &self.publisher, kind, detail);
    }

    /// On `cmd/<verb>/reply`, and where the sender wants it.
    fn answer(&self, word: &str, message: &Received, nonce: Option<&str>, outcome: &Result<Value, String>) {
        self.answer_by_code(word, message, nonce, outcome, None);
    }

    /// The same, with a word for programs why it was refused.
    fn answer_by_code(
        &self,
        word: &str,
        message: &Received,
        nonce: Option<&str>,
        outcome: &Result<Value, String>,
        code: Option<&str>,
    ) {
        let mut payload = json!({
            "ok": outcome.is_ok(), "verb": word, "nonce": nonce, "result": outcome.as_ref().ok(), "error": outcome.as_ref().err(),
            "time": clock::wall().rfc3339(),
        });
        if let Some(code) = code {
            payload["code"] = json!(code);
        }
        let payload = payload.to_string();
        // A nonce is a command's that was admitted: only an operator chooses where an answer goes.
        let (asked, correlation) = answer_to(&self.inbox.root, message, nonce.is_some());
        let reply =
            |topic: String, elsewhere| Reply { topic, elsewhere, payload: payload.clone(), correlation: correlation.clone() };
        self.publisher.publish(Event::Reply(reply(format!("cmd/{word}/reply"), false)));
        if let Some(topic) = asked {
            self.publisher.publish(Event::Reply(reply(topic, true)));
        }
    }

    fn obey(&mut self, command: &Command) -> Result<Value, String> {
        match command.verb {
            Verb::Ping => Ok(pong()),
            Verb::Replay => {
                let ReplayArgs { from, limit } = args(&command.args)?;
                let (events, next) = self.publisher.replay(from, limit.unwrap_or(MOST_REPLAYED).min(MOST_REPLAYED));
                let events: Vec<Value> = events.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
                Ok(json!({ "events": events, "next": next }))
            }
            Verb::Lockdown | Verb::Release => {
                let DoorArgs { doors } = args(&command.args)?;
                let is_lockdown = command.verb == Verb::Lockdown;
                let of = |door: Option<DoorId>| match is_lockdown {
                    true => access::Command::Lockdown { door },
                    false => access::Command::Release { door },
                };
                self.order(match doors.as_slice() {
                    [] => vec![of(None)],
                    doors => doors.iter().cloned().map(|door| of(Some(door))).collect(),
                })?;
                Ok(json!({ "lockdown": is_lockdown, "doors": doors }))
            }
            Verb::Open => {
                let OpenArgs { door } = needed(&command.args)?;
                self.desk(DeskOrder::Open(door), command)
            }
            Verb::HoldOpen => {
                let HoldArgs { doors, seconds, until } = needed(&command.args)?;
                if doors.is_empty() {
                    return Err("its args: doors: name the doors".to_owned());
                }
                self.desk(DeskOrder::Hold(doors, desk::hold_time(seconds, until.as_deref())?), command)
            }
            Verb::Forgive => {
                let ForgiveArgs { person, everybody } = needed(&command.args)?;
                if person.is_some() == everybody {
                    return Err("its args: give person, or everybody = true".to_owned());
                }
                self.order(vec![access::Command::Forgive { person: person.clone() }])?;
                Ok(json!({ "forgiven": person }))
            }
            Verb::List => Ok(self.list()),
            Verb::Set => self.change(needed(&command.args)?),
            Verb::Remove => {
                let PersonArgs { person } = needed(&command.args)?;
                self.known(&person)?;
                self.gallery.erase(&person).map_err(|error| error.to_string())?;
                Ok(self.size())
            }
            Verb::Rebuild => {
                self.gallery.compact().map_err(|error| error.to_string())?;
                Ok(self.size())
            }
            // Begun elsewhere, because it lasts.
            Verb::Enroll => Err("an enrolment is begun, not obeyed".to_owned()),
            Verb::SnapshotOn => {
                let OnArgs { seconds } = args(&command.args)?;
                self.snapshots.allow(clock::monotonic(), seconds)?;
                let until = clock::wall().plus(Duration::from_secs(seconds));
                log::warn!(seconds = seconds; "faces leave the device, sealed to their recipient");
                Ok(json!({ "until": until.rfc3339() }))
            }
            Verb::SnapshotOff => {
                self.snapshots.forbid();
                Ok(Value::Null)
            }
        }
    }

    fn begin_enrolment(&mut self, command: &Command, message: &Received) -> Result<(), String> {
        let args: EnrollArgs = needed(&command.args)?;
        if !self.cameras.contains(&args.camera) {
            return Err(format!("there is no camera `{}` that a person could be enrolled at", args.camera));
        }
        if !enrol::SECONDS.contains(&args.seconds) {
            return Err(format!("its args: seconds: give {} to {}", enrol::SECONDS.start(), enrol::SECONDS.end()));
        }
        if self.enrolling.is_some() {
            return Err("somebody is being enrolled: wait".to_owned());
        }
        let until = clock::monotonic().plus(Duration::from_secs(args.seconds));
        let outcome = self.enroller.begin(args.camera.clone(), until)?;
        self.enrolling = Some(Enrolling { args, nonce: command.nonce.clone(), message: message.clone(), outcome });
        Ok(())
    }

    /// Writes down who was enrolled and answers, once the enrolment has ended.
    fn end_enrolment(&mut self) {
        let gathered = match self.enrolling.as_ref().map(|enrolling| enrolling.outcome.try_recv()) {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(gathered)) => gathered,
            Some(Err(TryRecvError::Disconnected)) => Err(Refused::stopping()),
        };
        let Some(Enrolling { args, nonce, message, .. }) = self.enrolling.take() else { return };
        let outcome = gathered.and_then(|faces| self.enroll(&args, faces));
        log::info!(person = args.person.as_str(), ok = outcome.is_ok(); "an enrolment at a camera has ended");
        let code = outcome.as_ref().err().map(|refused| refused.code);
        let outcome = outcome.map_err(|refused| refused.text);
        let mut detail = json!({ "verb": "enroll", "person": args.person, "nonce": nonce, "error": outcome.as_ref().err() });
        if args.allow_other_face {
            detail["allow_other_face"] = json!(true);
        }
        self.note("command", detail);
        self.answer_by_code(Verb::Enroll.as_str(), &message, Some(&nonce), &outcome, code);
    }

    fn enroll(&self, args: &EnrollArgs, faces: Vec<Embedding>) -> Result<Value, Refused> {
        let known = self.gallery.snapshot().person(&args.person).cloned();
        let person = match known {
            Some(known) => Person {
                name: args.name.clone().or(known.name),
                groups: if args.groups.is_empty() { known.groups } else { args.groups.clone() },
                ..known
            },
            None => Person {
                id: args.person.clone(),
                name: args.name.clone(),
                groups: args.groups.clone(),
                consented_at: None,
                expires_at: None,
                enrolled_at: clock::wall(),
            },
        };
        let allowed = Allowed { duplicate: args.allow_duplicate, other_face: args.allow_other_face };
        let (admissions, done) = self.gallery.admit(vec![(person, faces)], &Rule { matching: self.matching, allowed });
        done.map_err(|error| Refused { code: "gallery", text: error.to_string() })?;
        let (mut added, mut there) = (0, 0);
        for admission in admissions {
            if let Some(why) = admission.why_nobody() {
                return Err(Refused { code: why.code(), text: format!("{why}; nobody was enrolled") });
            }
            (added, there) = (admission.added(), admission.already_there());
        }
        Ok(json!({"person": args.person, "templates_added": added, "already_there": there}))
    }

    /// Has the decider follow orders. They are in force and written down when this returns without an error.
    fn order(&self, orders: Vec<access::Command>) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        // When the decider's queue is full it is at work on frames; a lock-down must not be dropped like one of them.
        self.decider.send(Report::Ordered(orders, answer)).map_err(|_| "the daemon is stopping".to_owned())?;
        answered.recv_timeout(ORDER_DEADLINE).unwrap_or_else(|_| Err("the decider did not answer in time".to_owned()))
    }

    /// Has the decider do something at doors that is done once.
    fn desk(&self, order: DeskOrder, command: &Command) -> Result<Value, String> {
        let (answer, answered) = sync_channel(1);
        let report = Report::Desk(order, command.operator.clone(), answer);
        self.decider.send(report).map_err(|_| "the daemon is stopping".to_owned())?;
        answered.recv_timeout(ORDER_DEADLINE).unwrap_or_else(|_| Err("the decider did not answer in time".to_owned()))
    }

    /// Ids, groups and counts; names stay in the house.
    fn list(&self) -> Value {
        let snapshot = self.gallery.snapshot();
        let people = snapshot.people().map(|(person, templates)| {
            json!({ "id": person.id, "groups": person.groups, "templates": templates, "expires_at": person.expires_at })
        });
        json!({ "people": people.collect::<Vec<_>>() })
    }

    fn change(&self, args: SetArgs) -> Result<Value, String> {
        let known = self.known(&args.person)?;
        let changed = Person {
            name: args.name.or(known.name),
            groups: args.groups.unwrap_or(known.groups),
            expires_at: args.expires_at.or(known.expires_at),
            ..known
        };
        self.gallery.set(changed).map_err(|error| error.to_string())?;
        Ok(self.size())
    }

    fn known(&self, person: &PersonId) -> Result<Person, String> {
        self.gallery.snapshot().person(person).cloned().ok_or_else(|| format!("{person} is not enrolled"))
    }

    fn size(&self) -> Value {
        let stats = self.gallery.snapshot().stats();
        json!({ "people": stats.people, "templates": stats.templates })
    }
}

fn pong() -> Value {
    json!({ "version": env!("CARGO_PKG_VERSION") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::publish::contract::words;

    /// The members that a verb's arguments may have, as serde says them of one that it does not know.
    fn members<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
        let error = serde_json::from_value::<T>(json!({ "?": 1 })).err().unwrap().to_string();
        error.split("expected").nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_published_contract_has_every_argument_of_every_verb() {
        for order in words::ORDERS {
            let known = match Verb::of(order.verb).unwrap() {
                Verb::Ping | Verb::List | Verb::SnapshotOff | Verb::Rebuild => BTreeSet::new(),
                Verb::Replay => members::<ReplayArgs>(),
                Verb::Lockdown | Verb::Release => members::<DoorArgs>(),
                Verb::Set => members::<SetArgs>(),
                Verb::Remove => members::<PersonArgs>(),
                Verb::Enroll => members::<EnrollArgs>(),
                Verb::SnapshotOn => members::<OnArgs>(),
                Verb::Open => members::<OpenArgs>(),
                Verb::HoldOpen => members::<HoldArgs>(),
                Verb::Forgive => members::<ForgiveArgs>(),
            };
            let told: BTreeSet<String> = order.args.iter().map(|arg| arg.name.to_owned()).collect();
            assert_eq!(told, known, "{}", order.verb);
        }
    }
}
