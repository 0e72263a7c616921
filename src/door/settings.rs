//! The `[controller]` table of the config: what `faceid door` drives.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::panel::OsdpSettings;
use crate::types::DoorId;

/// What the lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockKind {
    /// A line on standard output: to try things out.
    Print,
    /// External commands.
    Command,
    /// A line of a GPIO chip.
    Gpio,
    /// None of ours: an access panel drives the lock, and the controller is its reader.
    Panel,
}

/// What the door does while its clock follows no time source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnsureClock {
    /// Opens by the clock as it is.
    #[default]
    Trust,
    /// Opens for nobody.
    Deny,
}

/// The door's controller, for `faceid door` alone. It may run on another machine than the cameras: then `device` names theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// The door that this controller drives: the audience of the grants that it takes.
    pub door: Option<DoorId>,
    /// The device's public keys, a JWK set in a file that only the operator can change; `faceid keygen --public` prints it.
    pub pinned_keys: Option<PathBuf>,
    /// Whether a key that is published on the device's `keys` topic is trusted when a pinned key endorses it: how a rotation reaches
    /// controllers by itself.
    pub learn_endorsed_keys: bool,
    /// How far the clocks of device and door may differ, in seconds. 0 to 30.
    pub clock_leeway_s: u32,
    /// What the door does while the kernel says that its clock follows no time source (NTP, PTP): `trust` opens by the clock as it is,
    /// which boards without a time server need; `deny` opens for nobody. A clock that is set back opens nothing either way until it has
    /// caught up; `deny` is for sites whose time server is authenticated (NTS, or on this network alone).
    pub unsure_clock: UnsureClock,
    /// What the lock is: `print`, `command`, `gpio` or `panel`.
    pub lock: LockKind,
    /// How long a grant keeps the door unlocked, in milliseconds. 100 to 60000.
    pub unlock_ms: u32,
    /// How long the door may stay open before a held-open alarm, in milliseconds. 1000 to 3600000.
    pub held_open_ms: u32,
    /// Whether the request-to-exit input unlocks the door. Otherwise it only says that an opening from inside is no break-in.
    pub exit_unlocks: bool,
    /// The external commands, for `lock = "command"`.
    pub command: CommandSettings,
    /// The GPIO lines: the lock for `lock = "gpio"`, and the inputs for any lock.
    pub gpio: GpioSettings,
    /// The access panel that people are presented to.
    pub osdp: OsdpSettings,
}

/// The `[controller.command]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CommandSettings {
    /// The program (an absolute path) and its arguments that unlock the door; no shell is between.
    pub unlock: Vec<String>,
    /// The program and its arguments that lock the door. Run at the start and at the end too.
    pub lock: Vec<String>,
    /// After how many milliseconds a command that does not end is killed, and counts as failed. 100 to 10000.
    pub timeout_ms: u32,
}

/// The `[controller.gpio]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GpioSettings {
    /// The chip's character device.
    pub chip: PathBuf,
    /// The line of the lock's relay. Active means unlocked.
    pub lock_line: Option<u32>,
    /// Whether the lock's line is active when it is low.
    pub lock_active_low: bool,
    /// The line of the door's sensor. Active means open.
    pub sensor_line: Option<u32>,
    /// Whether the sensor's line is active when it is low.
    pub sensor_active_low: bool,
    /// The line of the request-to-exit button. Active means pressed.
    pub exit_line: Option<u32>,
    /// Whether the button's line is active when it is low.
    pub exit_active_low: bool,
    /// How long an input must be steady to count, in milliseconds. 0 to 1000.
    pub debounce_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            door: None,
            pinned_keys: None,
            learn_endorsed_keys: true,
            clock_leeway_s: 2,
            unsure_clock: UnsureClock::Trust,
            lock: LockKind::Print,
            unlock_ms: 5_000,
            held_open_ms: 30_000,
            exit_unlocks: false,
            command: CommandSettings::default(),
            gpio: GpioSettings::default(),
            osdp: OsdpSettings::default(),
        }
    }
}

impl Default for CommandSettings {
    fn default() -> Self {
        Self { unlock: Vec::new(), lock: Vec::new(), timeout_ms: 2_000 }
    }
}

impl Default for GpioSettings {
    fn default() -> Self {
        Self {
            chip: "/dev/gpiochip0".into(),
            lock_line: None,
            lock_active_low: false,
            sensor_line: None,
            sensor_active_low: false,
            exit_line: None,
            exit_active_low: false,
            debounce_ms: 30,
        }
    }
}

impl Settings {
    /// Whether the panel's verdict is needed for a door that opens.
    pub(super) fn waits_for_panel(&self) -> bool {
        self.lock == LockKind::Panel || self.osdp.verdict_opens
    }

    /// A program of the lock that is not there or cannot be run.
    pub fn missing_program(&self) -> Option<&str> {
        use std::os::unix::fs::PermissionsExt;
        let can_run = |path: &str| Path::new(path).metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
        let programs = [&self.command.unlock, &self.command.lock].into_iter().filter_map(|command| command.first());
        programs.map(String::as_str).find(|program| self.lock == LockKind::Command && !can_run(program))
    }

    /// Every value that would not work: the dotted key below `[controller]`, and what is wrong with the way out. A table without a
    /// door is nobody's and is not looked at further.
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut find = |key: &str, what: String| findings.push((key.to_owned(), what));
        let ranges = [
            ("clock-leeway-s", self.clock_leeway_s, 0, 30),
            ("unlock-ms", self.unlock_ms, 100, 60_000),
            ("held-open-ms", self.held_open_ms, 1_000, 3_600_000),
            ("command.timeout-ms", self.command.timeout_ms, 100, 10_000),
            ("gpio.debounce-ms", self.gpio.debounce_ms, 0, 1_000),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                find(key, format!("{value} is outside {low} to {high}"));
            }
        }
        if self.door.is_none() {
            return findings;
        }
        match &self.pinned_keys {
            None => find("pinned-keys", "without pinned keys no grant can be believed: name a JWK set file".into()),
            Some(path) if !path.is_absolute() => find("pinned-keys", "must be an absolute path".into()),
            Some(_) => {}
        }
        if self.lock == LockKind::Command {
            for (key, command) in [("command.unlock", &self.command.unlock), ("command.lock", &self.command.lock)] {
                if !command.first().is_some_and(|program| program.starts_with('/')) {
                    find(key, "name a program by its absolute path, then its arguments".into());
                }
            }
        }
        if self.lock == LockKind::Gpio && self.gpio.lock_line.is_none() {
            find("gpio.lock-line", "name the line that the lock's relay is on".into());
        }
        let lines = [self.gpio.lock_line.filter(|_| self.lock == LockKind::Gpio), self.gpio.sensor_line, self.gpio.exit_line];
        let mut used: Vec<u32> = lines.into_iter().flatten().collect();
        let all = used.len();
        used.sort_unstable();
        used.dedup();
        if used.len() < all {
            find("gpio.lock-line", "two of lock, sensor and exit are on one line".into());
        }
        findings.extend(self.osdp.findings());
        let mut find = |key: &str, what: String| findings.push((key.to_owned(), what));
        if self.lock == LockKind::Panel && self.osdp.line.is_none() {
            find("osdp.line", "name the serial line to the panel that drives the lock".into());
        }
        if self.exit_unlocks && self.lock == LockKind::Panel {
            find("exit-unlocks", "the panel drives the lock: wire the button to it".into());
        }
        if self.exit_unlocks && self.gpio.exit_line.is_none() {
            find("exit-unlocks", "there is no exit-line that could be pressed".into());
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(settings: &Settings) -> Vec<String> {
        settings.findings().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_door_that_could_not_be_driven_is_found_by_its_keys() {
        let door = Settings { door: Some(DoorId::new("front").unwrap()), ..Settings::default() };
        assert_eq!(keys(&door), ["pinned-keys"]);
        let pinned = Settings { pinned_keys: Some("/etc/faceid/keys.json".into()), ..door };
        assert_eq!(keys(&pinned), Vec::<String>::new());
        let command = Settings { lock: LockKind::Command, ..pinned.clone() };
        assert_eq!(keys(&command), ["command.unlock", "command.lock"]);
        let gpio = Settings { lock: LockKind::Gpio, exit_unlocks: true, ..pinned.clone() };
        assert_eq!(keys(&gpio), ["gpio.lock-line", "exit-unlocks"]);
        let one_line = GpioSettings { lock_line: Some(4), sensor_line: Some(4), ..GpioSettings::default() };
        assert_eq!(keys(&Settings { lock: LockKind::Gpio, gpio: one_line, ..pinned.clone() }), ["gpio.lock-line"]);
        let panel = Settings { lock: LockKind::Panel, ..pinned.clone() };
        assert_eq!(keys(&panel), ["osdp.line"]);
        let osdp = OsdpSettings { verdict_opens: true, ..OsdpSettings::default() };
        assert_eq!(keys(&Settings { osdp, ..pinned.clone() }), ["osdp.verdict-opens"]);
        assert_eq!(keys(&Settings { unlock_ms: 60_001, clock_leeway_s: 31, ..pinned }), ["clock-leeway-s", "unlock-ms"]);
    }
}
