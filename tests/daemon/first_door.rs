//! The page that leads a newcomer to a first grant, as it stands: every command of `systemd/FIRST-DOOR.md` is run in its order, by a shell,
//! with an RTSP camera, a real mosquitto by the shipped files, the daemon, the controller and a desk.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::House;
use super::mosquitto::free_port;
use super::rtsp_server::{Plan, Server};

/// What the page has a reader type.
fn commands(page: &str) -> String {
    let mut blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let typed: String = blocks.by_ref().collect();
    assert!(typed.lines().count() > 60, "the page has lost its commands");
    typed
}

#[test]
fn the_first_door_opens_by_the_commands_of_its_page() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(checkout.join("systemd/FIRST-DOOR.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let photos: Vec<String> =
        (1..=4).map(|n| checkout.join(format!("data/demo/people/person-a/person-a_000{n}.jpg")).display().to_string()).collect();
    let camera = Server::start(&Plan::file(&checkout.join("data/demo/door.mp4")));
    // What the page leaves running ends with the shell.
    let script = format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; cat *.log >&2' EXIT\n{}", commands(&page));
    let program = Path::new(env!("CARGO_BIN_EXE_faceid")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
            .chain([Path::new("/usr/sbin").to_owned()]),
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(folder.path()).env("PATH", path.unwrap());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FACEID_")) {
        shell.env_remove(name);
    }
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"] {
        shell.env_remove(name);
    }
    if !House::names_onnx_runtime() && House::library().exists() {
        shell.env("ORT_DYLIB_PATH", House::library());
    }
    shell.env("CAMERA", camera.url()).env("PHOTOS", photos.join(" ")).env("EXAMPLES", checkout.join("data/config"));
    let began = Instant::now();
    let output = shell.env("PORT", free_port().to_string()).output().unwrap();
    let said = super::text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("outcome=granted") && said.contains("person=ada") && said.contains("door front: unlock"), "{said}");
    assert!(said.contains("verb=lockdown ok=true") && said.contains("verb=release ok=true"), "{said}");
    println!("from nothing to a first grant and a lock-down: {:.1} s of commands", began.elapsed().as_secs_f32());
}
