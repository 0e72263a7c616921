//! The local API under those who would take it from others: connections that drip, the costliest pictures, guessed tokens, pages in a
//! browser on the device, and whoever asks without a token for what only scores would tell.

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::House;
use super::http::{CLERK, Daemon, PANEL, PATIENCE, SCRAPER, demo, json, start};

/// Longer than any answer takes here, and shorter than what a siege could hold somebody up for.
const SOON: Duration = Duration::from_secs(4);

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(demo(&format!("people/{name}"))).unwrap()
}

fn is_answered_soon(daemon: &Daemon) {
    for (path, token) in [("/healthz", None), ("/readyz", None), ("/metrics", Some(SCRAPER))] {
        let began = Instant::now();
        assert_eq!(daemon.get(path, token).0, 200, "{path}");
        assert!(began.elapsed() < SOON, "{path} took {:?}", began.elapsed());
    }
}

#[test]
fn connections_that_drip_or_are_silent_or_idle_take_the_api_from_nobody() {
    let house = House::new();
    let daemon = start(&house, "");
    let open = |first: &str| {
        let mut stream = TcpStream::connect(&daemon.address).unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    // More than there are places, three times.
    let mut dripping: Vec<TcpStream> = (0..100).map(|_| open("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")).collect();
    is_answered_soon(&daemon);
    let _silent: Vec<TcpStream> = (0..100).map(|_| open("")).collect();
    is_answered_soon(&daemon);
    let _idle: Vec<TcpStream> = (0..100).map(|_| open("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    is_answered_soon(&daemon);
    assert_eq!(daemon.post("/liveness", Some(PANEL), &photo("person-a/person-a_0002.jpg")).0, 200);
    // One that finds a place and drips on is not let drip for long.
    drop(dripping.drain(..));
    let mut one = open("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ");
    one.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let began = Instant::now();
    loop {
        let sent = one.write_all(b"x");
        match one.read(&mut [0; 64]) {
            Ok(0) => break,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
            _ if sent.is_err() => break,
            _ => assert!(began.elapsed() < PATIENCE, "a head may drip for as long as it likes"),
        }
    }
}

#[test]
fn uploads_that_drip_leave_room_for_those_who_have_a_token() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let head = "POST /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n";
    let dripping: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(&daemon.address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    is_answered_soon(&daemon);
    let began = Instant::now();
    assert_eq!(daemon.post("/liveness", Some(PANEL), &photo("person-a/person-a_0002.jpg")).0, 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    drop(dripping);
}

/// The most memory that the daemon has had at once, in MB.
fn peak_mb(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kb.unwrap() * 1024 / 1_000_000
}

fn png(side: u32, bytes_a_pixel: usize, color: ExtendedColorType) -> Vec<u8> {
    let mut png = Vec::new();
    // Zeros, which the fast compression makes small.
    let raw = vec![0; (side * side) as usize * bytes_a_pixel];
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::NoFilter);
    encoder.write_image(&raw, side, side, color).unwrap();
    png
}

fn jpeg(width: u32, height: u32, orientation: Option<u8>) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 50);
    if let Some(orientation) = orientation {
        let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
        exif[19] = orientation;
        encoder.set_exif_metadata(exif).unwrap();
    }
    encoder.write_image(&vec![90; 3 * (width * height) as usize], width, height, ExtendedColorType::Rgb8).unwrap();
    jpeg
}

#[test]
fn eight_clients_with_the_costliest_pictures_take_no_more_memory_than_a_board_has() {
    let house = House::new();
    let daemon = start(&house, "requests-per-minute = 100000\n");
    let before = peak_mb(&daemon);
    let mut webp = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(3200, 3200, image::Rgb([9, 90, 200])).write_to(&mut webp, image::ImageFormat::WebP).unwrap();
    let pictures = [
        // What was a gigabyte, and what is just taken.
        (png(5000, 8, ExtendedColorType::Rgba16), 400),
        (png(3000, 8, ExtendedColorType::Rgba16), 200),
        (png(4300, 4, ExtendedColorType::Rgba8), 200),
        (png(5000, 1, ExtendedColorType::L8), 200),
        (jpeg(5000, 5000, None), 200),
        (jpeg(5000, 4990, Some(6)), 200),
        (webp.into_inner(), 200),
        // Nothing but bytes, as many as are taken.
        (vec![0x55; (8 << 20) - 4096], 400),
    ];
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (daemon, pictures) = (&daemon, &pictures);
            scope.spawn(move || {
                for turn in 0..pictures.len() {
                    let (bytes, expected) = &pictures[(client + turn) % pictures.len()];
                    let deadline = Instant::now() + 2 * PATIENCE;
                    loop {
                        let answer = daemon.post("/liveness", Some(PANEL), bytes);
                        if answer.0 == *expected {
                            break;
                        }
                        // Others are before it.
                        assert!(matches!(answer.0, 429 | 408 | 0), "{expected}: {answer:?}");
                        assert!(Instant::now() < deadline, "never its turn: {answer:?}");
                        std::thread::park_timeout(Duration::from_millis(100));
                    }
                }
            });
        }
    });
    let peak = peak_mb(&daemon);
    println!("the daemon's most memory: {before} MB before, {peak} MB in all");
    // What the pictures cost is bounded either way. Where the start alone takes more than a board's (a larger pack's networks) only that counts.
    assert!(peak <= 300 || (before > 170 && peak <= before + 130), "{before} MB before, {peak} MB in all");
    is_answered_soon(&daemon);
}

#[test]
fn whoever_guesses_tokens_learns_nothing_once_there_were_ten_and_the_right_one_works_seconds_later() {
    let house = House::new();
    let daemon = start(&house, "");
    assert_eq!(daemon.get("/people", Some(CLERK)).0, 200);
    let statuses: Vec<u16> = (0..300).map(|n| daemon.get("/people", Some(&format!("guessed-token-number-{n:012}"))).0).collect();
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    // One more for each six seconds that it takes.
    assert!((10..40).contains(&count(401)) && count(401) + count(429) == 300, "{statuses:?}");
    assert_eq!(daemon.get("/people", Some(CLERK)).0, 429, "the right one is told from the wrong ones");
    assert_eq!(daemon.get("/healthz", None).0, 200);
    let (began, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    while daemon.get("/people", Some(CLERK)).0 != 200 {
        assert!(Instant::now() < deadline, "locked out");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_page_in_a_browser_on_the_device_reads_and_changes_nothing() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let port = daemon.address.rsplit(':').next().unwrap().to_owned();
    let ask = |method: &str, path: &str, headers: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
        daemon.send(request.as_bytes()).0
    };
    for (method, path) in [("GET", "/readyz"), ("GET", "/healthz"), ("POST", "/recognize_face"), ("GET", "/people")] {
        let other = ["Host: evil.example\r\n", "Host: evil.example:8000\r\n", "Host: localhost\r\nOrigin: http://evil.example\r\n"];
        for headers in
            other.into_iter().chain(["Host: localhost\r\nOrigin: null\r\n", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"])
        {
            assert_eq!(ask(method, path, headers), 403, "{method} {path} {headers:?}");
        }
        assert_eq!(ask(method, path, ""), 400, "{path}");
    }
    let token = format!("Authorization: Bearer {CLERK}\r\n");
    assert_eq!(ask("DELETE", "/people/person-a", &format!("{token}Host: localhost\r\nOrigin: http://evil.example\r\n")), 403);
    for host in ["localhost".to_owned(), "127.0.0.1".to_owned(), daemon.address.clone(), "[::1]:80".to_owned()] {
        assert_eq!(ask("GET", "/readyz", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    let own = format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(ask("GET", "/people", &format!("{own}{token}")), 200);
}

#[test]
fn without_a_token_bands_are_told_and_with_one_scores() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let seen = |path: &str, token: Option<&str>, name: &str| {
        let answer = daemon.post(path, token, &photo(name));
        assert_eq!(answer.0, 200, "{answer:?}");
        json(&answer)["results"][0].clone()
    };
    let (known, unknown) = ("person-a/person-a_0002.jpg", "person-d/person-d_0001.jpg");
    let face = seen("/recognize_face", None, known);
    assert!(face["score"].is_null() && face["candidates"] == serde_json::json!([{"name": "person-a", "score": null}]), "{face}");
    assert!(["good", "strong"].contains(&face["match_band"].as_str().unwrap()), "{face}");
    let face = seen("/recognize_face", None, unknown);
    assert!(face["score"].is_null() && face["identity"].is_null() && face["candidates"].as_array().unwrap().is_empty(), "{face}");
    // Whichever threshold is asked for: a lower one than the doors' names nobody.
    let face = seen("/recognize_face?threshold=-1", None, unknown);
    assert!(face["identity"].is_null() && face["candidates"].as_array().unwrap().is_empty(), "{face}");
    let live = seen("/liveness", None, known);
    assert!(live["score"].is_null() && live["liveness_band"].is_string() && live["live"].is_boolean(), "{live}");

    let face = seen("/recognize_face", Some(PANEL), unknown);
    assert!(face["score"].is_number() && face["candidates"].as_array().unwrap().len() == 2, "{face}");
    assert!(face["candidates"][0]["score"].is_number(), "{face}");
    assert!(seen("/recognize_face?threshold=-1", Some(PANEL), unknown)["identity"].is_string());
    assert!(seen("/liveness", Some(PANEL), known)["score"].is_number());
}
