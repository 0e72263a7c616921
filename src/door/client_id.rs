//! The MQTT client id of a door's controller.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use uuid::Uuid;

use super::controller::Places;
use super::hardware::DoorError;
use crate::types::DoorId;

/// The part that nobody can guess: a random UUID.
const SUFFIX_DIGITS: usize = 32;

/// Never the daemon's own id: on one broker they would throw each other out. Nor one that others can guess: whoever may connect under it
/// throws the controller out. It stays the same over restarts, so that a new connection ends one that was cut and its will. An operator
/// who sets `client-id` has a broker that wants to know it, and gets no more than the door's name behind it.
pub(super) fn of(places: Places<'_>, door: &DoorId) -> Result<String, DoorError> {
    if let Some(id) = &places.broker.client_id {
        return Ok(format!("{id}-door-{door}"));
    }
    let path = places.state.join("door").join(format!("{door}.client"));
    let suffix = suffix(&path).map_err(|source| DoorError::ClientId { path, source })?;
    Ok(format!("faceid-door-{}-{door}-{suffix}", places.device))
}

/// What the file says, if it is one of ours; otherwise a new one.
fn suffix(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => drop(file.take(SUFFIX_DIGITS as u64 + 1).read_to_string(&mut text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if text.len() == SUFFIX_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(text);
    }
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let suffix = Uuid::new_v4().simple().to_string();
    // One that is half written is made anew.
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(suffix.as_bytes())?;
    file.sync_all()?;
    Ok(suffix)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_suffix_is_drawn_once_and_again_where_it_is_not_one_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/front.client");
        let first = suffix(&path).unwrap();
        assert_eq!((suffix(&path).unwrap(), first.len()), (first.clone(), SUFFIX_DIGITS));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(suffix(&folder.path().join("door/back.client")).unwrap(), first);
        for torn in [&first[1..], "", "+/#", &"x".repeat(SUFFIX_DIGITS), &format!("{first}0")] {
            std::fs::write(&path, torn).unwrap();
            let anew = suffix(&path).unwrap();
            assert!(anew.len() == SUFFIX_DIGITS && anew != torn && anew != first, "{torn:?} gave {anew}");
        }
        std::fs::write(&path, [0xff; SUFFIX_DIGITS]).unwrap();
        assert_eq!(suffix(&path).unwrap().len(), SUFFIX_DIGITS);
    }
}
