//! One track's evidence: its best faces, its newest faces each with what was judged on the same frame, and what was refused of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Settings, Stage, Timings};
use crate::gallery::Snapshot;
use crate::types::{
    Attempt, BoundingBox, CameraId, Candidate, Detection, Embedding, FaceSample, Landmarks, Moment, Monotonic, Observation,
    PadScore, PersonId, Place, Probe, Refusal, Score, TrackId, Trajectory,
};
use crate::vision::quality::Pose;
use crate::vision::{Motion, Parallax};

/// A new face replaces the worst kept one only when it is better by this much, so that a still face costs no endless embedding.
const CLEARLY_BETTER: f32 = 0.05;

/// A visit is only gone on with when the faces are this far above the threshold of a match: a wrong one costs a person a decision.
const CLEARLY_ALIKE: f32 = 0.1;

/// How long a face that came back may take to become usable.
const GATHERING: Duration = Duration::from_secs(3);

/// How many candidates an observation carries: the best, the second for the margin, and a few for a person to read.
const CANDIDATES: usize = 5;

/// A face that is less alike to its visit than this share of the pack's match threshold is not that person's. On one person's stays (621
/// faces of six clips with the built-in pack, 177 of five with `standard`) the least likeness was 0.47 and 0.52, but for one single face
/// of 0.07; the share asks for 0.38 and 0.22.
const SAME_PERSON_SHARE: f32 = 0.6;

/// Once the best faces are kept, one in so many usable faces is looked at whole: its liveness, and whose it is. The others are nothing:
/// a face that is not held against the visit's own is no evidence, or somebody could lend a live face to another's picture.
const LOOK_EVERY: u32 = 2;

/// A face whose box overlaps the one before less than this (intersection over union) has jumped, and one that was out of sight for longer
/// than this may have been relieved by another: whose it is, is asked anew.
const JUMP_IOU: f32 = 0.3;
const OUT_OF_SIGHT: Duration = Duration::from_millis(300);

/// The most liveness scores of one visit that are fused; later ones take the places of the first.
const MAX_SCORES: usize = 256;

/// The most samples of one visit that are kept, the newest: four to eight seconds of a face, and at 512 numbers 128 KiB of memory.
const MAX_SAMPLES: usize = 64;

/// The most people against whom one sample's scores are kept.
const MAX_SCORED: usize = 16;

struct Shot {
    quality: f32,
    embedding: Embedding,
}

/// One face that passed the quality gate, and what the networks said of it.
pub(super) struct Face {
    pub(super) at: Moment,
    pub(super) quality: f32,
    pub(super) liveness: Option<PadScore>,
    pub(super) embedding: Embedding,
    pub(super) points: Landmarks,
    /// How many faces at least half as tall as this one the frame shows, this one among them.
    pub(super) in_view: u32,
}

/// A face that counted, for itself: what was judged on its frame and whom it alone resembles.
struct Sample {
    at: Moment,
    liveness: Option<PadScore>,
    yaw: Option<f32>,
    in_view: u32,
    embedding: Embedding,
    /// What the gallery said of it, person by person: each is asked once.
    scores: Vec<(PersonId, Score)>,
}

impl Sample {
    /// The scores against these candidates, in their order; the lowest where the gallery cannot say.
    fn against(&mut self, candidates: &[Candidate], snapshot: &Snapshot) -> Vec<Score> {
        let is_missing = |c: &&Candidate| !self.scores.iter().any(|(person, _)| *person == c.person);
        let missing: Vec<PersonId> = candidates.iter().filter(is_missing).map(|c| c.person.clone()).collect();
        if !missing.is_empty() {
            let scores = snapshot.scores(&self.embedding, &missing).unwrap_or_default();
            if self.scores.len() + missing.len() > MAX_SCORED {
                self.scores.retain(|(person, _)| candidates.iter().any(|c| c.person == *person));
            }
            self.scores.extend(missing.into_iter().zip(scores));
        }
        let known = |c: &Candidate| self.scores.iter().find(|(person, _)| *person == c.person).map(|(_, score)| *score);
        candidates.iter().map(|c| known(c).unwrap_or(Score::MIN)).collect()
    }
}

/// What became of a face.
pub(super) enum Taken {
    /// It is evidence.
    Counted,
    /// It is unlike the others of its visit: it counts for nothing until a second one says the same.
    Doubted,
    /// Two in a row are unlike the visit's and like each other: they are another person's, whose visit this is.
    AnotherPerson(Box<Visit>),
}

/// What is known of one track.
pub(super) struct Visit {
    first_seen: Moment,
    frames: u32,
    bounding_box: BoundingBox,
    trajectory: Trajectory,
    last_seen: Moment,
    refusals: BTreeMap<Refusal, u32>,
    usable: u32,
    first_usable_at: Option<Moment>,
    last_usable_at: Option<Moment>,
    /// When a usable face was last looked at or passed over.
    last_judged_at: Option<Moment>,
    quality_sum: f32,
    liveness: Vec<f32>,
    liveness_count: u32,
    shots: Vec<Shot>,
    /// Usable faces since one was looked at.
    passed_over: u32,
    doubted: Option<Face>,
    /// Whether the face has jumped or was out of sight since it was last looked at whose it is.
    has_jumped: bool,
    parallax: Parallax,
    /// The newest faces that counted, the newest last.
    samples: VecDeque<Sample>,
    /// The gallery's number of changes when the samples were scored.
    scored_at: Option<u64>,
    /// How often the face stood upright in its picture, less how often it did not.
    upright: i8,
    news: bool,
    settled: bool,
}

impl Visit {
    pub(super) fn new(at: Moment) -> Self {
        Self {
            first_seen: at,
            frames: 0,
            bounding_box: BoundingBox::default(),
            trajectory: Trajectory::default(),
            last_seen: at,
            refusals: BTreeMap::new(),
            usable: 0,
            first_usable_at: None,
            last_usable_at: None,
            last_judged_at: None,
            quality_sum: 0.0,
            liveness: Vec::new(),
            liveness_count: 0,
            shots: Vec::new(),
            passed_over: 0,
            doubted: None,
            has_jumped: false,
            parallax: Parallax::default(),
            samples: VecDeque::new(),
            scored_at: None,
            upright: 0,
            news: false,
            settled: false,
        }
    }

    /// The track was seen in a frame.
    pub(super) fn meet(&mut self, detection: &Detection, (width, height): (u32, u32), at: Moment) {
        let is_jump = self.bounding_box.iou(&detection.bounding_box) < JUMP_IOU
            || at.monotonic.since(self.last_seen.monotonic) > OUT_OF_SIGHT;
        self.has_jumped |= self.frames > 0 && is_jump;
        self.frames = self.frames.saturating_add(1);
        self.bounding_box = detection.bounding_box;
        self.trajectory.push(at.monotonic, Place::of(&detection.bounding_box, width, height));
        self.last_seen = at;
    }

    /// Whether another face of it should be judged now: while it is undecided, and once more when another may have taken its place.
    pub(super) fn wants_evidence(&self, at: Moment, settings: &Settings) -> bool {
        let pace = Duration::from_millis(settings.evidence_interval_ms);
        let is_asked = !self.settled || (!self.shots.is_empty() && (self.has_jumped || self.doubted.is_some()));
        is_asked && self.last_judged_at.is_none_or(|last| at.monotonic.since(last.monotonic) >= pace)
    }

    /// A face did not pass the quality gate.
    pub(super) fn refuse(&mut self, refusals: &[Refusal]) {
        for refusal in refusals {
            *self.refusals.entry(*refusal).or_default() += 1;
        }
    }

    /// Whether it is to be asked whether the face stands upright: twice a visit where it does.
    pub(super) fn wants_stance(&self) -> bool {
        self.upright < 2
    }

    /// Takes the answer; gives whether the face is taken for upright. One that mostly is not is none for a single lucky frame.
    pub(super) fn stands_upright(&mut self, is_turned: bool) -> bool {
        self.upright = (self.upright + if is_turned { -1 } else { 1 }).clamp(-3, 3);
        self.upright > 0
    }

    /// Whether a decided visit has lasted so long that whoever stands there is to be decided anew.
    pub(super) fn is_over(&self, at: Moment, settings: &Settings) -> bool {
        let limit = Duration::from_secs(settings.visit_s);
        self.settled && !limit.is_zero() && at.monotonic.since(self.first_seen.monotonic) >= limit
    }

    /// Whether a usable face of this quality is to be looked at: for being among the best, because another may have come in its place,
    /// or because it is its turn.
    pub(super) fn wants_look(&self, quality: f32, settings: &Settings) -> bool {
        self.is_better(quality, settings) || self.doubted.is_some() || self.has_jumped || self.passed_over + 1 >= LOOK_EVERY
    }

    /// A usable face is not looked at.
    pub(super) fn pass_over(&mut self, at: Moment) {
        self.passed_over = self.passed_over.saturating_add(1);
        self.last_judged_at = Some(at);
    }

    fn is_better(&self, quality: f32, settings: &Settings) -> bool {
        let worst = self.shots.iter().map(|s| s.quality).fold(f32::INFINITY, f32::min);
        self.shots.len() < settings.best_shots || quality > worst + CLEARLY_BETTER
    }

    /// A face passed the quality gate. One that is clearly another's than the visit's ends the visit. That alone does not keep one
    /// person's liveness from standing beside another's embedding, since two people may be alike by chance or by a morph: what is granted
    /// rests on samples that each match the person for themselves ([`FaceSample`]).
    pub(super) fn take(&mut self, face: Face, settings: &Settings, matching: Score) -> Taken {
        let least = SAME_PERSON_SHARE * matching.value();
        let alike = |a: &Embedding, b: &Embedding| a.compare(b).is_some_and(|score| score.value() >= least);
        let is_known = self.shots.is_empty() || self.fused().is_some_and(|known| alike(&face.embedding, &known));
        if !is_known {
            let before = self.doubted.take();
            let Some(first) = before.filter(|doubt| alike(&doubt.embedding, &face.embedding)) else {
                self.doubted = Some(face);
                return Taken::Doubted;
            };
            let mut other = Visit::new(first.at);
            (other.frames, other.bounding_box) = (2, self.bounding_box);
            other.trajectory = self.trajectory.since(first.at.monotonic);
            other.last_seen = self.last_seen;
            other.count(first, settings);
            other.count(face, settings);
            return Taken::AnotherPerson(Box::new(other));
        }
        (self.doubted, self.has_jumped) = (None, false);
        self.count(face, settings);
        Taken::Counted
    }

    fn count(&mut self, face: Face, settings: &Settings) {
        self.usable = self.usable.saturating_add(1);
        self.first_usable_at.get_or_insert(face.at);
        self.last_usable_at = Some(face.at);
        self.last_judged_at = Some(face.at);
        self.quality_sum += face.quality;
        self.parallax.see(&face.points);
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: face.at,
            liveness: face.liveness,
            yaw: Some(Pose::estimate(&face.points).yaw).filter(|yaw| yaw.is_finite()),
            in_view: face.in_view,
            embedding: face.embedding.clone(),
            scores: Vec::new(),
        });
        if let Some(score) = face.liveness {
            let place = self.liveness_count as usize % MAX_SCORES;
            match self.liveness.get_mut(place) {
                Some(old) => *old = score.value(),
                None => self.liveness.push(score.value()),
            }
            self.liveness_count = self.liveness_count.saturating_add(1);
        }
        self.passed_over = 0;
        if self.is_better(face.quality, settings) {
            self.keep_shot(face.quality, face.embedding, settings);
        }
        self.news = true;
    }

    fn keep_shot(&mut self, quality: f32, embedding: Embedding, settings: &Settings) {
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

    /// Where its face was last.
    pub(super) fn bounding_box(&self) -> BoundingBox {
        self.bounding_box
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

    /// Where its face was at a moment a short while ago, as shares of the picture.
    pub(super) fn place_at(&self, moment: Monotonic) -> Option<Place> {
        self.trajectory.at(moment)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.settled
    }

    fn fused(&self) -> Option<Embedding> {
        Embedding::fuse(self.shots.iter().map(|shot| (&shot.embedding, shot.quality.max(0.05))))
    }

    /// The evidence so far, matched against the gallery.
    pub(super) fn observe(
        &mut self,
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
        let samples = self.samples(candidates.as_deref().unwrap_or_default(), snapshot);
        let known = candidates.iter().flatten().filter_map(|c| snapshot.and_then(|s| s.person(&c.person)));
        let profiles = known.map(|person| (person.id.clone(), person.into())).collect();
        #[expect(clippy::cast_precision_loss, reason = "counts of frames are far below 2^24")]
        let mean_quality = self.quality_sum / self.usable.max(1) as f32;
        Observation {
            camera: camera.clone(),
            track,
            captured_at: self.last_usable_at.unwrap_or(self.last_seen),
            first_usable_at: self.first_usable_at.unwrap_or(self.last_seen),
            gallery: candidates.is_some(),
            probe: probe.map(Probe::from),
            candidates: candidates.unwrap_or_default(),
            profiles,
            liveness_frames: self.liveness_count,
            liveness: PadScore::fuse(self.liveness.iter().copied().map(PadScore::saturating)),
            frames: self.usable,
            quality: mean_quality,
            bounding_box: self.bounding_box,
            trajectory: self.trajectory.clone(),
            samples,
            is_flat: self.parallax.motion() == Motion::Flat,
            ended,
        }
    }

    /// The newest samples, each with its own scores against these candidates.
    fn samples(&mut self, candidates: &[Candidate], snapshot: Option<&Snapshot>) -> Vec<FaceSample> {
        let number = snapshot.map(Snapshot::generation);
        if self.scored_at != number {
            self.samples.iter_mut().for_each(|sample| sample.scores.clear());
            self.scored_at = number;
        }
        let told = |sample: &mut Sample| FaceSample {
            captured_at: sample.at,
            liveness: sample.liveness,
            yaw: sample.yaw,
            faces_in_view: sample.in_view,
            scores: snapshot.map(|snapshot| sample.against(candidates, snapshot)).unwrap_or_default(),
        };
        self.samples.iter_mut().map(told).collect()
    }

    /// What an undecided track without usable faces leaves.
    pub(super) fn attempt(&self, camera: &CameraId, track: TrackId) -> Attempt {
        let refusal = self.refusals.iter().max_by_key(|(_, count)| **count).map(|(refusal, _)| *refusal);
        Attempt { camera: camera.clone(), track, refusal, frames: self.frames }
    }

    /// What is remembered of a decided visit, so that a track broken by an occlusion is not decided twice.
    pub(super) fn recent(&self, track: TrackId) -> Option<Recent> {
        if self.is_open() {
            return None;
        }
        Some(Recent { track, embedding: self.fused()?, last_seen: self.last_seen })
    }
}

/// A decided visit that ended a moment ago.
pub(super) struct Recent {
    pub(super) track: TrackId,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ModelId, Point};

    const MATCHING: f32 = 0.6;

    fn at(ms: u64) -> Moment {
        Moment { monotonic: Monotonic(ms * 1_000_000), ..Moment::default() }
    }

    /// A face of person `who`, turned by `drift` of a right angle towards nobody.
    fn face(who: usize, drift: f32, liveness: f32, ms: u64) -> Face {
        let mut values = vec![0.0; 8];
        let angle = drift * std::f32::consts::FRAC_PI_2;
        (values[who], values[7]) = (angle.cos(), angle.sin());
        let embedding = Embedding::normalised(ModelId::new("m").unwrap(), values).unwrap();
        let liveness = Some(PadScore::new(liveness).unwrap());
        Face { at: at(ms), quality: 0.5, liveness, embedding, points: Landmarks::default(), in_view: 1 }
    }

    fn take(visit: &mut Visit, face: Face) -> Taken {
        visit.take(face, &Settings::default(), Score::new(MATCHING).unwrap())
    }

    fn observed(visit: &mut Visit) -> Observation {
        visit.observe(&CameraId::new("cam").unwrap(), TrackId(1), None, &Timings::default(), false)
    }

    #[test]
    fn a_face_unlike_the_others_counts_for_nothing_until_a_second_says_the_same() {
        let mut visit = Visit::new(at(0));
        for n in 0..3 {
            assert!(matches!(take(&mut visit, face(0, 0.1, 0.9, n * 60)), Taken::Counted));
        }
        assert!(matches!(take(&mut visit, face(1, 0.0, 0.1, 240)), Taken::Doubted));
        assert_eq!((observed(&mut visit).frames, observed(&mut visit).liveness_frames), (3, 3));
        assert!(matches!(take(&mut visit, face(0, 0.2, 0.9, 300)), Taken::Counted), "it was a bad picture");
        assert!(matches!(take(&mut visit, face(1, 0.0, 0.1, 360)), Taken::Doubted));
        assert!(matches!(take(&mut visit, face(2, 0.0, 0.1, 420)), Taken::Doubted), "unlike both");
        assert_eq!(observed(&mut visit).frames, 4);
    }

    #[test]
    fn another_persons_visit_begins_with_nothing_of_this_ones() {
        let mut visit = Visit::new(at(0));
        (0..3).for_each(|n| drop(take(&mut visit, face(0, 0.0, 0.95, n * 60))));
        drop(take(&mut visit, face(1, 0.0, 0.2, 240)));
        let Taken::AnotherPerson(mut other) = take(&mut visit, face(1, 0.1, 0.2, 300)) else { panic!("not split") };
        let (before, after) = (observed(&mut visit), observed(&mut other));
        assert_eq!((before.frames, before.liveness.unwrap().value()), (3, 0.95));
        assert_eq!((after.frames, after.liveness_frames, after.first_usable_at), (2, 2, at(240)));
        assert!(after.liveness.unwrap().value() < 0.3, "the first one's liveness is not lent");
        assert!(visit.fused().unwrap().compare(&other.fused().unwrap()).unwrap().value() < 0.3);
    }

    #[test]
    fn a_head_that_turns_stays_one_person() {
        let mut visit = Visit::new(at(0));
        for n in 0..12u8 {
            let drift = f32::from(n) * 0.04;
            assert!(matches!(take(&mut visit, face(0, drift, 0.9, u64::from(n) * 60)), Taken::Counted), "{drift}");
        }
    }

    #[test]
    fn every_second_usable_face_is_looked_at_however_good_the_kept_ones_are_and_the_others_are_no_evidence() {
        let (mut visit, settings) = (Visit::new(at(0)), Settings::default());
        (0..5).for_each(|n| drop(take(&mut visit, face(0, 0.0, 0.9, n * 60))));
        let mut looks = Vec::new();
        for ms in (400..).step_by(60).take(6) {
            assert!(visit.wants_evidence(at(ms), &settings), "{ms} ms");
            looks.push(visit.wants_look(0.5, &settings));
            match looks.last() {
                Some(true) => drop(take(&mut visit, face(0, 0.0, 0.9, ms))),
                _ => visit.pass_over(at(ms)),
            }
            assert!(!visit.wants_evidence(at(ms + 59), &settings), "passing over is judging, too");
        }
        assert_eq!(looks, [false, true, false, true, false, true]);
        assert_eq!(
            (observed(&mut visit).frames, observed(&mut visit).liveness_frames, observed(&mut visit).captured_at),
            (8, 8, at(700))
        );
    }

    #[test]
    fn a_face_of_another_model_than_the_visits_own_is_not_mixed_with_them() {
        let mut visit = Visit::new(at(0));
        drop(take(&mut visit, face(0, 0.0, 0.9, 0)));
        let other = Embedding::normalised(ModelId::new("n").unwrap(), face(0, 0.0, 0.9, 0).embedding.values().to_vec());
        assert!(matches!(take(&mut visit, Face { embedding: other.unwrap(), ..face(0, 0.0, 0.9, 60) }), Taken::Doubted));
        assert_eq!(observed(&mut visit).frames, 1);
    }

    #[test]
    fn the_scores_of_a_long_visit_are_bounded_and_the_newest_count() {
        let mut visit = Visit::new(at(0));
        (0..1000).for_each(|n| drop(take(&mut visit, face(0, 0.0, if n < 700 { 0.9 } else { 0.1 }, n * 60))));
        assert_eq!(visit.liveness.len(), MAX_SCORES);
        assert!(observed(&mut visit).liveness.unwrap().value() < 0.2);
    }

    #[test]
    fn a_decided_visit_is_over_only_when_a_limit_is_set() {
        let mut visit = Visit::new(at(0));
        let limited = Settings { visit_s: 60, ..Settings::default() };
        assert!(!visit.is_over(at(100_000), &limited), "undecided");
        visit.settle();
        assert!(visit.is_over(at(60_000), &limited) && !visit.is_over(at(59_999), &limited));
        assert!(!visit.is_over(at(1_000_000_000), &Settings::default()));
    }

    fn seen_at(visit: &mut Visit, x: f32, ms: u64) {
        let bounding_box = BoundingBox { x, y: 0.0, width: 100.0, height: 100.0 };
        let detection = Detection { bounding_box, landmarks: Landmarks::default(), confidence: 0.9 };
        visit.meet(&detection, (1000, 1000), at(ms));
    }

    #[test]
    fn whose_a_face_is_is_asked_anew_when_it_jumps_was_out_of_sight_or_is_doubted_decided_or_not() {
        let settings = Settings::default();
        for (x, ms, is_asked) in [(50.0, 300, false), (60.0, 300, true), (0.0, 300, false), (0.0, 301, true)] {
            for is_decided in [false, true] {
                let mut visit = Visit::new(at(0));
                seen_at(&mut visit, 0.0, 0);
                assert!(!visit.has_jumped, "it has come");
                // More than are kept, so that none is wanted for its quality.
                (0..6).for_each(|n| drop(take(&mut visit, face(0, 0.0, 0.9, n))));
                if is_decided {
                    visit.settle();
                }
                seen_at(&mut visit, x, ms);
                assert_eq!(visit.wants_evidence(at(ms), &settings), is_asked || !is_decided, "{x} px, {ms} ms");
                assert_eq!(visit.wants_look(0.5, &settings), is_asked, "{x} px, {ms} ms");
                drop(take(&mut visit, face(0, 0.0, 0.9, ms)));
                assert!(!visit.wants_look(0.5, &settings), "it is the same");
                assert!(matches!(take(&mut visit, face(1, 0.0, 0.9, ms)), Taken::Doubted));
                assert!(visit.wants_look(0.5, &settings) && visit.wants_evidence(at(ms + 60), &settings), "doubted");
            }
        }
    }

    #[test]
    fn another_persons_walk_begins_where_that_person_was_first_seen() {
        let mut visit = Visit::new(at(0));
        (0..20).for_each(|n| seen_at(&mut visit, 0.0, n * 60));
        drop(take(&mut visit, face(0, 0.0, 0.9, 900)));
        drop(take(&mut visit, face(1, 0.0, 0.9, 1080)));
        let Taken::AnotherPerson(other) = take(&mut visit, face(1, 0.0, 0.9, 1140)) else { panic!("not split") };
        assert!(visit.place_at(at(600).monotonic).is_some());
        assert_eq!((other.place_at(at(1079).monotonic), other.place_at(at(1080).monotonic).is_some()), (None, true));
    }

    #[test]
    fn only_the_same_face_clearly_and_back_in_time_goes_on_with_a_decided_visit() {
        let settings = Settings::default();
        let mut visit = Visit::new(at(0));
        drop(take(&mut visit, face(0, 0.0, 0.9, 0)));
        seen_at(&mut visit, 0.0, 1000);
        assert!(visit.recent(TrackId(1)).is_none(), "undecided");
        visit.settle();
        let recent = visit.recent(TrackId(1)).unwrap();
        // The match threshold is 0.6, which a turn by 0.59 of a right angle falls to, and 0.7 by 0.51.
        for (who, drift, ms, goes_on) in
            [(0, 0.0, 2200, true), (0, 0.0, 2201, false), (0, 0.48, 2200, true), (0, 0.53, 2200, false), (1, 0.0, 2200, false)]
        {
            let mut back = Visit::new(at(ms));
            drop(take(&mut back, face(who, drift, 0.9, ms + 500)));
            assert_eq!(recent.continues(&back, &settings, Score::new(MATCHING).unwrap()), goes_on, "{who}, {drift}, {ms}");
        }
        assert!(!recent.continues(&Visit::new(at(1500)), &settings, Score::new(MATCHING).unwrap()), "no face was looked at");
        assert!(recent.is_live(at(5200), &settings) && !recent.is_live(at(5201), &settings));
    }

    #[test]
    fn what_is_told_of_a_visit_is_its_newest_usable_face_and_how_its_points_moved() {
        // Eyes, nose and mouth of a picture that is turned: the nose stays in the plane.
        let turned = |degrees: f32| {
            let plane = [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.57], [-0.41, 1.16], [0.42, 1.15]];
            let point = |[x, y]: [f32; 2]| Point { x: 300.0 + 80.0 * x * degrees.to_radians().cos(), y: 200.0 + 80.0 * y };
            Landmarks(plane.map(point))
        };
        let mut visit = Visit::new(at(0));
        for n in 0..40u8 {
            let (ms, degrees) = (u64::from(n) * 60, 40.0 * (f32::from(n) / 6.0).sin());
            drop(take(&mut visit, Face { points: turned(degrees), ..face(0, 0.0, 0.9, ms) }));
        }
        let nose_right = Landmarks(
            [[260.0, 200.0], [340.0, 200.0], [325.0, 245.0], [268.0, 292.0], [334.0, 292.0]].map(|[x, y]| Point { x, y }),
        );
        drop(take(&mut visit, Face { points: nose_right, ..face(0, 0.0, 0.9, 2400) }));
        seen_at(&mut visit, 0.0, 2900);
        let observed = observed(&mut visit);
        let yaw = observed.samples.last().unwrap().yaw;
        assert!(observed.is_flat && yaw.unwrap() > 10.0, "{yaw:?}");
        assert_eq!(
            (observed.captured_at, observed.first_usable_at),
            (at(2400), at(0)),
            "later sights without a face are no evidence"
        );
    }
}
