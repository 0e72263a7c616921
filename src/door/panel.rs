//! The access panel that a door's controller answers to as an OSDP reader: the settings, the card that a person is for it, and what it
//! says. How bytes reach it is in [`super::osdp`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::PersonId;

/// The `[controller.osdp]` table: the controller as an OSDP v2 reader of an access panel. The secure channel is always enforced, and
/// the default key always refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OsdpSettings {
    /// The serial device of the line to the panel. Without one there is no panel.
    pub line: Option<PathBuf>,
    /// The line's speed: 9600, 19200, 38400, 57600, 115200 or 230400.
    pub baud: u32,
    /// The reader's address on the line. 0 to 126.
    pub address: u32,
    /// The secret with the secure channel's key (SCBK): 32 hexadecimal digits.
    pub key_secret: String,
    /// How a person's number becomes a card: `wiegand26` (H10301), `wiegand37` (H10304) or `raw`.
    pub format: CardFormat,
    /// How many bits a `raw` card has. 8 to 64.
    pub raw_bits: u32,
    /// Within how many milliseconds the panel must have asked for the card; it is not presented later. 200 to 5000.
    pub present_within_ms: u32,
    /// How long the panel's verdict is waited for, in milliseconds: its green or red light, or its output. 500 to 10000.
    pub verdict_within_ms: u32,
    /// Whether a lock of our own opens by the panel's verdict on a grant, and not by the grant alone.
    pub verdict_opens: bool,
    /// The people's numbers. Somebody without one is not presented.
    pub people: Vec<CardSettings>,
}

/// One person's number at the panel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CardSettings {
    /// Who.
    pub person: PersonId,
    /// The facility code, for formats that have one.
    #[serde(default)]
    pub facility: u32,
    /// The number.
    pub number: CardNumber,
}

/// A card's number. It opens doors, so it is in no log, no error and no event.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardNumber(pub u64);

impl std::fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CardNumber(…)")
    }
}

/// How a number becomes bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardFormat {
    /// H10301: 8 bits of facility, 16 of number, two of parity.
    Wiegand26,
    /// H10304: 16 bits of facility, 19 of number, two of parity.
    Wiegand37,
    /// The number alone in `raw-bits` bits, the most significant first.
    Raw,
}

/// What the panel reads of a card: its bits, the first in the highest bit of the first byte. Not to be told.
#[derive(Clone, PartialEq, Eq)]
pub struct Card {
    /// The bits, eight a byte; the last byte's rest is zero.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub bits: usize,
    /// Whether they are a Wiegand format with its parities.
    pub is_wiegand: bool,
}

/// A light of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// No light.
    Off,
    /// The usual sign of a denial.
    Red,
    /// The usual sign of a grant.
    Green,
    /// Anything else.
    Other,
}

/// What the panel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The secure channel stands, or no more.
    Secure(bool),
    /// The reader's light.
    Light(Colour),
    /// The reader's output.
    Output(bool),
    /// The reader's buzzer sounds.
    Buzzer,
    /// The reader's display: printable ASCII.
    Text(String),
    /// A card could not be presented: the secure channel does not stand, or the panel did not ask in time.
    NotPresented,
}

/// What the panel thinks of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It lets the person in.
    Granted,
    /// It does not.
    Denied,
    /// It said nothing in time, or could not be asked.
    Silent,
}

impl Colour {
    /// For events.
    pub fn as_str(self) -> &'static str {
        match self {
            Colour::Off => "off",
            Colour::Red => "red",
            Colour::Green => "green",
            Colour::Other => "other",
        }
    }
}

impl Verdict {
    /// For events.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Granted => "granted",
            Verdict::Denied => "denied",
            Verdict::Silent => "silent",
        }
    }
}

impl Word {
    /// What it says of the card that waits, if anything.
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Word::Light(Colour::Green) | Word::Output(true) => Some(Verdict::Granted),
            Word::Light(Colour::Red) => Some(Verdict::Denied),
            Word::NotPresented => Some(Verdict::Silent),
            _ => None,
        }
    }
}

/// A panel at the other end of a line. Neither call waits.
pub trait Panel: Send {
    /// Presents a card, unless the panel does not take it within the time of the settings; then it says [`Word::NotPresented`].
    fn present(&mut self, card: Card);
    /// The next thing that the panel said.
    fn next(&mut self) -> Option<Word>;
}

impl Default for OsdpSettings {
    fn default() -> Self {
        Self {
            line: None,
            baud: 9600,
            address: 0,
            key_secret: "osdp-key".into(),
            format: CardFormat::Wiegand26,
            raw_bits: 32,
            present_within_ms: 1_000,
            verdict_within_ms: 3_000,
            verdict_opens: false,
            people: Vec::new(),
        }
    }
}

impl OsdpSettings {
    /// The person's card, if the settings have a number for them.
    pub fn card(&self, person: &PersonId) -> Option<Card> {
        let card = self.people.iter().find(|card| card.person == *person)?;
        encode(self.format, self.raw_bits, card.facility, card.number.0)
    }

    pub(super) fn verdict_within(&self) -> Duration {
        Duration::from_millis(u64::from(self.verdict_within_ms))
    }

    /// As [`super::Settings::findings`], below `osdp`.
    pub(super) fn findings(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let Some(line) = &self.line else {
            if self.verdict_opens {
                findings.push(("osdp.verdict-opens".into(), "there is no line to a panel whose verdict could open".into()));
            }
            return findings;
        };
        let mut find = |key: &str, what: String| findings.push((format!("osdp.{key}"), what));
        if !line.is_absolute() {
            find("line", "must be an absolute path".into());
        }
        if ![9_600, 19_200, 38_400, 57_600, 115_200, 230_400].contains(&self.baud) {
            find("baud", format!("{} is none of 9600, 19200, 38400, 57600, 115200, 230400", self.baud));
        }
        let ranges = [
            ("address", self.address, 0, 126),
            ("raw-bits", self.raw_bits, 8, 64),
            ("present-within-ms", self.present_within_ms, 200, 5_000),
            ("verdict-within-ms", self.verdict_within_ms, 500, 10_000),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                find(key, format!("{value} is outside {low} to {high}"));
            }
        }
        for (index, card) in self.people.iter().enumerate() {
            let known = &self.people[..index];
            if known.iter().any(|other| other.person == card.person) {
                find("people", format!("`{}` has two numbers", card.person));
            }
            if known.iter().any(|other| (other.facility, other.number) == (card.facility, card.number)) {
                find("people", format!("the number of `{}` is somebody else's too", card.person));
            }
            if encode(self.format, self.raw_bits, card.facility, card.number.0).is_none() {
                find("people", format!("facility or number of `{}` does not fit into the format", card.person));
            }
        }
        findings
    }
}

fn encode(format: CardFormat, raw_bits: u32, facility: u32, number: u64) -> Option<Card> {
    let fits = |value: u64, bits: u32| bits >= 64 || value >> bits == 0;
    let wiegand = |facility_bits: u32, number_bits: u32, half: u32| {
        if !fits(u64::from(facility), facility_bits) || !fits(number, number_bits) {
            return None;
        }
        let data = u64::from(facility) << number_bits | number;
        let count = facility_bits + number_bits;
        // Even over the first half, odd over the last; with an odd count they share the bit in the middle.
        let even = u64::from((data >> (count - half)).count_ones() % 2);
        let odd = u64::from((data & ((1 << half) - 1)).count_ones().is_multiple_of(2));
        Some((even << (count + 1) | data << 1 | odd, count + 2))
    };
    let (value, bits) = match format {
        CardFormat::Wiegand26 => wiegand(8, 16, 12)?,
        CardFormat::Wiegand37 => wiegand(16, 19, 18)?,
        CardFormat::Raw if facility == 0 && fits(number, raw_bits) && (1..=64).contains(&raw_bits) => (number, raw_bits),
        CardFormat::Raw => return None,
    };
    let bits = usize::try_from(bits).ok()?;
    let bytes = (value << (64 - bits)).to_be_bytes()[..bits.div_ceil(8)].to_vec();
    Some(Card { bytes, bits, is_wiegand: format != CardFormat::Raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(card: &Card) -> String {
        card.bytes.iter().map(|byte| format!("{byte:08b}")).collect::<String>()[..card.bits].to_owned()
    }

    #[test]
    fn a_number_that_does_not_fit_is_no_card() {
        for (format, facility, number) in [
            (CardFormat::Wiegand26, 256, 1),
            (CardFormat::Wiegand26, 1, 65_536),
            (CardFormat::Wiegand37, 65_536, 1),
            (CardFormat::Wiegand37, 1, 524_288),
            (CardFormat::Raw, 1, 1),
            (CardFormat::Raw, 0, 1 << 32),
        ] {
            assert!(encode(format, 32, facility, number).is_none(), "{format:?} {facility} {number}");
        }
    }

    /// Worked out by hand from the formats' descriptions.
    #[test]
    fn a_card_has_its_formats_bits_and_parities() {
        assert_eq!(bits(&encode(CardFormat::Wiegand26, 0, 118, 1603).unwrap()), "10111011000000110010000110");
        assert_eq!(bits(&encode(CardFormat::Wiegand37, 0, 1, 1).unwrap()), "1000000000000000100000000000000000010");
        assert_eq!(bits(&encode(CardFormat::Raw, 12, 0, 0xABC).unwrap()), "101010111100");
        assert_eq!(encode(CardFormat::Raw, 64, 0, u64::MAX).unwrap().bytes, [0xFF; 8]);
    }

    #[test]
    fn numbers_are_not_told_and_wrong_settings_are_found() {
        let card =
            |person: &str, number| CardSettings { person: PersonId::new(person).unwrap(), facility: 1, number: CardNumber(number) };
        let people = vec![card("ada", 4217), card("bob", 4217), card("ada", 70_000)];
        let settings = OsdpSettings { line: Some("ttyS0".into()), baud: 1200, address: 127, people, ..OsdpSettings::default() };
        assert!(!format!("{settings:?}").contains("4217"));
        let keys: Vec<String> = settings.findings().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["osdp.line", "osdp.baud", "osdp.address", "osdp.people", "osdp.people", "osdp.people"]);
        assert_eq!(OsdpSettings::default().findings(), []);
    }
}
