//! What else is read from files, sockets and the network, all parsers on the same bytes: lists of pairs and photos, tokens of the API,
//! certificates, a device's sealed state, and the memories of used ids and of what a door must tell.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use faceid_plus::door::diary::Diary;
use faceid_plus::evaluation::protocol;
use faceid_plus::http::Tokens;
use faceid_plus::publish::{Recipient, StateKey, certificates};
use faceid_plus::system::seen::{Kind, Seen, Terms};
use faceid_plus::types::{Moment, Wall};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("faceid-fuzz-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
});
static KEY: LazyLock<StateKey> = LazyLock::new(|| StateKey::generate().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = protocol::parse_pairs(&text);
    let _ = protocol::parse_photos(&text);
    let _ = Tokens::parse(&text);
    let _ = certificates::end_of(bytes);
    assert!(KEY.open("access", bytes).is_none());
    assert!(Recipient::new([9; 32]).open("front entrance 1", bytes).is_none());

    let seen = FOLDER.join("seen");
    std::fs::write(&seen, bytes).unwrap();
    let now = Moment { wall: Wall(1_700_000_000_000), ..Moment::default() };
    let terms = Terms { owner: "gate/front", kind: Kind::Messages, is_new: false, leeway: std::time::Duration::from_secs(2) };
    if let Ok(mut seen) = Seen::open(&seen, terms, now) {
        // What was read holds: an id is taken once, or not at all.
        let second = now.wall.unix_seconds();
        let _ = seen.take("fresh", second + 5, second + 10, now.wall);
        assert!(seen.take("fresh", second + 5, second + 10, now.wall).is_err());
    }
    let diary = FOLDER.join("diary");
    std::fs::write(&diary, bytes).unwrap();
    if let Ok(mut diary) = Diary::open(&diary, Some(KEY.share())) {
        let waiting = diary.len();
        while let Some(note) = diary.hand_out() {
            diary.confirmed(note.number);
        }
        assert!(diary.len() <= waiting);
    }
});
