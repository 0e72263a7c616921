//! Who asks: by which way, and as which user of this device. Guesses of tokens are counted by user, so that whoever guesses keeps
//! nobody else out; what cannot be told counts as one user more.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The largest table of connections that is read, in bytes: some 100,000 connections.
const MAX_TABLE_BYTES: u64 = 16 << 20;
/// The time for reading it, in each [`SPAN`]: whoever opens connections in heaps must not keep the API busy with telling whose they are.
const BUDGET: Duration = Duration::from_millis(500);
const SPAN: Duration = Duration::from_secs(5);
/// A connection that both ends hold, in the kernel's table.
const ESTABLISHED: &str = "01";
/// One whose other end has said all that it will say.
const CLOSE_WAIT: [&str; 3] = ["04", "05", "08"];

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(Arc<Way>);

#[derive(Debug)]
enum Way {
    Tcp { remote: SocketAddr, local: SocketAddr, user: OnceLock<Option<u32>> },
    Unix { user: Option<u32> },
}

impl Peer {
    pub(super) fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self(Arc::new(Way::Tcp { remote, local, user: OnceLock::new() }))
    }

    pub(super) fn unix(user: Option<u32>) -> Self {
        Self(Arc::new(Way::Unix { user }))
    }

    /// The port at which it was taken in; nothing on a Unix socket.
    pub(super) fn port(&self) -> Option<u16> {
        match &*self.0 {
            Way::Tcp { local, .. } => Some(local.port()),
            Way::Unix { .. } => None,
        }
    }

    /// Whose process it is, where the system tells. Looked up once for a connection.
    pub(super) fn user(&self) -> Option<u32> {
        match &*self.0 {
            Way::Unix { user } => *user,
            Way::Tcp { remote, local, user } => *user.get_or_init(|| look_up(*remote, *local)),
        }
    }
}

/// The user of a connection's other end, by the kernel's table.
fn look_up(remote: SocketAddr, local: SocketAddr) -> Option<u32> {
    static SPENT: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);
    let began = Instant::now();
    let mut spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, used) = spent.filter(|(since, _)| began.duration_since(*since) < SPAN).unwrap_or((began, Duration::ZERO));
    if used >= BUDGET {
        return None;
    }
    let table = if remote.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let mut text = String::new();
    let read = std::fs::File::open(table).and_then(|file| {
        use std::io::Read;
        file.take(MAX_TABLE_BYTES).read_to_string(&mut text)
    });
    let user = read.ok().and_then(|_| user_in(&text, remote, local));
    *spent = Some((since, used + began.elapsed()));
    user
}

/// The user of the row that goes from `remote` to `local`. Rows of connections that nobody holds any more name user 0 and no inode.
pub(super) fn user_in(table: &str, remote: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (from, to) = (written(remote), written(local));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next()? != from || fields.next()? != to {
            return None;
        }
        let state = fields.next()?;
        let user = fields.nth(3)?.parse().ok()?;
        let is_held = fields.nth(1)? != "0" && (state == ESTABLISHED || CLOSE_WAIT.contains(&state));
        is_held.then_some(user)
    })
}

/// As the kernel writes an address: the words of the address as this machine holds them, and the port.
fn written(address: SocketAddr) -> String {
    let words: String = match address.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            octets.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
        }
    };
    format!("{words}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_connection_is_the_kernels_word_and_only_while_it_is_held() {
        let (remote, local) = ("127.0.0.1:50000".parse().unwrap(), "127.0.0.1:8000".parse().unwrap());
        let row = |from: SocketAddr, to: SocketAddr, state: &str, user: u32, inode: u32| {
            let (from, to) = (written(from), written(to));
            format!(" 1: {from} {to} {state} 00000000:00000000 00:00000000 00000000 {user:5} 0 {inode} 1 0000 20 4 30 10 -1\n")
        };
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        // The server's own row goes the other way.
        let table = head.to_owned() + &row(local, remote, "01", 990, 5) + &row(remote, local, "01", 1000, 6);
        assert_eq!(user_in(&table, remote, local), Some(1000));
        assert_eq!(user_in(&table, "127.0.0.1:50001".parse().unwrap(), local), None);
        for (state, inode) in [("06", 0), ("05", 0), ("01", 0), ("02", 7)] {
            assert_eq!(user_in(&row(remote, local, state, 0, inode), remote, local), None, "{state} {inode}");
        }
        let (remote, local) = ("[::1]:50000".parse().unwrap(), "[::1]:8000".parse().unwrap());
        assert_eq!(user_in(&row(remote, local, "01", 7, 9), remote, local), Some(7));
        for cut in 0..table.len() {
            let _ = user_in(&table[..cut], remote, local);
        }
    }

    #[test]
    fn a_real_connection_is_this_users() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = Peer::tcp(client.local_addr().unwrap(), client.peer_addr().unwrap());
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((peer.user(), peer.port()), (Some(own), Some(listener.local_addr().unwrap().port())));
    }
}
