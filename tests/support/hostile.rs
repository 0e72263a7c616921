//! A broker that is an enemy: it takes every client and then sends what fills a client's memory, as fast as it is read. Each connection
//! gets the next of its manners.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What it sends once a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Large messages, each with a topic alias that nobody offered.
    Aliases,
    /// Large messages on topics that nobody has subscribed to.
    Junk,
    /// Large messages on a topic that means something, at QoS 1.
    Topic,
    /// Small ones on that topic, as many as go.
    Patter,
    /// As many user properties as go into a packet.
    Properties,
    /// A packet that announces 268 MB.
    Oversize,
    /// A packet that never ends, a byte at a time.
    Slow,
    /// Large messages at QoS 1 to a client whose confirmations it never reads.
    Deaf,
    /// A confirmation of what was never sent.
    Unasked,
    /// No connection at all: it is accepted and closed.
    Closed,
    /// An accepted connection whose keep-alive is 0, and nothing more.
    NoKeepAlive,
    /// It accepts the connection and a subscription to two topics, and leaves at once. Only where it is asked for.
    Leaves,
}

pub(crate) const ALL: [Manner; 11] = [
    Manner::Aliases,
    Manner::Junk,
    Manner::Topic,
    Manner::Patter,
    Manner::Properties,
    Manner::Oversize,
    Manner::Slow,
    Manner::Deaf,
    Manner::Unasked,
    Manner::Closed,
    Manner::NoKeepAlive,
];

/// Runs until dropped.
pub(crate) struct Hostile {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    /// With these manners by turns, each for at most `turn`; `topic` is one that the client listens on, `most` the longest packet.
    pub(crate) fn start(manners: &'static [Manner], turn: Duration, topic: &'static str, most: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, over) = (connections.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let manner = manners[count.fetch_add(1, Ordering::SeqCst) % manners.len()];
                let over = over.clone();
                // A client that leaves ends it; that is what is hoped for.
                std::thread::spawn(move || drop(serve(stream, manner, topic, most, (turn, &over))));
            }
        });
        Self { port, connections, is_over, thread: Some(thread) }
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The highest that a process's memory ever was, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn variable(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = number >= 128;
        bytes.push(u8::try_from(number % 128).unwrap() | if more { 128 } else { 0 });
        number /= 128;
        if !more {
            return bytes;
        }
    }
}

fn publish(topic: &str, qos: u8, number: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&number.max(1).to_be_bytes());
    }
    body.extend(variable(properties.len()));
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    [&[0x30 | (qos << 1)][..], &variable(body.len()), &body].concat()
}

fn serve(mut stream: TcpStream, manner: Manner, topic: &str, most: usize, turn: (Duration, &AtomicBool)) -> std::io::Result<()> {
    let until = Instant::now() + turn.0;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    if manner == Manner::Closed {
        return Ok(());
    }
    let mut first = [0; 4096];
    if stream.read(&mut first)? == 0 {
        return Ok(());
    }
    let accepted: &[u8] = if manner == Manner::NoKeepAlive { b"\x20\x06\0\0\x03\x13\0\0" } else { b"\x20\x03\0\0\0" };
    stream.write_all(accepted)?;
    if manner == Manner::Leaves {
        if stream.read(&mut first)? > 0 {
            stream.write_all(b"\x90\x05\0\x01\0\x01\x01")?;
        }
        return Ok(());
    }
    if manner != Manner::Deaf {
        let mut ears = stream.try_clone()?;
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while ears.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
    }
    let payload = vec![b'x'; most - 256];
    let properties: Vec<u8> = b"\x26\0\x01a\0\x01b".iter().copied().cycle().take((most - 256) / 7 * 7).collect();
    let (_handle, clock) = faceid_plus::system::stop::pair();
    let mut number = 0u16;
    while Instant::now() < until && !turn.1.load(Ordering::SeqCst) {
        number = number.wrapping_add(1).max(1);
        let alias = [&[0x23][..], &number.to_be_bytes()].concat();
        let packet = match manner {
            Manner::Aliases => publish(topic, 0, 0, &alias, &payload),
            Manner::Junk => publish(&format!("junk/{number}"), 1, number, &[], &payload),
            Manner::Topic | Manner::Deaf => publish(topic, 1, number, &[], &payload),
            Manner::Patter => (0..1000).flat_map(|_| publish(topic, 0, 0, &[], b"noise")).collect(),
            Manner::Properties => publish(topic, 0, 0, &properties, b""),
            Manner::Oversize => [b"\x30\xff\xff\xff\x7f\0\x01a\0", &payload[..]].concat(),
            Manner::Slow if number == 1 => [b"\x30", &variable(most - 8)[..], b"\0\x01a\0"].concat(),
            Manner::Slow => vec![b'x'],
            Manner::Unasked => b"\x40\x02\xff\xff\x50\x02\0\x07\x62\x02\0\x07".to_vec(),
            Manner::Closed | Manner::Leaves => return Ok(()),
            Manner::NoKeepAlive => b"\xd0\0".to_vec(),
        };
        stream.write_all(&packet)?;
        if matches!(manner, Manner::Slow | Manner::NoKeepAlive) {
            clock.sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
