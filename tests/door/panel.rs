//! `faceid door` as the OSDP reader of an access panel: the real binary on a pseudo terminal, the panel made with the same library. Only a
//! verified grant is presented, once; the panel's verdict is told, and where it has the last word it alone unlocks.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::FromRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use faceid_plus::access::grant::{Claims, GrantKey};
use faceid_plus::publish::{Notice, Subscriber};
use faceid_plus::system::stop;
use libosdp::{
    Channel, ChannelError, ControlPanel, ControlPanelBuilder, OsdpCommand, OsdpCommandLed, OsdpEvent, OsdpFlag, OsdpLedColor,
    OsdpLedParams, PdInfoBuilder,
};
use serde_json::Value;

use super::mosquitto::{PATIENCE, secret, wait_for};
use super::{Scene, claims, settings};

const KEY: [u8; 16] = *b"\x94\x4b\x8e\xdd\xcb\xaa\x2b\x5f\xe2\xb0\x14\x8d\x1b\x2f\x95\xc9";

/// The panel's end of the line, which can be cut.
struct End {
    file: File,
    cut: Rc<Cell<bool>>,
}

// The panel stays on the test's thread; the trait asks for more than is needed.
#[allow(unsafe_code, reason = "`Channel` wants `Send`, and the panel never leaves its thread")]
// SAFETY: neither the panel nor its channel is moved to another thread.
unsafe impl Send for End {}

impl Channel for End {
    fn get_id(&self) -> i32 {
        1
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        match self.file.read(buffer) {
            Ok(count) => Ok(if self.cut.get() { 0 } else { count }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(ChannelError::TransportError),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        if self.cut.get() { Ok(bytes.len()) } else { self.file.write(bytes).map_err(|_| ChannelError::TransportError) }
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

/// The panel on its line, and what reached it.
struct Desk {
    panel: ControlPanel,
    cards: Rc<RefCell<Vec<Vec<u8>>>>,
    cut: Rc<Cell<bool>>,
    line: String,
}

impl Desk {
    #[allow(unsafe_code, reason = "the C library's call has no safe form among our dependencies")]
    fn new() -> Self {
        let (mut near, mut far) = (0, 0);
        let mut name = [0u8; 128];
        // SAFETY: the name fits (`/dev/pts/N`), the other pointers are to live integers or null, and the descriptor is ours alone. The
        // other end stays open as long as the process, so that the line does not end while nobody has it open.
        let file = unsafe {
            assert_eq!(libc::openpty(&mut near, &mut far, name.as_mut_ptr().cast(), std::ptr::null(), std::ptr::null()), 0);
            File::from_raw_fd(near)
        };
        let flags = rustix::fs::fcntl_getfl(&file).unwrap();
        rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let line = name.split(|byte| *byte == 0).next().unwrap();
        let cut = Rc::new(Cell::new(false));
        let info = PdInfoBuilder::new().name("front").unwrap().baud_rate(9600).unwrap();
        let info = info.flag(OsdpFlag::EnforceSecure).secure_channel_key(KEY);
        let end = Box::new(End { file, cut: cut.clone() });
        let mut panel = ControlPanelBuilder::new().add_channel(end, vec![info]).build().unwrap();
        let cards = Rc::new(RefCell::new(Vec::new()));
        let seen = cards.clone();
        panel.set_event_callback(move |_, event| {
            if let OsdpEvent::CardRead(card) = event {
                seen.borrow_mut().push(card.data);
            }
            0
        });
        Self { panel, cards, cut, line: String::from_utf8(line.to_vec()).unwrap() }
    }

    fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Option<T>) -> T {
        let (_handle, never) = stop::pair();
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.panel.refresh();
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            never.sleep(Duration::from_millis(2));
        }
    }

    fn turn_for(&mut self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        self.until("time to pass", |_| (Instant::now() >= until).then_some(()));
    }

    fn light(&mut self, colour: OsdpLedColor) {
        let params = OsdpLedParams { control_code: 2, on_count: 5, on_color: colour, timer_count: 5, ..Default::default() };
        let led = OsdpCommandLed { temporary: params, ..OsdpCommandLed::default() };
        self.panel.send_command(0, OsdpCommand::Led(led)).unwrap();
    }
}

/// The next message of the door that is `wanted`, or has it in it where that is a piece of JSON.
fn told(ear: &Subscriber, desk: &mut Desk, wanted: &str) -> String {
    desk.until(wanted, |_| match ear.next(Duration::from_millis(1))? {
        Notice::Message(message) => {
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            (text == wanted || wanted.starts_with('"') && text.contains(wanted)).then_some(text)
        }
        _ => None,
    })
}

fn scene_on(desk: &Desk, more: &str) -> (Scene, Subscriber) {
    let line = &desk.line;
    let scene = Scene::with(|folder| {
        secret(folder, "osdp-key", KEY.iter().map(|byte| format!("{byte:02x}")).collect::<String>().as_bytes());
        format!(
            "unlock-ms = 500\nlock = \"{more}\"\n[controller.osdp]\nline = \"{line}\"\nkey-secret = \"{}\"\nverdict-within-ms = 2000\n\
             people = [{{ person = \"p0\", facility = 118, number = 1603 }}]\n",
            folder.join("osdp-key").display()
        )
    });
    let ear = Subscriber::start(&settings(scene.broker.port), scene.folder.path(), "faceid/gate/door/front/#").unwrap();
    wait_for("our own subscription", || (ear.next(PATIENCE)? == Notice::Subscribed).then_some(()));
    scene.past_the_first_start();
    (scene, ear)
}

#[test]
fn only_a_verified_grant_is_presented_and_the_panels_verdict_alone_unlocks_and_is_told() {
    let mut desk = Desk::new();
    let (scene, ear) = scene_on(&desk, "panel");
    // What the broker keeps of a controller before must not stand until the line is up.
    told(&ear, &mut desk, "lost");
    told(&ear, &mut desk, "secure");

    // Altered, foreign, late, for another door: none reaches the panel. A fresh grant comes after them on the same topic.
    let token = scene.key.sign(&claims("front"));
    let mut bytes = token.clone().into_bytes();
    bytes[token.rfind('.').unwrap() + 10] ^= 1;
    scene.publish("front", &String::from_utf8(bytes).unwrap());
    scene.publish("front", &GrantKey::generate().unwrap().sign(&claims("front")));
    scene.publish("front", &scene.key.sign(&claims("back")));
    let fresh = claims("front");
    let late = Claims { iat: fresh.iat - 60, nbf: fresh.nbf - 60, exp: fresh.iat - 10, ..fresh.clone() };
    scene.publish("front", &scene.key.sign(&late));
    let token = scene.key.sign(&fresh);
    scene.publish("front", &token);
    desk.until("the card", |desk| (!desk.cards.borrow().is_empty()).then_some(()));
    // Again: used before.
    scene.publish("front", &token);
    desk.turn_for(300);
    assert_eq!(*desk.cards.borrow(), [[0b1011_1011, 0b0000_0011, 0b0010_0001, 0b1000_0000]], "once, and p0's number");
    desk.light(OsdpLedColor::Green);
    let verdict: Value = serde_json::from_str(&told(&ear, &mut desk, "\"verdict\":\"granted\"")).unwrap();
    assert_eq!((verdict["jti"].as_str(), verdict["person"].as_str()), (Some(fresh.jti.as_str()), Some("p0")));
    assert!(!verdict.to_string().contains("1603"));
    told(&ear, &mut desk, "unlocked");
    told(&ear, &mut desk, "locked");

    // Denied: the state never changes, which the next grant's shows.
    scene.publish("front", &scene.key.sign(&claims("front")));
    desk.until("the card", |desk| (desk.cards.borrow().len() == 2).then_some(()));
    desk.light(OsdpLedColor::Red);
    told(&ear, &mut desk, "\"verdict\":\"denied\"");
    // The panel's line is cut: nothing is presented late, and nothing unlocks.
    desk.cut.set(true);
    scene.publish("front", &scene.key.sign(&claims("front")));
    told(&ear, &mut desk, "\"verdict\":\"silent\"");
    desk.cut.set(false);
    desk.until("the line again", |desk| desk.panel.is_sc_active(0).then_some(()));
    desk.turn_for(500);
    assert_eq!(desk.cards.borrow().len(), 2, "a card of before came late");
    while let Some(notice) = ear.next(Duration::from_millis(1)) {
        let Notice::Message(message) = notice else { continue };
        assert_ne!(message.payload, b"unlocked", "{}", message.topic);
    }
}

#[test]
fn a_key_that_everybody_knows_is_a_config_error() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), "osdp-key", b"303132333435363738393a3b3c3d3e3f\n");
    let keys = folder.path().join("keys.json");
    let public = GrantKey::generate().unwrap().public();
    std::fs::write(&keys, faceid_plus::access::grant::KeySet::new([public]).to_jwk_set()).unwrap();
    let config = folder.path().join("door.toml");
    let text = format!(
        "[controller]\ndoor = \"front\"\npinned-keys = \"{}\"\nlock = \"panel\"\n[controller.osdp]\nline = \"/dev/null\"\n\
         key-secret = \"{}\"\n",
        keys.display(),
        folder.path().join("osdp-key").display()
    );
    std::fs::write(&config, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_faceid"))
        .args(["door", "--config"])
        .arg(&config)
        .env("FACEID_STATE_DIR", folder.path().join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("everybody knows") && !said.contains("3031"), "{said}");
}
