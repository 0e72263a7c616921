//! A shared library's headers and tables, as they are looked at before it is loaded.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::inference::fuzzing::library(bytes));
