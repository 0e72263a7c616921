//! Lines of a GPIO chip through the character device: the lock's relay, the door's sensor, the request-to-exit button.
//!
//! The kernel gives a line back when the process ends, however it ends; what the pin does then is the board's matter, so the relay must
//! be wired to lock without current (see `systemd/README.md`).

use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::Value;

use super::hardware::{DoorError, Inputs, Lock, Readings};
use super::settings::GpioSettings;

/// How the kernel's list of lines names who uses ours.
const CONSUMER: &str = "faceid-door";

fn failed(settings: &GpioSettings, line: u32) -> impl Fn(gpiocdev::Error) -> DoorError + '_ {
    move |error| DoorError::Gpio { chip: settings.chip.clone(), line, detail: error.to_string() }
}

/// The relay: active means unlocked.
pub(super) struct GpioLock {
    settings: GpioSettings,
    line: u32,
    request: Request,
}

impl GpioLock {
    /// Takes the line as an output that is inactive from its first moment on.
    pub(super) fn open(settings: &GpioSettings) -> Result<Self, DoorError> {
        let line = settings.lock_line.ok_or(DoorError::NoLine)?;
        let mut builder = Request::builder();
        builder.on_chip(&settings.chip).with_consumer(CONSUMER).with_line(line);
        if settings.lock_active_low {
            builder.as_active_low();
        }
        let request = builder.as_output(Value::Inactive).request().map_err(failed(settings, line))?;
        Ok(Self { settings: settings.clone(), line, request })
    }

    fn set(&self, value: Value) -> Result<(), DoorError> {
        self.request.set_lone_value(value).map(|_| ()).map_err(failed(&self.settings, self.line))
    }
}

impl Lock for GpioLock {
    fn unlock(&mut self) -> Result<(), DoorError> {
        self.set(Value::Active)
    }

    fn lock(&mut self) -> Result<(), DoorError> {
        self.set(Value::Inactive)
    }
}

impl Drop for GpioLock {
    fn drop(&mut self) {
        if let Err(error) = self.set(Value::Inactive) {
            log::error!("{error}");
        }
    }
}

/// Sensor and button, as far as the settings have them.
pub(super) struct GpioInputs {
    sensor: Option<Request>,
    exit: Option<Request>,
}

impl GpioInputs {
    /// Takes the lines as inputs, debounced by the kernel.
    pub(super) fn open(settings: &GpioSettings) -> Result<Self, DoorError> {
        let take = |line: Option<u32>, active_low: bool| {
            let Some(line) = line else { return Ok(None) };
            let mut builder = Request::builder();
            builder.on_chip(&settings.chip).with_consumer(CONSUMER).with_line(line).as_input();
            if active_low {
                builder.as_active_low();
            }
            if settings.debounce_ms > 0 {
                builder.with_debounce_period(Duration::from_millis(u64::from(settings.debounce_ms)));
            }
            builder.request().map(Some).map_err(failed(settings, line))
        };
        Ok(Self {
            sensor: take(settings.sensor_line, settings.sensor_active_low)?,
            exit: take(settings.exit_line, settings.exit_active_low)?,
        })
    }
}

impl Inputs for GpioInputs {
    fn has_sensor(&self) -> bool {
        self.sensor.is_some()
    }

    fn read(&mut self) -> Readings {
        let is_active = |request: &Option<Request>| Some(request.as_ref()?.lone_value().ok()? == Value::Active);
        Readings { open: is_active(&self.sensor), exit: is_active(&self.exit) }
    }
}
