//! The `directory` room.
