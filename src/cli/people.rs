//! `enroll` and `people`: who is in the gallery.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::shots::{self, Unusable};
use super::{Failure, Places, Result, code, complain, plural, say, say_json, table};
use crate::capture::still;
use crate::gallery::{Allowed, NotEnrolled, Rule};
use crate::pipeline::{self, Terms};
use crate::system::clock;
use crate::types::{CameraId, Embedding, GroupId, Person, PersonId, Picture, Wall};
use crate::vision::quality;
use crate::vision::stack::Stack;

/// The most templates that one photo set, clip or camera session adds.
const MOST_SHOTS: usize = 5;
/// How long a guided enrolment at a camera waits.
const AT_CAMERA: Duration = Duration::from_secs(60);
/// How long a clip may be worked on.
const ON_CLIP: Duration = Duration::from_secs(3600);

/// `faceid enroll`
#[derive(clap::Args)]
pub(super) struct EnrollArgs {
    /// The person's id: letters, digits, `_`, `-`, `.`
    #[arg(value_parser = parse_new_id)]
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
    /// Enrol even faces that are unlike each other, or unlike those that the person has; noted in the audit trail
    #[arg(long)]
    allow_other_face: bool,
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

/// An id; of a text that is none, one that is proposed.
fn parse_new_id(text: &str) -> std::result::Result<PersonId, String> {
    PersonId::new(text).map_err(|error| match super::import::proposed_id(text) {
        Some(id) if !text.trim().is_empty() => {
            format!("{text} cannot be an id: give one and the name beside it, `{id} --name \"{text}\"`")
        }
        _ => error.to_string(),
    })
}

pub(super) fn parse_time(text: &str) -> std::result::Result<Wall, String> {
    let stamp: jiff::Timestamp = text.parse().map_err(|e| format!("{e}; write it like 2027-01-31T00:00:00Z"))?;
    Ok(Wall(stamp.as_millisecond()))
}

pub(super) fn new_person(id: PersonId, name: Option<String>, groups: Vec<GroupId>) -> Person {
    Person { id, name, groups, consented_at: None, expires_at: None, enrolled_at: clock::wall() }
}

pub(super) fn enroll(places: &Places, args: &EnrollArgs) -> Result {
    let context = Context::load(places)?;
    super::editor::step_down(&context)?;
    let mut stack = context.open_stack()?;
    let gallery = context.open_gallery(&stack)?;
    // Each face with the file that it comes from.
    let mut faces: Vec<(Option<&Path>, Embedding)> = Vec::new();
    let mut refused = Vec::new();
    if let Some(camera) = &args.camera {
        let found = at_camera(&context, &mut stack, camera).map_err(|unusable| unusable.failure)?;
        faces.extend(found.into_iter().map(|face| (None, face)));
    }
    for path in &args.images {
        match from_file(&context, &mut stack, path) {
            Ok(found) => faces.extend(found.into_iter().map(|face| (Some(path.as_path()), face))),
            Err(Unusable { code, failure }) => {
                complain(format!("{}: {}", path.display(), failure.message));
                refused.push(row(Some(path), &failure.message, code));
            }
        }
    }
    if faces.is_empty() {
        if args.json {
            let code = refused.first().map(|row| row["code"].clone());
            say_json(&json!({"person": args.person, "templates_added": 0, "already_there": 0, "refused": refused, "code": code}));
        }
        return Err(Failure::data(format!("{}: nothing usable was given, nobody was enrolled", args.person)));
    }
    let allowed = Allowed { duplicate: args.allow_duplicate, other_face: args.allow_other_face };
    let rule = Rule { matching: context.thresholds(&stack).matching, allowed };
    let snapshot = gallery.snapshot();
    let person = match snapshot.person(&args.person) {
        Some(known) => Person {
            name: args.name.clone().or_else(|| known.name.clone()),
            groups: if args.groups.is_empty() { known.groups.clone() } else { args.groups.clone() },
            ..known.clone()
        },
        None => new_person(args.person.clone(), args.name.clone(), args.groups.clone()),
    };
    let (files, embeddings): (Vec<Option<&Path>>, Vec<Embedding>) = faces.into_iter().unzip();
    let admissions = gallery.admit(vec![(person, embeddings)], &rule)?;
    let admission = admissions.first().ok_or_else(|| Failure::new(code::BUG, "nothing is known of the enrolment"))?;
    let (added, there) = (admission.added(), admission.already_there());
    let nobody = admission.why_nobody();
    let mut told = Vec::new();
    for (at, why) in admission.refused() {
        let file = files.get(at).copied().flatten();
        // Of a clip one line says it.
        if told.contains(&(file, why)) {
            continue;
        }
        told.push((file, why));
        refused.push(row(file, &why.to_string(), why.code()));
        if nobody != Some(why) {
            complain(format!("{}: {}", file.map_or("the camera".into(), |file| file.display().to_string()), why_not(why)));
        }
    }
    if args.json {
        let mut report = json!({"person": args.person, "templates_added": added, "already_there": there, "refused": refused});
        if let Some(why) = nobody {
            report["code"] = json!(why.code());
        }
        say_json(&report);
    }
    match nobody {
        Some(why) => Err(Failure::data(format!("{}: {}; nobody was enrolled", args.person, why_not(why)))),
        None if args.json => Ok(code::YES),
        None => {
            let there = if there > 0 { format!(", {there} already there") } else { String::new() };
            say(format!("{}: {} enrolled{there}", args.person, plural(added, "template")));
            Ok(code::YES)
        }
    }
}

/// A file that was refused, for `--json`.
fn row(file: Option<&Path>, reason: &str, code: &str) -> Value {
    json!({"image": file.map(Path::to_string_lossy), "reason": reason, "code": code})
}

/// Why a face was not enrolled, and what enrols it all the same.
pub(super) fn why_not(why: &NotEnrolled) -> String {
    match why {
        NotEnrolled::Duplicate { score, .. } => {
            format!("{why} (score {:.3}); --allow-duplicate enrols all the same", score.value())
        }
        NotEnrolled::TooMany { .. } => why.to_string(),
        _ => format!("{why}; --allow-other-face enrols all the same"),
    }
}

/// What a camera or a clip must show.
pub(super) fn terms(context: &Context, stack: &Stack, is_whole: bool) -> Terms {
    let at_doors = context.thresholds(stack);
    Terms {
        matching: at_doors.matching,
        liveness: context.config.access.require_liveness.then_some(at_doors.liveness),
        least_width: context.config.pipeline.min_liveness_face_px,
        wanted: MOST_SHOTS,
        is_whole,
    }
}

fn at_camera(context: &Context, stack: &mut Stack, id: &CameraId) -> std::result::Result<Vec<Embedding>, Unusable> {
    let camera = context.config.cameras.iter().find(|camera| camera.id == *id).cloned();
    let camera = camera.ok_or_else(|| Failure::data(format!("camera `{id}` is not in the config")))?;
    say(format!("Look into camera {id}. {MOST_SHOTS} pictures are taken; nobody else should be in view."));
    let guided = std::io::stdout().is_terminal();
    let mut last = String::new();
    let (gate, terms) = (*context.quality(), terms(context, stack, false));
    shots::collect(camera, &context.config.secrets_dir, stack, &gate, (terms, AT_CAMERA), |progress| {
        let (count, step) = match progress {
            shots::Progress::Seen(count, step) => (count, step),
            shots::Progress::Waits(why) => {
                return complain(format!("no picture comes yet: {why}; it is tried for {} s", AT_CAMERA.as_secs()));
            }
        };
        let line = format!("{count} of {MOST_SHOTS}: {}", step.as_str());
        if guided && line != last {
            say(&line);
            last = line;
        }
    })
}

/// The embeddings of one photo or clip, or why there is none.
fn from_file(context: &Context, stack: &mut Stack, path: &Path) -> std::result::Result<Vec<Embedding>, Unusable> {
    if shots::is_clip(path) {
        let camera = shots::clip_camera(path)?;
        let (gate, terms) = (*context.quality(), terms(context, stack, true));
        return shots::collect(camera, &context.config.secrets_dir, stack, &gate, (terms, ON_CLIP), |_| {});
    }
    let picture = still::read_picture(path).map_err(Failure::data)?;
    one_face(stack, &picture, context.quality()).map(|embedding| vec![embedding])
}

/// The embedding of a photo's only face, if it is good enough to be a reference.
pub(super) fn one_face(stack: &mut Stack, picture: &Picture, gate: &quality::Settings) -> std::result::Result<Embedding, Unusable> {
    let faces = pipeline::look(stack, picture, gate).map_err(Failure::unavailable)?;
    pipeline::reference(faces).map_err(|why| Unusable { code: why.code(), failure: Failure::data(why) })
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
                let rows: Vec<[String; 6]> = snapshot.people().map(|(person, templates)| table_row(person, templates)).collect();
                if !rows.is_empty() {
                    table::lines(["PERSON", "NAME", "TEMPLATES", "GROUPS", "ENROLLED", "EXPIRES"], &rows).iter().for_each(say);
                }
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

fn table_row(person: &Person, templates: usize) -> [String; 6] {
    let groups: Vec<&str> = person.groups.iter().map(GroupId::as_str).collect();
    let day = |at: Wall| at.rfc3339().chars().take(10).collect::<String>();
    [
        person.id.to_string(),
        person.name.clone().unwrap_or_default(),
        templates.to_string(),
        groups.join(" "),
        day(person.enrolled_at),
        person.expires_at.map(|at| at.rfc3339()).unwrap_or_default(),
    ]
}

fn line(person: &Person, templates: usize) -> String {
    let name = person.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let groups: Vec<&str> = person.groups.iter().map(GroupId::as_str).collect();
    let groups = if groups.is_empty() { String::new() } else { format!(", groups {}", groups.join(" ")) };
    let expires = person.expires_at.map(|at| format!(", expires {}", at.rfc3339())).unwrap_or_default();
    format!("{}{name}: {}, enrolled {}{groups}{expires}", person.id, plural(templates, "template"), person.enrolled_at.rfc3339())
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
