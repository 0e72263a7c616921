//! The epoch's second place: its two slots, raw, edited and signed.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::epoch(input));
