//! A door trial: visits of people who are enrolled and of people who are not, and what the door made of each. The unit is the visit, as a
//! door meets it: a whole track, fused, decided once.
//!
//! Visits repeat people, and repeated visits of the same people are not independent: the exact interval over visits is too narrow. Beside it
//! stands one over clusters (ISO/IEC 19795-1:2021 asks that what repeats people says so): visits of strangers by the pair of people
//! they confront (by visitor where a gallery holds many), visits of owners by the owner. A cluster is one trial, and it fails when any of its visits does.
//! That is conservative: it is wide where people are few, whatever the number of their clips, and tells of pairs of people, not of visits.

use std::collections::BTreeMap;

use super::{Rate, Verification};

/// What became of one visit.
#[derive(Debug, Clone, PartialEq)]
pub struct Visit {
    /// Who stood there.
    pub visitor: String,
    /// Who was enrolled, where that was one person; `None` where the gallery held many.
    pub enrolled: Option<String>,
    /// Whether the visitor was among those who were enrolled.
    pub is_owner: bool,
    /// Whether the door opened for the visitor as the visitor.
    pub granted_right: bool,
    /// Whether the door opened for the visitor as somebody else.
    pub granted_wrong: bool,
    /// The visit's best score with the visitor's own templates.
    pub own: Option<f32>,
    /// The visit's best score with somebody else's templates.
    pub other: Option<f32>,
}

/// The errors of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorErrors {
    /// Visits of people who are not enrolled that the door opened for.
    pub false_grants: Rate,
    /// Visits of enrolled people that the door opened for as somebody else.
    pub wrong_person: Rate,
    /// Visits of enrolled people that the door did not open for as themselves.
    pub false_refusals: Rate,
    /// Clusters of strangers with a false grant.
    pub false_grants_clustered: Rate,
    /// Owners with a false refusal.
    pub false_refusals_clustered: Rate,
}

impl DoorErrors {
    /// Counts.
    pub fn of(visits: &[Visit]) -> Self {
        let rate = |owners: bool, is_error: fn(&Visit) -> bool| {
            let those = || visits.iter().filter(move |visit| visit.is_owner == owners);
            Rate::new(those().filter(|visit| is_error(visit)).count() as u64, those().count() as u64)
        };
        let clustered = |owners: bool, is_error: fn(&Visit) -> bool| {
            let mut clusters: BTreeMap<(&str, &str), bool> = BTreeMap::new();
            for visit in visits.iter().filter(|visit| visit.is_owner == owners) {
                let (visitor, enrolled) = (visit.visitor.as_str(), visit.enrolled.as_deref().unwrap_or_default());
                *clusters.entry((visitor.min(enrolled), visitor.max(enrolled))).or_default() |= is_error(visit);
            }
            Rate::new(clusters.values().filter(|failed| **failed).count() as u64, clusters.len() as u64)
        };
        let (granted, refused) = (|visit: &Visit| visit.granted_wrong, |visit: &Visit| !visit.granted_right);
        Self {
            false_grants: rate(false, granted),
            wrong_person: rate(true, granted),
            false_refusals: rate(true, refused),
            false_grants_clustered: clustered(false, granted),
            false_refusals_clustered: clustered(true, refused),
        }
    }
}

/// The best scores of visits as comparisons: owners with their own templates, strangers with anybody's. A visit in which no face was
/// good enough to be searched for scores -1: it is granted at no threshold. Liveness and everything else that a door asks for is not in it.
pub fn best_scores(visits: &[Visit]) -> Verification {
    let none = -1.0;
    let owners = visits.iter().filter(|visit| visit.is_owner).map(|visit| visit.own.unwrap_or(none)).collect();
    let strangers = visits.iter().filter(|visit| !visit.is_owner).map(|visit| visit.other.unwrap_or(none)).collect();
    Verification::of_scores(owners, strangers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(visitor: &str, enrolled: Option<&str>, granted: bool, score: Option<f32>) -> Visit {
        let is_owner = enrolled.is_none_or(|enrolled| enrolled == visitor);
        let (own, other) = if is_owner { (score, None) } else { (None, score) };
        Visit {
            visitor: visitor.into(),
            enrolled: enrolled.map(Into::into),
            is_owner,
            granted_right: granted && is_owner,
            granted_wrong: granted && !is_owner,
            own,
            other,
        }
    }

    #[test]
    fn visits_of_a_pair_of_people_are_one_cluster_either_way_round() {
        let errors = DoorErrors::of(&[
            visit("a", Some("b"), true, Some(0.6)),
            visit("a", Some("b"), false, Some(0.5)),
            visit("b", Some("a"), true, Some(0.6)),
            visit("a", Some("c"), false, Some(0.1)),
            visit("a", Some("a"), true, Some(0.9)),
            visit("a", Some("a"), false, None),
            visit("b", Some("b"), true, Some(0.9)),
        ]);
        assert_eq!((errors.false_grants, errors.false_grants_clustered), (Rate::new(2, 4), Rate::new(1, 2)));
        assert_eq!((errors.false_refusals, errors.false_refusals_clustered), (Rate::new(1, 3), Rate::new(1, 2)));
        assert_eq!(errors.wrong_person, Rate::new(0, 3));
    }

    #[test]
    fn an_owner_who_is_let_in_as_somebody_else_is_two_errors() {
        let mut mistaken = visit("a", None, false, Some(0.4));
        mistaken.granted_wrong = true;
        let errors = DoorErrors::of(&[mistaken]);
        assert_eq!((errors.wrong_person, errors.false_refusals), (Rate::new(1, 1), Rate::new(1, 1)));
        assert_eq!(errors.false_grants, Rate::new(0, 0));
    }

    #[test]
    fn a_visit_without_a_score_is_granted_at_no_threshold() {
        let scores = best_scores(&[visit("a", Some("a"), false, None), visit("a", Some("b"), false, Some(0.3))]);
        assert_eq!((scores.at(0.0).fnmr, scores.at(0.0).fmr), (Rate::new(1, 1), Rate::new(1, 1)));
    }
}
