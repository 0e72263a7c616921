//! The gallery's part of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::IndexChoice;
use super::format::MAX_TEMPLATES_PER_PERSON;

/// Whose time a date of expiry is taken by when templates are destroyed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PurgeClock {
    /// A clock that a time service has set.
    Synchronised,
    /// The system's clock, whoever set it.
    Any,
}

/// The longest [`Settings::purge_after_s`]: a year.
const MOST_PURGE_AFTER_S: u64 = 31_536_000;

/// Where the gallery lies and how much it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The folder of the sealed gallery; one daemon a folder. It is kept at mode 0700.
    pub dir: PathBuf,
    /// Where the gallery's epoch is kept, so that an older gallery put back is noticed; without it a file beside the folder, such as
    /// /var/lib/faceid/gallery.epoch. On another medium it sees more. `access.epoch` beside it does the same for lock-downs, blocks and places.
    pub epoch: Option<PathBuf>,
    /// The sealing key: the name of a systemd credential (or of a file of mode 0600 beside the config), or an absolute path.
    pub key: String,
    /// How many templates one person may have, 1 to 1024. More photos help little beyond 10 or so and make a search longer.
    pub max_templates_per_person: usize,
    /// How long somebody must have been expired before all templates go, in seconds (0 to 31536000). Denied they are at once; gone for
    /// good only once the clock has been right, and did not jump, for as long as this.
    pub purge_after_s: u64,
    /// By which clock people are purged: `synchronised`, when a time service says that it is right; or `any`, where there is none and the
    /// device's own clock is trusted to be right after every power cut.
    pub purge_clock: PurgeClock,
    /// How templates are searched: `exact`; `hnsw`, for large galleries, where trials on this machine show that it finds the right
    /// people; or `auto`, which is exact as long as that takes a millisecond or less.
    pub index: IndexChoice,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/faceid/gallery"),
            epoch: None,
            key: "gallery.key".to_owned(),
            max_templates_per_person: 32,
            purge_after_s: 600,
            purge_clock: PurgeClock::Synchronised,
            index: IndexChoice::Auto,
        }
    }
}

impl Settings {
    /// The file of the epoch's second place.
    pub fn epoch_file(&self) -> PathBuf {
        let beside = || {
            let name = self.dir.file_name().map_or_else(|| "gallery".into(), |name| name.to_string_lossy());
            self.dir.with_file_name(format!("{name}.epoch"))
        };
        self.epoch.clone().unwrap_or_else(beside)
    }

    /// Every value that is out of its range: its dotted key, and what is wrong with the way out.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut say = |key: &str, what: &str| found.push((format!("gallery.{key}"), what.to_owned()));
        if !self.dir.is_absolute() {
            say(
                "dir",
                "must be an absolute path, such as /var/lib/faceid/gallery: a daemon's working folder is not where you think",
            );
        }
        if self.epoch.as_ref().is_some_and(|file| !file.is_absolute() || file.starts_with(&self.dir)) {
            say("epoch", "must be an absolute path outside the gallery's folder: in it, it would be rolled back with the gallery");
        }
        if self.key.is_empty() || (self.key.contains('/') && !self.key.starts_with('/')) {
            say("key", "must be a credential's name, such as gallery.key, or an absolute path");
        }
        if !(1..=MAX_TEMPLATES_PER_PERSON).contains(&self.max_templates_per_person) {
            say("max-templates-per-person", "must be 1 to 1024; 32 is the default");
        }
        if self.purge_after_s > MOST_PURGE_AFTER_S {
            say("purge-after-s", "must be 0 to 31536000 (a year); 600 is the default");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_all_found_and_the_default_has_none() {
        let bad = Settings {
            dir: "here".into(),
            epoch: Some("here/epoch".into()),
            key: "a/b".to_owned(),
            max_templates_per_person: 0,
            purge_after_s: 31_536_001,
            ..Settings::default()
        };
        let keys: Vec<_> = bad.findings().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            ["gallery.dir", "gallery.epoch", "gallery.key", "gallery.max-templates-per-person", "gallery.purge-after-s"]
        );
        assert!(Settings::default().findings().is_empty());
        assert!(toml::from_str::<Settings>("dri = \"/x\"").is_err());
    }
}
