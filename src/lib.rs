//! FaceID+: a face-access daemon for doors. This page becomes the map of the crate.
pub mod gallery;
pub mod inference;
pub mod system;
pub mod types;
