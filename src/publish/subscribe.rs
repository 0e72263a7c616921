//! A small subscriber, for `faceid watch`, `faceid demo` and tests: connects, subscribes, and goes on after a lost connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::Notify;

use super::connect::{self, Problem};
use super::settings::Settings;
use crate::system::Backoff;

/// Notices that wait for the reader; when it is that slow, the newest are dropped: this is for looking on, not for doors.
const QUEUE: usize = 4096;

/// One message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The whole topic.
    pub topic: String,
    /// The content.
    pub payload: Vec<u8>,
    /// Whether the broker had kept it from before we subscribed.
    pub retained: bool,
    /// The seconds of life that the broker says are left.
    pub expiry_s: Option<u32>,
}

/// What a subscriber tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker has confirmed the subscription: from now on nothing new is missed. Again after each connection.
    Subscribed,
    /// A message.
    Message(Received),
    /// There is no connection; the next try comes by itself. Told once until it is another problem.
    Problem(Problem),
}

/// A running subscription; dropping it disconnects.
pub struct Subscriber {
    notices: Receiver<Notice>,
    quit: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Starts to subscribe to `filter` (a topic with wildcards, such as `faceid/gate/#`) on the broker of the settings. The settings'
    /// client id is not used: the broker would throw the daemon out. Fails when secrets or certificates cannot be read.
    pub fn start(settings: &Settings, secrets: &Path, filter: &str) -> Result<Self, Problem> {
        let client_id = format!("faceid-watch-{}", uuid::Uuid::new_v4().simple());
        let options = connect::options(settings, secrets, &client_id)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::Setup(error.to_string()))?;
        let (sender, notices) = sync_channel(QUEUE);
        let quit = Arc::new(Notify::new());
        let (leave, settings, filter) = (quit.clone(), settings.clone(), filter.to_owned());
        let thread = std::thread::Builder::new()
            .name("mqtt-watch".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = listen(options, &settings, &filter, &sender) => {}
                        () = leave.notified() => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(|error| Problem::Setup(error.to_string()))?;
        Ok(Self { notices, quit, thread: Some(thread) })
    }

    /// The next notice, waiting for at most `wait`; `None` when there was none.
    pub fn next(&self, wait: Duration) -> Option<Notice> {
        self.notices.recv_timeout(wait).ok()
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

async fn listen(options: MqttOptions, settings: &Settings, filter: &str, notices: &SyncSender<Notice>) {
    let floor = Duration::from_millis(u64::from(settings.retry_floor_ms));
    let ceiling = Duration::from_millis(u64::from(settings.retry_ceiling_ms));
    let mut backoff = Backoff::new(floor, ceiling);
    let mut told = None;
    let mut online = false;
    let (client, mut events) = AsyncClient::new(options, 8);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                online = true;
                told = None;
                // QoS 1, so that a decision is not lost on the last yards; the queue is empty at this moment.
                if client.try_subscribe(filter, QoS::AtLeastOnce).is_err() {
                    log::error!("the MQTT client took no subscription");
                }
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                backoff.reset();
                let taken = answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                let broker = format!("{}:{}", settings.host, settings.port);
                let _ = notices.try_send(if taken {
                    Notice::Subscribed
                } else {
                    Notice::Problem(Problem::Refused { broker, detail: format!("it lets this user not read {filter}") })
                });
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let _ = notices.try_send(Notice::Message(received(&publish)));
            }
            Ok(_) => {}
            Err(error) => {
                let problem = connect::problem(&error, settings, online);
                online = false;
                if told.as_ref() != Some(&problem) {
                    let _ = notices.try_send(Notice::Problem(problem.clone()));
                    told = Some(problem);
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

fn received(publish: &Publish) -> Received {
    Received {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        expiry_s: publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval),
    }
}
