//! `syndicate mirror`, and what an operator does to its folder by hand.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use syndicate::clock::Clock;
use syndicate::config::{Config, File};
use syndicate::daemon::forget::{self, Forgotten};
use syndicate::daemon::{Folder, Mirror};
use syndicate::dime::{Address, Name};
use syndicate::log;
use syndicate::peers::MapRoom;

use super::output;

const MIB: f64 = 1_048_576.0;

/// Run a mirror: crawl, log, answer.
///
/// Everything is kept in one folder. On the first start keys are made and an
/// empty log; print its public key from the line "key" and give it to those who
/// should trust this mirror.
///
/// Try it: syndicate mirror --data ./syndicate-data --watch example.com
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Watch this domain or address too; may be given again.
    #[arg(long = "watch", value_name = "NAME")]
    watch: Vec<String>,
    /// Listen for HTTP here instead (port 0: any free one).
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
    /// Listen for DMTP here instead.
    #[arg(long, value_name = "IP:PORT")]
    dmtp: Option<String>,
    /// After an hour or more without a batch: the machine's clock is right. One
    /// batch with a wrong time would keep everybody from cosigning this log.
    #[arg(long)]
    accept_clock: bool,
    /// Print events as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Where a command finds the configuration.
#[derive(clap::Args)]
pub struct Source {
    /// Configuration file (TOML); see `syndicate config print`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; wins over the file's. Default: ./syndicate-data.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Source {
    pub fn file(&self) -> anyhow::Result<File> {
        let mut file = match &self.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        if let Some(data) = &self.data {
            file.data = Some(data.clone());
        }
        Ok(file)
    }

    pub(super) fn config(&self) -> anyhow::Result<Config> {
        Ok(self.file()?.check()?)
    }

    pub(super) fn folder(&self) -> anyhow::Result<Folder> {
        Ok(Folder::new(self.config()?.data))
    }
}

pub fn run(args: Args) -> ExitCode {
    output::tracing();
    let config = match config(&args) {
        Ok(config) => config,
        Err(error) => return output::usage(format!("{error:#}")),
    };
    output::outcome(output::block_on(mirror(config, args.json)))
}

fn config(args: &Args) -> anyhow::Result<Config> {
    let mut file = args.source.file()?;
    file.crawl.names.extend(args.watch.iter().cloned());
    if let Some(http) = &args.http {
        file.http.listen.clone_from(http);
    }
    if let Some(dmtp) = &args.dmtp {
        file.dmtp.listen.clone_from(dmtp);
    }
    Ok(Config { accept_clock: args.accept_clock, ..file.check()? })
}

async fn mirror(config: Config, json: bool) -> anyhow::Result<()> {
    let stop = output::interrupted()?;
    let mirror = Mirror::start(&config, Clock::system()).await?;
    announce(&mirror, &config, json);
    mirror.run(stop).await
}

/// Those that are on disk, or the others.
fn maps(mirror: &Mirror, on_disk: bool) -> impl Iterator<Item = &MapRoom> {
    mirror.maps.iter().filter(move |map| map.on_disk == on_disk)
}

fn announce(mirror: &Mirror, config: &Config, json: bool) {
    let origin = &mirror.log.record().origin;
    if json {
        output::json_line(&json!({
            "event": "listening",
            "http": mirror.http.to_string(),
            "dmtp": mirror.dmtp.to_string(),
            "origin": origin,
            "key": mirror.key.to_string(),
            "cosigner": mirror.cosigner.to_string(),
            "peer_key": mirror.peer_key.to_string(),
            "memory": maps(mirror, false).map(|map| map.bytes).sum::<u64>(),
            "disk": maps(mirror, true).map(|map| map.bytes).sum::<u64>(),
        }));
        return;
    }
    println!("log    {origin}");
    println!("key    {}", mirror.key);
    println!("cosign {}", mirror.cosigner);
    println!("asks   {}", mirror.peer_key);
    println!("http   http://{}", mirror.http);
    println!("dmtp   {}", mirror.dmtp);
    println!("data   {}", config.data.display());
    let sizes = |on_disk| {
        let size = |map: &MapRoom| format!("{} {:.1} MiB", map.origin, map.bytes as f64 / MIB);
        maps(mirror, on_disk).map(size).collect::<Vec<_>>().join(", ")
    };
    println!("memory {} (maps, 120 bytes a label)", sizes(false));
    if maps(mirror, true).next().is_some() {
        println!("disk   {} (maps, 120 bytes a label)", sizes(true));
    }
    for peer in &mirror.peers {
        println!("peer   {} at {}", peer.origin(), peer.source().site().url());
    }
    match mirror.log.blocked() {
        Some(blocked) => println!("state  serving only: {blocked}"),
        None => {
            println!("state  sequencing; only the guard file protects it against an old backup")
        }
    }
    println!("look   syndicate lookup NAME --via http://{} --log '{}'", mirror.http, mirror.key);
}

/// Make the index again from the blobs.
///
/// A mirror does this by itself when it finds its index missing, behind or
/// damaged. By hand it is for moving to another machine, or for being sure. The
/// mirror must not be running.
#[derive(clap::Args)]
pub struct RebuildArgs {
    #[command(flatten)]
    source: Source,
}

pub fn rebuild(args: RebuildArgs) -> ExitCode {
    output::tracing();
    output::outcome(output::block_on(async {
        let folder = args.source.folder()?;
        let state = folder.open_state().await?;
        let store = folder.store()?;
        let commits = log::rebuild(&store, &state).await.context("cannot rebuild the index")?;
        println!("indexed {commits} commits");
        Ok(())
    }))
}

/// Say that the log really ends where its folder ends.
///
/// After a restore from a backup, or on a new machine, the guard file is
/// missing or differs, and the mirror serves without sequencing: signing
/// another tree of the same size would be a fork, and it could never be taken
/// back. The mirror prints the size and root to name here. Only say this when
/// no larger checkpoint of this log was ever published.
#[derive(clap::Args)]
pub struct AcceptTipArgs {
    /// Tree size of the last commit.
    size: u64,
    /// Root hash of that tree, hexadecimal.
    root: String,
    #[command(flatten)]
    source: Source,
}

pub fn accept_tip(args: AcceptTipArgs) -> ExitCode {
    output::tracing();
    let mut root = [0; 32];
    if hex::decode_to_slice(&args.root, &mut root).is_err() {
        return output::usage("the root is 64 hexadecimal digits");
    }
    output::outcome(output::block_on(async {
        let folder = args.source.folder()?;
        // Held while the guard is written: a running mirror keeps its own.
        let _state = folder.open_state().await?;
        log::accept_tip(&folder.guard(), &folder.store()?, args.size, root).await?;
        println!("accepted: the log ends at size {}", args.size);
        Ok(())
    }))
}

/// Erase a mailbox from a stopped mirror, because its owner asks.
///
/// What goes: its signets, payloads and openings, the name itself, incidents
/// about it, and when it was seen, wherever this mirror keeps them. What stays:
/// its sealed entries in the log, which tell nobody whose they are, and one that
/// says FORGOTTEN. It is not crawled again until its owner asks (--again).
///
/// The mirror must not be running. A domain cannot be forgotten: its name is in
/// the public log.
#[derive(clap::Args)]
pub struct ForgetArgs {
    /// The mailbox, whole: user@example.com.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The other way: the owner of a forgotten mailbox asks to be seen again.
    #[arg(long, conflicts_with = "yes")]
    again: bool,
    /// After an hour or more without a batch: the machine's clock is right.
    #[arg(long)]
    accept_clock: bool,
    #[command(flatten)]
    source: Source,
}

pub fn forget(args: ForgetArgs) -> ExitCode {
    output::tracing_from("warn");
    let address = match args.name.parse() {
        Ok(Name::Address(address)) => address,
        Ok(Name::Domain(domain)) => {
            return output::usage(format!(
                "{domain} is a domain, and its name is in the public log: only whole mailboxes \
                 (user@{domain}) can be forgotten"
            ));
        }
        Err(error) => return output::usage(format!("{error}")),
    };
    let config = match args.source.config() {
        Ok(config) => Config { accept_clock: args.accept_clock, ..config },
        Err(error) => return output::usage(format!("{error:#}")),
    };
    if !args.yes && !args.again && !is_confirmed(&address) {
        return output::usage("nothing was erased");
    }
    output::outcome(output::block_on(async {
        let clock = Clock::system();
        if args.again {
            forget::ask_again(&config, clock, &address).await?;
            println!("it may be crawled again; it is when somebody watches it");
            return Ok(());
        }
        match forget::forget(&config, clock, address.clone()).await? {
            Forgotten::Now(placed) => {
                println!("forgotten: entry {}, version {}", placed.index, placed.version);
            }
            Forgotten::Before => println!("it was forgotten before; nothing is left of it"),
        }
        println!("older backups of private/ still hold it: they are erased when restored");
        println!("peers, and clients that keep answers, are not reached: ask them too");
        if forget::is_configured(&config, &address) {
            println!("crawl.names in the configuration still names it: take it out");
        }
        Ok(())
    }))
}

/// Says what goes, and waits for the word `yes`.
fn is_confirmed(address: &Address) -> bool {
    println!("Erase {address} from this mirror?");
    println!(
        "  goes:  its signets, payloads, openings and name; incidents about it; when it was seen"
    );
    println!("  stays: its sealed entries, and one that says FORGOTTEN, in the public log");
    println!(
        "  not reached: peers, clients that keep answers, your backups until they are restored"
    );
    print!("This cannot be undone. Type yes: ");
    let _ = std::io::stdout().flush();
    let mut word = String::new();
    std::io::stdin().lock().take(64).read_line(&mut word).is_ok() && word.trim() == "yes"
}

/// Show the configuration.
#[derive(clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the effective file, defaults filled in; it can be read back.
    Print(Source),
}

pub fn show_config(args: ConfigArgs) -> ExitCode {
    let ConfigCommand::Print(source) = args.command;
    let print = || {
        let file = source.file()?;
        file.check()?;
        anyhow::Ok(file.print())
    };
    match print() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => output::usage(format!("{error:#}")),
    }
}
