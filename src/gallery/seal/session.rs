//! A journal's sessions: each opening for writing seals its records under a secret of its own (the data key, a fresh random salt), so
//! that what a cut-off session left can never meet a second use of its nonces; and each record under a key of its own, so that a memory
//! that is resumed twice, in the middle of a session, cannot make it do so either.

use super::{BLOCK_BYTES, Cipher, Derived, KeyError, Keys, LENGTH_BYTES, Nonces, RECORD_SALT_BYTES, RecordKeys, TAG_BYTES, prefix};

/// What a change is bound to: the header's hash, its number in the session, its epoch, the tag before, its length.
pub(crate) const CHANGE_BINDING_BYTES: usize = BLOCK_BYTES + 8 + 8 + TAG_BYTES + LENGTH_BYTES;

/// Which journals a session is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionVersion {
    /// All records under the session's key; read, and no longer written.
    Second,
    /// Each under a key of its own.
    Third,
}

impl SessionVersion {
    /// What a session's tag and its secret are derived for.
    fn infos(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Second => (b"faceid-journal/2 session", b"faceid-journal/2 records"),
            Self::Third => (b"faceid-journal/3 session", b"faceid-journal/3 records"),
        }
    }
}

/// What a session's records are sealed and opened with, one after another. Every record follows the one before: its tag is part of
/// what is authenticated.
pub(crate) struct Session {
    keys: SessionKeys,
    nonces: Nonces,
    header_hash: [u8; BLOCK_BYTES],
}

enum SessionKeys {
    One(Box<Cipher>),
    Each(RecordKeys),
}

impl Session {
    /// The session of `salt` that follows `head` and whose first record is change number `epoch`, with the tag that says so.
    pub(crate) fn new(
        version: SessionVersion,
        keys: &Keys,
        generation: u64,
        header_hash: [u8; BLOCK_BYTES],
        (epoch, head): (u64, [u8; TAG_BYTES]),
        salt: &[u8; BLOCK_BYTES],
    ) -> (Self, [u8; BLOCK_BYTES]) {
        let derived = Derived::of(keys.data.bytes());
        let (session_info, records_info) = version.infos();
        let secret = derived.expand(&[records_info, salt]);
        let tag = derived.expand(&[session_info, &header_hash, &epoch.to_le_bytes(), &head, salt]);
        let keys = match version {
            SessionVersion::Second => SessionKeys::One(Box::new(Cipher::new(&secret))),
            SessionVersion::Third => SessionKeys::Each(RecordKeys(secret)),
        };
        (Self { keys, nonces: Nonces::new(prefix(generation)), header_hash }, *tag)
    }

    /// Seals change number `epoch`, which follows `head`, in place; gives the record's salt and its tag.
    pub(crate) fn seal(
        &mut self,
        epoch: u64,
        head: &[u8; TAG_BYTES],
        plain: &mut [u8],
    ) -> Result<([u8; RECORD_SALT_BYTES], [u8; TAG_BYTES]), KeyError> {
        let (number, nonce) = self.nonces.take(false);
        let associated = self.associated(number, epoch, head, plain.len());
        let SessionKeys::Each(keys) = &self.keys else { unreachable!("only sessions of the newest version are written") };
        let salt = keys.salt(&associated, plain)?;
        Ok((salt, keys.cipher(&salt).seal(nonce, &associated, plain)))
    }

    /// Opens change number `epoch`, which follows `head`, in place; false when it is not that. A record of the second version has no
    /// salt.
    pub(crate) fn open(
        &mut self,
        epoch: u64,
        head: &[u8; TAG_BYTES],
        salt: Option<&[u8; RECORD_SALT_BYTES]>,
        sealed: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> bool {
        let (number, nonce) = self.nonces.take(false);
        let associated = self.associated(number, epoch, head, sealed.len());
        match (&self.keys, salt) {
            (SessionKeys::One(cipher), None) => cipher.open(nonce, &associated, sealed, tag),
            (SessionKeys::Each(keys), Some(salt)) => keys.cipher(salt).open(nonce, &associated, sealed, tag),
            _ => false,
        }
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

    /// The same session once more, as a memory that is resumed twice has it.
    #[cfg(test)]
    pub(crate) fn resumed(&self) -> Self {
        let SessionKeys::Each(keys) = &self.keys else { panic!("a session that is written") };
        let nonces = Nonces { prefix: self.nonces.prefix, next: self.nonces.next };
        Self { keys: SessionKeys::Each(RecordKeys(keys.0.clone())), nonces, header_hash: self.header_hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let keys = Keys::generate().unwrap();
        let begin = |epoch, salt| Session::new(SessionVersion::Third, &keys, 3, [7; 32], (epoch, [1; 16]), &salt);
        let (mut session, tag) = begin(5, [2; 32]);
        assert!(tag != begin(6, [2; 32]).1 && tag != begin(5, [3; 32]).1);
        let mut sealed = b"change".to_vec();
        let (own, tag) = session.seal(5, &[1; 16], &mut sealed).unwrap();
        let opens = |salt, epoch, head, own: Option<&[u8; 16]>, sealed: &[u8]| {
            begin(5, salt).0.open(epoch, &head, own, &mut sealed.to_vec(), tag)
        };
        assert!(!opens([3; 32], 5, [1; 16], Some(&own), &sealed), "another session");
        assert!(!opens([2; 32], 6, [1; 16], Some(&own), &sealed), "another epoch");
        assert!(!opens([2; 32], 5, [0; 16], Some(&own), &sealed), "after another record");
        assert!(!opens([2; 32], 5, [1; 16], Some(&own), &sealed[1..]), "cut");
        assert!(!opens([2; 32], 5, [1; 16], Some(&[0; 16]), &sealed), "another salt");
        assert!(!opens([2; 32], 5, [1; 16], None, &sealed), "no salt");
        assert!(opens([2; 32], 5, [1; 16], Some(&own), &sealed));
        let mut second = b"change".to_vec();
        let (salt, other) = session.seal(6, &tag, &mut second).unwrap();
        assert!(second != sealed && other != tag && salt != own);
    }
}
