//! DIME's formats and what makes them valid: pure functions from bytes, limits
//! and a time to values. Their fault is a [`Rejection`], never a panic.

pub mod certificate;
pub mod command;
mod dnssec;
mod name;
pub mod record;
mod rejection;
pub mod reply;
mod time;

pub use dnssec::Dnssec;
pub use name::{Address, Domain, Name};
pub use rejection::Rejection;
pub use time::Timestamp;
