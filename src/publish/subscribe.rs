//! A client for those who listen: `faceid watch`, `faceid demo`, `faceid command`, the door's controller, and tests. Connects,
//! subscribes, says little, and goes on after a lost connection.
//!
//! What it says is kept here, not by rumqttc: a state is said again after each connection as its newest value, anything else waits in
//! a short line; what somebody else keeps is said with a receipt, which comes back when the broker has it. Each connection is clean, so nothing old comes from a session of before.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::Notify;

use super::connect::{self, Course, MAX_PACKET_BYTES, Problem};
use super::filters::Filters;
use super::settings::Settings;
use super::wire::Wire;
use crate::system::clock;
use crate::types::DeviceId;

/// How much the messages that wait for the reader may weigh together, in bytes; when it is that slow, the newest are dropped: a grant that
/// would wait behind so many is late, and a broker that sends faster than anybody reads must not fill the memory.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// What a message weighs at least.
const LEAST_BYTES: usize = 1024;
/// Notices that wait: messages, and room that they cannot take for what is told of the connection.
const QUEUE: usize = QUEUE_BYTES / LEAST_BYTES + 256;
/// What may wait to be said while there is no connection; beyond it the oldest goes.
const LINE: usize = 64;
/// How often what was refused is looked after.
const LOOK: Duration = Duration::from_secs(1);
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
    /// The broker has confirmed every topic: from now on nothing new is missed. Again after each connection.
    Subscribed,
    /// It lets us not read one of the topics. The connection stands and the others are heard; this one is tried again.
    Refused(Problem),
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
    handed: VecDeque<Handed>,
}

/// Something that was given to the client: its topic, and the receipt that is wanted for it.
struct Handed {
    topic: String,
    receipt: Option<u64>,
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
    /// client id is not used: the broker would throw the daemon out. Fails when secrets or certificates cannot be read; each later try
    /// reads them anew.
    pub fn start(settings: &Settings, secrets: &Path, filter: &str) -> Result<Self, Problem> {
        Self::start_as(settings, secrets, Wants { filters: vec![filter.to_owned()], ..Wants::default() })
    }

    /// As [`Subscriber::start`], for a tool beside `device`'s daemon: under an id that begins with the daemon's, as some brokers want it,
    /// and that nobody can guess.
    pub fn beside(settings: &Settings, secrets: &Path, device: &DeviceId, filter: &str) -> Result<Self, Problem> {
        let client_id = format!("{}-watch-{}", settings.client_id(device), uuid::Uuid::new_v4().simple());
        let wants = Wants { filters: vec![filter.to_owned()], client_id: Some(client_id), ..Wants::default() };
        Self::start_as(settings, secrets, wants)
    }

    /// As [`Subscriber::start`], with an id and a will.
    pub fn start_as(settings: &Settings, secrets: &Path, wants: Wants) -> Result<Self, Problem> {
        let random = || format!("faceid-watch-{}", uuid::Uuid::new_v4().simple());
        let client_id = wants.client_id.clone().unwrap_or_else(random);
        let (sender, notices) = sync_channel(QUEUE);
        let quit = Arc::new(Notify::new());
        let mouth = Arc::new(Mutex::new(Mouth::default()));
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut listener = Listener {
            course: Course::new(settings, &client_id),
            settings: settings.clone(),
            secrets: secrets.to_owned(),
            client_id,
            wants,
            notices: sender,
            waiting: waiting.clone(),
            mouth: mouth.clone(),
            online: None,
        };
        listener.options()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::Setup(error.to_string()))?;
        let leave = quit.clone();
        let thread = std::thread::Builder::new()
            .name("mqtt-watch".into())
            .spawn(move || {
                runtime.block_on(listener.run(&leave));
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

fn publish(client: &AsyncClient, said: &Said, handed: &mut VecDeque<Handed>) {
    let (response_topic, correlation) = said.answer.clone().unzip();
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        response_topic,
        correlation_data: correlation.map(Into::into),
        ..PublishProperties::default()
    };
    let payload = said.payload.clone();
    match client.try_publish_with_properties(said.topic.as_str(), QoS::AtLeastOnce, said.retained, payload, properties) {
        Ok(()) => handed.push_back(Handed { topic: said.topic.clone(), receipt: said.receipt }),
        Err(_) => log::error!("the MQTT client took no message on {}", said.topic),
    }
}

struct Listener {
    settings: Settings,
    secrets: PathBuf,
    client_id: String,
    wants: Wants,
    notices: SyncSender<Notice>,
    waiting: Arc<AtomicUsize>,
    mouth: Arc<Mutex<Mouth>>,
    online: Option<Instant>,
    course: Course,
}

impl Listener {
    /// Connects again and again, each time with a fresh client that remembers nothing.
    async fn run(&mut self, leave: &Notify) {
        loop {
            let ended = tokio::select! {
                problem = self.try_once() => Some(problem),
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

    /// Reads secrets and certificates anew: what was renewed meanwhile is taken up, and what was wrong may have been mended.
    fn options(&self) -> Result<MqttOptions, Problem> {
        let mut options = connect::options(&self.settings, &self.secrets, &self.client_id)?;
        if let Some((topic, text)) = &self.wants.will {
            options.set_last_will(LastWill::new(topic, text.clone(), QoS::AtLeastOnce, true, None));
        }
        Ok(options)
    }

    /// One try, and why it ended.
    async fn try_once(&mut self) -> Problem {
        let options = match self.options() {
            Ok(options) => options,
            Err(problem) => return problem,
        };
        let (client, wire) = Wire::new(options, CLIENT_QUEUE, self.wants.most_bytes.unwrap_or(MAX_PACKET_BYTES));
        let filters = RefCell::new(Filters::default());
        let mut listening = pin!(self.listen(&client, wire, &filters));
        loop {
            // Beside the polling, which must not be broken off.
            tokio::select! {
                problem = &mut listening => return problem,
                () = tokio::time::sleep(LOOK) => filters.borrow_mut().ask_again(&client),
            }
        }
    }

    /// One connection, and why it ended. It ends without a goodbye, so that the broker publishes the will: nobody knows the state of a
    /// door whose controller has left.
    async fn listen(&mut self, client: &AsyncClient, mut wire: Wire, filters: &RefCell<Filters>) -> Problem {
        // By packet id: what was sent and not confirmed yet, and what the client holds back because its id is still in use.
        let (mut sent, mut held) = (HashMap::new(), HashMap::new());
        loop {
            match wire.next().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => self.connected(client, &mut filters.borrow_mut()),
                Ok(Event::Outgoing(Outgoing::Subscribe(id))) => filters.borrow_mut().sent(id),
                Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                    if let Some(handed) = held.remove(&id).or_else(|| lock(&self.mouth).handed.pop_front()) {
                        sent.insert(id, handed);
                    }
                }
                Ok(Event::Outgoing(Outgoing::AwaitAck(id))) => {
                    if let Some(handed) = lock(&self.mouth).handed.pop_front() {
                        held.insert(id, handed);
                    }
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    let Some(Handed { topic, receipt }) = sent.remove(&ack.pkid) else { continue };
                    // A refusal is an answer too: said again, the message would be refused again.
                    if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                        log::error!(
                            "the broker did not take a message on {topic} ({:?}): may this user write to it? Check the broker's access rules (ACL)",
                            ack.reason
                        );
                    }
                    if let Some(receipt) = receipt {
                        let _ = self.notices.try_send(Notice::Taken(receipt));
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let answers = filters.borrow_mut().answered(&answer);
                    // A packet that answers nothing of ours says nothing.
                    if !answers.is_empty() && filters.borrow().is_whole() {
                        let _ = self.notices.try_send(Notice::Subscribed);
                    }
                    for answer in answers.into_iter().filter(|answer| answer.is_news) {
                        let Some(reason) = answer.refusal else { continue };
                        let broker = format!("{}:{}", self.settings.host, self.settings.port);
                        let _ =
                            self.notices.try_send(Notice::Refused(Problem::Unreadable { broker, topic: answer.filter, reason }));
                    }
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

    fn connected(&mut self, client: &AsyncClient, filters: &mut Filters) {
        self.online = Some(Instant::now());
        // QoS 1, so that a decision is not lost on the last yards; the queue is empty at this moment.
        let wanted = self.wants.filters.iter().map(|filter| Filter::new(filter.as_str(), QoS::AtLeastOnce));
        if !filters.ask(client, wanted.collect()) {
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
