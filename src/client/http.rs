//! A place on the web that is asked again and again: one base URL, one client
//! that keeps its connections, every answer bounded in bytes and time.
//!
//! Redirects are followed within the host only: another host is another party.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url, redirect};

use crate::dmtp::Roots;

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// For the whole answer.
const TOTAL: Duration = Duration::from_secs(30);
/// Redirects within the host.
const REDIRECTS: usize = 3;

/// Sites that are kept.
const SITES: usize = 256;

/// Longest body of a refusal that is read, bytes; of a longer one nothing is.
const MAX_ERROR: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url} is no address of a mirror: {why}")]
    Url { url: String, why: String },
    /// TLS cannot be set up on this machine.
    #[error("no HTTP client can be made here")]
    Client(#[source] reqwest::Error),
    #[error("{url} could not be reached")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered with more than {limit} bytes")]
    TooLarge { url: String, limit: usize },
}

/// What came back, of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Seconds, if the answer names them.
    pub retry_after: Option<u64>,
    pub body: Bytes,
}

/// A base URL and its client. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Site {
    base: Url,
    http: reqwest::Client,
}

impl Site {
    /// `url` is `http://…` or `https://…`, with a path if there is one.
    pub fn new(url: &str) -> Result<Site, HttpError> {
        Site::under(url, &Roots::public())
    }

    /// The same, with a certificate of these authorities.
    pub fn under(url: &str, roots: &Roots) -> Result<Site, HttpError> {
        Site::build(url, None, roots)
    }

    /// The same, but reached at these addresses and no others, without a proxy:
    /// for a host that a stranger named. Their ports do not count.
    pub fn pinned(url: &str, addresses: &[SocketAddr], roots: &Roots) -> Result<Site, HttpError> {
        Site::build(url, Some(addresses), roots)
    }

    fn build(
        url: &str,
        addresses: Option<&[SocketAddr]>,
        roots: &Roots,
    ) -> Result<Site, HttpError> {
        let mut base = address(url)?;
        base.set_query(None);
        base.set_fragment(None);
        let mut builder = client(&base, roots);
        if let (Some(addresses), Some(host)) = (addresses, base.host_str()) {
            builder = builder.no_proxy().resolve_to_addrs(host, addresses);
        }
        let http = builder.build().map_err(HttpError::Client)?;
        Ok(Site { base, http })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// The URL of a path below it.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// `GET`; at most `limit` bytes come back.
    pub async fn get(&self, path: &str, limit: usize) -> Result<Answer, HttpError> {
        let url = self.at(path);
        self.send(self.http.get(&url), url, limit).await
    }

    /// `POST` of a body of this media type.
    pub async fn post(
        &self,
        path: &str,
        kind: &str,
        accept: &str,
        body: Bytes,
        limit: usize,
    ) -> Result<Answer, HttpError> {
        let url = self.at(path);
        let request = self.http.post(&url).header(CONTENT_TYPE, kind).header(ACCEPT, accept);
        self.send(request.body(body), url, limit).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: String,
        limit: usize,
    ) -> Result<Answer, HttpError> {
        let unreachable = |source: reqwest::Error| {
            let url = url.clone();
            HttpError::Unreachable { url, source: source.without_url() }
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if !(200..300).contains(&status) {
            let body = read(response, MAX_ERROR).await.ok().flatten().unwrap_or_default();
            return Ok(Answer { status, retry_after, body });
        }
        let body = read(response, limit).await.map_err(unreachable)?;
        let body = body.ok_or(HttpError::TooLarge { url, limit })?;
        Ok(Answer { status, retry_after, body })
    }
}

/// Sites that are kept from one call to the next, with their connections. Clones
/// are the same. Of one runtime: connections end with it.
#[derive(Clone, Debug, Default)]
pub struct Sites(Arc<Mutex<HashMap<String, (Roots, Site)>>>);

impl Sites {
    /// The site at this URL under these authorities: the one from before if there
    /// was one.
    pub fn at(&self, url: &str, roots: &Roots) -> Result<Site, HttpError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &Roots| Arc::ptr_eq(&known.store(), &roots.store());
        if let Some((_, site)) = kept.get(url).filter(|(known, _)| same(known)) {
            return Ok(site.clone());
        }
        let site = Site::under(url, roots)?;
        if kept.len() >= SITES {
            kept.clear();
        }
        kept.insert(url.to_owned(), (roots.clone(), site.clone()));
        Ok(site)
    }
}

/// An address that is told something. Its path and query may be secrets: errors
/// name the host alone.
#[derive(Clone)]
pub struct Hook {
    url: Url,
    http: reqwest::Client,
}

impl Hook {
    pub fn new(url: &str) -> Result<Hook, HttpError> {
        let url = address(url)?;
        let http = client(&url, &Roots::public()).build().map_err(HttpError::Client)?;
        Ok(Hook { url, http })
    }

    /// `POST` of one JSON text; gives the status. Of the answer nothing is read.
    pub async fn post(&self, json: String) -> Result<u16, HttpError> {
        let request = self.http.post(self.url.clone());
        let sent = request.header(CONTENT_TYPE, "application/json").body(json).send().await;
        let answer = sent.map_err(|source| HttpError::Unreachable {
            url: self.url.host_str().unwrap_or_default().to_owned(),
            source: source.without_url(),
        })?;
        Ok(answer.status().as_u16())
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// Whether two URLs are one place, however they are written.
pub fn is_same_place(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        let url = address(url).ok()?;
        Some((url.origin(), url.path().trim_end_matches('/').to_owned()))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// `http://…` or `https://…`, without names and passwords.
fn address(url: &str) -> Result<Url, HttpError> {
    let refuse = |why: &str| HttpError::Url { url: url.to_owned(), why: why.to_owned() };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(refuse("it begins with http:// or https://"));
    }
    let base: Url = url.parse().map_err(|error| refuse(&format!("{error}")))?;
    match base.username().is_empty() && base.password().is_none() {
        true => Ok(base),
        false => Err(refuse("names and passwords do not belong there")),
    }
}

fn client(base: &Url, roots: &Roots) -> reqwest::ClientBuilder {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .redirect(redirect::Policy::custom(within_host))
        .user_agent(concat!("syndicate/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls(roots));
    if base.host_str().is_some_and(is_this_machine) {
        builder = builder.no_proxy();
    }
    builder
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The whole body; `None` if it is longer than `limit`.
async fn read(mut response: Response, limit: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

fn within_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let last = attempt.previous().last();
    let same = last.is_some_and(|last| {
        let next = attempt.url();
        let down = last.scheme() == "https" && next.scheme() != "https";
        last.host_str() == next.host_str() && !down
    });
    match same && attempt.previous().len() <= REDIRECTS {
        true => attempt.follow(),
        // The redirect itself is then the answer, and not what was asked for.
        false => attempt.stop(),
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// What a receipt or a checkpoint says does not rest on the authorities.
fn tls(roots: &Roots) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that rustls has by default");
    builder.with_root_certificates(roots.store()).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        for (one, other, same) in [
            ("https://a.example", "https://A.example:443/", true),
            ("https://a.example/log", "https://a.example/log/", true),
            ("https://a.example", "https://b.example", false),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example/log", false),
            ("a.example", "a.example", false),
        ] {
            assert_eq!(is_same_place(one, other), same, "{one} {other}");
        }
    }
}
