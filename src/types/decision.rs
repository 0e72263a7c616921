//! What the pipeline observed about a track, and what was decided about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    BoundingBox, CameraId, Candidate, DoorId, Moment, PadScore, PersonId, PolicyId, Probe, Profile, Score, TrackId, Trajectory,
};

/// What a decision says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The door may open; the decision carries a grant.
    Granted,
    /// The door stays shut.
    Denied,
    /// A person should look; the door stays shut.
    Review,
}

/// Why a decision fell as it did: a closed list, part of the published contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A live, enrolled person, clearly recognised.
    Match,
    /// Nobody in the gallery is alike enough.
    Unknown,
    /// Two people in the gallery are alike enough, and too close to each other.
    Ambiguous,
    /// Liveness says that this is a presentation attack.
    Spoof,
    /// Liveness could not be told, or no liveness network is loaded where one is required.
    LivenessUncertain,
    /// The gallery's entry of this person has expired.
    ExpiredPerson,
    /// The evidence was too old when it could be decided.
    Stale,
    /// The gallery is empty or belongs to another model.
    GalleryUnavailable,
    /// No rule lets this person through this door, at any time.
    NotPermitted,
    /// A rule lets this person through this door, but not now.
    Schedule,
    /// The person's time has not begun.
    NotYetValid,
    /// The rules ask for the time, and the clock cannot be relied on.
    Clock,
    /// The person is inside already, or outside already.
    Passback,
    /// The door asks for a card or a PIN besides the face: none came, or the face is another person's.
    SecondFactor,
    /// The door opens for several people together, and this one came before the others.
    TooFewPeople,
    /// The door is locked down.
    Lockdown,
    /// Too many attempts failed here and this face was no clear match, this very face failed a moment ago, or a picture was held up here.
    Throttled,
    /// The person was asked to turn the head and did not, or to the other side.
    Challenge,
    /// The second camera that must agree says nothing: it is away, or it stalls.
    Witness,
    /// The door opens for one face in view, and a second one was there.
    SeveralFaces,
    /// The broker, which may know that an older state was put back, has not been heard since the start.
    BrokerSilent,
    /// The pack is the one that comes with the program, which is for a first look, and the config does not accept it at a door.
    DemoPack,
    /// An operator opened the door from a desk; no face was asked for.
    Operator,
}

impl Outcome {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Granted => "granted",
            Outcome::Denied => "denied",
            Outcome::Review => "review",
        }
    }
}

impl Reason {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Match => "match",
            Reason::Unknown => "unknown",
            Reason::Ambiguous => "ambiguous",
            Reason::Spoof => "spoof",
            Reason::LivenessUncertain => "liveness-uncertain",
            Reason::ExpiredPerson => "expired-person",
            Reason::Stale => "stale",
            Reason::GalleryUnavailable => "gallery-unavailable",
            Reason::NotPermitted => "not-permitted",
            Reason::Schedule => "schedule",
            Reason::NotYetValid => "not-yet-valid",
            Reason::Clock => "clock",
            Reason::Passback => "passback",
            Reason::SecondFactor => "second-factor",
            Reason::TooFewPeople => "too-few-people",
            Reason::Lockdown => "lockdown",
            Reason::Throttled => "throttled",
            Reason::Challenge => "challenge",
            Reason::Witness => "witness",
            Reason::SeveralFaces => "several-faces",
            Reason::BrokerSilent => "broker-silent",
            Reason::DemoPack => "demo-pack",
            Reason::Operator => "operator",
        }
    }
}

/// Why a face was not used: the quality gate's closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The eyes are too close together: too far away.
    TooSmall,
    /// Out of focus or moving.
    TooBlurred,
    /// Under-exposed.
    TooDark,
    /// Over-exposed.
    TooBright,
    /// Turned too far to the side, up or down.
    TurnedAway,
    /// Cut by the picture's edge.
    CutOff,
    /// The detector was not sure enough.
    LowConfidence,
    /// The head stands on its head or lies on its side in the picture: the camera, or the photo, is turned.
    NotUpright,
}

impl Refusal {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::TooSmall => "too-small",
            Refusal::TooBlurred => "too-blurred",
            Refusal::TooDark => "too-dark",
            Refusal::TooBright => "too-bright",
            Refusal::TurnedAway => "turned-away",
            Refusal::CutOff => "cut-off",
            Refusal::LowConfidence => "low-confidence",
            Refusal::NotUpright => "not-upright",
        }
    }

    /// What was the matter, for a person to read: it goes on after "no decision: ".
    pub fn sentence(self) -> &'static str {
        match self {
            Refusal::TooSmall => "the face was too small, because it was too far away",
            Refusal::TooBlurred => "the face was blurred: out of focus, or moving",
            Refusal::TooDark => "the face was too dark",
            Refusal::TooBright => "the face was too bright",
            Refusal::TurnedAway => "the face was turned away",
            Refusal::CutOff => "the face was cut off by the edge of the picture",
            Refusal::LowConfidence => "it was hardly recognisable as a face",
            Refusal::NotUpright => "the face did not stand upright: the camera may be turned",
        }
    }
}

/// One frame's face with everything that was judged on that very frame. What is granted to a person rests on samples alone that themselves
/// match that person, so that nobody's liveness, pose or place ever stands beside another's face.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceSample {
    /// When the frame was captured.
    pub captured_at: Moment,
    /// The liveness score of this frame alone; `None` when no liveness network is loaded.
    pub liveness: Option<PadScore>,
    /// How far the face is turned to a side, in degrees; positive when the nose points to the image's right.
    pub yaw: Option<f32>,
    /// How many faces at least half as tall as this one the frame shows, this one among them.
    pub faces_in_view: u32,
    /// This frame's face alone against each of the observation's candidates, in their order.
    pub scores: Vec<Score>,
}

/// What the pipeline learnt about one track, once its evidence was enough.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Where.
    pub camera: CameraId,
    /// Whose stay.
    pub track: TrackId,
    /// When the newest frame of the evidence was captured.
    pub captured_at: Moment,
    /// When the track's first usable face was captured: decision latency counts from here.
    pub first_usable_at: Moment,
    /// What was searched for: tells whether two cameras saw one face. `None` where there is nothing to compare.
    pub probe: Option<Probe>,
    /// The most alike people, best first; empty when the gallery is empty.
    pub candidates: Vec<Candidate>,
    /// What the gallery says of each candidate.
    pub profiles: BTreeMap<PersonId, Profile>,
    /// Whether the gallery could be searched at all.
    pub gallery: bool,
    /// Fused over the track's frames; `None` when no liveness network is loaded.
    pub liveness: Option<PadScore>,
    /// How many frames liveness was judged on.
    pub liveness_frames: u32,
    /// How many frames the evidence comes from.
    pub frames: u32,
    /// Mean quality of those frames, 0 to 1.
    pub quality: f32,
    /// Where the face was last.
    pub bounding_box: BoundingBox,
    /// Where it was of late as shares of the picture, for a second camera that must agree.
    pub trajectory: Trajectory,
    /// The newest frames that the evidence comes from, the newest last, each for itself.
    pub samples: Vec<FaceSample>,
    /// Whether the points moved over the visit as those of a flat picture that is turned before the camera.
    pub is_flat: bool,
    /// Whether the track has ended: no better evidence will come.
    pub ended: bool,
}

/// What may leave the device of the evidence: bands, never raw numbers, which would let an attacker climb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// How many frames.
    pub frames: u32,
    /// `low`, `medium` or `high`; `none` where no frame was looked at.
    pub quality_band: &'static str,
    /// `none`, `weak`, `near`, `good` or `strong`.
    pub match_band: &'static str,
    /// `none`, `low`, `uncertain` or `high`.
    pub liveness_band: &'static str,
}

impl Evidence {
    /// The band of the best comparison score, by how far it is from the threshold of a match.
    pub fn match_band(best: Option<Score>, threshold: Score) -> &'static str {
        match best.map(|best| best.value() - threshold.value()) {
            None => "none",
            Some(ahead) if ahead < -0.1 => "weak",
            Some(ahead) if ahead < 0.0 => "near",
            Some(ahead) if ahead < 0.2 => "good",
            Some(_) => "strong",
        }
    }

    /// The band of a liveness score, by its threshold.
    pub fn liveness_band(score: Option<PadScore>, threshold: PadScore) -> &'static str {
        match score {
            None => "none",
            Some(score) if score < threshold => "low",
            Some(score) if score.value() < f32::midpoint(threshold.value(), 1.0) => "uncertain",
            Some(_) => "high",
        }
    }
}

impl Default for Evidence {
    /// No frame was looked at.
    fn default() -> Self {
        Self { frames: 0, quality_band: "none", match_band: "none", liveness_band: "none" }
    }
}

/// What a person was recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// The face.
    Face,
    /// A card.
    Card,
    /// A number that the person knows.
    Pin,
    /// No person was recognised: an operator opened the door from a desk.
    Operator,
}

impl Factor {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Factor::Face => "face",
            Factor::Card => "card",
            Factor::Pin => "pin",
            Factor::Operator => "operator",
        }
    }
}

/// What somebody should know about a decision besides what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// The person is, or says to be, under duress: raise a silent alarm; nothing at the door may show it.
    Duress,
    /// Anti-passback was broken at a door that only takes note of it.
    Passback,
    /// A block refused it, and behind the block it was a presentation attack: nothing at the door tells.
    Attack,
}

/// The rules that a decision was made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    /// Their name.
    pub id: PolicyId,
    /// Their version.
    pub version: u64,
}

/// One decision about one track at one door.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Granted, denied or review.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// At which door.
    pub door: DoorId,
    /// Seen by which camera; none where an operator opened the door.
    pub camera: Option<CameraId>,
    /// On which track of that camera.
    pub track: TrackId,
    /// Who; on a denial only where the reason is about that person.
    pub person: Option<PersonId>,
    /// The id of the operator's key by which the door was opened, where no face opened it.
    pub operator: Option<String>,
    /// What may be told of the evidence.
    pub evidence: Evidence,
    /// What the person was recognised by.
    pub factors: Vec<Factor>,
    /// The rules.
    pub policy: PolicyVersion,
    /// What somebody should know of it.
    pub marks: Vec<Mark>,
    /// When the newest evidence was captured.
    pub captured_at: Moment,
    /// When it was decided.
    pub decided_at: Moment,
    /// The compact JWS that a door controller acts on; on `granted` only.
    pub grant: Option<String>,
}

/// Who stands before a camera, published when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Which camera.
    pub camera: CameraId,
    /// How many faces.
    pub faces: u32,
    /// Who of them was recognised.
    pub people: Vec<PersonId>,
}

/// A track that ended without a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which camera.
    pub camera: CameraId,
    /// Whose stay.
    pub track: TrackId,
    /// The refusal met most often, or `None` when the face was usable but not for long enough.
    pub refusal: Option<Refusal>,
    /// How many frames the track had.
    pub frames: u32,
}
