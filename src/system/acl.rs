//! Who else may do something with a file by its access control list (POSIX.1e), which its mode does not name.
//!
//! Where a file has such a list, the group's bits of its mode are the list's mask: what is closed to its group is closed to everybody whom the
//! list names. So a secret of mode 0600 needs no look at its list; a file that its group may read does. Lists of another kind (NFS
//! version 4's, Windows') are not seen.

use std::path::Path;

/// The attribute that holds the list.
const ATTRIBUTE: &str = "system.posix_acl_access";
/// The form of the list that Linux hands out (`linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
/// The most entries that are looked at; a longer list is told as one that cannot be read.
const MOST_ENTRIES: usize = 1024;
const READ: u16 = 4;
const USER: u16 = 2;
const GROUP: u16 = 8;
const MASK: u16 = 16;

/// Whom a file's list lets read, besides its owner, its group and everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A user, by number.
    User(u32),
    /// A group, by number.
    Group(u32),
    /// There is a list, and it cannot be understood.
    Unknown,
}

/// Whom the list of `path` lets read; nobody where it has none.
pub fn named_readers(path: &Path) -> Vec<Named> {
    let mut list = vec![0; 4 + ENTRY_BYTES * MOST_ENTRIES];
    match rustix::fs::getxattr(path, ATTRIBUTE, &mut list[..]) {
        Ok(length) => readers(&list[..length.min(list.len())]),
        Err(rustix::io::Errno::RANGE) => vec![Named::Unknown],
        Err(_) => Vec::new(),
    }
}

fn readers(list: &[u8]) -> Vec<Named> {
    let Some((version, entries)) = list.split_first_chunk::<4>() else { return vec![Named::Unknown] };
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return vec![Named::Unknown];
    }
    let entries = entries.iter().map(|&[t0, t1, p0, p1, i0, i1, i2, i3]| {
        (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]), u32::from_le_bytes([i0, i1, i2, i3]))
    });
    let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(READ, |(_, may, _)| may);
    let named = entries.filter(|(_, may, _)| may & mask & READ != 0).filter_map(|(tag, _, id)| match tag {
        USER => Some(Named::User(id)),
        GROUP => Some(Named::Group(id)),
        _ => None,
    });
    named.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list: owner all, each of `named` may read, their mask, nobody else.
    fn list(named: &[(u16, u32)], mask: u16) -> Vec<u8> {
        let mut entries = vec![(1, 6, u32::MAX)];
        entries.extend(named.iter().filter(|(tag, _)| *tag == USER).map(|&(tag, id)| (tag, READ, id)));
        entries.push((4, 0, u32::MAX));
        entries.extend(named.iter().filter(|(tag, _)| *tag == GROUP).map(|&(tag, id)| (tag, READ, id)));
        entries.extend([(MASK, mask, u32::MAX), (32, 0, u32::MAX)]);
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, may, id) in entries {
            bytes.extend([u16::to_le_bytes(tag), u16::to_le_bytes(may)].concat());
            bytes.extend(u32::to_le_bytes(id));
        }
        bytes
    }

    /// Lets user 12345 read the file by its list; false where the file system has none.
    pub(crate) fn let_somebody_read(path: &Path) -> bool {
        let list = list(&[(USER, 12345)], READ);
        match rustix::fs::setxattr(path, ATTRIBUTE, &list, rustix::fs::XattrFlags::empty()) {
            Ok(()) => true,
            Err(rustix::io::Errno::OPNOTSUPP) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn whoever_a_list_names_is_told_within_its_mask_and_what_is_no_list_is_not_understood() {
        let named = [(USER, 7), (GROUP, 9)];
        assert_eq!(readers(&list(&named, 7)), [Named::User(7), Named::Group(9)]);
        assert_eq!(readers(&list(&named, 3)), [], "the mask takes it away");
        assert_eq!(readers(&list(&[], 7)), []);
        for broken in [&list(&named, 7)[..11], &[], &[9; 12]] {
            assert_eq!(readers(broken), [Named::Unknown]);
        }
    }

    #[test]
    fn a_files_own_list_is_read_and_closing_the_file_to_its_group_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "").unwrap();
        assert_eq!(named_readers(&path), []);
        if let_somebody_read(&path) {
            assert_eq!(named_readers(&path), [Named::User(12345)]);
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, closed).unwrap();
            assert_eq!(named_readers(&path), []);
        }
    }
}
