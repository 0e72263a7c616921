//! Whether the wall clock can be relied on: what the kernel says, and what this device has seen of it. A clock that shows an earlier time
//! than it has shown before (a board without a battery that begins days ago, a clock that was set back) is not believed, whatever says so.
//!
//! The latest time that was shown stands in the file `clock` of the state folder: `v1 MARK`, in milliseconds since 1970, written every few
//! minutes and at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::{Clock, Rules};
use crate::gallery::Gallery;
use crate::system::highwater::HighWater;
use crate::system::{clock, clock_quality, files};
use crate::types::{Moment, Monotonic, Wall};

/// The file's name in the state folder.
const FILE: &str = "clock";
/// How often the mark is written down.
const KEEP_EVERY: Duration = Duration::from_secs(300);
/// A time service may put a clock back by less than this: nobody's right turns on it.
const SET_BACK: Duration = Duration::from_secs(30);

/// The clock, and the latest time that it has shown.
pub(super) struct ClockWatch {
    path: PathBuf,
    water: HighWater,
    kept: Wall,
    kept_at: Monotonic,
    told: Clock,
}

impl ClockWatch {
    /// Goes on with what an earlier run kept. `has_run` says whether there was one.
    pub(super) fn open(folder: &Path, has_run: bool) -> Self {
        let (path, now) = (folder.join(FILE), clock::now());
        let kept = match read(&path) {
            Ok(Some(kept)) => kept,
            Ok(None) if !has_run => Wall(i64::MIN),
            Ok(None) => {
                log::warn!("{} is gone: whether the clock was set back before this start is not known", path.display());
                Wall(i64::MIN)
            }
            Err(error) => {
                log::warn!("{}: {error}: whether the clock was set back before this start is not known", path.display());
                Wall(i64::MIN)
            }
        };
        Self { path, water: HighWater::new(kept, now), kept, kept_at: now.monotonic, told: Clock::Synchronised }
    }

    /// How far the clock can be relied on now. Asked often; a clock that was set back is told once.
    pub(super) fn look(&mut self) -> Clock {
        let (now, is_synced) = (clock::now(), clock_quality().is_synced);
        self.judge(now, is_synced)
    }

    fn judge(&mut self, now: Moment, is_synced: bool) -> Clock {
        self.water.look(now, is_synced);
        let clock = clock_of(&self.water, now.wall, is_synced);
        if clock == Clock::SetBack && self.told != Clock::SetBack {
            log::error!(
                "the clock shows {}, and has shown {} before: whoever's right depends on the time is denied until it has caught up. If it was wrong before, stop the daemon, remove {} and start it again",
                now.wall.rfc3339(),
                self.water.mark().rfc3339(),
                self.path.display()
            );
        }
        self.told = clock;
        if now.monotonic.since(self.kept_at) >= KEEP_EVERY {
            self.kept_at = now.monotonic;
            self.write();
        }
        clock
    }

    /// The end of the program: what was seen is written down.
    pub(super) fn keep(&mut self) {
        self.water.confirm();
        self.write();
    }

    fn write(&mut self) {
        let mark = self.water.to_keep();
        if mark <= self.kept {
            return;
        }
        match put(&self.path, mark) {
            Ok(()) => self.kept = mark,
            Err(error) => log::error!("{}: {error}: a restart forgets how late it was", self.path.display()),
        }
    }
}

fn clock_of(water: &HighWater, wall: Wall, is_synced: bool) -> Clock {
    match () {
        () if water.behind(wall) > SET_BACK => Clock::SetBack,
        () if is_synced => Clock::Synchronised,
        () => Clock::Unsure,
    }
}

/// How far the clock can be relied on now, by the kernel and by what a daemon on this state folder has kept, where that can be read.
pub fn clock_now(folder: &Path) -> Clock {
    let kept = read(&folder.join(FILE)).ok().flatten().unwrap_or(Wall(i64::MIN));
    let (now, is_synced) = (clock::now(), clock_quality().is_synced);
    clock_of(&HighWater::new(kept, now), now.wall, is_synced)
}

/// Says at the start that rights depend on a time which nobody vouches for.
pub(super) fn warn_of_times(rules: &Rules, gallery: &Gallery, clock: Clock) {
    let expires = gallery.snapshot().people().any(|(person, _)| person.expires_at.is_some());
    if clock != Clock::Synchronised && (expires || rules.depends_on_time()) {
        log::warn!(
            "the clock follows no time source, and the policy or people's dates depend on the time: until it does, whoever's right depends on it is denied. Let a time service set it (`timedatectl set-ntp true`); `faceid check --explain` tells whom it concerns"
        );
    }
}

fn read(path: &Path) -> std::io::Result<Option<Wall>> {
    let Some(bytes) = files::read(path, 64)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let mark = text.strip_prefix("v1 ").and_then(|rest| rest.strip_suffix('\n')).and_then(|mark| mark.parse().ok());
    mark.map(|mark| Some(Wall(mark))).ok_or_else(|| std::io::Error::other("not what this program wrote"))
}

fn put(path: &Path, mark: Wall) -> std::io::Result<()> {
    files::replace(path, &path.with_added_extension("new"), format!("v1 {}\n", mark.0).as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn later(now: Moment, seconds: u64, wall_ms: i64) -> Moment {
        Moment { monotonic: now.monotonic.plus(Duration::from_secs(seconds)), wall: Wall(now.wall.0 + wall_ms) }
    }

    #[test]
    fn a_clock_that_goes_back_is_noticed_at_once_and_after_a_restart_and_whatever_the_kernel_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = ClockWatch::open(folder.path(), false);
        let now = clock::now();
        assert_eq!(watch.judge(now, true), Clock::Synchronised);
        assert_eq!(watch.judge(later(now, 1, 1_000), false), Clock::Unsure);
        assert_eq!(watch.judge(later(now, 2, -10_000), true), Clock::Synchronised, "a time service's own correction");
        assert_eq!(watch.judge(later(now, 3, -3 * DAY_MS), true), Clock::SetBack);
        watch.keep();
        let mut watch = ClockWatch::open(folder.path(), true);
        assert_eq!(watch.judge(later(now, 4, -3 * DAY_MS), true), Clock::SetBack);
        assert_eq!(watch.judge(later(now, 5, 5_000), true), Clock::Synchronised, "put right");
        // What `check --explain` sees.
        put(&folder.path().join(FILE), Wall(now.wall.0 + DAY_MS)).unwrap();
        assert_eq!(clock_now(folder.path()), Clock::SetBack);
    }

    #[test]
    fn nothing_is_written_through_what_was_planted_and_no_pipe_is_waited_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let target = files::planted::Target::new();
        for place in [path.with_added_extension("new"), path.clone()] {
            target.outlives(&place, || put(&path, Wall(7)).unwrap());
        }
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no plain file"));
    }

    #[test]
    fn a_mark_that_is_damaged_or_gone_is_begun_anew_and_panics_nobody() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "v1", "v1 x\n", "v2 1\n", "v1 9", "\u{0}"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let mut watch = ClockWatch::open(folder.path(), true);
            assert_ne!(watch.judge(clock::now(), true), Clock::SetBack, "{text:?}");
            watch.keep();
            assert!(read(&folder.path().join(FILE)).unwrap().is_some());
        }
    }
}
