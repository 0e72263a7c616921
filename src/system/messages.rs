//! The journal's `MESSAGE_ID` of every line that somebody may wait for: `journalctl MESSAGE_ID=…` finds it whatever its words become, and
//! `journalctl -x` explains it from the catalog in `systemd/faceid.catalog`. An id is never given to another message (sd-journal's rule);
//! a test holds the catalog against this list.
//!
//! Written as a field of that name: `log::info!(MESSAGE_ID = messages::READY; "…")`. It is shown in the journal only, not in the line.

/// The field's name.
pub const FIELD: &str = "MESSAGE_ID";

/// Every vital worker beats.
pub const READY: &str = "2aa9252e22a4449aafbca71dd144c126";
/// Told to stop.
pub const STOPPING: &str = "d544df3ded6c43d1aff16df6c4184313";
/// The daemon ends because something vital failed.
pub const FAILED: &str = "ad835cbb7bd04e66bd67b16e207dfb21";
/// A worker failed and is started again.
pub const WORKER_FAILED: &str = "f584ee9f9a0e4777805d054fdb64fc08";
/// A camera came, went, or shows nothing usable.
pub const CAMERA_CHANGED: &str = "073900f4259043a9aa659c3d8767c992";
/// A decision.
pub const DECIDED: &str = "943a99df2faf48ed9261be121332eadf";
/// A decision that the outbox had no room for.
pub const DECISION_LOST: &str = "eef7ac1de35642fba068146cc46dd883";
/// People were enrolled, or given templates.
pub const ENROLLED: &str = "b606a1cdec98470c9c2a930e0a282d16";
/// What is kept of a person changed.
pub const CHANGED: &str = "c802c471af144ae39c423251b2ffc045";
/// A person was removed.
pub const REMOVED: &str = "f464ba89682748398b6c29871bb4869d";
/// A person's time ran out.
pub const PURGED: &str = "f1401721fbb24d0aa37e76f9c10d8c2a";
/// The gallery is older than it was.
pub const ROLLBACK: &str = "8339c8f9177f46f5a92bb2095dddfa0c";
/// A write to the gallery failed: it takes no change.
pub const GALLERY_READ_ONLY: &str = "36c47ea3a1474913993ca60c92ed59a9";
/// The broker does not say whether an older state was put back.
pub const WITNESS_SILENT: &str = "ff578e6c695e41e4ad026f367d60edac";
/// An operator's command was carried out.
pub const COMMAND: &str = "dd5ccee45a2a46deb0aa8d0115b61d39";
/// A command that changes nothing.
pub const COMMAND_REFUSED: &str = "11d006b2527640ea9ee6ee9cbc5b163c";
/// The local API listens.
pub const API_LISTENS: &str = "a1ee69740fb946e696adc0bf355a40e1";
/// A reload found a config that it does not take.
pub const CONFIG_NOT_READ: &str = "1dbbb189c4154e5b873d949b3f713495";
/// The gallery is open.
pub const GALLERY_READY: &str = "61f1a59d40c04f808459724af624dc66";
/// A network is open, and where it runs.
pub const NETWORK_READY: &str = "4d6d1ddb2a9e464d928d61dc3e052c89";

/// More strangers would be let in before a camera than the site bears, or no longer, or the threshold there is another one.
pub const MATCH_RATE: &str = "9b1f4c0e7a6d4d0f8f7b3a52c6e1d984";
/// A door is blocked, or no longer.
pub const DOOR_BLOCKED: &str = "2e216122848ce862bb818e0f1df25d2e";

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn read(path: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn the_catalog_explains_every_id_and_no_other() {
        let source = read("src/system/messages.rs");
        let mut ids: Vec<&str> =
            source.lines().filter_map(|line| line.strip_suffix("\";")?.split_once(": &str = \"")).map(|(_, id)| id).collect();
        ids.retain(|id| id.len() == 32);
        ids.sort_unstable();
        let (count, unique) = (ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len());
        assert_eq!(count, unique, "an id is given twice");
        let catalog = read("systemd/faceid.catalog");
        let mut explained: Vec<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        explained.sort_unstable();
        assert_eq!(explained, ids);
    }
}
