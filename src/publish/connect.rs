//! How a connection to the broker is set up, and what can go wrong with it in words for the operator.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectProperties, ConnectReturnCode};
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use thiserror::Error as ThisError;

use super::settings::Settings;
use crate::system::secret;

/// The largest packet that we take from a broker, in bytes.
pub(super) const MAX_PACKET_BYTES: u32 = 256 * 1024;
/// The most messages that are under way at once. rumqttc keeps a table of this size, and its default of 65,535 costs megabytes.
const MAX_INFLIGHT: u16 = 32;

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

/// The options of a connection of ours; reads secrets and certificates anew, so that rotated ones are taken up by the next try.
pub(super) fn options(settings: &Settings, secrets: &Path, client_id: &str) -> Result<MqttOptions, Problem> {
    let mut options = MqttOptions::new(client_id, settings.host.as_str(), settings.port);
    // Below 5 s rumqttc panics; `Settings::findings` says so to the operator.
    options.set_keep_alive(Duration::from_secs(u64::from(settings.keep_alive_s.max(5))));
    options.set_connection_timeout(u64::from(settings.connect_timeout_s.max(1)));
    options.set_outgoing_inflight_upper_limit(MAX_INFLIGHT);
    // Each connection starts clean: what is pending is the outbox's to say, never the client's or the broker's.
    options.set_clean_start(true);
    options.set_connect_properties(ConnectProperties { max_packet_size: Some(MAX_PACKET_BYTES), ..ConnectProperties::new() });
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
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
            code => Problem::Refused { broker, detail: format!("{code:?}") },
        };
    }
    if let Some(tls) = find_tls(error) {
        return tls_problem(&tls, broker);
    }
    let detail = match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            format!("the broker says {reason_code:?}; `SessionTakenOver` means that another client uses our client id")
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => "it does not answer pings".into(),
        error => error.to_string(),
    };
    match error {
        _ if was_online => Problem::Lost { broker, detail },
        ConnectionError::Timeout(_) => Problem::Timeout { broker },
        ConnectionError::Io(_) => Problem::Unreachable { broker, detail },
        ConnectionError::Tls(_) => Problem::Tls { broker, detail },
        // A broker that wants a certificate may close the socket before its alert was read.
        _ if settings.tls.enabled && settings.tls.client_certificate_file.is_none() => {
            Problem::Tls { broker, detail: format!("{detail}; it may want a client certificate") }
        }
        _ => Problem::Refused { broker, detail },
    }
}

fn tls_problem(error: &rustls::Error, broker: String) -> Problem {
    let detail = error.to_string();
    match error {
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
