//! Writes the seeds of every target: `seeds <tests/data> <folder>` makes
//! `<folder>/<target>/seed-<number>`.

use std::path::PathBuf;
use std::{env, fs};

// libFuzzer answers for the instrumentation that this binary has too.
use libfuzzer_sys as _;

fn main() -> std::io::Result<()> {
    let folders: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [data, into] = folders.as_slice() else { panic!("seeds <tests/data> <folder>") };
    for (target, _) in syndicate_fuzz::TARGETS {
        fs::create_dir_all(into.join(target))?;
    }
    for (number, (target, bytes)) in syndicate_fuzz::seeds::seeds(data).iter().enumerate() {
        fs::write(into.join(target).join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
