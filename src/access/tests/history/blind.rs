//! Deciders that are blind to one rule each: made with other rules, or told and shown something else than what is.

use super::*;

/// Rules that a decider can be blind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blind {
    Schedule,
    Expiry,
    Validity,
    Permission,
    Clock,
    Liveness,
    LivenessFrames,
    Frames,
    Freshness,
    Threshold,
    Margin,
    Gallery,
    Lockdown,
    LockedMode,
    Restart,
    Decided,
    Approach,
    Passback,
    Throttle,
    CoolDown,
    Factor,
    OthersCard,
    Company,
    Challenge,
    Side,
    Deadline,
    Turner,
    Witness,
    WitnessPlace,
    WitnessTime,
    WitnessMoment,
    Flat,
    Holiday,
    Zone,
    Free,
    DoorThreshold,
    DoorLiveness,
    DoorFrames,
    Soft,
    Duress,
    Carried,
    TooSoon,
    TooLate,
    TwoCameras,
    OtherFaces,
    Lead,
    MoreFrames,
    Shut,
    PassersBy,
    Distance,
    Waits,
    Reader,
    Release,
}

impl Blind {
    /// What the checker must say of such a decider; anything, mostly.
    pub(super) fn is_caught_by(self) -> &'static str {
        match self {
            Self::TooSoon => "throttled without a reason",
            Self::TooLate => "tried where nobody may try",
            _ => "",
        }
    }
}

pub(super) const ALL_BLIND: [Blind; 53] = [
    Blind::Schedule,
    Blind::Expiry,
    Blind::Validity,
    Blind::Permission,
    Blind::Clock,
    Blind::Liveness,
    Blind::LivenessFrames,
    Blind::Frames,
    Blind::Freshness,
    Blind::Threshold,
    Blind::Margin,
    Blind::Gallery,
    Blind::Lockdown,
    Blind::LockedMode,
    Blind::Restart,
    Blind::Decided,
    Blind::Approach,
    Blind::Passback,
    Blind::Throttle,
    Blind::CoolDown,
    Blind::Factor,
    Blind::OthersCard,
    Blind::Company,
    Blind::Challenge,
    Blind::Side,
    Blind::Deadline,
    Blind::Turner,
    Blind::Witness,
    Blind::WitnessPlace,
    Blind::WitnessTime,
    Blind::WitnessMoment,
    Blind::Flat,
    Blind::Holiday,
    Blind::Zone,
    Blind::Free,
    Blind::DoorThreshold,
    Blind::DoorLiveness,
    Blind::DoorFrames,
    Blind::Soft,
    Blind::Duress,
    Blind::Carried,
    Blind::TooSoon,
    Blind::TooLate,
    Blind::TwoCameras,
    Blind::OtherFaces,
    Blind::Lead,
    Blind::MoreFrames,
    Blind::Shut,
    Blind::PassersBy,
    Blind::Distance,
    Blind::Waits,
    Blind::Reader,
    Blind::Release,
];

pub(super) fn guard(door: &str, blind: Option<Blind>) -> DoorLiveness {
    let turn = DoorLiveness { challenge: ChallengeKind::Turn, ..DoorLiveness::default() };
    let tolerance_percent = if blind == Some(Blind::WitnessPlace) { 50 } else { 15 };
    let camera = CameraId::new(WITNESS).unwrap();
    let witness = WitnessSettings { camera, kind: WitnessKind::Infrared, tolerance_percent };
    match (door, blind) {
        ("front", Some(Blind::Deadline)) => DoorLiveness { challenge_timeout_ms: 30_000, ..turn },
        ("front", blind) if blind != Some(Blind::Challenge) => turn,
        ("out", blind) if blind != Some(Blind::Witness) => DoorLiveness { witness: Some(witness), ..DoorLiveness::default() },
        _ => DoorLiveness::default(),
    }
}

pub(super) fn rules(policy: &str, blind: Option<Blind>) -> (Settings, Rules) {
    let mut settings = Settings { deny_flat: true, ..Settings::default() };
    let mut rules: PolicySettings = toml::from_str(policy).unwrap();
    // Between the numbers of frames that the histories have.
    rules.throttle.blocked_frames = 4;
    match blind {
        Some(Blind::Schedule) => rules.doors.iter_mut().flat_map(|d| &mut d.allow).for_each(|allow| allow.schedule = None),
        Some(Blind::Validity) => rules.people.iter_mut().for_each(|p| (p.valid_from, p.valid_to) = (None, None)),
        Some(Blind::Permission) => rules.doors.iter_mut().flat_map(|d| &mut d.allow).for_each(|allow| allow.everyone = true),
        Some(Blind::Liveness) => settings.require_liveness = false,
        Some(Blind::Flat) => settings.deny_flat = false,
        Some(Blind::LivenessFrames) => settings.min_liveness_frames = 1,
        Some(Blind::Frames) => settings.min_frames = 1,
        Some(Blind::Freshness) => settings.max_age_ms = 60_000,
        Some(Blind::Threshold) => settings.match_threshold = Some(Score::MIN),
        Some(Blind::Margin) => settings.margin = Some(0.0),
        Some(Blind::LockedMode) => {
            let locked = rules.doors.iter_mut().filter(|door| door.mode == DoorMode::LockedDown);
            locked.for_each(|door| door.mode = DoorMode::Free);
        }
        Some(Blind::Approach) => settings.approach_ms = 0,
        Some(Blind::Passback) => rules.areas.clear(),
        Some(Blind::Throttle) => rules.throttle.failures = 0,
        Some(Blind::TooSoon) => rules.throttle.failures -= 1,
        Some(Blind::Lead) => rules.throttle.blocked_lead = 0.0,
        Some(Blind::MoreFrames) => rules.throttle.blocked_frames = 1,
        // As it once was: who is enrolled is kept out by what others did.
        Some(Blind::Shut) => rules.throttle.blocked_frames = 100,
        Some(Blind::PassersBy) => rules.throttle.attempt_ms = 0,
        Some(Blind::Distance) => rules.throttle.attempt_face_percent = 0,
        Some(Blind::TooLate) => rules.throttle.failures += 1,
        Some(Blind::Factor) => {
            let doors = rules.doors.iter_mut().filter(|door| door.mode == DoorMode::TwoFactor);
            doors.for_each(|door| door.mode = DoorMode::Normal);
        }
        Some(Blind::Holiday) => rules.holidays.clear(),
        Some(Blind::Zone) => rules.time_zone = "UTC".to_owned(),
        Some(Blind::Free) => {
            let free = rules.doors.iter_mut().filter(|door| door.mode == DoorMode::Free);
            free.for_each(|door| door.mode = DoorMode::LockedDown);
        }
        Some(Blind::DoorThreshold) => rules.doors.iter_mut().for_each(|door| door.match_threshold = None),
        Some(Blind::DoorLiveness) => rules.doors.iter_mut().for_each(|door| door.liveness_threshold = None),
        Some(Blind::DoorFrames) => rules.doors.iter_mut().for_each(|door| door.min_frames = None),
        Some(Blind::Soft) => rules.areas.retain(|area| area.kind != PassbackKind::Soft),
        Some(Blind::Duress) => rules.people.iter_mut().for_each(|person| person.duress = false),
        Some(Blind::Company) => rules.doors.iter_mut().for_each(|door| door.people_needed = 1),
        _ => {}
    }
    (settings, Rules::new(&rules).unwrap())
}

pub(super) fn heard(input: &Input, blind: Option<Blind>) -> Option<Input> {
    match (blind, input) {
        (Some(Blind::Lockdown), Input::Command(Command::Lockdown { .. })) => None,
        (Some(Blind::Clock), Input::Clock(_)) => Some(Input::Clock(Clock::Synchronised)),
        // Takes an attack for gone from where it was carried to.
        (Some(Blind::Carried), Input::TrackEnded(camera, track, area)) => {
            Some(Input::TrackEnded(camera.clone(), *track, BoundingBox { x: 5000.0, ..*area }))
        }
        (Some(Blind::OthersCard), Input::Credential(read)) => {
            // Takes every card for the card of whoever comes most often.
            Some(Input::Credential(CredentialRead {
                credential: Credential::Person(PersonId::new("bob").unwrap()),
                ..read.clone()
            }))
        }
        _ => Some(input.clone()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "step numbers are small")]
pub(super) fn perceived(observation: &Observation, blind: Option<Blind>, number: usize) -> Observation {
    let mut perceived = observation.clone();
    match blind {
        Some(Blind::Expiry) => perceived.profiles.values_mut().for_each(|profile| profile.expires_at = None),
        Some(Blind::Gallery) => perceived.gallery = true,
        // Takes one face for another with each camera, or every two faces for one.
        Some(Blind::TwoCameras) => perceived.probe = None,
        Some(Blind::OtherFaces) => perceived.probe = observation.probe.as_ref().and_then(|_| probe_of(0)),
        Some(Blind::Decided) => perceived.track = TrackId(1000 + number as u64),
        // Takes whoever turns the head for whoever was asked to.
        Some(Blind::Turner) if observation.camera.as_str() == "c-front" => {
            if let Some(best) = perceived.candidates.first_mut() {
                best.person = PersonId::new(PEOPLE[0]).unwrap();
                let profile = Profile::default();
                perceived.profiles.insert(PersonId::new(PEOPLE[0]).unwrap(), profile);
            }
        }
        // Takes the face for having always been where it is now.
        Some(Blind::WitnessMoment) => {
            let now = observation.captured_at.monotonic;
            if let Some(here) = observation.trajectory.at(now) {
                perceived.trajectory = Trajectory::default();
                for ago in (0..=10u64).rev().map(|n| n * 100_000_000) {
                    perceived.trajectory.push(Monotonic(now.0.saturating_sub(ago)), here);
                }
            }
        }
        Some(Blind::CoolDown) => perceived.bounding_box.y = 1000.0 * number as f32,
        _ => {}
    }
    perceived
}
