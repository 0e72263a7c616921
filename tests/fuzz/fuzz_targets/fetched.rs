//! What a model's server sends: archives, and answers to the request for the rest of a file whose beginning is here.
#![no_main]

use std::sync::LazyLock;

use faceid_plus::inference::fuzzing::Depot;
use libfuzzer_sys::fuzz_target;

static DEPOT: LazyLock<Depot> =
    LazyLock::new(|| Depot::new(&std::env::temp_dir().join(format!("faceid-fuzz-fetched-{}", std::process::id()))));

fuzz_target!(|bytes: &[u8]| {
    DEPOT.archive(bytes);
    DEPOT.resumed(bytes);
});
