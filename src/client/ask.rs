//! What places say of a name: receipts over HTTP, words over DMTP.
//!
//! A place is where to fetch from, never whom to believe (threat 3). A receipt
//! counts if the policy names its log, the whole of it verifies, and the log
//! continues what it has shown this client before; whatever else is said is a
//! claim, shown and not counted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::Policy;
use super::fetch::{self, Ask, Mirror};
use super::follow::{Fork, LogSource};
use super::http::Site;
use super::judge::{DnsRoot, Judgement, judge};
use super::memory::{Continuity, Memory, MemoryError};
use super::view::Eyes;
use crate::dime::record::Host;
use crate::dime::reply::Currency;
use crate::dime::signet::{Level, Signet};
use crate::dime::{Name, certificate};
use crate::dmtp::client::{self as dmtp_client, Entrance, Target};
use crate::errors::with_sources;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::note::VerifierKey;
use crate::proof::receipt::{Backing, Fault, Receipt, Statement};

/// Addresses tried of a host that a record names.
const ADDRESSES: usize = 4;

/// Who named a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// As the URL of a log.
    Policy,
    /// Whoever asks.
    Caller,
    /// The domain's record, in `syn`: perhaps the forger.
    Record,
}

/// What a place said.
#[derive(Debug)]
pub enum Said {
    Proof(Box<Proof>),
    /// The log of this key signed two histories.
    Fork(VerifierKey, Box<Fork>),
    /// Something that counts for nothing, in words.
    Claim(String),
    /// A receipt that does not hold; why.
    Refused(String),
    /// A receipt of a log that is ahead of the clock here; how.
    Early(String),
    /// No answer; why.
    Silent(String),
}

/// A receipt that verified under the policy.
#[derive(Clone, Debug)]
pub struct Proof {
    pub receipt: Receipt,
    pub statement: Statement,
    pub backing: Backing,
    /// Which log of the policy it is of.
    pub log: usize,
    /// Its cosignatures, or its root, are of age.
    pub fresh: bool,
    /// The log has shown a larger state before.
    pub older: bool,
}

/// Asks for one client. Everything but the name.
pub(super) struct Asking<'a> {
    pub policy: Option<&'a Policy>,
    pub root: &'a DnsRoot,
    pub memory: Option<&'a Memory>,
    pub eyes: &'a Eyes,
    /// For each answer, all that it takes included.
    pub patience: Duration,
}

impl Asking<'_> {
    /// Asks a mirror. Only our own failure is an error.
    pub async fn mirror(
        &self,
        mirror: &Mirror,
        name: &Name,
        ask: Ask,
    ) -> Result<Said, MemoryError> {
        let asked = timeout(self.patience, mirror.ask(name, ask)).await;
        let receipt = match asked {
            Err(_) => return Ok(Said::Silent("no answer in time".to_owned())),
            Ok(Ok(receipt)) => receipt,
            Ok(Err(error)) => {
                let words = with_sources(&error);
                return Ok(match error {
                    fetch::Error::NoReceipt { .. }
                    | fetch::Error::OtherName { .. }
                    | fetch::Error::TooLarge { .. } => Said::Refused(words),
                    _ => Said::Silent(words),
                });
            }
        };
        let proof = match self.judge(receipt).await {
            Ok(proof) => proof,
            Err(said) => return Ok(said),
        };
        match timeout(self.patience, self.hold(mirror, proof)).await {
            Ok(held) => held,
            Err(_) => Ok(Said::Silent("it did not show in time that its log only grew".to_owned())),
        }
    }

    /// Verifying takes milliseconds, a long history more: beside other tasks.
    async fn judge(&self, receipt: Receipt) -> Result<Proof, Said> {
        let (policy, root) = (self.policy.cloned(), self.root.clone());
        let now = self.eyes.clock.now();
        let judged = tokio::task::spawn_blocking(move || {
            let judgement = judge(&receipt, policy.as_ref(), &root, now);
            let stranger = match &judgement {
                Judgement::Refused(Fault::Checkpoint(why)) if why.rule == "unknown-log" => {
                    judge(&receipt, None, &root, now).statement().cloned()
                }
                Judgement::SignerUnknown(statement) => Some(statement.clone()),
                _ => None,
            };
            (receipt, judgement, stranger)
        });
        let Ok((receipt, judgement, stranger)) = judged.await else {
            return Err(Said::Refused("checking its receipt failed here".to_owned()));
        };
        if let Some(statement) = stranger {
            let words = format!(
                "a receipt of the log {}, whom you have no reason to believe: {}",
                statement.origin, statement.word
            );
            return Err(Said::Claim(words));
        }
        let fresh = judgement.is_verified();
        match judgement {
            Judgement::Verified(statement, backing) | Judgement::Old(statement, backing) => {
                let log = self.log_of(&statement);
                let log = log.ok_or_else(|| Said::Refused("no log of the policy".to_owned()))?;
                Ok(Proof { receipt, statement, backing, log, fresh, older: false })
            }
            Judgement::SignerUnknown(_) => Err(Said::Claim("a receipt of nobody".to_owned())),
            Judgement::Refused(fault @ Fault::Future) => Err(Said::Early(fault.to_string())),
            Judgement::Refused(fault) => Err(Said::Refused(fault.to_string())),
        }
    }

    fn log_of(&self, statement: &Statement) -> Option<usize> {
        let logs = self.policy?.logs();
        logs.iter().position(|log| {
            log.key.name() == statement.origin && log.key.public_key() == Some(&statement.log_key)
        })
    }

    /// Holds a proof against what its log has shown before.
    async fn hold(&self, mirror: &Mirror, proof: Proof) -> Result<Said, MemoryError> {
        let (Some(memory), Some(policy)) = (self.memory, self.policy) else {
            return Ok(Said::Proof(Box::new(proof)));
        };
        let Some(log) = policy.logs().get(proof.log) else {
            return Ok(Said::Refused("no log of the policy".to_owned()));
        };
        let source = LogSource::at(mirror.site().clone(), log.key.clone());
        let signed = match SignedCheckpoint::parse(&proof.receipt.checkpoint) {
            Ok(signed) => signed,
            Err(refused) => return Ok(Said::Refused(refused.to_string())),
        };
        let Some(genesis) = proof.receipt.genesis.as_ref().map(|leaf| &leaf.entry) else {
            return Ok(Said::Refused("it leaves out the genesis entry".to_owned()));
        };
        Ok(match memory.hold(&source, &signed, genesis).await? {
            Continuity::First | Continuity::Same | Continuity::Grown => {
                Said::Proof(Box::new(proof))
            }
            Continuity::Older => Said::Proof(Box::new(Proof { older: true, ..proof })),
            Continuity::Fork(fork) => Said::Fork(log.key.clone(), fork),
            Continuity::Unproved(why) => {
                Said::Refused(format!("it does not show that its log only grew: {why}"))
            }
        })
    }

    /// Asks a host that the record names: for a receipt at `https://host/`,
    /// else for its word over DMTP. Only public addresses are connected to.
    pub async fn syn_host(
        &self,
        host: &Host,
        name: &Name,
        signet: Option<&Signet>,
    ) -> Result<(Said, Option<Mirror>), MemoryError> {
        let addresses = match self.addresses(host).await {
            Ok(addresses) => addresses,
            Err(words) => return Ok((Said::Silent(words), None)),
        };
        let https: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(*ip, 443)).collect();
        let roots = &self.eyes.dmtp.roots;
        let site = Site::pinned(&format!("https://{}/", host.name), &https, roots);
        if let Ok(site) = site {
            let mirror = Mirror::at(site);
            match self.mirror(&mirror, name, Ask::Lookup).await? {
                Said::Silent(_) => {}
                said => return Ok((said, Some(mirror))),
            }
        }
        let port = host.port.unwrap_or(crate::dmtp::PORT);
        let mut last = "it has no address".to_owned();
        for ip in addresses {
            let target = Target {
                host: &host.name,
                addr: SocketAddr::new(ip, port),
                entrance: Entrance::Tls,
            };
            match timeout(self.patience, self.claim(target, name, signet)).await {
                Ok(Ok(words)) => return Ok((Said::Claim(words), None)),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer in time".to_owned(),
            }
        }
        Ok((Said::Silent(last), None))
    }

    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let found = timeout(self.patience, self.eyes.resolver.addresses(&host.name)).await;
        let found = found.map_err(|_| "no answer in time".to_owned())?;
        let found = found.map_err(|error| error.to_string())?;
        let filter = &self.eyes.dmtp.filter;
        let public = found.records.into_iter().filter(|ip| filter.check(*ip).is_ok());
        let public: Vec<IpAddr> = public.take(ADDRESSES).collect();
        match public.is_empty() {
            true => Err("it has no public address".to_owned()),
            false => Ok(public),
        }
    }

    /// `VRFY` of the signet seen here, else whether it has one at all. Nothing
    /// proves what it says.
    async fn claim(
        &self,
        target: Target<'_>,
        name: &Name,
        signet: Option<&Signet>,
    ) -> Result<String, dmtp_client::Error> {
        let Eyes { dmtp, clock, .. } = self.eyes;
        let connected = dmtp_client::connect(target, dmtp, clock.now()).await?;
        certificate::decide(connected.facts(), None).map_err(dmtp_client::Error::Certificate)?;
        let mut session = connected.open().await?;
        let fingerprint = signet.and_then(|signet| signet.fingerprint(Level::Crypto));
        let words = match fingerprint {
            Some(fingerprint) => session.verify(name, &fingerprint).await.map(|word| match word {
                Currency::Current => "over DMTP: the key seen here is current",
                _ => "over DMTP: the key seen here is not current",
            }),
            None => session.signet(name, None).await.map(|_| "over DMTP: it has a key"),
        };
        let words = match words {
            Err(dmtp_client::Error::NotFound) => Ok("over DMTP: it does not know the name"),
            Err(dmtp_client::Error::Held { .. }) => Ok("over DMTP: the name is held"),
            words => words,
        };
        session.quit().await;
        words.map(str::to_owned)
    }
}

impl Said {
    pub fn proof(&self) -> Option<&Proof> {
        match self {
            Said::Proof(proof) => Some(proof),
            _ => None,
        }
    }
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NamedBy::Policy => "your policy",
            NamedBy::Caller => "you",
            NamedBy::Record => "the domain's record",
        })
    }
}
