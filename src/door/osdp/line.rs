//! The serial line to the panel: opened raw, reopened when it was gone, its bytes through the [`Gate`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libosdp::{Channel, ChannelError};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};

use super::frame::{Dropped, Gate};
use crate::system::stop::{self, Stop};

/// How long until a line that is gone is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that writing a reply of at most 256 bytes may take: at 9600 baud it takes 270 ms.
const WRITE_DEADLINE: Duration = Duration::from_millis(400);
/// After how long frames that are dropped make a line of the log again.
const WARN_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Line {
    path: PathBuf,
    baud: u32,
    file: Option<File>,
    retry_at: Option<Instant>,
    /// Whether the log says already that the line is away.
    told: bool,
    gate: Gate,
    passed: VecDeque<u8>,
    warned: Option<(Dropped, Instant)>,
    /// Nobody asks this signal; it only waits.
    never: Stop,
}

impl Line {
    pub(super) fn new(path: PathBuf, baud: u32, address: u8) -> Self {
        let gate = Gate::new(address);
        let (_, never) = stop::pair();
        Self { path, baud, file: None, retry_at: None, told: false, gate, passed: VecDeque::new(), warned: None, never }
    }

    fn open(&self) -> std::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let mut modes = tcgetattr(&file)?;
        modes.make_raw();
        modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        modes.control_modes -= ControlModes::CRTSCTS | ControlModes::CSTOPB;
        modes.set_speed(self.baud)?;
        tcsetattr(&file, OptionalActions::Flush, &modes)?;
        Ok(file)
    }

    /// The open line; it is opened again at most once a second.
    fn file(&mut self) -> Option<&mut File> {
        if self.file.is_none() {
            let now = Instant::now();
            if self.retry_at.is_some_and(|at| now < at) {
                return None;
            }
            self.retry_at = Some(now + RETRY);
            match self.open() {
                Ok(file) => {
                    log::info!("the line {} to the panel is open", self.path.display());
                    self.told = false;
                    self.file = Some(file);
                }
                Err(error) if !self.told => {
                    self.told = true;
                    log::error!("the line {} to the panel: {error}", self.path.display());
                }
                Err(_) => {}
            }
        }
        self.file.as_mut()
    }

    fn lose(&mut self, why: &str) {
        log::warn!("the line {} to the panel is gone: {why}", self.path.display());
        self.file = None;
        self.told = true;
        self.retry_at = Some(Instant::now() + RETRY);
        self.passed.clear();
        self.gate.reset();
    }

    fn fill(&mut self) {
        let mut buffer = [0; 256];
        let Some(file) = self.file() else { return };
        match file.read(&mut buffer) {
            Ok(0) => self.lose("it ended"),
            Ok(count) => {
                let now = Instant::now();
                let (passed, dropped) = self.gate.take(&buffer[..count], now);
                self.passed.extend(passed);
                dropped.into_iter().for_each(|why| self.warn(why, now));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => self.lose(&error.to_string()),
        }
    }

    fn warn(&mut self, why: Dropped, now: Instant) {
        if self.warned.is_some_and(|(last, at)| last == why && now.duration_since(at) < WARN_AGAIN) {
            return;
        }
        self.warned = Some((why, now));
        match why {
            Dropped::DefaultKey => {
                log::error!("the panel offers the default key, which everybody knows: give it this reader's key")
            }
            Dropped::OutOfTurn => log::error!("a handshake on the panel's line came out of turn: somebody may be on the line"),
            Dropped::Form => log::warn!("a frame on the panel's line is not in its form: somebody may be on the line"),
        }
    }
}

impl Channel for Line {
    fn get_id(&self) -> i32 {
        0
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        if self.passed.is_empty() {
            self.fill();
        }
        let count = buffer.len().min(self.passed.len());
        for (to, from) in buffer.iter_mut().zip(self.passed.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        let deadline = Instant::now() + WRITE_DEADLINE;
        let mut done = 0;
        while done < bytes.len() {
            let Some(file) = self.file.as_mut() else { return Err(ChannelError::TransportError) };
            match file.write(&bytes[done..]) {
                Ok(count) => done += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if Instant::now() >= deadline {
                        return Err(ChannelError::TransportError);
                    }
                    self.never.sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    self.lose(&error.to_string());
                    return Err(ChannelError::TransportError);
                }
            }
        }
        self.gate.replied(bytes);
        Ok(done)
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        self.passed.clear();
        Ok(())
    }

    fn close(&mut self) -> Result<(), ChannelError> {
        self.file = None;
        self.retry_at = None;
        Ok(())
    }
}
