//! Faces that stand on their heads or lie on their sides: the built-in detector invents upright faces in them, and sees through it when
//! it is shown the same face turned all four ways. A camera that hangs upside down decides nothing.

use std::path::Path;
use std::time::Duration;

use faceid_plus::inference::manifest::Manifest;
use faceid_plus::inference::{self, BackendChoice};
use faceid_plus::pipeline::{Pipeline, Settings};
use faceid_plus::types::{CameraId, Frame, Moment, Refusal, Wall};
use faceid_plus::vision::stack::Stack;
use faceid_plus::vision::upright::stance;
use image::{Rgb, RgbImage, imageops};

use super::picture_of;

fn stack() -> Stack {
    let networks = inference::Settings { backend: BackendChoice::Tract, ..inference::Settings::default() };
    Stack::open(&Manifest::builtin().unwrap(), "builtin", Path::new("."), &networks).unwrap()
}

fn photos() -> Vec<(String, RgbImage)> {
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/people");
    let mut folders: Vec<_> = std::fs::read_dir(people).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let photo = |folder: std::path::PathBuf| {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let photo = image::open(folder.join(format!("{name}_0001.jpg"))).unwrap().to_rgb8();
        (name, photo)
    };
    folders.into_iter().map(photo).collect()
}

#[test]
fn the_way_that_a_face_is_turned_is_told_and_upright_ones_are_left_alone() {
    let mut stack = stack();
    let (mut seen, mut missed) = ([0; 4], Vec::new());
    for (name, upright) in photos() {
        let turned = [
            (0, None, upright.clone()),
            (1, Some(270), imageops::rotate90(&upright)),
            (2, Some(180), imageops::rotate180(&upright)),
            (3, Some(90), imageops::rotate270(&upright)),
        ];
        for (way, expected, photo) in turned {
            let picture = picture_of(photo);
            let largest = stack.detector.detect(&picture).unwrap().into_iter();
            let Some(face) = largest.max_by(|a, b| a.bounding_box.area().total_cmp(&b.bounding_box.area())) else { continue };
            seen[way] += 1;
            let told = stance(&mut stack.detector, &picture, &face).unwrap();
            assert!(told.turned_by() == expected || (way > 0 && told.turned_by().is_none()), "{name}, way {way}: {told:?}");
            if told.turned_by() != expected {
                missed.push((name.clone(), way));
            }
        }
    }
    println!("faces found as they are, and turned by 90, 180 and 270 degrees: {seen:?}, missed {missed:?}");
    assert!(seen[0] == 14 && seen[2] >= 5 && missed.len() <= 2, "{seen:?}, missed {missed:?}");
}

#[test]
fn a_camera_that_hangs_upside_down_observes_nobody_and_says_why() {
    for turn in [false, true] {
        let mut pipeline = Pipeline::new(Settings::default(), stack(), None);
        let camera = CameraId::new("hall").unwrap();
        let (mut observed, mut attempts, mut now) = (0, Vec::new(), Moment::default());
        // One whom the detector sees upside down too.
        let (_, who) = photos().into_iter().find(|(name, _)| name == "person-j").unwrap();
        for number in 1..=40 {
            let mut scene = RgbImage::from_pixel(1280, 360, Rgb([90, 90, 90]));
            if number <= 15 {
                imageops::overlay(&mut scene, &who, 400, 30);
            }
            let scene = if turn { imageops::rotate180(&scene) } else { scene };
            now = Moment { monotonic: now.monotonic.plus(Duration::from_millis(66)), wall: Wall(now.wall.0 + 66) };
            let frame = Frame { camera: camera.clone(), number, captured_at: now, picture: picture_of(scene) };
            let seen = pipeline.process(&frame).unwrap();
            observed += seen.observations.len();
            attempts.extend(seen.attempts);
        }
        assert_eq!(observed > 0, !turn, "turned: {turn}");
        if turn {
            assert_eq!(attempts.iter().map(|attempt| attempt.refusal).collect::<Vec<_>>(), [Some(Refusal::NotUpright)]);
        }
    }
}
