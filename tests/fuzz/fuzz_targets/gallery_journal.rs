//! The gallery's journal: raw, a sound one with edits, or any bytes sealed as a change.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::journal(input));
