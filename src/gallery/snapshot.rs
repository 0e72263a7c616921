//! One state of the gallery: immutable, whole, shared by `Arc`. Readers hold it as long as they like and take no lock; a change makes
//! the next one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use zeroize::Zeroizing;

use super::GalleryError;
use super::index::{Cover, First, Matrix, Probe, Shortlist, Top, scan};
use super::rotation::Rotation;
use crate::types::{Candidate, Embedding, ModelId, Person, PersonId, Score};

/// People in the order of their ids, and their templates. No `Debug`: it is biometric data.
pub struct Snapshot {
    generation: u64,
    model: ModelId,
    /// Every template is stored turned by it, and every probe is turned before it is compared.
    rotation: Arc<Rotation>,
    people: Vec<Arc<Person>>,
    /// Where each person's rows end; they begin where the person before ends.
    ends: Vec<usize>,
    matrix: Matrix,
    /// The shortlist of a large gallery, when there is one: the same for all snapshots that came of one another.
    shortlist: Arc<ArcSwapOption<Shortlist>>,
    /// How it lies to this snapshot's rows, worked out by the first search.
    covered: ArcSwapOption<Covered>,
}

struct Covered {
    shortlist: Arc<Shortlist>,
    cover: Cover,
}

/// What there is to tell about a gallery without telling who is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Grows by one with every write.
    pub generation: u64,
    /// Whose templates they are.
    pub model: ModelId,
    /// Numbers in a template.
    pub dimension: usize,
    /// How many people.
    pub people: usize,
    /// How many templates.
    pub templates: usize,
    /// Memory of the templates and of the index, in bytes.
    pub memory_bytes: usize,
}

/// One person that a probe resembles, by more than the best template.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Who.
    pub person: PersonId,
    /// The score of the best template.
    pub best: Score,
    /// The score of the second-best template; `None` when there is one only.
    pub second: Option<Score>,
    /// How many templates the person has.
    pub templates: usize,
}

/// What happens to one person from one snapshot to the next.
pub(crate) enum Change {
    /// The record is replaced or made, and templates are added.
    Put {
        /// The new record.
        person: Person,
        /// Added behind the person's templates: turned, row after row, as many numbers each as the gallery's dimension.
        add: Zeroizing<Vec<f32>>,
    },
    /// As [`Change::Put`], but the templates from before go: the person was removed and enrolled again.
    Renew {
        /// The new record.
        person: Person,
        /// All templates, as in [`Change::Put`].
        add: Zeroizing<Vec<f32>>,
    },
    /// The person goes, with every template.
    Remove,
}

impl Change {
    /// The same once more: one copy for the journal, one for the next snapshot.
    pub(crate) fn copied(&self) -> Self {
        match self {
            Change::Put { person, add } => Change::Put { person: person.clone(), add: Zeroizing::new(add.to_vec()) },
            Change::Renew { person, add } => Change::Renew { person: person.clone(), add: Zeroizing::new(add.to_vec()) },
            Change::Remove => Change::Remove,
        }
    }
}

impl Snapshot {
    /// Nobody yet, with room for `rows` templates.
    pub(crate) fn empty(generation: u64, model: ModelId, dimension: usize, rows: usize) -> Self {
        let matrix = Matrix::with_capacity(dimension, rows);
        let rotation = Arc::new(Rotation::identity(dimension));
        let (shortlist, covered) = (Arc::new(ArcSwapOption::empty()), ArcSwapOption::empty());
        Self { generation, model, rotation, people: Vec::new(), ends: Vec::new(), matrix, shortlist, covered }
    }

    /// Nobody yet, of the same model under the same rotation, with room for `rows` templates.
    fn emptied(&self, rows: usize) -> Self {
        Self { rotation: self.rotation.clone(), ..Self::empty(self.generation + 1, self.model.clone(), self.dimension(), rows) }
    }

    /// The same under another rotation: what was and what will be pushed is turned by it.
    pub(crate) fn under(mut self, rotation: Arc<Rotation>) -> Self {
        self.rotation = rotation;
        self
    }

    /// The same at another number of writes.
    pub(crate) fn at_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The rotation of these templates.
    pub(crate) fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// A probe's numbers as they are compared with these templates: turned by the gallery's rotation.
    pub fn turned(&self, probe: &Embedding) -> Zeroizing<Vec<f32>> {
        self.rotation.turn(probe.values())
    }

    /// The `k` people most like `probe`, each by the best template, best first. A probe of another model or dimension is refused.
    pub fn search(&self, probe: &Embedding, k: usize) -> Result<Vec<Candidate>, GalleryError> {
        Ok(self.best(probe, k)?.into_iter().map(|(score, index)| self.candidate(score, index)).collect())
    }

    /// As [`Snapshot::search`], by the exact scan whatever index serves.
    pub fn search_exactly(&self, probe: &Embedding, k: usize) -> Result<Vec<Candidate>, GalleryError> {
        Ok(self.scan(probe, k, None)?.into_iter().map(|(score, index)| self.candidate(score, index)).collect())
    }

    /// As [`Snapshot::search`], with what each person's second-best template says: a person whose templates agree is a surer match
    /// than one of whom a single photo is near.
    pub fn matches(&self, probe: &Embedding, k: usize) -> Result<Vec<Match>, GalleryError> {
        let best = self.best(probe, k)?;
        let row = Probe::new(&self.turned(probe));
        let matched = |(score, index): (f32, usize)| {
            let mut two = Top::new(2);
            self.rows_of(index).for_each(|at| two.offer(self.matrix.score(&row, at), at));
            let second = two.into_best().get(1).map(|(score, _)| Score::saturating(*score));
            Match {
                person: self.people[index].id.clone(),
                best: Score::saturating(score),
                second,
                templates: self.rows_of(index).len(),
            }
        };
        Ok(best.into_iter().map(matched).collect())
    }

    /// How much alike `probe` is to each of these people, by the best template of each; the lowest score where there is none. A probe of
    /// another model or dimension is refused.
    pub fn scores(&self, probe: &Embedding, people: &[PersonId]) -> Result<Vec<Score>, GalleryError> {
        self.admit(probe)?;
        let row = Probe::new(&self.turned(probe));
        let best = |index: usize| self.rows_of(index).map(|at| self.matrix.score(&row, at)).fold(f32::NEG_INFINITY, f32::max);
        Ok(people.iter().map(|id| self.place(id).map_or(Score::MIN, |index| Score::saturating(best(index)))).collect())
    }

    /// Of everybody but `person`, who is most like any of `probes`: before an enrolment, a high score says that this face is already
    /// somebody else. `None` when there is nobody else or no probe.
    pub fn nearest_other(&self, person: &PersonId, probes: &[Embedding]) -> Result<Option<Candidate>, GalleryError> {
        let mut best = Top::new(1);
        for probe in probes {
            for (score, index) in self.scan(probe, 1, self.place(person).ok())? {
                best.offer(score, index);
            }
        }
        Ok(best.into_best().first().map(|&(score, index)| self.candidate(score, index)))
    }

    /// What is known of a person besides templates.
    pub fn person(&self, id: &PersonId) -> Option<&Person> {
        self.place(id).ok().map(|index| self.people[index].as_ref())
    }

    /// How many templates a person has; none when not enrolled.
    pub fn templates_of(&self, id: &PersonId) -> usize {
        self.place(id).map_or(0, |index| self.rows_of(index).len())
    }

    /// A person's templates, turned as they are kept; none when not enrolled.
    pub(crate) fn rows_of_person(&self, id: &PersonId) -> Vec<Zeroizing<Vec<f32>>> {
        let rows = self.place(id).map_or(0..0, |index| self.rows_of(index));
        rows.map(|row| Zeroizing::new(self.matrix.values(row..row + 1).collect())).collect()
    }

    /// Everybody with the number of templates, in the order of the ids.
    pub fn people(&self) -> impl ExactSizeIterator<Item = (&Person, usize)> {
        self.people.iter().enumerate().map(|(index, person)| (person.as_ref(), self.rows_of(index).len()))
    }

    /// Whether nobody is enrolled.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// Whose templates they are.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// Numbers in a template.
    pub fn dimension(&self) -> usize {
        self.matrix.dimension()
    }

    /// Grows by one with every write.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How much there is.
    pub fn stats(&self) -> Stats {
        Stats {
            generation: self.generation,
            model: self.model.clone(),
            dimension: self.dimension(),
            people: self.people.len(),
            templates: self.matrix.rows(),
            memory_bytes: self.matrix.bytes() + self.shortlist.load().as_ref().map_or(0, |shortlist| shortlist.bytes()),
        }
    }

    /// Whether `probe` may be compared with these templates.
    pub(crate) fn admit(&self, probe: &Embedding) -> Result<(), GalleryError> {
        if *probe.model() == self.model && probe.values().len() == self.dimension() {
            return Ok(());
        }
        Err(GalleryError::ForeignProbe {
            gallery: format!("{} with {} numbers", self.model, self.dimension()),
            probe: format!("{} with {} numbers", probe.model(), probe.values().len()),
        })
    }

    /// The next state: everybody as before but for `changes`. Runs of people that do not change keep their rows where they are.
    pub(crate) fn with(&self, changes: BTreeMap<PersonId, Change>) -> Self {
        let added = |change: &Change| match change {
            Change::Put { add, .. } | Change::Renew { add, .. } => add.len() / self.dimension(),
            Change::Remove => 0,
        };
        let mut next = self.emptied(self.matrix.rows() + changes.values().map(added).sum::<usize>());
        next.shortlist = self.shortlist.clone();
        let mut kept = 0;
        for (id, change) in changes {
            let (upto, rows, after) = match self.place(&id) {
                Ok(index) => (index, self.rows_of(index), index + 1),
                Err(index) => (index, 0..0, index),
            };
            next.keep(self, kept..upto);
            next.apply(change, self, rows);
            kept = after;
        }
        next.keep(self, kept..self.people.len());
        next
    }

    /// Appends people of `old` as they are.
    fn keep(&mut self, old: &Self, people: Range<usize>) {
        let Some(last) = people.clone().last() else { return };
        let rows = old.rows_of(people.start).start..old.ends[last];
        let shift = |end: &usize| self.matrix.rows() + end - rows.start;
        let ends: Vec<usize> = old.ends[people.clone()].iter().map(shift).collect();
        self.people.extend_from_slice(&old.people[people]);
        self.ends.extend(ends);
        self.matrix.push_rows(&old.matrix, rows);
    }

    /// This state with the rows of `old` wherever they are the same: what was read again from a file then shares memory, and the
    /// shortlist, with what was read before.
    pub(crate) fn sharing(self, old: &Self) -> Self {
        if self.dimension() != old.dimension() {
            return self;
        }
        let mut next = self.emptied(self.matrix.rows()).at_generation(self.generation);
        next.shortlist = old.shortlist.clone();
        let mut run = 0..0;
        for (index, person) in self.people.iter().enumerate() {
            let rows = self.rows_of(index);
            let known = old.place(&person.id).map_or(0..0, |at| old.rows_of(at));
            let same = !rows.is_empty() && self.matrix.has_same_rows(rows.clone(), &old.matrix, known.clone());
            if !(same && known.start == run.end) {
                next.matrix.push_rows(&old.matrix, run);
                run = if same { known.start..known.start } else { 0..0 };
            }
            if same {
                run.end = known.end;
            } else {
                next.matrix.push_rows(&self.matrix, rows);
            }
            next.people.push(person.clone());
            next.ends.push(self.ends[index]);
        }
        next.matrix.push_rows(&old.matrix, run);
        next
    }

    /// Searches of this snapshot and of those that come of it go by `shortlist`, or by the exact scan.
    pub(crate) fn serve_by(&self, shortlist: Option<Arc<Shortlist>>) {
        self.shortlist.store(shortlist);
    }

    /// What serves besides the exact scan.
    pub(crate) fn shortlist(&self) -> Option<Arc<Shortlist>> {
        self.shortlist.load_full()
    }

    /// Whether so much has changed since the shortlist was made that making it again is worth the time; `None` when there is none.
    pub(crate) fn is_worn(&self) -> Option<bool> {
        self.covered().map(|covered| covered.cover.is_worn)
    }

    /// The templates.
    pub(crate) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Appends a person behind all others, without templates.
    pub(crate) fn begin(&mut self, person: Arc<Person>) {
        debug_assert!(self.people.last().is_none_or(|last| last.id < person.id));
        self.people.push(person);
        self.ends.push(self.matrix.rows());
    }

    /// Appends a template to the last person.
    pub(crate) fn push(&mut self, template: &[f32]) {
        self.matrix.push(template);
        self.close();
    }

    /// Appends people, each with how many of the rows are theirs, one after another.
    pub(crate) fn append(&mut self, people: Vec<(Arc<Person>, usize)>, rows: &Matrix) {
        let mut end = self.matrix.rows();
        for (person, templates) in people {
            end += templates;
            self.people.push(person);
            self.ends.push(end);
        }
        self.matrix.push_rows(rows, 0..rows.rows());
        debug_assert_eq!(end, self.matrix.rows());
    }

    /// The number of people.
    pub(crate) fn len(&self) -> usize {
        self.people.len()
    }

    /// Person number `index`, with the number of templates and their numbers.
    pub(crate) fn entry(&self, index: usize) -> (&Person, usize, impl Iterator<Item = f32> + '_) {
        let rows = self.rows_of(index);
        (&self.people[index], rows.len(), self.matrix.values(rows))
    }

    fn apply(&mut self, change: Change, old: &Self, rows: Range<usize>) {
        let (person, add, kept) = match change {
            Change::Put { person, add } => (person, add, rows),
            Change::Renew { person, add } => (person, add, 0..0),
            Change::Remove => return,
        };
        self.begin(Arc::new(person));
        self.take_rows(&old.matrix, kept);
        add.chunks_exact(self.dimension()).for_each(|template| self.push(template));
    }

    fn take_rows(&mut self, matrix: &Matrix, rows: Range<usize>) {
        self.matrix.push_rows(matrix, rows);
        self.close();
    }

    fn close(&mut self) {
        if let Some(end) = self.ends.last_mut() {
            *end = self.matrix.rows();
        }
    }

    /// Score and person, best first, by the index that serves.
    fn best(&self, probe: &Embedding, k: usize) -> Result<Vec<(f32, usize)>, GalleryError> {
        match self.covered() {
            Some(covered) if !covered.cover.is_thin => {
                self.admit(probe)?;
                Ok(self.by_shortlist(&covered.shortlist, &covered.cover, probe, k))
            }
            _ => self.scan(probe, k, None),
        }
    }

    /// As [`Snapshot::search`] by a shortlist that does not serve yet; `probe` is of the gallery's model.
    pub(crate) fn search_by(&self, shortlist: &Shortlist, cover: &Cover, probe: &Embedding, k: usize) -> Vec<Candidate> {
        self.by_shortlist(shortlist, cover, probe, k).into_iter().map(|(score, index)| self.candidate(score, index)).collect()
    }

    fn by_shortlist(&self, shortlist: &Shortlist, cover: &Cover, probe: &Embedding, k: usize) -> Vec<(f32, usize)> {
        let mut top = Top::new(k);
        shortlist.search(&self.matrix, cover, &self.turned(probe), |row, score| {
            top.offer(score, self.person_of(row));
            top.floor()
        });
        top.into_best()
    }

    /// The shortlist that serves with its place in this snapshot.
    fn covered(&self) -> Option<Arc<Covered>> {
        let shortlist = self.shortlist.load_full()?;
        if let Some(covered) = self.covered.load_full().filter(|covered| Arc::ptr_eq(&covered.shortlist, &shortlist)) {
            return Some(covered);
        }
        let cover = shortlist.cover(&self.matrix);
        let covered = Arc::new(Covered { shortlist, cover });
        self.covered.store(Some(covered.clone()));
        Some(covered)
    }

    /// Score and person, best first; without `except`.
    fn scan(&self, probe: &Embedding, k: usize, except: Option<usize>) -> Result<Vec<(f32, usize)>, GalleryError> {
        self.admit(probe)?;
        if k == 0 {
            return Ok(Vec::new());
        }
        let mut top = Top::new(k);
        let first = if k == 1 && except.is_none() { First::Half } else { First::All };
        scan(&self.matrix, &Probe::new(&self.turned(probe)), first, |row, score| {
            let person = self.person_of(row);
            if Some(person) != except {
                top.offer(score, person);
            }
            top.floor()
        });
        Ok(top.into_best())
    }

    /// Whose template a row is.
    pub(crate) fn person_of(&self, row: usize) -> usize {
        self.ends.partition_point(|end| *end <= row)
    }

    fn candidate(&self, score: f32, index: usize) -> Candidate {
        Candidate { person: self.people[index].id.clone(), score: Score::saturating(score) }
    }

    /// The id of person number `index`.
    pub(crate) fn id_of(&self, index: usize) -> &PersonId {
        &self.people[index].id
    }

    fn place(&self, id: &PersonId) -> Result<usize, usize> {
        self.people.binary_search_by(|person| person.id.cmp(id))
    }

    /// The rows of person number `index`.
    pub(crate) fn rows_of(&self, index: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Wall;

    fn model() -> ModelId {
        ModelId::new("drawn").unwrap()
    }

    fn person(id: &str) -> Person {
        let id = PersonId::new(id).unwrap();
        Person { id, name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) }
    }

    fn unit(values: &[f32]) -> Embedding {
        Embedding::normalised(model(), values.to_vec()).unwrap()
    }

    fn put(id: &str, templates: &[&[f32]]) -> (PersonId, Change) {
        let person = person(id);
        (person.id.clone(), Change::Put { person, add: rows(templates.iter().map(|t| unit(t))) })
    }

    fn rows(templates: impl Iterator<Item = Embedding>) -> Zeroizing<Vec<f32>> {
        Zeroizing::new(templates.flat_map(|template| template.values().to_vec()).collect())
    }

    fn three() -> Snapshot {
        let people = [put("b", &[&[1.0, 0.0], &[0.9, 0.1]]), put("a", &[&[0.0, 1.0]]), put("c", &[&[-1.0, 0.0]])];
        Snapshot::empty(0, model(), 2, 0).with(people.into_iter().collect())
    }

    fn ids(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|c| c.person.as_str()).collect()
    }

    #[test]
    fn a_probe_of_another_model_or_length_is_refused() {
        let other = Embedding::normalised(ModelId::new("other").unwrap(), vec![1.0, 0.0]).unwrap();
        for probe in [other, unit(&[1.0, 0.0, 0.0])] {
            assert!(matches!(three().search(&probe, 1), Err(GalleryError::ForeignProbe { .. })));
        }
    }

    #[test]
    fn a_search_gives_people_once_each_best_first() {
        let snapshot = three();
        let probe = unit(&[1.0, 0.05]);
        assert_eq!(ids(&snapshot.search(&probe, 9).unwrap()), ["b", "a", "c"]);
        assert_eq!(ids(&snapshot.search(&probe, 1).unwrap()), ["b"]);
        assert!(snapshot.search(&probe, 0).unwrap().is_empty());
        assert!(Snapshot::empty(0, model(), 2, 0).search(&probe, 3).unwrap().is_empty());
    }

    #[test]
    fn a_match_tells_the_second_best_template_too() {
        let found = three().matches(&unit(&[1.0, 0.0]), 2).unwrap();
        assert_eq!(found.iter().map(|m| (m.person.as_str(), m.templates)).collect::<Vec<_>>(), [("b", 2), ("a", 1)]);
        let second = found[0].second.unwrap().value();
        assert!((second - 0.9 / 0.82f32.sqrt()).abs() < 1e-4, "{second}");
        assert!(found[0].best.value() > second && found[1].second.is_none());
    }

    #[test]
    fn people_are_scored_by_their_best_templates_in_the_order_that_was_asked() {
        let probe = unit(&[1.0, 0.05]);
        let people = ["c", "nobody", "b", "a"].map(|id| PersonId::new(id).unwrap());
        let scores = three().scores(&probe, &people).unwrap();
        let by_search = three().search(&probe, 9).unwrap();
        for (person, score) in people.iter().zip(&scores) {
            let found = by_search.iter().find(|c| c.person == *person).map_or(Score::MIN, |c| c.score);
            assert!((found.value() - score.value()).abs() < 1e-6, "{person}");
        }
        assert!(matches!(three().scores(&unit(&[1.0, 0.0, 0.0]), &people), Err(GalleryError::ForeignProbe { .. })));
    }

    #[test]
    fn the_nearest_other_leaves_the_person_out() {
        let snapshot = three();
        let probes = [unit(&[1.0, 0.0]), unit(&[0.3, 0.95])];
        let nearest = snapshot.nearest_other(&PersonId::new("b").unwrap(), &probes).unwrap().unwrap();
        assert_eq!(nearest.person.as_str(), "a");
        let stranger = snapshot.nearest_other(&PersonId::new("new").unwrap(), &probes).unwrap().unwrap();
        assert_eq!(stranger.person.as_str(), "b");
        assert!(snapshot.nearest_other(&PersonId::new("b").unwrap(), &[]).unwrap().is_none());
    }

    #[test]
    fn a_removed_persons_templates_are_in_no_later_snapshot() {
        let before = three();
        let next = before.with([(PersonId::new("b").unwrap(), Change::Remove)].into_iter().collect());
        assert_eq!(ids(&next.search(&unit(&[1.0, 0.0]), 9).unwrap()), ["a", "c"]);
        assert_eq!((next.stats().templates, next.stats().generation), (2, 2));
        assert_eq!(next.matrix.values(0..2).collect::<Vec<_>>(), [0.0, 1.0, -1.0, 0.0]);
        assert_eq!(before.stats().templates, 4, "a reader's snapshot does not change");
    }

    #[test]
    fn a_renewed_person_keeps_no_template_from_before() {
        let Change::Put { person, add } = put("b", &[&[0.0, -1.0]]).1 else { unreachable!() };
        let next = three().with([(person.id.clone(), Change::Renew { person, add })].into_iter().collect());
        assert_eq!(next.templates_of(&PersonId::new("b").unwrap()), 1);
        assert_eq!(ids(&next.search(&unit(&[0.0, -1.0]), 1).unwrap()), ["b"]);
    }

    #[test]
    fn templates_are_added_behind_the_persons_own() {
        let next = three().with([put("a", &[&[1.0, 1.0]]), put("d", &[&[0.0, -1.0]])].into_iter().collect());
        let counts: Vec<_> = next.people().map(|(person, templates)| (person.id.as_str().to_owned(), templates)).collect();
        let expected = [("a", 2), ("b", 2), ("c", 1), ("d", 1)].map(|(id, n)| (id.to_owned(), n));
        assert_eq!(counts, expected);
        assert_eq!(ids(&next.search(&unit(&[1.0, 1.0]), 1).unwrap()), ["a"]);
    }

    proptest! {
        #[test]
        fn the_scan_agrees_with_the_plain_one(
            (dimension, people, probe) in (1usize..70).prop_flat_map(|dimension| {
                let vector = || proptest::collection::vec(-1.0f32..1.0, dimension);
                (Just(dimension), proptest::collection::vec(proptest::collection::vec(vector(), 1..4), 1..12), vector())
            }),
            k in 1usize..15,
        ) {
            let make = |values: &Vec<f32>| Embedding::normalised(model(), values.clone());
            prop_assume!(people.iter().flatten().all(|v| make(v).is_some()));
            let probe = make(&probe);
            prop_assume!(probe.is_some());
            let probe = probe.unwrap();
            let mut plain: Vec<(String, f32)> = Vec::new();
            let mut changes = BTreeMap::new();
            for (number, templates) in people.iter().enumerate() {
                let person = person(&format!("p{number:02}"));
                let add: Vec<Embedding> = templates.iter().filter_map(make).collect();
                let best = add.iter().filter_map(|t| t.compare(&probe)).map(Score::value).fold(f32::MIN, f32::max);
                plain.push((person.id.to_string(), best));
                changes.insert(person.id.clone(), Change::Put { person, add: rows(add.into_iter()) });
            }
            let snapshot = Snapshot::empty(0, model(), dimension, 0).with(changes);
            let found = snapshot.search(&probe, k).unwrap();
            prop_assert_eq!(found.len(), k.min(people.len()));
            let best: BTreeMap<_, _> = plain.iter().cloned().collect();
            plain.sort_by(|a, b| b.1.total_cmp(&a.1));
            // Templates are rounded to 16 bits: with so few numbers each is large, and so is its step.
            const ROUNDING: f32 = 1e-4;
            for (found, plain) in found.iter().zip(&plain) {
                prop_assert!((found.score.value() - plain.1).abs() <= ROUNDING);
                prop_assert!((found.score.value() - best[found.person.as_str()]).abs() <= ROUNDING);
            }
        }
    }
}
