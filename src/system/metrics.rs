//! Counters and latency histograms that cost a few nanoseconds and never lock: workers write while anyone reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Every power of two of microseconds is cut into this many buckets, so a quantile is at most 1/16 too high.
const CUTS: u64 = 16;
/// Buckets up to 2^36 µs (19 hours); longer times count into the last.
const BUCKETS: usize = CUTS as usize * (36 - 3);

/// Counts upwards for as long as the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// From zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `many` more.
    pub fn add(&self, many: u64) {
        self.0.fetch_add(many, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long something took, over many times. About 4 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    /// Never emptied: by the bounds of [`LIFETIME_US`], and above them all.
    lifetime: [AtomicU64; LIFETIME_US.len() + 1],
    lifetime_sum_us: AtomicU64,
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

/// The upper bounds of the buckets that are never emptied, in microseconds: Prometheus wants the same ones for ever.
const LIFETIME_US: [u64; 12] = [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// Everything that a histogram ever counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifetime {
    /// Upper bounds in seconds, rising, each with how many times were no longer.
    pub buckets: Vec<(f64, u64)>,
    /// How many times in all.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_s: f64,
}

/// What a histogram held at one moment, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// How many times.
    pub n: u64,
    /// The mean.
    pub mean_us: u64,
    /// Half of the times were no longer, to 1/16.
    pub p50_us: u64,
    /// 99 of 100 were no longer, to 1/16.
    pub p99_us: u64,
    /// The longest, exactly.
    pub max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Empty.
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            lifetime: Default::default(),
            lifetime_sum_us: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }

    /// Counts one time.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
        self.max_us.fetch_max(us, Relaxed);
        self.lifetime[LIFETIME_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.lifetime_sum_us.fetch_add(us, Relaxed);
    }

    /// Everything since the start, whatever [`Histogram::take`] took.
    pub fn lifetime(&self) -> Lifetime {
        let mut count = 0;
        let mut counted = self.lifetime.iter().map(|cell| {
            count += cell.load(Relaxed);
            count
        });
        let buckets = LIFETIME_US.iter().zip(&mut counted).map(|(us, count)| (*us as f64 / 1e6, count)).collect();
        let count = counted.next().unwrap_or(0);
        Lifetime { buckets, count, sum_s: self.lifetime_sum_us.load(Relaxed) as f64 / 1e6 }
    }

    /// What is in it. While others write, the figures may be one event apart from each other.
    pub fn summary(&self) -> Summary {
        self.summarise(|cell| cell.load(Relaxed))
    }

    /// What is in it, and starts anew: for figures over a period.
    pub fn take(&self) -> Summary {
        self.summarise(|cell| cell.swap(0, Relaxed))
    }

    fn summarise(&self, read: impl Fn(&AtomicU64) -> u64) -> Summary {
        let counts: Vec<u64> = self.buckets.iter().map(&read).collect();
        let (sum_us, max_us) = (read(&self.sum_us), read(&self.max_us));
        let n: u64 = counts.iter().sum();
        if n == 0 {
            return Summary::default();
        }
        let quantile = |percent: u64| {
            let rank = (n * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            bucket.map_or(max_us, |bucket| upper_bound(bucket).min(max_us))
        };
        Summary { n, mean_us: sum_us / n, p50_us: quantile(50), p99_us: quantile(99), max_us }
    }
}

/// Below 16 µs a bucket a microsecond; above, 16 equal ones between each power of two and the next.
fn bucket_of(us: u64) -> usize {
    if us < CUTS {
        return us as usize;
    }
    let octave = u64::from(us.ilog2()) - 3;
    let within = (us >> (octave - 1)) - CUTS;
    ((octave * CUTS + within) as usize).min(BUCKETS - 1)
}

/// The longest time, in µs, that falls into the bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (octave, within) = (bucket as u64 / CUTS, bucket as u64 % CUTS);
    if octave == 0 {
        return within;
    }
    ((CUTS + within + 1) << (octave - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_histogram_says_zero_and_an_endless_time_does_not_panic() {
        let histogram = Histogram::new();
        assert_eq!(histogram.summary(), Summary::default());
        histogram.record(Duration::MAX);
        assert_eq!(histogram.summary().n, 1);
    }

    #[test]
    fn what_was_taken_is_still_part_of_the_lifetime() {
        let histogram = Histogram::new();
        for us in [400, 500, 501, 3_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        assert_eq!(histogram.take().n, 4);
        let lifetime = histogram.lifetime();
        assert_eq!((lifetime.buckets[0], lifetime.buckets[1], lifetime.buckets[11]), ((0.0005, 2), (0.001, 3), (2.5, 3)));
        assert_eq!((lifetime.count, lifetime.sum_s), (4, 3.001_401));
    }

    #[test]
    fn every_time_lies_in_its_bucket_and_bounds_grow() {
        for us in (0..100_000).chain((17..36).map(|power| (1 << power) + 12_345)) {
            let bucket = bucket_of(us);
            assert!(us <= upper_bound(bucket), "{us}");
            assert!(bucket == 0 || us > upper_bound(bucket - 1), "{us}");
        }
    }

    #[test]
    fn quantiles_are_at_most_a_sixteenth_too_high() {
        let histogram = Histogram::new();
        for us in 1..=10_000 {
            histogram.record(Duration::from_micros(us));
        }
        let summary = histogram.take();
        assert_eq!((summary.n, summary.max_us, summary.mean_us), (10_000, 10_000, 5_000));
        assert!((5_000..=5_313).contains(&summary.p50_us), "{summary:?}");
        assert!((9_900..=10_000).contains(&summary.p99_us), "{summary:?}");
        assert_eq!(histogram.summary().n, 0);
    }
}
