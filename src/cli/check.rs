//! `syndicate check`: is the key that is seen here the one that everybody sees?

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use syndicate::client::memory::Memory;
use syndicate::client::{self, Check, Eyes, Options, PlaceAnswer, Reported, Said, Verdict};
use syndicate::clock::Clock;
use syndicate::dime::Name;
use syndicate::dime::signet::{Fingerprint, Level};
use syndicate::dmtp::{self, AddressFilter, Network, Roots};
use syndicate::errors::with_sources;
use syndicate::resolver::{self, HickoryResolver, NameServers};

use super::output;
use super::trust::Trust;

/// Ask whether the key that is seen here is the one that everybody sees.
///
/// Looks the name up twice: as your mail program does (DNS, then the mail
/// host), and in the logs of your policy, which other people's mirrors keep. If
/// the two differ, somebody shows you a key that the world does not see.
///
/// You decide whom to believe: --policy names the logs (lines `log KEY URL`),
/// the cosigners they need, and which of them are one operator. Hosts that the
/// domain's own record names (syn=) are asked too and never counted: the record
/// may be the forged one.
///
/// Verdict and exit code:
///   0 AGREED       enough operators prove the key seen here, latest and fresh
///   1 UNKNOWN      nobody you believe says anything about it (or no policy given)
///   2              the call was wrong
///   3 SPLIT        the logs prove another key, or a log has two histories: do
///                  not use the key; a file with the evidence is written
///   4 UNREACHABLE  too few logs could be asked: says nothing about the key
///   5 HELD         changed without the old key's consent in the last days
///   6 LAGGING      a log, or the mail host, has an older key, or no log has the
///                  new key that signs a domain yet: ask again later
///   7 UNCONFIRMED  what the logs prove is too old, or no key is seen here
///
/// What each log has shown is remembered (--state), so that none can go back
/// or tell you another past.
///
/// Examples:
///   syndicate check alice@example.com --policy ~/.config/syndicate/policy
///   syndicate check example.com --log KEY --via https://mirror.example
///   syndicate check alice@example.com --policy FILE --report
///   syndicate verify incident-2026-11-23T180429Z.json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A domain (example.com) or a mailbox (alice@example.com).
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(flatten)]
    trust: Trust,
    /// The key that is in use, as its fingerprint: compared as well, or alone if
    /// the mail host cannot be reached from here.
    #[arg(long, value_name = "FP", value_parser = fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// Operators of the policy that have to agree. If left out: all of up to
    /// three, and of more so many that no two keys can both have them.
    #[arg(long, value_name = "K")]
    quorum: Option<usize>,
    /// A further mirror to ask, http://… or https://…; only a place to fetch from.
    #[arg(long, value_name = "URL")]
    via: Vec<String>,
    /// Where what the logs have shown is remembered; ~/.local/state/syndicate if
    /// left out.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where evidence is written on SPLIT.
    #[arg(long, value_name = "DIR", default_value = ".")]
    evidence: PathBuf,
    /// On SPLIT, send the evidence to the mirrors of the policy. They learn the
    /// name and what you were shown, and look for themselves at once. Whether
    /// they list it is another matter: mail hosts send signets without the
    /// identifiers that bind a key to its name, and a forged key in such a signet is
    /// taken and not listed.
    #[arg(long)]
    report: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sight: Sight,
}

/// Where to look from.
#[derive(clap::Args)]
#[command(next_help_heading = "Your own view")]
struct Sight {
    /// Name server to ask, IP:PORT; the system's if left out.
    #[arg(long, value_name = "ADDR")]
    dns: Vec<SocketAddr>,
    /// CAs for certificates of mail hosts and mirrors, PEM; the public web's if left
    /// out.
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Port of mail hosts.
    #[arg(long, value_name = "PORT", default_value_t = dmtp::PORT)]
    dx_port: u16,
    /// A private network that may be connected to, such as 10.0.0.0/8.
    #[arg(long, value_name = "CIDR")]
    allow_network: Vec<Network>,
}

impl Sight {
    fn eyes(&self, trust: &Trust) -> anyhow::Result<Eyes> {
        let roots = match &self.roots {
            None => Roots::public(),
            Some(path) => {
                let pem = std::fs::read(path)
                    .with_context(|| format!("cannot read the CAs in {}", path.display()))?;
                Roots::from_pem(&pem)?
            }
        };
        let name_servers = match self.dns.as_slice() {
            [] => NameServers::System,
            listed => NameServers::Listed(listed.to_vec()),
        };
        let trust_anchor = trust.anchor()?;
        let options =
            resolver::Options { name_servers, trust_anchor, ..resolver::Options::default() };
        let filter = AddressFilter::new(self.allow_network.clone());
        Ok(Eyes {
            resolver: Arc::new(HickoryResolver::new(options)?),
            dmtp: dmtp::Options { filter, roots, ..dmtp::Options::default() },
            ports: dmtp::reach::Ports { dx: self.dx_port, ..Default::default() },
            clock: Clock::system(),
        })
    }
}

/// Hexadecimal or base64, of any level.
fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).map_err(|rejection| rejection.to_string())
}

pub fn run(args: Args) -> ExitCode {
    output::quiet_tracing();
    match output::block_on(work(&args)) {
        Ok(code) => code,
        Err(error) => output::usage(format!("{error:#}")),
    }
}

async fn work(args: &Args) -> anyhow::Result<ExitCode> {
    let policy = args.trust.policy()?;
    let folder = match &args.state {
        Some(folder) => folder.clone(),
        None => Memory::default_folder()?,
    };
    let options = Options {
        policy,
        root: args.trust.root()?,
        quorum: args.quorum,
        via: args.via.clone(),
        fingerprint: args.fingerprint,
        memory: Some(Memory::open(folder)?),
        ..Options::default()
    };
    let eyes = args.sight.eyes(&args.trust)?;
    let check = client::check(&args.name, &eyes, &options).await?;
    let mut files = Vec::new();
    for incident in &check.incidents {
        match client::keep(&args.evidence, incident) {
            Ok(path) => files.push(path),
            // The verdict is worth more than the file.
            Err(error) => eprintln!(
                "syndicate: cannot write the evidence to {}: {error}",
                args.evidence.display()
            ),
        }
    }
    let mut reports = Vec::new();
    if let (true, Some(policy)) = (args.report, &options.policy) {
        for incident in &check.incidents {
            reports
                .extend(client::report(policy, incident, &eyes.dmtp.roots, options.patience).await);
        }
    }
    if args.json {
        output::json_line(&as_json(&check, &files, &reports));
    } else {
        print(&check, &files, &reports, args.report);
    }
    Ok(ExitCode::from(code(check.verdict)))
}

/// Scripts rely on these; they are in the help above.
fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Agreed => output::YES,
        Verdict::Unknown => output::NO,
        Verdict::Split => 3,
        Verdict::Unreachable => 4,
        Verdict::Held => 5,
        Verdict::Lagging => 6,
        Verdict::Unconfirmed => 7,
    }
}

fn print(check: &Check, files: &[PathBuf], reports: &[Reported], reported: bool) {
    println!("{}: {}", check.name, check.verdict);
    for reason in &check.reasons {
        println!("  {reason}");
    }
    println!();
    if let Some(signet) = check.view.signet(&check.name) {
        for level in [Level::Crypto, Level::Full] {
            if let Some(print) = signet.fingerprint(level) {
                println!("{:<12} {print} ({level})", "seen here");
            }
        }
    }
    if let Some(dnssec) = check.view.dnssec {
        println!("{:<12} {dnssec}", "DNSSEC");
    }
    for answer in &check.answers {
        let standing = standing(answer);
        println!("{standing:<12} {} (named by {})", answer.from, answer.named_by);
    }
    for file in files {
        println!("{:<12} {}", "evidence", file.display());
        println!("{:<12} syndicate verify {}", "", file.display());
    }
    for Reported { url, outcome } in reports {
        match outcome {
            Ok(true) => println!("{:<12} {url}: taken, and listed", "reported"),
            Ok(false) => println!("{:<12} {url}: taken, not listed", "reported"),
            Err(why) => println!("{:<12} {url}: not taken: {why}", "reported"),
        }
    }
    if !files.is_empty() && !reported {
        println!("{:<12} the same call with --report tells the mirrors of your policy", "next");
    }
}

fn standing(answer: &PlaceAnswer) -> &'static str {
    match (&answer.said, answer.standing) {
        (Said::Proof(_), standing) => standing.map_or("unsure", client::Standing::as_str),
        (Said::Fork(..), _) => "forked",
        (Said::Claim(_), _) => "claim",
        (Said::Refused(_) | Said::Early(_), _) => "refused",
        (Said::Silent(_), _) => "no answer",
    }
}

fn as_json(check: &Check, files: &[PathBuf], reports: &[Reported]) -> Value {
    let signet = check.view.signet(&check.name);
    let print = |level| Some(signet?.fingerprint(level)?.to_string());
    let answers: Vec<Value> = check
        .answers
        .iter()
        .map(|answer| {
            let proof = answer.said.proof();
            json!({
                "from": answer.from,
                "named_by": answer.named_by.to_string(),
                "standing": standing(answer),
                "counts": proof.is_some(),
                "log": proof.map(|proof| proof.statement.origin.as_str()),
                "size": proof.map(|proof| proof.statement.size),
                "words": answer.words(),
            })
        })
        .collect();
    let reports: Vec<Value> = reports
        .iter()
        .map(|Reported { url, outcome }| {
            let error = outcome.as_ref().err();
            json!({"url": url, "taken": outcome.is_ok(), "listed": outcome.as_ref().ok(), "error": error})
        })
        .collect();
    json!({
        "name": check.name.as_str(),
        "verdict": check.verdict.as_str(),
        "at": check.at.to_string(),
        "reasons": check.reasons,
        "quorum": {
            "agreeing": check.agreeing, "needed": check.needed, "operators": check.operators,
        },
        "seen": {
            "crypto": print(Level::Crypto),
            "full": print(Level::Full),
            "dnssec": check.view.dnssec.map(|dnssec| dnssec.to_string()),
            "lack": check.lack.as_ref().map(report_words),
        },
        "answers": answers,
        "evidence": files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "reports": reports,
    })
}

fn report_words(lack: &client::Lack) -> String {
    with_sources(lack)
}
