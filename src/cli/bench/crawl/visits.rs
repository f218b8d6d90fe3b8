//! Whole visits of a running mirror, its log included.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::crawl::{Outcome, Report};
use syndicate::daemon::Mirror;
use syndicate::dime::{Domain, Name};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::super::{Scratch, measure, round};
use super::{Crowd, Sizes, Teller, crowd};

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for a visit to end: more than all time limits on the way.
const PATIENCE: Duration = Duration::from_secs(120);

/// First visits to all, then visits to known names for some seconds.
pub async fn figures(
    crowd: &mut Crowd,
    folder: &Path,
    sizes: Sizes,
    teller: Teller,
) -> anyhow::Result<Value> {
    let mirror = Mirror::start(&crowd.config(folder, sizes)?, Clock::system()).await?;
    let mut reports = mirror.crawl.reports();
    let spent = Spent::begin(crowd)?;
    let (all, first) = first_visits(&mirror, &mut reports, sizes.domains, &[], teller).await?;
    let spent = spent.end(crowd)?;
    teller.say("visits to known names");
    let again = Spent::begin(crowd)?;
    let (visits, seconds) = known_visits(&mut reports, sizes.seconds, teller).await?;
    let again = again.end(crowd)?;
    mirror.stop().await;
    let each = |took: Duration, visits: u64| round(took.as_secs_f64() * 1e6 / visits as f64);
    Ok(json!({
        "domains": sizes.domains,
        "hosts": sizes.hosts,
        "certificates": if sizes.rsa { "RSA" } else { "ECDSA" },
        "first_visits_per_s": round(all as f64 / first.as_secs_f64()),
        "first_visit_cpu_us": each(spent.here, all),
        "first_visit_hosts_cpu_us": each(spent.there, all),
        "first_visit_questions": round(spent.questions as f64 / all as f64),
        "visits_per_s": round(visits as f64 / seconds.as_secs_f64()),
        "visit_cpu_us": each(again.here, visits),
        "visit_hosts_cpu_us": each(again.there, visits),
        "visit_questions": round(again.questions as f64 / visits as f64),
    }))
}

/// The first visits twice, each by a new mirror: without the slow domains, and
/// with them.
pub async fn among_slow(crowd: &Crowd, sizes: Sizes, teller: Teller) -> anyhow::Result<Value> {
    let silent = crowd::silent_mailboxes(sizes.slow)?;
    let mut seconds = [0.0; 2];
    let runs = [("without slow domains", &[][..]), ("with slow domains", silent.as_slice())];
    for ((what, slow), seconds) in runs.into_iter().zip(&mut seconds) {
        teller.say(what);
        let folder = Scratch::new()?;
        let mirror = Mirror::start(&crowd.config(&folder.0, sizes)?, Clock::system()).await?;
        let mut reports = mirror.crawl.reports();
        let (_, took) = first_visits(&mirror, &mut reports, sizes.domains, slow, teller).await?;
        mirror.stop().await;
        *seconds = took.as_secs_f64();
    }
    let [without, with] = seconds;
    Ok(json!({
        "slow_domains": sizes.slow,
        "fast_alone_s": round(without),
        "fast_among_slow_s": round(with),
        "slow_ratio": round(with / without),
    }))
}

/// Watches the mailboxes, the slow ones among them, until each domain that is
/// not slow was visited. Visits that ended meanwhile, some twice, and the time.
async fn first_visits(
    mirror: &Mirror,
    reports: &mut Receiver<Arc<Report>>,
    domains: usize,
    slow: &[Name],
    teller: Teller,
) -> anyhow::Result<(u64, Duration)> {
    let names = crowd::mailboxes(domains)?;
    let mut missing: HashSet<Domain> = names.iter().map(|name| name.domain().clone()).collect();
    let crawl = mirror.crawl.clone();
    let names = mixed(names, slow);
    let start = Instant::now();
    let watching = tokio::spawn(async move {
        for name in names {
            crawl.watch(name, "bench").await?;
        }
        Ok::<(), syndicate::crawl::Error>(())
    });
    let mut visits = 0;
    let mut told = start;
    while !missing.is_empty() {
        let report = next(reports).await?;
        if report.outcome == Outcome::HostBusy {
            continue;
        }
        if !is_slow(&report, slow) {
            check(&report)?;
            visits += 1;
        }
        missing.remove(&report.domain);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            teller.say(&format!("  {} of {domains} domains", domains - missing.len()));
        }
    }
    let took = start.elapsed();
    watching.await??;
    Ok((visits, took))
}

/// Visits that end within the time, and the time. One that was put off because
/// its host had its hands full with us is none.
async fn known_visits(
    reports: &mut Receiver<Arc<Report>>,
    seconds: u64,
    teller: Teller,
) -> anyhow::Result<(u64, Duration)> {
    // Domains rest for as long as their first visits took, the log's batches included.
    next(reports).await?;
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut visits = 0;
    while visits == 0 || start.elapsed() < Duration::from_secs(seconds) {
        let report = next(reports).await?;
        if report.outcome == Outcome::HostBusy {
            continue;
        }
        check(&report)?;
        visits += 1;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            teller.say(&format!("  {visits} visits"));
        }
    }
    Ok((visits, start.elapsed()))
}

async fn next(reports: &mut Receiver<Arc<Report>>) -> anyhow::Result<Arc<Report>> {
    match tokio::time::timeout(PATIENCE, reports.recv()).await.context("no visit ended")? {
        Ok(report) => Ok(report),
        Err(RecvError::Lagged(_)) => anyhow::bail!("the benchmark lagged behind the visits"),
        Err(RecvError::Closed) => anyhow::bail!("the crawler ended"),
    }
}

fn is_slow(report: &Report, slow: &[Name]) -> bool {
    !slow.is_empty() && report.domain.as_str().starts_with("silent")
}

/// A visit that did not see all is no visit.
fn check(report: &Report) -> anyhow::Result<()> {
    let detail = report.detail.as_deref().unwrap_or_default();
    let seen = |outcome| matches!(outcome, Outcome::Confirmed | Outcome::Changed);
    let is_whole = report.users.len() == 1 && report.users.iter().all(|(_, how)| seen(*how));
    anyhow::ensure!(
        seen(report.outcome) && is_whole,
        "the visit to {} failed: {} {detail}",
        report.domain,
        report.outcome
    );
    Ok(())
}

/// The slow ones spread evenly among the others.
fn mixed(names: Vec<Name>, slow: &[Name]) -> Vec<Name> {
    let every = names.len().div_ceil(slow.len().max(1)).max(1);
    let mut slow = slow.iter().cloned();
    let mut all = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        if number % every == 0 {
            all.extend(slow.next());
        }
        all.push(name);
    }
    all.extend(slow);
    all
}

/// CPU time of both processes, and questions to DNS.
struct Spent {
    here: Duration,
    there: Duration,
    questions: u64,
}

impl Spent {
    fn begin(crowd: &mut Crowd) -> anyhow::Result<Spent> {
        let (here, there) = (measure::process_cpu(), crowd.cpu());
        Ok(Spent { here, there, questions: crowd.questions()? })
    }

    fn end(self, crowd: &mut Crowd) -> anyhow::Result<Spent> {
        let now = Spent::begin(crowd)?;
        Ok(Spent {
            here: now.here.saturating_sub(self.here),
            there: now.there.saturating_sub(self.there),
            questions: now.questions.saturating_sub(self.questions),
        })
    }
}
