//! The sealed file: a header that carries the wrapped keys, then records. Files of version 1, whose records were sealed under the
//! sealing key itself, are opened too.

use zeroize::{Zeroize, Zeroizing};

use super::{
    BLOCK_BYTES, Cipher, Derived, KEY_BYTES, Keys, LENGTH_BYTES, Locked, Nonces, SealError, SealingKey, TAG_BYTES, hash, nonce,
    prefix, same,
};
use crate::gallery::format::{self, FIELDS_BYTES, FIELDS_BYTES_1, Fields, MAX_RECORD_BYTES, Version};

/// Where the salt stands.
pub(crate) const SALT_AT: usize = FIELDS_BYTES;
/// Where the wrapped keys stand: data key, rotation's secret, tag.
pub(crate) const KEYS_AT: usize = SALT_AT + BLOCK_BYTES;
/// Where the commitment to the sealing key stands.
pub(crate) const COMMITMENT_AT: usize = KEYS_AT + 2 * KEY_BYTES + TAG_BYTES;
/// Where the checksum of all before it stands.
pub(crate) const CHECKSUM_AT: usize = COMMITMENT_AT + BLOCK_BYTES;
/// Where the tag of all before it stands.
pub(crate) const HEADER_TAG_AT: usize = CHECKSUM_AT + BLOCK_BYTES;
/// The whole header.
pub(crate) const HEADER_BYTES: usize = HEADER_TAG_AT + BLOCK_BYTES;

/// What a record is bound to: the header's hash, its number, its length, the last flag.
pub(crate) const RECORD_BINDING_BYTES: usize = BLOCK_BYTES + 8 + LENGTH_BYTES + 1;

const WRAP_INFO: &[u8] = b"faceid-gallery/2 keys";
const RECORDS_INFO: &[u8] = b"faceid-gallery/2 records";
const SALT_INFO: &[u8] = b"faceid-gallery/2 salt";

/// Where the parts of a version's header stand, and what its keys are derived for.
struct Layout {
    salt_at: usize,
    commitment_at: usize,
    commitment_info: &'static [u8],
    header_info: &'static [u8],
}

impl Layout {
    fn of(version: Version) -> Self {
        match version {
            Version::First => Self {
                salt_at: FIELDS_BYTES_1,
                commitment_at: FIELDS_BYTES_1 + BLOCK_BYTES,
                commitment_info: b"faceid-gallery/1 commitment",
                header_info: b"faceid-gallery/1 header",
            },
            Version::Second => Self {
                salt_at: SALT_AT,
                commitment_at: COMMITMENT_AT,
                commitment_info: b"faceid-gallery/2 commitment",
                header_info: b"faceid-gallery/2 header",
            },
        }
    }

    fn checksum_at(&self) -> usize {
        self.commitment_at + BLOCK_BYTES
    }

    fn tag_at(&self) -> usize {
        self.checksum_at() + BLOCK_BYTES
    }

    fn bytes(&self) -> usize {
        self.tag_at() + BLOCK_BYTES
    }
}

/// What one file's records are sealed and opened with.
struct Records {
    cipher: Cipher,
    header_hash: [u8; BLOCK_BYTES],
    prefix: [u8; 3],
}

impl Records {
    /// Binds a record to its file (and so to generation, model and dimension), its place, its length and whether it is the last.
    fn associated(&self, number: u64, length: [u8; LENGTH_BYTES], last: bool) -> [u8; RECORD_BINDING_BYTES] {
        let mut data = [0; RECORD_BINDING_BYTES];
        data[..32].copy_from_slice(&self.header_hash);
        data[32..40].copy_from_slice(&number.to_le_bytes());
        data[40..44].copy_from_slice(&length);
        data[44] = u8::from(last);
        data
    }
}

/// Seals one file.
pub(crate) struct Sealer {
    records: Records,
    nonces: Nonces,
}

impl Sealer {
    /// Starts a file with these fields and keys; gives its header. The data key is of this one file, and everything here follows from
    /// it and the content: whoever has one twice, however that came, writes the very same bytes.
    pub(crate) fn begin(key: &SealingKey, fields: &Fields, keys: &Keys) -> (Self, [u8; HEADER_BYTES]) {
        assert!(fields.version == Version::Second, "only the newest version is written");
        let layout = Layout::of(fields.version);
        let mut header = [0; HEADER_BYTES];
        header[..FIELDS_BYTES].copy_from_slice(&fields.encode());
        let salt = Derived::of(keys.data.bytes()).expand(&[SALT_INFO, &header[..FIELDS_BYTES]]);
        header[SALT_AT..KEYS_AT].copy_from_slice(salt.as_slice());
        let derived = Derived::new(key, &header[SALT_AT..KEYS_AT]);
        let mut wrapped = Zeroizing::new([0; 2 * KEY_BYTES]);
        wrapped[..KEY_BYTES].copy_from_slice(keys.data.bytes());
        wrapped[KEY_BYTES..].copy_from_slice(keys.rotation.bytes());
        // The key is fresh with the salt and seals this once.
        let wrap = Cipher::new(&derived.expand(&[WRAP_INFO]));
        let (_, nonce) = Nonces::new(prefix(fields.generation)).take(true);
        let tag = wrap.seal(nonce, &header[..KEYS_AT], wrapped.as_mut_slice());
        header[KEYS_AT..COMMITMENT_AT - TAG_BYTES].copy_from_slice(wrapped.as_slice());
        header[COMMITMENT_AT - TAG_BYTES..COMMITMENT_AT].copy_from_slice(&tag);
        header[COMMITMENT_AT..CHECKSUM_AT].copy_from_slice(derived.expand(&[layout.commitment_info]).as_slice());
        let checksum = hash(&header[..CHECKSUM_AT]);
        header[CHECKSUM_AT..HEADER_TAG_AT].copy_from_slice(&checksum);
        let tag = derived.expand(&[layout.header_info, &header[..HEADER_TAG_AT]]);
        header[HEADER_TAG_AT..].copy_from_slice(tag.as_slice());
        let records = keys.records(&header, fields.generation);
        let nonces = Nonces::new(records.prefix);
        (Self { records, nonces }, header)
    }

    /// Appends one record, which is not the last; `plain` is overwritten.
    pub(crate) fn seal(&mut self, plain: &mut [u8], out: &mut Vec<u8>) {
        self.put(plain, false, out);
    }

    /// Appends the last record; nothing can follow.
    pub(crate) fn seal_last(mut self, plain: &mut [u8], out: &mut Vec<u8>) {
        self.put(plain, true, out);
    }

    fn put(&mut self, plain: &mut [u8], last: bool, out: &mut Vec<u8>) {
        assert!(plain.len() <= MAX_RECORD_BYTES, "a record beyond its bound");
        let length = u32::try_from(plain.len()).expect("records are bounded below 2^32").to_le_bytes();
        let (number, nonce) = self.nonces.take(last);
        let tag = self.records.cipher.seal(nonce, &self.records.associated(number, length, last), plain);
        out.extend_from_slice(&length);
        out.extend_from_slice(plain);
        out.extend_from_slice(&tag);
    }
}

impl Keys {
    fn records(&self, header: &[u8], generation: u64) -> Records {
        let cipher = Cipher::new(&Derived::of(self.data.bytes()).expand(&[RECORDS_INFO]));
        Records { cipher, header_hash: hash(header), prefix: prefix(generation) }
    }
}

/// An authentic header.
pub(crate) struct Header {
    /// What it says.
    pub(crate) fields: Fields,
    /// What its generation is sealed with; none in version 1.
    pub(crate) keys: Option<Keys>,
    /// SHA-256 of the whole header: binds records and sessions to it.
    pub(crate) hash: [u8; BLOCK_BYTES],
    records: Records,
    bytes: usize,
}

/// One record, not yet opened.
pub(crate) struct Sealed<'a> {
    number: u64,
    /// Where its bytes stand in the file.
    pub(crate) at: usize,
    last: bool,
    length: [u8; LENGTH_BYTES],
    body: &'a mut [u8],
    tag: [u8; TAG_BYTES],
}

impl Sealed<'_> {
    /// Clears what was opened in place.
    pub(crate) fn clear(&mut self) {
        let (first, most, last) = bytemuck::pod_align_to_mut::<u8, u128>(self.body);
        // Sixteen bytes at a time: one by one takes as long as opening them did.
        most.zeroize();
        first.zeroize();
        last.zeroize();
    }
}

impl Header {
    /// Authenticates a file's header and unwraps its keys.
    pub(crate) fn open(key: &SealingKey, file: &[u8]) -> Result<Self, SealError> {
        let version = format::check_magic(file).map_err(|e| SealError::from_format(e, 0))?;
        let layout = Layout::of(version);
        let damaged = |offset, reason| SealError::Damaged { offset, reason };
        let header = file.get(..layout.bytes()).ok_or(damaged(file.len(), "the file ends inside its header"))?;
        if !same(&hash(&header[..layout.checksum_at()]), &header[layout.checksum_at()..layout.tag_at()]) {
            return Err(damaged(0, "the header's checksum is wrong"));
        }
        let derived = Derived::new(key, &header[layout.salt_at..layout.salt_at + BLOCK_BYTES]);
        let commitment = derived.expand(&[layout.commitment_info]);
        if !same(commitment.as_slice(), &header[layout.commitment_at..layout.checksum_at()]) {
            return Err(SealError::WrongKey);
        }
        let tag = derived.expand(&[layout.header_info, &header[..layout.tag_at()]]);
        if !same(tag.as_slice(), &header[layout.tag_at()..]) {
            return Err(damaged(layout.tag_at(), "the header is not authentic"));
        }
        let fields = Fields::decode(header).map_err(|e| SealError::from_format(e, 0))?;
        let (keys, records) = match version {
            Version::First => {
                let cipher = Cipher::new(&derived.expand(&[b"faceid-gallery/1 records"]));
                (None, Records { cipher, header_hash: hash(header), prefix: [0; 3] })
            }
            Version::Second => {
                let keys = unwrap(&derived, header, fields.generation).ok_or(damaged(KEYS_AT, "the keys are not authentic"))?;
                let records = keys.records(header, fields.generation);
                (Some(keys), records)
            }
        };
        Ok(Self { fields, keys, hash: hash(header), records, bytes: layout.bytes() })
    }

    /// Takes the file apart into its records; opens none.
    pub(crate) fn split<'a>(&self, file: &'a mut [u8]) -> Result<Vec<Sealed<'a>>, SealError> {
        let mut all = Vec::new();
        self.walk(file, &mut all)?;
        Ok(all)
    }

    /// The records of a file that may be damaged, as far as their lengths can be followed, and whether that was not to the end.
    pub(crate) fn split_leniently<'a>(&self, file: &'a mut [u8]) -> (Vec<Sealed<'a>>, bool) {
        let mut all = Vec::new();
        let walked = self.walk(file, &mut all);
        (all, walked.is_err())
    }

    fn walk<'a>(&self, file: &'a mut [u8], all: &mut Vec<Sealed<'a>>) -> Result<(), SealError> {
        let total = file.len();
        let damaged = |offset, reason| SealError::Damaged { offset, reason };
        let (mut at, mut rest) = (self.bytes, &mut file[self.bytes..]);
        loop {
            let (length, more) = rest.split_first_chunk_mut::<LENGTH_BYTES>().ok_or(damaged(total, "the file is cut"))?;
            let bytes = u32::from_le_bytes(*length) as usize;
            if bytes > MAX_RECORD_BYTES {
                return Err(damaged(at, "a record beyond its bound"));
            }
            let (body, more) = more.split_at_mut_checked(bytes).ok_or(damaged(at, "a record reaches beyond the file"))?;
            let (tag, more) = more.split_first_chunk_mut::<TAG_BYTES>().ok_or(damaged(at, "a record reaches beyond the file"))?;
            // Where the file ends its last record must be: a cut at a record's end shows as a wrong tag.
            let last = more.is_empty();
            let number = all.len() as u64;
            all.push(Sealed { number, at: at + LENGTH_BYTES, last, length: *length, body, tag: *tag });
            if last {
                return Ok(());
            }
            at += LENGTH_BYTES + bytes + TAG_BYTES;
            rest = more;
        }
    }

    /// Opens one record in place.
    pub(crate) fn open_record<'a>(&self, sealed: &'a mut Sealed<'_>) -> Result<&'a [u8], SealError> {
        let associated = self.records.associated(sealed.number, sealed.length, sealed.last);
        let nonce = nonce(self.records.prefix, sealed.number, sealed.last);
        if self.records.cipher.open(nonce, &associated, sealed.body, sealed.tag) {
            Ok(sealed.body)
        } else {
            Err(SealError::Damaged { offset: sealed.at - LENGTH_BYTES, reason: "a record is not authentic" })
        }
    }

    /// SHA-256 of a header: binds records and sessions to it.
    pub(crate) fn hash_of(header: &[u8]) -> [u8; BLOCK_BYTES] {
        hash(header)
    }
}

fn unwrap(derived: &Derived, header: &[u8], generation: u64) -> Option<Keys> {
    let mut wrapped = Zeroizing::new([0; 2 * KEY_BYTES]);
    wrapped.copy_from_slice(&header[KEYS_AT..COMMITMENT_AT - TAG_BYTES]);
    let tag = header[COMMITMENT_AT - TAG_BYTES..COMMITMENT_AT].try_into().ok()?;
    let (_, nonce) = Nonces::new(prefix(generation)).take(true);
    if !Cipher::new(&derived.expand(&[WRAP_INFO])).open(nonce, &header[..KEYS_AT], wrapped.as_mut_slice(), tag) {
        return None;
    }
    let mut keys = Keys { data: Locked::new(), rotation: Locked::new() };
    keys.data.bytes_mut().copy_from_slice(&wrapped[..KEY_BYTES]);
    keys.rotation.bytes_mut().copy_from_slice(&wrapped[KEY_BYTES..]);
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::super::ContentMark;
    use super::*;
    use crate::types::ModelId;

    fn fields(generation: u64) -> Fields {
        let model = ModelId::new("m").unwrap();
        Fields { version: Version::Second, id: [1; 16], generation, epoch: 1, dimension: 2, people: 0, templates: 0, model }
    }

    fn file(key: &SealingKey, records: &[&[u8]]) -> Vec<u8> {
        let (mut sealer, header) = Sealer::begin(key, &fields(1), &Keys::generate().unwrap());
        let mut out = header.to_vec();
        let (last, before) = records.split_last().unwrap();
        for record in before {
            sealer.seal(&mut record.to_vec(), &mut out);
        }
        sealer.seal_last(&mut last.to_vec(), &mut out);
        out
    }

    fn open(key: &SealingKey, mut file: Vec<u8>) -> Result<Vec<Vec<u8>>, SealError> {
        let header = Header::open(key, &file)?;
        let mut records = header.split(&mut file)?;
        records.iter_mut().map(|sealed| header.open_record(sealed).map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_wrong_key_is_told_from_damage() {
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let good = file(&key, &[b"one", b"two"]);
        assert!(matches!(open(&other, good.clone()), Err(SealError::WrongKey)));
        for at in 0..HEADER_TAG_AT {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!matches!(open(&other, bad), Err(SealError::WrongKey) | Ok(_)), "byte {at}");
        }
    }

    #[test]
    fn a_header_with_a_mended_checksum_is_still_not_authentic() {
        let key = SealingKey::generate().unwrap();
        for at in [16, SALT_AT - 1, KEYS_AT, COMMITMENT_AT - 1] {
            let mut bad = file(&key, &[b"one"]);
            bad[at] ^= 1;
            let checksum = hash(&bad[..CHECKSUM_AT]);
            bad[CHECKSUM_AT..HEADER_TAG_AT].copy_from_slice(&checksum);
            assert!(matches!(open(&key, bad), Err(SealError::Damaged { offset: HEADER_TAG_AT, .. })), "byte {at}");
        }
    }

    #[test]
    fn records_cut_swapped_repeated_or_taken_from_another_file_are_refused() {
        let key = SealingKey::generate().unwrap();
        let good = file(&key, &[b"one", b"two", b"end"]);
        let size = LENGTH_BYTES + 3 + TAG_BYTES;
        let record = |file: &[u8], n: usize| file[HEADER_BYTES + n * size..][..size].to_vec();
        let with = |records: &[Vec<u8>]| [good[..HEADER_BYTES].to_vec(), records.concat()].concat();
        let (a, b, c) = (record(&good, 0), record(&good, 1), record(&good, 2));
        let foreign = record(&file(&key, &[b"one", b"two", b"end"]), 1);
        for bad in [
            with(&[]),
            with(std::slice::from_ref(&a)),
            with(&[a.clone(), b.clone()]),
            with(&[b.clone(), a.clone(), c.clone()]),
            with(&[a.clone(), a.clone(), b.clone(), c.clone()]),
            with(&[a.clone(), foreign, c.clone()]),
            with(&[a.clone(), b.clone(), c.clone(), c.clone()]),
            with(&[a.clone(), c.clone()]),
        ] {
            assert!(matches!(open(&key, bad), Err(SealError::Damaged { .. })));
        }
        assert_eq!(open(&key, with(&[a, b, c])).unwrap(), [b"one", b"two", b"end"]);
    }

    #[test]
    fn no_salt_repeats_and_the_keys_in_a_header_are_not_plain() {
        let (key, keys) = (SealingKey::generate().unwrap(), Keys::generate().unwrap());
        let begin = |keys: &Keys| Sealer::begin(&key, &fields(1), keys).1;
        let (a, b) = (begin(&keys), begin(&keys.next(ContentMark::new()).unwrap()));
        assert_ne!(a[SALT_AT..KEYS_AT], b[SALT_AT..KEYS_AT]);
        assert_ne!(a[KEYS_AT..COMMITMENT_AT], b[KEYS_AT..COMMITMENT_AT]);
        assert!(a == begin(&keys), "one data key, one file");
        let opened = Header::open(&key, &a).ok().unwrap().keys.unwrap();
        assert!(opened.data.bytes() == keys.data.bytes() && opened.rotation.bytes() == keys.rotation.bytes());
        for secret in [keys.data.bytes(), keys.rotation.bytes()] {
            assert!(!a.windows(8).any(|window| window == &secret[..8]));
        }
    }
}
