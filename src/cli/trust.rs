//! Arguments about whom to believe, and when.

use std::path::PathBuf;

use syndicate::client::{DnsRoot, Policy, TrustError, policy_of_file, policy_of_log};
use syndicate::clock::Clock;
use syndicate::dime::Timestamp;
use syndicate::resolver::{self, TrustAnchor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whom to believe. Without either option nobody is: the answer can then only
/// be consistent, its signer unknown.
#[derive(clap::Args)]
pub struct Trust {
    /// Key of the log to believe on its word alone: NAME+ID+KEY.
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    log: Option<String>,
    /// Trust policy: logs, cosigners and quorum (C2SP tlog-policy).
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Oldest signatures that count, such as 90s, 30m, 12h, 7d; the policy's if
    /// left out, 1h by default.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_age: Option<u64>,
    /// Keys of the DNS root (DNSKEY or DS lines) that DNSSEC evidence must lead
    /// to. If left out, evidence under another root than the public one only
    /// counts as the mirror's word.
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
}

impl Trust {
    /// The DNS root that evidence has to lead to.
    pub fn root(&self) -> Result<DnsRoot, resolver::Error> {
        Ok(match &self.trust_anchor {
            None => DnsRoot::Public,
            Some(path) => DnsRoot::Only(TrustAnchor::from_file(path)?.of_root()),
        })
    }

    /// The same for one's own questions to DNS.
    pub fn anchor(&self) -> Result<TrustAnchor, resolver::Error> {
        match &self.trust_anchor {
            None => Ok(TrustAnchor::iana()),
            Some(path) => TrustAnchor::from_file(path),
        }
    }

    /// The policy; `None` if nobody is believed.
    pub fn policy(&self) -> Result<Option<Policy>, TrustError> {
        let mut policy = match (&self.log, &self.policy) {
            (Some(vkey), _) => policy_of_log(vkey)?,
            (None, Some(path)) => policy_of_file(path)?,
            (None, None) => return Ok(None),
        };
        if let Some(max_age) = self.max_age {
            policy.max_age = max_age;
        }
        Ok(Some(policy))
    }
}

/// Milliseconds of `90s`, `30m`, `12h`, `7d`.
pub fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 30m, 12h or 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number.checked_mul(seconds * 1000).ok_or_else(wrong)
}

/// `2026-11-23T16:00:00Z` (RFC 3339), or milliseconds since 1970.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse() {
        return Ok(Timestamp::from_millis(millis));
    }
    let wrong = || format!("{text:?} is no time such as 2026-11-23T16:00:00Z");
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    let millis = time.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(millis).map(Timestamp::from_millis).map_err(|_| wrong())
}

/// The time to judge at: as said, else the machine's.
pub fn now(said: Option<Timestamp>) -> Timestamp {
    said.unwrap_or_else(|| Clock::system().now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90s"), Ok(90_000));
        assert_eq!(duration("7d"), Ok(604_800_000));
        assert!(duration("7").is_err());
        assert!(duration("").is_err());
        assert!(duration("hh").is_err());
        assert_eq!(moment("1970-01-01T00:00:01.500Z"), Ok(Timestamp::from_millis(1500)));
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Ok(Timestamp::from_millis(0)));
        assert_eq!(moment("1795449843123"), Ok(Timestamp::from_millis(1_795_449_843_123)));
        assert!(moment("yesterday").is_err());
    }
}
