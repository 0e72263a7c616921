//! A client for those who listen: `faceid watch`, `faceid demo`, `faceid command`, the door's controller, and tests. Connects,
//! subscribes, says little, and goes on after a lost connection.
//!
//! What it says is kept here, not by rumqttc: a state is said again after each connection as its newest value, anything else waits in
//! a short line; what somebody else keeps is said with a receipt, which comes back when the broker has it. Each connection is clean, so nothing old comes from a session of before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::Notify;

use super::connect::{self, Course, MAX_PACKET_BYTES, Problem};
use super::settings::Settings;
use super::wire::Wire;
use crate::system::clock;

/// How much the messages that wait for the reader may weigh together, in bytes; when it is that slow, the newest are dropped: a grant that
/// would wait behind so many is late, and a broker that sends faster than anybody reads must not fill the memory.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// What a message weighs at least.
const LEAST_BYTES: usize = 1024;
/// Notices that wait: messages, and room that they cannot take for what is told of the connection.
const QUEUE: usize = QUEUE_BYTES / LEAST_BYTES + 256;
/// What may wait to be said while there is no connection; beyond it the oldest goes.
const LINE: usize = 64;
/// The client's own queue: subscriptions, the line and a state for each topic of ours.
const CLIENT_QUEUE: usize = 2 * LINE + 32;

/// One message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// The whole topic.
    pub topic: String,
    /// The content.
    pub payload: Vec<u8>,
    /// Whether the broker had kept it from before we subscribed.
    pub retained: bool,
    /// The seconds of life that the broker says are left.
    pub expiry_s: Option<u32>,
    /// Where the sender wants its answer.
    pub response_topic: Option<String>,
    /// What the sender wants back with its answer.
    pub correlation: Option<Vec<u8>>,
}

impl Received {
    /// How much memory it takes while it waits.
    fn weight(&self) -> usize {
        let texts = self.response_topic.as_ref().map_or(0, String::len) + self.correlation.as_ref().map_or(0, Vec::len);
        (size_of::<Notice>() + self.topic.len() + self.payload.len() + texts).max(LEAST_BYTES)
    }
}

/// What a subscriber tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker has confirmed the subscription: from now on nothing new is missed. Again after each connection.
    Subscribed,
    /// A message.
    Message(Received),
    /// The broker has confirmed what was said with this receipt.
    Taken(u64),
    /// There is no connection; the next try comes by itself. Told of each connection that ended, and of tries that failed once until it
    /// is another problem; [`super::News`] tells what is worth a line.
    Problem(Problem),
}

/// What a client wants besides its topics.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// Topics with wildcards.
    pub filters: Vec<String>,
    /// Its id; without one a random one.
    pub client_id: Option<String>,
    /// Topic and text that the broker publishes, retained, when this client is lost.
    pub will: Option<(String, String)>,
    /// The longest packet that it takes, in bytes, where the usual one is more than it ever needs.
    pub most_bytes: Option<u32>,
}

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The whole topic.
    pub topic: String,
    /// The content.
    pub payload: String,
    /// A state, which the broker keeps, or an event.
    pub retained: bool,
    /// Where an answer is wanted, and what must come back with it.
    pub answer: Option<(String, Vec<u8>)>,
    /// Told back by [`Notice::Taken`]. Who wants a receipt keeps the message: it is not said later when there is no connection.
    pub receipt: Option<u64>,
}

#[derive(Default)]
struct Mouth {
    states: BTreeMap<String, Said>,
    line: VecDeque<Said>,
    /// While connected.
    client: Option<AsyncClient>,
    /// The receipts of what the client has and has not sent yet, in its order.
    handed: VecDeque<Option<u64>>,
}

/// A running subscription; dropping it disconnects.
pub struct Subscriber {
    notices: Receiver<Notice>,
    /// The weight of the messages among them.
    waiting: Arc<AtomicUsize>,
    mouth: Arc<Mutex<Mouth>>,
    quit: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Starts to subscribe to `filter` (a topic with wildcards, such as `faceid/gate/#`) on the broker of the settings. The settings'
    /// client id is not used: the broker would throw the daemon out. Fails when secrets or certificates cannot be read.
    pub fn start(settings: &Settings, secrets: &Path, filter: &str) -> Result<Self, Problem> {
        Self::start_as(settings, secrets, Wants { filters: vec![filter.to_owned()], ..Wants::default() })
    }

    /// As [`Subscriber::start`], with an id and a will.
    pub fn start_as(settings: &Settings, secrets: &Path, wants: Wants) -> Result<Self, Problem> {
        let random = || format!("faceid-watch-{}", uuid::Uuid::new_v4().simple());
        let client_id = wants.client_id.clone().unwrap_or_else(random);
        let mut options = connect::options(settings, secrets, &client_id)?;
        if let Some((topic, text)) = &wants.will {
            options.set_last_will(LastWill::new(topic, text.clone(), QoS::AtLeastOnce, true, None));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::Setup(error.to_string()))?;
        let (sender, notices) = sync_channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let weight = waiting.clone();
        let quit = Arc::new(Notify::new());
        let mouth = Arc::new(Mutex::new(Mouth::default()));
        let (leave, settings, ears) = (quit.clone(), settings.clone(), mouth.clone());
        let thread = std::thread::Builder::new()
            .name("mqtt-watch".into())
            .spawn(move || {
                runtime.block_on(async {
                    let course = Course::new(&settings, &client_id);
                    let online = None;
                    let mut listener = Listener { settings, wants, notices: sender, waiting: weight, mouth: ears, online, course };
                    listener.run(options, &leave).await;
                });
                runtime.shutdown_background();
            })
            .map_err(|error| Problem::Setup(error.to_string()))?;
        Ok(Self { notices, waiting, mouth, quit, thread: Some(thread) })
    }

    /// The next notice, waiting for at most `wait`; `None` when there was none.
    pub fn next(&self, wait: Duration) -> Option<Notice> {
        let notice = self.notices.recv_timeout(wait).ok()?;
        if let Notice::Message(message) = &notice {
            self.waiting.fetch_sub(message.weight(), Ordering::Relaxed);
        }
        Some(notice)
    }

    /// Says it now, or after the next connection.
    pub fn say(&self, said: Said) {
        let mut mouth = lock(&self.mouth);
        if said.retained {
            mouth.states.insert(said.topic.clone(), said.clone());
        }
        match mouth.client.clone() {
            Some(client) => publish(&client, &said, &mut mouth.handed),
            None if said.retained || said.receipt.is_some() => {}
            None => {
                if mouth.line.len() >= LINE {
                    mouth.line.pop_front();
                }
                mouth.line.push_back(said);
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.quit.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

// Every step under the lock leaves the mouth whole.
fn lock(mouth: &Mutex<Mouth>) -> MutexGuard<'_, Mouth> {
    mouth.lock().unwrap_or_else(PoisonError::into_inner)
}

fn publish(client: &AsyncClient, said: &Said, handed: &mut VecDeque<Option<u64>>) {
    let (response_topic, correlation) = said.answer.clone().unzip();
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        response_topic,
        correlation_data: correlation.map(Into::into),
        ..PublishProperties::default()
    };
    let payload = said.payload.clone();
    match client.try_publish_with_properties(said.topic.as_str(), QoS::AtLeastOnce, said.retained, payload, properties) {
        Ok(()) => handed.push_back(said.receipt),
        Err(_) => log::error!("the MQTT client took no message on {}", said.topic),
    }
}

struct Listener {
    settings: Settings,
    wants: Wants,
    notices: SyncSender<Notice>,
    waiting: Arc<AtomicUsize>,
    mouth: Arc<Mutex<Mouth>>,
    online: Option<Instant>,
    course: Course,
}

impl Listener {
    /// Connects again and again, each time with a fresh client that remembers nothing.
    async fn run(&mut self, options: MqttOptions, leave: &Notify) {
        loop {
            let ended = tokio::select! {
                problem = self.listen(options.clone()) => Some(problem),
                () = leave.notified() => None,
            };
            lock(&self.mouth).client = None;
            let Some(problem) = ended else { return };
            let online = self.online.take().map(|since| since.elapsed());
            let (problem, is_news) = self.course.ended(problem, online, clock::monotonic());
            // Whoever counts on the connection must hear of each that ended.
            if is_news || online.is_some() {
                let _ = self.notices.try_send(Notice::Problem(problem));
            }
            tokio::select! {
                () = tokio::time::sleep(self.course.next_delay()) => {}
                () = leave.notified() => return,
            }
        }
    }

    /// One connection, and why it ended. It ends without a goodbye, so that the broker publishes the will: nobody knows the state of a
    /// door whose controller has left.
    async fn listen(&mut self, options: MqttOptions) -> Problem {
        let (client, mut wire) = Wire::new(options, CLIENT_QUEUE, self.wants.most_bytes.unwrap_or(MAX_PACKET_BYTES));
        // By packet id: what was sent and not confirmed yet, and what the client holds back because its id is still in use.
        let (mut sent, mut held) = (HashMap::new(), HashMap::new());
        loop {
            match wire.next().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => self.connected(&client),
                Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                    let receipt = held.remove(&id).or_else(|| lock(&self.mouth).handed.pop_front());
                    sent.insert(id, receipt.flatten());
                }
                Ok(Event::Outgoing(Outgoing::AwaitAck(id))) => {
                    if let Some(receipt) = lock(&self.mouth).handed.pop_front() {
                        held.insert(id, receipt);
                    }
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    // A refusal is an answer too: said again, the message would be refused again.
                    if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                        log::error!("the broker did not take a message ({:?}): may this user write it?", ack.reason);
                    }
                    if let Some(receipt) = sent.remove(&ack.pkid).flatten() {
                        let _ = self.notices.try_send(Notice::Taken(receipt));
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let taken = answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                    let broker = format!("{}:{}", self.settings.host, self.settings.port);
                    let detail = format!("it lets this user not read {}", self.wants.filters.join(", "));
                    let refused = Notice::Problem(Problem::Refused { broker, detail });
                    let _ = self.notices.try_send(if taken { Notice::Subscribed } else { refused });
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    self.tell(received(&publish));
                }
                Ok(_) => {}
                Err(error) => return connect::problem(&error, &self.settings, self.online.is_some()),
            }
        }
    }

    /// Hands a message on, or drops it where the reader is too slow.
    fn tell(&self, message: Received) {
        let weight = message.weight();
        let has_room = self.waiting.load(Ordering::Relaxed).saturating_add(weight) <= QUEUE_BYTES;
        if has_room {
            // Before it can be taken out.
            self.waiting.fetch_add(weight, Ordering::Relaxed);
            if self.notices.try_send(Notice::Message(message)).is_err() {
                self.waiting.fetch_sub(weight, Ordering::Relaxed);
            }
        }
    }

    fn connected(&mut self, client: &AsyncClient) {
        self.online = Some(Instant::now());
        // QoS 1, so that a decision is not lost on the last yards; the queue is empty at this moment.
        let filters = self.wants.filters.iter().map(|filter| Filter::new(filter.as_str(), QoS::AtLeastOnce));
        if client.try_subscribe_many(filters).is_err() {
            log::error!("the MQTT client took no subscription");
        }
        let mut mouth = lock(&self.mouth);
        let Mouth { states, line, handed, .. } = &mut *mouth;
        handed.clear();
        states.values().for_each(|said| publish(client, said, handed));
        while let Some(said) = line.pop_front() {
            publish(client, &said, handed);
        }
        mouth.client = Some(client.clone());
    }
}

pub(super) fn received(publish: &Publish) -> Received {
    let properties = publish.properties.as_ref();
    Received {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        expiry_s: properties.and_then(|properties| properties.message_expiry_interval),
        response_topic: properties.and_then(|properties| properties.response_topic.clone()),
        correlation: properties.and_then(|properties| properties.correlation_data.as_ref()).map(|data| data.to_vec()),
    }
}
