//! Nobody's noise keeps an operator out, and nothing that comes from a broker fills the memory or the log: the real daemon, a real
//! mosquitto with somebody who floods it, and a broker that is an enemy.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use faceid_plus::system::stop;
use serde_json::Value;

use super::answers::Daemon;
use super::hostile::{ALL, Hostile, peak_memory};
use super::mosquitto::Mosquitto;

/// What a daemon without a camera may take, in bytes, whatever a broker sends it.
const MOST_MEMORY: u64 = 300 << 20;

/// How long the floods last: seconds in a test run, as long as somebody wants otherwise.
fn flood_time() -> Duration {
    Duration::from_secs(std::env::var("FACEID_FLOOD_SECONDS").map_or(12, |text| text.parse().unwrap()))
}

/// Somebody who says the same again and again, as fast as the broker takes it.
struct Flood {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(port: u16, topic: &str, line: &str) -> Self {
        let mut child = Command::new("mosquitto_pub")
            .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string(), "-l", "-t", topic])
            .stdin(Stdio::piped())
            .spawn()
            .expect("mosquitto_pub is not installed: run `make deps`");
        let mut mouth = child.stdin.take().unwrap();
        let lines = format!("{line}\n").repeat(50);
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) && mouth.write_all(lines.as_bytes()).is_ok() {}
            let _ = child.kill();
            let _ = child.wait();
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn no_flood_keeps_an_operators_lock_down_out() {
    let broker = Mosquitto::open();
    let daemon = Daemon::start(broker.port);
    let copied = daemon.signed("list");
    let noise = [
        ("door/front/credential", r#"{"kind":"card","number":"4217"}"#),
        ("door/front/passage", r#"{"claim":"a.b.c"}"#),
        ("cmd/ping", "ping"),
        ("cmd/lockdown", "lockdown"),
        ("cmd/list", copied.as_str()),
    ];
    for (topic, line) in noise {
        let before = daemon.logged.load(Ordering::SeqCst);
        let _flood = Flood::start(broker.port, &format!("faceid/unit/{topic}"), line);
        let start = Instant::now();
        for round in 0..3 {
            for verb in ["lockdown", "release"] {
                let answer = daemon.succeed(&["command", verb]);
                let answer: Value = serde_json::from_str(&answer).unwrap();
                assert_eq!(answer["ok"], true, "{verb} {round} under a flood on {topic}: {answer}");
            }
        }
        println!("{topic}: six answers after {} ms", start.elapsed().as_millis());
        let logged = daemon.logged.load(Ordering::SeqCst) - before;
        // A minute's or two of what was dropped, of what was refused and of what was not heard, thirty each, and what was done.
        assert!(logged <= 240, "{logged} lines for a flood on {topic}");
    }
}

#[test]
fn a_hostile_broker_does_not_fill_the_daemons_memory() {
    let broker = Hostile::start(&ALL, Duration::from_secs(1), "faceid/unit/cmd/lockdown", 256 * 1024);
    let mut daemon = Daemon::start(broker.port);
    let (_handle, clock) = stop::pair();
    let (until, mut rounds) = (Instant::now() + flood_time(), 0);
    let child = daemon.child.as_mut().unwrap();
    while Instant::now() < until || rounds < 1 {
        assert_eq!(child.try_wait().unwrap(), None, "the daemon ended");
        let peak = peak_memory(child.id());
        assert!(peak <= MOST_MEMORY, "{} MiB after {} connections", peak >> 20, broker.connections());
        clock.sleep(Duration::from_millis(50));
        rounds = broker.connections() / ALL.len();
    }
    println!("{} MiB at most, {} connections", peak_memory(child.id()) >> 20, broker.connections());
}
