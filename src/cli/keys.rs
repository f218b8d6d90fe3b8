//! `syndicate keys`: what a mirror signs with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use syndicate::clock::Clock;
use syndicate::config::Config;
use syndicate::daemon::{Folder, Rotated, Secrets};
use syndicate::serve::identity::Identity;

use super::mirror::Source;
use super::output;

/// Make, show, check and replace a mirror's keys.
///
/// Log key and VRF key are the log's identity, fixed by its first entry: another
/// one means another log (`syndicate migrate`). The cosigner key, the peer key
/// and the key of the DMTP certificate each serve one purpose and are replaced in
/// place.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make what is missing, as the first start does. Nothing is overwritten.
    Make {
        #[command(flatten)]
        source: Source,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print the public halves.
    Show {
        #[command(flatten)]
        source: Source,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check that the keys can be read, by nobody else, and are this log's.
    Check {
        #[command(flatten)]
        source: Source,
    },
    /// Replace a key that serves one purpose. The mirror must be stopped; the old
    /// key is kept beside the new one.
    Rotate {
        which: Which,
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// Cosigns other logs' checkpoints.
    Cosigner,
    /// Signs requests to peers.
    Peer,
    /// The TLS key and certificate of the DMTP face.
    Dmtp,
    /// The log key: cannot be replaced in place.
    Log,
    /// The VRF key: cannot be replaced in place.
    Vrf,
}

pub fn run(args: Args) -> ExitCode {
    output::tracing_from("warn");
    let done = match args.command {
        Command::Make { source, json } => make(&source, json),
        Command::Show { source, json } => show(&source, json),
        Command::Check { source } => check(&source),
        Command::Rotate { which, source } => rotate(which, &source),
    };
    output::outcome(done)
}

fn make(source: &Source, json: bool) -> anyhow::Result<()> {
    let config = source.config()?;
    let folder = Folder::new(&config.data);
    folder.make()?;
    print(&Secrets::load_or_make(&folder.keys(), config.origin.as_deref())?, json)
}

/// The folder of a mirror that has been started before, or `keys make`.
fn existing(config: &Config) -> anyhow::Result<Folder> {
    let folder = Folder::new(&config.data);
    let is_there = folder.keys().join("log.key").exists();
    ensure!(is_there, "there are no keys in {}", folder.keys().display());
    Ok(folder)
}

fn show(source: &Source, json: bool) -> anyhow::Result<()> {
    let config = source.config()?;
    let folder = existing(&config)?;
    print(&Secrets::load(&folder.keys(), config.origin.as_deref())?, json)
}

fn print(secrets: &Secrets, json: bool) -> anyhow::Result<()> {
    let vrf = hex::encode(secrets.keys().vrf.public());
    if json {
        output::json_line(&json!({
            "origin": secrets.origin(),
            "log": secrets.verifier().to_string(),
            "vrf": vrf,
            "cosigner": secrets.cosigner.verifier().to_string(),
            "peer": secrets.peer.verifier().to_string(),
        }));
        return Ok(());
    }
    println!("origin    {}", secrets.origin());
    println!("log       {}", secrets.verifier());
    println!("vrf       {vrf}");
    println!("cosigner  {}", secrets.cosigner.verifier());
    println!("peer      {}", secrets.peer.verifier());
    Ok(())
}

fn check(source: &Source) -> anyhow::Result<()> {
    let config = source.config()?;
    let folder = existing(&config)?;
    let secrets = Secrets::load(&folder.keys(), config.origin.as_deref())?;
    let record = output::block_on(async {
        let chain = syndicate::log::chain::Chain::new(folder.store()?.private);
        Ok(chain.record().await?)
    })?;
    match record {
        None => println!("log       there is none yet"),
        Some((record, _)) => {
            ensure!(
                record.origin == secrets.origin()
                    && Some(&record.log_key) == secrets.verifier().public_key(),
                "log.key is not the key of the log in {}",
                folder.path().display()
            );
            ensure!(
                record.vrf_key == secrets.keys().vrf.public(),
                "vrf.key is not the key of the log in {}",
                folder.path().display()
            );
            println!("log       log.key and vrf.key are those of {}", record.origin);
        }
    }
    println!("cosigner  {}", secrets.cosigner.verifier().name());
    println!("peer      {}", secrets.peer.verifier().name());
    let made = folder.dmtp_pem();
    let (certificate, key) = config.dmtp_pem.as_ref().unwrap_or(&made);
    if config.dmtp_pem.is_none() {
        if !certificate.exists() && !key.exists() {
            println!("dmtp      there is none yet");
            return Ok(());
        }
        Secrets::is_for_its_owner(key)?;
    }
    Identity::from_files(certificate, key)?.server_config()?;
    println!("dmtp      {}", certificate.display());
    Ok(())
}

fn rotate(which: Which, source: &Source) -> anyhow::Result<()> {
    let config = source.config()?;
    let folder = existing(&config)?;
    let which = match which {
        Which::Log | Which::Vrf => bail!(
            "log key and VRF key are the log's identity, fixed by its first entry; to go on under \
             other keys: syndicate migrate --help"
        ),
        Which::Dmtp => {
            ensure!(
                config.dmtp_pem.is_none(),
                "the configuration names the certificate: replace \
                those files and start the mirror again"
            );
            return rotate_dmtp(&folder, &config.dmtp_host);
        }
        Which::Cosigner => Rotated::Cosigner,
        Which::Peer => Rotated::Peer,
    };
    // Held meanwhile: a running mirror would go on with the old key.
    let _state = output::block_on(async { folder.open_state().await })?;
    let aside = Secrets::rotate(&folder.keys(), which, Clock::system().now())?;
    let now = Secrets::load(&folder.keys(), config.origin.as_deref())?;
    println!("kept      the old key as {aside}");
    match which {
        Rotated::Cosigner => {
            println!("cosigner  {}", now.cosigner.verifier());
            println!(
                "Tell everybody whose policy or peers.mirror section names the old one. Until"
            );
            println!("they change it, your cosignatures do not count for them.");
        }
        Rotated::Peer => {
            println!("peer      {}", now.peer.verifier());
            println!(
                "Tell your peers: until their peers.mirror section names it, they refuse your"
            );
            println!("requests.");
        }
    }
    Ok(())
}

fn rotate_dmtp(folder: &Folder, host: &str) -> anyhow::Result<()> {
    let _state = output::block_on(async { folder.open_state().await })?;
    let now = Clock::system().now().millis();
    let (certificate, key) = folder.dmtp_pem();
    for path in [&key, &certificate] {
        if path.exists() {
            std::fs::rename(path, aside(path, now))
                .with_context(|| format!("cannot rename {}", path.display()))?;
        }
    }
    Identity::load_or_make(&certificate, &key, host)?;
    println!("made      dmtp.key and dmtp.crt; the old ones end in .{now}");
    println!("If a record pins the old certificate (tls=), add the new pin before you start.");
    Ok(())
}

fn aside(path: &Path, now: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{now}"));
    name.into()
}
