//! The gallery's bytes: whatever comes in, no panic and no allocation beyond the input's size, and what decodes encodes to the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::format(input));
