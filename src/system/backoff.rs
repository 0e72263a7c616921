//! Jittered exponential back-off for whatever is retried for ever: cameras and the broker.

use std::time::Duration;

/// Waits that double from `floor` to `ceiling`, each shortened by a random part of up to a half so that many devices do not come back
/// at one moment ("equal jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `floor` and never waits longer than `ceiling`.
    pub fn new(floor: Duration, ceiling: Duration) -> Self {
        Self { floor, ceiling, next: floor }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.next.min(self.ceiling);
        self.next = full.saturating_mul(2).min(self.ceiling);
        full.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// A try succeeded: the next failure waits short again.
    pub fn reset(&mut self) {
        self.next = self.floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_ceiling_and_no_further() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        for _ in 0..20 {
            let delay = backoff.next_delay();
            assert!((Duration::from_millis(50)..=Duration::from_millis(500)).contains(&delay), "{delay:?}");
        }
        assert!(backoff.next_delay() >= Duration::from_millis(250));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
