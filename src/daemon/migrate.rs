//! A mirror goes on with a log under other keys, and every label comes along
//! (threat 18). The old mirror is stopped meanwhile.
//!
//! Three steps, each of which may be cut off and is finished by the same call:
//! the old log is closed for its successor; the new folder is made, with public
//! blobs, what the crawl keeps and incidents; the labels are carried over. The
//! old folder serves its closed log for as long as anybody wants it.
//!
//! Left out: telling clients. They believe the new key when their operator puts
//! it into their policy, never by themselves.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;

use super::{Folder, Secrets, log_options, open_to_sign};
use crate::clock::Clock;
use crate::config::Config;
use crate::log::carry::{self, Progress};
use crate::log::{self, Log, Opened};
use crate::proof::entry::Closing;
use crate::proof::note::VerifierKey;
use crate::store::state::{Batch, Range, State, Table};
use crate::store::{Blobs, keys, seen};

/// Rows copied at once.
const PAGE: usize = 5_000;
/// Largest object that is copied, bytes.
const MAX_OBJECT: u64 = 64 << 20;

/// Where to.
#[derive(Clone, Debug)]
pub struct Successor<'a> {
    /// The new data folder: absent, empty, or that of a migration cut off.
    pub folder: &'a Path,
    /// Another than the old log's.
    pub origin: &'a str,
    /// Also another key to hide mailboxes with; all their labels change.
    pub new_vrf_key: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Migrated {
    pub key: VerifierKey,
    pub labels: u64,
    /// Entries of the closed log.
    pub closed_at: u64,
}

/// Closes the log of a stopped mirror and carries all of it over.
///
/// # Errors
/// The mirror runs; the old log was closed for another successor; the new
/// folder holds something else; its log cannot be written.
pub async fn migrate(
    config: &Config,
    to: &Successor<'_>,
    clock: Clock,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<Migrated> {
    let old_folder = Folder::new(&config.data);
    let is_there = old_folder.keys().join("log.key").exists();
    ensure!(is_there, "there is no mirror in {}", config.data.display());
    let new_folder = Folder::new(to.folder);
    new_folder.make()?;
    let old_secrets = Secrets::load_or_make(&old_folder.keys(), config.origin.as_deref())?;
    ensure!(to.origin != old_secrets.origin(), "the new log needs another origin");
    let secrets =
        Secrets::succeed(&old_folder.keys(), &new_folder.keys(), to.origin, to.new_vrf_key)?;

    let opened = open_to_sign(config, &old_folder, &old_secrets, &clock).await;
    let Opened { log: old, mut sequencer } = opened.context("the old log")?;
    let keys = secrets.keys();
    let log_key = *secrets.verifier().public_key().context("the new log key is none")?;
    let successor = Closing { origin: to.origin, log_key, vrf_key: keys.vrf.public() };
    sequencer.close_for(&successor).await.context("closing the old log")?;
    let closed_at = old.heads().published.map_or(0, |head| head.size);

    let (predecessor, kept) = carry::predecessor(&old).await.context("reading the closed log")?;
    let store = new_folder.store().context("cannot open the new blob store")?;
    store.private.put(keys::PREDECESSOR, kept).await?;
    copy(&old.store().public, &store.public, &["blob", "withdrawn"]).await?;
    let same_labels = if to.new_vrf_key { &["incident"][..] } else { &["incident", "asked"] };
    copy(&old.store().private, &store.private, same_labels).await?;
    let state: Arc<dyn State> = Arc::new(new_folder.open_state().await?);
    copy_rows(&old, &*state).await?;
    seen::save(&store.private, &*state, seen::day(clock.now())).await?;

    let mut options = log_options(config, &new_folder, &secrets);
    options.predecessor = Some(predecessor);
    let opened = log::open(options, store, state, keys, clock).await;
    let Opened { log, mut sequencer } = opened.context("cannot make the new log")?;
    sequencer.carry_over(&old, told).await.context("carrying labels over")?;
    let labels = log.directory().committed().labels;
    log.state().flush().await?;
    old.state().flush().await?;
    Ok(Migrated { key: secrets.verifier(), labels, closed_at })
}

/// Copies what is not there yet.
async fn copy(from: &Blobs, to: &Blobs, prefixes: &[&str]) -> anyhow::Result<()> {
    for prefix in prefixes {
        let mut found = from.list(prefix);
        while let Some(object) = found.try_next().await? {
            if to.head(&object.key).await?.is_some() {
                continue;
            }
            if let Some(bytes) = from.get(&object.key, MAX_OBJECT).await? {
                to.put(&object.key, bytes).await?;
            }
        }
    }
    Ok(())
}

/// What the crawl keeps beside the log, by name.
async fn copy_rows(old: &Log, to: &dyn State) -> anyhow::Result<()> {
    for table in [Table::Seen, Table::Frontier, Table::Due, Table::Quotas] {
        let mut range = Range::all();
        loop {
            let page = old.state().scan(table, range.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            let mut batch = Batch::new();
            for (key, value) in page {
                if to.get(table, &key).await?.is_none() {
                    batch.put(table, key, value);
                }
            }
            if !batch.is_empty() {
                let _ = to.apply(batch).await?;
            }
        }
    }
    Ok(())
}
