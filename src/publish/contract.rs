//! The MQTT contract as one table: every kind of message with its topic, who writes and reads it, how it is delivered and what is in it.
//!
//! From it are made, and compared in the normal test run, `data/contract/asyncapi.json` (AsyncAPI 3.0 with JSON Schemas),
//! `data/contract/README.md` and `data/contract/grants.json` (test vectors of grants):
//! `FACEID_WRITE_CONTRACT=1 cargo test --release --lib publish::contract`. Tests compare the table with what the code says and sends.

pub mod schemas;
pub mod words;

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::payload::Event;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The daemon of a device.
    Device,
    /// A door's controller.
    Controller,
    /// A card or PIN reader.
    Reader,
    /// An operator's desk: `faceid command`, `faceid watch`.
    Operator,
    /// Home Assistant, dashboards, logs.
    Dashboard,
}

impl Party {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Party::Device => "device",
            Party::Controller => "controller",
            Party::Reader => "reader",
            Party::Operator => "operator",
            Party::Dashboard => "dashboard",
        }
    }
}

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A CloudEvent in JSON.
    CloudEvent,
    /// A JSON object.
    Json,
    /// One word, not quoted.
    Word,
    /// A compact JWS, or the word `ping`.
    Signed,
}

impl Form {
    /// The `content type` of the message.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::CloudEvent => super::payload::CLOUD_EVENT_TYPE,
            Form::Json => super::payload::JSON_TYPE,
            Form::Word => "text/plain",
            Form::Signed => "application/jose",
        }
    }
}

/// One kind of message.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in the published documents.
    pub name: &'static str,
    /// Its topic below `<base>/<device>/`, or a whole one where it begins with `/`; `{…}` is a part that varies.
    pub topic: &'static str,
    /// Who writes it.
    pub writers: &'static [Party],
    /// Who reads it and does something by it; operators and dashboards read nearly everything.
    pub readers: &'static [Party],
    /// The quality of service that the writer asks for. What the reader gets is the lower one of this and its subscription's.
    pub qos: u8,
    /// Whether the broker keeps the last one. Whoever acts on a kind that is not retained must refuse a retained copy.
    pub retained: bool,
    /// What the payload is.
    pub form: Form,
    /// What it is for.
    pub purpose: &'static str,
    /// Its JSON Schema; of a word or a token that of the text.
    pub schema: fn() -> Value,
    /// Its examples: names in `tests/golden/payloads`.
    pub examples: &'static [&'static str],
}

use Form::{CloudEvent, Json, Signed, Word};
use Party::{Controller, Dashboard, Device, Operator, Reader};

const ONLOOKERS: &[Party] = &[Operator, Dashboard];

const fn json(name: &'static str, topic: &'static str, purpose: &'static str, schema: fn() -> Value) -> Kind {
    let (writers, readers): (&[Party], _) = (&[Device], ONLOOKERS);
    Kind { name, topic, writers, readers, qos: 1, retained: false, form: Json, purpose, schema, examples: &[] }
}

const DECISION: Kind = Kind {
    form: CloudEvent,
    readers: &[Controller, Operator, Dashboard],
    examples: &["decision-granted", "decision-denied", "decision-historical", "decision-named"],
    ..json(
        "decision",
        "door/{door}/decision",
        "What was decided about a person at a door. `data.grant` alone opens it, and only where it verifies; everything else is for people. \
         `sequence` has no gaps and shows what was lost; a message that comes again has the same `id`. After `expirytime` it is delivered with \
         `historical` true and without the grant.",
        schemas::decision,
    )
};
const BIRTH: Kind = Kind {
    retained: true,
    readers: &[Device, Operator, Dashboard],
    examples: &["birth"],
    ..json(
        "birth",
        "birth",
        "What the device is: program, networks, gallery, cameras, doors. The device itself reads it after a start: by `gallery.claim` an older \
         state that was put back is found out. Comes once unretained where the broker keeps none.",
        schemas::birth,
    )
};
const STATUS: Kind = Kind {
    retained: true,
    form: Word,
    ..json("status", "status", "Whether the daemon is there. `lost` is its last will.", schemas::status)
};
const STATS: Kind = Kind {
    qos: 0,
    examples: &["stats"],
    ..json(
        "stats",
        "stats",
        "Figures of the last minute. While an accelerator's engine is built, every five seconds.",
        schemas::stats,
    )
};
const KEYS: Kind = Kind {
    retained: true,
    readers: &[Controller, Operator],
    ..json(
        "keys",
        "keys",
        "The device's public keys, a JWK set (RFC 7517) with endorsements. A topic proves nothing: trust pinned keys, and those that a pinned key \
         endorses.",
        schemas::keys,
    )
};
const AUDIT_HEAD: Kind = Kind {
    retained: true,
    readers: &[Operator],
    ..json(
        "audit-head",
        "audit/head",
        "The last entry of the audit trail: `faceid audit verify --head` compares.",
        schemas::audit_head,
    )
};
const ALARM: Kind = Kind {
    writers: &[Device, Controller],
    examples: &["alarm"],
    ..json(
        "alarm",
        "alarm/{alarm}",
        "Something that a person should look after. A controller's may come twice, with the same `id`.",
        schemas::alarm,
    )
};
const CAMERA_STATUS: Kind = Kind {
    retained: true,
    examples: &["camera-status"],
    ..json("camera-status", "camera/{camera}/status", "How a camera is, when it changes.", schemas::camera_status)
};
const PRESENCE: Kind = Kind {
    retained: true,
    qos: 0,
    examples: &["presence", "presence-gone"],
    ..json(
        "presence",
        "camera/{camera}/presence",
        "How many faces are in view and who of them is known, when it changes.",
        schemas::presence,
    )
};
const ATTEMPT: Kind = Kind {
    qos: 0,
    examples: &["attempt-too-small", "attempt-too-short"],
    ..json("attempt", "camera/{camera}/attempt", "A visit that ended without a decision, and why.", schemas::attempt)
};
const PROMPT: Kind = Kind {
    qos: 0,
    examples: &["prompt"],
    ..json("prompt", "door/{door}/prompt", "What the person at the door is asked to do: for a display there.", schemas::prompt)
};
const SNAPSHOT: Kind = Kind {
    qos: 0,
    readers: &[Operator],
    examples: &["snapshot"],
    ..json(
        "snapshot",
        "door/{door}/snapshot",
        "A picture, sealed to one recipient, after `cmd/snapshot-on`. `faceid snapshot` opens it.",
        schemas::snapshot,
    )
};
const THROTTLE: Kind = Kind {
    retained: true,
    examples: &["throttle", "throttle-ended"],
    ..json(
        "throttle",
        "door/{door}/throttle",
        "Whether too many attempts failed at a door, and until when that counts.",
        schemas::throttle,
    )
};
const ACCESS: Kind = Kind {
    retained: true,
    examples: &["access"],
    ..json(
        "access",
        "door/{door}/access",
        "How a door is used: its mode, a lock-down, whether it is held open, the last decision. For displays; no person is in it.",
        schemas::access,
    )
};
const HOLD: Kind = Kind {
    readers: &[Controller, Operator],
    examples: &["hold"],
    ..json(
        "hold",
        "door/{door}/hold",
        "Holds a door open by an operator's order: said again every ten seconds. `grant` alone counts, a token of the type `faceid-hold+jwt` (see \
         \"Doors that are held open\"); a controller that does not know it stays locked.",
        schemas::hold,
    )
};
const CREDENTIAL: Kind = Kind {
    writers: &[Reader],
    readers: &[Device],
    qos: 0,
    ..json(
        "credential",
        "door/{door}/credential",
        "What a card or PIN reader read. One factor of two: it opens nothing without its owner's face. A retained one is refused.",
        schemas::credential,
    )
};
const PASSAGE: Kind = Kind {
    writers: &[Controller],
    readers: &[Device, Operator],
    ..json(
        "passage",
        "door/{door}/passage",
        "Whether the door was opened for a grant. The signed `claim` alone counts: anti-passback takes a grant that was not used back by it.",
        schemas::passage,
    )
};
const DOOR_STATE: Kind = Kind {
    writers: &[Controller],
    retained: true,
    form: Word,
    ..json(
        "door-state",
        "door/{door}/state",
        "How the door stands. `unknown` is the controller's last will, and a lock that does not obey.",
        schemas::door_state,
    )
};
const PANEL: Kind = Kind {
    writers: &[Controller],
    retained: true,
    form: Word,
    ..json("panel", "door/{door}/panel", "Whether the line to the access panel is secure.", schemas::panel)
};
const PANEL_EVENT: Kind = Kind {
    writers: &[Controller],
    readers: &[Operator],
    ..json("panel-event", "door/{door}/panel/event", "What the access panel shows and says, for a display.", schemas::panel_event)
};
const COMMAND: Kind = Kind {
    writers: &[Operator, Dashboard],
    readers: &[Device],
    form: Signed,
    ..json(
        "command",
        "cmd/{verb}",
        "An order, signed by an operator (see \"Commands\"). `ping` alone may also be the plain word `ping`. A retained one is refused. The answer \
         goes to the MQTT 5 response topic, with the correlation data, and to `cmd/{verb}/reply`.",
        schemas::command,
    )
};
const REPLY: Kind = Kind {
    readers: &[Operator],
    ..json(
        "reply",
        "cmd/{verb}/reply",
        "The answer to a command. The same goes to `faceid-operator/…` where its sender asks for that.",
        schemas::reply,
    )
};
const DISCOVERY: Kind = Kind {
    retained: true,
    readers: &[Dashboard],
    ..json("discovery", "/homeassistant/device/{device}/config", "What Home Assistant is told of this device.", schemas::discovery)
};
const HOME_ASSISTANT: Kind = Kind {
    writers: &[Dashboard],
    readers: &[Device],
    retained: true,
    form: Word,
    ..json(
        "home-assistant-status",
        "/homeassistant/status",
        "Home Assistant's start: the device says its discovery message again.",
        schemas::home_assistant,
    )
};

/// Every kind, in the order of the published documents.
pub const KINDS: &[Kind] = &[
    DECISION,
    BIRTH,
    STATUS,
    STATS,
    KEYS,
    AUDIT_HEAD,
    ALARM,
    CAMERA_STATUS,
    PRESENCE,
    ATTEMPT,
    PROMPT,
    SNAPSHOT,
    THROTTLE,
    ACCESS,
    HOLD,
    CREDENTIAL,
    PASSAGE,
    DOOR_STATE,
    PANEL,
    PANEL_EVENT,
    COMMAND,
    REPLY,
    DISCOVERY,
    HOME_ASSISTANT,
];

/// The kind of an event.
pub fn kind_of(event: &Event) -> Kind {
    match event {
        Event::Decision(_) => DECISION,
        Event::Birth(_) | Event::BirthEcho(_) => BIRTH,
        Event::Presence(_) => PRESENCE,
        Event::CameraStatus(_) => CAMERA_STATUS,
        Event::Attempt(_) => ATTEMPT,
        Event::Stats(_) => STATS,
        Event::Alarm(_) => ALARM,
        Event::Keys(_) => KEYS,
        Event::AuditHead(_) => AUDIT_HEAD,
        Event::Discovery(_) => DISCOVERY,
        Event::Reply(_) => REPLY,
        Event::Prompt(_) => PROMPT,
        Event::Snapshot(_) => SNAPSHOT,
        Event::DoorBlock(_) => THROTTLE,
        Event::DoorAccess(_) => ACCESS,
        Event::DoorHold(_) => HOLD,
    }
}

/// Whether `topic` (a whole one, or below `<base>/<device>/` for a pattern of that sort) is one of the pattern.
pub fn is_of(pattern: &str, topic: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), topic.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(part), Some(word)) if part == word || (part.starts_with('{') && !word.is_empty()) => {}
            _ => return false,
        }
    }
}
