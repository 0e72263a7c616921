//! One track's evidence: its best faces, its liveness scores, and what was refused of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Settings, Stage, Timings};
use crate::gallery::Snapshot;
use crate::types::{
    Attempt, BoundingBox, CameraId, Detection, Embedding, Moment, Monotonic, Observation, PadScore, Refusal, Score, TrackId,
};

/// A new face replaces the worst kept one only when it is better by this much, so that a still face costs no endless embedding.
const CLEARLY_BETTER: f32 = 0.05;

/// A visit is only gone on with when the faces are this far above the threshold of a match: a wrong one costs a person a decision.
const CLEARLY_ALIKE: f32 = 0.1;

/// How long a face that came back may take to become usable.
const GATHERING: Duration = Duration::from_secs(3);

/// How many candidates an observation carries: the best, the second for the margin, and a few for a person to read.
const CANDIDATES: usize = 5;

struct Shot {
    quality: f32,
    embedding: Embedding,
}

/// What is known of one track.
pub(super) struct Visit {
    first_seen: Moment,
    frames: u32,
    bounding_box: BoundingBox,
    last_seen: Moment,
    refusals: BTreeMap<Refusal, u32>,
    usable: u32,
    first_usable_at: Option<Moment>,
    last_usable_at: Option<Moment>,
    quality_sum: f32,
    liveness_sum: f32,
    liveness_count: u32,
    shots: Vec<Shot>,
    news: bool,
    settled: bool,
}

impl Visit {
    pub(super) fn new(at: Moment) -> Self {
        Self {
            first_seen: at,
            frames: 0,
            bounding_box: BoundingBox::default(),
            last_seen: at,
            refusals: BTreeMap::new(),
            usable: 0,
            first_usable_at: None,
            last_usable_at: None,
            quality_sum: 0.0,
            liveness_sum: 0.0,
            liveness_count: 0,
            shots: Vec::new(),
            news: false,
            settled: false,
        }
    }

    /// The track was seen in a frame.
    pub(super) fn meet(&mut self, detection: &Detection, at: Moment) {
        self.frames = self.frames.saturating_add(1);
        self.bounding_box = detection.bounding_box;
        self.last_seen = at;
    }

    /// Whether another face of it should be judged now.
    pub(super) fn wants_evidence(&self, at: Moment, settings: &Settings) -> bool {
        let pace = Duration::from_millis(settings.evidence_interval_ms);
        !self.settled && self.last_usable_at.is_none_or(|last| at.monotonic.since(last.monotonic) >= pace)
    }

    /// A face did not pass the quality gate.
    pub(super) fn refuse(&mut self, refusals: &[Refusal]) {
        for refusal in refusals {
            *self.refusals.entry(*refusal).or_default() += 1;
        }
    }

    /// A face passed it.
    pub(super) fn use_frame(&mut self, at: Moment, quality: f32, liveness: Option<PadScore>) {
        self.usable = self.usable.saturating_add(1);
        self.first_usable_at.get_or_insert(at);
        self.last_usable_at = Some(at);
        self.quality_sum += quality;
        if let Some(score) = liveness {
            self.liveness_sum += score.value();
            self.liveness_count += 1;
        }
        self.news = true;
    }

    /// Whether a face of this quality is worth an embedding.
    pub(super) fn wants_shot(&self, quality: f32, settings: &Settings) -> bool {
        let worst = self.shots.iter().map(|s| s.quality).fold(f32::INFINITY, f32::min);
        self.shots.len() < settings.best_shots || quality > worst + CLEARLY_BETTER
    }

    /// Keeps an embedding among the best.
    pub(super) fn keep_shot(&mut self, quality: f32, embedding: Embedding, settings: &Settings) {
        self.shots.push(Shot { quality, embedding });
        if self.shots.len() > settings.best_shots {
            let worst = (0..self.shots.len()).min_by(|&a, &b| self.shots[a].quality.total_cmp(&self.shots[b].quality));
            self.shots.swap_remove(worst.unwrap_or(0));
        }
    }

    /// Whether there is new evidence since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub(super) fn has_evidence(&self) -> bool {
        self.usable > 0 && !self.shots.is_empty()
    }

    pub(super) fn first_seen(&self) -> Monotonic {
        self.first_seen.monotonic
    }

    pub(super) fn last_seen(&self) -> Monotonic {
        self.last_seen.monotonic
    }

    /// Frames whose face passed the quality gate.
    pub(super) fn usable(&self) -> u32 {
        self.usable
    }

    /// Decided, or the continuation of a decided one: no more effort.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    pub(super) fn is_open(&self) -> bool {
        !self.settled
    }

    fn fused(&self) -> Option<Embedding> {
        Embedding::fuse(self.shots.iter().map(|shot| (&shot.embedding, shot.quality.max(0.05))))
    }

    /// The evidence so far, matched against the gallery.
    pub(super) fn observe(
        &self,
        camera: &CameraId,
        track: TrackId,
        snapshot: Option<&Snapshot>,
        timings: &Timings,
        ended: bool,
    ) -> Observation {
        let probe = self.fused();
        let candidates = snapshot
            .zip(probe.as_ref())
            .and_then(|(snapshot, probe)| timings.time(Stage::Match, || snapshot.search(probe, CANDIDATES)).ok());
        let known = candidates.iter().flatten().filter_map(|c| snapshot.and_then(|s| s.person(&c.person)));
        let profiles = known.map(|person| (person.id.clone(), person.into())).collect();
        #[expect(clippy::cast_precision_loss, reason = "counts of frames are far below 2^24")]
        let mean = |sum: f32, count: u32| sum / count as f32;
        Observation {
            camera: camera.clone(),
            track,
            captured_at: self.last_usable_at.unwrap_or(self.last_seen),
            first_usable_at: self.first_usable_at.unwrap_or(self.last_seen),
            gallery: candidates.is_some(),
            candidates: candidates.unwrap_or_default(),
            profiles,
            liveness_frames: self.liveness_count,
            liveness: (self.liveness_count > 0).then(|| PadScore::saturating(mean(self.liveness_sum, self.liveness_count))),
            frames: self.usable,
            quality: mean(self.quality_sum, self.usable.max(1)),
            bounding_box: self.bounding_box,
            ended,
        }
    }

    /// What an undecided track without usable faces leaves.
    pub(super) fn attempt(&self, camera: &CameraId, track: TrackId) -> Attempt {
        let refusal = self.refusals.iter().max_by_key(|(_, count)| **count).map(|(refusal, _)| *refusal);
        Attempt { camera: camera.clone(), track, refusal, frames: self.frames }
    }

    /// What is remembered of a decided visit, so that a track broken by an occlusion is not decided twice.
    pub(super) fn recent(&self) -> Option<Recent> {
        if self.is_open() {
            return None;
        }
        Some(Recent { embedding: self.fused()?, last_seen: self.last_seen })
    }
}

/// A decided visit that ended a moment ago.
pub(super) struct Recent {
    embedding: Embedding,
    last_seen: Moment,
}

impl Recent {
    pub(super) fn is_live(&self, at: Moment, settings: &Settings) -> bool {
        // A face that came back in time may need a while before it is usable.
        at.monotonic.since(self.last_seen.monotonic) <= Duration::from_millis(settings.rejoin_ms) + GATHERING
    }

    /// Whether `visit` is this face come back: it was first seen within the time of this one's last sight, and is clearly as alike as
    /// one person's frames are. It can only take a decision away, never bring one.
    pub(super) fn continues(&self, visit: &Visit, settings: &Settings, threshold: Score) -> bool {
        let alike = visit.fused().and_then(|probe| probe.compare(&self.embedding));
        let gap = visit.first_seen.monotonic.since(self.last_seen.monotonic);
        gap <= Duration::from_millis(settings.rejoin_ms)
            && alike.is_some_and(|score| score.value() >= threshold.value() + CLEARLY_ALIKE)
    }
}
