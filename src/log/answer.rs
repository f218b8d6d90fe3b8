//! Answers about names: receipts at the published head, and what the log holds
//! of a name for those who cannot take a proof (DMTP).
//!
//! A receipt is made from the directory (proof and newest version), the index
//! (entries and what is hidden behind them) and the public blobs. Only the
//! directory decides what is the newest: rows that are ahead of the published
//! head are left out. Left out: judging it, which is the asker's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::reader::PublicBlob;
use super::{Blocked, Head, Log, Reader, carry};
use crate::dime::signet::{Fingerprint, Signet};
use crate::dime::{Address, Domain, Name, Timestamp};
use crate::directory::Lookup;
use crate::proof::entry::{Entry, Kind, UserPayload};
use crate::proof::map::{CHAIN_START, chain_next, entry_leaf_hash};
use crate::proof::receipt::{Hidden, Item, Leaf, Named, Purpose, Receipt, Seen, Subject};
use crate::proof::{Hash, Label, label, vrf};
use crate::store::rows::{self, DomainRow, LinkRow, Place, SeenRow, UserRow};

/// Versions in one part of a receipt, at most: about 0.5 MB without blobs.
pub const MAX_VERSIONS: u64 = 4_000;
/// Signets and other blobs in one receipt, at most, bytes: a quarter of what a
/// reader takes. What the verdict rests on has room in any case.
pub const MAX_BLOBS: usize = 8 << 20;
/// The same where names are compared: of two such receipts one incident is made.
pub const MAX_COMPARED: usize = 2 << 20;
/// Signets of one name that are read for one answer over DMTP, at most, bytes: a
/// thousand ordinary ones. Strangers choose how many and how large they are, and
/// anybody may ask for them, over many connections at once.
pub const MAX_WALK: usize = 2 << 20;
/// Chain values kept in memory, each 72 bytes.
const CACHED_CHAINS: usize = 10_000;
/// Reading is tried again when the head moves meanwhile.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(25);
/// Rows of one scan.
const PAGE: usize = 1_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: Name,
    pub span: Span,
    /// The asker has the genesis entry.
    pub has_genesis: bool,
}

/// Which versions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The one in force and what came after it.
    Latest,
    /// From this one on, and at least as many as [`Span::Latest`]; 0: all.
    From(u64),
    /// All, for comparing: of more than one receipt holds the newest [`MAX_VERSIONS`],
    /// and without the older bytes beyond [`MAX_COMPARED`].
    Whole,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nothing is published yet")]
    Unpublished,
    #[error("the head kept moving while the answer was put together")]
    Unsettled,
    /// More than one receipt holds. The asker may ask for less.
    #[error("the name has {latest} versions, more than one receipt holds from version {from} on")]
    TooLong { from: u64, latest: u64 },
    /// The index or the blobs lack something that the log has.
    #[error("version {version}: {what} is missing in the store")]
    Missing { version: u64, what: &'static str },
    #[error(transparent)]
    Log(#[from] super::Error),
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Error {
        Error::Log(error.into())
    }
}

/// Makes receipts. Shared by all who ask.
#[derive(Debug)]
pub struct Answerer {
    reader: Reader,
    /// First and last leaf of the newest head that was asked for.
    ends: Mutex<Option<(u64, Leaf, Leaf)>>,
    /// `(label, version)` -> chain value after it. Never changes.
    chains: Mutex<HashMap<(Label, u64), Hash>>,
}

/// What the log holds of a domain or mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding<T> {
    Found(T),
    /// An alarm waits out its time.
    Held,
    /// Nothing, or nothing in force.
    Nothing,
    /// The operator withdrew the bytes.
    Withdrawn,
}

impl<T> Holding<T> {
    /// The same of something else, where nothing was found.
    fn without<U>(self) -> Holding<U> {
        match self {
            Holding::Held => Holding::Held,
            Holding::Withdrawn => Holding::Withdrawn,
            Holding::Nothing | Holding::Found(_) => Holding::Nothing,
        }
    }
}

/// One label's part in the making.
struct Part {
    label: Label,
    vrf_proof: Option<vrf::Proof>,
    lookup: Lookup,
    places: Vec<Place>,
    chain: Hash,
}

impl Part {
    fn latest(&self) -> u64 {
        self.lookup.tip.map_or(0, |tip| tip.version)
    }

    fn current(&self) -> u64 {
        self.lookup.tip.map_or(0, |tip| tip.current)
    }
}

impl Answerer {
    pub fn new(reader: Reader) -> Answerer {
        Answerer { reader, ends: Mutex::new(None), chains: Mutex::default() }
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Puts together what the log has to say at its published head.
    ///
    /// # Errors
    /// [`Error::TooLong`] is the asker's to mend; all others are ours.
    pub async fn receipt(&self, question: &Question) -> Result<Receipt, Error> {
        let mut last = Error::Unsettled;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.attempt(question).await {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => {}
                // What a FORGOTTEN that is about to be published has taken away.
                Err(error @ Error::Missing { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// `None` if the head moved meanwhile.
    async fn attempt(&self, question: &Question) -> Result<Option<Receipt>, Error> {
        let head = self.reader.head().ok_or(Error::Unpublished)?;
        let checkpoint = head.checkpoint.clone().ok_or(Error::Unpublished)?;
        let Some(part) = self.part(&question.name, question.span, &head).await? else {
            return Ok(None);
        };
        let domain = match &question.name {
            Name::Domain(_) => None,
            Name::Address(address) => match domain_needed(&part)? {
                None => None,
                Some(needed) => {
                    let name = Name::Domain(address.domain().clone());
                    let part = match self.part(&name, Span::From(needed.least), &head).await {
                        Err(Error::TooLong { .. }) if question.span == Span::Whole => {
                            self.part(&name, Span::From(needed.in_force), &head).await?
                        }
                        part => part?,
                    };
                    let Some(part) = part else { return Ok(None) };
                    Some((name, part))
                }
            },
        };
        let (genesis, root) = self.ends(&head).await?;
        let closing = self.closing(&head).await?;
        let subject = self.subject(&question.name, part, &head).await?;
        let domain = match domain {
            Some((name, part)) => Some(self.subject(&name, part, &head).await?),
            None => None,
        };
        let mut receipt = Receipt {
            name: question.name.clone(),
            checkpoint,
            root,
            genesis: (!question.has_genesis).then_some(genesis),
            subject,
            domain,
            blobs: Vec::new(),
            withdrawn: Vec::new(),
            closing,
        };
        self.fill(&mut receipt, question.span).await?;
        Ok(Some(receipt))
    }

    /// The label at the head, with its entries; `None` if the head has moved.
    async fn part(&self, name: &Name, span: Span, head: &Head) -> Result<Option<Part>, Error> {
        let log = self.reader.log();
        let (label, vrf_proof) = match name {
            Name::Domain(domain) => (Label::of_domain(domain), None),
            Name::Address(address) => {
                let (output, proof) = log.vrf().prove(&label::alpha(address));
                (Label::from_vrf(&output), Some(proof))
            }
        };
        let lookup = log.directory().lookup(&label);
        if lookup.head.root != head.directory_root {
            return Ok(None);
        }
        let Some(tip) = lookup.tip else {
            let (places, chain) = (Vec::new(), CHAIN_START);
            return Ok(Some(Part { label, vrf_proof, lookup, places, chain }));
        };
        let in_force = if tip.current == 0 { tip.version } else { tip.current };
        let first = match span {
            Span::Latest => in_force,
            Span::From(from) => from.min(in_force),
            Span::Whole => (tip.version + 1).saturating_sub(MAX_VERSIONS).min(in_force),
        };
        let (_, beginning) = carry::beginning(log, &label).await?;
        let first = first.max(beginning);
        if tip.version - first >= MAX_VERSIONS {
            return Err(Error::TooLong { from: first, latest: tip.version });
        }
        let places = places(log, &label, first, tip.version).await?;
        let chain = self.chain_before(&label, first).await?;
        Ok(Some(Part { label, vrf_proof, lookup, places, chain }))
    }

    /// The chain value before version `first`: from the nearest one that is
    /// remembered, over the entries in between.
    async fn chain_before(&self, label: &Label, first: u64) -> Result<Hash, Error> {
        let wanted = first - 1;
        if wanted == 0 {
            return Ok(CHAIN_START);
        }
        if let Some(chain) = lock(&self.chains).get(&(*label, wanted)) {
            return Ok(*chain);
        }
        let (mut chain, mut next) = carry::beginning(self.reader.log(), label).await?;
        while next <= wanted {
            let page = places(self.reader.log(), label, next, wanted.min(next + 999)).await?;
            for place in &page {
                chain = chain_next(&chain, &entry_leaf_hash(&place.entry));
            }
            next += page.len() as u64;
        }
        let mut chains = lock(&self.chains);
        if chains.len() >= CACHED_CHAINS {
            chains.clear();
        }
        chains.insert((*label, wanted), chain);
        Ok(chain)
    }

    /// Entry 0 and the directory root, with their inclusion.
    async fn ends(&self, head: &Head) -> Result<(Leaf, Leaf), Error> {
        if let Some((size, genesis, root)) = &*lock(&self.ends)
            && *size == head.size
        {
            return Ok((genesis.clone(), root.clone()));
        }
        let entry = self.reader.entry(0).await?;
        let entry = entry.ok_or(Error::Missing { version: 0, what: "the genesis entry" })?;
        let genesis = Leaf { entry, path: self.reader.inclusion(0, head.size).await? };
        let path = self.reader.inclusion(head.size.saturating_sub(1), head.size).await?;
        let root = Leaf { entry: head.root_entry.clone(), path };
        *lock(&self.ends) = Some((head.size, genesis.clone(), root.clone()));
        Ok((genesis, root))
    }

    /// The closing entry, if the log has ended.
    async fn closing(&self, head: &Head) -> Result<Option<Leaf>, Error> {
        if self.reader.log().blocked() != Some(Blocked::Closed) {
            return Ok(None);
        }
        let index = head.size.saturating_sub(2);
        let Some(entry) = self.reader.entry(index).await? else { return Ok(None) };
        if !Entry::decode(&entry).is_ok_and(|entry| matches!(entry.kind, Kind::Closing(_))) {
            return Ok(None);
        }
        Ok(Some(Leaf { entry, path: self.reader.inclusion(index, head.size).await? }))
    }

    /// The bytes behind the hashes, as far as they have room: no more of them is read
    /// than a reader would take. A history has all or is refused, but for what older
    /// signets of a mailbox were validated under.
    async fn fill(&self, receipt: &mut Receipt, span: Span) -> Result<(), Error> {
        let unreadable = |_| Error::Missing { version: 0, what: "a readable entry" };
        let room = if span == Span::Whole { MAX_COMPARED } else { MAX_BLOBS };
        let is_mailbox = receipt.domain.is_some();
        let (mut found, mut withdrawn) = (Vec::new(), Vec::new());
        let (mut size, mut read) = (0, 0);
        for named in receipt.named().map_err(unreadable)? {
            let is_needed = named.purpose == Purpose::Verdict;
            if span == Span::Latest && named.purpose == Purpose::Past {
                break;
            }
            let may_lack = !matches!(span, Span::From(_)) || is_mailbox && !named.is_signet;
            if !is_needed && may_lack && read > MAX_BLOBS {
                break;
            }
            let bytes = match self.bytes(&named).await? {
                PublicBlob::Here(bytes) => bytes,
                PublicBlob::Withdrawn => {
                    withdrawn.push(named.sha256);
                    continue;
                }
                PublicBlob::Missing => {
                    let what = if named.is_signet { "the signet" } else { "a public blob" };
                    return Err(Error::Missing { version: named.version, what });
                }
            };
            read += bytes.len();
            if is_needed || size + bytes.len() <= room {
                size += bytes.len();
                found.push(bytes);
            } else if !may_lack {
                let latest = receipt.latest();
                return Err(Error::TooLong { from: receipt.first(), latest });
            }
        }
        withdrawn.sort_unstable();
        receipt.withdrawn = withdrawn;
        receipt.set_blobs(found);
        Ok(())
    }

    async fn bytes(&self, named: &Named) -> Result<PublicBlob, Error> {
        if !named.is_signet {
            return Ok(self.reader.blob(&named.sha256).await?);
        }
        let hash = rows::Hash(named.sha256);
        let bytes = rows::signet(&**self.reader.log().state(), &hash).await?;
        Ok(bytes.map_or(PublicBlob::Missing, |bytes| PublicBlob::Here(bytes.into())))
    }

    async fn subject(&self, name: &Name, part: Part, head: &Head) -> Result<Subject, Error> {
        let seen = self.seen(name, &part, head).await?;
        let first = part.places.first().map_or(u64::MAX, |place| place.version);
        let carries = carry::steps(self.reader.log(), &part.label, first, head.size).await?;
        let items = part.places.into_iter().map(|place| Item {
            entry: place.entry.into(),
            hidden: place
                .hidden
                .map(|hidden| Hidden { payload: hidden.payload.into(), opening: hidden.opening.0 }),
        });
        Ok(Subject {
            vrf_proof: part.vrf_proof,
            map: part.lookup.proof,
            chain: part.chain,
            items: items.collect(),
            seen,
            carries,
        })
    }

    /// Our signed word about when the DX was asked last (threat 16).
    async fn seen(&self, name: &Name, part: &Part, head: &Head) -> Result<Option<Seen>, Error> {
        let shared = &self.reader.log().0;
        let row: Option<SeenRow> = rows::find(&*shared.state, name.as_str().as_bytes()).await?;
        // A time after now is from a clock that was ahead, and says nothing.
        let is_past = |row: &SeenRow| row.attempted_at <= shared.clock.now();
        let Some(row) = row.filter(|row| row.attempted_at != Timestamp::default() && is_past(row))
        else {
            return Ok(None);
        };
        // What was confirmed is this state, or it is another one.
        let is_known = row.version == part.current() && row.confirmed_at <= row.attempted_at;
        let confirmed = if is_known { row.confirmed_at } else { Timestamp::default() };
        let version = part.latest();
        let origin = &shared.record.origin;
        let root = &head.directory_root;
        let text = Seen::message(origin, &part.label, version, confirmed, row.attempted_at, root);
        let signature = shared.keys.log.sign(&text, Timestamp::default());
        let signature = signature.body.try_into();
        let signature = signature.map_err(|_| Error::Missing { version, what: "the log key" })?;
        Ok(Some(Seen { confirmed_at: confirmed, attempted_at: row.attempted_at, signature }))
    }

    /// The org signet in force of a domain, or with `at` the newest that was in
    /// force and has this fingerprint, among the last [`MAX_WALK`] bytes of them.
    pub async fn domain(
        &self,
        domain: &Domain,
        at: Option<&Fingerprint>,
    ) -> Result<Holding<Signet>, Error> {
        let label = Label::of_domain(domain);
        let Some(row) =
            self.settled(&label, domain.as_str().as_bytes(), |row: &DomainRow| row.version).await?
        else {
            return Ok(Holding::Nothing);
        };
        if self.is_held(row.held_until) {
            return Ok(Holding::Held);
        }
        let (Some(current), true) = (row.org_signet, row.current != 0) else {
            return Ok(Holding::Nothing);
        };
        let missing = |what| Error::Missing { version: row.current, what };
        let in_force = match self.reader.blob(&current.0).await? {
            PublicBlob::Here(bytes) => readable(&bytes, row.current)?,
            PublicBlob::Withdrawn => return Ok(Holding::Withdrawn),
            PublicBlob::Missing => return Err(missing("the org signet")),
        };
        let Some(at) = at.filter(|at| !in_force.matches(at)) else {
            return Ok(Holding::Found(in_force));
        };
        let mut walked = in_force.bytes().len();
        for org in row.org_signets.iter().rev().filter(|org| org.signet != current) {
            let PublicBlob::Here(bytes) = self.reader.blob(&org.signet.0).await? else { continue };
            walked += bytes.len();
            if walked > MAX_WALK {
                break;
            }
            let signet = readable(&bytes, org.version)?;
            if signet.matches(at) {
                return Ok(Holding::Found(signet));
            }
        }
        Ok(Holding::Nothing)
    }

    /// The signet in force of a mailbox, or with `at` the newest of its current
    /// chain that has this fingerprint, among those that [`Answerer::history`] gives.
    pub async fn mailbox(
        &self,
        address: &Address,
        at: Option<&Fingerprint>,
    ) -> Result<Holding<Signet>, Error> {
        let row = match self.in_force(address).await? {
            Holding::Found(row) => row,
            other => return Ok(other.without()),
        };
        let found = match at {
            Some(_) => self.walk(&row, at, at).await?.pop(),
            None => match row.chain.last() {
                Some(tip) => Some(self.link(tip).await?),
                None => None,
            },
        };
        Ok(found.map_or(Holding::Nothing, Holding::Found))
    }

    /// The current chain of custody of a mailbox from `start` to `stop`, both
    /// included, oldest first. Of a long chain only its newest [`MAX_WALK`] bytes
    /// are looked at: without `start` it begins there.
    pub async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Result<Holding<Vec<Signet>>, Error> {
        let row = match self.in_force(address).await? {
            Holding::Found(row) => row,
            other => return Ok(other.without()),
        };
        let found = self.walk(&row, start, stop).await?;
        Ok(if found.is_empty() { Holding::Nothing } else { Holding::Found(found) })
    }

    /// The row of a mailbox that has a signet in force, and is not held.
    async fn in_force(&self, address: &Address) -> Result<Holding<UserRow>, Error> {
        let label = Label::of_address(self.reader.log().vrf(), address);
        let key = rows::user_key(address);
        let Some(row) = self.settled(&label, &key, |row: &UserRow| row.version).await? else {
            return Ok(Holding::Nothing);
        };
        let domain = address.domain();
        let above = Label::of_domain(domain);
        let above =
            self.settled(&above, domain.as_str().as_bytes(), |row: &DomainRow| row.version).await?;
        let domain_held = above.and_then(|domain| domain.held_until);
        if self.is_held(row.held_until) || self.is_held(domain_held) {
            return Ok(Holding::Held);
        }
        Ok(if row.current == 0 { Holding::Nothing } else { Holding::Found(row) })
    }

    /// Goes back along a chain, link by link, and reads no further than it must.
    /// Nothing if an end is not found, or `stop` lies before `start`.
    async fn walk(
        &self,
        row: &UserRow,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Result<Vec<Signet>, Error> {
        let mut found = Vec::new();
        let (mut walked, mut begun) = (0, start.is_none());
        for link in row.chain.iter().rev() {
            let signet = self.link(link).await?;
            walked += signet.bytes().len();
            if walked > MAX_WALK {
                break;
            }
            let is_start = start.is_some_and(|start| signet.matches(start));
            if !found.is_empty() || stop.is_none_or(|stop| signet.matches(stop)) {
                found.push(signet);
            }
            if is_start {
                begun = true;
                break;
            }
        }
        if !begun {
            found.clear();
        }
        found.reverse();
        Ok(found)
    }

    async fn link(&self, link: &LinkRow) -> Result<Signet, Error> {
        let bytes = rows::signet(&**self.reader.log().state(), &link.signet).await?;
        let missing = Error::Missing { version: link.version, what: "the signet" };
        readable(&bytes.ok_or(missing)?, link.version)
    }

    /// A label's row, when it is that of the published head.
    async fn settled<R: rows::Typed>(
        &self,
        label: &Label,
        key: &[u8],
        version: impl Fn(&R) -> u64,
    ) -> Result<Option<R>, Error> {
        let log = self.reader.log();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let served = log.directory().lookup(label).tip;
            let row: Option<R> = rows::find(&**log.state(), key).await?;
            match (served, row) {
                (None, _) => return Ok(None),
                (Some(tip), Some(row)) if version(&row) == tip.version => return Ok(Some(row)),
                // A forgotten name has no row, or is about to have none.
                (Some(tip), None) if tip.current == 0 => return Ok(None),
                _ => {}
            }
        }
        Err(Error::Unsettled)
    }

    fn is_held(&self, until: Option<u64>) -> bool {
        let now = self.reader.log().0.clock.now();
        until.is_some_and(|until| Timestamp::from_millis(until) > now)
    }
}

/// A signet that was logged.
fn readable(bytes: &[u8], version: u64) -> Result<Signet, Error> {
    Signet::decode(bytes).map_err(|_| Error::Missing { version, what: "a readable signet" })
}

/// The entries of versions `first` to `last`, all of them.
pub(super) async fn places(
    log: &Log,
    label: &Label,
    first: u64,
    last: u64,
) -> Result<Vec<Place>, Error> {
    let mut found: Vec<Place> = Vec::new();
    let mut next = first;
    while next <= last {
        let wanted = (last - next + 1).min(PAGE as u64) as usize;
        let range = rows::places_from(&label.0, next);
        let page: Vec<Place> = rows::scan(&**log.state(), range, wanted).await?;
        let missing = |version| Error::Missing { version, what: "the entry" };
        if page.is_empty() {
            return Err(missing(next));
        }
        for place in page {
            if place.version != next {
                return Err(missing(next));
            }
            next += 1;
            found.push(place);
        }
    }
    Ok(found)
}

/// Versions of the domain that a mailbox's payloads rest on.
struct Needed {
    least: u64,
    /// Under which what is in force was validated.
    in_force: u64,
}

fn domain_needed(part: &Part) -> Result<Option<Needed>, Error> {
    let payloads = payloads(part)?;
    let least = payloads.iter().map(|(_, payload)| payload.domain_version).min();
    let in_force = payloads.iter().find(|(version, _)| *version == part.current());
    Ok(least.map(|least| {
        let in_force = in_force.map_or(least, |(_, payload)| payload.domain_version);
        Needed { least, in_force }
    }))
}

/// What is hidden behind the entries of a mailbox; before a FORGOTTEN nothing need be.
fn payloads(part: &Part) -> Result<Vec<(u64, UserPayload)>, Error> {
    let mut found = Vec::new();
    for place in part.places.iter().rev() {
        let version = place.version;
        let missing = |what| Error::Missing { version, what };
        let entry = Entry::decode(&place.entry).map_err(|_| missing("a readable entry"))?;
        match (&entry.kind, &place.hidden) {
            (Kind::Forgotten(_), _) => break,
            (Kind::User(_), None) => return Err(missing("the payload")),
            (_, None) => {}
            (_, Some(hidden)) => {
                let payload = UserPayload::decode(&hidden.payload);
                found.push((version, payload.map_err(|_| missing("a readable payload"))?));
            }
        }
    }
    Ok(found)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
