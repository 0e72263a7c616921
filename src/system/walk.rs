//! A seeded walk over drawn and mutated bytes: what every test run feeds the fuzz targets' functions with, without a fuzzer.

/// Calls `target` for so many inputs: each seed as it is, then bytes that are drawn, or a seed with some of its bytes changed, taken out,
/// cut off or doubled. The walk's seed is printed, and shown where the target panics.
pub fn walk(name: &str, seeds: &[&[u8]], rounds: u64, mut target: impl FnMut(&[u8])) {
    seeds.iter().for_each(|seed| target(seed));
    for round in 0..rounds {
        let mut random = fastrand::Rng::with_seed(round);
        let mut input = match random.choice(seeds) {
            Some(seed) if random.u8(..) >= 32 => seed.to_vec(),
            _ => {
                let mut drawn = vec![0; random.usize(0..120)];
                random.fill(&mut drawn);
                drawn
            }
        };
        for _ in 0..random.usize(0..6) {
            if input.is_empty() {
                break;
            }
            let at = random.usize(0..input.len());
            match random.u8(0..5) {
                0 => input[at] ^= 1 << random.u8(0..8),
                1 => input[at] = random.u8(..),
                2 => drop(input.remove(at)),
                3 => input.truncate(at),
                _ => input.extend_from_within(at..at + (input.len() - at).min(40)),
            }
        }
        println!("{name}, round {round}");
        target(&input);
    }
}
