//! What the index finds against a plain comparison of every template in `f32`: on drawn clusters, and on faces of photos that are not
//! part of the project (`FACEID_SHARED` or `../shared`; without them the test says so, and fails when `FACEID_REQUIRE_SHARED=1`).

#![allow(clippy::unwrap_used, reason = "a test that cannot make its own gallery has failed")]

use std::path::{Path, PathBuf};

use faceid_plus::capture::still;
use faceid_plus::gallery::{Gallery, SealingKey, Settings, Snapshot};
use faceid_plus::inference::manifest::Manifest;
use faceid_plus::pipeline::{Asked, look_at_subject};
use faceid_plus::types::{Embedding, ModelId, Person, PersonId, Wall};
use faceid_plus::vision::quality;
use faceid_plus::vision::stack::Stack;

/// How far a score may lie from that of the templates as they came: they are kept in 16 bits a number.
const ROUNDING: f32 = 1e-4;
/// The seed of everything drawn here.
const SEED: u64 = 2024;
/// Photos of one person that are enrolled, and as many that are searched with.
const PHOTOS: usize = 2;
/// People of photos.
const PEOPLE: usize = 60;

struct Enrolled {
    person: PersonId,
    templates: Vec<Embedding>,
}

struct Draw {
    random: fastrand::Rng,
    model: ModelId,
    dimension: usize,
}

impl Draw {
    fn new(model: &ModelId, dimension: usize) -> Self {
        println!("seed {SEED}");
        Self { random: fastrand::Rng::with_seed(SEED), model: model.clone(), dimension }
    }

    fn direction(&mut self) -> Embedding {
        let values = (0..self.dimension).map(|_| (0..12).map(|_| self.random.f32()).sum::<f32>() - 6.0).collect();
        Embedding::normalised(self.model.clone(), values).unwrap()
    }

    /// At `cosine` to `centre`, or nearly.
    fn near(&mut self, centre: &Embedding, cosine: f32) -> Embedding {
        let noise = self.direction();
        Embedding::fuse([(centre, cosine), (&noise, (1.0 - cosine * cosine).sqrt())]).unwrap()
    }

    /// People of some templates each, about as alike as a person's photos, and a probe of each.
    fn people(&mut self, people: usize, each: usize) -> (Vec<Enrolled>, Vec<Embedding>) {
        let (mut enrolled, mut probes) = (Vec::new(), Vec::new());
        for number in 0..people {
            let centre = self.direction();
            let templates = (0..each).map(|_| self.near(&centre, 0.77)).collect();
            probes.push(self.near(&centre, 0.77));
            enrolled.push(Enrolled { person: PersonId::new(format!("drawn-{number}")).unwrap(), templates });
        }
        (enrolled, probes)
    }
}

fn gallery(enrolled: &[Enrolled], model: &ModelId, dimension: usize) -> (tempfile::TempDir, Gallery) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { dir: folder.path().join("gallery"), ..Settings::default() };
    let gallery = Gallery::create_or_open(&settings, &SealingKey::generate().unwrap(), model, dimension).unwrap();
    let person = |entry: &Enrolled| {
        let id = entry.person.clone();
        let person = Person { id, name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
        (person, entry.templates.clone())
    };
    gallery.enroll_many(enrolled.iter().map(person).collect()).unwrap();
    (folder, gallery)
}

/// Everybody with the best score by a plain comparison, best first.
fn plain(enrolled: &[Enrolled], probe: &Embedding) -> Vec<(PersonId, f32)> {
    let best = |entry: &Enrolled| entry.templates.iter().map(|t| t.compare(probe).unwrap().value()).fold(f32::MIN, f32::max);
    let mut all: Vec<_> = enrolled.iter().map(|entry| (entry.person.clone(), best(entry))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

/// Each rank has the score of that rank in the plain comparison, of a person who has that score there: two that the rounding cannot
/// tell apart may change places.
fn assert_exact(snapshot: &Snapshot, enrolled: &[Enrolled], probe: &Embedding) {
    const RANKS: usize = 5;
    let expected = plain(enrolled, probe);
    let found = snapshot.search_exactly(probe, RANKS).unwrap();
    assert_eq!(found.len(), RANKS.min(expected.len()));
    for (found, (_, score)) in found.iter().zip(&expected) {
        let own = expected.iter().find(|(person, _)| *person == found.person).unwrap().1;
        assert!((found.score.value() - score).abs() <= ROUNDING, "{} for {score}", found.score.value());
        assert!((found.score.value() - own).abs() <= ROUNDING);
    }
    let matches = snapshot.matches(probe, RANKS).unwrap();
    for (found, matched) in found.iter().zip(&matches) {
        let entry = enrolled.iter().find(|entry| entry.person == matched.person).unwrap();
        let mut scores: Vec<f32> = entry.templates.iter().map(|t| t.compare(probe).unwrap().value()).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        assert_eq!((&matched.person, matched.best), (&found.person, found.score));
        assert_eq!(matched.second.is_some(), scores.len() > 1);
        assert!(matched.second.is_none_or(|second| (second.value() - scores[1]).abs() <= ROUNDING));
    }
}

#[test]
fn the_exact_scan_finds_whom_a_plain_comparison_finds() {
    let model = ModelId::new("drawn").unwrap();
    for (dimension, people, each) in [(1, 40, 2), (33, 300, 3), (128, 500, 10), (512, 300, 10), (1_000, 60, 4)] {
        let mut draw = Draw::new(&model, dimension);
        let (enrolled, probes) = draw.people(people, each);
        let (_folder, gallery) = gallery(&enrolled, &model, dimension);
        let snapshot = gallery.snapshot();
        for probe in probes.iter().take(30) {
            assert_exact(&snapshot, &enrolled, probe);
            assert_exact(&snapshot, &enrolled, &draw.direction());
        }
        for entry in enrolled.iter().take(10) {
            assert_exact(&snapshot, &enrolled, &entry.templates[0]);
        }
    }
}

#[test]
fn faces_of_photos_among_drawn_ones_are_found_as_a_plain_comparison_finds_them() {
    let Some((shared, library)) = shared() else { return };
    let manifest = Manifest::builtin().unwrap();
    let settings = faceid_plus::inference::Settings { library: Some(library), ..Default::default() };
    let mut stack = Stack::open(&manifest, "arcface-512-research", &shared.join("models"), &settings).unwrap();
    let (model, dimension) = (stack.embedder.model().clone(), stack.embedder.dimension());
    let mut draw = Draw::new(&model, dimension);
    let (mut enrolled, _) = draw.people(1_000, 10);
    let mut probes = Vec::new();
    for photos in photos(&shared).chunks(10).take(PEOPLE) {
        let faces: Vec<Embedding> = photos
            .iter()
            .take(2 * PHOTOS)
            .filter_map(|photo| embed(&mut stack, &shared.join("faces/lfw/images").join(photo)))
            .collect();
        let (templates, rest) = faces.split_at(PHOTOS.min(faces.len()));
        probes.extend(rest.to_vec());
        let person = PersonId::new(photos[0].split('/').next().unwrap().to_lowercase()).unwrap();
        enrolled.push(Enrolled { person, templates: templates.to_vec() });
    }
    assert!(probes.len() > PEOPLE, "only {} photos had a face", probes.len());
    let (_folder, gallery) = gallery(&enrolled, &model, dimension);
    let snapshot = gallery.snapshot();
    let mut largest = 0.0f32;
    for probe in &probes {
        assert_exact(&snapshot, &enrolled, probe);
        let (found, expected) = (snapshot.search(probe, 1).unwrap(), plain(&enrolled, probe));
        largest = largest.max((found[0].score.value() - expected[0].1).abs());
    }
    println!("{} probes of photos, the largest difference of a score {largest:e}", probes.len());
}

/// The shared folder and ONNX Runtime's library, or `None` after saying what is missing.
fn shared() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("FACEID_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let library =
        std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| root.join(".cache/onnxruntime/libonnxruntime.so"), PathBuf::from);
    let found = folder.join("models").is_dir() && folder.join("faces").is_dir() && library.exists();
    if !found {
        println!("SKIPPED: no shared networks and photos in {}, or no {}", folder.display(), library.display());
        assert_ne!(std::env::var("FACEID_REQUIRE_SHARED").as_deref(), Ok("1"), "FACEID_REQUIRE_SHARED is set");
    }
    found.then_some((folder, library))
}

/// Ten photos of each person, PERSON/PHOTO.
fn photos(shared: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(shared.join("faces/lfw/gallery-and-probes.txt")).unwrap();
    list.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn embed(stack: &mut Stack, path: &Path) -> Option<Embedding> {
    let picture = still::read_picture(path).unwrap();
    look_at_subject(stack, &picture, &quality::Settings::default(), Asked::Embedding).unwrap()?.embedding
}
