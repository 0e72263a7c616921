//! What the audit trail says of a change of the gallery, whoever made it: the daemon for a caller, or the command line where none runs.

use serde_json::{Value, json};

use super::events::IDS_AN_ENTRY;
use super::restoring::Origin;
use crate::gallery::{Admission, Allowed};
use crate::types::PersonId;

/// What came of an enrolment: who got templates, an entry for each few hundred, and whose record alone was changed. That the operator
/// insisted on faces that are unlike each other, or unlike those the person had, is told.
pub fn admitted(admissions: &[Admission], allowed: Allowed) -> impl Iterator<Item = Value> {
    let ids: Vec<&PersonId> = of_enrolled(admissions).map(|admission| &admission.person).collect();
    let entry = |some: &[&PersonId]| match allowed.other_face {
        true => json!({ "enrolled": some, "allow_other_face": true }),
        false => json!({ "enrolled": some }),
    };
    let enrolled: Vec<Value> = ids.chunks(IDS_AN_ENTRY).map(entry).collect();
    let renamed = admissions.iter().filter(|admission| admission.added() == 0 && admission.is_changed);
    enrolled.into_iter().chain(renamed.map(|admission| changed(&admission.person)))
}

/// Those who got templates.
pub fn of_enrolled(admissions: &[Admission]) -> impl Iterator<Item = &Admission> {
    admissions.iter().filter(|admission| admission.added() > 0)
}

/// What is kept of a person besides templates was changed.
pub fn changed(person: &PersonId) -> Value {
    json!({ "changed": person })
}

/// A person was removed; whether the disk is free of the templates as well.
pub fn removed(person: &PersonId, erased: bool) -> Value {
    json!({ "removed": person, "erased": erased })
}

/// Keys were renewed: the data key always, the templates' rotation and the sealing key where it says so.
pub fn rekeyed(rotated: bool, new_sealing_key: bool) -> Value {
    json!({ "rekeyed": true, "rotated": rotated, "new_sealing_key": new_sealing_key })
}

/// A state that was found to be older than it was is the right one from now on.
pub fn accepted_rollback(what: &str) -> Value {
    json!({ "accepted_rollback": what })
}

/// So many people of a backup were put back, in the place of those who were there or into an empty gallery; and whose it was.
pub fn restored(people: usize, replaced: bool, origin: &Origin) -> Value {
    let signed_by = match origin {
        Origin::Signed(device) => Some(device),
        Origin::Unknown => None,
    };
    json!({ "restored": people, "replaced": replaced, "signed_by": signed_by })
}
