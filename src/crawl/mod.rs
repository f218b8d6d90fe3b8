//! The `crawl` room.
