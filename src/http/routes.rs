//! Routes: who may ask (scope and rate), how much (bytes and time), and which answer.

use std::sync::Arc;

use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, Extension, Multipart, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{self, Problem};
use super::auth::{Scope, Tokens};
use super::limits::{ANYBODY, Limits};
use super::{Backend, REQUEST_DEADLINE, Settings, openapi};
use crate::pipeline::StillFace;
use crate::system::clock;
use crate::types::Score;
use crate::vision::stack::PackThresholds;

/// Room for the parts' own headers beside the picture.
const MULTIPART_OVERHEAD_BYTES: usize = 16 << 10;
/// Fields of a form that are looked at before it is refused.
const MOST_FIELDS: usize = 8;

struct App {
    tokens: Tokens,
    open_scopes: Vec<Scope>,
    limits: Arc<Limits>,
    backend: Arc<dyn Backend>,
    max_upload_bytes: usize,
}

type Shared = State<Arc<App>>;

/// Everything that is answered.
pub(super) fn router(settings: &Settings, tokens: Tokens, backend: Arc<dyn Backend>, limits: Arc<Limits>) -> Router {
    let app = Arc::new(App {
        tokens,
        open_scopes: settings.open_scopes.clone(),
        limits,
        backend,
        max_upload_bytes: settings.max_upload_bytes,
    });
    let guarded = |router: Router<Arc<App>>, scope: Scope| {
        router.route_layer(middleware::from_fn_with_state(app.clone(), admit)).route_layer(Extension(scope))
    };
    let recognize = Router::new().route("/recognize_face", post(recognize_face)).route("/liveness", post(liveness));
    let metrics = Router::new().route("/metrics", get(metrics));
    Router::new()
        .merge(guarded(recognize, Scope::Recognize))
        .merge(guarded(metrics, Scope::Metrics))
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such route: see /openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method") })
        .layer(DefaultBodyLimit::max(settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES))
        .layer(middleware::from_fn(in_time))
        .with_state(app)
}

/// A request that dawdles is given up, its connection closed.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}

/// Lets a request through that has the route's scope and is not one too many.
async fn admit(State(app): Shared, Extension(scope): Extension<Scope>, request: Request, next: Next) -> Response {
    match admitted(&app, scope, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn admitted(app: &App, scope: Scope, headers: &HeaderMap) -> Result<(), Problem> {
    let now = clock::wall();
    let name = match bearer_token(headers) {
        None if app.open_scopes.contains(&scope) => ANYBODY.to_owned(),
        None => return Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed")),
        Some(token) => match app.tokens.bearer(token) {
            Some(bearer) if bearer.scopes.contains(&scope) => bearer.name,
            Some(_) => {
                let text = format!("the token lacks the scope `{}`", scope.as_str());
                return Err(Problem::new(StatusCode::FORBIDDEN, text));
            }
            None => {
                app.limits.take_guess(now).map_err(Problem::too_many)?;
                return Err(Problem::new(StatusCode::UNAUTHORIZED, "the bearer token is not known"));
            }
        },
    };
    app.limits.take(&name, now).map_err(Problem::too_many)
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecognizeQuery {
    threshold: Option<String>,
}

async fn recognize_face(
    State(app): Shared,
    query: Result<Query<RecognizeQuery>, axum::extract::rejection::QueryRejection>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<Value>, Problem> {
    let query = query.map_err(|_| Problem::bad("the only parameter is `threshold`"))?.0;
    let mut thresholds = app.backend.thresholds();
    if let Some(text) = query.threshold {
        let wrong = || Problem::bad("`threshold` is a comparison score: -1 to 1");
        thresholds.matching = text.parse().ok().and_then(|value: f32| Score::new(value).ok()).ok_or_else(wrong)?;
    }
    let bytes = upload(&app, form).await?;
    judged(app, bytes, move |faces, app| answers::recognized(faces, &app.backend.snapshot(), &thresholds)).await
}

async fn liveness(
    State(app): Shared,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<Value>, Problem> {
    if !app.backend.has_liveness() {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "the model pack claims no liveness"));
    }
    let thresholds: PackThresholds = app.backend.thresholds();
    let bytes = upload(&app, form).await?;
    judged(app, bytes, move |faces, _| answers::liveness(faces, &thresholds)).await
}

/// The part `file` of a form.
async fn upload(app: &App, form: Result<Multipart, axum::extract::multipart::MultipartRejection>) -> Result<Vec<u8>, Problem> {
    let needed = || Problem::bad("send multipart/form-data with the picture in `file`");
    let mut form = form.map_err(|_| needed())?;
    let limit = app.max_upload_bytes;
    let too_large = move |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("send at most {limit} bytes")),
        _ => Problem::bad("the form is damaged or cut off"),
    };
    for _ in 0..MOST_FIELDS {
        let Some(field) = form.next_field().await.map_err(too_large)? else { break };
        if field.name() == Some("file") {
            let bytes = field.bytes().await.map_err(too_large)?;
            if bytes.len() > limit {
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("send at most {limit} bytes")));
            }
            return Ok(bytes.to_vec());
        }
    }
    Err(needed())
}

/// Decodes and looks away from the server's own thread, and answers.
async fn judged(
    app: Arc<App>,
    bytes: Vec<u8>,
    answer: impl FnOnce(&[StillFace], &App) -> Value + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let work = move || -> Result<Value, Problem> {
        let picture = app.backend.decode(&bytes).map_err(|reason| Problem::bad(format!("the picture {reason}")))?;
        drop(bytes);
        let faces = app.backend.look(picture)?;
        Ok(answer(&faces, &app))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(answered) => answered.map(Json),
        // The pool is shutting down: the daemon stops.
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
    }
}

async fn readyz(State(app): Shared) -> Response {
    match app.backend.not_ready() {
        None => Json(json!({"status": "ready"})).into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reason": reason}))).into_response(),
    }
}

async fn metrics(State(app): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.backend.metrics()).into_response()
}
