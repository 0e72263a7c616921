//! What of a config is nobody's business: the numbers and lines that open doors. The file is installed `root:faceid` 0640 (a door's
//! `root:faceid-door`); [`readable_by_all`] tells of one that is not, and [`readable_by_named`] of one whose access control list lets
//! somebody else read it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Config;
use crate::capture::Source;
use crate::system::acl::{self, Named};

impl Config {
    /// The keys of the config that hold what must not be read by everybody: PINs, card and duress numbers, people's numbers at a panel,
    /// launch lines and commands (which may hold a password), addresses with one.
    pub fn private_parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        for (name, is_there) in [
            ("policy.people.credentials", self.policy.people.iter().any(|person| !person.credentials.is_empty())),
            ("policy.people.duress-credentials", self.policy.people.iter().any(|person| !person.duress_credentials.is_empty())),
            ("controller.osdp.people", !self.controller.osdp.people.is_empty()),
            ("controller.command", !(self.controller.command.unlock.is_empty() && self.controller.command.lock.is_empty())),
        ] {
            parts.extend(is_there.then(|| name.to_owned()));
        }
        for camera in &self.cameras {
            match &camera.source {
                Source::Launch(_) => parts.push(format!("the launch line of camera `{}`", camera.id)),
                Source::Rtsp(source) if source.url.may_hold_secret() => {
                    parts.push(format!("the address of camera `{}`", camera.id))
                }
                _ => {}
            }
        }
        parts
    }
}

/// The mode of a file that everybody on the machine may read, or `None`.
pub fn readable_by_all(path: &Path) -> Option<u32> {
    let mode = path.metadata().ok()?.mode() & 0o777;
    (mode & 0o004 != 0).then_some(mode)
}

/// Whom the access control list of the config at `path` lets read it besides root, its owner and the owner of the state folder, who is the
/// service's user: in words.
pub fn readable_by_named(path: &Path, state: &Path) -> Vec<String> {
    let owner = |path: &Path| path.metadata().ok().map(|metadata| metadata.uid());
    let rightful = [Some(0), owner(path), owner(state)];
    let others = acl::named_readers(path).into_iter().filter(|named| match named {
        Named::User(user) => !rightful.contains(&Some(*user)),
        Named::Group(_) | Named::Unknown => true,
    });
    let words = others.map(|named| match named {
        Named::User(user) => format!("the user with number {user}"),
        Named::Group(group) => format!("the group with number {group}"),
        Named::Unknown => "whoever its list names, which is not understood,".to_owned(),
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_kind_of_private_line_is_found_and_a_plain_config_has_none() {
        assert_eq!(Config::default().private_parts(), [""; 0]);
        assert_eq!(Config::parse(crate::config::commented_default()).unwrap().private_parts(), [""; 0]);
        for (text, part) in [
            ("[[policy.people]]\nid = \"ada\"\ncredentials = [\"7319\"]", "policy.people.credentials"),
            ("[[policy.people]]\nid = \"ada\"\nduress-credentials = [\"7319\"]", "policy.people.duress-credentials"),
            ("[controller.osdp]\npeople = [{ person = \"ada\", facility = 1, number = 2 }]", "controller.osdp.people"),
            ("[controller.command]\nunlock = [\"/bin/true\", \"secret\"]", "controller.command"),
            (
                "[[cameras]]\nid = \"hall\"\n[cameras.source.launch]\npipeline = \"fakesrc ! appsink name=faceid\"",
                "launch line of camera `hall`",
            ),
            ("[[cameras]]\nid = \"hall\"\n[cameras.source.rtsp]\nurl = \"rtsp://192.0.2.1/a?token=b\"", "address of camera `hall`"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let parts = config.private_parts();
            assert!(parts.len() == 1 && parts[0].contains(part), "{text}: {parts:?}");
        }
        let plain: Config =
            toml::from_str("[[cameras]]\nid = \"hall\"\n[cameras.source.rtsp]\nurl = \"rtsp://192.0.2.1/a\"").unwrap();
        assert_eq!(plain.private_parts(), [""; 0]);
    }

    #[test]
    fn a_file_is_open_to_all_or_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "").unwrap();
        for (mode, told) in [(0o644, Some(0o644)), (0o604, Some(0o604)), (0o640, None), (0o600, None)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by_all(&path), told);
        }
        assert_eq!(readable_by_all(&folder.path().join("absent")), None);
    }
}
