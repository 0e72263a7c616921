//! Who becomes whose template, by every way in: a stranger's photo among a person's, somebody who steps in before a camera, a clip of a
//! photo held up, pictures that stand on their heads, names that fall onto one another, and the same import again.

use std::path::{Path, PathBuf};

use faceid_plus::capture::settings::FileSource;
use faceid_plus::capture::{self, CameraSettings, Slot, Source, Taken};
use faceid_plus::system::stop;
use faceid_plus::types::{CameraId, Picture};
use faceid_plus::vision::pixels::{Sampler, View};
use image::imageops::crop_imm;
use image::{RgbImage, imageops};
use serde_json::{Value, json};

use super::House;
use super::both_sides::{command, furnish};
use super::http::{CLERK, start as start_api};
use super::mosquitto::Mosquitto;
use super::show_it::{Killed, PATIENCE, config, start};
use super::store::house;

fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(path)
}

fn photo(person: &str, number: u8) -> String {
    demo(&format!("people/{person}/{person}_000{number}.jpg")).to_str().unwrap().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Imports, ends with this code, and gives the report.
fn imported(house: &House, code: i32, arguments: &[&str]) -> Value {
    let output = house.command().args(["import", "--json"]).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    parsed(&String::from_utf8(output.stdout).unwrap())
}

/// The whole audit trail.
fn audited(house: &House) -> String {
    house.succeed(&["audit", "export"])
}

/// A folder of photos for each name, each of them copies of the files given.
fn folders(house: &House, name: &str, people: &[(&str, &[String])]) -> String {
    let root = house.path(name);
    for (folder, photos) in people {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        for (number, photo) in photos.iter().enumerate() {
            std::fs::copy(photo, root.join(folder).join(format!("{number}.jpg"))).unwrap();
        }
    }
    text(&root).to_owned()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is no JSON"))
}

fn people(house: &House) -> Vec<(String, u64)> {
    let list = parsed(&house.succeed(&["people", "list", "--json"]));
    let entry = |person: &Value| (person["person"].as_str().unwrap().to_owned(), person["templates"].as_u64().unwrap());
    list.as_array().unwrap().iter().map(entry).collect()
}

fn identity(house: &House, photo: &str) -> Option<String> {
    let output = house.run(&["recognize", "--json", photo]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    rows[0]["faces"][0]["identity"].as_str().map(str::to_owned)
}

/// Decodes a clip; each of these frames, and what of it, as a picture in the folder.
fn frames(clip: &str, wanted: &[u64], folder: &Path, part: impl Fn(u64, RgbImage) -> RgbImage) {
    std::fs::create_dir_all(folder).unwrap();
    let source = Source::File(FileSource { path: demo(clip), repeat: false, paced: false });
    let camera = CameraSettings { stall_timeout_ms: 60_000, ..CameraSettings::new(CameraId::new("clip").unwrap(), source) };
    let (slot, frames) = Slot::single();
    let (handle, ear) = stop::pair();
    let worker = {
        let slot = slot.clone();
        std::thread::spawn(move || {
            let _ = capture::run(&camera, Path::new("/nonexistent"), &slot, &|_| {}, &ear);
            slot.close();
        })
    };
    let mut found = 0;
    while found < wanted.len() {
        match frames.take_any(PATIENCE) {
            Taken::Item(_, frame) if wanted.contains(&frame.number) => {
                let name = folder.join(format!("{:05}.png", wanted.iter().position(|number| *number == frame.number).unwrap()));
                part(frame.number, rgb(&frame.picture)).save(name).unwrap();
                found += 1;
            }
            Taken::Item(..) => {}
            _ => panic!("the clip ended before its frames"),
        }
    }
    handle.stop();
    slot.close();
    worker.join().unwrap();
}

fn rgb(picture: &Picture) -> RgbImage {
    let size = (picture.width() as usize, picture.height() as usize);
    let mut image = RgbImage::new(picture.width(), picture.height());
    Sampler::default().resize(picture, View::whole(picture), size, |row, [red, green, blue]| {
        for column in 0..size.0 {
            let pixel = [red[column], green[column], blue[column]].map(|value| value.round() as u8);
            image.put_pixel(column as u32, row as u32, image::Rgb(pixel));
        }
    });
    image
}

/// A config with one camera that shows the pictures of a folder, one after another.
fn before_pictures(house: &House, folder: &Path, repeat: bool) -> PathBuf {
    let config = house.path("pictures.toml");
    let text = format!(
        "[models]\npack = \"builtin\"\n[inference]\nbackend = \"tract\"\n[publish]\nhost = \"127.0.0.1\"\nport = 1\n\
         [[cameras]]\nid = \"desk\"\n[cameras.source.images]\npath = \"{}\"\nloop = {repeat}\ninterval-ms = 220\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

#[test]
fn photos_of_two_people_are_no_enrolment_and_one_strangers_photo_among_many_is_named() {
    let house = house();
    let said = house.fail(65, &["enroll", "mixed", &photo("person-c", 1), &photo("person-d", 1)]);
    assert!(said.contains("not one person's") && said.contains("--allow-other-face"), "{said}");
    let output = house.run(&["enroll", "--json", "mixed", &photo("person-c", 1), &photo("person-d", 1)]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["code"]), (Some(65), &json!("faces-differ")), "{report}");
    assert!(people(&house).is_empty());

    let (own, other) = ([1, 2, 3].map(|number| photo("person-a", number)), photo("person-b", 1));
    let report = parsed(&house.succeed(&["enroll", "--json", "ada", &own[0], &other, &own[1], &own[2]]));
    assert_eq!((&report["templates_added"], &report["refused"][0]["code"]), (&json!(3), &json!("unlike-the-others")), "{report}");
    assert_eq!(report["refused"][0]["image"], json!(other));
    // Bob's own photo makes Bob, and nobody else is him.
    house.succeed(&["enroll", "bob", &other]);
    assert_eq!(identity(&house, &photo("person-b", 2)).as_deref(), Some("bob"));
}

/// The same rule while nobody runs, and through the daemon's socket.
#[test]
fn a_stranger_is_not_added_to_an_enrolled_person_unless_the_operator_insists_and_that_is_audited() {
    for with_daemon in [false, true] {
        let house = house();
        house.succeed(&["enroll", "ada", &photo("person-a", 1)]);
        let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
        let daemon = with_daemon.then(|| start(&house, &config));
        let said = house.fail(65, &["enroll", "ada", &photo("person-b", 1)]);
        assert!(said.contains("not like the one that is enrolled") && said.contains("--allow-other-face"), "{said}");
        let report = parsed(&house.succeed(&["enroll", "--json", "ada", &photo("person-b", 1), &photo("person-a", 2)]));
        assert_eq!((&report["templates_added"], &report["refused"][0]["code"]), (&json!(1), &json!("other-face")), "{report}");
        assert_eq!(people(&house), [("ada".to_owned(), 2)]);
        // What is there already adds nothing.
        let report = parsed(&house.succeed(&["enroll", "--json", "ada", &photo("person-a", 1)]));
        assert_eq!((&report["templates_added"], &report["already_there"]), (&json!(0), &json!(1)), "{report}");
        house.succeed(&["enroll", "ada", &photo("person-b", 1), "--allow-other-face"]);
        assert_eq!(people(&house), [("ada".to_owned(), 3)]);
        drop(daemon);
        assert_eq!(audited(&house).matches("\"allow_other_face\":true").count(), 1, "{}", audited(&house));
    }
}

#[test]
fn a_clip_in_which_somebody_else_steps_in_enrols_nobody() {
    let house = house();
    // Person A walks in, then B, then A on a telephone.
    let said = house.fail(65, &["enroll", "victim", text(&demo("door.mp4"))]);
    assert!(said.contains("another person stepped in"), "{said}");
    let report = house.run(&["enroll", "--json", "victim", text(&demo("door.mp4"))]);
    assert_eq!(report.status.code(), Some(65));
    assert!(people(&house).is_empty());
    house.succeed(&["enroll", "ada", text(&demo("turn-left.mp4"))]);
    assert_eq!(people(&house), [("ada".to_owned(), 5)]);
}

/// Half a second each of two people in turn, and a photo held up.
#[test]
fn before_a_camera_nobody_is_enrolled_with_somebody_else_and_no_picture_of_a_face_is() {
    let house = house();
    let (a, b) = (house.path("a"), house.path("b"));
    frames("door.mp4", &[150, 160, 170], &a, |_, frame| frame);
    frames("door.mp4", &[350, 360, 370], &b, |_, frame| frame);
    let turns = house.path("turns");
    std::fs::create_dir(&turns).unwrap();
    for (number, from) in [&a, &b].into_iter().enumerate() {
        for file in 0..3 {
            let name = format!("{file:05}.png");
            std::fs::copy(from.join(&name), turns.join(format!("{number}-{name}"))).unwrap();
        }
    }
    let config = before_pictures(&house, &turns, true);
    let said = house.fail(65, &["--config", text(&config), "enroll", "victim", "--camera", "desk"]);
    assert!(said.contains("another person stepped in"), "{said}");

    let truth = parsed(&std::fs::read_to_string(demo("door.json")).unwrap());
    let held_up = house.path("held-up");
    let wanted: Vec<u64> = (0..8).map(|n| 540 + 8 * n).collect();
    frames("door.mp4", &wanted, &held_up, |number, frame| {
        let faces = truth["frames"][usize::try_from(number).unwrap() - 1].as_array().unwrap();
        let phone = faces.iter().find(|face| face["kind"] == "phone").expect("the telephone is in view");
        let corner = |at: usize| phone["box"][at].as_f64().unwrap();
        let (width, height) = (corner(2) - corner(0), corner(3) - corner(1));
        // The telephone alone, without whoever holds it.
        let (left, top) = ((corner(0) - 0.6 * width).max(0.0), (corner(1) - 0.5 * height).max(0.0));
        let part = crop_imm(&frame, left as u32, top as u32, (2.2 * width) as u32, (2.0 * height) as u32).to_image();
        imageops::resize(&part, 3 * part.width(), 3 * part.height(), imageops::FilterType::Triangle)
    });
    let config = before_pictures(&house, &held_up, true);
    let said = house.fail(65, &["--config", text(&config), "enroll", "victim", "--camera", "desk"]);
    assert!(said.contains("taken for a picture"), "{said}");
    assert!(people(&house).is_empty());
}

#[test]
fn a_photo_that_stands_on_its_head_or_lies_on_its_side_is_refused_with_the_turn_that_mends_it() {
    let house = house();
    for person in ["person-a", "person-g", "person-j", "person-l"] {
        let upright = image::open(photo(person, 1)).unwrap().to_rgb8();
        let turned = [
            ("180 degrees", imageops::rotate180(&upright)),
            ("270 degrees", imageops::rotate90(&upright)),
            ("90 degrees", imageops::rotate270(&upright)),
        ];
        for (number, (turn, picture)) in turned.into_iter().enumerate() {
            let file = house.path(&format!("{person}-{number}.png"));
            picture.save(&file).unwrap();
            let said = house.fail(65, &["enroll", "jay", text(&file)]);
            // Where the detector sees no face in it, or not surely, that is as good.
            let is_told = said.contains(turn) && said.contains("turn it");
            let is_unseen = said.contains("no face") || said.contains("is refused") || said.contains("no usable");
            assert!(is_told || is_unseen, "{person} turned, {turn}: {said}");
            assert_eq!(identity(house_with(&house, person), text(&file)), None, "{person} turned, {turn}");
        }
        assert_eq!(people(&house).len(), 1);
        house.succeed(&["people", "remove", person]);
    }
}

/// The same house with a person in it.
fn house_with<'a>(house: &'a House, person: &str) -> &'a House {
    if people(house).is_empty() {
        house.succeed(&["enroll", person, &photo(person, 1)]);
    }
    house
}

#[test]
fn names_that_fall_onto_one_another_become_as_many_people_and_the_same_import_again_changes_nothing() {
    let house = house();
    let one = |person: &str| [photo(person, 1)];
    let (a, b, c, d) = (one("person-a"), one("person-b"), one("person-c"), one("person-d"));
    let dir = folders(&house, "people", &[("张伟", &a), ("李娜", &b), ("José", &c), ("Josè", &d)]);
    for round in 0..2 {
        let report = imported(&house, 0, &[&dir]);
        let (templates, there) = if round == 0 { (4, 0) } else { (0, 4) };
        assert_eq!(
            (&report["people"], &report["templates"], &report["already_there"], report["refused"].as_array().unwrap().len()),
            (&json!(4), &json!(templates), &json!(there), 0),
            "{report}"
        );
        assert_eq!(people(&house).iter().map(|(_, templates)| *templates).collect::<Vec<_>>(), [1; 4]);
    }
    let of_a = identity(&house, &photo("person-a", 2)).unwrap();
    assert_ne!(Some(of_a.clone()), identity(&house, &photo("person-b", 2)));
    assert!(house.succeed(&["people", "show", &of_a]).contains("张伟"));
    // A name that was given by hand stays.
    house.succeed(&["people", "set", &of_a, "--name", "Wei"]);
    house.succeed(&["import", &dir]);
    assert!(house.succeed(&["people", "show", &of_a]).contains("(Wei): 1 template"));
}

#[test]
fn a_strangers_folder_never_becomes_somebody_who_is_enrolled() {
    let house = house();
    house.succeed(&["enroll", "anna_b", &photo("person-a", 1), "--group", "vault", "--name", "Anna"]);
    // The id's own name, and one that an id cannot hold.
    let b = [photo("person-b", 1)];
    let dir = folders(&house, "people", &[("anna b", &b), ("anna_b", &[photo("person-c", 1)])]);
    let report = imported(&house, 65, &[&dir]);
    assert_eq!((&report["people"], &report["refused"][0]["code"]), (&json!(1), &json!("other-face")), "{report}");
    assert_eq!((&report["refused_people"], &report["refused_photos"]), (&json!({"other-face": 1}), &json!({})), "{report}");
    let anna = house.succeed(&["people", "show", "anna_b"]);
    assert!(anna.contains("(Anna): 1 template") && anna.contains("groups vault"), "{anna}");
    let stranger = identity(&house, &photo("person-b", 2)).unwrap();
    assert!(stranger.starts_with("anna_b-") && !house.succeed(&["people", "show", &stranger]).contains("vault"), "{stranger}");
    assert_eq!(identity(&house, &photo("person-c", 2)), None);
}

#[test]
fn photos_beyond_what_fits_and_a_strangers_among_them_are_refused_by_name_and_everybody_else_is_enrolled() {
    let house = house();
    let config = house.path("config.toml");
    std::fs::write(
        &config,
        "[models]\npack = \"builtin\"\n[gallery]\nmax-templates-per-person = 2\n[[cameras]]\nid = \"x\"\n[cameras.source.images]\npath = \"/\"\n",
    )
    .unwrap();
    let all = |person: &str| [1, 2, 3, 4].map(|number| photo(person, number));
    let ada = [all("person-a").to_vec(), vec![photo("person-b", 1)]].concat();
    let dir = folders(&house, "people", &[("ada", &ada), ("bob", &all("person-b")[..1]), ("zed", &all("person-d")[..2])]);
    let report = imported(&house, 65, &[&dir, "--config", text(&config)]);
    assert_eq!((&report["people"], &report["templates"]), (&json!(3), &json!(5)), "{report}");
    let refused: Vec<(&str, &str)> = report["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["path"].as_str().unwrap().rsplit('/').next().unwrap(), row["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        refused,
        [("2.jpg", "too-many-templates"), ("3.jpg", "too-many-templates"), ("4.jpg", "unlike-the-others")],
        "{report}"
    );
    assert_eq!(identity(&house, &photo("person-b", 2)).as_deref(), Some("bob"));
}

#[test]
fn the_api_refuses_two_peoples_photos_and_a_strangers_and_says_which_photo_it_was() {
    let house = House::new();
    let daemon = start_api(&house, "");
    let bytes = |person: &str, number| std::fs::read(photo(person, number)).unwrap();
    let (b, d) = (bytes("person-b", 1), bytes("person-d", 1));
    let post = |words: &[(&str, &str)], pictures: &[&[u8]]| {
        let (status, body) = daemon.post_form("/people", Some(CLERK), words, pictures);
        (status, parsed(&body))
    };
    let (status, answer) = post(&[("id", "new")], &[&b, &d]);
    assert_eq!((status, &answer["code"], &answer["refused"][1]["file"]), (422, &json!("faces-differ"), &json!(1)), "{answer}");
    let (status, answer) = post(&[("id", "person-a")], &[&b]);
    assert_eq!((status, &answer["code"], &answer["refused"][0]["file"]), (422, &json!("other-face"), &json!(0)), "{answer}");
    let mut turned = std::io::Cursor::new(Vec::new());
    let upright = image::load_from_memory(&b).unwrap().to_rgb8();
    imageops::rotate180(&upright).write_to(&mut turned, image::ImageFormat::Png).unwrap();
    let (status, answer) = post(&[("id", "new")], &[turned.get_ref()]);
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = post(&[("id", "new")], &[&b, &bytes("person-b", 2), &d]);
    assert_eq!((status, &answer["templates_added"], &answer["refused"][0]["file"]), (201, &json!(2), &json!(2)), "{answer}");
    assert_eq!(answer["refused"][0]["code"], "unlike-the-others", "{answer}");
    let (status, answer) = post(&[("id", "new")], &[&b]);
    assert_eq!((status, &answer["templates_added"], &answer["already_there"]), (201, &json!(0), &json!(1)), "{answer}");
    let (status, answer) = post(&[("id", "person-a"), ("allow_other_face", "true")], &[&d]);
    assert_eq!((status, &answer["templates_added"]), (201, &json!(1)), "{answer}");
    let (status, _) = post(&[("id", "person-a"), ("allow_other_face", "perhaps")], &[&d]);
    assert_eq!(status, 400);
    drop(daemon);
    assert_eq!(people(&house), [("new".to_owned(), 2), ("person-a".to_owned(), 2), ("person-c".to_owned(), 1)]);
    assert_eq!(audited(&house).matches("\"allow_other_face\":true").count(), 1, "{}", audited(&house));
}

#[test]
fn a_command_enrols_nobody_when_somebody_steps_in_and_not_over_another_face_of_the_same_id() {
    let broker = Mosquitto::open();
    let (house, config) = furnish(broker.port, "[policy.throttle]\nfailures = 0\n");
    let turns = house.path("turns");
    frames("door.mp4", &[150, 160, 170, 350, 360, 370], &turns, |_, frame| frame);
    let only_b = house.path("only-b");
    frames("door.mp4", &[340, 346, 352, 358, 364, 370], &only_b, |_, frame| frame);
    let text_of = std::fs::read_to_string(&config).unwrap();
    let camera = |id: &str, folder: &Path| {
        let path = folder.display();
        format!("[[cameras]]\nid = \"{id}\"\n[cameras.source.images]\npath = \"{path}\"\nloop = true\ninterval-ms = 220\n")
    };
    std::fs::write(&config, text_of + &camera("turns", &turns) + &camera("only-b", &only_b)).unwrap();
    let _daemon: (Killed, _) = start(&house, &config);
    let refused = |args: Value| {
        let words = ["--config", text(&config), "command", "enroll", "--lifetime", "90", "--args", &args.to_string()];
        let output = house.run(&words);
        assert_eq!(output.status.code(), Some(1), "{args}: {}", super::text(&output));
        parsed(&String::from_utf8(output.stdout).unwrap())
    };
    let began = std::time::Instant::now();
    let reply = refused(json!({ "person": "newcomer", "camera": "turns", "seconds": 60 }));
    assert_eq!((&reply["ok"], &reply["code"]), (&json!(false), &json!("another-person")), "{reply}");
    assert!(began.elapsed() < PATIENCE, "whoever steps in ends it at once");
    // Somebody else's face for an id that is enrolled.
    let reply = refused(json!({ "person": "person-a", "camera": "only-b", "seconds": 60 }));
    assert_eq!(reply["code"], "other-face", "{reply}");
    let list = command(&house, &config, &["list"])["result"]["people"].clone();
    let known: Vec<(&str, u64)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|person| (person["id"].as_str().unwrap(), person["templates"].as_u64().unwrap()))
        .collect();
    assert_eq!(known, [("person-a", 4), ("person-c", 4)]);
    let done =
        command(&house, &config, &["enroll", "--lifetime", "90", "--args", r#"{"person":"bob","camera":"only-b","seconds":60}"#]);
    assert_eq!((&done["ok"], &done["result"]["templates_added"]), (&json!(true), &json!(5)), "{done}");
}

/// The demo's clip with a note that it was held upside down: every player turns it by 180 degrees.
#[test]
fn a_clip_that_says_how_it_was_held_is_turned_as_every_player_turns_it() {
    let house = house();
    let mut clip = std::fs::read(demo("turn-left.mp4")).unwrap();
    // ISO/IEC 14496-12, 8.3.2: the track's matrix, 40 bytes behind the box's type (version 0); nine numbers of 32 bits, the first eight
    // with 16 or 30 bits behind the point.
    let header = clip.windows(4).position(|word| word == b"tkhd").unwrap();
    assert_eq!(clip[header + 4], 0, "another version of the box");
    let matrix = header + 4 + 40;
    let number = |at: usize| matrix + 4 * at..matrix + 4 * at + 4;
    let one = 0x0001_0000i32;
    assert_eq!((&clip[number(0)], &clip[number(4)]), (&one.to_be_bytes()[..], &one.to_be_bytes()[..]));
    let (width, height): ([u8; 4], [u8; 4]) =
        (clip[matrix + 36..matrix + 40].try_into().unwrap(), clip[matrix + 40..matrix + 44].try_into().unwrap());
    for (at, value) in [(0, (-one).to_be_bytes()), (4, (-one).to_be_bytes()), (6, width), (7, height)] {
        clip[number(at)].copy_from_slice(&value);
    }
    let turned = house.path("turned.mp4");
    std::fs::write(&turned, clip).unwrap();
    let said = house.fail(65, &["enroll", "ada", text(&turned)]);
    assert!(said.contains("not-upright") || said.contains("no face") || said.contains("no usable face"), "{said}");
    assert!(people(&house).is_empty());
}

#[test]
fn a_path_that_is_not_utf8_costs_no_verb_its_answer() {
    use std::os::unix::ffi::OsStrExt;
    let house = house();
    let strange = |name: &[u8]| house.folder.path().join(std::ffi::OsStr::from_bytes(name));
    let (good, bad) = (strange(b"ren\xe9.jpg"), strange(b"no\xe9.jpg"));
    std::fs::copy(photo("person-a", 1), &good).unwrap();
    std::fs::write(&bad, "no picture").unwrap();
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = house.command().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(70), "{arguments:?}: {said}");
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    };
    let word = std::ffi::OsStr::new;
    let (code, _, said) = run(&[word("enroll"), word("ada"), bad.as_os_str(), good.as_os_str()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(people(&house), [("ada".to_owned(), 1)]);
    let (code, rows, _) = run(&[word("recognize"), word("--json"), good.as_os_str(), bad.as_os_str(), word(&photo("person-a", 2))]);
    let rows = parsed(&rows);
    assert_eq!((code, rows.as_array().unwrap().len()), (Some(65), 3), "{rows}");
    assert_eq!((&rows[0]["faces"][0]["identity"], &rows[2]["faces"][0]["identity"]), (&json!("ada"), &json!("ada")), "{rows}");
    let (_, rows, _) = run(&[word("liveness"), word("--json"), good.as_os_str(), bad.as_os_str()]);
    assert_eq!(parsed(&rows).as_array().unwrap().len(), 2, "{rows}");
    let folder = house.path("people").join(std::ffi::OsStr::from_bytes(b"b\xe9la"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(photo("person-b", 1), folder.join(std::ffi::OsStr::from_bytes(b"\xe9.jpg"))).unwrap();
    std::fs::copy(&bad, folder.join(bad.file_name().unwrap())).unwrap();
    let report = imported(&house, 65, &[text(&house.path("people"))]);
    assert_eq!((&report["people"], &report["refused_photos"]), (&json!(1), &json!({"unreadable": 1})), "{report}");
}

/// What is left of the demo's photo of a person within the box of its face, enlarged or made smaller to this width.
fn face_of(house: &House, person: &str, number: u8, around: f32, width: u32) -> RgbImage {
    let path = photo(person, number);
    let rows = parsed(&String::from_utf8(house.run(&["liveness", "--json", &path]).stdout).unwrap());
    let area: Vec<f32> = rows[0]["faces"][0]["box"].as_array().unwrap().iter().map(|side| side.as_f64().unwrap() as f32).collect();
    let whole = image::open(&path).unwrap().to_rgb8();
    let (x, y) = ((area[0] - around * area[2]).max(0.0), (area[1] - around * area[3]).max(0.0));
    let (w, h) = (area[2] * (1.0 + 2.0 * around), area[3] * (1.0 + 2.0 * around));
    let face = crop_imm(&whole, x as u32, y as u32, w as u32, h as u32).to_image();
    let height = (width as f32 * face.height() as f32 / face.width() as f32) as u32;
    imageops::resize(&face, width, height, imageops::FilterType::Triangle)
}

#[test]
fn crops_of_a_face_come_in_as_crops_and_none_is_taken_for_aligned() {
    let house = house();
    let dir = house.path("crops");
    for person in ["person-a", "person-b", "person-c"] {
        std::fs::create_dir_all(dir.join(person)).unwrap();
        for number in 1..=3 {
            let face = image::DynamicImage::from(face_of(&house, person, number, 0.02, 47)).to_luma8();
            face.save(dir.join(person).join(format!("{number}.png"))).unwrap();
        }
    }
    let report = imported(&house, 65, &[text(&dir), "--aligned"]);
    assert_eq!((&report["people"], &report["refused_photos"]), (&json!(0), &json!({"not-aligned": 9})), "{report}");
    assert!(report["refused"][0]["reason"].as_str().unwrap().contains("--crops"), "{report}");
    let report = imported(&house, 65, &[text(&dir)]);
    assert_eq!(report["people"], 0, "too small: {report}");
    let output = house.run(&["import", text(&dir), "--crops", "--json"]);
    let report = parsed(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report["people"], 3, "{report}");
    for person in ["person-a", "person-b", "person-c"] {
        assert_eq!(identity(&house, &photo(person, 4)).as_deref(), Some(person));
    }
}

#[test]
fn a_face_that_fills_its_photo_is_enrolled_and_recognised() {
    let house = house();
    let file = house.path("full.png");
    face_of(&house, "person-a", 1, 0.0, 300).save(&file).unwrap();
    house.succeed(&["enroll", "ada", text(&file)]);
    assert_eq!(identity(&house, &photo("person-a", 2)).as_deref(), Some("ada"));
    assert_eq!(identity(&house, text(&file)).as_deref(), Some("ada"));
    // Half a face is none, with a margin or without.
    let whole = image::open(&file).unwrap().to_rgb8();
    let half = house.path("half.png");
    crop_imm(&whole, 0, 0, whole.width() / 2, whole.height()).to_image().save(&half).unwrap();
    house.fail(65, &["enroll", "bob", text(&half)]);
}

#[test]
fn an_import_tells_what_it_passed_over_which_ids_it_gave_and_how_a_folder_is_laid_out() {
    let house = house();
    let flat = house.path("flat");
    std::fs::create_dir_all(&flat).unwrap();
    std::fs::copy(photo("person-a", 1), flat.join("Ada.jpg")).unwrap();
    let said = house.fail(65, &["import", text(&flat)]);
    assert!(said.contains("a folder for each person") && said.contains("/ada/1.jpg"), "{said}");
    let dir = folders(&house, "people", &[("Jörg", &[photo("person-a", 1)]), ("bob", &[photo("person-b", 1)])]);
    let root = Path::new(&dir);
    std::fs::create_dir_all(root.join("bob/2024")).unwrap();
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::copy(photo("person-b", 2), root.join("beside.jpg")).unwrap();
    std::fs::copy(demo("turn-left.mp4"), root.join("bob/clip.mp4")).unwrap();
    let report = imported(&house, 65, &[&dir]);
    let passed: Vec<&str> = report["passed_over"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(passed, [format!("{dir}/beside.jpg"), format!("{dir}/bob/2024")], "{report}");
    assert_eq!((report["ids"].as_array().unwrap().len(), report["people"].as_u64()), (1, Some(2)), "{report}");
    assert!(report["refused"][0]["reason"].as_str().unwrap().contains("is a clip, and import takes photos"), "{report}");
    let said = house.fail(65, &["import", &dir]);
    for line in [
        "2 people with 0 templates enrolled, 2 already there",
        "refused: 1 of 3 photos: 1 unreadable",
        "passed over: 2 entries",
        "Jörg is enrolled as J_rg-",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = house.fail(64, &["enroll", "Jörg Müller", &photo("person-c", 1)]);
    assert!(said.contains("`joerg-mueller --name \"Jörg Müller\"`"), "{said}");
}

#[test]
fn enrolment_at_a_camera_that_is_not_there_says_so_at_once() {
    use std::io::{BufRead, BufReader};
    let house = house();
    let config = house.path("config.toml");
    std::fs::write(
        &config,
        "[models]\npack = \"builtin\"\n[[cameras]]\nid = \"dead\"\n[cameras.source.rtsp]\nurl = \"rtsp://127.0.0.1:1/none\"\n",
    )
    .unwrap();
    let mut child = house
        .command()
        .args(["--config", text(&config), "enroll", "x", "--camera", "dead"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let line = told.recv_timeout(left).expect("nothing is said");
        if line.contains("no picture comes yet") {
            assert!(line.contains("nothing listens on port 1 of 127.0.0.1"), "{line}");
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
