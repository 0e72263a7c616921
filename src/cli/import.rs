//! `import`: many people at once, a folder of photos for each. What cannot be used is refused by name with its reason and stops nothing,
//! and the same folders again change nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::context::Context;
use super::editor::Editor;
use super::people::{new_person, one_face, why_not};
use super::shots::Unusable;
use super::{Failure, Places, Result, code, complain, progress, say, say_json};
use crate::capture::still;
use crate::gallery::format::MAX_NAME_BYTES;
use crate::gallery::{Allowed, Rule, Snapshot};
use crate::types::{Embedding, Landmarks, Person, PersonId, Picture, Point};
use crate::vision::align;
use crate::vision::stack::Stack;

/// People written to the gallery at once: one durable write for each such batch.
const BATCH: usize = 256;
/// The longest part of an id that comes from the name itself, where a hash of the name is added to it.
const STEM: usize = 55;

/// `faceid import`
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// A folder with a folder of photos for each person
    dir: PathBuf,
    /// The photos are cropped and aligned to the ArcFace template already
    #[arg(long)]
    aligned: bool,
    /// Enrol even those whose face resembles somebody already enrolled
    #[arg(long)]
    allow_duplicate: bool,
    /// Enrol even faces that are unlike the others of their folder, or unlike those that the person has; noted in the audit trail
    #[arg(long)]
    allow_other_face: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A person's folder with its photos.
type Folder = (PathBuf, Vec<PathBuf>);

/// What was refused: a folder or a photo, why, and a word for programs.
struct Refused {
    path: PathBuf,
    reason: String,
    code: &'static str,
}

/// What an import did.
pub(super) struct Imported {
    /// Who has templates by it, or had them already.
    pub(super) people: Vec<String>,
    templates: usize,
    already_there: usize,
    refused: Vec<Refused>,
    took: Took,
}

/// One person of a batch.
struct Entry {
    folder: PathBuf,
    person: Person,
    /// Where each face comes from.
    photos: Vec<PathBuf>,
    faces: Vec<Embedding>,
}

impl Imported {
    fn refuse(&mut self, path: &Path, reason: String, code: &'static str) {
        self.refused.push(Refused { path: path.to_owned(), reason, code });
    }

    /// Enrols a batch; who is refused is named by the folder, and a single face by its photo.
    fn take(&mut self, gallery: &Editor, batch: Vec<Entry>, rule: &Rule) -> Result<()> {
        let (mut sources, mut people) = (Vec::new(), Vec::new());
        for Entry { folder, person, photos, faces } in batch {
            sources.push((folder, photos));
            people.push((person, faces));
        }
        let admissions = Took::clocked(&mut self.took.store, || gallery.admit(people, rule))?;
        for ((folder, photos), admission) in sources.into_iter().zip(&admissions) {
            if let Some(why) = admission.why_nobody() {
                self.refuse(&folder, why_not(why), why.code());
                continue;
            }
            for (at, why) in admission.refused() {
                self.refuse(photos.get(at).unwrap_or(&folder), why_not(why), why.code());
            }
            self.people.push(admission.person.to_string());
            self.templates += admission.added();
            self.already_there += admission.already_there();
        }
        Ok(())
    }
}

/// Where an import's time went.
#[derive(Default)]
struct Took {
    /// Reading and decoding photos.
    photos: Duration,
    /// Finding faces and embedding them.
    networks: Duration,
    /// Making enrolments durable.
    store: Duration,
}

impl Took {
    fn shares(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        json!({"photos_s": seconds(self.photos), "networks_s": seconds(self.networks), "store_s": seconds(self.store)})
    }

    /// What `work` gives; its time is added to `to`.
    fn clocked<T>(to: &mut Duration, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let made = work();
        *to += began.elapsed();
        made
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = (self.photos + self.networks + self.store).as_secs_f64().max(1e-9);
        let share = |time: Duration| 100.0 * time.as_secs_f64() / all;
        let (photos, networks, store) = (share(self.photos), share(self.networks), share(self.store));
        write!(f, "{all:.1} s: photos {photos:.0} %, networks {networks:.0} %, store {store:.1} %")
    }
}

pub(super) fn import(places: &Places, args: &ImportArgs) -> Result {
    let context = Context::load(places)?;
    super::editor::step_down(&context)?;
    let folders = folders_in(&args.dir)?;
    let allowed = Allowed { duplicate: args.allow_duplicate, other_face: args.allow_other_face };
    let imported = import_folders(&context, &folders, args.aligned, allowed)?;
    let Imported { people, templates, already_there, refused, took } = &imported;
    if args.json {
        let row =
            |refused: &Refused| json!({"path": refused.path.to_string_lossy(), "reason": refused.reason, "code": refused.code});
        let rows: Vec<Value> = refused.iter().map(row).collect();
        say_json(&json!({
            "people": people.len(), "templates": templates, "already_there": already_there, "refused": rows, "took": took.shares(),
        }));
    } else {
        for Refused { path, reason, .. } in refused {
            complain(format!("{}: {reason}", path.display()));
        }
        let there = if *already_there > 0 { format!("{already_there} already there, ") } else { String::new() };
        say(format!("{} people with {templates} templates enrolled, {there}{} refused, in {took}", people.len(), refused.len()));
    }
    if people.is_empty() {
        return Err(Failure::data(format!("{}: nobody could be enrolled", args.dir.display())));
    }
    Ok(code::YES)
}

/// Enrols a person from each folder; what cannot be used is refused with its reason and stops nothing.
pub(super) fn import_folders(context: &Context, folders: &[Folder], aligned: bool, allowed: Allowed) -> Result<Imported> {
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery(&stack)?;
    let rule = Rule { matching: context.thresholds(&stack).matching, allowed };
    let bar = progress(folders.iter().map(|(_, photos)| photos.len() as u64).sum(), "photos");
    let mut imported = Imported { people: Vec::new(), templates: 0, already_there: 0, refused: Vec::new(), took: Took::default() };
    let snapshot = gallery.snapshot();
    let ids = ids_of(folders.iter().map(|(folder, _)| folder.file_name().unwrap_or_default()), &snapshot);
    let mut batch = Vec::new();
    for ((folder, photos), id) in folders.iter().zip(ids) {
        let id = match id {
            Ok(id) => id,
            Err((reason, code)) => {
                bar.inc(photos.len() as u64);
                imported.refuse(folder, reason, code);
                continue;
            }
        };
        let (mut faces, mut used) = (Vec::new(), Vec::new());
        for photo in photos {
            let picture = Took::clocked(&mut imported.took.photos, || still::read_picture(photo).map_err(Failure::data));
            let embed = |picture| match aligned {
                true => aligned_face(&mut stack, &picture),
                false => one_face(&mut stack, &picture, context.quality()),
            };
            let face = Took::clocked(&mut imported.took.networks, || picture.map_err(Unusable::from).and_then(embed));
            match face {
                Ok(face) => {
                    faces.push(face);
                    used.push(photo.clone());
                }
                Err(Unusable { code, failure }) => imported.refuse(photo, failure.message, code),
            }
            bar.inc(1);
        }
        if faces.is_empty() {
            imported.refuse(folder, "no usable photo: the person was not enrolled".into(), "no-usable-face");
        } else {
            // A name that somebody gave the person stays.
            let name = folder.file_name().map(name_of).filter(|name| !name.is_empty() && snapshot.person(&id).is_none());
            let person = new_person(id, name, Vec::new());
            batch.push(Entry { folder: folder.clone(), person, photos: used, faces });
        }
        if batch.len() >= BATCH {
            imported.take(&gallery, std::mem::take(&mut batch), &rule)?;
        }
    }
    imported.take(&gallery, batch, &rule)?;
    bar.finish_and_clear();
    Ok(imported)
}

/// The embedding of a photo that is an aligned crop already: its five points are where the ArcFace template has them.
fn aligned_face(stack: &mut Stack, picture: &Picture) -> std::result::Result<Embedding, Unusable> {
    let scale = |value: f32, side: u32| value * side as f32 / align::ARCFACE_SIDE as f32;
    let points = align::ARCFACE_TEMPLATE.map(|[x, y]| Point { x: scale(x, picture.width()), y: scale(y, picture.height()) });
    let face = align::align(picture, &Landmarks(points), stack.embedder.template(), stack.embedder.side());
    let face = face.ok_or_else(|| Failure::data("the crop is too small"))?;
    Ok(stack.embedder.embed(&face).map_err(Failure::data)?)
}

/// The id of each folder's person, or why it has none, by the folders' names alone: the same folders give the same ids at every import.
/// No two folders of one import ever become one person.
fn ids_of<'a>(
    folders: impl Iterator<Item = &'a OsStr>,
    snapshot: &Snapshot,
) -> Vec<std::result::Result<PersonId, (String, &'static str)>> {
    let mut taken: BTreeMap<PersonId, String> = BTreeMap::new();
    let mut ids = Vec::new();
    for folder in folders {
        let shown = folder.to_string_lossy();
        let id = id_of(folder, snapshot).map_err(|failure| (failure.message, "no-person-id")).and_then(|id| match taken.get(&id) {
            Some(other) => Err((format!("`{shown}` becomes the id {id}, which `{other}` has: rename one"), "same-id")),
            None => Ok(id),
        });
        if let Ok(id) = &id {
            taken.insert(id.clone(), shown.into_owned());
        }
        ids.push(id);
    }
    ids
}

/// A folder's name as a person's id. A name that is an id is that id; of any other, what an id cannot hold becomes `_`, and a hash of
/// the name tells it from others that fall onto the same: `张伟` and `李娜`, `anna b` and `anna_b`.
fn id_of(folder: &OsStr, snapshot: &Snapshot) -> Result<PersonId> {
    let name = folder.to_string_lossy();
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' }).collect();
    if *plain == *name {
        return PersonId::new(plain).map_err(Failure::data);
    }
    // An import of an earlier version gave no hash: who was enrolled by it under this very name is found again.
    if let Ok(id) = PersonId::new(plain.clone())
        && snapshot.person(&id).is_some_and(|person| person.name.as_deref() == Some(&*name))
    {
        return Ok(id);
    }
    let hash = Sha256::digest(folder.as_encoded_bytes());
    let stem = &plain[..plain.len().min(STEM)];
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    PersonId::new(format!("{stem}-{hash}")).map_err(Failure::data)
}

/// A folder's name as a person's: without what a name cannot hold, and no longer than it may be.
fn name_of(folder: &OsStr) -> String {
    let mut name = String::new();
    for c in folder.to_string_lossy().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        name.push(c);
    }
    name
}

/// Each person's folder with its photos, both sorted, so that an import is repeatable.
pub(super) fn folders_in(dir: &Path) -> Result<Vec<Folder>> {
    let entries = |dir: &Path| -> Result<Vec<PathBuf>> {
        let read = std::fs::read_dir(dir).map_err(|error| Failure::data(format!("{}: {error}", dir.display())))?;
        let mut paths: Vec<PathBuf> = read.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
        paths.sort();
        Ok(paths)
    };
    let mut folders = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let photos = entries(&folder)?.into_iter().filter(|path| path.is_file()).collect();
        folders.push((folder, photos));
    }
    if folders.is_empty() {
        return Err(Failure::data(format!("{}: holds no folder of photos", dir.display())));
    }
    Ok(folders)
}
