//! Requests of the local API but for the bodies of uploads: method, path, query, headers and changes through every route; its file of
//! remembered rates; and the kernel's table of connections.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&what, bytes)) = bytes.split_first() else { return };
    match what % 4 {
        0 => faceid_plus::http::fuzzing::rates(bytes),
        1 => faceid_plus::http::fuzzing::connections(bytes),
        _ => faceid_plus::http::fuzzing::request(bytes),
    }
});
