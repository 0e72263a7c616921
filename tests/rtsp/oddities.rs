//! Streams and clips that are not as they should be: joined between two key frames, with packets lost, of pixels that are not square, turned,
//! with two videos at one address, and servers that say no.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faceid_plus::capture::settings::PixelAspect;
use faceid_plus::capture::{CameraSettings, CameraState, Source, Taken, Transport};
use faceid_plus::system::stop;
use faceid_plus::types::{CameraId, Frame};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::rtsp_server::{Plan, Server};
use super::{Camera, LIMIT, answering, file, options, reason_for, rtsp};

/// Pictures from one key frame to the next, and in all.
const GOP: usize = 15;
const PICTURES: usize = 75;
const PER_SECOND: u64 = 30;

/// A moving picture as RTP packets, a picture's together, and the same stream in a file.
fn stream(folder: &Path) -> (Vec<Vec<Vec<u8>>>, PathBuf) {
    gst::init().unwrap();
    let launch = format!(
        "videotestsrc pattern=smpte75 horizontal-speed=3 num-buffers={PICTURES} ! video/x-raw,format=I420,width=320,height=240,framerate={PER_SECOND}/1 ! \
         openh264enc gop-size={GOP} bitrate=1500000 ! h264parse config-interval=-1 ! tee name=both both. ! queue ! rtph264pay mtu=500 ! \
         fakesink name=packets signal-handoffs=true both. ! queue ! matroskamux ! filesink name=out"
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let path = folder.join("whole.mkv");
    pipeline.by_name("out").unwrap().set_property("location", path.to_str().unwrap());
    let packets = Arc::new(std::sync::Mutex::new(Vec::<Vec<Vec<u8>>>::new()));
    let sink = packets.clone();
    let probe = move |packet: &gst::BufferRef| {
        let packet = packet.map_readable().unwrap().to_vec();
        let mut pictures = sink.lock().unwrap();
        let stamp = |packet: &[u8]| packet[4..8].to_vec();
        match pictures.last_mut().filter(|last| stamp(&last[0]) == stamp(&packet)) {
            Some(last) => last.push(packet),
            None => pictures.push(vec![packet]),
        }
    };
    let pad = pipeline.by_name("packets").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(packet)) => probe(packet),
            Some(gst::PadProbeData::BufferList(packets)) => packets.iter().for_each(&probe),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let packets = std::mem::take(&mut *packets.lock().unwrap());
    assert_eq!(packets.len(), PICTURES);
    (packets, path)
}

/// Pictures, each in its packets.
type Pictures = Vec<Vec<Vec<u8>>>;

/// Plays pictures' packets over one RTSP connection at their speed; says when all are sent.
fn playing(pictures: Pictures) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (done, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let tell = told.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (pictures, tell, done) = (pictures.clone(), tell.clone(), done.clone());
            std::thread::spawn(move || serve(connection.unwrap(), &pictures, &tell, &done));
        }
    });
    (port, told)
}

fn serve(mut connection: TcpStream, pictures: &[Vec<Vec<u8>>], tell: &AtomicBool, done: &AtomicBool) {
    let (_handle, stop) = stop::pair();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        while let Some((head, rest)) = text.split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())) {
            text = rest;
            let number = head.lines().find_map(|line| line.strip_prefix("CSeq:")).unwrap_or("1").trim().to_owned();
            let (lines, body) = match head.split(' ').next() {
                Some("DESCRIBE") => ("Content-Type: application/sdp\r\n", description(&["video"])),
                Some("SETUP") => ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", String::new()),
                _ => ("Session: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", String::new()),
            };
            let length = body.len();
            let answer = format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{lines}Content-Length: {length}\r\n\r\n{body}");
            connection.write_all(answer.as_bytes()).unwrap();
            if head.starts_with("PLAY") && !done.swap(true, Ordering::AcqRel) {
                for (at, packets) in pictures.iter().enumerate() {
                    for packet in packets {
                        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
                        if connection.write_all(&[&[b'$', 0][..], &length, packet].concat()).is_err() {
                            return;
                        }
                    }
                    stop.sleep(Duration::from_millis(if at == 0 { 0 } else { 1000 / PER_SECOND }));
                }
                tell.store(true, Ordering::Release);
            }
        }
    }
}

fn description(media: &[&str]) -> String {
    let head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:*\r\n".to_owned();
    media.iter().enumerate().fold(head, |text, (at, media)| match *media {
        "video" => format!("{text}m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track{at}\r\n"),
        _ => format!("{text}m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=control:track{at}\r\n"),
    })
}

/// What is on a picture.
fn luma(frame: &Frame) -> Vec<u8> {
    let (plane, stride) = frame.picture.plane(0);
    let (width, height) = (frame.picture.width() as usize, frame.picture.height() as usize);
    (0..height).flat_map(|row| plane[row * stride..row * stride + width].to_vec()).collect()
}

/// Every picture of the stream as it should be.
fn whole(path: &Path) -> HashSet<Vec<u8>> {
    let camera = Camera::start(file(path, false, false), Path::new("/"));
    let mut pictures = HashSet::new();
    while let Taken::Item(_, frame) = camera.frames.take_any(LIMIT) {
        pictures.insert(luma(&frame));
    }
    assert!(pictures.len() > PICTURES / 2, "{}", pictures.len());
    pictures
}

/// Plays what is left of a stream; gives how many pictures came, after checking that each is one of the whole ones.
fn come_whole(pictures: Vec<Vec<Vec<u8>>>, expected: &HashSet<Vec<u8>>) -> usize {
    let (port, sent) = playing(pictures);
    let camera = Camera::start(Source::Rtsp(rtsp(&format!("rtsp://127.0.0.1:{port}/test"))), Path::new("/"));
    let (mut came, deadline) = (0, Instant::now() + LIMIT);
    while Instant::now() < deadline {
        match camera.frames.take_any(Duration::from_millis(700)) {
            Taken::Item(_, frame) => {
                came += 1;
                assert!(expected.contains(&luma(&frame)), "picture {came} is none of the stream's");
            }
            _ if sent.load(Ordering::Acquire) => return came,
            _ => {}
        }
    }
    panic!("the stream did not end");
}

#[test]
fn no_picture_before_the_first_key_frame_or_from_a_loss_to_the_next_one_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let (pictures, file) = stream(folder.path());
    let expected = whole(&file);
    // Nothing lost: as many as a busy machine has time for.
    let all = come_whole(pictures.clone(), &expected);
    assert!(all > PICTURES / 3, "{all}");
    // Joined behind a key frame.
    let joined = come_whole(pictures[4..].to_vec(), &expected);
    assert!(joined > 0 && joined <= PICTURES - GOP, "{joined}");
    // A packet is lost in the middle of a picture, at the end of one, a whole picture, and within a key frame.
    let lost: [&dyn Fn(&mut Pictures); 4] = [
        &|pictures| drop(pictures[GOP + 4].remove(0)),
        &|pictures| drop(pictures[GOP + 5].pop()),
        &|pictures| drop(pictures.remove(GOP + 6)),
        &|pictures| {
            let middle = pictures[2 * GOP].len() / 2;
            pictures[2 * GOP].remove(middle);
        },
    ];
    for (number, lose) in lost.into_iter().enumerate() {
        let mut pictures = pictures.clone();
        lose(&mut pictures);
        let came = come_whole(pictures, &expected);
        assert!(came > 0, "loss {number}");
        println!("loss {number}: {came} of {all} pictures");
    }
}

/// A clip whose pixels are of this shape.
fn clip_of(folder: &Path, name: &str, width: u32, height: u32, shape: &str) -> PathBuf {
    gst::init().unwrap();
    let launch = format!(
        "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width={width},height={height},framerate=30/1,pixel-aspect-ratio={shape} ! \
         openh264enc ! h264parse ! matroskamux ! filesink name=out"
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

#[test]
fn pixels_that_are_not_square_are_made_so_and_pictures_are_turned_as_the_camera_is_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let wide = clip_of(folder.path(), "wide.mkv", 160, 240, "2/1");
    let square = clip_of(folder.path(), "square.mkv", 320, 240, "1/1");
    let half = Some(PixelAspect { width: 2, height: 1 });
    for (path, turn, pixel_aspect, expected) in [
        (&square, 0, None, (320, 240)),
        (&wide, 0, None, (320, 240)),
        (&wide, 90, None, (240, 320)),
        (&square, 180, None, (320, 240)),
        (&square, 270, half, (240, 640)),
        (&square, 0, half, (640, 240)),
    ] {
        let id = CameraId::new("front").unwrap();
        let settings = CameraSettings { turn, pixel_aspect, ..CameraSettings::new(id, file(path, false, false)) };
        assert_eq!(settings.findings(), []);
        let picture = Camera::start_with(settings, folder.path()).frame().picture;
        assert_eq!((picture.width(), picture.height()), expected, "{path:?} {turn} {pixel_aspect:?}");
    }
}

#[test]
fn of_two_videos_at_one_address_the_one_that_is_asked_for_comes_at_every_start() {
    let of = |width: u32, height: u32, pay: u32| {
        format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height={height},framerate=15/1 ! openh264enc gop-size=15 ! \
             h264parse ! rtph264pay name=pay{pay} pt={} config-interval=-1",
            96 + pay
        )
    };
    let launch = format!("( {} {} )", of(320, 240, 0), of(160, 120, 1));
    let server = Server::start(&Plan { launch, ..Plan::test_picture() });
    for (video, width) in [(0, 320), (1, 160), (0, 320), (1, 160), (0, 320)] {
        let mut source = rtsp(&server.url());
        source.video = video;
        let picture = Camera::start(Source::Rtsp(source), Path::new("/")).frame().picture;
        assert_eq!(picture.width(), width, "video {video}");
    }
    let mut source = rtsp(&server.url());
    source.video = 2;
    let reason = reason_for(Source::Rtsp(source), Path::new("/"));
    assert!(reason.contains("describes 2 videos") && reason.contains("`video = 2` is none of them"), "{reason}");
}

#[test]
fn what_a_server_says_no_to_is_told_by_its_cause() {
    // The answer to DESCRIBE, the answer to SETUP, and what is told.
    let cases: [(&str, &[&str], &str, &str); 9] = [
        ("200 OK", &["video"], "461 Unsupported Transport", "does not send its pictures over TCP: set `transport = \"udp\"`"),
        ("200 OK", &["audio"], "200 OK", "holds no video: it describes sound or data alone"),
        ("401 Unauthorized", &[], "", "wants a user and a password: give `user` and `password-secret`"),
        ("403 Forbidden", &[], "", "answers 403 Forbidden"),
        ("404 Not Found", &[], "", "is not there"),
        ("453 Not Enough Bandwidth", &[], "", "has no room for another viewer: it answers 453 Not Enough Bandwidth"),
        ("454 Session Not Found", &[], "", "answers 454 Session Not Found"),
        ("500 Internal Server Error", &[], "", "answers 500 Internal Server Error"),
        ("503 Service Unavailable", &[], "", "has no room for another viewer: it answers 503 Service Unavailable"),
    ];
    for (described, media, set_up, expected) in cases {
        let (port, _requests) = answering(move |head, number| {
            let (status, body) = match head.split(' ').next() {
                Some("DESCRIBE") if described == "200 OK" => (described, description(media)),
                Some("DESCRIBE") => (described, String::new()),
                Some("SETUP") => (set_up, String::new()),
                _ => return options(number),
            };
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            format!("RTSP/1.0 {status}\r\nCSeq: {number}\r\n{kind}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        });
        let reason = reason_for(Source::Rtsp(rtsp(&format!("rtsp://127.0.0.1:{port}/test"))), Path::new("/"));
        assert!(reason.contains(expected), "{described} {media:?} {set_up}: {reason}");
    }
    let (port, _requests) = answering(|head, number| match head.split(' ').next() {
        Some("DESCRIBE") => {
            let body = description(&["video"]);
            let length = body.len();
            format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}")
                .into_bytes()
        }
        Some("SETUP") => format!("RTSP/1.0 461 Unsupported Transport\r\nCSeq: {number}\r\n\r\n").into_bytes(),
        _ => options(number),
    });
    let mut udp = rtsp(&format!("rtsp://127.0.0.1:{port}/test"));
    udp.transport = Transport::Udp;
    let reason = reason_for(Source::Rtsp(udp), Path::new("/"));
    assert!(reason.contains("over UDP: set `transport = \"tcp\"`"), "{reason}");
}

#[test]
fn why_a_camera_is_not_reached_is_told_apart_for_every_kind_of_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for host in ["127.0.0.1", "0.0.0.0"] {
        let reason = reason_for(Source::Rtsp(rtsp(&format!("rtsp://{host}:{port}/test"))), Path::new("/"));
        assert!(reason.contains(&format!("cannot be opened: nothing listens on port {port} of {host}")), "{reason}");
    }
    let reason = reason_for(Source::Rtsp(rtsp("rtsp://no-such-host.invalid/test")), Path::new("/"));
    assert!(reason.contains("no host is known as no-such-host.invalid"), "{reason}");
    let camera = Camera::start(file(Path::new("/nonexistent/clip.mp4"), true, true), Path::new("/"));
    assert!(camera.until(CameraState::Offline, LIMIT).reason.contains("is not there"));
}
