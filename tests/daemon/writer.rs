//! The gallery's one writer: callers that dawdle, photos that take their time, and a disk that fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use faceid_plus::daemon::control::Request;
use rustix::process::{Pid, Signal, kill_process};

use super::both_sides::furnish;
use super::mosquitto::Mosquitto;
use super::show_it::{Ear, Killed, config, essence, start};
use super::store::{copy, house, photo};

fn nowhere() -> [(&'static str, String); 1] {
    [("front", "rtsp://127.0.0.1:9/none".to_owned())]
}

#[test]
fn a_caller_that_is_silent_or_stops_within_its_question_hinders_nobody() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let (_daemon, _notify) = start(&house, &config(&house, "builtin", "tract", 9, &nowhere()));
    let call = || UnixStream::connect(house.path("state/control.sock")).unwrap();
    let question = postcard::to_stdvec(&Request::Check).unwrap();
    let message = [&u32::try_from(question.len()).unwrap().to_le_bytes()[..], &question].concat();
    let _silent: Vec<UnixStream> = (0..3).map(|_| call()).collect();
    let mut slow = call();
    slow.write_all(&message[..3]).unwrap();
    house.succeed(&["people", "set", "ann", "--name", "Ann"]);
    // It was not hung up on to serve the others.
    slow.write_all(&message[3..]).unwrap();
    let mut answer = [9; 5];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [1, 0, 0, 0, 0], "one byte: done");
}

#[test]
fn callers_that_stall_hold_no_change_up_however_many() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let (_daemon, _notify) = start(&house, &config(&house, "builtin", "tract", 9, &nowhere()));
    let mut stalled: Vec<UnixStream> = (0..12)
        .map(|_| {
            let mut call = UnixStream::connect(house.path("state/control.sock")).unwrap();
            call.write_all(&[9, 0]).unwrap();
            call
        })
        .collect();
    let began = Instant::now();
    house.succeed(&["people", "set", "ann", "--name", "Ann"]);
    assert!(began.elapsed() < Duration::from_secs(20), "a change waited {:?}", began.elapsed());
    // One that drips is not let drip for long, however often it sends a byte.
    let mut dripping = UnixStream::connect(house.path("state/control.sock")).unwrap();
    dripping.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stalled.clear();
    dripping.write_all(&[0xff, 0xff]).unwrap();
    let began = Instant::now();
    loop {
        let is_sent = dripping.write_all(&[0]).is_ok();
        match dripping.read(&mut [0; 8]) {
            Err(error) if is_sent && error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(began.elapsed() < Duration::from_secs(60), "a question may drip for as long as it likes");
    }
}

#[test]
fn an_enrolment_whose_photos_take_long_reaches_the_daemon_that_runs_when_they_are_done() {
    let house = house();
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/turn-left.mp4");
    let config = house.path("config.toml");
    let text = format!(
        "[models]\npack = \"builtin\"\n[inference]\nbackend = \"tract\"\n[publish]\nhost = \"127.0.0.1\"\nport = 1\n\
         [[cameras]]\nid = \"desk\"\n[cameras.source.file]\npath = \"{}\"\nloop = true\n",
        clip.display()
    );
    std::fs::write(&config, text).unwrap();
    // Somebody, so that there is a gallery to look at.
    house.succeed(&["enroll", "ann", &photo(1)]);
    let (daemon, notify) = start(&house, &config);
    let mut enrol = house.command();
    enrol.arg("--config").arg(&config).args(["enroll", "bob", "--camera", "desk", "--allow-duplicate"]).stdout(Stdio::piped());
    let mut enrol = Killed(enrol.spawn().unwrap());
    let mut said = BufReader::new(enrol.0.stdout.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("Look into camera"));
    // It takes as long as another daemon needs to start in this one's place.
    let pid = Pid::from_child(&enrol.0);
    kill_process(pid, Signal::STOP).unwrap();
    drop((daemon, notify));
    let (_daemon, _notify) = start(&house, &config);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(enrol.0.wait().unwrap().success());
    assert!(house.succeed(&["people", "list"]).contains("bob"));
}

/// Waits until the service manager is told a status with `word` in it.
pub(super) fn await_status(socket: &UnixDatagram, word: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no status with `{word}`: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line.starts_with("STATUS=") && line.contains(word)) {
            return;
        }
    }
}

#[test]
fn a_removal_whose_ciphertext_stays_on_a_disk_that_fails_says_so_and_nothing_is_changed_until_it_is_mended() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    house.succeed(&["enroll", "bob", &photo(2), "--allow-duplicate"]);
    let broker = Mosquitto::open();
    let ear = Ear::on(broker.port, "faceid/unit/#");
    let config = config(&house, "builtin", "tract", broker.port, &nowhere());
    let (daemon, notify) = start(&house, &config);
    // No file can be made where these folders lie: the journal still takes the removal, and the gallery cannot be written anew.
    let in_the_way = ["people.gallery.new", "people.gallery.beside"].map(|name| house.path("state/gallery").join(name));
    for folder in &in_the_way {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("in-the-way"), "").unwrap();
    }
    let said = house.fail(69, &["people", "remove", "ann"]);
    assert!(said.contains("ann is removed") && said.contains("still on the disk"), "{said}");
    house.fail(1, &["people", "show", "ann"]);

    let (_, payload) = ear.until("the alarm", |topic, _| topic == "faceid/unit/alarm/gallery-read-only");
    assert!(payload.contains("matching goes on"), "{payload}");
    await_status(&notify, "takes no change");
    let said = house.fail(69, &["people", "set", "bob", "--name", "Bob"]);
    assert!(said.contains("takes no change since a write failed"), "{said}");
    let report = super::text(&house.run(&["gallery", "verify"]));
    assert!(report.contains("takes no change"), "{report}");
    let doctor = super::text(&house.run(&["doctor"]));
    assert!(doctor.contains("gallery's changes"), "{doctor}");
    house.fail(69, &["gallery", "compact"]);
    assert!(super::text(&house.run(&["recognize", &photo(2)])).contains("bob"), "matching does not go on");

    in_the_way.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    house.succeed(&["gallery", "compact"]);
    house.succeed(&["people", "set", "bob", "--name", "Bob"]);
    assert!(!super::text(&house.run(&["gallery", "verify"])).contains("takes no change"));
    // The upkeep notices within a moment of its own that all is well again.
    let until = Instant::now() + Duration::from_secs(90);
    let trail = loop {
        let trail = house.succeed(&["audit", "export"]);
        if trail.contains("\"read_only\":null") || Instant::now() > until {
            break trail;
        }
    };
    drop(daemon);
    for wanted in ["\"erased\":false", "\"read_only\":\"", "\"read_only\":null"] {
        assert!(trail.contains(wanted), "{wanted} is not in {trail}");
    }
}

#[test]
fn by_an_older_gallery_nobody_is_let_in_whoever_stands_before_the_door_until_somebody_accepts_it() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let (gallery, aside) = (house.path("state/gallery"), house.path("aside"));
    copy(&gallery, &aside);
    house.succeed(&["people", "set", "person-a", "--name", "A"]);
    copy(&aside, &gallery);
    let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
    let (_daemon, _notify) = start(&house, &config);
    let mut seen = 0;
    decisions.until("three denials", |_, payload| {
        let (_, outcome, reason, person) = essence(payload);
        assert_ne!(outcome, "granted", "let in by a gallery that was put back: {payload}");
        assert_eq!(person, None, "{payload}");
        seen += u32::from(reason == "gallery-unavailable");
        seen == 3
    });
    house.succeed(&["gallery", "verify", "--accept-rollback"]);
    decisions.until("a grant", |_, payload| essence(payload).1 == "granted");
}
