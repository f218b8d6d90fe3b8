//! The `proof` room.
