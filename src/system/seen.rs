//! A durable memory of ids that may be used once: a grant's `jti` at a door, a command's nonce at the daemon.
//!
//! [`Seen::take`] returns only when the id is on disk, so that a power cut right after the lock opened cannot let the same grant open
//! it again. An id is forgotten after its expiry. `floor` is the latest expiry that was ever forgotten: whatever expires no later is
//! refused, so a clock that is set back brings no used id to life.
//!
//! The file is text: `v1 FLOOR`, then a line `EXPIRY ID` for each. A torn last line is an id whose `take` never returned; any other
//! line that does not read makes the file damaged, and nothing is accepted until somebody looks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::files;
use crate::types::Wall;

/// The most ids that are remembered at once; more than this many unexpired ones is an attack, and the newest are refused.
pub const CAPACITY: usize = 16_384;
/// Dead lines that the file may have before it is written anew.
const SLACK: usize = 1024;
/// How long an id is remembered beyond its expiry, in seconds: longer than the difference of two clocks that anybody allows.
const GRACE_S: i64 = 120;
/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 64;
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Why an id is not taken.
#[derive(Debug, Error)]
pub enum SeenError {
    /// It was taken before.
    #[error("it was used before")]
    Again,
    /// It may have been taken before and forgotten: it expires no later than one that was.
    #[error("it is older than what is remembered")]
    TooOld,
    /// No id: empty, too long, or not of plain characters.
    #[error("its id is not plain")]
    Malformed,
    /// Too many are unexpired.
    #[error("more than {CAPACITY} unexpired ids are remembered: somebody makes too many")]
    Full,
    /// The file is not what was written.
    #[error("{path}: line {line} is damaged; when every grant has expired (5 minutes), the file can be deleted", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: usize,
    },
    /// The disk refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// The memory. One process a file.
pub struct Seen {
    path: PathBuf,
    file: Option<File>,
    ids: HashMap<String, i64>,
    floor: i64,
    /// Lines of the file.
    lines: usize,
}

impl Seen {
    /// Reads the file, or starts one; its folder is made with mode 0700.
    pub fn open(path: &Path) -> Result<Self, SeenError> {
        let io = |source| SeenError::Io { path: path.to_owned(), source };
        path.parent().map_or(Ok(()), files::private_folder).map_err(io)?;
        let mut seen = Self { path: path.to_owned(), file: None, ids: HashMap::new(), floor: i64::MIN, lines: 0 };
        if let Some(bytes) = files::read(path, MAX_FILE_BYTES).map_err(io)? {
            seen.parse(&bytes)?;
        }
        seen.rewrite().map_err(io)?;
        Ok(seen)
    }

    /// Takes `id`, which expires at second `expires`, if it was never taken; durable when this returns.
    pub fn take(&mut self, id: &str, expires: i64, now: Wall) -> Result<(), SeenError> {
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SeenError::Malformed);
        }
        if self.ids.contains_key(id) {
            return Err(SeenError::Again);
        }
        if self.file.is_none() || self.lines > self.ids.len() + SLACK || self.ids.len() >= CAPACITY {
            self.forget(now);
            self.rewrite().map_err(|source| SeenError::Io { path: self.path.clone(), source })?;
        }
        if expires <= self.floor {
            return Err(SeenError::TooOld);
        }
        if self.ids.len() >= CAPACITY {
            return Err(SeenError::Full);
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(format!("{expires} {id}\n").as_bytes()).and_then(|()| file.sync_data()),
            None => Err(io::Error::other("not open")),
        };
        if let Err(source) = written {
            // What the file holds now is unknown: it is written anew before the next id.
            self.file = None;
            return Err(SeenError::Io { path: self.path.clone(), source });
        }
        self.lines += 1;
        self.ids.insert(id.to_owned(), expires);
        Ok(())
    }

    fn forget(&mut self, now: Wall) {
        let dead = now.unix_seconds().saturating_sub(GRACE_S);
        let floor = &mut self.floor;
        self.ids.retain(|_, expires| {
            if *expires < dead {
                *floor = (*floor).max(*expires);
            }
            *expires >= dead
        });
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<(), SeenError> {
        let damaged = |line: usize| SeenError::Damaged { path: self.path.clone(), line };
        // Nothing after the last line end was ever told to be durable.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| damaged(1))?;
        let mut ids = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let (first, second) = line.split_once(' ').ok_or_else(|| damaged(index + 1))?;
            if index == 0 {
                let floor = second.parse().ok().filter(|_| first == "v1");
                self.floor = floor.ok_or_else(|| damaged(1))?;
                continue;
            }
            let expires = first.parse().map_err(|_| damaged(index + 1))?;
            ids.insert(second.to_owned(), expires);
        }
        if whole == 0 && !bytes.is_empty() {
            return Err(damaged(1));
        }
        self.ids = ids;
        Ok(())
    }

    /// Puts a fresh file in the place of the old one, at one moment.
    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut text = format!("v1 {}\n", self.floor);
        for (id, expires) in &self.ids {
            text.push_str(&format!("{expires} {id}\n"));
        }
        self.file = None;
        let file = files::replace(&self.path, &fresh, text.as_bytes())?;
        self.lines = self.ids.len();
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wall(seconds: i64) -> Wall {
        Wall(seconds * 1000)
    }

    #[test]
    fn what_was_taken_is_refused_for_ever_even_after_a_restart_and_a_clock_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/seen");
        let mut seen = Seen::open(&path).unwrap();
        seen.take("a", 100, wall(95)).unwrap();
        assert!(matches!(seen.take("a", 100, wall(95)), Err(SeenError::Again)));
        drop(seen);
        let mut seen = Seen::open(&path).unwrap();
        assert!(matches!(seen.take("a", 100, wall(95)), Err(SeenError::Again)));
        // Forgotten long after its end: the floor takes its place.
        seen.forget(wall(1000));
        seen.rewrite().unwrap();
        drop(seen);
        let mut seen = Seen::open(&path).unwrap();
        assert!(matches!(seen.take("a", 100, wall(95)), Err(SeenError::TooOld)));
        assert!(matches!(seen.take("b", 99, wall(95)), Err(SeenError::TooOld)));
        seen.take("c", 101, wall(95)).unwrap();
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/front.seen");
        drop(Seen::open(&path).unwrap());
        let target = files::planted::Target::new();
        target.outlives(&path.with_extension("new"), || drop(Seen::open(&path).unwrap()));
        // In the file's own place a link is no memory: nothing is taken by it, and nothing is read through it.
        target.outlives(&path, || {
            if path.is_symlink() {
                assert!(Seen::open(&path).err().unwrap().to_string().contains("link"));
            }
        });
        let door = folder.path().join("other");
        files::planted::folder_outlives(&door, || Seen::open(&door.join("front.seen")).map(drop));
    }

    #[test]
    fn ids_that_would_break_the_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(&folder.path().join("seen")).unwrap();
        for id in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(matches!(seen.take(id, 10, wall(1)), Err(SeenError::Malformed)), "{id:?}");
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_and_any_other_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen");
        std::fs::write(&path, "v1 5\n10 a\n11 b").unwrap();
        let mut seen = Seen::open(&path).unwrap();
        assert!(matches!(seen.take("a", 10, wall(1)), Err(SeenError::Again)));
        seen.take("b", 11, wall(1)).unwrap();
        drop(seen);
        for (text, line) in [("v2 5\n", 1), ("garbage\n", 1), ("v1 5\n10 a\nx y\n11 c\n", 3), ("garbage", 1)] {
            std::fs::write(&path, text).unwrap();
            let error = Seen::open(&path).err().unwrap();
            assert!(matches!(&error, SeenError::Damaged { line: found, .. } if *found == line), "{text:?}: {error}");
        }
    }

    #[test]
    fn more_unexpired_ids_than_fit_are_refused_and_none_is_forgotten_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(&folder.path().join("seen")).unwrap();
        seen.ids = (0..CAPACITY).map(|n| (n.to_string(), 1000)).collect();
        assert!(matches!(seen.take("one-more", 1000, wall(990)), Err(SeenError::Full)));
        assert!(matches!(seen.take("7", 1000, wall(990)), Err(SeenError::Again)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            std::fs::write(&path, &bytes).unwrap();
            let _ = Seen::open(&path);
        }

        #[test]
        fn nothing_is_ever_taken_twice(steps in proptest::collection::vec((0u8..12, 0i64..600, any::<bool>()), 1..60)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            let mut seen = Seen::open(&path).unwrap();
            let mut taken = std::collections::HashSet::new();
            for (id, time, restart) in steps {
                // An id has one expiry, as a signed token has.
                let expires = i64::from(id) * 40 + 50;
                if restart {
                    seen.forget(wall(time));
                    seen = Seen::open(&path).unwrap();
                }
                if seen.take(&id.to_string(), expires, wall(time)).is_ok() {
                    prop_assert!(taken.insert(id), "{} was taken twice", id);
                }
            }
        }
    }
}
