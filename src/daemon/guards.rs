//! What the decider is given at the start besides its rules: what it remembered, chance, and who must agree.

use super::access_state::{AccessState, Kept};
use super::events;
use super::service::DaemonError;
use crate::access::{Decider, State};
use crate::config::Config;
use crate::pipeline::Witness;
use crate::publish::{Audit, Event, Publisher};
use crate::system::clock;
use crate::types::{CameraId, Side};

/// Takes up what an earlier run kept, and writes down at once what is remembered now. A memory that was lost may have held a lock-down:
/// then every door is locked down until a release, unless the operator has accepted the loss.
pub(super) fn restore(
    decider: &mut Decider,
    state: &mut AccessState,
    publisher: &Publisher,
    audit: &Audit,
    (has_run, accept): (bool, bool),
) -> Result<(), DaemonError> {
    let now = clock::now();
    match state.load(has_run) {
        Kept::Nothing => {}
        Kept::State(mut kept) => {
            if accept && kept.accept_loss() {
                log::warn!("an operator accepts that a memory was lost: its lock-down ends, and what was ordered since holds");
                let detail = serde_json::json!({ "why": "an earlier start found it", "accepted": true });
                publisher.publish(Event::AuditHead(audit.append("access-state-lost", detail, clock::wall())));
            }
            decider.restore(kept, now);
        }
        Kept::Lost(why) => {
            tell_loss(state, &why, accept, publisher, audit);
            if !accept {
                decider.restore(State::lost(), now);
            }
        }
    }
    let saved = state.save(&decider.state(now));
    saved.map_err(|source| DaemonError::Io { what: state.path().display().to_string(), source })
}

/// Tells everybody of a memory that was lost, and what comes of it. What was signed before counts as used from here on: the lost memory
/// witnessed what was.
pub(super) fn tell_loss(state: &AccessState, why: &str, accept: bool, publisher: &Publisher, audit: &Audit) {
    state.distrust_before(clock::wall());
    let outcome = if accept { "an operator accepted the loss" } else { "every door is locked down" };
    log::error!(
        "{}: {why}; it may have held a lock-down: {outcome}. Release the doors by command, or start once with --accept-lost-state",
        state.path().display()
    );
    publisher.publish(events::lost_state(outcome));
    let detail = serde_json::json!({ "why": why, "accepted": accept });
    publisher.publish(Event::AuditHead(audit.append("access-state-lost", detail, clock::wall())));
}

/// A side that nobody can foresee.
pub(super) fn side() -> Option<Side> {
    let mut byte = [0];
    getrandom::fill(&mut byte).ok()?;
    Some(if byte[0] & 1 == 0 { Side::Left } else { Side::Right })
}

/// The cameras that must agree with others, each with those.
pub(super) fn witnesses(config: &Config) -> Vec<Witness> {
    let mut witnesses: Vec<Witness> = Vec::new();
    for door in &config.doors {
        let Some(named) = &door.liveness.witness else { continue };
        match witnesses.iter_mut().find(|witness| witness.camera == named.camera) {
            Some(witness) => witness.partners.extend(door.cameras.iter().cloned()),
            None => witnesses.push(Witness { camera: named.camera.clone(), kind: named.kind, partners: door.cameras.clone() }),
        }
    }
    witnesses
}

/// Cameras that only have to agree see no colours, or no faces at all.
pub(super) fn enrolling_cameras(config: &Config) -> Vec<CameraId> {
    let witnesses = witnesses(config);
    let cameras = config.cameras.iter().map(|camera| camera.id.clone());
    cameras.filter(|camera| witnesses.iter().all(|witness| witness.camera != *camera)).collect()
}
