//! One connection, and what a broker may say on it. rumqttc takes more than MQTT allows: it keeps every topic alias although none was
//! offered, and the packet that it came in, to the end of the connection; it takes a server's keep-alive of 0, which means none, for one
//! of no time at all. Everything that a broker brings to this program comes through [`Wire::next`]: what breaks the protocol ends the
//! connection, and with it goes whatever rumqttc has kept of it. rumqttc reads no more than ten packets before the first is judged here.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use thiserror::Error;

/// The broker does what MQTT 5 forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it breaks the protocol: {0}")]
pub(super) struct Breach(&'static str);

/// One connection; dropping it closes it.
pub(super) struct Wire {
    events: EventLoop,
    keep_alive: Duration,
    is_greeted: bool,
}

impl Wire {
    /// A connection that is made by the first [`Wire::next`], with a queue of `queue` messages before it; `most_bytes` is the longest
    /// packet that is taken from the broker, which is told so.
    pub(super) fn new(mut options: MqttOptions, queue: usize, most_bytes: u32) -> (AsyncClient, Self) {
        // A topic alias maximum that is not named is 0: we take none.
        options.set_connect_properties(ConnectProperties { max_packet_size: Some(most_bytes), ..ConnectProperties::new() });
        let keep_alive = options.keep_alive();
        let (client, events) = AsyncClient::new(options, queue);
        (client, Self { events, keep_alive, is_greeted: false })
    }

    /// What happened next. After an error the connection is over, and this must be dropped.
    pub(super) async fn next(&mut self) -> Result<Event, ConnectionError> {
        let event = self.events.poll().await?;
        if let Event::Incoming(packet) = &event {
            check(packet, self.is_greeted).map_err(|breach| ConnectionError::Io(std::io::Error::other(breach)))?;
            if matches!(packet, Packet::ConnAck(_)) {
                self.is_greeted = true;
                self.keep_alive_as_agreed();
            }
        }
        Ok(event)
    }

    /// A server may ask for a shorter time. With 0, which is none at all, and with a longer one we go on asking as often as we said: a
    /// connection that is dead must be noticed.
    fn keep_alive_as_agreed(&mut self) {
        let theirs = self.events.options.keep_alive();
        if theirs.is_zero() || theirs > self.keep_alive {
            self.events.options.set_keep_alive(self.keep_alive);
        }
    }
}

/// Whether a broker may say this to a client that offers no topic alias, subscribes and publishes at QoS 1 at most, and connects once.
pub(super) fn check(packet: &Packet, is_greeted: bool) -> Result<(), Breach> {
    let breach = |why| Err(Breach(why));
    match packet {
        Packet::ConnAck(_) if is_greeted => breach("it accepts the connection a second time"),
        Packet::ConnAck(accepted) => match accepted.properties.as_ref().and_then(|properties| properties.receive_max) {
            Some(0) => breach("it takes no message at a time (Receive Maximum 0)"),
            _ => Ok(()),
        },
        Packet::Publish(publish) => {
            let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
            match publish.qos {
                _ if alias.is_some() => breach("it uses a topic alias, and none was offered"),
                _ if publish.topic.is_empty() => breach("it sends a message without a topic"),
                QoS::ExactlyOnce => breach("it sends a message at QoS 2, and none was asked for"),
                QoS::AtMostOnce | QoS::AtLeastOnce => Ok(()),
            }
        }
        Packet::PubAck(_) | Packet::SubAck(_) | Packet::PingResp(_) | Packet::Disconnect(_) => Ok(()),
        _ => breach("it sends a packet that answers nothing of ours"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use rumqttc::v5::MqttState;
    use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnAckProperties, ConnectReturnCode, PubAck, PubRec, Publish, PublishProperties};

    use super::*;

    fn publish(topic: &str, qos: QoS, properties: Option<PublishProperties>) -> Packet {
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: Bytes::from(topic.to_owned()),
            pkid: 1,
            payload: Bytes::new(),
            properties,
        })
    }

    fn accepted(receive_max: Option<u16>) -> Packet {
        let properties = ConnAckProperties {
            session_expiry_interval: None,
            receive_max,
            max_qos: None,
            retain_available: None,
            max_packet_size: None,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        };
        Packet::ConnAck(ConnAck { session_present: false, code: ConnectReturnCode::Success, properties: Some(properties) })
    }

    #[test]
    fn what_a_broker_may_not_say_ends_the_connection_and_what_it_may_does_not() {
        let alias = |alias| Some(PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() });
        for lawful in [
            publish("a", QoS::AtMostOnce, None),
            publish("a", QoS::AtLeastOnce, Some(PublishProperties::default())),
            Packet::PubAck(PubAck::new(1, None)),
        ] {
            assert_eq!(check(&lawful, true), Ok(()), "{lawful:?}");
        }
        for (receive_max, is_lawful) in [(None, true), (Some(1), true), (Some(0), false)] {
            assert_eq!(check(&accepted(receive_max), false).is_ok(), is_lawful);
        }
        for unlawful in [
            accepted(None),
            publish("a", QoS::AtMostOnce, alias(1)),
            publish("", QoS::AtMostOnce, alias(65_535)),
            publish("", QoS::AtMostOnce, None),
            publish("a", QoS::ExactlyOnce, None),
            Packet::PubRec(PubRec::new(1, None)),
        ] {
            assert!(check(&unlawful, true).is_err(), "{unlawful:?}");
        }
    }

    /// Bytes as they come off a socket, through the very reader and state that rumqttc uses.
    #[test]
    fn an_alias_is_seen_however_the_bytes_are_split() {
        let packet = publish(
            "faceid/gate/cmd/ping",
            QoS::AtLeastOnce,
            Some(PublishProperties { topic_alias: Some(7), ..PublishProperties::default() }),
        );
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        for split in 0..=bytes.len() {
            let mut arrived = BytesMut::from(&bytes[..split]);
            let early = Packet::read(&mut arrived, Some(1024));
            assert_eq!(early.is_ok(), split == bytes.len(), "{split}");
            let read = early.or_else(|_| {
                arrived.extend_from_slice(&bytes[split..]);
                Packet::read(&mut arrived, Some(1024))
            });
            let mut state = MqttState::new(8, false);
            state.handle_incoming_packet(read.unwrap()).unwrap();
            let breaches =
                state.events.iter().filter(|event| matches!(event, Event::Incoming(packet) if check(packet, true).is_err()));
            assert_eq!(breaches.count(), 1);
        }
    }
}
