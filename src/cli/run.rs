//! `run`, `check` and `keygen`: the daemon and what it needs to start.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, say};
use crate::access::grant::{GrantKey, KeySet};
use crate::config::{self, Config};
use crate::daemon;
use crate::door::DOOR_KEY;
use crate::gallery::SealingKey;
use crate::publish::{STATE_KEY, StateKey};
use crate::system::logging;
use crate::types::{AreaId, DoorId};

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
    /// Make a new grant-signing key and keep the old one to vouch for it, so that controllers learn the new one by themselves
    #[arg(long, conflicts_with_all = ["force", "retire", "public"])]
    rotate: bool,
    /// End a rotation: remove the old grant-signing key. Controllers that have not pinned the new key by now must be told of it
    #[arg(long, conflicts_with_all = ["force", "public"])]
    retire: bool,
    /// Make the key that commands are signed with, and print its public half for `operator-keys`
    #[arg(long, conflicts_with_all = ["force", "rotate", "retire", "public"])]
    operator: bool,
    /// Make the key that a door's controller signs passages with, and print its public half for `controller-keys` of the device's config
    #[arg(long, conflicts_with_all = ["force", "rotate", "retire", "public", "operator", "snapshots"])]
    door: bool,
    /// Make the key that pictures of `snapshot-on` are opened with, and print its public half for `snapshot-recipient`. Keep it off the device
    #[arg(long, conflicts_with_all = ["force", "rotate", "retire", "public", "operator"])]
    snapshots: bool,
    /// Only print the public keys, a JWK set that controllers pin
    #[arg(long, conflicts_with = "force")]
    public: bool,
}

/// `faceid run`
#[derive(clap::Args)]
pub(super) struct RunArgs {
    /// Begin with an empty memory of blocks, places and lock-downs where the kept one is lost or was changed, instead of locking every door down
    #[arg(long)]
    accept_lost_state: bool,
}

pub(super) fn run(places: &Places, args: &RunArgs) -> Result {
    let context = Context::load(places)?;
    logging::init(&context.config.log).map_err(|error| Failure::new(code::CONFIG, error))?;
    let exit = daemon::run(&context.config, Some(config::path(places.config.as_deref())), args.accept_lost_state);
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
        Ok(config) => {
            for (area, door) in config.unheard_passages() {
                say(format!("{}: note: {}", path.display(), unheard_passage(area, door)));
            }
            for (key, warning) in config.warnings() {
                say(format!("{}: warning: {key}: {warning}", path.display()));
            }
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

/// What `check` and `doctor` say of a door whose passages are not believed.
pub(super) fn unheard_passage(area: &AreaId, door: &DoorId) -> String {
    format!(
        "area `{area}` counts passages, and door `{door}` pins no controller-keys: what its controller says is refused, and every grant counts"
    )
}

pub(super) fn keygen(places: &Places, args: &KeygenArgs) -> Result {
    let context = Context::load(places)?;
    let folder = &context.config.secrets_dir;
    if args.public {
        say(key_ring(&context.config)?.public().to_jwk_set());
        return Ok(code::YES);
    }
    if args.snapshots {
        return super::snapshot::make_key(folder);
    }
    if args.operator {
        return make_signer(&context.config, OPERATOR_KEY);
    }
    if args.door {
        return make_signer(&context.config, DOOR_KEY);
    }
    if args.rotate || args.retire {
        return rotate(&context.config, args.retire);
    }
    make_private_folder(folder)?;
    make_keys(&context.config, args.force)?.iter().for_each(say);
    let key = daemon::read_grant_key(folder).map_err(|error| Failure::new(code::PERMISSION, error))?;
    say(format!("grant key id {}", key.kid()));
    say("Where systemd is 250 or newer, `systemd-creds encrypt` seals both to the machine: see systemd/README.md.");
    Ok(code::YES)
}

/// The name of the key that commands are signed with among the operator's secrets.
pub(super) const OPERATOR_KEY: &str = "operator.key";

/// Makes a key to sign with and prints its public half.
fn make_signer(config: &Config, name: &str) -> Result {
    make_private_folder(&config.secrets_dir)?;
    let key = GrantKey::generate().map_err(|error| Failure::new(code::PERMISSION, error))?;
    write_private(&config.secrets_dir.join(name), key.seed().as_slice())?;
    say(KeySet::new([key.public()]).to_jwk_set());
    Ok(code::YES)
}

fn key_ring(config: &Config) -> Result<daemon::KeyRing> {
    daemon::KeyRing::read(&config.device, &config.secrets_dir).map_err(|error| Failure::new(code::PERMISSION, error))
}

/// Begins or ends a rotation of the grant-signing key. The daemon takes either up with a restart.
fn rotate(config: &Config, retire: bool) -> Result {
    let (current, old) = (config.secrets_dir.join(daemon::GRANT_KEY), config.secrets_dir.join(daemon::OLD_GRANT_KEY));
    let failed = |path: &Path, error: std::io::Error| Failure::new(code::PERMISSION, format!("{}: {error}", path.display()));
    if retire {
        std::fs::remove_file(&old).map_err(|error| failed(&old, error))?;
        say(format!("{}: removed; restart the daemon", old.display()));
        return Ok(code::YES);
    }
    key_ring(config)?;
    if old.exists() {
        let text = format!("{}: a rotation is under way already; --retire ends it", old.display());
        return Err(Failure::new(code::PERMISSION, text));
    }
    std::fs::rename(&current, &old).map_err(|error| failed(&current, error))?;
    make_keys(config, false)?.iter().for_each(say);
    say(format!("grant key id {}", key_ring(config)?.public().kids().next().unwrap_or("-")));
    say("Restart the daemon. It signs with the new key; controllers that pin the old one learn it for as long as both are here.");
    Ok(code::YES)
}

/// Makes the keys that are missing, or all of them with `force`. Gives a line a key.
pub(super) fn make_keys(config: &Config, force: bool) -> Result<Vec<String>> {
    let folder = &config.secrets_dir;
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let mut lines = Vec::new();
    for name in [config.gallery.key.as_str(), daemon::GRANT_KEY, STATE_KEY] {
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
        } else if name == STATE_KEY {
            let key = StateKey::generate().map_err(|error| refused(&error))?;
            write_private(&path, key.to_line().as_bytes())?;
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
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Failure::new(code::PERMISSION, format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fail)
}
