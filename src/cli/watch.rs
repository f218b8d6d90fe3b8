//! `syndicate watch`: the owner's monitor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use syndicate::audit::{Folder, MAX_NAMES, Notice, Outlets, Watch, WatchOptions};
use syndicate::clock::Clock;
use syndicate::dime::Name;
use syndicate::errors::with_sources;

use super::output;
use super::trust::{self, Trust};

/// Watch names of yours: remembers what a log holds of them, verifies at every
/// look that their history only grew, and tells of every change.
///
/// A line for each change goes to standard output, and to --webhook and --exec.
/// What could not be judged (no answer, too old) is told apart from alarms: a
/// new key without the old one's consent, a name that was forgotten, a history
/// that was rewritten. For a mailbox, watch its domain too.
///
/// Exit code with --once: 0 unchanged, 1 a change or an alarm, 2 wrong call or
/// no answer that could be judged.
#[derive(clap::Args)]
pub struct Args {
    /// Domains (example.com) and mailboxes (alice@example.com).
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Name>,
    /// A mirror to ask: http://… or https://…; may be given several times. The
    /// policy's logs if left out.
    #[arg(long, value_name = "URL")]
    via: Vec<String>,
    #[command(flatten)]
    trust: Trust,
    /// Time between two looks, such as 90s, 10m, 1h.
    #[arg(long, value_name = "TIME", value_parser = trust::duration, default_value = "10m")]
    every: u64,
    #[command(flatten)]
    common: Common,
}

/// What `watch` and `audit` share.
#[derive(clap::Args)]
pub struct Common {
    /// Where to remember what was seen; syndicate/ in the user's state folder if
    /// left out.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// POST each notice there, as JSON.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Run this with sh for each notice, the JSON on its standard input.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Look once, and say by the exit code what was found.
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Tries to deliver to webhook and command, when nobody will try again later.
const LAST_TRIES: usize = 3;

impl Common {
    pub fn outlets(&self) -> Result<Outlets, syndicate::audit::Error> {
        Outlets::new(self.webhook.as_deref(), self.exec.as_deref())
    }

    /// `name` is the folder's in the user's state folder.
    pub fn folder(&self, name: &str) -> anyhow::Result<Folder> {
        let path = match &self.state {
            Some(path) => path.clone(),
            None => default_folder(name).context("give --state: this user has no home folder")?,
        };
        Ok(Folder::open(&path)?)
    }

    /// Prints notices and hands them on.
    pub async fn tell(&self, notices: &[Notice], outlets: &mut Outlets) {
        for notice in notices {
            match self.json {
                true => output::json_line(&notice.to_json()),
                false => output::line(&notice.to_string()),
            }
            outlets.add(notice);
        }
        let tries = if self.once { LAST_TRIES } else { 1 };
        for attempt in 1..=tries {
            let left = outlets.deliver().await;
            if left == 0 {
                return;
            }
            if attempt == tries {
                eprintln!("syndicate: {left} notices could not be delivered");
            } else {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn default_folder(name: &str) -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".local/state"));
    Some(state.filter(|path| path.is_absolute()).or_else(home)?.join("syndicate").join(name))
}

pub fn run(args: Args) -> ExitCode {
    output::tracing_from("warn");
    let policy = match args.trust.policy() {
        Ok(Some(policy)) => policy,
        Ok(None) => return output::usage("whom to believe? Give --log VKEY or --policy FILE"),
        Err(error) => return output::usage(with_sources(&error)),
    };
    let root = match args.trust.root() {
        Ok(root) => root,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let mut mirrors = args.via.clone();
    if mirrors.is_empty() {
        mirrors.extend(policy.logs().iter().filter_map(|log| log.url.clone()));
    }
    if mirrors.is_empty() {
        return output::usage("whom to ask? Give --via URL, or a policy whose logs have URLs");
    }
    if args.names.len() > MAX_NAMES {
        return output::usage(format!("more than {MAX_NAMES} names"));
    }
    let names = args.names.iter().cloned().collect();
    let options = WatchOptions { names, mirrors, policy, root };
    match output::block_on(watch(&args, options)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::usage(format!("{error:#}")),
    }
}

async fn watch(args: &Args, options: WatchOptions) -> anyhow::Result<u8> {
    let mut outlets = args.common.outlets()?;
    let mut watch = Watch::open(options, args.common.folder("watch")?)?;
    let clock = Clock::system();
    let stop = output::interrupted()?;
    loop {
        let round = tokio::select! {
            round = watch.round(clock.now()) => round?,
            () = stop.cancelled() => return Ok(output::YES),
        };
        args.common.tell(&round.notices, &mut outlets).await;
        let code = match (round.changed, round.unanswered) {
            (true, _) => output::NO,
            (false, true) => output::USAGE,
            (false, false) => output::YES,
        };
        watch.keep(round)?;
        if args.common.once {
            return Ok(code);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(args.every)) => {}
            () = stop.cancelled() => return Ok(output::YES),
        }
    }
}
