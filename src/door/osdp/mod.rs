//! The controller as an OSDP v2 reader, on the `libosdp` crate: it answers the panel's polls in a thread of its own, presents cards, and
//! hands on what the panel says.
//!
//! Nothing is presented and nothing is heard outside the secure channel, whose key is the installer's own. Before the library sees a
//! byte of the line it has gone through [`frame`], which says why. The library is C: a fault in it can end this process, and then the
//! lock is locked; `faceid door` is a process of its own, that neither cameras nor templates are in.
//!
//! The library draws its nonces from the C library's `rand`, which it never seeds: after each start they would be the same, and what was
//! recorded once could be played again. So the generator is seeded from the system's before each turn; a nonce has 32 bits of chance.

mod frame;
mod line;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libosdp::{
    Channel, OsdpCardFormats, OsdpCommand, OsdpEvent, OsdpEventCardRead, OsdpFlag, OsdpLedColor, PdCapEntity, PdCapability, PdId,
    PdInfoBuilder, PeripheralDevice,
};
use zeroize::Zeroizing;

use super::hardware::DoorError;
use super::panel::{Card, Colour, OsdpSettings, Panel, Word};
use crate::system::secret;
use crate::system::stop::{self, Stop, StopHandle};
use line::Line;

/// How often the line is looked at. The panel waits 200 ms for an answer.
const TURN: Duration = Duration::from_millis(5);
/// Cards that wait for the thread, and words that wait for the controller; beyond them the newest are dropped.
const CARDS: usize = 4;
const WORDS: usize = 64;
/// SCBK-D of the standard.
const DEFAULT_KEY: [u8; 16] = [0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F];

#[expect(unsafe_code, reason = "one function of the C library, which is declared safe below")]
unsafe extern "C" {
    // SAFETY: takes any number, and the C library guards the generator's state with a lock of its own.
    safe fn srand(seed: core::ffi::c_uint);
}

/// The reader; dropping it ends its thread.
struct Reader {
    cards: SyncSender<Card>,
    words: Receiver<Word>,
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
}

/// Reads the key and begins to answer on the line, or to wait for it.
pub(super) fn open(settings: &OsdpSettings, line: &Path, secrets: &Path) -> Result<Box<dyn Panel>, DoorError> {
    let failed = |detail: String| DoorError::Panel { line: line.to_owned(), detail };
    let key = read_key(&settings.key_secret, secrets).map_err(&failed)?;
    let address = u8::try_from(settings.address).map_err(|error| failed(error.to_string()))?;
    let device = device_on(settings, &key, Box::new(Line::new(line.to_owned(), settings.baud, address))).map_err(&failed)?;
    let (cards, presented) = sync_channel(CARDS);
    let (sender, words) = sync_channel(WORDS);
    let (handle, stop) = stop::pair();
    let within = Duration::from_millis(u64::from(settings.present_within_ms));
    let thread = std::thread::Builder::new()
        .name("osdp".into())
        .spawn(move || answer(device, &presented, &sender, within, &stop))
        .map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(Reader { cards, words, stop: handle, thread: Some(thread) }))
}

/// 32 hexadecimal digits that are neither the default key nor one byte again and again.
fn read_key(name: &str, secrets: &Path) -> Result<Zeroizing<[u8; 16]>, String> {
    let text = secret::read_line(name, secrets).map_err(|error| error.to_string())?;
    let wrong = || format!("secret `{name}` is no key of 32 hexadecimal digits: make one with `openssl rand -hex 16`");
    if text.len() != 32 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut key = Zeroizing::new([0; 16]);
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    if *key == DEFAULT_KEY || key.iter().all(|byte| *byte == key[0]) {
        return Err(format!("secret `{name}` is a key that everybody knows: make one with `openssl rand -hex 16`"));
    }
    Ok(key)
}

fn device_on(settings: &OsdpSettings, key: &[u8; 16], line: Box<dyn Channel>) -> Result<PeripheralDevice, String> {
    let wrong = |error: libosdp::OsdpError| error.to_string();
    let number = |value: u32| i32::try_from(value).unwrap_or(-1);
    let info = PdInfoBuilder::new()
        .name("faceid")
        .and_then(|info| info.address(number(settings.address)))
        .and_then(|info| info.baud_rate(number(settings.baud)))
        .map_err(wrong)?
        .id(&PdId { version: 1, model: 1, vendor_code: (0, 0, 0), serial_number: [0; 4], firmware_version: (0, 1, 0) })
        .capability(PdCapability::CommunicationSecurity(PdCapEntity::new(1, 0)))
        .capability(PdCapability::CardDataFormat(PdCapEntity::new(1, 0)))
        .capability(PdCapability::LedControl(PdCapEntity::new(1, 1)))
        .capability(PdCapability::AudibleOutput(PdCapEntity::new(1, 1)))
        .capability(PdCapability::TextOutput(PdCapEntity::new(1, 1)))
        .capability(PdCapability::OutputControl(PdCapEntity::new(1, 1)))
        .flag(OsdpFlag::EnforceSecure)
        .secure_channel_key(*key);
    PeripheralDevice::new(info, line).map_err(wrong)
}

impl Panel for Reader {
    fn present(&mut self, card: Card) {
        if self.cards.try_send(card).is_err() {
            log::error!("a card was not presented: too many wait");
        }
    }

    fn next(&mut self) -> Option<Word> {
        self.words.try_recv().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

/// The thread: a turn of the library every few milliseconds, for ever.
fn answer(mut device: PeripheralDevice, cards: &Receiver<Card>, words: &SyncSender<Word>, within: Duration, stop: &Stop) {
    let said = words.clone();
    let mut light = None;
    device.set_command_callback(move |command: &mut OsdpCommand| match heard(command) {
        Heard::Word(word) => {
            // A panel repeats its light with every change of it.
            let is_news = !matches!(&word, Word::Light(colour) if light.replace(*colour) == Some(*colour));
            if is_news && said.try_send(word).is_err() {
                log::warn!("what the panel says is dropped: too much waits");
            }
            0
        }
        Heard::Nothing => 0,
        Heard::Refused => -1,
    });
    let tell = |word| {
        if words.try_send(word).is_err() {
            log::warn!("what the panel says is dropped: too much waits");
        }
    };
    let mut secure = false;
    let mut asked_until: Option<Instant> = None;
    while !stop.sleep(TURN) {
        seed();
        device.refresh();
        if device.is_sc_active() != secure {
            secure = !secure;
            tell(Word::Secure(secure));
        }
        if let Some(until) = asked_until
            && (!secure || Instant::now() >= until)
        {
            // Whatever the panel has not fetched by now it must not fetch later.
            device.flush_events();
            asked_until = None;
        }
        match cards.try_recv() {
            Ok(card) => {
                if secure && present(&mut device, card) {
                    asked_until = Some(Instant::now() + within);
                } else {
                    tell(Word::NotPresented);
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

fn seed() {
    let mut bytes = [0; 4];
    // The system's generator fails at early boot at most; a turn with the seed of before is better than none.
    if getrandom::fill(&mut bytes).is_ok() {
        srand(u32::from_ne_bytes(bytes));
    }
}

fn present(device: &mut PeripheralDevice, card: Card) -> bool {
    let format = if card.is_wiegand { OsdpCardFormats::Wiegand } else { OsdpCardFormats::Unspecified };
    let read = OsdpEventCardRead { reader_no: 0, format, direction: false, nr_bits: card.bits, data: card.bytes };
    device.notify_event(OsdpEvent::CardRead(read)).is_ok()
}

enum Heard {
    Word(Word),
    Nothing,
    Refused,
}

/// What a command means. A panel changes neither our key nor our address over the line: that is the installer's.
fn heard(command: &OsdpCommand) -> Heard {
    match command {
        OsdpCommand::Led(led) => {
            let params = match (led.temporary.control_code, led.permanent.control_code) {
                (2, _) => &led.temporary,
                (_, 1) => &led.permanent,
                _ => return Heard::Nothing,
            };
            let colour = if params.on_count == 0 { params.off_color } else { params.on_color };
            Heard::Word(Word::Light(match colour {
                OsdpLedColor::None => Colour::Off,
                OsdpLedColor::Red => Colour::Red,
                OsdpLedColor::Green => Colour::Green,
                _ => Colour::Other,
            }))
        }
        OsdpCommand::Output(output) => match output.control_code {
            2 | 4 | 5 => Heard::Word(Word::Output(true)),
            1 | 3 | 6 => Heard::Word(Word::Output(false)),
            _ => Heard::Nothing,
        },
        OsdpCommand::Buzzer(buzzer) if buzzer.control_code == 2 => Heard::Word(Word::Buzzer),
        OsdpCommand::Text(text) => {
            let shown = text.data.iter().filter(|byte| (b' '..=b'~').contains(*byte)).map(|byte| char::from(*byte)).collect();
            Heard::Word(Word::Text(shown))
        }
        // Neither tampered with nor without power, as the library has filled it in.
        OsdpCommand::Buzzer(_) | OsdpCommand::Status(_) => Heard::Nothing,
        _ => Heard::Refused,
    }
}

/// What the fuzzer feeds: the line's bytes in pieces, to the gate and what it lets through to a device of the library.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    fuzzing::run(bytes);
}

#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;

#[cfg(test)]
mod tests;
