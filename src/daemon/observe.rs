//! What peers ask for goes to the crawl, within quotas: a peer must not make this
//! mirror its crawler (threats 20 and 22).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::joints::Taken;
use crate::clock::Clock;
use crate::crawl::{Handle, Placed, Report};
use crate::dime::{Name, Timestamp};
use crate::peers::crosscheck;
use crate::proof::Hash;
use crate::proof::request::Signers;
use crate::serve::http::{Observation, Observe};
use crate::store::rows::{self, DomainRow, UserRow};
use crate::store::{self, Blobs, State};

/// How long a mailbox is watched that only peers asked for (threat 22), milliseconds.
pub const KEPT: u64 = 30 * 86_400_000;
/// Questions of one peer in an hour, visits or not: each is a whole history.
const QUESTIONS_PER_HOUR: u32 = 20_000;
/// Visits in a day, as visits in so many hours.
const HOURS_OF_A_DAY: u32 = 8;
/// How long a request waits for its visit; then it is to be repeated.
const PATIENCE: Duration = Duration::from_secs(4);
/// A visit's end is kept this long for whoever repeats the request.
const DELIVERY: u64 = 60_000;
/// Visits for peers that go on or wait to be told, at most.
const VISITS: usize = 1024;
const HOUR: u64 = 3_600_000;

/// A peer that may ask.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Of its log.
    pub origin: String,
    /// What it signs requests with.
    pub key: [u8; 32],
    pub share_addresses: bool,
}

/// Answers peers.
pub struct ForPeers {
    crawl: Handle,
    state: Arc<dyn State>,
    clock: Clock,
    taken: Taken,
    askers: Vec<Asker>,
    crosscheck: crosscheck::Handle,
    /// Visits that one peer may ask for in an hour.
    per_hour: u32,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    counts: HashMap<[u8; 32], Counts>,
    visits: HashMap<([u8; 32], Name), Visit>,
}

/// What a peer asked for in this hour and on this day.
#[derive(Clone, Copy, Default)]
struct Counts {
    hour: u64,
    questions: u32,
    visits: u32,
    day: u64,
    visits_of_day: u32,
}

/// `None` while it goes on; then the version that came of it, if it took place.
type Ended = watch::Receiver<Option<Option<u64>>>;

struct Visit {
    ended: Ended,
    since: Timestamp,
}

impl ForPeers {
    pub fn new(
        crawl: Handle,
        state: Arc<dyn State>,
        private: Blobs,
        clock: Clock,
        askers: Vec<Asker>,
        crosscheck: crosscheck::Handle,
        per_hour: u32,
    ) -> ForPeers {
        let (taken, open) = (Taken::new(private), Mutex::default());
        ForPeers { crawl, state, clock, taken, askers, crosscheck, per_hour, open }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest version of a name, published or about to be.
    async fn known(&self, name: &Name) -> Result<Option<u64>, store::Error> {
        let state = &*self.state;
        Ok(match name {
            Name::Domain(domain) => {
                let row: Option<DomainRow> = rows::find(state, domain.as_str().as_bytes()).await?;
                row.map(|row| row.version)
            }
            Name::Address(address) => {
                let row: Option<UserRow> = rows::find(state, &rows::user_key(address)).await?;
                row.map(|row| row.version)
            }
        })
    }

    /// The visit that this peer asked for, begun if it is not yet.
    fn visit(&self, key: &[u8; 32], name: &Name) -> Result<Ended, Observation> {
        let now = self.clock.now();
        let mut open = self.open();
        open.visits
            .retain(|_, visit| visit.ended.borrow().is_none() || now.since(visit.since) < DELIVERY);
        let (visits, place) = (open.visits.len(), (*key, name.clone()));
        if let Some(visit) = open.visits.get(&place) {
            return Ok(visit.ended.clone());
        }
        if visits >= VISITS {
            return Err(Observation::Busy);
        }
        if !open.counts.entry(*key).or_default().admits_visit(now, self.per_hour) {
            return Err(Observation::OverQuota);
        }
        let (sender, ended) = watch::channel(None);
        let (crawl, looked_at) = (self.crawl.clone(), name.clone());
        tokio::spawn(async move {
            let report = crawl.look(looked_at.clone(), Some(KEPT)).await;
            sender.send_replace(Some(report.ok().map(|report| version_in(&report, &looked_at))));
        });
        open.visits.insert(place, Visit { ended: ended.clone(), since: now });
        Ok(ended)
    }
}

/// The newest version of a name that a visit logged; 0: none.
pub fn version_in(report: &Report, name: &Name) -> u64 {
    let logged = report.entries.iter().filter(|entered| entered.name == *name);
    let versions = logged.filter_map(|entered| match entered.placed {
        Placed::Version(version) => Some(version),
        Placed::Coalesced => None,
    });
    versions.max().unwrap_or(0)
}

#[async_trait]
impl Observe for ForPeers {
    fn signers(&self, name: &Name) -> Signers {
        let is_domain = matches!(name, Name::Domain(_));
        let may = self.askers.iter().filter(|asker| is_domain || asker.share_addresses);
        Signers::of_peers(may.map(|asker| asker.key))
    }

    async fn remember(&self, id: &Hash, time: Timestamp) -> Result<bool, String> {
        self.taken.claim(id, time).await.map_err(|error| error.to_string())
    }

    async fn observe(&self, key: &[u8; 32], name: &Name, fresh: bool) -> Observation {
        let now = self.clock.now();
        if !self.open().counts.entry(*key).or_default().admits_question(now) {
            return Observation::OverQuota;
        }
        if !fresh {
            match self.known(name).await {
                // Of a head before it absence would be told.
                Ok(Some(version)) => return Observation::Known { version },
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a peer's question could not be looked up");
                    return Observation::Busy;
                }
            }
        }
        let mut ended = match self.visit(key, name) {
            Ok(ended) => ended,
            Err(refused) => return refused,
        };
        // Whoever asks for a visit has seen a difference: it is ours to see, too.
        if let Some(asker) = self.askers.iter().find(|asker| fresh && asker.key == *key) {
            self.crosscheck.suspect_too(&asker.origin, name.clone());
        }
        let waited = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
        let version = match waited {
            Err(_) => return Observation::Visiting,
            Ok(Err(_)) => None,
            Ok(Ok(ended)) => ended.flatten(),
        };
        // Told once: the next request is for another visit.
        self.open().visits.remove(&(*key, name.clone()));
        version.map_or(Observation::Busy, |version| Observation::Known { version })
    }
}

impl Counts {
    fn admits_question(&mut self, now: Timestamp) -> bool {
        self.turn(now);
        self.questions = self.questions.saturating_add(1);
        self.questions <= QUESTIONS_PER_HOUR
    }

    fn admits_visit(&mut self, now: Timestamp, per_hour: u32) -> bool {
        self.turn(now);
        let per_day = per_hour.saturating_mul(HOURS_OF_A_DAY);
        let admitted = self.visits < per_hour && self.visits_of_day < per_day;
        if admitted {
            self.visits += 1;
            self.visits_of_day += 1;
        }
        admitted
    }

    fn turn(&mut self, now: Timestamp) {
        let (hour, day) = (now.millis() / HOUR, now.millis() / (24 * HOUR));
        if self.hour != hour {
            (self.hour, self.questions, self.visits) = (hour, 0, 0);
        }
        if self.day != day {
            (self.day, self.visits_of_day) = (day, 0);
        }
    }
}

impl fmt::Debug for ForPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForPeers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_visits_are_counted_by_hour_and_day() {
        let mut counts = Counts::default();
        let at = |hour: u64| Timestamp::from_millis(1_000 * 24 * HOUR + hour * HOUR);
        let mut admitted = |hour| (0..5).filter(|_| counts.admits_visit(at(hour), 3)).count();
        let by_hour: Vec<usize> = (0..10).map(&mut admitted).collect();
        assert_eq!(by_hour, [3, 3, 3, 3, 3, 3, 3, 3, 0, 0]);
        assert_eq!(admitted(24), 3);
        let asked = (0..QUESTIONS_PER_HOUR + 5).filter(|_| counts.admits_question(at(24))).count();
        assert_eq!(asked, QUESTIONS_PER_HOUR as usize);
        assert!(counts.admits_question(at(25)));
    }
}
