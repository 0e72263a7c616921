//! Sequences of several people's faces, living and not, through tracker, visits, gallery and decider: nobody is let in but by enough frames
//! that show that very person alive.
#![no_main]

use std::sync::LazyLock;

use faceid_plus::daemon::fuzzing::Scenes;
use libfuzzer_sys::fuzz_target;

static SCENES: LazyLock<Scenes> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("faceid-fuzz-sequences-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    Scenes::new(&folder)
});

fuzz_target!(|bytes: &[u8]| {
    SCENES.sequence(bytes);
});
