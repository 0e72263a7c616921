//! The real binary: RTSP cameras in, a real mosquitto and a real `mosquitto_sub` out, with the real networks on both backends; then the
//! ways in which it must not start, and the verbs on bad input. What needs the shared clips and networks says loudly when it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as its tests do")]

mod attacks;
mod both_sides;
#[cfg(feature = "demo-broker")]
mod demo;
mod enrolment;
mod evaluate;
mod evidence;
mod first_door;
mod http;
#[path = "../support/hurdle.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod hurdle;
mod killed;
mod lent;
mod memory;
#[path = "../support/mosquitto.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod mosquitto;
mod plaintext;
mod presence;
#[path = "../support/rtsp_server.rs"]
mod rtsp_server;
mod service;
mod show_it;
mod siege;
mod store;
mod throttle;
mod verbs;
mod witness;
mod writer;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Where the shared clips, photos and networks lie, or `None` after saying so.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("FACEID_SHARED").map_or(beside, PathBuf::from);
    let found = folder.join("models").is_dir() && folder.join("clips").is_dir() && folder.join("faces").is_dir();
    if !found {
        println!("SKIPPED: no shared clips and networks in {}; set FACEID_SHARED", folder.display());
        assert_ne!(std::env::var("FACEID_REQUIRE_SHARED").as_deref(), Ok("1"), "FACEID_REQUIRE_SHARED is set");
    }
    found.then_some(folder)
}

/// A place of its own for one installation: state, secrets, models.
struct House {
    folder: TempDir,
}

impl House {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// One with keys and the files of `pack`.
    fn furnished(shared: &Path, pack: &str) -> Self {
        let house = Self::new();
        house.succeed(&["keygen"]);
        house.succeed(&["models", "fetch", pack, "--from", shared.join("models").to_str().unwrap()]);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary, at home in this house and nowhere else.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faceid"));
        command
            .env("FACEID_STATE_DIR", self.path("state"))
            .env("FACEID_SECRETS_DIR", self.path("secrets"))
            .env("FACEID_MODELS_DIR", self.path("models"))
            .env("FACEID_OPERATOR_KEY", self.path("operator.key"))
            .env_remove("FACEID_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("JOURNAL_STREAM")
            .env_remove("CREDENTIALS_DIRECTORY");
        if !Self::names_onnx_runtime() && Self::library().exists() {
            command.env("ORT_DYLIB_PATH", Self::library());
        }
        command
    }

    /// Where `make deps` puts ONNX Runtime's library.
    fn library() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/onnxruntime/libonnxruntime.so")
    }

    fn names_onnx_runtime() -> bool {
        std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty())
    }

    fn has_onnx_runtime() -> bool {
        Self::names_onnx_runtime() || Self::library().exists()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a verb that must end with `code`, without a panic, and gives everything it said.
    fn fail(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        said
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
