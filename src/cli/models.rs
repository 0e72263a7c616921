//! `models`: which packs there are, where their files come from, and whether they are what the manifest says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, progress, say, say_json};
use crate::inference::manifest::Manifest;
use crate::inference::packs::{self, FileState, Source};
use crate::inference::{self, EngineState};
use crate::system::{process, stop};
use crate::types::ModelId;

/// `faceid models …`
#[derive(clap::Subcommand)]
pub(super) enum ModelsVerb {
    /// Packs and models, with licence and whether the files are there
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Bring a pack's files, each checked against its pinned hash
    Fetch {
        /// The packs [default: the config's]
        packs: Vec<String>,
        /// Take the files from this folder instead of from their origin
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
        /// I have read and accept the terms that `models list` shows
        #[arg(long)]
        accept_licence: bool,
    },
    /// Check the files that are there
    Verify {
        /// The packs [default: the config's]
        packs: Vec<String>,
    },
    /// Time each network of a pack by itself, on pictures that are always the same
    Bench(BenchArgs),
}

/// `faceid models bench`
#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// The packs [default: the config's]
    packs: Vec<String>,
    /// Runs of each network, after a tenth as many that are not counted
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn models(places: &Places, verb: &ModelsVerb) -> Result {
    let context = Context::load(places)?;
    let manifest = context.manifest()?;
    let dir = context.models_dir();
    match verb {
        ModelsVerb::List { json } => {
            let packs = packs::list(&manifest, &dir);
            if *json {
                say_json(&serde_json::to_value(&packs).map_err(|error| Failure::new(code::BUG, error))?);
                return Ok(code::YES);
            }
            say(format!("models in {}", dir.display()));
            for pack in &packs {
                let mark = if pack.complete { "ready" } else { "not fetched" };
                say(format!("pack {} ({mark}): {}", pack.name, pack.about));
                for model in pack.models.iter().chain(&pack.int8) {
                    let terms = if model.must_accept { ", terms to accept" } else { "" };
                    let role = if model.int8 { format!("INT8 {}", model.role) } else { model.role.to_owned() };
                    say(format!("  {role} {}, {} ({}{terms})", model.id, state(&model.file_state), model.licence));
                    if !model.licence_note.is_empty() {
                        say(format!("    {}", model.licence_note));
                    }
                }
            }
            Ok(code::YES)
        }
        ModelsVerb::Fetch { packs: names, from, accept_licence } => {
            Context::become_owner_of(&dir)?;
            let source = from.as_ref().map_or(Source::Upstream, |folder| Source::Folder(folder.clone()));
            let ids = ids_of(&context, &manifest, names)?;
            let bar = progress(0, "bytes");
            let fetched = packs::fetch(&manifest, &ids, &dir, &source, *accept_licence, &mut |progress| {
                bar.set_message(progress.model.to_string());
                bar.set_length(progress.total.unwrap_or(progress.done));
                bar.set_position(progress.done);
            });
            bar.finish_and_clear();
            let fetched = fetched.map_err(Failure::unavailable)?;
            say(format!("{} file(s) ready in {}", fetched.len(), dir.display()));
            Ok(code::YES)
        }
        ModelsVerb::Bench(args) => bench(&context, &manifest, args),
        ModelsVerb::Verify { packs: names } => {
            let mut sound = true;
            let ids = ids_of(&context, &manifest, names)?;
            for entry in packs::verify(&manifest, &ids, &dir).map_err(Failure::data)? {
                sound &= entry.file_state == FileState::Present;
                let line = format!("{}: {}", entry.file, state(&entry.file_state));
                if entry.file_state == FileState::Present { say(line) } else { complain(line) }
            }
            Ok(if sound { code::YES } else { code::DATA })
        }
    }
}

/// One network's times.
struct Timed {
    id: ModelId,
    provider: String,
    fallback: Option<String>,
    load: Duration,
    /// Of one run, sorted.
    wall: Vec<Duration>,
    cpu: Duration,
}

fn bench(context: &Context, manifest: &Manifest, args: &BenchArgs) -> Result {
    let mut rows = Vec::new();
    for id in ids_of(context, manifest, &args.packs)? {
        rows.push(time(context, manifest, id, args.runs)?);
    }
    let quantile = |row: &Timed, percent: usize| row.wall[(row.wall.len() * percent).div_ceil(100).max(1) - 1].as_micros() as u64;
    let per_run = |row: &Timed| row.cpu.as_micros() as u64 / row.wall.len() as u64;
    if args.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.id, "n": row.wall.len(), "p50_us": quantile(row, 50), "p99_us": quantile(row, 99),
                    "cpu_us": per_run(row), "load_ms": row.load.as_millis() as u64, "provider": row.provider, "fallback": row.fallback,
                })
            })
            .collect();
        say_json(&json!({"precision": context.config.inference.precision, "rows": rows}));
        return Ok(code::YES);
    }
    for row in &rows {
        say(format!(
            "{:<24} {:<12} p50 {:>7} us, p99 {:>7} us, {:>7} us of CPU a run, loaded in {} ms",
            row.id,
            row.provider,
            quantile(row, 50),
            quantile(row, 99),
            per_run(row),
            row.load.as_millis()
        ));
        if let Some(reason) = &row.fallback {
            say(format!("  not on the first choice: {reason}"));
        }
    }
    Ok(code::YES)
}

fn time(context: &Context, manifest: &Manifest, id: ModelId, runs: u32) -> Result<Timed> {
    let model = manifest.model(&id).map_err(Failure::data)?;
    let began = Instant::now();
    let mut network =
        inference::open(&context.config.inference, &id, model, &context.models_dir()).map_err(Failure::unavailable)?;
    let load = began.elapsed();
    let inputs = inference::fixed_set(model);
    // An engine takes over between two runs, once it is built.
    let (_handle, ear) = stop::pair();
    while inference::engines().iter().any(|engine| engine.state == EngineState::Building) {
        ear.sleep(Duration::from_millis(100));
    }
    let mut run = |input| network.run(input).map_err(Failure::unavailable);
    for input in inputs.iter().cycle().take(runs as usize / 10 + 1) {
        run(input)?;
    }
    let (mut wall, before) = (Vec::with_capacity(runs as usize), process::cpu_time());
    for input in inputs.iter().cycle().take(runs as usize) {
        let began = Instant::now();
        run(input)?;
        wall.push(began.elapsed());
    }
    let cpu = process::cpu_time().saturating_sub(before);
    wall.sort_unstable();
    Ok(Timed { provider: network.provider().to_owned(), fallback: network.fallback().map(str::to_owned), id, load, wall, cpu })
}

/// The models of these packs as they are run at the config's precision, or of the config's pack when none is named.
fn ids_of(context: &Context, manifest: &Manifest, names: &[String]) -> Result<Vec<ModelId>> {
    let own = std::slice::from_ref(&context.config.models.pack);
    let names = if names.is_empty() { own } else { names };
    let mut ids: Vec<ModelId> = Vec::new();
    for name in names {
        let pack = manifest.pack_at(name, context.config.inference.precision).map_err(Failure::data)?;
        ids.extend(pack.models().cloned());
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

fn state(state: &FileState) -> String {
    match state {
        FileState::Present => "ready".to_owned(),
        FileState::Missing => "missing".to_owned(),
        FileState::Unpinned => "no hash is pinned for it".to_owned(),
        FileState::Wrong { reason } => format!("wrong: {reason}"),
    }
}

/// Models with what runs them, as `birth` and `doctor` show it.
pub(super) fn providers_json(providers: &[(ModelId, String)]) -> Value {
    providers.iter().map(|(model, provider)| json!({"model": model, "provider": provider})).collect()
}
