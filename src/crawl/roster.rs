//! The frontier as it is kept: its rows in `State`, and of those only what is due
//! soon, or asked for, in memory. A start reads the first of a million names and
//! begins; what is not in memory is read when its turn comes.
//!
//! `Table::Due` has the order. What is due up to the `horizon` is in memory. The
//! next page of it is read ahead, beside the visits, and taken in when time gets
//! there. A domain is let go of after a visit if its row says all there is to say
//! about it, and too many are in memory.
//!
//! The log may know names that have no row: the process was killed between the
//! two, or the index was made again. [`super::sweep`] finds them beside the
//! visits; until it has, whoever is asked for is read from the log's index too.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use tokio::task::{JoinError, JoinSet};

use super::frontier::{Frontier, Job};
use super::handle::Expiring;
use super::quota;
use crate::dime::{Address, Domain, Name, Timestamp};
use crate::store::rows::{self, DomainRow, FrontierRow, QuotaRow, SeenRow, Typed as _, UserRow};
use crate::store::state::{Batch, MAX_SCAN, Range, Table};
use crate::store::{Error, State};

/// Due domains of a page: at first few, for which a start waits, then twice as many
/// each time.
const FIRST: usize = 16;
const WINDOW: usize = 256;
/// Of those, read at the same time.
const READS: usize = 16;
/// Rows of a domain that are asked for first: few have more, and a short scan is
/// made at once.
const FEW: usize = 64;
/// What is due within this time is read too, milliseconds.
const AHEAD: u64 = 10_000;
/// After a failed read the next one waits, milliseconds.
const PAUSE: u64 = 1000;
/// Why a name has a row that only the log knew.
const LOGGED: &str = "in the log";

/// Who is due, in memory and in `State`.
pub struct Roster {
    state: Arc<dyn State>,
    /// What is in memory.
    pub(super) frontier: Frontier,
    /// Most domains in memory that need not be.
    resident: usize,
    /// All that is due until then is in memory.
    horizon: Timestamp,
    /// Where in `Table::Due` the rest begins.
    cursor: Vec<u8>,
    /// The page after that, on its way.
    ahead: Option<Ahead>,
    /// Turns of the next page, at most.
    window: usize,
    /// No page is read before then, since reading failed.
    retry_at: Timestamp,
    /// No turn is further off, milliseconds; of a host that is busy for so long it
    /// may be, and comes earlier then after a start.
    longest: u64,
    /// Turns that are further off than so many milliseconds are to be looked for.
    astray: Option<u64>,
    /// In memory for what no row says, until then; the earliest first.
    lingering: VecDeque<(Timestamp, Domain)>,
    /// Every name of the log has a row.
    swept: bool,
    /// Domain rows: counted by the sweep as far as `counted`, and kept up since.
    domains: u64,
    counted: Option<Vec<u8>>,
    expiring: Arc<Expiring>,
}

/// What is written of a domain.
#[derive(Debug, Default)]
pub(super) struct Written {
    row: Option<FrontierRow>,
    mailboxes: Vec<(Address, Timestamp, Option<Timestamp>)>,
    /// Watched for a time that is over.
    lapsed: Vec<Address>,
    /// Looked for, how many more visits may fail to find them, and until when they
    /// are watched then.
    wanted: Vec<(Address, u32, Option<Timestamp>)>,
    /// Names that the log has and that have no row, or one that does not know it; and
    /// until when they are watched.
    missing: Vec<(Name, Option<Timestamp>)>,
}

impl Written {
    pub async fn read(
        state: &dyn State,
        domain: &Domain,
        now: Timestamp,
        with_log: bool,
    ) -> Result<Written, Error> {
        let mut written = Written::default();
        let (mut range, mut limit) = (rows::frontier_of(domain), FEW);
        loop {
            let page: Vec<FrontierRow> = rows::scan(state, range.clone(), limit).await?;
            let last = page.last().filter(|_| page.len() == limit).map(|row| row.key());
            page.into_iter().for_each(|row| written.take(row, now));
            let Some(last) = last else { break };
            (range, limit) = (range.after(&last), MAX_SCAN);
        }
        if with_log {
            written.compare(state, domain).await?;
        }
        Ok(written)
    }

    fn take(&mut self, row: FrontierRow, now: Timestamp) {
        match &row.name {
            Name::Domain(_) => self.row = Some(row),
            Name::Address(address) if row.tries > 0 => {
                self.wanted.push((address.clone(), row.tries, row.keep_until));
            }
            Name::Address(address) if row.keep_until.is_some_and(|until| until <= now) => {
                self.lapsed.push(address.clone());
            }
            Name::Address(address) => {
                self.mailboxes.push((address.clone(), row.due, row.keep_until));
            }
        }
    }

    /// Their keys say enough.
    async fn compare(&mut self, state: &dyn State, domain: &Domain) -> Result<(), Error> {
        let is_logged = state.get(DomainRow::TABLE, domain.as_str().as_bytes()).await?.is_some();
        let mut missing = Vec::new();
        {
            let known: HashSet<&Address> =
                self.mailboxes.iter().map(|(address, ..)| address).chain(&self.lapsed).collect();
            let (mut range, mut limit) = (rows::users_of(domain), FEW);
            loop {
                let page = state.scan(UserRow::TABLE, range.clone(), limit).await?;
                let users = page.iter().filter_map(|(key, _)| rows::user_of(key));
                for user in users.filter(|user| !known.contains(user)) {
                    let wanted = self.wanted.iter().find(|(wanted, ..)| *wanted == user);
                    let until = wanted.and_then(|(.., until)| *until);
                    missing.push((Name::Address(user), until));
                }
                match page.last() {
                    Some((last, _)) if page.len() == limit => {
                        (range, limit) = (range.after(last), MAX_SCAN);
                    }
                    _ => break,
                }
            }
        }
        let is_named = is_logged || !self.mailboxes.is_empty() || !missing.is_empty();
        if self.row.is_none() && is_named {
            missing.push((Name::Domain(domain.clone()), None));
        }
        self.missing = missing;
        Ok(())
    }

    /// When the domain is due, if it is watched.
    fn due(&self) -> Option<Timestamp> {
        let of_mailboxes = || self.mailboxes.iter().map(|(_, due, _)| *due).min();
        self.row.as_ref().map(|row| row.due).or_else(of_mailboxes)
    }
}

/// A page of what is due, being read.
struct Ahead {
    /// The latest that `horizon` may be once this is taken in, and that `cursor`
    /// may be then; what they are, once the page's turns are known.
    horizon: Timestamp,
    cursor: Vec<u8>,
    /// One task at a time; it ends with this.
    reading: JoinSet<Result<Step, Error>>,
    /// What it comes to.
    read: Option<Vec<Due>>,
    /// Written since the reading began: what was read of them is old.
    written: HashSet<Domain>,
}

/// What a task has read.
enum Step {
    /// What is in `Table::Due`, and whether more is.
    Turns(Vec<(Timestamp, Domain)>, Option<Rest>),
    /// The domains among them that were not in memory.
    Domains(Vec<Due>),
}

/// A domain as `Table::Due` and its own rows have it.
struct Due {
    at: Timestamp,
    domain: Domain,
    written: Written,
}

/// When the last turn of a full page is, if that can be read, and where the next
/// page begins.
type Rest = (Option<Timestamp>, Vec<u8>);

async fn read_turns(state: &dyn State, range: Range, window: usize) -> Result<Step, Error> {
    let page = state.scan(Table::Due, range, window).await?;
    let turns: Vec<_> = page.iter().filter_map(|(key, _)| rows::due_of(key)).collect();
    let last = page.last().filter(|_| page.len() == window);
    let rest =
        last.map(|(key, _)| (rows::due_of(key).map(|(due, _)| due), Range::all().after(key).start));
    Ok(Step::Turns(turns, rest))
}

async fn read_all(
    state: Arc<dyn State>,
    due: Vec<(Timestamp, Domain)>,
    now: Timestamp,
) -> Result<Step, Error> {
    let state = &*state;
    let reads = due.into_iter().map(|(at, domain)| async move {
        let written = Written::read(state, &domain, now, false).await?;
        // A short read is made at once, and others want their turn too.
        tokio::task::yield_now().await;
        Ok(Due { at, domain, written })
    });
    let read: Vec<_> = stream::iter(reads).buffered(READS).collect().await;
    Ok(Step::Domains(read.into_iter().collect::<Result<_, _>>()?))
}

impl Roster {
    /// Nothing is read yet. `resident`: most domains in memory that need not be.
    pub fn new(state: Arc<dyn State>, resident: usize, longest: u64) -> Roster {
        Roster {
            longest,
            astray: Some(longest),
            state,
            frontier: Frontier::new(),
            resident,
            horizon: Timestamp::default(),
            cursor: Vec::new(),
            window: FIRST,
            ahead: None,
            retry_at: Timestamp::default(),
            lingering: VecDeque::new(),
            swept: false,
            domains: 0,
            counted: None,
            expiring: Arc::default(),
        }
    }

    pub(super) fn expiring(&self) -> Arc<Expiring> {
        Arc::clone(&self.expiring)
    }

    /// Domains that are watched, as far as they are counted: all, a while after
    /// the start.
    pub fn domains(&self) -> u64 {
        self.domains.max(self.frontier.len() as u64)
    }

    /// The domain whose turn it is, as [`Frontier::next`].
    ///
    /// # Errors
    /// What is due could not be read: it is tried again a second later, and what
    /// is in memory has its turn meanwhile.
    pub async fn next(&mut self, now: Timestamp) -> Result<Option<Job>, Error> {
        if let Some(most) = self.astray.filter(|_| self.retry_at <= now) {
            if let Err(error) = self.straighten(now, most).await {
                self.retry_at = now.plus(PAUSE);
                return Err(error);
            }
            self.astray = None;
        }
        while self.horizon < now && self.retry_at <= now && !self.frontier.is_due(now, self.horizon)
        {
            if let Err(error) = self.read_on(now).await {
                self.retry_at = now.plus(PAUSE);
                return Err(error);
            }
        }
        if self.retry_at <= now
            && let Err(error) = self.read_beside(now)
        {
            self.retry_at = now.plus(PAUSE);
            return Err(error);
        }
        Ok(self.frontier.next(now))
    }

    /// The clock was set back by so much. `usual` is how far off turns are that are
    /// not put off for failures: those that are further off may come too early now.
    pub(super) fn set_back(&mut self, now: Timestamp, back: u64, usual: u64) {
        self.frontier.set_back(now, back);
        for (until, _) in &mut self.lingering {
            *until = now;
        }
        // What was read as far as a time ahead is read again.
        (self.horizon, self.retry_at) = Default::default();
        (self.cursor, self.ahead) = Default::default();
        self.astray = Some(usual.min(self.longest));
    }

    /// Turns that are too far off are from a clock that was ahead: they are due now.
    async fn straighten(&mut self, now: Timestamp, most: u64) -> Result<(), Error> {
        let mut range =
            Range { start: now.plus(most).plus(1).millis().to_be_bytes().to_vec(), end: None };
        loop {
            let page = self.state.scan(Table::Due, range.clone(), WINDOW).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            range = range.after(last);
            let mut batch = Batch::new();
            for (due, domain) in page.iter().filter_map(|(key, _)| rows::due_of(key)) {
                // What is in memory has its turn, and is written after it.
                if self.frontier.contains(&domain) {
                    continue;
                }
                match self.row(&Name::Domain(domain.clone())).await? {
                    Some(row) if row.due == due => {
                        let nearer = FrontierRow { due: now, ..row.clone() };
                        batch.frontier(Some(&row), Some(&nearer));
                    }
                    _ => batch.delete(Table::Due, rows::due_key(due, &domain)),
                }
            }
            if !batch.is_empty() {
                let _ = self.state.apply(batch).await?;
            }
        }
    }

    /// A visit ended and nothing but the time of the next one is new.
    pub async fn done(&mut self, domain: &Domain, now: Timestamp, due: Timestamp, failures: u32) {
        let due = self.frontier.done(domain, now, due, failures);
        self.remember(&Name::Domain(domain.clone()), due, failures, None).await;
        self.release(domain, now);
    }

    /// When there may be somebody to visit.
    pub fn next_due(&self) -> Timestamp {
        let read_on = self.horizon.max(self.retry_at).plus(1);
        self.frontier.next_due().map_or(read_on, |due| due.min(read_on))
    }

    /// Reads the next page of what is due, as far as that takes no waiting.
    fn read_beside(&mut self, now: Timestamp) -> Result<(), Error> {
        match &mut self.ahead {
            Some(ahead) => match ahead.reading.try_join_next() {
                Some(step) => self.go_on(step, now),
                None => Ok(()),
            },
            None => {
                if self.horizon < now.plus(AHEAD / 2) {
                    self.read_ahead(now);
                }
                Ok(())
            }
        }
    }

    /// Begins to read the next page of what is due.
    fn read_ahead(&mut self, now: Timestamp) {
        let horizon = now.plus(AHEAD);
        let cursor = horizon.plus(1).millis().to_be_bytes().to_vec();
        let range = Range { start: self.cursor.clone(), end: Some(cursor.clone()) };
        let (state, window) = (Arc::clone(&self.state), self.window);
        let mut reading = JoinSet::new();
        reading.spawn(async move { read_turns(&*state, range, window).await });
        let written = HashSet::new();
        self.ahead = Some(Ahead { horizon, cursor, reading, read: None, written });
    }

    /// Takes what was read of the next page, and begins to read what is missing.
    /// After a failure the page is read anew.
    fn go_on(
        &mut self,
        step: Result<Result<Step, Error>, JoinError>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(mut ahead) = self.ahead.take() else { return Ok(()) };
        match step.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))? {
            Step::Turns(mut due, rest) => {
                due.retain(|(_, domain)| !self.frontier.contains(domain));
                if let Some((last, cursor)) = rest {
                    (ahead.horizon, ahead.cursor) = (last.unwrap_or(self.horizon), cursor);
                    self.window = WINDOW.min(2 * self.window);
                }
                ahead.reading.spawn(read_all(Arc::clone(&self.state), due, now));
            }
            Step::Domains(read) => ahead.read = Some(read),
        }
        self.ahead = Some(ahead);
        Ok(())
    }

    /// Takes in the next page of what is due.
    async fn read_on(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.ahead.is_none() {
            self.read_ahead(now);
        }
        while let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.read.is_none()) {
            match ahead.reading.join_next().await {
                Some(step) => self.go_on(step, now)?,
                None => self.ahead = None,
            }
        }
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        for Due { at, domain, written } in ahead.read.into_iter().flatten() {
            // Those that were let go of since are due after this page.
            if self.frontier.contains(&domain) || ahead.written.contains(&domain) {
                continue;
            }
            if written.row.as_ref().is_none_or(|row| row.due != at) {
                // Another process moved it, or a write came to half its end.
                let mut batch = Batch::new();
                batch.delete(Table::Due, rows::due_key(at, &domain));
                let _ = self.state.apply(batch).await?;
            }
            self.admit(&domain, written, now).await?;
        }
        (self.horizon, self.cursor) = (ahead.horizon, ahead.cursor);
        Ok(())
    }

    /// Reads a domain, if it is not in memory: before anything is said about it
    /// or done with it.
    ///
    /// # Errors
    /// Nothing was read.
    pub(super) async fn fetch(&mut self, domain: &Domain, now: Timestamp) -> Result<(), Error> {
        if self.frontier.contains(domain) {
            return Ok(());
        }
        let written = Written::read(&*self.state, domain, now, !self.swept).await?;
        self.admit(domain, written, now).await
    }

    async fn admit(
        &mut self,
        domain: &Domain,
        written: Written,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.lapse(&written.lapsed).await?;
        let failures = written.row.as_ref().map_or(0, |row| row.failures);
        if let Some(due) = written.due() {
            let has_row = written.row.is_some();
            let expiring = written.mailboxes.iter().filter(|(.., until)| until.is_some());
            expiring.for_each(|(address, ..)| self.expiring.set(address, true));
            let mailboxes = written.mailboxes.into_iter().map(|(it, _, until)| (it, until));
            self.frontier.restore(domain, due, failures, mailboxes);
            for (address, tries, until) in &written.wanted {
                if self.frontier.want(address, *tries) && until.is_some() {
                    self.frontier.expire(address, *until);
                }
            }
            if has_row {
                self.frontier.stored(domain, due);
            }
        }
        self.supply(&written.missing, failures, now).await;
        Ok(())
    }

    /// Watches what the log has, and writes the rows that are missing.
    async fn supply(
        &mut self,
        missing: &[(Name, Option<Timestamp>)],
        failures: u32,
        now: Timestamp,
    ) {
        for (name, until) in missing {
            self.frontier.add(name, now);
            if let (Name::Address(address), Some(_)) = (name, until) {
                self.frontier.expire(address, *until);
                self.expiring.set(address, true);
            }
            self.remember(name, now, failures, Some(LOGGED)).await;
        }
    }

    /// When they were seen is forgotten. Their rows in the frontier stay, or the
    /// sweep would watch what the log has.
    async fn lapse(&self, lapsed: &[Address]) -> Result<(), Error> {
        for address in lapsed {
            self.expiring.set(address, false);
            let key = address.as_str().as_bytes();
            if self.state.get(SeenRow::TABLE, key).await?.is_some() {
                let mut batch = Batch::new();
                batch.delete(SeenRow::TABLE, key);
                let _ = self.state.apply(batch).await?;
            }
        }
        Ok(())
    }

    /// The domain need not be in memory, for all that whoever calls knows.
    pub(super) fn release(&mut self, domain: &Domain, now: Timestamp) {
        while let Some((_, domain)) = self.lingering.pop_front_if(|(until, _)| *until <= now) {
            self.let_go(&domain, now);
        }
        self.let_go(domain, now);
    }

    fn let_go(&mut self, domain: &Domain, now: Timestamp) {
        if self.frontier.len() <= self.resident {
            return;
        }
        // What is due within the page on its way would not be on it.
        let horizon = self.ahead.as_ref().map_or(self.horizon, |ahead| ahead.horizon);
        if let Some(until) = self.frontier.evict(domain, horizon, now) {
            self.lingering.push_back((until, domain.clone()));
        }
    }

    /// Writes a name's row and gives up its lease. A failure costs no more than
    /// a visit too many: the row is an index, the log is the truth, and what is
    /// not written stays in memory. Says whether it was written.
    pub(super) async fn remember(
        &mut self,
        name: &Name,
        due: Timestamp,
        failures: u32,
        reason: Option<&'static str>,
    ) -> bool {
        self.remember_all(name, due, failures, reason, &[]).await
    }

    /// The same after a visit, with what it saw: one write for both.
    pub(super) async fn visited(
        &mut self,
        domain: &Name,
        due: Timestamp,
        failures: u32,
        seen: &[SeenRow],
    ) {
        self.remember_all(domain, due, failures, None, seen).await;
    }

    async fn remember_all(
        &mut self,
        name: &Name,
        due: Timestamp,
        failures: u32,
        reason: Option<&'static str>,
        seen: &[SeenRow],
    ) -> bool {
        let written = self.write(name, due, failures, reason, seen).await;
        if let Err(error) = &written {
            if name.address().is_some() {
                self.frontier.pin(name.domain());
            }
            tracing::warn!(domain = %name.domain(), %error, "the frontier could not be written");
        }
        written.is_ok()
    }

    async fn write(
        &mut self,
        name: &Name,
        due: Timestamp,
        failures: u32,
        reason: Option<&'static str>,
        seen: &[SeenRow],
    ) -> Result<(), Error> {
        self.outdate(name);
        let reason = reason.unwrap_or_default();
        let mut batch = Batch::new();
        seen.iter().for_each(|row| batch.row(row));
        let mut written = Vec::new();
        let known = self.row(name).await?;
        // A mailbox is found by its domain.
        let domain = Name::Domain(name.domain().clone());
        if name.address().is_some() && known.is_none() && self.row(&domain).await?.is_none() {
            written.push((domain, None));
        }
        written.push((name.clone(), known));
        let mut new_domains = Vec::new();
        for (name, known) in written {
            let row = FrontierRow {
                keep_until: name.address().and_then(|address| self.frontier.expiry(address)),
                tries: name.address().map_or(0, |address| self.frontier.tries(address)),
                due,
                leased_until: Timestamp::default(),
                leased_by: String::new(),
                failures,
                reason: known.as_ref().map_or(reason, |row| &row.reason).to_owned(),
                name,
            };
            batch.frontier(known.as_ref(), Some(&row));
            if known.is_none() {
                new_domains.extend(row.name.address().is_none().then(|| row.key()));
            }
        }
        let _ = self.state.apply(batch).await?;
        new_domains.iter().for_each(|key| self.count(key, true));
        if name.address().is_none() || !new_domains.is_empty() {
            self.frontier.stored(name.domain(), due);
        }
        Ok(())
    }

    /// What is being read of that domain is about to be written.
    fn outdate(&mut self, name: &Name) {
        if let Some(ahead) = &mut self.ahead {
            ahead.written.insert(name.domain().clone());
        }
    }

    /// Notes a mailbox that is looked at for a peer, if nothing is written of it: killed
    /// before it is settled, the next start looks once more, and knows until when it is
    /// to be watched if the log has it by then.
    pub(super) async fn note(&mut self, address: &Address, until: Timestamp, now: Timestamp) {
        if let Err(error) = self.try_note(address, until, now).await {
            tracing::warn!(domain = %address.domain(), %error, "the frontier could not be written");
        }
    }

    async fn try_note(
        &mut self,
        address: &Address,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = Name::Address(address.clone());
        if self.row(&name).await?.is_some() {
            return Ok(());
        }
        self.outdate(&name);
        let row = FrontierRow {
            name,
            due: now,
            leased_until: Timestamp::default(),
            leased_by: String::new(),
            failures: 0,
            reason: "asked for by a peer".to_owned(),
            keep_until: Some(until),
            tries: 1,
        };
        let mut batch = Batch::new();
        batch.frontier(None, Some(&row));
        self.state.apply(batch).await.map(drop)
    }

    /// Writes when names were seen.
    pub(super) async fn saw(&self, seen: &[SeenRow]) -> Result<(), Error> {
        let mut batch = Batch::new();
        seen.iter().for_each(|row| batch.row(row));
        if !batch.is_empty() {
            let _ = self.state.apply(batch).await?;
        }
        Ok(())
    }

    async fn row(&self, name: &Name) -> Result<Option<FrontierRow>, Error> {
        rows::find(&*self.state, &rows::frontier_key(name)).await
    }

    /// Removes what was noted of names that are not watched after all: strangers
    /// name them without end. Nothing about them is in the log. What they have used
    /// up of a quota, or have over it, stays: looking up a name is no way to have
    /// it forgotten.
    pub(super) async fn forget(&mut self, names: &[Name], now: Timestamp) -> Result<(), Error> {
        let mut batch = Batch::new();
        let mut domains = Vec::new();
        for name in names {
            self.outdate(name);
            if let Some(row) = self.row(name).await? {
                batch.frontier(Some(&row), None);
                domains.extend(name.address().is_none().then(|| row.key()));
            }
            batch.delete(SeenRow::TABLE, name.as_str());
            let used: Option<QuotaRow> = rows::find(&*self.state, name.as_str().as_bytes()).await?;
            if used.is_some_and(|row| !quota::is_needed(&row, now)) {
                batch.delete(QuotaRow::TABLE, name.as_str());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let _ = self.state.apply(batch).await?;
        domains.iter().for_each(|key| self.count(key, false));
        Ok(())
    }

    /// Counts a row that comes or goes where the sweep was already.
    fn count(&mut self, key: &[u8], comes: bool) {
        let is_passed = self.swept || self.counted.as_deref().is_some_and(|counted| key <= counted);
        if is_passed {
            self.domains = if comes { self.domains + 1 } else { self.domains.saturating_sub(1) };
        }
    }
}

/// What the sweep found.
#[derive(Debug)]
pub(super) enum Found {
    /// So many domain rows more, up to this key.
    Rows(u64, Vec<u8>),
    /// These domains lack rows.
    Missing(Vec<Domain>),
    /// All was looked at.
    All,
}

impl Roster {
    pub(super) async fn found(&mut self, found: Found, now: Timestamp) -> Result<(), Error> {
        match found {
            Found::Rows(more, key) => {
                (self.domains, self.counted) = (self.domains + more, Some(key))
            }
            Found::All => self.swept = true,
            Found::Missing(domains) => {
                for domain in domains {
                    self.complete(&domain, now).await?;
                    self.release(&domain, now);
                }
            }
        }
        Ok(())
    }

    /// Writes the rows that a domain lacks.
    async fn complete(&mut self, domain: &Domain, now: Timestamp) -> Result<(), Error> {
        let written = Written::read(&*self.state, domain, now, true).await?;
        if written.row.is_none() && written.missing.is_empty() && !self.frontier.contains(domain) {
            // Looked at for a peer when the process was killed, and not there.
            let names = written.wanted.iter().map(|(address, ..)| Name::Address(address.clone()));
            self.forget(&names.collect::<Vec<_>>(), now).await?;
        }
        if let Some(row) = &written.row {
            // It may have a row, and none that says when it is due.
            let mut batch = Batch::new();
            batch.frontier(None, Some(row));
            let _ = self.state.apply(batch).await?;
        }
        if !self.frontier.contains(domain) {
            return self.admit(domain, written, now).await;
        }
        self.supply(&written.missing, 0, now).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::crawl::frontier::Search;
    use crate::crawl::sweep::Sweep;
    use crate::store::testing::MemoryState;
    use tokio::sync::mpsc;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const HOUR: u64 = 3_600_000;

    /// As in [`super::super::Pace`], to which no test here comes.
    const LONGEST: u64 = 10 * HOUR;

    fn domain(number: u64) -> Domain {
        format!("d{number}.example").parse().unwrap()
    }

    fn row(name: Name, due: Timestamp, keep_until: Option<Timestamp>) -> FrontierRow {
        let (leased_until, leased_by) = (Timestamp::default(), String::new());
        let (failures, reason) = (3, "test".to_owned());
        let tries = 0;
        FrontierRow { name, due, leased_until, leased_by, failures, reason, keep_until, tries }
    }

    /// Domains with a mailbox each, all due, the last one the longest.
    async fn filled(count: u64) -> Arc<MemoryState> {
        let state = Arc::new(MemoryState::default());
        let mut batch = Batch::new();
        for number in 0..count {
            let due = Timestamp::from_millis(NOW.millis() - number - 1);
            batch.frontier(None, Some(&row(Name::Domain(domain(number)), due, None)));
            let name = format!("x@d{number}.example").parse().unwrap();
            batch.frontier(None, Some(&row(name, due, None)));
        }
        assert_eq!(state.apply(batch).await.unwrap(), crate::store::Applied::Applied);
        state
    }

    #[tokio::test]
    async fn each_has_its_turn_though_few_are_in_memory() {
        const ALL: u64 = 2000;
        let state = filled(ALL).await;
        let mut roster = Roster::new(state.clone(), 10, LONGEST);
        let mut most = 0;
        for number in (0..ALL).rev() {
            if number == ALL / 2 {
                // As after a restart.
                roster = Roster::new(state.clone(), 10, LONGEST);
            }
            let job = roster.next(NOW).await.unwrap().unwrap();
            assert_eq!((&job.domain, job.failures, job.users.len()), (&domain(number), 3, 1));
            roster.done(&job.domain, NOW, NOW.plus(HOUR + number), 0).await;
            most = most.max(roster.frontier.len());
        }
        assert_eq!(roster.next(NOW).await.unwrap(), None);
        assert!(most <= WINDOW + 10, "{most} in memory");
        assert!(roster.next_due() > NOW);
        assert_eq!(roster.next(NOW.plus(HOUR - 1)).await.unwrap(), None);
        let later = NOW.plus(2 * HOUR);
        for number in 0..ALL {
            let job = roster.next(later).await.unwrap().unwrap();
            assert_eq!((&job.domain, job.failures), (&domain(number), 0));
        }
        assert_eq!(roster.next(later).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_turn_from_a_clock_that_was_ahead_comes_now() {
        const AHEAD: u64 = 30 * 24 * HOUR;
        let due = |number: u64| match number {
            0 => NOW.plus(AHEAD),
            1 => NOW.plus(LONGEST),
            _ => NOW.plus(2 * HOUR),
        };
        let state = Arc::new(MemoryState::default());
        let mut batch = Batch::new();
        for number in 0..3 {
            batch.frontier(None, Some(&row(Name::Domain(domain(number)), due(number), None)));
        }
        let _ = state.apply(batch).await.unwrap();
        // As after a restart.
        let mut roster = Roster::new(state.clone(), 0, LONGEST);
        assert_eq!(roster.next(NOW).await.unwrap().unwrap().domain, domain(0));
        assert_eq!(roster.next(NOW).await.unwrap(), None);
        roster.done(&domain(0), NOW, NOW.plus(HOUR), 0).await;

        // It jumps, and is set back.
        let there = NOW.plus(AHEAD);
        while let Some(job) = roster.next(there).await.unwrap() {
            roster.done(&job.domain, there, there.plus(HOUR), 0).await;
        }
        assert!(roster.horizon > NOW.plus(HOUR));
        roster.set_back(NOW, AHEAD, HOUR);
        let mut turns = Vec::new();
        while let Some(job) = roster.next(NOW.plus(1)).await.unwrap() {
            turns.push(job.domain);
        }
        turns.sort();
        assert_eq!(turns, [domain(0), domain(1), domain(2)]);
    }

    #[tokio::test]
    async fn who_is_asked_for_is_read_first_and_its_turn_is_where_it_was() {
        let state = filled(600).await;
        let mut roster = Roster::new(state, 0, LONGEST);
        roster.fetch(&domain(3), NOW).await.unwrap();
        assert!(roster.frontier.is_watched(&"x@d3.example".parse().unwrap()));
        assert!(!roster.frontier.is_watched(&"y@d3.example".parse().unwrap()));
        roster.fetch(&"unknown.example".parse().unwrap(), NOW).await.unwrap();
        assert_eq!(roster.frontier.len(), 1);
        // In memory and due, and hundreds that are not were due before.
        assert_eq!(roster.next(NOW).await.unwrap().unwrap().domain, domain(599));
        roster.frontier.urge(&domain(3), NOW);
        assert_eq!(roster.next(NOW).await.unwrap().unwrap().domain, domain(3));
    }

    /// While the page with both is being read, one domain is put off to later,
    /// and one to a time within that page.
    #[tokio::test]
    async fn what_is_written_while_its_page_is_read_has_its_turn() {
        const ALL: u64 = 600;
        let due = |number: u64| Timestamp::from_millis(NOW.millis() - number - 1);
        let mut roster = Roster::new(filled(ALL).await, 0, LONGEST);
        roster.window = WINDOW;
        assert_eq!(roster.next(NOW).await.unwrap().unwrap().domain, domain(ALL - 1));
        assert!(roster.horizon < due(310) && roster.ahead.as_ref().unwrap().horizon > due(290));
        // Until it is read.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
            roster.read_beside(NOW).unwrap();
        }
        let read = roster.ahead.as_ref().unwrap().read.as_ref().unwrap();
        assert!([300, 310].iter().all(|number| read.iter().any(|it| it.domain == domain(*number))));
        for (number, again) in [(300, NOW.plus(HOUR)), (310, due(290))] {
            roster.fetch(&domain(number), NOW).await.unwrap();
            roster.frontier.urge(&domain(number), NOW);
            assert_eq!(roster.next(NOW).await.unwrap().unwrap().domain, domain(number));
            roster.done(&domain(number), NOW, again, 0).await;
            // Whoever was asked for stays in memory a while, and no longer.
            roster.release(&domain(number), NOW.plus(HOUR));
            assert_eq!(roster.frontier.contains(&domain(number)), number == 310);
        }
        let mut turns = Vec::new();
        while let Some(job) = roster.next(NOW).await.unwrap() {
            turns.push(job.domain);
        }
        turns.sort();
        let all = (0..ALL - 1).filter(|number| *number != 300);
        let mut all: Vec<Domain> = all.map(domain).collect();
        all.sort();
        assert_eq!(turns, all);
        let put_off = roster.next(NOW.plus(HOUR)).await.unwrap().unwrap();
        assert_eq!(put_off.domain, domain(300));
    }

    /// The process was killed while mailboxes were looked at for a peer: one of a domain
    /// that is watched, one of a domain that the log has by now, one of none.
    #[tokio::test]
    async fn what_was_looked_at_for_a_peer_lapses_though_the_process_was_killed() {
        let until = NOW.plus(HOUR);
        let address = |number: u64| -> Address { format!("x@d{number}.example").parse().unwrap() };
        let state = Arc::new(MemoryState::default());
        let mut roster = Roster::new(state.clone(), 0, LONGEST);
        for number in 1..=3 {
            roster.note(&address(number), until, NOW).await;
        }
        let mut batch = Batch::new();
        batch.frontier(None, Some(&row(Name::Domain(domain(1)), NOW, None)));
        batch.put(Table::Domains, "d2.example", "{}");
        for number in 1..=2 {
            batch.put(Table::Users, rows::user_key(&address(number)), "{}");
        }
        let _ = state.apply(batch).await.unwrap();

        let mut roster = Roster::new(state.clone(), 0, LONGEST);
        let (found, mut told) = mpsc::channel(1);
        let (clock, expiring) = (Clock::manual(NOW), roster.expiring());
        tokio::spawn(Sweep { state: state.clone(), clock, expiring, found }.run());
        while let Some(found) = told.recv().await {
            roster.found(found, NOW).await.unwrap();
        }
        let mut users = Vec::new();
        while let Some(job) = roster.next(NOW.plus(1)).await.unwrap() {
            users.extend(job.users.iter().map(|user| (user.clone(), job.wanted.contains(user))));
        }
        users.sort();
        assert_eq!(users, [(address(1), true), (address(2), false)]);
        assert_eq!(roster.frontier.weigh(&address(1), Search::Found), Search::Found);
        for number in 1..=2 {
            assert_eq!(roster.frontier.expiry(&address(number)), Some(until), "{number}");
        }
        let row = async |number: u64| roster.row(&Name::Address(address(number))).await.unwrap();
        let written = row(2).await.unwrap();
        assert_eq!((written.tries, written.keep_until), (0, Some(until)));
        assert_eq!(row(3).await, None);
    }

    #[tokio::test]
    async fn what_is_not_in_order_is_put_in_order() {
        let state = Arc::new(MemoryState::default());
        let mut batch = Batch::new();
        // A turn whose row is gone, one that moved, and a mailbox with no domain row.
        let moved = row(Name::Domain(domain(2)), NOW.plus(HOUR), None);
        batch.put(Table::Due, rows::due_key(NOW, &domain(1)), []);
        batch.put(Table::Due, rows::due_key(NOW, &domain(2)), []);
        batch.frontier(None, Some(&moved));
        let gone = row("gone@d2.example".parse().unwrap(), NOW, Some(NOW));
        batch.frontier(None, Some(&gone));
        let alone = row("x@d3.example".parse().unwrap(), NOW, Some(NOW.plus(HOUR)));
        batch.frontier(None, Some(&alone));
        // A row that no turn tells of.
        batch.row(&row(Name::Domain(domain(4)), NOW, None));
        // The log's.
        batch.put(Table::Domains, "d5.example", "{}");
        for address in ["x@d5.example", "y@d4.example", "gone@d2.example"] {
            batch.put(Table::Users, rows::user_key(&address.parse().unwrap()), "{}");
        }
        let _ = state.apply(batch).await.unwrap();
        let mut roster = Roster::new(state.clone(), 0, LONGEST);
        assert_eq!(roster.next(NOW.plus(1)).await.unwrap(), None);
        let is_due = async |number: u64, at: Timestamp| {
            let key = rows::due_key(at, &domain(number));
            state.get(Table::Due, &key).await.unwrap().is_some()
        };
        assert!(!is_due(1, NOW).await && !is_due(2, NOW).await);
        assert!(is_due(2, NOW.plus(HOUR)).await);

        let (found, mut told) = mpsc::channel(1);
        let (clock, expiring) = (Clock::manual(NOW), roster.expiring());
        let sweep = Sweep { state: state.clone(), clock, expiring, found };
        let sweeping = tokio::spawn(sweep.run());
        while let Some(found) = told.recv().await {
            roster.found(found, NOW).await.unwrap();
        }
        sweeping.await.unwrap();
        assert!(roster.swept);
        assert!(roster.expiring.contains(&"x@d3.example".parse().unwrap()));
        assert!(!roster.expiring.contains(&"gone@d2.example".parse().unwrap()));
        let mut users = Vec::new();
        while let Some(job) = roster.next(NOW.plus(1)).await.unwrap() {
            let names = job.users.iter().map(|user| user.local()).collect::<String>();
            users.push((job.domain.to_string(), names));
        }
        users.sort();
        let expected = [("d3.example", "x"), ("d4.example", "y"), ("d5.example", "x")];
        assert_eq!(users, expected.map(|(domain, names)| (domain.to_owned(), names.to_owned())));
        assert_eq!(roster.domains(), 4);
        assert!(is_due(4, NOW).await && is_due(5, NOW).await);

        // All of it is written: another start finds it without the log's help.
        let mut again = Roster::new(state.clone(), 0, LONGEST);
        again.swept = true;
        let mut found = 0;
        while let Some(job) = again.next(NOW.plus(1)).await.unwrap() {
            found += job.users.len();
        }
        assert_eq!(found, 3);
        again.forget(&["d5.example".parse().unwrap()], NOW).await.unwrap();
        assert!(!is_due(5, NOW).await);
    }
}
