//! `syndicate demo`: the main job on a private internet, told as it happens.
//!
//! Everything is real but the world around it: DNSSEC-signed zones, TLS, DMTP
//! and HTTP over loopback sockets, three mirrors with their data in folders, who
//! follow, cosign and compare each other. What is claimed to be verified is
//! verified by another process of this program, which knows only a policy file.

mod asked;
mod attacks;
pub mod operators;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use syndicate::crawl::{Entered, Report};
use syndicate::daemon::Mirror;
use syndicate::demo::world::{self, World};
use syndicate::dime::{Address, Domain, Name};
use syndicate::proof::Event;
use syndicate::resolver::NameServers;
use tokio_util::sync::CancellationToken;

use super::output;
use asked::Asked;
use operators::{Operator, operators, policy};

/// Longest wait for cosignatures, and for two mirrors to be sure of a split view.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const GLANCE: Duration = Duration::from_millis(50);

/// See the whole thing on a private internet, with no set-up.
///
/// Starts a DNSSEC-signed DNS root, a dozen DIME domains with their DX hosts and
/// three mirrors, all on loopback. The mirrors crawl the domains for real, replay
/// and cosign each other's logs; a lookup is verified by a second process, also
/// with a mirror switched off. Then one mail host swaps a user's key, another shows
/// a forged key to one of the mirrors only, and a third one to a client only: all
/// are noticed, the latter two in a file that is verified offline. Without --once
/// the mirrors stay up until Ctrl-C.
///
/// Exit code 0 only if everything verified and every attack was detected.
#[derive(clap::Args)]
pub struct Args {
    /// Exit at the end instead of leaving the mirrors running.
    #[arg(long)]
    once: bool,
    /// One JSON object a line; the last is the summary.
    #[arg(long)]
    json: bool,
    /// Keep the mirrors' data here; must be empty. Default: a folder that goes.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What the story is told with.
#[derive(Clone, Copy)]
struct Teller {
    json: bool,
}

/// What came of it.
struct Ending {
    verified: bool,
    logs: usize,
    /// Published in all of them.
    entries: u64,
    attacks: Vec<Attack>,
}

struct Attack {
    name: &'static str,
    detected: bool,
    /// From the attack to the log entry, incident or verdict that reports it,
    /// milliseconds.
    millis: u128,
}

impl Teller {
    fn act(self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    /// `fields` become one JSON line, or `text` one line for people.
    fn tell(self, event: &str, text: &str, mut fields: Value) {
        if self.json {
            fields["event"] = event.into();
            output::json_line(&fields);
        } else {
            println!("  {text}");
        }
    }

    /// The same for programs only: people were told.
    fn note(self, event: &str, fields: Value) {
        if self.json {
            self.tell(event, "", fields);
        }
    }
}

pub fn run(args: Args) -> ExitCode {
    output::quiet_tracing();
    let teller = Teller { json: args.json };
    match output::block_on(story(args, teller)) {
        Ok(ending) => {
            let attacks: Vec<Value> = ending
                .attacks
                .iter()
                .map(|attack| {
                    json!({
                        "name": attack.name,
                        "detected": attack.detected,
                        "ms": attack.millis as u64,
                    })
                })
                .collect();
            if teller.json {
                output::json_line(&json!({
                    "event": "summary",
                    "verified": ending.verified,
                    "logs": ending.logs,
                    "entries": ending.entries,
                    "attacks": attacks,
                }));
            }
            let good = ending.verified && ending.attacks.iter().all(|attack| attack.detected);
            ExitCode::from(if good { output::YES } else { output::NO })
        }
        Err(error) => {
            eprintln!("syndicate: the demo broke off: {error:#}");
            ExitCode::from(output::NO)
        }
    }
}

async fn story(args: Args, teller: Teller) -> anyhow::Result<Ending> {
    let stop = output::interrupted()?;
    let folder = Scene::new(args.data)?;

    teller.act("A private internet on loopback");
    let world = World::start(world::Options::default()).await?;
    introduce(&world, teller);

    teller.act("Three mirrors start: other operators, other keys, another view of DNS each");
    let mut operators = operators(&world, folder.path()).await?;
    let policy = policy(&operators, folder.path())?;
    for operator in &mut operators {
        operator.start().await?;
        operator.introduce(teller);
    }
    teller.tell(
        "policy",
        &format!(
            "policy   a log is believed if the other two operators replayed and cosigned it: {}",
            policy.display()
        ),
        json!({ "policy": policy.display().to_string() }),
    );

    teller.act("They crawl: DNS, DMTP, every signature, then the log; and cosign each other");
    let (first, others) = operators.split_first().context("no mirror")?;
    let quietly = others.iter().map(|operator| operator.crawl(&world));
    let told = crawl(&world, first.mirror()?, teller);
    let (told, quietly) = tokio::join!(told, try_join_all(quietly));
    told?;
    quietly?;
    for operator in &operators {
        operator.until_cosigned().await?;
    }
    let sizes: Vec<String> = operators
        .iter()
        .map(|operator| format!("{} {}", operator.name, operator.head().unwrap_or_default()))
        .collect();
    teller.tell(
        "cosigned",
        &format!("every log is cosigned by the other two, in entries: {}", sizes.join(", ")),
        json!({ "by": 2, "entries": entries(&operators) }),
    );

    teller.act("Anybody looks a key up. A second process, which knows only the policy, checks");
    let address: Address = "alice@juniper.test".parse()?;
    let asked = Asked::of(operators[0].mirror()?, &world, &folder);
    if !teller.json {
        println!("  $ cd {}", folder.path().display());
    }
    let found = asked.lookup(&address, teller).await?;
    let mut verified = found.is("VALID");
    let checked = asked.check("alice@kelp.test", world.dns().address(), teller).await?;
    verified &= checked["verdict"] == "AGREED";

    teller.act("That mirror is switched off. The saved receipt still proves the same");
    operators[0].stop().await;
    verified &= asked.verify(teller).await?.is("VALID");
    operators[0].start().await?;
    let size = operators[0].mirror()?.log.heads().committed.map_or(0, |head| head.size);
    teller.tell(
        "restarted",
        &format!("started again; it checked its own log: {size} entries"),
        json!({ "entries": size, "http": operators[0].mirror()?.http.to_string() }),
    );

    let asked = Asked::of(operators[0].mirror()?, &world, &folder);
    let attacks = vec![
        attacks::key_swap(&world, &operators[0], &asked, teller).await?,
        attacks::split_view(&world, &operators, &asked, folder.path(), teller).await?,
        attacks::forged_key(&world, &asked, teller).await?,
    ];
    let (logs, entries) = (operators.len(), entries(&operators));
    let ending = Ending { verified, logs, entries, attacks };
    finish(&ending, teller);
    if !args.once {
        stay(&mut operators, &asked, &folder, stop, teller).await?;
    }
    for operator in &mut operators {
        operator.stop().await;
    }
    Ok(ending)
}

/// Published in all logs.
fn entries(operators: &[Operator]) -> u64 {
    operators.iter().filter_map(Operator::head).sum()
}

fn introduce(world: &World, teller: Teller) {
    let (domains, addresses) = (world.domains(), world.addresses());
    let servers = match world.name_servers() {
        NameServers::Listed(listed) => listed.first().map(ToString::to_string).unwrap_or_default(),
        NameServers::System => String::new(),
    };
    teller.tell(
        "world",
        &format!(
            "dns      {servers}: a signed root; {} mail domains with {} mailboxes",
            domains.len(),
            addresses.len()
        ),
        json!({ "dns": servers, "domains": domains.len(), "mailboxes": addresses.len() }),
    );
}

/// Every domain is visited once, and what came of it told as it comes.
async fn crawl(world: &World, mirror: &Mirror, teller: Teller) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut reports = mirror.crawl.reports();
    let mut entered: BTreeMap<Domain, Vec<Entered>> = BTreeMap::new();
    for address in world.addresses() {
        mirror.crawl.watch(Name::Address(address), "demo").await?;
    }
    let mut visits = tokio::task::JoinSet::new();
    for domain in world.domains() {
        let crawl = mirror.crawl.clone();
        visits.spawn(async move { crawl.visit(Name::Domain(domain), "demo").await });
    }
    while let Some(visited) = visits.join_next().await {
        let report = visited??;
        // A visit may have been under way when this one was asked for.
        while let Ok(earlier) = reports.try_recv() {
            let list = entered.entry(earlier.domain.clone()).or_default();
            list.extend(earlier.entries.iter().cloned());
        }
        tell_visit(&report, entered.get(&report.domain).map_or(&[], Vec::as_slice), teller);
        expect_good(&report)?;
    }
    let head = mirror.log.heads().published.context("nothing is published")?;
    teller.tell(
        "log",
        &format!(
            "{} entries about {} names in {} ms; tree root {}",
            head.size,
            head.labels,
            began.elapsed().as_millis(),
            hex::encode(head.root)
        ),
        json!({
            "entries": head.size,
            "labels": head.labels,
            "root": hex::encode(head.root),
            "ms": began.elapsed().as_millis() as u64,
        }),
    );
    Ok(())
}

fn expect_good(report: &Report) -> anyhow::Result<()> {
    ensure!(report.outcome.is_good(), "visit to {}: {}", report.domain, report.outcome);
    for (address, outcome) in &report.users {
        ensure!(outcome.is_good(), "visit to {address}: {outcome}");
    }
    Ok(())
}

fn tell_visit(report: &Report, entered: &[Entered], teller: Teller) {
    let dnssec = report.dnssec.map(|status| status.to_string()).unwrap_or_default();
    let mut mailboxes: Vec<(String, usize)> = Vec::new();
    for entered in entered {
        let Name::Address(address) = &entered.name else { continue };
        match mailboxes.iter_mut().find(|(local, _)| local == address.local()) {
            Some((_, links)) => *links += 1,
            None => mailboxes.push((address.local().to_owned(), 1)),
        }
    }
    let told: Vec<String> = mailboxes
        .iter()
        .map(|(local, links)| match links {
            1 => local.clone(),
            n => format!("{local} (a chain of {n})"),
        })
        .collect();
    let outcome = if report.outcome.is_good() { "" } else { report.outcome.as_str() };
    let entries: Vec<Value> = entered
        .iter()
        .map(|entered| {
            let events: Vec<&str> = entered.events.iter().map(Event::name).collect();
            json!({ "name": entered.name.as_str(), "events": events })
        })
        .collect();
    teller.tell(
        "visit",
        format!("{:<16} {dnssec:<14}{} {outcome}", report.domain.as_str(), told.join(", "))
            .trim_end(),
        json!({
            "domain": report.domain.as_str(),
            "outcome": report.outcome.as_str(),
            "dnssec": dnssec,
            "entries": entries,
        }),
    );
}

fn finish(ending: &Ending, teller: Teller) {
    if teller.json {
        return;
    }
    let detected = ending.attacks.iter().filter(|attack| attack.detected).count();
    println!(
        "\n{} {} of {} attacks detected, {} entries in {} logs.",
        if ending.verified { "Every proof verified," } else { "A PROOF DID NOT VERIFY," },
        detected,
        ending.attacks.len(),
        ending.entries,
        ending.logs
    );
}

/// Until Ctrl-C; a mirror that ends by itself ends the others.
async fn stay(
    operators: &mut [Operator],
    asked: &Asked,
    folder: &Scene,
    stop: CancellationToken,
    teller: Teller,
) -> anyhow::Result<()> {
    teller.act("The mirrors stay up until Ctrl-C. Ask them");
    if !teller.json {
        println!("  $ cd {}", folder.path().display());
        println!(
            "  $ syndicate lookup carol@birch.example --via {} --policy policy --trust-anchor root.key",
            asked.via
        );
        for operator in &*operators {
            println!("  $ curl http://{}/checkpoint", operator.mirror()?.http);
        }
    }
    teller.note("staying", json!({ "folder": folder.path().display().to_string() }));
    together(operators.iter_mut().map(|operator| operator.run(stop.clone())), &stop).await
}

/// Until the first ends, which stops the others; gives why, if it was not told to.
async fn together<R>(
    running: impl Iterator<Item = R>,
    stop: &CancellationToken,
) -> anyhow::Result<()>
where
    R: Future<Output = anyhow::Result<()>>,
{
    let running = running.map(async |one| {
        let ended = one.await;
        stop.cancel();
        ended
    });
    join_all(running).await.into_iter().collect()
}

/// Where the demo keeps its files.
struct Scene {
    path: PathBuf,
    keep: bool,
}

impl Scene {
    fn new(chosen: Option<PathBuf>) -> anyhow::Result<Scene> {
        let keep = chosen.is_some();
        let path = match chosen {
            Some(path) => path,
            None => {
                let mut random = [0; 4];
                getrandom::fill(&mut random).context("the machine gives no random bytes")?;
                std::env::temp_dir().join(format!("syndicate-demo-{}", hex::encode(random)))
            }
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        if std::fs::read_dir(&path)?.next().is_some() {
            bail!("{} is not empty: the demo wants a fresh folder", path.display());
        }
        Ok(Scene { path, keep })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_mirror_that_ends_by_itself_ends_the_others_and_is_named() {
        let stop = CancellationToken::new();
        let lasting = async |stop: CancellationToken| -> anyhow::Result<()> {
            stop.cancelled().await;
            Ok(())
        };
        let failing =
            async |_: CancellationToken| -> anyhow::Result<()> { bail!("a room ended by itself") };
        let running = [
            lasting(stop.clone()).left_future(),
            failing(stop.clone()).map(|ended| ended.context("ben ended")).right_future(),
        ];
        let error = together(running.into_iter(), &stop).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "ben ended: a room ended by itself");

        let stop = CancellationToken::new();
        let running = [lasting(stop.clone()), lasting(stop.clone())];
        stop.cancel();
        together(running.into_iter(), &stop).await.unwrap();
    }
}
