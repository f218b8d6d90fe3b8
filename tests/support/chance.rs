//! Chance that can be had again: seeded, and the seed is printed.
#![allow(dead_code)] // each test binary uses another part

use std::ops::RangeInclusive;

/// SplitMix64.
pub struct Chance(u64);

impl Chance {
    /// By `SYNDICATE_SEED`, else another one each time.
    pub fn new() -> Chance {
        let chosen = std::env::var("SYNDICATE_SEED").ok();
        let seed = chosen.map_or_else(fresh, |seed| seed.parse().expect("SYNDICATE_SEED"));
        println!("SYNDICATE_SEED={seed}");
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.next() as usize % from.len()]
    }
}

fn fresh() -> u64 {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    u64::from_be_bytes(seed)
}

/// Whether the long form of a test was asked for.
pub fn slow() -> bool {
    std::env::var_os("SYNDICATE_SLOW").is_some_and(|value| value == "1")
}
