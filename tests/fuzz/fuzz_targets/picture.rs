//! A picture from outside: decoded within its bounds of pixels and memory, or refused.
#![no_main]

use faceid_plus::capture::still::decode_picture_within;
use libfuzzer_sys::fuzz_target;

const MAX_PIXELS: u64 = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = decode_picture_within(bytes, MAX_PIXELS) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= MAX_PIXELS);
    }
});
