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
                        carry(near.try_clone().unwrap(), far.try_clone().unwrap(), None);
                        carry(far, near, refused);
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

/// Carries packets; in each SUBACK with several codes, the one at `refused` becomes "not authorised".
fn carry(mut from: TcpStream, mut to: TcpStream, refused: Option<usize>) {
    std::thread::spawn(move || {
        while let Some(mut packet) = packet(&mut from) {
            // Behind the header: the packet id, no properties (mosquitto sends none), the codes.
            let codes = 1 + usize::from(packet[1] >= 0x80) + 1 + 3;
            if let Some(place) = refused.filter(|_| packet[0] == 0x90 && packet.len() > codes + 1)
                && let Some(code) = packet.get_mut(codes + place)
            {
                *code = 0x87;
            }
            if to.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
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
