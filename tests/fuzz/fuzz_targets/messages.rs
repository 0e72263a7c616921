//! Every payload that a broker can bring to the device, through the function that the MQTT client calls: commands, passages, what readers
//! read, Home Assistant's start, the birth that is kept. Nothing that was not signed is obeyed or believed; signed texts are judged.
#![no_main]

use std::cell::RefCell;

use faceid_plus::daemon::fuzzing::Ear;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static EAR: RefCell<Ear> = RefCell::new({
        let folder = std::env::temp_dir().join(format!("faceid-fuzz-messages-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Ear::new(&folder)
    });
}

fuzz_target!(|bytes: &[u8]| EAR.with_borrow_mut(|ear| ear.messages(bytes)));
