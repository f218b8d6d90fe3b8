//! The `dmtp` room.
