//! A wire to a broker on which the first connections end badly, or are answered other than the broker does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Obstacle {
    /// Closed before a word.
    Closes,
    /// CONNACK 0x89: the server is busy.
    Busy,
    /// Of every subscription to more than one filter, the one at this place is refused.
    Refuses(usize),
}

pub(crate) struct Hurdle {
    pub(crate) port: u16,
    broker: Arc<AtomicU16>,
}

impl Hurdle {
    /// The first `times` connections meet the obstacle; those after them do not.
    pub(crate) fn before(broker_port: u16, times: usize, obstacle: Obstacle) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = Arc::new(AtomicU16::new(broker_port));
        let target = broker.clone();
        std::thread::spawn(move || {
            let mut left = times;
            while let Ok((mut near, _)) = listener.accept() {
                let port = target.load(Ordering::SeqCst);
                if port == 0 {
                    return;
                }
                let is_met = left > 0;
                left = left.saturating_sub(1);
                match obstacle {
                    Obstacle::Closes if is_met => drop(near),
                    Obstacle::Busy if is_met => {
                        let mut connect = [0; 512];
                        let _ = near.read(&mut connect);
                        let _ = near.write_all(&[0x20, 3, 0, 0x89, 0]);
                    }
                    _ => {
                        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                        let refused = match obstacle {
                            Obstacle::Refuses(place) if is_met => Some(place),
                            _ => None,
                        };
                        carry(near.try_clone().unwrap(), far.try_clone().unwrap(), move |packet| {
                            refused.into_iter().for_each(|place| miss(packet, place));
                        });
                        carry(far, near, move |packet| refused.into_iter().for_each(|place| refuse(packet, place)));
                    }
                }
            }
        });
        Self { port, broker }
    }
}

impl Drop for Hurdle {
    fn drop(&mut self) {
        self.broker.store(0, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Carries packets, each after `alter`.
fn carry(mut from: TcpStream, mut to: TcpStream, alter: impl Fn(&mut Vec<u8>) + Send + 'static) {
    std::thread::spawn(move || {
        while let Some(mut packet) = packet(&mut from) {
            alter(&mut packet);
            if to.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// Where a packet's content begins: behind its type and its length.
fn content(packet: &[u8]) -> usize {
    1 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1
}

/// In a SUBSCRIBE to several filters, the one at `place` becomes another, which nothing is ever published on.
fn miss(packet: &mut [u8], place: usize) {
    if packet[0] != 0x82 {
        return;
    }
    // Behind the packet id, and no properties: a length and a filter, then its options.
    let (mut at, mut filters) = (content(packet) + 3, Vec::new());
    while at + 2 < packet.len() {
        filters.push(at + 2);
        at += 2 + usize::from(u16::from_be_bytes([packet[at], packet[at + 1]])) + 1;
    }
    if filters.len() > 1
        && let Some(first) = filters.get(place)
    {
        packet[*first] = b'~';
    }
}

/// In a SUBACK with several codes, the one at `place` becomes "not authorised".
fn refuse(packet: &mut [u8], place: usize) {
    // Behind the packet id, and no properties: mosquitto sends none.
    let codes = content(packet) + 3;
    if packet[0] == 0x90
        && packet.len() > codes + 1
        && let Some(code) = packet.get_mut(codes + place)
    {
        *code = 0x87;
    }
}

/// The next packet with its header.
fn packet(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut byte = [0];
    from.read_exact(&mut byte).ok()?;
    let mut packet = vec![byte[0]];
    let (mut length, mut shift) = (0, 0);
    loop {
        from.read_exact(&mut byte).ok()?;
        packet.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 || shift > 21 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    from.read_exact(&mut packet[head..]).ok()?;
    Some(packet)
}
