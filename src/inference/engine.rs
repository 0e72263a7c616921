//! The life of an accelerator's engine. TensorRT compiles a network for the very card that it runs on, for minutes on a Jetson; a door
//! does not wait for that. A network that has an engine to come therefore runs at once on the next provider. The engine is built
//! beside it, held against the processor on a fixed set of inputs, and takes over between two runs; one that cannot be built, or that
//! computes something else, never serves, and why is told.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{InferenceError, Network, Tensor};

/// How far a cosine between what the engine and the processor give for one input may lie from one: the decision's scores are cosines,
/// and a thousandth is a fiftieth of the distance between the thresholds of the false match rates 1e-4 and 1e-5. Networks in 8 bits
/// have a bar of their own in the settings: where two ways to add lead to two sides of a rounding, a whole step lies between them.
pub(super) const TOLERANCE: f64 = 1e-3;
/// Inputs of the fixed set.
const INPUTS: u64 = 8;
/// How often a build that goes on is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What became of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineState {
    /// It is being built.
    Building,
    /// It serves, or will with the next frame.
    Ready,
    /// It could not be built or did not agree with the processor; the next provider goes on serving.
    Refused,
}

impl EngineState {
    /// Its name in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Refused => "refused",
        }
    }
}

/// One engine of this process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineReport {
    /// The network's model.
    pub model: String,
    /// What it is for: `ort/tensorrt`.
    pub provider: String,
    /// What became of it.
    pub state: EngineState,
    /// How long it has been or was being built and tried, in seconds.
    pub seconds: f64,
    /// The largest difference of a cosine from one on the fixed set; with an engine that was tried.
    pub largest_difference: Option<f64>,
    /// Why it does not serve.
    pub reason: Option<String>,
}

struct Entry {
    report: EngineReport,
    since: Instant,
}

/// Engines are the process's, as the library that builds them is.
static ENGINES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// The engines that were begun, in that order: for `stats`, the service manager and the log.
#[must_use]
pub fn engines() -> Vec<EngineReport> {
    let entries = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let report = |entry: &Entry| {
        let mut report = entry.report.clone();
        if report.state == EngineState::Building {
            report.seconds = entry.since.elapsed().as_secs_f64();
        }
        report
    };
    entries.iter().map(report).collect()
}

/// What opens a network: minutes for one with an engine to build.
pub(super) type Open = Box<dyn FnOnce() -> Result<Box<dyn Network>, String> + Send>;

/// How an engine comes into being.
pub(super) struct Plan {
    /// The model's id.
    pub(super) model: String,
    /// What it is for, as [`Network::provider`] will say.
    pub(super) provider: String,
    /// Builds it.
    pub(super) engine: Open,
    /// Opens the same network on the processor, which it is held against.
    pub(super) reference: Open,
    /// The one input's shape.
    pub(super) shape: [usize; 4],
    /// The lowest and the highest number that a picture has when the network gets it.
    pub(super) range: (f32, f32),
    /// How far a cosine between the two may lie from one.
    pub(super) tolerance: f64,
}

/// Runs on `serving` now, and on the engine from when it is there.
pub(super) struct Upgrading {
    serving: Box<dyn Network>,
    coming: Option<Receiver<Result<Box<dyn Network>, String>>>,
    fallback: Option<String>,
}

impl Upgrading {
    /// Begins to build the engine on a thread of low priority.
    pub(super) fn start(serving: Box<dyn Network>, plan: Plan) -> Self {
        let fallback = Some(format!("{}: its engine is being built", plan.provider));
        let (done, coming) = mpsc::channel();
        let index = begin(&plan);
        let name = plan.model.clone();
        let builder = std::thread::Builder::new().name(format!("engine-{name}"));
        let started = builder.spawn(move || {
            // Of this thread alone, on Linux; without it the build is merely in the way.
            let _ = rustix::process::nice(19);
            let outcome = build(plan, index);
            // Nobody listens any more when the network has gone.
            let _ = done.send(outcome);
        });
        match started {
            Ok(_) => Self { serving, coming: Some(coming), fallback },
            Err(error) => {
                let reason = format!("no thread to build it on: {error}");
                end(index, Err(&reason), None);
                Self { serving, coming: None, fallback: Some(reason) }
            }
        }
    }

    /// Takes over what has come.
    fn upgrade(&mut self) {
        let Some(coming) = &self.coming else { return };
        match coming.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(engine)) => {
                self.serving = engine;
                self.fallback = None;
            }
            Ok(Err(reason)) => self.fallback = Some(reason),
            Err(TryRecvError::Disconnected) => self.fallback = Some("the engine's build ended without a word".into()),
        }
        self.coming = None;
    }
}

impl Network for Upgrading {
    fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
        self.upgrade();
        self.serving.run(input)
    }

    fn output_names(&self) -> &[String] {
        self.serving.output_names()
    }

    fn provider(&self) -> &str {
        self.serving.provider()
    }

    fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref().or_else(|| self.serving.fallback())
    }
}

fn begin(plan: &Plan) -> usize {
    let report = EngineReport {
        model: plan.model.clone(),
        provider: plan.provider.clone(),
        state: EngineState::Building,
        seconds: 0.0,
        largest_difference: None,
        reason: None,
    };
    let mut entries = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    entries.push(Entry { report, since: Instant::now() });
    entries.len() - 1
}

fn end(index: usize, outcome: Result<(), &str>, largest_difference: Option<f64>) {
    let mut entries = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(entry) = entries.get_mut(index) else { return };
    let report = &mut entry.report;
    report.seconds = entry.since.elapsed().as_secs_f64();
    report.state = if outcome.is_ok() { EngineState::Ready } else { EngineState::Refused };
    report.reason = outcome.err().map(str::to_owned);
    report.largest_difference = largest_difference;
    let (model, provider, seconds) = (report.model.as_str(), report.provider.as_str(), report.seconds);
    match &report.reason {
        None => log::info!(model, provider; "the engine of {model} for {provider} serves after {seconds:.0} s"),
        Some(reason) => log::warn!(model, provider; "no engine of {model} for {provider}: {reason}"),
    }
}

/// One engine at a time: the second of a kind finds the first in the cache, and the card has one memory.
static TURN: Mutex<()> = Mutex::new(());

/// What a build ends with; meanwhile `tell` is called `every` so often.
fn wait<T>(built: &Receiver<Result<T, String>>, every: Duration, mut tell: impl FnMut()) -> Result<T, String> {
    loop {
        match built.recv_timeout(every) {
            Ok(tried) => return tried,
            Err(RecvTimeoutError::Disconnected) => return Err("the build ended without a word".into()),
            Err(RecvTimeoutError::Timeout) => tell(),
        }
    }
}

fn build(plan: Plan, index: usize) -> Result<Box<dyn Network>, String> {
    let Plan { model, provider, engine, reference, shape, range, tolerance } = plan;
    let (done, built) = mpsc::channel();
    let inputs = fixed_set(shape, range);
    let work = move || {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = super::guarded(|| {
            let mut engine = engine()?;
            let mut reference = reference()?;
            let difference = largest_difference(&mut *engine, &mut *reference, &inputs)?;
            Ok((engine, difference))
        });
        let _ = done.send(tried);
    };
    let worker = std::thread::Builder::new().name(format!("build-{model}")).spawn(work);
    let began = Instant::now();
    let tried = match worker {
        Err(error) => Err(format!("no thread to build it on: {error}")),
        Ok(_) => wait(&built, TELL_EVERY, || {
            let seconds = began.elapsed().as_secs();
            log::info!(model = model.as_str(), provider = provider.as_str(); "the engine of {model} is being built since {seconds} s");
        }),
    };
    let difference = tried.as_ref().ok().map(|(_, difference)| *difference);
    let outcome = tried.and_then(|(engine, difference)| {
        if difference <= tolerance {
            return Ok(engine);
        }
        Err(format!(
            "it computes something else than the processor: a cosine lies {difference:.1e} from one, at most {tolerance:.1e} may"
        ))
    });
    end(index, outcome.as_ref().map(drop).map_err(String::as_str), difference);
    outcome
}

/// Pictures of soft blotches, drawn from a fixed seed: a network that takes pictures answers something to each.
pub(super) fn fixed_set(shape: [usize; 4], range: (f32, f32)) -> Vec<Tensor> {
    let [batch, channels, height, width] = shape;
    let draw = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut data = Vec::with_capacity(batch * channels * height * width);
        for _ in 0..batch * channels {
            let mut wave = || (random.f32() * 9.0 + 1.0, random.f32() * 9.0 + 1.0, random.f32() * std::f32::consts::TAU);
            let waves = [wave(), wave(), wave()];
            for y in 0..height {
                for x in 0..width {
                    let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
                    let sum: f32 = waves.iter().map(|(across, down, phase)| (across * x + down * y + phase).sin()).sum();
                    data.push(range.0 + (range.1 - range.0) * (sum / 6.0 + 0.5));
                }
            }
        }
        Tensor { shape: shape.to_vec(), data }
    };
    (1..=INPUTS).map(draw).collect()
}

/// The largest distance from one of a cosine between two networks' answers to one input, over all inputs and outputs.
pub(super) fn largest_difference(a: &mut dyn Network, b: &mut dyn Network, inputs: &[Tensor]) -> Result<f64, String> {
    let mut largest = 0.0f64;
    for input in inputs {
        let word = |error: InferenceError| error.to_string();
        let (left, right) = (a.run(input).map_err(word)?, b.run(input).map_err(word)?);
        if left.len() != right.len() || left.iter().zip(&right).any(|(left, right)| left.data.len() != right.data.len()) {
            return Err("its outputs have other shapes than the processor's".into());
        }
        for (left, right) in left.iter().zip(&right) {
            let cosine = cosine(&left.data, &right.data);
            // What is no number is as far away as can be.
            largest = if cosine.is_finite() { largest.max((1.0 - cosine).abs()) } else { f64::INFINITY };
            if largest.is_infinite() {
                return Ok(largest);
            }
        }
    }
    Ok(largest)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (own, other) = (dot(a, a), dot(b, b));
    // Two answers of nothing but zeros agree.
    if own == 0.0 && other == 0.0 { 1.0 } else { dot(a, b) / (own * other).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its input times a factor, and the first number besides: like an engine of a coarser arithmetic.
    struct Times {
        name: &'static str,
        factor: f32,
        off: f32,
    }

    impl Network for Times {
        fn run(&mut self, input: &Tensor) -> Result<Vec<Tensor>, InferenceError> {
            let mut data: Vec<f32> = input.data.iter().map(|v| v * self.factor).collect();
            data[0] += self.off;
            Ok(vec![Tensor { shape: input.shape.clone(), data }])
        }

        fn output_names(&self) -> &[String] {
            &[]
        }

        fn provider(&self) -> &str {
            self.name
        }
    }

    fn times(name: &'static str, factor: f32, off: f32) -> Box<dyn Network> {
        Box::new(Times { name, factor, off })
    }

    fn plan(model: &str, engine: Open) -> Plan {
        Plan {
            model: model.to_owned(),
            provider: "ort/tensorrt".to_owned(),
            engine,
            reference: Box::new(|| Ok(times("ort/cpu", 1.0, 0.0))),
            shape: [1, 3, 4, 4],
            range: (-1.0, 1.0),
            tolerance: TOLERANCE,
        }
    }

    fn report(model: &str) -> EngineReport {
        engines().into_iter().find(|report| report.model == model).unwrap()
    }

    /// Runs until the build has ended, and once more, so that what came serves.
    fn run_until_ended(network: &mut Upgrading, model: &str) -> Vec<f32> {
        let input = Tensor { shape: vec![1, 3, 4, 4], data: vec![1.0; 48] };
        while network.coming.is_some() {
            network.run(&input).unwrap();
            std::thread::yield_now();
        }
        assert_ne!(report(model).state, EngineState::Building);
        network.run(&input).unwrap().remove(0).data
    }

    #[test]
    fn the_next_provider_serves_until_the_engine_is_there_and_then_the_engine_does() {
        let (go, wait) = mpsc::channel::<()>();
        let engine: Open = Box::new(move || {
            wait.recv().map_err(|error| error.to_string())?;
            Ok(times("ort/tensorrt", 2.0, 0.0))
        });
        let mut network = Upgrading::start(times("ort/cuda", 1.0, 0.0), plan("slow", engine));
        let input = Tensor { shape: vec![1, 3, 4, 4], data: vec![1.0; 48] };
        for _ in 0..3 {
            assert_eq!(network.run(&input).unwrap()[0].data[5], 1.0);
        }
        assert_eq!((network.provider(), report("slow").state), ("ort/cuda", EngineState::Building));
        assert!(network.fallback().unwrap().contains("is being built"));
        go.send(()).unwrap();
        // The same direction is the same cosine, so this engine is let in, and its factor shows that it serves.
        assert_eq!(run_until_ended(&mut network, "slow")[5], 2.0);
        assert_eq!((network.provider(), network.fallback()), ("ort/tensorrt", None));
        let report = report("slow");
        assert_eq!((report.state, report.reason), (EngineState::Ready, None));
        assert!(report.largest_difference.unwrap() < 1e-9);
    }

    #[test]
    fn a_build_that_goes_on_is_told_again_and_again_until_it_ends() {
        let (done, built) = mpsc::channel();
        let mut told = 0;
        let outcome = wait(&built, Duration::from_millis(1), || {
            told += 1;
            if told == 3 {
                done.send(Ok(7)).unwrap();
            }
        });
        assert_eq!((outcome, told), (Ok(7), 3));
        drop(done);
        assert!(wait(&built, Duration::from_millis(1), || ()).unwrap_err().contains("without a word"));
        assert!(TELL_EVERY <= Duration::from_secs(5));
    }

    #[test]
    fn an_engine_that_computes_something_else_never_serves() {
        for (model, off) in [("wrong", 9.0), ("no number", f32::NAN)] {
            let engine: Open = Box::new(move || Ok(times("ort/tensorrt", 1.0, off)));
            let mut network = Upgrading::start(times("ort/cpu", 1.0, 0.0), plan(model, engine));
            assert_eq!(run_until_ended(&mut network, model)[0], 1.0);
            assert_eq!((network.provider(), report(model).state), ("ort/cpu", EngineState::Refused));
            assert!(network.fallback().unwrap().contains("something else than the processor"));
        }
    }

    #[test]
    fn eight_bits_have_a_bar_of_their_own_and_no_more_than_that() {
        // One number of 48 is off by a quarter: the cosine then lies some thousandths from one.
        for (model, tolerance, state) in
            [("fp16", TOLERANCE, EngineState::Refused), ("int8", 0.01, EngineState::Ready), ("strict", 0.002, EngineState::Refused)]
        {
            let engine: Open = Box::new(|| Ok(times("ort/tensorrt", 1.0, 0.25)));
            let plan = Plan { tolerance, ..plan(model, engine) };
            run_until_ended(&mut Upgrading::start(times("ort/cpu", 1.0, 0.0), plan), model);
            let report = report(model);
            assert_eq!(report.state, state, "{report:?}");
            assert!((0.002..0.01).contains(&report.largest_difference.unwrap()), "{report:?}");
        }
    }

    #[test]
    fn an_engine_that_cannot_be_built_leaves_its_reason() {
        let refused: Open = Box::new(|| Err("no memory on the card".into()));
        let panicking: Open = Box::new(|| panic!("the library gave up"));
        for (model, engine, reason) in [("refused", refused, "no memory on the card"), ("panicking", panicking, "gave up")] {
            let mut network = Upgrading::start(times("ort/cpu", 1.0, 0.0), plan(model, engine));
            run_until_ended(&mut network, model);
            assert!(network.fallback().unwrap().contains(reason), "{:?}", network.fallback());
            assert!(report(model).reason.unwrap().contains(reason));
        }
    }

    #[test]
    fn a_network_that_goes_while_its_engine_is_built_is_no_error() {
        let (go, wait) = mpsc::channel::<()>();
        let engine: Open = Box::new(move || {
            wait.recv().map_err(|error| error.to_string())?;
            Ok(times("ort/tensorrt", 1.0, 0.0))
        });
        drop(Upgrading::start(times("ort/cpu", 1.0, 0.0), plan("gone", engine)));
        go.send(()).unwrap();
        while report("gone").state == EngineState::Building {
            std::thread::yield_now();
        }
        assert_eq!(report("gone").state, EngineState::Ready);
    }

    #[test]
    fn the_fixed_set_is_the_same_every_time_and_within_the_range() {
        let (set, again) = (fixed_set([1, 3, 8, 8], (-2.0, 3.0)), fixed_set([1, 3, 8, 8], (-2.0, 3.0)));
        assert_eq!(set, again);
        assert_eq!(set.len() as u64, INPUTS);
        assert_ne!(set[0].data, set[1].data);
        let (low, high) = set.iter().flat_map(|t| &t.data).fold((9.0f32, -9.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!(low >= -2.0 && high <= 3.0 && high - low > 2.0, "{low} to {high}");
    }
}
