//! What waits for the broker: in memory and, where there is a [`Journal`], on disk. Bounded; it knows no network and no clock.
//!
//! - A decision gets its sequence number here, is made durable, and stays until the broker has confirmed it. After a new connection
//!   everything that was not confirmed is handed out again, in order and with the same ids; what has expired meanwhile goes as history,
//!   without its grant. What a run before left unconfirmed is history from the start. When memory is full, the oldest decision goes on
//!   waiting on disk alone.
//! - A retained state (birth, camera status, presence) is kept for ever as its newest value, and handed out after each connection.
//!   Values between two deliveries are skipped.
//! - Everything else waits in line with the decisions.
//!
//! When the line is full, its oldest event that is no decision goes. When it holds decisions only, the oldest decision goes, whose
//! grant is the least likely to be of use: to disk, or, where that is full too or absent, for good; then subscribers see the gap, and an
//! `outbox-full` alarm says how many. A decision that the disk does not take is published all the same, and the daemon says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::journal::{Copy, Journal};
use super::payload::{Alarm, AlarmKind, CLOUD_EVENT_TYPE, Context, Event, JSON_TYPE, Reply};
use crate::types::Moment;

/// Marks a message while the broker has it; handed back when it is confirmed or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ticket {
    /// An event of the line that is no decision.
    Entry(u64),
    /// A decision's sequence number.
    Decision(u64),
    /// A state's topic and which of its values.
    State(String, u64),
    /// The alarm about so many lost decisions.
    Loss(u64),
    /// The device's own `online` or `offline`.
    Status,
}

/// One message, ready for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Below `<base>/<device>/`, unless `elsewhere`.
    pub topic: String,
    pub elsewhere: bool,
    /// What the sender of a command wants back with the answer.
    pub correlation: Option<Vec<u8>>,
    pub payload: String,
    pub retained: bool,
    /// QoS 1 if true, 0 otherwise.
    pub confirmed: bool,
    /// After how many seconds a broker must forget it.
    pub expiry_s: Option<u32>,
    pub content_type: &'static str,
}

/// What the outbox has seen since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events that wait now or are not confirmed yet.
    pub waiting: u64,
    /// Decisions among them.
    pub decisions_waiting: u64,
    /// Decisions that the broker has confirmed.
    pub decisions_delivered: u64,
    /// Decisions that were given up for want of room: each is a gap in the sequence.
    pub decisions_lost: u64,
    /// Other events that were given up.
    pub events_dropped: u64,
    /// Connections to the broker.
    pub connections: u64,
    /// Decisions that the disk did not take: they were published, and a restart forgets them.
    pub decisions_not_durable: u64,
}

struct Entry {
    number: u64,
    event: Event,
    context: Arc<Context>,
    /// Of a decision.
    sequence: u64,
    handed_out: bool,
}

struct Kept {
    event: Event,
    context: Arc<Context>,
    version: u64,
    handed_out: bool,
}

pub(super) struct Outbox {
    capacity: usize,
    line: VecDeque<Entry>,
    journal: Option<Journal>,
    /// Decisions that wait on disk alone; all are older than those of the line.
    backlog: BTreeSet<u64>,
    /// The first number of the backlog that was not handed out on this connection.
    backlog_from: u64,
    states: BTreeMap<String, Kept>,
    /// Numbers entries and the values of states.
    last_number: u64,
    next_sequence: u64,
    context: Arc<Context>,
    unreported_losses: u64,
    loss_handed_out: bool,
    counts: Counts,
}

impl Outbox {
    /// An empty one that numbers decisions from the context's first sequence number.
    pub(super) fn new(capacity: usize, context: Context) -> Self {
        Self {
            capacity: capacity.max(1),
            line: VecDeque::new(),
            journal: None,
            backlog: BTreeSet::new(),
            backlog_from: 0,
            states: BTreeMap::new(),
            last_number: 0,
            next_sequence: context.first_sequence,
            context: Arc::new(context),
            unreported_losses: 0,
            loss_handed_out: false,
            counts: Counts::default(),
        }
    }

    /// One that goes on where the journal ends.
    pub(super) fn durable(capacity: usize, context: Context, mut journal: Journal) -> Self {
        let context = Context { first_sequence: journal.next_sequence(), ..context };
        let backlog = journal.take_unconfirmed();
        Self { backlog, journal: Some(journal), ..Self::new(capacity, context) }
    }

    /// What later events say of the device; events that wait keep what they were made with.
    pub(super) fn set_context(&mut self, context: Context) {
        self.context = Arc::new(Context { first_sequence: self.context.first_sequence, ..context });
    }

    /// Up to `limit` decisions from number `from` on that are still on disk, as history, and the number to go on from.
    pub(super) fn replay(&self, from: u64, limit: usize) -> (Vec<String>, Option<u64>) {
        let Some(journal) = &self.journal else { return (Vec::new(), None) };
        let mut numbers = journal.from(from, limit.saturating_add(1));
        let next = (numbers.len() > limit).then(|| numbers.pop()).flatten();
        (numbers.into_iter().filter_map(|sequence| journal.read(sequence)).map(|copy| copy.payload).collect(), next)
    }

    /// Takes an event; false when another, or this one, was given up for it.
    pub(super) fn push(&mut self, event: Event) -> bool {
        let context = self.context.clone();
        self.last_number += 1;
        let number = self.last_number;
        if event.is_retained() {
            let topic = event.topic();
            // Topics come from the config's cameras; the bound is for a caller that invents them.
            if self.states.len() >= self.capacity && !self.states.contains_key(&topic) {
                self.counts.events_dropped += 1;
                return false;
            }
            self.states.insert(topic, Kept { event, context, version: number, handed_out: false });
            return true;
        }
        let is_decision = matches!(event, Event::Decision(_));
        let mut sequence = 0;
        if is_decision {
            sequence = self.next_sequence;
            self.next_sequence = self.next_sequence.saturating_add(1);
            self.write(&event, sequence);
        }
        let kept_all = self.line.len() < self.capacity || self.make_room(is_decision);
        if self.line.len() < self.capacity {
            self.line.push_back(Entry { number, event, context, sequence, handed_out: false });
        }
        kept_all
    }

    fn write(&mut self, event: &Event, sequence: u64) {
        let Some(journal) = &mut self.journal else { return };
        let payload = event.payload(&self.context, sequence, true);
        if let Err(error) = journal.write(sequence, Copy { topic: event.topic(), payload }) {
            log::error!("decision {sequence} is published without being on disk: {error}");
            self.counts.decisions_not_durable += 1;
        }
        for lost in journal.prune() {
            if self.backlog.remove(&lost) {
                self.counts.decisions_lost += 1;
                self.unreported_losses += 1;
            }
        }
    }

    /// Gives up one entry, or none if the newcomer is no decision and only decisions are there. False when something is lost.
    fn make_room(&mut self, for_decision: bool) -> bool {
        if let Some(index) = self.line.iter().position(|entry| !matches!(entry.event, Event::Decision(_))) {
            self.line.remove(index);
            self.counts.events_dropped += 1;
        } else if for_decision {
            let oldest = self.line.pop_front();
            if let (Some(entry), Some(journal)) = (&oldest, &self.journal)
                && journal.has(entry.sequence)
            {
                self.backlog.insert(entry.sequence);
                if entry.handed_out {
                    self.backlog_from = entry.sequence.saturating_add(1);
                }
                return true;
            }
            self.counts.decisions_lost += 1;
            self.unreported_losses += 1;
        } else {
            self.counts.events_dropped += 1;
        }
        false
    }

    /// A new connection: nothing that was not confirmed counts as handed out.
    pub(super) fn reconnected(&mut self) {
        self.counts.connections += 1;
        self.line.iter_mut().for_each(|entry| entry.handed_out = false);
        self.states.values_mut().for_each(|kept| kept.handed_out = false);
        self.loss_handed_out = false;
        self.backlog_from = 0;
    }

    /// A state is wanted again, whoever asks.
    pub(super) fn again(&mut self, wanted: impl Fn(&Event) -> bool) {
        self.states.values_mut().filter(|kept| wanted(&kept.event)).for_each(|kept| kept.handed_out = false);
    }

    /// The next message to hand to the client, with its ticket: birth and keys first, then the line, then the other states.
    pub(super) fn next(&mut self, now: Moment) -> Option<(Ticket, Message)> {
        // Keys before grants: a controller that has just learnt of a rotation can verify what follows.
        if let Some(state) = self.next_state(|topic| topic == "birth" || topic == "keys") {
            return Some(state);
        }
        if self.unreported_losses > 0 && !self.loss_handed_out {
            self.loss_handed_out = true;
            let alarm = Event::Alarm(Alarm {
                kind: AlarmKind::OutboxFull,
                door: None,
                camera: None,
                detail: format!("{} decisions were lost because no broker took them", self.unreported_losses),
                at: now.wall,
            });
            return Some((Ticket::Loss(self.unreported_losses), message(&alarm, &self.context, 0, now)));
        }
        // No grant is made before it has come back: it must not wait behind what an outage has left.
        let is_echo = |entry: &&mut Entry| !entry.handed_out && matches!(entry.event, Event::BirthEcho(_));
        if let Some(entry) = self.line.iter_mut().find(is_echo) {
            entry.handed_out = true;
            return Some((Ticket::Entry(entry.number), message(&entry.event, &entry.context, 0, now)));
        }
        if let Some(old) = self.next_of_backlog() {
            return Some(old);
        }
        if let Some(entry) = self.line.iter_mut().find(|entry| !entry.handed_out) {
            entry.handed_out = true;
            let is_decision = matches!(entry.event, Event::Decision(_));
            let ticket = if is_decision { Ticket::Decision(entry.sequence) } else { Ticket::Entry(entry.number) };
            return Some((ticket, message(&entry.event, &entry.context, entry.sequence, now)));
        }
        self.next_state(|_| true)
    }

    fn next_of_backlog(&mut self) -> Option<(Ticket, Message)> {
        loop {
            let sequence = *self.backlog.range(self.backlog_from..).next()?;
            self.backlog_from = sequence + 1;
            if let Some(Copy { topic, payload }) = self.journal.as_ref().and_then(|journal| journal.read(sequence)) {
                let content_type = CLOUD_EVENT_TYPE;
                let message = Message {
                    topic,
                    payload,
                    content_type,
                    elsewhere: false,
                    correlation: None,
                    retained: false,
                    confirmed: true,
                    expiry_s: None,
                };
                return Some((Ticket::Decision(sequence), message));
            }
            self.backlog.remove(&sequence);
            self.counts.decisions_lost += 1;
            self.unreported_losses += 1;
        }
    }

    fn next_state(&mut self, wanted: impl Fn(&str) -> bool) -> Option<(Ticket, Message)> {
        let (topic, kept) = self.states.iter_mut().find(|(topic, kept)| !kept.handed_out && wanted(topic))?;
        kept.handed_out = true;
        Some((Ticket::State(topic.clone(), kept.version), message(&kept.event, &kept.context, 0, Moment::default())))
    }

    /// The topic of what a ticket stands for, and whether it is a whole one.
    pub(super) fn topic_of(&self, ticket: &Ticket) -> Option<(String, bool)> {
        let of = |event: &Event| (event.topic(), event.is_elsewhere());
        match ticket {
            Ticket::Entry(number) => self.line.iter().find(|entry| entry.number == *number).map(|entry| of(&entry.event)),
            Ticket::Decision(sequence) => {
                let is_it = |entry: &&Entry| entry.sequence == *sequence && matches!(entry.event, Event::Decision(_));
                self.line.iter().find(is_it).map(|entry| of(&entry.event))
            }
            Ticket::State(topic, _) => self.states.get(topic).map(|kept| of(&kept.event)),
            Ticket::Loss(_) => Some((format!("alarm/{}", AlarmKind::OutboxFull.as_str()), false)),
            Ticket::Status => Some(("status".to_owned(), false)),
        }
    }

    /// The broker has it (or, for a QoS 0 message, the socket).
    pub(super) fn confirmed(&mut self, ticket: &Ticket) {
        match ticket {
            Ticket::Entry(number) => {
                if let Some(index) = self.line.iter().position(|entry| entry.number == *number) {
                    self.line.remove(index);
                }
            }
            Ticket::Decision(sequence) => {
                let is_it = |entry: &Entry| entry.sequence == *sequence && matches!(entry.event, Event::Decision(_));
                let in_line = self.line.iter().position(is_it);
                if in_line.and_then(|index| self.line.remove(index)).is_some() || self.backlog.remove(sequence) {
                    self.counts.decisions_delivered += 1;
                    if let Some(journal) = &mut self.journal {
                        journal.confirm(*sequence);
                    }
                }
            }
            Ticket::Loss(reported) => {
                self.unreported_losses = self.unreported_losses.saturating_sub(*reported);
                self.loss_handed_out = false;
            }
            // A state stays, to be handed out after the next connection.
            Ticket::State(..) | Ticket::Status => {}
        }
    }

    /// The broker does not want it. A decision stays and is tried again after the next connection, when the broker's rules may have
    /// been mended; another event is given up. Whether it was an answer on a topic that is not ours.
    pub(super) fn refused(&mut self, ticket: &Ticket) -> bool {
        if let Ticket::Entry(number) = ticket
            && let Some(index) = self.line.iter().position(|entry| entry.number == *number)
        {
            self.counts.events_dropped += 1;
            return self.line.remove(index).is_some_and(|entry| matches!(entry.event, Event::Reply(Reply { elsewhere: true, .. })));
        }
        false
    }

    /// Whether everything has been handed out.
    pub(super) fn is_handed_out(&self) -> bool {
        let is_backlog_out = self.backlog.range(self.backlog_from..).next().is_none();
        is_backlog_out && self.line.iter().all(|entry| entry.handed_out) && self.states.values().all(|kept| kept.handed_out)
    }

    /// The counts.
    pub(super) fn counts(&self) -> Counts {
        let decisions = self.line.iter().filter(|entry| matches!(entry.event, Event::Decision(_))).count();
        let backlog = self.backlog.len() as u64;
        Counts { waiting: self.line.len() as u64 + backlog, decisions_waiting: decisions as u64 + backlog, ..self.counts }
    }
}

fn message(event: &Event, context: &Context, sequence: u64, now: Moment) -> Message {
    let mut historical = false;
    let mut expiry_s = None;
    let mut content_type = JSON_TYPE;
    if let Event::Decision(decision) = event {
        content_type = CLOUD_EVENT_TYPE;
        // Either clock is enough: a wall clock that was set forward ends grants at the door too.
        historical = now.monotonic >= decision.expires_at.monotonic || now.wall >= decision.expires_at.wall;
        // Rounded down, so that no broker keeps a grant beyond its end; under a second it is one, the least that the protocol has,
        // and the door's own check of `exp` decides.
        let left = decision.expires_at.monotonic.since(now.monotonic);
        expiry_s = (!historical).then(|| whole_seconds(left));
    }
    let correlation = if let Event::Reply(reply) = event { reply.correlation.clone() } else { None };
    Message {
        topic: event.topic(),
        elsewhere: event.is_elsewhere(),
        correlation,
        payload: event.payload(context, sequence, historical),
        retained: event.is_retained(),
        confirmed: event.is_confirmed(),
        expiry_s,
        content_type,
    }
}

fn whole_seconds(left: Duration) -> u32 {
    u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::payload::CameraWord;
    use super::super::payload::tests::{camera, context, event, granted, stats};
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(ms))
    }

    fn outbox(capacity: usize) -> Outbox {
        Outbox::new(capacity, context())
    }

    /// Takes all that is there: `#sequence` for a decision, the topic for anything else.
    fn drain(outbox: &mut Outbox) -> Vec<(String, Ticket)> {
        std::iter::from_fn(|| outbox.next(at(0)))
            .map(|(ticket, message)| {
                let value: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
                let name = value["sequence"].as_str().map_or(message.topic, |text| format!("#{}", text.trim_start_matches('0')));
                (name, ticket)
            })
            .collect()
    }

    fn names(drained: &[(String, Ticket)]) -> Vec<&str> {
        drained.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_full_line_gives_up_the_oldest_event_that_is_no_decision() {
        let mut outbox = outbox(3);
        assert!(outbox.push(event(1)) && outbox.push(stats()) && outbox.push(event(2)));
        assert!(!outbox.push(event(3)));
        assert!(!outbox.push(stats()), "decisions stay, the newcomer goes");
        assert_eq!(names(&drain(&mut outbox)), ["#1", "#2", "#3"]);
        assert_eq!((outbox.counts().events_dropped, outbox.counts().decisions_lost), (2, 0));
    }

    #[test]
    fn a_line_of_decisions_gives_up_the_oldest_and_says_so_in_an_alarm() {
        let mut outbox = outbox(2);
        (1..=4).for_each(|n| {
            outbox.push(event(n));
        });
        let drained = drain(&mut outbox);
        assert_eq!(names(&drained), ["alarm/outbox-full", "#3", "#4"]);
        assert_eq!(outbox.counts().decisions_lost, 2);
        outbox.reconnected();
        assert_eq!(names(&drain(&mut outbox))[0], "alarm/outbox-full", "not confirmed yet");
        drained.iter().for_each(|(_, ticket)| outbox.confirmed(ticket));
        outbox.reconnected();
        assert_eq!(names(&drain(&mut outbox)), Vec::<&str>::new());
    }

    #[test]
    fn what_was_not_confirmed_comes_again_in_order_and_with_the_same_text() {
        let mut outbox = outbox(8);
        (1..=4).for_each(|n| {
            outbox.push(event(n));
        });
        let first: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).collect();
        outbox.confirmed(&first[1].0);
        outbox.reconnected();
        let again: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).collect();
        assert_eq!(again, [first[0].clone(), first[2].clone(), first[3].clone()]);
        assert_eq!(outbox.counts().decisions_delivered, 1);
    }

    #[test]
    fn a_decision_is_history_without_its_grant_once_it_has_expired_by_either_clock() {
        let expires = granted(1, 1_000).expires_at;
        let wall_set_forward = Moment { wall: expires.wall, ..at(1_000) };
        for now in [expires, wall_set_forward] {
            let mut outbox = outbox(4);
            outbox.push(Event::Decision(Box::new(granted(1, 1_000))));
            let (_, message) = outbox.next(now).unwrap();
            assert!(message.payload.contains(r#""historical":true"#) && !message.payload.contains("signature"));
            assert_eq!(message.expiry_s, None, "an audit copy waits for whoever was away");
        }
        let mut outbox = outbox(4);
        outbox.push(Event::Decision(Box::new(granted(1, 1_000))));
        let (_, message) = outbox.next(at(2_500)).unwrap();
        assert!(message.payload.contains("signature"));
        assert_eq!(message.expiry_s, Some(8));
    }

    #[test]
    fn states_are_their_newest_value_and_come_again_after_each_connection() {
        let mut outbox = outbox(4);
        outbox.push(camera(CameraWord::Offline));
        outbox.push(camera(CameraWord::Online));
        let (ticket, message) = outbox.next(at(0)).unwrap();
        assert!(message.payload.contains(r#""status":"online""#) && message.retained);
        outbox.confirmed(&ticket);
        assert!(outbox.next(at(0)).is_none() && outbox.is_handed_out());
        outbox.reconnected();
        assert!(outbox.next(at(0)).is_some());
    }

    fn durable(folder: &std::path::Path, capacity: usize) -> Outbox {
        let key = super::super::sealed::tests::key();
        let journal = Journal::open(folder, &key, 1 << 20, Duration::from_secs(3600)).unwrap();
        Outbox::durable(capacity, context(), journal)
    }

    #[test]
    fn a_restart_delivers_what_was_not_confirmed_as_history_in_order_and_numbers_on_without_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = durable(folder.path(), 8);
        (1..=4).for_each(|n| assert!(first.push(event(n))));
        let before: Vec<_> = std::iter::from_fn(|| first.next(at(0))).collect();
        assert!(before[0].1.payload.contains("signature"));
        first.confirmed(&before[1].0);
        drop(first);
        let mut second = durable(folder.path(), 8);
        assert!(second.push(event(5)));
        let after: Vec<_> = std::iter::from_fn(|| second.next(at(0))).collect();
        let sequences: Vec<_> = after.iter().map(|(ticket, _)| ticket.clone()).collect();
        assert_eq!(sequences, [1, 3, 4, 5].map(Ticket::Decision));
        for (_, message) in &after[..3] {
            assert!(message.payload.contains(r#""historical":true"#) && !message.payload.contains("signature"));
            assert_eq!((message.expiry_s, message.confirmed), (None, true));
        }
        assert!(after[3].1.payload.contains("signature"), "the live one is live");
        let id = |payload: &str| serde_json::from_str::<serde_json::Value>(payload).unwrap()["id"].clone();
        assert_eq!(id(&after[1].1.payload), id(&before[2].1.payload), "the same decision has the same id");
        after.iter().for_each(|(ticket, _)| second.confirmed(ticket));
        assert_eq!(second.counts().waiting, 0);
        drop(second);
        assert!(durable(folder.path(), 8).next(at(0)).is_none(), "confirmed is confirmed");
    }

    #[test]
    fn a_long_outage_goes_to_disk_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = durable(folder.path(), 4);
        (1..=50).for_each(|n| assert!(outbox.push(event(n)), "decision {n} was given up"));
        assert_eq!(outbox.counts().decisions_waiting, 50);
        let half: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).take(25).collect();
        half.iter().take(10).for_each(|(ticket, _)| outbox.confirmed(ticket));
        outbox.reconnected();
        let rest: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).map(|(ticket, _)| ticket).collect();
        assert_eq!(rest, (11..=50).map(Ticket::Decision).collect::<Vec<_>>());
        assert_eq!((outbox.counts().decisions_lost, outbox.counts().decisions_delivered), (0, 10));
    }

    #[test]
    fn a_decision_that_moves_to_disk_while_it_is_under_way_is_not_handed_out_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = durable(folder.path(), 2);
        outbox.push(event(1));
        outbox.push(event(2));
        let under_way: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).collect();
        outbox.push(event(3));
        assert_eq!(outbox.next(at(0)).unwrap().0, Ticket::Decision(3));
        assert!(outbox.next(at(0)).is_none());
        under_way.iter().for_each(|(ticket, _)| outbox.confirmed(ticket));
        assert_eq!(outbox.counts().decisions_waiting, 1);
    }

    #[test]
    fn replay_gives_confirmed_decisions_again_as_history_and_where_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = durable(folder.path(), 8);
        (1..=5).for_each(|n| assert!(outbox.push(event(n))));
        let all: Vec<_> = std::iter::from_fn(|| outbox.next(at(0))).collect();
        all.iter().for_each(|(ticket, _)| outbox.confirmed(ticket));
        let (copies, next) = outbox.replay(2, 3);
        assert_eq!((copies.len(), next), (3, Some(5)));
        assert!(copies.iter().all(|copy| copy.contains(r#""historical":true"#) && !copy.contains("signature")));
        assert_eq!(outbox.replay(6, 3), (vec![], None));
    }

    #[test]
    fn a_refused_decision_waits_for_the_next_connection_and_a_refused_event_goes() {
        let mut outbox = outbox(4);
        outbox.push(event(1));
        outbox.push(stats());
        let reply = |elsewhere| Reply { topic: "desk/7".into(), elsewhere, payload: "{}".into(), correlation: None };
        outbox.push(Event::Reply(reply(false)));
        outbox.push(Event::Reply(reply(true)));
        let is_elsewhere: Vec<_> = drain(&mut outbox).iter().map(|(_, ticket)| outbox.refused(ticket)).collect();
        assert_eq!(
            is_elsewhere,
            [false, false, false, true],
            "an answer where its sender asked for it says nothing of our own rights"
        );
        assert_eq!(names(&drain(&mut outbox)), Vec::<&str>::new());
        outbox.reconnected();
        assert_eq!(names(&drain(&mut outbox)), ["#1"]);
    }
}
