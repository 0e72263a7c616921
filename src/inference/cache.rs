//! Where engines are kept. An engine is good for one network, one card, one driver, one TensorRT and one precision; TensorRT looks at
//! some of that when it loads one, and what it does not look at shows as wrong numbers. So each combination has a folder of its own,
//! and an engine of another is never seen.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::settings::Precision;

/// What tells this machine's cards, driver and TensorRT from others: whatever of it is there, in order.
pub(super) fn machine(root: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut first_line = |path: &str| {
        let text = std::fs::read(root.join(path)).unwrap_or_default();
        // The device tree ends its texts with a zero.
        let line = String::from_utf8_lossy(&text);
        let line = line.lines().next().unwrap_or_default().trim_matches('\0').trim();
        if !line.is_empty() {
            told.push(format!("{path}: {line}"));
        }
    };
    // The driver's version on a PC; the board and the release of L4T, which brings the driver, on a Jetson.
    ["proc/driver/nvidia/version", "proc/device-tree/model", "etc/nv_tegra_release"].into_iter().for_each(&mut first_line);
    let cards = names_in(&root.join("proc/driver/nvidia/gpus"));
    for card in cards {
        let text =
            std::fs::read_to_string(root.join("proc/driver/nvidia/gpus").join(&card).join("information")).unwrap_or_default();
        told.extend(text.lines().find(|line| line.starts_with("Model:")).map(|line| format!("{card} {line}")));
    }
    let triple = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for folder in [triple.as_str(), "usr/lib", "usr/local/lib", "usr/local/tensorrt/lib", "opt/tensorrt/lib"] {
        for name in names_in(&root.join(folder)).into_iter().filter(|name| name.starts_with("libnvinfer.so.")) {
            let bytes = std::fs::metadata(root.join(folder).join(&name)).map_or(0, |metadata| metadata.len());
            told.push(format!("{folder}/{name}: {bytes}"));
        }
    }
    told
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The folder within `cache` of the engines of one network on one machine.
pub(super) fn folder(cache: &Path, graph: &[u8], library: &str, machine: &[String], precision: Precision) -> PathBuf {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(&Sha256::digest(graph));
    add(library.as_bytes());
    add(precision.to_string().as_bytes());
    machine.iter().for_each(|part| add(part.as_bytes()));
    cache.join("tensorrt").join(super::hex(&hash.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_machine_without_a_card_has_nothing_to_tell() {
        assert!(machine(tempfile::tempdir().unwrap().path()).is_empty());
    }

    #[test]
    fn another_network_card_driver_tensorrt_library_or_precision_is_another_folder() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let library = format!("usr/lib/{}-linux-gnu/libnvinfer.so.10.3.0", std::env::consts::ARCH);
        write(root, "proc/device-tree/model", "NVIDIA Jetson Orin Nano\0");
        write(root, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.0\nmore\n");
        write(root, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t A card\nIRQ: 1\n");
        write(root, "proc/driver/nvidia/version", "NVRM version: 540\nGCC\n");
        write(root, &library, "1234");
        let first = machine(root);
        assert_eq!(first.len(), 5, "{first:?}");
        let of = |graph: &[u8], version: &str, machine: &[String], precision| {
            folder(Path::new("/c"), graph, version, machine, precision)
        };
        let mut folders = vec![
            of(b"net", "1.20", &first, Precision::Fp32),
            of(b"other", "1.20", &first, Precision::Fp32),
            of(b"net", "1.21", &first, Precision::Fp32),
            of(b"net", "1.20", &first, Precision::Fp16),
            of(b"net", "1.20", &first, Precision::Int8),
        ];
        for (path, text) in [
            ("proc/device-tree/model", "NVIDIA Jetson AGX Orin\0"),
            ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\n"),
            ("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t Another\n"),
            ("proc/driver/nvidia/version", "NVRM version: 550\n"),
            (&library, "12345"),
        ] {
            write(root, path, text);
            folders.push(of(b"net", "1.20", &machine(root), Precision::Fp32));
        }
        let count = folders.len();
        folders.sort_unstable();
        folders.dedup();
        assert_eq!(folders.len(), count);
        assert!(folders.iter().all(|folder| folder.starts_with("/c/tensorrt")));
    }
}
