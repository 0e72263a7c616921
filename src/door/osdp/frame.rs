//! What of the line's bytes reaches the OSDP library: whole frames for this reader, in their form, and no step of a handshake out of
//! its turn. Pure, and all of what hostile bytes meet first.
//!
//! The frame is that of SIA OSDP 2.2: `53 address length length control [security block] code data… check`, least significant byte
//! first, with a CRC-16 or a sum. The library (libosdp 3.2.7) leaves four doors open that are shut here:
//! - it takes the handshake's second message (SCRYPT) when there was no first one, and then the session's keys are all zero, or those
//!   of a session before, whose frames somebody may have recorded;
//! - within a session it checks no signature on a frame whose security block says that it belongs to a handshake;
//! - it takes handshakes outside security blocks;
//! - it crashes on a code that the standard does not have but that lies between those that it has, from anybody on the line.

use std::time::{Duration, Instant};

/// The longest frame that the library takes, in bytes.
const MAX_FRAME: usize = 255;
/// Header, code, and the shortest check.
const MIN_FRAME: usize = 7;
const HEADER: usize = 5;
const START: u8 = 0x53;
const MARK: u8 = 0xFF;
/// The control byte: a CRC and not a sum; a security block follows.
const HAS_CRC: u8 = 0x04;
const HAS_BLOCK: u8 = 0x08;
/// Of a reply's address.
const IS_REPLY: u8 = 0x80;
const EVERYBODY: u8 = 0x7F;
const CHLNG: u8 = 0x76;
const SCRYPT: u8 = 0x77;
/// The handshake's block types: the panel's challenge, our answer, the panel's proof.
const BLOCK_CHALLENGE: u8 = 0x11;
const BLOCK_ANSWER: u8 = 0x12;
const BLOCK_PROOF: u8 = 0x13;
/// The session's block types for what a panel sends: signed; signed and encrypted.
const BLOCK_SIGNED: u8 = 0x15;
const BLOCK_ENCRYPTED: u8 = 0x17;
/// A frame's bytes follow each other; after this silence the rest of one does not come any more.
const SILENCE: Duration = Duration::from_millis(100);

/// Why a frame goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Its security block is not what goes with its code.
    Form,
    /// The panel offers the key that everybody knows.
    DefaultKey,
    /// The proof without a fresh answer of ours before it.
    OutOfTurn,
}

/// The gate, for one reader's address.
pub(super) struct Gate {
    address: u8,
    buffer: Vec<u8>,
    heard: Option<Instant>,
    /// Our answer to a challenge is the last thing of the handshake: one proof may come.
    answered: bool,
}

impl Gate {
    pub(super) fn new(address: u8) -> Self {
        Self { address, buffer: Vec::new(), heard: None, answered: false }
    }

    /// Takes what the line brought, gives the frames that may go on, and why others may not.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> (Vec<u8>, Vec<Dropped>) {
        if bytes.is_empty() {
            return Default::default();
        }
        if self.heard.is_some_and(|heard| now.duration_since(heard) > SILENCE) {
            self.buffer.clear();
        }
        self.heard = Some(now);
        self.buffer.extend_from_slice(bytes);
        let (mut passed, mut dropped) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(offset) = self.buffer.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == START)) {
            at += offset;
            let rest = &self.buffer[at..];
            let Some(length) = rest.get(2..4).map(|length| usize::from(u16::from_le_bytes([length[0], length[1]]))) else { break };
            if !(MIN_FRAME..=MAX_FRAME).contains(&length) {
                at += 1;
                continue;
            }
            let Some(frame) = rest.get(..length) else { break };
            if !is_whole(frame) {
                at += 1;
                continue;
            }
            let frame = frame.to_vec();
            at += length;
            match self.judge(&frame) {
                Ok(true) => passed.extend_from_slice(&frame),
                Ok(false) => {}
                Err(why) => dropped.push(why),
            }
        }
        // What can become no frame any more is not kept: at most one that is not whole yet.
        self.buffer.drain(..at.min(self.buffer.len()));
        if !self.buffer.contains(&START) {
            self.buffer.clear();
        }
        (passed, dropped)
    }

    /// Takes notice of a reply of ours.
    pub(super) fn replied(&mut self, bytes: &[u8]) {
        let frame = bytes.strip_prefix(&[MARK]).unwrap_or(bytes);
        let block = frame.get(4).is_some_and(|control| control & HAS_BLOCK != 0).then(|| frame.get(6)).flatten();
        self.answered = block == Some(&BLOCK_ANSWER);
    }

    /// Nothing of before the line was cut holds.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.address);
    }

    /// Whether a whole frame is for us and may go on.
    fn judge(&mut self, frame: &[u8]) -> Result<bool, Dropped> {
        if frame[1] & IS_REPLY != 0 || (frame[1] != self.address && frame[1] != EVERYBODY) {
            return Ok(false);
        }
        let body = &frame[HEADER..frame.len() - check_length(frame)];
        if frame[4] & HAS_BLOCK == 0 {
            if !is_known(body[0]) {
                return Err(Dropped::Form);
            }
            // Everything else in the clear is refused by the library, with an answer that tells the panel why.
            return if matches!(body[0], CHLNG | SCRYPT) { Err(Dropped::Form) } else { Ok(true) };
        }
        let block = body.get(..usize::from(body[0])).filter(|block| block.len() >= 2).ok_or(Dropped::Form)?;
        let (code, data) = body[block.len()..].split_first().ok_or(Dropped::Form)?;
        match (block[1], block.len(), *code, data.len()) {
            _ if !is_known(*code) => Err(Dropped::Form),
            (BLOCK_CHALLENGE, 3, CHLNG, 8) if block[2] == 0 => Err(Dropped::DefaultKey),
            (BLOCK_CHALLENGE, 3, CHLNG, 8) => {
                self.answered = false;
                Ok(true)
            }
            (BLOCK_PROOF, 3, SCRYPT, 16) => {
                if std::mem::take(&mut self.answered) {
                    Ok(true)
                } else {
                    Err(Dropped::OutOfTurn)
                }
            }
            (_, _, CHLNG | SCRYPT, _) => Err(Dropped::Form),
            (BLOCK_SIGNED, 2, _, 4) => Ok(true),
            (BLOCK_ENCRYPTED, 2, _, length) if length >= 20 && (length - 4).is_multiple_of(16) => Ok(true),
            _ => Err(Dropped::Form),
        }
    }
}

/// Whether the standard has such a command. What we do not do is refused by the library, with an answer.
fn is_known(code: u8) -> bool {
    matches!(code, 0x60..=0x62 | 0x64..=0x6E | 0x73..=0x77 | 0x7B | 0x7C | 0x80 | 0xA1..=0xA5 | 0xA7)
}

fn check_length(frame: &[u8]) -> usize {
    if frame[4] & HAS_CRC != 0 { 2 } else { 1 }
}

/// Whether a frame of its own length carries its right check, and room for a code.
fn is_whole(frame: &[u8]) -> bool {
    let (body, check) = frame.split_at(frame.len() - check_length(frame));
    if body.len() <= HEADER {
        return false;
    }
    match check {
        [low, high] => crc16(body) == u16::from_le_bytes([*low, *high]),
        [sum] => *sum == body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg(),
        _ => false,
    }
}

/// CRC-16 with the polynomial 0x1021, begun with 0x1D0F, as OSDP has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0x1D0F, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 })
    })
}

/// A whole frame of these parts, as a panel would send it: what tests and the fuzzer make hostile frames of.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn frame(address: u8, control: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len() + if control & HAS_CRC != 0 { 2 } else { 1 }).unwrap_or(u16::MAX);
    let mut frame = vec![START, address];
    frame.extend(length.to_le_bytes());
    frame.push(control);
    frame.extend(body);
    if control & HAS_CRC != 0 {
        frame.extend(crc16(&frame).to_le_bytes());
    } else {
        frame.push(frame.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg());
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn poll(sequence: u8) -> Vec<u8> {
        frame(0, HAS_CRC | sequence, &[0x60])
    }

    fn challenge(key: u8) -> Vec<u8> {
        frame(0, HAS_CRC | HAS_BLOCK, &[&[3, BLOCK_CHALLENGE, key, CHLNG][..], &[7; 8]].concat())
    }

    fn proof() -> Vec<u8> {
        frame(0, HAS_CRC | HAS_BLOCK | 1, &[&[3, BLOCK_PROOF, 1, SCRYPT][..], &[7; 16]].concat())
    }

    fn answer() -> Vec<u8> {
        [&[MARK][..], &frame(IS_REPLY, HAS_CRC | HAS_BLOCK, &[&[3, BLOCK_ANSWER, 1, 0x76][..], &[7; 32]].concat())].concat()
    }

    fn take(gate: &mut Gate, bytes: &[u8]) -> (Vec<u8>, Vec<Dropped>) {
        gate.take(bytes, Instant::now())
    }

    #[test]
    fn a_proof_passes_once_and_only_after_our_own_answer_to_a_challenge() {
        let mut gate = Gate::new(0);
        assert_eq!(take(&mut gate, &proof()), (vec![], vec![Dropped::OutOfTurn]), "never challenged");
        assert_eq!(take(&mut gate, &challenge(1)).0, challenge(1));
        assert_eq!(take(&mut gate, &proof()).1, [Dropped::OutOfTurn], "the challenge was not answered");
        gate.replied(&answer());
        assert_eq!(take(&mut gate, &proof()).0, proof());
        assert_eq!(take(&mut gate, &proof()).1, [Dropped::OutOfTurn], "a second time");
        gate.replied(&answer());
        gate.replied(&frame(IS_REPLY, HAS_CRC, &[0x41, 1]));
        assert_eq!(take(&mut gate, &proof()).1, [Dropped::OutOfTurn], "something came between");
        gate.replied(&answer());
        gate.reset();
        assert_eq!(take(&mut gate, &proof()).1, [Dropped::OutOfTurn], "the line was cut");
    }

    #[test]
    fn a_frame_whose_block_does_not_go_with_its_code_is_dropped() {
        let mut gate = Gate::new(0);
        assert_eq!(take(&mut gate, &challenge(0)).1, [Dropped::DefaultKey]);
        for code in [0x00, 0x63, 0x6F, 0x70, 0x78, 0x90, 0xA6, 0xA8, 0xFF] {
            assert_eq!(take(&mut gate, &frame(0, HAS_CRC, &[code])).1, [Dropped::Form], "{code:x}");
            let signed = frame(0, HAS_CRC | HAS_BLOCK, &[2, BLOCK_SIGNED, code, 0, 0, 0, 0]);
            assert_eq!(take(&mut gate, &signed).1, [Dropped::Form], "{code:x}");
        }
        let bodies: [&[u8]; 9] = [
            &[3, BLOCK_CHALLENGE, 1, 0x68, 0, 2, 5, 0],
            &[3, BLOCK_PROOF, 1, 0x60],
            &[2, BLOCK_ANSWER, 0x60, 0, 0, 0, 0],
            &[2, 0x16, 0x60, 0, 0, 0, 0],
            &[0, BLOCK_SIGNED, 0x60, 0, 0, 0, 0],
            &[200, BLOCK_SIGNED, 0x60, 0, 0, 0, 0],
            &[2, BLOCK_SIGNED, 0x60, 0, 0, 0],
            &[2, BLOCK_ENCRYPTED, 0x68, 0, 0, 0, 0],
            &[2, BLOCK_SIGNED],
        ];
        for body in bodies {
            assert_eq!(take(&mut gate, &frame(0, HAS_CRC | HAS_BLOCK, body)).1, [Dropped::Form], "{body:x?}");
        }
        assert_eq!(take(&mut gate, &frame(0, HAS_CRC, &[&[SCRYPT][..], &[0; 16]].concat())).1, [Dropped::Form]);
        let signed = frame(0, HAS_CRC | HAS_BLOCK, &[2, BLOCK_SIGNED, 0x60, 1, 2, 3, 4]);
        assert_eq!(take(&mut gate, &signed).0, signed);
    }

    #[test]
    fn frames_of_others_noise_and_halves_are_passed_over_and_the_next_frame_is_found() {
        let mut gate = Gate::new(0);
        let others = [frame(1, HAS_CRC, &[0x60]), frame(IS_REPLY, HAS_CRC, &[0x40])].concat();
        let noise = [&[START, 0, 9, 0, 4][..], &[0xFF, START, START], &others, &[MARK], &poll(1), &[0x00]].concat();
        assert_eq!(take(&mut gate, &noise), (poll(1), vec![]));
        let now = Instant::now();
        let whole = poll(2);
        let (first, second) = whole.split_at(4);
        assert!(gate.take(first, now).0.is_empty());
        assert_eq!(gate.take(second, now + SILENCE / 2).0, poll(2));
        assert!(gate.take(first, now).0.is_empty());
        assert!(gate.take(second, now + SILENCE * 2).0.is_empty(), "the rest of a frame that was cut long ago");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        /// Whatever comes in whatever pieces: what goes on is whole frames of ours, none of a handshake out of turn, and little is kept.
        #[test]
        fn nothing_but_whole_frames_in_turn_goes_on(
            parts in proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(a, c, body)| frame(a & 1, c, &body)),
                Just(proof()), Just(challenge(1)), Just(poll(1)),
            ], 0..12),
        ) {
            let mut gate = Gate::new(0);
            for part in parts {
                let (passed, _) = take(&mut gate, &part);
                prop_assert!(gate.buffer.len() <= MAX_FRAME);
                let mut rest = &passed[..];
                while !rest.is_empty() {
                    let length = usize::from(u16::from_le_bytes([rest[2], rest[3]]));
                    let frame = &rest[..length];
                    prop_assert!(is_whole(frame) && matches!(frame[1], 0 | EVERYBODY));
                    prop_assert!(frame != proof(), "a proof without an answer");
                    rest = &rest[length..];
                }
            }
        }
    }
}
