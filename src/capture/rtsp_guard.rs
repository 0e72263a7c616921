//! Stands between us and an RTSP camera that nobody vouches for. It keeps the camera's password from being sent in the clear: GStreamer answers Basic authentication when a server asks for it, and who
//! the server is nobody knows where there is no TLS: whoever answers at the camera's address would be told the password.
//!
//! `rtspsrc` has no place to say "Digest alone", and its signals come before the header is made. So the connection to a plain `rtsp://`
//! address beyond this machine goes through this guard: a relay on loopback to the camera's own host, wherever a redirect would send us, which
//! reads what goes out and ends the connection at the first request that would answer Basic.
//!
//! GStreamer also takes in a body of any length that is announced. What comes in is therefore cut into answers and packets ([`Incoming`]),
//! and an answer that is longer than any camera's ends the connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long connecting to the camera may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a side may be silent before the end of the camera is looked for, and how long writing may take.
const LOOK: Duration = Duration::from_millis(250);
const WRITE: Duration = Duration::from_secs(5);
/// The longest head of a request, and the longest body: ours have a few hundred bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// The longest body of an answer: a description has one to three thousand bytes. What can be made of it in memory is some fifty times as
/// much.
const MAX_ANSWER: usize = 64 * 1024;
/// Connections of one camera at a time; `rtspsrc` needs one.
const MOST: usize = 4;

/// The relay of one try. It ends when this goes.
pub(super) struct Guard {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    has_refused: AtomicBool,
    open: Mutex<usize>,
    /// Why the camera could not be reached.
    problem: Mutex<Option<String>>,
}

impl Guard {
    /// A relay to `host`, at the port that each request's address names, or `port`.
    pub(super) fn start(host: &str, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, shared) = (listener.local_addr()?, Arc::<Shared>::default());
        let (host, ours) = (host.to_owned(), shared.clone());
        std::thread::Builder::new().name("rtsp-guard".to_owned()).spawn(move || accept(&listener, &host, port, &ours))?;
        Ok(Self { address, shared })
    }

    /// What `rtspsrc` is to connect to instead.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a password was asked for in the clear, and was not sent.
    pub(super) fn has_refused(&self) -> bool {
        self.shared.has_refused.load(Ordering::Acquire)
    }

    /// Why the camera could not be reached, where that is so.
    pub(super) fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Wakes the listener; should it fail, the next caller does.
        let _ = TcpStream::connect_timeout(&self.address, LOOK);
    }
}

fn accept(listener: &TcpListener, host: &str, port: u16, shared: &Arc<Shared>) {
    for inner in listener.incoming() {
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        let Ok(inner) = inner else { continue };
        {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            if *open >= MOST {
                continue;
            }
            *open += 1;
        }
        let (host, ours) = (host.to_owned(), shared.clone());
        let relay = move || {
            if let Err(error) = relay(inner, &host, port, &ours) {
                log::debug!("the way to an RTSP camera ended: {error}");
            }
            *ours.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        };
        if std::thread::Builder::new().name("rtsp-relay".to_owned()).spawn(relay).is_err() {
            *shared.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        }
    }
}

/// One connection, from its first request to its end.
fn relay(mut inner: TcpStream, host: &str, port: u16, shared: &Arc<Shared>) -> io::Result<()> {
    inner.set_read_timeout(Some(LOOK))?;
    inner.set_write_timeout(Some(WRITE))?;
    inner.set_nodelay(true)?;
    let mut outgoing = Outgoing::default();
    let first = loop {
        if read_some(&mut inner, &mut outgoing.waiting, shared)? == 0 {
            return Ok(());
        }
        if let Some(unit) = outgoing.next()? {
            break unit;
        }
    };
    let port = port_of(&first, host).unwrap_or(port);
    let mut outer = connect(host, port).inspect_err(|error| {
        let words = super::reasons::unreached_in_words(error, host, port).unwrap_or_else(|| error.to_string());
        *shared.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    })?;
    outer.set_read_timeout(Some(LOOK))?;
    outer.set_write_timeout(Some(WRITE))?;
    outer.set_nodelay(true)?;
    let (mut from, mut to, ours) = (outer.try_clone()?, inner.try_clone()?, shared.clone());
    let back = std::thread::Builder::new().name("rtsp-relay".to_owned()).spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut incoming = Incoming::default();
        while !ours.is_over.load(Ordering::Acquire) {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if let Err(error) = incoming.look(&buffer[..length]) => {
                    *ours.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    break;
                }
                Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
                Ok(_) => {}
                Err(error) if is_silence(&error) => {}
                Err(_) => break,
            }
        }
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    })?;
    let outcome = send(first, &mut inner, &mut outer, &mut outgoing, shared);
    let _ = (inner.shutdown(Shutdown::Both), outer.shutdown(Shutdown::Both));
    let _ = back.join();
    outcome
}

/// Hands on what goes out, a whole request or packet at a time.
fn send(first: Vec<u8>, inner: &mut TcpStream, outer: &mut TcpStream, outgoing: &mut Outgoing, shared: &Shared) -> io::Result<()> {
    let mut unit = Some(first);
    loop {
        while let Some(ready) = unit.take() {
            if answers_basic(&ready) {
                shared.has_refused.store(true, Ordering::Release);
                return Err(io::Error::other("a password was asked for in the clear"));
            }
            outer.write_all(&ready)?;
            unit = outgoing.next()?;
        }
        if read_some(inner, &mut outgoing.waiting, shared)? == 0 {
            return Ok(());
        }
        unit = outgoing.next()?;
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it has no address");
    let unknown = |_| io::Error::other(format!("no host is known as {host}"));
    for address in (host, port).to_socket_addrs().map_err(unknown)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits for more; 0 at the end of the stream, or when the guard is over.
fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>, shared: &Shared) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    while !shared.is_over.load(Ordering::Acquire) {
        match stream.read(&mut buffer) {
            Ok(length) => {
                into.extend_from_slice(&buffer[..length]);
                return Ok(length);
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(0)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What is to go out, cut into requests with their bodies and interleaved packets. Anything else ends the connection: what cannot be read
/// is not handed on.
#[derive(Default)]
struct Outgoing {
    waiting: Vec<u8>,
}

impl Outgoing {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = match self.waiting.first() {
            None => return Ok(None),
            // Interleaved: `$`, channel, length.
            Some(b'$') => match self.waiting.get(2..4) {
                Some(length) => 4 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return Ok(None),
            },
            Some(_) => {
                let Some(end) = self.waiting.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
                    if self.waiting.len() > MAX_HEAD {
                        return Err(io::Error::other("a request without an end"));
                    }
                    return Ok(None);
                };
                let body = header(&self.waiting[..end], "content-length").and_then(|length| length.parse::<usize>().ok());
                let body = body.unwrap_or(0);
                if body > MAX_BODY {
                    return Err(io::Error::other("a request that is too long"));
                }
                end + body
            }
        };
        Ok((self.waiting.len() >= length).then(|| self.waiting.drain(..length).collect()))
    }
}

/// What comes in, followed by its lengths as it passes: answers with their bodies and interleaved packets. Nothing is kept but an answer's
/// head.
#[derive(Debug, Default)]
struct Incoming {
    /// Of the packet or body that is passing.
    left: usize,
    head: Vec<u8>,
}

impl Incoming {
    /// Looks at what came. An error is why it is not handed on.
    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(first) = bytes.first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - passed, &bytes[passed..]);
                continue;
            }
            self.head.push(*first);
            bytes = &bytes[1..];
            match self.head.as_slice() {
                // Between answers.
                [b'\r' | b'\n'] => self.head.clear(),
                [b'$', _, high, low] => {
                    self.left = usize::from(u16::from_be_bytes([*high, *low]));
                    self.head.clear();
                }
                [b'$', ..] => {}
                head if head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") => {
                    self.left = body_length(head)?;
                    self.head.clear();
                }
                head if head.len() > MAX_HEAD => return Err(io::Error::other("an answer without an end")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// How long the body is that a head announces. Where two readers could understand it in two ways there is none.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let unclear = || io::Error::other("an answer that does not say clearly how long it is");
    let text = String::from_utf8_lossy(head);
    let mut length = None;
    for line in text.trim_end().split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        // A bare carriage return ends a line for some.
        if line.contains('\r') {
            return Err(unclear());
        }
        if !line.to_ascii_lowercase().contains("content-length") {
            continue;
        }
        let (key, value) = line.split_once(':').ok_or_else(unclear)?;
        let (key, value) = (key.trim_end(), value.trim());
        let is_plain =
            key.eq_ignore_ascii_case("content-length") && !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain || length.is_some() {
            return Err(unclear());
        }
        length = Some(value.parse::<usize>().unwrap_or(usize::MAX));
    }
    match length.unwrap_or(0) {
        length if length > MAX_ANSWER => Err(io::Error::other(format!("an answer of {length} bytes; {MAX_ANSWER} are the most"))),
        length => Ok(length),
    }
}

/// The first header of this name (in small letters).
fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head).into_owned();
    text.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Whether a request carries a password that everybody on the way can read. Anything but Digest counts.
fn answers_basic(unit: &[u8]) -> bool {
    if unit.first() == Some(&b'$') {
        return false;
    }
    let text = String::from_utf8_lossy(unit).into_owned();
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    head.split(['\r', '\n']).any(|line| {
        let Some((key, value)) = line.split_once(':') else { return false };
        let is_login = ["authorization", "proxy-authorization"].iter().any(|name| key.trim().eq_ignore_ascii_case(name));
        is_login && !value.trim_start().to_ascii_lowercase().starts_with("digest ")
    })
}

/// The port of a request's address, where it is on the host that is asked for.
fn port_of(request: &[u8], host: &str) -> Option<u16> {
    let text = String::from_utf8_lossy(request).into_owned();
    let address = text.split_whitespace().nth(1)?;
    let place = super::redact::Place::of(address)?;
    place.host.eq_ignore_ascii_case(host).then_some(place.port).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_requests_and_packets_go_out_and_no_login_but_digest() {
        let mut outgoing = Outgoing::default();
        let parts: [&[u8]; 4] = [
            b"DESCRIBE rtsp://cam/1 RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Digest username=\"basic \"\r\n\r\n",
            b"$\x01\x00\x03abc",
            b"SET_PARAMETER rtsp://cam/1 RTSP/1.0\r\nContent-length: 5\r\n\r\nhello",
            b"DESCRIBE rtsp://cam/1 RTSP/1.0\r\n aUTHORIZATION : bAsic Zm9vOmJhcg==\r\n\r\n",
        ];
        let whole = parts.concat();
        let mut units = Vec::new();
        for byte in &whole {
            outgoing.waiting.push(*byte);
            units.extend(outgoing.next().unwrap());
        }
        assert_eq!(units, parts);
        assert_eq!(units.iter().map(|unit| answers_basic(unit)).collect::<Vec<_>>(), [false, false, false, true]);
        for other in [
            "Authorization: Bearer x",
            "Proxy-Authorization: Basic x",
            "Authorization:Basic x",
            "Authorization:",
            "CSeq: 1\nAuthorization: Basic x",
        ] {
            assert!(answers_basic(format!("OPTIONS * RTSP/1.0\r\n{other}\r\n\r\n").as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_comes_in_passes_in_pieces_of_any_size_and_no_answer_is_long() {
        let whole = [
            &b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\n$\r\n\r\n"[..],
            b"$\x00\x00\x06\r\n\r\n$x",
            b"\r\nRTSP/1.0 200 OK\nCSeq: 2\n\n$\x01\x00\x00",
            b"SET_PARAMETER rtsp://us RTSP/1.0\r\ncontent-length : 2\r\n\r\nab",
        ]
        .concat();
        for size in 1..whole.len() {
            let mut incoming = Incoming::default();
            for piece in whole.chunks(size) {
                incoming.look(piece).unwrap();
            }
            assert!(incoming.left == 0 && incoming.head.is_empty(), "{size}: {incoming:?}");
        }
        let refused = |lines: &str| Incoming::default().look(format!("RTSP/1.0 200 OK\r\n{lines}\r\n\r\n").as_bytes()).is_err();
        assert!(!refused("Content-Length: 65536"));
        for lines in [
            "Content-Length: 65537",
            "Content-Length: 99999999999999999999999999",
            "Content-Length: -1",
            "Content-Length: +9",
            "Content-Length: 0x9",
            "Content-Length:",
            "Content-Length 9",
            "Content-Length: 1\r\nContent-Length: 2",
            "X: a\rContent-Length: 99999999",
            " Content-Length: 7",
        ] {
            assert!(refused(lines), "{lines}");
        }
        assert!(refused(&"X: y\r\n".repeat(MAX_HEAD)));
        assert!(Incoming::default().look(&[0xff; MAX_HEAD + 1]).is_err());
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        let endless = Outgoing { waiting: vec![b'x'; MAX_HEAD + 1] }.next();
        assert!(endless.is_err());
        let mut long = Outgoing { waiting: b"PLAY x RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n".to_vec() };
        assert!(long.next().is_err());
    }

    #[test]
    fn a_redirected_request_goes_to_another_port_of_the_same_host_alone() {
        assert_eq!(port_of(b"OPTIONS rtsp://cam:8554/1 RTSP/1.0\r\n\r\n", "cam"), Some(8554));
        assert_eq!(port_of(b"OPTIONS rtsp://[fe80::1]:9/1 RTSP/1.0\r\n\r\n", "fe80::1"), Some(9));
        assert_eq!(port_of(b"OPTIONS rtsp://other:8554/1 RTSP/1.0\r\n\r\n", "cam"), None);
        assert_eq!(port_of(b"\xff\r\n\r\n", "cam"), None);
    }
}
