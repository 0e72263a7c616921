//! How a connection to the broker is set up, and what can go wrong with it in words for the operator.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use thiserror::Error as ThisError;

use super::settings::Settings;
use super::wire::Breach;
use crate::system::{Backoff, secret};
use crate::types::{Monotonic, Wall};

/// The largest packet that we take from a broker, in bytes: pictures, and decisions of old in one answer.
pub(super) const MAX_PACKET_BYTES: u32 = 256 * 1024;
/// A connection that lasted this long was a good one: the next failure waits short again, and is news.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// So many connections in a row that ended sooner are no accident.
const SHORT_CONNECTIONS: u32 = 3;
const AT_ONCE: &str = "each connection ends at once";
/// The most messages that are under way at once. rumqttc keeps a table of this size, and its default of 65,535 costs megabytes.
const MAX_INFLIGHT: u16 = 32;

/// What the system keeps of a connection that we have not read yet, in bytes (Linux doubles it). Left to itself it grows to megabytes, and
/// with it the broker's own: somebody who sends faster than we read then puts a hundred thousand short messages, half a minute of a busy
/// machine, before each confirmation and each operator's command. A broker that cannot send keeps what is confirmed and drops the rest.
const RECEIVE_BUFFER_BYTES: u32 = 32 * 1024;

/// Why there is no connection to the broker. Neither a password nor a payload is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Problem {
    /// Our own password or key could not be read.
    #[error("{0}")]
    Secret(String),
    /// Our own certificate files are no use.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
    /// Nobody listens there, or the name is unknown.
    #[error("broker {broker} cannot be reached ({detail}): is it running, and are [publish] host and port right?")]
    Unreachable {
        /// Host and port.
        broker: String,
        /// The system's word.
        detail: String,
    },
    /// No answer in time.
    #[error(
        "broker {broker} does not answer within `connect-timeout-s`: is there a firewall, or does it want TLS where we speak none?"
    )]
    Timeout {
        /// Host and port.
        broker: String,
    },
    /// The broker's certificate is not good.
    #[error("the certificate of broker {broker} is not accepted ({detail}): check [publish.tls] ca-file and the host name")]
    Untrusted {
        /// Host and port.
        broker: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The broker's certificate is not good at this time.
    #[error("the certificate of broker {broker} {detail}")]
    Untimely {
        /// Host and port.
        broker: String,
        /// When it is, and what to do.
        detail: String,
    },
    /// The broker does not take our certificate, or wants one.
    #[error(
        "broker {broker} does not accept this device's TLS certificate ({detail}): check client-certificate-file and client-key-secret"
    )]
    ClientCertificate {
        /// Host and port.
        broker: String,
        /// The broker's alert.
        detail: String,
    },
    /// TLS failed otherwise.
    #[error("TLS with broker {broker} failed ({detail}): does that port speak TLS?")]
    Tls {
        /// Host and port.
        broker: String,
        /// What failed.
        detail: String,
    },
    /// Wrong user or password, or none.
    #[error(
        "broker {broker} refuses this user: check [publish] user and the secret that password-secret names, and client-id where it takes only some ids"
    )]
    Credentials {
        /// Host and port.
        broker: String,
    },
    /// It lets this user not read a topic.
    #[error("broker {broker} does not let this user read {topic} ({reason}): check its access rules (ACL); this is tried again")]
    Unreadable {
        /// Host and port.
        broker: String,
        /// Which topic.
        topic: String,
        /// The protocol's reason.
        reason: String,
    },
    /// It refuses for another reason.
    #[error("broker {broker} refuses the connection: {detail}")]
    Refused {
        /// Host and port.
        broker: String,
        /// The protocol's reason.
        detail: String,
    },
    /// The connection was there and ended.
    #[error("the connection to broker {broker} was lost: {detail}")]
    Lost {
        /// Host and port.
        broker: String,
        /// How it ended.
        detail: String,
    },
}

impl Problem {
    /// What makes it the same problem again: its text without its numbers, which may be seconds that go by. Connections that end at once
    /// are one problem, closed or reset.
    fn kind(&self) -> String {
        let text = self.to_string();
        text.find(AT_ONCE)
            .map_or(text.as_str(), |at| &text[at..])
            .split(|c: char| c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("0")
    }
}

/// Which problems are news to whoever reads them: one that comes again and again is one line, until a connection was good in between.
#[derive(Debug, Default)]
pub struct News {
    told: Option<String>,
    online_since: Option<Monotonic>,
}

impl News {
    /// There is a connection now.
    pub fn connected(&mut self, now: Monotonic) {
        self.online_since = Some(now);
    }

    /// Whether this is to be told.
    pub fn is_news(&mut self, problem: &Problem, now: Monotonic) -> bool {
        let was_good = self.online_since.take().is_some_and(|since| now.since(since) >= GOOD_CONNECTION);
        let kind = problem.kind();
        let is_news = was_good || self.told.as_ref() != Some(&kind);
        self.told = Some(kind);
        is_news
    }
}

/// One connection after another: when the next may be tried, and what is to be thought of how they ended.
pub(super) struct Course {
    backoff: Backoff,
    client_id: String,
    news: News,
    /// Connections in a row that were over at once.
    short: u32,
}

impl Course {
    pub(super) fn new(settings: &Settings, client_id: &str) -> Self {
        let ms = |ms| Duration::from_millis(u64::from(ms));
        let backoff = Backoff::new(ms(settings.retry_floor_ms), ms(settings.retry_ceiling_ms));
        Self { backoff, client_id: client_id.to_owned(), news: News::default(), short: 0 }
    }

    /// A try or a connection has ended; `online` is how long it had lasted since the broker took us. Gives the problem, with what many
    /// short connections mean, and whether it is news.
    pub(super) fn ended(&mut self, problem: Problem, online: Option<Duration>, now: Monotonic) -> (Problem, bool) {
        let lasted = online.is_some_and(|lasted| lasted >= GOOD_CONNECTION);
        if lasted {
            self.backoff.reset();
            self.short = 0;
        } else if online.is_some() {
            self.short = self.short.saturating_add(1);
        }
        let problem = match problem {
            Problem::Lost { broker, detail } if self.short >= SHORT_CONNECTIONS => {
                let why = format!("is another program or another controller running with the client id `{}`?", self.client_id);
                Problem::Lost { broker, detail: format!("{detail}; {AT_ONCE}: {why}") }
            }
            problem => problem,
        };
        if lasted {
            self.news = News::default();
        }
        let is_news = self.news.is_news(&problem, now);
        (problem, is_news)
    }

    pub(super) fn next_delay(&mut self) -> Duration {
        self.backoff.next_delay()
    }
}

/// The options of a connection of ours; reads secrets and certificates anew, so that rotated ones are taken up by the next try.
pub(super) fn options(settings: &Settings, secrets: &Path, client_id: &str) -> Result<MqttOptions, Problem> {
    let mut options = MqttOptions::new(client_id, settings.host.as_str(), settings.port);
    // Below 5 s rumqttc panics; `Settings::findings` says so to the operator.
    options.set_keep_alive(Duration::from_secs(u64::from(settings.keep_alive_s.max(5))));
    options.set_connection_timeout(u64::from(settings.connect_timeout_s.max(1)));
    options.set_outgoing_inflight_upper_limit(MAX_INFLIGHT);
    // Each connection starts clean: what is pending is the outbox's to say, never the client's or the broker's.
    options.set_clean_start(true);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    network.set_tcp_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    options.set_network_options(network);
    if let Some(user) = &settings.user {
        let password = match &settings.password_secret {
            Some(name) => secret::read_line(name, secrets).map_err(|error| Problem::Secret(error.to_string()))?.to_string(),
            None => String::new(),
        };
        options.set_credentials(user, password);
    }
    if settings.tls.enabled {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls(settings, secrets)?))));
    }
    Ok(options)
}

/// A TLS client that trusts `ca-file` alone. The provider is named here rather than looked up in rustls's process-wide slot, so that
/// no other part of the program can decide it for us.
pub(super) fn tls(settings: &Settings, secrets: &Path) -> Result<ClientConfig, Problem> {
    let tls = &settings.tls;
    let setup = |what: String| Problem::Setup(what);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&tls.ca_file)?);
    if roots.is_empty() {
        return Err(setup(format!("no usable certificate in {}", tls.ca_file.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(error.to_string()))?
        .with_root_certificates(roots);
    let (Some(file), Some(name)) = (&tls.client_certificate_file, &tls.client_key_secret) else {
        return Ok(builder.with_no_client_auth());
    };
    let pem = secret::read(name, secrets).map_err(|error| Problem::Secret(error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| setup(format!("secret `{name}` holds no private key in PEM form")))?;
    builder.with_client_auth_cert(certificates(file)?, key).map_err(|error| setup(format!("{}: {error}", file.display())))
}

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let wrong = |detail: String| Problem::Setup(format!("{}: {detail}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(error.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate in PEM form".into()));
    }
    Ok(certificates)
}

/// What a failed or ended connection means; `was_online` tells a broker that left from one that never let us in.
pub(super) fn problem(error: &ConnectionError, settings: &Settings, was_online: bool) -> Problem {
    let broker = format!("{}:{}", settings.host, settings.port);
    if let ConnectionError::ConnectionRefused(code) = error {
        return match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized | ConnectReturnCode::Banned => {
                Problem::Credentials { broker }
            }
            code => Problem::Refused { broker, detail: refusal(*code) },
        };
    }
    if let Some(tls) = find_tls(error) {
        return tls_problem(&tls, broker);
    }
    if let ConnectionError::Io(error) = error
        && let Some(breach) = error.get_ref().and_then(|inner| inner.downcast_ref::<Breach>())
    {
        return Problem::Lost { broker, detail: breach.to_string() };
    }
    let detail = match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => {
                "another program has connected with this client id (SessionTakenOver): give each its own".to_owned()
            }
            DisconnectReasonCode::ServerShuttingDown => "the broker is shutting down".to_owned(),
            DisconnectReasonCode::NotAuthorized => {
                "this user did something that it may not (NotAuthorized): check the broker's access rules (ACL)".to_owned()
            }
            DisconnectReasonCode::PacketTooLarge => {
                "a message was longer than the broker takes (PacketTooLarge): raise its limit (mosquitto: max_packet_size)"
                    .to_owned()
            }
            code => format!("it ended the connection ({code:?})"),
        },
        ConnectionError::MqttState(StateError::AwaitPingResp) => "it does not answer pings".into(),
        error => error.to_string(),
    };
    match error {
        _ if was_online => Problem::Lost { broker, detail },
        ConnectionError::Timeout(_) => Problem::Timeout { broker },
        // An answer, and then an end: somebody listens, and speaks something else.
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset && !settings.tls.enabled => {
            Problem::Refused { broker, detail: format!("{detail}: does this port want TLS, where [publish.tls] enabled is false?") }
        }
        ConnectionError::Io(_) => Problem::Unreachable { broker, detail },
        ConnectionError::Tls(_) => Problem::Tls { broker, detail },
        // A broker that wants a certificate may close the socket before its alert was read.
        _ if settings.tls.enabled && settings.tls.client_certificate_file.is_none() => {
            Problem::Tls { broker, detail: format!("{detail}; it may want a client certificate") }
        }
        ConnectionError::MqttState(StateError::Deserialization(_)) | ConnectionError::NotConnAck(_) => {
            Problem::Refused { broker, detail: format!("{detail}: {NO_MQTT_5}") }
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Problem::Refused { broker, detail: format!("it closes the connection before it answers: {NO_MQTT_5}") }
        }
        _ => Problem::Refused { broker, detail },
    }
}

/// What an answer that is none of MQTT 5 may mean.
const NO_MQTT_5: &str = "does a broker with MQTT 5 listen there (mosquitto 1.6, RabbitMQ 3.13, EMQX 3 or newer)?";

/// The protocol's reasons of a refused connection that have a remedy.
fn refusal(code: ConnectReturnCode) -> String {
    let remedy = match code {
        ConnectReturnCode::RetainNotSupported => {
            "it keeps no retained messages, and states, keys and the witness need them: allow them"
        }
        ConnectReturnCode::QoSNotSupported => "it takes QoS 0 alone, and decisions need QoS 1: allow it",
        ConnectReturnCode::QuotaExceeded => "this user has too many connections or messages: raise its quota",
        ConnectReturnCode::UseAnotherServer | ConnectReturnCode::ServerMoved => {
            "it has moved: name the other broker in [publish] host"
        }
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
            "it does not take this client id: allow it, or set [publish] client-id"
        }
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => NO_MQTT_5,
        ConnectReturnCode::ServerBusy | ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => {
            "it is overloaded or starting; this is tried again"
        }
        _ => return format!("{code:?}"),
    };
    format!("{code:?}: {remedy}")
}

fn tls_problem(error: &rustls::Error, broker: String) -> Problem {
    let detail = error.to_string();
    let date = |seconds: u64| Wall(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)).rfc3339();
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            let (ended, now) = (date(not_after.as_secs()), date(time.as_secs()));
            let detail = format!("expired on {ended}, and this device's clock says {now}: renew it, or set the clock");
            Problem::Untimely { broker, detail }
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            let (begins, now) = (date(not_before.as_secs()), date(time.as_secs()));
            let detail = format!("is not valid before {begins}, and this device's clock says {now}: set the clock");
            Problem::Untimely { broker, detail }
        }
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Problem::Untrusted { broker, detail },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => Problem::ClientCertificate { broker, detail },
        _ => Problem::Tls { broker, detail },
    }
}

/// The TLS error inside, however deep: rumqttc wraps it in I/O errors, and once in an error that does not name its source.
fn find_tls(error: &ConnectionError) -> Option<rustls::Error> {
    let mut current: Option<&(dyn Error + 'static)> = match error {
        ConnectionError::MqttState(StateError::Deserialization(inner)) => Some(inner),
        error => Some(error),
    };
    while let Some(error) = current {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.clone());
        }
        current = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::Error;
    use rustls::pki_types::UnixTime;

    use super::*;

    fn lost(detail: &str) -> Problem {
        Problem::Lost { broker: "b:1883".into(), detail: detail.into() }
    }

    fn course() -> Course {
        Course::new(&Settings { retry_floor_ms: 100, retry_ceiling_ms: 10_000, ..Settings::default() }, "faceid-door-gate-front")
    }

    #[test]
    fn a_storm_is_backed_off_from_is_two_lines_and_names_its_cause() {
        let (mut course, now) = (course(), Monotonic::default());
        let mut told = Vec::new();
        let mut waited = Duration::ZERO;
        for n in 0..50 {
            let how = if n < 3 || n % 2 == 0 { "closed" } else { "reset" };
            let (problem, is_news) = course.ended(lost(how), Some(Duration::from_millis(100)), now);
            told.extend(is_news.then(|| problem.to_string()));
            waited = course.next_delay();
        }
        assert!(waited >= Duration::from_secs(5), "{waited:?}");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("another controller running with the client id `faceid-door-gate-front`"), "{told:?}");
        // One that was good makes the next failure short, plain and news.
        let (problem, is_news) = course.ended(lost("closed"), Some(GOOD_CONNECTION), now);
        assert_eq!((problem, is_news), (lost("closed"), true));
        assert!(course.next_delay() <= Duration::from_millis(100));
        assert!(!course.ended(lost("closed"), None, now).1);
        assert!(course.ended(lost("another"), None, now).1);
    }

    #[test]
    fn what_a_reader_was_told_is_told_again_after_a_good_connection_alone() {
        let (mut news, start) = (News::default(), Monotonic::default());
        assert!(news.is_news(&lost("a"), start) && !news.is_news(&lost("a"), start) && news.is_news(&lost("b"), start));
        news.connected(start);
        assert!(!news.is_news(&lost("b"), start.plus(Duration::from_secs(1))));
        news.connected(start);
        assert!(news.is_news(&lost("b"), start.plus(GOOD_CONNECTION)));
    }

    #[test]
    fn what_a_broker_cannot_do_is_named_with_the_remedy() {
        let settings = Settings::default();
        let said = |error: ConnectionError| problem(&error, &settings, false).to_string();
        let refused = |code| said(ConnectionError::ConnectionRefused(code));
        assert!(refused(ConnectReturnCode::RetainNotSupported).contains("retained messages"));
        assert!(refused(ConnectReturnCode::QoSNotSupported).contains("QoS 1"));
        assert!(refused(ConnectReturnCode::ClientIdentifierNotValid).contains("client-id"));
        assert!(refused(ConnectReturnCode::UseAnotherServer).contains("[publish] host"));
        for silent in [StateError::ConnectionAborted, StateError::Deserialization(Error::MalformedPacket)] {
            assert!(said(ConnectionError::MqttState(silent)).contains("MQTT 5"));
        }
        let reset = || ConnectionError::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(said(reset()).contains("does this port want TLS"), "{}", said(reset()));
        let ended = |reason_code| {
            let error = ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string: None });
            problem(&error, &settings, true).to_string()
        };
        assert!(ended(DisconnectReasonCode::SessionTakenOver).contains("this client id"));
        let others =
            [DisconnectReasonCode::ServerShuttingDown, DisconnectReasonCode::PacketTooLarge, DisconnectReasonCode::NotAuthorized];
        assert!(others.into_iter().all(|code| !ended(code).contains("client id")));
        assert!(ended(DisconnectReasonCode::PacketTooLarge).contains("max_packet_size"));
    }

    #[test]
    fn a_certificate_out_of_its_time_is_one_problem_with_dates_and_the_right_remedy() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = |now| {
            let error = CertificateError::ExpiredContext { time: at(now), not_after: at(1_769_817_600) };
            tls_problem(&rustls::Error::InvalidCertificate(error), "b:8883".into())
        };
        let said = expired(1_772_323_200).to_string();
        assert!(said.contains("expired on 2026-01-31T00:00:00") && said.contains("renew it"), "{said}");
        assert_ne!(expired(1_772_323_200), expired(1_772_323_207));
        assert_eq!(expired(1_772_323_200).kind(), expired(1_772_323_207).kind(), "seconds that go by are no other problem");
        let error = CertificateError::NotValidYetContext { time: at(946_684_800), not_before: at(1_769_817_600) };
        let said = tls_problem(&rustls::Error::InvalidCertificate(error), "b:8883".into()).to_string();
        assert!(said.contains("not valid before 2026-01-31") && said.contains("clock says 2000-01-01"), "{said}");
        assert!(said.ends_with("set the clock") && !said.contains("ca-file"), "{said}");
    }
}
