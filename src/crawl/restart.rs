//! Reading back who is due, after a restart. There may be a million names, so
//! rows are decoded on other threads while the next are read.

use std::collections::HashSet;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;

use super::frontier::Frontier;
use crate::dime::{Address, Domain, Name, Timestamp};
use crate::store::rows::{self, DomainRow, FrontierRow, Typed as _, UserRow};
use crate::store::state::{MAX_SCAN, Range, Row, Table};
use crate::store::{Error, State};

/// Pages that are decoded while the next one is read.
const DECODING: usize = 2;

/// The frontier, and the names in the log's index: after that was rebuilt the
/// frontier may be missing. Mailboxes that were watched until now are left out.
pub async fn load(state: &dyn State, now: Timestamp) -> Result<Frontier, Error> {
    let (mut domains, mut mailboxes, mut lapsed) = (Vec::new(), Vec::new(), HashSet::new());
    let sort = |row: FrontierRow| match row.name {
        Name::Domain(domain) => domains.push((domain, row.due, row.failures)),
        Name::Address(address) if row.keep_until.is_some_and(|until| until <= now) => {
            lapsed.insert(address);
        }
        Name::Address(address) => mailboxes.push((address, row.due, row.keep_until)),
    };
    read(state, FrontierRow::TABLE, |(_, value)| rows::decode(value), sort).await?;
    let mut frontier = Frontier::restored(domains, mailboxes);
    let mut add = |name: Name| {
        if !frontier.is_watched(&name) && !name.address().is_some_and(|it| lapsed.contains(it)) {
            frontier.add(&name, now);
        }
    };
    // Their keys say enough.
    read(state, DomainRow::TABLE, |(key, _)| domain(key), |domain| add(Name::Domain(domain)))
        .await?;
    read(state, UserRow::TABLE, |(key, _)| mailbox(key), |user| add(Name::Address(user))).await?;
    Ok(frontier)
}

/// Reads a table page by page; each row is decoded on some thread, and taken in
/// order.
async fn read<T: Send + 'static>(
    state: &dyn State,
    table: Table,
    decode: fn(&Row) -> Result<T, Error>,
    mut take: impl FnMut(T),
) -> Result<(), Error> {
    let mut range = Range::all();
    let mut decoding = FuturesOrdered::new();
    loop {
        let page = state.scan(table, range.clone(), MAX_SCAN).await?;
        let last = page.last().map(|(key, _)| key.clone());
        if last.is_some() {
            decoding.push_back(tokio::task::spawn_blocking(move || {
                page.iter().map(decode).collect::<Result<Vec<T>, Error>>()
            }));
        }
        let most = if last.is_some() { DECODING } else { 0 };
        while decoding.len() > most {
            let Some(decoded) = decoding.next().await else { break };
            let failed = |source: tokio::task::JoinError| Error::State {
                doing: "decode rows of",
                source: source.into(),
            };
            decoded.map_err(failed)??.into_iter().for_each(&mut take);
        }
        let Some(last) = last else { return Ok(()) };
        range = range.after(&last);
    }
}

fn domain(key: &[u8]) -> Result<Domain, Error> {
    let text = std::str::from_utf8(key).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| no_name(DomainRow::TABLE))
}

fn mailbox(key: &[u8]) -> Result<Address, Error> {
    rows::user_of(key).ok_or_else(|| no_name(UserRow::TABLE))
}

fn no_name(table: Table) -> Error {
    let path = format!("table {}", table.name());
    Error::Damaged { path, message: "a key is no name".into() }
}
