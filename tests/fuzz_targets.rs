//! The fuzz targets of `tests/fuzz` follow the formats: every seed passes its target,
//! whole, cut off anywhere near its ends, and with some bytes changed. Fuzzing itself is
//! `tests/fuzz/run`.

#[path = "fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::path::Path;

/// Vectors there are by the hundred; of some that are slow to judge, few changes.
const CHANGES: usize = 4;

#[test]
fn every_seed_passes_its_target() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let seeds = fuzz::seeds::seeds(&data);
    for (name, target) in fuzz::TARGETS {
        target(&[]);
        let mut tried = 0;
        for (number, (_, seed)) in seeds.iter().enumerate().filter(|(_, (of, _))| *of == name) {
            target(seed);
            for change in 1..=CHANGES.min(seed.len()) {
                target(&seed[change..]);
                target(&seed[..seed.len() - change]);
                let mut changed = seed.clone();
                changed[(number * 31 + change * 1009) % seed.len()] ^= 1 << (change % 8);
                target(&changed);
            }
            tried += 1;
        }
        assert!(tried > 0, "{name} has no seed");
    }
}

#[test]
fn every_target_has_its_binary() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let files = std::fs::read_dir(package.join("targets")).expect("the targets");
    let files: BTreeSet<String> = files
        .map(|file| file.expect("a file").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let names: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(files, names);
    let manifest = std::fs::read_to_string(package.join("Cargo.toml")).expect("its manifest");
    for name in names {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}
