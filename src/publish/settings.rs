//! The `[publish]` table of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::discovery;
use crate::types::DeviceId;

/// Where the broker is and how this device speaks to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// The broker's host name or address, without a scheme.
    pub host: String,
    /// The broker's port: 1883 is usual without TLS, 8883 with it.
    pub port: u16,
    /// The user name, if the broker wants one.
    pub user: Option<String>,
    /// The secret that holds the password: a systemd credential's name, or a file of mode 0600.
    pub password_secret: Option<String>,
    /// The MQTT client id; `faceid-<device>` if not set. Two clients with one id throw each other out.
    pub client_id: Option<String>,
    /// The first part of every topic; the device's id follows.
    pub base_topic: String,
    /// After how many seconds of silence the connection is probed; the broker gives the device up for lost after one and a half
    /// times that. 5 to 3600.
    pub keep_alive_s: u16,
    /// How many seconds one try to connect may take, name resolution and TLS included. 1 to 60.
    pub connect_timeout_s: u16,
    /// After how many seconds without a confirmation the broker is left and connected to anew. 1 to 300.
    pub ack_timeout_s: u16,
    /// The first wait before connecting again, in milliseconds; it doubles with every failure. 10 to 60000.
    pub retry_floor_ms: u32,
    /// The longest wait before connecting again, in milliseconds. At least `retry-floor-ms`, at most 600000.
    pub retry_ceiling_ms: u32,
    /// How many milliseconds a clean stop may spend on delivering what waits and saying `offline`. 100 to 30000.
    pub flush_timeout_ms: u32,
    /// How many events wait in memory for a broker that is away. When it is full, the oldest event that is no decision goes first.
    /// 16 to 4096.
    pub queue_events: u32,
    /// How many MiB of decisions the outbox keeps on disk, for an outage and for `cmd/replay`. 1 to 4096.
    pub outbox_mib: u32,
    /// How many days a decision is kept there. 1 to 3650.
    pub outbox_days: u32,
    /// How many MiB the audit trail may take; the oldest go first. 1 to 65536.
    pub audit_mib: u32,
    /// For how many seconds after a start grants are made although the broker has not told yet what it keeps of this device's last
    /// `birth`, which shows an older state put back. 0: none before that. A grant reaches a door by the broker, so while it is away
    /// nothing is lost; one that stays silent needs its access rules mended, and this is the time for it. 0 to 86400.
    pub unheard_grants_s: u32,
    /// The keys of those whose commands are obeyed, a JWK set in a file that only the operator can change; `faceid keygen --operator FILE`
    /// makes one. Without it every command is refused.
    pub operator_keys: Option<PathBuf>,
    /// Who may look at faces after `cmd/snapshot-on`: the public key that `faceid keygen --snapshots FILE` prints. Without it no picture ever
    /// leaves the device.
    pub snapshot_recipient: Option<String>,
    /// Whether Home Assistant is told of this device (`<home-assistant-prefix>/device/<device>/config`). Switched off, what it was told is
    /// taken back.
    pub home_assistant: bool,
    /// The first part of that topic: the discovery prefix in Home Assistant's MQTT options.
    pub home_assistant_prefix: String,
    /// Where Home Assistant says `online` when it has started: the birth message's topic in its MQTT options. It is then told again.
    pub home_assistant_birth_topic: String,
    /// Whether decisions carry people's names beside their ids.
    pub person_names: bool,
    /// TLS.
    pub tls: Tls,
}

/// The `[publish.tls]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tls {
    /// Whether the connection is encrypted and the broker's certificate checked.
    pub enabled: bool,
    /// The authorities that may have signed the broker's certificate (PEM). The default is Debian's and Ubuntu's own list.
    pub ca_file: PathBuf,
    /// This device's certificate chain (PEM), if the broker wants one; `client-key-secret` belongs to it.
    pub client_certificate_file: Option<PathBuf>,
    /// The secret that holds the certificate's private key (PEM).
    pub client_key_secret: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 1883,
            user: None,
            password_secret: None,
            client_id: None,
            base_topic: "faceid".into(),
            keep_alive_s: 15,
            connect_timeout_s: 5,
            ack_timeout_s: 20,
            retry_floor_ms: 250,
            retry_ceiling_ms: 10_000,
            flush_timeout_ms: 2_000,
            queue_events: 256,
            outbox_mib: 64,
            outbox_days: 30,
            audit_mib: 256,
            unheard_grants_s: 0,
            operator_keys: None,
            snapshot_recipient: None,
            home_assistant: true,
            home_assistant_prefix: discovery::DEFAULT_PREFIX.into(),
            home_assistant_birth_topic: discovery::DEFAULT_BIRTH_TOPIC.into(),
            person_names: false,
            tls: Tls::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            enabled: false,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            client_certificate_file: None,
            client_key_secret: None,
        }
    }
}

impl Settings {
    /// How many bytes the audit trail may take.
    pub fn audit_bytes(&self) -> u64 {
        u64::from(self.audit_mib) << 20
    }

    /// Every value that would not work: the dotted key below `[publish]`, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut find = |key: &str, what: String| findings.push((key.to_owned(), what));
        if self.host.is_empty() || self.host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            find("host", "give a host name or an address alone, without a scheme, a user or a path".into());
        }
        if self.port == 0 {
            find("port", "0 is no port: 1883 is usual, 8883 with TLS".into());
        }
        let topics = [
            ("base-topic", &self.base_topic),
            ("home-assistant-prefix", &self.home_assistant_prefix),
            ("home-assistant-birth-topic", &self.home_assistant_birth_topic),
        ];
        for (key, topic) in topics {
            let has_plain_ends = !topic.starts_with(['$', '/']) && !topic.ends_with('/');
            if topic.is_empty() || !has_plain_ends || topic.len() > 200 || topic.contains(['+', '#', '\0']) {
                find(key, "use 1 to 200 bytes without `+` and `#`, not starting with `$` and without `/` at its ends".into());
            }
            // What is said there would be taken for a node's word.
            let is_ours = topic.strip_prefix(&self.base_topic).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if key != "base-topic" && is_ours {
                find(key, "use a topic that is not below `base-topic`".into());
            }
        }
        if self.client_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 200 || id.contains(char::is_control)) {
            find("client-id", "use 1 to 200 bytes, or leave it out".into());
        }
        if self.password_secret.is_some() && self.user.is_none() {
            find("password-secret", "a password goes with a user name: set `user` too".into());
        }
        let ranges = [
            ("keep-alive-s", u32::from(self.keep_alive_s), 5, 3600),
            ("connect-timeout-s", u32::from(self.connect_timeout_s), 1, 60),
            ("ack-timeout-s", u32::from(self.ack_timeout_s), 1, 300),
            ("retry-floor-ms", self.retry_floor_ms, 10, 60_000),
            ("retry-ceiling-ms", self.retry_ceiling_ms, self.retry_floor_ms, 600_000),
            ("flush-timeout-ms", self.flush_timeout_ms, 100, 30_000),
            ("queue-events", self.queue_events, 16, 4096),
            ("outbox-mib", self.outbox_mib, 1, 4096),
            ("outbox-days", self.outbox_days, 1, 3650),
            ("audit-mib", self.audit_mib, 1, 65_536),
            ("unheard-grants-s", self.unheard_grants_s, 0, 86_400),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                find(key, format!("{value} is outside {low} to {high}"));
            }
        }
        if self.operator_keys.as_ref().is_some_and(|path| !path.is_absolute()) {
            find("operator-keys", "must be an absolute path".into());
        }
        if self.tls.client_certificate_file.is_some() != self.tls.client_key_secret.is_some() {
            find("tls.client-certificate-file", "a certificate goes with its key: set `client-key-secret` too, or neither".into());
        }
        if !self.tls.enabled && self.tls.client_certificate_file.is_some() {
            find("tls.enabled", "a client certificate needs TLS: set it to true".into());
        }
        findings
    }

    /// The MQTT client id of `device`'s daemon, which the ids of its tools begin with too: where a broker takes only some ids, one prefix
    /// lets all of them in.
    pub fn client_id(&self, device: &DeviceId) -> String {
        self.client_id.clone().unwrap_or_else(|| format!("faceid-{device}"))
    }

    /// The topic that all of `device`'s topics begin with.
    pub fn topic_root(&self, device: &DeviceId) -> String {
        format!("{}/{device}", self.base_topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_out_of_range_is_found_by_its_key() {
        let broken = Settings {
            host: "mqtt://user@host".into(),
            port: 0,
            password_secret: Some("mqtt-password".into()),
            client_id: Some(String::new()),
            base_topic: "a/#".into(),
            keep_alive_s: 4,
            connect_timeout_s: 0,
            ack_timeout_s: 0,
            retry_floor_ms: 0,
            retry_ceiling_ms: 600_001,
            flush_timeout_ms: 0,
            queue_events: 0,
            outbox_mib: 0,
            outbox_days: 0,
            audit_mib: 0,
            unheard_grants_s: 86_401,
            home_assistant_prefix: "a/#".into(),
            home_assistant_birth_topic: "/status".into(),
            tls: Tls { client_certificate_file: Some("a.pem".into()), ..Tls::default() },
            ..Settings::default()
        };
        let mut keys: Vec<String> = broken.findings().into_iter().map(|(key, _)| key).collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "ack-timeout-s",
                "audit-mib",
                "base-topic",
                "client-id",
                "connect-timeout-s",
                "flush-timeout-ms",
                "home-assistant-birth-topic",
                "home-assistant-prefix",
                "home-assistant-prefix",
                "host",
                "keep-alive-s",
                "outbox-days",
                "outbox-mib",
                "password-secret",
                "port",
                "queue-events",
                "retry-ceiling-ms",
                "retry-floor-ms",
                "tls.client-certificate-file",
                "tls.enabled",
                "unheard-grants-s"
            ]
        );
    }

    #[test]
    fn unknown_keys_are_refused_and_the_defaults_are_sound() {
        assert!(toml::from_str::<Settings>("password = 'hunter2'").is_err());
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        assert_eq!(Settings::default().findings(), []);
    }
}
