//! The gallery's bytes: whatever comes in, no panic and no allocation beyond the input's size, and what decodes encodes to the same.
#![no_main]

use faceid_plus::gallery::format::{Fields, decode_record, encode_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (dimension, bytes) = (usize::from(input.0), input.1);
    if let Ok(fields) = Fields::decode(bytes) {
        assert!(fields.encode() == bytes[..fields.encode().len()]);
    }
    if let Ok(entries) = decode_record(bytes, dimension) {
        let mut again = Vec::new();
        for entry in &entries {
            encode_entry(&mut again, &entry.person, entry.values.len() / dimension, entry.values.iter().copied());
        }
        assert!(again == bytes);
    }
});
