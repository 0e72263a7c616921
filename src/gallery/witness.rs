//! The epoch's second place: a small file outside the gallery's folder that remembers how far the gallery had come. An older gallery
//! put back is authentic in itself; only who remembers a later one can tell. Pure: bytes in, bytes out.
//!
//! Two slots are written in turn, each with its own tag, so that a torn write leaves the one before.

use super::format::ID_BYTES;
use super::seal::{BLOCK_BYTES, SealingKey, TAG_BYTES, same};

/// What each slot begins with; the last byte is the version.
pub(crate) const WITNESS_MAGIC: [u8; 16] = *b"faceid-witness/1";
/// Each slot stands in a block of its own, the first after one that is never written again.
pub(crate) const SLOT_STRIDE: usize = 4096;
/// A slot's bytes.
pub(crate) const SLOT_BYTES: usize = FIELDS_BYTES + BLOCK_BYTES;
const FIELDS_BYTES: usize = 16 + ID_BYTES + 8 + 8 + TAG_BYTES + 8;

/// How far the gallery had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Which gallery.
    pub(crate) id: [u8; ID_BYTES],
    /// Of which file the last change was.
    pub(crate) generation: u64,
    /// The last change's number.
    pub(crate) epoch: u64,
    /// The last change's tag.
    pub(crate) head: [u8; TAG_BYTES],
    /// Grows by one with every slot that is written.
    pub(crate) serial: u64,
}

/// A counter that cannot go back, such as a TPM's NV counter: it sees what the second place cannot, everything put back together.
/// None is built in; [`super::Gallery::attach_counter`] takes one.
pub trait Counter: Send {
    /// Where it stands.
    fn value(&self) -> std::io::Result<u64>;
    /// Goes up to `to`, which is never below where it stands.
    fn raise(&mut self, to: u64) -> std::io::Result<()>;
}

impl Witness {
    /// The newest slot that is authentic under `key`, if there is one.
    pub(crate) fn read(file: &[u8], key: &SealingKey) -> Option<Self> {
        let slots = [1, 2].into_iter().filter_map(|n| file.get(n * SLOT_STRIDE..n * SLOT_STRIDE + SLOT_BYTES));
        slots.filter_map(|slot| Self::decode(slot, key)).max_by_key(|witness| witness.serial)
    }

    /// The highest serial number of any slot, authentic or not: the next one goes over the other.
    pub(crate) fn next_serial(file: &[u8], key: &SealingKey) -> u64 {
        Self::read(file, key).map_or(0, |witness| witness.serial.saturating_add(1))
    }

    /// Where this slot goes, and its bytes.
    pub(crate) fn slot(&self, key: &SealingKey) -> (u64, Vec<u8>) {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(&WITNESS_MAGIC);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.serial.to_le_bytes());
        let tag = key.witness_tag(&out);
        out.extend_from_slice(&tag);
        ((1 + self.serial % 2) * SLOT_STRIDE as u64, out)
    }

    /// The block that a new file begins with.
    pub(crate) fn first_block() -> Vec<u8> {
        let mut block = WITNESS_MAGIC.to_vec();
        block.resize(SLOT_STRIDE, 0);
        block
    }

    fn decode(slot: &[u8], key: &SealingKey) -> Option<Self> {
        let (fields, tag) = slot.split_at_checked(FIELDS_BYTES)?;
        let fields: &[u8; FIELDS_BYTES] = fields.try_into().ok()?;
        if fields[..16] != WITNESS_MAGIC || !same(&key.witness_tag(fields), tag) {
            return None;
        }
        let number = |at: usize| fields[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let id = *fields[16..].first_chunk()?;
        let head = *fields[48..].first_chunk()?;
        Some(Self { id, generation: number(32)?, epoch: number(40)?, head, serial: number(64)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(epoch: u64, serial: u64) -> Witness {
        Witness { id: [3; 16], generation: 2, epoch, head: [4; 16], serial }
    }

    fn put(file: &mut Vec<u8>, witness: Witness, key: &SealingKey) {
        let (at, bytes) = witness.slot(key);
        let at = usize::try_from(at).unwrap();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    #[test]
    fn what_is_not_authentic_is_no_witness_and_the_newest_slot_counts() {
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let mut file = Witness::first_block();
        assert_eq!(Witness::read(&file, &key), None);
        put(&mut file, witness(10, 0), &key);
        put(&mut file, witness(11, 1), &key);
        assert_eq!(Witness::read(&file, &other), None);
        assert_eq!(Witness::read(&file, &key), Some(witness(11, 1)));
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            let found = Witness::read(&bad, &key).unwrap();
            assert!(found == witness(11, 1) || found == witness(10, 0), "byte {at}");
        }
        for length in 0..file.len() {
            let found = Witness::read(&file[..length], &key);
            assert!(found.is_none_or(|found| found == witness(11, 1) || found == witness(10, 0)));
        }
        put(&mut file, witness(12, 2), &key);
        assert_eq!((Witness::read(&file, &key), Witness::next_serial(&file, &key)), (Some(witness(12, 2)), 3));
    }
}
