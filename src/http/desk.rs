//! Where pictures are taken in and decoded, with a bound on everything that may be held of them: so many uploads at once, so many bytes
//! of them in all, and one picture that is decoded and looked at, by a thread that cameras come before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answers::Problem;
use super::form::OVERHEAD_BYTES;
use super::limits::ANYBODY;
use super::server::CONNECTIONS;
use super::{Backend, REQUEST_DEADLINE};
use crate::types::Picture;
use axum::http::StatusCode;

/// Requests that need leave and are worked on at once: half of the connections, so that the others are always there for whoever asks how
/// the daemon is.
pub(super) const WORKING: usize = CONNECTIONS / 2;
/// Uploads that are taken in at once.
const UPLOADS: usize = 8;
/// Of these, such as come without a token: whoever has one finds a place beside them.
const OPEN_UPLOADS: usize = 6;
/// The bytes of all uploads that are held at once, unless a single one may be longer.
const HELD_BYTES: usize = 24 << 20;
/// Bytes are counted by so many.
const GRAIN: usize = 1 << 10;
/// An upload has this long, and more for what has come: a second for each [`PACE_BYTES`].
const HEAD_START: Duration = Duration::from_secs(3);
/// The least that comes in a second. Over a loopback it is a thousand times as much; a forwarded connection brings it too.
const PACE_BYTES: usize = 128 << 10;

/// The desk.
pub(super) struct Desk {
    uploads: Arc<Semaphore>,
    open_uploads: Arc<Semaphore>,
    room: Arc<Semaphore>,
    seat: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(max_upload_bytes: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            uploads: semaphore(UPLOADS),
            open_uploads: semaphore(OPEN_UPLOADS),
            room: semaphore(HELD_BYTES.max(max_upload_bytes + OVERHEAD_BYTES).div_ceil(GRAIN)),
            seat: semaphore(1),
        }
    }

    /// Leave to send pictures, for as long as it is held.
    pub(super) fn begin(&self, who: &str) -> Result<Intake, Problem> {
        let take = |from: &Arc<Semaphore>| from.clone().try_acquire_owned().map_err(|_| Problem::too_many(1));
        let open = (who == ANYBODY).then(|| take(&self.open_uploads)).transpose()?;
        let place = take(&self.uploads)?;
        Ok(Intake { began: Instant::now(), taken: 0, room: self.room.clone(), held: None, _places: (place, open) })
    }

    /// The one place where a picture is decoded and looked at. Whoever asked and has gone does not wait for it.
    pub(super) async fn seat(&self) -> Result<OwnedSemaphorePermit, Problem> {
        // It is never closed.
        self.seat.clone().acquire_owned().await.map_err(|_| Problem::too_many(1))
    }
}

/// An upload that comes in.
pub(super) struct Intake {
    began: Instant,
    taken: usize,
    room: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Intake {
    /// Waits for what comes next, no longer than an upload may take that has come so far.
    pub(super) async fn in_pace<T>(&self, next: impl Future<Output = T>) -> Result<T, Problem> {
        let more = Duration::from_secs((self.taken / PACE_BYTES) as u64);
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the upload came too slowly");
        timeout_at(self.began + (HEAD_START + more).min(REQUEST_DEADLINE), next).await.map_err(late)
    }

    /// Room for so many bytes more, kept until the upload is forgotten.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.taken += bytes;
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(self.taken.div_ceil(GRAIN).saturating_sub(held)).map_err(|_| Problem::too_many(1))?;
        if more > 0 {
            let permit = self.room.clone().try_acquire_many_owned(more).map_err(|_| Problem::too_many(1))?;
            match &mut self.held {
                Some(held) => held.merge(permit),
                None => self.held = Some(permit),
            }
        }
        Ok(())
    }
}

/// Decodes on a thread of its own that everything else of this device comes before: what a picture costs is taken from what nobody needs.
pub(super) fn decode(backend: &dyn Backend, bytes: &[u8]) -> Result<Picture, String> {
    std::thread::scope(|scope| {
        let work = move || {
            // Of this thread alone; without it the decoding is merely in the way.
            let _ = rustix::process::nice(19);
            backend.decode(bytes)
        };
        let thread = std::thread::Builder::new().name("http-decode".to_owned()).spawn_scoped(scope, work);
        let decoded = thread.ok().and_then(|thread| thread.join().ok());
        decoded.unwrap_or_else(|| Err("cannot be decoded now: try again".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_of_uploads_is_bounded_in_number_and_in_bytes_and_given_back() {
        let desk = Desk::new(8 << 20);
        let mut open: Vec<Intake> = (0..OPEN_UPLOADS).map(|_| desk.begin(ANYBODY).unwrap()).collect();
        assert!(desk.begin(ANYBODY).is_err());
        let mut known: Vec<Intake> = (OPEN_UPLOADS..UPLOADS).map(|_| desk.begin("panel").unwrap()).collect();
        assert!(desk.begin("panel").is_err());
        // Three as long as may be fit, byte by byte; a fourth does not, and what the others hold is theirs.
        for intake in &mut open[..3] {
            (0..8 << 10).for_each(|_| intake.take(GRAIN).unwrap());
        }
        assert!(open[3].take(1).is_err());
        open.remove(0);
        assert!(known[0].take(8 << 20).is_ok());
        drop((open, known));
        assert_eq!((desk.uploads.available_permits(), desk.open_uploads.available_permits()), (UPLOADS, OPEN_UPLOADS));
        assert_eq!(desk.room.available_permits(), HELD_BYTES / GRAIN);
        // The longest upload that a site allows always fits alone.
        assert!(Desk::new(25 << 20).begin("panel").unwrap().take((25 << 20) + OVERHEAD_BYTES).is_ok());
    }

    #[test]
    fn an_upload_that_drips_is_given_up_and_one_that_comes_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::new(8 << 20);
            let mut intake = desk.begin("panel").unwrap();
            // As if it had begun so long ago.
            intake.began = Instant::now().checked_sub(HEAD_START).unwrap();
            assert!(intake.in_pace(std::future::pending::<()>()).await.is_err());
            intake.take(10 * PACE_BYTES).unwrap();
            assert!(intake.in_pace(tokio::time::sleep(Duration::from_millis(1))).await.is_ok());
        });
    }
}
