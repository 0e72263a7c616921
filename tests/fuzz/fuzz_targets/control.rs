//! What a caller of the control socket sends: framing, and requests of every kind against a gallery of drawn people.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::daemon::fuzzing::request(bytes));
