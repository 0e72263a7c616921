//! `/people` and `/rebuild_index`: who is enrolled, seen and changed by those whose token says so. The rules are those of the command
//! line: a photo of two faces is refused, a face below the quality gate is refused, and so are photos of another person than the id's,
//! and one who is enrolled under another id.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::REQUEST_DEADLINE;
use super::answers::{self, Problem};
use super::desk;
use super::form::Form;
use super::routes::{App, SentForm, Shared, Who, in_background};
use crate::gallery::{Allowed, NotEnrolled};
use crate::pipeline;
use crate::system::clock;
use crate::types::{Embedding, GroupId, Person, PersonId, Wall};

/// People of one answer, unless told otherwise and at most.
const PAGE: usize = 1000;
const LARGEST_PAGE: usize = 10_000;
/// The longest change, in bytes: 64 groups of 64 characters and a name.
const MAX_CHANGE_BYTES: usize = 16 << 10;

type AskedPerson = Result<Path<String>, PathRejection>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<PersonId>,
    limit: Option<usize>,
}

/// Everybody by id, a page at a time.
pub(super) async fn list(State(app): Shared, page: Result<Query<Page>, QueryRejection>) -> Result<Json<Value>, Problem> {
    let wrong = || Problem::bad(format!("the parameters are `after`, an id, and `limit`, 1 to {LARGEST_PAGE}"));
    let Page { after, limit } = page.map_err(|_| wrong())?.0;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(wrong());
    }
    let snapshot = app.backend.snapshot();
    let is_next = |person: &Person| after.as_ref().is_none_or(|after| person.id > *after);
    let mut rest = snapshot.people().filter(|(person, _)| is_next(person));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(page.last()).map(|(person, _)| &person.id);
    let people: Vec<Value> = page.iter().map(|(person, templates)| answers::person(person, *templates)).collect();
    Ok(Json(json!({"people": people, "next": next})))
}

/// One person.
pub(super) async fn show(State(app): Shared, person: AskedPerson) -> Result<Json<Value>, Problem> {
    shown(&app, &asked(person)?).map(Json)
}

/// Enrols a person from photos.
pub(super) async fn enroll(
    State(app): Shared,
    Extension(who): Extension<Who>,
    form: SentForm,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let deadline = Instant::now() + REQUEST_DEADLINE / 2;
    let mut intake = app.desk.begin(&who.0)?;
    let form = Form::read(form, app.max_upload_bytes, &mut intake).await?;
    let (person, allowed) = described(&form)?;
    if form.pictures.is_empty() {
        return Err(Problem::bad("send at least one picture in `file`"));
    }
    let seat = app.desk.seat().await?;
    in_background(move || {
        let _held = (intake, seat);
        enrolled(&app, &who, person, allowed, form.pictures, deadline)
    })
    .await
    .map(|answer| (StatusCode::CREATED, Json(answer)))
}

/// The person that a form is about, and what is insisted on against the rule of enrolment.
fn described(form: &Form) -> Result<(Person, Allowed), Problem> {
    form.expect_only(&["id", "name", "group", "consented_at", "expires_at", "allow_duplicate", "allow_other_face"])?;
    let id = form.word("id")?.ok_or_else(|| Problem::bad("say who it is in `id`"))?;
    let groups = form.all("group").map(|group| group.parse::<GroupId>().map_err(|error| Problem::bad(error.to_string())));
    let time = |name: &'static str| form.word(name)?.map(|text| parse_time(text).map_err(Problem::bad)).transpose();
    let insisted = |name: &'static str| -> Result<bool, Problem> {
        match form.word(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::bad(format!("`{name}` is `true` or `false`"))),
        }
    };
    let allowed = Allowed { duplicate: insisted("allow_duplicate")?, other_face: insisted("allow_other_face")? };
    let person = Person {
        id: id.parse().map_err(|error: crate::types::InvalidId| Problem::bad(error.to_string()))?,
        name: form.word("name")?.map(str::to_owned),
        groups: groups.collect::<Result<_, _>>()?,
        consented_at: time("consented_at")?,
        expires_at: time("expires_at")?,
        enrolled_at: clock::wall(),
    };
    Ok((person, allowed))
}

fn enrolled(
    app: &App,
    who: &Who,
    person: Person,
    allowed: Allowed,
    pictures: Vec<Vec<u8>>,
    deadline: Instant,
) -> Result<Value, Problem> {
    let (mut templates, mut files, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (number, bytes) in pictures.into_iter().enumerate() {
        match template(app, &bytes)? {
            Ok(template) => {
                templates.push(template);
                files.push(number);
            }
            Err((code, reason)) => refused.push(json!({"file": number, "reason": reason, "code": code})),
        }
        // Whoever asked has gone by then, and must not find somebody enrolled without having been told.
        if Instant::now() > deadline {
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the pictures took too long, nobody was enrolled: send fewer"));
        }
    }
    if templates.is_empty() {
        let reasons: Vec<&str> = refused.iter().filter_map(|row| row["reason"].as_str()).collect();
        let text = format!("nobody was enrolled: {}", reasons.join("; "));
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text).with("code", json!("no-usable-face"));
        return Err(problem.with("refused", Value::Array(refused)));
    }
    let id = person.id.clone();
    let admission = app.backend.admit(person, templates, allowed, &who.0)?;
    let Some(admission) = admission else { return Err(Problem::bad("nobody was enrolled")) };
    let rule = admission.refused().map(|(at, why)| json!({"file": files.get(at), "reason": why.to_string(), "code": why.code()}));
    refused.extend(rule);
    refused.sort_by_key(|row| row["file"].as_u64());
    if let Some(why) = admission.why_nobody() {
        let (status, remedy) = match why {
            NotEnrolled::Duplicate { .. } => (StatusCode::CONFLICT, "; `allow_duplicate` enrols it all the same"),
            NotEnrolled::TooMany { .. } => (StatusCode::UNPROCESSABLE_ENTITY, ""),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "; `allow_other_face` enrols them all the same"),
        };
        let problem = Problem::new(status, format!("nobody was enrolled: {why}{remedy}")).with("code", json!(why.code()));
        return Err(problem.with("refused", Value::Array(refused)));
    }
    let (added, there) = (admission.added(), admission.already_there());
    Ok(json!({"person": shown(app, &id)?, "templates_added": added, "already_there": there, "refused": refused}))
}

/// The inner error is the picture's, a code and a sentence; the outer one ends the request.
fn template(app: &App, bytes: &[u8]) -> Result<Result<Embedding, (&'static str, String)>, Problem> {
    let picture = match desk::decode(&*app.backend, bytes) {
        Ok(picture) => picture,
        Err(reason) => return Ok(Err(("no-picture", format!("the picture {reason}")))),
    };
    let faces = app.backend.look(picture)?;
    Ok(pipeline::reference(faces).map_err(|reason| (reason.code(), reason.to_string())))
}

/// A change: what is absent stays, null takes away (JSON merge patch, RFC 7396).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default, deserialize_with = "given")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    groups: Option<Vec<GroupId>>,
    #[serde(default, deserialize_with = "given")]
    consented_at: Option<Option<Time>>,
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<Time>>,
}

/// Keeps null apart from absence.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Time(Wall);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_time(&text).map(Self)
    }
}

fn parse_time(text: &str) -> Result<Wall, String> {
    let stamp: Result<jiff::Timestamp, _> = text.parse();
    stamp.map(|stamp| Wall(stamp.as_millisecond())).map_err(|_| "write times like 2027-01-31T00:00:00Z".to_owned())
}

/// Changes what is kept of a person.
pub(super) async fn change(
    State(app): Shared,
    Extension(who): Extension<Who>,
    person: AskedPerson,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let id = asked(person)?;
    let body = body.map_err(|_| Problem::bad("the body was cut off"))?;
    if body.len() > MAX_CHANGE_BYTES {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("send at most {MAX_CHANGE_BYTES} bytes")));
    }
    let change: Change = serde_json::from_slice(&body).map_err(|error| Problem::bad(format!("the change: {error}")))?;
    in_background(move || {
        let known = app.backend.snapshot().person(&id).cloned().ok_or_else(|| nobody(&id))?;
        let changed = Person {
            name: change.name.unwrap_or(known.name),
            groups: change.groups.unwrap_or(known.groups),
            consented_at: change.consented_at.map_or(known.consented_at, |time| time.map(|time| time.0)),
            expires_at: change.expires_at.map_or(known.expires_at, |time| time.map(|time| time.0)),
            ..known
        };
        app.backend.set(changed, &who.0)?;
        shown(&app, &id)
    })
    .await
    .map(Json)
}

/// Removes a person with every template.
pub(super) async fn remove(
    State(app): Shared,
    Extension(who): Extension<Who>,
    person: AskedPerson,
) -> Result<Json<Value>, Problem> {
    let id = asked(person)?;
    in_background(move || {
        let erased = app.backend.remove(&id, &who.0)?;
        Ok(json!({"removed": id, "erased_from_disk": erased}))
    })
    .await
    .map(Json)
}

/// Begins to build the search index anew.
pub(super) async fn rebuild_index(State(app): Shared, Extension(who): Extension<Who>) -> (StatusCode, Json<Value>) {
    let status = if app.backend.rebuild(&who.0) { "started" } else { "under way" };
    (StatusCode::ACCEPTED, Json(json!({"status": status})))
}

fn asked(person: AskedPerson) -> Result<PersonId, Problem> {
    let text = person.map_err(|_| Problem::bad("the id is no text"))?.0;
    text.parse().map_err(|error: crate::types::InvalidId| Problem::bad(error.to_string()))
}

fn nobody(id: &PersonId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("{id} is not enrolled"))
}

fn shown(app: &App, id: &PersonId) -> Result<Value, Problem> {
    let snapshot = app.backend.snapshot();
    snapshot.person(id).map(|person| answers::person(person, snapshot.templates_of(id))).ok_or_else(|| nobody(id))
}
