//! A resolver that says what it was told to say: for the tests of other rooms.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Answer, Denial, Error, Evidence, Mx, Resolver};
use crate::dime::{Dnssec, Domain, Timestamp};

/// TTL of everything a [`FixedResolver`] says, seconds.
const TTL: u32 = 60;

/// Answers from a table. Names that are not in it are denied as
/// [`Denial::NoName`], with the status given to [`FixedResolver::new`].
#[derive(Debug)]
pub struct FixedResolver {
    unknown: Dnssec,
    table: Mutex<Table>,
}

type Said<T> = HashMap<String, Result<Answer<Vec<T>>, Error>>;

#[derive(Debug, Default)]
struct Table {
    txt: Said<Vec<u8>>,
    mx: Said<Mx>,
    addresses: Said<IpAddr>,
    evidence: HashMap<String, Result<Option<Evidence>, Error>>,
    unjudged: HashMap<String, Bytes>,
}

impl FixedResolver {
    /// `unknown`: the status of the denial of every name not set.
    pub fn new(unknown: Dnssec) -> FixedResolver {
        FixedResolver { unknown, table: Mutex::default() }
    }

    /// From now on `name` has these TXT records, one text per record.
    pub fn set_txt(&self, name: &str, texts: &[&str], dnssec: Dnssec) {
        let records = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        self.say_txt(name, Ok(found(records, dnssec)));
    }

    /// From now on this is said about the TXT records of `name`.
    pub fn say_txt(&self, name: &str, outcome: Result<Answer<Vec<Vec<u8>>>, Error>) {
        self.table().txt.insert(normal(name), outcome);
    }

    /// From now on this is said about the MX records of `domain`.
    pub fn say_mx(&self, domain: &str, outcome: Result<Answer<Vec<Mx>>, Error>) {
        self.table().mx.insert(normal(domain), outcome);
    }

    /// From now on `host` has these addresses.
    pub fn set_addresses(&self, host: &str, addresses: &[IpAddr], dnssec: Dnssec) {
        self.say_addresses(host, Ok(found(addresses.to_vec(), dnssec)));
    }

    /// From now on this is said about the addresses of `host`.
    pub fn say_addresses(&self, host: &str, outcome: Result<Answer<Vec<IpAddr>>, Error>) {
        self.table().addresses.insert(normal(host), outcome);
    }

    /// From now on this is the evidence about `domain`; of others there is none.
    pub fn say_evidence(&self, domain: &Domain, outcome: Result<Option<Evidence>, Error>) {
        self.table().evidence.insert(domain.as_str().to_owned(), outcome);
    }

    /// From now on this is what came about `domain`, unjudged; of others nothing.
    pub fn say_unjudged(&self, domain: &Domain, messages: Bytes) {
        self.table().unjudged.insert(domain.as_str().to_owned(), messages);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn denial<T: Default>(&self) -> Answer<T> {
        Answer {
            records: T::default(),
            dnssec: self.unknown,
            ttl: TTL,
            denial: Some(Denial::NoName),
        }
    }
}

#[async_trait]
impl Resolver for FixedResolver {
    async fn txt(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, Error> {
        let said = self.table().txt.get(&normal(name)).cloned();
        said.unwrap_or_else(|| Ok(self.denial()))
    }

    async fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, Error> {
        let said = self.table().mx.get(&normal(domain)).cloned();
        said.unwrap_or_else(|| Ok(self.denial()))
    }

    async fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, Error> {
        let said = self.table().addresses.get(&normal(host)).cloned();
        said.unwrap_or_else(|| Ok(self.denial()))
    }

    async fn evidence(&self, domain: &Domain, _: Timestamp) -> Result<Option<Evidence>, Error> {
        let said = self.table().evidence.get(domain.as_str()).cloned();
        said.unwrap_or(Ok(None))
    }

    async fn unjudged(&self, domain: &Domain) -> Bytes {
        self.table().unjudged.get(domain.as_str()).cloned().unwrap_or_default()
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn found<T>(records: Vec<T>, dnssec: Dnssec) -> Answer<Vec<T>> {
    let denial = records.is_empty().then_some(Denial::NoData);
    Answer { records, dnssec, ttl: TTL, denial }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_it_was_told() {
        let resolver = FixedResolver::new(Dnssec::Secure);
        resolver.set_txt("_dime.Example.com.", &["pok=x"], Dnssec::Insecure);
        let answer = resolver.txt("_dime.example.com").await.unwrap();
        assert_eq!(answer.records, [b"pok=x".to_vec()]);
        assert_eq!(answer.dnssec, Dnssec::Insecure);
        assert!(resolver.txt("_dx.example.com").await.unwrap().authenticated_denial());
        let timeout = Error::Timeout { name: "a.b".into() };
        resolver.say_addresses("a.b", Err(timeout));
        assert!(matches!(resolver.addresses("a.b").await, Err(Error::Timeout { .. })));
    }
}
