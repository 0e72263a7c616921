//! `command`: signs a command with the operator's key, sends it, and prints the answer.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::run::OPERATOR_KEY;
use super::{Failure, Places, Result, code, say, say_json, table};
use crate::access::grant::GrantKey;
use crate::publish::command::{Command, OPERATORS, Verb};
use crate::publish::{News, Notice, Said, Subscriber};
use crate::system::{clock, secret};
use crate::types::DeviceId;

/// `faceid command`
#[derive(clap::Args)]
pub(super) struct Args {
    /// ping, replay, lockdown, release, open, hold-open, forgive, list, set, remove, enroll, rebuild, snapshot-on or snapshot-off
    #[arg(value_parser = parse_verb)]
    verb: Verb,
    /// What the verb wants, as a JSON object: '{"doors":["front"]}'; the options below write the same
    #[arg(long, value_name = "JSON", value_parser = parse_json, conflicts_with_all = ["door", "person", "camera", "seconds", "until"])]
    args: Option<Value>,
    /// At which door; several times where the verb takes several [lockdown, release: every door]
    #[arg(long, value_name = "DOOR")]
    door: Vec<String>,
    /// Whom [set, remove, enroll, forgive]
    #[arg(long, value_name = "PERSON")]
    person: Option<String>,
    /// At which camera [enroll]
    #[arg(long, value_name = "CAMERA")]
    camera: Option<String>,
    /// For how long [hold-open: 0 ends it; enroll; snapshot-on]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Until when, RFC 3339 [hold-open]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The device [default: the config's]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceId>,
    /// The answer as it came, on a terminal too
    #[arg(long)]
    json: bool,
    /// The secret that holds the operator's key
    #[arg(long, value_name = "FILE", default_value = OPERATOR_KEY, env = "FACEID_OPERATOR_KEY")]
    key: String,
    /// For how many seconds the command is good
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=300))]
    lifetime: u32,
    /// Only print the signed command, for another client to send
    #[arg(long)]
    print: bool,
}

fn parse_verb(text: &str) -> std::result::Result<Verb, String> {
    let known: Vec<&str> = Verb::ALL.iter().map(|(_, word)| *word).collect();
    Verb::of(text).ok_or_else(|| format!("use one of {}", known.join(", ")))
}

fn parse_json(text: &str) -> std::result::Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// What the options say, as the verb wants it.
fn arguments(args: &Args) -> Result<Value> {
    if let Some(given) = &args.args {
        return Ok(given.clone());
    }
    let mut object = serde_json::Map::new();
    match (args.verb, args.door.as_slice()) {
        (_, []) => {}
        (Verb::Open, [door]) => drop(object.insert("door".to_owned(), door.as_str().into())),
        (Verb::Open, _) => return Err(Failure::new(code::USAGE, "open takes one --door: give the command once for each")),
        (_, doors) => drop(object.insert("doors".to_owned(), doors.into())),
    }
    let texts = [("person", &args.person), ("camera", &args.camera), ("until", &args.until)];
    for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
        object.insert(key.to_owned(), text.as_str().into());
    }
    object.extend(args.seconds.map(|seconds| ("seconds".to_owned(), seconds.into())));
    Ok(if object.is_empty() { Value::Null } else { Value::Object(object) })
}

/// An answer for a person: a line that says what came of it, then what was asked for, a line each.
fn readable(reply: &Value, verb: Verb) -> Vec<String> {
    let word = verb.as_str();
    if reply["ok"] != true {
        return vec![format!("{word} refused: {}", reply["error"].as_str().unwrap_or("no reason was given"))];
    }
    let result = &reply["result"];
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) => {
            all.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    if let Some(people) = result["people"].as_array() {
        let row = |person: &Value| ["id", "groups", "templates"].map(|key| cell(&person[key]));
        return table::lines(["PERSON", "GROUPS", "TEMPLATES"], &people.iter().map(row).collect::<Vec<_>>());
    }
    if let Some(events) = result["events"].as_array() {
        return events.iter().map(super::watch::decision_line).collect();
    }
    let facts = result.as_object().into_iter().flatten().map(|(key, value)| format!("{key} {}", cell(value)));
    let facts: Vec<String> = facts.collect();
    vec![if facts.is_empty() { format!("{word}: done") } else { format!("{word}: done ({})", facts.join(", ")) }]
}

pub(super) fn command(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let config = &context.config;
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let seed = secret::read(&super::snapshot::by_path(&args.key)?, &config.secrets_dir).map_err(|error| refused(&error))?;
    let key = GrantKey::from_seed(&seed).map_err(|error| refused(&error))?;
    let device = args.device.as_ref().unwrap_or(&config.device);
    let now = clock::wall().unix_seconds();
    let command = Command {
        device: device.clone(),
        verb: args.verb,
        issued_at: now,
        expires_at: now + i64::from(args.lifetime),
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        args: arguments(args)?,
        operator: String::new(),
    };
    let token = command.sign(&key);
    if args.print {
        say(token);
        return Ok(code::YES);
    }
    let root = config.publish.topic_root(device);
    let answers = format!("{OPERATORS}{}", command.nonce);
    let topic = format!("{root}/cmd/{}", args.verb.as_str());
    let subscriber = Subscriber::beside(&config.publish, &config.secrets_dir, &config.device, &answers);
    let subscriber = subscriber.map_err(Failure::unavailable)?;
    let started = clock::monotonic();
    let (mut sent, mut news) = (false, News::default());
    while clock::monotonic().since(started) < Duration::from_secs(u64::from(args.lifetime)) {
        match subscriber.next(Duration::from_millis(200)) {
            // The subscription stands, so the answer cannot be missed; a second sending would be a replay.
            Some(Notice::Subscribed) if !sent => {
                sent = true;
                news.connected(clock::monotonic());
                let answer = Some((answers.clone(), command.nonce.clone().into_bytes()));
                subscriber.say(Said { topic: topic.clone(), payload: token.clone(), answer, ..Said::default() });
            }
            Some(Notice::Message(message)) if message.correlation.as_deref() == Some(command.nonce.as_bytes()) => {
                let reply: Value = serde_json::from_slice(&message.payload).map_err(Failure::data)?;
                if args.json || !std::io::stdout().is_terminal() {
                    say_json(&reply);
                } else {
                    readable(&reply, args.verb).iter().for_each(|line| super::say_outside(line));
                }
                return Ok(if reply["ok"] == true { code::YES } else { code::NO });
            }
            Some(Notice::Problem(problem) | Notice::Refused(problem)) => {
                if news.is_news(&problem, clock::monotonic()) {
                    super::complain(problem);
                }
            }
            Some(Notice::Message(_) | Notice::Subscribed | Notice::Taken(_)) | None => {}
        }
    }
    Err(Failure::unavailable(format!(
        "device {} did not answer within {} s: is it running, and do the broker's access rules (ACL) let this user write {topic} and read \
         faceid-operator/#, and the device read the one and write the other?",
        device, args.lifetime
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> std::result::Result<Value, String> {
        let line =
            <Line as clap::Parser>::try_parse_from(format!("command {line}").split(' ')).map_err(|error| error.to_string())?;
        arguments(&line.args).map_err(|failure| failure.message)
    }

    #[test]
    fn options_say_what_a_verb_wants_as_its_json_does() {
        assert_eq!(parsed("ping").unwrap(), Value::Null);
        assert_eq!(parsed("lockdown --door a --door b").unwrap(), json!({ "doors": ["a", "b"] }));
        assert_eq!(parsed("open --door a").unwrap(), json!({ "door": "a" }));
        assert!(parsed("open --door a --door b").unwrap_err().contains("one --door"));
        assert_eq!(parsed("hold-open --door a --seconds 0").unwrap(), json!({ "doors": ["a"], "seconds": 0 }));
        assert_eq!(parsed("enroll --person ada --camera porch").unwrap(), json!({ "person": "ada", "camera": "porch" }));
        assert_eq!(parsed(r#"lockdown --args {"doors":["a"]}"#).unwrap(), json!({ "doors": ["a"] }));
        assert!(parsed("lockdown --args {} --door a").is_err() && parsed("melt").is_err());
    }

    #[test]
    fn an_answer_is_told_in_a_line_or_a_table() {
        let told = |reply: Value, verb| readable(&reply, verb).join("|");
        assert_eq!(told(json!({ "ok": false, "error": "its time is over" }), Verb::Lockdown), "lockdown refused: its time is over");
        assert_eq!(told(json!({ "ok": true, "result": null }), Verb::SnapshotOff), "snapshot-off: done");
        assert_eq!(told(json!({ "ok": true, "result": { "door": "front" } }), Verb::Open), "open: done (door front)");
        let people = json!({ "ok": true, "result": { "people": [{ "id": "ada", "groups": ["staff", "lab"], "templates": 4 }] } });
        assert_eq!(told(people, Verb::List), "PERSON  GROUPS     TEMPLATES|ada     staff lab  4");
    }
}
