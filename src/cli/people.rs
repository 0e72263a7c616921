//! `enroll`, `import` and `people`: who is in the gallery.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::context::Context;
use super::editor::Editor;
use super::shots::{self, Shots};
use super::{Failure, Places, Result, code, complain, progress, say, say_json};
use crate::capture::still;
use crate::gallery::Twin;
use crate::pipeline;
use crate::system::clock;
use crate::types::{CameraId, Embedding, GroupId, Landmarks, Person, PersonId, Picture, Point, Score, Wall};
use crate::vision::stack::Stack;
use crate::vision::{align, quality};

/// The most templates that one photo set, clip or camera session adds.
const MOST_SHOTS: usize = 5;
/// How long a guided enrolment at a camera waits.
const AT_CAMERA: Duration = Duration::from_secs(60);
/// How long a clip may be worked on.
const ON_CLIP: Duration = Duration::from_secs(3600);
/// People written to the gallery at once by `import`: one durable write for each such batch.
const BATCH: usize = 256;

/// `faceid enroll`
#[derive(clap::Args)]
pub(super) struct EnrollArgs {
    /// The person's id: letters, digits, `_`, `-`, `.`
    person: PersonId,
    /// Photos with exactly one face each, or clips
    #[arg(value_name = "IMAGE|CLIP", required_unless_present = "camera")]
    images: Vec<PathBuf>,
    /// Enrol at this camera of the config instead, guided
    #[arg(long, value_name = "ID", conflicts_with = "images")]
    camera: Option<CameraId>,
    /// The person's name, for people to read
    #[arg(long)]
    name: Option<String>,
    /// A group the person belongs to; may be given more than once
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupId>,
    /// Enrol even when the face resembles somebody already enrolled
    #[arg(long)]
    allow_duplicate: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

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
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `faceid people …`
#[derive(clap::Subcommand)]
pub(super) enum PeopleVerb {
    /// Everybody, a line each
    List {
        /// An array of objects
        #[arg(long)]
        json: bool,
    },
    /// One person
    Show {
        /// The person's id
        person: PersonId,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change what is kept about a person
    Set {
        /// The person's id
        person: PersonId,
        /// The name
        #[arg(long)]
        name: Option<String>,
        /// The groups, in place of those before; may be given more than once
        #[arg(long = "group", value_name = "GROUP")]
        groups: Option<Vec<GroupId>>,
        /// When the person agreed (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        consent: Option<Wall>,
        /// From when on the person is denied (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        expires: Option<Wall>,
    },
    /// Remove a person with all templates
    Remove {
        /// The person's id
        person: PersonId,
    },
    /// What is kept about people, without templates, as JSON
    Export,
}

fn parse_time(text: &str) -> std::result::Result<Wall, String> {
    let stamp: jiff::Timestamp = text.parse().map_err(|e| format!("{e}; write it like 2027-01-31T00:00:00Z"))?;
    Ok(Wall(stamp.as_millisecond()))
}

fn new_person(id: PersonId, name: Option<String>, groups: Vec<GroupId>) -> Person {
    Person { id, name, groups, consented_at: None, expires_at: None, enrolled_at: clock::wall() }
}

pub(super) fn enroll(places: &Places, args: &EnrollArgs) -> Result {
    let context = Context::load(places)?;
    super::editor::step_down(&context)?;
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery(&stack)?;
    let (mut embeddings, mut refused) = (Vec::new(), Vec::new());
    if let Some(camera) = &args.camera {
        let shots = at_camera(&context, &mut stack, camera)?;
        embeddings.extend(shots.embeddings);
    }
    for path in &args.images {
        match from_file(&context, &mut stack, path) {
            Ok(found) => embeddings.extend(found),
            Err(failure) => {
                complain(format!("{}: {}", path.display(), failure.message));
                refused.push(json!({"image": path, "reason": failure.message}));
            }
        }
    }
    if embeddings.is_empty() {
        return Err(Failure::data(format!("{}: nothing usable was given, nobody was enrolled", args.person)));
    }
    let distinct = (!args.allow_duplicate).then(|| context.thresholds(&stack).matching);
    let snapshot = gallery.snapshot();
    let person = match snapshot.person(&args.person) {
        Some(known) => Person {
            name: args.name.clone().or_else(|| known.name.clone()),
            groups: if args.groups.is_empty() { known.groups.clone() } else { args.groups.clone() },
            ..known.clone()
        },
        None => new_person(args.person.clone(), args.name.clone(), args.groups.clone()),
    };
    let count = embeddings.len();
    if let Some(twin) = gallery.enroll_many(vec![(person, embeddings)], distinct)?.first() {
        return Err(Failure::data(format!("{}: {}; nobody was enrolled", args.person, already(twin))));
    }
    if args.json {
        say_json(&json!({"person": args.person, "templates_added": count, "refused": refused}));
    } else {
        say(format!("{}: {count} template(s) enrolled", args.person));
    }
    Ok(code::YES)
}

fn already(twin: &Twin) -> String {
    let (other, score) = (&twin.other.person, twin.other.score.value());
    format!("this face is already enrolled as {other} (score {score:.3}); --allow-duplicate enrols all the same")
}

fn at_camera(context: &Context, stack: &mut Stack, id: &CameraId) -> Result<Shots> {
    let camera = context.config.cameras.iter().find(|camera| camera.id == *id).cloned();
    let camera = camera.ok_or_else(|| Failure::data(format!("camera `{id}` is not in the config")))?;
    say(format!("Look into camera {id}. {MOST_SHOTS} pictures are taken; nobody else should be in view."));
    let guided = std::io::stdout().is_terminal();
    let mut last = String::new();
    let gate = *context.quality();
    let shots = shots::collect(camera, &context.config.secrets_dir, stack, &gate, (MOST_SHOTS, AT_CAMERA), |count, word| {
        let line = format!("{count} of {MOST_SHOTS}: {word}");
        if guided && line != last {
            say(&line);
            last = line;
        }
    })?;
    usable(shots)
}

/// The embeddings of one photo or clip, or why there is none.
fn from_file(context: &Context, stack: &mut Stack, path: &Path) -> Result<Vec<Embedding>> {
    if shots::is_clip(path) {
        let camera = shots::clip_camera(path)?;
        let gate = *context.quality();
        let shots = shots::collect(camera, &context.config.secrets_dir, stack, &gate, (MOST_SHOTS, ON_CLIP), |_, _| {})?;
        return usable(shots).map(|shots| shots.embeddings);
    }
    let picture = still::read_picture(path).map_err(Failure::data)?;
    one_face(stack, &picture, context.quality()).map(|embedding| vec![embedding])
}

fn usable(shots: Shots) -> Result<Shots> {
    if !shots.embeddings.is_empty() {
        return Ok(shots);
    }
    let why = match (shots.refusal, shots.crowded) {
        (Some(refusal), _) => format!("no usable face in {} frames, mostly {}", shots.looked, refusal.as_str()),
        (None, crowded) if crowded > 0 => format!("{crowded} of {} frames show more than one face", shots.looked),
        _ => format!("no face in {} frames", shots.looked),
    };
    Err(Failure::data(why))
}

/// The embedding of a photo's only face, if it is good enough to be a reference.
fn one_face(stack: &mut Stack, picture: &Picture, gate: &quality::Settings) -> Result<Embedding> {
    let faces = pipeline::look(stack, picture, gate).map_err(Failure::unavailable)?;
    pipeline::reference(faces).map_err(Failure::data)
}

/// The embedding of a photo that is an aligned crop already: its five points are where the ArcFace template has them.
fn aligned_face(stack: &mut Stack, picture: &Picture) -> Result<Embedding> {
    let scale = |value: f32, side: u32| value * side as f32 / align::ARCFACE_SIDE as f32;
    let points = align::ARCFACE_TEMPLATE.map(|[x, y]| Point { x: scale(x, picture.width()), y: scale(y, picture.height()) });
    let face = align::align(picture, &Landmarks(points), stack.embedder.template(), stack.embedder.side());
    let face = face.ok_or_else(|| Failure::data("the crop is too small"))?;
    stack.embedder.embed(&face).map_err(Failure::data)
}

/// A folder's name as a person's id: what an id cannot hold becomes `_`.
fn id_of(folder: &str) -> Result<PersonId> {
    let id: String = folder.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' }).collect();
    PersonId::new(id).map_err(Failure::data)
}

/// What an import did.
pub(super) struct Imported {
    pub(super) people: Vec<String>,
    templates: usize,
    refused: Vec<(PathBuf, String)>,
    took: Took,
}

impl Imported {
    /// Enrols a batch; whose face is somebody else's is refused by the folder.
    fn take(&mut self, gallery: &Editor, batch: Vec<(PathBuf, Person, Vec<Embedding>)>, distinct: Option<Score>) -> Result<()> {
        let folders: Vec<(PathBuf, PersonId, usize)> =
            batch.iter().map(|(folder, person, all)| (folder.clone(), person.id.clone(), all.len())).collect();
        let people = batch.into_iter().map(|(_, person, all)| (person, all)).collect();
        let twins = Took::clocked(&mut self.took.store, || gallery.enroll_many(people, distinct))?;
        for (folder, id, templates) in folders {
            match twins.iter().find(|twin| twin.person == id) {
                Some(twin) => self.refused.push((folder, already(twin))),
                None => {
                    self.people.push(id.to_string());
                    self.templates += templates;
                }
            }
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
    let imported = import_folders(&context, &folders, args.aligned, args.allow_duplicate)?;
    let Imported { people, templates, refused, took } = &imported;
    if args.json {
        let rows: Vec<Value> = refused.iter().map(|(path, why)| json!({"path": path, "reason": why})).collect();
        say_json(&json!({"people": people.len(), "templates": templates, "refused": rows, "took": took.shares()}));
    } else {
        for (path, why) in refused {
            complain(format!("{}: {why}", path.display()));
        }
        say(format!("{} people with {templates} templates enrolled, {} refused, in {took}", people.len(), refused.len()));
    }
    if people.is_empty() {
        return Err(Failure::data(format!("{}: nobody could be enrolled", args.dir.display())));
    }
    Ok(code::YES)
}

/// Enrols a person from each folder; what cannot be used is refused with its reason and stops nothing.
pub(super) fn import_folders(
    context: &Context,
    folders: &[(PathBuf, Vec<PathBuf>)],
    aligned: bool,
    allow_duplicate: bool,
) -> Result<Imported> {
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery(&stack)?;
    let distinct = (!allow_duplicate).then(|| context.thresholds(&stack).matching);
    let bar = progress(folders.iter().map(|(_, photos)| photos.len() as u64).sum(), "photos");
    let mut imported = Imported { people: Vec::new(), templates: 0, refused: Vec::new(), took: Took::default() };
    let mut batch = Vec::new();
    for (folder, photos) in folders {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut embeddings = Vec::new();
        for photo in photos {
            let picture = Took::clocked(&mut imported.took.photos, || still::read_picture(photo).map_err(Failure::data));
            let embed = |picture| match aligned {
                true => aligned_face(&mut stack, &picture),
                false => one_face(&mut stack, &picture, context.quality()),
            };
            let embedding = Took::clocked(&mut imported.took.networks, || picture.and_then(embed));
            match embedding {
                Ok(embedding) => embeddings.push(embedding),
                Err(failure) => imported.refused.push((photo.clone(), failure.message)),
            }
            bar.inc(1);
        }
        match id_of(&name) {
            Ok(id) if !embeddings.is_empty() => {
                batch.push((folder.clone(), new_person(id, Some(name), Vec::new()), embeddings));
            }
            Ok(_) => imported.refused.push((folder.clone(), "no usable photo: the person was not enrolled".into())),
            Err(failure) => imported.refused.push((folder.clone(), failure.message)),
        }
        if batch.len() >= BATCH {
            imported.take(&gallery, std::mem::take(&mut batch), distinct)?;
        }
    }
    imported.take(&gallery, batch, distinct)?;
    bar.finish_and_clear();
    Ok(imported)
}

/// Each person's folder with its photos, both sorted, so that an import is repeatable.
pub(super) fn folders_in(dir: &Path) -> Result<Vec<(PathBuf, Vec<PathBuf>)>> {
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

pub(super) fn people(places: &Places, verb: &PeopleVerb) -> Result {
    let context = Context::load(places)?;
    let key = context.sealing_key()?;
    let missing = |person: &PersonId| Failure::new(code::NO, format!("{person} is not enrolled"));
    match verb {
        PeopleVerb::Set { person, name, groups, consent, expires } => {
            let gallery = super::gallery::open_for_care(&context, &key)?;
            let known = gallery.snapshot().person(person).cloned().ok_or_else(|| missing(person))?;
            let changed = Person {
                name: name.clone().or(known.name),
                groups: groups.clone().unwrap_or(known.groups),
                consented_at: consent.or(known.consented_at),
                expires_at: expires.or(known.expires_at),
                ..known
            };
            gallery.set(changed)?;
            say(format!("{person}: changed"));
            Ok(code::YES)
        }
        PeopleVerb::Remove { person } => {
            let gallery = super::gallery::open_for_care(&context, &key)?;
            if gallery.snapshot().person(person).is_none() {
                return Err(missing(person));
            }
            gallery.remove(person)?;
            say(format!("{person}: removed"));
            Ok(code::YES)
        }
        PeopleVerb::List { json } => {
            let snapshot = super::gallery::open_for_reading(&context, &key)?.snapshot();
            if *json {
                say_json(&snapshot.people().map(|(person, templates)| person_json(person, templates)).collect());
            } else {
                snapshot.people().for_each(|(person, templates)| say(line(person, templates)));
            }
            Ok(code::YES)
        }
        PeopleVerb::Show { person, json } => {
            let snapshot = super::gallery::open_for_reading(&context, &key)?.snapshot();
            let (found, templates) = snapshot.people().find(|(p, _)| p.id == *person).ok_or_else(|| missing(person))?;
            if *json {
                say_json(&person_json(found, templates));
            } else {
                say(line(found, templates));
            }
            Ok(code::YES)
        }
        PeopleVerb::Export => {
            let snapshot = super::gallery::open_for_reading(&context, &key)?.snapshot();
            say_json(&snapshot.people().map(|(person, templates)| person_json(person, templates)).collect());
            Ok(code::YES)
        }
    }
}

fn line(person: &Person, templates: usize) -> String {
    let name = person.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let groups: Vec<&str> = person.groups.iter().map(GroupId::as_str).collect();
    let groups = if groups.is_empty() { String::new() } else { format!(", groups {}", groups.join(" ")) };
    let expires = person.expires_at.map(|at| format!(", expires {}", at.rfc3339())).unwrap_or_default();
    format!("{}{name}: {templates} template(s), enrolled {}{groups}{expires}", person.id, person.enrolled_at.rfc3339())
}

fn person_json(person: &Person, templates: usize) -> Value {
    json!({
        "person": person.id,
        "name": person.name,
        "groups": person.groups,
        "templates": templates,
        "enrolled_at": person.enrolled_at.rfc3339(),
        "consented_at": person.consented_at.map(Wall::rfc3339),
        "expires_at": person.expires_at.map(Wall::rfc3339),
    })
}
