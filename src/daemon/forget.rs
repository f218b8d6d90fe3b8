//! Erasing a mailbox in the folder of a mirror that is stopped.
//!
//! The log gets a FORGOTTEN entry; what was hidden behind the entries before it
//! goes, in the blobs and in the index, whose files are written anew. Left out:
//! asking the operator, which the command line does.

use anyhow::{Context as _, bail, ensure};
use tokio_util::sync::CancellationToken;

use super::{Folder, Secrets, open_to_sign, reopen_state};
use crate::clock::Clock;
use crate::config::Config;
use crate::dime::{Address, Name};
use crate::log::{Log, Opened, Placed, Refused, erase};
use crate::proof::draft::Draft;

/// What became of a request to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Erased now; where its FORGOTTEN entry stands.
    Now(Placed),
    /// It had been forgotten before, and nothing came since.
    Before,
}

/// Erases everything that this mirror holds of a mailbox.
///
/// # Errors
/// The mirror runs; its log takes no entries; the log does not know the mailbox.
pub async fn forget(config: &Config, clock: Clock, address: Address) -> anyhow::Result<Forgotten> {
    let folder = folder(config)?;
    let done = {
        let Opened { log, sequencer } = open(config, &folder, clock).await?;
        if log.is_forgotten(&address).await? {
            Forgotten::Before
        } else {
            let stop = CancellationToken::new();
            let rounds = tokio::spawn(sequencer.run(stop.clone()));
            let placed = place(&log, address.clone()).await;
            stop.cancel();
            rounds.await?.context("the log stopped")?;
            Forgotten::Now(placed?)
        }
    };
    // The engine's files still hold the erased rows: opening writes them anew.
    drop(reopen_state(&folder).await?);
    // A copy of what was seen may have been under way while it went.
    let private = folder.store()?.private;
    erase::sweep_private(&private, &|other| *other == address).await?;
    Ok(done)
}

async fn place(log: &Log, address: Address) -> anyhow::Result<Placed> {
    match log.submit_urgent(Draft::Forget { address }).await {
        Ok(placed) => Ok(placed),
        Err(Refused::Unplaceable(_)) => {
            bail!("this log has nothing of that mailbox")
        }
        Err(refused) => Err(refused).context("nothing was erased"),
    }
}

/// Lets the crawl see a forgotten mailbox again, because its owner asks.
///
/// # Errors
/// The mirror runs; the mailbox is not a forgotten one.
pub async fn ask_again(config: &Config, clock: Clock, address: &Address) -> anyhow::Result<()> {
    let folder = folder(config)?;
    let opened = open(config, &folder, clock).await?;
    ensure!(opened.log.ask_again(address).await?, "this log has not forgotten that mailbox");
    Ok(())
}

/// Whether the configuration asks for the mailbox to be watched.
pub fn is_configured(config: &Config, address: &Address) -> bool {
    config.names.iter().any(|name| matches!(name, Name::Address(known) if known == address))
}

/// The folder of a mirror that was started before: nothing is made here.
fn folder(config: &Config) -> anyhow::Result<Folder> {
    let folder = Folder::new(&config.data);
    let is_there = folder.keys().join("log.key").exists();
    ensure!(is_there, "there is no mirror in {}", config.data.display());
    Ok(folder)
}

async fn open(config: &Config, folder: &Folder, clock: Clock) -> anyhow::Result<Opened> {
    let secrets = Secrets::load_or_make(&folder.keys(), config.origin.as_deref())?;
    open_to_sign(config, folder, &secrets, &clock).await
}
