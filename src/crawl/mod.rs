//! Going round: which domain is due, one visit from its DNS record to drafts,
//! and the loop around it.
//!
//! [`frontier`] says who is due, `visit` does the asking, [`judge`] says what
//! the answers are to what was known. What comes out goes to a [`Sink`] as
//! drafts of log entries; what fails validation goes to [`Incidents`], it is never
//! a version, and each alarm goes there too. [`quota`] stands before the log and
//! bounds what one name can put into it. Rows of the log are only read here. This
//! room writes three kinds of its own: when a name is due, when it was last seen,
//! and its quotas.
//!
//! A name that strangers asked for is on trial: looked at once, and watched only
//! if the visit put it into the log. A mailbox that only peers asked for is
//! watched for a while (threat 22); a domain of a peer's log has its turn after
//! all others (threat 20), and nothing but DNS is asked unless it has a record.
//!
//! Left out: sequencing, who may ask for a visit.

mod alarm;
mod compare;
mod crawler;
pub mod frontier;
mod handle;
mod incident;
pub mod judge;
mod metrics;
pub mod quota;
mod report;
mod roster;
mod sweep;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::dime::{Address, Domain};
use crate::dmtp;
use crate::proof::draft::Draft;
use crate::resolver::Resolver;
use crate::store::{self, Blobs, State};

pub use compare::{POK as VANTAGE_POK, VANTAGES, Vantage};
pub use crawler::Crawler;
pub use frontier::Pace;
pub use handle::Handle;
pub use incident::{Incident, IncidentKind, Incidents};
pub use metrics::Metrics;
pub use report::{Entered, Outcome, Report};
pub use roster::Roster;

/// Visits at once.
pub const CONCURRENCY: usize = 16;
/// How long a suspicious change is held (design §3), milliseconds.
pub const HOLD: u64 = 72 * 3_600_000;
/// Port of DX hosts, TLS from the first byte.
pub const DX_PORT: u16 = 26;
/// Domains in memory while their turn is far off: some tens of MiB.
pub const RESIDENT: usize = 65_536;
/// Ten minutes (threat 21), milliseconds.
pub const ASK_DELAY: u64 = 600_000;
/// A day, milliseconds.
pub const COMPARE_EVERY: u64 = 86_400_000;

/// How the crawler goes about.
#[derive(Clone, Debug)]
pub struct Options {
    pub pace: Pace,
    /// Visits at once, at least 1; beside them up to 256 that take longer than
    /// a second, of one registered domain about 16.
    pub concurrency: usize,
    /// Of one visit, all mailboxes included.
    pub deadline: Duration,
    /// Domains in memory while their turn is far off; more are read from the state
    /// when it comes.
    pub resident: usize,
    /// How long a suspicious change is held, milliseconds.
    pub hold: u64,
    /// For DX hosts of the record, of MX and the domain itself. A port in a
    /// `dx` field is not followed: strangers do not choose ports.
    pub dx_port: u16,
    /// Ports of MX hosts to try with STARTTLS, if `dx_port` fails (§6.2).
    pub dual_ports: Vec<u16>,
    /// A signet is fetched again within this time, milliseconds; a DX's word
    /// that it is current is enough where the next visit is due before that
    /// (§7.2). 0: it never is.
    pub trust_word: u64,
    /// A name that a stranger asked for is looked at after a random time up to
    /// this, milliseconds: a new label must not tell who asked (threat 21).
    pub ask_delay: u64,
    /// Most new links of one mailbox in one visit.
    pub links: usize,
    /// Of connections to one DX host, whatever number of domains share it.
    pub hosts: dmtp::hosts::Limits,
    /// The other vantages look at every domain once in this time, milliseconds,
    /// with 32 more of its mailboxes each time; 0: only at what changed.
    pub compare_every: u64,
    /// Between the two looks that make a difference believed.
    pub second_look: Duration,
    pub dmtp: dmtp::client::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pace: Pace::default(),
            concurrency: CONCURRENCY,
            deadline: Duration::from_secs(600),
            resident: RESIDENT,
            hold: HOLD,
            dx_port: DX_PORT,
            dual_ports: vec![25, 587],
            trust_word: 0,
            ask_delay: ASK_DELAY,
            links: 64,
            hosts: dmtp::hosts::Limits::default(),
            compare_every: COMPARE_EVERY,
            second_look: Duration::from_secs(60),
            dmtp: dmtp::client::Options::default(),
        }
    }
}

/// What the room works with.
#[derive(Clone)]
pub struct Rooms {
    pub resolver: Arc<dyn Resolver>,
    /// Another path to DNS, over which a bogus answer is confirmed; without one,
    /// none ever is.
    pub second_resolver: Option<Arc<dyn Resolver>>,
    pub state: Arc<dyn State>,
    /// Read only: record texts and org signets that entries name.
    pub public: Blobs,
    pub clock: Clock,
    pub sink: Arc<dyn Sink>,
    pub incidents: Arc<dyn Incidents>,
}

/// Where drafts go: the log.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Returns when the entry is durable and the rows in `State` show it, so
    /// that whatever is judged next is judged by it. `after` is the version of
    /// the row that the draft was judged by, 0 without a row.
    async fn submit(&self, draft: Draft, after: u64) -> Result<Placed, Unplaced>;

    /// Whether a mailbox that has no row was forgotten: it is not visited, and
    /// nothing about it is written down, until its owner asks.
    ///
    /// # Errors
    /// Why that cannot be said now.
    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced>;

    /// Whether the clock is in doubt, so that the log takes nothing: no visit begins,
    /// since what it would write down is wrong too.
    fn doubts_clock(&self) -> bool {
        false
    }
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is this version of its label.
    Version(u64),
    /// Over quota: counted, and told with the label's next entry.
    Coalesced,
}

/// Why a draft has no place.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// The log is stopping or full: visit again later.
    #[error("the log takes nothing now: {0}")]
    Later(String),
    /// The log has a newer entry of the name than the draft was judged by: that
    /// of an earlier visit that could not wait for it. Visit again.
    #[error("the log has moved on since the name was judged")]
    MovedOn,
    /// It does not fit what the log holds.
    #[error("the log refused a draft: {0}")]
    Misfit(String),
}

/// What ends the room: its own stores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading what is known of {domain}")]
    Known { domain: Domain, source: store::Error },
    #[error("handing an entry for {domain} to the log")]
    Log { domain: Domain, source: Unplaced },
    #[error("reading the frontier")]
    Frontier(#[source] store::Error),
    #[error("the crawler has stopped")]
    Stopped,
    #[error("too many wait for a visit of their own")]
    Busy,
    #[error("the domain is watched already")]
    Watched,
}
