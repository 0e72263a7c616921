//! What must survive: kill -9 of the publisher, kills of the broker, cut connections.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use faceid_plus::publish::{Audit, Journal, Notice, Publisher, Received, Settings, StateKey, Subscriber};
use faceid_plus::system::stop;
use serde_json::Value;
use uuid::Uuid;

use super::mosquitto::{Mosquitto, Wire, secret, wait_for};
use super::{Running, context, granted, now, nowhere, settings, subscriber};

const CHILD: &str = "FACEID_TEST_PUBLISHER";

fn key() -> StateKey {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), "state.key", format!("{}\n", "0123456789abcdef".repeat(4)).as_bytes());
    StateKey::read(folder.path()).unwrap()
}

fn journal(folder: &Path) -> Journal {
    Journal::open(folder, &key(), 64 << 20, Duration::from_secs(3600)).unwrap()
}

fn count(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

impl Running {
    fn durable(settings: Settings, folder: &Path) -> Self {
        let (publisher, worker) = Publisher::durable(settings, context(), nowhere(), journal(folder));
        let (handle, stop) = stop::pair();
        let thread = std::thread::spawn(move || worker.run(&stop, &|| {}));
        Self { publisher, stop: handle, thread: Some(thread) }
    }
}

/// What a subscriber has seen: each sequence number's id, and what was wrong.
#[derive(Default)]
struct Ledger {
    ids: BTreeMap<u64, String>,
    copies: u64,
    gaps_at_first: u64,
}

impl Ledger {
    /// Takes a decision, live or from a replay. A grant must be in its time.
    fn take(&mut self, payload: &[u8]) {
        let decision: Value = serde_json::from_slice(payload).unwrap();
        let sequence: u64 = decision["sequence"].as_str().unwrap().parse().unwrap();
        let id = decision["id"].as_str().unwrap().to_owned();
        let grant = &decision["data"]["grant"];
        assert_eq!(
            grant.is_string(),
            decision["data"]["historical"] == false,
            "history has no grant, and only history: {decision}"
        );
        if let Some(known) = self.ids.get(&sequence) {
            assert_eq!(*known, id, "two decisions under number {sequence}");
            self.copies += 1;
            return;
        }
        let newest = self.ids.last_key_value().map_or(0, |(newest, _)| *newest);
        self.gaps_at_first += u64::from(sequence > newest + 1);
        self.ids.insert(sequence, id);
    }

    fn hear(&mut self, subscriber: &Subscriber, wait: Duration) -> bool {
        match subscriber.next(wait) {
            Some(Notice::Message(message)) if message.topic.ends_with("/decision") => {
                assert!(!message.retained, "a decision must never be retained");
                self.check_expiry(&message);
                self.take(&message.payload);
                true
            }
            other => other.is_some(),
        }
    }

    /// A live copy must not outlive its grant at the broker either.
    fn check_expiry(&self, message: &Received) {
        let decision: Value = serde_json::from_slice(&message.payload).unwrap();
        if decision["data"]["historical"] == false {
            let ends: jiff::Timestamp = decision["expirytime"].as_str().unwrap().parse().unwrap();
            let late = now().wall.0 - ends.as_millisecond();
            // The broker counts whole seconds, and this machine is loaded.
            assert!(late < 2_000, "a grant came {late} ms after its end");
        }
    }

    fn missing(&self, last: u64) -> Vec<u64> {
        (1..=last).filter(|n| !self.ids.contains_key(n)).collect()
    }

    /// As a subscriber that saw a gap would: asks for what is missing.
    fn fill_from(&mut self, publisher: &Publisher, last: u64) -> u64 {
        let missing = self.missing(last);
        for sequence in &missing {
            for copy in publisher.replay(*sequence, 1).0 {
                self.take(copy.as_bytes());
            }
        }
        missing.len() as u64
    }

    fn assert_whole(&self, last: u64) {
        assert_eq!(self.missing(last), Vec::<u64>::new(), "decisions are lost");
        assert_eq!(self.ids.len() as u64, last, "more decisions than were made");
        assert_eq!(self.ids.values().collect::<BTreeSet<_>>().len() as u64, last, "one id for two decisions");
    }
}

/// Not a test: what the kill -9 test runs as its child. Publishes decisions without end and says each number after it was taken.
#[test]
fn publisher_child() {
    let Some(plan) = std::env::var_os(CHILD) else { return };
    let plan: (u16, String) = serde_json::from_str(plan.to_str().unwrap()).unwrap();
    let running = Running::durable(settings(plan.0), Path::new(&plan.1));
    let (_handle, stop) = stop::pair();
    loop {
        let event = faceid_plus::publish::DecisionEvent { id: Uuid::now_v7(), ..granted(1, Duration::from_millis(400)) };
        assert!(running.publisher.publish(faceid_plus::publish::Event::Decision(Box::new(event))));
        println!("\nTAKEN");
        std::io::stdout().flush().unwrap();
        stop.sleep(Duration::from_millis(2));
    }
}

fn child(port: u16, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durable::publisher_child", "--nocapture", "--test-threads=1"])
        .env(CHILD, serde_json::to_string(&(port, folder.to_str().unwrap())).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// FACEID_KILLS sets how often; 5 if not set.
#[test]
fn a_publisher_killed_again_and_again_loses_no_decision_that_it_took_and_reuses_no_number() {
    let kills = count("FACEID_KILLS", 5);
    let broker = Mosquitto::open();
    let folder = tempfile::tempdir().unwrap();
    let subscriber = subscriber(&settings(broker.port), nowhere());
    let mut ledger = Ledger::default();
    let mut taken = 0u64;
    for kill in 0..kills {
        let mut child = child(broker.port, folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different place in the stream each time.
        let wanted = 20 + (kill * 7) % 13;
        let mut seen = 0;
        while seen < wanted {
            seen += u64::from(lines.next().unwrap().unwrap() == "TAKEN");
        }
        child.kill().unwrap();
        taken += seen + lines.map_while(Result::ok).filter(|line| line == "TAKEN").count() as u64;
        child.wait().unwrap();
        while ledger.hear(&subscriber, Duration::from_millis(1)) {}
    }
    // The last run delivers what all of them left.
    let running = Running::durable(settings(broker.port), folder.path());
    running.wait_until_online();
    wait_for("everything to be confirmed", || (running.publisher.counts().waiting == 0).then_some(()));
    let last = journal_last(&running.publisher);
    assert!(last >= taken, "{taken} decisions were taken and only {last} are on disk");
    wait_for("the subscriber to have them", || {
        while ledger.hear(&subscriber, Duration::from_millis(50)) {}
        ledger.missing(last).is_empty().then_some(())
    });
    ledger.assert_whole(last);
    println!("{kills} kills: {last} decisions, {taken} known to be taken, {} copies", ledger.copies);
}

fn journal_last(publisher: &Publisher) -> u64 {
    let (mut from, mut last) = (1, 0);
    loop {
        let (copies, next) = publisher.replay(from, 64);
        if let Some(copy) = copies.last() {
            let value: Value = serde_json::from_str(copy).unwrap();
            last = value["sequence"].as_str().unwrap().parse().unwrap();
        }
        match next {
            Some(next) => from = next,
            None => return last,
        }
    }
}

/// FACEID_CUTS sets how often the connection is cut or, every tenth time, the broker is killed; 20 if not set. Decisions are made all
/// the while, with grants of half a second, and the publisher's memory is too small for an outage.
#[test]
fn cut_connections_and_killed_brokers_under_load_lose_nothing_and_deliver_no_grant_late() {
    const BETWEEN: u64 = 5;
    let cuts = count("FACEID_CUTS", 20);
    let mut broker = Mosquitto::open();
    let wire = Wire::to(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let mut subscriber = subscriber(&settings(broker.port), nowhere());
    let running = Running::durable(Settings { queue_events: 16, ..settings(wire.port) }, folder.path());
    let mut ledger = Ledger::default();
    let mut made = 0;
    let mut kills = 0;
    let decide = |made: &mut u64| {
        *made += 1;
        running.decide(*made, Duration::from_millis(500));
    };
    for cut in 0..cuts {
        running.wait_until_online();
        (0..BETWEEN).for_each(|_| decide(&mut made));
        wire.cut();
        running.failure();
        if cut % 10 == 9 {
            kills += 1;
            broker.kill();
            (0..4 * BETWEEN).for_each(|_| decide(&mut made));
            broker.start();
            // What the old broker still held for the subscriber is gone with it.
            while ledger.hear(&subscriber, Duration::from_millis(1)) {}
            subscriber = super::subscriber(&settings(broker.port), nowhere());
        } else {
            (0..BETWEEN).for_each(|_| decide(&mut made));
        }
        wire.join();
        while ledger.hear(&subscriber, Duration::from_millis(1)) {}
    }
    running.wait_until_online();
    running.wait_until_delivered(made);
    while ledger.hear(&subscriber, Duration::from_millis(300)) {}
    let asked = ledger.fill_from(&running.publisher, made);
    ledger.assert_whole(made);
    assert_eq!(running.publisher.counts().decisions_lost, 0);
    assert!(kills > 0 || asked == 0, "only a broker that dies may lose what it has confirmed");
    println!("{} cuts, {kills} kills: {made} decisions, {} copies, {asked} asked for again", cuts - kills, ledger.copies);
}

#[test]
fn an_audit_trail_is_written_by_one_run_after_another_and_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let audit = Audit::open(folder.path(), &key(), 1 << 20).unwrap();
        (0..5).for_each(|n| drop(audit.append("decision", Value::from(run * 5 + n), now().wall)));
    }
    let mut entries = 0;
    let report = faceid_plus::publish::audit::verify(folder.path(), &key(), |_, _| entries += 1).unwrap();
    assert_eq!((entries, report.head.n, report.warnings.len()), (15, 15, 0));
}
