//! A durable memory of ids that may be used once: a grant's `jti` at a door, a command's nonce and a passage's id at the daemon.
//!
//! [`Seen::take`] returns only when the id is on disk, so that a power cut right after the lock opened cannot let the same grant open
//! it again. An id is forgotten after its end. `floor` is the latest end that was ever forgotten: whatever ends no later is refused.
//!
//! **Time.** The memory holds the latest time that the wall clock has shown ([`HighWater`]): what had ended by then is over however far the
//! clock is set back, and while it is behind nothing is taken. For grants, which come at once and in their order or not at all, it is
//! stricter: none is taken that was issued before the newest one that was taken, and none that was issued before this start or before the
//! clock's last step, each with the allowance for two clocks' difference.
//!
//! **Loss.** A file that is gone where there was one, is empty, cut, damaged, of another owner or another version has lost what was used.
//! Nothing that was issued before the new memory began is taken then, and of grants none at all for the longest life of a grant. Which
//! start is the first one only the caller can know, and whoever empties the whole folder makes any start look like it: so what was issued
//! before a first start is not taken either. An older copy that is put back is not seen here: who keeps messages' memories has a witness
//! for it ([`SeenError::UsedBefore`]).
//!
//! The file is text: `v2 OWNER FLOOR NEWEST MARK SINCE HELD`, then a line `END ISSUED MARK ID` for each id and now and then `= MARK`, all in seconds
//! since 1970 but for MARK, which is in milliseconds, and a line `.` at its end, which each new line overwrites: a file that was cut
//! anywhere does not end with it. `v1 FLOOR` with lines `END ID` is what an older program wrote, and is read.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::files;
use super::highwater::HighWater;
use crate::types::{Moment, Monotonic, Wall};

/// The most ids that are remembered at once; more than this many unexpired ones is an attack, and the newest are refused.
pub const CAPACITY: usize = 16_384;
/// For how long a memory of grants that was lost takes none: the longest life that any grant may have. The difference of two clocks comes
/// on top of it.
const LOSS_HOLD: Duration = Duration::from_secs(300);
/// Dead lines that the file may have before it is written anew.
const SLACK: usize = 1024;
/// How long an id is remembered beyond its end, in seconds: longer than the difference of two clocks that anybody allows.
const GRACE_S: i64 = 120;
/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 64;
const MAX_FILE_BYTES: u64 = 8 << 20;
/// What a whole file ends with.
const END: &str = ".\n";
/// How often the mark of time is written down where nothing else is: seldom enough for flash, often enough that a crash forgets little.
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// Why an id is not taken.
#[derive(Debug, Error)]
pub enum SeenError {
    /// It was taken before.
    #[error("it was used before")]
    Again,
    /// It may have been taken before and forgotten: it ends no later than one that was.
    #[error("it is older than what is remembered")]
    TooOld,
    /// It was issued before a newer one that was taken.
    #[error("it was issued {0} s before one that was used already")]
    OutOfOrder(i64),
    /// It was issued before this memory can tell what was used: before the start, a loss of the memory or a step of the clock.
    #[error("it was issued before this start of the program, before the clock was last set or before the memory of used ids began")]
    TooEarly,
    /// Something that was used before this start was signed no earlier.
    #[error("it was signed no later than one that was used before this start")]
    UsedBefore,
    /// It had ended by a time that the clock has shown already.
    #[error("it had ended: the clock has been later than this and was set back")]
    Over,
    /// The clock has gone back by this many seconds.
    #[error(
        "the clock is {seconds} s behind what it has shown: set it right; if it was wrong before, stop the program, remove {path} and start it again",
        path = path.display()
    )]
    ClockBack {
        /// By how much.
        seconds: u64,
        /// The file that remembers.
        path: PathBuf,
    },
    /// The memory was lost a short while ago.
    #[error("the memory of used ids was lost: nothing is taken for another {0} s")]
    Lost(u64),
    /// No id: empty, too long, or not of plain characters.
    #[error("its id is not plain")]
    Malformed,
    /// Too many are unexpired.
    #[error("more than {CAPACITY} unexpired ids are remembered: somebody makes too many")]
    Full,
    /// The disk refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grants at a door: they come at once, in their order, or not at all.
    Grants,
    /// Commands and passages: they may wait for a connection, and several people sign them.
    Messages,
}

/// Whose memory it is.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// In the file's first line, one word: another owner's file is no memory of ours.
    pub owner: &'a str,
    /// What is remembered.
    pub kind: Kind,
    /// Whether this is the very first start, so that there can be no file; otherwise its absence is a loss.
    pub is_new: bool,
    /// How far the clocks of whoever issues and of this machine may differ.
    pub leeway: Duration,
}

/// The memory. One process a file.
pub struct Seen {
    path: PathBuf,
    owner: String,
    kind: Kind,
    leeway_s: i64,
    file: Option<File>,
    /// Each with its end.
    ids: HashMap<String, i64>,
    floor: i64,
    /// When the newest that was taken was issued.
    newest: i64,
    /// What was issued no later than this is not taken.
    since: i64,
    water: HighWater,
    /// The mark as the file has it.
    kept: Wall,
    kept_at: Monotonic,
    /// Until when nothing is taken, because the memory was lost; and the same on the wall, for the next start.
    held_until: Option<Monotonic>,
    held: i64,
    now: Monotonic,
    /// Lines of the file, and where in it the next one goes: over [`END`].
    lines: usize,
    end: u64,
}

/// What a file says.
struct Contents {
    ids: HashMap<String, i64>,
    floor: i64,
    newest: i64,
    mark: i64,
    since: i64,
    held: i64,
}

impl Seen {
    /// Reads the file, or starts one; its folder is made with mode 0700. A memory that was lost is told in the log.
    pub fn open(path: &Path, terms: Terms<'_>, now: Moment) -> Result<Self, SeenError> {
        let io = |source| SeenError::Io { path: path.to_owned(), source };
        path.parent().map_or(Ok(()), files::private_folder).map_err(io)?;
        let found = match files::read(path, MAX_FILE_BYTES + 1).map_err(io)? {
            Some(bytes) => parse(&bytes, terms.owner).map(Some),
            None if terms.is_new => Ok(None),
            None => Err("it is gone".to_owned()),
        };
        let (loss, is_sound) = (found.as_ref().err().cloned(), matches!(found, Ok(Some(_))));
        let contents = found.ok().flatten().unwrap_or_default();
        let mut seen = Self {
            path: path.to_owned(),
            owner: terms.owner.to_owned(),
            kind: terms.kind,
            leeway_s: i64::try_from(terms.leeway.as_secs()).unwrap_or(i64::MAX),
            file: None,
            ids: contents.ids,
            floor: contents.floor,
            newest: contents.newest,
            since: contents.since,
            water: HighWater::new(Wall(contents.mark), now),
            kept: Wall(contents.mark),
            kept_at: now.monotonic,
            held_until: None,
            held: contents.held,
            now: now.monotonic,
            lines: 0,
            end: 0,
        };
        // Messages that a sound memory knows nothing of may have waited for this start.
        if loss.is_some() || (terms.kind == Kind::Grants && !is_sound) {
            seen.begin_anew();
        } else if terms.kind == Kind::Grants || !is_sound {
            // What a sound memory knows was used is refused by its id, so two clocks' difference need not be allowed for. At a first start it
            // is not, so that whoever commands at once is heard.
            seen.since = seen.water.mark().unix_seconds().saturating_sub(seen.leeway_s).saturating_sub(1);
        }
        if let Some(why) = loss {
            let after = match terms.kind {
                Kind::Grants => {
                    let hold = LOSS_HOLD + terms.leeway;
                    seen.held = now.wall.plus(hold).unix_seconds();
                    format!("no grant is taken for {} s", hold.as_secs())
                }
                Kind::Messages => "whatever was signed before now is refused".to_owned(),
            };
            log::error!("{}: the memory of used ids is lost: {why}; {after}", path.display());
            // For whoever wants to know how. The new one is what counts.
            let _ = std::fs::rename(path, path.with_added_extension("lost"));
        }
        // A start soon after the one that found the loss waits for the rest.
        let left = u64::try_from(seen.held.saturating_sub(now.wall.unix_seconds())).unwrap_or(0);
        seen.held_until = (left > 0).then(|| now.monotonic.plus(Duration::from_secs(left).min(LOSS_HOLD + terms.leeway)));
        seen.rewrite().map_err(io)?;
        Ok(seen)
    }

    /// Takes a look at the clocks, often: once a second or so, and before anything is taken. The mark of time is written down seldom.
    pub fn look(&mut self, now: Moment, is_synced: bool) {
        self.now = self.now.max(now.monotonic);
        if self.water.look(now, is_synced) && self.kind == Kind::Grants {
            self.begin_anew();
        }
        // A clock that was ahead at the start and was put right took the mark back with it.
        self.since = self.since.min(self.water.mark().unix_seconds());
        if self.held_until.is_some_and(|until| now.monotonic >= until) {
            self.held_until = None;
            log::warn!("{}: what was lost has expired: grants are taken again", self.path.display());
        }
        if now.monotonic.since(self.kept_at) >= KEEP_EVERY {
            self.kept_at = now.monotonic;
            self.keep_mark();
        }
    }

    /// Writes the mark of time down, at an end of the program for example. What cannot be written is told.
    pub fn keep(&mut self) {
        self.water.confirm();
        self.keep_mark();
    }

    fn keep_mark(&mut self) {
        let mark = self.water.to_keep();
        if mark <= self.kept {
            return;
        }
        let is_crowded = self.file.is_none() || self.lines > self.ids.len() + SLACK;
        let written = if is_crowded { self.rewrite() } else { self.append(&format!("= {}\n", mark.0)) };
        match written {
            Ok(()) => self.kept = mark,
            Err(error) => log::error!("{}: the time is not written down: {error}", self.path.display()),
        }
    }

    /// A line more, durable when this returns.
    fn append(&mut self, line: &str) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("not open"))?;
        let written = file.write_all_at(format!("{line}{END}").as_bytes(), self.end).and_then(|()| file.sync_data());
        match &written {
            Ok(()) => {
                self.end += line.len() as u64;
                self.lines += 1;
            }
            // What the file holds now is unknown: it is written anew before the next line.
            Err(_) => self.file = None,
        }
        written
    }

    /// The latest time that the clock has shown.
    pub fn mark(&self) -> Wall {
        self.water.mark()
    }

    /// By how much the clock has gone back.
    pub fn behind(&self, wall: Wall) -> Duration {
        self.water.behind(wall)
    }

    /// From here on only what is surely issued from now on is taken.
    fn begin_anew(&mut self) {
        self.since = self.water.mark().unix_seconds();
    }

    /// Takes `id`, which was issued at second `issued` and is void from second `ends` on (the allowance for two clocks' difference
    /// included), if it was never taken; durable when this returns.
    pub fn take(&mut self, id: &str, issued: i64, ends: i64, now: Wall) -> Result<(), SeenError> {
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SeenError::Malformed);
        }
        if self.ids.contains_key(id) {
            return Err(SeenError::Again);
        }
        self.check_time(issued, ends, now)?;
        if self.file.is_none() || self.lines > self.ids.len() + SLACK || self.ids.len() >= CAPACITY {
            self.forget(now);
            self.rewrite().map_err(|source| SeenError::Io { path: self.path.clone(), source })?;
        }
        if ends <= self.floor {
            return Err(SeenError::TooOld);
        }
        if self.ids.len() >= CAPACITY {
            return Err(SeenError::Full);
        }
        let mark = self.water.to_keep().max(now);
        let line = format!("{ends} {issued} {} {id}\n", mark.0);
        self.append(&line).map_err(|source| SeenError::Io { path: self.path.clone(), source })?;
        self.kept = mark;
        self.newest = self.newest.max(issued);
        // Two clocks agree on the time.
        self.water.confirm();
        self.ids.insert(id.to_owned(), ends);
        Ok(())
    }

    fn check_time(&self, issued: i64, ends: i64, now: Wall) -> Result<(), SeenError> {
        if let Some(until) = self.held_until {
            return Err(SeenError::Lost(until.since(self.now).as_secs().max(1)));
        }
        let behind = self.water.behind(now).as_secs();
        let is_back = i64::try_from(behind).unwrap_or(i64::MAX) > self.leeway_s;
        let is_over = ends <= self.water.mark().unix_seconds();
        if is_back && (is_over || self.kind == Kind::Grants) {
            return Err(SeenError::ClockBack { seconds: behind, path: self.path.clone() });
        }
        if is_over {
            return Err(SeenError::Over);
        }
        if issued <= self.since.saturating_add(self.leeway_s) {
            return Err(SeenError::TooEarly);
        }
        if self.kind == Kind::Grants && issued < self.newest.saturating_sub(self.leeway_s) {
            return Err(SeenError::OutOfOrder(self.newest.saturating_sub(issued)));
        }
        Ok(())
    }

    fn forget(&mut self, now: Wall) {
        let dead = now.unix_seconds().saturating_sub(GRACE_S);
        let floor = &mut self.floor;
        self.ids.retain(|_, ends| {
            if *ends < dead {
                *floor = (*floor).max(*ends);
            }
            *ends >= dead
        });
    }

    /// Puts a fresh file in the place of the old one, at one moment.
    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mark = self.water.to_keep();
        let mut text = format!("v2 {} {} {} {} {} {}\n", self.owner, self.floor, self.newest, mark.0, self.since, self.held);
        for (id, ends) in &self.ids {
            text.push_str(&format!("{ends} {} {} {id}\n", self.newest, mark.0));
        }
        self.file = None;
        let end = text.len() as u64;
        text.push_str(END);
        let file = files::replace(&self.path, &fresh, text.as_bytes())?;
        self.kept = mark;
        (self.lines, self.end) = (self.ids.len(), end);
        self.file = Some(file);
        Ok(())
    }
}

impl Default for Contents {
    fn default() -> Self {
        let never = i64::MIN;
        Self { ids: HashMap::new(), floor: never, newest: never, mark: never, since: never, held: never }
    }
}

/// Reads a whole file; why it is no memory of ours otherwise. A file that does not end with a line end was cut: by whom, nobody knows.
fn parse(bytes: &[u8], owner: &str) -> Result<Contents, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the file is longer than {MAX_FILE_BYTES} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is no text".to_owned())?;
    let is_old = text.starts_with("v1 ");
    let whole = if is_old { Some(text) } else { text.strip_suffix(END) };
    let text = whole.filter(|text| text.ends_with('\n')).ok_or_else(|| "the file is cut off or damaged".to_owned())?;
    let mut lines = text.lines().enumerate();
    let first: Vec<&str> = lines.next().map(|(_, line)| line.split(' ').collect()).unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().map_err(|_| "line 1 is damaged".to_owned());
    let mut contents = match first[..] {
        ["v2", whose, floor, newest, mark, since, held] => {
            if whose != owner {
                return Err("the file is another one's".to_owned());
            }
            let (floor, newest, mark) = (number(floor)?, number(newest)?, number(mark)?);
            Contents { ids: HashMap::new(), floor, newest, mark, since: number(since)?, held: number(held)? }
        }
        ["v1", floor] => Contents { floor: number(floor)?, ..Contents::default() },
        _ => return Err("line 1 is damaged, or of another version of the program".to_owned()),
    };
    for (index, line) in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("line {} is damaged", index + 1));
        match words[..] {
            [ends, id] if is_old => {
                contents.ids.insert(id.to_owned(), number(ends)?);
            }
            ["=", mark] if !is_old => contents.mark = contents.mark.max(number(mark)?),
            [ends, issued, mark, id] if !is_old => {
                contents.ids.insert(id.to_owned(), number(ends)?);
                contents.newest = contents.newest.max(number(issued)?);
                contents.mark = contents.mark.max(number(mark)?);
            }
            _ => return Err(format!("line {} is damaged", index + 1)),
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_700_000_000;

    /// `mono` seconds after some boot; the wall clock shows [`START`] and `wall` seconds.
    fn at(mono: u64, wall: i64) -> Moment {
        Moment { monotonic: Monotonic(mono * 1_000_000_000), wall: Wall((START + wall) * 1000) }
    }

    fn terms(kind: Kind, is_new: bool) -> Terms<'static> {
        Terms { owner: "gate/front", kind, is_new, leeway: Duration::from_secs(2) }
    }

    fn grants(path: &Path, is_new: bool, now: Moment) -> Seen {
        Seen::open(path, terms(Kind::Grants, is_new), now).unwrap()
    }

    fn messages(path: &Path, is_new: bool, now: Moment) -> Seen {
        Seen::open(path, terms(Kind::Messages, is_new), now).unwrap()
    }

    /// One that was issued at second `issued` and lives for five.
    fn take(seen: &mut Seen, id: &str, issued: i64, now: Moment) -> Result<(), SeenError> {
        seen.look(now, false);
        seen.take(id, START + issued, START + issued + 5 + 2, now.wall)
    }

    #[test]
    fn what_was_taken_is_refused_for_ever_even_after_a_restart_and_a_clock_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/seen");
        let mut seen = messages(&path, true, at(0, 0));
        take(&mut seen, "a", 95, at(95, 95)).unwrap();
        assert!(matches!(take(&mut seen, "a", 95, at(95, 95)), Err(SeenError::Again)));
        drop(seen);
        let mut seen = messages(&path, false, at(96, 96));
        assert!(matches!(take(&mut seen, "a", 95, at(96, 96)), Err(SeenError::Again)));
        // Forgotten long after its end: the floor takes its place.
        seen.forget(at(0, 1000).wall);
        assert!(seen.ids.is_empty());
        seen.rewrite().unwrap();
        drop(seen);
        let mut seen = messages(&path, false, at(97, 97));
        assert!(matches!(take(&mut seen, "a", 95, at(97, 97)), Err(SeenError::TooOld)));
        take(&mut seen, "c", 96, at(98, 98)).unwrap();
    }

    #[test]
    fn one_that_never_arrived_is_not_brought_to_life_by_a_clock_that_is_set_back() {
        for (kind, restarts, later_one) in [
            (Kind::Grants, false, false),
            (Kind::Grants, false, true),
            (Kind::Grants, true, false),
            (Kind::Grants, true, true),
            (Kind::Messages, false, false),
            (Kind::Messages, true, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            let mut seen = Seen::open(&path, terms(kind, true), at(0, 0)).unwrap();
            // Captured at 100, over at 105 and, with the leeway, at 107.
            seen.look(at(108, 108), false);
            if later_one {
                take(&mut seen, "later", 108, at(108, 108)).unwrap();
            }
            if restarts {
                seen.keep();
                seen = Seen::open(&path, terms(kind, false), at(110, 101)).unwrap();
            }
            for (mono, wall) in [(110, 101), (113, 104), (115, 106)] {
                let refused = take(&mut seen, "captured", 100, at(mono, wall));
                let is_told = matches!(refused, Err(SeenError::ClockBack { .. } | SeenError::Over | SeenError::TooEarly));
                assert!(is_told, "{kind:?} {restarts} {later_one}: {refused:?}");
            }
            // The clock has caught up, and what is signed then is taken.
            take(&mut seen, "fresh", 121, at(130, 121)).unwrap();
        }
    }

    #[test]
    fn a_crash_forgets_the_time_of_a_few_minutes_at_most_and_an_idle_memory_is_written_seldom() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen");
        let mut seen = grants(&path, true, at(0, 0));
        let length = || std::fs::metadata(&path).unwrap().len();
        let before = length();
        let mut writes = 0;
        let mut was = before;
        for second in 1..3600 {
            seen.look(at(second, i64::try_from(second).unwrap()), false);
            writes += u64::from(length() != was);
            was = length();
        }
        assert!((10..=12).contains(&writes), "{writes}");
        let seen = grants(&path, false, at(3601, 2000));
        assert!(seen.behind(at(0, 2000).wall) >= Duration::from_secs(1300), "{:?}", seen.behind(at(0, 2000).wall));
    }

    #[test]
    fn an_older_one_than_the_newest_is_refused_among_grants_and_taken_among_messages() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = grants(&folder.path().join("grants"), true, at(0, 0));
        take(&mut seen, "a", 100, at(100, 100)).unwrap();
        take(&mut seen, "b", 98, at(100, 100)).unwrap();
        assert!(matches!(take(&mut seen, "c", 97, at(100, 100)), Err(SeenError::OutOfOrder(3))));
        let mut seen = messages(&folder.path().join("messages"), true, at(0, 0));
        take(&mut seen, "a", 100, at(100, 100)).unwrap();
        take(&mut seen, "c", 97, at(100, 100)).unwrap();
    }

    #[test]
    fn every_kind_of_loss_takes_no_grant_for_a_lifetime_and_then_only_later_ones() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 10] = [
            ("deleted", |path| std::fs::remove_file(path).unwrap()),
            ("emptied", |path| std::fs::write(path, "").unwrap()),
            ("cut by three bytes", |path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
            }),
            ("its last line end cut", |path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
            }),
            ("its last lines cut", |path| {
                let text = std::fs::read_to_string(path).unwrap();
                std::fs::write(path, text.lines().next().unwrap().to_owned() + "\n").unwrap();
            }),
            ("another door's", |path| std::fs::write(path, "v2 gate/back 1 1 1 1 1\n.\n").unwrap()),
            ("of a later version", |path| std::fs::write(path, "v3 gate/front 1 1 1 1 1\n.\n").unwrap()),
            ("garbage", |path| std::fs::write(path, [0xff, 0, b'\n']).unwrap()),
            ("a damaged line", |path| std::fs::write(path, "v2 gate/front 1 1 1 1 1\n10 a b c\n.\n").unwrap()),
            ("cut in its first line", |path| std::fs::write(path, "v1 5").unwrap()),
        ];
        for (what, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            let mut seen = grants(&path, true, at(0, 0));
            take(&mut seen, "used", 100, at(100, 100)).unwrap();
            drop(seen);
            damage(&path);
            let mut seen = grants(&path, false, at(101, 101));
            for second in [101, 104, 200, 402] {
                let wall = i64::try_from(second).unwrap();
                let refused = take(&mut seen, "used", 100, at(second, wall));
                assert!(matches!(refused, Err(SeenError::Lost(_) | SeenError::Over)), "{what} at {second}: {refused:?}");
                let refused = take(&mut seen, "fresh", wall, at(second, wall));
                assert!(matches!(refused, Err(SeenError::Lost(_))), "{what} at {second}: {refused:?}");
                // Nor is the wait over with another start.
                seen = grants(&path, false, at(second, wall));
            }
            take(&mut seen, "fresh", 404, at(404, 404)).unwrap();
            drop(seen);
            // It is a sound memory again.
            let mut seen = grants(&path, false, at(405, 405));
            assert!(matches!(take(&mut seen, "fresh", 404, at(405, 405)), Err(SeenError::Again)), "{what}");
        }
    }

    #[test]
    fn a_memory_that_is_new_or_that_somebody_wrote_anew_takes_no_grant_of_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen");
        let mut seen = grants(&path, true, at(0, 0));
        let refused = take(&mut seen, "early", 2, at(2, 2));
        assert!(matches!(refused, Err(SeenError::TooEarly)), "{refused:?}");
        take(&mut seen, "used", 3, at(3, 3)).unwrap();
        drop(seen);
        let text = std::fs::read_to_string(&path).unwrap();
        let without = text.lines().next().unwrap().to_owned() + "\n.\n";
        for wiped in [without.as_str(), "v1 0\n", "v2 gate/front 0 0 0 0 0\n.\n"] {
            std::fs::write(&path, wiped).unwrap();
            let mut seen = grants(&path, false, at(4, 4));
            assert!(matches!(take(&mut seen, "used", 3, at(4, 4)), Err(SeenError::TooEarly)), "{wiped}");
        }
    }

    #[test]
    fn a_lost_memory_of_messages_takes_what_is_signed_from_then_on_and_nothing_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let mut seen = messages(&path, true, at(0, 0));
        take(&mut seen, "used", 100, at(100, 100)).unwrap();
        drop(seen);
        // A sound one takes what waited for the start.
        let mut seen = messages(&path, false, at(102, 102));
        take(&mut seen, "waited", 99, at(102, 102)).unwrap();
        drop(seen);
        for wiped in [None, Some(""), Some("v2 gate/front 0")] {
            match wiped {
                None => std::fs::remove_file(&path).unwrap(),
                Some(text) => std::fs::write(&path, text).unwrap(),
            }
            let mut seen = messages(&path, false, at(102, 102));
            assert!(matches!(take(&mut seen, "used", 100, at(102, 102)), Err(SeenError::TooEarly)), "{wiped:?}");
            let mut seen = messages(&path, false, at(103, 103));
            assert!(matches!(take(&mut seen, "used", 100, at(103, 103)), Err(SeenError::TooEarly)), "{wiped:?}, and a start more");
            take(&mut seen, "fresh", 106, at(106, 106)).unwrap();
        }
    }

    #[test]
    fn a_folder_that_was_emptied_brings_no_message_back_and_a_first_start_hears_whoever_speaks_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let mut seen = messages(&path, true, at(0, 0));
        take(&mut seen, "at-once", 0, at(0, 0)).unwrap();
        take(&mut seen, "used", 100, at(100, 100)).unwrap();
        drop(seen);
        std::fs::remove_file(&path).unwrap();
        // Everything is gone, so it looks like the very first start.
        let mut seen = messages(&path, true, at(102, 102));
        for (id, issued) in [("used", 100), ("kept-back", 101)] {
            let refused = take(&mut seen, id, issued, at(102, 102));
            assert!(matches!(refused, Err(SeenError::TooEarly)), "{id}: {refused:?}");
        }
        drop(seen);
        let mut seen = messages(&path, false, at(103, 103));
        assert!(matches!(take(&mut seen, "used", 100, at(103, 103)), Err(SeenError::TooEarly)), "after another start");
        take(&mut seen, "fresh", 102, at(103, 103)).unwrap();
        // A clock that was an hour ahead at a first start keeps nobody out once it is right.
        std::fs::remove_file(&path).unwrap();
        let mut seen = messages(&path, true, at(0, 3600));
        seen.look(at(1, 3601), false);
        seen.look(at(2, 2), true);
        // The allowance for two clocks' difference counts from there.
        take(&mut seen, "right", 6, at(6, 6)).unwrap();
    }

    #[test]
    fn what_an_older_program_wrote_is_read_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen");
        std::fs::write(&path, format!("v1 {}\n{} a\n", START + 5, START + 107)).unwrap();
        let mut seen = grants(&path, false, at(0, 100));
        assert!(matches!(take(&mut seen, "a", 100, at(0, 100)), Err(SeenError::Again)));
        take(&mut seen, "b", 103, at(3, 103)).unwrap();
        drop(seen);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("v2 gate/front "));
        let mut seen = grants(&path, false, at(4, 104));
        assert!(matches!(take(&mut seen, "a", 100, at(4, 104)), Err(SeenError::Again)));
        assert!(matches!(take(&mut seen, "b", 103, at(4, 104)), Err(SeenError::Again)));
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/front.seen");
        let terms = Terms { owner: "gate/front", kind: Kind::Grants, is_new: true, leeway: Duration::from_secs(2) };
        let open = |path: &Path| Seen::open(path, terms, at(0, 0));
        drop(open(&path).unwrap());
        let target = files::planted::Target::new();
        target.outlives(&path.with_extension("new"), || drop(open(&path).unwrap()));
        // In the file's own place a link is no memory: nothing is taken by it, and nothing is read through it.
        target.outlives(&path, || {
            if path.is_symlink() {
                assert!(open(&path).err().unwrap().to_string().contains("link"));
            }
        });
        let door = folder.path().join("other");
        files::planted::folder_outlives(&door, || open(&door.join("front.seen")).map(drop));
    }

    #[test]
    fn ids_that_would_break_the_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = messages(&folder.path().join("seen"), true, at(0, 0));
        for id in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(matches!(take(&mut seen, id, 10, at(10, 10)), Err(SeenError::Malformed)), "{id:?}");
        }
    }

    #[test]
    fn more_unexpired_ids_than_fit_are_refused_and_none_is_forgotten_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = messages(&folder.path().join("seen"), true, at(0, 0));
        seen.ids = (0..CAPACITY).map(|n| (n.to_string(), START + 1000)).collect();
        assert!(matches!(take(&mut seen, "one-more", 990, at(990, 990)), Err(SeenError::Full)));
        assert!(matches!(take(&mut seen, "7", 990, at(990, 990)), Err(SeenError::Again)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            std::fs::write(&path, &bytes).unwrap();
            let _ = Seen::open(&path, terms(Kind::Grants, false), at(0, 0));
        }
    }

    /// What may happen to a memory.
    #[derive(Debug, Clone)]
    enum Step {
        /// Time passes, on both clocks.
        Wait(u64),
        /// The wall clock is set.
        Set(i64),
        /// The program ends well, is down for a while and begins again.
        Restart(u64),
        /// It is killed, the file is left with so many bytes, and it begins again at once.
        Wiped(usize),
        Deleted,
        /// The one with this number comes (again).
        Arrives(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..20).prop_map(Step::Wait),
            1 => (-400i64..400).prop_map(Step::Set),
            1 => (0u64..40).prop_map(Step::Restart),
            1 => (0usize..400).prop_map(Step::Wiped),
            1 => Just(Step::Deleted),
            6 => (0usize..30).prop_map(Step::Arrives),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Whatever comes in whatever order over clocks that are set and memories that are wiped: nothing is taken twice, and nothing
        /// after a time at which this memory, or one that it is the successor of by a good end, has seen it to be over.
        #[test]
        fn nothing_is_ever_taken_twice_nor_after_its_end_was_seen(steps in steps(), kind in prop_oneof![Just(Kind::Grants), Just(Kind::Messages)]) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("seen");
            let (mut mono, mut offset) = (1u64, 0i64);
            let now = |mono: u64, offset: i64| at(mono, i64::try_from(mono).unwrap() + offset);
            let mut seen = Seen::open(&path, terms(kind, true), now(mono, offset)).unwrap();
            let mut taken = std::collections::HashSet::new();
            // The latest time that was surely remembered.
            let mut shown = now(mono, offset).wall;
            // Each is issued by a clock that is right: a second after a second.
            let issued = |n: usize| 4 * i64::try_from(n).unwrap();
            for step in steps {
                let mut is_loss = false;
                match step {
                    Step::Wait(seconds) => mono += seconds,
                    Step::Set(to) => offset = to,
                    Step::Restart(down) => {
                        seen.keep();
                        mono += down;
                        seen = Seen::open(&path, terms(kind, false), now(mono, offset)).unwrap();
                    }
                    Step::Wiped(length) => {
                        let bytes = std::fs::read(&path).unwrap();
                        std::fs::write(&path, &bytes[..length.min(bytes.len())]).unwrap();
                        is_loss = true;
                    }
                    Step::Deleted => {
                        std::fs::remove_file(&path).unwrap();
                        is_loss = true;
                    }
                    Step::Arrives(n) => {
                        let at = now(mono, offset);
                        seen.look(at, false);
                        let (begins, ends) = (START + issued(n), START + issued(n) + 60);
                        // As the callers do, by the clock as it is.
                        let is_current = begins <= at.wall.unix_seconds() + 2 && at.wall.unix_seconds() < ends;
                        if is_current && seen.take(&n.to_string(), begins, ends, at.wall).is_ok() {
                            prop_assert!(taken.insert(n), "{} was taken twice", n);
                            prop_assert!(shown.unix_seconds() < ends, "{} was taken after its end", n);
                        }
                    }
                }
                if is_loss {
                    // A memory that is lost together with the time cannot know of a clock that is set back meanwhile: it is not here.
                    offset = offset.max(shown.unix_seconds() - START - i64::try_from(mono).unwrap());
                    seen = Seen::open(&path, terms(kind, false), now(mono, offset)).unwrap();
                }
                seen.look(now(mono, offset), false);
                shown = shown.max(now(mono, offset).wall);
            }
        }
    }
}
