//! Reading and judging a manifest: the built-in one, and a site's own over it. All findings come at once, each with line and column.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::manifest::{AlikeClaim, DetectorDecode, Int8, Manifest, Model, Origin, Pack, Role};
use super::{InferenceError, MAX_MODEL_BYTES, Precision};
use crate::types::{ModelId, VisitTable};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

const BUILTIN: &str = include_str!("../../models/manifest.toml");
const BUILTIN_NAME: &str = "the built-in manifest";

/// Something wrong in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// What is wrong and the way out.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.what)
    }
}

impl Manifest {
    /// The manifest that comes with the program.
    pub fn builtin() -> Result<Self, InferenceError> {
        Self::parse(BUILTIN_NAME, BUILTIN)
    }

    /// A site's manifest over the built-in one: its entries replace those of the same name, the others stay.
    pub fn load(path: &Path) -> Result<Self, InferenceError> {
        let shown = path.display().to_string();
        let wrong =
            |what: String| InferenceError::Manifest { path: shown.clone(), findings: vec![Finding { line: 0, column: 0, what }] };
        let file = File::open(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(wrong(format!("it is longer than the {MAX_MANIFEST_BYTES} bytes that a manifest may have")));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is no UTF-8 text".into()))?;
        Self::parse_over(Self::builtin()?, &shown, &text)
    }

    /// A manifest that stands alone; `name` is how errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, InferenceError> {
        Self::parse_over(Self { version: 1, models: BTreeMap::new(), packs: BTreeMap::new() }, name, text)
    }

    /// A manifest over another one.
    pub fn parse_over(mut base: Self, name: &str, text: &str) -> Result<Self, InferenceError> {
        let fail = |findings| InferenceError::Manifest { path: name.to_owned(), findings };
        let own: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = error.span().map_or((0, 0), |span| position(text, span.start));
            fail(vec![Finding { line, column, what: error.message().to_owned() }])
        })?;
        let mut judge = Judge { found: Vec::new() };
        judge.manifest(&own);
        let (models, packs): (Vec<_>, Vec<_>) = (own.models.keys().cloned().collect(), own.packs.keys().cloned().collect());
        base.models.extend(own.models);
        base.packs.extend(own.packs);
        for id in &models {
            judge.same_file(id, &base);
        }
        for pack in &packs {
            judge.pack(pack, &base);
        }
        if judge.found.is_empty() {
            return Ok(base);
        }
        let mut findings = judge.located(text);
        findings.sort_by_key(|finding| (finding.line, finding.column));
        Err(fail(findings))
    }

    /// The pack of this name.
    pub fn pack(&self, name: &str) -> Result<&Pack, InferenceError> {
        self.packs.get(name).ok_or_else(|| InferenceError::Unknown {
            kind: "pack",
            name: name.to_owned(),
            known: self.packs.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// The pack of this name with the networks that it is run with at this precision.
    pub fn pack_at(&self, name: &str, precision: Precision) -> Result<Pack, InferenceError> {
        let pack = self.pack(name)?;
        if precision != Precision::Int8 {
            return Ok(pack.clone());
        }
        pack.quantized().ok_or_else(|| {
            let others: Vec<_> = self.packs.iter().filter(|(_, pack)| pack.int8.is_some()).map(|(name, _)| name.clone()).collect();
            InferenceError::NotQuantized { pack: name.to_owned(), others: others.join(", ") }
        })
    }

    /// The network of this id.
    pub fn model(&self, id: &ModelId) -> Result<&Model, InferenceError> {
        self.models.get(id).ok_or_else(|| InferenceError::Unknown {
            kind: "model",
            name: id.to_string(),
            known: self.models.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Collects findings under the path of the key they are about.
struct Judge {
    found: Vec<(Vec<String>, String)>,
}

impl Judge {
    fn add(&mut self, path: &[&str], what: impl Into<String>) {
        self.found.push((path.iter().map(|part| (*part).to_owned()).collect(), what.into()));
    }

    fn manifest(&mut self, manifest: &Manifest) {
        if manifest.version != 1 {
            self.add(&["version"], format!("version {} is not 1, which this faceid reads", manifest.version));
        }
        for (id, model) in &manifest.models {
            self.model(id.as_str(), model);
        }
    }

    fn model(&mut self, id: &str, model: &Model) {
        if !is_plain_name(&model.file) {
            self.add(&["models", id, "file"], format!("`{}` must be a plain file name", model.file.escape_default()));
        }
        let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if !model.sha256.is_empty() && (model.sha256.len() != 64 || !model.sha256.bytes().all(hexadecimal)) {
            self.add(&["models", id, "sha256"], "a SHA-256 has 64 lower-case hexadecimal digits");
        }
        if model.bytes > MAX_MODEL_BYTES {
            self.add(&["models", id, "bytes"], format!("{} is more than the {MAX_MODEL_BYTES} that are read", model.bytes));
        }
        self.origin(id, &model.origin);
        for (key, size) in [("width", model.input.width), ("height", model.input.height)] {
            if !(16..=2048).contains(&size) {
                self.add(&["models", id, "input", key], format!("{size} is outside 16 to 2048 pixels"));
            }
        }
        if !model.input.mean.iter().all(|value| value.is_finite()) {
            self.add(&["models", id, "input", "mean"], "every mean must be a number");
        }
        if !model.input.deviation.iter().all(|value| value.is_finite() && *value > 0.0) {
            self.add(&["models", id, "input", "deviation"], "every deviation must be above 0");
        }
        self.role(id, model);
    }

    fn origin(&mut self, id: &str, origin: &Origin) {
        let url = match origin {
            Origin::Bundled { .. } | Origin::Local { .. } => return,
            Origin::Url { url } => url,
            Origin::Zip { url, member } => {
                if member.is_empty() {
                    self.add(&["models", id, "origin", "zip", "member"], "name the member of the archive");
                }
                url
            }
            Origin::Converted { url, script } => {
                if script.is_empty() || script.starts_with('/') || script.split('/').any(|part| part == "..") {
                    self.add(&["models", id, "origin", "converted", "script"], "name a script under models/");
                }
                url
            }
        };
        if !url.starts_with("https://") || url.contains(char::is_whitespace) || url.contains('@') {
            self.add(&["models", id, "origin"], "an address starts with https:// and carries no user or password");
        }
    }

    fn role(&mut self, id: &str, model: &Model) {
        let unit = |value: f32| (0.0..=1.0).contains(&value);
        match &model.role {
            Role::Detector { decode, confidence, nms_iou } => {
                if !unit(*confidence) {
                    self.add(&["models", id, "role", "detector", "confidence"], format!("{confidence} is outside 0 to 1"));
                }
                if !unit(*nms_iou) {
                    self.add(&["models", id, "role", "detector", "nms-iou"], format!("{nms_iou} is outside 0 to 1"));
                }
                self.decode(id, model, decode);
            }
            Role::Embedder { dimension, template, threshold } => {
                if !(1..=4096).contains(dimension) {
                    self.add(&["models", id, "role", "embedder", "dimension"], format!("{dimension} is outside 1 to 4096"));
                }
                let (width, height) = (model.input.width as f32, model.input.height as f32);
                if !template.iter().all(|[x, y]| (0.0..=width).contains(x) && (0.0..=height).contains(y)) {
                    self.add(&["models", id, "role", "embedder", "template"], "every point must lie in the input's picture");
                }
                if !(0.0..=1.0).contains(&threshold.fmr) {
                    self.add(
                        &["models", id, "role", "embedder", "threshold", "fmr"],
                        format!("{} is outside 0 to 1", threshold.fmr),
                    );
                }
                if let Some(alike) = &threshold.alike {
                    self.alike(id, alike);
                }
                if let Some(fault) = threshold.visits.as_ref().and_then(VisitTable::fault) {
                    self.add(&["models", id, "role", "embedder", "threshold", "visits"], format!("the table {fault}"));
                }
            }
            Role::Liveness { scale, classes, live_class, .. } => {
                if !(1.0..=8.0).contains(scale) {
                    self.add(&["models", id, "role", "liveness", "scale"], format!("{scale} is outside 1 to 8"));
                }
                if !(2..=64).contains(classes) {
                    self.add(&["models", id, "role", "liveness", "classes"], format!("{classes} is outside 2 to 64"));
                }
                if live_class >= classes {
                    self.add(
                        &["models", id, "role", "liveness", "live-class"],
                        format!("{live_class} is none of the {classes} classes"),
                    );
                }
            }
        }
    }

    /// A claim about people who resemble each other: rates are rates, and a lower one asks for a higher score.
    fn alike(&mut self, id: &str, claim: &AlikeClaim) {
        let at = ["models", id, "role", "embedder", "threshold", "alike"];
        let rates = std::iter::once(claim.fmr).chain(claim.targets.iter().map(|target| target.fmr));
        for rate in rates.filter(|rate| !(0.0..=1.0).contains(rate)) {
            self.add(&at, format!("{rate} is outside 0 to 1"));
        }
        if claim.pairs == 0 {
            self.add(&at, "no pairs: a claim without trials claims nothing");
        }
        if !claim.targets.windows(2).all(|two| two[1].fmr < two[0].fmr && two[1].score > two[0].score) {
            self.add(&at, "the targets must go from the highest rate to the lowest, each with a higher score than the one before");
        }
    }

    fn decode(&mut self, id: &str, model: &Model, decode: &DetectorDecode) {
        let strides = match decode {
            DetectorDecode::Yunet { strides } => strides,
            DetectorDecode::Scrfd { strides, anchors, outputs } => {
                if !(1..=16).contains(anchors) {
                    self.add(&["models", id, "role", "detector", "decode"], format!("{anchors} anchors is outside 1 to 16"));
                }
                if outputs.len() != 3 * strides.len() {
                    self.add(&["models", id, "role", "detector", "decode"], "name three outputs a stride: scores, boxes, points");
                }
                strides
            }
        };
        let fits =
            |stride: &u32| *stride > 0 && model.input.width.is_multiple_of(*stride) && model.input.height.is_multiple_of(*stride);
        if strides.is_empty() || strides.len() > 8 || !strides.iter().all(fits) {
            self.add(
                &["models", id, "role", "detector", "decode"],
                "name 1 to 8 strides, each dividing the input's width and height",
            );
        }
    }

    fn same_file(&mut self, id: &ModelId, all: &Manifest) {
        let Some(model) = all.models.get(id) else { return };
        if let Some((other, _)) = all.models.iter().find(|(_, o)| o.file == model.file && o.sha256 != model.sha256) {
            self.add(&["models", id.as_str(), "file"], format!("`{}` is also the file of {other}, with another hash", model.file));
        }
    }

    fn pack(&mut self, name: &str, all: &Manifest) {
        let Some(pack) = all.packs.get(name) else { return };
        if name.parse::<ModelId>().is_err() {
            self.add(&["packs", name], "a pack's name has letters, digits, `_`, `-` and `.` only");
        }
        let role = |id: &ModelId| all.models.get(id).map(|model| &model.role);
        let mut check = |key: &str, id: &ModelId, fits: fn(&Role) -> bool| match role(id) {
            None => self.add(&["packs", name, key], format!("there is no model `{id}`")),
            Some(role) if !fits(role) => self.add(&["packs", name, key], format!("`{id}` is no {key} network")),
            Some(_) => {}
        };
        check("detector", &pack.detector, |role| matches!(role, Role::Detector { .. }));
        check("embedder", &pack.embedder, |role| matches!(role, Role::Embedder { .. }));
        for id in &pack.liveness {
            check("liveness", id, |role| matches!(role, Role::Liveness { .. }));
        }
        if let Some(int8) = &pack.int8 {
            self.int8(name, int8, all);
        }
        if !(0.0..=2.0).contains(&pack.margin) {
            self.add(&["packs", name, "margin"], format!("{} is outside 0 to 2", pack.margin));
        }
    }

    fn int8(&mut self, pack: &str, int8: &Int8, all: &Manifest) {
        let path = ["packs", pack, "int8"];
        if int8.models().next().is_none() {
            self.add(&path, "names no network: name some of `detector`, `liveness`, `embedder`, or leave it out");
        }
        for (key, id) in int8
            .detector
            .iter()
            .map(|id| ("detector", id))
            .chain(int8.liveness.iter().map(|id| ("liveness", id)))
            .chain(int8.embedder.iter().map(|id| ("embedder", id)))
        {
            let found = all.models.get(id).map(|model| (model.role.name(), model.int8));
            match found {
                None => self.add(&[&path[..], &[key]].concat(), format!("there is no model `{id}`")),
                Some((role, _)) if role != key => self.add(&[&path[..], &[key]].concat(), format!("`{id}` is no {key} network")),
                Some((_, false)) => {
                    self.add(&[&path[..], &[key]].concat(), format!("`{id}` is no INT8 network: its entry lacks `int8 = true`"));
                }
                Some(_) => {}
            }
        }
    }

    /// Gives every finding the place of its key, or of the nearest one above it.
    fn located(self, text: &str) -> Vec<Finding> {
        let tree = DeTable::parse(text).ok();
        let place = |path: &[String]| {
            let mut table = tree.as_ref().map(|tree| tree.get_ref());
            let mut at = None;
            for part in path {
                let Some((key, value)) = table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == part.as_str()))
                else {
                    break;
                };
                at = Some(key.span().start);
                table = match value.get_ref() {
                    DeValue::Table(inner) => Some(inner),
                    _ => None,
                };
            }
            at.map_or((0, 0), |at| position(text, at))
        };
        let found = self.found.into_iter().map(|(path, what)| {
            let (line, column) = place(&path);
            Finding { line, column, what: format!("{}: {what}", path.join(".")) }
        });
        found.collect()
    }
}

fn is_plain_name(file: &str) -> bool {
    !file.is_empty()
        && file.len() <= 128
        && !file.starts_with('.')
        && !file.contains(['/', '\\', '\0'])
        && !file.contains(char::is_control)
}

/// Line and column, from 1, of a byte of the text.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Finding> {
        match Manifest::parse_over(Manifest::builtin().unwrap(), "site.toml", text) {
            Err(InferenceError::Manifest { findings, path }) => {
                assert_eq!(path, "site.toml");
                findings
            }
            other => panic!("{other:?}"),
        }
    }

    const SITE: &str = r#"version = 1

[models.own]
file = "own.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
licence = { name = "ours" }
origin = { local = { note = "ours" } }
input = { width = 128, height = 128, color = "rgb", mean = [0, 0, 0], deviation = [1, 1, 1] }
role = { liveness = { crop = "shifted", scale = 2.7, classes = 3, live-class = 1 } }

[packs.own]
about = "ours"
detector = "yunet-2023mar"
liveness = ["own"]
embedder = "retail-0095"
liveness-threshold = 0.5
margin = 0.05
"#;

    const EMBEDDER: &str = r#"
[models.own.role.embedder]
dimension = 8
template = [[40, 50], [80, 50], [64, 80], [45, 100], [84, 100]]

[models.own.role.embedder.threshold]
score = 0.5
fmr = 0.00001
data = "ours"
alike = { fmr = 0.002, pairs = 5000, data = "ours", targets = [{ fmr = 0.01, score = 0.4 }, { fmr = 0.001, score = 0.6 }] }
"#;

    /// The highest false match rate among alike people that a shipped threshold may have.
    const LOOSEST: f64 = 1e-4;
    /// The same for the networks that come with the program, which open no door unless a site accepts them (`access.accept-demo-pack`).
    const LOOSEST_DEMO: f64 = 3e-3;

    #[test]
    fn a_typo_is_found_with_line_and_column() {
        let found = findings(&SITE.replace("sha256 =", "sha265 ="));
        assert_eq!((found[0].line, found[0].column), (5, 1), "{found:?}");
        assert!(found[0].what.contains("sha265"), "{found:?}");
        let found = findings("version = 1\nmodels = 3\n");
        assert_eq!(found[0].line, 2);
        assert_eq!(findings("version = ")[0].line, 1);
    }

    #[test]
    fn all_findings_come_at_once_in_the_order_of_the_file() {
        let text = SITE
            .replace("own.onnx", "../own.onnx")
            .replace("\"0000", "\"zzzz")
            .replace("live-class = 1", "live-class = 3")
            .replace("width = 128", "width = 4")
            .replace("liveness = [\"own\"]", "liveness = [\"nobody\"]")
            .replace("embedder = \"retail-0095\"", "embedder = \"own\"");
        let found = findings(&text);
        let lines: Vec<_> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [4, 5, 8, 9, 14, 15], "{found:#?}");
        assert!(found[2].what.contains("models.own.input.width"), "{found:?}");
        assert_eq!(found[2].column, 11, "the key itself is pointed at");
    }

    #[test]
    fn networks_in_8_bits_must_be_there_of_their_role_and_called_so() {
        for (int8, what) in [
            ("{}", "names no network"),
            ("{ detector = \"nobody\" }", "there is no model `nobody`"),
            ("{ liveness = [\"faceid-embedder-int8\"] }", "is no liveness network"),
            ("{ embedder = \"faceid-embedder\" }", "lacks `int8 = true`"),
            ("{ embeder = \"faceid-embedder-int8\" }", "embeder"),
        ] {
            let found = findings(&format!("{SITE}int8 = {int8}\n"));
            assert_eq!((found.len(), found[0].line), (1, 18), "{found:?}");
            assert!(found[0].what.contains(what), "{found:?}");
        }
        let sound = format!("{SITE}int8 = {{ embedder = \"faceid-embedder-int8\" }}\n");
        assert!(Manifest::parse_over(Manifest::builtin().unwrap(), "site.toml", &sound).is_ok());
    }

    #[test]
    fn a_claim_about_alike_people_that_is_none_is_refused() {
        let embedder = SITE
            .replace("role = { liveness = { crop = \"shifted\", scale = 2.7, classes = 3, live-class = 1 } }", EMBEDDER)
            .replace("liveness = [\"own\"]", "liveness = []")
            .replace("embedder = \"retail-0095\"", "embedder = \"own\"");
        assert!(Manifest::parse_over(Manifest::builtin().unwrap(), "site.toml", &embedder).is_ok());
        for (sound, wrong, what) in [
            ("fmr = 0.002", "fmr = 2.0", "2 is outside 0 to 1"),
            ("fmr = 0.01,", "fmr = -0.01,", "-0.01 is outside 0 to 1"),
            ("pairs = 5000", "pairs = 0", "no pairs"),
            ("score = 0.6 }", "score = 0.3 }", "higher score"),
            ("fmr = 0.001,", "fmr = 0.1,", "highest rate to the lowest"),
            ("pairs = 5000", "pears = 5000", "pears"),
        ] {
            let found = findings(&embedder.replace(sound, wrong));
            assert!(found[0].what.contains(what), "{wrong}: {found:?}");
        }
    }

    #[test]
    fn no_shipped_threshold_is_looser_than_what_was_measured_among_alike_people() {
        let manifest = Manifest::builtin().unwrap();
        let mut measured = 0;
        for (id, model) in &manifest.models {
            let Role::Embedder { threshold, .. } = &model.role else { continue };
            let Some(alike) = &threshold.alike else {
                assert!(threshold.fmr >= 1e-3, "{id} claims {} among random pairs and nothing among alike ones", threshold.fmr);
                continue;
            };
            measured += 1;
            let loosest = if model.is_bundled() { LOOSEST_DEMO } else { LOOSEST };
            let least = alike.targets.iter().find(|target| target.fmr <= loosest).map(|target| target.score);
            assert!(least.is_some_and(|least| threshold.score >= least), "{id}: {:?} is below {least:?}", threshold.score);
            assert!(alike.fmr <= loosest && threshold.fmr <= alike.fmr, "{id}: {threshold:?}");
        }
        assert_eq!(measured, 5, "the networks that are at hand");
    }

    #[test]
    fn no_shipped_table_of_visits_is_looser_than_what_visits_needed() {
        // At one in 1,000 strangers with 10 and with 100 people enrolled: what the simulated visits needed, and what lies between them and
        // real strangers before one camera (PROJECT_REPORT.md).
        let needed = [
            ("retail-0095", [0.538, 0.596], 0.037),
            ("mobilefacenet-foamliu", [0.486, 0.541], 0.108),
            ("w600k-mbf-dequant", [0.373, 0.449], 0.065),
        ];
        let manifest = Manifest::builtin().unwrap();
        for (id, of_visits, to_real) in needed {
            let Role::Embedder { threshold, .. } = &manifest.model(&id.parse().unwrap()).unwrap().role else { panic!("{id}") };
            let table = threshold.visits.as_ref().unwrap();
            assert_eq!(table.least_people, 10);
            for (people, visits) in [(1, of_visits[0]), (10, of_visits[0]), (100, of_visits[1]), (1000, of_visits[1])] {
                let reach = table.reach(people, 1e-3);
                assert!(reach.is_kept() && reach.score().value() >= visits + to_real - 1e-3, "{id} {people}: {reach:?}");
                assert!(reach.score() >= threshold.score, "{id} {people}: {reach:?}");
            }
            assert!(!table.reach(1001, 1e-3).is_kept() && !table.reach(10, 9e-4).is_kept(), "{id}");
        }
        // The rest of what comes with the program claims nothing of visits.
        let claims = manifest
            .models
            .values()
            .filter(|model| matches!(&model.role, Role::Embedder { threshold, .. } if threshold.visits.is_some()));
        assert_eq!(claims.count(), 3);
    }

    #[test]
    fn addresses_without_tls_and_with_a_password_are_refused() {
        for url in ["http://example.org/m.onnx", "https://user:pass@example.org/m.onnx", "file:///etc/passwd"] {
            let found = findings(&SITE.replace("{ local = { note = \"ours\" } }", &format!("{{ url = {{ url = \"{url}\" }} }}")));
            assert!(found[0].what.contains("https"), "{found:?}");
            assert!(!found[0].what.contains("pass@"), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_manifest_at_all_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        assert!(Manifest::load(&path).is_err(), "missing");
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(Manifest::load(&path).unwrap_err().to_string().contains("UTF-8"));
        std::fs::write(&path, vec![b'#'; MAX_MANIFEST_BYTES as usize + 1]).unwrap();
        assert!(Manifest::load(&path).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn a_site_adds_to_the_built_in_manifest_and_replaces_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        std::fs::write(&path, SITE.replace("packs.own", "packs.small")).unwrap();
        let manifest = Manifest::load(&path).unwrap();
        assert_eq!(manifest.pack("small").unwrap().liveness[0].as_str(), "own");
        assert!(manifest.pack("standard").is_ok());
        let error = manifest.pack("huge").unwrap_err().to_string();
        assert!(error.contains("huge") && error.contains("standard"), "{error}");
        assert!(manifest.model(&"nobody".parse().unwrap()).unwrap_err().to_string().contains("own"));
    }

    #[test]
    fn the_built_in_manifest_holds_together() {
        let manifest = Manifest::builtin().unwrap();
        for pack in ["builtin", "standard", "small", "arcface-512-research"] {
            for id in manifest.pack(pack).unwrap().models() {
                assert!(manifest.model(id).unwrap().pinned().is_some(), "{id}");
            }
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        for (id, model) in &manifest.models {
            if let Origin::Converted { script, .. } = &model.origin {
                assert!(scripts.join(script).is_file(), "{id}: {script}");
            }
        }
    }
}
