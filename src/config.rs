//! The configuration file, once read: TOML to [`File`], checked to [`Config`].
//!
//! Unknown keys are errors. Secrets are paths, never values. What the file does
//! not say is a default, named here with its unit. `syndicate config print`
//! shows the effective file, and reading that back gives the same file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::crawl::{ASK_DELAY, COMPARE_EVERY, VANTAGES, quota};
use crate::dime::Name;
use crate::dmtp::address::Network;
use crate::dmtp::{DUAL_PORTS, Proxy, budget, hosts};
use crate::peers::comparison::{Pace, RECHECK, WITHHELD};
use crate::proof::entry::is_origin;
use crate::proof::note::{KeyType, VerifierKey};
use crate::proof::policy::{Policy, Witness};

/// Where a mirror listens for HTTP unless told otherwise.
pub const HTTP_LISTEN: &str = "127.0.0.1:8090";
/// Where a mirror listens for DMTP unless told otherwise (26 needs root).
pub const DMTP_LISTEN: &str = "127.0.0.1:2626";
/// DMTP's port at DX hosts (reference §6.1).
pub const DX_PORT: u16 = 26;
/// Seconds between two visits of a domain, if its record allows that long.
pub const INTERVAL_SECS: u64 = 3600;
/// Visits at one time.
pub const CONCURRENCY: usize = 64;
/// Hours for which a name is held after a key change without custody.
pub const HOLD_HOURS: u64 = 72;
/// Hours within which each signet is fetched, whatever its host says.
pub const FULL_CHECK_HOURS: u64 = 24;
/// Seconds between two batches, at least.
pub const BATCH_SECS: u64 = 1;
/// Seconds after which an idle log publishes a batch of only its root.
pub const HEARTBEAT_SECS: u64 = 600;
/// Milliseconds that a checkpoint waits for its publishing quorum.
pub const QUORUM_DEADLINE_MILLIS: u64 = 2000;
/// Entries that a peer's log may grow by on one day.
pub const PEER_ENTRIES_PER_DAY: u64 = 200_000;
/// New domains that are taken from a peer's log on one day.
pub const PEER_DOMAINS_PER_DAY: u64 = 1000;
/// Visits that a peer may ask for in an hour; on a day eight times as many.
pub const PEER_LOOKS_PER_HOUR: u32 = 600;
/// Requests a day to a public witness that does not say how many it takes.
pub const WITNESS_QPD: u32 = 288;
/// Mirrors and public witnesses, of each.
pub const MAX_PEERS: usize = 64;
/// Largest configuration file, bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// The file as it is written. Every section and key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Folder of everything that is kept: blobs, index, guard, keys.
    pub data: Option<PathBuf>,
    pub log: LogSection,
    pub http: HttpSection,
    pub dmtp: DmtpSection,
    pub dns: DnsSection,
    pub crawl: CrawlSection,
    pub peers: PeersSection,
}

/// The other mirrors of the syndicate, and public witnesses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeersSection {
    /// Cosignatures of mirrors to wait for before a checkpoint is published.
    pub publish_quorum: usize,
    /// After so long it is published without them.
    pub quorum_deadline_millis: u64,
    /// Entries of one peer on one day; above, it is followed on the next.
    pub entries_per_day: u64,
    /// New domains of one peer on one day that are looked at here too.
    pub domains_per_day: u64,
    /// Visits that one peer may ask for in an hour; on a day eight times as many.
    pub looks_per_hour: u32,
    /// Between the two visits, here and there, that tell a split view from a
    /// change that one of the mirrors has not seen yet.
    pub recheck_secs: u64,
    /// After so long a peer that still answers with the old key withholds it.
    pub withheld_hours: u64,
    /// A C2SP tlog-policy file, one for all mirrors of a syndicate: its logs with
    /// a URL are mirrors, but for our own. Its witnesses with such a log's URL, or
    /// with none and of its operator, are their cosigners, the others with a URL
    /// public ones. What `mirror` and `witness` say of the same log or key wins.
    pub policy: Option<PathBuf>,
    /// Where peers' maps are.
    pub map: MapPlace,
    pub mirror: Vec<PeerSection>,
    pub witness: Vec<WitnessSection>,
}

/// Where a map is: 120 bytes a label either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapPlace {
    #[default]
    Memory,
    /// In a file below the data folder, of which the system keeps in memory what
    /// is used, as far as there is room.
    Disk,
}

/// A mirror that is followed, and cosigned when everything in it is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    pub url: String,
    /// Verifier key of its log.
    pub log: String,
    /// Verifier key of its cosigner; none: it does not cosign this log.
    #[serde(default)]
    pub cosigner: Option<String>,
    /// Verifier key of its requests; none: names are not compared with it.
    #[serde(default)]
    pub peer_key: Option<String>,
    /// Whether names of mailboxes may be told to it.
    #[serde(default)]
    pub share_addresses: bool,
}

/// A public C2SP witness that cosigns this log without replaying it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessSection {
    /// Its submission prefix.
    pub url: String,
    pub key: String,
    /// Requests a day that it takes.
    #[serde(default = "witness_qpd")]
    pub qpd: u32,
}

fn witness_qpd() -> u32 {
    WITNESS_QPD
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Origin of the checkpoints: the public URL without scheme. Fixed at the
    /// first start; later it may be left out, and must not differ.
    pub origin: Option<String>,
    pub batch_secs: u64,
    pub heartbeat_secs: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    pub listen: String,
    /// How others reach it, for `450 HELD, SEE <url>`; default `http://<listen>`.
    pub public_url: Option<String>,
    /// Addresses of reverse proxies: the last address of their
    /// `X-Forwarded-For` is the client, to whom limits apply.
    pub proxies: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DmtpSection {
    pub listen: String,
    /// Host name in the banner and in a certificate made at the first start.
    pub host: String,
    /// PEM files; both or neither. Neither: an RSA key is made at the first start.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsSection {
    /// Name servers as `ip:port`; none: those of the system.
    pub servers: Vec<String>,
    /// Name servers on another path, as `ip:port`: a bogus answer counts only if
    /// these find it bogus too. None: those of a vantage other than the first, if
    /// they are others; else no bogus answer counts.
    pub second_servers: Vec<String>,
    /// File of DNSKEY or DS lines; none: the root key of IANA.
    pub trust_anchor: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrawlSection {
    /// Domains and addresses to watch.
    pub names: Vec<String>,
    /// A file of further names, one a line, `#` comments.
    pub names_file: Option<PathBuf>,
    pub interval_secs: u64,
    pub concurrency: usize,
    pub hold_hours: u64,
    /// Fetch each mailbox's signet at least this often; in between, a DX
    /// host's word (`VRFY`) that the known one is current will do. 0: fetch it
    /// at every visit.
    pub full_check_hours: u64,
    /// Look at unknown names that somebody looks up, over HTTP or DMTP.
    pub on_demand: bool,
    /// After a random time up to this, so that a new label does not tell who
    /// asked for it.
    pub on_demand_delay_secs: u64,
    /// Log entries of one name on one day; an alarm above gets one an hour. At
    /// least 1.
    pub entries_per_day: u32,
    /// New mailboxes of one domain, and new subdomains of one registered
    /// domain, on one day.
    pub new_labels_per_day: u32,
    /// Mailboxes of one domain in the log, at most. At least 1.
    pub mailboxes_per_domain: u64,
    /// What is logged of one registered domain on one day, with the names below it:
    /// signets, records and DNSSEC chains, MiB. Alarms may use as much again, and are
    /// told in few bytes after that. At least 1.
    pub domain_mib_per_day: u64,
    /// Networks (CIDR) that may be connected to although they are private.
    pub allow_networks: Vec<String>,
    /// Port of DX hosts.
    pub dx_port: u16,
    /// Ports of MX hosts, with STARTTLS, where `dx_port` is not answered.
    pub dual_ports: Vec<u16>,
    /// Connections at once to one address of DX hosts, and new ones a second; to
    /// one IPv6 /64 at most 16 at once, or as many if those are more.
    pub host_connections: usize,
    pub host_per_second: u32,
    /// Memory for DMTP replies that are longer than 64 KiB, all together, MiB. Replies
    /// without room wait and are asked for again later. At least 32.
    pub reply_memory_mib: usize,
    /// PEM file of CAs for DX certificates; none: the public web's.
    pub roots: Option<PathBuf>,
    /// Hours within which the other vantages look at every domain, each time with
    /// 32 more of its mailboxes; 0: only at what changed.
    pub compare_hours: u64,
    /// Places to look from. Visits are made from the first one; the others look
    /// at what changed, and at everything in turn. None: one place, `[dns]`.
    pub vantage: Vec<VantageSection>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VantageSection {
    /// A word: lower-case letters, digits and `-`.
    pub name: String,
    /// Name servers as `ip:port`; none: those of `[dns]`.
    #[serde(default)]
    pub servers: Vec<String>,
    /// `socks5://ip:port`: DX hosts are reached through it. DNS is not.
    #[serde(default)]
    pub proxy: Option<String>,
    /// File with `user:password` for the proxy.
    #[serde(default)]
    pub proxy_login: Option<PathBuf>,
    /// The proxy reaches onion hosts.
    #[serde(default)]
    pub onion: bool,
}

impl Default for LogSection {
    fn default() -> LogSection {
        LogSection { origin: None, batch_secs: BATCH_SECS, heartbeat_secs: HEARTBEAT_SECS }
    }
}

impl Default for HttpSection {
    fn default() -> HttpSection {
        HttpSection { listen: HTTP_LISTEN.into(), public_url: None, proxies: Vec::new() }
    }
}

impl Default for DmtpSection {
    fn default() -> DmtpSection {
        DmtpSection {
            listen: DMTP_LISTEN.into(),
            host: "localhost.localdomain".into(),
            certificate: None,
            key: None,
        }
    }
}

impl Default for CrawlSection {
    fn default() -> CrawlSection {
        CrawlSection {
            names: Vec::new(),
            names_file: None,
            interval_secs: INTERVAL_SECS,
            concurrency: CONCURRENCY,
            hold_hours: HOLD_HOURS,
            full_check_hours: FULL_CHECK_HOURS,
            on_demand: true,
            on_demand_delay_secs: ASK_DELAY / 1000,
            entries_per_day: quota::ENTRIES,
            new_labels_per_day: quota::NEW_LABELS,
            mailboxes_per_domain: quota::MAILBOXES,
            domain_mib_per_day: quota::BYTES >> 20,
            allow_networks: Vec::new(),
            dx_port: DX_PORT,
            dual_ports: DUAL_PORTS.to_vec(),
            host_connections: hosts::Limits::default().connections,
            host_per_second: hosts::Limits::default().per_second,
            reply_memory_mib: budget::BYTES >> 20,
            roots: None,
            compare_hours: COMPARE_EVERY / 3_600_000,
            vantage: Vec::new(),
        }
    }
}

impl Default for PeersSection {
    fn default() -> PeersSection {
        PeersSection {
            publish_quorum: 0,
            quorum_deadline_millis: QUORUM_DEADLINE_MILLIS,
            entries_per_day: PEER_ENTRIES_PER_DAY,
            domains_per_day: PEER_DOMAINS_PER_DAY,
            looks_per_hour: PEER_LOOKS_PER_HOUR,
            recheck_secs: RECHECK / 1000,
            withheld_hours: WITHHELD / 3_600_000,
            policy: None,
            map: MapPlace::default(),
            mirror: Vec::new(),
            witness: Vec::new(),
        }
    }
}

/// The other mirrors and the public witnesses, checked.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    pub publish_quorum: usize,
    pub quorum_deadline_millis: u64,
    pub entries_per_day: u64,
    pub domains_per_day: u64,
    pub looks_per_hour: u32,
    pub pace: Pace,
    pub map: MapPlace,
    pub mirrors: Vec<PeerMirror>,
    pub witnesses: Vec<PublicWitness>,
}

#[derive(Clone, Debug)]
pub struct PeerMirror {
    pub url: String,
    /// Its name is the origin.
    pub log: VerifierKey,
    pub cosigner: Option<VerifierKey>,
    pub peer_key: Option<VerifierKey>,
    pub share_addresses: bool,
    /// Only the policy file names it.
    pub by_policy: bool,
}

#[derive(Clone, Debug)]
pub struct PublicWitness {
    pub url: String,
    pub key: VerifierKey,
    /// Requests a day, not 0.
    pub qpd: u32,
}

impl PeersSection {
    /// `origin` of our own log, if the file names it.
    fn check(&self, origin: Option<&str>) -> Result<Peers, Error> {
        let mut peers = Peers {
            publish_quorum: self.publish_quorum,
            quorum_deadline_millis: self.quorum_deadline_millis,
            entries_per_day: self.entries_per_day,
            domains_per_day: self.domains_per_day,
            looks_per_hour: self.looks_per_hour,
            pace: Pace {
                recheck: self.recheck_secs.saturating_mul(1000),
                withheld: self.withheld_hours.saturating_mul(3_600_000),
            },
            map: self.map,
            mirrors: Vec::new(),
            witnesses: Vec::new(),
        };
        if self.recheck_secs == 0 || self.withheld_hours == 0 {
            return Err(value("peers", "recheck_secs and withheld_hours are at least 1"));
        }
        for mirror in &self.mirror {
            let of = |key, text: &Option<String>, kind| {
                text.as_ref().map(|text| verifier(key, text, kind)).transpose()
            };
            peers.mirrors.push(PeerMirror {
                url: web("peers.mirror.url", &mirror.url)?,
                log: verifier("peers.mirror.log", &mirror.log, KeyType::Ed25519)?,
                cosigner: of("peers.mirror.cosigner", &mirror.cosigner, KeyType::Cosignature)?,
                peer_key: of("peers.mirror.peer_key", &mirror.peer_key, KeyType::Ed25519)?,
                share_addresses: mirror.share_addresses,
                by_policy: false,
            });
        }
        for witness in &self.witness {
            if witness.qpd == 0 {
                return Err(value("peers.witness.qpd", "at least 1"));
            }
            peers.witnesses.push(PublicWitness {
                url: web("peers.witness.url", &witness.url)?,
                key: verifier("peers.witness.key", &witness.key, KeyType::Cosignature)?,
                qpd: witness.qpd,
            });
        }
        if let Some(path) = &self.policy {
            peers.add_policy(read_limited(path)?.as_bytes())?;
        }
        if let Some(origin) = origin {
            peers.leave_out(origin);
        }
        peers.check()?;
        Ok(peers)
    }
}

impl Peers {
    fn add_policy(&mut self, file: &[u8]) -> Result<(), Error> {
        let policy = Policy::parse(file)
            .map_err(|rejection| value("peers.policy", rejection.to_string()))?;
        for log in policy.logs() {
            let Some(url) = &log.url else { continue };
            let url = web("peers.policy", url)?;
            match self.mirrors.iter().find(|mirror| mirror.log.name() == log.key.name()) {
                Some(mirror) if mirror.log == log.key => {}
                Some(mirror) => {
                    let origin = mirror.log.name();
                    let message = format!("{origin} has two keys here, or another in peers.mirror");
                    return Err(value("peers.policy", message));
                }
                None => self.mirrors.push(PeerMirror {
                    url,
                    log: log.key.clone(),
                    cosigner: None,
                    peer_key: None,
                    share_addresses: false,
                    by_policy: true,
                }),
            }
        }
        let is_cosigner = |witness: &&Witness| witness.key.kind() == KeyType::Cosignature;
        for witness in policy.witnesses().iter().filter(is_cosigner) {
            let url = witness.url.as_ref().map(|url| web("peers.policy", url)).transpose()?;
            let mirror = self.mirror_of(&policy, witness, url.as_deref());
            if let Some(mirror) = mirror.and_then(|number| self.mirrors.get_mut(number)) {
                mirror.cosigner.get_or_insert_with(|| witness.key.clone());
            } else if let Some(url) = url
                && self.witnesses.iter().all(|other| other.key != witness.key)
            {
                let key = witness.key.clone();
                self.witnesses.push(PublicWitness { url, key, qpd: WITNESS_QPD });
            }
        }
        Ok(())
    }

    /// The number of the mirror whose cosigner a witness of the policy is: the one
    /// at its URL; if it has none, the one of its operator, and of several of them
    /// the one whose origin the key's name begins with.
    fn mirror_of(&self, policy: &Policy, witness: &Witness, url: Option<&str>) -> Option<usize> {
        let logs = policy.logs().iter().filter(|log| policy.runs(log, witness));
        let origins: Vec<&str> = logs.map(|log| log.key.name()).collect();
        let named = |origin: &str| {
            let rest = witness.key.name().strip_prefix(origin);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let is_its = |mirror: &PeerMirror| {
            let origin = mirror.log.name();
            let at = policy.log(origin).and_then(|log| log.url.as_deref());
            let same_place = url.is_some_and(|url| {
                mirror.url == url || at.is_some_and(|at| at.trim_end_matches('/') == url)
            });
            let its_operators = origins.contains(&origin) && (origins.len() == 1 || named(origin));
            same_place || (url.is_none() && its_operators)
        };
        self.mirrors.iter().position(is_its)
    }

    /// Takes our own log out of what the policy names.
    fn leave_out(&mut self, origin: &str) {
        self.mirrors.retain(|mirror| !(mirror.by_policy && mirror.log.name() == origin));
    }

    /// As the mirror with this log and cosigner sees them: without itself, where the
    /// policy names it.
    ///
    /// # Errors
    /// A quorum that the others can never meet.
    pub fn of(&self, origin: &str, cosigner: &VerifierKey) -> Result<Peers, Error> {
        let mut peers = self.clone();
        peers.leave_out(origin);
        peers.witnesses.retain(|witness| witness.key != *cosigner);
        peers.check()?;
        Ok(peers)
    }

    fn check(&self) -> Result<(), Error> {
        if self.mirrors.len() > MAX_PEERS || self.witnesses.len() > MAX_PEERS {
            return Err(value("peers", format!("at most {MAX_PEERS} mirrors, and of witnesses")));
        }
        let mut origins: Vec<&str> = self.mirrors.iter().map(|peer| peer.log.name()).collect();
        origins.sort_unstable();
        if origins.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(value("peers.mirror.log", "two mirrors with one origin"));
        }
        let cosigners = self.mirrors.iter().filter_map(|peer| peer.cosigner.as_ref());
        let witnesses = self.witnesses.iter().map(|witness| &witness.key);
        let mut keys: Vec<&[u8]> =
            cosigners.chain(witnesses).map(|key| key.public_bytes()).collect();
        let count = self.mirrors.iter().filter(|peer| peer.cosigner.is_some()).count();
        if self.publish_quorum > count {
            let message = format!("{count} mirrors with a cosigner can never be that many");
            return Err(value("peers.publish_quorum", message));
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(value("peers", "two cosigners with one key"));
        }
        Ok(())
    }
}

/// The file, checked: every address parsed, every name normalized.
#[derive(Clone, Debug)]
pub struct Config {
    pub data: PathBuf,
    pub origin: Option<String>,
    pub batch_millis: u64,
    pub heartbeat_millis: u64,
    /// The operator's word, for this start, that the clock is right although
    /// the last root is more than an hour old. Not in the file: it is said once.
    pub accept_clock: bool,
    pub http: SocketAddr,
    pub public_url: Option<String>,
    pub proxies: Vec<IpAddr>,
    pub dmtp: SocketAddr,
    pub dmtp_host: String,
    /// Certificate and key of the DMTP face, PEM files.
    pub dmtp_pem: Option<(PathBuf, PathBuf)>,
    /// Empty: the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Empty: there is no second path.
    pub second_name_servers: Vec<SocketAddr>,
    pub trust_anchor: Option<PathBuf>,
    pub names: Vec<Name>,
    pub interval_millis: u64,
    pub concurrency: usize,
    pub hold_millis: u64,
    pub full_check_millis: u64,
    pub on_demand: bool,
    pub on_demand_delay_millis: u64,
    pub quotas: quota::Limits,
    pub allow_networks: Vec<Network>,
    pub dx_port: u16,
    pub dual_ports: Vec<u16>,
    pub hosts: hosts::Limits,
    pub reply_memory_bytes: usize,
    pub roots: Option<PathBuf>,
    pub compare_millis: u64,
    /// The first is where visits are made from.
    pub vantages: Vec<VantagePoint>,
    pub peers: Peers,
}

/// A place to look from, checked.
#[derive(Clone, Debug)]
pub struct VantagePoint {
    pub name: String,
    /// Empty: those of the mirror.
    pub name_servers: Vec<SocketAddr>,
    /// Without its login.
    pub proxy: Option<Proxy>,
    pub proxy_login: Option<PathBuf>,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is larger than {MAX_FILE} bytes")]
    Size { path: PathBuf },
    #[error("{path} is not a configuration: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("{key}: {message}")]
    Value { key: &'static str, message: String },
}

impl File {
    pub fn read(path: &Path) -> Result<File, Error> {
        let text = read_limited(path)?;
        File::parse(&text).map_err(|message| Error::Syntax { path: path.to_owned(), message })
    }

    /// The message of a failure names line and column.
    pub fn parse(text: &str) -> Result<File, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The effective file, defaults filled in.
    pub fn print(&self) -> String {
        toml::to_string_pretty(self).expect("sections of plain values are TOML")
    }

    /// Checks every value. Paths are taken as they are, relative to where the
    /// process runs.
    pub fn check(&self) -> Result<Config, Error> {
        let dmtp_pem = match (&self.dmtp.certificate, &self.dmtp.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(value("dmtp", "certificate and key go together")),
        };
        let mut names = Vec::new();
        for text in &self.crawl.names {
            names.push(name("crawl.names", text)?);
        }
        if let Some(path) = &self.crawl.names_file {
            for line in read_limited(path)?.lines() {
                let line = line.split('#').next().unwrap_or_default().trim();
                if !line.is_empty() {
                    names.push(name("crawl.names_file", line)?);
                }
            }
        }
        if self.crawl.concurrency == 0 {
            return Err(value("crawl.concurrency", "at least 1"));
        }
        if self.crawl.host_connections == 0 || self.crawl.host_per_second == 0 {
            return Err(value("crawl", "host_connections and host_per_second are at least 1"));
        }
        if self.crawl.reply_memory_mib < 32 {
            return Err(value("crawl.reply_memory_mib", "at least 32"));
        }
        if self.crawl.entries_per_day == 0 {
            return Err(value("crawl.entries_per_day", "at least 1"));
        }
        if self.crawl.mailboxes_per_domain == 0 || self.crawl.domain_mib_per_day == 0 {
            let what = "mailboxes_per_domain and domain_mib_per_day are at least 1";
            return Err(value("crawl", what));
        }
        if self.log.batch_secs == 0 || self.log.heartbeat_secs < self.log.batch_secs {
            return Err(value("log", "1 <= batch_secs <= heartbeat_secs"));
        }
        if let Some(origin) = &self.log.origin {
            check_origin(origin)?;
        }
        Ok(Config {
            data: self.data.clone().unwrap_or_else(|| "syndicate-data".into()),
            origin: self.log.origin.clone(),
            batch_millis: self.log.batch_secs.saturating_mul(1000),
            heartbeat_millis: self.log.heartbeat_secs.saturating_mul(1000),
            accept_clock: false,
            http: address("http.listen", &self.http.listen)?,
            public_url: self.http.public_url.clone(),
            proxies: self.http.proxies.clone(),
            dmtp: address("dmtp.listen", &self.dmtp.listen)?,
            dmtp_host: self.dmtp.host.clone(),
            dmtp_pem,
            name_servers: addresses("dns.servers", &self.dns.servers)?,
            second_name_servers: addresses("dns.second_servers", &self.dns.second_servers)?,
            trust_anchor: self.dns.trust_anchor.clone(),
            names,
            interval_millis: self.crawl.interval_secs.saturating_mul(1000),
            concurrency: self.crawl.concurrency,
            hold_millis: self.crawl.hold_hours.saturating_mul(3_600_000),
            full_check_millis: self.crawl.full_check_hours.saturating_mul(3_600_000),
            on_demand: self.crawl.on_demand,
            on_demand_delay_millis: self.crawl.on_demand_delay_secs.saturating_mul(1000),
            quotas: quota::Limits {
                entries: self.crawl.entries_per_day,
                new_labels: self.crawl.new_labels_per_day,
                mailboxes: self.crawl.mailboxes_per_domain,
                bytes: self.crawl.domain_mib_per_day.saturating_mul(1 << 20),
            },
            allow_networks: self
                .crawl
                .allow_networks
                .iter()
                .map(|text| network("crawl.allow_networks", text))
                .collect::<Result<_, _>>()?,
            dx_port: self.crawl.dx_port,
            dual_ports: self.crawl.dual_ports.clone(),
            hosts: hosts::Limits {
                connections: self.crawl.host_connections,
                per_second: self.crawl.host_per_second,
                ..hosts::Limits::default()
            },
            reply_memory_bytes: self.crawl.reply_memory_mib.saturating_mul(1 << 20),
            roots: self.crawl.roots.clone(),
            compare_millis: self.crawl.compare_hours.saturating_mul(3_600_000),
            vantages: vantages(&self.crawl.vantage)?,
            peers: self.peers.check(self.log.origin.as_deref())?,
        })
    }
}

fn read_limited(path: &Path) -> Result<String, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(Error::Size { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(read)
}

fn value(key: &'static str, message: impl Into<String>) -> Error {
    Error::Value { key, message: message.into() }
}

fn name(key: &'static str, text: &str) -> Result<Name, Error> {
    text.parse().map_err(|rejection| value(key, format!("{rejection}")))
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, Error> {
    text.parse().map_err(|_| value(key, format!("{text:?} is not an IP address and port")))
}

fn addresses(key: &'static str, texts: &[String]) -> Result<Vec<SocketAddr>, Error> {
    texts.iter().map(|text| address(key, text)).collect()
}

fn verifier(key: &'static str, text: &str, kind: KeyType) -> Result<VerifierKey, Error> {
    let read: VerifierKey = text.parse().map_err(|rejection| value(key, format!("{rejection}")))?;
    match read.kind() == kind {
        true => Ok(read),
        false => Err(value(key, "a key for something else; see `syndicate mirror`'s first lines")),
    }
}

/// A URL without its last slash, so that equal places are equal.
fn web(key: &'static str, text: &str) -> Result<String, Error> {
    match text.starts_with("https://") || text.starts_with("http://") {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(value(key, format!("{text:?} begins with neither https:// nor http://"))),
    }
}

fn vantages(sections: &[VantageSection]) -> Result<Vec<VantagePoint>, Error> {
    const KEY: &str = "crawl.vantage";
    if sections.len() > VANTAGES + 1 {
        return Err(value(KEY, format!("at most {}", VANTAGES + 1)));
    }
    let mut points: Vec<VantagePoint> = Vec::new();
    for section in sections {
        let VantageSection { name, servers, proxy, proxy_login, onion } = section;
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(legal) {
            return Err(value(KEY, format!("{name:?} is not a short word in lower case")));
        }
        if points.iter().any(|other| other.name == *name) {
            return Err(value(KEY, format!("{name:?} is there twice")));
        }
        let proxy: Option<Proxy> = match proxy {
            Some(text) => Some(text.parse().map_err(|no| value(KEY, format!("{text:?}: {no}")))?),
            None if *onion || proxy_login.is_some() => {
                return Err(value(KEY, "onion and proxy_login go with a proxy"));
            }
            None => None,
        };
        points.push(VantagePoint {
            name: name.clone(),
            name_servers: addresses(KEY, servers)?,
            proxy: proxy.map(|proxy| if *onion { proxy.for_onions() } else { proxy }),
            proxy_login: proxy_login.clone(),
        });
    }
    Ok(points)
}

fn network(key: &'static str, text: &str) -> Result<Network, Error> {
    text.parse().map_err(|error| value(key, format!("{text:?}: {error}")))
}

/// The rule of the genesis entry, and what a URL without scheme looks like.
fn check_origin(origin: &str) -> Result<(), Error> {
    if is_origin(origin) && !origin.contains("://") && !origin.ends_with('/') {
        Ok(())
    } else {
        Err(value("log.origin", "a URL without scheme, such as mirror.example/log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_reads() {
        let file = File::parse(
            "data = \"d\"\n[crawl]\nnames = [\"a.example\"]\n\
                               [[crawl.vantage]]\nname = \"tor\"\nonion = true\n\
                               proxy = \"socks5://127.0.0.1:9050\"\n",
        )
        .unwrap();
        assert_eq!(File::parse(&file.print()).unwrap(), file);
        assert_eq!(file.check().unwrap().names[0].as_str(), "a.example");
    }

    #[test]
    fn peers_come_from_sections_and_from_a_policy() {
        let log = |name: &str| VerifierKey::ed25519(name, &key(name)).unwrap();
        let cosigner = |name: &str| VerifierKey::cosigner(name, &key(name)).unwrap();
        fn key(name: &str) -> [u8; 32] {
            crate::dime::ed25519::public_key(&[name.len() as u8; 32])
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy");
        let policy = format!(
            "log {} https://bb.example/\nwitness b {} https://bb.example\n\
             witness w {} https://www.example\nquorum none\n",
            log("bb"),
            cosigner("bbb"),
            cosigner("wwww"),
        );
        std::fs::write(&path, policy).unwrap();
        let text = format!(
            "[peers]\npublish_quorum = 2\nmap = \"disk\"\npolicy = {:?}\n[[peers.mirror]]\n\
             url = \"http://127.0.0.1:1/\"\nlog = \"{}\"\ncosigner = \"{}\"\n",
            path.display().to_string(),
            log("aaaaa"),
            cosigner("aaaaaa"),
        );
        let file = File::parse(&text).unwrap();
        assert_eq!(File::parse(&file.print()).unwrap(), file);
        let peers = file.check().unwrap().peers;
        assert_eq!((peers.map, PeersSection::default().map), (MapPlace::Disk, MapPlace::Memory));
        let urls: Vec<&str> = peers.mirrors.iter().map(|peer| peer.url.as_str()).collect();
        assert_eq!(urls, ["http://127.0.0.1:1", "https://bb.example"]);
        assert!(peers.mirrors.iter().all(|peer| peer.cosigner.is_some()));
        assert_eq!(peers.witnesses[0].url, "https://www.example");
        // A log key is no cosigner.
        let swapped = text.replace(&cosigner("aaaaaa").to_string(), &log("aaaaa").to_string());
        assert!(File::parse(&swapped).unwrap().check().is_err());
    }

    /// Each mirror of a syndicate starts with the one file that names them all.
    #[test]
    fn a_syndicates_policy_serves_each_of_its_mirrors() {
        let seed = |byte: u8| crate::dime::ed25519::public_key(&[byte; 32]);
        let log = |name: &str, byte| VerifierKey::ed25519(name, &seed(byte)).unwrap();
        let cosigner = |byte| VerifierKey::cosigner("c.example/x", &seed(byte)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy");
        let mut policy = String::new();
        for (byte, name) in (1..).zip(["ada", "ben", "cleo"]) {
            let origin = format!("{name}.example");
            policy += &format!("log {} https://{origin}\n", log(&origin, byte));
            policy += &format!("witness {name} {}\n", cosigner(byte + 10));
            policy += &format!("#! operator {name} {origin} {name}\n");
        }
        // A place of its own is a witness of its own, whoever runs it.
        policy += &format!("witness w {} https://w.example\n#! operator ben w\n", cosigner(30));
        policy += "group replaying 2 ada ben cleo\nquorum replaying\n";
        std::fs::write(&path, &policy).unwrap();
        let peers = |more: &str| {
            let path = path.display().to_string();
            let text = format!("{more}\n[peers]\npublish_quorum = 2\npolicy = {path:?}\n");
            File::parse(&text).unwrap().check().map(|config| config.peers)
        };
        let of = |peers: &Peers| -> Vec<(String, bool, bool)> {
            let of = |peer: &PeerMirror| {
                let matched = peer.cosigner.is_some();
                (peer.log.name().to_owned(), matched, peer.peer_key.is_some())
            };
            peers.mirrors.iter().map(of).collect()
        };
        let others =
            |keyed| [("ben.example".into(), true, keyed), ("cleo.example".into(), true, false)];
        // By the configured origin, or by that of the keys.
        assert_eq!(of(&peers("[log]\norigin = \"ada.example\"").unwrap()), others(false));
        let all = peers("").unwrap();
        assert_eq!(all.mirrors.len(), 3);
        assert_eq!(of(&all.of("ada.example", &cosigner(11)).unwrap()), others(false));
        // Two others cannot be three.
        let three = Peers { publish_quorum: 3, ..all };
        assert!(three.of("ada.example", &cosigner(11)).is_err());

        // A section adds what a policy cannot say, and wins.
        let section = |key: &VerifierKey| {
            format!(
                "[[peers.mirror]]\nurl = \"http://127.0.0.1:1\"\nlog = \"{key}\"\n\
                 peer_key = \"{}\"\nshare_addresses = true\n",
                log("ben.example/peer", 22),
            )
        };
        let merged = |key: &VerifierKey| {
            let path = path.display().to_string();
            let text = format!("[peers]\npolicy = {path:?}\n[log]\norigin = \"ada.example\"\n");
            File::parse(&(text + &section(key))).unwrap().check().map(|config| config.peers)
        };
        let peers = merged(&log("ben.example", 2)).unwrap();
        assert_eq!(of(&peers), others(true));
        assert!(peers.mirrors[0].share_addresses && peers.mirrors[0].url == "http://127.0.0.1:1");
        let witnesses: Vec<&str> = peers.witnesses.iter().map(|it| it.url.as_str()).collect();
        assert_eq!(witnesses, ["https://w.example"]);
        assert!(merged(&log("ben.example", 9)).is_err(), "one origin, two keys");
        // Who names itself as a peer is told so.
        let own = merged(&log("ada.example", 1)).unwrap();
        assert!(own.mirrors.iter().any(|peer| peer.log.name() == "ada.example"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(File::parse("[crawl]\nnmaes = []\n").unwrap_err().contains("nmaes"));
        assert!(File::parse("[peers]\nmap = \"tape\"\n").unwrap_err().contains("tape"));
        for bad in [
            "[http]\nlisten = \"localhost\"\n",
            "[crawl]\nnames = [\"no dots\"]\n",
            "[crawl]\nallow_networks = [\"10.0.0\"]\n",
            "[crawl]\nallow_networks = [\"10.0.0.0/33\"]\n",
            "[dmtp]\nkey = \"k\"\n",
            "[crawl]\nentries_per_day = 0\n",
            "[crawl]\nmailboxes_per_domain = 0\n",
            "[crawl]\ndomain_mib_per_day = 0\n",
            "[crawl]\nhost_connections = 0\n",
            "[crawl]\nreply_memory_mib = 31\n",
            "[[crawl.vantage]]\nname = \"Far Away\"\n",
            "[[crawl.vantage]]\nname = \"a\"\n[[crawl.vantage]]\nname = \"a\"\n",
            "[[crawl.vantage]]\nname = \"a\"\nproxy = \"http://127.0.0.1:1\"\n",
            "[[crawl.vantage]]\nname = \"a\"\nonion = true\n",
            "[dns]\nsecond_servers = [\"192.0.2.1\"]\n",
            "[log]\norigin = \"https://x.example\"\n",
            "[log]\nbatch_secs = 0\n",
            "[peers]\npublish_quorum = 1\n",
            "[peers]\nrecheck_secs = 0\n",
            "[[peers.witness]]\nurl = \"w.example\"\nkey = \"x\"\n",
            "[[peers.mirror]]\nurl = \"https://a.example\"\nlog = \"a+00000000+AQ==\"\n",
        ] {
            assert!(File::parse(bad).unwrap().check().is_err(), "{bad}");
        }
    }
}
