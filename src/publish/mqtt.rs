//! The connection to the broker: [`Worker::run`] for ever around one straight connection.
//!
//! Two futures share one thread, and neither ever waits for the other: one polls rumqttc's event loop without being cancelled, the
//! other feeds it by `try_publish` from the outbox, and only while its window has room. So the deadlock of a thread that publishes
//! into the full queue which it alone could drain (rumqttc's issues 263 and 910) cannot be built. Each connection gets a fresh client
//! with a clean session: what is pending lives in the outbox, which no reconnection can lose.

mod hearing;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Filter, LastWill, Packet, PubAck, PubAckReason, PublishProperties, SubAck};
use rumqttc::v5::{AsyncClient, Event as Happening, MqttOptions};
use tokio::sync::Notify;

use super::connect::{self, Course, MAX_PACKET_BYTES, Problem};
use super::filters::Filters;
use super::journal::Journal;
use super::kept::{self, Kept, KeptEar, KeptMouth};
use super::lanes::{Dropped, Lanes};
use super::outbox::{Counts, Message, Outbox, Ticket};
use super::payload::{Context, Event};
use super::settings::Settings;
use super::subscribe::{self, Received};
use super::wire::Wire;
use crate::system::Stop;
use crate::system::clock;
use crate::types::Moment;

/// How many messages may be with the client and not confirmed. More than a door ever has; a flood after an outage moves at this
/// many a round trip.
const WINDOW: usize = 16;
/// The client's own queue: the window and the two messages of a goodbye always fit.
const CLIENT_QUEUE: usize = WINDOW + 8;
/// How often the feeding future looks at the stop signal and beats when nothing else wakes it.
const TICK: Duration = Duration::from_millis(100);
/// What a packet may have besides topic, payload and correlation data: header and other properties.
const PACKET_OVERHEAD_BYTES: usize = 128;

/// How the connection is, for `doctor`, the health page and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The first try is under way.
    Connecting,
    /// Connected.
    Online {
        /// What the broker did not take since, in words; it is tried again after the next connection.
        refusal: Option<String>,
    },
    /// Not connected; the next try comes by itself.
    Failed(Problem),
    /// The worker has ended.
    Stopped,
}

struct Shared {
    outbox: Mutex<Outbox>,
    state: Mutex<State>,
    wake: Notify,
    dropped: Mutex<Arc<Dropped>>,
}

impl Shared {
    // A thread that panicked in here left the outbox whole: every method leaves it so between its steps.
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that the broker refuses on a connection stands in the state; whether this is it.
    fn note_refusal(&self, text: String) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Online { refusal: refusal @ None } = &mut *state else { return false };
        *refusal = Some(text);
        true
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// What the other rooms hold: puts events into the outbox and never waits for the network.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

impl Publisher {
    /// A publisher and the worker that delivers for it; `secrets` is where secrets lie that are no credentials of the service.
    pub fn new(settings: Settings, context: Context, secrets: &Path) -> (Self, Worker) {
        let outbox = Outbox::new(capacity(&settings), context.clone());
        Self::over(outbox, settings, &context, secrets)
    }

    /// As [`Publisher::new`], with every decision on disk before it is published.
    pub fn durable(settings: Settings, context: Context, secrets: &Path, journal: Journal) -> (Self, Worker) {
        let outbox = Outbox::durable(capacity(&settings), context.clone(), journal);
        Self::over(outbox, settings, &context, secrets)
    }

    fn over(outbox: Outbox, settings: Settings, context: &Context, secrets: &Path) -> (Self, Worker) {
        let root = settings.topic_root(&context.device);
        let client_id = settings.client_id(&context.device);
        let (outbox, state) = (Mutex::new(outbox), Mutex::new(State::Connecting));
        let shared = Arc::new(Shared { outbox, state, wake: Notify::new(), dropped: Mutex::default() });
        let worker =
            Worker { shared: shared.clone(), settings, secrets: secrets.to_owned(), root, client_id, lanes: None, kept: None };
        (Self(shared), worker)
    }

    /// Takes an event for delivery; false when something had to be given up for want of room (see [`Publisher::counts`]).
    pub fn publish(&self, event: Event) -> bool {
        let kept_all = self.0.outbox().push(event);
        self.0.wake.notify_one();
        kept_all
    }

    /// From now on events say this of the device.
    pub fn set_context(&self, context: Context) {
        self.0.outbox().set_context(context);
    }

    /// Up to `limit` decisions from number `from` on, as history, and the number to go on from: see [`Journal`].
    pub fn replay(&self, from: u64, limit: usize) -> (Vec<String>, Option<u64>) {
        self.0.outbox().replay(from, limit)
    }

    /// How the connection is.
    pub fn state(&self) -> State {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came from the broker and was dropped for want of room, by kind.
    pub fn dropped(&self) -> Vec<(&'static str, u64)> {
        self.0.dropped.lock().unwrap_or_else(PoisonError::into_inner).counts().collect()
    }

    /// What waits, was delivered, and was lost.
    pub fn counts(&self) -> Counts {
        self.0.outbox().counts()
    }
}

fn capacity(settings: &Settings) -> usize {
    usize::try_from(settings.queue_events).unwrap_or(usize::MAX)
}

/// What the MQTT thread runs.
pub struct Worker {
    shared: Arc<Shared>,
    settings: Settings,
    secrets: PathBuf,
    root: String,
    client_id: String,
    lanes: Option<Mutex<Lanes>>,
    kept: Option<KeptMouth>,
}

/// How one connection ended.
enum End {
    /// We were told to stop.
    Stopped,
    /// Something failed; with how long we had been online.
    Failed(Problem, Option<Duration>),
}

/// What rumqttc has of ours. Requests are handled in the order they were given, and the event of each names its packet id.
#[derive(Default)]
struct Session {
    online_since: Option<Instant>,
    /// When the broker last confirmed something, or had nothing to confirm.
    heard: Option<Instant>,
    max_packet_bytes: Option<usize>,
    /// Given to the client, not yet sent.
    handed: VecDeque<Ticket>,
    /// Sent, not yet confirmed, by packet id.
    sent: HashMap<u16, Ticket>,
    /// Held back by the client because their packet id is still in use.
    held: HashMap<u16, Ticket>,
    filters: Filters,
}

impl Session {
    fn under_way(&self) -> usize {
        self.handed.len() + self.sent.len() + self.held.len()
    }
}

impl Worker {
    /// From now on what comes on `cmd/<verb>` and from doors goes into these lanes. Home Assistant's start is heard too.
    pub fn hear_commands(&mut self, lanes: Lanes) {
        *self.shared.dropped.lock().unwrap_or_else(PoisonError::into_inner) = lanes.dropped();
        self.lanes = Some(Mutex::new(lanes));
    }

    /// Delivers until told to stop, then says `offline` if it can within the time of the settings. `beat` is called at least once a
    /// second.
    pub fn run(&self, stop: &Stop, beat: &dyn Fn()) {
        let mut course = Course::new(&self.settings, &self.client_id);
        self.warn_of_open_password();
        while !stop.is_asked() {
            match self.run_once(stop, beat) {
                End::Stopped => break,
                End::Failed(problem, online) => {
                    self.tell_kept(|| Kept::Ended);
                    // A broker that is away for a night makes one line, not thousands; so does one that throws us out at once.
                    let (problem, is_news) = course.ended(problem, online, clock::monotonic());
                    log::log!(if is_news { log::Level::Warn } else { log::Level::Debug }, "{problem}");
                    self.shared.set_state(State::Failed(problem));
                }
            }
            if wait(course.next_delay(), stop, beat) {
                break;
            }
        }
        self.shared.set_state(State::Stopped);
        let waiting = self.shared.outbox().counts().decisions_waiting;
        if waiting > 0 {
            log::error!("not delivered before the end: decisions {waiting}");
        }
    }

    /// One connection, from its first byte to its last.
    fn run_once(&self, stop: &Stop, beat: &dyn Fn()) -> End {
        let options = match self.options() {
            Ok(options) => options,
            Err(problem) => return End::Failed(problem, None),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return End::Failed(Problem::Setup(error.to_string()), None),
        };
        let session = RefCell::new(Session::default());
        let end = runtime.block_on(async {
            let (client, mut wire) = Wire::new(options, CLIENT_QUEUE, MAX_PACKET_BYTES);
            tokio::select! {
                end = self.listen(&mut wire, &client, &session) => end,
                end = self.feed(&client, &session, stop, beat) => end,
            }
        });
        // A name resolution that hangs must not hold up a stop.
        runtime.shutdown_background();
        end
    }

    fn warn_of_open_password(&self) {
        let is_here = self.settings.host == "localhost" || self.settings.host.starts_with("127.");
        if self.settings.user.is_some() && !self.settings.tls.enabled && !is_here {
            log::warn!(
                "the password for broker {} goes over the network in the clear: set [publish.tls] enabled",
                self.settings.host
            );
        }
    }

    fn options(&self) -> Result<MqttOptions, Problem> {
        let mut options = connect::options(&self.settings, &self.secrets, &self.client_id)?;
        options.set_last_will(LastWill::new(self.topic("status"), "lost", QoS::AtLeastOnce, true, None));
        Ok(options)
    }

    fn topic(&self, below: &str) -> String {
        format!("{}/{below}", self.root)
    }

    /// Polls the client and takes in what happened, until the connection ends.
    async fn listen(&self, wire: &mut Wire, client: &AsyncClient, session: &RefCell<Session>) -> End {
        loop {
            match wire.next().await {
                Ok(Happening::Incoming(Packet::ConnAck(connected))) => {
                    self.connected(&connected, &mut session.borrow_mut(), client);
                }
                Ok(Happening::Incoming(Packet::PubAck(ack))) => self.acknowledged(&ack, &mut session.borrow_mut()),
                Ok(Happening::Outgoing(Outgoing::Publish(id))) => self.sent(id, &mut session.borrow_mut()),
                Ok(Happening::Outgoing(Outgoing::AwaitAck(id))) => {
                    let mut session = session.borrow_mut();
                    if let Some(ticket) = session.handed.pop_front() {
                        session.held.insert(id, ticket);
                    }
                }
                Ok(Happening::Outgoing(Outgoing::Subscribe(id))) => session.borrow_mut().filters.sent(id),
                Ok(Happening::Incoming(Packet::SubAck(answer))) => self.subscribed(&answer, &mut session.borrow_mut()),
                Ok(Happening::Incoming(Packet::Publish(publish))) => self.heard(subscribe::received(&publish), clock::now()),
                Ok(Happening::Outgoing(Outgoing::Disconnect)) => return End::Stopped,
                Ok(_) => {}
                Err(error) => {
                    let online = session.borrow().online_since.map(|since| since.elapsed());
                    return End::Failed(connect::problem(&error, &self.settings, online.is_some()), online);
                }
            }
        }
    }

    fn connected(&self, connected: &ConnAck, session: &mut Session, client: &AsyncClient) {
        log::info!("connected to broker {}:{} as `{}`", self.settings.host, self.settings.port, self.client_id);
        session.online_since = Some(Instant::now());
        let limit = connected.properties.as_ref().and_then(|properties| properties.max_packet_size);
        session.max_packet_bytes = limit.and_then(|bytes| usize::try_from(bytes).ok());
        self.shared.outbox().reconnected();
        self.shared.set_state(State::Online { refusal: None });
        self.subscribe(client, session);
        self.say(client, session, "online");
        self.shared.wake.notify_one();
    }

    /// Takes in what the broker brought: Home Assistant's word here, everything else for whoever hears commands.
    pub(crate) fn heard(&self, message: Received, now: Moment) {
        if message.topic == self.settings.home_assistant_birth_topic {
            if message.payload == b"online" {
                self.shared.outbox().again(|event| matches!(event, Event::Discovery(_)));
                self.shared.wake.notify_one();
            }
        } else if message.topic.strip_prefix(&self.root) == Some("/birth") {
            self.tell_kept(|| Kept::Message(message));
        } else if let Some(lanes) = &self.lanes {
            lanes.lock().unwrap_or_else(PoisonError::into_inner).take(message, now);
        }
    }

    fn sent(&self, id: u16, session: &mut Session) {
        let Some(ticket) = session.held.remove(&id).or_else(|| session.handed.pop_front()) else { return };
        // Packet id 0 is QoS 0: the socket has it, and nothing more will be heard.
        if id == 0 {
            self.shared.outbox().confirmed(&ticket);
            self.shared.wake.notify_one();
        } else {
            session.sent.insert(id, ticket);
        }
    }

    fn acknowledged(&self, ack: &PubAck, session: &mut Session) {
        let Some(ticket) = session.sent.remove(&ack.pkid) else { return };
        session.heard = Some(Instant::now());
        match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => self.shared.outbox().confirmed(&ticket),
            reason => self.refuse(&ticket, &format!("{reason:?}")),
        }
        self.shared.wake.notify_one();
    }

    /// Says once a connection that the broker does not take something. Where a sender of commands may not be answered on its own topic,
    /// nothing of ours is amiss, and nobody's topic hides what is.
    fn refuse(&self, ticket: &Ticket, reason: &str) {
        let topic = match self.shared.outbox().topic_of(ticket) {
            Some((topic, true)) => topic,
            Some((topic, false)) => self.topic(&topic),
            None => self.topic("#"),
        };
        if self.shared.outbox().refused(ticket) {
            log::warn!("the broker did not take an answer on the topic that its sender asked for ({reason})");
            return;
        }
        let text = format!(
            "the broker did not take a message on {topic} ({reason}): may this user write to it? Check the broker's access rules (ACL)"
        );
        let is_first = self.shared.note_refusal(text.clone());
        log::log!(if is_first { log::Level::Error } else { log::Level::Debug }, "{text}");
    }

    /// Gives the client what the outbox has while the window has room, and says goodbye when told to stop.
    async fn feed(&self, client: &AsyncClient, session: &RefCell<Session>, stop: &Stop, beat: &dyn Fn()) -> End {
        let mut goodbye: Option<Goodbye> = None;
        loop {
            beat();
            if let Some(lanes) = &self.lanes {
                lanes.lock().unwrap_or_else(PoisonError::into_inner).tell(clock::monotonic());
            }
            let online = session.borrow().online_since.is_some();
            if stop.is_asked() && !online {
                return End::Stopped;
            }
            if self.is_deaf(&mut session.borrow_mut()) {
                let broker = format!("{}:{}", self.settings.host, self.settings.port);
                let detail = "it confirms nothing within `ack-timeout-s`".into();
                return End::Failed(Problem::Lost { broker, detail }, session.borrow().online_since.map(|since| since.elapsed()));
            }
            if online && goodbye.as_ref().is_none_or(|goodbye| !goodbye.said) {
                self.hand_out(client, &mut session.borrow_mut());
                self.ask_again(client, &mut session.borrow_mut());
            }
            if stop.is_asked() {
                let goodbye = goodbye.get_or_insert_with(|| Goodbye::new(self.settings.flush_timeout_ms));
                if self.leave(goodbye, client, &mut session.borrow_mut()) {
                    return End::Stopped;
                }
            }
            // Running out of time here is the tick.
            let _ = tokio::time::timeout(TICK, self.shared.wake.notified()).await;
        }
    }

    /// Whether the broker owes a confirmation for too long: one that answers pings and nothing else would hold up all that waits.
    fn is_deaf(&self, session: &mut Session) -> bool {
        let now = Instant::now();
        if session.under_way() == 0 {
            session.heard = Some(now);
        }
        let patience = Duration::from_secs(u64::from(self.settings.ack_timeout_s));
        session.heard.is_some_and(|heard| now.duration_since(heard) >= patience)
    }

    fn hand_out(&self, client: &AsyncClient, session: &mut Session) {
        while session.under_way() < WINDOW {
            let Some((ticket, message)) = self.shared.outbox().next(clock::now()) else { return };
            let correlation = message.correlation.as_ref().map_or(0, Vec::len);
            let bytes = self.root.len() + message.topic.len() + message.payload.len() + correlation + PACKET_OVERHEAD_BYTES;
            if session.max_packet_bytes.is_some_and(|limit| bytes > limit) {
                // rumqttc would end the connection over it, and the next one, for ever.
                self.refuse(&ticket, &format!("{bytes} bytes are more than it allows"));
                continue;
            }
            if !self.give(client, session, ticket, message) {
                return;
            }
        }
    }

    /// Hands one message to the client; false when its queue is full, which the window rules out.
    fn give(&self, client: &AsyncClient, session: &mut Session, ticket: Ticket, message: Message) -> bool {
        let qos = if message.confirmed { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: message.expiry_s,
            content_type: Some(message.content_type.to_owned()),
            correlation_data: message.correlation.map(Into::into),
            ..PublishProperties::default()
        };
        let topic = if message.elsewhere { message.topic.clone() } else { self.topic(&message.topic) };
        let given = client.try_publish_with_properties(topic, qos, message.retained, message.payload, properties).is_ok();
        if given {
            session.handed.push_back(ticket);
        } else {
            log::error!("the MQTT client took no message on {}", message.topic);
        }
        given
    }

    /// Publishes the device's own status, retained.
    fn say(&self, client: &AsyncClient, session: &mut Session, word: &str) {
        let message = Message {
            topic: "status".into(),
            elsewhere: false,
            correlation: None,
            payload: word.into(),
            retained: true,
            confirmed: true,
            expiry_s: None,
            content_type: "text/plain",
        };
        self.give(client, session, Ticket::Status, message);
    }

    /// One step of leaving: drain, say `offline`, have it confirmed, disconnect. True when there is nothing more to wait for; the
    /// usual end is the client's word that it has sent the disconnect.
    fn leave(&self, goodbye: &mut Goodbye, client: &AsyncClient, session: &mut Session) -> bool {
        let now = Instant::now();
        let idle = session.under_way() == 0;
        if !goodbye.said && ((idle && self.shared.outbox().is_handed_out()) || now >= goodbye.drain_until) {
            self.say(client, session, "offline");
            goodbye.said = true;
        } else if goodbye.said && !goodbye.disconnecting && (idle || now >= goodbye.confirm_until) {
            goodbye.disconnecting = client.try_disconnect().is_ok();
        }
        now >= goodbye.leave_at
    }
}

/// The times of a clean stop: half of it for what waits, most of the rest for the confirmation of `offline`.
struct Goodbye {
    drain_until: Instant,
    confirm_until: Instant,
    leave_at: Instant,
    said: bool,
    disconnecting: bool,
}

impl Goodbye {
    fn new(flush_timeout_ms: u32) -> Self {
        let (now, whole) = (Instant::now(), Duration::from_millis(u64::from(flush_timeout_ms)));
        Self {
            drain_until: now + whole / 2,
            confirm_until: now + whole * 9 / 10,
            leave_at: now + whole,
            said: false,
            disconnecting: false,
        }
    }
}

/// Sleeps in steps that keep the heart beating; true when told to stop.
fn wait(delay: Duration, stop: &Stop, beat: &dyn Fn()) -> bool {
    let until = Instant::now() + delay;
    loop {
        beat();
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.is_asked() {
            return stop.is_asked();
        }
        if stop.sleep(left.min(Duration::from_millis(500))) {
            return true;
        }
    }
}
