//! The local API: a bridge for scripts and panels on the device itself. Off unless `[http] listen` is set; on a loopback address or a Unix
//! socket only, so that nothing biometric crosses a network in the clear.
//!
//! The room knows requests, tokens and answers. What it asks of the daemon is [`Backend`]: the recogniser is the cameras' own, asked
//! between two frames and for a quarter of its time at most, so that requests never starve a door; pictures are decoded one at a time, by
//! a thread that everything else comes before, and what is held of them is bounded in bytes ([`Settings::max_upload_pixels`]).
//!
//! Connections are few and short, and whoever asks how the daemon is (`/healthz`, `/readyz`, `/metrics`) finds a place whatever others do.
//! A page in a browser on the device reads nothing. Scores are told to those who have a token; without one, where a scope is open, bands.
//!
//! Deliberately absent: TLS and any way to open a door. Decisions leave the device signed, over MQTT, and nowhere else.

mod answers;
mod auth;
mod desk;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
mod limits;
mod openapi;
mod origin;
mod peer;
mod people;
mod routes;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use auth::{Scope, Tokens};

use crate::gallery::{Admission, Allowed, GalleryError, Snapshot};
use crate::pipeline::StillFace;
use crate::system::secret::SecretError;
use crate::system::{Stop, clock, files, messages};
use crate::types::{Embedding, Person, PersonId, Picture};
use crate::vision::stack::PackThresholds;

/// The name of the tokens' file among the secrets.
pub const TOKENS: &str = "http.tokens";
/// The file in the state folder that remembers rates over a restart.
const LIMITS: &str = "http-limits.json";
/// How often the server looks for stop and beats.
const PATIENCE: Duration = Duration::from_millis(200);
/// A request that is not answered by then is given up; uploads over a loopback take milliseconds.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);
/// Threads that wait for the gallery, for a decoder and for the recogniser.
const BLOCKING_THREADS: usize = 3;

/// Where the API listens, and how much it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// A loopback address with its port (`127.0.0.1:8000`) or `unix:` and a path. Without it there is no API.
    pub listen: Option<Listen>,
    /// Scopes that a request without a token has: none, or `recognize` for scripts that know no token. Tokens are lines
    /// `NAME SCOPE[,SCOPE] TOKEN` of the secret `http.tokens`; scopes are recognize, people, admin, metrics.
    pub open_scopes: Vec<Scope>,
    /// The longest upload, in bytes (65536 to 26214400).
    pub max_upload_bytes: usize,
    /// The most pixels of an upload, told before it is decoded (65536 to 50331648). One is decoded at a time, within 3 bytes for each of
    /// these pixels: with 16 bits, transparency or progressive JPEG a picture may have fewer.
    pub max_upload_pixels: u64,
    /// Requests a minute and token, remembered over a restart (1 to 100000).
    pub requests_per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            open_scopes: Vec::new(),
            max_upload_bytes: 8 << 20,
            max_upload_pixels: 25_000_000,
            requests_per_minute: 600,
        }
    }
}

impl Settings {
    /// Values out of range, each with its key and the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let ranges = [
            ("max-upload-bytes", self.max_upload_bytes as u64, 1 << 16, 25 << 20),
            ("max-upload-pixels", self.max_upload_pixels, 1 << 16, 48 << 20),
            ("requests-per-minute", u64::from(self.requests_per_minute), 1, 100_000),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                findings.push((key.to_owned(), format!("{value} is out of range: use {low} to {high}")));
            }
        }
        if self.open_scopes.iter().any(|scope| *scope != Scope::Recognize) {
            findings.push(("open-scopes".to_owned(), "only `recognize` may be open: everything else needs a token".to_owned()));
        }
        findings
    }
}

/// A place that only this device can reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(format!("`{text}`: write an absolute path")) };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err(format!("`{text}` can be reached from other machines: use 127.0.0.1, [::1] or unix:/PATH")),
            Err(_) => Err(format!("`{text}` is no address: write 127.0.0.1:8000 or unix:/run/faceid/http.sock")),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> String {
        match listen {
            Listen::Loopback(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// Why the API does not run.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The place is taken or may not be used.
    #[error("the API cannot listen on {place}: {source}")]
    Listen {
        /// Where.
        place: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The tokens cannot be read.
    #[error("the API's tokens: {0}")]
    Secret(#[from] SecretError),
    /// A line of the tokens is none.
    #[error("the API's tokens, line {line}: {reason}")]
    Token {
        /// Counted from 1.
        line: usize,
        /// What is wrong; never the token.
        reason: &'static str,
    },
    /// The runtime could not be made, or the server ended.
    #[error("the API's server: {0}")]
    Io(#[from] std::io::Error),
}

/// Why the daemon gives no answer now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// Too many ask at once.
    #[error("the recogniser is busy: try again")]
    Busy,
    /// It did not answer in time.
    #[error("the recogniser did not answer in time: try again")]
    Late,
    /// The gallery is older than it was, and nobody has accepted that.
    #[error(
        "the gallery is not the newest and nobody is recognised by it until an operator accepts it: `faceid gallery verify` says more"
    )]
    Untrusted,
    /// A stage failed on this picture.
    #[error("the networks failed on this picture")]
    Failed,
}

/// What the API asks of the daemon. Calls may block for as long as a picture takes.
pub trait Backend: Send + Sync + 'static {
    /// Decodes an upload; what is wrong with it is the client's to read.
    fn decode(&self, bytes: &[u8]) -> Result<Picture, String>;
    /// Every face of a picture, the largest first, as the cameras' own recogniser sees it.
    fn look(&self, picture: Picture) -> Result<Vec<StillFace>, Unavailable>;
    /// Who is enrolled, as of now: for showing, and for nothing that anybody is let in by.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Who is enrolled, as of now, for recognising people by.
    fn trusted(&self) -> Result<Arc<Snapshot>, Unavailable>;
    /// The thresholds of the doors.
    fn thresholds(&self) -> PackThresholds;
    /// Whether the pack claims liveness.
    fn has_liveness(&self) -> bool;
    /// Why the daemon could not decide now; nothing when it could.
    fn not_ready(&self) -> Option<String>;
    /// Enrols a person, or gives an enrolled one more templates, by the rule of enrolment ([`crate::gallery::Gallery::admit`]); durable
    /// when it returns what became of each. `by` is whose request it is.
    fn admit(
        &self,
        person: Person,
        templates: Vec<Embedding>,
        allowed: Allowed,
        by: &str,
    ) -> Result<Option<Admission>, GalleryError>;
    /// Replaces what is kept of an enrolled person besides templates.
    fn set(&self, person: Person, by: &str) -> Result<(), GalleryError>;
    /// Removes a person; whether the disk is free of the templates as well.
    fn remove(&self, person: &PersonId, by: &str) -> Result<bool, GalleryError>;
    /// Begins to build the search index anew; false when that is under way already.
    fn rebuild(&self, by: &str) -> bool;
    /// The figures, in Prometheus' text form.
    fn metrics(&self) -> String;
}

/// Serves until told to stop. `state` is the folder that remembers rates.
pub fn run(
    settings: &Settings,
    tokens: Tokens,
    backend: Arc<dyn Backend>,
    state: &Path,
    stop: &Stop,
    beat: &dyn Fn(),
) -> Result<(), HttpError> {
    let Some(listen) = &settings.listen else { return Ok(()) };
    let limits = limits::Limits::open(state.join(LIMITS), settings.requests_per_minute, &tokens.names(), clock::now());
    let limits = Arc::new(limits);
    let app = routes::router(settings, tokens, backend, limits.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let place: String = listen.clone().into();
    let failed = |source| HttpError::Listen { place: place.clone(), source };
    let until_stopped = async {
        while !stop.is_asked() {
            tokio::time::sleep(PATIENCE).await;
            limits.save(clock::now());
        }
    };
    let beating = async {
        loop {
            beat();
            tokio::time::sleep(PATIENCE).await;
        }
    };
    let served = runtime.block_on(async {
        let serving = async {
            let (listener, place) = match listen {
                Listen::Loopback(address) => {
                    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
                    // Port 0 asks the system for a free one.
                    let place = listener.local_addr()?.to_string();
                    (server::Listener::Tcp(listener), place)
                }
                Listen::Unix(path) => (server::Listener::Unix(bind_unix(path).map_err(failed)?), place.clone()),
            };
            log::info!(MESSAGE_ID = messages::API_LISTENS, listen = place.as_str(); "the API listens");
            server::serve(listener, app, until_stopped).await;
            Ok(())
        };
        tokio::select! {
            served = serving => served,
            () = beating => Ok(()),
        }
    });
    // A client that holds its connection open must not hold up the stop.
    runtime.shutdown_timeout(PATIENCE);
    limits.save(clock::now());
    served
}

/// Binds a socket over one that an earlier run left behind.
fn bind_unix(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "a file that is no socket lies there")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    files::set_mode(path, 0o660)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_on_this_device_are_listened_on() {
        for text in ["0.0.0.0:8000", "192.168.1.4:8000", "[::]:8000", "localhost:8000", "127.0.0.1", "unix:relative", "", "unix:"] {
            assert!(Listen::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["127.0.0.1:8000", "[::1]:1", "unix:/run/faceid/http.sock"] {
            assert_eq!(String::from(Listen::try_from(text.to_owned()).unwrap()), text);
        }
    }

    #[test]
    fn nothing_but_recognition_may_be_open() {
        let settings = Settings { open_scopes: vec![Scope::Recognize, Scope::People], ..Settings::default() };
        assert_eq!(settings.findings()[0].0, "open-scopes");
        assert!(Settings { open_scopes: vec![Scope::Recognize], ..Settings::default() }.findings().is_empty());
        assert_eq!(Settings { max_upload_bytes: 1, requests_per_minute: 0, ..Settings::default() }.findings().len(), 2);
    }
}
