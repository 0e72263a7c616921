//! What the controller must not lose while there is no broker: alarms and passages. Each is on disk before it is said, is said in order,
//! and goes when the broker has confirmed it; so it survives a crash and an outage, and at worst comes twice, with the same `id`.
//!
//! Who passed when is nothing that others may read: such notes are sealed under a key that the controller derives from the door's own.
//! Without one they are kept in memory alone and do not outlive the process (nobody believes an unsigned passage anyway).
//!
//! The file is text: `v2`, then `* NUMBER SEALED` (base64) for a note of people and `+ NUMBER TOPIC PAYLOAD` for one of the door alone, and
//! `- NUMBER` for what was confirmed. An older program wrote no first line and everything in the clear: that is read, and written anew.
//! A torn last line is a note whose writing never returned. A line that does not read is passed over: an alarm that is lost must not keep a
//! door from being driven.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::publish::StateKey;
use crate::system::files;

/// The most that waits; beyond it the oldest is given up.
pub const CAPACITY: usize = 1_000;
/// How much is under way to the broker at once.
const WINDOW: usize = 16;
/// Confirmed lines that the file may have before it is written anew.
const SLACK: usize = 64;
/// What a note is sealed for.
const PURPOSE: &str = "door-diary";
/// The first line.
const VERSION: &str = "v2";
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What a note is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Somebody: it is never in the file in the clear.
    People,
    /// The door alone.
    Door,
}

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Grows by one with each.
    pub number: u64,
    /// Below the device's topics.
    pub topic: String,
    /// One line of JSON.
    pub payload: String,
    /// What it is of.
    pub of: Of,
}

/// The notes that the broker does not have yet. One process a file.
pub struct Diary {
    path: PathBuf,
    key: Option<StateKey>,
    file: Option<File>,
    waiting: VecDeque<Note>,
    /// How many of them, from the oldest on, are under way.
    under_way: usize,
    last: u64,
    /// Lines of the file.
    lines: usize,
    /// Notes that were given up for want of room.
    lost: u64,
}

impl Diary {
    /// Reads the file, or starts one; its folder is made with mode 0700. `key` is what notes of people are sealed under.
    pub fn open(path: &Path, key: Option<StateKey>) -> io::Result<Self> {
        path.parent().map_or(Ok(()), files::private_folder)?;
        let mut diary =
            Self { path: path.to_owned(), key, file: None, waiting: VecDeque::new(), under_way: 0, last: 0, lines: 0, lost: 0 };
        if let Some(bytes) = files::read(path, MAX_FILE_BYTES)? {
            diary.parse(&bytes);
        }
        diary.rewrite()?;
        Ok(diary)
    }

    /// Takes a note; durable when this returns, or the log says that it is not. Without a key a note of people is in memory alone.
    pub fn note(&mut self, topic: &str, payload: &str, of: Of) {
        if self.waiting.len() >= CAPACITY {
            self.waiting.pop_front();
            self.under_way = self.under_way.saturating_sub(1);
            self.lost += 1;
            log::error!("the oldest of {CAPACITY} alarms and passages that wait for the broker is given up, {} so far", self.lost);
        }
        self.last += 1;
        // A payload is one line by its making; a topic has no blanks.
        let note = Note { number: self.last, topic: topic.replace([' ', '\n'], "_"), payload: payload.replace('\n', " "), of };
        let line = self.line(&note);
        self.waiting.push_back(note);
        if let Some(line) = line
            && let Err(error) = self.append(&line, true)
        {
            log::error!("{}: a note is not durable: {error}", self.path.display());
        }
    }

    /// Hands out, in order, what is not under way, as far as the window has room.
    pub fn hand_out(&mut self) -> Option<Note> {
        if self.under_way >= WINDOW {
            return None;
        }
        let note = self.waiting.get(self.under_way)?.clone();
        self.under_way += 1;
        Some(note)
    }

    /// Whatever was under way may be lost: it is handed out again.
    pub fn reconnected(&mut self) {
        self.under_way = 0;
    }

    /// The broker has it.
    pub fn confirmed(&mut self, number: u64) {
        let Some(at) = self.waiting.iter().take(self.under_way).position(|note| note.number == number) else { return };
        self.waiting.remove(at);
        self.under_way -= 1;
        // Not synced: after a crash it is said once more.
        if let Err(error) = self.append(&format!("- {number}\n"), false) {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// As it stands in the file; none where it must not.
    fn line(&self, note: &Note) -> Option<String> {
        let Note { number, topic, payload, of } = note;
        match (of, &self.key) {
            (Of::Door, _) => Some(format!("+ {number} {topic} {payload}\n")),
            (Of::People, None) => None,
            (Of::People, Some(key)) => match key.seal(PURPOSE, format!("{number} {topic} {payload}").as_bytes()) {
                Ok(sealed) => Some(format!("* {number} {}\n", BASE64.encode(sealed))),
                Err(error) => {
                    log::error!("{}: a note is not durable: {error}", self.path.display());
                    None
                }
            },
        }
    }

    /// What was sealed under this key, with the number that stands before it.
    fn unseal(&self, text: &str) -> Option<Note> {
        let (number, sealed) = text.split_once(' ')?;
        let plain = self.key.as_ref()?.open(PURPOSE, &BASE64.decode(sealed).ok()?)?;
        let note = read_note(std::str::from_utf8(&plain).ok()?)?;
        (number.parse() == Ok(note.number)).then_some(note)
    }

    fn append(&mut self, line: &str, sync: bool) -> io::Result<()> {
        if self.file.is_none() || self.lines > self.waiting.len() + SLACK {
            return self.rewrite();
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()).and_then(|()| if sync { file.sync_data() } else { Ok(()) }),
            None => Ok(()),
        };
        if written.is_err() {
            // What the file holds now is unknown: it is written anew next time.
            self.file = None;
        }
        self.lines += 1;
        written
    }

    fn parse(&mut self, bytes: &[u8]) {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            if line == VERSION {
                continue;
            }
            let note = match line.split_at_checked(2) {
                Some(("+ ", text)) => read_note(text),
                Some(("* ", text)) => self.unseal(text),
                _ => None,
            };
            if let Some(note) = note {
                self.last = self.last.max(note.number);
                self.waiting.push_back(note);
            } else if let Some(number) = line.strip_prefix("- ").and_then(|number| number.parse::<u64>().ok()) {
                self.last = self.last.max(number);
                self.waiting.retain(|note| note.number != number);
            } else {
                log::error!("{}: a line does not read and is passed over", self.path.display());
            }
        }
        while self.waiting.len() > CAPACITY {
            self.waiting.pop_front();
        }
    }

    /// Writes what waits into a new file and puts it in the place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        self.file = None;
        let fresh = self.path.with_extension("new");
        // The last number outlives its note.
        let mut text = format!("{VERSION}\n- {}\n", self.last);
        self.waiting.iter().filter_map(|note| self.line(note)).for_each(|line| text.push_str(&line));
        let file = files::replace(&self.path, &fresh, text.as_bytes())?;
        self.lines = self.waiting.len() + 1;
        self.file = Some(file);
        Ok(())
    }
}

fn read_note(text: &str) -> Option<Note> {
    let (number, rest) = text.split_once(' ')?;
    let (topic, payload) = rest.split_once(' ')?;
    // An older program wrote passages like all else.
    let of = if topic.ends_with("/passage") { Of::People } else { Of::Door };
    Some(Note { number: number.parse().ok()?, topic: topic.to_owned(), payload: payload.to_owned(), of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Option<StateKey> {
        Some(StateKey::derived(&[7; 32], "door-diary"))
    }

    fn drain(diary: &mut Diary) -> Vec<String> {
        std::iter::from_fn(|| diary.hand_out()).map(|note| note.payload).collect()
    }

    #[test]
    fn what_was_not_confirmed_comes_again_after_a_lost_connection_and_after_a_crash_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/front.diary");
        let mut diary = Diary::open(&path, key()).unwrap();
        for payload in ["{\"a\": 1}", "b", "c"] {
            diary.note("alarm/forced-open", payload, Of::Door);
        }
        assert_eq!(drain(&mut diary), ["{\"a\": 1}", "b", "c"]);
        assert_eq!(drain(&mut diary), [""; 0], "nothing is said twice on one connection");
        diary.confirmed(2);
        diary.confirmed(7);
        diary.reconnected();
        assert_eq!(drain(&mut diary), ["{\"a\": 1}", "c"]);
        // No good end: the file alone tells.
        let mut diary = Diary::open(&path, key()).unwrap();
        diary.note("door/front/passage", "d", Of::People);
        assert_eq!(drain(&mut diary), ["{\"a\": 1}", "c", "d"]);
        [1, 3, 4].into_iter().for_each(|number| diary.confirmed(number));
        let mut diary = Diary::open(&path, key()).unwrap();
        assert!(diary.is_empty());
        diary.note("x", "e", Of::Door);
        assert_eq!(diary.hand_out().unwrap().number, 5, "a number is never used again");
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door/front.diary");
        let open = |path: &Path| Diary::open(path, None);
        open(&path).unwrap().note("alarm/forced-open", "a", Of::Door);
        let target = files::planted::Target::new();
        target.outlives(&path.with_extension("new"), || assert_eq!(open(&path).unwrap().len(), 1));
        let door = folder.path().join("other");
        files::planted::folder_outlives(&door, || open(&door.join("front.diary")).map(drop));
    }

    #[test]
    fn a_torn_end_and_a_damaged_line_cost_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.diary");
        std::fs::write(&path, "- 0\n+ 1 t a\ngarbage\n\u{fffd}+ 9\n+ 2 t b\n+ 3 t to").unwrap();
        assert_eq!(drain(&mut Diary::open(&path, None).unwrap()), ["a", "b"]);
    }

    #[test]
    fn who_passed_is_never_in_the_file_in_the_clear_and_what_an_older_program_left_there_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.diary");
        let passage = r#"{"person":"ada","jti":"0190"}"#;
        let old = format!("- 0\n+ 1 door/front/passage {passage}\n+ 2 alarm/forced-open {{}}\n");
        let text = || std::fs::read_to_string(&path).unwrap();
        for sealed in [true, false] {
            std::fs::write(&path, &old).unwrap();
            let open = || Diary::open(&path, if sealed { key() } else { None }).unwrap();
            let mut diary = open();
            assert!(!text().contains("ada"), "{}", text());
            diary.note("door/front/passage", passage, Of::People);
            assert!(!text().contains("ada") && !text().contains("0190"), "{}", text());
            assert_eq!(drain(&mut diary), [passage, "{}", passage]);
            let mut again = open();
            if sealed {
                assert_eq!(drain(&mut again), [passage, "{}", passage]);
            } else {
                assert_eq!(drain(&mut again), ["{}"], "an alarm outlives the process, who passed does not");
            }
        }
        // Sealed under another key, changed, or under another number: passed over.
        std::fs::write(&path, "").unwrap();
        let mut diary = Diary::open(&path, key()).unwrap();
        diary.note("door/front/passage", passage, Of::People);
        let whole = text();
        assert!(Diary::open(&path, Some(StateKey::derived(&[8; 32], "door-diary"))).unwrap().is_empty());
        std::fs::write(&path, whole.replace("* 1 ", "* 9 ")).unwrap();
        assert!(Diary::open(&path, key()).unwrap().is_empty());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(drain(&mut Diary::open(&path, key()).unwrap()), [passage]);
    }

    #[test]
    fn room_is_bounded_and_a_slow_broker_gets_a_window() {
        let folder = tempfile::tempdir().unwrap();
        let mut diary = Diary::open(&folder.path().join("front.diary"), None).unwrap();
        for n in 0..CAPACITY + 5 {
            diary.waiting.push_back(Note { number: n as u64, topic: "t".into(), payload: n.to_string(), of: Of::Door });
        }
        diary.last = diary.waiting.len() as u64;
        diary.rewrite().unwrap();
        let mut diary = Diary::open(&folder.path().join("front.diary"), None).unwrap();
        assert_eq!(diary.len(), CAPACITY);
        diary.note("t", "newest", Of::Door);
        assert_eq!((diary.len(), diary.lost), (CAPACITY, 1));
        assert_eq!(drain(&mut diary).len(), WINDOW);
    }
}
