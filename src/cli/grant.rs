//! `grant verify`: whether a door would open by a grant, and why not.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::context::Context;
use super::people::parse_time;
use super::run::key_ring;
use super::{Failure, Places, Result, code, say, say_json};
use crate::access::grant::{self, Claims, GrantError, KeySet, MAX_JWK_SET_BYTES};
use crate::door::controller::pinned_keys;
use crate::system::{clock, files};
use crate::types::{DeviceId, DoorId, Wall};

/// The longest text that is looked at, in bytes: a decision has some 3 kB.
const MAX_BYTES: u64 = 32 * 1024;

/// `faceid grant`
#[derive(clap::Subcommand)]
pub(super) enum GrantVerb {
    /// Say whether a door would open by a grant, and why not: exit code 0 and 1. Whether it was used before only the door knows
    Verify(VerifyArgs),
}

/// `faceid grant verify`
#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// The grant, or the whole decision as it was published; - for standard input
    token: String,
    /// The door [default: the one that [controller] drives]
    #[arg(long, value_name = "ID")]
    door: Option<DoorId>,
    /// The device that decided [default: the config's]
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// The keys to trust, a JWK set [default: what [controller] pins, or this device's own]
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Judge as if it were this time, like 2027-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Wall>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Why a grant opens nothing: the contract's word and a sentence.
type Refused = (&'static str, String);

/// What a door that has seen nothing yet makes of a grant.
fn judge(
    token: &str,
    keys: &KeySet,
    (device, door): (&DeviceId, &DoorId),
    now: Wall,
    leeway: Duration,
) -> std::result::Result<Claims, Refused> {
    let claims = grant::verify(token, keys, door, now, leeway).map_err(|error| (error.as_str(), error.to_string()))?;
    if claims.iss != *device {
        return Err(("issuer", format!("the grant is of another device: {}", claims.iss)));
    }
    Ok(claims)
}

/// A decision, or the word that holds a door open.
#[derive(Deserialize)]
struct Message {
    data: Option<Data>,
    grant: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    grant: Option<String>,
}

/// The token in what was given: itself, or a decision's.
fn token_in(text: &str) -> std::result::Result<String, Refused> {
    let text = text.trim();
    if !text.starts_with('{') {
        return Ok(text.to_owned());
    }
    let message: Message =
        serde_json::from_str(text).map_err(|_| ("malformed", "it is neither a grant nor a decision".to_owned()))?;
    message
        .data
        .map_or(message.grant, |data| data.grant)
        .ok_or(("no-grant", "the decision carries no grant: it is a refusal, or history".to_owned()))
}

fn read_keys(path: &Path) -> Result<KeySet> {
    let wrong = |error: &dyn std::fmt::Display| Failure::data(format!("{}: {error}", path.display()));
    let file = path.canonicalize().and_then(|path| files::open(&path)).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    file.take(MAX_JWK_SET_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    KeySet::from_jwk_set(&text).map_err(|error: GrantError| wrong(&error))
}

pub(super) fn grant(places: &Places, verb: &GrantVerb) -> Result {
    let GrantVerb::Verify(args) = verb;
    let config = Context::load(places)?.config;
    let device = args.device.as_ref().unwrap_or(&config.device);
    let door = args.door.as_ref().or(config.controller.door.as_ref());
    let door = door.ok_or_else(|| Failure::new(code::USAGE, "which door? Give --door, or set `door` of [controller]"))?;
    let keys = match &args.keys {
        Some(path) => read_keys(path)?,
        None if config.controller.pinned_keys.is_some() => pinned_keys(&config.controller).map_err(Failure::unavailable)?,
        None => key_ring(&config)?.public(),
    };
    let mut text = args.token.clone();
    if text == "-" {
        text.clear();
        let read = std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text);
        read.map_err(|error| Failure::data(format!("standard input: {error}")))?;
    }
    let leeway = Duration::from_secs(u64::from(config.controller.clock_leeway_s));
    let now = args.at.unwrap_or_else(clock::wall);
    let outcome = token_in(&text).and_then(|token| judge(&token, &keys, (device, door), now, leeway));
    let (line, value, exit) = match outcome {
        Ok(claims) => {
            let ends = Wall(claims.exp.saturating_mul(1000)).rfc3339();
            let does = if claims.hold_s.is_some() { "holds open" } else { "opens" };
            let line = format!(
                "{does} {door} for {} until {ends} (grant {}), unless it was used before: that only the door knows",
                claims.sub, claims.jti
            );
            (line, json!({ "opens": true, "claims": claims }), code::YES)
        }
        Err((word, why)) => {
            (format!("opens nothing: {word}: {why}"), json!({ "opens": false, "reason": word, "detail": why }), code::NO)
        }
    };
    if args.json {
        say_json(&value)
    } else {
        say(line)
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_says_of_each_published_vector_what_a_door_makes_of_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/contract/grants.json");
        let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let keys = KeySet::from_jwk_set(&vectors["pinned"].to_string()).unwrap();
        let (device, door) = (DeviceId::new("gate").unwrap(), DoorId::new("front").unwrap());
        let mut judged = 0;
        for case in vectors["cases"].as_array().unwrap() {
            // What only the door knows: the broker's flag, what it took before, and keys that it has learnt.
            if ["retained", "taken", "published"].iter().any(|name| !case[name].is_null()) {
                continue;
            }
            let now = Wall(1000 * case["now"].as_i64().unwrap());
            let decision = json!({ "data": { "grant": case["token"] } }).to_string();
            for text in [case["token"].as_str().unwrap(), &decision] {
                let outcome = token_in(text).and_then(|token| judge(&token, &keys, (&device, &door), now, Duration::from_secs(2)));
                let word = outcome.as_ref().map_or_else(|(word, _)| *word, |_| "accept");
                assert_eq!(word, case["expect"], "{}", case["name"]);
            }
            judged += 1;
        }
        assert!(judged > 25, "{judged}");
        assert_eq!(token_in(r#"{"data": {"reason": "unknown"}}"#).unwrap_err().0, "no-grant");
        assert_eq!(token_in("{").unwrap_err().0, "malformed");
    }
}
