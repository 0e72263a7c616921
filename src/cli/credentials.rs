//! Which secrets a service reads, by name: what the units hand over, and nothing else of the folder where they lie. And which keys are no
//! device's at all: those that an operator signs commands or opens pictures and backups with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Failure, Result, code};
use crate::capture::Source;
use crate::config::Config;
use crate::daemon::{GRANT_KEY, OLD_GRANT_KEY};
use crate::door::DOOR_KEY;
use crate::http;
use crate::publish::STATE_KEY;

/// Keys that must not lie on a device, by the names that they are usually kept under: the operator's, who commands every device that
/// pins it, and the one that pictures are opened with.
pub(super) const NOT_THE_DEVICES: [&str; 2] = [super::run::OPERATOR_KEY, super::snapshot::SNAPSHOT_KEY];

/// Where the package keeps the secrets of the two services.
const FOLDERS: [&str; 3] = ["/etc/faceid/secrets", "/etc/faceid/door-secrets", "/etc/faceid/sealed"];

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Service {
    /// `faceid run`
    Run,
    /// `faceid door`
    Door,
}

/// The secrets that a service reads, in order. One that the config names by its path is none of the service manager's.
pub(super) fn names(config: &Config, service: Service) -> Vec<String> {
    let broker = [&config.publish.password_secret, &config.publish.tls.client_key_secret];
    let mut names: BTreeSet<&str> = broker.into_iter().flatten().map(String::as_str).collect();
    match service {
        Service::Run => {
            names.extend([config.gallery.key.as_str(), GRANT_KEY, OLD_GRANT_KEY, STATE_KEY, http::TOKENS]);
            names.extend(config.cameras.iter().filter_map(|camera| match &camera.source {
                Source::Rtsp(source) => source.password_secret.as_deref(),
                _ => None,
            }));
        }
        Service::Door => names.extend([DOOR_KEY, config.controller.osdp.key_secret.as_str()]),
    }
    names.into_iter().filter(|name| is_credential(name)).map(str::to_owned).collect()
}

/// What systemd takes for a credential's name, and a shell for one word.
fn is_credential(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Refuses a place for an operator's key among the secrets or in the state of a device. Gives it back as it can be opened later.
pub(super) fn away_from_the_device(file: &Path, kept_out: &[&Path]) -> Result<PathBuf> {
    let refused = |why: &dyn std::fmt::Display| Failure::new(code::PERMISSION, format!("{}: {why}", file.display()));
    let name = file.file_name().ok_or_else(|| refused(&"is no file's name"))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| refused(&format!("its folder: {error}")))?;
    for kept in kept_out.iter().copied().chain(FOLDERS.map(Path::new)).filter_map(|kept| kept.canonicalize().ok()) {
        if folder.starts_with(&kept) {
            return Err(refused(&format!(
                "lies in {}, which the device's service reads: whoever breaks into it would have the key; keep it elsewhere, best on \
                 another machine",
                kept.display()
            )));
        }
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_what_its_config_names_and_no_operators_key() {
        let text = "[gallery]\nkey = \"own.key\"\n[publish]\nuser = \"a\"\npassword-secret = \"mqtt-password\"\n[[cameras]]\nid = \"hall\"\n\
                    [cameras.source.rtsp]\nurl = \"rtsp://192.0.2.1/a\"\nuser = \"u\"\npassword-secret = \"hall-password\"\n\
                    [[cameras]]\nid = \"yard\"\n[cameras.source.rtsp]\nurl = \"rtsp://192.0.2.2/a\"\nuser = \"u\"\npassword-secret = \"/root/x\"\n";
        let config = Config::parse(text).unwrap();
        let run = names(&config, Service::Run);
        assert_eq!(run, ["grant-old.key", "grant.key", "hall-password", "http.tokens", "mqtt-password", "own.key", "state.key"]);
        assert_eq!(names(&config, Service::Door), ["door.key", "mqtt-password", "osdp-key"]);
        assert!(NOT_THE_DEVICES.iter().all(|name| !run.iter().any(|own| own == name)));
        assert!(!is_credential("a b") && !is_credential("a\nLoadCredential=x") && !is_credential(""));
    }

    #[test]
    fn an_operators_key_is_kept_out_of_the_devices_folders_however_they_are_spelled() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir_all(secrets.join("below")).unwrap();
        std::os::unix::fs::symlink(&secrets, folder.path().join("link")).unwrap();
        for place in ["secrets/operator.key", "secrets/below/x", "link/x", "secrets/../secrets/x", "link/below/../x"] {
            let error = away_from_the_device(&folder.path().join(place), &[&secrets]).unwrap_err();
            assert!(error.message.contains("elsewhere"), "{place}: {}", error.message);
        }
        let place = away_from_the_device(&folder.path().join("operator.key"), &[&secrets]).unwrap();
        assert_eq!(place, folder.path().canonicalize().unwrap().join("operator.key"));
        assert!(away_from_the_device(&folder.path().join("absent/x"), &[&secrets]).is_err());
    }
}
