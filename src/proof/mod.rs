//! All that a doubter needs to check the log and its answers, pure: bytes,
//! limits and a time in, values out. Merkle hashes and proofs, tiles, signed
//! notes, checkpoints, trust policies; entries, labels, the map, the replay,
//! receipts, what two of them are to each other, incidents; what owners and
//! peers ask, signed.

pub mod checkpoint;
pub mod dnssec;
pub mod draft;
pub mod entry;
pub mod incident;
pub mod label;
pub mod map;
pub mod merkle;
pub mod note;
pub mod observation;
pub mod policy;
pub mod receipt;
pub mod relation;
pub mod replay;
pub mod request;
pub mod tile;
pub mod tile_set;
pub mod vrf;
pub mod whole_tree;
pub mod wire;

pub use draft::Draft;
pub use entry::{Entry, Event, Events, Kind};
pub use label::Label;

/// SHA-256 of something, or a node of one of the trees.
pub type Hash = [u8; 32];
