//! Nothing of a template lies anywhere in the clear: not in the state folder, not in a core dump, and in the running daemon's memory only
//! as the rotated numbers that matching needs, in pages that no core dump holds. Each search is shown to find what is there.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use faceid_plus::capture::still;
use faceid_plus::gallery::{Gallery, SealingKey, Settings};
use faceid_plus::inference::manifest::Manifest;
use faceid_plus::pipeline;
use faceid_plus::types::Embedding;
use faceid_plus::vision::quality;
use faceid_plus::vision::stack::Stack;
use rustix::process::{Pid, Signal, kill_process};

use super::show_it::{Killed, config, start};
use super::store::{files, house, photo};
use super::{House, shared};

/// What is looked for at once: no such run of a template's bytes comes about by chance.
const RUN: usize = 24;

/// The embedding that the daemon is given, worked out here once more: the same networks on the same machine give the same bits.
fn embedding(house: &House, pack: &str, photo: &str) -> Embedding {
    let manifest = Manifest::builtin().unwrap();
    let settings = faceid_plus::inference::Settings { backend: faceid_plus::inference::BackendChoice::Tract, ..Default::default() };
    let mut stack = Stack::open(&manifest, pack, &house.path("models"), &settings).unwrap();
    let picture = still::read_picture(Path::new(photo)).unwrap();
    let face = pipeline::look(&mut stack, &picture, &quality::Settings::default()).unwrap().into_iter().next().unwrap();
    face.embedding.unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A template in every form that it has: as the network gives it, rotated, rotated and rounded, and the index's planes.
struct Forms {
    plain: Vec<u8>,
    turned: Vec<u8>,
    rounded: Vec<u8>,
    tops: Vec<u8>,
    seconds: Vec<u8>,
    middle: Vec<u8>,
    low: Vec<u8>,
}

impl Forms {
    /// The rounding is `gallery::index::template`'s, written a second time.
    fn of(plain: &Embedding, turned: &[f32]) -> Self {
        let largest = turned.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let exponent = (0..40).rev().find(|e| (largest * 2f32.powi(*e)).round() <= 32_639.0).unwrap();
        let levels: Vec<i32> = turned.iter().map(|v| (v * 2f32.powi(exponent)).round() as i32).collect();
        let rounded: Vec<f32> = levels.iter().map(|level| *level as f32 * 2f32.powi(-exponent)).collect();
        let most = levels.iter().map(|level| level.abs()).max().unwrap();
        let half = ((most + 15) / 16).max(1);
        let nibble = |level: &i32| ((level + 16 * half) / (2 * half)).clamp(0, 15);
        let left = |level: &i32| level - half * (2 * nibble(level) - 15) + 2_048;
        // Of a pair of lanes, 128 numbers, `per` lie in a byte, each `bits` wide: those that are `128 / per` apart.
        let packed = |per: usize, bits: usize, of: &dyn Fn(&i32) -> i32| -> Vec<u8> {
            let pair = |pair: &[i32]| -> Vec<u8> {
                let number = |at: usize| pair.get(at).map_or(0, of);
                let byte = |at: usize| (0..per).map(|n| number(at + 128 / per * n) << (bits * n)).sum::<i32>() as u8;
                (0..128 / per).map(byte).collect()
            };
            levels.chunks(128).flat_map(pair).collect()
        };
        Self {
            plain: bytes(plain.values()),
            turned: bytes(turned),
            rounded: bytes(&rounded),
            // Gathered from where they lie, between those of other rows.
            tops: [packed(8, 1, &|level| nibble(level) >> 3), packed(8, 1, &|level| nibble(level) >> 2 & 1)].concat(),
            seconds: packed(4, 2, &|level| nibble(level) & 3),
            middle: packed(2, 4, &|level| left(level) >> 8),
            low: levels.iter().map(|level| (left(level) & 0xff) as u8).collect(),
        }
    }

    fn all(&self) -> [(&'static str, &[u8]); 7] {
        [
            ("the embedding", &self.plain),
            ("the rotated embedding", &self.turned),
            ("the rounded template", &self.rounded),
            ("the planes of single bits", &self.tops),
            ("the plane of two bits", &self.seconds),
            ("the middle plane", &self.middle),
            ("the low plane", &self.low),
        ]
    }
}

/// How many of a form's runs stand in `hay`.
fn runs(hay: &[u8], form: &[u8]) -> usize {
    let wanted: std::collections::HashSet<&[u8]> = form.chunks_exact(RUN).collect();
    // A run begins with its first two bytes: most places are passed over at once.
    let mut begins = vec![false; 1 << 16];
    wanted.iter().for_each(|run| begins[usize::from(run[0]) << 8 | usize::from(run[1])] = true);
    let is_run = |at: &usize| begins[usize::from(hay[*at]) << 8 | usize::from(hay[at + 1])] && wanted.contains(&hay[*at..at + RUN]);
    (0..hay.len().saturating_sub(RUN - 1)).filter(is_run).count()
}

/// A range of a process's writable memory.
struct Range {
    content: Vec<u8>,
    /// The kernel's flags of it, such as `dd` where no core dump holds it.
    flags: Vec<String>,
}

/// The flags of each range by its first address.
fn flags(process: u32) -> Option<std::collections::HashMap<u64, Vec<String>>> {
    let smaps = std::fs::read_to_string(format!("/proc/{process}/smaps")).ok()?;
    let (mut flags, mut from) = (std::collections::HashMap::new(), 0);
    for line in smaps.lines() {
        if let Some(told) = line.strip_prefix("VmFlags:") {
            flags.insert(from, told.split_whitespace().map(str::to_owned).collect());
        } else if let Some(first) = line.split_once('-').and_then(|(first, _)| u64::from_str_radix(first, 16).ok()) {
            from = first;
        }
    }
    Some(flags)
}

/// The writable memory of a process, range by range. `None` when it may not be read.
fn memory(process: u32) -> Option<Vec<Range>> {
    let mut flags = flags(process)?;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut mem = std::fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut content = vec![0; usize::try_from(to - from).ok()?];
        mem.seek(SeekFrom::Start(from)).ok()?;
        if mem.read_exact(&mut content).is_ok() {
            all.push(Range { content, flags: flags.remove(&from).unwrap_or_default() });
        }
    }
    Some(all)
}

fn forms(house: &House, pack: &str, photo: &str) -> Forms {
    let settings = Settings { dir: house.path("state/gallery"), ..Settings::default() };
    let key = SealingKey::read("gallery.key", &house.path("secrets")).unwrap();
    let snapshot = Gallery::open_read_only(&settings, &key).unwrap().snapshot();
    let plain = embedding(house, pack, photo);
    assert!(snapshot.search(&plain, 1).unwrap()[0].score.value() > 0.999, "this is not the embedding that was enrolled");
    Forms::of(&plain, &snapshot.turned(&plain))
}

#[test]
fn no_form_of_a_template_lies_in_the_state_folder_or_plain_in_the_daemons_memory() {
    look_for_a_template(&house(), "builtin", 128);
    let Some(shared) = shared() else { return };
    let house = house();
    let models = shared.join("models");
    let research = "arcface-512-research";
    house.succeed(&["models", "fetch", research, "--from", models.to_str().unwrap(), "--accept-licence"]);
    look_for_a_template(&house, research, 512);
}

fn look_for_a_template(house: &House, pack: &str, dimension: usize) {
    let config = config(house, pack, "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let (daemon, _notify) = start(house, &config);
    house.succeed(&["--pack", pack, "--backend", "tract", "enroll", "ann", &photo(1)]);
    let forms = forms(house, pack, &photo(1));
    assert_eq!(forms.plain.len(), 4 * dimension);
    assert_eq!(runs(&[&[7, 7][..], &forms.plain].concat(), &forms.plain), forms.plain.len() / RUN, "the search finds nothing");
    for when in ["journal", "file"] {
        for (path, content) in files(&house.path("state")) {
            for (name, form) in forms.all() {
                assert_eq!(runs(&content, form), 0, "{name} lies in {} ({when})", path.display());
            }
        }
        house.succeed(&["gallery", "compact"]);
    }
    let Some(memory) = memory(daemon.0.id()) else {
        println!("SKIPPED: the memory of a process that forbids dumps is closed to this user");
        return;
    };
    let count = |form: &[u8]| memory.iter().map(|range| runs(&range.content, form)).sum::<usize>();
    let planes = [&forms.seconds, &forms.middle, &forms.low];
    assert!(
        planes.iter().all(|plane| count(plane) > 0),
        "the index's own numbers are not found: the search does not see the memory"
    );
    for (name, form) in [("the embedding", &forms.plain), ("the rotated embedding", &forms.turned)] {
        assert_eq!(count(form), 0, "{name} was left in the daemon's memory");
    }
    // What a core dump would hold, should there ever be one: every range but those that the kernel was told to leave out.
    for (name, form) in forms.all() {
        let dumped = memory.iter().filter(|range| !range.flags.iter().any(|flag| flag == "dd"));
        assert_eq!(dumped.map(|range| runs(&range.content, form)).sum::<usize>(), 0, "a core dump would hold {name}");
    }
}

/// Starts `program` with leave to dump core into `folder` and ends it as a crash would.
fn crash(mut program: Command, folder: &Path, ready: impl FnOnce()) -> ExitStatus {
    let mut child = Killed(program.current_dir(folder).spawn().unwrap());
    ready();
    kill_process(Pid::from_child(&child.0), Signal::ABORT).unwrap();
    child.0.wait().unwrap()
}

#[test]
fn a_crash_of_the_daemon_leaves_no_core_dump_even_where_one_is_wanted() {
    const WANTED: &str = "ulimit -c unlimited; exec \"$0\" \"$@\"";
    let folder = tempfile::tempdir().unwrap();
    let cores = || std::fs::read_dir(folder.path()).unwrap().count();
    let mut control = Command::new("sh");
    control.args(["-c", WANTED, "sleep", "60"]);
    let control = crash(control, folder.path(), || {});
    if !control.core_dumped() {
        println!("SKIPPED: this system dumps no core of anything: {control:?}");
    }
    let before = cores();
    let house = house();
    house.succeed(&["enroll", "ann", &photo(1)]);
    let config = config(&house, "builtin", "tract", 9, &[("front", "rtsp://127.0.0.1:9/none".to_owned())]);
    let socket_path = house.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&socket_path).unwrap();
    let mut daemon = Command::new("sh");
    let inner = house.command();
    daemon.arg("-c").arg(WANTED).arg(inner.get_program()).arg("--config").arg(config).arg("run").env("NOTIFY_SOCKET", &socket_path);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => daemon.env(name, value),
            None if name != "NOTIFY_SOCKET" => daemon.env_remove(name),
            None => &mut daemon,
        };
    }
    let status = crash(daemon, folder.path(), || super::show_it::await_word(&socket, "READY=1"));
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status:?}");
    assert!(!status.core_dumped() && cores() == before, "the daemon left a core dump: {status:?}");
}
