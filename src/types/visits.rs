//! What a comparison threshold is worth at a door: the score that keeps the visits of strangers to a rate, by the size of the gallery.

use serde::{Deserialize, Serialize};

use super::Score;

/// The score that kept strangers' visits to a false positive identification rate (FPIR, ISO/IEC 19795-1:2021) before galleries of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VisitRow {
    /// How many people were enrolled.
    pub people: u32,
    /// The share of strangers' visits that are granted, above 0 and below 1.
    pub fpir: f64,
    /// The score.
    pub score: Score,
}

/// Error rates of whole visits by people who resemble the enrolled (`faceid eval visits`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VisitTable {
    /// Whose visits, how many, and before whom.
    pub data: String,
    /// Galleries of fewer people than this count as this many: they grow, and a door is not to open more easily for being new.
    pub least_people: u32,
    /// By rising number of people, of one number by falling rate.
    pub rows: Vec<VisitRow>,
}

/// What a table says of a door.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    /// The score that keeps to the rate asked for.
    Kept(Score),
    /// Nothing was measured for so many people, or for so low a rate: the highest score of the table, which promises nothing here.
    Beyond(Score),
}

impl Reach {
    /// The score to decide by.
    pub fn score(self) -> Score {
        match self {
            Self::Kept(score) | Self::Beyond(score) => score,
        }
    }

    /// Whether the rate asked for is kept to, as far as was measured.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

impl VisitTable {
    /// The score at which at most the share `fpir` of strangers' visits is granted with `people` enrolled. Between two sizes of galleries,
    /// and between two rates, the score is interpolated over the logarithm; a rate above the highest of the table gets that one's score.
    pub fn reach(&self, people: usize, fpir: f64) -> Reach {
        #[expect(clippy::cast_precision_loss, reason = "people are far below 2^52")]
        let wanted = (people as f64).max(f64::from(self.least_people)).max(1.0);
        let highest = self.rows.iter().map(|row| row.score).fold(Score::MIN, |a, b| if b > a { b } else { a });
        let sizes: Vec<&[VisitRow]> = self.rows.chunk_by(|a, b| a.people == b.people).collect();
        let size = |rows: &[VisitRow]| rows.first().map_or(0.0, |row| f64::from(row.people));
        let above = sizes.iter().position(|rows| size(rows) >= wanted);
        let Some(above) = above else { return Reach::Beyond(highest) };
        let Some(upper) = at_rate(sizes[above], fpir) else { return Reach::Beyond(highest) };
        let below = above.checked_sub(1).and_then(|below| sizes.get(below)).filter(|rows| size(rows) < wanted);
        let lower = below.and_then(|rows| Some((size(rows), at_rate(rows, fpir)?)));
        let score = match lower {
            Some((smaller, lower)) => between((smaller.ln(), lower), (size(sizes[above]).ln(), upper), wanted.ln()),
            None => upper,
        };
        Reach::Kept(Score::saturating(score as f32))
    }

    /// What is wrong with the table, in words; nothing where it can be used.
    pub fn fault(&self) -> Option<&'static str> {
        if self.rows.is_empty() {
            return Some("has no rows");
        }
        if self.rows.iter().any(|row| !(row.fpir > 0.0 && row.fpir < 1.0) || row.people == 0) {
            return Some("has a rate that is not between 0 and 1, or nobody enrolled");
        }
        let is_in_order =
            |a: &VisitRow, b: &VisitRow| a.people < b.people || (a.people == b.people && a.fpir > b.fpir && a.score <= b.score);
        if !self.rows.is_sorted_by(is_in_order) {
            return Some("is not in order: by rising people, then by falling rate with rising score");
        }
        None
    }
}

/// The score for a rate among rows of one size; `None` below the lowest.
fn at_rate(rows: &[VisitRow], fpir: f64) -> Option<f64> {
    let score = |row: &VisitRow| f64::from(row.score.value());
    // The tiny factor undoes what a rate such as 10 / 10,000 loses to rounding.
    let lower = rows.iter().position(|row| row.fpir <= fpir * (1.0 + 1e-9))?;
    let Some(upper) = lower.checked_sub(1) else { return Some(score(&rows[lower])) };
    let (a, b) = (&rows[upper], &rows[lower]);
    Some(between((a.fpir.ln(), score(a)), (b.fpir.ln(), score(b)), fpir.max(b.fpir).ln()))
}

fn between((x0, y0): (f64, f64), (x1, y1): (f64, f64), x: f64) -> f64 {
    if x1 == x0 { y1 } else { y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> VisitTable {
        let row = |people, fpir, score| VisitRow { people, fpir, score: Score::new(score).unwrap() };
        let rows = vec![row(10, 1e-2, 0.5), row(10, 1e-3, 0.6), row(1000, 1e-2, 0.6), row(1000, 1e-3, 0.7)];
        VisitTable { data: String::new(), least_people: 10, rows }
    }

    fn kept(people: usize, fpir: f64) -> f32 {
        match table().reach(people, fpir) {
            Reach::Kept(score) => score.value(),
            beyond @ Reach::Beyond(_) => panic!("{beyond:?}"),
        }
    }

    #[test]
    fn rows_are_kept_to_and_what_lies_between_is_interpolated() {
        for (people, fpir, score) in [
            (10, 1e-3, 0.6),
            (0, 1e-3, 0.6),
            (1, 10.0 / 10_000.0, 0.6),
            (1000, 1e-3, 0.7),
            (100, 1e-3, 0.65),
            (10, 10f64.powf(-2.5), 0.55),
            (100, 10f64.powf(-2.5), 0.6),
            (1000, 0.5, 0.6),
        ] {
            assert!((kept(people, fpir) - score).abs() < 1e-5, "{people} {fpir}: {}", kept(people, fpir));
        }
    }

    #[test]
    fn more_people_and_lower_rates_never_ask_for_less() {
        let sizes = [0, 1, 9, 10, 11, 50, 100, 500, 999, 1000];
        let rates = [0.9, 1e-2, 5e-3, 2e-3, 1e-3];
        for pair in sizes.windows(2) {
            rates.iter().for_each(|rate| assert!(kept(pair[0], *rate) <= kept(pair[1], *rate), "{pair:?} {rate}"));
        }
        for pair in rates.windows(2) {
            sizes.iter().for_each(|people| assert!(kept(*people, pair[0]) <= kept(*people, pair[1]), "{people} {pair:?}"));
        }
    }

    #[test]
    fn what_was_not_measured_is_promised_to_nobody() {
        let highest = Reach::Beyond(Score::new(0.7).unwrap());
        for (people, fpir) in [(1001, 1e-3), (1_000_000, 0.5), (10, 9e-4), (10, 0.0), (10, f64::NAN)] {
            assert_eq!(table().reach(people, fpir), highest, "{people} {fpir}");
        }
        let empty = VisitTable { rows: Vec::new(), ..table() };
        assert_eq!(empty.reach(1, 0.1), Reach::Beyond(Score::MIN));
    }

    #[test]
    fn a_table_out_of_order_is_none() {
        assert_eq!(table().fault(), None);
        let with = |change: fn(&mut Vec<VisitRow>)| {
            let mut table = table();
            change(&mut table.rows);
            table.fault()
        };
        assert!(with(Vec::clear).is_some());
        assert!(with(|rows| rows.swap(0, 1)).is_some());
        assert!(with(|rows| rows.swap(0, 2)).is_some());
        assert!(with(|rows| rows[1].score = Score::new(0.4).unwrap()).is_some());
        assert!(with(|rows| rows[0].fpir = 1.0).is_some());
        assert!(with(|rows| rows[0].fpir = f64::NAN).is_some());
        assert!(with(|rows| rows[0].people = 0).is_some());
    }
}
