//! `syndicate peers`: how it stands with the mirrors that are followed, and the
//! operator's word about a fault.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use serde_json::json;
use syndicate::peers::archive::Archive;

use super::mirror::Source;
use super::output;

/// Look after the mirrors that this one follows.
///
/// A peer whose own signature proves a fault (two histories, a broken rule) is
/// not cosigned any more, whatever it does afterwards. The incident stays; the
/// peer is followed again when its operator has explained it and you say so.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How far each configured peer was followed, and what is wrong with it.
    Show {
        #[command(flatten)]
        source: Source,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Follow a peer again in spite of its fault. The mirror may be running.
    Clear {
        /// The origin of its log.
        origin: String,
        #[command(flatten)]
        source: Source,
    },
    /// Follow a peer past a file that its operator withdrew before this mirror
    /// could check it, and that no other mirror kept. The mirror may be running.
    /// Its cosignature vouches for the entry from then on: ask the operator first.
    PassOver {
        /// The origin of its log.
        origin: String,
        /// SHA-256 of the file, hexadecimal, as the peer's status names it.
        blob: String,
        #[command(flatten)]
        source: Source,
    },
}

pub fn run(args: Args) -> ExitCode {
    output::tracing_from("warn");
    output::outcome(output::block_on(async {
        match args.command {
            Command::Show { source, json } => show(source, json).await,
            Command::Clear { origin, source } => clear(&source, &origin).await,
            Command::PassOver { origin, blob, source } => pass_over(&source, &origin, &blob).await,
        }
    }))
}

async fn show(source: Source, json: bool) -> anyhow::Result<()> {
    let config = source.config()?;
    let private = source.folder()?.store()?.private;
    for mirror in &config.peers.mirrors {
        let origin = mirror.log.name();
        let archive = Archive::new(&private, origin)?;
        let kept = archive.kept().await?.unwrap_or_default();
        let cosigned = archive.cosigned_size().await?;
        let fault = archive.fault().await?;
        if json {
            output::json_line(&json!({
                "origin": origin,
                "url": mirror.url,
                "size": kept.position.size(),
                "root": hex::encode(kept.position.root()),
                "cosigned": cosigned,
                "memory": kept.labels * syndicate::peers::BYTES_PER_LABEL,
                "fault": fault,
            }));
            continue;
        }
        println!("{origin} at {}", mirror.url);
        println!("  followed {} entries, cosigned {cosigned}", kept.position.size());
        if let Some(fault) = fault {
            println!("  FAULT: {fault}");
        }
    }
    Ok(())
}

async fn clear(source: &Source, origin: &str) -> anyhow::Result<()> {
    let private = source.folder()?.store()?.private;
    let archive = Archive::new(&private, origin)?;
    let there = archive.clear_fault().await.context("cannot clear the fault")?;
    ensure!(there, "nothing is held against {origin}");
    println!("cleared: {origin} is followed and cosigned again");
    Ok(())
}

async fn pass_over(source: &Source, origin: &str, blob: &str) -> anyhow::Result<()> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(blob, &mut sha256).context("that is no SHA-256")?;
    let archive = Archive::new(&source.folder()?.store()?.private, origin)?;
    ensure!(archive.kept().await?.is_some(), "no log {origin} is followed here");
    archive.pass_over(&sha256).await.context("cannot write that down")?;
    println!("passed over: {origin} is followed without {blob}");
    Ok(())
}
