//! A shared library before it is loaded. Loading runs its constructors, so what can be found out is found out from the file: who may
//! write it, whether it is a whole library for this machine, and whether it has the entry point that we would call.
//!
//! **Who may write it.** Code in our process is as good as ours: whoever may write the library, or a folder on the way to it, must be
//! somebody who could put another program in our own place just as well: root, and those who may write the program's file and folders.
//! So the service loads nothing from folders of its own, and root nothing that another user left where an environment variable points.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What `e_machine` says of a library that we can load (System V ABI).
const MACHINE: Option<u64> = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => Some(62),
    b"aarch64" => Some(183),
    _ => None,
};
/// The most program headers that are looked at; linkers write a dozen.
const MOST_HEADERS: u64 = 1024;
/// The longest dynamic section that is read, in bytes.
const MOST_DYNAMIC_BYTES: u64 = 1 << 16;
/// The longest chain of a hash table that is followed.
const LONGEST_CHAIN: u32 = 1 << 16;

/// Whether the library at `path` may be loaded and has `entry`; gives the file itself, without links on the way. `and` is a user who may
/// write it besides: whoever named it in an environment of his own.
pub(super) fn examine(path: &Path, entry: &[u8], and: Option<u32>) -> Result<PathBuf, String> {
    let file = path.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("it cannot be read ({error})"),
    })?;
    let open = File::open(&file).map_err(|error| format!("it cannot be read ({error})"))?;
    let metadata = open.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".into());
    }
    let trusted = trusted(and);
    writers(&file)?.all_within(&trusted)?;
    for beside in companions(&file) {
        writers(&beside)?.all_within(&trusted)?;
    }
    judge(metadata.len(), &|offset, bytes| open.read_exact_at(bytes, offset).is_ok(), entry)?;
    Ok(file)
}

/// ONNX Runtime's own libraries beside it, which it loads by itself.
fn companions(library: &Path) -> Vec<PathBuf> {
    let entries = library.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_companion = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libonnxruntime_providers_"))
    };
    names.filter(is_companion).filter_map(|path| path.canonicalize().ok()).collect()
}

/// Somebody who may write a file or a folder on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Writer {
    User(u32),
    Group(u32),
    Everybody,
}

/// Each with the place that he may write.
struct Writers(Vec<(Writer, PathBuf)>);

impl Writers {
    fn all_within(&self, trusted: &BTreeSet<Writer>) -> Result<(), String> {
        let Some((writer, place)) = self.0.iter().find(|(writer, _)| !trusted.contains(writer)) else { return Ok(()) };
        let who = match writer {
            Writer::User(id) => format!("belongs to user {id}"),
            Writer::Group(id) => format!("may be written by group {id}"),
            Writer::Everybody => "may be written by everybody".to_owned(),
        };
        let place = place.display();
        Err(format!("{place} {who}, whose code would run as this program: make it root's (chown root {place}; chmod go-w {place})"))
    }
}

/// Who may write the file or put another in its place.
fn writers(file: &Path) -> Result<Writers, String> {
    let mut found = Vec::new();
    for place in file.ancestors() {
        let metadata = place.symlink_metadata().map_err(|error| format!("{}: {error}", place.display()))?;
        found.push((Writer::User(metadata.uid()), place.to_owned()));
        // In a sticky folder others can add, and cannot replace.
        if metadata.is_dir() && metadata.mode() & 0o1000 != 0 {
            continue;
        }
        if metadata.mode() & 0o020 != 0 {
            found.push((Writer::Group(metadata.gid()), place.to_owned()));
        }
        if metadata.mode() & 0o002 != 0 {
            found.push((Writer::Everybody, place.to_owned()));
        }
    }
    Ok(Writers(found))
}

/// Root, and whoever may write this very program: root alone where that has been replaced since.
fn trusted(and: Option<u32>) -> BTreeSet<Writer> {
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let writers = program.and_then(|program| writers(&program).ok()).map_or_else(Vec::new, |writers| writers.0);
    let mut trusted: BTreeSet<Writer> = writers.into_iter().map(|(writer, _)| writer).collect();
    trusted.extend([Writer::User(0), Writer::Group(0)]);
    trusted.extend(and.map(Writer::User));
    trusted
}

/// Reads so many bytes at an offset, or says that they are not there.
type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// Refuses what the loader would crash on (it maps segments without looking whether the file is long enough, and a cut one ends the
/// process with SIGBUS), what is for another machine, and what has no `entry`. Reads the ELF header, the program headers, the dynamic
/// section and one chain of the hash table (System V ABI, chapters 4 and 5).
pub(super) fn judge(length: u64, read: ReadAt<'_>, entry: &[u8]) -> Result<(), String> {
    let cut = || format!("it is cut off ({length} bytes)");
    let mut magic = [0; 4];
    if !read(0, &mut magic) || magic != *b"\x7fELF" {
        return Err("it is no shared library".into());
    }
    let elf = Elf { read };
    let head = |at: u64, bytes: usize| elf.number(at, bytes).ok_or_else(cut);
    let wide = cfg!(target_pointer_width = "64");
    if head(4, 1)? != 2 && !wide {
        // 32-bit files are left to a 32-bit machine's loader.
        return Ok(());
    }
    if head(4, 1)? != 2 || head(5, 1)? != 1 || MACHINE.is_some_and(|machine| head(0x12, 2) != Ok(machine)) {
        // A cut header is cut before it is foreign.
        head(0x3c, 2)?;
        return Err("it is for another kind of machine".into());
    }
    if head(0x10, 2)? != 3 {
        return Err("it is no shared library".into());
    }
    let sections = head(0x28, 8)?.saturating_add(head(0x3a, 2)? * head(0x3c, 2)?);
    let (start, size, count) = (head(0x20, 8)?, head(0x36, 2)?, head(0x38, 2)?);
    if size < 56 || count > MOST_HEADERS {
        return Err("its program headers are not what a linker writes".into());
    }
    let (mut end, mut loaded, mut dynamic) = (sections, Vec::new(), None);
    for index in 0..count {
        let at = start.saturating_add(index * size);
        let field = |offset: u64, bytes| head(at.saturating_add(offset), bytes);
        let segment = Segment { offset: field(8, 8)?, address: field(16, 8)?, length: field(32, 8)? };
        end = end.max(segment.offset.saturating_add(segment.length));
        match field(0, 4)? {
            1 => loaded.push(segment),
            2 => dynamic = Some(segment),
            _ => {}
        }
    }
    if end > length {
        return Err(cut());
    }
    let without = || format!("it has no entry point {}", String::from_utf8_lossy(entry));
    let tables = dynamic.and_then(|dynamic| elf.tables(&dynamic, &loaded)).ok_or_else(without)?;
    if elf.exports(&tables, entry).unwrap_or(false) { Ok(()) } else { Err(without()) }
}

struct Segment {
    offset: u64,
    address: u64,
    length: u64,
}

/// Where in the file the tables lie by which a symbol is found.
#[derive(Default)]
struct Tables {
    names: u64,
    symbols: u64,
    gnu: Option<u64>,
    classic: Option<u64>,
}

struct Elf<'a> {
    read: ReadAt<'a>,
}

impl Elf<'_> {
    /// A little-endian number of up to eight bytes.
    fn number(&self, at: u64, bytes: usize) -> Option<u64> {
        let mut buffer = [0; 8];
        (self.read)(at, buffer.get_mut(..bytes)?).then(|| u64::from_le_bytes(buffer))
    }

    fn word(&self, at: u64) -> Option<u32> {
        self.number(at, 4).and_then(|number| u32::try_from(number).ok())
    }

    fn tables(&self, dynamic: &Segment, loaded: &[Segment]) -> Option<Tables> {
        let place = |address: u64| {
            let within = |segment: &&Segment| address.checked_sub(segment.address).is_some_and(|inner| inner < segment.length);
            let segment = loaded.iter().find(within)?;
            segment.offset.checked_add(address - segment.address)
        };
        let mut tables = Tables::default();
        for at in (0..dynamic.length.min(MOST_DYNAMIC_BYTES)).step_by(16) {
            let at = dynamic.offset.checked_add(at)?;
            let (tag, value) = (self.number(at, 8)?, self.number(at.checked_add(8)?, 8)?);
            match tag {
                0 => break,
                4 => tables.classic = place(value),
                5 => tables.names = place(value)?,
                6 => tables.symbols = place(value)?,
                0x6fff_fef5 => tables.gnu = place(value),
                _ => {}
            }
        }
        (tables.names != 0 && tables.symbols != 0).then_some(tables)
    }

    /// Whether the library itself has the symbol; `None` where its tables lead out of the file.
    fn exports(&self, tables: &Tables, name: &[u8]) -> Option<bool> {
        if let Some(table) = tables.gnu {
            let (buckets, first, bloom) = (self.word(table)?, self.word(table.checked_add(4)?)?, self.word(table.checked_add(8)?)?);
            let hash = name.iter().fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
            let list = table.checked_add(16)?.checked_add(u64::from(bloom) * 8)?;
            let chains = list.checked_add(u64::from(buckets) * 4)?;
            let mut index = self.word(list.checked_add(u64::from(hash.checked_rem(buckets)?) * 4)?)?;
            for _ in 0..LONGEST_CHAIN {
                let Some(inner) = index.checked_sub(first) else { return Some(false) };
                let link = self.word(chains.checked_add(u64::from(inner) * 4)?)?;
                if link | 1 == hash | 1 && self.is_symbol(tables, index, name)? {
                    return Some(true);
                }
                if link & 1 == 1 {
                    return Some(false);
                }
                index = index.checked_add(1)?;
            }
            return None;
        }
        let table = tables.classic?;
        let hash = name.iter().fold(0_u32, |hash, byte| {
            let sum = (hash << 4).wrapping_add(u32::from(*byte));
            (sum ^ ((sum & 0xf000_0000) >> 24)) & 0x0fff_ffff
        });
        let buckets = self.word(table)?;
        let list = table.checked_add(8)?;
        let chains = list.checked_add(u64::from(buckets) * 4)?;
        let mut index = self.word(list.checked_add(u64::from(hash.checked_rem(buckets)?) * 4)?)?;
        for _ in 0..LONGEST_CHAIN {
            if index == 0 {
                return Some(false);
            }
            if self.is_symbol(tables, index, name)? {
                return Some(true);
            }
            index = self.word(chains.checked_add(u64::from(index) * 4)?)?;
        }
        None
    }

    /// Whether a symbol has the name and is the library's own, not one that it wants of another.
    fn is_symbol(&self, tables: &Tables, index: u32, name: &[u8]) -> Option<bool> {
        let at = tables.symbols.checked_add(u64::from(index) * 24)?;
        let (place, section) = (self.word(at)?, self.number(at.checked_add(6)?, 2)?);
        let mut found = vec![0; name.len() + 1];
        if !(self.read)(tables.names.checked_add(u64::from(place))?, &mut found) {
            return None;
        }
        let (end, text) = found.split_last()?;
        Some(section != 0 && *end == 0 && text == name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;

    use super::*;

    const ENTRY: &[u8] = b"OrtGetApiBase";

    fn judged(bytes: &[u8]) -> Result<(), String> {
        super::super::fuzzing::judge_library(bytes)
    }

    fn compile(folder: &Path, source: &str, style: &str) -> Option<PathBuf> {
        let (from, to) = (folder.join("fake.c"), folder.join("libonnxruntime.so"));
        std::fs::write(&from, source).unwrap();
        let compiler = std::env::var_os("FACEID_CC").unwrap_or_else(|| "cc".into());
        let style = format!("-Wl,--hash-style={style}");
        match Command::new(compiler).args(["-shared", "-fPIC", &style, "-o"]).arg(&to).arg(&from).status() {
            Ok(status) if status.success() => Some(to),
            _ => {
                eprintln!("SKIPPED: no C compiler to build a fake library with");
                None
            }
        }
    }

    #[test]
    fn the_entry_point_is_found_in_both_kinds_of_tables_and_nothing_else_is_taken_for_it() {
        let sources = [
            ("const void* OrtGetApiBase(void) { return 0; }", true),
            ("const void* OrtGetApiBaseX(void) { return 0; } int a(void) { return 1; } int b(void) { return 2; }", false),
            ("int onlyText(void); const char* text = \"OrtGetApiBase\";", false),
            // One that it wants of another library is none of its own.
            ("const void* OrtGetApiBase(void); const void* mine(void) { return OrtGetApiBase(); }", false),
        ];
        for style in ["gnu", "sysv", "both"] {
            for (source, has) in sources {
                let folder = tempfile::tempdir().unwrap();
                let Some(library) = compile(folder.path(), source, style) else { return };
                let outcome = judged(&std::fs::read(&library).unwrap());
                assert_eq!(outcome.is_ok(), has, "{style}, {source}: {outcome:?}");
                assert!(has || outcome.unwrap_err().contains("no entry point OrtGetApiBase"));
            }
        }
    }

    #[test]
    fn a_library_without_the_entry_point_never_runs_its_constructor() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("it-ran");
        let source = format!(
            "#include <fcntl.h>\n__attribute__((constructor)) static void begin(void) {{ open(\"{}\", O_CREAT | O_WRONLY, 0600); }}\n",
            mark.display()
        );
        let Some(library) = compile(folder.path(), &source, "gnu") else { return };
        assert!(examine(&library, ENTRY, None).unwrap_err().contains("no entry point"));
        #[cfg(feature = "ort")]
        assert!(super::super::ort::inspect(&library, None).unwrap_err().contains("no entry point"));
        assert!(!mark.exists(), "its constructor ran");
    }

    #[test]
    fn a_library_for_another_machine_a_program_and_a_cut_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = compile(folder.path(), "const void* OrtGetApiBase(void) { return 0; }", "gnu") else { return };
        let sound = std::fs::read(library).unwrap();
        let edited = |at: usize, byte: u8| {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            judged(&bytes).unwrap_err()
        };
        assert!(edited(4, 1).contains("another kind of machine") && edited(5, 2).contains("another kind of machine"));
        assert!(edited(0x12, 8).contains("another kind of machine") && edited(0x10, 2).contains("no shared library"));
        for length in [0, 3, 4, 20, 63, sound.len() / 2, sound.len() - 1] {
            assert!(judged(&sound[..length]).is_err(), "{length}");
        }
    }

    /// Root in the test run, as CI is.
    fn is_root() -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            println!("SKIPPED: not root: files cannot be given to others");
        }
        is_root
    }

    #[test]
    fn what_others_may_write_is_not_loaded_and_the_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = compile(folder.path(), "const void* OrtGetApiBase(void) { return 0; }", "gnu") else { return };
        let examined = |and| examine(&library, ENTRY, and);
        assert!(examined(None).is_ok(), "one's own, in one's own folder");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        // With a program that everybody may change anyway there is nothing to see.
        if trusted(None).contains(&Writer::Everybody) {
            return println!("SKIPPED: everybody may write this test");
        }
        mode(&library, 0o646);
        let error = examined(None).unwrap_err();
        assert!(error.contains("everybody") && error.contains("libonnxruntime.so"), "{error}");
        mode(&library, 0o644);
        mode(folder.path(), 0o757);
        assert!(examined(None).unwrap_err().contains("everybody"));
        mode(folder.path(), 0o1777);
        assert!(examined(None).is_ok(), "a sticky folder lets nobody replace what is another's");
        mode(folder.path(), 0o755);
        if !is_root() {
            return;
        }
        chown(&library, Some(61_234), None).unwrap();
        assert!(examined(None).unwrap_err().contains("belongs to user 61234"));
        assert!(examined(Some(61_234)).is_ok(), "named by that user");
        chown(&library, Some(0), Some(61_235)).unwrap();
        mode(&library, 0o664);
        assert!(examined(Some(61_234)).unwrap_err().contains("group 61235"));
        mode(&library, 0o644);
        chown(folder.path(), Some(61_234), None).unwrap();
        assert!(examined(None).unwrap_err().contains("belongs to user 61234"));
        chown(folder.path(), Some(0), None).unwrap();
        // What it loads by itself counts too, and a link is looked at where it leads.
        let provider = folder.path().join("libonnxruntime_providers_cuda.so");
        std::fs::write(&provider, "").unwrap();
        chown(&provider, Some(61_234), None).unwrap();
        assert!(examined(None).unwrap_err().contains("providers_cuda"));
        std::fs::remove_file(&provider).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        chown(elsewhere.path(), Some(61_234), None).unwrap();
        let (real, link) = (elsewhere.path().join("real.so"), folder.path().join("link.so"));
        std::fs::copy(&library, &real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(examine(&link, ENTRY, None).unwrap_err().contains("belongs to user 61234"));
    }
}
