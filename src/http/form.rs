//! Forms: pictures and the words beside them, bounded in number and in bytes while they come in.

use axum::extract::multipart::{Field, MultipartError};
use axum::http::StatusCode;

use super::answers::Problem;
use super::desk::Intake;
use super::routes::SentForm;

/// Room for the parts' own headers and words beside the pictures.
pub(super) const OVERHEAD_BYTES: usize = 16 << 10;
/// Parts that are looked at before a form is refused.
const MOST_PARTS: usize = 80;
/// Pictures of one form.
pub(super) const MOST_PICTURES: usize = 5;
/// An upload's memory grows by this much: to the double of what it holds it would be half empty.
const STEP_BYTES: usize = 256 << 10;
/// The longest word, in bytes: a name.
const MAX_WORD_BYTES: usize = 1024;

/// A form, taken apart.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The parts `file`, in order.
    pub(super) pictures: Vec<Vec<u8>>,
    /// All others, in order: name and content.
    pub(super) words: Vec<(String, String)>,
}

impl Form {
    /// The first part `file` of a form; nothing after it is looked at.
    pub(super) async fn picture(form: SentForm, max_bytes: usize, intake: &mut Intake) -> Result<Vec<u8>, Problem> {
        let needed = || Problem::bad("send multipart/form-data with the picture in `file`");
        let mut form = form.map_err(|_| needed())?;
        for _ in 0..MOST_PARTS {
            let field = intake.in_pace(form.next_field()).await?;
            let Some(field) = field.map_err(|error| unreadable(&error, max_bytes))? else { break };
            if field.name() == Some("file") {
                return bytes(field, max_bytes, too_large, intake).await;
            }
        }
        Err(needed())
    }

    /// Everything of a form, with at most `max_bytes` of pictures in all.
    pub(super) async fn read(form: SentForm, max_bytes: usize, intake: &mut Intake) -> Result<Self, Problem> {
        let mut form = form.map_err(|_| Problem::bad("send multipart/form-data: see /openapi.json"))?;
        let (mut read, mut left) = (Self::default(), max_bytes);
        for _ in 0..MOST_PARTS {
            let field = intake.in_pace(form.next_field()).await?;
            let Some(field) = field.map_err(|error| unreadable(&error, max_bytes))? else { return Ok(read) };
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                if read.pictures.len() == MOST_PICTURES {
                    return Err(Problem::bad(format!("send at most {MOST_PICTURES} pictures at once")));
                }
                let picture = bytes(field, left, too_large, intake).await?;
                left -= picture.len();
                read.pictures.push(picture);
            } else {
                let word = bytes(field, MAX_WORD_BYTES, too_long, intake).await?;
                let word = String::from_utf8(word).map_err(|_| Problem::bad("a field is no UTF-8 text"))?;
                read.words.push((name, word));
            }
        }
        Err(Problem::bad("the form has too many parts"))
    }

    /// The only word of that name; an empty one is none.
    pub(super) fn word<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(Problem::bad(format!("`{name}` is given twice")));
        }
        Ok(first)
    }

    /// Every word of that name that is not empty.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.words.iter().filter(move |(known, word)| known == name && !word.is_empty()).map(|(_, word)| word.as_str())
    }

    /// Refuses words that nobody asked for: a misspelt one would be dropped in silence.
    pub(super) fn expect_only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.words.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(_) => Err(Problem::bad(format!("the fields are `file`, `{}`", known.join("`, `")))),
        }
    }
}

async fn bytes(mut field: Field<'_>, limit: usize, refused: fn(usize) -> Problem, intake: &mut Intake) -> Result<Vec<u8>, Problem> {
    let mut all = Vec::new();
    while let Some(part) = intake.in_pace(field.chunk()).await?.map_err(|error| unreadable(&error, limit))? {
        if all.len() + part.len() > limit {
            return Err(refused(limit));
        }
        intake.take(part.len())?;
        if all.capacity() - all.len() < part.len() {
            all.reserve_exact(part.len().max(STEP_BYTES.min(limit - all.len())));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}

/// A word is no payload: the one that is too long breaks the rules of its field.
fn too_long(limit: usize) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("a field has at most {limit} bytes"))
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("send at most {limit} bytes"))
}

fn unreadable(error: &MultipartError, limit: usize) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => Problem::bad("the form is damaged or cut off"),
    }
}
