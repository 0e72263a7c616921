//! The house: who may name whom (the table in the crate's documentation), where outside crates live, and how long a file may grow.
#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const CEILING: usize = 600;

/// Outside crates with one home each: the crate's name in code, and the folders or files that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("ort", &["inference/ort.rs"]),
    ("tract_onnx", &["inference/tract.rs"]),
    ("gio", &["capture/"]),
    ("gstreamer", &["capture/"]),
    ("gstreamer_app", &["capture/"]),
    ("gstreamer_video", &["capture/"]),
    ("image", &["capture/still.rs", "cli/"]),
    ("aes_gcm", &["gallery/seal", "publish/sealed.rs"]),
    ("hkdf", &["gallery/seal", "publish/sealed.rs"]),
    ("chacha20poly1305", &["gallery/seal/age.rs"]),
    ("x25519_dalek", &["gallery/seal/age.rs", "publish/sealed.rs"]),
    ("scrypt", &["gallery/seal/age.rs"]),
    ("bech32", &["gallery/seal/age.rs"]),
    ("instant_distance", &["gallery/index/"]),
    ("rayon", &["gallery/index/"]),
    ("ed25519_dalek", &["access/grant.rs"]),
    ("rumqttc", &["publish/"]),
    ("gpiocdev", &["door/gpio.rs"]),
    ("rumqttd", &["publish/broker.rs"]),
    ("tokio", &["publish/", "http/"]),
    ("axum", &["http/"]),
    ("hyper", &["http/"]),
    ("hyper_util", &["http/"]),
    ("subtle", &["http/auth.rs"]),
    ("signal_hook", &["daemon/signals.rs", "daemon/panic.rs"]),
    ("sd_notify", &["system/notify.rs"]),
    ("systemd_journal_logger", &["system/logging.rs"]),
    ("clap", &["cli/"]),
    ("console", &["cli/"]),
    ("ureq", &["inference/"]),
    ("plotters", &["evaluation/plots.rs", "evaluation/raster.rs"]),
    ("plotters_backend", &["evaluation/raster.rs"]),
];

struct Source {
    /// Below `src`, with `/`.
    name: String,
    /// Without the tests at its foot.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text[..tests_at(&text)].to_owned();
        Source { name: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code }
    };
    // Whole files of tests are no part of the house.
    let is_test = |path: &PathBuf| {
        matches!(path.file_name().unwrap().to_str(), Some("tests.rs" | "simulated.rs" | "commented.rs" | "manual.rs"))
    };
    files.into_iter().filter(|path| !is_test(path)).map(read).collect()
}

/// Where the tests at a file's foot begin: the first test-only module that has a body.
fn tests_at(text: &str) -> usize {
    let marks = text.match_indices("\n#[cfg(test)]\n");
    let is_body = |at: usize| {
        let line = text[at..].lines().nth(2).unwrap_or_default();
        line.contains("mod ") && line.trim_end().ends_with('{')
    };
    marks.map(|(at, _)| at).find(|at| is_body(*at)).unwrap_or(text.len())
}

/// The table in the crate's documentation: `a, b -> c d` (`nothing` for none, `everything` for all).
fn table() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut table = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let Some((from, to)) = line.split_once("->") else { continue };
        let to: Vec<String> = to.split_whitespace().map(str::to_owned).collect();
        for room in from.split(',').map(str::trim) {
            table.insert(room.to_owned(), to.clone());
        }
    }
    table
}

/// The rooms that a piece of code names, `use crate::{a, b}` included.
fn named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    for part in lines.collect::<Vec<_>>().join("\n").split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let group = group.split("};").next().unwrap();
            rooms.extend(group.split(',').map(|name| name.trim().split("::").next().unwrap().to_owned()));
        } else {
            rooms.push(part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned());
        }
    }
    rooms
}

#[test]
fn no_room_names_a_room_that_the_map_does_not_allow() {
    let (table, sources) = (table(), sources());
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !matches!(source.room(), "lib" | "main")) {
        let allowed = table.get(source.room()).unwrap_or_else(|| panic!("room `{}` is not in the map", source.room()));
        for room in named(&source.code) {
            let is_room = table.contains_key(&room);
            let may = room == source.room() || allowed.iter().any(|name| *name == room || name == "everything");
            if is_room && !may {
                wrong.push(format!("src/{} names {room}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that src/lib.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn every_outside_crate_stays_in_its_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in lines.enumerate() {
            for (name, homes) in HOMES {
                let path = format!("{name}::");
                let is_named = line.match_indices(&path).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
                });
                if is_named && !homes.iter().any(|home| source.name.starts_with(home)) {
                    wrong.push(format!("src/{}: code line {}: {name}", source.name, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their homes:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_outgrows_the_ceiling_and_each_says_what_it_is() {
    for source in sources() {
        let lines = source.code.lines().count();
        assert!(lines <= CEILING, "src/{} has {lines} lines without its tests: split it", source.name);
        assert!(source.code.starts_with("//!"), "src/{} does not begin with what it is", source.name);
    }
}

/// The package that builds the fuzz targets is no part of a build, so nothing else notices that its lock is of another day.
#[test]
fn the_fuzz_targets_can_be_built_and_are_told_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = |path: &str| std::fs::read_to_string(root.join(path)).unwrap().parse::<toml::Table>().unwrap();
    let lock = table("tests/fuzz/Cargo.lock");
    let locked =
        lock["package"].as_array().unwrap().iter().find(|package| package["name"].as_str() == Some("faceid-plus")).unwrap();
    let locked: Vec<&str> = locked["dependencies"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let needed = table("Cargo.toml")["dependencies"].as_table().unwrap().clone();
    let is_optional = |entry: &toml::Value| entry.get("optional").and_then(toml::Value::as_bool) == Some(true);
    let missing: Vec<_> = needed
        .iter()
        .filter(|(name, entry)| !is_optional(entry) && !locked.iter().any(|locked| locked.split(' ').next() == Some(name)))
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "tests/fuzz/Cargo.lock lacks {missing:?}: `cargo update --workspace` in tests/fuzz");
    let targets = table("tests/fuzz/Cargo.toml");
    let targets: Vec<&str> = targets["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    let told = std::fs::read_to_string(root.join("tests/fuzz/README.md")).unwrap();
    for file in std::fs::read_dir(root.join("tests/fuzz/fuzz_targets")).unwrap() {
        let name = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(targets.contains(&name.as_str()), "no [[bin]] builds {name}");
        assert!(told.contains(&format!("| `{name}` |")), "no row tells of {name}");
    }
}
