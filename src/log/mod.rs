//! The transparency log: pool, sequence, commit, publish, read back.

pub mod commit;
pub mod guard;
