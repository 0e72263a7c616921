//! `watch`: decisions and states as they come over MQTT, readable.

use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::{Failure, Places, Result, code, say};
use crate::publish::{Notice, Received, Subscriber};

/// `faceid watch`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print topics and payloads as they are
    #[arg(long)]
    raw: bool,
    /// Leave after this many decisions
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Leave after this many seconds
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
}

pub(super) fn watch(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let config = &context.config;
    let filter = format!("{}/#", config.publish.topic_root(&config.device));
    let subscriber = Subscriber::beside(&config.publish, &config.secrets_dir, &config.device, &filter);
    let subscriber = subscriber.map_err(Failure::unavailable)?;
    let started = crate::system::clock::monotonic();
    let mut decisions = 0;
    loop {
        let age = crate::system::clock::monotonic().since(started);
        if args.seconds.is_some_and(|limit| age >= Duration::from_secs(limit)) {
            return Ok(code::YES);
        }
        let message = match subscriber.next(Duration::from_millis(500)) {
            Some(Notice::Message(message)) => message,
            Some(Notice::Problem(problem) | Notice::Refused(problem)) => {
                super::complain(problem);
                continue;
            }
            Some(Notice::Subscribed | Notice::Taken(_)) | None => continue,
        };
        if args.raw {
            say(format!("{} {}", message.topic, String::from_utf8_lossy(&message.payload)));
        } else if let Some(line) = readable(&message) {
            say(line);
        }
        decisions += u64::from(message.topic.ends_with("/decision"));
        if args.count.is_some_and(|count| decisions >= count) {
            return Ok(code::YES);
        }
    }
}

/// One line for a person; `None` for what only machines read.
pub(super) fn readable(message: &Received) -> Option<String> {
    let payload = String::from_utf8_lossy(&message.payload);
    let Ok(value) = serde_json::from_str::<Value>(&payload) else {
        return Some(format!("{}: {payload}", message.topic));
    };
    let data = value.get("data").unwrap_or(&value);
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    if message.topic.ends_with("/decision") {
        return Some(decision_line(&value));
    }
    if message.topic.ends_with("/presence") {
        return Some(format!("camera {}: {} face(s) in view", text("camera"), data.get("faces")?.as_u64()?));
    }
    if message.topic.contains("/camera/") && message.topic.ends_with("/status") {
        return Some(format!("camera {}: {} ({})", text("camera"), text("status"), text("reason")));
    }
    if message.topic.ends_with("/attempt") {
        return Some(format!("camera {}: nobody was decided: {}", text("camera"), text("reason")));
    }
    let is_for_machines = ["/stats", "/keys", "/audit/head"].iter().any(|end| message.topic.ends_with(end));
    (!is_for_machines).then(|| format!("{}: {payload}", message.topic))
}

/// A decision as one line.
pub(super) fn decision_line(event: &Value) -> String {
    let data = event.get("data").unwrap_or(event);
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let time = event.get("time").and_then(Value::as_str).unwrap_or("-");
    let frames = data.pointer("/evidence/frames").and_then(Value::as_u64).unwrap_or(0);
    let band = |name: &str| data.pointer(&format!("/evidence/{name}")).and_then(Value::as_str).unwrap_or("-").to_owned();
    format!(
        "{time}  door {}  {:<7}  {:<18}  person {}  track {}  {frames} frames, match {}, liveness {}",
        text("door"),
        text("outcome").to_uppercase(),
        text("reason"),
        text("person"),
        data.get("track").and_then(Value::as_u64).unwrap_or(0),
        band("match_band"),
        band("liveness_band"),
    )
}
