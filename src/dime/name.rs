//! Names, normalized once: a domain in lower-case A-labels without a trailing
//! dot, an address in ASCII lower case (reference A28).

use std::fmt;
use std::str::FromStr;

use super::Rejection;

/// Longest domain name in presentation form (RFC 1035 §2.3.4), bytes.
pub const MAX_DOMAIN: usize = 253;
/// Longest local part of an address (RFC 5321 §4.5.3.1.1), bytes.
pub const MAX_LOCAL: usize = 64;

/// A mail domain: at least two labels of letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

/// A mailbox: `local@domain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    at: usize,
    domain: Domain,
}

/// What a signet can be looked up for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    Domain(Domain),
    Address(Address),
}

impl Domain {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain one label up, or `None` where a single label would remain.
    pub fn parent(&self) -> Option<Domain> {
        let (_, rest) = self.0.split_once('.')?;
        rest.contains('.').then(|| Domain(rest.to_owned()))
    }
}

impl FromStr for Domain {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Domain, Rejection> {
        let refuse = |why: &str| Err(Rejection::new("name", format!("not a domain name: {why}")));
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.len() > MAX_DOMAIN {
            return refuse("longer than 253 bytes");
        }
        let labels: Vec<&str> = text.split('.').collect();
        if labels.len() < 2 {
            return refuse("it needs at least two labels");
        }
        for label in &labels {
            if label.is_empty() || label.len() > 63 {
                return refuse("a label is empty or longer than 63 bytes");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("a label begins or ends with '-'");
            }
            let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if !label.bytes().all(legal) {
                return refuse("only letters, digits, '-', '_' (use A-labels for other scripts)");
            }
        }
        if labels.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return refuse("it looks like an IP address");
        }
        Ok(Domain(text))
    }
}

impl Address {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl FromStr for Address {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Address, Rejection> {
        let refuse = |why: &str| Err(Rejection::new("name", format!("not an address: {why}")));
        let Some((local, domain)) = text.rsplit_once('@') else {
            return refuse("no '@'");
        };
        if local.is_empty() || local.len() > MAX_LOCAL {
            return refuse("the local part is empty or longer than 64 bytes");
        }
        // RFC 5322 dot-atom: what every mail host accepts unquoted.
        let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
        if !local.bytes().all(atext) || local.split('.').any(str::is_empty) {
            return refuse("the local part has a character or a dot that needs quoting");
        }
        let domain: Domain = domain.parse()?;
        let local = local.to_ascii_lowercase();
        Ok(Address { at: local.len(), text: format!("{local}@{domain}"), domain })
    }
}

impl Name {
    /// The name itself, or the domain of the address.
    pub fn domain(&self) -> &Domain {
        match self {
            Name::Domain(domain) => domain,
            Name::Address(address) => address.domain(),
        }
    }

    pub fn address(&self) -> Option<&Address> {
        match self {
            Name::Domain(_) => None,
            Name::Address(address) => Some(address),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Name::Domain(domain) => domain.as_str(),
            Name::Address(address) => address.as_str(),
        }
    }
}

/// An `@` makes it an address.
impl FromStr for Name {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Name, Rejection> {
        if text.contains('@') {
            text.parse().map(Name::Address)
        } else {
            text.parse().map(Name::Domain)
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes_once() {
        let address: Address = "Alice.B@Example.COM.".parse().unwrap();
        assert_eq!(address.as_str(), "alice.b@example.com");
        assert_eq!(address.local(), "alice.b");
        assert_eq!(address.domain().as_str(), "example.com");
        assert_eq!(
            "A.b.Example".parse::<Domain>().unwrap().parent().unwrap().as_str(),
            "b.example"
        );
        assert_eq!("b.example".parse::<Domain>().unwrap().parent(), None);
    }

    #[test]
    fn refuses_what_dns_and_mail_refuse() {
        for bad in ["", "com", "a..b", "-a.com", "a_.-b.com", "ä.com", "1.2.3.4", "a b.com"] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
        for bad in ["@a.b", "a@b", "a b@c.d", "a..b@c.d", ".a@c.d", "a@@b.c", "a\n@b.c"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
