//! Incidents as private objects: one file each, written once however often the
//! same thing is seen, and what of them may be shown.
//!
//! Bounded, since strangers can make some at will, by [`Sort`], so that nobody
//! crowds out what convicts him. On one day, by our clock: of a domain so many that
//! were refused, and so many of each kind of alarm and of difference between
//! mirrors; so many bytes of each sort of a registered domain with all names below
//! it, which are for nothing; of clients' reports so many together. What convicts a mirror by its own
//! signature is under no such count. The counts begin anew with the process. In all:
//! of what was refused, and of what was reported, the oldest go when there is too
//! much of it. Nothing else is deleted here; the list holds the newest of each sort.
//!
//! What is about a mailbox is never found by its id, and is listed as kind and
//! day only, once the day is over: the time at which it appears would tell whose
//! entry it belongs to (threat 21). Left out: who may ask, which is `serve`'s.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::iter;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use prometheus::{IntCounterVec, Opts, Registry};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::dime::{Name, Timestamp, suffix};
use crate::proof::Hash;
use crate::proof::incident::{CLIENT, Evidence, Incident, Kind, MAX_INCIDENT};
use crate::serve::http::{Incidents, Listed, Page, Place};
use crate::store::keys::{self, IncidentKey, Whom};
use crate::store::{self, Blobs};

/// Refused things of one domain that are kept on one day.
pub const REFUSED_PER_DAY: u32 = 64;
/// Alarms of one kind about one domain, or differences between mirrors, on one day.
pub const ALARMS_PER_DAY: u32 = 512;
/// Bytes of either.
pub const BYTES_PER_DAY: u64 = 16 << 20;
/// Bytes of a registered domain with all names below it on one day: of what was
/// refused, and of each other sort.
pub const REFUSED_BELOW_ONE: u64 = 64 << 20;
pub const BYTES_BELOW_ONE: u64 = 256 << 20;
/// Reports of all clients on one day.
pub const REPORTS_PER_DAY: u32 = 256;
/// Their bytes.
pub const REPORT_BYTES_PER_DAY: u64 = 64 << 20;
/// Of these about one domain.
pub const REPORTS_ABOUT_ONE: u32 = 16;
/// Files that have to go, deleted with each new one.
const GOING: usize = 16;
/// Files of one mailbox or domain that are given out together, and their bytes.
const OF_NAME: usize = 16;
const OF_NAME_BYTES: usize = 2 * MAX_INCIDENT;

/// Keeps incidents, and gives them out.
pub struct Filed {
    private: Blobs,
    clock: Clock,
    room: fn(Sort) -> Room,
    /// Of [`Sort`] and what became of it.
    counted: Option<IntCounterVec>,
    /// `None` until it is needed.
    index: Mutex<Option<Index>>,
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filing {
    /// It is kept from now on, under its id.
    New(Hash),
    /// The same thing was kept before.
    Known,
    /// There is no room for it today: not kept.
    Over,
    /// No file may be as long: not kept.
    TooLarge,
}

/// Who can make an incident, which decides what it shares its room with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    /// A mirror's own signature convicts it, or two mirrors contradict each other.
    Accusation,
    /// Valid, or missing, and somebody should look at it. Most are in the log too.
    Alarm,
    /// Invalid, or valid and over quota: whoever holds a domain, or is on the way
    /// to it, makes as many as he likes.
    Refused,
    /// By a client, about a name: a stranger can convict his own domain.
    Reported,
}

/// What is kept of a sort.
#[derive(Clone, Copy)]
struct Room {
    files: usize,
    bytes: u64,
    /// What is over it is deleted; else it is there, and not listed.
    is_pruned: bool,
}

/// What a day's count is kept of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Account {
    Reports,
    ReportsAbout(String),
    Refused(String),
    Kind(String, Kind),
    /// A registered domain with all names below it.
    Below(String, Sort),
}

/// What the keys of all files tell.
struct Index {
    room: fn(Sort) -> Room,
    kept: HashMap<Hash, IncidentKey>,
    /// `true`: only a client said so.
    same: HashMap<[u8; 16], bool>,
    days: BTreeMap<u64, HashSet<Hash>>,
    whom: HashMap<Whom, HashSet<Hash>>,
    piles: HashMap<Sort, Pile>,
    /// Names of files that have to go.
    going: Vec<String>,
    today: Today,
}

/// Those of one sort.
#[derive(Default)]
struct Pile {
    /// Time and id; the file's bytes.
    by_age: BTreeMap<(u64, Hash), u64>,
    bytes: u64,
    /// Some of them are not listed any more, and the operator was told.
    is_cut: bool,
}

#[derive(Default)]
struct Today {
    day: u64,
    spent: HashMap<Account, Spent>,
}

#[derive(Default)]
struct Spent {
    files: u32,
    bytes: u64,
    /// The operator knows that it is used up.
    is_told: bool,
}

impl Filed {
    pub fn new(private: Blobs, clock: Clock) -> Filed {
        Filed { private, clock, room: Sort::room, counted: None, index: Mutex::default() }
    }

    /// The same, counting.
    ///
    /// # Errors
    /// None in practice: two metrics of one name.
    pub fn counting(self, registry: &Registry) -> Result<Filed, prometheus::Error> {
        let help = "Incidents that are new, by sort and what became of them.";
        let options = Opts::new("syndicate_incidents_total", help);
        let counted = IntCounterVec::new(options, &["sort", "outcome"])?;
        registry.register(Box::new(counted.clone()))?;
        // What is not there at the start cannot be seen to begin.
        for sort in Sort::ALL {
            for outcome in ["kept", "over", "too-large"] {
                counted.with_label_values(&[sort.as_str(), outcome]).inc_by(0);
            }
        }
        Ok(Filed { counted: Some(counted), ..self })
    }

    /// Keeps an incident, if it is new and there is room for it today.
    ///
    /// # Errors
    /// The private store's.
    pub async fn file(&self, incident: &Incident) -> Result<Filing, store::Error> {
        let bytes = incident.to_bytes();
        let key = key_of(incident, &bytes);
        let (sort, length) = (Sort::of(incident.kind, key.by_client), bytes.len() as u64);
        let mut index = self.index.lock().await;
        let index = self.opened(&mut index).await?;
        if index.knows(&key) {
            return Ok(Filing::Known);
        }
        if bytes.len() > MAX_INCIDENT {
            let (about, kind) = (about(incident), incident.kind);
            tracing::warn!(about, %kind, length, "an incident is too large to be kept");
            self.count(sort, "too-large");
            return Ok(Filing::TooLarge);
        }
        let accounts = accounts(sort, incident);
        if !index.today.has_room(&accounts, length, self.clock.now()) {
            self.count(sort, "over");
            return Ok(Filing::Over);
        }
        let name = keys::incident(&key);
        index.going.retain(|going| *going != name);
        let _ = self.private.put_if_absent(&name, bytes).await?;
        tracing::warn!(
            about = about(incident), kind = %incident.kind, rule = rule(incident),
            observer = incident.observer, "incident"
        );
        self.count(sort, "kept");
        index.today.book(accounts, length);
        let id = key.id;
        index.add(key, length);
        self.prune(index).await;
        Ok(Filing::New(id))
    }

    fn count(&self, sort: Sort, outcome: &str) {
        if let Some(counted) = &self.counted {
            counted.with_label_values(&[sort.as_str(), outcome]).inc();
        }
    }

    /// Deletes some of what has to go; the next call goes on.
    async fn prune(&self, index: &mut Index) {
        for _ in 0..GOING {
            let Some(key) = index.going.pop() else { return };
            if let Err(error) = self.private.delete(&key).await {
                tracing::warn!(%error, "an old incident could not be deleted");
                index.going.push(key);
                return;
            }
        }
    }

    async fn opened<'i>(
        &self,
        index: &'i mut Option<Index>,
    ) -> Result<&'i mut Index, store::Error> {
        if index.is_none() {
            let mut read = Index::new(self.room);
            let mut listing = self.private.list(keys::INCIDENTS);
            while let Some(found) = listing.try_next().await? {
                if let Some(key) = IncidentKey::parse(&found.key) {
                    read.add(key, found.size);
                }
            }
            *index = Some(read);
        }
        Ok(index.get_or_insert_with(|| Index::new(self.room)))
    }

    async fn bytes(&self, key: &IncidentKey) -> Result<Option<Bytes>, store::Error> {
        self.private.get(&keys::incident(key), MAX_INCIDENT as u64).await
    }
}

impl Sort {
    const ALL: [Sort; 4] = [Sort::Accusation, Sort::Alarm, Sort::Refused, Sort::Reported];

    fn of(kind: Kind, by_client: bool) -> Sort {
        match kind {
            // A client's word is worth as much: it is not listed unless our key, or
            // a peer's, signed it.
            Kind::LogFork
            | Kind::DirectoryRootWrong
            | Kind::RuleBroken
            | Kind::BlobUnserved
            | Kind::StaleMirror => Sort::Accusation,
            _ if by_client => Sort::Reported,
            Kind::SplitView | Kind::UpdateWithheld | Kind::ForgedKey => Sort::Accusation,
            Kind::ChainRestarted
            | Kind::ChainGap
            | Kind::ChainForked
            | Kind::ChainReverted
            | Kind::SignetWithdrawn
            | Kind::PokReplaced
            | Kind::RecordWithdrawn
            | Kind::RecordExpired
            | Kind::Downgrade
            | Kind::DnssecLost
            | Kind::DnssecBogus
            | Kind::NameConflict
            | Kind::VantageDiffers => Sort::Alarm,
            Kind::RecordRefused
            | Kind::RecordAmbiguous
            | Kind::CertificateMismatch
            | Kind::OrgSignetInvalid
            | Kind::SignetInvalid
            | Kind::LinkInvalid
            | Kind::Coalesced => Sort::Refused,
        }
    }

    /// Of a file. A kind that another version knows is nothing to delete.
    fn of_key(key: &IncidentKey) -> Sort {
        key.kind.parse().map_or(Sort::Alarm, |kind| Sort::of(kind, key.by_client))
    }

    fn as_str(self) -> &'static str {
        match self {
            Sort::Accusation => "accusation",
            Sort::Alarm => "alarm",
            Sort::Refused => "refused",
            Sort::Reported => "reported",
        }
    }

    /// The same in a log line.
    fn of_all_below(self) -> &'static str {
        match self {
            Sort::Accusation => "accusations, with all names below it",
            Sort::Alarm => "alarms, with all names below it",
            Sort::Refused => "refused, with all names below it",
            Sort::Reported => "reports of clients",
        }
    }

    /// About 400 bytes of memory a file.
    fn room(self) -> Room {
        let listed = |files| Room { files, bytes: u64::MAX, is_pruned: false };
        match self {
            Sort::Accusation => listed(50_000),
            Sort::Alarm => listed(100_000),
            Sort::Refused => Room { files: 50_000, bytes: 4 << 30, is_pruned: true },
            Sort::Reported => Room { files: 20_000, bytes: 4 << 30, is_pruned: true },
        }
    }
}

impl Index {
    fn new(room: fn(Sort) -> Room) -> Index {
        Index {
            room,
            kept: HashMap::new(),
            same: HashMap::new(),
            days: BTreeMap::new(),
            whom: HashMap::new(),
            piles: HashMap::new(),
            going: Vec::new(),
            today: Today::default(),
        }
    }

    /// Whether the same thing is kept. What only a client said may be deleted one
    /// day, so it does not stand for what we saw.
    fn knows(&self, key: &IncidentKey) -> bool {
        self.same.get(&key.same).is_some_and(|by_client| key.by_client || !by_client)
    }

    /// Takes a file in, and lets go of the oldest of its sort that are too many.
    fn add(&mut self, key: IncidentKey, bytes: u64) {
        let sort = Sort::of_key(&key);
        let by_client = self.same.entry(key.same).or_insert(key.by_client);
        *by_client &= key.by_client;
        self.days.entry(key.day()).or_default().insert(key.id);
        self.whom.entry(key.whom.clone()).or_default().insert(key.id);
        let pile = self.piles.entry(sort).or_default();
        pile.by_age.insert((key.at, key.id), bytes);
        pile.bytes += bytes;
        self.kept.insert(key.id, key);
        self.trim(sort);
    }

    fn trim(&mut self, sort: Sort) {
        let room = (self.room)(sort);
        let over = iter::from_fn(|| self.piles.get_mut(&sort)?.pop_over(&room));
        for id in over.collect::<Vec<_>>() {
            let Some(key) = self.remove(&id) else { continue };
            if room.is_pruned {
                self.going.push(keys::incident(&key));
            }
        }
    }

    fn remove(&mut self, id: &Hash) -> Option<IncidentKey> {
        let key = self.kept.remove(id)?;
        if self.same.get(&key.same) == Some(&key.by_client) {
            self.same.remove(&key.same);
        }
        if let Some(ids) = self.days.get_mut(&key.day()) {
            ids.remove(id);
            if ids.is_empty() {
                self.days.remove(&key.day());
            }
        }
        if let Some(ids) = self.whom.get_mut(&key.whom) {
            ids.remove(id);
            if ids.is_empty() {
                self.whom.remove(&key.whom);
            }
        }
        Some(key)
    }

    /// A day's lines: what is public by time, then how many of mailboxes.
    fn lines(&self, ids: &HashSet<Hash>, over: bool) -> Vec<Listed> {
        let mut public: Vec<&IncidentKey> = Vec::new();
        let mut hidden: BTreeMap<(&str, u64), u32> = BTreeMap::new();
        for key in ids.iter().filter_map(|id| self.kept.get(id)) {
            match key.whom {
                Whom::Mailbox(_) if over => {
                    *hidden.entry((&key.kind, key.day())).or_default() += 1;
                }
                Whom::Mailbox(_) => {}
                _ => public.push(key),
            }
        }
        public.sort_by_key(|key| (std::cmp::Reverse(key.at), key.id));
        let public = public.into_iter().map(|key| Listed::Public {
            at: key.at,
            kind: key.kind.clone(),
            id: key.id,
            domain: match &key.whom {
                Whom::Domain(domain) => Some(domain.clone()),
                _ => None,
            },
            by_client: key.by_client,
        });
        let hidden = hidden.into_iter().map(|((kind, day), count)| Listed::Mailboxes {
            day,
            kind: kind.to_owned(),
            count,
        });
        public.chain(hidden).collect()
    }
}

impl Pile {
    /// Takes out the oldest, if there are too many.
    fn pop_over(&mut self, room: &Room) -> Option<Hash> {
        if self.by_age.len() <= room.files && self.bytes <= room.bytes {
            return None;
        }
        let ((_, id), bytes) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        if !room.is_pruned && !self.is_cut {
            self.is_cut = true;
            let listed = room.files;
            tracing::warn!(listed, "there are more incidents than are listed; none is deleted");
        }
        Some(id)
    }
}

impl Account {
    /// Files and bytes of a day.
    fn room(&self) -> (u32, u64) {
        match self {
            Account::Reports => (REPORTS_PER_DAY, REPORT_BYTES_PER_DAY),
            Account::ReportsAbout(_) => (REPORTS_ABOUT_ONE, REPORT_BYTES_PER_DAY),
            Account::Refused(_) => (REFUSED_PER_DAY, BYTES_PER_DAY),
            Account::Kind(..) => (ALARMS_PER_DAY, BYTES_PER_DAY),
            Account::Below(_, Sort::Refused) => (u32::MAX, REFUSED_BELOW_ONE),
            Account::Below(..) => (u32::MAX, BYTES_BELOW_ONE),
        }
    }

    /// Whose it is, and what is counted.
    fn words(&self) -> (&str, &'static str) {
        match self {
            Account::Reports => ("", "reports of clients"),
            Account::ReportsAbout(about) => (about, "reports of clients"),
            Account::Refused(about) => (about, "refused"),
            Account::Kind(about, kind) => (about, kind.as_str()),
            Account::Below(about, sort) => (about, sort.of_all_below()),
        }
    }
}

/// What an incident counts on; all must have room.
fn accounts(sort: Sort, incident: &Incident) -> Vec<Account> {
    let below = || {
        let name = incident.name.as_ref();
        let registered = name.map(|name| suffix::registered(name.domain()).as_str().to_owned());
        Account::Below(registered.unwrap_or_default(), sort)
    };
    match sort {
        // A peer's fault is raised once, until the operator clears it.
        Sort::Accusation if incident.name.is_none() => Vec::new(),
        Sort::Accusation | Sort::Alarm => {
            vec![Account::Kind(about(incident), incident.kind), below()]
        }
        Sort::Refused => vec![Account::Refused(about(incident)), below()],
        Sort::Reported => vec![Account::Reports, Account::ReportsAbout(about(incident))],
    }
}

impl Today {
    /// Whether there is room for one more of so many bytes. The operator is told
    /// once a day of each count that is used up.
    fn has_room(&mut self, accounts: &[Account], bytes: u64, now: Timestamp) -> bool {
        let day = now.secs() / 86_400;
        if self.day != day {
            *self = Today { day, spent: HashMap::new() };
        }
        let full = accounts.iter().find(|account| {
            let (files, sum) = account.room();
            let is_full = |spent: &Spent| spent.files >= files || spent.bytes + bytes > sum;
            self.spent.get(account).is_some_and(is_full)
        });
        let Some(full) = full else { return true };
        if let Some(spent) = self.spent.get_mut(full)
            && !spent.is_told
        {
            spent.is_told = true;
            let (about, of) = full.words();
            tracing::warn!(about, of, "no more incidents of these are kept today");
        }
        false
    }

    fn book(&mut self, accounts: Vec<Account>, bytes: u64) {
        for account in accounts {
            let spent = self.spent.entry(account).or_default();
            spent.files += 1;
            spent.bytes += bytes;
        }
    }
}

fn key_of(incident: &Incident, bytes: &[u8]) -> IncidentKey {
    let whom = match &incident.name {
        Some(name) => whom(name),
        None => Whom::Mirror(tag(&about(incident))),
    };
    let [same, _] = halves(incident.sameness());
    IncidentKey {
        at: incident.at.millis(),
        whom,
        kind: incident.kind.as_str().to_owned(),
        by_client: incident.observer == CLIENT,
        same,
        id: Sha256::digest(bytes).into(),
    }
}

fn whom(name: &Name) -> Whom {
    match name {
        Name::Domain(domain) => Whom::Domain(domain.as_str().to_owned()),
        Name::Address(address) => Whom::Mailbox(tag(address.as_str())),
    }
}

fn tag(text: &str) -> [u8; 16] {
    let [tag, _] = halves(Sha256::digest(text).into());
    tag
}

fn halves(hash: Hash) -> [[u8; 16]; 2] {
    let (halves, _) = hash.as_chunks::<16>();
    [halves.first().copied().unwrap_or_default(), halves.last().copied().unwrap_or_default()]
}

/// The domain, or the mirror's origin: whose quota it is, and what is said of it
/// in log lines.
fn about(incident: &Incident) -> String {
    match (&incident.name, &incident.evidence) {
        (Some(name), _) => name.domain().as_str().to_owned(),
        (None, Evidence::Fork(fork)) => fork.key.name().to_owned(),
        (None, Evidence::Entries(entries)) => entries.key.name().to_owned(),
        (None, _) => String::new(),
    }
}

fn rule(incident: &Incident) -> &str {
    match &incident.evidence {
        Evidence::Received(received) => &received.rule,
        Evidence::Entries(entries) => &entries.rule,
        _ => "",
    }
}

#[async_trait]
impl Incidents for Filed {
    async fn page(&self, from: Option<Place>, lines: usize) -> Result<Page, String> {
        let today = self.clock.now().secs() / 86_400;
        let mut index = self.index.lock().await;
        let index = self.opened(&mut index).await.map_err(words)?;
        let from = from.unwrap_or(Place { day: u64::MAX, line: 0 });
        let mut page = Page { lines: Vec::new(), next: None };
        for (day, ids) in index.days.range(..=from.day).rev() {
            let skip = if *day == from.day { from.line } else { 0 };
            let of_day = index.lines(ids, *day < today);
            let room = lines - page.lines.len();
            let left = of_day.len().saturating_sub(skip);
            page.lines.extend(of_day.into_iter().skip(skip).take(room));
            if left > room {
                page.next = Some(Place { day: *day, line: skip + room });
                break;
            }
        }
        Ok(page)
    }

    async fn public(&self, id: &Hash) -> Result<Option<Bytes>, String> {
        let key = {
            let mut index = self.index.lock().await;
            let index = self.opened(&mut index).await.map_err(words)?;
            index.kept.get(id).cloned()
        };
        match key {
            Some(key) if !matches!(key.whom, Whom::Mailbox(_)) => {
                self.bytes(&key).await.map_err(words)
            }
            _ => Ok(None),
        }
    }

    async fn of_name(&self, name: &Name) -> Result<Vec<Bytes>, String> {
        let mut keys: Vec<IncidentKey> = {
            let mut index = self.index.lock().await;
            let index = self.opened(&mut index).await.map_err(words)?;
            let ids = index.whom.get(&whom(name)).into_iter().flatten();
            ids.filter_map(|id| index.kept.get(id).cloned()).collect()
        };
        keys.sort_by_key(|key| (std::cmp::Reverse(key.at), key.id));
        let mut files = Vec::new();
        let mut sum = 0;
        for key in keys.iter().take(OF_NAME) {
            let Some(bytes) = self.bytes(key).await.map_err(words)? else { continue };
            sum += bytes.len();
            if sum > OF_NAME_BYTES {
                break;
            }
            // Half of a hash is in the key: the file itself says whose it is.
            if Incident::read(&bytes).is_ok_and(|read| read.name.as_ref() == Some(name)) {
                files.push(bytes);
            }
        }
        Ok(files)
    }
}

fn words(error: store::Error) -> String {
    error.to_string()
}

impl fmt::Debug for Filed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::incident::{Received, Shown};

    /// Three of each sort; of what was refused 3,000 bytes.
    fn small(sort: Sort) -> Room {
        let bytes = if sort == Sort::Refused { 3000 } else { u64::MAX };
        Room { files: 3, bytes, ..sort.room() }
    }

    fn filed(private: &Blobs) -> Filed {
        Filed { room: small, ..Filed::new(private.clone(), Clock::manual(Timestamp::from_secs(9))) }
    }

    fn incident(kind: Kind, second: u64, length: usize) -> Incident {
        let received = Received {
            rule: "TEST".to_owned(),
            message: "a test".to_owned(),
            bytes: vec![u8::try_from(second).unwrap(); length].into(),
            now: Shown::default(),
            before: None,
        };
        let name = "one.example".parse().unwrap();
        Incident::received(kind, "log.example/1", Timestamp::from_secs(second), name, received)
    }

    /// Kind and second of what is listed.
    async fn listed(filed: &Filed) -> Vec<(String, u64)> {
        let page = filed.page(None, 100).await.unwrap();
        let line = |line| match line {
            Listed::Public { at, kind, .. } => (kind, at / 1000),
            Listed::Mailboxes { .. } => panic!("of a domain"),
        };
        page.lines.into_iter().map(line).collect()
    }

    /// The same of what is in the store.
    async fn stored(private: &Blobs) -> Vec<(String, u64)> {
        let found = private.list_all(keys::INCIDENTS, 1000).await.unwrap();
        let keys = found.iter().map(|found| IncidentKey::parse(&found.key).unwrap());
        let mut all: Vec<_> = keys.map(|key| (key.kind, key.at / 1000)).collect();
        all.sort();
        all
    }

    fn of(kind: Kind, seconds: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
        seconds.into_iter().map(|second| (kind.as_str().to_owned(), second)).collect()
    }

    #[tokio::test]
    async fn the_oldest_junk_goes_and_no_alarm() {
        let private = Blobs::memory();
        let filed = filed(&private);
        let (junk, alarm) = (Kind::RecordRefused, Kind::PokReplaced);
        for second in 1..=5 {
            let filing = filed.file(&incident(alarm, second, 1)).await.unwrap();
            assert!(matches!(filing, Filing::New(_)));
        }
        for second in 11..=20 {
            let filing = filed.file(&incident(junk, second, 1)).await.unwrap();
            assert!(matches!(filing, Filing::New(_)));
        }
        let newest = [of(junk, [20, 19, 18]), of(alarm, [5, 4, 3])].concat();
        assert_eq!(listed(&filed).await, newest);
        assert_eq!(stored(&private).await, [of(alarm, 1..=5), of(junk, 18..=20)].concat());
        // What went is new again, what is not listed any more too.
        for old in [incident(junk, 11, 1), incident(alarm, 1, 1)] {
            let again = Incident { at: Timestamp::from_secs(30), ..old };
            assert!(matches!(filed.file(&again).await, Ok(Filing::New(_))));
            assert_eq!(filed.file(&again).await.unwrap(), Filing::Known);
        }
        // Two of more than 2,000 bytes each are too much.
        for second in [31, 32] {
            filed.file(&incident(junk, second, 1500)).await.unwrap();
        }
        let left = [of(alarm, 1..=5), of(alarm, [30]), of(junk, [32])].concat();
        assert_eq!(stored(&private).await, left);
    }

    /// Names below a registered domain cost nothing, nor does a new key of each.
    #[test]
    fn all_names_of_a_registered_domain_share_a_day_s_bytes() {
        const MIB: u64 = 1 << 20;
        let mut today = Today::default();
        let mut has_room = |name: &str, kind: Kind, bytes: u64, day: u64| {
            let incident = Incident { name: name.parse().ok(), ..incident(kind, 9, 1) };
            let accounts = accounts(Sort::of(kind, false), &incident);
            let room = today.has_room(&accounts, bytes, Timestamp::from_secs(day * 86_400));
            if room {
                today.book(accounts, bytes);
            }
            room
        };
        for (kind, most, last) in [
            (Kind::PokReplaced, BYTES_BELOW_ONE, "x@last.one.example"),
            (Kind::RecordRefused, REFUSED_BELOW_ONE, "last.one.example"),
        ] {
            for number in 0..most / (8 * MIB) {
                assert!(has_room(&format!("{number}.one.example"), kind, 8 * MIB, 1), "{kind}");
            }
            assert!(!has_room(last, kind, 1, 1), "{kind}");
            assert!(has_room("two.example", kind, 1, 1), "{kind}");
        }
        // Another sort has its own, and so has another day.
        assert!(has_room("last.one.example", Kind::UpdateWithheld, 1, 1));
        assert!(has_room("last.one.example", Kind::PokReplaced, 1, 2));
    }

    /// A store with more files than are listed, from before there were limits.
    #[tokio::test]
    async fn a_store_with_too_many_files_is_opened() {
        let private = Blobs::memory();
        let (junk, alarm) = (Kind::RecordRefused, Kind::PokReplaced);
        for second in 1..=50 {
            for incident in [incident(junk, second, 1), incident(alarm, second, 1)] {
                let key = keys::incident(&key_of(&incident, &incident.to_bytes()));
                private.put(&key, incident.to_bytes()).await.unwrap();
            }
        }
        let filed = filed(&private);
        let page = [of(junk, [50]), of(alarm, [50]), of(junk, [49]), of(alarm, [49])].concat();
        let mut newest = listed(&filed).await;
        newest.truncate(4);
        newest.sort();
        let mut expected = page;
        expected.sort();
        assert_eq!(newest, expected);
        let of_name = filed.of_name(&"one.example".parse().unwrap()).await.unwrap();
        assert_eq!(of_name.len(), 6);
        // Each new file takes some of the old junk along, and nothing else.
        for second in 51..=53 {
            filed.file(&incident(alarm, second, 1)).await.unwrap();
        }
        let left = [of(alarm, 1..=53), of(junk, 48..=50)].concat();
        assert_eq!(stored(&private).await, left);
    }
}
