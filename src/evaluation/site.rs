//! False grants at a site: a stranger's visit before a door whose people resemble the stranger.
//!
//! Each visit brings the scores at which it would have been granted as somebody else, person by person, in the order in which *other*
//! networks find these people like the visitor, the most alike first. A site of `n` people is drawn from the head of that order: from its
//! first hundredth ([`super::alike::SHARE`]), or from as many people as the site has where that is more. So a small site is all of one kind with the
//! visitor, and a large one holds everybody who is. FPIR is the share of visits that open the door (ISO/IEC 19795-1:2021, where a stranger's
//! search that gives anybody is a false positive identification); over the draws of a site it is exact, none is drawn at random.

use super::Rate;
use super::alike::SHARE;

/// A stranger's visit.
#[derive(Debug, Clone, PartialEq)]
pub struct StrangerVisit {
    /// The visitor's number: visits of one person are one trial.
    pub visitor: u32,
    /// Which kind of visit, for rates by kind.
    pub band: usize,
    /// The score at which it is granted as somebody else, by falling likeness.
    pub scores: Vec<f32>,
    /// How many people there are of whom the likeness was asked; `scores` may hold the first of them alone.
    pub others: usize,
}

impl StrangerVisit {
    /// The chance that a site of `people` drawn around this visitor grants the visit at `threshold`: one less the chance that none of the
    /// people drawn are among those at or above it. Without a face that was good enough there is no score and no grant.
    pub fn false_grant(&self, people: usize, threshold: f32) -> f64 {
        let head = self.head(people);
        let above = head.iter().filter(|score| **score >= threshold).count();
        let drawn = people.min(head.len());
        // No draw of `drawn` from `head` without those above: C(head - above, drawn) / C(head, drawn).
        let missed = (0..drawn).map(|k| (head.len() - k).saturating_sub(above) as f64 / (head.len() - k) as f64);
        1.0 - missed.product::<f64>()
    }

    fn head(&self, people: usize) -> &[f32] {
        let alike = ((SHARE * self.others as f64).round() as usize).max(1);
        &self.scores[..alike.max(people).min(self.scores.len())]
    }
}

/// A rate over visits that each are a chance, with an interval that takes people and not visits as the trials.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SiteRate {
    /// The mean over visits.
    pub value: f64,
    /// The same over people, as a count and a number of trials: the count is rounded to the next whole number.
    pub by_people: Rate,
}

/// FPIR at sites of `people` people and at `threshold`; `None` without a visit.
pub fn fpir<'a>(visits: impl Iterator<Item = &'a StrangerVisit>, people: usize, threshold: f32) -> Option<SiteRate> {
    let mut by_visitor: std::collections::BTreeMap<u32, (f64, u32)> = std::collections::BTreeMap::new();
    for visit in visits {
        let entry = by_visitor.entry(visit.visitor).or_default();
        *entry = (entry.0 + visit.false_grant(people, threshold), entry.1 + 1);
    }
    let visits: u32 = by_visitor.values().map(|(_, visits)| visits).sum();
    if visits == 0 {
        return None;
    }
    let sum: f64 = by_visitor.values().map(|(chance, _)| chance).sum();
    let of_people: f64 = by_visitor.values().map(|(chance, visits)| chance / f64::from(*visits)).sum();
    let by_people = Rate::new((of_people - 1e-9).ceil().max(0.0) as u64, by_visitor.len() as u64);
    Some(SiteRate { value: sum / f64::from(visits), by_people })
}

/// The lowest threshold (to 0.001) at which FPIR at sites of `people` is at most `target`; `None` without a visit, or where no threshold
/// below 1 keeps to it.
pub fn threshold_for(visits: &[StrangerVisit], people: usize, target: f64) -> Option<f32> {
    let fits = |step: u16| fpir(visits.iter(), people, f32::from(step) / 1000.0).is_some_and(|rate| rate.value <= target);
    // The rate falls as the threshold rises.
    let (mut low, mut high) = (0u16, 1000u16);
    if !fits(high) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    Some(f32::from(high) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(visitor: u32, scores: Vec<f32>, others: usize) -> StrangerVisit {
        StrangerVisit { visitor, band: 0, scores, others }
    }

    #[test]
    fn the_chance_over_all_draws_is_that_of_counting_them() {
        // Six of 600 are the most alike; two of them are above.
        let six = visit(0, vec![0.9, 0.1, 0.2, 0.8, 0.3, 0.1], 600);
        for (people, expected) in [(1, 2.0 / 6.0), (2, 1.0 - 6.0 / 15.0), (4, 1.0 - 1.0 / 15.0), (5, 1.0), (6, 1.0)] {
            assert!((six.false_grant(people, 0.8) - expected).abs() < 1e-12, "{people}");
        }
        assert_eq!(six.false_grant(6, 0.95), 0.0);
        // A site larger than a hundredth takes in the next in likeness, and not all: the strangest stay out.
        let wide = visit(0, vec![0.1, 0.1, 0.1, 0.9, 0.9], 200);
        assert_eq!((wide.false_grant(1, 0.5), wide.false_grant(3, 0.5), wide.false_grant(4, 0.5)), (0.0, 0.0, 1.0));
        assert_eq!(visit(0, vec![], 100).false_grant(10, 0.1), 0.0);
    }

    #[test]
    fn people_are_trials_and_visits_are_not() {
        let visits = [visit(1, vec![0.9], 1), visit(1, vec![0.9], 1), visit(1, vec![0.9], 1), visit(2, vec![0.1], 1)];
        let rate = fpir(visits.iter(), 1, 0.5).unwrap();
        assert_eq!((rate.value, rate.by_people), (0.75, Rate::new(1, 2)));
        let none = fpir(visits.iter(), 1, 0.95).unwrap();
        assert_eq!((none.value, none.by_people), (0.0, Rate::new(0, 2)));
        assert!(fpir([].iter(), 1, 0.5).is_none());
    }

    #[test]
    fn a_lower_threshold_than_the_one_found_grants_too_often() {
        let visits: Vec<StrangerVisit> = (0..1000u32).map(|at| visit(at, vec![at as f32 / 1000.0; 3], 300)).collect();
        for target in [0.1, 0.01, 0.003] {
            for people in [1, 3, 10] {
                let threshold = threshold_for(&visits, people, target).unwrap();
                let rate = |threshold| fpir(visits.iter(), people, threshold).unwrap().value;
                assert!(rate(threshold) <= target && rate(threshold - 0.002) > target, "{target} {people} {threshold}");
            }
        }
        assert_eq!(threshold_for(&[visit(0, vec![1.0], 1)], 1, 0.5), None);
        assert_eq!(threshold_for(&[], 1, 0.5), None);
    }
}
