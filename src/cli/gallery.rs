//! `gallery`: care for the sealed store.

use super::context::{Context, gallery_failure};
use super::{Failure, Places, Result, code, say, say_json};
use crate::gallery::{Gallery, GalleryError, SealingKey};

/// `faceid gallery …`
#[derive(clap::Subcommand)]
pub(super) enum GalleryVerb {
    /// Check every byte: the key, the seal, the records
    Verify {
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
}

/// The exit code that a gallery's error deserves.
pub(super) fn exit_code(error: &GalleryError) -> u8 {
    match error {
        GalleryError::WrongKey { .. } | GalleryError::ReadOnly { .. } | GalleryError::Key(_) => code::PERMISSION,
        GalleryError::Damaged { .. } | GalleryError::OtherModel { .. } | GalleryError::UnknownVersion { .. } => code::DATA,
        _ => code::UNAVAILABLE,
    }
}

/// The gallery for changing, whatever model it is of: no network is needed to rename or remove a person.
pub(super) fn open_for_care(context: &Context, key: &SealingKey) -> Result<Gallery> {
    let stored = open_for_reading(context, key)?.snapshot().stats();
    Gallery::open_existing(&context.config.gallery, key, &stored.model, stored.dimension).map_err(gallery_failure)
}

/// The gallery for reading, whatever model it is of.
pub(super) fn open_for_reading(context: &Context, key: &SealingKey) -> Result<Gallery> {
    Gallery::open_read_only(&context.config.gallery, key).map_err(gallery_failure)
}

pub(super) fn gallery(places: &Places, verb: &GalleryVerb) -> Result {
    let context = Context::load(places)?;
    let key = context.sealing_key()?;
    match verb {
        GalleryVerb::Verify { json } => {
            let report = Gallery::verify(&context.config.gallery, &key).map_err(gallery_failure)?;
            if *json {
                say_json(&serde_json::to_value(&report).map_err(|error| Failure::new(code::BUG, error))?);
            } else {
                report.warnings.iter().for_each(super::complain);
                let stats = &report.stats;
                let whole = format!("{} people, {} templates of {}", stats.people, stats.templates, stats.model);
                say(format!("{}: every byte is sound: {whole}, {} bytes", report.path.display(), report.bytes));
            }
            Ok(code::YES)
        }
        GalleryVerb::Stats { json } => {
            let stats = open_for_reading(&context, &key)?.snapshot().stats();
            if *json {
                say_json(&serde_json::to_value(&stats).map_err(|error| Failure::new(code::BUG, error))?);
            } else {
                say(format!("{} people, {} templates of {} ({}-D)", stats.people, stats.templates, stats.model, stats.dimension));
            }
            Ok(code::YES)
        }
    }
}
