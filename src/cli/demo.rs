//! `syndicate demo`: the main job on a private internet, told as it happens.
//!
//! Everything is real but the world around it: DNSSEC-signed zones, TLS, DMTP
//! and HTTP over loopback sockets, a mirror with its data in a folder. What is
//! claimed to be verified is verified by another process of this program, which
//! knows only the log's public key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::config::{Config, File};
use syndicate::crawl::{Entered, Outcome, Report};
use syndicate::daemon::Mirror;
use syndicate::demo::world::{self, World};
use syndicate::dime::{Address, Domain, Name};
use syndicate::proof::Event;
use syndicate::resolver::NameServers;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::output;

/// See the whole thing on a private internet, with no set-up.
///
/// Starts a DNSSEC-signed DNS root, a dozen DIME domains with their DX hosts and
/// a mirror, all on loopback. The mirror crawls the domains for real; a lookup is
/// verified by a second process, also with the mirror switched off; then one
/// mail host swaps a user's key, and the mirror reports it. Without --once the
/// mirror stays up until Ctrl-C.
///
/// Exit code 0 only if everything verified and every attack was detected.
#[derive(clap::Args)]
pub struct Args {
    /// Exit at the end instead of leaving the mirror running.
    #[arg(long)]
    once: bool,
    /// One JSON object a line; the last is the summary.
    #[arg(long)]
    json: bool,
    /// Keep the mirror's data here; must be empty. Default: a folder that goes.
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
    entries: u64,
    attacks: Vec<Attack>,
}

struct Attack {
    name: &'static str,
    detected: bool,
    /// From the attack to the log entry that reports it, milliseconds.
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

    teller.act("A mirror starts, with an empty log");
    let config = config(&world, folder.path())?;
    let mirror = Mirror::start(&config, Clock::system()).await?;
    teller.tell(
        "mirror",
        &format!("log      {}", mirror.log.record().origin),
        json!({
            "origin": mirror.log.record().origin,
            "key": mirror.key.to_string(),
            "http": mirror.http.to_string(),
            "dmtp": mirror.dmtp.to_string(),
        }),
    );
    if !teller.json {
        println!("  key      {}", mirror.key);
        println!("  http     http://{}", mirror.http);
        println!("  dmtp     {}", mirror.dmtp);
    }

    teller.act("It crawls them: DNS, DMTP, every signature, then the log");
    crawl(&world, &mirror, teller).await?;

    teller.act("Anybody looks a key up. A second process, which knows only the log's key, checks");
    let address: Address = "alice@juniper.test".parse()?;
    let receipt = folder.path().join("receipt.json");
    let asked = Asked::of(&mirror, &folder);
    let found = asked.lookup(&address, &receipt, teller).await?;
    let mut verified = found.is("VALID");

    teller.act("The mirror is switched off. The saved receipt still proves the same");
    mirror.stop().await;
    verified &= asked.verify(&receipt, teller).await?.is("VALID");
    let mirror = Mirror::start(&config, Clock::system()).await?;
    let asked = Asked::of(&mirror, &folder);
    let size = mirror.log.heads().committed.map_or(0, |head| head.size);
    teller.tell(
        "restarted",
        &format!("started again; it checked its own log: {size} entries"),
        json!({ "entries": size, "http": mirror.http.to_string() }),
    );

    let attack = key_swap(&world, &mirror, &asked, &receipt, teller).await?;
    let entries = mirror.log.heads().published.map_or(0, |head| head.size);
    let ending = Ending { verified, entries, attacks: vec![attack] };
    finish(&ending, teller);
    if args.once {
        mirror.stop().await;
    } else {
        stay(mirror, &asked, &folder, stop, teller).await?;
    }
    Ok(ending)
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

/// The mirror's configuration in that world, its files beside the data.
fn config(world: &World, folder: &Path) -> anyhow::Result<Config> {
    let (anchor, roots) = (folder.join("root.key"), folder.join("ca.pem"));
    std::fs::write(&anchor, world.dns().trust_anchor_text())?;
    std::fs::write(&roots, world.authority_pem())?;
    let mut file = File { data: Some(folder.join("mirror")), ..File::default() };
    file.http.listen = "127.0.0.1:0".into();
    file.dmtp.listen = "127.0.0.1:0".into();
    if let NameServers::Listed(servers) = world.name_servers() {
        file.dns.servers = servers.iter().map(ToString::to_string).collect();
    }
    file.dns.trust_anchor = Some(anchor);
    file.crawl.roots = Some(roots);
    file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
    file.crawl.dx_port = world.dmtp_port();
    let mut config = file.check()?;
    // Nobody should wait for batches here: five a second instead of one.
    config.batch_millis = 200;
    Ok(config)
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
        ensure!(report.outcome.is_good(), "visit to {}: {}", report.domain, report.outcome);
        for (address, outcome) in &report.users {
            ensure!(outcome.is_good(), "visit to {address}: {outcome}");
        }
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

/// One DX host serves a new key without the old one's signature.
async fn key_swap(
    world: &World,
    mirror: &Mirror,
    asked: &Asked,
    receipt: &Path,
    teller: Teller,
) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of hazel.example swaps erin's key for one of its own");
    let victim: Address = "erin@hazel.example".parse()?;
    world.swap_key(&victim)?;
    let began = Instant::now();
    let report = mirror.crawl.visit(Name::Address(victim.clone()), "demo").await?;
    let millis = began.elapsed().as_millis();
    let swapped = report.entries.iter().any(|entered| {
        entered.name == Name::Address(victim.clone())
            && entered.events.iter().any(|event| event == Event::Restarted)
    });
    let changed = report.users.iter().any(|(at, how)| *at == victim && *how == Outcome::Changed);
    teller.tell(
        "attack",
        &format!(
            "the mirror {} it after {millis} ms: RESTARTED, a new key without the old one's signature",
            if swapped && changed { "reported" } else { "DID NOT report" }
        ),
        json!({ "name": "key-swap", "reported": swapped && changed, "ms": millis as u64 }),
    );
    let held = asked.lookup(&victim, receipt, teller).await?.is("HELD");
    Ok(Attack { name: "key-swap", detected: swapped && changed && held, millis })
}

fn finish(ending: &Ending, teller: Teller) {
    if teller.json {
        return;
    }
    let detected = ending.attacks.iter().filter(|attack| attack.detected).count();
    println!(
        "\n{} {} of {} attacks detected, {} entries in the log.",
        if ending.verified { "Every proof verified," } else { "A PROOF DID NOT VERIFY," },
        detected,
        ending.attacks.len(),
        ending.entries
    );
}

async fn stay(
    mirror: Mirror,
    asked: &Asked,
    folder: &Scene,
    stop: CancellationToken,
    teller: Teller,
) -> anyhow::Result<()> {
    if !teller.json {
        println!("\nThe mirror stays up at {} until Ctrl-C. Ask it:", asked.via);
        println!(
            "  syndicate lookup carol@birch.example --via {} --log '{}' --trust-anchor {}",
            asked.via, asked.key, asked.anchor
        );
        println!("  curl {}/checkpoint", asked.via);
        println!("Its data is in {}", folder.path().join("mirror").display());
    }
    mirror.run(stop).await
}

/// Another process of this program, which knows the log's key and an address.
struct Asked {
    key: String,
    via: String,
    /// The key of this private DNS root, for the evidence in receipts.
    anchor: String,
}

/// What that process said.
struct Answer(Value);

impl Answer {
    fn is(&self, verdict: &str) -> bool {
        self.0["verified"] == true && self.0["verdict"] == verdict
    }
}

impl Asked {
    fn of(mirror: &Mirror, folder: &Scene) -> Asked {
        Asked {
            key: mirror.key.to_string(),
            via: format!("http://{}", mirror.http),
            anchor: folder.path().join("root.key").display().to_string(),
        }
    }

    async fn lookup(
        &self,
        address: &Address,
        receipt: &Path,
        teller: Teller,
    ) -> anyhow::Result<Answer> {
        let save = receipt.display().to_string();
        let words = ["lookup", address.as_str(), "--via", &self.via, "--log", &self.key];
        self.run(&words, &["--save", &save], teller).await
    }

    async fn verify(&self, receipt: &Path, teller: Teller) -> anyhow::Result<Answer> {
        let file = receipt.display().to_string();
        self.run(&["verify", &file, "--log", &self.key], &[], teller).await
    }

    async fn run(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Answer> {
        let program = std::env::current_exe().context("where this program is")?;
        if !teller.json {
            println!("  $ syndicate {} --trust-anchor {}", words.join(" "), self.anchor);
        }
        let output = Command::new(program)
            .args(words)
            .args(more)
            .args(["--trust-anchor", &self.anchor])
            .arg("--json")
            .output()
            .await
            .context("cannot start a second process")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(last) = text.lines().last() else {
            bail!("the second process said nothing: {}", String::from_utf8_lossy(&output.stderr));
        };
        let answer: Value = serde_json::from_str(last).context("reading the second process")?;
        let (verdict, message) = (&answer["verdict"], &answer["error"]["message"]);
        let verdict = verdict.as_str().unwrap_or("NOT VERIFIED");
        teller.tell(
            "verified",
            &format!(
                "{verdict}{}, latest as of {}{}",
                match answer["version"].as_u64() {
                    Some(version) => format!(": version {version}"),
                    None => String::new(),
                },
                answer["as_of"].as_str().unwrap_or("?"),
                message.as_str().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            json!({ "command": words.first(), "answer": answer.clone() }),
        );
        Ok(Answer(answer))
    }
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
