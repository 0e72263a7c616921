//! A gallery's backup: its sealed form, its plain text, the keys that open it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::backup(input));
