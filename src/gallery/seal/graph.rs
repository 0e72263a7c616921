//! The sealed copy of the index's graph. Its key comes of one generation's data key and a fresh salt, so it opens beside that file alone:
//! once the file is written anew, no key opens the copy any more.

use super::{
    BLOCK_BYTES, Cipher, Derived, KeyError, Keys, LENGTH_BYTES, Nonces, RECORD_SALT_BYTES, RecordKeys, TAG_BYTES, prefix, random,
};

/// What a copy begins with; the last byte but two is the version.
pub(crate) const GRAPH_MAGIC: [u8; 16] = *b"faceid-graph/2\n\0";
/// What a copy of before begins with, whose parts are all under one key: read, and no longer written.
const GRAPH_MAGIC_1: [u8; 16] = *b"faceid-graph/1\n\0";
/// Magic, generation, epoch, salt.
pub(crate) const GRAPH_HEADER_BYTES: usize = 16 + 8 + 8 + BLOCK_BYTES;
/// A part is this long but for the last.
pub(crate) const PART_BYTES: usize = 1 << 20;

/// Seals or opens one copy, part after part.
pub(crate) struct GraphSeal {
    keys: PartKeys,
    nonces: Nonces,
    header: [u8; GRAPH_HEADER_BYTES],
}

enum PartKeys {
    One(Box<Cipher>),
    Each(RecordKeys),
}

impl GraphSeal {
    /// A new copy beside the file of this generation; `epoch` is the last change that the graph knows.
    pub(crate) fn begin(keys: &Keys, generation: u64, epoch: u64) -> Result<Self, KeyError> {
        let mut header = [0; GRAPH_HEADER_BYTES];
        header[..16].copy_from_slice(&GRAPH_MAGIC);
        header[16..24].copy_from_slice(&generation.to_le_bytes());
        header[24..32].copy_from_slice(&epoch.to_le_bytes());
        header[32..].copy_from_slice(&random::<BLOCK_BYTES>()?);
        let secret = Derived::of(keys.data.bytes()).expand(&[b"faceid-graph/2", &header]);
        Ok(Self { keys: PartKeys::Each(RecordKeys(secret)), nonces: Nonces::new(prefix(generation)), header })
    }

    /// The header.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Seals the next part behind the others.
    pub(crate) fn seal(&mut self, plain: &mut [u8], last: bool, out: &mut Vec<u8>) -> Result<(), KeyError> {
        let (_, nonce) = self.nonces.take(last);
        let length = u32::try_from(plain.len()).expect("parts are far shorter").to_le_bytes();
        let associated = self.associated(length);
        let PartKeys::Each(keys) = &self.keys else { unreachable!("only copies of the newest version are written") };
        // Its place is in the nonce alone.
        let salt = keys.salt(&[associated.as_slice(), &nonce].concat(), plain)?;
        let tag = keys.cipher(&salt).seal(nonce, &associated, plain);
        out.extend_from_slice(&length);
        out.extend_from_slice(&salt);
        out.extend_from_slice(plain);
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens a copy in place and gives where its plain bytes are; `None` when it is not whole, or is not this generation's.
    pub(crate) fn open(keys: &Keys, generation: u64, file: &mut [u8]) -> Option<Vec<std::ops::Range<usize>>> {
        let header: [u8; GRAPH_HEADER_BYTES] = *file.first_chunk()?;
        if header[16..24] != generation.to_le_bytes() {
            return None;
        }
        let derived = Derived::of(keys.data.bytes());
        let keys = match *header.first_chunk()? {
            GRAPH_MAGIC => PartKeys::Each(RecordKeys(derived.expand(&[b"faceid-graph/2", &header]))),
            GRAPH_MAGIC_1 => PartKeys::One(Box::new(Cipher::new(&derived.expand(&[b"faceid-graph/1", &header])))),
            _ => return None,
        };
        let mut seal = Self { keys, nonces: Nonces::new(prefix(generation)), header };
        let (mut at, mut parts) = (GRAPH_HEADER_BYTES, Vec::new());
        loop {
            let length = *file[at..].first_chunk::<LENGTH_BYTES>()?;
            let bytes = u32::from_le_bytes(length) as usize;
            let mut begin = at + LENGTH_BYTES;
            let own = match &seal.keys {
                PartKeys::One(_) => None,
                PartKeys::Each(keys) => {
                    let salt = *file.get(begin..)?.first_chunk::<RECORD_SALT_BYTES>()?;
                    begin += RECORD_SALT_BYTES;
                    Some(keys.cipher(&salt))
                }
            };
            let end = begin.checked_add(bytes).filter(|_| bytes <= PART_BYTES)?;
            let tag = *file.get(end..)?.first_chunk::<TAG_BYTES>()?;
            at = end + TAG_BYTES;
            let last = at == file.len();
            let (_, nonce) = seal.nonces.take(last);
            let cipher: &Cipher = match (&own, &seal.keys) {
                (Some(own), _) => own,
                (None, PartKeys::One(one)) => one,
                (None, PartKeys::Each(_)) => return None,
            };
            if !cipher.open(nonce, &seal.associated(length), &mut file[begin..end], tag) {
                return None;
            }
            parts.push(begin..end);
            if last {
                return Some(parts);
            }
        }
    }

    /// Which generation a copy says that it belongs to.
    pub(crate) fn generation_of(file: &[u8]) -> Option<u64> {
        let rest = file.strip_prefix(&GRAPH_MAGIC).or_else(|| file.strip_prefix(&GRAPH_MAGIC_1))?;
        rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn associated(&self, length: [u8; LENGTH_BYTES]) -> [u8; GRAPH_HEADER_BYTES + LENGTH_BYTES] {
        let mut data = [0; GRAPH_HEADER_BYTES + LENGTH_BYTES];
        data[..GRAPH_HEADER_BYTES].copy_from_slice(&self.header);
        data[GRAPH_HEADER_BYTES..].copy_from_slice(&length);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(keys: &Keys, generation: u64) -> Vec<u8> {
        let mut seal = GraphSeal::begin(keys, generation, 9).unwrap();
        let mut out = seal.header().to_vec();
        seal.seal(&mut [1; 40], false, &mut out).unwrap();
        seal.seal(&mut [2; 7], true, &mut out).unwrap();
        out
    }

    #[test]
    fn a_copy_opens_whole_and_beside_its_own_generation_only() {
        let (keys, other) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let good = sealed(&keys, 3);
        let opens = |keys: &Keys, generation, file: &[u8]| GraphSeal::open(keys, generation, &mut file.to_vec()).is_some();
        assert!(!opens(&other, 3, &good) && !opens(&keys, 4, &good));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!opens(&keys, 3, &bad), "byte {at}");
            assert!(!opens(&keys, 3, &good[..at]), "cut at {at}");
        }
        assert!(!opens(&keys, 3, &[good.as_slice(), &[0]].concat()));
        let mut file = good.clone();
        let parts = GraphSeal::open(&keys, 3, &mut file).unwrap();
        let plain: Vec<u8> = parts.into_iter().flat_map(|part| file[part].to_vec()).collect();
        assert_eq!(plain, [vec![1; 40], vec![2; 7]].concat());
        assert!(sealed(&keys, 3) != good, "no salt repeats");
    }

    /// What the program before this one kept.
    #[test]
    fn a_copy_of_the_first_version_opens() {
        let keys = Keys::generate().unwrap();
        let mut header = GraphSeal::begin(&keys, 3, 9).unwrap().header;
        header[..16].copy_from_slice(&GRAPH_MAGIC_1);
        let cipher = Cipher::new(&Derived::of(keys.data.bytes()).expand(&[b"faceid-graph/1", &header]));
        let mut nonces = Nonces::new(prefix(3));
        let mut file = header.to_vec();
        for (mut plain, last) in [(vec![1; 40], false), (vec![2; 7], true)] {
            let length = u32::try_from(plain.len()).unwrap().to_le_bytes();
            let tag = cipher.seal(nonces.take(last).1, &[header.as_slice(), &length].concat(), &mut plain);
            file.extend([&length[..], &plain, &tag].concat());
        }
        assert_eq!(GraphSeal::generation_of(&file), Some(3));
        let parts = GraphSeal::open(&keys, 3, &mut file).unwrap();
        assert_eq!(parts.into_iter().flat_map(|part| file[part].to_vec()).collect::<Vec<_>>(), [vec![1; 40], vec![2; 7]].concat());
    }

    #[test]
    fn a_memory_that_is_resumed_twice_seals_no_two_parts_alike() {
        let keys = Keys::generate().unwrap();
        let mut one = GraphSeal::begin(&keys, 3, 9).unwrap();
        let PartKeys::Each(RecordKeys(secret)) = &one.keys else { unreachable!() };
        let mut two =
            GraphSeal { keys: PartKeys::Each(RecordKeys(secret.clone())), nonces: Nonces::new(prefix(3)), header: one.header };
        for fresh in [None, Some(1)] {
            let part = |seal: &mut GraphSeal, plain: u8| {
                super::super::repeated::from(fresh);
                let mut out = Vec::new();
                seal.seal(&mut [plain; 40], false, &mut out).unwrap();
                super::super::repeated::from(None);
                out[LENGTH_BYTES + RECORD_SALT_BYTES..][..40].to_vec()
            };
            let (a, b) = (part(&mut one, 1), part(&mut two, 2));
            assert!(a.iter().zip(&b).any(|(a, b)| a ^ b != 1 ^ 2), "one key and one nonce for two texts");
        }
    }
}
