//! The broker that `faceid demo` carries: rumqttd on a loopback port, MQTT 5 for us and for MQTT 5 dashboards.
//!
//! It keeps nothing over its end and asks nobody for a password, so it listens on loopback only. rumqttd has no way to be stopped: it
//! runs until the process ends. For anything but a demo use a real broker.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use thiserror::Error;

use crate::system::Stop;

/// How long the broker may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no demo broker.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The port is taken, or no thread can be had.
    #[error("the demo's broker cannot listen on 127.0.0.1:{port}: {source}")]
    Start {
        /// Which port; 0 when any would have done.
        port: u16,
        /// The system's word.
        source: std::io::Error,
    },
    /// It did not begin to listen, or we were told to stop before it did.
    #[error("the demo's broker did not begin to listen on 127.0.0.1:{port}")]
    Silent {
        /// Which port.
        port: u16,
    },
}

/// Starts the broker on a loopback port (0: any free one) and returns the port once it listens.
pub fn start(port: u16, stop: &Stop) -> Result<u16, BrokerError> {
    let failed = |source| BrokerError::Start { port, source };
    // Bound once to find a free port, or to hear at once that the wanted one is taken: rumqttd would only log it.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    drop(listener);
    let config = config(address);
    std::thread::Builder::new()
        .name("demo-broker".into())
        .spawn(move || {
            if let Err(error) = Broker::new(config).start() {
                log::error!("the demo's broker ended: {error}");
            }
        })
        .map_err(failed)?;
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        if Instant::now() >= deadline || stop.sleep(Duration::from_millis(10)) {
            return Err(BrokerError::Silent { port: address.port() });
        }
    }
    Ok(address.port())
}

fn config(address: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 256 * 1024,
        // rumqttd gives a newcomer only as many retained messages as fit in here.
        max_inflight_count: 500,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server =
        ServerSettings { name: "demo-broker-v5".into(), listen: address, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 500,
        max_segment_size: 4 * 1024 * 1024,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    Config { id: 0, router, v5: Some(HashMap::from([("v5".to_owned(), server)])), ..Config::default() }
}
