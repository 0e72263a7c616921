//! What `watch`, `command`, `demo` and `snapshot` read from a broker and print: nothing of it starts another line or steers a terminal.
#![no_main]

use faceid_plus::cli::fuzzing::printed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| printed(bytes));
