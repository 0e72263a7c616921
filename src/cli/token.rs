//! `token`: the tokens of the local HTTP API. They lie in the secret `http.tokens`, a line each, which the daemon reads again by itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::context::Context;
use super::{Failure, Places, Result, code, say, table};
use crate::http::{Scope, TOKENS, Tokens};
use crate::system::{files, secret};

/// Random bytes of a token: as many as a key has.
const TOKEN_BYTES: usize = 32;

/// `faceid token …`
#[derive(clap::Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token and print it, this once
    Add {
        /// Whose it is: a name for logs and rates
        name: String,
        /// What it may do: recognize, people, metrics, admin
        #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
        scope: Vec<Scope>,
    },
    /// Whose tokens there are, and what each may do
    List,
    /// Take a token back
    Remove {
        /// Whose
        name: String,
    },
}

fn scope(text: &str) -> std::result::Result<Scope, String> {
    let known = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| format!("use {known}"))
}

pub(super) fn token(places: &Places, verb: &TokenVerb) -> Result {
    let context = Context::load(places)?;
    let secrets = &context.config.secrets_dir;
    let (file, text) = read(secrets)?;
    let tokens = Tokens::parse(&text).map_err(|error| Failure::data(format!("{}: {error}", file.display())))?;
    match verb {
        TokenVerb::Add { name, scope } => {
            let mut bytes = Zeroizing::new([0u8; TOKEN_BYTES]);
            getrandom::fill(bytes.as_mut_slice()).map_err(|error| Failure::unavailable(format!("no random numbers: {error}")))?;
            let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
            let scopes: Vec<&str> = scope.iter().map(|scope| scope.as_str()).collect();
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            let more = Zeroizing::new(format!("{}{end}{name} {} {}\n", text.as_str(), scopes.join(","), token.as_str()));
            // By the very rules that the daemon reads it by: what it would not take is not written.
            Tokens::parse(&more).map_err(|error| Failure::data(format!("{name}: {error}")))?;
            write(&file, &more)?;
            say(token.as_str());
            if context.config.http.listen.is_none() {
                super::complain("the API is off: set [http] listen in the config");
            }
        }
        TokenVerb::List => {
            let rows: Vec<[String; 2]> = tokens.list().map(|(name, scopes)| [name.to_owned(), scopes]).collect();
            table::lines(["NAME", "SCOPES"], &rows).iter().for_each(say);
        }
        TokenVerb::Remove { name } => {
            let is_theirs = |line: &&str| !line.starts_with('#') && line.split_whitespace().next() == Some(name.as_str());
            if !text.lines().any(|line| is_theirs(&line)) {
                return Err(Failure::new(code::NO, format!("nobody called {name} has a token")));
            }
            let kept: Vec<&str> = text.lines().filter(|line| !is_theirs(line)).collect();
            write(&file, &Zeroizing::new(kept.iter().map(|line| format!("{line}\n")).collect::<String>()))?;
        }
    }
    Ok(code::YES)
}

/// Where the tokens lie, and their text; none where there is no such file.
fn read(secrets: &Path) -> Result<(PathBuf, Zeroizing<String>)> {
    let (file, is_credential) = secret::locate(TOKENS, secrets);
    if is_credential {
        let text = format!("{} is handed over by systemd and cannot be changed here", file.display());
        return Err(Failure::new(code::PERMISSION, text));
    }
    if !file.exists() {
        return Ok((file, Zeroizing::default()));
    }
    let bytes = secret::read(TOKENS, secrets).map_err(|error| Failure::new(code::PERMISSION, error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::data(format!("{}: is no UTF-8 text", file.display())))?;
    Ok((file, Zeroizing::new(text.to_owned())))
}

/// The whole file anew, with the owner and the mode of the one that was there.
fn write(file: &Path, text: &str) -> Result<()> {
    let refused = |error: std::io::Error| Failure::new(code::PERMISSION, format!("{}: {error}", file.display()));
    if let Some(folder) = file.parent() {
        super::run::make_private_folder(folder)?;
    }
    let beside = file.with_added_extension("new");
    let mut made = files::fresh(&beside).map_err(refused)?;
    if let Ok(before) = std::fs::metadata(file) {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        std::os::unix::fs::fchown(&made, Some(before.uid()), Some(before.gid())).map_err(refused)?;
        files::set_mode(&beside, before.permissions().mode() & 0o777).map_err(refused)?;
    }
    made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(refused)?;
    std::fs::rename(&beside, file).map_err(refused)
}
