//! What a config can be run with, and whoever runs it should know: no findings, for nothing here keeps the daemon from starting. `check` and
//! `doctor` say it, and the daemon's log once at its start.

use super::{BUILTIN_PACK, Config};
use crate::inference::manifest::Manifest;

impl Config {
    /// Each with its dotted key, the cause and the way out.
    pub fn warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        for (index, camera) in self.cameras.iter().enumerate() {
            let key = format!("cameras.{index}.source.{}", camera.source.address_key());
            if camera.source.leaves_tls() {
                warnings.push((
                    key.clone(),
                    format!(
                        "camera `{}`: with transport = \"udp\" the pictures of an rtsps:// camera come beside TLS: whoever gets at its cable or network can send a recording of somebody enrolled in their place and be let in. Use transport = \"tcp\"",
                        camera.id
                    ),
                ));
            } else if camera.source.is_anybodys() {
                warnings.push((
                    key.clone(),
                    format!(
                        "camera `{}`: rtsp:// does not prove who answers: whoever gets at its cable or network can play a recording of somebody enrolled and be let in{}. Use rtsps:// with `ca-file` or `fingerprint`; where the camera cannot, give it a network of its own (VLAN, 802.1X) and ask for a turn of the head (`challenge`)",
                        camera.id,
                        if camera.source.tells_password() { ", and is told the password in the address" } else { "" }
                    ),
                ));
            }
            if camera.source.carries_password() {
                warnings.push((
                    key,
                    format!(
                        "camera `{}`: its address carries a password, which whoever may read this file knows: write {{password}} in its place and name the secret in `password-secret`, or use `user` and `password-secret` where the camera takes them; then change that password",
                        camera.id
                    ),
                ));
            }
        }
        if !self.doors.is_empty() && self.has_demo_pack() {
            warnings.push(("models.pack".to_owned(), demo_pack_at_a_door(&self.models.pack, self.access.accept_demo_pack)));
        }
        warnings
    }

    /// Whether the pack embeds with a network that comes with the program, whatever the pack is called.
    fn has_demo_pack(&self) -> bool {
        let is_bundled = |manifest: Manifest| {
            let pack = manifest.pack_at(&self.models.pack, self.inference.precision).ok()?;
            Some(manifest.model(&pack.embedder).ok()?.is_bundled())
        };
        self.manifest().ok().and_then(is_bundled).unwrap_or(self.models.pack == BUILTIN_PACK)
    }
}

/// What the built-in pack is not made for. The figures are of PROJECT_REPORT.md.
fn demo_pack_at_a_door(pack: &str, is_accepted: bool) -> String {
    let state = if is_accepted { "opens this door because `access.accept-demo-pack` is set" } else { "opens no door" };
    format!(
        "pack `{pack}` {state}: its embedder is for a first look and lets in strangers who look alike (3 of 1,000 pairs of pictures of such people pass at its threshold, of `standard` 1 of 10,000). Run `faceid models fetch standard`, set pack = \"standard\" and enrol everybody anew"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let config = Config::parse(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}"));
        for (_, message) in config.warnings() {
            assert!(!message.contains("hunter2"), "{message}");
        }
        config.warnings().into_iter().map(|(key, _)| key).collect()
    }

    fn camera(source: &str) -> String {
        format!("[[cameras]]\nid = \"cam\"\n{source}\n")
    }

    #[test]
    fn a_camera_that_anybody_can_play_is_told_and_one_with_a_certificate_or_on_this_machine_is_not() {
        let rtsp = |url: &str| camera(&format!("[cameras.source.rtsp]\nurl = \"{url}\""));
        assert_eq!(keys(&rtsp("rtsp://192.0.2.7/1")), ["cameras.0.source.rtsp.url"]);
        assert_eq!(keys(&rtsp("rtsps://192.0.2.7/1")), [""; 0]);
        assert_eq!(keys(&rtsp("rtsp://127.0.0.1/1")), [""; 0]);
        for (address, told) in [("rtsps://192.0.2.7/1", 1), ("rtsps://[::1]/1", 0), ("rtsp://192.0.2.7/1", 1)] {
            let config = Config::parse(&format!("{}\ntransport = \"udp\"", rtsp(address))).unwrap();
            let warnings = config.warnings();
            assert_eq!(warnings.len(), told, "{address}");
            assert!(warnings.iter().all(|(_, told)| told.contains("beside TLS") == address.starts_with("rtsps")), "{warnings:?}");
        }
        let launch =
            |url: &str| camera(&format!("[cameras.source.launch]\npipeline = 'rtspsrc location={url} ! appsink name=faceid'"));
        assert_eq!(keys(&launch("rtsp://cam/1")), ["cameras.0.source.launch.pipeline"]);
        assert_eq!(keys(&launch("\"rtsps://cam/1\"")), [""; 0]);
        assert_eq!(keys(&camera("[cameras.source.v4l2]")), [""; 0]);
    }

    #[test]
    fn an_address_that_carries_a_password_is_told_and_one_with_a_place_for_it_is_not() {
        let rtsp = |url: &str| camera(&format!("[cameras.source.rtsp]\nurl = \"{url}\"\npassword-secret = \"cam\"\nuser = \"a\""));
        assert_eq!(keys(&rtsp("rtsps://cam/user=admin&password=hunter2")), ["cameras.0.source.rtsp.url"]);
        assert_eq!(keys(&rtsp("rtsps://cam/user=admin&password={password}")), [""; 0]);
        let launch = |words: &str| camera(&format!("[cameras.source.launch]\npipeline = '{words} ! appsink name=faceid'"));
        for words in [
            "rtspsrc location=rtsps://a:hunter2@cam/1",
            "rtspsrc location=rtsps://cam/1 user-pw=hunter2",
            "x location=http://cam/?pwd=hunter2",
        ] {
            assert_eq!(keys(&launch(words)), ["cameras.0.source.launch.pipeline"], "{words}");
        }
    }

    #[test]
    fn a_door_on_the_builtin_pack_is_told_and_what_it_does() {
        let door = "[[doors]]\nid = \"front\"\ncameras = [\"cam\"]\n[[cameras]]\nid = \"cam\"\n[cameras.source.v4l2]\n";
        let builtin = format!("{door}[models]\npack = \"builtin\"\n");
        let told = |text: &str| Config::parse(text).unwrap().warnings().into_iter().map(|(_, told)| told).collect::<String>();
        assert_eq!(keys(&builtin), ["models.pack"]);
        assert!(told(&builtin).contains("opens no door") && told(&builtin).contains("faceid models fetch standard"));
        assert!(told(&format!("{builtin}[access]\naccept-demo-pack = true\n")).contains("`access.accept-demo-pack` is set"));
        assert_eq!(keys(door), [""; 0], "the default is another");
        assert_eq!(keys("[models]\npack = \"builtin\"\n"), [""; 0], "without a door there is nothing to open");
    }

    /// A site's own pack around the same embedder is no other pack.
    #[test]
    fn the_builtin_embedder_under_another_name_is_told_too() {
        let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/manifest.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own.toml");
        std::fs::write(&own, manifest.replace("[packs.builtin]", "[packs.lobby]")).unwrap();
        let config = |pack: &str| {
            let door = "[[doors]]\nid = \"front\"\ncameras = [\"cam\"]\n[[cameras]]\nid = \"cam\"\n[cameras.source.v4l2]\n";
            format!("[models]\npack = \"{pack}\"\nmanifest = \"{}\"\n{door}", own.display())
        };
        assert_eq!(keys(&config("lobby")), ["models.pack"]);
    }
}
