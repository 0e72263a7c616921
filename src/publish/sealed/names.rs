//! The names of a log's segments.

use std::io;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "log";

/// The file of one segment.
pub(crate) fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:012}.{EXTENSION}"))
}

/// The numbers of a folder's segments, in order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|digits| digits.parse::<u64>().ok());
        segments.extend(number);
    }
    segments.sort_unstable();
    Ok(segments)
}
