//! One-to-one assignment with the greatest total, where not every pair is allowed: the Hungarian method in its O(n³) form with potentials
//! (Jonker and Volgenant, Computing 1987, without its initialisation). Greedy association would give the best pair what two others need.

/// What leaving a pair unjoined costs: more than any overlap can bring, so that as many as can be are joined first.
const UNJOINED: f32 = 2.0;

/// Pairs of row and column, each at most once; `gain` is 0 to 1, and nothing for a pair that is not allowed.
pub(super) fn best(rows: usize, columns: usize, gain: impl Fn(usize, usize) -> Option<f32>) -> Vec<(usize, usize)> {
    if rows == 0 || columns == 0 {
        return Vec::new();
    }
    let side = rows.max(columns);
    let allowed = |row: usize, column: usize| if row < rows && column < columns { gain(row, column) } else { None };
    // Not a number is not allowed either: it compares with nothing.
    let cost = |row: usize, column: usize| allowed(row, column).filter(|gain| gain.is_finite()).map_or(UNJOINED, |gain| 1.0 - gain);
    // One-based; column 0 is the row that looks for a place.
    let (mut of_row, mut of_column) = (vec![0.0f32; side + 1], vec![0.0f32; side + 1]);
    let (mut row_at, mut from) = (vec![0usize; side + 1], vec![0usize; side + 1]);
    for row in 1..=side {
        row_at[0] = row;
        let mut column = 0;
        let mut least = vec![f32::INFINITY; side + 1];
        let mut used = vec![false; side + 1];
        while row_at[column] != 0 {
            used[column] = true;
            let current = row_at[column];
            let (mut delta, mut next) = (f32::INFINITY, 0);
            for other in (1..=side).filter(|other| !used[*other]) {
                let reduced = cost(current - 1, other - 1) - of_row[current] - of_column[other];
                if reduced < least[other] {
                    (least[other], from[other]) = (reduced, column);
                }
                if least[other] < delta {
                    (delta, next) = (least[other], other);
                }
            }
            for other in 0..=side {
                if used[other] {
                    of_row[row_at[other]] += delta;
                    of_column[other] -= delta;
                } else {
                    least[other] -= delta;
                }
            }
            column = next;
        }
        while column != 0 {
            row_at[column] = row_at[from[column]];
            column = from[column];
        }
    }
    let pairs = (1..=side).map(|column| (row_at[column].wrapping_sub(1), column - 1));
    pairs.filter(|(row, column)| allowed(*row, *column).is_some_and(f32::is_finite)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_best_pair_does_not_take_what_two_others_need() {
        let gains = [[0.9, 0.8], [0.7, 0.0]];
        let mut pairs = best(2, 2, |row, column| Some(gains[row][column]).filter(|gain| *gain > 0.25));
        pairs.sort_unstable();
        assert_eq!(pairs, [(0, 1), (1, 0)]);
        assert!(best(3, 2, |_, _| None).is_empty() && best(0, 4, |_, _| Some(1.0)).is_empty());
        assert!(best(2, 2, |_, _| Some(f32::NAN)).is_empty());
    }

    /// Every assignment there is, tried out.
    fn exhaustive(rows: usize, gains: &[Vec<Option<f32>>], taken: &mut Vec<bool>) -> (usize, f32) {
        if rows == gains.len() {
            return (0, 0.0);
        }
        let mut found = exhaustive(rows + 1, gains, taken);
        for column in 0..taken.len() {
            if let (false, Some(gain)) = (taken[column], gains[rows][column]) {
                taken[column] = true;
                let (count, sum) = exhaustive(rows + 1, gains, taken);
                taken[column] = false;
                if (count + 1, sum + gain) > found {
                    found = (count + 1, sum + gain);
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_everything_finds(
            gains in (1usize..5, 1usize..5).prop_flat_map(|(rows, columns)| {
                prop::collection::vec(prop::collection::vec(prop::option::of(0.25f32..1.0), columns), rows)
            })
        ) {
            let columns = gains[0].len();
            let pairs = best(gains.len(), columns, |row, column| gains[row][column]);
            let sum: f32 = pairs.iter().map(|(row, column)| gains[*row][*column].unwrap()).sum();
            let (count, most) = exhaustive(0, &gains, &mut vec![false; columns]);
            prop_assert_eq!(pairs.len(), count);
            prop_assert!((sum - most).abs() < 1e-4, "{} instead of {}", sum, most);
        }
    }
}
