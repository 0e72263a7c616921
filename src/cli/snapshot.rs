//! `snapshot`: opens a picture that a device sealed and published after `cmd/snapshot-on`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::context::Context;
use super::run::{make_once, write_private};
use super::{Failure, Places, Result, code, say};
use crate::publish::Recipient;
use crate::system::secret;

/// The name that the key is looked for by.
pub(super) const SNAPSHOT_KEY: &str = "snapshot.key";

/// `faceid snapshot`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The message as it came on `door/<door>/snapshot`, in a file
    message: PathBuf,
    /// Where the JPEG goes; only its owner can read it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The file that holds the key, or a secret's name
    #[arg(long, value_name = "FILE", default_value = SNAPSHOT_KEY, env = "FACEID_SNAPSHOT_KEY")]
    key: String,
}

/// A key's file by its whole path; a plain name is a secret's.
pub(super) fn by_path(key: &str) -> Result<String> {
    if !key.contains('/') {
        return Ok(key.to_owned());
    }
    let absolute = std::path::absolute(key).map_err(|error| Failure::new(code::PERMISSION, error))?;
    Ok(absolute.to_string_lossy().into_owned())
}

#[derive(Deserialize)]
struct Message {
    door: String,
    camera: String,
    track: u64,
    sealed: String,
}

pub(super) fn snapshot(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let secret =
        secret::read(&by_path(&args.key)?, &context.config.secrets_dir).map_err(|error| Failure::new(code::PERMISSION, error))?;
    let secret = <[u8; 32]>::try_from(secret.as_slice())
        .map_err(|_| Failure::new(code::PERMISSION, format!("secret `{}` is no key: it must have 32 bytes", args.key)))?;
    let wrong = |why: &dyn std::fmt::Display| Failure::data(format!("{}: {why}", args.message.display()));
    let text = std::fs::read(&args.message).map_err(|error| wrong(&error))?;
    let jpeg = open(&text, &Recipient::new(secret)).map_err(|why| wrong(&why))?;
    write_private(&args.out, &jpeg)?;
    say(format!("wrote {}", args.out.display()));
    Ok(code::YES)
}

/// The picture in a message that anybody may have written.
pub(super) fn open(message: &[u8], recipient: &Recipient) -> std::result::Result<Vec<u8>, String> {
    let Message { door, camera, track, sealed } = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|error| error.to_string())?;
    let jpeg = recipient.open(&format!("{door} {camera} {track}"), &sealed);
    jpeg.ok_or_else(|| "it is sealed to another recipient, or was changed".to_owned())
}

/// Makes the key and prints its public half; with `only_public`, that of the one that is there.
pub(super) fn make_key(file: &Path, only_public: bool) -> Result {
    let print = |secret: &[u8; 32]| say(URL_SAFE_NO_PAD.encode(Recipient::new(*secret).public()));
    let show = |bytes: &[u8]| {
        let secret = bytes.try_into().map(zeroize::Zeroizing::new);
        let text = || Failure::new(code::PERMISSION, format!("{}: is no key: it must have 32 bytes", file.display()));
        secret.map(|secret| print(&secret)).map_err(|_| text())
    };
    make_once(file, only_public, show, || {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| Failure::new(code::UNAVAILABLE, error))?;
        write_private(file, secret.as_slice())?;
        print(&secret);
        Ok(())
    })
}
