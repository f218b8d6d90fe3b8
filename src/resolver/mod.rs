//! Asking DNS: TXT, MX and address answers, each with its DNSSEC status, its
//! TTL and, where nothing was found, whether that was proved.
//!
//! Four things must never be mixed up: a record, a proved absence, an absence
//! that anyone on the way could have made up, and no usable answer at all.
//! The first three are an [`Answer`]; the last is an [`Error`], and a bogus
//! answer, a server failure and a timeout stay three different errors. None of
//! them means "no record".
//!
//! With an answer about a management record comes, when asked for, the chain of
//! signed records that proves it to others ([`Evidence`]).
//!
//! Left out: what the records mean (`dime::record`), how a chain is checked
//! (`proof::dnssec`), and the second path over which a bogus answer is
//! confirmed (`crawl`).

mod anchor;
mod evidence;
mod fixed;
mod hickory;
pub mod record;
mod slots;

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;

use crate::dime::{Dnssec, Domain, Timestamp};

pub use anchor::TrustAnchor;
pub use evidence::{EVIDENCE_MARGIN, Evidence, MAX_QUESTIONS};
pub use fixed::FixedResolver;
pub use hickory::{HickoryResolver, MAX_NEGATIVE_TTL, NameServers, Options};
pub use slots::{Slot, Slots};

/// Most records of one type that are read at one name.
pub const MAX_RECORDS: usize = 64;
/// Most bytes of TXT data that are read at one name, over all records.
pub const MAX_TXT_BYTES: usize = 64 * 1024;
/// Most CNAMEs that are followed before the chain counts as a loop.
pub const MAX_CNAMES: usize = 8;
/// Longest time that an answer, found or denied, is taken from a cache, seconds.
pub const MAX_TTL: u32 = 86_400;

/// Where a room learns what DNS says.
///
/// Names are given in presentation form, in A-labels, with or without the
/// trailing dot; no search list applies. An implementation may cache an answer
/// for as long as its TTL, and may be called from many tasks at once.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Each TXT record at `name`, its character-strings joined with nothing
    /// between them (reference §1.2). At most [`MAX_RECORDS`] records and
    /// [`MAX_TXT_BYTES`] bytes, else [`Error::Excess`].
    async fn txt(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, Error>;

    /// The mail exchangers of `domain`, best (lowest preference) first.
    /// A null MX (RFC 7505) is a record with an empty host.
    async fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, Error>;

    /// The IPv4 and IPv6 addresses of `host`, IPv6 first. The status is the
    /// weaker one of the two answers. An IP literal is [`Error::Name`].
    async fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, Error>;

    /// The signed records that prove, offline and at `at`, what DNS says about
    /// the management record of `domain`: secure, or insecure by the signed
    /// denial of a DS record. `None` if nothing can be proved. It may not hold for
    /// long: see [`Evidence::is_lasting`]. The answer may differ from one heard a
    /// moment ago: compare [`Evidence::observed`].
    async fn evidence(&self, domain: &Domain, at: Timestamp) -> Result<Option<Evidence>, Error>;

    /// What the servers answer about the management record of `domain` whether
    /// or not it verifies, to be shown to others: for `_dime` and for `_dx` a
    /// DNS message as it came, each after its length in two bytes (RFC 1035
    /// §4.2.2). Empty where nothing came. Never to be believed.
    async fn unjudged(&self, domain: &Domain) -> Bytes;
}

/// What DNS said at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// Only records of the asked name (or of the name its CNAMEs end at) and
    /// type. Empty exactly if `denial` is set.
    pub records: T,
    /// The weakest status of the records and of every CNAME on the way, or of
    /// the denial. Never [`Dnssec::Bogus`]: that is [`Error::Bogus`].
    pub dnssec: Dnssec,
    /// For how many more seconds the answer holds; at most [`MAX_TTL`].
    pub ttl: u32,
    /// Set if there is no such record.
    pub denial: Option<Denial>,
}

/// How DNS said that there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name exists, without a record of that type (NODATA).
    NoData,
}

/// A mail exchanger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mx {
    pub preference: u16,
    /// Lower-case A-labels without the trailing dot.
    pub host: String,
}

/// Why there is no answer. None of these says anything about the record.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is not a host name.
    #[error("not a name to ask DNS for: {name:?}")]
    Name { name: String },
    /// A signature is missing, wrong or out of date, or the absence of a
    /// signature is not proved. It can be an attack, a broken zone, or a
    /// wildcard under NSEC, which our validator cannot verify.
    #[error("DNSSEC does not verify for {name}")]
    Bogus { name: String },
    /// The server answered with an error (`SERVFAIL`, `REFUSED`, …). A
    /// validating forwarder says so too if it finds an answer bogus.
    #[error("the name server answered {code} for {name}")]
    ServFail { name: String, code: String },
    /// No answer came in time.
    #[error("no name server answered in time for {name}")]
    Timeout { name: String },
    /// The answer, or the chain of CNAMEs to it, is larger than we read.
    #[error("the DNS answer for {name} is over our limit: {limit}")]
    Excess { name: String, limit: &'static str },
    /// The servers could not be talked to, or what they said is not DNS.
    #[error("asking DNS for {name} failed: {reason}")]
    Network { name: String, reason: String },
    /// The resolver could not be set up.
    #[error("the resolver cannot be set up: {reason}")]
    Setup { reason: String },
}

impl<T> Answer<T> {
    /// A denial that was proved with NSEC or NSEC3 records.
    pub fn authenticated_denial(&self) -> bool {
        self.denial.is_some() && self.dnssec == Dnssec::Secure
    }

    /// The same answer about other records.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            records: change(self.records),
            dnssec: self.dnssec,
            ttl: self.ttl,
            denial: self.denial,
        }
    }
}

/// The name to put into a question: host name characters and `_` only, so that
/// no escape and no other script reaches the wire.
pub(crate) fn ask_name(text: &str) -> Result<hickory_proto::rr::Name, Error> {
    let refused = || Error::Name { name: text.chars().take(300).collect() };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if text.is_empty() || !text.bytes().all(legal) || text.parse::<IpAddr>().is_ok() {
        return Err(refused());
    }
    // Whoever asks DNS for an onion name tells others of it (RFC 7686).
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("onion")) {
        return Err(refused());
    }
    let mut name = hickory_proto::rr::Name::from_ascii(text).map_err(|_| refused())?;
    name.set_fqdn(true);
    Ok(name)
}

/// The weaker of two statuses: a chain is as good as its worst link.
pub(crate) fn weaker(a: Dnssec, b: Dnssec) -> Dnssec {
    let rank = |status| match status {
        Dnssec::Bogus => 0,
        Dnssec::Indeterminate => 1,
        Dnssec::Insecure => 2,
        Dnssec::Secure => 3,
    };
    if rank(a) <= rank(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_host_names_only() {
        let name = ask_name("_dime.Example.com").unwrap();
        assert_eq!(name, ask_name("_dime.example.com.").unwrap());
        assert!(name.is_fqdn());
        assert!(ask_name(".").unwrap().is_root());
        let long = "a.".repeat(200);
        for bad in [
            "", "a.onion", "b.ONION.", "a b", "a\\046b", "ä.com", "1.2.3.4", "::1", "a@b", "*.a.b",
            &long,
        ] {
            assert!(matches!(ask_name(bad), Err(Error::Name { .. })), "{bad}");
        }
        assert!(ask_name("a..b").is_err());
        assert!(ask_name(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_chain_is_as_good_as_its_worst_link() {
        use Dnssec::*;
        assert_eq!(weaker(Secure, Secure), Secure);
        assert_eq!(weaker(Secure, Insecure), Insecure);
        assert_eq!(weaker(Indeterminate, Insecure), Indeterminate);
        assert_eq!(weaker(Indeterminate, Bogus), Bogus);
    }
}
