//! What leaves the device: decisions and states as MQTT 5 messages.
//!
//! [`Publisher::publish`] puts an [`Event`] into a bounded outbox and returns; one thread ([`Worker::run`]) owns the connection and
//! delivers. [`payload`] says how an event looks from outside and is pure; [`outbox`] says what is kept until when and knows no
//! network; [`mqtt`] moves messages between the two. `rumqttc` is named in [`connect`], [`mqtt`] and [`subscribe`] only.

#[cfg(feature = "demo-broker")]
pub mod broker;
pub mod connect;
pub mod mqtt;
pub mod outbox;
pub mod payload;
pub mod settings;
pub mod subscribe;

pub use connect::Problem;
pub use mqtt::{Publisher, State, Worker};
pub use outbox::Counts;
pub use payload::{
    Alarm, AlarmKind, AttemptEvent, Birth, CONTRACT_VERSION, CameraStats, CameraStatus, CameraWord, Clock, Context, DecisionEvent,
    Event, Latency, Models, Policy, PresenceEvent, Stats,
};
pub use settings::{Settings, Tls};
pub use subscribe::{Notice, Received, Said, Subscriber, Wants};
