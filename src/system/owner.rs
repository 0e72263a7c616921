//! Root writes what another user owns as that user. The service's folders belong to its user, who can plant there whatever it likes; a
//! verb that root runs (enrol while the service is stopped, `run --accept-lost-state`) takes that user's rights before it touches
//! them, so that nothing planted reaches further than the user's own hand does. What root alone may read it goes on reading: the secrets,
//! the config, photos of the operator's.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// Groups of hardware that the shipped units and their drop-ins open to the service: cameras, GPUs, the relay, the serial line.
const HARDWARE: [&str; 4] = ["video", "render", "gpio", "dialout"];

/// Who called, when that is not who we are by now.
static CALLER: OnceLock<Uid> = OnceLock::new();

/// The user who started the program: what the audit trail names.
pub fn caller() -> u32 {
    CALLER.get().copied().unwrap_or_else(geteuid).as_raw()
}

/// As root, becomes the owner of `folder`, or of the nearest folder above it that is there; for root's own, and for anybody who is
/// not root, nothing changes. To be called before the first thread is started: threads have rights of their own.
pub fn become_owner_of(folder: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let Some((uid, gid)) = foreign_owner(folder)? else { return Ok(()) };
    let wrong = |what: &'static str| {
        move |error: rustix::io::Errno| io::Error::new(io::Error::from(error).kind(), format!("{what}: {error}"))
    };
    let groups = groups_of(uid, gid);
    // Locked memory is root's right too, and templates are kept in it.
    let kept = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::IPC_LOCK;
    let kept = kept & capabilities(None).map_err(wrong("capabilities"))?.permitted;
    set_keep_capabilities(true).map_err(wrong("keeping the right to read"))?;
    set_thread_groups(&groups).map_err(wrong("the owner's groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(wrong("the owner's group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(wrong("the owner's user id"))?;
    set_keep_capabilities(false).map_err(wrong("keeping the right to read"))?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
        .map_err(wrong("giving up root's rights"))?;
    let _ = CALLER.set(Uid::ROOT);
    log::debug!("{} belongs to user {}, whose rights are taken", folder.display(), uid.as_raw());
    Ok(())
}

/// Whether root would write another user's folder by going on as root.
pub fn is_anothers(folder: &Path) -> bool {
    geteuid().is_root() && foreign_owner(folder).is_ok_and(|owner| owner.is_some())
}

/// The first owner on the way to `path` who is not root: whoever owns a folder can put anything in the place of what lies in it.
fn foreign_owner(path: &Path) -> io::Result<Option<(Uid, Gid)>> {
    let mut here = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        here.push(part);
        let metadata = match here.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if let Some(owner) = foreign(&metadata) {
            return Ok(Some(owner));
        }
        if metadata.is_symlink() {
            // Root's own link: the way goes on from where it leads, which has no link in it.
            here = match here.canonicalize() {
                Ok(target) => target,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let mut above: Vec<_> = here.ancestors().collect();
            above.reverse();
            for folder in above {
                if let Some(owner) = foreign(&folder.symlink_metadata()?) {
                    return Ok(Some(owner));
                }
            }
        }
    }
    Ok(None)
}

/// The owner, unless that is root or, in a container, somebody who does not exist in it.
fn foreign(metadata: &std::fs::Metadata) -> Option<(Uid, Gid)> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    (metadata.uid() != 0 && is_mapped(&map, metadata.uid())).then(|| (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())))
}

/// Whether a user id is one of this user namespace (user_namespaces(7)): lines of the first id inside, outside, and how many.
fn is_mapped(map: &str, id: u32) -> bool {
    let within = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().ok());
        let (first, count) = (numbers.next()??, numbers.nth(1)??);
        Some((first..first.saturating_add(count)).contains(&u64::from(id)))
    };
    map.is_empty() || map.lines().any(|line| within(line).unwrap_or(false))
}

/// The owner's groups as the system's files name them, and those of hardware.
fn groups_of(uid: Uid, gid: Gid) -> Vec<Gid> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (users, groups) = (read("/etc/passwd"), read("/etc/group"));
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid.as_raw())).then_some(name)
    });
    let mut found = vec![gid];
    for line in groups.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, number, members] = fields[..] else { continue };
        let is_theirs = user.is_some_and(|user| members.split(',').any(|member| member == user));
        if let Ok(number) = number.parse()
            && (is_theirs || HARDWARE.contains(&name))
        {
            found.push(Gid::from_raw(number));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A user who owns nothing here and is in no group.
    const SOMEBODY: u32 = 61_234;

    #[test]
    fn an_id_is_of_a_namespace_or_it_is_not() {
        assert!(is_mapped("         0          0 4294967295\n", 65_534));
        assert!(!is_mapped("0 1000 1\n", 65_534) && is_mapped("0 1000 1\n1 100000 65536\n", 65_534));
        assert!(is_mapped("", 1) && !is_mapped("odd\n", 1));
    }

    /// Root in the test run, as CI is; rights are a thread's own, so the test's thread alone gives them up.
    fn as_root(test: impl FnOnce(&Path) + Send + 'static) {
        if !geteuid().is_root() {
            println!("SKIPPED: not root: nobody's rights can be taken");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().to_owned();
        std::thread::spawn(move || test(&path)).join().unwrap();
    }

    #[test]
    fn in_anothers_folder_root_writes_with_that_users_rights_and_reads_with_its_own() {
        as_root(|folder| {
            let (theirs, roots, secret) = (folder.join("theirs"), folder.join("roots"), folder.join("secret"));
            std::fs::create_dir(&theirs).unwrap();
            std::fs::create_dir(&roots).unwrap();
            std::os::unix::fs::chown(&theirs, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
            std::fs::write(&secret, "root's").unwrap();
            std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
            let link = theirs.join("link");
            std::os::unix::fs::symlink(&secret, &link).unwrap();
            become_owner_of(&theirs.join("state/below")).unwrap();
            assert_eq!((geteuid().as_raw(), caller()), (SOMEBODY, 0));
            assert_eq!(std::fs::read(&secret).unwrap(), b"root's", "what root may read is read");
            // Through the link, past it, and beside: the user's own hand reaches no further.
            assert!(std::fs::write(&link, "overwritten").is_err());
            assert!(std::fs::write(&secret, "overwritten").is_err());
            assert!(std::fs::write(roots.join("new"), "made").is_err());
            assert!(std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o666)).is_err());
            assert!(rustix::process::setpriority_process(None, -20).is_err(), "no other right of root's is left");
            std::fs::write(theirs.join("new"), "theirs").unwrap();
            assert_eq!(theirs.join("new").metadata().unwrap().uid(), SOMEBODY);
        });
    }

    #[test]
    fn in_roots_own_folder_nothing_changes_and_roots_links_are_followed() {
        as_root(|folder| {
            let (theirs, linked) = (folder.join("theirs"), folder.join("linked"));
            std::fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
            std::os::unix::fs::symlink(&theirs, &linked).unwrap();
            become_owner_of(&folder.join("not/there/yet")).unwrap();
            assert!(geteuid().is_root() && !is_anothers(folder));
            assert!(is_anothers(&linked.join("cache")) && is_anothers(&theirs));
            become_owner_of(&linked.join("state")).unwrap();
            assert_eq!(geteuid().as_raw(), SOMEBODY);
        });
    }
}
