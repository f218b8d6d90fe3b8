//! `syndicate audit`: follow logs and check everything that they say.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use syndicate::audit::{
    Comparisons, Error, Folder, Follower, MAX_OWED, Notice, Options, Progress, Round, Search, Seen,
    Taken,
};
use syndicate::client::{DnsRoot, Policy};
use syndicate::clock::Clock;
use syndicate::dime::Domain;
use syndicate::errors::with_sources;
use syndicate::proof::note::VerifierKey;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::output;
use super::trust::{self, Trust};
use super::watch::{Common, Teller};

/// Follow logs and check everything that they say, from outside: that they only
/// grow, that their entries keep the rules and make the directory roots, the
/// records, org signets and DNSSEC evidence behind the entries, cosignatures,
/// age; and compare what they saw of the same domains.
///
/// Faults are alarms with a file of evidence, and stand until you remove that
/// log's state. Conditions (unreachable, stale, a newer format) end by
/// themselves. That two logs differ is shown and accuses neither.
///
/// Exit code with --once: 0 every log was checked and is well; 1 an alarm; 2 no
/// alarm, but a condition (unreachable, stale, too few cosignatures, an older
/// state, a newer format, …), a signal before every log was checked, or a wrong
/// call. That a log has ended, or differs
/// from another, changes no code.
#[derive(clap::Args)]
pub struct Args {
    /// Logs to follow: http://… or https://…; the policy's if left out.
    #[arg(value_name = "LOG")]
    logs: Vec<String>,
    #[command(flatten)]
    trust: Trust,
    /// Time between two looks, such as 30s, 10m, 1h.
    #[arg(long, value_name = "TIME", value_parser = trust::duration, default_value = "1m")]
    every: u64,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: Args) -> ExitCode {
    output::tracing_from("warn");
    let policy = match args.trust.policy() {
        Ok(Some(policy)) => policy,
        Ok(None) => return output::usage("whose logs? Give --log VKEY or --policy FILE"),
        Err(error) => return output::usage(with_sources(&error)),
    };
    let root = match args.trust.root() {
        Ok(root) => root,
        Err(error) => return output::usage(with_sources(&error)),
    };
    let mut urls = args.logs.clone();
    if urls.is_empty() {
        urls.extend(policy.logs().iter().filter_map(|log| log.url.clone()));
    }
    if urls.is_empty() {
        return output::usage("which logs? Give their URLs, or a policy whose logs have URLs");
    }
    match output::block_on(audit(&args, urls, &policy, &root)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::usage(format!("{error:#}")),
    }
}

/// Notices that wait to be told; more of a log wait for the end of its round.
const WAITING: usize = 256;

async fn audit(
    args: &Args,
    urls: Vec<String>,
    policy: &Policy,
    root: &DnsRoot,
) -> anyhow::Result<u8> {
    let teller = Arc::new(args.common.teller()?);
    let folder = Arc::new(args.common.folder("audit")?);
    let stop = output::interrupted()?.child_token();
    let every = (!args.common.once).then_some(Duration::from_millis(args.every));
    let clock = Clock::system();
    let (ear, mut notices) = mpsc::channel(WAITING);
    // Each log waits until it was heard.
    let (looks, mut looked) = mpsc::channel(1);
    let (logs, taken) = (urls.len(), Arc::new(Taken::default()));
    let mut waiting = Vec::new();
    for (number, url) in urls.into_iter().enumerate() {
        let search = Search::new(url, policy.clone());
        let key = search.known(&folder)?;
        if let Some(key) = &key {
            let twice = |_| anyhow::anyhow!("{}: this log is named twice", search.url());
            taken.take(key, search.url()).map_err(twice)?;
        }
        let (folder, clock, stop) = (folder.clone(), clock.clone(), stop.clone());
        let (looks, ear, taken) = (looks.clone(), ear.clone(), taken.clone());
        let (policy, root) = (policy.clone(), root.clone());
        let task =
            Task { number, search, policy, root, taken, folder, clock, every, looks, ear, stop };
        let log = key.map(|key| task.open(key)).transpose()?;
        waiting.push((task, log));
    }
    drop((looks, ear));
    let mut tasks = JoinSet::new();
    for (task, log) in waiting {
        tasks.spawn(task.run(log));
    }
    let (bell, handing_on) = hand_on(teller.clone());
    let mut outcome = Outcome::default();
    let mut comparisons = Comparisons::default();
    let now = clock.clone();
    let tell = |outcome: &mut Outcome, found: &[Notice]| {
        outcome.alarm |= found.iter().any(Notice::is_alarm);
        teller.tell(found);
        bell.notify_one();
    };
    loop {
        let ended: Looked = tokio::select! {
            biased;
            Some(notice) = notices.recv() => {
                tell(&mut outcome, &[notice]);
                continue;
            }
            ended = looked.recv() => match ended {
                Some(ended) => ended,
                None => break,
            },
        };
        outcome.add(&ended.round);
        let mut found = ended.round.notices;
        let compared = comparisons.looked(ended.log, &ended.origin, ended.seen);
        found.extend(compared.iter().map(|compared| compared.notice(now.now())));
        tell(&mut outcome, &found);
    }
    // All have ended, and told all.
    while let Ok(notice) = notices.try_recv() {
        tell(&mut outcome, &[notice]);
    }
    let rest: Vec<Notice> =
        comparisons.rest().iter().map(|found| found.notice(now.now())).collect();
    tell(&mut outcome, &rest);
    let ended = all_of(tasks).await;
    teller.close().await;
    handing_on.abort();
    ended?;
    Ok(match args.common.once {
        true => outcome.code(logs),
        false => output::YES,
    })
}

/// Hands on what was told when the bell rings, and holds up nobody by it.
fn hand_on(teller: Arc<Teller>) -> (Arc<Notify>, JoinHandle<()>) {
    let bell = Arc::new(Notify::new());
    let rung = bell.clone();
    let work = tokio::spawn(async move {
        loop {
            rung.notified().await;
            teller.hand_on().await;
        }
    });
    (bell, work)
}

/// The first error, when all have ended.
async fn all_of(mut tasks: JoinSet<Result<(), Error>>) -> anyhow::Result<()> {
    let mut all = Ok(());
    while let Some(ended) = tasks.join_next().await {
        all = all.and(ended.map_err(anyhow::Error::from).and_then(|ended| Ok(ended?)));
    }
    all
}

/// What one look at a log brought.
struct Looked {
    log: usize,
    origin: String,
    round: Round,
    seen: BTreeMap<Domain, Arc<Seen>>,
}

/// What looking once at every log brought.
#[derive(Default)]
struct Outcome {
    looks: usize,
    alarm: bool,
    unwell: bool,
}

impl Outcome {
    fn add(&mut self, round: &Round) {
        self.looks += 1;
        self.alarm |= round.alarm;
        self.unwell |= !round.is_well();
    }

    /// Whoever was stopped before all were looked at cannot say that they are well.
    fn code(&self, logs: usize) -> u8 {
        match (self.alarm, self.unwell || self.looks < logs) {
            (true, _) => output::NO,
            (false, true) => output::USAGE,
            (false, false) => output::YES,
        }
    }
}

/// The audit of one log at its own pace: what takes long with one is no matter of the
/// others.
struct Task {
    number: usize,
    search: Search,
    policy: Policy,
    root: DnsRoot,
    taken: Arc<Taken>,
    folder: Arc<Folder>,
    clock: Clock,
    /// Between two looks; `None`: once.
    every: Option<Duration>,
    looks: mpsc::Sender<Looked>,
    ear: mpsc::Sender<Notice>,
    stop: CancellationToken,
}

impl Task {
    /// The log of this key, and what is kept of it.
    fn open(&self, key: VerifierKey) -> Result<Log, Error> {
        let (url, policy, root) =
            (self.search.url().to_owned(), self.policy.clone(), self.root.clone());
        let options = Options { url, key, policy, root, max_owed: MAX_OWED };
        let (mut follower, found) = Follower::open(options, &self.folder, self.clock.now())?;
        follower.tell(self.ear.clone());
        Ok(Log { follower, found, compared: false })
    }

    async fn run(mut self, mut log: Option<Log>) -> Result<(), Error> {
        let looked = self.look_on(&mut log).await;
        if looked.is_err() {
            // Our own failure; the others are to end in order.
            self.stop.cancel();
        }
        looked.and(log.map_or(Ok(()), |log| log.follower.close(&self.folder)))
    }

    async fn look_on(&mut self, log: &mut Option<Log>) -> Result<(), Error> {
        let stop = self.stop.clone();
        loop {
            let looked = tokio::select! {
                looked = self.look(log) => looked?,
                () = stop.cancelled() => return Ok(()),
            };
            if self.looks.send(looked).await.is_err() {
                return Ok(());
            }
            let Some(every) = self.every else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One look at the log, once it is known which one it is.
    async fn look(&mut self, log: &mut Option<Log>) -> Result<Looked, Error> {
        let number = self.number;
        if log.is_none() {
            match self.search.ask(&self.taken, self.clock.now()).await {
                Ok(key) => {
                    let log = log.insert(self.open(key)?);
                    log.found.extend(self.search.over(self.clock.now()));
                }
                Err(round) => {
                    let (origin, seen) = (self.search.url().to_owned(), BTreeMap::new());
                    return Ok(Looked { log: number, origin, round, seen });
                }
            }
        }
        let Some(Log { follower, found, compared }) = log else { unreachable!("it was opened") };
        let mut bar = Bar::new(follower.origin());
        let mut show = |at| bar.show(at);
        let round = follower.round(&self.folder, &self.clock, &mut show).await;
        bar.clear();
        let mut round = round?;
        round.notices.splice(0..0, std::mem::take(found));
        let all = !std::mem::replace(compared, true);
        let seen = follower.domains().iter();
        let seen = seen.filter(|(domain, _)| all || round.touched.contains(*domain));
        let seen = seen.map(|(domain, seen)| (domain.clone(), seen.clone())).collect();
        Ok(Looked { log: number, origin: follower.origin().to_owned(), round, seen })
    }
}

/// A log that is followed.
struct Log {
    follower: Follower,
    /// What was found when it was opened, and is not told yet.
    found: Vec<Notice>,
    /// Its domains were given out.
    compared: bool,
}

/// One line on a terminal that says how far a log is.
struct Bar {
    origin: String,
    shown: bool,
    began: Option<(Instant, u64)>,
    last: Instant,
}

impl Bar {
    fn new(origin: &str) -> Bar {
        let origin = origin.to_owned();
        Bar { origin, shown: false, began: None, last: Instant::now() }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { entries, of, labels } = progress;
        let (began, from) = *self.began.get_or_insert((Instant::now(), entries));
        let fresh = self.last.elapsed() < Duration::from_millis(200);
        if !std::io::stderr().is_terminal() || fresh {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        let rate = (entries - from) as f64 / began.elapsed().as_secs_f64().max(0.001);
        let left = match rate {
            rate if rate >= 1.0 => format!("{:.0} s left", (of - entries) as f64 / rate),
            _ => "…".to_owned(),
        };
        let percent = 100.0 * entries as f64 / of.max(1) as f64;
        let origin = &self.origin;
        let text = format!(
            "{origin}: {percent:.1} %, {entries} of {of} entries, {labels} labels, {rate:.0} \
             entries/s, {left}"
        );
        // A terminal that went away changes nothing.
        let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
