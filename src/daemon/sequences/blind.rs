//! Versions that are blind in one way each: they are told something else of samples, of faces or of the site than what is.

use crate::types::{FaceSample, Observation, PadScore, Score};

/// Ways to be blind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blind {
    // What the decider is told of samples.
    EveryFrameIsThePersons,
    LivenessOfTheVisit,
    LivenessOfTheNewest,
    LivenessOfTheBest,
    LivenessOfTheFrameBefore,
    LivenessOfTheFrameAfter,
    YawOfTheNewest,
    YawOfWhoeverTurned,
    FramesCountedThrice,
    RivalsUnseen,
    NearlyAlike,
    CrowdUnseen,
    // What the networks say.
    FaceOfTheFrameBefore,
    LivenessOfTheLastFace,
    LivenessOfAnybodyInView,
    FaceOfAnybodyInView,
    FaceKeptByPlace,
    // What the site asks for.
    OneFrame,
    OneLiveFrame,
    NoLiveness,
    LowThreshold,
    NoChallenge,
    OtherSide,
    NoSecondCamera,
    SecondCameraSeesPictures,
    SecondCameraSeesThemElsewhere,
    ManyFaces,
}

#[cfg(test)]
pub(super) const ALL_BLIND: [Blind; 27] = [
    Blind::EveryFrameIsThePersons,
    Blind::LivenessOfTheVisit,
    Blind::LivenessOfTheNewest,
    Blind::LivenessOfTheBest,
    Blind::LivenessOfTheFrameBefore,
    Blind::LivenessOfTheFrameAfter,
    Blind::YawOfTheNewest,
    Blind::YawOfWhoeverTurned,
    Blind::FramesCountedThrice,
    Blind::RivalsUnseen,
    Blind::NearlyAlike,
    Blind::CrowdUnseen,
    Blind::FaceOfTheFrameBefore,
    Blind::LivenessOfTheLastFace,
    Blind::LivenessOfAnybodyInView,
    Blind::FaceOfAnybodyInView,
    Blind::FaceKeptByPlace,
    Blind::OneFrame,
    Blind::OneLiveFrame,
    Blind::NoLiveness,
    Blind::LowThreshold,
    Blind::NoChallenge,
    Blind::OtherSide,
    Blind::NoSecondCamera,
    Blind::SecondCameraSeesPictures,
    Blind::SecondCameraSeesThemElsewhere,
    Blind::ManyFaces,
];

/// What a blind version makes of an observation.
pub(super) fn perceived(seen: &Observation, blind: Option<Blind>) -> Observation {
    let mut told = seen.clone();
    let liveness: Vec<Option<PadScore>> = seen.samples.iter().map(|sample| sample.liveness).collect();
    let best = liveness.iter().flatten().copied().max_by(|a, b| a.value().total_cmp(&b.value()));
    let newest = seen.samples.last().cloned();
    let lucky = |told: &mut Observation| told.liveness = best;
    match blind {
        Some(Blind::EveryFrameIsThePersons) => {
            let fused: Vec<Score> = seen.candidates.iter().map(|candidate| candidate.score).collect();
            told.samples.iter_mut().for_each(|sample| sample.scores.clone_from(&fused));
        }
        Some(Blind::LivenessOfTheVisit) => told.samples.iter_mut().for_each(|sample| sample.liveness = seen.liveness),
        Some(Blind::LivenessOfTheNewest) => {
            told.samples.iter_mut().for_each(|sample| sample.liveness = newest.as_ref().and_then(|newest| newest.liveness));
        }
        Some(Blind::LivenessOfTheBest) => {
            told.samples.iter_mut().for_each(|sample| sample.liveness = best);
            lucky(&mut told);
        }
        Some(Blind::LivenessOfTheFrameBefore) => {
            told.samples.iter_mut().skip(1).zip(&liveness).for_each(|(sample, before)| sample.liveness = *before);
        }
        Some(Blind::LivenessOfTheFrameAfter) => {
            told.samples.iter_mut().zip(liveness.iter().skip(1)).for_each(|(sample, after)| sample.liveness = *after);
        }
        Some(Blind::YawOfTheNewest) => {
            told.samples.iter_mut().for_each(|sample| sample.yaw = newest.as_ref().and_then(|newest| newest.yaw));
        }
        Some(Blind::YawOfWhoeverTurned) => {
            let angle = |sample: &&FaceSample| sample.yaw.unwrap_or(0.0).abs();
            let turned = seen.samples.iter().max_by(|a, b| angle(a).total_cmp(&angle(b))).and_then(|sample| sample.yaw);
            told.samples.iter_mut().for_each(|sample| sample.yaw = turned);
        }
        Some(Blind::FramesCountedThrice) => {
            told.samples = seen.samples.iter().flat_map(|sample| vec![sample.clone(); 3]).collect();
        }
        Some(Blind::RivalsUnseen) => {
            for sample in &mut told.samples {
                sample.scores.iter_mut().skip(1).for_each(|score| *score = Score::MIN);
            }
        }
        Some(Blind::NearlyAlike) => {
            for sample in &mut told.samples {
                sample.scores.iter_mut().for_each(|score| *score = Score::saturating(score.value() + 0.15));
            }
        }
        Some(Blind::CrowdUnseen) => told.samples.iter_mut().for_each(|sample| sample.faces_in_view = 1),
        _ => {}
    }
    told
}
