//! Incidents as private objects: one file each, written once however often the
//! same thing is seen, and what of them may be shown.
//!
//! Bounded: at most [`PER_DAY`] new ones and [`BYTES_PER_DAY`] a day about one
//! domain or mirror, so that nobody fills the disk; what clients report has a
//! count of its own, so that it cannot use up ours.
//!
//! What is about a mailbox is never found by its id, and is listed as kind and
//! day only, once the day is over: the time at which it appears would tell whose
//! entry it belongs to (threat 21). Left out: who may ask, which is `serve`'s.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::dime::Name;
use crate::proof::Hash;
use crate::proof::incident::{CLIENT, Evidence, Incident, MAX_INCIDENT};
use crate::serve::http::{Incidents, Listed, Page, Place};
use crate::store::keys::{self, IncidentKey, Whom};
use crate::store::{self, Blobs};

/// New incidents about one domain or mirror that are kept on one day.
pub const PER_DAY: u32 = 64;
/// And their bytes.
pub const BYTES_PER_DAY: u64 = 64 << 20;
/// Incidents that are looked through at a start.
const MAX_KEPT: usize = 200_000;
/// Files of one mailbox or domain that are given out together, and their bytes.
const OF_NAME: usize = 16;
const OF_NAME_BYTES: usize = 2 * MAX_INCIDENT;

/// Keeps incidents, and gives them out.
pub struct Filed {
    private: Blobs,
    clock: Clock,
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
    /// It is over the day's quota, or too large: not kept.
    Over,
}

/// What the keys of all files tell.
#[derive(Default)]
struct Index {
    kept: HashMap<Hash, IncidentKey>,
    same: HashSet<[u8; 16]>,
    days: BTreeMap<u64, Vec<Hash>>,
    whom: HashMap<Whom, Vec<Hash>>,
    today: Today,
}

/// By whom, and whether clients reported it: files and bytes.
#[derive(Default)]
struct Today {
    day: u64,
    kept: HashMap<(String, bool), (u32, u64)>,
}

impl Filed {
    pub fn new(private: Blobs, clock: Clock) -> Filed {
        Filed { private, clock, index: Mutex::default() }
    }

    /// Keeps an incident, if it is new and there is room for it today.
    ///
    /// # Errors
    /// The private store's.
    pub async fn file(&self, incident: &Incident) -> Result<Filing, store::Error> {
        let bytes = incident.to_bytes();
        let key = key_of(incident, &bytes);
        let mut index = self.index.lock().await;
        let index = self.opened(&mut index).await?;
        if index.same.contains(&key.same) {
            return Ok(Filing::Known);
        }
        if bytes.len() > MAX_INCIDENT || !index.today.admit(incident, bytes.len() as u64) {
            return Ok(Filing::Over);
        }
        let _ = self.private.put_if_absent(&keys::incident(&key), bytes).await?;
        tracing::warn!(
            about = about(incident), kind = %incident.kind, rule = rule(incident),
            observer = incident.observer, "incident"
        );
        let id = key.id;
        index.add(key);
        Ok(Filing::New(id))
    }

    async fn opened<'i>(
        &self,
        index: &'i mut Option<Index>,
    ) -> Result<&'i mut Index, store::Error> {
        if index.is_none() {
            let mut read = Index::default();
            for found in self.private.list_all(keys::INCIDENTS, MAX_KEPT).await? {
                if let Some(key) = IncidentKey::parse(&found.key) {
                    read.add(key);
                }
            }
            *index = Some(read);
        }
        Ok(index.get_or_insert_default())
    }

    async fn bytes(&self, key: &IncidentKey) -> Result<Option<Bytes>, store::Error> {
        self.private.get(&keys::incident(key), MAX_INCIDENT as u64).await
    }
}

impl Index {
    fn add(&mut self, key: IncidentKey) {
        self.same.insert(key.same);
        self.days.entry(key.day()).or_default().push(key.id);
        self.whom.entry(key.whom.clone()).or_default().push(key.id);
        self.kept.insert(key.id, key);
    }

    /// A day's lines: what is public by time, then how many of mailboxes.
    fn lines(&self, ids: &[Hash], over: bool) -> Vec<Listed> {
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

impl Today {
    /// Whether there is room for one more, and counts it.
    fn admit(&mut self, incident: &Incident, bytes: u64) -> bool {
        let day = incident.at.secs() / 86_400;
        if self.day != day {
            *self = Today { day, kept: HashMap::new() };
        }
        let by_client = incident.observer == CLIENT;
        let (files, sum) = self.kept.entry((about(incident), by_client)).or_default();
        *files += 1;
        *sum += bytes;
        *files <= PER_DAY && *sum <= BYTES_PER_DAY
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
            let ids = index.whom.get(&whom(name)).map_or(&[][..], Vec::as_slice);
            ids.iter().filter_map(|id| index.kept.get(id).cloned()).collect()
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
