//! Error rates and their intervals against NumPy and SciPy (`models/reference/make_evaluation.py`), on seeded synthetic scores.

use std::collections::BTreeMap;

use faceid_plus::evaluation::interval::clopper_pearson;
use faceid_plus::evaluation::{AttackDetection, Comparison, Identification, Presentations, Rate, Search, Verification};
use faceid_plus::types::{PadScore, Score};
use serde::Deserialize;

use super::golden;

/// Of an interval's limit, relative: SciPy's quantiles and our bisection of a continued fraction both have some ten digits; near a
/// million trials the logarithms of gamma functions cancel and cost a few.
const LIMIT: f64 = 1e-7;
/// Of a mean or deviation of the same counts: summing in another order.
const SUM: f64 = 1e-12;
/// Of a threshold: scores are `f32` here and have four digits there.
const THRESHOLD: f32 = 1e-6;

#[derive(Deserialize)]
struct Reference {
    intervals: Vec<Limits>,
    verification: OneToOne,
    identification: OneToMany,
    attack: Attack,
}

#[derive(Deserialize)]
struct Limits {
    count: u64,
    trials: u64,
    confidence: f64,
    interval: [f64; 2],
}

#[derive(Deserialize)]
struct OneToOne {
    mated: Vec<f32>,
    non_mated: Vec<f32>,
    equal_error: EqualError,
    at_far: Vec<AtFar>,
    accuracy: Accuracy,
}

#[derive(Deserialize)]
struct EqualError {
    threshold: f32,
    false_matches: u64,
    false_non_matches: u64,
}

#[derive(Deserialize)]
struct AtFar {
    far: f64,
    false_matches: u64,
    false_non_matches: u64,
}

#[derive(Deserialize)]
struct Accuracy {
    false_matches: u64,
    false_non_matches: u64,
    mean: f64,
    deviation: f64,
}

#[derive(Deserialize)]
struct OneToMany {
    searches: Vec<[f32; 2]>,
    hits: u64,
    at_fpir: Vec<AtFpir>,
}

#[derive(Deserialize)]
struct AtFpir {
    fpir: f64,
    false_positives: u64,
    false_negatives: u64,
}

#[derive(Deserialize)]
struct Attack {
    bona_fide: Vec<f32>,
    species: BTreeMap<String, Vec<f32>>,
    threshold: f32,
    refused: u64,
    passed: BTreeMap<String, u64>,
    at_apcer: Vec<AtApcer>,
}

#[derive(Deserialize)]
struct AtApcer {
    apcer: f64,
    refused: u64,
}

fn reference() -> Reference {
    serde_json::from_slice(&std::fs::read(golden("evaluation.json")).unwrap()).unwrap()
}

#[test]
fn intervals_are_scipys() {
    for case in reference().intervals {
        let found = clopper_pearson(Rate::new(case.count, case.trials), case.confidence);
        for (found, expected) in [found.low, found.high].into_iter().zip(case.interval) {
            let apart = (found - expected).abs() / expected.max(1e-12);
            assert!(apart <= LIMIT, "{} of {} at {}: {found} is not {expected}", case.count, case.trials, case.confidence);
        }
    }
}

#[test]
fn one_to_one_figures_are_the_references() {
    let expected = reference().verification;
    let comparison =
        |(index, score): (usize, &f32), mated| Comparison { score: Score::new(*score).unwrap(), mated, fold: index % 10 };
    let mated = expected.mated.iter().enumerate().map(|item| comparison(item, true));
    let non_mated = expected.non_mated.iter().enumerate().map(|item| comparison(item, false));
    let found = Verification::new(&mated.chain(non_mated).collect::<Vec<_>>());
    let point = found.equal_error().unwrap();
    assert!((point.threshold - expected.equal_error.threshold).abs() <= THRESHOLD);
    let counts = (expected.equal_error.false_matches, expected.equal_error.false_non_matches);
    assert_eq!((point.fmr.count, point.fnmr.count), counts);
    for target in &expected.at_far {
        let point = found.at_far(target.far).unwrap();
        assert_eq!((point.fmr.count, point.fnmr.count), (target.false_matches, target.false_non_matches), "FAR {}", target.far);
    }
    let accuracy = found.accuracy().unwrap();
    let wrong = (accuracy.balanced.0.complement().count, accuracy.balanced.1.complement().count);
    assert_eq!(wrong, (expected.accuracy.false_matches, expected.accuracy.false_non_matches));
    assert!((accuracy.balanced.value().unwrap() - expected.accuracy.mean).abs() <= SUM);
    assert!((accuracy.deviation - expected.accuracy.deviation).abs() <= SUM);
}

#[test]
fn one_to_many_figures_are_the_references() {
    let expected = reference().identification;
    let search = |[mate, other]: &[f32; 2]| Search { mate: Score::new(*mate).unwrap(), best_other: Score::new(*other).unwrap() };
    let found = Identification::new(&expected.searches.iter().map(search).collect::<Vec<_>>());
    assert_eq!(found.rank_one().count, expected.hits);
    for target in &expected.at_fpir {
        let point = found.at_fpir(target.fpir).unwrap();
        assert_eq!((point.fpir.count, point.fnir.count), (target.false_positives, target.false_negatives), "FPIR {}", target.fpir);
    }
}

#[test]
fn attack_figures_are_the_references() {
    let expected = reference().attack;
    let presentations = |scores: &Vec<f32>| {
        let scores: Vec<PadScore> = scores.iter().map(|score| PadScore::new(*score).unwrap()).collect();
        Presentations::new(&scores, 0)
    };
    let species = expected.species.iter().map(|(name, scores)| (name.clone(), presentations(scores))).collect();
    let found = AttackDetection { bona_fide: presentations(&expected.bona_fide), species };
    assert_eq!(found.bpcer(expected.threshold).count, expected.refused);
    for (name, rate) in found.apcer(expected.threshold) {
        assert_eq!(rate.count, expected.passed[name], "{name}");
    }
    for target in &expected.at_apcer {
        assert_eq!(found.bpcer_at(target.apcer).unwrap().1.count, target.refused, "APCER {}", target.apcer);
    }
}
