//! What leaves the device: decisions and states as MQTT 5 messages.
//!
//! [`Publisher::publish`] puts an [`Event`] into a bounded outbox and returns; one thread ([`Worker::run`]) owns the connection and
//! delivers. [`payload`] says how an event looks from outside and is pure; [`outbox`] says what is kept until when and knows no
//! network; [`journal`] is its disk, [`sealed`] the sealed log that journal and [`audit`] trail are kept in; [`mqtt`] moves messages between the two; [`lanes`] keeps what comes in apart by kind; [`wire`] is
//! every connection's end at the broker, and judges what comes. [`kept`] is what the broker keeps of us. `rumqttc` is named in [`connect`], [`filters`], [`mqtt`], [`subscribe`] and [`wire`] only.

pub mod audit;
#[cfg(feature = "demo-broker")]
pub mod broker;
pub mod certificates;
pub mod command;
pub mod connect;
pub mod contract;
pub mod discovery;
pub mod filters;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
pub mod journal;
pub mod kept;
pub mod lanes;
pub mod mqtt;
pub mod outbox;
pub mod passage;
pub mod payload;
pub mod sealed;
pub mod settings;
pub mod subscribe;
mod wire;

pub use audit::Audit;
pub use connect::{News, Problem};
pub use journal::Journal;
pub use kept::{Kept, KeptEar};
pub use lanes::{Inlet, Lanes, lanes};
pub use mqtt::{Publisher, State, Worker};
pub use outbox::Counts;
pub use payload::{
    Alarm, AlarmKind, AttemptEvent, Birth, CONTRACT_VERSION, CameraStats, CameraStatus, CameraWord, Clock, Context, DecisionEvent,
    Discovery, DoorAccess, DoorBlock, DoorHold, EngineStats, Event, LastDecision, Latency, MatchRate, MatchRateState, Models,
    Policy, PresenceEvent, Reply, Snapshot, Stats,
};
pub use sealed::{Recipient, STATE_KEY, SealedError, StateKey, seal_to};
pub use settings::{Settings, Tls};
pub use subscribe::{Notice, Received, Said, Subscriber, Wants};
