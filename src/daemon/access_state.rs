//! What the decider remembers beyond one run, in a file of the state folder: sealed under the state key, written whole beside the old one
//! and renamed over it before a decision that it is about is published, so that neither a crash nor a power cut makes the door forget a
//! block, a place or a lock-down, and nobody else can write one. A file that is absent where the device has run before, one that was not
//! sealed here, and an older one put back are a lost memory: every door is locked down and an alarm is raised.
//!
//! **How an older one is told from the newest.** Each writing has a number. The number of the last one stands in a second place too,
//! `access.epoch` beside the gallery's epoch: a memory that has come less far, or whose second place is gone, is lost. The broker is the
//! third: `birth` says, signed, how far the memory had come, and the memory says how far it has ever told the broker, on disk before it is
//! told; a start that hears of more than its memory knows to have told has an older one, however often it was restarted in between
//! without a broker. What that leaves undetected is written in `publish/FORMAT.md`.
//!
//! **A witness for the memories of used ids.** Those ([`crate::system::seen`]) are plain files with no second place. This memory, which has,
//! says until when what was used had been signed ([`Used`]): after a start nothing signed by then is taken, whatever those files say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::access::State;
use crate::publish::StateKey;
use crate::system::files;
use crate::types::{DoorId, Wall};

/// The file's name in the state folder.
const FILE: &str = "access.sealed";
/// What it is sealed for.
const PURPOSE: &str = "access";
/// The second place's name, beside the gallery's.
const EPOCH_FILE: &str = "access.epoch";
/// What that is sealed for.
const EPOCH_PURPOSE: &str = "access-epoch";

/// The longest state that is read, in bytes: far more than every person in an area makes.
const MAX_BYTES: u64 = 32 << 20;

/// The file, its second place, and how far both have come.
pub(super) struct AccessState {
    path: PathBuf,
    epoch_path: PathBuf,
    key: StateKey,
    /// The number of the last writing that was begun; whoever says `birth` looks at it.
    number: Arc<AtomicU64>,
    /// The highest number that the broker may have been told.
    said: u64,
    /// The same as it stood in the memory that was taken up; `None` where that was lost, which has been told already.
    found_said: Option<u64>,
    used: Used,
    /// Whether what was used last is not written down yet.
    is_used_unsaved: bool,
    distrust: Arc<Distrust>,
}

/// What was found at the start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The device has never run: nothing is remembered.
    Nothing,
    /// What the run before kept.
    State(State),
    /// It was there and is not, or not as it was written last. Why.
    Lost(String),
}

/// When the newest commands and passages that were ever used had been signed, in seconds since 1970. Every one that was used was signed no
/// later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Used {
    /// The newest command; `None` where there was none.
    pub(super) command: Option<i64>,
    /// The newest passage of each door: one door's clock says nothing of another's.
    pub(super) passages: BTreeMap<DoorId, i64>,
}

/// From when on the memory of what was used can be believed, where an older one turned up.
#[derive(Debug, Default)]
pub(super) struct Distrust(Mutex<Option<Wall>>);

impl Distrust {
    /// Nothing that was signed before `now` is believed any more.
    fn raise(&self, now: Wall) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(super) fn take(&self) -> Option<Wall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory<S> {
    number: u64,
    said: u64,
    /// Absent in what an older program wrote.
    #[serde(default)]
    used: Used,
    state: S,
}

impl AccessState {
    /// `epoch_folder` is where the second place lies.
    pub(super) fn new(folder: &Path, epoch_folder: &Path, key: StateKey) -> Self {
        let (path, epoch_path) = (folder.join(FILE), epoch_folder.join(EPOCH_FILE));
        Self {
            path,
            epoch_path,
            key,
            number: Arc::default(),
            said: 0,
            found_said: Some(0),
            used: Used::default(),
            is_used_unsaved: false,
            distrust: Arc::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last writing.
    pub(super) fn number(&self) -> Arc<AtomicU64> {
        self.number.clone()
    }

    /// What an earlier run kept. `has_run` says whether there was one.
    pub(super) fn load(&mut self, has_run: bool) -> Kept {
        let (memory, epoch) = (self.read(), self.read_epoch());
        let known = |number: &std::io::Result<Option<u64>>| number.as_ref().ok().copied().flatten().unwrap_or(0);
        let newest = known(&epoch).max(memory.as_ref().ok().and_then(Option::as_ref).map_or(0, |memory| memory.number));
        self.number.store(newest, Ordering::Relaxed);
        let kept = match (memory, epoch) {
            (Ok(None), Ok(None)) if !has_run => Kept::Nothing,
            (Ok(None), _) => Kept::Lost("it is gone".to_owned()),
            (Err(error), _) => Kept::Lost(error.to_string()),
            (_, Err(error)) => Kept::Lost(format!("{}: {error}", self.epoch_path.display())),
            // The very first writing may have been cut off before its second place was made.
            (Ok(Some(_)), Ok(None)) if has_run => Kept::Lost(format!("its second place {} is gone", self.epoch_path.display())),
            (Ok(Some(memory)), Ok(Some(epoch))) if memory.number < epoch => {
                Kept::Lost(format!("it is an older copy: writing {}, and {epoch} was the last", memory.number))
            }
            (Ok(Some(memory)), _) => {
                self.said = memory.said;
                self.found_said = Some(memory.said);
                self.used = memory.used;
                return Kept::State(memory.state);
            }
        };
        if matches!(kept, Kept::Lost(_)) {
            self.found_said = None;
        }
        kept
    }

    fn read(&self) -> std::io::Result<Option<Memory<State>>> {
        let Some(plain) = self.opened(&self.path, PURPOSE)? else { return Ok(None) };
        let memory: Memory<State> = serde_json::from_slice(&plain).map_err(std::io::Error::other)?;
        if memory.state.is_known() {
            Ok(Some(memory))
        } else {
            Err(std::io::Error::other("written by another version of the program"))
        }
    }

    fn read_epoch(&self) -> std::io::Result<Option<u64>> {
        let Some(plain) = self.opened(&self.epoch_path, EPOCH_PURPOSE)? else { return Ok(None) };
        let number = plain.try_into().map_err(|_| std::io::Error::other("not what this device wrote"))?;
        Ok(Some(u64::from_le_bytes(number)))
    }

    /// A sealed file's text; nothing where there is no file.
    fn opened(&self, path: &Path, purpose: &str) -> std::io::Result<Option<Vec<u8>>> {
        let Some(bytes) = files::read(path, MAX_BYTES + 1)? else { return Ok(None) };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::other(format!("longer than {MAX_BYTES} bytes")));
        }
        self.key.open(purpose, &bytes).map(Some).ok_or_else(|| std::io::Error::other("not what this device wrote"))
    }

    /// Writes the state and then its number in the second place: a cut between them leaves that one behind, which is no alarm.
    pub(super) fn save(&mut self, state: &State) -> std::io::Result<()> {
        // A number that was tried is not used again: what a write that failed has left nobody knows.
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let plain = serde_json::to_vec(&Memory { number, said: self.said, used: self.used.clone(), state })
            .map_err(std::io::Error::other)?;
        self.put(&self.path, PURPOSE, &plain)?;
        self.put(&self.epoch_path, EPOCH_PURPOSE, &number.to_le_bytes())?;
        self.is_used_unsaved = false;
        Ok(())
    }

    /// What was used before, as the memory that was taken up says.
    pub(super) fn used(&self) -> &Used {
        &self.used
    }

    /// Where whoever believes commands and passages hears that this memory was lost, or an older one put back.
    pub(super) fn distrust(&self) -> Arc<Distrust> {
        self.distrust.clone()
    }

    /// This memory is not the newest: what was signed before `now` may have been used, as far as it can tell.
    pub(super) fn distrust_before(&self, now: Wall) {
        self.distrust.raise(now);
    }

    /// A command that was signed at second `issued` is used. The caller writes it down.
    pub(super) fn use_command(&mut self, issued: i64) {
        let newest = self.used.command.max(Some(issued));
        self.is_used_unsaved |= newest != self.used.command;
        self.used.command = newest;
    }

    /// A passage of `door` that was signed at second `issued` is used. The caller writes it down.
    pub(super) fn use_passage(&mut self, door: &DoorId, issued: i64) {
        let newest = self.used.passages.get(door).copied().max(Some(issued));
        if self.used.passages.get(door).copied() != newest {
            self.is_used_unsaved = true;
            self.used.passages.insert(door.clone(), issued);
        }
    }

    /// Whether something was used that is not written down yet.
    pub(super) fn has_unsaved_use(&self) -> bool {
        self.is_used_unsaved
    }

    fn put(&self, path: &Path, purpose: &str, plain: &[u8]) -> std::io::Result<()> {
        let beside = path.with_added_extension("new");
        let bytes = self.key.seal(purpose, plain).map_err(std::io::Error::other)?;
        files::replace(path, &beside, &bytes).map(drop)
    }

    /// Writes the state down as one that the broker is told of, and gives the number to tell it.
    pub(super) fn save_to_say(&mut self, state: &State) -> std::io::Result<u64> {
        self.said = self.said.max(self.number.load(Ordering::Relaxed) + 1);
        self.save(state)?;
        Ok(self.said)
    }

    /// Whether the memory that was taken up says that the broker had been told anything.
    pub(super) fn had_told(&self) -> bool {
        self.found_said.is_some_and(|said| said > 0)
    }

    /// What the broker had been told before this start. True when the memory that was taken up has never told as much: it is an older
    /// one. The caller writes down what comes of it.
    pub(super) fn hear(&mut self, told: u64) -> bool {
        let is_older = self.found_said.is_some_and(|said| told > said);
        self.said = self.said.max(told);
        self.number.fetch_max(told, Ordering::Relaxed);
        is_older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder(folder: &Path, key: StateKey) -> AccessState {
        AccessState::new(folder, folder, key)
    }

    fn is_lost(kept: &Kept) -> bool {
        matches!(kept, Kept::Lost(_))
    }

    #[test]
    fn an_absent_state_is_nothing_on_the_first_start_and_a_loss_on_every_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        assert_eq!(file.load(false), Kept::Nothing);
        assert!(is_lost(&file.load(true)));
    }

    #[test]
    fn what_was_not_sealed_here_is_a_loss_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        let plain = serde_json::to_vec(&State::lost()).unwrap();
        for broken in [&b""[..], b"{", b"null", &plain, &[0; 100]] {
            std::fs::write(file.path(), broken).unwrap();
            assert!(is_lost(&file.load(false)), "{broken:?}");
        }
        file.save(&State::lost()).unwrap();
        let sealed = std::fs::read(file.path()).unwrap();
        assert!(!sealed.windows(8).any(|part| part == b"lockdown"), "who is where is for nobody to read");
        for at in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[at] ^= 1;
            std::fs::write(file.path(), edited).unwrap();
            assert!(is_lost(&file.load(true)), "byte {at}");
            std::fs::write(file.path(), &sealed[..at]).unwrap();
            assert!(is_lost(&file.load(true)), "cut at {at}");
        }
        std::fs::write(file.path(), &sealed).unwrap();
        let mut other = in_folder(folder.path(), StateKey::generate().unwrap());
        assert!(is_lost(&other.load(true)), "another device's");
        assert_eq!(file.load(true), Kept::State(State::lost()));
    }

    #[test]
    fn what_another_version_wrote_is_a_loss() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        file.save(&State::lost()).unwrap();
        assert!(!is_lost(&file.load(true)));
        let state = serde_json::to_string(&State::lost()).unwrap();
        let memory = serde_json::to_string(&Memory { number: 1, said: 0, used: Used::default(), state: State::lost() }).unwrap();
        // The program before this one kept no number.
        for text in [memory.replace("\"version\":2", "\"version\":3"), state] {
            std::fs::write(file.path(), file.key.seal(PURPOSE, text.as_bytes()).unwrap()).unwrap();
            assert!(is_lost(&file.load(true)), "{text}");
        }
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        file.save(&State::lost()).unwrap();
        file.save(&State::lost()).unwrap();
        assert_eq!(file.load(false), Kept::State(State::lost()));
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn when_the_newest_that_was_used_was_signed_outlives_a_restart_and_is_written_only_when_it_is_news() {
        let folder = tempfile::tempdir().unwrap();
        let key = StateKey::generate().unwrap();
        let (front, back) = (DoorId::new("front").unwrap(), DoorId::new("back").unwrap());
        let mut file = in_folder(folder.path(), key.share());
        assert!(!file.has_unsaved_use());
        file.use_command(1_700_000_000);
        file.use_passage(&front, 1_700_000_009);
        file.use_passage(&back, 1_700_000_001);
        assert!(file.has_unsaved_use());
        file.save(&State::lost()).unwrap();
        // What is older is no news, and costs no write.
        file.use_command(1_699_999_999);
        file.use_passage(&front, 1_700_000_009);
        file.use_passage(&front, 1);
        assert!(!file.has_unsaved_use());
        let mut again = in_folder(folder.path(), key.share());
        assert_eq!(again.load(true), Kept::State(State::lost()));
        let passages = [(front, 1_700_000_009), (back, 1_700_000_001)].into();
        assert_eq!(again.used(), &Used { command: Some(1_700_000_000), passages });
        // What the program before this one wrote has none.
        let state = serde_json::to_string(&State::lost()).unwrap();
        let older = format!("{{\"number\":9,\"said\":0,\"state\":{state}}}");
        std::fs::write(file.path(), key.seal(PURPOSE, older.as_bytes()).unwrap()).unwrap();
        let mut again = in_folder(folder.path(), key);
        assert_eq!((again.load(true), again.used()), (Kept::State(State::lost()), &Used::default()));
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        let (path, epoch) = (file.path.clone(), file.epoch_path.clone());
        let target = files::planted::Target::new();
        for place in [path.with_added_extension("new"), epoch.with_added_extension("new"), path, epoch] {
            target.outlives(&place, || file.save(&State::lost()).unwrap());
        }
    }

    #[test]
    fn an_older_copy_is_a_loss_and_so_is_a_second_place_that_is_gone_older_or_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = in_folder(folder.path(), StateKey::generate().unwrap());
        let other = StateKey::generate().unwrap();
        file.save(&State::lost()).unwrap();
        let (old, old_epoch) = (std::fs::read(file.path()).unwrap(), std::fs::read(&file.epoch_path).unwrap());
        file.save(&State::lost()).unwrap();
        let (new, new_epoch) = (std::fs::read(file.path()).unwrap(), std::fs::read(&file.epoch_path).unwrap());
        let foreign = other.seal(EPOCH_PURPOSE, &2u64.to_le_bytes()).unwrap();
        // One that is sealed for the other purpose is none.
        let swapped = file.key.seal(PURPOSE, &2u64.to_le_bytes()).unwrap();
        let mut tried = |memory: &[u8], epoch: Option<&[u8]>| {
            std::fs::write(file.path(), memory).unwrap();
            match epoch {
                Some(epoch) => std::fs::write(&file.epoch_path, epoch).unwrap(),
                None => std::fs::remove_file(&file.epoch_path).unwrap(),
            }
            file.load(true)
        };
        assert!(is_lost(&tried(&old, Some(&new_epoch))), "put back");
        for epoch in [None, Some(&foreign[..]), Some(&swapped), Some(&[]), Some(&new_epoch[1..])] {
            assert!(is_lost(&tried(&new, epoch)), "{epoch:?}");
        }
        // What a cut between the two leaves.
        assert_eq!(tried(&new, Some(&old_epoch)), Kept::State(State::lost()));
        // Not seen without a broker: both put back together.
        assert_eq!(tried(&old, Some(&old_epoch)), Kept::State(State::lost()));
        assert_eq!(tried(&new, Some(&new_epoch)), Kept::State(State::lost()));
        std::fs::remove_file(file.path()).unwrap();
        assert!(is_lost(&file.load(false)), "the second place knows of one");
    }

    #[test]
    fn the_broker_knows_of_an_older_copy_however_often_it_was_begun_with_unheard() {
        let folder = tempfile::tempdir().unwrap();
        let key = StateKey::generate().unwrap();
        let begin = || in_folder(folder.path(), key.share());
        let both = || [FILE, EPOCH_FILE].map(|name| std::fs::read(folder.path().join(name)).unwrap());
        let mut file = begin();
        assert_eq!(file.load(false), Kept::Nothing);
        assert!(!file.hear(0));
        let first = file.save_to_say(&State::lost()).unwrap();
        let old = both();
        file.save(&State::lost()).unwrap();
        let told = file.save_to_say(&State::lost()).unwrap();
        assert!(told > first);

        let mut file = begin();
        assert!(!is_lost(&file.load(true)));
        assert!(!file.hear(told), "the newest");
        for (name, bytes) in [FILE, EPOCH_FILE].iter().zip(old) {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        for _ in 0..10 {
            let mut file = begin();
            assert!(!is_lost(&file.load(true)), "nothing here tells");
            file.save(&State::lost()).unwrap();
        }
        let mut file = begin();
        assert!(!is_lost(&file.load(true)));
        assert!(file.hear(told));
        // What came of it is written down, and the next start has nothing more to tell.
        file.save(&State::lost()).unwrap();
        let mut file = begin();
        assert!(!is_lost(&file.load(true)) && !file.hear(told));
        assert!(file.save_to_say(&State::lost()).unwrap() > told);

        // A loss has been told; the broker adds nothing to it.
        std::fs::remove_file(file.path()).unwrap();
        let mut file = begin();
        assert!(is_lost(&file.load(true)) && !file.hear(told + 9));
        // A state folder that was emptied looks new to all but the broker.
        std::fs::remove_file(folder.path().join(EPOCH_FILE)).unwrap();
        let mut file = begin();
        assert_eq!(file.load(false), Kept::Nothing);
        assert!(file.hear(told));
    }
}
