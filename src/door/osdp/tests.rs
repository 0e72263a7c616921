//! The reader against a control panel of the same library, and against somebody on the line, over pseudo terminals.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::rc::Rc;

use libosdp::{
    ChannelError, ControlPanel, ControlPanelBuilder, OsdpCommandBuzzer, OsdpCommandKeyset, OsdpCommandLed, OsdpCommandOutput,
    OsdpCommandText, OsdpLedParams,
};

use super::*;
use crate::door::panel::{CardFormat, CardNumber, CardSettings};
use crate::system::testing::emulator_lacks;
use crate::types::PersonId;

const KEY: [u8; 16] = *b"\x94\x4b\x8e\xdd\xcb\xaa\x2b\x5f\xe2\xb0\x14\x8d\x1b\x2f\x95\xc9";
const PATIENCE: Duration = Duration::from_secs(30);

/// A pseudo terminal: our end, and where the reader finds its own.
struct Pty {
    near: File,
    far: PathBuf,
    /// Kept open, so that the line does not end while nobody has it open.
    _far: OwnedFd,
}

#[expect(unsafe_code, reason = "the C library's call has no safe form among our dependencies' features")]
fn pty() -> Pty {
    let (mut near, mut far) = (0, 0);
    let mut name = [0u8; 128];
    // SAFETY: the name fits (`/dev/pts/N`), the other pointers are to live integers or null, and the descriptors are ours alone.
    let (near, far_fd) = unsafe {
        assert_eq!(libc::openpty(&mut near, &mut far, name.as_mut_ptr().cast(), std::ptr::null(), std::ptr::null()), 0);
        (File::from_raw_fd(near), OwnedFd::from_raw_fd(far))
    };
    let flags = rustix::fs::fcntl_getfl(&near).unwrap();
    rustix::fs::fcntl_setfl(&near, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let end = name.iter().position(|byte| *byte == 0).unwrap();
    Pty { near, far: std::str::from_utf8(&name[..end]).unwrap().into(), _far: far_fd }
}

struct PanelEnd(Option<File>);

impl Channel for PanelEnd {
    fn get_id(&self) -> i32 {
        1
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        match self.0.as_mut().ok_or(ChannelError::TransportError)?.read(buffer) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(ChannelError::TransportError),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        self.0.as_mut().ok_or(ChannelError::TransportError)?.write(bytes).map_err(|_| ChannelError::TransportError)
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), ChannelError> {
        self.0 = None;
        Ok(())
    }
}

/// How many, and they.
type Bits = (usize, Vec<u8>);

/// A panel, and the cards that reached it.
struct Access {
    panel: ControlPanel,
    cards: Rc<RefCell<Vec<Bits>>>,
}

impl Access {
    fn new(line: &Pty, key: Option<[u8; 16]>, flags: &[OsdpFlag]) -> Self {
        let info = PdInfoBuilder::new().name("front").unwrap().address(0).unwrap().baud_rate(9600).unwrap();
        let info = flags.iter().fold(info, |info, flag| info.flag(*flag));
        let info =
            key.map_or(PdInfoBuilder::new().name("front").unwrap().baud_rate(9600).unwrap(), |key| info.secure_channel_key(key));
        let channel = Box::new(PanelEnd(Some(line.near.try_clone().unwrap())));
        let mut panel = ControlPanelBuilder::new().add_channel(channel, vec![info]).build().unwrap();
        let cards = Rc::new(RefCell::new(Vec::new()));
        let seen = cards.clone();
        panel.set_event_callback(move |_, event| {
            if let OsdpEvent::CardRead(card) = event {
                seen.borrow_mut().push((card.nr_bits, card.data));
            }
            0
        });
        Self { panel, cards }
    }

    /// Turns the panel until there is an answer.
    fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.panel.refresh();
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            pause(3);
        }
    }

    fn turn_for(&mut self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until {
            self.panel.refresh();
            pause(3);
        }
    }

    fn secure(&mut self) {
        self.until("the secure channel", |access| access.panel.is_sc_active(0).then_some(()));
    }
}

fn pause(ms: u64) {
    let (_handle, never) = stop::pair();
    never.sleep(Duration::from_millis(ms));
}

fn settings() -> OsdpSettings {
    let person = PersonId::new("ada").unwrap();
    let people = vec![CardSettings { person, facility: 118, number: CardNumber(1603) }];
    OsdpSettings { present_within_ms: 300, people, format: CardFormat::Wiegand26, ..OsdpSettings::default() }
}

fn write_key(folder: &Path, text: &str) {
    let path = folder.join("osdp-key");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn reader_on(line: &Path) -> Box<dyn Panel> {
    let folder = tempfile::tempdir().unwrap();
    write_key(folder.path(), &KEY.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    open(&settings(), line, folder.path()).unwrap()
}

fn card() -> Card {
    settings().card(&PersonId::new("ada").unwrap()).unwrap()
}

/// Facility 118, number 1603 in H10301.
fn adas_bits() -> Bits {
    (26, vec![0b1011_1011, 0b0000_0011, 0b0010_0001, 0b1000_0000])
}

#[test]
fn a_key_that_everybody_knows_a_short_one_and_one_that_others_may_read_are_refused_and_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let line = Path::new("/dev/null");
    let default = "303132333435363738393a3b3c3d3e3f";
    for (text, why) in [
        (default, "everybody knows"),
        ("303132333435363738393A3B3C3D3E3F\n", "everybody knows"),
        (&"00".repeat(16), "everybody knows"),
        ("944b8eddcbaa2b5f", "32 hexadecimal digits"),
        ("944b8eddcbaa2b5fe2b0148d1b2f95zz", "32 hexadecimal digits"),
        (&"\u{e9}".repeat(16), "32 hexadecimal digits"),
    ] {
        write_key(folder.path(), text);
        let error = open(&settings(), line, folder.path()).err().unwrap().to_string();
        assert!(error.contains(why) && !error.contains(text.trim()), "{error}");
    }
    write_key(folder.path(), "944b8eddcbaa2b5fe2b0148d1b2f95c9");
    std::fs::set_permissions(folder.path().join("osdp-key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open(&settings(), line, folder.path()).err().unwrap().to_string().contains("chmod 600"));
}

#[test]
fn a_panel_without_the_key_with_another_or_with_the_default_one_gets_no_card() {
    if emulator_lacks("the settings of a serial line (TCGETS2)") {
        return;
    }
    let cases = [
        ("no secure channel", None, &[][..]),
        ("the default key", Some(DEFAULT_KEY), &[][..]),
        ("another key", Some([7; 16]), &[OsdpFlag::EnforceSecure][..]),
    ];
    let mut scenes = Vec::new();
    for (what, key, flags) in cases {
        let line = pty();
        let mut reader = reader_on(&line.far);
        let access = Access::new(&line, key, flags);
        reader.present(card());
        scenes.push((what, line, reader, access));
    }
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        scenes.iter_mut().for_each(|(.., access)| access.panel.refresh());
        pause(3);
    }
    for (what, _line, mut reader, access) in scenes {
        assert_eq!(*access.cards.borrow(), [], "{what}");
        assert_eq!(reader.next(), Some(Word::NotPresented), "{what}");
        assert_eq!(reader.next(), None, "{what}");
    }
}

#[test]
fn a_panel_with_the_key_gets_a_card_once_and_its_light_text_and_output_are_heard() {
    if emulator_lacks("the settings of a serial line (TCGETS2)") {
        return;
    }
    let line = pty();
    let mut reader = reader_on(&line.far);
    let mut access = Access::new(&line, Some(KEY), &[OsdpFlag::EnforceSecure]);
    access.secure();
    access.until("the reader to be secure", |_| (reader.next()? == Word::Secure(true)).then_some(()));
    reader.present(card());
    access.until("the card", |access| (!access.cards.borrow().is_empty()).then_some(()));
    let green = OsdpLedParams { control_code: 2, on_count: 5, on_color: OsdpLedColor::Green, timer_count: 5, ..Default::default() };
    for command in [
        OsdpCommand::Led(OsdpCommandLed { temporary: green, ..OsdpCommandLed::default() }),
        OsdpCommand::Output(OsdpCommandOutput { output_no: 0, control_code: 5, timer_count: 30 }),
        OsdpCommand::Text(OsdpCommandText {
            control_code: 1,
            offset_row: 1,
            offset_col: 1,
            data: b"Hi Ada\x07".to_vec(),
            ..Default::default()
        }),
        OsdpCommand::Buzzer(OsdpCommandBuzzer { reader: 0, control_code: 2, on_count: 1, off_count: 1, rep_count: 1 }),
    ] {
        access.panel.send_command(0, command).unwrap();
    }
    let wanted = [Word::Light(Colour::Green), Word::Output(true), Word::Text("Hi Ada".into()), Word::Buzzer];
    let mut heard = Vec::new();
    access.until("the panel's words", |_| {
        heard.extend(reader.next());
        (heard.len() == wanted.len()).then_some(())
    });
    assert_eq!(heard, wanted);
    access.turn_for(800);
    assert_eq!(*access.cards.borrow(), [adas_bits()], "once");
}

#[test]
fn a_card_that_the_panel_does_not_fetch_in_time_never_comes() {
    if emulator_lacks("the settings of a serial line (TCGETS2)") {
        return;
    }
    let line = pty();
    let mut reader = reader_on(&line.far);
    let mut access = Access::new(&line, Some(KEY), &[OsdpFlag::EnforceSecure]);
    access.secure();
    access.until("the reader to be secure", |_| (reader.next()? == Word::Secure(true)).then_some(()));
    // Answers of before are drained, and then the panel is silent for longer than the card waits.
    reader.present(card());
    pause(900);
    access.turn_for(1_000);
    assert_eq!(*access.cards.borrow(), []);
    access.secure();
    reader.present(card());
    access.until("the next card", |access| (!access.cards.borrow().is_empty()).then_some(()));
    access.turn_for(300);
    assert_eq!(*access.cards.borrow(), [adas_bits()]);
}

#[test]
fn a_line_that_is_gone_and_back_is_taken_up_again_and_a_panel_cannot_change_the_key() {
    if emulator_lacks("the settings of a serial line (TCGETS2)") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line");
    let first = pty();
    symlink(&first.far, &path).unwrap();
    let mut reader = reader_on(&path);
    let mut access = Access::new(&first, Some(KEY), &[OsdpFlag::EnforceSecure]);
    access.secure();
    let fresh = OsdpCommandKeyset::new_scbk([9; 16]);
    access.panel.send_command(0, OsdpCommand::KeySet(fresh)).unwrap();
    access.turn_for(300);
    drop(access);
    drop(first);
    let second = pty();
    std::fs::remove_file(&path).unwrap();
    symlink(&second.far, &path).unwrap();
    let mut access = Access::new(&second, Some(KEY), &[OsdpFlag::EnforceSecure]);
    access.secure();
    pause(50);
    while reader.next().is_some() {}
    reader.present(card());
    access.until("a card on the new line", |access| (!access.cards.borrow().is_empty()).then_some(()));
    assert_eq!(*access.cards.borrow(), [adas_bits()]);
}

/// What somebody on the line reads within a while.
fn answers(line: &mut Pty, frame: &[u8]) -> Vec<u8> {
    line.near.write_all(frame).unwrap();
    let mut heard = Vec::new();
    for _ in 0..40 {
        pause(5);
        let mut buffer = [0; 256];
        if let Ok(count) = line.near.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
    }
    heard
}

/// CRC, security block, and this sequence number.
fn control(sequence: u8) -> u8 {
    0x0C | sequence
}

/// The panel's proof for a session whose keys and nonces are all zero: AES-128 of zeros under zeros (FIPS 197).
fn zero_proof() -> Vec<u8> {
    let zeros = [0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b, 0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34, 0x2b, 0x2e];
    frame::frame(0, control(0), &[&[3, 0x13, 1, 0x77][..], &zeros].concat())
}

#[test]
fn a_proof_without_a_challenge_opens_no_secure_channel_though_the_library_alone_would_take_it() {
    let mut line = pty();
    let mut reader = reader_on(&line.far);
    pause(50);
    assert!(answers(&mut line, &zero_proof()).is_empty(), "no answer");
    assert_eq!(reader.next(), None);

    // Without the gate it would: this is what the gate is for. When the library has mended it, this says so.
    struct Bare(std::collections::VecDeque<u8>);
    impl Channel for Bare {
        fn get_id(&self) -> i32 {
            2
        }
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
            let count = buffer.len().min(self.0.len());
            buffer.iter_mut().zip(self.0.drain(..count)).for_each(|(to, from)| *to = from);
            Ok(count)
        }
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> Result<(), ChannelError> {
            Ok(())
        }
        fn close(&mut self) -> Result<(), ChannelError> {
            Ok(())
        }
    }
    let mut bare = device_on(&settings(), &KEY, Box::new(Bare(zero_proof().into()))).unwrap();
    (0..5).for_each(|_| bare.refresh());
    assert!(bare.is_sc_active(), "the library has been mended: see `frame`");
}

#[test]
fn nonces_are_not_those_of_the_last_start() {
    if emulator_lacks("the settings of a serial line (TCGETS2)") {
        return;
    }
    let nonce = || {
        // As at the start of a process.
        srand(1);
        let mut line = pty();
        let _reader = reader_on(&line.far);
        pause(50);
        let challenge = frame::frame(0, control(0), &[&[3, 0x11, 1, 0x76][..], &[1; 8]].concat());
        let answer = answers(&mut line, &challenge);
        let at = answer.windows(4).position(|bytes| bytes == [3, 0x12, 1, 0x76]).expect("an answer to the challenge");
        // Identity, then the nonce.
        answer[at + 12..at + 20].to_vec()
    };
    assert_ne!(nonce(), nonce());
}

/// A walk of drawn pieces over gate and library: the fuzzer's promise in every test run.
#[test]
fn drawn_bytes_on_the_line_end_nothing_and_open_no_secure_channel() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut input = Vec::new();
        for _ in 0..random.usize(1..6) {
            let body: &[u8] = match random.u8(0..6) {
                0 => &[0, 0x0C, 3, 0x11, 1, 0x76, 1, 2, 3, 4, 5, 6, 7, 8],
                1 => &[0, 0x0D, 3, 0x13, 1, 0x77, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
                2 => &[0, 0x04, 0x61, 0],
                3 => &[0x7F, 0x05, 0x62, 0],
                _ => &[],
            };
            let mut body = body.to_vec();
            (0..random.usize(0..3)).for_each(|_| body.push(random.u8(..)));
            if !body.is_empty() && random.bool() {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            input.extend([random.u8(..), u8::try_from(body.len()).unwrap()]);
            input.extend(body);
        }
        fuzzing::run(&input);
    }
}
