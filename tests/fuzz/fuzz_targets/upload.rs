//! The body of an upload over HTTP: multipart, bounded in pictures and in bytes, and whatever is wrong with it is the sender's fault.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::http::fuzzing::form(bytes));
