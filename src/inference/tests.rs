//! Tests over both backends and the real networks.
pub(super) fn library() -> Option<std::path::PathBuf> {
    None
}
