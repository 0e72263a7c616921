//! The daemon from its start to its stop. Both orders are written here, each once.
//!
//! Start: log and config (the caller's), keys, gallery, models, publisher, workers, the first heartbeat of each vital worker, READY.
//! Stop: STOPPING, cameras, vision, decider, the publisher's outbox with the offline message. One deadline; the late are named.

mod opening;
mod stats;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::access_state::AccessState;
use super::api::{self, Api, Asks};
use super::at_home;
use super::birth_witness::BirthWitness;
use super::broker_word::{BrokerWord, Word};
use super::care::Care;
use super::clock_watch::{self, ClockWatch};
use super::commands::Commands;
use super::control::{self, Control};
use super::desk::Reloads;
use super::enrol::{self, Enrolments, SHOTS};
use super::events;
use super::guards;
use super::inbox::Inbox;
use super::keys::{ENDORSE_EVERY, KeyRing, read_grant_key};
use super::match_rates::MatchRates;
use super::reports::{self, Report, Reporter};
use super::snapshots::Snapshots;
use super::supervisor::{Failure, Role, Supervisor, WorkerContext};
use super::workers::{self, CameraWatcher, Counts, DecisionWatcher, Decisions, FrameWatcher, Vision};
use crate::access::grant::{GrantError, KeySet};
use crate::access::rules::PolicyError;
use crate::access::{Decider, Rules, SiteThreshold, Thresholds};
use crate::capture::Slots;
use crate::config::{Config, ConfigError};
use crate::gallery::{Gallery, GalleryError, SealingKey};
use crate::inference::{self, InferenceError};
use crate::pipeline::{Pipeline, Terms, Timings};
use crate::publish::{self, Audit, Birth, Event, KeptEar, Publisher, SealedError};
use crate::system::notify::Notifier;
use crate::system::secret::SecretError;
use crate::system::seen::SeenError;
use crate::system::{Quota, Stop, StopHandle, clock, messages};
use crate::types::{CameraId, ModelId, Monotonic, Presence, Score};
use crate::vision::VisionError;
use crate::vision::stack::Stack;
pub use opening::pinned;
use opening::{Record, lock_state, open_gallery};

/// The name of the grant-signing key among the secrets.
pub const GRANT_KEY: &str = "grant.key";

/// All of stopping must fit in this; systemd waits for 90 s by default.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The courier returns only when told to stop; should it ever fail, it is started again.
const COURIER_RETRY: Role = Role::Restartable { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30) };
/// A camera's first and longest wait between tries that failed for good; the room retries what mends itself.
const CAMERA_RETRY: Role = Role::Restartable { floor: Duration::from_secs(1), ceiling: Duration::from_secs(4) };
/// One frame's stages take well under a second on the slowest board; a first run of an engine may take longer.
const STALE_AFTER: Duration = Duration::from_secs(20);
/// The gallery's door is opened again after an error.
const CONTROL_RETRY: Role = Role::Restartable { floor: Duration::from_millis(100), ceiling: Duration::from_secs(10) };
/// How long a start waits for a command line that is changing the gallery.
const GALLERY_PATIENCE: Duration = Duration::from_secs(20);

/// Why the daemon did not start or had to end.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The config cannot be run with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing to watch.
    #[error("the config names no camera: add a [[cameras]] section")]
    NoCamera,
    /// A key is missing or open to others.
    #[error("{0}; `faceid keygen` makes the keys")]
    Secret(#[from] SecretError),
    /// The grant key is no key.
    #[error("the grant key: {0}")]
    GrantKey(#[from] GrantError),
    /// Outbox or audit trail cannot be used.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The memory of used nonces cannot be used.
    #[error(transparent)]
    Seen(#[from] SeenError),
    /// The keys of operators or of a door's controller are no keys.
    #[error("{0}")]
    Pinned(String),
    /// Nobody's key.
    #[error("[publish] snapshot-recipient {0}")]
    Recipient(String),
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The gallery cannot be used.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// A network cannot be used.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// Another daemon runs on this state folder.
    #[error("another daemon runs on {0}")]
    SecondDaemon(String),
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// A vital worker failed.
    #[error(transparent)]
    Worker(#[from] Failure),
}

impl DaemonError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Config(_)
            | DaemonError::Policy(_)
            | DaemonError::NoCamera
            | DaemonError::Pinned(_)
            | DaemonError::Recipient(_) => 78,
            DaemonError::Secret(_) | DaemonError::GrantKey(_) => 77,
            DaemonError::Sealed(SealedError::Secret(_) | SealedError::Malformed | SealedError::WrongKey { .. }) => 77,
            DaemonError::Gallery(GalleryError::Key(_) | GalleryError::WrongKey { .. }) => 77,
            DaemonError::Worker(failure) => failure.exit_code(),
            _ => 69,
        }
    }
}

/// What whoever starts the daemon wants of it: the demo hears what it does, an operator accepts a loss.
#[derive(Default, Clone)]
pub struct Watchers {
    /// Every frame with what was seen on it.
    pub frame: Option<FrameWatcher>,
    /// Every decision.
    pub decision: Option<DecisionWatcher>,
    /// Every change of a camera.
    pub camera: Option<CameraWatcher>,
    /// Whether a lost memory of blocks, places and lock-downs is begun anew instead of locking every door down.
    pub accept_lost_state: bool,
    /// What is taken up of a config that is read again.
    pub reloads: Reloads,
}

/// What the workers are made of.
struct Parts {
    pipeline: Pipeline,
    asks: Asks,
    enrolments: Enrolments,
    snapshots: Snapshots,
    decider: Decider,
    rates: MatchRates,
    state: AccessState,
    clock: ClockWatch,
    accepts_loss: bool,
    courier: publish::Worker,
    ends: reports::Ends,
    /// The threshold of matching at the doors.
    matching: Score,
    site: SiteThreshold,
}

/// A daemon whose workers run.
pub struct Service {
    supervisor: Supervisor,
    publisher: Publisher,
    gallery: Arc<Gallery>,
    counts: Arc<Counts>,
    slots: Slots<crate::types::Frame>,
    cameras: Vec<CameraId>,
    /// The networks, each with what runs it until an engine takes over.
    networks: Vec<(ModelId, String)>,
    has_liveness: bool,
    timings: Arc<Timings>,
    started: Monotonic,
    keys: KeyRing,
    audit: Arc<Audit>,
    looked_before: AtomicU64,
    word: Arc<BrokerWord>,
    /// Held for as long as the daemon runs; the system lets go of it however the process ends.
    _lock: std::fs::File,
}

impl Service {
    /// Starts everything, in order. Nothing runs when this fails.
    pub fn start(config: &Config, watchers: &Watchers, stop: (StopHandle, Stop)) -> Result<Self, DaemonError> {
        if config.cameras.is_empty() {
            return Err(DaemonError::NoCamera);
        }
        let lock = lock_state(&config.state_dir)?;
        for (key, warning) in config.warnings() {
            log::warn!("config, {key}: {warning}");
        }
        let key = SealingKey::read(&config.gallery.key, &config.secrets_dir).map_err(GalleryError::from)?;
        let grant_key = read_grant_key(&config.secrets_dir)?;
        let keys = KeyRing::read(&config.device, &config.secrets_dir)?;
        let manifest = config.manifest()?;
        let began = Instant::now();
        let stack = Stack::open(&manifest, &config.models.pack, &config.models_dir(), &config.inference)?;
        for (model, provider) in &stack.providers {
            log::info!(MESSAGE_ID = messages::NETWORK_READY, model = model.as_str(), provider = provider.as_str(); "network ready");
        }
        log::info!(pack = stack.pack.as_str(), took_ms = began.elapsed().as_millis() as u64; "pack ready");
        let gallery = Arc::new(open_gallery(config, key, &stack, &stop.1)?);
        let stats = gallery.snapshot().stats();
        log::info!(MESSAGE_ID = messages::GALLERY_READY, people = stats.people, templates = stats.templates; "gallery ready");
        let boot_id = uuid::Uuid::new_v4();
        let context = publish::Context {
            device: config.device.clone(),
            boot_id,
            first_sequence: 1,
            models: stack.models(),
            person_names: config.publish.person_names,
        };
        let record = Record::open(config)?;
        let (publisher, mut courier) = Publisher::durable(config.publish.clone(), context, &config.secrets_dir, record.journal);
        let kept = courier.hear_kept();
        publisher.publish(keys.event(clock::wall()));
        for event in at_home::events(config) {
            publisher.publish(event);
        }
        let has_run = record.audit.has_run();

        let pack = stack.thresholds;
        let thresholds = Thresholds { matching: pack.matching, margin: pack.margin, liveness: pack.liveness };
        let at_doors = thresholds.with(&config.access);
        let site = SiteThreshold::new(pack.matching, stack.visits.clone(), &config.access);
        let rules = Rules::new(&config.policy)?;
        let mut clock_watch = ClockWatch::open(&config.state_dir, has_run);
        clock_watch::warn_of_times(&rules, &gallery, clock_watch.look());
        let register = gallery.clone();
        let mut decider = Decider::new(config.device.clone(), config.access.clone(), thresholds, &config.doors, rules, grant_key)
            .with_sides(Box::new(guards::side))
            .with_register(Box::new(move |person| register.trusted()?.person(person).map(Into::into)))
            .with_demo_pack(stack.is_demo)
            .with_vouching(Duration::from_secs(u64::from(config.publish.unheard_grants_s)), clock::now());
        let epoch_file = config.gallery.epoch_file();
        let mut state = AccessState::new(&config.state_dir, epoch_file.parent().unwrap_or(&config.state_dir), record.key);
        guards::restore(&mut decider, &mut state, &publisher, &record.audit, (has_run, watchers.accept_lost_state))?;
        // The state was written down before this: from this entry on its absence is a loss.
        let detail = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "keys": keys.public().kids().collect::<Vec<_>>() });
        publisher.publish(Event::AuditHead(record.audit.append("start", detail, clock::wall())));
        let cameras: Vec<CameraId> = config.cameras.iter().map(|camera| camera.id.clone()).collect();
        // The broker still keeps who stood there when the last run ended.
        for camera in &cameras {
            publisher.publish(events::presence(Presence { camera: camera.clone(), faces: 0, people: Vec::new() }));
        }
        let mut service = Self {
            supervisor: Supervisor::new(stop.0, stop.1),
            publisher,
            gallery,
            counts: Arc::default(),
            slots: Slots::new(cameras.len()),
            cameras,
            networks: stack.providers.clone(),
            has_liveness: stack.liveness.is_some(),
            timings: Arc::default(),
            started: clock::monotonic(),
            keys,
            audit: record.audit,
            looked_before: AtomicU64::new(0),
            word: Arc::default(),
            _lock: lock,
        };
        let least_liveness = config.access.require_liveness.then_some(at_doors.liveness);
        let (enroller, enrolments) = enrol::queue(Terms {
            matching: at_doors.matching,
            liveness: least_liveness,
            least_width: config.pipeline.min_liveness_face_px,
            wanted: SHOTS,
            is_whole: false,
        });
        let rates = service.open_rates(config, &mut decider, (stack.embedder.model(), &site))?;
        let pipeline = Pipeline::new(config.pipeline.clone(), stack, Some(service.gallery.clone()));
        let pipeline = pipeline.with_witnesses(guards::witnesses(config));
        service.timings = pipeline.timings();
        let wires = reports::wires();
        let snapshots = Snapshots::new(config.publish.snapshot_recipient.as_deref()).map_err(DaemonError::Recipient)?;
        let inbox = Inbox::new(config.publish.topic_root(&config.device), record.gate, record.passages, &state);
        watchers.reloads.commands(inbox.gate.judge().clone());
        let commands = Commands {
            messages: commanded(&mut courier, config, &inbox),
            inbox,
            publisher: service.publisher.clone(),
            audit: service.audit.clone(),
            decider: wires.0.reports.clone(),
            gallery: service.gallery.clone(),
            enroller,
            snapshots: snapshots.clone(),
            cameras: guards::enrolling_cameras(config),
            matching: at_doors.matching,
            enrolling: None,
            refused: Quota::default(),
            unheard: Quota::default(),
        };
        service.spawn_commands(commands)?;
        service.spawn_witness(config, (boot_id, kept), state.number(), wires.0.reports.clone())?;
        let asks = service.spawn_api(config, at_doors, site.clone())?;
        let accepts_loss = watchers.accept_lost_state;
        service.spawn(
            config,
            watchers,
            Parts {
                clock: clock_watch,
                accepts_loss,
                pipeline,
                asks,
                enrolments,
                snapshots,
                decider,
                rates,
                state,
                courier,
                ends: wires,
                matching: at_doors.matching,
                site,
            },
        )?;
        Ok(service)
    }

    /// Starts whoever says `birth`, once it has heard what the broker kept of the one before.
    fn spawn_witness(
        &mut self,
        config: &Config,
        (boot_id, ear): (uuid::Uuid, KeptEar),
        memory: Arc<AtomicU64>,
        decider: SyncSender<Report>,
    ) -> Result<(), DaemonError> {
        let mut witness = BirthWitness {
            device: config.device.clone(),
            topic: format!("{}/birth", config.publish.topic_root(&config.device)),
            boot_id,
            key: read_grant_key(&config.secrets_dir)?,
            keys: self.keys.public(),
            gallery: self.gallery.clone(),
            memory,
            decider,
            publisher: self.publisher.clone(),
            audit: self.audit.clone(),
            birth: birth(config, &self.provider()),
            ear,
            word: self.word.clone(),
            counts: self.counts.clone(),
            heard: false,
            told: None,
        };
        let io = |source| DaemonError::Io { what: "birth".to_owned(), source };
        self.supervisor.spawn("birth", COURIER_RETRY, 2, move |context| witness.run(context)).map_err(io)
    }

    /// Starts the local API where the config asks for one. The queue is there in any case: nothing is ever in it then.
    fn spawn_api(&mut self, config: &Config, thresholds: Thresholds, site: SiteThreshold) -> Result<Asks, DaemonError> {
        let (recogniser, asks) = api::queue(self.slots.clone());
        if config.http.listen.is_none() {
            return Ok(asks);
        }
        // One that is under way, and one that waits: a third is the second.
        let (rebuild, rebuilds) = std::sync::mpsc::sync_channel(1);
        let api = Arc::new(Api {
            recogniser,
            gallery: self.gallery.clone(),
            thresholds,
            site,
            has_liveness: self.has_liveness,
            counts: self.counts.clone(),
            timings: self.timings.clone(),
            slots: self.slots.clone(),
            cameras: self.cameras.clone(),
            publisher: self.publisher.clone(),
            provider: self.provider(),
            audit: self.audit.clone(),
            word: self.word.clone(),
            rebuild,
            max_pixels: config.http.max_upload_pixels,
        });
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| DaemonError::Io { what, source }
        };
        let (gallery, choice) = (self.gallery.clone(), config.gallery.index);
        let build = move |context: &WorkerContext| api::rebuild(context, &rebuilds, &gallery, choice);
        self.supervisor.spawn("rebuild", api::RETRY, 0, build).map_err(io("rebuild"))?;
        let (settings, secrets, state) = (config.http.clone(), config.secrets_dir.clone(), config.state_dir.clone());
        let work = move |context: &WorkerContext| api::serve(context, &settings, &secrets, &state, &api);
        self.supervisor.spawn("http", api::RETRY, 0, work).map_err(io("http"))?;
        Ok(asks)
    }

    fn spawn(
        &mut self,
        config: &Config,
        watchers: &Watchers,
        Parts { pipeline, asks, enrolments, snapshots, decider, rates, state, clock, accepts_loss, courier, ends, matching, site }: Parts,
    ) -> Result<(), DaemonError> {
        let (wires, reports, decided) = ends;
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| DaemonError::Io { what, source }
        };
        let vital = Role::Vital { stale_after: STALE_AFTER };
        let mut decisions = Decisions {
            decider,
            state,
            clock,
            accepts_loss,
            reports,
            decided: wires.decided,
            publisher: self.publisher.clone(),
            audit: self.audit.clone(),
            gallery: self.gallery.clone(),
            grant_lifetime: Duration::from_secs(config.access.grant_lifetime_s),
            counts: self.counts.clone(),
            watcher: watchers.decision.clone(),
            standing: std::collections::HashMap::new(),
            snapshots: snapshots.clone(),
            blocks: Default::default(),
            rates,
            saved_at: None,
            site,
            sized_for: None,
            reloads: watchers.reloads.clone(),
            doors_told: std::collections::HashMap::new(),
        };
        let mut vision = Vision {
            pipeline,
            slots: self.slots.clone(),
            reports: Reporter::new(wires.reports),
            decided,
            counts: self.counts.clone(),
            watcher: watchers.frame.clone(),
            cameras: self.cameras.clone(),
            asks,
            enrolments,
            snapshots,
            failures: 0,
            heard: std::collections::HashMap::new(),
        };
        let deliver = move |context: &WorkerContext| {
            courier.run(context.stop(), &|| context.beat());
            Ok(())
        };
        let (gallery, audit) = (self.gallery.clone(), self.audit.clone());
        let mut care = Care::new(gallery.clone(), self.publisher.clone(), audit.clone(), &config.gallery);
        let (counts, word) = (self.counts.clone(), self.word.clone());
        let terms = control::Terms { counts, matching, keys: self.keys.public(), word };
        let control = Control::open(&config.state_dir, gallery, self.publisher.clone(), audit, terms);
        let mut control = control.map_err(io("the control socket in the state folder"))?;
        self.supervisor.spawn("control", CONTROL_RETRY, 1, move |context| control.run(context)).map_err(io("control"))?;
        self.supervisor.spawn("gallery", CONTROL_RETRY, 1, move |context| care.run(context)).map_err(io("gallery"))?;
        self.supervisor.spawn("mqtt", COURIER_RETRY, 3, deliver).map_err(io("mqtt"))?;
        self.supervisor.spawn("decider", vital, 2, move |context| decisions.run(context)).map_err(io("decider"))?;
        self.supervisor.spawn("vision", vital, 1, move |context| vision.run(context)).map_err(io("vision"))?;
        let (gallery, choice) = (self.gallery.clone(), config.gallery.index);
        let keep = move |context: &WorkerContext| {
            gallery.keep_index(choice, context.stop(), |report| log::info!("search index: {}", workers::index_line(report)));
            Ok(())
        };
        self.supervisor.spawn("index", CAMERA_RETRY, 0, keep).map_err(io("index"))?;
        for (settings, slot) in config.cameras.iter().cloned().zip(self.slots.writers()) {
            let (secrets, publisher, watcher) = (config.secrets_dir.clone(), self.publisher.clone(), watchers.camera.clone());
            let counts = self.counts.clone();
            let name = format!("cam-{}", settings.id);
            let work = move |context: &WorkerContext| {
                workers::camera(context, &settings, &secrets, &slot, &publisher, &counts, watcher.as_ref())
            };
            self.supervisor.spawn(&name, CAMERA_RETRY, 0, work).map_err(io(&name))?;
        }
        Ok(())
    }

    fn spawn_commands(&mut self, mut commands: Commands) -> Result<(), DaemonError> {
        let io = |source| DaemonError::Io { what: "commands".to_owned(), source };
        self.supervisor.spawn("commands", COURIER_RETRY, 2, move |context| commands.run(context)).map_err(io)
    }

    /// Waits for every vital worker's first heartbeat, says READY, and watches until told to stop or until a vital worker fails.
    pub fn watch(&self, notifier: &Notifier) -> Result<(), DaemonError> {
        let ready = self.supervisor.wait_ready(|missing| {
            notifier.extend_start(Duration::from_secs(30));
            notifier.status(&format!("waiting for {}", missing.join(", ")));
        })?;
        if !ready {
            return Ok(());
        }
        notifier.ready(&self.status());
        log::info!(MESSAGE_ID = messages::READY; "ready: {}", self.status());
        let (mut stats_at, mut keys_at, mut told) = (clock::monotonic(), clock::monotonic(), (None, None, Word::default()));
        self.supervisor.watch(notifier, || {
            let now = clock::monotonic();
            if now.since(keys_at) >= ENDORSE_EVERY {
                keys_at = now;
                self.publisher.publish(self.keys.event(clock::wall()));
            }
            let wrong = (self.gallery.rollback(), self.gallery.latched(), self.word.get());
            if wrong != told {
                told = wrong;
                notifier.status(&self.status());
            }
            if now.since(stats_at) >= stats::every(&inference::engines()) {
                let interval = now.since(stats_at);
                stats_at = now;
                notifier.status(&self.status());
                self.publisher.publish(Event::Stats(Box::new(self.stats(interval))));
            }
        })?;
        Ok(())
    }

    /// Stops the workers in their order and flushes the outbox.
    pub fn stop(self, notifier: &Notifier) {
        notifier.stopping("stopping");
        log::info!(MESSAGE_ID = messages::STOPPING; "stopping");
        self.publisher.publish(Event::AuditHead(self.audit.append("stop", serde_json::Value::Null, clock::wall())));
        let late = self.supervisor.shut_down(STOP_DEADLINE);
        if !late.is_empty() {
            log::error!("these workers did not stop in time: {}", late.join(", "));
        }
        let waiting = self.publisher.counts().waiting;
        if waiting > 0 {
            log::warn!("the broker did not take the last {waiting} of what was to be told");
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Where the networks run.
    pub fn provider(&self) -> String {
        stats::provider(&self.networks, &inference::engines())
    }

    /// Whether the pack claims liveness.
    pub fn has_liveness(&self) -> bool {
        self.has_liveness
    }
}

/// The operators' keys that the config pins; without any, no command is believed.
pub fn operators(settings: &publish::Settings) -> Result<Option<KeySet>, DaemonError> {
    settings.operator_keys.as_deref().map(|path| pinned("publish.operator-keys", path)).transpose()
}

/// The lanes that the courier puts commands into, and what doors say.
fn commanded(courier: &mut publish::Worker, config: &Config, inbox: &Inbox) -> publish::Inlet {
    let doors = config.doors.iter().map(|door| door.id.clone());
    let (lanes, inlet) = publish::lanes(&inbox.root, doors, inbox.gate.judge().clone(), inbox.passages.judge().clone());
    courier.hear_commands(lanes);
    inlet
}

/// What is said at the start, but for what is the gallery's.
fn birth(config: &Config, provider: &str) -> Birth {
    Birth {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        provider: provider.to_owned(),
        gallery_people: 0,
        gallery_templates: 0,
        gallery_epoch: 0,
        gallery_claim: None,
        cameras: config.cameras.iter().map(|camera| camera.id.clone()).collect(),
        doors: config.doors.iter().map(|door| door.id.clone()).collect(),
        match_rates: Vec::new(),
        clock: events::clock_quality(),
        at: clock::wall(),
    }
}
