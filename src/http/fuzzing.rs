//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken.

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::answers::Problem;
use super::form::{Form, MOST_PICTURES};
use super::routes::SentForm;

/// What stands between the parts of a form that is fed.
const BOUNDARY: &str = "X-FACEID-FUZZ";
/// The most bytes of pictures that are taken.
const MAX_BYTES: usize = 2_000;

/// The body of an upload: bounded in pictures and bytes whatever comes, and what is refused is the sender's fault and never ours.
pub fn form(body: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            match Form::read(sent(body).await, MAX_BYTES).await {
                Ok(form) => {
                    assert!(form.pictures.len() <= MOST_PICTURES);
                    assert!(form.pictures.iter().map(Vec::len).sum::<usize>() <= MAX_BYTES);
                    let _ = (form.word("name").is_ok(), form.expect_only(&["name", "group"]).is_ok());
                }
                Err(problem) => blames_the_sender(problem),
            }
            match Form::picture(sent(body).await, MAX_BYTES).await {
                Ok(picture) => assert!(picture.len() <= MAX_BYTES),
                Err(problem) => blames_the_sender(problem),
            }
        });
    });
}

fn blames_the_sender(problem: Problem) {
    assert!(problem.into_response().status().is_client_error());
}

async fn sent(body: &[u8]) -> SentForm {
    let request = Request::builder().header(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"));
    let request = request.body(Body::from(body.to_vec())).expect("the header is plain");
    Multipart::from_request(request, &()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Tokens;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_uploads_breaks_no_promise() {
        let part = |name: &str, content: &str| {
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.jpg\"\r\n\r\n{content}\r\n")
        };
        let end = format!("--{BOUNDARY}--\r\n");
        let whole = part("file", "\u{fffd}JFIF") + &part("name", "Ann") + &end;
        let many = part("file", &"x".repeat(300)).repeat(8) + &end;
        walk("form", &[whole.as_bytes(), many.as_bytes(), end.as_bytes()], 4_000, form);
    }

    #[test]
    fn a_seeded_walk_over_token_files_breaks_no_promise() {
        let seed = b"# panel\nhall recognize,people 0123456789abcdef0123456789abcdef\n";
        walk("tokens", &[seed], 4_000, |bytes| drop(Tokens::parse(&String::from_utf8_lossy(bytes))));
    }
}
