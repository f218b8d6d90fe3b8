//! The places that the crawl looks from, made from the configuration.

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
