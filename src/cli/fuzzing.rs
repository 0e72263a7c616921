//! What the fuzz target `printed` feeds (`tests/fuzz`), and what a seeded walk feeds in every test run: what `watch`, `command`, `demo`
//! and `snapshot` read from a broker, where anybody may have written it. Takes any bytes at all and panics when a promise is broken.

use serde_json::Value;

use super::{snapshot, watch};
use crate::publish::{Received, Recipient};
use crate::system::logging;

/// A message on each kind of topic: nothing that is printed of it starts another line or steers a terminal, an answer's JSON stays the
/// value that it was, and no picture is opened that was not sealed to us.
pub fn printed(bytes: &[u8]) {
    let own = String::from_utf8_lossy(bytes);
    for end in ["door/front/decision", "camera/c/status", "camera/c/presence", "camera/c/attempt", "alarm/spoof", "stats", &own] {
        let message = Received { topic: format!("faceid/gate/{end}"), payload: bytes.to_vec(), ..Received::default() };
        watch::readable(&message).iter().for_each(|line| harmless(line));
        harmless(&watch::raw(&message));
    }
    assert!(snapshot::open(bytes, &Recipient::new([7; 32])).map_err(|why| harmless(&logging::escape(&why))).is_err());
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        harmless(&watch::decision_line(&value));
        // A number with more digits than it can keep may differ in the last one when it is read again: that is none of the escaping's.
        let written = value.to_string();
        let shown = logging::escape_json(&written);
        harmless(&shown);
        let read = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON as before");
        assert_eq!(read(&shown), read(&written));
    }
}

fn harmless(line: &str) {
    assert!(!line.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')), "{line:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_what_is_printed_breaks_no_promise() {
        let seeds: [&[u8]; 5] = [
            // Found by the fuzzer: a number that its text and what was read of it round apart.
            br#"{"track":711111111111111111111111111111111111111111111111111111111111111111111111111111111111111111}"#,
            br#"{"time":"1970-01-01T00:00:00Z","data":{"door":"front","outcome":"granted","reason":"match","person":"p","track":7,"evidence":{"frames":5,"match_band":"strong","liveness_band":"high"}}}"#,
            "{\"camera\":\"c\",\"status\":\"online\",\"reason\":\"a\\n\\u001b[2J\u{9b}\u{202e}\"}".as_bytes(),
            br#"{"ok":true,"verb":"list","nonce":"n","result":{"people":[]},"error":null}"#,
            br#"{"door":"front","camera":"c","track":7,"sealed":"AAAA"}"#,
        ];
        walk("printed", &seeds, 20_000, printed);
    }
}
