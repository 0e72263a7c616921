//! Writing the file anew while changes go on: none waits, none is lost, and of a file that was thrown away nothing can be opened.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::medium::Medium;
use super::super::store::BESIDE;
use super::*;

/// A disk on which somebody is enrolled whenever a file is written beside changes, a number of times.
struct Busy {
    disk: Simulated,
    gallery: OnceLock<std::sync::Weak<Gallery>>,
    left: AtomicU64,
}

impl Medium for Busy {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read(name)
    }

    fn read_head(&self, name: &str, most: usize) -> io::Result<Vec<u8>> {
        self.disk.read_head(name, most)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let one_less = |left: u64| left.checked_sub(1);
        if name == BESIDE
            && let Ok(left) = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            && let Some(gallery) = self.gallery.get().and_then(std::sync::Weak::upgrade)
        {
            // It would wait for ever, were the writer's lock held.
            gallery.enroll(person(&format!("new-{left}")), vec![template(left)]).unwrap();
        }
        self.disk.write(name, offset, bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.disk.sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn shred(&self, bytes: usize) -> io::Result<()> {
        self.disk.shred(bytes)
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.disk.truncate(name, length)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn destroy(&self, name: &str, bytes: usize) -> io::Result<()> {
        self.disk.destroy(name, bytes)
    }
}

#[test]
fn enrolments_go_on_while_the_file_is_written_and_it_is_written_all_the_same() {
    for enrolments in [0, 1, 2, 50] {
        let (disk, key) = small();
        let busy = Arc::new(Busy { disk: disk.clone(), gallery: OnceLock::new(), left: AtomicU64::new(enrolments) });
        let settings = settings(Path::new("/simulated"));
        let gallery = Gallery::open_on(busy.clone(), &settings, &key, (&model(), DIMENSION.get()), true, None).unwrap();
        let gallery = Arc::new(gallery);
        busy.gallery.set(Arc::downgrade(&gallery)).unwrap();
        gallery.erase(&id("ann")).unwrap();
        let done = enrolments - busy.left.load(Ordering::Relaxed);
        assert_eq!(gallery.snapshot().len() as u64, 1 + done, "each of {enrolments} that came");
        assert!(done <= 3, "it never got its turn: {done}");
        assert!(!disk.files().contains_key(JOURNAL) && !disk.files().contains_key(BESIDE), "{enrolments}");
        let reopened = on(&disk.reopened(), &key).unwrap();
        assert!(reopened.rollback().is_none() && content(&reopened.snapshot()) == content(&gallery.snapshot()));
        // What was thrown away held her too: no header is left on the bare disk but that of the file that is there.
        let file = disk.files()[FILE].clone();
        let others = disk.remains().into_iter().filter(|bytes| bytes.starts_with(&format::MAGIC[..14]) && *bytes != file);
        assert_eq!(others.count(), 0, "{enrolments}: a file that holds her can be opened");
    }
}

#[test]
fn a_file_written_beside_changes_hides_none_of_them_wherever_the_power_goes() {
    /// When somebody is enrolled: before the file is written, after it, or not at all.
    const WHEN: [Option<bool>; 3] = [None, Some(true), Some(false)];
    let (start, key) = small();
    let enroll = |gallery: &Gallery, name: &str| gallery.enroll(person(name), vec![template(9)]).is_ok();
    // Gives who must be there, who may be besides, and whether all went well.
    let run = |disk: &Simulated, when: Option<bool>| -> (Vec<&str>, Option<&str>, bool) {
        let mut there = vec!["ann", "bob"];
        let Ok(gallery) = on(disk, &key) else { return (there, None, false) };
        let now = gallery.snapshot();
        let Ok(Some(beside)) = gallery.write(|store| store.begin_beside(&now)) else { return (there, None, false) };
        if when == Some(true) {
            if !enroll(&gallery, "cyd") {
                return (there, Some("cyd"), false);
            }
            there.push("cyd");
        }
        let written = beside.write(&now);
        if when == Some(false) {
            if !enroll(&gallery, "cyd") {
                return (there, Some("cyd"), false);
            }
            there.push("cyd");
        }
        match gallery.write(|store| store.finish_beside(written)) {
            Ok(placed) => assert_eq!(placed, when.is_none(), "a file took the place of one whose journal knows more"),
            Err(_) => return (there, None, false),
        }
        if !enroll(&gallery, "dan") {
            return (there, Some("dan"), false);
        }
        there.push("dan");
        (there, None, true)
    };
    for when in WHEN {
        let whole = start.reopened();
        assert!(run(&whole, when).2);
        for call in 0..=whole.calls() {
            for tear in 0..40 {
                let told = || format!("{when:?}, cut at call {call}, tear {tear}");
                let disk = start.reopened();
                disk.cut(call);
                let (there, besides, _) = run(&disk, when);
                let after = disk.after_power_cut(tear);
                let gallery = on(&after, &key).unwrap_or_else(|error| panic!("{}: {error}", told()));
                assert!(gallery.rollback().is_none(), "{}: a false alarm", told());
                let snapshot = gallery.snapshot();
                let found: Vec<&str> = snapshot.people().map(|(person, _)| person.id.as_str()).collect();
                let with_it: Vec<&str> = there.iter().copied().chain(besides).collect();
                assert!(found == there || found == with_it, "{}: {found:?} and not {there:?}", told());
                assert!(!after.files().contains_key(BESIDE), "{}", told());
            }
        }
    }
}
