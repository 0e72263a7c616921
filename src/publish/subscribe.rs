//! A client for those who listen: `faceid watch`, `faceid demo`, `faceid command`, the door's controller, and tests. Connects,
//! subscribes, says little, and goes on after a lost connection.
//!
//! What it says is kept here, not by rumqttc: a state is said again after each connection as its newest value, anything else waits in
//! a short line; what somebody else keeps is said with a receipt, which comes back when the broker has it. Each connection is clean, so nothing old comes from a session of before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::Notify;

use super::connect::{self, Problem};
use super::settings::Settings;
use crate::system::Backoff;

/// Notices that wait for the reader; when it is that slow, the newest are dropped: a grant that would wait behind so many is late.
const QUEUE: usize = 4096;
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

/// What a subscriber tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker has confirmed the subscription: from now on nothing new is missed. Again after each connection.
    Subscribed,
    /// A message.
    Message(Received),
    /// The broker has confirmed what was said with this receipt.
    Taken(u64),
    /// There is no connection; the next try comes by itself. Told once until it is another problem.
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
        let quit = Arc::new(Notify::new());
        let mouth = Arc::new(Mutex::new(Mouth::default()));
        let (leave, settings, ears) = (quit.clone(), settings.clone(), mouth.clone());
        let thread = std::thread::Builder::new()
            .name("mqtt-watch".into())
            .spawn(move || {
                runtime.block_on(async {
                    let mut listener = Listener { settings, wants, notices: sender, mouth: ears, online: false, told: None };
                    listener.run(options, &leave).await;
                });
                runtime.shutdown_background();
            })
            .map_err(|error| Problem::Setup(error.to_string()))?;
        Ok(Self { notices, mouth, quit, thread: Some(thread) })
    }

    /// The next notice, waiting for at most `wait`; `None` when there was none.
    pub fn next(&self, wait: Duration) -> Option<Notice> {
        self.notices.recv_timeout(wait).ok()
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
    mouth: Arc<Mutex<Mouth>>,
    online: bool,
    told: Option<Problem>,
}

impl Listener {
    /// Connects again and again, each time with a fresh client that remembers nothing.
    async fn run(&mut self, options: MqttOptions, leave: &Notify) {
        let floor = Duration::from_millis(u64::from(self.settings.retry_floor_ms));
        let ceiling = Duration::from_millis(u64::from(self.settings.retry_ceiling_ms));
        let mut backoff = Backoff::new(floor, ceiling);
        loop {
            let ended = tokio::select! {
                () = self.listen(options.clone(), &mut backoff) => false,
                () = leave.notified() => true,
            };
            lock(&self.mouth).client = None;
            if ended {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = leave.notified() => return,
            }
        }
    }

    /// One connection. It ends without a goodbye, so that the broker publishes the will: nobody knows the state of a door whose
    /// controller has left.
    async fn listen(&mut self, options: MqttOptions, backoff: &mut Backoff) {
        let (client, mut events) = AsyncClient::new(options, CLIENT_QUEUE);
        // By packet id: what was sent and not confirmed yet, and what the client holds back because its id is still in use.
        let (mut sent, mut held) = (HashMap::new(), HashMap::new());
        loop {
            match events.poll().await {
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
                    backoff.reset();
                    let taken = answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                    let broker = format!("{}:{}", self.settings.host, self.settings.port);
                    let detail = format!("it lets this user not read {}", self.wants.filters.join(", "));
                    let refused = Notice::Problem(Problem::Refused { broker, detail });
                    let _ = self.notices.try_send(if taken { Notice::Subscribed } else { refused });
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let _ = self.notices.try_send(Notice::Message(received(&publish)));
                }
                Ok(_) => {}
                Err(error) => {
                    let problem = connect::problem(&error, &self.settings, self.online);
                    self.online = false;
                    if self.told.as_ref() != Some(&problem) {
                        let _ = self.notices.try_send(Notice::Problem(problem.clone()));
                        self.told = Some(problem);
                    }
                    return;
                }
            }
        }
    }

    fn connected(&mut self, client: &AsyncClient) {
        self.online = true;
        self.told = None;
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
    let properties = publish.properties.clone().unwrap_or_default();
    Received {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        expiry_s: properties.message_expiry_interval,
        response_topic: properties.response_topic,
        correlation: properties.correlation_data.map(|data| data.to_vec()),
    }
}
