//! Memory of open sessions: each has done its handshake and given a signet.

use std::sync::Arc;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::demo::crowd::{host_name, mailbox};
use syndicate::dime::record::Selection;
use syndicate::dime::{Dnssec, Name};
use syndicate::dmtp::{self, AddressFilter, Entrance, Roots, Session, Target};
use syndicate::resolver::{HickoryResolver, record};

use super::super::{measure, round};
use super::{Crowd, Sizes, mib};

/// Sessions that are opened at once.
const AT_ONCE: usize = 64;

pub async fn figures(crowd: &Crowd, sizes: Sizes) -> anyhow::Result<Value> {
    let resolver = Arc::new(crowd.resolver()?);
    let options = Arc::new(dmtp::Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        ..dmtp::Options::default()
    });
    // What is made once is not a session's.
    let first = open(crowd, &resolver, &options, 0).await?;
    let before = measure::resident();
    let sessions: Vec<Session> = futures::stream::iter(0..sizes.sessions)
        .map(|number| open(crowd, &resolver, &options, number % sizes.domains))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let grown = measure::resident().saturating_sub(before);
    drop(first);
    Ok(json!({
        "sessions": sessions.len(),
        "sessions_mib": mib(grown),
        "session_kib": round(grown as f64 / 1024.0 / sessions.len().max(1) as f64),
    }))
}

/// A session with the host of a domain, by the domain's record.
async fn open(
    crowd: &Crowd,
    resolver: &HickoryResolver,
    options: &dmtp::Options,
    number: usize,
) -> anyhow::Result<Session> {
    let domain = mailbox(number)?.domain().clone();
    let found = record::find(resolver, &domain).await?;
    let Selection::One(record) = &found.selection else { anyhow::bail!("{domain}: no record") };
    anyhow::ensure!(found.dnssec == Dnssec::Secure, "{domain}: {}", found.dnssec);
    let host = host_name(number % crowd.hosts());
    let addr = crowd.host(number).context("no host")?;
    let target = Target { host: &host, addr, entrance: Entrance::Tls };
    let proof = Some((record, found.dnssec));
    let (mut session, _) = dmtp::open(target, options, Clock::system().now(), proof).await?;
    session.signet(&Name::Domain(domain), None).await?;
    Ok(session)
}
