//! The loop: requests, visits and their ends, one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::compare::{self, Comparisons, Task, Turn, Vantage};
use super::frontier::{self, Job, Pace, Search};
use super::handle::{Answer, Asked, Expiring, Handle, Request, What};
use super::report::{Entered, Outcome, Report};
use super::roster::{Found, Roster};
use super::sweep::Sweep;
use super::visit::Visitor;
use super::{Error, Metrics, Options, Placed, Rooms, Unplaced};
use crate::clock::Latest;
use crate::dime::{Address, Domain, Name, Timestamp, suffix};
use crate::errors::with_sources;
use crate::store::rows::{self, FrontierRow, SeenRow, Typed as _};
use crate::store::state::Batch;
use crate::store::{self, Applied};

/// A visit that takes longer is a slow one, and another may begin in its place:
/// hosts that accept and say nothing must not hold up all others.
const PATIENCE: Duration = Duration::from_secs(1);
/// Slow visits that others may begin beside; more of them take their places.
/// Each holds a connection, and memory for a reply.
const SLOW: usize = 256;
/// Slow visits below one registered domain, of which names are for nothing: a
/// small share. More of its domains stand back; those that begin before the last
/// of these turns slow come on top.
const SHARE: usize = 16;
/// A domain that stands back does so for this, milliseconds, and each further one
/// of its registered domain a step more.
const STAND_BACK: u64 = 1000;
const STEP: u64 = 50;
/// Domains that stand back in one round, before the loop looks at anything else.
const STANDING: usize = 256;
/// Requests waiting for the loop. Each is a name; more wait at the caller.
const REQUESTS: usize = 1024;
/// What the sweep found and the loop has not taken yet: pages.
const FOUND: usize = 4;
/// Names that strangers asked for, waiting for the loop; more are not heard.
const ASKED: usize = 256;
/// Reports kept for a listener that lags; older ones are lost to it.
const REPORTS: usize = 1024;
/// Longest sleep of the loop, so that a clock set by hand is noticed.
const NAP: Duration = Duration::from_millis(500);

/// The loop, not yet running.
pub struct Crawler {
    visitor: Arc<Visitor>,
    roster: Roster,
    requests: mpsc::Receiver<Request>,
    asked: mpsc::Receiver<Asked>,
    reports: broadcast::Sender<Arc<Report>>,
    /// Who waits for the visit that comes next, and for the one going on.
    waiting: HashMap<Domain, Waiting>,
    /// Mailboxes that are looked at for peers, and how long they are to be kept.
    for_peers: HashMap<Address, u64>,
    expiring: Arc<Expiring>,
    /// What is looked at from several places.
    comparing: Comparisons,
    /// Registered domains with domains that stand back: the last time given to one.
    turns: HashMap<Domain, Timestamp>,
    /// Tells this process's leases from another's.
    owner: String,
    latest: Latest,
}

/// A visit that is going on.
struct Running {
    job: Job,
    /// The domain that it counts for.
    registered: Domain,
    since: Instant,
}

impl Running {
    fn is_slow(&self) -> bool {
        self.since.elapsed() >= PATIENCE
    }
}

/// How many more visits may begin.
fn room(running: &HashMap<Id, Running>, concurrency: usize) -> usize {
    let slow = running.values().filter(|visit| visit.is_slow()).count();
    let in_place = running.len() - slow.min(SLOW);
    concurrency.saturating_sub(in_place)
}

/// Whether a registered domain has its share of slow visits.
fn is_full(running: &HashMap<Id, Running>, registered: &Domain) -> bool {
    let of_it = |visit: &&Running| visit.registered == *registered && visit.is_slow();
    running.len() >= SHARE && running.values().filter(of_it).count() >= SHARE
}

/// When a domain is due again after a visit of its own, and how often it has
/// failed since the last good one. It rests for as long as the visit took at
/// least: one that drips has a place of ours for half of the time at most.
fn after(pace: &Pace, job: &Job, report: &Report, now: Timestamp) -> (Timestamp, u32) {
    let domain = &job.domain;
    let (due, failures) = match report.later {
        // A visit that got somewhere and ran out of time goes on.
        _ if is_unfinished(report) => (now, 0),
        // Not its own failure: its turn comes when the host's does.
        Some(until) => (pace.after_rest(domain, until), job.failures),
        None if report.outcome.is_good() => (pace.after_success(domain, now, report.refresh), 0),
        None => {
            let failures = job.failures.saturating_add(1);
            (pace.after_failure(domain, now, failures), failures)
        }
    };
    (due.max(now.plus(report.took.as_millis() as u64)), failures)
}

/// Whether its time was up, and some mailbox was looked at.
fn is_unfinished(report: &Report) -> bool {
    report.outcome == Outcome::Deadline && !report.users.is_empty()
}

#[derive(Default)]
struct Waiting {
    next: Vec<Answer>,
    now: Vec<Answer>,
}

impl Crawler {
    /// `owner` names this process among those that share the state. It looks
    /// from one place, until told of [others](Crawler::with_vantages).
    pub fn new(
        rooms: Rooms,
        options: Options,
        metrics: Metrics,
        owner: impl Into<String>,
    ) -> (Crawler, Handle) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (asker, asked) = mpsc::channel(ASKED);
        let (reports, _) = broadcast::channel(REPORTS);
        let (rest, deadline) = (options.hosts.rest_limit, options.deadline.as_millis() as u64);
        let longest = options.pace.longest().saturating_add(rest.max(deadline));
        let roster = Roster::new(Arc::clone(&rooms.state), options.resident, longest);
        let expiring = roster.expiring();
        let crawler = Crawler {
            visitor: Arc::new(Visitor::new(rooms, options, metrics)),
            roster,
            requests,
            asked,
            reports: reports.clone(),
            waiting: HashMap::new(),
            for_peers: HashMap::new(),
            expiring: Arc::clone(&expiring),
            comparing: Comparisons::default(),
            turns: HashMap::new(),
            owner: owner.into(),
            latest: Latest::default(),
        };
        (crawler, Handle { requests: sender, asked: asker, reports, expiring })
    }

    /// Looks from these places too, at most [`VANTAGES`](super::VANTAGES); `main` is the name of
    /// the first, from which visits are made.
    pub fn with_vantages(
        mut self,
        main: impl Into<String>,
        others: impl IntoIterator<Item = Vantage>,
    ) -> Crawler {
        let Visitor { rooms, options, metrics, .. } = &*self.visitor;
        let visitor = Visitor::new(rooms.clone(), options.clone(), metrics.clone());
        self.visitor = Arc::new(visitor.with_vantages(main.into(), others));
        self
    }

    /// Goes round until told to stop. Visits going on then are dropped: what
    /// they had acknowledged is in the log, the rest is seen again.
    ///
    /// # Errors
    /// Only if the frontier cannot be read at the start. Everything later is a
    /// failed visit.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut first = self.roster.next(self.now()).await.map_err(Error::Frontier)?;
        let (sender, mut found) = mpsc::channel(FOUND);
        let sweep = Sweep {
            state: Arc::clone(&self.visitor.rooms.state),
            clock: self.visitor.rooms.clock.clone(),
            expiring: Arc::clone(&self.expiring),
            found: sender,
        };
        // Ends with the loop.
        let mut sweeping = JoinSet::new();
        sweeping.spawn(sweep.run());
        let mut visits = JoinSet::new();
        let mut farewells = JoinSet::new();
        let mut comparisons = JoinSet::new();
        let mut running: HashMap<Id, Running> = HashMap::new();
        loop {
            for session in self.visitor.options.dmtp.kept.expired() {
                farewells.spawn(session.quit());
            }
            while farewells.try_join_next().is_some() {}
            self.look_at_clock();
            // What a visit writes down under a wrong clock would blind us when it is
            // set right.
            let is_clock_right = !self.visitor.rooms.sink.doubts_clock();
            let mut room = room(&running, self.visitor.options.concurrency.max(1));
            let mut standing = 0;
            while is_clock_right && room > 0 && standing < STANDING {
                let next = match first.take() {
                    Some(job) => Some(job),
                    None => self.next().await,
                };
                let Some(job) = next else { break };
                let registered = suffix::registered(&job.domain);
                if is_full(&running, &registered) {
                    standing += 1;
                    let at = self.turn(registered);
                    self.put_off(&job, at).await;
                    continue;
                }
                room -= 1;
                if let Some(waiting) = self.waiting.get_mut(&job.domain) {
                    waiting.now.append(&mut waiting.next);
                }
                let visitor = Arc::clone(&self.visitor);
                let (visited, owner) = (job.clone(), self.owner.clone());
                let task =
                    visits.spawn(async move { leased_visit(&visitor, &visited, &owner).await });
                let since = Instant::now();
                running.insert(task.id(), Running { job, registered, since });
            }
            self.visitor.metrics.running.set(visits.len() as i64);
            self.visitor.metrics.domains.set(self.roster.domains() as i64);
            let replies = self.visitor.options.dmtp.replies.taken();
            self.visitor.metrics.replies.set(replies as i64);
            let nap = if is_clock_right { self.nap() } else { NAP };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = visits.join_next_with_id(), if !visits.is_empty() => {
                    let (id, visited) = match ended {
                        Ok((id, visited)) => (id, Some(visited)),
                        Err(error) => (error.id(), None),
                    };
                    if let Some(Running { job, .. }) = running.remove(&id) {
                        // A visit that panicked is our fault, and one failed visit.
                        let now = self.now();
                        let visited = visited.unwrap_or_else(|| {
                            Visited::ours(&job.domain, now, "the visit panicked".to_owned())
                        });
                        if let Some(task) = self.ended(job, visited).await {
                            self.compare(task, &mut comparisons);
                        }
                    }
                }
                Some(ended) = comparisons.join_next(), if !comparisons.is_empty() => {
                    // Of one that panicked the domain is not known: as if it went on.
                    let next = ended.map(|domain| self.comparing.ended(&domain));
                    for task in next.unwrap_or_default() {
                        self.begin(task, &mut comparisons);
                    }
                }
                Some(found) = found.recv() => self.found(found).await,
                Some(request) = self.requests.recv() => self.take(request).await,
                Some(asked) = self.asked.recv() => match asked {
                    Asked::ByStranger(name) => self.try_out(&name).await,
                    Asked::Reported(name) => _ = self.request(&name, 0).await,
                    Asked::ByOwner(names, written) => {
                        if self.register(&names).await {
                            let _ = written.send(());
                        }
                    }
                },
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.visitor.rooms.clock.now()
    }

    /// Lets go of times that lie ahead only because the clock was.
    fn look_at_clock(&mut self) {
        let now = self.now();
        let Some(back) = self.latest.set_back(now) else { return };
        tracing::warn!(back, "the clock was set back, milliseconds");
        self.turns.clear();
        let interval = self.visitor.options.pace.interval;
        self.roster.set_back(now, back, interval.saturating_add(interval / 10));
    }

    fn nap(&self) -> Duration {
        let until_due = self.roster.next_due().since(self.now()).max(1);
        Duration::from_millis(until_due).min(NAP)
    }

    async fn next(&mut self) -> Option<Job> {
        match self.roster.next(self.now()).await {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(%error, "who is due could not be read");
                None
            }
        }
    }

    async fn found(&mut self, found: Found) {
        if let Err(error) = self.roster.found(found, self.now()).await {
            tracing::warn!(%error, "names that lack rows could not be written");
        }
    }

    /// Reads what is written of a domain.
    async fn fetch(&mut self, domain: &Domain) -> Result<(), Error> {
        self.roster.fetch(domain, self.now()).await.map_err(Error::Frontier)
    }

    async fn take(&mut self, request: Request) {
        let now = self.now();
        let Request { name, reason, what, answer } = request;
        let domain = name.domain().clone();
        let name = match self.is_forgotten(&name).await {
            true => Name::Domain(domain.clone()),
            false => name,
        };
        let taken = match self.fetch(&domain).await {
            Ok(()) => self.taken(&name, reason, what, answer.is_some(), now).await,
            Err(error) => Err(error),
        };
        match (answer, taken) {
            (Some(answer), Ok(())) => {
                self.waiting.entry(domain.clone()).or_default().next.push(answer);
            }
            (Some(answer), Err(refused)) => drop(answer.send(Err(refused))),
            (None, Ok(())) => {}
            (None, Err(error)) => {
                tracing::warn!(%domain, error = with_sources(&error), "a request was not taken");
            }
        }
        self.roster.release(&domain, now);
    }

    async fn taken(
        &mut self,
        name: &Name,
        reason: &'static str,
        what: What,
        is_waited_for: bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let domain = name.domain();
        match what {
            What::Watch => {
                if self.roster.frontier.add(name, now) {
                    self.roster.remember(name, now, 0, Some(reason)).await;
                }
                self.keep(name).await;
                if is_waited_for {
                    self.roster.frontier.urge(domain, now);
                }
                Ok(())
            }
            What::Look { keep } => {
                if !self.roster.frontier.look(name, now) {
                    return Err(Error::Busy);
                }
                if let (Name::Address(address), Some(keep)) = (name, keep) {
                    self.look_for_peer(address, keep, now).await;
                }
                Ok(())
            }
            What::Explore if self.roster.frontier.is_watched(name) => Err(Error::Watched),
            What::Explore => {
                self.roster.frontier.explore(domain, now).then_some(()).ok_or(Error::Busy)
            }
        }
    }

    /// One that is watched for peers only is so for longer now.
    async fn look_for_peer(&mut self, address: &Address, keep: u64, now: Timestamp) {
        let name = Name::Address(address.clone());
        if !self.roster.frontier.is_watched(&name) {
            let is_wanted = self.roster.frontier.tries(address) > 0;
            if !is_wanted && self.for_peers.len() < frontier::LOOKS {
                self.for_peers.insert(address.clone(), keep);
                // Before the log may have it, which the next start would find there.
                self.roster.note(address, now.plus(keep), now).await;
            }
        } else if self.roster.frontier.expiry(address).is_some() {
            self.expire(address, Some(now.plus(keep)));
            self.roster.remember(&name, now, 0, None).await;
        }
    }

    fn expire(&mut self, address: &Address, until: Option<Timestamp>) -> bool {
        let is_news = self.roster.frontier.expire(address, until);
        self.expiring.set(address, self.roster.frontier.expiry(address).is_some());
        is_news
    }

    /// Somebody here asks for it: it is watched without end.
    async fn keep(&mut self, name: &Name) {
        let Name::Address(address) = name else { return };
        self.for_peers.remove(address);
        if self.expire(address, None) {
            self.roster.remember(name, self.now(), 0, None).await;
        }
    }

    /// All of them, or their owner is to ask again.
    async fn register(&mut self, names: &[Name]) -> bool {
        let mut all = true;
        for name in names {
            all &= self.request(name, frontier::TRIES).await;
        }
        all
    }

    /// Has a name visited at once; one that is not found then is looked for in so
    /// many visits. Says whether all that is needed for that is written down.
    async fn request(&mut self, name: &Name, tries: u32) -> bool {
        let now = self.now();
        if let Err(error) = self.fetch(name.domain()).await {
            tracing::warn!(domain = %name.domain(), error = with_sources(&error), "not requested");
            return false;
        }
        self.keep(name).await;
        let is_written = match name {
            Name::Address(address) if tries > 0 => self.want(address, tries, now).await,
            _ => true,
        };
        self.roster.frontier.request(name, now);
        self.roster.release(name.domain(), now);
        is_written
    }

    /// Says whether it is written down that the mailbox is looked for, if it is to be.
    async fn want(&mut self, address: &Address, tries: u32, now: Timestamp) -> bool {
        match self.visitor.is_forgotten(address).await {
            // Nothing is written down of it.
            Ok(true) => true,
            Ok(false) => {
                let name = Name::Address(address.clone());
                if self.roster.frontier.want(address, tries) {
                    let reason = Some("asked for by its owner");
                    return self.roster.remember(&name, now, 0, reason).await;
                }
                self.roster.frontier.is_watched(&name)
            }
            Err(_) => false,
        }
    }

    async fn try_out(&mut self, name: &Name) {
        if let Err(error) = self.fetch(name.domain()).await {
            return tracing::warn!(domain = %name.domain(), error = with_sources(&error), "not tried");
        }
        self.keep(name).await;
        let most = self.visitor.options.ask_delay;
        let mut random = [0; 8];
        if most > 0 && getrandom::fill(&mut random).is_err() {
            return;
        }
        let delay = u64::from_be_bytes(random) % most.saturating_add(1);
        let now = self.now();
        self.roster.frontier.try_out(name, now.plus(delay));
        self.roster.release(name.domain(), now);
    }

    /// If that cannot be said, it is asked again before the visit.
    async fn is_forgotten(&self, name: &Name) -> bool {
        let Name::Address(address) = name else { return false };
        self.visitor.is_forgotten(address).await.unwrap_or(false)
    }

    /// Looks at a domain from the other vantages, if there are any, when there is
    /// room.
    fn compare(&mut self, task: Task, comparisons: &mut JoinSet<Domain>) {
        if self.visitor.others.is_empty() {
            return;
        }
        match self.comparing.add(task) {
            Turn::Now(task) => self.begin(task, comparisons),
            Turn::Later => {}
            Turn::Never => {
                self.visitor.metrics.comparisons.with_label_values(&["skipped"]).inc();
            }
        }
    }

    fn begin(&self, task: Task, comparisons: &mut JoinSet<Domain>) {
        let visitor = Arc::clone(&self.visitor);
        comparisons.spawn(async move {
            visitor.compare(&task).await;
            task.domain
        });
    }

    /// A time of its own for a domain that stands back, after all that were given
    /// below its registered domain.
    fn turn(&mut self, registered: Domain) -> Timestamp {
        let now = self.now();
        self.turns.retain(|_, last| *last > now);
        let last = self.turns.entry(registered).or_default();
        *last = (*last).max(now.plus(STAND_BACK)).plus(STEP);
        *last
    }

    /// The visit does not take place now: it is still due, and whoever waits for
    /// it goes on waiting.
    async fn put_off(&mut self, job: &Job, at: Timestamp) {
        self.roster.frontier.postpone(&job.domain, at);
        self.lapse(job).await;
        if let Some(waiting) = self.waiting.get_mut(&job.domain) {
            waiting.next.append(&mut waiting.now);
            self.roster.frontier.urge(&job.domain, at);
        }
    }

    /// The host had its hands full with us.
    async fn postponed(&mut self, job: &Job, at: Timestamp) {
        self.put_off(job, at).await;
        if !job.partial {
            self.roster.remember(&Name::Domain(job.domain.clone()), at, job.failures, None).await;
        }
    }

    /// Forgets when mailboxes were seen that are watched no longer.
    async fn lapse(&self, job: &Job) {
        for address in &job.lapsed {
            self.expiring.set(address, false);
            // The row stays, or the sweep would watch what the log has.
            let mut batch = Batch::new();
            batch.delete(SeenRow::TABLE, address.as_str());
            if let Err(error) = self.visitor.rooms.state.apply(batch).await {
                tracing::warn!(%error, "a name could not be forgotten");
            }
        }
    }

    /// Returns what is to be looked at from elsewhere too.
    async fn ended(&mut self, job: Job, visited: Visited) -> Option<Task> {
        let now = self.now();
        let Visited { mut report, elsewhere_until } = visited;
        let pace = self.visitor.options.pace;
        if let (Outcome::HostBusy, Some(at)) = (report.outcome, report.later) {
            self.visitor.metrics.count(&report);
            self.postponed(&job, at).await;
            let is_news = |entered: &Entered| matches!(entered.placed, Placed::Version(_));
            if !report.entries.iter().any(is_news) {
                return None;
            }
            // DNS had news, which is told whatever the host does.
            report.tell();
            let task = compare::due(&job, &report, self.visitor.options.compare_every);
            let _ = self.reports.send(Arc::new(report));
            return task;
        }
        let last = report.users.last().filter(|_| is_unfinished(&report));
        let reached = last.map(|(user, _)| user.clone());
        self.roster.frontier.reached(&job.domain, reached);
        let (due, failures) = match elsewhere_until {
            Some(until) => (until, job.failures),
            None => after(&pace, &job, &report, now),
        };
        let failures = if job.partial { job.failures } else { failures };
        let due = self.roster.frontier.done(&job.domain, now, due, failures);
        let mut settled = self.roster.frontier.settle(&job.domain, |name| report.has(name));
        let wanted = job.wanted.iter().filter(|_| elsewhere_until.is_none());
        let mut sought = Vec::new();
        for address in wanted {
            let search = self.roster.frontier.weigh(address, report.search(address));
            let names = match search {
                Search::Found => &mut settled.kept,
                Search::Over => &mut settled.ended,
                Search::GoesOn => &mut sought,
            };
            names.push(Name::Address(address.clone()));
        }
        for name in &settled.kept {
            let Name::Address(address) = name else { continue };
            if let Some(keep) = self.for_peers.remove(address) {
                self.expire(address, Some(now.plus(keep)));
            } else if self.roster.frontier.expiry(address).is_some() {
                self.expiring.set(address, true);
            }
        }
        for name in settled.ended.iter().filter_map(|name| name.address()) {
            self.for_peers.remove(name);
        }
        self.lapse(&job).await;
        let seen = self.visitor.still_known(std::mem::take(&mut report.seen)).await;
        // The rows of a domain that another process visits are that one's.
        if !settled.dropped && elsewhere_until.is_none() {
            let name = Name::Domain(job.domain.clone());
            self.roster.visited(&name, due, failures, &seen).await;
        } else if let Err(error) = self.roster.saw(&seen).await {
            tracing::warn!(%error, "what was seen could not be written");
        }
        if elsewhere_until.is_none() {
            self.forget(settled.ended).await;
        }
        for name in settled.kept.iter().chain(&sought) {
            self.roster.remember(name, due, failures, Some("asked for")).await;
        }
        self.visitor.metrics.count(&report);
        report.tell();
        let report = Arc::new(report);
        if let Some(waiting) = self.waiting.get_mut(&job.domain) {
            // Nobody visits a domain again that is not there.
            let next = if settled.dropped { std::mem::take(&mut waiting.next) } else { Vec::new() };
            for answer in waiting.now.drain(..).chain(next) {
                let _ = answer.send(Ok(Arc::clone(&report)));
            }
            if waiting.next.is_empty() {
                self.waiting.remove(&job.domain);
            }
        }
        let task = compare::due(&job, &report, self.visitor.options.compare_every);
        let _ = self.reports.send(report);
        self.roster.release(&job.domain, now);
        task.filter(|_| !settled.dropped && elsewhere_until.is_none())
    }

    /// Removes what was noted of names that are not watched after all.
    async fn forget(&mut self, names: Vec<Name>) {
        let mut unlogged = Vec::new();
        for name in names {
            // What lapsed before is in the log, and its row says that it lapsed.
            let is_logged = match name.address() {
                Some(address) => self.visitor.is_logged(address).await,
                None => false,
            };
            if !is_logged {
                unlogged.push(name);
            }
        }
        if let Err(error) = self.roster.forget(&unlogged, self.now()).await {
            tracing::warn!(%error, "names on trial could not be forgotten");
        }
    }
}

/// A visit that ended, or did not take place.
struct Visited {
    report: Report,
    /// Set if another process has the domain.
    elsewhere_until: Option<Timestamp>,
}

impl Visited {
    fn ours(domain: &Domain, now: Timestamp, detail: String) -> Visited {
        let report =
            Report { outcome: Outcome::Ours, detail: Some(detail), ..Report::new(domain, now) };
        Visited { report, elsewhere_until: None }
    }
}

/// Takes the lease, visits within the deadline. The lease lasts as long as the
/// deadline, so nobody else visits the domain meanwhile.
async fn leased_visit(visitor: &Visitor, job: &Job, owner: &str) -> Visited {
    let now = visitor.rooms.clock.now();
    match lease(visitor, job, owner, now).await {
        Ok(None) => {}
        Ok(Some(until)) => {
            let visited = Visited::ours(&job.domain, now, "another process visits it".to_owned());
            return Visited { elsewhere_until: Some(until), ..visited };
        }
        Err(error) => return Visited::ours(&job.domain, now, with_sources(&error)),
    }
    let mut report = Report::new(&job.domain, now);
    let began = Instant::now();
    let visit = visitor.visit(job, &mut report);
    match tokio::time::timeout(visitor.options.deadline, visit).await {
        Ok(Ok(())) => {}
        Ok(Err(Error::Log { source: Unplaced::MovedOn, .. })) => {
            (report.outcome, report.refresh) = (Outcome::Overtaken, report.started);
        }
        Ok(Err(error)) => {
            report.outcome = Outcome::Ours;
            report.detail = Some(with_sources(&error));
        }
        Err(_) => report.outcome = Outcome::Deadline,
    }
    report.ended = visitor.rooms.clock.now();
    let by_clock = Duration::from_millis(report.ended.since(report.started));
    report.took = began.elapsed().min(by_clock);
    Visited { report, elsewhere_until: None }
}

/// Takes a domain's lease; `Some` says until when somebody else has it. Where
/// there can be nobody else, there is nothing to take.
async fn lease(
    visitor: &Visitor,
    job: &Job,
    owner: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, store::Error> {
    let state = &*visitor.rooms.state;
    if !state.is_shared() {
        return Ok(None);
    }
    let key = job.domain.as_str().as_bytes();
    let stored = state.get(FrontierRow::TABLE, key).await?;
    let known: Option<FrontierRow> = stored.as_deref().map(rows::decode).transpose()?;
    let due = known.as_ref().map_or(now, |row| row.due);
    if let Some(row) = known.as_ref().filter(|row| row.leased_by != owner && row.leased_until > now)
    {
        return Ok(Some(row.leased_until));
    }
    let row = FrontierRow {
        name: Name::Domain(job.domain.clone()),
        due,
        leased_until: now.plus(visitor.options.deadline.as_millis() as u64),
        leased_by: owner.to_owned(),
        failures: job.failures,
        reason: known.as_ref().map(|row| row.reason.clone()).unwrap_or_default(),
        keep_until: None,
        tries: 0,
    };
    let mut batch = Batch::new();
    batch.expect(FrontierRow::TABLE, key, stored);
    batch.frontier(known.as_ref(), Some(&row));
    Ok(match state.apply(batch).await? {
        Applied::Applied => None,
        Applied::Conflict => Some(row.leased_until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_rests_as_long_as_its_visit_took() {
        let pace = Pace { interval: 1000, back_off: 1000, back_off_limit: 8000 };
        let domain: Domain = "a.example".parse().unwrap();
        let (users, lapsed, wanted) = Default::default();
        let (partial, insist) = (false, Default::default());
        let job = Job { domain, users, lapsed, wanted, failures: 2, partial, insist };
        let start = Timestamp::from_millis(1_000_000);
        let rests = |outcome, users: usize, took: u64| {
            // The clock may be set while it goes on.
            let (ended, took) = (start.plus(9 * 86_400_000), Duration::from_millis(took));
            let users = (0..users).map(|n| format!("u{n}@a.example").parse().unwrap());
            let users = users.map(|user| (user, Outcome::Confirmed)).collect();
            let report = Report { outcome, users, ended, took, ..Report::new(&job.domain, start) };
            let (due, failures) = after(&pace, &job, &report, ended);
            (due.since(ended), failures)
        };
        const LONG: u64 = 600_000;
        assert_eq!(rests(Outcome::Deadline, 20, LONG), (LONG, 0));
        assert_eq!(rests(Outcome::Deadline, 20, 0), (0, 0));
        // Where nothing was done it is a failure.
        assert_eq!(rests(Outcome::Deadline, 0, LONG), (LONG, 3));
        assert!((4000..=5000).contains(&rests(Outcome::Deadline, 0, 500).0));
        // One that comes to its end just in time has gained nothing.
        assert_eq!(rests(Outcome::Confirmed, 20, LONG), (LONG, 0));
        assert_eq!(rests(Outcome::Dx("slow"), 0, LONG), (LONG, 3));
    }
}
