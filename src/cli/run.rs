//! `run`, `check` and `keygen`: the daemon and what it needs to start.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, say};
use crate::access::grant::GrantKey;
use crate::config::{self, Config};
use crate::daemon;
use crate::gallery::SealingKey;
use crate::system::logging;

/// `faceid check`
#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Print the commented default config instead
    #[arg(long)]
    print_default: bool,
    #[command(flatten)]
    explain: super::explain::ExplainArgs,
}

/// `faceid keygen`
#[derive(clap::Args)]
pub(super) struct KeygenArgs {
    /// Replace keys that are there: the gallery sealed under the old key is lost without it
    #[arg(long)]
    force: bool,
}

pub(super) fn run(places: &Places) -> Result {
    let context = Context::load(places)?;
    logging::init(&context.config.log).map_err(|error| Failure::new(code::CONFIG, error))?;
    let exit = daemon::run(&context.config, Some(config::path(places.config.as_deref())));
    exit.map(|()| code::YES).map_err(|error| Failure::new(error.exit_code(), error))
}

pub(super) fn check(places: &Places, args: &CheckArgs) -> Result {
    if args.print_default {
        say(config::commented_default().trim_end());
        return Ok(code::YES);
    }
    if args.explain.is_asked() {
        return super::explain::explain(&Context::load(places)?, &args.explain);
    }
    let path = places.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
    match Config::load(&path) {
        Ok(_) => {
            say(format!("{}: no findings", path.display()));
            Ok(code::YES)
        }
        Err(error) => {
            for finding in error.to_string().lines() {
                complain(finding);
            }
            Ok(code::CONFIG)
        }
    }
}

pub(super) fn keygen(places: &Places, args: &KeygenArgs) -> Result {
    let context = Context::load(places)?;
    let folder = &context.config.secrets_dir;
    make_private_folder(folder)?;
    make_keys(&context.config, args.force)?.iter().for_each(say);
    let key = daemon::read_grant_key(folder).map_err(|error| Failure::new(code::PERMISSION, error))?;
    say(format!("grant key id {}", key.kid()));
    say("Where systemd is 250 or newer, `systemd-creds encrypt` seals both to the machine: see systemd/README.md.");
    Ok(code::YES)
}

/// Makes the keys that are missing, or all of them with `force`. Gives a line a key.
pub(super) fn make_keys(config: &Config, force: bool) -> Result<Vec<String>> {
    let folder = &config.secrets_dir;
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let mut lines = Vec::new();
    for name in [config.gallery.key.as_str(), daemon::GRANT_KEY] {
        let path = folder.join(name);
        if path.exists() && !force {
            lines.push(format!("{}: is there already, kept (--force replaces it)", path.display()));
            continue;
        }
        if path.exists() {
            std::fs::remove_file(&path).map_err(|error| refused(&format!("{}: {error}", path.display())))?;
        }
        if name == daemon::GRANT_KEY {
            let key = GrantKey::generate().map_err(|error| refused(&error))?;
            write_private(&path, key.seed().as_slice())?;
        } else {
            SealingKey::generate().and_then(|key| key.write_new(&path)).map_err(|error| refused(&error))?;
        }
        lines.push(format!("{}: made", path.display()));
    }
    Ok(lines)
}

pub(super) fn make_private_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::new(code::PERMISSION, format!("{}: {error}", folder.display())))
}

/// Writes a new secret that only its owner can read, never through a moment when others could.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Failure::new(code::PERMISSION, format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fail)
}
