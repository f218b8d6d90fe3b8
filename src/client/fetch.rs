//! One question to one mirror over HTTP, bounded in bytes and time.
//!
//! The name goes in the body, never in the path, so that it is in no proxy's
//! log. Redirects are followed within the host only: another host is another
//! party, and the name is not its to know.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, Url, redirect};

use crate::dime::{Name, Rejection};
use crate::proof::receipt::{MAX_RECEIPT, Receipt};

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// For the whole answer.
const TOTAL: Duration = Duration::from_secs(30);
/// Redirects within the host.
const REDIRECTS: usize = 3;
/// Longest error answer that is read, bytes.
const MAX_ERROR: usize = 16 * 1024;
/// Longest part of a mirror's words that is shown, characters.
const MAX_SHOWN: usize = 300;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Lookup,
    /// Every version from this one on; 0 for all.
    History {
        from: u64,
    },
}

/// Whose fault it is that there is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The question cannot be asked like this.
    Caller,
    /// Nobody knows: the way to the mirror is broken, or the mirror is down.
    Network,
    /// The mirror answered something else than a receipt.
    Mirror,
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    #[error("{url} refused with {status}: {message}")]
    Status { url: String, status: u16, code: String, message: String },
    #[error("{url} answered with more than {MAX_RECEIPT} bytes")]
    TooLarge { url: String },
    #[error("{url} answered with something that is no receipt: {rejection}")]
    NoReceipt { url: String, rejection: Rejection },
    #[error("{url} answered about another name")]
    OtherName { url: String },
}

impl Error {
    pub fn fault(&self) -> Fault {
        match self {
            Error::Url { .. } | Error::Client(_) => Fault::Caller,
            Error::Status { status: 400..=499, .. } => Fault::Caller,
            Error::Unreachable { .. } => Fault::Network,
            Error::Status { .. }
            | Error::TooLarge { .. }
            | Error::NoReceipt { .. }
            | Error::OtherName { .. } => Fault::Mirror,
        }
    }

    /// A word for programs.
    pub fn rule(&self) -> &str {
        match self {
            Error::Url { .. } => "url",
            Error::Client(_) => "client",
            Error::Unreachable { .. } => "unreachable",
            Error::Status { code, .. } => code,
            Error::TooLarge { .. } => "too-large",
            Error::NoReceipt { rejection, .. } => rejection.rule,
            Error::OtherName { .. } => "other-name",
        }
    }
}

/// A mirror to ask. Keeps its connections.
#[derive(Clone, Debug)]
pub struct Mirror {
    base: Url,
    http: reqwest::Client,
}

/// Asks once. The receipt is about `name`; nothing else in it is checked.
pub async fn fetch(url: &str, name: &Name, ask: Ask) -> Result<Receipt, Error> {
    Mirror::new(url)?.ask(name, ask).await
}

impl Mirror {
    /// `url` is `http://…` or `https://…`, with a path if the mirror has one.
    pub fn new(url: &str) -> Result<Mirror, Error> {
        let refuse = |why: &str| Error::Url { url: url.to_owned(), why: why.to_owned() };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refuse("it begins with http:// or https://"));
        }
        let mut base: Url = url.parse().map_err(|error| refuse(&format!("{error}")))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(refuse("names and passwords do not belong there"));
        }
        base.set_query(None);
        base.set_fragment(None);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .redirect(redirect::Policy::custom(within_host))
            .user_agent(concat!("syndicate/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls());
        if base.host_str().is_some_and(is_this_machine) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(Error::Client)?;
        Ok(Mirror { base, http })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// One question.
    pub async fn ask(&self, name: &Name, ask: Ask) -> Result<Receipt, Error> {
        let (path, body) = match ask {
            Ask::Lookup => ("v1/lookup", serde_json::json!({"name": name.as_str()})),
            Ask::History { from } => {
                ("v1/history", serde_json::json!({"name": name.as_str(), "from": from}))
            }
        };
        let url = format!("{}/{path}", self.base.as_str().trim_end_matches('/'));
        let unreachable = |source: reqwest::Error| {
            let url = url.clone();
            Error::Unreachable { url, source: source.without_url() }
        };
        let request = self.http.post(&url).header(CONTENT_TYPE, "application/json");
        let request = request.header(ACCEPT, "application/x-protobuf").body(body.to_string());
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let body = read(response, MAX_ERROR).await.ok().flatten().unwrap_or_default();
            let (code, message) = words(&body);
            return Err(Error::Status { url, status: status.as_u16(), code, message });
        }
        let body = read(response, MAX_RECEIPT).await.map_err(unreachable)?;
        let Some(body) = body else { return Err(Error::TooLarge { url }) };
        let receipt = Receipt::read(&body);
        let receipt =
            receipt.map_err(|rejection| Error::NoReceipt { url: url.clone(), rejection })?;
        match receipt.name == *name {
            true => Ok(receipt),
            false => Err(Error::OtherName { url }),
        }
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

/// Code and message of `{"error":{…}}`, made harmless for a terminal.
fn words(body: &[u8]) -> (String, String) {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |key: &str| -> Option<String> {
        let text = json.get("error")?.get(key)?.as_str()?;
        Some(text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect())
    };
    let message = word("message").unwrap_or_else(|| "it gave no reason".into());
    (word("code").unwrap_or_else(|| "status".into()), message)
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
        // The redirect itself is then the answer, and no receipt.
        false => attempt.stop(),
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// The public web's CAs, as in the DMTP client. What a receipt says does not
/// rest on them.
fn tls() -> rustls::ClientConfig {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that rustls has by default");
    builder.with_root_certificates(roots).with_no_client_auth()
}
