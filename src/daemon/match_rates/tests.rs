//! The doors' measure of themselves, fed with simulated visits through the decider itself.

use super::*;
use crate::access::grant::GrantKey;
use crate::access::policy::PolicySettings;
use crate::access::{DoorSettings, Rules, Settings, Thresholds};
use crate::types::{
    BoundingBox, Candidate, DeviceId, DoorId, Embedding, FaceSample, PadScore, Probe, Profile, TrackId, Trajectory, Wall,
};

const THRESHOLD: f32 = 0.526;
/// How many people are enrolled at the simulated doors.
const ENROLLED: usize = 10;
const TERMS: Terms = Terms { target: 10.0, tightens: false };
/// 2024-01-01.
const START: i64 = 1_704_067_200_000;

fn score(value: f32) -> Score {
    Score::saturating(value)
}

fn camera(name: &str) -> CameraId {
    CameraId::new(name).unwrap()
}

fn person(number: usize) -> PersonId {
    PersonId::new(format!("p{number}")).unwrap()
}

/// Doors with a camera each, and their measure.
struct Site {
    decider: Decider,
    rates: MatchRates,
    lines: MatchRateLines,
    news: Vec<News>,
    /// Milliseconds since the start.
    now: u64,
    track: u64,
}

impl Site {
    fn new(cameras: &[&str], terms: Terms) -> Self {
        let doors: Vec<_> = cameras.iter().map(|name| DoorSettings::new(DoorId::new(*name).unwrap(), vec![camera(name)])).collect();
        let thresholds = Thresholds { matching: score(THRESHOLD), margin: 0.0, liveness: PadScore::new(0.5).unwrap() };
        // Blocks are not what is tried here: strangers come one after the other for days.
        let mut policy = PolicySettings::default();
        policy.throttle.failures = 0;
        let rules = Rules::new(&policy).unwrap();
        let key = GrantKey::from_seed(&[7; 32]).unwrap();
        let decider = Decider::new(DeviceId::new("unit").unwrap(), Settings::default(), thresholds, &doors, rules, key);
        let mut site = Self {
            decider,
            rates: MatchRates::new(terms),
            lines: MatchRateLines::default(),
            news: Vec::new(),
            now: 10_000,
            track: 0,
        };
        let ids: Vec<CameraId> = cameras.iter().map(|name| camera(name)).collect();
        site.rates.take_up(&mut site.decider, &ids, &site.lines, moment(site.now));
        site
    }

    /// A visit with these scores against the people enrolled, and whether it was let in.
    fn visit(&mut self, name: &str, scores: &[f32], probe: Option<Probe>, liveness: f32) -> Outcome {
        self.track += 1;
        let now = moment(self.now);
        let candidates: Vec<Candidate> =
            scores.iter().enumerate().map(|(number, value)| Candidate { person: person(number), score: score(*value) }).collect();
        let sample = |ago: u64| FaceSample {
            captured_at: moment(self.now - ago),
            liveness: PadScore::new(liveness).ok(),
            yaw: None,
            faces_in_view: 1,
            scores: candidates.iter().map(|candidate| candidate.score).collect(),
        };
        let seen = Observation {
            camera: camera(name),
            track: TrackId(self.track),
            captured_at: now,
            first_usable_at: moment(self.now - 2000),
            probe,
            profiles: candidates.iter().map(|c| (c.person.clone(), Profile::default())).collect(),
            gallery: true,
            liveness: PadScore::new(liveness).ok(),
            liveness_frames: 5,
            frames: 5,
            quality: 0.8,
            bounding_box: BoundingBox::default(),
            trajectory: Trajectory::default(),
            samples: [800, 600, 400, 200, 0].map(sample).to_vec(),
            is_flat: false,
            ended: false,
            candidates: {
                let mut sorted = candidates.clone();
                sorted.sort_by(|a, b| b.score.value().total_cmp(&a.score.value()));
                sorted
            },
        };
        // Samples' scores stand in the candidates' order.
        let in_order: Vec<Score> = seen.candidates.iter().map(|candidate| candidate.score).collect();
        let samples = seen.samples.iter().map(|sample| FaceSample { scores: in_order.clone(), ..sample.clone() }).collect();
        let seen = Observation { samples, ..seen };
        let decisions = self.decider.decide(&seen, now, &mut || "id".into());
        self.rates.hear(&seen, &decisions, &self.decider, now);
        decisions.first().map_or(Outcome::Denied, |decision| decision.outcome)
    }

    /// Time goes on, and what is due is done.
    fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.news.extend(self.rates.look(&mut self.decider, &self.lines, moment(self.now)));
    }

    /// So many strangers, a minute and a half apart; how many were let in.
    fn strangers(&mut self, name: &str, crowd: &mut Crowd, count: usize) -> usize {
        let mut let_in = 0;
        for _ in 0..count {
            let scores = crowd.stranger();
            let_in += usize::from(self.visit(name, &scores, None, 0.9) == Outcome::Granted);
            self.wait(90_000);
        }
        let_in
    }

    fn line(&self, name: &str) -> MatchRate {
        self.lines.all().into_iter().find(|line| line.camera == camera(name)).unwrap()
    }

    fn above(&self) -> usize {
        self.news.iter().filter(|news| matches!(news, News::Above(_))).count()
    }

    fn cleared(&self) -> usize {
        self.news.iter().filter(|news| matches!(news, News::Cleared(_))).count()
    }
}

fn moment(ms: u64) -> Moment {
    Moment { monotonic: Monotonic(ms * 1_000_000), wall: Wall(START + i64::try_from(ms).unwrap()) }
}

/// Strangers before one camera: each person enrolled is as much like them as a normal score with a heavier tail (one in ten is half as
/// wide again), placed so that a given share of them reaches the threshold with the best of the people enrolled.
struct Crowd {
    random: fastrand::Rng,
    shift: f64,
}

impl Crowd {
    const DEVIATION: f64 = 0.1;

    fn new(seed: u64, per_10000: f64) -> Self {
        /// Enough that a thousandth is known to a tenth of itself.
        const DRAWN: usize = 60_000;
        let mut crowd = Self { random: fastrand::Rng::with_seed(99), shift: 0.0 };
        let best = |scores: Vec<f32>| scores.into_iter().fold(f32::MIN, f32::max);
        let mut all: Vec<f32> = (0..DRAWN).map(|_| best(crowd.raw())).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let reached = all[(DRAWN as f64 * per_10000 / 1e4) as usize];
        Self { random: fastrand::Rng::with_seed(seed), shift: f64::from(THRESHOLD - reached) }
    }

    fn normal(&mut self) -> f64 {
        let (radius, turn) = (1.0 - self.random.f64(), self.random.f64());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }

    fn raw(&mut self) -> Vec<f32> {
        (0..ENROLLED)
            .map(|_| {
                let width = if self.random.f64() < 0.1 { 1.5 } else { 1.0 };
                (Self::DEVIATION * width * self.normal()) as f32
            })
            .collect()
    }

    fn stranger(&mut self) -> Vec<f32> {
        let shift = self.shift as f32;
        self.raw().into_iter().map(|raw| raw + shift).collect()
    }
}

#[test]
fn a_bad_camera_is_named_within_300_strangers_in_each_of_20_runs() {
    let (mut visits, mut let_in) = (Vec::new(), 0);
    for seed in 0..20 {
        let (mut site, mut crowd) = (Site::new(&["porch", "yard"], TERMS), Crowd::new(seed, 200.0));
        let mut needed = 0;
        while site.above() == 0 && needed < 300 {
            let_in += site.strangers("porch", &mut crowd, 10);
            needed += 10;
        }
        assert_eq!(site.above(), 1, "run {seed}: {:?}", site.line("porch"));
        let Some(News::Above(line)) = site.news.first() else { unreachable!() };
        assert_eq!((line.camera.as_str(), line.state, line.target), ("porch", MatchRateState::AboveTarget, 10.0));
        assert!(line.low.unwrap() <= line.per_10000.unwrap() && line.per_10000.unwrap() <= line.high.unwrap(), "{line:?}");
        assert_eq!(site.line("yard").state, MatchRateState::TooFewVisits);
        visits.push(needed);
    }
    println!("alarms after {visits:?} strangers, of whom {let_in} were let in");
}

#[test]
fn a_good_camera_stays_silent_over_600_strangers_in_each_of_20_runs() {
    let mut rates = Vec::new();
    for seed in 0..20 {
        let (mut site, mut crowd) = (Site::new(&["porch"], TERMS), Crowd::new(seed, 10.0 / 3.0));
        site.strangers("porch", &mut crowd, 600);
        assert_eq!(site.news, [], "run {seed}");
        let line = site.line("porch");
        assert_eq!(line.state, MatchRateState::Fine);
        rates.push(line.per_10000.unwrap());
    }
    println!("estimates {rates:?}");
}

/// How often the alarm rises between the two. Not a promise; the figures of PROJECT_REPORT.md.
#[test]
#[ignore = "prints figures"]
fn how_often_the_alarm_rises_by_the_true_rate() {
    for per_10000 in [1.0, 10.0 / 3.0, 10.0, 30.0, 50.0, 100.0, 200.0, 300.0] {
        let mut alarms = [0; 2];
        for seed in 100..140 {
            let (mut site, mut crowd) = (Site::new(&["porch"], TERMS), Crowd::new(seed, per_10000));
            site.strangers("porch", &mut crowd, 300);
            alarms[0] += site.above().min(1);
            site.strangers("porch", &mut crowd, 300);
            alarms[1] += site.above().min(1);
        }
        println!("{per_10000:.1} of 10,000: alarm in {} of 40 runs within 300 visits, {} within 600", alarms[0], alarms[1]);
    }
}

#[test]
fn until_enough_strangers_came_it_says_how_many_are_missing() {
    let (mut site, mut crowd) = (Site::new(&["porch"], TERMS), Crowd::new(1, 10.0));
    assert_eq!((site.line("porch").visits, site.line("porch").missing), (0, Some(100)));
    site.strangers("porch", &mut crowd, 60);
    let line = site.line("porch");
    assert_eq!((line.state, line.visits, line.missing, line.per_10000), (MatchRateState::TooFewVisits, 60, Some(40), None));
    site.strangers("porch", &mut crowd, 60);
    let line = site.line("porch");
    assert_eq!((line.missing, line.per_10000.is_some()), (None, true));
}

#[test]
fn a_camera_that_becomes_worse_after_long_good_service_is_named_within_300_strangers_and_cleared_once_when_it_is_mended() {
    let mut site = Site::new(&["porch"], TERMS);
    site.strangers("porch", &mut Crowd::new(1, 1.0), 1500);
    assert_eq!(site.above(), 0);
    site.strangers("porch", &mut Crowd::new(2, 300.0), 300);
    assert_eq!((site.above(), site.cleared()), (1, 0));
    site.strangers("porch", &mut Crowd::new(3, 1.0), 2500);
    assert_eq!((site.above(), site.cleared()), (1, 1), "once each: {:?}", site.line("porch"));
    assert_eq!(site.line("porch").state, MatchRateState::Fine);
}

#[test]
fn tightening_meets_the_target_goes_no_further_than_its_bound_and_does_not_drive_itself() {
    let mut site = Site::new(&["porch"], Terms { tightens: true, ..TERMS });
    let mut crowd = Crowd::new(5, 200.0);
    site.strangers("porch", &mut crowd, 500);
    let raised = site.rates.kept.cameras[&camera("porch")].raised.unwrap();
    let line = site.line("porch");
    assert_eq!(line.state, MatchRateState::Tightened);
    assert!(line.threshold > THRESHOLD && (line.threshold - raised.value()).abs() < 1e-6, "{line:?}");
    assert!(line.per_10000.unwrap() < 20.0, "at about the target: {line:?}");
    // Between what is configured and what is asked everybody is refused now, people enrolled first of all: that changes nothing.
    let between = vec![f32::midpoint(THRESHOLD, raised.value()); 1];
    for _ in 0..100 {
        assert_eq!(site.visit("porch", &between, None, 0.9), Outcome::Denied);
        site.wait(90_000);
    }
    site.strangers("porch", &mut crowd, 100);
    let after = site.rates.kept.cameras[&camera("porch")].raised.unwrap();
    assert!((after.value() - raised.value()).abs() < 0.03, "{} after {}", after.value(), raised.value());
    // However near they come, never more than the bound: else whoever brings look-alikes shuts the door.
    for _ in 0..400 {
        site.visit("porch", &[THRESHOLD - 0.002], None, 0.9);
        site.wait(90_000);
    }
    let most = site.rates.kept.cameras[&camera("porch")].raised.unwrap().value();
    assert!(most <= THRESHOLD + MOST_RAISED + 1e-6, "{most}");
    assert_eq!(site.visit("porch", &[0.8], None, 0.9), Outcome::Granted);
}

#[test]
fn a_raised_threshold_comes_down_only_after_a_week_in_which_less_was_enough() {
    let mut site = Site::new(&["porch"], Terms { tightens: true, ..TERMS });
    site.strangers("porch", &mut Crowd::new(5, 200.0), 400);
    let raised = site.line("porch").threshold;
    assert!(raised > THRESHOLD);
    // 90 s apart, 960 strangers are a day.
    let mut good = Crowd::new(6, 0.5);
    site.strangers("porch", &mut good, 2000);
    assert!((site.line("porch").threshold - raised).abs() < 0.011, "not within two days: {:?}", site.line("porch"));
    site.strangers("porch", &mut good, 9000);
    assert_eq!((site.line("porch").threshold, site.line("porch").state), (THRESHOLD, MatchRateState::Fine));
}

#[test]
fn one_face_that_tries_again_and_again_is_one_stranger_by_its_best_try() {
    let face = |alike: f32| {
        let values = vec![alike, (1.0 - alike * alike).sqrt()];
        Some(Probe::from(Embedding::normalised(ModelId::new("m").unwrap(), values).unwrap()))
    };
    let mut site = Site::new(&["porch"], TERMS);
    for value in [0.2, 0.4, 0.3] {
        site.visit("porch", &[value], face(1.0), 0.9);
        site.wait(20_000);
    }
    site.visit("porch", &[0.25], face(0.1), 0.9);
    site.wait(70_000);
    let strangers = &site.rates.kept.cameras[&camera("porch")].strangers;
    let bins: Vec<_> = strangers.bins().collect();
    assert_eq!(bins, [(250, 1.0), (280, 1.0)], "0.25 and 0.4");
}

#[test]
fn who_is_let_in_right_after_a_refusal_was_no_stranger_and_who_comes_near_without_is_one() {
    let mut site = Site::new(&["porch"], TERMS);
    for _ in 0..4 {
        // Refused on a bad frame, let in on a better one.
        site.visit("porch", &[0.5, 0.1], None, 0.9);
        site.wait(10_000);
        assert_eq!(site.visit("porch", &[0.8, 0.1], None, 0.9), Outcome::Granted);
        site.wait(100_000);
        // Another person's grant a moment later says nothing of a stranger.
        site.visit("porch", &[0.1, 0.51], None, 0.9);
        site.wait(10_000);
        site.visit("porch", &[0.8, 0.1], None, 0.9);
        // Nor does the person's own after a longer while.
        site.wait(100_000);
        site.visit("porch", &[0.49, 0.1], None, 0.9);
        site.wait(40_000);
        site.visit("porch", &[0.8, 0.1], None, 0.9);
        site.wait(100_000);
    }
    let kept = &site.rates.kept;
    let strangers: Vec<_> = kept.cameras[&camera("porch")].strangers.bins().collect();
    assert_eq!(strangers, [(298, 4.0), (302, 4.0)], "0.49 and 0.51 alone");
    assert_eq!(kept.cameras[&camera("porch")].grants.total(), 12.0);
    // Refused four times of those that were close: a goat; four times somebody close and not let in: both are.
    assert_eq!((kept.people[&person(0)].refused, kept.people[&person(0)].strangers), (4.0, 4.0));
    assert_eq!(kept.people[&person(1)].strangers, 4.0);
}

#[test]
fn what_was_denied_for_another_reason_is_no_stranger() {
    let mut site = Site::new(&["porch"], TERMS);
    site.visit("porch", &[0.4], None, 0.1);
    site.visit("porch", &[0.6, 0.6], None, 0.1);
    site.visit("porch", &[], None, 0.9);
    site.wait(100_000);
    assert_eq!(site.rates.kept.cameras[&camera("porch")].strangers.total(), 0.0);
}

#[test]
fn days_fade_what_was_counted_and_a_clock_that_goes_back_does_not() {
    let mut site = Site::new(&["porch"], TERMS);
    site.strangers("porch", &mut Crowd::new(1, 10.0), 120);
    let total = |site: &Site| site.rates.kept.cameras[&camera("porch")].strangers.total();
    let before = total(&site);
    let day = 24 * 3600 * 1000u64;
    let back = Moment { wall: Wall(0), ..moment(site.now) };
    site.rates.look(&mut site.decider, &site.lines, back);
    assert_eq!(total(&site), before);
    site.wait(90 * day);
    assert!((total(&site) / before - 0.5).abs() < 0.02, "{} of {before}", total(&site));
    assert_eq!(site.line("porch").state, MatchRateState::TooFewVisits, "it says at once that it knows too little now");
}

#[test]
fn a_restart_goes_on_where_it_was_and_raises_no_alarm_again() {
    let (folder, model) = (tempfile::tempdir().unwrap(), ModelId::new("m").unwrap());
    let key = || StateKey::derived(&[1; 32], "test");
    let terms = Terms { tightens: true, ..TERMS };
    let (gallery_folder, gallery) = empty_gallery();
    let mut site = Site::new(&["porch", "gone"], terms);
    site.rates.file = Some(KeptFile::new(folder.path(), key(), model.clone()));
    site.strangers("porch", &mut Crowd::new(5, 200.0), 300);
    site.visit("porch", &[0.3], None, 0.9);
    assert_eq!(site.above(), 1);
    site.rates.keep(&gallery, moment(site.now), true);
    let threshold = site.line("porch").threshold;
    let total = site.rates.kept.cameras[&camera("porch")].strangers.total();

    let start = |terms: Terms| {
        let mut again = Site::new(&["porch"], terms);
        let (place, cameras) = ((folder.path(), key()), [camera("porch")]);
        again.lines = MatchRateLines::default();
        again.now = site.now;
        let told = (&again.lines, moment(again.now));
        again.rates = MatchRates::open(place, model.clone(), terms, (&mut again.decider, &cameras), told);
        again
    };
    let mut again = start(terms);
    assert_eq!(again.line("porch").threshold, threshold);
    assert_eq!(again.rates.kept.cameras.len(), 1, "a camera that is gone is forgotten");
    assert!((again.rates.kept.cameras[&camera("porch")].strangers.total() - total).abs() < 0.1, "who waited is counted too");
    assert_eq!(again.visit("porch", &[threshold - 0.002], None, 0.9), Outcome::Denied, "the decider asks as much as before");
    again.strangers("porch", &mut Crowd::new(6, 200.0), 60);
    assert_eq!(again.above(), 0);
    // Turned off in the config, it asks what is configured.
    let mut off = start(TERMS);
    assert_eq!(off.visit("porch", &[THRESHOLD + 0.001], None, 0.9), Outcome::Granted);
    assert_eq!(off.line("porch").state, MatchRateState::AboveTarget);
    drop(gallery_folder);
}

fn empty_gallery() -> (tempfile::TempDir, Gallery) {
    let folder = tempfile::tempdir().unwrap();
    let key = crate::gallery::SealingKey::generate().unwrap();
    let settings = crate::gallery::Settings { dir: folder.path().join("gallery"), ..Default::default() };
    let gallery = Gallery::create_or_open(&settings, &key, &ModelId::new("m").unwrap(), 2).unwrap();
    (folder, gallery)
}

#[test]
fn many_cameras_are_told_apart_and_birth_is_said_again_when_a_state_changes() {
    let names = ["a", "b", "c", "d"];
    let mut site = Site::new(&names, TERMS);
    let before = site.lines.changes();
    let mut crowds: Vec<Crowd> =
        (0..).zip(names).map(|(seed, name)| Crowd::new(seed, if name == "c" { 300.0 } else { 1.0 })).collect();
    for _ in 0..300 {
        for (name, crowd) in names.iter().zip(&mut crowds) {
            let scores = crowd.stranger();
            site.visit(name, &scores, None, 0.9);
            site.wait(30_000);
        }
    }
    let states: Vec<MatchRateState> = names.iter().map(|name| site.line(name).state).collect();
    use MatchRateState::{AboveTarget, Fine};
    assert_eq!(states, [Fine, Fine, AboveTarget, Fine]);
    assert_eq!(site.lines.changes() - before, 5, "each had enough visits once, and one was named");
}

#[test]
fn people_who_come_close_are_bounded_and_who_does_most_is_kept() {
    let mut rates = MatchRates::new(TERMS);
    let id = |number: usize| PersonId::new(format!("p{number}")).unwrap();
    (0..3).for_each(|_| rates.note_person(&id(0), |near| near.strangers += 1.0));
    (1..MOST_PEOPLE + 100).for_each(|number| rates.note_person(&id(number), |near| near.strangers += 1.0));
    rates.note_person(&id(1_000_000), |near| near.granted += 1.0);
    assert_eq!(rates.kept.people.len(), MOST_PEOPLE);
    assert_eq!(rates.kept.people[&id(0)].strangers, 3.0);
    assert!(!rates.kept.people.contains_key(&id(1_000_000)), "who is let in clearly is not kept");
}
