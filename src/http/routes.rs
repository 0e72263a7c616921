//! Routes: who may ask (scope and rate), how much (bytes and time), and which answer.

use std::sync::Arc;

use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Extension, Multipart, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::answers::{self, Detail, Problem};
use super::auth::{Scope, Tokens};
use super::desk::{self, Desk, WORKING};
use super::form::{self, Form};
use super::limits::{ANYBODY, Limits};
use super::peer::Peer;
use super::{Backend, REQUEST_DEADLINE, Settings, openapi, origin, people};
use crate::pipeline::StillFace;
use crate::system::clock;
use crate::types::Score;

/// Work that waits for a thread or has one. A request that was given up has its work done all the same.
static WORK: Semaphore = Semaphore::const_new(WORKING);

pub(super) struct App {
    tokens: Tokens,
    open_scopes: Vec<Scope>,
    limits: Arc<Limits>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) max_upload_bytes: usize,
    pub(super) desk: Desk,
    working: Semaphore,
}

/// Whose request it is, for the audit trail.
#[derive(Clone)]
pub(super) struct Who(pub(super) String);

impl Who {
    /// How much may be told.
    fn detail(&self) -> Detail {
        if self.0 == ANYBODY { Detail::Bands } else { Detail::Scores }
    }
}

pub(super) type Shared = State<Arc<App>>;
pub(super) type SentForm = Result<Multipart, MultipartRejection>;

/// Everything that is answered.
pub(super) fn router(settings: &Settings, tokens: Tokens, backend: Arc<dyn Backend>, limits: Arc<Limits>) -> Router {
    let app = Arc::new(App {
        tokens,
        open_scopes: settings.open_scopes.clone(),
        limits,
        backend,
        max_upload_bytes: settings.max_upload_bytes,
        desk: Desk::new(settings.max_upload_bytes),
        working: Semaphore::new(WORKING),
    });
    let guarded = |router: Router<Arc<App>>, scope: Scope| {
        router.route_layer(middleware::from_fn_with_state(app.clone(), admit)).route_layer(Extension(scope))
    };
    let recognize = Router::new().route("/recognize_face", post(recognize_face)).route("/liveness", post(liveness));
    let metrics = Router::new().route("/metrics", get(metrics));
    let care = Router::new()
        .route("/people", get(people::list).post(people::enroll))
        .route("/people/{person}", get(people::show).patch(people::change).delete(people::remove));
    let admin = Router::new().route("/rebuild_index", post(people::rebuild_index));
    Router::new()
        .merge(guarded(recognize, Scope::Recognize))
        .merge(guarded(metrics, Scope::Metrics))
        .merge(guarded(care, Scope::People))
        .merge(guarded(admin, Scope::Admin))
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such route: see /openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method") })
        .layer(DefaultBodyLimit::max(settings.max_upload_bytes + form::OVERHEAD_BYTES))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(origin::only_own))
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
async fn admit(State(app): Shared, Extension(scope): Extension<Scope>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let name = match admitted(&app, scope, request.headers(), peer.as_ref()) {
        Ok(name) => name,
        Err(problem) => return problem.into_response(),
    };
    // Figures are made at once; everything else may take a while, and must leave room for those who ask how the daemon is.
    let _working = match scope {
        Scope::Metrics => None,
        _ => match app.working.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => return Problem::too_many(1).into_response(),
        },
    };
    request.extensions_mut().insert(Who(name));
    next.run(request).await
}

fn admitted(app: &App, scope: Scope, headers: &HeaderMap, peer: Option<&Peer>) -> Result<String, Problem> {
    let now = clock::monotonic();
    let name = match bearer_token(headers) {
        None if app.open_scopes.contains(&scope) => ANYBODY.to_owned(),
        None => return Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed")),
        Some(token) => {
            // Before the token is looked at: a guess that is one too many learns nothing, right or wrong.
            let user = || peer.and_then(Peer::user);
            app.limits.may_guess(user, now).map_err(Problem::too_many)?;
            match app.tokens.bearer(token) {
                Some(bearer) if bearer.scopes.contains(&scope) => bearer.name,
                Some(_) => {
                    let text = format!("the token lacks the scope `{}`", scope.as_str());
                    return Err(Problem::new(StatusCode::FORBIDDEN, text));
                }
                None => {
                    let user = user();
                    if app.limits.guessed_wrong(user, now) {
                        let user = user.map_or_else(|| "unknown".to_owned(), |user| user.to_string());
                        log::warn!(user = user.as_str(); "the API takes no token of a user for some seconds: too many were wrong");
                    }
                    return Err(Problem::new(StatusCode::UNAUTHORIZED, "the bearer token is not known"));
                }
            }
        }
    };
    app.limits.take(&name, now).map_err(Problem::too_many)?;
    Ok(name)
}

pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
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
    Extension(who): Extension<Who>,
    query: Result<Query<RecognizeQuery>, axum::extract::rejection::QueryRejection>,
    form: SentForm,
) -> Result<Json<Value>, Problem> {
    let query = query.map_err(|_| Problem::bad("the only parameter is `threshold`"))?.0;
    let (own, detail) = (app.backend.thresholds(), who.detail());
    let mut thresholds = app.backend.thresholds();
    if let Some(text) = query.threshold {
        thresholds.matching = detail.threshold(asked_threshold(&text)?, own.matching);
    }
    // At once, before a picture is taken in; and again when it has been looked at.
    app.backend.trusted()?;
    judged(app, &who, form, move |faces, app| Ok(answers::recognized(faces, &*app.backend.trusted()?, &thresholds, &own, detail)))
        .await
}

fn asked_threshold(text: &str) -> Result<Score, Problem> {
    let wrong = || Problem::bad("`threshold` is a comparison score: -1 to 1");
    text.parse().ok().and_then(|value: f32| Score::new(value).ok()).ok_or_else(wrong)
}

async fn liveness(State(app): Shared, Extension(who): Extension<Who>, form: SentForm) -> Result<Json<Value>, Problem> {
    if !app.backend.has_liveness() {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "the model pack claims no liveness"));
    }
    let (thresholds, detail) = (app.backend.thresholds(), who.detail());
    judged(app, &who, form, move |faces, _| Ok(answers::liveness(faces, &thresholds, detail))).await
}

/// Takes the picture in, decodes and looks away from the server's own thread, and answers.
async fn judged(
    app: Arc<App>,
    who: &Who,
    form: SentForm,
    answer: impl FnOnce(&[StillFace], &App) -> Result<Value, Problem> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let mut intake = app.desk.begin(&who.0)?;
    let bytes = Form::picture(form, app.max_upload_bytes, &mut intake).await?;
    let seat = app.desk.seat().await?;
    in_background(move || {
        let _held = (intake, seat);
        let picture = desk::decode(&*app.backend, &bytes).map_err(|reason| Problem::bad(format!("the picture {reason}")))?;
        drop(bytes);
        let faces = app.backend.look(picture)?;
        answer(&faces, &app)
    })
    .await
    .map(Json)
}

/// Runs what may block on a thread of its own kind.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let permit = WORK.try_acquire().map_err(|_| Problem::too_many(1))?;
    let work = move || {
        let _permit = permit;
        work()
    };
    // The pool is shutting down when this fails: the daemon stops.
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    tokio::task::spawn_blocking(work).await.map_err(stopping)?
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
