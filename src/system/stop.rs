//! The stop signal: one handle asks, every worker hears it, and every wait ends at once when it does.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Shared {
    asked: Mutex<bool>,
    changed: Condvar,
}

/// What a worker holds: it asks whether to stop, and sleeps through this so that it wakes when told.
#[derive(Clone)]
pub struct Stop(Arc<Shared>);

/// What the owner holds: it tells everybody to stop.
#[derive(Clone)]
pub struct StopHandle(Arc<Shared>);

/// A fresh signal, not yet given.
pub fn pair() -> (StopHandle, Stop) {
    let shared = Arc::new(Shared::default());
    (StopHandle(shared.clone()), Stop(shared))
}

impl StopHandle {
    /// Tells every [`Stop`] of this pair. May be called more than once.
    pub fn stop(&self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Stop {
    /// Whether to stop.
    pub fn is_asked(&self) -> bool {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `duration` or until told to stop; true when told.
    pub fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        while !*asked {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            asked = self.0.changed.wait_timeout(asked, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_when_told() {
        let (handle, stop) = pair();
        let sleeper = std::thread::spawn(move || stop.sleep(Duration::from_secs(600)));
        handle.stop();
        assert!(sleeper.join().unwrap());
    }

    #[test]
    fn without_a_word_the_sleep_runs_out() {
        let (_handle, stop) = pair();
        assert!(!stop.sleep(Duration::from_millis(1)));
        assert!(!stop.is_asked());
    }
}
