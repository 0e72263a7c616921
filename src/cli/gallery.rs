//! `gallery`: care for the sealed store.

mod backup;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::context::{Context, gallery_failure};
use super::editor::Editor;
use super::{Failure, Places, Result, code, progress, say, say_json};
use crate::gallery::{Gallery, GalleryError, Report, SealingKey};
use crate::types::Score;

/// `faceid gallery …`
#[derive(clap::Subcommand)]
pub(super) enum GalleryVerb {
    /// Check every byte: the key, the seal, the records, the journal, the age; say what is lost and what is not
    Verify {
        /// Take the state that is there for the right one, after it was found to be older than it was
        #[arg(long)]
        accept_rollback: bool,
        /// Compare every template with all others and name those that are a risk: near somebody else, or unlike the person's own
        #[arg(long)]
        people: bool,
        /// The comparison score at which two templates count as alike [default: the pack's]
        #[arg(long, value_name = "T", requires = "people", allow_negative_numbers = true)]
        threshold: Option<f32>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// How many people and templates there are, of which model
    Stats {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the gallery anew under a new data key: nothing that was removed can be opened from then on
    Compact {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Renew keys: the data key always
    Rekey {
        /// Renew the rotation of the templates too: templates that leaked before match nothing from then on
        #[arg(long)]
        rotate: bool,
        /// Seal under the key in this file from now on; a key is made there when there is none
        #[arg(long, value_name = "FILE")]
        new_key: Option<PathBuf>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write everybody to one file, sealed in age's format; whoever is removed later stays in it, so make it anew after a removal
    Backup(backup::BackupArgs),
    /// Put a backup back: into an empty gallery, or over the people of one when told to
    Restore(backup::RestoreArgs),
    /// Make a key pair for backups: the identity into a file that is kept away from the device, the public key onto the screen
    BackupKey {
        /// Where the identity goes, mode 0600; a file that is there is not replaced
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// The gallery for changing, whatever model it is of: no network is needed to rename or remove a person.
pub(super) fn open_for_care(context: &Context, key: &SealingKey) -> Result<Editor> {
    Editor::open(context, key, None)
}

/// The gallery for reading, whatever model it is of.
pub(super) fn open_for_reading(context: &Context, key: &SealingKey) -> Result<Gallery> {
    Gallery::open_read_only(&context.config.gallery, key).map_err(gallery_failure)
}

pub(super) fn gallery(places: &Places, verb: &GalleryVerb) -> Result {
    let context = Context::load(places)?;
    if let GalleryVerb::BackupKey { file } = verb {
        return backup::make_key(file, &[&context.config.secrets_dir, &context.config.state_dir]);
    }
    let key = context.sealing_key()?;
    match verb {
        GalleryVerb::Verify { people: true, threshold, json, .. } => risks(&context, &key, *threshold, *json),
        GalleryVerb::Verify { accept_rollback, json, .. } => {
            if *accept_rollback {
                open_for_care(&context, &key)?.accept_rollback()?;
            }
            verify(&context, &key, *json)
        }
        GalleryVerb::Stats { json } => {
            let report = Gallery::verify(&context.config.gallery, &key).map_err(gallery_failure)?;
            let stats = &report.stats;
            let text = format!("{} people, {} templates of {} ({}-D)", stats.people, stats.templates, stats.model, stats.dimension);
            tell(*json, report_json(&report), text)
        }
        GalleryVerb::Compact { json } => {
            open_for_care(&context, &key)?.compact()?;
            tell(*json, json!({"compacted": true}), "written anew under a new data key")
        }
        GalleryVerb::Rekey { rotate, new_key, json } => rekey(&context, &key, *rotate, new_key.as_deref(), *json),
        GalleryVerb::Backup(args) => backup::backup(&context, &key, args),
        GalleryVerb::Restore(args) => backup::restore(&context, &key, args),
        GalleryVerb::BackupKey { .. } => Ok(code::YES),
    }
}

fn tell(json: bool, value: Value, text: impl std::fmt::Display) -> Result {
    if json {
        say_json(&value);
    } else {
        say(text);
    }
    Ok(code::YES)
}

fn report_json(report: &Report) -> Value {
    serde_json::to_value(report).unwrap_or(Value::Null)
}

/// Every template against all others; exit code 1 when one is a risk.
fn risks(context: &Context, key: &SealingKey, threshold: Option<f32>, json: bool) -> Result {
    let snapshot = open_for_reading(context, key)?.snapshot();
    let threshold = match threshold {
        Some(value) => Score::new(value).map_err(|error| Failure::new(code::USAGE, format!("--threshold: {error}")))?,
        None => context.match_threshold(snapshot.model())?,
    };
    let bar = progress(snapshot.stats().templates as u64, "templates");
    let found = snapshot.risks(threshold, |done, _| {
        bar.set_position(done as u64);
        true
    });
    bar.finish_and_clear();
    let found = found.unwrap_or_default();
    if json {
        say_json(&json!({"threshold": threshold.value(), "risks": found}));
    } else {
        for risk in &found {
            let shown = |score: Option<Score>| score.map_or("-".to_owned(), |score| format!("{:.3}", score.value()));
            let kinds: Vec<String> = risk.kinds.iter().map(|kind| format!("{kind:?}")).collect();
            let other = risk.nearest.as_ref().map_or("-", |id| id.as_str());
            say(format!(
                "{} template {}: {} (own {}, nearest other {other} {})",
                risk.person,
                risk.template,
                kinds.join(", "),
                shown(risk.own),
                shown(risk.other)
            ));
        }
        say(format!("{} of {} templates are a risk at {:.3}", found.len(), snapshot.stats().templates, threshold.value()));
    }
    Ok(u8::from(!found.is_empty()))
}

fn verify(context: &Context, key: &SealingKey, json: bool) -> Result {
    let settings = &context.config.gallery;
    let report = match Gallery::verify(settings, key) {
        Ok(report) => report,
        Err(error @ GalleryError::Damaged { .. }) => return Err(damaged(context, key, error)),
        Err(error) => return Err(gallery_failure(error)),
    };
    let is_newest = report.rollback.is_none();
    let mut report = report;
    // What is told below already is no warning besides.
    report.warnings.extend(super::editor::why_read_only(&context.config.state_dir).filter(|_| is_newest));
    if json {
        say_json(&report_json(&report));
    } else {
        report.warnings.iter().for_each(super::complain);
        report.lost.iter().for_each(|what| super::complain(format!("lost: {what}")));
        let stats = &report.stats;
        let whole = format!("{} people, {} templates of {}", stats.people, stats.templates, stats.model);
        match &report.rollback {
            None => say(format!("{}: every byte is sound: {whole}, {} bytes", report.path.display(), report.bytes)),
            Some(rollback) => super::complain(format!(
                "{}: {rollback}; what is there: {whole}; nothing is granted until this is accepted with --accept-rollback",
                report.path.display()
            )),
        }
    }
    Ok(if is_newest { code::YES } else { code::NO })
}

/// A damaged file's error with what can still be read of it.
fn damaged(context: &Context, key: &SealingKey, error: GalleryError) -> Failure {
    let exit = error.exit_code();
    match Gallery::examine(&context.config.gallery, key) {
        Ok((people, templates, lost)) => {
            let text = format!(
                "{error}\nreadable: {people} people with {templates} templates\nlost: {}",
                if lost.is_empty() { "nothing that can be told".to_owned() } else { lost.join("; ") }
            );
            Failure::new(exit, text)
        }
        Err(_) => Failure::new(exit, format!("{error}\nlost: everybody, the header cannot be opened")),
    }
}

fn rekey(context: &Context, key: &SealingKey, rotate: bool, new_key: Option<&Path>, json: bool) -> Result {
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let new = match new_key {
        None => None,
        Some(path) => {
            let absolute = std::path::absolute(path).map_err(|error| refused(&error))?;
            if !absolute.exists() {
                SealingKey::generate().and_then(|key| key.write_new(&absolute)).map_err(|error| refused(&error))?;
            }
            Some(SealingKey::read(&absolute.to_string_lossy(), Path::new("/")).map_err(|error| refused(&error))?)
        }
    };
    // Afterwards, because the gallery's owner may not write where keys lie.
    let editor = open_for_care(context, key)?;
    editor.rekey(new.as_ref(), rotate)?;
    let rotated = if rotate { ", the templates are turned anew" } else { "" };
    let text = match new_key {
        None => format!("sealed under a new data key{rotated}"),
        Some(path) => format!(
            "sealed under the key in {path}{rotated}; the old key opens it no longer: put the new one in its place ({name})",
            path = path.display(),
            name = context.config.gallery.key
        ),
    };
    tell(json, json!({"rekeyed": true, "rotated": rotate, "new_key": new_key}), text)
}
