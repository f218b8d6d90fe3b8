//! One visit: a domain from its DNS record to drafts (design §2, reference
//! §6.2, §7.2).
//!
//! The domain's own entry is submitted and acknowledged before any mailbox's,
//! since their payloads name the version they were validated under. What
//! strangers do wrong ends in an [`Outcome`] and perhaps an [`Incident`]; only
//! our own stores and the log make an [`Error`].
//!
//! Where a record above decides (§1.7), the domain's entry names that record's
//! text, and its DNSSEC chain shows the names from the domain up to there.
//!
//! Left out: mailboxes of a domain whose record is gone are not asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::alarm;
use super::compare::{LOOKING, Outlook, VANTAGES, Vantage};
use super::frontier::Job;
use super::judge::{self, DomainSeen, KnownDomain, KnownUser, Protection, Served};
use super::{
    Entered, Error, Incident, IncidentKind, Metrics, Options, Outcome, Placed, Report, Rooms,
};
use crate::dime::certificate;
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Record, Selection};
use crate::dime::reply::Currency;
use crate::dime::signet::{Fingerprint, Level, Signet};
use crate::dime::user;
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp};
use crate::dmtp::client::{self, Fault, Phase, Session, Spoiled};
use crate::dmtp::hosts::{Hosts, Later};
use crate::dmtp::reach::{self, Mismatch, Ports, Route, Unreached};
use crate::proof::draft::{DomainDraft, Draft, UserDraft};
use crate::proof::entry::{Event, Events};
use crate::resolver;
use crate::resolver::record::Found;
use crate::store;
use crate::store::keys;
use crate::store::rows::{self, DomainRow, Hash, LinkRow, SeenRow, UserRow};
use crate::store::state::{Batch, Table};

/// How often in a row a visit opens a new connection after one broke.
const REOPENINGS: u32 = 3;
/// How often, and how long at most each time, it waits for a host that has its
/// hands full with us.
const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_secs(2);
/// Mailboxes of one visit whose drafts wait for the log, which may take one
/// batch a second, and the bytes of their signets.
const PENDING: usize = 1024;
const PENDING_BYTES: usize = 4 << 20;

/// Rows of what was seen as before that a visit holds back, at most.
const UNWRITTEN: usize = 64;

/// Does visits; shared by all that go on.
pub(super) struct Visitor {
    pub rooms: Rooms,
    pub options: Options,
    pub metrics: Metrics,
    /// Where visits are made from, and the other places to look from.
    pub main: Outlook,
    pub others: Vec<Outlook>,
    pub looking: Semaphore,
}

/// Why a visit or a mailbox got no further: nobody's failure but theirs.
struct Failure {
    outcome: Outcome,
    detail: String,
    /// When to come again, if the host was not asked.
    later: Option<Timestamp>,
}

impl Failure {
    fn new(outcome: Outcome, detail: impl Into<String>) -> Failure {
        Failure { outcome, detail: detail.into(), later: None }
    }

    fn dx(error: &client::Error) -> Failure {
        Failure::new(Outcome::Dx(error.reason()), error.to_string())
    }
}

impl Visitor {
    pub fn new(rooms: Rooms, mut options: Options, metrics: Metrics) -> Visitor {
        let limits = options.hosts;
        options.dmtp.hosts.get_or_insert_with(|| Hosts::new(limits));
        let resolver = Arc::clone(&rooms.resolver);
        let proxy = options.dmtp.proxy.clone();
        let main = Vantage { name: "main".to_owned(), resolver, proxy };
        Visitor {
            main: Outlook::new(main, &options.dmtp),
            others: Vec::new(),
            looking: Semaphore::new(LOOKING),
            rooms,
            options,
            metrics,
        }
    }

    pub fn with_vantages(
        mut self,
        main: String,
        others: impl IntoIterator<Item = Vantage>,
    ) -> Visitor {
        self.main.name = main;
        let others = others.into_iter().take(VANTAGES);
        self.others = others.map(|other| Outlook::new(other, &self.options.dmtp)).collect();
        self
    }
}

impl Visitor {
    /// Visits a domain and the mailboxes of the job; the report is filled in
    /// as things happen, so that it is right whenever the visit is cut short.
    pub async fn visit(&self, job: &Job, report: &mut Report) -> Result<(), Error> {
        let domain = &job.domain;
        let failed = |source| Error::Known { domain: domain.clone(), source };
        let row: Option<DomainRow> = self.row(domain.as_str()).await.map_err(failed)?;
        let mut seen = self.seen(&Name::Domain(domain.clone())).await.map_err(failed)?;
        let asked = resolver::record::find(&*self.rooms.resolver, domain).await;
        let text = match asked.as_ref().map(|found| &found.selection) {
            Ok(Selection::One(record)) => Some(record.text.as_slice()),
            _ => None,
        };
        let known = self.known_domain(row.as_ref(), &seen, text).await.map_err(failed)?;
        report.previous = seen.attempted_at;
        seen.attempted_at = report.started;

        match asked {
            Err(resolver::Error::Bogus { .. }) => {
                self.bogus(domain, &known, &mut seen, report).await?;
            }
            Err(error) => {
                report.outcome = Outcome::DnsFailed;
                report.detail = Some(error.to_string());
            }
            Ok(found) => {
                report.dnssec = Some(found.dnssec);
                match &found.selection {
                    Selection::None => {
                        self.no_record(domain, &known, &found, &mut seen, report).await?;
                    }
                    Selection::Refused { text, why } => {
                        let text = Bytes::copy_from_slice(text);
                        self.incident(IncidentKind::RecordRefused, domain, None, why, text).await;
                        report.outcome = Outcome::RecordRefused;
                        report.detail = Some(why.to_string());
                    }
                    Selection::Ambiguous(texts) => {
                        let why = Rejection::new("A24", "several TXT records claim to be one");
                        let texts = Bytes::from(texts.join(&b'\n'));
                        let kind = IncidentKind::RecordAmbiguous;
                        self.incident(kind, domain, None, &why, texts).await;
                        report.outcome = Outcome::RecordAmbiguous;
                    }
                    Selection::One(record) => {
                        let view = View { job, row: row.as_ref(), known: &known, record };
                        self.record_found(&view, &found, &mut seen, report).await?;
                    }
                }
            }
        }
        if report.outcome == Outcome::HostBusy {
            // Nothing was looked at but DNS, which will say the same in a moment.
            return Ok(());
        }
        seen.outcome = report.outcome.to_string();
        if is_as_before(report.outcome) {
            report.seen.push(seen);
            return Ok(());
        }
        self.remember(&[seen]).await.map_err(failed)
    }

    /// A bogus answer is an event only if another path says so too.
    async fn bogus(
        &self,
        domain: &Domain,
        known: &KnownDomain,
        seen: &mut SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        let second = self.rooms.second_resolver.as_ref().unwrap_or(&self.rooms.resolver);
        let again = resolver::record::find(&**second, domain).await;
        if !matches!(again, Err(resolver::Error::Bogus { .. })) {
            report.outcome = Outcome::DnsBogusUnconfirmed;
            return Ok(());
        }
        report.outcome = Outcome::DnsBogus;
        report.dnssec = Some(Dnssec::Bogus);
        self.judge_domain(domain, known, &DomainSeen::Bogus, Dnssec::Bogus, report).await?;
        // What is over quota is judged again at the next visit.
        seen.bogus |= !is_coalesced(report);
        Ok(())
    }

    async fn no_record(
        &self,
        domain: &Domain,
        known: &KnownDomain,
        found: &Found,
        seen: &mut SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.judge_domain(domain, known, &DomainSeen::Absent, found.dnssec, report).await?;
        let gone = known.version > 0;
        report.outcome = if gone { Outcome::RecordGone } else { Outcome::NoRecord };
        report.refresh = record::refresh_at(report.started, found.ttl, None);
        if known.current > 0 && known.expires_at > report.started {
            report.refresh = report.refresh.min(known.expires_at);
        }
        (seen.bogus, seen.conflict, seen.last_served) = (false, false, None);
        Ok(())
    }

    /// Submits what the judge calls for. The chain that proves what DNS said is
    /// fetched only then: a visit that finds nothing new needs none.
    async fn judge_domain(
        &self,
        domain: &Domain,
        known: &KnownDomain,
        seen: &DomainSeen<'_>,
        dnssec: Dnssec,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (now, hold) = (report.started, self.options.hold);
        let judge =
            |chain| judge::domain(domain, known, seen, &Protection { dnssec, chain }, now, hold);
        if judge(Some(Bytes::new())).is_none() {
            return Ok(());
        }
        let Some(draft) = judge(self.chain(domain, seen, dnssec).await) else { return Ok(()) };
        self.domain_alarms(known, seen, &draft).await;
        let (name, events) = (Name::Domain(domain.clone()), draft.events);
        let entered = self.enter(Draft::Domain(draft), name, events).await?;
        report.entries.push(entered);
        Ok(())
    }

    /// Keeps each alarm of a draft, before the log has it: it may be the last
    /// visit that sees it.
    async fn domain_alarms(&self, known: &KnownDomain, seen: &DomainSeen<'_>, draft: &DomainDraft) {
        if draft.events.alarms().is_empty() {
            return;
        }
        let unjudged = match seen {
            DomainSeen::Bogus => self.rooms.resolver.unjudged(&draft.domain).await,
            DomainSeen::Record { .. } | DomainSeen::Absent => Bytes::new(),
        };
        for incident in alarm::of_domain(known, seen, draft, unjudged, self.rooms.clock.now()) {
            self.report(incident).await;
        }
    }

    /// The DNSSEC chain of what was seen, if it can be had and says the same.
    async fn chain(&self, domain: &Domain, seen: &DomainSeen<'_>, dnssec: Dnssec) -> Option<Bytes> {
        let text = match seen {
            DomainSeen::Record { record, .. } => Some(record.text.as_slice()),
            DomainSeen::Absent => None,
            DomainSeen::Bogus => return None,
        };
        if !matches!(dnssec, Dnssec::Secure | Dnssec::Insecure) {
            return None;
        }
        let evidence = match self.rooms.resolver.evidence(domain, self.rooms.clock.now()).await {
            Ok(evidence) => evidence?,
            Err(error) => {
                tracing::debug!(%domain, %error, "no DNSSEC chain");
                return None;
            }
        };
        let observed = &evidence.observed;
        // What an insecure domain says is in no chain.
        let same = dnssec == Dnssec::Insecure || observed.record.as_deref() == text;
        (observed.dnssec == dnssec && same).then_some(evidence.chain)
    }

    async fn enter(&self, draft: Draft, name: Name, events: Events) -> Result<Entered, Error> {
        match self.rooms.sink.submit(draft).await {
            Ok(placed) => Ok(Entered { name, events, placed }),
            Err(source) => Err(Error::Log { domain: name.domain().clone(), source }),
        }
    }

    async fn incident(
        &self,
        kind: IncidentKind,
        domain: &Domain,
        address: Option<&Address>,
        why: &Rejection,
        bytes: Bytes,
    ) {
        let at = self.rooms.clock.now();
        self.report(Incident::new(kind, domain, address, why.clone(), bytes, at)).await;
    }

    /// Of what a record does not allow.
    async fn under_record(
        &self,
        kind: IncidentKind,
        domain: &Domain,
        record: &Record,
        why: &Rejection,
        bytes: Bytes,
    ) {
        let record = Bytes::copy_from_slice(&record.text);
        let at = self.rooms.clock.now();
        let incident = Incident::new(kind, domain, None, why.clone(), bytes, at);
        self.report(Incident { record, ..incident }).await;
    }

    pub(super) async fn report(&self, incident: Incident) {
        self.metrics.incidents.with_label_values(&[incident.kind.as_str()]).inc();
        self.rooms.incidents.report(incident).await;
    }
}

/// Whether only the time of it is news, which may be written down later and with
/// the rest: lost, it is seen again.
fn is_as_before(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Confirmed | Outcome::Claimed)
}

/// Whether the domain's own draft, which is the first, is over quota.
fn is_coalesced(report: &Report) -> bool {
    report.entries.first().is_some_and(|entered| entered.placed == Placed::Coalesced)
}

/// What a visit with a usable record goes by.
struct View<'a> {
    job: &'a Job,
    row: Option<&'a DomainRow>,
    known: &'a KnownDomain,
    record: &'a Record,
}

/// The DX of one visit: a connection that is opened again when it broke.
struct Dx<'a> {
    /// Signets are fetched, whatever the DX says of them.
    insist: bool,
    visitor: &'a Visitor,
    domain: &'a Domain,
    record: &'a Record,
    dnssec: Dnssec,
    session: Option<Session>,
    /// Signets that this session has given; one that was kept gave some before.
    given: u32,
    reopenings: u32,
}

impl Dx<'_> {
    async fn session(&mut self) -> Result<&mut Session, Failure> {
        if self.session.is_none() {
            if self.reopenings == 0 {
                let detail = "the connection broke too often".to_owned();
                return Err(Failure::new(Outcome::Dx("truncated"), detail));
            }
            self.reopenings -= 1;
            let reached = self.reopened().await?;
            self.given = u32::from(reached.is_kept());
            self.session = Some(reached);
        }
        self.session.as_mut().ok_or_else(|| Failure::new(Outcome::Ours, "no session".to_owned()))
    }

    /// The connection that broke made room for this one, but for those who came
    /// in between.
    async fn reopened(&self) -> Result<Session, Failure> {
        let mut waits = 0;
        loop {
            let reached = self.visitor.reach(self.domain, self.record, self.dnssec).await;
            match reached {
                Err(Failure { outcome: Outcome::HostBusy, later: Some(at), .. })
                    if waits < WAITS =>
                {
                    waits += 1;
                    let wait = at.since(self.visitor.rooms.clock.now());
                    tokio::time::sleep(Duration::from_millis(wait).min(WAIT)).await;
                }
                reached => return reached.map(|(session, _)| session),
            }
        }
    }

    /// The session is good: whatever breaks later is another break.
    fn gave(&mut self) {
        self.given += 1;
        self.reopenings = REOPENINGS;
    }

    /// Whether the host may only have ended a session that was used for long
    /// enough. Its goodbye is text that nothing asked for, so it is malformed.
    fn is_used_up(&self, error: &client::Error) -> bool {
        use client::Error::{Malformed, Refused, Slow, Truncated};
        let ended = match error {
            Truncated | Malformed(_) | Slow(Phase::Session) => true,
            Refused { code, .. } => *code == 421,
            _ => false,
        };
        ended && self.given > 0
    }

    /// Keeps the session for other domains of the host, if it was of use, or
    /// says goodbye.
    async fn leave(&mut self, good: bool) {
        let kept = &self.visitor.options.dmtp.kept;
        let over = match (self.session.take(), good) {
            (Some(session), true) => kept.put(session),
            (session, _) => session,
        };
        if let Some(session) = over {
            session.quit().await;
        }
    }

    /// What came in the place of a signet. Ask before [`Dx::judge`].
    fn spoiled(&self, error: &client::Error) -> Option<Spoiled> {
        self.session.as_ref()?.spoiled(error)
    }

    /// After any error but an answer a session is of no more use.
    fn judge(&mut self, error: &client::Error) -> Failure {
        let closing = matches!(error, client::Error::Refused { code: 421, .. });
        if error.fault() != Fault::Answer || closing {
            self.session = None;
        }
        Failure::dx(error)
    }
}

impl Visitor {
    async fn record_found(
        &self,
        view: &View<'_>,
        found: &Found,
        seen: &mut SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        let View { job, row, known, record } = *view;
        let now = report.started;
        report.refresh = record::refresh_at(now, found.ttl, record.ttl);
        let conflict = found.conflict.unwrap_or(known.conflict);

        let dnssec = found.dnssec;
        let reached = self.reach(&job.domain, record, dnssec).await;
        let (session, mut failure) = match reached {
            Ok((session, accepted)) => {
                report.certificate = Some(accepted.how);
                (Some(session), None)
            }
            Err(Failure { outcome: Outcome::HostBusy, detail, later }) => {
                report.outcome = Outcome::HostBusy;
                (report.detail, report.later) = (Some(detail), later);
                return Ok(());
            }
            Err(failure) => (None, Some(failure)),
        };
        report.later = failure.as_ref().and_then(|failure| failure.later);
        let reopenings = if session.is_some() { REOPENINGS } else { 0 };
        let domain = &job.domain;
        let given = session.as_ref().map_or(0, |session| u32::from(session.is_kept()));
        let insist = job.insist;
        let mut dx =
            Dx { visitor: self, insist, domain, record, dnssec, session, given, reopenings };
        let mut served = None;
        if failure.is_none() {
            match self.org_signet(&mut dx).await {
                Ok(org) => served = Some(org),
                Err(why) => failure = Some(why),
            }
        }

        let whole = self.with_org(known, served.as_ref()).await;
        let known = &whole.map_err(|source| Error::Known { domain: domain.clone(), source })?;
        let other = found.other.as_slice();
        let what = DomainSeen::Record { record, conflict, other, org: served.as_ref() };
        self.judge_domain(domain, known, &what, found.dnssec, report).await?;
        if is_coalesced(report) {
            // Not in the log, so nothing can be said to be valid under it.
            report.outcome = Outcome::Coalesced;
            dx.leave(true).await;
            return Ok(());
        }
        let entered = report.entries.last().map(|entered| entered.placed);
        let version = match entered {
            Some(Placed::Version(version)) => version,
            _ => known.current,
        };
        let running = (known.version > 0).then_some(known.expires_at);
        let end = record::expires_at(running, now, record.expiry_days);
        let start = seen.validity.filter(|_| running == Some(end)).map_or(now.millis(), |v| v.0);
        seen.validity = Some((start, end.millis()));
        (seen.bogus, seen.conflict) = (false, conflict);
        seen.last_served = Some(sha256(&record.text));
        if served.is_some() {
            (seen.version, seen.confirmed_at) = (version, now);
        }

        report.outcome = match (&failure, entered) {
            (Some(failure), _) => failure.outcome,
            (None, Some(_)) => Outcome::Changed,
            (None, None) => Outcome::Confirmed,
        };
        report.detail = failure.map(|failure| failure.detail);
        // The org signet may be the known one, if only that could not be had.
        let org =
            served.or_else(|| org::validate(known.org.as_ref()?, &record.poks, Some(domain)).ok());
        if let (Some(org), true) = (org, version > 0) {
            let old = row.map(|row| row.org_signets.as_slice()).unwrap_or_default();
            let current = sha256(org.signet().bytes());
            let old: Vec<_> = old.iter().filter(|old| old.signet != current).copied().collect();
            let authority = Authority { org, version, old: self.old_orgs(domain, &old).await? };
            self.users(&mut dx, &job.users, &authority, report).await?;
        }
        let gave = |outcome: Outcome| outcome.is_good() && outcome != Outcome::NotFound;
        let good = gave(report.outcome) && report.users.iter().all(|(_, outcome)| gave(*outcome));
        dx.leave(good).await;
        Ok(())
    }

    /// `SGNT <domain>`, valid under one of the record's POKs.
    async fn org_signet(&self, dx: &mut Dx<'_>) -> Result<ValidOrgSignet, Failure> {
        let name = Name::Domain(dx.domain.clone());
        let mut asked = dx.session().await?.signet(&name, None).await;
        while let Some(error) = asked.as_ref().err().filter(|error| dx.is_used_up(error)) {
            dx.judge(error);
            asked = dx.session().await?.signet(&name, None).await;
        }
        let bytes = match asked {
            Ok(bytes) => bytes,
            Err(client::Error::NotFound) => {
                let detail = "the DX has no org signet".to_owned();
                return Err(Failure::new(Outcome::NotFound, detail));
            }
            Err(error) => {
                if let Some(Spoiled { bytes, why, .. }) = dx.spoiled(&error) {
                    let kind = IncidentKind::OrgSignetInvalid;
                    self.under_record(kind, dx.domain, dx.record, &why, bytes).await;
                }
                return Err(dx.judge(&error));
            }
        };
        let valid = Signet::decode_with_limit(&bytes, self.options.dmtp.object)
            .and_then(|signet| org::validate(&signet, &dx.record.poks, Some(dx.domain)));
        match valid {
            Ok(org) => Ok(org),
            Err(why) => {
                let kind = IncidentKind::OrgSignetInvalid;
                self.under_record(kind, dx.domain, dx.record, &why, bytes.into()).await;
                Err(Failure::new(Outcome::OrgSignetInvalid, why.to_string()))
            }
        }
    }

    /// Connects to the first DX host that can be had (§6.2) and whose
    /// certificate is acceptable (§6.3).
    async fn reach(
        &self,
        domain: &Domain,
        record: &Record,
        dnssec: Dnssec,
    ) -> Result<(Session, certificate::Accepted), Failure> {
        let (dmtp, ports) = (&self.options.dmtp, self.ports());
        let (resolver, clock) = (&*self.rooms.resolver, &self.rooms.clock);
        let route = Route { domain, record, dnssec };
        let mut mismatches = Vec::new();
        let reached = reach::reach(resolver, route, &ports, dmtp, clock, &mut mismatches).await;
        self.mismatched(domain, record, mismatches).await;
        reached.map_err(|unreached| {
            let detail = unreached.to_string();
            match unreached {
                Unreached::NoHost => Failure::new(Outcome::NoHost, detail),
                Unreached::Dns(_) => Failure::new(Outcome::DnsFailed, detail),
                Unreached::Dx(error) => Failure::dx(&error),
                Unreached::Later { later } => {
                    let outcome = match later {
                        Later::Busy(_) => Outcome::HostBusy,
                        Later::Resting(_) => Outcome::HostResting,
                    };
                    Failure { outcome, detail, later: Some(later.at()) }
                }
            }
        })
    }

    pub(super) fn ports(&self) -> Ports {
        Ports { dx: self.options.dx_port, dual: self.options.dual_ports.clone() }
    }

    /// Keeps certificates that the record did not accept.
    pub(super) async fn mismatched(
        &self,
        domain: &Domain,
        record: &Record,
        mismatches: Vec<Mismatch>,
    ) {
        for Mismatch { why, der } in mismatches {
            let kind = IncidentKind::CertificateMismatch;
            self.under_record(kind, domain, record, &why, der.into()).await;
        }
    }
}

/// By whom user signets may be signed.
struct Authority {
    org: ValidOrgSignet,
    /// The domain's version that named it.
    version: u64,
    /// Those before it, newest first: for old links only.
    old: Vec<(ValidOrgSignet, u64)>,
}

/// A mailbox as served.
struct Fetched {
    served: Vec<u8>,
    history: Vec<Vec<u8>>,
}

/// What a look at a mailbox came to: drafts to submit, or none.
struct Looked {
    seen: SeenRow,
    drafts: Vec<UserDraft>,
    /// Bytes of the tip in force before.
    tip: Bytes,
    /// Served now, as [`SeenRow::last_served`].
    served: Option<Hash>,
    /// If there is no draft.
    outcome: Outcome,
}

impl Looked {
    fn nothing(seen: SeenRow, outcome: Outcome) -> Looked {
        Looked { drafts: Vec::new(), tip: Bytes::new(), served: seen.last_served, seen, outcome }
    }

    /// Bytes that wait with it.
    fn size(&self) -> usize {
        self.drafts.iter().filter_map(|draft| draft.signet.as_ref()).map(Bytes::len).sum()
    }
}

/// The row of a name that was never seen.
fn unseen(name: &Name) -> SeenRow {
    SeenRow {
        name: name.clone(),
        version: 0,
        confirmed_at: Timestamp::default(),
        attempted_at: Timestamp::default(),
        validity: None,
        last_served: None,
        bogus: false,
        conflict: false,
        outcome: String::new(),
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
    async fn users(
        &self,
        dx: &mut Dx<'_>,
        users: &[Address],
        authority: &Authority,
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
        let Looked { mut seen, drafts, mut tip, served, mut outcome } = looked;
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
            let entered = self.enter(Draft::User(draft), name.clone(), events).await?;
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
        authority: &Authority,
    ) -> Result<Looked, Error> {
        let failed = |source| Error::Known { domain: address.domain().clone(), source };
        if self.is_forgotten(address).await? {
            let seen = unseen(&Name::Address(address.clone()));
            return Ok(Looked::nothing(seen, Outcome::Forgotten));
        }
        let row = self.user_row(address).await.map_err(failed)?;
        let mut seen = self.seen(&Name::Address(address.clone())).await.map_err(failed)?;
        let known = self.known_user(row.as_ref(), &seen).await.map_err(failed)?;
        seen.attempted_at = self.rooms.clock.now();
        Ok(match self.look(dx, address, &known, authority, &seen).await {
            Ok((drafts, served, outcome)) => {
                if outcome == Outcome::Confirmed {
                    (seen.version, seen.confirmed_at) = (known.current, seen.attempted_at);
                }
                let tip = known.chain.last().map(|tip| Bytes::copy_from_slice(tip.bytes()));
                Looked { seen, drafts, tip: tip.unwrap_or_default(), served, outcome }
            }
            Err(failure) => Looked::nothing(seen, failure.outcome),
        })
    }

    /// Drafts, what was served, and the outcome if there is no draft.
    async fn look(
        &self,
        dx: &mut Dx<'_>,
        address: &Address,
        known: &KnownUser,
        authority: &Authority,
        seen: &SeenRow,
    ) -> Result<(Vec<UserDraft>, Option<Hash>, Outcome), Failure> {
        let observed = seen.attempted_at;
        if self.is_claimed_current(dx, address, known, seen).await? {
            return Ok((Vec::new(), seen.last_served, Outcome::Claimed));
        }
        let mut fetched = self.fetch(dx.session().await?, address, known).await;
        if let Some(error) = fetched.as_ref().err().filter(|error| dx.is_used_up(error)) {
            dx.judge(error);
            fetched = self.fetch(dx.session().await?, address, known).await;
        }
        let fetched = match fetched {
            Ok(fetched) => {
                dx.gave();
                fetched
            }
            Err(client::Error::NotFound) => {
                let gone = judge::user_gone(address, known, observed, Some(authority.version));
                return Ok((gone.into_iter().collect(), None, Outcome::NotFound));
            }
            Err(error) => {
                if let Some(Spoiled { bytes, is_history, why }) = dx.spoiled(&error) {
                    let kind = match is_history {
                        true => IncidentKind::LinkInvalid,
                        false => IncidentKind::SignetInvalid,
                    };
                    self.incident(kind, address.domain(), Some(address), &why, bytes).await;
                }
                return Err(dx.judge(&error));
            }
        };
        let path = self.validated(address, known, authority, fetched).await?;
        let served = path.last().map(|last| sha256(last.signet.signet().bytes()));
        let drafts = judge::user(address, known, &path, observed, self.options.hold);
        let is_current = in_force(known, &path);
        let outcome = if is_current { Outcome::Confirmed } else { Outcome::NotInForce };
        Ok((drafts, served, outcome))
    }

    /// Whether the DX says that nothing changed, and its word is enough (§7.2
    /// step 2): the signet itself was seen not long ago, and the next visit comes
    /// in time to see it again.
    async fn is_claimed_current(
        &self,
        dx: &mut Dx<'_>,
        address: &Address,
        known: &KnownUser,
        seen: &SeenRow,
    ) -> Result<bool, Failure> {
        if dx.insist {
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
            let is_known = Signet::decode_with_limit(&served, self.options.dmtp.object)
                .is_ok_and(|served| tip.is_some_and(|tip| judge::is_copy(tip, &served)));
            if is_known {
                return Ok(Fetched { served, history: Vec::new() });
            }
            let history = history(session, address, start.as_ref()).await?;
            let agrees = history.last().is_none_or(|last| *last == served);
            if agrees || !again {
                return Ok(Fetched { served, history });
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
        authority: &Authority,
        fetched: Fetched,
    ) -> Result<Vec<Served>, Failure> {
        let Fetched { served, history } = fetched;
        let limit = self.options.dmtp.object;
        let decoded = Signet::decode_with_limit(&served, limit);
        // What is known was valid when it was logged; its signer may have retired.
        let retired = decoded.as_ref().ok().and_then(|signet| {
            let tip = known.chain.last().filter(|tip| judge::is_copy(tip, signet))?;
            authority.any(tip, address)
        });
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
                return Err(Failure::new(outcome, why.to_string()));
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
            let valid = Signet::decode_with_limit(&bytes, limit)
                .and_then(|signet| authority.ever(&signet, address));
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

impl Authority {
    fn current(&self, signet: &Signet, address: &Address) -> Result<Served, Rejection> {
        let signet = user::validate(signet, &self.org, Some(address))?;
        Ok(Served { signet, domain_version: Some(self.version) })
    }

    /// Valid now, or when an older org signet was in force.
    fn ever(&self, signet: &Signet, address: &Address) -> Result<Served, Rejection> {
        self.current(signet, address).or_else(|why| {
            let old = self.old.iter().find_map(|(org, version)| {
                let signet = user::validate(signet, org, Some(address)).ok()?;
                Some(Served { signet, domain_version: Some(*version) })
            });
            old.ok_or(why)
        })
    }

    fn any(&self, signet: &Signet, address: &Address) -> Option<Served> {
        self.ever(signet, address).ok()
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
    report.users.push((settled.address, outcome));
    Ok(())
}

// What is known, from rows and objects.
impl Visitor {
    async fn row(&self, domain: &str) -> Result<Option<DomainRow>, store::Error> {
        rows::find(&*self.rooms.state, domain.as_bytes()).await
    }

    async fn user_row(&self, address: &Address) -> Result<Option<UserRow>, store::Error> {
        rows::find(&*self.rooms.state, &rows::user_key(address)).await
    }

    /// The name's row, or a new one.
    async fn seen(&self, name: &Name) -> Result<SeenRow, store::Error> {
        let row = rows::find(&*self.rooms.state, name.as_str().as_bytes()).await?;
        Ok(row.unwrap_or_else(|| unseen(name)))
    }

    /// Whether the log has a mailbox; if that cannot be said, it has.
    pub(super) async fn is_logged(&self, address: &Address) -> bool {
        self.user_row(address).await.map_or(true, |row| row.is_some())
    }

    /// Without mailboxes that were forgotten since they were seen.
    pub(super) async fn still_known(&self, seen: Vec<SeenRow>) -> Vec<SeenRow> {
        let mut known = Vec::with_capacity(seen.len());
        for row in seen {
            let is_known = match row.name.address() {
                Some(address) => self.is_logged(address).await,
                None => true,
            };
            if is_known {
                known.push(row);
            }
        }
        known
    }

    /// Whether a mailbox was forgotten. One that has a row was not, or is back.
    pub(super) async fn is_forgotten(&self, address: &Address) -> Result<bool, Error> {
        let failed = |source| Error::Known { domain: address.domain().clone(), source };
        if self.user_row(address).await.map_err(failed)?.is_some() {
            return Ok(false);
        }
        let failed = |source| Error::Log { domain: address.domain().clone(), source };
        self.rooms.sink.is_forgotten(address).await.map_err(failed)
    }

    async fn remember(&self, seen: &[SeenRow]) -> Result<(), store::Error> {
        let mut batch = Batch::new();
        for row in seen {
            batch.row(row);
        }
        self.rooms.state.apply(batch).await.map(drop)
    }

    /// `served` is the record's text if there is one now. If it is the known one,
    /// the known org signet is left to [`Visitor::with_org`]: as a rule nothing
    /// has changed, and then no object need be read.
    async fn known_domain(
        &self,
        row: Option<&DomainRow>,
        seen: &SeenRow,
        served: Option<&[u8]>,
    ) -> Result<KnownDomain, store::Error> {
        let Some(row) = row else { return Ok(KnownDomain::new()) };
        let public = &self.rooms.public;
        // A blob that was withdrawn leaves no text, and any text differs from it.
        let same = served.filter(|text| row.record == Some(sha256(text)));
        let text = match (&row.record, same) {
            (Some(_), Some(text)) => text.to_vec(),
            (Some(hash), None) => {
                let text = public.get(&keys::blob(&hash.0), record::MAX_RECORD as u64).await?;
                text.map(Vec::from).unwrap_or_default()
            }
            (None, _) => Vec::new(),
        };
        let org = match &row.org_signet {
            Some(hash) if same.is_none() => self.org_blob(hash).await?,
            _ => None,
        };
        let last = |event: Event| row.events.contains(&event.number());
        // Without a row of what was seen last, the latest entry says it.
        let fresh = seen.attempted_at == Timestamp::default();
        let expires_at = match seen.validity {
            Some((_, end)) => Timestamp::from_millis(end),
            None => {
                let days = Record::parse(&text).map_or(0, |record| record.expiry_days);
                record::expires_at(None, row.logged_at, days)
            }
        };
        Ok(KnownDomain {
            version: row.version,
            current: row.current,
            poks: row.poks.iter().map(|pok| pok.0).collect(),
            dnssec: row.dnssec,
            record: text,
            org,
            org_sha256: row.org_signet.map(|hash| hash.0),
            withdrawn: row.withdrawn,
            expires_at,
            bogus: seen.bogus || fresh && last(Event::DnssecBogus),
            conflict: seen.conflict || fresh && last(Event::NameConflict),
        })
    }

    /// The same with the known org signet, which may be the one that is served.
    async fn with_org(
        &self,
        known: &KnownDomain,
        served: Option<&ValidOrgSignet>,
    ) -> Result<KnownDomain, store::Error> {
        let mut known = known.clone();
        if let (None, Some(hash)) = (&known.org, known.org_sha256.map(Hash)) {
            let served = served.map(ValidOrgSignet::signet);
            known.org = match served.filter(|org| sha256(org.bytes()) == hash) {
                Some(org) => Some(org.clone()),
                None => self.org_blob(&hash).await?,
            };
        }
        Ok(known)
    }

    /// The known chain. A link whose bytes are gone cuts off what is before it.
    async fn known_user(
        &self,
        row: Option<&UserRow>,
        seen: &SeenRow,
    ) -> Result<KnownUser, store::Error> {
        let Some(row) = row else { return Ok(KnownUser::default()) };
        let mut chain = Vec::new();
        for LinkRow { signet, .. } in &row.chain {
            let bytes = self.rooms.state.get(Table::Signets, &signet.0).await?;
            match bytes.as_deref().and_then(|bytes| self.decode(bytes)) {
                Some(signet) => chain.push(signet),
                None => chain.clear(),
            }
        }
        Ok(KnownUser {
            current: row.current,
            chain,
            withdrawn: row.withdrawn,
            last_served: seen.last_served.map(|hash| hash.0),
        })
    }

    /// Old org signets that can still be had, newest first. They verified when
    /// they were logged, under the POK in their own first field.
    async fn old_orgs(
        &self,
        domain: &Domain,
        old: &[rows::OrgRow],
    ) -> Result<Vec<(ValidOrgSignet, u64)>, Error> {
        let mut known = BTreeMap::new();
        for rows::OrgRow { signet, version } in old {
            let signet = self.org_blob(signet).await;
            let signet =
                signet.map_err(|source| Error::Known { domain: domain.clone(), source })?;
            let valid = signet.and_then(|signet| {
                org::validate(&signet, &[signet.signing_key()], Some(domain)).ok()
            });
            if let Some(org) = valid {
                known.insert(*version, org);
            }
        }
        Ok(known.into_iter().rev().map(|(version, org)| (org, version)).collect())
    }

    async fn org_blob(&self, sha256: &Hash) -> Result<Option<Signet>, store::Error> {
        let limit = self.options.dmtp.object as u64;
        let bytes = self.rooms.public.get(&keys::blob(&sha256.0), limit).await?;
        Ok(bytes.and_then(|bytes| self.decode(&bytes)))
    }

    fn decode(&self, bytes: &[u8]) -> Option<Signet> {
        Signet::decode_with_limit(bytes, self.options.dmtp.object).ok()
    }
}

fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}
