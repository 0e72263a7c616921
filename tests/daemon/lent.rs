//! A picture of an enrolled person, shown for a moment before a living stranger's face, lends the stranger nothing: the attack as it was
//! made, on every pack, with pictures, moments and people of several kinds. The random sequences beside the daemon's code hold the rule;
//! these clips hold that the networks' real scores come to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{House, shared};

/// What the shared clips' attack is tried on. Each asks for its own networks.
const PACKS: [&str; 4] = ["standard", "small", "arcface-512-research", "builtin"];

fn ffmpeg(arguments: &[&str]) {
    let made = Command::new("ffmpeg").args(["-y", "-loglevel", "error"]).args(arguments).status();
    assert!(made.expect("`make test` installs ffmpeg").success(), "{arguments:?}");
}

/// Whom a clip's visits name, with outcome and reason.
fn decisions(house: &House, pack: &str, clip: &Path) -> Vec<(String, String)> {
    let arguments = ["--pack", pack, "bench", "pipeline", clip.to_str().unwrap(), "--own-gallery", "--warmup", "0", "--json"];
    let report: Value = serde_json::from_str(&house.succeed(&arguments)).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = report["decisions"].as_array().unwrap().iter();
    told.map(|decision| (text(&decision["outcome"]), text(&decision["reason"]))).collect()
}

fn is_granted(decisions: &[(String, String)]) -> bool {
    decisions.iter().any(|(outcome, _)| outcome == "granted")
}

/// Person 3 on paper before person 0, who is alive: both are real people, and alike enough for one visit. It is shown in these frames.
fn before_a_real_face(shared: &Path, folder: &Path, name: &str, shown: &str) -> PathBuf {
    let (photo, clip) = (folder.join("photo.png"), folder.join(name));
    let [eat, again] = ["eat.mkv", "again.mkv"].map(|clip| shared.join("clips").join(clip));
    let paper = "crop=150:200:223:35,pad=170:220:10:10:white";
    ffmpeg(&["-ss", "0.8", "-i", eat.to_str().unwrap(), "-frames:v", "1", "-vf", paper, photo.to_str().unwrap()]);
    let filter =
        format!("[0:v]split[a][b];[b]reverse[r];[a][r]concat=n=2[l];[l][1:v]overlay=236:10:enable='{}'", shown.replace(',', "\\,"));
    let encoding = ["-c:v", "libx264", "-crf", "12", "-pix_fmt", "yuv420p"];
    let inputs = ["-i", again.to_str().unwrap(), "-i", photo.to_str().unwrap(), "-filter_complex", &filter];
    ffmpeg(&[&inputs[..], &encoding, &[clip.to_str().unwrap()]].concat());
    clip
}

#[test]
fn a_photo_shown_for_a_moment_before_a_living_stranger_lets_nobody_in_on_any_pack() {
    let Some(shared) = shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let moments = ["between(n,12,13)", "between(n,12,15)", "between(n,0,7)", "between(n,20,21)+between(n,26,27)"];
    let swaps: Vec<PathBuf> = moments
        .iter()
        .enumerate()
        .map(|(number, shown)| before_a_real_face(&shared, folder.path(), &format!("swap-{number}.mp4"), shown))
        .collect();
    let photo = before_a_real_face(&shared, folder.path(), "photo.mp4", "1");
    for pack in PACKS {
        let house = House::new();
        house.succeed(&["keygen"]);
        if pack != "builtin" {
            let models = shared.join("models");
            house.succeed(&["models", "fetch", pack, "--from", models.to_str().unwrap(), "--accept-licence"]);
        }
        let night = shared.join("clips/night.mkv");
        house.succeed(&["--pack", pack, "enroll", "victim", night.to_str().unwrap()]);
        for (clip, shown) in swaps.iter().zip(moments) {
            let told = decisions(&house, pack, clip);
            assert!(!told.is_empty() && !is_granted(&told), "{pack}, {shown}: {told:?}");
        }
        assert!(decisions(&house, pack, &photo).iter().all(|(_, reason)| reason == "spoof"), "{pack}");
        let own = decisions(&house, pack, &shared.join("clips/eat.mkv"));
        assert!(is_granted(&own), "{pack} keeps the person out: {own:?}");
    }
}
