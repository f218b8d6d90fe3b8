//! The `resolver` room.
