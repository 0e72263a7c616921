//! A journal's sessions: each opening for writing seals its records under a key of its own (the data key, a fresh random salt), so
//! that what a cut-off session left can never meet a second use of its nonces.

use super::{BLOCK_BYTES, Cipher, Derived, Keys, LENGTH_BYTES, Nonces, TAG_BYTES, prefix};

const SESSION_INFO: &[u8] = b"faceid-journal/2 session";
const RECORDS_INFO: &[u8] = b"faceid-journal/2 records";

/// What a change is bound to: the header's hash, its number in the session, its epoch, the tag before, its length.
pub(crate) const CHANGE_BINDING_BYTES: usize = BLOCK_BYTES + 8 + 8 + TAG_BYTES + LENGTH_BYTES;

/// What a session's records are sealed and opened with, one after another. Every record follows the one before: its tag is part of
/// what is authenticated.
pub(crate) struct Session {
    cipher: Cipher,
    nonces: Nonces,
    header_hash: [u8; BLOCK_BYTES],
}

impl Session {
    /// The session of `salt` that follows `head` and whose first record is change number `epoch`, with the tag that says so.
    pub(crate) fn new(
        keys: &Keys,
        generation: u64,
        header_hash: [u8; BLOCK_BYTES],
        (epoch, head): (u64, [u8; TAG_BYTES]),
        salt: &[u8; BLOCK_BYTES],
    ) -> (Self, [u8; BLOCK_BYTES]) {
        let derived = Derived::of(keys.data.bytes());
        let cipher = Cipher::new(&derived.expand(&[RECORDS_INFO, salt]));
        let tag = derived.expand(&[SESSION_INFO, &header_hash, &epoch.to_le_bytes(), &head, salt]);
        (Self { cipher, nonces: Nonces::new(prefix(generation)), header_hash }, *tag)
    }

    /// Seals change number `epoch`, which follows `head`, in place.
    pub(crate) fn seal(&mut self, epoch: u64, head: &[u8; TAG_BYTES], plain: &mut [u8]) -> [u8; TAG_BYTES] {
        let (number, nonce) = self.nonces.take(false);
        let associated = self.associated(number, epoch, head, plain.len());
        self.cipher.seal(nonce, &associated, plain)
    }

    /// Opens change number `epoch`, which follows `head`, in place; false when it is not that.
    pub(crate) fn open(&mut self, epoch: u64, head: &[u8; TAG_BYTES], sealed: &mut [u8], tag: [u8; TAG_BYTES]) -> bool {
        let (number, nonce) = self.nonces.take(false);
        let associated = self.associated(number, epoch, head, sealed.len());
        self.cipher.open(nonce, &associated, sealed, tag)
    }

    /// Binds a record to its generation's header (and so to model and dimension), its number in the session, its epoch, the record
    /// before it and its length.
    fn associated(&self, number: u64, epoch: u64, head: &[u8; TAG_BYTES], length: usize) -> [u8; CHANGE_BINDING_BYTES] {
        let length = u32::try_from(length).expect("records are bounded below 2^32").to_le_bytes();
        let mut data = [0; CHANGE_BINDING_BYTES];
        data[..32].copy_from_slice(&self.header_hash);
        data[32..40].copy_from_slice(&number.to_le_bytes());
        data[40..48].copy_from_slice(&epoch.to_le_bytes());
        data[48..64].copy_from_slice(head);
        data[64..].copy_from_slice(&length);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let keys = Keys::generate().unwrap();
        let begin = |epoch, salt| Session::new(&keys, 3, [7; 32], (epoch, [1; 16]), &salt);
        let (mut session, tag) = begin(5, [2; 32]);
        assert!(tag != begin(6, [2; 32]).1 && tag != begin(5, [3; 32]).1);
        let mut sealed = b"change".to_vec();
        let tag = session.seal(5, &[1; 16], &mut sealed);
        let opens = |salt, epoch, head, sealed: &[u8]| begin(5, salt).0.open(epoch, &head, &mut sealed.to_vec(), tag);
        assert!(!opens([3; 32], 5, [1; 16], &sealed), "another session");
        assert!(!opens([2; 32], 6, [1; 16], &sealed), "another epoch");
        assert!(!opens([2; 32], 5, [0; 16], &sealed), "after another record");
        assert!(!opens([2; 32], 5, [1; 16], &sealed[1..]), "cut");
        assert!(opens([2; 32], 5, [1; 16], &sealed));
        let mut second = b"change".to_vec();
        let other = session.seal(6, &tag, &mut second);
        assert!(second != sealed && other != tag);
    }
}
