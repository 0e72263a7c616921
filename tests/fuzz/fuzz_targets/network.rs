//! A model file as we read it before any backend does: its graph, its input, and the exact rewrite.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::inference::fuzzing::network(bytes));
