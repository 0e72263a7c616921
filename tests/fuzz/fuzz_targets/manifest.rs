//! A site's manifest of model packs, alone and over the built-in one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::inference::fuzzing::manifest(bytes));
