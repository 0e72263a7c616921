//! How evidence becomes a decision: the keys of the config's `access`, and the thresholds that they and the pack come to.

use serde::{Deserialize, Serialize};

use crate::types::{PadScore, Score};

/// What becomes of a face that two people's references resemble too closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ambiguous {
    /// Denied.
    #[default]
    Deny,
    /// Left to a person.
    Review,
}

/// How evidence becomes a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Usable frames of a track before it can be granted (1 to 100).
    pub min_frames: u32,
    /// Frames on which liveness must have been judged before a track can be granted (1 to 100).
    pub min_liveness_frames: u32,
    /// How long after its first usable face a track may still gather better evidence before it is denied, in milliseconds (0 to 10000).
    pub patience_ms: u64,
    /// For how long after a grant the same person at the same door is the same approach and is not decided again, on whatever track or
    /// camera, in milliseconds (0 to 60000). A person whom a rule refuses is not refused again for the same reason as long, and what two
    /// cameras see of a face that nobody knows is told and charged once.
    pub approach_ms: u64,
    /// Evidence older than this when it is decided is stale and denied, in milliseconds (50 to 60000).
    pub max_age_ms: u64,
    /// A grant's lifetime in seconds (1 to 60).
    pub grant_lifetime_s: u64,
    /// Whether a grant needs liveness. Turning it off lets a photo open the door.
    pub require_liveness: bool,
    /// Whether a face whose points move as those of a flat picture that is turned is denied as an attack. Off, because a detector's
    /// points are too restless for it to be worth what it costs: see PROJECT_REPORT.md, and measure with `faceid eval motion`.
    pub deny_flat: bool,
    /// Whether the built-in pack may open doors. It is for a first look: between people who are alike it lets strangers in, so that without
    /// this whoever would be granted is denied (`demo-pack`).
    pub accept_demo_pack: bool,
    /// What becomes of ambiguous faces: `deny` or `review`.
    pub ambiguous: Ambiguous,
    /// The least comparison score of a match; without it the model's own from the manifest.
    pub match_threshold: Option<Score>,
    /// How far the best person must be ahead of the second; without it the pack's own.
    pub margin: Option<f32>,
    /// The least liveness score, fused over a track; without it the pack's own.
    pub liveness_threshold: Option<PadScore>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_frames: 3,
            min_liveness_frames: 3,
            patience_ms: 1500,
            approach_ms: 3000,
            max_age_ms: 1000,
            grant_lifetime_s: 5,
            require_liveness: true,
            deny_flat: false,
            accept_demo_pack: false,
            ambiguous: Ambiguous::Deny,
            match_threshold: None,
            margin: None,
            liveness_threshold: None,
        }
    }
}

impl Settings {
    /// Values out of range, each with its key and the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut range = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                findings.push((key.to_owned(), format!("{value} is out of range: use {low} to {high}")));
            }
        };
        range("min-frames", u64::from(self.min_frames), 1, 100);
        range("min-liveness-frames", u64::from(self.min_liveness_frames), 1, 100);
        range("approach-ms", self.approach_ms, 0, 60_000);
        range("patience-ms", self.patience_ms, 0, 10_000);
        range("max-age-ms", self.max_age_ms, 50, 60_000);
        range("grant-lifetime-s", self.grant_lifetime_s, 1, 60);
        if let Some(margin) = self.margin.filter(|m| !(0.0..=1.0).contains(m)) {
            findings.push(("margin".into(), format!("{margin} is out of range: use 0.0 to 1.0")));
        }
        findings
    }
}

/// The thresholds in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The least comparison score of a match.
    pub matching: Score,
    /// How far the best person must be ahead of the second.
    pub margin: f32,
    /// The least liveness score.
    pub liveness: PadScore,
}

impl Thresholds {
    /// The pack's thresholds with the config's in their place where it names one.
    pub fn with(self, settings: &Settings) -> Self {
        Self {
            matching: settings.match_threshold.unwrap_or(self.matching),
            margin: settings.margin.unwrap_or(self.margin),
            liveness: settings.liveness_threshold.unwrap_or(self.liveness),
        }
    }
}
