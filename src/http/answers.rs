//! What is answered: JSON bodies as the contract says, and problems as a status with one sentence.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Unavailable;
use crate::gallery::{GalleryError, Snapshot};
use crate::pipeline::{self, StillFace};
use crate::types::{BoundingBox, Evidence, Person, Score, Wall};
use crate::vision::stack::PackThresholds;

/// The most candidates that are named.
const CANDIDATES: usize = 5;

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    text: String,
    retry_after_s: Option<u64>,
    /// What else the body says: a code, and what of the request is meant.
    more: serde_json::Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after_s: None, more: serde_json::Map::new() }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Too many requests: try again in so many seconds.
    pub(super) fn too_many(seconds: u64) -> Self {
        let text = format!("too many requests: try again in {seconds} s");
        Self { retry_after_s: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    /// The same with one more member of the body.
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.more.insert(key.to_owned(), value);
        self
    }
}

impl From<Unavailable> for Problem {
    fn from(reason: Unavailable) -> Self {
        match reason {
            // The picture is to blame: the same one will fail again.
            Unavailable::Failed => Self::new(StatusCode::UNPROCESSABLE_ENTITY, reason.to_string()),
            // Somebody has to look at the device first; trying again does not help.
            Unavailable::Untrusted => Self::new(StatusCode::SERVICE_UNAVAILABLE, reason.to_string()),
            Unavailable::Busy | Unavailable::Late => Self::too_many(1),
        }
    }
}

impl From<GalleryError> for Problem {
    fn from(error: GalleryError) -> Self {
        let status = match &error {
            GalleryError::NoSuchPerson { .. } => StatusCode::NOT_FOUND,
            GalleryError::InvalidPerson { .. } | GalleryError::NoTemplates { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            GalleryError::TooManyTemplates { .. } | GalleryError::TooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            // Somebody has to look at the device first.
            GalleryError::RolledBack { .. } | GalleryError::OpenedReadOnly { .. } => StatusCode::CONFLICT,
            GalleryError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.more;
        body.insert("error".to_owned(), json!(self.text));
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// How much is told of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// To whoever has a token with the scope: numbers, and whom a face resembles besides.
    Scores,
    /// To anybody: bands, as decisions have them. Numbers would let somebody climb, one changed picture after the other, to a face that
    /// is taken for another's.
    Bands,
}

impl Detail {
    /// The threshold that is used where one is asked for. A search with many thresholds would tell a score that is not told: without a
    /// token it is a whole tenth, and never lower than the doors' own.
    pub(super) fn threshold(self, asked: Score, own: Score) -> Score {
        match self {
            Self::Scores => asked,
            Self::Bands => {
                let tenth = Score::saturating((asked.value() * 10.0 - 1e-3).ceil() / 10.0);
                if tenth > own { tenth } else { own }
            }
        }
    }
}

/// `results` of `POST /recognize_face`. With [`Detail::Scores`] a face that matches nobody well enough has no identity, and its candidates
/// are still named. The band is told by the doors' own thresholds, whichever were asked for.
pub(super) fn recognized(
    faces: &[StillFace],
    snapshot: &Snapshot,
    thresholds: &PackThresholds,
    own: &PackThresholds,
    detail: Detail,
) -> Value {
    let results = faces.iter().map(|face| {
        let verdict = pipeline::judge(face, snapshot, thresholds);
        let candidates: Vec<Value> = match detail {
            Detail::Scores => {
                let found = face.embedding.as_ref().and_then(|probe| snapshot.search(probe, CANDIDATES).ok()).unwrap_or_default();
                let told = found.iter().map(|c| json!({"name": c.person.as_str(), "score": rounded(c.score.value())}));
                told.collect()
            }
            Detail::Bands => verdict.identity.iter().map(|person| json!({"name": person.as_str(), "score": null})).collect(),
        };
        let score = verdict.score.filter(|_| detail == Detail::Scores);
        json!({
            "identity": verdict.identity.as_ref().map(|person| person.as_str()),
            "verified": verdict.is_verified(),
            "score": score.map(|score| rounded(score.value())),
            "match_band": Evidence::match_band(verdict.score, own.matching),
            "candidates": candidates,
            "box": rectangle(&face.detection.bounding_box),
            "live": verdict.live,
            "liveness_band": Evidence::liveness_band(face.liveness, own.liveness),
            "reason": verdict.reason,
        })
    });
    json!({"results": results.collect::<Vec<_>>()})
}

/// `results` of `POST /liveness`.
pub(super) fn liveness(faces: &[StillFace], thresholds: &PackThresholds, detail: Detail) -> Value {
    let results = faces.iter().map(|face| {
        json!({
            "live": face.liveness.is_some_and(|score| score >= thresholds.liveness),
            "score": face.liveness.filter(|_| detail == Detail::Scores).map(|score| rounded(score.value())),
            "liveness_band": Evidence::liveness_band(face.liveness, thresholds.liveness),
            "box": rectangle(&face.detection.bounding_box),
        })
    });
    json!({"results": results.collect::<Vec<_>>()})
}

/// What is kept of a person, without templates.
pub(super) fn person(person: &Person, templates: usize) -> Value {
    json!({
        "id": person.id,
        "name": person.name,
        "groups": person.groups,
        "templates": templates,
        "enrolled_at": person.enrolled_at.rfc3339(),
        "consented_at": person.consented_at.map(Wall::rfc3339),
        "expires_at": person.expires_at.map(Wall::rfc3339),
    })
}

/// x, y, width, height in whole pixels.
fn rectangle(b: &BoundingBox) -> Value {
    json!([b.x.round() as i64, b.y.round() as i64, b.width.round() as i64, b.height.round() as i64])
}

/// Four digits: as much as a score means.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_no_search_by_thresholds_tells_a_score() {
        let score = |value| Score::new(value).unwrap();
        let own = score(0.37);
        for (asked, used) in
            [(-1.0, 0.37), (0.0, 0.37), (0.369, 0.4), (0.4, 0.4), (0.3, 0.37), (0.401, 0.5), (0.7, 0.7), (1.0, 1.0)]
        {
            assert_eq!(Detail::Bands.threshold(score(asked), own), score(used), "{asked}");
            assert_eq!(Detail::Scores.threshold(score(asked), own), score(asked));
        }
        // Every threshold that can be asked for is one of these few.
        let steps = (-1000..=1000).map(|n| Detail::Bands.threshold(Score::saturating(n as f32 / 1000.0), own).value().to_bits());
        assert!(steps.collect::<std::collections::BTreeSet<_>>().len() <= 8);
    }
}
