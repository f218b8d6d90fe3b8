//! `syndicate watch`: the owner's monitor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use syndicate::audit::{Folder, MAX_NAMES, Notice, Outlets, Watch, WatchOptions};
use syndicate::clock::Clock;
use syndicate::dime::Name;
use syndicate::errors::with_sources;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
/// Exit code with --once: 0 unchanged, 1 a change or an alarm, 2 wrong call, no
/// answer that could be judged, or a signal before all were asked.
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
    /// `name` is the folder's in the user's state folder.
    pub fn folder(&self, name: &str) -> anyhow::Result<Folder> {
        let path = match &self.state {
            Some(path) => path.clone(),
            None => default_folder(name).context("give --state: this user has no home folder")?,
        };
        Ok(Folder::open(&path)?)
    }

    pub fn teller(&self) -> Result<Teller, syndicate::audit::Error> {
        let outlets = Outlets::new(self.webhook.as_deref(), self.exec.as_deref())?;
        Ok(Teller { json: self.json, once: self.once, outlets })
    }
}

/// Prints notices, and hands them on.
pub struct Teller {
    json: bool,
    once: bool,
    outlets: Outlets,
}

impl Teller {
    /// Prints notices, and puts them in line for webhook and command.
    pub fn tell(&self, notices: &[Notice]) {
        for notice in notices {
            match self.json {
                true => output::json_line(&notice.to_json()),
                false => output::line(&notice.to_string()),
            }
            self.outlets.add(notice);
        }
    }

    /// Tries to hand on what waits.
    pub async fn hand_on(&self) {
        self.outlets.deliver().await;
    }

    /// The same for the last time.
    pub async fn close(&self) {
        let tries = if self.once { LAST_TRIES } else { 1 };
        for attempt in 1..=tries {
            let left = self.outlets.deliver().await;
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
    let teller = Arc::new(args.common.teller()?);
    let monitors = Watch::open(options, args.common.folder("watch")?)?;
    let stop = output::interrupted()?.child_token();
    let every = (!args.common.once).then_some(Duration::from_millis(args.every));
    let mut mirrors = JoinSet::new();
    for watch in monitors {
        mirrors.spawn(follow(watch, teller.clone(), every, stop.clone()));
    }
    let mut ended = Ok(Outcome::default());
    while let Some(outcome) = mirrors.join_next().await {
        match (outcome.map_err(anyhow::Error::from).flatten(), &mut ended) {
            (Ok(outcome), Ok(all)) => all.add(outcome),
            (Ok(_), Err(_)) => {}
            (Err(error), ended) => {
                *ended = Err(error);
                stop.cancel();
            }
        }
    }
    teller.close().await;
    Ok(ended?.code())
}

/// What looking at a mirror once, or until it was stopped, brought.
#[derive(Default)]
struct Outcome {
    changed: bool,
    unanswered: bool,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.changed |= other.changed;
        self.unanswered |= other.unanswered;
    }

    fn code(&self) -> u8 {
        match (self.changed, self.unanswered) {
            (true, _) => output::NO,
            (false, true) => output::USAGE,
            (false, false) => output::YES,
        }
    }
}

/// Watches the names at one mirror, without end or once.
async fn follow(
    mut watch: Watch,
    teller: Arc<Teller>,
    every: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<Outcome> {
    let clock = Clock::system();
    let mut outcome = Outcome::default();
    loop {
        for name in watch.begin() {
            let visit = tokio::select! {
                visit = watch.visit(&name, clock.now()) => visit?,
                () = stop.cancelled() => return Ok(stopped(outcome, every)),
            };
            outcome.changed |= visit.changed;
            outcome.unanswered |= visit.unanswered;
            teller.tell(&visit.notices);
            if !visit.notices.is_empty() {
                teller.hand_on().await;
            }
            watch.keep(visit)?;
        }
        let Some(every) = every else { return Ok(outcome) };
        // What could not be handed on before.
        teller.hand_on().await;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return Ok(Outcome::default()),
        }
    }
}

/// Who looks without end is stopped, and has nothing to say by that; who looks once has
/// not looked at all names then.
fn stopped(outcome: Outcome, every: Option<Duration>) -> Outcome {
    match every {
        Some(_) => Outcome::default(),
        None => Outcome { unanswered: true, ..outcome },
    }
}
