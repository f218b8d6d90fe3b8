//! What is fuzzed: one function for each family of formats that strangers' bytes
//! come in. Each takes any bytes, must not panic, and asserts what is cheap to
//! assert: what is accepted is written again byte for byte, reads the same twice,
//! keeps its limits, and proves nothing that nobody signed.
//!
//! `tests/fuzz/run` runs them under libFuzzer. The package's own tests
//! (`tests/fuzz_targets.rs`) include this file and run every seed through its target,
//! so that the targets follow the formats.

mod certificate;
mod dime;
mod dmtp;
mod dnssec;
mod incident;
mod kept;
#[path = "../../support/mini_log.rs"]
mod mini_log;
mod note;
mod policy;
mod proof;
mod receipt;
pub mod seeds;
mod tile;

pub use certificate::certificate;
pub use dime::{armor, name, record, signet};
pub use dmtp::{command, reply};
pub use dnssec::dnssec;
pub use incident::incident;
pub use kept::kept;
pub use note::{checkpoint, note};
pub use policy::policy;
pub use proof::proof;
pub use receipt::receipt;
pub use tile::{entry, tile};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary.
pub const TARGETS: [(&str, Target); 17] = [
    ("armor", armor),
    ("certificate", certificate),
    ("checkpoint", checkpoint),
    ("command", command),
    ("dnssec", dnssec),
    ("entry", entry),
    ("incident", incident),
    ("kept", kept),
    ("name", name),
    ("note", note),
    ("policy", policy),
    ("proof", proof),
    ("receipt", receipt),
    ("record", record),
    ("reply", reply),
    ("signet", signet),
    ("tile", tile),
];

/// A public key whose secret has signed nothing.
fn stranger() -> [u8; 32] {
    syndicate::dime::ed25519::public_key(&[0xf5; 32])
}

/// Takes the first `N` bytes, zeros where there are fewer.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (head, rest) = bytes.split_at(bytes.len().min(N));
    *bytes = rest;
    let mut taken = [0; N];
    taken[..head.len()].copy_from_slice(head);
    taken
}
