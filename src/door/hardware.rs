//! What moves the bolt and what feels the door: print, an external command or a GPIO line, behind two small traits.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

use super::gpio::{GpioInputs, GpioLock};
use super::panel::{OsdpSettings, Panel};
use super::settings::{CommandSettings, LockKind, Settings};
use crate::publish::Problem;
use crate::system::seen::SeenError;
use crate::system::stop;
use crate::types::DoorId;

/// How often a running command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Why a door cannot be driven.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The config names no door.
    #[error("the config has no [controller] door: name the door that this controller drives")]
    NoDoor,
    /// No keys, or keys that are none.
    #[error("the controller's keys: {0}")]
    Keys(String),
    /// The memory of used grants.
    #[error("the memory of used grants: {0}")]
    Seen(#[from] SeenError),
    /// The file of alarms and passages.
    #[error("{path}: {source}", path = path.display())]
    Diary {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file of the client id.
    #[error("{path}: {source}", path = path.display())]
    ClientId {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// No connection can be set up.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// No line is named.
    #[error("[controller.gpio] names no lock-line")]
    NoLine,
    /// The chip refused.
    #[error("line {line} of {chip}: {detail}", chip = chip.display())]
    Gpio {
        /// Which chip.
        chip: PathBuf,
        /// Which line.
        line: u32,
        /// The system's word.
        detail: String,
    },
    /// The line to the panel, or its key.
    #[error("[controller.osdp], line {line}: {detail}", line = line.display())]
    Panel {
        /// Which line.
        line: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A command did not start, did not end in time, or said that it failed.
    #[error("{program}: {detail}")]
    Command {
        /// Which program.
        program: String,
        /// What happened.
        detail: String,
    },
}

/// What moves the bolt. Both must be safe to repeat.
pub trait Lock: Send {
    /// Lets the door be opened.
    fn unlock(&mut self) -> Result<(), DoorError>;
    /// Brings the lock into its safe state.
    fn lock(&mut self) -> Result<(), DoorError>;
}

/// What the inputs say; `None` where there is none, or where it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readings {
    /// Whether the door is open.
    pub open: Option<bool>,
    /// Whether the request-to-exit button is down.
    pub exit: Option<bool>,
}

/// What feels the door.
pub trait Inputs: Send {
    /// Whether there is a sensor at all.
    fn has_sensor(&self) -> bool;
    /// What they say now.
    fn read(&mut self) -> Readings;
}

/// The door's sides.
pub struct Hardware {
    /// The bolt.
    pub lock: Box<dyn Lock>,
    /// The inputs.
    pub inputs: Box<dyn Inputs>,
    /// The access panel that people are presented to, where there is one.
    pub panel: Option<Box<dyn Panel>>,
}

impl Hardware {
    /// As the settings say, but without the panel. `print` tells a line to a person.
    pub fn open(settings: &Settings, door: &DoorId, print: fn(&str)) -> Result<Self, DoorError> {
        let lock: Box<dyn Lock> = match settings.lock {
            LockKind::Print => Box::new(PrintLock { door: door.clone(), print }),
            LockKind::Command => Box::new(CommandLock { door: door.clone(), settings: settings.command.clone() }),
            LockKind::Gpio => Box::new(GpioLock::open(&settings.gpio)?),
            LockKind::Panel => Box::new(PanelLock),
        };
        Ok(Self { lock, inputs: Box::new(GpioInputs::open(&settings.gpio)?), panel: None })
    }

    /// With the panel of the settings, if they have one. `secrets` is where its key lies.
    pub fn with_panel(self, settings: &OsdpSettings, secrets: &Path) -> Result<Self, DoorError> {
        let panel = match &settings.line {
            Some(line) => Some(open_panel(settings, line, secrets)?),
            None => None,
        };
        Ok(Self { panel, ..self })
    }
}

/// Brings the lock into its safe state and does nothing else: for `ExecStopPost=`.
pub fn lock_once(settings: &Settings, print: fn(&str)) -> Result<(), DoorError> {
    let door = settings.door.as_ref().ok_or(DoorError::NoDoor)?;
    Hardware::open(settings, door, print)?.lock.lock()
}

#[cfg(feature = "osdp")]
fn open_panel(settings: &OsdpSettings, line: &Path, secrets: &Path) -> Result<Box<dyn Panel>, DoorError> {
    super::osdp::open(settings, line, secrets)
}

#[cfg(not(feature = "osdp"))]
fn open_panel(_: &OsdpSettings, line: &Path, _: &Path) -> Result<Box<dyn Panel>, DoorError> {
    Err(DoorError::Panel { line: line.to_owned(), detail: "this build is without OSDP (cargo feature `osdp`)".into() })
}

/// The panel's lock: it is not ours to move.
struct PanelLock;

impl Lock for PanelLock {
    fn unlock(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn lock(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

struct PrintLock {
    door: DoorId,
    print: fn(&str),
}

impl Lock for PrintLock {
    fn unlock(&mut self) -> Result<(), DoorError> {
        (self.print)(&format!("door {}: unlock", self.door));
        Ok(())
    }

    fn lock(&mut self) -> Result<(), DoorError> {
        (self.print)(&format!("door {}: lock", self.door));
        Ok(())
    }
}

struct CommandLock {
    door: DoorId,
    settings: CommandSettings,
}

impl CommandLock {
    fn run(&self, command: &[String], word: &str) -> Result<(), DoorError> {
        use std::os::unix::process::CommandExt;
        let Some((program, arguments)) = command.split_first() else {
            return Err(DoorError::Command { program: word.to_owned(), detail: "the config names no program".into() });
        };
        let failed = |detail: String| DoorError::Command { program: program.clone(), detail };
        // Nothing of our environment: it may name where secrets lie.
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("FACEID_DOOR", self.door.as_str())
            .env("FACEID_ACTION", word)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let child = child.map_err(|error| failed(error.to_string()))?;
        finish(child, Duration::from_millis(u64::from(self.settings.timeout_ms))).map_err(failed)
    }
}

/// Waits for the child's good end, or ends it and all that it started.
fn finish(mut child: Child, timeout: Duration) -> Result<(), String> {
    // Nobody asks this signal: locking goes on while the controller stops.
    let (_handle, never) = stop::pair();
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it ended with {status}")),
            Ok(None) if Instant::now() < deadline => {
                never.sleep(LOOK_EVERY);
            }
            outcome => {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                return Err(match outcome {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("it did not end within {} ms and was killed", timeout.as_millis()),
                });
            }
        }
    }
}

impl Lock for CommandLock {
    fn unlock(&mut self) -> Result<(), DoorError> {
        self.run(&self.settings.unlock, "unlock")
    }

    fn lock(&mut self) -> Result<(), DoorError> {
        self.run(&self.settings.lock, "lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(unlock: &[&str], timeout_ms: u32) -> CommandLock {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let settings = CommandSettings { unlock: words(unlock), lock: words(&["/bin/true"]), timeout_ms };
        CommandLock { door: DoorId::new("front").unwrap(), settings }
    }

    #[test]
    fn a_command_that_is_missing_fails_hangs_or_leaves_children_is_an_error_in_time() {
        for command in [&[][..], &["/nonexistent"], &["/bin/false"]] {
            assert!(matches!(lock(command, 2_000).unlock(), Err(DoorError::Command { .. })), "{command:?}");
        }
        let began = Instant::now();
        let error = lock(&["/bin/sh", "-c", "sleep 60 & wait"], 100).unlock().unwrap_err().to_string();
        assert!(error.contains("was killed") && began.elapsed() < Duration::from_secs(30), "{error}");
    }

    #[test]
    fn a_command_gets_its_arguments_as_they_are_and_nothing_of_our_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b; rm -rf c");
        lock(&["/usr/bin/touch", file.to_str().unwrap()], 2_000).unlock().unwrap();
        assert!(file.exists());
        let check = r#"test "$FACEID_DOOR/$FACEID_ACTION" = front/unlock && test -z "$HOME$CREDENTIALS_DIRECTORY""#;
        lock(&["/bin/sh", "-c", check], 2_000).unlock().unwrap();
        lock(&["/bin/true"], 2_000).lock().unwrap();
    }
}
