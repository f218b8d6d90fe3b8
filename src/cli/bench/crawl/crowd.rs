//! The second process: DNS and DX hosts, and what the first one needs to know
//! to reach them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use syndicate::config::{Config, File};
use syndicate::demo::crowd;
use syndicate::demo::host::Certificate;
use syndicate::dime::Name;
use syndicate::resolver::{HickoryResolver, NameServers, Options, TrustAnchor};

use super::super::{measure, runtime};
use super::Sizes;
use crate::cli::output;

/// Play DNS and DX hosts until standard input ends.
#[derive(clap::Args)]
pub struct HostsArgs {
    #[arg(long)]
    domains: usize,
    #[arg(long)]
    hosts: usize,
    #[arg(long)]
    silent: usize,
    #[arg(long)]
    rsa: bool,
}

/// What the second process says when it is ready.
#[derive(Serialize, Deserialize)]
struct Ready {
    dns: SocketAddr,
    anchor: String,
    port: u16,
    hosts: Vec<SocketAddr>,
}

/// The side of the second process.
pub fn serve(args: &HostsArgs) -> ExitCode {
    let outcome = runtime().and_then(|runtime| {
        let certificate = if args.rsa { Certificate::Rsa } else { Certificate::SelfSigned };
        let crowd = runtime.block_on(crowd::Crowd::start(crowd::Options {
            domains: args.domains,
            hosts: args.hosts,
            silent: args.silent,
            certificate,
        }))?;
        let ready = Ready {
            dns: crowd.dns().address(),
            anchor: crowd.dns().trust_anchor_text().to_owned(),
            port: crowd.dmtp_port(),
            hosts: crowd.hosts().to_vec(),
        };
        println!("{}", serde_json::to_string(&ready)?);
        std::io::stdout().flush()?;
        // Each line asks how many questions the DNS was asked.
        for line in std::io::stdin().lines() {
            line?;
            println!("{}", crowd.dns().questions());
            std::io::stdout().flush()?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::from(output::YES),
        Err(error) => {
            eprintln!("syndicate: {error:#}");
            ExitCode::from(output::NO)
        }
    }
}

/// The second process, from the first one's side. It is ended when dropped.
pub struct Crowd {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    ready: Ready,
}

impl Crowd {
    pub fn start(sizes: Sizes) -> anyhow::Result<Crowd> {
        let number = |number: usize| number.to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "hosts", "--domains", &number(sizes.domains)]);
        command.args(["--hosts", &number(sizes.hosts), "--silent", &number(sizes.slow)]);
        if sizes.rsa {
            command.arg("--rsa");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let ready = serde_json::from_str(&line).context("the second process did not start")?;
        Ok(Crowd { child, said, ready })
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.ready.hosts.len().max(1)
    }

    /// Where the host with this number listens.
    pub fn host(&self, number: usize) -> Option<SocketAddr> {
        self.ready.hosts.get(number % self.hosts()).copied()
    }

    /// CPU time of the second process so far.
    pub fn cpu(&self) -> Duration {
        measure::cpu_of(&self.child.id().to_string())
    }

    /// Questions that its DNS was asked so far.
    pub fn questions(&mut self) -> anyhow::Result<u64> {
        self.child.stdin.as_mut().context("no input")?.write_all(b"\n")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    pub fn resolver(&self) -> anyhow::Result<HickoryResolver> {
        Ok(HickoryResolver::new(Options {
            name_servers: NameServers::Listed(vec![self.ready.dns]),
            trust_anchor: TrustAnchor::parse(&self.ready.anchor)?,
            ..Options::default()
        })?)
    }

    /// A mirror's configuration that goes round without a pause.
    pub fn config(&self, folder: &Path, sizes: Sizes) -> anyhow::Result<Config> {
        let anchor = folder.join("root.key");
        std::fs::write(&anchor, &self.ready.anchor)?;
        let mut file = File { data: Some(folder.join("mirror")), ..File::default() };
        file.http.listen = "127.0.0.1:0".into();
        file.dmtp.listen = "127.0.0.1:0".into();
        file.dns.servers = vec![self.ready.dns.to_string()];
        file.dns.trust_anchor = Some(anchor);
        file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
        file.crawl.dx_port = self.ready.port;
        if let Some(concurrency) = sizes.concurrency {
            file.crawl.concurrency = concurrency;
        }
        let mut config = file.check()?;
        config.interval_millis = 0;
        // Each visit fetches the signet: no host's word is taken.
        config.full_check_millis = 0;
        Ok(config)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The mailboxes of all domains whose hosts answer.
pub fn mailboxes(number: usize) -> anyhow::Result<Vec<Name>> {
    let mailbox = |number| Ok(Name::Address(crowd::mailbox(number)?));
    (0..number).map(mailbox).collect()
}

/// Those of the domains whose hosts say nothing.
pub fn silent_mailboxes(number: usize) -> anyhow::Result<Vec<Name>> {
    let mailbox = |number| Ok(Name::Address(crowd::silent_mailbox(number)?));
    (0..number).map(mailbox).collect()
}
