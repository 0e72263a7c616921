//! SIGKILL at any moment of the real binary's enrolments, removals and compactions: nothing that was reported is lost, nothing that was
//! removed comes back, and nobody is alarmed. `FACEID_KILL_ROUNDS` says how many rounds; its default keeps a test run short.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::House;

const ROUNDS: u64 = 12;

fn people(house: &House) -> BTreeSet<String> {
    let rows: Value = serde_json::from_str(&house.succeed(&["people", "list", "--json"])).unwrap();
    rows.as_array().unwrap().iter().map(|row| row["person"].as_str().unwrap().to_owned()).collect()
}

/// What one line of the killed process says that is durable now.
fn take(line: &str, known: &mut BTreeSet<String>) {
    match line.split_at_checked(1) {
        Some(("+", id)) => assert!(known.insert(id.to_owned()), "{id} was enrolled twice"),
        Some(("-", id)) => assert!(known.remove(id), "{id} was removed and not there"),
        _ => panic!("no change: {line}"),
    }
}

#[test]
fn nothing_that_was_reported_is_lost_when_the_process_is_killed_at_any_moment() {
    let rounds = std::env::var("FACEID_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let galleries = ["128", "512"].map(|dimension| {
        let house = House::new();
        house.succeed(&["keygen"]);
        (dimension, house)
    });
    let mut known = [BTreeSet::new(), BTreeSet::new()];
    let (mut killed, mut changes) = (0, 0);
    for round in 0..rounds {
        let turn = usize::from(round % 2 == 1);
        let ((dimension, house), known) = (&galleries[turn], &mut known[turn]);
        let mut random = fastrand::Rng::with_seed(round);
        let mut command = house.command();
        command.args(["bench", "store", "--until-killed", "--dim", dimension]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some lines, and then a moment within the next change.
        for _ in 0..random.usize(1..25) {
            take(&lines.next().expect("it ended by itself").unwrap(), known);
            changes += 1;
        }
        let until = Instant::now() + Duration::from_micros(random.u64(..4_000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        // What it had said before it died and what stood in the pipe.
        lines.map_while(Result::ok).filter(|line| line.len() > 1).for_each(|line| {
            take(&line, known);
            changes += 1;
        });
        let report: Value = serde_json::from_str(&house.succeed(&["gallery", "verify", "--json"])).unwrap();
        assert!(report["rollback"].is_null() && report["lost"].as_array().unwrap().is_empty(), "round {round}: {report}");
        // One change may have become durable without being told.
        let found = people(house);
        let untold = found.symmetric_difference(known).count();
        assert!(untold <= 1, "round {round}, seed {round}: {untold} changes differ");
        *known = found;
    }
    println!("{killed} kills, {changes} changes reported, none lost");
}
