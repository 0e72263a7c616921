//! A camera made of still pictures: for machines without GStreamer, and for tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::event::{CameraState, Teller};
use super::settings::ImagesSource;
use super::{CaptureError, Slot, still};
use crate::system::{Stop, clock};
use crate::types::{CameraId, Frame};

/// Puts every picture into the slot, each waiting until the one before it is taken.
pub(super) fn run(
    camera: &CameraId,
    source: &ImagesSource,
    slot: &Slot<Frame>,
    teller: &mut Teller<'_>,
    stop: &Stop,
) -> Result<(), CaptureError> {
    let unplayable = |reason: String| CaptureError::Unplayable { camera: camera.clone(), reason };
    let paths = pictures_of(&source.path).map_err(|error| unplayable(format!("{}: {error}", source.path.display())))?;
    let mut number = 0;
    let mut told = BTreeSet::new();
    loop {
        let before = number;
        let mut refused = String::new();
        for path in &paths {
            if stop.is_asked() {
                return Ok(());
            }
            let picture = match still::read_picture(path) {
                Ok(picture) => picture,
                Err(error) => {
                    refused = format!("{} {error}", path.display());
                    // Once, however often the pictures go round.
                    if told.insert(path) {
                        log::warn!("camera {camera}: {refused}");
                    }
                    continue;
                }
            };
            number += 1;
            teller.tell(CameraState::Online, &format!("{}x{}", picture.width(), picture.height()));
            let frame = Frame { camera: camera.clone(), number, captured_at: clock::now(), picture };
            if !slot.put_when_free(frame, &|| stop.is_asked()) {
                return Ok(());
            }
            if source.interval_ms > 0 && stop.sleep(Duration::from_millis(source.interval_ms.into())) {
                return Ok(());
            }
        }
        if number == before {
            return Err(unplayable(format!("{}: no picture in it can be read; the last: {refused}", source.path.display())));
        }
        if !source.repeat {
            teller.tell(CameraState::Ended, &format!("{number} pictures"));
            return Ok(());
        }
    }
}

/// The file itself, or a folder's plain files by name; hidden ones are left out.
fn pictures_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::capture::{CameraSettings, Source, Taken, run};
    use crate::system::stop;

    fn camera(path: &Path) -> CameraSettings {
        let source = ImagesSource { path: path.to_owned(), repeat: false, interval_ms: 0 };
        CameraSettings::new(CameraId::new("photos").unwrap(), Source::Images(source))
    }

    #[test]
    fn a_missing_folder_and_one_without_pictures_are_errors_and_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "no picture").unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none")] {
            let (slot, _reader) = Slot::single();
            let (sender, events) = mpsc::channel();
            let (_handle, stop) = stop::pair();
            let tell = move |event| sender.send(event).unwrap();
            assert!(run(&camera(&path), folder.path(), &slot, &tell, &stop).is_err());
            assert_eq!(events.recv().unwrap().state, CameraState::Offline);
        }
    }

    #[test]
    fn a_folders_pictures_come_in_order_and_then_the_slot_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        for (name, side) in [("b.png", 2), ("a.png", 1), ("c.png", 3)] {
            image::RgbImage::new(side, side).save(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("bad.png"), "no picture").unwrap();
        let (slot, reader) = Slot::single();
        let settings = camera(folder.path());
        let worker = std::thread::spawn(move || {
            let (_handle, stop) = stop::pair();
            run(&settings, Path::new("/"), &slot, &|_| {}, &stop)
        });
        let mut seen = Vec::new();
        while let Taken::Item(_, frame) = reader.take_any(Duration::from_secs(20)) {
            seen.push((frame.number, frame.picture.width()));
        }
        assert_eq!(seen, [(1, 1), (2, 2), (3, 3)]);
        worker.join().unwrap().unwrap();
    }

    #[test]
    #[cfg(not(feature = "gstreamer"))]
    fn other_sources_say_that_gstreamer_is_missing() {
        let (slot, _reader) = Slot::single();
        let (_handle, stop) = stop::pair();
        let error = run(&CameraSettings::default(), Path::new("/"), &slot, &|_| {}, &stop).unwrap_err();
        assert!(matches!(error, CaptureError::NoGstreamer { .. }));
    }
}
