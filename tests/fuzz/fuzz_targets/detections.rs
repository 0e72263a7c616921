//! What a detector's network may put out, over a few frames: no face without numbers, no stay that is two people's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faceid_plus::vision::fuzzing::detections(bytes));
