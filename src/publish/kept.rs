//! What the broker keeps of this device's own `birth`, asked for on the device's own connection: under its client id, with its rights, and
//! anew with every connection for as long as nobody has said that it was heard. The worker asks and passes on; whoever holds
//! [`KeptEar`] judges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::subscribe::Received;

/// The topic below the device's.
pub(super) const TOPIC: &str = "birth";
/// What may wait for the judge; what has no room is asked for again.
const QUEUE: usize = 64;

/// What the worker passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The broker has confirmed that it was asked.
    Asked,
    /// It does not let this user read it: its reason.
    Refused(String),
    /// Something came on the topic: what was kept, or what was said just now.
    Message(Received),
    /// The connection has ended; the next one asks by itself.
    Ended,
}

#[derive(Default)]
struct Wish {
    /// Not heard yet.
    open: AtomicBool,
    /// Asked for once more on the connection that stands.
    again: AtomicBool,
}

/// The judge's end.
pub struct KeptEar {
    news: Receiver<Kept>,
    wish: Arc<Wish>,
}

impl KeptEar {
    /// What came next, waiting for at most `wait`.
    pub fn next(&self, wait: Duration) -> Option<Kept> {
        self.news.recv_timeout(wait).ok()
    }

    /// Asks once more on the connection that stands: the broker's rules may have been mended.
    pub fn ask_again(&self) {
        self.wish.again.store(true, Ordering::Relaxed);
    }

    /// It was heard: nobody asks any more.
    pub fn close(&self) {
        self.wish.open.store(false, Ordering::Relaxed);
        while self.news.try_recv().is_ok() {}
    }
}

/// The worker's end.
pub(super) struct KeptMouth {
    news: SyncSender<Kept>,
    wish: Arc<Wish>,
}

impl KeptMouth {
    pub(super) fn pair() -> (Self, KeptEar) {
        let (sender, news) = sync_channel(QUEUE);
        let wish = Arc::new(Wish { open: AtomicBool::new(true), again: AtomicBool::new(false) });
        (Self { news: sender, wish: wish.clone() }, KeptEar { news, wish })
    }

    /// Whether to ask on a new connection.
    pub(super) fn is_open(&self) -> bool {
        self.wish.open.load(Ordering::Relaxed)
    }

    /// Whether to ask once more; true once for each wish.
    pub(super) fn wants_again(&self) -> bool {
        self.wish.again.swap(false, Ordering::Relaxed) && self.is_open()
    }

    /// Passes it on while somebody waits for it.
    pub(super) fn tell(&self, kept: Kept) {
        if self.is_open() {
            // Whoever has no room for it has enough to judge, or asks again.
            let _ = self.news.try_send(kept);
        }
    }
}
