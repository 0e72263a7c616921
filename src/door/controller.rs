//! The loop between broker, inputs, machine, lock and panel. One thread owns them all.

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use serde_json::{Value, json};

use super::admission::{Admission, ClockTerms, Permit, Refusal};
use super::client_id;
use super::diary::{Diary, Of};
use super::hardware::{DoorError, Hardware};
use super::machine::{Action, AlarmWord, DoorState, Input, Machine};
use super::panel::{OsdpSettings, Verdict, Word};
use super::presenting::{Outcome, Presenting};
use super::settings::{Settings, UnsureClock};
use crate::access::grant::{GrantKey, KeySet, MAX_JWK_SET_BYTES, PASSAGE_LIFETIME_S, PassageClaim};
use crate::publish::{
    self, Alarm, AlarmKind, CONTRACT_VERSION, Context, Event, News, Notice, Problem, Received, Said, StateKey, Subscriber, Wants,
};
use crate::system::seen::SeenError;
use crate::system::{Quota, Stop, clock, clock_quality, secret};
use crate::types::{DeviceId, DoorId, PersonId};

/// How long a message is waited for before inputs and time are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A clock that goes back by more seconds than a time service slews is spoken of.
const CLOCK_BACK_S: u64 = 1;
/// How many messages are looked at before that, when they wait.
const MOST_AT_ONCE: usize = 64;
/// The longest packet that is taken from the broker, in bytes: a decision has some 3 kB, the published keys [`MAX_JWK_SET_BYTES`] at most.
const MOST_BYTES: u32 = 32 * 1024;
/// People whose grants wait for the door to be opened; more do not pass within one opening.
const MOST_GUESTS: usize = 16;
/// The name of the key that passages are signed with among the secrets; `faceid keygen --door` makes it.
pub const DOOR_KEY: &str = "door.key";

/// Where a controller finds what it needs.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Whose grants are taken.
    pub device: &'a DeviceId,
    /// The broker.
    pub broker: &'a publish::Settings,
    /// Where secrets lie.
    pub secrets: &'a Path,
    /// Where the memory of used grants is kept.
    pub state: &'a Path,
}

struct Controller {
    root: String,
    door: DoorId,
    context: Context,
    learns: bool,
    admission: Admission,
    /// The wall clock was set back, and that was told.
    is_behind: bool,
    /// What passages are signed with.
    key: Option<GrantKey>,
    machine: Machine,
    hardware: Hardware,
    osdp: OsdpSettings,
    presenting: Presenting,
    /// Who was let in, and with which grant, since the door last told of a passage.
    guests: Vec<(PersonId, String)>,
    diary: Diary,
    /// Whether the broker hears us: between its first word on a subscription, whatever that is, and the next problem.
    online: bool,
    /// Which of the broker's problems are worth a line.
    news: News,
    /// The same for the topics that it lets us not read: the decisions, the keys, the holds.
    refused: [News; 3],
    /// Lines about messages that open nothing: anybody who may write to the broker can have them written.
    noise: Quota,
    link: Subscriber,
}

/// Drives the door until told to stop. `ready` is called once the lock is in its safe state, `beat` at least once a second.
pub fn run(
    settings: &Settings,
    places: Places<'_>,
    hardware: Hardware,
    stop: &Stop,
    ready: &dyn Fn(),
    beat: &dyn Fn(),
) -> Result<(), DoorError> {
    let mut controller = Controller::open(settings, places, hardware)?;
    controller.hardware.lock.lock()?;
    controller.tell_panel_lost();
    ready();
    while !stop.is_asked() {
        beat();
        controller.turn();
    }
    controller.step(Input::Stop);
    controller.tell_panel_lost();
    controller.admission.keep();
    // What the broker does not confirm any more is said after the next start.
    controller.say_diary();
    Ok(())
}

/// Reads the pinned keys.
pub fn pinned_keys(settings: &Settings) -> Result<KeySet, DoorError> {
    let path = settings.pinned_keys.as_deref().ok_or_else(|| DoorError::Keys("[controller] names no pinned-keys".into()))?;
    let wrong = |what: String| DoorError::Keys(format!("{}: {what}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > MAX_JWK_SET_BYTES as u64 {
        return Err(wrong(format!("it is longer than {MAX_JWK_SET_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    KeySet::from_jwk_set(&text).map_err(|error| wrong(error.to_string()))
}

/// The door's key, and the one that its diary is sealed under, which is derived from it.
fn read_key(secrets: &Path) -> Result<Option<(GrantKey, StateKey)>, DoorError> {
    let wrong = |what: &dyn std::fmt::Display| DoorError::Keys(format!("{DOOR_KEY}: {what}"));
    let Some(seed) = secret::read_if_there(DOOR_KEY, secrets).map_err(|error| wrong(&error))? else { return Ok(None) };
    let key = GrantKey::from_seed(&seed).map_err(|error| wrong(&error))?;
    Ok(Some((key, StateKey::derived(&seed, "door-diary"))))
}

impl Controller {
    fn open(settings: &Settings, places: Places<'_>, hardware: Hardware) -> Result<Self, DoorError> {
        let door = settings.door.clone().ok_or(DoorError::NoDoor)?;
        let keys = pinned_keys(settings)?;
        log::info!(door = door.as_str(), keys = keys.kids().collect::<Vec<_>>().join(" ").as_str(); "pinned keys");
        let (key, diary_key) = read_key(places.secrets)?.unzip();
        if key.is_none() && hardware.inputs.has_sensor() {
            log::warn!(
                door = door.as_str();
                "passages are not signed, so the device counts every grant as one, and those that wait for the broker are lost at a restart: run `faceid keygen --door`"
            );
        }
        let clock = ClockTerms {
            leeway: Duration::from_secs(u64::from(settings.clock_leeway_s)),
            needs_source: settings.unsure_clock == UnsureClock::Deny,
        };
        if clock.needs_source && !clock_quality().is_synced {
            log::warn!(door = door.as_str(); "the clock follows no time source: nothing opens until it does ([controller] unsure-clock = \"deny\")");
        }
        let (memory, diary_file) = ["seen", "diary"].map(|end| places.state.join("door").join(format!("{door}.{end}"))).into();
        // Every start makes a diary: where there is one, this door has run here before.
        let is_new = !diary_file.exists();
        let admission = Admission::new(places.device.clone(), door.clone(), keys, clock, (&memory, is_new), clock::now())?;
        let root = places.broker.topic_root(places.device);
        let state = format!("{root}/door/{door}/state");
        let mut filters = vec![format!("{root}/door/{door}/decision"), format!("{root}/door/{door}/hold")];
        if settings.learn_endorsed_keys {
            filters.push(format!("{root}/keys"));
        }
        let client_id = client_id::of(places, &door)?;
        let will = Some((state, DoorState::Unknown.as_str().to_owned()));
        let link = Subscriber::start_as(
            places.broker,
            places.secrets,
            Wants { filters, client_id: Some(client_id), will, most_bytes: Some(MOST_BYTES) },
        )?;
        let context = Context {
            device: places.device.clone(),
            boot_id: Uuid::new_v4(),
            first_sequence: 0,
            models: publish::Models::new(),
            person_names: false,
        };
        let diary = Diary::open(&diary_file, diary_key).map_err(|source| DoorError::Diary { path: diary_file, source })?;
        Ok(Self {
            root,
            door,
            context,
            learns: settings.learn_endorsed_keys,
            admission,
            is_behind: false,
            key,
            machine: Machine::new(settings, hardware.inputs.has_sensor()),
            hardware,
            presenting: Presenting::new(settings.waits_for_panel(), settings.osdp.verdict_within()),
            osdp: settings.osdp.clone(),
            guests: Vec::new(),
            diary,
            online: false,
            news: News::default(),
            refused: Default::default(),
            noise: Quota::default(),
            link,
        })
    }

    /// What the broker has brought or one tick, then the inputs. Of a flood a handful at a time: a grant in it waits for little, and
    /// neither do the inputs wait for it.
    fn turn(&mut self) {
        self.look_at_clock();
        let mut wait = TICK;
        for _ in 0..MOST_AT_ONCE {
            let Some(notice) = self.link.next(wait) else { break };
            self.take(notice);
            wait = Duration::ZERO;
        }
        self.tell_noise();
        self.hear_panel();
        let readings = self.hardware.inputs.read();
        if self.hardware.inputs.has_sensor() {
            self.step(Input::Sensor(readings.open));
        }
        if let Some(pressed) = readings.exit {
            self.step(Input::Exit { pressed });
        }
        self.step(Input::Tick);
        self.say_diary();
    }

    fn look_at_clock(&mut self) {
        let now = clock::now();
        self.admission.look(now, clock_quality().is_synced);
        let behind = self.admission.behind(now.wall).as_secs();
        if behind > CLOCK_BACK_S && !self.is_behind {
            log::error!(
                door = self.door.as_str(), seconds = behind;
                "the clock was set back: nothing opens until it has caught up with what it has shown. If it was wrong before, stop the controller, remove door/{}.seen in its state folder and start it again",
                self.door
            );
        }
        self.is_behind = behind > CLOCK_BACK_S;
    }

    fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Message(message) => self.hear(&message),
            Notice::Subscribed => {
                log::info!(door = self.door.as_str(); "listening for decisions");
                self.refused = Default::default();
                self.heard_by_the_broker();
            }
            // The connection stands: what we say is taken, and what is refused is tried again by itself.
            Notice::Refused(problem) => {
                let topic = if let Problem::Unreadable { topic, .. } = &problem { topic.as_str() } else { "" };
                let (at, level, so) = match topic.rsplit('/').next() {
                    Some("keys") => (1, log::Level::Warn, "Only keys that are pinned open the door"),
                    Some("hold") => (2, log::Level::Warn, "No operator can hold this door open"),
                    _ => (0, log::Level::Error, "No grant is heard: the door stays locked"),
                };
                let is_news = self.refused[at].is_news(&problem, clock::monotonic());
                log::log!(if is_news { level } else { log::Level::Debug }, door = self.door.as_str(); "{problem}. {so}");
                self.heard_by_the_broker();
            }
            Notice::Taken(number) => self.diary.confirmed(number),
            Notice::Problem(problem) => {
                let is_news = self.news.is_news(&problem, clock::monotonic());
                log::log!(if is_news { log::Level::Warn } else { log::Level::Debug }, "{problem}; the door stays locked");
                self.online = false;
            }
        }
    }

    fn heard_by_the_broker(&mut self) {
        if !self.online {
            self.news.connected(clock::monotonic());
            self.diary.reconnected();
        }
        self.online = true;
    }

    fn say_diary(&mut self) {
        while self.online
            && let Some(note) = self.diary.hand_out()
        {
            let topic = format!("{}/{}", self.root, note.topic);
            self.link.say(Said { topic, payload: note.payload, receipt: Some(note.number), ..Said::default() });
        }
    }

    fn hear(&mut self, message: &Received) {
        let now = clock::now();
        if self.learns && message.topic == format!("{}/keys", self.root) {
            match self.admission.learn(&message.payload, now) {
                Ok(kids) => kids.iter().for_each(|kid| log::info!(kid = kid.as_str(); "a pinned key endorses a new one")),
                Err(error) if self.is_listed() => log::warn!("the published keys are passed over: {error}"),
                Err(_) => {}
            }
            return;
        }
        match self.admission.admit(message, now) {
            Ok(permit) => {
                let (hold, jti) = (permit.hold(), permit.jti());
                match hold {
                    None => log::info!(door = self.door.as_str(), person = permit.person().as_str(), jti = jti; "granted"),
                    Some(time) => {
                        log::info!(door = self.door.as_str(), by = permit.person().as_str(), seconds = time.as_secs(), jti = jti; "held open")
                    }
                }
                if hold.is_none() {
                    self.let_in(permit);
                } else if self.presenting.waits() {
                    log::warn!(door = self.door.as_str(); "hold rejected: the panel decides here; hold the door open at the panel");
                } else {
                    self.step(Input::Permit(permit));
                }
            }
            Err(Refusal::NoGrant) => {}
            Err(_) if !self.is_listed() => {}
            // QoS 1 may bring one message twice.
            Err(error @ Refusal::Seen(SeenError::Again)) => log::info!(door = self.door.as_str(); "grant rejected: {error}"),
            Err(error) => log::warn!(door = self.door.as_str(); "grant rejected: {error}"),
        }
    }

    /// Whether one more message that opens nothing is told of on its own.
    fn is_listed(&mut self) -> bool {
        self.tell_noise();
        self.noise.is_listed(clock::monotonic())
    }

    fn tell_noise(&mut self) {
        if let Some(unlisted) = self.noise.unlisted(clock::monotonic()) {
            log::warn!(door = self.door.as_str(); "{unlisted} more messages were rejected");
        }
    }

    /// A permit goes to the lock, or to the panel first.
    fn let_in(&mut self, permit: Permit) {
        let Some(panel) = &mut self.hardware.panel else { return self.obey(permit) };
        let (person, jti) = (permit.person().clone(), permit.jti().to_owned());
        let card = self.osdp.card(&person);
        let (is_waiting, now_permitted) = match &card {
            Some(_) => self.presenting.begin(permit, clock::monotonic()),
            // Nothing is presented, and what waits for a verdict gets none.
            None => (false, (!self.presenting.waits()).then_some(permit)),
        };
        match card {
            Some(card) if is_waiting => panel.present(card),
            card => {
                let why = if card.is_none() { "no-number" } else { "too-many" };
                log::warn!(door = self.door.as_str(), person = person.as_str(); "not presented to the panel: {why}");
                self.tell_panel("not-presented", json!({ "person": person, "jti": jti, "why": why }));
            }
        }
        now_permitted.into_iter().for_each(|permit| self.obey(permit));
    }

    fn obey(&mut self, permit: Permit) {
        // Whatever ends at this moment ends for those before.
        self.step(Input::Tick);
        if self.hardware.inputs.has_sensor() && self.guests.len() < MOST_GUESTS {
            self.guests.push((permit.person().clone(), permit.jti().to_owned()));
        }
        self.step(Input::Permit(permit));
    }

    fn hear_panel(&mut self) {
        while let Some(word) = self.hardware.panel.as_mut().and_then(|panel| panel.next()) {
            match &word {
                Word::Secure(secure) => {
                    log::info!(door = self.door.as_str(), secure = secure; "the panel's line");
                    self.say("panel", if *secure { "secure" } else { "lost" }.to_owned());
                }
                Word::Light(colour) => self.tell_panel("light", json!({ "colour": colour.as_str() })),
                Word::Output(on) => self.tell_panel("output", json!({ "on": on })),
                Word::Buzzer => self.tell_panel("buzzer", json!({})),
                Word::Text(text) => self.tell_panel("text", json!({ "text": text })),
                Word::NotPresented => {}
            }
            if let Some(outcome) = self.presenting.step(Some(&word), clock::monotonic()) {
                self.conclude(outcome);
            }
        }
        while let Some(outcome) = self.presenting.step(None, clock::monotonic()) {
            self.conclude(outcome);
        }
    }

    /// Nothing is known of the panel's line before it speaks and after we do not: the broker keeps what was said before.
    fn tell_panel_lost(&self) {
        if self.hardware.panel.is_some() {
            self.say("panel", "lost".to_owned());
        }
    }

    fn conclude(&mut self, outcome: Outcome) {
        let Outcome { verdict, person, jti, permit } = outcome;
        let level = if verdict == Verdict::Silent { log::Level::Warn } else { log::Level::Info };
        log::log!(level, door = self.door.as_str(), person = person.as_str(), verdict = verdict.as_str(); "the panel's verdict");
        self.tell_panel("verdict", json!({ "verdict": verdict.as_str(), "person": person, "jti": jti }));
        permit.into_iter().for_each(|permit| self.obey(permit));
    }

    /// One thing of the panel, for displays.
    fn tell_panel(&self, kind: &str, more: Value) {
        let topic = format!("{}/door/{}/panel/event", self.root, self.door);
        let payload = self.event(&[("kind", json!(kind))], more);
        self.link.say(Said { topic, payload, ..Said::default() });
    }

    /// A plain message of the door: what all carry, then these.
    fn event(&self, fields: &[(&str, Value)], more: Value) -> String {
        let mut event = json!({
            "contract_version": CONTRACT_VERSION, "device": self.context.device, "boot_id": self.context.boot_id.to_string(),
            "time": clock::wall().rfc3339(), "door": self.door,
        });
        for (key, value) in fields {
            event[*key] = value.clone();
        }
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        event.to_string()
    }

    fn tell_passages(&mut self, passed: bool) {
        for (person, jti) in std::mem::take(&mut self.guests) {
            let id = Uuid::now_v7().to_string();
            let claim = self.key.as_ref().map(|key| {
                let iat = clock::wall().unix_seconds();
                key.sign_passage(&PassageClaim {
                    iss: self.door.clone(),
                    aud: self.context.device.clone(),
                    iat,
                    exp: iat.saturating_add(PASSAGE_LIFETIME_S),
                    jti: id.clone(),
                    grant: jti.clone(),
                    passed,
                })
            });
            let payload =
                self.event(&[("id", json!(id))], json!({ "person": person, "jti": jti, "passed": passed, "claim": claim }));
            self.diary.note(&format!("door/{}/passage", self.door), &payload, Of::People);
        }
    }

    fn step(&mut self, input: Input) {
        let mut actions = self.machine.step(clock::monotonic(), input);
        // What the driver answers is an input too; a step answers with no more than the machine's few actions.
        while !actions.is_empty() {
            let mut answers = Vec::new();
            let mut failed = false;
            for action in actions {
                // The state that the machine meant to reach is not the one that was reached; the answer brings the true one.
                if failed && matches!(action, Action::Tell(_)) {
                    continue;
                }
                if let Some(answer) = self.perform(action) {
                    failed |= matches!(answer, Input::LockFailed);
                    answers.extend(self.machine.step(clock::monotonic(), answer));
                }
            }
            actions = answers;
        }
    }

    fn perform(&mut self, action: Action) -> Option<Input> {
        let outcome = match action {
            Action::Unlock => self.hardware.lock.unlock(),
            Action::Lock => self.hardware.lock.lock(),
            Action::Tell(state) => {
                log::info!(door = self.door.as_str(), state = state.as_str(); "state");
                self.say("state", state.as_str().to_owned());
                return None;
            }
            Action::Alarm(word) => {
                self.alarm(word);
                return None;
            }
            Action::Passed | Action::Unused => {
                self.tell_passages(action == Action::Passed);
                return None;
            }
        };
        match outcome {
            Ok(()) => Some(Input::LockDone),
            Err(error) => {
                log::error!(door = self.door.as_str(); "the lock does not obey: {error}");
                // It may have moved before it failed.
                if action == Action::Unlock
                    && let Err(error) = self.hardware.lock.lock()
                {
                    log::error!(door = self.door.as_str(); "nor does it lock: {error}");
                }
                Some(Input::LockFailed)
            }
        }
    }

    fn say(&self, below: &str, payload: String) {
        let topic = format!("{}/door/{}/{below}", self.root, self.door);
        self.link.say(Said { topic, payload, retained: true, ..Said::default() });
    }

    fn alarm(&mut self, word: AlarmWord) {
        let (kind, detail) = match word {
            AlarmWord::ForcedOpen => (AlarmKind::ForcedOpen, "the door opened without a grant"),
            AlarmWord::HeldOpen => (AlarmKind::HeldOpen, "the door stays open"),
        };
        log::warn!(door = self.door.as_str(), alarm = kind.as_str(); "{detail}");
        let alarm = Alarm { kind, door: Some(self.door.clone()), camera: None, detail: detail.into(), at: clock::wall() };
        let event = Event::Alarm(alarm);
        // It may come twice: the id says that it is the same.
        let mut payload: Value = serde_json::from_str(&event.payload(&self.context, 0, false)).unwrap_or_default();
        payload["id"] = json!(Uuid::now_v7().to_string());
        self.diary.note(&event.topic(), &payload.to_string(), Of::Door);
        // Before the state that goes with it.
        self.say_diary();
    }
}
