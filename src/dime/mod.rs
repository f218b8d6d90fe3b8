//! DIME's formats and what makes them valid: pure functions from bytes, limits
//! and a time to values. Their fault is a [`Rejection`], never a panic.

pub mod armor;
pub mod certificate;
pub mod chain;
pub mod command;
mod dnssec;
pub mod ed25519;
pub mod key;
mod name;
pub mod org;
pub mod record;
mod rejection;
pub mod reply;
pub mod signet;
pub mod suffix;
mod time;
pub mod user;
pub mod verdict;

pub use dnssec::Dnssec;
pub use name::{Address, Domain, MAX_DOMAIN, MAX_LOCAL, Name};
pub use rejection::Rejection;
pub use time::Timestamp;
