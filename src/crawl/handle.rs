//! How others ask the crawler for things.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Error, Report};
use crate::dime::{Address, Domain, Name};

/// Asks the crawler for things. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) reports: broadcast::Sender<Arc<Report>>,
    pub(super) expiring: Arc<Expiring>,
}

/// Mailboxes that are watched only because peers asked for them.
#[derive(Debug, Default)]
pub(super) struct Expiring(Mutex<HashSet<Address>>);

impl Expiring {
    pub(super) fn set(&self, address: &Address, expires: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match expires {
            true => all.insert(address.clone()),
            false => all.remove(address),
        };
    }

    pub(super) fn contains(&self, address: &Address) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(address)
    }
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: Name,
    pub(super) reason: &'static str,
    pub(super) what: What,
    /// Answered when the visit ended; dropped if there is none.
    pub(super) answer: Option<Answer>,
}

/// Whoever waits for a visit.
pub(super) type Answer = oneshot::Sender<Result<Arc<Report>, Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// From now on, and at once if somebody waits.
    Watch,
    /// This name alone, at once. If it is not watched and is there, for so long,
    /// milliseconds; `None`: without end.
    Look { keep: Option<u64> },
    /// When nothing else is to do; watched if it has a record.
    Explore,
}

/// What reaches the crawler over the mirror's faces.
#[derive(Debug)]
pub(super) enum Asked {
    ByStranger(Name),
    /// By a client that was shown something else.
    Reported(Name),
    /// Answered when it is written down.
    ByOwner(Vec<Name>, oneshot::Sender<()>),
}

impl Handle {
    /// Watches a name from now on. `reason` is a word that is kept with it.
    pub async fn watch(&self, name: Name, reason: &'static str) -> Result<(), Error> {
        let request = Request { name, reason, what: What::Watch, answer: None };
        self.requests.send(request).await.map_err(|_| Error::Stopped)
    }

    /// Visits a name's domain now, and watches it from then on. A visit that is
    /// going on already is not counted: another follows it.
    pub async fn visit(&self, name: Name, reason: &'static str) -> Result<Arc<Report>, Error> {
        self.ask_for(name, reason, What::Watch).await
    }

    /// Looks at one name at once: its domain, and of its mailboxes no other. One
    /// that is not watched yet is from then on if it is there: with `keep` for so
    /// long, milliseconds, after the last such call.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait already.
    pub async fn look(&self, name: Name, keep: Option<u64>) -> Result<Arc<Report>, Error> {
        self.ask_for(name, "asked for by a peer", What::Look { keep }).await
    }

    /// Looks at a domain that a peer's log names, when nothing else is to do.
    /// One that has a record is watched from then on.
    ///
    /// # Errors
    /// [`Error::Watched`] if it is watched already, [`Error::Busy`] if too many
    /// wait.
    pub async fn explore(&self, domain: Domain) -> Result<Arc<Report>, Error> {
        self.ask_for(Name::Domain(domain), "in a peer's log", What::Explore).await
    }

    async fn ask_for(
        &self,
        name: Name,
        reason: &'static str,
        what: What,
    ) -> Result<Arc<Report>, Error> {
        let (answer, report) = oneshot::channel();
        let request = Request { name, reason, what, answer: Some(answer) };
        self.requests.send(request).await.map_err(|_| Error::Stopped)?;
        report.await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether a mailbox is watched only because peers asked for it; whoever
    /// [asks](Handle::ask) for it here ends that.
    pub fn is_for_peers(&self, address: &Address) -> bool {
        self.expiring.contains(address)
    }

    /// Looks at a name that somebody looked up in vain, after a while and once:
    /// it is watched only if there is such a name. Says whether there was room;
    /// returns at once.
    pub fn ask(&self, name: Name) -> bool {
        self.asked.try_send(Asked::ByStranger(name)).is_ok()
    }

    /// Visits names at once, for their owner, who has shown to be it: of each
    /// domain once a minute. Those that are not watched yet are from then on if
    /// they are there; where that cannot be said they are looked for again, after
    /// a restart too, [so often](super::frontier::TRIES). Says whether there was
    /// room and it is written down.
    pub async fn request(&self, names: Vec<Name>) -> bool {
        let (answer, written) = oneshot::channel();
        let sent = self.asked.try_send(Asked::ByOwner(names, answer));
        sent.is_ok() && written.await.is_ok()
    }

    /// The same once, for a client that was shown something else; it may be
    /// anybody. Says whether there was room; returns at once.
    pub fn report(&self, name: Name) -> bool {
        self.asked.try_send(Asked::Reported(name)).is_ok()
    }

    /// The report of every visit from now on. Whoever lags loses the oldest.
    pub fn reports(&self) -> broadcast::Receiver<Arc<Report>> {
        self.reports.subscribe()
    }
}
