//! `run`, `check` and `keygen`: the daemon and what it needs to start.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::context::Context;
use super::{Failure, Places, Result, code, complain, credentials, say};
use crate::access::grant::{GrantKey, KeySet};
use crate::config::{self, Config};
use crate::daemon;
use crate::door::{self, DOOR_KEY};
use crate::gallery::SealingKey;
use crate::inference::packs::{self, FileState};
use crate::publish::{STATE_KEY, StateKey};
use crate::system::{logging, secret};
use crate::types::{AreaId, DoorId};

/// `faceid check`
#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Print the commented default config instead
    #[arg(long)]
    print_default: bool,
    /// Only print the names of the secrets that this service reads, one a line: what its unit hands over
    #[arg(long, value_name = "SERVICE", conflicts_with = "print_default")]
    secrets: Option<credentials::Service>,
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
    /// Make the key that commands are signed with, in this file, and print its public half for `operator-keys`; with --public only print
    /// it. Keep it off the device: it commands every device that pins it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["force", "rotate", "retire"])]
    operator: Option<PathBuf>,
    /// Make the key that a door's controller signs passages with, and print its public half for `controller-keys` of the device's config;
    /// with --public only print it
    #[arg(long, conflicts_with_all = ["force", "rotate", "retire", "operator", "snapshots"])]
    door: bool,
    /// Make the key that pictures of `snapshot-on` are opened with, in this file, and print its public half for `snapshot-recipient`; with
    /// --public only print it. Keep it off the device
    #[arg(long, value_name = "FILE", conflicts_with_all = ["force", "rotate", "retire", "operator"])]
    snapshots: Option<PathBuf>,
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
    Context::become_owner_of(&context.config.state_dir)?;
    logging::init(&context.config.log).map_err(|error| Failure::new(code::CONFIG, error))?;
    warn_of_open(&config::path(places.config.as_deref()), &context.config);
    let exit = daemon::run(&context.config, Some(config::path(places.config.as_deref())), args.accept_lost_state);
    exit.map(|()| code::YES).map_err(|error| Failure::new(error.exit_code(), error))
}

/// Puts into the log that the config is open, or that a key which is no device's was handed over.
pub(super) fn warn_of_open(path: &Path, config: &Config) {
    if let Some(warning) = open_config(path, config) {
        log::warn!("config {}: {warning}", path.display());
    }
    for name in credentials::NOT_THE_DEVICES {
        if secret::locate(name, &config.secrets_dir).0.exists() {
            log::warn!(
                "secret {name} lies where this service reads: whoever breaks into it has that key; keep it on another machine"
            );
        }
    }
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
        Ok(config) if args.secrets.is_some() => {
            args.secrets.iter().flat_map(|service| credentials::names(&config, *service)).for_each(say);
            Ok(code::YES)
        }
        Ok(config) => {
            let unusable = unusable_files(&config);
            if !unusable.is_empty() {
                unusable.iter().for_each(|(key, what)| complain(format!("{}: {key}: {what}", path.display())));
                return Ok(code::CONFIG);
            }
            if let Some(warning) = open_config(&path, &config) {
                complain(format!("{}: warning: {warning}", path.display()));
            }
            for (area, door) in config.unheard_passages() {
                say(format!("{}: note: {}", path.display(), unheard_passage(area, door)));
            }
            for (key, warning) in config.warnings() {
                say(format!("{}: warning: {key}: {warning}", path.display()));
            }
            // A controller's config has no camera, and its door needs no networks.
            if let Some(missing) = missing_files(&config).filter(|_| !config.cameras.is_empty()) {
                say(format!("{}: warning: models.pack: {missing}", path.display()));
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

/// Which files of keys and programs that the config names would end a start with the same code: each with its key.
fn unusable_files(config: &Config) -> Vec<(String, String)> {
    let mut unusable = Vec::new();
    let mut note = |key: &str, what: String| {
        unusable.push((key.to_owned(), what.strip_prefix(&format!("{key}: ")).unwrap_or(&what).to_owned()))
    };
    if let Err(error) = daemon::operators(&config.publish) {
        note("publish.operator-keys", error.to_string());
    }
    for (index, keys) in config.doors.iter().enumerate().filter_map(|(index, door)| Some((index, door.controller_keys.as_ref()?))) {
        if let Err(error) = daemon::pinned(&format!("doors.{index}.controller-keys"), keys) {
            note(&format!("doors.{index}.controller-keys"), error.to_string());
        }
    }
    if config.controller.door.is_some() {
        if let Err(error) = door::controller::pinned_keys(&config.controller) {
            note("controller.pinned-keys", error.to_string());
        }
        if let Some(program) = config.controller.missing_program() {
            note("controller.command", format!("there is no program `{program}` that can be run"));
        }
    }
    unusable
}

/// Which files of the pack are not there, by existence and length; `doctor` reads them too.
fn missing_files(config: &Config) -> Option<String> {
    let pack = &config.models.pack;
    let packs = packs::list(&config.manifest().ok()?, &config.models_dir());
    let entry = packs.into_iter().find(|entry| entry.name == *pack && !entry.complete)?;
    let missing = entry.models.iter().filter(|model| model.file_state != FileState::Present);
    let files: Vec<&str> = missing.map(|model| model.file.as_str()).collect();
    Some(format!(
        "pack `{pack}` is not complete in {} ({}), and `run` will not start: run `faceid models fetch {pack}`",
        config.models_dir().display(),
        files.join(", ")
    ))
}

/// What `check`, `doctor` and a start say of a config that everybody may read, or somebody whom its access control list names, though
/// it holds what is nobody's business.
pub(super) fn open_config(path: &Path, config: &Config) -> Option<String> {
    let parts = config.private_parts();
    if parts.is_empty() {
        return None;
    }
    let parts = parts.join(", ");
    if let Some(mode) = config::readable_by_all(path) {
        return Some(format!(
            "mode {mode:03o}: every user of this machine may read what opens doors in it ({parts}); close it with `chmod o-rwx`"
        ));
    }
    let named = config::readable_by_named(path, &config.state_dir);
    (!named.is_empty()).then(|| {
        let named = named.join(" and ");
        format!("its access control list: {named} may read what opens doors in it ({parts}); take the list away with `setfacl -b`")
    })
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
    let devices = [folder.as_path(), context.config.state_dir.as_path()];
    if let Some(file) = &args.snapshots {
        return super::snapshot::make_key(&credentials::away_from_the_device(file, &devices)?, args.public);
    }
    if let Some(file) = &args.operator {
        return make_signer(&credentials::away_from_the_device(file, &devices)?, args.public);
    }
    if args.door {
        make_private_folder(folder)?;
        return make_signer(&folder.join(DOOR_KEY), args.public);
    }
    if args.public {
        say(key_ring(&context.config)?.public().to_jwk_set());
        return Ok(code::YES);
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

/// The name that the key is looked for by that commands are signed with.
pub(super) const OPERATOR_KEY: &str = "operator.key";

/// Makes a key to sign with and prints its public half; with `only_public`, that of the one that is there.
fn make_signer(file: &Path, only_public: bool) -> Result {
    let refused = |error: &dyn std::fmt::Display| Failure::new(code::PERMISSION, error);
    let print = |key: &GrantKey| say(KeySet::new([key.public()]).to_jwk_set());
    make_once(
        file,
        only_public,
        |seed| GrantKey::from_seed(seed).map(|key| print(&key)).map_err(|error| refused(&error)),
        || {
            let key = GrantKey::generate().map_err(|error| refused(&error))?;
            write_private(file, key.seed().as_slice())?;
            print(&key);
            Ok(())
        },
    )
}

/// Makes a key that is not there yet. One that is there is kept and its public half printed by `show` all the same: whoever sent the
/// output into a file has emptied that by now.
pub(super) fn make_once(
    file: &Path,
    only_public: bool,
    show: impl FnOnce(&[u8]) -> Result<()>,
    make: impl FnOnce() -> Result<()>,
) -> Result {
    let absolute = std::path::absolute(file).map_err(|error| Failure::new(code::PERMISSION, error))?;
    if !only_public && file.symlink_metadata().is_err() {
        return make().map(|()| code::YES);
    }
    let key = secret::read(&absolute.to_string_lossy(), Path::new("/")).map_err(|error| Failure::new(code::PERMISSION, error))?;
    show(&key)?;
    if only_public {
        return Ok(code::YES);
    }
    let text = format!("{}: is there already and was kept; this is its public half (--public prints it, too)", file.display());
    Err(Failure::new(code::PERMISSION, text))
}

pub(super) fn key_ring(config: &Config) -> Result<daemon::KeyRing> {
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
