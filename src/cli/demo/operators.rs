//! The three mirrors of the demo: one operator each, one view of DNS each.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use syndicate::clock::Clock;
use syndicate::config::{Config, File, PeerSection};
use syndicate::daemon::{Folder, Mirror, Secrets};
use syndicate::demo::world::{Vantage, World};
use syndicate::dime::Name;
use syndicate::proof::checkpoint::SignedCheckpoint;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use super::{GLANCE, PATIENCE, Teller, expect_good};

/// Who runs a mirror, and where from.
pub struct Operator {
    pub name: &'static str,
    pub vantage: Vantage,
    pub config: Config,
    secrets: Secrets,
    /// Keeps the port from others, also while the mirror does not listen there.
    _place: TcpSocket,
    running: Option<Mirror>,
}

/// Three of them, who know each other's keys and addresses.
pub async fn operators(world: &World, folder: &Path) -> anyhow::Result<Vec<Operator>> {
    let (anchor, roots) = (folder.join("root.key"), folder.join("ca.pem"));
    std::fs::write(&anchor, world.dns().trust_anchor_text())?;
    std::fs::write(&roots, world.authority_pem())?;
    let mut places = Vec::new();
    for name in ["ada", "ben", "cleo"] {
        let data = Folder::new(folder.join(name));
        data.make()?;
        let secrets = Secrets::load_or_make(&data.keys(), Some(&format!("{name}.mirror.example")))?;
        // The mirror may listen where this socket, which does not, is bound too.
        let place = TcpSocket::new_v4()?;
        place.set_reuseaddr(true)?;
        place.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        places.push((name, data, secrets, place));
    }
    let peers: Vec<PeerSection> = places
        .iter()
        .map(|(_, _, secrets, place)| {
            Ok(PeerSection {
                url: format!("http://{}", place.local_addr()?),
                log: secrets.verifier().to_string(),
                cosigner: Some(secrets.cosigner.verifier().to_string()),
                peer_key: Some(secrets.peer.verifier().to_string()),
                share_addresses: true,
            })
        })
        .collect::<std::io::Result<_>>()?;
    let mut operators = Vec::new();
    for (number, (name, data, secrets, place)) in places.into_iter().enumerate() {
        let vantage = world.vantage().await?;
        let mut file = File { data: Some(data.path().to_owned()), ..File::default() };
        file.http.listen = place.local_addr()?.to_string();
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
        let (_place, running) = (place, None);
        operators.push(Operator { name, vantage, config, secrets, _place, running });
    }
    Ok(operators)
}

/// The policy file of a client who believes each log as far as the operators of
/// the other two have replayed and cosigned it.
pub fn policy(operators: &[Operator], folder: &Path) -> anyhow::Result<PathBuf> {
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
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.running = Some(Mirror::start(&self.config, Clock::system()).await?);
        Ok(())
    }

    pub async fn stop(&mut self) {
        if let Some(mirror) = self.running.take() {
            mirror.stop().await;
        }
    }

    /// Runs until told to stop, or until a room of the mirror ends.
    pub async fn run(&mut self, stop: CancellationToken) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mirror) => mirror.run(stop).await.with_context(|| format!("{} ended", self.name)),
            None => Ok(()),
        }
    }

    pub fn mirror(&self) -> anyhow::Result<&Mirror> {
        self.running.as_ref().context("the mirror is switched off")
    }

    pub(super) fn introduce(&self, teller: Teller) {
        let Some(mirror) = &self.running else { return };
        teller.tell(
            "mirror",
            &format!(
                "{:<8} http://{}  dmtp {}  log {}",
                self.name,
                mirror.http,
                mirror.dmtp,
                mirror.key.name()
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

    /// Visits everything once, and says nothing unless it goes wrong.
    pub async fn crawl(&self, world: &World) -> anyhow::Result<()> {
        let crawl = &self.mirror()?.crawl;
        for address in world.addresses() {
            crawl.watch(Name::Address(address), "demo").await?;
        }
        let domains = world.domains().into_iter().map(Name::Domain);
        let visits = domains.map(|domain| crawl.visit(domain, "demo"));
        for report in futures::future::try_join_all(visits).await? {
            expect_good(&report).with_context(|| format!("by {}", self.name))?;
        }
        Ok(())
    }

    /// Entries that are published.
    pub fn head(&self) -> Option<u64> {
        Some(self.running.as_ref()?.log.heads().published?.size)
    }

    /// Waits until everything committed is published with both cosignatures.
    pub async fn until_cosigned(&self) -> anyhow::Result<()> {
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
