//! `syndicate audit`: follow logs and check everything that they say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::join_all;
use syndicate::audit::{Comparisons, Folder, Follower, MAX_OWED, Notice, Options, Progress, key_of};
use syndicate::client::{DnsRoot, Policy};
use syndicate::clock::Clock;
use syndicate::dime::Domain;
use syndicate::errors::with_sources;

use super::output;
use super::trust::{self, Trust};
use super::watch::Common;

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
/// state, a newer format, …), or a wrong call. That a log has ended, or differs
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

async fn audit(
    args: &Args,
    urls: Vec<String>,
    policy: &Policy,
    root: &DnsRoot,
) -> anyhow::Result<u8> {
    let mut outlets = args.common.outlets()?;
    let folder = args.common.folder("audit")?;
    let clock = Clock::system();
    let (mut logs, mut notices) = (Vec::new(), Vec::new());
    let mut keys = BTreeSet::new();
    for url in urls {
        let key = key_of(&url, policy).await?;
        let key = key.with_context(|| format!("the policy believes no log at {url}"))?;
        anyhow::ensure!(keys.insert(key.to_string()), "{url}: this log is named twice");
        let (policy, root, max_owed) = (policy.clone(), root.clone(), MAX_OWED);
        let options = Options { url, key, policy, root, max_owed };
        let (log, found) = Follower::open(options, &folder, clock.now())?;
        logs.push(log);
        notices.extend(found);
    }
    args.common.tell(&notices, &mut outlets).await;
    let stop = output::interrupted()?;
    let mut comparisons = Comparisons::default();
    let mut first = true;
    let code = loop {
        let round = tokio::select! {
            round = look(&mut logs, &folder, &clock, &mut comparisons, first) => round?,
            () = stop.cancelled() => break output::YES,
        };
        first = false;
        args.common.tell(&round.notices, &mut outlets).await;
        if args.common.once {
            break round.code;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(args.every)) => {}
            () = stop.cancelled() => break output::YES,
        }
    };
    for log in logs {
        log.close(&folder)?;
    }
    Ok(code)
}

struct Round {
    notices: Vec<Notice>,
    code: u8,
}

/// One look at every log, all at once, then the comparison.
async fn look(
    logs: &mut [Follower],
    folder: &Folder,
    clock: &Clock,
    comparisons: &mut Comparisons,
    first: bool,
) -> anyhow::Result<Round> {
    let looks = logs.iter_mut().map(|log| async {
        let mut bar = Bar::new(log.origin());
        let round = log.round(folder, clock, &mut |progress| bar.show(progress)).await;
        bar.clear();
        round
    });
    let (mut notices, mut touched) = (Vec::new(), BTreeSet::new());
    let (mut alarm, mut well) = (false, true);
    for round in join_all(looks).await {
        let round = round?;
        alarm |= round.alarm;
        well &= round.is_well();
        notices.extend(round.notices);
        touched.extend(round.touched);
    }
    if first {
        touched.extend(logs.iter().flat_map(|log| log.domains().keys().cloned()));
    }
    let seen: Vec<(&str, &BTreeMap<Domain, _>)> =
        logs.iter().map(|log| (log.origin(), log.domains())).collect();
    let found = comparisons.update(&seen, &touched);
    notices.extend(found.iter().map(|found| found.notice(clock.now())));
    let code = match (alarm, well) {
        (true, _) => output::NO,
        (false, false) => output::USAGE,
        (false, true) => output::YES,
    };
    Ok(Round { notices, code })
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
