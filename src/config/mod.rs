//! The config: every room's `Settings` in one file. This composes them, judges them together and names the places on disk; what a
//! section means is the room's own matter.
//!
//! To add a room: one field in [`Config`]; the compiler then asks for its line in [`Config::judge`], and a test asks for
//! `data/config/faceid.toml` to be written again.

#[cfg(test)]
mod commented;
mod findings;
mod private;
pub mod warnings;

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use findings::Finding;
use findings::Judged;
pub use private::{readable_by_all, readable_by_named};

use crate::capture::CameraSettings;
use crate::inference::InferenceError;
use crate::inference::manifest::Manifest;
use crate::system::{files, logging};
use crate::types::{AreaId, CameraId, DeviceId, DoorId};
use crate::{access, door, gallery, http, inference, pipeline, publish};

/// Where the config is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/faceid/config.toml";

/// The longest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The pack of a config that names none.
const DEFAULT_PACK: &str = "standard";
/// The pack that comes with the program: a first look for whoever has no config yet.
pub const BUILTIN_PACK: &str = "builtin";

/// Everything that a site decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// This device's id: its MQTT topics begin with `faceid/<device>`, and it is the issuer of its grants. Two devices on one broker
    /// need two ids.
    pub device: DeviceId,
    /// Where the gallery, the outbox and the audit trail are kept; only faceid may read it. FACEID_STATE_DIR overrides it.
    pub state_dir: PathBuf,
    /// Where models and accelerator engines are kept; can be deleted and comes back. FACEID_CACHE_DIR overrides it.
    pub cache_dir: PathBuf,
    /// Folder for secrets that are not systemd credentials: files of mode 0600, named after the secret.
    pub secrets_dir: PathBuf,
    /// The networks.
    pub models: ModelSettings,
    /// How networks are run.
    pub inference: inference::Settings,
    /// The log.
    pub log: logging::Settings,
    /// The cameras.
    pub cameras: Vec<CameraSettings>,
    /// The doors and the cameras before them. `controller-keys` of a door names the public keys of its controller, by which passages are
    /// believed.
    pub doors: Vec<access::DoorSettings>,
    /// How much effort is made, and which faces are good enough.
    pub pipeline: pipeline::Settings,
    /// How evidence becomes a decision.
    pub access: access::Settings,
    /// Who may pass which door and when: see data/config/policy for examples; `faceid check --explain` tells what it means.
    pub policy: access::PolicySettings,
    /// The sealed gallery.
    pub gallery: gallery::Settings,
    /// The MQTT broker.
    pub publish: publish::Settings,
    /// The door's controller, for `faceid door` alone. It may run on another machine than the cameras: then `device` names theirs.
    pub controller: door::Settings,
    /// The local API, off by default.
    pub http: http::Settings,
}

/// Which networks are used and where they lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ModelSettings {
    /// The pack, one of those that `faceid models list` shows. `standard` is brought by `faceid models fetch standard`; `builtin` comes
    /// with the program, for a first look: it opens no door unless `accept-demo-pack` of `[access]` says so.
    pub pack: String,
    /// The folder of the model files; without it `models` in the cache folder.
    pub dir: Option<PathBuf>,
    /// A manifest of the site's own; its entries go over those that come with the program.
    pub manifest: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            #[expect(clippy::expect_used, reason = "a literal that keeps the rule, and a test runs this")]
            device: DeviceId::new("faceid").expect("a plain name is an id"),
            state_dir: "/var/lib/faceid".into(),
            cache_dir: "/var/cache/faceid".into(),
            secrets_dir: "/etc/faceid/secrets".into(),
            models: ModelSettings::default(),
            inference: inference::Settings::default(),
            log: logging::Settings::default(),
            cameras: Vec::new(),
            doors: Vec::new(),
            pipeline: pipeline::Settings::default(),
            access: access::Settings::default(),
            policy: access::PolicySettings::default(),
            gallery: gallery::Settings::default(),
            publish: publish::Settings::default(),
            controller: door::Settings::default(),
            http: http::Settings::default(),
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { pack: DEFAULT_PACK.to_owned(), dir: None, manifest: None }
    }
}

/// Why a config cannot be run with; its text has a line for each finding, `path:line:column: key: message`.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's word, or why it was not even tried.
        source: std::io::Error,
    },
    /// The file was read, and this is wrong in it.
    Findings {
        /// Which file.
        path: PathBuf,
        /// At least one, by line and column.
        findings: Vec<Finding>,
    },
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, source } => {
                let way_out =
                    "; `faceid check --print-default` prints one to start from, and --config or FACEID_CONFIG names another";
                let way_out = match source.kind() {
                    std::io::ErrorKind::NotFound => way_out,
                    std::io::ErrorKind::PermissionDenied => "; it may hold card numbers: run this as root or as the service's user",
                    _ => "",
                };
                write!(f, "config {} cannot be read: {source}{way_out}", path.display())
            }
            ConfigError::Findings { path, findings } => {
                for (n, finding) in findings.iter().enumerate() {
                    let end = if n == 0 { "" } else { "\n" };
                    write!(f, "{end}{}:{finding}", path.display())?;
                }
                Ok(())
            }
        }
    }
}

impl ConfigError {
    /// What is wrong in the file; nothing when it could not be read.
    pub fn findings(&self) -> &[Finding] {
        match self {
            ConfigError::Unreadable { .. } => &[],
            ConfigError::Findings { findings, .. } => findings,
        }
    }
}

/// The config file to read: the one that was asked for, else `FACEID_CONFIG`, else [`DEFAULT_PATH`].
pub fn path(asked: Option<&Path>) -> PathBuf {
    let from_env = || std::env::var_os("FACEID_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    asked.map(Path::to_owned).or_else(from_env).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// A config to start from: every key with its default and what it does. It is made from the code: a test holds it against the
/// settings' documentation and their defaults.
pub fn commented_default() -> &'static str {
    include_str!("../../data/config/faceid.toml")
}

impl Config {
    /// Reads and judges a file, then lets the environment override places.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        // A link is followed, and nothing that a reader would wait on is read: a reload is on the thread that hears when to stop.
        let file = path.canonicalize().and_then(|file| files::open(&file));
        file.and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(unreadable(std::io::Error::other(format!("it is longer than {MAX_CONFIG_BYTES} bytes"))));
        }
        let text = String::from_utf8(bytes).map_err(|_| unreadable(std::io::Error::other("it is not UTF-8 text")))?;
        let mut config = Self::parse(&text).map_err(|findings| ConfigError::Findings { path: path.to_owned(), findings })?;
        config.override_places(|name| std::env::var_os(name));
        Ok(config)
    }

    /// Reads and judges a text; gives everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        let mut config: Self = findings::read(text, Self::judge, Self::relate)?;
        // A text that was read parses; what it does not say of the gallery's folder follows the state folder.
        let table: toml::Table = text.parse().unwrap_or_default();
        if table.get("gallery").and_then(|gallery| gallery.get("dir")).is_none() {
            config.gallery.dir = config.state_dir.join("gallery");
        }
        Ok(config)
    }

    /// Takes the places that the environment names; an empty variable names none.
    pub fn override_places(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        let place = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = place("FACEID_STATE_DIR") {
            self.gallery.dir = folder.join("gallery");
            self.state_dir = folder;
        }
        if let Some(folder) = place("FACEID_CACHE_DIR") {
            self.cache_dir = folder;
        }
    }

    /// The folder of the model files.
    pub fn models_dir(&self) -> PathBuf {
        self.models.dir.clone().unwrap_or_else(|| self.cache_dir.join("models"))
    }

    /// The manifest in force.
    pub fn manifest(&self) -> Result<Manifest, InferenceError> {
        self.models.manifest.as_deref().map_or_else(Manifest::builtin, Manifest::load)
    }

    /// Where the policy counts passages at a door whose controller is not believed, because the config pins no key of it.
    pub fn unheard_passages(&self) -> Vec<(&AreaId, &DoorId)> {
        let counting = self.policy.areas.iter().filter(|area| area.counts == access::policy::PassbackCounts::Passages);
        let doors = counting.flat_map(|area| area.entries.iter().chain(&area.exits).map(move |door| (&area.id, door)));
        let is_pinned = |id: &DoorId| self.doors.iter().any(|door| door.id == *id && door.controller_keys.is_some());
        doors.filter(|(_, door)| !is_pinned(door)).collect()
    }

    /// What is out of range, section by section.
    fn judge(&self) -> Judged {
        let Self { device: _, state_dir, cache_dir, secrets_dir, models, inference, log, .. } = self;
        let Self { cameras, doors, pipeline, access, policy, gallery, publish, controller, http, .. } = self;
        let mut judged = Judged::new();
        for (key, folder) in [("state-dir", state_dir), ("cache-dir", cache_dir), ("secrets-dir", secrets_dir)] {
            if !folder.is_absolute() {
                judged.push((
                    key.to_owned(),
                    "must be an absolute path: a daemon's working folder is not where you think".to_owned(),
                ));
            }
        }
        judged.extend(section("models", models.findings()));
        judged.extend(section("inference", inference.findings()));
        judged.extend(section("log", log.findings()));
        judged.extend(section("pipeline", pipeline.findings()));
        judged.extend(section("access", access.findings()));
        judged.extend(section("policy", policy.findings()));
        judged.extend(section("gallery", gallery.findings()));
        judged.extend(section("publish", publish.findings()));
        judged.extend(section("controller", controller.findings()));
        judged.extend(section("http", http.findings()));
        for (index, camera) in cameras.iter().enumerate() {
            judged.extend(section(&format!("cameras.{index}"), camera.findings()));
        }
        for (index, door) in doors.iter().enumerate() {
            judged.extend(section(&format!("doors.{index}"), door.findings()));
        }
        judged
    }

    /// What does not fit together.
    fn relate(&self) -> Judged {
        let mut judged = Judged::new();
        for (index, camera) in self.cameras.iter().enumerate() {
            if self.cameras[..index].iter().any(|other| other.id == camera.id) {
                judged.push((
                    format!("cameras.{index}.id"),
                    format!("there is another camera `{}`: give each its own id", camera.id),
                ));
            }
        }
        for (index, door) in self.doors.iter().enumerate() {
            if self.doors[..index].iter().any(|other| other.id == door.id) {
                judged.push((format!("doors.{index}.id"), format!("there is another door `{}`: give each its own id", door.id)));
            }
            for (position, id) in door.cameras.iter().enumerate() {
                if !self.cameras.iter().any(|camera| camera.id == *id) {
                    let key = format!("doors.{index}.cameras.{position}");
                    judged.push((key, format!("there is no camera `{id}`: add it or name another")));
                }
            }
            if let Some(witness) = &door.liveness.witness {
                judged.extend(self.relate_witness(index, &witness.camera));
            }
        }
        judged.extend(section("policy", self.policy.relate(self.doors.iter().map(|door| &door.id))));
        judged.extend(self.relate_precision());
        judged
    }
}

impl Config {
    /// A pack runs in 8 bits where it has networks for that. A manifest that cannot be read, or knows no such pack, is told when it is opened.
    fn relate_precision(&self) -> Option<(String, String)> {
        match self.manifest().ok()?.pack_at(&self.models.pack, self.inference.precision) {
            Err(error @ InferenceError::NotQuantized { .. }) => Some(("inference.precision".to_owned(), error.to_string())),
            _ => None,
        }
    }

    /// A camera that must agree is there, and is no door's own: it would agree with itself.
    fn relate_witness(&self, door: usize, witness: &CameraId) -> Option<(String, String)> {
        let key = format!("doors.{door}.liveness.witness.camera");
        if !self.cameras.iter().any(|camera| camera.id == *witness) {
            return Some((key, format!("there is no camera `{witness}`: add it or name another")));
        }
        let watched = self.doors.iter().find(|door| door.cameras.contains(witness))?;
        let text = format!("camera `{witness}` watches door `{}`: a second camera that must agree watches none", watched.id);
        Some((key, text))
    }
}

impl ModelSettings {
    fn findings(&self) -> Judged {
        let mut findings = Judged::new();
        if self.pack.is_empty() {
            findings.push(("pack".to_owned(), "name a pack; `faceid models list` shows them".to_owned()));
        }
        for (key, path) in [("dir", &self.dir), ("manifest", &self.manifest)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                findings.push((key.to_owned(), "must be an absolute path".to_owned()));
            }
        }
        findings
    }
}

/// A section's findings under the section's name; a room may have put the name there itself.
fn section(name: &str, findings: Judged) -> impl Iterator<Item = (String, String)> {
    findings.into_iter().map(move |(key, message)| {
        let own = key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        (if own { key } else { format!("{name}.{key}") }, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    fn toml_files(path: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder(path)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
        files.sort();
        assert!(!files.is_empty());
        files
    }

    /// Each case's first lines say what is found in it, or `# expect: nothing`.
    #[test]
    fn every_case_file_gives_the_findings_it_states() {
        for path in toml_files("tests/cli/config") {
            let text = std::fs::read_to_string(&path).unwrap();
            let stated = text.lines().map_while(|line| line.strip_prefix("# expect: ")).map(str::to_owned);
            let stated: Vec<String> = stated.filter(|line| line != "nothing").collect();
            let found: Vec<String> = Config::parse(&text).err().unwrap_or_default().iter().map(ToString::to_string).collect();
            assert_eq!(found, stated, "{}", path.display());
        }
    }

    #[test]
    fn a_file_that_is_absent_huge_or_no_text_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("config.toml") && error.contains("--print-default"), "{error}");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("UTF-8"));
        std::fs::write(&path, vec![b'\n'; MAX_CONFIG_BYTES as usize + 1]).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("longer"));
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        let pipe = path.clone();
        std::thread::spawn(move || drop(sender.send(Config::load(&pipe).unwrap_err().to_string())));
        let told = told.recv_timeout(std::time::Duration::from_secs(20)).expect("a pipe is waited on");
        assert!(told.contains("plain file"), "{told}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "[log]\nlevel = \"loud\"\nlvel = 1\n").unwrap();
        let error = Config::load(&path).unwrap_err();
        assert_eq!(error.findings().len(), 2);
        let (first, second) = (format!("{}:2:9: log.level: ", path.display()), format!("{}:3:1: log.lvel: ", path.display()));
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert!(lines[0].starts_with(&first) && lines[1].starts_with(&second), "{lines:?}");
    }

    #[test]
    fn the_environment_overrides_places_and_an_empty_variable_does_not() {
        let mut config = Config::default();
        config.override_places(|_| Some(OsString::new()));
        assert_eq!(config, Config::default());
        config.override_places(|name| Some(format!("/{name}").into()));
        assert_eq!(config.state_dir, Path::new("/FACEID_STATE_DIR"));
        assert_eq!(config.models_dir(), Path::new("/FACEID_CACHE_DIR/models"));
    }

    #[test]
    fn the_gallery_follows_the_state_folder_unless_it_has_a_place_of_its_own() {
        let dir = |text: &str| Config::parse(text).unwrap().gallery.dir;
        assert_eq!(dir("state-dir = \"/srv/door\""), Path::new("/srv/door/gallery"));
        assert_eq!(dir("state-dir = \"/srv/door\"\n[gallery]\nkey = \"k\""), Path::new("/srv/door/gallery"));
        assert_eq!(dir("state-dir = \"/srv/door\"\n[gallery]\ndir = \"/var/lib/faceid/gallery\""), Config::default().gallery.dir);
    }

    #[test]
    fn an_empty_config_the_commented_default_and_the_default_are_one() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse(commented_default()).unwrap(), Config::default());
        assert_eq!(path(Some(Path::new("/x"))), Path::new("/x"));
    }

    #[test]
    fn every_config_that_is_shipped_would_run() {
        for path in toml_files("data/config").into_iter().chain(toml_files("data/config/policy")) {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(Config::parse(&text).err(), None, "{}", path.display());
        }
    }

    /// A seeded walk over mutated examples, so that every test run keeps the promise that tests/fuzz keeps for longer.
    #[test]
    fn no_bytes_make_a_config_or_its_policy_panic() {
        let files = toml_files("data/config/policy");
        let texts: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sound = 0;
        for _ in 0..3000 {
            let mut bytes = texts[random.usize(..texts.len())].clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..5) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.drain(at..bytes.len().min(at + random.usize(1..20)))),
                    2 => bytes[at] = *random.choice(b"0123456789-:\"'[]{}=,\n").unwrap(),
                    3 => bytes.insert(at, random.u8(32..127)),
                    _ => {
                        let piece = bytes[at..bytes.len().min(at + random.usize(1..40))].to_vec();
                        let to = random.usize(..bytes.len());
                        bytes.splice(to..to, piece);
                    }
                }
                if bytes.is_empty() {
                    bytes.push(b' ');
                }
            }
            let Ok(config) = Config::parse(&String::from_utf8_lossy(&bytes)) else { continue };
            sound += 1;
            // What has no finding can be run with and explained, at any time.
            let rules = access::Rules::new(&config.policy).unwrap();
            // Looking for the next change costs milliseconds.
            let Some(door) = config.doors.first().filter(|_| sound % 8 == 0) else { continue };
            let people: Vec<_> = rules.named_people().into_iter().map(|id| (id.clone(), Default::default())).collect();
            let at = *random.choice(&[0, 1_795_597_200_000, i64::MIN, i64::MAX, random.clone().i64(..)]).unwrap();
            rules.explain(&door.id, &people, crate::types::Wall(at), access::Clock::Synchronised);
        }
        assert!((100..2900).contains(&sound), "{sound} of 3000 were sound: the walk says little");
    }

    #[test]
    fn the_shipped_default_is_what_the_code_says() {
        let written = commented::write(&folder("src"));
        if std::env::var_os("FACEID_WRITE_CONFIG").is_some() {
            std::fs::write(folder("data/config/faceid.toml"), &written).unwrap();
            return;
        }
        assert!(
            written == commented_default(),
            "data/config/faceid.toml is not what the settings' documentation and defaults say; write it again with\n\
             FACEID_WRITE_CONFIG=1 cargo test --release --lib config::\nand look at what changed"
        );
    }
}
