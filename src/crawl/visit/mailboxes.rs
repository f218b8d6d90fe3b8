//! The mailboxes of one visit: what is served, what that means, and the log's
//! word for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex;

use super::dx::Dx;
use super::known::{OLD_BYTES, unseen};
use super::{Failure, Visitor, is_as_before, sha256};
use crate::crawl::judge::{self, KnownUser, Served};
use crate::crawl::{Entered, Error, IncidentKind, Outcome, Placed, Report, Unplaced, alarm};
use crate::dime::org::ValidOrgSignet;
use crate::dime::reply::Currency;
use crate::dime::signet::{Fingerprint, Level, Signet};
use crate::dime::{Address, Domain, Name, Rejection, user};
use crate::dmtp::Held;
use crate::dmtp::client::{self, Fault, Session, Spoiled};
use crate::proof::draft::{Draft, UserDraft};
use crate::proof::entry::{Event, Events};
use crate::store::rows::{DomainRow, Hash, OrgRow, SeenRow, UserRow};

/// Mailboxes of one visit whose drafts wait for the log, which may take one
/// batch a second, and the bytes of their signets.
const PENDING: usize = 1024;
const PENDING_BYTES: usize = 4 << 20;

/// Org signets that were in force before under which an old link is tried, the
/// newest; each costs a few verifications for each link that is not valid.
const OLD_ORGS: usize = 64;

/// Rows of what was seen as before that a visit holds back, at most.
const UNWRITTEN: usize = 64;

/// By whom user signets may be signed.
pub(super) struct Authority<'a> {
    domain: &'a Domain,
    /// Of a signet that is served now, each with the domain's version that named
    /// it; the one in force is first.
    orgs: Vec<(ValidOrgSignet, u64)>,
    /// The domain's version in force.
    version: u64,
    /// Those before it: for old links only, and read only then.
    old: Mutex<Old>,
}

/// Org signets that were in force before.
struct Old {
    /// The newest first.
    rows: Vec<OrgRow>,
    /// What was read of them so far, by their place in `rows`; `None` for what
    /// can no longer be had.
    read: BTreeMap<usize, Option<ValidOrgSignet>>,
    /// Bytes of it.
    size: usize,
}

/// Why a look ended early.
enum Stop {
    Theirs(Failure),
    Ours(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Theirs(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Ours(error)
    }
}

/// A mailbox as served.
struct Fetched {
    served: Vec<u8>,
    history: Vec<Vec<u8>>,
    held: Vec<Held>,
}

/// What is served, held against what is known.
struct Judged {
    drafts: Vec<UserDraft>,
    /// As [`SeenRow::last_served`].
    served: Option<Hash>,
    /// If there is no draft.
    outcome: Outcome,
    /// For the signets of the drafts.
    held: Vec<Held>,
}

impl Judged {
    fn without_signets(drafts: Vec<UserDraft>, served: Option<Hash>, outcome: Outcome) -> Judged {
        Judged { drafts, served, outcome, held: Vec::new() }
    }
}

/// What a look at a mailbox came to: drafts to submit, or none.
struct Looked {
    seen: SeenRow,
    /// The version that was known, 0 for none.
    version: u64,
    drafts: Vec<UserDraft>,
    /// Bytes of the tip in force before.
    tip: Bytes,
    /// Served now, as [`SeenRow::last_served`].
    served: Option<Hash>,
    /// If there is no draft.
    outcome: Outcome,
    /// For the signets of the drafts.
    held: Vec<Held>,
}

impl Looked {
    fn nothing(seen: SeenRow, outcome: Outcome) -> Looked {
        let (drafts, tip, served) = (Vec::new(), Bytes::new(), seen.last_served);
        Looked { seen, version: 0, drafts, tip, served, outcome, held: Vec::new() }
    }

    /// Bytes that wait with it.
    fn size(&self) -> usize {
        self.drafts.iter().filter_map(|draft| draft.signet.as_ref()).map(Bytes::len).sum()
    }
}

/// A mailbox that is done with.
struct Settled {
    address: Address,
    size: usize,
    outcome: Result<Outcome, Error>,
    entries: Vec<Entered>,
    /// Not written yet.
    seen: Option<SeenRow>,
}

impl Visitor {
    /// Looks at one mailbox after the other, over one connection, while the
    /// log takes its time with those before. Each mailbox's links go to the
    /// log one by one: if one is refused, none may follow it.
    pub(super) async fn users(
        &self,
        dx: &mut Dx<'_>,
        users: &[Address],
        authority: &Authority<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut pending = FuturesUnordered::new();
        let mut waiting = 0;
        for address in users {
            let look = self.user(dx, address, authority);
            tokio::pin!(look);
            let looked = loop {
                tokio::select! {
                    Some(settled) = pending.next(), if !pending.is_empty() => {
                        settle(settled, &mut waiting, report)?;
                    }
                    looked = &mut look => break looked?,
                }
            };
            if looked.drafts.len() > self.options.links {
                // The rest follows in the next visit, which need not wait.
                report.refresh = report.started;
            }
            if looked.outcome == Outcome::HostBusy {
                let soon = report.started.plus(self.options.pace.back_off);
                report.refresh = report.refresh.min(soon);
            }
            if report.seen.len() >= UNWRITTEN {
                let seen = self.still_known(std::mem::take(&mut report.seen)).await;
                let failed = |source| Error::Known { domain: address.domain().clone(), source };
                self.remember(&seen).await.map_err(failed)?;
            }
            waiting += looked.size();
            pending.push(self.submit(address, looked));
            while pending.len() > PENDING || waiting > PENDING_BYTES {
                let Some(settled) = pending.next().await else { break };
                settle(settled, &mut waiting, report)?;
            }
        }
        while let Some(settled) = pending.next().await {
            settle(settled, &mut waiting, report)?;
        }
        Ok(())
    }

    /// Submits the drafts of a mailbox in order, and writes down what was seen:
    /// only what the log has taken counts as seen.
    async fn submit(&self, address: &Address, looked: Looked) -> Settled {
        let size = looked.size();
        let (mut entries, mut seen) = (Vec::new(), None);
        let outcome = self.submit_all(address, looked, &mut entries, &mut seen).await;
        Settled { address: address.clone(), size, outcome, entries, seen }
    }

    async fn submit_all(
        &self,
        address: &Address,
        looked: Looked,
        entries: &mut Vec<Entered>,
        unwritten: &mut Option<SeenRow>,
    ) -> Result<Outcome, Error> {
        let Looked { mut seen, mut version, drafts, mut tip, served, mut outcome, held: _held } =
            looked;
        if outcome == Outcome::Forgotten {
            return Ok(outcome);
        }
        let name = Name::Address(address.clone());
        let (mut astray, mut coalesced) = (false, false);
        for draft in drafts.into_iter().take(self.options.links) {
            let (events, signet) = (draft.events, draft.signet.clone().unwrap_or_default());
            for incident in alarm::of_user(&draft, &tip) {
                self.report(incident).await;
            }
            let entered = match self.enter(Draft::User(draft), version, name.clone(), events).await
            {
                // What was seen is judged again, by what is known now.
                Err(Error::Log { source: Unplaced::MovedOn, .. }) => return Ok(Outcome::Overtaken),
                entered => entered?,
            };
            if let Placed::Version(placed) = entered.placed {
                version = placed;
            }
            astray = events.intersects(Events::of(&[Event::Forked, Event::Reverted]));
            coalesced |= entered.placed == Placed::Coalesced;
            outcome = match () {
                () if coalesced => Outcome::Coalesced,
                () if events.contains(Event::Withdrawn) => Outcome::NotFound,
                () if astray => Outcome::NotInForce,
                () => Outcome::Changed,
            };
            if let (Placed::Version(version), Outcome::Changed) = (entered.placed, outcome) {
                (seen.version, seen.confirmed_at) = (version, seen.attempted_at);
                tip = signet;
            }
            entries.push(entered);
        }
        // A chain that comes in parts was served to its end, not logged to it.
        let complete = entries.len() < self.options.links || astray;
        // What is over quota is judged again at the next visit.
        seen.last_served = if complete && !coalesced { served } else { None };
        seen.outcome = outcome.to_string();
        if is_as_before(outcome) {
            *unwritten = Some(seen);
            return Ok(outcome);
        }
        let failed = |source| Error::Known { domain: address.domain().clone(), source };
        self.remember(&[seen]).await.map_err(failed)?;
        Ok(outcome)
    }

    /// Looks at one mailbox. What the DX does wrong is an outcome.
    async fn user(
        &self,
        dx: &mut Dx<'_>,
        address: &Address,
        authority: &Authority<'_>,
    ) -> Result<Looked, Error> {
        let failed = |source| Error::Known { domain: address.domain().clone(), source };
        if self.is_forgotten(address).await? {
            let seen = unseen(&Name::Address(address.clone()));
            return Ok(Looked::nothing(seen, Outcome::Forgotten));
        }
        let row = self.user_row(address).await.map_err(failed)?;
        let mut seen = self.seen(&Name::Address(address.clone())).await.map_err(failed)?;
        let known = self.known_user(row.as_ref(), &seen).await.map_err(failed)?;
        let version = row.as_ref().map_or(0, |row| row.version);
        seen.attempted_at = self.rooms.clock.now();
        Ok(match self.look(dx, address, row.as_ref(), &known, authority, &seen).await {
            Ok(Judged { drafts, served, outcome, held }) => {
                if outcome == Outcome::Confirmed {
                    (seen.version, seen.confirmed_at) = (known.current, seen.attempted_at);
                }
                let tip = known.chain.last().map(|tip| Bytes::copy_from_slice(tip.bytes()));
                let tip = tip.unwrap_or_default();
                Looked { seen, version, drafts, tip, served, outcome, held }
            }
            Err(Stop::Theirs(failure)) => Looked::nothing(seen, failure.outcome),
            Err(Stop::Ours(error)) => return Err(error),
        })
    }

    async fn look(
        &self,
        dx: &mut Dx<'_>,
        address: &Address,
        row: Option<&UserRow>,
        known: &KnownUser,
        authority: &Authority<'_>,
        seen: &SeenRow,
    ) -> Result<Judged, Stop> {
        let observed = seen.attempted_at;
        if self.is_claimed_current(dx, address, known, seen).await? {
            return Ok(Judged::without_signets(Vec::new(), seen.last_served, Outcome::Claimed));
        }
        let mut fetched = self.fetch(dx.session().await?, address, known).await;
        if let Some(error) = fetched.as_ref().err().filter(|error| dx.is_used_up(error)) {
            dx.judge(error);
            fetched = self.fetch(dx.session().await?, address, known).await;
        }
        let mut fetched = match fetched {
            Ok(fetched) => {
                dx.gave();
                fetched
            }
            Err(client::Error::NotFound) => {
                let gone = judge::user_gone(address, known, observed, Some(authority.version));
                let drafts = gone.into_iter().collect();
                return Ok(Judged::without_signets(drafts, None, Outcome::NotFound));
            }
            Err(error) => {
                if let Some(Spoiled { bytes, is_history, why }) = dx.spoiled(&error) {
                    let kind = match is_history {
                        true => IncidentKind::LinkInvalid,
                        false => IncidentKind::SignetInvalid,
                    };
                    self.incident(kind, address.domain(), Some(address), &why, bytes).await;
                }
                return Err(dx.judge(&error).into());
            }
        };
        let under = row.map(|row| row.domain_version);
        let held = std::mem::take(&mut fetched.held);
        let path = self.validated(address, known, under, authority, fetched).await?;
        let served = path.last().map(|last| sha256(last.signet.signet().bytes()));
        let is_current = in_force(known, &path);
        let whole = match is_current {
            true => known.clone(),
            false => {
                let failed = |source| Error::Known { domain: address.domain().clone(), source };
                self.with_links(known, row).await.map_err(failed)?
            }
        };
        let drafts = judge::user(address, &whole, &path, observed, self.options.hold);
        let outcome = if is_current { Outcome::Confirmed } else { Outcome::NotInForce };
        let held = if drafts.is_empty() { Vec::new() } else { held };
        Ok(Judged { drafts, served, outcome, held })
    }

    /// Whether the DX says that nothing changed, and its word is enough (§7.2
    /// step 2): the signet itself was seen not long ago, and the next visit comes
    /// in time to see it again. Not where somebody asked for it, or says that it is
    /// another one, nor after an entry of the domain (threat 23).
    async fn is_claimed_current(
        &self,
        dx: &mut Dx<'_>,
        address: &Address,
        known: &KnownUser,
        seen: &SeenRow,
    ) -> Result<bool, Failure> {
        if dx.insist.has(address) || seen.confirmed_at < dx.since {
            return Ok(false);
        }
        // Confirmed by a clock that was ahead: it counts as never.
        if seen.confirmed_at > seen.attempted_at {
            return Ok(false);
        }
        let age = seen.attempted_at.since(seen.confirmed_at);
        let Some(tip) = known.chain.last().and_then(|tip| tip.fingerprint(Level::Crypto)) else {
            return Ok(false);
        };
        let interval = self.options.pace.interval;
        let next = age.saturating_add(interval).saturating_add(interval / 10);
        if next >= self.options.trust_word || known.withdrawn {
            return Ok(false);
        }
        let name = Name::Address(address.clone());
        let mut word = dx.session().await?.verify(&name, &tip).await;
        if let Some(error) = word.as_ref().err().filter(|error| dx.is_used_up(error)) {
            dx.judge(error);
            word = dx.session().await?.verify(&name, &tip).await;
        }
        match word {
            Ok(currency) => {
                dx.gave();
                Ok(currency == Currency::Current)
            }
            Err(error) if error.fault() == Fault::Answer => Ok(false),
            Err(error) => Err(dx.judge(&error)),
        }
    }

    /// `SGNT`, and `HIST` if that is not what is known. The two may race with a
    /// change at the DX, so once more if they disagree.
    async fn fetch(
        &self,
        session: &mut Session,
        address: &Address,
        known: &KnownUser,
    ) -> Result<Fetched, client::Error> {
        let name = Name::Address(address.clone());
        let tip = known.chain.last();
        let start = tip.and_then(|tip| tip.fingerprint(Level::Crypto));
        let mut again = true;
        loop {
            let served = session.signet(&name, None).await?;
            let mut held = vec![session.held()];
            let is_known = Signet::decode_with_limit(&served, self.options.dmtp.object)
                .is_ok_and(|served| tip.is_some_and(|tip| judge::is_copy(tip, &served)));
            if is_known {
                return Ok(Fetched { served, history: Vec::new(), held });
            }
            let history = history(session, address, start.as_ref()).await?;
            held.push(session.held());
            let agrees = history.last().is_none_or(|last| *last == served);
            if agrees || !again {
                return Ok(Fetched { served, history, held });
            }
            again = false;
        }
    }

    /// The chain as served, each link valid: the served signet under the org
    /// signet in force, older links under any that ever was. A link that is not
    /// valid cuts off what lies before it.
    async fn validated(
        &self,
        address: &Address,
        known: &KnownUser,
        under: Option<u64>,
        authority: &Authority<'_>,
        fetched: Fetched,
    ) -> Result<Vec<Served>, Stop> {
        let Fetched { served, history, .. } = fetched;
        let limit = self.options.dmtp.object;
        let decoded = Signet::decode_with_limit(&served, limit);
        // What is known was valid when it was logged; its signer may have retired.
        let copy = decoded
            .as_ref()
            .ok()
            .and_then(|signet| known.chain.last().filter(|tip| judge::is_copy(tip, signet)));
        let retired = match copy {
            Some(tip) => authority.ever(self, tip, address, under).await?.ok(),
            None => None,
        };
        let tip = match (decoded, retired) {
            (_, Some(valid)) => Ok(valid),
            (Ok(signet), None) => authority.current(&signet, address),
            (Err(why), None) => Err(why),
        };
        let tip = match tip {
            Ok(tip) => tip,
            Err(why) => {
                let kind = IncidentKind::SignetInvalid;
                self.incident(kind, address.domain(), Some(address), &why, served.into()).await;
                let outcome = Outcome::SignetInvalid;
                return Err(Failure::new(outcome, why.to_string()).into());
            }
        };
        let mut path = Vec::new();
        let mut told = BTreeSet::new();
        for bytes in history {
            if bytes == served {
                continue;
            }
            if !told.insert(sha256(&bytes)) {
                let why = Rejection::new("history-cycle", "a link comes twice in one history");
                let kind = IncidentKind::LinkInvalid;
                self.incident(kind, address.domain(), Some(address), &why, bytes.into()).await;
                continue;
            }
            let valid = match Signet::decode_with_limit(&bytes, limit) {
                Ok(signet) => authority.ever(self, &signet, address, None).await?,
                Err(why) => Err(why),
            };
            match valid {
                Ok(link) => path.push(link),
                Err(why) => {
                    path.clear();
                    let kind = IncidentKind::LinkInvalid;
                    self.incident(kind, address.domain(), Some(address), &why, bytes.into()).await;
                }
            }
        }
        path.push(tip);
        Ok(path)
    }
}

impl<'a> Authority<'a> {
    /// With the org signets that the log has beside `orgs`.
    pub(super) fn new(
        domain: &'a Domain,
        orgs: Vec<(ValidOrgSignet, u64)>,
        version: u64,
        row: Option<&DomainRow>,
    ) -> Authority<'a> {
        let now: Vec<Hash> = orgs.iter().map(|(org, _)| sha256(org.signet().bytes())).collect();
        let old = row.map(|row| row.org_signets.as_slice()).unwrap_or_default();
        let old = old.iter().rev().filter(|old| !now.contains(&old.signet));
        let old = Old { rows: old.copied().collect(), read: BTreeMap::new(), size: 0 };
        Authority { domain, orgs, version, old: Mutex::new(old) }
    }

    fn current(&self, signet: &Signet, address: &Address) -> Result<Served, Rejection> {
        let mut refused = None;
        for (org, version) in &self.orgs {
            match user::validate(signet, org, Some(address)) {
                Ok(signet) => return Ok(Served { signet, domain_version: Some(*version) }),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or_else(|| Rejection::new("signer", "there is no org signet")))
    }

    /// Valid now, or when an older org signet was in force: that of the domain's
    /// version `under`, if it is known, or one of the newest.
    async fn ever(
        &self,
        visitor: &Visitor,
        signet: &Signet,
        address: &Address,
        under: Option<u64>,
    ) -> Result<Result<Served, Rejection>, Error> {
        let why = match self.current(signet, address) {
            Ok(served) => return Ok(Ok(served)),
            Err(why) => why,
        };
        let mut old = self.old.lock().await;
        let first = under.and_then(|under| old.rows.iter().position(|row| row.version <= under));
        for place in first.into_iter().chain(0..old.rows.len().min(OLD_ORGS)) {
            let Some((org, version)) = old.org(visitor, self.domain, place).await? else {
                continue;
            };
            if let Ok(signet) = user::validate(signet, org, Some(address)) {
                return Ok(Ok(Served { signet, domain_version: Some(version) }));
            }
        }
        Ok(Err(why))
    }
}

impl Old {
    /// With the domain's version that named it first. `None` too once
    /// [`OLD_BYTES`] are read.
    async fn org(
        &mut self,
        visitor: &Visitor,
        domain: &Domain,
        place: usize,
    ) -> Result<Option<(&ValidOrgSignet, u64)>, Error> {
        let Some(row) = self.rows.get(place) else { return Ok(None) };
        if !self.read.contains_key(&place) && self.size < OLD_BYTES {
            let org = visitor.old_org(domain, row).await?;
            self.size += org.as_ref().map_or(0, |org| org.signet().bytes().len());
            self.read.insert(place, org);
        }
        let read = self.read.get(&place).and_then(Option::as_ref);
        Ok(read.map(|org| (org, row.version)))
    }
}

/// `HIST` from the known tip, else all there is. Hosts that cannot give a
/// history give none (§7.2 step 4).
async fn history(
    session: &mut Session,
    address: &Address,
    start: Option<&Fingerprint>,
) -> Result<Vec<Vec<u8>>, client::Error> {
    let mut tries = vec![None];
    if start.is_some() {
        tries.insert(0, start);
    }
    for start in tries {
        match session.history(address, start, None).await {
            Ok(history) => return Ok(history),
            Err(error) if error.fault() == Fault::Answer => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
}

fn in_force(known: &KnownUser, path: &[Served]) -> bool {
    match (known.chain.last(), path.last()) {
        (Some(tip), Some(served)) => judge::is_copy(tip, served.signet.signet()),
        _ => false,
    }
}

/// Puts what became of a mailbox into the report.
fn settle(settled: Settled, waiting: &mut usize, report: &mut Report) -> Result<(), Error> {
    *waiting = waiting.saturating_sub(settled.size);
    report.entries.extend(settled.entries);
    report.seen.extend(settled.seen);
    let outcome = settled.outcome?;
    if outcome == Outcome::Overtaken {
        report.refresh = report.started;
    }
    report.users.push((settled.address, outcome));
    Ok(())
}
