use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;

const CONTENT: &[u8] = &[42; 200_000];

/// What the server does with one request.
enum Reply {
    /// Sends all, whatever was asked for.
    Whole(Vec<u8>),
    /// Announces all and closes after so many bytes.
    Cut(usize),
    /// Sends what the Range header asks for.
    Ranged(Vec<u8>),
    /// Goes on at a place that was not asked for.
    Elsewhere,
    /// Answers with this status line.
    Status(&'static str),
}

/// A server on this machine that serves one connection a reply; it gives the Range headers that it saw.
fn serve(replies: Vec<Reply>) -> (String, JoinHandle<Vec<Option<u64>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut ranges = Vec::new();
        for reply in replies {
            let (mut stream, _) = listener.accept().unwrap();
            let mut range = None;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    range = value.trim_end_matches('-').parse().ok();
                }
            }
            ranges.push(range);
            let (head, body) = match reply {
                Reply::Whole(body) => (format!("200 OK\r\nContent-Length: {}", body.len()), body),
                Reply::Cut(at) => (format!("200 OK\r\nContent-Length: {}", CONTENT.len()), CONTENT[..at].to_vec()),
                Reply::Ranged(body) => {
                    let start = range.unwrap() as usize;
                    let rest = body[start..].to_vec();
                    let last = body.len() - 1;
                    (
                        format!(
                            "206 Partial Content\r\nContent-Range: bytes {start}-{last}/{}\r\nContent-Length: {}",
                            body.len(),
                            rest.len()
                        ),
                        rest,
                    )
                }
                Reply::Elsewhere => ("206 Partial Content\r\nContent-Range: bytes 0-3/4\r\nContent-Length: 4".into(), vec![0; 4]),
                Reply::Status(status) => (format!("{status}\r\nContent-Length: 0"), Vec::new()),
            };
            write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").unwrap();
            // The client may be gone already.
            let _ = stream.write_all(&body);
        }
        ranges
    });
    (url, server)
}

fn manifest(content: &[u8], accept: bool) -> Manifest {
    let text = format!(
        "version = 1\n[models.own]\nfile = \"own.onnx\"\nsha256 = \"{}\"\nbytes = {}\nlicence = {{ name = \"odd terms\", accept = {accept} }}\n\
         origin.url.url = \"https://example.org/own.onnx\"\n\
         input = {{ width = 16, height = 16, color = \"rgb\", mean = [0, 0, 0], deviation = [1, 1, 1] }}\n\
         role.liveness = {{ crop = \"shifted\", scale = 2, classes = 2, live-class = 0 }}\n",
        hex(&Sha256::digest(content)),
        content.len(),
    );
    Manifest::parse("test", &text).unwrap()
}

fn own() -> Vec<ModelId> {
    vec!["own".parse().unwrap()]
}

struct Site {
    manifest: Manifest,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { manifest: manifest(CONTENT, false), folder: tempfile::tempdir().unwrap() }
    }

    fn fetch(&self, source: &Source) -> Result<Brought, String> {
        let brought = fetch(&self.manifest, &own(), self.folder.path(), source, false, &mut |_| {});
        brought.map(|all| all[0].1).map_err(|error| error.to_string())
    }

    fn origin(&mut self, origin: Origin) {
        self.manifest.models.get_mut(&own()[0]).unwrap().origin = origin;
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("own.onnx.part")
    }

    /// The file is in place and nothing else is in the folder.
    fn assert_settled(&self) {
        assert_eq!(std::fs::read(self.folder.path().join("own.onnx")).unwrap(), CONTENT);
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 1);
    }
}

fn from_folder(content: &[u8]) -> (tempfile::TempDir, Source) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.onnx"), content).unwrap();
    let source = Source::Folder(folder.path().to_path_buf());
    (folder, source)
}

#[test]
fn a_wrong_file_is_refused_by_name_and_the_old_one_stays() {
    let site = Site::new();
    let target = site.folder.path().join("own.onnx");
    std::fs::write(&target, "the old file").unwrap();
    let mut flipped = CONTENT.to_vec();
    flipped[100_000] ^= 1;
    for content in [flipped.as_slice(), &CONTENT[1..], b"", &[42; 200_001]] {
        let (_keep, source) = from_folder(content);
        let error = site.fetch(&source).unwrap_err();
        assert!(error.contains("own.onnx"), "{error}");
        assert_eq!(std::fs::read(&target).unwrap(), b"the old file");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(site.fetch(&Source::Folder(empty.path().to_path_buf())).unwrap_err().contains("own.onnx cannot be read"));
}

#[test]
fn the_right_file_is_put_in_place_and_known_the_next_time() {
    let site = Site::new();
    let (_keep, source) = from_folder(CONTENT);
    let mut seen = Vec::new();
    fetch(&site.manifest, &own(), site.folder.path(), &source, false, &mut |p| seen.push((p.done, p.total))).unwrap();
    assert_eq!(seen.last(), Some(&(200_000, Some(200_000))));
    site.assert_settled();
    assert_eq!(site.fetch(&Source::Upstream), Ok(Brought::AlreadyThere));
}

#[test]
fn terms_are_accepted_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest(CONTENT, true);
    let (_keep, source) = from_folder(CONTENT);
    let refused = fetch(&manifest, &own(), folder.path(), &source, false, &mut |_| {});
    assert!(matches!(refused, Err(InferenceError::Terms { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    fetch(&manifest, &own(), folder.path(), &source, true, &mut |_| {}).unwrap();
}

#[test]
fn without_a_pinned_hash_nothing_is_fetched() {
    let mut site = Site::new();
    site.manifest.models.get_mut(&own()[0]).unwrap().sha256.clear();
    let (_keep, source) = from_folder(CONTENT);
    assert!(site.fetch(&source).unwrap_err().contains("no SHA-256"));
    assert_eq!(verify(&site.manifest, &[], site.folder.path()).unwrap()[0].file_state, FileState::Unpinned);
}

#[test]
fn what_upstream_does_not_offer_names_the_way_out() {
    let mut site = Site::new();
    site.origin(Origin::Converted { url: "https://example.org/own.pth".into(), script: "convert/own.py".into() });
    let error = site.fetch(&Source::Upstream).unwrap_err();
    assert!(error.contains("convert/own.py") && error.contains("--from"), "{error}");
    site.origin(Origin::Local { note: "ours".into() });
    assert!(site.fetch(&Source::Upstream).unwrap_err().contains("--from"));
}

#[test]
fn addresses_that_are_not_safe_are_refused() {
    let site = Site::new();
    for url in ["http://example.org", "ftp://example.org", "https://user:pass@example.org", "https://"] {
        let error = site.fetch(&Source::Mirror(url.into())).unwrap_err();
        assert!(error.contains("an address"), "{error}");
        assert!(!error.contains("pass@"), "{error}");
    }
}

#[test]
fn a_server_that_has_no_such_file_or_another_one_is_an_error() {
    let site = Site::new();
    let replies = vec![Reply::Status("404 Not Found"), Reply::Whole(vec![41; 200_000]), Reply::Whole(vec![42; 200_001])];
    let (url, server) = serve(replies);
    let mirror = Source::Mirror(url);
    assert!(site.fetch(&mirror).unwrap_err().contains("404"));
    assert!(site.fetch(&mirror).unwrap_err().contains("own.onnx"));
    assert!(site.fetch(&mirror).unwrap_err().contains("another file"));
    server.join().unwrap();
    assert!(!site.folder.path().join("own.onnx").exists());
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let site = Site::new();
    let (url, server) = serve(vec![Reply::Cut(70_000), Reply::Ranged(CONTENT.to_vec())]);
    let mirror = Source::Mirror(url);
    let error = site.fetch(&mirror).unwrap_err();
    assert!(error.contains("call again"), "{error}");
    let kept = std::fs::metadata(site.part()).unwrap().len();
    assert!(kept > 0 && kept <= 70_000);
    assert_eq!(site.fetch(&mirror), Ok(Brought::Fetched));
    assert_eq!(server.join().unwrap(), [None, Some(kept)]);
    site.assert_settled();
}

#[test]
fn a_rest_of_another_file_is_thrown_away_and_fetched_anew() {
    let site = Site::new();
    std::fs::write(site.part(), [7; 1000]).unwrap();
    let (url, server) = serve(vec![Reply::Ranged(CONTENT.to_vec()), Reply::Whole(CONTENT.to_vec())]);
    assert_eq!(site.fetch(&Source::Mirror(url)), Ok(Brought::Fetched));
    assert_eq!(server.join().unwrap(), [Some(1000), None]);
    site.assert_settled();
}

#[test]
fn a_server_that_does_not_resume_sends_all_again() {
    let site = Site::new();
    std::fs::write(site.part(), &CONTENT[..1000]).unwrap();
    let (url, server) = serve(vec![Reply::Whole(CONTENT.to_vec())]);
    assert_eq!(site.fetch(&Source::Mirror(url)), Ok(Brought::Fetched));
    assert_eq!(server.join().unwrap(), [Some(1000)]);
    site.assert_settled();
}

#[test]
fn a_server_that_goes_on_elsewhere_is_not_believed() {
    let site = Site::new();
    std::fs::write(site.part(), &CONTENT[..1000]).unwrap();
    let (url, server) = serve(vec![Reply::Elsewhere]);
    assert!(site.fetch(&Source::Mirror(url)).unwrap_err().contains("another place"));
    server.join().unwrap();
    assert_eq!(std::fs::metadata(site.part()).unwrap().len(), 0);
}

#[test]
fn a_second_fetch_of_the_same_file_waits_its_turn() {
    let site = Site::new();
    let busy = Part::open(site.part()).unwrap();
    let (_keep, source) = from_folder(CONTENT);
    assert!(site.fetch(&source).unwrap_err().contains("another fetch"));
    drop(busy);
    assert_eq!(site.fetch(&source), Ok(Brought::Fetched));
}

fn archive(member: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_member_of_an_archive_is_taken_and_checked() {
    let mut site = Site::new();
    let bomb = archive("models/own.onnx", &vec![0; 1 << 20]);
    let replies = vec![
        Reply::Whole(b"no archive".to_vec()),
        Reply::Whole(archive("other.onnx", CONTENT)),
        Reply::Whole(archive("own.onnx", &[1; 200_000])),
        Reply::Whole(bomb),
        Reply::Whole(archive("deeper/own.onnx", CONTENT)),
    ];
    let (url, server) = serve(replies);
    site.origin(Origin::Zip { url: format!("{url}/own.zip"), member: "own.onnx".into() });
    assert!(site.fetch(&Source::Upstream).unwrap_err().contains("no whole zip"));
    assert!(site.fetch(&Source::Upstream).unwrap_err().contains("no member"));
    assert!(site.fetch(&Source::Upstream).unwrap_err().contains("not the pinned file"));
    assert!(site.fetch(&Source::Upstream).unwrap_err().contains("another file"));
    assert_eq!(site.fetch(&Source::Upstream), Ok(Brought::Fetched));
    server.join().unwrap();
    site.assert_settled();
}

#[test]
fn list_glances_and_verify_reads() {
    let builtin = Manifest::builtin().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let packs = list(&builtin, folder.path());
    assert!(packs.iter().all(|pack| pack.complete == (pack.name == "builtin")), "only what the program carries is there");
    let research = packs.iter().find(|pack| pack.name == "arcface-512-research").unwrap();
    assert!(research.models.iter().any(|model| model.must_accept && model.licence_note.contains("non-commercial")));

    let site = Site::new();
    std::fs::write(site.folder.path().join("own.onnx"), vec![41; 200_000]).unwrap();
    let entry = &verify(&site.manifest, &own(), site.folder.path()).unwrap()[0];
    assert!(matches!(&entry.file_state, FileState::Wrong { reason } if reason.contains("sha256")), "{entry:?}");
    assert!(verify(&site.manifest, &["nobody".parse().unwrap()], site.folder.path()).is_err());
}

#[test]
fn the_built_in_pack_needs_no_file_and_is_what_the_manifest_pins() {
    let manifest = Manifest::builtin().unwrap();
    let ids: Vec<_> = manifest.pack("builtin").unwrap().models().cloned().collect();
    let nowhere = Path::new("/nowhere");
    assert!(list(&manifest, nowhere).iter().any(|pack| pack.name == "builtin" && pack.complete));
    assert!(verify(&manifest, &ids, nowhere).unwrap().iter().all(|entry| entry.file_state == FileState::Present));
    let brought = fetch(&manifest, &ids, nowhere, &Source::Upstream, false, &mut |_| {}).unwrap();
    assert!(brought.iter().all(|(_, how)| *how == Brought::AlreadyThere));
    assert!(ids.iter().map(|id| manifest.model(id).unwrap().bytes).sum::<u64>() < 6_000_000, "the pack's ceiling");
    let int8: Vec<_> = manifest.pack("builtin").unwrap().int8.iter().flat_map(|int8| int8.models().cloned()).collect();
    assert!(verify(&manifest, &int8, nowhere).unwrap().iter().all(|entry| entry.int8 && entry.file_state == FileState::Present));
    assert!(int8.iter().map(|id| manifest.model(id).unwrap().bytes).sum::<u64>() < 1_500_000, "its 8-bit networks' ceiling");
}

#[test]
fn a_manifest_cannot_call_bundled_what_the_program_does_not_carry_or_pins_otherwise() {
    let mut manifest = Manifest::builtin().unwrap();
    let id = manifest.pack("builtin").unwrap().embedder.clone();
    let state =
        |manifest: &Manifest| verify(manifest, std::slice::from_ref(&id), Path::new("/nowhere")).unwrap()[0].file_state.clone();
    manifest.models.get_mut(&id).unwrap().sha256 = "0".repeat(64);
    assert!(matches!(state(&manifest), FileState::Wrong { reason } if reason.contains("sha256")));
    manifest.models.get_mut(&id).unwrap().file = "other.onnx".into();
    assert!(matches!(state(&manifest), FileState::Wrong { reason } if reason.contains("does not come")));
}

#[test]
fn the_packs_are_fetched_from_the_shared_folder() {
    let Some(shared) = super::super::tests::shared("models") else { return };
    let manifest = Manifest::builtin().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["standard", "small", "arcface-512-research"] {
        let ids: Vec<_> = manifest.pack(name).unwrap().models().cloned().collect();
        let source = Source::Folder(shared.clone());
        fetch(&manifest, &ids, folder.path(), &source, name.ends_with("research"), &mut |_| {}).unwrap();
        assert!(list(&manifest, folder.path()).iter().any(|pack| pack.name == name && pack.complete));
        assert!(verify(&manifest, &ids, folder.path()).unwrap().iter().all(|entry| entry.file_state == FileState::Present));
    }
}
