//! What `eval visits` tells: the thresholds that keep to a rate at a site of so many people, the rates on people who had no say in them, and
//! what the visits' pictures were like.

use serde_json::{Map, Value, json};

use super::super::{key, percent, rounded};
use super::{BANDS, Measures, Outcome, PEOPLE, Subject, half_of};
use crate::cli::say;
use crate::evaluation::plots::Plot;
use crate::evaluation::site::{self, SiteRate, StrangerVisit};
use crate::evaluation::{Rate, Verification};
use crate::vision::stack::Stack;

/// The largest sites that are drawn from half of the people.
const MOST_IN_A_HALF: usize = 100;
/// The false positive identification rates whose thresholds are told.
const TARGETS: [f64; 3] = [1e-2, 3e-3, 1e-3];

/// One line of the table: sites of so many people, a target, the threshold, and what was measured at it.
struct Row {
    people: usize,
    target: f64,
    threshold: f32,
    /// Over all bands, then in each.
    fpir: [Option<SiteRate>; BANDS.len() + 1],
    /// On people who had no say in the threshold.
    crossed: Option<SiteRate>,
    refused: [Rate; BANDS.len() + 1],
}

/// The rate of each half at the threshold that was chosen on the other.
fn crossed(halves: &[Vec<StrangerVisit>; 2], people: usize, target: f64) -> Option<SiteRate> {
    let of = |chosen_on: usize, proved_on: usize| {
        let threshold = site::threshold_for(&halves[chosen_on], people, target)?;
        Some((site::fpir(halves[proved_on].iter(), people, threshold)?, halves[proved_on].len() as f64))
    };
    let ((a, visits_a), (b, visits_b)) = (of(0, 1)?, of(1, 0)?);
    let by_people = Rate::new(a.by_people.count + b.by_people.count, a.by_people.trials + b.by_people.trials);
    Some(SiteRate { value: (a.value * visits_a + b.value * visits_b) / (visits_a + visits_b), by_people })
}

pub(super) struct Told {
    threshold: f32,
    at_threshold: Vec<(usize, [Option<SiteRate>; BANDS.len() + 1])>,
    rows: Vec<Row>,
}

impl Told {
    pub(super) fn of(outcome: &Outcome, threshold: f32) -> Self {
        let half = |which: usize| -> Vec<StrangerVisit> {
            outcome.halved.iter().filter(|visit| half_of(visit.visitor as usize) == which).cloned().collect()
        };
        let halves = [half(0), half(1)];
        let rates = |people: usize, threshold: f32| {
            let of = |band: Option<usize>| {
                let visits = outcome.strangers.iter().filter(|visit| band.is_none_or(|band| visit.band == band));
                site::fpir(visits, people, threshold)
            };
            [of(None), of(Some(0)), of(Some(1)), of(Some(2))]
        };
        let mut rows = Vec::new();
        for people in PEOPLE {
            for target in TARGETS {
                let Some(threshold) = site::threshold_for(&outcome.strangers, people, target) else { continue };
                let refused = |band| outcome.owners_refused(band, threshold);
                let refused = [refused(None), refused(Some(0)), refused(Some(1)), refused(Some(2))];
                // A half holds fewer than half of the heads' people: of the largest sites there are none.
                let crossed = if people <= MOST_IN_A_HALF { crossed(&halves, people, target) } else { None };
                rows.push(Row { people, target, threshold, fpir: rates(people, threshold), crossed, refused });
            }
        }
        Self { threshold, at_threshold: PEOPLE.iter().map(|people| (*people, rates(*people, threshold))).collect(), rows }
    }

    pub(super) fn json(&self, outcome: &Outcome, stack: &Stack, subjects: &[Subject]) -> Value {
        let highest =
            outcome.highest.iter().map(|(score, a, b)| json!([rounded(f64::from(*score)), subjects[*a].name, subjects[*b].name]));
        let highest: Vec<Value> = highest.collect();
        let rate = |rate: &Option<SiteRate>| {
            rate.map(|rate| {
                let interval = rate.by_people.interval();
                json!({"value": rate.value, "interval_by_people": [interval.low, interval.high], "people": rate.by_people.trials})
            })
        };
        let rates = |all: &[Option<SiteRate>; BANDS.len() + 1]| json!({"all": rate(&all[0]), "bands": all[1..].iter().map(rate).collect::<Vec<_>>()});
        let rows = self.rows.iter().map(|row| {
            let refused = |rate: &Rate| json!({"value": rate.value(), "count": rate.count, "n": rate.trials});
            json!({"people": row.people, "target": row.target, "threshold": rounded(f64::from(row.threshold)), "fpir": rates(&row.fpir), "fpir_crossed": rate(&row.crossed),
                   "owners_refused": {"all": refused(&row.refused[0]), "bands": row.refused[1..].iter().map(refused).collect::<Vec<_>>()}})
        });
        let rows: Vec<Value> = rows.collect();
        let now = self.at_threshold.iter().map(|(people, all)| (people.to_string(), rates(all)));
        let bands: Vec<Value> = (0..BANDS.len())
            .map(|band| {
                json!({"eye_distance_px": [BANDS[band].start, BANDS[band].end], "visits": outcome.visits[band], "without_enough_usable_frames": outcome.unusable[band],
                       "measures": outcome.measures[band].json(), "owners": quantiles(&outcome.owners[band])})
            })
            .collect();
        json!({"pack": stack.pack, "embedder": stack.embedder.model(), "threshold": self.threshold, "bands": bands, "clips": outcome.clips.as_ref().map(Measures::json),
               "at_threshold": Map::from_iter(now), "table": rows, "frames_of_alike_strangers": quantiles(&outcome.frames),
               "nearest_strangers": highest})
    }

    pub(super) fn tell(&self, outcome: &Outcome, stack: &Stack) {
        say(format!("pack {} ({}), threshold {:.3}", stack.pack, stack.embedder.model(), self.threshold));
        for (band, range) in BANDS.iter().enumerate() {
            say(format!(
                "  eyes {} to {} px: {} visits, {} without enough usable frames; {}",
                range.start,
                range.end,
                outcome.visits[band],
                outcome.unusable[band],
                outcome.measures[band].words()
            ));
        }
        if let Some(clips) = &outcome.clips {
            say(format!("  clips: {}", clips.words()));
        }
        let frames = Quantiles::of(&outcome.frames);
        say(format!(
            "  frames of alike strangers: mean {:.3}, deviation {:.3}, .999 quantile {:.3}, highest {:.3} (n = {})",
            frames.mean,
            frames.deviation,
            frames.most,
            frames.highest,
            outcome.frames.len()
        ));
        for (people, rates) in &self.at_threshold {
            say(format!("  {people} people, threshold {:.3}: false grants {}", self.threshold, words(rates)));
        }
        for row in &self.rows {
            say(format!(
                "  {} people, target {}: threshold {:.3}; there {}; chosen on one half and measured on the other {}; owners refused {}",
                row.people,
                key(row.target),
                row.threshold,
                words(&row.fpir),
                word(&row.crossed),
                row.refused.map(percent).join(", by size ")
            ));
        }
    }
}

fn word(rate: &Option<SiteRate>) -> String {
    rate.map_or("-".to_owned(), |rate| {
        let interval = rate.by_people.interval();
        format!("{:.2e} [{:.1e}, {:.1e}]", rate.value, interval.low, interval.high)
    })
}

fn words(rates: &[Option<SiteRate>; BANDS.len() + 1]) -> String {
    let [all, bands @ ..] = rates;
    format!("{}, by size {}", word(all), bands.iter().map(word).collect::<Vec<_>>().join(", "))
}

/// What is told of many numbers.
#[derive(Default)]
pub(super) struct Quantiles {
    mean: f32,
    deviation: f32,
    pub(super) least: f32,
    pub(super) median: f32,
    most: f32,
    highest: f32,
}

impl Quantiles {
    pub(super) fn of(values: &[f32]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let count = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        let at = |share: f64| sorted[((share * count) as usize).min(sorted.len() - 1)];
        Self {
            mean: mean as f32,
            deviation: variance.sqrt() as f32,
            least: at(0.01),
            median: at(0.5),
            most: at(0.999),
            highest: sorted[sorted.len() - 1],
        }
    }
}

pub(super) fn quantiles(values: &[f32]) -> Value {
    let Quantiles { mean, deviation, least, median, most, highest } = Quantiles::of(values);
    json!({"n": values.len(), "mean": mean, "deviation": deviation, "q01": least, "median": median, "q999": most, "highest": highest})
}

pub(super) fn plots(outcome: &Outcome, pack: &str) -> Vec<(&'static str, Plot)> {
    let owners: Vec<f32> = outcome.owners.iter().flatten().copied().collect();
    let likest = |people: usize| -> Vec<f32> {
        let best = |visit: &StrangerVisit| visit.scores.iter().take(people).copied().fold(-1.0, f32::max);
        outcome.strangers.iter().map(best).collect()
    };
    let curve = |people: usize| {
        let of = Verification::of_scores(owners.clone(), likest(people));
        of.curve().iter().filter_map(|point| Some((point.fmr.value()?, point.fnmr.value()?))).collect()
    };
    let det = Plot::Det {
        title: format!("Simulated visits before the most alike people, pack {pack}"),
        axes: ["FPIR".into(), "visits of owners refused".into()],
        curves: PEOPLE.iter().map(|people| (format!("{people} people"), curve(*people))).collect(),
    };
    let histogram = Plot::Histogram {
        title: format!("Simulated visits: scores up to which they are granted, pack {pack}"),
        axis: "comparison score (cosine)".into(),
        groups: vec![("owners".into(), owners.clone()), ("strangers, the most alike of 100".into(), likest(100))],
    };
    vec![("visits-det", det), ("visits-scores", histogram)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_numbers_is_theirs() {
        let values: Vec<f32> = (0..1000u16).map(|value| f32::from(value) / 1000.0).collect();
        let told = Quantiles::of(&values);
        assert!((told.mean - 0.4995).abs() < 1e-4 && (told.deviation - 0.2887).abs() < 1e-3);
        assert_eq!((told.least, told.median, told.most, told.highest), (0.01, 0.5, 0.999, 0.999));
        assert_eq!(Quantiles::of(&[]).highest, 0.0);
    }
}
