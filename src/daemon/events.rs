//! What happened, as events for the publisher.

use crate::capture::{CameraEvent, CameraState};
use crate::publish::{
    Alarm, AlarmKind, AttemptEvent, Audit, CameraStatus, CameraWord, Clock, DecisionEvent, Event, Policy, PresenceEvent, Publisher,
};
use crate::system::{self, ClockQuality, clock};
use crate::types::{Attempt, CameraId, Decision, Moment, Outcome, Presence};

/// A camera's change of state.
pub(super) fn camera(event: &CameraEvent) -> Event {
    let status = match event.state {
        CameraState::Online => CameraWord::Online,
        CameraState::Offline | CameraState::Ended => CameraWord::Offline,
        CameraState::Stalled => CameraWord::Stalled,
        CameraState::Dark => CameraWord::Dark,
    };
    let reason = (!event.reason.is_empty()).then(|| event.reason.clone());
    Event::CameraStatus(CameraStatus { camera: event.camera.clone(), status, reason, at: clock::wall() })
}

/// Who stands before a camera.
pub(super) fn presence(presence: Presence) -> Event {
    Event::Presence(PresenceEvent { presence, at: clock::wall() })
}

/// A track that ended without a decision.
pub(super) fn attempt(attempt: Attempt) -> Event {
    Event::Attempt(AttemptEvent { attempt, at: clock::wall() })
}

/// A decision. From `expires_at` on it is history and is delivered without its grant.
pub(super) fn decision(decision: Decision, person_name: Option<String>, expires_at: Moment) -> Event {
    Event::Decision(Box::new(DecisionEvent {
        id: uuid::Uuid::now_v7(),
        factors: decision.factors.iter().map(|factor| factor.as_str().to_owned()).collect(),
        policy: Policy { id: decision.policy.id.to_string(), version: decision.policy.version },
        decision,
        person_name,
        clock: clock_quality(),
        expires_at,
    }))
}

/// A decision as the audit trail keeps it: without its grant.
pub(super) fn audited(decision: &Decision) -> serde_json::Value {
    let mut detail = serde_json::json!({
        "outcome": decision.outcome.as_str(), "reason": decision.reason.as_str(), "door": decision.door, "camera": decision.camera,
        "track": decision.camera.is_some().then_some(decision.track), "person": decision.person, "evidence": decision.evidence,
    });
    if let Some(operator) = &decision.operator {
        detail["operator"] = serde_json::json!(operator);
    }
    detail
}

/// A presentation attack at a door.
pub(super) fn spoof(decision: &Decision) -> Event {
    Event::Alarm(Alarm {
        kind: AlarmKind::Spoof,
        door: Some(decision.door.clone()),
        camera: decision.camera.clone(),
        detail: "a face was held up that liveness takes for a picture of one".to_owned(),
        at: clock::wall(),
    })
}

/// Somebody is under duress at a door. The decision itself looks like any other, because the forcer may see it.
pub(super) fn duress(decision: &Decision) -> Event {
    Event::Alarm(Alarm {
        kind: AlarmKind::Duress,
        door: Some(decision.door.clone()),
        camera: decision.camera.clone(),
        detail: match decision.outcome {
            Outcome::Granted => "a person was let in who is or says to be forced",
            Outcome::Denied | Outcome::Review => "a person says to be forced, and nobody was let in",
        }
        .to_owned(),
        at: clock::wall(),
    })
}

/// The memory of blocks, places and lock-downs is gone, or is not what this device wrote last.
pub(super) fn lost_state(outcome: &str) -> Event {
    let detail =
        format!("what was remembered of blocks, places and lock-downs is gone, was changed or is an older copy; {outcome}");
    Event::Alarm(Alarm { kind: AlarmKind::Tamper, door: None, camera: None, detail, at: clock::wall() })
}

/// A gallery that is older than it was.
pub(super) fn rollback(detail: &str) -> Event {
    let detail = format!("{detail}; nothing is granted until `faceid gallery verify --accept-rollback`");
    Event::Alarm(Alarm { kind: AlarmKind::GalleryRollback, door: None, camera: None, detail, at: clock::wall() })
}

/// The broker does not say whether an older state was put back.
pub(super) fn witness_silent(why: &str) -> Event {
    let detail = format!("the broker is no witness that this device's state is the newest: {why}");
    Event::Alarm(Alarm { kind: AlarmKind::WitnessSilent, door: None, camera: None, detail, at: clock::wall() })
}

/// More strangers would be let in before a camera than the site bears.
pub(super) fn match_rate(camera: CameraId, detail: String) -> Event {
    Event::Alarm(Alarm { kind: AlarmKind::MatchRate, door: None, camera: Some(camera), detail, at: clock::wall() })
}

/// A gallery that cannot be written.
pub(super) fn gallery_read_only(reason: &str) -> Event {
    let detail = format!(
        "a write to the gallery failed ({reason}): nobody is enrolled or removed until the disk is mended; matching goes on"
    );
    Event::Alarm(Alarm { kind: AlarmKind::GalleryReadOnly, door: None, camera: None, detail, at: clock::wall() })
}

/// Most ids in one entry of the audit trail.
pub(super) const IDS_AN_ENTRY: usize = 256;

/// Writes an entry into the audit trail and publishes its head.
pub(super) fn note(audit: &Audit, publisher: &Publisher, kind: &str, detail: serde_json::Value) {
    let head = audit.append(kind, detail, clock::wall());
    publisher.publish(Event::AuditHead(head));
}

/// How good the wall clock is, as decisions and `birth` say it.
pub(super) fn clock_quality() -> Clock {
    let ClockQuality { is_synced, error_ms } = system::clock_quality();
    Clock { source: if is_synced { "ntp" } else { "unknown" }.to_owned(), synced: is_synced, error_ms }
}
