//! `models`: which packs there are, where their files come from, and whether they are what the manifest says.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, progress, say, say_json};
use crate::inference::packs::{self, FetchFrom};

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
    let chosen = |packs: &Vec<String>| if packs.is_empty() { vec![context.config.models.pack.clone()] } else { packs.clone() };
    match verb {
        ModelsVerb::List { json: as_json } => {
            let listing = packs::list(&manifest, &dir);
            if *as_json {
                say_json(&serde_json::to_value(&listing).map_err(|error| Failure::new(code::BUG, error))?);
                return Ok(code::YES);
            }
            say(format!("models in {}", dir.display()));
            for pack in &listing.packs {
                let mark = if pack.present { "ready" } else { "not fetched" };
                say(format!("pack {} ({mark}): {}", pack.name, pack.about));
                for model in &pack.models {
                    let mark = if model.present { "ready" } else { "missing" };
                    say(format!("  {} ({mark}, {}, {})", model.id, model.file, model.licence));
                    if !model.note.is_empty() {
                        say(format!("    {}", model.note));
                    }
                }
            }
            Ok(code::YES)
        }
        ModelsVerb::Fetch { packs: names, from, accept_licence } => {
            for name in chosen(names) {
                let bar = progress(0, "bytes");
                let source = from.as_ref().map_or(FetchFrom::Origin, |folder| FetchFrom::Folder(folder.clone()));
                let fetched = packs::fetch(&manifest, &name, &dir, &source, *accept_licence, &mut |file, done, total| {
                    bar.set_message(file.to_owned());
                    bar.set_length(total);
                    bar.set_position(done);
                });
                bar.finish_and_clear();
                let fetched = fetched.map_err(Failure::unavailable)?;
                say(format!("pack {name}: {} file(s) ready in {}", fetched.len(), dir.display()));
            }
            Ok(code::YES)
        }
        ModelsVerb::Verify { packs: names } => {
            let mut sound = true;
            for name in chosen(names) {
                let rows: Vec<(String, Option<String>)> = packs::verify(&manifest, &name, &dir).map_err(Failure::data)?;
                for (file, fault) in rows {
                    match fault {
                        None => say(format!("{file}: as pinned")),
                        Some(fault) => {
                            sound = false;
                            complain(fault);
                        }
                    }
                }
            }
            Ok(if sound { code::YES } else { code::DATA })
        }
    }
}

/// Models with what runs them, as `birth` and `doctor` show it.
pub(super) fn providers_json(providers: &[(crate::types::ModelId, String)]) -> Value {
    providers.iter().map(|(model, provider)| json!({"model": model, "provider": provider})).collect()
}
