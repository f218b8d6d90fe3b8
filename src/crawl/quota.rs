//! How much of what changes becomes an entry: the quotas of threat 19, between
//! the visits and the log.
//!
//! This is the crawl room's, and not the log's, since a quota is about what
//! strangers show us: the log takes what it is given, from its operator too.
//! What is over quota becomes an incident with its bytes, and is counted and
//! hashed in the label's next entry. An alarm over quota still gets one entry
//! an hour. Its domain's alarms of the day may use the bytes of a day once more;
//! those that come after are told in the few bytes that show the key, or decoys
//! would hide a swap. Left out: one whose key takes more than [`LEAN`].
//!
//! The counters are rows that nothing else can make again, and their loss is
//! harmless: the day's quota begins anew, and the next entry tells of fewer
//! states than were coalesced. Their bytes are incidents all the same.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{Incident, IncidentKind, Incidents, Placed, Sink, Unplaced};
use crate::clock::Clock;
use crate::dime::signet::{self, Signet, build};
use crate::dime::{Address, Domain, Name, Rejection, Timestamp, suffix};
use crate::proof::draft::Draft;
use crate::proof::entry::{self, Coalesced, Event, Events, Level};
use crate::store::rows::{self, Hash, QuotaRow};
use crate::store::state::{Batch, Table};
use crate::store::{self, State};

/// Entries of one label on one day.
pub const ENTRIES: u32 = 8;
/// New mailboxes of one exact domain on one day, and new subdomains of one
/// registered domain.
pub const NEW_LABELS: u32 = 1000;
/// Mailboxes of one exact domain: labels in the map, and addresses in memory, for
/// good.
pub const MAILBOXES: u64 = 100_000;
/// Bytes of one registered domain on one day, with all names below it: signets,
/// records and DNSSEC chains as received. A rollover of a hundred thousand mailboxes.
pub const BYTES: u64 = 256 << 20;
/// An alarm for which no bytes are left has so many all the same: a signet's crypto
/// part with a hundred keys, or what a record and its chain take as a rule.
pub const LEAN: usize = 4096;
const LEAN_DOMAIN: usize = 4 * LEAN;
/// An alarm over quota gets an entry if the last is this old, milliseconds.
pub const ALARM_GAP: u64 = 3_600_000;
/// States of one label that are told apart while it is over quota; of more,
/// each that is seen counts.
const STATES: usize = 64;
/// Once a link was coalesced those after it are too, for longer than a visit
/// takes: midnight must not leave a gap in a chain. Milliseconds.
const SETTLE: u64 = 15 * 60_000;
const DAY: u64 = 86_400_000;
/// Mailboxes that are counted at once.
const PAGE: usize = 64;
/// The version of a domain's state that is over quota: the log has no entry of it,
/// so none can name it, and what was validated under it is over quota too.
pub(super) const UNLOGGED: u64 = 0;

/// The numbers that may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one label on one day.
    pub entries: u32,
    /// New labels of one domain on one day.
    pub new_labels: u32,
    /// Mailboxes of one exact domain, ever.
    pub mailboxes: u64,
    /// Bytes of one registered domain on one day; alarms may use as much again.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: ENTRIES, new_labels: NEW_LABELS, mailboxes: MAILBOXES, bytes: BYTES }
    }
}

/// A [`Sink`] that keeps quotas before another one.
pub struct Quotas {
    limits: Limits,
    sink: Arc<dyn Sink>,
    state: Arc<dyn State>,
    incidents: Arc<dyn Incidents>,
    clock: Clock,
    /// Held while rows are read and written, not while the log works. One
    /// process has a domain's lease, so its rows change in no other.
    rows: Mutex<()>,
}

/// Whether a draft goes on to the log.
enum Ruling {
    /// With what was coalesced before it; in few bytes, if there are no more.
    Admit(Option<Coalesced>, Option<Box<Draft>>),
    Coalesce,
}

impl Quotas {
    pub fn new(
        limits: Limits,
        sink: Arc<dyn Sink>,
        state: Arc<dyn State>,
        incidents: Arc<dyn Incidents>,
        clock: Clock,
    ) -> Quotas {
        Quotas { limits, sink, state, incidents, clock, rows: Mutex::new(()) }
    }

    /// Counts the draft before it is handed on, so that a crash never lets more
    /// through than the quota.
    async fn rule(&self, draft: &Subject<'_>, whole: &Draft) -> Result<Ruling, store::Error> {
        let _held = self.rows.lock().await;
        let now = self.clock.now();
        let mut row = self.row(&draft.name, now).await?;
        let has_space = self.has_space(draft, now).await?;
        let lean = if has_space || !draft.may_alarm() { None } else { lean(whole) };
        if !has_space && lean.is_none() {
            row.settle_until = now.plus(SETTLE);
            self.write(&[row]).await?;
            return Ok(Ruling::Coalesce);
        }
        let mut parent = match &draft.parent {
            Some(parent) => Some(self.row(&Name::Domain(parent.clone()), now).await?),
            None => None,
        };
        if !is_admitted(&self.limits, &mut row, parent.as_mut(), draft, has_space, now) {
            self.write(&[row]).await?;
            return Ok(Ruling::Coalesce);
        }
        let coalesced = (row.coalesced > 0)
            .then_some(Coalesced { count: row.coalesced, running_hash: row.running_hash.0 });
        let rows: Vec<QuotaRow> = parent.into_iter().chain([row]).collect();
        self.write(&rows).await?;
        self.take_space(draft, now, u64::saturating_add).await?;
        Ok(Ruling::Admit(coalesced, lean.map(Box::new)))
    }

    /// Whether there is room for its bytes, and for a mailbox that is new.
    async fn has_space(&self, draft: &Subject<'_>, now: Timestamp) -> Result<bool, store::Error> {
        let used = self.row(&Name::Domain(draft.payer.clone()), now).await?.bytes;
        // Who fills the day with what is no alarm cannot hide one by it.
        let most = match draft.events.alarms().is_empty() {
            true => self.limits.bytes,
            false => self.limits.bytes.saturating_mul(2),
        };
        if draft.size > 0 && used >= most {
            return Ok(false);
        }
        let Some(domain) = draft.new_mailbox_of() else { return Ok(true) };
        let mut row = self.row(&Name::Domain(domain.clone()), now).await?;
        let known = match row.mailboxes {
            Some(known) => known,
            None => {
                let known = self.mailboxes(domain).await?;
                row.mailboxes = Some(known);
                self.write(&[row]).await?;
                known
            }
        };
        Ok(known < self.limits.mailboxes)
    }

    /// Changes what was used by what the draft uses.
    async fn take_space(
        &self,
        draft: &Subject<'_>,
        now: Timestamp,
        change: impl Fn(u64, u64) -> u64,
    ) -> Result<(), store::Error> {
        if draft.size > 0 {
            let mut row = self.row(&Name::Domain(draft.payer.clone()), now).await?;
            row.bytes = change(row.bytes, draft.size);
            self.write(&[row]).await?;
        }
        if let Some(domain) = draft.new_mailbox_of() {
            let mut row = self.row(&Name::Domain(domain.clone()), now).await?;
            row.mailboxes = row.mailboxes.map(|known| change(known, 1));
            self.write(&[row]).await?;
        }
        Ok(())
    }

    /// Mailboxes that the log has of a domain, as far as the limit. Counted once:
    /// afterwards the domain's row says it.
    async fn mailboxes(&self, domain: &Domain) -> Result<u64, store::Error> {
        let mut range = rows::users_of(domain);
        let mut count = 0;
        while count < self.limits.mailboxes {
            let page = self.state.scan(Table::Users, range.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            count += page.len() as u64;
        }
        Ok(count)
    }

    /// After the log answered: what it told of is told, what it did not take is
    /// not counted.
    async fn settle(&self, draft: &Subject<'_>, taken: bool) -> Result<(), store::Error> {
        let _held = self.rows.lock().await;
        let now = self.clock.now();
        let mut row = self.row(&draft.name, now).await?;
        let mut rows = Vec::new();
        if taken {
            row.coalesced = 0;
            row.running_hash = Hash([0; 32]);
            row.states.clear();
        } else {
            row.entries = row.entries.saturating_sub(1);
            // The alarm has no entry yet: the next visit is to bring it again.
            if !draft.events.alarms().is_empty() {
                *last_alarm(&mut row, draft.events) = Timestamp::default();
            }
            if let Some(parent) = &draft.parent {
                let mut parent = self.row(&Name::Domain(parent.clone()), now).await?;
                let counter = draft.counter(&mut parent);
                *counter = counter.saturating_sub(1);
                rows.push(parent);
            }
        }
        rows.push(row);
        self.write(&rows).await?;
        if taken {
            return Ok(());
        }
        self.take_space(draft, now, u64::saturating_sub).await
    }

    /// Keeps the state and counts it, each of the first few once.
    async fn coalesce(&self, draft: &Subject<'_>) -> Result<(), Unplaced> {
        let _held = self.rows.lock().await;
        let now = self.clock.now();
        let mut row = self.row(&draft.name, now).await.map_err(later)?;
        let id = Hash(Sha256::digest(&draft.state).into());
        if row.states.contains(&id) {
            return Ok(());
        }
        let state = draft.hidden_state()?;
        let why = Rejection::new("quota", format!("over the quota of entries: {}", draft.events));
        let kind = IncidentKind::Coalesced;
        let domain = draft.name.domain();
        let incident = Incident {
            chain: draft.chain.clone(),
            ..Incident::new(kind, domain, draft.address, why, state.clone(), now)
        };
        // Killed after this: it is kept, and counted at the next visit.
        self.incidents.report(incident).await;
        row.coalesced += 1;
        row.running_hash =
            Hash(entry::coalesce(&row.running_hash.0, &Sha256::digest(&state).into()));
        if row.states.len() < STATES {
            row.states.push(id);
        }
        self.write(&[row]).await.map_err(later)
    }

    /// The name's counters of this day.
    async fn row(&self, name: &Name, now: Timestamp) -> Result<QuotaRow, store::Error> {
        let day = now.millis() / DAY;
        let known = rows::find::<QuotaRow>(&*self.state, name.as_str().as_bytes()).await?;
        let mut row = known.unwrap_or_else(|| QuotaRow::new(name.clone()));
        if row.day != day {
            (row.day, row.entries, row.new_mailboxes, row.new_subdomains) = (day, 0, 0, 0);
            row.bytes = 0;
        }
        // Of a clock that was ahead.
        for last in [&mut row.holding_alarm_at, &mut row.alarm_at] {
            *last = if *last > now { Timestamp::default() } else { *last };
        }
        row.settle_until = row.settle_until.min(now.plus(SETTLE));
        Ok(row)
    }

    /// The last row of a key counts: parent and name may be the same.
    async fn write(&self, rows: &[QuotaRow]) -> Result<(), store::Error> {
        let mut batch = Batch::new();
        for row in rows {
            batch.row(row);
        }
        self.state.apply(batch).await.map(drop)
    }
}

#[async_trait]
impl Sink for Quotas {
    async fn submit(&self, mut draft: Draft, after: u64) -> Result<Placed, Unplaced> {
        let Some(subject) = Subject::of(&draft, after) else {
            return self.sink.submit(draft, after).await;
        };
        let ruling = self.rule(&subject, &draft).await.map_err(later)?;
        let Ruling::Admit(coalesced, lean) = ruling else {
            self.coalesce(&subject).await?;
            return Ok(Placed::Coalesced);
        };
        let subject = subject.without_state();
        draft = lean.map_or(draft, |lean| *lean);
        match &mut draft {
            Draft::Domain(draft) => draft.coalesced = coalesced,
            Draft::User(draft) => draft.coalesced = coalesced,
            Draft::Forget { .. } => {}
        }
        let placed = self.sink.submit(draft, after).await;
        // Killed here: the count stands, and what was told is told once more.
        if let Err(error) = self.settle(&subject, placed.is_ok()).await {
            tracing::warn!(domain = %subject.name.domain(), %error, "a quota could not be written");
        }
        placed
    }

    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced> {
        self.sink.is_forgotten(address).await
    }

    fn doubts_clock(&self) -> bool {
        self.sink.doubts_clock()
    }
}

fn later(error: impl std::fmt::Display) -> Unplaced {
    Unplaced::Later(format!("quotas: {error}"))
}

/// Whether a name that is watched no longer still needs its counters: they count for
/// this day, or were not told yet.
pub(super) fn is_needed(row: &QuotaRow, now: Timestamp) -> bool {
    let used = row.entries > 0 || row.new_mailboxes > 0 || row.new_subdomains > 0;
    row.day == now.millis() / DAY && used || row.coalesced > 0
}

/// The alarm in as few bytes as show the key: signets cut to their crypto part, of a
/// domain none if that is long, since the record tells; `None` if it is long still.
fn lean(draft: &Draft) -> Option<Draft> {
    let is_short = |bytes: &Bytes| bytes.len() <= LEAN;
    match draft {
        Draft::Forget { .. } => None,
        Draft::User(draft) if draft.signet.as_ref().is_none_or(is_short) => {
            Some(Draft::User(draft.clone()))
        }
        Draft::User(draft) => {
            let mut lean = draft.clone();
            lean.signet = draft.signet.as_ref().and_then(crypto_part).filter(is_short);
            lean.signet.as_ref()?;
            lean.level = Some(Level::Crypto);
            lean.signers.truncate(1);
            Some(Draft::User(lean))
        }
        Draft::Domain(draft) => {
            let mut lean = draft.clone();
            let changed = Events::of(&[Event::FirstSeen, Event::OrgSignetChanged]);
            // One that did not change is in the log already.
            if draft.events.intersects(changed) && !draft.org_signet.as_ref().is_none_or(is_short) {
                lean.org_signet = draft.org_signet.as_ref().and_then(crypto_part).filter(is_short);
                if lean.org_signet.is_none() {
                    lean.events = lean.events.without(Event::OrgSignetChanged.into());
                }
            }
            let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            let is_short = size(&lean.record) + size(&lean.dnssec_chain) <= LEAN_DOMAIN;
            is_short.then_some(Draft::Domain(lean))
        }
    }
}

fn crypto_part(signet: &Bytes) -> Option<Bytes> {
    let signet = Signet::decode_with_limit(signet, signet.len()).ok()?;
    let cut = build::split(&signet, signet::Level::Crypto).ok()?;
    Some(Bytes::copy_from_slice(cut.bytes()))
}

/// Counts a draft if it may become an entry.
fn is_admitted(
    limits: &Limits,
    row: &mut QuotaRow,
    parent: Option<&mut QuotaRow>,
    draft: &Subject<'_>,
    has_space: bool,
    now: Timestamp,
) -> bool {
    if draft.is_orphan {
        return false;
    }
    let parent_counter = parent.map(|parent| draft.counter(parent));
    let is_room = draft.is_founded
        && has_space
        && row.entries < limits.entries
        && parent_counter.as_ref().is_none_or(|counter| **counter < limits.new_labels);
    let settled = row.settle_until <= now;
    let alarms = draft.events.alarms();
    let last = last_alarm(row, draft.events);
    let alarm_due = draft.may_alarm() && now.since(*last) >= ALARM_GAP;
    if !(is_room && settled || alarm_due) {
        if !is_room {
            row.settle_until = now.plus(SETTLE);
        }
        return false;
    }
    if !alarms.is_empty() {
        *last = now;
    }
    row.entries = row.entries.saturating_add(1);
    if let Some(counter) = parent_counter {
        *counter = counter.saturating_add(1);
    }
    true
}

/// When there was the last alarm like this: a holding one is not hidden by a lesser
/// one that was provoked before it.
fn last_alarm(row: &mut QuotaRow, events: Events) -> &mut Timestamp {
    if events.alarms().hold() { &mut row.holding_alarm_at } else { &mut row.alarm_at }
}

/// What quotas go by in a draft.
struct Subject<'a> {
    name: Name,
    address: Option<&'a Address>,
    events: Events,
    /// The log has nothing of the name, and this follows on something: what it
    /// follows was coalesced, so no alarm of it can have a place either.
    is_orphan: bool,
    /// For a new label: the domain that it counts for.
    parent: Option<Domain>,
    /// The registered domain, for whose bytes its own count.
    payer: Domain,
    /// What the log would keep of it, bytes.
    size: u64,
    /// Not validated under what is over quota itself.
    is_founded: bool,
    /// What was seen: a signet, or a record's text, LF and the org signet.
    state: Bytes,
    /// Of a domain: its DNSSEC chain.
    chain: Bytes,
}

impl<'a> Subject<'a> {
    /// `None`: under no quota. `after` as in [`Sink::submit`].
    fn of(draft: &'a Draft, after: u64) -> Option<Subject<'a>> {
        let is_orphan = |events: Events| after == 0 && !events.contains(Event::FirstSeen);
        let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match draft {
            Draft::Forget { .. } => None,
            Draft::Domain(draft) => {
                let is_new = draft.events.contains(Event::FirstSeen);
                let parent = || suffix::ancestors(&draft.domain).pop();
                let kept = [&draft.record, &draft.org_signet, &draft.dnssec_chain];
                let mut state = BytesMut::new();
                state.put_slice(draft.record.as_deref().unwrap_or_default());
                state.put_u8(b'\n');
                state.put_slice(draft.org_signet.as_deref().unwrap_or_default());
                Some(Subject {
                    name: Name::Domain(draft.domain.clone()),
                    address: None,
                    events: draft.events,
                    is_orphan: is_orphan(draft.events),
                    parent: is_new.then(parent).flatten(),
                    payer: suffix::registered(&draft.domain),
                    size: kept.into_iter().map(size).sum(),
                    is_founded: true,
                    state: state.freeze(),
                    chain: draft.dnssec_chain.clone().unwrap_or_default(),
                })
            }
            Draft::User(draft) => Some(Subject {
                name: Name::Address(draft.address.clone()),
                address: Some(&draft.address),
                events: draft.events,
                is_orphan: is_orphan(draft.events),
                parent: draft
                    .events
                    .contains(Event::FirstSeen)
                    .then(|| draft.address.domain().clone()),
                payer: suffix::registered(draft.address.domain()),
                size: size(&draft.signet),
                is_founded: draft.domain_version != Some(UNLOGGED),
                state: draft.signet.clone().unwrap_or_default(),
                chain: Bytes::new(),
            }),
        }
    }

    /// Whether it may have an entry over quota. Of a new label nothing was in force:
    /// two records that differ from the start are no way round the limit of new ones.
    fn may_alarm(&self) -> bool {
        self.is_founded && self.parent.is_none() && !self.events.alarms().is_empty()
    }

    fn without_state(self) -> Subject<'static> {
        Subject { address: None, state: Bytes::new(), chain: Bytes::new(), ..self }
    }

    /// The domain of a mailbox that the log does not have yet.
    fn new_mailbox_of(&self) -> Option<&Domain> {
        self.parent.as_ref().filter(|_| matches!(self.name, Name::Address(_)))
    }

    /// The counter of its parent that it goes on.
    fn counter<'r>(&self, parent: &'r mut QuotaRow) -> &'r mut u32 {
        match self.name {
            Name::Domain(_) => &mut parent.new_subdomains,
            Name::Address(_) => &mut parent.new_mailboxes,
        }
    }

    /// The bytes that are hashed into the log and kept. A mailbox's begin with
    /// 32 random bytes: who knows a signet must not find its label by the hash.
    fn hidden_state(&self) -> Result<Bytes, Unplaced> {
        if self.address.is_none() {
            return Ok(self.state.clone());
        }
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(later)?;
        let mut state = BytesMut::with_capacity(32 + self.state.len());
        state.put_slice(&nonce);
        state.put_slice(&self.state);
        Ok(state.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;
    use crate::dime::key::{Owner, PrivateKey};
    use crate::dime::signet::Dialect;
    use crate::dime::signet::build::{Content, SignTo};
    use crate::proof::draft::{DomainDraft, UserDraft};
    use crate::store::testing::MemoryState;

    /// The log and the incidents, as far as quotas show in them.
    #[derive(Default)]
    struct Told {
        drafts: StdMutex<Vec<Draft>>,
        closed: StdMutex<bool>,
        kept: StdMutex<Vec<Incident>>,
    }

    #[async_trait]
    impl Sink for Told {
        async fn submit(&self, draft: Draft, _after: u64) -> Result<Placed, Unplaced> {
            if *self.closed.lock().unwrap() {
                return Err(Unplaced::Later("closed".into()));
            }
            let mut drafts = self.drafts.lock().unwrap();
            drafts.push(draft);
            Ok(Placed::Version(drafts.len() as u64))
        }

        async fn is_forgotten(&self, _address: &Address) -> Result<bool, Unplaced> {
            Ok(false)
        }
    }

    #[async_trait]
    impl Incidents for Told {
        async fn report(&self, incident: Incident) {
            self.kept.lock().unwrap().push(incident);
        }
    }

    struct Bench {
        quotas: Quotas,
        told: Arc<Told>,
        clock: Clock,
        state: Arc<MemoryState>,
    }

    impl Bench {
        fn new(entries: u32, new_labels: u32) -> Bench {
            Bench::with(Limits { entries, new_labels, ..Limits::default() })
        }

        fn with(limits: Limits) -> Bench {
            let (told, state) = (Arc::new(Told::default()), Arc::new(MemoryState::default()));
            let clock = Clock::manual(Timestamp::from_millis(20_000 * DAY));
            let quotas =
                Quotas::new(limits, told.clone(), state.clone(), told.clone(), clock.clone());
            Bench { quotas, told, clock, state }
        }

        async fn user(&self, name: &str, signet: &'static str, event: Event) -> bool {
            self.user_after(name, signet, event, u64::from(event != Event::FirstSeen)).await
        }

        async fn user_after(
            &self,
            name: &str,
            signet: &'static str,
            event: Event,
            after: u64,
        ) -> bool {
            let draft = Draft::User(draft(name, signet, event));
            self.quotas.submit(draft, after).await.unwrap() != Placed::Coalesced
        }

        fn last_coalesced(&self) -> Option<Coalesced> {
            match self.told.drafts.lock().unwrap().last().unwrap() {
                Draft::User(draft) => draft.coalesced,
                Draft::Domain(draft) => draft.coalesced,
                Draft::Forget { .. } => None,
            }
        }
    }

    fn draft(name: &str, signet: &'static str, event: Event) -> UserDraft {
        UserDraft {
            address: name.parse().unwrap(),
            signet: Some(Bytes::from_static(signet.as_bytes())),
            level: None,
            signers: vec![],
            crypto_sha256: None,
            observed: Timestamp::default(),
            domain_version: None,
            events: event.into(),
            hold: None,
            coalesced: None,
        }
    }

    const X: &str = "x@a.example";

    #[tokio::test]
    async fn what_is_over_quota_is_kept_counted_and_told_later() {
        let bench = Bench::new(2, 10);
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        assert!(bench.user(X, "2", Event::Rotated).await);
        for (signet, kept) in [("3", 1), ("3", 1), ("4", 2), ("3", 2)] {
            assert!(!bench.user(X, signet, Event::Rotated).await);
            assert_eq!(bench.told.kept.lock().unwrap().len(), kept);
        }
        // Another label has its own.
        assert!(bench.user("y@a.example", "1", Event::FirstSeen).await);
        bench.clock.advance(DAY);
        assert!(bench.user(X, "5", Event::Rotated).await);
        let hash = |state: &[u8]| -> [u8; 32] { Sha256::digest(state).into() };
        let kept = bench.told.kept.lock().unwrap().clone();
        let running =
            kept.iter().fold([0; 32], |h, state| entry::coalesce(&h, &hash(&state.bytes)));
        assert_eq!(bench.last_coalesced(), Some(Coalesced { count: 2, running_hash: running }));
        // A mailbox's state begins with 32 random bytes.
        assert_eq!(kept.first().map(|state| state.bytes.slice(32..)), Some("3".into()));
        assert!(bench.user(X, "6", Event::Rotated).await);
        assert_eq!(bench.last_coalesced(), None);
    }

    #[tokio::test]
    async fn an_alarm_over_quota_has_an_entry_an_hour() {
        let bench = Bench::new(1, 10);
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        assert!(!bench.user(X, "2", Event::Rotated).await);
        // A harmless alarm does not hide the swap that follows it.
        assert!(bench.user(X, "1", Event::Reverted).await);
        assert!(bench.user(X, "3", Event::Restarted).await);
        assert_eq!(bench.last_coalesced(), None);
        assert!(!bench.user(X, "4", Event::Restarted).await);
        assert!(!bench.user(X, "4", Event::Forked).await);
        bench.clock.advance(ALARM_GAP);
        assert!(bench.user(X, "5", Event::Gap).await);
        assert_eq!(bench.last_coalesced().map(|coalesced| coalesced.count), Some(1));
    }

    #[tokio::test]
    async fn an_alarm_cannot_follow_what_was_coalesced() {
        let bench = Bench::new(8, 1);
        assert!(bench.user("a@a.example", "1", Event::FirstSeen).await);
        assert!(!bench.user_after(X, "1", Event::FirstSeen, 0).await);
        assert!(!bench.user_after(X, "2", Event::Restarted, 0).await);
        assert_eq!(bench.told.kept.lock().unwrap().len(), 2);
        bench.clock.advance(DAY);
        assert!(bench.user_after(X, "1", Event::FirstSeen, 0).await);
        assert_eq!(bench.last_coalesced().map(|coalesced| coalesced.count), Some(2));
        assert!(bench.user_after(X, "2", Event::Restarted, 1).await);
    }

    #[tokio::test]
    async fn an_alarm_that_the_log_did_not_take_comes_again() {
        let bench = Bench::new(1, 10);
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        *bench.told.closed.lock().unwrap() = true;
        let swap = || Draft::User(draft(X, "2", Event::Restarted));
        assert!(bench.quotas.submit(swap(), 1).await.is_err());
        *bench.told.closed.lock().unwrap() = false;
        assert_eq!(bench.quotas.submit(swap(), 1).await.unwrap(), Placed::Version(2));
        assert_eq!(bench.quotas.submit(swap(), 2).await.unwrap(), Placed::Coalesced);
    }

    #[tokio::test]
    async fn midnight_leaves_no_gap_in_a_chain() {
        let bench = Bench::new(1, 10);
        bench.clock.advance(DAY - 1);
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        assert!(!bench.user(X, "2", Event::Rotated).await);
        bench.clock.advance(1);
        assert!(!bench.user(X, "3", Event::Rotated).await);
        bench.clock.advance(SETTLE);
        assert!(bench.user(X, "2", Event::Rotated).await);
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_hides_no_alarm() {
        let bench = Bench::new(1, 10);
        let now = bench.clock.now();
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        bench.clock.advance(30 * DAY);
        assert!(bench.user(X, "2", Event::Restarted).await);
        assert!(!bench.user(X, "3", Event::Rotated).await);
        bench.clock.set(now);
        assert!(bench.user(X, "4", Event::Restarted).await);
        bench.clock.advance(DAY);
        assert!(bench.user(X, "5", Event::Rotated).await);
    }

    #[tokio::test]
    async fn new_labels_count_for_the_exact_domain() {
        let bench = Bench::new(8, 2);
        for (name, admitted) in [
            ("a@a.example", true),
            ("b@a.example", true),
            ("c@a.example", false),
            ("a@sub.a.example", true),
            ("a@b.example", true),
        ] {
            assert_eq!(bench.user(name, "1", Event::FirstSeen).await, admitted, "{name}");
        }
        // Known ones go on.
        assert!(bench.user("a@a.example", "2", Event::Rotated).await);
        bench.clock.advance(DAY);
        assert!(bench.user("c@a.example", "1", Event::FirstSeen).await);
    }

    #[tokio::test]
    async fn new_subdomains_count_for_the_registered_domain() {
        let bench = Bench::new(8, 2);
        let conflict = Events::of(&[Event::FirstSeen, Event::NameConflict]);
        let new = Events::from(Event::FirstSeen);
        for (domain, events, admitted) in [
            ("a.example", new, true),
            ("1.a.example", new, true),
            ("2.1.a.example", conflict, true),
            ("3.a.example", new, false),
            ("4.a.example", conflict, false),
            ("b.example", conflict, true),
        ] {
            let draft = DomainDraft {
                domain: domain.parse().unwrap(),
                poks: vec![],
                dnssec: crate::dime::Dnssec::Indeterminate,
                record: None,
                org_signet: None,
                dnssec_chain: None,
                events,
                hold: None,
                coalesced: None,
            };
            let placed = bench.quotas.submit(Draft::Domain(draft), 0).await.unwrap();
            assert_eq!(placed != Placed::Coalesced, admitted, "{domain}");
        }
    }

    #[tokio::test]
    async fn mailboxes_of_a_domain_are_bounded_for_good() {
        let bench = Bench::with(Limits { mailboxes: 3, ..Limits::default() });
        // One is in the log, and no row counts it.
        let mut batch = Batch::new();
        batch.put(Table::Users, rows::user_key(&"known@a.example".parse().unwrap()), "row");
        let _ = bench.state.apply(batch).await.unwrap();
        for day in 0..2 {
            for (name, admitted) in [("1", day == 0), ("2", day == 0), ("3", false)] {
                let is_new = bench.user(&format!("{name}@a.example"), "1", Event::FirstSeen).await;
                assert_eq!(is_new, admitted, "{name}, day {day}");
            }
            bench.clock.advance(DAY);
        }
        assert_eq!(bench.told.kept.lock().unwrap().len(), 3);
        // Known ones, and other domains, go on.
        assert!(bench.user("1@a.example", "2", Event::Rotated).await);
        assert!(bench.user("3@b.a.example", "1", Event::FirstSeen).await);
        // What the log does not take is not counted.
        *bench.told.closed.lock().unwrap() = true;
        for name in ["4@b.a.example", "5@b.a.example", "6@b.a.example"] {
            let draft = Draft::User(draft(name, "1", Event::FirstSeen));
            assert!(matches!(bench.quotas.submit(draft, 0).await, Err(Unplaced::Later(_))));
        }
        *bench.told.closed.lock().unwrap() = false;
        assert!(bench.user("4@b.a.example", "1", Event::FirstSeen).await);
    }

    #[tokio::test]
    async fn bytes_count_for_the_registered_domain_and_alarms_have_as_many_again() {
        let bench = Bench::with(Limits { bytes: 10, entries: 100, ..Limits::default() });
        assert!(bench.user(X, "12345", Event::FirstSeen).await);
        assert!(bench.user("y@sub.a.example", "12345", Event::FirstSeen).await);
        assert!(!bench.user(X, "1", Event::Rotated).await);
        assert!(!bench.user("y@sub.a.example", "1", Event::Rotated).await);
        assert!(bench.user("y@b.example", "1", Event::FirstSeen).await);
        // Nothing hides an alarm, once an hour: not even alarms.
        assert!(bench.user(X, "1234567890", Event::Restarted).await);
        assert!(bench.user("y@sub.a.example", "2", Event::Restarted).await);
        assert!(!bench.user("y@sub.a.example", "3", Event::Restarted).await);
        assert!(!bench.user(X, "1", Event::Rotated).await);
        let gone = UserDraft { signet: None, ..draft(X, "", Event::Withdrawn) };
        let placed = bench.quotas.submit(Draft::User(gone), 2).await.unwrap();
        assert_ne!(placed, Placed::Coalesced);
        assert_eq!(bench.told.kept.lock().unwrap().len(), 4);
        bench.clock.advance(DAY);
        assert!(bench.user("y@sub.a.example", "3", Event::Restarted).await);
        assert_eq!(bench.last_coalesced().map(|coalesced| coalesced.count), Some(1));
        // What the log does not take is not counted.
        *bench.told.closed.lock().unwrap() = true;
        let large = Draft::User(draft(X, "1234567890", Event::Rotated));
        assert!(bench.quotas.submit(large, 3).await.is_err());
        *bench.told.closed.lock().unwrap() = false;
        assert!(bench.user(X, "1234567890", Event::Rotated).await);
    }

    fn signet_with(note: usize) -> Bytes {
        let key = PrivateKey::from_secrets(Owner::User, [1; 32], [1; 32]).unwrap();
        let request = build::request(&key, Dialect::L, None).unwrap();
        let contents = [Content::Undefined(b"note".to_vec(), vec![7; note])];
        let signet = build::user(&request, &[2; 32], &contents, SignTo::Full).unwrap();
        Bytes::copy_from_slice(signet.bytes())
    }

    /// Decoys use up the alarms' bytes too; then the victim's key is swapped.
    #[tokio::test]
    async fn an_alarm_for_which_no_bytes_are_left_is_told_in_few() {
        let bench = Bench::with(Limits { bytes: 10, ..Limits::default() });
        assert!(bench.user("decoy@a.example", "1234567890", Event::FirstSeen).await);
        assert!(bench.user("decoy@a.example", "1234567890", Event::Restarted).await);
        let swap = |signet: Bytes| {
            let crypto_sha256 = Some([4; 32]);
            let facts =
                UserDraft { signers: vec![0, 1], crypto_sha256, ..draft(X, "", Event::Restarted) };
            Draft::User(UserDraft { signet: Some(signet), level: Some(Level::Full), ..facts })
        };
        let large = signet_with(60_000);
        let placed = bench.quotas.submit(swap(large.clone()), 1).await.unwrap();
        assert_ne!(placed, Placed::Coalesced);
        let Some(Draft::User(told)) = bench.told.drafts.lock().unwrap().last().cloned() else {
            panic!("of a mailbox")
        };
        let cut = told.signet.unwrap();
        assert!(cut.len() < LEAN);
        let cut = Signet::decode_with_limit(&cut, cut.len()).unwrap();
        assert_eq!((cut.level(), told.level), (signet::Level::Crypto, Some(Level::Crypto)));
        assert_eq!((told.signers, told.crypto_sha256), (vec![0], Some([4; 32])));
        // Once an hour, and nothing that is no signet.
        let again = bench.quotas.submit(swap(large.clone()), 1).await.unwrap();
        assert_eq!(again, Placed::Coalesced);
        bench.clock.advance(ALARM_GAP);
        assert_ne!(bench.quotas.submit(swap(large), 1).await.unwrap(), Placed::Coalesced);
        bench.clock.advance(ALARM_GAP);
        let noise = swap(vec![0; LEAN + 1].into());
        assert_eq!(bench.quotas.submit(noise, 1).await.unwrap(), Placed::Coalesced);
    }

    #[tokio::test]
    async fn a_domain_s_alarm_for_which_no_bytes_are_left_has_record_and_chain() {
        let bench = Bench::with(Limits { bytes: 10, ..Limits::default() });
        let events = Events::of(&[Event::PokReplaced, Event::OrgSignetChanged]);
        let of = |org: &Bytes, chain: usize| {
            Draft::Domain(DomainDraft {
                domain: "a.example".parse().unwrap(),
                poks: vec![],
                dnssec: crate::dime::Dnssec::Secure,
                record: Some("record".into()),
                org_signet: Some(org.clone()),
                dnssec_chain: Some(vec![1; chain].into()),
                events,
                hold: None,
                coalesced: None,
            })
        };
        assert!(bench.user(X, "12345678901234567890", Event::FirstSeen).await);
        let key = PrivateKey::from_secrets(Owner::Org, [1; 32], [1; 32]).unwrap();
        let contents = [Content::Undefined(b"note".to_vec(), vec![7; 50_000])];
        let org = build::org(&key, Dialect::L, &[], &contents, SignTo::Full).unwrap();
        let org = Bytes::copy_from_slice(org.bytes());
        let noise = Bytes::from(vec![0; LEAN + 1]);
        for (org, chain, told) in [
            (&org, 5000, Some((true, events))),
            (&noise, 5000, Some((false, Event::PokReplaced.into()))),
            (&org, LEAN_DOMAIN, None),
        ] {
            let placed = bench.quotas.submit(of(org, chain), 1).await.unwrap();
            assert_eq!(placed != Placed::Coalesced, told.is_some());
            bench.clock.advance(ALARM_GAP);
            let drafts = bench.told.drafts.lock().unwrap();
            let Some(Draft::Domain(draft)) = drafts.last() else { panic!("of a domain") };
            let Some((has_org, events)) = told else { continue };
            assert_eq!((draft.org_signet.is_some(), draft.events), (has_org, events));
            assert!(draft.org_signet.as_ref().is_none_or(|org| org.len() < LEAN));
        }
    }

    #[tokio::test]
    async fn what_the_log_does_not_take_is_not_counted() {
        let bench = Bench::new(1, 1);
        *bench.told.closed.lock().unwrap() = true;
        for _ in 0..3 {
            let draft = Draft::User(draft(X, "1", Event::FirstSeen));
            assert!(matches!(bench.quotas.submit(draft, 0).await, Err(Unplaced::Later(_))));
        }
        *bench.told.closed.lock().unwrap() = false;
        assert!(bench.user(X, "1", Event::FirstSeen).await);
        let row: QuotaRow = rows::find(&*bench.state, b"a.example").await.unwrap().unwrap();
        assert_eq!(row.new_mailboxes, 1);
    }
}
