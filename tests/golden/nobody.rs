//! The demo people are nobody: none comes closer to a real person than the nearest stranger does to half of the real people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use faceid_plus::inference::manifest::Manifest;
use faceid_plus::inference::{BackendChoice, Provider, Settings, open};
use faceid_plus::types::{Embedding, ModelId, Picture};
use faceid_plus::vision::{Detector, Embedder, align};

use super::picture_of;
use super::shared::{onnxruntime, shared};

/// The highest cosine that either network may see between a demo person and a photo of Labeled Faces in the Wild: the median over LFW's
/// people of the nearest other person's (data/demo/README.md).
const LIMIT: f32 = 0.41;
/// Either network's cosine of two photos of one demo person is above this: what is compared with the real ones is a face.
const OWN: f32 = 0.5;
/// Photos in which a face must be found, of LFW's 13,233 those at hand.
const PHOTOS: usize = 10_000;

/// The embeddings of a photo's central face, one a network.
struct Eye {
    detector: Detector,
    embedders: Vec<Embedder>,
}

impl Eye {
    fn new(settings: &Settings, models: &Path) -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/manifest.toml");
        let manifest: Manifest = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let id = |name: &str| ModelId::new(name).unwrap();
        let network = |id: &ModelId| open(settings, id, &manifest.models[id], models).unwrap();
        let detector = id("yunet-n-320");
        let embedders = ["mobilefacenet-foamliu", "retail-0095"].map(|name| {
            let id = id(name);
            Embedder::new(id.clone(), &manifest.models[&id], network(&id)).unwrap()
        });
        Self {
            detector: Detector::new(detector.clone(), &manifest.models[&detector], network(&detector)).unwrap(),
            embedders: embedders.into(),
        }
    }

    fn look(&mut self, picture: &Picture) -> Option<Vec<Embedding>> {
        let middle = (picture.width() as f32 / 2.0, picture.height() as f32 / 2.0);
        let off = |x: f32, y: f32| (x - middle.0).abs() + (y - middle.1).abs();
        let faces = self.detector.detect(picture).unwrap();
        let nearest = faces.into_iter().min_by(|a, b| {
            let [a, b] = [a, b].map(|face| face.bounding_box.center());
            off(a.x, a.y).total_cmp(&off(b.x, b.y))
        })?;
        let embed = |embedder: &mut Embedder| {
            let face = align(picture, &nearest.landmarks, embedder.template(), embedder.side())?;
            embedder.embed(&face).ok()
        };
        self.embedders.iter_mut().map(embed).collect()
    }
}

fn photos_of(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let sorted = |folder: &Path| {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let people = sorted(folder).into_iter().filter(|path| path.is_dir());
    people.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), sorted(&path))).collect()
}

fn picture(path: &Path) -> Picture {
    picture_of(image::open(path).unwrap().to_rgb8())
}

#[cfg(feature = "ort")]
#[test]
fn no_demo_person_is_near_a_real_one() {
    let (Some(folder), Some(library)) = (shared(), onnxruntime()) else { return };
    let settings =
        Settings { backend: BackendChoice::Ort, providers: vec![Provider::Cpu], library: Some(library), ..Settings::default() };
    let models = folder.join("models");
    let mut eye = Eye::new(&settings, &models);
    let demo = photos_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/people"));
    assert!(demo.len() >= 12, "{} demo people", demo.len());
    let people: Vec<(String, Vec<Embedding>)> = demo
        .into_iter()
        .map(|(name, photos)| {
            let shots: Vec<_> =
                photos.iter().map(|path| eye.look(&picture(path)).unwrap_or_else(|| panic!("{name}: no face"))).collect();
            let fused = [0, 1].map(|network| {
                for shot in &shots[1..] {
                    let own = shot[network].compare(&shots[0][network]).unwrap().value();
                    assert!(own > OWN, "{name}: two photos have a cosine of {own}");
                }
                Embedding::fuse(shots.iter().map(|shot| (&shot[network], 1.0))).unwrap()
            });
            (name, fused.into())
        })
        .collect();

    let real: Vec<PathBuf> = photos_of(&folder.join("faces/lfw/images")).into_values().flatten().collect();
    let nearest_of = |photos: &[PathBuf]| {
        let mut eye = Eye::new(&settings, &models);
        let mut nearest = vec![[f32::MIN; 2]; people.len()];
        let mut found = 0;
        for seen in photos.iter().filter_map(|path| eye.look(&picture(path))) {
            found += 1;
            for ((_, person), nearest) in people.iter().zip(&mut nearest) {
                for ((own, other), nearest) in person.iter().zip(&seen).zip(nearest) {
                    *nearest = nearest.max(own.compare(other).unwrap().value());
                }
            }
        }
        (found, nearest)
    };
    let (first, second) = real.split_at(real.len() / 2);
    let (mut found, mut nearest) = (0, vec![[f32::MIN; 2]; people.len()]);
    std::thread::scope(|scope| {
        for half in [first, second].map(|half| scope.spawn(move || nearest_of(half))) {
            let (faces, near) = half.join().unwrap();
            found += faces;
            nearest.iter_mut().flatten().zip(near.into_iter().flatten()).for_each(|(most, near)| *most = most.max(near));
        }
    });
    assert!(found >= PHOTOS, "a face was found in {found} photos only");
    for ((name, _), near) in people.iter().zip(&nearest) {
        println!("{name}: nearest of {found} photos {:.3} / {:.3}", near[0], near[1]);
        assert!(near.iter().all(|cosine| *cosine <= LIMIT), "{name} comes as close as {near:?} to a real person");
    }
}
