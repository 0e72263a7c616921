//! `models`: which packs there are, where their files come from, and whether they are what the manifest says.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, progress, say, say_json};
use crate::inference::manifest::Manifest;
use crate::inference::packs::{self, FileState, Source};
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
                for model in &pack.models {
                    let terms = if model.must_accept { ", terms to accept" } else { "" };
                    say(format!("  {} {}, {} ({}{terms})", model.role, model.id, state(&model.file_state), model.licence));
                    if !model.licence_note.is_empty() {
                        say(format!("    {}", model.licence_note));
                    }
                }
            }
            Ok(code::YES)
        }
        ModelsVerb::Fetch { packs: names, from, accept_licence } => {
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

/// The models of these packs, or of the config's pack when none is named.
fn ids_of(context: &Context, manifest: &Manifest, names: &[String]) -> Result<Vec<ModelId>> {
    let own = std::slice::from_ref(&context.config.models.pack);
    let names = if names.is_empty() { own } else { names };
    let mut ids: Vec<ModelId> = Vec::new();
    for name in names {
        let pack = manifest.pack(name).map_err(Failure::data)?;
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
