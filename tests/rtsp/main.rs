//! Cameras against a real RTSP server and real files: unplug, stall, size change, darkness, wrong passwords, garbage.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

mod oddities;
#[path = "../support/rtsp_server.rs"]
mod rtsp_server;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use faceid_plus::capture::settings::{FileSource, LaunchLine, LaunchSource, RtspSource, StreamUrl};
use faceid_plus::capture::{
    self, CameraEvent, CameraSettings, CameraState, CaptureError, Hardware, Slot, Slots, Source, Taken, Transport,
};
use faceid_plus::system::{StopHandle, clock, stop};
use faceid_plus::types::{CameraId, Frame, Layout};
use gio::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;
use rtsp_server::{Plan, Server};

/// A wait that is longer than anything that works takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// What is promised: a source that returns is back within this time.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const PASSWORD: &str = "s3cr3t/p@ss";

/// A camera on its own thread.
struct Camera {
    events: Receiver<CameraEvent>,
    frames: Slots<Frame>,
    slot: Slot<Frame>,
    handle: StopHandle,
    thread: Option<JoinHandle<Result<(), CaptureError>>>,
}

impl Camera {
    fn start(source: Source, secrets: &Path) -> Self {
        Self::start_on(Hardware::Auto, source, secrets)
    }

    fn start_on(hardware: Hardware, source: Source, secrets: &Path) -> Self {
        let mut settings = CameraSettings::new(CameraId::new("front").unwrap(), source);
        settings.hardware = hardware;
        Self::start_with(settings, secrets)
    }

    fn start_with(mut settings: CameraSettings, secrets: &Path) -> Self {
        settings.stall_timeout_ms = 1500;
        let shown = format!("{settings:?}");
        assert!(!shown.contains(PASSWORD), "{shown}");
        let (slot, frames) = Slot::single();
        let (sender, events) = mpsc::channel();
        let (handle, stop) = stop::pair();
        let (writer, secrets) = (slot.clone(), secrets.to_owned());
        // Whoever has heard enough hangs up; that is no fault of the camera.
        let tell = move |event| drop(sender.send(event));
        let thread = std::thread::spawn(move || capture::run(&settings, &secrets, &writer, &tell, &stop));
        Self { events, frames, slot, handle, thread: Some(thread) }
    }

    /// Waits for a state; what comes before is passed over, but never holds a password.
    fn until(&self, state: CameraState, limit: Duration) -> CameraEvent {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no {state:?} within {limit:?}"));
            eprintln!("{:?}: {}", event.state, event.reason);
            assert!(!event.reason.contains(PASSWORD) && !event.reason.contains("s3cr3t"), "{}", event.reason);
            if event.state == state {
                return event;
            }
        }
    }

    fn frame(&self) -> Frame {
        match self.frames.take_any(LIMIT) {
            Taken::Item(_, frame) => frame,
            other => panic!("no frame: {other:?}"),
        }
    }

    /// Waits until the run is over by itself.
    fn outcome(&mut self) -> Result<(), CaptureError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.handle.stop();
        self.slot.close();
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join().unwrap();
            assert!(outcome.is_ok() || std::thread::panicking(), "{outcome:?}");
        }
    }
}

fn rtsp(url: &str) -> RtspSource {
    let url = StreamUrl::new(url);
    RtspSource {
        url,
        transport: Transport::Tcp,
        user: None,
        password_secret: None,
        ca_file: None,
        fingerprint: None,
        latency_ms: 100,
        video: 0,
    }
}

fn file(path: &Path, repeat: bool, paced: bool) -> Source {
    Source::File(FileSource { path: path.to_owned(), repeat, paced })
}

/// Encodes a clip of a moving test picture, 320 x 240 at 30 frames a second.
fn clip(folder: &Path, name: &str, frames: u32) -> PathBuf {
    gst::init().unwrap();
    let muxer = if name.ends_with(".mp4") { "mp4mux" } else { "matroskamux" };
    let launch = format!(
        "videotestsrc num-buffers={frames} ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! openh264enc gop-size=30 ! \
         h264parse ! {muxer} ! filesink name=out"
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let path = folder.join(name);
    pipeline.by_name("out").unwrap().set_property("location", path.to_str().unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    path
}

/// Plays a source that should fail and gives the reason told.
fn reason_for(source: Source, secrets: &Path) -> String {
    let camera = Camera::start(source, secrets);
    let event = camera.until(CameraState::Offline, LIMIT);
    // A source that is played once ends with an error; that is what is asked for here.
    let mut camera = camera;
    camera.handle.stop();
    let _ = camera.outcome();
    event.reason
}

fn secret(folder: &Path, content: &str) {
    let path = folder.join("camera");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn files_that_are_no_video_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.mkv");
    std::fs::write(&text, "This is no video at all.\n".repeat(100)).unwrap();
    let reason = reason_for(file(&text, false, true), folder.path());
    assert!(reason.contains("text.mkv") && reason.contains("no video"), "{reason}");
    let missing = reason_for(file(&folder.path().join("none.mkv"), false, true), folder.path());
    assert!(missing.contains("none.mkv is not there"), "{missing}");
    let garbage = folder.path().join("garbage.mp4");
    std::fs::write(&garbage, (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>()).unwrap();
    let reason = reason_for(file(&garbage, false, true), folder.path());
    assert!(reason.contains("no video"), "{reason}");
    let empty = folder.path().join("empty.mkv");
    std::fs::write(&empty, "").unwrap();
    assert!(!reason_for(file(&empty, false, true), folder.path()).is_empty());
}

#[test]
fn a_clip_that_is_cut_off_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["clip.mkv", "clip.mp4"] {
        let path = clip(folder.path(), name, 150);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let mut camera = Camera::start(file(&path, false, false), folder.path());
        let mut frames = 0;
        while let Taken::Item(..) = camera.frames.take_any(LIMIT) {
            frames += 1;
        }
        assert!(frames < 150, "{name}: {frames}");
        let outcome = camera.outcome();
        let told = camera.events.try_iter().last().unwrap();
        eprintln!("{name}: {frames} frames, {told:?}, {outcome:?}");
        assert!(told.reason.contains("damaged"), "{name}: {}", told.reason);
    }
}

#[test]
fn a_lossless_file_gives_every_frame_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "clip.mkv", 90);
    let mut camera = Camera::start(file(&path, false, false), folder.path());
    let mut last: Option<Frame> = None;
    let mut count = 0;
    while let Taken::Item(_, frame) = camera.frames.take_any(LIMIT) {
        count += 1;
        assert_eq!(frame.number, count);
        if let Some(last) = &last {
            let gap = frame.captured_at.monotonic.since(last.captured_at.monotonic);
            assert!((Duration::from_millis(30)..Duration::from_millis(37)).contains(&gap), "{gap:?}");
        }
        last = Some(frame);
    }
    assert_eq!(count, 90);
    let frame = last.unwrap();
    assert_eq!((frame.picture.width(), frame.picture.height()), (320, 240));
    assert!(matches!(frame.picture.layout(), Layout::I420 | Layout::Nv12));
    camera.until(CameraState::Ended, LIMIT);
    camera.outcome().unwrap();
    assert_eq!(camera.slot.counts().replaced, 0);
}

#[test]
fn a_looped_file_goes_on_with_rising_times_and_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "clip.mkv", 10);
    for paced in [false, true] {
        let camera = Camera::start(file(&path, true, paced), folder.path());
        let mut last: Option<Frame> = None;
        while last.as_ref().is_none_or(|frame| frame.number < 35) {
            let frame = camera.frame();
            if let Some(last) = last {
                assert!(frame.number > last.number && frame.captured_at.monotonic > last.captured_at.monotonic);
            }
            last = Some(frame);
        }
        assert!(camera.events.try_iter().all(|event| event.state == CameraState::Online));
    }
}

#[test]
fn a_slow_reader_of_a_paced_file_loses_frames_and_they_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "clip.mkv", 45);
    let mut camera = Camera::start(file(&path, false, true), folder.path());
    camera.until(CameraState::Ended, LIMIT);
    camera.outcome().unwrap();
    let counts = camera.slot.counts();
    assert_eq!((counts.put, counts.taken, counts.replaced), (45, 0, 44));
    let frame = camera.frame();
    assert_eq!(frame.number, 45);
    assert!(frame.captured_at.monotonic <= clock::monotonic());
}

#[test]
fn nobody_listening_is_told_as_a_refused_connection() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = Source::Rtsp(rtsp(&format!("rtsp://127.0.0.1:{port}/test")));
    let reason = reason_for(source, Path::new("/"));
    assert!(reason.contains("cannot be opened"), "{reason}");
}

#[test]
fn a_wrong_password_is_named_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    for digest in [false, true] {
        let server = Server::start(&Plan::test_picture().login("admin", "right one", digest));
        secret(folder.path(), PASSWORD);
        let mut source = rtsp(&server.url());
        source.user = Some("admin".to_owned());
        source.password_secret = Some("camera".to_owned());
        let reason = reason_for(Source::Rtsp(source.clone()), folder.path());
        assert!(reason.contains("refuses the user or the password"), "{reason}");
        secret(folder.path(), "right one\n");
        let camera = Camera::start(Source::Rtsp(source), folder.path());
        camera.until(CameraState::Online, LIMIT);
    }
}

/// A server made by hand that answers each request (its head, its number) as it likes and keeps every request that it gets.
fn answering(answer: impl Fn(&str, &str) -> Vec<u8> + Clone + Send + 'static) -> (u16, Receiver<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender, answer) = (stream.unwrap(), sender.clone(), answer.clone());
            std::thread::spawn(move || {
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    text.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    while let Some((head, rest)) = text.split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())) {
                        text = rest;
                        let number = head.lines().find_map(|line| line.strip_prefix("CSeq:")).unwrap_or("1").trim().to_owned();
                        let answer = answer(&head, &number);
                        let _ = sender.send(head);
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (port, requests)
}

/// What a server says that it can do.
fn options(number: &str) -> Vec<u8> {
    format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n").into_bytes()
}

/// One that wants a login of the given kind.
fn wanting(challenge: &'static str) -> (u16, Receiver<String>) {
    answering(move |head, number| match head.split(' ').next() {
        Some("OPTIONS") => options(number),
        _ => format!("RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\nWWW-Authenticate: {challenge}\r\n\r\n").into_bytes(),
    })
}

/// As many requests as one try may make, and what is on its way when it ends.
const TRY: usize = 32 + 8;

#[test]
fn a_camera_that_sends_us_from_one_address_to_the_next_is_left_after_a_few() {
    // The second host is one that goes through the guard; the third server asks for a login without end.
    for (host, code, target) in [
        ("127.0.0.1", "302 Moved Temporarily", "again"),
        ("127.0.0.1", "301 Moved Permanently", "again"),
        ("0.0.0.0", "302 Moved Temporarily", "again"),
        ("127.0.0.1", "302 Moved Temporarily", "elsewhere"),
    ] {
        let (other, heard_elsewhere) = answering(|_, number| options(number));
        let (sender, port) = mpsc::channel::<u16>();
        let port = std::sync::Arc::new(std::sync::Mutex::new(port));
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let own = std::sync::Arc::new(std::sync::OnceLock::new());
        let (count, answering_port) = (asked.clone(), own.clone());
        let (at, _requests) = answering(move |_, number| {
            let port = *answering_port.get_or_init(|| port.lock().unwrap().recv().unwrap());
            let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let to = if target == "again" { port } else { other };
            format!("RTSP/1.0 {code}\r\nCSeq: {number}\r\nLocation: rtsp://{host}:{to}/{count}\r\n\r\n").into_bytes()
        });
        sender.send(at).unwrap();
        let began = Instant::now();
        let reason = reason_for(Source::Rtsp(rtsp(&format!("rtsp://{host}:{at}/test"))), Path::new("/"));
        let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
        eprintln!("{host} {code} {target}: {asked} requests in {:?}; {reason}", began.elapsed());
        assert!(asked <= TRY && heard_elsewhere.try_iter().count() <= TRY, "{asked}");
        if target == "again" {
            assert!(reason.contains("is left: 32 requests were made and it does not play"), "{reason}");
        }
    }
}

#[test]
fn a_redirect_of_a_camera_that_nobody_vouches_for_leads_to_no_other_host() {
    let (inner, heard) = answering(|_, number| options(number));
    let (at, _requests) = answering(move |_, number| {
        format!("RTSP/1.0 302 Moved Temporarily\r\nCSeq: {number}\r\nLocation: rtsp://127.0.0.1:{inner}/inner\r\n\r\n").into_bytes()
    });
    let reason = reason_for(Source::Rtsp(rtsp(&format!("rtsp://0.0.0.0:{at}/test"))), Path::new("/"));
    assert_eq!(heard.try_iter().count(), 0, "{reason}");
}

/// What a server describes that wants to cost memory.
fn description(manner: &str) -> (Vec<u8>, Vec<u8>) {
    let head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n";
    let media = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    match manner {
        "media" => (head.into(), media.repeat(20_000).into()),
        "attributes" => (head.into(), format!("{media}{}", "a=x:y\r\n".repeat(100_000)).into()),
        "formats" => (head.into(), format!("m=video 0 RTP/AVP{}\r\n", " 96".repeat(20_000)).into()),
        "clock" => (head.into(), format!("a=x-gst-clock:GstNetTimeProvider x 127.0.0.1:9 0\r\n{media}").into()),
        // Twice what a try may cost; more would take longer to make than a camera is waited for.
        _ => (head.into(), vec![b'a'; 96 << 20]),
    }
}

const DESCRIBED: &str = "FACEID_TEST_DESCRIBED";

/// No test of its own: a camera that plays what a server describes, alone in its process so that its memory can be measured.
#[test]
fn described_child() {
    let Ok(address) = std::env::var(DESCRIBED) else { return };
    // What GStreamer loads is not the server's doing.
    let _ = reason_for(Source::Rtsp(rtsp("rtsp://127.0.0.1:9/none")), Path::new("/"));
    let status = || std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = || {
        let status = status();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak();
    let reason = reason_for(Source::Rtsp(rtsp(&address)), Path::new("/"));
    println!("\nGREW {} REASON {reason}", (peak() - before) / 1024);
}

#[test]
fn what_a_camera_describes_costs_no_memory_and_is_refused_in_words() {
    for (host, manner, why) in [
        ("127.0.0.1", "media", "20000 media streams; 16 are the most"),
        ("127.0.0.1", "attributes", "its description is too long"),
        ("127.0.0.1", "formats", "its description is too long"),
        ("127.0.0.1", "clock", "no camera's clock is followed"),
        ("0.0.0.0", "media", "65536 are the most"),
        ("0.0.0.0", "endless", "65536 are the most"),
    ] {
        let (port, _requests) = answering(move |head, number| match head.split(' ').next() {
            Some("DESCRIBE") => {
                let (head, rest) = description(manner);
                let length = head.len() + rest.len();
                let answer = format!(
                    "RTSP/1.0 200 OK\r\nCSeq: {number}\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n"
                );
                [answer.into_bytes(), head, rest].concat()
            }
            _ => options(number),
        });
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "described_child", "--nocapture", "--test-threads=1"])
            .env(DESCRIBED, format!("rtsp://{host}:{port}/test"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = text.lines().find_map(|line| line.strip_prefix("GREW ")).unwrap_or_else(|| panic!("{output:?}"));
        eprintln!("{host} {manner}: {told}");
        let (grew, reason) = told.split_once(" REASON ").unwrap();
        assert!(reason.contains("is left: ") || reason.contains("cannot be opened: "), "{reason}");
        assert!(reason.contains(why), "{reason}");
        assert!(grew.parse::<u64>().unwrap() < MOST_MB, "{host} {manner}: {told}");
    }
}

/// The most that a try may cost, in MB.
const MOST_MB: u64 = 48;

#[test]
fn a_password_is_never_sent_in_the_clear_beyond_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), PASSWORD);
    let source = |host: &str, port: u16| {
        let mut source = rtsp(&format!("rtsp://{host}:{port}/test"));
        source.user = Some("admin".to_owned());
        source.password_secret = Some("camera".to_owned());
        source
    };
    // The address that is everybody's is this machine too, and no loopback by its name.
    let (port, requests) = wanting("Basic realm=\"cam\"");
    let reason = reason_for(Source::Rtsp(source("0.0.0.0", port)), folder.path());
    assert!(reason.contains("in the clear (Basic authentication), and it was not sent"), "{reason}");
    let told: Vec<String> = requests.try_iter().collect();
    assert!(told.iter().any(|head| head.starts_with("DESCRIBE rtsp://0.0.0.0:")), "it was asked: {told:?}");
    assert!(told.iter().all(|head| !head.contains("Authorization")), "{told:?}");
    // Digest is answered, and what is sent does not hold the password.
    let (port, requests) = wanting("Digest realm=\"cam\", nonce=\"abc\"");
    let reason = reason_for(Source::Rtsp(source("0.0.0.0", port)), folder.path());
    assert!(reason.contains("refuses the user or the password"), "{reason}");
    let told: Vec<String> = requests.try_iter().collect();
    assert!(told.iter().any(|head| head.contains("Authorization: Digest username=\"admin\"")), "{told:?}");
    assert!(told.iter().all(|head| !head.contains("Basic") && !head.contains("s3cr3t")), "{told:?}");
    // On this machine nobody reads along.
    let (port, requests) = wanting("Basic realm=\"cam\"");
    let _ = reason_for(Source::Rtsp(source("127.0.0.1", port)), folder.path());
    assert!(requests.try_iter().any(|head| head.contains("Authorization: Basic")), "a real server's answer is tested elsewhere");
}

#[test]
fn a_camera_with_digest_plays_through_the_guard_over_both_transports_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), PASSWORD);
    let plan = Plan::test_picture().login("admin", PASSWORD, true);
    let server = Server::start(&plan);
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut source = rtsp(&server.url().replace("127.0.0.1", "0.0.0.0"));
        (source.transport, source.user, source.password_secret) = (transport, Some("admin".to_owned()), Some("camera".to_owned()));
        let camera = Camera::start(Source::Rtsp(source), folder.path());
        camera.until(CameraState::Online, LIMIT);
        while camera.frame().number < 20 {}
    }
    let mut source = rtsp(&server.url().replace("127.0.0.1", "0.0.0.0"));
    (source.user, source.password_secret) = (Some("admin".to_owned()), Some("camera".to_owned()));
    let camera = Camera::start(Source::Rtsp(source), folder.path());
    camera.until(CameraState::Online, LIMIT);
    let plan = Plan { port: server.port, ..plan };
    server.kill();
    camera.until(CameraState::Offline, LIMIT);
    let _server = Server::start(&plan);
    camera.until(CameraState::Online, BACK_WITHIN);
}

/// A certificate that signed itself, with its key; gives its file and its SHA-256.
fn certificate(folder: &Path, name: &str, to: &str) -> (PathBuf, String) {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").args(arguments).current_dir(folder).output();
        let output = output.expect("openssl is missing: run `make deps`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    let (subject, other) = (format!("/CN={name}"), format!("subjectAltName={to}"));
    run(&["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-addext", &other, "-days", "2", "-out", &pem]);
    let print = run(&["x509", "-noout", "-fingerprint", "-sha256", "-in", &pem]);
    let both = [std::fs::read_to_string(folder.join(&pem)).unwrap(), std::fs::read_to_string(folder.join(&key)).unwrap()].concat();
    let path = folder.join(format!("{name}-both.pem"));
    std::fs::write(&path, both).unwrap();
    (path, print.trim().to_owned())
}

#[test]
fn a_camera_with_a_certificate_is_believed_by_authority_or_fingerprint_alone_and_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (right, print) = certificate(folder.path(), "camera", "IP:127.0.0.1");
    let (wrong, other_print) = certificate(folder.path(), "other", "IP:192.0.2.9");
    let server = Server::start(&Plan { tls: Some(right), ..Plan::test_picture() });
    let source = |server: &Server| rtsp(&server.url().replace("rtsp://", "rtsps://"));
    // Nobody vouches for it: refused, with what is to be pinned.
    let reason = reason_for(Source::Rtsp(source(&server)), folder.path());
    let digits = print.split_once('=').unwrap().1;
    assert!(reason.contains("no known authority has signed it") && reason.contains(digits), "{reason}");
    let mut pinned = source(&server);
    pinned.fingerprint = Some(other_print.clone());
    let reason = reason_for(Source::Rtsp(pinned.clone()), folder.path());
    assert!(reason.contains("not the one of `fingerprint`") && reason.contains(digits), "{reason}");
    let mut by_authority = source(&server);
    by_authority.ca_file = Some(folder.path().join("camera.pem"));
    pinned.fingerprint = Some(print);
    for believed in [by_authority, pinned] {
        let camera = Camera::start(Source::Rtsp(believed), folder.path());
        camera.until(CameraState::Online, LIMIT);
        camera.frame();
    }
    // Made out to another address: the authority is not enough, the fingerprint is.
    let server = Server::start(&Plan { tls: Some(wrong), ..Plan::test_picture() });
    let mut elsewhere = source(&server);
    elsewhere.ca_file = Some(folder.path().join("other.pem"));
    let reason = reason_for(Source::Rtsp(elsewhere.clone()), folder.path());
    assert!(reason.contains("made out to another name or address"), "{reason}");
    elsewhere.fingerprint = Some(other_print);
    let camera = Camera::start(Source::Rtsp(elsewhere), folder.path());
    camera.until(CameraState::Online, LIMIT);
}

#[test]
fn what_is_pinned_is_no_matter_of_the_authorities_that_the_system_believes() {
    let folder = tempfile::tempdir().unwrap();
    let (both, print) = certificate(folder.path(), "vouched", "IP:127.0.0.1");
    let (_, other_print) = certificate(folder.path(), "another", "IP:127.0.0.1");
    // As if it stood among the system's own. What the tests beside this one show is vouched for by neither.
    let system = gio::TlsFileDatabase::new(folder.path().join("vouched.pem")).unwrap();
    gio::TlsBackend::default().set_default_database(Some(&system));
    let server = Server::start(&Plan { tls: Some(both), ..Plan::test_picture() });
    let url = server.url().replace("rtsp://", "rtsps://");
    let mut by_other_authority = rtsp(&url);
    by_other_authority.ca_file = Some(folder.path().join("another.pem"));
    let reason = reason_for(Source::Rtsp(by_other_authority), folder.path());
    assert!(reason.contains("no known authority has signed it"), "{reason}");
    let mut pinned = rtsp(&url);
    pinned.fingerprint = Some(other_print);
    pinned.ca_file = Some(folder.path().join("vouched.pem"));
    let reason = reason_for(Source::Rtsp(pinned.clone()), folder.path());
    assert!(reason.contains("not the one of `fingerprint`"), "{reason}");
    // Without either, and in a pipeline of the operator's own, the system's authorities count; what is pinned needs none.
    pinned.fingerprint = Some(print);
    let line = format!("rtspsrc location={url} protocols=tcp ! decodebin ! videoconvert ! appsink name=faceid");
    let own = Source::Launch(LaunchSource { pipeline: LaunchLine::new(line) });
    for source in [Source::Rtsp(rtsp(&url)), own, Source::Rtsp(pinned)] {
        let camera = Camera::start(source, folder.path());
        camera.until(CameraState::Online, LIMIT);
        camera.frame();
    }
}

#[test]
fn a_password_that_a_camera_wants_in_its_address_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), PASSWORD);
    let server = Server::start(&Plan::test_picture());
    let base = server.url().replace("/test", "");
    for url in [
        format!("{base}/user=admin&password=s3cr3t/p@ss&channel=1&stream=0.sdp?real_stream"),
        format!("{base}/user=admin_password=s3cr3t_channel=1_stream=0.sdp"),
        format!("{base}/none?PWD=s3cr3t"),
        format!("{base}/none;p%61ss=s3cr3t#token=s3cr3t"),
    ] {
        let reason = reason_for(Source::Rtsp(rtsp(&url)), folder.path());
        assert!(reason.contains("rtsp://") && !reason.contains("p@ss") && !reason.contains("s3cr3t"), "{reason}");
    }
    // From a secret, the same.
    let (port, requests) = wanting("Digest realm=\"cam\", nonce=\"abc\"");
    let mut source = rtsp(&format!("rtsp://127.0.0.1:{port}/user=admin&password={{password}}&channel=1"));
    source.password_secret = Some("camera".to_owned());
    reason_for(Source::Rtsp(source), folder.path());
    assert!(requests.try_iter().any(|head| head.contains("/user=admin&password=s3cr3t%2Fp%40ss&channel=1")));
}

#[test]
fn a_missing_secret_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = rtsp("rtsp://127.0.0.1:1/test");
    source.user = Some("admin".to_owned());
    source.password_secret = Some("no-such-secret".to_owned());
    let reason = reason_for(Source::Rtsp(source), folder.path());
    assert!(reason.contains("no-such-secret"), "{reason}");
}

#[test]
fn an_unplugged_camera_is_back_within_five_seconds() {
    let server = Server::start(&Plan::test_picture());
    let camera = Camera::start(Source::Rtsp(rtsp(&server.url())), Path::new("/"));
    camera.until(CameraState::Online, LIMIT);
    let before = camera.frame().number;
    let plan = Plan { port: server.port, ..Plan::test_picture() };
    server.kill();
    camera.until(CameraState::Offline, LIMIT);
    // The longest waits come after several failures: those are let happen.
    for _ in 0..4 {
        let _ = camera.events.recv_timeout(Duration::from_secs(1));
    }
    let _server = Server::start(&plan);
    camera.until(CameraState::Online, BACK_WITHIN);
    while camera.frame().number <= before {}
}

#[test]
fn a_frozen_camera_is_stalled_and_comes_back() {
    let server = Server::start(&Plan::test_picture());
    let camera = Camera::start(Source::Rtsp(rtsp(&server.url())), Path::new("/"));
    camera.until(CameraState::Online, LIMIT);
    server.freeze();
    let event = camera.until(CameraState::Stalled, LIMIT);
    assert!(event.reason.contains("no frame"), "{}", event.reason);
    server.thaw();
    camera.until(CameraState::Online, LIMIT);
}

#[test]
fn a_stream_may_change_its_size() {
    let mut server = Server::start(&Plan::test_picture());
    let camera = Camera::start(Source::Rtsp(rtsp(&server.url())), Path::new("/"));
    camera.until(CameraState::Online, LIMIT);
    assert_eq!(camera.frame().picture.width(), 320);
    server.set("size", "caps", "video/x-raw,format=I420,width=640,height=480,framerate=15/1");
    while camera.frame().picture.width() != 640 {}
    assert_eq!(camera.frame().picture.height(), 480);
}

#[test]
fn a_dark_camera_is_noticed_and_so_is_its_light() {
    let mut server = Server::start(&Plan::test_picture());
    let mut source = rtsp(&server.url());
    source.transport = Transport::Udp;
    let camera = Camera::start(Source::Rtsp(source), Path::new("/"));
    camera.until(CameraState::Online, LIMIT);
    server.set("src", "pattern", "black");
    camera.until(CameraState::Dark, LIMIT);
    server.set("src", "pattern", "smpte");
    camera.until(CameraState::Online, LIMIT);
}

#[test]
fn a_stream_that_ends_is_connected_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&Plan::file(&clip(folder.path(), "clip.mkv", 30)));
    let camera = Camera::start(Source::Rtsp(rtsp(&server.url())), Path::new("/"));
    camera.until(CameraState::Online, LIMIT);
    camera.until(CameraState::Offline, LIMIT);
    camera.until(CameraState::Online, LIMIT);
}

#[test]
fn a_custom_pipeline_gives_frames_and_a_bad_one_keeps_its_secrets() {
    let launch = |text: String| Source::Launch(LaunchSource { pipeline: LaunchLine::new(text) });
    let camera = Camera::start(
        launch("videotestsrc is-live=true ! video/x-raw,format=RGB ! appsink name=faceid".to_owned()),
        Path::new("/"),
    );
    assert_eq!(camera.frame().picture.layout(), Layout::Rgb);
    let bad =
        launch(format!("rtspsrc location=rtsp://a:{PASSWORD}@h/ user-pw={PASSWORD} nonsense={PASSWORD} ! appsink name=faceid"));
    let reason = reason_for(bad, Path::new("/"));
    assert!(reason.contains("pipeline is refused") && !reason.contains("s3cr3t"), "{reason}");
    let reason = reason_for(launch("videotestsrc ! fakesink name=faceid".to_owned()), Path::new("/"));
    assert!(reason.contains("appsink name=faceid"), "{reason}");
}

#[test]
fn software_alone_decodes_and_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "clip.mp4", 5);
    let mut settings = CameraSettings::new(CameraId::new("front").unwrap(), file(&path, false, false));
    settings.hardware = Hardware::Software;
    let told = capture::describe(&settings);
    assert!(told.decoding.starts_with("software") && told.missing.is_empty(), "{told}");
    let camera = Camera::start_on(Hardware::Software, settings.source, folder.path());
    assert_eq!(camera.frame().number, 1);
    assert!(capture::pipelines::plugins().unwrap().iter().any(|plugin| plugin.element == "rtspsrc" && plugin.is_present));
}

#[test]
fn rows_that_the_decoder_padded_are_read_in_place() {
    let text = "videotestsrc is-live=true ! video/x-raw,format=I420,width=336,height=256 ! openh264enc ! h264parse ! avdec_h264 ! \
                appsink name=faceid";
    let launch = Source::Launch(LaunchSource { pipeline: LaunchLine::new(text) });
    let camera = Camera::start(launch, Path::new("/"));
    let picture = camera.frame().picture;
    // Without the sink's word that strides are welcome, the decoder copies into rows of 336 bytes. (It also copies where it must crop:
    // sizes that are no multiple of 16.)
    assert_eq!((picture.width(), picture.height()), (336, 256));
    assert!(picture.plane(0).1 > 336, "{}", picture.plane(0).1);
}
