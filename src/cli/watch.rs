//! `watch`: decisions and states as they come over MQTT, readable.

use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::{Failure, Places, Result, code, say_outside};
use crate::publish::{News, Notice, Received, Subscriber};
use crate::system::{clock, logging};

/// `faceid watch`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print topics and payloads as they are, control characters spelled out
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
    let started = clock::monotonic();
    let (mut decisions, mut news) = (0, News::default());
    loop {
        let age = clock::monotonic().since(started);
        if args.seconds.is_some_and(|limit| age >= Duration::from_secs(limit)) {
            return Ok(code::YES);
        }
        let message = match subscriber.next(Duration::from_millis(500)) {
            Some(Notice::Message(message)) => message,
            Some(Notice::Problem(problem) | Notice::Refused(problem)) => {
                if news.is_news(&problem, clock::monotonic()) {
                    super::complain(problem);
                }
                continue;
            }
            Some(Notice::Subscribed) => {
                news.connected(clock::monotonic());
                continue;
            }
            Some(Notice::Taken(_)) | None => continue,
        };
        let line = if args.raw { Some(raw(&message)) } else { readable(&message) };
        line.iter().for_each(|line| say_outside(line));
        decisions += u64::from(message.topic.ends_with("/decision"));
        if args.count.is_some_and(|count| decisions >= count) {
            return Ok(code::YES);
        }
    }
}

/// Topic and payload, on one line.
pub(super) fn raw(message: &Received) -> String {
    logging::escape(&format!("{} {}", message.topic, String::from_utf8_lossy(&message.payload)))
}

/// One line for a person; `None` for what only machines read. Anybody who may write to the broker can have anything in it, so nothing of
/// it starts another line or steers a terminal.
pub(super) fn readable(message: &Received) -> Option<String> {
    told(message).map(|line| logging::escape(&line))
}

fn told(message: &Received) -> Option<String> {
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
        let faces = usize::try_from(data.get("faces")?.as_u64()?).unwrap_or(usize::MAX);
        return Some(format!("camera {}: {} in view", text("camera"), super::plural(faces, "face")));
    }
    if message.topic.contains("/camera/") && message.topic.ends_with("/status") {
        return Some(format!("camera {}: {} ({})", text("camera"), text("status"), text("reason")));
    }
    if message.topic.contains("/door/") && message.topic.ends_with("/access") {
        let is_locked_down = data.get("locked_down").and_then(Value::as_bool).unwrap_or(false);
        let held = data.get("held_open_until").and_then(Value::as_str);
        let stands = match (is_locked_down, held) {
            (true, _) => "locked down by a command".to_owned(),
            (false, Some(until)) => format!("held open by an operator until {until}"),
            (false, None) => format!("mode {}", text("mode")),
        };
        return Some(format!("door {}: {stands}", text("door")));
    }
    if message.topic.ends_with("/attempt") {
        return Some(format!("camera {}: no decision: {}", text("camera"), text("reason")));
    }
    let is_for_machines = ["/stats", "/keys", "/audit/head", "/hold"].iter().any(|end| message.topic.ends_with(end));
    (!is_for_machines).then(|| format!("{}: {payload}", message.topic))
}

/// A decision as one line, as harmless as [`readable`]'s.
pub(super) fn decision_line(event: &Value) -> String {
    let data = event.get("data").unwrap_or(event);
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let time = event.get("time").and_then(Value::as_str).unwrap_or("-");
    let frames = data.pointer("/evidence/frames").and_then(Value::as_u64).unwrap_or(0);
    let band = |name: &str| data.pointer(&format!("/evidence/{name}")).and_then(Value::as_str).unwrap_or("-").to_owned();
    let line = format!(
        "{time}  door {}  {:<7}  {:<18}  person {}  track {}  {frames} frames, match {}, liveness {}",
        text("door"),
        text("outcome").to_uppercase(),
        text("reason"),
        text("person"),
        data.get("track").and_then(Value::as_u64).unwrap_or(0),
        band("match_band"),
        band("liveness_band"),
    );
    logging::escape(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_publisher_writes_starts_a_line_or_steers_a_terminal() {
        let forged = "x\n1970-01-01  door front  GRANTED\u{1b}[2J\u{9b}2J\r\u{202e}";
        let json = serde_json::json!({
            "time": forged, "data": { "door": forged, "outcome": forged, "reason": forged, "person": forged, "camera": forged,
            "status": forged, "faces": 1, "evidence": { "match_band": forged, "liveness_band": forged } },
        });
        for end in ["door/front/decision", "camera/c/status", "camera/c/presence", "camera/c/attempt", "alarm/x", "a\u{1b}[2J\nb"] {
            for payload in [json.to_string(), forged.to_owned()] {
                let topic = format!("faceid/gate/{end}");
                let message = Received { topic, payload: payload.into_bytes(), ..Received::default() };
                for line in [readable(&message).unwrap_or_default(), raw(&message)] {
                    assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
                }
            }
        }
        assert!(decision_line(&json).contains(r"x\n1970-01-01  door front  GRANTED\u{1b}[2J"), "{}", decision_line(&json));
    }
}
