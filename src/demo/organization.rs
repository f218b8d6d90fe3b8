//! A domain's owner: its keys, its signets and those of its mailboxes, and all
//! that can happen to them, honest or not. No network.

use std::collections::BTreeMap;

use crate::dime::key::{Owner, PrivateKey};
use crate::dime::record::{self, Pok};
use crate::dime::signet::build::{self, Content, SignTo};
use crate::dime::signet::{Dialect, SecondaryKey, Signet};
use crate::dime::{Address, Domain, Rejection};

/// Id of the text field `Name`.
const NAME: u8 = 16;
/// Id of the text field `Motto`.
const MOTTO: u8 = 25;

/// How an organization does things.
#[derive(Clone, Debug)]
pub struct Habits {
    pub dialect: Dialect,
    /// Permissions of its secondary keys. If one may sign signets, the first
    /// such key signs those of the mailboxes.
    pub soks: Vec<u8>,
    /// Whether its signets carry texts and a name (levels full and id). Dialect
    /// P has neither.
    pub named: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { dialect: Dialect::L, soks: vec![], named: true }
    }
}

/// Keys and signets of one domain.
pub struct Organization {
    domain: Domain,
    habits: Habits,
    pok: PrivateKey,
    soks: Vec<(u8, PrivateKey)>,
    /// All org signets made, oldest first.
    signets: Vec<Signet>,
    mailboxes: BTreeMap<Address, Mailbox>,
}

/// One mailbox's keys, oldest first, and what is served for it.
struct Mailbox {
    keys: Vec<PrivateKey>,
    request: Signet,
    served: Vec<Signet>,
}

impl Organization {
    /// Makes the keys and the org signet.
    pub fn new(domain: Domain, habits: Habits) -> Result<Organization, Rejection> {
        let pok = random_key(Owner::Org)?;
        let soks = habits
            .soks
            .iter()
            .map(|permissions| Ok((*permissions, random_key(Owner::Org)?)))
            .collect::<Result<Vec<_>, Rejection>>()?;
        let mut organization =
            Organization { domain, habits, pok, soks, signets: vec![], mailboxes: BTreeMap::new() };
        organization.sign_org()?;
        Ok(organization)
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn pok(&self) -> Pok {
        self.pok.signing_key()
    }

    /// The private POK: what its owner signs requests with.
    pub fn pok_key(&self) -> &PrivateKey {
        &self.pok
    }

    /// The POK's signature over a certificate, for the `tls` field.
    pub fn pin(&self, certificate_der: &[u8]) -> [u8; 64] {
        record::sign_certificate(self.pok.seed(), certificate_der)
    }

    /// All org signets, oldest first.
    pub fn signets(&self) -> &[Signet] {
        &self.signets
    }

    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.mailboxes.keys()
    }

    /// What is served for a mailbox, oldest first; empty if there is none.
    pub fn served(&self, address: &Address) -> &[Signet] {
        self.mailboxes.get(address).map_or(&[], |mailbox| &mailbox.served)
    }

    /// A new mailbox with its first signet.
    pub fn enroll(&mut self, local: &str) -> Result<Address, Rejection> {
        let address: Address = format!("{local}@{}", self.domain).parse()?;
        let key = random_key(Owner::User)?;
        let request = build::request(&key, self.habits.dialect, None)?;
        let signet = self.sign_user(&address, &request, None)?;
        let mailbox = Mailbox { keys: vec![key], request, served: vec![signet] };
        self.mailboxes.insert(address.clone(), mailbox);
        Ok(address)
    }

    /// A new key that the old one signs over: EXTEND.
    pub fn rotate(&mut self, address: &Address) -> Result<Signet, Rejection> {
        self.replace_key(address, Some(1))
    }

    /// A new key without a word from the old one: RESTART, the key swap.
    pub fn swap_key(&mut self, address: &Address) -> Result<Signet, Rejection> {
        self.replace_key(address, None)
    }

    /// A new key that the key before the current one signs over: FORK.
    pub fn fork(&mut self, address: &Address) -> Result<Signet, Rejection> {
        self.replace_key(address, Some(2))
    }

    /// Two new keys, each with custody, the first of which nobody is shown: GAP.
    pub fn skip(&mut self, address: &Address) -> Result<Signet, Rejection> {
        self.rotate(address)?;
        if let Some(mailbox) = self.mailboxes.get_mut(address) {
            mailbox.served.pop();
        }
        self.rotate(address)
    }

    /// A signet with a new key and no custody, which is kept nowhere: what an
    /// attacker with the organization's key makes for one victim.
    pub fn forge(&self, address: &Address) -> Result<Signet, Rejection> {
        let request = build::request(&random_key(Owner::User)?, self.habits.dialect, None)?;
        self.sign_user(address, &request, None)
    }

    /// The mailbox's first signet again: REVERT.
    pub fn revert(&mut self, address: &Address) -> Result<Signet, Rejection> {
        let mailbox = self.mailboxes.get_mut(address).ok_or_else(no_mailbox)?;
        let first = mailbox.served.first().cloned().ok_or_else(no_mailbox)?;
        mailbox.served.push(first.clone());
        Ok(first)
    }

    /// The same keys with another motto: REISSUE.
    pub fn reissue(&mut self, address: &Address, motto: &str) -> Result<Signet, Rejection> {
        let request = self.mailboxes.get(address).ok_or_else(no_mailbox)?.request.clone();
        let signet = self.sign_user(address, &request, Some(motto))?;
        self.serve(address, signet)
    }

    /// Serves any signet as the mailbox's newest.
    pub fn serve(&mut self, address: &Address, signet: Signet) -> Result<Signet, Rejection> {
        let mailbox = self.mailboxes.get_mut(address).ok_or_else(no_mailbox)?;
        mailbox.served.push(signet.clone());
        Ok(signet)
    }

    /// The mailbox is gone.
    pub fn remove(&mut self, address: &Address) {
        self.mailboxes.remove(address);
    }

    /// Another secondary key, in a new org signet.
    pub fn add_sok(&mut self, permissions: u8) -> Result<(), Rejection> {
        self.soks.push((permissions, random_key(Owner::Org)?));
        self.sign_org()
    }

    /// Another POK: a new org signet, and each mailbox's signet signed again
    /// (RESIGN). Secondary keys stay.
    pub fn replace_pok(&mut self) -> Result<(), Rejection> {
        self.pok = random_key(Owner::Org)?;
        self.sign_org()?;
        let requests: Vec<(Address, Signet)> = self
            .mailboxes
            .iter()
            .map(|(address, mailbox)| (address.clone(), mailbox.request.clone()))
            .collect();
        for (address, request) in requests {
            let signet = self.sign_user(&address, &request, None)?;
            self.serve(&address, signet)?;
        }
        Ok(())
    }

    /// A new key; custody by the key that many places from the end.
    fn replace_key(
        &mut self,
        address: &Address,
        custody: Option<usize>,
    ) -> Result<Signet, Rejection> {
        let key = random_key(Owner::User)?;
        let mailbox = self.mailboxes.get(address).ok_or_else(no_mailbox)?;
        let previous = match custody {
            None => None,
            Some(back) => Some(
                mailbox
                    .keys
                    .len()
                    .checked_sub(back)
                    .and_then(|index| mailbox.keys.get(index))
                    .ok_or_else(|| Rejection::new("demo", "the mailbox has too few keys"))?,
            ),
        };
        let request = build::request(&key, self.habits.dialect, previous)?;
        let signet = self.sign_user(address, &request, None)?;
        let mailbox = self.mailboxes.get_mut(address).ok_or_else(no_mailbox)?;
        mailbox.keys.push(key);
        mailbox.request = request;
        mailbox.served.push(signet.clone());
        Ok(signet)
    }

    fn sign_org(&mut self) -> Result<(), Rejection> {
        let soks: Vec<SecondaryKey> = self
            .soks
            .iter()
            .map(|(permissions, key)| SecondaryKey {
                permissions: *permissions,
                key: key.signing_key(),
            })
            .collect();
        let contents = self.contents(&self.domain.to_string(), None);
        let to = self.level(self.domain.as_str());
        let signet = build::org(&self.pok, self.habits.dialect, &soks, &contents, to)?;
        self.signets.push(signet);
        Ok(())
    }

    fn sign_user(
        &self,
        address: &Address,
        request: &Signet,
        motto: Option<&str>,
    ) -> Result<Signet, Rejection> {
        let may_sign = |permissions: u8| permissions & SecondaryKey::MAY_SIGN_SIGNETS != 0;
        let sok = self.soks.iter().find(|(permissions, _)| may_sign(*permissions));
        let seed = sok.map_or(self.pok.seed(), |(_, key)| key.seed());
        let contents = self.contents(address.local(), motto);
        build::user(request, seed, &contents, self.level(address.as_str()))
    }

    fn contents(&self, name: &str, motto: Option<&str>) -> Vec<Content> {
        if !self.has_texts() {
            return vec![];
        }
        let motto = motto.map(|motto| Content::text(MOTTO, motto));
        std::iter::once(Content::text(NAME, name)).chain(motto).collect()
    }

    fn level<'a>(&self, name: &'a str) -> SignTo<'a> {
        if self.has_texts() { SignTo::Id(name) } else { SignTo::Crypto }
    }

    fn has_texts(&self) -> bool {
        self.habits.named && self.habits.dialect != Dialect::P
    }
}

fn no_mailbox() -> Rejection {
    Rejection::new("demo", "there is no such mailbox")
}

fn random_key(owner: Owner) -> Result<PrivateKey, Rejection> {
    let mut secrets = [[0; 32]; 2];
    for secret in &mut secrets {
        getrandom::fill(secret).map_err(|error| Rejection::new("demo", error.to_string()))?;
    }
    PrivateKey::from_secrets(owner, secrets[0], secrets[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::chain::{self, Link};
    use crate::dime::{org, user};

    fn link(organization: &Organization, address: &Address) -> Link {
        let newest = organization.signets().last().unwrap();
        let valid = org::validate(newest, &[organization.pok()], Some(organization.domain()));
        let (next, known) = organization.served(address).split_last().unwrap();
        let next = user::validate(next, &valid.unwrap(), Some(address)).unwrap();
        chain::link(known, &next)
    }

    #[test]
    fn what_happens_is_what_the_chain_sees() {
        for dialect in [Dialect::L, Dialect::M, Dialect::P] {
            let soks = if dialect == Dialect::P { vec![] } else { vec![0x02, 0x01] };
            let habits = Habits { dialect, soks, named: true };
            let mut org = Organization::new("a.example".parse().unwrap(), habits).unwrap();
            let alice = org.enroll("alice").unwrap();
            assert_eq!(link(&org, &alice), Link::Anchor);
            assert!(org.fork(&alice).is_err());
            org.rotate(&alice).unwrap();
            assert_eq!(link(&org, &alice), Link::Extend);
            org.fork(&alice).unwrap();
            assert_eq!(link(&org, &alice), Link::Fork);
            org.skip(&alice).unwrap();
            assert_eq!(link(&org, &alice), Link::Gap);
            org.swap_key(&alice).unwrap();
            assert_eq!(link(&org, &alice), Link::Restart);
            org.revert(&alice).unwrap();
            assert_eq!(link(&org, &alice), Link::Revert);
            let bob = org.enroll("bob").unwrap();
            org.reissue(&bob, "again").unwrap();
            let expected = if dialect == Dialect::P { Link::Same } else { Link::Reissue };
            assert_eq!(link(&org, &bob), expected);
            org.replace_pok().unwrap();
            let resigned = if dialect == Dialect::P { Link::Resign } else { Link::Reissue };
            assert_eq!(link(&org, &bob), resigned);
            org.remove(&bob);
            assert!(org.served(&bob).is_empty());
        }
    }
}
