//! The broker's config files and access rules as the project ships them, under a real mosquitto: who hears what, who says what, and a
//! publisher among them.

use std::collections::BTreeSet;

use faceid_plus::publish::{Notice, Said, Settings, State, Subscriber, Tls};

use super::mosquitto::{Certificates, Mosquitto, PATIENCE, password_of, secret, wait_for};
use super::{MINUTE, Running, next, settings, wait_until_subscribed};

/// A node, another one, and everybody else whom the rules name.
const USERS: [&str; 6] = ["gate", "thief", "door-gate-front", "reader-gate-front", "operator", "homeassistant"];

/// A broker by one of the two config files, and its clients.
struct Site {
    certificates: Certificates,
    broker: Mosquitto,
    by_password: bool,
}

impl Site {
    fn with(config: &str) -> Self {
        let certificates = Certificates::make();
        let by_password = config.contains("passwords");
        if !by_password {
            certificates.by_script(&USERS);
        }
        for user in USERS {
            if by_password {
                secret(&certificates.path(""), &format!("{user}.password"), password_of(user).as_bytes());
            }
        }
        let broker = Mosquitto::shipped(config, &certificates, if by_password { &USERS } else { &[] }, None);
        Self { certificates, broker, by_password }
    }

    fn both() -> [Self; 2] {
        ["faceid.conf", "faceid-passwords.conf"].map(Self::with)
    }

    fn settings(&self, user: &str) -> Settings {
        let tls = Tls { enabled: true, ca_file: self.certificates.path("ca.pem"), ..Tls::default() };
        let all = Settings { host: "localhost".into(), client_id: Some(user.to_owned()), tls, ..settings(self.broker.port) };
        if self.by_password {
            return Settings { user: Some(user.to_owned()), password_secret: Some(format!("{user}.password")), ..all };
        }
        let certificate = Some(self.certificates.path(&format!("{user}.pem")));
        let tls = Tls { client_certificate_file: certificate, client_key_secret: Some(format!("{user}.key")), ..all.tls.clone() };
        Settings { tls, ..all }
    }

    fn client(&self, user: &str, filter: &str) -> Subscriber {
        let client = Subscriber::start(&self.settings(user), &self.certificates.path(""), filter).unwrap();
        wait_until_subscribed(&client);
        client
    }
}

/// Says it and waits until the broker has taken or refused it.
fn say(client: &Subscriber, topic: &str) {
    client.say(Said { topic: topic.to_owned(), payload: "word".to_owned(), receipt: Some(1), ..Said::default() });
    wait_for("the broker's receipt", || (client.next(PATIENCE)? == Notice::Taken(1)).then_some(()));
}

#[test]
fn the_shipped_rules_bring_everybody_what_is_theirs_and_no_pin_or_duress_to_a_dashboard() {
    let said = [
        ("gate", "faceid/gate/birth"),
        ("gate", "faceid/gate/door/front/decision"),
        ("gate", "faceid/gate/keys"),
        ("gate", "faceid/gate/alarm/duress"),
        ("gate", "faceid/gate/alarm/witness-silent"),
        ("gate", "faceid/gate/door/front/snapshot"),
        ("gate", "faceid/gate/door/front/access"),
        ("gate", "faceid/gate/door/front/hold"),
        ("gate", "faceid-operator/answer"),
        ("gate", "homeassistant/device/gate/config"),
        ("gate", "homeassistant/device/other/config"),
        ("gate", "faceid/thief/status"),
        ("thief", "faceid/gate/birth"),
        ("thief", "faceid/gate/alarm/spoof"),
        ("door-gate-front", "faceid/gate/door/front/state"),
        ("door-gate-front", "faceid/gate/door/front/passage"),
        ("door-gate-front", "faceid/gate/alarm/forced-open"),
        ("door-gate-front", "faceid/gate/door/front/credential"),
        ("door-gate-front", "faceid/gate/door/front/decision"),
        ("door-gate-front", "faceid/gate/door/front/hold"),
        ("reader-gate-front", "faceid/gate/door/front/credential"),
        ("reader-gate-front", "faceid/gate/door/front/state"),
        ("reader-gate-front", "faceid/gate/cmd/lockdown"),
        ("homeassistant", "faceid/gate/cmd/lockdown"),
        ("homeassistant", "faceid/gate/cmd/ping"),
        ("homeassistant", "homeassistant/status"),
        ("operator", "faceid/gate/status"),
        ("operator", "faceid/gate/cmd/lockdown"),
        // The last word for everybody who hears anything.
        ("gate", "faceid/gate/status"),
        ("operator", "faceid/gate/cmd/replay"),
        ("operator", "faceid/thief/cmd/ping"),
    ];
    let heard: [(&str, &str, &[&str]); 6] = [
        (
            "gate",
            "faceid/gate/cmd/replay",
            &[
                "faceid/gate/birth",
                "faceid/gate/cmd/lockdown",
                "faceid/gate/cmd/ping",
                "faceid/gate/cmd/replay",
                "faceid/gate/door/front/credential",
                "faceid/gate/door/front/passage",
                "homeassistant/status",
            ],
        ),
        ("thief", "faceid/thief/cmd/ping", &["faceid/thief/cmd/ping", "homeassistant/status"]),
        (
            "door-gate-front",
            "homeassistant/status",
            &["faceid/gate/door/front/decision", "faceid/gate/door/front/hold", "faceid/gate/keys", "homeassistant/status"],
        ),
        ("reader-gate-front", "homeassistant/status", &["homeassistant/status"]),
        (
            "operator",
            "faceid/thief/cmd/ping",
            &[
                "faceid-operator/answer",
                "faceid/gate/alarm/duress",
                "faceid/gate/alarm/forced-open",
                "faceid/gate/alarm/witness-silent",
                "faceid/gate/birth",
                "faceid/gate/cmd/lockdown",
                "faceid/gate/cmd/ping",
                "faceid/gate/cmd/replay",
                "faceid/gate/door/front/access",
                "faceid/gate/door/front/decision",
                "faceid/gate/door/front/hold",
                "faceid/gate/door/front/passage",
                "faceid/gate/door/front/snapshot",
                "faceid/gate/door/front/state",
                "faceid/gate/keys",
                "faceid/gate/status",
                "faceid/thief/cmd/ping",
                "homeassistant/status",
            ],
        ),
        (
            "homeassistant",
            "faceid/gate/status",
            &[
                "faceid/gate/alarm/forced-open",
                "faceid/gate/alarm/witness-silent",
                "faceid/gate/birth",
                "faceid/gate/door/front/access",
                "faceid/gate/door/front/decision",
                "faceid/gate/door/front/state",
                "faceid/gate/status",
                "homeassistant/device/gate/config",
                "homeassistant/status",
            ],
        ),
    ];
    for site in Site::both() {
        let ears = heard.map(|(user, _, _)| site.client(user, "#"));
        let mouths = USERS.map(|user| (user, site.client(user, "faceid/nothing")));
        for (user, topic) in said {
            say(&mouths.iter().find(|(name, _)| *name == user).unwrap().1, topic);
        }
        for ((user, last, wanted), ear) in heard.iter().zip(&ears) {
            let mut topics = BTreeSet::new();
            wait_for(&format!("{last} for {user}"), || match ear.next(PATIENCE)? {
                Notice::Message(message) => {
                    let is_last = message.topic == *last;
                    topics.insert(message.topic);
                    is_last.then_some(())
                }
                _ => None,
            });
            let wanted: BTreeSet<String> = wanted.iter().map(|topic| (*topic).to_owned()).collect();
            assert_eq!(topics, wanted, "{user}, passwords: {}", site.by_password);
        }
    }
}

#[test]
fn the_shipped_rules_let_a_node_speak_for_itself_alone() {
    for site in Site::both() {
        let secrets = site.certificates.path("");
        let mut nobody = site.settings("gate");
        nobody.tls.client_certificate_file = None;
        nobody.tls.client_key_secret = None;
        nobody.user = None;
        nobody.password_secret = None;
        let refused = Running::start(nobody, &secrets);
        refused.failure();
        drop(refused);

        // Another node that says it is `gate`: the broker knows it by another name.
        let thief = Running::start(site.settings("thief"), &secrets);
        thief.decide(1, MINUTE);
        let refusal = wait_for("the refusal", || match thief.publisher.state() {
            State::Online { refusal } => refusal,
            _ => None,
        });
        assert!(refusal.contains("NotAuthorized") && refusal.contains("faceid/gate/") && refusal.contains("ACL"), "{refusal}");
        drop(thief);

        let desk = site.client("operator", "faceid/gate/#");
        let door = site.client("door-gate-front", "faceid/gate/door/front/decision");
        let gate = Running::start(site.settings("gate"), &secrets);
        gate.decide(1, MINUTE);
        for subscriber in [&desk, &door] {
            next(subscriber, "door/front/decision");
        }
        gate.wait_until_delivered(1);
    }
}
