//! The `crawl` room.

pub mod judge;
