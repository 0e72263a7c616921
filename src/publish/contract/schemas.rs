//! The JSON Schemas (2020-12) of the messages, by hand: they say what a field means, and a test compares them with what the code writes.
//! Only these keywords are used: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `minimum`,
//! `pattern`, `format`, `minItems`, `maxItems`, `description`.

use serde_json::{Map, Value, json};

use super::super::payload::{AlarmKind, CONTRACT_VERSION};
use super::words;

/// Ids of devices, doors, cameras, people, groups and rules.
pub const ID: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$";
/// `sequence`: twenty digits.
pub const DIGITS: &str = "^[0-9]{20}$";
/// A compact JWS.
pub const JWS: &str = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$";

/// A closed object: a field whose name ends with `?` may be absent.
fn object(fields: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        let plain = name.trim_end_matches('?');
        if plain == *name {
            required.push(plain);
        }
        properties.insert(plain.to_owned(), schema.clone());
    }
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// With what every plain message begins with.
fn stamped(fields: &[(&str, Value)]) -> Value {
    let mut all = vec![
        (
            "contract_version",
            json!({"const": CONTRACT_VERSION, "description": "The contract's version. Fields are added under the same one"}),
        ),
        ("device", id("The device")),
        ("boot_id", text("Made afresh at each start of the program that writes")),
        ("time", time("When it was so")),
    ];
    all.extend(fields.iter().cloned());
    object(&all)
}

fn text(what: &str) -> Value {
    json!({ "type": "string", "description": what })
}

fn id(what: &str) -> Value {
    json!({ "type": "string", "pattern": ID, "description": what })
}

fn token(what: &str) -> Value {
    json!({ "type": "string", "pattern": JWS, "description": what })
}

fn time(what: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": what })
}

fn count(what: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": what })
}

fn number(what: &str) -> Value {
    json!({ "type": "number", "description": what })
}

fn truth(what: &str) -> Value {
    json!({ "type": "boolean", "description": what })
}

fn one_of<'a>(words: impl IntoIterator<Item = &'a str>, what: &str) -> Value {
    json!({ "type": "string", "enum": words.into_iter().collect::<Vec<_>>(), "description": what })
}

/// The same or null.
fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(words) = schema["enum"].as_array_mut() {
        words.push(Value::Null);
    } else if let Some(schema) = schema.as_object_mut() {
        schema.remove("enum");
    }
    schema
}

fn list(items: &Value, what: &str) -> Value {
    json!({ "type": "array", "items": items, "description": what })
}

/// An object with any keys.
fn map(values: &Value, what: &str) -> Value {
    json!({ "type": "object", "additionalProperties": values, "description": what })
}

fn described(mut schema: Value, what: &str) -> Value {
    schema["description"] = what.into();
    schema
}

fn models() -> Value {
    map(
        &json!({"type": "array", "items": {"type": "string"}}),
        "The networks by what they are for: `detector`, `liveness`, `embedder`",
    )
}

fn clock() -> Value {
    let fields = [
        ("source", text("What sets it: `ntp`, `rtc`, `unknown`")),
        ("synced", truth("Whether it follows that source now")),
        ("error_ms", or_null(count("The largest error that the source admits"))),
    ];
    described(object(&fields), "How good the device's clock was")
}

pub(super) fn decision() -> Value {
    let evidence = object(&[
        ("frames", count("How many frames the evidence comes from")),
        ("quality_band", one_of(["none", "low", "medium", "high"], "How good they were; `none` where no frame was looked at")),
        (
            "match_band",
            one_of(["none", "weak", "near", "good", "strong"], "The best comparison, by how far it is from the threshold"),
        ),
        ("liveness_band", one_of(["none", "low", "uncertain", "high"], "Liveness, by its threshold")),
    ]);
    let policy = object(&[("id", id("The rules' name")), ("version", count("Their version"))]);
    let data = object(&[
        ("contract_version", json!({"const": CONTRACT_VERSION, "description": "The contract's version"})),
        ("boot_id", text("Made afresh at each start of the daemon")),
        ("outcome", one_of(["granted", "denied", "review"], "`review`: a person should look; the door stays shut")),
        ("reason", one_of(words::REASONS.iter().map(|reason| reason.word), "See \"Reasons\"")),
        ("door", id("At which door")),
        ("camera", or_null(id("Seen by which camera; null where an operator opened the door"))),
        ("track", or_null(count("Which visit there"))),
        ("person", or_null(id("Who; on a denial only where the reason is about that person"))),
        ("operator?", text("The id of the operator's key, where one opened the door")),
        ("person_name?", text("The person's name, where the config says so")),
        ("factors", list(&one_of(["face", "card", "pin", "operator"], "One"), "What the person was recognised by")),
        ("evidence", described(evidence, "Bands, never scores, which would let an attacker climb")),
        ("policy", described(policy, "The rules that it was decided by")),
        ("models", models()),
        ("clock", clock()),
        ("historical", truth("Told late, or again: no grant is in it, and no bell should ring")),
        ("grant?", token("What opens the door, on `granted` only: see \"Grants\"")),
    ]);
    object(&[
        ("specversion", json!({"const": "1.0"})),
        ("id", text("UUID version 7; the same in every copy of this decision")),
        ("source", text("`/faceid/<device>`")),
        ("type", json!({"const": "faceid.decision.v1"})),
        ("subject", text("`door/<door>`")),
        ("time", time("When it was decided")),
        ("sequence", json!({"type": "string", "pattern": DIGITS, "description": "Counts decisions over restarts, without a gap"})),
        ("expirytime", time("From when on it is history, and delivered without the grant")),
        ("datacontenttype", json!({"const": "application/json"})),
        ("data", data),
    ])
}

fn match_rate() -> Value {
    object(&[
        ("camera", id("Which camera")),
        ("state", one_of(["too-few-visits", "fine", "above-target", "tightened"], "In a word")),
        ("visits", count("How many strangers' visits it is taken from; old ones count less")),
        ("missing?", count("How many are missing before anything can be said")),
        ("per_10000", or_null(number("Expected false grants per 10,000 strangers at `threshold`"))),
        ("low", or_null(number("The 95 % interval's lower end"))),
        ("high", or_null(number("Its upper end"))),
        ("target", number("What the site bears, per 10,000")),
        ("threshold", number("The least score of a match in force there")),
        ("configured_threshold", number("The same as it is configured")),
    ])
}

fn match_rates() -> Value {
    list(&match_rate(), "How many strangers each camera's doors would let in, by their own measure; absent where no door measures")
}

pub(super) fn birth() -> Value {
    let gallery = object(&[
        ("people", count("How many are enrolled")),
        ("templates", count("How many templates they have")),
        ("epoch", count("The number of the gallery's last change")),
        ("claim?", token("The same, signed by the device (`typ` `faceid-epoch+jwt`)")),
    ]);
    stamped(&[
        ("version", text("The program's version")),
        ("first_sequence", count("The `sequence` of the first decision of this run")),
        ("models", models()),
        ("provider", text("Where the networks run: `ort/tensorrt`, `ort/cuda`, `ort/cpu`, `tract/cpu`")),
        ("gallery", described(gallery, "Who is enrolled, in figures")),
        ("cameras", list(&id("A camera"), "The cameras of the config")),
        ("doors", list(&id("A door"), "The doors of the config")),
        ("match_rates?", match_rates()),
        ("clock", clock()),
    ])
}

pub(super) fn status() -> Value {
    one_of(["online", "offline", "lost"], "`offline`: it was stopped; `lost`: the broker has lost it")
}

pub(super) fn stats() -> Value {
    let latency = object(&[("p50_ms", number("The median")), ("p99_ms", number("The 99th percentile"))]);
    let engine = object(&[
        ("model", text("The network")),
        ("provider", text("What it is for")),
        ("state", one_of(["building", "ready", "refused"], "How far it is")),
        ("seconds", count("How long it has been or was being built")),
        ("reason?", text("Why it does not serve")),
    ]);
    let camera = object(&[
        ("camera", id("Which camera")),
        ("fps", number("Frames that were looked at, per second")),
        ("frames", count("Frames that came, since the start")),
        ("frames_dropped", count("Frames that were replaced before anyone took them, since the start")),
    ]);
    let decision =
        described(latency.clone(), "From the first usable face to the grant, in milliseconds; null where none was given");
    stamped(&[
        ("uptime_s", count("Seconds since the start")),
        ("provider", text("Where the networks run")),
        ("engines?", list(&engine, "An accelerator's engines that were begun since the start")),
        ("cameras", list(&camera, "Each camera")),
        ("stages", map(&latency, "Each stage's time for a frame over the last minute, in milliseconds, by its name")),
        ("decision", or_null(decision)),
        ("decisions", count("Decisions since the start")),
        ("events_dropped", count("Events that were given up for want of room, since the start")),
        (
            "witness",
            one_of(
                ["awaited", "silent", "heard", "none-kept", "forgotten"],
                "What the broker has told of this device's last `birth`",
            ),
        ),
        ("temperature_c", or_null(number("The warmest sensor"))),
        ("match_rates?", match_rates()),
    ])
}

pub(super) fn keys() -> Value {
    let key = object(&[
        ("kty", json!({"const": "OKP"})),
        ("crv", json!({"const": "Ed25519"})),
        ("x", text("The public key, base64url")),
        ("kid", text("Its RFC 7638 thumbprint")),
        ("use", json!({"const": "sig"})),
        ("alg", json!({"const": "EdDSA"})),
    ]);
    object(&[
        (
            "keys",
            json!({"type": "array", "items": key, "minItems": 1, "maxItems": 16, "description": "The key in use; during a rotation two"}),
        ),
        ("endorsements?", list(&token("A statement"), "What keys of the set say of the others: see \"Keys\"")),
    ])
}

pub(super) fn audit_head() -> Value {
    object(&[
        ("n", count("The entry's number; 0 where there is none")),
        ("hash", text("Its SHA-256 in hexadecimal digits")),
        ("claim?", token("The same, signed by the device (`typ` `faceid-audit+jwt`)")),
    ])
}

pub(super) fn alarm() -> Value {
    stamped(&[
        ("kind", one_of(AlarmKind::ALL.map(AlarmKind::as_str), "See \"Alarms\"")),
        ("door", or_null(id("At which door"))),
        ("camera", or_null(id("Seen by which camera"))),
        ("detail", text("In a sentence, for a person")),
        ("id?", text("A controller's: the same in every copy")),
    ])
}

pub(super) fn camera_status() -> Value {
    stamped(&[
        ("camera", id("Which camera")),
        (
            "status",
            one_of(
                ["online", "offline", "stalled", "dark"],
                "`stalled`: connected and sends nothing; `dark`: covered, or the light is off",
            ),
        ),
        ("reason", or_null(text("Why, for a person"))),
    ])
}

pub(super) fn presence() -> Value {
    stamped(&[
        ("camera", id("Which camera")),
        ("faces", count("How many faces are in view")),
        ("people", list(&id("A person"), "Who of them was recognised")),
    ])
}

pub(super) fn attempt() -> Value {
    stamped(&[
        ("camera", id("Which camera")),
        ("track", count("Which visit there")),
        (
            "reason",
            one_of(
                words::ATTEMPTS.iter().map(|attempt| attempt.word),
                "Why no frame could be judged, most often; `too-short`: the face was good and gone too soon",
            ),
        ),
        ("frames", count("How many frames the visit had")),
    ])
}

pub(super) fn prompt() -> Value {
    stamped(&[
        ("door", id("At which door")),
        ("camera", id("Which camera looks")),
        ("track", count("Which visit there")),
        ("prompt", one_of(["turn-left", "turn-right"], "What to do, as the person sees it")),
        ("until", time("Until when")),
        ("timeout_ms", count("The same for a display without a clock")),
    ])
}

pub(super) fn snapshot() -> Value {
    stamped(&[
        ("door", id("At which door")),
        ("camera", id("Seen by which camera")),
        ("track", count("Which visit there")),
        ("content_type", json!({"const": "image/jpeg"})),
        ("sealing", json!({"const": "x25519-hkdf-sha256-aes256gcm"})),
        ("sealed", text("The picture, sealed; base64url without padding (`src/publish/FORMAT.md`)")),
    ])
}

pub(super) fn throttle() -> Value {
    let reason = object(&[
        (
            "reason",
            one_of(
                ["failed-faces", "failed-credentials"],
                "`failed-faces`: only clear matches pass; `failed-credentials`: a number counts beside its owner's clear face alone",
            ),
        ),
        ("until", time("Until when this one lasts")),
    ]);
    stamped(&[
        ("door", id("Which door")),
        ("blocked", truth("Whether it is blocked")),
        ("until", or_null(time("When the last block ends"))),
        ("reasons", list(&reason, "Which blocks there are")),
    ])
}

pub(super) fn access() -> Value {
    let last = object(&[
        ("outcome", one_of(["granted", "denied", "review"], "As in the decision")),
        ("reason", one_of(words::REASONS.iter().map(|reason| reason.word), "As in the decision")),
        ("time", time("When it was decided")),
    ]);
    stamped(&[
        ("door", id("Which door")),
        ("mode", one_of(["normal", "locked-down", "free", "two-factor"], "How the policy uses it")),
        ("locked_down", truth("Whether a command has locked it down")),
        ("held_open_until", or_null(time("Until when an operator holds it open"))),
        ("last", or_null(described(last, "The last decision since the start"))),
    ])
}

pub(super) fn hold() -> Value {
    stamped(&[
        ("door", id("Which door")),
        ("operator", text("The id of the operator's key")),
        ("until", or_null(time("Until when it is to be held open, as long as the word is renewed; null where that has ended"))),
        ("grant", token("The signed word, `typ` `faceid-hold+jwt`")),
    ])
}

pub(super) fn credential() -> Value {
    object(&[
        ("kind", one_of(["card", "pin"], "What was read")),
        ("number?", text("4 to 64 printable characters, as `credentials` of `[[policy.people]]` has it. Give it or `person`")),
        ("person?", id("Whose it is, where the reader's panel has looked that up")),
    ])
}

pub(super) fn passage() -> Value {
    stamped(&[
        ("door", id("Which door")),
        ("id", text("The same in every copy")),
        ("person", id("Who was let in")),
        ("jti", text("The grant's `jti`")),
        ("passed", truth("Whether the door was opened in time")),
        ("claim", or_null(token("The same, signed by the door (`typ` `faceid-passage+jwt`); null where it has no key"))),
    ])
}

pub(super) fn door_state() -> Value {
    one_of(words::DOOR_STATES, "`forced-open`: opened without a grant; `unknown`: nobody knows")
}

pub(super) fn panel() -> Value {
    one_of(["secure", "lost"], "`lost`: no secure channel, nothing reaches the panel")
}

pub(super) fn panel_event() -> Value {
    stamped(&[
        ("door", id("Which door")),
        ("kind", one_of(["light", "output", "buzzer", "text", "verdict", "not-presented"], "What happened")),
        ("colour?", one_of(["off", "red", "green", "other"], "Of a light")),
        ("on?", truth("Of an output")),
        ("text?", text("Of a text: what the panel shows")),
        ("verdict?", one_of(["granted", "denied", "silent"], "What the panel says of the person")),
        ("person?", id("Who was to be presented")),
        ("jti?", text("By which grant")),
        ("why?", one_of(["no-number", "too-many"], "Why nobody was presented")),
    ])
}

pub(super) fn command() -> Value {
    text("A compact JWS by an operator (`typ` `faceid-command+jwt`), or `ping`")
}

pub(super) fn reply() -> Value {
    object(&[
        ("ok", truth("Whether it was done")),
        ("verb", text("The last part of the topic that it came on")),
        ("nonce", or_null(text("The command's; null where it was not believed"))),
        ("result", json!({"description": "What the verb gives; null where it failed"})),
        ("error", or_null(text("Why it was not done, for a person"))),
        ("code?", text("The same for programs, of an enrolment that failed")),
        ("time", time("When it was answered")),
    ])
}

pub(super) fn discovery() -> Value {
    json!({
        "type": "object", "required": ["device", "origin", "components"],
        "description": "Home Assistant's device discovery: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload",
    })
}

pub(super) fn home_assistant() -> Value {
    text("`online` when it has started")
}

/// What a grant says.
pub fn claims() -> Value {
    object(&[
        ("iss", id("The device that decided")),
        ("aud", id("The one door that it opens, as one text")),
        ("sub", id("The person who was recognised, or `operator.<kid>`")),
        ("iat", count("When it was signed, in whole seconds since 1970")),
        ("nbf", count("From when on it is valid")),
        ("exp", count("From when on it is void")),
        ("jti", json!({"type": "string", "description": "Its own id, 1 to 64 letters, digits, `-` or `_`"})),
    ])
}
