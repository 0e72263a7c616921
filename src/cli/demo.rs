//! `demo`: the whole main job with nothing else installed. The bundled clip goes through GStreamer as a camera would, the pack's networks
//! judge it, a scratch sealed gallery knows the enrolled demo people, and every decision comes back from an embedded broker over MQTT.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::annotate::{self, Ink};
use super::bench::Scratch;
use super::context::Context;
use super::{Failure, Places, Result, code, import, say, watch};
use crate::access::DoorSettings;
use crate::capture::{CameraEvent, CameraState};
use crate::config::Config;
use crate::daemon::{self, Service, Watchers};
use crate::gallery::Allowed;
use crate::pipeline::Seen;
use crate::publish::{Notice, Subscriber, broker};
use crate::system::notify::Notifier;
use crate::system::{logging, process, stop};
use crate::types::{BoundingBox, CameraId, Decision, DeviceId, DoorId, Frame, TrackId};

/// How much a track's box must overlap the truth's to be that face.
const SAME_FACE: f32 = 0.3;
/// How long the embedded broker may take to answer.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last decisions may take after the clip has ended.
const DRAIN: Duration = Duration::from_secs(3);

/// `faceid demo`
#[derive(clap::Args)]
pub(super) struct Args {
    /// A folder with `people/` and a clip with its truth beside it [default: the bundled one]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which clip of that folder
    #[arg(long, default_value = "door.mp4")]
    clip: String,
    /// Go on looping after the summary's worth, so that dashboards can subscribe; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Write a frame of every decision, with boxes and names, into this folder
    #[arg(long, value_name = "DIR")]
    snapshot: Option<PathBuf>,
    /// Show the daemon's log too
    #[arg(long)]
    verbose: bool,
}

/// The truth beside a clip: see data/demo/README.md.
#[derive(Debug, Clone, Deserialize)]
struct Truth {
    enrolled: Vec<String>,
    visits: Vec<Visit>,
    frames: Vec<Vec<TrueFace>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Visit {
    person: String,
    kind: String,
    first_frame: u64,
    last_frame: u64,
    expected: String,
}

#[derive(Debug, Clone, Deserialize)]
struct TrueFace {
    person: String,
    kind: String,
    #[serde(rename = "box")]
    corners: [f32; 4],
}

impl TrueFace {
    fn bounding_box(&self) -> BoundingBox {
        let [x, y, right, bottom] = self.corners;
        BoundingBox { x, y, width: right - x, height: bottom - y }
    }
}

/// What frames told about tracks, and the pictures to draw decisions on.
#[derive(Default)]
struct Watched {
    /// For each track, which true faces it lay on, and how often.
    truth: HashMap<TrackId, BTreeMap<(String, String), u32>>,
    /// The first frame of each track.
    first_frame: HashMap<TrackId, u64>,
    last: Option<(Frame, Vec<(TrackId, crate::types::Detection)>)>,
    decided: Vec<Decision>,
    ended: bool,
    faults: Vec<String>,
}

pub(super) fn demo(places: &Places, args: &Args) -> Result {
    let began = Instant::now();
    let data = demo_folder(args.data.as_deref())?;
    let clip = data.join(&args.clip);
    if !clip.is_file() {
        return Err(Failure::unavailable(format!("{}: no such clip", clip.display())));
    }
    let truth = read_truth(&clip.with_extension("json"))?;
    let scratch = Scratch::new()?;
    let (broker_handle, broker_stop) = stop::pair();
    let port = broker::start(0, &broker_stop).map_err(Failure::unavailable)?;
    let config = scratch_config(places, &scratch, &clip, args.keep, port)?;
    if args.verbose {
        logging::init(&config.log).map_err(Failure::unavailable)?;
    }
    say(format!("FaceID+ demo: {} as camera `entrance`, pack `{}`, broker on 127.0.0.1:{port}", args.clip, config.models.pack));
    let enrolled = enroll(&config, &data, truth.as_ref())?;
    say(format!("enrolled: {enrolled}"));

    let watched = Arc::new(Mutex::new(Watched::default()));
    let watchers = watchers(&watched, truth.clone(), args.snapshot.clone())?;
    let filter = format!("{}/#", config.publish.topic_root(&config.device));
    let subscriber = Subscriber::start(&config.publish, &config.secrets_dir, &filter).map_err(Failure::unavailable)?;
    await_subscription(&subscriber)?;

    let (handle, ear) = stop::pair();
    let signals = daemon::signals::watch(handle.clone(), || {}).map_err(Failure::unavailable)?;
    let started_cpu = process::cpu_time();
    let service = Service::start(&config, &watchers, (handle.clone(), ear.clone()))
        .map_err(|error| Failure::new(error.exit_code(), error))?;
    say(format!("networks: {}", service.provider()));
    if !service.has_liveness() {
        say("this pack claims NO LIVENESS: a photo would open the door; the demo decides without it");
    }
    let started = Instant::now();
    let mut lines = Vec::new();
    let mut ended_at = None;
    while !ear.is_asked() {
        match subscriber.next(Duration::from_millis(200)) {
            Some(Notice::Message(message)) if message.topic.ends_with("/decision") => {
                let event: Value = serde_json::from_slice(&message.payload).map_err(Failure::data)?;
                say(watch::decision_line(&event));
                lines.push(event);
            }
            _ => {}
        }
        let ended = watched.lock().unwrap_or_else(PoisonError::into_inner).ended;
        if ended && !args.keep {
            let decided = watched.lock().unwrap_or_else(PoisonError::into_inner).decided.len();
            let at = *ended_at.get_or_insert_with(Instant::now);
            if (lines.len() >= decided && at.elapsed() > Duration::from_millis(600)) || at.elapsed() > DRAIN {
                break;
            }
        }
    }
    let cpu = process::cpu_time().saturating_sub(started_cpu);
    let frames = service.counts().frames.get();
    let grants = service.counts().grant_time.summary();
    let refusals = service.counts().refusal_time.summary();
    service.stop(&Notifier::silent());
    broker_handle.stop();
    drop(signals);
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    for fault in &watched.faults {
        super::complain(fault);
    }
    say("");
    say(format!(
        "{frames} frames in {:.1} s, {:.1} frames per CPU-second, from first usable face to a grant p50 {} ms, to a refusal {} ms, {} decisions over MQTT, {:.1} s in all",
        started.elapsed().as_secs_f64(),
        frames as f64 / cpu.as_secs_f64().max(1e-9),
        grants.p50_us / 1000,
        refusals.p50_us / 1000,
        lines.len(),
        began.elapsed().as_secs_f64(),
    ));
    if frames == 0 {
        return Err(Failure::unavailable("the clip gave no frame"));
    }
    let Some(truth) = truth.filter(|_| !args.keep) else { return Ok(code::YES) };
    Ok(u8::from(!compare(&truth, &watched)))
}

/// Where the demo's people and clips lie: beside the sources, beside the binary's project, or where the package puts them.
fn demo_folder(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = asked {
        return Ok(folder.to_owned());
    }
    let mut places = vec![PathBuf::from("data/demo"), PathBuf::from("/usr/share/faceid/demo")];
    if let Ok(binary) = std::env::current_exe() {
        places.extend(binary.ancestors().skip(1).take(4).map(|folder| folder.join("data/demo")));
    }
    let found = places.into_iter().find(|folder| folder.join("people").is_dir());
    found.ok_or_else(|| {
        Failure::unavailable("the demo's people and clips are not here: run it in the project's folder or name --data DIR")
    })
}

fn read_truth(path: &Path) -> Result<Option<Truth>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(|error| Failure::data(format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| Failure::data(format!("{}: {error}", path.display())))
}

/// A config that lives and dies with the demo.
fn scratch_config(places: &Places, scratch: &Scratch, clip: &Path, keep: bool, port: u16) -> Result<Config> {
    let bug = |error: &dyn std::fmt::Display| Failure::new(code::BUG, error);
    let context = Context::load(places)?;
    let ready = context.ready_pack(places.pack.as_deref())?;
    let mut config = context.config;
    config.models.pack = ready;
    config.access.accept_demo_pack = true;
    config.state_dir = scratch.path().join("state");
    config.gallery.dir = config.state_dir.join("gallery");
    config.secrets_dir = scratch.path().join("secrets");
    super::run::make_private_folder(&config.secrets_dir)?;
    super::run::make_keys(&config, false)?;
    config.device = DeviceId::new("demo").map_err(|e| bug(&e))?;
    let id = CameraId::new("entrance").map_err(|e| bug(&e))?;
    config.doors = vec![DoorSettings::new(DoorId::new("front").map_err(|e| bug(&e))?, vec![id.clone()])];
    config.cameras = vec![super::shots::file_camera(id, clip, keep, true)];
    config.publish = crate::publish::Settings { host: "127.0.0.1".into(), port, ..crate::publish::Settings::default() };
    Ok(config)
}

/// Waits until the broker has confirmed the subscription: then no decision is missed.
fn await_subscription(subscriber: &Subscriber) -> Result<()> {
    let deadline = Instant::now() + CONNECT;
    while Instant::now() < deadline {
        if let Some(Notice::Subscribed) = subscriber.next(Duration::from_millis(200)) {
            return Ok(());
        }
    }
    Err(Failure::unavailable("the embedded broker does not answer"))
}

/// Enrols who the truth says is enrolled, from the demo's photos.
fn enroll(config: &Config, data: &Path, truth: Option<&Truth>) -> Result<String> {
    let context = Context { config: config.clone() };
    let wanted = |name: &str| truth.is_none_or(|truth| truth.enrolled.iter().any(|person| person == name));
    let folders = import::folders_in(&data.join("people"))?;
    let folders = folders.into_iter().filter(|(folder, _)| folder.file_name().is_some_and(|name| wanted(&name.to_string_lossy())));
    let report = import::import_folders(&context, &folders.collect::<Vec<_>>(), import::Shown::Scene, Allowed::default())?;
    if report.people.is_empty() {
        return Err(Failure::unavailable("none of the demo people could be enrolled with this pack"));
    }
    Ok(report.people.join(", "))
}

fn watchers(watched: &Arc<Mutex<Watched>>, truth: Option<Truth>, snapshots: Option<PathBuf>) -> Result<Watchers> {
    if let Some(folder) = &snapshots {
        std::fs::create_dir_all(folder).map_err(|error| Failure::unavailable(format!("{}: {error}", folder.display())))?;
    }
    let (for_frames, for_decisions, for_cameras) = (watched.clone(), watched.clone(), watched.clone());
    let frame = move |frame: &Frame, seen: &Seen| {
        let mut watched = for_frames.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(frame.number.saturating_sub(1)).unwrap_or(usize::MAX);
        let true_faces = truth.as_ref().and_then(|truth| truth.frames.get(index));
        for face in &seen.faces {
            watched.first_frame.entry(face.track).or_insert(frame.number);
            let met = true_faces.into_iter().flatten();
            let met = met.filter(|t| t.bounding_box().iou(&face.detection.bounding_box) >= SAME_FACE);
            for true_face in met {
                let key = (true_face.person.clone(), true_face.kind.clone());
                *watched.truth.entry(face.track).or_default().entry(key).or_default() += 1;
            }
        }
        if seen.looked {
            let faces = seen.faces.iter().map(|face| (face.track, face.detection)).collect();
            watched.last = Some((frame.clone(), faces));
        }
    };
    let decision = move |decision: &Decision| {
        let mut watched = for_decisions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &snapshots
            && let Err(error) = snapshot(folder, &watched, decision)
        {
            watched.faults.push(error);
        }
        watched.decided.push(decision.clone());
    };
    let camera = move |event: &CameraEvent| {
        let mut watched = for_cameras.lock().unwrap_or_else(PoisonError::into_inner);
        match event.state {
            CameraState::Ended => watched.ended = true,
            CameraState::Online => {}
            _ => watched.faults.push(format!("camera {}: {}: {}", event.camera, event.state.as_str(), event.reason)),
        }
    };
    Ok(Watchers {
        frame: Some(Arc::new(frame)),
        decision: Some(Arc::new(decision)),
        camera: Some(Arc::new(camera)),
        ..Watchers::default()
    })
}

/// The newest frame with the decision drawn on it.
fn snapshot(folder: &Path, watched: &Watched, decision: &Decision) -> std::result::Result<(), String> {
    let Some((frame, faces)) = &watched.last else { return Ok(()) };
    let mut image = annotate::canvas(&frame.picture);
    for (track, detection) in faces {
        let is_decided = *track == decision.track;
        let ink = match (is_decided, decision.grant.is_some()) {
            (false, _) => Ink::Yellow,
            (true, true) => Ink::Green,
            (true, false) => Ink::Red,
        };
        let person = decision.person.as_ref().map_or("nobody known", |p| p.as_str());
        let label = if is_decided {
            format!("{} {} {person}", decision.outcome.as_str(), decision.reason.as_str())
        } else {
            format!("track {track}")
        };
        annotate::face(&mut image, &detection.bounding_box, &detection.landmarks, &label, ink);
    }
    let path =
        folder.join(format!("{:02}-{}-{}.png", watched.decided.len() + 1, decision.outcome.as_str(), decision.reason.as_str()));
    image.save(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Holds the decisions against the truth, a line a visit. True when each visit got exactly what was expected.
fn compare(truth: &Truth, watched: &Watched) -> bool {
    let mut right = 0;
    let mut given: Vec<Vec<String>> = vec![Vec::new(); truth.visits.len()];
    let mut astray = 0;
    for decision in &watched.decided {
        let mostly = watched.truth.get(&decision.track).and_then(|met| met.iter().max_by_key(|(_, count)| **count));
        let first = watched.first_frame.get(&decision.track).copied().unwrap_or(0);
        let visit = mostly.and_then(|((person, kind), _)| {
            truth
                .visits
                .iter()
                .position(|v| v.person == *person && v.kind == *kind && (v.first_frame..=v.last_frame + 30).contains(&first))
        });
        match visit {
            Some(visit) => given[visit].push(word(decision)),
            None => astray += 1,
        }
    }
    for (visit, given) in truth.visits.iter().zip(&given) {
        let is_right = match given.as_slice() {
            [one] => *one == visit.expected,
            [] => !matches!(visit.expected.as_str(), "granted" | "unknown" | "spoof"),
            _ => false,
        };
        right += u32::from(is_right);
        let got = if given.is_empty() { "no decision".to_owned() } else { given.join(", ") };
        let mark = if is_right { "as the truth says" } else { "NOT as the truth says" };
        say(format!("{} ({}): {got}; expected {}: {mark}", visit.person, visit.kind, visit.expected));
    }
    say(format!(
        "{right} of {} visits decided as the truth beside the clip says, {astray} decisions about nobody",
        truth.visits.len()
    ));
    right as usize == truth.visits.len() && astray == 0
}

/// A decision in the truth's words: `granted`, or the reason.
fn word(decision: &Decision) -> String {
    if decision.grant.is_some() { "granted".to_owned() } else { decision.reason.as_str().to_owned() }
}
