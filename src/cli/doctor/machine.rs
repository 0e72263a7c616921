//! What `doctor` asks of the machine: clock, watchdog, exposure, GPIO, power.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::{Chart, State};
use crate::cli::credentials;
use crate::config::Config;
use crate::door::LockKind;
use crate::door::settings::UnsureClock;
use crate::system::{self, ClockQuality, process};

/// The unit's exposure that ours and its drop-ins stay below (`systemd-analyze security`).
const MOST_EXPOSURE: f32 = 2.5;
/// Above this processors slow themselves down, in degrees Celsius.
const HOT: f32 = 85.0;

pub(super) fn examine(config: &Config, chart: &mut Chart) {
    time(config, chart);
    service(chart);
    gpio(config, chart);
    power(chart);
}

/// Grants carry times: a controller refuses them when the clocks disagree.
fn time(config: &Config, chart: &mut Chart) {
    let word = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let source = word("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match system::clock_quality() {
        ClockQuality { is_synced: true, error_ms } => {
            let within = error_ms.map_or(String::new(), |error| format!(" to within {error} ms"));
            chart.note("clock", State::Works, format!("it follows a time source{within}; the kernel counts by {source}"), "");
        }
        ClockQuality { is_synced: false, .. } => chart.note(
            "clock",
            match config.controller.unsure_clock {
                UnsureClock::Deny if config.controller.door.is_some() => State::Broken,
                _ => State::Weak,
            },
            format!(
                "it follows no time source, so schedules hold for nobody and people with a date of expiry are denied{}; the kernel counts by {source}",
                match config.controller.unsure_clock {
                    UnsureClock::Deny if config.controller.door.is_some() => ", and the controller's door opens for nobody",
                    _ => "",
                }
            ),
            "apt-get install chrony, or systemctl enable --now systemd-timesyncd; then see that a time server can be reached",
        ),
    }
    if !Path::new("/sys/class/rtc/rtc0").exists() {
        let says = "none: after a power cut without a network every schedule and grant is at the wrong time";
        chart.note("real-time clock", State::Weak, says, "fit a battery-backed clock, or keep a time server in reach");
    }
}

/// What a program prints, when it is there and ends well within five seconds.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("timeout").arg("5").arg(program).args(arguments).env("LC_ALL", "C").output().ok()?;
    // systemd-analyze's exit code tells of the exposure, not of a failure.
    Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|text| !text.trim().is_empty())
}

fn service(chart: &mut Chart) {
    if !Path::new("/run/systemd/system").exists() {
        chart.note(
            "service",
            State::Weak,
            "systemd does not run here: nothing restarts or watches the daemon",
            "use the package's unit",
        );
        return;
    }
    let shown =
        ask("systemctl", &["show", "faceid.service", "-p", "LoadState,ActiveState,WatchdogUSec,NRestarts"]).unwrap_or_default();
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("unknown");
    if value("LoadState") != "loaded" {
        chart.note("service", State::Weak, "there is no faceid.service", "systemd/install.sh, or install the package");
        return;
    }
    let says = format!("{}, restarted {} times", value("ActiveState"), value("NRestarts"));
    match value("ActiveState") {
        "active" | "reloading" | "activating" => chart.note("service", State::Works, says, ""),
        _ => chart.note("service", State::Weak, says, "systemctl enable --now faceid, and journalctl -u faceid -x"),
    }
    match value("WatchdogUSec") {
        "0" | "infinity" | "unknown" => {
            chart.note("watchdog", State::Weak, "off: a daemon that hangs is not restarted", "systemctl revert faceid.service")
        }
        every => chart.note("watchdog", State::Works, format!("fed by the workers, barks after {every}"), ""),
    }
    exposure(&ask("systemd-analyze", &["security", "--no-pager", "faceid.service"]).unwrap_or_default(), chart);
}

fn exposure(told: &str, chart: &mut Chart) {
    match overall(told) {
        None => chart.note("unit exposure", State::Weak, "systemd-analyze does not tell", "apt-get install systemd"),
        Some(level) if level > MOST_EXPOSURE => {
            let mend = "systemctl revert faceid.service, and only the drop-ins that the hardware needs";
            chart.note("unit exposure", State::Weak, format!("{level} of 10, ours stays below {MOST_EXPOSURE}"), mend);
        }
        Some(level) => chart.note("unit exposure", State::Works, format!("{level} of 10"), ""),
    }
}

/// The figure of systemd-analyze's last line: `→ Overall exposure level for faceid.service: 1.2 OK :-)`.
fn overall(told: &str) -> Option<f32> {
    told.lines()
        .rev()
        .find_map(|line| line.split_once("Overall exposure level")?.1.split_whitespace().find_map(|word| word.parse().ok()))
}

fn gpio(config: &Config, chart: &mut Chart) {
    let chip = &config.controller.gpio.chip;
    let is_used = config.controller.lock == LockKind::Gpio;
    match std::fs::OpenOptions::new().read(true).write(true).open(chip) {
        Ok(_) => chart.note("gpio", State::Works, format!("{} can be opened", chip.display()), ""),
        Err(_) if !is_used => chart.note("gpio", State::Works, "not used by this config", ""),
        Err(error) => {
            let mend = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "usermod -aG gpio faceid-door, or run doctor as root".to_owned(),
                _ => "ls /dev/gpiochip*, and name the chip in [controller.gpio] chip".to_owned(),
            };
            chart.note("gpio", State::Broken, format!("{}: {error}", chip.display()), mend);
        }
    }
}

fn power(chart: &mut Chart) {
    if let Some(told) = ask("nvpmodel", &["-q"]) {
        let mode = told.lines().find_map(|line| line.split_once("Power Mode:")).map_or("unknown", |(_, mode)| mode.trim());
        let state = if mode.to_ascii_uppercase().contains("MAXN") { State::Works } else { State::Weak };
        // The modes' numbers differ from board to board.
        let mend = if state == State::Works {
            ""
        } else {
            "nvpmodel -m N with the N of `grep -E 'POWER_MODEL ID=.*MAXN' /etc/nvpmodel.conf`, then jetson_clocks, where supply and cooling bear it"
        };
        chart.note("power mode", state, format!("nvpmodel says {mode}"), mend);
    }
    if let Ok(governor) = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
        let governor = governor.trim();
        let slow = governor == "powersave" && !Path::new("/sys/devices/system/cpu/intel_pstate").exists();
        let state = if slow { State::Weak } else { State::Works };
        chart.note("cpu governor", state, governor, if slow { "cpupower frequency-set -g schedutil" } else { "" });
    }
    if let Some(celsius) = process::warmest_celsius() {
        let state = if celsius >= HOT { State::Weak } else { State::Works };
        let mend = if celsius >= HOT { "cool it: processors slow down at this heat" } else { "" };
        chart.note("temperature", state, format!("{celsius:.0} °C"), mend);
    }
}

/// A file or folder that others may write, or read where it holds secrets.
pub(super) fn modes(config_path: &Path, config: &Config, chart: &mut Chart) {
    if let Some(warning) = crate::cli::run::open_config(config_path, config) {
        let mend = format!(
            "setfacl -b {path}; chmod o-rwx {path}; chgrp faceid {path}, or faceid-door for the door's",
            path = config_path.display()
        );
        chart.note("card numbers and the like", State::Broken, warning, mend);
    }
    for name in credentials::NOT_THE_DEVICES {
        for folder in [config.secrets_dir.as_path(), Path::new(super::SEALED)] {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                let says = format!("{} lies on the device: whoever breaks into its service has that key", path.display());
                let mend = format!(
                    "mv {} to the machine that commands are sent from, and renew it where it has lain here for long",
                    path.display()
                );
                chart.note(format!("key {name}"), State::Weak, says, mend);
            }
        }
    }
    for (path, mask, mend) in [
        (config_path, 0o022, "chmod go-w"),
        (config.secrets_dir.as_path(), 0o077, "chmod 700"),
        (config.models_dir().as_path(), 0o022, "chmod go-w"),
    ] {
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        let mode = metadata.mode() & 0o777;
        let check = format!("mode of {}", path.display());
        match mode & mask {
            0 => chart.note(check, State::Works, format!("{mode:03o}"), ""),
            _ => chart.note(
                check,
                State::Broken,
                format!("{mode:03o}: others may change or read it"),
                format!("{mend} {}", path.display()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_read_from_the_last_line_and_from_nothing_else() {
        assert_eq!(overall("✗ PrivateNetwork= 0.5\n\n→ Overall exposure level for faceid.service: 1.2 OK :-)\n"), Some(1.2));
        assert_eq!(overall("✗ PrivateNetwork= 0.5\n"), None);
    }
}
