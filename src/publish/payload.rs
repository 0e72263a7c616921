//! How an event looks from outside: contract version 1. Pure: an event and its context in, a topic and a text out. The golden files
//! in `tests/golden/payloads` are the contract's examples; changing one is changing the contract.
//!
//! A decision is one CloudEvents 1.0 object (structured mode) with the `sequence` and `expirytime` extensions. `sequence` is text of
//! twenty digits, because that extension wants text that sorts; it has no gaps. The other messages are plain JSON objects.
//! Numbers of the evidence never get here: see [`Evidence`].

mod at_door;
mod stats;

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

pub use at_door::{DoorAccess, DoorBlock, DoorHold, LastDecision, Snapshot};
pub use stats::{CameraStats, EngineStats, Latency, MatchRate, MatchRateState, Stats};

use super::audit::Head;
use crate::types::{Attempt, CameraId, Decision, DeviceId, DoorId, Evidence, ModelId, Moment, PersonId, Presence, Prompt, Wall};

/// The version of everything that is published; birth and decisions carry it.
pub const CONTRACT_VERSION: u32 = 1;

/// The `content type` property of a decision (CloudEvents' MQTT binding).
pub const CLOUD_EVENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// The `content type` property of everything else but `status`.
pub const JSON_TYPE: &str = "application/json";

/// Model ids by role (`detector`, `liveness`, `embedder`), as the manifest names them.
pub type Models = BTreeMap<String, Vec<ModelId>>;

/// What is true of every event of one run of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// This device.
    pub device: DeviceId,
    /// Made afresh at each start.
    pub boot_id: Uuid,
    /// The sequence number of the first decision of this run.
    pub first_sequence: u64,
    /// The networks in use.
    pub models: Models,
    /// Whether decisions carry people's names.
    pub person_names: bool,
}

/// How good the wall clock was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// What sets it: `ntp`, `rtc`, `unknown`.
    pub source: String,
    /// Whether it follows that source now.
    pub synced: bool,
    /// The largest error that the source admits, in milliseconds.
    pub error_ms: Option<u32>,
}

/// The rules that a decision was made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The rules' name.
    pub id: String,
    /// Their version.
    pub version: u64,
}

/// A decision with all that is told about it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionEvent {
    /// The event's id (UUID version 7); the same in every copy.
    pub id: Uuid,
    /// What was decided.
    pub decision: Decision,
    /// The person's name; published only when the context says so.
    pub person_name: Option<String>,
    /// What the person was recognised by: `face`, `card`, `pin`.
    pub factors: Vec<String>,
    /// The rules.
    pub policy: Policy,
    /// The clock when it was decided.
    pub clock: Clock,
    /// From when on it is history: not later than its grant's end. Afterwards it is delivered without the grant.
    pub expires_at: Moment,
}

/// What the device is, published retained at each start, after changes of the gallery and when a camera's match rate becomes another.
#[derive(Debug, Clone, PartialEq)]
pub struct Birth {
    /// The program's version.
    pub version: String,
    /// Where the networks run: `ort/tensorrt`, `ort/cuda`, `ort/cpu`, `tract/cpu`.
    pub provider: String,
    /// How many people are enrolled.
    pub gallery_people: u64,
    /// How many templates they have.
    pub gallery_templates: u64,
    /// The number of the gallery's last change: the broker's retained message witnesses how far it had come.
    pub gallery_epoch: u64,
    /// The same with the gallery's id, signed by the device (see `access::grant::EpochClaim`): a start believes nothing else.
    pub gallery_claim: Option<String>,
    /// The cameras of the config.
    pub cameras: Vec<CameraId>,
    /// The doors of the config.
    pub doors: Vec<DoorId>,
    /// How many strangers each camera's doors would let in, by their own measure.
    pub match_rates: Vec<MatchRate>,
    /// The clock.
    pub clock: Clock,
    /// When the daemon was ready.
    pub at: Wall,
}

/// Who stands before a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEvent {
    /// Who.
    pub presence: Presence,
    /// Since when.
    pub at: Wall,
}

/// A track that ended without a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEvent {
    /// What happened.
    pub attempt: Attempt,
    /// When the track ended.
    pub at: Wall,
}

/// How a camera is: the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CameraWord {
    /// Frames come.
    Online,
    /// It cannot be reached, or it said goodbye.
    Offline,
    /// It is connected and sends nothing.
    Stalled,
    /// It sends darkness: covered, or the light is off.
    Dark,
}

/// How a camera is, published retained when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraStatus {
    /// Which camera.
    pub camera: CameraId,
    /// How it is.
    pub status: CameraWord,
    /// Why, for a person to read; without addresses and credentials.
    pub reason: Option<String>,
    /// Since when.
    pub at: Wall,
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// A presentation attack.
    Spoof,
    /// A door opened without a grant.
    ForcedOpen,
    /// A door stays open.
    HeldOpen,
    /// A case or a sensor was touched.
    Tamper,
    /// The gallery is older than it was.
    GalleryRollback,
    /// A write failed, and the gallery takes no change.
    GalleryReadOnly,
    /// Decisions were lost because no broker took them.
    OutboxFull,
    /// Somebody was let in who says to be forced.
    Duress,
    /// Too many attempts failed at a door.
    Throttled,
    /// The broker, which witnesses that no older state was put back, tells nothing or has forgotten.
    WitnessSilent,
    /// More strangers would be let in before a camera than the site bears.
    MatchRate,
}

impl AlarmKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Spoof,
        Self::ForcedOpen,
        Self::HeldOpen,
        Self::Tamper,
        Self::GalleryRollback,
        Self::GalleryReadOnly,
        Self::OutboxFull,
        Self::Duress,
        Self::Throttled,
        Self::WitnessSilent,
        Self::MatchRate,
    ];

    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmKind::Spoof => "spoof",
            AlarmKind::ForcedOpen => "forced-open",
            AlarmKind::HeldOpen => "held-open",
            AlarmKind::Tamper => "tamper",
            AlarmKind::GalleryRollback => "gallery-rollback",
            AlarmKind::GalleryReadOnly => "gallery-read-only",
            AlarmKind::OutboxFull => "outbox-full",
            AlarmKind::Duress => "duress",
            AlarmKind::Throttled => "throttled",
            AlarmKind::WitnessSilent => "witness-silent",
            AlarmKind::MatchRate => "match-rate",
        }
    }
}

/// Something that a person should look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// At which door.
    pub door: Option<DoorId>,
    /// Seen by which camera.
    pub camera: Option<CameraId>,
    /// In a sentence.
    pub detail: String,
    /// When.
    pub at: Wall,
}

/// Whatever can be published.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Delivered at least once, in order, kept until the broker has it.
    Decision(Box<DecisionEvent>),
    /// Retained.
    Birth(Box<Birth>),
    /// A birth that the broker does not keep, delivered at least once: that it comes back shows that the broker lets us hear `birth`.
    BirthEcho(Box<Birth>),
    /// Retained.
    Presence(PresenceEvent),
    /// Retained.
    CameraStatus(CameraStatus),
    /// Delivered at most once.
    Attempt(AttemptEvent),
    /// Delivered at most once.
    Stats(Box<Stats>),
    /// Delivered at least once.
    Alarm(Alarm),
    /// Retained: the JWK set by which grants are verified, as it is.
    Keys(String),
    /// Retained: the audit trail's last entry.
    AuditHead(Head),
    /// Retained: what Home Assistant is told of this device.
    Discovery(Box<Discovery>),
    /// Delivered at least once: the answer to a command.
    Reply(Reply),
    /// Delivered at most once: what a person at a door is asked to do.
    Prompt(Prompt),
    /// Delivered at most once: a sealed picture.
    Snapshot(Snapshot),
    /// Retained: whether a door is blocked.
    DoorBlock(DoorBlock),
    /// Retained: how a door stands: its mode, a lock-down, a hold, the last decision.
    DoorAccess(DoorAccess),
    /// Delivered at least once: the word that holds a door open for some seconds more, or ends that.
    DoorHold(DoorHold),
}

/// An answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Where to.
    pub topic: String,
    /// Whether the topic is a whole one, not one below `<base>/<device>/`.
    pub elsewhere: bool,
    /// What.
    pub payload: String,
    /// What the sender wants back with it.
    pub correlation: Option<Vec<u8>>,
}

/// A message for Home Assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The whole topic.
    pub topic: String,
    /// What.
    pub payload: String,
}

impl Event {
    /// The topic: a whole one if [`Event::is_elsewhere`], otherwise below `<base>/<device>/`.
    pub fn topic(&self) -> String {
        match self {
            Event::Decision(event) => format!("door/{}/decision", event.decision.door),
            Event::Birth(_) | Event::BirthEcho(_) => "birth".into(),
            Event::Presence(event) => format!("camera/{}/presence", event.presence.camera),
            Event::CameraStatus(event) => format!("camera/{}/status", event.camera),
            Event::Attempt(event) => format!("camera/{}/attempt", event.attempt.camera),
            Event::Stats(_) => "stats".into(),
            Event::Alarm(alarm) => format!("alarm/{}", alarm.kind.as_str()),
            Event::Keys(_) => "keys".into(),
            Event::AuditHead(_) => "audit/head".into(),
            Event::Discovery(discovery) => discovery.topic.clone(),
            Event::Reply(reply) => reply.topic.clone(),
            Event::Prompt(prompt) => format!("door/{}/prompt", prompt.door),
            Event::Snapshot(snapshot) => format!("door/{}/snapshot", snapshot.door),
            Event::DoorBlock(block) => format!("door/{}/throttle", block.door),
            Event::DoorAccess(access) => format!("door/{}/access", access.door),
            Event::DoorHold(hold) => format!("door/{}/hold", hold.door),
        }
    }

    /// Whether the broker keeps it for whoever comes later: then only the newest of a topic matters.
    pub fn is_retained(&self) -> bool {
        matches!(
            self,
            Event::Birth(_)
                | Event::Presence(_)
                | Event::CameraStatus(_)
                | Event::Keys(_)
                | Event::AuditHead(_)
                | Event::Discovery(_)
                | Event::DoorBlock(_)
                | Event::DoorAccess(_)
        )
    }

    /// Whether the topic is a whole one.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Event::Discovery(_) | Event::Reply(Reply { elsewhere: true, .. }))
    }

    /// Whether the broker must confirm it (QoS 1).
    pub fn is_confirmed(&self) -> bool {
        !matches!(self, Event::Presence(_) | Event::Attempt(_) | Event::Stats(_) | Event::Prompt(_) | Event::Snapshot(_))
    }

    /// The message's text. `sequence` and `historical` are a decision's; the others take no notice of them.
    pub fn payload(&self, context: &Context, sequence: u64, historical: bool) -> String {
        match self {
            Event::Decision(event) => decision(event, context, sequence, historical),
            Event::Birth(birth) | Event::BirthEcho(birth) => stamped(context, birth.at, &birth_body(birth, context)),
            Event::Presence(PresenceEvent { presence, at }) => {
                stamped(context, *at, &PresenceBody { camera: &presence.camera, faces: presence.faces, people: &presence.people })
            }
            Event::CameraStatus(event) => stamped(
                context,
                event.at,
                &CameraBody { camera: &event.camera, status: event.status, reason: event.reason.as_deref() },
            ),
            Event::Attempt(AttemptEvent { attempt, at }) => stamped(
                context,
                *at,
                &AttemptBody {
                    camera: &attempt.camera,
                    track: attempt.track.0,
                    reason: attempt.refusal.map_or("too-short", |refusal| refusal.as_str()),
                    frames: attempt.frames,
                },
            ),
            Event::Stats(stats) => stamped(context, stats.at, stats.as_ref()),
            Event::Alarm(alarm) => stamped(
                context,
                alarm.at,
                &AlarmBody { kind: alarm.kind, door: alarm.door.as_ref(), camera: alarm.camera.as_ref(), detail: &alarm.detail },
            ),
            Event::Keys(set) => set.clone(),
            Event::AuditHead(head) => json(head),
            Event::Discovery(discovery) => discovery.payload.clone(),
            Event::Reply(reply) => reply.payload.clone(),
            Event::Prompt(prompt) => stamped(context, prompt.asked_at.wall, &at_door::prompt(prompt)),
            Event::Snapshot(snapshot) => stamped(context, snapshot.at, &at_door::snapshot(snapshot)),
            Event::DoorBlock(block) => stamped(context, block.at, &at_door::door_block(block)),
            Event::DoorAccess(access) => stamped(context, access.at, &at_door::door_access(access)),
            Event::DoorHold(hold) => stamped(context, hold.at, &at_door::door_hold(hold)),
        }
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'static str,
    subject: String,
    time: String,
    sequence: String,
    expirytime: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    contract_version: u32,
    boot_id: String,
    outcome: &'static str,
    reason: &'static str,
    door: &'a DoorId,
    camera: Option<&'a CameraId>,
    track: Option<u64>,
    person: Option<&'a PersonId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person_name: Option<&'a str>,
    factors: &'a [String],
    evidence: &'a Evidence,
    policy: &'a Policy,
    models: &'a Models,
    clock: &'a Clock,
    historical: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a str>,
}

fn decision(event: &DecisionEvent, context: &Context, sequence: u64, historical: bool) -> String {
    let decision = &event.decision;
    json(&CloudEvent {
        specversion: "1.0",
        id: event.id.to_string(),
        source: format!("/faceid/{}", context.device),
        r#type: "faceid.decision.v1",
        subject: format!("door/{}", decision.door),
        time: decision.decided_at.wall.rfc3339(),
        sequence: format!("{sequence:020}"),
        expirytime: event.expires_at.wall.rfc3339(),
        datacontenttype: JSON_TYPE,
        data: Data {
            contract_version: CONTRACT_VERSION,
            boot_id: context.boot_id.to_string(),
            outcome: decision.outcome.as_str(),
            reason: decision.reason.as_str(),
            door: &decision.door,
            camera: decision.camera.as_ref(),
            track: decision.camera.as_ref().map(|_| decision.track.0),
            person: decision.person.as_ref(),
            operator: decision.operator.as_deref(),
            person_name: event.person_name.as_deref().filter(|_| context.person_names && decision.person.is_some()),
            factors: &event.factors,
            evidence: &decision.evidence,
            policy: &event.policy,
            models: &context.models,
            clock: &event.clock,
            historical,
            // Whoever gets a late copy must not be able to act on it, whatever the decision said.
            grant: decision.grant.as_deref().filter(|_| !historical && decision.outcome == crate::types::Outcome::Granted),
        },
    })
}

#[derive(Serialize)]
struct BirthBody<'a> {
    version: &'a str,
    first_sequence: u64,
    models: &'a Models,
    provider: &'a str,
    gallery: Gallery<'a>,
    cameras: &'a [CameraId],
    doors: &'a [DoorId],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    match_rates: &'a [MatchRate],
    clock: &'a Clock,
}

#[derive(Serialize)]
struct Gallery<'a> {
    people: u64,
    templates: u64,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
}

fn birth_body<'a>(birth: &'a Birth, context: &'a Context) -> BirthBody<'a> {
    BirthBody {
        version: &birth.version,
        first_sequence: context.first_sequence,
        models: &context.models,
        provider: &birth.provider,
        gallery: Gallery {
            people: birth.gallery_people,
            templates: birth.gallery_templates,
            epoch: birth.gallery_epoch,
            claim: birth.gallery_claim.as_deref(),
        },
        cameras: &birth.cameras,
        doors: &birth.doors,
        match_rates: &birth.match_rates,
        clock: &birth.clock,
    }
}

#[derive(Serialize)]
struct PresenceBody<'a> {
    camera: &'a CameraId,
    faces: u32,
    people: &'a [PersonId],
}

#[derive(Serialize)]
struct CameraBody<'a> {
    camera: &'a CameraId,
    status: CameraWord,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct AttemptBody<'a> {
    camera: &'a CameraId,
    track: u64,
    reason: &'static str,
    frames: u32,
}

#[derive(Serialize)]
struct AlarmBody<'a> {
    kind: AlarmKind,
    door: Option<&'a DoorId>,
    camera: Option<&'a CameraId>,
    detail: &'a str,
}

/// What every plain message begins with. Flattening is fine here: nothing is parsed from it.
#[derive(Serialize)]
struct Stamped<'a, T> {
    contract_version: u32,
    device: &'a DeviceId,
    boot_id: String,
    time: String,
    #[serde(flatten)]
    body: &'a T,
}

fn stamped<T: Serialize>(context: &Context, at: Wall, body: &T) -> String {
    json(&Stamped {
        contract_version: CONTRACT_VERSION,
        device: &context.device,
        boot_id: context.boot_id.to_string(),
        time: at.rfc3339(),
        body,
    })
}

/// These structs always serialise (text keys, no map of anything else); an empty text would be a bug that the golden files show.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::types::{Outcome, Reason, Refusal, TrackId};

    pub(in crate::publish) fn context() -> Context {
        let model = |id: &str| ModelId::new(id).unwrap();
        Context {
            device: DeviceId::new("gate").unwrap(),
            boot_id: Uuid::from_u128(0x4b6f_2c1e_0000_4000_8000_0000_0000_0001),
            first_sequence: 1,
            models: BTreeMap::from([
                ("detector".into(), vec![model("yunet-n-320")]),
                ("embedder".into(), vec![model("foamliu-128")]),
                ("liveness".into(), vec![model("minifasnet-2.7"), model("minifasnet-4.0")]),
            ]),
            person_names: false,
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(ms))
    }

    fn clock() -> Clock {
        Clock { source: "ntp".into(), synced: true, error_ms: Some(12) }
    }

    const TEN_PAST: u64 = 1_700_000_000_000;

    /// A granted decision number `n`, decided at `decided_ms` and history ten seconds later.
    pub(in crate::publish) fn granted(n: u128, decided_ms: u64) -> DecisionEvent {
        DecisionEvent {
            id: Uuid::from_u128(0x018b_cfe5_6800_7000_8000_0000_0000_0000 + n),
            decision: Decision {
                outcome: Outcome::Granted,
                reason: Reason::Match,
                door: DoorId::new("front").unwrap(),
                camera: Some(CameraId::new("porch").unwrap()),
                track: TrackId(7),
                person: Some(PersonId::new("p0").unwrap()),
                operator: None,
                evidence: Evidence { frames: 5, quality_band: "high", match_band: "strong", liveness_band: "high" },
                factors: vec![crate::types::Factor::Face],
                policy: crate::types::PolicyVersion { id: crate::types::PolicyId::new("default").unwrap(), version: 1 },
                marks: Vec::new(),
                captured_at: at(decided_ms),
                decided_at: at(decided_ms),
                grant: Some("header.claims.signature".into()),
            },
            person_name: Some("Ada".into()),
            factors: vec!["face".into()],
            policy: Policy { id: "default".into(), version: 1 },
            clock: clock(),
            expires_at: at(decided_ms + 10_000),
        }
    }

    pub(in crate::publish) fn event(n: u128) -> Event {
        Event::Decision(Box::new(granted(n, TEN_PAST)))
    }

    fn match_rate() -> MatchRate {
        MatchRate {
            camera: CameraId::new("porch").unwrap(),
            state: MatchRateState::Tightened,
            visits: 312,
            missing: None,
            per_10000: Some(9.75),
            low: Some(2.5),
            high: Some(24.5),
            target: 10.0,
            threshold: 0.5625,
            configured_threshold: 0.525,
        }
    }

    pub(in crate::publish) fn stats() -> Event {
        Event::Stats(Box::new(Stats {
            at: Wall(1_700_000_000_000),
            uptime_s: 60,
            provider: "ort/cpu".into(),
            engines: Vec::new(),
            cameras: vec![CameraStats { camera: CameraId::new("porch").unwrap(), fps: 29.5, frames: 1800, frames_dropped: 3 }],
            stages: BTreeMap::from([("detect".into(), Latency { p50_ms: 3.5, p99_ms: 6.25 })]),
            decision: Some(Latency { p50_ms: 180.0, p99_ms: 290.5 }),
            decisions: 4,
            events_dropped: 0,
            witness: "heard",
            temperature_c: Some(51.5),
            match_rates: vec![match_rate()],
        }))
    }

    pub(in crate::publish) fn camera(word: CameraWord) -> Event {
        Event::CameraStatus(CameraStatus {
            camera: CameraId::new("porch").unwrap(),
            status: word,
            reason: Some("no frame for 3 s".into()),
            at: Wall(1_700_000_000_000),
        })
    }

    pub(in crate::publish) fn birth() -> Event {
        Event::Birth(Box::new(Birth {
            version: "0.1.0".into(),
            provider: "ort/cpu".into(),
            gallery_people: 2,
            gallery_templates: 10,
            gallery_epoch: 12,
            gallery_claim: Some("eyJhbGciOiJFZERTQSJ9.e30.AA".to_owned()),
            cameras: vec![CameraId::new("porch").unwrap()],
            doors: vec![DoorId::new("front").unwrap()],
            match_rates: vec![match_rate(), MatchRate::unknown(CameraId::new("yard").unwrap(), (41, 59), 10.0, 0.526)],
            clock: clock(),
            at: Wall(1_700_000_000_000),
        }))
    }

    /// Compares with `tests/golden/payloads/NAME.json`; `FACEID_BLESS=1` writes it anew.
    fn golden(name: &str, payload: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/payloads").join(format!("{name}.json"));
        let value: serde_json::Value = serde_json::from_str(payload).unwrap();
        let found = serde_json::to_string_pretty(&value).unwrap() + "\n";
        if std::env::var_os("FACEID_BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, wanted, "{name} is not what the contract's example says");
    }

    #[test]
    fn what_is_told_at_a_door_is_as_the_examples_say() {
        let at = |ms: i64| Moment {
            monotonic: crate::types::Monotonic(u64::try_from(ms).unwrap() * 1_000_000),
            wall: Wall(1_700_000_000_000 + ms),
        };
        let (door, camera) = (DoorId::new("front").unwrap(), CameraId::new("entrance").unwrap());
        let prompt = Prompt {
            door: door.clone(),
            camera: camera.clone(),
            track: TrackId(7),
            side: crate::types::Side::Left,
            asked_at: at(0),
            until: at(6000),
        };
        golden("prompt", &Event::Prompt(prompt).payload(&context(), 0, false));
        let snapshot = Snapshot { door, camera, track: 7, sealed: "c2VhbGVk".into(), at: Wall(1_700_000_000_000) };
        let event = Event::Snapshot(snapshot);
        assert!(!event.is_retained() && !event.is_elsewhere());
        golden("snapshot", &event.payload(&context(), 0, false));
        let (door, since) = (DoorId::new("front").unwrap(), Wall(1_700_000_000_000));
        let block = |faces: Option<i64>, credentials: Option<i64>| {
            let until = |s: Option<i64>| s.map(|s| Wall(since.0 + 1000 * s));
            Event::DoorBlock(DoorBlock { door: door.clone(), faces: until(faces), credentials: until(credentials), at: since })
        };
        assert!(block(None, None).is_retained() && block(None, None).is_confirmed());
        assert_eq!(block(None, None).topic(), "door/front/throttle");
        golden("throttle", &block(Some(30), Some(60)).payload(&context(), 0, false));
        golden("throttle-ended", &block(None, None).payload(&context(), 0, false));
        let (outcome, reason) = ("granted", "match");
        let access = DoorAccess {
            door: door.clone(),
            mode: "normal",
            locked_down: false,
            held_until: Some(Wall(since.0 + 600_000)),
            last: Some(LastDecision { outcome, reason, at: since }),
            at: since,
        };
        let (operator, until) = ("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k".to_owned(), access.held_until);
        let access = Event::DoorAccess(access);
        assert!(access.is_retained() && access.topic() == "door/front/access");
        golden("access", &access.payload(&context(), 0, false));
        let hold = Event::DoorHold(DoorHold { door, operator, until, grant: "header.claims.signature".into(), at: since });
        assert!(!hold.is_retained() && hold.is_confirmed() && hold.topic() == "door/front/hold");
        golden("hold", &hold.payload(&context(), 0, false));
    }

    #[test]
    fn a_historical_copy_carries_no_grant() {
        let Event::Decision(live) = event(1) else { unreachable!() };
        let payload = Event::Decision(live).payload(&context(), 42, true);
        assert!(!payload.contains("signature"), "{payload}");
        golden("decision-historical", &payload);
    }

    #[test]
    fn a_denial_carries_no_grant_even_if_somebody_put_one_in() {
        let mut denied = granted(2, TEN_PAST);
        denied.decision.outcome = Outcome::Denied;
        denied.decision.reason = Reason::Unknown;
        denied.decision.person = None;
        denied.decision.evidence.match_band = "weak";
        let payload = Event::Decision(Box::new(denied)).payload(&Context { person_names: true, ..context() }, 43, false);
        assert!(!payload.contains("signature") && !payload.contains("Ada"), "{payload}");
        golden("decision-denied", &payload);
    }

    #[test]
    fn names_are_told_only_when_the_config_says_so() {
        golden("decision-granted", &event(1).payload(&context(), 42, false));
        golden("decision-named", &event(1).payload(&Context { person_names: true, ..context() }, 42, false));
    }

    #[test]
    fn the_other_messages_are_as_the_contract_shows_them() {
        let (camera_id, track, at) = (CameraId::new("porch").unwrap(), TrackId(7), Wall(1_700_000_000_000));
        let attempt = |refusal| {
            let attempt = Attempt { camera: camera_id.clone(), track, refusal, frames: 9 };
            Event::Attempt(AttemptEvent { attempt, at })
        };
        let presence = |faces, people| {
            let presence = Presence { camera: camera_id.clone(), faces, people };
            Event::Presence(PresenceEvent { presence, at })
        };
        let alarm = Event::Alarm(Alarm {
            kind: AlarmKind::Spoof,
            door: Some(DoorId::new("front").unwrap()),
            camera: Some(camera_id.clone()),
            detail: "a picture was held up".into(),
            at,
        });
        for (name, event) in [
            ("birth", birth()),
            ("stats", stats()),
            ("camera-status", camera(CameraWord::Stalled)),
            ("attempt-too-small", attempt(Some(Refusal::TooSmall))),
            ("attempt-too-short", attempt(None)),
            ("presence", presence(2, vec![PersonId::new("p0").unwrap()])),
            ("presence-gone", presence(0, vec![])),
            ("alarm", alarm),
        ] {
            golden(name, &event.payload(&context(), 0, false));
        }
    }

    #[test]
    fn every_event_has_the_topic_and_the_service_of_the_contract() {
        let is = |event: &Event| (event.topic(), event.is_retained(), event.is_confirmed());
        assert_eq!(is(&event(1)), ("door/front/decision".into(), false, true));
        assert_eq!(is(&birth()), ("birth".into(), true, true));
        assert_eq!(is(&camera(CameraWord::Dark)), ("camera/porch/status".into(), true, true));
        assert_eq!(is(&stats()), ("stats".into(), false, false));
        let (porch, front) = (CameraId::new("porch").unwrap(), DoorId::new("front").unwrap());
        let at = Wall(1_700_000_000_000);
        let presence = Presence { camera: porch.clone(), faces: 1, people: Vec::new() };
        assert_eq!(is(&Event::Presence(PresenceEvent { presence, at })), ("camera/porch/presence".into(), true, false));
        for kind in AlarmKind::ALL {
            let alarm = Alarm { kind, door: Some(front.clone()), camera: None, detail: String::new(), at };
            assert_eq!(is(&Event::Alarm(alarm)), (format!("alarm/{}", kind.as_str()), false, true));
        }
        let attempt = Attempt { camera: porch, track: TrackId(7), refusal: None, frames: 9 };
        assert_eq!(is(&Event::Attempt(AttemptEvent { attempt, at })), ("camera/porch/attempt".into(), false, false));
    }
}
