//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken.

use super::manifest::Manifest;
use super::onnx::Graph;
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
