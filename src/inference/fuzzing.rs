//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use super::manifest::Manifest;
use super::onnx::Graph;
use super::packs::{self, Part, Source};
use super::rewrite::rewrite;

/// A site's manifest: refused, each finding within the text, or sound in itself and over the built-in one.
pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(manifest) = Manifest::parse("fuzzed", &text) {
        for (name, pack) in &manifest.packs {
            assert!(manifest.pack(name).is_ok());
            assert!(pack.models().all(|id| manifest.model(id).is_ok()), "a pack of a network that is not there");
        }
    }
    let _ = Manifest::builtin().map(|builtin| Manifest::parse_over(builtin, "fuzzed", &text));
}

/// A model file before any backend sees it: read, held against an input, rewritten; what was rewritten is still a network, with nothing
/// more to rewrite.
pub fn network(bytes: &[u8]) {
    let Ok(graph) = Graph::read(bytes) else { return };
    let _ = graph.check_input(&[1, 3, 112, 112]);
    let Ok(rewritten) = rewrite(bytes, &graph) else { return };
    let again = Graph::read(&rewritten.bytes).expect("what was rewritten is read again");
    let twice = rewrite(&rewritten.bytes, &again).expect("and rewritten again");
    assert_eq!(twice.replaced, 0, "something was left to rewrite");
    assert!(rewritten.replaced > 0 || rewritten.bytes == bytes, "nothing was to do, and something was done");
}

/// The file that is wanted, and the most bytes that are taken of any.
const CONTENT: &[u8] = &[42; 600];
const CEILING: u64 = CONTENT.len() as u64;

/// A models folder, and one beside it that holds the right file.
pub struct Depot {
    folder: PathBuf,
    right: PathBuf,
    manifest: Manifest,
}

impl Depot {
    /// In an empty folder of its own.
    pub fn new(folder: &Path) -> Self {
        let right = folder.join("right");
        std::fs::create_dir_all(&right).expect("the folder is ours");
        std::fs::write(right.join("own.onnx"), CONTENT).expect("the folder is ours");
        let text = format!(
            "version = 1\n[models.own]\nfile = \"own.onnx\"\nsha256 = \"{}\"\nbytes = {CEILING}\nlicence = {{ name = \"terms\", accept = false }}\n\
             origin.url.url = \"https://example.org/own.onnx\"\n\
             input = {{ width = 16, height = 16, color = \"rgb\", mean = [0, 0, 0], deviation = [1, 1, 1] }}\n\
             role.liveness = {{ crop = \"shifted\", scale = 2, classes = 2, live-class = 0 }}\n",
            super::hex(&Sha256::digest(CONTENT)),
        );
        let manifest = Manifest::parse("fuzzed", &text).unwrap_or_else(|error| panic!("a sound manifest: {error}"));
        Self { folder: folder.join("models"), right, manifest }
    }

    fn part(&self, name: &str, bytes: &[u8]) -> Part {
        std::fs::create_dir_all(&self.folder).expect("the folder is ours");
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).expect("the folder is ours");
        Part::open(path).expect("nobody else has it")
    }

    /// An archive that was fetched: a member is taken out within its bound, or it is refused.
    pub fn archive(&self, bytes: &[u8]) {
        let (mut archive, mut part) = (self.part("own.zip.part", bytes), self.part("out.part", b""));
        let _ = packs::extract(&mut archive, "own.onnx", CEILING, &mut part);
        assert!(part.length().is_ok_and(|length| length <= CEILING), "more than its bound was taken");
    }

    /// What an older download left, and what a server answers to the request for the rest: within its bound, and whatever is in the file
    /// then, the next fetch puts the right one in place.
    pub fn resumed(&self, bytes: &[u8]) {
        let [how, cut, bytes @ ..] = bytes else { return };
        let (left, body) = bytes.split_at(usize::from(*cut).min(bytes.len()));
        // A sound beginning, or any.
        let left = if how & 1 == 0 { left } else { &CONTENT[..usize::from(*cut)] };
        let mut part = self.part("own.onnx.part", left);
        let start = left.len() as u64;
        let status = [StatusCode::PARTIAL_CONTENT, StatusCode::OK, StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::NOT_FOUND];
        let status = status[usize::from(how >> 1) % 4];
        let range = match (how >> 3) % 4 {
            0 => format!("bytes {start}-{CEILING}/{CEILING}"),
            1 => String::from_utf8_lossy(body).into_owned(),
            _ => format!("bytes {}-9/10", start.wrapping_add(u64::from(how >> 5))),
        };
        let answer = ("https://example.org", status, Some(range.as_str()));
        let taken = packs::take(answer, &mut &body[..], &mut part, start, CEILING, &mut |_| {});
        let length = part.length().unwrap_or(u64::MAX);
        assert!(length <= CEILING.max(start), "more than its bound was taken");
        assert!(taken != Ok(true) || start > 0, "nothing was gone on with");
        drop(part);
        let id = ["own".parse().expect("a plain name")];
        let source = Source::Folder(self.right.clone());
        let brought = packs::fetch(&self.manifest, &id, &self.folder, &source, false, &mut |_| {});
        assert!(brought.is_ok() && std::fs::read(self.folder.join("own.onnx")).is_ok_and(|file| file == CONTENT));
        assert!(!self.folder.join("own.onnx.part").exists());
        let _ = std::fs::remove_file(self.folder.join("own.onnx"));
    }
}

/// A shared library's bytes before the loader sees them: refused, or sound as far as we read. Whatever its headers say, no more is read
/// than they are worth.
pub fn library(bytes: &[u8]) {
    let outcome = judge_library(bytes);
    assert!(outcome.is_err() || bytes.starts_with(b"\x7fELF"), "something else was taken for a library");
}

pub(super) fn judge_library(bytes: &[u8]) -> Result<(), String> {
    let read = |offset: u64, out: &mut [u8]| {
        let start = usize::try_from(offset).ok();
        let part = start.and_then(|start| bytes.get(start..start.checked_add(out.len())?));
        part.map(|part| out.copy_from_slice(part)).is_some()
    };
    super::library::judge(bytes.len() as u64, &read, b"OrtGetApiBase")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_what_is_fetched_breaks_no_promise() {
        let folder = tempfile::tempdir().unwrap();
        let depot = Depot::new(folder.path());
        let archive = |member: &str, content: &[u8]| {
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
            std::io::Write::write_all(&mut zip, content).unwrap();
            zip.finish().unwrap().into_inner()
        };
        let (right, deep, bomb) = (archive("own.onnx", CONTENT), archive("a/own.onnx", b"x"), archive("own.onnx", &[0; 1 << 16]));
        walk("archive", &[&right, &deep, &bomb], 1_500, |bytes| depot.archive(bytes));
        let whole = [&[0b1, 100][..], &CONTENT[100..]].concat();
        walk("resumed", &[&whole, &[0b11, 9, 1], &[0b1001, 20, 7, 7], &[0b101, 255]], 1_500, |bytes| depot.resumed(bytes));
    }

    #[test]
    fn a_seeded_walk_over_manifests_breaks_no_promise() {
        let builtin = include_bytes!("../../models/manifest.toml");
        walk("manifest", &[builtin, &builtin[..1200], include_bytes!("../../models/bench-peer.toml")], 300, manifest);
    }

    #[test]
    fn a_seeded_walk_over_libraries_breaks_no_promise() {
        // This very program is one, as far as its headers go: the loader's own table, program headers, a dynamic section.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut small = own[..own.len().min(8_192)].to_vec();
        walk("library", &[&small], 4_000, library);
        // And one that ends where its headers say: the segments cut to what is there.
        small[0x28..0x30].fill(0);
        small[0x3c] = 0;
        walk("library, cut", &[&small], 4_000, library);
    }

    #[test]
    fn a_seeded_walk_over_networks_breaks_no_promise() {
        // The head of a real network, cut where its constants begin to fill the file.
        let real = include_bytes!("../../models/builtin/liveness.onnx");
        walk("network", &[&real[..real.len().min(6_000)]], 4_000, network);
    }
}
