//! Which network addresses may be connected to.
//!
//! A stranger's DNS chooses the addresses a crawler connects to, so everything
//! but public unicast is refused, unless a network is allowed by name.
//! Source of the lists: the IANA special-purpose registries (RFC 6890).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Leading bits that count: 0 to 32, or 0 to 128.
    prefix: u8,
}

/// Refuses addresses that a stranger has no business to name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressFilter {
    allowed: Vec<Network>,
}

/// Not a network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network: write it like 10.0.0.0/8 or fd00::/8")]
pub struct NotANetwork;

const fn v4(a: u8, b: u8, c: u8, prefix: u8, what: &'static str) -> (Network, &'static str) {
    (Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix }, what)
}

const fn v6(a: u16, b: u16, prefix: u8, what: &'static str) -> (Network, &'static str) {
    (Network { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), prefix }, what)
}

/// Networks that are not public unicast, and what they are. IPv6 is turned
/// round: outside 2000::/3 nothing is public, inside it these are not.
const REFUSED: &[(Network, &str)] = &[
    v4(0, 0, 0, 8, "unspecified"),
    v4(10, 0, 0, 8, "private"),
    v4(100, 64, 0, 10, "shared by a carrier's NAT"),
    v4(127, 0, 0, 8, "loopback"),
    v4(169, 254, 0, 16, "link-local"),
    v4(172, 16, 0, 12, "private"),
    v4(192, 0, 0, 24, "for protocols"),
    v4(192, 0, 2, 24, "for documentation"),
    v4(192, 88, 99, 24, "a 6to4 relay"),
    v4(192, 168, 0, 16, "private"),
    v4(198, 18, 0, 15, "for benchmarks"),
    v4(198, 51, 100, 24, "for documentation"),
    v4(203, 0, 113, 24, "for documentation"),
    v4(224, 0, 0, 4, "multicast"),
    v4(240, 0, 0, 4, "reserved"),
    v6(0x2001, 0, 23, "for protocols, benchmarks or Teredo"),
    v6(0x2001, 0xdb8, 32, "for documentation"),
    v6(0x2002, 0, 16, "6to4"),
    v6(0x3fff, 0, 20, "for documentation"),
];
const GLOBAL_V6: Network =
    Network { address: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), prefix: 3 };

impl AddressFilter {
    /// Public unicast, and what lies in the allowed networks.
    pub fn new(allowed: Vec<Network>) -> AddressFilter {
        AddressFilter { allowed }
    }

    /// Loopback too: for tests and demonstrations.
    pub fn with_loopback() -> AddressFilter {
        AddressFilter::new(vec![
            Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
            Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        ])
    }

    /// # Errors
    /// What the address is, if it must not be connected to. An IPv4 address
    /// inside an IPv6 one (`::ffff:a.b.c.d`) is judged as what it is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        if let Some((_, what)) = REFUSED.iter().find(|(network, _)| network.contains(address)) {
            return Err(what);
        }
        match address {
            IpAddr::V6(_) if !GLOBAL_V6.contains(address) => Err("not public IPv6"),
            _ => Ok(()),
        }
    }
}

impl Network {
    /// `None` if the prefix has more bits than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Network> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Network { address, prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                u32::from(self.prefix) <= differ.leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                u32::from(self.prefix) <= differ.leading_zeros()
            }
            _ => false,
        }
    }
}

/// `address/prefix`; an address alone is a network of one.
impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let prefix = match prefix {
            Some(digits) => digits.parse().map_err(|_| NotANetwork)?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Network::new(address, prefix).ok_or(NotANetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &AddressFilter, address: &str) -> bool {
        filter.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_public_unicast_passes() {
        let filter = AddressFilter::default();
        for refused in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.9",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!check(&filter, refused), "{refused}");
        }
        for passed in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2001:200::1",
            "2606:4700::1",
            "2a00::1",
            "3ffe::1",
        ] {
            assert!(check(&filter, passed), "{passed}");
        }
    }

    #[test]
    fn allowed_networks_pass() {
        let filter = AddressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(check(&filter, "127.9.9.9"));
        assert!(check(&filter, "::ffff:127.0.0.1"));
        assert!(!check(&filter, "10.0.0.1"));
        assert!(!check(&filter, "::1"));
        assert!(check(&AddressFilter::with_loopback(), "::1"));
        let all = AddressFilter::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        assert!(check(&all, "10.0.0.1") && check(&all, "fe80::1"));
    }

    #[test]
    fn networks_are_read_strictly() {
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "x/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
