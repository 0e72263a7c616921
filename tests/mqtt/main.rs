//! The publisher against a real mosquitto, and against the broker that the demo carries.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers may fail like the test itself")]

#[cfg(feature = "gstreamer")]
mod answers;
mod contract;
mod desk;
mod durable;
#[cfg(feature = "gstreamer")]
mod floods;
#[cfg(feature = "gstreamer")]
#[path = "../support/hostile.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod hostile;
#[path = "../support/mosquitto.rs"]
mod mosquitto;
#[path = "../support/contract.rs"]
mod published;
mod shipped;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use faceid_plus::publish::command::Judge;
use faceid_plus::publish::passage::Passages;
use faceid_plus::publish::{
    Alarm, AlarmKind, Birth, CameraStatus, CameraWord, Clock, Context, DecisionEvent, Discovery, DoorAccess, DoorBlock, Event,
    Notice, Policy, PresenceEvent, Problem, Publisher, Received, Said, Settings, State, Subscriber, Tls, discovery, lanes,
};
use faceid_plus::system::stop::{self, StopHandle};
use faceid_plus::types::{
    CameraId, Decision, DeviceId, DoorId, Evidence, Moment, Outcome, PersonId, Presence, Reason, TrackId, Wall,
};
use mosquitto::{Certificates, Mosquitto, PATIENCE, Wire, secret, wait_for};
use serde_json::Value;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

/// A publisher with its worker's thread; stopped cleanly when dropped.
struct Running {
    publisher: Publisher,
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(settings: Settings, secrets: &Path) -> Self {
        let (publisher, worker) = Publisher::new(settings, context(), secrets);
        let (handle, stop) = stop::pair();
        let thread = std::thread::spawn(move || worker.run(&stop, &|| {}));
        Self { publisher, stop: handle, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn decide(&self, number: u64, lifetime: Duration) {
        assert!(self.publisher.publish(Event::Decision(Box::new(granted(number, lifetime)))));
    }

    fn wait_until_delivered(&self, decisions: u64) {
        wait_for("all decisions to be confirmed", || {
            let counts = self.publisher.counts();
            (counts.decisions_delivered >= decisions && counts.waiting == 0).then_some(())
        });
    }

    fn failure(&self) -> Problem {
        wait_for("the worker to say what is wrong", || match self.publisher.state() {
            State::Failed(problem) => Some(problem),
            _ => None,
        })
    }

    fn wait_until_online(&self) {
        wait_for("the connection", || matches!(self.publisher.state(), State::Online { .. }).then_some(()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn settings(port: u16) -> Settings {
    Settings { host: "127.0.0.1".into(), port, retry_floor_ms: 20, retry_ceiling_ms: 100, ..Settings::default() }
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn context() -> Context {
    Context {
        device: DeviceId::new("gate").unwrap(),
        boot_id: Uuid::from_u128(7),
        first_sequence: 1,
        models: BTreeMap::new(),
        person_names: false,
    }
}

fn clock() -> Clock {
    Clock { source: "ntp".into(), synced: true, error_ms: Some(1) }
}

fn now() -> Moment {
    faceid_plus::system::clock::now()
}

fn granted(number: u64, lifetime: Duration) -> DecisionEvent {
    let now = now();
    DecisionEvent {
        id: Uuid::from_u128(u128::from(number)),
        decision: Decision {
            outcome: Outcome::Granted,
            reason: Reason::Match,
            door: DoorId::new("front").unwrap(),
            camera: Some(CameraId::new("porch").unwrap()),
            track: TrackId(number),
            person: Some(PersonId::new("p0").unwrap()),
            operator: None,
            evidence: Evidence { frames: 5, quality_band: "high", match_band: "strong", liveness_band: "high" },
            factors: vec![faceid_plus::types::Factor::Face],
            policy: faceid_plus::types::PolicyVersion { id: faceid_plus::types::PolicyId::new("default").unwrap(), version: 1 },
            marks: Vec::new(),
            captured_at: now,
            decided_at: now,
            grant: Some("header.claims.signature".into()),
        },
        person_name: None,
        factors: vec!["face".into()],
        policy: Policy { id: "default".into(), version: 1 },
        clock: clock(),
        expires_at: now.plus(lifetime),
    }
}

fn birth() -> Event {
    Event::Birth(Box::new(Birth {
        version: "0.1.0".into(),
        provider: "tract/cpu".into(),
        gallery_people: 1,
        gallery_templates: 5,
        gallery_epoch: 3,
        gallery_claim: None,
        cameras: vec![],
        doors: vec![],
        match_rates: vec![],
        clock: clock(),
        at: Wall(0),
    }))
}

fn camera(word: CameraWord) -> Event {
    let camera = CameraId::new("porch").unwrap();
    Event::CameraStatus(CameraStatus { camera, status: word, reason: None, at: Wall(0) })
}

/// A subscriber that is already subscribed.
fn subscriber(settings: &Settings, secrets: &Path) -> Subscriber {
    let subscriber = Subscriber::start(settings, secrets, "faceid/gate/#").unwrap();
    wait_until_subscribed(&subscriber);
    subscriber
}

fn wait_until_subscribed(subscriber: &Subscriber) {
    wait_for("the subscription", || (subscriber.next(PATIENCE)? == Notice::Subscribed).then_some(()));
}

/// The next message on the topic below `faceid/gate/`; others are passed over.
fn next(subscriber: &Subscriber, topic: &str) -> Received {
    let topic = format!("faceid/gate/{topic}");
    wait_for(&topic, || match subscriber.next(PATIENCE)? {
        Notice::Message(message) if message.topic == topic => Some(message),
        _ => None,
    })
}

/// What came is as the published contract says.
fn expect_contract(message: &Received) {
    static CONTRACT: std::sync::OnceLock<published::Contract> = std::sync::OnceLock::new();
    let contract = CONTRACT.get_or_init(published::Contract::read);
    contract.check(&message.topic, &message.payload, message.retained).unwrap();
}

fn next_status(subscriber: &Subscriber) -> (String, bool) {
    let message = next(subscriber, "status");
    expect_contract(&message);
    (String::from_utf8(message.payload).unwrap(), message.retained)
}

fn next_decision(subscriber: &Subscriber) -> (Value, Received) {
    let message = next(subscriber, "door/front/decision");
    expect_contract(&message);
    (serde_json::from_slice(&message.payload).unwrap(), message)
}

/// Reads decisions until `last` came; they must be numbered from 1 without a gap, in order at their first coming, and each number
/// must always have the same id.
fn expect_all_decisions(subscriber: &Subscriber, last: u64) -> u64 {
    let mut ids = BTreeMap::new();
    let mut copies = 0;
    while ids.len() < usize::try_from(last).unwrap() {
        let (decision, message) = next_decision(subscriber);
        assert!(!message.retained, "a decision must never be retained");
        let sequence: u64 = decision["sequence"].as_str().unwrap().parse().unwrap();
        let id = decision["id"].as_str().unwrap().to_owned();
        match ids.get(&sequence) {
            Some(known) => {
                assert_eq!(*known, id, "another decision under number {sequence}");
                copies += 1;
            }
            None => {
                assert_eq!(sequence, ids.len() as u64 + 1, "a gap");
                ids.insert(sequence, id);
            }
        }
    }
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), ids.len(), "one id for two decisions");
    copies
}

#[test]
fn a_wrong_password_and_a_missing_one_are_a_clear_state_and_mended_ones_are_taken_up() {
    let broker = Mosquitto::with_password("door", "open sesame");
    let with_user = Settings { user: Some("door".into()), password_secret: Some("mqtt".into()), ..settings(broker.port) };

    let missing = Running::start(with_user.clone(), broker.folder.path());
    assert!(matches!(missing.failure(), Problem::Secret(_)), "{:?}", missing.failure());
    drop(missing);

    secret(broker.folder.path(), "mqtt", b"hunter2\n");
    let wrong = Running::start(with_user, broker.folder.path());
    let problem = wrong.failure();
    assert!(matches!(problem, Problem::Credentials { .. }), "{problem:?}");
    assert!(!problem.to_string().contains("hunter2"));
    secret(broker.folder.path(), "mqtt", b"open sesame\n");
    wrong.wait_until_online();

    let nobody = Running::start(Settings { client_id: Some("other".into()), ..settings(broker.port) }, nowhere());
    assert!(matches!(nobody.failure(), Problem::Credentials { .. }));
}

#[test]
fn a_broker_that_comes_late_gets_everything() {
    let mut broker = Mosquitto::prepared(|_| "allow_anonymous true\n".into());
    // The daemon reaches the broker over a wire that is joined when the subscriber is there to count.
    let wire = Wire::to(broker.port);
    let running = Running::start(settings(wire.port), nowhere());
    running.failure();
    (1..=5).for_each(|number| running.decide(number, MINUTE));
    wire.cut();
    broker.start();
    let subscriber = subscriber(&settings(broker.port), nowhere());
    wire.join();
    expect_all_decisions(&subscriber, 5);
    running.wait_until_delivered(5);
}

#[test]
fn nobody_listening_is_a_clear_state_and_a_stop_is_still_quick() {
    let broker = Mosquitto::prepared(|_| String::new());
    let mut running = Running::start(settings(broker.port), nowhere());
    assert!(matches!(running.failure(), Problem::Unreachable { .. }));
    running.decide(1, MINUTE);
    running.stop();
    assert_eq!(running.publisher.state(), State::Stopped);
    assert_eq!(running.publisher.counts().decisions_waiting, 1);
}

#[test]
fn a_broker_that_answers_nothing_is_left_and_the_decision_is_kept() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
        // CONNACK with success and no properties; never a PUBACK.
        socket.write_all(&[0x20, 0x03, 0x00, 0x00, 0x00]).unwrap();
        while socket.read(&mut [0; 1024]).is_ok_and(|bytes| bytes > 0) {}
    });
    let running = Running::start(Settings { ack_timeout_s: 1, ..settings(port) }, nowhere());
    running.decide(1, MINUTE);
    wait_for("the broker to be left", || broker.is_finished().then_some(()));
    assert!(matches!(running.failure(), Problem::Lost { .. } | Problem::Unreachable { .. }));
    assert_eq!(running.publisher.counts().decisions_waiting, 1);
}

#[test]
fn a_broker_killed_in_the_middle_costs_no_decision_and_no_state() {
    let mut broker = Mosquitto::open();
    let wire = Wire::to(broker.port);
    let subscriber = subscriber(&settings(broker.port), nowhere());
    let running = Running::start(settings(wire.port), nowhere());
    running.publisher.publish(birth());
    running.publisher.publish(camera(CameraWord::Online));
    (1..=20).for_each(|number| running.decide(number, MINUTE));
    running.wait_until_delivered(20);
    // What the broker has taken and not yet handed on goes with it.
    expect_all_decisions(&subscriber, 20);
    wire.cut();
    broker.kill();
    (21..=40).for_each(|number| running.decide(number, MINUTE));
    broker.start();
    wait_until_subscribed(&subscriber);
    wire.join();
    (41..=60).for_each(|number| running.decide(number, MINUTE));
    let mut expected = 21;
    while expected <= 60 {
        let (decision, _) = next_decision(&subscriber);
        assert_eq!(decision["sequence"].as_str().unwrap().parse::<u64>().unwrap(), expected);
        assert_eq!(decision["data"]["historical"], false);
        expected += 1;
    }
    running.wait_until_delivered(60);

    // The new broker knew nothing, and knows the states again.
    let newcomer = self::subscriber(&settings(broker.port), nowhere());
    let mut retained = BTreeSet::new();
    wait_for("the retained states", || {
        if let Notice::Message(message) = newcomer.next(PATIENCE)? {
            assert!(message.retained);
            retained.insert(message.topic);
        }
        (retained.len() == 3).then_some(())
    });
    let topics: Vec<&str> = retained.iter().map(String::as_str).collect();
    assert_eq!(topics, ["faceid/gate/birth", "faceid/gate/camera/porch/status", "faceid/gate/status"]);
}

#[test]
fn a_wire_cut_again_and_again_under_load_loses_no_decision_and_makes_no_gap() {
    const CUTS: u64 = 20;
    const BETWEEN: u64 = 10;
    let broker = Mosquitto::open();
    let wire = Wire::to(broker.port);
    let subscriber = subscriber(&settings(broker.port), nowhere());
    let running = Running::start(settings(wire.port), nowhere());
    for cut in 0..CUTS {
        running.wait_until_online();
        for number in 1..=BETWEEN {
            running.decide(cut * BETWEEN + number, MINUTE);
            if number == BETWEEN / 2 {
                wire.cut();
                // A cut that nobody noticed would prove nothing.
                running.failure();
                wire.join();
            }
        }
    }
    let copies = expect_all_decisions(&subscriber, CUTS * BETWEEN);
    running.wait_until_delivered(CUTS * BETWEEN);
    println!("{copies} copies of {} decisions after {CUTS} cuts", CUTS * BETWEEN);
    assert_eq!(running.publisher.counts().decisions_lost, 0);
}

#[test]
fn a_grant_that_expired_while_the_broker_was_away_is_delivered_as_history_without_it() {
    let broker = Mosquitto::open();
    let subscriber = subscriber(&settings(broker.port), nowhere());
    let running = Running::start(settings(broker.port), nowhere());
    running.decide(1, Duration::ZERO);
    running.decide(2, MINUTE);
    let (late, message) = next_decision(&subscriber);
    assert_eq!((late["data"]["historical"].as_bool(), late["data"].get("grant")), (Some(true), None));
    assert_eq!(message.expiry_s, None);
    let (live, message) = next_decision(&subscriber);
    assert_eq!(
        (live["data"]["historical"].as_bool(), live["data"]["grant"].as_str()),
        (Some(false), Some("header.claims.signature"))
    );
    assert!((1..=60).contains(&message.expiry_s.unwrap()), "{message:?}");
}

#[test]
fn a_lost_connection_says_lost_and_a_clean_stop_says_offline() {
    let broker = Mosquitto::open();
    let wire = Wire::to(broker.port);
    let subscriber = subscriber(&settings(broker.port), nowhere());
    let mut running = Running::start(settings(wire.port), nowhere());
    assert_eq!(next_status(&subscriber), ("online".into(), false));
    wire.cut();
    assert_eq!(next_status(&subscriber), ("lost".into(), false));
    assert_eq!(next_status(&self::subscriber(&settings(broker.port), nowhere())), ("lost".into(), true));
    wire.join();
    assert_eq!(next_status(&subscriber), ("online".into(), false));
    running.decide(1, MINUTE);
    running.stop();
    assert_eq!(next_decision(&subscriber).0["id"], Uuid::from_u128(1).to_string(), "delivered before the goodbye");
    assert_eq!(next_status(&subscriber), ("offline".into(), false));
    assert_eq!(next_status(&self::subscriber(&settings(broker.port), nowhere())), ("offline".into(), true));
}

#[test]
fn a_broker_that_forbids_the_topics_is_a_clear_state_and_the_decision_is_kept() {
    let mut broker = Mosquitto::prepared(|folder| {
        let file = folder.join("acl");
        std::fs::write(&file, "topic read faceid/#\ntopic write faceid/gate/status\n").unwrap();
        format!("allow_anonymous true\nacl_file {}\n", file.display())
    });
    broker.start();
    let running = Running::start(settings(broker.port), nowhere());
    running.decide(1, MINUTE);
    let refusal = wait_for("the refusal", || match running.publisher.state() {
        State::Online { refusal } => refusal,
        _ => None,
    });
    assert!(refusal.contains("NotAuthorized"), "{refusal}");
    assert_eq!(running.publisher.counts().decisions_waiting, 1);
}

#[test]
fn tls_trusts_its_authority_alone() {
    let certificates = Certificates::make();
    let broker = Mosquitto::with_tls(&certificates, false);
    let with_ca = |name: &str| Settings {
        host: "localhost".into(),
        tls: Tls { enabled: true, ca_file: certificates.path(name), ..Tls::default() },
        ..settings(broker.port)
    };
    let deceived = Running::start(with_ca("other.pem"), nowhere());
    assert!(matches!(deceived.failure(), Problem::Untrusted { .. }), "{:?}", deceived.failure());
    let empty = Running::start(with_ca("server.ext"), nowhere());
    assert!(matches!(empty.failure(), Problem::Setup(_)), "{:?}", empty.failure());
    let plain = Running::start(settings(broker.port), nowhere());
    let problem = plain.failure();
    assert!(!matches!(problem, Problem::Unreachable { .. }), "{problem:?}");
    drop((deceived, empty, plain));

    let subscriber = subscriber(&with_ca("ca.pem"), nowhere());
    let running = Running::start(with_ca("ca.pem"), nowhere());
    (1..=3).for_each(|number| running.decide(number, MINUTE));
    expect_all_decisions(&subscriber, 3);
}

#[test]
fn a_broker_that_wants_a_client_certificate_gets_it_from_the_secrets() {
    let certificates = Certificates::make();
    let broker = Mosquitto::with_tls(&certificates, true);
    let tls = Tls { enabled: true, ca_file: certificates.path("ca.pem"), ..Tls::default() };
    let without = Settings { host: "localhost".into(), tls: tls.clone(), ..settings(broker.port) };
    let with = Settings {
        tls: Tls {
            client_certificate_file: Some(certificates.path("client.pem")),
            client_key_secret: Some("client.key".into()),
            ..tls
        },
        ..without.clone()
    };
    let secrets = certificates.path("");

    let refused = Running::start(without, &secrets);
    let problem = refused.failure();
    assert!(matches!(problem, Problem::ClientCertificate { .. } | Problem::Tls { .. }), "{problem:?}");
    drop(refused);

    let subscriber = subscriber(&with, &secrets);
    let running = Running::start(with, &secrets);
    running.decide(1, MINUTE);
    expect_all_decisions(&subscriber, 1);
}

#[cfg(feature = "demo-broker")]
#[test]
fn the_demos_broker_does_all_that_the_demo_needs() {
    let (_handle, stop) = stop::pair();
    let port = faceid_plus::publish::broker::start(0, &stop).unwrap();
    assert!(faceid_plus::publish::broker::start(port, &stop).is_err(), "the port is taken");
    let wire = Wire::to(port);
    let subscriber = subscriber(&settings(port), nowhere());
    let mut running = Running::start(settings(wire.port), nowhere());
    running.publisher.publish(birth());
    running.publisher.publish(camera(CameraWord::Online));
    assert_eq!(next_status(&subscriber).0, "online");
    (1..=100).for_each(|number| running.decide(number, MINUTE));
    expect_all_decisions(&subscriber, 100);
    running.wait_until_delivered(100);
    wire.cut();
    assert_eq!(next_status(&subscriber).0, "lost");
    wire.join();
    assert_eq!(next_status(&subscriber).0, "online");
    running.decide(101, MINUTE);
    let (decision, message) = next_decision(&subscriber);
    assert_eq!(decision["sequence"], "00000000000000000101");
    assert!((1..=60).contains(&message.expiry_s.unwrap()), "{message:?}");

    let newcomer = self::subscriber(&settings(port), nowhere());
    let mut retained = BTreeSet::new();
    wait_for("the retained states", || {
        if let Notice::Message(message) = newcomer.next(PATIENCE)? {
            retained.insert(message.topic);
        }
        (retained.len() >= 3).then_some(())
    });
    running.stop();
    assert_eq!(next_status(&subscriber).0, "offline");
}

#[test]
fn what_home_assistant_shows_as_a_state_awaits_whoever_comes_late_and_no_event_does() {
    let broker = Mosquitto::open();
    let running = Running::start(settings(broker.port), nowhere());
    let listener = subscriber(&settings(broker.port), nowhere());
    let (front, porch) = (DoorId::new("front").unwrap(), CameraId::new("porch").unwrap());
    let presence = Presence { camera: porch.clone(), faces: 1, people: Vec::new() };
    running.publisher.publish(camera(CameraWord::Online));
    running.publisher.publish(Event::Presence(PresenceEvent { presence, at: Wall(0) }));
    running.publisher.publish(Event::DoorBlock(DoorBlock { door: front.clone(), faces: None, credentials: None, at: Wall(0) }));
    running.publisher.publish(Event::DoorAccess(DoorAccess {
        door: front.clone(),
        mode: "normal",
        locked_down: false,
        held_until: None,
        last: None,
        at: Wall(0),
    }));
    running.decide(1, MINUTE);
    let detail = String::new();
    running.publisher.publish(Event::Alarm(Alarm {
        kind: AlarmKind::Spoof,
        door: Some(front.clone()),
        camera: None,
        detail,
        at: Wall(0),
    }));
    // The device is told of at home, and its door's controller tells the door's state.
    let device = DeviceId::new("gate").unwrap();
    let site = discovery::Site {
        device: &device,
        root: "faceid/gate",
        version: "0.1.0",
        cameras: &[porch],
        doors: &[(front.clone(), true)],
    };
    let text = discovery::payload(&site, &BTreeMap::new());
    let topic = "faceid/gate/door/front/state".to_owned();
    listener.say(Said { topic, payload: "locked".into(), retained: true, ..Said::default() });

    let heard = |subscriber: &Subscriber, until: usize| {
        let mut heard = BTreeMap::new();
        wait_for("what was published", || {
            if let Notice::Message(message) = subscriber.next(PATIENCE)? {
                heard.insert(message.topic, message.retained);
            }
            (heard.len() >= until).then_some(())
        });
        heard
    };
    let mut live = heard(&listener, 8);
    live.retain(|_, retained| !*retained);
    running.wait_until_delivered(1);
    let late = subscriber(&settings(broker.port), nowhere());
    let kept = heard(&late, 6);
    // Nothing else comes: the broker hands out what it keeps before it answers to a later word.
    late.say(Said { topic: "faceid/gate/end".into(), payload: "end".into(), ..Said::default() });
    wait_for("the end of what is kept", || match late.next(PATIENCE)? {
        Notice::Message(message) => {
            assert!(message.topic == "faceid/gate/end" || kept.contains_key(&message.topic), "{message:?} is kept");
            (message.topic == "faceid/gate/end").then_some(())
        }
        _ => None,
    });
    assert!(kept.values().all(|retained| *retained));
    let message: Value = serde_json::from_str(&text).unwrap();
    let matches = |filter: &str, topic: &str| filter.strip_suffix('+').map_or(filter == topic, |stem| topic.starts_with(stem));
    let (mut states, mut events) = (0, 0);
    for (name, component) in message["components"].as_object().unwrap() {
        let Some(filter) = component["state_topic"].as_str() else { continue };
        let is_kept = kept.keys().any(|topic| matches(filter, topic));
        if component["platform"] == "event" {
            events += 1;
            assert!(!is_kept, "{name}: whoever subscribes would hear an old event as a new one");
            assert!(live.keys().any(|topic| matches(filter, topic)), "{name} was told to those who listened");
        } else {
            states += 1;
            assert!(is_kept, "{name} would be unknown after a restart of Home Assistant");
        }
    }
    assert!(states >= 4 && events == 2, "{states} states, {events} events");
    assert!(kept.contains_key("faceid/gate/status"), "its availability");
}

#[test]
fn home_assistants_start_brings_the_discovery_again_and_its_end_does_not() {
    let broker = Mosquitto::open();
    let (publisher, mut worker) = Publisher::new(settings(broker.port), context(), nowhere());
    let (passages, folder) = (BTreeMap::new(), tempfile::tempdir().unwrap());
    let device = DeviceId::new("gate").unwrap();
    let passages = Passages::new(device.clone(), passages, (&folder.path().join("passages"), true), now()).unwrap();
    let (lanes, _inlet) = lanes("faceid/gate", [], Judge::new(device, None), passages.judge().clone());
    worker.hear_commands(lanes);
    let (handle, stop) = stop::pair();
    let thread = std::thread::spawn(move || worker.run(&stop, &|| {}));
    let running = Running { publisher, stop: handle, thread: Some(thread) };
    let (device, door) = (DeviceId::new("gate").unwrap(), DoorId::new("front").unwrap());
    let site = discovery::Site { device: &device, root: "faceid/gate", version: "0.1.0", cameras: &[], doors: &[(door, false)] };
    let payload = discovery::payload(&site, &BTreeMap::new());
    let topic = discovery::topic(discovery::DEFAULT_PREFIX, &device);
    let home = Subscriber::start(&settings(broker.port), nowhere(), "homeassistant/#").unwrap();
    wait_until_subscribed(&home);
    let found = || {
        wait_for("the discovery", || match home.next(PATIENCE)? {
            Notice::Message(message) if message.topic == topic => Some(message.payload),
            _ => None,
        })
    };
    running.publisher.publish(Event::Discovery(Box::new(Discovery { topic: topic.clone(), payload: payload.clone() })));
    assert_eq!(found(), payload.as_bytes());
    let say = |word: &str| {
        home.say(Said { topic: discovery::DEFAULT_BIRTH_TOPIC.into(), payload: word.into(), ..Said::default() });
    };
    say("offline");
    say("online");
    assert_eq!(found(), payload.as_bytes(), "it is said again");
    // Once for the start and not for the end: the next that comes answers the next start, after our own word.
    say("offline");
    let mut before = 0;
    wait_for("our own word", || match home.next(PATIENCE)? {
        Notice::Message(message) if message.topic == topic => {
            before += 1;
            None
        }
        Notice::Message(message) => (message.payload == b"offline").then_some(()),
        _ => None,
    });
    say("online");
    assert_eq!(found(), payload.as_bytes());
    assert_eq!(before, 0, "once for one start");
}
