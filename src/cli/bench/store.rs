//! `bench store`: what the sealed store costs on this machine's disk, and without a disk where there is a memory file system.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Scratch, quantiles, round, synthetic, tell};
use crate::cli::context::{Context, gallery_failure};
use crate::cli::{Failure, Places, Result, code, say, say_json};
use crate::gallery::{Gallery, SealingKey, Settings};
use crate::system::stop;
use crate::types::{Embedding, ModelId, Person, PersonId, Wall};

/// Where files are memory on Linux: syncing costs nothing there.
const MEMORY: &str = "/dev/shm";

/// How often the file is written anew while changes are timed.
const COMPACTIONS: usize = 20;
/// Between two of these changes.
const PAUSE: Duration = Duration::from_millis(20);

/// `faceid bench store`
#[derive(clap::Args)]
pub(in crate::cli) struct StoreArgs {
    /// How many templates, a row of each kind
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    sizes: Vec<usize>,
    /// Numbers in a template
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Enrolments and openings a row
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Instead: enrol and remove synthetic people in the state folder's own gallery until somebody kills this, a line after each that
    /// is durable (a test of power cuts)
    #[arg(long)]
    until_killed: bool,
    /// {"rows": [{"name", "n", "dim", "p50_ms", "p99_ms"}]}
    #[arg(long)]
    json: bool,
}

pub(super) fn store(places: &Places, args: &StoreArgs) -> Result {
    let model = ModelId::new("synthetic").map_err(|error| Failure::new(code::BUG, error))?;
    if !(1..=4096).contains(&args.dim) || args.sizes.iter().any(|n| !(1..=1_000_000).contains(n)) || args.rounds == 0 {
        return Err(Failure::new(code::USAGE, "use --dim 1 to 4096, --sizes 1 to 1000000, --rounds 1 or more"));
    }
    if args.until_killed {
        return until_killed(places, &model, args.dim);
    }
    let mut rows = Vec::new();
    for &size in &args.sizes {
        let disk = Scratch::new()?;
        rows.extend(measure(disk.path(), "", &model, size, args)?);
        if let Some(memory) = Scratch::within(Path::new(MEMORY)) {
            rows.extend(measure(memory.path(), ", no sync", &model, size, args)?);
        }
    }
    let report = json!({ "rows": rows });
    if args.json {
        say_json(&report);
    } else {
        tell(&report);
    }
    Ok(code::YES)
}

fn measure(folder: &Path, where_: &str, model: &ModelId, size: usize, args: &StoreArgs) -> Result<Vec<Value>> {
    let (settings, key) = (at(folder), SealingKey::generate().map_err(Failure::unavailable)?);
    let mut random = fastrand::Rng::with_seed(7);
    let open = || Gallery::create_or_open(&settings, &key, model, args.dim).map_err(gallery_failure);
    let gallery = open()?;
    let people: Result<Vec<_>> = (0..size).map(|n| enrolment(&mut random, model, args.dim, &format!("p{n}"))).collect();
    gallery.enroll_many(people?).map_err(gallery_failure)?;
    let mut compactions = vec![timed(|| gallery.compact().map_err(gallery_failure))?];
    drop(gallery);
    let (mut openings, mut enrolments, mut removals, mut turns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        openings.push(timed(|| open().map(drop))?);
    }
    let gallery = open()?;
    for round in 0..args.rounds {
        let (person, templates) = enrolment(&mut random, model, args.dim, &format!("new-{round}"))?;
        let people = vec![(person, templates)];
        enrolments.push(timed(|| gallery.enroll_many(people).map_err(gallery_failure))?);
    }
    for round in 0..args.rounds {
        let id = id(&format!("new-{round}"))?;
        removals.push(timed(|| gallery.remove(&id).map_err(gallery_failure))?);
    }
    compactions.push(timed(|| gallery.compact_if_due().map(drop).map_err(gallery_failure))?);
    let beside = while_compacting(&gallery, |round| {
        let (person, templates) = enrolment(&mut random, model, args.dim, &format!("beside-{round}"))?;
        gallery.enroll_many(vec![(person, templates)]).map_err(gallery_failure)
    })?;
    let probe = synthetic(&mut random, model, args.dim)?;
    for _ in 0..200 {
        turns.push(timed(|| {
            std::hint::black_box(gallery.snapshot().turned(&probe));
            Ok(())
        })?);
    }
    let row = |name: &str, mut times: Vec<f64>| {
        let quantiles = quantiles(&mut times);
        json!({"name": format!("{name}{where_}"), "n": size, "dim": args.dim, "p50_ms": quantiles["p50"], "p99_ms": quantiles["p99"]})
    };
    let bytes = settings.dir.join("people.gallery").metadata().map_or(0, |metadata| metadata.len());
    Ok(vec![
        row("open", openings),
        row("enrol", enrolments),
        row("enrol while the file is written anew", beside),
        row("remove", removals),
        row("compact", compactions),
        row("turn a probe", turns),
        json!({"name": format!("file{where_}"), "n": size, "dim": args.dim, "mib": round(bytes as f64 / 1048576.0)}),
    ])
}

/// How long each change takes, in milliseconds, while another thread writes the file anew some times over; a change comes every
/// [`PAUSE`], as enrolments do at a busy desk.
fn while_compacting(gallery: &Gallery, mut change: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    let (handle, ear) = stop::pair();
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            let done = (0..COMPACTIONS).try_for_each(|_| gallery.compact());
            handle.stop();
            done.map_err(gallery_failure)
        });
        let mut times = Vec::new();
        while !ear.sleep(PAUSE) {
            let round = times.len();
            times.push(timed(|| change(round))?);
        }
        compacting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|()| times)
    })
}

/// Enrols, removes and compacts without end. Each line is a change that is durable: `+ID`, `-ID`.
fn until_killed(places: &Places, model: &ModelId, dimension: usize) -> Result {
    let context = Context::load(places)?;
    let key = context.sealing_key()?;
    let gallery = Gallery::create_or_open(&context.config.gallery, &key, model, dimension).map_err(gallery_failure)?;
    let mut random = fastrand::Rng::with_seed(gallery.snapshot().generation());
    for number in gallery.snapshot().generation().. {
        let name = format!("k{number}");
        gallery.enroll_many(vec![enrolment(&mut random, model, dimension, &name)?]).map_err(gallery_failure)?;
        say(format!("+{name}"));
        if number % 3 == 0 {
            let snapshot = gallery.snapshot();
            if let Some((person, _)) = snapshot.people().nth(random.usize(..snapshot.stats().people.max(1))) {
                gallery.remove(&person.id).map_err(gallery_failure)?;
                say(format!("-{}", person.id));
            }
        }
        if number % 7 == 0 {
            gallery.compact_if_due().map_err(gallery_failure)?;
        }
    }
    Ok(code::YES)
}

fn at(folder: &Path) -> Settings {
    Settings { dir: folder.join("gallery"), ..Settings::default() }
}

fn id(name: &str) -> Result<PersonId> {
    PersonId::new(name).map_err(|error| Failure::new(code::BUG, error))
}

fn enrolment(random: &mut fastrand::Rng, model: &ModelId, dimension: usize, name: &str) -> Result<(Person, Vec<Embedding>)> {
    let (id, enrolled_at) = (id(name)?, Wall::default());
    let person = Person { id, name: None, groups: Vec::new(), consented_at: None, expires_at: None, enrolled_at };
    Ok((person, vec![synthetic(random, model, dimension)?]))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

impl Scratch {
    /// One in `folder`; none where that is not.
    fn within(folder: &Path) -> Option<Self> {
        let path: PathBuf = folder.join(format!("faceid-{}", uuid::Uuid::now_v7().simple()));
        folder.is_dir().then(|| super::super::run::make_private_folder(&path).ok().map(|()| Self(path)))?
    }
}
