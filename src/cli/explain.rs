//! `check --explain`: who may pass which door at a moment, and why, by the policy alone. Nothing is opened but the config and, where its
//! key is at hand, the gallery for people's groups and ends.

use std::collections::BTreeMap;

use serde_json::json;

use super::context::Context;
use super::{Failure, Result, code, complain, say, say_json};
use crate::access::{Clock, Rules};
use crate::config::Config;
use crate::daemon;
use crate::gallery::Gallery;
use crate::system::clock;
use crate::types::{DoorId, PersonId, Profile};

/// What is asked.
#[derive(clap::Args)]
pub(super) struct ExplainArgs {
    /// Tell who may pass a door at a time, and why
    #[arg(long)]
    explain: bool,
    /// Which door [default: every door of the config]
    #[arg(long, value_name = "DOOR", requires = "explain")]
    door: Option<DoorId>,
    /// When, on the site's clock (2026-12-24T08:00) or with an offset, for a clock that is synchronised [default: now, by this device's
    /// clock as good as it is]
    #[arg(long, value_name = "TIME", requires = "explain")]
    at: Option<String>,
    /// Whom to ask for [default: everybody whom the policy or the gallery knows]
    #[arg(long, value_name = "PERSON", requires = "explain")]
    person: Vec<PersonId>,
    /// Tell it for a clock that is not synchronised
    #[arg(long, requires = "explain")]
    unsure_clock: bool,
    /// For machines
    #[arg(long, requires = "explain")]
    json: bool,
}

impl ExplainArgs {
    pub(super) fn is_asked(&self) -> bool {
        self.explain
    }
}

/// Exit code 0 when one of the people may pass one of the doors, and 1 when nobody may.
pub(super) fn explain(context: &Context, args: &ExplainArgs) -> Result {
    let config = &context.config;
    let rules = Rules::new(&config.policy).map_err(|error| Failure::new(code::CONFIG, error))?;
    let at = match &args.at {
        Some(text) => rules.at(text).ok_or_else(|| {
            let way_out = "use YYYY-MM-DDTHH:MM on the site's clock, or one with an offset (RFC 3339)";
            Failure::new(code::USAGE, format!("`{text}` is no time: {way_out}"))
        })?,
        None => clock::wall(),
    };
    let doors: Vec<&DoorId> = match &args.door {
        None => config.doors.iter().map(|door| &door.id).collect(),
        Some(asked) => vec![known_door(config, asked)?],
    };
    let people = people(context, &rules, &args.person);
    let clock = match (&args.at, args.unsure_clock) {
        (_, true) => Clock::Unsure,
        // As the daemon would judge at this moment.
        (None, false) => daemon::clock_now(&config.state_dir),
        (Some(_), false) => Clock::Synchronised,
    };
    let mut anybody = false;
    let mut told = Vec::new();
    for door in doors {
        let explanation = rules.explain(door, &people, at, clock);
        anybody |= explanation.answers.iter().any(|answer| answer.refusal.is_none());
        if args.json {
            let answers = explanation.answers.iter().map(|answer| {
                let reason = answer.refusal.map_or("match", |reason| reason.as_str());
                json!({ "person": answer.person, "may_pass": answer.refusal.is_none(), "reason": reason, "why": answer.why })
            });
            let answers: Vec<_> = answers.collect();
            told.push(json!({ "door": door, "at": at.rfc3339(), "rules": explanation.lines, "people": answers }));
            continue;
        }
        explanation.lines.iter().for_each(say);
        for answer in &explanation.answers {
            let verdict = answer.refusal.map_or_else(|| "may pass".to_owned(), |reason| format!("denied, {}", reason.as_str()));
            say(format!("  {}: {verdict}: {}", answer.person, answer.why));
        }
        say("");
    }
    if args.json {
        say_json(&json!(told));
    }
    Ok(if anybody { code::YES } else { code::NO })
}

fn known_door<'a>(config: &'a Config, asked: &DoorId) -> Result<&'a DoorId> {
    let doors = config.doors.iter().map(|door| &door.id);
    doors.clone().find(|door| *door == asked).ok_or_else(|| {
        let known: Vec<&str> = doors.map(DoorId::as_str).collect();
        Failure::new(code::USAGE, format!("there is no door `{asked}` in the config; it has: {}", known.join(", ")))
    })
}

/// Those who are asked for, with what the gallery says of them where it can be read.
fn people(context: &Context, rules: &Rules, asked: &[PersonId]) -> Vec<(PersonId, Profile)> {
    let mut known: BTreeMap<PersonId, Profile> = match enrolled(context) {
        Ok(people) => people,
        Err(why) => {
            complain(format!("people's groups and ends are the policy's alone, the gallery was not read: {why}"));
            BTreeMap::new()
        }
    };
    if !asked.is_empty() {
        return asked.iter().map(|person| (person.clone(), known.remove(person).unwrap_or_default())).collect();
    }
    for person in rules.named_people() {
        known.entry(person.clone()).or_default();
    }
    known.into_iter().collect()
}

fn enrolled(context: &Context) -> std::result::Result<BTreeMap<PersonId, Profile>, String> {
    let key = context.sealing_key().map_err(|failure| failure.message)?;
    let gallery = Gallery::open_read_only(&context.config.gallery, &key).map_err(|error| error.to_string())?;
    Ok(gallery.snapshot().people().map(|(person, _)| (person.id.clone(), person.into())).collect())
}
