//! How answers and refusals look: headers, entity tags, errors as JSON.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::errors::with_sources;
use crate::log::answer;

/// For what never changes under its path.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For blobs, which the operator may withdraw.
pub const HOUR: &str = "public, max-age=3600";
/// For what is new with every batch: keep it, but ask before using it.
pub const REVALIDATE: &str = "no-cache";
/// For answers about mailboxes: nobody on the way may keep them.
pub const PRIVATE: &str = "no-store";

/// An answer that is none.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    /// For programs; stable.
    code: &'static str,
    /// For people. It says whose fault it is.
    message: String,
    /// Seconds after which to come back.
    retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), retry_after: None }
    }

    /// The asker's fault: something in the request is wrong.
    pub fn request(code: &'static str, what: impl std::fmt::Display) -> Refusal {
        let message = format!("Your request is at fault: {what}.");
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn too_large(limit: usize) -> Refusal {
        let message = format!("Your request is at fault: its body has more than {limit} bytes.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", message)
    }

    pub fn no_route() -> Refusal {
        let message = "Your request is at fault: there is nothing under this path.";
        Refusal::new(StatusCode::NOT_FOUND, "no-such-path", message)
    }

    pub fn no_method() -> Refusal {
        let message = "Your request is at fault: this path does not take this method.";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
    }

    /// Nobody's fault: it is not there.
    pub fn missing(code: &'static str, message: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn withdrawn() -> Refusal {
        let message = "The operator of this mirror no longer serves these bytes. Log and proofs \
                       stay valid; other mirrors may still have them.";
        let status = StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS;
        Refusal::new(status, "withdrawn", message)
    }

    pub fn budget() -> Refusal {
        let message = "You have asked for too many mailboxes that are not known here. Come back \
                       in an hour.";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "unknown-names", message);
        Refusal { retry_after: Some(3600), ..refusal }
    }

    pub fn reports() -> Refusal {
        let message = "You have reported too often. Come back in an hour.";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "reports", message);
        Refusal { retry_after: Some(3600), ..refusal }
    }

    /// A report that does not hold by itself.
    pub fn unfounded(code: &'static str, why: &dyn std::error::Error) -> Refusal {
        let message = format!("Your report does not hold: {why}.");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// An owner's request that no key in force has signed, or not for here and now.
    pub fn unsigned(refused: &crate::dime::Rejection) -> Refusal {
        let message = format!("Your request is at fault: {}.", refused.message);
        Refusal::new(StatusCode::FORBIDDEN, refused.rule, message)
    }

    pub fn over_quota() -> Refusal {
        let message = "You have asked for too many visits. Come back in an hour.";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "over-quota", message);
        Refusal { retry_after: Some(3600), ..refusal }
    }

    pub fn replay() -> Refusal {
        let message = "Your request is at fault: this one was accepted before.";
        Refusal::new(StatusCode::CONFLICT, "replay", message)
    }

    pub fn busy() -> Refusal {
        let message = "This mirror has too many requests at once. Not your fault; try again.";
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
        Refusal { retry_after: Some(1), ..refusal }
    }

    pub fn slow() -> Refusal {
        let message = "The request took too long: it was sent too slowly, or this mirror is slow.";
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message);
        Refusal { retry_after: Some(5), ..refusal }
    }

    pub fn not_ready() -> Refusal {
        let message = "This mirror has published nothing yet. Not your fault; try again.";
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", message);
        Refusal { retry_after: Some(2), ..refusal }
    }

    pub fn panic() -> Refusal {
        tracing::error!("a request made the HTTP face panic");
        Refusal::ours()
    }

    fn ours() -> Refusal {
        let message =
            "This mirror failed. Not your fault; its operator finds the reason in its log.";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "mirror", message)
    }

    /// Our failure, with its reason for the operator.
    pub fn failure(error: &dyn std::error::Error) -> Refusal {
        tracing::error!(error = with_sources(error), "an HTTP request failed");
        Refusal::ours()
    }
}

impl From<answer::Error> for Refusal {
    fn from(error: answer::Error) -> Refusal {
        match &error {
            answer::Error::Unpublished => Refusal::not_ready(),
            answer::Error::Unsettled => Refusal::busy(),
            answer::Error::TooLong { .. } => {
                Refusal::request("too-long", format!("{error}; ask for a later one with from="))
            }
            answer::Error::Missing { .. } | answer::Error::Log(_) => Refusal::failure(&error),
        }
    }
}

impl From<crate::log::Error> for Refusal {
    fn from(error: crate::log::Error) -> Refusal {
        Refusal::failure(&error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = bytes(body.to_string().into(), "application/json", PRIVATE);
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// 200 with these bytes. Nothing here is ever to be run by a browser.
pub fn bytes(body: Bytes, kind: &'static str, cache: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    (headers, body).into_response()
}

/// The same with an entity tag; 304 if the asker has these bytes.
pub fn tagged(asked: &HeaderMap, body: Bytes, kind: &'static str, cache: &'static str) -> Response {
    let digest = hex::encode(Sha256::digest(&body));
    let tag = format!("\"{}\"", digest.get(..32).unwrap_or_default());
    let has = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == "*" || value == tag);
    let mut response = bytes(if has { Bytes::new() } else { body }, kind, cache);
    if has {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
