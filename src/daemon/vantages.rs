//! The places that the crawl looks from, made from the configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::resolver_over;
use crate::config::{Config, VantagePoint};
use crate::crawl::Vantage;
use crate::dmtp::Proxy;
use crate::resolver::{NameServers, Resolver};

/// Longest file with a login, bytes.
const MAX_LOGIN: u64 = 1024;

/// The first place, from which visits are made, and the others.
pub(super) struct Vantages {
    pub main: Vantage,
    pub others: Vec<Vantage>,
}

impl Vantages {
    /// Without any in the configuration there is one, called `main`.
    pub fn new(config: &Config) -> anyhow::Result<Vantages> {
        let mut all = config.vantages.iter().map(|point| vantage(config, point));
        let main = match all.next() {
            Some(first) => first?,
            None => Vantage { name: "main".to_owned(), resolver: dns(config, None)?, proxy: None },
        };
        Ok(Vantages { main, others: all.collect::<anyhow::Result<_>>()? })
    }
}

/// Another path to DNS than the visits take: the second name servers, else those of
/// another vantage. None of them may be one that the visits ask.
pub(super) fn second_path(config: &Config) -> Option<&[SocketAddr]> {
    let first = config.vantages.first().filter(|point| !point.name_servers.is_empty());
    let main = first.map_or(&config.name_servers, |point| &point.name_servers);
    let others = config.vantages.iter().skip(1).map(|point| &point.name_servers);
    let mut paths = std::iter::once(&config.second_name_servers).chain(others);
    let is_other =
        |path: &&Vec<SocketAddr>| !path.is_empty() && path.iter().all(|it| !main.contains(it));
    paths.find(is_other).map(Vec::as_slice)
}

fn vantage(config: &Config, point: &VantagePoint) -> anyhow::Result<Vantage> {
    let proxy = match (&point.proxy, &point.proxy_login) {
        (Some(proxy), Some(path)) => Some(log_in(proxy.clone(), path)?),
        (proxy, _) => proxy.clone(),
    };
    Ok(Vantage { name: point.name.clone(), resolver: dns(config, Some(point))?, proxy })
}

/// A vantage's own name servers, else the mirror's, else the system's.
fn dns(config: &Config, point: Option<&VantagePoint>) -> anyhow::Result<Arc<dyn Resolver>> {
    let own = point.map_or(&[][..], |point| &point.name_servers);
    let servers = match (own, config.name_servers.as_slice()) {
        ([], []) => NameServers::System,
        ([], listed) | (listed, _) => NameServers::Listed(listed.to_vec()),
    };
    resolver_over(config, servers)
}

fn log_in(proxy: Proxy, path: &Path) -> anyhow::Result<Proxy> {
    let failed = || format!("cannot read the login in {}", path.display());
    if std::fs::metadata(path).with_context(failed)?.len() > MAX_LOGIN {
        anyhow::bail!("{} is too large for a login", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(failed)?;
    proxy.with_login(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    /// The first server of the second path.
    fn second(text: &str) -> Option<String> {
        let config = toml::from_str::<File>(text).unwrap().check().unwrap();
        second_path(&config).map(|path| path[0].ip().to_string())
    }

    #[test]
    fn only_what_visits_do_not_ask_is_another_path() {
        let vantage = |servers: &str| {
            format!("[[crawl.vantage]]\nname = \"v{}\"\nservers = [{servers}]\n", servers.len())
        };
        let dns = |servers: &str, second: &str| {
            format!("[dns]\nservers = [{servers}]\nsecond_servers = [{second}]\n")
        };
        let (a, b) = ("\"192.0.2.1:53\"", "\"192.0.2.20:53\"");
        let table = [
            (String::new(), None),
            (dns(a, ""), None),
            (dns(a, b), Some("192.0.2.20")),
            (dns("", a), Some("192.0.2.1")),
            (dns(a, a), None),
            (dns(a, &format!("{b}, {a}")), None),
            // A vantage without name servers of its own asks those of all.
            (format!("{}{}{}", dns(a, ""), vantage(""), vantage(b)), Some("192.0.2.20")),
            (format!("{}{}{}", dns(b, ""), vantage(a), vantage("")), None),
            (format!("{}{}{}", dns(b, ""), vantage(""), vantage(b)), None),
        ];
        for (text, expected) in table {
            assert_eq!(second(&text).as_deref(), expected, "{text}");
        }
    }
}
