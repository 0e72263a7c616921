//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::answers::Problem;
use super::auth::{Scope, Tokens};
use super::desk::Desk;
use super::form::{Form, MOST_PICTURES};
use super::limits::{self, ANYBODY, Limits};
use super::peer::{self, Peer};
use super::routes::{self, SentForm};
use super::{Backend, Settings, Unavailable};
use crate::gallery::{self, Admission, Allowed, Gallery, GalleryError, Snapshot};
use crate::pipeline::StillFace;
use crate::system::clock;
use crate::types::{Embedding, PadScore, Person, PersonId, Picture, Score};
use crate::vision::stack::PackThresholds;

/// What stands between the parts of a form that is fed.
const BOUNDARY: &str = "X-FACEID-FUZZ";
/// The most bytes of pictures that are taken.
const MAX_BYTES: usize = 2_000;

/// The token that may do everything in a request that is fed.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// A daemon that recognises nobody.
struct Blind(Gallery);

impl Backend for Blind {
    fn decode(&self, _: &[u8]) -> Result<Picture, String> {
        Err("is no picture".to_owned())
    }

    fn look(&self, _: Picture) -> Result<Vec<StillFace>, Unavailable> {
        Err(Unavailable::Failed)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot()
    }

    fn trusted(&self) -> Result<Arc<Snapshot>, Unavailable> {
        Ok(self.0.snapshot())
    }

    fn thresholds(&self) -> PackThresholds {
        PackThresholds { matching: Score::saturating(0.4), margin: 0.0, liveness: PadScore::saturating(0.5) }
    }

    fn has_liveness(&self) -> bool {
        true
    }

    fn not_ready(&self) -> Option<String> {
        None
    }

    fn admit(&self, _: Person, _: Vec<Embedding>, _: Allowed, _: &str) -> Result<Option<Admission>, GalleryError> {
        Ok(None)
    }

    fn set(&self, person: Person, _: &str) -> Result<(), GalleryError> {
        self.0.set(person)
    }

    fn remove(&self, person: &PersonId, _: &str) -> Result<bool, GalleryError> {
        self.0.remove(person).map(|()| true)
    }

    fn rebuild(&self, _: &str) -> bool {
        true
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

/// A request: a line `METHOD TARGET`, lines `NAME: VALUE`, an empty one, and the body. Nobody is answered without leave, whatever is
/// wrong is the sender's fault, and a page of another origin and a name of another device get nothing.
pub fn request(bytes: &[u8]) {
    let Some(request) = asked(bytes) else { return };
    let is_evil = |name: &str| request.headers().get_all(name).iter().any(|value| value.as_bytes().ends_with(b"evil.example"));
    let is_foreign = request.headers().get("host").is_none() || is_evil("host") || is_evil("origin");
    let is_known = request.headers().get("authorization").is_some_and(|value| value.as_bytes().ends_with(TOKEN.as_bytes()));
    let path = request.uri().path().to_owned();
    let is_open = ["/healthz", "/readyz", "/openapi.json", "/recognize_face", "/liveness"].contains(&path.as_str());
    let tokens = Tokens::parse(&format!("all recognize,people,admin,metrics {TOKEN}")).expect("a sound line");
    let settings = Settings { open_scopes: vec![Scope::Recognize], ..Settings::default() };
    let limits = Limits::open("/nowhere/limits.json".into(), 600, &tokens.names(), clock::now());
    let router = routes::router(&settings, tokens, Arc::new(Blind(gallery::fuzzing::peopled().0)), Arc::new(limits));
    let status = block_on(TowerToHyperService::new(router).call(request)).expect("it does not fail").status();
    let is_ours = status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE;
    assert!(!is_ours, "{status} at {path}");
    assert!(status.is_client_error() || !is_foreign, "{status} at {path} to a page or for another device");
    assert!(status.is_client_error() || is_open || is_known, "{status} at {path} without leave");
}

fn asked(bytes: &[u8]) -> Option<Request> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = (&bytes[..end], bytes.get(end + 2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.next()?;
    let at = line.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&line[..at]).ok()?;
    let uri = Uri::try_from(&line[at + 1..]).ok()?;
    let mut request = Request::new(Body::from(body.to_vec()));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    let (remote, local) = ("127.0.0.1:50000".parse().ok()?, "127.0.0.1:8000".parse().ok()?);
    request.extensions_mut().insert(Peer::tcp(remote, local));
    Some(request)
}

/// The file of remembered rates.
pub fn rates(bytes: &[u8]) {
    limits::judge(bytes);
}

/// The kernel's table of connections.
pub fn connections(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (remote, local) in [("127.0.0.1:50000", "127.0.0.1:8000"), ("[::1]:50000", "[::1]:8000")] {
        let _ = peer::user_in(&text, remote.parse().expect("an address"), local.parse().expect("an address"));
    }
}

/// The body of an upload: bounded in pictures and bytes whatever comes, and what is refused is the sender's fault and never ours.
pub fn form(body: &[u8]) {
    block_on(async {
        let desk = Desk::new(MAX_BYTES);
        let intake = || desk.begin(ANYBODY).unwrap_or_else(|_| panic!("nobody else is there"));
        match Form::read(sent(body).await, MAX_BYTES, &mut intake()).await {
            Ok(form) => {
                assert!(form.pictures.len() <= MOST_PICTURES);
                assert!(form.pictures.iter().map(Vec::len).sum::<usize>() <= MAX_BYTES);
                let _ = (form.word("name").is_ok(), form.expect_only(&["name", "group"]).is_ok());
            }
            Err(problem) => blames_the_sender(problem),
        }
        match Form::picture(sent(body).await, MAX_BYTES, &mut intake()).await {
            Ok(picture) => assert!(picture.len() <= MAX_BYTES),
            Err(problem) => blames_the_sender(problem),
        }
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
    use crate::system::walk::walk;

    /// What was found and must stay mended.
    #[test]
    fn requests_that_are_fed_reach_every_kind_of_answer() {
        let head = format!("Host: localhost\nAuthorization: Bearer {TOKEN}");
        for request in [
            format!("PATCH /people/p0 \n{head}\n\n{{\"name\": null}}"),
            "GET /readyz\nHost: localhost\n".to_owned(),
            "GET /readyz\nHost: evil.example\n".to_owned(),
            "POST /liveness\nHost: localhost\nOrigin: http://evil.example\n".to_owned(),
            "GET /people\nHost: localhost\nAuthorization: Bearer wrong\n".to_owned(),
        ] {
            super::request(request.as_bytes());
        }
        assert!(asked(format!("PATCH /people/p0\n{head}\n\n{{}}").as_bytes()).is_some(), "nothing is fed");
    }

    #[test]
    fn a_seeded_walk_over_requests_breaks_no_promise() {
        let head = format!("Host: localhost\nAuthorization: Bearer {TOKEN}");
        let seeds = [
            format!("PATCH /people/p0\n{head}\n\n{{\"name\": \"Ann\", \"groups\": [\"staff\"], \"expires_at\": \"2027-01-31T00:00:00Z\"}}"),
            format!("GET /people?after=p0&limit=2\n{head}\nOrigin: http://localhost:8000\n"),
            "GET /readyz\nHost: 127.0.0.1:8000\nSec-Fetch-Site: none\n".to_owned(),
            "POST /recognize_face?threshold=0.5\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\n\n--b\r\n             Content-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n"
                .to_owned(),
            format!("DELETE /people/p1\n{head}\n"),
            "POST /liveness\nHost: localhost\nOrigin: http://evil.example\n".to_owned(),
            "GET http://evil.example/healthz\nHost: evil.example\n".to_owned(),
        ];
        walk("request", &seeds.each_ref().map(|seed| seed.as_bytes()), 1_500, request);
    }

    #[test]
    fn a_seeded_walk_over_remembered_rates_breaks_no_promise() {
        let seed = b"\x1d{\"panel\":{\"left\":0,\"at_ms\":1800000000000},\"-\":{\"left\":1,\"at_ms\":-9},\"? 1000\":{\"left\":0,\"at_ms\":1700000000000}}";
        walk("rates", &[seed], 4_000, rates);
    }

    #[test]
    fn a_seeded_walk_over_tables_of_connections_breaks_no_promise() {
        let seed = b"  sl\n 1: 0100007F:C350 0100007F:1F40 01 0:0 0:0 0 1000 0 99 1\n";
        walk("connections", &[seed], 4_000, connections);
    }

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
