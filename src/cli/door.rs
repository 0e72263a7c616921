//! `door`: the reference door controller.

use super::context::Context;
use super::{Failure, Places, Result, code, say};
use crate::daemon::signals;
use crate::door::{self, DoorError, Hardware};
use crate::system::notify::Notifier;
use crate::system::{logging, process, stop};

/// `faceid door`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Bring the lock into its safe state and leave: for a service manager, after a crash
    #[arg(long)]
    lock: bool,
}

fn failure(error: &DoorError) -> Failure {
    let code = match error {
        DoorError::NoDoor | DoorError::NoLine | DoorError::Keys(_) | DoorError::Panel { .. } => code::CONFIG,
        _ => code::UNAVAILABLE,
    };
    Failure::new(code, error)
}

fn print(line: &str) {
    say(line);
}

pub(super) fn door(places: &Places, args: &Args) -> Result {
    let context = Context::load(places)?;
    let config = &context.config;
    Context::become_owner_of(&config.state_dir)?;
    logging::init(&config.log).map_err(|error| Failure::new(code::CONFIG, error))?;
    let settings = &config.controller;
    super::run::warn_of_open(&crate::config::path(places.config.as_deref()), config);
    if args.lock {
        return door::lock_once(settings, print).map(|()| code::YES).map_err(|error| failure(&error));
    }
    let name = settings.door.as_ref().ok_or_else(|| failure(&DoorError::NoDoor))?;
    if let Err(error) = process::forbid_core_dumps() {
        log::warn!("a crash could leave a core dump: {error}");
    }
    let (handle, ear) = stop::pair();
    let signals = signals::watch(handle, || {}).map_err(Failure::unavailable)?;
    let notifier = Notifier::from_env();
    notifier.status("starting");
    let hardware = Hardware::open(settings, name, print)
        .and_then(|hardware| hardware.with_panel(&settings.osdp, &config.secrets_dir))
        .map_err(|error| failure(&error))?;
    let places = door::controller::Places {
        device: &config.device,
        broker: &config.publish,
        secrets: &config.secrets_dir,
        state: &config.state_dir,
    };
    let ready = || notifier.ready(&format!("door {name}"));
    let outcome = door::run(settings, places, hardware, &ear, &ready, &|| notifier.watchdog());
    notifier.stopping("stopping");
    drop(signals);
    outcome.map(|()| code::YES).map_err(|error| failure(&error))
}
