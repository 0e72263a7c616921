//! What the fuzz targets feed (`tests/fuzz`), and what a seeded walk feeds in every test run. Each function takes any bytes at all and
//! panics when a promise is broken.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::birth_witness;
use super::control;
use super::inbox::{Heard, Inbox};
use super::sequences::Stage;
use crate::access::grant::{GrantKey, KeySet};
use crate::gallery;
use crate::publish::command::{Gate, Verb};
use crate::publish::passage::Passages;
use crate::publish::{Context, Inlet, Models, Publisher, Received, Settings, Worker, discovery, lanes};
use crate::types::{DeviceId, DoorId, Moment, Wall};

const NOW: Wall = Wall(1_700_000_000_000);
const ROOT: &str = "faceid/gate";

/// A daemon's ear without a broker: the MQTT worker that hears, and the inbox that judges.
pub struct Ear {
    worker: Worker,
    inlet: Inlet,
    inbox: Inbox,
    now: Moment,
    /// An operator's, and the door's.
    key: GrantKey,
    keys: KeySet,
    _publisher: Publisher,
}

impl Ear {
    /// Its memories are files in `folder`.
    pub fn new(folder: &Path) -> Self {
        let key = GrantKey::from_seed(&[7; 32]).expect("32 bytes are a seed");
        let keys = KeySet::new([key.public()]);
        let (device, door) = (DeviceId::new("gate").expect("a plain name"), DoorId::new("front").expect("a plain name"));
        let now = Moment { wall: NOW, ..Moment::default() };
        let gate = Gate::new(device.clone(), Some(keys.clone()), (&folder.join("nonces"), true), now).expect("the folder is sound");
        let pinned = BTreeMap::from([(door.clone(), keys.clone())]);
        let passages = Passages::new(device.clone(), pinned, (&folder.join("passages"), true), now).expect("the folder is sound");
        let context = Context { device, boot_id: uuid::Uuid::nil(), first_sequence: 1, models: Models::new(), person_names: false };
        let (publisher, mut worker) = Publisher::new(Settings::default(), context, folder);
        let (lanes, inlet) = lanes(ROOT, [door], gate.judge().clone(), passages.judge().clone());
        worker.hear_commands(lanes);
        let inbox = Inbox { root: ROOT.to_owned(), gate, passages, distrust: Default::default() };
        Self { worker, inlet, inbox, now, key, keys, _publisher: publisher }
    }

    /// A payload on every topic that is subscribed to, as the client hands it over: nothing that was not signed is obeyed or believed,
    /// and nothing that was retained is. Then the same text, signed by the right keys: it is judged, whatever it says.
    pub fn messages(&mut self, payload: &[u8]) {
        for (_, verb) in Verb::ALL {
            self.unsigned(&format!("{ROOT}/cmd/{verb}"), payload);
        }
        for topic in ["cmd/open", "cmd/", "door/front/passage", "door/front/credential", "door/back/passage", "door//credential"] {
            self.unsigned(&format!("{ROOT}/{topic}"), payload);
        }
        // The topic is the sender's too.
        self.unsigned(&String::from_utf8_lossy(payload), payload);
        self.unsigned(discovery::DEFAULT_BIRTH_TOPIC, payload);
        assert!(birth_witness::claim_of(payload, &self.keys).is_err());
        let Ok(text) = std::str::from_utf8(payload) else { return };
        let command = self.key.sign_command(text);
        if let Heard::Command(word, command) = self.hear(&format!("{ROOT}/cmd/lockdown"), command.as_bytes(), false) {
            assert!(word == "lockdown" && command.verb == Verb::Lockdown);
        }
        let passage = serde_json::json!({ "claim": self.key.sign_passage_text(text) }).to_string();
        if let Heard::Passed(passage, _) = self.hear(&format!("{ROOT}/door/front/passage"), passage.as_bytes(), false) {
            assert_eq!(passage.door.as_str(), "front");
        }
    }

    fn unsigned(&mut self, topic: &str, payload: &[u8]) {
        for retained in [false, true] {
            let heard = self.hear(topic, payload, retained);
            assert!(!matches!(heard, Heard::Command(..) | Heard::Passed(..)), "{topic}");
            assert!(
                !retained
                    || matches!(
                        heard,
                        Heard::Nothing | Heard::CommandRefused(..) | Heard::ReadRefused(..) | Heard::PassageRefused(..)
                    )
            );
        }
    }

    fn hear(&mut self, topic: &str, payload: &[u8], retained: bool) -> Heard {
        let message = Received { topic: topic.to_owned(), payload: payload.to_vec(), retained, ..Received::default() };
        // Each as if after a long silence: a budget that is used up would let nothing be judged any more.
        self.now.monotonic = self.now.monotonic.plus(Duration::from_secs(60));
        self.worker.heard(message, self.now);
        let message = self.inlet.recv_timeout(Duration::ZERO);
        assert!(self.inlet.recv_timeout(Duration::ZERO).is_err(), "one message became two");
        message.map_or(Heard::Nothing, |message| self.inbox.judge(&message, self.now))
    }
}

/// What a caller of the control socket sends, framed or not: questions of every kind, or none.
pub fn request(bytes: &[u8]) {
    control::judge(gallery::fuzzing::peopled().0, bytes);
}

/// The content of the file of match rates, before it is sealed.
pub fn match_rates(bytes: &[u8]) {
    super::match_rates::content(bytes);
}

/// A door before which anybody may stand.
pub struct Scenes(Stage);

impl Scenes {
    /// Its gallery is in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self(Stage::new(folder))
    }

    /// A sequence of faces that the bytes draw, through tracker, visits, gallery and decider: nobody is let in but by enough frames that
    /// show that very person alive. How many were.
    pub fn sequence(&self, bytes: &[u8]) -> usize {
        self.0.play(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_messages_breaks_no_promise() {
        let folder = tempfile::tempdir().unwrap();
        let mut ear = Ear::new(folder.path());
        let now = NOW.unix_seconds();
        let command = format!(
            r#"{{"device":"gate","verb":"lockdown","issued_at":{now},"expires_at":{},"nonce":"n1","args":{{"doors":["front"]}}}}"#,
            now + 60
        );
        let passage =
            format!(r#"{{"iss":"front","aud":"gate","iat":{now},"exp":{},"jti":"p1","grant":"g1","passed":true}}"#, now + 60);
        let seeds: [&[u8]; 7] = [
            command.as_bytes(),
            passage.as_bytes(),
            b"ping",
            b"online",
            br#"{"kind":"card","number":"card-004217"}"#,
            br#"{"kind":"pin","person":"person-a"}"#,
            br#"{"gallery":{"claim":"eyJhbGciOiJFZERTQSJ9.e30.AA"}}"#,
        ];
        walk("messages", &seeds, 3_000, |bytes| ear.messages(bytes));
    }

    #[test]
    fn a_seeded_walk_over_control_requests_breaks_no_promise() {
        let (_, model, dimension) = gallery::fuzzing::peopled();
        let questions = control::questions(&model, dimension);
        let seeds: Vec<&[u8]> = questions.iter().map(Vec::as_slice).collect();
        walk("request", &seeds, 3_000, request);
    }

    #[test]
    fn a_seeded_walk_over_sequences_of_faces_breaks_no_promise() {
        let folder = tempfile::tempdir().unwrap();
        let scenes = Scenes::new(folder.path());
        // One person who stays, alive, at each kind of door, and turns the head to either side; and drawn ones.
        let mut random = fastrand::Rng::with_seed(7);
        let stretch = |yaw: u8| [0, 1, 0, 1, yaw, 1, 7, 1, 1];
        let frames = |yaw: u8| stretch(yaw).into_iter().chain([1; 32]);
        let stays = |site: u8, yaw: u8| -> Vec<u8> {
            let first = [7, site, 59, 0, 0, 0].into_iter().chain(stretch(0));
            first.chain(frames(0)).chain(frames(yaw)).chain(frames(0)).chain(frames(yaw)).chain(frames(0)).collect()
        };
        let mut drawn: Vec<Vec<u8>> = (0..4).flat_map(|site| [0, 3, 4].map(|yaw| stays(site, yaw))).collect();
        drawn.extend((0..8).map(|_| (0..400).map(|_| random.u8(..)).collect()));
        let seeds: Vec<&[u8]> = drawn.iter().map(Vec::as_slice).collect();
        let mut granted = 0;
        walk("sequences", &seeds, 400, |bytes| granted += scenes.sequence(bytes));
        assert!(granted > 20, "the sequences say little: {granted} grants");
    }
}
