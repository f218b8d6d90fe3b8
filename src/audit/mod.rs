//! Those who stand outside and check: the auditor of whole logs, and the
//! monitor of an owner's names. They share nothing with the prover but `proof`
//! and `dime`, and believe nobody but the policy they are given.
//!
//! What they find is a [`Notice`]. An *alarm* says that somebody did what nobody
//! may do, or that a key changed in a way its owner should look at; a
//! *condition* ends by itself and accuses nobody (threat 17): unreachable, stale,
//! an older checkpoint, a newer format.
//!
//! Left out: putting anything right. A fault that was found stays found until
//! the operator removes that log's folder.

mod accuse;
mod book;
mod compare;
mod evidence;
mod folder;
mod follower;
mod notice;
mod outlet;
mod search;
mod tree;
mod watch;

use std::path::PathBuf;

pub use book::{Book, Damage};
pub use compare::{Comparison, Comparisons, Seen};
pub use folder::Folder;
pub use follower::{Follower, MAX_OWED, Options, Progress, Round};
pub use notice::{Notice, Weight};
pub use outlet::Outlets;
pub use search::{Search, Taken};
pub use tree::Tree;
pub use watch::{MAX_NAMES, Visit, Watch, WatchOptions};

/// What keeps an auditor from its work. Nothing that a log does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{attempt} {path}")]
    Folder {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{path} is longer than {limit} bytes")]
    Size { path: PathBuf, limit: u64 },
    /// What was remembered of a name cannot be read: whether its history only
    /// grew since cannot be said any more, so nothing is made up in its place.
    #[error("{path} is damaged: {why}; remove it to begin anew")]
    Memory { path: PathBuf, why: String },
    #[error("the address of the webhook: {0}")]
    Hook(#[source] crate::client::HttpError),
    #[error(transparent)]
    Mirror(#[from] crate::client::Error),
    #[error(transparent)]
    Source(#[from] crate::client::follow::Error),
}
