//! What lies in a folder of people: a folder for each with the photos in it, and what is passed over.

use std::path::{Path, PathBuf};

use super::super::{Failure, Result, shots};

/// What systems leave in folders, besides what is hidden.
const LITTER: [&str; 9] = [
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eaDir",
    "__MACOSX",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
    "#recycle",
];

/// A person's folder with its photos.
pub(in super::super) type Folder = (PathBuf, Vec<PathBuf>);

/// What lies in a folder of people.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each person's folder with what is in it, both sorted, so that an import is repeatable.
    pub(super) folders: Vec<Folder>,
    /// What is not looked at, and why.
    pub(super) passed_over: Vec<(PathBuf, &'static str)>,
}

/// Each person's folder with its photos, both sorted, so that an import is repeatable.
pub(in super::super) fn folders_in(dir: &Path) -> Result<Vec<Folder>> {
    found_in(dir).map(|found| found.folders)
}

/// Looks into a folder of people. One without any is an error, which shows how it is laid out.
pub(super) fn found_in(dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut flat = 0;
    for path in entries(dir)? {
        if path.is_dir() {
            let mut photos = Vec::new();
            for file in entries(&path)? {
                match why_passed_over(&file, "is a folder within a person's: put the photos of one person into one folder") {
                    Some(why) => found.passed_over.push((file, why)),
                    None => photos.push(file),
                }
            }
            found.folders.push((path, photos));
        } else {
            flat += usize::from(path.is_file());
            let beside = "lies beside the folders of people: put it into the folder of its person";
            let why = why_passed_over(&path, beside).unwrap_or(beside);
            found.passed_over.push((path, why));
        }
    }
    if found.folders.is_empty() {
        let (dir, holds) = (dir.display(), if flat > 0 { "no folder but files" } else { "no folder of photos" });
        let layout =
            format!("give a folder that holds a folder for each person: {dir}/ada/1.jpg, {dir}/ada/2.jpg, {dir}/bob/1.jpg");
        return Err(Failure::data(format!("{dir}: holds {holds}: {layout}")));
    }
    Ok(found)
}

/// Why something in a folder is no photo that could be read; `None` for a plain file.
fn why_passed_over(path: &Path, folder: &'static str) -> Option<&'static str> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(metadata) if metadata.is_dir() => Some(folder),
        Ok(_) => Some("is no plain file"),
        Err(_) => Some("cannot be read, or is a link that leads nowhere"),
    }
}

/// A folder's entries by name, without what is hidden and what systems leave.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Failure::data(format!("{}: {error}", dir.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_litter = name.as_encoded_bytes().starts_with(b".") || LITTER.iter().any(|litter| name == *litter);
        if !is_litter {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Why a file that is no photo cannot be imported, where another verb could take it.
pub(super) fn refuse_clip(path: &Path) -> Result<()> {
    if shots::is_clip(path) {
        return Err(Failure::data("is a clip, and import takes photos: `faceid enroll ID CLIP` takes it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litter_is_passed_over_in_silence_and_whatever_else_is_no_photo_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["ada/.git", "ada/2024", "ada/@eaDir", "bob", ".hidden", "__MACOSX", "lost+found"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in [
            "ada/2.jpg",
            "ada/1.jpg",
            "ada/.DS_Store",
            "ada/Thumbs.db",
            "ada/._1.jpg",
            "ada/2024/3.jpg",
            "group.jpg",
            "desktop.ini",
        ] {
            std::fs::write(root.join(path), "").unwrap();
        }
        std::os::unix::fs::symlink("/nonexistent", root.join("ada/link.jpg")).unwrap();
        let found = found_in(root).unwrap();
        let photos = ["ada/1.jpg", "ada/2.jpg"].map(|path| root.join(path)).to_vec();
        assert_eq!(found.folders, [(root.join("ada"), photos), (root.join("bob"), vec![])]);
        let passed_over: Vec<_> =
            found.passed_over.iter().map(|(path, _)| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(passed_over, ["ada/2024", "ada/link.jpg", "group.jpg"]);
    }

    #[test]
    fn a_flat_folder_is_told_the_layout() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Ada.jpg"), "").unwrap();
        let told = found_in(folder.path()).unwrap_err().message;
        assert!(told.contains("no folder but files") && told.contains("/ada/1.jpg"), "{told}");
    }
}
