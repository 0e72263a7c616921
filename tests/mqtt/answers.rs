//! Commands and their answers over a real mosquitto, by the real daemon: an answer goes to the response topic with the correlation data
//! that came, unless the topic is one on which nobody may be answered, and a refusal is answered like anything else.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mosquitto::{Mosquitto, PATIENCE, wait_for};
use super::{MINUTE, Running, next, next_decision, nowhere, settings, wait_until_subscribed};
use faceid_plus::publish::{Event, Notice, Received, Reply, Said, State, Subscriber};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// Everybody may read all and write a node's topics, the operators' and those of other locks; a desk is not among them.
const RULES: &str = "topic read #\ntopic write faceid/#\ntopic write faceid-operator/#\ntopic write zigbee2mqtt/#\n";

pub(super) struct Daemon {
    pub(super) folder: TempDir,
    pub(super) child: Option<Child>,
    /// How many lines it has logged.
    pub(super) logged: Arc<AtomicUsize>,
}

impl Daemon {
    /// A daemon whose camera is away, with an operator of its own.
    pub(super) fn start(broker: u16) -> Self {
        let mut daemon = Self { folder: tempfile::tempdir().unwrap(), child: None, logged: Arc::default() };
        daemon.succeed(&["keygen"]);
        let operators = daemon.folder.path().join("operators.json");
        std::fs::write(
            &operators,
            daemon.succeed(&["keygen", "--operator", daemon.folder.path().join("operator.key").to_str().unwrap()]),
        )
        .unwrap();
        let config = format!(
            "device = \"unit\"\n[models]\npack = \"builtin\"\n[access]\naccept-demo-pack = true\n[inference]\nbackend = \"tract\"\n\
             [publish]\nhost = \"127.0.0.1\"\nport = {broker}\noperator-keys = \"{}\"\n\
             [[cameras]]\nid = \"away\"\n[cameras.source.rtsp]\nurl = \"rtsp://127.0.0.1:{broker}/away\"\n\
             [[doors]]\nid = \"front\"\ncameras = [\"away\"]\n",
            operators.display(),
        );
        std::fs::write(daemon.folder.path().join("config.toml"), config).unwrap();
        let path = daemon.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = daemon.command(&["run"]).env("NOTIFY_SOCKET", &path).stderr(Stdio::piped()).spawn().unwrap();
        let (log, logged) = (BufReader::new(child.stderr.take().unwrap()), daemon.logged.clone());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                logged.fetch_add(1, Ordering::SeqCst);
                eprintln!("{line}");
            }
        });
        daemon.child = Some(child);
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&buffer).contains("READY=1") {
            let length = socket.recv(&mut buffer).expect("the daemon is not ready");
            buffer[length..].fill(0);
        }
        daemon
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faceid"));
        let config = self.folder.path().join("config.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        for (name, folder) in [("FACEID_STATE_DIR", "state"), ("FACEID_SECRETS_DIR", "secrets"), ("FACEID_MODELS_DIR", "models")] {
            command.env(name, self.folder.path().join(folder));
        }
        command.env("FACEID_OPERATOR_KEY", self.folder.path().join("operator.key"));
        for name in ["FACEID_CONFIG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(name);
        }
        command.args(words);
        command
    }

    pub(super) fn succeed(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command that an operator signed.
    pub(super) fn signed(&self, verb: &str) -> String {
        self.succeed(&["command", verb, "--print"]).trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Everything that is an answer, until one came with this correlation data on the operators' topic.
fn answers(ear: &Subscriber, last: &[u8]) -> BTreeMap<Vec<u8>, Vec<Received>> {
    let mut answers: BTreeMap<Vec<u8>, Vec<Received>> = BTreeMap::new();
    wait_for("the last answer", || {
        let Notice::Message(message) = ear.next(PATIENCE)? else { return None };
        let Ok(content) = serde_json::from_slice::<Value>(&message.payload) else { return None };
        // What is asked has no `ok` of its own.
        if content["ok"].is_boolean() {
            let correlation = message.correlation.clone().unwrap_or_default();
            let is_last = correlation == last && message.topic.starts_with("faceid-operator/");
            answers.entry(correlation).or_default().push(message);
            return is_last.then_some(());
        }
        None
    });
    answers
}

fn listen(port: u16) -> Subscriber {
    let subscriber = Subscriber::start(&settings(port), nowhere(), "#").unwrap();
    wait_until_subscribed(&subscriber);
    subscriber
}

#[test]
fn a_command_is_answered_where_and_as_its_sender_asks_unless_nobody_may_be_answered_there() {
    let mut broker = Mosquitto::prepared(|folder| {
        let file = folder.join("acl");
        std::fs::write(&file, RULES).unwrap();
        format!("allow_anonymous true\nacl_file {}\n", file.display())
    });
    broker.start();
    let daemon = Daemon::start(broker.port);
    let (ear, mouth) = (listen(broker.port), listen(broker.port));
    let say = |verb: &str, payload: &str, topic: &str, correlation: &[u8]| {
        let answer = Some((topic.to_owned(), correlation.to_vec()));
        let topic = format!("faceid/unit/cmd/{verb}");
        mouth.say(Said { topic, payload: payload.to_owned(), answer, ..Said::default() });
    };

    // Correlation data is bytes, not text.
    let is_answered = |bytes: &[u8; 3], is_obeyed: bool, error: &str, verb: &str| {
        let mut heard = answers(&ear, bytes);
        let heard = heard.remove(bytes.as_slice()).unwrap();
        let own = format!("faceid/unit/cmd/{verb}/reply");
        assert_eq!(heard.iter().map(|m| m.topic.as_str()).collect::<Vec<_>>(), [own.as_str(), "faceid-operator/desk"]);
        assert_eq!(heard[0].payload, heard[1].payload);
        let content: Value = serde_json::from_slice(&heard[1].payload).unwrap();
        assert_eq!((content["ok"].as_bool(), content["verb"].as_str()), (Some(is_obeyed), Some(verb)), "{content}");
        assert!(content["error"].as_str().unwrap_or_default().contains(error), "{content}");
    };
    let token = daemon.signed("ping");
    say("ping", &token, "faceid-operator/desk", &[0, 0xff, 1]);
    is_answered(&[0, 0xff, 1], true, "", "ping");
    say("ping", &token, "faceid-operator/desk", &[0, 0xff, 2]);
    is_answered(&[0, 0xff, 2], false, "nonce", "ping");
    say("release", "UNLOCK", "faceid-operator/desk", &[0, 0xff, 3]);
    is_answered(&[0, 0xff, 3], false, "not signed by an operator", "release");
    say("lockdown", &daemon.signed("ping"), "faceid-operator/desk", &[0, 0xff, 4]);
    is_answered(&[0, 0xff, 4], false, "another device or verb", "lockdown");

    // What no operator signed, or was refused, is answered below `faceid-operator/` alone: nobody chooses for us what else we write. A
    // copy of a command has the response topic that its copier likes.
    for (verb, payload, number) in [("ping", "ping", 5), ("release", "UNLOCK", 6), ("ping", token.as_str(), 7)] {
        say(verb, payload, "faceid-operator", &[0, 0xff, number]);
        say(verb, payload, "zigbee2mqtt/frontdoor/set", &[0, 0xff, number]);
    }

    // Where nobody is answered: the nodes' own topics, ours and another's, Home Assistant's, the broker's, what is no topic (mosquitto
    // hands on even wildcards), and, by the broker's rules alone, a desk. What may be answered elsewhere is answered on our own topic, and the next one is answered as asked.
    let long = "x".repeat(257);
    let refused = [
        "faceid/unit/door/front/decision",
        "faceid/other/door/front/decision",
        "homeassistant/device/unit/config",
        "$SYS/faceid",
        "faceid-operator/#",
        "faceid-operator/+",
        "",
        &long,
        "desk/7",
    ];
    for (topic, number) in refused.iter().zip(10..) {
        say("ping", &daemon.signed("ping"), topic, &[0, 0xff, number]);
    }
    say("ping", &daemon.signed("ping"), "faceid-operator/desk", &[9; 1025]);
    say("ping", &daemon.signed("ping"), "faceid-operator/desk", &[0, 0xff, 99]);
    let heard = answers(&ear, &[0, 0xff, 99]);
    let topics = |correlation: &[u8]| heard[correlation].iter().map(|m| m.topic.as_str()).collect::<Vec<_>>();
    for (topic, number) in refused.iter().zip(10..) {
        assert_eq!(topics(&[0, 0xff, number]), ["faceid/unit/cmd/ping/reply"], "{topic}");
    }
    assert_eq!(topics(&[]), ["faceid/unit/cmd/ping/reply"], "more correlation data than is brought back");
    assert_eq!(topics(&[0, 0xff, 99]), ["faceid/unit/cmd/ping/reply", "faceid-operator/desk"]);
    for number in [5, 6, 7] {
        let own = topics(&[0, 0xff, number]);
        assert!(own.len() == 2 && own.iter().all(|topic| topic.starts_with("faceid/unit/cmd/")), "{own:?}");
    }
    assert_eq!(heard.len(), refused.len() + 2 + 3);
    let is_obeyed = |m: &&Received| serde_json::from_slice::<Value>(&m.payload).unwrap()["ok"] == true;
    let late = heard.iter().filter(|(correlation, _)| !matches!(correlation.as_slice(), [0, 0xff, 5..=7]));
    assert!(
        late.flat_map(|(_, answers)| answers).all(|answer| is_obeyed(&answer)),
        "where the answer goes does not change what is done"
    );
}

#[test]
fn an_answer_that_its_correlation_data_makes_too_large_for_the_broker_ends_no_connection() {
    let mut broker = Mosquitto::prepared(|_| "allow_anonymous true\nmax_packet_size 2500\n".to_owned());
    broker.start();
    let running = Running::start(settings(broker.port), nowhere());
    running.wait_until_online();
    let reply = |bytes| {
        let correlation = Some(vec![7; bytes]);
        let payload = format!("{{\"ok\":true,\"result\":\"{}\"}}", "x".repeat(1500));
        Event::Reply(Reply { topic: "cmd/list/reply".into(), elsewhere: false, payload, correlation })
    };
    let ear = listen(broker.port);
    running.publisher.publish(reply(1024));
    running.publisher.publish(reply(512));
    running.decide(1, MINUTE);
    let answer = next(&ear, "cmd/list/reply");
    assert_eq!(answer.correlation, Some(vec![7; 512]), "the larger one was given up");
    assert_eq!(next_decision(&ear).0["id"], Uuid::from_u128(1).to_string());
    assert_eq!(running.publisher.counts().events_dropped, 1);
    assert!(matches!(running.publisher.state(), State::Online { refusal: Some(_) }), "{:?}", running.publisher.state());
}
