//! Strangers that count: of all pairs of different people those that *other* networks find most alike. The people of one site resemble
//! each other (sex, age, region) far more than two people drawn from a press archive do, and a threshold that holds among random pairs
//! does not hold among them. The network under test has no say in who is alike: a network that chose its own impostors would be judged
//! on nothing but its errors.

/// The share of pairs of different people that counts as alike, where nobody says otherwise.
pub const SHARE: f64 = 0.01;

/// The mean of several networks' z-scores, pair by pair: each network's scores with its own mean and deviation over all these pairs taken
/// away, so that no network outweighs another by its scale. The lists are of one length and in one order. A network that gives every pair
/// the same score says nothing and adds nothing.
pub fn mean_z(judges: &[&[f32]]) -> Vec<f32> {
    let pairs = judges.iter().map(|scores| scores.len()).min().unwrap_or_default();
    let mut sums = vec![0.0f32; pairs];
    for scores in judges {
        let scores = &scores[..pairs];
        let mean = scores.iter().map(|score| f64::from(*score)).sum::<f64>() / pairs.max(1) as f64;
        let squares: f64 = scores.iter().map(|score| (f64::from(*score) - mean).powi(2)).sum();
        let deviation = (squares / pairs.max(1) as f64).sqrt();
        let weight = if deviation > 0.0 { 1.0 / (deviation * judges.len() as f64) } else { 0.0 };
        let (mean, weight) = (mean as f32, weight as f32);
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += (score - mean) * weight);
    }
    sums
}

/// Which `share` (0 to 1) of pairs are the most alike, by their places in `likeness`, ascending: one at least where there is any, and of
/// equals the first.
pub fn most_alike(likeness: &[f32], share: f64) -> Vec<usize> {
    if likeness.is_empty() {
        return Vec::new();
    }
    let wanted = ((share.clamp(0.0, 1.0) * likeness.len() as f64).round() as usize).clamp(1, likeness.len());
    let mut copy = likeness.to_vec();
    let cut = *copy.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a)).1;
    drop(copy);
    let above = likeness.iter().filter(|value| value.total_cmp(&cut).is_gt()).count();
    let mut equals = wanted - above;
    let mut is_in = |value: f32| match value.total_cmp(&cut) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal if equals > 0 => {
            equals -= 1;
            true
        }
        _ => false,
    };
    likeness.iter().enumerate().filter(|(_, value)| is_in(**value)).map(|(place, _)| place).collect()
}

/// The standard error of an error rate over pairs of people, with people, not pairs, as what was drawn: the jackknife, leaving out each
/// person with all pairs that person is in (J. N. Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40, 1969, for rates
/// over pairs). People are numbered from 0 without large gaps. Gives rate and standard error; `None` below three people or where leaving one out leaves no pair.
pub fn by_people(pairs: impl Iterator<Item = (u32, u32, bool)>) -> Option<(f64, f64)> {
    let (mut errors, mut trials) = (0u64, 0u64);
    let mut each: Vec<[u64; 2]> = Vec::new();
    for (first, second, is_error) in pairs {
        trials += 1;
        errors += u64::from(is_error);
        let people = if first == second { &[first][..] } else { &[first, second] };
        for person in people {
            let place = *person as usize;
            if each.len() <= place {
                each.resize(place + 1, [0; 2]);
            }
            each[place][0] += u64::from(is_error);
            each[place][1] += 1;
        }
    }
    each.retain(|[_, all]| *all > 0);
    let people = each.len();
    if people < 3 || each.iter().any(|[_, all]| *all == trials) {
        return None;
    }
    let without = |[wrong, all]: &[u64; 2]| (errors - wrong) as f64 / (trials - all) as f64;
    let mean = each.iter().map(without).sum::<f64>() / people as f64;
    let squares: f64 = each.iter().map(|counts| (without(counts) - mean).powi(2)).sum();
    Some((errors as f64 / trials as f64, (squares * (people - 1) as f64 / people as f64).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_scale_is_no_say() {
        let (a, b) = ([0.1f32, 0.2, 0.3, 0.4], [0.4f32, 0.3, 0.1, 0.2]);
        let stretched: Vec<f32> = b.iter().map(|score| 50.0 * score - 3.0).collect();
        let (plain, scaled) = (mean_z(&[&a, &b]), mean_z(&[&a, &stretched]));
        for (one, other) in plain.iter().zip(&scaled) {
            assert!((one - other).abs() < 1e-4, "{plain:?} {scaled:?}");
        }
        assert!((plain.iter().sum::<f32>()).abs() < 1e-5);
        assert_eq!(mean_z(&[&[0.5f32; 3]]), [0.0; 3], "a network that tells nobody apart has no say");
        assert!(mean_z(&[]).is_empty());
    }

    #[test]
    fn the_hardest_share_is_exactly_as_large_as_asked() {
        let values: Vec<f32> = (0..1000u16).map(|i| f32::from(i * 7 % 1000)).collect();
        let chosen = most_alike(&values, 0.01);
        assert_eq!(chosen.len(), 10);
        assert!(chosen.iter().all(|place| values[*place] >= 990.0) && chosen.is_sorted());
        assert_eq!(most_alike(&[1.0, 2.0, 2.0, 2.0], 0.5), [1, 2], "of equals the first");
        assert_eq!(most_alike(&[3.0, 1.0], 0.0), [0], "one at least");
        assert!(most_alike(&[], 0.5).is_empty());
    }

    #[test]
    fn one_person_whom_everybody_resembles_widens_the_error() {
        let pairs = |lamb: bool| {
            let all = (0..40u32).flat_map(|a| (0..a).map(move |b| (a, b)));
            // The same number of errors, once all around one person, once spread evenly.
            all.map(move |(a, b)| (a, b, if lamb { b == 0 } else { a - b == 20 || a - b == 21 }))
        };
        let (lamb, even) = (by_people(pairs(true)).unwrap(), by_people(pairs(false)).unwrap());
        assert!((lamb.0 - even.0).abs() < 1e-12, "{lamb:?} {even:?}");
        assert!(lamb.1 > 3.0 * even.1, "{lamb:?} {even:?}");
        assert_eq!(by_people([(1, 2, true)].into_iter()), None);
        assert_eq!(by_people([(1, 2, false), (1, 3, false), (2, 3, false)].into_iter()), Some((0.0, 0.0)));
    }
}
