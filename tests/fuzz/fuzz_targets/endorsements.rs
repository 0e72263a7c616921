//! What is published of a device's keys, unsigned, signed by a thief and signed by a pinned key.
#![no_main]

use std::sync::LazyLock;

use faceid_plus::door::fuzzing::Listener;
use libfuzzer_sys::fuzz_target;

static LISTENER: LazyLock<Listener> =
    LazyLock::new(|| Listener::new(&std::env::temp_dir().join(format!("faceid-fuzz-endorsements-{}", std::process::id()))));

fuzz_target!(|bytes: &[u8]| LISTENER.endorsements(bytes));
