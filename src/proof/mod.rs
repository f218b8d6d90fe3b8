//! All that a doubter needs to check the log and its answers, pure: Merkle
//! hashes and proofs, tiles, signed notes, checkpoints, trust policies.

pub mod checkpoint;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod tile;
pub mod tile_set;
pub mod whole_tree;
