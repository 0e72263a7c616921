//! What may become a person's templates: the one rule of every way in (photos, clips, cameras, imports, the API, commands).
//!
//! Faces of one enrolment must be one person's, new ones must be like those that the person has, and nobody's face is enrolled under a
//! second id, unless the operator insists. What does not fit is refused face by face, with a code; the whole enrolment is refused where
//! nothing tells which of its people is meant. A face that is there already adds nothing.
//!
//! How like is like enough: a face is a person's when the door itself would take it for the person's (the threshold of matching, with any
//! one template), or when it reaches [`SHARE`] of that threshold with the mean of the person's templates. Means are steadier than
//! single photos: genuine photos taken years apart fall below the threshold of matching with each other, and seldom below the share of
//! it with a mean. What that costs and keeps out is measured in `PROJECT_REPORT.md`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::snapshot::{Change, Snapshot};
use super::{Gallery, GalleryError, index, merged, storable};
use crate::types::{Embedding, Person, PersonId, Score};

/// The share of the threshold of matching that a face must reach with the mean of a person's templates. The packs' thresholds are those among
/// people who are alike; this share of them is what the strangers' photos of `PROJECT_REPORT.md` were kept out by.
pub const SHARE: f32 = 0.7;
/// From this score on two templates are of one photo: rounding, and nothing else, lies between them.
const SAME_PHOTO: f32 = 0.99995;
/// Faces of one person that are compared with each other at once; further ones are more than fit anyway, or have to come later.
const MOST_COMPARED: usize = 128;
/// How often the mean of a set is taken anew, when faces came to it or went.
const ROUNDS: usize = 8;

/// What the operator insists on, against the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allowed {
    /// A face may be enrolled under a second id.
    pub duplicate: bool,
    /// Faces may be unlike each other, and unlike those that the person has.
    pub other_face: bool,
}

/// The rule of an enrolment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The threshold of matching at the doors.
    pub matching: Score,
    /// What the operator insists on.
    pub allowed: Allowed,
}

/// Why a face was not enrolled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NotEnrolled {
    /// It is somebody else's, who is enrolled already.
    Duplicate {
        /// Whose.
        other: PersonId,
        /// How alike.
        score: Score,
    },
    /// It is unlike those that the person has.
    OtherFace,
    /// It is unlike most others of its own enrolment.
    UnlikeTheOthers,
    /// The faces of this enrolment are several people's, and none has most of them.
    FacesDiffer,
    /// The person has as many templates as may be.
    TooMany {
        /// How many that is.
        limit: usize,
    },
}

impl NotEnrolled {
    /// The word that scripts go by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "already-enrolled",
            Self::OtherFace => "other-face",
            Self::UnlikeTheOthers => "unlike-the-others",
            Self::FacesDiffer => "faces-differ",
            Self::TooMany { .. } => "too-many-templates",
        }
    }
}

impl fmt::Display for NotEnrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { other, .. } => write!(f, "this face is already enrolled as {other}"),
            Self::OtherFace => f.write_str("this face is not like the one that is enrolled under this id"),
            Self::UnlikeTheOthers => f.write_str("this face is not like the others of this enrolment"),
            Self::FacesDiffer => f.write_str("the faces of this enrolment are not one person's: give photos of one person"),
            Self::TooMany { limit } => {
                write!(f, "the person has {limit} templates and more do not fit: raise gallery.max-templates-per-person for more")
            }
        }
    }
}

/// What became of one face.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fate {
    /// It is a template now.
    Added,
    /// The person has it already.
    AlreadyThere,
    /// It is none.
    Refused(NotEnrolled),
}

/// What became of one person's enrolment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// Who.
    pub person: PersonId,
    /// What became of each face, in their order.
    pub faces: Vec<Fate>,
    /// Whether what is kept besides templates was changed, of somebody who was enrolled before.
    pub is_changed: bool,
}

impl Admission {
    /// Templates that were added.
    pub fn added(&self) -> usize {
        self.faces.iter().filter(|fate| **fate == Fate::Added).count()
    }

    /// Faces that the person has already.
    pub fn already_there(&self) -> usize {
        self.faces.iter().filter(|fate| **fate == Fate::AlreadyThere).count()
    }

    /// The faces that were refused: which, counted from 0, and why.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &NotEnrolled)> {
        self.faces.iter().enumerate().filter_map(|(at, fate)| match fate {
            Fate::Refused(why) => Some((at, why)),
            _ => None,
        })
    }

    /// Why nothing of it was enrolled, if that is so.
    pub fn why_nobody(&self) -> Option<&NotEnrolled> {
        if self.added() + self.already_there() > 0 { None } else { self.refused().next().map(|(_, why)| why) }
    }
}

/// Whether a face is like those of one person. None are like nobody's.
pub fn resembles(face: &Embedding, known: &[&Embedding], matching: Score) -> bool {
    let score = |other: &Embedding| face.compare(other).map_or(f32::NEG_INFINITY, Score::value);
    let best = known.iter().map(|other| score(other)).fold(f32::NEG_INFINITY, f32::max);
    let with_mean = || Embedding::fuse(known.iter().map(|known| (*known, 1.0))).map_or(f32::NEG_INFINITY, |mean| score(&mean));
    best >= matching.value() || with_mean() >= SHARE * matching.value()
}

impl Gallery {
    /// Enrols people as the rule allows, in one write. What became of each is told in their order, and is true also where the error
    /// says that the change was made ([`super::is_made`]). Compared with the very state that the enrolment follows.
    pub fn admit(&self, people: Vec<(Person, Vec<Embedding>)>, rule: &Rule) -> (Vec<Admission>, Result<(), GalleryError>) {
        let mut admissions = Vec::with_capacity(people.len());
        let done = self.change(|now| {
            let mut desk = Desk { now, rule, limit: self.max_templates_per_person, taken: BTreeMap::new() };
            for (person, faces) in people {
                admissions.push(desk.take(person, &faces)?);
            }
            Ok(desk.into_changes())
        });
        (admissions, done)
    }
}

/// A template as it is kept: turned and rounded.
type Row = Zeroizing<Vec<f32>>;

/// One write's enrolments.
struct Desk<'a> {
    now: &'a Snapshot,
    rule: &'a Rule,
    limit: usize,
    /// Who was taken so far, with the new templates.
    taken: BTreeMap<PersonId, (Person, Vec<Row>)>,
}

impl Desk<'_> {
    fn take(&mut self, person: Person, faces: &[Embedding]) -> Result<Admission, GalleryError> {
        let id = person.id.clone();
        if faces.is_empty() {
            return Err(GalleryError::NoTemplates { person: id });
        }
        faces.iter().try_for_each(|face| self.now.admit(face))?;
        let rows: Vec<Row> = faces.iter().map(|face| self.row(face)).collect();
        let mut own = self.now.rows_of_person(&id);
        own.extend(self.taken.get(&id).into_iter().flat_map(|(_, rows)| rows.iter().cloned()));
        let (mut fates, copies) = self.judge(&rows, &own);
        let mut added: Vec<usize> = (0..rows.len()).filter(|at| fates[*at] == Fate::Added).collect();
        for surplus in added.split_off(added.len().min(self.limit.saturating_sub(own.len()))) {
            fates[surplus] = Fate::Refused(NotEnrolled::TooMany { limit: self.limit });
        }
        if !self.rule.allowed.duplicate
            && let Some(why) = self.duplicate(&id, added.iter().map(|at| (&faces[*at], &rows[*at])))?
        {
            // Whoever it is, nothing of this enrolment is believed.
            fates.iter_mut().filter(|fate| **fate == Fate::Added).for_each(|fate| *fate = Fate::Refused(why.clone()));
            added.clear();
        }
        // What is the same photo as one that was refused is not there either.
        for (copy, first) in copies {
            if let Fate::Refused(why) = &fates[first] {
                fates[copy] = Fate::Refused(why.clone());
            }
        }
        let mut admission = Admission { person: id.clone(), faces: fates, is_changed: false };
        if admission.why_nobody().is_none() {
            let before = self.taken.get(&id).map(|(person, _)| person).or(self.now.person(&id));
            let person = storable(before.map_or_else(|| person.clone(), |known| merged(known, person.clone())))?;
            admission.is_changed = before.is_some_and(|before| *before != person);
            let (kept, templates) = self.taken.entry(id).or_insert_with(|| (person.clone(), Vec::new()));
            *kept = person;
            let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
            templates.extend(added.into_iter().filter_map(|at| rows[at].take()));
        }
        Ok(admission)
    }

    fn row(&self, face: &Embedding) -> Row {
        let mut row = self.now.turned(face);
        index::as_kept(&mut row);
        row
    }

    /// What becomes of each face, but for who else has it and for how many fit; and which are copies of which others.
    fn judge(&self, rows: &[Row], own: &[Row]) -> (Vec<Fate>, Vec<(usize, usize)>) {
        let mut fates = vec![Fate::Added; rows.len()];
        let (mut fresh, mut copies): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        for (at, row) in rows.iter().enumerate() {
            let is_same = |known: &Row| dot(row, known) >= SAME_PHOTO;
            let first = fresh.iter().copied().find(|first| is_same(&rows[*first]));
            copies.extend(first.map(|first| (at, first)));
            if first.is_some() || own.iter().any(is_same) {
                fates[at] = Fate::AlreadyThere;
            } else if fresh.len() < MOST_COMPARED.max(self.limit) {
                fresh.push(at);
            } else {
                fates[at] = Fate::Refused(NotEnrolled::TooMany { limit: self.limit });
            }
        }
        if self.rule.allowed.other_face {
            return (fates, copies);
        }
        let matching = self.rule.matching.value();
        if own.is_empty() {
            let of_one = of_one_person(&fresh.iter().map(|at| &rows[*at]).collect::<Vec<_>>(), matching);
            for (place, at) in fresh.into_iter().enumerate() {
                match &of_one {
                    None => fates[at] = Fate::Refused(NotEnrolled::FacesDiffer),
                    Some(kept) if !kept[place] => fates[at] = Fate::Refused(NotEnrolled::UnlikeTheOthers),
                    Some(_) => {}
                }
            }
        } else {
            let known: Vec<&Row> = own.iter().collect();
            let mean = mean(&known);
            let others = fresh.into_iter().filter(|at| !is_like(&rows[*at], &known, mean.as_ref(), matching));
            others.for_each(|at| fates[at] = Fate::Refused(NotEnrolled::OtherFace));
        }
        (fates, copies)
    }

    /// Who else has one of these faces, enrolled already or taken before.
    fn duplicate<'f>(
        &self,
        id: &PersonId,
        faces: impl Iterator<Item = (&'f Embedding, &'f Row)>,
    ) -> Result<Option<NotEnrolled>, GalleryError> {
        let mut nearest: Option<(PersonId, f32)> = None;
        for (face, row) in faces {
            let enrolled = self.now.nearest_other(id, std::slice::from_ref(face))?;
            let others = self.taken.iter().filter(|(other, _)| *other != id);
            let taken = others.flat_map(|(other, (_, rows))| rows.iter().map(move |known| (other.clone(), dot(row, known))));
            for (other, score) in enrolled.map(|other| (other.person, other.score.value())).into_iter().chain(taken) {
                if nearest.as_ref().is_none_or(|(_, best)| score > *best) {
                    nearest = Some((other, score));
                }
            }
        }
        let nearest = nearest.filter(|(_, score)| *score >= self.rule.matching.value());
        Ok(nearest.map(|(other, score)| NotEnrolled::Duplicate { other, score: Score::saturating(score) }))
    }

    /// Whoever has new templates, or a changed record.
    fn into_changes(self) -> BTreeMap<PersonId, Change> {
        let now = self.now;
        let is_news = |(id, (person, rows)): &(PersonId, (Person, Vec<Row>))| !rows.is_empty() || now.person(id) != Some(person);
        let change = |(id, (person, rows)): (PersonId, (Person, Vec<Row>))| {
            let mut add = Zeroizing::new(Vec::with_capacity(rows.len() * now.dimension()));
            rows.iter().for_each(|row| add.extend_from_slice(row));
            (id, Change::Put { person, add })
        };
        self.taken.into_iter().filter(is_news).map(change).collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean direction; none where nothing is, or where they cancel out.
fn mean(rows: &[&Row]) -> Option<Row> {
    let mut sum: Row = Zeroizing::new(rows.first()?.to_vec());
    for row in &rows[1..] {
        sum.iter_mut().zip(row.iter()).for_each(|(sum, value)| *sum += value);
    }
    let norm = dot(&sum, &sum).sqrt();
    if norm.is_nan() || norm <= 1e-6 {
        return None;
    }
    sum.iter_mut().for_each(|value| *value /= norm);
    Some(sum)
}

/// Whether a face is like those of one person; see the module's documentation.
fn is_like(row: &Row, known: &[&Row], mean: Option<&Row>, matching: f32) -> bool {
    known.iter().any(|known| dot(row, known) >= matching) || is_like_mean(row, mean, matching)
}

fn is_like_mean(row: &Row, mean: Option<&Row>, matching: f32) -> bool {
    mean.is_some_and(|mean| dot(row, mean) >= SHARE * matching)
}

/// Whether a face is like the others of a set: the door would match it with half of them, or it is like their mean. One of them is not
/// enough: faces that are each like the next one only may begin with one person and end with another.
fn is_like_others(row: &Row, others: &[&Row], matching: f32) -> bool {
    let matches = others.iter().filter(|other| dot(row, other) >= matching).count();
    (matches > 0 && 2 * matches >= others.len()) || is_like_mean(row, mean(others).as_ref(), matching)
}

/// Which of these faces are the person's that most of them are; none where nobody has more than half of them.
fn of_one_person(rows: &[&Row], matching: f32) -> Option<Vec<bool>> {
    let count = rows.len();
    if count < 2 {
        return Some(vec![true; count]);
    }
    let least = SHARE * matching;
    let scores: Vec<Vec<f32>> = rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
    // The face that is like most others, and of several such the one that is most like them, is surely that person's.
    let friends = |at: usize| (0..count).filter(|other| *other != at && scores[at][*other] >= least).count();
    let sum = |at: usize| scores[at].iter().sum::<f32>();
    let first = (0..count).max_by(|a, b| friends(*a).cmp(&friends(*b)).then(sum(*a).total_cmp(&sum(*b))))?;
    let mut kept: Vec<bool> = (0..count).map(|at| at == first || scores[first][at] >= least).collect();
    for _ in 0..ROUNDS {
        let next: Vec<bool> = (0..count)
            .map(|at| {
                let others: Vec<&Row> = (0..count).filter(|other| *other != at && kept[*other]).map(|other| rows[other]).collect();
                is_like_others(rows[at], &others, matching)
            })
            .collect();
        if next == kept {
            break;
        }
        kept = next;
    }
    let is_most = 2 * kept.iter().filter(|kept| **kept).count() > count;
    is_most.then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Row {
        let norm = dot(values, values).sqrt();
        Zeroizing::new(values.iter().map(|value| value / norm).collect())
    }

    fn kept(rows: &[Row]) -> Option<Vec<bool>> {
        of_one_person(&rows.iter().collect::<Vec<_>>(), 0.5)
    }

    #[test]
    fn faces_are_one_persons_when_most_of_them_are_like_each_other() {
        let (a, a2, a3) = (row(&[1.0, 0.1, 0.0]), row(&[1.0, -0.1, 0.1]), row(&[1.0, 0.0, -0.2]));
        let (b, b2, c) = (row(&[0.0, 1.0, 0.1]), row(&[0.1, 1.0, 0.0]), row(&[0.0, 0.0, 1.0]));
        let of = |rows: &[&Row]| kept(&rows.iter().map(|row| (*row).clone()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Some(vec![]));
        assert_eq!(of(&[&a]), Some(vec![true]));
        assert_eq!(of(&[&a, &a2]), Some(vec![true; 2]));
        assert_eq!(of(&[&a, &b]), None, "of two nobody can tell who is meant");
        assert_eq!(of(&[&a, &a2, &b]), Some(vec![true, true, false]));
        assert_eq!(of(&[&b, &a, &a2]), Some(vec![false, true, true]), "whatever comes first");
        assert_eq!(of(&[&a, &a2, &b, &b2]), None, "two and two");
        assert_eq!(of(&[&a, &b, &c]), None);
        assert_eq!(of(&[&a, &a2, &a3, &b, &b2]), Some(vec![true, true, true, false, false]));
        assert_eq!(of(&[&a, &a2, &b, &c]), None, "half of them are not most of them");
        assert_eq!(kept(&[row(&[1.0, 0.0]), row(&[-1.0, 0.0])]), None);
    }

    #[test]
    fn a_chain_of_faces_each_like_the_next_is_not_one_person() {
        // Each is alike to its neighbours by .87, and to the one after next by .5: the two ends are strangers.
        let at = |degrees: f32| row(&[degrees.to_radians().cos(), degrees.to_radians().sin()]);
        let chain: Vec<Row> = (0..5).map(|n| at(30.0 * n as f32)).collect();
        let threshold = 0.85;
        let kept = of_one_person(&chain.iter().collect::<Vec<_>>(), threshold);
        assert!(kept.is_none_or(|kept| !(kept[0] && kept[4])), "the ends are 120 degrees apart");
    }

    #[test]
    fn a_known_person_is_matched_by_the_door_or_by_the_mean() {
        let known = [row(&[1.0, 0.6]), row(&[1.0, -0.6])];
        let known: Vec<&Row> = known.iter().collect();
        let mean = mean(&known);
        // .96 with the mean, .70 and .99 with the two.
        assert!(is_like(&row(&[1.0, 0.3]), &known, mean.as_ref(), 0.95));
        assert!(!is_like(&row(&[0.0, 1.0]), &known, mean.as_ref(), 0.9));
        assert!(!is_like(&row(&[1.0, 0.3]), &[], None, 0.1), "like nobody's");
        assert!(super::mean(&[&row(&[1.0, 0.0]), &row(&[-1.0, 0.0])]).is_none());
    }
}
