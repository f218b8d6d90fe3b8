//! The resolver's side: fetch an answer from a mirror, and judge it by the
//! client's own policy.
//!
//! A mirror is a place to fetch from, no more (threat 3): what it says counts
//! as far as its receipt verifies against the policy. Left out so far: memory of
//! earlier checkpoints, and asking several mirrors.

mod fetch;
pub mod follow;
mod http;
mod judge;
mod trust;

pub use fetch::{Ask, Error, Fault, Mirror, fetch};
pub use http::{Answer, HttpError, Site};
pub use judge::{DnsRoot, Judgement, judge};
pub use trust::{Policy, TrustError, policy_of_file, policy_of_log};
