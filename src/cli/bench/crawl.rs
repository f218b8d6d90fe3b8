//! `syndicate bench crawl`: what the crawler does on this machine, against DX
//! hosts and a DNS in a second process of this program.

mod crowd;
mod frontier;
mod handshakes;
mod sessions;
mod signets;
mod visits;

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Scratch, round, runtime, told};
use crowd::Crowd;

pub use crowd::{HostsArgs, serve};
pub use frontier::{FrontierArgs, run as frontier};

/// Measure the crawler on this machine.
///
/// A second process plays a DNSSEC-signed DNS and the DX hosts, on loopback, so
/// both share the machine's cores. Takes about half a minute; the machine should
/// be idle, and figures of the same run are best compared with each other.
///
/// signets: decoding and validating signets beside the same number of bare
/// Ed25519 verifications.
/// sessions: memory of open sessions with DX hosts.
/// handshakes: connections with a full TLS handshake, and with a resumed one.
/// frontier: a start on an index of many names, in processes of their own: until
/// the first due name, and picking more.
/// visits: whole visits (record, TLS, org signet, one mailbox) of a mirror with
/// its log: of names it never saw, and again of names it knows, whose records
/// are asked for anew each time.
/// slow: the first visits once more, with domains in between whose hosts accept
/// a connection and say nothing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only these parts; all if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The sizes of BENCHMARKS.md: 10,000 domains, 100 of them slow, 1,000,000
    /// names. Takes a few minutes.
    #[arg(long)]
    full: bool,
    /// Domains that are crawled [default: 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    domains: Option<u32>,
    /// DX hosts that they share evenly.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hosts: u32,
    /// RSA certificates, as libdime needs, in place of ECDSA.
    #[arg(long)]
    rsa: bool,
    /// Visits at once [default: as a mirror's].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Option<u32>,
    /// Seconds of visits to known names.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Domains whose host says nothing, beside the others [default: one in a
    /// hundred].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slow: Option<u32>,
    /// Sessions that are open at once.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    sessions: u32,
    /// Names in the frontier [default: 100000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    names: Option<u32>,
    /// Print only one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Signets,
    Sessions,
    Handshakes,
    Frontier,
    Visits,
    Slow,
}

/// Sizes, the defaults filled in.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    domains: usize,
    hosts: usize,
    slow: usize,
    sessions: usize,
    names: usize,
    concurrency: Option<usize>,
    seconds: u64,
    rsa: bool,
}

impl Args {
    fn sizes(&self) -> Sizes {
        let or = |given: Option<u32>, full: u32, small: u32| {
            given.unwrap_or(if self.full { full } else { small }) as usize
        };
        let domains = or(self.domains, 10_000, 1000);
        Sizes {
            domains,
            hosts: self.hosts as usize,
            slow: self.slow.map_or(domains.div_ceil(100), |slow| slow as usize),
            sessions: self.sessions as usize,
            names: or(self.names, 1_000_000, 100_000),
            concurrency: self.concurrency.map(|concurrency| concurrency as usize),
            seconds: self.seconds.into(),
            rsa: self.rsa,
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

pub fn run(args: &Args) -> ExitCode {
    told(args.json, figures(args))
}

/// Memory first, while the process is as new.
fn figures(args: &Args) -> anyhow::Result<Value> {
    let sizes = args.sizes();
    let teller = Teller { quiet: args.json };
    let runtime = runtime()?;
    let mut figures = Map::new();
    let mut add = |value: Value| {
        if let Value::Object(more) = value {
            figures.extend(more);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    add(json!({ "cores": cores, "load_before": load() }));
    let of_crowd = [Part::Sessions, Part::Handshakes, Part::Visits, Part::Slow];
    let mut crowd = match of_crowd.into_iter().any(|part| args.wants(part)) {
        false => None,
        true => {
            teller.say("starting DNS and DX hosts in a second process");
            Some(Crowd::start(sizes)?)
        }
    };
    if let Some(crowd) = crowd.as_ref().filter(|_| args.wants(Part::Sessions)) {
        teller.say("sessions");
        add(runtime.block_on(sessions::figures(crowd, sizes))?);
    }
    if let Some(crowd) = crowd.as_ref().filter(|_| args.wants(Part::Handshakes)) {
        teller.say("handshakes");
        add(runtime.block_on(handshakes::figures(crowd))?);
    }
    if args.wants(Part::Signets) {
        teller.say("signets");
        add(signets::figures()?);
    }
    if args.wants(Part::Frontier) {
        teller.say("frontier");
        let folder = Scratch::new()?;
        add(frontier::figures(&folder.0, sizes.names, teller)?);
    }
    if let Some(crowd) = crowd.as_mut().filter(|_| args.wants(Part::Visits)) {
        teller.say("visits");
        let folder = Scratch::new()?;
        add(runtime.block_on(visits::figures(crowd, &folder.0, sizes, teller))?);
    }
    if let Some(crowd) = crowd.as_ref().filter(|_| args.wants(Part::Slow)) {
        add(runtime.block_on(visits::among_slow(crowd, sizes, teller))?);
    }
    add(json!({ "peak_mib": mib(peak()) }));
    Ok(Value::Object(figures))
}

/// Says on standard error how far things are.
#[derive(Clone, Copy)]
pub struct Teller {
    pub quiet: bool,
}

impl Teller {
    pub fn say(self, what: &str) {
        if !self.quiet {
            eprintln!("{what}");
        }
    }
}

/// Processes that ran or waited in the last minute, on average.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The most memory that the process ever had, bytes.
fn peak() -> u64 {
    super::measure::status("VmHWM:")
}

pub fn mib(bytes: u64) -> f64 {
    round(bytes as f64 / f64::from(1 << 20))
}
