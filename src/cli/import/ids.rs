//! Folders' names as people's ids and names.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use sha2::{Digest, Sha256};

use super::super::{Failure, Result};
use crate::gallery::Snapshot;
use crate::gallery::format::MAX_NAME_BYTES;
use crate::types::PersonId;

/// The longest part of an id that comes from the name itself, where a hash of the name is added to it.
const STEM: usize = 55;

/// The id of each folder's person, or why it has none, by the folders' names alone: the same folders give the same ids at every import.
/// No two folders of one import ever become one person.
pub(super) fn ids_of<'a>(
    folders: impl Iterator<Item = &'a OsStr>,
    snapshot: &Snapshot,
) -> Vec<std::result::Result<PersonId, (String, &'static str)>> {
    let mut taken: BTreeMap<PersonId, String> = BTreeMap::new();
    let mut ids = Vec::new();
    for folder in folders {
        let shown = folder.to_string_lossy();
        let id = id_of(folder, snapshot).map_err(|failure| (failure.message, "no-person-id")).and_then(|id| match taken.get(&id) {
            Some(other) => Err((format!("`{shown}` becomes the id {id}, which `{other}` has: rename one"), "same-id")),
            None => Ok(id),
        });
        if let Ok(id) = &id {
            taken.insert(id.clone(), shown.into_owned());
        }
        ids.push(id);
    }
    ids
}

/// A folder's name as a person's id. A name that is an id is that id; of any other, what an id cannot hold becomes `_`, and a hash of
/// the name tells it from others that fall onto the same: `张伟` and `李娜`, `anna b` and `anna_b`, and two very long ones.
fn id_of(folder: &OsStr, snapshot: &Snapshot) -> Result<PersonId> {
    let name = folder.to_string_lossy();
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' }).collect();
    if *plain == *name
        && let Ok(id) = PersonId::new(&*plain)
    {
        return Ok(id);
    }
    // An import of an earlier version gave no hash: who was enrolled by it under this very name is found again.
    if let Ok(id) = PersonId::new(plain.clone())
        && snapshot.person(&id).is_some_and(|person| person.name.as_deref() == Some(&*name))
    {
        return Ok(id);
    }
    let hash = Sha256::digest(folder.as_encoded_bytes());
    let stem = plain.trim_start_matches(['.', '-']);
    let stem = &stem[..stem.len().min(STEM)];
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    PersonId::new(if stem.is_empty() { hash } else { format!("{stem}-{hash}") }).map_err(Failure::data)
}

/// Latin letters with a mark or of two, by what stands for them in plain ones.
const PLAIN: [(&str, &str); 31] = [
    ("àáâãåāăą", "a"),
    ("ä", "ae"),
    ("æ", "ae"),
    ("çćĉċč", "c"),
    ("ďđð", "d"),
    ("èéêëēĕėęě", "e"),
    ("ĝğġģ", "g"),
    ("ĥħ", "h"),
    ("ìíîïĩīĭįı", "i"),
    ("ĵ", "j"),
    ("ķ", "k"),
    ("ĺļľŀł", "l"),
    ("ñńņň", "n"),
    ("òóôõōŏő", "o"),
    ("öø", "oe"),
    ("œ", "oe"),
    ("ŕŗř", "r"),
    ("śŝşšș", "s"),
    ("ß", "ss"),
    ("ţťŧț", "t"),
    ("þ", "th"),
    ("ùúûũūŭůűų", "u"),
    ("ü", "ue"),
    ("ŵ", "w"),
    ("ýÿŷ", "y"),
    ("źżž", "z"),
    (" ", "-"),
    ("_", "_"),
    ("-", "-"),
    (".", "."),
    ("'’", ""),
];

/// An id for somebody of this name, to be proposed: in plain small letters, and where the name has others, with a hash of it.
pub(in super::super) fn proposed_id(name: &str) -> Option<PersonId> {
    let (mut plain, mut is_all) = (String::new(), true);
    for letter in name.trim().chars().flat_map(char::to_lowercase) {
        match PLAIN.iter().find(|(letters, _)| letters.contains(letter)) {
            Some((_, in_plain)) => plain.push_str(in_plain),
            None if letter.is_ascii_alphanumeric() => plain.push(letter),
            None => is_all = false,
        }
    }
    let plain = plain.trim_matches(['.', '-']);
    if is_all && let Ok(id) = PersonId::new(plain) {
        return Some(id);
    }
    let stem = plain.get(..STEM).unwrap_or(plain);
    let hash: String = Sha256::digest(name.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    PersonId::new(if stem.is_empty() { hash } else { format!("{stem}-{hash}") }).ok()
}

/// A folder's name as a person's: without what a name cannot hold, and no longer than it may be.
pub(super) fn name_of(folder: &OsStr) -> String {
    let mut name = String::new();
    for c in folder.to_string_lossy().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_any_letters_has_an_id_to_propose_that_is_no_others() {
        for (name, id) in [
            ("Jörg Müller", "joerg-mueller"),
            ("Łukasz O'Neill", "lukasz-oneill"),
            ("Zoë", "zoe"),
            ("ada.l", "ada.l"),
            ("-x-", "x"),
        ] {
            assert_eq!(proposed_id(name).unwrap().as_str(), id, "{name}");
        }
        let others = ["张伟", "李娜", "Иван", "x 张", "x 李", "", "…", &"x".repeat(100), &"x".repeat(101)];
        let mut ids: Vec<PersonId> = others.iter().map(|name| proposed_id(name).unwrap()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), others.len(), "{ids:?}");
    }
}
