//! What the fuzz targets `sealed` and `packets` feed (`tests/fuzz`), and what a seeded walk feeds in every test run: the packets of a
//! broker, and records of the outbox and of the audit trail as they are once they have been opened. Of these, only what was sealed under
//! the device's key comes so far: whoever has stolen it, or a version that wrote something else. Each function takes any bytes at all and
//! panics when a promise is broken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Event, MqttState};
use serde_json::json;

use super::audit::{self, Audit};
use super::journal::{self, Journal};
use super::outbox::{Outbox, Ticket};
use super::payload::{Context, Models};
use super::sealed::{self, Limits, Location, SealedLog, StateKey};
use super::{subscribe, wire};
use crate::types::{DeviceId, Moment, Wall};

const NOW: Wall = Wall(1_700_000_000_000);
const MAX_BYTES: u64 = 1 << 20;
const AN_HOUR: Duration = Duration::from_secs(3600);

/// A state folder with an outbox and an audit trail, written anew for each input.
pub struct Shelf {
    folder: PathBuf,
    key: StateKey,
    /// The texts of a sound trail, a line each.
    trail: Vec<u8>,
    /// The records of a sound outbox, each with its length before it.
    outbox: Vec<u8>,
}

impl Shelf {
    /// In an empty folder of its own.
    pub fn new(folder: &Path) -> Self {
        let key = StateKey::generate().expect("the system has randomness");
        let sound = folder.join("sound");
        let trail = Audit::open(&sound, &key, MAX_BYTES).expect("the folder is sound");
        for n in 0..3 {
            trail.append("decision", json!({ "n": n, "outcome": "denied" }), NOW);
        }
        let mut lines = Vec::new();
        let read = audit::verify(&sound, &key, |_, text| lines.push(text.to_owned()));
        assert_eq!(read.expect("it was just written").head, trail.head());
        let outbox = framed(&journal::sound_records());
        Self { folder: folder.join("fed"), key, trail: lines.join("\n").into_bytes(), outbox }
    }

    /// Records of the outbox: what waits is handed out once, in order and as history, and what was confirmed stays so.
    pub fn outbox(&self, bytes: &[u8]) {
        let bytes = edited(&self.outbox, bytes);
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first() {
            let (record, behind) = behind.split_at(usize::from(*length).min(behind.len()));
            records.push(record);
            rest = behind;
        }
        self.write(journal::PURPOSE, &records);
        let journal = self.journal();
        let next = journal.next_sequence();
        let device = DeviceId::new("gate").expect("a plain name");
        let context = Context { device, boot_id: uuid::Uuid::nil(), first_sequence: 1, models: Models::new(), person_names: false };
        let mut outbox = Outbox::durable(4, context, journal);
        let mut last = None;
        while let Some((ticket, message)) = outbox.next(Moment { wall: NOW, ..Moment::default() }) {
            let Ticket::Decision(sequence) = ticket else { panic!("handed out {ticket:?}") };
            assert!(last < Some(sequence) && sequence < next, "{sequence} after {last:?}, before {next}");
            assert!(!message.retained && message.confirmed && message.expiry_s.is_none());
            last = Some(sequence);
            outbox.confirmed(&ticket);
        }
        let (mut from, mut copies) = (0, Vec::new());
        loop {
            let (some, more) = outbox.replay(from, 3);
            assert!(some.len() <= 3);
            copies.extend(some);
            let Some(more) = more else { break };
            assert!(more > from);
            from = more;
        }
        assert!(copies.len() <= records.len());
        drop(outbox);
        let mut again = self.journal();
        assert!(again.take_unconfirmed().is_empty() && again.next_sequence() == next, "a confirmation or a number was forgotten");
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.folder, &self.key, MAX_BYTES, AN_HOUR).expect("the segment's seals are sound")
    }

    /// Entries of the audit trail: what is shown follows without a gap, and whether it is sound does not change when it is gone on with.
    pub fn audit(&self, bytes: &[u8]) {
        let bytes = edited(&self.trail, bytes);
        let records: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        self.write(audit::PURPOSE, &records);
        let verify = |numbers: &mut Vec<u64>| audit::verify(&self.folder, &self.key, |entry, _| numbers.push(entry.n));
        let mut numbers = Vec::new();
        let before = verify(&mut numbers);
        assert!(numbers.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1])), "shown {numbers:?}");
        let trail = Audit::open(&self.folder, &self.key, MAX_BYTES).expect("the segment's seals are sound");
        let head = trail.append("start", json!({ "said": audit::outside(&String::from_utf8_lossy(&bytes)) }), NOW);
        let after = verify(&mut Vec::new());
        match before {
            Ok(report) if report.head.n < u64::MAX => assert_eq!(after.expect("it was sound").head, head),
            _ => assert!(after.is_err(), "a broken trail was mended by writing on"),
        }
    }

    /// A segment as it lies on the disk, of either version, raw bytes or sound ones with edits: nothing is shown but what was sealed, in its
    /// order from the first on, and the log goes on.
    pub fn segment(&self, bytes: &[u8]) {
        const RECORDS: [&[u8]; 3] = [b"one", b"", b"three"];
        const PURPOSE: &str = "fuzzed";
        for make in [sealed::segment, sealed::segment_of_before] {
            let file = edited(&make(&self.key, PURPOSE, 1, &RECORDS), bytes);
            let _ = std::fs::remove_dir_all(&self.folder);
            std::fs::create_dir_all(&self.folder).expect("the folder's place is ours");
            std::fs::write(sealed::path(&self.folder, 1), file).expect("the folder is ours");
            let limits = Limits { total_bytes: MAX_BYTES, segment_bytes: MAX_BYTES, max_age: AN_HOUR };
            let open = |shown: &mut Vec<(Location, Vec<u8>)>| {
                let visit = |location: Location, plain: &[u8]| shown.push((location, plain.to_vec()));
                SealedLog::open(&self.folder, self.key.share(), PURPOSE, limits, visit)
            };
            let mut shown = Vec::new();
            let Ok(mut log) = open(&mut shown) else { continue };
            assert!(shown.len() <= RECORDS.len() && shown.iter().zip(RECORDS).all(|((_, plain), record)| plain == record));
            // Read one by one, each is the same, unless the segment says that it is another one.
            assert!(
                shown.iter().all(|(location, plain)| location.segment != 1 || log.read(*location).is_ok_and(|read| read == *plain))
            );
            log.append(b"more", true).expect("the folder is ours");
            let (before, mut after) = (shown.len(), Vec::new());
            assert!(open(&mut after).is_ok() && after.len() == before + 1 && after[before].1 == b"more");
        }
    }

    fn write(&self, purpose: &str, records: &[&[u8]]) {
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir_all(&self.folder).expect("the folder's place is ours");
        let segment = sealed::segment(&self.key, purpose, 1, records);
        std::fs::write(sealed::path(&self.folder, 1), segment).expect("the folder is ours");
    }
}

/// What a broker sends, through the very reader and state that rumqttc uses: no panic, nothing is read that is longer than we take, and
/// whatever rumqttc would keep to the connection's end is seen and ends the connection.
pub fn packets(bytes: &[u8]) {
    const MOST: u32 = 4096;
    // In two parts, as a socket may bring it.
    let at = bytes.first().map_or(0, |byte| usize::from(*byte) % bytes.len());
    let (mut arrived, mut late) = (BytesMut::from(&bytes[..at]), Some(&bytes[at..]));
    let mut state = MqttState::new(8, false);
    let mut is_greeted = false;
    loop {
        let before = arrived.len();
        match Packet::read(&mut arrived, Some(MOST)) {
            Ok(packet) => {
                assert!(before - arrived.len() <= MOST as usize + 5, "a packet that is longer than we take");
                if state.handle_incoming_packet(packet).is_err() {
                    return;
                }
            }
            Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => match late.take() {
                Some(more) => arrived.extend_from_slice(more),
                None => return,
            },
            Err(_) => return,
        }
        while let Some(event) = state.events.pop_front() {
            let Event::Incoming(packet) = event else { continue };
            if wire::check(&packet, is_greeted).is_err() {
                return;
            }
            is_greeted |= matches!(packet, Packet::ConnAck(_));
            if let Packet::Publish(publish) = packet {
                assert!(publish.properties.as_ref().is_none_or(|properties| properties.topic_alias.is_none()));
                let received = subscribe::received(&publish);
                assert!(!received.topic.is_empty() && received.payload.len() <= MOST as usize);
            }
        }
    }
}

/// Records, each with its length before it.
fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let frame = |record: &Vec<u8>| [&[u8::try_from(record.len()).unwrap_or(0)], &record[..]].concat();
    records.iter().flat_map(frame).collect()
}

/// The input itself, or what is sound with some of its bytes replaced.
fn edited(sound: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((b'~', edits)) = input.split_first() else { return input.to_vec() };
    let mut bytes = sound.to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = edit[2];
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::walk::walk;

    #[test]
    fn a_seeded_walk_over_packets_breaks_no_promise() {
        let publish: &[u8] = b"\x32\x11\x00\x04gate\x00\x01\x03\x23\x00\x07hello";
        let accepted: &[u8] = b"\x20\x09\x00\x00\x06\x21\x00\x10\x13\x00\x00";
        let mut more = accepted.to_vec();
        more.extend_from_slice(b"\x30\x0e\x00\x04gate\x00payload\x90\x04\x00\x01\x00\x01\xd0\x00\x40\x02\x00\x01\xe0\x01\x8e");
        walk("packets", &[publish, accepted, &more], 60_000, packets);
    }

    #[test]
    fn a_seeded_walk_over_opened_records_breaks_no_promise() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        // The highest number there is, which nothing can follow: alone, and confirmed by another record.
        let highest = framed(&journal::highest_records());
        walk("outbox", &[&shelf.outbox, &highest, b"~", b"~\x02\x00\xff"], 600, |bytes| shelf.outbox(bytes));
        walk("segment", &[b"~", b"~\x0b\x002", b"~\x58\x00\xff", b"~\x60\x00!"], 600, |bytes| shelf.segment(bytes));
        // Numbers begin at one: an entry of no number is not passed over as if none had been read. Found by libFuzzer.
        let entry = |n: u64| format!(r#"{{"n":{n},"time":"","prev":"","kind":"stop","detail":null}}"#);
        shelf.audit([entry(0), entry(2)].join("\n").as_bytes());
        let last = entry(u64::MAX);
        let two = [last.as_bytes(), last.replace("stop", "start").as_bytes()].join(&b'\n');
        walk("audit", &[&shelf.trail, last.as_bytes(), &two, b"~", b"~\x10\x00!"], 600, |bytes| shelf.audit(bytes));
    }
}
