//! The networks that come inside the program, so that a bare installation has a pack: `models/builtin/`. They are held against their
//! pinned hashes like every other file, which makes a manifest that was changed without its network a clear error.

use super::manifest::{Model, Origin};

/// File names with their bytes.
const FILES: [(&str, &[u8]); 5] = [
    ("detector.onnx", include_bytes!("../../models/builtin/detector.onnx")),
    ("embedder.onnx", include_bytes!("../../models/builtin/embedder.onnx")),
    ("embedder_int8.onnx", include_bytes!("../../models/builtin/embedder_int8.onnx")),
    ("liveness.onnx", include_bytes!("../../models/builtin/liveness.onnx")),
    ("liveness_int8.onnx", include_bytes!("../../models/builtin/liveness_int8.onnx")),
];

/// The bytes of a network that the manifest calls bundled. `Err` says that this program carries no such file; `Ok(None)` that the
/// network is not a bundled one.
pub(super) fn bytes(model: &Model) -> Result<Option<&'static [u8]>, String> {
    if !matches!(model.origin, Origin::Bundled { .. }) {
        return Ok(None);
    }
    let found = FILES.iter().find(|(name, _)| *name == model.file);
    found.map(|(_, bytes)| Some(*bytes)).ok_or_else(|| format!("{} does not come with this faceid", model.file))
}
