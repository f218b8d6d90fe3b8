//! DIME's formats and what makes them valid: pure functions from bytes, limits
//! and a time to values. Their fault is a [`Rejection`], never a panic.

pub mod certificate;
mod dnssec;
mod name;
pub mod record;
mod rejection;
mod time;

pub use dnssec::Dnssec;
pub use name::{Address, Domain, MAX_DOMAIN, MAX_LOCAL, Name};
pub use rejection::Rejection;
pub use time::Timestamp;
