//! What an operator does at doors from a desk, over a real mosquitto with the real daemon and the real door agent: opened once, held open,
//! locked down meanwhile, each by the right that the policy gives and takes back with a reload.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use faceid_plus::publish::{Notice, Received, Subscriber};
use serde_json::Value;

use super::answers::Daemon;
use super::mosquitto::{Mosquitto, PATIENCE, wait_for};
use super::published::Contract;
use super::{expect_contract, nowhere, settings, wait_until_subscribed};

/// The agent at the door, whose lock prints what it does.
struct Door {
    child: Child,
    says: Receiver<String>,
}

impl Door {
    fn start(daemon: &Daemon) -> Self {
        let mut child = daemon.command(&["door"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mouth, says) = channel();
        let ends: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for end in ends {
            let mouth = mouth.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(end).lines().map_while(Result::ok) {
                    eprintln!("door: {line}");
                    if mouth.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, says }
    }

    fn until(&self, wanted: &str) {
        wait_for(wanted, || self.says.recv_timeout(PATIENCE).ok().filter(|line| line.contains(wanted)));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the command line says of a command: whether it was followed, and the answer.
fn commanded(daemon: &Daemon, verb: &str, args: &str) -> (bool, Value) {
    let output = daemon.command(&["command", verb, "--args", args]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{verb}: {answer} {output:?}")))
}

fn reload(daemon: &Daemon) {
    let child = daemon.child.as_ref().unwrap().id().to_string();
    assert!(Command::new("kill").args(["-HUP", &child]).status().unwrap().success());
}

/// Everything that daemon, controller and command line say meanwhile must be as the published contract says.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Received>>,
}

impl Witness {
    fn start(broker: u16) -> Self {
        let ear = Subscriber::start(&settings(broker), nowhere(), "#").unwrap();
        wait_until_subscribed(&ear);
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                if let Some(Notice::Message(message)) = ear.next(Duration::from_millis(100)) {
                    all.push(message);
                }
            }
            all
        });
        Self { stop, thread }
    }

    /// The kinds that came.
    fn kinds(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        let contract = Contract::read();
        let (answers, all): (Vec<_>, Vec<_>) =
            self.thread.join().unwrap().into_iter().partition(|message| message.topic.starts_with("faceid-operator/"));
        // An answer is the same wherever it goes.
        for answer in answers {
            expect_contract(&Received { topic: "faceid/unit/cmd/ping/reply".into(), ..answer });
        }
        all.iter().for_each(expect_contract);
        all.iter().map(|message| contract.kind_on(&message.topic).unwrap().to_owned()).collect()
    }
}

#[test]
fn an_operator_opens_and_holds_a_door_by_the_right_that_a_reload_gives_and_a_lock_down_ends_it() {
    let broker = Mosquitto::open();
    let witness = Witness::start(broker.port);
    let daemon = Daemon::start(broker.port);
    let folder = daemon.folder.path();
    let keys = folder.join("device.json");
    std::fs::write(&keys, daemon.succeed(&["keygen", "--public"])).unwrap();
    let operators: Value = serde_json::from_slice(&std::fs::read(folder.join("operators.json")).unwrap()).unwrap();
    let key = operators["keys"][0]["kid"].as_str().unwrap();
    let append = |text: &str| {
        let mut config = std::fs::OpenOptions::new().append(true).open(folder.join("config.toml")).unwrap();
        config.write_all(text.as_bytes()).unwrap();
    };
    append(&format!("[controller]\ndoor = \"front\"\nlock = \"print\"\npinned-keys = \"{}\"\n", keys.display()));
    let door = Door::start(&daemon);
    door.until("listening for decisions");
    let ear = Subscriber::start(&settings(broker.port), nowhere(), "faceid/unit/door/front/access").unwrap();
    wait_until_subscribed(&ear);
    let access = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        wait_for(what, || {
            let Notice::Message(message) = ear.next(PATIENCE)? else { return None };
            serde_json::from_slice::<Value>(&message.payload).ok().filter(|access| is_so(access))
        })
    };
    access("the door as its rules say", &|access| access["mode"] == "normal" && access["locked_down"] == false);

    let (is_done, answer) = commanded(&daemon, "open", r#"{"door":"front"}"#);
    assert!(!is_done && answer["error"].as_str().unwrap().contains("[[policy.operators]]"), "{answer}");
    // A config with a mistake changes nothing of what is in force.
    let good = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    let operators = |key: &str| format!("[[policy.operators]]\nkey = \"{key}\"\nmay = [\"open\", \"hold-open\"]\n");
    std::fs::write(folder.join("config.toml"), format!("{good}{}[policy]\nid = 7\n", operators(key))).unwrap();
    let before = daemon.logged.load(Ordering::SeqCst);
    reload(&daemon);
    wait_for("the refused config", || (daemon.logged.load(Ordering::SeqCst) >= before + 2).then_some(()));
    std::fs::write(folder.join("config.toml"), &good).unwrap();
    assert!(!commanded(&daemon, "open", r#"{"door":"front"}"#).0);
    std::fs::write(folder.join("config.toml"), good + &operators(key)).unwrap();
    reload(&daemon);
    // The broker must have been heard, and the door takes nothing of the second in which it started.
    wait_for("the opening", || {
        let is_done = commanded(&daemon, "open", r#"{"door":"front"}"#).0;
        let unlocked = || door.says.recv_timeout(Duration::from_millis(500)).is_ok_and(|line| line.contains("unlock"));
        (is_done && (0..4).any(|_| unlocked())).then_some(())
    });
    door.until("front: lock");
    access("the opening", &|access| access["last"]["reason"] == "operator");

    let (is_done, answer) = commanded(&daemon, "hold-open", r#"{"doors":["front"],"seconds":600}"#);
    assert!(is_done, "{answer}");
    door.until("unlock");
    access("the hold", &|access| access["held_open_until"].is_string());
    assert!(commanded(&daemon, "lockdown", r#"{"doors":["front"]}"#).0);
    door.until("front: lock");
    access("the lock-down", &|access| access["locked_down"] == true && access["held_open_until"].is_null());
    for (verb, args) in [("open", r#"{"door":"front"}"#), ("hold-open", r#"{"doors":["front"],"seconds":60}"#)] {
        let (is_done, answer) = commanded(&daemon, verb, args);
        assert!(!is_done && answer["error"].as_str().unwrap().contains("locked down"), "{answer}");
    }
    assert!(commanded(&daemon, "release", r#"{"doors":["front"]}"#).0);
    // The operator's key is unpinned: from the reload on it commands nothing, and nobody answers as if it did.
    assert!(commanded(&daemon, "hold-open", r#"{"doors":["front"],"seconds":600}"#).0);
    door.until("unlock");
    let other = folder.join("other.key");
    std::fs::write(folder.join("operators.json"), daemon.succeed(&["keygen", "--operator", other.to_str().unwrap()])).unwrap();
    reload(&daemon);
    wait_for("the other key", || (!commanded(&daemon, "ping", "{}").0).then_some(()));
    let kinds = witness.kinds();
    for kind in [
        "access",
        "audit-head",
        "birth",
        "command",
        "decision",
        "discovery",
        "door-state",
        "hold",
        "keys",
        "reply",
        "status",
        "throttle",
    ] {
        assert!(kinds.contains(kind), "{kind} did not come: {kinds:?}");
    }
}
