//! The service: its units as systemd judges them, its lines in a real journal, what `doctor` finds, and an installation that is undone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::{House, text};

/// What the base unit must stay at or below.
const MOST_EXPOSURE: f32 = 2.0;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The unit beside only these drop-ins, with the binary that was built now.
fn unit(name: &str, dropins: &[&str]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder().join(name)).unwrap().replace("/usr/bin/faceid", env!("CARGO_BIN_EXE_faceid"));
    std::fs::write(place.path().join(name), text).unwrap();
    let beside = place.path().join(format!("{name}.d"));
    std::fs::create_dir(&beside).unwrap();
    for dropin in dropins {
        std::fs::copy(folder().join(format!("{name}.d")).join(dropin), beside.join(dropin)).unwrap();
    }
    place
}

fn analyze(place: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).current_dir(place).env("LC_ALL", "C").output().unwrap()
}

#[test]
fn the_units_are_sound_and_expose_little() {
    if !has("systemd-analyze") {
        println!("SKIPPED: no systemd-analyze: the units' exposure is not measured");
        return;
    }
    for (name, dropins, most) in [
        ("faceid.service", &[][..], MOST_EXPOSURE),
        ("faceid.service", &["network.conf", "sealed-keys.conf"][..], MOST_EXPOSURE),
        ("faceid.service", &["v4l2.conf"][..], MOST_EXPOSURE),
        ("faceid.service", &["jetson.conf"][..], MOST_EXPOSURE + 0.2),
        ("faceid-door.service", &[][..], MOST_EXPOSURE),
        ("faceid-door.service", &["serial.conf", "network.conf"][..], MOST_EXPOSURE),
    ] {
        let place = unit(name, dropins);
        let said = text(&analyze(place.path(), &["security", "--offline=true", "--no-pager", name]));
        let line = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
        let level: f32 = line.split_once(".service:").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        println!("{name} {dropins:?}: {level}");
        assert!(level <= most, "{name} with {dropins:?}: {level}\n{said}");
        let verified = analyze(place.path(), &["verify", &format!("./{name}")]);
        // What other units of this machine lack is no matter of ours, nor are man pages that are not installed.
        let ours: Vec<String> =
            text(&verified).lines().filter(|line| line.contains("faceid") && !line.contains("man ")).map(str::to_owned).collect();
        assert!(ours.is_empty(), "{name} with {dropins:?}: {ours:?}");
    }
    // The measure itself notices a unit without its sandbox.
    let place = unit("faceid.service", &[]);
    std::fs::write(place.path().join("faceid.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let said = text(&analyze(place.path(), &["security", "--offline=true", "--no-pager", "--threshold=20", "faceid.service"]));
    assert!(said.contains("UNSAFE"), "{said}");
}

/// In mounts of its own: a journal daemon that writes to memory alone, the real binary logging to it as systemd would have it, and what
/// the journal then holds.
const WITH_JOURNAL: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/conf /run/systemd/journal /run/log/journal
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nForwardToSyslog=no\nForwardToWall=no\n' >/run/conf/journald.conf
mount --bind /run/conf /etc/systemd
/lib/systemd/systemd-journald 2>/dev/null & journald=$!
tries=0; until [ -S /run/systemd/journal/stdout ]; do tries=$((tries + 1)); [ $tries -lt 200 ]; sleep 0.05; done
systemd-cat -t faceid sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$@" & daemon=$!
tries=0
has() { journalctl -D /run/log/journal -q -o cat MESSAGE_ID=$1 | grep -q .; }
until has 2aa9252e22a4449aafbca71dd144c126 && has 073900f4259043a9aa659c3d8767c992; do
    tries=$((tries + 1)); [ $tries -lt 600 ] || { journalctl -D /run/log/journal --no-pager >&2; kill $daemon; exit 1; }; sleep 0.1
done
kill $daemon; wait $daemon || true
journalctl --sync 2>/dev/null || sleep 0.2
journalctl -D /run/log/journal -q -o json
kill $journald
"#;

#[test]
fn a_real_journal_keeps_message_ids_and_fields() {
    let is_root = rustix_is_root();
    if !is_root || !Path::new("/lib/systemd/systemd-journald").exists() || !has("unshare") || !has("systemd-cat") {
        println!("SKIPPED: no root or no systemd-journald: the journal's fields are not tested");
        return;
    }
    let house = House::new();
    house.succeed(&["keygen"]);
    let config = house.path("config.toml");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/idle.mp4");
    let camera =
        format!("[[cameras]]\nid = \"hall\"\n[cameras.source.file]\npath = \"{}\"\nloop = true\npaced = true\n", clip.display());
    std::fs::write(&config, format!("[models]\npack = \"builtin\"\n[publish]\nhost = \"127.0.0.1\"\nport = 1\n{camera}")).unwrap();
    let daemon = house.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", WITH_JOURNAL, "sh"]).arg(env!("CARGO_BIN_EXE_faceid"));
    command.arg("--config").arg(&config).arg("run");
    daemon.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(command.env(name, value)),
        None => drop(command.env_remove(name)),
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let entries: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |id: &str| entries.iter().find(|entry| entry["MESSAGE_ID"] == id);
    for (id, field, value) in [
        ("2aa9252e22a4449aafbca71dd144c126", "SYSLOG_IDENTIFIER", "faceid"),
        ("4d6d1ddb2a9e464d928d61dc3e052c89", "MODEL", ""),
        ("61f1a59d40c04f808459724af624dc66", "PEOPLE", "0"),
        ("073900f4259043a9aa659c3d8767c992", "CAMERA", "hall"),
        ("d544df3ded6c43d1aff16df6c4184313", "PRIORITY", "5"),
    ] {
        let entry = of(id).unwrap_or_else(|| panic!("no {id} among {} entries", entries.len()));
        let found = entry[field].as_str().unwrap_or_else(|| panic!("{field} of {entry}"));
        assert!(value.is_empty() || found == value, "{field} of {entry}");
        assert!(!entry["MESSAGE"].as_str().unwrap().contains("MESSAGE_ID"), "{entry}");
    }
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn findings(house: &House, config: &Path) -> (i32, Vec<Value>) {
    let output = house.command().arg("--config").arg(config).args(["doctor", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    (output.status.code().unwrap(), all.as_array().unwrap().clone())
}

fn finding<'a>(all: &'a [Value], check: &str) -> &'a Value {
    all.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("`{check}` is not among {all:?}"))
}

#[test]
fn doctor_names_what_is_broken_and_what_mends_it() {
    let house = House::new();
    let config = house.path("config.toml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    write("[[cameras]]\nid = \"hall\"\nsource = 1\n");
    let (code, all) = findings(&house, &config);
    assert_eq!((code, &finding(&all, "config")["state"]), (1, &Value::from("BROKEN")));

    let door = "[[cameras]]\nid = \"usb\"\n[cameras.source.v4l2]\ndevice = \"/nowhere/video0\"\n[controller]\nlock = \"gpio\"\n\
        [controller.gpio]\nchip = \"/nowhere/gpiochip0\"\nlock-line = 1\n[publish]\nhost = \"127.0.0.1\"\nport = 1\n\
        [publish.tls]\nenabled = true\nca-file = \"/nowhere/ca.pem\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
    write(door);
    let (code, all) = findings(&house, &config);
    assert_eq!(code, 1);
    for (check, state, mend) in [
        ("camera usb", "BROKEN", "/dev/video"),
        ("key gallery.key", "BROKEN", "faceid keygen"),
        ("key grant.key", "BROKEN", "faceid keygen"),
        ("gpio", "BROKEN", "gpiochip"),
        ("broker", "BROKEN", "[publish]"),
        ("broker's certificate", "weak", "[publish.tls]"),
        ("state folder", "weak", "install -d"),
        ("api", "weak", "http.tokens"),
    ] {
        let found = finding(&all, check);
        assert_eq!(found["state"], state, "{found}");
        assert!(found["mend"].as_str().unwrap().contains(mend), "{found}");
    }

    house.succeed(&["keygen"]);
    let open = |path: &Path, mode: u32| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    open(&house.path("secrets"), 0o755);
    open(&house.path("secrets/grant.key"), 0o644);
    open(&config, 0o666);
    let (_, all) = findings(&house, &config);
    let mode = |path: &Path| finding(&all, &format!("mode of {}", path.display())).clone();
    for wrong in [mode(&house.path("secrets")), mode(&config), finding(&all, "key grant.key").clone()] {
        assert_eq!(wrong["state"], "BROKEN", "{wrong}");
    }
}

#[test]
fn check_and_doctor_say_which_doors_passages_are_not_believed() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let (config, device) = (house.path("config.toml"), house.path("device.json"));
    let text = |counts: &str, keys: &str| {
        let device = device.display();
        format!(
            "[[cameras]]\nid = \"hall\"\n[cameras.source.v4l2]\ndevice = \"/nowhere\"\n\
             [[doors]]\nid = \"in\"\ncameras = [\"hall\"]\n{keys}[[doors]]\nid = \"out\"\ncameras = [\"hall\"]\n\
             [[policy.areas]]\nid = \"yard\"\nentries = [\"in\"]\nexits = [\"out\"]\nkind = \"hard\"\ncounts = \"{counts}\"\n\
             [controller]\ndoor = \"in\"\npinned-keys = \"{device}\"\n[controller.gpio]\nsensor-line = 1\n\
             [publish]\nhost = \"127.0.0.1\"\nport = 1\n"
        )
    };
    let check = |text: String| {
        std::fs::write(&config, text).unwrap();
        house.succeed(&["--config", config.to_str().unwrap(), "check"])
    };
    // What ends a start with 78 ends a check with it: a file of keys that is not there or is empty, a program of the lock that is not.
    let wrong = |text: String| {
        std::fs::write(&config, text).unwrap();
        house.fail(78, &["--config", config.to_str().unwrap(), "check"])
    };
    assert!(wrong(text("grants", "")).contains("controller.pinned-keys: ") && wrong(text("grants", "")).contains("device.json"));
    std::fs::write(&device, "").unwrap();
    assert!(wrong(text("grants", "")).contains("controller.pinned-keys: "));
    std::fs::write(&device, house.succeed(&["keygen", "--public"])).unwrap();
    assert!(
        wrong(text("grants", "controller-keys = \"/nowhere/in.json\"\n")).contains("doors.0.controller-keys: /nowhere/in.json")
    );
    let operators = text("grants", "").replace("[publish]\n", "[publish]\noperator-keys = \"/nowhere/desk.json\"\n");
    assert!(wrong(operators).contains("publish.operator-keys: /nowhere/desk.json"));
    let lock = "[controller]\nlock = \"command\"\ncommand = { unlock = [\"/nowhere/unlock\"], lock = [\"/bin/true\"] }\n";
    assert!(wrong(text("grants", "").replace("[controller]\n", lock)).contains("no program `/nowhere/unlock`"));
    assert!(!check(text("grants", "")).contains("note"), "nobody waits for passages");
    let said = check(text("passages", ""));
    assert!(said.matches("note: area `yard`").count() == 2 && said.contains("`in`") && said.contains("`out`"), "{said}");
    let (_, all) = findings(&house, &config);
    assert_eq!(finding(&all, "key door.key")["state"], "weak");

    let pinned = house.path("in.json");
    std::fs::write(&pinned, house.succeed(&["keygen", "--door"])).unwrap();
    assert!(house.fail(77, &["keygen", "--door"]).contains("door.key"), "a key that is there is kept");
    let said = check(text("passages", &format!("controller-keys = \"{}\"\n", pinned.display())));
    assert!(said.matches("note: area `yard`").count() == 1 && said.contains("`out`"), "{said}");
    let (_, all) = findings(&house, &config);
    let found = finding(&all, "passages of out");
    assert!(found["state"] == "weak" && found["mend"].as_str().unwrap().contains("keygen --door"), "{found}");
    assert!(!all.iter().any(|finding| finding["check"] == "passages of in"));
    assert_eq!(finding(&all, "key door.key")["state"], "ok");
}

#[test]
fn doctor_names_what_kind_of_key_each_is() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let config = house.path("config.toml");
    std::fs::write(&config, "[publish]\nhost = \"127.0.0.1\"\nport = 1\n").unwrap();
    let (_, all) = findings(&house, &config);
    let file = finding(&all, "key gallery.key");
    let path = house.path("secrets/gallery.key").display().to_string();
    assert_eq!(file["state"], "ok", "{file}");
    assert!(
        file["says"].as_str().unwrap().contains("a file only its owner may read") && file["says"].as_str().unwrap().contains(&path)
    );

    // As systemd gives them to a service.
    let given = house.path("credentials");
    std::fs::create_dir(&given).unwrap();
    std::fs::copy(house.path("secrets/gallery.key"), given.join("gallery.key")).unwrap();
    let mut command = house.command();
    let command = command.arg("--config").arg(&config).args(["doctor", "--json"]).env("CREDENTIALS_DIRECTORY", &given);
    let all: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let all = all.as_array().unwrap();
    let credential = finding(all, "key gallery.key");
    assert_eq!(credential["state"], "ok", "{credential}");
    assert!(credential["says"].as_str().unwrap().starts_with("a systemd credential, "), "{credential}");
    assert!(finding(all, "key grant.key")["says"].as_str().unwrap().contains("a file only its owner may read"));
}

#[test]
fn doctor_lets_a_sound_installation_pass() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let config = house.path("config.toml");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/idle.mp4");
    let text = format!(
        "[models]\npack = \"builtin\"\n[publish]\nhost = \"127.0.0.1\"\nport = 1\n[[cameras]]\nid = \"hall\"\n[cameras.source.file]\npath = \"{}\"\n",
        clip.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (code, all) = findings(&house, &config);
    let broken: Vec<&Value> = all.iter().filter(|finding| finding["state"] == "BROKEN").collect();
    assert!(code == 0 && broken.is_empty(), "{broken:?}");
    // The broker is away: weak, because decisions wait for it.
    assert_eq!(finding(&all, "broker")["state"], "weak");
    for check in ["clock", "service", "gpio", "disk", "backend", "key gallery.key", "camera hall"] {
        assert!(finding(&all, check)["says"].is_string());
    }
}

pub(super) fn files(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, all);
            } else {
                all.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut all = Vec::new();
    walk(folder, folder, &mut all);
    all.sort();
    all
}

#[test]
fn an_installation_is_undone_without_a_trace() {
    let root = tempfile::tempdir().unwrap();
    let run = |script: &str, arguments: &[&str]| {
        let output = Command::new("sh").arg(folder().join(script)).args(arguments).env("DESTDIR", root.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
    };
    std::fs::create_dir_all(root.path().join("etc/faceid")).unwrap();
    std::fs::write(root.path().join("etc/faceid/config.toml"), "# the site's own\n").unwrap();
    run("install.sh", &[env!("CARGO_BIN_EXE_faceid")]);
    let installed = files(root.path());
    for wanted in [
        "usr/bin/faceid",
        "usr/lib/systemd/system/faceid.service",
        "usr/lib/systemd/system/faceid-door.service",
        "usr/lib/systemd/catalog/faceid.catalog",
        "usr/share/doc/faceid/faceid.service.d/jetson.conf",
        "usr/share/man/man1/faceid-doctor.1",
        "usr/share/man/man5/faceid.toml.5",
    ] {
        assert!(installed.iter().any(|file| file == wanted), "{wanted} is not in {installed:?}");
    }
    let config = std::fs::read_to_string(root.path().join("etc/faceid/config.toml")).unwrap();
    assert_eq!(config, "# the site's own\n", "a config that was there was replaced");
    for (folder, file) in [("var/lib/faceid/gallery", "people.gallery"), ("etc/faceid/secrets", "gallery.key")] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
        std::fs::write(root.path().join(folder).join(file), "biometric").unwrap();
    }
    run("uninstall.sh", &[]);
    assert_eq!(
        files(root.path()),
        ["etc/faceid/config.toml", "etc/faceid/secrets/gallery.key", "var/lib/faceid/gallery/people.gallery"]
    );
    run("uninstall.sh", &["--purge"]);
    assert_eq!(files(root.path()), [""; 0]);
}

/// Each heading is a line of the log or an error, with `…` for what varies.
#[test]
fn every_line_of_the_troubleshooting_page_is_said_by_the_program() {
    let page = std::fs::read_to_string(folder().join("TROUBLESHOOTING.md")).unwrap();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources: Vec<String> = files(&src)
        .iter()
        .filter(|file| file.ends_with(".rs"))
        .map(|file| {
            let text = std::fs::read_to_string(src.join(file)).unwrap();
            // A literal that goes on in the next line.
            let mut whole = String::new();
            text.split("\\\n").for_each(|part| whole.push_str(if whole.is_empty() { part } else { part.trim_start() }));
            whole
        })
        .collect();
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert!(headings.len() >= 20, "{headings:?}");
    for heading in headings {
        let parts: Vec<&str> = heading.split('…').map(str::trim).filter(|part| !part.is_empty()).collect();
        let is_said = sources.iter().any(|source| {
            source.lines().any(|line| {
                let mut rest = line;
                parts.iter().all(|part| {
                    rest.find(part).is_some_and(|at| {
                        rest = &rest[at + part.len()..];
                        true
                    })
                })
            })
        });
        assert!(is_said, "no line of the source says `{heading}`");
    }
}
