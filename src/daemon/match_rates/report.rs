//! What a person is told of the match rates: a sentence a camera, the curve of what a threshold costs, and who is often close to it. From the
//! file that the daemon writes every few minutes, for the command line; it needs the state key.

use std::path::Path;

use super::kept::{FILE, read};
use super::{Camera, Terms};
use crate::evaluation::tail::{Estimate, Tail};
use crate::publish::{MatchRate, MatchRateState, StateKey};
use crate::types::{CameraId, PersonId, Score};

/// What to do where strangers come too near.
pub const REMEDY: &str = "look at `faceid calibrate --from-site`, then raise [access] match-threshold, ask for a second factor at that door, or better its light and its camera's place";
/// The curve's steps, of the cosine.
const STEP: f32 = 0.01;
/// How far the curve goes below and above the threshold configured.
const AROUND: (u8, u8) = (2, 12);
/// So often, in visits that have not faded, before somebody is named: once or twice is anybody's bad day.
const OFTEN: f64 = 3.0;
/// And so often of all the person's visits.
const OFTEN_SHARE: f64 = 0.2;

/// What the daemon knows of its cameras and of who is close to the threshold.
pub struct SiteReport {
    /// Each camera that watches a door.
    pub cameras: Vec<CameraReport>,
    /// Who is often close to it.
    pub close: Vec<Close>,
}

/// A camera, and what each threshold would cost there.
pub struct CameraReport {
    /// How it is.
    pub line: MatchRate,
    /// The thresholds around the one configured; without estimates where too few visits came.
    pub curve: Vec<Point>,
    /// How many grants the shares are of.
    pub grants: f64,
}

/// What one threshold costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Which.
    pub threshold: Score,
    /// The share of strangers who would be let in.
    pub strangers: Option<Estimate>,
    /// The share of past grants that would have been none.
    pub grants_below: Option<f64>,
}

/// Somebody who is often close to the threshold. The words are those of G. Doddington and others, "Sheep, goats, lambs and wolves"
/// (ICSLP 1998).
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    /// Who.
    pub person: PersonId,
    /// How.
    pub kind: Kind,
    /// How many visits, rounded; old ones count less.
    pub visits: u32,
}

/// How somebody is close to the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The person is let in barely, or after a refusal.
    Goat,
    /// Others come near to the person's templates.
    Lamb,
}

impl Kind {
    /// The field's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Goat => "goat",
            Kind::Lamb => "lamb",
        }
    }

    /// What it means, and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::Goat => "is often let in barely or only after a refusal: enrol more and newer pictures, from this very camera",
            Kind::Lamb => {
                "somebody who is not let in often comes close: ask this person for a second factor; if it is the person, enrol anew"
            }
        }
    }
}

/// What lies in the state folder; nothing where no daemon has written it yet. The error says why it cannot be read.
pub fn read_site(state: &Path, secrets: &Path, target: f64) -> Result<Option<SiteReport>, String> {
    let key = StateKey::read(secrets).map_err(|error| error.to_string())?;
    let Some((_, kept)) = read(&state.join(FILE), &key)? else { return Ok(None) };
    let terms = Terms { target, tightens: false };
    let cameras = kept.cameras.iter().map(|(id, camera)| camera_report(terms, id, camera)).collect();
    let mut close = Vec::new();
    for (person, near) in &kept.people {
        let own = near.narrow + near.refused;
        if own >= OFTEN && own >= OFTEN_SHARE * (near.granted + near.refused) {
            close.push(Close { person: person.clone(), kind: Kind::Goat, visits: own.round() as u32 });
        }
        if near.strangers >= OFTEN {
            close.push(Close { person: person.clone(), kind: Kind::Lamb, visits: near.strangers.round() as u32 });
        }
    }
    Ok(Some(SiteReport { cameras, close }))
}

fn camera_report(terms: Terms, id: &CameraId, camera: &Camera) -> CameraReport {
    let tail = Tail::of(&camera.strangers, camera.configured);
    let at = |steps: i16| Score::saturating(camera.configured.value() + f32::from(steps) * STEP);
    let point = |threshold: Score| Point {
        threshold,
        strangers: tail.as_ref().ok().map(|tail| tail.rate_at(threshold)),
        grants_below: camera.grants.share_below(threshold),
    };
    let curve = (-i16::from(AROUND.0)..=i16::from(AROUND.1)).map(at).map(point).collect();
    CameraReport { line: terms.line(id, camera, &tail), curve, grants: camera.grants.total() }
}

/// How a camera is, in a sentence.
pub fn sentence(line: &MatchRate) -> String {
    let MatchRate { camera, visits, target, .. } = line;
    let (Some(rate), Some(low), Some(high)) = (line.per_10000, line.low, line.high) else {
        let missing = line.missing.unwrap_or(0);
        return format!(
            "camera `{camera}`: too few strangers' visits to say how many would be let in: {visits}, {missing} more are needed"
        );
    };
    let told = format!(
        "camera `{camera}`: of 10,000 strangers about {} [{}, {}] would be let in at {:.3}, by {visits} visits; the target is {target}",
        figure(rate),
        figure(low),
        figure(high),
        line.threshold
    );
    match line.state {
        MatchRateState::Tightened => format!("{told}; the threshold is raised, configured is {:.3}", line.configured_threshold),
        _ => told,
    }
}

/// No more digits than are known.
pub fn figure(per_10000: f32) -> String {
    if per_10000 >= 9.95 { format!("{per_10000:.0}") } else { format!("{per_10000:.1}") }
}
