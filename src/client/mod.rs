//! The resolver's side: ask mirrors, judge their answers by the client's own
//! policy, hold them against one's own look at DNS and DX, and remember what
//! each log has shown.
//!
//! A mirror is a place to fetch from, no more (threat 3): what it says counts
//! as far as its receipt verifies against the policy.

mod accuse;
mod ask;
mod check;
mod fetch;
pub mod follow;
mod http;
mod judge;
pub mod memory;
mod reasons;
mod trust;
mod verdict;
mod view;

pub use accuse::{Reported, keep, report};
pub use ask::{NamedBy, Proof, Said};
pub use check::{Answer as PlaceAnswer, Check, CheckError, Options, PATIENCE, check};
pub use fetch::{Ask, Error, Fault, Mirror, fetch};
pub use http::{Answer, Hook, HttpError, Site, Sites, is_same_place};
pub use judge::{DnsRoot, Judgement, judge};
pub use memory::{Memory, MemoryError};
pub use trust::{Policy, TrustError, policy_of_file, policy_of_log};
pub use verdict::{Standing, Verdict};
pub use view::{Eyes, Lack, View};
