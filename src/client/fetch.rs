//! One question to one mirror over HTTP, bounded in bytes and time.
//!
//! The name goes in the body, never in the path, so that it is in no proxy's
//! log.

use super::http::{HttpError, Site};
use crate::dime::{Name, Rejection};
use crate::proof::receipt::{MAX_RECEIPT, Receipt};

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
    site: Site,
}

/// Asks once. The receipt is about `name`; nothing else in it is checked.
pub async fn fetch(url: &str, name: &Name, ask: Ask) -> Result<Receipt, Error> {
    Mirror::new(url)?.ask(name, ask).await
}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Error {
        match error {
            HttpError::Url { url, why } => Error::Url { url, why },
            HttpError::Client(source) => Error::Client(source),
            HttpError::Unreachable { url, source } => Error::Unreachable { url, source },
            HttpError::TooLarge { url, .. } => Error::TooLarge { url },
        }
    }
}

impl Mirror {
    /// `url` is `http://…` or `https://…`, with a path if the mirror has one.
    pub fn new(url: &str) -> Result<Mirror, Error> {
        Ok(Mirror { site: Site::new(url)? })
    }

    pub fn at(site: Site) -> Mirror {
        Mirror { site }
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.site.url()
    }

    /// One question.
    pub async fn ask(&self, name: &Name, ask: Ask) -> Result<Receipt, Error> {
        let (path, body) = match ask {
            Ask::Lookup => ("v1/lookup", serde_json::json!({"name": name.as_str()})),
            Ask::History { from } => {
                ("v1/history", serde_json::json!({"name": name.as_str(), "from": from}))
            }
        };
        let url = self.site.at(path);
        let (kind, accept) = ("application/json", "application/x-protobuf");
        let answer =
            self.site.post(path, kind, accept, body.to_string().into(), MAX_RECEIPT).await?;
        if !answer.is_success() {
            let (code, message) = words(&answer.body);
            return Err(Error::Status { url, status: answer.status, code, message });
        }
        let receipt = Receipt::read(&answer.body);
        let receipt =
            receipt.map_err(|rejection| Error::NoReceipt { url: url.clone(), rejection })?;
        match receipt.name == *name {
            true => Ok(receipt),
            false => Err(Error::OtherName { url }),
        }
    }
}

/// Code and message of `{"error":{…}}`, made harmless for a terminal.
pub(super) fn words(body: &[u8]) -> (String, String) {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |key: &str| -> Option<String> {
        let text = json.get("error")?.get(key)?.as_str()?;
        Some(text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect())
    };
    let message = word("message").unwrap_or_else(|| "it gave no reason".into());
    (word("code").unwrap_or_else(|| "status".into()), message)
}
