//! The line's bytes for the fuzzer: as they are, and as frames with a right check, so that it gets beyond the gate.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libosdp::{Channel, ChannelError, PeripheralDevice};

use super::frame::{self, Gate};
use super::{OsdpCommand, OsdpSettings, heard};

/// A line in memory: what is put in comes out through a gate, as at [`super::line::Line`].
struct Memory {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    gate: Arc<Mutex<Gate>>,
}

impl Channel for Memory {
    fn get_id(&self) -> i32 {
        0
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = buffer.len().min(bytes.len());
        buffer.iter_mut().zip(bytes.drain(..count)).for_each(|(to, from)| *to = from);
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).replied(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

struct Bench {
    device: PeripheralDevice,
    bytes: Arc<Mutex<VecDeque<u8>>>,
    gate: Arc<Mutex<Gate>>,
}

impl Bench {
    fn new() -> Option<Self> {
        let (bytes, gate) = (Arc::default(), Arc::new(Mutex::new(Gate::new(0))));
        let memory = Memory { bytes: Arc::clone(&bytes), gate: gate.clone() };
        let key = *b"0123456789abcdef";
        let mut device = super::device_on(&OsdpSettings::default(), &key, Box::new(memory)).ok()?;
        device.set_command_callback(|command: &mut OsdpCommand| -i32::from(matches!(heard(command), super::Heard::Refused)));
        Some(Self { device, bytes, gate })
    }

    fn feed(&mut self, piece: &[u8]) {
        let (passed, _) = self.gate.lock().unwrap_or_else(PoisonError::into_inner).take(piece, Instant::now());
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend(passed);
        self.device.refresh();
        assert!(!self.device.is_sc_active(), "a secure channel without the key");
    }
}

/// Each piece: a byte that says whether a frame is made of it, a length, then so many bytes.
pub(super) fn run(mut input: &[u8]) {
    thread_local! { static BENCH: RefCell<Option<Bench>> = RefCell::new(Bench::new()); }
    BENCH.with_borrow_mut(|bench| {
        let Some(bench) = bench else { return };
        while let [kind, length, rest @ ..] = input {
            let (body, next) = rest.split_at(usize::from(*length).min(rest.len()));
            input = next;
            match (kind & 1, body) {
                (1, [address, control, body @ ..]) => bench.feed(&frame::frame(*address, *control, body)),
                _ => bench.feed(body),
            }
        }
    });
}
