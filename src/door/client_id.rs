//! The MQTT client id of a door's controller.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::controller::Places;
use super::hardware::DoorError;
use crate::system::files;
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
    let text = files::read(path, SUFFIX_DIGITS as u64 + 1)?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    if text.len() == SUFFIX_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(text);
    }
    path.parent().map_or(Ok(()), files::private_folder)?;
    let suffix = Uuid::new_v4().simple().to_string();
    // One that is half written is made anew.
    files::replace(path, &path.with_added_extension("new"), suffix.as_bytes())?;
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

    #[test]
    fn nothing_is_written_through_what_was_planted_in_its_place_or_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.client");
        let target = files::planted::Target::new();
        for place in [path.clone(), path.with_added_extension("new")] {
            // A link is refused or replaced, and a second name of another's file is taken for none of ours.
            target.outlives(&place, || drop(suffix(&path)));
            let _ = std::fs::remove_file(&path);
        }
    }
}
