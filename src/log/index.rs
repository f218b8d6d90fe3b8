//! From commits to rows: what [`State`] says of domains, mailboxes and
//! versions. The same function indexes a fresh commit and rebuilds everything.
//!
//! A FORGOTTEN entry erases, here and in the private blobs (`log::erase`).
//!
//! Idempotent: a row that is already as new as an entry is left as it is, so a
//! commit may be indexed again after a crash in its middle.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::Error;
use super::carry;
use super::chain::{Chain, Step, broken};
use super::commit::PrivateRecord;
use super::erase::{self, Erased, Gone};
use crate::dime::{Address, Name, Timestamp};
use crate::proof::entry::{
    DomainObservation, Entry, Event, Events, Kind, UserObservation, UserPayload,
};
use crate::proof::wire::Reader;
use crate::proof::{Hash, Label};
use crate::store::keys;
use crate::store::rows::{
    self, DomainRow, Hash as RowHash, Hidden, LISTED, Labelled, LinkRow, OrgRow, Place, Typed,
    UserRow,
};
use crate::store::state::{Applied, Batch, REWRITE, Range, State, Table};

/// Where [`Table::Meta`] says how far the index has come.
const INDEXED: &[u8] = b"indexed";
/// Writes that go to the engine at once, at most.
const CHUNK: usize = 5_000;

/// How far the index has come: everything up to this commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub n: u64,
    /// SHA-256 of the commit.
    pub hash: Hash,
}

/// Reads how far the index has come.
pub async fn indexed(state: &dyn State) -> Result<Option<Indexed>, Error> {
    let Some(value) = state.get(Table::Meta, INDEXED).await? else { return Ok(None) };
    let parsed = value.split_first_chunk::<8>().and_then(|(n, hash)| {
        Some(Indexed { n: u64::from_be_bytes(*n), hash: hash.try_into().ok()? })
    });
    match parsed {
        Some(indexed) => Ok(Some(indexed)),
        None => Err(crate::store::Error::Damaged {
            path: "table meta".into(),
            message: "how far the index has come cannot be read".into(),
        }
        .into()),
    }
}

/// Empties what is derived from the log.
pub async fn clear(state: &dyn State) -> Result<(), Error> {
    let rewrite = state.get(Table::Meta, REWRITE).await?;
    for table in Table::OF_THE_LOG {
        state.clear(table).await?;
    }
    if rewrite.is_some() { mark_rewrite(state).await } else { Ok(()) }
}

/// Has the engine's files written anew at the next opening.
pub async fn mark_rewrite(state: &dyn State) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(Table::Meta, REWRITE, "1");
    let _ = state.apply(batch).await?;
    Ok(())
}

/// Rows of one commit in the making, over those in the state.
pub(super) struct Rows<'a> {
    state: &'a dyn State,
    batch: Batch,
    /// What this commit has changed so far.
    fresh: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl<'a> Rows<'a> {
    fn new(state: &'a dyn State) -> Rows<'a> {
        Rows { state, batch: Batch::new(), fresh: HashMap::new() }
    }

    pub(super) async fn find<R: Typed>(&self, key: &[u8]) -> Result<Option<R>, Error> {
        match self.fresh.get(&(R::TABLE, key.to_vec())) {
            Some(value) => Ok(value.as_deref().map(rows::decode).transpose()?),
            None => Ok(rows::find(self.state, key).await?),
        }
    }

    pub(super) fn put<R: Typed>(&mut self, row: &R) {
        self.write(R::TABLE, row.key(), Some(rows::encode(row)));
    }

    fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.fresh.insert((table, key.clone()), value.clone());
        self.batch.writes.push((table, key, value));
    }

    /// Hands the writes over when there are many.
    async fn spill(&mut self) -> Result<(), Error> {
        if self.batch.writes.len() >= CHUNK {
            self.apply().await?;
        }
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        match self.state.apply(batch).await? {
            Applied::Applied => Ok(()),
            // No expectation was given.
            Applied::Conflict => Err(Error::broken(0, "the index refused a batch")),
        }
    }
}

/// Indexes one commit. Its private records are read from the payload; those
/// that were erased are skipped.
pub async fn index(state: &dyn State, chain: &Chain, step: &Step) -> Result<(), Error> {
    let n = step.commit.n;
    let first = step.commit.size.saturating_sub(step.batch.entries.len() as u64);
    let mut records: HashMap<u64, (u32, Bytes)> = HashMap::new();
    for (i, bytes) in (0u32..).zip(chain.records(&step.commit).await?) {
        let Some(bytes) = bytes else { continue };
        // The leaf index comes first in every kind of record.
        let at = Reader::new(&bytes).required_uint(1).map_err(broken(n, "a private record"))?;
        records.insert(at, (i, bytes));
    }
    let mut rows = Rows::new(state);
    for (at, bytes) in (first..).zip(&step.batch.entries) {
        let Ok(entry) = Entry::decode(bytes) else { continue };
        match &entry.kind {
            Kind::Domain(domain) => {
                let label = Label::of_domain(&parse(n, domain.domain)?);
                place(&mut rows, label, domain.version, at, n, bytes, None);
                index_domain(&mut rows, n, domain, label, entry.time).await?;
            }
            Kind::User(user) => {
                let hidden = match records.remove(&at) {
                    None => None,
                    Some((i, bytes)) => {
                        let record = PrivateRecord::decode(&bytes);
                        Some((i, record.map_err(broken(n, "a private record"))?))
                    }
                };
                index_user(&mut rows, n, at, bytes, user, entry.time, hidden).await?;
            }
            Kind::Forgotten(forgotten) => {
                place(&mut rows, forgotten.label, forgotten.version, at, n, bytes, None);
                forget(&mut rows, chain, forgotten.label, forgotten.version, n).await?;
            }
            Kind::Carried(carried) => {
                carry::index(&mut rows, n, at, carried, records.remove(&at)).await?;
            }
            Kind::Genesis(_) | Kind::Root(_) | Kind::Closing(_) => {}
        }
        rows.spill().await?;
    }
    let mark = [n.to_be_bytes().as_slice(), &step.hash].concat();
    rows.write(Table::Meta, INDEXED.into(), Some(mark));
    rows.apply().await
}

fn parse<T: std::str::FromStr>(n: u64, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::broken(n, "a name in an entry is none"))
}

pub(super) fn place(
    rows: &mut Rows<'_>,
    label: Label,
    version: u64,
    index: u64,
    commit: u64,
    entry: &Bytes,
    hidden: Option<Hidden>,
) {
    let label = RowHash(label.0);
    rows.put(&Place { label, version, index, commit, entry: entry.to_vec(), hidden });
}

pub(super) async fn index_domain(
    rows: &mut Rows<'_>,
    n: u64,
    seen: &DomainObservation<'_>,
    label: Label,
    time: Timestamp,
) -> Result<(), Error> {
    let domain = parse(n, seen.domain)?;
    let old: Option<DomainRow> = rows.find(seen.domain.as_bytes()).await?;
    if old.as_ref().is_some_and(|old| old.version >= seen.version) {
        return Ok(());
    }
    rows.put(&Labelled {
        label: RowHash(label.0),
        name: Name::Domain(crate::dime::Domain::clone(&domain)),
    });
    let mut row = old.unwrap_or(DomainRow {
        domain,
        version: 0,
        current: 0,
        poks: Vec::new(),
        dnssec: seen.dnssec,
        was_secure: false,
        record: None,
        org_signet: None,
        dnssec_chain: None,
        org_signets: Vec::new(),
        held_until: None,
        withdrawn: false,
        events: Vec::new(),
        logged_at: time,
    });
    if seen.current == seen.version {
        row.poks = seen.poks.iter().map(|pok| RowHash(*pok)).collect();
        row.note_dnssec(seen.dnssec, seen.events.contains(Event::DnssecLost));
        row.record = seen.record.map(|blob| RowHash(blob.sha256));
        row.org_signet = seen.org_signet.map(|blob| RowHash(blob.sha256));
        row.dnssec_chain = seen.dnssec_chain.map(|blob| RowHash(blob.sha256));
        if let Some(signet) = row.org_signet
            && !row.org_signets.iter().any(|known| known.signet == signet)
        {
            row.org_signets.push(OrgRow { signet, version: seen.version });
            keep_newest(&mut row.org_signets);
        }
    }
    row.version = seen.version;
    row.current = seen.current;
    row.held_until = seen.held_until.map(Timestamp::millis);
    // A bogus answer does not say whether the record is back.
    if !seen.events.contains(Event::DnssecBogus) {
        let gone = Events::of(&[Event::RecordWithdrawn, Event::RecordExpired]);
        row.withdrawn = seen.events.intersects(gone);
    }
    row.events = numbers(seen.events);
    row.logged_at = time;
    rows.put(&row);
    Ok(())
}

async fn index_user(
    rows: &mut Rows<'_>,
    n: u64,
    at: u64,
    bytes: &Bytes,
    seen: &UserObservation,
    time: Timestamp,
    hidden: Option<(u32, PrivateRecord)>,
) -> Result<(), Error> {
    let Some((number, record)) = hidden else {
        // Erased: the entry stands, nobody knows whose it is.
        place(rows, seen.label, seen.version, at, n, bytes, None);
        return Ok(());
    };
    let hidden = Hidden {
        record: number,
        payload: record.payload.to_vec(),
        opening: RowHash(record.opening),
        signet: record.signet.as_deref().map(|signet| RowHash(super::commit::sha256(signet))),
    };
    place(rows, seen.label, seen.version, at, n, bytes, Some(hidden.clone()));
    let whose = Whose { label: seen.label, address: record.address };
    index_hidden(rows, n, whose, seen, time, &hidden, record.signet).await
}

/// A mailbox and its label in this log.
pub(super) struct Whose {
    pub label: Label,
    pub address: Address,
}

/// What an opened entry says of a mailbox.
pub(super) async fn index_hidden(
    rows: &mut Rows<'_>,
    n: u64,
    whose: Whose,
    seen: &UserObservation,
    time: Timestamp,
    hidden: &Hidden,
    bytes: Option<Bytes>,
) -> Result<(), Error> {
    let payload = UserPayload::decode(&hidden.payload).map_err(broken(n, "a hidden payload"))?;
    if payload.signet.as_ref().map(|facts| RowHash(facts.sha256)) != hidden.signet {
        return Err(Error::broken(n, "a private record holds another signet than its payload"));
    }
    let Whose { label, address } = whose;
    if let (Some(sha256), Some(signet)) = (hidden.signet, bytes) {
        rows.write(Table::Signets, sha256.0.into(), Some(signet.to_vec()));
    }
    let old: Option<UserRow> = rows.find(&rows::user_key(&address)).await?;
    if old.as_ref().is_some_and(|old| old.version >= seen.version) {
        return Ok(());
    }
    rows.put(&Labelled { label: RowHash(label.0), name: Name::Address(address.clone()) });
    let mut row = old.unwrap_or(UserRow {
        address,
        label: RowHash(label.0),
        version: 0,
        current: 0,
        chain: Vec::new(),
        domain_version: payload.domain_version,
        held_until: None,
        withdrawn: false,
        events: Vec::new(),
        logged_at: time,
    });
    if seen.current == seen.version
        && let Some(facts) = payload.signet
    {
        let link = LinkRow {
            version: seen.version,
            signet: RowHash(facts.sha256),
            crypto: RowHash(facts.crypto_sha256),
            level: facts.level as u32,
        };
        match chain_step(seen.events) {
            ChainStep::New => row.chain = vec![link],
            ChainStep::Next => row.chain.push(link),
            ChainStep::Instead => {
                row.chain.pop();
                row.chain.push(link);
            }
        }
        keep_newest(&mut row.chain);
        row.domain_version = payload.domain_version;
    } else if seen.current == 0 {
        row.chain.clear();
    }
    row.version = seen.version;
    row.current = seen.current;
    row.held_until = seen.held_until.map(Timestamp::millis);
    row.withdrawn = seen.events.contains(Event::Withdrawn);
    row.events = numbers(seen.events);
    row.logged_at = time;
    rows.put(&row);
    Ok(())
}

/// The newest are last.
fn keep_newest<T>(list: &mut Vec<T>) {
    list.drain(..list.len().saturating_sub(LISTED));
}

/// What a signet that is in force now does to the chain of custody before it.
enum ChainStep {
    /// It begins a new one.
    New,
    /// Its keys were signed by those before.
    Next,
    /// The same keys, signed anew.
    Instead,
}

fn chain_step(events: Events) -> ChainStep {
    let begins = [Event::FirstSeen, Event::Restarted, Event::Gap];
    if begins.into_iter().any(|event| events.contains(event)) {
        ChainStep::New
    } else if events.contains(Event::Rotated) {
        ChainStep::Next
    } else {
        ChainStep::Instead
    }
}

/// Takes a mailbox out of the index: its name, its signets, what opened its
/// commitments. The entries stay where they are, sealed.
async fn forget(
    rows: &mut Rows<'_>,
    chain: &Chain,
    label: Label,
    version: u64,
    tail: u64,
) -> Result<(), Error> {
    if chain.private().head(&keys::lost(&label.0, version)).await?.is_some() {
        // Our loss, and nobody's wish: only what the next observation is not to
        // be judged by goes (threat 12).
        let known: Option<Labelled> = rows.find(&label.0).await?;
        if let Some(Labelled { name: Name::Address(address), .. }) = known {
            rows.write(Table::Users, rows::user_key(&address), None);
        }
        return Ok(());
    }
    // What this commit wrote of the label must be in the state to be found.
    rows.apply().await?;
    let mut erased = Erased::new();
    let mut signets = BTreeSet::new();
    let mut next = 1;
    while next < version {
        let page: Vec<Place> =
            rows::scan(rows.state, rows::places_from(&label.0, next), 1000).await?;
        let Some(last) = page.last().map(|place| place.version) else { break };
        for place in page.into_iter().filter(|place| place.version < version) {
            let Some(hidden) = &place.hidden else { continue };
            erased.entry(place.commit).or_default().insert(hidden.record);
            if let Some(signet) = hidden.signet {
                signets.insert(signet);
            }
            rows.put(&Place { hidden: None, ..place });
        }
        next = last + 1;
    }
    for signet in unshared(rows.state, label, version, signets).await? {
        rows.write(Table::Signets, signet.0.into(), None);
    }
    // The index still knows what there is to erase, should this be cut off.
    erase::erase(chain, &Gone { label, version, records: erased }).await?;
    let known: Option<Labelled> = rows.find(&label.0).await?;
    if let Some(Labelled { name: Name::Address(address), .. }) = known {
        erase::sweep_private(chain.private(), &|other| *other == address).await?;
        erase::sweep_orphans(chain, tail).await?;
        rows.write(Table::Users, rows::user_key(&address), None);
        rows.write(Table::Frontier, rows::user_key(&address), None);
        for table in [Table::Seen, Table::Quotas] {
            rows.write(table, address.as_str().into(), None);
        }
        rows.state.clear(Table::Cache).await?;
    }
    rows.write(Table::Labels, label.0.into(), None);
    // The engine keeps old bytes until its files are written anew.
    rows.write(Table::Meta, REWRITE.into(), Some(b"1".to_vec()));
    Ok(())
}

/// Which of these signets no entry names but those of `label` before `version`.
/// One whose name is unsigned may be that of several mailboxes. Reads all places.
async fn unshared(
    state: &dyn State,
    label: Label,
    version: u64,
    mut signets: BTreeSet<RowHash>,
) -> Result<BTreeSet<RowHash>, Error> {
    let mut range = Range::all();
    while !signets.is_empty() {
        let page: Vec<Place> = rows::scan(state, range.clone(), CHUNK).await?;
        let Some(last) = page.last() else { break };
        range = range.after(&last.key());
        for place in page {
            let going = place.label.0 == label.0 && place.version < version;
            if let Some(signet) = place.hidden.and_then(|hidden| hidden.signet)
                && !going
            {
                signets.remove(&signet);
            }
        }
    }
    Ok(signets)
}

fn numbers(events: Events) -> Vec<u32> {
    events.iter().map(Event::number).collect()
}
