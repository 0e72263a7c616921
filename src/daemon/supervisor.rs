//! Workers: named threads that are watched. A restartable one is tried again for ever with a jittered back-off; a vital one must live
//! and keep beating, and its death or silence ends the daemon, because a door that decides without its decider is worse than one that
//! systemd starts again.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::system::notify::Notifier;
use crate::system::{Backoff, Stop, StopHandle, clock, messages, stop};
use crate::types::Monotonic;

/// Why a worker ended; any error will do, its text goes to the log.
pub type WorkerError = Box<dyn std::error::Error + Send + Sync>;

/// How often the workers are looked at when the watchdog does not ask for more.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// What a worker's end means.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// An error is followed by another try after a back-off between these; an end without error is an end.
    Restartable {
        /// The first wait.
        floor: Duration,
        /// The longest wait. A worker that lived this long before it failed starts over at `floor`.
        ceiling: Duration,
    },
    /// Its end, or a heartbeat older than this, ends the daemon.
    Vital {
        /// How long it may be silent.
        stale_after: Duration,
    },
}

/// Why the daemon must end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// A vital worker ended.
    #[error("worker {worker} ended: {reason}")]
    Ended {
        /// Its name.
        worker: String,
        /// Its last words.
        reason: String,
    },
    /// A vital worker no longer beats.
    #[error("worker {worker} has not been heard for {silent_ms} ms")]
    Stalled {
        /// Its name.
        worker: String,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// A worker panicked where no panic hook ended the process.
    #[error("worker {worker} panicked")]
    Panicked {
        /// Its name.
        worker: String,
    },
}

impl Failure {
    /// The process's exit code: 69 (unavailable) for a worker that said why, 70 (bug) for the others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Ended { .. } => 69,
            Failure::Stalled { .. } | Failure::Panicked { .. } => 70,
        }
    }
}

/// A worker's sign of life. Cheap enough for every frame.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Alive now.
    pub fn beat(&self) {
        // Never zero, which means "not yet".
        self.0.store((clock::monotonic().0 / 1_000_000).max(1), Relaxed);
    }

    /// The last beat; `None` before the first.
    pub fn last(&self) -> Option<Monotonic> {
        let ms = self.0.load(Relaxed);
        (ms != 0).then(|| Monotonic(ms.saturating_mul(1_000_000)))
    }
}

/// What a worker is given.
pub struct WorkerContext {
    name: String,
    stop: Stop,
    heartbeat: Heartbeat,
}

impl WorkerContext {
    /// The worker's own name, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When to stop; all waits of a worker go through it or through a shorter deadline.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Alive now.
    pub fn beat(&self) {
        self.heartbeat.beat();
    }

    /// To be handed to whatever does the worker's waiting.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }
}

#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By a worker's index: whether its thread is through.
    ended: Vec<bool>,
    failure: Option<Failure>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    name: String,
    role: Role,
    order: u8,
    stop: StopHandle,
    heartbeat: Heartbeat,
    restarts: Arc<AtomicU64>,
    started: Monotonic,
    thread: JoinHandle<()>,
}

/// Owns the workers' threads.
pub struct Supervisor {
    attention: StopHandle,
    stop: Stop,
    board: Arc<Board>,
    workers: Vec<Worker>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.workers.iter().map(|worker| &worker.name)).finish()
    }
}

impl Supervisor {
    /// Over the daemon's own stop signal: a signal gives it to stop everything, and so does the death of a vital worker.
    pub fn new(attention: StopHandle, stop: Stop) -> Self {
        Self { attention, stop, board: Arc::default(), workers: Vec::new() }
    }

    /// Starts a worker. At the end, workers of a lower `order` are stopped before those of a higher one are told.
    pub fn spawn(
        &mut self,
        name: &str,
        role: Role,
        order: u8,
        work: impl FnMut(&WorkerContext) -> Result<(), WorkerError> + Send + 'static,
    ) -> io::Result<()> {
        let (stop_handle, stop) = stop::pair();
        let heartbeat = Heartbeat::default();
        let restarts = Arc::new(AtomicU64::new(0));
        let context = WorkerContext { name: name.to_owned(), stop, heartbeat: heartbeat.clone() };
        let index = self.workers.len();
        self.board.lock().ended.push(false);
        let life =
            Life { context, role, restarts: restarts.clone(), board: self.board.clone(), index, attention: self.attention.clone() };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || life.run(work));
        let thread = spawned.inspect_err(|_| {
            self.board.lock().ended.pop();
        })?;
        let started = clock::monotonic();
        self.workers.push(Worker { name: name.to_owned(), role, order, stop: stop_handle, heartbeat, restarts, started, thread });
        Ok(())
    }

    /// How often each worker was started again.
    pub fn restarts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.workers.iter().map(|worker| (worker.name.as_str(), worker.restarts.load(Relaxed)))
    }

    /// Waits for the first heartbeat of every vital worker; calls `waiting` about once a second with the names that are missing, so
    /// that a long start can be told to the service manager. Gives false when told to stop meanwhile or when a worker failed.
    pub fn wait_ready(&self, mut waiting: impl FnMut(&[&str])) -> Result<bool, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(failure) = self.board.lock().failure.clone() {
                return Err(failure);
            }
            let missing: Vec<&str> =
                self.vital().filter(|(w, _)| w.heartbeat.last().is_none()).map(|(w, _)| w.name.as_str()).collect();
            if missing.is_empty() {
                return Ok(true);
            }
            if waited >= LONGEST_TICK {
                waited = Duration::ZERO;
                waiting(&missing);
            }
            let tick = Duration::from_millis(10);
            waited += tick;
            if self.stop.sleep(tick) {
                return self.board.lock().failure.clone().map_or(Ok(false), Err);
            }
        }
    }

    /// Watches until told to stop or until a vital worker fails. `WATCHDOG=1` is sent only while every vital heartbeat is fresh.
    /// `on_tick` runs at least once a second, for the status line.
    pub fn watch(&self, notifier: &Notifier, mut on_tick: impl FnMut()) -> Result<(), Failure> {
        let interval = notifier.watchdog_interval();
        let tick = interval.unwrap_or(LONGEST_TICK).min(LONGEST_TICK);
        let mut pinged: Option<Monotonic> = None;
        loop {
            let now = clock::monotonic();
            if let Some(failure) = self.failure(now) {
                return Err(failure);
            }
            if self.stop.is_asked() {
                return Ok(());
            }
            // The next look comes a tick later, so what will be due by then is done now.
            if let Some(interval) = interval
                && pinged.is_none_or(|last| now.since(last) + tick >= interval)
            {
                notifier.watchdog();
                pinged = Some(now);
            }
            on_tick();
            self.stop.sleep(tick);
        }
    }

    /// What is wrong at `now`: a recorded failure, otherwise the first vital worker that has been silent for too long.
    pub fn failure(&self, now: Monotonic) -> Option<Failure> {
        if let Some(failure) = self.board.lock().failure.clone() {
            return Some(failure);
        }
        self.vital().find_map(|(worker, stale_after)| {
            let silent = now.since(worker.heartbeat.last().unwrap_or(worker.started));
            let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
            (silent > stale_after).then(|| Failure::Stalled { worker: worker.name.clone(), silent_ms })
        })
    }

    fn vital(&self) -> impl Iterator<Item = (&Worker, Duration)> {
        self.workers.iter().filter_map(|worker| match worker.role {
            Role::Vital { stale_after } => Some((worker, stale_after)),
            Role::Restartable { .. } => None,
        })
    }

    /// Stops the workers in their order and joins them, all within `deadline`; gives the names of the late, whose threads are left
    /// behind. Each step but the last may use at most half of what is left, so that a stuck camera leaves the outbox time to flush.
    pub fn shut_down(self, deadline: Duration) -> Vec<String> {
        let end = Instant::now() + deadline;
        let mut orders: Vec<u8> = self.workers.iter().map(|worker| worker.order).collect();
        orders.sort_unstable();
        orders.dedup();
        for (position, &order) in orders.iter().enumerate() {
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            let share = if position + 1 == orders.len() { left } else { left / 2 };
            let of_step: Vec<usize> = (0..self.workers.len()).filter(|&index| self.workers[index].order == order).collect();
            for &index in &of_step {
                self.workers[index].stop.stop();
            }
            self.wait_ended(&of_step, now + share);
        }
        // A late one of an early step had the later steps' time as well.
        let ended = self.board.lock().ended.clone();
        let mut late = Vec::new();
        for (worker, ended) in self.workers.into_iter().zip(ended) {
            if ended {
                let _ = worker.thread.join();
            } else {
                log::error!(worker = worker.name.as_str(); "worker did not stop in time and is left behind");
                late.push(worker.name);
            }
        }
        late
    }

    fn wait_ended(&self, indices: &[usize], until: Instant) {
        let mut state = self.board.lock();
        while !indices.iter().all(|&index| state.ended[index]) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.board.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One worker's thread, from its start to its end.
struct Life {
    context: WorkerContext,
    role: Role,
    restarts: Arc<AtomicU64>,
    board: Arc<Board>,
    index: usize,
    attention: StopHandle,
}

impl Life {
    fn run(self, mut work: impl FnMut(&WorkerContext) -> Result<(), WorkerError>) {
        let worker = self.context.name.as_str();
        let failure = match self.role {
            Role::Restartable { floor, ceiling } => self.retry(&mut work, Backoff::new(floor, ceiling), ceiling),
            Role::Vital { .. } => match self.once(&mut work) {
                Err(panicked) => Some(panicked),
                Ok(Ok(())) if self.context.stop.is_asked() => None,
                Ok(Ok(())) => Some(Failure::Ended { worker: worker.to_owned(), reason: "without being told to".to_owned() }),
                Ok(Err(error)) => Some(Failure::Ended { worker: worker.to_owned(), reason: error.to_string() }),
            },
        };
        if let Some(failure) = &failure {
            log::error!(MESSAGE_ID = messages::FAILED, worker = worker; "{failure}");
        }
        let failed = failure.is_some();
        {
            let mut state = self.board.lock();
            state.ended[self.index] = true;
            state.failure = state.failure.take().or(failure);
        }
        self.board.changed.notify_all();
        if failed {
            self.attention.stop();
        }
    }

    /// The inner result is the worker's own, the outer one tells of a panic.
    fn once(&self, work: &mut impl FnMut(&WorkerContext) -> Result<(), WorkerError>) -> Result<Result<(), WorkerError>, Failure> {
        // In the daemon the panic hook has already ended the process; a library's user may not have installed it.
        catch_unwind(AssertUnwindSafe(|| work(&self.context))).map_err(|_| Failure::Panicked { worker: self.context.name.clone() })
    }

    fn retry(
        &self,
        work: &mut impl FnMut(&WorkerContext) -> Result<(), WorkerError>,
        mut backoff: Backoff,
        ceiling: Duration,
    ) -> Option<Failure> {
        let worker = self.context.name.as_str();
        loop {
            let began = clock::monotonic();
            let error = match self.once(work) {
                Err(panicked) => return Some(panicked),
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error,
            };
            if self.context.stop.is_asked() {
                log::info!(worker = worker, error:% = error; "worker failed while stopping");
                return None;
            }
            if clock::monotonic().since(began) >= ceiling {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            self.restarts.fetch_add(1, Relaxed);
            log::warn!(MESSAGE_ID = messages::WORKER_FAILED, worker = worker, error:% = error, retry_ms = delay.as_millis() as u64; "worker failed and will be started again");
            if self.context.stop.sleep(delay) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const VITAL: Role = Role::Vital { stale_after: Duration::from_secs(5) };
    const RESTARTABLE: Role = Role::Restartable { floor: Duration::from_micros(1), ceiling: Duration::from_millis(1) };

    fn supervisor() -> (Supervisor, StopHandle) {
        let (handle, stop) = stop::pair();
        (Supervisor::new(handle.clone(), stop), handle)
    }

    fn until_stopped(context: &WorkerContext) -> Result<(), WorkerError> {
        context.beat();
        context.stop().sleep(LONG);
        Ok(())
    }

    #[test]
    fn the_end_of_a_vital_worker_ends_the_watch_with_its_reason() {
        let (mut supervisor, _handle) = supervisor();
        supervisor.spawn("decider", VITAL, 0, |_| Err("the disk is gone".into())).unwrap();
        let failure = supervisor.watch(&Notifier::silent(), || {}).unwrap_err();
        assert_eq!(failure, Failure::Ended { worker: "decider".into(), reason: "the disk is gone".into() });
        assert_eq!(failure.exit_code(), 69);
        let (mut supervisor, _handle) = super::tests::supervisor();
        supervisor.spawn("vision", VITAL, 0, |_| Ok(())).unwrap();
        assert!(matches!(supervisor.wait_ready(|_| {}), Err(Failure::Ended { .. })), "an early end is not waited for");
    }

    #[test]
    fn a_vital_worker_that_falls_silent_is_named_and_the_watchdog_is_not_fed() {
        let (mut supervisor, _handle) = supervisor();
        supervisor.spawn("vision", VITAL, 0, until_stopped).unwrap();
        supervisor
            .spawn("camera front", RESTARTABLE, 0, |context| {
                context.stop().sleep(LONG);
                Ok(())
            })
            .unwrap();
        assert!(supervisor.wait_ready(|_| {}).unwrap());
        let now = clock::monotonic();
        assert_eq!(supervisor.failure(now), None);
        let failure = supervisor.failure(now.plus(Duration::from_secs(60))).unwrap();
        assert!(
            matches!(&failure, Failure::Stalled { worker, silent_ms } if worker == "vision" && *silent_ms > 5_000),
            "{failure}"
        );
        assert_eq!(failure.exit_code(), 70);
        assert!(supervisor.shut_down(LONG).is_empty());
    }

    #[test]
    fn a_stalled_worker_ends_the_watch_without_another_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Some(LONG)).unwrap();
        let (mut supervisor, _handle) = supervisor();
        let (fed, ticks) = mpsc::channel();
        supervisor.spawn("vision", Role::Vital { stale_after: Duration::from_nanos(1) }, 0, until_stopped).unwrap();
        assert!(supervisor.wait_ready(|_| {}).unwrap());
        let failure = supervisor.watch(&notifier, || fed.send(()).unwrap()).unwrap_err();
        assert!(matches!(failure, Failure::Stalled { .. }));
        assert!(ticks.try_recv().is_err() && manager.recv(&mut [0; 64]).is_err());
    }

    #[test]
    fn while_all_is_well_the_watchdog_is_fed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Some(LONG)).unwrap();
        let (mut supervisor, handle) = supervisor();
        supervisor.spawn("vision", VITAL, 0, until_stopped).unwrap();
        assert!(supervisor.wait_ready(|_| {}).unwrap());
        supervisor.watch(&notifier, || handle.stop()).unwrap();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"WATCHDOG=1\n");
    }

    #[test]
    fn a_panic_is_a_failure_of_any_worker() {
        let (mut supervisor, _handle) = supervisor();
        supervisor.spawn("camera", RESTARTABLE, 0, |_| panic!("made for this test")).unwrap();
        let failure = supervisor.watch(&Notifier::silent(), || {}).unwrap_err();
        assert_eq!(failure, Failure::Panicked { worker: "camera".into() });
    }

    #[test]
    fn a_restartable_worker_is_tried_until_it_succeeds() {
        let (mut supervisor, handle) = supervisor();
        let mut tries = 0;
        supervisor
            .spawn("camera", RESTARTABLE, 0, move |_| {
                tries += 1;
                if tries < 4 {
                    return Err("no route to host".into());
                }
                handle.stop();
                Ok(())
            })
            .unwrap();
        supervisor.watch(&Notifier::silent(), || {}).unwrap();
        assert_eq!(supervisor.restarts().collect::<Vec<_>>(), [("camera", 3)]);
        assert!(supervisor.shut_down(LONG).is_empty());
    }

    #[test]
    fn the_late_are_named_and_the_others_stop_in_their_order() {
        let (mut supervisor, _handle) = supervisor();
        let (ended, order) = mpsc::channel();
        for (name, step) in [("outbox", 2), ("camera", 0), ("decider", 1)] {
            let ended = ended.clone();
            supervisor
                .spawn(name, VITAL, step, move |context| {
                    until_stopped(context)?;
                    ended.send(context.name().to_owned()).unwrap();
                    Ok(())
                })
                .unwrap();
        }
        let (_release, held) = mpsc::channel::<()>();
        supervisor
            .spawn("stuck", RESTARTABLE, 0, move |_| {
                let _ = held.recv();
                Ok(())
            })
            .unwrap();
        assert_eq!(supervisor.shut_down(Duration::from_millis(200)), ["stuck"]);
        drop(ended);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["camera", "decider", "outbox"]);
    }
}
