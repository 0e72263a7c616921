//! Presentation-attack detection (ISO/IEC 30107-3): APCER for each species of attack, BPCER, and how often there was no answer.
//!
//! Species are never averaged: a detector that stops every print and no screen is not "half good", and the worst species is what an
//! attacker brings. A presentation without an answer (no face found) is counted as a non-response and not as a classification error.

use std::collections::BTreeMap;

use super::interval::Rate;
use super::{at_or_above, sorted, threshold_for};
use crate::types::PadScore;

/// The APCERs at which BPCER is told: the standard's BPCER10, BPCER20 and BPCER100.
pub const ATTACK_ERROR_RATES: [f64; 3] = [0.1, 0.05, 0.01];

/// Presentations of one kind.
#[derive(Debug, Clone, Default)]
pub struct Presentations {
    /// Ascending.
    scores: Vec<f32>,
    without_answer: u64,
}

impl Presentations {
    /// Takes the scores of those that were answered, and how many were not.
    pub fn new(scores: &[PadScore], without_answer: u64) -> Self {
        Self { scores: sorted(scores.iter().map(|score| score.value())), without_answer }
    }

    /// The scores, ascending.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// How many had no answer, of all: APNRR for attacks, BPNRR for bona fide presentations.
    pub fn non_response(&self) -> Rate {
        Rate::new(self.without_answer, self.without_answer + self.scores.len() as u64)
    }

    /// How many are taken as bona fide at `threshold` (the least score that is).
    fn passed(&self, threshold: f32) -> Rate {
        Rate::new(at_or_above(&self.scores, threshold), self.scores.len() as u64)
    }
}

/// Bona fide presentations and attacks whose truth is known.
#[derive(Debug, Clone, Default)]
pub struct AttackDetection {
    /// Living people as themselves.
    pub bona_fide: Presentations,
    /// Attacks by species.
    pub species: BTreeMap<String, Presentations>,
}

impl AttackDetection {
    /// The share of bona fide presentations taken as attacks.
    pub fn bpcer(&self, threshold: f32) -> Rate {
        self.bona_fide.passed(threshold).complement()
    }

    /// For each species the share of attacks taken as bona fide.
    pub fn apcer(&self, threshold: f32) -> BTreeMap<&str, Rate> {
        self.species.iter().map(|(name, attacks)| (name.as_str(), attacks.passed(threshold))).collect()
    }

    /// The species with the highest APCER. A species without an answered presentation says nothing.
    pub fn worst(&self, threshold: f32) -> Option<(&str, Rate)> {
        let rates = self.apcer(threshold).into_iter().filter_map(|(name, rate)| Some((rate.value()?, name, rate)));
        rates.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name, rate)| (name, rate))
    }

    /// The lowest threshold at which no species has an APCER above `apcer` (0 to 1), with the BPCER there; `None` without answered
    /// presentations of both kinds.
    pub fn bpcer_at(&self, apcer: f64) -> Option<(f32, Rate)> {
        let answered = self.species.values().filter(|attacks| !attacks.scores.is_empty());
        let threshold = answered.map(|attacks| threshold_for(&attacks.scores, apcer)).max_by(f32::total_cmp)?;
        let bpcer = self.bpcer(threshold);
        (bpcer.trials > 0).then_some((threshold, bpcer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presentations(scores: &[f32], without_answer: u64) -> Presentations {
        let scores: Vec<PadScore> = scores.iter().map(|score| PadScore::saturating(*score)).collect();
        Presentations::new(&scores, without_answer)
    }

    fn detection() -> AttackDetection {
        AttackDetection {
            bona_fide: presentations(&[0.9, 0.8, 0.4, 0.95], 1),
            species: BTreeMap::from([
                ("print".to_owned(), presentations(&[0.1, 0.2], 0)),
                ("screen".to_owned(), presentations(&[0.85, 0.3, 0.6, 0.1], 2)),
                ("mask".to_owned(), presentations(&[], 3)),
            ]),
        }
    }

    #[test]
    fn without_presentations_nothing_is_told() {
        let empty = AttackDetection::default();
        assert!(empty.worst(0.5).is_none() && empty.bpcer_at(0.1).is_none());
        assert_eq!(empty.bpcer(0.5).value(), None);
    }

    #[test]
    fn each_species_has_its_own_rate_and_the_worst_is_named() {
        let detection = detection();
        assert_eq!(detection.bpcer(0.5), Rate::new(1, 4));
        let apcer = detection.apcer(0.5);
        assert_eq!((apcer["print"], apcer["screen"], apcer["mask"]), (Rate::new(0, 2), Rate::new(2, 4), Rate::new(0, 0)));
        assert_eq!(detection.worst(0.5), Some(("screen", Rate::new(2, 4))));
    }

    #[test]
    fn no_answer_is_no_classification() {
        let detection = detection();
        assert_eq!(detection.bona_fide.non_response(), Rate::new(1, 5));
        assert_eq!(detection.species["screen"].non_response(), Rate::new(2, 6));
    }

    #[test]
    fn bpcer_is_told_where_the_worst_species_keeps_to_the_target() {
        // One of four screens may pass at 25 %: just above 0.6, and a living person at 0.4 is refused.
        assert_eq!(detection().bpcer_at(0.25), Some((0.6f32.next_up(), Rate::new(1, 4))));
        assert_eq!(detection().bpcer_at(0.01), Some((0.85f32.next_up(), Rate::new(2, 4))));
    }
}
