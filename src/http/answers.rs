//! What is answered: JSON bodies as the contract says, and problems as a status with one sentence.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Unavailable;
use crate::gallery::{GalleryError, Snapshot};
use crate::pipeline::{self, StillFace};
use crate::types::{BoundingBox, Person, Wall};
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

/// `results` of `POST /recognize_face`: a face that matches nobody well enough has no identity, and its candidates are still named.
pub(super) fn recognized(faces: &[StillFace], snapshot: &Snapshot, thresholds: &PackThresholds) -> Value {
    let results = faces.iter().map(|face| {
        let verdict = pipeline::judge(face, snapshot, thresholds);
        let candidates = face.embedding.as_ref().and_then(|probe| snapshot.search(probe, CANDIDATES).ok()).unwrap_or_default();
        let candidates = candidates.iter().map(|c| json!({"name": c.person.as_str(), "score": rounded(c.score.value())}));
        json!({
            "identity": verdict.identity.as_ref().map(|person| person.as_str()),
            "verified": verdict.is_verified(),
            "score": verdict.score.map(|score| rounded(score.value())),
            "candidates": candidates.collect::<Vec<_>>(),
            "box": rectangle(&face.detection.bounding_box),
            "live": verdict.live,
            "reason": verdict.reason,
        })
    });
    json!({"results": results.collect::<Vec<_>>()})
}

/// `results` of `POST /liveness`.
pub(super) fn liveness(faces: &[StillFace], thresholds: &PackThresholds) -> Value {
    let results = faces.iter().map(|face| {
        json!({
            "live": face.liveness.is_some_and(|score| score >= thresholds.liveness),
            "score": face.liveness.map(|score| rounded(score.value())),
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
