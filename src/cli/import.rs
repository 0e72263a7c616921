//! `import`: many people at once, a folder of photos for each. What cannot be used is refused by name with its reason and stops nothing,
//! and the same folders again change nothing.

mod folders;
mod ids;
mod report;

use std::path::{Path, PathBuf};

use super::context::Context;
use super::editor::Editor;
use super::people::{new_person, one_face, why_not};
use super::shots::Unusable;
use super::{Failure, Places, Result, code, progress};
use crate::capture::still;
use crate::gallery::{Allowed, NotEnrolled, Rule};
use crate::pipeline::{self, reference};
use crate::types::{Embedding, Landmarks, Person, PersonId, Picture, Point};
use crate::vision::align;
use crate::vision::quality;
use crate::vision::stack::Stack;

pub(super) use folders::{Folder, folders_in};
pub(super) use ids::proposed_id;
use report::{Refused, Took, What};

/// People written to the gallery at once: one durable write for each such batch.
const BATCH: usize = 256;

/// `faceid import`
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// A folder with a folder of photos for each person
    dir: PathBuf,
    /// The photos are cropped and aligned to the ArcFace template already; one that is not is refused
    #[arg(long, conflicts_with = "crops")]
    aligned: bool,
    /// The photos are small crops of the face's box, without anything around it: they are enlarged and given a margin, and their size and
    /// sharpness refuse none
    #[arg(long)]
    crops: bool,
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

/// What the photos of an import are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shown {
    /// A person, with something around the face.
    #[default]
    Scene,
    /// The face's box.
    Crop,
    /// A face that was aligned before.
    Aligned,
}

/// What an import did.
#[derive(Default)]
pub(super) struct Imported {
    /// Who has templates by it, or had them already.
    pub(super) people: Vec<String>,
    templates: usize,
    already_there: usize,
    refused: Vec<Refused>,
    /// The ids that were given to folders whose names are none.
    named: Vec<(PathBuf, PersonId)>,
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
    fn refuse(&mut self, what: What, path: &Path, reason: String, code: &'static str) {
        self.refused.push(Refused { what, path: path.to_owned(), reason, code, alike: None });
    }

    fn not_enrolled(&mut self, what: What, path: &Path, why: &NotEnrolled) {
        self.refuse(what, path, why_not(why), why.code());
        if let (NotEnrolled::Duplicate { score, .. }, Some(refused)) = (why, self.refused.last_mut()) {
            refused.alike = Some(*score);
        }
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
                self.not_enrolled(What::Person, &folder, why);
                continue;
            }
            for (at, why) in admission.refused() {
                self.not_enrolled(What::Photo, photos.get(at).unwrap_or(&folder), why);
            }
            if folder.file_name().is_none_or(|name| name != admission.person.as_str()) {
                self.named.push((folder, admission.person.clone()));
            }
            self.people.push(admission.person.to_string());
            self.templates += admission.added();
            self.already_there += admission.already_there();
        }
        Ok(())
    }
}

pub(super) fn import(places: &Places, args: &ImportArgs) -> Result {
    let context = Context::load(places)?;
    super::editor::step_down(&context)?;
    let found = folders::found_in(&args.dir)?;
    let allowed = Allowed { duplicate: args.allow_duplicate, other_face: args.allow_other_face };
    let shown = match (args.aligned, args.crops) {
        (true, _) => Shown::Aligned,
        (false, true) => Shown::Crop,
        (false, false) => Shown::Scene,
    };
    let mut imported = import_folders(&context, &found.folders, shown, allowed)?;
    report::tell(&mut imported, &found, args.json);
    if imported.people.is_empty() {
        return Err(Failure::data(format!("{}: nobody could be enrolled", args.dir.display())));
    }
    Ok(if imported.refused.is_empty() { code::YES } else { code::DATA })
}

/// Enrols a person from each folder; what cannot be used is refused with its reason and stops nothing.
pub(super) fn import_folders(context: &Context, folders: &[Folder], shown: Shown, allowed: Allowed) -> Result<Imported> {
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery(&stack)?;
    let rule = Rule { matching: context.thresholds(&stack).matching, allowed };
    let bar = progress(folders.iter().map(|(_, photos)| photos.len() as u64).sum(), "photos");
    let mut imported = Imported::default();
    let snapshot = gallery.snapshot();
    let ids = ids::ids_of(folders.iter().map(|(folder, _)| folder.file_name().unwrap_or_default()), &snapshot);
    let mut batch = Vec::new();
    for ((folder, photos), id) in folders.iter().zip(ids) {
        let id = match id {
            Ok(id) => id,
            Err((reason, code)) => {
                bar.inc(photos.len() as u64);
                imported.refuse(What::Person, folder, reason, code);
                continue;
            }
        };
        let (mut faces, mut used) = (Vec::new(), Vec::new());
        for photo in photos {
            let read = || folders::refuse_clip(photo).and_then(|()| still::read_picture(photo).map_err(Failure::data));
            let picture = Took::clocked(&mut imported.took.photos, read);
            let embed = |picture| match shown {
                Shown::Aligned => aligned_face(&mut stack, &picture),
                Shown::Crop => face_of_crop(&mut stack, &picture, context.quality()),
                Shown::Scene => one_face(&mut stack, &picture, context.quality()),
            };
            let face = Took::clocked(&mut imported.took.networks, || picture.map_err(Unusable::from).and_then(embed));
            match face {
                Ok(face) => {
                    faces.push(face);
                    used.push(photo.clone());
                }
                Err(Unusable { code, failure }) => imported.refuse(What::Photo, photo, failure.message, code),
            }
            bar.inc(1);
        }
        if faces.is_empty() {
            let why = if photos.is_empty() { "no photo in it" } else { "no usable photo" };
            imported.refuse(What::Person, folder, format!("{why}: the person was not enrolled"), "no-usable-face");
        } else {
            // A name that somebody gave the person stays.
            let name = folder.file_name().map(ids::name_of).filter(|name| !name.is_empty() && snapshot.person(&id).is_none());
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
    if let Some(why) = pipeline::not_aligned(&mut stack.detector, picture).map_err(Failure::unavailable)? {
        return Err(Unusable { code: "not-aligned", failure: Failure::data(why) });
    }
    let scale = |value: f32, side: u32| value * side as f32 / align::ARCFACE_SIDE as f32;
    let points = align::ARCFACE_TEMPLATE.map(|[x, y]| Point { x: scale(x, picture.width()), y: scale(y, picture.height()) });
    let face = align::align(picture, &Landmarks(points), stack.embedder.template(), stack.embedder.side());
    let face = face.ok_or_else(|| Failure::data("the crop is too small"))?;
    Ok(stack.embedder.embed(&face).map_err(Failure::data)?)
}

/// The embedding of the only face of a crop of a face's box.
fn face_of_crop(stack: &mut Stack, crop: &Picture, gate: &quality::Settings) -> std::result::Result<Embedding, Unusable> {
    let faces = pipeline::look_at_crop(stack, crop, gate).map_err(Failure::unavailable)?;
    reference(faces).map_err(|why| Unusable { code: why.code(), failure: Failure::data(why) })
}
