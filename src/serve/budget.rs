//! How many unknown names one client may ask for in an hour.
//!
//! A lookup that says "not here" tells whether a mailbox exists. A client that
//! has used up its questions is refused everything, known or not, until the
//! hour is over: else the refusal itself would tell the one from the other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;
use crate::dime::{Name, Timestamp};

/// Unknown names a client may ask for in an hour, unless told otherwise.
pub const UNKNOWN_PER_HOUR: u32 = 60;
/// Clients remembered at once: about 4 MiB. Beyond it all share one account.
const MAX_CLIENTS: usize = 1 << 16;
const HOUR: u64 = 3_600_000;

/// One client: an IPv4 address, or the /64 an IPv6 customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    pub fn of(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                Client(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))))
            }
            v4 => Client(v4),
        }
    }
}

/// Hears of names that somebody looked up in vain, each on a client's budget.
pub trait Unknown: std::fmt::Debug + Send + Sync {
    /// Returns at once; whether anything follows is its own affair.
    fn asked(&self, name: &Name);

    /// Hears of names that were found, too, for those that are watched only as
    /// long as somebody here asks. Returns at once.
    fn found(&self, _name: &Name) {}
}

/// The accounts of all clients. Shared by every face that answers lookups.
#[derive(Debug)]
pub struct Budget {
    per_hour: u32,
    clock: Clock,
    accounts: Mutex<HashMap<Client, Account>>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    since: Timestamp,
    unknown: u32,
}

impl Budget {
    pub fn new(per_hour: u32, clock: Clock) -> Budget {
        Budget { per_hour, clock, accounts: Mutex::new(HashMap::new()) }
    }

    /// Whether the client may still ask.
    pub fn allows(&self, client: Client) -> bool {
        let now = self.clock.now();
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.get(&client).or_else(|| accounts.get(&EVERYBODY_ELSE));
        account.is_none_or(|account| {
            now.since(account.since) >= HOUR || account.unknown < self.per_hour
        })
    }

    /// Books one unknown name.
    pub fn book(&self, client: Client) {
        let now = self.clock.now();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MAX_CLIENTS && !accounts.contains_key(&client) {
            accounts.retain(|_, account| now.since(account.since) < HOUR);
        }
        let full = accounts.len() >= MAX_CLIENTS && !accounts.contains_key(&client);
        let client = if full { EVERYBODY_ELSE } else { client };
        let account = accounts.entry(client).or_insert(Account { since: now, unknown: 0 });
        if now.since(account.since) >= HOUR {
            *account = Account { since: now, unknown: 0 };
        }
        account.unknown = account.unknown.saturating_add(1);
    }
}

/// The account of those for whom there was no room.
const EVERYBODY_ELSE: Client = Client(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn an_hour_of_unknown_names_is_bounded() {
        let clock = Clock::manual(Timestamp::from_secs(1_000_000));
        let budget = Budget::new(2, clock.clone());
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        assert!(budget.allows(one));
        budget.book(one);
        assert!(budget.allows(one));
        budget.book(one);
        assert!(!budget.allows(one));
        assert!(budget.allows(other));
        clock.advance(HOUR);
        assert!(budget.allows(one));
        budget.book(one);
        assert!(budget.allows(one));
    }

    #[test]
    fn a_customer_of_ipv6_is_one_client() {
        assert_eq!(client("2001:db8:1:2::3"), client("2001:db8:1:2:ffff::4"));
        assert_ne!(client("2001:db8:1:2::3"), client("2001:db8:1:3::3"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
