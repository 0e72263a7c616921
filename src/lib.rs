//! FaceID+: a face-access daemon for doors. This page becomes the map of the crate.
pub mod access;
pub mod inference;
pub mod publish;
pub mod system;
pub mod types;
