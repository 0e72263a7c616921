//! FaceID+: a face-access daemon for doors. This page becomes the map of the crate.
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
