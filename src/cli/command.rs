//! `command`: signs a command with the operator's key, sends it, and prints the answer.

use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::run::OPERATOR_KEY;
use super::{Failure, Places, Result, code, say, say_json};
use crate::access::grant::GrantKey;
use crate::publish::command::{Command, OPERATORS, Verb};
use crate::publish::{News, Notice, Said, Subscriber};
use crate::system::{clock, secret};

/// `faceid command`
#[derive(clap::Args)]
pub(super) struct Args {
    /// ping, replay, lockdown, release, open, hold-open, forgive, list, set, remove, enroll, rebuild, snapshot-on or snapshot-off
    #[arg(value_parser = parse_verb)]
    verb: Verb,
    /// What the verb wants, as a JSON object: '{"doors":["front"]}'
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    args: Option<Value>,
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

pub(super) fn command(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let config = &context.config;
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let seed = secret::read(&super::snapshot::by_path(&args.key)?, &config.secrets_dir).map_err(|error| refused(&error))?;
    let key = GrantKey::from_seed(&seed).map_err(|error| refused(&error))?;
    let now = clock::wall().unix_seconds();
    let command = Command {
        device: config.device.clone(),
        verb: args.verb,
        issued_at: now,
        expires_at: now + i64::from(args.lifetime),
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        args: args.args.clone().unwrap_or(Value::Null),
        operator: String::new(),
    };
    let token = command.sign(&key);
    if args.print {
        say(token);
        return Ok(code::YES);
    }
    let root = config.publish.topic_root(&config.device);
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
                say_json(&reply);
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
        config.device, args.lifetime
    )))
}
