//! The private DIME internet, running: a signed DNS, a dozen domains with their
//! DX hosts, and levers for everything that can happen to them.
//!
//! All DX hosts listen on one port, each on its own address in 127.0.0.0/8;
//! whoever visits them needs [`World::dmtp_port`] in place of 26, and
//! [`World::address_filter`]. Nothing is written to disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::dns::{self, Fault, PrivateDns};
use super::host::{self, Authority, Certificate, DxHost, Shelf};
use super::organization::{Habits, Organization};
use crate::dime::key::pok_to_armor;
use crate::dime::record::{Pok, Template};
use crate::dime::signet::{Dialect, Signet};
use crate::dime::{Address, Domain, Rejection};
use crate::dmtp::{AddressFilter, Roots};
use crate::resolver;

/// Domains that share one DX host among the further ones.
const FURTHER_PER_HOST: usize = 64;
/// Loopback addresses tried for one listener before giving up.
const TRIES: u32 = 1000;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port of all DX hosts; 0: any that is free.
    pub dmtp_port: u16,
    /// Time to live of DNS records, seconds.
    pub ttl: u32,
    /// Plain domains beside the dozen, with a mailbox each, on shared hosts.
    pub further: usize,
    /// One host gets an RSA key, as libdime needs. Takes seconds.
    pub rsa: bool,
    /// A /16 whose addresses are all this machine's own, for DNS and DX hosts
    /// that others reach over a network; `None`: loopback.
    pub network: Option<[u8; 2]>,
}

impl Default for Options {
    fn default() -> Options {
        Options { dmtp_port: 0, ttl: dns::DEFAULT_TTL, further: 0, rsa: false, network: None }
    }
}

/// Why the world did not start or take a change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dns(#[from] dns::Error),
    #[error(transparent)]
    Certificate(#[from] host::Error),
    #[error("making a signet: {0}")]
    Signet(#[from] Rejection),
    #[error("a listener of a DX host")]
    Listener(#[from] io::Error),
    #[error("there is no domain {0} in the private internet")]
    NoDomain(String),
    #[error("a task was lost")]
    Task,
}

/// The private internet. It ends when dropped.
pub struct World {
    authority: Arc<Authority>,
    dns: Arc<PrivateDns>,
    /// Every view of DNS, the first being the one above.
    views: Mutex<Vec<Arc<PrivateDns>>>,
    network: Mutex<Network>,
    estates: Mutex<BTreeMap<Domain, Estate>>,
    /// By host name.
    hosts: tokio::sync::Mutex<HashMap<String, DxHost>>,
}

/// Another place to look from: its own view of DNS, and of the domains that are
/// diverted there.
pub struct Vantage {
    dns: Arc<PrivateDns>,
    diverted: tokio::sync::Mutex<HashMap<Domain, Vec<DxHost>>>,
}

impl Vantage {
    pub fn dns(&self) -> &PrivateDns {
        &self.dns
    }

    pub fn resolver_options(&self) -> resolver::Options {
        self.dns.resolver_options()
    }
}

/// A domain as it stands in DNS and on its hosts.
struct Estate {
    organization: Organization,
    shelf: Shelf,
    /// Names under which the record is: `_dime`, `_dx` or both.
    labels: &'static [&'static str],
    /// The `dx` fields, in order.
    dx: Vec<String>,
    pin: Pin,
    /// Certificates of the hosts, DER.
    certificates: Vec<Vec<u8>>,
    /// Listed beside the POK in use.
    further_poks: Vec<Pok>,
    expiry_days: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pin {
    None,
    Signature,
    Sha256,
}

/// One member of the cast.
struct Part {
    domain: &'static str,
    signed: bool,
    habits: Habits,
    /// Mailboxes, and how often each has rotated its keys.
    mailboxes: &'static [(&'static str, usize)],
    labels: &'static [&'static str],
    certificate: Certificate,
    pin: Pin,
    /// A first `dx` host that does not answer.
    dead_host: bool,
    /// A second POK in the record, as during a rollover.
    second_pok: bool,
}

const BOTH: &[&str] = &["_dime", "_dx"];
const NEW: &[&str] = &["_dime"];
const OLD: &[&str] = &["_dx"];

/// The dozen. Between them they show every dialect, secondary keys, chains,
/// both record names, both kinds of pin, an unsigned zone and a rollover.
fn cast(rsa: bool) -> Vec<Part> {
    let plain = |domain, mailboxes| Part {
        domain,
        signed: true,
        habits: Habits::default(),
        mailboxes,
        labels: BOTH,
        certificate: Certificate::SelfSigned,
        pin: Pin::Signature,
        dead_host: false,
        second_pok: false,
    };
    let habits = |dialect, soks: &[u8]| Habits { dialect, soks: soks.to_vec(), named: true };
    let keys_only = Habits { named: false, ..Habits::default() };
    let first = if rsa { Certificate::Rsa } else { Certificate::SelfSigned };
    vec![
        Part { certificate: first, ..plain("alder.example", &[("alice", 0), ("bob", 1)]) },
        Part {
            habits: habits(Dialect::L, &[0x01]),
            ..plain("birch.example", &[("alice", 0), ("carol", 2)])
        },
        Part { habits: habits(Dialect::M, &[]), ..plain("cedar.example", &[("alice", 4)]) },
        Part { habits: habits(Dialect::P, &[]), ..plain("damson.example", &[("alice", 1)]) },
        Part {
            signed: false,
            certificate: Certificate::Certified,
            ..plain("elm.example", &[("alice", 0), ("dave", 1)])
        },
        Part { labels: OLD, ..plain("fir.example", &[("alice", 0)]) },
        Part { dead_host: true, labels: NEW, ..plain("gorse.example", &[("alice", 1)]) },
        Part { pin: Pin::Sha256, ..plain("hazel.example", &[("alice", 0), ("erin", 0)]) },
        Part { second_pok: true, ..plain("iris.example", &[("alice", 0)]) },
        Part {
            habits: habits(Dialect::M, &[0x02, 0x09, 0x04]),
            ..plain("juniper.test", &[("alice", 6), ("frank", 0)])
        },
        Part {
            certificate: Certificate::Certified,
            pin: Pin::None,
            ..plain("kelp.test", &[("alice", 0)])
        },
        Part { habits: keys_only, ..plain("post.larch.test", &[("alice", 1)]) },
    ]
}

impl World {
    pub async fn start(options: Options) -> Result<World, Error> {
        let mut network = Network::new(options.network, options.dmtp_port)?;
        let mut dns = PrivateDns::builder().ttl(options.ttl);
        if options.network.is_some() {
            dns = dns.listen(network.next().into());
        }
        let dns = Arc::new(dns.start().await?);
        let world = World {
            authority: Arc::new(Authority::new()?),
            views: Mutex::new(vec![dns.clone()]),
            dns,
            network: Mutex::new(network),
            estates: Mutex::default(),
            hosts: tokio::sync::Mutex::default(),
        };
        for part in cast(options.rsa) {
            world.settle(part).await?;
        }
        world.settle_further(options.further).await?;
        Ok(world)
    }

    /// All domains, in order.
    pub fn domains(&self) -> Vec<Domain> {
        self.estates().keys().cloned().collect()
    }

    /// All mailboxes, in order.
    pub fn addresses(&self) -> Vec<Address> {
        let estates = self.estates();
        let all = estates.values().flat_map(|estate| estate.organization.addresses());
        all.cloned().collect()
    }

    pub fn dns(&self) -> &PrivateDns {
        &self.dns
    }

    pub fn trust_anchor(&self) -> resolver::TrustAnchor {
        self.dns.trust_anchor()
    }

    pub fn name_servers(&self) -> resolver::NameServers {
        self.dns.name_servers()
    }

    pub fn resolver_options(&self) -> resolver::Options {
        self.dns.resolver_options()
    }

    /// The port of every DX host, in place of 26.
    pub fn dmtp_port(&self) -> u16 {
        self.network().port
    }

    /// Allows loopback, where everything is.
    pub fn address_filter(&self) -> AddressFilter {
        AddressFilter::with_loopback()
    }

    /// The private certificate authority and no other.
    pub fn roots(&self) -> Roots {
        Roots::from_pem(self.authority.pem().as_bytes()).unwrap_or_else(|_| Roots::none())
    }

    pub fn authority_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The POK in use.
    pub fn pok(&self, domain: &Domain) -> Result<Pok, Error> {
        self.estate(domain, |estate| Ok(estate.organization.pok()))
    }

    /// The newest org signet.
    pub fn org_signet(&self, domain: &Domain) -> Result<Signet, Error> {
        let missing = || Error::NoDomain(domain.to_string());
        self.estate(domain, |estate| {
            estate.organization.signets().last().cloned().ok_or_else(missing)
        })
    }

    /// What is served for a mailbox, oldest first.
    pub fn served(&self, address: &Address) -> Result<Vec<Signet>, Error> {
        self.estate(address.domain(), |estate| Ok(estate.organization.served(address).to_vec()))
    }

    /// The management record's text as it is or would be published.
    pub fn record_text(&self, domain: &Domain) -> Result<String, Error> {
        self.estate(domain, |estate| Ok(estate.record()))
    }

    /// The host names of a domain's DX, in the order of its record.
    pub fn dx_hosts(&self, domain: &Domain) -> Result<Vec<String>, Error> {
        self.estate(domain, |estate| Ok(estate.dx.clone()))
    }

    /// A new mailbox.
    pub fn enroll(&self, domain: &Domain, local: &str) -> Result<Address, Error> {
        self.change(domain, |organization| organization.enroll(local))
    }

    /// A new key with custody.
    pub fn rotate(&self, address: &Address) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.rotate(address))
    }

    /// A new key without custody, for everybody to see: the attack of the demo.
    pub fn swap_key(&self, address: &Address) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.swap_key(address))
    }

    /// A new key signed over by the key before the current one.
    pub fn fork(&self, address: &Address) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.fork(address))
    }

    /// Two new keys with custody, the first of which nobody is shown.
    pub fn skip(&self, address: &Address) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.skip(address))
    }

    /// The mailbox's first signet again.
    pub fn revert(&self, address: &Address) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.revert(address))
    }

    /// The same keys with another text.
    pub fn reissue(&self, address: &Address, motto: &str) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.reissue(address, motto))
    }

    /// Any signet as the mailbox's newest.
    pub fn serve(&self, address: &Address, signet: Signet) -> Result<Signet, Error> {
        self.change(address.domain(), |organization| organization.serve(address, signet))
    }

    /// The mailbox is no longer served.
    pub fn remove(&self, address: &Address) -> Result<(), Error> {
        self.change(address.domain(), |organization| {
            organization.remove(address);
            Ok(())
        })?;
        self.estate(address.domain(), |estate| {
            estate.shelf.put_user(address, &[]);
            Ok(())
        })
    }

    /// Another POK and everything signed anew. The record lists the former POK
    /// beside it if `overlap`, and only the new one if not.
    pub fn replace_pok(&self, domain: &Domain, overlap: bool) -> Result<(), Error> {
        self.change_estate(domain, |estate| {
            let former = estate.organization.pok();
            estate.organization.replace_pok()?;
            estate.further_poks = if overlap { vec![former] } else { vec![] };
            Ok(())
        })?;
        self.publish_record(domain)
    }

    /// The record lists the POK in use and no other: a rollover's end.
    pub fn retire_poks(&self, domain: &Domain) -> Result<(), Error> {
        self.estate(domain, |estate| {
            estate.further_poks.clear();
            Ok(())
        })?;
        self.publish_record(domain)
    }

    /// Another secondary key, in a new org signet.
    pub fn add_sok(&self, domain: &Domain, permissions: u8) -> Result<(), Error> {
        self.change(domain, |organization| organization.add_sok(permissions))
    }

    /// The private POK in armour, for `syndicate watch-request`.
    pub fn pok_armor(&self, domain: &Domain) -> Result<Zeroizing<String>, Error> {
        self.estate(domain, |estate| Ok(pok_to_armor(estate.organization.pok_key().seed())))
    }

    /// Whether the domain's zone is signed from now on, in every view.
    pub fn set_signed(&self, domain: &Domain, signed: bool) -> Result<(), Error> {
        for view in self.views() {
            view.set_signed(domain.as_str(), signed)?;
        }
        Ok(())
    }

    /// Takes the management record out of DNS, in every view.
    pub fn withdraw_record(&self, domain: &Domain) -> Result<(), Error> {
        self.set_record(domain, None)
    }

    /// Puts the management record back.
    pub fn publish_record(&self, domain: &Domain) -> Result<(), Error> {
        let text = self.record_text(domain)?;
        self.set_record(domain, Some(&text))
    }

    /// Puts any text where the management record is.
    pub fn publish_text(&self, domain: &Domain, text: &str) -> Result<(), Error> {
        self.set_record(domain, Some(text))
    }

    /// Lets the domain's zone misbehave, or behave again, in every view.
    pub fn set_dns_fault(&self, domain: &Domain, fault: Option<Fault>) -> Result<(), Error> {
        for view in self.views() {
            view.set_fault(domain.as_str(), fault)?;
        }
        Ok(())
    }

    /// The domain's DX hosts refuse connections.
    pub async fn stop_hosts(&self, domain: &Domain) -> Result<(), Error> {
        let names = self.dx_hosts(domain)?;
        let mut hosts = self.hosts.lock().await;
        for name in &names {
            if let Some(host) = hosts.get_mut(name) {
                host.stop().await;
            }
        }
        Ok(())
    }

    /// The domain's DX hosts serve again.
    pub async fn resume_hosts(&self, domain: &Domain) -> Result<(), Error> {
        let names = self.dx_hosts(domain)?;
        let mut hosts = self.hosts.lock().await;
        for name in &names {
            if let Some(host) = hosts.get_mut(name) {
                host.resume().await?;
            }
        }
        Ok(())
    }

    /// Another place to look from. It sees what this one sees, now and later,
    /// but for the domains that are shown differently there.
    pub async fn vantage(&self) -> Result<Vantage, Error> {
        let dns = Arc::new(self.dns.second_view().await?);
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(dns.clone());
        Ok(Vantage { dns, diverted: tokio::sync::Mutex::default() })
    }

    /// From now on the vantage reaches other hosts for this domain, under the
    /// same names and with the same certificates. Returns what they serve: a
    /// copy, that later changes of the domain do not reach.
    pub async fn divert(&self, vantage: &Vantage, domain: &Domain) -> Result<Shelf, Error> {
        let mut diverted = vantage.diverted.lock().await;
        if let Some(host) = diverted.get(domain).and_then(|hosts| hosts.first()) {
            return Ok(host.shelf().clone());
        }
        let names = self.dx_hosts(domain)?;
        let shelf = self.estate(domain, |estate| Ok(estate.shelf.copy()))?;
        let mut started = Vec::new();
        for name in &names {
            let originals = self.hosts.lock().await;
            let Some(original) = originals.get(name) else { continue };
            let listener = self.listener()?;
            let host = DxHost::start(name, listener, original.identity(), shelf.clone())?;
            vantage.dns.set_addresses(name, &[host.address().ip()])?;
            started.push(host);
        }
        diverted.insert(domain.clone(), started);
        Ok(shelf)
    }

    /// Shows a forged key for a mailbox to this vantage alone.
    pub async fn swap_key_for(
        &self,
        vantage: &Vantage,
        address: &Address,
    ) -> Result<Signet, Error> {
        let shelf = self.divert(vantage, address.domain()).await?;
        self.estate(address.domain(), |estate| {
            let forged = estate.organization.forge(address)?;
            let mut served = estate.organization.served(address).to_vec();
            served.push(forged.clone());
            shelf.put_user(address, &served);
            Ok(forged)
        })
    }

    /// Shows another POK for a domain to this vantage alone, signed in DNS like
    /// the true one, with org signet and mailboxes to match: what whoever has the
    /// zone's keys can do to a victim.
    pub async fn replace_pok_for(&self, vantage: &Vantage, domain: &Domain) -> Result<Pok, Error> {
        let shelf = self.divert(vantage, domain).await?;
        let (text, labels, forger) = self.estate(domain, |estate| {
            let mut forger = Organization::new(domain.clone(), Habits::default())?;
            for address in estate.organization.addresses() {
                forger.enroll(address.local())?;
            }
            let pins = estate.certificates.iter().map(|der| forger.pin(der)).collect();
            let template = Template {
                poks: vec![forger.pok()],
                tls: pins,
                dx: estate.dx.clone(),
                ..Template::default()
            };
            Ok((template.text(), estate.labels, forger))
        })?;
        shelf.put_org(domain, forger.signets());
        for address in forger.addresses() {
            shelf.put_user(address, forger.served(address));
        }
        for label in labels {
            vantage.dns.set_txt(&format!("{label}.{domain}"), &[&text])?;
        }
        Ok(forger.pok())
    }

    /// Makes a member of the cast: zone, host, keys, signets, record.
    async fn settle(&self, part: Part) -> Result<(), Error> {
        let domain: Domain = part.domain.parse()?;
        self.dns.add_zone(domain.as_str(), part.signed)?;
        let mut organization = Organization::new(domain.clone(), part.habits)?;
        for (local, rotations) in part.mailboxes {
            let address = organization.enroll(local)?;
            for _ in 0..*rotations {
                organization.rotate(&address)?;
            }
        }
        let shelf = Shelf::default();
        let mut dx = Vec::new();
        if part.dead_host {
            let name = format!("dx0.{domain}");
            let nobody = IpAddr::V4(self.network().next());
            self.dns.set_addresses(&name, &[nobody])?;
            dx.push(name);
        }
        let name = format!("dx.{domain}");
        let certificate = self.open_host(&name, part.certificate, shelf.clone()).await?;
        dx.push(name);
        let further_poks = match part.second_pok {
            true => vec![Organization::new(domain.clone(), Habits::default())?.pok()],
            false => vec![],
        };
        let estate = Estate {
            organization,
            shelf,
            labels: part.labels,
            dx,
            pin: part.pin,
            certificates: vec![certificate],
            further_poks,
            expiry_days: 7,
        };
        self.move_in(domain, estate)
    }

    /// Plain domains `d0.example`, `d1.example`, … on shared hosts.
    async fn settle_further(&self, number: usize) -> Result<(), Error> {
        let mut shared: Option<(String, Shelf, Vec<u8>)> = None;
        for index in 0..number {
            if index % FURTHER_PER_HOST == 0 {
                self.dns.add_zone("hosts.example", true)?;
                let name = format!("dx{}.hosts.example", index / FURTHER_PER_HOST);
                let shelf = Shelf::default();
                let kind = Certificate::SelfSigned;
                let certificate = self.open_host(&name, kind, shelf.clone()).await?;
                shared = Some((name, shelf, certificate));
            }
            let Some((name, shelf, certificate)) = shared.clone() else { continue };
            let domain: Domain = format!("d{index}.example").parse()?;
            self.dns.add_zone(domain.as_str(), true)?;
            let mut organization = Organization::new(domain.clone(), Habits::default())?;
            organization.enroll("alice")?;
            let estate = Estate {
                organization,
                shelf,
                labels: NEW,
                dx: vec![name],
                pin: Pin::Signature,
                certificates: vec![certificate],
                further_poks: vec![],
                expiry_days: 0,
            };
            self.move_in(domain, estate)?;
        }
        Ok(())
    }

    fn move_in(&self, domain: Domain, estate: Estate) -> Result<(), Error> {
        estate.publish_signets();
        self.estates().insert(domain.clone(), estate);
        self.publish_record(&domain)
    }

    /// Starts a host and puts its address into DNS. Returns its certificate.
    async fn open_host(
        &self,
        name: &str,
        kind: Certificate,
        shelf: Shelf,
    ) -> Result<Vec<u8>, Error> {
        let (authority, owned) = (self.authority.clone(), name.to_owned());
        let make = move || authority.identity(&owned, kind);
        let identity = tokio::task::spawn_blocking(make).await.map_err(|_| Error::Task)??;
        let host = DxHost::start(name, self.listener()?, identity, shelf)?;
        let certificate = host.certificate_der().to_vec();
        self.dns.set_addresses(name, &[host.address().ip()])?;
        self.hosts.lock().await.insert(name.to_owned(), host);
        Ok(certificate)
    }

    /// Changes an organization and serves what came out.
    fn change<T>(
        &self,
        domain: &Domain,
        change: impl FnOnce(&mut Organization) -> Result<T, Rejection>,
    ) -> Result<T, Error> {
        self.change_estate(domain, |estate| change(&mut estate.organization))
    }

    fn change_estate<T>(
        &self,
        domain: &Domain,
        change: impl FnOnce(&mut Estate) -> Result<T, Rejection>,
    ) -> Result<T, Error> {
        self.estate(domain, |estate| {
            let outcome = change(estate)?;
            estate.publish_signets();
            Ok(outcome)
        })
    }

    fn estate<T>(
        &self,
        domain: &Domain,
        look: impl FnOnce(&mut Estate) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut estates = self.estates();
        let missing = || Error::NoDomain(domain.to_string());
        look(estates.get_mut(domain).ok_or_else(missing)?)
    }

    fn set_record(&self, domain: &Domain, text: Option<&str>) -> Result<(), Error> {
        let labels = self.estate(domain, |estate| Ok(estate.labels))?;
        for view in self.views() {
            for label in labels {
                view.set_txt(&format!("{label}.{domain}"), text.as_slice())?;
            }
        }
        Ok(())
    }

    fn views(&self) -> Vec<Arc<PrivateDns>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn estates(&self) -> MutexGuard<'_, BTreeMap<Domain, Estate>> {
        self.estates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self) -> Result<TcpListener, Error> {
        let listener = self.network().listener()?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }
}

impl Estate {
    fn publish_signets(&self) {
        self.shelf.put_org(self.organization.domain(), self.organization.signets());
        for address in self.organization.addresses() {
            self.shelf.put_user(address, self.organization.served(address));
        }
    }

    fn record(&self) -> String {
        let pins = match self.pin {
            Pin::Signature => {
                self.certificates.iter().map(|der| self.organization.pin(der)).collect()
            }
            Pin::None | Pin::Sha256 => vec![],
        };
        let mut poks = vec![self.organization.pok()];
        poks.extend(&self.further_poks);
        let template = Template {
            poks,
            tls: pins,
            dx: self.dx.clone(),
            expiry_days: self.expiry_days,
            ..Template::default()
        };
        let mut text = template.text();
        if self.pin == Pin::Sha256 {
            for der in &self.certificates {
                let hash = STANDARD_NO_PAD.encode(Sha256::digest(der));
                text.push_str(&format!(" tls={hash}"));
            }
        }
        text
    }
}

/// Addresses for DX hosts: 127.n.*.* or another /16, with one port.
pub(super) struct Network {
    prefix: [u8; 2],
    port: u16,
    given: u32,
}

impl Network {
    /// Without a prefix a part of loopback picked at random, so that two worlds
    /// on one machine seldom meet.
    pub fn new(prefix: Option<[u8; 2]>, port: u16) -> Result<Network, Error> {
        let mut random = [0];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Network { prefix: prefix.unwrap_or([127, 2 + random[0] % 250]), port, given: 0 })
    }

    /// The port of every listener, once there was one.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn next(&mut self) -> Ipv4Addr {
        self.given += 1;
        let [.., third, fourth] = self.given.to_be_bytes();
        let [first, second] = self.prefix;
        Ipv4Addr::new(first, second, third, fourth)
    }

    /// A listener on the next address. The first one settles the port.
    pub fn listener(&mut self) -> io::Result<std::net::TcpListener> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            let address = SocketAddr::from((self.next(), self.port));
            match std::net::TcpListener::bind(address) {
                Ok(listener) => {
                    self.port = listener.local_addr()?.port();
                    return Ok(listener);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::dime::chain::{self, Link};
    use crate::dime::record::{self, Record, Selection};
    use crate::dime::{Dnssec, Name, org, user};
    use crate::dmtp::{self, Entrance, Session, Target};
    use crate::resolver::{HickoryResolver, Resolver};

    /// A visitor's view of one domain, from DNS to an open session.
    async fn visit(
        world: &World,
        resolver: &HickoryResolver,
        domain: &Domain,
    ) -> Result<(Record, Dnssec, Session), String> {
        let mut found = resolver.txt(&format!("_dime.{domain}")).await.map_err(text)?;
        if found.denial.is_some() {
            found = resolver.txt(&format!("_dx.{domain}")).await.map_err(text)?;
        }
        let Selection::One(record) = record::select(&found.records) else {
            return Err(format!("no record: {found:?}"));
        };
        let options = dmtp::Options {
            filter: world.address_filter(),
            roots: world.roots(),
            ..dmtp::Options::default()
        };
        let mut last = "no dx host".to_owned();
        for host in record.dx_hosts() {
            let address = resolver.addresses(&host.name).await.map_err(text)?.records[0];
            let addr = SocketAddr::new(address, world.dmtp_port());
            let target = Target { host: &host.name, addr, entrance: Entrance::Tls };
            let proof = Some((&record, found.dnssec));
            match dmtp::open(target, &options, Clock::system().now(), proof).await {
                Ok((session, _)) => return Ok((record, found.dnssec, session)),
                Err(error) => last = format!("{}: {error}", error.reason()),
            }
        }
        Err(last)
    }

    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }

    /// The mailbox's chain as a visitor sees it, validated, and what the last
    /// link is to the ones before it.
    async fn look(
        world: &World,
        resolver: &HickoryResolver,
        address: &Address,
    ) -> Result<(Vec<Signet>, Link), String> {
        let domain = address.domain();
        let (record, _, mut session) = visit(world, resolver, domain).await?;
        let bytes = session.signet(&Name::Domain(domain.clone()), None).await.map_err(text)?;
        let org = Signet::decode(&bytes).map_err(text)?;
        let org = org::validate(&org, &record.poks, Some(domain)).map_err(text)?;
        let name = Name::Address(address.clone());
        let current = session.signet(&name, None).await.map_err(text)?;
        let current = Signet::decode(&current).map_err(text)?;
        let valid = user::validate(&current, &org, Some(address)).map_err(text)?;
        let history = session.history(address, None, None).await.map_err(text)?;
        let history: Vec<Signet> =
            history.iter().map(|bytes| Signet::decode(bytes).unwrap()).collect();
        let known = history.split_last().map_or(&[][..], |(_, known)| known);
        let link = chain::link(known, &valid);
        Ok((history, link))
    }

    #[tokio::test]
    async fn every_mailbox_of_the_dozen_can_be_visited() {
        let world = World::start(Options::default()).await.unwrap();
        let resolver = HickoryResolver::new(world.resolver_options()).unwrap();
        assert_eq!(world.domains().len(), 12);
        for address in world.addresses() {
            let seen = look(&world, &resolver, &address).await;
            let (history, link) = seen.unwrap_or_else(|why| panic!("{}: {why}", address.domain()));
            let served = world.served(&address).unwrap();
            assert_eq!(history.len(), served.len());
            let expected = if served.len() > 1 { Link::Extend } else { Link::Anchor };
            assert_eq!(link, expected, "{}", address.domain());
        }
        let dialects: std::collections::BTreeSet<_> = world
            .domains()
            .iter()
            .map(|domain| world.org_signet(domain).unwrap().dialect().to_string())
            .collect();
        assert_eq!(dialects.len(), 3);
        let unsigned = "elm.example".parse().unwrap();
        assert_eq!(visit(&world, &resolver, &unsigned).await.unwrap().1, Dnssec::Insecure);
    }

    #[tokio::test]
    async fn the_levers_move_what_is_seen() {
        let world = World::start(Options::default()).await.unwrap();
        let resolver = HickoryResolver::new(world.resolver_options()).unwrap();
        let alice: Address = "alice@cedar.example".parse().unwrap();
        let domain = alice.domain();
        let before = look(&world, &resolver, &alice).await.unwrap().0.len();
        world.rotate(&alice).unwrap();
        assert_eq!(look(&world, &resolver, &alice).await.unwrap().0.len(), before + 1);
        world.swap_key(&alice).unwrap();
        let (history, link) = look(&world, &resolver, &alice).await.unwrap();
        assert_eq!((history.len(), link), (1, Link::Anchor));
        world.remove(&alice).unwrap();
        let gone = look(&world, &resolver, &alice).await.unwrap_err();
        assert_eq!(gone, "signet not found");
        world.enroll(domain, "alice").unwrap();

        world.replace_pok(domain, false).unwrap();
        assert!(look(&world, &resolver, &alice).await.is_ok());
        world.withdraw_record(domain).unwrap();
        assert!(look(&world, &resolver, &alice).await.unwrap_err().starts_with("no record"));
        world.publish_record(domain).unwrap();
        world.set_dns_fault(domain, Some(Fault::Tampered)).unwrap();
        assert!(look(&world, &resolver, &alice).await.unwrap_err().starts_with("DNSSEC"));
        world.set_dns_fault(domain, None).unwrap();
        world.stop_hosts(domain).await.unwrap();
        assert!(look(&world, &resolver, &alice).await.unwrap_err().starts_with("unreachable"));
        world.resume_hosts(domain).await.unwrap();
        assert!(look(&world, &resolver, &alice).await.is_ok());
    }

    #[tokio::test]
    async fn a_victim_is_shown_another_key() {
        let world = World::start(Options::default()).await.unwrap();
        let vantage = world.vantage().await.unwrap();
        let here = HickoryResolver::new(world.resolver_options()).unwrap();
        let there = HickoryResolver::new(vantage.resolver_options()).unwrap();
        let alice: Address = "alice@birch.example".parse().unwrap();
        let carol: Address = "carol@birch.example".parse().unwrap();
        let forged = world.swap_key_for(&vantage, &alice).await.unwrap();
        let (seen_here, _) = look(&world, &here, &alice).await.unwrap();
        let (seen_there, _) = look(&world, &there, &alice).await.unwrap();
        assert_ne!(seen_here, seen_there);
        assert_eq!(seen_there[0].signing_key(), forged.signing_key());
        let other = |resolver| look(&world, resolver, &carol);
        assert_eq!(other(&here).await.unwrap().0, other(&there).await.unwrap().0);
        // What happens elsewhere is still seen from both places.
        let dave: Address = "dave@elm.example".parse().unwrap();
        world.rotate(&dave).unwrap();
        world.publish_record(dave.domain()).unwrap();
        let (seen_here, _) = look(&world, &here, &dave).await.unwrap();
        assert_eq!((seen_here.len(), look(&world, &there, &dave).await.unwrap().0), (3, seen_here));
    }

    #[tokio::test]
    async fn further_domains_share_hosts() {
        let options = Options { further: 70, ttl: 60, ..Options::default() };
        let world = World::start(options).await.unwrap();
        let resolver = HickoryResolver::new(world.resolver_options()).unwrap();
        for local in ["alice@d0.example", "alice@d69.example"] {
            let (history, _) = look(&world, &resolver, &local.parse().unwrap()).await.unwrap();
            assert_eq!(history.len(), 1);
        }
        let last: Domain = "d69.example".parse().unwrap();
        assert_eq!(world.dx_hosts(&last).unwrap(), ["dx1.hosts.example"]);
    }
}
