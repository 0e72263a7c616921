//! Writes the commented default config: each key's documentation from the settings' source, each value from `Config::default()`. Only
//! tests need it; the program carries the result.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::Config;

/// What stands behind `# key = ` for a key that has no default, and whole sections that are empty by default. By dotted key.
const EXAMPLES: &[(&str, &str)] = &[
    ("models.dir", "\"/var/cache/faceid/models\""),
    ("models.manifest", "\"/etc/faceid/manifest.toml\""),
    ("inference.library", "\"/usr/lib/libonnxruntime.so\""),
    ("inference.cache-dir", "\"/var/cache/faceid/engines\""),
    ("gallery.epoch", "\"/mnt/second/gallery.epoch\""),
    ("access.match-threshold", "0.4"),
    ("access.margin", "0.05"),
    ("access.liveness-threshold", "0.9"),
    ("publish.user", "\"faceid\""),
    ("publish.password-secret", "\"mqtt-password\""),
    ("publish.client-id", "\"faceid-lobby\""),
    ("publish.operator-keys", "\"/etc/faceid/operators.json\""),
    ("publish.snapshot-recipient", "\"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9_AsrhtHHw\""),
    ("http.listen", "\"127.0.0.1:8000\""),
    ("controller.door", "\"front\""),
    ("controller.pinned-keys", "\"/etc/faceid/device-keys.json\""),
    ("controller.gpio.lock-line", "17"),
    ("controller.gpio.sensor-line", "27"),
    ("controller.gpio.exit-line", "22"),
    ("controller.osdp.line", "\"/dev/ttyAMA0\""),
    ("controller.osdp.people", "[[controller.osdp.people]]\nperson = \"ada\"\nfacility = 12\nnumber = 4217"),
    ("publish.tls.client-certificate-file", "\"/etc/faceid/client.pem\""),
    ("publish.tls.client-key-secret", "\"mqtt-client-key\""),
    (
        "cameras",
        "[[cameras]]\nid = \"entrance\"\n[cameras.source.rtsp]\nurl = \"rtsps://192.0.2.7/stream1\"\nca-file = \"/etc/faceid/cameras.pem\"\nuser = \"faceid\"\npassword-secret = \"camera-password\"",
    ),
    ("policy.holidays", "[[policy.holidays]]\nname = \"Christmas\"\ndate = \"12-25\""),
    (
        "policy.schedules",
        "[[policy.schedules]]\nid = \"office-hours\"\nwindows = [{ days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"], from = \"07:00\", to = \"19:00\" }]",
    ),
    ("policy.groups", "[[policy.groups]]\nid = \"staff\"\npeople = [\"ada\"]"),
    ("policy.people", "[[policy.people]]\nid = \"ada\"\nvalid-to = \"2027-03-31\""),
    (
        "policy.doors",
        "[[policy.doors]]\nid = \"front\"\nmode = \"normal\"\nallow = [{ groups = [\"staff\"], schedule = \"office-hours\" }]",
    ),
    ("policy.areas", "[[policy.areas]]\nid = \"lab\"\nentries = [\"lab-in\"]\nexits = [\"lab-out\"]\nkind = \"hard\""),
    (
        "policy.operators",
        "[[policy.operators]]\nkey = \"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k\"\nmay = [\"open\", \"hold-open\"]\ndoors = [\"front\"]",
    ),
    ("doors", "[[doors]]\nid = \"front\"\ncameras = [\"entrance\"]"),
];

struct Field {
    doc: Vec<String>,
    key: String,
    kind: String,
}

/// Structs and unit-only enums by `room::Name`.
#[derive(Default)]
struct Source {
    structs: BTreeMap<String, Vec<Field>>,
    enums: BTreeMap<String, Vec<String>>,
}

/// The whole text, from the sources under `src`.
pub(super) fn write(src: &Path) -> String {
    let mut source = Source::default();
    read_folder(src, src, &mut source);
    let text = toml::to_string(&Config::default()).unwrap();
    let defaults: toml::Table = toml::from_str(&text).unwrap();
    let mut out = String::from(
        "# FaceID+: every key with its default. `faceid check` tells what is wrong in a config.\n\
         # Lines that begin with `# key =` have no default. Paths are absolute; passwords and keys stand in files of their own\n\
         # and are only named here. PINs, card numbers and launch lines do stand here: keep this file closed (root:faceid, 0640).\n",
    );
    source.section("config::Config", "", Some(&defaults), &mut out);
    out
}

impl Source {
    fn section(&self, name: &str, path: &str, values: Option<&toml::Table>, out: &mut String) {
        let room = name.split("::").next().unwrap();
        let fields = &self.structs[name];
        let dotted = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let (sections, plain): (Vec<&Field>, Vec<&Field>) =
            fields.iter().partition(|field| self.find(room, element(&field.kind)).is_some_and(|s| self.structs.contains_key(&s)));
        for field in plain {
            out.push('\n');
            comment(&field.doc, out);
            let variants = self.find(room, element(&field.kind)).and_then(|name| self.enums.get(&name));
            if let Some(variants) = variants {
                writeln!(out, "# One of \"{}\".", variants.join("\", \"")).unwrap();
            }
            match values.and_then(|values| values.get(&field.key)) {
                Some(value) => writeln!(out, "{} = {value}", field.key).unwrap(),
                None => writeln!(out, "# {} = {}", field.key, example(&dotted(&field.key))).unwrap(),
            }
        }
        for field in sections {
            out.push('\n');
            comment(&field.doc, out);
            let path = dotted(&field.key);
            let inner = self.find(room, element(&field.kind)).unwrap();
            if field.kind.starts_with("Vec<") {
                comment(&example(&path).lines().map(str::to_owned).collect::<Vec<_>>(), out);
                continue;
            }
            writeln!(out, "[{path}]").unwrap();
            self.section(&inner, &path, values.and_then(|values| values.get(&field.key)?.as_table()), out);
        }
    }

    /// `room::Name` of a type as it is written in `room`: its own, another room's, or one that a file of another room gives it.
    fn find(&self, room: &str, kind: &str) -> Option<String> {
        let known = |name: &String| self.structs.contains_key(name) || self.enums.contains_key(name);
        let own = format!("{room}::{kind}");
        let last_two: Vec<&str> = kind.rsplitn(3, "::").take(2).collect();
        let elsewhere = last_two.iter().rev().copied().collect::<Vec<_>>().join("::");
        [own, elsewhere.clone()].into_iter().find(known).or_else(|| {
            let ending = format!("::{elsewhere}");
            let mut all = self.structs.keys().chain(self.enums.keys()).filter(|name| name.ends_with(&ending));
            // `Settings` alone is in every room: only a name that is one of its kind may be found by its end.
            all.next().filter(|_| kind.contains("::") || all.next().is_none()).cloned().filter(|_| kind != "Settings")
        })
    }
}

fn element(kind: &str) -> &str {
    let inner = kind.strip_prefix("Vec<").or_else(|| kind.strip_prefix("Option<"));
    inner.map_or(kind, |inner| inner.trim_end_matches('>'))
}

fn example(path: &str) -> &'static str {
    EXAMPLES
        .iter()
        .find(|(key, _)| *key == path)
        .unwrap_or_else(|| panic!("`{path}` has no default: give an example in EXAMPLES"))
        .1
}

fn comment(lines: &[String], out: &mut String) {
    for line in lines {
        // Links are for rustdoc.
        let plain = line.replace("[`", "`").replace("`]", "`");
        writeln!(out, "{}", format!("# {plain}").trim_end()).unwrap();
    }
}

fn read_folder(src: &Path, folder: &Path, source: &mut Source) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(src, &path, source);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let within = path.strip_prefix(src).unwrap().with_extension("");
            let mut modules: Vec<String> = within.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if modules.last().is_some_and(|last| last == "mod") {
                modules.pop();
            }
            read_source(&modules, &std::fs::read_to_string(&path).unwrap(), source);
        }
    }
}

/// Reads declarations as rustfmt lays them out. A type is known under its room (`vision::Tracker`) and under its file
/// (`track::Settings`), because both are how others name it.
fn read_source(modules: &[String], text: &str, source: &mut Source) {
    let (mut doc, mut rename, mut open): (Vec<String>, Option<String>, Option<(bool, String)>) = (Vec::new(), None, None);
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(words) = trimmed.strip_prefix("///") {
            doc.push(words.trim_start().to_owned());
            continue;
        }
        if trimmed.starts_with("#[") {
            rename = trimmed.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned).or(rename);
            continue;
        }
        let declared = |what: &str| line.strip_prefix(what).and_then(|rest| rest.strip_suffix(" {")).map(str::to_owned);
        if let Some(name) = declared("pub struct ") {
            open = Some((true, name));
        } else if let Some(name) = declared("pub enum ") {
            open = Some((false, name));
        } else if line == "}" {
            open = None;
        } else if let Some((is_struct, name)) = &open {
            let member = trimmed.trim_end_matches(',');
            for module in [modules.first(), modules.last()].into_iter().flatten() {
                let full = format!("{module}::{name}");
                if *is_struct && let Some((field, kind)) = member.strip_prefix("pub ").and_then(|m| m.split_once(": ")) {
                    let key = rename.clone().unwrap_or_else(|| field.replace('_', "-"));
                    let fields = source.structs.entry(full).or_default();
                    if fields.iter().all(|known| known.key != key) {
                        fields.push(Field { doc: doc.clone(), key, kind: kind.to_owned() });
                    }
                } else if !is_struct && member.chars().all(char::is_alphanumeric) && !member.is_empty() {
                    let variants = source.enums.entry(full).or_default();
                    if !variants.contains(&kebab(member)) {
                        variants.push(kebab(member));
                    }
                }
            }
        }
        doc.clear();
        rename = None;
    }
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (n, c) in name.chars().enumerate() {
        if c.is_uppercase() && n > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}
