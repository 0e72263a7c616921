//! The sealed copy of the index's graph. Its key comes of one generation's data key and a fresh salt, so it opens beside that file alone:
//! once the file is written anew, no key opens the copy any more.

use super::{BLOCK_BYTES, Cipher, Derived, KeyError, Keys, LENGTH_BYTES, Nonces, TAG_BYTES, prefix, random};

/// What a copy begins with; the last byte but one is the version.
pub(crate) const GRAPH_MAGIC: [u8; 16] = *b"faceid-graph/1\n\0";
/// Magic, generation, epoch, salt.
pub(crate) const GRAPH_HEADER_BYTES: usize = 16 + 8 + 8 + BLOCK_BYTES;
/// A part is this long but for the last.
pub(crate) const PART_BYTES: usize = 1 << 20;

/// Seals or opens one copy, part after part.
pub(crate) struct GraphSeal {
    cipher: Cipher,
    nonces: Nonces,
    header: [u8; GRAPH_HEADER_BYTES],
}

impl GraphSeal {
    /// A new copy beside the file of this generation; `epoch` is the last change that the graph knows.
    pub(crate) fn begin(keys: &Keys, generation: u64, epoch: u64) -> Result<Self, KeyError> {
        let mut header = [0; GRAPH_HEADER_BYTES];
        header[..16].copy_from_slice(&GRAPH_MAGIC);
        header[16..24].copy_from_slice(&generation.to_le_bytes());
        header[24..32].copy_from_slice(&epoch.to_le_bytes());
        header[32..].copy_from_slice(&random::<BLOCK_BYTES>()?);
        Ok(Self::of(keys, generation, header))
    }

    /// The header.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Seals the next part behind the others.
    pub(crate) fn seal(&mut self, plain: &mut [u8], last: bool, out: &mut Vec<u8>) {
        let (_, nonce) = self.nonces.take(last);
        let length = u32::try_from(plain.len()).expect("parts are far shorter").to_le_bytes();
        let tag = self.cipher.seal(nonce, &self.associated(length), plain);
        out.extend_from_slice(&length);
        out.extend_from_slice(plain);
        out.extend_from_slice(&tag);
    }

    /// Opens a copy in place and gives where its plain bytes are; `None` when it is not whole, or is not this generation's.
    pub(crate) fn open(keys: &Keys, generation: u64, file: &mut [u8]) -> Option<Vec<std::ops::Range<usize>>> {
        let header: [u8; GRAPH_HEADER_BYTES] = *file.first_chunk()?;
        if header[..16] != GRAPH_MAGIC || header[16..24] != generation.to_le_bytes() {
            return None;
        }
        let mut seal = Self::of(keys, generation, header);
        let (mut at, mut parts) = (GRAPH_HEADER_BYTES, Vec::new());
        loop {
            let length = *file[at..].first_chunk::<LENGTH_BYTES>()?;
            let bytes = u32::from_le_bytes(length) as usize;
            let begin = at + LENGTH_BYTES;
            let end = begin.checked_add(bytes).filter(|_| bytes <= PART_BYTES)?;
            let tag = *file.get(end..)?.first_chunk::<TAG_BYTES>()?;
            at = end + TAG_BYTES;
            let last = at == file.len();
            let (_, nonce) = seal.nonces.take(last);
            if !seal.cipher.open(nonce, &seal.associated(length), &mut file[begin..end], tag) {
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
        file.strip_prefix(&GRAPH_MAGIC)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn of(keys: &Keys, generation: u64, header: [u8; GRAPH_HEADER_BYTES]) -> Self {
        let cipher = Cipher::new(&Derived::of(keys.data.bytes()).expand(&[b"faceid-graph/1", &header]));
        Self { cipher, nonces: Nonces::new(prefix(generation)), header }
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
        seal.seal(&mut [1; 40], false, &mut out);
        seal.seal(&mut [2; 7], true, &mut out);
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
}
