//! The bytes of an access panel's line: through the gate, and what it lets through into the OSDP library (C). No crash, and no secure
//! channel for somebody without the key.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| faceid_plus::door::osdp::fuzz(bytes));
