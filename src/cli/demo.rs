//! `syndicate demo`: the main job on a private internet, told as it happens.
//!
//! Everything is real but the world around it: DNSSEC-signed zones, TLS, DMTP
//! and HTTP over loopback sockets, three mirrors with their data in folders, who
//! follow, cosign and compare each other. What is claimed to be verified is
//! verified by another process of this program, which knows only a policy file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::config::{Config, File, PeerSection};
use syndicate::crawl::{Entered, Outcome, Report};
use syndicate::daemon::{Folder, Mirror, Secrets};
use syndicate::demo::world::{self, Vantage, World};
use syndicate::dime::{Address, Domain, Name};
use syndicate::proof::Event;
use syndicate::proof::checkpoint::SignedCheckpoint;
use syndicate::resolver::NameServers;
use tokio::process::Command;

use super::output;

/// Longest wait for cosignatures, and for two mirrors to be sure of a split view.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const GLANCE: Duration = Duration::from_millis(50);

/// See the whole thing on a private internet, with no set-up.
///
/// Starts a DNSSEC-signed DNS root, a dozen DIME domains with their DX hosts and
/// three mirrors, all on loopback. The mirrors crawl the domains for real, replay
/// and cosign each other's logs; a lookup is verified by a second process, also
/// with a mirror switched off. Then one mail host swaps a user's key, and another
/// shows a forged key to one of the mirrors only: both are reported, the latter as
/// a split view, in a file that is verified offline. Without --once the mirrors
/// stay up until Ctrl-C.
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
    entries: u64,
    attacks: Vec<Attack>,
}

struct Attack {
    name: &'static str,
    detected: bool,
    /// From the attack to the log entry or the incident that reports it,
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

    teller.act("Three mirrors start: other operators, other keys, another view of DNS each");
    let mut operators = operators(&world, folder.path()).await?;
    let policy = policy(&operators, folder.path())?;
    for operator in &mut operators {
        operator.start().await?;
        operator.introduce(teller);
    }
    teller.tell(
        "policy",
        &format!("whom a client believes: any of these logs, replayed and cosigned by the other two ({})", policy.display()),
        json!({ "policy": policy.display().to_string() }),
    );

    teller.act("They crawl: DNS, DMTP, every signature, then the log; and cosign each other");
    let (first, others) = operators.split_first().context("no mirror")?;
    let quietly = others.iter().map(|operator| operator.crawl(&world));
    let told = crawl(&world, first.mirror()?, teller);
    let (told, quietly) = tokio::join!(told, futures::future::try_join_all(quietly));
    told?;
    quietly?;
    for operator in &operators {
        operator.until_cosigned().await?;
    }

    teller.act("Anybody looks a key up. A second process, which knows only the policy, checks");
    let address: Address = "alice@juniper.test".parse()?;
    let receipt = folder.path().join("receipt.json");
    let asked = Asked::of(operators[0].mirror()?, &world, &policy, &folder);
    let found = asked.lookup(&address, &receipt, teller).await?;
    let mut verified = found.is("VALID");
    verified &= asked.check("alice@kelp.test", teller).await?;

    teller.act("That mirror is switched off. The saved receipt still proves the same");
    operators[0].stop().await;
    verified &= asked.verify(&receipt, teller).await?.is("VALID");
    operators[0].start().await?;
    let size = operators[0].mirror()?.log.heads().committed.map_or(0, |head| head.size);
    teller.tell(
        "restarted",
        &format!("started again; it checked its own log: {size} entries"),
        json!({ "entries": size, "http": operators[0].mirror()?.http.to_string() }),
    );

    let asked = Asked::of(operators[0].mirror()?, &world, &policy, &folder);
    let mut attacks = vec![key_swap(&world, &operators[0], &asked, &receipt, teller).await?];
    attacks.push(split_view(&world, &operators, &asked, folder.path(), teller).await?);
    let heads = operators.iter().filter_map(|operator| operator.head());
    let ending = Ending { verified, entries: heads.sum(), attacks };
    finish(&ending, teller);
    if !args.once {
        stay(&operators, &asked, &folder, teller)?;
        stop.cancelled().await;
    }
    for operator in &mut operators {
        operator.stop().await;
    }
    Ok(ending)
}

/// Who runs a mirror, and where from.
struct Operator {
    name: &'static str,
    vantage: Vantage,
    config: Config,
    secrets: Secrets,
    running: Option<Mirror>,
}

/// Three of them, who know each other's keys and addresses.
async fn operators(world: &World, folder: &Path) -> anyhow::Result<Vec<Operator>> {
    let (anchor, roots) = (folder.join("root.key"), folder.join("ca.pem"));
    std::fs::write(&anchor, world.dns().trust_anchor_text())?;
    std::fs::write(&roots, world.authority_pem())?;
    let mut places = Vec::new();
    for name in ["ada", "ben", "cleo"] {
        let data = Folder::new(folder.join(name));
        data.make()?;
        let secrets = Secrets::load_or_make(&data.keys(), Some(&format!("{name}.mirror.example")))?;
        // Free now, and nobody else asks for this one meanwhile.
        let http = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        places.push((name, data, secrets, http));
    }
    let peers: Vec<PeerSection> = places
        .iter()
        .map(|(_, _, secrets, http)| PeerSection {
            url: format!("http://{http}"),
            log: secrets.verifier().to_string(),
            cosigner: Some(secrets.cosigner.verifier().to_string()),
            peer_key: Some(secrets.peer.verifier().to_string()),
            share_addresses: true,
        })
        .collect();
    let mut operators = Vec::new();
    for (number, (name, data, secrets, http)) in places.into_iter().enumerate() {
        let vantage = world.vantage().await?;
        let mut file = File { data: Some(data.path().to_owned()), ..File::default() };
        file.http.listen = http.to_string();
        file.dmtp.listen = "127.0.0.1:0".into();
        file.dns.servers = vec![vantage.dns().address().to_string()];
        file.dns.trust_anchor = Some(anchor.clone());
        file.crawl.roots = Some(roots.clone());
        file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
        file.crawl.dx_port = world.dmtp_port();
        file.peers.publish_quorum = 2;
        file.peers.recheck_secs = 1;
        let others = peers.iter().enumerate().filter(|(other, _)| *other != number);
        file.peers.mirror = others.map(|(_, peer)| peer.clone()).collect();
        let mut config = file.check()?;
        // Nobody should wait for batches here: five a second instead of one.
        config.batch_millis = 200;
        operators.push(Operator { name, vantage, config, secrets, running: None });
    }
    Ok(operators)
}

/// The policy file of a client who believes each log as far as the operators of
/// the other two have replayed and cosigned it.
fn policy(operators: &[Operator], folder: &Path) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    let mut names = Vec::new();
    for operator in operators {
        let (name, secrets) = (operator.name, &operator.secrets);
        text.push_str(&format!("log {} http://{}\n", secrets.verifier(), operator.config.http));
        text.push_str(&format!("witness {name} {}\n", secrets.cosigner.verifier()));
        text.push_str(&format!("#! operator {name} {} {name}\n", secrets.origin()));
        names.push(name);
    }
    let names = names.join(" ");
    text.push_str(&format!("group replaying 2 {names}\nquorum replaying\n"));
    let path = folder.join("policy");
    std::fs::write(&path, text)?;
    Ok(path)
}

impl Operator {
    async fn start(&mut self) -> anyhow::Result<()> {
        self.running = Some(Mirror::start(&self.config, Clock::system()).await?);
        Ok(())
    }

    async fn stop(&mut self) {
        if let Some(mirror) = self.running.take() {
            mirror.stop().await;
        }
    }

    fn mirror(&self) -> anyhow::Result<&Mirror> {
        self.running.as_ref().context("the mirror is switched off")
    }

    fn introduce(&self, teller: Teller) {
        let Some(mirror) = &self.running else { return };
        teller.tell(
            "mirror",
            &format!(
                "{:<6}   http://{}  dmtp {}  {}",
                self.name, mirror.http, mirror.dmtp, mirror.key
            ),
            json!({
                "name": self.name,
                "origin": mirror.log.record().origin,
                "key": mirror.key.to_string(),
                "http": mirror.http.to_string(),
                "dmtp": mirror.dmtp.to_string(),
            }),
        );
    }

    /// Visits everything once, and says nothing.
    async fn crawl(&self, world: &World) -> anyhow::Result<()> {
        let crawl = &self.mirror()?.crawl;
        for address in world.addresses() {
            crawl.watch(Name::Address(address), "demo").await?;
        }
        let domains = world.domains().into_iter().map(Name::Domain);
        let visits = domains.map(|domain| crawl.visit(domain, "demo"));
        futures::future::try_join_all(visits).await?;
        Ok(())
    }

    /// Entries that are published.
    fn head(&self) -> Option<u64> {
        Some(self.running.as_ref()?.log.heads().published?.size)
    }

    /// Waits until everything committed is published with both cosignatures.
    async fn until_cosigned(&self) -> anyhow::Result<()> {
        let log = &self.mirror()?.log;
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let heads = log.heads();
                let all = heads.committed.map(|head| head.size);
                let lines = heads.published.filter(|head| Some(head.size) == all).map(|head| {
                    let note = head.checkpoint.and_then(|note| SignedCheckpoint::parse(&note).ok());
                    note.map_or(0, |note| note.note().signatures().len())
                });
                if lines >= Some(3) {
                    return;
                }
                tokio::time::sleep(GLANCE).await;
            }
        });
        waited.await.with_context(|| format!("{} was not cosigned by both others", self.name))
    }
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
    operator: &Operator,
    asked: &Asked,
    receipt: &Path,
    teller: Teller,
) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of hazel.example swaps erin's key for one of its own");
    let mirror = operator.mirror()?;
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
    operator.until_cosigned().await?;
    let held = asked.lookup(&victim, receipt, teller).await?.is("HELD");
    Ok(Attack { name: "key-swap", detected: swapped && changed && held, millis })
}

/// One mirror is shown a forged key that nobody else sees: each log is right by
/// itself, and together they contradict each other.
async fn split_view(
    world: &World,
    operators: &[Operator],
    asked: &Asked,
    folder: &Path,
    teller: Teller,
) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of birch.example shows cleo, and nobody else, a forged key");
    let victim: Address = "carol@birch.example".parse()?;
    let deceived = operators.last().context("no mirror")?;
    world.swap_key_for(&deceived.vantage, &victim).await?;
    let began = Instant::now();
    deceived.mirror()?.crawl.visit(Name::Address(victim.clone()), "demo").await?;
    let (mut found, mut witnesses) = (None, Vec::new());
    while began.elapsed() < PATIENCE && witnesses.len() < operators.len() {
        for operator in operators {
            if witnesses.contains(&operator.name) {
                continue;
            }
            if let Some(incident) = incident_at(operator.mirror()?, &victim).await? {
                found.get_or_insert((incident, began.elapsed().as_millis()));
                witnesses.push(operator.name);
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
    let millis = found.as_ref().map_or(began.elapsed().as_millis(), |(_, millis)| *millis);
    teller.tell(
        "attack",
        &match witnesses.is_empty() {
            true => "NO mirror found the two histories".to_owned(),
            false => format!(
                "split view after {millis} ms, two fresh looks on each side; kept by {}",
                witnesses.join(", ")
            ),
        },
        json!({ "name": "split-view", "reported": !witnesses.is_empty(), "by": witnesses, "ms": millis as u64 }),
    );
    let file = folder.join("incident.json");
    let proved = match found {
        None => false,
        Some((incident, _)) => {
            std::fs::write(&file, incident.to_string())?;
            asked.incident(&file, teller).await?
        }
    };
    let detected = proved && witnesses.len() >= 2;
    Ok(Attack { name: "split-view", detected, millis })
}

/// A split view of this name that a mirror gives out to whoever names it.
async fn incident_at(mirror: &Mirror, name: &Address) -> anyhow::Result<Option<Value>> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/v1/incidents", mirror.http);
    let answer = http.post(url).json(&json!({ "name": name.as_str() })).send().await?;
    let body: Value = answer.error_for_status()?.json().await?;
    let incidents = body["incidents"].as_array().cloned().unwrap_or_default();
    Ok(incidents.into_iter().find(|incident| incident["kind"] == "split-view"))
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

fn stay(
    operators: &[Operator],
    asked: &Asked,
    folder: &Scene,
    teller: Teller,
) -> anyhow::Result<()> {
    if !teller.json {
        println!("\nThe mirrors stay up until Ctrl-C. Ask them:");
        println!(
            "  syndicate lookup carol@birch.example --via {} --policy {} --trust-anchor {}",
            asked.via, asked.policy, asked.anchor
        );
        for operator in operators {
            println!("  curl http://{}/checkpoint", operator.mirror()?.http);
        }
        println!("Their data is in {}", folder.path().display());
    }
    Ok(())
}

/// Another process of this program, which knows a policy file and an address.
struct Asked {
    policy: String,
    via: String,
    /// How that process looks at the private internet itself.
    sight: Vec<String>,
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
    fn of(mirror: &Mirror, world: &World, policy: &Path, folder: &Scene) -> Asked {
        let file = |name: &str| folder.path().join(name).display().to_string();
        let dns = world.dns().address().to_string();
        let (port, roots) = (world.dmtp_port().to_string(), file("ca.pem"));
        let sight = ["--dns", &dns, "--dx-port", &port, "--roots", &roots];
        let mut sight: Vec<String> = sight.map(str::to_owned).to_vec();
        sight.extend(["--allow-network".into(), "127.0.0.0/8".into()]);
        sight.extend(["--state".into(), file("client"), "--evidence".into(), file("")]);
        Asked {
            policy: policy.display().to_string(),
            sight,
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
        let words = ["lookup", address.as_str(), "--via", &self.via, "--policy", &self.policy];
        self.run(&words, &["--save", &save], teller).await
    }

    async fn verify(&self, receipt: &Path, teller: Teller) -> anyhow::Result<Answer> {
        let file = receipt.display().to_string();
        self.run(&["verify", &file, "--policy", &self.policy], &[], teller).await
    }

    /// What everybody sees, and what that process sees itself.
    async fn check(&self, name: &str, teller: Teller) -> anyhow::Result<bool> {
        let words = ["check", name, "--policy", &self.policy];
        let sight: Vec<&str> = self.sight.iter().map(String::as_str).collect();
        let answer = self.ask(&words, &sight, teller).await?;
        let verdict = answer["verdict"].as_str().unwrap_or("NOTHING").to_owned();
        teller.tell(
            "checked",
            &format!("{verdict}: the key seen here is the one that the logs prove"),
            json!({ "command": "check", "answer": answer }),
        );
        Ok(verdict == "AGREED")
    }

    /// What a file of evidence proves by itself.
    async fn incident(&self, file: &Path, teller: Teller) -> anyhow::Result<bool> {
        let file = file.display().to_string();
        let answer = self.ask(&["verify", &file, "--policy", &self.policy], &[], teller).await?;
        let proved = answer["proved"] == true;
        for (what, key) in [("proved", "proof"), ("on somebody's word", "testimony")] {
            for line in answer[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !teller.json {
                    println!("  {what}: {line}");
                }
            }
        }
        if teller.json {
            teller.tell("incident", "", json!({ "command": "verify", "answer": answer }));
        }
        Ok(proved)
    }

    async fn run(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Answer> {
        let answer = self.ask(words, more, teller).await?;
        let (verdict, message) = (&answer["verdict"], &answer["error"]["message"]);
        let verdict = verdict.as_str().unwrap_or("NOT VERIFIED");
        let cosigners = answer["cosigners"].as_array().map_or(0, Vec::len);
        teller.tell(
            "verified",
            &format!(
                "{verdict}{}, latest as of {}{}{}",
                match answer["version"].as_u64() {
                    Some(version) => format!(": version {version}"),
                    None => String::new(),
                },
                answer["as_of"].as_str().unwrap_or("?"),
                match cosigners {
                    0 => String::new(),
                    n => format!(", cosigned by {n} others"),
                },
                message.as_str().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            json!({ "command": words.first(), "answer": answer.clone() }),
        );
        Ok(Answer(answer))
    }

    /// Runs a command, told as it stands; gives the last line that it printed.
    async fn ask(&self, words: &[&str], more: &[&str], teller: Teller) -> anyhow::Result<Value> {
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
        serde_json::from_str(last).context("reading the second process")
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
