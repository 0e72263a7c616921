//! The local API of the real daemon: the seed project's client unchanged, tokens and scopes, rates that outlive a restart, and requests
//! that are none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::House;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const PANEL: &str = "panel-token-of-more-than-thirty-two-characters";
pub(super) const CLERK: &str = "clerk-token-of-more-than-thirty-two-characters";
pub(super) const SCRAPER: &str = "scraper-token-of-more-than-thirty-two-characters";

pub(super) struct Daemon {
    pub(super) child: Child,
    pub(super) address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn demo(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(path)
}

/// A house with two demo people, tokens, and a daemon before an empty corridor that has judged its first frame.
pub(super) fn start(house: &House, http: &str) -> Daemon {
    let daemon = launch(house, http, &demo("idle.mp4"));
    daemon.await_readiness(|(status, _)| *status == 200);
    daemon
}

/// The same with a camera that plays `clip`, as soon as the API listens.
fn launch(house: &House, http: &str, clip: &Path) -> Daemon {
    if !house.path("secrets").exists() {
        house.succeed(&["keygen"]);
        for person in ["person-a", "person-c"] {
            let photo = demo(&format!("people/{person}/{person}_0001.jpg"));
            house.succeed(&["enroll", person, photo.to_str().unwrap()]);
        }
        let tokens = house.path("secrets/http.tokens");
        std::fs::write(&tokens, format!("panel recognize {PANEL}\nclerk people,admin {CLERK}\nscraper metrics {SCRAPER}\n"))
            .unwrap();
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let config = house.path("config.toml");
    let text = format!(
        "[models]\npack = \"builtin\"\n[access]\naccept-demo-pack = true\n\
         [publish]\nhost = \"127.0.0.1\"\nport = 1\n[[cameras]]\nid = \"hall\"\n[cameras.source.file]\npath = \"{}\"\nloop = true\n\
         paced = true\n[[doors]]\nid = \"hall\"\ncameras = [\"hall\"]\n[http]\nlisten = \"127.0.0.1:0\"\n{http}",
        clip.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = house.command();
    let mut child = command.arg("--config").arg(&config).arg("run").stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.by_ref().find(|line| line.contains("the API listens")).expect("the API did not start");
    // What else it logs is read away, so that it never blocks.
    std::thread::spawn(move || log.for_each(drop));
    let at = line.find("127.0.0.1:").unwrap();
    let address: String = line[at..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    Daemon { child, address }
}

impl Daemon {
    /// Waits until `/readyz` answers as `is_it` wants; gives the answer.
    fn await_readiness(&self, is_it: impl Fn(&(u16, String)) -> bool) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/readyz", None);
            if is_it(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Sends bytes as they are; gives status and body.
    pub(super) fn send(&self, request: &[u8]) -> (u16, String) {
        let answer = self.send_and_tell_all(request);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    /// Sends bytes as they are; gives the whole answer.
    fn send_and_tell_all(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server that has refused already may close before everything was sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(super) fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\r\n").as_bytes())
    }

    /// Posts `bytes` as the part `file`, as every HTTP library does.
    pub(super) fn post(&self, path: &str, token: Option<&str>, bytes: &[u8]) -> (u16, String) {
        self.post_form(path, token, &[], &[bytes])
    }

    /// Posts words and pictures.
    pub(super) fn post_form(&self, path: &str, token: Option<&str>, words: &[(&str, &str)], pictures: &[&[u8]]) -> (u16, String) {
        let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let mut body = Vec::new();
        for (name, word) in words {
            let part = format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{word}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        for bytes in pictures {
            body.extend_from_slice(
                b"--frontier\r\nContent-Disposition: form-data; name=\"file\"; filename=\"face.jpg\"\r\n\
                Content-Type: image/jpeg\r\n\r\n",
            );
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--frontier--\r\n");
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}Content-Type: multipart/form-data; \
             boundary=frontier\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.send(&request)
    }
}

impl Daemon {
    /// A request with a JSON body.
    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(head.as_bytes())
    }
}

pub(super) fn json(answer: &(u16, String)) -> Value {
    serde_json::from_str(&answer.1).unwrap_or_else(|_| panic!("{answer:?} is no JSON"))
}

#[test]
fn requests_without_the_right_token_or_form_are_refused_with_a_reason() {
    let house = House::new();
    let daemon = start(&house, "max-upload-bytes = 65536\n");
    let photo = std::fs::read(demo("people/person-a/person-a_0002.jpg")).unwrap();
    assert_eq!(daemon.post("/recognize_face", None, &photo).0, 401);
    assert_eq!(daemon.post("/recognize_face", Some("wrong"), &photo).0, 401);
    assert_eq!(daemon.post("/recognize_face", Some(SCRAPER), &photo).0, 403);
    assert_eq!(daemon.get("/metrics", Some(PANEL)).0, 403);
    for (path, bytes, status) in [
        ("/recognize_face", &b"no picture"[..], 400),
        ("/recognize_face", b"", 400),
        ("/recognize_face?threshold=2", &photo, 400),
        ("/recognize_face?threshold=NaN", &photo, 400),
        ("/recognize_face?other=1", &photo, 400),
        ("/recognize_face", &vec![0xff; 200_000], 413),
        ("/liveness", &photo[..photo.len() / 2], 400),
        ("/nothing", &photo, 404),
    ] {
        let answer = daemon.post(path, Some(PANEL), bytes);
        assert_eq!(answer.0, status, "{path}: {answer:?}");
        assert!(json(&answer)["error"].is_string(), "{answer:?}");
    }
    assert_eq!(daemon.get("/recognize_face", Some(PANEL)).0, 405);
    let form = "POST /recognize_face HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer ";
    for tail in [
        "\r\nContent-Length: 2\r\n\r\n{}",
        "\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9\r\n\r\n--b\r\n\r\n\r\n",
    ] {
        assert_eq!(daemon.send(format!("{form}{PANEL}{tail}").as_bytes()).0, 400, "{tail}");
    }
    for garbage in [&b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n"] {
        assert!(matches!(daemon.send(garbage).0, 0 | 400 | 505), "{garbage:?}");
    }
}

#[test]
fn the_seed_projects_client_works_unchanged_and_figures_are_told() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let photo = |name: &str| std::fs::read(demo(&format!("people/{name}"))).unwrap();
    // As `requests.post(url, files={"file": …}).json()["results"]` reads it.
    let answer = daemon.post("/recognize_face?threshold=0.5", None, &photo("person-a/person-a_0002.jpg"));
    assert_eq!(answer.0, 200, "{answer:?}");
    let known = &json(&answer)["results"][0];
    assert_eq!((&known["identity"], &known["verified"]), (&Value::from("person-a"), &Value::from(true)), "{answer:?}");
    assert!(known["candidates"][0]["name"] == "person-a" && known["live"].is_boolean(), "{answer:?}");
    let answer = daemon.post("/recognize_face?threshold=0.95", None, &photo("person-d/person-d_0001.jpg"));
    let unknown = &json(&answer)["results"][0];
    assert_eq!((&unknown["identity"], &unknown["verified"]), (&Value::Null, &Value::from(false)), "{answer:?}");
    assert_eq!(unknown["candidates"].as_array().unwrap().len(), 0, "{answer:?}");
    let answer = daemon.post("/liveness", None, &photo("person-a/person-a_0001.jpg"));
    assert!(json(&answer)["results"][0]["live"].is_boolean(), "{answer:?}");

    let (status, figures) = daemon.get("/metrics", Some(SCRAPER));
    assert_eq!(status, 200);
    for wanted in [
        "faceid_frames_total{camera=\"hall\"} ",
        "faceid_gallery_people 2",
        "faceid_frames_dropped_total{camera=\"hall\"} ",
        "# TYPE faceid_decisions_total counter",
        "# TYPE faceid_attempts_total counter",
        "faceid_door_blocked{door=\"hall\",reason=\"failed-faces\"} 0",
        "faceid_door_blocks_total{door=\"hall\",reason=\"failed-credentials\"} 0",
        "faceid_match_rate_visits_missing{camera=\"hall\"} 100",
        "# TYPE faceid_stage_seconds histogram",
        "# TYPE faceid_grant_seconds histogram",
        "# TYPE faceid_refusal_seconds histogram",
        "faceid_outbox_decisions_waiting ",
        "faceid_decisions_lost_total 0",
        "faceid_stage_seconds_bucket{stage=\"detect\",le=\"+Inf\"}",
        "faceid_frame_age_seconds_count ",
        "faceid_camera_online{camera=\"hall\"} 1",
        "faceid_camera_connects_total{camera=\"hall\"} 1",
        "faceid_broker_connected 0",
        "faceid_broker_connects_total 0",
        "faceid_outbox_waiting ",
        "faceid_provider_info{provider=",
    ] {
        assert!(figures.contains(wanted), "{wanted} is not in {figures}");
    }
    let document = json(&daemon.get("/openapi.json", None));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1") && document["paths"]["/recognize_face"]["post"].is_object());
}

#[test]
fn rates_are_remembered_over_a_restart() {
    let house = House::new();
    let settings = "open-scopes = [\"recognize\"]\nrequests-per-minute = 2\n";
    let photo = std::fs::read(demo("people/person-a/person-a_0002.jpg")).unwrap();
    let daemon = start(&house, settings);
    assert_eq!([0, 1].map(|_| daemon.post("/liveness", None, &photo).0), [200, 200]);
    assert_eq!(daemon.post("/liveness", None, &photo).0, 429);
    let deadline = Instant::now() + PATIENCE;
    // They are written now and then: what counts is when both requests are in it.
    let read = || {
        let bytes = std::fs::read(house.path("state/http-limits.json")).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    while read().is_none_or(|rates| rates["-"]["left"].as_i64().unwrap() >= 60_000) {
        assert!(Instant::now() < deadline, "the rates are not written");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    drop(daemon);
    let mut rates: Value = serde_json::from_slice(&std::fs::read(house.path("state/http-limits.json")).unwrap()).unwrap();
    assert!(rates["-"]["left"].as_i64().unwrap() < 60_000, "{rates}");
    rates["-"] = serde_json::json!({"left": 0, "at_ms": 32_503_680_000_000i64});
    std::fs::write(house.path("state/http-limits.json"), rates.to_string()).unwrap();
    // From a time to come: as full as it was, and it fills from the start on.
    let daemon = launch(&house, settings, &demo("idle.mp4"));
    let head = "POST /liveness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = daemon.send_and_tell_all(head.as_bytes()).to_lowercase();
    let wait = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse::<u64>().ok());
    assert!(answer.contains(" 429 ") && wait.is_some_and(|wait| wait <= 30), "{answer}");
}

#[test]
fn a_person_that_cannot_be_enrolled_as_asked_is_refused_and_nobody_is_changed() {
    let house = House::new();
    let daemon = start(&house, "max-upload-pixels = 1000000\n");
    let photo = |name: &str| std::fs::read(demo(&format!("people/{name}"))).unwrap();
    let (a, b) = (photo("person-a/person-a_0002.jpg"), photo("person-b/person-b_0001.jpg"));
    let (other, long) = ([("id", "somebody-else")], "x".repeat(2_000));
    for (words, pictures, status) in [
        (&other[..], vec![], 400),
        (&[][..], vec![&b[..]], 400),
        (&[("id", "no id")][..], vec![&b], 400),
        (&[("id", "person-b"), ("nmae", "B")][..], vec![&b], 400),
        (&[("id", "person-b"), ("id", "person-e")][..], vec![&b], 400),
        (&[("id", "person-b"), ("expires_at", "tomorrow")][..], vec![&b], 400),
        (&[("id", "person-b"), ("group", "no group")][..], vec![&b], 400),
        (&[("id", "person-b"), ("allow_duplicate", "perhaps")][..], vec![&b], 400),
        (&[("id", "person-b")][..], vec![&b; 6], 400),
        (&[("id", "person-b")][..], vec![b"no picture"], 422),
        (&[("id", "person-b"), ("name", &long)][..], vec![&b], 422),
        (&other[..], vec![&a], 409),
    ] {
        let answer = daemon.post_form("/people", Some(CLERK), words, &pictures);
        assert_eq!(answer.0, status, "{words:?}: {answer:?}");
        assert!(json(&answer)["error"].is_string(), "{answer:?}");
    }
    for (method, path, token, body, status) in [
        ("GET", "/people", PANEL, "", 403),
        ("POST", "/rebuild_index", PANEL, "", 403),
        ("GET", "/people?limit=0", CLERK, "", 400),
        ("GET", "/people?after=no%20id", CLERK, "", 400),
        ("GET", "/people/nobody", CLERK, "", 404),
        ("GET", "/people/%ff", CLERK, "", 400),
        ("PATCH", "/people/nobody", CLERK, "{}", 404),
        ("PATCH", "/people/person-a", CLERK, "{", 400),
        ("PATCH", "/people/person-a", CLERK, "{\"nmae\": \"A\"}", 400),
        ("PATCH", "/people/person-a", CLERK, "{\"groups\": null}", 400),
        ("PATCH", "/people/person-a", CLERK, "{\"name\": \"\"}", 422),
        ("DELETE", "/people/nobody", CLERK, "", 404),
        ("PUT", "/people/person-a", CLERK, "{}", 405),
    ] {
        let answer = daemon.ask(method, path, token, body);
        assert_eq!(answer.0, status, "{method} {path}: {answer:?}");
    }
    let people = json(&daemon.get("/people", Some(CLERK)));
    let ids: Vec<&str> = people["people"].as_array().unwrap().iter().map(|person| person["id"].as_str().unwrap()).collect();
    assert_eq!((ids, people["people"][0]["name"].is_null()), (vec!["person-a", "person-c"], true), "{people}");
}

#[test]
fn a_person_is_enrolled_recognised_changed_and_erased_over_the_api() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let photo = |name: &str| std::fs::read(demo(&format!("people/{name}"))).unwrap();
    let words =
        [("id", "person-b"), ("name", "B"), ("group", "staff"), ("group", "night"), ("consented_at", "2026-01-31T00:00:00Z")];
    let answer = daemon.post_form("/people", Some(CLERK), &words, &[&photo("person-b/person-b_0001.jpg"), b"no picture"]);
    assert_eq!(answer.0, 201, "{answer:?}");
    let enrolled = json(&answer);
    assert_eq!((&enrolled["templates_added"], &enrolled["refused"][0]["file"]), (&Value::from(1), &Value::from(1)), "{enrolled}");
    assert_eq!(enrolled["person"]["groups"], serde_json::json!(["staff", "night"]), "{enrolled}");
    assert_eq!(enrolled["person"]["consented_at"], "2026-01-31T00:00:00.000Z", "{enrolled}");

    let seen = json(&daemon.post("/recognize_face", None, &photo("person-b/person-b_0002.jpg")));
    assert_eq!(seen["results"][0]["identity"], "person-b", "{seen}");

    let page = json(&daemon.get("/people?limit=2", Some(CLERK)));
    assert_eq!((page["people"].as_array().unwrap().len(), &page["next"]), (2, &Value::from("person-b")), "{page}");
    let page = json(&daemon.get("/people?limit=2&after=person-b", Some(CLERK)));
    assert_eq!((&page["people"][0]["id"], &page["next"]), (&Value::from("person-c"), &Value::Null), "{page}");

    let answer = daemon.ask("PATCH", "/people/person-b", CLERK, "{\"name\": null, \"expires_at\": \"2999-01-01T00:00:00Z\"}");
    let changed = json(&answer);
    assert_eq!((answer.0, &changed["name"], &changed["groups"][1]), (200, &Value::Null, &Value::from("night")), "{answer:?}");
    assert_eq!(daemon.ask("POST", "/rebuild_index", CLERK, "").0, 202);

    // The command line sees it, and the daemon stays the gallery's only writer.
    assert!(house.succeed(&["people", "show", "person-b"]).contains("expires 2999"), "the command line sees another gallery");
    let answer = daemon.ask("DELETE", "/people/person-b", CLERK, "");
    assert_eq!((answer.0, &json(&answer)["erased_from_disk"]), (200, &Value::from(true)), "{answer:?}");
    assert_eq!(daemon.get("/people/person-b", Some(CLERK)).0, 404);
    let seen = json(&daemon.post("/recognize_face", None, &photo("person-b/person-b_0002.jpg")));
    assert!(seen["results"][0]["identity"].is_null(), "{seen}");
    drop(daemon);
    let trail = house.succeed(&["audit", "export"]);
    for wanted in ["\"enrolled\":\"person-b\"", "\"changed\":\"person-b\"", "\"removed\":\"person-b\"", "\"by\":\"clerk\""] {
        assert!(trail.contains(wanted), "{wanted} is not in {trail}");
    }
}

#[test]
fn whoever_is_enrolled_or_removed_through_the_socket_is_known_or_unknown_to_the_very_next_request() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let photo = std::fs::read(demo("people/person-b/person-b_0002.jpg")).unwrap();
    let first = demo("people/person-b/person-b_0001.jpg").to_str().unwrap().to_owned();
    let identity = || json(&daemon.post("/recognize_face", None, &photo))["results"][0]["identity"].clone();
    for _ in 0..3 {
        assert!(identity().is_null());
        house.succeed(&["enroll", "person-b", &first]);
        assert_eq!(identity(), "person-b", "enrolled, acknowledged, and not matched");
        house.succeed(&["people", "remove", "person-b"]);
    }
}

#[test]
fn a_daemon_whose_camera_brings_nothing_is_not_ready_and_says_why_and_alive_all_the_same() {
    let house = House::new();
    let daemon = launch(&house, "", &house.path("no-such-clip.mp4"));
    let answer = daemon.get("/readyz", None);
    assert_eq!((answer.0, &json(&answer)["reason"]), (503, &Value::from("no frame has been judged yet")), "{answer:?}");
    assert_eq!(json(&answer)["status"], "not ready");
    assert_eq!(daemon.get("/healthz", None).0, 200);
}

#[test]
fn by_an_older_gallery_nobody_is_verified_until_somebody_accepts_it() {
    let house = House::new();
    drop(start(&house, ""));
    let (gallery, aside) = (house.path("state/gallery"), house.path("aside"));
    super::store::copy(&gallery, &aside);
    house.succeed(&["people", "remove", "person-a"]);
    super::store::copy(&aside, &gallery);
    let photo_path = demo("people/person-a/person-a_0002.jpg");
    let photo = std::fs::read(&photo_path).unwrap();
    let daemon = launch(&house, "open-scopes = [\"recognize\"]\n", &demo("idle.mp4"));
    let judged = |daemon: &Daemon| {
        let figures = daemon.get("/metrics", Some(SCRAPER)).1;
        figures.lines().any(|line| line.strip_prefix("faceid_frames_judged_total ").is_some_and(|count| count != "0"))
    };
    let deadline = Instant::now() + PATIENCE;
    while !judged(&daemon) {
        assert!(Instant::now() < deadline, "no frame was judged");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let answer = daemon.get("/readyz", None);
    let reason = json(&answer)["reason"].as_str().unwrap_or_default().to_owned();
    assert!(answer.0 == 503 && reason.contains("not the newest"), "it decides nothing and says that it is ready: {answer:?}");
    // Whoever asks without a token learns no more than that: not who is enrolled, nor how many changes there were.
    assert!(!reason.contains("person") && !reason.contains(|c: char| c.is_ascii_digit()), "{reason}");
    let answer = daemon.post("/recognize_face", None, &photo);
    assert_eq!(answer.0, 503, "{answer:?}");
    assert!(json(&answer)["error"].as_str().unwrap().contains("not the newest"), "{answer:?}");
    assert_eq!(daemon.post("/liveness", None, &photo).0, 200, "liveness needs no gallery");
    let recognize = ["recognize", photo_path.to_str().unwrap()];
    assert!(house.fail(69, &recognize).contains("--accept-rollback"));
    house.succeed(&["gallery", "verify", "--accept-rollback"]);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    let answer = daemon.post("/recognize_face", None, &photo);
    assert_eq!((answer.0, &json(&answer)["results"][0]["identity"]), (200, &Value::from("person-a")), "{answer:?}");
    house.succeed(&recognize);
}

#[test]
fn when_the_epoch_cannot_be_written_nothing_more_is_changed_matching_goes_on_and_the_daemon_mends_it_by_itself() {
    let house = House::new();
    let daemon = start(&house, "open-scopes = [\"recognize\"]\n");
    let photo = std::fs::read(demo("people/person-a/person-a_0002.jpg")).unwrap();
    let name = |name: &str| daemon.ask("PATCH", "/people/person-a", CLERK, &format!("{{\"name\": \"{name}\"}}"));
    let read_only =
        || daemon.get("/metrics", Some(SCRAPER)).1.lines().find(|l| l.starts_with("faceid_gallery_read_only ")).map(str::to_owned);
    assert_eq!(read_only().as_deref(), Some("faceid_gallery_read_only 0"));
    let (epoch, aside) = (house.path("state/gallery.epoch"), house.path("state/epoch-aside"));
    std::fs::rename(&epoch, &aside).unwrap();
    std::fs::create_dir(&epoch).unwrap();
    // Durable; but that an older gallery be noticed is not sure any more: whoever asked is told so, and it is the last one.
    let answer = name("Anna");
    let told = json(&answer)["error"].as_str().unwrap_or_default().to_owned();
    assert!(answer.0 == 503 && told.contains("made and lasts"), "{answer:?}");
    assert_eq!(json(&daemon.ask("GET", "/people/person-a", CLERK, ""))["name"], "Anna");
    let answer = name("Berta");
    assert_eq!(answer.0, 503, "{answer:?}");
    assert!(json(&answer)["error"].as_str().unwrap().contains("takes no change since a write failed"), "{answer:?}");
    assert_eq!(read_only().as_deref(), Some("faceid_gallery_read_only 1"));
    assert_eq!(daemon.get("/readyz", None).0, 200, "matching goes on");
    let seen = json(&daemon.post("/recognize_face", None, &photo));
    assert_eq!(seen["results"][0]["identity"], "person-a", "{seen}");
    std::fs::remove_dir(&epoch).unwrap();
    std::fs::rename(&aside, &epoch).unwrap();
    let deadline = Instant::now() + 2 * PATIENCE;
    while name("Cilly").0 != 200 {
        assert!(Instant::now() < deadline, "it does not mend itself");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert_eq!(read_only().as_deref(), Some("faceid_gallery_read_only 0"));
    drop(daemon);
    let trail = house.succeed(&["audit", "export"]);
    assert_eq!(trail.matches("\"changed\":\"person-a\"").count(), 2, "Anna and Cilly, and not Berta: {trail}");
    house.succeed(&["gallery", "verify"]);
    assert!(house.succeed(&["people", "list"]).contains("person-a  Cilly"));
}
