//! What an import says of what it did: people and photos apart, a summary by reason, and whether the photos look alike to the network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{complain, say, say_json};
use super::Imported;
use super::folders::Found;
use crate::types::Score;

/// The most things that were passed over, and ids, that are named on a terminal; `--json` has all.
const MOST_NAMED: usize = 20;
/// From this score on two faces are of one photo: who is enrolled already by it is no matter of likeness.
const SAME_PHOTO: f32 = 0.99995;
/// So many people, and more than this share of all, whose faces are somebody else's: then the photos are what is alike.
const LEAST_ALIKE: usize = 3;
const SHARE_ALIKE: f64 = 0.1;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A person, with all photos.
    Person,
    /// One photo.
    Photo,
}

/// What was refused: a folder or a photo, why, and a word for programs.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) what: What,
    pub(super) path: PathBuf,
    pub(super) reason: String,
    pub(super) code: &'static str,
    /// How alike the face is to the one that it was taken for.
    pub(super) alike: Option<Score>,
}

/// Where an import's time went.
#[derive(Default)]
pub(super) struct Took {
    /// Reading and decoding photos.
    pub(super) photos: Duration,
    /// Finding faces and embedding them.
    pub(super) networks: Duration,
    /// Making enrolments durable.
    pub(super) store: Duration,
}

impl Took {
    fn shares(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        json!({"photos_s": seconds(self.photos), "networks_s": seconds(self.networks), "store_s": seconds(self.store)})
    }

    /// What `work` gives; its time is added to `to`.
    pub(super) fn clocked<T>(to: &mut Duration, work: impl FnOnce() -> T) -> T {
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

/// Tells what an import did.
pub(super) fn tell(imported: &mut Imported, found: &Found, as_json: bool) {
    let people = found.folders.len();
    let photos: usize = found.folders.iter().map(|(_, photos)| photos.len()).sum();
    let alike = look_alike(&mut imported.refused, people);
    let Imported { people: enrolled, templates, already_there, refused, named, took } = imported;
    let of = |what: What| refused.iter().filter(move |refused| refused.what == what);
    let mut counts: [BTreeMap<&str, usize>; 2] = Default::default();
    for (count, what) in counts.iter_mut().zip([What::Person, What::Photo]) {
        of(what).for_each(|refused| *count.entry(refused.code).or_default() += 1);
    }
    if as_json {
        let row = |refused: &Refused| {
            let what = if refused.what == What::Person { "person" } else { "photo" };
            json!({"path": refused.path.to_string_lossy(), "what": what, "reason": refused.reason, "code": refused.code})
        };
        let rows: Vec<Value> = refused.iter().map(row).collect();
        let passed_over = found.passed_over.iter().map(|(path, why)| json!({"path": path.to_string_lossy(), "reason": why}));
        let ids = named.iter().map(|(path, id)| json!({"path": path.to_string_lossy(), "person": id}));
        say_json(&json!({
            "people": enrolled.len(), "templates": templates, "already_there": already_there, "refused": rows,
            "refused_people": counts[0], "refused_photos": counts[1], "ids": ids.collect::<Vec<_>>(),
            "passed_over": passed_over.collect::<Vec<_>>(), "alike": alike.is_some(), "took": took.shares(),
        }));
        return;
    }
    for Refused { path, reason, .. } in refused.iter() {
        complain(format!("{}: {reason}", path.display()));
    }
    let passed_over = found.passed_over.iter().map(|(path, why)| format!("{}: passed over: it {why}", path.display()));
    first_of(passed_over, complain);
    let ids = named
        .iter()
        .map(|(path, id)| format!("{} is enrolled as {id}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()));
    first_of(ids, |line| super::super::say_outside(&line));
    let there = if *already_there > 0 { format!(", {already_there} already there") } else { String::new() };
    say(format!(
        "{} with {} enrolled{there}, in {took}",
        counted(enrolled.len(), "person", "people"),
        counted(*templates, "template", "templates")
    ));
    for (counts, what) in counts.iter().zip([(What::Person, people, "person", "people"), (What::Photo, photos, "photo", "photos")])
    {
        let (kind, all, one, many) = what;
        let refused = of(kind).count();
        if refused > 0 {
            let reasons: Vec<String> = counts.iter().map(|(code, count)| format!("{count} {code}")).collect();
            say(format!("refused: {refused} of {}: {}", counted(all, one, many), reasons.join(", ")));
        }
    }
    if !found.passed_over.is_empty() {
        say(format!("passed over: {}", counted(found.passed_over.len(), "entry", "entries")));
    }
    if let Some(alike) = alike {
        complain(alike);
    }
}

/// The first lines, and how many more there are.
fn first_of(lines: impl ExactSizeIterator<Item = String>, tell: impl Fn(String)) {
    let more = lines.len().saturating_sub(MOST_NAMED);
    lines.take(MOST_NAMED).for_each(&tell);
    if more > 0 {
        tell(format!("and {more} more: --json names them"));
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whether so many people have somebody else's face that it is the photos which are alike to the network; their reasons then say so.
fn look_alike(refused: &mut [Refused], people: usize) -> Option<String> {
    let is_alike = |refused: &Refused| refused.alike.is_some_and(|score| score.value() < SAME_PHOTO);
    let count = refused.iter().filter(|refused| is_alike(refused)).count();
    if count < LEAST_ALIKE || count as f64 <= SHARE_ALIKE * people as f64 {
        return None;
    }
    for refused in refused.iter_mut().filter(|refused| is_alike(refused)) {
        refused.code = "photos-look-alike";
        let score = refused.alike.map_or(0.0, Score::value);
        refused.reason =
            format!("looks like somebody else of this import or the gallery to the network (score {score:.3}), as many do");
    }
    Some(format!(
        "{count} of {} look like somebody else to the network: rather than twins, these are photos that it cannot tell apart. Are they \
         small, blurred, or crops (--crops)? Does another pack (--pack standard) tell them apart?",
        counted(people, "person", "people")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faces_that_are_somebody_elses_are_alike_photos_and_a_few_or_the_same_photos_are_not() {
        let rows = |count: usize, score: f32| -> Vec<Refused> {
            let refused = |_| Refused {
                what: What::Person,
                path: "a".into(),
                reason: "this face is already enrolled as b".into(),
                code: "already-enrolled",
                alike: Some(Score::saturating(score)),
            };
            (0..count).map(refused).collect()
        };
        for (count, score, people, is_told) in
            [(152, 0.6, 158, true), (3, 0.6, 20, true), (2, 0.6, 2, false), (3, 0.6, 30, false), (100, 1.0, 100, false)]
        {
            let mut refused = rows(count, score);
            let told = look_alike(&mut refused, people);
            assert_eq!(told.is_some(), is_told, "{count} of {people}");
            assert!(refused.iter().all(|row| row.reason.contains("already enrolled") != is_told));
            assert!(refused.iter().all(|row| (row.code == "photos-look-alike") == is_told));
        }
    }
}
