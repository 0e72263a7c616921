//! The bytes of a gallery, before they are sealed and after they are opened: encode and decode, with no I/O, no key and no clock.
//! Everything read is bounded before anything is allocated, and there is one way only to write each value, so that whatever decodes
//! encodes to the same bytes again. `FORMAT.md` has the tables.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::types::{GroupId, ModelId, Person, PersonId, Wall};

/// What every file that is written begins with; the last byte is the version.
pub const MAGIC: [u8; 16] = *b"faceid-gallery/2";
/// How many of [`MAGIC`]'s bytes are the same in every version.
pub const FAMILY_BYTES: usize = 15;
/// The header's plain fields.
pub const FIELDS_BYTES: usize = 128;
/// The header's plain fields in version 1.
pub const FIELDS_BYTES_1: usize = 104;
/// A gallery's own id, which its files share.
pub const ID_BYTES: usize = 16;
/// Room for the model id, padded with zeros.
const MODEL_BYTES: usize = 64;
/// Zeros behind the model id.
const PADDING_BYTES: usize = 3;
/// The most numbers in a template.
pub const MAX_DIMENSION: usize = 4096;
/// The most people in a gallery.
pub const MAX_PEOPLE: usize = 1_000_000;
/// The most templates in a gallery.
pub const MAX_TEMPLATES: usize = 4_000_000;
/// The most templates of one person that the format takes; the settings ask for fewer.
pub const MAX_TEMPLATES_PER_PERSON: usize = 1024;
/// The longest name of a person, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 256;
/// The most groups of one person.
pub const MAX_GROUPS: usize = 64;
/// A record takes no further person once it is this long.
pub const RECORD_TARGET_BYTES: usize = 65_536;
/// The longest record: the target and the largest person fit.
pub const MAX_RECORD_BYTES: usize = 33_554_432;
/// How far a template's length may lie from one: templates are unit vectors, rounded to `f32`.
const NORM_TOLERANCE: f32 = 1e-3;

pub(crate) const HAS_NAME: u8 = 1;
pub(crate) const HAS_CONSENT: u8 = 2;
pub(crate) const HAS_EXPIRY: u8 = 4;

/// Why bytes are no gallery of this version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// A gallery of a version that this program does not know.
    #[error("version `{found}` is not known")]
    UnknownVersion {
        /// The version's byte, printable.
        found: String,
    },
    /// Anything else.
    #[error("{reason} at byte {offset}")]
    Malformed {
        /// Counted from the first of the bytes given.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}

/// Which layout a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One file without a journal; read, no longer written.
    First,
    /// A file, its journal and the epoch's second place.
    Second,
}

/// The header's plain fields: readable without the key, believed only once authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The layout.
    pub version: Version,
    /// Which gallery this is; zeros in version 1.
    pub id: [u8; ID_BYTES],
    /// Grows by one with every file that is written, and so does the data key.
    pub generation: u64,
    /// The number of the last change in this file; in version 1 the generation.
    pub epoch: u64,
    /// Numbers in a template, 1 to [`MAX_DIMENSION`].
    pub dimension: usize,
    /// How many people the records hold.
    pub people: usize,
    /// How many templates the records hold.
    pub templates: usize,
    /// Whose templates they are.
    pub model: ModelId,
}

/// One person with templates. No `Debug`: it is biometric data.
pub struct Entry {
    /// What is known besides templates.
    pub person: Person,
    /// The templates one after another, each as many numbers as the gallery's dimension.
    pub values: Zeroizing<Vec<f32>>,
}

/// Tells a gallery of a version that is known from one of another and from anything else.
pub fn check_magic(bytes: &[u8]) -> Result<Version, FormatError> {
    let (Some(family), Some(&version)) = (bytes.get(..FAMILY_BYTES), bytes.get(FAMILY_BYTES)) else {
        return Err(FormatError::Malformed { offset: bytes.len(), reason: "the file ends inside its first line" });
    };
    if family != &MAGIC[..FAMILY_BYTES] {
        return Err(FormatError::Malformed { offset: 0, reason: "this is not a gallery file" });
    }
    match version {
        b'1' => Ok(Version::First),
        b'2' => Ok(Version::Second),
        _ => Err(FormatError::UnknownVersion { found: version.escape_ascii().to_string() }),
    }
}

impl Version {
    /// How long the fields are.
    pub fn fields_bytes(self) -> usize {
        match self {
            Version::First => FIELDS_BYTES_1,
            Version::Second => FIELDS_BYTES,
        }
    }

    /// The version's number.
    pub fn number(self) -> u8 {
        match self {
            Version::First => 1,
            Version::Second => 2,
        }
    }
}

impl Fields {
    /// The fields as bytes, in the layout of their version.
    ///
    /// # Panics
    /// When a count is beyond its bound: the callers are ours and checked it.
    pub fn encode(&self) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).expect("counts are bounded far below 2^32").to_le_bytes();
        let model = self.model.as_str().as_bytes();
        let mut out = Vec::with_capacity(FIELDS_BYTES);
        out.extend_from_slice(&MAGIC[..FAMILY_BYTES]);
        out.push(b'0' + self.version.number());
        out.extend_from_slice(&self.generation.to_le_bytes());
        if self.version == Version::Second {
            out.extend_from_slice(&self.epoch.to_le_bytes());
        }
        [self.dimension, self.people, self.templates].into_iter().for_each(|n| out.extend_from_slice(&number(n)));
        out.push(u8::try_from(model.len()).expect("ids are at most 64 bytes"));
        out.extend_from_slice(model);
        out.resize(out.len() + MODEL_BYTES - model.len() + PADDING_BYTES, 0);
        if self.version == Version::Second {
            out.extend_from_slice(&self.id);
        }
        out
    }

    /// Reads what [`Fields::encode`] wrote; bytes after the fields are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let version = check_magic(bytes)?;
        let Some(bytes) = bytes.get(..version.fields_bytes()) else {
            return Err(FormatError::Malformed { offset: bytes.len(), reason: "the file ends inside its header" });
        };
        let mut input = Input { bytes, at: MAGIC.len() };
        let generation = u64::from_le_bytes(input.array()?);
        let epoch = if version == Version::Second { u64::from_le_bytes(input.array()?) } else { generation };
        let dimension = input.bounded(1..=MAX_DIMENSION, "a dimension outside 1 to 4,096")?;
        let people = input.bounded(0..=MAX_PEOPLE, "more people than a gallery may hold")?;
        let templates = input.bounded(0..=MAX_TEMPLATES, "more templates than a gallery may hold")?;
        let [length] = input.array()?;
        let room = input.take(MODEL_BYTES + PADDING_BYTES)?;
        let (text, padding) = room.split_at_checked(usize::from(length)).ok_or(input.wrong("a model id too long"))?;
        if usize::from(length) > MODEL_BYTES || padding.iter().any(|&b| b != 0) {
            return Err(input.wrong("bytes that must be zero are not"));
        }
        let text = std::str::from_utf8(text).map_err(|_| input.wrong("a model id that is no text"))?;
        let model = ModelId::new(text).map_err(|_| input.wrong("a model id that is none"))?;
        let id = if version == Version::Second { input.array()? } else { [0; ID_BYTES] };
        Ok(Self { version, id, generation, epoch, dimension, people, templates, model })
    }
}

/// One thing that a journal's record does. No `Debug`: it is biometric data.
pub enum Operation {
    /// The person's record is replaced or made, and these templates are added behind the person's own.
    Put(Entry),
    /// The person goes, with every template.
    Remove(PersonId),
}

const PUT: u8 = 1;
const REMOVE: u8 = 2;

impl Operation {
    /// Whom it is about.
    pub fn person(&self) -> &PersonId {
        match self {
            Operation::Put(entry) => &entry.person.id,
            Operation::Remove(id) => id,
        }
    }
}

/// How many bytes [`encode_put`] adds.
pub fn put_bytes(person: &Person, templates: usize, dimension: usize) -> usize {
    1 + entry_bytes(person, templates, dimension)
}

/// Appends one [`Operation::Put`]; as for [`encode_entry`] the caller reserved the room.
pub fn encode_put(out: &mut Vec<u8>, person: &Person, templates: usize, values: impl Iterator<Item = f32>) {
    out.push(PUT);
    encode_entry(out, person, templates, values);
}

/// How many bytes [`encode_remove`] adds.
pub fn remove_bytes(person: &PersonId) -> usize {
    2 + person.as_str().len()
}

/// Appends one [`Operation::Remove`].
pub fn encode_remove(out: &mut Vec<u8>, person: &PersonId) {
    let id = person.as_str().as_bytes();
    out.extend_from_slice(&[REMOVE, u8::try_from(id.len()).expect("ids are at most 64 bytes")]);
    out.extend_from_slice(id);
}

/// Reads one opened record of a journal: operations in strictly rising order of the people's ids, at least one.
pub fn decode_operations(plain: &[u8], dimension: usize) -> Result<Vec<Operation>, FormatError> {
    if plain.is_empty() || plain.len() > MAX_RECORD_BYTES || !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(FormatError::Malformed { offset: 0, reason: "a record or a dimension out of bounds" });
    }
    let mut input = Input { bytes: plain, at: 0 };
    let mut operations: Vec<Operation> = Vec::new();
    while input.at < plain.len() {
        let operation = match input.array()? {
            [PUT] => Operation::Put(decode_entry(&mut input, dimension)?),
            [REMOVE] => {
                let id = input.short_text()?;
                Operation::Remove(PersonId::new(id).map_err(|_| input.wrong("a person id that is none"))?)
            }
            _ => return Err(input.wrong("an operation that is not known")),
        };
        if operations.last().is_some_and(|before| before.person() >= operation.person()) {
            return Err(input.wrong("people out of order"));
        }
        operations.push(operation);
    }
    Ok(operations)
}

/// What keeps `person` out of the format, or `None`.
pub fn refusal(person: &Person) -> Option<&'static str> {
    let bad_name = |name: &String| name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control);
    if person.name.as_ref().is_some_and(bad_name) {
        return Some("a name has 1 to 256 bytes and no control characters");
    }
    (person.groups.len() > MAX_GROUPS).then_some("a person is in at most 64 groups")
}

/// How many bytes [`encode_entry`] adds.
pub fn entry_bytes(person: &Person, templates: usize, dimension: usize) -> usize {
    let name = person.name.as_ref().map_or(0, |n| 2 + n.len());
    let groups: usize = person.groups.iter().map(|g| 1 + g.as_str().len()).sum();
    let times = 8 * (1 + usize::from(person.consented_at.is_some()) + usize::from(person.expires_at.is_some()));
    1 + person.id.as_str().len() + 1 + name + 1 + groups + times + 2 + 4 * templates * dimension
}

/// Appends one person with `templates` templates, whose numbers are `values` one after another. The caller reserved
/// [`entry_bytes`], so that no copy of a template is left behind by a growing vector.
///
/// # Panics
/// When the person breaks a rule of [`refusal`] or there are too many templates: the callers are ours and checked it.
pub fn encode_entry(out: &mut Vec<u8>, person: &Person, templates: usize, values: impl Iterator<Item = f32>) {
    let small = |n: usize| u8::try_from(n).expect("ids and groups are bounded below 256");
    let medium = |n: usize| u16::try_from(n).expect("names and templates are bounded below 2^16").to_le_bytes();
    let id = person.id.as_str().as_bytes();
    out.push(small(id.len()));
    out.extend_from_slice(id);
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    out.push(
        flag(person.name.is_some(), HAS_NAME)
            | flag(person.consented_at.is_some(), HAS_CONSENT)
            | flag(person.expires_at.is_some(), HAS_EXPIRY),
    );
    if let Some(name) = &person.name {
        out.extend_from_slice(&medium(name.len()));
        out.extend_from_slice(name.as_bytes());
    }
    out.push(small(person.groups.len()));
    for group in &person.groups {
        out.push(small(group.as_str().len()));
        out.extend_from_slice(group.as_str().as_bytes());
    }
    out.extend_from_slice(&person.enrolled_at.0.to_le_bytes());
    for time in [person.consented_at, person.expires_at].into_iter().flatten() {
        out.extend_from_slice(&time.0.to_le_bytes());
    }
    out.extend_from_slice(&medium(templates));
    values.for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

/// Reads one opened record: people in strictly rising order of their ids.
pub fn decode_record(plain: &[u8], dimension: usize) -> Result<Vec<Entry>, FormatError> {
    if plain.len() > MAX_RECORD_BYTES || !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(FormatError::Malformed { offset: 0, reason: "a record or a dimension too large" });
    }
    let mut input = Input { bytes: plain, at: 0 };
    let mut entries: Vec<Entry> = Vec::new();
    while input.at < plain.len() {
        let entry = decode_entry(&mut input, dimension)?;
        if entries.last().is_some_and(|before| before.person.id >= entry.person.id) {
            return Err(input.wrong("people out of order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_entry(input: &mut Input, dimension: usize) -> Result<Entry, FormatError> {
    let id = PersonId::new(input.short_text()?).map_err(|_| input.wrong("a person id that is none"))?;
    let [flags] = input.array()?;
    if flags & !(HAS_NAME | HAS_CONSENT | HAS_EXPIRY) != 0 {
        return Err(input.wrong("flags that are not known"));
    }
    let mut name = None;
    if flags & HAS_NAME != 0 {
        let length = usize::from(u16::from_le_bytes(input.array()?));
        name = Some(input.text(length)?.to_owned());
    }
    let [count] = input.array()?;
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(GroupId::new(input.short_text()?).map_err(|_| input.wrong("a group id that is none"))?);
    }
    let enrolled_at = input.time()?;
    let consented_at = if flags & HAS_CONSENT != 0 { Some(input.time()?) } else { None };
    let expires_at = if flags & HAS_EXPIRY != 0 { Some(input.time()?) } else { None };
    let person = Person { id, name, groups, consented_at, expires_at, enrolled_at };
    if refusal(&person).is_some() {
        return Err(input.wrong("a name or groups beyond their bounds"));
    }
    let templates = usize::from(u16::from_le_bytes(input.array()?));
    if templates > MAX_TEMPLATES_PER_PERSON {
        return Err(input.wrong("more templates than a person may have"));
    }
    // Taken before anything is allocated, so that a length alone can ask for no memory.
    let bytes = input.take(4 * templates * dimension)?;
    let mut values = Zeroizing::new(Vec::with_capacity(templates * dimension));
    values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    for template in values.chunks_exact(dimension) {
        let norm = template.iter().map(|v| v * v).sum::<f32>().sqrt();
        // A range, so that NaN is refused too.
        if !(1.0 - NORM_TOLERANCE..=1.0 + NORM_TOLERANCE).contains(&norm) {
            return Err(input.wrong("a template that is no unit vector"));
        }
    }
    Ok(Entry { person, values })
}

/// Bytes and how far they were read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn wrong(&self, reason: &'static str) -> FormatError {
        FormatError::Malformed { offset: self.at, reason }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let taken = self.bytes[self.at..].get(..length).ok_or(self.wrong("the bytes end too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn bounded(&mut self, range: std::ops::RangeInclusive<usize>, reason: &'static str) -> Result<usize, FormatError> {
        let number = u32::from_le_bytes(self.array()?) as usize;
        if range.contains(&number) { Ok(number) } else { Err(self.wrong(reason)) }
    }

    fn time(&mut self) -> Result<Wall, FormatError> {
        Ok(Wall(i64::from_le_bytes(self.array()?)))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, FormatError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("a text that is no UTF-8"))
    }

    fn short_text(&mut self) -> Result<&'a str, FormatError> {
        let [length] = self.array()?;
        self.text(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn person(id: &str) -> Person {
        Person {
            id: PersonId::new(id).unwrap(),
            name: None,
            groups: vec![],
            consented_at: None,
            expires_at: None,
            enrolled_at: Wall(1_700_000_000_000),
        }
    }

    fn fields() -> Fields {
        Fields {
            version: Version::Second,
            id: [9; ID_BYTES],
            generation: 7,
            epoch: 12,
            dimension: 4,
            people: 2,
            templates: 3,
            model: ModelId::new("drawn-4").unwrap(),
        }
    }

    fn encoded(entries: &[(Person, Vec<f32>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (person, values) in entries {
            let before = out.len();
            encode_entry(&mut out, person, values.len() / 4, values.iter().copied());
            assert_eq!(out.len() - before, entry_bytes(person, values.len() / 4, 4));
        }
        out
    }

    fn sample() -> Vec<u8> {
        let full = Person {
            name: Some("Zoë".to_owned()),
            groups: vec![GroupId::new("staff").unwrap(), GroupId::new("night").unwrap()],
            consented_at: Some(Wall(1)),
            expires_at: Some(Wall(-1)),
            ..person("b")
        };
        encoded(&[(person("a"), vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), (full, vec![0.5, 0.5, 0.5, 0.5])])
    }

    fn again(entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in entries {
            encode_entry(&mut out, &entry.person, entry.values.len() / 4, entry.values.iter().copied());
        }
        out
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let good = fields().encode();
        for length in 0..FIELDS_BYTES {
            assert!(Fields::decode(&good[..length]).is_err(), "{length} bytes were taken");
        }
        for (at, value) in [(0, b'F'), (32, 0), (39, 1), (43, 1), (44, 0), (44, 65), (44, 255), (45, b'/'), (111, 1), (52, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            if at == 32 {
                bad[33..36].fill(0);
            }
            assert!(Fields::decode(&bad).is_err(), "byte {at} as {value} was taken");
        }
        let mut newer = good;
        newer[15] = b'3';
        assert_eq!(Fields::decode(&newer), Err(FormatError::UnknownVersion { found: "3".to_owned() }));
    }

    #[test]
    fn records_that_are_none_are_refused() {
        let good = sample();
        for length in 1..good.len() {
            let cut = decode_record(&good[..length], 4);
            // A cut between two people is no fault of a record by itself; the count in the header catches it.
            assert!(cut.is_err() || cut.is_ok_and(|e| e.len() == 1 && length < good.len()), "{length}");
        }
        let unit = || vec![1.0, 0.0, 0.0, 0.0];
        for bad in [
            encoded(&[(person("a"), vec![2.0, 0.0, 0.0, 0.0])]),
            encoded(&[(person("a"), vec![f32::NAN, 0.0, 0.0, 0.0])]),
            encoded(&[(person("a"), vec![0.0; 4])]),
            encoded(&[(person("b"), unit()), (person("a"), unit())]),
            encoded(&[(person("a"), unit()), (person("a"), unit())]),
        ] {
            assert!(decode_record(&bad, 4).is_err());
        }
        assert!(decode_record(&good, 0).is_err());
        assert!(decode_record(&good, usize::MAX).is_err());
    }

    #[test]
    fn names_and_groups_beyond_their_bounds_are_refused() {
        for name in [String::new(), "x".repeat(257), "a\nb".to_owned()] {
            assert!(refusal(&Person { name: Some(name), ..person("a") }).is_some());
        }
        let groups = (0..65).map(|n| GroupId::new(format!("g{n}")).unwrap()).collect();
        assert!(refusal(&Person { groups, ..person("a") }).is_some());
    }

    #[test]
    fn what_was_written_is_read() {
        let first = Fields { version: Version::First, id: [0; ID_BYTES], epoch: 7, ..fields() };
        for fields in [fields(), first] {
            assert_eq!(fields.encode().len(), fields.version.fields_bytes());
            assert_eq!(Fields::decode(&fields.encode()), Ok(fields));
        }
        let bytes = sample();
        let entries = decode_record(&bytes, 4).ok().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].person.name.as_deref(), Some("Zoë"));
        assert_eq!(entries[1].person.expires_at, Some(Wall(-1)));
        assert_eq!(again(&entries), bytes);
        assert!(decode_record(&[], 4).is_ok_and(|e| e.is_empty()));
    }

    fn operations() -> Vec<u8> {
        let mut out = Vec::new();
        encode_put(&mut out, &person("a"), 1, [0.0, 1.0, 0.0, 0.0].into_iter());
        assert_eq!(out.len(), put_bytes(&person("a"), 1, 4));
        encode_remove(&mut out, &PersonId::new("b").unwrap());
        assert_eq!(out.len(), put_bytes(&person("a"), 1, 4) + remove_bytes(&PersonId::new("b").unwrap()));
        encode_put(&mut out, &person("c"), 0, [].into_iter());
        out
    }

    fn operations_again(operations: &[Operation]) -> Vec<u8> {
        let mut out = Vec::new();
        for operation in operations {
            match operation {
                Operation::Put(Entry { person, values }) => {
                    encode_put(&mut out, person, values.len() / 4, values.iter().copied());
                }
                Operation::Remove(id) => encode_remove(&mut out, id),
            }
        }
        out
    }

    #[test]
    fn operations_that_are_none_are_refused_and_others_come_back() {
        let good = operations();
        assert_eq!(operations_again(&decode_operations(&good, 4).ok().unwrap()), good);
        let mut unknown = good.clone();
        unknown[0] = 3;
        let mut unordered = good.clone();
        encode_remove(&mut unordered, &PersonId::new("c").unwrap());
        for bad in [&[][..], &unknown, &unordered, &good[1..], &[REMOVE, 0], &[REMOVE, 1, b'/']] {
            assert!(decode_operations(bad, 4).is_err());
        }
        assert!(decode_operations(&good, 0).is_err());
    }

    /// The fuzz target's promise, kept in every test run: no panic, and one way only to write a value.
    #[test]
    fn mutated_bytes_never_panic_and_decode_to_what_encodes_the_same() {
        for seed in 0..20_000u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = sample();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] ^= 1 << random.u8(..8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, random.u8(..)),
                }
            }
            if let Ok(entries) = decode_record(&bytes, 4) {
                assert!(again(&entries) == bytes, "seed {seed}");
            }
            let mut bytes = operations();
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
            if let Ok(operations) = decode_operations(&bytes, 4) {
                assert!(operations_again(&operations) == bytes, "seed {seed}");
            }
            let mut header = fields().encode();
            header[random.usize(..FIELDS_BYTES)] = random.u8(..);
            if let Ok(fields) = Fields::decode(&header) {
                assert_eq!(fields.encode()[..], header[..fields.version.fields_bytes()], "seed {seed}");
            }
        }
    }
}
