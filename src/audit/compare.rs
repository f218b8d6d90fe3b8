//! The same domain in two logs: what the histories are to each other
//! (`proof::relation`). DIVERGED and LAG are shown, not held against anybody:
//! one mirror may be a crawl behind, or be shown something else than the other.
//!
//! Domains only: of mailboxes a log tells nothing in clear.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Notice, Weight};
use crate::dime::{Domain, Name, Timestamp};
use crate::proof::Hash;
use crate::proof::entry::DomainObservation;
use crate::proof::relation::{Keys, Relation, Side, Sight, Sights};

/// Versions of a domain that are remembered; of earlier ones, that they were.
pub const MAX_SIGHTS: usize = 256;

/// What a log has seen of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub sights: Vec<Sight>,
    pub current: u64,
    /// More were there than are kept.
    pub cut: bool,
}

impl Seen {
    /// Takes the next entry.
    pub fn add(&mut self, entry: &DomainObservation<'_>, time: Timestamp) {
        self.current = entry.current;
        if entry.poks.is_empty() {
            return;
        }
        if self.sights.len() == MAX_SIGHTS {
            self.sights.remove(0);
            self.cut = true;
        }
        let keys = Keys::of_domain(entry);
        self.sights.push(Sight { version: entry.version, seen: time, keys });
    }

    fn sights(&self) -> Sights {
        let never = Timestamp::default();
        Sights::new(self.sights.clone(), self.current, never, never, !self.cut)
    }

    /// Version, time, POKs, org signet: as they are kept.
    pub fn parts(&self) -> impl Iterator<Item = (u64, u64, Hash, Option<Hash>)> {
        self.sights.iter().filter_map(|sight| match sight.keys {
            Keys::Domain { poks, org_signet } => {
                Some((sight.version, sight.seen.millis(), poks, org_signet))
            }
            Keys::Mailbox(_) => None,
        })
    }

    pub fn push_part(&mut self, version: u64, seen: u64, poks: Hash, org_signet: Option<Hash>) {
        let keys = Keys::Domain { poks, org_signet };
        self.sights.push(Sight { version, seen: Timestamp::from_millis(seen), keys });
    }
}

/// What a domain is in two logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub domain: Domain,
    /// Their origins.
    pub one: String,
    pub other: String,
    pub relation: Relation,
}

/// What logs show of domains, and what was said of it. A domain that is new or other in
/// one log is compared with another log once that was looked at again: what both saw in
/// the meantime is no difference.
#[derive(Debug, Default)]
pub struct Comparisons {
    /// By a number of the caller's.
    logs: BTreeMap<usize, Shown>,
    said: BTreeMap<(Domain, usize, usize), Relation>,
}

/// One log.
#[derive(Debug, Default)]
struct Shown {
    origin: String,
    domains: BTreeMap<Domain, Arc<Seen>>,
    /// What is compared when the log of this number was looked at again.
    waiting: BTreeMap<usize, BTreeSet<Domain>>,
}

impl Comparisons {
    /// A look at a log has ended that brought these domains; the first one brings all.
    /// Gives what is not what it was.
    pub fn looked(
        &mut self,
        log: usize,
        origin: &str,
        seen: BTreeMap<Domain, Arc<Seen>>,
    ) -> Vec<Comparison> {
        let touched: BTreeSet<Domain> = seen.keys().cloned().collect();
        let others: Vec<usize> = self.logs.keys().copied().filter(|other| *other != log).collect();
        let shown = self.logs.entry(log).or_default();
        shown.origin = origin.to_owned();
        shown.domains.extend(seen);
        for other in &others {
            shown.waiting.entry(*other).or_default().extend(touched.iter().cloned());
        }
        let mut due = BTreeMap::new();
        for other in others {
            let waiting = self.logs.get_mut(&other).and_then(|shown| shown.waiting.remove(&log));
            due.insert(other, waiting.unwrap_or_default());
        }
        due.into_iter().flat_map(|(other, domains)| self.compare(log, other, domains)).collect()
    }

    /// Compares what waits, when no further look will come.
    pub fn rest(&mut self) -> Vec<Comparison> {
        let mut due = Vec::new();
        for (log, shown) in &mut self.logs {
            let waiting = std::mem::take(&mut shown.waiting).into_iter();
            due.extend(waiting.map(|(other, domains)| (*log, other, domains)));
        }
        let due = due.into_iter();
        due.flat_map(|(log, other, domains)| self.compare(log, other, domains)).collect()
    }

    fn compare(&mut self, a: usize, b: usize, domains: BTreeSet<Domain>) -> Vec<Comparison> {
        let (i, j) = (a.min(b), a.max(b));
        let (Some(one), Some(other)) = (self.logs.get(&i), self.logs.get(&j)) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        for domain in domains {
            let (Some(ours), Some(theirs)) = (one.domains.get(&domain), other.domains.get(&domain))
            else {
                continue;
            };
            let relation = Relation::of(&ours.sights(), &theirs.sights());
            let said = self.said.insert((domain.clone(), i, j), relation);
            let quiet = matches!(said, None | Some(Relation::Same | Relation::Unknown))
                && matches!(relation, Relation::Same | Relation::Unknown);
            if said != Some(relation) && !quiet {
                let (one, other) = (one.origin.clone(), other.origin.clone());
                news.push(Comparison { domain, one, other, relation });
            }
        }
        news
    }

    /// How many pairs are the same, lag, have diverged.
    pub fn tally(&self) -> [usize; 3] {
        let count = |is: fn(&Relation) -> bool| self.said.values().filter(|r| is(r)).count();
        [
            count(|relation| *relation == Relation::Same),
            count(|relation| matches!(relation, Relation::Lag(_))),
            count(|relation| *relation == Relation::Diverged),
        ]
    }
}

impl Comparison {
    /// A condition: which of the two is right, or whether either is wrong, takes
    /// fresh visits.
    pub fn notice(&self, now: Timestamp) -> Notice {
        let Comparison { one, other, .. } = self;
        let (weight, kind, message) = match self.relation {
            Relation::Same => (Weight::News, "SAME", format!("{other} now shows the same.")),
            Relation::Lag(side) => {
                let (behind, ahead) = match side {
                    Side::Ours => (one, other),
                    Side::Theirs => (other, one),
                };
                let message = format!("{behind} still shows what {ahead} showed before.");
                (Weight::Condition, "LAG", message)
            }
            Relation::Diverged => {
                let message = format!(
                    "{other} shows keys that {one} never saw, and the other way round. Either \
                     mirror may be shown a forgery; this convicts neither."
                );
                (Weight::Condition, "DIVERGED", message)
            }
            Relation::Unknown => {
                (Weight::News, "UNKNOWN", format!("cannot be compared with {other} any more."))
            }
        };
        let notice = Notice::new(now, weight, kind, one, message);
        notice.about(&Name::Domain(self.domain.clone())).with("other", other.clone())
    }
}
