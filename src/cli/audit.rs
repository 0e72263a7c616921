//! `audit`: the trail of what was decided and commanded, checked or written out.

use super::context::Context;
use super::{Failure, Places, Result, code, say, say_json};
use crate::publish::audit::{self, AuditError};
use crate::publish::{SealedError, StateKey};

/// `faceid audit …`
#[derive(clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Check every seal, every number and every link of the chain
    Verify {
        /// The hash of a head that was published: it must be in the chain, so a trail that was cut before it shows
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write every entry as a line of JSON, oldest first; fails where the chain is broken
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
    // The hash of an entry is what the next one names, and the last one's is the report's.
    let mut found = head.is_none();
    let report = audit::verify(&folder, &key, |entry, _| found |= head.as_deref() == Some(entry.prev.as_str()));
    let report = report.map_err(|error| failure(&error))?;
    found |= head.as_deref() == Some(report.head.hash.as_str());
    if !found {
        return Err(Failure::data("the chain is sound and that head is not in it: the trail was cut or replaced"));
    }
    if *json {
        say_json(&serde_json::to_value(&report).map_err(|error| Failure::new(code::BUG, error))?);
    } else {
        report.warnings.iter().for_each(super::complain);
        say(format!("entries {} to {} are sound, head {}", report.first, report.head.n, report.head.hash));
    }
    Ok(code::YES)
}
