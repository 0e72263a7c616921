//! The broker as a witness: what it keeps of this device is read before anything is granted, whatever the first connections end in, by the
//! access rules that are shipped, and loudly where they let it not be read.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::House;
use super::both_sides::{command, furnish};
use super::hurdle::{Hurdle, Obstacle};
use super::memory::{OPEN_DOORS, told_in};
use super::mosquitto::{Certificates, Mosquitto, secret, shipped_rules, wait_for};
use super::show_it::{Ear, Killed, essence, start};
use super::writer::await_status;

/// The folder with all that is in it.
fn copy_all(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            copy_all(&path, &to.join(entry.file_name()));
        } else if path.is_file() {
            std::fs::copy(&path, to.join(entry.file_name())).unwrap();
        }
    }
}

/// A second config beside the first.
fn altered(house: &House, config: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(config).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    let path = house.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The next live decision; a grant is a failure.
fn ungranted(decisions: &Ear, reason: &str) {
    decisions.until(reason, |_, payload| {
        let is_live = !payload.contains("\"historical\":true");
        let (_, outcome, why, _) = essence(payload);
        assert!(!is_live || outcome != "granted", "granted while the broker knew better: {payload}");
        is_live && why == reason
    });
}

/// Both alarms of a state that was put back, in whatever order.
fn alarms_of_a_rollback(alarms: &Ear) {
    let (mut memory, mut gallery) = (false, false);
    alarms.until("the alarms of an older memory and an older gallery", |topic, _| {
        memory |= topic.ends_with("/alarm/tamper");
        gallery |= topic.ends_with("/alarm/gallery-rollback");
        memory && gallery
    });
}

/// Until the birth that the broker keeps tells of a memory beyond `earlier`, and of so many people.
fn told(births: &Ear, earlier: u64, people: u64) -> u64 {
    let (_, payload) = births.until("a birth that tells of a later memory", |_, payload| {
        let birth: Value = serde_json::from_str(payload).unwrap();
        told_in(payload) > Some(earlier) && birth["gallery"]["people"] == people
    });
    told_in(&payload).unwrap()
}

#[test]
fn an_older_state_put_back_is_found_out_however_the_first_connections_end() {
    for obstacle in [Obstacle::Closes, Obstacle::Busy] {
        let broker = Mosquitto::open();
        let (house, config) = furnish(broker.port, OPEN_DOORS);
        let births = || Ear::on(broker.port, "faceid/unit/birth");
        {
            let ear = births();
            let _daemon = start(&house, &config);
            told(&ear, 0, 2);
        }
        let (state, old) = (house.path("state"), house.path("old"));
        copy_all(&state, &old);
        {
            let _daemon = start(&house, &config);
            let earlier = told(&births(), 0, 2);
            assert_eq!(command(&house, &config, &["lockdown"])["ok"], true);
            house.succeed(&["people", "remove", "person-a"]);
            told(&births(), earlier, 1);
        }
        copy_all(&old, &state);
        let hurdle = Hurdle::before(broker.port, 4, obstacle);
        let (port, other) = (format!("port = {}", broker.port), format!("port = {}", hurdle.port));
        let behind = altered(&house, &config, "behind.toml", &[(&port, &other)]);
        let alarms = Ear::on(broker.port, "faceid/unit/alarm/+");
        let decisions = Ear::on(broker.port, "faceid/unit/door/front/decision");
        let _daemon = start(&house, &behind);
        alarms_of_a_rollback(&alarms);
        ungranted(&decisions, "lockdown");
    }
}

/// A site by the files that are shipped: the device `gate`, its door, an operator.
struct Site {
    certificates: Certificates,
    broker: Mosquitto,
    house: House,
    gate: PathBuf,
    door: PathBuf,
    operator: PathBuf,
}

impl Site {
    fn with(acl: Option<&str>) -> Self {
        let certificates = Certificates::make();
        for user in ["gate", "door-gate-front", "operator"] {
            certificates.leaf(user, "extendedKeyUsage=clientAuth\n");
        }
        let broker = Mosquitto::shipped("faceid.conf", &certificates, &[], acl);
        let tls = |user: &str| {
            format!(
                "[publish.tls]\nenabled = true\nca-file = \"{}\"\nclient-certificate-file = \"{}\"\nclient-key-secret = \"tls-{user}.key\"\n",
                certificates.path("ca.pem").display(),
                certificates.path(&format!("{user}.pem")).display()
            )
        };
        let (house, plain) = furnish(broker.port, OPEN_DOORS);
        let mut configs = Vec::new();
        for user in ["gate", "door-gate-front", "operator"] {
            let key = std::fs::read(certificates.path(&format!("{user}.key"))).unwrap();
            secret(&house.path("secrets"), &format!("tls-{user}.key"), &key);
            let changes = [("device = \"unit\"", "device = \"gate\""), ("[controller]\n", &format!("{}[controller]\n", tls(user)))];
            configs.push(altered(&house, &plain, &format!("{user}.toml"), &changes));
        }
        let [gate, door, operator] = configs.try_into().unwrap();
        Self { certificates, broker, house, gate, door, operator }
    }

    /// What the operator hears.
    fn ear(&self, filter: &str) -> Ear {
        let file = |name: &str| self.certificates.path(name).to_str().unwrap().to_owned();
        let options = ["--cafile".to_owned(), file("ca.pem"), "--cert".to_owned(), file("operator.pem"), "--key".to_owned()];
        let options: Vec<String> = options.into_iter().chain([file("operator.key")]).collect();
        Ear::with(self.broker.port, filter, &options)
    }

    fn births(&self) -> Ear {
        self.ear("faceid/gate/birth")
    }

    fn command(&self, verb: &str) {
        assert_eq!(command(&self.house, &self.operator, &[verb])["ok"], true, "{verb}");
    }
}

#[test]
fn by_the_shipped_rules_a_grant_opens_the_door_and_an_older_state_put_back_is_found_out() {
    let site = Site::with(None);
    let house = &site.house;
    {
        let mut door = house.command();
        door.arg("--config").arg(&site.door).arg("door").stdout(Stdio::piped()).env_remove("RUST_LOG");
        let mut door = Killed(door.spawn().unwrap());
        let states = site.ear("faceid/gate/door/front/state");
        states.until("the door", |_, state| state == "locked");
        let births = site.births();
        let _daemon = start(house, &site.gate);
        told(&births, 0, 2);
        states.until("the door that a grant opens", |_, state| state == "unlocked");
        let watched = house.succeed(&["--config", site.operator.to_str().unwrap(), "watch", "--seconds", "60", "--count", "1"]);
        assert!(watched.contains("door front"), "{watched}");
        let doctor = super::text(&house.run(&["--config", site.gate.to_str().unwrap(), "doctor"]));
        assert!(doctor.contains("it has told what it keeps of this device"), "{doctor}");
        door.0.kill().unwrap();
    }
    let (state, old) = (house.path("state"), house.path("old"));
    copy_all(&state, &old);
    {
        let _daemon = start(house, &site.gate);
        let earlier = told(&site.births(), 0, 2);
        site.command("lockdown");
        house.succeed(&["people", "remove", "person-a"]);
        told(&site.births(), earlier, 1);
    }
    copy_all(&old, &state);
    let (alarms, decisions) = (site.ear("faceid/gate/alarm/+"), site.ear("faceid/gate/door/front/decision"));
    let _daemon = start(house, &site.gate);
    alarms_of_a_rollback(&alarms);
    ungranted(&decisions, "lockdown");
}

#[test]
fn a_broker_that_takes_the_subscription_and_brings_nothing_is_told_and_keeps_its_word_until_its_rules_are_mended() {
    let rules = shipped_rules();
    let silent: String =
        rules.lines().filter(|line| !line.ends_with("read faceid/%u/birth")).map(|line| format!("{line}\n")).collect();
    assert_ne!(silent.len(), rules.len());
    let site = Site::with(Some(&silent));
    let (house, decisions) = (&site.house, site.ear("faceid/gate/door/front/decision"));
    let doctor = || super::text(&house.run(&["--config", site.gate.to_str().unwrap(), "doctor"]));
    {
        let (alarms, births) = (site.ear("faceid/gate/alarm/+"), site.births());
        let (_daemon, notify) = start(house, &site.gate);
        let (topic, alarm) = alarms.until("the alarm", |_, _| true);
        assert!(topic.ends_with("/witness-silent") && alarm.contains("access rules"), "{topic} {alarm}");
        await_status(&notify, "no witness");
        let said = doctor();
        assert!(said.contains("no witness") && said.contains("faceid/gate/birth"), "{said}");
        ungranted(&decisions, "broker-silent");
        // Said to hear it, not to be kept.
        assert!(births.until("the echo", |_, _| true).1.contains("\"claim\""));
        site.broker.mend(&rules);
        told(&births, 0, 2);
        decisions.until("a grant", |_, payload| essence(payload).1 == "granted");
    }
    let (state, old) = (house.path("state"), house.path("old"));
    copy_all(&state, &old);
    {
        let _daemon = start(house, &site.gate);
        let earlier = told(&site.births(), 0, 2);
        site.command("lockdown");
        house.succeed(&["people", "remove", "person-a"]);
        told(&site.births(), earlier, 1);
    }
    copy_all(&old, &state);
    // While no daemon runs `doctor` asks by itself.
    let said = doctor();
    assert!(said.contains("it keeps what this device told it last"), "{said}");
    site.broker.mend(&silent);
    let said = doctor();
    assert!(said.contains("brings nothing of faceid/gate/birth") && said.contains("pattern read faceid/%u/birth"), "{said}");
    let alarms = site.ear("faceid/gate/alarm/+");
    let _daemon = start(house, &site.gate);
    alarms.until("the alarm of the silence", |topic, _| topic.ends_with("/witness-silent"));
    ungranted(&decisions, "broker-silent");
    site.broker.mend(&rules);
    alarms_of_a_rollback(&alarms);
    ungranted(&decisions, "lockdown");
}

#[test]
fn the_broker_is_heard_under_the_daemons_own_id_and_after_a_password_was_mended() {
    let mut broker = Mosquitto::prepared(|_| "allow_anonymous true\nclientid_prefixes faceid-unit\n".into());
    broker.start();
    let (house, config) = furnish(broker.port, OPEN_DOORS);
    let heard = |config: &Path| {
        wait_for("the broker's word", || {
            let doctor = super::text(&house.run(&["--config", config.to_str().unwrap(), "doctor"]));
            (doctor.contains("it has told what it keeps") && doctor.contains("takes us")).then_some(())
        });
    };
    drop((start(&house, &config), heard(&config)));

    let broker = Mosquitto::with_password("unit", "the right one");
    secret(&house.path("secrets"), "mqtt-password", b"a wrong one");
    let port = std::fs::read_to_string(&config).unwrap().lines().find(|line| line.starts_with("port = ")).unwrap().to_owned();
    let named = format!("port = {}\nuser = \"unit\"\npassword-secret = \"mqtt-password\"", broker.port);
    let config = altered(&house, &config, "named.toml", &[(&port, &named)]);
    let _daemon = start(&house, &config);
    let doctor = super::text(&house.run(&["--config", config.to_str().unwrap(), "doctor"]));
    assert!(doctor.contains("no witness") && doctor.contains("it has not been heard"), "{doctor}");
    secret(&house.path("secrets"), "mqtt-password", b"the right one");
    heard(&config);
}
