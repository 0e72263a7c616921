//! The sealed store under a running daemon and by the command line: one writer, removal that leaves nothing, an older state put back.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::House;
use super::mosquitto::Mosquitto;
use super::show_it::{Ear, config, start};
use super::writer::await_status;

pub(super) fn photo(number: u8) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/demo/people/person-a/person-a_000{number}.jpg"));
    path.to_str().unwrap().to_owned()
}

/// A house with keys; the pack that comes with the program needs nothing else.
pub(super) fn house() -> House {
    let house = House::new();
    house.succeed(&["keygen"]);
    house
}

pub(super) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for (path, bytes) in files(from) {
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

#[test]
fn while_a_daemon_runs_it_is_the_one_writer_and_the_verbs_go_through_it() {
    let house = house();
    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let (daemon, _notify) = start(&house, &config);
    let socket = house.path("state/control.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    house.succeed(&["enroll", "ann", &photo(1), "--name", "Ann"]);
    assert!(house.fail(65, &["enroll", "bob", &photo(2)]).contains("already enrolled as ann"));
    house.succeed(&["enroll", "bob", &photo(2), "--allow-duplicate"]);
    house.succeed(&["people", "set", "ann", "--group", "staff"]);
    assert!(house.succeed(&["people", "list"]).contains("staff"));
    // Whoever opens the store behind the daemon's back is refused.
    assert!(house.fail(69, &["bench", "store", "--until-killed"]).contains("in use"));
    let before = files(&house.path("state"));
    house.succeed(&["people", "remove", "ann"]);
    house.fail(1, &["people", "show", "ann"]);
    let after = files(&house.path("state"));
    let sealed = |files: &[(PathBuf, Vec<u8>)]| -> Vec<u8> {
        let of_gallery = files.iter().filter(|(path, _)| path.file_name().is_some_and(|name| name == "people.journal"));
        of_gallery.flat_map(|(_, bytes)| bytes[24..].to_vec()).collect()
    };
    let record = sealed(&before);
    assert!(record.len() > 1000, "nothing was enrolled in the journal");
    for piece in record.chunks_exact(24) {
        let left = after.iter().find(|(_, bytes)| bytes.windows(24).any(|window| window == piece));
        assert!(left.is_none(), "sealed bytes of before the removal are left in {}", left.unwrap().0.display());
    }
    for verb in [&["gallery", "compact"][..], &["gallery", "rekey", "--rotate"]] {
        house.succeed(verb);
    }
    let new_key = house.path("new.key");
    assert!(house.fail(69, &["gallery", "rekey", "--new-key", new_key.to_str().unwrap()]).contains("stop it"));
    drop(daemon);
    // The daemon was killed: its socket answers nobody, and the store is the command line's again.
    house.succeed(&["people", "set", "bob", "--name", "Bob"]);
    let trail = trail(&house);
    for wanted in [
        "\"enrolled\":[\"ann\"]",
        "\"enrolled\":[\"bob\"]",
        "\"changed\":\"ann\"",
        "\"removed\":\"ann\"",
        "\"rotated\":true",
        "\"uid\":",
    ] {
        assert!(trail.contains(wanted), "{wanted} is not in {trail}");
    }
    let report: Value = serde_json::from_str(&house.succeed(&["gallery", "verify", "--json"])).unwrap();
    assert_eq!((&report["people"], &report["version"], &report["rollback"]), (&1.into(), &2.into(), &Value::Null), "{report}");
}

/// The audit trail's entries of what was changed through the daemon or by it.
fn trail(house: &House) -> String {
    let lines = house.succeed(&["audit", "export"]);
    lines.lines().filter(|line| line.contains("\"control\"") || line.contains("\"gallery\"")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_command_line_changes_while_no_daemon_runs_is_in_the_audit_trail() {
    let house = house();
    let at = |name: &str| house.path(name).to_str().unwrap().to_owned();
    house.succeed(&["enroll", "ann", &photo(1)]);
    house.succeed(&["enroll", "bob", &photo(2), "--allow-duplicate"]);
    assert!(house.fail(65, &["enroll", "cyd", &photo(3)]).contains("already enrolled"), "a twin is no enrolment");
    house.succeed(&["people", "set", "ann", "--group", "staff"]);
    let public = house.succeed(&["gallery", "backup-key", &at("identity")]).trim().to_owned();
    house.succeed(&["gallery", "backup", &at("b.age"), "--recipient", &public]);
    let aside = house.path("aside");
    copy(&house.path("state/gallery"), &aside);
    house.succeed(&["people", "remove", "bob"]);
    house.succeed(&["gallery", "rekey", "--rotate"]);
    house.succeed(&["gallery", "restore", &at("b.age"), "--identity", &at("identity"), "--replace"]);
    copy(&aside, &house.path("state/gallery"));
    house.fail(69, &["people", "set", "ann", "--name", "Ann"]);
    house.succeed(&["gallery", "verify", "--accept-rollback"]);
    house.succeed(&["audit", "verify"]);
    let trail = house.succeed(&["audit", "export"]);
    let told = |trail: &str| -> Vec<Value> {
        trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|entry| entry["kind"] == "offline").collect()
    };
    let what: Vec<Value> = told(&trail).iter().map(|entry| entry["detail"]["what"].clone()).collect();
    let wanted = [
        r#"{"enrolled":["ann"]}"#,
        r#"{"enrolled":["bob"]}"#,
        r#"{"changed":"ann"}"#,
        r#"{"erased":true,"removed":"bob"}"#,
        r#"{"new_sealing_key":false,"rekeyed":true,"rotated":true}"#,
        r#"{"replaced":true,"restored":2,"signed_by":"faceid"}"#,
    ];
    let wanted = wanted.map(|text| serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(what[..wanted.len()], wanted, "{trail}");
    assert!(what.len() == wanted.len() + 1 && what[wanted.len()]["accepted_rollback"].is_string(), "{trail}");
    assert!(told(&trail).iter().all(|entry| entry["detail"]["uid"].is_u64()), "{trail}");

    // No change waits for the trail, and one that is not in it is said to be made and missing there.
    let (key, folder) = (house.path("secrets/state.key"), house.path("state/audit"));
    std::fs::rename(&key, house.path("state.key")).unwrap();
    let said = super::text(&house.run(&["people", "set", "ann", "--name", "Ann"]));
    assert!(said.contains("is made and is not in the audit trail") && said.contains("state.key"), "{said}");
    std::fs::rename(house.path("state.key"), &key).unwrap();
    std::fs::rename(&folder, house.path("audit-aside")).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let output = house.run(&["people", "set", "ann", "--name", "Anna"]);
    assert!(output.status.success() && super::text(&output).contains("is not in the audit trail"), "{}", super::text(&output));
    assert!(house.succeed(&["people", "list"]).contains("Anna"));
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(house.path("audit-aside"), &folder).unwrap();

    // The first daemon goes on with the chain, and does not take it for one that had run before and lost its memory.
    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    drop(start(&house, &config));
    house.succeed(&["audit", "verify"]);
    let trail = house.succeed(&["audit", "export"]);
    assert!(trail.contains("\"start\"") && !trail.contains("access-state-lost"), "{trail}");
    house.succeed(&["people", "remove", "ann"]);
    assert!(house.succeed(&["audit", "export"]).lines().last().unwrap().contains("\"removed\":\"ann\""));
}

#[test]
fn people_whose_time_has_run_out_are_purged_by_the_daemon_itself() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    house.succeed(&["people", "set", "ann", "--expires", "2020-01-01T00:00:00Z"]);
    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    // No time service vouches for the clock here, and nobody is to wait for ten minutes.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "[gallery]\npurge-clock = \"any\"\npurge-after-s = 0\n").unwrap();
    let (daemon, _notify) = start(&house, &config);
    super::mosquitto::wait_for("the purge", || house.succeed(&["people", "list"]).is_empty().then_some(()));
    super::mosquitto::wait_for("its entry", || trail(&house).contains("\"purged\":[\"ann\"]").then_some(()));
    drop(daemon);
}

#[test]
fn an_older_gallery_put_back_is_told_and_grants_nothing_until_somebody_accepts_it() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let (gallery, aside) = (house.path("state/gallery"), house.path("aside"));
    copy(&gallery, &aside);
    house.succeed(&["people", "remove", "ann"]);
    copy(&aside, &gallery);
    assert!(house.fail(1, &["gallery", "verify"]).contains("older"));
    assert!(house.fail(69, &["people", "set", "ann", "--name", "Ann"]).contains("--accept-rollback"));

    let broker = Mosquitto::open();
    let ear = Ear::on(broker.port, "faceid/unit/#");
    let config = config(&house, "builtin", "tract", broker.port, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let (daemon, notify) = start(&house, &config);
    let (_, payload) = ear.until("the alarm", |topic, _| topic == "faceid/unit/alarm/gallery-rollback");
    assert!(payload.contains("--accept-rollback"), "{payload}");
    await_status(&notify, "not the newest");
    let doctor = super::text(&house.run(&["doctor"]));
    assert!(doctor.contains("older state was put back"), "{doctor}");
    assert!(house.fail(69, &["people", "remove", "ann"]).contains("--accept-rollback"));
    house.succeed(&["gallery", "verify", "--accept-rollback"]);
    house.succeed(&["people", "remove", "ann"]);
    house.succeed(&["gallery", "verify"]);
    drop(daemon);
    assert!(trail(&house).contains("\"accepted_rollback\":"), "{}", trail(&house));
}

#[test]
fn the_birth_that_the_broker_keeps_tells_of_a_gallery_that_was_put_back_together_with_its_epoch() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let (state, aside) = (house.path("state"), house.path("aside"));
    copy(&state.join("gallery"), &aside);
    std::fs::copy(state.join("gallery.epoch"), house.path("epoch-aside")).unwrap();
    let broker = Mosquitto::open();
    let ear = Ear::on(broker.port, "faceid/unit/#");
    let config = config(&house, "builtin", "tract", broker.port, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let birth = |payload: &str| serde_json::from_str::<Value>(payload).unwrap()["gallery"].clone();
    {
        let (_daemon, _notify) = start(&house, &config);
        let (_, payload) = ear.until("the birth", |topic, _| topic == "faceid/unit/birth");
        assert!(birth(&payload)["claim"].is_string() && birth(&payload)["people"] == 1, "{payload}");
        house.succeed(&["people", "remove", "ann"]);
        ear.until("the birth after a change", |topic, payload| topic == "faceid/unit/birth" && birth(payload)["people"] == 0);
    }
    copy(&aside, &state.join("gallery"));
    std::fs::copy(house.path("epoch-aside"), state.join("gallery.epoch")).unwrap();
    house.succeed(&["gallery", "verify"]);
    let (_daemon, _notify) = start(&house, &config);
    let (_, payload) = ear.until("the alarm", |topic, _| topic == "faceid/unit/alarm/gallery-rollback");
    assert!(payload.contains("the broker kept"), "{payload}");
    // Its files do not tell, the daemon does.
    for verb in [&["doctor"][..], &["gallery", "verify"]] {
        let said = super::text(&house.run(verb));
        assert!(said.contains("the broker kept") && said.contains("--accept-rollback"), "{verb:?}: {said}");
    }
    assert!(house.fail(69, &["people", "remove", "ann"]).contains("--accept-rollback"));
    house.succeed(&["gallery", "verify", "--accept-rollback"]);
    house.succeed(&["people", "remove", "ann"]);
}

#[test]
fn a_damaged_gallery_is_told_with_what_is_lost_and_what_is_not() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    house.succeed(&["gallery", "compact"]);
    house.succeed(&["enroll", "bob", &photo(2), "--allow-duplicate"]);
    let (file, journal) = (house.path("state/gallery/people.gallery"), house.path("state/gallery/people.journal"));
    let flip = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&journal, 200);
    let said = house.fail(1, &["gallery", "verify"]);
    assert!(said.contains("lost: the changes") && said.contains("1 people"), "{said}");
    flip(&journal, 200);
    house.succeed(&["gallery", "verify"]);
    flip(&file, 400);
    let said = house.fail(65, &["gallery", "verify"]);
    assert!(said.contains("readable: 0 people") && said.contains("record 1 of 1"), "{said}");
}

#[test]
fn the_gallery_goes_with_the_configs_state_folder() {
    let house = house();
    let config = house.path("config.toml");
    std::fs::write(&config, format!("state-dir = \"{}\"\n[models]\npack = \"builtin\"\n", house.path("elsewhere").display()))
        .unwrap();
    let photo = photo(1);
    let mut command = house.command();
    command.env_remove("FACEID_STATE_DIR").args(["--config", config.to_str().unwrap(), "enroll", "ann", &photo]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", super::text(&output));
    assert!(house.path("elsewhere/gallery/people.gallery").exists() && house.path("elsewhere/gallery.epoch").exists());
}

#[test]
fn a_backup_is_refused_where_it_must_not_lie_and_when_it_does_not_open() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let phrase = house.path("phrase");
    std::fs::write(&phrase, "correct horse battery\n").unwrap();
    std::fs::set_permissions(&phrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    let phrase = phrase.to_str().unwrap();
    let at = |name: &str| house.path(name).to_str().unwrap().to_owned();
    for inside in ["state/b.age", "state/gallery/b.age"] {
        let said = house.fail(69, &["gallery", "backup", &at(inside), "--passphrase", phrase]);
        assert!(said.contains("state folder"), "{said}");
    }
    assert!(house.fail(64, &["gallery", "backup", &at("b.age")]).contains("--passphrase"), "nobody is at a terminal");
    house.fail(65, &["gallery", "backup", &at("b.age"), "--recipient", "age1nobody"]);
    house.succeed(&["gallery", "backup", &at("b.age"), "--passphrase", phrase]);
    assert!(house.fail(69, &["gallery", "backup", &at("b.age"), "--passphrase", phrase]).contains("--overwrite"));
    std::fs::write(house.path("wrong"), "another phrase entirely\n").unwrap();
    std::fs::set_permissions(house.path("wrong"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = files(&house.path("state/gallery"));
    let said = house.fail(77, &["gallery", "restore", &at("b.age"), "--passphrase", &at("wrong"), "--replace"]);
    assert!(said.contains("passphrase is wrong"), "{said}");
    let whole = std::fs::read(house.path("b.age")).unwrap();
    std::fs::write(house.path("cut.age"), &whole[..whole.len() - 1]).unwrap();
    let said = house.fail(65, &["gallery", "restore", &at("cut.age"), "--passphrase", phrase, "--replace"]);
    assert!(said.contains("damaged"), "{said}");
    std::fs::write(house.path("foreign.age"), b"PK\x03\x04").unwrap();
    let said = house.fail(65, &["gallery", "restore", &at("foreign.age"), "--passphrase", phrase, "--replace"]);
    assert!(said.contains("no file in age's format"), "{said}");
    assert!(house.fail(69, &["gallery", "restore", &at("b.age"), "--passphrase", phrase]).contains("--replace"));
    assert!(files(&house.path("state/gallery")) == before, "a refused backup changed the gallery");
}

#[test]
fn a_backup_to_a_public_key_is_put_back_by_a_running_daemon_and_opens_with_age_itself() {
    let house = house();
    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let (daemon, _notify) = start(&house, &config);
    house.succeed(&["enroll", "ann", &photo(1), "--name", "Ann"]);
    let at = |name: &str| house.path(name).to_str().unwrap().to_owned();
    let public = house.succeed(&["gallery", "backup-key", &at("identity")]).trim().to_owned();
    assert!(house.fail(69, &["gallery", "backup-key", &at("identity")]).contains("identity"));
    house.succeed(&["gallery", "backup", &at("b.age"), "--recipient", &public]);
    house.succeed(&["enroll", "bob", &photo(2), "--allow-duplicate"]);
    house.succeed(&["people", "remove", "ann"]);
    house.fail(69, &["gallery", "restore", &at("b.age"), "--identity", &at("identity")]);
    assert!(house.succeed(&["people", "list"]).contains("bob"));
    house.succeed(&["gallery", "restore", &at("b.age"), "--identity", &at("identity"), "--replace"]);
    let listed = house.succeed(&["people", "list"]);
    assert!(listed.contains("Ann ") && !listed.contains("bob"), "{listed}");
    let report: Value = serde_json::from_str(&house.succeed(&["gallery", "verify", "--json"])).unwrap();
    assert_eq!((&report["people"], &report["rollback"]), (&1.into(), &Value::Null), "{report}");
    assert!(super::text(&house.run(&["recognize", &photo(1)])).contains("ann"));
    drop(daemon);
    assert!(trail(&house).contains("\"restored\":1"), "{}", trail(&house));

    // A gallery that is gone is noticed, and the backup is put back once somebody says so.
    std::fs::remove_dir_all(house.path("state/gallery")).unwrap();
    let said = house.fail(69, &["gallery", "restore", &at("b.age"), "--identity", &at("identity")]);
    assert!(said.contains("not the newest"), "{said}");
    house.succeed(&["gallery", "restore", &at("b.age"), "--identity", &at("identity"), "--accept-rollback"]);
    house.succeed(&["gallery", "verify"]);

    // `age` is there where somebody installed it (Debian's package `age`).
    let opened = std::process::Command::new("age").args(["--decrypt", "-i", &at("identity"), &at("b.age")]).output();
    match opened {
        Ok(output) => {
            assert!(output.status.success() && output.stdout.starts_with(b"faceid-backup/2\n"), "{}", super::text(&output));
        }
        Err(_) => println!("SKIPPED: no `age` is installed to open the backup with"),
    }
}

/// Whoever knows the public key can seal to it: what this device did not sign is put back by an operator's word alone, and what it would
/// do to whom is told before. By the command line itself and by a running daemon.
#[test]
fn a_backup_of_another_hand_is_refused_and_told_of() {
    let (house, other) = (house(), house());
    let at = |name: &str| house.path(name).to_str().unwrap().to_owned();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let public = house.succeed(&["gallery", "backup-key", &at("identity")]).trim().to_owned();
    house.succeed(&["gallery", "backup", &at("ours.age"), "--recipient", &public]);
    // Another face under the same name, sealed to the key that everybody may know, by another device and by nobody.
    let stranger = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/people/person-b/person-b_0001.jpg");
    other.succeed(&["enroll", "ann", stranger.to_str().unwrap()]);
    other.succeed(&["enroll", "eve", &photo(2), "--allow-duplicate"]);
    other.succeed(&["gallery", "backup", &at("foreign.age"), "--recipient", &public]);
    let theirs = other.succeed(&["keygen", "--public"]);
    std::fs::write(house.path("theirs.json"), theirs).unwrap();
    std::fs::remove_file(other.path("secrets/grant.key")).unwrap();
    let said = super::text(&other.run(&["gallery", "backup", &at("unsigned.age"), "--recipient", &public]));
    assert!(said.contains("not signed"), "{said}");

    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    for with_daemon in [false, true] {
        let _daemon = with_daemon.then(|| start(&house, &config));
        let restore = |file: &str, more: &[&str]| {
            let (file, identity) = (at(file), at("identity"));
            let mut words = vec!["gallery", "restore", &file, "--identity", &identity, "--replace"];
            words.extend(more);
            house.run(&words)
        };
        for (file, why) in [("foreign.age", "--keys"), ("unsigned.age", "--unsigned")] {
            let refused = restore(file, &[]);
            let said = super::text(&refused);
            assert!(refused.status.code() == Some(77) && said.contains(why), "{said}");
        }
        assert!(super::text(&house.run(&["recognize", &photo(1)])).contains("ann"), "a refused backup changed the gallery");
        for (file, more) in [("foreign.age", &["--keys", &at("theirs.json")][..]), ("unsigned.age", &["--unsigned"][..])] {
            let put = restore(file, more);
            let said = super::text(&put);
            assert!(put.status.success(), "{said}");
            assert!(
                said.contains("other templates in the backup than now: ann") && said.contains("not enrolled now: eve"),
                "{said}"
            );
            assert_eq!(said.contains("by its signature"), file == "foreign.age", "{said}");
            let put = restore("ours.age", &[]);
            let said = super::text(&put);
            assert!(put.status.success() && said.contains("than now: ann") && said.contains("not in the backup: eve"), "{said}");
        }
        let put = restore("ours.age", &["--json"]);
        let value: Value = serde_json::from_slice(&put.stdout).unwrap();
        let none = serde_json::json!([]);
        assert_eq!(
            (&value["signed_by"], &value["back"], &value["other_templates"], &value["gone"]),
            (&"faceid".into(), &none, &none, &none)
        );
    }
    assert!(
        trail(&house).contains("\"signed_by\":null") && trail(&house).contains("\"signed_by\":\"faceid\""),
        "{}",
        trail(&house)
    );
}

/// A trail whose end was taken away is sound in itself: only the head that the broker keeps tells, if it is this device's.
#[test]
fn the_head_that_the_broker_keeps_tells_of_a_trail_whose_end_is_gone() {
    let house = house();
    let broker = Mosquitto::open();
    let ear = Ear::on(broker.port, "faceid/unit/audit/head");
    let config = config(&house, "builtin", "tract", broker.port, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let config_path = config.to_str().unwrap();
    let verify = |more: &[&str]| house.run(&[&["--config", config_path, "audit", "verify"][..], more].concat());
    let head_of = |run: &str| ear.until(run, |_, payload| payload.contains("\"claim\"")).1;
    {
        let (_daemon, _notify) = start(&house, &config);
        head_of("the first head");
    }
    let aside = house.path("aside");
    copy(&house.path("state/audit"), &aside);
    let kept = {
        let (_daemon, _notify) = start(&house, &config);
        let before = head_of("a head of the second run");
        house.succeed(&["enroll", "ann", &photo(1)]);
        ear.until("the head after a change", |_, payload| *payload != *before).1
    };
    let whole = verify(&["--head"]);
    assert!(whole.status.success() && super::text(&whole).contains("the head that the broker keeps"), "{}", super::text(&whole));
    let alone = verify(&[]);
    assert!(alone.status.success() && super::text(&alone).contains("NOT compared"), "{}", super::text(&alone));
    let value: Value = serde_json::from_slice(&verify(&["--head", "--json"]).stdout).unwrap();
    assert!(value["compared"] == true && value["published"]["n"].as_u64() > Some(1), "{value}");
    copy(&aside, &house.path("state/audit"));
    assert!(verify(&[]).status.success(), "sound in itself");
    let cut = verify(&["--head"]);
    assert!(cut.status.code() == Some(65) && super::text(&cut).contains("cut or replaced"), "{}", super::text(&cut));
    // Anybody who may write there can put a head of their own: it is none of ours.
    let mut forged: Value = serde_json::from_str(&kept).unwrap();
    let shown = serde_json::from_str::<Value>(&house.succeed(&["--config", config_path, "audit", "verify", "--json"])).unwrap();
    (forged["n"], forged["hash"]) = (shown["head"]["n"].clone(), shown["head"]["hash"].clone());
    for payload in [forged.to_string(), format!(r#"{{"n":{},"hash":{}}}"#, forged["n"], forged["hash"])] {
        let said = std::process::Command::new("mosquitto_pub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &broker.port.to_string(),
                "-q",
                "1",
                "-r",
                "-t",
                "faceid/unit/audit/head",
                "-m",
                &payload,
            ])
            .status();
        assert!(said.unwrap().success());
        let refused = verify(&["--head"]);
        assert!(refused.status.code() == Some(65) && super::text(&refused).contains("NOT compared"), "{}", super::text(&refused));
    }
    drop(broker);
    assert_eq!(verify(&["--head"]).status.code(), Some(69), "no broker");
}

#[test]
fn a_gallery_tells_its_size_and_its_risks_and_takes_a_new_key() {
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1), &photo(2)]);
    let stats: Value = serde_json::from_str(&house.succeed(&["gallery", "stats", "--json"])).unwrap();
    assert_eq!((&stats["people"], &stats["templates"], &stats["dimension"]), (&1.into(), &2.into(), &128.into()), "{stats}");
    assert!(house.succeed(&["gallery", "stats"]).starts_with("1 people, 2 templates of faceid-embedder (128-D)"));
    let said = house.succeed(&["gallery", "verify", "--people"]);
    assert!(said.contains("0 of 2 templates are a risk"), "{said}");
    house.succeed(&["enroll", "bob", &photo(3), "--allow-duplicate"]);
    let said = house.fail(1, &["gallery", "verify", "--people"]);
    assert!(said.contains("bob template") && said.contains("CrossPerson"), "{said}");
    // The photo of two people who are one face: who they are, and how surely, with each one's second-best template.
    let seen: Value = serde_json::from_slice(&house.run(&["recognize", &photo(1), "--json"]).stdout).unwrap();
    let face = &seen[0]["faces"][0];
    let candidates: Vec<(&Value, &Value)> =
        face["candidates"].as_array().unwrap().iter().map(|row| (&row["person"], &row["templates"])).collect();
    assert_eq!(candidates, [(&"ann".into(), &2.into()), (&"bob".into(), &1.into())], "{seen}");
    let (best, second) = (face["candidates"][0]["score"].as_f64().unwrap(), face["candidates"][0]["second"].as_f64().unwrap());
    assert!(best > 0.99 && second < best && face["candidates"][1]["second"].is_null(), "{seen}");
    assert_eq!((&face["score"], &face["identity"]), (&face["candidates"][0]["score"], &"ann".into()), "{seen}");
    let risks: Value = serde_json::from_slice(&house.run(&["gallery", "verify", "--people", "--json"]).stdout).unwrap();
    assert!(risks["risks"].as_array().unwrap().iter().any(|risk| risk["person"] == "bob" && risk["nearest"] == "ann"), "{risks}");

    let (new, old) = (house.path("new.key"), house.path("secrets/gallery.key"));
    let said = house.succeed(&["gallery", "rekey", "--new-key", new.to_str().unwrap()]);
    assert!(said.contains("new.key"), "{said}");
    assert!(house.fail(77, &["people", "list"]).contains("another key"));
    std::fs::rename(&new, &old).unwrap();
    house.succeed(&["gallery", "verify"]);
    house.succeed(&["people", "set", "bob", "--name", "Bob"]);
    assert!(house.succeed(&["people", "list"]).contains("Bob"));
}

#[test]
fn an_import_refuses_a_face_that_is_somebody_elses_and_names_whose() {
    let house = house();
    for (person, number) in [("ann", 1), ("bob", 2)] {
        std::fs::create_dir_all(house.path("people").join(person)).unwrap();
        std::fs::copy(photo(number), house.path("people").join(person).join("photo.jpg")).unwrap();
    }
    let folder = house.path("people").to_str().unwrap().to_owned();
    // What was refused is told by the exit code too.
    let imported = || {
        let output = house.run(&["import", &folder, "--json"]);
        assert_eq!(output.status.code(), Some(65));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let report = imported();
    assert_eq!((&report["people"], &report["templates"]), (&1.into(), &1.into()), "{report}");
    let refused = report["refused"].as_array().unwrap();
    assert!(refused.len() == 1 && refused[0]["path"].as_str().unwrap().ends_with("bob"), "{report}");
    assert!(refused[0]["reason"].as_str().unwrap().contains("already enrolled as ann"), "{report}");
    // Again: her own face is no other's, his is still hers.
    let report = imported();
    assert_eq!((&report["people"], report["refused"].as_array().unwrap().len()), (&1.into(), 1), "{report}");
    let report: Value = serde_json::from_str(&house.succeed(&["import", &folder, "--allow-duplicate", "--json"])).unwrap();
    assert_eq!(report["people"], 2, "{report}");
}
