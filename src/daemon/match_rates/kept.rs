//! What is written down of the scores at the doors: one small file of the state folder, sealed under the state key because it names people
//! who are often refused. Counts and a day, no template, no visit. What cannot be read, was not sealed here or is another model's is begun
//! anew with a warning: it is a measure, and nothing that a door depends on. Its size is bounded: cameras of the config, [`BINS`] bins each, and
//! [`MOST_PEOPLE`] people.
//!
//! [`BINS`]: crate::evaluation::tally::BINS

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::evaluation::tally::Tally;
use crate::publish::StateKey;
use crate::system::files;
use crate::types::{CameraId, ModelId, PersonId, Score};

/// The file's name in the state folder.
pub(super) const FILE: &str = "match-rates.sealed";
/// What it is sealed for.
const PURPOSE: &str = "match-rates";
/// The version of its content.
const VERSION: u32 = 1;
/// The longest file that is read, in bytes: 256 cameras with every bin of both tallies full take half of it.
const MAX_BYTES: u64 = 16 << 20;
/// More cameras than a device can take.
const MOST_CAMERAS: usize = 256;
/// The most people whose near misses are kept. Who has none is not kept.
pub(super) const MOST_PEOPLE: usize = 4096;
/// More than any count can be, since what is old fades.
const MOST_COUNT: f64 = 1e6;

/// One camera's counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Camera {
    /// The lowest threshold configured for its doors when this was written.
    pub(super) configured: Score,
    /// What it asks of a match instead.
    pub(super) raised: Option<Score>,
    /// Whether the alarm was raised and not cleared.
    pub(super) alarmed: bool,
    /// Since which day less would be enough than is asked.
    pub(super) lower_since: Option<i64>,
    /// The scores of strangers' visits.
    pub(super) strangers: Tally,
    /// The scores of visits that were let in.
    pub(super) grants: Tally,
}

impl Camera {
    pub(super) fn new(configured: Score) -> Self {
        let (strangers, grants) = (Tally::default(), Tally::default());
        Self { configured, raised: None, alarmed: false, lower_since: None, strangers, grants }
    }
}

/// How close it was at one person's template, in visits; old ones count less.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Near {
    /// Let in as this person.
    pub(super) granted: f64,
    /// Of those, just above the threshold.
    pub(super) narrow: f64,
    /// Refused, and let in a moment later.
    pub(super) refused: f64,
    /// Somebody who was not let in, just below the threshold.
    pub(super) strangers: f64,
}

impl Near {
    fn all(&mut self) -> [&mut f64; 4] {
        [&mut self.granted, &mut self.narrow, &mut self.refused, &mut self.strangers]
    }

    /// What matters of it.
    pub(super) fn misses(&self) -> f64 {
        self.narrow + self.refused + self.strangers
    }

    pub(super) fn fade(&mut self, share: f64) {
        self.all().into_iter().for_each(|count| *count *= share);
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Kept {
    /// The latest day that was seen, since 1970.
    pub(super) day: i64,
    pub(super) cameras: BTreeMap<CameraId, Camera>,
    pub(super) people: BTreeMap<PersonId, Near>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    model: ModelId,
    day: i64,
    cameras: BTreeMap<CameraId, CameraText>,
    people: BTreeMap<PersonId, Near>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CameraText {
    configured: Score,
    raised: Option<Score>,
    alarmed: bool,
    lower_since: Option<i64>,
    strangers: Vec<(u16, f64)>,
    grants: Vec<(u16, f64)>,
}

impl Kept {
    /// As it is written, before it is sealed.
    pub(super) fn to_text(&self, model: &ModelId) -> std::io::Result<Vec<u8>> {
        // A thousandth of a visit is as fine as it needs to be.
        let rounded = |(bin, count): (u16, f64)| (bin, (count * 1e3).round() / 1e3);
        let bins = |tally: &Tally| tally.bins().map(rounded).filter(|(_, count)| *count > 0.0).collect();
        let camera = |camera: &Camera| CameraText {
            configured: camera.configured,
            raised: camera.raised,
            alarmed: camera.alarmed,
            lower_since: camera.lower_since,
            strangers: bins(&camera.strangers),
            grants: bins(&camera.grants),
        };
        let cameras = self.cameras.iter().map(|(id, kept)| (id.clone(), camera(kept))).collect();
        let text = Text { version: VERSION, model: model.clone(), day: self.day, cameras, people: self.people.clone() };
        serde_json::to_vec(&text).map_err(std::io::Error::other)
    }

    /// Reads it, of whatever model it is.
    pub(super) fn from_text(text: &[u8]) -> Result<(ModelId, Self), String> {
        let text: Text = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if text.version != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", text.version));
        }
        if text.cameras.len() > MOST_CAMERAS || text.people.len() > MOST_PEOPLE {
            return Err("it holds more cameras or people than there can be".to_owned());
        }
        let tally = |bins: &[(u16, f64)]| Tally::from_bins(bins, MOST_COUNT).ok_or("a count is none");
        let mut cameras = BTreeMap::new();
        for (id, camera) in text.cameras {
            let CameraText { configured, raised, alarmed, lower_since, strangers, grants } = camera;
            let (strangers, grants) = (tally(&strangers)?, tally(&grants)?);
            cameras.insert(id, Camera { configured, raised, alarmed, lower_since, strangers, grants });
        }
        let mut people = text.people;
        let is_count = |count: &mut f64| (0.0..=MOST_COUNT).contains(count);
        if !people.values_mut().all(|near| near.all().into_iter().all(is_count)) {
            return Err("a count is none".to_owned());
        }
        Ok((text.model, Self { day: text.day, cameras, people }))
    }
}

/// The file.
pub(super) struct KeptFile {
    path: PathBuf,
    key: StateKey,
    model: ModelId,
}

impl KeptFile {
    pub(super) fn new(folder: &Path, key: StateKey, model: ModelId) -> Self {
        Self { path: folder.join(FILE), key, model }
    }

    /// What was kept; nothing where nothing was, or nothing of use: then it is told why.
    pub(super) fn load(&self) -> Kept {
        let why = match read(&self.path, &self.key) {
            Ok(None) => return Kept::default(),
            Ok(Some((model, kept))) if model == self.model => return kept,
            Ok(Some((model, _))) => format!("it is of model {model}, whose scores are others"),
            Err(why) => why,
        };
        log::warn!("{}: {why}; the doors measure their match rates from the beginning", self.path.display());
        Kept::default()
    }

    /// Writes it whole beside the old one, and renames it over that.
    pub(super) fn save(&self, kept: &Kept) -> std::io::Result<()> {
        let sealed = self.key.seal(PURPOSE, &kept.to_text(&self.model)?).map_err(std::io::Error::other)?;
        files::replace(&self.path, &self.path.with_added_extension("new"), &sealed).map(drop)
    }
}

/// What lies there, and of which model.
pub(super) fn read(path: &Path, key: &StateKey) -> Result<Option<(ModelId, Kept)>, String> {
    let bytes = files::read(path, MAX_BYTES + 1).map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let plain = key.open(PURPOSE, &bytes).ok_or("it is not what this device wrote")?;
    Kept::from_text(&plain).map(Some)
}

/// Any bytes at all as the content of the file: read without a panic, and what is read is written and read again as the same.
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub(in crate::daemon) fn content(bytes: &[u8]) {
    if let Ok((model, kept)) = Kept::from_text(bytes) {
        let text = kept.to_text(&model).expect("what was read can be written");
        let (again, same) = Kept::from_text(&text).expect("what was written can be read");
        assert_eq!((again, same.to_text(&model).expect("as before")), (model, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    fn kept() -> Kept {
        let score = |value: f32| Score::new(value).unwrap();
        let mut camera = Camera { raised: Some(score(0.55)), alarmed: true, lower_since: Some(3), ..Camera::new(score(0.525)) };
        (0..50u8).for_each(|n| camera.strangers.add(score(f32::from(n) / 100.0), 40.0));
        camera.grants.add(score(0.8), 10.0);
        let near = Near { granted: 3.0, narrow: 1.0, refused: 0.5, strangers: 2.0 };
        Kept {
            day: 20_000,
            cameras: [(CameraId::new("porch").unwrap(), camera)].into(),
            people: [(PersonId::new("ada").unwrap(), near)].into(),
        }
    }

    fn file(folder: &Path, key: &StateKey, model: &str) -> KeptFile {
        let key = crate::publish::StateKey::derived(key.to_line().as_bytes(), "test");
        KeptFile::new(folder, key, ModelId::new(model).unwrap())
    }

    #[test]
    fn what_was_kept_is_read_again_and_names_nobody_on_the_disk() {
        let (folder, key) = (tempfile::tempdir().unwrap(), StateKey::generate().unwrap());
        assert_eq!(file(folder.path(), &key, "m").load(), Kept::default());
        let before = kept();
        file(folder.path(), &key, "m").save(&before).unwrap();
        let after = file(folder.path(), &key, "m").load();
        assert_eq!((after.day, &after.people), (before.day, &before.people));
        let (a, b) = (before.cameras.values().next().unwrap(), after.cameras.values().next().unwrap());
        assert_eq!((a.configured, a.raised, a.alarmed, a.lower_since), (b.configured, b.raised, b.alarmed, b.lower_since));
        assert!((a.strangers.total() - b.strangers.total()).abs() < 0.05, "rounded to a thousandth");
        let sealed = std::fs::read(folder.path().join(FILE)).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"\"ada\""));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn another_models_another_devices_or_a_damaged_file_is_begun_anew() {
        let (folder, key) = (tempfile::tempdir().unwrap(), StateKey::generate().unwrap());
        file(folder.path(), &key, "m").save(&kept()).unwrap();
        assert_eq!(file(folder.path(), &key, "other").load(), Kept::default());
        assert_eq!(file(folder.path(), &StateKey::generate().unwrap(), "m").load(), Kept::default());
        let path = folder.path().join(FILE);
        let sealed = std::fs::read(&path).unwrap();
        for at in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            std::fs::write(&path, broken).unwrap();
            assert_eq!(file(folder.path(), &key, "m").load(), Kept::default(), "byte {at}");
            std::fs::write(&path, &sealed[..at]).unwrap();
            assert_eq!(file(folder.path(), &key, "m").load(), Kept::default(), "cut at {at}");
        }
    }

    #[test]
    fn a_seeded_walk_over_the_content_breaks_no_promise() {
        let text = kept().to_text(&ModelId::new("m").unwrap()).unwrap();
        assert!(Kept::from_text(&text).is_ok());
        let empty = Kept::default().to_text(&ModelId::new("m").unwrap()).unwrap();
        walk("match-rates", &[&text, &empty], 3_000, content);
        for wrong in [r#"[400,1.0]"#, r#"[3,-1.0]"#, r#"[3,1e9]"#] {
            let text = String::from_utf8(text.clone()).unwrap().replacen("\"strangers\":[", &format!("\"strangers\":[{wrong},"), 1);
            assert!(Kept::from_text(text.as_bytes()).is_err(), "{wrong}");
        }
    }
}
