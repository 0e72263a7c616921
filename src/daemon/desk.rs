//! What operators do from a desk at the decider: doors opened once or held open, areas forgiven, and the rules read anew; and what is told
//! of each door for displays, retained on `door/<door>/access`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::events;
use super::workers::Decisions;
use crate::access::policy::DoorMode;
use crate::access::{HoldOrder, Rules};
use crate::publish::command::Judge;
use crate::publish::{DoorAccess, DoorHold, Event, LastDecision};
use crate::system::{clock, messages};
use crate::types::{Decision, DoorId, Moment, Wall};

/// An operator's wish at a door, whose command was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeskOrder {
    /// Open it once.
    Open(DoorId),
    /// Hold these open for so long; no time ends it.
    Hold(Vec<DoorId>, Duration),
}

/// What a running daemon takes up of a config that is read again.
#[derive(Clone, Default)]
pub struct Reloads {
    rules: Arc<Mutex<Option<Rules>>>,
    commands: Arc<Mutex<Option<Judge>>>,
}

impl Reloads {
    /// From now on commands are believed by this judge's keys.
    pub(super) fn commands(&self, judge: Judge) {
        *self.commands.lock().unwrap_or_else(PoisonError::into_inner) = Some(judge);
    }

    /// Whoever judges commands, once the daemon runs.
    pub(super) fn judge(&self) -> Option<Judge> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The decider takes these rules up within a moment.
    pub(super) fn renew(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
    }

    fn take(&self) -> Option<Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How the doors are, for the figures and for the command line.
#[derive(Default)]
pub struct DoorLines(Mutex<BTreeMap<DoorId, DoorLine>>);

/// How one door is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DoorLine {
    /// How its rules use it.
    pub(super) mode: DoorMode,
    /// Whether a command has locked it down.
    pub(super) locked_down: bool,
    /// Until when an operator holds it open.
    pub(super) held_until: Option<Wall>,
    last: Option<LastDecision>,
    /// Decisions by outcome.
    pub(super) decisions: BTreeMap<&'static str, u64>,
}

impl DoorLines {
    pub(super) fn all(&self) -> BTreeMap<DoorId, DoorLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Each door that does not stand as its rules say: locked down, or held open and until when.
    pub(super) fn unusual(&self) -> Vec<(DoorId, Option<Wall>)> {
        let unusual = |(door, line): (DoorId, DoorLine)| {
            (line.locked_down || line.held_until.is_some()).then_some((door, line.held_until.filter(|_| !line.locked_down)))
        };
        self.all().into_iter().filter_map(unusual).collect()
    }

    /// One more decision.
    pub(super) fn count(&self, decision: &Decision) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = doors.entry(decision.door.clone()).or_default();
        *line.decisions.entry(decision.outcome.as_str()).or_default() += 1;
        let (outcome, reason) = (decision.outcome.as_str(), decision.reason.as_str());
        line.last = Some(LastDecision { outcome, reason, at: decision.decided_at.wall });
    }

    /// Takes down how a door is, and gives what is to be told of it.
    fn note(&self, door: &DoorId, (mode, locked_down): (DoorMode, bool), held_until: Option<Wall>, at: Wall) -> DoorAccess {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = doors.entry(door.clone()).or_default();
        (line.mode, line.locked_down, line.held_until) = (mode, locked_down, held_until);
        DoorAccess { door: door.clone(), mode: mode.as_str(), locked_down, held_until, last: line.last.clone(), at }
    }
}

impl Decisions {
    /// Follows an operator's wish at doors; whose key it was signed by is in the audit trail and, without a name, in the decision.
    pub(super) fn desk(&mut self, order: DeskOrder, operator: &str, now: Moment) -> Result<Value, String> {
        match order {
            DeskOrder::Open(door) => {
                let decision = self.decider.open_once(&door, operator, now, &mut grant_id).map_err(|error| error.to_string())?;
                self.conclude(decision);
                Ok(json!({ "door": door }))
            }
            DeskOrder::Hold(doors, time) => {
                let mut until = None;
                for door in &doors {
                    until = self.decider.hold_open(door, operator, time, now).map_err(|error| error.to_string())?;
                    let says = until.map_or("an operator ends that it is held open".to_owned(), |until| {
                        format!("an operator holds it open until {}", until.rfc3339())
                    });
                    log::warn!(MESSAGE_ID = messages::COMMAND, door = door.as_str(), operator = operator; "{says}");
                }
                self.look_after_doors(now);
                Ok(json!({ "doors": doors, "until": until.map(Wall::rfc3339) }))
            }
        }
    }

    /// Tells controllers of doors that are held open, and displays of whatever has changed at a door.
    pub(super) fn look_after_doors(&mut self, now: Moment) {
        if let Some(rules) = self.reloads.take() {
            let (id, version) = (rules.version.id.clone(), rules.version.version);
            self.decider.set_rules(rules);
            self.keep_state(now);
            log::info!(policy = id.as_str(), version = version; "policy read again and in force");
            events::note(&self.audit, &self.publisher, "policy", json!({ "id": id, "version": version }));
        }
        for HoldOrder { door, operator, until, token } in self.decider.hold_orders(now, &mut grant_id) {
            if until.is_none() {
                log::info!(door = door.as_str(); "the door is not held open any more");
                events::note(&self.audit, &self.publisher, "hold-ended", json!({ "door": door, "operator": operator }));
            }
            self.publisher.publish(Event::DoorHold(DoorHold { door, operator, until, grant: token, at: now.wall }));
        }
        let doors: Vec<(DoorId, DoorMode, bool)> =
            self.decider.modes().map(|(door, mode, locked_down)| (door.clone(), mode, locked_down)).collect();
        for (door, mode, locked_down) in doors {
            let held_until = self.decider.held_until(&door);
            let access = self.counts.doors.note(&door, (mode, locked_down), held_until, now.wall);
            let told = self.doors_told.get(&door);
            if told.is_none_or(|told| DoorAccess { at: told.at, ..access.clone() } != *told) {
                self.doors_told.insert(door, access.clone());
                self.publisher.publish(Event::DoorAccess(access));
            }
        }
    }
}

pub(super) fn grant_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The seconds that a hold is asked for: `seconds`, or up to `until`.
pub(super) fn hold_time(seconds: Option<u64>, until: Option<&str>) -> Result<Duration, String> {
    match (seconds, until) {
        (Some(seconds), None) => Ok(Duration::from_secs(seconds)),
        (None, Some(text)) => {
            let until = Wall::parse_rfc3339(text)
                .ok_or_else(|| format!("its args: until: `{text}` is no time: use 2026-12-24T18:00:00Z"))?;
            let left = until.0.saturating_sub(clock::wall().0);
            u64::try_from(left)
                .ok()
                .filter(|left| *left > 0)
                .map(Duration::from_millis)
                .ok_or_else(|| "its args: until: is over".to_owned())
        }
        _ => Err("its args: give seconds (0 ends it) or until".to_owned()),
    }
}
