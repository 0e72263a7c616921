//! FaceID+: a face-access daemon for doors. The map of the crate.
//!
//! [`capture`] brings frames, [`pipeline`] takes each through the stages of [`vision`] (networks opened by [`inference`]) and the
//! [`gallery`], [`access`] decides, [`publish`] tells, [`daemon`] runs them all, [`config`] composes their settings, [`cli`] is the
//! command line, [`system`] is what every worker needs of the machine, [`types`] are the values that cross rooms.
//!
//! ```text
//! types, system                        -> nothing (system names types)
//! inference, capture, gallery, publish -> types system
//! access                               -> types
//! vision                               -> types inference
//! pipeline                             -> types system capture vision gallery
//! config                               -> types and each room's Settings
//! daemon                               -> the rooms it builds
//! cli                                  -> config daemon and the rooms whose verbs it offers
//! ```
pub mod access;
pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod gallery;
pub mod inference;
pub mod pipeline;
pub mod publish;
pub mod system;
pub mod types;
pub mod vision;
