//! Frames as GStreamer hands them over: formats, sizes, strides and memories of any kind, through all that reads their pixels.
#![no_main]

use faceid_plus::capture::fuzzing::frames;
use faceid_plus::vision::fuzzing::look;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames(bytes, look));
