//! How evidence becomes a decision: the keys of the config's `access`, and the thresholds that they and the pack come to.

use serde::{Deserialize, Serialize};

use crate::types::{PadScore, Reach, Score, VisitTable};

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

/// False grants in 10,000 visits of strangers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrName", into = "f64")]
pub struct StrangerTarget(f64);

impl StrangerTarget {
    /// NIST's FPIR of 0.003, at which its tests of searches compare algorithms (FRTE 1:N, NIST IR 8271).
    pub const NIST: Self = Self(30.0);

    /// As a share of visits.
    pub fn fpir(self) -> f64 {
        self.0 / 10_000.0
    }

    /// In 10,000 visits.
    pub fn per_10000(self) -> f64 {
        self.0
    }
}

impl Default for StrangerTarget {
    fn default() -> Self {
        Self(10.0)
    }
}

impl From<StrangerTarget> for f64 {
    fn from(target: StrangerTarget) -> f64 {
        target.0
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(f64),
    Whole(i64),
    Name(String),
}

impl TryFrom<NumberOrName> for StrangerTarget {
    type Error = String;

    fn try_from(given: NumberOrName) -> Result<Self, String> {
        match given {
            NumberOrName::Number(number) => Ok(Self(number)),
            #[expect(clippy::cast_precision_loss, reason = "what is beyond 2^52 is out of range anyway")]
            NumberOrName::Whole(number) => Ok(Self(number as f64)),
            NumberOrName::Name(name) if name == "nist" => Ok(Self::NIST),
            NumberOrName::Name(name) => Err(format!("`{name}` is no target: write a number of false grants, or \"nist\"")),
        }
    }
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
    /// Whether a camera before which strangers come too near (`alarm/match-rate`) asks more of a match by itself, until they no longer do:
    /// as much as its own estimate needs, 0.1 at most, never less than the threshold configured. Some enrolled people are then refused;
    /// `faceid calibrate --from-site` shows how many.
    pub tighten_on_match_rate: bool,
    /// What becomes of ambiguous faces: `deny` or `review`.
    pub ambiguous: Ambiguous,
    /// How many of 10,000 visits of strangers may be granted at a door, with everybody enrolled who is (0.1 to 1000, or `nist`: 30, the 0.3 %
    /// at which NIST compares searches). The threshold of a match follows from it, from the pack's table and from the number of people
    /// enrolled, and is raised as people are added. It speaks of strangers who resemble the enrolled, not of strangers drawn at random.
    pub false_grants_per_10000_strangers: StrangerTarget,
    /// The least comparison score of a match, whatever the gallery's size; without it the one that
    /// `false-grants-per-10000-strangers` asks for, or the model's own where its pack has no table.
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
            tighten_on_match_rate: false,
            ambiguous: Ambiguous::Deny,
            false_grants_per_10000_strangers: StrangerTarget::default(),
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
        let target = self.false_grants_per_10000_strangers.0;
        if !(0.1..=1000.0).contains(&target) {
            let text = format!("{target} is out of range: use 0.1 to 1000, or \"nist\"");
            findings.push(("false-grants-per-10000-strangers".into(), text));
        }
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

/// Where the threshold of a match comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The config names it.
    Config,
    /// The pack's table says that it keeps to the target.
    Target,
    /// The pack's table does not reach so far: so many people, or so low a rate. What the target promises does not hold.
    Beyond,
    /// The pack has no table: its one threshold, whatever the gallery's size.
    Pack,
}

/// The threshold of a match by the number of people enrolled.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteThreshold {
    config: Option<Score>,
    pack: Score,
    table: Option<VisitTable>,
    target: StrangerTarget,
}

impl SiteThreshold {
    /// By the pack's score and table, and what the config asks for.
    pub fn new(pack: Score, table: Option<VisitTable>, settings: &Settings) -> Self {
        Self { config: settings.match_threshold, pack, table, target: settings.false_grants_per_10000_strangers }
    }

    /// The score to decide by while so many people are enrolled, and why it is this one.
    pub fn at(&self, people: usize) -> (Score, Basis) {
        match (self.config, self.table.as_ref().map(|table| table.reach(people, self.target.fpir()))) {
            (Some(score), _) => (score, Basis::Config),
            (None, Some(reach @ Reach::Kept(_))) => (reach.score(), Basis::Target),
            (None, Some(reach @ Reach::Beyond(_))) => (reach.score(), Basis::Beyond),
            (None, None) => (self.pack, Basis::Pack),
        }
    }

    /// The false grants that are borne with.
    pub fn target(&self) -> StrangerTarget {
        self.target
    }

    /// What the threshold for so many people is worth, as a sentence.
    pub fn worth(&self, people: usize) -> String {
        let target = self.target.per_10000();
        match self.at(people).1 {
            Basis::Config => "set by access.match-threshold, whatever the number of people enrolled".to_owned(),
            Basis::Target => format!(
                "keeps to {target} false grants in 10,000 visits of strangers with {people} enrolled, as far as the pack's table was measured"
            ),
            Basis::Beyond => format!(
                "the highest of the pack's table, which does not reach {target} false grants in 10,000 visits of strangers with {people} enrolled: take another pack, ask for a second factor, or enrol fewer people at this device"
            ),
            Basis::Pack => "the pack's own: no table says what it is worth with so many people enrolled".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VisitRow;

    fn score(value: f32) -> Score {
        Score::new(value).unwrap()
    }

    fn table() -> VisitTable {
        let rows =
            vec![VisitRow { people: 10, fpir: 1e-3, score: score(0.6) }, VisitRow { people: 100, fpir: 1e-3, score: score(0.7) }];
        VisitTable { data: String::new(), least_people: 10, rows }
    }

    #[test]
    fn the_threshold_rises_with_the_gallery_and_the_config_goes_first() {
        let site = SiteThreshold::new(score(0.55), Some(table()), &Settings::default());
        assert_eq!([0, 10, 100].map(|people| site.at(people)), [0.6, 0.6, 0.7].map(|value| (score(value), Basis::Target)));
        assert_eq!(site.at(101), (score(0.7), Basis::Beyond));
        assert!(site.worth(101).contains("does not reach 10"), "{}", site.worth(101));
        let strict = Settings { false_grants_per_10000_strangers: StrangerTarget(1.0), ..Settings::default() };
        assert_eq!(SiteThreshold::new(score(0.55), Some(table()), &strict).at(1), (score(0.7), Basis::Beyond));
        let set = Settings { match_threshold: Some(score(0.5)), ..Settings::default() };
        assert_eq!(SiteThreshold::new(score(0.55), Some(table()), &set).at(100), (score(0.5), Basis::Config));
        assert_eq!(SiteThreshold::new(score(0.55), None, &Settings::default()).at(100), (score(0.55), Basis::Pack));
    }

    #[test]
    fn a_target_is_a_number_or_nists() {
        let read = |text: &str| toml::from_str::<Settings>(&format!("false-grants-per-10000-strangers = {text}"));
        for (text, expected) in [("10", 10.0), ("2.5", 2.5), ("\"nist\"", 30.0)] {
            let settings = read(text).unwrap();
            assert_eq!(settings.false_grants_per_10000_strangers.per_10000(), expected);
            assert_eq!(settings.findings(), [], "{text}");
        }
        for text in ["0", "-1", "1001", "nan", "inf"] {
            assert_eq!(read(text).unwrap().findings().len(), 1, "{text}");
        }
        assert!(read("\"few\"").unwrap_err().to_string().contains("nist"));
    }
}
