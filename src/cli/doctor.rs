//! `doctor`: one line a thing: what works, what does not, and the command that mends it.

mod machine;
mod match_rates;
mod sealing;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::context::Context;
use super::run::unheard_passage;
use super::{Places, Result, code, say, say_json};
use crate::access::Basis;
use crate::capture::{self, Source};
use crate::daemon::GRANT_KEY;
use crate::door::DOOR_KEY;
use crate::gallery::{Gallery, GalleryError};
use crate::inference::InferenceError;
use crate::inference::packs::{self, FileState};
use crate::publish::{Notice, STATE_KEY, Settings as MqttSettings, Subscriber, certificates};
use crate::system::clock;
use crate::system::secret::{self, SecretError};
use crate::types::Wall;
use crate::{config, http, inference};

/// Free space below which a journal or a gallery may not be written.
const LEAST_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// What a broker keeps comes within milliseconds after it has confirmed that it is asked.
const KEPT_WAIT: Duration = Duration::from_secs(2);
/// How long before its end a certificate is spoken of.
const SOON: Duration = Duration::from_secs(21 * 24 * 3600);
/// Where `systemd/seal-keys` keeps what is sealed to the machine.
const SEALED: &str = "/etc/faceid/sealed";
/// What is said of the broker's witness.
const MEMORY: &str = "broker's memory";

/// `faceid doctor`
#[derive(clap::Args)]
pub(super) struct Args {
    /// An array of {"check", "state", "says", "mend"}
    #[arg(long)]
    json: bool,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// The daemon runs, but not as well as it could.
    Weak,
    /// The daemon would not do its work.
    Broken,
}

struct Finding {
    check: String,
    state: State,
    says: String,
    mend: String,
}

/// Collects findings.
#[derive(Default)]
struct Chart(Vec<Finding>);

impl Chart {
    fn note(&mut self, check: impl Into<String>, state: State, says: impl ToString, mend: impl ToString) {
        self.0.push(Finding { check: check.into(), state, says: says.to_string(), mend: mend.to_string() });
    }
}

pub(super) fn doctor(places: &Places, args: &Args) -> Result {
    let mut chart = Chart::default();
    match Context::load(places) {
        Ok(context) => {
            chart.note("config", State::Works, "no findings", "");
            machine::modes(&config::path(places.config.as_deref()), &context.config, &mut chart);
            examine(&context, &mut chart);
        }
        Err(failure) => chart.note("config", State::Broken, failure.message, "faceid check"),
    }
    let is_broken = chart.0.iter().any(|finding| finding.state == State::Broken);
    if args.json {
        say_json(
            &chart.0.iter().map(|f| json!({"check": f.check, "state": word(f.state), "says": f.says, "mend": f.mend})).collect(),
        );
    } else {
        for Finding { check, state, says, mend } in &chart.0 {
            let mend = if mend.is_empty() { String::new() } else { format!(" -> {mend}") };
            say(format!("{:<6} {check}: {says}{mend}", word(*state)));
        }
    }
    Ok(if is_broken { code::NO } else { code::YES })
}

fn word(state: State) -> &'static str {
    match state {
        State::Works => "ok",
        State::Weak => "weak",
        State::Broken => "BROKEN",
    }
}

fn examine(context: &Context, chart: &mut Chart) {
    cameras(context, chart);
    networks(context, chart);
    keys(context, chart);
    passages(context, chart);
    gallery(context, chart);
    state_folder(&context.config.state_dir, chart);
    blocks(&context.config.state_dir, chart);
    match_rates::examine(context, chart);
    machine::examine(&context.config, chart);
    broker(context, chart);
    api(context, chart);
}

fn cameras(context: &Context, chart: &mut Chart) {
    let cameras = &context.config.cameras;
    if cameras.is_empty() {
        chart.note(
            "cameras",
            State::Broken,
            "the config names none",
            "add a [[cameras]] section: faceid check --print-default shows one",
        );
    }
    for (index, camera) in cameras.iter().enumerate() {
        let check = format!("camera {}", camera.id);
        let description = capture::describe(camera);
        let device = match &camera.source {
            Source::V4l2(source) => std::fs::File::open(&source.device).err().map(|error| (&source.device, error)),
            _ => None,
        };
        if let Some((device, error)) = device {
            let mend = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "usermod -aG video faceid, or run doctor as root",
                _ => "ls /dev/video*; in the service a drop-in opens it: faceid.service.d/v4l2.conf",
            };
            chart.note(check, State::Broken, format!("{}: {error}", device.display()), mend);
        } else if description.missing.is_empty() && (camera.source.is_anybodys() || camera.source.carries_password()) {
            let warnings = context.config.warnings();
            let key = format!("cameras.{index}.");
            let told: Vec<&str> =
                warnings.iter().filter(|(at, _)| at.starts_with(&key)).map(|(_, warning)| warning.as_str()).collect();
            chart.note(check, State::Weak, format!("{description}; {}", told.join("; ")), "correct its source in the config");
        } else if description.missing.is_empty() {
            chart.note(check, State::Works, description, "");
        } else {
            chart.note(check, State::Broken, &description, format!("apt-get install {}", description.missing.join(" ")));
        }
    }
}

fn networks(context: &Context, chart: &mut Chart) {
    let report = inference::probe(&context.config.inference);
    let running = format!("{} {}", report.provider.as_deref().unwrap_or("nothing"), report.version);
    match &report.reason {
        None => chart.note("backend", State::Works, running, ""),
        Some(why) if report.provider.is_none() => chart.note("backend", State::Broken, why, "make deps"),
        Some(why) => chart.note(
            "backend",
            State::Weak,
            format!("{running}, because {why}"),
            "make deps, or set inference.library to libonnxruntime.so",
        ),
    }
    let pack = &context.config.models.pack;
    for (_, warning) in context.config.warnings().iter().filter(|(key, _)| key == "models.pack") {
        chart.note("model pack", State::Weak, warning, "faceid models fetch standard");
    }
    let fetch = format!("faceid models fetch {pack}");
    let manifest = match context.manifest() {
        Ok(manifest) => manifest,
        Err(failure) => return chart.note("models", State::Broken, failure.message, "correct the manifest"),
    };
    let precision = context.config.inference.precision;
    let ids: Vec<_> = match manifest.pack_at(pack, precision) {
        Ok(pack) => pack.models().cloned().collect(),
        Err(error @ InferenceError::NotQuantized { .. }) => {
            return chart.note("models", State::Broken, error, "set inference.precision = \"fp32\"");
        }
        Err(error) => return chart.note("models", State::Broken, error, "name a pack of `faceid models list` in models.pack"),
    };
    match packs::verify(&manifest, &ids, &context.models_dir()) {
        Ok(rows) => {
            for row in rows {
                let check = format!("model {}", row.id);
                match row.file_state {
                    FileState::Present => chart.note(check, State::Works, "as pinned", ""),
                    FileState::Missing => chart.note(check, State::Broken, format!("{} is not there", row.file), &fetch),
                    FileState::Unpinned => {
                        chart.note(check, State::Broken, "the manifest pins no hash", "pin it in models.manifest")
                    }
                    FileState::Wrong { reason } => chart.note(check, State::Broken, reason, &fetch),
                }
            }
        }
        Err(error) => chart.note("models", State::Broken, error, "correct the manifest"),
    }
}

fn keys(context: &Context, chart: &mut Chart) {
    for name in [context.config.gallery.key.as_str(), GRANT_KEY, STATE_KEY] {
        let folder = &context.config.secrets_dir;
        let (path, is_credential) = secret::locate(name, folder);
        match secret::read(name, folder) {
            Ok(_) if is_credential => {
                let says = format!("a systemd credential, {}", sealing::of(Path::new(SEALED), name));
                chart.note(format!("key {name}"), State::Works, says, "")
            }
            Ok(_) if Path::new(SEALED).join(name).exists() => {
                let says = format!("sealed to this machine, and a plain copy lies at {}", path.display());
                chart.note(format!("key {name}"), State::Weak, says, format!("rm {}", path.display()))
            }
            Ok(_) => {
                chart.note(format!("key {name}"), State::Works, format!("a file only its owner may read, {}", path.display()), "")
            }
            // What is sealed only the service itself can read.
            Err(SecretError::Unreadable { .. }) if Path::new(SEALED).join(name).exists() => {
                let says = format!("sealed by systemd-creds, {}", sealing::of(Path::new(SEALED), name));
                chart.note(format!("key {name}"), State::Works, says, "")
            }
            Err(SecretError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                chart.note(format!("key {name}"), State::Broken, "may not be read by you", "sudo faceid doctor")
            }
            Err(error) => chart.note(format!("key {name}"), State::Broken, error, "faceid keygen"),
        }
    }
}

/// Whether anti-passback hears of passages, at the device and at the door.
fn passages(context: &Context, chart: &mut Chart) {
    let config = &context.config;
    for (area, door) in config.unheard_passages() {
        let mend = format!("faceid keygen --door, at the controller; name what it prints in controller-keys of door `{door}`");
        chart.note(format!("passages of {door}"), State::Weak, unheard_passage(area, door), mend);
    }
    if config.controller.door.is_some() && config.controller.gpio.sensor_line.is_some() {
        let check = format!("key {DOOR_KEY}");
        match secret::read_if_there(DOOR_KEY, &config.secrets_dir) {
            Ok(Some(_)) => chart.note(check, State::Works, "passages are signed", ""),
            Ok(None) => chart.note(check, State::Weak, "passages are not signed: the device refuses them", "faceid keygen --door"),
            Err(error) => chart.note(check, State::Broken, error, "faceid keygen --door"),
        }
    }
}

/// What the threshold of a match is worth with everybody enrolled who is.
fn match_threshold(context: &Context, people: usize, chart: &mut Chart) {
    // A pack that cannot be had is told elsewhere.
    let Ok(site) = context.site_unopened() else { return };
    let (score, basis) = site.at(people);
    let text = format!("{:.3}: {}", score.value(), site.worth(people));
    match basis {
        Basis::Target => chart.note("match threshold", State::Works, text, ""),
        Basis::Config | Basis::Pack => {
            chart.note("match threshold", State::Weak, text, "faceid calibrate, on pictures of your own cameras")
        }
        Basis::Beyond => {
            chart.note("match threshold", State::Weak, text, "a second factor at the door (`policy`), or another pack")
        }
    }
}

fn gallery(context: &Context, chart: &mut Chart) {
    if let Some(why) = super::editor::why_read_only(&context.config.state_dir) {
        chart.note("gallery's changes", State::Broken, why, "faceid gallery verify, which tells more");
    }
    let Ok(key) = context.sealing_key() else { return };
    match Gallery::verify(&context.config.gallery, &key) {
        Ok(report) if report.rollback.is_some() => {
            let text = report.rollback.map(|rollback| rollback.to_string()).unwrap_or_default();
            chart.note("gallery", State::Broken, text, "faceid gallery verify --accept-rollback, once it is understood")
        }
        Ok(report) if report.stats.people == 0 => {
            chart.note("gallery", State::Weak, "nobody is enrolled", "faceid enroll PERSON IMAGE...")
        }
        Ok(report) => {
            let people = report.stats.people;
            chart.note("gallery", State::Works, format!("{people} people, {} templates", report.stats.templates), "");
            match_threshold(context, people, chart);
        }
        Err(GalleryError::Missing { .. }) => {
            chart.note("gallery", State::Weak, "nobody is enrolled", "faceid enroll PERSON IMAGE...")
        }
        Err(error) => chart.note("gallery", State::Broken, error, "faceid gallery verify"),
    }
}

/// Doors that turn people away because attempts failed there; only the running daemon knows.
fn blocks(state: &Path, chart: &mut Chart) {
    for (door, until, why) in super::editor::blocked_doors(state) {
        let mend = format!("wait, or faceid command release --args '{{\"doors\":[\"{door}\"]}}'");
        let says = format!("blocked until {} ({why}): only clear matches pass", until.rfc3339());
        chart.note(format!("door {door}"), State::Weak, says, mend);
    }
    for (door, held_until) in super::editor::unusual_doors(state) {
        let (verb, more, says) = match held_until {
            Some(until) => ("hold-open", ",\"seconds\":0", format!("an operator holds it open until {}", until.rfc3339())),
            None => ("release", "", "locked down by a command: it opens for nobody".to_owned()),
        };
        let mend = format!("faceid command {verb} --args '{{\"doors\":[\"{door}\"]{more}}}' ends it");
        chart.note(format!("door {door}"), State::Weak, says, mend);
    }
}

fn state_folder(folder: &Path, chart: &mut Chart) {
    use std::os::unix::fs::MetadataExt;
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) => {
            let mend = format!("install -d -m 0700 {}", folder.display());
            chart.note("state folder", State::Weak, format!("{}: {error}", folder.display()), mend);
            // Where it will be made.
            return folder.ancestors().find(|folder| folder.exists()).map_or((), |folder| disk(folder, chart));
        }
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        chart.note(
            "state folder",
            State::Weak,
            format!("{} has mode {mode:03o}", folder.display()),
            format!("chmod 700 {}", folder.display()),
        );
    }
    disk(folder, chart);
}

fn disk(folder: &Path, chart: &mut Chart) {
    match rustix::fs::statvfs(folder) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let state = if free < LEAST_FREE_BYTES { State::Broken } else { State::Works };
            chart.note(
                "disk",
                state,
                format!("{} MB free under {}", free / 1_000_000, folder.display()),
                if state == State::Broken { "free some space" } else { "" },
            );
        }
        Err(error) => chart.note("disk", State::Weak, error, ""),
    }
}

/// Whether the broker takes us as the daemon would be taken, and how long the certificates between us hold.
fn broker(context: &Context, chart: &mut Chart) {
    let (mqtt, secrets) = (&context.config.publish, &context.config.secrets_dir);
    let place = format!("{}:{}", mqtt.host, mqtt.port);
    let mend = "start the broker or correct [publish]; decisions wait until it is back";
    let topic = format!("{}/status", mqtt.topic_root(&context.config.device));
    let wait = Duration::from_secs(u64::from(mqtt.connect_timeout_s.clamp(1, 10)));
    let heard = Subscriber::beside(mqtt, secrets, &context.config.device, &topic).map(|subscriber| subscriber.next(wait));
    let is_taken = matches!(heard, Ok(Some(Notice::Subscribed)));
    match heard {
        Ok(Some(Notice::Subscribed)) => chart.note("broker", State::Works, format!("{place} takes us"), ""),
        Ok(Some(Notice::Problem(problem))) => chart.note("broker", State::Weak, problem, mend),
        Ok(Some(Notice::Refused(problem))) => chart.note("broker", State::Weak, problem, "correct the broker's access rules"),
        Ok(_) => chart.note("broker", State::Weak, format!("{place} does not answer"), mend),
        Err(problem) => chart.note("broker", State::Broken, problem, "correct [publish] and its secrets"),
    }
    match super::editor::why_unheard(&context.config.state_dir) {
        None if is_taken => kept_birth(context, wait, chart),
        None => {}
        Some(None) => chart.note(MEMORY, State::Works, "it has told what it keeps of this device", ""),
        Some(Some(why)) => {
            let mend = format!("{}; see TROUBLESHOOTING.md, `the broker is no witness`", allow_birth(mqtt));
            chart.note(MEMORY, State::Broken, why, mend);
        }
    }
    if !mqtt.tls.enabled {
        let is_here = mqtt.host == "localhost" || mqtt.host.starts_with("127.") || mqtt.host == "::1";
        if !is_here {
            let says = "not encrypted: everybody on the way reads who passed, and when";
            chart.note("broker's certificate", State::Weak, says, "set [publish.tls] enabled = true");
        }
        return;
    }
    let both = [
        ("broker's certificate", certificates::of_broker(mqtt, secrets)),
        ("this device's certificate", certificates::of_device(mqtt)),
    ];
    for (check, end) in both {
        match end {
            Ok(None) => {}
            Ok(Some(end)) => expiry(check, end, chart),
            Err(problem) => chart.note(check, State::Weak, problem, "correct [publish.tls]"),
        }
    }
}

/// What no running daemon tells: whether the broker brings what it keeps of this device. By rules of an earlier version it does not.
fn kept_birth(context: &Context, wait: Duration, chart: &mut Chart) {
    let (mqtt, secrets, device) = (&context.config.publish, &context.config.secrets_dir, &context.config.device);
    let topic = format!("{}/birth", mqtt.topic_root(device));
    let Ok(subscriber) = Subscriber::beside(mqtt, secrets, device, &topic) else { return };
    let begin = clock::monotonic();
    let mut most = wait;
    while let Some(left) = most.checked_sub(clock::monotonic().since(begin)) {
        match subscriber.next(left) {
            Some(Notice::Message(_)) => return chart.note(MEMORY, State::Works, "it keeps what this device told it last", ""),
            Some(Notice::Refused(problem)) => return chart.note(MEMORY, State::Broken, problem, allow_birth(mqtt)),
            Some(Notice::Subscribed) => most = clock::monotonic().since(begin) + KEPT_WAIT,
            Some(Notice::Problem(_) | Notice::Taken(_)) | None => {}
        }
    }
    // Only a device that has run has told anything; who may not look into its state folder cannot know.
    if context.config.state_dir.join("access.sealed").symlink_metadata().is_ok() {
        let says = format!("it brings nothing of {topic}: it keeps nothing of what this device told it, or lets it not be read");
        chart.note(MEMORY, State::Weak, says, allow_birth(mqtt));
    }
}

/// What lets the device read its own word again.
fn allow_birth(mqtt: &MqttSettings) -> String {
    let base = &mqtt.base_topic;
    format!(
        "allow the device's user to read it: `pattern read {base}/%u/birth` in mosquitto's rules, which rules of an earlier version lack; then systemctl reload mosquitto"
    )
}

fn expiry(check: &str, end: Wall, chart: &mut Chart) {
    let (now, says) = (clock::wall(), format!("holds until {}", end.rfc3339()));
    let state = match () {
        () if end <= now => State::Broken,
        () if end <= now.plus(SOON) => State::Weak,
        () => State::Works,
    };
    chart.note(check, state, says, if state == State::Works { "" } else { "renew it" });
}

/// The local API, where there is one.
fn api(context: &Context, chart: &mut Chart) {
    let settings = &context.config.http;
    let Some(listen) = &settings.listen else { return };
    let place = String::from(listen.clone());
    match http::Tokens::read(&context.config.secrets_dir) {
        Err(error) => chart.note("api", State::Weak, error, "correct the secret http.tokens; the daemon runs without the API"),
        Ok(tokens) if tokens.is_empty() && settings.open_scopes.is_empty() => {
            let mend = "write a line `NAME SCOPE TOKEN` into the secret http.tokens";
            chart.note("api", State::Weak, format!("{place}, and nobody has a token"), mend);
        }
        Ok(_) => chart.note("api", State::Works, place, ""),
    }
}
