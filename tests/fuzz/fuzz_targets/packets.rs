//! The packets of a broker through rumqttc's reader and state, and through what we allow a broker to say.
#![no_main]

use faceid_plus::publish::fuzzing::packets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| packets(bytes));
