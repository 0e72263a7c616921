//! Who calls at the control socket: few at once, and whoever stalls makes room for the next.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::CALLERS;

/// A caller that has asked nothing for this long is hung up on when all places are taken and somebody waits.
const STALLED: Duration = Duration::from_millis(500);
/// When they have been taken for this long, whoever asks nothing at the moment is.
const FULL: Duration = Duration::from_secs(2);

/// Who is being served.
#[derive(Default)]
pub(super) struct Calls(Mutex<State>);

#[derive(Default)]
struct State {
    callers: Vec<Option<Caller>>,
    /// Since when somebody waits for a place.
    full_since: Option<Instant>,
}

struct Caller {
    /// So that whoever only waits can be hung up on.
    stream: UnixStream,
    /// Since when a question of it is waited for; nothing while one is being answered.
    asks_since: Option<Instant>,
}

/// One caller's place, given back when it goes.
pub(super) struct Call<'a>(&'a Calls, usize);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a place for one more; when not, whoever stalls is hung up on, and goes in a moment.
    pub(super) fn make_room(&self) -> bool {
        let state = &mut *self.lock();
        if state.callers.iter().flatten().count() < CALLERS {
            state.full_since = None;
            return true;
        }
        let now = Instant::now();
        let patience = if now - *state.full_since.get_or_insert(now) < FULL { STALLED } else { Duration::ZERO };
        let asking = state.callers.iter().flatten().filter_map(|caller| Some((caller.asks_since?, caller)));
        let stalled = asking.filter(|(since, _)| now.duration_since(*since) >= patience).min_by_key(|(since, _)| *since);
        if let Some((_, caller)) = stalled {
            let _ = caller.stream.shutdown(Shutdown::Both);
        }
        false
    }

    /// A place; none when the system has no file descriptor left for it.
    pub(super) fn begin(&self, stream: &UnixStream) -> Option<Call<'_>> {
        let caller = Caller { stream: stream.try_clone().ok()?, asks_since: Some(Instant::now()) };
        let callers = &mut self.lock().callers;
        let free = callers.iter().position(Option::is_none).unwrap_or(callers.len());
        if free == callers.len() {
            callers.push(None);
        }
        callers[free] = Some(caller);
        Some(Call(self, free))
    }

    /// Hangs up on whoever has not asked; who is being served gets the answer.
    pub(super) fn hang_up(&self) {
        self.lock().callers.iter().flatten().for_each(|caller| drop(caller.stream.shutdown(Shutdown::Read)));
    }
}

impl Call<'_> {
    /// Whether a question is waited for from now on, or one has come.
    pub(super) fn is_asking(&self, is_asking: bool) {
        if let Some(caller) = &mut self.0.lock().callers[self.1] {
            caller.asks_since = is_asking.then(Instant::now);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.lock().callers[self.1] = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn whoever_stalls_longest_makes_room_and_whoever_is_served_never_does() {
        let calls = Calls::default();
        let mut pairs: Vec<_> = (0..CALLERS).map(|_| UnixStream::pair().unwrap()).collect();
        let mut places: Vec<_> = pairs.iter().map(|(ours, _)| calls.begin(ours)).collect();
        // All are being answered: nobody is hung up on.
        places.iter().flatten().for_each(|call| call.is_asking(false));
        assert!(!calls.make_room());
        let long_ago = Instant::now().checked_sub(STALLED * 3).unwrap();
        calls.lock().callers[3].as_mut().unwrap().asks_since = Some(long_ago);
        calls.lock().callers[5].as_mut().unwrap().asks_since = Some(long_ago + STALLED);
        assert!(!calls.make_room());
        assert_eq!(pairs[3].1.read(&mut [0]).unwrap(), 0, "hung up on");
        pairs[5].1.set_nonblocking(true).unwrap();
        assert!(pairs[5].1.read(&mut [0]).is_err(), "the other is still there");
        places[3] = None;
        assert!(calls.make_room());
    }
}
