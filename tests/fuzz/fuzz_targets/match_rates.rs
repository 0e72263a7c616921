//! The content of the file of match rates, as it is once it was opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::daemon::fuzzing::match_rates(bytes));
