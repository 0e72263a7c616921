//! `eval`: what is measured on the shared photos is what such networks reach, and a list that is none is refused with file and line.

use std::path::Path;

use serde_json::Value;

use super::{House, shared};

/// Pairs of each kind that are compared: enough to see a broken step, few enough for a minute.
const PAIRS: usize = 60;

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_list_that_is_none_is_refused_with_file_and_line() {
    let house = House::new();
    let list = house.path("pairs.txt");
    let images = house.path("images");
    std::fs::create_dir_all(&images).unwrap();
    for (text, word) in [
        (&b""[..], "line 1"),
        (b"10 300\nSomebody\t1\t2\nthis is no pair at all\n", "line 3"),
        (b"Somebody 1 two\n", "line 1"),
        (b"../somebody 1 2\n", "line 1"),
        (b"\xff\xfe\x00garbage\x80", "line 1"),
    ] {
        std::fs::write(&list, text).unwrap();
        let said = house.fail(65, &["eval", "verification", "--images", path(&images), "--pairs", path(&list)]);
        assert!(said.contains("pairs.txt") && said.contains(word), "{said}");
    }
    std::fs::write(&list, "A/A_0001.jpg\nsomewhere else\n").unwrap();
    let said = house.fail(65, &["eval", "identification", "--images", path(&images), "--list", path(&list)]);
    assert!(said.contains("line 2"), "{said}");
    house.fail(65, &["eval", "verification", "--images", path(&images), "--pairs", path(&house.path("absent.txt"))]);
    house.fail(65, &["eval", "liveness", "--live", path(&images), "--attack", &format!("print={}", path(&images))]);
    house.fail(64, &["eval", "liveness", "--live", path(&images), "--attack", "print"]);
}

#[test]
fn verification_on_a_part_of_lfw_is_as_good_as_the_packs_are() {
    let Some(shared) = shared() else { return };
    let lfw = shared.join("faces/lfw");
    let all = std::fs::read_to_string(lfw.join("pairs.txt")).unwrap();
    let of = |fields: usize| {
        let pairs: Vec<&str> = all.lines().filter(|line| line.split_whitespace().count() == fields).collect();
        pairs.into_iter().step_by(7).take(PAIRS).map(|pair| format!("{pair}\n")).collect::<String>()
    };
    for pack in ["standard", "small"] {
        let house = House::furnished(&shared, pack);
        let (list, plots) = (house.path("pairs.txt"), house.path("plots"));
        std::fs::write(&list, format!("{}{}Absent 1 2\n", of(3), of(4))).unwrap();
        let said = house.succeed(&[
            "--pack",
            pack,
            "eval",
            "verification",
            "--images",
            path(&lfw.join("images")),
            "--pairs",
            path(&list),
            "--json",
            "--plots",
            path(&plots),
        ]);
        let report: Value = serde_json::from_str(&said).unwrap();
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {report}"));
        assert_eq!((&report["n_same"], &report["n_different"]), (&Value::from(PAIRS), &Value::from(PAIRS)));
        assert_eq!(report["failures_to_enroll"], 2);
        assert_eq!(report["failed_photos"][0]["image"], "Absent/Absent_0001.jpg");
        // A hundred and twenty pairs of people who are known to be told apart in 99 of 100: three errors are bad luck already.
        assert!(number(&report["accuracy"]) >= 0.97, "{pack}: {report}");
        assert!(number(&report["eer"]) <= 0.03, "{pack}: {report}");
        let at = &report["tar_at_far"]["1e-2"];
        assert!(number(&at["tar"]) >= 0.95, "{pack}: {report}");
        assert!(number(&at["interval"][0]) < number(&at["tar"]) && number(&at["threshold"]) > 0.05);
        for plot in ["verification-det", "verification-scores"] {
            let svg = std::fs::read_to_string(plots.join(plot).with_extension("svg")).unwrap();
            assert!(svg.starts_with("<svg") && svg.contains("FNMR") == (plot == "verification-det"));
            assert_eq!(image::open(plots.join(plot).with_extension("png")).unwrap().width(), 960);
        }
    }
}

#[test]
fn calibrate_gives_a_threshold_that_the_photos_can_show_and_refuses_what_they_cannot() {
    let house = House::new();
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/people");
    let asked = |fpir: &str, templates: &str| {
        ["calibrate", "--images", path(&people), "--fpir", fpir, "--templates", templates, "--json"].map(str::to_owned)
    };
    let said = house.fail(65, &asked("0.001", "1000").each_ref().map(String::as_str));
    assert!(said.contains("cannot show") && said.contains("--fpir"), "{said}");
    house.fail(64, &asked("0", "10").each_ref().map(String::as_str));
    house.fail(65, &["calibrate", "--images", path(&people.join("person-a")), "--templates", "1"]);

    let report: Value = serde_json::from_str(&house.succeed(&asked("0.2", "10").each_ref().map(String::as_str))).unwrap();
    let (fmr, point) = (report["fmr"].as_f64().unwrap(), &report["at_threshold"]);
    assert!((fmr - (1.0 - 0.8f64.powf(0.1))).abs() < 1e-9, "{report}");
    // Fourteen people with four photos each: 1,456 comparisons of two people, 84 of one.
    assert_eq!((&report["n_different"], &report["n_same"]), (&Value::from(1456), &Value::from(84)), "{report}");
    assert!(point["fmr"]["interval"][1].as_f64().unwrap() <= fmr, "{report}");
    assert!(point["fnmr"]["value"].as_f64().unwrap() < 0.2, "{report}");
}

/// The clips of a small trial with who is in them: two clips of one person, two of another, one of a third.
const VISITS: &str =
    "person,clip\nperson-0,again.mkv\nperson-0,brother.mkv\nperson-1,bird.mkv\nperson-1,sorry.mkv\nperson-2,book.mkv\n";

#[test]
fn a_door_trial_counts_visits_and_tells_a_threshold_that_lets_strangers_in() {
    let Some(shared) = shared() else { return };
    let house = House::furnished(&shared, "standard");
    let (list, plots, clips) = (house.path("visits.csv"), house.path("plots"), shared.join("clips"));
    std::fs::write(&list, VISITS).unwrap();
    let trial = |pack: &str, more: &[&str]| -> Value {
        let asked = ["--pack", pack, "eval", "door", "--clips", path(&clips), "--list", path(&list), "--json"];
        serde_json::from_str(&house.succeed(&[&asked[..], more].concat())).unwrap()
    };
    for pack in ["standard", "builtin"] {
        let report = trial(pack, &["--plots", path(&plots)]);
        let errors = &report["trials"][0];
        assert_eq!((&report["clips"], &report["people"]), (&Value::from(5), &Value::from(3)));
        assert_eq!(
            (&errors["false_grants"]["count"], &errors["false_grants"]["n"]),
            (&Value::from(0), &Value::from(16)),
            "{report}"
        );
        assert_eq!(errors["clusters"]["strangers"]["n"], 3, "three pairs of people, however many clips: {report}");
        assert_eq!(errors["false_refusals"]["n"], 4, "{report}");
        assert!(errors["false_grants"]["interval"][1].as_f64().unwrap() > 0.2, "sixteen visits show little: {report}");
        let visits = errors["visits"].as_array().unwrap();
        assert!(visits.len() == 20 && visits.iter().all(|visit| visit["clip"] != visit["enrolled_from"]), "{report}");
        assert!(plots.join("door-det.svg").exists() && plots.join("door-scores.png").exists());
    }
    // Two trials of one playing: the pack's own threshold, and one that anybody reaches.
    let report = trial("standard", &["--match-threshold", "0.99,0.05"]);
    let granted = |trial: usize| report["trials"][trial]["false_grants"]["count"].as_u64().unwrap();
    assert_eq!((granted(0), granted(1)), (0, 16), "{report}");
    assert_eq!(report["trials"][0]["false_refusals"]["count"], 4, "{report}");
    // Everybody enrolled from one clip: each clip is a stranger's where its own person is left out.
    let report = trial("standard", &["--gallery", "all"]);
    let errors = &report["trials"][0];
    assert_eq!((&errors["false_grants"]["n"], &errors["false_refusals"]["n"]), (&Value::from(5), &Value::from(2)), "{report}");
    assert_eq!(
        (&errors["false_grants"]["count"], &errors["wrong_person"]["count"]),
        (&Value::from(0), &Value::from(0)),
        "{report}"
    );

    std::fs::write(&list, "person-0,again.mkv\nperson-1,../clips/bird.mkv\n").unwrap();
    let said = house.fail(65, &["eval", "door", "--clips", path(&clips), "--list", path(&list)]);
    assert!(said.contains("line 2") && said.contains("PERSON,CLIP"), "{said}");
    house.fail(65, &["eval", "door", "--clips", path(&house.path("nowhere"))]);
}

#[test]
fn strangers_whom_other_networks_find_alike_are_the_harder_ones() {
    let Some(shared) = shared() else { return };
    let images = shared.join("faces/lfw/images");
    let house = House::furnished(&shared, "standard");
    for pack in ["small", "arcface-512-research"] {
        house.succeed(&["models", "fetch", pack, "--from", path(&shared.join("models")), "--accept-licence"]);
    }
    let mut people: Vec<_> = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).collect();
    people.sort();
    let is_twice = |folder: &&std::path::PathBuf| (2..=3).contains(&std::fs::read_dir(folder).unwrap().count());
    let chosen: Vec<_> = people.iter().filter(is_twice).step_by(9).take(60).collect();
    let names: String = chosen.iter().map(|folder| format!("{}\n", folder.file_name().unwrap().to_str().unwrap())).collect();
    let (list, excluded) = (house.path("people.txt"), house.path("excluded.txt"));
    std::fs::write(&list, names).unwrap();
    let asked =
        ["--pack", "standard", "eval", "alike", "--images", path(&images), "--people", path(&list), "--list", "3", "--json"];
    let judges = ["--judge", "small", "--judge", "arcface-512-research"];
    let report: Value = serde_json::from_str(&house.succeed(&[&asked[..], &judges[..], &["--share", "0.05"]].concat())).unwrap();
    let network = &report["networks"][0];
    let [random, alike] = ["random", "alike"].map(|cohort| &network["cohorts"][cohort]);
    let pairs = |cohort: &Value| cohort["pairs"].as_u64().unwrap();
    assert_eq!(pairs(alike), (pairs(random) as f64 * 0.05).round() as u64, "{report}");
    let score = |cohort: &Value| cohort["at_fmr"]["1e-2"]["threshold"].as_f64().unwrap();
    assert!(score(alike) > score(random) + 0.05, "{report}");
    assert_eq!(network["highest_alike"].as_array().unwrap().len(), 3);

    // The most alike pair is called a wrong label: it is gone, and nothing else.
    let pair = network["highest_alike"][0]["pair"].as_array().unwrap();
    std::fs::write(&excluded, format!("{} {}\n", pair[1].as_str().unwrap(), pair[0].as_str().unwrap())).unwrap();
    let less = [&asked[..], &judges[..], &["--share", "1", "--exclude", path(&excluded)]].concat();
    let less: Value = serde_json::from_str(&house.succeed(&less)).unwrap();
    let cohort = &less["networks"][0]["cohorts"]["alike"];
    assert_eq!(pairs(cohort), pairs(random) - 1, "{less}");
    assert!(
        !less["networks"][0]["highest_alike"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["pair"] == network["highest_alike"][0]["pair"])
    );

    let said = house.fail(64, &[&asked[..], &["--judge", "small"]].concat());
    assert!(said.contains("two --judge"), "{said}");
    let said = house.fail(64, &[&asked[..], &["--judge", "small", "--judge", "standard"]].concat());
    assert!(said.contains("judge itself"), "{said}");
}

#[test]
fn no_simulated_stranger_of_a_small_part_comes_near_the_shipped_threshold() {
    let Some(shared) = shared() else { return };
    let images = shared.join("faces/lfw/images");
    let house = House::furnished(&shared, "standard");
    for pack in ["small", "arcface-512-research"] {
        house.succeed(&["models", "fetch", pack, "--from", path(&shared.join("models")), "--accept-licence"]);
    }
    let mut people: Vec<_> = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).collect();
    people.sort();
    let is_twice = |folder: &&std::path::PathBuf| (2..=3).contains(&std::fs::read_dir(folder).unwrap().count());
    let chosen: Vec<_> = people.iter().filter(is_twice).step_by(9).take(60).collect();
    let names: String = chosen.iter().map(|folder| format!("{}\n", folder.file_name().unwrap().to_str().unwrap())).collect();
    let list = house.path("people.txt");
    std::fs::write(&list, names).unwrap();
    let asked =
        ["--pack", "standard", "eval", "visits", "--images", path(&images), "--people", path(&list), "--visitors", "15", "--json"];
    let judges = ["--judge", "small", "--judge", "arcface-512-research"];
    let report: Value = serde_json::from_str(&house.succeed(&[&asked[..], &judges[..]].concat())).unwrap();
    let network = &report["networks"][0];
    let rate = |people: &str| network["at_threshold"][people]["all"]["value"].as_f64().unwrap();
    assert_eq!([rate("1"), rate("10"), rate("100")], [0.0; 3], "{report}");
    // How near they come: a threshold loosened to there would show, and strangers who score nothing would prove nothing.
    let row = network["table"].as_array().unwrap().iter().find(|row| row["people"] == 10 && row["target"] == 1e-2).unwrap();
    let (needed, shipped) = (row["threshold"].as_f64().unwrap(), network["threshold"].as_f64().unwrap());
    assert!((0.3..shipped - 0.03).contains(&needed), "{needed} {shipped}: {report}");
    let bands = network["bands"].as_array().unwrap();
    assert!(bands.iter().all(|band| band["visits"] == 15), "{report}");
    let owners = |band: usize| bands[band]["owners"]["median"].as_f64().unwrap();
    assert!(owners(2) > needed, "an owner near the camera is more like the own portrait than any stranger: {report}");
    let sharp = |band: usize| bands[band]["measures"]["sharpness"]["median"].as_f64().unwrap();
    assert!(sharp(0) < sharp(2), "{report}");
}
