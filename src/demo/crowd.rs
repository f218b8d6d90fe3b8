//! A crowd of plain domains on shared DX hosts, and domains whose host accepts
//! a connection and says nothing: what a crawler is measured against.
//!
//! Every domain has a signed zone, a record, an org signet and one mailbox.
//! Nothing changes, and nothing is written to disk.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::dns::PrivateDns;
use super::host::{Authority, Certificate, DxHost, HostIdentity, Shelf};
use super::organization::{Habits, Organization};
use super::world::{Error, Network};
use crate::dime::record::Template;
use crate::dime::{Address, Domain, Rejection};

/// Time to live of all but the domains' records, seconds.
const TTL: u32 = 3600;
/// The one mailbox of a domain.
const MAILBOX: &str = "alice";

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Domains whose host answers.
    pub domains: usize,
    /// Hosts that those share evenly, at least 1.
    pub hosts: usize,
    /// Domains with a host of their own that accepts and says nothing.
    pub silent: usize,
    /// Of the hosts. [`Certificate::Rsa`]: one key for all, since making one
    /// takes seconds.
    pub certificate: Certificate,
}

/// The crowd. It ends when dropped.
pub struct Crowd {
    dns: PrivateDns,
    port: u16,
    hosts: Vec<SocketAddr>,
    _running: Vec<DxHost>,
    _silent: JoinSet<()>,
}

/// The mailbox of the `number`-th domain whose host answers.
pub fn mailbox(number: usize) -> Result<Address, Rejection> {
    format!("{MAILBOX}@d{number}.example").parse()
}

/// The mailbox of the `number`-th domain whose host says nothing.
pub fn silent_mailbox(number: usize) -> Result<Address, Rejection> {
    format!("{MAILBOX}@silent{number}.example").parse()
}

impl Crowd {
    pub async fn start(options: Options) -> Result<Crowd, Error> {
        let dns = PrivateDns::builder().ttl(TTL).signed("hosts.example").start().await?;
        let mut network = Network::new(None, 0)?;
        let identities = identities(options).await?;
        let mut running: Vec<DxHost> = Vec::new();
        for (number, identity) in identities.into_iter().enumerate() {
            let name = host_name(number);
            let host = DxHost::start(&name, listener(&mut network)?, identity, Shelf::default())?;
            dns.set_addresses(&name, &[host.address().ip()])?;
            running.push(host);
        }
        settle(&dns, &running, options.domains).await?;
        let mut silent = JoinSet::new();
        for number in 0..options.silent {
            let listener = listener(&mut network)?;
            let domain = silent_mailbox(number)?.domain().clone();
            settle_silent(&dns, &domain, listener.local_addr()?.ip())?;
            silent.spawn(say_nothing(listener));
        }
        let hosts = running.iter().map(DxHost::address).collect();
        Ok(Crowd { dns, port: network.port(), hosts, _running: running, _silent: silent })
    }

    pub fn dns(&self) -> &PrivateDns {
        &self.dns
    }

    /// The port of every host, in place of 26.
    pub fn dmtp_port(&self) -> u16 {
        self.port
    }

    /// Where the hosts that answer listen.
    pub fn hosts(&self) -> &[SocketAddr] {
        &self.hosts
    }
}

/// The name of the host with this number.
pub fn host_name(number: usize) -> String {
    format!("dx{number}.hosts.example")
}

fn listener(network: &mut Network) -> Result<TcpListener, Error> {
    let listener = network.listener()?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

async fn identities(options: Options) -> Result<Vec<HostIdentity>, Error> {
    let make = move || {
        let authority = Authority::new()?;
        let number = if options.certificate == Certificate::Rsa { 1 } else { options.hosts };
        let made: Result<Vec<_>, _> = (0..number.max(1))
            .map(|number| authority.identity(&host_name(number), options.certificate))
            .collect();
        made.map(|made| made.into_iter().cycle().take(options.hosts.max(1)).collect())
    };
    Ok(tokio::task::spawn_blocking(make).await.map_err(|_| Error::Task)??)
}

/// Makes the domains' keys and signets on all cores, and publishes them.
async fn settle(dns: &PrivateDns, hosts: &[DxHost], domains: usize) -> Result<(), Error> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut shares = JoinSet::new();
    for first in 0..cores {
        shares.spawn_blocking(move || {
            let numbers = (first..domains).step_by(cores);
            numbers.map(|number| Ok((number, organization(number)?))).collect::<Result<Vec<_>, _>>()
        });
    }
    while let Some(share) = shares.join_next().await {
        let share: Result<Vec<(usize, Organization)>, Rejection> =
            share.map_err(|_| Error::Task)?;
        for (number, organization) in share? {
            let Some(host) = hosts.get(number % hosts.len().max(1)) else { continue };
            move_in(dns, host, &organization)?;
        }
    }
    // Signed now, and not while somebody measures.
    for number in 0..domains {
        let domain = mailbox(number)?.domain().clone();
        for name in [format!("_dime.{domain}"), format!("_dx.{domain}")] {
            dns.sign_answers(&name)?;
        }
    }
    Ok(())
}

fn organization(number: usize) -> Result<Organization, Rejection> {
    let mut organization = Organization::new(mailbox(number)?.domain().clone(), Habits::default())?;
    organization.enroll(MAILBOX)?;
    Ok(organization)
}

fn move_in(dns: &PrivateDns, host: &DxHost, organization: &Organization) -> Result<(), Error> {
    let domain = organization.domain();
    host.shelf().put_org(domain, organization.signets());
    for address in organization.addresses() {
        host.shelf().put_user(address, organization.served(address));
    }
    let template = Template {
        poks: vec![organization.pok()],
        tls: vec![organization.pin(host.certificate_der())],
        dx: vec![host.name().to_owned()],
        ..Template::default()
    };
    publish(dns, domain, &template)
}

fn settle_silent(dns: &PrivateDns, domain: &Domain, address: IpAddr) -> Result<(), Error> {
    let organization = Organization::new(domain.clone(), Habits::default())?;
    let host = format!("dx.{domain}");
    let template =
        Template { poks: vec![organization.pok()], dx: vec![host.clone()], ..Template::default() };
    publish(dns, domain, &template)?;
    Ok(dns.set_addresses(&host, &[address])?)
}

/// The record is asked for anew at each visit; the zone's keys are not.
fn publish(dns: &PrivateDns, domain: &Domain, template: &Template) -> Result<(), Error> {
    dns.add_zone(domain.as_str(), true)?;
    dns.set_ttl(domain.as_str(), 0)?;
    Ok(dns.set_txt(&format!("_dime.{domain}"), &[&template.text()])?)
}

/// Accepts, and holds what it accepted until the other side hangs up.
async fn say_nothing(listener: TcpListener) {
    let mut held = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        held.spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        while held.try_join_next().is_some() {}
    }
}
