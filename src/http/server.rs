//! The server's loop. Connections are few and short: a head that is not whole within [`HEAD_DEADLINE`] ends one, so does silence between
//! two requests, a connection lives for [`LIFE`] and for [`REQUESTS`] requests, and when all places are taken the one that has asked nothing
//! for longest is closed for the newcomer. Only a request that is being worked on keeps its place, and those are fewer than the places
//! ([`super::desk::WORKING`]): whoever on this device opens connections in heaps, or sends a byte now and then, takes neither the
//! daemon's file descriptors nor the API from others, and `/healthz` and `/readyz` always find a place.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::REQUEST_DEADLINE;
use super::peer::Peer;

/// Connections at once.
pub(super) const CONNECTIONS: usize = 64;
/// By then the head of a request must have come, counted from the connection's begin or from the end of the request before.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// After this long a connection takes no further request.
const LIFE: Duration = Duration::from_secs(60);
/// The most requests of one connection.
const REQUESTS: usize = 32;
/// The longest head, and what is read of a body at once, in bytes.
const BUFFER_BYTES: usize = 32 << 10;
/// The wait after the system could not accept a connection (no file descriptor is left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long requests that are being worked on are waited for at the stop.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where connections come from.
pub(super) enum Listener {
    /// A loopback address.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Serves until `stop` is done, and then until the requests that are being worked on are answered, for [`FAREWELL`] at most.
pub(super) async fn serve(listener: Listener, router: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Places::default());
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::select! {
                () = &mut stop => break,
                () = sleep(ACCEPT_PAUSE) => continue,
            }
        };
        let is_stopped = tokio::select! {
            () = &mut stop => true,
            () = places.make_room() => false,
        };
        if is_stopped {
            break;
        }
        let service = TowerToHyperService::new(router.clone());
        match stream {
            Stream::Tcp(stream) => places.begin(stream, peer, service, stopped.clone()),
            Stream::Unix(stream) => places.begin(stream, peer, service, stopped.clone()),
        }
        // Whoever was let in is looked at before the next one is: many newcomers must not push out one that has asked already.
        tokio::task::yield_now().await;
    }
    let _ = stopping.send(true);
    let _ = timeout(FAREWELL, places.all_gone()).await;
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<(Stream, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            let peer = Peer::tcp(remote, stream.local_addr()?);
            // An answer is one small packet or two: none waits for the other's receipt.
            let _ = stream.set_nodelay(true);
            Ok((Stream::Tcp(stream), peer))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::unix(stream.peer_cred().ok().map(|caller| caller.uid()));
            Ok((Stream::Unix(stream), peer))
        }
    }
}

/// One connection, as the loop sees it.
struct Place {
    task: AbortHandle,
    /// Since when it has asked nothing; nothing while a request is being worked on.
    idle_since: Option<Instant>,
}

/// All connections, by number.
#[derive(Default)]
struct Places {
    taken: Mutex<(u64, BTreeMap<u64, Place>)>,
    /// A connection ended, or a request did.
    changed: Notify,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Place>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there is a place: at once, at the cost of the longest idle, or when a request has been answered.
    async fn make_room(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().1.len() < CONNECTIONS || self.close_longest_idle() {
                return;
            }
            changed.await;
        }
    }

    fn close_longest_idle(&self) -> bool {
        let places = &mut self.lock().1;
        let idle = places.iter().filter_map(|(number, place)| place.idle_since.map(|since| (since, *number)));
        let Some(place) = idle.min().and_then(|(_, number)| places.remove(&number)) else { return false };
        place.task.abort();
        true
    }

    async fn all_gone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().1.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn set_idle(&self, number: u64, since: Option<Instant>) {
        if let Some(place) = self.lock().1.get_mut(&number) {
            place.idle_since = since;
        }
        self.changed.notify_one();
    }

    fn begin<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: &Arc<Self>,
        stream: I,
        peer: Peer,
        service: TowerToHyperService<Router>,
        stopped: watch::Receiver<bool>,
    ) {
        let number = {
            let mut taken = self.lock();
            taken.0 += 1;
            taken.0
        };
        let left = Left { places: self.clone(), number };
        let places = self.clone();
        let task = tokio::spawn(async move {
            let _left = left;
            converse(stream, peer, service, stopped, &places, number).await;
        });
        // The task has not begun: it runs on this very thread.
        self.lock().1.insert(number, Place { task: task.abort_handle(), idle_since: Some(Instant::now()) });
    }
}

/// Gives the place back, however the connection ends.
struct Left {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.places.lock().1.remove(&self.number);
        self.places.changed.notify_one();
    }
}

/// Serves one connection to its end.
async fn converse<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: I,
    peer: Peer,
    service: TowerToHyperService<Router>,
    mut stopped: watch::Receiver<bool>,
    places: &Arc<Places>,
    number: u64,
) {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let answer = hyper::service::service_fn(|mut request: axum::http::Request<Incoming>| {
        let is_last = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= REQUESTS;
        request.extensions_mut().insert(peer.clone());
        places.set_idle(number, None);
        let answered = service.call(request);
        async move {
            let mut answer: Response = answered.await?;
            places.set_idle(number, Some(Instant::now()));
            if is_last {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(BUFFER_BYTES);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
    // What goes wrong on a connection is its peer's affair, and tells nothing about this device.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(REQUEST_DEADLINE + HEAD_DEADLINE, connection).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use axum::routing::get;

    use super::*;

    const HEAD: &str = "GET / HTTP/1.1\r\nHost: x\r\n";

    /// Serves `router` on a Unix socket while `client` acts.
    fn served(router: Router, client: impl FnOnce(&Path) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
            let acting = tokio::task::spawn_blocking(move || client(&path));
            let mut failed = None;
            serve(listener, router, async { failed = acting.await.err() }).await;
            assert!(failed.is_none(), "{failed:?}");
        });
    }

    fn connect(path: &Path, first: &str) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        stream
    }

    fn answer(stream: &mut UnixStream) -> String {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn on_a_unix_socket_too_whoever_asks_nothing_makes_room_the_longest_idle_first() {
        served(Router::new().route("/", get(|| async { "here" })), |path| {
            let mut dripping: Vec<UnixStream> = (0..CONNECTIONS).map(|_| connect(path, HEAD)).collect();
            let mut last = dripping.pop().unwrap();
            let began = std::time::Instant::now();
            let mut asking = connect(path, &format!("{HEAD}\r\n"));
            assert!(answer(&mut asking).contains("200 OK"));
            let mut another = connect(path, &format!("{HEAD}\r\n"));
            assert!(answer(&mut another).contains("200 OK"));
            assert!(began.elapsed() < HEAD_DEADLINE, "{:?}", began.elapsed());
            assert_eq!(answer(&mut dripping[0]), "", "the first is gone");
            last.write_all(b"\r\n").unwrap();
            assert!(answer(&mut last).contains("200 OK"), "the last is not");
        });
    }

    #[test]
    fn a_head_that_drips_ends_its_connection_and_so_do_many_requests() {
        served(Router::new().route("/", get(|| async { "here" })), |path| {
            let began = std::time::Instant::now();
            let mut dripping = connect(path, HEAD);
            let mut busy = connect(path, "");
            let all: String = (0..REQUESTS)
                .map(|_| {
                    busy.write_all(format!("{HEAD}\r\n").as_bytes()).unwrap();
                    answer(&mut busy)
                })
                .collect();
            assert_eq!((all.matches("200 OK").count(), all.matches("connection: close").count()), (REQUESTS, 1));
            assert_eq!(answer(&mut busy), "");
            assert!(!answer(&mut dripping).contains("200"));
            let waited = began.elapsed();
            assert!(waited >= HEAD_DEADLINE - Duration::from_millis(100) && waited < HEAD_DEADLINE * 3, "{waited:?}");
        });
    }

    #[test]
    fn requests_that_are_worked_on_keep_their_places() {
        let release = Arc::new(Notify::new());
        let (held, waits) = (release.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let count = waits.clone();
        let work = move || {
            let (release, count) = (release.clone(), count.clone());
            async move {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                release.notified().await;
                "done"
            }
        };
        let router = Router::new().route("/", get(work)).route("/how", get(|| async { "well" }));
        served(router, move |path| {
            let mut working: Vec<UnixStream> =
                (0..super::super::desk::WORKING).map(|_| connect(path, &format!("{HEAD}\r\n"))).collect();
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while waits.load(std::sync::atomic::Ordering::SeqCst) < working.len() {
                assert!(std::time::Instant::now() < deadline);
                std::thread::park_timeout(Duration::from_millis(5));
            }
            let _idle: Vec<UnixStream> = (0..2 * CONNECTIONS).map(|_| connect(path, HEAD)).collect();
            let mut asking = connect(path, "GET /how HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(answer(&mut asking).contains("well"));
            held.notify_waiters();
            assert!(working.iter_mut().all(|stream| answer(stream).contains("200 OK")), "a request lost its place");
        });
    }
}
