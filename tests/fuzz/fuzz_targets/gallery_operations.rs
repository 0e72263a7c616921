//! Operations of the gallery with a failing or a cut-off disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::operations(input));
