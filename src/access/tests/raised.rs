//! A threshold that is raised before one camera.

use super::*;

fn score(value: f32) -> Score {
    Score::new(value).unwrap()
}

#[test]
fn a_raised_threshold_takes_grants_away_and_never_gives_any() {
    let (cam, seen) = (CameraId::new("cam").unwrap(), observation(vec![candidate("a", 0.4)], Some(0.9)));
    let ask = |raised: Option<f32>, seen: &Observation| {
        let mut decider = decider(Settings::default());
        decider.raise_matching(&cam, raised.map(score));
        let decisions = decider.decide_on_one_face(seen, moment(2010), &mut || "id".into());
        decisions.first().map(|decision| (decision.outcome, decision.reason))
    };
    let (granted, unknown) = (Some((Outcome::Granted, Reason::Match)), Some((Outcome::Denied, Reason::Unknown)));
    assert_eq!(ask(None, &seen), granted);
    assert_eq!(ask(Some(0.4), &seen), granted);
    assert_eq!(ask(Some(0.41), &seen), unknown);
    let stranger = observation(vec![candidate("a", 0.29)], Some(0.9));
    assert_eq!(ask(Some(0.1), &stranger), unknown, "never below what is configured");
    let mut decider = decider(Settings::default());
    decider.raise_matching(&cam, Some(score(0.5)));
    decider.raise_matching(&CameraId::new("other").unwrap(), Some(score(0.5)));
    assert_eq!(decider.raised.len(), 1, "a camera that watches no door is not kept");
    assert_eq!(decider.configured_matching(&cam), Some(score(0.3)));
    decider.raise_matching(&cam, None);
    assert_eq!(decider.decide_on_one_face(&seen, moment(2010), &mut || "id".into())[0].outcome, Outcome::Granted);
}

#[test]
fn the_nearest_match_is_what_the_visit_would_have_needed() {
    let decider = decider(Settings::default());
    let door = DoorId::new("front").unwrap();
    let sample = |scores: &[f32]| FaceSample { scores: scores.iter().map(|s| score(*s)).collect(), ..turned(None)[0].clone() };
    let samples = vec![sample(&[0.5, 0.1]), sample(&[0.2, 0.3]), sample(&[0.4, 0.3]), sample(&[0.1, 0.3])];
    let seen = Observation { samples, ..observation(vec![candidate("a", 0.45), candidate("b", 0.35)], None) };
    let nearest = decider.nearest_match(&seen, &door).map(|(person, score)| (person.as_str(), score.value()));
    assert_eq!(nearest, Some(("b", 0.3)), "three samples reach 0.3 for b, and but 0.2 for a");
    let short = Observation { samples: vec![sample(&[0.5, 0.1]); 2], ..seen };
    assert_eq!(decider.nearest_match(&short, &door), None);
}
