//! Any text as a config: it is read, and what has no finding is made ready and explained.
#![no_main]

use faceid_plus::access::{Clock, Rules};
use faceid_plus::config::Config;
use faceid_plus::types::Wall;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, i64)| {
    let (text, at) = input;
    let Ok(config) = Config::parse(text) else { return };
    let rules = Rules::new(&config.policy).expect("a policy without a finding can be made ready");
    for door in &config.doors {
        let people: Vec<_> = rules.named_people().into_iter().map(|id| (id.clone(), Default::default())).collect();
        let _ = rules.explain(&door.id, &people, Wall(at), Clock::Synchronised);
    }
});
