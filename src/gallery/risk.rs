//! Which templates are a risk: nearer to somebody else than they should be, or unlike the person's others. Each finding has its
//! numbers, so that the photo behind it can be taken again.

use serde::Serialize;

use super::Snapshot;
use super::index::{First, Probe, Top, scan};
use crate::types::{PersonId, Score};

/// What is wrong with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RiskKind {
    /// Somebody else's template reaches the threshold: one of the two could be let in as the other.
    CrossPerson,
    /// It is nearer to somebody else than to the person's own others.
    NearerToAnother,
    /// None of the person's own others reaches the threshold: a bad photo, or a photo of another face.
    Outlier,
}

/// One template that is a risk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateRisk {
    /// Whose.
    pub person: PersonId,
    /// Which of the person's templates, from 1, in the order of enrolment.
    pub template: usize,
    /// What is wrong, the gravest first.
    pub kinds: Vec<RiskKind>,
    /// The best score with the person's other templates; `None` when there are none.
    pub own: Option<Score>,
    /// Who else is nearest.
    pub nearest: Option<PersonId>,
    /// The best score with that person's templates.
    pub other: Option<Score>,
}

impl Snapshot {
    /// Every template that is a risk at the threshold of matching, in the order of people. Each template is compared with all others,
    /// so that the time grows with the square of the size: 10,000 take a second or two, 100,000 some minutes. `go_on` hears how many
    /// of how many are done, and may end it; then there is no result.
    pub fn risks(&self, threshold: Score, mut go_on: impl FnMut(usize, usize) -> bool) -> Option<Vec<TemplateRisk>> {
        let (matrix, total) = (self.matrix(), self.matrix().rows());
        let mut found = Vec::new();
        for person in 0..self.len() {
            let rows = self.rows_of(person);
            for row in rows.clone() {
                if !go_on(row, total) {
                    return None;
                }
                let probe = Probe::new(&zeroize::Zeroizing::new(matrix.values(row..row + 1).collect::<Vec<f32>>()));
                let mut top = Top::new(1);
                scan(matrix, &probe, First::All, |at, score| {
                    if !rows.contains(&at) {
                        top.offer(score, self.person_of(at));
                    }
                    top.floor()
                });
                let nearest = top.into_best().first().map(|&(score, at)| (self.id_of(at), Score::saturating(score)));
                let own = rows.clone().filter(|at| *at != row).map(|at| matrix.score(&probe, at)).max_by(f32::total_cmp);
                found.extend(judge(self.id_of(person), row - rows.start + 1, own.map(Score::saturating), nearest, threshold));
            }
        }
        Some(found)
    }
}

fn judge(
    person: &PersonId,
    template: usize,
    own: Option<Score>,
    nearest: Option<(&PersonId, Score)>,
    threshold: Score,
) -> Option<TemplateRisk> {
    let other = nearest.map(|(_, score)| score);
    let mut kinds = Vec::new();
    if other.is_some_and(|other| other >= threshold) {
        kinds.push(RiskKind::CrossPerson);
    }
    if own.zip(other).is_some_and(|(own, other)| other > own) {
        kinds.push(RiskKind::NearerToAnother);
    }
    if own.is_some_and(|own| own < threshold) {
        kinds.push(RiskKind::Outlier);
    }
    let risk = TemplateRisk { person: person.clone(), template, kinds, own, nearest: nearest.map(|(id, _)| id.clone()), other };
    (!risk.kinds.is_empty()).then_some(risk)
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Change;
    use super::*;
    use crate::types::{Embedding, ModelId, Person, Wall};

    fn gallery(people: &[(&str, &[[f32; 3]])]) -> Snapshot {
        let model = ModelId::new("drawn").unwrap();
        let put = |(name, templates): &(&str, &[[f32; 3]])| {
            let id = PersonId::new(*name).unwrap();
            let person =
                Person { id: id.clone(), name: None, groups: vec![], consented_at: None, expires_at: None, enrolled_at: Wall(0) };
            let unit = |t: &[f32; 3]| Embedding::normalised(model.clone(), t.to_vec()).unwrap();
            let add = zeroize::Zeroizing::new(templates.iter().flat_map(|t| unit(t).values().to_vec()).collect());
            (id, Change::Put { person, add })
        };
        Snapshot::empty(0, model.clone(), 3, 0).with(people.iter().map(put).collect())
    }

    #[test]
    fn a_photo_of_somebody_else_is_named_with_its_numbers_and_good_ones_are_not() {
        let snapshot = gallery(&[
            ("ann", &[[1.0, 0.0, 0.0], [0.98, 0.1, 0.0], [0.0, 1.0, 0.05]]),
            ("bob", &[[0.0, 1.0, 0.0], [0.0, 0.97, -0.2]]),
            ("cy", &[[0.0, 0.0, 1.0]]),
        ]);
        let found = snapshot.risks(Score::new(0.5).unwrap(), |_, _| true).unwrap();
        let told: Vec<_> = found.iter().map(|risk| (risk.person.as_str(), risk.template, risk.kinds.clone())).collect();
        let (cross, nearer, outlier) = (RiskKind::CrossPerson, RiskKind::NearerToAnother, RiskKind::Outlier);
        assert_eq!(told, [("ann", 3, vec![cross, nearer, outlier]), ("bob", 1, vec![cross, nearer]), ("bob", 2, vec![cross])]);
        assert!(found[0].nearest.as_ref().unwrap().as_str() == "bob" && found[0].other.unwrap().value() > 0.99);
        assert!(found[0].own.unwrap().value() < 0.2);
    }

    #[test]
    fn it_ends_when_told_and_one_person_alone_is_compared_with_nobody() {
        let snapshot = gallery(&[("ann", &[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])]);
        assert!(snapshot.risks(Score::MAX, |done, _| done < 1).is_none());
        let found = snapshot.risks(Score::new(0.5).unwrap(), |_, _| true).unwrap();
        assert!(found.iter().all(|risk| risk.kinds == [RiskKind::Outlier] && risk.nearest.is_none() && risk.other.is_none()));
        assert!(gallery(&[]).risks(Score::MIN, |_, _| true).unwrap().is_empty());
    }
}
