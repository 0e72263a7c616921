//! `audit`: the trail of what was decided and commanded, checked or written out.

use std::time::{Duration, Instant};

use serde_json::json;

use super::context::Context;
use super::{Failure, Places, Result, code, complain, say, say_json};
use crate::access::grant::HeadClaim;
use crate::daemon::KeyRing;
use crate::publish::audit::{self, AuditError, Head};
use crate::publish::{Notice, SealedError, StateKey, Subscriber};
use crate::types::Wall;

/// How long the broker is waited for, and after the subscription what it keeps.
const PATIENCE: Duration = Duration::from_secs(10);
const KEPT_PATIENCE: Duration = Duration::from_secs(3);

/// `faceid audit …`
#[derive(clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Check every seal, every number and every link of the chain
    Verify {
        /// A head that was published must be in the chain, so a trail whose end was cut off shows: that of this hash, or without one
        /// that which the config's broker keeps, if this device signed it
        #[arg(long, value_name = "HASH")]
        head: Option<Option<String>>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write every entry as a line of JSON, oldest first; exits with an error if the chain is broken
    Export,
}

fn failure(error: &AuditError) -> Failure {
    let code = match error {
        AuditError::Broken { .. } => code::DATA,
        AuditError::Sealed(SealedError::Io { .. }) => code::UNAVAILABLE,
        AuditError::Sealed(SealedError::Damaged { .. }) => code::DATA,
        AuditError::Sealed(_) => code::PERMISSION,
    };
    Failure::new(code, error)
}

pub(super) fn audit(places: &Places, verb: &AuditVerb) -> Result {
    let context = Context::load(places)?;
    let folder = context.config.state_dir.join("audit");
    let key = StateKey::read(&context.config.secrets_dir).map_err(|error| Failure::new(code::PERMISSION, error))?;
    let AuditVerb::Verify { head, json } = verb else {
        return audit::verify(&folder, &key, |_, text| say(text)).map(|_| code::YES).map_err(|error| failure(&error));
    };
    // Before the trail: what is published of it meanwhile is in the trail that is read then.
    let published = match head {
        Some(None) => Some(kept(&context)?),
        _ => None,
    };
    let wanted = match (head, &published) {
        (Some(Some(hash)), _) => Some(hash.as_str()),
        (_, Some(claim)) => Some(claim.hash.as_str()),
        _ => None,
    };
    // The hash of an entry is what the next one names, and the last one's is the report's.
    let mut found = wanted.is_none();
    let report = audit::verify(&folder, &key, |entry, _| found |= wanted == Some(entry.prev.as_str()));
    let report = report.map_err(|error| failure(&error))?;
    found |= wanted == Some(report.head.hash.as_str());
    if !found {
        let which = published.as_ref().map_or_else(|| "that head".to_owned(), shown);
        return Err(Failure::data(format!("the chain is sound and {which} is not in it: the trail was cut or replaced")));
    }
    if wanted.is_none() {
        complain(
            "NOT compared with a published head: a trail whose last entries were taken away is as sound as a whole one. --head asks the \
             broker for the last head, --head HASH takes one that was kept elsewhere",
        );
    }
    if *json {
        let mut value = serde_json::to_value(&report).map_err(|error| Failure::new(code::BUG, error))?;
        value["compared"] = json!(wanted.is_some());
        if let Some(claim) = &published {
            value["published"] =
                json!({ "n": claim.n, "hash": claim.hash, "said_at": Wall(claim.iat.saturating_mul(1000)).rfc3339() });
        }
        say_json(&value);
    } else {
        report.warnings.iter().for_each(complain);
        let compared = match (&published, wanted) {
            (Some(claim), _) => format!("; {} is in it", shown(claim)),
            (None, Some(hash)) => format!("; head {hash} is in it"),
            (None, None) => String::new(),
        };
        say(format!("entries {} to {} are sound, head {}{compared}", report.first, report.head.n, report.head.hash));
    }
    Ok(code::YES)
}

fn shown(claim: &HeadClaim) -> String {
    let at = Wall(claim.iat.saturating_mul(1000)).rfc3339();
    format!("the head that the broker keeps (entry {}, {}, published {at})", claim.n, claim.hash)
}

/// The head that the broker keeps, if this device signed it.
fn kept(context: &Context) -> Result<HeadClaim> {
    let config = &context.config;
    let keys = KeyRing::read(&config.device, &config.secrets_dir).map_err(|error| Failure::new(code::PERMISSION, error))?;
    let topic = format!("{}/audit/head", config.publish.topic_root(&config.device));
    let subscriber = Subscriber::start(&config.publish, &config.secrets_dir, &topic).map_err(Failure::unavailable)?;
    let mut until = Instant::now() + PATIENCE;
    let mut problem = "it did not answer in time".to_owned();
    while let Some(wait) = until.checked_duration_since(Instant::now()) {
        match subscriber.next(wait) {
            Some(Notice::Message(message)) if message.topic == topic => {
                let said = Head::said(&message.payload, &config.device, &keys.public());
                return said.map_err(|why| {
                    Failure::data(format!("the trail was NOT compared with the head that the broker keeps on {topic}: {why}"))
                });
            }
            Some(Notice::Subscribed) => {
                until = Instant::now() + KEPT_PATIENCE;
                problem = format!(
                    "it keeps none on {topic}, or this user may not read it there (its access rules must let the device read audit/head)"
                );
            }
            Some(Notice::Problem(what) | Notice::Refused(what)) => problem = what.to_string(),
            _ => {}
        }
    }
    Err(Failure::unavailable(format!("the trail was NOT compared: the broker gave no head: {problem}")))
}
