//! What root does not take from the environment. GStreamer and GLib load code from folders that variables name, run a helper that one names,
//! and write files where others say; whoever set those variables need not be root (`sudo -E`, `su -m`, a shell that was left open). The
//! service's user runs with what systemd gives it and keeps its own.
//!
//! As with the library of the networks (`ORT_DYLIB_PATH`), a place that is root's alone is followed. What the dynamic loader does before the
//! program's first line (`LD_PRELOAD`) nothing here can undo.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::owner;

/// Folders of code, lists of them with `:` between, and where the list of code is kept: followed where they are root's alone.
const PLACES: [&str; 13] = [
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_PATH_1_0",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_PLUGIN_SYSTEM_PATH_1_0",
    "GST_REGISTRY",
    "GST_REGISTRY_1_0",
    "GIO_EXTRA_MODULES",
    "GIO_MODULE_DIR",
    "LIBVA_DRIVERS_PATH",
    "GCONV_PATH",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "HOME",
];
/// Of these, what a shell sets without anybody having asked for it.
const QUIET: [&str; 3] = ["XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME"];
/// Programs to be run and files to be written or read: never followed.
const FILES: [&str; 9] = [
    "GST_PLUGIN_SCANNER",
    "GST_PLUGIN_SCANNER_1_0",
    "GST_PTP_HELPER",
    "GST_PTP_HELPER_1_0",
    "GST_DEBUG_FILE",
    "GST_DEBUG_DUMP_DOT_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "OPENSSL_ENGINES",
];

/// Takes out of root's environment what is not to be followed, and says so. To be called before there is a second thread.
pub fn tidy_for_root() {
    if owner::caller() != 0 {
        return;
    }
    for name in unfollowed(|name| std::env::var_os(name)) {
        // A home that another user's shell left is nothing to tell; root's own is used then.
        if !QUIET.contains(&name) {
            // No log yet: the verbs choose one.
            eprintln!("faceid: {name} is not followed as root: it names a file, or a place that others may write");
        }
        forget(name);
    }
}

#[expect(unsafe_code, reason = "the environment may not be changed while another thread reads it")]
fn forget(name: &str) {
    // SAFETY: `tidy_for_root` is called first of all, while this process has one thread.
    unsafe { std::env::remove_var(name) }
}

/// Those that are set and not to be followed.
fn unfollowed(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<&'static str> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let places =
        PLACES.into_iter().filter(|name| set(name).is_some_and(|value| !std::env::split_paths(&value).all(|path| is_roots(&path))));
    places.chain(FILES.into_iter().filter(|name| set(name).is_some())).collect()
}

/// Whether nobody but root can have put there what is there, or will be.
fn is_roots(path: &Path) -> bool {
    let resolved = path.canonicalize();
    // What is not there yet is made in the folder above.
    let place = match (&resolved, path.parent()) {
        (Ok(place), _) => place.clone(),
        (Err(_), Some(above)) if path.is_absolute() => match above.canonicalize() {
            Ok(above) => above,
            Err(_) => return false,
        },
        (Err(_), _) => return false,
    };
    path.is_absolute()
        && place.ancestors().enumerate().all(|(above, place)| {
            place.symlink_metadata().is_ok_and(|metadata| {
                // In a sticky folder others can add, and cannot replace: harmless above what is there already.
                let is_sticky = metadata.mode() & 0o1000 != 0 && (above > 0 && resolved.is_ok());
                metadata.uid() == 0 && (is_sticky || metadata.mode() & 0o022 == 0)
            })
        })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn root_follows_its_own_places_and_neither_others_nor_files() {
        if owner::caller() != 0 {
            eprintln!("SKIPPED: only root can make what root follows");
            return;
        }
        // Not below a folder of everybody's or of the developer's.
        let folder = tempfile::tempdir_in("/root").unwrap();
        let make = |name: &str, mode: u32, user: u32| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, Some(user), None).unwrap();
            path
        };
        let (own, others, open) = (make("own", 0o755, 0), make("others", 0o755, 65534), make("open", 0o777, 0));
        let (sticky, link) = (make("sticky", 0o1777, 0), folder.path().join("link"));
        let within = sticky.join("within");
        std::fs::create_dir(&within).unwrap();
        symlink(&others, &link).unwrap();
        let followed = |value: &str| unfollowed(|name| (name == "GST_PLUGIN_PATH").then(|| OsString::from(value))).is_empty();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        for good in [text(&own), text(&own.join("none-yet")), format!("{}:{}", text(&own), text(&within)), String::new()] {
            assert!(followed(&good), "{good}");
        }
        for bad in [
            text(&others),
            text(&others.join("none-yet")),
            text(&open),
            text(&sticky),
            text(&sticky.join("none-yet")),
            text(&link),
            format!("{}:{}", text(&own), text(&others)),
            format!("{}:", text(&own)),
            "relative".to_owned(),
            text(&own.join("none").join("yet")),
        ] {
            assert!(!followed(&bad), "{bad}");
        }
        for name in FILES {
            assert_eq!(unfollowed(|asked| (asked == name).then(|| OsString::from("/etc/passwd"))), [name]);
        }
        for name in PLACES {
            assert_eq!(unfollowed(|asked| (asked == name).then(|| text(&others).into())), [name]);
        }
    }
}
