//! `run`, `check` and `keygen`: the daemon and what it needs to start.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::context::{Context, GALLERY_KEY, GRANT_KEY};
use super::{Failure, Places, Result, code, complain, say};
use crate::access::grant::GrantKey;
use crate::config::{self, Config};
use crate::daemon;
use crate::gallery::SealingKey;
use crate::system::{logging, secret};

/// `faceid check`
#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Print the commented default config instead
    #[arg(long)]
    print_default: bool,
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
    logging::init(&context.config.log);
    let exit = daemon::run(context.config, places.config.clone());
    exit.map(|()| code::YES).map_err(|error| Failure::new(error.exit_code(), error))
}

pub(super) fn check(places: &Places, args: &CheckArgs) -> Result {
    if args.print_default {
        say(config::commented_default().trim_end());
        return Ok(code::YES);
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
    let mut made = 0;
    for name in [GALLERY_KEY, GRANT_KEY] {
        let path = folder.join(name);
        if path.exists() && !args.force {
            complain(format!("{}: is there already, kept (--force replaces it)", path.display()));
            continue;
        }
        let seed = if name == GALLERY_KEY { SealingKey::generate_hex() } else { GrantKey::generate_hex() };
        let seed = seed.map_err(|error| Failure::unavailable(format!("the system gives no random bytes: {error}")))?;
        write_private(&path, seed.as_bytes())?;
        made += 1;
        say(format!("{}: made", path.display()));
    }
    if made > 0 {
        say("On a host with systemd 250 or newer, `systemd-creds encrypt` seals them to the machine: see systemd/README.md.");
    }
    let key = daemon::read_grant_key(folder).map_err(|error| Failure::new(code::PERMISSION, error))?;
    say(format!("grant key id {}", key.key_id()));
    let (_, is_credential) = secret::locate(GALLERY_KEY, folder);
    say(if is_credential { "the daemon reads its keys as systemd credentials" } else { "the daemon reads its keys from these files" });
    Ok(code::YES)
}

pub(super) fn make_private_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::new(code::PERMISSION, format!("{}: {error}", folder.display())))
}

/// Writes a secret that only its owner can read, never through a moment when others could.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Failure::new(code::PERMISSION, format!("{}: {error}", path.display()));
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)
}
