//! How the device fares, in figures: `stats`, and what `birth` says of the rates at the cameras.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::types::{CameraId, Wall};

/// A latency over the last interval, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_ms: f32,
    /// The 99th percentile.
    pub p99_ms: f32,
}

/// One camera's part of the statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraStats {
    /// Which camera.
    pub camera: CameraId,
    /// Frames that were looked at, per second.
    pub fps: f32,
    /// Frames that came, since the start.
    pub frames: u64,
    /// Frames that were replaced before anyone took them, since the start.
    pub frames_dropped: u64,
}

/// An accelerator's engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineStats {
    /// The network's model.
    pub model: String,
    /// What it is for.
    pub provider: String,
    /// `building`, `ready` or `refused`.
    pub state: &'static str,
    /// How long it has been or was being built, in seconds.
    pub seconds: u64,
    /// Why it does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the daemon fares, once a minute; every five seconds while an engine is being built.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// When.
    #[serde(skip)]
    pub at: Wall,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Where the networks run.
    pub provider: String,
    /// Engines that were begun since the start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineStats>,
    /// Each camera.
    pub cameras: Vec<CameraStats>,
    /// Each stage's time for a frame, by its name.
    pub stages: BTreeMap<String, Latency>,
    /// From the first usable face to the grant; nothing when none was given. Refusals wait on purpose.
    pub decision: Option<Latency>,
    /// Decisions since the start.
    pub decisions: u64,
    /// Events that were given up for want of room, since the start.
    pub events_dropped: u64,
    /// What the broker has told of this device's last `birth`, which shows an older state put back: a word of a closed list.
    pub witness: &'static str,
    /// The warmest sensor, in degrees Celsius.
    pub temperature_c: Option<f32>,
    /// How many strangers each camera's doors would let in, by their own measure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_rates: Vec<MatchRate>,
}

/// What a camera's doors know of the rate of false grants there, from the scores of the strangers whom they refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatchRate {
    /// Which camera.
    pub camera: CameraId,
    /// In a word.
    pub state: MatchRateState,
    /// How many strangers' visits it is taken from; old ones count less.
    pub visits: u32,
    /// How many are missing before anything can be said; nothing where enough were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<u32>,
    /// Expected false grants per 10,000 strangers at `threshold`; nothing where too few visits were there. With `low` and `high` as its
    /// 95 % interval.
    pub per_10000: Option<f32>,
    /// The interval's lower end.
    pub low: Option<f32>,
    /// The interval's upper end.
    pub high: Option<f32>,
    /// What the site bears, per 10,000.
    pub target: f32,
    /// The threshold of a match in force before this camera; the lowest, where its doors have several.
    pub threshold: f32,
    /// The same as it is configured.
    pub configured_threshold: f32,
}

/// How a match rate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchRateState {
    /// Too few strangers came to say anything.
    TooFewVisits,
    /// Nothing says that it is above the target.
    Fine,
    /// It is above the target.
    AboveTarget,
    /// It was, and the threshold is raised.
    Tightened,
}

impl MatchRateState {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchRateState::TooFewVisits => "too-few-visits",
            MatchRateState::Fine => "fine",
            MatchRateState::AboveTarget => "above-target",
            MatchRateState::Tightened => "tightened",
        }
    }
}

impl MatchRate {
    /// Before enough strangers came: so many did, so many are missing.
    pub fn unknown(camera: CameraId, (visits, missing): (u32, u32), target: f32, threshold: f32) -> Self {
        let state = MatchRateState::TooFewVisits;
        let (per_10000, low, high) = (None, None, None);
        let missing = Some(missing);
        Self { camera, state, visits, missing, per_10000, low, high, target, threshold, configured_threshold: threshold }
    }
}
