//! What a hostile broker, or a hostile user of an honest one, costs the door's controller: bounded memory, bounded lines, and no grant.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faceid_plus::access::grant::{GrantKey, KeySet};
use faceid_plus::publish::Said;
use faceid_plus::system::stop;

use super::hostile::{ALL, Hostile, Manner, peak_memory};
use super::mosquitto::wait_for;
use super::{Controller, Scene};

/// What a controller may take, in bytes; the unit's `MemoryHigh` leaves room for the lock's program beside it.
const MOST_MEMORY: u64 = 64 << 20;

/// How long the floods last: seconds in a test run, as long as somebody wants otherwise.
fn flood_time() -> Duration {
    Duration::from_secs(std::env::var("FACEID_FLOOD_SECONDS").map_or(12, |text| text.parse().unwrap()))
}

/// A controller on a broker that is an enemy, with the lines that it has logged.
fn controller(port: u16, longest_wait_ms: u32, lines: &Arc<Mutex<Vec<String>>>) -> (Controller, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let key = GrantKey::generate().unwrap();
    std::fs::write(folder.path().join("keys.json"), KeySet::new([key.public()]).to_jwk_set()).unwrap();
    let config = format!(
        "device = \"gate\"\nstate-dir = \"{path}/state\"\n[publish]\nhost = \"127.0.0.1\"\nport = {port}\nretry-floor-ms = 20\n\
         retry-ceiling-ms = {longest_wait_ms}\n[controller]\ndoor = \"front\"\npinned-keys = \"{path}/keys.json\"\n"
    );
    std::fs::write(folder.path().join("door.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_faceid"));
    command.args(["door", "--config"]).arg(folder.path().join("door.toml"));
    command.env_remove("FACEID_STATE_DIR").env_remove("NOTIFY_SOCKET").env_remove("RUST_LOG");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, doings) = std::sync::mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let (log, kept) = (BufReader::new(child.stderr.take().unwrap()), lines.clone());
    std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
    (Controller { child, lines: doings }, folder)
}

#[test]
fn a_hostile_broker_fills_neither_the_memory_nor_the_log_and_opens_nothing() {
    let broker = Hostile::start(&ALL, Duration::from_secs(1), "faceid/gate/door/front/decision", 32 * 1024);
    let lines = Arc::default();
    let (mut controller, _folder) = controller(broker.port, 100, &lines);
    let (_handle, clock) = stop::pair();
    let until = Instant::now() + flood_time();
    let mut rounds = 0;
    while Instant::now() < until || rounds < 2 {
        assert_eq!(controller.child.try_wait().unwrap(), None, "the controller ended: {:?}", lines.lock().unwrap());
        let peak = peak_memory(controller.child.id());
        assert!(peak <= MOST_MEMORY, "{} MiB after {} connections", peak >> 20, broker.connections());
        clock.sleep(Duration::from_millis(50));
        rounds = broker.connections() / ALL.len();
    }
    let (peak, logged) = (peak_memory(controller.child.id()), lines.lock().unwrap().len());
    println!("{} MiB at most, {} connections, {logged} lines", peak >> 20, broker.connections());
    // What differs from the one before is news, connection by connection; nothing is a line a message.
    assert!(logged <= 100 + 3 * broker.connections(), "{logged} lines");
    assert!(controller.lines.try_iter().all(|line| line != "door front: unlock"));
}

#[test]
fn topic_aliases_that_nobody_offered_are_kept_by_nobody() {
    let broker = Hostile::start(&[Manner::Aliases], Duration::from_secs(60), "faceid/gate/door/front/decision", 32 * 1024);
    let lines = Arc::default();
    let (controller, _folder) = controller(broker.port, 100, &lines);
    wait_for("ten connections", || (broker.connections() >= 10).then_some(()));
    let peak = peak_memory(controller.child.id());
    assert!(peak <= MOST_MEMORY, "{} MiB", peak >> 20);
    let lines = lines.lock().unwrap();
    let told = lines.iter().filter(|line| line.contains("topic alias, and none was offered")).count();
    assert!((1..=2).contains(&told), "the same problem is one line, and one that says that it goes on: {lines:?}");
    assert!(lines.iter().any(|line| line.contains("each connection ends at once")), "{lines:?}");
}

#[test]
fn a_server_that_wants_no_keep_alive_is_not_left_for_it() {
    let broker = Hostile::start(&[Manner::NoKeepAlive], Duration::from_secs(60), "", 1024);
    let lines = Arc::default();
    let (_controller, _folder) = controller(broker.port, 100, &lines);
    wait_for("the connection", || (broker.connections() >= 1).then_some(()));
    let (_handle, clock) = stop::pair();
    clock.sleep(Duration::from_secs(3));
    assert_eq!(broker.connections(), 1, "{:?}", lines.lock().unwrap());
}

#[test]
fn a_broker_that_takes_us_and_leaves_at_once_is_asked_less_and_less_often() {
    let broker = Hostile::start(&[Manner::Leaves], Duration::from_secs(60), "", 1024);
    let lines = Arc::default();
    let (_controller, _folder) = controller(broker.port, 60_000, &lines);
    wait_for("some connections", || (broker.connections() >= 6).then_some(()));
    let (_handle, clock) = stop::pair();
    clock.sleep(Duration::from_secs(3));
    // 20, 40, 80 … milliseconds, each at least half of it.
    assert!(broker.connections() <= 10, "{} connections", broker.connections());
    let lines = lines.lock().unwrap();
    let told = lines.iter().filter(|line| line.contains("the door stays locked")).count();
    assert!((2..=3).contains(&told), "the problem once or twice (closed, reset), and once that it goes on: {lines:?}");
    assert!(lines.iter().any(|line| line.contains("another controller running with the client id `faceid-door-gate-front-")));
}

#[test]
fn junk_on_the_decision_topic_costs_few_lines_and_grants_open_all_the_same() {
    let scene = Scene::new();
    let before = scene.logged.load(Ordering::SeqCst);
    for n in 0..3_000 {
        let payload = format!("{{\"data\":{{\"grant\":\"a.b.{n}\"}}}}");
        // Its line takes no more at once than it can hold.
        scene.say("door/front/decision", payload, false);
        if n % 20 == 0 {
            wait_for("the junk to be taken", || scene.is_idle().then_some(()));
        }
    }
    scene.expect_only_a_fresh_grant_opens("junk");
    let logged = scene.logged.load(Ordering::SeqCst) - before;
    assert!((1..60).contains(&logged), "{logged} lines for 3,000 messages");
}

/// Lines that a controller has logged.
pub(super) type Logged = Arc<AtomicUsize>;

impl Scene {
    /// Whether what was said so far has come through the broker: our own state, which it says back.
    fn is_idle(&self) -> bool {
        let word = uuid::Uuid::new_v4().to_string();
        self.device.say(Said { topic: "faceid/gate/door/probe/state".into(), payload: word.clone(), ..Said::default() });
        wait_for("our own word", || match self.device.next(super::PATIENCE)? {
            faceid_plus::publish::Notice::Message(message) => (message.payload == word.as_bytes()).then_some(()),
            _ => None,
        });
        true
    }
}
