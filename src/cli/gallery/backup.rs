//! `gallery backup`, `restore` and `backup-key`: the sealed copy that leaves the device.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::editor::Editor;
use super::super::{Failure, Result, code, complain, say};
use super::{open_for_reading, tell};
use crate::access::grant::{BackupClaim, KeySet, MAX_JWK_SET_BYTES};
use crate::daemon::restoring::{self, Origin, Trust};
use crate::daemon::{KeyRing, read_grant_key};
use crate::door::controller::pinned_keys;
use crate::gallery::{Backup, BackupError, Identity, Lock, Recipient, SealingKey, Signer, Unlock};
use crate::system::{clock, secret};
use crate::types::PersonId;

/// `faceid gallery backup`
#[derive(clap::Args)]
pub(in crate::cli) struct BackupArgs {
    /// Where it goes: not into the state folder
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Seal it to this public key (`age1…`); can be given again. Without it a passphrase is asked for
    #[arg(long = "recipient", value_name = "KEY")]
    recipients: Vec<String>,
    /// Read the passphrase from a secret: a systemd credential, a file of mode 0600 in the secrets folder, or an absolute path
    #[arg(long, value_name = "NAME", conflicts_with = "recipients")]
    passphrase: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `faceid gallery restore`
#[derive(clap::Args)]
pub(in crate::cli) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Open it with the identities in this secret (see --passphrase). Without it a passphrase is asked for
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Read the passphrase from a secret: a systemd credential, a file of mode 0600 in the secrets folder, or an absolute path
    #[arg(long, value_name = "NAME", conflicts_with = "identity")]
    passphrase: Option<String>,
    /// Put it in the place of the people who are enrolled: whoever is not in the backup is gone then
    #[arg(long)]
    replace: bool,
    /// Believe what these keys signed too: a JWK set, as another device or this one with an earlier key published it; can be given again
    #[arg(long = "keys", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Put it back although nothing tells that this device made it: anybody who knows the public key can have made it
    #[arg(long, conflicts_with = "keys")]
    unsigned: bool,
    /// Accept first that the gallery is gone or older than it was
    #[arg(long)]
    accept_rollback: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn backup(context: &Context, key: &SealingKey, args: &BackupArgs) -> Result {
    let refused = |error: BackupError| Failure::new(error.exit_code(), error);
    let lock = match (&args.recipients[..], &args.passphrase) {
        ([], Some(name)) => Lock::Passphrase(read_passphrase(context, name)?),
        ([], None) => Lock::Passphrase(ask(true)?),
        (recipients, _) => {
            let parse = |text: &String| text.parse::<Recipient>().map_err(Failure::data);
            Lock::Recipients(recipients.iter().map(parse).collect::<Result<_>>()?)
        }
    };
    let gallery = open_for_reading(context, key)?;
    if let Some(rollback) = gallery.rollback() {
        let what =
            format!("{rollback}; an older state is not backed up: accept it first with `faceid gallery verify --accept-rollback`");
        return Err(Failure::unavailable(what));
    }
    let config = &context.config;
    let kept_out = [config.state_dir.as_path(), config.gallery.dir.as_path()];
    let now = clock::wall();
    let grant_key = read_grant_key(&config.secrets_dir);
    if let Err(error) = &grant_key {
        complain(format!("the backup is not signed, and comes back with --unsigned only: {error}"));
    }
    let sign = |digest: &[u8; 32]| {
        let claim = BackupClaim { iss: config.device.clone(), iat: now.unix_seconds(), digest: restoring::hex(digest) };
        grant_key.as_ref().map(|key| key.sign_backup(&claim)).unwrap_or_default()
    };
    let signed = grant_key.is_ok();
    let signer: Option<Signer<'_>> = if signed { Some(&sign) } else { None };
    let stats = gallery.back_up(&args.file, &lock, now, (&kept_out, args.overwrite), signer).map_err(refused)?;
    let value = json!({
        "file": args.file, "people": stats.people, "templates": stats.templates, "epoch": stats.generation, "signed": signed,
    });
    let text = format!(
        "{}: {} people with {} templates as of change {}; whoever is removed later stays in it: make it anew then, and destroy this one",
        args.file.display(),
        stats.people,
        stats.templates,
        stats.generation
    );
    tell(args.json, value, text)
}

pub(super) fn restore(context: &Context, key: &SealingKey, args: &RestoreArgs) -> Result {
    let refused = |error: BackupError| Failure::new(error.exit_code(), format!("{}: {error}", args.file.display()));
    let opened = File::open(&args.file);
    let file = opened.map_err(|error| Failure::unavailable(format!("{}: {error}", args.file.display())))?;
    let unlock = match (&args.identity, &args.passphrase) {
        (Some(name), _) => {
            let bytes = secret::read(name, &context.config.secrets_dir).map_err(permission)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| Failure::data("the identity file is no text"))?;
            Unlock::Identities(Identity::all_of(text).map_err(Failure::data)?)
        }
        (None, Some(name)) => Unlock::Passphrase(read_passphrase(context, name)?),
        (None, None) => Unlock::Passphrase(ask(false)?),
    };
    let backup = Backup::open(BufReader::with_capacity(1 << 20, file), &unlock).map_err(refused)?;
    let (made_at, epoch, (people, templates)) = (backup.made_at(), backup.epoch(), backup.counts());
    // Whose it is, before the gallery is even opened.
    let trust = trust(context, args)?;
    let own =
        KeyRing::read(&context.config.device, &context.config.secrets_dir).map_or_else(|_| KeySet::default(), |ring| ring.public());
    let origin = restoring::judge(&backup, &own, &trust);
    let origin = origin.map_err(|error| Failure::new(restoring::NOT_BELIEVED, format!("{}: {error}", args.file.display())))?;
    let whose = match &origin {
        Origin::Signed(device) => format!("made by device {device}, by its signature"),
        Origin::Unknown => "and nothing tells who made it".to_owned(),
    };
    complain(format!("the backup is of {} (change {epoch}), {whose}", made_at.rfc3339()));
    let (model, dimension) = backup.model();
    let editor = Editor::open(context, key, Some((model, dimension)))?;
    if args.accept_rollback {
        editor.accept_rollback()?;
    }
    let difference = backup.against(&editor.snapshot());
    let tell_of = |what: &str, ids: &[PersonId]| {
        if !ids.is_empty() {
            complain(format!("{what}: {}", ids.iter().map(PersonId::as_str).collect::<Vec<_>>().join(", ")));
        }
    };
    tell_of("these people are in the backup and are not enrolled now", &difference.back);
    tell_of("these people have other templates in the backup than now", &difference.other_templates);
    tell_of("these people are enrolled now and are not in the backup", &difference.gone);
    editor.restore(backup, (&origin, trust), args.replace)?;
    let device = match &origin {
        Origin::Signed(device) => Some(device),
        Origin::Unknown => None,
    };
    let value = json!({
        "restored": true, "people": people, "templates": templates, "made_at": made_at.rfc3339(), "epoch": epoch, "signed_by": device,
        "back": difference.back, "other_templates": difference.other_templates, "gone": difference.gone,
    });
    let text = format!(
        "{people} people with {templates} templates are back as they were on {} (change {epoch}), {whose}",
        made_at.rfc3339()
    );
    tell(args.json, value, text)
}

/// Whose backups are believed: the device's own besides those of the keys that are pinned and given here.
fn trust(context: &Context, args: &RestoreArgs) -> Result<Trust> {
    if args.unsigned {
        return Ok(Trust::Anything);
    }
    let mut more = Vec::new();
    if context.config.controller.pinned_keys.is_some() {
        more.push(pinned_keys(&context.config.controller).map_err(Failure::unavailable)?.to_jwk_set());
    }
    for path in &args.keys {
        let failed = |error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(MAX_JWK_SET_BYTES as u64 + 1).read_to_string(&mut text)).map_err(failed)?;
        KeySet::from_jwk_set(&text).map_err(|error| Failure::data(format!("{}: {error}", path.display())))?;
        more.push(text);
    }
    Ok(Trust::Signed { more })
}

/// A new identity in a file, its public key on the screen.
pub(super) fn make_key(file: &Path, kept_out: &[&Path]) -> Result {
    let file = &crate::cli::credentials::away_from_the_device(file, kept_out)?;
    let identity = Identity::generate().map_err(permission)?;
    let failed = |error: std::io::Error| Failure::unavailable(format!("{}: {error}", file.display()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    writeln!(out, "# public key: {}", identity.recipient()).map_err(failed)?;
    out.write_all(identity.to_text().as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.sync_all())
        .map_err(failed)?;
    complain(format!(
        "{}: the identity that opens backups: keep it off this device, and where it is not lost with it",
        file.display()
    ));
    say(identity.recipient());
    Ok(code::YES)
}

fn permission(error: impl std::fmt::Display) -> Failure {
    Failure::new(code::PERMISSION, error)
}

fn read_passphrase(context: &Context, name: &str) -> Result<Zeroizing<String>> {
    secret::read_line(name, &context.config.secrets_dir).map_err(permission)
}

/// Asks for the passphrase on the terminal, twice when it is a new one.
fn ask(twice: bool) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(code::USAGE, "nobody can be asked for a passphrase here: give --passphrase, or a key"));
    }
    let terminal = console::Term::stderr();
    let read = |prompt: &str| -> Result<Zeroizing<String>> {
        let line = terminal.write_str(prompt).and_then(|()| terminal.read_secure_line());
        line.map(Zeroizing::new).map_err(|error| Failure::unavailable(format!("the terminal: {error}")))
    };
    let passphrase = read("Passphrase of the backup: ")?;
    if twice && *read("The same again: ")? != *passphrase {
        return Err(Failure::data("the two differ"));
    }
    Ok(passphrase)
}
