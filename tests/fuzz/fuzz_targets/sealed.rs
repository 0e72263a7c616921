//! Records of the outbox and of the audit trail once they have been opened, and segments as they lie on the disk: any bytes, and sound ones
//! with edits.
#![no_main]

use std::sync::LazyLock;

use faceid_plus::publish::fuzzing::Shelf;
use libfuzzer_sys::fuzz_target;

static SHELF: LazyLock<Shelf> =
    LazyLock::new(|| Shelf::new(&std::env::temp_dir().join(format!("faceid-fuzz-sealed-{}", std::process::id()))));

fuzz_target!(|bytes: &[u8]| {
    SHELF.outbox(bytes);
    SHELF.audit(bytes);
    SHELF.segment(bytes);
});
