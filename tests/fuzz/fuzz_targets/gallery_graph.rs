//! The sealed copy of the search graph, opened or not: it is refused, or it serves without a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| faceid_plus::gallery::fuzzing::graph(input));
