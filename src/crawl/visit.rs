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
//! Left out: mailboxes of a domain whose record is gone and has expired.

mod dx;
mod known;
mod mailboxes;

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use self::dx::Dx;
use self::mailboxes::Authority;
use super::alarm;
use super::compare::{LOOKING, LOOKING_BELOW_ONE, Outlook, VANTAGES, Vantage};
use super::frontier::{Insist, Job};
use super::judge::{self, DomainSeen, KnownDomain, Protection};
use super::quota::UNLOGGED;
use super::{
    Entered, Error, Incident, IncidentKind, Metrics, Options, Outcome, Placed, Report, Rooms,
};
use crate::dime::certificate;
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Record, Selection};
use crate::dime::signet::Signet;
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp};
use crate::dmtp::client::{self, Session, Spoiled};
use crate::dmtp::hosts::{Hosts, Later};
use crate::dmtp::reach::{self, Mismatch, Ports, Route, Unreached};
use crate::proof::draft::{DomainDraft, Draft};
use crate::proof::entry::Events;
use crate::resolver::Slots;
use crate::resolver::record::Found;
use crate::resolver::{self, Evidence};
use crate::store::rows::{DomainRow, Hash, SeenRow};

/// How often in a row a visit opens a new connection after one broke.
const REOPENINGS: u32 = 3;

/// Does visits; shared by all that go on.
pub(super) struct Visitor {
    pub rooms: Rooms,
    pub options: Options,
    pub metrics: Metrics,
    /// Where visits are made from, and the other places to look from.
    pub main: Outlook,
    pub others: Vec<Outlook>,
    pub looking: Slots,
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

    fn is_busy(&self) -> bool {
        self.outcome == Outcome::HostBusy
    }
}

impl Visitor {
    /// What a DX host did. That there is no room for what it says is not its doing,
    /// and passes.
    fn of_dx(&self, error: &client::Error) -> Failure {
        match error {
            client::Error::Crowded => {
                let later = self.rooms.clock.now().plus(self.options.pace.back_off);
                let failure = Failure::new(Outcome::HostBusy, error.to_string());
                Failure { later: Some(later), ..failure }
            }
            error => Failure::new(Outcome::Dx(error.reason()), error.to_string()),
        }
    }

    pub fn new(rooms: Rooms, mut options: Options, metrics: Metrics) -> Visitor {
        let limits = options.hosts;
        options.dmtp.hosts.get_or_insert_with(|| Hosts::new(limits));
        let resolver = Arc::clone(&rooms.resolver);
        let proxy = options.dmtp.proxy.clone();
        let main = Vantage { name: "main".to_owned(), resolver, proxy };
        Visitor {
            main: Outlook::new(main, &options.dmtp),
            others: Vec::new(),
            looking: Slots::new(LOOKING, LOOKING_BELOW_ONE),
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
        // One ahead of us is from a clock that was.
        let is_past = seen.attempted_at <= report.started;
        report.previous = if is_past { seen.attempted_at } else { Timestamp::default() };
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
                        self.unusable(domain, &known, &found, &mut seen, report).await?;
                    }
                    Selection::Ambiguous(texts) => {
                        let why = Rejection::new("A24", "several TXT records claim to be one");
                        let texts = Bytes::from(texts.join(&b'\n'));
                        let kind = IncidentKind::RecordAmbiguous;
                        self.incident(kind, domain, None, &why, texts).await;
                        report.outcome = Outcome::RecordAmbiguous;
                        self.unusable(domain, &known, &found, &mut seen, report).await?;
                    }
                    Selection::One(record) => {
                        let view = View { job, row: row.as_ref(), known: &known, record };
                        return self.record_found(&view, &found, seen, report).await;
                    }
                }
            }
        }
        self.saw_domain(seen, report).await?;
        if report.outcome == Outcome::RecordGone {
            self.in_grace(job, row.as_ref(), &known, report).await?;
        }
        Ok(())
    }

    /// Notes when the domain was seen: before its mailboxes, which may take longer
    /// than there is time.
    async fn saw_domain(&self, mut seen: SeenRow, report: &mut Report) -> Result<(), Error> {
        if report.outcome == Outcome::HostBusy && report.entries.is_empty() {
            // Nothing was looked at but DNS, which will say the same in a moment.
            return Ok(());
        }
        seen.outcome = report.outcome.to_string();
        if is_as_before(report.outcome) {
            report.seen.push(seen);
            return Ok(());
        }
        let domain = report.domain.clone();
        self.remember(&[seen]).await.map_err(|source| Error::Known { domain, source })
    }

    /// While a record that is gone is in force (§1.8), for those who have it still:
    /// its mailboxes by it, and by the org signet in force.
    async fn in_grace(
        &self,
        job: &Job,
        row: Option<&DomainRow>,
        known: &KnownDomain,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (domain, dnssec) = (&job.domain, known.dnssec);
        if known.current == 0 || known.expires_at <= report.started || job.users.is_empty() {
            return Ok(());
        }
        let Ok(record) = &Record::parse(&known.record) else { return Ok(()) };
        let org = known.org.as_ref();
        let org = org.and_then(|org| org::validate(org, &record.poks, Some(domain)).ok());
        let Some(org) = org else { return Ok(()) };
        let session = match self.reach(domain, record, dnssec).await {
            Ok((session, accepted)) => {
                report.certificate = Some(accepted.how);
                Some(session)
            }
            Err(failure) => {
                let is_busy = failure.is_busy();
                (report.detail, report.later) = (Some(failure.detail), failure.later);
                if is_busy {
                    return Ok(());
                }
                None
            }
        };
        let reopenings = if session.is_some() { REOPENINGS } else { 0 };
        let given = session.as_ref().map_or(0, |session| u32::from(session.is_kept()));
        let (insist, visitor, held) = (job.insist.clone(), self, None);
        let since = row.map_or(Timestamp::default(), |row| row.logged_at);
        let dx =
            Dx { insist, since, visitor, domain, record, dnssec, session, given, reopenings, held };
        let authority = Authority::new(domain, vec![(org, known.current)], known.current, row);
        self.look_at_users(dx, job, Some(authority), report).await
    }

    /// A bogus answer is an event only if another path says so too: asked again, the
    /// same one would only say again what may be its own doing (threat 7).
    async fn bogus(
        &self,
        domain: &Domain,
        known: &KnownDomain,
        seen: &mut SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        let again = match &self.rooms.second_resolver {
            Some(second) => Some(resolver::record::find(&**second, domain).await),
            None => None,
        };
        if !matches!(again, Some(Err(resolver::Error::Bogus { .. }))) {
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

    /// The other name counts for nothing here, but for those who ask it alone: what
    /// it says is told over what is in force.
    async fn unusable(
        &self,
        domain: &Domain,
        known: &KnownDomain,
        found: &Found,
        seen: &mut SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        let other = conflict(known, found);
        if let Some(conflict) = other {
            let texts = match &found.selection {
                Selection::Refused { text, .. } => std::slice::from_ref(text),
                Selection::Ambiguous(texts) => texts,
                Selection::None | Selection::One(_) => &[],
            };
            let what = DomainSeen::Unusable { texts, conflict, other: &found.other };
            self.judge_domain(domain, known, &what, found.dnssec, report).await?;
        }
        // As with a bogus answer.
        if !is_coalesced(report) {
            seen.other = other.map(Hash);
        }
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
        (seen.bogus, seen.other, seen.last_served) = (false, None, None);
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
        let evidence = self.chain(known, domain, seen, dnssec).await;
        let at = self.rooms.clock.now();
        let lasting = evidence.as_ref().filter(|evidence| evidence.is_lasting(at));
        let Some(draft) = judge(lasting.map(|lasting| lasting.chain.clone())) else {
            return Ok(());
        };
        self.domain_alarms(known, seen, &draft, evidence).await;
        let (name, events) = (Name::Domain(domain.clone()), draft.events);
        let entered = self.enter(Draft::Domain(draft), known.version, name, events).await?;
        report.entries.push(entered);
        Ok(())
    }

    /// Keeps each alarm of a draft, before the log has it: it may be the last
    /// visit that sees it.
    async fn domain_alarms(
        &self,
        known: &KnownDomain,
        seen: &DomainSeen<'_>,
        draft: &DomainDraft,
        evidence: Option<Evidence>,
    ) {
        let unjudged = match seen {
            DomainSeen::Bogus => self.rooms.resolver.unjudged(&draft.domain).await,
            _ => Bytes::new(),
        };
        let at = self.rooms.clock.now();
        let chain = evidence.filter(|evidence| evidence.observed.until >= at);
        let chain = chain.map(|evidence| evidence.chain).unwrap_or_default();
        for incident in alarm::of_domain(known, seen, draft, &chain, unjudged, at) {
            self.report(incident).await;
        }
    }

    /// The DNSSEC chain of what was seen, if it can be had and says the same.
    async fn chain(
        &self,
        known: &KnownDomain,
        domain: &Domain,
        seen: &DomainSeen<'_>,
        dnssec: Dnssec,
    ) -> Option<Evidence> {
        let text = match seen {
            DomainSeen::Record { record, .. } => Some(record.text.as_slice()),
            DomainSeen::Unusable { .. } => Some(known.record.as_slice()),
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
        (observed.dnssec == dnssec && same).then_some(evidence)
    }

    /// `after` is the version that the draft was judged from.
    async fn enter(
        &self,
        draft: Draft,
        after: u64,
        name: Name,
        events: Events,
    ) -> Result<Entered, Error> {
        match self.rooms.sink.submit(draft, after).await {
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

/// What the other name says instead, see [`judge::other_name`]; as it was known, if
/// it could not be asked.
fn conflict(known: &KnownDomain, found: &Found) -> Option<[u8; 32]> {
    match found.conflict {
        Some(true) => Some(judge::other_name(&found.other)),
        Some(false) => None,
        None => known.other,
    }
}

/// What a visit with a usable record goes by.
struct View<'a> {
    job: &'a Job,
    row: Option<&'a DomainRow>,
    known: &'a KnownDomain,
    record: &'a Record,
}

impl Visitor {
    async fn record_found(
        &self,
        view: &View<'_>,
        found: &Found,
        mut seen: SeenRow,
        report: &mut Report,
    ) -> Result<(), Error> {
        let View { job, row, known, record } = *view;
        let now = report.started;
        report.refresh = record::refresh_at(now, found.ttl, record.ttl);
        let conflict = conflict(known, found);

        let dnssec = found.dnssec;
        let reached = self.reach(&job.domain, record, dnssec).await;
        let (session, mut failure) = match reached {
            Ok((session, accepted)) => {
                report.certificate = Some(accepted.how);
                (Some(session), None)
            }
            Err(failure) => (None, Some(failure)),
        };
        let reopenings = if session.is_some() { REOPENINGS } else { 0 };
        let domain = &job.domain;
        let given = session.as_ref().map_or(0, |session| u32::from(session.is_kept()));
        let (insist, visitor, held) = (job.insist.clone(), self, None);
        let since = row.map_or(Timestamp::default(), |row| row.logged_at);
        let mut dx =
            Dx { insist, since, visitor, domain, record, dnssec, session, given, reopenings, held };
        let mut served = None;
        if failure.is_none() {
            match self.org_signet(&mut dx).await {
                Ok(org) => served = Some(org),
                Err(why) => failure = Some(why),
            }
        }
        report.later = failure.as_ref().and_then(|failure| failure.later);
        let busy = failure.as_ref().filter(|failure| failure.is_busy());
        let is_busy = busy.is_some();
        if let Some(busy) = busy
            && !self.is_late_news(view, found, conflict, report)
        {
            report.outcome = Outcome::HostBusy;
            report.detail = Some(busy.detail.clone());
            return Ok(());
        }

        let whole = self.with_org(known, served.as_ref()).await;
        let known = &whole.map_err(|source| Error::Known { domain: domain.clone(), source })?;
        let other = found.other.as_slice();
        let what = DomainSeen::Record { record, conflict, other, org: served.as_ref() };
        self.judge_domain(domain, known, &what, found.dnssec, report).await?;
        if !report.entries.is_empty() {
            // Who changes a domain's keys may change those of its mailboxes with them.
            dx.insist = Insist::All;
        }
        if is_coalesced(report) {
            report.outcome = if is_busy { Outcome::HostBusy } else { Outcome::Coalesced };
            self.saw_domain(seen, report).await?;
            if is_busy {
                return Ok(());
            }
            let authority = Self::over_quota(view, known, served);
            return self.look_at_users(dx, job, authority, report).await;
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
        (seen.bogus, seen.other) = (false, conflict.map(Hash));
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
        self.saw_domain(seen, report).await?;
        // The org signet may be the known one, if only that could not be had.
        let org =
            served.or_else(|| org::validate(known.org.as_ref()?, &record.poks, Some(domain)).ok());
        // The mailboxes wait for their host, as do those who asked.
        let authority = org
            .filter(|_| version > 0 && !is_busy)
            .map(|org| Authority::new(domain, vec![(org, version)], version, row));
        self.look_at_users(dx, job, authority, report).await
    }

    /// Whether DNS alone tells something new of a known domain, and the last visit is
    /// so long ago that it is told without the host: a forged record may name one
    /// that is kept busy. Else it waits a moment, for one entry with the org signet.
    fn is_late_news(
        &self,
        view: &View<'_>,
        found: &Found,
        conflict: Option<[u8; 32]>,
        report: &Report,
    ) -> bool {
        let View { job, known, record, .. } = *view;
        let (now, interval) = (report.started, self.options.pace.interval);
        if known.version == 0 || now.since(report.previous) < interval.saturating_add(interval / 2)
        {
            return false;
        }
        let what = DomainSeen::Record { record, conflict, other: &found.other, org: None };
        // As with the chain that would be fetched for an entry.
        let how = Protection { dnssec: found.dnssec, chain: Some(Bytes::new()) };
        judge::domain(&job.domain, known, &what, &how, now, self.options.hold).is_some()
    }

    /// By whom user signets may be signed while the domain's own state is over
    /// quota: a swap under an org signet that is served for once must show in the
    /// log all the same (threat 19). The log goes by the org signet that it has in
    /// force, whatever the record says by now; beside it by the one that is served,
    /// which it may have of earlier.
    fn over_quota<'a>(
        view: &View<'a>,
        known: &KnownDomain,
        served: Option<ValidOrgSignet>,
    ) -> Option<Authority<'a>> {
        let View { job, row, .. } = *view;
        let (domain, version) = (&job.domain, known.current);
        let in_force = known.org.as_ref();
        let is_other = |served: &ValidOrgSignet| {
            in_force.is_none_or(|known| !judge::is_copy(known, served.signet()))
        };
        let logged = |served: &ValidOrgSignet| {
            let hash = sha256(served.signet().bytes());
            let old = row?.org_signets.iter().find(|old| old.signet == hash)?;
            Some(old.version)
        };
        let served = served.filter(is_other).map(|served| {
            let version = logged(&served).unwrap_or(UNLOGGED);
            (served, version)
        });
        let in_force =
            in_force.and_then(|org| org::validate(org, &[org.signing_key()], Some(domain)).ok());
        let orgs: Vec<_> =
            in_force.map(|in_force| (in_force, version)).into_iter().chain(served).collect();
        (version > 0 && !orgs.is_empty()).then(|| Authority::new(domain, orgs, version, row))
    }

    /// Looks at the mailboxes, if it can be said by whom their signets may be
    /// signed, and lets go of the connection.
    async fn look_at_users(
        &self,
        mut dx: Dx<'_>,
        job: &Job,
        authority: Option<Authority<'_>>,
        report: &mut Report,
    ) -> Result<(), Error> {
        if let Some(authority) = authority {
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
            Ok(org) => {
                dx.hold();
                Ok(org)
            }
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
                Unreached::Dx(error) => self.of_dx(&error),
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

fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}
