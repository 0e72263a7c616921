//! The process: workers that are watched, signals that are heard, a panic that ends everything, and the daemon made of them.

mod access_state;
mod api;
mod at_home;
mod birth_witness;
pub mod blocks;
mod broker_word;
mod calls;
mod care;
mod clock_watch;
mod commands;
pub mod control;
pub mod deeds;
mod desk;
mod enrol;
mod events;
mod figures;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "it is there to panic")]
pub mod fuzzing;
mod guards;
mod inbox;
mod keys;
pub mod match_rates;
pub mod panic;
mod purge;
mod reports;
pub mod restoring;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::unwrap_used, reason = "it is there to panic")]
mod sequences;
pub mod service;
pub mod signals;
mod snapshots;
mod standing;
pub mod supervisor;
pub mod workers;

pub use clock_watch::clock_now;
pub use keys::{KeyRing, OLD_GRANT_KEY, read_grant_key};
pub use panic::install_panic_hook;
pub use service::{DaemonError, GRANT_KEY, Service, Watchers, operators, pinned};

use std::path::PathBuf;

use crate::access::Rules;
use crate::config::Config;
use crate::system::notify::Notifier;
use crate::system::{logging, messages, process, stop};

/// Runs the daemon until it is told to stop or a vital worker fails. HUP reads the log's settings, the policy and the operators' keys from
/// `config_path` again, checked first; everything else of the config needs a restart.
pub fn run(config: &Config, config_path: Option<PathBuf>, accept_lost_state: bool) -> Result<(), DaemonError> {
    process::give_back_large_memory();
    if let Err(error) = process::forbid_core_dumps() {
        log::warn!("a crash could leave a core dump: {error}");
    }
    let (handle, ear) = stop::pair();
    let reloads = desk::Reloads::default();
    let signals = signals::watch(handle.clone(), {
        let reloads = reloads.clone();
        move || reload(config_path.as_deref(), &reloads)
    });
    let signals = signals.map_err(|source| DaemonError::Io { what: "signals".to_owned(), source })?;
    let notifier = Notifier::from_env();
    notifier.status("starting");
    let service = Service::start(config, &Watchers { accept_lost_state, reloads, ..Watchers::default() }, (handle, ear))?;
    let outcome = service.watch(&notifier);
    if let Err(error) = &outcome {
        log::error!(MESSAGE_ID = messages::FAILED; "stopping: {error}");
    }
    service.stop(&notifier);
    drop(signals);
    outcome
}

/// Everything is read and checked before anything of it is taken up: one mistake leaves all as it was.
fn reload(config_path: Option<&std::path::Path>, reloads: &desk::Reloads) {
    let Some(path) = config_path else { return };
    let read = || -> Result<_, DaemonError> {
        let config = Config::load(path)?;
        Ok((Rules::new(&config.policy)?, service::operators(&config.publish)?, config))
    };
    match read() {
        Ok((rules, operators, config)) => {
            if let Err(error) = logging::reload(&config.log) {
                log::error!("the log's settings were not changed: {error}");
            }
            let Some(judge) = reloads.judge() else {
                log::warn!("the daemon is still starting: policy and operator keys were not read again");
                return;
            };
            judge.set_operators(operators);
            reloads.renew(rules);
            log::info!("log settings, policy and operator keys read again; everything else of the config changes with a restart");
        }
        Err(error) => {
            log::error!(MESSAGE_ID = messages::CONFIG_NOT_READ; "the config was not read again, and what is in force stays: {error}")
        }
    }
}
