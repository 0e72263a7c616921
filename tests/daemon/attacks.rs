//! What attackers got through on the machine itself, tried again with the scripts and the binary as they are shipped: files that were open,
//! links that were followed, keys that lay where a broken service would find them, and libraries that anybody could leave.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{House, service, text};

/// A user who owns nothing else here.
const SOMEBODY: u32 = 61_234;

fn systemd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn is_root() -> bool {
    let is_root = Path::new("/proc/self").metadata().unwrap().uid() == 0;
    if !is_root {
        println!("SKIPPED: not root: nothing can be given to another user");
    }
    is_root
}

/// A script of the package with another root.
fn script(name: &str, root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.arg(systemd().join(name)).args(arguments).env("DESTDIR", root).env("DPKG_ROOT", root);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name}: {}", text(&output));
    output
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

const PRIVATE: &str = "[[policy.people]]\nid = \"ada\"\ncredentials = [\"7319\"]\nduress-credentials = [\"7318\"]\n";

#[test]
fn a_config_is_installed_closed_and_an_open_one_of_an_older_installation_is_closed() {
    let root = tempfile::tempdir().unwrap();
    script("install.sh", root.path(), &[env!("CARGO_BIN_EXE_faceid")]);
    let folder = root.path().join("etc/faceid");
    let config = folder.join("config.toml");
    assert_eq!(mode(&config), 0o640);
    assert_eq!(mode(&folder) & 0o022, 0, "others could put a config of theirs there");
    // An older installation, with what an editor and dpkg leave beside it.
    for name in ["config.toml", "door.toml", "config.toml~", "config.toml.dpkg-old"] {
        std::fs::write(folder.join(name), PRIVATE).unwrap();
        set_mode(&folder.join(name), 0o646);
    }
    script("install.sh", root.path(), &[env!("CARGO_BIN_EXE_faceid")]);
    for name in ["config.toml", "door.toml", "config.toml~", "config.toml.dpkg-old"] {
        assert_eq!(mode(&folder.join(name)) & 0o007, 0, "{name}");
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), PRIVATE, "{name}");
    }
    // What images are made ready by at their first start, and what the package carries.
    let rules = std::fs::read_to_string(root.path().join("usr/lib/tmpfiles.d/faceid.conf")).unwrap();
    for line in ["z /etc/faceid/config.toml ~0640 root faceid -", "z /etc/faceid/door.toml ~0640 root faceid-door -"] {
        assert!(rules.lines().any(|rule| rule == line), "{rules}");
    }
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\"etc/faceid/config.toml\", \"640\""), "the package's config is open");
}

#[test]
fn an_open_config_is_warned_of_where_it_holds_what_opens_doors_and_nowhere_else() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let config = house.path("config.toml");
    let check = |body: &str, mode: u32| {
        std::fs::write(&config, body).unwrap();
        set_mode(&config, mode);
        let output = house.run(&["--config", config.to_str().unwrap(), "check"]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let said = check(PRIVATE, 0o644);
    assert!(
        said.contains("warning: mode 644") && said.contains("policy.people.duress-credentials") && !said.contains("7319"),
        "{said}"
    );
    let doctor = house.run(&["--config", config.to_str().unwrap(), "doctor"]);
    assert!(text(&doctor).contains("BROKEN card numbers and the like: mode 644"), "{}", text(&doctor));
    assert!(!check(PRIVATE, 0o640).contains("warning: mode 6"));
    let doctor = house.run(&["--config", config.to_str().unwrap(), "doctor"]);
    assert!(!text(&doctor).contains("card numbers and the like"), "{}", text(&doctor));
    assert!(!check("device = \"unit\"\n", 0o644).contains("warning: mode 6"), "nothing private is in it");
}

#[test]
fn an_operators_key_is_made_where_it_is_told_and_never_on_the_device() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let at = |name: &str| house.path(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(house.path("state")).unwrap();
    symlink(house.path("secrets"), house.path("link")).unwrap();
    for (verb, name) in [("--operator", "operator.key"), ("--snapshots", "snapshot.key")] {
        house.fail(64, &["keygen", verb]);
        for place in ["secrets/x", "state/x", "link/x", "secrets/../secrets/x"] {
            assert!(house.fail(77, &["keygen", verb, &at(place)]).contains("elsewhere"), "{verb} {place}");
        }
        let public = house.succeed(&["keygen", verb, &at(name)]);
        assert_eq!(mode(&house.path(name)), 0o600);
        assert_eq!(house.succeed(&["keygen", verb, &at(name), "--public"]), public);
        // `keygen … > operators.json` a second time: the shell has emptied the file, and it gets the same again.
        let again = house.run(&["keygen", verb, &at(name)]);
        assert_eq!((again.status.code(), String::from_utf8_lossy(&again.stdout).as_ref()), (Some(77), public.as_str()));
        assert!(!text(&house.run(&["keygen", verb, &at("absent"), "--public"])).is_empty());
        assert!(!house.path("absent").exists(), "--public made a key");
    }
    assert!(house.fail(77, &["gallery", "backup-key", &at("secrets/identity")]).contains("elsewhere"));
    let door = house.succeed(&["keygen", "--door"]);
    assert_eq!(house.succeed(&["keygen", "--door", "--public"]), door);
    assert_eq!(
        service::files(&house.path("secrets")),
        ["door.key", "gallery.key", "grant.key", "state.key"],
        "something else lies among the device's secrets"
    );
    // One that an older program put there is told of.
    std::fs::copy(house.path("operator.key"), house.path("secrets/operator.key")).unwrap();
    let said = text(&house.run(&["doctor"]));
    assert!(said.contains("weak   key operator.key") && said.contains("lies on the device"), "{said}");
}

#[test]
fn the_units_hand_over_each_secret_by_its_name_and_start_without_those_that_are_not_there() {
    let read = |name: &str| std::fs::read_to_string(systemd().join(name)).unwrap();
    let root = tempfile::tempdir().unwrap();
    let sealed = root.path().join("etc/faceid/sealed");
    std::fs::create_dir_all(&sealed).unwrap();
    ["gallery.key", "hall-password", "operator.key", "snapshot.key"]
        .iter()
        .for_each(|name| std::fs::write(sealed.join(name), "s").unwrap());
    script("seal-keys", root.path(), &["--by-name"]);
    let written = root.path().join("etc/systemd/system/faceid.service.d/sealed-keys.conf");
    let written = std::fs::read_to_string(written).unwrap();
    assert!(written.contains("\nLoadCredentialEncrypted=secrets_hall-password:/etc/faceid/sealed/hall-password\n"), "{written}");
    assert!(written.contains("\nSetCredential=secrets_hall-password:\\x00\n"), "{written}");
    assert!(!written.contains("operator.key") && !written.contains("snapshot.key"), "{written}");
    let shipped = ["faceid.service", "faceid-door.service", "faceid.service.d/sealed-keys.conf"];
    for (name, unit) in shipped.iter().map(|name| (*name, read(name))).chain([("what seal-keys wrote", written)]) {
        let named: Vec<(&str, &str)> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("LoadCredential=").or_else(|| line.strip_prefix("LoadCredentialEncrypted=")))
            .filter(|value| !value.is_empty())
            .map(|value| value.split_once(':').unwrap())
            .collect();
        assert!(!named.is_empty(), "{name}");
        for (id, path) in named {
            let file = Path::new(path).file_name().unwrap().to_str().unwrap();
            assert_eq!(id.trim_start_matches("secrets_"), file, "{name} hands over a folder, or one thing as another");
            if name.ends_with(".service") {
                assert!(
                    unit.lines().any(|line| line == format!("SetCredential={id}:\\x00")),
                    "{name}: without {id} it does not start"
                );
            }
        }
    }
    // The unit names what the program asks for in a plain config.
    let house = House::new();
    let config = house.path("config.toml");
    std::fs::write(&config, "").unwrap();
    for (service, unit) in [("run", "faceid.service"), ("door", "faceid-door.service")] {
        let unit = read(unit);
        for name in house.succeed(&["--config", config.to_str().unwrap(), "check", "--secrets", service]).lines() {
            assert!(unit.contains(&format!("LoadCredential={name}:")), "{name}");
        }
    }
}

/// Secrets of which one is a link to the site's own key, one a second name of it, and one a folder's; and the site's files.
fn with_links(root: &Path) -> (PathBuf, PathBuf) {
    let (site, secrets) = (root.join("srv"), root.join("etc/faceid/secrets"));
    std::fs::create_dir_all(site.join("folder")).unwrap();
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::create_dir_all(root.join("etc/faceid")).unwrap();
    let key = site.join("site.key");
    std::fs::write(&key, "the site's own").unwrap();
    std::fs::write(site.join("folder/other.key"), "the site's own").unwrap();
    std::fs::write(secrets.join("gallery.key"), "ours").unwrap();
    symlink(&key, secrets.join("mqtt-client-key")).unwrap();
    symlink(&key, secrets.join(".hidden")).unwrap();
    std::fs::hard_link(&key, secrets.join("second-name")).unwrap();
    symlink(site.join("folder"), secrets.join("a-folder")).unwrap();
    symlink(site.join("folder"), root.join("etc/faceid/sealed")).unwrap();
    (site, secrets)
}

fn is_untouched(site: &Path) {
    for file in ["site.key", "folder/other.key"] {
        assert_eq!(
            std::fs::read_to_string(site.join(file)).ok().as_deref(),
            Some("the site's own"),
            "{file} was overwritten through a link"
        );
    }
}

#[test]
fn a_purge_and_the_sealing_overwrite_no_key_of_the_sites_through_a_link() {
    for (name, arguments) in
        [("uninstall.sh", &["--purge"][..]), ("debian/postrm", &["purge"][..]), ("seal-keys", &["--remove-plain"][..])]
    {
        let root = tempfile::tempdir().unwrap();
        let (site, secrets) = with_links(root.path());
        script(name, root.path(), arguments);
        is_untouched(&site);
        assert!(!secrets.join("gallery.key").exists(), "{name} left a key");
        assert!(!secrets.join("mqtt-client-key").is_symlink() && !secrets.join("second-name").exists(), "{name} left a link");
        if name != "seal-keys" {
            assert!(!root.path().join("etc/faceid").exists(), "{name}");
        }
        // The folder of secrets, and the one above it, as a link to a folder of the site's.
        for link in ["etc/faceid/secrets", "etc/faceid"] {
            let root = tempfile::tempdir().unwrap();
            let site = root.path().join("srv");
            std::fs::create_dir_all(site.join("folder/secrets")).unwrap();
            std::fs::write(site.join("site.key"), "the site's own").unwrap();
            std::fs::write(site.join("folder/other.key"), "the site's own").unwrap();
            std::fs::write(site.join("folder/secrets/third.key"), "the site's own").unwrap();
            std::fs::create_dir_all(root.path().join(link).parent().unwrap()).unwrap();
            symlink(site.join("folder"), root.path().join(link)).unwrap();
            script(name, root.path(), arguments);
            is_untouched(&site);
            if name != "seal-keys" {
                assert_eq!(std::fs::read_to_string(site.join("folder/secrets/third.key")).unwrap(), "the site's own");
            }
        }
    }
}

fn photo() -> String {
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/people/person-a/person-a_0001.jpg");
    photo.to_str().unwrap().to_owned()
}

/// A house whose state folder is another user's, who has planted links in it to files of root's, and those files.
fn invaded() -> (House, PathBuf) {
    let house = House::new();
    set_mode(house.folder.path(), 0o755);
    house.succeed(&["keygen"]);
    let (state, roots) = (house.path("state"), house.path("roots"));
    std::fs::create_dir_all(&state).unwrap();
    std::fs::create_dir_all(&roots).unwrap();
    set_mode(&roots, 0o755);
    chown(&state, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    (house, roots)
}

#[test]
fn root_enrols_in_anothers_folder_with_that_users_rights() {
    if !is_root() {
        return;
    }
    let (house, roots) = invaded();
    let state = house.path("state");
    house.succeed(&["--backend", "tract", "enroll", "person-a", &photo()]);
    let walk = service::files(&state);
    assert!(walk.iter().any(|file| file == "gallery/people.gallery"), "{walk:?}");
    for file in walk {
        assert_eq!(state.join(&file).symlink_metadata().unwrap().uid(), SOMEBODY, "{file} is root's: the service cannot write it");
    }
    // The trail names who called, and not whose rights were taken.
    let trail = house.succeed(&["audit", "export"]);
    assert!(trail.contains("\"uid\":0") && !trail.contains(&format!("\"uid\":{SOMEBODY}")), "{trail}");
    // The epoch's new copy, the lock and a folder: what the service's user plants leads nowhere, with the link and without a race.
    let key = roots.join("key");
    std::fs::write(&key, "root's own").unwrap();
    set_mode(&key, 0o600);
    for place in ["gallery/people.gallery.unfinished", "gallery/people.journal", "gallery/people.lock", "gallery.epoch"] {
        let place = state.join(place);
        let before = std::fs::read(&place).ok();
        let _ = std::fs::remove_file(&place);
        symlink(&key, &place).unwrap();
        let output = house.run(&["--backend", "tract", "gallery", "compact"]);
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "root's own", "{}: {}", place.display(), text(&output));
        assert_eq!(mode(&key), 0o600);
        let _ = std::fs::remove_file(&place);
        if let Some(before) = before {
            std::fs::write(&place, before).unwrap();
            chown(&place, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
    }
    std::fs::remove_dir_all(state.join("gallery")).unwrap();
    symlink(&roots, state.join("gallery")).unwrap();
    let output = house.run(&["--backend", "tract", "enroll", "person-a", &photo()]);
    assert!(!output.status.success(), "a link in the gallery's place was followed");
    assert_eq!(service::files(&roots), ["key"]);
    assert_eq!(mode(&roots), 0o755);
}

#[test]
fn a_link_in_the_gallerys_place_is_refused_by_root_in_its_own_folder_too() {
    let house = House::new();
    house.succeed(&["keygen"]);
    let (state, elsewhere) = (house.path("state"), house.path("elsewhere"));
    std::fs::create_dir_all(&state).unwrap();
    std::fs::create_dir_all(&elsewhere).unwrap();
    set_mode(&elsewhere, 0o755);
    symlink(&elsewhere, state.join("gallery")).unwrap();
    let output = house.run(&["--backend", "tract", "enroll", "person-a", &photo()]);
    assert!(!output.status.success() && text(&output).contains("it is a link to a folder"), "{}", text(&output));
    assert_eq!((mode(&elsewhere), service::files(&elsewhere)), (0o755, vec![]));
}

#[test]
fn root_loads_no_library_that_another_user_left_where_the_environment_points() {
    if !is_root() || !cfg!(feature = "ort") {
        return;
    }
    let house = House::new();
    set_mode(house.folder.path(), 0o755);
    let (folder, mark) = (house.path("theirs"), house.path("it-ran"));
    std::fs::create_dir(&folder).unwrap();
    let (source, library) = (folder.join("fake.c"), folder.join("libonnxruntime.so"));
    let code = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void begin(void) {{ open(\"{}\", O_CREAT | O_WRONLY, 0600); }}\n\
         const void* OrtGetApiBase(void) {{ return 0; }}\n",
        mark.display()
    );
    std::fs::write(&source, code).unwrap();
    let compiler = std::env::var_os("FACEID_CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        return println!("SKIPPED: no C compiler to build a library with");
    }
    chown(&folder, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    chown(&library, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let doctor = |named: &str| {
        let output = house.command().env("ORT_DYLIB_PATH", named).arg("doctor").output().unwrap();
        text(&output)
    };
    let said = doctor(library.to_str().unwrap());
    assert!(said.contains(&format!("belongs to user {SOMEBODY}")), "{said}");
    assert!(!mark.exists(), "another user's code ran as root");
    let config = house.path("config.toml");
    std::fs::write(&config, format!("[inference]\nlibrary = \"{}\"\n", library.display())).unwrap();
    let output = house.command().env("ORT_DYLIB_PATH", "").args(["--config", config.to_str().unwrap(), "doctor"]).output().unwrap();
    assert!(text(&output).contains(&format!("belongs to user {SOMEBODY}")) && !mark.exists(), "{}", text(&output));
    // The same file as root's own is loaded, as far as it goes: what is refused above is refused for its owner.
    chown(&folder, Some(0), Some(0)).unwrap();
    chown(&library, Some(0), Some(0)).unwrap();
    assert!(doctor(library.to_str().unwrap()).contains("its entry point gives nothing") && mark.exists());
}
