//! The signet syndicate: mirrors that crawl DIME domains, check every signet,
//! write what they saw to a public Merkle log, and answer with proofs.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod audit;
pub mod client;
pub mod clock;
pub mod config;
pub mod crawl;
pub mod daemon;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dime;
pub mod directory;
pub mod dmtp;
pub mod errors;
pub mod log;
pub mod peers;
pub mod proof;
pub mod resolver;
pub mod serve;
pub mod store;
